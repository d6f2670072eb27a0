//! The names of what audit records are about.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

pub use crate::store::audit::names::KeyName;

use crate::{
    domain::{
        ActorId, AgentId, ApiKeyId, Result,
        audit::{Record, text_in},
    },
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::{agents, audit::names, people::administrators},
};

/// Members of the details that identify an agent or an administrator.
const ACTORS: [&str; 4] = ["target_agent", "delegate", "on_behalf_of", "sub"];
/// Members of the details that identify an API key.
const KEYS: [&str; 3] = ["old_key_id", "new_key_id", "subject_credential"];

/// The names of agents, administrators and API keys. Deleted agents have their last name.
#[derive(Clone, Debug, Default)]
pub struct Names {
    actors: HashMap<ActorId, String>,
    keys: HashMap<ApiKeyId, KeyName>,
}

impl Names {
    /// Returns the name of an agent or administrator.
    #[must_use]
    pub fn actor(&self, id: ActorId) -> Option<&str> {
        self.actors.get(&id).map(String::as_str)
    }

    /// Returns the name of an agent or administrator, or its identifier if it is unknown.
    #[must_use]
    pub fn actor_or_id(&self, id: ActorId) -> String {
        self.actor(id).map_or_else(|| id.to_string(), str::to_owned)
    }

    /// Returns the name of a key that exists.
    #[must_use]
    pub fn key(&self, id: ApiKeyId) -> Option<&KeyName> {
        self.keys.get(&id)
    }

    /// Returns the name of the target of a record.
    #[must_use]
    pub fn target(&self, record: &Record) -> Option<String> {
        let id = record.resource_id.as_deref()?;
        let detail = |member| text_in(&record.details, member);
        match record.resource_type.as_deref()? {
            "agent" => ActorId::parse(id).map(|id| self.actor_or_id(id)),
            "api_key" => match Uuid::parse_str(id).ok().and_then(|id| self.key(ApiKeyId(id))) {
                Some(key) => Some(key.label()),
                None => detail("key_name").filter(|name| !name.is_empty()),
            },
            "administrator" => {
                ActorId::parse(id).and_then(|id| self.actor(id).map(str::to_owned)).or_else(|| detail("username"))
            }
            "capability" => detail("capability"),
            "resource" => detail("identifier"),
            "public_key" => detail("kid"),
            "federated_identity" => detail("issuer"),
            _ => None,
        }
    }
}

/// Returns the names that these records mention.
///
/// # Errors
/// When the database fails.
pub async fn of(services: &Services, caller: &Caller, records: &[Record]) -> Result<Names> {
    let (mut actors, mut keys) = (Vec::new(), Vec::new());
    for record in records {
        actors.extend(record.actor);
        actors.extend(record.subject.map(ActorId::from));
        let target = record.resource_id.as_deref();
        match record.resource_type.as_deref() {
            Some("api_key") => keys.extend(target.and_then(key)),
            Some("agent" | "administrator") => actors.extend(target.and_then(ActorId::parse)),
            _ => {}
        }
        let details: Value = serde_json::from_str(&record.details).unwrap_or_default();
        let text = |member: &&str| details.get(*member)?.as_str();
        actors.extend(ACTORS.iter().filter_map(text).filter_map(ActorId::parse));
        keys.extend(KEYS.iter().filter_map(text).filter_map(key));
        actors.extend(acting(&details).into_iter().filter_map(ActorId::parse));
    }
    look_up(services, caller, actors, keys).await
}

async fn look_up(
    services: &Services,
    caller: &Caller,
    mut actors: Vec<ActorId>,
    mut keys: Vec<ApiKeyId>,
) -> Result<Names> {
    services.permit(caller, Action::ReadAudit).await?;
    let mut read = services.store.read().await?;
    actors.sort_unstable();
    actors.dedup();
    keys.sort_unstable();
    keys.dedup();
    let ids: Vec<_> = actors.iter().map(|id| AgentId(id.0)).collect();
    let found = agents::names(read.conn(), &ids).await?;
    let mut names: HashMap<_, _> = found.into_iter().map(|(id, name)| (id.into(), name.to_string())).collect();
    if actors.iter().any(|id| !names.contains_key(id)) {
        let people = administrators::list(read.conn()).await?;
        names.extend(people.into_iter().map(|person| (person.id.into(), person.username.to_string())));
    }
    let unknown: Vec<_> = actors.iter().filter(|id| !names.contains_key(*id)).map(|id| id.0).collect();
    if !unknown.is_empty() {
        let deleted = names::deleted(read.conn(), &unknown).await?;
        names.extend(deleted.into_iter().map(|(id, name)| (ActorId(id), name)));
    }
    let keys = names::keys(read.conn(), &keys).await?;
    Ok(Names { actors: names, keys })
}

fn key(text: &str) -> Option<ApiKeyId> {
    Uuid::parse_str(text).ok().map(ApiKeyId)
}

/// Returns the agents of an `act` claim (RFC 8693 §4.1), the current actor first.
#[must_use]
pub fn acting(details: &Value) -> Vec<&str> {
    let links = std::iter::successors(details.get("act"), |act| act.get("act"));
    links.filter_map(|act| act.get("sub")?.as_str()).collect()
}

/// Returns the key whose secret begins with these characters.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn key_by_prefix(services: &Services, caller: &Caller, prefix: &str) -> Result<Option<ApiKeyId>> {
    services.permit(caller, Action::ReadAudit).await?;
    names::key_by_prefix(services.store.read().await?.conn(), prefix).await
}

/// Returns the names of these agents.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn of_agents(services: &Services, caller: &Caller, ids: &[AgentId]) -> Result<Names> {
    look_up(services, caller, ids.iter().copied().map(ActorId::from).collect(), Vec::new()).await
}

/// Returns the name of an agent or administrator, or its identifier if it is unknown.
///
/// # Errors
/// When the database fails.
pub async fn of_actor(services: &Services, caller: &Caller, id: ActorId) -> Result<String> {
    let names = look_up(services, caller, vec![id], Vec::new()).await?;
    Ok(names.actor_or_id(id))
}

/// Returns the name of an agent, administrator or API key, or its identifier if it is unknown.
///
/// # Errors
/// When the database fails.
pub async fn of_target(services: &Services, caller: &Caller, id: ActorId) -> Result<String> {
    let key = ApiKeyId(id.0);
    let names = look_up(services, caller, vec![id], vec![key]).await?;
    Ok(names.key(key).map_or_else(|| names.actor_or_id(id), KeyName::label))
}
