//! The documents and endpoints that OAuth clients know by their RFCs.

pub mod jwks;
