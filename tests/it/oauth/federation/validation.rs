//! Validation of foreign tokens: signature, times and claims.

use std::{sync::Arc, time::Duration};

use aims::domain::token::SigningAlgorithm;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::yield_now};

use super::{
    AUDIENCE, Behaviour, DISCOVERY, Issuer, KEYS, Key, PRIVATE, cluster_identity, present, trust, workload_claims,
};
use crate::{
    both,
    oauth::{append_member, claims, post, refused, sign_raw, sign_with_header},
    support::{Database, Server, details},
};

both!(
    workloads_get_tokens_without_a_secret,
    assertions_of_others_are_rejected,
    stopping_an_agent_ends_its_workloads_tokens,
    keys_are_cached_and_rotation_is_noticed,
    cancelled_requests_do_not_block_the_issuer,
    misbehaving_issuers_are_rejected,
    duplicate_members_are_rejected,
    fetches_cannot_reach_private_networks,
    trusting_an_issuer_requires_the_same_authority_as_other_credentials,
);

/// A misbehaviour of an issuer, and the reason that the audit record gives.
type Misbehaviour = (fn(&mut Behaviour), &'static str);

async fn workloads_get_tokens_without_a_secret(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let agent = server.agent("summariser", &["agents:read", "keys:manage"]).await;
    server.admin.delete(&format!("/agents/{}/keys/{}", agent.id, agent.key_id)).await.expect(204);
    let cluster = Issuer::start().await;
    let identity = trust(&server, &agent, cluster_identity(&cluster)).await;
    for (kid, algorithm) in
        [("a", SigningAlgorithm::Rs256), ("b", SigningAlgorithm::Es256), ("c", SigningAlgorithm::EdDsa)]
    {
        let key = cluster.key(kid, algorithm);
        let assertion = key.sign(&workload_claims(&server, &cluster));
        // Workloads present the same token repeatedly: they read it from a file whenever they need one.
        for _ in 0..2 {
            let body =
                present(&server, &assertion, &[("scope", "agents:read"), ("expires_in", "60")]).await.expect(200);
            assert_eq!((&body["scope"], &body["expires_in"]), (&json!("agents:read"), &json!(60)));
            let token = body["access_token"].as_str().unwrap();
            let payload = claims(token);
            assert_eq!((&payload["sub"], &payload["federated_identity_id"]), (&json!(agent.id), &identity["id"]));
            server.anonymous().with_token(token).get("/agents").await.expect(200);
        }
        server.clock.advance(Duration::from_secs(31));
    }
    let live = server.admin.get(&format!("/agents/{}/tokens", agent.id)).await.expect(200);
    assert_eq!(live[0]["federated_identity_id"], identity["id"]);
    let record = server.audited("token.issued").await.remove(0);
    assert_eq!((&record["resource_type"], &record["resource_id"]), (&json!("federated_identity"), &identity["id"]));

    // RFC 9864 defines another name for EdDSA with this curve.
    let mut key = cluster.key("d", SigningAlgorithm::EdDsa);
    cluster.configure(|behaviour| behaviour.keys.last_mut().unwrap()["alg"] = json!("Ed25519"));
    let header = |alg: &str| json!({ "alg": alg, "kid": "d" });
    for alg in ["Ed25519", "EdDSA"] {
        let assertion =
            sign_with_header(&header(alg), &workload_claims(&server, &cluster), &key.private, key.algorithm);
        present(&server, &assertion, &[]).await.expect(200);
    }
    for alg in ["RS256", "HS256", "none", "Ed448"] {
        let assertion =
            sign_with_header(&header(alg), &workload_claims(&server, &cluster), &key.private, key.algorithm);
        refused(&present(&server, &assertion, &[]).await, 400, "invalid_grant");
    }

    // A CI pipeline: its key set URL is configured, and its issuer is not a URL.
    let pipeline = Issuer::start().await;
    key = pipeline.key("p", SigningAlgorithm::Rs256);
    let claims = json!({ "repository": "example/summariser", "ref": "refs/heads/main" });
    let jwks_uri = format!("{}/keys", pipeline.url);
    let issuer = "spiffe://pipelines.example";
    trust(&server, &agent, json!({ "issuer": issuer, "jwks_uri": jwks_uri, "audience": "aims", "claims": claims }))
        .await;
    let now = server.clock_secs();
    let payload = json!({
        "iss": issuer, "aud": "aims", "sub": "repo:example/summariser:ref:refs/heads/main", "repository": "example/summariser",
        "ref": "refs/heads/main", "exp": now + 300,
    });
    let body = present(&server, &key.sign(&payload), &[("client_id", &agent.id)]).await.expect(200);
    // The token must not outlive the assertion.
    assert_eq!(body["expires_in"], 300);
}

async fn assertions_of_others_are_rejected(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let agent = server.agent("summariser", &["agents:read"]).await;
    let cluster = Issuer::start().await;
    trust(&server, &agent, cluster_identity(&cluster)).await;
    let key = cluster.key("a", SigningAlgorithm::Rs256);
    let (good, now) = (workload_claims(&server, &cluster), server.clock_secs());
    let with = |name: &str, value: Value| {
        let mut payload = good.clone();
        payload[name] = value;
        key.sign(&payload)
    };
    let stranger = Issuer::start().await.key("a", SigningAlgorithm::Rs256);
    let hmac = |kid: Option<&str>| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = kid.map(str::to_owned);
        jsonwebtoken::encode(&header, &good, &EncodingKey::from_secret(key.public.to_string().as_bytes())).unwrap()
    };
    let encoded = |value: &Value| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
    };
    let unsigned = format!("{}.{}.", encoded(&json!({ "alg": "none", "kid": "a" })), encoded(&good));
    let unknown = Key { kid: "unknown".to_owned(), ..key.clone() };
    let attempts = [
        ("nonsense", "x".to_owned()),
        ("no signature", unsigned),
        ("a secret", hmac(Some("a"))),
        ("a secret without name", hmac(None)),
        ("another's key", stranger.sign(&good)),
        ("an unknown key", unknown.sign(&good)),
        ("another issuer", with("iss", json!("https://other.example"))),
        ("another spelling of the issuer", with("iss", json!(cluster.url.replace("http", "HTTP")))),
        ("the issuer with a slash", with("iss", json!(format!("{}/", cluster.url)))),
        ("another spelling of the audience", with("aud", json!(AUDIENCE.to_uppercase()))),
        ("the audience with a slash", with("aud", json!(format!("{AUDIENCE}/")))),
        ("no issuer", with("iss", Value::Null)),
        ("an invalid issuer", with("iss", json!("\0"))),
        ("another audience", with("aud", json!(["https://other.example"]))),
        ("no audience", with("aud", Value::Null)),
        ("another workload", with("sub", json!("system:serviceaccount:agents:other"))),
        ("a claim of another kind", with("sub", json!(["system:serviceaccount:agents:summariser"]))),
        ("no subject", with("sub", Value::Null)),
        ("an old token", with("exp", json!(now))),
        ("no end", with("exp", Value::Null)),
        ("a year of life", with("exp", json!(now + 31_536_000))),
        ("a token of tomorrow", with("nbf", json!(now + 6))),
        ("made tomorrow", with("iat", json!(now + 6))),
    ];
    for (what, assertion) in &attempts {
        let response = present(&server, assertion, &[]).await;
        assert_eq!(response.status, 400, "{what}");
        refused(&response, 400, "invalid_grant");
    }
    let records = server.audited("auth.failed").await;
    assert_eq!(records.len(), attempts.len());
    assert!(records.iter().all(|record| details(record)["reason"].as_str().unwrap().starts_with("federation_")));
    let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")];
    refused(&post(&server.anonymous(), "/oauth/token", &form).await, 400, "invalid_request");
    refused(&present(&server, &key.sign(&good), &[("client_id", "x")]).await, 400, "invalid_grant");
    refused(&present(&server, &key.sign(&good), &[("scope", "admin:*")]).await, 400, "invalid_scope");
    present(&server, &key.sign(&good), &[]).await.expect(200);
}

