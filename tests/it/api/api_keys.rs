//! API keys.

use std::time::Duration;

use aims::{
    domain::AgentId,
    service::{Caller, Expected, agents, credentials::api_keys, people::sessions},
};
use serde_json::{Value, json};

use super::{UNKNOWN_ID, assert_invalid, each, members};
use crate::{
    both,
    support::{Agent, Database, Server, details},
};

both!(
    created_key_matches_the_contract,
    secret_is_shown_once_and_not_stored,
    expiry_must_be_in_the_future,
    key_name_is_a_single_line,
    rotated_key_works_until_its_grace_period_ends,
    rotation_without_grace_ends_the_key_and_its_tokens_immediately,
    rotation_keeps_name_and_expiry,
    only_active_keys_can_be_rotated,
    grace_period_is_a_whole_number_of_hours,
    default_grace_period_is_configurable,
    revoking_a_key_ends_its_tokens,
    keys_are_only_found_under_their_own_agent,
    every_key_change_is_audited,
    last_key_of_the_last_administrator_cannot_be_revoked,
    agent_has_at_most_1000_working_keys,
    key_uses_are_counted_for_30_days,
);

const HOUR: Duration = Duration::from_hours(1);

fn keys(agent: &Agent) -> String {
    format!("/agents/{}/keys", agent.id)
}

