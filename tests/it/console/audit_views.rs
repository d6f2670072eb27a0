//! The audit log for daily work: names, filters, records beside the list, saved views, export and archived records.

use std::time::Duration;

use aims::{
    domain::{Role, Timestamp},
    service::{Caller, audit::archive},
};
use serde_json::{Value, json};

use crate::{
    both,
    support::{Database, Server},
};

both!(
    times_are_absolute_and_events_have_sentences,
    names_keep_the_other_filters_and_keys_have_pages,
    deleted_agents_keep_their_names,
    details_are_readable,
    filters_are_chips_and_old_words_still_work,
    a_bar_of_the_chart_narrows_the_list,
    records_are_found_by_what_was_pasted,
    a_record_opens_beside_the_list_with_its_request,
    views_are_saved_for_one_person,
    the_export_is_what_is_on_the_screen,
    archived_records_name_their_file,
    an_empty_result_has_no_table,
);

fn rows(text: &str) -> usize {
    text.matches("<tr data-seq").count()
}

async fn times_are_absolute_and_events_have_sentences(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("planner-us", &[]).await;
    let body = json!({ "reason": "key leaked" });
    server.admin.post(&format!("/agents/{}/suspend", agent.id), body).await.expect(200);
    server.clock.advance(Duration::from_hours(4));
    let page =
        server.signed_in("zoe", Role::Viewer).await.get("/console/audit?action=agent.suspended").await.expect(200);
    page.shows(" suspended planner-us: key leaked</span>").shows("4 h ago").shows("2026-01-01 ").shows(" UTC");
    assert_eq!(rows(&page.text), 1);
}

async fn names_keep_the_other_filters_and_keys_have_pages(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let page =
        browser.get("/console/audit?outcome=success&range=7d&action=auth.token_issued&agent=reader").await.expect(200);
    page.shows(&format!("range=7d&#38;action=auth.token_issued&#38;agent=reader&#38;actor={}\"", agent.id));
    page.shows(&format!("href=\"/console/agents/{}/keys/{}\"", agent.id, agent.key_id));
    page.shows(&agent.raw_key[..13]);
    assert!(!page.text.contains(&agent.raw_key), "the page must not contain a secret");
}

async fn deleted_agents_keep_their_names(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("short-lived", &[]).await;
    server.admin.delete(&format!("/agents/{}", agent.id)).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let path = format!("/console/audit?agent={}&action=auth.token_issued", agent.id);
    browser.get(&path).await.expect(200).shows(">short-lived<").shows("short-lived obtained a token");
    // Once its deletion is indexed, the name is kept with the index.
    server
        .db
        .execute(
            "INSERT INTO audit_names (id, name) SELECT subject, 'kept-name' FROM audit_log WHERE action = 'agent.deleted'",
        )
        .await;
    browser.get(&path).await.expect(200).shows(">kept-name<");
}

async fn details_are_readable(db: Database) {
    let server = Server::start(db).await;
    server.agent("reader", &[]).await;
    let seq = server.audited("auth.token_issued").await[0]["seq"].as_i64().unwrap();
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let page = browser.get(&format!("/console/audit/{seq}")).await.expect(200);
    page.shows("<dt>Token expires</dt><dd class=\"wrap wrap--lines\"><time").shows("<dt>Token ID</dt>");
    page.shows("reader obtained a token with the key").shows("The record matches its hash");
}

