//! What a key may be used for at most: set when it is made, and never widened.

use serde_json::{Value, json};

use super::{as_client, claims, refused};
use crate::{
    both,
    support::{Agent, Answer, Database, Server, details},
};

both!(
    a_key_narrows_its_tokens,
    a_key_works_from_its_networks_alone,
    a_key_is_used_up,
    fifty_uses_at_once_are_counted,
    a_rotation_hands_the_limits_on,
    a_limited_key_makes_no_other_credential_for_its_agent,
    bad_limits_are_refused,
    a_limited_key_is_no_way_back_in,
);

/// The agent with a key of its own that has these limits.
async fn limited(server: &Server, agent: &Agent, limits: Value) -> (Agent, Value) {
    let made = server.admin.post(&format!("/agents/{}/keys", agent.id), limits).await.expect(201);
    let (raw_key, key_id) = (made["raw_key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned());
    (Agent { id: agent.id.clone(), raw_key, key_id, client: agent.client.clone() }, made)
}

async fn ask(server: &Server, agent: &Agent, wanted: &[(&str, &str)]) -> Answer {
    as_client(server, agent, "/oauth/token", &[&[("grant_type", "client_credentials")], wanted].concat()).await
}

async fn a_key_narrows_its_tokens(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:*", "keys:manage"]).await;
    let limits = json!({ "scope": "agents:read audit:read", "token_life_seconds": 60 });
    let (narrow, made) = limited(&server, &agent, limits).await;
    let expected = json!({
        "scope": "agents:read audit:read", "allowed_networks": null, "token_life_seconds": 60, "uses_left": null,
    });
    assert_eq!(made["limits"], expected);
    let listed = server.admin.get(&format!("/agents/{}/keys", agent.id)).await.expect(200);
    assert_eq!((&listed[1]["limits"], listed[0].get("limits")), (&expected, None));

    // By both ways to a token; what the agent does not hold, no key gives it.
    let body = ask(&server, &narrow, &[]).await.expect(200);
    assert_eq!((&body["scope"], &body["expires_in"]), (&json!("agents:read"), &json!(60)));
    for more in ["agents:write", "keys:manage", "audit:read", "agents:*"] {
        refused(&ask(&server, &narrow, &[("scope", more)]).await, 400, "invalid_scope");
    }
    assert_eq!(ask(&server, &narrow, &[("expires_in", "600")]).await.expect(200)["expires_in"], 60);
    let exchanged = server.anybody().exchange(&narrow.raw_key).await.expect(200);
    let said = claims(exchanged["access_token"].as_str().unwrap());
    assert_eq!((&exchanged["expires_in"], &said["scopes"]), (&json!(60), &json!(["agents:read"])));
    // Nor does its token make a key without limits.
    let bearer = server.anybody().with_token(exchanged["access_token"].as_str().unwrap());
    bearer.get("/agents").await.expect(200);
    let answer = bearer.post(&format!("/agents/{}/keys", agent.id), json!({})).await;
    answer.refused(403, "Missing required capability: keys:manage");
    // Nor an exchange, where the client itself acts.
    let planner = server.agent("planner", &["agents:*"]).await;
    let body = json!({ "delegate_id": agent.id });
    server.admin.post(&format!("/agents/{}/delegates", planner.id), body).await.expect(201);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", planner.client.token()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    let body = as_client(&server, &narrow, "/oauth/token", &form).await.expect(200);
    assert_eq!((&body["scope"], &body["expires_in"]), (&json!("agents:read"), &json!(60)));
    let record = server.audited("key.created").await.remove(1);
    assert_eq!(details(&record)["limits"]["token_life_seconds"], 60);
}

async fn a_key_works_from_its_networks_alone(db: Database) {
    let server = Server::with(db, &[("TRUSTED_PROXIES", "::ffff:127.0.0.1")]).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let limits = json!({ "allowed_networks": "::ffff:192.0.2.0/120, 198.51.100.7 2001:DB8::/32" });
    let (bound, made) = limited(&server, &agent, limits).await;
    assert_eq!(made["limits"]["allowed_networks"], "192.0.2.0/24 198.51.100.7/32 2001:db8::/32");
    let from = async |address: &str| {
        let anybody = server.anybody();
        let form = [("grant_type", "client_credentials")];
        let request = anybody.request(reqwest::Method::POST, "/oauth/token").header("x-forwarded-for", address);
        anybody.send(request.basic_auth(&bound.id, Some(&bound.raw_key)).form(&form)).await
    };
    for inside in ["192.0.2.1", "192.0.2.255", "::ffff:198.51.100.7", "2001:db8::1", "::ffff:192.0.2.9"] {
        from(inside).await.expect(200);
    }
    for outside in ["192.0.3.1", "198.51.100.8", "2001:db9::1", "10.0.0.1", "::1", "::192.0.2.1"] {
        let answer = from(outside).await;
        refused(&answer, 401, "invalid_client");
        assert_eq!(answer.json()["error_description"], "API key may not be used from this address");
    }
    let answer = server.anybody().exchange(&bound.raw_key).await;
    answer.refused(401, "API key may not be used from this address");
    let record = server.audited("auth.failed").await.remove(0);
    assert_eq!(
        (&details(&record)["reason"], &record["resource_id"]),
        (&json!("key_not_from_here"), &json!(bound.key_id))
    );
    assert_eq!(record["agent_id"], json!(agent.id));
}

async fn a_key_is_used_up(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let (few, _) = limited(&server, &agent, json!({ "max_uses": 3 })).await;
    let first = ask(&server, &few, &[]).await.expect(200);
    server.anybody().exchange(&few.raw_key).await.expect(200);
    // What is refused uses nothing up.
    refused(&ask(&server, &few, &[("scope", "admin:*")]).await, 400, "invalid_scope");
    let server = server.restart(&[]).await;
    ask(&server, &few, &[]).await.expect(200);
    let answer = ask(&server, &few, &[]).await;
    refused(&answer, 401, "invalid_client");
    assert_eq!(answer.json()["error_description"], "API key has been used up");
    server.anybody().exchange(&few.raw_key).await.refused(401, "API key has been used up");
    assert_eq!(details(&server.audited("auth.failed").await[0])["reason"], "key_used_up");
    // Tokens that were issued live on.
    server.anybody().with_token(first["access_token"].as_str().unwrap()).get("/agents").await.expect(200);
    let listed = server.admin.get(&format!("/agents/{}/keys", agent.id)).await.expect(200);
    assert_eq!(listed[1]["limits"]["uses_left"], 0);

    // An exchange is a use as well.
    let (once, _) = limited(&server, &agent, json!({ "max_uses": 1 })).await;
    let planner = server.agent("planner", &[]).await;
    let body = json!({ "delegate_id": agent.id });
    server.admin.post(&format!("/agents/{}/delegates", planner.id), body).await.expect(201);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", planner.client.token()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    as_client(&server, &once, "/oauth/token", &form).await.expect(200);
    refused(&as_client(&server, &once, "/oauth/token", &form).await, 401, "invalid_client");
    refused(&ask(&server, &once, &[]).await, 401, "invalid_client");
    assert_eq!(server.audited("token.exchanged").await.len(), 1);
}

async fn fifty_uses_at_once_are_counted(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let (few, _) = limited(&server, &agent, json!({ "max_uses": 7 })).await;
    let answers = futures_util::future::join_all((0..50).map(|_| ask(&server, &few, &[]))).await;
    let issued = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(issued, 7);
    assert!(answers.iter().all(|answer| [200, 401].contains(&answer.status.as_u16())));
    assert_eq!(server.audited("token.issued").await.len(), 7);
}

async fn a_rotation_hands_the_limits_on(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read", "keys:manage"]).await;
    let limits = json!({ "scope": "agents:read", "allowed_networks": "127.0.0.0/8", "max_uses": 3 });
    let (old, _) = limited(&server, &agent, limits).await;
    let first = ask(&server, &old, &[]).await.expect(200);
    let path = format!("/agents/{}/keys/{}/rotate", agent.id, old.key_id);
    let new = server.admin.post_empty(&path).await.expect(200)["new_key"].clone();
    let handed_on = json!({
        "scope": "agents:read", "allowed_networks": "127.0.0.0/8", "token_life_seconds": null, "uses_left": 2,
    });
    assert_eq!(new["limits"], handed_on);
    // The two together have no more uses than the one had; what was issued lives through the grace period.
    refused(&ask(&server, &old, &[]).await, 401, "invalid_client");
    server.anybody().with_token(first["access_token"].as_str().unwrap()).get("/agents").await.expect(200);
    let new = Agent { raw_key: new["raw_key"].as_str().unwrap().to_owned(), ..old };
    for _ in 0..2 {
        let body = ask(&server, &new, &[]).await.expect(200);
        assert_eq!(claims(body["access_token"].as_str().unwrap())["scope"], "agents:read");
    }
    refused(&ask(&server, &new, &[]).await, 401, "invalid_client");
}

/// It would have no limits, and be whoever's who has the limited one.
async fn a_limited_key_makes_no_other_credential_for_its_agent(db: Database) {
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
        let (bound, made) = limited(&server, &agent, limits).await;
        let token = server.anybody().exchange(&bound.raw_key).await.expect(200)["access_token"].clone();
        let bearer = server.anybody().with_token(token.as_str().unwrap());
        let own = format!("/agents/{}", agent.id);
        bearer.post(&format!("{own}/keys"), json!({})).await.refused(400, REFUSAL);
        bearer.post(&format!("{own}/keys/{}/rotate", agent.key_id), json!({})).await.refused(400, REFUSAL);
        bearer.post(&format!("{own}/public-keys"), jwk.clone()).await.refused(400, REFUSAL);
        bearer.post(&format!("{own}/federated-identities"), trust.clone()).await.refused(400, REFUSAL);
        // What it may do for others is a matter of its capabilities alone.
        bearer.post(&format!("/agents/{}/keys", equal.id), json!({})).await.expect(201);
        let rotated = bearer.post(&format!("{own}/keys/{}/rotate", bound.key_id), json!({})).await.expect(200);
        let listed = server.admin.get(&format!("{own}/keys")).await.expect(200);
        let new = listed.as_array().unwrap().iter().find(|key| key["id"] == rotated["new_key"]["id"]).unwrap();
        let networks = |key: &Value| key["limits"]["allowed_networks"].clone();
        assert_eq!(networks(new), networks(&made));
    }
    // An agent whose key has no limits serves itself, as ever.
    agent.client.post(&format!("/agents/{}/keys", agent.id), json!({})).await.expect(201);
}

async fn bad_limits_are_refused(db: Database) {
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
        let answer = server.admin.post(&format!("/agents/{}/keys", agent.id), json!({ field: value })).await;
        let detail = answer.expect(422)["detail"].clone();
        assert_eq!(detail[0]["loc"], json!(["body", field]));
    }
    // Names that are registered, and more than any token carries: there is no way to ask for fewer at `/auth/token`.
    let admin = server.agent("administrator", &["admin:*"]).await;
    let mut names: Vec<_> = (0..33).map(|number| format!("tools:{number:0>122}")).collect();
    for name in &names {
        server.capability(name).await;
    }
    let path = format!("/agents/{}/keys", admin.id);
    let answer = server.admin.post(&path, json!({ "scope": names.join(" ") })).await.expect(422)["detail"].clone();
    assert_eq!(answer[0]["loc"], json!(["body", "scope"]));
    names.truncate(31);
    let made = server.admin.post(&path, json!({ "scope": names.join(" ") })).await.expect(201);
    server.anybody().exchange(made["raw_key"].as_str().unwrap()).await.expect(200);
    // None of them was made.
    assert_eq!(server.admin.get(&format!("/agents/{}/keys", agent.id)).await.expect(200).as_array().unwrap().len(), 1);
}

async fn a_limited_key_is_no_way_back_in(db: Database) {
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
