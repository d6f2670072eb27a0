//! The headers with which a client makes its request conditional: `Idempotency-Key`, `If-Match` and `If-None-Match`.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{ETAG, IF_MATCH, IF_NONE_MATCH},
    request::Parts,
};
use serde::Serialize;

use super::answer::{Answer, REPLAYED, tag};
use crate::{
    domain::{Error, Invalid, Result},
    service::{
        Expected, Once,
        core::conditions::{IdempotencyKey, Repeatable, Version},
    },
    web::{
        failure::Failure,
        request::extract::{self, FromBody},
    },
};

/// The request header with the key of a request that may be sent again.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The JSON body of a request that may carry an `Idempotency-Key`.
pub struct Keyed<T> {
    body: T,
    request: Option<Repeatable>,
}

impl<T: FromBody, S: Send + Sync> FromRequest<S> for Keyed<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let key = idempotency_key(request.headers())?;
        // Without the prefix of the mount, so a client may change from one mount to the other.
        let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let method = request.method().clone();
        let received = extract::receive(request, state).await?;
        let request = key.map(|key| Repeatable::new(key, method.as_str(), &target, received.bytes()));
        Ok(Self { body: received.read()?, request })
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>> {
    let invalid = |invalid| Error::field(&["header", "Idempotency-Key"], invalid);
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid(Invalid::new("header_repeated", "Send this header once")));
    }
    IdempotencyKey::parse(value.as_bytes()).map(Some).map_err(invalid)
}

impl<T> Keyed<T> {
    /// Makes a change once, and returns its answer. `answer` renders what `change` did.
    pub(super) async fn once<D, F>(
        self,
        answer: fn(&D) -> Result<Answer>,
        change: impl FnOnce(T, Once<D>) -> F,
    ) -> Result<Response, Failure>
    where
        D: 'static,
        F: Future<Output = Result<D>>,
    {
        let once = match self.request {
            Some(request) => Once::for_request(request, move |done| Ok(answer(done)?.encode())),
            None => Once::each_time(),
        };
        match change(self.body, once).await {
            Ok(done) => Ok(answer(&done)?.into_response()),
            Err(Error::Repeated(earlier)) => {
                let mut response = Answer::decode(&earlier.encoded)?.into_response();
                response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
                Ok(response)
            }
            Err(error) => Err(Failure(error)),
        }
    }
}

/// The versions in `If-Match`. Weak entity tags never match (RFC 9110 §13.1.1).
pub struct IfMatch(pub Expected);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self(match Tags::of(&parts.headers, &IF_MATCH)? {
            None | Some(Tags::Any) => Expected::Any,
            Some(Tags::Listed(tags)) => {
                Expected::OneOf(tags.into_iter().filter(|tag| !tag.is_weak).filter_map(|tag| tag.version).collect())
            }
        }))
    }
}

/// The versions in `If-None-Match`, which the client already has.
pub struct IfNoneMatch(Option<Tags>);

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self(Tags::of(&parts.headers, &IF_NONE_MATCH)?))
    }
}

impl IfNoneMatch {
    /// Returns the object, or status 304 if the client has this version of it.
    pub(super) fn answer(&self, version: Version, body: &impl Serialize) -> Result<Response, Failure> {
        let is_known = match &self.0 {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::Listed(tags)) => tags.iter().any(|tag| tag.version == Some(version)),
        };
        if !is_known {
            return Ok(Answer::new(StatusCode::OK, Some(version), body)?.into_response());
        }
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        response.headers_mut().extend(tag(version).map(|tag| (ETAG, tag)));
        Ok(response)
    }
}

/// The value of `If-Match` or `If-None-Match`.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    Listed(Vec<Tag>),
}

/// An entity tag (RFC 9110 §8.8.3).
#[derive(Debug, PartialEq, Eq)]
struct Tag {
    is_weak: bool,
    /// `None` for a tag that is not of AIMS, which matches nothing.
    version: Option<Version>,
}

impl Tags {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>> {
        if !headers.contains_key(name) {
            return Ok(None);
        }
        let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("invalid")).collect();
        let tags = Self::parse(&lines.join(","));
        tags.map(Some).ok_or_else(|| {
            let name = if *name == IF_MATCH { "If-Match" } else { "If-None-Match" };
            let message = "Should be * or entity tags as they were received, with their quotes, separated by commas";
            Error::field(&["header", name], Invalid::new("entity_tag", message))
        })
    }

    /// Parses a list of tags. A tag may contain commas; empty elements are ignored (RFC 9110 §5.6.1).
    fn parse(text: &str) -> Option<Self> {
        const BETWEEN: [char; 3] = [' ', '\t', ','];
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let mut tags = Vec::new();
        let mut rest = text.trim_start_matches(BETWEEN);
        while !rest.is_empty() {
            let (is_weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
            let (tag, after) = quoted.strip_prefix('"')?.split_once('"')?;
            tags.push(Tag { is_weak, version: Version::parse(tag) });
            rest = after.trim_start_matches(BETWEEN);
            if !rest.is_empty() && !after.trim_start_matches([' ', '\t']).starts_with(',') {
                return None;
            }
        }
        (!tags.is_empty()).then_some(Self::Listed(tags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_entity_tags_are_parsed() {
        let version = Version::parse("00112233445566778899aabbccddeeff").unwrap();
        let strong = || Tag { is_weak: false, version: Some(version) };
        let weak = || Tag { is_weak: true, version: Some(version) };
        let foreign = || Tag { is_weak: false, version: None };
        for (text, expected) in [
            ("*", Tags::Any),
            ("\"00112233445566778899aabbccddeeff\"", Tags::Listed(vec![strong()])),
            (" W/\"00112233445566778899aabbccddeeff\" ,, \"a, b\",", Tags::Listed(vec![weak(), foreign()])),
            ("\"\",\"00112233445566778899aabbccddeeff\"", Tags::Listed(vec![foreign(), strong()])),
            ("\"00112233445566778899AABBCCDDEEFF\"", Tags::Listed(vec![foreign()])),
        ] {
            assert_eq!(Tags::parse(text), Some(expected), "{text}");
        }
        for bad in ["", " ", ",", "a", "\"a", "a\"", "*, \"a\"", "\"a\" \"b\"", "w/\"a\"", "W/a", "\"a\"*"] {
            assert_eq!(Tags::parse(bad), None, "{bad}");
        }
    }
}
