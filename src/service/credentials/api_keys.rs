//! API keys: create, rotate and revoke. The secret is returned once, when the key is created.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    crypto::RawApiKey,
    domain::{
        AgentId, ApiKey, ApiKeyId, ApiKeyStatus, CapabilitySet, Error, Invalid, KeyLimits, Result, Timestamp,
        audit::{AuditAction, Resource},
        token::Credential,
    },
    service::{
        Services,
        core::{
            act::Act, agent, caller::Caller, conditions::Once, last_administrator::require_other_credential,
            policy::Action, power,
        },
        tokens::resources::require_registered,
    },
    store::credentials::api_keys,
};

/// A new API key.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// The display name.
    pub name: String,
    /// When the key expires.
    pub expires_at: Option<Timestamp>,
    /// The limits of the key.
    pub limits: KeyLimits,
}

/// An API key that was just created.
pub struct CreatedApiKey {
    /// The key.
    pub key: ApiKey,
    /// The secret, which is not stored.
    pub raw_key: RawApiKey,
}

/// The result of a rotation.
pub struct Rotation {
    /// The key that was replaced.
    pub old: ApiKeyId,
    /// The new key.
    pub new: CreatedApiKey,
    /// How long the old key still works.
    pub grace: Duration,
}

const NOT_FOUND: Error = Error::NotFound("API key");

/// Creates an API key for an agent.
///
/// # Errors
/// [`Error::Denied`] if the agent holds a capability that the caller lacks; [`Error::NotFound`]; [`Error::Refused`] for
/// a revoked agent; [`Error::Invalid`] for an expiry that is not in the future, and for a scope that has an
/// unregistered capability or does not fit in a token; [`Error::Conflict`] beyond [`ApiKey::MAX_PER_AGENT`];
/// see [`Once`].
pub async fn create(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    new: NewApiKey,
    once: Once<CreatedApiKey>,
) -> Result<CreatedApiKey> {
    let (id, raw_key) = (ApiKeyId(services.env.uuid()), RawApiKey::generate(&services.env));
    services
        .change(caller, Action::CreateKey, move |act| {
            Box::pin(async move {
                power::require_to_issue(act, agent, None).await?;
                let first = once.begin(act).await?;
                require_future(&new, act.now)?;
                let created = add(act, agent, id, raw_key, new).await?;
                first.finish(act, created).await
            })
        })
        .await
}

fn require_future(new: &NewApiKey, now: Timestamp) -> Result<()> {
    if new.expires_at.is_some_and(|end| end <= now) {
        return Err(Error::field(&["body", "expires_at"], Invalid::NotInFuture));
    }
    Ok(())
}

/// Creates an API key with a given ID, so that a form that is submitted twice creates one key.
///
/// # Errors
/// As [`create`]; [`Error::Conflict`] if the key already exists.
pub async fn create_with_id(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    id: ApiKeyId,
    new: NewApiKey,
) -> Result<CreatedApiKey> {
    require_future(&new, services.env.now())?;
    let raw_key = RawApiKey::generate(&services.env);
    services
        .change(caller, Action::CreateKey, move |act| {
            Box::pin(async move {
                if api_keys::find(act.conn(), id).await?.is_some() {
                    return Err(Error::Conflict(
                        "This key already exists. Create another one if you did not save its secret".into(),
                    ));
                }
                add(act, agent, id, raw_key, new).await
            })
        })
        .await
}

pub(in crate::service) async fn add(
    act: &mut Act<'_>,
    agent: AgentId,
    id: ApiKeyId,
    raw_key: RawApiKey,
    new: NewApiKey,
) -> Result<CreatedApiKey> {
    power::require_to_issue(act, agent, None).await?;
    if let Some(scope) = &new.limits.capabilities {
        require_registered(act, scope).await.map_err(|error| match error {
            Error::NotFound(_) => {
                let invalid = Invalid::new("value_error", "One of these capabilities is not registered");
                Error::field(&["body", "scope"], invalid)
            }
            other => other,
        })?;
        if !scope.fits_a_token() {
            let message = format!("The scope can have at most {} characters in total", CapabilitySet::TOKEN_MAX);
            return Err(Error::field(&["body", "scope"], Invalid::new("too_long", message)));
        }
    }
    let created = insert(act, agent, id, raw_key, new).await?;
    let mut details = json!({ "target_agent": agent, "key_name": created.key.name });
    if let (true, Some(members)) = (created.key.limits.is_limited(), details.as_object_mut()) {
        members.insert("limits".to_owned(), described(&created.key.limits));
    }
    act.audit(AuditAction::KeyCreated, Resource::ApiKey(id), Some(agent), details);
    Ok(created)
}

fn described(limits: &KeyLimits) -> Value {
    json!({
        "scope": limits.capabilities.as_ref().map(CapabilitySet::as_scope),
        "allowed_networks": limits.networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "token_life_seconds": limits.token_life,
        "max_uses": limits.uses_left,
    })
}

/// Returns the API keys of an agent, oldest first.
///
/// # Errors
/// [`Error::NotFound`] for an unknown agent.
pub async fn list(services: &Services, caller: &Caller, agent: AgentId) -> Result<Vec<ApiKey>> {
    services.permit(caller, Action::ListKeys).await?;
    let mut read = services.store.read_usage().await?;
    agent::find(read.conn(), agent).await?;
    api_keys::list(read.conn(), agent).await
}

