//! The time between the start of the process and the service.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tokio::time::timeout;

use crate::support::{Aims, Client, Database};

/// A node that waits for another one to migrate responds to probes, and serves what waited.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_that_waits_for_a_migration_is_alive_and_not_ready() {
    let (db, migrating) = migrating().await;
    // An address that no other test uses, so that its port stays free.
    let listener = std::net::TcpListener::bind("127.71.3.9:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let launched = Aims::new(&db).with("LISTEN_ADDR", &address).launch();
    let client = Client::new(format!("http://{address}"));
    let listening = async {
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_mins(1), listening).await.expect("the service must listen");

    client.get("/livez").await.expect(200);
    client.get("/api/v1/livez").await.expect(200);
    let response = client.get("/readyz").await;
    let body = response.expect(503);
    assert_eq!((&body["status"], &body["checks"][0]["name"]), (&"failing".into(), &"database".into()), "{body}");
    assert_eq!(body["checks"][0]["reason"], "the service is opening the database");
    let (health, agents) = tokio::join!(client.get("/_health"), client.get("/agents"));
    assert_eq!(health.expect(200), serde_json::json!({ "status": "ok" }));
    assert_eq!((agents.status.as_u16(), agents.header("retry-after")), (503, Some("1")), "{agents:?}");
    assert!(agents.header("x-request-id").is_some() && agents.header("x-content-type-options").is_some());
    // The probes keep their answer while other requests wait.
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.get("/console/nothing").await }
    });
    client.get("/readyz").await.expect(503);
    migrating.close().await.unwrap();
    let process = launched.serving().await;
    // It reached the service itself, or waited in vain because the migration took long.
    assert!([303, 404, 503].contains(&waiting.await.unwrap().status.as_u16()));
    client.get("/readyz").await.expect(200);
    client.get("/agents").await.expect(401);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_node_that_waits_for_a_migration_can_be_stopped() {
    let (db, migrating) = migrating().await;
    let process = Aims::new(&db).launch().into_process();
    // The database knows who waits.
    let waiting = async {
        const WAITING: &str = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        while db.count(WAITING).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_mins(1), waiting).await.expect("the node must wait");
    let exit = process.stop().await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stderr.contains("stopped while opening the database"), "{exit:?}");
    migrating.close().await.unwrap();
}

/// Returns a database that another node is migrating, as long as the connection lasts.
async fn migrating() -> (Database, PgConnection) {
    let db = Database::postgres().await;
    let mut connection = PgConnection::connect(&db.url).await.unwrap();
    connection.execute("SELECT pg_advisory_lock(hashtext('aims_migrations'))").await.unwrap();
    (db, connection)
}
