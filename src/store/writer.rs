//! The one way to change state: a change and its audit record commit together, or neither does.
//!
//! One task per process drains what is waiting, runs it unit by unit inside one transaction, appends all audit records
//! as one chain, commits once, and only then answers. A disk flush is paid per batch, not per request.

use std::{collections::BTreeMap, mem, panic::AssertUnwindSafe};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Changes, OnCommit,
    activity::{self, Activity},
    agents, api_keys, audit,
    db::{Conn, Db, WriteConn, on},
};
use crate::domain::{
    AgentId, ApiKeyId, Error, Result,
    api_key::Use,
    audit::{Event, Head, Record},
};

/// Most units that wait; one more is refused, so that memory stays bounded.
const QUEUE: usize = 4_096;
/// Most units in one transaction, so that the first of them does not wait for ever.
const BATCH: usize = 256;

/// The notification channel on which PostgreSQL tells other nodes what a commit changed.
pub(super) const CHANNEL: &str = "aims_changes";

/// Runs once its unit's batch is durable; dropped unrun when it is not.
type Answer = Box<dyn FnOnce() + Send>;
type Unit = Box<dyn for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Outcome> + Send>;

struct Outcome {
    kept: bool,
    answer: Answer,
}

enum Work {
    Change(Unit),
    Record {
        event: Box<Event>,
        used: Option<ApiKeyId>,
        answer: Answer,
    },
    /// The last work: answered when all before it is done.
    Finish(Answer),
}

#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Work>,
}

/// What a unit of work is given: a transaction, and the means to say what it did.
pub struct Tx {
    connection: WriteConn,
    events: Vec<Event>,
    imported: Vec<Record>,
    /// How each key was used; one entry a key, in the order of the index that finds them.
    uses: BTreeMap<ApiKeyId, Use>,
    changes: Changes,
    activity: Activity,
    /// Whether a unit may have changed what agents are searched by.
    searchable: bool,
}

impl Tx {
    /// Lends the connection to a store function.
    pub fn conn(&mut self) -> Conn<'_> {
        self.connection.conn()
    }

    /// Asks for an audit record of what this unit does.
    pub fn audit(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Appends records that another system wrote, before those of this unit; they are given their places here.
    pub fn import_audit(&mut self, records: Vec<Record>) {
        self.imported.extend(records);
    }

    /// Says that an agent's status, keys or grants changed.
    pub fn changed(&mut self, agent: AgentId) {
        self.changes.add(agent);
    }

    /// Says that any agent may have changed.
    pub fn changed_everything(&mut self) {
        self.changes.add_everything();
    }

    /// Notes a use of an API key.
    pub fn used(&mut self, key: ApiKeyId, this: Use) {
        self.uses.entry(key).and_modify(|earlier| earlier.absorb(this)).or_insert(this);
    }

    async fn run(&mut self, unit: Unit) -> sqlx::Result<Answer> {
        on!(self.conn(), |c| sqlx::query("SAVEPOINT unit").execute(c).await.map(drop))?;
        let (events, imported) = (self.events.len(), self.imported.len());
        self.searchable = true;
        let before = mem::take(&mut self.changes);
        let outcome = unit(self).await;
        let mut changes = mem::replace(&mut self.changes, before);
        if !outcome.kept {
            on!(self.conn(), |c| sqlx::query("ROLLBACK TO SAVEPOINT unit").execute(c).await.map(drop))?;
            self.events.truncate(events);
            self.imported.truncate(imported);
            changes = Changes::default();
        }
        on!(self.conn(), |c| sqlx::query("RELEASE SAVEPOINT unit").execute(c).await.map(drop))?;
        self.changes.absorb(changes);
        Ok(outcome.answer)
    }

    /// Appends the batch's audit records to the chain and makes everything durable.
    async fn commit(mut self, mut head: Head) -> sqlx::Result<(WriteConn, Changes)> {
        for event in &self.events {
            self.activity.note(event);
        }
        let mut records = self.imported;
        records.extend(self.events.into_iter().map(Record::from));
        let previous = head;
        for record in &mut records {
            head.append(record);
        }
        audit::append(self.connection.conn(), &records).await?;
        audit::advance_head(self.connection.conn(), previous, head).await?;
        if self.searchable {
            agents::index_text(self.connection.conn()).await?;
        }
        let uses: Vec<_> = self.uses.into_iter().collect();
        api_keys::touch(self.connection.conn(), &uses).await?;
        activity::add(self.connection.conn(), &self.activity).await?;
        if let Conn::Postgres(c) = self.connection.conn() {
            for message in self.changes.to_messages() {
                sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(message).execute(&mut *c).await?;
            }
        }
        self.connection.commit().await?;
        Ok((self.connection, self.changes))
    }
}

