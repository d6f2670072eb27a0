//! Temporary database outages.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection, Executor, SqliteConnection};
use tokio::{sync::mpsc, task::JoinSet};

use crate::support::{Aims, Client, Database, Postgres, Server};

/// Another program holds SQLite's write lock for longer than the busy timeout.
#[tokio::test]
async fn locked_file_returns_503_until_it_is_released() {
    let server = Server::start(Database::sqlite()).await;
    let mut other = SqliteConnection::connect(&server.db.sqlite_url()).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let refused = server.admin.post("/agents", json!({ "name": "a", "owner": "o" })).await;
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    refused.expect(503);
    server.admin.get("/agents").await.expect(200);

    // A request shortly before the lock is released is only delayed.
    let admin = server.admin.clone();
    let waiting = tokio::spawn(async move { admin.post("/agents", json!({ "name": "b", "owner": "o" })).await });
    server.admin.get("/agents").await.expect(200);
    other.execute("ROLLBACK").await.unwrap();
    waiting.await.unwrap().expect(201);
    server.admin.post("/agents", json!({ "name": "a", "owner": "o" })).await.expect(201);
}

/// A batch may have to be rolled back, which must not require a temporary file outside the database's directory.
#[tokio::test]
async fn batches_need_no_temporary_file() {
    let db = Database::sqlite();
    let temporary = db.folder.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let aims = Aims::new(&db).with("SQLITE_TMPDIR", temporary.to_str().unwrap());
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let changed = || temporary.metadata().unwrap().modified().unwrap();
    let before = changed();
    for round in 0..3 {
        let agent = |number| json!({ "name": format!("agent-{round}-{number}"), "owner": "o" });
        for response in join_all((0..200).map(|number| admin.post("/agents", agent(number)))).await {
            response.expect(201);
        }
    }
    assert_eq!(changed(), before);
}

/// The client was told that nothing changed, and may have retried elsewhere or given up.
#[tokio::test]
async fn timed_out_changes_are_not_applied() {
    let server = Server::start_with(Database::sqlite(), &[("REQUEST_TIMEOUT_SECONDS", "1")]).await;
    let mut other = SqliteConnection::connect(&server.db.sqlite_url()).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    server.admin.post("/agents", json!({ "name": "late", "owner": "o" })).await.expect(503);
    other.execute("ROLLBACK").await.unwrap();
    server.admin.post("/agents", json!({ "name": "in-time", "owner": "o" })).await.expect(201);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM agents WHERE name = 'late'").await, 0);
}

const CUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'aims'";

/// Every recently used connection is closed. The next requests still succeed.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn closed_idle_connections_cause_no_errors() {
    let server = Server::start(Database::postgres().await).await;
    for round in 0..5 {
        for response in join_all((0..32).map(|_| server.admin.get("/agents"))).await {
            response.expect(200);
        }
        server.db.execute(CUT).await;
        let agent = json!({ "name": format!("agent-{round}"), "owner": "o" });
        server.admin.post("/agents", agent).await.expect(201);
        for _ in 0..32 {
            server.admin.get("/agents").await.expect(200);
        }
    }
}

/// PostgreSQL closes every connection, as in a restart, while 16 writers are active.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn closed_connections_are_reopened() {
    const CUTS: usize = 10;
    let server = Server::start(Database::postgres().await).await;
    let (mut acknowledged, writers) = write(&server.admin);
    let mut names = HashSet::new();
    for _ in 0..CUTS {
        for _ in 0..25 {
            names.insert(acknowledged.recv().await.expect("the writers must keep running"));
        }
        server.db.execute(CUT).await;
    }
    for _ in 0..25 {
        names.insert(acknowledged.recv().await.expect("the writers must continue after the last cut"));
    }
    drop(acknowledged);
    writers.join_all().await;
    server.admin.post("/agents", json!({ "name": "last", "owner": "o" })).await.expect(201);
    assert_nothing_lost(&server.db, &names).await;
}

