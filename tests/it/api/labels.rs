//! Labels and selectors.

use aims::domain::agent::selector::Selector;
use reqwest::Method;
use serde_json::{Value, json};

use super::{assert_invalid, each, next};
use crate::{
    both,
    support::{Client, Database, Server, details},
};

both!(
    labels_are_set_edited_and_cleared,
    labels_are_accepted_exactly_up_to_their_limits,
    malformed_labels_are_rejected,
    every_operator_selects_the_right_agents,
    malformed_selectors_are_rejected,
    selectors_combine_with_other_filters_and_pages,
    labels_follow_the_authority_to_edit,
    edits_of_labels_are_recorded_and_versioned,
    many_agents_are_labelled_at_once,
    a_bulk_change_is_limited_and_validated,
    deleted_agents_leave_no_labels,
);

async fn create(server: &Server, name: &str, labels: Value) -> String {
    let body = json!({ "name": name, "owner": "o", "labels": labels });
    server.admin.post("/agents", body).await.expect(201)["id"].as_str().unwrap().to_owned()
}

async fn labels(client: &Client, id: &str) -> Value {
    client.get(&format!("/agents/{id}")).await.expect(200)["labels"].clone()
}

fn query(selector: &str) -> String {
    format!("/agents?{}", serde_urlencoded::to_string([("selector", selector)]).unwrap())
}

async fn selected(server: &Server, selector: &str) -> Vec<String> {
    let found = server.admin.get(&query(selector)).await.expect(200);
    let mut names: Vec<_> = each(&found, "name").into_iter().map(str::to_owned).collect();
    names.sort_unstable();
    names
}

async fn labels_are_set_edited_and_cleared(db: Database) {
    let server = Server::start(db).await;
    let id = create(&server, "a", json!({ "env": "prod", "team": "mail" })).await;
    let path = format!("/agents/{id}");
    assert_eq!(labels(&server.admin, &id).await, json!({ "env": "prod", "team": "mail" }));
    let edited = server.admin.patch(&path, json!({ "labels": { "env": "test", "new": "" } })).await.expect(200);
    assert_eq!(edited["labels"], json!({ "env": "test", "new": "" }), "the whole object is replaced");
    assert_eq!(labels(&server.admin, &id).await, edited["labels"]);
    let listed = server.admin.get("/agents?q=a").await.expect(200);
    assert_eq!(listed.as_array().unwrap().last().unwrap()["labels"], edited["labels"]);
    for untouched in [json!({ "owner": "p" }), json!({ "labels": null, "owner": "q" })] {
        server.admin.patch(&path, untouched).await.expect(200);
        assert_eq!(labels(&server.admin, &id).await, edited["labels"]);
    }
    server.admin.post_empty(&format!("{path}/suspend")).await.expect(200);
    assert_eq!(labels(&server.admin, &id).await, edited["labels"]);
    let cleared = server.admin.patch(&path, json!({ "labels": {} })).await.expect(200);
    assert_eq!(cleared["labels"], json!({}));
    assert_eq!(server.db.count("SELECT COUNT(*) FROM agent_labels").await, 0);
    assert_eq!(create(&server, "b", Value::Null).await.len(), 36);
}

