//! The documents and endpoints that OAuth clients know by their RFCs.

#![expect(clippy::missing_errors_doc, reason = "each operation lists its errors as responses, for the description")]

mod client;
pub mod endpoints;
pub mod error;
pub mod jwks;
pub mod metadata;
mod parameters;
