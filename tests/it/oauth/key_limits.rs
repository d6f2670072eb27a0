//! Limits of API keys: set at creation and never widened.

use serde_json::{Value, json};

use super::{claims, post_as_client, refused};
use crate::{
    both,
    support::{Agent, Database, Response, Server, details},
};

both!(
    key_limits_the_scope_and_lifetime_of_its_tokens,
    key_works_only_from_its_allowed_networks,
    key_stops_working_after_its_last_use,
    fifty_concurrent_uses_are_counted,
    rotation_keeps_the_limits,
    limited_key_cannot_create_credentials_for_its_own_agent,
    invalid_limits_are_rejected,
    limited_key_does_not_count_as_a_way_to_sign_in,
);

/// Creates a key with these limits and returns the agent with that key.
async fn agent_with_limited_key(server: &Server, agent: &Agent, limits: Value) -> (Agent, Value) {
    let created = server.admin.post(&format!("/agents/{}/keys", agent.id), limits).await.expect(201);
    let (raw_key, key_id) =
        (created["raw_key"].as_str().unwrap().to_owned(), created["id"].as_str().unwrap().to_owned());
    (Agent { id: agent.id.clone(), raw_key, key_id, client: agent.client.clone() }, created)
}

async fn request_token(server: &Server, agent: &Agent, wanted: &[(&str, &str)]) -> Response {
    post_as_client(server, agent, "/oauth/token", &[&[("grant_type", "client_credentials")], wanted].concat()).await
}

async fn key_limits_the_scope_and_lifetime_of_its_tokens(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:*", "keys:manage"]).await;
    let limits = json!({ "scope": "agents:read audit:read", "token_life_seconds": 60 });
    let (narrow, created) = agent_with_limited_key(&server, &agent, limits).await;
    let expected = json!({
        "scope": "agents:read audit:read", "allowed_networks": null, "token_life_seconds": 60, "uses_left": null,
    });
    assert_eq!(created["limits"], expected);
    let listed = server.admin.get(&format!("/agents/{}/keys", agent.id)).await.expect(200);
    assert_eq!((&listed[1]["limits"], listed[0].get("limits")), (&expected, None));

    // At both token endpoints. A key cannot provide a capability that the agent does not hold.
    let body = request_token(&server, &narrow, &[]).await.expect(200);
    assert_eq!((&body["scope"], &body["expires_in"]), (&json!("agents:read"), &json!(60)));
    for more in ["agents:write", "keys:manage", "audit:read", "agents:*"] {
        refused(&request_token(&server, &narrow, &[("scope", more)]).await, 400, "invalid_scope");
    }
    assert_eq!(request_token(&server, &narrow, &[("expires_in", "600")]).await.expect(200)["expires_in"], 60);
    let exchanged = server.anonymous().exchange(&narrow.raw_key).await.expect(200);
    let payload = claims(exchanged["access_token"].as_str().unwrap());
    assert_eq!((&exchanged["expires_in"], &payload["scopes"]), (&json!(60), &json!(["agents:read"])));
    // A token of the key cannot create a key without limits.
    let bearer = server.anonymous().with_token(exchanged["access_token"].as_str().unwrap());
    bearer.get("/agents").await.expect(200);
    let response = bearer.post(&format!("/agents/{}/keys", agent.id), json!({})).await;
    response.refused(403, "Missing required capability: keys:manage");
    // The limits also apply to a token exchange in which the client itself is the actor.
    let planner = server.agent("planner", &["agents:*"]).await;
    let body = json!({ "delegate_id": agent.id });
    server.admin.post(&format!("/agents/{}/delegates", planner.id), body).await.expect(201);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", planner.client.token()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    let body = post_as_client(&server, &narrow, "/oauth/token", &form).await.expect(200);
    assert_eq!((&body["scope"], &body["expires_in"]), (&json!("agents:read"), &json!(60)));
    let record = server.audited("key.created").await.remove(1);
    assert_eq!(details(&record)["limits"]["token_life_seconds"], 60);
}

