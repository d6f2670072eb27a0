//! Daily work with the audit log: what happened and who did it, and an export of what was refused.

use aims::domain::Role;
use serde_json::json;

use super::{Chrome, Display, in_browser, server, signed_in_owner};
use crate::support::Server;

in_browser!(
    what_happened_is_found_in_two_clicks,
    what_happened_is_found_without_scripts,
    refusals_are_exported_in_three_clicks,
    refusals_are_exported_without_scripts,
    the_record_beside_the_list_works_by_keyboard,
    following_live_does_not_move_what_is_read,
    audit_filters_leave_room_on_a_phone,
);

const PLAIN: Display = Display { scripts: false, ..Display::DEFAULT };

/// A service with an agent that was refused several times and suspended.
async fn busy_server() -> Server {
    let server = server().await;
    let agent = server.agent("planner-us", &[]).await;
    for _ in 0..4 {
        agent.client.get("/agents").await.expect(403);
    }
    let body = json!({ "reason": "key leaked" });
    server.admin.post(&format!("/agents/{}/suspend", agent.id), body).await.expect(200);
    server.save_usage().await;
    server
}

async fn what_happened_is_found_in_two_clicks() {
    let server = busy_server().await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console").await;
    // One click on the bar of the hour, one on the row.
    chrome.click("a.chart__bar").await;
    chrome.wait_for_path(|path| path.starts_with("/console/audit?") && path.contains("from=")).await;
    chrome.click("tr[data-seq] .table__event").await;
    chrome.wait("dialog.drawer[open] [data-record]").await;
    chrome.wait_for_path(|path| path.contains("record=")).await;
    chrome.assert_no_errors().await;
}

async fn what_happened_is_found_without_scripts() {
    let server = busy_server().await;
    let chrome = signed_in_owner(&server, PLAIN).await;
    chrome.goto("/console").await;
    chrome.click("a.chart__bar").await;
    chrome.wait_for_path(|path| path.starts_with("/console/audit?")).await;
    chrome.click("tr[data-seq] a[data-open]").await;
    chrome.wait_for_path(|path| path.starts_with("/console/audit/")).await;
    chrome.wait_for_text("Hash chain").await;
    // Back to the list with its filters.
    chrome.click(".crumbs a").await;
    chrome.wait_for_path(|path| path.starts_with("/console/audit?") && path.contains("from=")).await;
}

async fn refusals_are_exported_in_three_clicks() {
    export(Display::DEFAULT).await;
}

async fn refusals_are_exported_without_scripts() {
    export(PLAIN).await;
}

async fn export(display: Display) {
    let server = busy_server().await;
    let chrome = signed_in_owner(&server, display).await;
    chrome.goto("/console").await;
    // 1: the audit log. The fields are filled with the keyboard.
    chrome.click("main a[href='/console/audit']").await;
    chrome.fill("#agent", "planner-us").await;
    chrome.wait("#outcome").await.select_by_value("failure").await.unwrap();
    chrome.wait("#range").await.select_by_value("7d").await.unwrap();
    // 2: apply, 3: export.
    chrome.click(".audit-filters > .button").await;
    chrome.wait_for_path(|path| path.contains("range=7d") && path.contains("outcome=failure")).await;
    assert_eq!(chrome.count("tr[data-seq]").await, 4);
    let link = chrome.wait("a[download][href*='format=csv']").await.attr("href").await.unwrap().unwrap();
    let browser = server.signed_in("reader", Role::Viewer).await;
    let csv = browser.get(&link).await.expect(200).text;
    assert_eq!(csv.trim_end().lines().count(), 5, "{csv}");
    assert!(csv.contains(",planner-us,"), "{csv}");
}

async fn the_record_beside_the_list_works_by_keyboard() {
    let server = busy_server().await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console/audit?agent=planner-us&outcome=failure").await;
    let shown = "return document.querySelector('dialog.drawer[open] [data-record]')?.dataset.record ?? null";
    let rows = chrome.run("return [...document.querySelectorAll('tr[data-seq]')].map((row) => row.dataset.seq)").await;
    chrome.run("document.querySelector('tr[data-seq] a[data-open]').focus()").await;
    chrome.press("\u{e007}").await;
    wait(&chrome, shown, &rows[0]).await;
    for (key, row) in [("j", 1), ("\u{e014}", 2), ("k", 1), ("\u{e012}", 0), ("j", 1)] {
        chrome.press(key).await;
        wait(&chrome, shown, &rows[row]).await;
    }
    assert!(chrome.path().await.contains(&format!("record={}", rows[1].as_str().unwrap())));
    assert_eq!(chrome.count("tr[data-seq]").await, 4, "the list must stay in place");
    chrome.press("\u{e00c}").await;
    let focused = "return document.activeElement.closest('tr')?.dataset.seq ?? null";
    wait(&chrome, focused, &rows[1]).await;
    assert!(!chrome.path().await.contains("record="));
    // The address leads to the same state.
    chrome.goto(&format!("/console/audit?agent=planner-us&record={}", rows[2].as_str().unwrap())).await;
    wait(&chrome, shown, &rows[2]).await;
    chrome.assert_no_errors().await;
}

async fn following_live_does_not_move_what_is_read() {
    let server = busy_server().await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console/audit?action=agent.created").await;
    let before = chrome.count("tr[data-seq]").await;
    chrome.click("[data-tail-toggle]").await;
    chrome.wait_for_text("Live").await;
    // The first row is being read.
    chrome.run("document.querySelector('tr[data-seq] a[data-open]').focus()").await;
    let place = "return document.activeElement.getBoundingClientRect().top";
    let top = chrome.run(place).await;
    server.agent("first", &[]).await;
    server.agent("second", &[]).await;
    chrome.wait_for_text("Show 2 new records").await;
    assert_eq!(chrome.run(place).await, top);
    assert_eq!(chrome.count("tr[data-seq]").await, before);
    chrome.click("[data-tail-show]").await;
    wait(&chrome, "return document.querySelectorAll('tr[data-seq]').length", &json!(before + 2)).await;
    // The first agent was created by AIMS itself, so its row names no actor.
    let links = chrome.count("a[href*='action=agent.created'][href*='actor=']").await;
    assert_eq!(links, before + 1, "rows keep the filter");
    chrome.assert_no_errors().await;
}

async fn audit_filters_leave_room_on_a_phone() {
    let server = busy_server().await;
    let chrome = signed_in_owner(&server, Display { width: 390, ..Display::DEFAULT }).await;
    chrome.goto("/console/audit").await;
    let height = chrome.run("return document.querySelector('.audit-filters').getBoundingClientRect().height").await;
    assert!(height.as_f64().unwrap() < 260.0, "the filters are {height} px high");
    let width = chrome.run("return document.documentElement.scrollWidth").await;
    assert!(width.as_f64().unwrap() <= 390.0, "{width}");
    assert_eq!(chrome.count("details.more-filters[open]").await, 0);
}

/// Waits until a script returns a value.
async fn wait(chrome: &Chrome, script: &str, expected: &serde_json::Value) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let found = chrome.run(script).await;
        if found == *expected {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{script}: {found} instead of {expected}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
