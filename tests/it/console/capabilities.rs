//! Capabilities in the console: who holds one, granting it to many agents, and what removing it breaks.

use aims::domain::Role;
use serde_json::json;

use crate::{
    both,
    support::{Browser, Database, Page, Server, details},
};

both!(
    list_is_searched_and_shows_when_a_capability_was_last_used,
    holders_are_filtered_paged_and_exported,
    many_agents_get_a_capability_after_a_confirmation_with_numbers,
    a_selection_that_changed_is_confirmed_again,
    agents_that_were_not_shown_do_not_get_a_capability,
    agents_that_are_no_longer_selected_are_named,
    owners_are_suggested,
    operators_cannot_grant_to_stronger_agents,
    a_grant_is_revoked_after_its_impact_was_shown_and_can_be_undone,
    a_capability_is_deleted_after_its_impact_was_shown,
    a_capability_with_other_holders_than_shown_is_not_deleted,
    only_owners_delete,
    a_description_is_edited,
);

async fn agents(server: &Server, count: usize, owner: &str) -> Vec<String> {
    let create = |n: usize| {
        let name = format!("{}-{n:03}", owner.trim_start_matches('='));
        let body = json!({ "name": name, "owner": owner });
        async move { server.admin.post("/agents", body).await.expect(201)["id"].as_str().unwrap().to_owned() }
    };
    let mut ids = Vec::with_capacity(count);
    for start in (0..count).step_by(60) {
        ids.extend(futures_util::future::join_all((start..count.min(start + 60)).map(&create)).await);
    }
    ids
}

fn position(page: &Page, text: &str) -> usize {
    page.text.find(text).unwrap_or_else(|| panic!("{text:?} is missing from {}", page.text))
}

async fn list_is_searched_and_shows_when_a_capability_was_last_used(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("ada", Role::Viewer).await;
    let body = json!({ "name": "documents:read", "description": "Reads the Archive" });
    server.admin.post("/capabilities", body).await.expect(201);
    let agent = server.agent("reader", &["documents:read", "agents:read"]).await;
    agent.client.get("/agents").await.expect(200);
    server.save_usage().await;
    for found in ["documents", "READS THE", "archive"] {
        let page = browser.get(&format!("/console/capabilities?q={}", found.replace(' ', "+"))).await.expect(200);
        page.shows("documents:read").shows("Never");
        assert!(!page.text.contains("<code>agents:read</code>"), "{found}");
    }
    browser.get("/console/capabilities?q=a%25").await.expect(200).shows("No matching capabilities");
    let page = browser.get("/console/capabilities?q=agents:read").await.expect(200);
    page.shows("just now").shows("Built in");
}

async fn holders_are_filtered_paged_and_exported(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("ada", Role::Operator).await;
    let id = server.capability("documents:read").await;
    let path = format!("/console/capabilities/{id}");
    browser.get(&path).await.expect(200).shows("No agent holds this capability");
    let mut all = agents(&server, 60, "mail").await;
    all.extend(agents(&server, 3, "=cmd").await.iter().cloned());
    for agent in &all {
        server.grant(agent, "documents:read").await;
    }
    server.admin.post_empty(&format!("/agents/{}/suspend", all[7])).await.expect(200);

    let page = browser.get(&path).await.expect(200);
    page.shows("<dd>63</dd>").shows("rel=\"next\"");
    assert_eq!(page.text.matches("table__name").count(), 50);
    let page = browser.get(&format!("{path}?status=suspended")).await.expect(200);
    page.shows("mail-007").shows("Status</span>").shows("Clear filters");
    assert_eq!(page.text.matches("table__name").count(), 1);
    let page = browser.get(&format!("{path}?q=MAIL-01&owner=mail")).await.expect(200);
    assert_eq!(page.text.matches("table__name").count(), 10);
    browser.get(&format!("{path}?owner=nobody")).await.expect(200).shows("No matching agents");
    browser.get(&format!("{path}?status=gone")).await.expect(422);

    let export = browser.get(&format!("{path}/export?owner=mail")).await.expect(200);
    assert_eq!(export.headers["content-type"], "text/csv; charset=utf-8");
    assert_eq!(export.text.lines().count(), 61, "{}", export.text);
    let export = browser.get(&format!("{path}/export")).await.expect(200);
    assert_eq!(export.text.lines().count(), 64);
    assert!(export.text.starts_with("agent_id,name,owner,status,granted_at,last_used_at\r\n"));
    export.shows("\"'=cmd\"").shows(",suspended,");
}

