//! Editing and deleting a capability.

use std::time::Instant;

use futures_util::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};

use super::{UNKNOWN_ID, assert_invalid, each};
use crate::{
    both,
    oauth::post_as_client,
    support::{Agent, Client, Database, Response, Server, details, open, start},
};

both!(
    a_description_can_be_edited,
    a_capability_without_holders_is_deleted,
    a_capability_in_use_is_deleted_only_with_its_grants,
    tokens_lose_a_deleted_capability_at_once_on_every_node,
    wildcards_outlive_a_deleted_capability,
    capabilities_that_aims_checks_stay,
    deleting_requires_power_over_every_agent,
    a_grant_that_races_with_a_deletion_leaves_nothing,
    more_holders_than_can_change_at_once_are_refused,
);

async fn delete(client: &Client, id: &str, query: &str) -> Response {
    client.delete(&format!("/capabilities/{id}{query}")).await
}

const WITH_GRANTS: &str = "?with_grants=true";

async fn a_description_can_be_edited(db: Database) {
    let server = Server::start(db).await;
    let id = server.capability("documents:raed").await;
    let path = format!("/capabilities/{id}");
    let edited = server.admin.patch(&path, json!({ "description": "A typo" })).await.expect(200);
    assert_eq!((&edited["name"], &edited["description"]), (&json!("documents:raed"), &json!("A typo")));
    assert_eq!(server.admin.get(&path).await.expect(200), edited);
    for unchanged in [json!({}), json!({ "description": "A typo" })] {
        assert_eq!(server.admin.patch(&path, unchanged).await.expect(200), edited);
    }
    let records = server.audited("capability.updated").await;
    assert_eq!(records.len(), 1, "an edit that changes nothing is not recorded");
    assert_eq!(details(&records[0])["changes"]["description"], json!({ "from": "", "to": "A typo" }));
    let response = server.admin.patch(&path, json!({ "description": "x".repeat(2_001) })).await;
    assert_invalid(&response, &json!([["body", "description"]]));
}

async fn a_capability_without_holders_is_deleted(db: Database) {
    let server = Server::start(db).await;
    let id = server.capability("documents:raed").await;
    assert_invalid(&delete(&server.admin, &id, "?with_grants=yes").await, &json!([["query", "with_grants"]]));
    delete(&server.admin, &id, "").await.expect(204);
    for gone in [id.as_str(), UNKNOWN_ID, "junk"] {
        delete(&server.admin, gone, "").await.refused(404, "Capability not found");
        server.admin.get(&format!("/capabilities/{gone}")).await.refused(404, "Capability not found");
    }
    assert_eq!(server.admin.get("/capabilities").await.expect(200).as_array().unwrap().len(), 5);
    let record = &server.audited("capability.deleted").await[0];
    let expected = json!({
        "capability": "documents:raed", "capability_id": id, "description": "", "agents": 0, "resources": 0,
    });
    assert_eq!(details(record), expected);
    assert_eq!((&record["resource_type"], &record["resource_id"]), (&json!("capability"), &json!(id)));
    // The name is free again.
    let again = server.admin.post("/capabilities", json!({ "name": "documents:raed" })).await.expect(201);
    assert_ne!(again["id"], json!(id));
}

async fn a_capability_in_use_is_deleted_only_with_its_grants(db: Database) {
    let server = Server::start(db).await;
    let id = server.capability("documents:read").await;
    let resource = json!({ "identifier": "https://mcp.example", "name": "MCP", "scope": "documents:read agents:read" });
    let resource = server.admin.post("/resources", resource).await.expect(201);
    delete(&server.admin, &id, "").await.refused(409, "Capability is named by 1 resource");
    let mut agents = Vec::new();
    for name in ["a", "b"] {
        agents.push(server.agent(name, &["documents:read", "agents:read"]).await);
    }
    for query in ["", "?with_grants=false"] {
        let response = delete(&server.admin, &id, query).await;
        response.refused(409, "Capability is held by 2 agents and named by 1 resource");
    }
    assert_eq!(server.audited("capability.deleted").await.len(), 0);

    delete(&server.admin, &id, WITH_GRANTS).await.expect(204);
    for agent in &agents {
        let held = server.admin.get(&format!("/agents/{}/capabilities", agent.id)).await.expect(200);
        assert_eq!(each(&held, "name"), ["agents:read"]);
    }
    let path = format!("/resources/{}", resource["id"].as_str().unwrap());
    assert_eq!(server.admin.get(&path).await.expect(200)["scope"], "agents:read");

    // One record for each agent and resource, and one for the capability, all of the same request.
    let revoked = server.audited("capability.revoked").await;
    let subjects: Vec<_> = revoked.iter().map(|record| record["resource_id"].as_str().unwrap()).collect();
    assert!(subjects.len() == 2 && agents.iter().all(|agent| subjects.contains(&agent.id.as_str())), "{revoked:?}");
    let deleted = &server.audited("capability.deleted").await[0];
    assert_eq!((&details(deleted)["agents"], &details(deleted)["resources"]), (&json!(2), &json!(1)));
    let updated = &server.audited("resource.updated").await[0];
    assert_eq!(details(updated)["changes"]["scope"]["to"], "agents:read");
    for record in revoked.iter().chain([updated]) {
        assert_eq!(record["request_id"], deleted["request_id"]);
    }
    assert!(revoked.iter().all(|record| details(record)["deleted"] == true));
}

