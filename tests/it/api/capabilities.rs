//! Capabilities and grants.

use serde_json::json;

use super::{UNKNOWN_ID, assert_invalid, each, members, next};
use crate::{
    both,
    support::{Database, Server, details},
};

both!(
    new_database_has_five_capabilities,
    capability_matches_the_contract,
    capability_names_are_unique,
    capability_names_are_scope_tokens,
    descriptions_are_plain_text,
    paging_returns_each_capability_once,
    list_without_limit_returns_a_large_page,
    grants_take_effect_and_can_be_revoked,
    granting_requires_an_existing_agent_and_capability,
    agents_cannot_change_their_own_capabilities,
    last_administrator_keeps_admin_capability,
    every_capability_change_is_audited,
    every_route_requires_its_capability,
);

/// In alphabetical order. They are registered at the same moment, so listings return them in no particular order.
const BUILTIN: [&str; 5] = ["admin:*", "agents:read", "agents:write", "audit:read", "keys:manage"];

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

async fn new_database_has_five_capabilities(db: Database) {
    let server = Server::start(db).await;
    assert_eq!(sorted(each(&server.admin.get("/capabilities").await.expect(200), "name")), BUILTIN);
    let admin = server.admin.get(&format!("/agents/{}", server.admin_id)).await.expect(200);
    assert_eq!(
        (&admin["name"], &admin["owner"], &admin["agent_type"]),
        (&json!("admin"), &json!("system"), &json!("orchestrator"))
    );
    let held = server.admin.get(&format!("/agents/{}/capabilities", server.admin_id)).await.expect(200);
    assert_eq!(each(&held, "name"), BUILTIN);
}

async fn capability_matches_the_contract(db: Database) {
    let server = Server::start(db).await;
    let body = json!({ "name": "deploy:prod/eu", "description": "Deploys\nto Europe" });
    let created = server.admin.post("/capabilities", body).await.expect(201);
    assert_eq!(members(&created), ["created_at", "description", "id", "name"]);
    assert_eq!((&created["name"], &created["description"]), (&json!("deploy:prod/eu"), &json!("Deploys\nto Europe")));
    assert!(created["created_at"].as_str().unwrap().ends_with('Z'));
    let plain = server.admin.post("/api/v1/capabilities", json!({ "name": "x" })).await.expect(201);
    assert_eq!(plain["description"], "");
    let listed = server.admin.get("/api/v1/capabilities").await.expect(200);
    assert_eq!((&listed[5], &listed[6]), (&created, &plain));
}

async fn capability_names_are_unique(db: Database) {
    let server = Server::start(db).await;
    for name in ["agents:read", "deploy"] {
        let _ = server.admin.post("/capabilities", json!({ "name": name })).await;
        server
            .admin
            .post("/capabilities", json!({ "name": name }))
            .await
            .refused(409, "Capability name already exists");
    }
    assert_eq!(server.admin.get("/capabilities").await.expect(200).as_array().unwrap().len(), 6);
    assert_eq!(server.audited("capability.created").await.len(), 6);
    // Scopes are case-sensitive, but readers confuse names that differ only by case.
    let response = server.admin.post("/capabilities", json!({ "name": "Deploy" })).await;
    response.refused(409, "This name is too similar to one in use: deploy");
}

async fn capability_names_are_scope_tokens(db: Database) {
    let server = Server::start(db).await;
    let too_long = "a".repeat(129);
    for wrong in ["", "a b", " a", "a\"b", "a\\b", "a\nb", "a\0b", "a\u{7f}b", "a\u{202e}b", "é:x", &too_long] {
        let response = server.admin.post("/capabilities", json!({ "name": wrong })).await;
        assert_invalid(&response, &json!([["body", "name"]]));
    }
    for wrong in [json!(null), json!(1), json!(["a"]), json!({ "a": 1 })] {
        let response = server.admin.post("/capabilities", json!({ "name": wrong })).await;
        assert_invalid(&response, &json!([["body", "name"]]));
    }
    assert_invalid(&server.admin.post("/capabilities", json!({})).await, &json!([["body", "name"]]));
    for right in ["a".repeat(128), "!#[]~".to_owned(), "a'b;--".to_owned()] {
        server.admin.post("/capabilities", json!({ "name": right })).await.expect(201);
    }
}

