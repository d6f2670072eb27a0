//! The health checks.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json,
    extract::{ConnectInfo, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::service::{
    Services,
    health::{self, Report},
};

/// Path of the health check of older clients.
pub(in crate::web) const HEALTH: &str = "/_health";
/// Path of the liveness check.
pub(in crate::web) const LIVEZ: &str = "/livez";
/// Path of the readiness check.
pub(in crate::web) const READYZ: &str = "/readyz";

/// Headers of requests that come through a proxy.
const FORWARDING: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

/// The health of the service.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    status: &'static str,
}

impl Health {
    pub(in crate::web) const OK: Self = Self { status: "ok" };
}

/// Whether this node can serve requests.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    /// `ok` or `failing`.
    status: &'static str,
    /// The checks.
    checks: Vec<CheckBody>,
}

/// A check of the readiness.
#[derive(Serialize, ToSchema)]
#[schema(as = ReadinessCheck)]
pub struct CheckBody {
    /// The part of the service: `audit_log`, `migrations`, `master_key`; `database` while the service starts; `shutdown`
    /// while it stops.
    name: &'static str,
    /// `ok` or `failing`.
    status: &'static str,
    /// Why the check fails. Only for clients on the same machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Check health
///
/// Succeeds while the service is running. Needs no authentication and is never rate-limited or rejected under load.
#[utoipa::path(
    get, path = HEALTH, tag = "Health", operation_id = "health",
    responses((status = 200, description = "The service is running.", body = Health))
)]
pub async fn health() -> Json<Health> {
    Json(Health::OK)
}

/// Check liveness
///
/// Succeeds while the process responds, also while it starts. If it does not, restart it. Needs no authentication and is
/// never rate-limited or rejected under load.
#[utoipa::path(
    get, path = LIVEZ, tag = "Health", operation_id = "livez",
    responses((status = 200, description = "The process responds.", body = Health))
)]
pub async fn livez() -> Json<Health> {
    Json(Health::OK)
}

/// Check readiness
///
/// Succeeds if this node can write an audit record, the database has the schema that it knows, and the master key opens
/// the signing keys. If it fails, send requests to another node. Needs no authentication and is never rate-limited or
/// rejected under load; requests within a second share one check. The reason of a failure is for clients on the same
/// machine only.
#[utoipa::path(
    get, path = READYZ, tag = "Health", operation_id = "readyz",
    responses(
        (status = 200, description = "The node can serve requests.", body = Readiness),
        (status = 503, description = "A check fails.", body = Readiness),
    )
)]
pub async fn readyz(
    State(services): State<Arc<Services>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let report = health::readiness(&services).await;
    respond(&report, may_see_reasons(peer, &headers))
}

/// Renders a readiness report.
pub(in crate::web) fn respond(report: &Report, with_reasons: bool) -> Response {
    let status = |is_ok: bool| if is_ok { "ok" } else { "failing" };
    let check = |check: &health::Check| CheckBody {
        name: check.name,
        status: status(check.failure.is_none()),
        reason: check.failure.clone().filter(|_| with_reasons),
    };
    let checks = report.checks.iter().map(check).collect();
    let code = if report.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Readiness { status: status(report.is_ready()), checks })).into_response()
}

/// Returns true for a client on this machine. A proxy on this machine is not its clients: the peer address is the
/// proxy's, so a request that was forwarded gets no reasons.
pub(in crate::web) fn may_see_reasons(peer: SocketAddr, headers: &HeaderMap) -> bool {
    peer.ip().to_canonical().is_loopback() && !FORWARDING.iter().any(|name| headers.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_sees_reasons() {
        let sees = |peer: &str, header: Option<&'static str>| {
            let headers = header.map(|name| (http::HeaderName::from_static(name), http::HeaderValue::from_static("x")));
            may_see_reasons(peer.parse().unwrap(), &HeaderMap::from_iter(headers))
        };
        for peer in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(sees(peer, None), "{peer}");
            for header in FORWARDING {
                assert!(!sees(peer, Some(header)), "{peer} {header}");
            }
        }
        for peer in ["10.0.0.1:1", "203.0.113.1:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1", "0.0.0.0:1"] {
            assert!(!sees(peer, None), "{peer}");
        }
    }
}
