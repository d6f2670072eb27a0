//! DPoP-bound tokens (RFC 9449): useless without a fresh proof for the exact request.

use std::time::Duration;

use aims::{crypto::PrivateKey, domain::token::SigningAlgorithm};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ISSUER, append_member, claims, delegation::allow, key_pair, post, refused, sign_raw, sign_with_header};
use crate::{
    both,
    support::{Agent, Client, Database, Response, Server, details},
};

both!(
    bound_token_requires_proofs_by_its_key,
    token_endpoint_rejects_invalid_proofs,
    api_rejects_invalid_proofs,
    bound_token_cannot_be_used_as_a_bearer_token,
    proof_works_once_across_nodes,
    nonces_expire,
    exchange_preserves_the_binding,
    proof_may_name_an_equivalent_url,
    nonces_survive_a_restart_with_a_shared_secret,
    nonce_challenge_does_not_consume_the_assertion,
    ed25519_keys_accept_both_algorithm_names,
);

const TOKEN: &str = "https://aims.test/oauth/token";
const AGENTS: &str = "https://aims.test/agents";

/// A client's key pair.
struct KeyPair {
    algorithm: Algorithm,
    private: EncodingKey,
    jwk: Value,
    thumbprint: String,
}

impl KeyPair {
    fn new(algorithm: SigningAlgorithm) -> Self {
        let (algorithm, private, mut jwk) = key_pair(&PrivateKey::generate(algorithm).unwrap());
        let thumbprint = aims::crypto::AssertionKey::from_jwk(&jwk).unwrap().thumbprint().to_owned();
        jwk.as_object_mut().unwrap().retain(|name, _| ["kty", "crv", "x", "y", "n", "e"].contains(&name.as_str()));
        Self { algorithm, private, jwk, thumbprint }
    }

    fn header(&self) -> Value {
        json!({ "typ": "dpop+jwt", "alg": format!("{:?}", self.algorithm), "jwk": self.jwk })
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.header(), claims)
    }

    fn sign_as(&self, header: &Value, claims: &Value) -> String {
        sign_with_header(header, claims, &self.private, self.algorithm)
    }
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn ath(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token))
}

/// Returns the current nonce, which the server sends with its challenge.
async fn nonce(server: &Server) -> String {
    let anonymous = server.anonymous();
    let response = anonymous.send(anonymous.request(Method::GET, "/agents").header("dpop", "x")).await;
    response.header("dpop-nonce").unwrap().to_owned()
}

/// Returns the claims of a valid proof for the token endpoint.
async fn token_proof_claims(server: &Server, jti: &str) -> Value {
    json!({ "jti": jti, "htm": "POST", "htu": TOKEN, "iat": server.clock_secs(), "nonce": nonce(server).await })
}

/// Returns the claims of a valid proof for listing agents.
async fn agents_proof_claims(server: &Server, token: &str, jti: &str) -> Value {
    json!({
        "jti": jti, "htm": "GET", "htu": AGENTS, "iat": server.clock_secs(), "nonce": nonce(server).await, "ath": ath(token),
    })
}

async fn request_token(server: &Server, agent: &Agent, proof: &str) -> Response {
    let anonymous = server.anonymous();
    let request = anonymous.request(Method::POST, "/oauth/token").header("dpop", proof);
    let request = request.basic_auth(&agent.id, Some(&agent.raw_key)).form(&[("grant_type", "client_credentials")]);
    anonymous.send(request).await
}

async fn bound_token(server: &Server, agent: &Agent, pair: &KeyPair, jti: &str) -> String {
    let body = request_token(server, agent, &pair.sign(&token_proof_claims(server, jti).await)).await.expect(200);
    body["access_token"].as_str().unwrap().to_owned()
}

/// Lists agents with the given `Authorization` header.
async fn list(client: &Client, authorization: &str, proof: Option<&str>) -> Response {
    let mut request = client.request(Method::GET, "/agents").header("authorization", authorization);
    if let Some(proof) = proof {
        request = request.header("dpop", proof);
    }
    client.send(request).await
}

#[track_caller]
fn assert_challenged(response: &Response, error: &str) {
    assert_eq!(response.status, 401, "{response:?}");
    let challenge = response.header("www-authenticate").unwrap();
    assert!(challenge.starts_with(&format!("DPoP error=\"{error}\"")), "{challenge}");
    assert!(challenge.contains("algs=\"ES256 Ed25519 EdDSA RS256\""), "{challenge}");
    assert!(response.header("dpop-nonce").is_some());
}

