//! Tokens that are bound to a key (RFC 9449): worth nothing without a fresh proof for the very request.

use std::time::Duration;

use aims::{crypto::PrivateKey, domain::token::SigningAlgorithm};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ISSUER, claims, delegation::allow, headed, key_pair, post, refused, repeated, worded};
use crate::{
    both,
    support::{Agent, Answer, Client, Database, Server, details},
};

both!(
    a_token_is_bound_to_a_key_and_needs_proofs_by_it,
    wrong_proofs_are_refused_at_the_token_endpoint,
    wrong_proofs_are_refused_by_the_api,
    a_bound_token_is_no_bearer_token,
    a_proof_works_once_on_every_node,
    nonces_grow_old,
    an_exchange_keeps_the_bond,
    a_proof_names_an_equivalent_url,
    a_shared_secret_knows_its_nonces_again,
    an_assertion_is_not_used_up_before_the_nonce_is_known,
    a_key_of_ed25519_signs_by_either_name,
);

const TOKEN: &str = "https://aims.test/oauth/token";
const AGENTS: &str = "https://aims.test/agents";

/// A client's own key pair.
struct Pair {
    algorithm: Algorithm,
    private: EncodingKey,
    jwk: Value,
    thumbprint: String,
}

impl Pair {
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
        headed(header, claims, &self.private, self.algorithm)
    }
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn ath(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token))
}

/// The nonce of the present: what a server tells whoever asks without one.
async fn nonce(server: &Server) -> String {
    let anybody = server.anybody();
    let answer = anybody.send(anybody.request(Method::GET, "/agents").header("dpop", "x")).await;
    answer.header("dpop-nonce").unwrap().to_owned()
}

/// What a good proof for the token endpoint says.
async fn for_token(server: &Server, jti: &str) -> Value {
    json!({ "jti": jti, "htm": "POST", "htu": TOKEN, "iat": server.clock_secs(), "nonce": nonce(server).await })
}

/// What a good proof for a listing of agents says.
async fn for_agents(server: &Server, token: &str, jti: &str) -> Value {
    json!({
        "jti": jti, "htm": "GET", "htu": AGENTS, "iat": server.clock_secs(), "nonce": nonce(server).await, "ath": ath(token),
    })
}

async fn ask(server: &Server, agent: &Agent, proof: &str) -> Answer {
    let anybody = server.anybody();
    let request = anybody.request(Method::POST, "/oauth/token").header("dpop", proof);
    let request = request.basic_auth(&agent.id, Some(&agent.raw_key)).form(&[("grant_type", "client_credentials")]);
    anybody.send(request).await
}

async fn bound(server: &Server, agent: &Agent, pair: &Pair, jti: &str) -> String {
    let body = ask(server, agent, &pair.sign(&for_token(server, jti).await)).await.expect(200);
    body["access_token"].as_str().unwrap().to_owned()
}

/// Lists agents with what the header `Authorization` shall say.
async fn list(client: &Client, authorization: &str, proof: Option<&str>) -> Answer {
    let mut request = client.request(Method::GET, "/agents").header("authorization", authorization);
    if let Some(proof) = proof {
        request = request.header("dpop", proof);
    }
    client.send(request).await
}

#[track_caller]
fn challenged(answer: &Answer, error: &str) {
    assert_eq!(answer.status, 401, "{answer:?}");
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.starts_with(&format!("DPoP error=\"{error}\"")), "{challenge}");
    assert!(challenge.contains("algs=\"ES256 Ed25519 EdDSA RS256\""), "{challenge}");
    assert!(answer.header("dpop-nonce").is_some());
}

