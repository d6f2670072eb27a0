//! Tokens that nobody issued, or not like this, or no longer.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};

use crate::{
    both,
    support::{Client, Database, Server, details},
};

both!(forged_tokens_are_refused, a_token_of_another_server_is_refused, a_token_counts_only_where_it_belongs);

const REFUSAL: &str = "Invalid or expired token";

fn encode(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

fn decode(part: &str) -> Value {
    serde_json::from_slice(&BASE64.decode(part).unwrap()).unwrap()
}

/// A genuine token taken apart.
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

/// Signs `header` and `claims` as somebody who has a key of their own.
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

async fn forged_tokens_are_refused(db: Database) {
    let server = Server::with(db, &[("AUDIT_REFUSALS_PER_MINUTE", "1000")]).await;
    let genuine = server.admin.token().to_owned();
    let parts = Parts::of(&genuine);
    let (header, claims) = (&parts.header, &parts.claims);
    let jwk = server.anybody().get("/.well-known/jwks.json").await.expect(200)["keys"][0].clone();
    let mut forged = Vec::new();

    // No algorithm, in every spelling, with and without a signature.
    for none in ["none", "None", "NONE", "nOnE", "", "NULL"] {
        let unsigned = format!("{}.{}.", encode(&with(header, "alg", json!(none))), encode(claims));
        forged.push(format!("{unsigned}{}", parts.signature));
        forged.push(unsigned);
    }
    // The public key as a shared secret, in every form in which it is published.
    let coordinates = [&jwk["x"], &jwk["y"]].map(|part| BASE64.decode(part.as_str().unwrap()).unwrap());
    let point = [&[4][..], &coordinates.concat()].concat();
    for secret in [jwk.to_string().into_bytes(), coordinates.concat(), point, jwk["x"].to_string().into_bytes()] {
        for (name, algorithm) in [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)]
        {
            let header = with(header, "alg", json!(name));
            forged.push(signed(&header, claims, algorithm, &EncodingKey::from_secret(&secret)));
        }
    }
    // A key of the attacker's own, announced in every way that a header knows.
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
    // A genuine signature under another text.
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
    // Cut short, doubled, padded, and of no form at all.
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
        let answer = server.anybody().with_token(token).get("/agents").await;
        answer.refused(401, REFUSAL);
        assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"), "{answer:?}");
    }
    let recorded = server.audited("auth.failed").await;
    assert_eq!(recorded.len(), forged.len(), "every forgery is on record");
    assert_eq!(details(&recorded[0]), json!({ "reason": "invalid_token" }));
    server.admin.get("/agents").await.expect(200);
}

async fn a_token_of_another_server_is_refused(db: Database) {
    let server = Server::start(db).await;
    let other = Server::start(Database::sqlite()).await;
    let parts = Parts::of(other.admin.token());
    server.anybody().with_token(other.admin.token()).get("/agents").await.refused(401, REFUSAL);
    // Also when it claims to be signed with this server's key, for this server's administrator.
    let ours = Parts::of(server.admin.token());
    let header = with(&parts.header, "kid", ours.header["kid"].clone());
    server.anybody().with_token(&parts.assemble(&header, &ours.claims)).get("/agents").await.refused(401, REFUSAL);

    // The same keys under another public URL are another issuer and another audience.
    let token = server.admin.token().to_owned();
    let moved = server.restart(&[("PUBLIC_URL", "https://elsewhere.test")]).await;
    moved.anybody().with_token(&token).get("/agents").await.refused(401, REFUSAL);
}

async fn a_token_counts_only_where_it_belongs(db: Database) {
    let server = Server::start(db).await;
    let token = server.admin.token();
    let anybody = server.anybody();
    let send = |values: Vec<String>| {
        let anybody = anybody.clone();
        async move {
            let request = anybody.request(Method::GET, "/agents");
            let request = values.into_iter().fold(request, |request, value| request.header(AUTHORIZATION, value));
            anybody.send(request).await
        }
    };
    send(vec![format!("bearer {token}")]).await.expect(200);
    send(vec![format!("BEARER {token}")]).await.expect(200);
    send(vec![format!("Basic {token}")]).await.refused(401, "Not authenticated");
    send(vec![token.to_owned()]).await.refused(401, "Not authenticated");
    send(vec![format!("Bearer {token}"), format!("Bearer {token}")]).await.refused(401, REFUSAL);
    send(vec![format!("Bearer {token}"), "Basic x".to_owned()]).await.refused(401, REFUSAL);
    send(vec!["Bearer ".to_owned()]).await.expect(401);
    anybody.get(&format!("/agents?access_token={token}")).await.refused(401, "Not authenticated");
    anybody.send(anybody.request(Method::GET, "/agents").header("X-API-Key", &server.admin_key)).await.expect(401);
    expires(&server, &anybody).await;
}

/// To the second: no leeway at the end of a token's life.
async fn expires(server: &Server, anybody: &Client) {
    let fresh = anybody.login(&server.admin_key).await;
    let claims = Parts::of(fresh.token()).claims;
    let left =
        Duration::from_secs(u64::try_from(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()).unwrap());
    server.clock.advance(left.checked_sub(Duration::from_secs(2)).unwrap());
    fresh.get("/agents").await.expect(200);
    server.clock.advance(Duration::from_secs(2));
    fresh.get("/agents").await.refused(401, REFUSAL);
}
