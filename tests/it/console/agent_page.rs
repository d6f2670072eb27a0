//! An agent's pages: creating it in one form, its effective state, its delegations, and what is left after deletion.

use aims::domain::Role;
use serde_json::json;

use crate::{
    both,
    support::{Browser, Database, Page, Server, details},
};

both!(
    agent_is_created_with_capabilities_and_a_key_in_one_change,
    creation_changes_nothing_if_a_part_of_it_fails,
    form_that_is_submitted_twice_creates_one_agent,
    creation_grants_nothing_that_the_creator_may_not_grant,
    suspended_agent_has_no_working_key_and_shows_the_reason,
    delegations_are_drawn_in_both_directions,
    activity_is_charted_for_the_range_in_the_url,
    deleted_agent_keeps_its_name_and_records,
    long_names_and_hostile_texts_are_shown_whole,
    change_of_owner_can_be_undone,
);

const ID: &str = "01920000-0000-7000-8000-000000000001";

fn form<'f>(name: &'f str, capabilities: &[&'f str], key: bool) -> Vec<(&'static str, &'f str)> {
    let mut form = vec![("id", ID), ("name", name), ("owner", "mail-team"), ("agent_type", "llm"), ("life", "90")];
    form.extend(capabilities.iter().map(|id| ("capability", *id)));
    if key {
        form.extend([("key", "on"), ("key_name", "production")]);
    }
    form
}

