//! The API keys of all agents: listing and counting them, and finding the one that a text belongs to.

use crate::{
    crypto::RawApiKey,
    domain::{
        ApiKey, ApiKeyId, Limit, Page, Result,
        credential::{
            api_key::Position,
            key_filter::{Filter, ListedKey, Sort},
        },
    },
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::credentials::{api_keys, fleet},
};

/// The beginning of every API key.
const SCHEME: &str = "aims_";
/// How many characters after [`SCHEME`] are displayed, and so are no secret.
const SHOWN: usize = 8;
/// A text with this many characters after [`SCHEME`] is taken for a part of a secret rather than for a name.
const SECRET_MIN: usize = 20;
/// Maximum number of pages that [`matching`] reads.
const PAGES_MAX: usize = 20;

/// Returns a page of the API keys of all agents. A page may have fewer than `limit` keys although there are more pages:
/// see [`fleet::list`].
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn list(
    services: &Services,
    caller: &Caller,
    filter: &Filter,
    sort: Sort,
    after: Option<Position>,
    limit: Limit,
) -> Result<Page<ListedKey, Position>> {
    services.permit(caller, Action::ListKeys).await?;
    let now = services.env.now();
    fleet::list(services.store.read_usage().await?.conn(), filter, sort, now, after, limit).await
}

/// Counts the API keys that match a filter, up to `most`. Also returns whether there may be more.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn count(services: &Services, caller: &Caller, filter: &Filter, most: i64) -> Result<(i64, bool)> {
    services.permit(caller, Action::ListKeys).await?;
    fleet::count(services.store.read_usage().await?.conn(), filter, services.env.now(), most).await
}

/// Returns the first keys that match a filter, at most `most`, and whether there may be more.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn matching(
    services: &Services,
    caller: &Caller,
    filter: &Filter,
    most: usize,
) -> Result<(Vec<ApiKeyId>, bool)> {
    let (mut found, mut after) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let page = list(services, caller, filter, Sort::of(filter), after, Limit::of(Limit::MAX)).await?;
        found.extend(page.items.iter().map(|listed| listed.key.id));
        after = page.next;
        if after.is_none() || found.len() > most {
            break;
        }
    }
    let more = after.is_some() || found.len() > most;
    found.truncate(most);
    Ok((found, more))
}

/// Returns true if a text contains more of an API key than may be displayed. Such a text must not get into a URL or a
/// page.
#[must_use]
pub fn contains_secret(text: &str) -> bool {
    candidate(text).is_some_and(|key| key.len() >= SCHEME.len() + SECRET_MIN)
}

/// What looks most like an API key in a text, such as a line of an `.env` file.
fn candidate(text: &str) -> Option<&str> {
    let part = |(start, _): (usize, &str)| {
        let rest = text.get(start..).unwrap_or_default();
        let mut end = rest.len();
        if let Some((at, _)) = rest.char_indices().skip(SCHEME.len()).find(|(_, c)| !c.is_ascii_alphanumeric()) {
            end = at;
        }
        rest.get(..end).unwrap_or_default()
    };
    text.match_indices(SCHEME).map(part).max_by_key(|part| part.len())
}

/// What was found for a text that contains an API key, or the beginning of one.
pub enum Found {
    /// The key with exactly this value.
    Key(Box<ApiKey>),
    /// No key has this value, but some may have this displayed prefix.
    Prefix(String),
    /// The text contains no API key.
    NoKey,
    /// No key has this value or prefix.
    Unknown,
}

/// Finds the key that a pasted text contains. The text is hashed and then forgotten.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn find(services: &Services, caller: &Caller, text: &str) -> Result<Found> {
    services.permit(caller, Action::ListKeys).await?;
    let Some(candidate) = candidate(text) else { return Ok(Found::NoKey) };
    let mut read = services.store.read().await?;
    if let Some(raw) = RawApiKey::parse(candidate)
        && let Some(key) = api_keys::find_by_hash(read.conn(), &raw.hash()).await?
    {
        return Ok(Found::Key(Box::new(key)));
    }
    let prefix: String = candidate.chars().take(SCHEME.len() + SHOWN).collect();
    if prefix.len() == SCHEME.len() {
        return Ok(Found::NoKey);
    }
    let filter = Filter { text: Some(prefix.clone()), ..Filter::default() };
    let (count, _) = fleet::count(read.conn(), &filter, services.env.now(), 1).await?;
    Ok(if count > 0 { Found::Prefix(prefix) } else { Found::Unknown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_a_secret_are_recognised() {
        let key = format!("aims_{}", "0123456789abcdef".repeat(4));
        for text in
            [key.as_str(), &format!(" {key}\n"), &format!("AIMS_API_KEY={key}"), &format!("\"{key}\""), &key[..30]]
        {
            assert!(contains_secret(text), "{text}");
        }
        assert_eq!(candidate(&format!("export AIMS_API_KEY='{key}'")), Some(key.as_str()));
        for text in ["", "aims_", "aims_01234567", "production", "aims_production_eu", &key[5..]] {
            assert!(!contains_secret(text), "{text}");
        }
    }
}
