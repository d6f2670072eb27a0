//! Changes that are made once, however often their request is sent.
//!
//! The answer is kept in the transaction of the change, so there is never one without the other. It is sealed under the
//! key that the client sent, because it may contain a secret that AIMS does not store.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretSlice, SecretString, zeroize::Zeroizing};
use sha2::{Digest, Sha256};

use crate::{
    crypto::AnswerKeys,
    domain::{Error, Invalid, RequestId, Result, error::EarlierAnswer},
    service::core::{act::Act, caller::Caller},
    store::answers,
};

/// How long an answer is kept.
const ANSWER_LIFE: Duration = Duration::from_hours(24);

/// The key that a client chose for a request: a secret, because it opens the answer.
pub struct IdempotencyKey(SecretString);

impl IdempotencyKey {
    /// Minimum length, so that a short counter is not a key.
    pub const MIN_LEN: usize = 16;
    /// Maximum length.
    pub const MAX_LEN: usize = 255;

    /// Parses a key: 16 to 255 visible ASCII characters except `"` and `\`, with or without quotes around them.
    ///
    /// # Errors
    /// If the length or a character is not allowed.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        let unquoted = text.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(text);
        if unquoted.len() < Self::MIN_LEN {
            return Err(Invalid::TooShort(Self::MIN_LEN));
        }
        if unquoted.len() > Self::MAX_LEN {
            return Err(Invalid::TooLong(Self::MAX_LEN));
        }
        let is_allowed = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        let text = str::from_utf8(unquoted).ok().filter(|text| text.as_bytes().iter().all(is_allowed));
        let message = "String should hold only visible ASCII characters without '\"' and '\\'";
        let text = text.ok_or_else(|| Invalid::new("string_pattern_mismatch", message))?;
        Ok(Self(text.into()))
    }
}

/// A request that its client may send again.
pub struct Repeatable {
    key: IdempotencyKey,
    /// A digest of the method, the target and the body.
    digest: [u8; 32],
}

impl Repeatable {
    /// Describes a request. `target` is its path with the query.
    #[must_use]
    pub fn new(key: IdempotencyKey, method: &str, target: &str, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        for part in [method.as_bytes(), target.as_bytes(), body] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        Self { key, digest: hash.finalize().into() }
    }
}

/// Encodes an answer so that it can be kept.
type Encode<T> = Box<dyn FnOnce(&T) -> Result<SecretSlice<u8>> + Send>;

/// Whether a change that results in a `T` is made once only.
pub struct Once<T>(Option<(Repeatable, Encode<T>)>);

impl<T> Once<T> {
    /// Every call makes the change.
    #[must_use]
    pub const fn each_time() -> Self {
        Self(None)
    }

    /// Only the first call for `request` makes the change. Later ones fail with [`Error::Repeated`].
    #[must_use]
    pub fn for_request(
        request: Repeatable,
        encode: impl FnOnce(&T) -> Result<SecretSlice<u8>> + Send + 'static,
    ) -> Self {
        Self(Some((request, Box::new(encode))))
    }

    /// Continues with the first request only. Check the caller's authority before: an answer can be a secret.
    ///
    /// # Errors
    /// [`Error::Repeated`] with the earlier answer; [`Error::Invalid`] if the client used the key for another request;
    /// [`Error::Conflict`] if the earlier answer cannot be opened.
    pub(in crate::service) async fn begin(self, act: &mut Act<'_>) -> Result<First<T>> {
        let Some((request, encode)) = self.0 else { return Ok(First(None)) };
        let id = answer_id(&act.caller, &request.key);
        let keys = act.answer_keys(request.key.0.expose_secret().as_bytes(), &id).await?;
        let now = act.now;
        let Some(sealed) = answers::find(act.conn(), id, now).await? else {
            return Ok(First(Some(Unanswered { id, keys, digest: request.digest, encode })));
        };
        let opened = keys.open(&sealed).map_err(|_| {
            Error::Conflict(
                "The request was made before, but its answer can no longer be opened, because the master key has \
                 changed since. Read what the request created, and use a new Idempotency-Key for a new request"
                    .into(),
            )
        })?;
        let kept = Kept::read(opened.expose_secret()).ok_or_else(|| Error::internal("a kept answer is malformed"))?;
        if kept.digest != &request.digest {
            let message = "This key was used for another request. Use a new key for each request, and send a \
                request again with exactly the same method, path and body";
            return Err(Error::field(&["header", "Idempotency-Key"], Invalid::new("idempotency_key_reused", message)));
        }
        Err(Error::Repeated(EarlierAnswer { request_id: kept.request_id, encoded: kept.answer.to_vec().into() }))
    }
}

