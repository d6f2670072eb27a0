//! One-time import of the predecessor's database, all or nothing.
//!
//! Everything is read and parsed before anything is written, and then written in one transaction. So an error at any
//! point leaves the database unchanged.

mod plan;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, path::Path};

use serde::Serialize;
use serde_json::json;

use super::Services;
use crate::{
    clock::Environment,
    domain::{
        CapabilityId, Error, Result,
        agent::labels::Labels,
        audit::{AuditAction, Event},
    },
    store::{
        Tx, agents, capabilities,
        credentials::api_keys,
        seed::{self, ReadError},
    },
};
use plan::Plan;

/// Why nothing was imported. The messages are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] ReadError),
    /// A row cannot be imported.
    #[error(transparent)]
    Row(#[from] BadRow),
    /// A database was imported before, or the import conflicts with existing data.
    #[error("nothing was imported: {0}")]
    Refused(String),
    /// The database failed.
    #[error("nothing was imported: {0}")]
    Store(#[source] Error),
}

/// A row that cannot be imported.
#[derive(Debug, thiserror::Error)]
#[error("nothing was imported: the table {table}, row {row} (id {id}), {field}: {problem}")]
pub struct BadRow {
    /// The table.
    pub table: &'static str,
    /// The number of the row, from 1.
    pub row: i64,
    /// The ID of the row, quoted.
    pub id: String,
    /// The column.
    pub field: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// The numbers of imported rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Agents.
    pub agents: usize,
    /// API keys.
    pub api_keys: usize,
    /// New capabilities.
    pub capabilities: usize,
    /// Capabilities whose name already existed. The existing ones are used.
    pub capabilities_matched: usize,
    /// Grants.
    pub grants: usize,
    /// Audit records.
    pub audit_records: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "agents: {}, API keys: {}, capabilities: {} new and {} existing, grants: {}, audit records: {}",
            self.agents, self.api_keys, self.capabilities, self.capabilities_matched, self.grants, self.audit_records
        )
    }
}

/// Imports the predecessor's SQLite file at `path`.
///
/// Agents, keys, capabilities and records keep their IDs if they are UUIDs. Any other ID is replaced with a UUID that
/// is derived from it. If a capability of the same name already exists, grants refer to the existing one. Every imported
/// agent gets `labels`, because the predecessor has none.
///
/// # Errors
/// [`ImportError`]. Nothing is changed then.
pub async fn run(services: &Services, path: &Path, labels: Labels) -> Result<Counts, ImportError> {
    if services.store.db().includes_file(path) {
        return Err(ImportError::Refused(format!("{} is the database of this service", path.display())));
    }
    let contents = seed::read(path).await?;
    let mut plan = Plan::parse(contents, services.settings.rotation_grace)?;
    for agent in &mut plan.agents {
        agent.labels = labels.clone();
    }
    let env = services.env.clone();
    let written = services.store.write_without_limit(move |tx| Box::pin(write(tx, plan, labels, env))).await;
    written.map_err(|error| match error {
        Error::Conflict(reason) => ImportError::Refused(reason.into_owned()),
        other => ImportError::Store(other),
    })
}

async fn write(tx: &mut Tx, plan: Plan, labels: Labels, env: Environment) -> Result<Counts> {
    let now = env.now();
    // The mark comes first. It decides between two concurrent imports, and gives a second import a better error than a
    // conflict.
    if !seed::mark_imported(tx, now).await? {
        return refuse("a database of the predecessor was already imported".to_owned());
    }
    let mut counts = Counts {
        agents: plan.agents.len(),
        api_keys: plan.api_keys.len(),
        grants: plan.grants.len(),
        audit_records: plan.audit.len(),
        ..Counts::default()
    };
    write_agents(tx, &plan).await?;
    write_api_keys(tx, &plan).await?;
    let ids = write_capabilities(tx, &plan, &mut counts).await?;
    write_grants(tx, &plan, &ids).await?;
    tx.import_audit(plan.audit);
    let mut details = json!(counts);
    if let Some(members) = details.as_object_mut().filter(|_| !labels.is_empty()) {
        members.insert("labels".to_owned(), json!(labels));
    }
    tx.audit(Event {
        id: env.uuid(),
        at: now,
        actor: None,
        subject: None,
        action: AuditAction::SeedImported,
        resource: None,
        details,
        ip: None,
        success: true,
        request_id: None,
    });
    Ok(counts)
}

async fn write_agents(tx: &mut Tx, plan: &Plan) -> Result<()> {
    for agent in &plan.agents {
        if agents::find(tx.conn(), agent.id).await?.is_some() {
            return refuse(format!("an agent with the id {} already exists", agent.id));
        }
        if !agents::insert(tx, agent).await? {
            // The most likely conflict is `admin`, which both systems create during setup.
            return refuse(format!(
                "an agent named {} already exists; import before the first start of the service, or delete that agent",
                agent.name
            ));
        }
    }
    Ok(())
}

async fn write_api_keys(tx: &mut Tx, plan: &Plan) -> Result<()> {
    for (key, hash) in &plan.api_keys {
        if api_keys::find(tx.conn(), key.id).await?.is_some() {
            return refuse(format!("an API key with the id {} already exists", key.id));
        }
        if !api_keys::insert(tx, key, hash).await? {
            return refuse(format!("an API key with the hash of {} ({:?}) already exists", key.id, key.name));
        }
    }
    Ok(())
}

/// Adds the new capabilities. Returns the stored ID for each capability of the plan.
async fn write_capabilities(
    tx: &mut Tx,
    plan: &Plan,
    counts: &mut Counts,
) -> Result<HashMap<CapabilityId, CapabilityId>> {
    let mut ids = HashMap::with_capacity(plan.capabilities.len());
    for capability in &plan.capabilities {
        let present = capabilities::find_by_name(tx.conn(), capability.name.as_str()).await?;
        if let Some(present) = present {
            ids.insert(capability.id, present.id);
            counts.capabilities_matched += 1;
            continue;
        }
        if let Some(present) = capabilities::find(tx.conn(), capability.id).await? {
            return refuse(format!(
                "the id {} of the capability {} already exists, for {}",
                capability.id, capability.name, present.name
            ));
        }
        if !capabilities::insert(tx, capability).await? {
            return refuse(format!("a capability named {} already exists", capability.name));
        }
        ids.insert(capability.id, capability.id);
        counts.capabilities += 1;
    }
    Ok(ids)
}

async fn write_grants(tx: &mut Tx, plan: &Plan, ids: &HashMap<CapabilityId, CapabilityId>) -> Result<()> {
    for grant in &plan.grants {
        let capability = ids.get(&grant.capability).copied();
        let capability =
            capability.ok_or_else(|| Error::internal("a grant of the plan has no capability in the plan"))?;
        if !capabilities::grant(tx, grant.agent, capability, grant.granted_by.map(Into::into), grant.at).await? {
            return refuse(format!("the agent {} already holds the capability {capability}", grant.agent));
        }
    }
    Ok(())
}

fn refuse<T>(reason: String) -> Result<T> {
    Err(Error::Conflict(reason.into()))
}
