//! The token service as OAuth clients and resource servers use it.

mod assertions;
mod delegation;
mod dpop;
mod federation;
mod introspection;
mod key_limits;
mod metadata;
mod resources;
mod revocation;
mod signing_keys;
mod token;
mod widening;

use aims::{crypto::PrivateKey, domain::token::SigningAlgorithm};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::support::{Agent, Answer, Client, Server};

/// The public URL of the servers under test.
const ISSUER: &str = "https://aims.test";

type Form<'f> = &'f [(&'f str, &'f str)];

/// Posts a form as a client that authenticates by HTTP Basic.
pub(crate) async fn as_client(server: &Server, agent: &Agent, path: &str, form: Form<'_>) -> Answer {
    let anybody = server.anybody();
    let request = anybody.request(Method::POST, path).basic_auth(&agent.id, Some(&agent.raw_key)).form(form);
    anybody.send(request).await
}

/// Asks for a token by HTTP Basic.
async fn ask(server: &Server, agent: &Agent, wanted: Form<'_>) -> Answer {
    let form = [&[("grant_type", "client_credentials")], wanted].concat();
    as_client(server, agent, "/oauth/token", &form).await
}

/// The token that a client asks for.
async fn token(server: &Server, agent: &Agent, wanted: Form<'_>) -> String {
    ask(server, agent, wanted).await.expect(200)["access_token"].as_str().unwrap().to_owned()
}

/// Posts a form with whatever the client carries.
async fn post(client: &Client, path: &str, form: Form<'_>) -> Answer {
    client.send(client.request(Method::POST, path).form(form)).await
}

/// A key pair in the forms that tests sign and register with.
fn key_pair(key: &PrivateKey) -> (Algorithm, EncodingKey, Value) {
    let der = key.to_pkcs8().unwrap();
    let der = der.expose_secret();
    let (algorithm, private) = match key.public().algorithm() {
        SigningAlgorithm::EdDsa => (Algorithm::EdDSA, EncodingKey::from_ed_der(der)),
        // The library wants what PKCS#8 wraps.
        SigningAlgorithm::Rs256 => (Algorithm::RS256, EncodingKey::from_rsa_der(&der[26..])),
        _ => (Algorithm::ES256, EncodingKey::from_ec_der(der)),
    };
    (algorithm, private, key.public().jwk().clone())
}

/// A JWT whose header says what the test likes.
fn headed(header: &Value, claims: &Value, private: &EncodingKey, algorithm: Algorithm) -> String {
    worded(&header.to_string(), &claims.to_string(), private, algorithm)
}

/// A JWT with a given header and claims, which need not be valid JSON.
fn worded(header: &str, claims: &str, private: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), private, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// The JSON text of an object with a member repeated at the end.
fn repeated(object: &Value, name: &str, value: &Value) -> String {
    let text = object.to_string();
    format!("{}, {}: {value}}}", text.strip_suffix('}').unwrap(), Value::from(name))
}

/// What a token says.
fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Asserts an error in the form of RFC 6749 §5.2.
#[track_caller]
fn refused(answer: &Answer, status: u16, error: &str) {
    let body = answer.json();
    assert_eq!((answer.status.as_u16(), &body["error"]), (status, &error.into()), "{answer:?}");
    assert!(body["error_description"].as_str().is_some_and(|text| !text.is_empty()), "{answer:?}");
    assert!(body.get("detail").is_none(), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
}
