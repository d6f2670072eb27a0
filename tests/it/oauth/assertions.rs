//! Client authentication with `private_key_jwt` (RFC 7523).

use std::time::Duration;

use aims::{
    crypto::PrivateKey,
    domain::{Role, token::SigningAlgorithm},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{ISSUER, append_member, claims, key_pair, post, refused, sign_raw, sign_with_header};
use crate::{
    both,
    support::{Agent, Client, Database, Response, Server, details, open, start},
};

both!(
    key_pair_replaces_the_secret,
    assertion_works_once_across_nodes,
    assertion_lifetime_is_at_most_one_hour_and_the_error_says_so,
    forged_assertions_are_rejected,
    registering_public_keys_requires_the_same_authority_as_other_credentials,
    removing_a_public_key_ends_its_tokens,
    ed25519_keys_accept_both_algorithm_names,
    every_endpoint_is_a_valid_audience,
    audience_may_end_with_a_slash,
);

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client's key pair.
struct KeyPair {
    algorithm: Algorithm,
    private: EncodingKey,
    public: Value,
}

impl KeyPair {
    fn new(algorithm: SigningAlgorithm) -> Self {
        let (algorithm, private, public) = key_pair(&PrivateKey::generate(algorithm).unwrap());
        Self { algorithm, private, public }
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_as(&Header::new(self.algorithm), claims)
    }

    fn sign_as(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.private).unwrap()
    }
}

/// Returns the claims of a valid assertion.
fn valid_claims(server: &Server, agent: &Agent, jti: &str) -> Value {
    let now = server.clock_secs();
    json!({ "iss": agent.id, "sub": agent.id, "aud": ISSUER, "iat": now, "exp": now + 3_600, "jti": jti })
}

async fn register(server: &Server, agent: &Agent, pair: &KeyPair) -> Value {
    let path = format!("/agents/{}/public-keys", agent.id);
    server.admin.post(&path, pair.public.clone()).await.expect(201)[0].clone()
}

async fn present(server: &Server, assertion: &str) -> Response {
    present_to(&server.anonymous(), assertion).await
}

async fn present_to(client: &Client, assertion: &str) -> Response {
    let form =
        [("grant_type", "client_credentials"), ("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)];
    post(client, "/oauth/token", &form).await
}

async fn key_pair_replaces_the_secret(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read", "keys:manage"]).await;
    server.admin.delete(&format!("/agents/{}/keys/{}", agent.id, agent.key_id)).await.expect(204);
    for (number, algorithm) in
        [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256].into_iter().enumerate()
    {
        let pair = KeyPair::new(algorithm);
        let registered = register(&server, &agent, &pair).await;
        // The audience is the issuer or the token endpoint, alone or in an array. The `kid` is optional.
        let endpoint = format!("{ISSUER}/oauth/token");
        for (form, audience) in
            [json!(ISSUER), json!([ISSUER]), json!(endpoint), json!([ISSUER, endpoint])].into_iter().enumerate()
        {
            let mut claims = valid_claims(&server, &agent, &format!("{number}-{form}"));
            claims["aud"] = audience;
            let kid = [None, registered["kid"].as_str(), registered["thumbprint"].as_str()][form % 3];
            let header = Header { kid: kid.map(str::to_owned), ..Header::new(pair.algorithm) };
            let body = present(&server, &pair.sign_as(&header, &claims)).await.expect(200);
            let token = body["access_token"].as_str().unwrap();
            let payload = super::claims(token);
            assert_eq!((&payload["sub"], &payload["public_key_id"]), (&json!(agent.id), &registered["id"]));
            assert!(payload.get("key_id").is_none());
            server.anonymous().with_token(token).get("/agents").await.expect(200);
        }
    }
    // With optional parameters of the request, and at the other endpoints.
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    register(&server, &agent, &pair).await;
    let assertion = pair.sign(&valid_claims(&server, &agent, "narrow"));
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", agent.id.as_str()),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", &assertion),
        ("scope", "agents:read"),
    ];
    let token = post(&server.anonymous(), "/oauth/token", &form).await.expect(200)["access_token"].clone();
    let token = token.as_str().unwrap();
    assert_eq!(claims(token)["scope"], "agents:read");
    let assertion = pair.sign(&valid_claims(&server, &agent, "revoke"));
    let form = [("token", token), ("client_assertion_type", JWT_BEARER), ("client_assertion", &assertion)];
    assert_eq!(post(&server.anonymous(), "/oauth/revoke", &form).await.status, 200);
    server.anonymous().with_token(token).get("/agents").await.refused(401, "Invalid or expired token");
    let issued = server.audited("token.issued").await;
    assert!(issued.iter().all(|record| record["resource_type"] == "public_key"));
}

