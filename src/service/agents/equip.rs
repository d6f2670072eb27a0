//! Registering an agent together with its first grants and its first API key, in one change.

use super::{
    NewAgent,
    capabilities::{NOT_FOUND, give},
    register,
};
use crate::{
    crypto::RawApiKey,
    domain::{Agent, AgentId, ApiKeyId, CapabilityId, Error, Invalid, Result},
    service::{
        Services,
        core::{act::Act, caller::Caller, policy::Action},
        credentials::api_keys::{self, CreatedApiKey, NewApiKey},
    },
    store::{capabilities, credentials::api_keys as stored, names::Named},
};

/// Maximum number of capabilities that a new agent is granted at once.
pub const GRANTS_MAX: usize = 200;

/// A new agent with its first grants and its first key.
#[derive(Clone, Debug)]
pub struct NewEquipped {
    /// The agent.
    pub agent: NewAgent,
    /// The capabilities to grant.
    pub capabilities: Vec<CapabilityId>,
    /// The key to create, and its identifier, so that a form that is submitted twice creates one.
    pub key: Option<(ApiKeyId, NewApiKey)>,
}

/// An agent that was just created, and its key.
pub struct Equipped {
    /// The agent.
    pub agent: Agent,
    /// The key, with its secret.
    pub key: Option<CreatedApiKey>,
}

/// Registers an agent, grants it capabilities and creates a key for it: all of it, or nothing. Each part is recorded as
/// if it were done alone, and demands what it would demand alone.
///
/// # Errors
/// [`Error::Conflict`] if the name is taken or too similar to one that is; [`Error::Denied`] for a capability that the
/// caller lacks; [`Error::Invalid`] for capabilities that do not exist or do not fit in a token, and for an expiry that
/// is not in the future; [`Error::ProofNeeded`] for grants and keys.
pub async fn create(services: &Services, caller: &Caller, new: NewEquipped) -> Result<Equipped> {
    let id = AgentId(services.env.uuid());
    let raw_key = RawApiKey::generate(&services.env);
    services
        .change(caller, Action::CreateAgent, move |act| {
            Box::pin(async move {
                let agent = register(act, id, new.agent).await?;
                act.require_distinct(Named::Agent, agent.name.as_str()).await?;
                grant(act, id, new.capabilities).await?;
                let key = match new.key {
                    Some((key, new)) => Some(add_key(act, id, key, raw_key, new).await?),
                    None => None,
                };
                Ok(Equipped { agent, key })
            })
        })
        .await
}

async fn grant(act: &mut Act<'_>, agent: AgentId, mut ids: Vec<CapabilityId>) -> Result<()> {
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(());
    }
    act.authority.require(Action::GrantCapability, act.now)?;
    if ids.len() > GRANTS_MAX {
        return Err(invalid(format!("Choose at most {GRANTS_MAX} capabilities")));
    }
    for id in ids {
        let capability = capabilities::find(act.conn(), id).await?.ok_or(NOT_FOUND);
        let capability = capability.map_err(|_| invalid("One of these capabilities no longer exists"))?;
        act.authority.require_held(&capability.name)?;
        give(act, agent, &capability).await.map_err(|error| match error {
            Error::Conflict(message) => invalid(message),
            other => other,
        })?;
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::field(&["body", "capability"], Invalid::new("value_error", message))
}

async fn add_key(
    act: &mut Act<'_>,
    agent: AgentId,
    id: ApiKeyId,
    raw_key: RawApiKey,
    new: NewApiKey,
) -> Result<CreatedApiKey> {
    act.authority.require(Action::CreateKey, act.now)?;
    if new.expires_at.is_some_and(|end| end <= act.now) {
        return Err(Error::field(&["body", "life"], Invalid::NotInFuture));
    }
    if stored::find(act.conn(), id).await?.is_some() {
        return Err(Error::Conflict("This key already exists".into()));
    }
    api_keys::add(act, agent, id, raw_key, new).await
}