/// Returns the ID of an answer: a hash of its caller and the key, so that callers do not see each other's answers.
fn answer_id(caller: &Caller, key: &IdempotencyKey) -> [u8; 32] {
    let agents = caller.agents();
    let mut hash = Sha256::new().chain_update(b"aims request answer\0").chain_update(agents.len().to_be_bytes());
    for agent in agents {
        hash.update(agent.0);
    }
    // Only agents send the header so far. This keeps an administrator's answers apart, too.
    hash.update(caller.administrator().map_or([0; 16], |administrator| administrator.0.into_bytes()));
    hash.chain_update(key.0.expose_secret()).finalize().into()
}

/// The first request with a key.
#[must_use = "the answer must be kept"]
pub(in crate::service) struct First<T>(Option<Unanswered<T>>);

struct Unanswered<T> {
    id: [u8; 32],
    keys: AnswerKeys,
    digest: [u8; 32],
    encode: Encode<T>,
}

impl<T> First<T> {
    /// Keeps the answer, in the transaction of the change, and returns what was done.
    ///
    /// # Errors
    /// If the database fails.
    pub(in crate::service) async fn finish(self, act: &mut Act<'_>, done: T) -> Result<T> {
        let Some(Unanswered { id, keys, digest, encode }) = self.0 else { return Ok(done) };
        let answer = encode(&done)?;
        let request_id = act.caller.origin.request_id.clone();
        let kept = Kept { digest: &digest, request_id, answer: answer.expose_secret() };
        let sealed = act.seal_answer(&keys, &kept.to_bytes())?;
        let expires_at = act.now.plus(ANSWER_LIFE);
        answers::keep(act.conn(), id, &sealed, expires_at).await?;
        Ok(done)
    }
}

/// The content of a sealed answer.
struct Kept<'k> {
    digest: &'k [u8; 32],
    /// The ID of the request that was answered.
    request_id: Option<RequestId>,
    answer: &'k [u8],
}

impl<'k> Kept<'k> {
    /// The digest, the length of the request's ID, the ID, and the answer.
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        const { assert!(RequestId::MAX_LEN <= 255) };
        let id = self.request_id.as_ref().map_or("", RequestId::as_str);
        let length = u8::try_from(id.len()).unwrap_or_default();
        Zeroizing::new([self.digest.as_slice(), &[length], id.as_bytes(), self.answer].concat())
    }

    fn read(bytes: &'k [u8]) -> Option<Self> {
        let (digest, rest) = bytes.split_first_chunk::<32>()?;
        let (length, rest) = rest.split_first()?;
        let (id, answer) = rest.split_at_checked((*length).into())?;
        let request_id = RequestId::parse(str::from_utf8(id).ok()?);
        Some(Self { digest, request_id, answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Option<String> {
        IdempotencyKey::parse(text).ok().map(|key| key.0.expose_secret().to_owned())
    }

    #[test]
    fn a_key_is_16_to_255_visible_characters_with_or_without_quotes() {
        let uuid = "8e03978e-40d5-43dd-bc93-6894a57f9324";
        assert_eq!(parsed(uuid.as_bytes()).as_deref(), Some(uuid));
        assert_eq!(parsed(format!("\"{uuid}\"").as_bytes()).as_deref(), Some(uuid));
        assert!(parsed(&[b'a'; 16]).is_some() && parsed(&[b'~'; 255]).is_some());
        for bad in [
            [b'a'; 15].as_slice(),
            &[b'a'; 256],
            b"",
            b"\"aaaaaaaaaaaaaa\"",
            b"\"aaaaaaaaaaaaaaaa",
            b"aaaaaaaa aaaaaaaa",
            b"aaaaaaaa\\aaaaaaaa",
            b"aaaaaaaa\"aaaaaaaa",
            b"aaaaaaaa\taaaaaaaa",
            "aaaaaaaaaaaaaaaaé".as_bytes(),
            &[0xff; 20],
        ] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn kept_answers_are_read_as_they_were_written() {
        for request_id in [None, RequestId::parse("r-1"), RequestId::parse(&"r".repeat(RequestId::MAX_LEN))] {
            let kept = Kept { digest: &[7; 32], request_id: request_id.clone(), answer: b"answer" }.to_bytes();
            let read = Kept::read(&kept).unwrap();
            assert_eq!((read.digest, read.request_id, read.answer), (&[7; 32], request_id, b"answer".as_slice()));
            assert!(Kept::read(&kept[..32]).is_none());
        }
    }
}
