//! Agents.

use std::time::Duration;

use aims::{
    clock::Clock,
    domain::{Role, audit::hex},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    both,
    support::{Agent, Client, Database, Server, details},
};

both!(
    agent_responses_match_the_contract,
    agent_names_are_unique,
    both_api_mounts_serve_the_same_agents,
    edit_changes_only_the_given_fields,
    edit_record_shows_a_change_deep_in_a_long_value,
    status_and_name_cannot_be_edited,
    list_can_be_filtered_and_searched,
    paging_returns_each_agent_once,
    agents_can_be_suspended_and_reactivated,
    revocation_is_permanent,
    revoking_an_agent_revokes_its_unexpired_keys,
    keys_of_agents_revoked_by_an_earlier_version_read_as_revoked,
    deleting_an_agent_deletes_keys_and_grants_but_no_records,
    agents_cannot_suspend_revoke_or_delete_themselves,
    unknown_agents_return_404,
);

async fn agent_responses_match_the_contract(db: Database) {
    let server = Server::start(db).await;
    let body = json!({
        "name": "reader-1", "owner": "team-a", "description": "reads", "agent_type": "llm",
        "metadata_json": "{\"model\": \"x\"}",
    });
    let created = server.admin.post("/agents", body.clone()).await.expect(201);
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&created[field], value, "{field}");
    }
    assert_eq!(created["status"], "active");
    assert_eq!((&created["suspended_at"], &created["revoked_at"]), (&Value::Null, &Value::Null));
    assert_eq!(created["created_at"], created["updated_at"]);
    assert!(created["created_at"].as_str().unwrap().ends_with('Z'));
    let mut fields: Vec<_> = created.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "agent_type",
            "created_at",
            "description",
            "id",
            "labels",
            "metadata_json",
            "name",
            "owner",
            "revoked_at",
            "status",
            "suspended_at",
            "updated_at",
        ]
    );
    let id = created["id"].as_str().unwrap();
    assert_eq!(server.admin.get(&format!("/agents/{id}")).await.expect(200), created);

    let plain = server.admin.post("/agents", json!({ "name": "plain", "owner": "o" })).await.expect(201);
    assert_eq!(
        (&plain["description"], &plain["agent_type"], &plain["metadata_json"]),
        (&json!(""), &json!("custom"), &json!("{}"))
    );
    assert_eq!(plain["labels"], json!({}));

    let record = &server.audited("agent.created").await[1];
    assert_eq!((&record["resource_type"], &record["resource_id"]), (&json!("agent"), &json!(id)));
    assert_eq!((&record["agent_id"], &record["success"]), (&json!(server.admin_id), &json!(1)));
    assert_eq!(details(record), json!({ "name": "reader-1", "owner": "team-a" }));
}

async fn agent_names_are_unique(db: Database) {
    let server = Server::start(db).await;
    let body = json!({ "name": "twin", "owner": "o" });
    server.admin.post("/agents", body.clone()).await.expect(201);
    server.admin.post("/agents", body).await.refused(409, "Agent name already exists");
    assert_eq!(server.audited("agent.created").await.len(), 2, "the administrator and one agent");
}

async fn both_api_mounts_serve_the_same_agents(db: Database) {
    let server = Server::start(db).await;
    let created = server.admin.post("/api/v1/agents", json!({ "name": "a", "owner": "o" })).await.expect(201);
    let id = created["id"].as_str().unwrap();
    assert_eq!(server.admin.get(&format!("/agents/{id}")).await.expect(200), created);
    assert_eq!(server.admin.get(&format!("/api/v1/agents/{id}")).await.expect(200), created);
}

async fn edit_changes_only_the_given_fields(db: Database) {
    let server = Server::start(db).await;
    let before = server.admin.post("/agents", json!({ "name": "a", "owner": "o" })).await.expect(201);
    let path = format!("/agents/{}", before["id"].as_str().unwrap());
    let edit = json!({ "owner": "p", "description": "two\nlines", "agent_type": "tool", "metadata_json": "[1]" });
    let after = server.admin.patch(&path, edit.clone()).await.expect(200);
    for (field, value) in edit.as_object().unwrap() {
        assert_eq!(&after[field], value, "{field}");
    }
    assert!(after["updated_at"].as_str() > before["updated_at"].as_str());
    assert_eq!(after["created_at"], before["created_at"]);
    assert_eq!(server.admin.get(&path).await.expect(200), after);

    let record = &server.audited("agent.updated").await[0];
    assert_eq!(details(record)["updated_fields"], json!(["description", "owner", "agent_type", "metadata_json"]));
    assert_eq!(details(record)["changes"]["owner"], json!({ "from": "o", "to": "p" }));
    server.admin.patch(&path, json!({ "owner": "q" })).await.expect(200);
    let record = &server.audited("agent.updated").await[0];
    assert_eq!(details(record)["updated_fields"], json!(["owner"]));

    let unchanged = server.admin.patch(&path, json!({})).await.expect(200);
    assert_eq!(unchanged["description"], "two\nlines");
    assert_eq!(server.audited("agent.updated").await.len(), 2, "a no-op edit must leave no record");
}

