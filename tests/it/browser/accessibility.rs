//! Checks every page in light and dark mode, wide and narrow: accessibility, layout and the content security policy.

use std::{fs, path::Path};

use aims::domain::Role;
use serde_json::{Value, json};

use super::{
    Chrome, Display, in_browser,
    keyboard::{CTRL_K, ENTER},
    pages::{PAGES_OF_VIEWERS, STATES, populate},
    screenshots, server, sign_in_as, signed_in_owner,
    states::Tour,
};

in_browser!(
    pages_are_accessible_wide_and_light,
    pages_are_accessible_wide_and_dark,
    pages_are_accessible_narrow_and_light,
    pages_are_accessible_narrow_and_dark,
    pages_are_accessible_wide_in_forced_colours,
    pages_are_accessible_narrow_in_forced_colours,
    keyboard_alone_reaches_everything
);

const AXE: &str = include_str!("../../vendor/axe-core/axe.min.js");

async fn pages_are_accessible_wide_and_light() {
    check_every_page(Display::DEFAULT).await;
}

async fn pages_are_accessible_wide_and_dark() {
    check_every_page(Display { dark: true, ..Display::DEFAULT }).await;
}

async fn pages_are_accessible_narrow_and_light() {
    check_every_page(Display { width: 320, ..Display::DEFAULT }).await;
}

async fn pages_are_accessible_narrow_and_dark() {
    check_every_page(Display { dark: true, width: 320, ..Display::DEFAULT }).await;
}

async fn pages_are_accessible_wide_in_forced_colours() {
    check_every_page(Display { forced_colours: true, ..Display::DEFAULT }).await;
}

async fn pages_are_accessible_narrow_in_forced_colours() {
    check_every_page(Display { forced_colours: true, width: 320, ..Display::DEFAULT }).await;
}

async fn check_every_page(display: Display) {
    let server = server().await;
    let stranger = Chrome::start(&server.url, display).await;
    for (place, path) in [("setup", super::setup_path(&server).await), ("sign-in", "/console/sign-in".to_owned())] {
        stranger.goto(&path).await;
        check(&stranger, place, display).await;
    }
    drop(stranger);

    // Afterwards, because a setup link needs a server without administrators.
    let shown = populate(&server).await;
    let chrome = signed_in_owner(&server, display).await;
    for (name, place, path) in shown.pages() {
        chrome.goto(&path).await;
        check(&chrome, place, display).await;
        save_screenshot(&chrome, name, display).await;
    }
    for (path, click, appears) in STATES {
        chrome.goto(&shown.path(path)).await;
        chrome.run(&format!("document.querySelector({click:?}).click()")).await;
        chrome.wait(appears).await;
        check(&chrome, &format!("{click} on {path}"), display).await;
        if click.contains("palette") {
            save_screenshot(&chrome, "palette", display).await;
        }
    }
    // Forms ask for the password if the last sign-in is a while ago.
    switch_to(&chrome, "zoe").await;
    Tour { chrome: &chrome, server: &server, shown: &shown, display }.check_states().await;

    server.person("vera", Role::Viewer).await;
    switch_to(&chrome, "vera").await;
    for path in PAGES_OF_VIEWERS {
        chrome.goto(&shown.path(path)).await;
        check(&chrome, &format!("{path} as viewer"), display).await;
    }
}

/// Signs in anew in the same browser.
async fn switch_to(chrome: &Chrome, username: &str) {
    chrome.cdp("Network.clearBrowserCookies", json!({})).await;
    sign_in_as(chrome, username).await;
}

/// Checks a page, and saves a screenshot of it if screenshots of all pages are wanted.
pub(super) async fn check(chrome: &Chrome, place: &str, display: Display) {
    assert_accessible(chrome, place, display).await;
    screenshots::save(chrome, place, display).await;
}

async fn assert_accessible(chrome: &Chrome, place: &str, display: Display) {
    let script = format!(
        "const done = arguments[arguments.length - 1];
         {AXE};
         // Elements that are still fading in have too little contrast.
         const moving = document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime !== Infinity);
         const still = Promise.allSettled(moving.map((one) => one.finished));
         still.then(() => axe.run({{ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'] }})).then((found) => done({{
             violations: found.violations.map((one) => one.id + ': ' + one.nodes.map((node) => node.target + ' ' + node.failureSummary).join(' | ')),
             passes: found.passes.length,
             beyond: document.documentElement.scrollWidth - innerWidth,
             sideways: [...document.querySelectorAll('.table-wrap')].filter((table) => table.scrollWidth > table.clientWidth).map((table) => table.ariaLabel ?? table.getAttribute('aria-labelledby')),
             frames: document.querySelectorAll('[style], script:not([src]), style').length,
         }}), (error) => done({{ violations: [String(error)] }}));"
    );
    let found: Value = chrome.run_async(&script).await;
    assert_eq!(found["violations"], json!([]), "{place}, {display:?}");
    assert!(found["passes"].as_i64().unwrap() > 5, "axe checked nothing: {found}");
    assert!(found["beyond"].as_i64().unwrap() <= 0, "{place} overflows {} px by {}", display.width, found["beyond"]);
    if display.width < 500 {
        assert_eq!(found["sideways"], json!([]), "a table of {place} must not be wider than a phone");
    }
    assert_eq!(found["frames"], 0, "{place} contains an inline style or script");
    chrome.assert_no_errors().await;
}

/// Saves a screenshot if the README's are being regenerated.
pub(super) async fn save_screenshot(chrome: &Chrome, name: &str, display: Display) {
    let Ok(folder) = std::env::var("AIMS_SCREENSHOTS") else { return };
    if name.is_empty() || display.width < 500 || display.forced_colours {
        return;
    }
    let colours = if display.dark { "dark" } else { "light" };
    fs::create_dir_all(&folder).unwrap();
    fs::write(Path::new(&folder).join(format!("{name}-{colours}.png")), chrome.screenshot().await).unwrap();
}

async fn keyboard_alone_reaches_everything() {
    let server = server().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let clicks = chrome.clicks();
    chrome.goto("/console/agents").await;
    chrome.press("/").await;
    assert_eq!(chrome.run("return document.activeElement.id").await, "q");
    chrome.press("deploy").await;
    chrome.wait_for_path(|path| path == "/console/agents?q=deploy").await;
    assert_eq!(chrome.count("a.table__name").await, 1);
    assert_eq!(chrome.run("return document.activeElement.id").await, "q", "the search field must keep the focus");
    chrome.wait_for_text("1 agent").await;

    chrome.press(CTRL_K).await;
    chrome.wait(".palette:modal").await;
    chrome.press("planner").await;
    chrome.wait_for_text("planner").await;
    chrome.wait(".palette [role=option][aria-selected=true][data-href^='/console/agents/']").await;
    chrome.press(ENTER).await;
    chrome.wait_for_path(|path| path.starts_with("/console/agents/")).await;
    chrome.wait_for_text("planner").await;
    assert_eq!(chrome.clicks(), clicks, "the mouse was used");
    chrome.assert_no_errors().await;
}
