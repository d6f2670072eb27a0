//! `/livez` and `/readyz` of a running service.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aims::service::{audit, health};
use futures_util::{future::join_all, poll};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{
    both,
    support::{Aims, Client, Database, Relay, Response, Server},
};

both!(
    a_healthy_node_is_ready_and_leaves_no_record,
    an_audit_log_that_rejects_records_is_named,
    another_schema_is_named,
    a_foreign_master_key_is_named,
    many_probes_cost_as_much_as_one,
    probes_are_exempt_from_limits,
    a_node_that_shuts_down_is_not_ready,
);

/// How long the tests wait for an event that must happen soon.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Returns the status of the node and of each check.
fn statuses(response: &Response) -> (String, BTreeMap<String, String>) {
    let body = response.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = body["checks"].as_array().unwrap().iter();
    (text(&body["status"]), checks.map(|check| (text(&check["name"]), text(&check["status"]))).collect())
}

/// Returns the names of the failing checks.
fn failing(response: &Response) -> Vec<String> {
    let (status, checks) = statuses(response);
    let failing: Vec<_> = checks.into_iter().filter(|(_, status)| status == "failing").map(|(name, _)| name).collect();
    assert_eq!(
        (status.as_str(), response.status.as_u16()),
        if failing.is_empty() { ("ok", 200) } else { ("failing", 503) }
    );
    failing
}