async fn assertion_works_once_across_nodes(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    register(&server, &agent, &pair).await;
    let assertion = pair.sign(&valid_claims(&server, &agent, "once"));
    let responses = futures_util::future::join_all((0..20).map(|_| present(&server, &assertion))).await;
    let accepted = responses.iter().filter(|response| response.status == 200).count();
    assert_eq!(accepted, 1);
    if !server.db.is_sqlite() {
        let other = Client::new(start(open(&server.db, &server.clock, &[]).await).await);
        refused(&present_to(&other, &assertion).await, 401, "invalid_client");
    }
    // Also after a restart, and with another signature over the same claims.
    let server = server.restart(&[("JWT_EXPIRATION_MINUTES", "120")]).await;
    refused(&present(&server, &assertion).await, 401, "invalid_client");
    refused(&present(&server, &pair.sign(&valid_claims(&server, &agent, "once"))).await, 401, "invalid_client");
    assert_eq!(details(&server.audited("auth.failed").await[0]), json!({ "reason": "assertion_replayed" }));
    // Identifiers of assertions are unique per agent.
    let other = server.agent("other", &[]).await;
    register(&server, &other, &pair).await;
    present(&server, &pair.sign(&valid_claims(&server, &other, "once"))).await.expect(200);
    // An assertion is remembered until it has expired, even for clocks that are 5 seconds behind. Then it is rejected
    // as expired.
    let spent = async || server.db.count("SELECT COUNT(*) FROM spent_assertions").await;
    for (seconds, remembered, reason) in [
        (301, 2, "assertion_replayed"),
        (3_298, 2, "assertion_replayed"),
        (5, 2, "assertion_replayed"),
        (1, 2, "assertion_expired"),
        (10, 0, "assertion_expired"),
    ] {
        server.clock.advance(Duration::from_secs(seconds));
        aims::service::people::sessions::sweep(&server.services).await.unwrap();
        assert_eq!(spent().await, remembered, "{seconds}");
        refused(&present(&server, &assertion).await, 401, "invalid_client");
        assert_eq!(details(&server.audited("auth.failed").await[0]), json!({ "reason": reason }), "{seconds}");
    }
}

/// Many libraries issue assertions for one hour by default.
async fn assertion_lifetime_is_at_most_one_hour_and_the_error_says_so(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    register(&server, &agent, &pair).await;
    let with = |life: i64| {
        let ends = json!({ "exp": server.clock_secs() + life });
        pair.sign(&with_changes(&valid_claims(&server, &agent, &life.to_string()), &ends))
    };
    for life in [60, 3_600, 3_605] {
        present(&server, &with(life)).await.expect(200);
    }
    let response = present(&server, &with(3_606)).await;
    refused(&response, 401, "invalid_client");
    let message = "The exp of the client assertion must be at most 3600 seconds away";
    assert_eq!(response.json()["error_description"], message);
    assert_eq!(details(&server.audited("auth.failed").await[0]), json!({ "reason": "assertion_lives_too_long" }));
    // Only the authenticated client learns the reason, and a rejected assertion is not consumed.
    let stranger = KeyPair::new(SigningAlgorithm::Es256);
    let forged = stranger
        .sign(&with_changes(&valid_claims(&server, &agent, "forged"), &json!({ "exp": server.clock_secs() + 3_606 })));
    assert_ne!(present(&server, &forged).await.json()["error_description"], message);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM spent_assertions").await, 3);
}

