//! Clients that authenticate beside an assertion (RFC 7521 section 4.1): only its agent and the agent's delegates may.

use std::time::Duration;

use aims::domain::token::SigningAlgorithm;
use jsonwebtoken::Header;
use serde_json::{Value, json};

use super::{Issuer, Key, PRIVATE, good, of_cluster, present, trust};
use crate::{
    both,
    oauth::{ISSUER, as_client, claims, delegation::allow, post, refused},
    support::{Agent, Answer, Database, Server, details},
};

both!(
    an_agent_may_authenticate_beside_its_assertion,
    a_delegate_acts_for_the_agent_of_the_assertion,
    what_a_delegate_gets_has_the_bounds_of_both_sides,
    whatever_it_was_made_of_ends_a_delegates_token,
    a_client_that_is_no_delegate_gets_nothing,
    wrong_client_authentication_is_not_saved_by_an_assertion,
    a_token_that_fits_the_client_is_the_clients_own,
);

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An agent that a cluster vouches for, and a gateway that presents the agent's assertions.
struct Parties {
    server: Server,
    agent: Agent,
    gateway: Agent,
    cluster: Issuer,
    key: Key,
    identity: Value,
}

impl Parties {
    async fn new(db: Database, options: &[(&str, &str)]) -> Self {
        let server = Server::with(db, &[&[PRIVATE], options].concat()).await;
        let agent = server.agent("summariser", &["agents:read", "keys:manage"]).await;
        let gateway = server.agent("gateway", &["agents:read", "audit:read"]).await;
        let cluster = Issuer::start().await;
        let identity = trust(&server, &agent, of_cluster(&cluster)).await;
        let key = cluster.key("a", SigningAlgorithm::Es256);
        Self { server, agent, gateway, cluster, key, identity }
    }

    fn assertion(&self) -> String {
        self.key.sign(&good(&self.server, &self.cluster))
    }

    /// Presents an assertion of the agent as a client that authenticates with its API key.
    async fn present_as(&self, client: &Agent, wanted: &[(&str, &str)]) -> Answer {
        let assertion = self.assertion();
        let form = [&[("grant_type", JWT_BEARER), ("assertion", &assertion)], wanted].concat();
        as_client(&self.server, client, "/oauth/token", &form).await
    }

    /// The token by which the gateway acts for the agent.
    async fn delegated(&self) -> String {
        let body = self.present_as(&self.gateway, &[]).await.expect(200);
        body["access_token"].as_str().unwrap().to_owned()
    }

    async fn counts(&self, token: &str) -> bool {
        let answer = self.server.anybody().with_token(token).get("/agents").await;
        if answer.status != 200 {
            answer.refused(401, "Invalid or expired token");
        }
        answer.status == 200
    }
}

