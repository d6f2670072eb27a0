//! The first agent with `admin:*`, and the recovery of access to it.

use super::{
    Services,
    agents::{
        self, NewAgent,
        capabilities::{self, NewCapability},
    },
    core::{act::Act, caller::Caller, conditions::Once, policy::Action},
    credentials::api_keys::{self, NewApiKey},
};
use crate::{
    clock::Environment,
    crypto::RawApiKey,
    domain::{
        AgentId, AgentName, AgentType, ApiKeyId, CapabilityId, Error, KeyLimits, Result, agent::labels::Labels,
        capability::builtin,
    },
    store::capabilities as stored,
};

/// The name of the agent that [`run`] registers.
pub(in crate::service) const ADMIN_NAME: &str = "admin";
const KEY_NAME: &str = "admin-bootstrap";
const RECOVERY_KEY_NAME: &str = "admin-recovery";

/// A new API key of an agent with `admin:*`.
pub struct AdministratorKey {
    /// The agent.
    pub agent: AgentId,
    /// The secret, which is not stored.
    pub raw_key: RawApiKey,
}

/// Returns true if an agent holds `admin:*`.
///
/// # Errors
/// When the database fails.
pub async fn is_done(services: &Services) -> Result<bool> {
    stored::has_administrator(services.store.read().await?.conn()).await
}

/// Registers the built-in capabilities and the agent `admin`, which holds all of them and has one API key. Changes
/// nothing and returns `None` if an agent already holds `admin:*`.
///
/// # Errors
/// [`Error::Conflict`] if an agent named `admin` exists without that capability.
pub async fn run(services: &Services) -> Result<Option<AdministratorKey>> {
    if is_done(services).await? {
        return Ok(None);
    }
    let env = services.env.clone();
    services
        .change(&Caller::system(), Action::CreateAgent, move |act| Box::pin(async move { set_up(act, &env).await }))
        .await
}

async fn set_up(act: &mut Act<'_>, env: &Environment) -> Result<Option<AdministratorKey>> {
    // Checked again inside the transaction, because several nodes may start at once.
    if stored::has_administrator(act.conn()).await? {
        return Ok(None);
    }
    let fixed = |invalid| Error::internal(format!("a built-in name is invalid: {invalid:?}"));
    let agent = AgentId(env.uuid());
    let admin = NewAgent {
        name: AgentName::parse(ADMIN_NAME).map_err(fixed)?,
        owner: "system".to_owned(),
        description: "The first administrator".to_owned(),
        agent_type: AgentType::Orchestrator,
        metadata_json: "{}".to_owned(),
        labels: Labels::default(),
    };
    agents::register(act, agent, admin).await?;
    for (name, description) in builtin::ALL {
        let capability = if let Some(present) = stored::find_by_name(act.conn(), name).await? {
            present
        } else {
            let new = NewCapability { name: name.into(), description: description.to_owned() };
            capabilities::register(act, CapabilityId(env.uuid()), new).await?
        };
        capabilities::give(act, agent, &capability).await?;
    }
    let raw_key = RawApiKey::generate(env);
    let key = NewApiKey { name: KEY_NAME.to_owned(), expires_at: None, limits: KeyLimits::default() };
    let created = api_keys::add(act, agent, ApiKeyId(env.uuid()), raw_key, key).await?;
    Ok(Some(AdministratorKey { agent, raw_key: created.raw_key }))
}

/// Creates another API key for the active agent with `admin:*` that was registered first, so that the operator of the
/// host can regain access when all keys are lost.
///
/// # Errors
/// [`Error::NotFound`] if there is no such agent.
pub async fn recover(services: &Services) -> Result<AdministratorKey> {
    let agent = stored::first_administrator(services.store.read().await?.conn()).await?;
    let agent = agent.ok_or(Error::NotFound("Active agent that holds admin:*"))?;
    let key = NewApiKey { name: RECOVERY_KEY_NAME.to_owned(), expires_at: None, limits: KeyLimits::default() };
    let created = api_keys::create(services, &Caller::system(), agent, key, Once::each_time()).await?;
    Ok(AdministratorKey { agent, raw_key: created.raw_key })
}
