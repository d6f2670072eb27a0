//! Rotating and revoking many API keys. A preview says what would happen to each; then each key is changed in a
//! transaction of its own, with its own audit record.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};

use super::api_keys::{self, Rotation};
use crate::{
    domain::{
        AgentId, ApiKeyId, Error, KeyState, Limit, Result, Timestamp,
        capability::builtin,
        credential::key_filter::ListedKey,
        token::{Credential, LIFE_MAX},
    },
    service::{
        Services,
        core::{
            caller::Caller,
            conditions::Once,
            last_administrator::indispensable,
            policy::{Action, Authority},
        },
        tokens::live_tokens::{self, Count},
    },
    store::credentials::fleet,
};

/// Maximum number of keys that are revoked together.
pub const REVOKE_MAX: usize = 1_000;
/// Maximum number of keys that are rotated together: all new ones are shown on one page.
pub const ROTATE_MAX: usize = 100;
/// How many keys are looked up in the audit log to count their tokens.
const COUNTED_KEYS: usize = 50;
/// How many changes wait for the writer at a time.
const CONCURRENCY: usize = 64;
/// When the last use of a key is recent.
const RECENTLY: Duration = Duration::from_hours(24);

/// An operation on many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// See [`api_keys::rotate`].
    Rotate,
    /// See [`api_keys::revoke`].
    Revoke,
}

impl Bulk {
    /// Returns the maximum number of keys.
    #[must_use]
    pub const fn most(self) -> usize {
        match self {
            Self::Rotate => ROTATE_MAX,
            Self::Revoke => REVOKE_MAX,
        }
    }

    const fn action(self) -> Action {
        match self {
            Self::Rotate => Action::RotateKey,
            Self::Revoke => Action::RevokeKey,
        }
    }
}

/// A key that an operation does not change, and the reason.
pub struct Unchanged {
    /// The key.
    pub listed: ListedKey,
    /// The reason, as a sentence without a full stop.
    pub reason: String,
}

/// What an operation would do.
pub struct Preview {
    /// The keys that it would change.
    pub changed: Vec<ListedKey>,
    /// The keys that it would not change.
    pub unchanged: Vec<Unchanged>,
    /// The number of selected keys that no longer exist.
    pub missing: usize,
    /// The number of agents whose keys it would change.
    pub agents: usize,
    /// How many of the keys were used in the last 24 hours.
    pub used_recently: usize,
    /// The active tokens of the keys, which end when they are revoked.
    pub tokens: Count,
}

/// Returns what an operation on these keys would do. Changes nothing.
///
/// # Errors
/// [`Error::Denied`], [`Error::ProofNeeded`].
pub async fn preview(services: &Services, caller: &Caller, bulk: Bulk, ids: &[ApiKeyId]) -> Result<Preview> {
    services.permit(caller, bulk.action()).await?;
    let ids: Vec<_> = ids.iter().copied().collect::<BTreeSet<_>>().into_iter().take(bulk.most()).collect();
    let listed = fleet::those(services.store.read_usage().await?.conn(), &ids).await?;
    let missing = ids.len() - listed.len();
    let now = services.env.now();
    let powers = powers(services, caller, &listed).await?;
    let mut refused = BTreeMap::new();
    let mut administrators = Vec::new();
    for one in &listed {
        let power = powers.get(&one.key.agent_id);
        let lacking = power.and_then(|power| power.lacking.as_deref());
        if let Some(reason) = reason(bulk, one, lacking, now) {
            refused.insert(one.key.id, reason);
        } else if power.is_some_and(|power| power.is_administrator) {
            administrators.push((one.key.agent_id, one.key.id));
        }
    }
    if bulk == Bulk::Revoke && !administrators.is_empty() {
        let mut read = services.store.read().await?;
        for key in indispensable(read.conn(), &administrators, now).await? {
            refused.insert(key, "The last lasting credentials of the active agents that hold admin:* stay".to_owned());
        }
    }
    let (mut changed, mut unchanged) = (Vec::new(), Vec::new());
    for one in listed {
        match refused.remove(&one.key.id) {
            Some(reason) => unchanged.push(Unchanged { listed: one, reason }),
            None => changed.push(one),
        }
    }
    let agents = changed.iter().map(|one| one.key.agent_id).collect::<BTreeSet<_>>().len();
    let used_recently = changed.iter().filter(|one| used_since(one, now.minus(RECENTLY))).count();
    let tokens = match bulk {
        Bulk::Revoke => count_tokens(services, caller, &changed, now).await?,
        Bulk::Rotate => Count { tokens: 0, may_be_more: false },
    };
    Ok(Preview { changed, unchanged, missing, agents, used_recently, tokens })
}

/// What the live view says about an agent and the caller.
struct Power {
    lacking: Option<String>,
    is_administrator: bool,
}

async fn powers(services: &Services, caller: &Caller, listed: &[ListedKey]) -> Result<BTreeMap<AgentId, Power>> {
    let authority = Authority::of(caller);
    let mut powers = BTreeMap::new();
    for agent in listed.iter().map(|one| one.key.agent_id).collect::<BTreeSet<_>>() {
        let Some(principal) = services.principals.agent(&services.store, agent, services.env.now()).await? else {
            continue;
        };
        let lacking = authority.lacks(&principal.capabilities).map(str::to_owned);
        let is_administrator = principal.capabilities.iter().any(|name| name == builtin::ADMIN);
        powers.insert(agent, Power { lacking, is_administrator });
    }
    Ok(powers)
}