fn key(agent: &Agent) -> String {
    format!("/agents/{}/keys/{}", agent.id, agent.key_id)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

async fn created_key_matches_the_contract(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let created = server.admin.post(&keys(&agent), json!({})).await.expect(201);
    assert_eq!(
        members(&created),
        ["agent_id", "created_at", "expires_at", "id", "key_prefix", "name", "raw_key", "status"]
    );
    assert_eq!(
        (&created["name"], &created["status"], &created["expires_at"], &created["agent_id"]),
        (&json!("default"), &json!("active"), &Value::Null, &json!(agent.id))
    );
    let secret = text(&created["raw_key"]).strip_prefix("aims_").unwrap();
    assert!(secret.len() == 49 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{secret}");
    let prefix = text(&created["key_prefix"]);
    assert!(text(&created["raw_key"]).starts_with(prefix) && prefix.len() < 20, "{prefix}");
    server.anonymous().exchange(text(&created["raw_key"])).await.expect(200);

    let body = json!({ "name": "nightly", "expires_at": "2026-02-01T13:00:00+01:00" });
    let named = server.admin.post(&format!("/api/v1{}", keys(&agent)), body).await.expect(201);
    assert_eq!((&named["name"], &named["expires_at"]), (&json!("nightly"), &json!("2026-02-01T12:00:00.000000Z")));
    assert_ne!(named["raw_key"], created["raw_key"]);
    let bodiless = server.admin.post_empty(&keys(&agent)).await.expect(201);
    assert_eq!(bodiless["name"], "default");
    let nulls = server.admin.post(&keys(&agent), json!({ "name": null, "expires_at": null })).await.expect(201);
    assert_eq!((&nulls["name"], &nulls["expires_at"]), (&json!("default"), &Value::Null));
}

async fn secret_is_shown_once_and_not_stored(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let rotation = server.admin.post(&format!("{}/rotate", key(&agent)), json!({})).await.expect(200);
    let secrets = [&agent.raw_key, text(&rotation["new_key"]["raw_key"]), &server.admin_key.clone()];

    let listed = server.admin.get(&keys(&agent)).await;
    for secret in secrets {
        assert!(!listed.text.contains(secret));
        assert!(!listed.text.contains(&secret[secret.len() - 30..]));
    }
    let listed = listed.expect(200);
    assert_eq!(each(&listed, "id"), [agent.key_id.as_str(), text(&rotation["new_key"]["id"])], "oldest first");
    for key in listed.as_array().unwrap() {
        assert_eq!(
            members(key),
            [
                "agent_id",
                "created_at",
                "expires_at",
                "id",
                "key_prefix",
                "last_used_at",
                "name",
                "revoked_at",
                "rotated_at",
                "status",
            ]
        );
    }

    let db = server.stop().await;
    for secret in secrets {
        let end = &secret[secret.len() - 30..];
        if db.is_sqlite() {
            for entry in std::fs::read_dir(db.folder.path()).unwrap() {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                assert!(!bytes.windows(end.len()).any(|window| window == end.as_bytes()));
            }
        } else {
            for table in ["agents", "api_keys", "capabilities", "agent_capabilities", "audit_log", "signing_keys"] {
                let sql = format!("SELECT COUNT(*) FROM {table} t WHERE t::text LIKE '%{end}%'");
                assert_eq!(db.count(&sql).await, 0, "{table}");
            }
        }
    }
}

async fn expiry_must_be_in_the_future(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    for wrong in [
        json!("2025-12-31T23:59:59Z"),
        json!("2026-01-01T12:00:00Z"),
        json!("2026-01-01T13:00:00+01:00"),
        json!("2027-01-01T00:00:00"),
        json!("2027-01-01"),
        json!("2027-02-30T00:00:00Z"),
        json!("9999-12-31T23:59:59-01:00"),
        json!("tomorrow"),
        json!(""),
        json!(1_900_000_000),
    ] {
        let response = server.admin.post(&keys(&agent), json!({ "expires_at": wrong })).await;
        assert_invalid(&response, &json!([["body", "expires_at"]]));
    }
    assert_eq!(server.admin.get(&keys(&agent)).await.expect(200).as_array().unwrap().len(), 1);
    for right in ["2026-01-01T12:00:01Z", "9999-12-31T23:59:59.999999Z"] {
        server.admin.post(&keys(&agent), json!({ "expires_at": right })).await.expect(201);
    }
    assert_eq!(server.admin.get(&keys(&agent)).await.expect(200)[2]["expires_at"], "9999-12-31T23:59:59.999999Z");
}

async fn key_name_is_a_single_line(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let too_long = "é".repeat(129);
    for wrong in [json!(""), json!(too_long), json!("a\nb"), json!("a\u{202e}b"), json!("a\0b"), json!(1), json!([])] {
        let response = server.admin.post(&keys(&agent), json!({ "name": wrong })).await;
        assert_invalid(&response, &json!([["body", "name"]]));
    }
    let longest = "é".repeat(128);
    let created = server.admin.post(&keys(&agent), json!({ "name": longest })).await.expect(201);
    assert_eq!(created["name"], longest);
}

async fn rotated_key_works_until_its_grace_period_ends(db: Database) {
    let mut server = Server::start(db).await;
    let agent = server.agent("a", &["agents:read"]).await;
    let rotation = server.admin.post_empty(&format!("{}/rotate", key(&agent))).await.expect(200);
    assert_eq!(members(&rotation), ["grace_period_hours", "new_key", "old_key_id"]);
    assert_eq!((&rotation["old_key_id"], &rotation["grace_period_hours"]), (&json!(agent.key_id), &json!(24)));
    assert_eq!(
        members(&rotation["new_key"]),
        ["agent_id", "created_at", "expires_at", "id", "key_prefix", "name", "raw_key", "status"]
    );
    let listed = server.admin.get(&keys(&agent)).await.expect(200);
    assert_eq!(each(&listed, "status"), ["rotated", "active"]);
    assert!(listed[0]["rotated_at"].is_string() && listed[1]["rotated_at"].is_null());
    assert!(listed[0]["revoked_at"].is_null());

    // Tokens issued before the rotation stay valid, and both keys can get new ones.
    agent.client.get("/agents").await.expect(200);
    let new_key = text(&rotation["new_key"]["raw_key"]);
    server.anonymous().exchange(new_key).await.expect(200);
    server.clock.advance(Duration::from_secs(24 * 3_600 - 10));
    let last = server.anonymous().exchange(&agent.raw_key).await.expect(200);
    let life = last["expires_in"].as_i64().unwrap();
    assert!((1..=10).contains(&life), "the token must not outlive the grace period: {life}");
    let client = server.anonymous().with_token(text(&last["access_token"]));
    client.get("/agents").await.expect(200);

    server.clock.advance(Duration::from_secs(10));
    let refused = "Rotated API key has expired past grace period";
    server.anonymous().exchange(&agent.raw_key).await.refused(401, refused);
    client.get("/agents").await.refused(401, "Invalid or expired token");
    server.anonymous().exchange(new_key).await.expect(200);
    server.admin = server.admin.login(&server.admin_key).await;
    assert_eq!(each(&server.admin.get(&keys(&agent)).await.expect(200), "status"), ["rotated", "active"]);
}

async fn rotation_without_grace_ends_the_key_and_its_tokens_immediately(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &["agents:read"]).await;
    agent.client.get("/agents").await.expect(200);
    let path = format!("{}/rotate", key(&agent));
    let rotation = server.admin.post(&path, json!({ "grace_hours": 0 })).await.expect(200);
    assert_eq!(rotation["grace_period_hours"], 0);
    let refused = "Rotated API key has expired past grace period";
    server.anonymous().exchange(&agent.raw_key).await.refused(401, refused);
    agent.client.get("/agents").await.refused(401, "Invalid or expired token");
    let client = server.anonymous().login(text(&rotation["new_key"]["raw_key"])).await;
    client.get("/agents").await.expect(200);
}

async fn rotation_keeps_name_and_expiry(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let body = json!({ "name": "nightly", "expires_at": "2026-03-01T00:00:00Z" });
    let created = server.admin.post(&keys(&agent), body).await.expect(201);
    let path = format!("{}/{}/rotate", keys(&agent), text(&created["id"]));
    let rotation = server.admin.post(&path, json!({ "grace_hours": 720.0 })).await.expect(200);
    let new = &rotation["new_key"];
    for field in ["name", "expires_at", "agent_id", "status"] {
        assert_eq!(new[field], created[field], "{field}");
    }
    for field in ["id", "raw_key", "created_at"] {
        assert_ne!(new[field], created[field], "{field}");
    }
    assert_eq!(rotation["grace_period_hours"], 720);
}

async fn only_active_keys_can_be_rotated(db: Database) {
    let mut server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let body = json!({ "expires_at": "2026-01-01T13:00:00Z" });
    let expiring = server.admin.post(&keys(&agent), body).await.expect(201);
    let path = format!("{}/rotate", key(&agent));
    let rotation = server.admin.post_empty(&path).await.expect(200);
    server.admin.post_empty(&path).await.refused(400, "Only active keys can be rotated");

    let new = format!("{}/{}", keys(&agent), text(&rotation["new_key"]["id"]));
    server.admin.delete(&new).await.expect(204);
    server.admin.post_empty(&format!("{new}/rotate")).await.refused(400, "Only active keys can be rotated");

    server.clock.advance(HOUR);
    server.admin = server.admin.login(&server.admin_key).await;
    server.admin.post_empty(&format!("{}/{}/rotate", keys(&agent), text(&expiring["id"]))).await.expect(400);
    assert_eq!(server.admin.get(&keys(&agent)).await.expect(200).as_array().unwrap().len(), 3);
    assert_eq!(server.audited("key.rotated").await.len(), 1);
}

async fn grace_period_is_a_whole_number_of_hours(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let path = format!("{}/rotate", key(&agent));
    for wrong in [
        json!(721),
        json!(-1),
        json!("x"),
        json!("1"),
        json!(1.5),
        json!(true),
        json!([1]),
        json!(u64::MAX),
        json!(1e300),
    ] {
        let response = server.admin.post(&path, json!({ "grace_hours": wrong })).await;
        assert_invalid(&response, &json!([["body", "grace_hours"]]));
    }
    assert_eq!(each(&server.admin.get(&keys(&agent)).await.expect(200), "status"), ["active"]);
    let rotation = server.admin.post(&path, json!({ "grace_hours": null })).await.expect(200);
    assert_eq!(rotation["grace_period_hours"], 24);
}

async fn default_grace_period_is_configurable(db: Database) {
    let server = Server::start_with(db, &[("KEY_ROTATION_GRACE_HOURS", "2")]).await;
    let agent = server.agent("a", &[]).await;
    let rotation = server.admin.post_empty(&format!("{}/rotate", key(&agent))).await.expect(200);
    assert_eq!(rotation["grace_period_hours"], 2);
    server.clock.advance(HOUR * 2);
    server.anonymous().exchange(&agent.raw_key).await.expect(401);
}

async fn revoking_a_key_ends_its_tokens(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &["agents:read"]).await;
    agent.client.get("/agents").await.expect(200);
    let response = server.admin.delete(&key(&agent)).await;
    assert_eq!((response.status.as_u16(), response.text.as_str()), (204, ""));
    server.admin.delete(&key(&agent)).await.refused(400, "Key already revoked");
    server.anonymous().exchange(&agent.raw_key).await.refused(401, "API key has been revoked");
    agent.client.get("/agents").await.refused(401, "Invalid or expired token");
    let listed = server.admin.get(&keys(&agent)).await.expect(200);
    assert_eq!(listed[0]["status"], "revoked");
    assert!(listed[0]["revoked_at"].is_string());
    assert_eq!(server.audited("key.revoked").await.len(), 1);

    // A rotated key can be revoked within its grace period.
    let created = server.admin.post_empty(&keys(&agent)).await.expect(201);
    let path = format!("{}/{}", keys(&agent), text(&created["id"]));
    server.admin.post_empty(&format!("{path}/rotate")).await.expect(200);
    server.admin.delete(&path).await.expect(204);
    server.anonymous().exchange(text(&created["raw_key"])).await.refused(401, "API key has been revoked");
}