/// Returns how often each key of an agent was used in the last 30 days. Unused keys are left out.
///
/// # Errors
/// [`Error::Denied`].
pub async fn uses(services: &Services, caller: &Caller, agent: AgentId) -> Result<HashMap<ApiKeyId, i64>> {
    services.permit(caller, Action::ListKeys).await?;
    let uses = api_keys::uses(services.store.read_usage().await?.conn(), agent, services.env.now()).await?;
    Ok(uses.into_iter().collect())
}

/// Returns an API key of an agent.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(services: &Services, caller: &Caller, agent: AgentId, id: ApiKeyId) -> Result<ApiKey> {
    services.permit(caller, Action::ListKeys).await?;
    let found = api_keys::find(services.store.read_usage().await?.conn(), id).await?;
    found.filter(|key| key.agent_id == agent).ok_or(NOT_FOUND)
}

/// Replaces an active key with a new one of the same name, expiry and limits. The old key works until `grace` is over.
/// If its uses are limited, the new key gets the remaining uses, and the old key stops working at once.
///
/// # Errors
/// [`Error::Denied`] if the agent holds a capability that the caller lacks; [`Error::NotFound`]; [`Error::Refused`]
/// unless the key is active and unexpired; see [`Once`].
pub async fn rotate(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    old: ApiKeyId,
    grace: Option<Duration>,
    once: Once<Rotation>,
) -> Result<Rotation> {
    let grace = grace.unwrap_or(services.settings.rotation_grace);
    let (id, raw_key) = (ApiKeyId(services.env.uuid()), RawApiKey::generate(&services.env));
    services
        .change(caller, Action::RotateKey, move |act| {
            Box::pin(async move {
                power::require_to_issue(act, agent, Some(old)).await?;
                let first = once.begin(act).await?;
                let mut key = find(act, agent, old).await?;
                let now = act.now;
                if key.status != ApiKeyStatus::Active {
                    return Err(Error::Refused("Only active keys can be rotated"));
                }
                if key.validity().check(now).is_err() {
                    return Err(Error::Refused("The key has expired. Create a new one"));
                }
                key.status = ApiKeyStatus::Rotated;
                key.rotated_at = Some(now);
                key.grace_ends_at = Some(now.plus(grace));
                if !api_keys::transition(act.tx, &key, ApiKeyStatus::Active).await? {
                    return Err(Error::Refused("Only active keys can be rotated"));
                }
                // The remaining uses go to the new key, so that both keys together have no more than before.
                api_keys::use_up(act.tx, old).await?;
                let new = NewApiKey { name: key.name, expires_at: key.expires_at, limits: key.limits };
                let new = insert(act, agent, id, raw_key, new).await?;
                let details = json!({ "old_key_id": old, "new_key_id": id });
                act.audit(AuditAction::KeyRotated, Resource::ApiKey(old), Some(agent), details);
                first.finish(act, Rotation { old, new, grace }).await
            })
        })
        .await
}

/// Revokes a key. Tokens that were issued for it end at once.
///
/// # Errors
/// [`Error::Denied`] if the agent holds a capability that the caller lacks, unless the caller is the agent;
/// [`Error::NotFound`]; [`Error::ProofNeeded`]; [`Error::Refused`] if the key is already revoked, or if no lasting
/// credential of an active agent that holds `admin:*` would be left.
pub async fn revoke(services: &Services, caller: &Caller, agent: AgentId, id: ApiKeyId) -> Result<()> {
    services
        .change(caller, Action::RevokeKey, move |act| {
            Box::pin(async move {
                power::require_to_revoke(act, agent).await?;
                let mut key = find(act, agent, id).await?;
                if key.status == ApiKeyStatus::Revoked {
                    return Err(Error::Refused("Key already revoked"));
                }
                require_other_credential(act, agent, Credential::ApiKey(id)).await?;
                let from = key.status;
                key.status = ApiKeyStatus::Revoked;
                key.revoked_at = Some(act.now);
                if !api_keys::transition(act.tx, &key, from).await? {
                    return Err(Error::Refused("Key already revoked"));
                }
                let details = json!({ "target_agent": agent, "key_name": key.name });
                act.audit(AuditAction::KeyRevoked, Resource::ApiKey(id), Some(agent), details);
                Ok(())
            })
        })
        .await
}

async fn find(act: &mut Act<'_>, agent: AgentId, id: ApiKeyId) -> Result<ApiKey> {
    api_keys::find(act.conn(), id).await?.filter(|key| key.agent_id == agent).ok_or(NOT_FOUND)
}

async fn insert(
    act: &mut Act<'_>,
    agent: AgentId,
    id: ApiKeyId,
    raw_key: RawApiKey,
    new: NewApiKey,
) -> Result<CreatedApiKey> {
    let key = ApiKey {
        id,
        agent_id: agent,
        key_prefix: raw_key.prefix().to_owned(),
        name: new.name,
        status: ApiKeyStatus::Active,
        limits: new.limits,
        expires_at: new.expires_at,
        created_at: act.now,
        rotated_at: None,
        grace_ends_at: None,
        revoked_at: None,
        last_used_at: None,
        last_used_ip: None,
    };
    let principal = act.tx.principal(agent, act.now).await?;
    if principal.is_some_and(|principal| principal.keys.len() >= ApiKey::MAX_PER_AGENT) {
        let max = ApiKey::MAX_PER_AGENT;
        return Err(Error::Conflict(format!("An agent can have at most {max} working keys. Revoke some first").into()));
    }
    if !api_keys::insert(act.tx, &key, &raw_key.hash()).await? {
        return Err(Error::internal("a generated API key already exists"));
    }
    Ok(CreatedApiKey { key, raw_key })
}
