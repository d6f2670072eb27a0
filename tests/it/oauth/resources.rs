//! Protected resources and resource indicators (RFC 8707).

use serde_json::json;

use super::{ISSUER, claims, post, post_as_client, refused, request_token, token};
use crate::{
    both,
    support::{Database, Server, details},
};

both!(
    token_is_for_the_requested_resource,
    resources_can_be_registered_edited_and_deleted,
    resource_matches_every_equivalent_identifier,
    resource_named_twice_counts_once,
    resources_of_an_earlier_version_still_match,
);

async fn token_is_for_the_requested_resource(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read", "keys:manage"]).await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    let uri = "https://mcp.example/tools";
    let new = json!({ "identifier": uri, "name": "Tools", "scope": "agents:read audit:read" });
    server.admin.post("/resources", new).await.expect(201);

    // The agent's capabilities that the resource allows.
    let body = request_token(&server, &agent, &[("resource", uri)]).await.expect(200);
    assert_eq!(body["scope"], "agents:read");
    let token_for_it = body["access_token"].as_str().unwrap();
    assert_eq!(claims(token_for_it)["aud"], uri);
    for more in ["keys:manage", "audit:read"] {
        refused(&request_token(&server, &agent, &[("resource", uri), ("scope", more)]).await, 400, "invalid_scope");
    }
    // The token is valid nowhere else, including the AIMS API.
    server.anonymous().with_token(token_for_it).get("/agents").await.refused(401, "Invalid or expired token");
    let introspected = post(&resource_server.client, "/oauth/introspect", &[("token", token_for_it)]).await.expect(200);
    assert_eq!((&introspected["active"], &introspected["aud"]), (&json!(true), &json!(uri)));

    // AIMS itself needs no registration, and many clients add a slash to a URL without a path.
    for own in [ISSUER.to_owned(), format!("{ISSUER}/")] {
        let own = token(&server, &agent, &[("resource", &own)]).await;
        assert_eq!(claims(&own)["aud"], ISSUER);
        server.anonymous().with_token(&own).get("/agents").await.expect(200);
    }
    refused(&request_token(&server, &agent, &[("resource", &format!("{ISSUER}//"))]).await, 400, "invalid_target");
    for unknown in ["https://mcp.example/tools/", "https://mcp.example/Tools", "https://other.example", "x", "#", "\0"]
    {
        refused(&request_token(&server, &agent, &[("resource", unknown)]).await, 400, "invalid_target");
    }
    assert_eq!(server.audited("token.refused").await.len(), 9);
    refused(&request_token(&server, &agent, &[("resource", uri), ("resource", ISSUER)]).await, 400, "invalid_target");
}

async fn resources_can_be_registered_edited_and_deleted(db: Database) {
    let server = Server::start(db).await;
    let new = |identifier: &str| json!({ "identifier": identifier, "name": "Tools", "scope": "agents:read" });
    let created = server.admin.post("/resources", new("https://a.example")).await.expect(201);
    server.admin.post("/resources", new("https://a.example")).await.refused(409, "Resource identifier already exists");
    server.admin.post("/resources", new(ISSUER)).await.expect(409);
    server.admin.post("/resources", new(&format!("{ISSUER}/"))).await.expect(409);
    let unknown = json!({ "identifier": "https://b.example", "name": "B", "scope": "not:registered" });
    server.admin.post("/resources", unknown).await.refused(404, "Capability not found");
    for (field, value) in [("identifier", "/relative"), ("identifier", "https://x/#y"), ("name", ""), ("scope", "a\"b")]
    {
        let mut body = new("https://b.example");
        body[field] = json!(value);
        server.admin.post("/resources", body).await.expect(422);
    }
    server.admin.post("/resources", json!({ "identifier": "urn:example:b", "name": "B" })).await.expect(201);
    let listed = server.admin.get("/resources?limit=1").await;
    assert!(listed.header("link").unwrap().contains("rel=\"next\""));
    assert_eq!(listed.expect(200), json!([created]));
    assert_eq!(server.admin.get("/resources").await.expect(200).as_array().unwrap().len(), 2);

    let path = format!("/resources/{}", created["id"].as_str().unwrap());
    let edited = server.admin.patch(&path, json!({ "name": "New", "scope": "" })).await.expect(200);
    assert_eq!((&edited["name"], &edited["scope"]), (&json!("New"), &json!("")));
    server.admin.patch(&path, json!({ "name": "New" })).await.expect(200);
    assert_eq!(server.admin.get(&path).await.expect(200), edited);
    let records = server.audited("resource.updated").await;
    assert_eq!(records.len(), 1, "a no-op edit must leave no record");
    assert_eq!(details(&records[0])["changes"]["scope"], json!({ "from": "agents:read", "to": "" }));

    let agent = server.agent("worker", &["agents:read"]).await;
    request_token(&server, &agent, &[("resource", "https://a.example")]).await.expect(200);
    agent.client.delete(&path).await.refused(403, "Missing required capability: admin:*");
    server.admin.delete(&path).await.expect(204);
    server.admin.get(&path).await.refused(404, "Resource not found");
    server.admin.delete(&path).await.refused(404, "Resource not found");
    refused(&request_token(&server, &agent, &[("resource", "https://a.example")]).await, 400, "invalid_target");
    assert_eq!(server.audited("resource.deleted").await.len(), 1);
}

