//! Whether the service runs.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// Where the service says that it runs.
pub(in crate::web) const PATH: &str = "/_health";

/// The service's own state.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Answers while the service runs. Neither authenticated nor limited.
#[utoipa::path(
    get, path = PATH, tag = "Health", operation_id = "health",
    responses((status = 200, description = "The service runs.", body = Health))
)]
pub async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}
