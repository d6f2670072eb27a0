//! Access tokens issued for API keys.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::Jwk};
use serde_json::{Value, json};

use super::{assert_invalid, each, members};
use crate::{
    both,
    support::{Database, Response, Server, details},
};

both!(
    exchange_response_matches_the_contract,
    exchange_is_audited,
    last_use_survives_a_restart,
    unknown_key_is_rejected,
    revoked_key_is_rejected,
    rotated_key_is_rejected_after_its_grace_period,
    expired_key_is_rejected,
    suspended_agents_cannot_exchange_keys,
    revoked_agents_cannot_exchange_keys,
    exchange_requires_a_key,
    es256_tokens_verify_against_the_published_keys,
    eddsa_tokens_verify_against_the_published_keys,
    rs256_tokens_verify_against_the_published_keys,
    hs256_tokens_verify_with_the_secret_and_no_key_is_published,
    claims_contain_the_agent_and_its_scope,
    tokens_survive_a_restart,
    tokens_survive_a_change_of_algorithm,
    token_expires_exactly_at_exp,
    token_lifetime_is_configurable,
    tokens_do_not_outlive_their_key,
    requests_require_a_valid_bearer_token,
);

const ISSUER: &str = "https://aims.test";
/// The challenge for requests without a token.
const CHALLENGE: &str = "Bearer resource_metadata=\"https://aims.test/.well-known/oauth-protected-resource\"";
const SECRET: &str = "a secret of more than thirty-two bytes";
/// Start time of the tests' clock.
const START: i64 = 1_767_268_800;

/// Decodes a part of a token without verifying it.
fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn token(response: Response) -> String {
    response.expect(200)["access_token"].as_str().unwrap().to_owned()
}

/// Asserts that a key is rejected and that the audit record gives the reason.
async fn assert_key_rejected(server: &Server, key: &str, status: u16, detail: &str, reason: &str, of: (Value, Value)) {
    let before = server.audited("auth.failed").await.len();
    let response = server.anonymous().exchange(key).await;
    response.refused(status, detail);
    assert_eq!(response.header("www-authenticate"), (status == 401).then_some(CHALLENGE));
    let records = server.audited("auth.failed").await;
    assert_eq!(records.len(), before + 1);
    let record = &records[0];
    assert_eq!(details(record), json!({ "reason": reason }));
    let kind = if of.1.is_null() { Value::Null } else { json!("api_key") };
    assert_eq!(
        (&record["agent_id"], &record["resource_type"], &record["resource_id"], &record["success"]),
        (&of.0, &kind, &of.1, &json!(0))
    );
    assert_eq!(record["ip_address"], "127.0.0.1");
}

async fn exchange_response_matches_the_contract(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    for path in ["/auth/token", "/api/v1/auth/token"] {
        let request = server.anonymous().request(http::Method::POST, path).header("x-api-key", &agent.raw_key);
        let response = server.anonymous().send(request).await;
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let body = response.expect(200);
        assert_eq!(members(&body), ["access_token", "expires_in", "token_type"]);
        assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("bearer"), &json!(1_800)));
        assert_eq!(body["access_token"].as_str().unwrap().split('.').count(), 3);
    }
}

async fn exchange_is_audited(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let path = format!("/agents/{}/keys", agent.id);
    let created = server.admin.post_empty(&path).await.expect(201);
    let before = server.admin.get(&path).await.expect(200);
    assert!(before[0]["last_used_at"].is_string() && before[1]["last_used_at"].is_null());

    let token = token(server.anonymous().exchange(created["raw_key"].as_str().unwrap()).await);
    let after = server.admin.get(&path).await.expect(200);
    assert_eq!(after[0], before[0]);
    assert!(after[1]["last_used_at"].as_str() > before[0]["last_used_at"].as_str());

    let record = &server.audited("auth.token_issued").await[0];
    assert_eq!(
        (&record["agent_id"], &record["resource_type"], &record["resource_id"], &record["success"]),
        (&json!(agent.id), &json!("api_key"), &created["id"], &json!(1))
    );
    let payload = part(&token, 1);
    assert_eq!(
        details(record),
        json!({ "jti": payload["jti"], "aud": payload["aud"], "exp": payload["exp"], "epoch": 0 })
    );
    assert_eq!(record["timestamp"], after[1]["last_used_at"]);
}