async fn a_token_is_bound_to_a_key_and_needs_proofs_by_it(db: Database) {
    let server = Server::start(db).await;
    let asking = server.agent("resource-server", &["tokens:introspect"]).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    for algorithm in [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256] {
        let pair = Pair::new(algorithm);
        let body = ask(&server, &agent, &pair.sign(&for_token(&server, "1").await)).await.expect(200);
        assert_eq!(body["token_type"], "DPoP");
        let token = body["access_token"].as_str().unwrap();
        assert_eq!(claims(token)["cnf"], json!({ "jkt": pair.thumbprint }));
        for (scheme, jti) in [("DPoP", "2"), ("dpop", "3")] {
            let proof = pair.sign(&for_agents(&server, token, jti).await);
            list(&server.anybody(), &format!("{scheme} {token}"), Some(&proof)).await.expect(200);
        }
        // Also where the API is versioned, whose URL is another.
        let mut said = for_agents(&server, token, "4").await;
        said["htu"] = json!("https://aims.test/api/v1/agents?limit=1");
        let anybody = server.anybody();
        let request = anybody.request(Method::GET, "/api/v1/agents").header("dpop", pair.sign(&said));
        anybody.send(request.header("authorization", format!("DPoP {token}"))).await.expect(200);
        let looked_at = post(&asking.client, "/oauth/introspect", &[("token", token)]).await.expect(200);
        assert_eq!((&looked_at["token_type"], &looked_at["cnf"]["jkt"]), (&json!("DPoP"), &json!(pair.thumbprint)));
    }
    // A resource server's own token may be bound, too.
    let pair = Pair::new(SigningAlgorithm::Es256);
    let token = bound(&server, &asking, &pair, "5").await;
    let mut said = for_agents(&server, &token, "6").await;
    (said["htm"], said["htu"]) = (json!("POST"), json!(format!("{ISSUER}/oauth/introspect")));
    let anybody = server.anybody();
    let request = anybody.request(Method::POST, "/oauth/introspect").header("authorization", format!("DPoP {token}"));
    anybody.send(request.header("dpop", pair.sign(&said)).form(&[("token", &token)])).await.expect(200);
    let request = anybody.request(Method::POST, "/oauth/introspect").header("authorization", format!("Bearer {token}"));
    refused(&anybody.send(request.form(&[("token", &token)])).await, 401, "invalid_token");
    let request = anybody.request(Method::POST, "/oauth/introspect").header("authorization", format!("DPoP {token}"));
    refused(&anybody.send(request.form(&[("token", &token)])).await, 401, "invalid_dpop_proof");

    for document in ["oauth-authorization-server", "oauth-protected-resource"] {
        let document = server.anybody().get(&format!("/.well-known/{document}")).await.expect(200);
        assert_eq!(document["dpop_signing_alg_values_supported"], json!(["ES256", "Ed25519", "EdDSA", "RS256"]));
    }
}

/// Proofs that are wrong whatever they are for, made of what a good one says.
fn wrong(server: &Server, pair: &Pair, good: &Value) -> Vec<(&'static str, String)> {
    let now = server.clock_secs();
    let with = |name: &str, value: Value| {
        let mut said = good.clone();
        said[name] = value;
        pair.sign(&said)
    };
    let without = |name: &str| {
        let mut said = good.clone();
        said.as_object_mut().unwrap().remove(name);
        pair.sign(&said)
    };
    let headed = |name: &str, value: Value| {
        let mut header = pair.header();
        header[name] = value;
        pair.sign_as(&header, good)
    };
    let other = Pair::new(SigningAlgorithm::Es256);
    let mut private = pair.jwk.clone();
    private["d"] = json!("AAAA");
    let weak = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([255; 128]), "e": "AQAB" });
    let mut parts: Vec<_> = pair.sign(good).split('.').map(str::to_owned).collect();
    parts[2] = String::new();
    let (plain, said) = (pair.header(), good.to_string());
    let text = |header: &str, said: &str| worded(header, said, &pair.private, pair.algorithm);
    let mut extended = good.clone();
    extended["x"] = json!(1);
    let twice_in_the_key = repeated(&pair.jwk, "kty", &pair.jwk["kty"]);
    let keyed = plain.to_string().replace(&pair.jwk.to_string(), &twice_in_the_key);
    let unsigned =
        format!("{}.{}.", encoded(&json!({ "typ": "dpop+jwt", "alg": "none", "jwk": pair.jwk })), encoded(good));
    vec![
        ("no proof at all", "x".to_owned()),
        ("a claim twice", text(&plain.to_string(), &repeated(good, "htm", &good["htm"]))),
        ("an unknown claim twice", text(&plain.to_string(), &repeated(&extended, "x", &json!(2)))),
        ("a header's member twice", text(&repeated(&plain, "typ", &json!("dpop+jwt")), &said)),
        ("a key's member twice", text(&keyed, &said)),
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
        ("another type", headed("typ", json!("JWT"))),
        ("no type", headed("typ", Value::Null)),
        ("an extension", headed("crit", json!(["x"]))),
        ("no key", headed("jwk", Value::Null)),
        ("a private key", headed("jwk", private)),
        ("a weak key", headed("jwk", weak)),
        ("a secret", headed("jwk", json!({ "kty": "oct", "k": "AAAA" }))),
        ("another key", headed("jwk", other.jwk)),
        ("another algorithm", headed("alg", json!("RS512"))),
        ("HS256", headed("alg", json!("HS256"))),
        ("none", unsigned),
        ("no signature", parts.join(".")),
    ]
}

