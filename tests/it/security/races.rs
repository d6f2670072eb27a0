//! Concurrent requests of which exactly one may succeed.

use futures_util::future::{join, join_all};
use serde_json::json;

use crate::{
    both,
    support::{Database, Response, Server},
};

both!(
    concurrent_rotations_of_a_key_succeed_once,
    concurrent_grants_of_a_capability_succeed_once,
    concurrent_registrations_of_a_name_succeed_once,
    state_loaded_during_a_suspension_is_not_cached,
);

const MANY: usize = 50;

fn with_status(responses: &[Response], status: u16) -> usize {
    responses.iter().filter(|response| response.status == status).count()
}

async fn concurrent_rotations_of_a_key_succeed_once(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("rotated", &[]).await;
    let keys = format!("/agents/{}/keys", agent.id);
    let rotate = format!("{keys}/{}/rotate", agent.key_id);
    let responses = join_all((0..MANY).map(|_| server.admin.post(&rotate, json!({})))).await;
    assert_eq!((with_status(&responses, 200), with_status(&responses, 400)), (1, MANY - 1));
    assert_eq!(server.admin.get(&keys).await.expect(200).as_array().unwrap().len(), 2);
    assert_eq!(server.audited("key.rotated").await.len(), 1);
}

async fn concurrent_grants_of_a_capability_succeed_once(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("granted", &[]).await;
    let granted_before = server.audited("capability.granted").await.len();
    let grants = format!("/agents/{}/capabilities", agent.id);
    let body = json!({ "capability_id": server.capability("agents:read").await });
    let responses = join_all((0..MANY).map(|_| server.admin.post(&grants, body.clone()))).await;
    assert_eq!((with_status(&responses, 201), with_status(&responses, 409)), (1, MANY - 1));
    assert_eq!(server.admin.get(&grants).await.expect(200).as_array().unwrap().len(), 1);
    assert_eq!(server.audited("capability.granted").await.len(), granted_before + 1);
}

async fn concurrent_registrations_of_a_name_succeed_once(db: Database) {
    let server = Server::start(db).await;
    let body = json!({ "name": "only", "owner": "o" });
    let responses = join_all((0..MANY).map(|_| server.admin.post("/agents", body.clone()))).await;
    assert_eq!((with_status(&responses, 201), with_status(&responses, 409)), (1, MANY - 1));
    assert_eq!(server.audited("agent.created").await.len(), 2, "the administrator and one agent");
}

/// The first use of a key loads its agent, possibly in its state before a concurrent suspension.
async fn state_loaded_during_a_suspension_is_not_cached(db: Database) {
    let server = Server::start(db).await;
    for round in 0..MANY {
        let agent = server.agent(&format!("agent-{round}"), &[]).await;
        let fresh = server.admin.post_empty(&format!("/agents/{}/keys", agent.id)).await.expect(201);
        let fresh = fresh["raw_key"].as_str().unwrap();
        let (anonymous, suspend) = (server.anonymous(), format!("/agents/{}/suspend", agent.id));
        let uses = join_all((0..4).map(|_| anonymous.exchange(fresh)));
        join(uses, server.admin.post(&suspend, json!({}))).await.1.expect(200);
        assert_eq!(anonymous.exchange(fresh).await.status, 403, "round {round}");
    }
}
