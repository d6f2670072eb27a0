//! The form that a client sends to an OAuth endpoint (RFC 6749 §3.2).

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::OAuthFailure;
use crate::domain::{Error, token::TokenRefusal};

const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// Maximum number of parameters with a value: more than all extensions of OAuth together define.
const PARAMETERS_MAX: usize = 64;

/// Parameters that may be repeated (RFC 8707 §2, RFC 8693 §2.1). They are deserialized as lists.
const REPEATABLE: [&str; 2] = ["resource", "audience"];

/// A form, deserialized by name. Parameters without a value are treated as absent, and unknown ones are ignored (RFC
/// 6749 §3.2).
pub struct Form<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = OAuthFailure;

    async fn from_request(request: Request, state: &S) -> Result<Self, OAuthFailure> {
        let content_type =
            request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
            return Err(invalid(format!("The body must be {MEDIA_TYPE}")));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            http::StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge,
            _ => Error::Refused("The body could not be read"),
        })?;
        let parameters = serde_json::from_value(Value::Object(parse(&bytes)?));
        Ok(Self(parameters.map_err(Error::internal)?))
    }
}

fn parse(body: &[u8]) -> Result<Map<String, Value>, OAuthFailure> {
    // The decoder would replace invalid UTF-8, and two different secrets must not become the same.
    let pairs: Vec<(String, String)> = std::str::from_utf8(body)
        .ok()
        .and_then(|text| serde_urlencoded::from_str(text).ok())
        .ok_or_else(|| invalid("The body is not valid form encoding".to_owned()))?;
    let mut parameters = Map::new();
    let mut count = 0;
    for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
        count += 1;
        if count > PARAMETERS_MAX {
            return Err(invalid(format!("There are more than {PARAMETERS_MAX} parameters")));
        }
        let value = Value::String(value);
        if REPEATABLE.contains(&name.as_str()) {
            match parameters.get_mut(&name) {
                Some(Value::Array(values)) => values.push(value),
                _ => drop(parameters.insert(name, Value::Array(vec![value]))),
            }
        } else if parameters.insert(name, value).is_some() {
            return Err(invalid("A parameter must not be repeated".to_owned()));
        }
    }
    Ok(parameters)
}

/// Returns the value of a required parameter.
pub(super) fn required<'r>(name: &str, value: Option<&'r str>) -> Result<&'r str, OAuthFailure> {
    value.ok_or_else(|| invalid(format!("The parameter {name} is missing")))
}

pub(super) fn invalid(description: String) -> OAuthFailure {
    TokenRefusal::InvalidRequest(description.into()).into()
}
