//! The parameters of a request to an OAuth endpoint: a form in the body, each once (RFC 6749 §3.2) but for those that may be
//! repeated.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::header::CONTENT_TYPE;

use super::error::OAuthFailure;
use crate::domain::{Error, text::uri, token::TokenRefusal};

const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// Most parameters of a request: more than any extension of OAuth asks for.
const MOST: usize = 64;

/// Parameters that may come more than once (RFC 8707 §2, RFC 8693 §2.1).
const REPEATABLE: [&str; 2] = ["resource", "audience"];

/// The parameters that have a value; those without count as left out.
pub struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Parameters {
    type Rejection = OAuthFailure;

    async fn from_request(request: Request, state: &S) -> Result<Self, OAuthFailure> {
        let described = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = described.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
            return Err(invalid(format!("The body must be {MEDIA_TYPE}")));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            http::StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge,
            _ => Error::Refused("The body could not be read"),
        })?;
        Self::parse(&bytes)
    }
}

impl Parameters {
    fn parse(body: &[u8]) -> Result<Self, OAuthFailure> {
        // The decoder takes what is no UTF-8 for something else, and two secrets must not become one.
        let pairs: Vec<(String, String)> = std::str::from_utf8(body)
            .ok()
            .and_then(|text| serde_urlencoded::from_str(text).ok())
            .ok_or_else(|| invalid("The body is no valid encoding".to_owned()))?;
        let pairs: Vec<_> = pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        // Each is compared with each, before anybody knows who asks.
        if pairs.len() > MOST {
            return Err(invalid(format!("There are more than {MOST} parameters")));
        }
        let is_repeated =
            |(at, (name, _)): (usize, &(String, String))| pairs.iter().skip(at + 1).any(|(other, _)| other == name);
        if pairs.iter().enumerate().filter(|(_, (name, _))| !REPEATABLE.contains(&name.as_str())).any(is_repeated) {
            return Err(invalid("A parameter is given more than once".to_owned()));
        }
        Ok(Self(pairs))
    }

    /// A parameter's value, if it has one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What the token is for: the parameters `resource` and `audience`, which must all name the same, because a token for several
    /// resources would be valid at each of them.
    pub fn target(&self) -> Result<Option<&str>, OAuthFailure> {
        let mut targets =
            self.0.iter().filter(|(name, _)| REPEATABLE.contains(&name.as_str())).map(|(_, value)| value.as_str());
        let first = targets.next();
        if targets.all(|other| first.is_some_and(|first| uri::are_equivalent(first, other))) {
            Ok(first)
        } else {
            Err(TokenRefusal::InvalidTarget("A token can be for only one resource").into())
        }
    }

    /// The value of a parameter that must be there.
    pub fn required(&self, name: &'static str) -> Result<&str, OAuthFailure> {
        self.get(name).ok_or_else(|| invalid(format!("The parameter {name} is missing")))
    }
}

pub(super) fn invalid(description: String) -> OAuthFailure {
    TokenRefusal::InvalidRequest(description.into()).into()
}
