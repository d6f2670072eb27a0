//! How a foreign token is judged: by the issuer's keys, its times, and what it says.

use std::{sync::Arc, time::Duration};

use aims::domain::token::SigningAlgorithm;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::yield_now};

use super::{AUDIENCE, Behaviour, DISCOVERY, Issuer, KEYS, Key, PRIVATE, good, of_cluster, present, trust};
use crate::{
    both,
    oauth::{claims, headed, post, refused, repeated, worded},
    support::{Database, Server, details},
};

both!(
    a_workload_needs_no_secret,
    the_word_of_nobody_else_counts,
    what_ends_an_agent_ends_its_workloads_tokens,
    keys_are_kept_and_rotated_ones_picked_up,
    who_hangs_up_keeps_nobody_out,
    issuers_that_do_not_behave_are_not_believed,
    a_token_that_gives_a_member_twice_is_refused,
    nobody_is_sent_into_the_network_of_the_host,
    trust_is_managed_like_other_credentials,
);

/// What an issuer does wrong, and the reason that the record gives for it.
type Misbehaviour = (fn(&mut Behaviour), &'static str);

async fn a_workload_needs_no_secret(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let agent = server.agent("summariser", &["agents:read", "keys:manage"]).await;
    server.admin.delete(&format!("/agents/{}/keys/{}", agent.id, agent.key_id)).await.expect(204);
    let cluster = Issuer::start().await;
    let identity = trust(&server, &agent, of_cluster(&cluster)).await;
    for (kid, algorithm) in
        [("a", SigningAlgorithm::Rs256), ("b", SigningAlgorithm::Es256), ("c", SigningAlgorithm::EdDsa)]
    {
        let key = cluster.key(kid, algorithm);
        let assertion = key.sign(&good(&server, &cluster));
        // The same token again and again: it is read from a file whenever it is needed.
        for _ in 0..2 {
            let body =
                present(&server, &assertion, &[("scope", "agents:read"), ("expires_in", "60")]).await.expect(200);
            assert_eq!((&body["scope"], &body["expires_in"]), (&json!("agents:read"), &json!(60)));
            let token = body["access_token"].as_str().unwrap();
            let said = claims(token);
            assert_eq!((&said["sub"], &said["federated_identity_id"]), (&json!(agent.id), &identity["id"]));
            server.anybody().with_token(token).get("/agents").await.expect(200);
        }
        server.clock.advance(Duration::from_secs(31));
    }
    let live = server.admin.get(&format!("/agents/{}/tokens", agent.id)).await.expect(200);
    assert_eq!(live[0]["federated_identity_id"], identity["id"]);
    let record = server.audited("token.issued").await.remove(0);
    assert_eq!((&record["resource_type"], &record["resource_id"]), (&json!("federated_identity"), &identity["id"]));

    // RFC 9864 has another name for EdDSA with this curve.
    let mut key = cluster.key("d", SigningAlgorithm::EdDsa);
    cluster.behave(|behaviour| behaviour.keys.last_mut().unwrap()["alg"] = json!("Ed25519"));
    let header = |alg: &str| json!({ "alg": alg, "kid": "d" });
    for alg in ["Ed25519", "EdDSA"] {
        let assertion = headed(&header(alg), &good(&server, &cluster), &key.private, key.algorithm);
        present(&server, &assertion, &[]).await.expect(200);
    }
    for alg in ["RS256", "HS256", "none", "Ed448"] {
        let assertion = headed(&header(alg), &good(&server, &cluster), &key.private, key.algorithm);
        refused(&present(&server, &assertion, &[]).await, 400, "invalid_grant");
    }

    // A pipeline, whose keys are where it is said that they are, and whose issuer is no URL.
    let pipeline = Issuer::start().await;
    key = pipeline.key("p", SigningAlgorithm::Rs256);
    let claims = json!({ "repository": "example/summariser", "ref": "refs/heads/main" });
    let jwks_uri = format!("{}/keys", pipeline.url);
    let issuer = "spiffe://pipelines.example";
    trust(&server, &agent, json!({ "issuer": issuer, "jwks_uri": jwks_uri, "audience": "aims", "claims": claims }))
        .await;
    let now = server.clock_secs();
    let said = json!({
        "iss": issuer, "aud": "aims", "sub": "repo:example/summariser:ref:refs/heads/main", "repository": "example/summariser",
        "ref": "refs/heads/main", "exp": now + 300,
    });
    let body = present(&server, &key.sign(&said), &[("client_id", &agent.id)]).await.expect(200);
    // No longer than the word that it was issued at.
    assert_eq!(body["expires_in"], 300);
}

async fn the_word_of_nobody_else_counts(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let agent = server.agent("summariser", &["agents:read"]).await;
    let cluster = Issuer::start().await;
    trust(&server, &agent, of_cluster(&cluster)).await;
    let key = cluster.key("a", SigningAlgorithm::Rs256);
    let (good, now) = (good(&server, &cluster), server.clock_secs());
    let with = |name: &str, value: Value| {
        let mut said = good.clone();
        said[name] = value;
        key.sign(&said)
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
        ("an issuer that nobody can trust", with("iss", json!("\0"))),
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
        let answer = present(&server, assertion, &[]).await;
        assert_eq!(answer.status, 400, "{what}");
        refused(&answer, 400, "invalid_grant");
    }
    let records = server.audited("auth.failed").await;
    assert_eq!(records.len(), attempts.len());
    assert!(records.iter().all(|record| details(record)["reason"].as_str().unwrap().starts_with("federation_")));
    let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")];
    refused(&post(&server.anybody(), "/oauth/token", &form).await, 400, "invalid_request");
    refused(&present(&server, &key.sign(&good), &[("client_id", "x")]).await, 400, "invalid_grant");
    refused(&present(&server, &key.sign(&good), &[("scope", "admin:*")]).await, 400, "invalid_scope");
    present(&server, &key.sign(&good), &[]).await.expect(200);
}

async fn what_ends_an_agent_ends_its_workloads_tokens(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let agent = server.agent("summariser", &["agents:read"]).await;
    let cluster = Issuer::start().await;
    let identity = trust(&server, &agent, of_cluster(&cluster)).await;
    let key = cluster.key("a", SigningAlgorithm::Es256);
    let assertion = key.sign(&good(&server, &cluster));
    let token = async || {
        let body = present(&server, &assertion, &[]).await.expect(200);
        server.anybody().with_token(body["access_token"].as_str().unwrap())
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

async fn keys_are_kept_and_rotated_ones_picked_up(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let agent = server.agent("summariser", &[]).await;
    let cluster = Issuer::start().await;
    trust(&server, &agent, of_cluster(&cluster)).await;
    let first = cluster.key("first", SigningAlgorithm::Es256);
    let send = async |key: &Key| present(&server, &key.sign(&good(&server, &cluster)), &[]).await.status.as_u16();
    // Many at once ask once: for the discovery document and for the keys.
    let answers = futures_util::future::join_all((0..20).map(|_| send(&first))).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    assert_eq!(cluster.asked(), 2);
    // An unknown key has the issuer asked again, but not whenever somebody forges one.
    let second = cluster.key("second", SigningAlgorithm::Es256);
    assert_eq!(send(&second).await, 400);
    assert_eq!(cluster.asked(), 2);
    server.clock.advance(Duration::from_secs(30));
    for _ in 0..5 {
        assert_eq!(send(&second).await, 200);
        assert_eq!(send(&first).await, 200);
    }
    assert_eq!(cluster.asked(), 4);
    // A key that was withdrawn counts until the keys are read again.
    cluster.behave(|behaviour| drop(behaviour.keys.remove(0)));
    server.clock.advance(Duration::from_mins(10));
    assert_eq!((send(&second).await, send(&first).await), (200, 400));
    // While the issuer is down, the keys that are known go on; not for ever.
    cluster.behave(|behaviour| behaviour.is_down = true);
    server.clock.advance(Duration::from_hours(23));
    assert_eq!(send(&second).await, 200);
    server.clock.advance(Duration::from_hours(1));
    assert_eq!(send(&second).await, 400);
    let admin = server.anybody().login(&server.admin_key).await;
    let record = admin.get("/audit?action=auth.failed&limit=1").await.expect(200)[0].clone();
    assert_eq!(details(&record)["reason"], "federation_document_unreadable");
    cluster.behave(|behaviour| behaviour.is_down = false);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(send(&second).await, 200);
}

/// An issuer is not asked often, so an attempt must not end with whoever caused it.
async fn who_hangs_up_keeps_nobody_out(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let issuer = Issuer::start().await;
    let agent = server.agent("summariser", &[]).await;
    trust(&server, &agent, of_cluster(&issuer)).await;
    let assertion = issuer.key("one", SigningAlgorithm::Es256).sign(&good(&server, &issuer));
    let gate = Arc::new(Semaphore::new(0));
    issuer.behave(|behaviour| behaviour.gate = Some(gate.clone()));
    let is_asked = async {
        while issuer.asked() == 0 {
            yield_now().await;
        }
    };
    tokio::select! {
        answer = present(&server, &assertion, &[]) => panic!("answered without the issuer's keys: {answer:?}"),
        () = is_asked => {}
    }
    // Time enough to notice that somebody hung up.
    server.admin.get("/agents").await.expect(200);
    gate.close();
    present(&server, &assertion, &[]).await.expect(200);
}

async fn issuers_that_do_not_behave_are_not_believed(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
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
        trust(&server, &agent, of_cluster(&cluster)).await;
        let key = cluster.key("a", SigningAlgorithm::Es256);
        cluster.behave(behaviour);
        let assertion = key.sign(&good(&server, &cluster));
        let first = present(&server, &assertion, &[]).await;
        refused(&first, 400, "invalid_grant");
        assert_eq!(reason().await, expected, "{number}");
        // The same again, which does not have the issuer asked: the record still says why, and the client learns nothing.
        let asked = cluster.asked();
        assert_eq!(present(&server, &assertion, &[]).await.json(), first.json());
        assert_eq!((reason().await, cluster.asked()), (json!(expected), asked), "{number}");
        // Once it behaves, all is well, and nobody else's signature is.
        cluster.behave(|behaviour| *behaviour = Behaviour { keys: vec![key.public.clone()], ..Behaviour::default() });
        server.clock.advance(Duration::from_secs(30));
        present(&server, &assertion, &[]).await.expect(200);
        let forged = Issuer::start().await.key("a", SigningAlgorithm::Es256).sign(&good(&server, &cluster));
        assert_eq!(present(&server, &forged, &[]).await.json(), first.json());
        assert_eq!(reason().await, "federation_signature", "{number}");
    }
    // Nobody is asked because of a token that nobody would believe.
    let stranger = Issuer::start().await;
    let key = stranger.key("a", SigningAlgorithm::Es256);
    refused(&present(&server, &key.sign(&good(&server, &stranger)), &[]).await, 400, "invalid_grant");
    assert_eq!(stranger.asked(), 0);
}

async fn a_token_that_gives_a_member_twice_is_refused(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let agent = server.agent("summariser", &[]).await;
    let cluster = Issuer::start().await;
    trust(&server, &agent, of_cluster(&cluster)).await;
    let key = cluster.key("a", SigningAlgorithm::Es256);
    let (header, said) = (json!({ "alg": "ES256", "kid": "a" }), good(&server, &cluster));
    let mut other = said.clone();
    other["sub"] = json!("system:serviceaccount:agents:other");
    let deeper = said.to_string().replace("{\"namespace\":\"agents\"}", "{\"namespace\":1,\"namespace\":2}");
    assert_ne!(deeper, said.to_string());
    for (header, said) in [
        (header.to_string(), repeated(&said, "sub", &said["sub"])),
        (header.to_string(), repeated(&other, "sub", &said["sub"])),
        (header.to_string(), deeper),
        (repeated(&header, "kid", &json!("a")), said.to_string()),
    ] {
        let token = worded(&header, &said, &key.private, key.algorithm);
        refused(&present(&server, &token, &[]).await, 400, "invalid_grant");
    }
    let token = worded(&header.to_string(), &said.to_string(), &key.private, key.algorithm);
    present(&server, &token, &[]).await.expect(200);
}

async fn nobody_is_sent_into_the_network_of_the_host(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("summariser", &[]).await;
    let inside = Issuer::start().await;
    let port = inside.url.rsplit(':').next().unwrap().to_owned();
    let key = inside.key("a", SigningAlgorithm::Es256);
    let path = format!("/agents/{}/federated-identities", agent.id);
    // Plain http is refused when it is registered.
    let refusal = server.admin.post(&path, of_cluster(&inside)).await.expect(422);
    assert_eq!(refusal["detail"][0]["loc"], json!(["body", "issuer"]));
    let spiffe = json!({ "issuer": "spiffe://cluster.local", "audience": "a", "claims": { "sub": "x" } });
    server.admin.post(&path, spiffe).await.expect(422);
    // And whatever is https is not asked where it leads inside.
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
        let mut said = good(&server, &inside);
        said["iss"] = json!(issuer);
        refused(&present(&server, &key.sign(&said), &[]).await, 400, "invalid_grant");
        let found = aims::service::fetch::json(&jwks_uri, false).await;
        assert!(found.is_err(), "{host}");
        let error = found.unwrap_err();
        let told = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let told = told.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        assert!(told.contains("not that of a host of the public internet"), "{host}: {told}");
    }
    assert_eq!(inside.asked(), 0);
}

async fn trust_is_managed_like_other_credentials(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("summariser", &["admin:*"]).await;
    let manager = server.agent("manager", &["keys:manage"]).await;
    let path = format!("/agents/{}/federated-identities", agent.id);
    let good = json!({ "issuer": "https://issuer.example", "audience": "aims", "claims": { "sub": "x" } });
    // Whoever could choose who vouches for an administrator would be one.
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
        let answer = server.admin.post(&path, bad).await.expect(422);
        assert_eq!(answer["detail"][0]["loc"], json!(["body", name]), "{value}");
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
