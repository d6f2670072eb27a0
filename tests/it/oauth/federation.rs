//! Agents that another issuer vouches for (RFC 7523 §2.1): no secret at all, and nobody else's word counts.

use std::{
    sync::{Arc, Mutex, atomic::AtomicU32, atomic::Ordering::SeqCst},
    time::Duration,
};

use aims::{crypto::PrivateKey, domain::token::SigningAlgorithm};
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::yield_now};

use super::{claims, headed, key_pair, post, refused};
use crate::{
    both,
    support::{Agent, Answer, Database, Server, details},
};

both!(
    a_workload_needs_no_secret,
    the_word_of_nobody_else_counts,
    what_ends_an_agent_ends_its_workloads_tokens,
    keys_are_kept_and_rotated_ones_picked_up,
    who_hangs_up_keeps_nobody_out,
    issuers_that_do_not_behave_are_not_believed,
    nobody_is_sent_into_the_network_of_the_host,
    several_agents_may_trust_one_issuer,
    who_trusts_others_keys_is_not_confused_with_anybody,
    nobody_takes_the_place_of_who_cannot_be_judged,
    an_issuer_of_many_costs_no_more_than_one_of_few,
    trust_is_managed_like_other_credentials,
    basic_without_a_secret_says_who_the_client_is,
);

const PRIVATE: (&str, &str) = ("FEDERATION_ALLOW_PRIVATE_ADDRESSES", "true");
const AUDIENCE: &str = "https://aims.test";

/// How an issuer does not behave.
type Misbehaviour = (&'static str, fn(&mut Behaviour));

/// A foreign issuer, and how it behaves.
#[derive(Clone)]
struct Issuer {
    url: String,
    behaviour: Arc<Mutex<Behaviour>>,
    asked: Arc<AtomicU32>,
}

#[derive(Default)]
struct Behaviour {
    keys: Vec<Value>,
    /// What the discovery document says in place of the truth.
    issuer: Option<String>,
    is_down: bool,
    redirects: bool,
    padding: usize,
    /// Answers are held back until it is open.
    gate: Option<Arc<Semaphore>>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self { url, behaviour: Arc::default(), asked: Arc::default() };
        let router = Router::new().fallback(Self::answer).with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    async fn answer(State(issuer): State<Self>, uri: axum::http::Uri) -> impl IntoResponse {
        issuer.asked.fetch_add(1, SeqCst);
        let gate = issuer.behaviour.lock().unwrap().gate.clone();
        if let Some(gate) = gate {
            drop(gate.acquire().await);
        }
        let behaviour = issuer.behaviour.lock().unwrap();
        if behaviour.is_down {
            return (StatusCode::INTERNAL_SERVER_ERROR, [("location", String::new())], String::new());
        }
        let body = match uri.path() {
            "/.well-known/openid-configuration" => json!({
                "issuer": behaviour.issuer.as_ref().unwrap_or(&issuer.url), "jwks_uri": format!("{}/keys", issuer.url),
            }),
            "/keys" if behaviour.redirects => {
                return (StatusCode::FOUND, [("location", format!("{}/moved", issuer.url))], String::new());
            }
            "/keys" | "/moved" => json!({ "keys": behaviour.keys, "padding": "x".repeat(behaviour.padding) }),
            _ => return (StatusCode::NOT_FOUND, [("location", String::new())], String::new()),
        };
        (StatusCode::OK, [("location", String::new())], body.to_string())
    }

    fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    /// Publishes a new key.
    fn key(&self, kid: &str, algorithm: SigningAlgorithm) -> Key {
        let (algorithm, private, mut public) = key_pair(&PrivateKey::generate(algorithm).unwrap());
        public["kid"] = json!(kid);
        // As real ones are published.
        public["x5c"] = json!(["MIIC"]);
        self.behave(|behaviour| behaviour.keys.push(public.clone()));
        Key { kid: kid.to_owned(), algorithm, private, public }
    }

    fn asked(&self) -> u32 {
        self.asked.load(SeqCst)
    }
}

#[derive(Clone)]
struct Key {
    kid: String,
    algorithm: Algorithm,
    private: EncodingKey,
    public: Value,
}

impl Key {
    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }
}

async fn trust(server: &Server, agent: &Agent, trust: Value) -> Value {
    server.admin.post(&format!("/agents/{}/federated-identities", agent.id), trust).await.expect(201)
}

/// What a token of a cluster says of a workload.
fn good(server: &Server, issuer: &Issuer) -> Value {
    let now = server.clock_secs();
    json!({
        "iss": issuer.url, "aud": [AUDIENCE], "sub": "system:serviceaccount:agents:summariser", "iat": now, "nbf": now,
        "exp": now + 3_600, "kubernetes.io": { "namespace": "agents" },
    })
}

async fn present(server: &Server, assertion: &str, more: &[(&str, &str)]) -> Answer {
    let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion)];
    post(&server.anybody(), "/oauth/token", &[form.as_slice(), more].concat()).await
}