async fn filters_are_chips_and_old_words_still_work(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    server.anonymous().exchange("aims_wrong").await.expect(401);
    for (query, count) in [
        ("outcome=failure", 1),
        ("outcome=refused", 1),
        ("reason=invalid_key", 1),
        ("reason=INVALID_KEY", 0),
        ("reason=invalid%25key", 0),
        ("ip=127.0.0.1&outcome=failure", 1),
        ("ip=10.9.9.9", 0),
        ("agent=reader&action=auth.token_issued", 1),
        ("range=1h&outcome=failure", 1),
        ("resource_type=federated_identity", 0),
    ] {
        let page = browser.get(&format!("/console/audit?{query}")).await.expect(200);
        assert_eq!(rows(&page.text), count, "{query}");
    }
    server.clock.advance(Duration::from_hours(2));
    let browser = server.sign_in("zoe").await;
    assert_eq!(rows(&browser.get("/console/audit?range=1h&agent=reader").await.expect(200).text), 0);
    let page = browser.get(&format!("/console/audit?agent={}&range=7d", agent.id)).await.expect(200);
    page.shows("<span class=\"clip\">reader</span>").shows("Last 7 days").shows("href=\"/console/audit?range=7d\"");
    for odd in ["range=2h", "ip=here", "request=a%20b", "agent=nobody-is-called-this", "record=x"] {
        browser.get(&format!("/console/audit?{odd}")).await.expect(422);
    }
}

async fn a_bar_of_the_chart_narrows_the_list(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let first = rows(&browser.get("/console/audit").await.expect(200).text);
    server.clock.advance(Duration::from_hours(5));
    server.anonymous().exchange("aims_wrong").await.expect(401);
    let browser = server.sign_in("zoe").await;
    let page = browser.get("/console/audit?range=24h").await.expect(200);
    assert_eq!(rows(&page.text), first + 2);
    // The links of the bars, each once in the drawing.
    let bars = page.text.split("class=\"chart__bar\" href=\"").skip(1);
    let links: Vec<_> = bars.map(|rest| rest.split('"').next().unwrap().replace("&#38;", "&")).collect();
    let mut counted = Vec::new();
    for link in &links {
        assert!(!link.contains("range="), "{link}");
        counted.push(rows(&browser.get(link).await.expect(200).text));
    }
    assert_eq!(counted.iter().sum::<usize>(), first + 2, "{links:?}");
    assert_eq!(counted.last(), Some(&2), "{links:?}");
}

async fn records_are_found_by_what_was_pasted(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    let request = server.admin.request(reqwest::Method::GET, "/agents").header("x-request-id", "trace-42");
    server.admin.send(request).await.expect(200);
    let denied = agent.client.request(reqwest::Method::GET, "/agents").header("x-request-id", "trace-43");
    agent.client.send(denied).await.expect(403);
    let browser = server.signed_in("zoe", Role::Viewer).await;
    for (text, path) in [
        ("7", "/console/audit?record=7".to_owned()),
        (" #7 ", "/console/audit?record=7".to_owned()),
        ("reader", "/console/audit?agent=reader".to_owned()),
        (agent.id.as_str(), format!("/console/audit?agent={}", agent.id)),
        (agent.key_id.as_str(), format!("/console/audit?resource_id={}", agent.key_id)),
        (&agent.raw_key[..13], format!("/console/audit?resource_id={}", agent.key_id)),
        (agent.raw_key.as_str(), format!("/console/audit?resource_id={}", agent.key_id)),
        ("trace-43", "/console/audit?request=trace-43".to_owned()),
    ] {
        browser.post("/console/audit/find", &[("find", text)]).await.redirects_to(&path);
        assert!(rows(&browser.get(&path).await.expect(200).text) > 0, "{path}");
    }
    for text in ["999999", "aims_short", "trace-42", "00000000-0000-7000-8000-000000000000", "no such thing", ""] {
        browser.post("/console/audit/find", &[("find", text)]).await.redirects_to("/console/audit");
        browser.get("/console/audit").await.shows("Nothing found.");
    }
}

