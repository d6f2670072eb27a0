//! Clients that authenticate in addition to an assertion (RFC 7521 section 4.1): only its agent and the agent's
//! delegates may.

use std::time::Duration;

use aims::domain::token::SigningAlgorithm;
use jsonwebtoken::Header;
use serde_json::{Value, json};

use super::{Issuer, Key, PRIVATE, cluster_identity, present, trust, workload_claims};
use crate::{
    both,
    oauth::{ISSUER, claims, delegation::allow, post, post_as_client, refused},
    support::{Agent, Database, Response, Server, details},
};

both!(
    agent_may_authenticate_in_addition_to_its_assertion,
    delegate_acts_for_the_agent_of_the_assertion,
    delegates_token_is_bounded_by_both_sides,
    ending_any_source_ends_a_delegates_token,
    clients_that_are_no_delegates_are_rejected,
    valid_assertion_does_not_excuse_failed_client_authentication,
    assertion_that_fits_the_client_yields_its_own_token,
);

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An agent with a federated identity, and a gateway that presents the agent's assertions.
struct Fixture {
    server: Server,
    agent: Agent,
    gateway: Agent,
    cluster: Issuer,
    key: Key,
    identity: Value,
}

impl Fixture {
    async fn new(db: Database, options: &[(&str, &str)]) -> Self {
        let server = Server::start_with(db, &[&[PRIVATE], options].concat()).await;
        let agent = server.agent("summariser", &["agents:read", "keys:manage"]).await;
        let gateway = server.agent("gateway", &["agents:read", "audit:read"]).await;
        let cluster = Issuer::start().await;
        let identity = trust(&server, &agent, cluster_identity(&cluster)).await;
        let key = cluster.key("a", SigningAlgorithm::Es256);
        Self { server, agent, gateway, cluster, key, identity }
    }

    fn assertion(&self) -> String {
        self.key.sign(&workload_claims(&self.server, &self.cluster))
    }

    /// Presents an assertion of the agent as a client that authenticates with its API key.
    async fn present_as(&self, client: &Agent, wanted: &[(&str, &str)]) -> Response {
        let assertion = self.assertion();
        let form = [&[("grant_type", JWT_BEARER), ("assertion", &assertion)], wanted].concat();
        post_as_client(&self.server, client, "/oauth/token", &form).await
    }

    /// Returns the token with which the gateway acts for the agent.
    async fn delegated(&self) -> String {
        let body = self.present_as(&self.gateway, &[]).await.expect(200);
        body["access_token"].as_str().unwrap().to_owned()
    }

    async fn is_active(&self, token: &str) -> bool {
        let response = self.server.anonymous().with_token(token).get("/agents").await;
        if response.status != 200 {
            response.refused(401, "Invalid or expired token");
        }
        response.status == 200
    }
}

