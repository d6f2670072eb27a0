//! Revocation of one token (RFC 7009) and of all tokens of an agent.

use std::time::Duration;

use aims::domain::Role;
use serde_json::json;

use super::{post, post_as_client, refused, request_token, token};
use crate::{
    both,
    support::{Database, Server, details},
};

both!(
    clients_can_revoke_their_own_tokens,
    clients_cannot_revoke_tokens_of_others,
    revoking_all_tokens_keeps_the_keys,
    expired_revocations_are_deleted,
    revocation_does_not_depend_on_counting_the_tokens,
    active_tokens_are_listed,
);

const PATH: &str = "/oauth/revoke";

async fn clients_can_revoke_their_own_tokens(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let (ended, kept) = (token(&server, &agent, &[]).await, token(&server, &agent, &[]).await);
    // Repeated, as by a client that got no response.
    for tokens_ended in [1, 0] {
        let response =
            post_as_client(&server, &agent, PATH, &[("token", &ended), ("token_type_hint", "refresh_token")]).await;
        assert_eq!(response.expect(200), json!({ "tokens_ended": tokens_ended }));
    }
    server.anonymous().with_token(&ended).get("/agents").await.refused(401, "Invalid or expired token");
    server.anonymous().with_token(&kept).get("/agents").await.expect(200);
    let records = server.audited("token.revoked").await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["resource_id"], super::claims(&ended)["jti"]);
    // Revoking an unknown token succeeds.
    for nonsense in ["x", "a.b.c", &agent.raw_key] {
        assert_eq!(post_as_client(&server, &agent, PATH, &[("token", nonsense)]).await.status, 200);
    }
    refused(&post_as_client(&server, &agent, PATH, &[]).await, 400, "invalid_request");
    // Tokens of `/auth/token` can be revoked, too.
    let old = agent.client.token().to_owned();
    post_as_client(&server, &agent, PATH, &[("token", &old)]).await;
    agent.client.get("/agents").await.refused(401, "Invalid or expired token");
    let server = server.restart(&[]).await;
    server.anonymous().with_token(&old).get("/agents").await.refused(401, "Invalid or expired token");
    server.anonymous().with_token(&kept).get("/agents").await.expect(200);
}

async fn clients_cannot_revoke_tokens_of_others(db: Database) {
    let server = Server::start(db).await;
    let (agent, other) = (server.agent("a", &["agents:read"]).await, server.agent("b", &["admin:*"]).await);
    let token = token(&server, &agent, &[]).await;
    refused(&post_as_client(&server, &other, PATH, &[("token", &token)]).await, 400, "unauthorized_client");
    let record = server.audited("authz.denied").await.remove(0);
    assert_eq!((&record["agent_id"], &record["success"]), (&json!(other.id), &json!(0)));
    assert_eq!((&record["resource_type"], &record["resource_id"]), (&json!("token"), &super::claims(&token)["jti"]));
    assert_eq!(details(&record)["reason"], "unauthorized_client");
    refused(&post(&server.anonymous(), PATH, &[("token", &token)]).await, 401, "invalid_client");
    // A bearer token does not authenticate a client.
    refused(&post(&server.anonymous().with_token(&token), PATH, &[("token", &token)]).await, 401, "invalid_client");
    server.anonymous().with_token(&token).get("/agents").await.expect(200);
}

async fn revoking_all_tokens_keeps_the_keys(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let tokens = [token(&server, &agent, &[]).await, agent.client.token().to_owned()];
    let response = server.admin.post_empty(&format!("/agents/{}/revoke-tokens", agent.id)).await.expect(200);
    assert_eq!(response, json!({ "tokens_ended": 2 }));
    for token in tokens {
        server.anonymous().with_token(&token).get("/agents").await.refused(401, "Invalid or expired token");
    }
    let fresh = request_token(&server, &agent, &[]).await.expect(200);
    server.anonymous().with_token(fresh["access_token"].as_str().unwrap()).get("/agents").await.expect(200);
    assert_eq!(server.audited("agent.tokens_revoked").await[0]["resource_id"], json!(agent.id));
}

