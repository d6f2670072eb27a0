//! The token endpoint with client credentials.

use std::time::Duration;

use reqwest::{Method, header::AUTHORIZATION};
use serde_json::json;

use super::{
    ISSUER, claims,
    delegation::{allow, exchange},
    post, post_as_client, refused, request_token, token,
};
use crate::{
    both,
    support::{Database, Server, details},
};

both!(
    client_authenticates_with_basic_or_in_the_form,
    token_has_the_requested_scope,
    client_can_shorten_the_lifetime,
    unauthenticated_clients_are_rejected,
    inactive_agents_are_rejected,
    malformed_requests_return_the_errors_of_the_rfc,
    rejected_requests_are_audited,
    every_issued_token_is_accepted,
    number_of_parameters_is_limited,
    rate_limit_returns_an_oauth_error,
    unusable_authorization_headers_are_rejected_and_audited,
    client_identifier_is_case_insensitive,
    scope_names_at_most_100_capabilities,
    scope_names_only_registered_capabilities,
    token_without_capabilities_has_no_scope,
);

async fn client_authenticates_with_basic_or_in_the_form(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &["agents:read"]).await;
    let basic = request_token(&server, &agent, &[]).await;
    assert_eq!(basic.header("cache-control"), Some("no-store"));
    let body = basic.expect(200);
    assert_eq!(
        (&body["token_type"], &body["expires_in"], &body["scope"]),
        (&json!("Bearer"), &json!(1_800), &json!("agents:read"))
    );
    let form =
        [("grant_type", "client_credentials"), ("client_id", agent.id.as_str()), ("client_secret", &agent.raw_key)];
    let by_form = post(&server.anonymous(), "/oauth/token", &form).await.expect(200);
    // The secret identifies the client; RFC 6749 allows `client_id` in addition.
    post(&server.anonymous(), "/oauth/token", &[form[0], form[2]]).await.expect(200);
    for body in [body, by_form] {
        let token = body["access_token"].as_str().unwrap();
        let claims = claims(token);
        assert_eq!((&claims["sub"], &claims["client_id"]), (&json!(agent.id), &json!(agent.id)));
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!(ISSUER), &json!(ISSUER)));
        server.anonymous().with_token(token).get("/agents").await.expect(200);
    }
    let issued = server.audited("token.issued").await;
    assert_eq!(issued.len(), 3);
    assert_eq!((&issued[0]["agent_id"], &issued[0]["resource_type"]), (&json!(agent.id), &json!("api_key")));
    assert!(details(&issued[0])["jti"].is_string());
}

async fn token_has_the_requested_scope(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read", "keys:manage"]).await;
    server.capability("tickets:*").await;
    server.grant(&agent.id, "tickets:*").await;
    let response = request_token(&server, &agent, &[("scope", "agents:read")]).await.expect(200);
    assert_eq!(response["scope"], "agents:read");
    let narrow = server.anonymous().with_token(response["access_token"].as_str().unwrap());
    narrow.get("/agents").await.expect(200);
    narrow.get(&format!("/agents/{}/keys", agent.id)).await.refused(403, "Missing required capability: keys:manage");
    // Part of what a wildcard covers can be requested by itself.
    server.capability("tickets:close").await;
    assert_eq!(claims(&token(&server, &agent, &[("scope", "tickets:close")]).await)["scope"], "tickets:close");
    let all = claims(&token(&server, &agent, &[]).await);
    assert_eq!(all["scope"], "agents:read keys:manage tickets:*");
    for more in ["agents:write", "admin:*", "agents:read admin:*", "agents:*", "unheard:of", "*"] {
        refused(&request_token(&server, &agent, &[("scope", more)]).await, 400, "invalid_scope");
    }
    for malformed in ["a\"b", "agents:read\nadmin:*", " ", "a  b", "é"] {
        refused(&request_token(&server, &agent, &[("scope", malformed)]).await, 400, "invalid_scope");
    }
    // A capability that is revoked is removed from existing tokens.
    let token = token(&server, &agent, &[("scope", "keys:manage")]).await;
    let capability = server.capability("keys:manage").await;
    server.admin.delete(&format!("/agents/{}/capabilities/{capability}", agent.id)).await.expect(204);
    let response = server.anonymous().with_token(&token).get(&format!("/agents/{}/keys", agent.id)).await;
    response.refused(403, "Missing required capability: keys:manage");
}