async fn last_use_survives_a_restart(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    server.clock.advance(Duration::from_mins(5));
    server.anonymous().exchange(&agent.raw_key).await.expect(200);
    let server = server.restart(&[]).await;
    let keys = server.admin.get(&format!("/agents/{}/keys", agent.id)).await.expect(200);
    let record = &server.audited("auth.token_issued").await[1];
    assert_eq!((&record["resource_id"], &record["timestamp"]), (&keys[0]["id"], &keys[0]["last_used_at"]));
}

async fn unknown_key_is_rejected(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let mut other_end = agent.raw_key.clone();
    let last = other_end.pop().unwrap();
    other_end.push(if last == '0' { '1' } else { '0' });
    for key in ["x", "", "aims_", &agent.key_id, &other_end, &format!("{}0", agent.raw_key), "é"] {
        assert_key_rejected(&server, key, 401, "Invalid API key", "invalid_key", (Value::Null, Value::Null)).await;
    }
}

async fn revoked_key_is_rejected(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    server.admin.delete(&format!("/agents/{}/keys/{}", agent.id, agent.key_id)).await.expect(204);
    let of = (json!(agent.id), json!(agent.key_id));
    assert_key_rejected(&server, &agent.raw_key, 401, "API key has been revoked", "key_revoked", of).await;
}

async fn rotated_key_is_rejected_after_its_grace_period(db: Database) {
    let mut server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    server.admin.post_empty(&format!("/agents/{}/keys/{}/rotate", agent.id, agent.key_id)).await.expect(200);
    server.clock.advance(Duration::from_hours(24));
    server.admin = server.admin.login(&server.admin_key).await;
    let detail = "Rotated API key has expired past grace period";
    let of = (json!(agent.id), json!(agent.key_id));
    assert_key_rejected(&server, &agent.raw_key, 401, detail, "rotated_key_expired", of).await;
}

async fn expired_key_is_rejected(db: Database) {
    let mut server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let body = json!({ "expires_at": "2026-01-01T13:00:00Z" });
    let created = server.admin.post(&format!("/agents/{}/keys", agent.id), body).await.expect(201);
    let key = created["raw_key"].as_str().unwrap();
    server.anonymous().exchange(key).await.expect(200);
    server.clock.advance(Duration::from_hours(1));
    server.admin = server.admin.login(&server.admin_key).await;
    let of = (json!(agent.id), created["id"].clone());
    assert_key_rejected(&server, key, 401, "API key has expired", "key_expired", of).await;
    server.anonymous().exchange(&agent.raw_key).await.expect(200);
}

async fn suspended_agents_cannot_exchange_keys(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    server.admin.post_empty(&format!("/agents/{}/suspend", agent.id)).await.expect(200);
    let of = (json!(agent.id), json!(agent.key_id));
    assert_key_rejected(&server, &agent.raw_key, 403, "Agent is suspended", "agent_suspended", of).await;
    server.admin.post_empty(&format!("/agents/{}/reactivate", agent.id)).await.expect(200);
    server.anonymous().exchange(&agent.raw_key).await.expect(200);
}

async fn revoked_agents_cannot_exchange_keys(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let rotate = format!("/agents/{}/keys/{}/rotate", agent.id, agent.key_id);
    let rotated = server.admin.post_empty(&rotate).await.expect(200)["new_key"].clone();
    server.admin.post_empty(&format!("/agents/{}/revoke", agent.id)).await.expect(200);
    // Revoking an agent revokes its keys, including rotated ones.
    for (id, key) in
        [(json!(agent.key_id), agent.raw_key.as_str()), (rotated["id"].clone(), rotated["raw_key"].as_str().unwrap())]
    {
        let of = (json!(agent.id), id);
        assert_key_rejected(&server, key, 401, "API key has been revoked", "key_revoked", of).await;
    }
}

async fn exchange_requires_a_key(db: Database) {
    let server = Server::start(db).await;
    for path in ["/auth/token", "/api/v1/auth/token"] {
        let response = server.anonymous().post_empty(path).await;
        assert_invalid(&response, &json!([["header", "X-API-Key"]]));
        assert_eq!(response.detail()[0]["type"], "missing");
    }
    assert_eq!(server.audited("auth.failed").await.len(), 0);
}

