//! Extraction of everything that handlers read from a request.

pub(super) mod access_log;
pub(super) mod authorization;
pub mod client_ip;
pub(super) mod dpop;
pub mod extract;
pub mod fields;
pub mod request_id;
pub mod schema;