/// Confirms what a page shows.
async fn confirm(browser: &Browser, path: &str, form: &[(&str, &str)], page: &Page) -> Page {
    let (seen, expected) = (page.hidden("seen"), page.hidden("expected"));
    let form: Vec<_> = form.iter().copied().chain([("seen", seen.as_str()), ("expected", &expected)]).collect();
    browser.post(&format!("{path}/grants/apply"), &form).await
}

async fn many_agents_get_a_capability_after_a_confirmation_with_numbers(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("ada", Role::Operator).await;
    let id = server.capability("documents:read").await;
    let (path, ids) = (format!("/console/capabilities/{id}"), agents(&server, 30, "mail").await);
    server.grant(&ids[0], "documents:read").await;
    server.grant(&ids[1], "documents:read").await;
    let pasted = format!("mail-000\r\nmail-001\r\n{}, mail-003;mail-003\r\n nobody\r\n{}", ids[2], ids[2]);
    let page = browser.post(&format!("{path}/grants"), &[("agents", &pasted)]).await.expect(200);
    page.shows("to 2 agents?").shows("2 agents already hold it").shows("1 entry is neither").shows("nobody");
    confirm(&browser, &path, &[("agents", &page.hidden("agents"))], &page).await.redirects_to(&path);
    let link = format!("<bdi>documents:read granted to 2 agents.</bdi> <a class=\"wrap\" href=\"{path}\">");
    browser.get(&path).await.shows(&link);

    // All that match, from the list, which keeps its filters.
    let list = browser.get(&format!("{path}/grants?owner=mail")).await.expect(200);
    assert_eq!(list.text.matches("Holds it").count(), 4);
    assert_eq!(list.text.matches("name=\"id\"").count(), 26);
    let form = [("from", "list"), ("owner", "mail"), ("all", "matching")];
    let page = browser.post(&format!("{path}/grants"), &form).await.expect(200);
    page.shows("to 26 agents?").shows("4 agents already hold it").shows("and 16 more");
    page.shows(&format!("{path}/grants?owner=mail"));
    confirm(&browser, &path, &form, &page).await.redirects_to(&path);
    assert_eq!(
        server
            .audited("capability.granted")
            .await
            .iter()
            .filter(|r| details(r)["capability"] == "documents:read")
            .count(),
        30
    );
    // A double submit changes nothing.
    confirm(&browser, &path, &form, &page).await.expect(409).shows("Nothing was granted");

    let page = browser.post(&format!("{path}/grants"), &[("agents", " ")]).await;
    page.redirects_to(&path);
    browser.get(&path).await.shows("Select at least one agent");
    let page = browser.post(&format!("{path}/grants"), &[("agents", "mail-000")]).await.expect(200);
    page.shows("Nothing to grant");
    assert!(!page.text.contains("grants/apply"));
}

async fn a_selection_that_changed_is_confirmed_again(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("ada", Role::Operator).await;
    let id = server.capability("documents:read").await;
    let (path, ids) = (format!("/console/capabilities/{id}"), agents(&server, 3, "mail").await);
    let form = [("id", ids[0].as_str()), ("id", &ids[1]), ("id", &ids[2])];
    let page = browser.post(&format!("{path}/grants"), &form).await.expect(200);
    page.shows("to 3 agents?");
    server.admin.delete(&format!("/agents/{}", ids[0])).await.expect(204);
    server.grant(&ids[1], "documents:read").await;
    let page = confirm(&browser, &path, &form, &page).await.expect(409);
    page.shows("The selected agents have changed. Nothing was granted.").shows("to 1 agent?");
    page.shows("<p>mail-001: already holds the capability.</p>").shows("<p>1 agent no longer exists: mail-000.</p>");
    page.shows("1 agent already holds it").shows("1 entry is neither");
    let held = server.admin.get(&format!("/agents/{}/capabilities", ids[2])).await.expect(200);
    assert_eq!(held, json!([]));
}

async fn holds_nothing(server: &Server, agent: &str) -> bool {
    server.admin.get(&format!("/agents/{agent}/capabilities")).await.expect(200) == json!([])
}