async fn scope(server: &Server, resource_server: &Agent, token: &str) -> Value {
    let response = post_as_client(server, resource_server, "/oauth/introspect", &[("token", token)]).await;
    response.expect(200)["scope"].clone()
}

async fn tokens_lose_a_deleted_capability_at_once_on_every_node(db: Database) {
    let server = Server::start(db).await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    let agent = server.agent("worker", &["agents:*", "documents:read"]).await;
    let token = agent.client.token();
    assert_eq!(scope(&server, &resource_server, token).await, "agents:* documents:read");
    let other = if server.db.is_sqlite() {
        None
    } else {
        Some(Client::new(start(open(&server.db, &server.clock, &[]).await).await))
    };
    if let Some(other) = &other {
        other.with_token(token).get("/agents").await.expect(200);
    }

    let id = server.capability("documents:read").await;
    delete(&server.admin, &id, WITH_GRANTS).await.expect(204);
    assert_eq!(scope(&server, &resource_server, token).await, "agents:*");
    // A custom wildcard that the API itself accepts can be deleted, too.
    let id = server.capability("agents:*").await;
    delete(&server.admin, &id, WITH_GRANTS).await.expect(204);
    agent.client.get("/agents").await.refused(403, "Missing required capability: agents:read");
    assert_eq!(scope(&server, &resource_server, token).await, Value::Null);
    let form = [("grant_type", "client_credentials"), ("scope", "documents:read")];
    let response = post_as_client(&server, &agent, "/oauth/token", &form).await;
    assert_eq!(response.expect(400)["error"], "invalid_scope");
    let Some(other) = other else { return };
    // A notification takes a moment; nothing else has to happen.
    let elsewhere = other.with_token(token);
    let started = Instant::now();
    while elsewhere.get("/agents").await.status != 403 {
        assert!(started.elapsed().as_secs() < 5, "the other node must follow");
    }
    let introspecting = other.with_token(resource_server.client.token());
    let request = introspecting.request(Method::POST, "/oauth/introspect").form(&[("token", token)]);
    assert_eq!(introspecting.send(request).await.expect(200)["scope"], Value::Null);
}

async fn wildcards_outlive_a_deleted_capability(db: Database) {
    let server = Server::start(db).await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    let agent = server.agent("worker", &["documents:*", "documents:read"]).await;
    let id = server.capability("documents:read").await;
    delete(&server.admin, &id, WITH_GRANTS).await.expect(204);
    assert_eq!(scope(&server, &resource_server, agent.client.token()).await, "documents:* documents:read");
    // A new token can have the wildcard, and not a name that is not registered.
    let form = [("grant_type", "client_credentials"), ("scope", "documents:read")];
    let response = post_as_client(&server, &agent, "/oauth/token", &form).await;
    assert_eq!(response.expect(400)["error_description"], "Not registered: documents:read");
}

async fn capabilities_that_aims_checks_stay(db: Database) {
    let server = Server::start(db).await;
    for name in ["admin:*", "agents:read", "agents:write", "keys:manage", "audit:read", "tokens:introspect"] {
        let id = server.capability(name).await;
        for query in ["", WITH_GRANTS] {
            delete(&server.admin, &id, query)
                .await
                .refused(400, "AIMS itself checks this capability, so it cannot be deleted");
        }
    }
    assert_eq!(server.admin.get("/capabilities").await.expect(200).as_array().unwrap().len(), 6);
}