async fn bound_token_requires_proofs_by_its_key(db: Database) {
    let server = Server::start(db).await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    for algorithm in [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256] {
        let pair = KeyPair::new(algorithm);
        let body =
            request_token(&server, &agent, &pair.sign(&token_proof_claims(&server, "1").await)).await.expect(200);
        assert_eq!(body["token_type"], "DPoP");
        let token = body["access_token"].as_str().unwrap();
        assert_eq!(claims(token)["cnf"], json!({ "jkt": pair.thumbprint }));
        for (scheme, jti) in [("DPoP", "2"), ("dpop", "3")] {
            let proof = pair.sign(&agents_proof_claims(&server, token, jti).await);
            list(&server.anonymous(), &format!("{scheme} {token}"), Some(&proof)).await.expect(200);
        }
        // Also under the versioned path, which has a different URL.
        let mut payload = agents_proof_claims(&server, token, "4").await;
        payload["htu"] = json!("https://aims.test/api/v1/agents?limit=1");
        let anonymous = server.anonymous();
        let request = anonymous.request(Method::GET, "/api/v1/agents").header("dpop", pair.sign(&payload));
        anonymous.send(request.header("authorization", format!("DPoP {token}"))).await.expect(200);
        let introspected = post(&resource_server.client, "/oauth/introspect", &[("token", token)]).await.expect(200);
        assert_eq!(
            (&introspected["token_type"], &introspected["cnf"]["jkt"]),
            (&json!("DPoP"), &json!(pair.thumbprint))
        );
    }
    // The token of a resource server may be bound, too.
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    let token = bound_token(&server, &resource_server, &pair, "5").await;
    let mut payload = agents_proof_claims(&server, &token, "6").await;
    (payload["htm"], payload["htu"]) = (json!("POST"), json!(format!("{ISSUER}/oauth/introspect")));
    let anonymous = server.anonymous();
    let request = anonymous.request(Method::POST, "/oauth/introspect").header("authorization", format!("DPoP {token}"));
    anonymous.send(request.header("dpop", pair.sign(&payload)).form(&[("token", &token)])).await.expect(200);
    let request =
        anonymous.request(Method::POST, "/oauth/introspect").header("authorization", format!("Bearer {token}"));
    refused(&anonymous.send(request.form(&[("token", &token)])).await, 401, "invalid_token");
    let request = anonymous.request(Method::POST, "/oauth/introspect").header("authorization", format!("DPoP {token}"));
    refused(&anonymous.send(request.form(&[("token", &token)])).await, 401, "invalid_dpop_proof");

    for document in ["oauth-authorization-server", "oauth-protected-resource"] {
        let document = server.anonymous().get(&format!("/.well-known/{document}")).await.expect(200);
        assert_eq!(document["dpop_signing_alg_values_supported"], json!(["ES256", "Ed25519", "EdDSA", "RS256"]));
    }
}