async fn revocation_does_not_depend_on_counting_the_tokens(db: Database) {
    const ENDED: u32 = 2_000;
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let path = format!("/agents/{}", agent.id);
    let key = server.admin.post(&format!("{path}/keys"), json!({})).await.expect(201);
    server.anonymous().login(key["raw_key"].as_str().unwrap()).await;
    server.admin.delete(&format!("{path}/keys/{}", key["id"].as_str().unwrap())).await.expect(204);
    let browser = server.signed_in("zoe", Role::Operator).await;
    browser.get(&format!("/console{path}/delete")).await.expect(200).shows("1 active token");
    // As if the key had been used all day until it was revoked.
    let copies = format!(
        "INSERT INTO audit_log WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ENDED}) \
         SELECT (SELECT seq FROM audit_head) + n.i, id, at, actor, subject, action, resource_type, resource_id, details, ip, \
         success, request_id, prev_hash, hash FROM audit_log, n \
         WHERE seq = (SELECT MAX(seq) FROM audit_log WHERE action = 'auth.token_issued'); \
         UPDATE audit_head SET seq = seq + {ENDED}"
    );
    server.db.execute(&copies).await;
    let server = server.restart(&[]).await;
    let browser = server.signed_in("ada", Role::Operator).await;
    browser.get(&format!("/console{path}/delete")).await.expect(200).shows("0 or more active tokens");
    let client = server.anonymous().with_token(agent.client.token());
    client.get("/agents").await.expect(200);
    // The revocation succeeds even if the tokens cannot be counted.
    server.db.execute("ALTER TABLE delegated_tokens RENAME TO lost").await;
    server.admin.post_empty(&format!("{path}/revoke-tokens")).await.expect(200);
    client.get("/agents").await.refused(401, "Invalid or expired token");
}

async fn expired_revocations_are_deleted(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let token = token(&server, &agent, &[]).await;
    post_as_client(&server, &agent, PATH, &[("token", &token)]).await;
    assert_eq!(server.db.count("SELECT COUNT(*) FROM revoked_tokens").await, 1);
    // Kept for a day after the token has expired, because this clock may be ahead.
    server.clock.advance(Duration::from_hours(24));
    aims::service::people::sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM revoked_tokens").await, 1);
    server.clock.advance(Duration::from_mins(31));
    aims::service::people::sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM revoked_tokens").await, 0);
}

async fn active_tokens_are_listed(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let path = format!("/agents/{}/tokens", agent.id);
    let short = token(&server, &agent, &[("expires_in", "60")]).await;
    let (kept, ended) = (token(&server, &agent, &[]).await, token(&server, &agent, &[]).await);
    let listed = async |query: &str| server.admin.get(&format!("{path}{query}")).await;
    let identifiers = |tokens: &serde_json::Value| -> Vec<_> {
        tokens.as_array().unwrap().iter().map(|token| token["jti"].clone()).collect()
    };
    let jti = |token: &str| super::claims(token)["jti"].clone();
    let first = jti(agent.client.token());
    let all = listed("").await.expect(200);
    assert_eq!(identifiers(&all), [jti(&ended), jti(&kept), jti(&short), first.clone()]);
    assert_eq!((&all[0]["key_id"], &all[0]["aud"]), (&json!(agent.key_id), &super::claims(&ended)["aud"]));
    assert_eq!(all[0]["ip_address"], "127.0.0.1");

    post_as_client(&server, &agent, PATH, &[("token", &ended)]).await;
    server.clock.advance(Duration::from_mins(1));
    assert_eq!(identifiers(&listed("").await.expect(200)), [jti(&kept), first.clone()]);
    // Page by page, skipping tokens that are no longer active.
    let mut found = Vec::new();
    let mut next = Some("?limit=1".to_owned());
    while let Some(query) = next {
        let page = listed(&query).await;
        let link = page.header("link").map(str::to_owned);
        next = link.map(|link| link[link.find('?').unwrap()..link.find('>').unwrap()].to_owned());
        found.extend(identifiers(&page.expect(200)));
    }
    assert_eq!(found, [jti(&kept), first]);
    let response = server.admin.post_empty(&format!("/agents/{}/revoke-tokens", agent.id)).await.expect(200);
    assert_eq!(response["tokens_ended"], 2);
    assert_eq!(listed("").await.expect(200), json!([]));
    agent.client.get(&path).await.refused(401, "Invalid or expired token");
    server.admin.get("/agents/00000000-0000-7000-8000-000000000000/tokens").await.refused(404, "Agent not found");
}