/// Proofs that lack a nonce that counts.
fn stale(pair: &Pair, good: &Value) -> Vec<String> {
    let with = |value: Value| {
        let mut said = good.clone();
        said["nonce"] = value;
        pair.sign(&said)
    };
    let mut forged = URL_SAFE_NO_PAD.decode(good["nonce"].as_str().unwrap()).unwrap();
    forged[7] ^= 1;
    vec![with(Value::Null), with(json!("")), with(json!("x")), with(json!(URL_SAFE_NO_PAD.encode(forged)))]
}

async fn wrong_proofs_are_refused_at_the_token_endpoint(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = Pair::new(SigningAlgorithm::Es256);
    let good = for_token(&server, "1").await;
    let wrong = wrong(&server, &pair, &good);
    for (what, proof) in &wrong {
        let answer = ask(&server, &agent, proof).await;
        assert_eq!(answer.status, 400, "{what}");
        refused(&answer, 400, "invalid_dpop_proof");
    }
    for proof in stale(&pair, &good) {
        let answer = ask(&server, &agent, &proof).await;
        refused(&answer, 400, "use_dpop_nonce");
        assert_eq!(answer.header("dpop-nonce"), good["nonce"].as_str());
    }
    let anybody = server.anybody();
    let request = anybody.request(Method::POST, "/oauth/token").basic_auth(&agent.id, Some(&agent.raw_key));
    let request = request.header("dpop", pair.sign(&good)).header("dpop", pair.sign(&good));
    refused(&anybody.send(request.form(&[("grant_type", "client_credentials")])).await, 400, "invalid_dpop_proof");
    let records = server.audited("token.refused").await;
    assert_eq!(records.len(), wrong.len() + 1);
    assert!(records.iter().all(|record| details(record)["reason"].as_str().unwrap().starts_with("dpop_")));
    // Nothing of that used the good one up.
    ask(&server, &agent, &pair.sign(&good)).await.expect(200);
}