async fn keys_are_only_found_under_their_own_agent(db: Database) {
    let server = Server::start(db).await;
    let (agent, other) = (server.agent("a", &[]).await, server.agent("b", &[]).await);
    for id in [other.key_id.as_str(), UNKNOWN_ID, "junk", "%00"] {
        let path = format!("{}/{id}", keys(&agent));
        server.admin.post_empty(&format!("{path}/rotate")).await.refused(404, "API key not found");
        server.admin.delete(&path).await.refused(404, "API key not found");
    }
    for id in [UNKNOWN_ID, "junk"] {
        let path = format!("/agents/{id}/keys");
        server.admin.get(&path).await.refused(404, "Agent not found");
        server.admin.post(&path, json!({})).await.refused(404, "Agent not found");
        let path = format!("{path}/{}", agent.key_id);
        server.admin.post_empty(&format!("{path}/rotate")).await.refused(404, "Agent not found");
        server.admin.delete(&path).await.refused(404, "Agent not found");
    }
    for agent in [&agent, &other] {
        assert_eq!(each(&server.admin.get(&keys(agent)).await.expect(200), "status"), ["active"]);
    }
}

async fn every_key_change_is_audited(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let created = server.admin.post(&keys(&agent), json!({ "name": "nightly" })).await.expect(201);
    let id = text(&created["id"]);
    let rotation = server.admin.post_empty(&format!("{}/{id}/rotate", keys(&agent))).await.expect(200);
    server.admin.delete(&format!("{}/{id}", keys(&agent))).await.expect(204);
    for (action, wanted) in [
        ("key.created", json!({ "target_agent": agent.id, "key_name": "nightly" })),
        ("key.rotated", json!({ "old_key_id": id, "new_key_id": rotation["new_key"]["id"] })),
        ("key.revoked", json!({ "target_agent": agent.id, "key_name": "nightly" })),
    ] {
        let record = &server.audited(action).await[0];
        assert_eq!(details(record), wanted, "{action}");
        assert_eq!(
            (&record["agent_id"], &record["resource_type"], &record["resource_id"], &record["success"]),
            (&json!(server.admin_id), &json!("api_key"), &json!(id), &json!(1)),
            "{action}"
        );
    }
}

