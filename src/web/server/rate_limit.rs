//! Limits how often an address may ask.

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
    web::{failure::Failure, request::client_ip::ClientIp},
};

const MINUTE: Duration = Duration::from_mins(1);
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const REMAINING: &str = "x-ratelimit-remaining";

/// A limit on each network's requests per minute, all at once or spread. Clones count together.
#[derive(Clone)]
pub struct RateLimit {
    name: &'static str,
    per_minute: NonZeroU32,
    /// What every answer says of it.
    policy: HeaderValue,
    governor: Arc<GovernorConfig<ByNetwork, StateInformationMiddleware>>,
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
    /// A limit called `name` in the `RateLimit` headers.
    ///
    /// # Panics
    /// Never: neither the period nor the burst can be zero, and a name holds nothing that a header may not.
    #[must_use]
    #[expect(clippy::expect_used, reason = "see above")]
    pub fn new(name: &'static str, per_minute: NonZeroU32) -> Self {
        let governor = GovernorConfigBuilder::default()
            .period((MINUTE / per_minute.get()).max(Duration::from_nanos(1)))
            .burst_size(per_minute.get())
            .key_extractor(ByNetwork)
            .use_headers()
            .finish()
            .expect("a period and a burst");
        let policy = HeaderValue::try_from(format!("\"{name}\";q={per_minute};w={}", MINUTE.as_secs()));
        Self { name, per_minute, policy: policy.expect("a plain text"), governor: Arc::new(governor) }
    }

    /// Calibrates the clock of all limits, once in a process: up to 200 ms of a processor.
    pub fn calibrate() {
        let _ = DefaultClock::default();
    }

    /// Counts the requests of `routes`.
    pub(in crate::web) fn count<S: Clone + Send + Sync + 'static>(&self, routes: MethodRouter<S>) -> MethodRouter<S> {
        let governor = GovernorLayer::<_, _, Body>::new(self.governor.clone()).error_handler(refuse);
        routes.layer((axum::middleware::map_response_with_state(self.clone(), describe), governor))
    }

    /// Forgets networks that have all their requests left. For the background.
    pub fn retain_recent(&self) {
        self.governor.limiter().retain_recent();
        self.governor.limiter().shrink_to_fit();
    }
}

fn refuse(error: GovernorError) -> Response {
    let error = match error {
        // The wait comes rounded down, and a client that comes back early is refused again.
        GovernorError::TooManyRequests { wait_time, .. } => Error::RateLimited { retry_after: wait_time + 1 },
        other => Error::internal(other.to_string()),
    };
    Failure(error).into_response()
}

/// Says what is left, in the headers of draft-ietf-httpapi-ratelimit-headers-10.
async fn describe(State(limit): State<RateLimit>, mut response: Response) -> Response {
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
