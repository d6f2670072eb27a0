//! Serves the metrics, on a listener of their own.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::future;
use http::{StatusCode, header::CONTENT_TYPE};
use tokio::{
    net::TcpListener,
    sync::Mutex,
    task,
    time::{MissedTickBehavior, interval},
};

use super::{
    security_headers,
    serve::{Limits, serve},
};
use crate::{
    service::{
        Services,
        gauges::{self, Counted},
    },
    telemetry::metrics::Gauge,
};

/// The path of the metrics.
pub const PATH: &str = "/metrics";
/// Maximum number of open connections. Further ones wait until one closes.
pub const CONNECTIONS: usize = 128;
/// How often recent observations are added to the histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// The version of the Prometheus text format.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves the metrics until it is dropped.
pub async fn run(listener: TcpListener, services: Arc<Services>) {
    let limits = Limits {
        header_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        max_connections: CONNECTIONS,
        max_requests: CONNECTIONS,
        drain: Duration::ZERO,
        body_bytes: 0,
    };
    let (router, uncounted) = (router(services.clone()), Gauge::noop());
    let serving = serve(listener, router, &limits, &uncounted, std::future::pending());
    future::join(serving, keep_up(&services)).await;
}

async fn keep_up(services: &Services) -> Infallible {
    let mut ticks = interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        services.metrics().upkeep();
    }
}

fn router(services: Arc<Services>) -> Router {
    let exporter = Arc::new(Exporter { services, arrived: AtomicU64::new(0), last: Mutex::default() });
    Router::new()
        .route(PATH, get(metrics))
        .layer(axum::middleware::map_response(async |mut response: Response| {
            security_headers::set(response.headers_mut());
            response
        }))
        .with_state(exporter)
}

async fn metrics(State(exporter): State<Arc<Exporter>>) -> Response {
    match exporter.text().await {
        Some(text) => ([(CONTENT_TYPE, FORMAT)], text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Renders the metrics one at a time. Requests that wait meanwhile share the next rendering, so many scrapers cost as
/// much as two.
struct Exporter {
    services: Arc<Services>,
    /// How many requests have arrived.
    arrived: AtomicU64,
    last: Mutex<Rendered>,
}

#[derive(Default)]
struct Rendered {
    /// How many requests had arrived when the rendering began: it is recent enough for those.
    covers: u64,
    text: Bytes,
    counted: Counted,
}

impl Exporter {
    async fn text(&self) -> Option<Bytes> {
        let own = self.arrived.fetch_add(1, Ordering::SeqCst) + 1;
        let mut last = self.last.lock().await;
        if last.covers < own {
            let covers = self.arrived.load(Ordering::SeqCst);
            gauges::refresh(&self.services, &mut last.counted).await;
            let services = self.services.clone();
            last.text = task::spawn_blocking(move || services.metrics().render()).await.ok()?.into();
            last.covers = covers;
        }
        Some(last.text.clone())
    }
}