async fn wrong_proofs_are_refused_by_the_api(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = Pair::new(SigningAlgorithm::EdDsa);
    let token = bound(&server, &agent, &pair, "1").await;
    let (authorization, anybody) = (format!("DPoP {token}"), server.anybody());
    let good = for_agents(&server, &token, "2").await;
    let mut wrong = wrong(&server, &pair, &good);
    for ath in [Value::Null, json!(ath("another token"))] {
        let mut said = good.clone();
        said["ath"] = ath;
        wrong.push(("another token", pair.sign(&said)));
    }
    for (what, proof) in &wrong {
        let answer = list(&anybody, &authorization, Some(proof)).await;
        assert_eq!(answer.status, 401, "{what}");
        challenged(&answer, "invalid_dpop_proof");
    }
    for proof in stale(&pair, &good) {
        challenged(&list(&anybody, &authorization, Some(&proof)).await, "use_dpop_nonce");
    }
    challenged(&list(&anybody, &authorization, None).await, "invalid_dpop_proof");
    let request = anybody.request(Method::GET, "/agents").header("authorization", &authorization);
    let two = request.header("dpop", pair.sign(&good)).header("dpop", pair.sign(&good));
    challenged(&anybody.send(two).await, "invalid_dpop_proof");
    // A key that the token is not bound to is no better than a wrong token (RFC 9449 §7.1).
    let of_another = Pair::new(SigningAlgorithm::EdDsa).sign(&good);
    challenged(&list(&anybody, &authorization, Some(&of_another)).await, "invalid_token");
    let records = server.audited("auth.failed").await;
    assert_eq!(details(&records[0])["reason"], "dpop_other_key");
    assert_eq!(records.len(), wrong.len() + 3);
    assert!(records.iter().all(|record| details(record)["reason"].as_str().unwrap().starts_with("dpop_")));
    list(&anybody, &authorization, Some(&pair.sign(&good))).await.expect(200);
    // What ends other tokens ends these.
    server.admin.post_empty(&format!("/agents/{}/suspend", agent.id)).await.expect(200);
    let proof = pair.sign(&for_agents(&server, &token, "3").await);
    challenged(&list(&anybody, &authorization, Some(&proof)).await, "invalid_token");
}

async fn a_bound_token_is_no_bearer_token(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = Pair::new(SigningAlgorithm::Es256);
    let token = bound(&server, &agent, &pair, "1").await;
    let anybody = server.anybody();
    let proof = pair.sign(&for_agents(&server, &token, "2").await);
    for proof in [None, Some(proof.as_str())] {
        list(&anybody, &format!("Bearer {token}"), proof).await.refused(401, "Invalid or expired token");
    }
    let record = server.audited("auth.failed").await.remove(0);
    assert_eq!((&details(&record)["reason"], &record["agent_id"]), (&json!("dpop_token_as_bearer"), &json!(agent.id)));
    // Nor the other way round: an unbound one proves nothing.
    let unbound = agent.client.token();
    let proof = pair.sign(&for_agents(&server, unbound, "3").await);
    challenged(&list(&anybody, &format!("DPoP {unbound}"), Some(&proof)).await, "invalid_token");
    agent.client.get("/agents").await.expect(200);
}

async fn a_proof_works_once_on_every_node(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = Pair::new(SigningAlgorithm::Es256);
    let for_token = pair.sign(&for_token(&server, "1").await);
    let token = ask(&server, &agent, &for_token).await.expect(200)["access_token"].as_str().unwrap().to_owned();
    refused(&ask(&server, &agent, &for_token).await, 400, "invalid_dpop_proof");
    let authorization = format!("DPoP {token}");
    let proof = pair.sign(&for_agents(&server, &token, "2").await);
    // Of many at once, one.
    let anybody = server.anybody();
    let attempts = (0..20).map(|_| list(&anybody, &authorization, Some(&proof)));
    let answers = futures_util::future::join_all(attempts).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    // The same identifier under another key is another proof.
    let other = Pair::new(SigningAlgorithm::Es256);
    bound(&server, &agent, &other, "1").await;
    let before = server.audited("auth.failed").await;
    assert_eq!(details(&before[0])["reason"], "dpop_replayed");

    let server = server.restart(&[]).await;
    challenged(&list(&server.anybody(), &authorization, Some(&proof)).await, "invalid_dpop_proof");
    if !server.db.is_sqlite() {
        let second = crate::support::open(&server.db, &server.clock, &[]).await;
        let url = crate::support::start(second).await;
        challenged(&list(&Client::new(url.clone()), &authorization, Some(&proof)).await, "invalid_dpop_proof");
        // A nonce of one node counts on the other.
        let fresh = pair.sign(&for_agents(&server, &token, "3").await);
        list(&Client::new(url), &authorization, Some(&fresh)).await.expect(200);
        challenged(&list(&server.anybody(), &authorization, Some(&fresh)).await, "invalid_dpop_proof");
    }
    // What is too old to be replayed is forgotten.
    server.clock.advance(Duration::from_mins(2));
    aims::service::sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM spent_assertions").await, 0);
}

