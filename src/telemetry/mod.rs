//! What operators see of a running service: metrics, traces, and the rule that no credential is in these or in the log.

pub mod metrics;
pub mod redact;
pub mod traces;