/// Returns proofs that are invalid for any request, derived from a valid one.
fn invalid_proofs(server: &Server, pair: &KeyPair, good: &Value) -> Vec<(&'static str, String)> {
    let now = server.clock_secs();
    let with = |name: &str, value: Value| {
        let mut payload = good.clone();
        payload[name] = value;
        pair.sign(&payload)
    };
    let without = |name: &str| {
        let mut payload = good.clone();
        payload.as_object_mut().unwrap().remove(name);
        pair.sign(&payload)
    };
    let with_header = |name: &str, value: Value| {
        let mut header = pair.header();
        header[name] = value;
        pair.sign_as(&header, good)
    };
    let other = KeyPair::new(SigningAlgorithm::Es256);
    let mut private = pair.jwk.clone();
    private["d"] = json!("AAAA");
    let weak = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([255; 128]), "e": "AQAB" });
    let mut parts: Vec<_> = pair.sign(good).split('.').map(str::to_owned).collect();
    parts[2] = String::new();
    let (plain, payload) = (pair.header(), good.to_string());
    let text = |header: &str, payload: &str| sign_raw(header, payload, &pair.private, pair.algorithm);
    let mut extended = good.clone();
    extended["x"] = json!(1);
    let twice_in_the_key = append_member(&pair.jwk, "kty", &pair.jwk["kty"]);
    let keyed = plain.to_string().replace(&pair.jwk.to_string(), &twice_in_the_key);
    let unsigned =
        format!("{}.{}.", encoded(&json!({ "typ": "dpop+jwt", "alg": "none", "jwk": pair.jwk })), encoded(good));
    vec![
        ("no proof at all", "x".to_owned()),
        ("a claim twice", text(&plain.to_string(), &append_member(good, "htm", &good["htm"]))),
        ("an unknown claim twice", text(&plain.to_string(), &append_member(&extended, "x", &json!(2)))),
        ("a header's member twice", text(&append_member(&plain, "typ", &json!("dpop+jwt")), &payload)),
        ("a key's member twice", text(&keyed, &payload)),
        ("empty", String::new()),
        ("three empty parts", "..".to_owned()),
        ("too long", "x".repeat(9_000)),
        ("another method", with("htm", json!("PUT"))),
        ("the method in small letters", with("htm", json!(good["htm"].as_str().unwrap().to_lowercase()))),
        ("another path", with("htu", json!("https://aims.test/other"))),
        ("another host", with("htu", json!("https://evil.test/agents"))),
        ("no URL", with("htu", json!("/agents"))),
        ("an old time", with("iat", json!(now - 61))),
        ("a time to come", with("iat", json!(now + 6))),
        ("no time", without("iat")),
        ("a time that is none", with("iat", json!("now"))),
        ("no identifier", without("jti")),
        ("an empty identifier", with("jti", json!(""))),
        ("a long identifier", with("jti", json!("x".repeat(257)))),
        ("another type", with_header("typ", json!("JWT"))),
        ("no type", with_header("typ", Value::Null)),
        ("an extension", with_header("crit", json!(["x"]))),
        ("no key", with_header("jwk", Value::Null)),
        ("a private key", with_header("jwk", private)),
        ("a weak key", with_header("jwk", weak)),
        ("a secret", with_header("jwk", json!({ "kty": "oct", "k": "AAAA" }))),
        ("another key", with_header("jwk", other.jwk)),
        ("another algorithm", with_header("alg", json!("RS512"))),
        ("HS256", with_header("alg", json!("HS256"))),
        ("none", unsigned),
        ("no signature", parts.join(".")),
    ]
}

/// Returns proofs without a valid nonce.
fn proofs_without_valid_nonce(pair: &KeyPair, good: &Value) -> Vec<String> {
    let with = |value: Value| {
        let mut payload = good.clone();
        payload["nonce"] = value;
        pair.sign(&payload)
    };
    let mut forged = URL_SAFE_NO_PAD.decode(good["nonce"].as_str().unwrap()).unwrap();
    forged[7] ^= 1;
    vec![with(Value::Null), with(json!("")), with(json!("x")), with(json!(URL_SAFE_NO_PAD.encode(forged)))]
}

async fn token_endpoint_rejects_invalid_proofs(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    let good = token_proof_claims(&server, "1").await;
    let wrong = invalid_proofs(&server, &pair, &good);
    for (what, proof) in &wrong {
        let response = request_token(&server, &agent, proof).await;
        assert_eq!(response.status, 400, "{what}");
        refused(&response, 400, "invalid_dpop_proof");
    }
    for proof in proofs_without_valid_nonce(&pair, &good) {
        let response = request_token(&server, &agent, &proof).await;
        refused(&response, 400, "use_dpop_nonce");
        assert_eq!(response.header("dpop-nonce"), good["nonce"].as_str());
    }
    let anonymous = server.anonymous();
    let request = anonymous.request(Method::POST, "/oauth/token").basic_auth(&agent.id, Some(&agent.raw_key));
    let request = request.header("dpop", pair.sign(&good)).header("dpop", pair.sign(&good));
    refused(&anonymous.send(request.form(&[("grant_type", "client_credentials")])).await, 400, "invalid_dpop_proof");
    let records = server.audited("token.refused").await;
    assert_eq!(records.len(), wrong.len() + 1);
    assert!(records.iter().all(|record| details(record)["reason"].as_str().unwrap().starts_with("dpop_")));
    // None of these consumed the valid proof.
    request_token(&server, &agent, &pair.sign(&good)).await.expect(200);
}

