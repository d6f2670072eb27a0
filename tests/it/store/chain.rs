//! There is one audit chain, whichever process appends to it.

use aims::{
    app::App,
    service::{Origin, audit::verify, tokens::exchange},
};
use futures_util::future::join_all;
use serde_json::json;

use crate::{
    both,
    support::{Database, Server, open_beside},
};

both!(
    processes_append_to_the_same_chain,
    records_continue_a_chain_that_was_restored_from_a_backup,
    nothing_is_acknowledged_without_an_end_of_the_chain,
    batches_of_every_size_form_one_chain,
);

const ISSUED: &str = "SELECT COUNT(*) FROM audit_log WHERE action = 'auth.token_issued'";

async fn issue(app: &App, key: &str, tokens: usize) {
    let origin = Origin::default();
    let issued = (0..tokens).map(|_| exchange(app.services(), &origin, key));
    assert!(join_all(issued).await.into_iter().all(|token| token.is_ok()));
}

/// Each process caches the end of the chain, and the other one moves it.
async fn processes_append_to_the_same_chain(db: Database) {
    let server = Server::start(db).await;
    let beside = open_beside(&server.db, &server.clock, &[]).await;
    let before = server.db.count(ISSUED).await;
    for round in 0..5 {
        server.anonymous().login(&server.admin_key).await;
        server.anonymous().login(&server.admin_key).await;
        issue(&beside, &server.admin_key, 2).await;
        let agent = json!({ "name": format!("agent-{round}"), "owner": "tests" });
        server.admin.post("/agents", agent).await.expect(201);
        issue(&beside, &server.admin_key, 1).await;
    }
    let at_once = (0..20).map(|_| async {
        server.anonymous().login(&server.admin_key).await;
        issue(&beside, &server.admin_key, 1).await;
    });
    join_all(at_once).await;
    assert_eq!(server.db.count(ISSUED).await, before + 5 * 5 + 20 * 2);
    assert!(verify(server.services.store.db()).await.unwrap().broken.is_none());
}

/// A backup was restored under a running service, and another process appended other records, as many as the service
/// had appended since the backup.
async fn records_continue_a_chain_that_was_restored_from_a_backup(db: Database) {
    const SET_BACK: &str = "DELETE FROM audit_log WHERE seq = (SELECT MAX(seq) FROM audit_log); UPDATE audit_head \
        SET seq = seq - 1, hash = (SELECT hash FROM audit_log WHERE seq = audit_head.seq - 1)";
    let server = Server::start(db).await;
    let beside = open_beside(&server.db, &server.clock, &[]).await;
    server.anonymous().login(&server.admin_key).await;
    server.db.execute(SET_BACK).await;
    issue(&beside, &server.admin_key, 1).await;
    server.anonymous().login(&server.admin_key).await;
    assert!(verify(server.services.store.db()).await.unwrap().broken.is_none());
}

async fn nothing_is_acknowledged_without_an_end_of_the_chain(db: Database) {
    let server = Server::start(db).await;
    server.db.execute("DELETE FROM audit_head").await;
    for _ in 0..3 {
        assert_eq!(server.anonymous().exchange(&server.admin_key).await.status, 503);
    }
}

/// Records are inserted with statements of a few sizes, so most batches leave rows of the statement unused.
async fn batches_of_every_size_form_one_chain(db: Database) {
    let server = Server::start(db).await;
    let beside = open_beside(&server.db, &server.clock, &[]).await;
    let mut expected = server.db.count(ISSUED).await;
    for tokens in (1..20).chain([31, 33, 63, 65, 127, 129, 255, 256, 257, 300]) {
        issue(&beside, &server.admin_key, tokens).await;
        expected += i64::try_from(tokens).unwrap();
    }
    assert_eq!(server.db.count(ISSUED).await, expected);
    assert!(verify(server.services.store.db()).await.unwrap().broken.is_none());
}
