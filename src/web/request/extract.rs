//! Extractors for JSON bodies and query strings.

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE, request::Parts};
use serde_json::{Map, Value};

use super::fields::Fields;
use crate::{
    domain::{Error, Invalid, Result, error::FieldError, text::json},
    web::failure::Failure,
};

/// A type that is read from a JSON body.
pub trait FromBody: Sized {
    /// True if a missing body is equivalent to an empty object.
    const MAY_BE_EMPTY: bool = false;

    /// Reads all fields. Returns `None` if a required one is missing or invalid, which `fields` records.
    ///
    /// The schema in the OpenAPI document is generated from this function, so it must read every field before it
    /// returns.
    fn read(fields: &mut Fields) -> Option<Self>;
}

/// A type that is read from a query string.
pub trait FromQuery: Sized {
    /// Reads all parameters. Returns `None` if a required one is missing or invalid, which `fields` records.
    ///
    /// The parameters in the OpenAPI document are generated from this function, so it must read every one before it
    /// returns.
    fn read(fields: &mut Fields) -> Option<Self>;
}

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: FromBody, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        Ok(Self(receive(request, state).await?.read()?))
    }
}

/// A body that was received, but not read.
pub(in crate::web) struct Received {
    is_json: bool,
    bytes: Bytes,
}

/// Receives a body.
///
/// # Errors
/// [`Error::TooLarge`]; [`Error::Refused`] if the connection fails.
pub(in crate::web) async fn receive<S: Send + Sync>(request: Request, state: &S) -> Result<Received> {
    let is_json = is_json(request.headers());
    let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        http::StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge,
        _ => Error::Refused("The body could not be read"),
    })?;
    Ok(Received { is_json, bytes })
}

impl Received {
    /// Returns the body as it was sent.
    pub(in crate::web) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    /// [`Error::UnsupportedMediaType`]; [`Error::Invalid`].
    pub(in crate::web) fn read<T: FromBody>(&self) -> Result<T> {
        if T::MAY_BE_EMPTY && self.bytes.is_empty() {
            return read_members(Map::new());
        }
        if !self.is_json {
            return Err(Error::UnsupportedMediaType);
        }
        let body: Value = json::read(&self.bytes).map_err(|error| malformed(&error))?;
        if T::MAY_BE_EMPTY && body.is_null() {
            return read_members(Map::new());
        }
        let Value::Object(members) = body else {
            return Err(Error::field(
                &["body"],
                Invalid::new("model_attributes_type", "Input should be a JSON object"),
            ));
        };
        read_members(members)
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

/// Returns true if the media type of the body is JSON or missing.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(media_type) = headers.get(CONTENT_TYPE) else { return true };
    let essence = media_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
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