/// Asserts that tokens signed with this algorithm verify with the published key that they name.
async fn assert_tokens_verify(db: Database, name: &str, algorithm: Algorithm) {
    let server = Server::start_with(db, &[("JWT_ALGORITHM", name)]).await;
    let token = server.admin.token();
    let header = part(token, 0);
    assert_eq!(members(&header), ["alg", "kid", "typ"]);
    assert_eq!((&header["alg"], &header["typ"]), (&json!(name), &json!("at+jwt")));

    let response = server.anonymous().get("/.well-known/jwks.json").await;
    assert_eq!(response.header("cache-control"), Some("public, max-age=300"));
    let published = response.expect(200);
    // The current signing key and the next one.
    let keys = published["keys"].as_array().unwrap();
    assert_eq!((keys.len(), &keys[0]["kid"]), (2, &header["kid"]));
    for key in keys {
        assert_eq!((&key["alg"], &key["use"]), (&json!(name), &json!("sig")));
        for secret in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert!(key.get(secret).is_none(), "{secret}");
        }
    }
    let published = &keys[0];

    let jwk: Jwk = serde_json::from_value(published.clone()).unwrap();
    let key = DecodingKey::from_jwk(&jwk).unwrap();
    let claims = jsonwebtoken::decode::<Value>(token, &key, &expected(algorithm)).unwrap().claims;
    assert_eq!(claims, part(token, 1));
    assert_eq!(claims["sub"], server.admin_id);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    signature[7] ^= 1;
    let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    jsonwebtoken::decode::<Value>(&forged, &key, &expected(algorithm)).unwrap_err();
    server.admin.with_token(&forged).get("/agents").await.refused(401, "Invalid or expired token");
}

/// The test clock differs from the system's, so the times of the token are not validated.
fn expected(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[ISSUER]);
    validation
}

async fn es256_tokens_verify_against_the_published_keys(db: Database) {
    assert_tokens_verify(db, "ES256", Algorithm::ES256).await;
}

async fn eddsa_tokens_verify_against_the_published_keys(db: Database) {
    assert_tokens_verify(db, "EdDSA", Algorithm::EdDSA).await;
}

async fn rs256_tokens_verify_against_the_published_keys(db: Database) {
    assert_tokens_verify(db, "RS256", Algorithm::RS256).await;
}

async fn hs256_tokens_verify_with_the_secret_and_no_key_is_published(db: Database) {
    let server = Server::start_with(db, &[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET_KEY", SECRET)]).await;
    let token = server.admin.token();
    let header = part(token, 0);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("HS256"), &json!("at+jwt")));
    assert_eq!(server.anonymous().get("/.well-known/jwks.json").await.expect(200), json!({ "keys": [] }));
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    let claims = jsonwebtoken::decode::<Value>(token, &key, &expected(Algorithm::HS256)).unwrap().claims;
    assert_eq!(claims["sub"], server.admin_id);
    server.admin.get("/agents").await.expect(200);
    // The secret alone selects the algorithm, and a restart keeps the tokens valid.
    let old = server.admin.clone();
    let server = server.restart(&[("JWT_SECRET_KEY", SECRET)]).await;
    server.admin.with_token(old.token()).get("/agents").await.expect(200);
}

async fn claims_contain_the_agent_and_its_scope(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &["keys:manage", "agents:read"]).await;
    let claims = part(agent.client.token(), 1);
    assert_eq!(claims["sub"], agent.id);
    assert_eq!(claims["client_id"], agent.id);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(ISSUER), &json!(ISSUER)));
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(START), &json!(START + 1_800)));
    // No `nbf`: a verifier whose clock is behind would reject a fresh token.
    assert_eq!(claims.get("nbf"), None);
    assert_eq!(claims["scopes"], json!(["agents:read", "keys:manage"]));
    assert_eq!(claims["scope"], "agents:read keys:manage");
    let again = part(&token(server.anonymous().exchange(&agent.raw_key).await), 1);
    assert!(claims["jti"].is_string() && claims["jti"] != again["jti"]);

    let none = server.agent("none", &[]).await;
    let claims = part(none.client.token(), 1);
    assert_eq!((&claims["scopes"], claims.get("scope")), (&json!([]), None));
    let scopes = part(server.admin.token(), 1)["scopes"].clone();
    assert_eq!(scopes, json!(["admin:*", "agents:read", "agents:write", "audit:read", "keys:manage"]));
}

