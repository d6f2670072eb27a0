//! Workload identity federation (RFC 7523 section 2.1). This module has the foreign issuer and the tokens of the tests.

mod clients;
mod ownership;
mod validation;

use std::sync::{Arc, Mutex, atomic::AtomicU32, atomic::Ordering::SeqCst};

use aims::{crypto::PrivateKey, domain::token::SigningAlgorithm};
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{append_member, key_pair, post};
use crate::support::{Agent, Response, Server};

const PRIVATE: (&str, &str) = ("FEDERATION_ALLOW_PRIVATE_ADDRESSES", "true");
const AUDIENCE: &str = "https://aims.test";
/// Path of an issuer's discovery document.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Path of an issuer's key set.
const KEYS: &str = "/keys";

/// A foreign issuer with configurable behaviour.
#[derive(Clone)]
struct Issuer {
    url: String,
    behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<AtomicU32>,
}

#[derive(Default)]
struct Behaviour {
    keys: Vec<Value>,
    /// Replaces members of the discovery document.
    issuer: Option<String>,
    is_down: bool,
    /// The path that returns something other than JSON.
    garbles: Option<&'static str>,
    redirects: bool,
    /// Its documents contain a duplicate member.
    repeats: bool,
    padding: usize,
    /// Responses are held back until it is opened.
    gate: Option<Arc<Semaphore>>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self { url, behaviour: Arc::default(), requests: Arc::default() };
        let router = Router::new().fallback(Self::response).with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    async fn response(State(issuer): State<Self>, uri: axum::http::Uri) -> impl IntoResponse {
        issuer.requests.fetch_add(1, SeqCst);
        let gate = issuer.behaviour.lock().unwrap().gate.clone();
        if let Some(gate) = gate {
            drop(gate.acquire().await);
        }
        let behaviour = issuer.behaviour.lock().unwrap();
        if behaviour.is_down {
            return (StatusCode::INTERNAL_SERVER_ERROR, [("location", String::new())], String::new());
        }
        if behaviour.garbles == Some(uri.path()) {
            return (StatusCode::OK, [("location", String::new())], "<html>".to_owned());
        }
        let body = match uri.path() {
            DISCOVERY => json!({
                "issuer": behaviour.issuer.as_ref().unwrap_or(&issuer.url), "jwks_uri": format!("{}/keys", issuer.url),
            }),
            KEYS if behaviour.redirects => {
                return (StatusCode::FOUND, [("location", format!("{}/moved", issuer.url))], String::new());
            }
            KEYS | "/moved" => json!({ "keys": behaviour.keys, "padding": "x".repeat(behaviour.padding) }),
            _ => return (StatusCode::NOT_FOUND, [("location", String::new())], String::new()),
        };
        let text = if behaviour.repeats { append_member(&body, "keys", &body["keys"]) } else { body.to_string() };
        (StatusCode::OK, [("location", String::new())], text)
    }

    fn configure(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    /// Publishes a new key.
    fn key(&self, kid: &str, algorithm: SigningAlgorithm) -> Key {
        let (algorithm, private, mut public) = key_pair(&PrivateKey::generate(algorithm).unwrap());
        public["kid"] = json!(kid);
        // With the members that real issuers publish.
        public["x5c"] = json!(["MIIC"]);
        self.configure(|behaviour| behaviour.keys.push(public.clone()));
        Key { kid: kid.to_owned(), algorithm, private, public }
    }

    fn requests(&self) -> u32 {
        self.requests.load(SeqCst)
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

/// Returns the claims of a cluster's token for a workload.
fn workload_claims(server: &Server, issuer: &Issuer) -> Value {
    let now = server.clock_secs();
    json!({
        "iss": issuer.url, "aud": [AUDIENCE], "sub": "system:serviceaccount:agents:summariser", "iat": now, "nbf": now,
        "exp": now + 3_600, "kubernetes.io": { "namespace": "agents" },
    })
}

async fn present(server: &Server, assertion: &str, more: &[(&str, &str)]) -> Response {
    let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion)];
    post(&server.anonymous(), "/oauth/token", &[form.as_slice(), more].concat()).await
}

fn cluster_identity(issuer: &Issuer) -> Value {
    json!({ "issuer": issuer.url, "audience": AUDIENCE, "claims": { "sub": "system:serviceaccount:agents:summariser" } })
}