async fn nonces_grow_old(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = Pair::new(SigningAlgorithm::Es256);
    let token = bound(&server, &agent, &pair, "1").await;
    let authorization = format!("DPoP {token}");
    let old = nonce(&server).await;
    for (minutes, status) in [(5, 200), (5, 401)] {
        server.clock.advance(Duration::from_mins(minutes));
        let mut said = for_agents(&server, &token, &minutes.to_string()).await;
        let fresh = said["nonce"].as_str().unwrap().to_owned();
        assert_ne!(fresh, old);
        said["nonce"] = json!(old);
        said["jti"] = json!(format!("{minutes} {status}"));
        let answer = list(&server.anybody(), &authorization, Some(&pair.sign(&said))).await;
        assert_eq!(answer.status.as_u16(), status);
        // Good answers tell the next nonce as well.
        assert_eq!(answer.header("dpop-nonce"), Some(fresh.as_str()));
    }
}

async fn an_exchange_keeps_the_bond(db: Database) {
    let server = Server::start(db).await;
    let planner = server.agent("planner", &["agents:read"]).await;
    let worker = server.agent("worker", &["agents:read"]).await;
    allow(&server, &planner, &worker).await;
    let (of_planner, of_worker) = (Pair::new(SigningAlgorithm::Es256), Pair::new(SigningAlgorithm::Es256));
    let actor = bound(&server, &worker, &of_worker, "1").await;
    let exchange = async |subject: &str, actor: &str, proof: Option<String>| {
        let access_token = "urn:ietf:params:oauth:token-type:access_token";
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", subject),
            ("subject_token_type", access_token),
            ("actor_token", actor),
            ("actor_token_type", access_token),
        ];
        let anybody = server.anybody();
        let mut request = anybody.request(Method::POST, "/oauth/token").form(&form);
        if let Some(proof) = proof {
            request = request.header("dpop", proof);
        }
        anybody.send(request).await
    };
    let subject = planner.client.token();
    // The holder of the actor's key alone exchanges the actor's token.
    refused(&exchange(subject, &actor, None).await, 400, "invalid_request");
    let by_another = of_planner.sign(&for_token(&server, "2").await);
    refused(&exchange(subject, &actor, Some(by_another)).await, 400, "invalid_request");
    let proof = of_worker.sign(&for_token(&server, "3").await);
    let body = exchange(subject, &actor, Some(proof)).await.expect(200);
    assert_eq!(body["token_type"], "DPoP");
    let made = body["access_token"].as_str().unwrap();
    assert_eq!(claims(made)["cnf"]["jkt"], json!(of_worker.thumbprint));
    let proof = of_worker.sign(&for_agents(&server, made, "4").await);
    list(&server.anybody(), &format!("DPoP {made}"), Some(&proof)).await.expect(200);
    // A subject's token that was bound is of no use to whoever lacks the key.
    let subject = bound(&server, &planner, &of_planner, "5").await;
    let proof = of_worker.sign(&for_token(&server, "6").await);
    refused(&exchange(&subject, &actor, Some(proof)).await, 400, "invalid_request");
}

