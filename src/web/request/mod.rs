//! What handlers read from a request: body fields, parameters, client address, request ID and proof of possession.

pub mod client_ip;
pub(super) mod dpop;
pub mod extract;
pub mod fields;
pub mod request_id;