async fn client_can_shorten_the_lifetime(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &["agents:read"]).await;
    for (asked, given) in [("60", 60), ("1800", 1_800), ("1801", 1_800), ("99999999999", 1_800)] {
        assert_eq!(request_token(&server, &agent, &[("expires_in", asked)]).await.expect(200)["expires_in"], given);
    }
    for bad in ["0", "-1", "x", "1.5", "99999999999999999999999"] {
        refused(&request_token(&server, &agent, &[("expires_in", bad)]).await, 400, "invalid_request");
    }
    let short = server.anonymous().with_token(&token(&server, &agent, &[("expires_in", "60")]).await);
    server.clock.advance(Duration::from_secs(59));
    short.get("/agents").await.expect(200);
    server.clock.advance(Duration::from_secs(1));
    short.get("/agents").await.refused(401, "Invalid or expired token");
}

async fn unauthenticated_clients_are_rejected(db: Database) {
    let server = Server::start(db).await;
    let (agent, other) = (server.agent("a", &[]).await, server.agent("b", &[]).await);
    let send = async |id: &str, secret: &str| {
        let anonymous = server.anonymous();
        let form = [("grant_type", "client_credentials")];
        anonymous.send(anonymous.request(Method::POST, "/oauth/token").basic_auth(id, Some(secret)).form(&form)).await
    };
    for (id, secret) in [
        (agent.id.as_str(), "wrong"),
        (&agent.id, ""),
        ("", &agent.raw_key),
        ("nobody", &agent.raw_key),
        // One agent's key with another agent's identifier.
        (&other.id, &agent.raw_key),
        (&agent.raw_key, &agent.id),
    ] {
        let response = send(id, secret).await;
        refused(&response, 401, "invalid_client");
        assert_eq!(response.header("www-authenticate"), Some("Basic realm=\"AIMS\""));
    }
    for junk in ["Basic", "Basic !!!", "Basic /w==", "Basic bm9jb2xvbg==", "Digest x", "Negotiate"] {
        let anonymous = server.anonymous();
        let request = anonymous.request(Method::POST, "/oauth/token").header(AUTHORIZATION, junk);
        let response = anonymous.send(request.form(&[("grant_type", "client_credentials")])).await;
        refused(&response, 401, "invalid_client");
        assert_eq!(response.header("www-authenticate"), Some("Basic realm=\"AIMS\""));
    }
    // Only clients that used Basic are challenged with it.
    for form in [
        vec![("grant_type", "client_credentials")],
        vec![("grant_type", "client_credentials"), ("client_id", &agent.id)],
        vec![("grant_type", "client_credentials"), ("client_id", &other.id), ("client_secret", &agent.raw_key)],
    ] {
        let response = post(&server.anonymous(), "/oauth/token", &form).await;
        refused(&response, 401, "invalid_client");
        assert_eq!(response.header("www-authenticate"), None);
    }
    // An access token does not authenticate a client.
    let response = post(&agent.client, "/oauth/token", &[("grant_type", "client_credentials")]).await;
    refused(&response, 401, "invalid_client");
}

async fn inactive_agents_are_rejected(db: Database) {
    let server = Server::start(db).await;
    let (suspended, revoked, keyless) =
        (server.agent("a", &[]).await, server.agent("b", &[]).await, server.agent("c", &[]).await);
    server.admin.post_empty(&format!("/agents/{}/suspend", suspended.id)).await.expect(200);
    server.admin.post_empty(&format!("/agents/{}/revoke", revoked.id)).await.expect(200);
    let keys = server.admin.get(&format!("/agents/{}/keys", keyless.id)).await.expect(200);
    let key = keys[0]["id"].as_str().unwrap();
    server.admin.delete(&format!("/agents/{}/keys/{key}", keyless.id)).await.expect(204);
    for (agent, why) in [
        (&suspended, "Agent is suspended"),
        (&revoked, "API key has been revoked"),
        (&keyless, "API key has been revoked"),
    ] {
        let response = request_token(&server, agent, &[]).await;
        refused(&response, 401, "invalid_client");
        assert_eq!(response.json()["error_description"], why);
    }
}