async fn edit_record_shows_a_change_deep_in_a_long_value(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let path = format!("/agents/{}", agent.id);
    let text = |word: &str| format!("{}{word}{}", "a".repeat(5_000), "z".repeat(2_000));
    let metadata = |word: &str| json!([text(word)]).to_string();
    for word in ["before", "behind"] {
        let edit = json!({ "description": text(word), "metadata_json": metadata(word) });
        server.admin.patch(&path, edit).await.expect(200);
    }
    let changes = details(&server.audited("agent.updated").await[0])["changes"].clone();
    for (field, from, to) in
        [("description", text("before"), text("behind")), ("metadata_json", metadata("before"), metadata("behind"))]
    {
        let change = &changes[field];
        for (side, word, whole) in [("from", "before", from), ("to", "behind", to)] {
            let shown = change[side].as_str().unwrap();
            assert!(shown.contains(&format!("a{word}z")) && shown.chars().count() < 1_100, "{field} {side}: {shown}");
            assert_eq!(change[format!("{side}_sha256")], hex(&Sha256::digest(whole).into()), "{field} {side}");
        }
    }
}

async fn status_and_name_cannot_be_edited(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let path = format!("/agents/{}", agent.id);
    let edited = server.admin.patch(&path, json!({ "name": "b", "status": "revoked", "owner": "p" })).await.expect(200);
    assert_eq!((&edited["name"], &edited["status"]), (&json!("a"), &json!("active")));
}

async fn list_can_be_filtered_and_searched(db: Database) {
    let server = Server::start(db).await;
    for (name, owner, kind, description) in [
        ("alpha", "team-a", "llm", "summarises mail"),
        ("beta", "team-b", "tool", "50% faster"),
        ("gamma_x", "team-b", "llm", "Zoë's helper"),
    ] {
        let body = json!({ "name": name, "owner": owner, "agent_type": kind, "description": description });
        server.admin.post("/agents", body).await.expect(201);
    }
    let beta = server.admin.get("/agents?q=beta").await.expect(200)[0]["id"].as_str().unwrap().to_owned();
    server.admin.post(&format!("/agents/{beta}/suspend"), json!({})).await.expect(200);
    for (query, names) in [
        ("", vec!["admin", "alpha", "beta", "gamma_x"]),
        ("?status=suspended", vec!["beta"]),
        ("?status=active&owner=team-b", vec!["gamma_x"]),
        ("?agent_type=llm", vec!["alpha", "gamma_x"]),
        ("?owner=nobody", vec![]),
        ("?q=MAIL", vec!["alpha"]),
        ("?q=team-b", vec!["beta", "gamma_x"]),
        ("?q=%25", vec!["beta"]),
        ("?q=_", vec!["gamma_x"]),
        ("?q=Zo%C3%AB", vec!["gamma_x"]),
        ("?q=", vec!["admin", "alpha", "beta", "gamma_x"]),
    ] {
        let listed = server.admin.get(&format!("/agents{query}")).await.expect(200);
        let listed: Vec<_> = listed.as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap()).collect();
        assert_eq!(listed, names, "{query}");
    }
}

