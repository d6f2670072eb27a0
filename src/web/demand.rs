//! What a route demands of its callers: authentication, a rate limit, and the origins that may read its responses.

use http::Method;

use crate::service::Action;

/// Path prefix of the API. The API is also served without it, for older clients.
pub const API_PREFIX: &str = "/api/v1";

/// The authentication and authorization that a route demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// None.
    Nothing,
    /// An API key in `X-API-Key`.
    ApiKey,
    /// Client authentication (RFC 6749 §2.3).
    Client,
    /// An access token that permits the action, or client authentication by an agent that may perform it.
    ClientOr(Action),
    /// An access token that permits the action.
    Action(Action),
}

/// The rate limit that applies to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// None.
    Never,
    /// The limit on authentication.
    Auth,
    /// The limit on everything else.
    Api,
}

/// The other origins whose scripts may read a route's responses in a browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origins {
    /// All.
    Any,
    /// Those in the setting `CORS_ORIGINS`.
    Configured,
    /// None.
    None,
}

/// One route and its demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The method.
    pub method: Method,
    /// The path, with `{placeholders}`.
    pub path: String,
    /// The authentication and authorization it demands.
    pub demand: Demand,
    /// The other origins that may read its responses.
    pub origins: Origins,
    /// True if the route is also served below [`API_PREFIX`], where it is documented.
    pub is_prefixed: bool,
    /// True if a client may send `Idempotency-Key`.
    pub is_repeatable: bool,
    /// True if the object has an entity tag.
    pub is_versioned: bool,
}
