//! The write path: a change and its audit record commit together, or neither does.
//!
//! One task per process takes all the work that is waiting, runs it in one transaction, appends the audit records to
//! the chain, commits, and then replies to the callers (group commit). So a disk flush is paid per batch and not per
//! request. A batch that only appends audit records, which is what issuing tokens does, takes one round trip to the
//! database as long as no other node appends as well.

mod agents;
mod connection;
pub(super) mod usage;

use std::{
    collections::HashMap,
    io, iter, mem,
    ops::Not,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{self, BoxFuture},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time,
};

use crate::{
    domain::{
        AgentId, AgentStatus, ApiKeyId, Error, Result, Timestamp,
        audit::{AuditAction, Event, Record},
        credential::api_key::Use,
    },
    store::{
        db::{
            Conn, Db,
            changes::{CHANNEL, Changes},
        },
        principals::{self, Principal},
    },
};
use connection::WriteConn;
use usage::{Pending, Usage};

/// Maximum number of units of work in the queue. More are rejected, so that memory use stays bounded.
const QUEUE: usize = 4_096;
/// Maximum number of units in one transaction, so that the first one does not wait for long.
const BATCH: usize = 256;

/// Time limit of a transaction on PostgreSQL. It is longer than a transaction can wait for other nodes. SQLite has no
/// limit: its thread cannot be lost, and would finish a transaction whose callers had been told that it failed.
pub(in crate::store) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);

/// Called with the changes of a commit, before any caller gets a response.
pub type OnCommit = Arc<dyn Fn(&Changes) + Send + Sync>;

/// Responds to a caller. Runs once the batch is durable; dropped without running if the commit fails.
type Reply = Box<dyn FnOnce() + Send>;
type Unit = Box<dyn for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Outcome> + Send>;

struct Outcome {
    succeeded: bool,
    reply: Reply,
}

enum Work {
    Change {
        unit: Unit,
        time_limit: Duration,
    },
    Record {
        action: AuditAction,
        /// Built by the caller: everybody else waits for this task.
        record: Box<Record>,
        used: Option<(ApiKeyId, Use)>,
        reply: Reply,
    },
    /// Writes the usage that was noted so far.
    SaveUsage(Reply),
    /// The last work of the queue.
    Finish(Reply),
}

impl Work {
    const fn time_limit(&self) -> Duration {
        match self {
            Self::Change { time_limit, .. } => *time_limit,
            _ => TRANSACTION_TIMEOUT,
        }
    }
}

#[derive(Clone)]
pub(in crate::store) struct Writer {
    queue: mpsc::Sender<Work>,
    /// True while usage waits to be written. Set before the callers whose usage it is get a response.
    has_unsaved_usage: Arc<AtomicBool>,
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

    async fn run(&mut self, unit: Unit) -> sqlx::Result<Reply> {
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
    async fn commit(mut self, pending: Option<&Pending>) -> sqlx::Result<Committed> {
        let mut records = self.imported;
        records.reserve(self.events.len());
        for (action, record) in self.events {
            self.usage.note(action, record.at);
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
                pending.save(self.connection.conn()).await?;
            }
            if let Conn::Postgres(mut c) = self.connection.conn() {
                for message in self.changes.to_messages() {
                    sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(message).execute(c.begin()).await?;
                }
            }
            self.connection.commit(&mut records).await?;
        }
        Ok(Committed { connection: self.connection, changes: self.changes, usage: self.usage })
    }
}

struct Committed {
    connection: WriteConn,
    changes: Changes,
    usage: Usage,
}

/// The replies of a committed batch.
struct Replies {
    waiting: Vec<Reply>,
    committed: watch::Sender<()>,
}

impl Replies {
    fn send(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        for reply in self.waiting.drain(..) {
            reply();
        }
        self.committed.send_replace(());
    }
}

impl Writer {
    pub(in crate::store) fn start(db: Db, on_commit: OnCommit, committed: watch::Sender<()>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let has_unsaved_usage = Arc::new(AtomicBool::new(false));
        let replies = Replies { waiting: Vec::new(), committed };
        tokio::spawn(work(db, on_commit, replies, waiting, has_unsaved_usage.clone()));
        Self { queue, has_unsaved_usage }
    }

    /// Runs `unit` in a transaction and returns its result once it is durable. `time_limit` replaces
    /// [`TRANSACTION_TIMEOUT`].
    pub(in crate::store) async fn write<T, F>(&self, unit: F, time_limit: Duration) -> Result<T>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let unit: Unit = Box::new(move |tx| {
            Box::pin(async move {
                // Do not run work that its caller has given up on: the caller reported it as failed.
                if sender.is_closed() {
                    return Outcome { succeeded: false, reply: Box::new(|| {}) };
                }
                // A panic in one unit must not end the task that all work goes through.
                let result = AssertUnwindSafe(async { unit(tx).await }).catch_unwind().await;
                let result = result.unwrap_or_else(|_| Err(Error::internal("a unit of work panicked")));
                Outcome { succeeded: result.is_ok(), reply: Box::new(move || drop(sender.send(result))) }
            })
        });
        self.enqueue(Work::Change { unit, time_limit })?;
        receiver.await.map_err(|_| Error::Unavailable(None))?
    }

    pub(in crate::store) async fn record(&self, event: Event, used: Option<ApiKeyId>) -> Result<()> {
        // Used by `benches/serve` only. Not a Cargo feature, because `--all-features` must not build a service that
        // keeps no records.
        if cfg!(aims_bench_unaudited) {
            return Ok(());
        }
        let used = used.map(|key| (key, Use { at: event.at, ip: event.ip, times: 1 }));
        let (action, record) = (event.action, Box::new(event.into()));
        self.enqueue_and_wait(|reply| Work::Record { action, record, used, reply }).await
    }

    /// Returns once the usage of all callers that got a response is written.
    pub(in crate::store) async fn save_usage(&self) -> Result<()> {
        if !self.has_unsaved_usage.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.enqueue_and_wait(Work::SaveUsage).await
    }

    async fn enqueue_and_wait(&self, work: impl FnOnce(Reply) -> Work) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(work(reply_to(sender)))?;
        receiver.await.map_err(|_| Error::Unavailable(None))
    }

    fn enqueue(&self, work: Work) -> Result<()> {
        self.queue.try_send(work).map_err(|_| Error::Unavailable(Some("too much work is waiting".into())))
    }

    /// Returns once the writer has stopped.
    pub(in crate::store) async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Stops the writer after the work in the queue. Later work is rejected.
    pub(in crate::store) async fn finish(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.queue.send(Work::Finish(reply_to(sender))).await.is_ok() {
            let _ = receiver.await;
        }
    }
}

