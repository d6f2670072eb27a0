//! Rate limits per client network.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use governor::{clock::DefaultClock, middleware::StateInformationMiddleware};
use http::{HeaderName, HeaderValue, Request};
use tower_governor::{
    GovernorError, GovernorLayer,
    governor::{GovernorConfig, GovernorConfigBuilder},
    key_extractor::KeyExtractor,
};

use crate::{
    domain::{Error, credential::network::network},
    telemetry::metrics::{Metrics, labels::Refusal},
    web::{failure::Failure, request::client_ip::ClientIp},
};

const MINUTE: Duration = Duration::from_mins(1);
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const REMAINING: &str = "x-ratelimit-remaining";

/// A limit on the requests per minute of each client network, which may come in a burst. Clones share their counts.
#[derive(Clone)]
pub struct RateLimit {
    name: &'static str,
    per_minute: NonZeroU32,
    /// The value of the `RateLimit-Policy` header.
    policy: HeaderValue,
    governor: Arc<GovernorConfig<ByNetwork, StateInformationMiddleware>>,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Debug)]
struct ByNetwork;

impl KeyExtractor for ByNetwork {
    type Key = std::net::IpAddr;

    fn extract<T>(&self, request: &Request<T>) -> Result<Self::Key, GovernorError> {
        let client = request.extensions().get::<ClientIp>().ok_or(GovernorError::UnableToExtractKey)?;
        Ok(network(client.0))
    }
}

impl RateLimit {
    /// Creates a limit that is called `name` in the `RateLimit` headers. Counts its rejections in `metrics`.
    ///
    /// # Panics
    /// If `name` is not valid in a header. The period and the burst cannot be zero.
    #[must_use]
    #[expect(clippy::expect_used, reason = "see above")]
    pub fn new(name: &'static str, per_minute: NonZeroU32, metrics: Arc<Metrics>) -> Self {
        let governor = GovernorConfigBuilder::default()
            .period((MINUTE / per_minute.get()).max(Duration::from_nanos(1)))
            .burst_size(per_minute.get())
            .key_extractor(ByNetwork)
            .use_headers()
            .finish()
            .expect("period and burst are positive");
        let policy = HeaderValue::try_from(format!("\"{name}\";q={per_minute};w={}", MINUTE.as_secs()));
        let policy = policy.expect("the name is valid in a header");
        Self { name, per_minute, policy, governor: Arc::new(governor), metrics }
    }

    /// Calibrates the clock of all limits, which takes up to 200 ms of CPU time once per process.
    pub fn calibrate() {
        let _ = DefaultClock::default();
    }

    /// Applies the limit to `routes`.
    pub(in crate::web) fn apply<S: Clone + Send + Sync + 'static>(&self, routes: MethodRouter<S>) -> MethodRouter<S> {
        let metrics = self.metrics.clone();
        let reject = move |error| {
            metrics.refusals.increment(Refusal::RateLimited);
            reject(error)
        };
        let governor = GovernorLayer::<_, _, Body>::new(self.governor.clone()).error_handler(reject);
        routes.layer((axum::middleware::map_response_with_state(self.clone(), set_headers), governor))
    }

    /// Removes networks that have not used any of their requests. To be called periodically.
    pub fn retain_recent(&self) {
        self.governor.limiter().retain_recent();
        self.governor.limiter().shrink_to_fit();
    }
}

fn reject(error: GovernorError) -> Response {
    let error = match error {
        // The wait is rounded down, and a client that retries too early is rejected again.
        GovernorError::TooManyRequests { wait_time, .. } => Error::RateLimited { retry_after: wait_time + 1 },
        other => Error::internal(other.to_string()),
    };
    Failure(error).into_response()
}

/// Replaces the headers of the governor by those of draft-ietf-httpapi-ratelimit-headers-10.
async fn set_headers(State(limit): State<RateLimit>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    let remaining = headers.get(REMAINING).and_then(|value| value.to_str().ok()?.parse::<u32>().ok()).unwrap_or(0);
    for name in ["x-ratelimit-limit", REMAINING, "x-ratelimit-after", "x-ratelimit-whitelisted"] {
        headers.remove(name);
    }
    let most = limit.per_minute.get();
    let until_full = (u64::from(most.saturating_sub(remaining)) * MINUTE.as_secs()).div_ceil(u64::from(most));
    headers.insert(POLICY, limit.policy);
    if let Ok(left) = HeaderValue::try_from(format!("\"{}\";r={remaining};t={until_full}", limit.name)) {
        headers.insert(LIMIT, left);
    }
    response
}
