//! The HTTP server: connections, limits, timeouts, cross-origin rules and response headers.

pub(super) mod admission;
pub(super) mod arrival;
pub(super) mod cors;
pub(super) mod host;
pub mod matched;
pub mod metrics;
pub mod rate_limit;
pub mod security_headers;
pub mod serve;
mod starting;
pub(super) mod timeouts;
