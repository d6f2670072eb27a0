//! Two daily jobs on many agents, by their number of clicks: suspending all agents of an owner, and granting a
//! capability to thirty.

use serde_json::json;

use super::{Chrome, Display, in_browser, keyboard::Keyboard, server, signed_in_owner};
use crate::support::Server;

in_browser!(
    an_owners_agents_are_suspended_in_four_clicks,
    an_owners_agents_are_suspended_by_keyboard,
    an_owners_agents_are_suspended_without_scripts,
    a_capability_is_granted_to_thirty_agents_in_four_clicks,
    a_capability_is_granted_to_thirty_agents_without_scripts,
    rows_are_selected_with_shift_and_by_keyboard,
);

const NO_SCRIPTS: Display = Display { scripts: false, ..Display::DEFAULT };

async fn populate(server: &Server) {
    for number in 0..30 {
        let owner = if number < 20 { "mail-team" } else { "platform" };
        let body = json!({ "name": format!("worker-{number:02}"), "owner": owner });
        server.admin.post("/agents", body).await.expect(201);
    }
    server.capability("documents:read").await;
}

/// A browser that counts its clicks.
struct Clicks<'c> {
    chrome: &'c Chrome,
    count: usize,
}

impl Clicks<'_> {
    async fn click(&mut self, css: &str) {
        self.chrome.click(css).await;
        self.count += 1;
    }

    /// Opens the list of agents from the navigation.
    async fn open_agents(&mut self) {
        self.chrome.click_displayed(AGENTS).await;
        self.chrome.wait("#owner").await;
        self.count += 1;
    }
}

async fn suspended(server: &Server) -> i64 {
    server.db.count("SELECT COUNT(*) FROM agents WHERE status = 'suspended'").await
}

const AGENTS: &str = ".nav__link[href='/console/agents']";
const CONFIRM: &str = "#impact .row button";

async fn an_owners_agents_are_suspended_in_four_clicks() {
    let server = server().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let mut clicks = Clicks { chrome: &chrome, count: 0 };
    clicks.open_agents().await;
    clicks.click("#owner").await;
    chrome.press("mail-team").await;
    chrome.wait("form[data-whole='All 20 that match']").await;
    clicks.click("button[value=suspend]").await;
    chrome.wait_for_text("20 of 20 will change").await;
    chrome.wait_for_text("API keys that stop working").await;
    clicks.click(CONFIRM).await;
    chrome.wait_for_text("20 agents suspended.").await;
    assert_eq!((clicks.count, suspended(&server).await), (4, 20));
    assert!(chrome.path().await.contains("owner=mail-team"), "the filter stays");
    // One more click undoes it.
    chrome.click("form[action='/console/agents/bulk/undo'] button").await;
    chrome.wait_for_text("Undone: 20 agents reactivated.").await;
    assert_eq!(suspended(&server).await, 0);
    assert!(chrome.path().await.contains("owner=mail-team"), "the filter stays");
    chrome.assert_no_errors().await;
}

async fn an_owners_agents_are_suspended_by_keyboard() {
    let server = server().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let keyboard = Keyboard::at_overview(&chrome).await;
    keyboard.find("agents", "[data-href='/console/agents']").await;
    chrome.wait_for_path(|path| path == "/console/agents").await;
    keyboard.shortcut("/").await;
    chrome.wait("#q:focus").await;
    keyboard.tab_to("#owner").await;
    chrome.press("mail-team").await;
    chrome.wait("form[data-whole='All 20 that match']").await;
    keyboard.enter("button[value=suspend]").await;
    chrome.wait_for_text("20 of 20 will change").await;
    chrome.wait_for_text("API keys that stop working").await;
    keyboard.skip_to_content().await;
    keyboard.enter(CONFIRM).await;
    chrome.wait_for_text("20 agents suspended.").await;
    assert_eq!(suspended(&server).await, 20);
    keyboard.skip_to_content().await;
    keyboard.enter("form[action='/console/agents/bulk/undo'] button").await;
    chrome.wait_for_text("Undone: 20 agents reactivated.").await;
    assert_eq!(suspended(&server).await, 0);
    // 5 to the owner, up to 30 stops in the filters and the head of the table, 3 in each of the 20 rows, 1 to see the
    // preview, up to 8 to confirm, and up to 6 to undo.
    keyboard.assert_at_most(5 + 30 + 3 * 20 + 1 + 8 + 6);
    chrome.assert_no_errors().await;
}