fn of_cluster(issuer: &Issuer) -> Value {
    json!({ "issuer": issuer.url, "audience": AUDIENCE, "claims": { "sub": "system:serviceaccount:agents:summariser" } })
}

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
    let two = [("client_secret", agent.raw_key.as_str())];
    refused(&present(&server, &key.sign(&good), &two).await, 400, "invalid_request");
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
    let behaviours: [Misbehaviour; 4] = [
        ("another's discovery document", |behaviour| behaviour.issuer = Some("https://other.example".to_owned())),
        ("a redirect", |behaviour| behaviour.redirects = true),
        ("more than is read", |behaviour| behaviour.padding = 300_000),
        ("an error", |behaviour| behaviour.is_down = true),
    ];
    for (number, (what, behaviour)) in behaviours.into_iter().enumerate() {
        let agent = server.agent(&format!("agent-{number}"), &[]).await;
        let cluster = Issuer::start().await;
        trust(&server, &agent, of_cluster(&cluster)).await;
        let key = cluster.key("a", SigningAlgorithm::Es256);
        cluster.behave(behaviour);
        let assertion = key.sign(&good(&server, &cluster));
        let answer = present(&server, &assertion, &[]).await;
        assert_eq!(answer.status, 400, "{what}");
        refused(&answer, 400, "invalid_grant");
        // Once it behaves, all is well.
        cluster.behave(|behaviour| *behaviour = Behaviour { keys: behaviour.keys.clone(), ..Behaviour::default() });
        server.clock.advance(Duration::from_secs(30));
        present(&server, &assertion, &[]).await.expect(200);
    }
    // Nobody is asked because of a token that nobody would believe.
    let stranger = Issuer::start().await;
    let key = stranger.key("a", SigningAlgorithm::Es256);
    refused(&present(&server, &key.sign(&good(&server, &stranger)), &[]).await, 400, "invalid_grant");
    assert_eq!(stranger.asked(), 0);
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

async fn several_agents_may_trust_one_issuer(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let (one, other) = (server.agent("one", &[]).await, server.agent("other", &[]).await);
    let cluster = Issuer::start().await;
    let key = cluster.key("a", SigningAlgorithm::Es256);
    trust(&server, &one, of_cluster(&cluster)).await;
    trust(&server, &other, of_cluster(&cluster)).await;
    let assertion = key.sign(&good(&server, &cluster));
    refused(&present(&server, &assertion, &[]).await, 400, "invalid_grant");
    for agent in [&one, &other] {
        let body = present(&server, &assertion, &[("client_id", &agent.id)]).await.expect(200);
        assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
    }
    let third = server.agent("third", &[]).await;
    refused(&present(&server, &assertion, &[("client_id", &third.id)]).await, 400, "invalid_grant");
}

async fn who_trusts_others_keys_is_not_confused_with_anybody(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &[]).await, server.agent("other", &[]).await);
    let (cluster, elsewhere) = (Issuer::start().await, Issuer::start().await);
    let (key, others) = (cluster.key("a", SigningAlgorithm::Es256), elsewhere.key("a", SigningAlgorithm::Es256));
    trust(&server, &agent, of_cluster(&cluster)).await;
    let mut of_elsewhere = of_cluster(&cluster);
    of_elsewhere["jwks_uri"] = json!(format!("{}/keys", elsewhere.url));
    trust(&server, &other, of_elsewhere).await;
    // The same words, of which each of the two believes one speaker alone.
    for (key, agent) in [(&key, &agent), (&others, &other)] {
        let body = present(&server, &key.sign(&good(&server, &cluster)), &[]).await.expect(200);
        assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
    }
    let forged = Issuer::start().await.key("a", SigningAlgorithm::Es256).sign(&good(&server, &cluster));
    refused(&present(&server, &forged, &[]).await, 400, "invalid_grant");
    assert_eq!(details(&server.audited("auth.failed").await[0])["reason"], "federation_signature");
    // More places than are asked: whoever looks in one of the others may be meant, too.
    for number in 1..20 {
        let mut one_more = of_cluster(&cluster);
        one_more["jwks_uri"] = json!(format!("{}/keys?{number}", elsewhere.url));
        trust(&server, &other, one_more).await;
    }
    let (asked, assertion) = (elsewhere.asked(), key.sign(&good(&server, &cluster)));
    refused(&present(&server, &assertion, &[]).await, 400, "invalid_grant");
    assert_eq!(details(&server.audited("auth.failed").await[0])["reason"], "federation_ambiguous");
    assert!(elsewhere.asked() - asked <= 8, "{}", elsewhere.asked() - asked);
    let body = present(&server, &assertion, &[("client_id", &agent.id)]).await.expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
    // All of one agent: it cannot be another's.
    let body = present(&server, &others.sign(&good(&server, &cluster)), &[("client_id", &other.id)]).await.expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(other.id));
}

