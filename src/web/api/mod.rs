//! The JSON API: handlers that parse into domain types, call one use case, and render its result.

#![expect(clippy::missing_errors_doc, reason = "each operation lists its errors as responses, for the description")]

pub mod agents;
pub mod audit;
pub mod capabilities;
pub mod credentials;
pub mod error;
pub mod health;
pub mod paging;
pub mod resources;
pub mod tokens;

use std::sync::Arc;

use crate::service::Services;

/// What handlers share.
pub(super) type Shared = axum::extract::State<Arc<Services>>;
