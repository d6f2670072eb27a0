//! Revocation of one token (RFC 7009), and of all that an agent has.

use std::time::Duration;

use aims::domain::Role;
use serde_json::json;

use super::{as_client, ask, post, refused, token};
use crate::{
    both,
    support::{Database, Server, details},
};

both!(
    a_client_revokes_its_own_token,
    nobody_revokes_the_token_of_another,
    all_tokens_of_an_agent_end_and_its_keys_stay,
    what_has_expired_is_forgotten,
    a_revocation_does_not_wait_for_its_count,
    the_tokens_that_count_are_listed,
);

const PATH: &str = "/oauth/revoke";

async fn a_client_revokes_its_own_token(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let (ended, kept) = (token(&server, &agent, &[]).await, token(&server, &agent, &[]).await);
    // Twice: a client that got no answer tries again.
    for tokens_ended in [1, 0] {
        let answer = as_client(&server, &agent, PATH, &[("token", &ended), ("token_type_hint", "refresh_token")]).await;
        assert_eq!(answer.expect(200), json!({ "tokens_ended": tokens_ended }));
    }
    server.anybody().with_token(&ended).get("/agents").await.refused(401, "Invalid or expired token");
    server.anybody().with_token(&kept).get("/agents").await.expect(200);
    let records = server.audited("token.revoked").await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["resource_id"], super::claims(&ended)["jti"]);
    // A token that is none is none to revoke.
    for nonsense in ["x", "a.b.c", &agent.raw_key] {
        assert_eq!(as_client(&server, &agent, PATH, &[("token", nonsense)]).await.status, 200);
    }
    refused(&as_client(&server, &agent, PATH, &[]).await, 400, "invalid_request");
    // Also the tokens of the older exchange.
    let old = agent.client.token().to_owned();
    as_client(&server, &agent, PATH, &[("token", &old)]).await;
    agent.client.get("/agents").await.refused(401, "Invalid or expired token");
    let server = server.restart(&[]).await;
    server.anybody().with_token(&old).get("/agents").await.refused(401, "Invalid or expired token");
    server.anybody().with_token(&kept).get("/agents").await.expect(200);
}

async fn nobody_revokes_the_token_of_another(db: Database) {
    let server = Server::start(db).await;
    let (agent, other) = (server.agent("a", &["agents:read"]).await, server.agent("b", &["admin:*"]).await);
    let token = token(&server, &agent, &[]).await;
    refused(&as_client(&server, &other, PATH, &[("token", &token)]).await, 400, "unauthorized_client");
    let record = server.audited("authz.denied").await.remove(0);
    assert_eq!((&record["agent_id"], &record["success"]), (&json!(other.id), &json!(0)));
    assert_eq!((&record["resource_type"], &record["resource_id"]), (&json!("token"), &super::claims(&token)["jti"]));
    assert_eq!(details(&record)["reason"], "unauthorized_client");
    refused(&post(&server.anybody(), PATH, &[("token", &token)]).await, 401, "invalid_client");
    // Holding a token is no client authentication.
    refused(&post(&server.anybody().with_token(&token), PATH, &[("token", &token)]).await, 401, "invalid_client");
    server.anybody().with_token(&token).get("/agents").await.expect(200);
}

async fn all_tokens_of_an_agent_end_and_its_keys_stay(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let tokens = [token(&server, &agent, &[]).await, agent.client.token().to_owned()];
    let answer = server.admin.post_empty(&format!("/agents/{}/revoke-tokens", agent.id)).await.expect(200);
    assert_eq!(answer, json!({ "tokens_ended": 2 }));
    for token in tokens {
        server.anybody().with_token(&token).get("/agents").await.refused(401, "Invalid or expired token");
    }
    let fresh = ask(&server, &agent, &[]).await.expect(200);
    server.anybody().with_token(fresh["access_token"].as_str().unwrap()).get("/agents").await.expect(200);
    assert_eq!(server.audited("agent.tokens_revoked").await[0]["resource_id"], json!(agent.id));
}

async fn a_revocation_does_not_wait_for_its_count(db: Database) {
    const ENDED: u32 = 2_000;
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let path = format!("/agents/{}", agent.id);
    let key = server.admin.post(&format!("{path}/keys"), json!({})).await.expect(201);
    server.anybody().login(key["raw_key"].as_str().unwrap()).await;
    server.admin.delete(&format!("{path}/keys/{}", key["id"].as_str().unwrap())).await.expect(204);
    let browser = server.signed_in("zoe", Role::Operator).await;
    browser.get(&format!("/console{path}/delete")).await.expect(200).shows("<dd>1</dd>");
    // As if the key had been at it all day until it was revoked.
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
    browser.get(&format!("/console{path}/delete")).await.expect(200).shows("<dd>0 or more</dd>");
    let client = server.anybody().with_token(agent.client.token());
    client.get("/agents").await.expect(200);
    // What cannot be counted at all ends, too.
    server.db.execute("ALTER TABLE delegated_tokens RENAME TO lost").await;
    server.admin.post_empty(&format!("{path}/revoke-tokens")).await.expect(200);
    client.get("/agents").await.refused(401, "Invalid or expired token");
}

async fn what_has_expired_is_forgotten(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let token = token(&server, &agent, &[]).await;
    as_client(&server, &agent, PATH, &[("token", &token)]).await;
    assert_eq!(server.db.count("SELECT COUNT(*) FROM revoked_tokens").await, 1);
    server.clock.advance(Duration::from_mins(29));
    aims::service::sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM revoked_tokens").await, 1);
    // The clocks of other nodes may be behind.
    server.clock.advance(Duration::from_secs(70));
    aims::service::sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM revoked_tokens").await, 0);
}

async fn the_tokens_that_count_are_listed(db: Database) {
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

    as_client(&server, &agent, PATH, &[("token", &ended)]).await;
    server.clock.advance(Duration::from_mins(1));
    assert_eq!(identifiers(&listed("").await.expect(200)), [jti(&kept), first.clone()]);
    // Page by page, over those that count no more.
    let mut found = Vec::new();
    let mut next = Some("?limit=1".to_owned());
    while let Some(query) = next {
        let page = listed(&query).await;
        let link = page.header("link").map(str::to_owned);
        next = link.map(|link| link[link.find('?').unwrap()..link.find('>').unwrap()].to_owned());
        found.extend(identifiers(&page.expect(200)));
    }
    assert_eq!(found, [jti(&kept), first]);
    let answer = server.admin.post_empty(&format!("/agents/{}/revoke-tokens", agent.id)).await.expect(200);
    assert_eq!(answer["tokens_ended"], 2);
    assert_eq!(listed("").await.expect(200), json!([]));
    agent.client.get(&path).await.refused(401, "Invalid or expired token");
    server.admin.get("/agents/00000000-0000-7000-8000-000000000000/tokens").await.refused(404, "Agent not found");
}
