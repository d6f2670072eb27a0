//! The JSON API. Each handler parses the request into domain types, calls one service function, and renders the result.

#![expect(clippy::missing_errors_doc, reason = "each operation lists its errors as responses in the OpenAPI document")]

pub mod agents;
pub mod answer;
pub mod audit;
pub mod capabilities;
pub mod conditions;
pub mod credentials;
pub mod health;
pub mod paging;
pub mod resources;
pub mod tokens;

use std::sync::Arc;

use crate::service::Services;

/// The state of all handlers.
pub(super) type Shared = axum::extract::State<Arc<Services>>;
