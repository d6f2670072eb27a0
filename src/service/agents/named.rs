//! Finding agents by the names or IDs that an administrator lists.

use std::collections::{HashMap, HashSet};

use crate::{
    domain::{AgentId, AgentName, Result},
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::agents,
};

/// Agents as an administrator lists them.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The agents, each once.
    pub agents: Vec<AgentId>,
    /// Words that are neither a name nor an ID of an agent.
    pub unknown: Vec<String>,
}

/// Finds the agents with these names or IDs.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `agents:read`.
pub async fn find(services: &Services, caller: &Caller, words: &[String]) -> Result<Listed> {
    services.permit(caller, Action::ListAgents).await?;
    let mut read = services.store.read().await?;
    let ids: Vec<_> = words.iter().filter_map(|word| AgentId::parse(word)).collect();
    let names: Vec<_> = words.iter().filter_map(|word| AgentName::parse(word).ok()).collect();
    let existing: HashSet<_> = agents::names(read.conn(), &ids).await?.into_iter().map(|(id, _)| id).collect();
    let found = agents::by_names(read.conn(), &names).await?;
    let by_name: HashMap<_, _> = found.iter().map(|(id, name)| (name.as_str(), *id)).collect();
    let (mut listed, mut seen) = (Listed::default(), HashSet::new());
    for word in words {
        let by_id = AgentId::parse(word).filter(|id| existing.contains(id));
        match by_id.or_else(|| by_name.get(word.as_str()).copied()) {
            Some(agent) if seen.insert(agent) => listed.agents.push(agent),
            Some(_) => {}
            None => listed.unknown.push(word.clone()),
        }
    }
    Ok(listed)
}
