//! Several nodes on one PostgreSQL. SQLite has one process, so these have no other half.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use aims::service::sessions;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::JoinSet;

use crate::{
    oauth::as_client,
    support::{Agent, Client, Database, Relay, Server, TestClock, open, start},
};

/// How many wait for a lock.
const WAITING: &str =
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_suspension_on_one_node_is_felt_on_the_other() {
    let server = Server::start(Database::postgres().await).await;
    let other = Client::new(start(open(&server.db, &server.clock, &[]).await).await);
    for round in 0..10 {
        let agent = server.agent(&format!("agent-{round}"), &["agents:read"]).await;
        let elsewhere = other.with_token(agent.client.token());
        elsewhere.get("/capabilities").await.expect(200);
        server.admin.post(&format!("/agents/{}/suspend", agent.id), json!({})).await.expect(200);
        until_refused(&elsewhere).await;
    }
}

/// Notifications that nobody heard are lost, so a node whose listener is cut off must not trust what it remembers.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_that_hears_nothing_trusts_nothing_it_remembers() {
    const CUT: &str = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let server = Arc::new(Server::start(Database::postgres().await).await);
    let other = Client::new(start(open(&server.db, &server.clock, &[]).await).await);
    let cuts = Arc::new(AtomicI64::new(0));
    let cutting = tokio::spawn({
        let (server, cuts) = (server.clone(), cuts.clone());
        async move {
            loop {
                cuts.fetch_add(server.db.count(CUT).await, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    for round in 0..10 {
        let agent = server.agent(&format!("agent-{round}"), &["agents:read"]).await;
        let elsewhere = other.with_token(agent.client.token());
        elsewhere.get("/capabilities").await.expect(200);
        let before = cuts.load(Ordering::SeqCst);
        while cuts.load(Ordering::SeqCst) < before + 2 {
            elsewhere.get("/capabilities").await.expect(200);
        }
        server.admin.post(&format!("/agents/{}/suspend", agent.id), json!({})).await.expect(200);
        until_refused(&elsewhere).await;
    }
    cutting.abort();
}

/// Nor may it when the network to the database is cut without a word, and is back only after a while.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_that_was_cut_off_trusts_nothing_it_remembers() {
    let (server, mut relay, agent, elsewhere) = at_the_end_of_a_relay().await;
    relay.cut();
    server.admin.post(&format!("/agents/{}/suspend", agent.id), json!({})).await.expect(200);
    relay.given_up().await;
    relay.mend();
    until_refused(&elsewhere).await;
}

/// Nor when nothing tells it that nothing arrives any more.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_around_which_it_is_silent_trusts_nothing_it_remembers() {
    let (server, relay, agent, elsewhere) = at_the_end_of_a_relay().await;
    relay.silence();
    server.admin.post(&format!("/agents/{}/suspend", agent.id), json!({})).await.expect(200);
    let deadline = Instant::now() + Duration::from_secs(10);
    while elsewhere.get("/capabilities").await.status == StatusCode::OK {
        assert!(Instant::now() < deadline, "it goes on with what it remembers");
    }
    relay.mend();
    until_refused(&elsewhere).await;
}

/// A node that is lost while it writes leaves a transaction under way, and with it the end of the chain, which nobody else can
/// continue until the database gives it up.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_that_is_lost_keeps_nobody_from_writing() {
    let (server, relay, _, elsewhere) = at_the_end_of_a_relay().await;
    let lost = elsewhere.with_token(server.admin.token());
    // Only the other node has something to write.
    server.save_usage().await;
    let mut held = PgConnection::connect(&server.db.url).await.unwrap();
    held.execute("BEGIN").await.unwrap();
    held.execute("SELECT FROM audit_head FOR UPDATE").await.unwrap();
    let writing = tokio::spawn(async move { lost.post("/agents", json!({ "name": "there", "owner": "o" })).await });
    while server.db.count(WAITING).await == 0 {}
    relay.silence();
    held.execute("COMMIT").await.unwrap();
    server.admin.post("/agents", json!({ "name": "here", "owner": "o" })).await.expect(201);
    writing.abort();
}

/// All connections are in use when whoever is at their other end is there no more, and says nothing.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_database_that_moves_is_found_again() {
    let (server, relay, _, elsewhere) = at_the_end_of_a_relay().await;
    let admin = elsewhere.with_token(server.admin.token());
    admin.get("/agents").await.expect(200);
    let mut locked = PgConnection::connect(&server.db.url).await.unwrap();
    let mut asking = keep_busy(&server.db, &mut locked, &admin).await;
    relay.forget();
    asking.shutdown().await;
    locked.execute("COMMIT").await.unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while admin.get("/agents").await.status != StatusCode::OK {
        assert!(Instant::now() < deadline, "it cannot read");
    }
    while admin.post("/agents", json!({ "name": "found", "owner": "o" })).await.status != StatusCode::CREATED {
        assert!(Instant::now() < deadline, "it cannot write");
    }
    keep_busy(&server.db, &mut locked, &admin).await;
}

