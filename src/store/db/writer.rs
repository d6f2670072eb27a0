//! The one way to change state: a change and its audit record commit together, or neither does.
//!
//! One task per process drains what is waiting, runs it unit by unit inside one transaction, appends all audit records
//! as one chain, commits once, and only then answers. A disk flush is paid per batch, not per request. A batch of nothing but
//! records, as tokens make them, is one round trip to the database, as long as no other node appends too.

mod connection;

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

use super::{Conn, Db};
use crate::{
    domain::{
        AgentId, AgentStatus, ApiKeyId, Error, Result, Timestamp,
        audit::{AuditAction, Event, Record},
        credential::api_key::Use,
    },
    store::{
        Changes, OnCommit, agents,
        credentials::usage::{Pending, Usage},
        principals::{self, Principal},
    },
};
use connection::WriteConn;

/// Most units that wait; one more is refused, so that memory stays bounded.
const QUEUE: usize = 4_096;
/// Most units in one transaction, so that the first of them does not wait for ever.
const BATCH: usize = 256;

/// Within which time PostgreSQL carries out a transaction, or is taken to be lost: longer than it waits for other nodes by itself.
/// SQLite's thread cannot be lost, and would go on with what nobody waits for any more.
pub(in crate::store) const LONGEST: Duration = Duration::from_secs(20);

/// The notification channel on which PostgreSQL tells other nodes what a commit changed.
pub(in crate::store) const CHANNEL: &str = "aims_changes";

/// Runs once its unit's batch is durable; dropped unrun when it is not.
type Answer = Box<dyn FnOnce() + Send>;
type Unit = Box<dyn for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Outcome> + Send>;

struct Outcome {
    kept: bool,
    answer: Answer,
}

enum Work {
    Change(Unit, Duration),
    Record {
        action: AuditAction,
        /// Made by whoever asks for it: here everybody waits for it.
        record: Box<Record>,
        used: Option<(ApiKeyId, Use)>,
        answer: Answer,
    },
    /// Answered when the usage that was answered before is written.
    SaveUsage(Answer),
    /// The last work: answered when all before it is done.
    Finish(Answer),
}

impl Work {
    const fn longest(&self) -> Duration {
        match self {
            Self::Change(_, longest) => *longest,
            _ => LONGEST,
        }
    }
}

#[derive(Clone)]
pub(in crate::store) struct Writer {
    queue: mpsc::Sender<Work>,
    /// Whether usage waits to be written; set before those are answered whose usage it is.
    unsaved: Arc<AtomicBool>,
}

/// What a unit of work is given: a transaction, and the means to say what it did.
pub struct Tx {
    connection: WriteConn,
    events: Vec<(AuditAction, Record)>,
    imported: Vec<Record>,
    usage: Usage,
    changes: Changes,
    /// What was loaded and has not changed since: nobody else writes while this transaction does.
    principals: HashMap<AgentId, Arc<Principal>>,
    /// How many agents more, or fewer, have a status.
    counted: Vec<(AgentStatus, i64)>,
}

