//! Clients that sign assertions with key pairs of their own (RFC 7523).

use std::time::Duration;

use aims::{crypto::PrivateKey, domain::token::SigningAlgorithm};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{ISSUER, claims, headed, key_pair, post, refused, repeated, worded};
use crate::{
    both,
    support::{Agent, Answer, Client, Database, Server, details, open, start},
};

both!(
    a_key_pair_replaces_the_secret,
    an_assertion_works_once_on_every_node,
    an_assertion_lives_an_hour_at_most_and_the_error_says_so,
    forged_assertions_are_refused,
    public_keys_are_registered_like_other_credentials,
    removing_a_key_ends_its_tokens,
    a_key_of_ed25519_signs_by_either_name,
    every_endpoint_is_an_audience,
    an_audience_may_end_with_a_slash,
);

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A key pair of an agent's own.
struct Pair {
    algorithm: Algorithm,
    private: EncodingKey,
    public: Value,
}

impl Pair {
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

/// The claims of a good assertion.
fn good(server: &Server, agent: &Agent, jti: &str) -> Value {
    let now = server.clock_secs();
    json!({ "iss": agent.id, "sub": agent.id, "aud": ISSUER, "iat": now, "exp": now + 3_600, "jti": jti })
}

async fn register(server: &Server, agent: &Agent, pair: &Pair) -> Value {
    let path = format!("/agents/{}/public-keys", agent.id);
    server.admin.post(&path, pair.public.clone()).await.expect(201)[0].clone()
}

async fn present(server: &Server, assertion: &str) -> Answer {
    present_to(&server.anybody(), assertion).await
}

async fn present_to(client: &Client, assertion: &str) -> Answer {
    let form =
        [("grant_type", "client_credentials"), ("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)];
    post(client, "/oauth/token", &form).await
}

async fn a_key_pair_replaces_the_secret(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read", "keys:manage"]).await;
    server.admin.delete(&format!("/agents/{}/keys/{}", agent.id, agent.key_id)).await.expect(204);
    for (number, algorithm) in
        [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256].into_iter().enumerate()
    {
        let pair = Pair::new(algorithm);
        let registered = register(&server, &agent, &pair).await;
        // The issuer or the token endpoint is the audience, alone or as an array; the key is named, or not.
        let endpoint = format!("{ISSUER}/oauth/token");
        for (form, audience) in
            [json!(ISSUER), json!([ISSUER]), json!(endpoint), json!([ISSUER, endpoint])].into_iter().enumerate()
        {
            let mut claims = good(&server, &agent, &format!("{number}-{form}"));
            claims["aud"] = audience;
            let kid = [None, registered["kid"].as_str(), registered["thumbprint"].as_str()][form % 3];
            let header = Header { kid: kid.map(str::to_owned), ..Header::new(pair.algorithm) };
            let body = present(&server, &pair.sign_as(&header, &claims)).await.expect(200);
            let token = body["access_token"].as_str().unwrap();
            let said = super::claims(token);
            assert_eq!((&said["sub"], &said["public_key_id"]), (&json!(agent.id), &registered["id"]));
            assert!(said.get("key_id").is_none());
            server.anybody().with_token(token).get("/agents").await.expect(200);
        }
    }
    // With more of the request's parameters, and at the other endpoints.
    let pair = Pair::new(SigningAlgorithm::Es256);
    register(&server, &agent, &pair).await;
    let assertion = pair.sign(&good(&server, &agent, "narrow"));
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", agent.id.as_str()),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", &assertion),
        ("scope", "agents:read"),
    ];
    let token = post(&server.anybody(), "/oauth/token", &form).await.expect(200)["access_token"].clone();
    let token = token.as_str().unwrap();
    assert_eq!(claims(token)["scope"], "agents:read");
    let assertion = pair.sign(&good(&server, &agent, "revoke"));
    let form = [("token", token), ("client_assertion_type", JWT_BEARER), ("client_assertion", &assertion)];
    assert_eq!(post(&server.anybody(), "/oauth/revoke", &form).await.status, 200);
    server.anybody().with_token(token).get("/agents").await.refused(401, "Invalid or expired token");
    let issued = server.audited("token.issued").await;
    assert!(issued.iter().all(|record| record["resource_type"] == "public_key"));
}

async fn an_assertion_works_once_on_every_node(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let pair = Pair::new(SigningAlgorithm::Es256);
    register(&server, &agent, &pair).await;
    let assertion = pair.sign(&good(&server, &agent, "once"));
    let answers = futures_util::future::join_all((0..20).map(|_| present(&server, &assertion))).await;
    let accepted = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(accepted, 1);
    if !server.db.is_sqlite() {
        let other = Client::new(start(open(&server.db, &server.clock, &[]).await).await);
        refused(&present_to(&other, &assertion).await, 401, "invalid_client");
    }
    // After a restart, too, and with another signature over the same claims.
    let server = server.restart(&[("JWT_EXPIRATION_MINUTES", "120")]).await;
    refused(&present(&server, &assertion).await, 401, "invalid_client");
    refused(&present(&server, &pair.sign(&good(&server, &agent, "once"))).await, 401, "invalid_client");
    assert_eq!(details(&server.audited("auth.failed").await[0]), json!({ "reason": "assertion_replayed" }));
    // Another agent's identifiers are its own.
    let other = server.agent("other", &[]).await;
    register(&server, &other, &pair).await;
    present(&server, &pair.sign(&good(&server, &other, "once"))).await.expect(200);
    // It is remembered until it has expired, also by a clock that is 5 seconds behind, and then refused for having expired.
    let spent = async || server.db.count("SELECT COUNT(*) FROM spent_assertions").await;
    for (seconds, remembered, reason) in [
        (301, 2, "assertion_replayed"),
        (3_298, 2, "assertion_replayed"),
        (5, 2, "assertion_replayed"),
        (1, 2, "assertion_expired"),
        (10, 0, "assertion_expired"),
    ] {
        server.clock.advance(Duration::from_secs(seconds));
        aims::service::sessions::sweep(&server.services).await.unwrap();
        assert_eq!(spent().await, remembered, "{seconds}");
        refused(&present(&server, &assertion).await, 401, "invalid_client");
        assert_eq!(details(&server.audited("auth.failed").await[0]), json!({ "reason": reason }), "{seconds}");
    }
}

/// Libraries give an assertion an hour by default.
async fn an_assertion_lives_an_hour_at_most_and_the_error_says_so(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let pair = Pair::new(SigningAlgorithm::Es256);
    register(&server, &agent, &pair).await;
    let with = |life: i64| {
        let ends = json!({ "exp": server.clock_secs() + life });
        pair.sign(&changed(&good(&server, &agent, &life.to_string()), &ends))
    };
    for life in [60, 3_600, 3_605] {
        present(&server, &with(life)).await.expect(200);
    }
    let answer = present(&server, &with(3_606)).await;
    refused(&answer, 401, "invalid_client");
    let told = "The exp of the client assertion must be at most 3600 seconds away";
    assert_eq!(answer.json()["error_description"], told);
    assert_eq!(details(&server.audited("auth.failed").await[0]), json!({ "reason": "assertion_lives_too_long" }));
    // Only the client itself learns the reason, and a refused assertion is not used up.
    let stranger = Pair::new(SigningAlgorithm::Es256);
    let forged =
        stranger.sign(&changed(&good(&server, &agent, "forged"), &json!({ "exp": server.clock_secs() + 3_606 })));
    assert_ne!(present(&server, &forged).await.json()["error_description"], told);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM spent_assertions").await, 3);
}

fn changed(claims: &Value, changes: &Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// Assertions that must not be believed, each with what is wrong with it.
fn forgeries(server: &Server, [agent, other]: [&Agent; 2], [pair, foreign]: [&Pair; 2]) -> Vec<(String, String)> {
    let now = server.clock_secs();
    let with = |changes: Value| changed(&good(server, agent, "forged"), &changes);
    let without = |name: &str| {
        let mut claims = good(server, agent, "forged");
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
    // Claims that are wrong, signed by the right key.
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
    // Right claims under the wrong key, or none.
    let right = with(json!({}));
    // A member twice, in the claims or in the header, also where both say the same, or deeper.
    let plain = json!({ "alg": "ES256", "typ": "JWT" });
    let nested = json!({ "team": [{}] }).to_string().replace("{}", "{\"a\": 1, \"a\": 2}");
    for (header, claims) in [
        (plain.to_string(), repeated(&right, "sub", &json!(agent.id))),
        (plain.to_string(), repeated(&changed(&right, &json!({ "sub": other.id })), "sub", &json!(agent.id))),
        (plain.to_string(), repeated(&changed(&right, &json!({ "team": 1 })), "team", &json!(2))),
        (plain.to_string(), repeated(&right, "team", &json!(1)).replace(": 1}", &format!(": {nested}}}"))),
        (repeated(&plain, "alg", &json!("ES256")), right.to_string()),
        (repeated(&json!({ "alg": "ES256", "x": 1 }), "x", &json!(2)), right.to_string()),
    ] {
        forged.push((format!("{header}.{claims}"), worded(&header, &claims, &pair.private, pair.algorithm)));
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

async fn forged_assertions_are_refused(db: Database) {
    let server = Server::with(db, &[("RATE_LIMIT_AUTH_PER_MINUTE", "100000")]).await;
    let (agent, other) = (server.agent("worker", &["agents:read"]).await, server.agent("other", &["admin:*"]).await);
    let (pair, foreign) = (Pair::new(SigningAlgorithm::Es256), Pair::new(SigningAlgorithm::Es256));
    register(&server, &agent, &pair).await;
    register(&server, &other, &foreign).await;
    let with = |changes: Value| changed(&good(&server, &agent, "forged"), &changes);
    let valid = pair.sign(&with(json!({})));
    let forged = forgeries(&server, [&agent, &other], [&pair, &foreign]);
    assert!(forged.len() >= 40, "{}", forged.len());
    for (what, assertion) in &forged {
        let answer = present(&server, assertion).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (401, &json!("invalid_client")), "{what}");
    }
    let reasons: Vec<_> = server.audited("auth.failed").await.iter().map(details).collect();
    assert_eq!(reasons.len(), forged.len());
    assert!(reasons.iter().all(|details| details["reason"].as_str().unwrap().starts_with("assertion_")), "{reasons:?}");

    // Requests that are malformed around a good assertion, which stays unused.
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
        refused(&post(&server.anybody(), "/oauth/token", &form).await, 400, "invalid_request");
    }
    let other_client =
        [grant, ("client_assertion_type", JWT_BEARER), ("client_assertion", &valid), ("client_id", &other.id)];
    refused(&post(&server.anybody(), "/oauth/token", &other_client).await, 401, "invalid_client");
    present(&server, &valid).await.expect(200);
    server.admin.post_empty(&format!("/agents/{}/suspend", agent.id)).await.expect(200);
    refused(&present(&server, &pair.sign(&with(json!({ "jti": "suspended" })))).await, 401, "invalid_client");
}

async fn public_keys_are_registered_like_other_credentials(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let manager = server.agent("manager", &["keys:manage"]).await;
    let path = format!("/agents/{}/public-keys", agent.id);
    let pairs = [Pair::new(SigningAlgorithm::Es256), Pair::new(SigningAlgorithm::EdDsa)];
    // Whoever could sign as the agent would be the agent.
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
    server.admin.post(&path, set).await.refused(409, "The agent has this public key already");
    let mut private = pairs[0].public.clone();
    private["d"] = json!("c2VjcmV0");
    for bad in
        [private, json!({ "keys": [] }), json!({ "keys": "x" }), json!({}), json!({ "kty": "oct", "k": "c2VjcmV0" })]
    {
        let answer = server.admin.post(&path, bad).await;
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(!answer.text.contains("c2VjcmV0"), "{answer:?}");
    }
    // One that is wrong keeps out the others.
    let mixed = json!({ "keys": [Pair::new(SigningAlgorithm::Es256).public, { "kty": "EC" }] });
    server.admin.post(&path, mixed).await.expect(422);
    let many: Vec<_> = (0..19).map(|_| Pair::new(SigningAlgorithm::EdDsa).public).collect();
    server.admin.post(&path, json!({ "keys": many })).await.refused(409, "An agent has at most 20 public keys");
    assert_eq!(server.admin.get(&path).await.expect(200).as_array().unwrap().len(), 2);
    server.admin.get("/agents/00000000-0000-7000-8000-000000000000/public-keys").await.refused(404, "Agent not found");
    let record = &server.audited("public_key.registered").await[1];
    assert_eq!((&details(record)["kid"], &record["resource_type"]), (&json!("primary"), &json!("public_key")));
}

async fn removing_a_key_ends_its_tokens(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = Pair::new(SigningAlgorithm::EdDsa);
    let key = register(&server, &agent, &pair).await;
    let body = present(&server, &pair.sign(&good(&server, &agent, "a"))).await.expect(200);
    let bearer = server.anybody().with_token(body["access_token"].as_str().unwrap());
    bearer.get("/agents").await.expect(200);
    let other = server.agent("other", &[]).await;
    let id = key["id"].as_str().unwrap();
    let of_another = format!("/agents/{}/public-keys/{id}", other.id);
    server.admin.delete(&of_another).await.refused(404, "Public key not found");
    server.admin.delete(&format!("/agents/{}/public-keys/{id}", agent.id)).await.expect(204);
    bearer.get("/agents").await.refused(401, "Invalid or expired token");
    refused(&present(&server, &pair.sign(&good(&server, &agent, "b"))).await, 401, "invalid_client");
    // The agent's other credentials are as they were.
    agent.client.get("/agents").await.expect(200);
    assert_eq!(server.audited("public_key.removed").await.len(), 1);
}

async fn a_key_of_ed25519_signs_by_either_name(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let path = format!("/agents/{}/public-keys", agent.id);
    let (pair, other) = (Pair::new(SigningAlgorithm::EdDsa), Pair::new(SigningAlgorithm::Es256));
    let named = |pair: &Pair, alg: &str| changed(&pair.public, &json!({ "alg": alg }));
    for (pair, alg) in [(&pair, "Ed448"), (&pair, "ES256"), (&pair, "ed25519"), (&other, "Ed25519"), (&other, "EdDSA")]
    {
        server.admin.post(&path, named(pair, alg)).await.expect(422);
    }
    server.admin.post(&path, named(&pair, "Ed25519")).await.expect(201);
    // It is one key, whatever its algorithm is called.
    server.admin.post(&path, named(&pair, "EdDSA")).await.refused(409, "The agent has this public key already");
    register(&server, &agent, &other).await;
    let signed = |pair: &Pair, alg: &str, jti: &str| {
        headed(&json!({ "alg": alg, "typ": "JWT" }), &good(&server, &agent, jti), &pair.private, pair.algorithm)
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
    let document = server.anybody().get("/.well-known/oauth-authorization-server").await.expect(200);
    for endpoint in ["token", "introspection", "revocation"] {
        let algorithms = &document[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")];
        assert_eq!(algorithms, &json!(["ES256", "Ed25519", "EdDSA", "RS256"]));
    }
}

async fn every_endpoint_is_an_audience(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["tokens:introspect"]).await;
    let pair = Pair::new(SigningAlgorithm::Es256);
    register(&server, &agent, &pair).await;
    let paths = ["/oauth/token", "/oauth/introspect", "/oauth/revoke"];
    for asked in paths {
        for named in paths {
            let mut claims = good(&server, &agent, &format!("{asked} {named}"));
            claims["aud"] = json!(format!("{ISSUER}{named}"));
            let assertion = pair.sign(&claims);
            let form = [
                ("grant_type", "client_credentials"),
                ("token", "junk"),
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", &assertion),
            ];
            post(&server.anybody(), asked, &form).await.expect(200);
        }
    }
}

async fn an_audience_may_end_with_a_slash(db: Database) {
    let mut server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let pair = Pair::new(SigningAlgorithm::Es256);
    register(&server, &agent, &pair).await;
    for issuer in [format!("{ISSUER}/"), ISSUER.to_owned()] {
        server = server.restart(&[("PUBLIC_URL", &issuer)]).await;
        for audience in [ISSUER.to_owned(), format!("{ISSUER}/"), format!("{ISSUER}/oauth/token")] {
            let mut claims = good(&server, &agent, &format!("{issuer} {audience}"));
            claims["aud"] = json!(audience);
            present(&server, &pair.sign(&claims)).await.expect(200);
        }
        // Audiences are compared as plain text (RFC 7523 §3).
        for audience in ["https://AIMS.test", "HTTPS://aims.test", "https://aims.test:443", "https://aims.test//"] {
            let mut claims = good(&server, &agent, audience);
            claims["aud"] = json!(audience);
            refused(&present(&server, &pair.sign(&claims)).await, 401, "invalid_client");
        }
    }
}
