//! Extractors: a request's body and query, parsed at the edge.

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE, request::Parts};
use serde_json::{Map, Value};

use super::fields::Fields;
use crate::{
    domain::{Error, Invalid, Result, error::FieldError, text::json},
    web::failure::Failure,
};

/// A type that a JSON body is read into.
pub trait FromBody: Sized {
    /// Whether a request without a body means one without fields.
    const MAY_BE_EMPTY: bool = false;

    /// Reads the fields; `None` when one that is needed is missing or wrong, which `fields` has noted.
    fn read(fields: &mut Fields) -> Option<Self>;
}

/// A type that a query string is read into.
pub trait FromQuery: Sized {
    /// Reads the parameters; `None` when one that is needed is missing or wrong, which `fields` has noted.
    fn read(fields: &mut Fields) -> Option<Self>;
}

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: FromBody, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let described_as_json = is_json(request.headers());
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            http::StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge,
            _ => Error::Refused("The body could not be read"),
        })?;
        if T::MAY_BE_EMPTY && bytes.is_empty() {
            return Ok(Self(read_members(Map::new())?));
        }
        if !described_as_json {
            return Err(Failure(Error::UnsupportedMediaType));
        }
        let body: Value = json::read(&bytes).map_err(|error| malformed(&error))?;
        if T::MAY_BE_EMPTY && body.is_null() {
            return Ok(Self(read_members(Map::new())?));
        }
        let Value::Object(members) = body else {
            let invalid = Invalid::new("model_attributes_type", "Input should be a JSON object");
            return Err(Failure(Error::field(&["body"], invalid)));
        };
        Ok(Self(read_members(members)?))
    }
}

fn read_members<T: FromBody>(members: Map<String, Value>) -> Result<T> {
    let mut fields = Fields::of_body(members);
    let read = T::read(&mut fields);
    fields.finish(read)
}

fn malformed(error: &serde_json::Error) -> Error {
    Error::Invalid(vec![FieldError {
        location: vec!["body".to_owned(), format!("line {} column {}", error.line(), error.column())],
        invalid: json::invalid(error, "JSON decode error"),
        input: None,
    }])
}

/// Whether the body is described as JSON, or not described at all.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(described) = headers.get(CONTENT_TYPE) else { return true };
    let essence = described.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// A query string.
pub struct Query<T>(pub T);

impl<T: FromQuery, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let mut fields = Fields::of_query(parts.uri.query().unwrap_or_default())?;
        let read = T::read(&mut fields);
        Ok(Self(fields.finish(read)?))
    }
}
