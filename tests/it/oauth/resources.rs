//! Protected resources: registered, and asked for by `resource` (RFC 8707).

use serde_json::json;

use super::{ISSUER, ask, claims, post, refused, token};
use crate::{
    both,
    support::{Database, Server, details},
};

both!(a_token_is_for_the_resource_that_was_asked_for, resources_are_registered_edited_and_removed);

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
    for unknown in ["https://mcp.example/tools/", "https://MCP.example/tools", "https://other.example", "x", "#", "\0"]
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
