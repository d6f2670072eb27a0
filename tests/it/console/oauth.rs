//! Console pages for resources, public keys, tokens, delegates, trusted issuers and signing keys.

use std::time::Duration;

use aims::{domain::Role, service::tokens::signing_keys};
use serde_json::json;

use crate::{
    both,
    support::{Browser, Database, Server},
};

both!(
    resources_can_be_registered_edited_and_deleted,
    public_keys_can_be_registered_and_removed,
    tokens_can_be_listed_and_revoked,
    delegates_can_be_added_and_removed,
    trusted_issuers_can_be_added_and_removed,
    signing_keys_can_be_listed_and_rotated,
    overview_counts_oauth_tokens,
);

async fn resources_can_be_registered_edited_and_deleted(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    browser.get("/console/resources").await.shows("No resources yet");
    let post = async |browser: &Browser, identifier: &str, scope: &str| {
        let form = [("name", "Tools <b>"), ("identifier", identifier), ("scope", scope)];
        browser.post("/console/resources", &form).await
    };
    let page = post(&browser, "/relative", "not:registered").await.expect(422);
    page.shows("Enter a full URL").shows("value=\"/relative\"").shows("value=\"not:registered\"");
    let page = post(&browser, "https://mcp.example", "not:registered").await.expect(422);
    page.shows("One of these capabilities does not exist");
    post(&browser, "https://mcp.example", "agents:read").await.redirects_to("/console/resources");
    post(&browser, "https://mcp.example", "agents:read").await.expect(422).shows("already exists");
    let list = browser.get("/console/resources").await;
    list.shows("Tools &#60;b&#62;").shows("https://mcp.example");
    let id = server.admin.get("/resources").await.expect(200)[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/console/resources/{id}");
    browser.post(&path, &[("name", ""), ("scope", "agents:read")]).await.expect(422).shows("This field is required");
    browser.post(&path, &[("name", "New"), ("scope", "audit:read")]).await.redirects_to(&path);
    browser.get(&path).await.shows("value=\"audit:read\"");
    let viewer = server.signed_in("vic", Role::Viewer).await;
    let page = viewer.get(&path).await.expect(200);
    assert!(page.text.contains("audit:read") && !page.text.contains("/delete\""));
    viewer.get(&format!("{path}/delete")).await.expect(403);
    viewer.post(&format!("{path}/delete"), &[]).await.expect(403);
    browser.post(&format!("{path}/delete"), &[]).await.redirects_to("/console/resources");
    browser.get(&path).await.expect(404);
}

async fn public_keys_can_be_registered_and_removed(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let agent = server.agent("worker", &[]).await;
    let path = format!("/console/agents/{}/public-keys", agent.id);
    let keys = format!("/console/agents/{}/keys", agent.id);
    browser.get(&keys).await.shows("signs its token requests");
    browser.get(&format!("{path}/new")).await.expect(200);
    let jwk = json!({
        "kty": "EC",
        "crv": "P-256",
        "kid": "primary",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let mut private = jwk.clone();
    private["d"] = json!("c2VjcmV0LXNlY3JldC1zZWNyZXQ");
    for (bad, message) in [
        (private.to_string(), "private or secret key"),
        ("{".to_owned(), "Enter valid JSON"),
        (String::new(), "Enter valid JSON"),
    ] {
        let page = browser.post(&path, &[("jwk", &bad)]).await.expect(422);
        page.shows(message);
        assert!(!page.text.contains("c2VjcmV0"), "the page must not echo a private key");
    }
    browser.post(&path, &[("jwk", &jwk.to_string())]).await.redirects_to(&keys);
    browser.get(&keys).await.shows("primary").shows("ES256");
    browser.post(&path, &[("jwk", &jwk.to_string())]).await.expect(422).shows("already has this public key");
    let registered = server.admin.get(&format!("/agents/{}/public-keys", agent.id)).await.expect(200);
    let id = registered[0]["id"].as_str().unwrap();
    browser.post(&format!("{path}/{id}/remove"), &[]).await.redirects_to(&keys);
    browser.post(&format!("{path}/{id}/remove"), &[]).await.expect(404);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM public_keys").await, 0);
}

async fn tokens_can_be_listed_and_revoked(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let (planner, worker) = (server.agent("planner", &[]).await, server.agent("worker", &[]).await);
    let path = format!("/console/agents/{}/tokens", planner.id);
    browser
        .post(&format!("/console/agents/{}/delegates", planner.id), &[("delegate", "worker")])
        .await
        .redirects_to(&path);
    let access_token = "urn:ietf:params:oauth:token-type:access_token";
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", planner.client.token()),
        ("subject_token_type", access_token),
        ("actor_token", worker.client.token()),
        ("actor_token_type", access_token),
    ];
    let anonymous = server.anonymous();
    anonymous.send(anonymous.request(reqwest::Method::POST, "/oauth/token").form(&form)).await.expect(200);
    browser.get(&path).await.shows("1 derived token").shows(&worker.id).shows("depth 1");
    let of_worker = format!("/console/agents/{}/tokens", worker.id);
    browser.get(&of_worker).await.shows("On behalf of").shows(&planner.id);
    browser.post(&format!("{path}/end"), &[]).await.redirects_to(&path);
    browser.get(&path).await.shows("2 tokens of planner revoked").shows("No active tokens");
    assert!(!browser.get(&of_worker).await.text.contains("On behalf of"));
}

async fn delegates_can_be_added_and_removed(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let (planner, worker) = (server.agent("planner", &[]).await, server.agent("worker", &[]).await);
    let boss = server.agent("boss", &["admin:*"]).await;
    let (page, path) =
        (format!("/console/agents/{}/tokens", planner.id), format!("/console/agents/{}/delegates", planner.id));
    for (name, message) in [
        ("nobody", "No agent with this name exists"),
        ("", "No agent with this name exists"),
        ("planner", "cannot be its own delegate"),
    ] {
        browser.post(&path, &[("delegate", name)]).await.expect(422).shows(message);
    }
    browser.post(&path, &[("delegate", "worker")]).await.redirects_to(&page);
    browser.get(&page).await.shows("worker can act on behalf of planner now");
    browser.post(&path, &[("delegate", "worker")]).await.expect(422).shows("is already a delegate");
    // Only a holder of `admin:*` may choose who acts for an agent that holds `admin:*`.
    let of_boss = format!("/console/agents/{}/delegates", boss.id);
    browser.post(&of_boss, &[("delegate", "worker")]).await.expect(403);
    browser.post(&format!("{path}/{}/remove", worker.id), &[]).await.redirects_to(&page);
    browser.post(&format!("{path}/{}/remove", worker.id), &[]).await.expect(404);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM delegations").await, 0);
}

async fn trusted_issuers_can_be_added_and_removed(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let agent = server.agent("worker", &[]).await;
    let path = format!("/console/agents/{}/federated-identities", agent.id);
    let keys = format!("/console/agents/{}/keys", agent.id);
    browser.get(&keys).await.shows("can authenticate without a secret");
    browser.get(&format!("{path}/new")).await.expect(200);
    let good = [
        ("issuer", "https://issuer.example"),
        ("jwks_uri", ""),
        ("audience", "https://aims.example"),
        ("claims", "sub = workload\r\n\r\nref=refs/heads/main"),
    ];
    for (name, value, message) in [
        ("issuer", "issuer.example", "HTTPS URL"),
        ("jwks_uri", "nowhere", "HTTPS URL"),
        ("claims", "sub", "name=value"),
        ("claims", "iss=https://issuer.example", "Use claims that identify the workload"),
    ] {
        let form = good.map(|(field, was)| if field == name { (field, value) } else { (field, was) });
        browser.post(&path, &form).await.expect(422).shows(message);
    }
    browser.post(&path, &good).await.redirects_to(&keys);
    browser
        .get(&keys)
        .await
        .shows("worker can authenticate with tokens from")
        .shows("sub=workload")
        .shows("ref=refs/heads/main");
    let listed = server.admin.get(&format!("/agents/{}/federated-identities", agent.id)).await.expect(200);
    let id = listed[0]["id"].as_str().unwrap();
    browser.post(&format!("{path}/{id}/remove"), &[]).await.redirects_to(&keys);
    browser.post(&format!("{path}/{id}/remove"), &[]).await.expect(404);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM federated_identities").await, 0);
}

async fn signing_keys_can_be_listed_and_rotated(db: Database) {
    const PATH: &str = "/console/signing-keys";
    const ROTATE: &str = "/console/signing-keys/rotate";
    let server = Server::start(db).await;
    let viewer = server.signed_in("vic", Role::Viewer).await;
    let page = viewer.get(PATH).await.expect(200);
    assert!(page.text.contains("Signing</span>") && !page.text.contains("Rotate keys"));
    viewer.post(ROTATE, &[]).await.expect(403);
    let browser = server.signed_in("zoe", Role::Owner).await;
    browser.get(PATH).await.shows("Rotate keys").shows("every 30 days").shows("Replace all signing keys…");
    viewer.get("/console/signing-keys/replace").await.expect(403);
    browser.post(ROTATE, &[]).await.redirects_to(PATH);
    browser.get(PATH).await.shows("may not know the next key yet");
    let page = browser.get("/console/signing-keys/replace").await.expect(200);
    browser.post(ROTATE, &[("when", &page.hidden("when"))]).await.redirects_to(PATH);
    browser.get(PATH).await.shows("AIMS now signs with");
    server.clock.advance(signing_keys::PUBLISHED_FOR + Duration::from_mins(6));
    browser.post(ROTATE, &[]).await.expect(401).shows("Confirm your identity");
    assert_eq!(server.db.count("SELECT COUNT(*) FROM signing_keys").await, 2);

    let shared = [("JWT_SECRET_KEY", "a secret of more than thirty-two bytes")];
    let server = Server::start_with(Database::sqlite(), &shared).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    browser.get(PATH).await.shows("JWT_SECRET_KEY");
    browser.get("/console/signing-keys/replace").await.expect(400).shows("JWT_SECRET_KEY");
    browser.post(ROTATE, &[]).await.redirects_to(PATH);
}

async fn overview_counts_oauth_tokens(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let agent = server.agent("worker", &[]).await;
    let issued = async || {
        server.save_usage().await;
        server.db.count("SELECT CAST(SUM(issued) AS BIGINT) FROM activity").await
    };
    let before = issued().await;
    let form = [("grant_type", "client_credentials"), ("client_secret", agent.raw_key.as_str())];
    let anonymous = server.anonymous();
    let asked = anonymous.request(reqwest::Method::POST, "/oauth/token").form(&form);
    anonymous.send(asked).await.expect(200);
    assert_eq!(issued().await, before + 1);
    // One token of the legacy exchange and this one.
    browser.get(&format!("/console/agents/{}/revoke", agent.id)).await.shows("1 API key and 2 active tokens");
}