async fn malformed_requests_return_the_errors_of_the_rfc(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &["agents:read"]).await;
    let secret = [("client_id", agent.id.as_str()), ("client_secret", agent.raw_key.as_str())];
    let with = async |more: &[(&str, &str)]| {
        post(&server.anonymous(), "/oauth/token", &[secret.as_slice(), more].concat()).await
    };
    refused(&with(&[]).await, 400, "invalid_request");
    refused(&with(&[("grant_type", "")]).await, 400, "invalid_request");
    for grant in ["password", "authorization_code", "refresh_token", "client_credentials ", "x"] {
        refused(&with(&[("grant_type", grant)]).await, 400, "unsupported_grant_type");
    }
    let grant = ("grant_type", "client_credentials");
    for doubled in [grant, ("scope", "agents:read"), secret[0], secret[1], ("unknown", "x")] {
        refused(&with(&[grant, doubled, doubled]).await, 400, "invalid_request");
    }
    // A parameter without a value counts as absent.
    with(&[grant, ("scope", ""), ("resource", ""), ("unknown", "x")]).await.expect(200);

    let anonymous = server.anonymous();
    let request = || anonymous.request(Method::POST, "/oauth/token");
    let both = request().basic_auth(&agent.id, Some(&agent.raw_key)).form(&[grant, secret[0], secret[1]]);
    refused(&anonymous.send(both).await, 400, "invalid_request");
    let other = request().basic_auth(&agent.id, Some(&agent.raw_key)).form(&[grant, ("client_id", "another")]);
    refused(&anonymous.send(other).await, 400, "invalid_request");
    let json = request().json(&json!({ "grant_type": "client_credentials" }));
    refused(&anonymous.send(json).await, 400, "invalid_request");
    let form = "application/x-www-form-urlencoded";
    let no_text = request().header("content-type", form).body(b"grant_type=\xff".to_vec());
    refused(&anonymous.send(no_text).await, 400, "invalid_request");
    let large = request().header("content-type", form).body("x=".to_owned() + &"y".repeat(2 * 1_024 * 1_024));
    refused(&anonymous.send(large).await, 413, "invalid_request");
    refused(&anonymous.get("/oauth/authorize?response_type=code&client_id=x").await, 400, "unsupported_response_type");
    // Unknown methods and endpoints return OAuth errors, too.
    let response = anonymous.get("/oauth/token").await;
    refused(&response, 405, "invalid_request");
    assert_eq!(response.header("allow"), Some("POST"));
    for path in ["/oauth/x", "/oauth/token/", "/oauth/token/x"] {
        refused(&anonymous.get(path).await, 404, "invalid_request");
        refused(&post(&anonymous, path, &[]).await, 404, "invalid_request");
    }
}

async fn rejected_requests_are_audited(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    refused(&request_token(&server, &agent, &[("scope", "admin:*")]).await, 400, "invalid_scope");
    refused(&request_token(&server, &agent, &[("resource", "https://unknown.example")]).await, 400, "invalid_target");
    let records = server.audited("token.refused").await;
    let reasons: Vec<_> = records.iter().map(|record| details(record)["reason"].clone()).collect();
    assert_eq!(reasons, ["invalid_target", "invalid_scope"]);
    assert!(records.iter().all(|record| record["agent_id"] == agent.id.as_str() && record["success"] == 0));

    // With a duplicate header, it is unclear whose request it is.
    let anonymous = server.anonymous();
    let grants = ["client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer"];
    for (path, grant) in [("/oauth/token", grants[0]), ("/oauth/token", grants[1]), ("/oauth/revoke", grants[0])] {
        let request = anonymous.request(Method::POST, path).basic_auth(&agent.id, Some(&agent.raw_key));
        let request = request.basic_auth(&agent.id, Some("")).form(&[("grant_type", grant), ("assertion", "x")]);
        refused(&anonymous.send(request).await, 400, "invalid_request");
    }
    let doubled = || agent.client.request(Method::GET, "/agents").bearer_auth(agent.client.token());
    anonymous.send(doubled()).await.refused(401, "Invalid or expired token");
    let request = agent.client.request(Method::POST, "/oauth/introspect").bearer_auth(agent.client.token());
    refused(&anonymous.send(request.form(&[("token", "x")])).await, 401, "invalid_token");
    let failed = server.audited("auth.failed").await;
    let reasons: Vec<_> = failed.iter().map(|record| details(record)["reason"].clone()).collect();
    assert_eq!(reasons, ["invalid_token", "invalid_token", "invalid_client", "invalid_client", "invalid_client"]);

    let form = [("grant_type", "client_credentials"), ("client_secret", "aims_wrong")];
    refused(&post(&server.anonymous(), "/oauth/token", &form).await, 401, "invalid_client");
    let failed = server.audited("auth.failed").await;
    assert_eq!(details(&failed[0]), json!({ "reason": "invalid_key" }));
    assert!(!failed[0].to_string().contains("aims_wrong"));
}

