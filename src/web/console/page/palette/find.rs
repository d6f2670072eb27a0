//! Looks up what a text may mean.

use super::{
    Entry,
    acts::{self, Act, GRANT, REVOKE, ROTATE},
    fuzzy::{self, EXACT, MISTYPED},
};
use crate::{
    domain::{
        AdministratorId, Agent, AgentId, AgentName, ApiKeyId, ApiKeyStatus, CapabilityId, Error, Limit,
        ProtectedResourceId, RequestId, Result,
        agent::{Filter, Sort},
    },
    service::{
        Action, Caller, Services,
        agents::{self, capabilities},
        audit,
        credentials::{api_keys, key_search},
        people::administrators,
        tokens::resources,
    },
    web::console::{
        NAVIGATION,
        page::{frame::Frame, query::shown_part_of_key},
    },
};

/// Commands with a page of their own, and the action that each one requires.
const COMMANDS: [(Action, &str, &str, &str); 10] = [
    (Action::CreateAgent, "Create agent", "/console/agents/new", "plus"),
    (Action::CreateCapability, "Create capability", "/console/capabilities/new", "plus"),
    (Action::ManageResources, "Create resource", "/console/resources/new", "plus"),
    (Action::ManageAdministrators, "Invite administrator", "/console/administrators/new", "plus"),
    (Action::SuspendAgent, "Suspend agents", "/console/agents?status=active", "suspended"),
    (Action::ManageFactors, "Add authenticator app", "/console/account/authenticator", "plus"),
    (Action::ListKeys, "View keys that expire soon", "/console/keys?show=expiring", "key"),
    (Action::ListKeys, "View keys that never expire", "/console/keys?expiry=never", "key"),
    (Action::ListKeys, "View keys unused for 90 days", "/console/keys?show=idle", "key"),
    (Action::ReadAudit, "Verify the audit log", "/console/audit", "chain"),
];

/// Entries shown at most.
const SHOWN: usize = 20;
/// Agents, and keys, found at most.
const FOUND: Limit = Limit::of(8);
/// Agents whose names are compared.
const COMPARED: Limit = Limit::of(50);
/// Capabilities, and resources, whose names are compared.
const NAMED: Limit = Limit::of(Limit::MAX);
/// The rank of what a part other than the name matches.
const OTHERWISE: u32 = 8;

/// Returns what `text` may mean, the best match first: all that the role allows, but only so many entries.
pub(super) async fn find(services: &Services, caller: &Caller, frame: &Frame, text: &str) -> Result<Vec<Entry>> {
    let text = text.trim();
    let mut entries = destinations(frame, text);
    if !text.is_empty() {
        entries.extend(exact(services, caller, frame, text).await?);
        if let Some((act, object)) = Act::parse(text).filter(|(act, _)| act.is_allowed(frame)) {
            entries.extend(asked_for(services, caller, act, object).await?);
        }
        let found = matching_agents(services, caller, text).await?;
        let is_meant = |rank: u32| rank == EXACT || (found.len() == 1 && rank < MISTYPED);
        if let Some((agent, rank)) = found.first().filter(|(_, rank)| is_meant(*rank)) {
            entries.extend(acts::all(frame, agent, *rank + 1));
        }
        entries.extend(found.into_iter().map(|(agent, rank)| of_agent(&agent, rank)));
        entries.extend(keys(services, caller, text).await?.into_iter().map(|key| Entry { rank: 1, ..key }));
        entries.extend(named(services, caller, frame, text).await?);
    }
    // Stable, so that entries of the same rank stay grouped by kind.
    entries.sort_by_key(|entry| entry.rank);
    let mut known = std::collections::HashSet::new();
    entries.retain(|entry| known.insert((entry.href.clone(), entry.name.clone())));
    entries.truncate(SHOWN);
    Ok(entries)
}

/// Returns the pages and commands that match.
fn destinations(frame: &Frame, text: &str) -> Vec<Entry> {
    let pages = NAVIGATION.iter().flat_map(|(_, pages)| pages.iter());
    let pages = pages.filter(|(section, ..)| *section != "administrators" || frame.is_owner());
    let pages = pages.map(|&(_, href, name, icon)| (name, href, "Page", icon));
    let commands = COMMANDS.iter().filter(|(action, ..)| frame.may(*action));
    let commands = commands.map(|&(_, name, href, icon)| (name, href, "Action", icon));
    let entry = |(name, href, kind, icon): (&str, &str, &'static str, &'static str)| {
        let rank = if text.is_empty() { EXACT } else { fuzzy::rank(name, text)? };
        Some(Entry { name: name.to_owned(), href: href.to_owned(), kind, icon, note: String::new(), rank })
    };
    pages.chain(commands).filter_map(entry).collect()
}