async fn paging_returns_each_agent_once(db: Database) {
    let server = Server::start(db).await;
    for n in 0..7 {
        server.admin.post("/agents", json!({ "name": format!("p{n}"), "owner": "paged" })).await.expect(201);
    }
    let mut path = "/api/v1/agents?owner=paged&limit=3".to_owned();
    let mut seen = Vec::new();
    for expected in [3, 3, 1] {
        let page = server.admin.get(&path).await;
        let next = page.header("link").map(|link| {
            let (target, relation) = link.split_once("; ").unwrap();
            assert_eq!(relation, "rel=\"next\"");
            target.trim_matches(['<', '>']).to_owned()
        });
        let agents = page.expect(200);
        assert_eq!(agents.as_array().unwrap().len(), expected);
        seen.extend(agents.as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap().to_owned()));
        assert_eq!(next.is_some(), expected == 3, "the last page must have no next link");
        path = next.unwrap_or_default();
    }
    assert_eq!(seen, ["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
}

async fn agents_can_be_suspended_and_reactivated(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let path = format!("/agents/{}", agent.id);
    server.admin.post_empty(&format!("{path}/reactivate")).await.expect(400);
    let suspended = server.admin.post(&format!("{path}/suspend"), json!({ "reason": "odd traffic" })).await.expect(200);
    assert_eq!(suspended["status"], "suspended");
    assert!(suspended["suspended_at"].is_string());
    assert_eq!(details(&server.audited("agent.suspended").await[0]), json!({ "reason": "odd traffic" }));

    // Suspending again, even without a body, changes nothing.
    assert_eq!(server.admin.post_empty(&format!("{path}/suspend")).await.expect(200), suspended);
    assert_eq!(server.audited("agent.suspended").await.len(), 1);

    let active = server.admin.post_empty(&format!("{path}/reactivate")).await.expect(200);
    assert_eq!((&active["status"], &active["suspended_at"]), (&json!("active"), &Value::Null));
    assert_eq!(server.audited("agent.reactivated").await.len(), 1);
    server.admin.post_empty(&format!("{path}/reactivate")).await.expect(400);
}

async fn revocation_is_permanent(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let path = format!("/agents/{}", agent.id);
    let revoked = server.admin.post(&format!("{path}/revoke"), json!({ "reason": "gone" })).await.expect(200);
    assert_eq!(revoked["status"], "revoked");
    assert!(revoked["revoked_at"].is_string());
    assert_eq!(details(&server.audited("agent.revoked").await[0]), json!({ "reason": "gone" }));
    let keys = server.admin.get(&format!("{path}/keys")).await.expect(200);
    assert_eq!(keys[0]["status"], "revoked");
    assert!(keys[0]["revoked_at"].is_string());

    server.admin.post_empty(&format!("{path}/revoke")).await.expect(400);
    server.admin.post_empty(&format!("{path}/suspend")).await.expect(400);
    server.admin.post_empty(&format!("{path}/reactivate")).await.expect(400);
    server.admin.post_empty(&format!("{path}/keys")).await.expect(400);
    assert_eq!(server.audited("agent.revoked").await.len(), 1);
}

/// Creates keys in every state: active, rotated, rotated and past the grace period, expired, revoked.
async fn keys_in_every_state(server: &mut Server, agent: &Agent) -> [String; 5] {
    let keys = format!("/agents/{}/keys", agent.id);
    let make = async |admin: &Client, body: Value| id(&admin.post(&keys, body).await.expect(201));
    let rotate = async |admin: &Client, key: &str, hours: u32| {
        admin.post(&format!("{keys}/{key}/rotate"), json!({ "grace_hours": hours })).await.expect(200)
    };
    let past_grace = make(&server.admin, json!({ "name": "past grace" })).await;
    rotate(&server.admin, &past_grace, 1).await;
    let soon = server.clock.now().plus(Duration::from_mins(30));
    let expired = make(&server.admin, json!({ "name": "expired", "expires_at": soon })).await;
    server.clock.advance(Duration::from_hours(2));
    server.admin = server.admin.login(&server.admin_key).await;
    let revoked = make(&server.admin, json!({ "name": "revoked" })).await;
    server.admin.delete(&format!("{keys}/{revoked}")).await.expect(204);
    let rotated = make(&server.admin, json!({ "name": "rotated" })).await;
    rotate(&server.admin, &rotated, 24).await;
    [agent.key_id.clone(), rotated, past_grace, expired, revoked]
}

fn id(created: &Value) -> String {
    created["id"].as_str().unwrap().to_owned()
}

async fn statuses(server: &Server, agent: &Agent, ids: &[String]) -> Vec<String> {
    let keys = server.admin.get(&format!("/agents/{}/keys", agent.id)).await.expect(200);
    let status = |id: &String| {
        let key = keys.as_array().unwrap().iter().find(|key| key["id"] == **id).unwrap();
        assert_eq!(key["status"] == "revoked", !key["revoked_at"].is_null(), "{key}");
        key["status"].as_str().unwrap().to_owned()
    };
    ids.iter().map(status).collect()
}

async fn revoking_an_agent_revokes_its_unexpired_keys(db: Database) {
    let mut server = Server::start(db).await;
    let (agent, other) = (server.agent("a", &[]).await, server.agent("other", &[]).await);
    let ids = keys_in_every_state(&mut server, &agent).await;
    let others = keys_in_every_state(&mut server, &other).await;
    let before = ["active", "rotated", "rotated", "active", "revoked"];
    assert_eq!(statuses(&server, &agent, &ids).await, before);
    server.admin.post_empty(&format!("/agents/{}/revoke", agent.id)).await.expect(200);
    let after = ["revoked", "revoked", "revoked", "active", "revoked"];
    assert_eq!(statuses(&server, &agent, &ids).await, after);
    assert_eq!(statuses(&server, &other, &others).await, before, "another agent's keys must not change");

    let browser = server.signed_in("zoe", Role::Operator).await;
    let page = browser.get(&format!("/console/agents/{}/keys", agent.id)).await.expect(200);
    assert!(!page.text.contains("badge--rotated"), "{}", page.text);
    page.shows("badge--revoked").shows("badge--expired");
}

/// Earlier versions revoked only an agent's active keys along with it.
async fn keys_of_agents_revoked_by_an_earlier_version_read_as_revoked(db: Database) {
    let mut server = Server::start(db).await;
    let (agent, other) = (server.agent("a", &[]).await, server.agent("other", &[]).await);
    let ids = keys_in_every_state(&mut server, &agent).await;
    let others = keys_in_every_state(&mut server, &other).await;
    server
        .db
        .execute(
            "UPDATE agents SET status = 'revoked', revoked_at = 1767276060000000 WHERE name = 'a'; \
             UPDATE api_keys SET status = 'revoked', revoked_at = 1767276060000000 WHERE status = 'active' \
             AND agent_id = (SELECT id FROM agents WHERE name = 'a') AND name <> 'expired'; \
             DELETE FROM _sqlx_migrations WHERE version = 11",
        )
        .await;
    let server = server.restart(&[]).await;
    let after = ["revoked", "revoked", "revoked", "active", "revoked"];
    assert_eq!(statuses(&server, &agent, &ids).await, after);
    assert_eq!(statuses(&server, &other, &others).await, ["active", "rotated", "rotated", "active", "revoked"]);
    let keys = server.admin.get(&format!("/agents/{}/keys", agent.id)).await.expect(200);
    let rotated = keys.as_array().unwrap().iter().find(|key| key["id"] == *ids[1]).unwrap();
    assert_eq!(rotated["revoked_at"], "2026-01-01T14:01:00.000000Z", "must equal the time the agent was revoked");
}

async fn deleting_an_agent_deletes_keys_and_grants_but_no_records(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &["agents:read"]).await;
    let path = format!("/agents/{}", agent.id);
    server.admin.delete(&path).await.expect(204);
    assert_eq!(details(&server.audited("agent.deleted").await[0]), json!({ "name": "a" }));
    server.admin.get(&path).await.refused(404, "Agent not found");
    server.admin.delete(&path).await.refused(404, "Agent not found");
    server.anonymous().exchange(&agent.raw_key).await.refused(401, "Invalid API key");
    for table in [
        "api_keys WHERE name <> 'admin-bootstrap'",
        "agent_capabilities g WHERE g.agent_id NOT IN (SELECT id FROM agents)",
    ] {
        assert_eq!(server.db.count(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}");
    }
    let timeline = server.admin.get(&format!("{path}/audit")).await.expect(200);
    let actions: Vec<_> =
        timeline.as_array().unwrap().iter().map(|record| record["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["agent.deleted", "auth.token_issued", "key.created", "capability.granted", "agent.created"]);
    // The name can be used again.
    server.admin.post("/agents", json!({ "name": "a", "owner": "o" })).await.expect(201);
}

async fn agents_cannot_suspend_revoke_or_delete_themselves(db: Database) {
    let server = Server::start(db).await;
    let path = format!("/agents/{}", server.admin_id);
    server.admin.post_empty(&format!("{path}/suspend")).await.refused(400, "Cannot suspend yourself");
    server.admin.post_empty(&format!("{path}/revoke")).await.refused(400, "Cannot revoke yourself");
    server.admin.delete(&path).await.refused(400, "Cannot delete yourself");
    assert_eq!(server.admin.get(&path).await.expect(200)["status"], "active");
}

async fn unknown_agents_return_404(db: Database) {
    let server = Server::start(db).await;
    for id in ["00000000-0000-7000-8000-000000000000", "junk", "%00", "a%2Fb"] {
        let path = format!("/agents/{id}");
        server.admin.get(&path).await.refused(404, "Agent not found");
        server.admin.patch(&path, json!({ "owner": "x" })).await.refused(404, "Agent not found");
        for act in ["suspend", "reactivate", "revoke", "keys"] {
            server.admin.post_empty(&format!("{path}/{act}")).await.refused(404, "Agent not found");
        }
        for part in ["keys", "capabilities", "audit"] {
            server.admin.get(&format!("{path}/{part}")).await.refused(404, "Agent not found");
        }
        server.admin.delete(&path).await.refused(404, "Agent not found");
    }
}