async fn an_owners_agents_are_suspended_without_scripts() {
    let server = server().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, NO_SCRIPTS).await;
    chrome.goto("/console/agents").await;
    chrome.fill("#owner", "mail-team\n").await;
    chrome.wait_for_text("The selected agents, or if none is selected: All 20 that match").await;
    chrome.click("button[value=suspend]").await;
    chrome.wait_for_text("20 of 20 will change").await;
    chrome.click(CONFIRM).await;
    chrome.wait_for_text("20 agents suspended.").await;
    assert_eq!(suspended(&server).await, 20);
    chrome.click("form[action='/console/agents/bulk/undo'] button").await;
    chrome.wait_for_text("Undone: 20 agents reactivated.").await;
    assert_eq!(suspended(&server).await, 0);
}

async fn granted(server: &Server) -> i64 {
    server
        .db
        .count(
            "SELECT COUNT(*) FROM agent_capabilities \
             WHERE capability_id = (SELECT id FROM capabilities WHERE name = 'documents:read')",
        )
        .await
}

async fn a_capability_is_granted_to_thirty_agents_in_four_clicks() {
    let server = server().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let mut clicks = Clicks { chrome: &chrome, count: 0 };
    clicks.open_agents().await;
    // The list contains the administrator as well, who already holds everything.
    clicks.click("[data-all]").await;
    clicks.click("button[value=grant]").await;
    // The field has the focus, so the name is typed without a click.
    chrome.wait("#target:focus").await;
    chrome.press("documents:read").await;
    chrome.wait_for_text("31 of 31 will change").await;
    clicks.click(CONFIRM).await;
    chrome.wait_for_text("documents:read granted to 31 agents.").await;
    assert_eq!((clicks.count, granted(&server).await), (4, 31));
    chrome.click("form[action='/console/agents/bulk/undo'] button").await;
    chrome.wait_for_text("Undone: 31 agents no longer hold the capability.").await;
    assert_eq!(granted(&server).await, 0);
    chrome.assert_no_errors().await;
}

async fn a_capability_is_granted_to_thirty_agents_without_scripts() {
    let server = server().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, NO_SCRIPTS).await;
    chrome.goto("/console/agents?q=worker").await;
    chrome.click("button[value=grant]").await;
    chrome.fill("#target", "documents:read").await;
    chrome.click(CONFIRM).await;
    chrome.wait_for_text("30 of 30 will change").await;
    chrome.click(CONFIRM).await;
    chrome.wait_for_text("documents:read granted to 30 agents.").await;
    assert_eq!(granted(&server).await, 30);
}

async fn rows_are_selected_with_shift_and_by_keyboard() {
    let server = server().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console/agents?sort=name").await;
    chrome.wait("html[data-js]").await;
    assert_eq!(chrome.count("[data-bulk-bar][hidden]").await, 1, "nothing is selected");
    let script = "const boxes = document.querySelectorAll('input[name=id]');
        boxes[2].dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true }));
        boxes[6].dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true, shiftKey: true }));";
    chrome.run(script).await;
    chrome.wait_for_text("5 selected").await;
    chrome.run("document.querySelectorAll('a.table__name')[10].focus()").await;
    chrome.press("x").await;
    chrome.wait_for_text("6 selected").await;
    chrome.press("x").await;
    chrome.wait_for_text("5 selected").await;
    // The bar does not cover the row that has the focus.
    let covered = "document.querySelectorAll('a.table__name')[18].focus();
        const row = document.activeElement.getBoundingClientRect();
        const bar = document.querySelector('[data-bulk-bar]').getBoundingClientRect();
        return row.bottom > bar.top && row.top < bar.bottom";
    assert_eq!(chrome.run(covered).await, json!(false));
    chrome.assert_no_errors().await;
}