async fn last_key_of_the_last_administrator_cannot_be_revoked(db: Database) {
    let server = Server::start(db).await;
    let path = format!("/agents/{}/keys", server.admin_id);
    let listed = server.admin.get(&path).await.expect(200);
    assert_eq!(each(&listed, "name"), ["admin-bootstrap"]);
    let first = format!("{path}/{}", text(&listed[0]["id"]));
    server.admin.delete(&first).await.expect(400);
    server.admin.get(&path).await.expect(200);

    // An expired or revoked key does not count as another key.
    let other = server.admin.post(&path, json!({})).await.expect(201);
    server.admin.delete(&format!("{path}/{}", text(&other["id"]))).await.expect(204);
    server.admin.delete(&first).await.expect(400);

    let other = server.admin.post(&path, json!({})).await.expect(201);
    server.admin.delete(&first).await.expect(204);
    let admin = server.admin.login(text(&other["raw_key"])).await;
    admin.delete(&format!("{path}/{}", text(&other["id"]))).await.expect(400);

    // With another administrator who can authenticate, this key is no longer the last.
    let second = admin.post("/agents", json!({ "name": "second", "owner": "o" })).await.expect(201);
    let id = text(&second["id"]);
    let known = admin.get("/capabilities").await.expect(200);
    let power = known.as_array().unwrap().iter().find(|capability| capability["name"] == "admin:*").unwrap();
    let body = json!({ "capability_id": power["id"] });
    admin.post(&format!("/agents/{id}/capabilities"), body).await.expect(201);
    admin.delete(&format!("{path}/{}", text(&other["id"]))).await.expect(400);
    admin.post_empty(&format!("/agents/{id}/keys")).await.expect(201);
    admin.delete(&format!("{path}/{}", text(&other["id"]))).await.expect(204);
}