async fn api_rejects_invalid_proofs(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = KeyPair::new(SigningAlgorithm::EdDsa);
    let token = bound_token(&server, &agent, &pair, "1").await;
    let (authorization, anonymous) = (format!("DPoP {token}"), server.anonymous());
    let good = agents_proof_claims(&server, &token, "2").await;
    let mut wrong = invalid_proofs(&server, &pair, &good);
    for ath in [Value::Null, json!(ath("another token"))] {
        let mut payload = good.clone();
        payload["ath"] = ath;
        wrong.push(("another token", pair.sign(&payload)));
    }
    for (what, proof) in &wrong {
        let response = list(&anonymous, &authorization, Some(proof)).await;
        assert_eq!(response.status, 401, "{what}");
        assert_challenged(&response, "invalid_dpop_proof");
    }
    for proof in proofs_without_valid_nonce(&pair, &good) {
        assert_challenged(&list(&anonymous, &authorization, Some(&proof)).await, "use_dpop_nonce");
    }
    assert_challenged(&list(&anonymous, &authorization, None).await, "invalid_dpop_proof");
    let request = anonymous.request(Method::GET, "/agents").header("authorization", &authorization);
    let two = request.header("dpop", pair.sign(&good)).header("dpop", pair.sign(&good));
    assert_challenged(&anonymous.send(two).await, "invalid_dpop_proof");
    // A proof by another key is treated like an invalid token (RFC 9449 §7.1).
    let of_another = KeyPair::new(SigningAlgorithm::EdDsa).sign(&good);
    assert_challenged(&list(&anonymous, &authorization, Some(&of_another)).await, "invalid_token");
    let records = server.audited("auth.failed").await;
    assert_eq!(details(&records[0])["reason"], "dpop_other_key");
    assert_eq!(records.len(), wrong.len() + 3);
    assert!(records.iter().all(|record| details(record)["reason"].as_str().unwrap().starts_with("dpop_")));
    list(&anonymous, &authorization, Some(&pair.sign(&good))).await.expect(200);
    // Revocation works as for other tokens.
    server.admin.post_empty(&format!("/agents/{}/suspend", agent.id)).await.expect(200);
    let proof = pair.sign(&agents_proof_claims(&server, &token, "3").await);
    assert_challenged(&list(&anonymous, &authorization, Some(&proof)).await, "invalid_token");
}

async fn bound_token_cannot_be_used_as_a_bearer_token(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    let token = bound_token(&server, &agent, &pair, "1").await;
    let anonymous = server.anonymous();
    let proof = pair.sign(&agents_proof_claims(&server, &token, "2").await);
    for proof in [None, Some(proof.as_str())] {
        list(&anonymous, &format!("Bearer {token}"), proof).await.refused(401, "Invalid or expired token");
    }
    let record = server.audited("auth.failed").await.remove(0);
    assert_eq!((&details(&record)["reason"], &record["agent_id"]), (&json!("dpop_token_as_bearer"), &json!(agent.id)));
    // Conversely, an unbound token cannot be used with the DPoP scheme.
    let unbound = agent.client.token();
    let proof = pair.sign(&agents_proof_claims(&server, unbound, "3").await);
    assert_challenged(&list(&anonymous, &format!("DPoP {unbound}"), Some(&proof)).await, "invalid_token");
    agent.client.get("/agents").await.expect(200);
}

