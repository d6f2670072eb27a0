//! Reading the audit log.

use std::{collections::HashSet, time::Duration};

use serde_json::{Value, json};

use super::{UNKNOWN_ID, each, members, next};
use crate::{
    both,
    support::{Database, Server, details},
};

both!(
    record_matches_the_contract,
    records_are_listed_newest_first,
    records_can_be_filtered_by_actor_and_event,
    records_can_be_filtered_by_time,
    list_supports_limit_and_offset,
    paging_returns_each_record_once,
    agent_audit_lists_records_as_actor_and_as_target,
    reading_requires_audit_read,
);

async fn list(server: &Server, query: &str) -> Vec<Value> {
    server.admin.get(&format!("/audit{query}")).await.expect(200).as_array().unwrap().clone()
}

fn actions(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["action"].as_str().unwrap()).collect()
}

async fn record_matches_the_contract(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let suspended = server.admin.post(&format!("/agents/{}/suspend", agent.id), json!({ "reason": "odd" })).await;
    let request_id = suspended.header("x-request-id").unwrap().to_owned();
    let suspended = suspended.expect(200);
    let records = server.admin.get("/audit").await.expect(200);
    assert_eq!(server.admin.get("/api/v1/audit").await.expect(200), records);
    for record in records.as_array().unwrap() {
        assert_eq!(
            members(record),
            [
                "action",
                "agent_id",
                "details_json",
                "hash",
                "id",
                "ip_address",
                "request_id",
                "resource_id",
                "resource_type",
                "seq",
                "success",
                "timestamp",
            ]
        );
        assert!(details(record).is_object());
        assert!(record["timestamp"].as_str().unwrap().ends_with('Z'));
        let hash = record["hash"].as_str().unwrap();
        assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    }
    let record = &records[0];
    assert_eq!(
        (&record["action"], &record["agent_id"], &record["resource_type"], &record["resource_id"]),
        (&json!("agent.suspended"), &json!(server.admin_id), &json!("agent"), &json!(agent.id))
    );
    assert_eq!(
        (&record["success"], &record["ip_address"], &record["request_id"], &record["timestamp"]),
        (&json!(1), &json!("127.0.0.1"), &json!(request_id), &suspended["suspended_at"])
    );

    server.anonymous().exchange("x").await.expect(401);
    let refused = &list(&server, "?limit=1").await[0];
    assert_eq!(
        (&refused["action"], &refused["success"], &refused["agent_id"]),
        (&json!("auth.failed"), &json!(0), &Value::Null)
    );
    assert_eq!((&refused["resource_type"], &refused["resource_id"]), (&Value::Null, &Value::Null));
}

async fn records_are_listed_newest_first(db: Database) {
    let server = Server::start(db).await;
    server.agent("a", &["agents:read"]).await;
    let records = list(&server, "").await;
    assert_eq!(
        actions(&records)[..6],
        ["auth.token_issued", "key.created", "capability.granted", "agent.created", "auth.token_issued", "key.created",]
    );
    let positions: Vec<_> = records.iter().map(|record| record["seq"].as_i64().unwrap()).collect();
    let count = i64::try_from(records.len()).unwrap();
    assert_eq!(positions, (1..=count).rev().collect::<Vec<_>>(), "numbered from 1 without gaps");
    let times: Vec<_> = records.iter().map(|record| record["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    let ids: HashSet<_> = records.iter().map(|record| record["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), records.len());

    // Reading leaves no record, and neither does a malformed request.
    server.admin.post("/agents", json!({})).await.expect(422);
    server.admin.get("/agents/x").await.expect(404);
    assert_eq!(list(&server, "").await, records);
}