fn secret(page: &Page) -> String {
    page.text.split("id=\"secret\" readonly value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

async fn count_agents(server: &Server) -> i64 {
    server.db.count("SELECT COUNT(*) FROM agents").await
}

async fn agent_is_created_with_capabilities_and_a_key_in_one_change(db: Database) {
    let server = Server::start(db).await;
    let (read, write) = (server.capability("documents:read").await, server.capability("documents:write").await);
    let browser = server.signed_in("zoe", Role::Operator).await;
    let page = browser.get("/console/agents/new").await.expect(200);
    page.shows("documents:read").shows("Create an API key and show it once");
    assert!(!page.text.contains("<code class=\"wrap\">admin:*</code>"), "an operator cannot grant it");

    let page = browser.post("/console/agents", &form("planner", &[&read, &write], true)).await.expect(200);
    page.shows("Save this key now").shows("X-API-Key");
    assert_eq!(page.headers["cache-control"], "no-store");
    let key = secret(&page);
    let client = server.anonymous().login(&key).await;
    client.get("/agents").await.expect(403);
    let agent = server.admin.get("/agents?q=planner").await.expect(200)[0]["id"].as_str().unwrap().to_owned();
    let held = server.admin.get(&format!("/agents/{agent}/capabilities")).await.expect(200);
    assert_eq!(held.as_array().unwrap().len(), 2);
    page.shows(&format!("href=\"/console/agents/{agent}\" data-done"));

    // Each part has a record of its own, all of the same request.
    let records = server.admin.get("/audit?limit=20").await.expect(200);
    let of_agent = records.as_array().unwrap().iter().filter(|record| record["action"] != "auth.token_issued");
    let actions: Vec<_> = of_agent.take(4).map(|record| record["action"].as_str().unwrap()).collect();
    assert_eq!(actions[0..2], ["authz.denied", "key.created"]);
    assert_eq!(server.audited("capability.granted").await.len() - 5, 2, "besides those of the first administrator");
    browser
        .get(&format!("/console/agents/{agent}"))
        .await
        .shows("<strong>1</strong> of 1 key")
        .shows("documents:write");
    // The secret is nowhere else.
    for path in [format!("/console/agents/{agent}"), "/console/audit".to_owned(), "/console/keys".to_owned()] {
        assert!(!browser.get(&path).await.text.contains(&key[13..]), "{path}");
    }

    // Without a key and capabilities, the page says what to do next.
    let page = browser.post("/console/agents", &form("bare", &[], false)).await.expect(303);
    browser.get(page.location()).await.shows("Next, grant it capabilities and create an API key");
}

async fn creation_changes_nothing_if_a_part_of_it_fails(db: Database) {
    let server = Server::start(db).await;
    let read = server.capability("documents:read").await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let unknown = "01920000-0000-7000-8000-00000000dead";
    for (form, message) in [
        (form("planner", &[&read, unknown], true), "One of these capabilities no longer exists"),
        (form("planner", &["junk"], true), "Choose capabilities from the list"),
        ([form("planner", &[&read], false), vec![("key", "on"), ("key_name", "")]].concat(), "This field is required"),
        (vec![("name", "no spaces"), ("owner", ""), ("agent_type", "llm")], "Use only letters, digits"),
        (form("admin", &[], true), "Agent name already exists"),
        (form("Admin", &[], true), "too similar"),
    ] {
        let page = browser.post("/console/agents", &form).await.expect(422);
        page.shows(message);
        if form.iter().any(|(name, value)| *name == "capability" && *value == read) {
            page.shows(&format!("value=\"{read}\" checked"));
        }
    }
    assert_eq!(count_agents(&server).await, 1);
    assert_eq!(server.audited("agent.created").await.len(), 1);
    assert_eq!(server.audited("key.created").await.len(), 1);
}

async fn form_that_is_submitted_twice_creates_one_agent(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let form = form("planner", &[], true);
    let key = secret(&browser.post("/console/agents", &form).await.expect(200));
    let again = browser.post("/console/agents", &form).await.expect(303);
    let page = browser.get(again.location()).await.expect(200);
    page.shows("planner was already created. If you did not save its key, create another one.").shows("/keys/new");
    assert!(!page.text.contains(&key[13..]));
    assert_eq!(server.db.count("SELECT COUNT(*) FROM api_keys").await, 2);
    // Another form with the same name is a conflict, not a repetition.
    let other: Vec<_> = form.iter().filter(|(name, _)| *name != "id").copied().collect();
    browser.post("/console/agents", &other).await.expect(422).shows("Agent name already exists");
}

async fn creation_grants_nothing_that_the_creator_may_not_grant(db: Database) {
    let server = Server::start_with(db, &[("AUDIT_REFUSALS_PER_MINUTE", "1000000")]).await;
    let admin = server.capability("admin:*").await;
    let read = server.capability("documents:read").await;
    let (operator, viewer) =
        (server.signed_in("zoe", Role::Operator).await, server.signed_in("vic", Role::Viewer).await);
    let attempts = [form("mine", &[&read, &admin], true), form("mine", &[&admin], false)];
    for form in &attempts {
        operator.post("/console/agents", form).await.expect(403).shows("authority that you lack: admin:*");
        viewer.post("/console/agents", form).await.expect(403);
    }
    viewer.get("/console/agents/new").await.expect(403);
    assert_eq!(count_agents(&server).await, 1);
    let denied = server.audited("authz.denied").await;
    assert_eq!(denied.iter().filter(|record| details(record)["capability"] == "admin:*").count(), attempts.len());

    // A grant and a key need a recent proof; an agent without power does not.
    server.clock.advance(std::time::Duration::from_mins(11));
    for form in [form("mine", &[&read], false), form("mine", &[], true)] {
        operator.post("/console/agents", &form).await.expect(401).shows("Confirm your identity");
    }
    assert_eq!(count_agents(&server).await, 1);
    operator.post("/console/agents", &form("mine", &[], false)).await.expect(303);
    let owner = server.signed_in("ada", Role::Owner).await;
    owner.post("/console/agents", &form("boss", &[&admin], true)).await.expect(200);
}

async fn suspended_agent_has_no_working_key_and_shows_the_reason(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let path = format!("/console/agents/{}", agent.id);
    let browser = server.signed_in("zoe", Role::Operator).await;
    browser.get(&path).await.shows("<strong>1</strong> of 1 key works").shows("badge--active");

    // Through the API, with a reason.
    let body = json!({ "reason": "leaked <b>key</b>" });
    server.admin.post(&format!("/agents/{}/suspend", agent.id), body).await.expect(200);
    let page = browser.get(&path).await.expect(200);
    page.shows("No key works: agent suspended.").shows("Blocked: agent suspended");
    page.shows("by admin").shows("leaked &#60;b&#62;key&#60;/b&#62;");
    assert!(!page.text.contains("badge--active"), "no key of a suspended agent is active");
    browser.post(&format!("{path}/reactivate"), &[]).await.redirects_to(&path);
    assert!(!browser.get(&path).await.text.contains("Reason: "), "the reason is that of the last suspension");

    // Through the console, which asks for one.
    browser.get(&format!("{path}/suspend")).await.expect(200).shows("name=\"reason\"");
    let long = "r".repeat(501);
    browser.post(&format!("{path}/suspend"), &[("reason", &long)]).await.expect(422).shows("at most 500 characters");
    browser.post(&format!("{path}/suspend"), &[("reason", "on holiday")]).await.redirects_to(&path);
    browser.get(&path).await.shows("by zoe").shows("on holiday");
    assert_eq!(details(&server.audited("agent.suspended").await[0])["reason"], "on holiday");
    browser.get(&format!("{path}/suspend")).await.expect(400).shows("Only active agents can be suspended");
    browser.post(&format!("{path}/revoke"), &[("confirm", "worker"), ("reason", "gone")]).await.redirects_to(&path);
    browser.get(&path).await.shows("Revoked").shows("gone").shows("No key works: agent revoked");
}

async fn delegations_are_drawn_in_both_directions(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("planner", &[]).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let path = format!("/console/agents/{}", agent.id);
    browser.get(&path).await.shows("No agent can act for").shows("no other agent");
    for n in 0..11 {
        let delegate = server.agent(&format!("helper-{n:02}"), &[]).await;
        let body = json!({ "delegate_id": delegate.id });
        server.admin.post(&format!("/agents/{}/delegates", agent.id), body).await.expect(201);
    }
    let boss = server.agent("boss", &[]).await;
    let body = json!({ "delegate_id": agent.id });
    server.admin.post(&format!("/agents/{}/delegates", boss.id), body).await.expect(201);
    let page = browser.get(&path).await.expect(200);
    page.shows("11 agents can act for").shows("It can act for 1 agent.").shows("+3 more");
    page.shows("<svg class=\"graph\"").shows("Show delegations as a list");
    // Each shown agent is in the drawing and in the list.
    assert_eq!(page.text.matches(&format!("href=\"/console/agents/{}\"", boss.id)).count(), 2);
    assert_eq!(page.text.matches(">helper-").count(), 8 + 8 + 8, "a title and a text in the drawing, and the list");
}

async fn activity_is_charted_for_the_range_in_the_url(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let other = server.agent("other", &[]).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let path = format!("/console/agents/{}", agent.id);
    let unused = server.admin.post("/agents", json!({ "name": "unused", "owner": "tests" })).await.expect(201);
    let unused = format!("/console/agents/{}", unused["id"].as_str().unwrap());
    browser.get(&unused).await.shows("No activity in this period").shows("Never used");
    for _ in 0..2 {
        server.anonymous().exchange(&agent.raw_key).await.expect(200);
        server.anonymous().exchange(&other.raw_key).await.expect(200);
    }
    server.admin.post_empty(&format!("/agents/{}/suspend", agent.id)).await.expect(200);
    server.anonymous().exchange(&agent.raw_key).await.expect(403);
    for (range, text) in [("24h", "24 hours"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days")] {
        let page = browser.get(&format!("{path}?range={range}")).await.expect(200);
        page.shows(&format!("last {text}")).shows("Issued <strong>3</strong>").shows("Refused <strong>1</strong>");
        page.shows(&format!("href=\"{path}?range=90d\""));
    }
    browser.get(&path).await.shows("Last used").shows(&format!("/console/audit?actor={}", agent.id));
    // A capability that was never used says so, and one that was used shows when.
    server.grant(other.id.as_str(), "agents:read").await;
    let path_of_other = format!("/console/agents/{}", other.id);
    let never = async || {
        let page = browser.get(&path_of_other).await;
        page.text.matches("data-label=\"Last used\"><span class=\"muted\">Never").count()
    };
    server.save_usage().await;
    assert_eq!(never().await, 1, "the key was used, the capability was not");
    server.anonymous().login(&other.raw_key).await.get("/agents").await.expect(200);
    server.save_usage().await;
    assert_eq!(never().await, 0);
    browser.get(&format!("{path}?range=1y")).await.expect(422);
}

async fn deleted_agent_keeps_its_name_and_records(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("short-lived", &["agents:read"]).await;
    let path = format!("/console/agents/{}", agent.id);
    let browser = server.signed_in("zoe", Role::Operator).await;
    agent.client.get("/agents").await.expect(200);
    browser.post(&format!("{path}/delete"), &[("confirm", "short-lived")]).await.redirects_to("/console/agents");
    browser.get("/console/agents").await.shows("short-lived deleted").shows("View its records");
    let record = &server.audited("agent.deleted").await[0];
    for page in [path.clone(), format!("{path}/timeline")] {
        let page = browser.get(&page).await.expect(410);
        page.shows("short-lived").shows("This agent was deleted").shows("by zoe").shows("capability.granted");
        page.shows(&format!("/console/audit/{}", record["seq"]));
        assert!(!page.text.contains(&format!("action=\"{path}/")), "nothing can be done to it");
    }
    // Its records still link to it, and nothing else was ever there.
    browser.get("/console/audit?action=agent.deleted").await.shows(&path);
    browser.get(&format!("/console/agents/{ID}")).await.expect(404).shows("Not found");
}

async fn long_names_and_hostile_texts_are_shown_whole(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let name = "n".repeat(128);
    let owner = "<script>alert(1)</script> \u{5e6}\u{5d5}\u{5d5}\u{5ea}";
    let form = [("name", name.as_str()), ("owner", owner), ("agent_type", "llm")];
    let path = browser.post("/console/agents", &form).await.expect(303).location().to_owned();
    for rest in ["", "/keys", "/tokens", "/grants", "/timeline", "/connect", "/edit", "/suspend", "/delete"] {
        let page = browser.get(&format!("{path}{rest}")).await.expect(200);
        let heading = page.text.split("<h1").nth(1).unwrap().split("</h1>").next().unwrap().to_owned();
        assert!(heading.contains(&name) && heading.contains("wrap") && !heading.contains("clip"), "{rest}: {heading}");
        assert!(!page.text.contains("<script>alert"), "{rest}");
    }
}

async fn change_of_owner_can_be_undone(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let path = format!("/console/agents/{}", agent.id);
    let owner = async |browser: &Browser| browser.get(&path).await.expect(200);
    browser.post(&path, &[("owner", "mail-team"), ("agent_type", "tool")]).await.redirects_to(&path);
    let page = owner(&browser).await;
    page.shows("Its owner is now mail-team, before it was tests").shows("name=\"owner\" value=\"tests\"").shows("Undo");
    browser.post(&path, &[("owner", "tests")]).await.redirects_to(&path);
    let agent = server.admin.get(&format!("/agents/{}", agent.id)).await.expect(200);
    assert_eq!((&agent["owner"], &agent["agent_type"]), (&json!("tests"), &json!("tool")));
}