/// PostgreSQL is restarted or crashes repeatedly while 16 writers are active.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn service_recovers_from_database_restarts() {
    const RESTARTS: usize = 20;
    /// Time from the database's restart until the service works again.
    const RECOVERY_LIMIT: Duration = Duration::from_secs(5);
    let (mut postgres, db) = Postgres::start().await;
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let (mut acknowledged, writers) = write(&admin);
    let mut names = HashSet::new();
    let mut longest = Duration::ZERO;
    for restart in 0..RESTARTS {
        for _ in 0..100 {
            names.insert(acknowledged.recv().await.expect("the writers must keep running"));
        }
        postgres.restart(if restart % 2 == 0 { "fast" } else { "immediate" }).await;
        let restarted = Instant::now();
        // Acknowledged changes are still readable.
        while let Ok(name) = acknowledged.try_recv() {
            names.insert(name);
        }
        names.insert(acknowledged.recv().await.expect("the writers must keep running"));
        longest = longest.max(restarted.elapsed());
    }
    println!("back after {longest:?} at most");
    assert!(longest < RECOVERY_LIMIT, "{longest:?}");
    drop(acknowledged);
    writers.join_all().await;
    assert_nothing_lost(&db, &names).await;
    assert_eq!(process.stop().await.code, Some(0));
    postgres.stop().await;
}

/// The log contains the start of an outage with its cause, and its end, but not every failed attempt.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn outage_is_logged_once() {
    const OUTAGE: Duration = Duration::from_secs(3);
    let db = Database::postgres().await;
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let (server, name) = db.url.rsplit_once('/').unwrap();
    let elsewhere = Database { url: format!("{server}/postgres"), folder: tempfile::TempDir::new().unwrap() };
    elsewhere.execute(&format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS FALSE")).await;
    let cut = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    elsewhere.execute(&cut).await;
    let began = Instant::now();
    while began.elapsed() < OUTAGE {
        admin.get("/agents").await.expect(503);
    }
    elsewhere.execute(&format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS TRUE")).await;
    while !process.log().contains("receiving changes from other nodes again") {
        assert!(began.elapsed() < OUTAGE * 10, "{}", process.log());
        admin.get("/_health").await.expect(200);
    }
    let stopped = process.stop().await;
    let lines: Vec<_> =
        stopped.stderr.lines().filter(|line| line.contains("cannot receive changes from other nodes")).collect();
    assert!(lines.len() == 1 && lines[0].contains("unavailable: the connection was closed"), "{lines:?}");
}

/// Starts 16 tasks that create agents until the receiver is dropped.
fn write(admin: &Client) -> (mpsc::UnboundedReceiver<String>, JoinSet<()>) {
    let (acknowledge, acknowledged) = mpsc::unbounded_channel();
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let (admin, acknowledge) = (admin.clone(), acknowledge.clone());
        writers.spawn(async move {
            for n in 0.. {
                let name = format!("w{writer}-{n}");
                let response = admin.post("/agents", json!({ "name": name, "owner": "o" })).await;
                match response.status.as_u16() {
                    201 if acknowledge.send(name).is_err() => return,
                    201 | 503 => {}
                    _ => panic!("{response:?}"),
                }
            }
        });
    }
    (acknowledged, writers)
}

async fn assert_nothing_lost(db: &Database, acknowledged: &HashSet<String>) {
    let stored: HashSet<_> = db.texts("SELECT name FROM agents").await.into_iter().collect();
    assert_eq!(
        acknowledged.difference(&stored).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "acknowledged agents must not be lost"
    );
    let created = db.count("SELECT COUNT(*) FROM audit_log WHERE action = 'agent.created'").await;
    assert_eq!(usize::try_from(created).unwrap(), stored.len());
    let verified = Aims::new(db).run(&["audit", "verify", "--json"]).await.json();
    assert_eq!(verified["valid"], true, "{verified}");
}