async fn tokens_survive_a_restart(db: Database) {
    let server = Server::start(db).await;
    let old = server.admin.clone();
    let published = server.anonymous().get("/.well-known/jwks.json").await.expect(200);
    let server = server.restart(&[]).await;
    assert_eq!(server.anonymous().get("/.well-known/jwks.json").await.expect(200), published);
    server.admin.with_token(old.token()).get("/agents").await.expect(200);
    assert_eq!(server.audited("signing_key.created").await.len(), 2);
}

async fn tokens_survive_a_change_of_algorithm(db: Database) {
    let server = Server::start(db).await;
    let old = server.admin.clone();
    let server = server.restart(&[("JWT_ALGORITHM", "EdDSA")]).await;
    server.admin.with_token(old.token()).get("/agents").await.expect(200);
    assert_eq!(part(server.admin.token(), 0)["alg"], "EdDSA");
    let published = server.anonymous().get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(each(&published["keys"], "alg"), ["EdDSA", "EdDSA", "ES256", "ES256"]);
}

async fn token_expires_exactly_at_exp(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &["agents:read"]).await;
    // The token was issued within the clock's first second. Its last valid second is the one before `exp`.
    server.clock.advance(Duration::from_mins(30) - Duration::from_secs(1));
    agent.client.get("/agents").await.expect(200);
    server.clock.advance(Duration::from_secs(1));
    let response = agent.client.get("/agents").await;
    response.refused(401, "Invalid or expired token");
    assert_eq!(
        response.header("www-authenticate"),
        Some(
            "Bearer error=\"invalid_token\", error_description=\"Invalid or expired token\", \
             resource_metadata=\"https://aims.test/.well-known/oauth-protected-resource\""
        )
    );
    server.anonymous().login(&agent.raw_key).await.get("/agents").await.expect(200);
}

async fn token_lifetime_is_configurable(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "2")]).await;
    assert_eq!(server.anonymous().exchange(&server.admin_key).await.expect(200)["expires_in"], 120);
    server.clock.advance(Duration::from_mins(2));
    server.admin.get("/agents").await.refused(401, "Invalid or expired token");
}

async fn tokens_do_not_outlive_their_key(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &["agents:read"]).await;
    let body = json!({ "expires_at": "2026-01-01T12:10:00Z" });
    let created = server.admin.post(&format!("/agents/{}/keys", agent.id), body).await.expect(201);
    let issued = server.anonymous().exchange(created["raw_key"].as_str().unwrap()).await.expect(200);
    assert_eq!(issued["expires_in"], 600);
    let client = server.anonymous().with_token(issued["access_token"].as_str().unwrap());
    assert_eq!(part(client.token(), 1)["exp"], START + 600);
    server.clock.advance(Duration::from_secs(599));
    client.get("/agents").await.expect(200);
    server.clock.advance(Duration::from_secs(1));
    client.get("/agents").await.refused(401, "Invalid or expired token");
    agent.client.get("/agents").await.expect(200);
}

async fn requests_require_a_valid_bearer_token(db: Database) {
    let server = Server::start(db).await;
    let none = server.anonymous().get("/agents").await;
    none.refused(401, "Not authenticated");
    assert_eq!(none.header("www-authenticate"), Some(CHALLENGE));

    let good = server.admin.token().to_owned();
    let with = |value: String| {
        let client = server.anonymous();
        async move { client.send(client.request(http::Method::GET, "/agents").header("authorization", value)).await }
    };
    with(format!("Bearer {good}")).await.expect(200);
    with(format!("bearer {good}")).await.expect(200);
    let (head, rest) = good.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
    for bad in [
        "Bearer x".to_owned(),
        "Bearer ".to_owned() + &"x".repeat(9_000),
        format!("Bearer {head}.{claims}."),
        format!("Bearer {head}.{claims}"),
        format!("Bearer {unsigned}.{claims}."),
        format!("Bearer {unsigned}.{claims}.{signature}"),
        format!("Bearer {}", server.admin_key),
    ] {
        with(bad).await.refused(401, "Invalid or expired token");
    }
    for other in ["Basic eDp5".to_owned(), good.clone(), format!("Token {good}")] {
        with(other).await.refused(401, "Not authenticated");
    }
    let records = server.audited("auth.failed").await;
    assert!(records.iter().all(|record| details(record) == json!({ "reason": "invalid_token" })), "{records:?}");
}
