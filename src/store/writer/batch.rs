//! The task that runs the waiting work in batches.

use std::{
    io, iter,
    ops::Not,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future;
use tokio::{
    sync::{mpsc, watch},
    time,
};

use super::{
    capability_usage::{CapabilityUsage, Uses},
    connection::WriteConn,
    tx::{Committed, Counts, Reply, Tx, Unit},
    usage::Pending,
};
use crate::{
    domain::{
        ApiKeyId,
        audit::{AuditAction, Record},
        credential::api_key::Use,
    },
    store::db::{Db, changes::Changes},
    telemetry::{metrics, traces},
};

/// Maximum number of units in one transaction, so that the first one does not wait for long.
const BATCH: usize = 256;

/// Time limit of a transaction on PostgreSQL. It is longer than a transaction can wait for other nodes. SQLite has no
/// limit: its thread cannot be lost, and would finish a transaction whose callers had been told that it failed.
pub(in crate::store) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);

/// Called with the changes of a commit, before any caller gets a response.
pub type OnCommit = Arc<dyn Fn(&Changes) + Send + Sync>;

pub(super) enum Work {
    Change {
        unit: Unit,
        time_limit: Duration,
    },
    Record {
        action: AuditAction,
        /// Built by the caller: everybody else waits for this task.
        record: Box<Record>,
        used: Option<(ApiKeyId, Use)>,
        trace: traces::Write,
        reply: Reply,
    },
    /// Writes the usage that was noted so far.
    SaveUsage(Reply),
    /// Nothing, but makes the writer look when the uses of capabilities are due.
    Wake,
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

/// The replies of a committed batch.
pub(super) struct Replies {
    waiting: Vec<Reply>,
    committed: watch::Sender<()>,
}

impl Replies {
    pub(super) fn new(committed: watch::Sender<()>) -> Self {
        Self { waiting: Vec::new(), committed }
    }

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

/// Runs the waiting work until the last of it.
pub(super) async fn work(
    db: Db,
    on_commit: OnCommit,
    mut replies: Replies,
    mut waiting: mpsc::Receiver<Work>,
    (has_unsaved_usage, capability_usage): (Arc<AtomicBool>, Arc<CapabilityUsage>),
    metrics: metrics::Writer,
) {
    let mut uses = Uses::default();
    let mut batch = Vec::with_capacity(BATCH);
    let mut pending = Pending::default();
    let mut finish = None;
    let mut connection = None;
    while finish.is_none() {
        if waiting.is_empty() {
            replies.send();
        }
        let due = [pending.due_at(), capability_usage.due_at()].into_iter().flatten().min();
        if !collect(&mut waiting, &mut batch, due).await {
            break;
        }
        let units = batch.len();
        let saves_usage = pending.is_due()
            || capability_usage.is_due()
            || batch.iter().any(|work| matches!(work, Work::SaveUsage(_)));
        let mut next_replies = Vec::with_capacity(units);
        if saves_usage {
            has_unsaved_usage.store(true, Ordering::SeqCst);
            capability_usage.take(&mut uses);
        }
        let saving = saves_usage.then_some(Counts { usage: &pending, capabilities: &uses });
        let time_limit = batch.iter().map(Work::time_limit).max().unwrap_or(TRANSACTION_TIMEOUT);
        let committing = commit_batch(&db, connection.take(), batch.drain(..), saving, &mut next_replies, &mut finish);
        let committing = with_time_limit(time_limit, &db, committing);
        let began = Instant::now();
        // Reply to the previous batch while the database works on this one.
        let (done, ()) = future::join(committing, async { replies.send() }).await;
        match done {
            Ok(done) => {
                metrics.committed(units, done.records, began.elapsed());
                connection = Some(done.connection);
                if saves_usage {
                    pending = Pending::default();
                    uses.clear();
                }
                pending.absorb(done.usage);
                has_unsaved_usage.store(!pending.is_empty() || !uses.is_empty(), Ordering::SeqCst);
                on_commit(&done.changes);
                replies.waiting = next_replies;
            }
            Err(error) => {
                tracing::error!(%error, units, "a batch was rolled back");
                metrics.failed.increment(1);
                // The commit may have succeeded even so, if only its confirmation was lost.
                on_commit(&Changes::EVERYTHING);
                pending.postpone();
                if matches!(db.replaced_file(), Ok(Some(_))) {
                    // Stop: later writes might be lost.
                    pending = Pending::default();
                    capability_usage.take(&mut uses);
                    uses.clear();
                    break;
                }
            }
        }
    }
    replies.send();
    if finish.is_some() {
        capability_usage.take(&mut uses);
    }
    if !pending.is_empty() || !uses.is_empty() {
        let last = Counts { usage: &pending, capabilities: &uses };
        let (mut replies, mut finish) = (Vec::new(), None);
        let saving = commit_batch(&db, connection.take(), iter::empty(), Some(last), &mut replies, &mut finish);
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
    pending: Option<Counts<'_>>,
    replies: &mut Vec<Reply>,
    finish: &mut Option<Reply>,
) -> sqlx::Result<Committed> {
    let connection = match connection {
        Some(connection) => connection.reuse(db).await?,
        None => WriteConn::open(db).await?,
    };
    let mut tx = Tx::new(connection);
    for work in batch {
        match work {
            Work::Change { unit, .. } => replies.push(tx.run(unit).await?),
            Work::Record { action, record, used, trace, reply } => {
                if let Some((key, this)) = used {
                    tx.used(key, this);
                }
                tx.record(action, *record);
                replies.push(traced(trace, reply));
            }
            Work::SaveUsage(reply) => replies.push(reply),
            Work::Wake => {}
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

/// Begins the commit of a record in its trace, which ends with the reply.
fn traced(mut trace: traces::Write, reply: Reply) -> Reply {
    if !trace.is_recorded() {
        return reply;
    }
    trace.begin();
    Box::new(move || {
        trace.committed();
        reply();
    })
}