async fn agent_may_authenticate_in_addition_to_its_assertion(db: Database) {
    let fixture = Fixture::new(db, &[]).await;
    let (server, agent) = (&fixture.server, &fixture.agent);
    let keys = format!("/agents/{}/keys", agent.id);
    let limited = server.admin.post(&keys, json!({ "scope": "agents:read", "max_uses": 1 })).await.expect(201);
    let pair = Issuer::start().await.key("own", SigningAlgorithm::Es256);
    let public_keys = format!("/agents/{}/public-keys", agent.id);
    server.admin.post(&public_keys, pair.public.clone()).await.expect(201);
    let now = server.clock_secs();
    let payload = json!({ "iss": agent.id, "sub": agent.id, "aud": ISSUER, "exp": now + 60, "jti": "once" });
    let own = jsonwebtoken::encode(&Header::new(pair.algorithm), &payload, &pair.private).unwrap();

    let alone = present(server, &fixture.assertion(), &[]).await.expect(200);
    let mut responses = vec![fixture.present_as(agent, &[]).await];
    for more in [
        vec![("client_secret", agent.raw_key.as_str())],
        vec![("client_id", &agent.id), ("client_secret", limited["raw_key"].as_str().unwrap())],
        vec![("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &own)],
    ] {
        responses.push(present(server, &fixture.assertion(), &more).await);
    }
    let same = |body: &Value| {
        let mut payload = claims(body["access_token"].as_str().unwrap());
        payload["jti"].take();
        (payload, body["scope"].clone(), body["expires_in"].clone())
    };
    for response in responses {
        let body = response.expect(200);
        assert_eq!(same(&body), same(&alone));
        assert_eq!(same(&body).0["federated_identity_id"], fixture.identity["id"]);
        assert!(fixture.is_active(body["access_token"].as_str().unwrap()).await);
    }
    assert_eq!(server.audited("token.issued").await.len(), 5);
    assert!(server.audited("token.exchanged").await.is_empty());
    // The assertion produced the token, so the key's single use is still available.
    let form = [("grant_type", "client_credentials"), ("client_secret", limited["raw_key"].as_str().unwrap())];
    post(&server.anonymous(), "/oauth/token", &form).await.expect(200);
}

async fn delegate_acts_for_the_agent_of_the_assertion(db: Database) {
    let fixture = Fixture::new(db, &[]).await;
    let (server, agent, gateway) = (&fixture.server, &fixture.agent, &fixture.gateway);
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    allow(server, agent, gateway).await;
    let body = fixture.present_as(gateway, &[]).await.expect(200);
    assert_eq!((&body["token_type"], &body["scope"]), (&json!("Bearer"), &json!("agents:read")));
    assert_eq!(body.get("issued_token_type"), None);
    let token = body["access_token"].as_str().unwrap();
    let payload = claims(token);
    assert_eq!((&payload["sub"], &payload["act"]), (&json!(agent.id), &json!({ "sub": gateway.id })));
    assert_eq!((&payload["client_id"], &payload["aud"]), (&json!(gateway.id), &json!(ISSUER)));
    assert_eq!((payload.get("key_id"), payload.get("federated_identity_id")), (None, None));
    assert!(fixture.is_active(token).await);
    let introspected = post(&resource_server.client, "/oauth/introspect", &[("token", token)]).await.expect(200);
    assert_eq!((&introspected["active"], &introspected["act"]), (&json!(true), &payload["act"]));

    let record = server.audited("token.exchanged").await.remove(0);
    assert_eq!((&record["agent_id"], &record["resource_id"]), (&json!(gateway.id), &json!(gateway.key_id)));
    let recorded = details(&record);
    assert_eq!((&recorded["sub"], &recorded["act"]), (&payload["sub"], &payload["act"]));
    assert_eq!((&recorded["subject_credential"], recorded.get("subject_jti")), (&fixture.identity["id"], None));
    assert!(server.audited("token.issued").await.is_empty());
    let listed = server.admin.get(&format!("/agents/{}/tokens", gateway.id)).await.expect(200);
    assert_eq!((&listed[0]["jti"], &listed[0]["sub"]), (&payload["jti"], &json!(agent.id)));
}

async fn delegates_token_is_bounded_by_both_sides(db: Database) {
    let fixture = Fixture::new(db, &[]).await;
    let (server, agent, gateway) = (&fixture.server, &fixture.agent, &fixture.gateway);
    allow(server, agent, gateway).await;
    server.capability("tickets:close").await;
    for more in ["keys:manage", "audit:read", "agents:read audit:read", "tickets:close", "admin:*"] {
        refused(&fixture.present_as(gateway, &[("scope", more)]).await, 400, "invalid_scope");
    }
    refused(&fixture.present_as(gateway, &[("resource", "https://x.example")]).await, 400, "invalid_target");
    let life = |body: Value| body["expires_in"].as_i64().unwrap();
    assert_eq!(life(fixture.present_as(gateway, &[("expires_in", "60")]).await.expect(200)), 60);
    assert_eq!(life(fixture.present_as(gateway, &[]).await.expect(200)), 1_800);
    // The lifetime is bounded by the assertion.
    let mut brief = workload_claims(server, &fixture.cluster);
    brief["exp"] = json!(server.clock_secs() + 300);
    let assertion = fixture.key.sign(&brief);
    let form = [("grant_type", JWT_BEARER), ("assertion", &assertion)];
    assert_eq!(life(post_as_client(server, gateway, "/oauth/token", &form).await.expect(200)), 300);
    // It is also bounded by the limits of the client's key, which counts a use.
    let limits = json!({ "scope": "agents:read", "token_life_seconds": 30, "max_uses": 1 });
    let limited = server.admin.post(&format!("/agents/{}/keys", gateway.id), limits).await.expect(201);
    let limited = [("client_secret", limited["raw_key"].as_str().unwrap())];
    assert_eq!(life(present(server, &fixture.assertion(), &limited).await.expect(200)), 30);
    refused(&present(server, &fixture.assertion(), &limited).await, 401, "invalid_client");
    // An unregistered capability is rejected, whatever both hold.
    for agent in [agent, gateway] {
        server.grant(&agent.id, "admin:*").await;
    }
    refused(&fixture.present_as(gateway, &[("scope", "unheard:of")]).await, 400, "invalid_scope");
    refused(&fixture.present_as(agent, &[("scope", "unheard:of")]).await, 400, "invalid_scope");
    assert_eq!(fixture.present_as(gateway, &[("scope", "tickets:close")]).await.expect(200)["scope"], "tickets:close");
}

async fn ending_any_source_ends_a_delegates_token(db: Database) {
    let fixture = Fixture::new(db, &[]).await;
    let (server, agent, gateway) = (&fixture.server, &fixture.agent, &fixture.gateway);
    let of = |agent: &Agent| format!("/agents/{}", agent.id);
    allow(server, agent, gateway).await;
    let remaining = fixture.delegated().await;
    let (first, second) = (fixture.delegated().await, fixture.delegated().await);
    let revoked = post_as_client(server, gateway, "/oauth/revoke", &[("token", &first)]).await.expect(200);
    assert_eq!(revoked, json!({ "tokens_ended": 1 }));
    assert!(!fixture.is_active(&first).await && fixture.is_active(&second).await);
    server.admin.delete(&format!("{}/delegates/{}", of(agent), gateway.id)).await.expect(204);
    assert!(!fixture.is_active(&second).await && !fixture.is_active(&remaining).await);
    allow(server, agent, gateway).await;
    assert!(!fixture.is_active(&second).await, "granting the permission again must not reactivate the token");

    for (side, act) in [(agent, "revoke-tokens"), (gateway, "revoke-tokens"), (agent, "suspend"), (gateway, "suspend")]
    {
        let token = fixture.delegated().await;
        assert!(fixture.is_active(&token).await, "{act}");
        server.admin.post_empty(&format!("{}/{act}", of(side))).await.expect(200);
        assert!(!fixture.is_active(&token).await, "{act}");
        if act == "suspend" {
            let error = if side.id == agent.id { (400, "invalid_grant") } else { (401, "invalid_client") };
            refused(&fixture.present_as(gateway, &[]).await, error.0, error.1);
            server.admin.post_empty(&format!("{}/reactivate", of(side))).await.expect(200);
            assert!(!fixture.is_active(&token).await, "{act}");
        }
    }
    // Removing the trusted issuer, revoking the client's key, and expiry.
    let token = fixture.delegated().await;
    let path = format!("{}/federated-identities/{}", of(agent), fixture.identity["id"].as_str().unwrap());
    server.admin.delete(&path).await.expect(204);
    assert!(!fixture.is_active(&token).await);
    refused(&fixture.present_as(gateway, &[]).await, 400, "invalid_grant");
    trust(server, agent, cluster_identity(&fixture.cluster)).await;
    let token = fixture.delegated().await;
    server.admin.delete(&format!("{}/keys/{}", of(gateway), gateway.key_id)).await.expect(204);
    assert!(!fixture.is_active(&token).await);
    let key = server.admin.post(&format!("{}/keys", of(gateway)), json!({})).await.expect(201);
    let secret = [("client_secret", key["raw_key"].as_str().unwrap()), ("expires_in", "60")];
    let body = present(server, &fixture.assertion(), &secret).await.expect(200);
    server.clock.advance(Duration::from_mins(1));
    assert!(!fixture.is_active(body["access_token"].as_str().unwrap()).await);
}

/// A client that is neither the assertion's agent nor one of its delegates must not act for that agent, and must not
/// get a token in another agent's name.
async fn clients_that_are_no_delegates_are_rejected(db: Database) {
    let fixture = Fixture::new(db, &[]).await;
    let (server, agent, gateway) = (&fixture.server, &fixture.agent, &fixture.gateway);
    let thief = server.agent("thief", &["admin:*", "agents:read"]).await;
    // A permission in the other direction, or for the delegate, does not apply.
    allow(server, &thief, agent).await;
    allow(server, agent, gateway).await;
    allow(server, gateway, &thief).await;
    let forged =
        Issuer::start().await.key("a", SigningAlgorithm::Es256).sign(&workload_claims(server, &fixture.cluster));
    let form = [("grant_type", JWT_BEARER), ("assertion", &forged)];
    let expected = post_as_client(server, gateway, "/oauth/token", &form).await;
    refused(&expected, 400, "invalid_grant");
    let record = server.audited("auth.failed").await.remove(0);
    assert_eq!(
        (&record["agent_id"], &details(&record)["reason"]),
        (&json!(gateway.id), &json!("federation_signature"))
    );
    for wanted in [vec![], vec![("scope", "agents:read")], vec![("may_act", thief.id.as_str())]] {
        let response = fixture.present_as(&thief, &wanted).await;
        refused(&response, 400, "invalid_grant");
        assert_eq!(response.json(), expected.json(), "the client does not learn what was wrong");
        let record = server.audited("token.refused").await.remove(0);
        assert_eq!((&record["agent_id"], &record["resource_id"]), (&json!(thief.id), &json!(thief.key_id)));
        assert_eq!(details(&record)["reason"], "federation_not_a_delegate");
    }
    // A different `client_id` does not help: the secret identifies the client.
    for named in [&agent.id, &gateway.id] {
        let more = [("client_id", named.as_str()), ("client_secret", &thief.raw_key)];
        refused(&present(server, &fixture.assertion(), &more).await, 401, "invalid_client");
    }
    server.admin.delete(&format!("/agents/{}/delegates/{}", agent.id, gateway.id)).await.expect(204);
    refused(&fixture.present_as(gateway, &[]).await, 400, "invalid_grant");
    for action in ["token.issued", "token.exchanged"] {
        assert!(server.audited(action).await.is_empty(), "{action}");
    }
    // If the operator has disabled delegation, delegates are rejected, too.
    allow(server, agent, gateway).await;
    let Fixture { server, agent, gateway, cluster, key, identity } = fixture;
    let server = server.restart(&[PRIVATE, ("DELEGATION_DEPTH_MAX", "0")]).await;
    let fixture = Fixture { server, agent, gateway, cluster, key, identity };
    refused(&fixture.present_as(&fixture.gateway, &[]).await, 400, "invalid_grant");
    let record = fixture.server.audited("token.refused").await.remove(0);
    assert_eq!(details(&record)["reason"], "federation_delegation_depth");
    fixture.present_as(&fixture.agent, &[]).await.expect(200);
}

async fn valid_assertion_does_not_excuse_failed_client_authentication(db: Database) {
    let fixture = Fixture::new(db, &[]).await;
    let (server, agent) = (&fixture.server, &fixture.agent);
    let assertion = fixture.assertion();
    let ended = server.admin.post(&format!("/agents/{}/keys", agent.id), json!({})).await.expect(201);
    let path = format!("/agents/{}/keys/{}", agent.id, ended["id"].as_str().unwrap());
    server.admin.delete(&path).await.expect(204);
    let ended = ended["raw_key"].as_str().unwrap();
    let attempts = [
        (vec![("client_secret", "aims_wrong")], 401, "invalid_client", "invalid_key"),
        (vec![("client_id", agent.id.as_str()), ("client_secret", "")], 200, "", ""),
        (vec![("client_secret", ended)], 401, "invalid_client", "key_revoked"),
        (
            vec![("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion.as_str())],
            401,
            "invalid_client",
            "assertion_malformed",
        ),
    ];
    let mut failed = 0;
    for (more, status, error, reason) in attempts {
        let response = present(server, &assertion, &more).await;
        if status == 200 {
            response.expect(200);
            continue;
        }
        refused(&response, status, error);
        let records = server.audited("auth.failed").await;
        failed += 1;
        assert_eq!((records.len(), &details(&records[0])["reason"]), (failed, &json!(reason)), "{more:?}");
    }
    for more in [
        vec![("client_assertion", "x")],
        vec![("client_assertion_type", ASSERTION_TYPE)],
        vec![
            ("client_secret", agent.raw_key.as_str()),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", "x"),
        ],
    ] {
        refused(&present(server, &assertion, &more).await, 400, "invalid_request");
    }
    let form = [("grant_type", JWT_BEARER)];
    refused(&post_as_client(server, agent, "/oauth/token", &form).await, 400, "invalid_request");
    assert_eq!(server.audited("token.issued").await.len(), 1);
}

async fn assertion_that_fits_the_client_yields_its_own_token(db: Database) {
    let fixture = Fixture::new(db, &[]).await;
    let (server, agent, gateway) = (&fixture.server, &fixture.agent, &fixture.gateway);
    allow(server, agent, gateway).await;
    // The gateway runs in the same cluster under another name.
    let mut of_gateway = cluster_identity(&fixture.cluster);
    of_gateway["claims"]["sub"] = json!("system:serviceaccount:agents:gateway");
    trust(server, gateway, of_gateway).await;
    assert_eq!(claims(&fixture.delegated().await)["sub"], json!(agent.id));
    // If the assertion fits both agents, each client gets its own token.
    trust(server, gateway, cluster_identity(&fixture.cluster)).await;
    for client in [agent, gateway] {
        let body = fixture.present_as(client, &[]).await.expect(200);
        let payload = claims(body["access_token"].as_str().unwrap());
        assert_eq!((&payload["sub"], payload.get("act")), (&json!(client.id), None));
    }
    // For a third client, it must be clear which agent the assertion belongs to.
    let third = server.agent("third", &["agents:read"]).await;
    allow(server, agent, &third).await;
    refused(&fixture.present_as(&third, &[]).await, 400, "invalid_grant");
    let record = server.audited("auth.failed").await.remove(0);
    assert_eq!(details(&record)["reason"], "federation_ambiguous");
}
