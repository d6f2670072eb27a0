//! Several nodes on one PostgreSQL. On SQLite there is one process.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use aims::service::people::sessions;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::JoinSet;

use crate::{
    oauth::post_as_client,
    support::{Agent, Client, Database, Relay, Server, TestClock, open, start},
};

/// Counts the connections that wait for a lock.
const WAITING: &str =
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_suspension_takes_effect_on_other_nodes() {
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

/// Notifications without a listener are lost, so a node that loses its listener must not use its cache.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_without_a_listener_does_not_use_its_cache() {
    const CUT: &str = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE datname = current_database() AND (query LIKE 'LISTEN%' OR query LIKE '%heartbeat')";
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

/// The network to the database is interrupted for a while.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_that_was_disconnected_does_not_use_its_cache() {
    let (server, mut relay, agent, elsewhere) = node_behind_a_relay().await;
    relay.cut();
    server.admin.post(&format!("/agents/{}/suspend", agent.id), json!({})).await.expect(200);
    relay.connection_abandoned().await;
    relay.restore();
    until_refused(&elsewhere).await;
}

/// The network drops packets without an error.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_on_a_silent_network_does_not_use_its_cache() {
    let (server, relay, agent, elsewhere) = node_behind_a_relay().await;
    relay.silence();
    server.admin.post(&format!("/agents/{}/suspend", agent.id), json!({})).await.expect(200);
    let deadline = Instant::now() + Duration::from_secs(10);
    while elsewhere.get("/capabilities").await.status == StatusCode::OK {
        assert!(Instant::now() < deadline, "it still uses its cache");
    }
    relay.restore();
    until_refused(&elsewhere).await;
}

/// A node that is lost during a write leaves an open transaction, which locks the end of the chain until the database
/// ends it.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_lost_node_does_not_block_writers() {
    let (server, relay, _, elsewhere) = node_behind_a_relay().await;
    let lost = elsewhere.with_token(server.admin.token());
    // Leave nothing to write on this node.
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

/// All connections are in use when the server disappears without closing them.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_database_that_moves_is_reconnected() {
    let (server, relay, _, elsewhere) = node_behind_a_relay().await;
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

/// Makes a node wait for a lock with all of its connections: 16, except for one that indexes the audit log.
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
        assert!(Instant::now() < deadline, "the node has fewer connections than before");
    }
    asking
}

/// A node behind a relay that listens for changes and has an agent in its cache.
async fn node_behind_a_relay() -> (Server, Relay, Agent, Client) {
    const LISTENERS: &str = "SELECT COUNT(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND (query LIKE 'LISTEN%' OR query LIKE '%heartbeat')";
    let server = Server::start(Database::postgres().await).await;
    let (relay, db) = Relay::in_front_of(&server.db).await;
    let other = Client::new(start(open(&db, &server.clock, &[]).await).await);
    let agent = server.agent("agent", &["agents:read"]).await;
    while server.db.count(LISTENERS).await < 2 {}
    let elsewhere = other.with_token(agent.client.token());
    elsewhere.get("/capabilities").await.expect(200);
    (server, relay, agent, elsewhere)
}

/// Waits until a change on another node has arrived.
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

/// Nodes write the usage of keys with a delay, so a later write may contain an earlier use.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_late_write_of_key_usage_does_not_replace_a_newer_use() {
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

/// A token that has expired by one clock may be valid by another.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_with_a_fast_clock_keeps_revocations_for_the_others() {
    const REVOKED: &str = "SELECT COUNT(*) FROM revoked_tokens";
    /// The lifetime of a token, in seconds.
    const LIFE: u64 = 30 * 60;
    const DAY: Duration = Duration::from_hours(24);
    let server = Server::start(Database::postgres().await).await;
    let agent = server.agent("agent", &["agents:read"]).await;
    post_as_client(&server, &agent, "/oauth/revoke", &[("token", agent.client.token())]).await.expect(200);
    server.clock.advance(Duration::from_secs(LIFE - 5));
    let ahead = TestClock::new();
    ahead.advance(DAY + Duration::from_secs(LIFE + 5));
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
async fn concurrent_writes_on_several_nodes_form_one_chain() {
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
async fn nodes_that_start_together_create_one_administrator_and_one_signing_key() {
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

/// A newer version migrates tables for which nodes of an older version have prepared statements.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_keeps_serving_while_a_newer_version_migrates() {
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
