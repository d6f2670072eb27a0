//! Forged, altered and expired tokens.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};

use crate::{
    both,
    support::{Client, Database, Server, details},
};

both!(forged_tokens_are_rejected, tokens_of_another_server_are_rejected, tokens_are_accepted_only_for_their_purpose);

const REFUSAL: &str = "Invalid or expired token";

fn encode(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

fn decode(part: &str) -> Value {
    serde_json::from_slice(&BASE64.decode(part).unwrap()).unwrap()
}

/// A valid token, split into its parts.
struct Parts {
    header: Value,
    claims: Value,
    signature: String,
}

impl Parts {
    fn of(token: &str) -> Self {
        let parts: Vec<_> = token.split('.').collect();
        Self { header: decode(parts[0]), claims: decode(parts[1]), signature: parts[2].to_owned() }
    }

    fn assemble(&self, header: &Value, claims: &Value) -> String {
        format!("{}.{}.{}", encode(header), encode(claims), self.signature)
    }
}

fn with(object: &Value, name: &str, value: Value) -> Value {
    let mut changed = object.clone();
    changed[name] = value;
    changed
}

fn without(object: &Value, name: &str) -> Value {
    let mut changed = object.clone();
    changed.as_object_mut().unwrap().remove(name);
    changed
}

/// Signs `header` and `claims` with any key.
fn signed(header: &Value, claims: &Value, algorithm: Algorithm, key: &EncodingKey) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn own_key() -> EncodingKey {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
    };
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    EncodingKey::from_ec_der(pkcs8.as_ref())
}

async fn forged_tokens_are_rejected(db: Database) {
    let server = Server::start_with(db, &[("AUDIT_REFUSALS_PER_MINUTE", "1000")]).await;
    let genuine = server.admin.token().to_owned();
    let parts = Parts::of(&genuine);
    let (header, claims) = (&parts.header, &parts.claims);
    let jwk = server.anonymous().get("/.well-known/jwks.json").await.expect(200)["keys"][0].clone();
    let mut forged = Vec::new();

    // `alg: none` in every spelling, with and without a signature.
    for none in ["none", "None", "NONE", "nOnE", "", "NULL"] {
        let unsigned = format!("{}.{}.", encode(&with(header, "alg", json!(none))), encode(claims));
        forged.push(format!("{unsigned}{}", parts.signature));
        forged.push(unsigned);
    }
    // The public key as an HMAC secret, in every published form.
    let coordinates = [&jwk["x"], &jwk["y"]].map(|part| BASE64.decode(part.as_str().unwrap()).unwrap());
    let point = [&[4][..], &coordinates.concat()].concat();
    for secret in [jwk.to_string().into_bytes(), coordinates.concat(), point, jwk["x"].to_string().into_bytes()] {
        for (name, algorithm) in [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)]
        {
            let header = with(header, "alg", json!(name));
            forged.push(signed(&header, claims, algorithm, &EncodingKey::from_secret(&secret)));
        }
    }
    // The attacker's own key, announced in every header parameter that can name a key.
    let own = own_key();
    let announced = [
        header.clone(),
        with(header, "kid", json!("own")),
        with(header, "kid", json!("../../dev/null")),
        without(header, "kid"),
        with(header, "jku", json!("https://attacker.test/jwks.json")),
        with(header, "x5u", json!("https://attacker.test/cert.pem")),
        with(header, "jwk", jwk.clone()),
        with(header, "x5c", json!(["MIIB"])),
    ];
    forged.extend(announced.iter().map(|header| signed(header, claims, Algorithm::ES256, &own)));
    // A valid signature over different content.
    for (name, value) in [
        ("sub", json!(server.admin_id.replace('0', "1"))),
        ("exp", json!(4_000_000_000_i64)),
        ("scopes", json!(["admin:*", "more:*"])),
        ("iss", json!("https://attacker.test")),
        ("aud", json!("https://attacker.test")),
        ("jti", json!("another")),
        ("token_epoch", json!(1)),
        ("nbf", json!(0)),
    ] {
        forged.push(parts.assemble(header, &with(claims, name, value)));
        forged.push(parts.assemble(header, &without(claims, name)));
    }
    for (name, value) in [
        ("typ", json!("JWT")),
        ("typ", json!("id+jwt")),
        ("alg", json!("EdDSA")),
        ("alg", json!("RS256")),
        ("alg", json!("ES384")),
        ("crit", json!(["exp"])),
        ("kid", json!("own")),
        ("kid", json!("")),
    ] {
        forged.push(parts.assemble(&with(header, name, value), claims));
    }
    forged.push(parts.assemble(&without(header, "typ"), claims));
    forged.push(parts.assemble(&without(header, "kid"), claims));
    // Truncated, doubled, padded and malformed tokens.
    let cut = genuine.rsplit_once('.').unwrap().0;
    forged.extend([
        cut.to_owned(),
        format!("{cut}."),
        format!("{genuine}."),
        format!("{genuine}.{genuine}"),
        format!("{genuine}="),
        genuine[1..].to_owned(),
        genuine[..genuine.len() - 1].to_owned(),
        "a".repeat(20_000),
        format!("{}.{}.{}", "a".repeat(6_000), "b".repeat(6_000), "c".repeat(6_000)),
        "..".to_owned(),
        "null".to_owned(),
        server.admin_key.clone(),
    ]);

    assert!(forged.len() >= 60, "only {} forgeries", forged.len());
    for token in &forged {
        let response = server.anonymous().with_token(token).get("/agents").await;
        response.refused(401, REFUSAL);
        assert!(response.header("www-authenticate").unwrap().contains("invalid_token"), "{response:?}");
    }
    let recorded = server.audited("auth.failed").await;
    assert_eq!(recorded.len(), forged.len(), "every forgery must be audited");
    assert_eq!(details(&recorded[0]), json!({ "reason": "invalid_token" }));
    server.admin.get("/agents").await.expect(200);
}

