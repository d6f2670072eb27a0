//! The transaction of a batch.

use std::{collections::HashMap, mem, sync::Arc};

use futures_util::future::BoxFuture;

use super::{
    agents,
    capability_usage::Uses,
    connection::WriteConn,
    usage::{Pending, Usage},
};
use crate::{
    domain::{
        AgentId, AgentStatus, ApiKeyId, Result, Timestamp,
        audit::{AuditAction, Event, Record},
        credential::api_key::Use,
    },
    store::{
        db::{
            Conn,
            changes::{CHANNEL, Changes},
        },
        principals::{self, Principal},
    },
};

/// Responds to a caller. Runs once the batch is durable; dropped without running if the commit fails.
pub(super) type Reply = Box<dyn FnOnce() + Send>;
pub(super) type Unit = Box<dyn for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Outcome> + Send>;

/// How a unit ended, and who waits for it.
pub(super) struct Outcome {
    pub(super) succeeded: bool,
    pub(super) reply: Reply,
}

/// The counts to write with a batch.
#[derive(Clone, Copy)]
pub(super) struct Counts<'c> {
    pub(super) usage: &'c Pending,
    pub(super) capabilities: &'c Uses,
}

/// The transaction that a unit of work runs in.
pub struct Tx {
    connection: WriteConn,
    events: Vec<(AuditAction, Record)>,
    imported: Vec<Record>,
    usage: Usage,
    changes: Changes,
    /// Agents that were loaded and have not changed since. No other transaction writes in the meantime.
    principals: HashMap<AgentId, Arc<Principal>>,
    /// Changes to the number of agents with each status.
    counted: Vec<(AgentStatus, i64)>,
}

impl Tx {
    pub(super) fn new(connection: WriteConn) -> Self {
        Self {
            connection,
            events: Vec::new(),
            imported: Vec::new(),
            usage: Usage::default(),
            changes: Changes::default(),
            principals: HashMap::new(),
            counted: Vec::new(),
        }
    }

    /// Adds a record that its caller has built.
    pub(super) fn record(&mut self, action: AuditAction, record: Record) {
        self.events.push((action, record));
    }

    /// Borrows the connection for a store function that reads.
    pub fn conn(&mut self) -> Conn<'_> {
        self.connection.conn()
    }

    /// Adds an audit record to the transaction.
    pub fn audit(&mut self, event: Event) {
        self.events.push((event.action, event.into()));
    }

    /// Adds audit records of another system. They go before the records of this transaction, and get their place in the
    /// chain here.
    pub fn import_audit(&mut self, records: Vec<Record>) {
        self.imported.extend(records);
    }

    /// Returns an agent's authority at `now`, as this transaction sees it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn principal(&mut self, id: AgentId, now: Timestamp) -> Result<Option<Arc<Principal>>> {
        if let Some(known) = self.principals.get(&id) {
            return Ok(Some(known.clone()));
        }
        let Some(loaded) = principals::load(self.conn(), id, now).await? else { return Ok(None) };
        let loaded = Arc::new(loaded);
        self.principals.insert(id, loaded.clone());
        Ok(Some(loaded))
    }

    /// Marks an agent as changed. A store function must call this after it writes a row that the live view reads: at
    /// the commit every node drops its cached copy of the agent.
    pub(in crate::store) fn mark_changed(&mut self, agent: AgentId) {
        self.principals.remove(&agent);
        self.changes.add(agent);
    }

    /// Marks every agent and the signing keys as changed.
    pub(in crate::store) fn mark_everything_changed(&mut self) {
        self.principals.clear();
        self.changes.add_everything();
    }

    /// Adds `by` to the number of agents with this status.
    pub(in crate::store) fn counted(&mut self, status: AgentStatus, by: i64) {
        self.counted.push((status, by));
    }

    /// Notes a use of an API key.
    pub fn used(&mut self, key: ApiKeyId, this: Use) {
        self.usage.used(key, this);
    }

    pub(super) async fn run(&mut self, unit: Unit) -> sqlx::Result<Reply> {
        self.connection.begin_unit().await?;
        let (events, imported, counted) = (self.events.len(), self.imported.len(), self.counted.len());
        let before = mem::take(&mut self.changes);
        let outcome = unit(self).await;
        let mut changes = mem::replace(&mut self.changes, before);
        if !outcome.succeeded {
            self.connection.undo().await?;
            self.events.truncate(events);
            self.imported.truncate(imported);
            self.counted.truncate(counted);
            self.principals.clear();
            changes = Changes::default();
        }
        self.changes.absorb(changes);
        Ok(outcome.reply)
    }

    /// Appends the audit records of the batch to the chain and commits.
    pub(super) async fn commit(mut self, pending: Option<Counts<'_>>) -> sqlx::Result<Committed> {
        let mut records = self.imported;
        records.reserve(self.events.len());
        for (action, record) in self.events {
            self.usage.note(action, &record);
            records.push(record);
        }
        let has_only_records = !self.connection.has_units() && pending.is_none();
        let is_done = has_only_records && (records.is_empty() || self.connection.append(&mut records).await?);
        if !is_done {
            self.connection.begin().await?;
            if self.connection.has_units() {
                agents::save_counts(self.connection.conn(), &self.counted).await?;
            }
            if let Some(pending) = pending {
                pending.usage.save(self.connection.conn()).await?;
                pending.capabilities.save(self.connection.conn()).await?;
            }
            if let Conn::Postgres(mut c) = self.connection.conn() {
                for message in self.changes.to_messages() {
                    sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(message).execute(c.begin()).await?;
                }
            }
            self.connection.commit(&mut records).await?;
        }
        let records = records.len();
        Ok(Committed { connection: self.connection, changes: self.changes, usage: self.usage, records })
    }
}

/// A committed batch.
pub(super) struct Committed {
    pub(super) connection: WriteConn,
    pub(super) changes: Changes,
    pub(super) usage: Usage,
    /// How many audit records it appended.
    pub(super) records: usize,
}
