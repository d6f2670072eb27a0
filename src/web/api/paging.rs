//! Pagination: a page is an array with a `Link` header to the next page (RFC 8288).

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Uri, header::LINK};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    domain::{
        AgentId, AgentName, ApiKeyId, CapabilityId, Invalid, Limit, Page, ProtectedResourceId, Timestamp, agent,
        capability, credential::api_key, token::protected_resource,
    },
    web::request::{fields::Fields, schema},
};

/// A position in a listing, encoded as an opaque string.
pub(in crate::web) trait Cursor: Sized {
    /// Matches all encoded positions and the empty string.
    const PATTERN: &str;

    fn encode(&self) -> String;
    fn decode(text: &str) -> Option<Self>;
}

/// Pattern of a UUID or the empty string.
pub(super) const UUID: &str = "^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})?$";
/// Pattern of an encoded time and ID.
const TIME_AND_ID: &str = "^([A-Za-z0-9_-]{32})?$";

/// Parses a cursor.
pub(in crate::web) fn parse_cursor<C: Cursor>(text: &str) -> Result<C, Invalid> {
    C::decode(text).ok_or_else(|| Invalid::new("cursor", "Input should be a cursor from a previous page"))
}

impl Cursor for agent::Position {
    const PATTERN: &str = r"^([A-Za-z0-9_-]{32}\.[A-Za-z0-9_-]{1,128})?$";

    fn encode(&self) -> String {
        let used = self.last_used_at.map(|at| format!(".{}", at.as_micros())).unwrap_or_default();
        format!("{}.{}{used}", encode(self.created_at, self.id.0), self.name)
    }

    fn decode(text: &str) -> Option<Self> {
        let (place, rest) = text.split_once('.')?;
        let (created_at, id) = decode(place)?;
        let (name, used) = rest.split_once('.').map_or((rest, None), |(name, used)| (name, Some(used)));
        let name = AgentName::parse(name).ok()?.to_string();
        let last_used_at = used.map(|used| used.parse().map(Timestamp::from_micros)).transpose().ok()?;
        Some(Self { created_at, id: AgentId(id), name, last_used_at })
    }
}

impl Cursor for capability::Position {
    const PATTERN: &str = TIME_AND_ID;

    fn encode(&self) -> String {
        encode(self.0, self.1.0)
    }

    fn decode(text: &str) -> Option<Self> {
        decode(text).map(|(created_at, id)| (created_at, CapabilityId(id)))
    }
}

impl Cursor for protected_resource::Position {
    const PATTERN: &str = TIME_AND_ID;

    fn encode(&self) -> String {
        encode(self.0, self.1.0)
    }

    fn decode(text: &str) -> Option<Self> {
        decode(text).map(|(created_at, id)| (created_at, ProtectedResourceId(id)))
    }
}

impl Cursor for api_key::Position {
    const PATTERN: &str = TIME_AND_ID;

    fn encode(&self) -> String {
        encode(self.0, self.1.0)
    }

    fn decode(text: &str) -> Option<Self> {
        decode(text).map(|(at, id)| (at, ApiKeyId(id)))
    }
}

impl Cursor for AgentId {
    const PATTERN: &str = UUID;

    fn encode(&self) -> String {
        self.to_string()
    }

    fn decode(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl Cursor for i64 {
    const PATTERN: &str = "^([1-9][0-9]{0,17})?$";

    fn encode(&self) -> String {
        self.to_string()
    }

    fn decode(text: &str) -> Option<Self> {
        text.parse().ok().filter(|&seq| seq > 0)
    }
}

fn encode(at: Timestamp, id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode([at.as_micros().to_be_bytes().as_slice(), id.as_bytes()].concat())
}

fn decode(text: &str) -> Option<(Timestamp, Uuid)> {
    let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (at, id) = bytes.split_first_chunk::<8>()?;
    Some((Timestamp::from_micros(i64::from_be_bytes(*at)), Uuid::from_slice(id).ok()?))
}

/// Default number of items on a page.
pub(super) const DEFAULT_LIMIT: Limit = Limit::of(100);

/// Reads the query parameter `limit`.
pub(super) fn read_limit(fields: &mut Fields, default: Limit) -> Limit {
    let schema = || {
        let range = schema::integer("int32").minimum(Some(1)).maximum(Some(Limit::MAX));
        range.default(Some(default.get().into()))
    };
    fields.doc("Maximum number of items on the page.", schema).chosen("limit", Limit::parse).unwrap_or(default)
}

/// Reads the query parameter `cursor`.
pub(super) fn read_cursor<C: Cursor>(fields: &mut Fields) -> Option<C> {
    const DESCRIPTION: &str = "Position where the page starts, taken from the `Link` header of the previous page.";
    fields.doc(DESCRIPTION, || schema::pattern(C::PATTERN)).optional("cursor", parse_cursor)
}

/// Renders a page. The link is relative to the path of the request, so it remains valid behind a proxy that adds a
/// prefix.
pub(super) fn respond<T, C: Cursor, W: Serialize>(uri: &Uri, page: Page<T, C>, wire: impl Fn(T) -> W) -> Response {
    let link = page.next.as_ref().and_then(|next| {
        let kept = uri.query().into_iter().flat_map(|query| query.split('&'));
        let kept = kept.filter(|pair| !matches!(pair.split('=').next(), Some("cursor" | "offset" | "")));
        let cursor = format!("cursor={}", next.encode());
        let query = kept.chain([cursor.as_str()]).collect::<Vec<_>>().join("&");
        HeaderValue::try_from(format!("<{}?{query}>; rel=\"next\"", uri.path())).ok()
    });
    let mut response = Json(page.items.into_iter().map(wire).collect::<Vec<_>>()).into_response();
    if let Some(link) = link {
        response.headers_mut().insert(LINK, link);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_junk_is_rejected() {
        let id = AgentId(Uuid::from_u128(9));
        let created_at = Timestamp::from_micros(-5);
        let position = agent::Position { created_at, id, name: "nine".to_owned(), last_used_at: None };
        assert_eq!(agent::Position::decode(&position.encode()), Some(position.clone()));
        let used = agent::Position { last_used_at: Some(created_at), ..position.clone() };
        assert_eq!(agent::Position::decode(&used.encode()), Some(used));
        let text = position.encode();
        let place = text.strip_suffix(".nine").unwrap();
        for junk in [
            "",
            "x",
            "AAAA",
            "____________________________________",
            place,
            &format!("{place}.a b"),
            &format!("{place}."),
            &format!("{place}.nine."),
            &format!("{place}.nine.x"),
        ] {
            assert_eq!(agent::Position::decode(junk), None, "{junk:?}");
        }
        assert_eq!(i64::decode("-1"), None);
    }
}
