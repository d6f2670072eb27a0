//! Whether the service runs.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// The service's own state.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Answers while the service runs. Neither authenticated nor limited.
#[utoipa::path(
    get, path = "/_health", tag = "Health", operation_id = "health",
    responses((status = 200, description = "The service runs.", body = Health))
)]
pub async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}
