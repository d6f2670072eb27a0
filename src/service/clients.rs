//! OAuth clients: every agent is one, and any of its API keys is its secret (RFC 6749 §2.3).

use std::sync::Arc;

use super::{
    Services,
    caller::{AgentCaller, Caller, Origin, Principal},
    tokens::check_status,
};
use crate::{
    crypto::RawApiKey,
    domain::{AgentId, ApiKeyId, AuthFailure, Result, api_key::Validity},
    store::principals,
};

/// An agent that presented one of its keys.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) principal: Arc<principals::Principal>,
    pub(super) key: ApiKeyId,
    pub(super) validity: Validity,
}

/// Authenticates an agent by one of its API keys. Whoever also says who they are must be right about it.
///
/// # Errors
/// [`AuthFailure`] for a key that is unknown or has ended, and for an agent that may not act; each is recorded.
pub async fn authenticate(
    services: &Services,
    origin: &Origin,
    client_id: Option<&str>,
    secret: &str,
) -> Result<Client> {
    let now = services.env.now();
    let Some(hash) = RawApiKey::parse(secret).map(|key| key.hash()) else {
        return services.refuse(origin, None, None, AuthFailure::InvalidKey).await;
    };
    let Some((key, agent)) = services.principals.key_owner(&services.store, &hash).await? else {
        return services.refuse(origin, None, None, AuthFailure::InvalidKey).await;
    };
    if client_id.is_some_and(|id| AgentId::parse(id) != Some(agent)) {
        return services.refuse(origin, Some(agent), Some(key), AuthFailure::InvalidKey).await;
    }
    let Some(principal) = services.principals.agent(&services.store, agent, now).await? else {
        return services.refuse(origin, None, None, AuthFailure::InvalidKey).await;
    };
    let validity = match principal.key(key) {
        Some(validity) => Some(*validity),
        None => principals::key_validity(services.store.read().await?.conn(), key).await?,
    };
    let usable = validity.ok_or(AuthFailure::InvalidKey).and_then(|validity| {
        validity.check(now)?;
        check_status(principal.status)?;
        Ok(validity)
    });
    match usable {
        Ok(validity) => Ok(Client { principal, key, validity }),
        Err(failure) => services.refuse(origin, Some(agent), Some(key), failure).await,
    }
}

impl Client {
    /// The agent.
    #[must_use]
    pub fn id(&self) -> AgentId {
        self.principal.id
    }

    /// The client as a caller with all that its agent holds.
    #[must_use]
    pub fn into_caller(self, origin: Origin) -> Caller {
        let principal = Principal::Agent(AgentCaller {
            id: self.principal.id,
            authority: self.principal.capabilities.clone(),
            key: self.key,
            token_epoch: self.principal.token_epoch,
            token: None,
        });
        Caller { principal, origin }
    }
}