async fn descriptions_are_plain_text(db: Database) {
    let server = Server::start(db).await;
    for wrong in [json!("x".repeat(2_001)), json!("a\u{2066}b"), json!("a\u{1b}b"), json!(1)] {
        let response = server.admin.post("/capabilities", json!({ "name": "x", "description": wrong })).await;
        assert_invalid(&response, &json!([["body", "description"]]));
    }
    let body = json!({ "name": "x", "description": "é".repeat(2_000) });
    server.admin.post("/capabilities", body).await.expect(201);
}

async fn paging_returns_each_capability_once(db: Database) {
    let server = Server::start(db).await;
    server.admin.post("/capabilities", json!({ "name": "sixth" })).await.expect(201);
    let mut path = "/api/v1/capabilities?limit=4".to_owned();
    let mut seen = Vec::new();
    for expected in [4, 2] {
        let page = server.admin.get(&path).await;
        let link = next(&page);
        let page = page.expect(200);
        assert_eq!(page.as_array().unwrap().len(), expected);
        seen.extend(each(&page, "name").into_iter().map(str::to_owned));
        assert_eq!(link.is_some(), expected == 4, "the last page must have no next link");
        path = link.unwrap_or_default();
    }
    assert_eq!(seen[5], "sixth");
    assert_eq!(sorted(seen.iter().take(5).map(String::as_str).collect()), BUILTIN);
    // A page that is exactly full is still the last one.
    assert_eq!(next(&server.admin.get("/capabilities?limit=6").await), None);
    assert_eq!(next(&server.admin.get("/capabilities").await), None);
}

async fn list_without_limit_returns_a_large_page(db: Database) {
    let server = Server::start(db).await;
    let register = |n: usize| server.admin.post("/capabilities", json!({ "name": format!("c:{n}") }));
    futures_util::future::join_all((0..495).map(register))
        .await
        .into_iter()
        .for_each(|response| drop(response.expect(201)));
    let all = server.admin.get("/capabilities").await;
    assert_eq!(next(&all), None);
    assert_eq!(all.expect(200).as_array().unwrap().len(), 500);
    register(495).await.expect(201);
    assert!(next(&server.admin.get("/capabilities").await).is_some());
}

async fn grants_take_effect_and_can_be_revoked(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let path = format!("/agents/{}/capabilities", agent.id);
    let missing = "Missing required capability: agents:read";
    agent.client.get("/agents").await.refused(403, missing);

    let id = server.capability("agents:read").await;
    let granted = server.admin.post(&path, json!({ "capability_id": id })).await.expect(201);
    let listed = server.admin.get("/capabilities").await.expect(200);
    assert!(listed.as_array().unwrap().contains(&granted), "{granted}");
    assert_eq!(granted["name"], "agents:read");
    assert_eq!(server.admin.get(&path).await.expect(200), json!([granted]));
    server.admin.post(&path, json!({ "capability_id": id })).await.refused(409, "Capability already granted");

    // A token's scope is fixed when it is issued; a newer token has the new capability.
    agent.client.get("/agents").await.refused(403, missing);
    let client = agent.client.login(&agent.raw_key).await;
    client.get("/agents").await.expect(200);

    server.grant(&agent.id, "a:first").await;
    let held = server.admin.get(&path).await.expect(200);
    assert_eq!(each(&held, "name"), ["a:first", "agents:read"], "sorted by name");

    server.admin.delete(&format!("{path}/{id}")).await.expect(204);
    client.get("/agents").await.refused(403, missing);
    assert_eq!(each(&server.admin.get(&path).await.expect(200), "name"), ["a:first"]);
    server.admin.delete(&format!("{path}/{id}")).await.expect(404);
    server.admin.post(&path, json!({ "capability_id": id })).await.expect(201);
}