async fn stopping_an_agent_ends_its_workloads_tokens(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let agent = server.agent("summariser", &["agents:read"]).await;
    let cluster = Issuer::start().await;
    let identity = trust(&server, &agent, cluster_identity(&cluster)).await;
    let key = cluster.key("a", SigningAlgorithm::Es256);
    let assertion = key.sign(&workload_claims(&server, &cluster));
    let token = async || {
        let body = present(&server, &assertion, &[]).await.expect(200);
        server.anonymous().with_token(body["access_token"].as_str().unwrap())
    };
    let before = token().await;
    server.admin.post_empty(&format!("/agents/{}/suspend", agent.id)).await.expect(200);
    before.get("/agents").await.refused(401, "Invalid or expired token");
    refused(&present(&server, &assertion, &[]).await, 400, "invalid_grant");
    assert_eq!(details(&server.audited("auth.failed").await[0])["reason"], "agent_suspended");
    server.admin.post_empty(&format!("/agents/{}/reactivate", agent.id)).await.expect(200);
    let after = token().await;
    after.get("/agents").await.expect(200);
    let path = format!("/agents/{}/federated-identities/{}", agent.id, identity["id"].as_str().unwrap());
    server.admin.delete(&path).await.expect(204);
    after.get("/agents").await.refused(401, "Invalid or expired token");
    refused(&present(&server, &assertion, &[]).await, 400, "invalid_grant");
    server.admin.delete(&path).await.refused(404, "Federated identity not found");
}

