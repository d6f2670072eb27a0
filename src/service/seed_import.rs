//! The predecessor's database, brought over: once, whole, or not at all.
//!
//! Everything is read and parsed before anything is written, and written in one transaction, so that a refusal at any
//! point leaves the database as it was.

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
        audit::{AuditAction, Event},
    },
    store::{
        Tx, agents, capabilities,
        credentials::api_keys,
        seed::{self, ReadError},
    },
};
use plan::Plan;

/// Why nothing was imported; every message is meant for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] ReadError),
    /// A row of it cannot be brought over.
    #[error(transparent)]
    Row(#[from] BadRow),
    /// It was imported before, or clashes with what is there.
    #[error("nothing was imported: {0}")]
    Refused(String),
    /// The database failed.
    #[error("nothing was imported: {0}")]
    Store(#[source] Error),
}

/// A row of the predecessor that cannot be brought over.
#[derive(Debug, thiserror::Error)]
#[error("nothing was imported: the table {table}, row {row} (id {id}), {field}: {problem}")]
pub struct BadRow {
    /// The table.
    pub table: &'static str,
    /// The place of the row in it, from 1.
    pub row: i64,
    /// The row's identifier, quoted.
    pub id: String,
    /// The column.
    pub field: &'static str,
    /// What is wrong, in words.
    pub problem: String,
}

/// What an import brought over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Agents.
    pub agents: usize,
    /// API keys.
    pub api_keys: usize,
    /// Capabilities that were new.
    pub capabilities: usize,
    /// Capabilities for which one of the same name existed already, which took their place.
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
            "agents: {}, API keys: {}, capabilities: {} new and {} that existed already, grants: {}, audit records: {}",
            self.agents, self.api_keys, self.capabilities, self.capabilities_matched, self.grants, self.audit_records
        )
    }
}

/// Imports the predecessor's SQLite file at `path`.
///
/// Agents, keys, capabilities and records keep their identifiers where those are UUIDs; any other identifier is
/// replaced by a UUID that follows from it. Where a capability of that name exists already, its grants are imported as grants of
/// the existing one.
///
/// # Errors
/// [`ImportError`], having changed nothing.
pub async fn run(services: &Services, path: &Path) -> Result<Counts, ImportError> {
    if services.store.db().includes_file(path) {
        return Err(ImportError::Refused(format!("{} is the database of this service", path.display())));
    }
    let contents = seed::read(path).await?;
    let plan = Plan::make(contents, services.settings.rotation_grace)?;
    let env = services.env.clone();
    let written = services.store.write_at_length(move |tx| Box::pin(write(tx, plan, env))).await;
    written.map_err(|error| match error {
        Error::Conflict(reason) => ImportError::Refused(reason.into_owned()),
        other => ImportError::Store(other),
    })
}

async fn write(tx: &mut Tx, plan: Plan, env: Environment) -> Result<Counts> {
    let now = env.now();
    // First: the mark decides between two imports at once, and tells a second one what it is rather than what it
    // clashes with.
    if !seed::mark_imported(tx.conn(), now).await? {
        return refuse("a database of the predecessor was imported before".to_owned());
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
    tx.audit(Event {
        id: env.uuid(),
        at: now,
        actor: None,
        subject: None,
        action: AuditAction::SeedImported,
        resource: None,
        details: json!(counts),
        ip: None,
        success: true,
        request_id: None,
    });
    tx.changed_everything();
    Ok(counts)
}

async fn write_agents(tx: &mut Tx, plan: &Plan) -> Result<()> {
    for agent in &plan.agents {
        if agents::find(tx.conn(), agent.id).await?.is_some() {
            return refuse(format!("an agent with the id {} exists already", agent.id));
        }
        if !agents::insert(tx, agent).await? {
            // The likeliest clash is `admin`, which both systems make when they are set up.
            return refuse(format!(
                "an agent named {} exists already; import before the first administrator is made, or delete that agent",
                agent.name
            ));
        }
    }
    Ok(())
}

async fn write_api_keys(tx: &mut Tx, plan: &Plan) -> Result<()> {
    for (key, hash) in &plan.api_keys {
        if api_keys::find(tx.conn(), key.id).await?.is_some() {
            return refuse(format!("an API key with the id {} exists already", key.id));
        }
        if !api_keys::insert(tx.conn(), key, hash).await? {
            return refuse(format!("an API key with the hash of {} ({:?}) exists already", key.id, key.name));
        }
    }
    Ok(())
}

/// Adds the capabilities that are new; returns under which identifier each of the plan's is found.
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
                "the id {} of the capability {} exists already, as {}",
                capability.id, capability.name, present.name
            ));
        }
        if !capabilities::insert(tx.conn(), capability).await? {
            return refuse(format!("a capability named {} exists already", capability.name));
        }
        ids.insert(capability.id, capability.id);
        counts.capabilities += 1;
    }
    Ok(ids)
}

async fn write_grants(tx: &mut Tx, plan: &Plan, ids: &HashMap<CapabilityId, CapabilityId>) -> Result<()> {
    for grant in &plan.grants {
        let capability = ids.get(&grant.capability).copied();
        let capability = capability.ok_or_else(|| Error::internal("a planned grant names no planned capability"))?;
        if !capabilities::grant(tx.conn(), grant.agent, capability, grant.granted_by.map(Into::into), grant.at).await? {
            return refuse(format!("the agent {} holds the capability {capability} already", grant.agent));
        }
    }
    Ok(())
}

fn refuse<T>(reason: String) -> Result<T> {
    Err(Error::Conflict(reason.into()))
}
