//! Hears on PostgreSQL what other nodes change.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::timeout;

use super::{Db, lender::PATIENCE, writer::CHANNEL};
use crate::{
    domain::{Error, Result},
    store::Changes,
};

/// How long the connection may be silent before it is asked whether it lives, and may take to answer.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A connection on which the changes of every node arrive.
pub struct Listener(PgListener);

impl Db {
    /// Whether other nodes may change the same database, so that only a [`Listener`] keeps memory true.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Starts to hear other nodes' changes; `None` where there can be no other node.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn listen(&self) -> Result<Option<Listener>> {
        let Self::Postgres(lender) = self else { return Ok(None) };
        // Of its own, and not of those that readers wait for: it is kept, and one that is lost is not given back soon.
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
        let mut listener = PgListener::connect_with(&own.connect_lazy_with((*lender.options()).clone())).await?;
        timeout(PATIENCE, listener.listen(CHANNEL)).await.map_err(|_| deaf("PostgreSQL does not answer"))??;
        // Else it connects again before it says that it was cut off; and where that takes longer than a heartbeat it never
        // says so, as it is the new connection which then answers.
        listener.eager_reconnect(false);
        Ok(Some(Listener(listener)))
    }
}

impl Listener {
    /// The next changes.
    ///
    /// # Errors
    /// When the connection is lost: changes may have been missed since the last ones heard.
    pub async fn next(&mut self) -> Result<Changes> {
        loop {
            match timeout(HEARTBEAT, self.0.try_recv()).await {
                Ok(Ok(Some(notification))) => return Ok(Changes::from_message(notification.payload())),
                Ok(Ok(None)) => return Err(deaf("the connection was closed")),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => timeout(HEARTBEAT, sqlx::query("SELECT 1").execute(&mut self.0))
                    .await
                    .map_err(|_| deaf("the connection fell silent"))?
                    .map(drop)?,
            }
        }
    }
}

fn deaf(why: &'static str) -> Error {
    Error::Unavailable(Some(why.into()))
}