async fn a_record_opens_beside_the_list_with_its_request(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    for _ in 0..3 {
        server.anonymous().exchange("aims_wrong").await.expect(401);
    }
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let failed: Vec<i64> =
        server.audited("auth.failed").await.iter().map(|record| record["seq"].as_i64().unwrap()).collect();
    let page = browser.get(&format!("/console/audit?outcome=failure&record={}", failed[1])).await.expect(200);
    page.shows("id=\"drawer\" data-drawer aria-label=\"Audit record\" open>").shows("data-drawer-close");
    // The neighbours match the filter, and closing keeps it.
    page.shows(&format!("href=\"/console/audit/{}?outcome=failure\" data-step=\"newer\"", failed[0]));
    page.shows(&format!("href=\"/console/audit/{}?outcome=failure\" data-step=\"older\"", failed[2]));
    page.shows("href=\"/console/audit?outcome=failure\" data-drawer-close");
    assert_eq!(rows(&page.text), 3, "the list must stay in place");
    // A fragment for the script, without the frame of the page.
    let request = browser.request(reqwest::Method::GET, &format!("/console/audit/{}", failed[1]));
    let fragment = browser.send(request.header("hx-request", "true")).await.expect(200);
    assert!(!fragment.text.contains("<html") && fragment.text.contains("data-record"), "{}", fragment.text);
    browser.get("/console/audit?record=999999").await.expect(200).shows("Record 999999 not found");
    browser.get("/console/audit/999999").await.expect(404);

    // Two requests with one ID, as a client may send it.
    let other = server.agent("writer", &[]).await;
    for id in [&agent.id, &other.id] {
        let request = server.admin.request(reqwest::Method::POST, &format!("/agents/{id}/suspend"));
        let request = request.header("x-request-id", "trace-7").json(&json!({ "reason": "drill" }));
        server.admin.send(request).await.expect(200);
    }
    let suspended = server.audited("agent.suspended").await;
    let page = browser.get(&format!("/console/audit/{}", suspended[0]["seq"])).await.expect(200);
    page.shows("Same request").shows(&format!("Record {}</a>", suspended[1]["seq"]));
    assert_eq!(rows(&browser.get("/console/audit?request=trace-7").await.expect(200).text), 2);
}

async fn views_are_saved_for_one_person(db: Database) {
    let server = Server::start(db).await;
    let zoe = server.signed_in("zoe", Role::Viewer).await;
    let otto = server.signed_in("otto", Role::Viewer).await;
    let save = async |name: &str, query: &str| {
        zoe.post("/console/audit/views", &[("name", name), ("query", query)]).await.expect(303).location().to_owned()
    };
    let path = save("Failures this week", "outcome=failure&range=7d&cursor=5&record=3").await;
    assert_eq!(path, "/console/audit?outcome=failure&range=7d");
    let page = zoe.get("/console/audit").await.expect(200);
    page.shows("View saved: Failures this week").shows("href=\"/console/audit?outcome=failure&#38;range=7d\"");
    assert!(!otto.get("/console/audit").await.expect(200).text.contains("Failures this week"));
    // The same name again replaces the filters.
    save("Failures this week", "outcome=failure&range=24h").await;
    assert_eq!(server.db.count("SELECT COUNT(*) FROM audit_views").await, 1);
    for (name, query) in
        [("", "outcome=failure"), ("x", ""), ("x", "outcome=maybe"), ("x", "//evil.test"), ("x", "a=b")]
    {
        save(name, query).await;
        zoe.get("/console/audit").await.expect(200).shows("The view was not saved.");
    }
    for n in 1..25 {
        save(&format!("view {n}"), "outcome=failure").await;
    }
    assert_eq!(server.db.count("SELECT COUNT(*) FROM audit_views").await, 20);
    zoe.get("/console/audit").await.expect(200).shows("You can save 20 views.");
    // Others can neither see nor delete it.
    let id = zoe.get("/console/audit").await.text;
    let id = id.split("/console/audit/views/").nth(2).unwrap().split('/').next().unwrap().to_owned();
    let delete = format!("/console/audit/views/{id}/delete");
    otto.post(&delete, &[]).await.expect(404);
    zoe.post(&delete, &[("query", "outcome=failure")]).await.redirects_to("/console/audit?outcome=failure");
    zoe.post(&delete, &[]).await.expect(404);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM audit_views").await, 19);
}

