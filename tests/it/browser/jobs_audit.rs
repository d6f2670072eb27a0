//! Daily work with the audit log: what happened and who did it, and an export of what was refused.

use serde_json::json;

use super::{
    Chrome, Display, chrome::downloaded, in_browser, keyboard::Keyboard, server_at_half_past, signed_in_owner,
};
use crate::support::Server;

in_browser!(
    what_happened_is_found_in_two_clicks,
    what_happened_is_found_by_keyboard,
    what_happened_is_found_without_scripts,
    refusals_are_exported_in_three_clicks,
    refusals_are_exported_by_keyboard,
    refusals_are_exported_without_scripts,
    the_record_beside_the_list_works_by_keyboard,
    following_live_does_not_move_what_is_read,
    audit_filters_leave_room_on_a_phone,
);

const PLAIN: Display = Display { scripts: false, ..Display::DEFAULT };

/// A service with an agent that was refused several times and suspended.
async fn busy_server() -> Server {
    let server = server_at_half_past().await;
    let agent = server.agent("planner-us", &[]).await;
    for _ in 0..4 {
        agent.client.get("/agents").await.expect(403);
    }
    let body = json!({ "reason": "key leaked" });
    server.admin.post(&format!("/agents/{}/suspend", agent.id), body).await.expect(200);
    server.save_usage().await;
    server
}

/// Returns the number of the record of what happened.
async fn suspension(server: &Server) -> i64 {
    server.audited("agent.suspended").await[0]["seq"].as_i64().unwrap()
}

/// Waits for the drawer that says what happened and who did it.
async fn wait_for_drawer(chrome: &Chrome, record: i64) {
    chrome.wait(&format!("dialog.drawer[open] [data-record='{record}']")).await;
    chrome.wait_for_text_in("//dialog", "admin suspended planner-us: key leaked").await;
    chrome.wait_for_path(|path| path.contains("from=") && path.contains(&format!("record={record}"))).await;
}

async fn what_happened_is_found_in_two_clicks() {
    let server = busy_server().await;
    let record = suspension(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console").await;
    let before = chrome.clicks();
    // One click on the bar of the hour, one on the row.
    chrome.click("a.chart__bar").await;
    chrome.wait_for_path(|path| path.starts_with("/console/audit?") && path.contains("from=")).await;
    chrome.click(&format!("tr[data-seq='{record}'] .table__event")).await;
    wait_for_drawer(&chrome, record).await;
    assert_eq!(chrome.clicks() - before, 2);
    chrome.assert_no_errors().await;
}

async fn what_happened_is_found_by_keyboard() {
    const ACTIVITY: &str = "section[aria-labelledby=activity]";
    let server = busy_server().await;
    let record = suspension(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let keyboard = Keyboard::at_overview(&chrome).await;
    keyboard.skip_to_content().await;
    // The bars are no stops. The table beneath them has the same links.
    keyboard.enter(&format!("{ACTIVITY} summary")).await;
    chrome.wait(&format!("{ACTIVITY} details[open]")).await;
    keyboard.enter(&format!("{ACTIVITY} tbody tr:has(td a) th a")).await;
    chrome.wait_for_path(|path| path.starts_with("/console/audit?") && path.contains("from=")).await;
    keyboard.skip_to_content().await;
    keyboard.enter(&format!("tr[data-seq='{record}'] a[data-open]")).await;
    wait_for_drawer(&chrome, record).await;
    // On the overview: 2 to skip, up to 20 stops in the head, the checklist and the tiles, and up to 6 to the hour. In the
    // audit log: 2 to skip, up to 34 stops in the filters, the periods and the chart, and 3 in each of up to 3 rows.
    keyboard.assert_at_most(2 + 20 + 6 + 2 + 34 + 3 * 3);
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

const WEEK: &str = "main a[href='/console?range=7d']";
/// How often the most refused agent was refused.
const REFUSED: &str = "section[aria-labelledby=refused] dd a";
const EXPORT: &str = "main a[download][href*='format=csv']";

async fn export(display: Display) {
    let server = busy_server().await;
    let chrome = signed_in_owner(&server, display).await;
    let folder = chrome.download_folder().await;
    chrome.goto("/console").await;
    let before = chrome.clicks();
    chrome.click(WEEK).await;
    chrome.wait_for_path(|path| path == "/console?range=7d").await;
    chrome.click(REFUSED).await;
    chrome.wait_for_path(|path| path.starts_with("/console/audit?")).await;
    let shown = shown_records(&chrome).await;
    chrome.click(EXPORT).await;
    assert_exported(&downloaded(&folder, ".csv").await, &shown);
    assert_eq!(chrome.clicks() - before, 3);
    chrome.assert_no_errors().await;
}

async fn refusals_are_exported_by_keyboard() {
    let server = busy_server().await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let folder = chrome.download_folder().await;
    let keyboard = Keyboard::at_overview(&chrome).await;
    keyboard.skip_to_content().await;
    keyboard.enter(WEEK).await;
    chrome.wait_for_path(|path| path == "/console?range=7d").await;
    keyboard.skip_to_content().await;
    keyboard.enter(REFUSED).await;
    chrome.wait_for_path(|path| path.starts_with("/console/audit?")).await;
    let shown = shown_records(&chrome).await;
    keyboard.skip_to_content().await;
    keyboard.enter(EXPORT).await;
    assert_exported(&downloaded(&folder, ".csv").await, &shown);
    // 2 to skip and up to 4 to the range; again 2 to skip, and up to 44 in the head, the checklist, the tiles, the chart,
    // the kinds, what needs attention and the busiest agents; 2 to skip, and up to 5 to the export.
    keyboard.assert_at_most(2 + 4 + 2 + 44 + 2 + 5);
    chrome.assert_no_errors().await;
}

/// Returns the numbers of the records that a list shows, which are the four refusals.
async fn shown_records(chrome: &Chrome) -> Vec<String> {
    chrome.wait("tr[data-seq]").await;
    let rows = chrome.run("return [...document.querySelectorAll('tr[data-seq]')].map((row) => row.dataset.seq)").await;
    let rows: Vec<_> = rows.as_array().unwrap().iter().map(|row| row.as_str().unwrap().to_owned()).collect();
    assert_eq!(rows.len(), 4, "{rows:?}");
    rows
}

/// Asserts that a file has the records of the screen, in the same order, and nothing else.
fn assert_exported(csv: &str, shown: &[String]) {
    let mut lines = csv.lines();
    let head: Vec<_> = lines.next().unwrap().split(',').collect();
    assert_eq!(head[..4], ["seq", "timestamp", "action", "outcome"], "{csv}");
    let rows: Vec<Vec<_>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), shown, "{csv}");
    for row in rows {
        assert_eq!(row[2..4], ["authz.denied", "failure"], "{csv}");
        assert!(row.contains(&"planner-us"), "{csv}");
    }
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