/// Has a node wait for a lock with the connections that it may have, 16 but for one that indexes the audit log.
async fn keep_busy(db: &Database, locked: &mut PgConnection, admin: &Client) -> JoinSet<Infallible> {
    locked.execute("BEGIN").await.unwrap();
    locked.execute("LOCK TABLE agents").await.unwrap();
    let mut asking = JoinSet::new();
    for n in 0..32 {
        let admin = admin.clone();
        asking.spawn(async move {
            loop {
                match n {
                    0 => admin.post("/agents", json!({ "name": "lost", "owner": "o" })).await,
                    _ => admin.get("/agents").await,
                };
            }
        });
    }
    let deadline = Instant::now() + Duration::from_mins(1);
    while db.count(WAITING).await < 15 {
        assert!(Instant::now() < deadline, "it has fewer connections than before");
    }
    asking
}

/// A node that listens, and remembers an agent.
async fn at_the_end_of_a_relay() -> (Server, Relay, Agent, Client) {
    const LISTENERS: &str =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let server = Server::start(Database::postgres().await).await;
    let (relay, db) = Relay::before(&server.db).await;
    let other = Client::new(start(open(&db, &server.clock, &[]).await).await);
    let agent = server.agent("agent", &["agents:read"]).await;
    while server.db.count(LISTENERS).await < 2 {}
    let elsewhere = other.with_token(agent.client.token());
    elsewhere.get("/capabilities").await.expect(200);
    (server, relay, agent, elsewhere)
}

/// What happened elsewhere is under way, and arrives.
async fn until_refused(client: &Client) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = client.get("/capabilities").await;
        if answer.status == StatusCode::UNAUTHORIZED {
            return;
        }
        assert!(Instant::now() < deadline, "never refused: {answer:?}");
    }
}

/// Nodes gather what they know of keys; whoever tells it last does not know it best.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_use_of_a_key_that_is_told_late_replaces_no_newer_one() {
    const LAST: &str = "SELECT MAX(last_used_at) FROM api_keys";
    let server = Server::start(Database::postgres().await).await;
    let slow = TestClock::new();
    let app = open(&server.db, &slow, &[]).await;
    let services = app.services().clone();
    let other = Client::new(start(app).await);
    server.clock.advance(Duration::from_mins(10));
    let agent = server.agent("agent", &[]).await;
    server.save_usage().await;
    let last = server.db.count(LAST).await;
    other.login(&agent.raw_key).await;
    services.store.read_usage().await.unwrap();
    assert_eq!(server.db.count(LAST).await, last);
    slow.advance(Duration::from_mins(20));
    other.login(&agent.raw_key).await;
    services.store.read_usage().await.unwrap();
    assert!(server.db.count(LAST).await > last);
}