fn reply_to(sender: oneshot::Sender<()>) -> Reply {
    Box::new(move || {
        let _ = sender.send(());
    })
}

async fn work(
    db: Db,
    on_commit: OnCommit,
    mut replies: Replies,
    mut waiting: mpsc::Receiver<Work>,
    has_unsaved_usage: Arc<AtomicBool>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut pending = Pending::default();
    let mut finish = None;
    let mut connection = None;
    while finish.is_none() {
        if waiting.is_empty() {
            replies.send();
        }
        if !collect(&mut waiting, &mut batch, pending.due_at()).await {
            break;
        }
        let units = batch.len();
        let saves_usage = pending.is_due() || batch.iter().any(|work| matches!(work, Work::SaveUsage(_)));
        let mut next_replies = Vec::with_capacity(units);
        let saving = saves_usage.then_some(&pending);
        let time_limit = batch.iter().map(Work::time_limit).max().unwrap_or(TRANSACTION_TIMEOUT);
        let committing = commit_batch(&db, connection.take(), batch.drain(..), saving, &mut next_replies, &mut finish);
        let committing = with_time_limit(time_limit, &db, committing);
        // Reply to the previous batch while the database works on this one.
        let (done, ()) = future::join(committing, async { replies.send() }).await;
        match done {
            Ok(done) => {
                connection = Some(done.connection);
                if saves_usage {
                    pending = Pending::default();
                }
                pending.absorb(done.usage);
                has_unsaved_usage.store(!pending.is_empty(), Ordering::SeqCst);
                on_commit(&done.changes);
                replies.waiting = next_replies;
            }
            Err(error) => {
                tracing::error!(%error, units, "a batch was rolled back");
                // The commit may have succeeded even so, if only its confirmation was lost.
                on_commit(&Changes::EVERYTHING);
                pending.postpone();
                if matches!(db.replaced_file(), Ok(Some(_))) {
                    // Stop: later writes might be lost.
                    pending = Pending::default();
                    break;
                }
            }
        }
    }
    replies.send();
    if !pending.is_empty() {
        let (mut replies, mut finish) = (Vec::new(), None);
        let saving = commit_batch(&db, connection.take(), iter::empty(), Some(&pending), &mut replies, &mut finish);
        if let Err(error) = with_time_limit(TRANSACTION_TIMEOUT, &db, saving).await {
            tracing::warn!(%error, "the last usage of keys was lost");
        }
    }
    drop(connection);
    if let Some(reply) = finish {
        reply();
    }
}

/// Waits for work, or until usage is due to be written. Returns false if there will be no more work.
async fn collect(waiting: &mut mpsc::Receiver<Work>, batch: &mut Vec<Work>, due: Option<Instant>) -> bool {
    let received = waiting.recv_many(batch, BATCH);
    match due {
        Some(due) => time::timeout_at(due.into(), received).await.is_ok_and(|works| works == 0).not(),
        None => received.await > 0,
    }
}

/// Applies the time limit on PostgreSQL. A transaction that exceeds it ends with its connection.
async fn with_time_limit<T>(
    time_limit: Duration,
    db: &Db,
    committing: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    if db.is_shared() {
        let timed_out = |_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()));
        time::timeout(time_limit, committing).await.unwrap_or_else(timed_out)
    } else {
        committing.await
    }
}

async fn commit_batch(
    db: &Db,
    connection: Option<WriteConn>,
    batch: impl Iterator<Item = Work>,
    pending: Option<&Pending>,
    replies: &mut Vec<Reply>,
    finish: &mut Option<Reply>,
) -> sqlx::Result<Committed> {
    let connection = match connection {
        Some(connection) => connection.reuse(db).await?,
        None => WriteConn::open(db).await?,
    };
    let mut tx = Tx {
        connection,
        events: Vec::new(),
        imported: Vec::new(),
        usage: Usage::default(),
        changes: Changes::default(),
        principals: HashMap::new(),
        counted: Vec::new(),
    };
    for work in batch {
        match work {
            Work::Change { unit, .. } => replies.push(tx.run(unit).await?),
            Work::Record { action, record, used, reply } => {
                if let Some((key, this)) = used {
                    tx.used(key, this);
                }
                tx.events.push((action, *record));
                replies.push(reply);
            }
            Work::SaveUsage(reply) => replies.push(reply),
            Work::Finish(reply) => *finish = Some(reply),
        }
    }
    let committed = tx.commit(pending).await?;
    // Check after the commit: before another process deletes the WAL, it copies all committed changes into the
    // database.
    if let Some(replaced) = db.replaced_file()? {
        return Err(sqlx::Error::Io(io::Error::other(replaced)));
    }
    Ok(committed)
}
