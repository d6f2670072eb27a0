//! Errors of the OAuth endpoints, in the form of RFC 6749 §5.2.

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

/// What a client sends to have answers to secrets kept nowhere (RFC 6749 §5.1).
pub(in crate::web) const NOT_STORED: [(http::HeaderName, &str); 2] =
    [(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")];

const INVALID_CLIENT: &str = "invalid_client";
const INVALID_REQUEST: &str = "invalid_request";

/// An error of an OAuth endpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthError)]
pub struct ErrorBody {
    /// What is wrong, for programs (RFC 6749 §5.2, RFC 8707 §2).
    error: &'static str,
    /// What is wrong, for people.
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

/// Answers for a path or a method that nothing is served at.
pub(super) fn not_served(status: StatusCode) -> Response {
    let error_description = status.canonical_reason().unwrap_or("Error").to_owned();
    (status, NOT_STORED, Json(ErrorBody { error: INVALID_REQUEST, error_description })).into_response()
}

/// An error on its way to an OAuth client.
pub struct OAuthFailure {
    error: Error,
    /// Whether the client tried to authenticate by HTTP Basic, and is to be asked so again.
    basic: bool,
}

impl From<Error> for OAuthFailure {
    fn from(error: Error) -> Self {
        Self { error, basic: false }
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
    pub(super) fn tried_basic(self, basic: bool) -> Self {
        Self { basic, ..self }
    }
}

impl IntoResponse for OAuthFailure {
    fn into_response(self) -> Response {
        let body = ErrorBody::from(&self.error);
        let is_client = body.error == INVALID_CLIENT;
        // The status, and the challenge of RFC 6750 §3 for bearers; the body is this endpoint's own.
        let (mut parts, _) = Failure(self.error).into_response().into_parts();
        if is_client {
            parts.status = StatusCode::UNAUTHORIZED;
            parts.headers.remove(WWW_AUTHENTICATE);
            if self.basic {
                parts.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"AIMS\""));
            }
        }
        parts.headers.remove(http::header::CONTENT_LENGTH);
        (parts.status, parts.headers, NOT_STORED, Json(body)).into_response()
    }
}
