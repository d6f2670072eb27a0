//! The list of agents: columns, filters, sort orders, owners and export.

use std::time::Duration;

use aims::domain::Role;
use serde_json::{Value, json};

use crate::{
    both,
    support::{Browser, Database, Page, Server},
};

both!(
    columns_show_capabilities_keys_and_last_use,
    a_pasted_id_finds_its_agent,
    owners_match_by_their_parts_and_are_suggested,
    filters_are_chips_that_can_be_removed,
    unused_agents_are_filtered_and_sorted,
    exports_contain_what_the_list_shows,
    agents_are_labelled_and_selected_by_their_labels,
    malformed_selectors_are_explained,
);

/// The names on a page, in order.
fn names(page: &Page) -> Vec<String> {
    let cells = page.text.split("table__name clip\" href=\"").skip(1);
    cells.map(|cell| cell.split('>').nth(1).unwrap().split('<').next().unwrap().to_owned()).collect()
}

/// The row of an agent.
fn row(page: &Page, name: &str) -> String {
    let rows = page.text.split("<tr>").find(|row| row.contains(&format!(">{name}</a>")));
    rows.unwrap_or_else(|| panic!("no row of {name} in {}", page.text)).split("</tr>").next().unwrap().to_owned()
}

async fn owned(server: &Server, name: &str, owner: &str, capabilities: &[&str]) -> crate::support::Agent {
    let agent = server.agent(name, capabilities).await;
    server.admin.patch(&format!("/agents/{}", agent.id), json!({ "owner": owner })).await.expect(200);
    agent
}

async fn list(browser: &Browser, query: &str) -> Page {
    browser.get(&format!("/console/agents{query}")).await.expect(200)
}

async fn columns_show_capabilities_keys_and_last_use(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let many = ["a:read", "b:read", "c:read", "d:read", "e:read"];
    let busy = server.agent("busy", &many).await;
    server.admin.post(&format!("/agents/{}/keys", busy.id), json!({})).await.expect(201);
    let quiet = server.admin.post("/agents", json!({ "name": "quiet", "owner": "o" })).await.expect(201);
    server.save_usage().await;
    let page = list(&browser, "").await;
    let busy_row = row(&page, "busy");
    for shown in [">a:read<", ">b:read<", ">+3<", "title=\"c:read, d:read, e:read\"", "<span>2</span>", "just now"] {
        assert!(busy_row.contains(shown), "{shown} is missing from {busy_row}");
    }
    let quiet_row = row(&page, "quiet");
    for shown in [">None<", "<span>0</span>", ">Never<"] {
        assert!(quiet_row.contains(shown), "{shown} is missing from {quiet_row}");
    }
    // Viewers cannot act.
    assert!(!page.text.contains("data-bulk-bar") && !page.text.contains("name=\"id\""));
    server.admin.post_empty(&format!("/agents/{}/suspend", busy.id)).await.expect(200);
    let page = list(&browser, "").await;
    assert!(row(&page, "busy").contains("blocked"), "keys of a suspended agent do not work");
    // Holders of a capability, by name and by ID.
    let id = server.capability("c:read").await;
    for capability in ["c:read", &id] {
        let page = list(&browser, &format!("?capability={capability}")).await;
        assert_eq!(names(&page), ["busy"]);
        page.shows("<span class=\"clip\">c:read</span>");
    }
    assert!(names(&list(&browser, "?capability=unknown:read").await).is_empty());
    assert!(quiet["id"].is_string());
}

async fn a_pasted_id_finds_its_agent(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let (one, _) = (server.agent("one", &[]).await, server.agent("other", &[]).await);
    for id in [one.id.clone(), one.id.to_uppercase(), format!("%20{}%20", one.id)] {
        assert_eq!(names(&list(&browser, &format!("?q={id}")).await), ["one"], "{id}");
    }
    assert_eq!(server.admin.get(&format!("/agents?q={}", one.id)).await.expect(200)[0]["name"], "one");
}