async fn deleting_requires_power_over_every_agent(db: Database) {
    let server = Server::start(db).await;
    let id = server.capability("documents:read").await;
    let everything_else = ["agents:*", "keys:*", "audit:*", "tokens:*", "documents:*", "admin:users"];
    let strong = server.agent("strong", &everything_else).await;
    let holder = server.agent("holder", &["documents:read"]).await;
    for (client, query) in [(&strong.client, ""), (&strong.client, WITH_GRANTS), (&holder.client, WITH_GRANTS)] {
        delete(client, &id, query).await.refused(403, "Missing required capability: admin:*");
        let response = client.patch(&format!("/capabilities/{id}"), json!({ "description": "x" })).await;
        response.refused(403, "Missing required capability: admin:*");
    }
    // An administrator cannot take a capability from itself, neither directly nor through an agent that acts for it.
    let other = server.agent("other", &["admin:*", "documents:read"]).await;
    delete(&other.client, &id, WITH_GRANTS).await.refused(400, "Cannot modify your own capabilities");
    let delegate = server.agent("delegate", &["admin:*"]).await;
    let body = json!({ "delegate_id": delegate.id });
    server.admin.post(&format!("/agents/{}/delegates", other.id), body).await.expect(201);
    let access_token = "urn:ietf:params:oauth:token-type:access_token";
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", other.client.token()),
        ("subject_token_type", access_token),
    ];
    let acting = post_as_client(&server, &delegate, "/oauth/token", &form).await.expect(200);
    let acting = server.anonymous().with_token(acting["access_token"].as_str().unwrap());
    delete(&acting, &id, WITH_GRANTS).await.refused(400, "Cannot modify your own capabilities");
    // A token of an administrator for less than `admin:*`.
    let form = [("grant_type", "client_credentials"), ("scope", "agents:write")];
    let narrow = post_as_client(&server, &other, "/oauth/token", &form).await.expect(200);
    let narrow = server.anonymous().with_token(narrow["access_token"].as_str().unwrap());
    delete(&narrow, &id, WITH_GRANTS).await.refused(403, "Missing required capability: admin:*");
    // Agents that hold more than the capability are no obstacle to an administrator.
    delete(&delegate.client, &id, WITH_GRANTS).await.expect(204);
    assert_eq!(server.audited("capability.deleted").await.len(), 1);
}

async fn a_grant_that_races_with_a_deletion_leaves_nothing(db: Database) {
    let server = Server::start(db).await;
    let id = server.capability("documents:read").await;
    let create = |n: usize| server.admin.post("/agents", json!({ "name": format!("a-{n}"), "owner": "tests" }));
    let agents: Vec<_> = join_all((0..100).map(create)).await.into_iter().map(|agent| agent.expect(201)).collect();
    let grants = agents.iter().map(|agent| {
        let path = format!("/agents/{}/capabilities", agent["id"].as_str().unwrap());
        let (admin, body) = (&server.admin, json!({ "capability_id": id }));
        async move { admin.post(&path, body).await.status.as_u16() }
    });
    let deletions = join_all((0..3).map(|_| delete(&server.admin, &id, WITH_GRANTS)));
    let (granted, deleted) = join(join_all(grants), deletions).await;
    let mut outcomes: Vec<_> = deleted.iter().map(|response| response.status.as_u16()).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, [204, 404, 404]);
    assert!(granted.iter().all(|status| [201, 404].contains(status)), "{granted:?}");
    let done = granted.iter().filter(|status| **status == 201).count();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM agent_capabilities").await, 5, "only the administrator's");
    assert_eq!(server.audited("capability.granted").await.len(), done + 5);
    assert_eq!(server.audited("capability.revoked").await.len(), done);
    let record = details(&server.audited("capability.deleted").await[0]);
    assert_eq!(record["agents"], json!(done));
}

async fn more_holders_than_can_change_at_once_are_refused(db: Database) {
    let server = Server::start(db).await;
    let id = server.capability("documents:read").await;
    let as_id = |text: &str| if server.db.is_sqlite() { format!("UNHEX({text})") } else { format!("({text})::uuid") };
    let number = if server.db.is_sqlite() { "PRINTF('%032x', n)" } else { "LPAD(TO_HEX(n), 32, '0')" };
    let numbers = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10001)";
    let agent = as_id(number);
    server
        .db
        .execute(&format!(
            "INSERT INTO agents (id, name, description, owner, status, agent_type, metadata_json, created_at, updated_at) \
             {numbers} SELECT {agent}, 'bulk-' || n, '', 'tests', 'active', 'llm', '{{}}', 1, 1 FROM numbers"
        ))
        .await;
    let capability = as_id(&format!("'{}'", id.replace('-', "")));
    server
        .db
        .execute(&format!(
            "INSERT INTO agent_capabilities (agent_id, capability_id, granted_at) \
             {numbers} SELECT {agent}, {capability}, 1 FROM numbers"
        ))
        .await;
    delete(&server.admin, &id, "").await.refused(409, "Capability is held by more than 10000 agents");
    let response = delete(&server.admin, &id, WITH_GRANTS).await;
    let message = response.expect(409)["detail"].as_str().unwrap().to_owned();
    assert!(message.contains("At most 10000") && message.contains("revoke it from some agents first"), "{message}");

    let one = "00000000-0000-0000-0000-000000000001";
    server.admin.delete(&format!("/agents/{one}/capabilities/{id}")).await.expect(204);
    let started = Instant::now();
    delete(&server.admin, &id, WITH_GRANTS).await.expect(204);
    let took = started.elapsed();
    eprintln!("10,000 grants were removed in {took:?}");
    assert!(took.as_secs() < 30, "other writers waited for {took:?}");
    let removed =
        "SELECT COUNT(*) FROM audit_log WHERE action = 'capability.revoked' AND details LIKE '%\"deleted\":true%'";
    assert_eq!(server.db.count(removed).await, 10_000);
    assert_eq!(details(&server.audited("capability.deleted").await[0])["agents"], 10_000);
}
