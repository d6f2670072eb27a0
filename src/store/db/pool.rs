//! A connection pool on top of [`sqlx::Pool`] that does not test a connection each time it is returned.
//!
//! sqlx 0.9 cannot know whether the last statement on a connection finished, so it pings every connection on release.
//! On PostgreSQL that is a round trip per read. The ping also has no time limit (sqlx issue 4349): if the network stops
//! delivering packets, each released connection keeps its place in the pool forever, until none is left.
//!
//! This pool knows from [`super::dispatch`] whether the last statement finished, and reuses the connection right away
//! if it did. The connections that do go back to sqlx go there with a time limit.
//!
//! Delete this module and use [`sqlx::Pool`] directly once a release of sqlx has a time limit on release (issue 4349)
//! and can skip the ping on release.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use scopeguard::ScopeGuard;
use sqlx::{
    Connection, Database,
    pool::{PoolConnection, PoolOptions},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long to wait for a connection, and for the response to a ping.
pub(in crate::store) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is reused before it goes back to the sqlx pool, which pings it and replaces it when it is old.
const REUSE: Duration = Duration::from_secs(1);

/// A connection pool. Clones share the connections.
pub struct Pool<D: Database>(Arc<Inner<D>>);

struct Inner<D: Database> {
    pool: sqlx::Pool<D>,
    /// Connections for reuse, the one returned last at the end. It is the next to be used, because its cache is the
    /// warmest.
    idle: Mutex<Vec<Pooled<D>>>,
    /// One permit for each connection of the sqlx pool.
    permits: Arc<Semaphore>,
}

/// How the connections of a pool are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Open and not in use.
    pub idle: usize,
    /// In use, or being opened or closed.
    pub in_use: usize,
    /// How many may be open.
    pub most: usize,
}

struct Pooled<D: Database> {
    connection: PoolConnection<D>,
    /// When the sqlx pool returned it.
    since: Instant,
}

/// A connection that returns to its pool when dropped.
pub struct Lease<D: Database>(ScopeGuard<Leased<D>, fn(Leased<D>)>);

struct Leased<D: Database> {
    pooled: Pooled<D>,
    state: State,
    pool: Pool<D>,
    permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Every statement finished.
    Clean,
    /// A statement was started and did not finish, or failed.
    Busy,
    /// The connection must not be reused.
    Discarded,
}

impl<D: Database> Pool<D> {
    /// Creates a pool. Connections are opened on demand.
    ///
    /// If `options` test connections before use, a connection may be lost without notice, as over a network. Then no
    /// ping is waited for longer than [`CONNECTION_TIMEOUT`].
    pub(in crate::store) fn new(options: PoolOptions<D>, connecting: <D::Connection as Connection>::Options) -> Self {
        let pool = options.connect_lazy_with(connecting);
        let permits = usize::try_from(pool.options().get_max_connections()).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner { pool, idle: Mutex::default(), permits: Arc::new(Semaphore::new(permits)) }))
    }

    /// Returns the options that connections are opened with.
    pub(in crate::store) fn options(&self) -> Arc<<D::Connection as Connection>::Options> {
        self.0.pool.connect_options()
    }

    /// Returns the connection that was returned last, or one of the sqlx pool if none is idle.
    ///
    /// # Errors
    /// [`sqlx::Error::PoolTimedOut`] if no connection is free within the pool's acquire timeout; any error of
    /// connecting.
    pub(in crate::store) async fn acquire(&self) -> sqlx::Result<Lease<D>> {
        timeout(self.0.pool.options().get_acquire_timeout(), self.next())
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn next(&self) -> sqlx::Result<Lease<D>> {
        loop {
            let permit = self.0.permits.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(pooled) = idle else {
                // Boxed, because this future holds kilobytes of state and is rarely needed. Unboxed, it would be a part
                // of every future that may read from the database.
                let connection = Box::pin(self.0.pool.acquire()).await?;
                return Ok(self.lease(Pooled { connection, since: Instant::now() }, permit));
            };
            let mut lease = self.lease(pooled, permit);
            if !self.0.may_lose_connections() || lease.is_alive().await {
                return Ok(lease);
            }
            lease.discard();
        }
    }

    /// Returns how the connections are used.
    pub(in crate::store) fn connections(&self) -> Connections {
        let returned = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).len();
        let open = usize::try_from(self.0.pool.size()).unwrap_or(usize::MAX);
        let idle = returned.saturating_add(self.0.pool.num_idle()).min(open);
        let most = usize::try_from(self.0.pool.options().get_max_connections()).unwrap_or(usize::MAX);
        Connections { idle, in_use: open - idle, most }
    }

    fn lease(&self, pooled: Pooled<D>, permit: OwnedSemaphorePermit) -> Lease<D> {
        Lease(scopeguard::guard(Leased { pooled, state: State::Clean, pool: self.clone(), permit }, release))
    }

    /// Closes every connection, as soon as it is returned.
    pub(in crate::store) async fn close(&self) {
        let closing = self.0.pool.close();
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        closing.await;
    }
}

