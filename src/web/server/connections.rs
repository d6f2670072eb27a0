//! The connections that are open, and which of them are given up when there is no room for another.
//!
//! A connection costs whoever opens it next to nothing, and takes a place here. So none is kept for a client that leaves it waiting
//! while somebody else waits for a place. Those of the network that has the most go first, and of these those that waited longest.

use std::{
    cmp::Reverse,
    collections::HashMap,
    future,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use hyper::body::{Frame, SizeHint};
use tokio::{
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::Instant,
};

/// How long a connection may wait for its client regardless of other clients. A busy client usually waits less between requests.
const LEFT_ALONE: Duration = Duration::from_secs(1);
/// How much less a connection may wait before its first request: a client that opens one has something to send.
const TAKEN_AT_FIRST: Duration = Duration::from_millis(750);
/// Which part of them is given up at once: a flood of new ones must not have all looked through for each.
const PART: usize = 64;

/// Open connections, at most so many at a time.
pub(in crate::web) struct Connections<T> {
    most: usize,
    tasks: JoinSet<T>,
    open: HashMap<Id, Open>,
    began: Instant,
}

struct Open {
    network: IpAddr,
    attention: Attention,
    task: AbortHandle,
}

/// Whether a connection waits for its client or is at work.
#[derive(Clone, Debug)]
pub(in crate::web) struct Attention {
    /// Since how many microseconds after `began` it waits; or [`AT_WORK`], or [`GIVEN_UP`].
    state: Arc<AtomicU64>,
    began: Instant,
}

const AT_WORK: u64 = u64::MAX;
/// The connection ends, and takes up nothing.
const GIVEN_UP: u64 = u64::MAX - 1;

/// Keeps a connection at work for as long as it lasts.
#[derive(Debug)]
pub(in crate::web) struct AtWork(Attention);

impl<T: Send + 'static> Connections<T> {
    pub(in crate::web) fn new(most: usize) -> Self {
        Self { most, tasks: JoinSet::new(), open: HashMap::new(), began: Instant::now() }
    }

    pub(in crate::web) fn count(&self) -> usize {
        self.tasks.len()
    }

    pub(in crate::web) fn is_full(&self) -> bool {
        self.count() >= self.most
    }

    /// Serves another one, from `network`.
    pub(in crate::web) fn open<F>(&mut self, network: IpAddr, serve: impl FnOnce(Attention) -> F)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let attention = Attention { state: Arc::default(), began: self.began };
        attention.wait_since(self.began.elapsed().saturating_sub(TAKEN_AT_FIRST));
        let task = self.tasks.spawn(serve(attention.clone()));
        self.open.insert(task.id(), Open { network, attention, task });
    }

    /// How the next one ended; `None` while there is none.
    pub(in crate::web) async fn next_ended(&mut self) -> Option<Result<T, JoinError>> {
        let ended = self.tasks.join_next_with_id().await?;
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, Ok(outcome)),
            Err(error) => (error.id(), Err(error)),
        };
        self.open.remove(&id);
        Some(outcome)
    }

    /// Gives up some that wait for their clients, if any has done so for long enough.
    pub(in crate::web) fn make_room(&self) {
        let mut of_network = HashMap::<_, usize>::new();
        for open in self.open.values() {
            *of_network.entry(open.network).or_default() += 1;
        }
        let Some(before) = self.began.elapsed().checked_sub(LEFT_ALONE).map(micros) else { return };
        let waiting = self.open.values().map(|open| (open.attention.state.load(Ordering::Relaxed), open));
        let mut waiting: Vec<_> = waiting.filter(|(since, _)| *since <= before).collect();
        waiting.sort_unstable_by_key(|(since, open)| (Reverse(of_network.get(&open.network)), *since));
        for (since, open) in waiting.into_iter().take(self.most.div_ceil(PART)) {
            if open.attention.give_up(since) {
                open.task.abort();
            }
        }
    }

    /// Cuts all that are left.
    pub(in crate::web) async fn cut(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Attention {
    /// Has the connection at work; for ever if it was given up, as it ends then.
    pub(in crate::web) async fn take_up(self) -> AtWork {
        if !self.enter(AT_WORK) {
            future::pending::<()>().await;
        }
        AtWork(self)
    }

    /// Notes that the client is waited for from now on.
    pub(in crate::web) fn wait(&self) {
        self.wait_since(self.began.elapsed());
    }

    /// Notes that the client counts as waited for since some time after `began`.
    fn wait_since(&self, since: Duration) {
        self.enter(micros(since));
    }

    fn enter(&self, state: u64) -> bool {
        let enter = |present| (present != GIVEN_UP).then_some(state);
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).is_ok()
    }

    /// Has the connection end, if it still waits as it did.
    fn give_up(&self, since: u64) -> bool {
        self.state.compare_exchange(since, GIVEN_UP, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl AtWork {
    /// Lasts until an answer is made: one that is in memory is, and others once their last piece is.
    pub(in crate::web) fn until_made(self, answer: Response) -> Response {
        if answer.body().size_hint().exact().is_some() {
            return answer;
        }
        answer.map(|body| Body::new(Making { body, _at_work: self }))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// The body of an answer that is made while it is sent.
struct Making {
    body: Body,
    _at_work: AtWork,
}

impl HttpBody for Making {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn micros(age: Duration) -> u64 {
    u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
}