async fn proof_works_once_across_nodes(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    let token_proof_claims = pair.sign(&token_proof_claims(&server, "1").await);
    let token = request_token(&server, &agent, &token_proof_claims).await.expect(200)["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    refused(&request_token(&server, &agent, &token_proof_claims).await, 400, "invalid_dpop_proof");
    let authorization = format!("DPoP {token}");
    let proof = pair.sign(&agents_proof_claims(&server, &token, "2").await);
    // Of many concurrent uses, one succeeds.
    let anonymous = server.anonymous();
    let attempts = (0..20).map(|_| list(&anonymous, &authorization, Some(&proof)));
    let responses = futures_util::future::join_all(attempts).await;
    assert_eq!(responses.iter().filter(|response| response.status == 200).count(), 1);
    // The same `jti` under another key is a different proof.
    let other = KeyPair::new(SigningAlgorithm::Es256);
    bound_token(&server, &agent, &other, "1").await;
    let before = server.audited("auth.failed").await;
    assert_eq!(details(&before[0])["reason"], "dpop_replayed");

    let server = server.restart(&[]).await;
    assert_challenged(&list(&server.anonymous(), &authorization, Some(&proof)).await, "invalid_dpop_proof");
    if !server.db.is_sqlite() {
        let second = crate::support::open(&server.db, &server.clock, &[]).await;
        let url = crate::support::start(second).await;
        assert_challenged(&list(&Client::new(url.clone()), &authorization, Some(&proof)).await, "invalid_dpop_proof");
        // A nonce issued by one node is valid on the others.
        let fresh = pair.sign(&agents_proof_claims(&server, &token, "3").await);
        list(&Client::new(url), &authorization, Some(&fresh)).await.expect(200);
        assert_challenged(&list(&server.anonymous(), &authorization, Some(&fresh)).await, "invalid_dpop_proof");
    }
    // Proofs that are too old to be replayed are deleted.
    server.clock.advance(Duration::from_mins(2));
    aims::service::people::sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM spent_assertions").await, 0);
}

async fn nonces_expire(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    let token = bound_token(&server, &agent, &pair, "1").await;
    let authorization = format!("DPoP {token}");
    let old = nonce(&server).await;
    for (minutes, status) in [(5, 200), (5, 401)] {
        server.clock.advance(Duration::from_mins(minutes));
        let mut payload = agents_proof_claims(&server, &token, &minutes.to_string()).await;
        let fresh = payload["nonce"].as_str().unwrap().to_owned();
        assert_ne!(fresh, old);
        payload["nonce"] = json!(old);
        payload["jti"] = json!(format!("{minutes} {status}"));
        let response = list(&server.anonymous(), &authorization, Some(&pair.sign(&payload))).await;
        assert_eq!(response.status.as_u16(), status);
        // Successful responses carry the next nonce, too.
        assert_eq!(response.header("dpop-nonce"), Some(fresh.as_str()));
    }
}

async fn exchange_preserves_the_binding(db: Database) {
    let server = Server::start(db).await;
    let planner = server.agent("planner", &["agents:read"]).await;
    let worker = server.agent("worker", &["agents:read"]).await;
    allow(&server, &planner, &worker).await;
    let (of_planner, of_worker) = (KeyPair::new(SigningAlgorithm::Es256), KeyPair::new(SigningAlgorithm::Es256));
    let actor = bound_token(&server, &worker, &of_worker, "1").await;
    let exchange = async |subject: &str, actor: &str, proof: Option<String>| {
        let access_token = "urn:ietf:params:oauth:token-type:access_token";
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", subject),
            ("subject_token_type", access_token),
            ("actor_token", actor),
            ("actor_token_type", access_token),
        ];
        let anonymous = server.anonymous();
        let mut request = anonymous.request(Method::POST, "/oauth/token").form(&form);
        if let Some(proof) = proof {
            request = request.header("dpop", proof);
        }
        anonymous.send(request).await
    };
    let subject = planner.client.token();
    // Only the holder of the actor's key can exchange the actor's token.
    refused(&exchange(subject, &actor, None).await, 400, "invalid_request");
    let by_another = of_planner.sign(&token_proof_claims(&server, "2").await);
    refused(&exchange(subject, &actor, Some(by_another)).await, 400, "invalid_request");
    let proof = of_worker.sign(&token_proof_claims(&server, "3").await);
    let body = exchange(subject, &actor, Some(proof)).await.expect(200);
    assert_eq!(body["token_type"], "DPoP");
    let created = body["access_token"].as_str().unwrap();
    assert_eq!(claims(created)["cnf"]["jkt"], json!(of_worker.thumbprint));
    let proof = of_worker.sign(&agents_proof_claims(&server, created, "4").await);
    list(&server.anonymous(), &format!("DPoP {created}"), Some(&proof)).await.expect(200);
    // A bound subject token is useless without its key.
    let subject = bound_token(&server, &planner, &of_planner, "5").await;
    let proof = of_worker.sign(&token_proof_claims(&server, "6").await);
    refused(&exchange(&subject, &actor, Some(proof)).await, 400, "invalid_request");
}

