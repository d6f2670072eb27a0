//! Jobs with capabilities, counted in clicks, with and without scripts.

use serde_json::json;

use super::{Chrome, Display, in_browser, keyboard::Keyboard, server, signed_in_owner};
use crate::support::Server;

in_browser!(
    granting_to_thirty_agents_takes_four_clicks,
    granting_to_thirty_agents_works_by_keyboard,
    granting_to_thirty_agents_works_without_scripts,
    one_page_shows_what_removing_a_capability_breaks,
    what_removing_a_capability_breaks_is_found_by_keyboard,
    one_page_shows_what_removing_a_capability_breaks_without_scripts,
    thirty_holders_are_a_dense_table,
);

async fn fleet(server: &Server, count: usize) -> Vec<String> {
    let create = |n: usize| {
        let body = json!({ "name": format!("planner-{n:03}"), "owner": "planning-team" });
        async move { server.admin.post("/agents", body).await.expect(201)["id"].as_str().unwrap().to_owned() }
    };
    futures_util::future::join_all((0..count).map(create)).await
}

/// Opens a capability from the overview, as a person does.
async fn open(chrome: &Chrome, display: Display, id: &str) {
    if display.scripts {
        chrome.click_displayed(".sidebar a[href='/console/capabilities']").await;
    } else {
        chrome.goto("/console/capabilities").await;
    }
    chrome.wait_for_path(|path| path == "/console/capabilities").await;
    chrome.click(&format!("a[href='/console/capabilities/{id}']")).await;
    chrome.wait_for_path(|path| path == format!("/console/capabilities/{id}")).await;
}

async fn grant_to_thirty(display: Display) -> usize {
    let server = server().await;
    fleet(&server, 30).await;
    let id = server.capability("documents:read").await;
    let chrome = signed_in_owner(&server, display).await;
    let before = chrome.clicks();
    open(&chrome, display, &id).await;
    let names: Vec<_> = (0..30).map(|n| format!("planner-{n:03}")).collect();
    chrome.fill("#agents", &names.join("\n")).await;
    chrome.click("form[action$='/grants'] button").await;
    chrome.wait_for_text("to 30 agents?").await;
    chrome.click("form[action$='/grants/apply'] button").await;
    chrome.wait_for_text("documents:read granted to 30 agents.").await;
    assert_eq!(chrome.count(".table--holders tbody tr").await, 30);
    chrome.assert_no_errors().await;
    chrome.clicks() - before
}

async fn granting_to_thirty_agents_takes_four_clicks() {
    assert!(grant_to_thirty(Display::DEFAULT).await <= 4);
}

async fn granting_to_thirty_agents_works_by_keyboard() {
    let server = server().await;
    fleet(&server, 30).await;
    let id = server.capability("documents:read").await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let path = format!("/console/capabilities/{id}");
    let keyboard = Keyboard::at_overview(&chrome).await;
    keyboard.find("grant documents:read", &format!("[data-href='{path}']")).await;
    chrome.wait_for_path(|at| at == path).await;
    keyboard.skip_to_content().await;
    keyboard.tab_to("#agents").await;
    let names: Vec<_> = (0..30).map(|n| format!("planner-{n:03}")).collect();
    chrome.press(&names.join("\n")).await;
    keyboard.enter("form[action$='/grants'] button").await;
    chrome.wait_for_text("to 30 agents?").await;
    keyboard.skip_to_content().await;
    keyboard.enter("form[action$='/grants/apply'] button").await;
    chrome.wait_for_text("documents:read granted to 30 agents.").await;
    assert_eq!(chrome.count(".table--holders tbody tr").await, 30);
    // 2 to open the capability, 2 to skip, up to 16 stops to the names, 4 to go on, 2 to skip, and up to 6 to confirm.
    keyboard.assert_at_most(32);
    chrome.assert_no_errors().await;
}

async fn granting_to_thirty_agents_works_without_scripts() {
    grant_to_thirty(Display { scripts: false, ..Display::DEFAULT }).await;
}

/// Creates a capability that is held, delegated and named by a resource; returns its identifier.
async fn capability_in_use(server: &Server) -> String {
    let agent = server.agent("worker", &["documents:read"]).await;
    let delegate = server.agent("delegate", &["documents:read"]).await;
    let body = json!({ "delegate_id": delegate.id });
    server.admin.post(&format!("/agents/{}/delegates", agent.id), body).await.expect(201);
    let resource = json!({ "identifier": "https://mcp.example", "name": "Tools", "scope": "documents:read" });
    server.admin.post("/resources", resource).await.expect(201);
    server.capability("documents:read").await
}

async fn assert_impact_is_shown(chrome: &Chrome) {
    chrome.wait_for_text("What does not change").await;
    let page = chrome.source().await;
    for shown in
        ["2 agents", "2 of these agents", "Last used", "Tools", "1 delegation", "Delete and revoke from 2 agents"]
    {
        assert!(page.contains(shown), "{shown} is missing");
    }
}

async fn what_removing_a_capability_breaks_is_found_by_keyboard() {
    let server = server().await;
    let path = format!("/console/capabilities/{}", capability_in_use(&server).await);
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let keyboard = Keyboard::at_overview(&chrome).await;
    keyboard.find("documents:read", &format!("[data-href='{path}']")).await;
    chrome.wait_for_path(|at| at == path).await;
    keyboard.skip_to_content().await;
    keyboard.enter(".page-head a[href$='/impact']").await;
    assert_impact_is_shown(&chrome).await;
    // 2 to open the capability, 2 to skip, and up to 8 to the link in its head.
    keyboard.assert_at_most(12);
    chrome.assert_no_errors().await;
}

async fn see_what_breaks(display: Display) {
    let server = server().await;
    let id = capability_in_use(&server).await;
    let chrome = signed_in_owner(&server, display).await;
    open(&chrome, display, &id).await;
    chrome.click(".page-head a[href$='/impact']").await;
    assert_impact_is_shown(&chrome).await;
    if display.scripts {
        assert_eq!(chrome.count(".button--danger:disabled").await, 1, "the name must be typed");
    }
    chrome.fill("#confirm", "documents:read").await;
    chrome.click(".button--danger").await;
    chrome.wait_for_text("documents:read deleted. 2 agents lost it").await;
    chrome.assert_no_errors().await;
}

async fn one_page_shows_what_removing_a_capability_breaks() {
    see_what_breaks(Display::DEFAULT).await;
}

async fn one_page_shows_what_removing_a_capability_breaks_without_scripts() {
    see_what_breaks(Display { scripts: false, ..Display::DEFAULT }).await;
}

async fn thirty_holders_are_a_dense_table() {
    let server = server().await;
    for agent in fleet(&server, 30).await {
        server.grant(&agent, "documents:read").await;
    }
    let id = server.capability("documents:read").await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto(&format!("/console/capabilities/{id}")).await;
    let height = chrome.run("return document.querySelector('.table--holders').getBoundingClientRect().height").await;
    assert!(height.as_f64().unwrap() < 31.0 * 48.0, "30 holders are {height} px");
}