/// Asks until the node is ready, or is not ready, because a result is shared for a second.
async fn until_ready(client: &Client, is_ready: bool) -> Response {
    let asking = async {
        loop {
            let response = client.get("/readyz").await;
            if (response.status == 200) == is_ready {
                return response;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, asking).await.unwrap_or_else(|_| panic!("the node must become ready: {is_ready}"))
}

async fn a_healthy_node_is_ready_and_leaves_no_record(db: Database) {
    const LOG: &str = "SELECT COUNT(*) * 1000000 + MAX(seq) FROM audit_log";
    const HEAD: &str = "SELECT seq FROM audit_head";
    let server = Server::start(db).await;
    let before = (server.db.count(LOG).await, server.db.count(HEAD).await);
    let anonymous = server.anonymous();
    for mount in ["", "/api/v1"] {
        assert_eq!(anonymous.get(&format!("{mount}/livez")).await.expect(200), json!({ "status": "ok" }));
        let ready = anonymous.get(&format!("{mount}/readyz")).await;
        assert!(failing(&ready).is_empty(), "{ready:?}");
        let expected = ["audit_log", "master_key", "migrations"].map(|name| (name.to_owned(), "ok".to_owned()));
        assert_eq!(statuses(&ready).1, BTreeMap::from(expected));
        assert_eq!(ready.header("cache-control"), Some("no-store"));
        assert!(ready.header("x-request-id").is_some());
    }
    assert_eq!((server.db.count(LOG).await, server.db.count(HEAD).await), before);
    let agent = json!({ "name": "after", "owner": "o" });
    server.admin.post("/agents", agent).await.expect(201);
    assert_eq!(server.db.count(HEAD).await, before.1 + 1);
    let verified = audit::verify(server.services.store.db()).await.unwrap();
    assert!(verified.broken.is_none(), "{verified:?}");
}

async fn an_audit_log_that_rejects_records_is_named(db: Database) {
    let server = Server::start(db).await;
    server.db.break_audit().await;
    let response = until_ready(&server.anonymous(), false).await;
    assert_eq!(failing(&response), ["audit_log"]);
    assert!(response.text.contains("broken"), "a client on this machine must learn the reason: {response:?}");
    // Through a proxy on this machine, the whole network would learn it.
    for header in ["X-Forwarded-For", "Forwarded", "Via"] {
        let request = server.anonymous().request(Method::GET, "/readyz").header(header, "203.0.113.1");
        let response = server.anonymous().send(request).await;
        assert_eq!(failing(&response), ["audit_log"]);
        assert!(!response.text.contains("broken") && !response.text.contains("reason"), "{response:?}");
    }
    server.anonymous().get("/livez").await.expect(200);
    server.anonymous().get("/_health").await.expect(200);
    server.db.repair_audit().await;
    until_ready(&server.anonymous(), true).await;
    server.admin.post("/agents", json!({ "name": "after", "owner": "o" })).await.expect(201);
}

async fn another_schema_is_named(db: Database) {
    let server = Server::start(db).await;
    let (checksum, truth) = if server.db.is_sqlite() { ("x'00'", "1") } else { ("'\\x00'", "TRUE") };
    let newer = format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', {truth}, {checksum}, 0)"
    );
    server.db.execute(&newer).await;
    let response = until_ready(&server.anonymous(), false).await;
    assert_eq!(failing(&response), ["migrations"]);
    assert!(response.text.contains("migration 9999"), "{response:?}");
    server.db.execute("DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    until_ready(&server.anonymous(), true).await;
    server.db.execute("DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)").await;
    assert_eq!(failing(&until_ready(&server.anonymous(), false).await), ["migrations"]);
}

async fn a_foreign_master_key_is_named(db: Database) {
    let server = Server::start(db).await;
    let sealed = if server.db.is_sqlite() { "zeroblob(100)" } else { "decode(repeat('00', 100), 'hex')" };
    server
        .db
        .execute(&format!("UPDATE signing_keys SET sealed_private_key = {sealed} WHERE activated_at IS NULL"))
        .await;
    let response = until_ready(&server.anonymous(), false).await;
    assert_eq!(failing(&response), ["master_key"]);
    assert!(!response.text.contains("0f0f"), "{response:?}");
    // What was opened at the start still works.
    server.anonymous().login(&server.admin_key).await.get("/agents").await.expect(200);
}

async fn many_probes_cost_as_much_as_one(db: Database) {
    let server = Server::start(db).await;
    let counting = if server.db.is_sqlite() {
        "CREATE TABLE rehearsals (n INTEGER); CREATE TRIGGER counting BEFORE INSERT ON audit_log \
         WHEN NEW.action = 'audit.rehearsed' BEGIN INSERT INTO rehearsals VALUES (1); END"
    } else {
        "CREATE TABLE rehearsals (n INTEGER); \
         CREATE FUNCTION counting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO rehearsals VALUES (1); RETURN NEW; END $$; \
         CREATE TRIGGER counting BEFORE INSERT ON audit_log FOR EACH ROW \
         WHEN (NEW.action = 'audit.rehearsed') EXECUTE FUNCTION counting()"
    };
    server.db.execute(counting).await;
    let began = Instant::now();
    let probes = (0..300).map(|_| {
        let client = server.anonymous();
        async move { client.get("/readyz").await.expect(200) }
    });
    join_all(probes).await;
    // Clients that do not wait for the response do not start a check each, either.
    let address = server.url.strip_prefix("http://").unwrap();
    for _ in 0..100 {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    }
    until_ready(&server.anonymous(), true).await;
    let most = 2 + i64::try_from(began.elapsed().as_secs()).unwrap();
    let rehearsals = server.db.count("SELECT COUNT(*) FROM rehearsals").await;
    assert!((1..=most).contains(&rehearsals), "{rehearsals} checks for 401 probes, expected up to {most}");
}

async fn probes_are_exempt_from_limits(db: Database) {
    let limits = [("RATE_LIMIT_API_PER_MINUTE", "2"), ("RATE_LIMIT_AUTH_PER_MINUTE", "2"), ("MAX_REQUESTS", "1")];
    let server = Server::start_with(db, &limits).await;
    // A request that is in progress until its body ends.
    let address = server.url.strip_prefix("http://").unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    let head = "POST /oauth/token HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 65536\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&vec![b'a'; 32 * 1_024]).await.unwrap();
    let shed = async {
        while server.anonymous().get("/openapi.json").await.status != 503 {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, shed).await.expect("the node must be at its limit");
    for _ in 0..10 {
        for path in ["/livez", "/readyz", "/api/v1/readyz", "/_health"] {
            let response = server.anonymous().get(path).await;
            assert_eq!((response.header("ratelimit"), response.status.as_u16()), (None, 200), "{path}: {response:?}");
        }
    }
    // Kubernetes names the address, and HAProxy no host at all.
    for probe in
        ["GET /readyz HTTP/1.1\r\nHost: 10.0.0.5:8000\r\nConnection: close\r\n\r\n", "GET /readyz HTTP/1.0\r\n\r\n"]
    {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(probe.as_bytes()).await.unwrap();
        let mut response = String::new();
        connection.read_to_string(&mut response).await.unwrap();
        assert!(response.contains(" 200 OK"), "{probe:?}: {response}");
    }
}

async fn a_node_that_shuts_down_is_not_ready(db: Database) {
    let server = Server::start(db).await;
    server.services.ending.send_replace(true);
    assert_eq!(failing(&server.anonymous().get("/readyz").await), ["shutdown"]);
    server.anonymous().get("/livez").await.expect(200);
}

#[tokio::test]
async fn a_full_disk_is_named() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let process = aims.with_max_file_size(2_048).serve().await;
    let admin = process.client().login(&key).await;
    assert!(failing(&until_ready(&process.client(), true).await).is_empty());
    let filling = async {
        // The write-ahead log keeps room for smaller changes.
        for n in 0.. {
            let body = json!({ "name": format!("a{n}"), "owner": "o", "description": "x".repeat(9_000) });
            admin.post("/agents", body).await;
            if process.client().get("/readyz").await.status == 503 {
                return;
            }
        }
    };
    timeout(Duration::from_mins(1), filling).await.expect("a full disk must be noticed");
    let response = process.client().get("/readyz").await;
    assert_eq!(failing(&response), ["audit_log"]);
    process.client().get("/livez").await.expect(200);
    process.logs("not ready").await;
    let exit = Aims::new(&db).run(&["healthcheck", "--url", &process.url]).await;
    exit.fails_with("not ready: audit_log");
    assert_eq!(process.stop().await.code, Some(0));
    aims.run(&["audit", "verify", "--json"]).await.json();
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_silent_database_is_named_in_time() {
    let db = Database::postgres().await;
    let (relay, relayed) = Relay::in_front_of(&db).await;
    let server = Server::start(relayed).await;
    until_ready(&server.anonymous(), true).await;
    relay.silence();
    let began = Instant::now();
    let response = until_ready(&server.anonymous(), false).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(failing(&response), ["audit_log", "master_key", "migrations"]);
    assert!(response.text.contains("timed out"), "{response:?}");
    server.anonymous().get("/livez").await.expect(200);
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_migration_on_another_node_is_named() {
    use sqlx::{Connection, Executor, PgConnection};
    let server = Server::start(Database::postgres().await).await;
    until_ready(&server.anonymous(), true).await;
    let mut other = PgConnection::connect(&server.db.url).await.unwrap();
    other.execute("SELECT pg_advisory_lock(hashtext('aims_migrations'))").await.unwrap();
    let response = until_ready(&server.anonymous(), false).await;
    assert_eq!(failing(&response), ["migrations"]);
    assert!(response.text.contains("another node is migrating"), "{response:?}");
    other.close().await.unwrap();
    until_ready(&server.anonymous(), true).await;
}

/// Otherwise the watchdog would be fed while the writer is stuck.
#[tokio::test]
async fn a_full_queue_is_not_an_answer_of_the_writer() {
    let server = Server::start(Database::sqlite()).await;
    let mut other = SqliteConnection::connect(&server.db.sqlite_url()).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..5_000 {
        let services = server.services.clone();
        waiting.spawn(async move { health::rehearse_audit(&services).await });
    }
    let rejected = waiting.join_next().await.unwrap().unwrap();
    assert!(rejected.unwrap_err().with_causes().contains("too much work"));
    let mut answer = std::pin::pin!(health::rehearse_audit_in_turn(&server.services));
    assert!(poll!(&mut answer).is_pending());
    other.execute("ROLLBACK").await.unwrap();
    answer.await.unwrap();
}