async fn a_proof_names_an_equivalent_url(db: Database) {
    let mut server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = Pair::new(SigningAlgorithm::Es256);
    for issuer in ["https://aims.test", "https://aims.test/", "HTTPS://AIMS.test:443/"] {
        server = server.restart(&[("PUBLIC_URL", issuer)]).await;
        for (number, same) in [TOKEN, "HTTPS://Aims.Test:443/oauth/token", "https://aims.test/./oauth/%74oken?a=b#c"]
            .into_iter()
            .enumerate()
        {
            let mut said = for_token(&server, &format!("{issuer} {number}")).await;
            said["htu"] = json!(same);
            ask(&server, &agent, &pair.sign(&said)).await.expect(200);
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
            let mut said = for_token(&server, "other").await;
            said["htu"] = json!(other);
            refused(&ask(&server, &agent, &pair.sign(&said)).await, 400, "invalid_dpop_proof");
        }
    }
}

async fn a_shared_secret_knows_its_nonces_again(db: Database) {
    let options =
        [("JWT_ALGORITHM", "HS256"), ("JWT_SECRET_KEY", "6a1f0c9be2d84735a0c4e1f79b3d5826"), ("MASTER_KEY", "")];
    let server = Server::with(db, &options).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let pair = Pair::new(SigningAlgorithm::Es256);
    let (first, second) = (for_token(&server, "1").await, for_token(&server, "2").await);
    ask(&server, &agent, &pair.sign(&first)).await.expect(200);
    let server = server.restart(&options).await;
    refused(&ask(&server, &agent, &pair.sign(&first)).await, 400, "invalid_dpop_proof");
    ask(&server, &agent, &pair.sign(&second)).await.expect(200);
}

async fn an_assertion_is_not_used_up_before_the_nonce_is_known(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let own = Pair::new(SigningAlgorithm::Es256);
    let path = format!("/agents/{}/public-keys", agent.id);
    server.admin.post(&path, own.jwk.clone()).await.expect(201);
    let now = server.clock_secs();
    let said = json!({ "iss": agent.id, "sub": agent.id, "aud": ISSUER, "iat": now, "exp": now + 60, "jti": "once" });
    let assertion = own.sign_as(&json!({ "alg": "ES256" }), &said);
    let send = async |proof: &Value| {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
        ];
        let anybody = server.anybody();
        let request = anybody.request(Method::POST, "/oauth/token").header("dpop", own.sign(proof)).form(&form);
        anybody.send(request).await
    };
    let mut proof = for_token(&server, "1").await;
    let nonce = proof.as_object_mut().unwrap().remove("nonce").unwrap();
    refused(&send(&proof).await, 400, "use_dpop_nonce");
    proof["nonce"] = nonce;
    assert_eq!(send(&proof).await.expect(200)["token_type"], "DPoP");
}

async fn a_key_of_ed25519_signs_by_either_name(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let (pair, other) = (Pair::new(SigningAlgorithm::EdDsa), Pair::new(SigningAlgorithm::Es256));
    let headed = |pair: &Pair, alg: &str| json!({ "typ": "dpop+jwt", "alg": alg, "jwk": pair.jwk });
    for (number, alg) in ["Ed25519", "EdDSA"].into_iter().enumerate() {
        let proof = pair.sign_as(&headed(&pair, alg), &for_token(&server, &format!("a{number}")).await);
        let body = ask(&server, &agent, &proof).await.expect(200);
        let token = body["access_token"].as_str().unwrap();
        assert_eq!(claims(token)["cnf"], json!({ "jkt": pair.thumbprint }));
        let proof = pair.sign_as(&headed(&pair, alg), &for_agents(&server, token, &format!("b{number}")).await);
        list(&server.anybody(), &format!("DPoP {token}"), Some(&proof)).await.expect(200);
    }
    // The key may say by which name it goes.
    let mut named = headed(&pair, "Ed25519");
    named["jwk"]["alg"] = json!("Ed25519");
    ask(&server, &agent, &pair.sign_as(&named, &for_token(&server, "c").await)).await.expect(200);
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
        let proof = pair.sign_as(&headed(pair, alg), &for_token(&server, "d").await);
        refused(&ask(&server, &agent, &proof).await, 400, "invalid_dpop_proof");
    }
}
