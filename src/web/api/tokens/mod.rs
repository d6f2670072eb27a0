//! The endpoint that exchanges an API key for an access token.

pub mod live_tokens;

use axum::{Json, extract::State, response::IntoResponse};
use http::{
    HeaderMap,
    header::{CACHE_CONTROL, PRAGMA},
};
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use crate::{
    domain::{Error, Invalid},
    service::{Origin, tokens},
    web::failure::Failure,
};

const API_KEY: &str = "X-API-Key";

/// An access token.
#[derive(Serialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenBody {
    /// The access token, a JWT in the profile of RFC 9068.
    access_token: String,
    /// Always `bearer`.
    token_type: &'static str,
    /// Lifetime of the token in seconds.
    expires_in: i64,
}

/// Exchange an API key for an access token
///
/// The token carries the agent's current capabilities. A capability that is revoked from the agent later is refused
/// immediately, although the token still lists it. The token's lifetime is the setting `JWT_EXPIRATION_MINUTES`,
/// limited by the expiry of the key.
#[utoipa::path(
    post, path = "/auth/token", tag = "Tokens", operation_id = "exchange_api_key",
    params(("X-API-Key" = String, Header, description = "The API key.")),
    responses(
        (status = 200, description = "The access token.", body = TokenBody),
        (status = 400, description = "The agent's capabilities do not fit in a token."),
        (status = 422, description = "The header `X-API-Key` is missing."),
    )
)]
pub async fn exchange(
    State(services): Shared,
    origin: Origin,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Failure> {
    let missing = || Error::field(&["header", API_KEY], Invalid::Missing);
    // A header that is not visible ASCII is refused and audited like any other invalid key.
    let raw_key = headers.get(API_KEY).ok_or_else(missing)?.to_str().unwrap_or_default();
    let issued = tokens::exchange(&services, &origin, raw_key).await?;
    let token = TokenBody {
        access_token: issued.access_token.expose_secret().to_owned(),
        token_type: "bearer",
        expires_in: issued.expires_in,
    };
    Ok(([(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")], Json(token)))
}