async fn granting_requires_an_existing_agent_and_capability(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let known = server.capability("agents:read").await;
    for id in [UNKNOWN_ID, "junk"] {
        let path = format!("/agents/{id}/capabilities");
        server.admin.get(&path).await.refused(404, "Agent not found");
        server.admin.post(&path, json!({ "capability_id": known })).await.refused(404, "Agent not found");
        server.admin.delete(&format!("{path}/{known}")).await.refused(404, "Agent not found");
    }
    let path = format!("/agents/{}/capabilities", agent.id);
    for id in [UNKNOWN_ID, "junk", agent.id.as_str()] {
        server.admin.post(&path, json!({ "capability_id": id })).await.refused(404, "Capability not found");
        server.admin.delete(&format!("{path}/{id}")).await.refused(404, "Capability not found");
    }
    // The capability exists, but is not granted.
    let response = server.admin.delete(&format!("{path}/{known}")).await;
    assert_eq!(response.status.as_u16(), 404, "{response:?}");
    for wrong in [json!({}), json!({ "capability_id": null }), json!({ "capability_id": 7 })] {
        assert_invalid(&server.admin.post(&path, wrong).await, &json!([["body", "capability_id"]]));
    }
    assert_eq!(server.admin.get(&path).await.expect(200), json!([]));
    assert_eq!(server.audited("capability.revoked").await.len(), 0);
}

async fn agents_cannot_change_their_own_capabilities(db: Database) {
    let server = Server::start(db).await;
    let path = format!("/agents/{}/capabilities", server.admin_id);
    let refused = "Cannot modify your own capabilities";
    for name in ["agents:read", "new:one"] {
        let id = server.capability(name).await;
        server.admin.post(&path, json!({ "capability_id": id })).await.refused(400, refused);
        server.admin.delete(&format!("{path}/{id}")).await.refused(400, refused);
    }
    assert_eq!(server.admin.get(&path).await.expect(200).as_array().unwrap().len(), 5);
}

async fn last_administrator_keeps_admin_capability(db: Database) {
    let server = Server::start(db).await;
    let other = server.agent("other", &["admin:*"]).await;
    let power = server.capability("admin:*").await;
    let path = format!("/agents/{}/capabilities/{power}", server.admin_id);
    other.client.delete(&path).await.expect(204);
    server.admin.get("/capabilities").await.expect(200);
    server
        .admin
        .delete(&format!("/agents/{}/capabilities/{power}", other.id))
        .await
        .refused(403, "Missing required capability: admin:*");
    other.client.delete(&format!("/agents/{}/capabilities/{power}", other.id)).await.expect(400);
}

async fn every_capability_change_is_audited(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let id = server.capability("deploy").await;
    let path = format!("/agents/{}/capabilities", agent.id);
    server.admin.post(&path, json!({ "capability_id": id })).await.expect(201);
    server.admin.delete(&format!("{path}/{id}")).await.expect(204);
    for (action, kind, resource) in [
        ("capability.created", "capability", &id),
        ("capability.granted", "agent", &agent.id),
        ("capability.revoked", "agent", &agent.id),
    ] {
        let record = &server.audited(action).await[0];
        assert_eq!(details(record), json!({ "capability": "deploy", "capability_id": id }), "{action}");
        assert_eq!(
            (&record["agent_id"], &record["resource_type"], &record["resource_id"], &record["success"]),
            (&json!(server.admin_id), &json!(kind), &json!(resource), &json!(1)),
            "{action}"
        );
    }
}

async fn every_route_requires_its_capability(db: Database) {
    let server = Server::start(db).await;
    let reader = server.agent("reader", &["agents:read", "agents:write", "keys:manage", "audit:read"]).await;
    let nobody = server.agent("nobody", &["keys:manage"]).await;
    let id = server.capability("agents:read").await;
    let path = format!("/agents/{}/capabilities", nobody.id);
    for response in [
        reader.client.post("/capabilities", json!({ "name": "x" })).await,
        reader.client.post(&path, json!({ "capability_id": id })).await,
        reader.client.delete(&format!("{path}/{id}")).await,
    ] {
        response.refused(403, "Missing required capability: admin:*");
    }
    reader.client.get("/capabilities").await.expect(200);
    reader.client.get(&path).await.expect(200);
    nobody.client.get("/capabilities").await.refused(403, "Missing required capability: agents:read");
    nobody.client.get(&path).await.refused(403, "Missing required capability: agents:read");
}