/// Returns why an operation would not change a key.
fn reason(bulk: Bulk, one: &ListedKey, lacking: Option<&str>, now: Timestamp) -> Option<String> {
    match (bulk, one.state(now)) {
        (_, KeyState::Revoked) => return Some("It is already revoked".to_owned()),
        (_, KeyState::Expired) => return Some("It has already expired".to_owned()),
        (Bulk::Rotate, KeyState::Rotated) => return Some("It was already rotated".to_owned()),
        _ if bulk == Bulk::Rotate && one.key.rotated_at.is_some() => return Some("It was already rotated".to_owned()),
        _ => {}
    }
    lacking.map(|capability| format!("Its agent holds {capability}, which your role does not include"))
}

fn used_since(one: &ListedKey, time: Timestamp) -> bool {
    one.key.last_used_at.is_some_and(|at| at >= time)
}

/// Counts the active tokens of keys. Only keys that were used within the longest life of a token can have any.
async fn count_tokens(services: &Services, caller: &Caller, keys: &[ListedKey], now: Timestamp) -> Result<Count> {
    let mut total = Count { tokens: 0, may_be_more: false };
    let used = keys.iter().filter(|one| used_since(one, now.minus(LIFE_MAX)));
    for (number, one) in used.enumerate() {
        if number >= COUNTED_KEYS || total.tokens >= live_tokens::COUNT_MAX {
            total.may_be_more = true;
            break;
        }
        let (agent, credential) = (one.key.agent_id, Credential::ApiKey(one.key.id));
        let (_, count) = live_tokens::of_credential(services, caller, agent, credential, Limit::of(Limit::MAX)).await?;
        total.tokens += count.tokens;
        total.may_be_more |= count.may_be_more;
    }
    Ok(total)
}

/// The outcome of an operation.
pub struct Outcome<T> {
    /// What was done, in the order of agents and names.
    pub done: Vec<T>,
    /// The keys that were not changed.
    pub unchanged: Vec<Unchanged>,
    /// The number of keys that no longer exist.
    pub missing: usize,
}

/// Revokes keys. A refusal for one does not affect the others.
///
/// # Errors
/// [`Error::Denied`], [`Error::ProofNeeded`]; when the database fails, possibly after some keys were revoked.
pub async fn revoke(services: &Arc<Services>, caller: &Caller, ids: &[ApiKeyId]) -> Result<Outcome<ListedKey>> {
    let (listed, missing) = selected(services, caller, Bulk::Revoke, ids).await?;
    let now = services.env.now();
    let revoked = stream::iter(listed).map(|one| {
        let (services, caller) = (services.clone(), caller.clone());
        async move {
            // A key that has expired in the meantime stays as it is, as the preview says.
            let outcome = match reason(Bulk::Revoke, &one, None, now) {
                Some(reason) => Ok(Some(reason)),
                None => match api_keys::revoke(&services, &caller, one.key.agent_id, one.key.id).await {
                    Ok(()) => Ok(None),
                    Err(error @ (Error::Refused(_) | Error::NotFound(_) | Error::Denied(_) | Error::Conflict(_))) => {
                        Ok(Some(error.to_string()))
                    }
                    Err(error) => Err(error),
                },
            };
            (one, outcome)
        }
    });
    let mut outcomes = revoked.buffered(CONCURRENCY);
    let mut outcome = Outcome { done: Vec::new(), unchanged: Vec::new(), missing };
    while let Some((listed, result)) = outcomes.next().await {
        match result? {
            None => outcome.done.push(listed),
            Some(reason) => outcome.unchanged.push(Unchanged { listed, reason }),
        }
    }
    Ok(outcome)
}

/// Rotates keys. A failure for one does not affect the others, so that no new key is lost.
///
/// # Errors
/// [`Error::Denied`], [`Error::ProofNeeded`]; when the database fails before any key was rotated.
pub async fn rotate(
    services: &Arc<Services>,
    caller: &Caller,
    ids: &[ApiKeyId],
    grace: Duration,
) -> Result<Outcome<(ListedKey, Rotation)>> {
    let (listed, missing) = selected(services, caller, Bulk::Rotate, ids).await?;
    let rotated = stream::iter(listed).map(|one| {
        let (services, caller) = (services.clone(), caller.clone());
        async move {
            let outcome =
                api_keys::rotate(&services, &caller, one.key.agent_id, one.key.id, Some(grace), Once::each_time())
                    .await;
            (one, outcome)
        }
    });
    let mut outcomes = rotated.buffered(CONCURRENCY);
    let mut outcome = Outcome { done: Vec::new(), unchanged: Vec::new(), missing };
    while let Some((listed, result)) = outcomes.next().await {
        match result {
            Ok(rotation) => outcome.done.push((listed, rotation)),
            Err(error) => outcome.unchanged.push(Unchanged { listed, reason: error.to_string() }),
        }
    }
    Ok(outcome)
}

async fn selected(
    services: &Services,
    caller: &Caller,
    bulk: Bulk,
    ids: &[ApiKeyId],
) -> Result<(Vec<ListedKey>, usize)> {
    services.permit(caller, bulk.action()).await?;
    let ids: Vec<_> = ids.iter().copied().collect::<BTreeSet<_>>().into_iter().take(bulk.most()).collect();
    let listed = fleet::those(services.store.read_usage().await?.conn(), &ids).await?;
    let missing = ids.len() - listed.len();
    Ok((listed, missing))
}
