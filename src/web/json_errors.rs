//! Renders errors of the API and the OAuth endpoints as JSON.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    domain::{Error, RequestId, error::FieldError},
    web::{
        failure::{self, Failure},
        oauth::{self, error::NO_STORE},
        server::timeouts::RequestTimeout,
    },
};

/// Adds the body to every error response of the router inside, and applies the timeout.
pub(in crate::web) async fn render(
    State((metadata_url, timeout)): State<(Arc<str>, RequestTimeout)>,
    request: Request,
    next: Next,
) -> Response {
    let context = ErrorContext::of(&request);
    let response = timeout.run(next.run(request)).await;
    let mut response = response.unwrap_or_else(|error| Failure(error).into_response());
    add_metadata_url(&metadata_url, &mut response);
    context.render(response)
}

/// The parts of a request that an error's body and log line depend on.
pub(in crate::web) struct ErrorContext {
    accepts_problem_details: bool,
    request_id: Option<RequestId>,
    method: Method,
    uri: Uri,
}

impl ErrorContext {
    pub(in crate::web) fn of<B>(request: &http::Request<B>) -> Self {
        Self {
            accepts_problem_details: accepts_problem_details(request.headers()),
            request_id: request.extensions().get().cloned(),
            method: request.method().clone(),
            uri: request.uri().clone(),
        }
    }

    /// Adds the body to an error response: `{"detail": …}`, problem details (RFC 9457) if the client accepts them, or
    /// the form of RFC 6749 at the OAuth endpoints. Returns other responses unchanged.
    pub(in crate::web) fn render(self, response: Response) -> Response {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return response;
        }
        let error = response.extensions().get::<Arc<Error>>().cloned();
        let error = error.as_deref();
        if let Some(error) = error {
            failure::log(error, self.request_id.as_ref(), &self.method, &self.uri);
        }
        if response.headers().get(CONTENT_TYPE).is_some_and(|media_type| media_type == "application/json") {
            // The handler has already written the body.
            return response;
        }
        if let Some(error) = error.filter(|_| oauth::owns(self.uri.path())) {
            let (mut parts, _) = response.into_parts();
            parts.headers.remove(CONTENT_LENGTH);
            return (parts, NO_STORE, Json(oauth::error::ErrorBody::from(error))).into_response();
        }
        let body = if self.accepts_problem_details {
            let request_id = self.request_id.map(|id| id.as_str().to_owned());
            let (title, detail, errors) = (reason(status), detail(status, error), fields(error));
            Json(Problem { r#type: "about:blank", title, status: status.as_u16(), detail, errors, request_id })
                .into_response()
        } else if let Some(Error::Invalid(_)) = error {
            Json(ValidationErrorBody { detail: fields(error) }).into_response()
        } else {
            Json(ErrorBody { detail: detail(status, error) }).into_response()
        };
        let media_type = if self.accepts_problem_details { "application/problem+json" } else { "application/json" };
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        Response::from_parts(parts, body.into_body())
    }
}

/// Adds the URL of the protected resource metadata to bearer and DPoP challenges (RFC 9728 §5.1).
fn add_metadata_url(metadata_url: &str, response: &mut Response) {
    let Some(challenge) = response.headers().get(WWW_AUTHENTICATE).and_then(|challenge| challenge.to_str().ok()) else {
        return;
    };
    let parameters = ["Bearer", "DPoP"].iter().find_map(|scheme| challenge.strip_prefix(scheme));
    let Some(parameters) = parameters else { return };
    let separator = if parameters.is_empty() { " " } else { ", " };
    let challenge = HeaderValue::try_from(format!("{challenge}{separator}resource_metadata=\"{metadata_url}\""));
    if let Ok(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
}

/// An error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    /// Explanation of the error.
    detail: String,
}

/// An invalid request.
#[derive(Serialize, ToSchema)]
#[schema(as = ValidationError)]
pub struct ValidationErrorBody {
    /// The invalid fields.
    detail: Vec<FieldErrorBody>,
}

/// An invalid field.
#[derive(Serialize, ToSchema)]
#[schema(as = FieldError)]
pub struct FieldErrorBody {
    /// Error code.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Location: `body`, `query` or `header`, followed by the name of the field.
    loc: Vec<String>,
    /// Explanation of the error.
    msg: String,
    /// The rejected value. Omitted for secrets and for arrays and objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Value>,
}

/// Problem details (RFC 9457).
#[derive(Serialize)]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldErrorBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

fn detail(status: StatusCode, error: Option<&Error>) -> String {
    error.map_or_else(|| reason(status).to_owned(), ToString::to_string)
}

fn fields(error: Option<&Error>) -> Vec<FieldErrorBody> {
    let Some(Error::Invalid(fields)) = error else { return Vec::new() };
    let body = |field: &FieldError| FieldErrorBody {
        kind: field.invalid.kind(),
        loc: field.location.clone(),
        msg: field.invalid.message().into_owned(),
        input: field.input.clone(),
    };
    fields.iter().map(body).collect()
}

/// Returns true if `Accept` lists problem details without `q=0`.
fn accepts_problem_details(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/problem+json"));
        named && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}
