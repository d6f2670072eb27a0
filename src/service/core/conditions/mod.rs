//! The conditions under which a client wants a change: once, however often it sends the request, and only if nobody
//! else changed the object in the meantime.

mod once;
mod version;

pub use once::{IdempotencyKey, Once, Repeatable};
pub use version::{Expected, Version, Versioned};
