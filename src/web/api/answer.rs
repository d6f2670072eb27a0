//! Answers with a JSON body, which can be kept for a client that sends its request again.

use axum::response::{IntoResponse, Response};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, ETAG},
};
use secrecy::{ExposeSecret, SecretSlice};
use serde::Serialize;

use crate::{
    domain::{Error, Result},
    service::core::conditions::Version,
};

/// Marks an answer to a request that was answered before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The answer to a request that succeeded.
pub struct Answer {
    status: StatusCode,
    version: Option<Version>,
    /// May contain a secret that the client sees only here.
    body: Vec<u8>,
}

impl Answer {
    /// Creates an answer. `version` is that of the object in the body, if clients can edit it.
    ///
    /// # Errors
    /// Never in practice: every body can be written as JSON.
    pub(super) fn new(status: StatusCode, version: Option<Version>, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Internal(Box::new(error)))?;
        Ok(Self { status, version, body })
    }

    /// Encodes the answer, to be kept: the status, the length of the version, the version, and the body.
    pub(super) fn encode(&self) -> SecretSlice<u8> {
        let version = self.version.map(|version| version.to_string()).unwrap_or_default();
        let length = u8::try_from(version.len()).unwrap_or_default();
        let status = self.status.as_u16().to_be_bytes();
        [status.as_slice(), &[length], version.as_bytes(), &self.body].concat().into()
    }

    /// Decodes what [`Self::encode`] returned.
    ///
    /// # Errors
    /// If it is anything else.
    pub(super) fn decode(encoded: &SecretSlice<u8>) -> Result<Self> {
        Self::read(encoded.expose_secret()).ok_or_else(|| Error::internal("a kept answer is malformed"))
    }

    fn read(encoded: &[u8]) -> Option<Self> {
        let (status, rest) = encoded.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (version, body) = rest.split_at_checked((*length).into())?;
        Some(Self {
            status: StatusCode::from_u16(u16::from_be_bytes(*status)).ok()?,
            version: Version::parse(str::from_utf8(version).ok()?),
            body: body.to_vec(),
        })
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(tag) = self.version.and_then(tag) {
            headers.insert(ETAG, tag);
        }
        response
    }
}

/// Returns the entity tag of a version.
pub(super) fn tag(version: Version) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{version}\"")).ok()
}