async fn create(server: &Server, name: &str, owner: &str) -> String {
    let agent = server.admin.post("/agents", json!({ "name": name, "owner": owner })).await.expect(201);
    agent["id"].as_str().unwrap().to_owned()
}

async fn agents_that_were_not_shown_do_not_get_a_capability(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("ada", Role::Operator).await;
    let id = server.capability("documents:read").await;
    let (path, ids) = (format!("/console/capabilities/{id}"), agents(&server, 3, "mail").await);
    let form = [("from", "list"), ("owner", "mail"), ("all", "matching")];
    let page = browser.post(&format!("{path}/grants"), &form).await.expect(200);
    page.shows("to 3 agents?");
    // As many agents as before, but not the same.
    server.grant(&ids[0], "documents:read").await;
    let late = create(&server, "late", "mail").await;
    let again = confirm(&browser, &path, &form, &page).await.expect(409);
    again.shows("Nothing was granted").shows("to 3 agents?").shows("mail-000: already holds the capability.");
    again.shows("1 agent would change in addition: late.");
    for agent in [&ids[1], &ids[2], &late] {
        assert!(holds_nothing(&server, agent).await);
    }
    // Without a preview nothing happens, whatever the form says.
    for claim in [("count", "3"), ("seen", ""), ("seen", "3")] {
        let form: Vec<_> = form.into_iter().chain([claim]).collect();
        browser.post(&format!("{path}/grants/apply"), &form).await.expect(409);
    }
    assert!(holds_nothing(&server, &late).await);
    confirm(&browser, &path, &form, &again).await.redirects_to(&path);
    assert!(!holds_nothing(&server, &late).await);
}

async fn agents_that_are_no_longer_selected_are_named(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("ada", Role::Operator).await;
    let id = server.capability("documents:read").await;
    let (path, ids) = (format!("/console/capabilities/{id}"), agents(&server, 4, "mail").await);
    let form = [("from", "list"), ("owner", "mail"), ("all", "matching")];
    let page = browser.post(&format!("{path}/grants"), &form).await.expect(200);
    server.admin.patch(&format!("/agents/{}", ids[0]), json!({ "owner": "other" })).await.expect(200);
    let page = confirm(&browser, &path, &form, &page).await.expect(409);
    page.shows("<p>1 agent no longer matches the filter: mail-000.</p>").shows("to 3 agents?");
    server.admin.patch(&format!("/agents/{}", ids[1]), json!({ "owner": "other" })).await.expect(200);
    server.admin.delete(&format!("/agents/{}", ids[2])).await.expect(204);
    let page = confirm(&browser, &path, &form, &page).await.expect(409);
    page.shows("<p>2 agents no longer match the filter: mail-001, mail-002.</p>").shows("to 1 agent?");
    assert!(holds_nothing(&server, &ids[3]).await);
    // More agents than the page remembers: it says that they changed, without names.
    let many = agents(&server, 201, "many").await;
    let form = [("owner", "many"), ("all", "matching")];
    let page = browser.post(&format!("{path}/grants"), &form).await.expect(200);
    assert_eq!(page.hidden("expected"), "");
    server.admin.delete(&format!("/agents/{}", many[0])).await.expect(204);
    let page = confirm(&browser, &path, &form, &page).await.expect(409);
    page.shows("Nothing was granted").shows("to 200 agents?");
    assert!(!page.text.contains("no longer match"), "{}", page.text);
}

async fn owners_are_suggested(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("ada", Role::Operator).await;
    let id = server.capability("documents:read").await;
    create(&server, "writer", "mail & more").await;
    for list in [format!("/console/capabilities/{id}"), format!("/console/capabilities/{id}/grants")] {
        let page = browser.get(&list).await.expect(200);
        page.shows("list=\"owners\"").shows("hx-get=\"/console/agents/owners\"");
        page.shows("<option value=\"mail &#38; more\">1 agent</option>");
        let page = browser.get(&format!("{list}?owner=nobody")).await.expect(200);
        assert!(!page.text.contains("mail &#38; more"), "{}", page.text);
    }
}