async fn key_works_only_from_its_allowed_networks(db: Database) {
    let server = Server::start_with(db, &[("TRUSTED_PROXIES", "::ffff:127.0.0.1")]).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let limits = json!({ "allowed_networks": "::ffff:192.0.2.0/120, 198.51.100.7 2001:DB8::/32" });
    let (bound, created) = agent_with_limited_key(&server, &agent, limits).await;
    assert_eq!(created["limits"]["allowed_networks"], "192.0.2.0/24 198.51.100.7/32 2001:db8::/32");
    let from = async |address: &str| {
        let anonymous = server.anonymous();
        let form = [("grant_type", "client_credentials")];
        let request = anonymous.request(reqwest::Method::POST, "/oauth/token").header("x-forwarded-for", address);
        anonymous.send(request.basic_auth(&bound.id, Some(&bound.raw_key)).form(&form)).await
    };
    for inside in ["192.0.2.1", "192.0.2.255", "::ffff:198.51.100.7", "2001:db8::1", "::ffff:192.0.2.9"] {
        from(inside).await.expect(200);
    }
    for outside in ["192.0.3.1", "198.51.100.8", "2001:db9::1", "10.0.0.1", "::1", "::192.0.2.1"] {
        let response = from(outside).await;
        refused(&response, 401, "invalid_client");
        assert_eq!(response.json()["error_description"], "API key may not be used from this address");
    }
    let response = server.anonymous().exchange(&bound.raw_key).await;
    response.refused(401, "API key may not be used from this address");
    let record = server.audited("auth.failed").await.remove(0);
    assert_eq!(
        (&details(&record)["reason"], &record["resource_id"]),
        (&json!("key_not_from_here"), &json!(bound.key_id))
    );
    assert_eq!(record["agent_id"], json!(agent.id));
}

async fn key_stops_working_after_its_last_use(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let (few, _) = agent_with_limited_key(&server, &agent, json!({ "max_uses": 3 })).await;
    let first = request_token(&server, &few, &[]).await.expect(200);
    server.anonymous().exchange(&few.raw_key).await.expect(200);
    // Rejected requests consume no use.
    refused(&request_token(&server, &few, &[("scope", "admin:*")]).await, 400, "invalid_scope");
    let server = server.restart(&[]).await;
    request_token(&server, &few, &[]).await.expect(200);
    let response = request_token(&server, &few, &[]).await;
    refused(&response, 401, "invalid_client");
    assert_eq!(response.json()["error_description"], "API key has been used up");
    server.anonymous().exchange(&few.raw_key).await.refused(401, "API key has been used up");
    assert_eq!(details(&server.audited("auth.failed").await[0])["reason"], "key_used_up");
    // Tokens that were already issued stay valid.
    server.anonymous().with_token(first["access_token"].as_str().unwrap()).get("/agents").await.expect(200);
    let listed = server.admin.get(&format!("/agents/{}/keys", agent.id)).await.expect(200);
    assert_eq!(listed[1]["limits"]["uses_left"], 0);

    // A token exchange consumes a use as well.
    let (once, _) = agent_with_limited_key(&server, &agent, json!({ "max_uses": 1 })).await;
    let planner = server.agent("planner", &[]).await;
    let body = json!({ "delegate_id": agent.id });
    server.admin.post(&format!("/agents/{}/delegates", planner.id), body).await.expect(201);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", planner.client.token()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    post_as_client(&server, &once, "/oauth/token", &form).await.expect(200);
    refused(&post_as_client(&server, &once, "/oauth/token", &form).await, 401, "invalid_client");
    refused(&request_token(&server, &once, &[]).await, 401, "invalid_client");
    assert_eq!(server.audited("token.exchanged").await.len(), 1);
}

async fn fifty_concurrent_uses_are_counted(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let (few, _) = agent_with_limited_key(&server, &agent, json!({ "max_uses": 7 })).await;
    let responses = futures_util::future::join_all((0..50).map(|_| request_token(&server, &few, &[]))).await;
    let issued = responses.iter().filter(|response| response.status == 200).count();
    assert_eq!(issued, 7);
    assert!(responses.iter().all(|response| [200, 401].contains(&response.status.as_u16())));
    assert_eq!(server.audited("token.issued").await.len(), 7);
}

async fn rotation_keeps_the_limits(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read", "keys:manage"]).await;
    let limits = json!({ "scope": "agents:read", "allowed_networks": "127.0.0.0/8", "max_uses": 3 });
    let (old, _) = agent_with_limited_key(&server, &agent, limits).await;
    let first = request_token(&server, &old, &[]).await.expect(200);
    let path = format!("/agents/{}/keys/{}/rotate", agent.id, old.key_id);
    let new = server.admin.post_empty(&path).await.expect(200)["new_key"].clone();
    let handed_on = json!({
        "scope": "agents:read", "allowed_networks": "127.0.0.0/8", "token_life_seconds": null, "uses_left": 2,
    });
    assert_eq!(new["limits"], handed_on);
    // Both keys share the remaining uses. Tokens that were already issued stay valid through the grace period.
    refused(&request_token(&server, &old, &[]).await, 401, "invalid_client");
    server.anonymous().with_token(first["access_token"].as_str().unwrap()).get("/agents").await.expect(200);
    let new = Agent { raw_key: new["raw_key"].as_str().unwrap().to_owned(), ..old };
    for _ in 0..2 {
        let body = request_token(&server, &new, &[]).await.expect(200);
        assert_eq!(claims(body["access_token"].as_str().unwrap())["scope"], "agents:read");
    }
    refused(&request_token(&server, &new, &[]).await, 401, "invalid_client");
}