async fn nobody_takes_the_place_of_who_cannot_be_judged(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &["agents:read"]).await, server.agent("other", &[]).await);
    let (cluster, mirror) = (Issuer::start().await, Issuer::start().await);
    let key = cluster.key("a", SigningAlgorithm::Es256);
    let mut mirrored = of_cluster(&cluster);
    mirrored["jwks_uri"] = json!(format!("{}/keys", mirror.url));
    trust(&server, &agent, mirrored).await;
    trust(&server, &other, of_cluster(&cluster)).await;
    let subject = async |more: &[(&str, &str)]| {
        let answer = present(&server, &key.sign(&good(&server, &cluster)), more).await;
        let told = if answer.status == 200 {
            claims(answer.json()["access_token"].as_str().unwrap())["sub"].clone()
        } else {
            refused(&answer, 400, "invalid_grant");
            details(&server.audited("auth.failed").await[0])["reason"].clone()
        };
        told.as_str().unwrap().to_owned()
    };
    mirror.behave(|behaviour| behaviour.is_down = true);
    assert_eq!(subject(&[]).await, "federation_ambiguous");
    assert_eq!(subject(&[("client_id", &other.id)]).await, other.id);
    // Nor of whoever looks where there are no keys.
    mirror.behave(|behaviour| behaviour.is_down = false);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(subject(&[]).await, "federation_ambiguous");
    // Nor of whoever knows older keys alone, once there are others.
    mirror.key("older", SigningAlgorithm::Es256);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(subject(&[]).await, other.id, "the other has been asked, and knows no such key");
    mirror.behave(|behaviour| behaviour.is_down = true);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(subject(&[]).await, "federation_ambiguous");

    // Whoever came later keeps nobody out by not being there.
    let late = server.agent("late", &[]).await;
    let nowhere = Issuer::start().await;
    nowhere.behave(|behaviour| behaviour.is_down = true);
    let first = Issuer::start().await;
    let firsts = first.key("a", SigningAlgorithm::Es256);
    trust(&server, &agent, of_cluster(&first)).await;
    let mut absent = of_cluster(&first);
    absent["jwks_uri"] = json!(format!("{}/keys", nowhere.url));
    trust(&server, &late, absent).await;
    let body = present(&server, &firsts.sign(&good(&server, &first)), &[]).await.expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
}

async fn an_issuer_of_many_costs_no_more_than_one_of_few(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &[]).await, server.agent("other", &[]).await);
    let cluster = Issuer::start().await;
    let assertion = cluster.key("a", SigningAlgorithm::Es256).sign(&good(&server, &cluster));
    let identity = trust(&server, &agent, of_cluster(&cluster)).await;
    let (other_id, new_id) = if server.db.is_sqlite() {
        (format!("X'{}'", other.id.replace('-', "")), "randomblob(16)")
    } else {
        (format!("'{}'::UUID", other.id), "gen_random_uuid()")
    };
    let add = async |count: u32| {
        let sql = format!(
            "INSERT INTO federated_identities (id, agent_id, issuer, jwks_uri, audience, claims, created_at) \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
             SELECT {new_id}, {other_id}, issuer, jwks_uri, audience, '{{\"sub\":\"another\"}}', created_at \
             FROM federated_identities, n WHERE claims LIKE '%summariser%'"
        );
        server.db.execute(&sql).await;
    };
    let send = async |more: &[(&str, &str)]| present(&server, &assertion, more).await;
    add(999).await;
    send(&[]).await.expect(200);
    add(1).await;
    refused(&send(&[]).await, 400, "invalid_grant");
    let record = server.audited("auth.failed").await.remove(0);
    assert_eq!(details(&record)["reason"], "federation_ambiguous");
    // Who asks for another subject is not looked at.
    server.db.execute("UPDATE federated_identities SET subject = 'another' WHERE claims LIKE '%another%'").await;
    send(&[]).await.expect(200);
    // Whoever says who it is meets nobody else's.
    server.db.execute("UPDATE federated_identities SET claims = '-' WHERE claims LIKE '%another%'").await;
    let body = send(&[("client_id", &agent.id)]).await.expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["federated_identity_id"], identity["id"]);
    for unknown in [&other.key_id, "nobody"] {
        refused(&send(&[("client_id", unknown)]).await, 400, "invalid_grant");
    }
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

async fn basic_without_a_secret_says_who_the_client_is(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &[]).await, server.agent("other", &[]).await);
    let cluster = Issuer::start().await;
    let key = cluster.key("a", SigningAlgorithm::Rs256);
    for agent in [&agent, &other] {
        trust(&server, agent, of_cluster(&cluster)).await;
    }
    let assertion = key.sign(&good(&server, &cluster));
    let grant = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)];
    let send = async |id: &str, secret: &str, more: &[(&str, &str)]| {
        let anybody = server.anybody();
        let request = anybody.request(Method::POST, "/oauth/token").basic_auth(id, Some(secret));
        anybody.send(request.form(&[grant.as_slice(), more].concat())).await
    };
    for agent in [&agent, &other] {
        for more in [vec![], vec![("client_id", agent.id.as_str())]] {
            let body = send(&agent.id, "", &more).await.expect(200);
            assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], agent.id.as_str());
        }
    }
    refused(&send(&agent.id, "", &[("client_id", &other.id)]).await, 400, "invalid_request");
    refused(&send("nobody", "", &[]).await, 400, "invalid_grant");
    // With a secret it is an authentication, of which there is one already.
    refused(&send(&agent.id, &agent.raw_key, &[]).await, 400, "invalid_request");
}