async fn operators_cannot_grant_to_stronger_agents(db: Database) {
    let server = Server::start(db).await;
    let operator = server.signed_in("ada", Role::Operator).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let strong = server.agent("strong", &["admin:*"]).await;
    server.agent("weak", &[]).await;
    let id = server.capability("documents:read").await;
    let path = format!("/console/capabilities/{id}");
    let form = [("agents", "strong weak")];
    let page = operator.post(&format!("{path}/grants"), &form).await.expect(200);
    page.shows("to 1 agent?").shows("so only an owner can change it");
    // Claiming that it is fine does not help.
    let claim = [("agents", "strong weak"), ("seen", "2")];
    operator.post(&format!("{path}/grants/apply"), &claim).await.expect(409);
    let claim = [("agents", "strong"), ("seen", "1")];
    operator.post(&format!("{path}/grants/apply"), &claim).await.expect(409);
    operator.post(&format!("{path}/holders"), &[("agent", "strong")]).await.expect(403);
    let admin = format!("/console/capabilities/{}", server.capability("admin:*").await);
    for form in [[("agents", "weak"), ("seen", "1")], [("agents", "strong"), ("seen", "1")]] {
        operator.post(&format!("{admin}/grants"), &form).await.expect(403);
        operator.post(&format!("{admin}/grants/apply"), &form).await.expect(403);
    }
    operator.get(&format!("{admin}/grants")).await.expect(403);
    let page = operator.get(&format!("{admin}/holders/{}/remove", strong.id)).await.expect(200);
    page.shows("You cannot change the grants of this agent");
    operator.post(&format!("{admin}/holders/{}/remove", strong.id), &[]).await.redirects_to(&admin);
    operator.get(&admin).await.shows("admin:*");
    assert_eq!(server.audited("capability.revoked").await.len(), 0);
    owner.post(&format!("{path}/grants"), &form).await.expect(200).shows("to 2 agents?");
}

async fn a_grant_is_revoked_after_its_impact_was_shown_and_can_be_undone(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("ada", Role::Operator).await;
    let agent = server.agent("worker", &["documents:read", "documents:*"]).await;
    let delegate = server.agent("delegate", &[]).await;
    let body = json!({ "delegate_id": delegate.id });
    server.admin.post(&format!("/agents/{}/delegates", agent.id), body).await.expect(201);
    let id = server.capability("documents:read").await;
    let (path, back) = (format!("/console/capabilities/{id}"), format!("/console/capabilities/{id}?owner=tests"));
    let removal = format!("{path}/holders/{}/remove?owner=tests", agent.id);
    browser.get(&back).await.expect(200).shows(&removal);
    let page = browser.get(&removal).await.expect(200);
    page.shows("which includes this capability")
        .shows("<dt>Active tokens</dt><dd>1</dd>")
        .shows("Agents that may act for it");
    page.shows(&format!("href=\"{back}\""));
    browser.post(&removal, &[]).await.redirects_to(&back);
    let page = browser.get(&back).await.expect(200);
    page.shows("documents:read revoked").shows(&format!("action=\"{path}/holders\"")).shows(">Undo<");
    let undo = page.hidden("agent");
    browser.post(&format!("{path}/holders"), &[("agent", &undo)]).await.redirects_to(&path);
    browser.get(&path).await.shows("documents:read granted.").shows("worker");
    let held = server.admin.get(&format!("/agents/{}/capabilities", agent.id)).await.expect(200);
    assert_eq!(held.as_array().unwrap().len(), 2);
    browser.get(&format!("{path}/holders/{}/remove", delegate.id)).await.expect(404);
}

async fn delete(browser: &Browser, path: &str, name: &str, seen: &str) -> Page {
    browser.post(&format!("{path}/delete"), &[("confirm", name), ("seen", seen)]).await
}

async fn a_capability_is_deleted_after_its_impact_was_shown(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let worker = server.agent("worker", &["documents:read"]).await;
    server.agent("other", &["documents:read"]).await;
    server.agent("wide", &["documents:*"]).await;
    let body = json!({ "delegate_id": server.agent("delegate", &["documents:read"]).await.id });
    server.admin.post(&format!("/agents/{}/delegates", worker.id), body).await.expect(201);
    let resource = json!({ "identifier": "https://mcp.example", "name": "Tools", "scope": "documents:read" });
    server.admin.post("/resources", resource).await.expect(201);
    let id = server.capability("documents:read").await;
    let path = format!("/console/capabilities/{id}");

    let page = browser.get(&format!("{path}/impact")).await.expect(200);
    page.shows(">3 agents</a>").shows("3 of these agents").shows("1 resource.").shows("Tools");
    page.shows("1 delegation.").shows("delegate</a> for").shows("1 agent with").shows("documents:*");
    page.shows("Delete and revoke from 3 agents");
    let seen = page.hidden("seen");
    delete(&browser, &path, "documents:raed", &seen).await.expect(422).shows("Type the name of the capability");
    server.agent("late", &["documents:read"]).await;
    let page = delete(&browser, &path, "documents:read", &seen).await.expect(409);
    page.shows("Nothing was deleted").shows("Delete and revoke from 4 agents");
    delete(&browser, &path, "documents:read", &page.hidden("seen")).await.redirects_to("/console/capabilities");
    browser.get("/console/capabilities").await.shows("documents:read deleted. 4 agents lost it");
    browser.get(&path).await.expect(404);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM resources WHERE scope = ''").await, 1);
    let page = browser.get(&format!("/console/capabilities/{}/impact", server.capability("agents:read").await)).await;
    page.expect(200).shows("AIMS itself checks this capability");
}

