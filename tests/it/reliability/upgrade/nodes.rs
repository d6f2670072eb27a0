//! Several nodes on one PostgreSQL during an upgrade.

use reqwest::StatusCode;
use serde_json::json;

use super::{BEFORE_THE_INDEX, BEFORE_THE_INVITATIONS, killed::Hold};
use crate::support::{Aims, Database};

/// Ends the statements of nodes that wait for the one that migrates, as their time limit does after 10 seconds.
const END_WAITS: &str = "SELECT COUNT(pg_cancel_backend(pid)) FROM pg_stat_activity \
    WHERE datname = current_database() AND wait_event = 'advisory'";

/// Two nodes of a newer version start while one of the older version serves. One migrates and is killed, the other takes
/// over.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn one_node_migrates_and_others_wait() {
    let db = Database::postgres().await;
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let older = aims.serve().await;
    let admin = older.client().login(&key).await;
    db.execute(BEFORE_THE_INVITATIONS).await;
    let hold = Hold::at(20, &db).await;
    let migrating = aims.launch();
    hold.until_reached(&migrating, &db, 19).await;
    let (address, client) = free_address();
    let waiting = aims.with("LISTEN_ADDR", &address).launch();
    waiting.logs("waiting for another node, which migrates the database").await;

    admin.post("/agents", json!({ "name": "during", "owner": "o" })).await.expect(201);
    admin.get("/agents").await.expect(200);
    for (path, status) in [("livez", 200), ("readyz", 503)] {
        let early = client.get(format!("http://{address}/{path}")).send().await.unwrap();
        assert_eq!(early.status(), status, "{path} of a node that waits");
    }
    for _ in 0..2 {
        while db.count(END_WAITS).await == 0 {}
    }
    migrating.kill().await;
    hold.release(&db).await;

    let newer = waiting.serving().await;
    assert!(newer.log().contains("migrated the database"), "{}", newer.log());
    newer.client().login(&key).await.get("/agents").await.expect(200);
    admin.post("/agents", json!({ "name": "after", "owner": "o" })).await.expect(201);
    assert_eq!(newer.stop().await.code, Some(0));
    assert_eq!(older.stop().await.code, Some(0));
    let verified = aims.run(&["audit", "verify", "--json"]).await.json();
    assert_eq!(verified["valid"], true, "{verified}");
}

/// The other node's migration may be one that this version does not know.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_that_waited_for_a_newer_version_does_not_start() {
    let db = Database::postgres().await;
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    db.execute(BEFORE_THE_INDEX).await;
    let lock = "BEGIN; SELECT pg_advisory_xact_lock(hashtext('aims_migrations'))";
    let mut newer = <sqlx::PgConnection as sqlx::Connection>::connect(&db.url).await.unwrap();
    sqlx::Executor::execute(&mut newer, sqlx::raw_sql(lock)).await.unwrap();
    let older = aims.launch();
    older.logs("waiting for another node").await;
    let migrate = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (9999, 'later', TRUE, '', 0); COMMIT";
    sqlx::Executor::execute(&mut newer, sqlx::raw_sql(migrate)).await.unwrap();
    let exit = older.wait().await;
    exit.fails_with("the database has schema 9999, this version of AIMS knows up to ");
    assert_eq!(db.count("SELECT COUNT(*) FROM _sqlx_migrations WHERE version = 21").await, 0);
}

/// A node that has migrated closes the connections of nodes that were prepared for the older schema. A node that starts
/// then must not lose its own.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_connects_once_no_other_one_migrates() {
    const CONNECTED: &str =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'aims'";
    let db = Database::postgres().await;
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let mut migrating = <sqlx::PgConnection as sqlx::Connection>::connect(&db.url).await.unwrap();
    let lock = "SELECT pg_advisory_lock(hashtext('aims_migrations'))";
    sqlx::Executor::execute(&mut migrating, lock).await.unwrap();
    let node = aims.launch();
    node.logs("waiting for another node").await;
    assert_eq!(db.count(CONNECTED).await, 0);
    let unlock = "SELECT pg_advisory_unlock(hashtext('aims_migrations'))";
    sqlx::Executor::execute(&mut migrating, unlock).await.unwrap();
    let node = node.serving().await;
    node.client().login(&key).await.get("/agents").await.expect(200);
    assert_eq!(node.stop().await.code, Some(0));
}

/// Returns an address that nobody listens on, and a client.
fn free_address() -> (String, reqwest::Client) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap().to_string(), reqwest::Client::builder().no_proxy().build().unwrap())
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn nodes_that_start_together_on_an_older_database_all_serve() {
    let db = Database::postgres().await;
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    db.execute(BEFORE_THE_INDEX).await;
    let nodes = futures_util::future::join_all((0..3).map(|_| aims.serve())).await;
    for node in &nodes {
        assert_eq!(node.client().exchange(&key).await.status, StatusCode::OK);
    }
    let migrated = nodes.iter().filter(|node| node.log().contains("migrated the database")).count();
    assert_eq!(migrated, 1);
    for node in nodes {
        assert_eq!(node.stop().await.code, Some(0));
    }
}
