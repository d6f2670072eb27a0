//! The audit log in the console: filters, export, live view and verification.

use std::time::Duration;

use aims::domain::Role;
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    both,
    support::{Browser, Database, Server},
};

both!(
    records_can_be_filtered_by_name_and_event,
    export_contains_the_filtered_records,
    live_view_delivers_each_record_once,
    live_stream_ends_with_its_session,
    record_shows_what_changed,
    chain_is_verified_on_demand,
);

async fn records_can_be_filtered_by_name_and_event(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    browser
        .post("/console/agents", &[("name", "made-by-zoe"), ("owner", "o"), ("agent_type", "llm")])
        .await
        .expect(303);
    server.anonymous().exchange("aims_wrong").await.expect(401);
    let rows = |text: &str| text.matches("<tr data-seq").count();
    for (query, count) in [
        ("actor=reader".to_owned(), 1),
        (format!("actor={}", agent.id), 1),
        ("actor=zoe".to_owned(), 2),
        ("actor=zoe&action=agent.created".to_owned(), 1),
        ("action=auth.failed&outcome=refused".to_owned(), 1),
        ("outcome=refused".to_owned(), 1),
        (format!("resource_id={}", agent.id), 1),
        ("resource_type=administrator".to_owned(), 2),
        ("from=2026-01-01T12:00&until=2026-01-02".to_owned(), 22),
        ("from=2026-01-01&until=2026-01-01".to_owned(), 22),
        ("until=2026-01-01T00:00".to_owned(), 0),
        ("until=2025-12-31".to_owned(), 0),
        ("action=nothing.like_it".to_owned(), 0),
    ] {
        let page = browser.get(&format!("/console/audit?{query}")).await.expect(200);
        assert_eq!(rows(&page.text), count, "{query}");
    }
    for odd in ["actor=nobody-is-called-this", "from=yesterday", "outcome=maybe", "cursor=x", "actor=%F0%9F%98%80"] {
        browser.get(&format!("/console/audit?{odd}")).await.expect(422);
    }
    browser
        .get("/console/audit?actor=nobody-is-called-this")
        .await
        .shows("No agent or administrator is named nobody-is-called-this");
}

async fn export_contains_the_filtered_records(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let formula = json!({ "name": "calc", "owner": "=HYPERLINK(\"http://x\")" });
    server.admin.post("/agents", formula).await.expect(201);
    for n in 0..600 {
        server.anonymous().exchange(&format!("aims_{n}")).await;
    }
    let page = browser.get("/console/audit/export?format=jsonl&action=agent.created").await.expect(200);
    assert_eq!(page.headers["content-type"], "application/jsonl; charset=utf-8");
    let lines: Vec<Value> = page.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["details"]["owner"], "=HYPERLINK(\"http://x\")");

    let page =
        browser.get("/console/audit/export?format=jsonl&action=agent.created&until=2026-01-01").await.expect(200);
    assert_eq!(page.text.lines().count(), 2, "an end date must include that day");
    let page = browser.get("/console/audit/export?format=jsonl&until=2025-12-31").await.expect(200);
    assert_eq!(page.text.lines().count(), 0);

    let page = browser.get("/console/audit/export?format=csv").await.expect(200);
    assert!(page.headers["content-disposition"].to_str().unwrap().contains("audit.csv"));
    let total = server.db.count("SELECT COUNT(*) FROM audit_log").await;
    let lines: Vec<_> = page.text.split("\r\n").filter(|line| !line.is_empty()).collect();
    assert_eq!(i64::try_from(lines.len()).unwrap(), total + 1, "every record must be exported, across several pages");
    assert!(lines[0].starts_with("seq,timestamp,action,outcome"));
    for line in &lines[1..] {
        for cell in line.split(',') {
            assert!(!cell.starts_with(['=', '+', '@', '-']), "{line}");
        }
    }
    browser.get("/console/audit/export?format=pdf").await.expect(422);
}

/// Reads events until `enough` rows arrived; returns their sequence numbers.
async fn follow(browser: &Browser, path: &str, last: Option<i64>, enough: usize) -> Vec<i64> {
    let mut request = browser.request(Method::GET, path);
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let (mut stream, mut text) = (response.bytes_stream(), String::new());
    loop {
        let ids: Vec<i64> = text
            .split_inclusive("\n\n")
            .filter(|event| event.ends_with("\n\n"))
            .flat_map(str::lines)
            .filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
            .collect();
        if ids.len() >= enough {
            return ids;
        }
        text.push_str(&String::from_utf8_lossy(
            &stream.next().await.expect("the stream must send more events").unwrap(),
        ));
    }
}

