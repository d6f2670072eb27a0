//! Connections that are lent and given back.
//!
//! A pool of sqlx asks the database each time whether the connection that is given back is in order: it cannot know whether the
//! last statement came to its end. Here it is known of every statement that [`super::on`] runs, and what is in order is lent
//! again as it is.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use scopeguard::ScopeGuard;
use sqlx::{
    Connection, Database, Pool,
    pool::{PoolConnection, PoolOptions},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long to wait for a connection, and for the answer of one that may not be in order.
pub(in crate::store) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection is lent on before its pool gets it, which asks it whether it works, and replaces it when it is old.
const ROUND: Duration = Duration::from_secs(1);

/// Lends the connections of a pool. Cheap to clone; all clones are one.
pub struct Lender<D: Database>(Arc<Inner<D>>);

struct Inner<D: Database> {
    pool: Pool<D>,
    /// What is in order, in the order in which it was given back: the last knows most of the pages that are asked for now.
    at_hand: Mutex<Vec<Held<D>>>,
    /// As many as the pool has connections: whoever has a place finds one at hand or gets one of the pool.
    places: Arc<Semaphore>,
}

struct Held<D: Database> {
    connection: PoolConnection<D>,
    /// When the pool gave it.
    since: Instant,
}

/// A connection that is given back when dropped.
pub struct Lease<D: Database>(ScopeGuard<Lent<D>, fn(Lent<D>)>);

struct Lent<D: Database> {
    held: Held<D>,
    state: State,
    lender: Lender<D>,
    place: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Every statement came to its end.
    InOrder,
    /// One was begun; whoever waited for it may be gone.
    Begun,
    /// Not to be lent again.
    Spoilt,
}

impl<D: Database> Lender<D> {
    /// Lends the connections of a pool that is made with `options`; none is opened before it is needed. Where the pool tests
    /// connections before it gives them out, a connection can be lost without a word: then no answer is waited for longer than
    /// [`PATIENCE`].
    pub(in crate::store) fn new(options: PoolOptions<D>, connecting: <D::Connection as Connection>::Options) -> Self {
        let pool = options.connect_lazy_with(connecting);
        let places = usize::try_from(pool.options().get_max_connections()).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner { pool, at_hand: Mutex::default(), places: Arc::new(Semaphore::new(places)) }))
    }

    /// Where the connections lead to.
    pub(in crate::store) fn options(&self) -> Arc<<D::Connection as Connection>::Options> {
        self.0.pool.connect_options()
    }

    /// A connection in order: the one that was given back last, or one of the pool when none is at hand.
    ///
    /// # Errors
    /// When none can be had within the time that the pool's options allow.
    pub(in crate::store) async fn lend(&self) -> sqlx::Result<Lease<D>> {
        timeout(self.0.pool.options().get_acquire_timeout(), self.next())
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn next(&self) -> sqlx::Result<Lease<D>> {
        loop {
            let place = self.0.places.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let at_hand = self.0.at_hand.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(held) = at_hand else {
                // Kilobytes of state, rarely needed: unboxed they are part of every future that may come to read, and are moved
                // with each.
                let connection = Box::pin(self.0.pool.acquire()).await?;
                return Ok(self.lease(Held { connection, since: Instant::now() }, place));
            };
            let mut lease = self.lease(held, place);
            if !self.0.may_be_lost() || lease.is_answering().await {
                return Ok(lease);
            }
            lease.spoil();
        }
    }

    fn lease(&self, held: Held<D>, place: OwnedSemaphorePermit) -> Lease<D> {
        Lease(scopeguard::guard(Lent { held, state: State::InOrder, lender: self.clone(), place }, give_back))
    }

    /// Ends every connection, once it is given back.
    pub(in crate::store) async fn close(&self) {
        let closing = self.0.pool.close();
        self.0.at_hand.lock().unwrap_or_else(PoisonError::into_inner).clear();
        closing.await;
    }
}

impl<D: Database> Inner<D> {
    fn may_be_lost(&self) -> bool {
        self.pool.options().get_test_before_acquire()
    }

    /// Keeps a connection at hand. Gives what the pool is to have back: the one at hand that nobody needed since its round ended, so
    /// that it does not stay open for ever after a rush; and the connection itself once the pool is closed.
    fn keep(&self, held: Held<D>) -> Option<Held<D>> {
        let mut at_hand = self.at_hand.lock().unwrap_or_else(PoisonError::into_inner);
        if self.pool.is_closed() {
            return Some(held);
        }
        at_hand.push(held);
        let has_rested = at_hand.first().is_some_and(|first| first.since.elapsed() >= ROUND);
        has_rested.then(|| at_hand.remove(0))
    }
}

fn give_back<D: Database>(lent: Lent<D>) {
    let Lent { held, state, lender, place } = lent;
    let is_fresh = held.since.elapsed() < ROUND;
    match state {
        State::InOrder if is_fresh => {
            if let Some(rested) = lender.0.keep(held) {
                tokio::spawn(to_pool(rested, lender));
            }
        }
        // The place is free only once the connection is: whoever has one must not wait for the pool.
        State::InOrder | State::Begun => {
            tokio::spawn(async move {
                to_pool(held, lender).await;
                drop(place);
            });
        }
        State::Spoilt => {
            tokio::spawn(async move {
                let _ = timeout(PATIENCE, held.connection.close()).await;
                drop(place);
            });
        }
    }
}

