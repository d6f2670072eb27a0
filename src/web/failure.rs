//! Maps errors to HTTP status codes and headers. The API, the OAuth endpoints and the console add the bodies.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{
    HeaderValue, Method, StatusCode, Uri,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::{
    domain::{AuthFailure, Denial, Error, RequestId},
    service::tokens::dpop,
    web::request::access_log::{shown_method, shown_path},
};

/// An error to be returned as a response.
#[derive(Debug)]
pub struct Failure(pub Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

const fn status(error: &Error) -> StatusCode {
    match error {
        Error::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Refused(_) | Error::Token(_) => StatusCode::BAD_REQUEST,
        Error::Unauthenticated(AuthFailure::AgentSuspended | AuthFailure::AgentRevoked)
        | Error::Denied(_)
        | Error::CrossSite => StatusCode::FORBIDDEN,
        Error::Unauthenticated(_) | Error::ProofNeeded => StatusCode::UNAUTHORIZED,
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::Conflict(_) => StatusCode::CONFLICT,
        Error::Stale => StatusCode::PRECONDITION_FAILED,
        Error::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Error::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Error::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        // The API answers a repeated request itself, and nothing else asks for repetitions.
        Error::Internal(_) | Error::Repeated(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<AuthFailure> for Failure {
    fn from(failure: AuthFailure) -> Self {
        Self(failure.into())
    }
}

impl IntoResponse for Failure {
    /// Sets the status and headers, and attaches the error for the layer that renders the body.
    fn into_response(self) -> Response {
        let mut response = status(&self.0).into_response();
        if let Some(challenge) = challenge(&self.0) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        let retry_after = match self.0 {
            Error::RateLimited { retry_after } => Some(retry_after),
            Error::Unavailable(_) => Some(1),
            _ => None,
        };
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(Arc::new(self.0));
        response
    }
}

/// Returns the challenge in `WWW-Authenticate` (RFC 6750 §3).
fn challenge(error: &Error) -> Option<HeaderValue> {
    match error {
        Error::Unauthenticated(AuthFailure::InvalidToken) => {
            let description = AuthFailure::InvalidToken.detail();
            let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{description}\"");
            HeaderValue::try_from(challenge).ok()
        }
        Error::Unauthenticated(AuthFailure::AgentSuspended | AuthFailure::AgentRevoked) => None,
        Error::Unauthenticated(AuthFailure::InvalidDpopProof(_)) => dpop_challenge("invalid_dpop_proof"),
        Error::Unauthenticated(AuthFailure::DpopNonceNeeded) => dpop_challenge("use_dpop_nonce"),
        Error::Unauthenticated(_) => Some(HeaderValue::from_static("Bearer")),
        // Capability names are scope tokens, which need no escaping in quotes.
        Error::Denied(Denial::MissingCapability(name)) => {
            HeaderValue::try_from(format!("Bearer error=\"insufficient_scope\", scope=\"{name}\"")).ok()
        }
        _ => None,
    }
}

/// Returns a DPoP challenge (RFC 9449 §7.1).
fn dpop_challenge(error: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("DPoP error=\"{error}\", algs=\"{}\"", dpop::ALGORITHMS.join(" "))).ok()
}

/// Logs errors whose causes are not sent to the client.
pub(super) fn log(error: &Error, id: Option<&RequestId>, method: &Method, uri: &Uri) {
    let (Error::Internal(_) | Error::Unavailable(Some(_))) = error else { return };
    let (method, path) = (shown_method(method), &*shown_path(uri));
    tracing::error!(request_id = id.map(RequestId::as_str), method, path, "{}", error.with_causes());
}