/// Otherwise, the holder of a limited key could create one without limits.
async fn limited_key_cannot_create_credentials_for_its_own_agent(db: Database) {
    const REFUSAL: &str = "A limited key cannot create another credential for its own agent";
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["keys:manage", "agents:read"]).await;
    let equal = server.agent("equal", &["keys:manage"]).await;
    let jwk = json!({
        "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    let trust = json!({
        "issuer": "https://issuer.example.com", "jwks_uri": "https://issuer.example.com/keys", "audience": "aims",
        "claims": { "sub": "worker" },
    });
    for limits in
        [json!({ "allowed_networks": "127.0.0.0/8" }), json!({ "token_life_seconds": 30 }), json!({ "max_uses": 9 })]
    {
        let (bound, created) = agent_with_limited_key(&server, &agent, limits).await;
        let token = server.anonymous().exchange(&bound.raw_key).await.expect(200)["access_token"].clone();
        let bearer = server.anonymous().with_token(token.as_str().unwrap());
        let own = format!("/agents/{}", agent.id);
        bearer.post(&format!("{own}/keys"), json!({})).await.refused(400, REFUSAL);
        bearer.post(&format!("{own}/keys/{}/rotate", agent.key_id), json!({})).await.refused(400, REFUSAL);
        bearer.post(&format!("{own}/public-keys"), jwk.clone()).await.refused(400, REFUSAL);
        bearer.post(&format!("{own}/federated-identities"), trust.clone()).await.refused(400, REFUSAL);
        // For other agents, only its capabilities matter.
        bearer.post(&format!("/agents/{}/keys", equal.id), json!({})).await.expect(201);
        let rotated = bearer.post(&format!("{own}/keys/{}/rotate", bound.key_id), json!({})).await.expect(200);
        let listed = server.admin.get(&format!("{own}/keys")).await.expect(200);
        let new = listed.as_array().unwrap().iter().find(|key| key["id"] == rotated["new_key"]["id"]).unwrap();
        let networks = |key: &Value| key["limits"]["allowed_networks"].clone();
        assert_eq!(networks(new), networks(&created));
    }
    // An agent with an unlimited key can create credentials for itself.
    agent.client.post(&format!("/agents/{}/keys", agent.id), json!({})).await.expect(201);
}

async fn invalid_limits_are_rejected(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let many = vec!["10.0.0.0/8"; 51].join(" ");
    for (field, value) in [
        ("scope", json!("a\"b")),
        ("scope", json!("agents:read agent:write")),
        ("scope", json!("agents:*")),
        ("scope", json!(["agents:read"])),
        ("allowed_networks", json!("10.0.0.0/33")),
        ("allowed_networks", json!("somewhere")),
        ("allowed_networks", json!(many)),
        ("token_life_seconds", json!(0)),
        ("token_life_seconds", json!(86_401)),
        ("token_life_seconds", json!("60")),
        ("max_uses", json!(0)),
        ("max_uses", json!(-1)),
        ("max_uses", json!(1.5)),
    ] {
        let response = server.admin.post(&format!("/agents/{}/keys", agent.id), json!({ field: value })).await;
        let detail = response.expect(422)["detail"].clone();
        assert_eq!(detail[0]["loc"], json!(["body", field]));
    }
    // All registered, but more than a token can carry, and `/auth/token` has no way to request fewer.
    let admin = server.agent("administrator", &["admin:*"]).await;
    let mut names: Vec<_> = (0..33).map(|number| format!("tools:{number:0>122}")).collect();
    for name in &names {
        server.capability(name).await;
    }
    let path = format!("/agents/{}/keys", admin.id);
    let response = server.admin.post(&path, json!({ "scope": names.join(" ") })).await.expect(422)["detail"].clone();
    assert_eq!(response[0]["loc"], json!(["body", "scope"]));
    names.truncate(31);
    let created = server.admin.post(&path, json!({ "scope": names.join(" ") })).await.expect(201);
    server.anonymous().exchange(created["raw_key"].as_str().unwrap()).await.expect(200);
    // None of them was created.
    assert_eq!(server.admin.get(&format!("/agents/{}/keys", agent.id)).await.expect(200).as_array().unwrap().len(), 1);
}

async fn limited_key_does_not_count_as_a_way_to_sign_in(db: Database) {
    let server = Server::start(db).await;
    let agents = server.admin.get("/agents").await.expect(200);
    let admin = agents[0]["id"].as_str().unwrap();
    let path = format!("/agents/{admin}/keys");
    server.admin.post(&path, json!({ "scope": "agents:read" })).await.expect(201);
    server.admin.post(&path, json!({ "max_uses": 1 })).await.expect(201);
    let first = server.admin.get(&path).await.expect(200)[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.admin.delete(&format!("{path}/{first}")).await.status, 400);
    server.admin.post(&path, json!({})).await.expect(201);
    server.admin.delete(&format!("{path}/{first}")).await.expect(204);
}