async fn the_export_is_what_is_on_the_screen(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    agent.client.get("/agents").await.expect(403);
    server.clock.advance(Duration::from_hours(24));
    let reader = server.anonymous().login(&agent.raw_key).await;
    reader.get("/agents").await.expect(403);
    reader.get("/agents").await.expect(403);
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let page = browser.get("/console/audit?agent=reader&outcome=failure&range=1h").await.expect(200);
    assert_eq!(rows(&page.text), 2);
    let links = page.text.split("href=\"/console/audit/export?").skip(1);
    let links: Vec<_> = links.map(|rest| rest.split('"').next().unwrap().replace("&#38;", "&")).collect();
    // Later records, and time that has passed, change nothing.
    reader.get("/agents").await.expect(403);
    server.clock.advance(Duration::from_mins(20));
    let csv = browser.get(&format!("/console/audit/export?{}", links[0])).await.expect(200).text;
    let rows: Vec<_> = csv.split("\r\n").filter(|line| !line.is_empty()).collect();
    assert_eq!(rows.len(), 3, "{csv}");
    assert!(rows[0].starts_with("seq,timestamp,action,outcome,actor,actor_name,subject,subject_name,"), "{csv}");
    let seq = |line: &str| line.split(',').next().unwrap().parse::<i64>().unwrap();
    assert!(seq(rows[1]) > seq(rows[2]), "the order must be that of the screen");
    assert!(rows[1].contains(&format!("failure,{},reader,{},reader,", agent.id, agent.id)), "{csv}");
    let json = browser.get(&format!("/console/audit/export?{}", links[1])).await.expect(200).text;
    let records: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 2);
    assert_eq!((&records[0]["actor_name"], &records[0]["subject_name"]), (&json!("reader"), &json!("reader")));
}

async fn archived_records_name_their_file(db: Database) {
    let server = Server::start(db).await;
    server.agent("old", &[]).await;
    let last = server.db.count("SELECT MAX(seq) FROM audit_log").await;
    server.clock.advance(Duration::from_hours(30 * 24));
    let folder = tempfile::tempdir().unwrap();
    let before = Timestamp::parse_lenient("2026-01-15").unwrap();
    let file = folder.path().join("audit-january.jsonl.gz");
    archive::archive(&server.services, &Caller::system(), before, &file).await.unwrap().unwrap();
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let old = server.admin_id.clone();
    for path in ["/console/audit".to_owned(), format!("/console/agents/{old}/timeline")] {
        let page = browser.get(&path).await.expect(200);
        page.shows(&format!("begins with record {}", last + 1)).shows("audit-january.jsonl.gz");
        assert!(!page.text.contains(folder.path().to_str().unwrap()), "the folder must not be shown");
    }
    for path in ["/console/audit/1", "/console/audit?record=1"] {
        let page = browser.get(path).await.expect(200);
        page.shows("no longer in the database").shows("audit-january.jsonl.gz").shows(&format!("1 to {last}"));
    }
    browser.post("/console/audit/find", &[("find", "1")]).await.redirects_to("/console/audit?record=1");
    let page = browser.get("/console/audit?from=2026-01-20").await.expect(200);
    assert!(!page.text.contains("audit-january"), "a period that was not archived needs no note");
    // An archive of an earlier version of AIMS.
    server.db.execute("DELETE FROM audit_archives").await;
    browser.get("/console/audit/1").await.expect(200).shows("did not store its name");
}

async fn an_empty_result_has_no_table(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let page = browser.get("/console/audit?until=2025-01-01").await.expect(200);
    page.shows("No matching records").shows("Show all records");
    assert!(!page.text.contains("<thead"), "{}", page.text);
    // For records that appear later, the table is only a template.
    let page = browser.get("/console/audit?action=nothing.like_it").await.expect(200);
    page.shows("<template data-empty-table>");
    assert_eq!(page.text.matches("<thead").count(), 1);
}
