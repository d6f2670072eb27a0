//! The one place that writes the body of an error of the API.

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
        oauth::{self, error::NOT_STORED},
        server::admission::TimeLimit,
    },
};

/// Writes the body of every error, also of those that the server below made.
pub(in crate::web) async fn render(
    State((metadata, limit)): State<(Arc<str>, TimeLimit)>,
    request: Request,
    next: Next,
) -> Response {
    let asked = Asked::of(&request);
    let answered = limit.run(next.run(request)).await;
    let mut response = answered.unwrap_or_else(|error| Failure(error).into_response());
    point_to(&metadata, &mut response);
    asked.describe(response)
}

/// What of a request the body of an error depends on, and its log line.
pub(in crate::web) struct Asked {
    problem_details: bool,
    request_id: Option<RequestId>,
    method: Method,
    uri: Uri,
}

impl Asked {
    pub(in crate::web) fn of<B>(request: &http::Request<B>) -> Self {
        Self {
            problem_details: wants_problem_details(request.headers()),
            request_id: request.extensions().get().cloned(),
            method: request.method().clone(),
            uri: request.uri().clone(),
        }
    }

    /// Writes the body of an error: `{"detail": …}`, or problem details (RFC 9457) where the client asks for them; at the
    /// endpoints of OAuth what RFC 6749 demands.
    pub(in crate::web) fn describe(self, response: Response) -> Response {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return response;
        }
        let error = response.extensions().get::<Arc<Error>>().cloned();
        let error = error.as_deref();
        if let Some(error) = error {
            failure::log(error, self.request_id.as_ref(), &self.method, &self.uri);
        }
        if response.headers().get(CONTENT_TYPE).is_some_and(|described| described == "application/json") {
            // A handler wrote this body itself, in the form that its own standard demands.
            return response;
        }
        if let Some(error) = error.filter(|_| oauth::owns(self.uri.path())) {
            let (mut parts, _) = response.into_parts();
            parts.headers.remove(CONTENT_LENGTH);
            return (parts, NOT_STORED, Json(oauth::error::ErrorBody::from(error))).into_response();
        }
        let body = if self.problem_details {
            let request_id = self.request_id.map(|id| id.as_str().to_owned());
            let (title, detail, errors) = (reason(status), detail(status, error), fields(error));
            Json(Problem { r#type: "about:blank", title, status: status.as_u16(), detail, errors, request_id })
                .into_response()
        } else if let Some(Error::Invalid(_)) = error {
            Json(ValidationErrorBody { detail: fields(error) }).into_response()
        } else {
            Json(ErrorBody { detail: detail(status, error) }).into_response()
        };
        let media_type = if self.problem_details { "application/problem+json" } else { "application/json" };
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        Response::from_parts(parts, body.into_body())
    }
}

/// Tells bearers that are refused where they read what is demanded (RFC 9728 §5.1).
fn point_to(metadata: &str, response: &mut Response) {
    let Some(challenge) = response.headers().get(WWW_AUTHENTICATE).and_then(|challenge| challenge.to_str().ok()) else {
        return;
    };
    let parameters = ["Bearer", "DPoP"].iter().find_map(|scheme| challenge.strip_prefix(scheme));
    let Some(parameters) = parameters else { return };
    let separator = if parameters.is_empty() { " " } else { ", " };
    let challenge = HeaderValue::try_from(format!("{challenge}{separator}resource_metadata=\"{metadata}\""));
    if let Ok(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
}

/// An error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    /// What is wrong, and where it helps, what to do.
    detail: String,
}

/// A request that is not valid.
#[derive(Serialize, ToSchema)]
#[schema(as = ValidationError)]
pub struct ValidationErrorBody {
    /// Every field that is not.
    detail: Vec<FieldErrorBody>,
}

/// A field that is not valid.
#[derive(Serialize, ToSchema)]
#[schema(as = FieldError)]
pub struct FieldErrorBody {
    /// What is wrong, for programs.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Where: `body`, `query` or `header`, and the field.
    loc: Vec<String>,
    /// What is wrong, for people.
    msg: String,
    /// What was sent.
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
        kind: field.invalid.kind,
        loc: field.location.clone(),
        msg: field.invalid.message.clone(),
        input: field.input.clone(),
    };
    fields.iter().map(body).collect()
}

/// Whether `Accept` names problem details and does not refuse them with `q=0`.
fn wants_problem_details(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/problem+json"));
        named && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}
