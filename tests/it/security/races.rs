//! Many at once do what one would.

use futures_util::future::{join, join_all};
use serde_json::json;

use crate::{
    both,
    support::{Answer, Database, Server},
};

both!(
    of_many_rotations_of_one_key_one_happens,
    of_many_grants_of_one_capability_one_happens,
    of_many_registrations_of_one_name_one_happens,
    what_was_loaded_during_a_suspension_is_not_kept,
);

const MANY: usize = 50;

fn with_status(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

async fn of_many_rotations_of_one_key_one_happens(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("rotated", &[]).await;
    let keys = format!("/agents/{}/keys", agent.id);
    let rotate = format!("{keys}/{}/rotate", agent.key_id);
    let answers = join_all((0..MANY).map(|_| server.admin.post(&rotate, json!({})))).await;
    assert_eq!((with_status(&answers, 200), with_status(&answers, 400)), (1, MANY - 1));
    assert_eq!(server.admin.get(&keys).await.expect(200).as_array().unwrap().len(), 2);
    assert_eq!(server.audited("key.rotated").await.len(), 1);
}

async fn of_many_grants_of_one_capability_one_happens(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("granted", &[]).await;
    let granted_before = server.audited("capability.granted").await.len();
    let grants = format!("/agents/{}/capabilities", agent.id);
    let body = json!({ "capability_id": server.capability("agents:read").await });
    let answers = join_all((0..MANY).map(|_| server.admin.post(&grants, body.clone()))).await;
    assert_eq!((with_status(&answers, 201), with_status(&answers, 409)), (1, MANY - 1));
    assert_eq!(server.admin.get(&grants).await.expect(200).as_array().unwrap().len(), 1);
    assert_eq!(server.audited("capability.granted").await.len(), granted_before + 1);
}

async fn of_many_registrations_of_one_name_one_happens(db: Database) {
    let server = Server::start(db).await;
    let body = json!({ "name": "only", "owner": "o" });
    let answers = join_all((0..MANY).map(|_| server.admin.post("/agents", body.clone()))).await;
    assert_eq!((with_status(&answers, 201), with_status(&answers, 409)), (1, MANY - 1));
    assert_eq!(server.audited("agent.created").await.len(), 2, "the administrator and this one");
}

/// The first use of a key loads all about its agent, perhaps as it was before a suspension that is answered meanwhile.
async fn what_was_loaded_during_a_suspension_is_not_kept(db: Database) {
    let server = Server::start(db).await;
    for round in 0..MANY {
        let agent = server.agent(&format!("agent-{round}"), &[]).await;
        let fresh = server.admin.post_empty(&format!("/agents/{}/keys", agent.id)).await.expect(201);
        let fresh = fresh["raw_key"].as_str().unwrap();
        let (anybody, suspend) = (server.anybody(), format!("/agents/{}/suspend", agent.id));
        let uses = join_all((0..4).map(|_| anybody.exchange(fresh)));
        join(uses, server.admin.post(&suspend, json!({}))).await.1.expect(200);
        assert_eq!(anybody.exchange(fresh).await.status, 403, "round {round}");
    }
}
