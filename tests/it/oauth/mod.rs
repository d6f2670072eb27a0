//! The token service, as OAuth clients and resource servers use it.

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

use crate::support::{Agent, Client, Response, Server};

/// Public URL of the servers under test.
const ISSUER: &str = "https://aims.test";

type Form<'f> = &'f [(&'f str, &'f str)];

/// Posts a form as a client that authenticates with HTTP Basic.
pub(crate) async fn post_as_client(server: &Server, agent: &Agent, path: &str, form: Form<'_>) -> Response {
    let anonymous = server.anonymous();
    let request = anonymous.request(Method::POST, path).basic_auth(&agent.id, Some(&agent.raw_key)).form(form);
    anonymous.send(request).await
}

/// Requests a token with HTTP Basic.
async fn request_token(server: &Server, agent: &Agent, wanted: Form<'_>) -> Response {
    let form = [&[("grant_type", "client_credentials")], wanted].concat();
    post_as_client(server, agent, "/oauth/token", &form).await
}

/// Requests a token and returns it.
async fn token(server: &Server, agent: &Agent, wanted: Form<'_>) -> String {
    request_token(server, agent, wanted).await.expect(200)["access_token"].as_str().unwrap().to_owned()
}

/// Posts a form with the client's bearer token, if it has one.
async fn post(client: &Client, path: &str, form: Form<'_>) -> Response {
    client.send(client.request(Method::POST, path).form(form)).await
}

/// Returns a key pair in the forms that tests sign with and register.
fn key_pair(key: &PrivateKey) -> (Algorithm, EncodingKey, Value) {
    let der = key.to_pkcs8().unwrap();
    let der = der.expose_secret();
    let (algorithm, private) = match key.public().algorithm() {
        SigningAlgorithm::EdDsa => (Algorithm::EdDSA, EncodingKey::from_ed_der(der)),
        // The library expects the unwrapped key, not PKCS#8.
        SigningAlgorithm::Rs256 => (Algorithm::RS256, EncodingKey::from_rsa_der(&der[26..])),
        _ => (Algorithm::ES256, EncodingKey::from_ec_der(der)),
    };
    (algorithm, private, key.public().jwk().clone())
}

/// Signs a JWT with the given header.
fn sign_with_header(header: &Value, claims: &Value, private: &EncodingKey, algorithm: Algorithm) -> String {
    sign_raw(&header.to_string(), &claims.to_string(), private, algorithm)
}

/// Signs a JWT with the given header and claims, which need not be valid JSON.
fn sign_raw(header: &str, claims: &str, private: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), private, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// Returns the JSON text of an object with an extra member appended, which may repeat a name.
fn append_member(object: &Value, name: &str, value: &Value) -> String {
    let text = object.to_string();
    format!("{}, {}: {value}}}", text.strip_suffix('}').unwrap(), Value::from(name))
}

/// Decodes the claims of a token without verifying it.
fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Asserts an error in the format of RFC 6749 §5.2.
#[track_caller]
fn refused(response: &Response, status: u16, error: &str) {
    let body = response.json();
    assert_eq!((response.status.as_u16(), &body["error"]), (status, &error.into()), "{response:?}");
    assert!(body["error_description"].as_str().is_some_and(|text| !text.is_empty()), "{response:?}");
    assert!(body.get("detail").is_none(), "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-store"), "{response:?}");
}
