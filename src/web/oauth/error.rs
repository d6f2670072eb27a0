//! Error responses of the OAuth endpoints (RFC 6749 §5.2).

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, PRAGMA, WWW_AUTHENTICATE},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{AuthFailure, Denial, Error, token::TokenRefusal},
    web::failure::Failure,
};

/// Headers that keep responses with secrets out of caches (RFC 6749 §5.1).
pub(in crate::web) const NO_STORE: [(http::HeaderName, &str); 2] = [(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")];

const INVALID_CLIENT: &str = "invalid_client";
const INVALID_REQUEST: &str = "invalid_request";

/// An error of an OAuth endpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthError)]
pub struct ErrorBody {
    /// Error code (RFC 6749 section 5.2, RFC 8707 section 2).
    error: &'static str,
    /// Explanation of the error.
    error_description: String,
}

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> Self {
        Self { error: code(error), error_description: error.to_string() }
    }
}

fn code(error: &Error) -> &'static str {
    match error {
        Error::Token(refusal) => refusal.code(),
        Error::Unauthenticated(AuthFailure::InvalidToken | AuthFailure::MissingToken) => "invalid_token",
        Error::Unauthenticated(AuthFailure::InvalidDpopProof(_)) => "invalid_dpop_proof",
        Error::Unauthenticated(AuthFailure::DpopNonceNeeded) => "use_dpop_nonce",
        Error::Unauthenticated(_) => INVALID_CLIENT,
        Error::Denied(Denial::MissingCapability(_)) => "insufficient_scope",
        Error::Denied(_) => "unauthorized_client",
        Error::Unavailable(_) | Error::RateLimited { .. } => "temporarily_unavailable",
        Error::Internal(_) => "server_error",
        _ => INVALID_REQUEST,
    }
}

/// Returns the error for an unknown path or method.
pub(super) fn not_served(status: StatusCode) -> Response {
    let error_description = status.canonical_reason().unwrap_or("Error").to_owned();
    (status, NO_STORE, Json(ErrorBody { error: INVALID_REQUEST, error_description })).into_response()
}

/// An error to be rendered for an OAuth client.
pub struct OAuthFailure {
    error: Error,
    /// True if the client used HTTP Basic, so that the response must challenge it accordingly.
    used_basic: bool,
}

impl From<Error> for OAuthFailure {
    fn from(error: Error) -> Self {
        Self { error, used_basic: false }
    }
}

impl From<AuthFailure> for OAuthFailure {
    fn from(failure: AuthFailure) -> Self {
        Error::from(failure).into()
    }
}

impl From<TokenRefusal> for OAuthFailure {
    fn from(refusal: TokenRefusal) -> Self {
        Error::from(refusal).into()
    }
}

impl OAuthFailure {
    pub(super) fn with_basic(self, used_basic: bool) -> Self {
        Self { used_basic, ..self }
    }
}

impl IntoResponse for OAuthFailure {
    fn into_response(self) -> Response {
        let body = ErrorBody::from(&self.error);
        let is_client = body.error == INVALID_CLIENT;
        // Only the status and the challenge (RFC 6750 §3) are shared with the API.
        let (mut parts, _) = Failure(self.error).into_response().into_parts();
        if is_client {
            parts.status = StatusCode::UNAUTHORIZED;
            parts.headers.remove(WWW_AUTHENTICATE);
            if self.used_basic {
                parts.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"AIMS\""));
            }
        }
        parts.headers.remove(http::header::CONTENT_LENGTH);
        (parts.status, parts.headers, NO_STORE, Json(body)).into_response()
    }
}