async fn keys_are_cached_and_rotation_is_noticed(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let agent = server.agent("summariser", &[]).await;
    let cluster = Issuer::start().await;
    trust(&server, &agent, cluster_identity(&cluster)).await;
    let first = cluster.key("first", SigningAlgorithm::Es256);
    let send =
        async |key: &Key| present(&server, &key.sign(&workload_claims(&server, &cluster)), &[]).await.status.as_u16();
    // Concurrent requests cause one fetch of the discovery document and one of the keys.
    let responses = futures_util::future::join_all((0..20).map(|_| send(&first))).await;
    assert!(responses.iter().all(|status| *status == 200), "{responses:?}");
    assert_eq!(cluster.requests(), 2);
    // An unknown `kid` causes another fetch, but forged ones cannot cause many.
    let second = cluster.key("second", SigningAlgorithm::Es256);
    assert_eq!(send(&second).await, 400);
    assert_eq!(cluster.requests(), 2);
    server.clock.advance(Duration::from_secs(30));
    for _ in 0..5 {
        assert_eq!(send(&second).await, 200);
        assert_eq!(send(&first).await, 200);
    }
    assert_eq!(cluster.requests(), 4);
    // A withdrawn key is accepted until the keys are fetched again.
    cluster.configure(|behaviour| drop(behaviour.keys.remove(0)));
    server.clock.advance(Duration::from_mins(10));
    assert_eq!((send(&second).await, send(&first).await), (200, 400));
    // While the issuer is unreachable, known keys stay valid for a limited time.
    cluster.configure(|behaviour| behaviour.is_down = true);
    server.clock.advance(Duration::from_hours(23));
    assert_eq!(send(&second).await, 200);
    server.clock.advance(Duration::from_hours(1));
    assert_eq!(send(&second).await, 400);
    let admin = server.anonymous().login(&server.admin_key).await;
    let record = admin.get("/audit?action=auth.failed&limit=1").await.expect(200)[0].clone();
    assert_eq!(details(&record)["reason"], "federation_document_unreadable");
    cluster.configure(|behaviour| behaviour.is_down = false);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(send(&second).await, 200);
}

/// Fetches are rate limited, so a fetch must complete even if the request that caused it is cancelled.
async fn cancelled_requests_do_not_block_the_issuer(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let issuer = Issuer::start().await;
    let agent = server.agent("summariser", &[]).await;
    trust(&server, &agent, cluster_identity(&issuer)).await;
    let assertion = issuer.key("one", SigningAlgorithm::Es256).sign(&workload_claims(&server, &issuer));
    let gate = Arc::new(Semaphore::new(0));
    issuer.configure(|behaviour| behaviour.gate = Some(gate.clone()));
    let is_asked = async {
        while issuer.requests() == 0 {
            yield_now().await;
        }
    };
    tokio::select! {
        response = present(&server, &assertion, &[]) => panic!("responded without the issuer's keys: {response:?}"),
        () = is_asked => {}
    }
    // Enough time to notice that the client disconnected.
    server.admin.get("/agents").await.expect(200);
    gate.close();
    present(&server, &assertion, &[]).await.expect(200);
}

