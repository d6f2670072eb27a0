//! Receives the changes of other nodes from PostgreSQL.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::timeout;

use super::{
    Db,
    changes::{CHANNEL, Changes},
    pool::CONNECTION_TIMEOUT,
};
use crate::domain::{Error, Result};

/// How long the connection may be silent before it is pinged, and how long the ping may take.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A connection that receives the changes of every node.
pub struct Listener(PgListener);

impl Db {
    /// Subscribes to the changes of other nodes. Returns `None` for SQLite, where there is one node.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if PostgreSQL does not respond.
    pub async fn listen(&self) -> Result<Option<Listener>> {
        let Self::Postgres(pool) = self else { return Ok(None) };
        // A pool of its own: the connection is never returned, and a lost connection must not take a place among the
        // readers.
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECTION_TIMEOUT);
        let mut listener = PgListener::connect_with(&own.connect_lazy_with((*pool.options()).clone())).await?;
        timeout(CONNECTION_TIMEOUT, listener.listen(CHANNEL))
            .await
            .map_err(|_| lost("PostgreSQL does not respond"))??;
        // Report a lost connection before reconnecting. Otherwise, if reconnecting takes longer than a heartbeat, the
        // ping succeeds on the new connection and the loss is never reported.
        listener.eager_reconnect(false);
        Ok(Some(Listener(listener)))
    }
}

impl Listener {
    /// Waits for the next changes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the connection is lost. Changes may have been missed since the last call.
    pub async fn next(&mut self) -> Result<Changes> {
        loop {
            match timeout(HEARTBEAT, self.0.try_recv()).await {
                Ok(Ok(Some(notification))) => return Ok(Changes::from_message(notification.payload())),
                Ok(Ok(None)) => return Err(lost("the connection was closed")),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => timeout(HEARTBEAT, sqlx::query("SELECT 1 AS heartbeat").execute(&mut self.0))
                    .await
                    .map_err(|_| lost("the connection does not respond"))?
                    .map(drop)?,
            }
        }
    }
}

fn lost(why: &'static str) -> Error {
    Error::Unavailable(Some(why.into()))
}