async fn records_can_be_filtered_by_actor_and_event(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &["agents:write"]).await;
    agent.client.post("/agents", json!({ "name": "made", "owner": "o" })).await.expect(201);
    let all = list(&server, "").await;
    let wanted = |test: &dyn Fn(&Value) -> bool| all.iter().filter(|record| test(record)).cloned().collect::<Vec<_>>();

    let by_agent = list(&server, &format!("?agent_id={}", agent.id)).await;
    assert_eq!(actions(&by_agent), ["agent.created", "auth.token_issued"]);
    assert_eq!(by_agent, wanted(&|record| record["agent_id"] == agent.id));

    for action in ["agent.created", "capability.granted", "auth.token_issued", "key.created"] {
        let found = list(&server, &format!("?action={action}")).await;
        assert!(!found.is_empty());
        assert_eq!(found, wanted(&|record| record["action"] == action), "{action}");
    }
    for kind in ["agent", "api_key", "capability"] {
        let found = list(&server, &format!("?resource_type={kind}")).await;
        assert!(!found.is_empty());
        assert_eq!(found, wanted(&|record| record["resource_type"] == kind), "{kind}");
    }
    let both = list(&server, &format!("?agent_id={}&action=agent.created&resource_type=agent", agent.id)).await;
    assert_eq!(both, by_agent[..1]);
    for nothing in [
        format!("?agent_id={UNKNOWN_ID}"),
        "?action=agent".to_owned(),
        "?action=agent.%25".to_owned(),
        "?action=AGENT.CREATED".to_owned(),
        "?resource_type=nothing".to_owned(),
        format!("?agent_id={}&action=key.created", agent.id),
    ] {
        assert_eq!(list(&server, &nothing).await, Vec::<Value>::new(), "{nothing}");
    }
    assert_eq!(list(&server, "?agent_id=&action=&resource_type=&start_date=&end_date=").await, all);
}