fn of_agent(agent: &Agent, rank: u32) -> Entry {
    let note = if agent.status.as_str() == "active" {
        agent.owner.clone()
    } else {
        format!("{}, {}", agent.owner, agent.status.as_str())
    };
    let (name, href) = (agent.name.to_string(), format!("/console/agents/{}", agent.id));
    Entry { name, href, kind: "Agent", icon: "agent", note, rank }
}

/// Returns what has this identifier or number.
async fn exact(services: &Services, caller: &Caller, frame: &Frame, text: &str) -> Result<Vec<Entry>> {
    let entry = |name: String, href: String, kind, icon| Entry { name, href, kind, icon, note: String::new(), rank: 0 };
    let mut entries = Vec::new();
    if let Ok(seq @ 1..) = text.strip_prefix('#').unwrap_or(text).parse::<i64>()
        && seq <= audit::head(services, caller).await?.seq
    {
        entries.push(entry(format!("Record {seq}"), format!("/console/audit/{seq}"), "Audit record", "audit"));
    }
    let Some(id) = AgentId::parse(text) else { return Ok(entries) };
    if let Some(agent) = found(agents::get(services, caller, id).await)? {
        entries.push(of_agent(&agent, EXACT));
    }
    if let Some(key) = key_search::by_id(services, caller, ApiKeyId(id.0)).await? {
        entries.push(of_key(&key));
    }
    if let Some(capability) = found(capabilities::get(services, caller, CapabilityId(id.0)).await)? {
        let name = capability.name.to_string();
        entries.push(entry(name, format!("/console/capabilities/{}", capability.id), "Capability", "capability"));
    }
    if let Some(resource) = found(resources::get(services, caller, ProtectedResourceId(id.0)).await)? {
        entries.push(entry(resource.name, format!("/console/resources/{}", resource.id), "Resource", "resource"));
    }
    if frame.may(Action::ListAdministrators)
        && let Some(person) = found(administrators::get(services, caller, AdministratorId(id.0)).await)?
    {
        let href = format!("/console/administrators/{}", person.id);
        entries.push(entry(person.display_name, href, "Administrator", "person"));
    }
    if entries.is_empty()
        && let Some(request) = RequestId::parse(text)
    {
        let href = format!("/console/audit?request={}", request.as_str());
        entries.push(entry(format!("Records of request {}", request.as_str()), href, "Audit log", "audit"));
    }
    Ok(entries)
}

/// Returns the pages of an action on the objects that match.
async fn asked_for(services: &Services, caller: &Caller, act: &Act, object: &str) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    // "grant documents:read to planner-us"
    let (capability, agent) = object.split_once(" to ").unwrap_or((object, object));
    let found = matching_agents(services, caller, agent.trim()).await?;
    if act.verb == ROTATE {
        for (agent, rank) in found.iter().take(3) {
            let keys = api_keys::list(services, caller, agent.id).await?;
            let keys = keys.iter().filter(|key| key.status == ApiKeyStatus::Active).take(4);
            entries.extend(keys.map(|key| Entry {
                name: format!("Rotate {} of {}", key.name, agent.name),
                href: format!("/console/agents/{}/keys/{}/rotate", agent.id, key.id),
                kind: "Action",
                icon: "rotated",
                note: format!("{}…", key.key_prefix),
                rank: *rank,
            }));
        }
    }
    entries.extend(found.iter().filter_map(|(agent, rank)| act.on(agent, *rank)));
    if act.verb == GRANT {
        let held = capabilities::list(services, caller, None, NAMED).await?.items;
        let ranked = held.iter().filter_map(|it| Some((it, fuzzy::rank(it.name.as_str(), capability.trim())?)));
        entries.extend(ranked.map(|(capability, rank)| Entry {
            name: format!("Grant {}", capability.name),
            href: format!("/console/capabilities/{}", capability.id),
            kind: "Action",
            icon: "capability",
            note: String::new(),
            rank,
        }));
    }
    if act.verb == REVOKE || act.verb == ROTATE {
        let keys = key_entries(services, caller, object).await?;
        let keys = keys.into_iter().filter(|(_, key)| match key.status {
            ApiKeyStatus::Active => true,
            ApiKeyStatus::Rotated => act.verb == REVOKE,
            ApiKeyStatus::Revoked => false,
        });
        entries.extend(keys.map(|(entry, key)| Entry {
            name: format!(
                "{} {} of {}",
                if act.verb == REVOKE { "Revoke" } else { "Rotate" },
                key.name,
                key.agent_name
            ),
            href: format!("/console/agents/{}/keys/{}/{}", key.agent_id, key.id, act.verb),
            kind: "Action",
            rank: EXACT,
            ..entry
        }));
    }
    Ok(entries)
}

