//! The documents and endpoints that OAuth clients know by their RFCs.

#![expect(clippy::missing_errors_doc, reason = "each operation lists its errors as responses, for the description")]

mod client;
pub mod endpoints;
pub mod error;
pub mod jwks;
pub mod metadata;
mod parameters;

/// Whether an error is told here in the form of RFC 6749 §5.2, also one that no endpoint made: libraries take whatever has no
/// `error` for what they asked for. The path may begin with that of the public URL.
pub(super) fn owns(path: &str) -> bool {
    ["/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/authorize"].iter().any(|own| path.ends_with(own))
}