async fn live_view_delivers_each_record_once(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let start = server.admin.get("/audit?limit=1").await.expect(200)[0]["seq"].as_i64().unwrap();
    let path = format!("/console/audit/tail?after={start}&action=agent.created");
    let created = async {
        for n in 0..30 {
            let body = json!({ "name": format!("live-{n}"), "owner": "o" });
            server.admin.post("/agents", body).await.expect(201);
        }
    };
    let watched = async {
        // The connection is interrupted again and again.
        let mut seen: Vec<i64> = Vec::new();
        while seen.len() < 30 {
            let more = follow(&browser, &path, seen.last().copied(), 1).await;
            seen.extend(more);
        }
        seen
    };
    let ((), seen) = tokio::join!(created, watched);
    let records = server.audited("agent.created").await;
    let mut expected: Vec<_> =
        records.iter().map(|record| record["seq"].as_i64().unwrap()).filter(|seq| *seq > start).collect();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

async fn live_stream_ends_with_its_session(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let response = browser.request(Method::GET, "/console/audit/tail").send().await.unwrap();
    browser.post("/console/sign-out", &[]).await.expect(303);
    server.admin.post("/agents", json!({ "name": "unseen", "owner": "o" })).await.expect(201);
    let text = response.text().await.unwrap();
    assert!(!text.contains("unseen"), "{text}");
}

async fn record_shows_what_changed(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    let body = json!({ "owner": "<b>new</b>", "description": "two\nlines" });
    server.admin.patch(&format!("/agents/{}", agent.id), body).await.expect(200);
    let seq = server.audited("agent.updated").await[0]["seq"].as_i64().unwrap();
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let page = browser.get(&format!("/console/audit/{seq}")).await.expect(200);
    page.shows("Changes</h2>").shows("tests</del>").shows("&#60;b&#62;new&#60;/b&#62;</ins>");
    page.shows("The record matches its hash").shows(&format!("/console/audit/{}\"", seq + 1));
    let newest = server.db.count("SELECT MAX(seq) FROM audit_log").await;
    let page = browser.get(&format!("/console/audit/{newest}")).await.expect(200);
    assert!(!page.text.contains(&format!("/console/audit/{}\"", newest + 1)), "{}", page.text);
    server.db.execute(&format!("UPDATE audit_log SET details = '{{}}' WHERE seq = {seq}")).await;
    browser.get(&format!("/console/audit/{seq}")).await.shows("The record was altered");
}

async fn chain_is_verified_on_demand(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    browser.get("/console/audit").await.shows("not verified since this server started");
    browser.post("/console/audit/verify", &[]).await.redirects_to("/console/audit");
    assert!(verification_badge(&browser).await.contains("records verified"));
    server.db.execute("UPDATE audit_log SET details = '{}' WHERE seq = 5").await;
    browser.post("/console/audit/verify", &[]).await.redirects_to("/console/audit");
    assert!(verification_badge(&browser).await.contains("broken at record 5"));
}

/// Returns the badge once verification has finished.
async fn verification_badge(browser: &Browser) -> String {
    loop {
        let page = browser.get("/console/audit/chain").await.expect(200);
        if !page.text.contains("Verifying") {
            return page.text;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Pending database work of a disconnected client must not delay the shutdown.
#[tokio::test]
async fn service_stops_while_the_chain_is_being_verified() {
    const TIMEOUT: Duration = Duration::from_secs(30);
    let server = Server::start(Database::sqlite()).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    // A log that takes minutes to read.
    let slow = "ALTER TABLE audit_log RENAME TO real_log; \
        CREATE VIEW audit_log AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
        SELECT seq, id, at, actor, subject, action, resource_type, resource_id, details, ip, success, request_id, prev_hash, \
        hash, (WITH RECURSIVE m(j) AS (SELECT n.i UNION ALL SELECT j + 1 FROM m WHERE j < 1000000) SELECT MAX(j) FROM m) \
        FROM real_log CROSS JOIN n";
    server.db.execute(slow).await;
    browser.post("/console/audit/verify", &[]).await.redirects_to("/console/audit");
    browser.get("/console/audit/chain").await.expect(200).shows("Verifying");
    tokio::time::timeout(TIMEOUT, server.stop()).await.expect("the service must stop");
}
