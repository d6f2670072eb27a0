//! A PostgreSQL database that a restored one takes the place of, in one transaction.

use std::time::Duration;

use secrecy::SecretString;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    LEFT_OUT, Part, Seen, TABLES,
    columns::On,
    loader::{LoadError, load},
    unchanged,
};
use crate::{
    domain::Error,
    store::db::{
        OpenError,
        postgres::{APPLICATION, MIGRATIONS, STARTING, options},
    },
};

/// The application name of the connection. A node that migrates closes those of other nodes.
const RESTORING: &str = "aims_restoring";
/// How long connecting may take, and how long other nodes may take to go away.
const PATIENCE: Duration = Duration::from_secs(5);

/// The database, on a connection of its own.
pub struct PostgresTarget(PgConnection);

impl PostgresTarget {
    /// Connects.
    ///
    /// # Errors
    /// If the server does not respond, or other nodes are connected to the database.
    pub async fn connect(url: &SecretString) -> Result<Self, LoadError> {
        let options = options(url)?.application_name(RESTORING);
        let connected = timeout(PATIENCE, options.connect()).await;
        let connected = connected.map_err(|elapsed| Error::Unavailable(Some(elapsed.into())))?;
        let mut connection = connected.map_err(OpenError::Connect)?;
        connection.execute("SET statement_timeout = 0").await?;
        connection.execute("SET lock_timeout = '10s'").await?;
        connection.execute("SET idle_in_transaction_session_timeout = '10min'").await?;
        require_alone(&mut connection, &[APPLICATION, STARTING, RESTORING]).await?;
        Ok(Self(connection))
    }

    /// Replaces the tables of AIMS, whatever their schema is, with those of the stream. If it is interrupted, PostgreSQL
    /// undoes everything.
    ///
    /// # Errors
    /// See [`LoadError`]. Nothing is changed then.
    pub async fn put(mut self, seen: Seen, parts: &mut mpsc::Receiver<Part>) -> Result<(), LoadError> {
        /// The lock that a node takes to migrate when it starts.
        const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('aims_migrations'))";
        /// Every change moves the end of the audit log.
        const NO_WRITES: &str = "DO $$ BEGIN IF to_regclass('audit_head') IS NOT NULL THEN \
            LOCK TABLE audit_head IN ACCESS EXCLUSIVE MODE; END IF; END $$";
        /// Some of the names are those of an index here.
        const PRESENT: &str =
            "SELECT tablename::TEXT FROM pg_tables WHERE schemaname = current_schema() AND tablename = ANY($1)";
        let mut transaction = self.0.begin().await?;
        transaction.execute(LOCK).await?;
        // A node that starts now waits for the lock.
        require_alone(&mut transaction, &[APPLICATION]).await?;
        transaction.execute(NO_WRITES).await?;
        unchanged::require(On::Postgres(&mut transaction), seen).await?;
        let known: Vec<_> = TABLES.into_iter().chain(LEFT_OUT.iter().map(|(name, _)| *name)).collect();
        let present: Vec<String> = sqlx::query_scalar(PRESENT).bind(known).fetch_all(&mut *transaction).await?;
        if !present.is_empty() {
            transaction.execute(AssertSqlSafe(format!("DROP TABLE {}", present.join(", ")))).await?;
        }
        MIGRATIONS.run(&mut *transaction).await.map_err(OpenError::from)?;
        load(On::Postgres(&mut transaction), parts).await?;
        transaction.commit().await?;
        let _ = self.0.close().await;
        Ok(())
    }
}

/// Checks that no AIMS process has a connection with one of these names. Those of this process that were just closed take a
/// moment to end on the server.
async fn require_alone(connection: &mut PgConnection, names: &[&str]) -> Result<(), LoadError> {
    const OTHERS: &str = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND application_name = ANY($1) AND pid <> pg_backend_pid()";
    let began = Instant::now();
    loop {
        let others: i64 = sqlx::query_scalar(OTHERS).bind(names).fetch_one(&mut *connection).await?;
        if others == 0 {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let in_use = format!("other AIMS processes have {others} connections to the database; stop every node");
            return Err(LoadError::Misfit(in_use));
        }
        sleep(Duration::from_millis(50)).await;
    }
}