impl Writer {
    pub(super) fn start(db: Db, on_commit: OnCommit, committed: watch::Sender<()>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(work(db, on_commit, committed, waiting));
        Self { queue }
    }

    pub(super) async fn write<T, F>(&self, unit: F) -> Result<T>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (sender, answered) = oneshot::channel();
        self.enqueue(Work::Change(Box::new(move |tx| {
            Box::pin(async move {
                // A defect in one unit must not take down the task that everybody's work goes through.
                let result = AssertUnwindSafe(async { unit(tx).await }).catch_unwind().await;
                let result = result.unwrap_or_else(|_| Err(Error::internal("a unit of work panicked")));
                Outcome { kept: result.is_ok(), answer: Box::new(move || drop(sender.send(result))) }
            })
        })))?;
        answered.await.map_err(|_| Error::Unavailable(None))?
    }

    pub(super) async fn record(&self, event: Event, used: Option<ApiKeyId>) -> Result<()> {
        let (sender, answered) = oneshot::channel();
        let answer = Box::new(move || {
            let _ = sender.send(());
        });
        self.enqueue(Work::Record { event: Box::new(event), used, answer })?;
        answered.await.map_err(|_| Error::Unavailable(None))
    }

    fn enqueue(&self, work: Work) -> Result<()> {
        self.queue.try_send(work).map_err(|_| Error::Unavailable(Some("too much work is waiting".into())))
    }

    /// Returns when everything that was waiting is done; work that comes later is refused.
    pub(super) async fn finish(&self) {
        let (sender, answered) = oneshot::channel();
        let answer: Answer = Box::new(move || {
            let _ = sender.send(());
        });
        if self.queue.send(Work::Finish(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }
}

async fn work(db: Db, on_commit: OnCommit, committed: watch::Sender<()>, mut waiting: mpsc::Receiver<Work>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut last = None;
    let mut kept = None;
    while last.is_none() && waiting.recv_many(&mut batch, BATCH).await > 0 {
        let units = batch.len();
        let mut answers = Vec::with_capacity(units);
        match commit_batch(&db, kept.take(), batch.drain(..), &mut answers, &mut last).await {
            Ok((connection, changes)) => {
                kept = Some(connection);
                on_commit(&changes);
                for answer in answers {
                    answer();
                }
                committed.send_replace(());
            }
            Err(error) => {
                tracing::error!(%error, units, "a batch was rolled back");
                // A commit whose answer was lost may have happened all the same.
                on_commit(&Changes::EVERYTHING);
            }
        }
    }
    drop(kept);
    if let Some(answer) = last {
        answer();
    }
}

async fn commit_batch(
    db: &Db,
    kept: Option<WriteConn>,
    batch: impl Iterator<Item = Work>,
    answers: &mut Vec<Answer>,
    last: &mut Option<Answer>,
) -> sqlx::Result<(WriteConn, Changes)> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => db.writer().await?,
    };
    connection.begin().await?;
    let head = audit::lock_head(connection.conn()).await?;
    let mut tx = Tx {
        connection,
        events: Vec::new(),
        imported: Vec::new(),
        uses: BTreeMap::new(),
        changes: Changes::default(),
        activity: Activity::default(),
        searchable: false,
    };
    for work in batch {
        match work {
            Work::Change(unit) => answers.push(tx.run(unit).await?),
            Work::Record { event, used, answer } => {
                if let Some(key) = used {
                    tx.used(key, Use { at: event.at, ip: event.ip, times: 1 });
                }
                tx.events.push(*event);
                answers.push(answer);
            }
            Work::Finish(answer) => *last = Some(answer),
        }
    }
    tx.commit(head).await
}
