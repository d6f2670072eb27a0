//! The API documentation in a real browser: accessible in light and dark mode, wide and narrow, without a script.

use serde_json::Value;

use super::{Chrome, Display, in_browser, screenshots, server};

in_browser!(documentation_is_accessible, documentation_is_read_by_keyboard);

const AXE: &str = include_str!("../../vendor/axe-core/axe.min.js");

async fn documentation_is_accessible() {
    let server = server().await;
    for display in Display::ALL {
        let chrome = Chrome::start(&server.url, display).await;
        chrome.goto("/docs").await;
        assert_accessible(&chrome, &format!("the documentation, {display:?}")).await;
        screenshots::save(&chrome, "docs", display).await;
    }
}

/// Asserts that the page passes axe and fits the window.
pub async fn assert_accessible(chrome: &Chrome, place: &str) {
    let script = format!(
        "const done = arguments[arguments.length - 1];
         {AXE};
         // Elements that are still fading in have too little contrast.
         const moving = document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime !== Infinity);
         const still = Promise.allSettled(moving.map((one) => one.finished));
         still.then(() => axe.run({{ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'] }})).then((found) => done({{
             violations: found.violations.map((one) => one.id + ': ' + one.nodes.slice(0, 5).map((node) => node.target + ' ' + node.failureSummary).join(' | ')),
             passes: found.passes.length,
             beyond: document.documentElement.scrollWidth - innerWidth,
         }}), (error) => done({{ violations: [String(error)] }}));"
    );
    let found: Value = chrome.run_async(&script).await;
    assert_eq!(found["violations"], serde_json::json!([]), "{place}");
    assert!(found["passes"].as_i64().unwrap() > 5, "axe checked nothing: {found}");
    assert!(found["beyond"].as_i64().unwrap() <= 0, "{place} overflows by {}", found["beyond"]);
    chrome.assert_no_errors().await;
}

async fn documentation_is_read_by_keyboard() {
    const TAB: &str = "\u{E004}";
    const ENTER: &str = "\u{E007}";
    let server = server().await;
    let chrome = Chrome::start(&server.url, Display { scripts: false, ..Display::DEFAULT }).await;
    chrome.goto("/docs").await;
    chrome.press(TAB).await;
    chrome.press(ENTER).await;
    chrome.wait_for_path(|path| path == "/docs#main").await;
    chrome.click("nav a[href='#create_agent']").await;
    chrome.wait_for_path(|path| path == "/docs#create_agent").await;
    chrome.wait_for_text("\"$AIMS/api/v1/agents\"").await;
    chrome.assert_no_errors().await;
}