/// RFC 8707 identifies resources by URIs, which are compared as in RFC 3986 §6.2. The audience is the registered
/// identifier.
async fn resource_matches_every_equivalent_identifier(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let new = |identifier: &str| json!({ "identifier": identifier, "name": "x", "scope": "agents:read" });
    for (registered, equivalent, others) in [
        (
            "https://MCP.example",
            ["https://mcp.example/", "HTTPS://mcp.EXAMPLE:443", "https://%6Dcp.example"],
            ["http://mcp.example/", "https://mcp.example:8443", "https://mcp.example//"],
        ),
        (
            "http://tools.example:80/a%2fb",
            ["http://tools.example/a%2Fb", "http://Tools.example:/a%2fb", "HTTP://tools.example/x/../a%2Fb"],
            ["http://tools.example/a/b", "http://tools.example/A%2fb", "http://tools.example/a%2fb/"],
        ),
        (
            "https://[2001:db8::1]:8443/mcp",
            ["https://[2001:DB8::1]:8443/mcp", "https://[2001:db8:0::1]:8443/mcp", "https://[2001:db8::1]:8443/%6Dcp"],
            ["https://[2001:db8::1]/mcp", "https://[2001:db8::2]:8443/mcp", "https://2001:db8::1:8443/mcp"],
        ),
        (
            "urn:example:Billing",
            ["URN:example:Billing", "urn:EXAMPLE:Billing", "urn:example:%42illing"],
            ["urn:example:billing", "urn:example:Billing:", "urn:other:Billing"],
        ),
    ] {
        server.admin.post("/resources", new(registered)).await.expect(201);
        for same in equivalent.into_iter().chain([registered]) {
            let token = token(&server, &agent, &[("resource", same)]).await;
            assert_eq!(claims(&token)["aud"], registered, "{same}");
            server.admin.post("/resources", new(same)).await.refused(409, "Resource identifier already exists");
        }
        for other in others {
            refused(&request_token(&server, &agent, &[("resource", other)]).await, 400, "invalid_target");
        }
    }
}

async fn resource_named_twice_counts_once(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let planner = server.agent("planner", &["agents:read"]).await;
    let delegate = json!({ "delegate_id": agent.id });
    server.admin.post(&format!("/agents/{}/delegates", planner.id), delegate).await.expect(201);
    for identifier in ["https://one.example", "https://two.example"] {
        let new = json!({ "identifier": identifier, "name": "x", "scope": "agents:read" });
        server.admin.post("/resources", new).await.expect(201);
    }
    let exchange = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", planner.client.token()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    for grant in [&[("grant_type", "client_credentials")][..], &exchange] {
        let request = async |wanted: &[(&str, &str)]| {
            post_as_client(&server, &agent, "/oauth/token", &[grant, wanted].concat()).await
        };
        for (first, second) in [("resource", "resource"), ("audience", "audience"), ("resource", "audience")] {
            for same in ["https://one.example", "https://ONE.example:443/"] {
                let body = request(&[(first, "https://one.example"), (second, same), (first, same)]).await.expect(200);
                assert_eq!(claims(body["access_token"].as_str().unwrap())["aud"], "https://one.example");
            }
            for other in ["https://two.example", ISSUER, "x", "https://one.example/x"] {
                for [one, other] in [["https://one.example", other], [other, "https://one.example"]] {
                    refused(&request(&[(first, one), (second, other)]).await, 400, "invalid_target");
                }
            }
            let issuer = format!("{ISSUER}/");
            request(&[(first, &issuer), (second, ISSUER)]).await.expect(200);
            // Naming an unregistered resource twice does not make it known.
            refused(&request(&[(first, "x"), (second, "x")]).await, 400, "invalid_target");
        }
    }
    refused(
        &request_token(&server, &agent, &[("scope", "agents:read"), ("scope", "agents:read")]).await,
        400,
        "invalid_request",
    );
}

async fn resources_of_an_earlier_version_still_match(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let (plain, shouted) = ("https://mcp.example", "HTTPS://MCP.EXAMPLE");
    let new = |identifier: &str| json!({ "identifier": identifier, "name": "x", "scope": "agents:read" });
    server.admin.post("/resources", new(plain)).await.expect(201);
    server.admin.post("/resources", new("https://other.example")).await.expect(201);
    // An earlier version did not treat these two as equivalent.
    server.db.execute("UPDATE resources SET normal_form = NULL").await;
    server.db.execute(&format!("UPDATE resources SET identifier = '{shouted}' WHERE identifier <> '{plain}'")).await;
    let server = server.restart(&[]).await;
    for (asked, audience) in [(plain, plain), (shouted, shouted), ("https://mcp.example/", plain)] {
        let token = token(&server, &agent, &[("resource", asked)]).await;
        assert_eq!(claims(&token)["aud"], audience, "{asked}");
    }
    server.admin.post("/resources", new("https://mcp.example:443")).await.expect(409);
}
