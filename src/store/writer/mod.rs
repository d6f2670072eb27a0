//! The write path: a change and its audit record commit together, or neither does.
//!
//! One task per process takes all the work that is waiting, runs it in one transaction, appends the audit records to
//! the chain, commits, and then replies to the callers (group commit). So a disk flush is paid per batch and not per
//! request. A batch that only appends audit records, which is what issuing tokens does, takes one round trip to the
//! database as long as no other node appends as well.

mod agents;
mod batch;
mod capability_usage;
mod connection;
mod tx;
pub(super) mod usage;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    domain::{AgentId, ApiKeyId, Error, Result, Timestamp, audit::Event, credential::api_key::Use},
    store::db::Db,
    telemetry::{metrics, traces},
};
use batch::{Replies, Work, work};
use capability_usage::CapabilityUsage;
use tx::{Outcome, Reply, Unit};

pub use batch::OnCommit;
pub(in crate::store) use batch::TRANSACTION_TIMEOUT;
pub use tx::Tx;

/// Maximum number of units of work in the queue. More are rejected, so that memory use stays bounded.
const QUEUE: usize = 4_096;

#[derive(Clone)]
pub(in crate::store) struct Writer {
    queue: mpsc::Sender<Work>,
    /// True while usage waits to be written. Set before the callers whose usage it is get a response.
    has_unsaved_usage: Arc<AtomicBool>,
    capability_usage: Arc<CapabilityUsage>,
    metrics: metrics::Writer,
}

impl Writer {
    pub(in crate::store) fn start(
        db: Db,
        on_commit: OnCommit,
        committed: watch::Sender<()>,
        metrics: metrics::Writer,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let has_unsaved_usage = Arc::new(AtomicBool::new(false));
        let replies = Replies::new(committed);
        let capability_usage = Arc::new(CapabilityUsage::default());
        let usage = (has_unsaved_usage.clone(), capability_usage.clone());
        tokio::spawn(work(db, on_commit, replies, waiting, usage, metrics.clone()));
        Self { queue, has_unsaved_usage, capability_usage, metrics }
    }

    /// Runs `unit` in a transaction and returns its result once it is durable. `time_limit` replaces
    /// [`TRANSACTION_TIMEOUT`].
    pub(in crate::store) async fn write<T, F>(&self, unit: F, time_limit: Duration) -> Result<T>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (work, receiver) = change(unit, time_limit);
        self.enqueue(work)?;
        receiver.await.map_err(|_| Error::Unavailable(None))?
    }

    /// Does the same, and waits for a place if the queue is full.
    pub(in crate::store) async fn write_in_turn<T, F>(&self, unit: F, time_limit: Duration) -> Result<T>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (work, receiver) = change(unit, time_limit);
        self.queue.send(work).await.map_err(|_| Error::Unavailable(None))?;
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
        let trace = traces::Write::queued();
        self.enqueue_and_wait(|reply| Work::Record { action, record, used, trace, reply }).await
    }

    /// Returns once the usage of all callers that got a response is written.
    pub(in crate::store) async fn save_usage(&self) -> Result<()> {
        // In this order: the writer sets the flag before it takes the uses of capabilities.
        if self.capability_usage.is_empty() && !self.has_unsaved_usage.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.enqueue_and_wait(Work::SaveUsage).await
    }

    /// Notes that an agent used a capability.
    pub(in crate::store) fn used_capability(&self, agent: AgentId, capability: &str, at: Timestamp) {
        if self.capability_usage.note(agent, capability, at) {
            // A writer whose queue is full is awake.
            let _ = self.enqueue(Work::Wake);
        }
    }

    async fn enqueue_and_wait(&self, work: impl FnOnce(Reply) -> Work) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(work(reply_to(sender)))?;
        receiver.await.map_err(|_| Error::Unavailable(None))
    }

    fn enqueue(&self, work: Work) -> Result<()> {
        self.queue.try_send(work).map_err(|_| {
            self.metrics.rejected.increment(1);
            Error::Unavailable(Some("too much work is waiting".into()))
        })
    }

    /// Returns how much work waits, and how much may wait.
    pub(in crate::store) fn queue(&self) -> (usize, usize) {
        let most = self.queue.max_capacity();
        (most - self.queue.capacity(), most)
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

/// Returns the work that runs `unit`, and where its result arrives.
fn change<T, F>(unit: F, time_limit: Duration) -> (Work, oneshot::Receiver<Result<T>>)
where
    F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let mut trace = traces::Write::queued();
    let unit: Unit = Box::new(move |tx| {
        Box::pin(async move {
            trace.begin();
            // Do not run work that its caller has given up on: the caller reported it as failed.
            if sender.is_closed() {
                return Outcome { succeeded: false, reply: Box::new(|| {}) };
            }
            // A panic in one unit must not end the task that all work goes through.
            let result = AssertUnwindSafe(async { unit(tx).await }).catch_unwind().await;
            let result = result.unwrap_or_else(|_| Err(Error::internal("a unit of work panicked")));
            let succeeded = result.is_ok();
            let reply = move || {
                trace.committed();
                drop(sender.send(result));
            };
            Outcome { succeeded, reply: Box::new(reply) }
        })
    });
    (Work::Change { unit, time_limit }, receiver)
}