impl Tx {
    /// Lends the connection to a store function.
    pub fn conn(&mut self) -> Conn<'_> {
        self.connection.conn()
    }

    /// Asks for an audit record of what this unit does.
    pub fn audit(&mut self, event: Event) {
        self.events.push((event.action, event.into()));
    }

    /// Appends records that another system wrote, before those of this unit; they are given their places here.
    pub fn import_audit(&mut self, records: Vec<Record>) {
        self.imported.extend(records);
    }

    /// An agent's authority, as this transaction sees it at `now`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn principal(&mut self, id: AgentId, now: Timestamp) -> Result<Option<Arc<Principal>>> {
        if let Some(known) = self.principals.get(&id) {
            return Ok(Some(known.clone()));
        }
        let Some(loaded) = principals::load(self.conn(), id, now).await? else { return Ok(None) };
        let loaded = Arc::new(loaded);
        self.principals.insert(id, loaded.clone());
        Ok(Some(loaded))
    }

    /// Says that an agent's status, description, keys or grants changed, once they did: what was loaded of it is forgotten.
    pub fn changed(&mut self, agent: AgentId) {
        self.principals.remove(&agent);
        self.changes.add(agent);
    }

    /// Says that any agent may have changed.
    pub fn changed_everything(&mut self) {
        self.principals.clear();
        self.changes.add_everything();
    }

    /// Says that `by` more agents have this status.
    pub fn counted(&mut self, status: AgentStatus, by: i64) {
        self.counted.push((status, by));
    }

    /// Notes a use of an API key.
    pub fn used(&mut self, key: ApiKeyId, this: Use) {
        self.usage.used(key, this);
    }

    async fn run(&mut self, unit: Unit) -> sqlx::Result<Answer> {
        self.connection.begin_unit().await?;
        let (events, imported, counted) = (self.events.len(), self.imported.len(), self.counted.len());
        let before = mem::take(&mut self.changes);
        let outcome = unit(self).await;
        let mut changes = mem::replace(&mut self.changes, before);
        if !outcome.kept {
            self.connection.undo().await?;
            self.events.truncate(events);
            self.imported.truncate(imported);
            self.counted.truncate(counted);
            self.principals.clear();
            changes = Changes::default();
        }
        self.changes.absorb(changes);
        Ok(outcome.answer)
    }

    /// Appends the batch's audit records to the chain and makes everything durable.
    async fn commit(mut self, pending: Option<&Pending>) -> sqlx::Result<Committed> {
        let mut records = self.imported;
        records.reserve(self.events.len());
        for (action, record) in self.events {
            self.usage.note(action, record.at);
            records.push(record);
        }
        let is_only_records = !self.connection.has_units() && pending.is_none();
        let is_done = is_only_records && (records.is_empty() || self.connection.append(&mut records).await?);
        if !is_done {
            self.connection.begin().await?;
            if self.connection.has_units() {
                agents::count(self.connection.conn(), &self.counted).await?;
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

/// The callers that wait for a commit.
struct Waiting {
    answers: Vec<Answer>,
    committed: watch::Sender<()>,
}

impl Waiting {
    /// Tells those whose batch is committed, if there are any.
    fn tell(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        for answer in self.answers.drain(..) {
            answer();
        }
        self.committed.send_replace(());
    }
}

impl Writer {
    pub(in crate::store) fn start(db: Db, on_commit: OnCommit, committed: watch::Sender<()>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let unsaved = Arc::new(AtomicBool::new(false));
        let answered = Waiting { answers: Vec::new(), committed };
        tokio::spawn(work(db, on_commit, answered, waiting, unsaved.clone()));
        Self { queue, unsaved }
    }

    /// `longest`: as [`LONGEST`], for a unit that may take longer.
    pub(in crate::store) async fn write<T, F>(&self, unit: F, longest: Duration) -> Result<T>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (sender, answered) = oneshot::channel();
        let unit: Unit = Box::new(move |tx| {
            Box::pin(async move {
                // What nobody waits for any more was told to have failed, and may be told so long after.
                if sender.is_closed() {
                    return Outcome { kept: false, answer: Box::new(|| {}) };
                }
                // A defect in one unit must not take down the task that everybody's work goes through.
                let result = AssertUnwindSafe(async { unit(tx).await }).catch_unwind().await;
                let result = result.unwrap_or_else(|_| Err(Error::internal("a unit of work panicked")));
                Outcome { kept: result.is_ok(), answer: Box::new(move || drop(sender.send(result))) }
            })
        });
        self.enqueue(Work::Change(unit, longest))?;
        answered.await.map_err(|_| Error::Unavailable(None))?
    }

    pub(in crate::store) async fn record(&self, event: Event, used: Option<ApiKeyId>) -> Result<()> {
        // For `benches/serve` alone. No Cargo feature: `--all-features` must not build a service that keeps no records.
        if cfg!(aims_bench_unaudited) {
            return Ok(());
        }
        let (sender, answered) = oneshot::channel();
        let answer = Box::new(move || {
            let _ = sender.send(());
        });
        let used = used.map(|key| (key, Use { at: event.at, ip: event.ip, times: 1 }));
        self.enqueue(Work::Record { action: event.action, record: Box::new(event.into()), used, answer })?;
        answered.await.map_err(|_| Error::Unavailable(None))
    }

    /// Returns when the usage of all who were answered is written.
    pub(in crate::store) async fn save_usage(&self) -> Result<()> {
        if !self.unsaved.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (sender, answered) = oneshot::channel();
        let answer = Box::new(move || {
            let _ = sender.send(());
        });
        self.enqueue(Work::SaveUsage(answer))?;
        answered.await.map_err(|_| Error::Unavailable(None))
    }

    fn enqueue(&self, work: Work) -> Result<()> {
        self.queue.try_send(work).map_err(|_| Error::Unavailable(Some("too much work is waiting".into())))
    }

    /// Returns when nobody takes work any more.
    pub(in crate::store) async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Returns when everything that was waiting is done; work that comes later is refused.
    pub(in crate::store) async fn finish(&self) {
        let (sender, answered) = oneshot::channel();
        let answer: Answer = Box::new(move || {
            let _ = sender.send(());
        });
        if self.queue.send(Work::Finish(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }
}

async fn work(
    db: Db,
    on_commit: OnCommit,
    mut answered: Waiting,
    mut waiting: mpsc::Receiver<Work>,
    unsaved: Arc<AtomicBool>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut pending = Pending::default();
    let mut last = None;
    let mut kept = None;
    while last.is_none() {
        if waiting.is_empty() {
            answered.tell();
        }
        if !collect(&mut waiting, &mut batch, pending.due_at()).await {
            break;
        }
        let units = batch.len();
        let is_saving = pending.is_due() || batch.iter().any(|work| matches!(work, Work::SaveUsage(_)));
        let mut answers = Vec::with_capacity(units);
        let saving = is_saving.then_some(&pending);
        let longest = batch.iter().map(Work::longest).max().unwrap_or(LONGEST);
        let committing = commit_batch(&db, kept.take(), batch.drain(..), saving, &mut answers, &mut last);
        let committing = within(longest, &db, committing);
        // Once the database is at work there is time for those whose batch is done.
        let (done, ()) = future::join(committing, async { answered.tell() }).await;
        match done {
            Ok(done) => {
                kept = Some(done.connection);
                if is_saving {
                    pending = Pending::default();
                }
                pending.absorb(done.usage);
                unsaved.store(!pending.is_empty(), Ordering::SeqCst);
                on_commit(&done.changes);
                answered.answers = answers;
            }
            Err(error) => {
                tracing::error!(%error, units, "a batch was rolled back");
                // A commit whose answer was lost may have happened all the same.
                on_commit(&Changes::EVERYTHING);
                pending.postpone();
                if matches!(db.replaced_file(), Ok(Some(_))) {
                    // Later writes might be lost, so refuse them.
                    pending = Pending::default();
                    break;
                }
            }
        }
    }
    answered.tell();
    if !pending.is_empty() {
        let (mut answers, mut last) = (Vec::new(), None);
        let saving = commit_batch(&db, kept.take(), iter::empty(), Some(&pending), &mut answers, &mut last);
        if let Err(error) = within(LONGEST, &db, saving).await {
            tracing::warn!(%error, "when keys were last used was lost");
        }
    }
    drop(kept);
    if let Some(answer) = last {
        answer();
    }
}

/// Waits for work, but no longer than until usage is due to be written; `false` when there will be none.
async fn collect(waiting: &mut mpsc::Receiver<Work>, batch: &mut Vec<Work>, due: Option<Instant>) -> bool {
    let received = waiting.recv_many(batch, BATCH);
    match due {
        Some(due) => time::timeout_at(due.into(), received).await.is_ok_and(|works| works == 0).not(),
        None => received.await > 0,
    }
}

/// Gives up waiting for a database that may have fallen silent; a transaction under way ends with its connection.
async fn within<T>(longest: Duration, db: &Db, committing: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    if db.is_shared() {
        let lost = |_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()));
        time::timeout(longest, committing).await.unwrap_or_else(lost)
    } else {
        committing.await
    }
}

async fn commit_batch(
    db: &Db,
    kept: Option<WriteConn>,
    batch: impl Iterator<Item = Work>,
    pending: Option<&Pending>,
    answers: &mut Vec<Answer>,
    last: &mut Option<Answer>,
) -> sqlx::Result<Committed> {
    let connection = match kept {
        Some(connection) => connection.again(db).await?,
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
            Work::Change(unit, _) => answers.push(tx.run(unit).await?),
            Work::Record { action, record, used, answer } => {
                if let Some((key, this)) = used {
                    tx.used(key, this);
                }
                tx.events.push((action, *record));
                answers.push(answer);
            }
            Work::SaveUsage(answer) => answers.push(answer),
            Work::Finish(answer) => *last = Some(answer),
        }
    }
    let committed = tx.commit(pending).await?;
    // After the commit: before a reader deletes the WAL, it moves all committed changes into the database.
    if let Some(replaced) = db.replaced_file()? {
        return Err(sqlx::Error::Io(io::Error::other(replaced)));
    }
    Ok(committed)
}