/// AIMS must not issue a token that it would reject as too long, and granting a capability must not lock an agent out.
async fn every_issued_token_is_accepted(db: Database) {
    const LONG: usize = 128;
    let server = Server::start(db).await;
    let agent = server.agent("holder", &["agents:read"]).await;
    let grants = format!("/agents/{}/capabilities", agent.id);
    let mut granted = 0;
    let refused_one = loop {
        let name = format!("c{granted:0>width$}", width = LONG - 1);
        let id = server.capability(&name).await;
        let response = server.admin.post(&grants, json!({ "capability_id": id })).await;
        if response.status != 201 {
            response.refused(
                409,
                "The names of an agent's capabilities can have 4096 characters in total. Grant a wildcard instead",
            );
            break id;
        }
        granted += 1;
    };
    assert_eq!(granted, 31);
    let token = server.anonymous().exchange(&agent.raw_key).await.expect(200)["access_token"].clone();
    server.anonymous().with_token(token.as_str().unwrap()).get("/agents").await.expect(200);

    // Grants that already exist in the database.
    let blob = |id: &str| if server.db.is_sqlite() { format!("x'{}'", id.replace('-', "")) } else { format!("'{id}'") };
    let grant = format!(
        "INSERT INTO agent_capabilities (agent_id, capability_id, granted_by, granted_at) VALUES ({}, {}, NULL, 0)",
        blob(&agent.id),
        blob(&refused_one)
    );
    server.db.execute(&grant).await;
    let server = server.restart(&[]).await;
    let issued = server.audited("auth.token_issued").await.len();
    server.anonymous().exchange(&agent.raw_key).await.expect(400);
    refused(&request_token(&server, &agent, &[]).await, 400, "invalid_scope");
    assert_eq!(server.audited("auth.token_issued").await.len(), issued);
    let token = token_of(&request_token(&server, &agent, &[("scope", "agents:read")]).await.expect(200));
    server.anonymous().with_token(&token).get("/agents").await.expect(200);
}

fn token_of(body: &serde_json::Value) -> String {
    body["access_token"].as_str().unwrap().to_owned()
}

/// Parameters are compared pairwise before the client is authenticated.
async fn number_of_parameters_is_limited(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &["agents:read"]).await;
    let names: Vec<_> = (0..64).map(|n| format!("extension_{n}")).collect();
    let with = |count: usize| {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(names[..count].iter().map(|name| (name.as_str(), "x")));
        form
    };
    post_as_client(&server, &agent, "/oauth/token", &with(63)).await.expect(200);
    refused(&post_as_client(&server, &agent, "/oauth/token", &with(64)).await, 400, "invalid_request");
    refused(&post(&server.anonymous(), "/oauth/introspect", &with(64)).await, 400, "invalid_request");
}

async fn rate_limit_returns_an_oauth_error(db: Database) {
    let limits = [("RATE_LIMIT_AUTH_PER_MINUTE", "2"), ("RATE_LIMIT_API_PER_MINUTE", "1")];
    // The administrator's login was the first of two requests.
    let server = Server::start_with(db, &limits).await;
    let anonymous = server.anonymous();
    let form = [("grant_type", "client_credentials")];
    refused(&post(&anonymous, "/oauth/token", &form).await, 401, "invalid_client");
    anonymous.get("/oauth/authorize").await.expect(400);
    let problem = anonymous.request(Method::POST, "/oauth/token").header("accept", "application/problem+json");
    for response in [
        post(&anonymous, "/oauth/token", &form).await,
        post(&anonymous, "/oauth/revoke", &form).await,
        anonymous.get("/oauth/authorize").await,
        anonymous.send(problem.form(&form)).await,
    ] {
        refused(&response, 429, "temporarily_unavailable");
        assert_eq!(response.json()["error_description"], "Rate limit exceeded");
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert!(response.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1, "{response:?}");
    }
    anonymous.exchange("junk").await.refused(429, "Rate limit exceeded");
}

async fn unusable_authorization_headers_are_rejected_and_audited(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let anonymous = server.anonymous();
    let form = [("grant_type", "client_credentials"), ("client_id", &agent.id), ("token", "junk")];
    let headers = ["Basic !!!", "Bearer x", "Negotiate", "Basic Og=="];
    for path in ["/oauth/token", "/oauth/introspect", "/oauth/revoke"] {
        for header in headers {
            // A bearer token authenticates the client at this endpoint.
            if (path, header) == ("/oauth/introspect", "Bearer x") {
                continue;
            }
            let request = anonymous.request(Method::POST, path).header(AUTHORIZATION, header);
            let response = anonymous.send(request.form(&form)).await;
            refused(&response, 401, "invalid_client");
            assert_eq!(response.header("www-authenticate"), Some("Basic realm=\"AIMS\""), "{path} {header}");
        }
    }
    let failed = server.audited("auth.failed").await;
    assert_eq!(failed.len(), 3 * headers.len() - 1);
    assert!(failed.iter().all(|record| details(record) == json!({ "reason": "invalid_key" })), "{failed:?}");
}