async fn an_agent_may_authenticate_beside_its_assertion(db: Database) {
    let parties = Parties::new(db, &[]).await;
    let (server, agent) = (&parties.server, &parties.agent);
    let keys = format!("/agents/{}/keys", agent.id);
    let limited = server.admin.post(&keys, json!({ "scope": "agents:read", "max_uses": 1 })).await.expect(201);
    let pair = Issuer::start().await.key("own", SigningAlgorithm::Es256);
    let public_keys = format!("/agents/{}/public-keys", agent.id);
    server.admin.post(&public_keys, pair.public.clone()).await.expect(201);
    let now = server.clock_secs();
    let said = json!({ "iss": agent.id, "sub": agent.id, "aud": ISSUER, "exp": now + 60, "jti": "once" });
    let own = jsonwebtoken::encode(&Header::new(pair.algorithm), &said, &pair.private).unwrap();

    let alone = present(server, &parties.assertion(), &[]).await.expect(200);
    let mut answers = vec![parties.present_as(agent, &[]).await];
    for more in [
        vec![("client_secret", agent.raw_key.as_str())],
        vec![("client_id", &agent.id), ("client_secret", limited["raw_key"].as_str().unwrap())],
        vec![("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &own)],
    ] {
        answers.push(present(server, &parties.assertion(), &more).await);
    }
    let same = |body: &Value| {
        let mut said = claims(body["access_token"].as_str().unwrap());
        said["jti"].take();
        (said, body["scope"].clone(), body["expires_in"].clone())
    };
    for answer in answers {
        let body = answer.expect(200);
        assert_eq!(same(&body), same(&alone));
        assert_eq!(same(&body).0["federated_identity_id"], parties.identity["id"]);
        assert!(parties.counts(body["access_token"].as_str().unwrap()).await);
    }
    assert_eq!(server.audited("token.issued").await.len(), 5);
    assert!(server.audited("token.exchanged").await.is_empty());
    // The assertion gave the token, not the key, which is for one more.
    let form = [("grant_type", "client_credentials"), ("client_secret", limited["raw_key"].as_str().unwrap())];
    post(&server.anybody(), "/oauth/token", &form).await.expect(200);
}

async fn a_delegate_acts_for_the_agent_of_the_assertion(db: Database) {
    let parties = Parties::new(db, &[]).await;
    let (server, agent, gateway) = (&parties.server, &parties.agent, &parties.gateway);
    let asking = server.agent("resource-server", &["tokens:introspect"]).await;
    allow(server, agent, gateway).await;
    let body = parties.present_as(gateway, &[]).await.expect(200);
    assert_eq!((&body["token_type"], &body["scope"]), (&json!("Bearer"), &json!("agents:read")));
    assert_eq!(body.get("issued_token_type"), None);
    let token = body["access_token"].as_str().unwrap();
    let said = claims(token);
    assert_eq!((&said["sub"], &said["act"]), (&json!(agent.id), &json!({ "sub": gateway.id })));
    assert_eq!((&said["client_id"], &said["aud"]), (&json!(gateway.id), &json!(ISSUER)));
    assert_eq!((said.get("key_id"), said.get("federated_identity_id")), (None, None));
    assert!(parties.counts(token).await);
    let looked_at = post(&asking.client, "/oauth/introspect", &[("token", token)]).await.expect(200);
    assert_eq!((&looked_at["active"], &looked_at["act"]), (&json!(true), &said["act"]));

    let record = server.audited("token.exchanged").await.remove(0);
    assert_eq!((&record["agent_id"], &record["resource_id"]), (&json!(gateway.id), &json!(gateway.key_id)));
    let told = details(&record);
    assert_eq!((&told["sub"], &told["act"]), (&said["sub"], &said["act"]));
    assert_eq!((&told["subject_credential"], told.get("subject_jti")), (&parties.identity["id"], None));
    assert!(server.audited("token.issued").await.is_empty());
    let listed = server.admin.get(&format!("/agents/{}/tokens", gateway.id)).await.expect(200);
    assert_eq!((&listed[0]["jti"], &listed[0]["sub"]), (&said["jti"], &json!(agent.id)));
}

async fn what_a_delegate_gets_has_the_bounds_of_both_sides(db: Database) {
    let parties = Parties::new(db, &[]).await;
    let (server, agent, gateway) = (&parties.server, &parties.agent, &parties.gateway);
    allow(server, agent, gateway).await;
    server.capability("tickets:close").await;
    for more in ["keys:manage", "audit:read", "agents:read audit:read", "tickets:close", "admin:*"] {
        refused(&parties.present_as(gateway, &[("scope", more)]).await, 400, "invalid_scope");
    }
    refused(&parties.present_as(gateway, &[("resource", "https://x.example")]).await, 400, "invalid_target");
    let life = |body: Value| body["expires_in"].as_i64().unwrap();
    assert_eq!(life(parties.present_as(gateway, &[("expires_in", "60")]).await.expect(200)), 60);
    assert_eq!(life(parties.present_as(gateway, &[]).await.expect(200)), 1_800);
    // No longer than the assertion is good for.
    let mut brief = good(server, &parties.cluster);
    brief["exp"] = json!(server.clock_secs() + 300);
    let assertion = parties.key.sign(&brief);
    let form = [("grant_type", JWT_BEARER), ("assertion", &assertion)];
    assert_eq!(life(as_client(server, gateway, "/oauth/token", &form).await.expect(200)), 300);
    // Nor than the client's key allows, of which it is a use.
    let limits = json!({ "scope": "agents:read", "token_life_seconds": 30, "max_uses": 1 });
    let limited = server.admin.post(&format!("/agents/{}/keys", gateway.id), limits).await.expect(201);
    let limited = [("client_secret", limited["raw_key"].as_str().unwrap())];
    assert_eq!(life(present(server, &parties.assertion(), &limited).await.expect(200)), 30);
    refused(&present(server, &parties.assertion(), &limited).await, 401, "invalid_client");
    // A name that no capability has is refused, whatever both hold.
    for agent in [agent, gateway] {
        server.grant(&agent.id, "admin:*").await;
    }
    refused(&parties.present_as(gateway, &[("scope", "unheard:of")]).await, 400, "invalid_scope");
    refused(&parties.present_as(agent, &[("scope", "unheard:of")]).await, 400, "invalid_scope");
    assert_eq!(parties.present_as(gateway, &[("scope", "tickets:close")]).await.expect(200)["scope"], "tickets:close");
}

async fn whatever_it_was_made_of_ends_a_delegates_token(db: Database) {
    let parties = Parties::new(db, &[]).await;
    let (server, agent, gateway) = (&parties.server, &parties.agent, &parties.gateway);
    let of = |agent: &Agent| format!("/agents/{}", agent.id);
    allow(server, agent, gateway).await;
    let remaining = parties.delegated().await;
    let (first, second) = (parties.delegated().await, parties.delegated().await);
    let revoked = as_client(server, gateway, "/oauth/revoke", &[("token", &first)]).await.expect(200);
    assert_eq!(revoked, json!({ "tokens_ended": 1 }));
    assert!(!parties.counts(&first).await && parties.counts(&second).await);
    server.admin.delete(&format!("{}/delegates/{}", of(agent), gateway.id)).await.expect(204);
    assert!(!parties.counts(&second).await && !parties.counts(&remaining).await);
    allow(server, agent, gateway).await;
    assert!(!parties.counts(&second).await, "a permission that is given again revives nothing");

    for (side, act) in [(agent, "revoke-tokens"), (gateway, "revoke-tokens"), (agent, "suspend"), (gateway, "suspend")]
    {
        let token = parties.delegated().await;
        assert!(parties.counts(&token).await, "{act}");
        server.admin.post_empty(&format!("{}/{act}", of(side))).await.expect(200);
        assert!(!parties.counts(&token).await, "{act}");
        if act == "suspend" {
            let error = if side.id == agent.id { (400, "invalid_grant") } else { (401, "invalid_client") };
            refused(&parties.present_as(gateway, &[]).await, error.0, error.1);
            server.admin.post_empty(&format!("{}/reactivate", of(side))).await.expect(200);
            assert!(!parties.counts(&token).await, "{act}");
        }
    }
    // The issuer's word, the client's key, and time.
    let token = parties.delegated().await;
    let path = format!("{}/federated-identities/{}", of(agent), parties.identity["id"].as_str().unwrap());
    server.admin.delete(&path).await.expect(204);
    assert!(!parties.counts(&token).await);
    refused(&parties.present_as(gateway, &[]).await, 400, "invalid_grant");
    trust(server, agent, of_cluster(&parties.cluster)).await;
    let token = parties.delegated().await;
    server.admin.delete(&format!("{}/keys/{}", of(gateway), gateway.key_id)).await.expect(204);
    assert!(!parties.counts(&token).await);
    let key = server.admin.post(&format!("{}/keys", of(gateway)), json!({})).await.expect(201);
    let secret = [("client_secret", key["raw_key"].as_str().unwrap()), ("expires_in", "60")];
    let body = present(server, &parties.assertion(), &secret).await.expect(200);
    server.clock.advance(Duration::from_mins(1));
    assert!(!parties.counts(body["access_token"].as_str().unwrap()).await);
}

/// A client that is neither the assertion's agent nor one of its delegates must not act for that agent, and must not get a token in
/// another agent's name.
async fn a_client_that_is_no_delegate_gets_nothing(db: Database) {
    let parties = Parties::new(db, &[]).await;
    let (server, agent, gateway) = (&parties.server, &parties.agent, &parties.gateway);
    let thief = server.agent("thief", &["admin:*", "agents:read"]).await;
    // Neither the other direction nor a permission for the delegate is one for the agent.
    allow(server, &thief, agent).await;
    allow(server, agent, gateway).await;
    allow(server, gateway, &thief).await;
    let forged = Issuer::start().await.key("a", SigningAlgorithm::Es256).sign(&good(server, &parties.cluster));
    let form = [("grant_type", JWT_BEARER), ("assertion", &forged)];
    let told = as_client(server, gateway, "/oauth/token", &form).await;
    refused(&told, 400, "invalid_grant");
    let record = server.audited("auth.failed").await.remove(0);
    assert_eq!(
        (&record["agent_id"], &details(&record)["reason"]),
        (&json!(gateway.id), &json!("federation_signature"))
    );
    for wanted in [vec![], vec![("scope", "agents:read")], vec![("may_act", thief.id.as_str())]] {
        let answer = parties.present_as(&thief, &wanted).await;
        refused(&answer, 400, "invalid_grant");
        assert_eq!(answer.json(), told.json(), "the client does not learn what was wrong");
        let record = server.audited("token.refused").await.remove(0);
        assert_eq!((&record["agent_id"], &record["resource_id"]), (&json!(thief.id), &json!(thief.key_id)));
        assert_eq!(details(&record)["reason"], "federation_not_a_delegate");
    }
    // Another name does not help: the secret says who the client is.
    for named in [&agent.id, &gateway.id] {
        let more = [("client_id", named.as_str()), ("client_secret", &thief.raw_key)];
        refused(&present(server, &parties.assertion(), &more).await, 401, "invalid_client");
    }
    server.admin.delete(&format!("/agents/{}/delegates/{}", agent.id, gateway.id)).await.expect(204);
    refused(&parties.present_as(gateway, &[]).await, 400, "invalid_grant");
    for action in ["token.issued", "token.exchanged"] {
        assert!(server.audited(action).await.is_empty(), "{action}");
    }
    // Nor does any delegate where the operator allows none.
    allow(server, agent, gateway).await;
    let Parties { server, agent, gateway, cluster, key, identity } = parties;
    let server = server.restart(&[PRIVATE, ("DELEGATION_DEPTH_MAX", "0")]).await;
    let parties = Parties { server, agent, gateway, cluster, key, identity };
    refused(&parties.present_as(&parties.gateway, &[]).await, 400, "invalid_grant");
    let record = parties.server.audited("token.refused").await.remove(0);
    assert_eq!(details(&record)["reason"], "federation_delegation_depth");
    parties.present_as(&parties.agent, &[]).await.expect(200);
}

async fn wrong_client_authentication_is_not_saved_by_an_assertion(db: Database) {
    let parties = Parties::new(db, &[]).await;
    let (server, agent) = (&parties.server, &parties.agent);
    let assertion = parties.assertion();
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
        let answer = present(server, &assertion, &more).await;
        if status == 200 {
            answer.expect(200);
            continue;
        }
        refused(&answer, status, error);
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
    refused(&as_client(server, agent, "/oauth/token", &form).await, 400, "invalid_request");
    assert_eq!(server.audited("token.issued").await.len(), 1);
}

async fn a_token_that_fits_the_client_is_the_clients_own(db: Database) {
    let parties = Parties::new(db, &[]).await;
    let (server, agent, gateway) = (&parties.server, &parties.agent, &parties.gateway);
    allow(server, agent, gateway).await;
    // The gateway runs in the same cluster, under another name.
    let mut of_gateway = of_cluster(&parties.cluster);
    of_gateway["claims"]["sub"] = json!("system:serviceaccount:agents:gateway");
    trust(server, gateway, of_gateway).await;
    assert_eq!(claims(&parties.delegated().await)["sub"], json!(agent.id));
    // Under the same name, the token is each one's own.
    trust(server, gateway, of_cluster(&parties.cluster)).await;
    for client in [agent, gateway] {
        let body = parties.present_as(client, &[]).await.expect(200);
        let said = claims(body["access_token"].as_str().unwrap());
        assert_eq!((&said["sub"], said.get("act")), (&json!(client.id), None));
    }
    // Whose it is must be clear for a third.
    let third = server.agent("third", &["agents:read"]).await;
    allow(server, agent, &third).await;
    refused(&parties.present_as(&third, &[]).await, 400, "invalid_grant");
    let record = server.audited("auth.failed").await.remove(0);
    assert_eq!(details(&record)["reason"], "federation_ambiguous");
}