impl<D: Database> Inner<D> {
    fn may_lose_connections(&self) -> bool {
        self.pool.options().get_test_before_acquire()
    }

    /// Keeps a connection for reuse. Returns the connection that must go back to the sqlx pool, if any: the one that
    /// was idle for longest if nobody needed it for a while, so that a burst does not leave connections open forever;
    /// or `pooled` itself if the pool is closed.
    fn keep(&self, pooled: Pooled<D>) -> Option<Pooled<D>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if self.pool.is_closed() {
            return Some(pooled);
        }
        idle.push(pooled);
        let is_unused = idle.first().is_some_and(|first| first.since.elapsed() >= REUSE);
        is_unused.then(|| idle.remove(0))
    }
}

fn release<D: Database>(leased: Leased<D>) {
    let Leased { pooled, state, pool, permit } = leased;
    let is_fresh = pooled.since.elapsed() < REUSE;
    match state {
        State::Clean if is_fresh => {
            if let Some(unused) = pool.0.keep(pooled) {
                tokio::spawn(return_to_sqlx(unused, pool));
            }
        }
        // Hold the permit until the sqlx pool has the connection, so that the next holder does not wait.
        State::Clean | State::Busy => {
            tokio::spawn(async move {
                return_to_sqlx(pooled, pool).await;
                drop(permit);
            });
        }
        State::Discarded => {
            tokio::spawn(async move {
                let _ = timeout(CONNECTION_TIMEOUT, pooled.connection.close()).await;
                drop(permit);
            });
        }
    }
}

/// Returns a connection to the sqlx pool, which pings it. Without a time limit the ping could wait forever (sqlx issue
/// 4349).
async fn return_to_sqlx<D: Database>(mut pooled: Pooled<D>, pool: Pool<D>) {
    let returning = pooled.connection.return_to_pool();
    if pool.0.may_lose_connections() {
        let _ = timeout(CONNECTION_TIMEOUT, returning).await;
    } else {
        returning.await;
    }
}

impl<D: Database> Lease<D> {
    /// Borrows the connection for statements.
    pub(in crate::store) fn borrow(&mut self) -> Borrowed<'_, D> {
        let Leased { pooled, state, .. } = &mut *self.0;
        Borrowed { connection: &mut pooled.connection, state }
    }

    /// Closes the connection on drop, instead of returning it to the pool.
    pub(in crate::store) fn discard(&mut self) {
        self.0.state = State::Discarded;
    }

    /// Pings the connection.
    pub(in crate::store) async fn is_alive(&mut self) -> bool {
        let mut borrowed = self.borrow();
        let is_alive = borrowed.begin().ping().await.is_ok();
        borrowed.end();
        is_alive
    }
}

/// A borrowed connection that tracks whether its statements finished.
pub struct Borrowed<'c, D: Database> {
    connection: &'c mut D::Connection,
    state: &'c mut State,
}

impl<D: Database> Borrowed<'_, D> {
    /// Borrows the connection again, for a shorter time.
    pub fn reborrow(&mut self) -> Borrowed<'_, D> {
        Borrowed { connection: self.connection, state: self.state }
    }

    /// Returns the connection for a statement. Until [`Borrowed::end`] the connection is tested before it is reused.
    pub fn begin(&mut self) -> &mut D::Connection {
        if *self.state == State::Clean {
            *self.state = State::Busy;
        }
        self.connection
    }

    /// Marks the statement as finished.
    pub(in crate::store) fn end(&mut self) {
        if *self.state == State::Busy {
            *self.state = State::Clean;
        }
    }
}