async fn tokens_of_another_server_are_rejected(db: Database) {
    let server = Server::start(db).await;
    let other = Server::start(Database::sqlite()).await;
    let parts = Parts::of(other.admin.token());
    server.anonymous().with_token(other.admin.token()).get("/agents").await.refused(401, REFUSAL);
    // Also if the token names this server's signing key and administrator.
    let ours = Parts::of(server.admin.token());
    let header = with(&parts.header, "kid", ours.header["kid"].clone());
    server.anonymous().with_token(&parts.assemble(&header, &ours.claims)).get("/agents").await.refused(401, REFUSAL);

    // The same keys with another public URL are a different issuer and audience.
    let token = server.admin.token().to_owned();
    let moved = server.restart(&[("PUBLIC_URL", "https://elsewhere.test")]).await;
    moved.anonymous().with_token(&token).get("/agents").await.refused(401, REFUSAL);
}

async fn tokens_are_accepted_only_for_their_purpose(db: Database) {
    let server = Server::start(db).await;
    let token = server.admin.token();
    let anonymous = server.anonymous();
    let send = |values: Vec<String>| {
        let anonymous = anonymous.clone();
        async move {
            let request = anonymous.request(Method::GET, "/agents");
            let request = values.into_iter().fold(request, |request, value| request.header(AUTHORIZATION, value));
            anonymous.send(request).await
        }
    };
    send(vec![format!("bearer {token}")]).await.expect(200);
    send(vec![format!("BEARER {token}")]).await.expect(200);
    send(vec![format!("Basic {token}")]).await.refused(401, "Not authenticated");
    send(vec![token.to_owned()]).await.refused(401, "Not authenticated");
    send(vec![format!("Bearer {token}"), format!("Bearer {token}")]).await.refused(401, REFUSAL);
    send(vec![format!("Bearer {token}"), "Basic x".to_owned()]).await.refused(401, REFUSAL);
    send(vec!["Bearer ".to_owned()]).await.expect(401);
    anonymous.get(&format!("/agents?access_token={token}")).await.refused(401, "Not authenticated");
    anonymous.send(anonymous.request(Method::GET, "/agents").header("X-API-Key", &server.admin_key)).await.expect(401);
    assert_expiry_is_exact(&server, &anonymous).await;
}

/// Expiry is exact to the second, without leeway.
async fn assert_expiry_is_exact(server: &Server, anonymous: &Client) {
    let fresh = anonymous.login(&server.admin_key).await;
    let claims = Parts::of(fresh.token()).claims;
    let left =
        Duration::from_secs(u64::try_from(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()).unwrap());
    server.clock.advance(left.checked_sub(Duration::from_secs(2)).unwrap());
    fresh.get("/agents").await.expect(200);
    server.clock.advance(Duration::from_secs(2));
    fresh.get("/agents").await.refused(401, REFUSAL);
}