async fn misbehaving_issuers_are_rejected(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let behaviours: [Misbehaviour; 8] = [
        (|issuer| issuer.issuer = Some("https://other.example".to_owned()), "federation_issuer_differs"),
        (|issuer| issuer.is_down = true, "federation_document_unreadable"),
        (|issuer| issuer.garbles = Some(DISCOVERY), "federation_document_unreadable"),
        (|issuer| issuer.redirects = true, "federation_keys_unreadable"),
        (|issuer| issuer.padding = 300_000, "federation_keys_unreadable"),
        (|issuer| issuer.garbles = Some(KEYS), "federation_keys_unreadable"),
        (|issuer| issuer.keys[0] = json!({ "kty": "oct" }), "federation_keys_unreadable"),
        (|issuer| issuer.repeats = true, "federation_keys_unreadable"),
    ];
    let reason = async || details(&server.audited("auth.failed").await[0])["reason"].clone();
    for (number, (behaviour, expected)) in behaviours.into_iter().enumerate() {
        let agent = server.agent(&format!("agent-{number}"), &[]).await;
        let cluster = Issuer::start().await;
        trust(&server, &agent, cluster_identity(&cluster)).await;
        let key = cluster.key("a", SigningAlgorithm::Es256);
        cluster.configure(behaviour);
        let assertion = key.sign(&workload_claims(&server, &cluster));
        let first = present(&server, &assertion, &[]).await;
        refused(&first, 400, "invalid_grant");
        assert_eq!(reason().await, expected, "{number}");
        // The same again, without a fetch: the record still has the reason, and the client does not learn it.
        let asked = cluster.requests();
        assert_eq!(present(&server, &assertion, &[]).await.json(), first.json());
        assert_eq!((reason().await, cluster.requests()), (json!(expected), asked), "{number}");
        // Once the issuer behaves, its tokens are accepted, and no others.
        cluster
            .configure(|behaviour| *behaviour = Behaviour { keys: vec![key.public.clone()], ..Behaviour::default() });
        server.clock.advance(Duration::from_secs(30));
        present(&server, &assertion, &[]).await.expect(200);
        let forged = Issuer::start().await.key("a", SigningAlgorithm::Es256).sign(&workload_claims(&server, &cluster));
        assert_eq!(present(&server, &forged, &[]).await.json(), first.json());
        assert_eq!(reason().await, "federation_signature", "{number}");
    }
    // Tokens that would be rejected anyway cause no fetch.
    let stranger = Issuer::start().await;
    let key = stranger.key("a", SigningAlgorithm::Es256);
    refused(&present(&server, &key.sign(&workload_claims(&server, &stranger)), &[]).await, 400, "invalid_grant");
    assert_eq!(stranger.requests(), 0);
}

async fn duplicate_members_are_rejected(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let agent = server.agent("summariser", &[]).await;
    let cluster = Issuer::start().await;
    trust(&server, &agent, cluster_identity(&cluster)).await;
    let key = cluster.key("a", SigningAlgorithm::Es256);
    let (header, payload) = (json!({ "alg": "ES256", "kid": "a" }), workload_claims(&server, &cluster));
    let mut other = payload.clone();
    other["sub"] = json!("system:serviceaccount:agents:other");
    let deeper = payload.to_string().replace("{\"namespace\":\"agents\"}", "{\"namespace\":1,\"namespace\":2}");
    assert_ne!(deeper, payload.to_string());
    for (header, payload) in [
        (header.to_string(), append_member(&payload, "sub", &payload["sub"])),
        (header.to_string(), append_member(&other, "sub", &payload["sub"])),
        (header.to_string(), deeper),
        (append_member(&header, "kid", &json!("a")), payload.to_string()),
    ] {
        let token = sign_raw(&header, &payload, &key.private, key.algorithm);
        refused(&present(&server, &token, &[]).await, 400, "invalid_grant");
    }
    let token = sign_raw(&header.to_string(), &payload.to_string(), &key.private, key.algorithm);
    present(&server, &token, &[]).await.expect(200);
}

