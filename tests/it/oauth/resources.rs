//! Protected resources: registered, and asked for by `resource` (RFC 8707).

use serde_json::json;

use super::{ISSUER, as_client, ask, claims, post, refused, token};
use crate::{
    both,
    support::{Database, Server, details},
};

both!(
    a_token_is_for_the_resource_that_was_asked_for,
    resources_are_registered_edited_and_removed,
    a_resource_is_known_by_every_equivalent_identifier,
    a_resource_that_is_named_twice_is_one,
    resources_of_an_earlier_version_are_known,
);

async fn a_token_is_for_the_resource_that_was_asked_for(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read", "keys:manage"]).await;
    let asking = server.agent("resource-server", &["tokens:introspect"]).await;
    let uri = "https://mcp.example/tools";
    let new = json!({ "identifier": uri, "name": "Tools", "scope": "agents:read audit:read" });
    server.admin.post("/resources", new).await.expect(201);

    // The agent's own, as far as the resource allows.
    let body = ask(&server, &agent, &[("resource", uri)]).await.expect(200);
    assert_eq!(body["scope"], "agents:read");
    let token_for_it = body["access_token"].as_str().unwrap();
    assert_eq!(claims(token_for_it)["aud"], uri);
    for more in ["keys:manage", "audit:read"] {
        refused(&ask(&server, &agent, &[("resource", uri), ("scope", more)]).await, 400, "invalid_scope");
    }
    // It is good nowhere else, AIMS's own API included.
    server.anybody().with_token(token_for_it).get("/agents").await.refused(401, "Invalid or expired token");
    let looked_at = post(&asking.client, "/oauth/introspect", &[("token", token_for_it)]).await.expect(200);
    assert_eq!((&looked_at["active"], &looked_at["aud"]), (&json!(true), &json!(uri)));

    // AIMS itself needs no registration, and many write a URL without a path with a slash.
    for own in [ISSUER.to_owned(), format!("{ISSUER}/")] {
        let own = token(&server, &agent, &[("resource", &own)]).await;
        assert_eq!(claims(&own)["aud"], ISSUER);
        server.anybody().with_token(&own).get("/agents").await.expect(200);
    }
    refused(&ask(&server, &agent, &[("resource", &format!("{ISSUER}//"))]).await, 400, "invalid_target");
    for unknown in ["https://mcp.example/tools/", "https://mcp.example/Tools", "https://other.example", "x", "#", "\0"]
    {
        refused(&ask(&server, &agent, &[("resource", unknown)]).await, 400, "invalid_target");
    }
    assert_eq!(server.audited("token.refused").await.len(), 9);
    refused(&ask(&server, &agent, &[("resource", uri), ("resource", ISSUER)]).await, 400, "invalid_target");
}

async fn resources_are_registered_edited_and_removed(db: Database) {
    let server = Server::start(db).await;
    let new = |identifier: &str| json!({ "identifier": identifier, "name": "Tools", "scope": "agents:read" });
    let made = server.admin.post("/resources", new("https://a.example")).await.expect(201);
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
    assert_eq!(listed.expect(200), json!([made]));
    assert_eq!(server.admin.get("/resources").await.expect(200).as_array().unwrap().len(), 2);

    let path = format!("/resources/{}", made["id"].as_str().unwrap());
    let edited = server.admin.patch(&path, json!({ "name": "New", "scope": "" })).await.expect(200);
    assert_eq!((&edited["name"], &edited["scope"]), (&json!("New"), &json!("")));
    server.admin.patch(&path, json!({ "name": "New" })).await.expect(200);
    assert_eq!(server.admin.get(&path).await.expect(200), edited);
    let records = server.audited("resource.updated").await;
    assert_eq!(records.len(), 1, "an edit that changes nothing leaves no record");
    assert_eq!(details(&records[0])["changes"]["scope"], json!({ "from": "agents:read", "to": "" }));

    let agent = server.agent("worker", &["agents:read"]).await;
    ask(&server, &agent, &[("resource", "https://a.example")]).await.expect(200);
    agent.client.delete(&path).await.refused(403, "Missing required capability: admin:*");
    server.admin.delete(&path).await.expect(204);
    server.admin.get(&path).await.refused(404, "Resource not found");
    server.admin.delete(&path).await.refused(404, "Resource not found");
    refused(&ask(&server, &agent, &[("resource", "https://a.example")]).await, 400, "invalid_target");
    assert_eq!(server.audited("resource.deleted").await.len(), 1);
}

/// RFC 8707 names resources by URIs, which are compared as RFC 3986 §6.2 says. The audience is what was registered.
async fn a_resource_is_known_by_every_equivalent_identifier(db: Database) {
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
            refused(&ask(&server, &agent, &[("resource", other)]).await, 400, "invalid_target");
        }
    }
}

async fn a_resource_that_is_named_twice_is_one(db: Database) {
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
        let ask =
            async |wanted: &[(&str, &str)]| as_client(&server, &agent, "/oauth/token", &[grant, wanted].concat()).await;
        for (first, second) in [("resource", "resource"), ("audience", "audience"), ("resource", "audience")] {
            for same in ["https://one.example", "https://ONE.example:443/"] {
                let body = ask(&[(first, "https://one.example"), (second, same), (first, same)]).await.expect(200);
                assert_eq!(claims(body["access_token"].as_str().unwrap())["aud"], "https://one.example");
            }
            for other in ["https://two.example", ISSUER, "x", "https://one.example/x"] {
                for [one, other] in [["https://one.example", other], [other, "https://one.example"]] {
                    refused(&ask(&[(first, one), (second, other)]).await, 400, "invalid_target");
                }
            }
            let issuer = format!("{ISSUER}/");
            ask(&[(first, &issuer), (second, ISSUER)]).await.expect(200);
            // Naming an unregistered resource twice does not make it known.
            refused(&ask(&[(first, "x"), (second, "x")]).await, 400, "invalid_target");
        }
    }
    refused(&ask(&server, &agent, &[("scope", "agents:read"), ("scope", "agents:read")]).await, 400, "invalid_request");
}

async fn resources_of_an_earlier_version_are_known(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let (plain, shouted) = ("https://mcp.example", "HTTPS://MCP.EXAMPLE");
    let new = |identifier: &str| json!({ "identifier": identifier, "name": "x", "scope": "agents:read" });
    server.admin.post("/resources", new(plain)).await.expect(201);
    server.admin.post("/resources", new("https://other.example")).await.expect(201);
    // It did not know that these two are equivalent.
    server.db.execute("UPDATE resources SET normal_form = NULL").await;
    server.db.execute(&format!("UPDATE resources SET identifier = '{shouted}' WHERE identifier <> '{plain}'")).await;
    let server = server.restart(&[]).await;
    for (asked, audience) in [(plain, plain), (shouted, shouted), ("https://mcp.example/", plain)] {
        let token = token(&server, &agent, &[("resource", asked)]).await;
        assert_eq!(claims(&token)["aud"], audience, "{asked}");
    }
    server.admin.post("/resources", new("https://mcp.example:443")).await.expect(409);
}