async fn owners_match_by_their_parts_and_are_suggested(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    for (name, owner) in [("a", "mail-team"), ("b", "mail-team"), ("c", "mail-team-2"), ("d", "platform")] {
        owned(&server, name, owner, &[]).await;
    }
    let found = async |owner: &str| {
        let mut found = names(&list(&browser, &format!("?owner={owner}")).await);
        found.sort_unstable();
        found
    };
    assert_eq!(found("mail-team").await, ["a", "b"], "a whole name matches nothing else");
    assert_eq!(found("MAIL").await, ["a", "b", "c"]);
    assert_eq!(found("team-2").await, ["c"]);
    assert_eq!(found("form").await, ["d"]);
    assert!(found("nobody").await.is_empty());
    list(&browser, "?owner=MAIL").await.shows("contains “MAIL”");

    let options =
        async |owner: &str| browser.get(&format!("/console/agents/owners?owner={owner}")).await.expect(200).text;
    let mail = options("mail").await;
    assert!(mail.contains("<option value=\"mail-team\">2 agents</option>"), "{mail}");
    assert!(mail.contains("<option value=\"mail-team-2\">1 agent</option>"), "{mail}");
    assert!(options("team-2").await.contains("mail-team-2"), "a part is found as well");
    assert!(!options("mail").await.contains("platform"));
    // Without scripts the page suggests owners itself.
    list(&browser, "").await.shows("<option value=\"platform\">1 agent</option>");
}

async fn filters_are_chips_that_can_be_removed(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    owned(&server, "a", "mail & more", &["a:read"]).await;
    owned(&server, "b", "platform", &[]).await;
    let page = list(&browser, "?owner=mail+%26+more&status=active&sort=name&used=90d").await;
    for chip in ["Owner", "Status", "not for 90 days"] {
        page.shows(chip);
    }
    page.shows("href=\"/console/agents?owner=mail+%26+more&#38;sort=name&#38;used=90d\"");
    // The owner of a row keeps the other filters.
    let page = list(&browser, "?status=active&sort=name").await;
    page.shows("href=\"/console/agents?status=active&#38;sort=name&#38;owner=platform\"");
    page.shows("aria-sort=\"ascending\"").shows("3 agents");
    // The form repeats them.
    page.shows("<input type=\"hidden\" name=\"status\" value=\"active\">").shows("data-whole=\"All 3 that match\"");
    assert!(!list(&browser, "").await.text.contains("data-whole"));
    for odd in ["?used=1d", "?sort=random", "?capability=%00", "?owner=%00"] {
        browser.get(&format!("/console/agents{odd}")).await.expect(422).shows("Invalid input");
    }
}

async fn unused_agents_are_filtered_and_sorted(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let early = server.agent("early", &[]).await;
    server.admin.post("/agents", json!({ "name": "never", "owner": "o" })).await.expect(201);
    server.save_usage().await;
    server.clock.advance(Duration::from_hours(24 * 40));
    let server_admin = server.anonymous().login(&server.admin_key).await;
    server_admin.post("/agents", json!({ "name": "new", "owner": "o" })).await.expect(201);
    server.save_usage().await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let found = async |query: &str| names(&list(&browser, query).await);
    assert_eq!(found("?used=never&sort=name").await, ["never", "new"]);
    assert_eq!(found("?used=30d&sort=name").await, ["early", "never"], "a new agent has had no time to be used");
    assert!(found("?used=90d").await.is_empty());
    assert_eq!(found("?sort=used").await[..2], ["admin".to_owned(), "early".to_owned()]);
    assert_eq!(found("?sort=unused").await[2..], ["early".to_owned(), "admin".to_owned()]);
    assert_eq!(found("?used=30d&sort=unused&status=active").await, ["never", "early"]);
    server.anonymous().exchange(&early.raw_key).await.expect(200);
    server.save_usage().await;
    assert_eq!(found("?used=30d").await, ["never"]);
}