async fn client_identifier_is_case_insensitive(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let anonymous = server.anonymous();
    let upper = agent.id.to_ascii_uppercase();
    for (basic, parameter) in [(&upper, &agent.id), (&agent.id, &upper)] {
        let form = [("grant_type", "client_credentials"), ("client_id", parameter)];
        let request = anonymous.request(Method::POST, "/oauth/token").basic_auth(basic, Some(&agent.raw_key));
        anonymous.send(request.form(&form)).await.expect(200);
    }
}

async fn scope_names_at_most_100_capabilities(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    server.capability("t:*").await;
    server.grant(&agent.id, "t:*").await;
    for name in 0..100 {
        server.admin.post("/capabilities", json!({ "name": format!("t:{name}") })).await.expect(201);
    }
    let scope = |names: usize| (0..names).map(|name| format!("t:{name}")).collect::<Vec<_>>().join(" ");
    let body = request_token(&server, &agent, &[("scope", &scope(100))]).await.expect(200);
    assert_eq!(body["scope"].as_str().unwrap().split(' ').count(), 100);
    for names in [101, 10_000] {
        let response = request_token(&server, &agent, &[("scope", &scope(names))]).await;
        refused(&response, 400, "invalid_scope");
        assert!(response.text.len() < 200, "{response:?}");
    }
}

/// A wildcard covers every name, but requesting an unregistered name is an error for every client.
async fn scope_names_only_registered_capabilities(db: Database) {
    let server = Server::start(db).await;
    let administrator = server.agent("administrator", &["admin:*"]).await;
    let worker = server.agent("worker", &["tickets:*"]).await;
    server.capability("tickets:close").await;
    allow(&server, &administrator, &worker).await;
    for agent in [&administrator, &worker] {
        let exchanged = async |scope: &str| {
            exchange(&server, administrator.client.token(), worker.client.token(), &[("scope", scope)]).await
        };
        for unknown in ["tickets:open", "tickets:close tickets:open", "tickets:close:now", "tickets:"] {
            for response in [request_token(&server, agent, &[("scope", unknown)]).await, exchanged(unknown).await] {
                refused(&response, 400, "invalid_scope");
            }
        }
        for response in
            [request_token(&server, agent, &[("scope", "tickets:close")]).await, exchanged("tickets:close").await]
        {
            assert_eq!(response.expect(200)["scope"], "tickets:close");
        }
    }
    for unknown in ["unheard:of", "agents:*", "*", "admin:"] {
        let response = request_token(&server, &administrator, &[("scope", unknown)]).await;
        refused(&response, 400, "invalid_scope");
        assert_eq!(response.json()["error_description"], format!("Not registered: {unknown}"));
    }
    assert_eq!(details(&server.audited("token.refused").await[0])["reason"], "invalid_scope");
}

/// A scope contains at least one capability (RFC 6749 section 3.3).
async fn token_without_capabilities_has_no_scope(db: Database) {
    let server = Server::start(db).await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    let agent = server.agent("agent", &[]).await;
    let uri = "https://tools.example";
    server.admin.post("/resources", json!({ "identifier": uri, "name": "Tools" })).await.expect(201);
    for wanted in [vec![], vec![("resource", uri)]] {
        let body = request_token(&server, &agent, &wanted).await.expect(200);
        assert_eq!(body.get("scope"), None);
        let token = body["access_token"].as_str().unwrap();
        let claims = claims(token);
        assert_eq!((claims.get("scope"), &claims["scopes"]), (None, &json!([])));
        let introspected = post(&resource_server.client, "/oauth/introspect", &[("token", token)]).await.expect(200);
        assert_eq!((&introspected["active"], introspected.get("scope")), (&json!(true), None));
    }
    // Also for capabilities that the agent has lost since.
    let worker = server.agent("worker", &["agents:read"]).await;
    let token = token(&server, &worker, &[]).await;
    let capability = server.capability("agents:read").await;
    server.admin.delete(&format!("/agents/{}/capabilities/{capability}", worker.id)).await.expect(204);
    let introspected = post(&resource_server.client, "/oauth/introspect", &[("token", &token)]).await.expect(200);
    assert_eq!((&introspected["active"], introspected.get("scope")), (&json!(true), None));
}