async fn labels_are_accepted_exactly_up_to_their_limits(db: Database) {
    let server = Server::start(db).await;
    let many = |count: usize| -> Value {
        (0..count).map(|n| (format!("key-{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into()
    };
    let id = create(&server, "a", many(32)).await;
    let path = format!("/agents/{id}");
    let key = format!("a./_-{}", "0".repeat(58));
    for good in [
        json!({ key.clone(): "v" }),
        json!({ "0": "Zoë, \"first\" = ❤\u{FE0F}" }),
        json!({ "k": "\u{1F512}".repeat(128) }),
        json!({ "k": "" }),
        many(32),
    ] {
        let edited = server.admin.patch(&path, json!({ "labels": good })).await.expect(200);
        assert_eq!(edited["labels"], good);
        assert_eq!(labels(&server.admin, &id).await, good);
    }
    for bad in [json!({ format!("{key}0"): "v" }), json!({ "k": "\u{1F512}".repeat(129) }), many(33)] {
        assert_invalid(&server.admin.patch(&path, json!({ "labels": bad })).await, &json!([["body", "labels"]]));
        let new = json!({ "name": "b", "owner": "o", "labels": bad });
        assert_invalid(&server.admin.post("/agents", new).await, &json!([["body", "labels"]]));
    }
    assert_eq!(labels(&server.admin, &id).await, many(32));
}

async fn malformed_labels_are_rejected(db: Database) {
    let server = Server::start(db).await;
    let id = create(&server, "a", json!({ "kept": "yes" })).await;
    for bad in [
        json!([]),
        json!("env=prod"),
        json!(1),
        json!({ "": "v" }),
        json!({ "Env": "v" }),
        json!({ "-env": "v" }),
        json!({ "a b": "v" }),
        json!({ "a=b": "v" }),
        json!({ "é": "v" }),
        json!({ "k": 1 }),
        json!({ "k": null }),
        json!({ "k": ["v"] }),
        json!({ "k": " v" }),
        json!({ "k": "v " }),
        json!({ "k": "a\nb" }),
        json!({ "k": "a\u{0}b" }),
        json!({ "k": "a\u{202E}b" }),
    ] {
        let response = server.admin.patch(&format!("/agents/{id}"), json!({ "labels": bad })).await;
        assert_invalid(&response, &json!([["body", "labels"]]));
    }
    let repeated = server.admin.request(Method::PATCH, &format!("/agents/{id}"));
    let repeated = repeated.header("content-type", "application/json").body("{\"labels\":{\"a\":\"1\",\"a\":\"2\"}}");
    assert_eq!(server.admin.send(repeated).await.status, 422);
    assert_eq!(labels(&server.admin, &id).await, json!({ "kept": "yes" }));
    assert!(server.audited("agent.updated").await.is_empty());
}

async fn every_operator_selects_the_right_agents(db: Database) {
    let server = Server::start(db).await;
    for (name, labels) in [
        ("mail", json!({ "env": "prod", "team": "mail", "tier": "a" })),
        ("search", json!({ "env": "prod", "team": "search", "tier": "b" })),
        ("shout", json!({ "env": "PROD" })),
        ("old", json!({ "env": "test", "legacy": "", "note": "a, (b) \"c\" \\d" })),
        ("bare", json!({})),
    ] {
        create(&server, name, labels).await;
    }
    let all = ["admin", "bare", "mail", "old", "search", "shout"];
    for (selector, names) in [
        ("env=prod", vec!["mail", "search"]),
        ("env=PROD", vec!["shout"]),
        ("env!=prod", vec!["admin", "bare", "old", "shout"]),
        ("env", vec!["mail", "old", "search", "shout"]),
        ("!env", vec!["admin", "bare"]),
        ("legacy=", vec!["old"]),
        ("legacy!=", vec!["admin", "bare", "mail", "search", "shout"]),
        ("tier in (a,b)", vec!["mail", "search"]),
        ("tier in (b, c)", vec!["search"]),
        ("tier notin (a,b)", vec!["admin", "bare", "old", "shout"]),
        ("env=prod,team!=mail,tier in (a,b),!legacy", vec!["search"]),
        (" env = prod , team != mail ", vec!["search"]),
        ("note=\"a, (b) \\\"c\\\" \\\\d\"", vec!["old"]),
        ("env=prod,env=test", vec![]),
        ("unknown", vec![]),
        ("unknown in (x)", vec![]),
        ("!unknown", all.to_vec()),
        ("unknown!=x,other notin (y)", all.to_vec()),
        ("", all.to_vec()),
    ] {
        assert_eq!(selected(&server, selector).await, names, "{selector}");
    }
}

async fn malformed_selectors_are_rejected(db: Database) {
    let server = Server::start(db).await;
    let long = format!("a{}", " ".repeat(1_024));
    let many = vec!["a"; 17].join(",");
    let values = format!("a in ({})", vec!["b"; 33].join(","));
    let value = format!("a={}", "b".repeat(129));
    let key = "k".repeat(64);
    for bad in [
        " ",
        ",",
        "a,",
        ",a",
        "Env=prod",
        "env==prod",
        "env=a b",
        "a>1",
        "!",
        "!!a",
        "!a=b",
        "a in",
        "a in ()",
        "a in (b",
        "a notin b",
        "a in (b,)",
        "a=\"b",
        "a=\"\\n\"",
        "a=é",
        "a;b",
        "a\u{0}",
        "a=\"\u{202E}\"",
        "a\n",
        &long,
        &many,
        &values,
        &value,
        &key,
    ] {
        let response = server.admin.get(&query(bad)).await;
        assert_invalid(&response, &json!([["query", "selector"]]));
        let message = response.detail()[0]["msg"].as_str().unwrap().to_owned();
        assert!(message.len() > 20, "{bad}: {message}");
    }
    let response = server.admin.get(&query("env=prod,=x")).await;
    assert!(response.detail()[0]["msg"].as_str().unwrap().contains("character 10 of the selector"), "{response:?}");
    assert_invalid(&server.admin.get("/agents?selector=a&selector=b").await, &json!([["query", "selector"]]));
    // The limits themselves.
    for good in [&long[..1_024], &many[..31], &value[..130], &key[..63]] {
        server.admin.get(&query(good)).await.expect(200);
        assert!(Selector::parse(good).is_ok());
    }
}

async fn selectors_combine_with_other_filters_and_pages(db: Database) {
    let server = Server::start(db).await;
    for n in 0..9 {
        let id = create(&server, &format!("p{n}"), json!({ "env": if n < 7 { "prod" } else { "test" } })).await;
        if n % 3 == 0 {
            server.admin.post_empty(&format!("/agents/{id}/suspend")).await.expect(200);
        }
        if n == 1 {
            server.admin.patch(&format!("/agents/{id}"), json!({ "owner": "other" })).await.expect(200);
        }
    }
    let names = async |query: &str| {
        let found = server.admin.get(&format!("/agents?{query}")).await.expect(200);
        each(&found, "name").join(" ")
    };
    assert_eq!(names("selector=env%3Dprod&status=suspended").await, "p0 p3 p6");
    assert_eq!(names("selector=env%3Dprod&status=active&owner=o").await, "p2 p4 p5");
    assert_eq!(names("selector=env%3Dprod&owner=other").await, "p1");
    assert_eq!(names("selector=env&q=p7").await, "p7");
    assert_eq!(names("selector=env%3Dprod&agent_type=llm").await, "");
    for selector in ["env%3Dprod", "env%21%3Dtest%2Cenv"] {
        let mut path = format!("/api/v1/agents?selector={selector}&limit=3");
        let mut seen = Vec::new();
        for expected in [3, 3, 1] {
            let page = server.admin.get(&path).await;
            let link = next(&page);
            let found = page.expect(200);
            assert_eq!(found.as_array().unwrap().len(), expected);
            seen.extend(each(&found, "name").into_iter().map(str::to_owned));
            assert_eq!(link.is_some(), expected == 3);
            path = link.unwrap_or_default();
        }
        assert_eq!(seen.join(" "), "p0 p1 p2 p3 p4 p5 p6");
    }
}

/// Labels are a field like the others: who may edit an agent may label it.
async fn labels_follow_the_authority_to_edit(db: Database) {
    let server = Server::start(db).await;
    let id = create(&server, "target", json!({})).await;
    let path = format!("/agents/{id}");
    let reader = server.agent("reader", &["agents:read"]).await;
    let writer = server.agent("writer", &["agents:write"]).await;
    let both = server.agent("both", &["agents:read", "agents:write"]).await;
    let edit = json!({ "labels": { "env": "prod" } });
    let bulk = json!({ "selector": "!env", "set": { "env": "prod" }, "dry_run": true });
    let missing = |name: &str| format!("Missing required capability: {name}");
    reader.client.patch(&path, edit.clone()).await.refused(403, &missing("agents:write"));
    reader.client.post("/agents/labels", bulk.clone()).await.refused(403, &missing("agents:write"));
    writer.client.post("/agents/labels", bulk.clone()).await.refused(403, &missing("agents:read"));
    writer.client.get(&query("env")).await.refused(403, &missing("agents:read"));
    writer.client.patch(&path, edit.clone()).await.expect(200);
    both.client.post("/agents/labels", bulk).await.expect(200);
    // Also those that hold more.
    both.client.patch(&format!("/agents/{}", server.admin_id), edit).await.expect(200);
    assert_eq!(selected(&server, "env=prod").await, ["admin", "target"]);
}

async fn edits_of_labels_are_recorded_and_versioned(db: Database) {
    let server = Server::start(db).await;
    let id = create(&server, "a", json!({ "env": "test" })).await;
    let created = &server.audited("agent.created").await[0];
    assert_eq!(details(created), json!({ "name": "a", "owner": "o", "labels": { "env": "test" } }));
    let path = format!("/agents/{id}");
    let tag = server.admin.get(&path).await.header("etag").unwrap().to_owned();
    let edit = async |tag: &str, labels: Value| {
        let request = server.admin.request(Method::PATCH, &path).header("If-Match", tag);
        server.admin.send(request.json(&json!({ "labels": labels }))).await
    };
    let edited = edit(&tag, json!({ "env": "prod", "team": "mail" })).await;
    assert_eq!(edited.status, 200, "{edited:?}");
    let newer = edited.header("etag").unwrap().to_owned();
    assert_ne!(newer, tag);
    edit(&tag, json!({})).await.expect(412);
    let record = &server.audited("agent.updated").await[0];
    let change = json!({ "from": "env=test", "to": "env=prod\nteam=mail" });
    assert_eq!(details(record), json!({ "updated_fields": ["labels"], "changes": { "labels": change } }));
    assert_eq!(record["resource_id"], json!(id));
    let unchanged = edit(&newer, json!({ "team": "mail", "env": "prod" })).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.header("etag")), (200, Some(newer.as_str())));
    assert_eq!(server.audited("agent.updated").await.len(), 1, "the same labels change nothing");
}

async fn many_agents_are_labelled_at_once(db: Database) {
    let server = Server::start(db).await;
    for n in 0..4 {
        create(&server, &format!("m{n}"), json!({ "team": "mail", "old": "x" })).await;
    }
    create(&server, "m4", json!({ "team": "mail", "env": "prod" })).await;
    let full: serde_json::Map<_, _> = (0..31).map(|n| (format!("k{n}"), json!("v"))).collect();
    let full = create(&server, "m5", Value::from(full)).await;
    server.admin.post("/agents/labels", json!({ "selector": "k0", "set": { "team": "mail" } })).await.expect(200);
    create(&server, "other", json!({ "team": "search" })).await;
    let records = server.audited("agent.updated").await.len();

    let body = json!({ "selector": "team=mail", "set": { "env": "prod" }, "remove": ["old"], "dry_run": true });
    let preview = server.admin.post("/agents/labels", body.clone()).await.expect(200);
    assert_eq!((&preview["dry_run"], each(&preview["changed"], "name")), (&json!(true), vec!["m0", "m1", "m2", "m3"]));
    assert_eq!(each(&preview["unchanged"], "name"), ["m4", "m5"]);
    assert_eq!(each(&preview["unchanged"], "reason"), ["already has these labels", "would have more than 32 labels"]);
    assert_eq!(server.audited("agent.updated").await.len(), records, "a preview changes nothing");

    let mut body = body;
    body["dry_run"] = json!(false);
    let done = server.admin.post("/agents/labels", body.clone()).await.expect(200);
    assert_eq!((&done["dry_run"], &done["changed"]), (&json!(false), &preview["changed"]));
    assert_eq!(done["unchanged"], preview["unchanged"]);
    assert_eq!(server.audited("agent.updated").await.len(), records + 4);
    assert_eq!(selected(&server, "env=prod,team=mail,!old").await, ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(labels(&server.admin, &full).await["env"], Value::Null);
    let again = server.admin.post("/agents/labels", body).await.expect(200);
    assert_eq!((again["changed"].as_array().unwrap().len(), again["unchanged"].as_array().unwrap().len()), (0, 6));
    // A key that is set and removed is set; nothing to do changes nothing.
    let both = json!({ "selector": "env", "set": { "env": "test" }, "remove": ["env"] });
    server.admin.post("/agents/labels", both).await.expect(200);
    assert_eq!(selected(&server, "env=test").await.len(), 5);
    let nothing = server.admin.post("/agents/labels", json!({ "selector": "env" })).await.expect(200);
    assert_eq!(nothing["changed"], json!([]));
    let nobody = server.admin.post("/agents/labels", json!({ "selector": "a=b", "remove": ["x"] })).await.expect(200);
    assert_eq!((&nobody["changed"], &nobody["unchanged"]), (&json!([]), &json!([])));
}

async fn a_bulk_change_is_limited_and_validated(db: Database) {
    let server = Server::start(db).await;
    let post = async |body: Value| server.admin.post("/agents/labels", body).await;
    let many: Vec<_> = (0..33).map(|n| format!("k{n}")).collect();
    for (body, place) in [
        (json!({}), "selector"),
        (json!({ "selector": "" }), "selector"),
        (json!({ "selector": "a=" , "set": { "A": "b" } }), "set"),
        (json!({ "selector": "A" }), "selector"),
        (json!({ "selector": "a", "remove": "b" }), "remove"),
        (json!({ "selector": "a", "remove": ["B"] }), "remove"),
        (json!({ "selector": "a", "remove": [1] }), "remove"),
        (json!({ "selector": "a", "remove": many }), "remove"),
        (json!({ "selector": "a", "set": [] }), "set"),
        (json!({ "selector": "a", "dry_run": "yes" }), "dry_run"),
    ] {
        assert_invalid(&post(body).await, &json!([["body", place]]));
    }
    let id = if server.db.is_sqlite() { "CAST(printf('%016d', i) AS BLOB)" } else { "LPAD(i::text, 32, '0')::uuid" };
    server
        .db
        .execute(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5001) \
             INSERT INTO agents (id, name, description, owner, status, agent_type, metadata_json, created_at, updated_at) \
             SELECT {id}, 'n' || i, '', 'o', 'active', 'llm', '{{}}', i, i FROM n; \
             INSERT INTO agent_labels (agent_id, key, value, created_at) \
             SELECT id, 'big', 'yes', created_at FROM agents WHERE created_at <= 5001"
        ))
        .await;
    let refused = post(json!({ "selector": "big", "set": { "env": "prod" } })).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.detail().as_str().unwrap().contains("More than 5000 agents match"), "{refused:?}");
    assert!(selected(&server, "env").await.is_empty());
}

async fn deleted_agents_leave_no_labels(db: Database) {
    let server = Server::start(db).await;
    let id = create(&server, "a", json!({ "env": "prod" })).await;
    server.admin.delete(&format!("/agents/{id}")).await.expect(204);
    assert!(selected(&server, "env=prod").await.is_empty());
    assert_eq!(server.db.count("SELECT COUNT(*) FROM agent_labels").await, 0);
}
