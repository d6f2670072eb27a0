//! Suspension, revocation and removal of capabilities take effect on the next request, whatever the token says.

use serde_json::json;

use crate::{
    both,
    support::{Agent, Database, Server},
};

both!(
    suspension_takes_effect_immediately_and_ends_old_tokens,
    revoking_an_agent_takes_effect_immediately,
    deleting_an_agent_takes_effect_immediately,
    revoking_a_capability_takes_effect_immediately,
    granted_capability_requires_a_new_token,
    revoking_a_key_ends_its_tokens_immediately,
    rotating_a_key_without_grace_ends_its_tokens_immediately,
);

const READ: &str = "/capabilities";

async fn reader(server: &Server) -> Agent {
    let reader = server.agent("reader", &["agents:read"]).await;
    // A first request, so that the agent is in every cache.
    reader.client.get(READ).await.expect(200);
    reader
}

async fn assert_rejected(agent: &Agent) {
    agent.client.get(READ).await.refused(401, "Invalid or expired token");
}

async fn suspension_takes_effect_immediately_and_ends_old_tokens(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    let path = format!("/agents/{}", reader.id);
    server.admin.post_empty(&format!("{path}/suspend")).await.expect(200);
    assert_rejected(&reader).await;
    reader.client.exchange(&reader.raw_key).await.refused(403, "Agent is suspended");
    server.admin.post_empty(&format!("{path}/reactivate")).await.expect(200);
    assert_rejected(&reader).await;
    reader.client.login(&reader.raw_key).await.get(READ).await.expect(200);
    assert_rejected(&reader).await;
}

async fn revoking_an_agent_takes_effect_immediately(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    server.admin.post_empty(&format!("/agents/{}/revoke", reader.id)).await.expect(200);
    assert_rejected(&reader).await;
    reader.client.exchange(&reader.raw_key).await.refused(401, "API key has been revoked");
}

async fn deleting_an_agent_takes_effect_immediately(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    server.admin.delete(&format!("/agents/{}", reader.id)).await.expect(204);
    assert_rejected(&reader).await;
    reader.client.exchange(&reader.raw_key).await.refused(401, "Invalid API key");
}

async fn revoking_a_capability_takes_effect_immediately(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    let capability = server.capability("agents:read").await;
    server.admin.delete(&format!("/agents/{}/capabilities/{capability}", reader.id)).await.expect(204);
    reader.client.get(READ).await.refused(403, "Missing required capability: agents:read");
    // Once it is granted again, the token that still names it can use it.
    server.grant(&reader.id, "agents:read").await;
    reader.client.get(READ).await.expect(200);
}

async fn granted_capability_requires_a_new_token(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    server.grant(&reader.id, "admin:*").await;
    reader.client.get("/audit").await.refused(403, "Missing required capability: audit:read");
    reader.client.login(&reader.raw_key).await.get("/audit").await.expect(200);
}

async fn revoking_a_key_ends_its_tokens_immediately(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    let keys = format!("/agents/{}/keys", reader.id);
    let other = server.admin.post(&keys, json!({})).await.expect(201);
    let with_other = reader.client.login(other["raw_key"].as_str().unwrap()).await;
    server.admin.delete(&format!("{keys}/{}", reader.key_id)).await.expect(204);
    assert_rejected(&reader).await;
    reader.client.exchange(&reader.raw_key).await.refused(401, "API key has been revoked");
    with_other.get(READ).await.expect(200);
}

async fn rotating_a_key_without_grace_ends_its_tokens_immediately(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    let rotate = format!("/agents/{}/keys/{}/rotate", reader.id, reader.key_id);
    let rotated = server.admin.post(&rotate, json!({ "grace_hours": 0 })).await.expect(200);
    assert_rejected(&reader).await;
    let refusal = "Rotated API key has expired past grace period";
    reader.client.exchange(&reader.raw_key).await.refused(401, refusal);
    reader.client.login(rotated["new_key"]["raw_key"].as_str().unwrap()).await.get(READ).await.expect(200);
}