async fn exports_contain_what_the_list_shows(db: Database) {
    let server = Server::start(db).await;
    let viewer = server.signed_in("ada", Role::Viewer).await;
    let operator = server.signed_in("zoe", Role::Operator).await;
    let one = owned(&server, "one", "=cmd()", &["a:read", "b:read"]).await;
    for number in 0..4 {
        owned(&server, &format!("many-{number}"), "others", &[]).await;
    }
    let page = viewer.get("/console/agents/export?format=csv&owner=others&sort=name").await.expect(200);
    assert_eq!(page.headers["content-disposition"], "attachment; filename=\"agents.csv\"");
    let lines: Vec<_> = page.text.lines().collect();
    assert_eq!(lines.len(), 5, "{}", page.text);
    assert!(lines[0].starts_with("id,name,status,type,owner") && lines[1].contains(",many-0,active,custom,others,"));
    let page = viewer.get("/console/agents/export?format=jsonl&q=one").await.expect(200);
    let line: Value = serde_json::from_str(page.text.trim()).unwrap();
    assert_eq!((line["id"].as_str(), line["name"].as_str()), (Some(one.id.as_str()), Some("one")));
    assert_eq!(line["capabilities"][1]["name"], "b:read");
    assert_eq!(line["capabilities"][1]["id"], server.capability("b:read").await.as_str());
    assert_eq!(line["keys"], 1);
    viewer.get("/console/agents/export?format=xml").await.expect(422);

    // A selection; spreadsheets must not execute what an owner is called.
    let form = [("act", "export.csv"), ("id", one.id.as_str())];
    let page = operator.post("/console/agents/bulk", &form).await.expect(200);
    assert_eq!(page.text.lines().count(), 2);
    assert!(page.text.contains(",\"'=cmd()\","), "{}", page.text);
    let form = [("act", "export.jsonl"), ("all", "matching"), ("owner", "others")];
    assert_eq!(operator.post("/console/agents/bulk", &form).await.expect(200).text.lines().count(), 4);
    operator.post("/console/agents/bulk", &[("act", "export.jsonl")]).await.redirects_to("/console/agents");
}

async fn agents_are_labelled_and_selected_by_their_labels(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let form = [
        ("name", "labelled"),
        ("owner", "o"),
        ("agent_type", "llm"),
        ("labels", " env = prod\r\n\r\nteam=a, \"b\"\r\ntier=1\r\n"),
    ];
    let path = browser.post("/console/agents", &form).await.expect(303).location().to_owned();
    let id = path.rsplit('/').next().unwrap();
    let plain = server.agent("plain", &[]).await;
    let stored = async || server.admin.get(&format!("/agents/{id}")).await.expect(200)["labels"].clone();
    assert_eq!(stored().await, json!({ "env": "prod", "team": "a, \"b\"", "tier": "1" }));

    let page = list(&browser, "?selector=env%3Dprod%2C%21old").await;
    assert_eq!(names(&page), ["labelled"]);
    page.shows("<span class=\"muted\">Labels</span> <span class=\"clip\">env=prod,!old</span>").shows("1 agent");
    page.shows("<input type=\"hidden\" name=\"selector\" value=\"env=prod,!old\">")
        .shows("data-whole=\"All 1 that match\"");
    let shown = row(&page, "labelled");
    for text in [">env=prod<", ">team=&#34;a, \\&#34;b\\&#34;&#34;<", "title=\"tier=1\""] {
        assert!(shown.contains(text), "{text} is missing from {shown}");
    }
    assert_eq!(names(&list(&browser, "?selector=%21env&sort=name").await), ["admin", "plain"]);
    assert_eq!(names(&list(&browser, "?selector=env&status=suspended").await), Vec::<String>::new());
    assert_eq!(names(&list(&browser, "?selector=%20&sort=name&q=plain").await), ["plain"]);

    // The page of the agent leads to the others with each label.
    let page = browser.get(&path).await.expect(200);
    page.shows("href=\"/console/agents?selector=env%3Dprod\"").shows("<code>env=prod</code>");
    let page = browser.get(&format!("{path}/edit")).await.expect(200);
    page.shows("env=prod\nteam=a, &#34;b&#34;\ntier=1</textarea>");
    let version = page.hidden("version");
    let edit = |labels: &'static str| [("owner", "o"), ("agent_type", "llm"), ("labels", labels)];
    let mut form = edit("env=test").to_vec();
    form.push(("version", &version));
    browser.post(&path, &form).await.redirects_to(&path);
    assert_eq!(stored().await, json!({ "env": "test" }));
    for bad in ["env", "=x", "Env=x", "env=a\nenv=b", &format!("a={}", "v".repeat(129))] {
        let form = [("owner", "o"), ("agent_type", "llm"), ("labels", bad)];
        let page = browser.post(&path, &form).await.expect(422);
        assert!(page.text.contains("id=\"labels-error\""), "{bad}: {}", page.text);
        let form = [("name", "other"), ("owner", "o"), ("agent_type", "llm"), ("labels", bad)];
        browser.post("/console/agents", &form).await.expect(422).shows("id=\"labels-error\"");
    }
    // A form without the field leaves the labels, an empty one removes them.
    browser.post(&path, &[("owner", "p"), ("agent_type", "llm")]).await.expect(303);
    assert_eq!(stored().await, json!({ "env": "test" }));

    let csv = browser.get("/console/agents/export?format=csv&selector=env").await.expect(200).text;
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(csv.lines().next().unwrap().ends_with(",labels") && csv.trim().ends_with(",env=test"), "{csv}");
    let line = browser.get("/console/agents/export?format=jsonl&selector=env%3Dtest").await.expect(200).text;
    assert_eq!(serde_json::from_str::<Value>(line.trim()).unwrap()["labels"], json!({ "env": "test" }));
    let form = [("act", "export.jsonl"), ("all", "matching"), ("selector", "!env,!x")];
    assert_eq!(browser.post("/console/agents/bulk", &form).await.expect(200).text.lines().count(), 2);

    // The keys of agents with a label.
    server.admin.post(&format!("/agents/{id}/keys"), json!({ "name": "of-labelled" })).await.expect(201);
    let keys = browser.get("/console/keys?selector=env%3Dtest").await.expect(200);
    keys.shows("of-labelled").shows("1 key").shows("<span class=\"muted\">Labels</span>");
    let others = browser.get("/console/keys?selector=env%21%3Dtest").await.expect(200);
    assert!(!others.text.contains("of-labelled") && others.text.contains(">plain<"), "{}", others.text);
    let form = [("act", "revoke"), ("all", "matching"), ("selector", "env=test")];
    let page = browser.post("/console/keys/bulk", &form).await.expect(200);
    page.shows("Revoke 1 key of 1 agent?").shows("name=\"selector\" value=\"env=test\"");
    assert!(!page.text.contains(&plain.key_id));

    // The agents that hold a capability, and those to grant it to.
    let capability = server.capability("documents:read").await;
    let (holders, choice) =
        (format!("/console/capabilities/{capability}"), format!("/console/capabilities/{capability}/grants"));
    let page = browser.get(&format!("{choice}?selector=env%3Dtest")).await.expect(200);
    assert_eq!(names(&page), ["labelled"]);
    let form = [("from", "list"), ("all", "matching"), ("selector", "env=test")];
    let page = browser.post(&choice, &form).await.expect(200);
    page.shows("labelled").shows("name=\"selector\" value=\"env=test\"");
    server.grant(id, "documents:read").await;
    server.grant(&plain.id, "documents:read").await;
    assert_eq!(names(&browser.get(&format!("{holders}?selector=env")).await.expect(200)), ["labelled"]);
    assert_eq!(names(&browser.get(&format!("{holders}?selector=%21env")).await.expect(200)), ["plain"]);
    let csv = browser.get(&format!("{holders}/export?selector=env")).await.expect(200).text;
    assert_eq!(csv.lines().count(), 2, "{csv}");

    browser.post(&path, &[("owner", "p"), ("agent_type", "llm"), ("labels", "")]).await.expect(303);
    assert_eq!(stored().await, json!({}));
}

