//! Introspection: what a token is worth at this moment (RFC 7662).

use std::time::Duration;

use serde_json::json;

use super::{as_client, ask, post, refused, token};
use crate::{
    both,
    support::{Client, Database, Server},
};

both!(
    a_resource_server_learns_what_a_token_is_worth,
    what_ends_a_token_ends_it_here_too,
    only_resource_servers_may_ask,
);

const PATH: &str = "/oauth/introspect";
const INACTIVE: &str = "{\"active\":false}";

async fn look(resource_server: &Client, token: &str) -> serde_json::Value {
    post(resource_server, PATH, &[("token", token)]).await.expect(200)
}

async fn a_resource_server_learns_what_a_token_is_worth(db: Database) {
    let server = Server::start(db).await;
    let asking = server.agent("resource-server", &["tokens:introspect"]).await;
    let agent = server.agent("worker", &["agents:read", "keys:manage"]).await;
    let body = ask(&server, &agent, &[("scope", "agents:read keys:manage")]).await.expect(200);
    let token = body["access_token"].as_str().unwrap();
    let said = super::claims(token);
    let by_token = look(&asking.client, token).await;
    let by_secret = as_client(&server, &asking, PATH, &[("token", token), ("token_type_hint", "access_token")]).await;
    assert_eq!(by_secret.header("cache-control"), Some("no-store"));
    assert_eq!(by_secret.expect(200), by_token);
    assert_eq!((&by_token["active"], &by_token["token_type"]), (&json!(true), &json!("Bearer")));
    for claim in ["iss", "sub", "aud", "client_id", "exp", "iat", "jti", "scope"] {
        assert_eq!(by_token[claim], said[claim], "{claim}");
    }
    // What the agent lost is no longer in the scope, though the token says so.
    let capability = server.capability("keys:manage").await;
    server.admin.delete(&format!("/agents/{}/capabilities/{capability}", agent.id)).await.expect(204);
    assert_eq!(look(&asking.client, token).await["scope"], "agents:read");
}

async fn what_ends_a_token_ends_it_here_too(db: Database) {
    let server = Server::start(db).await;
    let asking = server.agent("resource-server", &["tokens:introspect"]).await;
    let is_active =
        async |token: &str| look(&server.anybody().login(&asking.raw_key).await, token).await["active"] == true;

    for act in ["suspend", "revoke", "revoke-tokens"] {
        let agent = server.agent(act, &["agents:read"]).await;
        let token = token(&server, &agent, &[]).await;
        assert!(is_active(&token).await, "{act}");
        server.admin.post_empty(&format!("/agents/{}/{act}", agent.id)).await.expect(200);
        assert!(!is_active(&token).await, "{act}");
    }
    let agent = server.agent("expiring", &[]).await;
    let short = token(&server, &agent, &[("expires_in", "60")]).await;
    assert!(is_active(&short).await);
    server.clock.advance(Duration::from_mins(1));
    assert!(!is_active(&short).await);
    let deleted = server.agent("deleted", &[]).await;
    let token = token(&server, &deleted, &[]).await;
    server.admin.delete(&format!("/agents/{}", deleted.id)).await.expect(204);
    assert!(!is_active(&token).await);
}

async fn only_resource_servers_may_ask(db: Database) {
    let server = Server::start(db).await;
    let asking = server.agent("resource-server", &["tokens:introspect"]).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let token = token(&server, &agent, &[]).await;
    refused(&post(&agent.client, PATH, &[("token", &token)]).await, 403, "insufficient_scope");
    refused(&as_client(&server, &agent, PATH, &[("token", &token)]).await, 403, "insufficient_scope");
    refused(&post(&server.anybody(), PATH, &[("token", &token)]).await, 401, "invalid_client");
    let junk = server.anybody().with_token("junk");
    refused(&post(&junk, PATH, &[("token", &token)]).await, 401, "invalid_token");
    refused(&post(&asking.client, PATH, &[]).await, 400, "invalid_request");
    refused(&post(&asking.client, PATH, &[("token", &token), ("token", &token)]).await, 400, "invalid_request");
    assert_eq!(server.audited("authz.denied").await.len(), 2);
    // Whatever is no token of ours is not active, and nothing is said about why.
    let tampered = format!("{token}x");
    for nonsense in ["x", "a.b.c", &agent.raw_key, &tampered, &"x".repeat(100_000)] {
        let answer = post(&asking.client, PATH, &[("token", nonsense)]).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, INACTIVE));
    }
}