impl<D: Database> Clone for Pool<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Database> fmt::Debug for Pool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.0.pool).finish()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{
        Sqlite,
        sqlite::{SqliteConnectOptions, SqlitePoolOptions},
    };

    use super::*;
    use crate::store::db::{Conn, dispatch, execute};

    /// A table that only the connection that created it can see.
    const MARK: &str = "CREATE TEMP TABLE mark (n)";
    const IS_MARKED: &str = "SELECT COUNT(*) FROM sqlite_temp_master";

    #[tokio::test]
    async fn the_connection_returned_last_is_acquired_first() {
        let pool = pool();
        let (mut first, second) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        mark(&mut first).await;
        drop(second);
        drop(first);
        assert!(is_marked(&mut pool.acquire().await.unwrap()).await);
    }

    /// A client that disconnects leaves a connection that still runs its statement. Nobody should wait for it.
    #[tokio::test]
    async fn connections_with_an_unfinished_statement_are_not_reused() {
        const LONG: &str =
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 10000000) SELECT COUNT(*) FROM n";
        let pool = pool();
        let mut lease = pool.acquire().await.unwrap();
        mark(&mut lease).await;
        {
            let long = async { execute!(Conn::Sqlite(lease.borrow()), sqlx::query(LONG)) };
            let long = std::pin::pin!(long);
            assert!(futures_util::poll!(long).is_pending());
        }
        drop(lease);
        assert!(!is_marked(&mut pool.acquire().await.unwrap()).await);
    }

    #[tokio::test]
    async fn discarded_connections_are_not_reused() {
        let pool = pool();
        let mut lease = pool.acquire().await.unwrap();
        mark(&mut lease).await;
        lease.discard();
        drop(lease);
        assert!(!is_marked(&mut pool.acquire().await.unwrap()).await);
    }

    #[tokio::test]
    async fn connections_returned_after_closing_are_closed() {
        let pool = pool();
        let lease = pool.acquire().await.unwrap();
        let closing = tokio::spawn({
            let pool = pool.clone();
            async move { pool.close().await }
        });
        while !pool.0.pool.is_closed() {
            tokio::task::yield_now().await;
        }
        drop(lease);
        closing.await.unwrap();
        assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolClosed)));
    }

    /// `?` in the body of the macro leaves its async block only, so a successful statement always ends.
    #[tokio::test]
    async fn the_body_of_dispatch_cannot_leave_its_caller() {
        let pool = pool();
        let mut lease = pool.acquire().await.unwrap();
        let failed: sqlx::Result<()> = dispatch!(Conn::Sqlite(lease.borrow()), |c| {
            sqlx::query("SELECT * FROM nothing").execute(&mut *c).await?;
            unreachable!("the table does not exist")
        });
        assert!(failed.is_err() && lease.0.state == State::Busy);
        let stopped: sqlx::Result<i64> = dispatch!(Conn::Sqlite(lease.borrow()), |c| {
            if sqlx::query("SELECT 1").execute(&mut *c).await.is_ok() {
                return Ok(1);
            }
            Ok(2)
        });
        assert!(stopped.unwrap() == 1 && lease.0.state == State::Clean);
    }

    fn pool() -> Pool<Sqlite> {
        let options = SqlitePoolOptions::new().max_connections(2).test_before_acquire(false);
        Pool::new(options, SqliteConnectOptions::new().in_memory(true))
    }

    async fn mark(lease: &mut Lease<Sqlite>) {
        execute!(Conn::Sqlite(lease.borrow()), sqlx::query(MARK)).unwrap();
    }

    async fn is_marked(lease: &mut Lease<Sqlite>) -> bool {
        dispatch!(Conn::Sqlite(lease.borrow()), |c| sqlx::query_scalar(IS_MARKED).fetch_one(c).await).unwrap()
    }
}