async fn agent_has_at_most_1000_working_keys(db: Database) {
    const REFUSAL: &str = "An agent can have at most 1000 working keys. Revoke some first";
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let (id, hash) = if server.db.is_sqlite() {
        ("randomblob(16)", "randomblob(32)")
    } else {
        ("gen_random_uuid()", "decode(md5(random()::text) || md5(random()::text), 'hex')")
    };
    let copies = format!(
        "INSERT INTO api_keys (id, agent_id, key_hash, key_prefix, name, status, created_at, idle_since) \
         SELECT {id}, agent_id, {hash}, key_prefix, name, status, created_at, idle_since FROM api_keys CROSS JOIN \
         (WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 998) SELECT n FROM n) AS many \
         WHERE agent_id = (SELECT id FROM agents WHERE name = 'a')"
    );
    server.db.execute(&copies).await;
    let path = format!("/agents/{}/keys", agent.id);
    server.admin.post(&path, json!({})).await.expect(201);
    server.admin.post(&path, json!({})).await.refused(409, REFUSAL);
    server.admin.post(&format!("{}/rotate", key(&agent)), json!({})).await.refused(409, REFUSAL);
    server.admin.delete(&key(&agent)).await.expect(204);
    server.admin.post(&path, json!({})).await.expect(201);
}

async fn key_uses_are_counted_for_30_days(db: Database) {
    const DAY: Duration = Duration::from_hours(24);
    let server = Server::start(db).await;
    let (agent, other) = (server.agent("a", &[]).await, server.agent("b", &[]).await);
    let uses = async |agent: &Agent| {
        let id = AgentId(agent.id.parse().unwrap());
        let uses = api_keys::uses(&server.services, &Caller::system(), id).await.unwrap();
        uses.into_iter().map(|(key, times)| (key.0.to_string(), times)).collect::<Vec<_>>()
    };
    let counted = |agent: &Agent, times: i64| vec![(agent.key_id.clone(), times)];
    server.anonymous().exchange(&agent.raw_key).await.expect(200);
    assert_eq!((uses(&agent).await, uses(&other).await), (counted(&agent, 2), counted(&other, 1)));
    server.clock.advance(29 * DAY);
    server.anonymous().exchange(&agent.raw_key).await.expect(200);
    assert_eq!((uses(&agent).await, uses(&other).await), (counted(&agent, 3), counted(&other, 1)));
    server.clock.advance(DAY);
    assert_eq!((uses(&agent).await, uses(&other).await), (counted(&agent, 1), Vec::new()));
    sessions::sweep(&server.services).await.unwrap();
    // Counts are kept longer than that, for the page of the key.
    assert_eq!(server.db.count("SELECT COUNT(*) FROM api_key_uses").await, 4);
    server.clock.advance(60 * DAY);
    sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM api_key_uses").await, 1);
    // Usage counts of a deleted key are removed when their day passes.
    agents::delete(&server.services, &Caller::system(), AgentId(agent.id.parse().unwrap()), Expected::Any)
        .await
        .unwrap();
    assert_eq!(uses(&agent).await, Vec::new());
    server.clock.advance(30 * DAY);
    // Also when there are many.
    let any = if server.db.is_sqlite() { "randomblob(16)" } else { "gen_random_uuid()" };
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)";
    server.db.execute(&format!("{many} INSERT INTO api_key_uses (day, key_id, uses) SELECT 1, {any}, 1 FROM n")).await;
    sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM api_key_uses").await, 0);
}