async fn proof_may_name_an_equivalent_url(db: Database) {
    let mut server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    for issuer in ["https://aims.test", "https://aims.test/", "HTTPS://AIMS.test:443/"] {
        server = server.restart(&[("PUBLIC_URL", issuer)]).await;
        for (number, same) in [TOKEN, "HTTPS://Aims.Test:443/oauth/token", "https://aims.test/./oauth/%74oken?a=b#c"]
            .into_iter()
            .enumerate()
        {
            let mut payload = token_proof_claims(&server, &format!("{issuer} {number}")).await;
            payload["htu"] = json!(same);
            request_token(&server, &agent, &pair.sign(&payload)).await.expect(200);
        }
        for other in [
            "http://aims.test/oauth/token",
            "https://aims.test//oauth/token",
            "https://aims.test/oauth/token/",
            "https://aims.test/oauth%2Ftoken",
            "https://aims.test/tenants/one/oauth/token",
            "https://aims.test@evil.example/oauth/token",
            "https:/aims.test/oauth/token",
            "/oauth/token",
        ] {
            let mut payload = token_proof_claims(&server, "other").await;
            payload["htu"] = json!(other);
            refused(&request_token(&server, &agent, &pair.sign(&payload)).await, 400, "invalid_dpop_proof");
        }
    }
}

async fn nonces_survive_a_restart_with_a_shared_secret(db: Database) {
    let options =
        [("JWT_ALGORITHM", "HS256"), ("JWT_SECRET_KEY", "6a1f0c9be2d84735a0c4e1f79b3d5826"), ("MASTER_KEY", "")];
    let server = Server::start_with(db, &options).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    let (first, second) = (token_proof_claims(&server, "1").await, token_proof_claims(&server, "2").await);
    request_token(&server, &agent, &pair.sign(&first)).await.expect(200);
    let server = server.restart(&options).await;
    refused(&request_token(&server, &agent, &pair.sign(&first)).await, 400, "invalid_dpop_proof");
    request_token(&server, &agent, &pair.sign(&second)).await.expect(200);
}

async fn nonce_challenge_does_not_consume_the_assertion(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let own = KeyPair::new(SigningAlgorithm::Es256);
    let path = format!("/agents/{}/public-keys", agent.id);
    server.admin.post(&path, own.jwk.clone()).await.expect(201);
    let now = server.clock_secs();
    let payload =
        json!({ "iss": agent.id, "sub": agent.id, "aud": ISSUER, "iat": now, "exp": now + 60, "jti": "once" });
    let assertion = own.sign_as(&json!({ "alg": "ES256" }), &payload);
    let send = async |proof: &Value| {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
        ];
        let anonymous = server.anonymous();
        let request = anonymous.request(Method::POST, "/oauth/token").header("dpop", own.sign(proof)).form(&form);
        anonymous.send(request).await
    };
    let mut proof = token_proof_claims(&server, "1").await;
    let nonce = proof.as_object_mut().unwrap().remove("nonce").unwrap();
    refused(&send(&proof).await, 400, "use_dpop_nonce");
    proof["nonce"] = nonce;
    assert_eq!(send(&proof).await.expect(200)["token_type"], "DPoP");
}

async fn ed25519_keys_accept_both_algorithm_names(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let (pair, other) = (KeyPair::new(SigningAlgorithm::EdDsa), KeyPair::new(SigningAlgorithm::Es256));
    let with_alg = |pair: &KeyPair, alg: &str| json!({ "typ": "dpop+jwt", "alg": alg, "jwk": pair.jwk });
    for (number, alg) in ["Ed25519", "EdDSA"].into_iter().enumerate() {
        let proof = pair.sign_as(&with_alg(&pair, alg), &token_proof_claims(&server, &format!("a{number}")).await);
        let body = request_token(&server, &agent, &proof).await.expect(200);
        let token = body["access_token"].as_str().unwrap();
        assert_eq!(claims(token)["cnf"], json!({ "jkt": pair.thumbprint }));
        let proof =
            pair.sign_as(&with_alg(&pair, alg), &agents_proof_claims(&server, token, &format!("b{number}")).await);
        list(&server.anonymous(), &format!("DPoP {token}"), Some(&proof)).await.expect(200);
    }
    // The key's `alg` may be either name.
    let mut named = with_alg(&pair, "Ed25519");
    named["jwk"]["alg"] = json!("Ed25519");
    request_token(&server, &agent, &pair.sign_as(&named, &token_proof_claims(&server, "c").await)).await.expect(200);
    for (pair, alg) in [
        (&pair, "ES256"),
        (&pair, "RS256"),
        (&pair, "HS256"),
        (&pair, "none"),
        (&pair, "Ed448"),
        (&pair, "ed25519"),
        (&other, "Ed25519"),
        (&other, "EdDSA"),
    ] {
        let proof = pair.sign_as(&with_alg(pair, alg), &token_proof_claims(&server, "d").await);
        refused(&request_token(&server, &agent, &proof).await, 400, "invalid_dpop_proof");
    }
}
