//! What is taken away is gone with the next request, whatever a token says.

use serde_json::json;

use crate::{
    both,
    support::{Agent, Database, Server},
};

both!(
    a_suspended_agent_is_out_at_once_and_its_old_tokens_for_good,
    a_revoked_agent_is_out_at_once,
    a_deleted_agent_is_out_at_once,
    a_capability_that_was_taken_is_gone_at_once,
    a_capability_that_was_given_needs_a_new_token,
    a_revoked_key_takes_its_tokens_along,
    a_key_rotated_without_grace_takes_its_tokens_along,
);

const READ: &str = "/capabilities";

async fn reader(server: &Server) -> Agent {
    let reader = server.agent("reader", &["agents:read"]).await;
    // Asked before, so that whatever is remembered of the agent is remembered now.
    reader.client.get(READ).await.expect(200);
    reader
}

async fn out(agent: &Agent) {
    agent.client.get(READ).await.refused(401, "Invalid or expired token");
}

async fn a_suspended_agent_is_out_at_once_and_its_old_tokens_for_good(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    let path = format!("/agents/{}", reader.id);
    server.admin.post_empty(&format!("{path}/suspend")).await.expect(200);
    out(&reader).await;
    reader.client.exchange(&reader.raw_key).await.refused(403, "Agent is suspended");
    server.admin.post_empty(&format!("{path}/reactivate")).await.expect(200);
    out(&reader).await;
    reader.client.login(&reader.raw_key).await.get(READ).await.expect(200);
    out(&reader).await;
}

async fn a_revoked_agent_is_out_at_once(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    server.admin.post_empty(&format!("/agents/{}/revoke", reader.id)).await.expect(200);
    out(&reader).await;
    reader.client.exchange(&reader.raw_key).await.refused(401, "API key has been revoked");
}

async fn a_deleted_agent_is_out_at_once(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    server.admin.delete(&format!("/agents/{}", reader.id)).await.expect(204);
    out(&reader).await;
    reader.client.exchange(&reader.raw_key).await.refused(401, "Invalid API key");
}

async fn a_capability_that_was_taken_is_gone_at_once(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    let capability = server.capability("agents:read").await;
    server.admin.delete(&format!("/agents/{}/capabilities/{capability}", reader.id)).await.expect(204);
    reader.client.get(READ).await.refused(403, "Missing required capability: agents:read");
    // Given again, the token that still names it allows it again.
    server.grant(&reader.id, "agents:read").await;
    reader.client.get(READ).await.expect(200);
}

async fn a_capability_that_was_given_needs_a_new_token(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    server.grant(&reader.id, "admin:*").await;
    reader.client.get("/audit").await.refused(403, "Missing required capability: audit:read");
    reader.client.login(&reader.raw_key).await.get("/audit").await.expect(200);
}

async fn a_revoked_key_takes_its_tokens_along(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    let keys = format!("/agents/{}/keys", reader.id);
    let other = server.admin.post(&keys, json!({})).await.expect(201);
    let with_other = reader.client.login(other["raw_key"].as_str().unwrap()).await;
    server.admin.delete(&format!("{keys}/{}", reader.key_id)).await.expect(204);
    out(&reader).await;
    reader.client.exchange(&reader.raw_key).await.refused(401, "API key has been revoked");
    with_other.get(READ).await.expect(200);
}

async fn a_key_rotated_without_grace_takes_its_tokens_along(db: Database) {
    let server = Server::start(db).await;
    let reader = reader(&server).await;
    let rotate = format!("/agents/{}/keys/{}/rotate", reader.id, reader.key_id);
    let rotated = server.admin.post(&rotate, json!({ "grace_hours": 0 })).await.expect(200);
    out(&reader).await;
    let refusal = "Rotated API key has expired past grace period";
    reader.client.exchange(&reader.raw_key).await.refused(401, refusal);
    reader.client.login(rotated["new_key"]["raw_key"].as_str().unwrap()).await.get(READ).await.expect(200);
}