async fn malformed_selectors_are_explained(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let holders = format!("/console/capabilities/{}", server.capability("documents:read").await);
    let grants = format!("{holders}/grants");
    for place in ["/console/agents", "/console/keys", &holders, &grants] {
        for (bad, character) in [("env%3D%3Dprod", 5), ("Env", 1), ("a+in+%28", 7), ("%3Cscript%3E", 1)] {
            let path = format!("{place}?selector={bad}");
            let page = browser.get(&path).await.expect(422);
            page.shows("These conditions on labels are not valid");
            page.shows(&format!("At character {character} of the selector: expected"));
            assert!(!page.text.contains("<script>"), "{}", page.text);
            // While somebody types, htmx shows the explanation in the place of the list.
            let typed = browser.request(reqwest::Method::GET, &path).header("hx-request", "true");
            browser.send(typed).await.expect(200).shows("At character");
        }
        let kept = browser.get(&format!("{place}?selector=Env&owner=o")).await.expect(422);
        kept.shows("value=\"Env\"").shows("Clear filters");
    }
    browser.post(&grants, &[("all", "matching"), ("selector", "Env")]).await.expect(422).shows("At character 1");
    browser.get(&format!("{holders}/export?selector=Env")).await.expect(422).shows("At character 1");
    browser.get("/console/agents/export?selector=Env").await.expect(422).shows("At character 1 of the selector");
    let form = [("act", "revoke"), ("all", "matching"), ("selector", "Env")];
    browser.post("/console/keys/bulk", &form).await.expect(422).shows("At character 1 of the selector");
}
