//! The health check.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// Path of the health check.
pub(in crate::web) const PATH: &str = "/_health";

/// The health of the service.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Check health
///
/// Succeeds while the service is running. Needs no authentication and is never rate-limited or rejected under load.
#[utoipa::path(
    get, path = PATH, tag = "Health", operation_id = "health",
    responses((status = 200, description = "The service is running.", body = Health))
)]
pub async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}