/// Gives the pool a connection, which asks it whether it works. Where a network has fallen silent it would ask for ever, and have
/// a connection less for as long.
async fn to_pool<D: Database>(mut held: Held<D>, lender: Lender<D>) {
    let returning = held.connection.return_to_pool();
    if lender.0.may_be_lost() {
        let _ = timeout(PATIENCE, returning).await;
    } else {
        returning.await;
    }
}

impl<D: Database> Lease<D> {
    /// The connection, for statements.
    pub(in crate::store) fn borrow(&mut self) -> Borrowed<'_, D> {
        let Lent { held, state, .. } = &mut *self.0;
        Borrowed { connection: &mut held.connection, state }
    }

    /// Has the connection closed in place of given back.
    pub(in crate::store) fn spoil(&mut self) {
        self.0.state = State::Spoilt;
    }

    /// Whether the connection still leads to the database.
    pub(in crate::store) async fn is_answering(&mut self) -> bool {
        let mut borrowed = self.borrow();
        let is_answering = borrowed.begin().ping().await.is_ok();
        borrowed.end();
        is_answering
    }
}

/// A connection for the time of some statements.
pub struct Borrowed<'c, D: Database> {
    connection: &'c mut D::Connection,
    state: &'c mut State,
}

impl<D: Database> Borrowed<'_, D> {
    /// Borrows it on.
    pub fn reborrow(&mut self) -> Borrowed<'_, D> {
        Borrowed { connection: self.connection, state: self.state }
    }

    /// The connection, for a statement that may not come to its end.
    pub fn begin(&mut self) -> &mut D::Connection {
        if *self.state == State::InOrder {
            *self.state = State::Begun;
        }
        self.connection
    }

    /// Says that what was begun came to its end.
    pub(in crate::store) fn end(&mut self) {
        if *self.state == State::Begun {
            *self.state = State::InOrder;
        }
    }
}

impl<D: Database> Clone for Lender<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Database> fmt::Debug for Lender<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lender").field(&self.0.pool).finish()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{
        Sqlite,
        sqlite::{SqliteConnectOptions, SqlitePoolOptions},
    };

    use super::*;
    use crate::store::db::{Conn, on};

    /// The name of a table that only the connection which made it can see.
    const MARK: &str = "CREATE TEMP TABLE mark (n)";
    const IS_MARKED: &str = "SELECT COUNT(*) FROM sqlite_temp_master";

    #[tokio::test]
    async fn what_was_given_back_last_is_lent_first() {
        let lender = lender();
        let (mut first, second) = (lender.lend().await.unwrap(), lender.lend().await.unwrap());
        on!(Conn::Sqlite(first.borrow()), |c| sqlx::query(MARK).execute(c).await.map(drop)).unwrap();
        drop(second);
        drop(first);
        assert!(is_marked(&mut lender.lend().await.unwrap()).await);
    }

    /// Whoever hangs up leaves behind a connection that is at work for nobody, and that nobody else should wait for.
    #[tokio::test]
    async fn what_is_at_work_for_nobody_is_not_lent() {
        const LONG: &str =
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 10000000) SELECT COUNT(*) FROM n";
        let lender = lender();
        let mut lease = lender.lend().await.unwrap();
        on!(Conn::Sqlite(lease.borrow()), |c| sqlx::query(MARK).execute(c).await.map(drop)).unwrap();
        {
            let long = async { on!(Conn::Sqlite(lease.borrow()), |c| sqlx::query(LONG).execute(c).await.map(drop)) };
            let long = std::pin::pin!(long);
            assert!(futures_util::poll!(long).is_pending());
        }
        drop(lease);
        assert!(!is_marked(&mut lender.lend().await.unwrap()).await);
    }

    #[tokio::test]
    async fn what_is_spoilt_is_not_lent() {
        let lender = lender();
        let mut lease = lender.lend().await.unwrap();
        on!(Conn::Sqlite(lease.borrow()), |c| sqlx::query(MARK).execute(c).await.map(drop)).unwrap();
        lease.spoil();
        drop(lease);
        assert!(!is_marked(&mut lender.lend().await.unwrap()).await);
    }

    #[tokio::test]
    async fn what_is_given_back_at_the_end_is_closed() {
        let lender = lender();
        let lease = lender.lend().await.unwrap();
        let closing = tokio::spawn({
            let lender = lender.clone();
            async move { lender.close().await }
        });
        while !lender.0.pool.is_closed() {
            tokio::task::yield_now().await;
        }
        drop(lease);
        closing.await.unwrap();
        assert!(matches!(lender.lend().await, Err(sqlx::Error::PoolClosed)));
    }

    fn lender() -> Lender<Sqlite> {
        let options = SqlitePoolOptions::new().max_connections(2).test_before_acquire(false);
        Lender::new(options, SqliteConnectOptions::new().in_memory(true))
    }

    async fn is_marked(lease: &mut Lease<Sqlite>) -> bool {
        on!(Conn::Sqlite(lease.borrow()), |c| sqlx::query_scalar(IS_MARKED).fetch_one(c).await).unwrap()
    }
}
