//! What operators see of a running service.

mod access_log;
mod log;
mod traces;