async fn fetches_cannot_reach_private_networks(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("summariser", &[]).await;
    let inside = Issuer::start().await;
    let port = inside.url.rsplit(':').next().unwrap().to_owned();
    let key = inside.key("a", SigningAlgorithm::Es256);
    let path = format!("/agents/{}/federated-identities", agent.id);
    // Plain http is rejected at registration.
    let refusal = server.admin.post(&path, cluster_identity(&inside)).await.expect(422);
    assert_eq!(refusal["detail"][0]["loc"], json!(["body", "issuer"]));
    let spiffe = json!({ "issuer": "spiffe://cluster.local", "audience": "a", "claims": { "sub": "x" } });
    server.admin.post(&path, spiffe).await.expect(422);
    // https URLs that resolve to internal addresses are not fetched.
    for host in
        ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "0x7f.1", "2130706433", "0.0.0.0"]
    {
        let jwks_uri = format!("https://{host}:{port}/keys");
        let issuer = format!("https://{}.example", host.trim_matches(['[', ']']).replace(':', "-"));
        trust(
            &server,
            &agent,
            json!({
                "issuer": issuer, "jwks_uri": jwks_uri, "audience": AUDIENCE,
                "claims": { "sub": "system:serviceaccount:agents:summariser" },
            }),
        )
        .await;
        let mut payload = workload_claims(&server, &inside);
        payload["iss"] = json!(issuer);
        refused(&present(&server, &key.sign(&payload), &[]).await, 400, "invalid_grant");
        let found = aims::service::credentials::federation::fetch::json(&jwks_uri, false).await;
        assert!(found.is_err(), "{host}");
        let error = found.unwrap_err();
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let causes = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        assert!(causes.contains("its host has no public IP address"), "{host}: {causes}");
    }
    assert_eq!(inside.requests(), 0);
}

async fn trusting_an_issuer_requires_the_same_authority_as_other_credentials(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("summariser", &["admin:*"]).await;
    let manager = server.agent("manager", &["keys:manage"]).await;
    let path = format!("/agents/{}/federated-identities", agent.id);
    let good = json!({ "issuer": "https://issuer.example", "audience": "aims", "claims": { "sub": "x" } });
    // Anybody who chooses the trusted issuers of an administrator could become it, so that requires the same authority.
    assert_eq!(manager.client.post(&path, good.clone()).await.status, 403);
    let added = server.admin.post(&path, good.clone()).await.expect(201);
    assert_eq!((&added["issuer"], &added["jwks_uri"]), (&good["issuer"], &Value::Null));
    assert_eq!(server.admin.get(&path).await.expect(200), json!([added]));
    for (name, value) in [
        ("issuer", json!("")),
        ("issuer", json!("issuer.example")),
        ("issuer", json!("http://issuer.example")),
        ("issuer", json!("https://user:secret@issuer.example")),
        ("jwks_uri", json!("file:///etc/passwd")),
        ("jwks_uri", json!("http://issuer.example/keys")),
        ("audience", json!("")),
        ("claims", json!({})),
        ("claims", json!("sub")),
        ("claims", json!({ "sub": 7 })),
        ("claims", json!({ "iss": "https://issuer.example" })),
    ] {
        let mut bad = good.clone();
        bad[name] = value.clone();
        let response = server.admin.post(&path, bad).await.expect(422);
        assert_eq!(response["detail"][0]["loc"], json!(["body", name]), "{value}");
    }
    for _ in 1..20 {
        server.admin.post(&path, good.clone()).await.expect(201);
    }
    server.admin.post(&path, good).await.refused(409, "An agent has at most 20 federated identities");
    let record = server.audited("federated_identity.added").await.remove(0);
    assert_eq!(details(&record)["claims"], json!({ "sub": "x" }));
    let id = added["id"].as_str().unwrap();
    server.admin.delete(&format!("{path}/{id}")).await.expect(204);
    assert_eq!(server.audited("federated_identity.removed").await[0]["resource_id"], json!(id));
}