async fn a_capability_with_other_holders_than_shown_is_not_deleted(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let ids = agents(&server, 2, "mail").await;
    server.grant(&ids[0], "documents:read").await;
    let register = async |number: usize| {
        let identifier = format!("https://mcp-{number}.example");
        let body = json!({ "identifier": identifier, "name": "Tools", "scope": "documents:read" });
        server.admin.post("/resources", body).await.expect(201)["id"].as_str().unwrap().to_owned()
    };
    let resource = register(1).await;
    let id = server.capability("documents:read").await;
    let path = format!("/console/capabilities/{id}");
    let page = browser.get(&format!("{path}/impact")).await.expect(200);
    page.shows("Delete and revoke from 1 agent").shows("1 resource.");
    // As many agents as before, but another one.
    server.admin.delete(&format!("/agents/{}/capabilities/{id}", ids[0])).await.expect(204);
    server.grant(&ids[1], "documents:read").await;
    let page = delete(&browser, &path, "documents:read", &page.hidden("seen")).await.expect(409);
    page.shows("Nothing was deleted").shows("Delete and revoke from 1 agent");
    // As many resources, but another one.
    server.admin.delete(&format!("/resources/{resource}")).await.expect(204);
    register(2).await;
    let page = delete(&browser, &path, "documents:read", &page.hidden("seen")).await.expect(409);
    page.shows("Nothing was deleted").shows("1 resource.");
    delete(&browser, &path, "documents:read", "1-1").await.expect(409);
    assert!(!holds_nothing(&server, &ids[1]).await);
    assert!(server.audited("capability.deleted").await.is_empty());
    delete(&browser, &path, "documents:read", &page.hidden("seen")).await.redirects_to("/console/capabilities");
    assert!(holds_nothing(&server, &ids[1]).await);
}

async fn only_owners_delete(db: Database) {
    let server = Server::start(db).await;
    let id = server.capability("documents:read").await;
    server.agent("worker", &["documents:read"]).await;
    let path = format!("/console/capabilities/{id}");
    for (name, role) in [("vic", Role::Viewer), ("ada", Role::Operator)] {
        let browser = server.signed_in(name, role).await;
        let page = browser.get(&format!("{path}/impact")).await.expect(200);
        page.shows(">1 agent</a>").shows("Only an owner can delete a capability");
        assert!(!page.text.contains("name=\"confirm\""));
        delete(&browser, &path, "documents:read", "1-0").await.expect(403);
        browser.post(&path, &[("description", "mine")]).await.expect(403);
    }
    let owner = server.signed_in("zoe", Role::Owner).await;
    let admin = format!("/console/capabilities/{}", server.capability("admin:*").await);
    let page = delete(&owner, &admin, "admin:*", "1-0").await.expect(422);
    assert!(position(&page, "AIMS itself checks this capability") > 0);
    owner.get(&path).await.expect(200);
    assert_eq!(server.audited("capability.deleted").await.len(), 0);
}

async fn a_description_is_edited(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let path = format!("/console/capabilities/{}", server.capability("documents:read").await);
    browser.post(&path, &[("description", "Reads <documents>\r\nof the team")]).await.redirects_to(&path);
    let link = format!("<bdi>Description of documents:read saved.</bdi> <a class=\"wrap\" href=\"{path}\">");
    browser.get(&path).await.shows(&link).shows("Reads &#60;documents&#62;");
    browser.post(&path, &[("description", &"x".repeat(2_001))]).await.expect(422);
}
