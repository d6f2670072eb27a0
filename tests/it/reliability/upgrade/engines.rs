//! Servers that speak the protocol of PostgreSQL and are not fit for AIMS.

use crate::support::{Aims, Database, Impostor, Pooler, Reply};

/// Starts the service on an engine that responds differently to some statements.
async fn starts_on(replies: &'static [(&'static str, Reply)]) -> crate::support::Exit {
    let db = Database::postgres().await;
    let engine = Impostor::in_front_of(&db, replies).await;
    let exit = Aims::new(&engine).run(&["serve"]).await;
    assert_eq!(
        db.count("SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'").await,
        0,
        "nothing must be created"
    );
    exit
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn an_impostor_that_changes_nothing_is_postgresql() {
    let db = Database::postgres().await;
    let same = Impostor::in_front_of(&db, &[]).await;
    let aims = Aims::new(&same);
    aims.bootstrap().await;
    aims.serve().await.stop().await;
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn engines_without_notifications_are_refused() {
    // Some report an error.
    let exit = starts_on(&[("LISTEN", Reply::Error("0A000", "unimplemented: this syntax"))]).await;
    exit.fails_with("it has no working LISTEN and NOTIFY. AIMS needs PostgreSQL 13 or newer, or SQLite");
    exit.fails_with("the server calls itself \"PostgreSQL 15");
    // Others accept the statement and ignore it.
    let exit = starts_on(&[("LISTEN", Reply::Nothing)]).await;
    exit.fails_with("it has no working LISTEN and NOTIFY");
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn engines_without_advisory_locks_are_refused() {
    let exit = starts_on(&[("pg_try_advisory_lock", Reply::Error("42883", "no such function"))]).await;
    exit.fails_with("it has no working advisory locks");
    // Others let everybody have the lock.
    let exit = starts_on(&[("pg_try_advisory_lock", Reply::Row(&[("lock", "true")]))]).await;
    exit.fails_with("it has no working advisory locks");
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn other_engines_and_old_versions_are_named() {
    let exit = starts_on(&[
        ("AS engine", Reply::Error("42883", "unknown function: pg_backend_pid()")),
        ("SELECT version()", Reply::Row(&[("version", "Otherbase 8.1\non a cluster")])),
    ])
    .await;
    exit.fails_with("it has no working session functions");
    exit.fails_with("the server calls itself \"Otherbase 8.1on a cluster\"");
    let exit = starts_on(&[(
        "AS engine",
        Reply::Row(&[("engine", "PostgreSQL 12.20"), ("session", "1"), ("version", "120020"), ("time_limit", "10s")]),
    )])
    .await;
    exit.fails_with("it is PostgreSQL 12, and AIMS needs version 13 or newer");
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn standbys_are_refused() {
    let exit = starts_on(&[("LISTEN", Reply::Error("25006", "cannot execute LISTEN during recovery"))]).await;
    exit.fails_with("it is a standby, which is read-only");
}

/// Starts the service behind `PgBouncer`.
async fn behind_pgbouncer(settings: &str) -> crate::support::Exit {
    let db = Database::postgres().await;
    let pooler = Pooler::in_front_of(&db, settings).await;
    Aims::new(&pooler.db).run(&["serve"]).await
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn pgbouncer_is_refused() {
    const IGNORE: &str = "ignore_startup_parameters = options,extra_float_digits";
    for mode in ["transaction", "session"] {
        let exit = behind_pgbouncer(&format!("pool_mode = {mode}")).await;
        exit.fails_with("it refused the session settings, as connection poolers such as PgBouncer do");
    }
    for mode in ["transaction", "statement"] {
        for order in ["server_round_robin = 0", "server_round_robin = 1"] {
            let exit = behind_pgbouncer(&format!("pool_mode = {mode}\n{IGNORE}\n{order}")).await;
            exit.fails_with("a connection pooler shares connections between transactions");
        }
    }
    let exit = behind_pgbouncer(&format!("pool_mode = session\n{IGNORE}")).await;
    exit.fails_with("a connection pooler ignores the session settings");
}