/// What has expired by one node's clock may be good by another's.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_whose_clock_is_ahead_forgets_nothing_that_others_need() {
    const REVOKED: &str = "SELECT COUNT(*) FROM revoked_tokens";
    /// Of a token, in seconds.
    const LIFE: u64 = 30 * 60;
    let server = Server::start(Database::postgres().await).await;
    let agent = server.agent("agent", &["agents:read"]).await;
    as_client(&server, &agent, "/oauth/revoke", &[("token", agent.client.token())]).await.expect(200);
    server.clock.advance(Duration::from_secs(LIFE - 5));
    let ahead = TestClock::new();
    ahead.advance(Duration::from_secs(LIFE + 5));
    let app = open(&server.db, &ahead, &[]).await;
    sessions::sweep(app.services()).await.unwrap();
    let other = Client::new(start(open(&server.db, &server.clock, &[]).await).await);
    other.with_token(agent.client.token()).get("/capabilities").await.refused(401, "Invalid or expired token");
    assert_eq!(server.db.count(REVOKED).await, 1);
    ahead.advance(Duration::from_secs(10));
    sessions::sweep(app.services()).await.unwrap();
    assert_eq!(server.db.count(REVOKED).await, 0);
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn nodes_that_write_at_once_keep_one_chain() {
    let server = Server::start(Database::postgres().await).await;
    let other = Client::new(start(open(&server.db, &server.clock, &[]).await).await).with_token(server.admin.token());
    let before = server.db.count("SELECT COUNT(*) FROM audit_log").await;
    let creations = (0..100).map(|n| {
        let client = if n % 2 == 0 { server.admin.clone() } else { other.clone() };
        async move { client.post("/agents", json!({ "name": format!("n{n}"), "owner": "o" })).await.expect(201) }
    });
    futures_util::future::join_all(creations).await;
    assert_eq!(server.db.count("SELECT COUNT(*) FROM audit_log").await, before + 100);
    let app = open(&server.db, &server.clock, &[]).await;
    let verification = aims::service::audit::verify(app.services().store.db()).await.unwrap();
    assert_eq!((verification.broken, verification.head.seq), (None, before + 100));
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn nodes_that_start_at_once_make_one_administrator_and_one_signing_key() {
    let db = Database::postgres().await;
    let clock = TestClock::new();
    let starts = (0..4).map(|_| async {
        let app = open(&db, &clock, &[]).await;
        let made = app.bootstrap().await.unwrap().is_some();
        (made, app.services().keyring.get().jwks().to_string())
    });
    let started = futures_util::future::join_all(starts).await;
    assert_eq!(started.iter().filter(|(made, _)| *made).count(), 1);
    assert!(started.iter().all(|(_, jwks)| *jwks == started[0].1), "every node signs with the same key");
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 1);
}

/// A newer version, started beside nodes of an older one, changes tables that those have prepared statements for.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_serves_on_while_a_newer_one_migrates() {
    const AS_BEFORE_0008: &str = "ALTER TABLE api_key_uses DROP CONSTRAINT api_key_uses_pkey; \
        ALTER TABLE api_key_uses ADD CONSTRAINT api_key_uses_pkey PRIMARY KEY (key_id, day); \
        ALTER TABLE api_key_uses ADD CONSTRAINT api_key_uses_key_id_fkey FOREIGN KEY (key_id) REFERENCES api_keys (id); \
        DELETE FROM _sqlx_migrations WHERE version = 8; \
        ALTER TABLE capabilities ADD COLUMN of_a_newer_version TEXT";
    let server = Server::start(Database::postgres().await).await;
    let at_once = || join_all((0..32).map(|_| server.admin.get("/capabilities")));
    for answer in at_once().await {
        answer.expect(200);
    }
    server.db.execute(AS_BEFORE_0008).await;
    open(&server.db, &server.clock, &[]).await;
    for answer in at_once().await {
        answer.expect(200);
    }
    server.admin.post("/agents", json!({ "name": "later", "owner": "o" })).await.expect(201);
}