fn with_changes(claims: &Value, changes: &Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// Returns invalid assertions with descriptions.
fn forgeries(server: &Server, [agent, other]: [&Agent; 2], [pair, foreign]: [&KeyPair; 2]) -> Vec<(String, String)> {
    let now = server.clock_secs();
    let with = |changes: Value| with_changes(&valid_claims(server, agent, "forged"), &changes);
    let without = |name: &str| {
        let mut claims = valid_claims(server, agent, "forged");
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let encode = |text: &str| {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        URL_SAFE_NO_PAD.encode(text)
    };
    let valid = pair.sign(&with(json!({})));
    let (signed, signature) = valid.rsplit_once('.').unwrap();
    let payload = valid.split('.').nth(1).unwrap();
    let shared = EncodingKey::from_secret(pair.public.to_string().as_bytes());

    let mut forged: Vec<(String, String)> = Vec::new();
    // Invalid claims with a valid signature.
    for changes in [
        json!({ "iss": other.id }),
        json!({ "iss": "someone" }),
        json!({ "sub": other.id }),
        json!({ "sub": other.id, "iss": other.id }),
        json!({ "sub": "nobody", "iss": "nobody" }),
        json!({ "aud": "https://other.example" }),
        json!({ "aud": format!("{ISSUER}//") }),
        json!({ "aud": format!("{ISSUER}/oauth/authorize") }),
        json!({ "aud": format!("{ISSUER}/oauth/token/x") }),
        json!({ "aud": "/oauth/token" }),
        json!({ "aud": "/" }),
        json!({ "aud": format!("{ISSUER}.evil.example") }),
        json!({ "aud": [ISSUER, "https://other.example"] }),
        json!({ "aud": [] }),
        json!({ "aud": { "0": ISSUER } }),
        json!({ "aud": null }),
        json!({ "exp": now - 6 }),
        json!({ "exp": now + 3_606 }),
        json!({ "exp": now + 365 * 86_400 }),
        json!({ "exp": i64::MAX }),
        json!({ "exp": 1e30 }),
        json!({ "exp": -1 }),
        json!({ "exp": "soon" }),
        json!({ "nbf": now + 60 }),
        json!({ "iat": now + 60 }),
        json!({ "iat": "now" }),
        json!({ "jti": "" }),
        json!({ "jti": "j".repeat(257) }),
        json!({ "jti": 5 }),
    ] {
        forged.push((changes.to_string(), pair.sign(&with(changes))));
    }
    for name in ["iss", "sub", "aud", "exp", "jti"] {
        forged.push((format!("without {name}"), pair.sign(&without(name))));
    }
    // Valid claims with a wrong signature, or none.
    let right = with(json!({}));
    // Duplicate members in claims or header, also nested ones and ones with equal values.
    let plain = json!({ "alg": "ES256", "typ": "JWT" });
    let nested = json!({ "team": [{}] }).to_string().replace("{}", "{\"a\": 1, \"a\": 2}");
    for (header, claims) in [
        (plain.to_string(), append_member(&right, "sub", &json!(agent.id))),
        (plain.to_string(), append_member(&with_changes(&right, &json!({ "sub": other.id })), "sub", &json!(agent.id))),
        (plain.to_string(), append_member(&with_changes(&right, &json!({ "team": 1 })), "team", &json!(2))),
        (plain.to_string(), append_member(&right, "team", &json!(1)).replace(": 1}", &format!(": {nested}}}"))),
        (append_member(&plain, "alg", &json!("ES256")), right.to_string()),
        (append_member(&json!({ "alg": "ES256", "x": 1 }), "x", &json!(2)), right.to_string()),
    ] {
        forged.push((format!("{header}.{claims}"), sign_raw(&header, &claims, &pair.private, pair.algorithm)));
    }
    let header = |name: &str, value: Value| {
        let mut header = json!({ "alg": "ES256", "typ": "JWT" });
        header[name] = value;
        format!("{}.{payload}.{signature}", encode(&header.to_string()))
    };
    forged.extend([
        ("another agent's key".to_owned(), foreign.sign(&right)),
        (
            "unknown kid".to_owned(),
            pair.sign_as(&Header { kid: Some("x".into()), ..Header::new(Algorithm::ES256) }, &right),
        ),
        ("alg none".to_owned(), format!("{}.{payload}.", encode("{\"alg\":\"none\"}"))),
        ("alg none, signed".to_owned(), header("alg", json!("none"))),
        (
            "alg HS256 with the public key".to_owned(),
            jsonwebtoken::encode(&Header::default(), &right, &shared).unwrap(),
        ),
        ("alg EdDSA".to_owned(), header("alg", json!("EdDSA"))),
        ("alg Ed25519".to_owned(), header("alg", json!("Ed25519"))),
        ("critical header".to_owned(), header("crit", json!(["exp"]))),
        ("key in the header".to_owned(), header("jwk", foreign.public.clone())),
        ("no signature".to_owned(), format!("{signed}.")),
        ("signature of others".to_owned(), format!("{signed}.{}", encode(&"x".repeat(64)))),
        ("two parts".to_owned(), signed.to_owned()),
        ("four parts".to_owned(), format!("{valid}.x")),
        ("no claims".to_owned(), format!("{}..{signature}", encode("{\"alg\":\"ES256\"}"))),
        ("an API key".to_owned(), agent.raw_key.clone()),
        ("an access token".to_owned(), agent.client.token().to_owned()),
        ("junk".to_owned(), "x".to_owned()),
        ("long".to_owned(), "x".repeat(100_000)),
    ]);
    forged
}

async fn forged_assertions_are_rejected(db: Database) {
    let server = Server::start_with(db, &[("RATE_LIMIT_AUTH_PER_MINUTE", "100000")]).await;
    let (agent, other) = (server.agent("worker", &["agents:read"]).await, server.agent("other", &["admin:*"]).await);
    let (pair, foreign) = (KeyPair::new(SigningAlgorithm::Es256), KeyPair::new(SigningAlgorithm::Es256));
    register(&server, &agent, &pair).await;
    register(&server, &other, &foreign).await;
    let with = |changes: Value| with_changes(&valid_claims(&server, &agent, "forged"), &changes);
    let valid = pair.sign(&with(json!({})));
    let forged = forgeries(&server, [&agent, &other], [&pair, &foreign]);
    assert!(forged.len() >= 40, "{}", forged.len());
    for (what, assertion) in &forged {
        let response = present(&server, assertion).await;
        assert_eq!((response.status.as_u16(), &response.json()["error"]), (401, &json!("invalid_client")), "{what}");
    }
    let reasons: Vec<_> = server.audited("auth.failed").await.iter().map(details).collect();
    assert_eq!(reasons.len(), forged.len());
    assert!(reasons.iter().all(|details| details["reason"].as_str().unwrap().starts_with("assertion_")), "{reasons:?}");

    // Malformed requests with a valid assertion, which is not consumed.
    let grant = ("grant_type", "client_credentials");
    for form in [
        vec![grant, ("client_assertion", valid.as_str())],
        vec![grant, ("client_assertion_type", JWT_BEARER)],
        vec![grant, ("client_assertion_type", "saml2-bearer"), ("client_assertion", &valid)],
        vec![
            grant,
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", &valid),
            ("client_secret", &agent.raw_key),
        ],
        vec![grant, ("client_assertion_type", JWT_BEARER), ("client_assertion", &valid), ("client_assertion", &valid)],
    ] {
        refused(&post(&server.anonymous(), "/oauth/token", &form).await, 400, "invalid_request");
    }
    let other_client =
        [grant, ("client_assertion_type", JWT_BEARER), ("client_assertion", &valid), ("client_id", &other.id)];
    refused(&post(&server.anonymous(), "/oauth/token", &other_client).await, 401, "invalid_client");
    present(&server, &valid).await.expect(200);
    server.admin.post_empty(&format!("/agents/{}/suspend", agent.id)).await.expect(200);
    refused(&present(&server, &pair.sign(&with(json!({ "jti": "suspended" })))).await, 401, "invalid_client");
}

async fn registering_public_keys_requires_the_same_authority_as_other_credentials(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let manager = server.agent("manager", &["keys:manage"]).await;
    let path = format!("/agents/{}/public-keys", agent.id);
    let pairs = [KeyPair::new(SigningAlgorithm::Es256), KeyPair::new(SigningAlgorithm::EdDsa)];
    // Anybody who can sign as the agent is the agent, so registering a key requires authority over it.
    let refusal = "The agent holds authority that you lack: agents:read";
    manager.client.post(&path, pairs[0].public.clone()).await.refused(403, refusal);
    agent.client.post(&path, pairs[0].public.clone()).await.refused(403, "Missing required capability: keys:manage");

    let mut named = pairs[0].public.clone();
    named["kid"] = json!("primary");
    let set = json!({ "keys": [named, pairs[1].public] });
    let registered = server.admin.post(&path, set.clone()).await.expect(201);
    assert_eq!(registered[0]["kid"], "primary");
    let listed = server.admin.get(&path).await.expect(200);
    assert!(registered.as_array().unwrap().iter().all(|key| listed.as_array().unwrap().contains(key)), "{listed}");
    server.admin.post(&path, set).await.refused(409, "The agent already has this public key");
    let mut private = pairs[0].public.clone();
    private["d"] = json!("c2VjcmV0");
    for bad in
        [private, json!({ "keys": [] }), json!({ "keys": "x" }), json!({}), json!({ "kty": "oct", "k": "c2VjcmV0" })]
    {
        let response = server.admin.post(&path, bad).await;
        assert_eq!(response.status, 422, "{response:?}");
        assert!(!response.text.contains("c2VjcmV0"), "{response:?}");
    }
    // One invalid key rejects the whole set.
    let mixed = json!({ "keys": [KeyPair::new(SigningAlgorithm::Es256).public, { "kty": "EC" }] });
    server.admin.post(&path, mixed).await.expect(422);
    let many: Vec<_> = (0..19).map(|_| KeyPair::new(SigningAlgorithm::EdDsa).public).collect();
    server.admin.post(&path, json!({ "keys": many })).await.refused(409, "An agent has at most 20 public keys");
    assert_eq!(server.admin.get(&path).await.expect(200).as_array().unwrap().len(), 2);
    server.admin.get("/agents/00000000-0000-7000-8000-000000000000/public-keys").await.refused(404, "Agent not found");
    let record = &server.audited("public_key.registered").await[1];
    assert_eq!((&details(record)["kid"], &record["resource_type"]), (&json!("primary"), &json!("public_key")));
}

async fn removing_a_public_key_ends_its_tokens(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = KeyPair::new(SigningAlgorithm::EdDsa);
    let key = register(&server, &agent, &pair).await;
    let body = present(&server, &pair.sign(&valid_claims(&server, &agent, "a"))).await.expect(200);
    let bearer = server.anonymous().with_token(body["access_token"].as_str().unwrap());
    bearer.get("/agents").await.expect(200);
    let other = server.agent("other", &[]).await;
    let id = key["id"].as_str().unwrap();
    let console = server.signed_in("zoe", Role::Operator).await;
    let page = console.get(&format!("/console/agents/{}/public-keys/{id}/remove", agent.id)).await.expect(200);
    page.shows("Last used</dt><dd><time").shows("Active tokens that end</dt><dd><span class=\"wrap\">1</span>");
    let of_another = format!("/agents/{}/public-keys/{id}", other.id);
    server.admin.delete(&of_another).await.refused(404, "Public key not found");
    server.admin.delete(&format!("/agents/{}/public-keys/{id}", agent.id)).await.expect(204);
    bearer.get("/agents").await.refused(401, "Invalid or expired token");
    refused(&present(&server, &pair.sign(&valid_claims(&server, &agent, "b"))).await, 401, "invalid_client");
    // The agent's other credentials are unaffected.
    agent.client.get("/agents").await.expect(200);
    assert_eq!(server.audited("public_key.removed").await.len(), 1);
}

async fn ed25519_keys_accept_both_algorithm_names(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let path = format!("/agents/{}/public-keys", agent.id);
    let (pair, other) = (KeyPair::new(SigningAlgorithm::EdDsa), KeyPair::new(SigningAlgorithm::Es256));
    let named = |pair: &KeyPair, alg: &str| with_changes(&pair.public, &json!({ "alg": alg }));
    for (pair, alg) in [(&pair, "Ed448"), (&pair, "ES256"), (&pair, "ed25519"), (&other, "Ed25519"), (&other, "EdDSA")]
    {
        server.admin.post(&path, named(pair, alg)).await.expect(422);
    }
    server.admin.post(&path, named(&pair, "Ed25519")).await.expect(201);
    // Both names denote the same key.
    server.admin.post(&path, named(&pair, "EdDSA")).await.refused(409, "The agent already has this public key");
    register(&server, &agent, &other).await;
    let signed = |pair: &KeyPair, alg: &str, jti: &str| {
        sign_with_header(
            &json!({ "alg": alg, "typ": "JWT" }),
            &valid_claims(&server, &agent, jti),
            &pair.private,
            pair.algorithm,
        )
    };
    for alg in ["Ed25519", "EdDSA"] {
        present(&server, &signed(&pair, alg, alg)).await.expect(200);
    }
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
        refused(&present(&server, &signed(pair, alg, "x")).await, 401, "invalid_client");
    }
    let document = server.anonymous().get("/.well-known/oauth-authorization-server").await.expect(200);
    for endpoint in ["token", "introspection", "revocation"] {
        let algorithms = &document[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")];
        assert_eq!(algorithms, &json!(["ES256", "Ed25519", "EdDSA", "RS256"]));
    }
}

async fn every_endpoint_is_a_valid_audience(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["tokens:introspect"]).await;
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    register(&server, &agent, &pair).await;
    let paths = ["/oauth/token", "/oauth/introspect", "/oauth/revoke"];
    for asked in paths {
        for named in paths {
            let mut claims = valid_claims(&server, &agent, &format!("{asked} {named}"));
            claims["aud"] = json!(format!("{ISSUER}{named}"));
            let assertion = pair.sign(&claims);
            let form = [
                ("grant_type", "client_credentials"),
                ("token", "junk"),
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", &assertion),
            ];
            post(&server.anonymous(), asked, &form).await.expect(200);
        }
    }
}

async fn audience_may_end_with_a_slash(db: Database) {
    let mut server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let pair = KeyPair::new(SigningAlgorithm::Es256);
    register(&server, &agent, &pair).await;
    for issuer in [format!("{ISSUER}/"), ISSUER.to_owned()] {
        server = server.restart(&[("PUBLIC_URL", &issuer)]).await;
        for audience in [ISSUER.to_owned(), format!("{ISSUER}/"), format!("{ISSUER}/oauth/token")] {
            let mut claims = valid_claims(&server, &agent, &format!("{issuer} {audience}"));
            claims["aud"] = json!(audience);
            present(&server, &pair.sign(&claims)).await.expect(200);
        }
        // Audiences are compared as strings (RFC 7523 §3).
        for audience in ["https://AIMS.test", "HTTPS://aims.test", "https://aims.test:443", "https://aims.test//"] {
            let mut claims = valid_claims(&server, &agent, audience);
            claims["aud"] = json!(audience);
            refused(&present(&server, &pair.sign(&claims)).await, 401, "invalid_client");
        }
    }
}
