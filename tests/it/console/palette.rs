//! The search of the whole console, as the palette and as a page.

use aims::domain::Role;
use serde_json::json;

use crate::{
    both,
    support::{Browser, Database, Page, Server},
};

both!(
    agents_are_found_by_name_id_and_with_typing_errors,
    keys_capabilities_people_resources_and_records_are_found,
    actions_are_offered_by_name,
    actions_need_the_role,
    a_whole_key_is_never_part_of_a_url,
);

async fn search(browser: &Browser, text: &str) -> Page {
    let query = serde_urlencoded::to_string([("q", text)]).unwrap();
    let page = browser.get(&format!("/console/search?{query}")).await.expect(200);
    let palette = browser.get(&format!("/console/palette?{query}")).await.expect(200);
    for link in links(&page) {
        palette.shows(&format!("data-href=\"{link}\""));
    }
    page
}

/// The results of the search page.
fn links(page: &Page) -> Vec<&str> {
    let found = page.text.split("<a class=\"results__link\" href=\"").skip(1);
    found.map(|rest| rest.split('"').next().unwrap()).collect()
}

async fn finds(browser: &Browser, text: &str, path: &str) {
    let page = search(browser, text).await;
    assert!(links(&page).contains(&path), "{text:?} must find {path}, but finds {:?}", links(&page));
}

async fn finds_nothing(browser: &Browser, text: &str, path: &str) {
    let page = search(browser, text).await;
    assert!(links(&page).iter().all(|link| !link.starts_with(path)), "{text:?} finds {:?}", links(&page));
}

async fn agents_are_found_by_name_id_and_with_typing_errors(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("planner-us", &[]).await;
    server.agent("planner-eu", &[]).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let path = format!("/console/agents/{}", agent.id);
    for text in ["planner-us", "PLANNER-US", "planner", "us planner", "plamner-us", "plannerus", &agent.id] {
        finds(&browser, text, &path).await;
    }
    let page = search(&browser, "planner-us").await;
    assert_eq!(links(&page)[0], path, "the exact name comes first");
    finds_nothing(&browser, "printer", "/console/agents/").await;
    // Pages and commands are found with a typing error, too.
    finds(&browser, "capabilites", "/console/capabilities").await;
    finds(&browser, "signign", "/console/signing-keys").await;
    assert!(links(&search(&browser, "").await).contains(&"/console/audit"));
    search(&browser, "'; DROP TABLE agents; --").await.shows("No results");
    search(&browser, "<script>").await.shows("&#60;script&#62;");
    browser.get(&format!("/console/search?q={}", "x".repeat(129))).await.expect(422);
}

async fn keys_capabilities_people_resources_and_records_are_found(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("planner-us", &["documents:read"]).await;
    let capability = server.capability("documents:read").await;
    let new = json!({ "identifier": "https://mcp.example/tools", "name": "Mail tools", "scope": "documents:read" });
    let resource = server.admin.post("/resources", new).await.expect(201)["id"].as_str().unwrap().to_owned();
    let owner = server.signed_in("zoe", Role::Owner).await;
    let viewer = server.signed_in("ada", Role::Viewer).await;
    let keys = format!("/console/agents/{}/keys", agent.id);
    let prefix = &agent.raw_key[..13];
    for text in [prefix, &format!("{prefix}…"), &prefix[..10], &agent.key_id] {
        let page = search(&viewer, text).await;
        assert!(links(&page).iter().any(|link| link.starts_with(&keys)), "{text}: {:?}", links(&page));
        page.shows(prefix);
    }
    finds(&viewer, "documents:read", &format!("/console/capabilities/{capability}")).await;
    finds(&viewer, "documnets", &format!("/console/capabilities/{capability}")).await;
    finds(&viewer, &capability, &format!("/console/capabilities/{capability}")).await;
    finds(&viewer, "mail tools", &format!("/console/resources/{resource}")).await;
    finds(&viewer, "mcp.example", &format!("/console/resources/{resource}")).await;
    let person = server.db.texts("SELECT username FROM administrators").await;
    assert_eq!(person.len(), 2);
    assert!(links(&search(&owner, "ada").await).iter().any(|link| link.starts_with("/console/administrators/")));
    finds_nothing(&viewer, "zoe", "/console/administrators").await;

    finds(&viewer, "#3", "/console/audit/3").await;
    finds(&viewer, "3", "/console/audit/3").await;
    finds_nothing(&viewer, "#999999", "/console/audit/").await;
    finds_nothing(&viewer, "#0", "/console/audit/").await;
    let request = "0193d6e0-0000-7000-8000-0123456789ab";
    finds(&viewer, request, &format!("/console/audit?request={request}")).await;
}

async fn actions_are_offered_by_name(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("planner-us", &["documents:read"]).await;
    let capability = server.capability("documents:read").await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let path = format!("/console/agents/{}", agent.id);
    let key = format!("{path}/keys/{}", agent.key_id);
    for (text, act) in [
        ("suspend planner-us", "/suspend"),
        ("susp planner", "/suspend"),
        ("suspnd planner", "/suspend"),
        ("Revoke planner-us", "/revoke"),
        ("delete planner-us", "/delete"),
        ("edit planner-us", "/edit"),
        ("grant planner-us", "/grants"),
        ("grant documents:read to planner-us", "/grants"),
        // All acts are offered for the agent that is meant.
        ("planner-us", "/suspend"),
    ] {
        finds(&browser, text, &format!("{path}{act}")).await;
    }
    finds(&browser, "rotate planner-us", &format!("{key}/rotate")).await;
    finds(&browser, &format!("revoke {}", &agent.raw_key[..13]), &format!("{key}/revoke")).await;
    finds(&browser, "grant documents:read", &format!("/console/capabilities/{capability}")).await;
    let suspend = format!("{path}/suspend");
    server.admin.post_empty(&format!("/agents/{}/suspend", agent.id)).await.expect(200);
    let page = search(&browser, "suspend planner-us").await;
    assert!(!links(&page).contains(&suspend.as_str()), "it is suspended already: {:?}", links(&page));
    search(&browser, "reactivate planner-us").await.shows("Reactivate planner-us");
}

async fn actions_need_the_role(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("planner-us", &[]).await;
    let viewer = server.signed_in("ada", Role::Viewer).await;
    for text in ["suspend planner-us", "planner-us", "rotate planner-us", "create", "grant planner-us"] {
        let page = search(&viewer, text).await;
        for link in links(&page) {
            assert!(!link.starts_with(&format!("/console/agents/{}/", agent.id)) && !link.ends_with("/new"), "{link}");
        }
    }
    assert!(server.audited("authz.denied").await.is_empty(), "what a search leaves out is not an attempt");
}

async fn a_whole_key_is_never_part_of_a_url(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("planner-us", &[]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let answer = browser.post("/console/search", &[("leaked_key", &agent.raw_key)]).await.expect(307);
    assert_eq!(answer.location(), "/console/keys/find", "the browser repeats the form there");
    browser.post("/console/search", &[("leaked_key", "planner us")]).await.redirects_to("/console/search?q=planner+us");
    // A link that somebody made finds the key by its prefix, and the page does not repeat the rest.
    let page = search(&browser, &agent.raw_key).await;
    page.shows(&agent.raw_key[..13]);
    assert!(!page.text.contains(&agent.raw_key[13..]));
    // An expired session keeps what was typed, but no key.
    let page = server.browser().post("/console/search", &[("leaked_key", &agent.raw_key)]).await.expect(401);
    assert!(!page.text.contains(&agent.raw_key[13..]));
}
