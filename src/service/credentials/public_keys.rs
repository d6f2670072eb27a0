//! Public keys of agents. The rules are those of API keys, without expiry and limits.

use serde_json::{Value, json};

use crate::{
    domain::{
        AgentId, Error, Invalid, PublicKeyId, Result,
        audit::{AuditAction, Resource},
        credential::public_key::PublicKey,
        token::Credential,
    },
    service::{
        Services,
        core::{
            act::Act, agent, caller::Caller, conditions::Once, last_administrator::require_other_credential,
            policy::Action, power,
        },
    },
    store::credentials::public_keys,
};

pub use crate::crypto::AssertionKey;

/// Parses a JSON Web Key or a JWK set (RFC 7517 §5).
///
/// # Errors
/// [`Error::Invalid`] for the first key that is not valid.
pub fn parse(value: &Value) -> Result<Vec<AssertionKey>> {
    let invalid = |invalid| Error::field(&["body"], invalid);
    let keys = match value.get("keys") {
        Some(Value::Array(keys)) if !keys.is_empty() => keys.as_slice(),
        Some(_) => return Err(invalid(Invalid::new("jwk", "The member keys must be an array of JSON Web Keys"))),
        None => std::slice::from_ref(value),
    };
    keys.iter().map(AssertionKey::from_jwk).collect::<Result<_, _>>().map_err(invalid)
}

/// Registers public keys of an agent: all of them, or none.
///
/// # Errors
/// [`Error::Denied`] if the agent holds a capability that the caller lacks; [`Error::NotFound`]; [`Error::Conflict`]
/// for a key that the agent already has, and beyond [`PublicKey::MAX_PER_AGENT`]; see [`Once`].
pub async fn register(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    keys: Vec<AssertionKey>,
    once: Once<Vec<PublicKey>>,
) -> Result<Vec<PublicKey>> {
    let env = services.env.clone();
    services
        .change(caller, Action::CreateKey, move |act| {
            Box::pin(async move {
                power::require_to_issue(act, agent, None).await?;
                let first = once.begin(act).await?;
                if public_keys::of_agent(act.conn(), agent).await?.len() + keys.len() > PublicKey::MAX_PER_AGENT {
                    return Err(Error::Conflict(
                        format!("An agent has at most {} public keys", PublicKey::MAX_PER_AGENT).into(),
                    ));
                }
                let mut registered = Vec::new();
                for key in keys {
                    registered.push(add(act, agent, PublicKeyId(env.uuid()), &key).await?);
                }
                first.finish(act, registered).await
            })
        })
        .await
}

async fn add(act: &mut Act<'_>, agent: AgentId, id: PublicKeyId, key: &AssertionKey) -> Result<PublicKey> {
    let key = PublicKey {
        id,
        agent,
        kid: key.kid().to_owned(),
        thumbprint: key.thumbprint().to_owned(),
        jwk: key.jwk().clone(),
        created_at: act.now,
    };
    if !public_keys::insert(act.tx, &key).await? {
        return Err(Error::Conflict("The agent already has this public key".into()));
    }
    let details = json!({ "target_agent": agent, "kid": key.kid, "thumbprint": key.thumbprint });
    act.audit(AuditAction::PublicKeyRegistered, Resource::PublicKey(id), Some(agent), details);
    Ok(key)
}

/// Returns the public keys of an agent.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`].
pub async fn list(services: &Services, caller: &Caller, agent: AgentId) -> Result<Vec<PublicKey>> {
    services.permit(caller, Action::ListKeys).await?;
    let mut read = services.store.read().await?;
    agent::find(read.conn(), agent).await?;
    public_keys::of_agent(read.conn(), agent).await
}

/// Removes a public key. Tokens that were issued for it end at once.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`], [`Error::ProofNeeded`]; [`Error::Refused`] if no lasting credential of an
/// active agent that holds `admin:*` would be left.
pub async fn remove(services: &Services, caller: &Caller, agent: AgentId, id: PublicKeyId) -> Result<()> {
    services
        .change(caller, Action::RevokeKey, move |act| {
            Box::pin(async move {
                power::require_to_revoke(act, agent).await?;
                require_other_credential(act, agent, Credential::PublicKey(id)).await?;
                let removed = public_keys::delete(act.tx, agent, id).await?;
                let key = removed.ok_or(Error::NotFound("Public key"))?;
                let details = json!({ "target_agent": agent, "kid": key.kid, "thumbprint": key.thumbprint });
                act.audit(AuditAction::PublicKeyRemoved, Resource::PublicKey(id), Some(agent), details);
                Ok(())
            })
        })
        .await
}