async fn records_can_be_filtered_by_time(db: Database) {
    let mut server = Server::start(db).await;
    let create = async |server: &Server, name: &str| {
        let body = json!({ "name": name, "owner": "o" });
        server.admin.post("/agents", body).await.expect(201)["created_at"].as_str().unwrap().to_owned()
    };
    let first = create(&server, "first").await;
    server.clock.advance(Duration::from_hours(24));
    server.admin = server.admin.login(&server.admin_key).await;
    let second = create(&server, "second").await;
    assert!(first.starts_with("2026-01-01T12:00:00.") && second.starts_with("2026-01-02T12:00:00."));

    let of_admin = ["admin"].as_slice();
    for (query, names) in [
        (format!("start_date={second}"), vec!["second"]),
        (format!("start_date={first}"), vec!["second", "first"]),
        (format!("end_date={first}"), vec!["first", "admin"]),
        (format!("start_date={first}&end_date={first}"), vec!["first"]),
        (format!("start_date={second}&end_date={first}"), vec![]),
        // A date means the whole day, in UTC.
        ("start_date=2026-01-01".to_owned(), vec!["second", "first", "admin"]),
        ("start_date=2026-01-02".to_owned(), vec!["second"]),
        ("end_date=2026-01-02".to_owned(), vec!["second", "first", "admin"]),
        ("end_date=2026-01-01".to_owned(), vec!["first", "admin"]),
        ("end_date=2025-12-31".to_owned(), vec![]),
        ("start_date=2026-01-01&end_date=2026-01-01".to_owned(), vec!["first", "admin"]),
        ("end_date=2026-01-02T00:00:00Z".to_owned(), vec!["first", "admin"]),
        ("start_date=2026-01-02&end_date=2026-01-03".to_owned(), vec!["second"]),
        ("start_date=2026-01-03".to_owned(), vec![]),
        // A time without an offset is UTC.
        ("start_date=2026-01-02T12:00:00".to_owned(), vec!["second"]),
        ("start_date=2026-01-02%2012:00:00".to_owned(), vec!["second"]),
        ("end_date=2026-01-02T12:00:00".to_owned(), vec!["first", "admin"]),
        ("start_date=2026-01-02T13:00:00%2B01:00".to_owned(), vec!["second"]),
        ("start_date=2026-01-02T13:00:00%2B00:30".to_owned(), vec![]),
        ("start_date=2026-01-02T12:00:00Z&end_date=2026-01-02T12:00:01Z".to_owned(), vec!["second"]),
        ("start_date=0001-01-01&end_date=9999-12-31".to_owned(), vec!["second", "first", "admin"]),
    ] {
        let found = list(&server, &format!("?action=agent.created&{query}")).await;
        let found: Vec<_> = found.iter().map(|record| details(record)["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, names, "{query}");
    }
    let earliest = list(&server, &format!("?action=agent.created&end_date={first}&limit=1&offset=1")).await;
    assert_eq!(details(&earliest[0])["name"], of_admin[0]);
}

async fn list_supports_limit_and_offset(db: Database) {
    let server = Server::start(db).await;
    for n in 0..50 {
        server.admin.post("/capabilities", json!({ "name": format!("c{n}") })).await.expect(201);
    }
    let all = list(&server, "?limit=500").await;
    assert!(all.len() > 60);
    assert_eq!(list(&server, "").await, all[..50], "the default is 50");
    assert_eq!(list(&server, "?limit=1").await, all[..1]);
    assert_eq!(list(&server, "?limit=3&offset=2").await, all[2..5]);
    assert_eq!(list(&server, "?offset=55").await, all[55..]);
    assert_eq!(list(&server, "?offset=0").await, all[..50]);
    assert_eq!(list(&server, "?offset=100000").await, Vec::<Value>::new());
    let filtered = list(&server, "?action=capability.created&limit=2&offset=1").await;
    assert_eq!(filtered.iter().map(|record| details(record)["capability"].clone()).collect::<Vec<_>>(), ["c48", "c47"]);
}

async fn paging_returns_each_record_once(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    for query in [
        "/api/v1/audit?limit=4".to_owned(),
        "/audit?limit=2&resource_type=capability&start_date=2026-01-01".to_owned(),
        format!("/agents/{}/audit?limit=1", agent.id),
    ] {
        let separate =
            query.replace("limit=4", "limit=500").replace("limit=2", "limit=500").replace("limit=1", "limit=500");
        let all = server.admin.get(&separate).await;
        assert_eq!(next(&all), None);
        let all = all.expect(200);
        let mut path = Some(query.clone());
        let mut seen = Vec::new();
        while let Some(current) = path {
            let page = server.admin.get(&current).await;
            path = next(&page);
            // Records that are added meanwhile do not shift the pages.
            server.anonymous().exchange("x").await.expect(401);
            let page = page.expect(200);
            assert!(!page.as_array().unwrap().is_empty(), "the last page must have no next link");
            seen.extend(page.as_array().unwrap().iter().cloned());
        }
        assert_eq!(json!(seen), all, "{query}");
    }
    // The next link of a page with an offset does not apply the offset again.
    let all = list(&server, "?limit=500").await;
    let page = server.admin.get("/audit?limit=2&offset=3").await;
    let link = next(&page).unwrap();
    assert!(!link.contains("offset"), "{link}");
    assert_eq!(page.expect(200), json!(all[3..5]));
    assert_eq!(server.admin.get(&link).await.expect(200), json!(all[5..7]));
}

async fn agent_audit_lists_records_as_actor_and_as_target(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &["agents:write"]).await;
    server.agent("other", &[]).await;
    let path = format!("/agents/{}", agent.id);
    agent.client.post("/agents", json!({ "name": "made", "owner": "o" })).await.expect(201);
    agent.client.patch(&path, json!({ "owner": "me" })).await.expect(200);
    agent.client.get("/agents").await.expect(403);
    server.admin.delete(&format!("{path}/keys/{}", agent.key_id)).await.expect(204);
    server.anonymous().exchange(&agent.raw_key).await.expect(401);
    let timeline = server.admin.get(&format!("{path}/audit")).await.expect(200);
    assert_eq!(
        each(&timeline, "action"),
        [
            "auth.failed",
            "key.revoked",
            "authz.denied",
            "agent.updated",
            "agent.created",
            "auth.token_issued",
            "key.created",
            "capability.granted",
            "agent.created",
        ]
    );
    assert_eq!(server.admin.get(&format!("/api/v1{path}/audit")).await.expect(200), timeline);
    let page = server.admin.get(&format!("{path}/audit?limit=2&offset=1")).await.expect(200);
    assert_eq!(each(&page, "action"), ["key.revoked", "authz.denied"]);
    let denied = &timeline[2];
    assert_eq!((&denied["agent_id"], &denied["success"]), (&json!(agent.id), &json!(0)));
    for id in [UNKNOWN_ID, "junk"] {
        server.admin.get(&format!("/agents/{id}/audit")).await.refused(404, "Agent not found");
    }
}

async fn reading_requires_audit_read(db: Database) {
    let server = Server::start(db).await;
    let reader = server.agent("reader", &["audit:read"]).await;
    let other = server.agent("other", &["agents:read", "agents:write", "keys:manage"]).await;
    for path in ["/audit".to_owned(), format!("/agents/{}/audit", other.id)] {
        reader.client.get(&path).await.expect(200);
        other.client.get(&path).await.refused(403, "Missing required capability: audit:read");
        server.anonymous().get(&path).await.refused(401, "Not authenticated");
    }
}