/// Returns agents by what their name, owner or description contains; or, if there are none, those with a name that
/// differs in a few characters.
async fn matching_agents(services: &Services, caller: &Caller, text: &str) -> Result<Vec<(Agent, u32)>> {
    let list = async |text: &str, limit: Limit| {
        let filter = Filter { text: Some(text.to_owned()), ..Filter::default() };
        Ok::<_, Error>(agents::list(services, caller, &filter, Sort::Name, None, limit).await?.items)
    };
    let ranked = |agents: Vec<Agent>| {
        let mut ranked: Vec<_> = agents
            .into_iter()
            .map(|agent| (fuzzy::rank(agent.name.as_str(), text).unwrap_or(OTHERWISE), agent))
            .map(|(rank, agent)| (agent, rank))
            .collect();
        // Of names that start alike, the shorter one is more of a match.
        ranked.sort_by_key(|(agent, rank)| (*rank, agent.name.as_str().len()));
        ranked.truncate(usize::from(FOUND.get()));
        ranked
    };
    let mut agents = list(text, COMPARED).await?;
    // The exact name may be after many that contain it.
    if let Ok(name) = AgentName::parse(text)
        && agents.iter().all(|agent| agent.name != name)
        && let Some(agent) = found(agents::by_name(services, caller, &name).await)?
    {
        agents.insert(0, agent);
    }
    if !agents.is_empty() {
        return Ok(ranked(agents));
    }
    let words: Vec<_> = text.split_whitespace().collect();
    if words.len() > 1 {
        // Names contain no spaces. The longest word finds candidates.
        let longest = words.iter().max_by_key(|word| word.chars().count()).copied().unwrap_or_default();
        agents = list(longest, COMPARED).await?;
    } else {
        // One mistyped character is in one half of the text, so the other half finds the agent.
        let characters: Vec<char> = text.chars().collect();
        let (start, end) = characters.split_at(characters.len() / 2);
        if start.len() >= 3 {
            agents = list(&String::from_iter(start), COMPARED).await?;
            agents.extend(list(&String::from_iter(end), COMPARED).await?);
        }
    }
    agents.retain(|agent| fuzzy::rank(agent.name.as_str(), text).is_some());
    Ok(ranked(agents))
}

fn of_key(key: &key_search::FoundKey) -> Entry {
    let path = format!("/console/agents/{}/keys/{}", key.agent_id, key.id);
    let note = format!("{}… of {}", key.key_prefix, key.agent_name);
    Entry { name: key.name.clone(), href: path, kind: "API key", icon: "key", note, rank: EXACT }
}

/// Returns the keys with this prefix, if `text` is the start of a key.
async fn key_entries(services: &Services, caller: &Caller, text: &str) -> Result<Vec<(Entry, key_search::FoundKey)>> {
    let Some((prefix, _)) = shown_part_of_key(text).filter(|(prefix, _)| prefix.len() > 6) else {
        return Ok(Vec::new());
    };
    let keys = key_search::by_prefix(services, caller, prefix, FOUND).await?;
    Ok(keys.into_iter().map(|key| (of_key(&key), key)).collect())
}

async fn keys(services: &Services, caller: &Caller, text: &str) -> Result<Vec<Entry>> {
    Ok(key_entries(services, caller, text).await?.into_iter().map(|(entry, _)| entry).collect())
}

/// Returns the capabilities, people and resources with a name that matches. There are few of each.
async fn named(services: &Services, caller: &Caller, frame: &Frame, text: &str) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut add = |names: [&str; 2], href: String, kind: &'static str, icon: &'static str| {
        let rank = names.iter().filter_map(|name| fuzzy::rank(name, text)).min();
        let [name, note] = names.map(str::to_owned);
        if let Some(rank) = rank {
            let note = if note == name { String::new() } else { note };
            entries.push(Entry { name, href, kind, icon, note, rank });
        }
    };
    for capability in capabilities::list(services, caller, None, NAMED).await?.items {
        let name = capability.name.as_str();
        add([name, name], format!("/console/capabilities/{}", capability.id), "Capability", "capability");
    }
    if frame.may(Action::ListAdministrators) {
        for person in administrators::list(services, caller).await? {
            let names = [person.display_name.as_str(), person.username.as_str()];
            add(names, format!("/console/administrators/{}", person.id), "Administrator", "person");
        }
    }
    for resource in resources::list(services, caller, None, NAMED).await?.items {
        let names = [resource.name.as_str(), resource.identifier.as_str()];
        add(names, format!("/console/resources/{}", resource.id), "Resource", "resource");
    }
    Ok(entries)
}

/// Turns "not found" into `None`.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
