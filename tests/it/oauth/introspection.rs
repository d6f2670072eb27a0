//! Token introspection (RFC 7662).

use std::time::Duration;

use serde_json::json;

use super::{post, post_as_client, refused, request_token, token};
use crate::{
    both,
    support::{Client, Database, Server},
};

both!(
    introspection_returns_the_current_state_of_a_token,
    ended_tokens_are_inactive,
    introspection_requires_its_capability,
);

const PATH: &str = "/oauth/introspect";
const INACTIVE: &str = "{\"active\":false}";

async fn introspect(resource_server: &Client, token: &str) -> serde_json::Value {
    post(resource_server, PATH, &[("token", token)]).await.expect(200)
}

async fn introspection_returns_the_current_state_of_a_token(db: Database) {
    let server = Server::start(db).await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    let agent = server.agent("worker", &["agents:read", "keys:manage"]).await;
    let body = request_token(&server, &agent, &[("scope", "agents:read keys:manage")]).await.expect(200);
    let token = body["access_token"].as_str().unwrap();
    let payload = super::claims(token);
    let by_token = introspect(&resource_server.client, token).await;
    let by_secret =
        post_as_client(&server, &resource_server, PATH, &[("token", token), ("token_type_hint", "access_token")]).await;
    assert_eq!(by_secret.header("cache-control"), Some("no-store"));
    assert_eq!(by_secret.expect(200), by_token);
    assert_eq!((&by_token["active"], &by_token["token_type"]), (&json!(true), &json!("Bearer")));
    for claim in ["iss", "sub", "aud", "client_id", "exp", "iat", "jti", "scope"] {
        assert_eq!(by_token[claim], payload[claim], "{claim}");
    }
    // A capability that was revoked is no longer in the scope, even if the token still contains it.
    let capability = server.capability("keys:manage").await;
    server.admin.delete(&format!("/agents/{}/capabilities/{capability}", agent.id)).await.expect(204);
    assert_eq!(introspect(&resource_server.client, token).await["scope"], "agents:read");
}

async fn ended_tokens_are_inactive(db: Database) {
    let server = Server::start(db).await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    let is_active = async |token: &str| {
        introspect(&server.anonymous().login(&resource_server.raw_key).await, token).await["active"] == true
    };

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

async fn introspection_requires_its_capability(db: Database) {
    let server = Server::start(db).await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let token = token(&server, &agent, &[]).await;
    refused(&post(&agent.client, PATH, &[("token", &token)]).await, 403, "insufficient_scope");
    refused(&post_as_client(&server, &agent, PATH, &[("token", &token)]).await, 403, "insufficient_scope");
    refused(&post(&server.anonymous(), PATH, &[("token", &token)]).await, 401, "invalid_client");
    let junk = server.anonymous().with_token("junk");
    refused(&post(&junk, PATH, &[("token", &token)]).await, 401, "invalid_token");
    refused(&post(&resource_server.client, PATH, &[]).await, 400, "invalid_request");
    refused(
        &post(&resource_server.client, PATH, &[("token", &token), ("token", &token)]).await,
        400,
        "invalid_request",
    );
    assert_eq!(server.audited("authz.denied").await.len(), 2);
    // Any unknown token is inactive, without a reason.
    let tampered = format!("{token}x");
    for nonsense in ["x", "a.b.c", &agent.raw_key, &tampered, &"x".repeat(100_000)] {
        let response = post(&resource_server.client, PATH, &[("token", nonsense)]).await;
        assert_eq!((response.status.as_u16(), response.text.as_str()), (200, INACTIVE));
    }
}
