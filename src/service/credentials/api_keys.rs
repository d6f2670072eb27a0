//! API keys: created, rotated, revoked. The secret leaves here once, with the answer that made it.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};

use super::ways_in::keep_a_way_in;
use crate::{
    crypto::RawApiKey,
    domain::{
        AgentId, ApiKey, ApiKeyId, ApiKeyStatus, CapabilitySet, Error, Invalid, KeyLimits, Limit, Page, Result,
        Timestamp,
        audit::{AuditAction, Resource},
        credential::api_key::{Position, Selection},
        token::Credential,
    },
    service::{
        Services, agents,
        core::{act::Act, caller::Caller, policy::Action, power},
        tokens::resources::require_registered,
    },
    store::credentials::api_keys,
};

/// What is needed to make a key.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// What it is called.
    pub name: String,
    /// When it stops to work by itself.
    pub expires_at: Option<Timestamp>,
    /// What it may be used for at most.
    pub limits: KeyLimits,
}

/// A key that was just made, and its secret.
pub struct CreatedApiKey {
    /// The key.
    pub key: ApiKey,
    /// Its secret, which nothing keeps.
    pub raw_key: RawApiKey,
}

/// What a rotation did.
pub struct Rotation {
    /// The key that was replaced.
    pub old: ApiKeyId,
    /// Its replacement.
    pub new: CreatedApiKey,
    /// How long the old key still works.
    pub grace: Duration,
}

const NOT_FOUND: Error = Error::NotFound("API key");

/// Makes a key for an agent.
///
/// # Errors
/// [`Error::Denied`] when the agent holds authority that the caller lacks; [`Error::NotFound`]; [`Error::Refused`] for a
/// revoked agent; [`Error::Invalid`] for an expiry that is not in the future, or a scope that names a capability which is not
/// registered, or more than a token carries; [`Error::Conflict`] beyond [`ApiKey::MAX_PER_AGENT`].
pub async fn create(services: &Services, caller: &Caller, agent: AgentId, new: NewApiKey) -> Result<CreatedApiKey> {
    create_as(services, caller, agent, ApiKeyId(services.env.uuid()), new).await
}

/// Makes a key under an identifier that was chosen before: whoever asks twice, as a browser does with a form that is sent
/// again, gets one key.
///
/// # Errors
/// As [`create`]; [`Error::Conflict`] when the key was made already.
pub async fn create_as(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    id: ApiKeyId,
    new: NewApiKey,
) -> Result<CreatedApiKey> {
    if new.expires_at.is_some_and(|end| end <= services.env.now()) {
        let invalid = Invalid::new("datetime_future", "Input should be in the future");
        return Err(Error::field(&["body", "expires_at"], invalid));
    }
    let raw_key = RawApiKey::generate(&services.env);
    services
        .change(caller, Action::CreateKey, move |act| {
            Box::pin(async move {
                if api_keys::find(act.conn(), id).await?.is_some() {
                    return Err(Error::Conflict(
                        "This key was made already, and its secret was shown then; make another if it was not kept"
                            .into(),
                    ));
                }
                make(act, agent, id, raw_key, new).await
            })
        })
        .await
}

pub(in crate::service) async fn make(
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
            let told = format!("The names may have {} characters together", CapabilitySet::TOKEN_MAX);
            return Err(Error::field(&["body", "scope"], Invalid::new("too_long", told)));
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

/// The keys of an agent, oldest first.
///
/// # Errors
/// [`Error::NotFound`] for an unknown agent.
pub async fn list(services: &Services, caller: &Caller, agent: AgentId) -> Result<Vec<ApiKey>> {
    services.permit(caller, Action::ListKeys).await?;
    let mut read = services.store.read_usage().await?;
    crate::store::agents::find(read.conn(), agent).await?.ok_or(agents::NOT_FOUND)?;
    api_keys::list(read.conn(), agent).await
}

/// How often each key of an agent was used in the last 30 days; keys that were not are left out.
///
/// # Errors
/// [`Error::Denied`].
pub async fn uses(services: &Services, caller: &Caller, agent: AgentId) -> Result<HashMap<ApiKeyId, i64>> {
    services.permit(caller, Action::ListKeys).await?;
    let uses = api_keys::uses(services.store.read_usage().await?.conn(), agent, services.env.now()).await?;
    Ok(uses.into_iter().collect())
}

/// One key of an agent.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(services: &Services, caller: &Caller, agent: AgentId, id: ApiKeyId) -> Result<ApiKey> {
    services.permit(caller, Action::ListKeys).await?;
    let found = api_keys::find(services.store.read_usage().await?.conn(), id).await?;
    found.filter(|key| key.agent_id == agent).ok_or(NOT_FOUND)
}

