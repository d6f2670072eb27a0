//! The audit chain is continuous, whichever process appends to it.

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
    records_continue_after_another_process,
    records_continue_after_a_restored_backup,
    changes_fail_without_the_end_of_the_chain,
    batches_of_every_size_form_one_chain,
);

const ISSUED: &str = "SELECT COUNT(*) FROM audit_log WHERE action = 'auth.token_issued'";

async fn issue(app: &App, key: &str, tokens: usize) {
    let origin = Origin::default();
    let issued = (0..tokens).map(|_| exchange(app.services(), &origin, key));
    assert!(join_all(issued).await.into_iter().all(|token| token.is_ok()));
}

/// Each process caches the end of the chain, and the other moves it.
async fn records_continue_after_another_process(db: Database) {
    let server = Server::start(db).await;
    let command = open_beside(&server.db, &server.clock, &[]).await;
    let before = server.db.count(ISSUED).await;
    for round in 0..5 {
        server.anonymous().login(&server.admin_key).await;
        server.anonymous().login(&server.admin_key).await;
        issue(&command, &server.admin_key, 2).await;
        let agent = json!({ "name": format!("agent-{round}"), "owner": "tests" });
        server.admin.post("/agents", agent).await.expect(201);
        issue(&command, &server.admin_key, 1).await;
    }
    let at_once = (0..20).map(|_| async {
        server.anonymous().login(&server.admin_key).await;
        issue(&command, &server.admin_key, 1).await;
    });
    join_all(at_once).await;
    assert_eq!(server.db.count(ISSUED).await, before + 5 * 5 + 20 * 2);
    assert!(verify(server.services.store.db()).await.unwrap().broken.is_none());
}

/// A backup was restored under the running service, and another process wrote the same number of different records
/// first.
async fn records_continue_after_a_restored_backup(db: Database) {
    const SET_BACK: &str = "DELETE FROM audit_log WHERE seq = (SELECT MAX(seq) FROM audit_log); UPDATE audit_head \
        SET seq = seq - 1, hash = (SELECT hash FROM audit_log WHERE seq = audit_head.seq - 1)";
    let server = Server::start(db).await;
    let command = open_beside(&server.db, &server.clock, &[]).await;
    server.anonymous().login(&server.admin_key).await;
    server.db.execute(SET_BACK).await;
    issue(&command, &server.admin_key, 1).await;
    server.anonymous().login(&server.admin_key).await;
    assert!(verify(server.services.store.db()).await.unwrap().broken.is_none());
}

async fn changes_fail_without_the_end_of_the_chain(db: Database) {
    let server = Server::start(db).await;
    server.db.execute("DELETE FROM audit_head").await;
    for _ in 0..3 {
        assert_eq!(server.anonymous().exchange(&server.admin_key).await.status, 503);
    }
}

/// Batches are written with statements of a few fixed sizes, which few batches match exactly.
async fn batches_of_every_size_form_one_chain(db: Database) {
    let server = Server::start(db).await;
    let command = open_beside(&server.db, &server.clock, &[]).await;
    let mut expected = server.db.count(ISSUED).await;
    for tokens in (1..20).chain([31, 33, 63, 65, 127, 129, 255, 256, 257, 300]) {
        issue(&command, &server.admin_key, tokens).await;
        expected += i64::try_from(tokens).unwrap();
    }
    assert_eq!(server.db.count(ISSUED).await, expected);
    assert!(verify(server.services.store.db()).await.unwrap().broken.is_none());
}