/// A page of the fleet's keys.
///
/// # Errors
/// [`Error::Denied`].
pub async fn fleet(
    services: &Services,
    caller: &Caller,
    selection: Selection,
    after: Option<Position>,
    limit: Limit,
) -> Result<Page<ApiKey, Position>> {
    services.permit(caller, Action::ListKeys).await?;
    let now = services.env.now();
    api_keys::fleet(services.store.read_usage().await?.conn(), selection, now, after, limit).await
}

/// Replaces an active key by a new one of the same name, expiry and limits. The old one works until `grace` is over, unless its
/// uses are counted: what is left of them is the new one's.
///
/// # Errors
/// [`Error::Denied`] when the agent holds authority that the caller lacks; [`Error::NotFound`]; [`Error::Refused`] unless
/// the key is active and unexpired.
pub async fn rotate(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    old: ApiKeyId,
    grace: Option<Duration>,
) -> Result<Rotation> {
    let grace = grace.unwrap_or(services.settings.rotation_grace);
    let (id, raw_key) = (ApiKeyId(services.env.uuid()), RawApiKey::generate(&services.env));
    services
        .change(caller, Action::RotateKey, move |act| {
            Box::pin(async move {
                power::require_to_issue(act, agent, Some(old)).await?;
                let mut key = find(act, agent, old).await?;
                let now = act.now;
                if key.status != ApiKeyStatus::Active {
                    return Err(Error::Refused("Only active keys can be rotated"));
                }
                if key.validity().check(now).is_err() {
                    return Err(Error::Refused("The key has expired; create a new one"));
                }
                key.status = ApiKeyStatus::Rotated;
                key.rotated_at = Some(now);
                key.grace_ends_at = Some(now.plus(grace));
                if !api_keys::transition(act.conn(), &key, ApiKeyStatus::Active).await? {
                    return Err(Error::Refused("Only active keys can be rotated"));
                }
                // What is left of its uses goes over, so that the two together have no more than the one had.
                api_keys::use_up(act.conn(), old).await?;
                let new = NewApiKey { name: key.name, expires_at: key.expires_at, limits: key.limits };
                let new = insert(act, agent, id, raw_key, new).await?;
                let details = json!({ "old_key_id": old, "new_key_id": id });
                act.audit(AuditAction::KeyRotated, Resource::ApiKey(old), Some(agent), details);
                Ok(Rotation { old, new, grace })
            })
        })
        .await
}

/// Ends a key at once, and every token that was issued for it.
///
/// # Errors
/// [`Error::Denied`] when the agent holds authority that the caller lacks, unless the caller is the agent; [`Error::NotFound`];
/// [`Error::ProofNeeded`]; [`Error::Refused`] when it is revoked already, or is the last credential, or the last that lasts, by
/// which an active agent that holds `admin:*` can come in.
pub async fn revoke(services: &Services, caller: &Caller, agent: AgentId, id: ApiKeyId) -> Result<()> {
    services
        .change(caller, Action::RevokeKey, move |act| {
            Box::pin(async move {
                power::require_to_withdraw(act, agent).await?;
                let mut key = find(act, agent, id).await?;
                if key.status == ApiKeyStatus::Revoked {
                    return Err(Error::Refused("Key already revoked"));
                }
                keep_a_way_in(act, agent, Credential::ApiKey(id)).await?;
                let from = key.status;
                key.status = ApiKeyStatus::Revoked;
                key.revoked_at = Some(act.now);
                if !api_keys::transition(act.conn(), &key, from).await? {
                    return Err(Error::Refused("Key already revoked"));
                }
                act.tx.changed(agent);
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
        let most = ApiKey::MAX_PER_AGENT;
        return Err(Error::Conflict(format!("An agent has at most {most} keys that work; revoke some first").into()));
    }
    if !api_keys::insert(act.conn(), &key, &raw_key.hash()).await? {
        return Err(Error::internal("a generated API key exists already"));
    }
    act.tx.changed(agent);
    Ok(CreatedApiKey { key, raw_key })
}
