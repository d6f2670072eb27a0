//! What people do from the overview, in a browser, by pointer and by keyboard, with and without scripts.

use std::cell::Cell;

use super::{Chrome, Display, in_browser, server_at_half_past, signed_in_owner};
use crate::support::Server;

in_browser!(
    an_hour_is_found_with_one_click_on_its_bar,
    an_hour_is_found_by_keyboard,
    an_hour_is_found_without_scripts,
    a_concern_is_dismissed_and_brought_back,
    charts_are_readable_at_every_width
);

/// Counts clicks.
struct Clicks<'c>(&'c Chrome, Cell<usize>);

impl Clicks<'_> {
    async fn click(&self, css: &str) {
        self.1.set(self.1.get() + 1);
        self.0.click(css).await;
    }
}

async fn populate(server: &Server) {
    let agent = server.agent("worker", &[]).await;
    for _ in 0..3 {
        server.anonymous().exchange(&agent.raw_key).await.expect(200);
    }
    for _ in 0..12 {
        server.anonymous().exchange("aims_mistyped").await.expect(401);
    }
}

async fn an_hour_is_found_with_one_click_on_its_bar() {
    let server = server_at_half_past().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let clicks = Clicks(&chrome, Cell::new(0));
    chrome.goto("/console").await;
    let title = chrome.run("return document.querySelector('a.chart__bar:last-of-type title').textContent").await;
    let title = title.as_str().unwrap();
    assert!(title.contains(": Issued ") && title.contains(", Refused "), "the pointer shows the values: {title}");
    clicks.click("a.chart__bar:last-of-type").await;
    chrome.wait_for_path(|path| path.starts_with("/console/audit?")).await;
    let query = chrome.run("return location.search").await;
    assert!(query.as_str().unwrap().contains("from=") && query.as_str().unwrap().contains("until="), "{query}");
    chrome.wait_for_text("auth.failed").await;
    assert_eq!(clicks.1.get(), 1);
    chrome.assert_no_errors().await;
}

async fn an_hour_is_found_by_keyboard() {
    let server = server_at_half_past().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console").await;
    // Bars are no tab stops: a chart of 90 days would have 90. The table has the links.
    assert_eq!(chrome.count(".chart a:not([tabindex='-1'])").await, 0);
    chrome.run("document.querySelector('section[aria-labelledby=activity] summary').focus()").await;
    chrome.press("\u{e007}").await;
    chrome.wait("section[aria-labelledby=activity] details[open]").await;
    chrome.run("document.querySelector('section[aria-labelledby=activity] tbody a').focus()").await;
    chrome.press("\u{e007}").await;
    chrome.wait_for_path(|path| path.starts_with("/console/audit?")).await;
    chrome.wait_for_text("auth.failed").await;
}

async fn an_hour_is_found_without_scripts() {
    let server = server_at_half_past().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, Display { scripts: false, ..Display::DEFAULT }).await;
    chrome.goto("/console?range=7d").await;
    let clicks = Clicks(&chrome, Cell::new(0));
    clicks.click("section[aria-labelledby=activity] summary").await;
    clicks.click("section[aria-labelledby=activity] tbody th a").await;
    chrome.wait_for_path(|path| path.starts_with("/console/audit?")).await;
    chrome.wait_for_text("auth.failed").await;
    assert_eq!(clicks.1.get(), 2);
}

async fn a_concern_is_dismissed_and_brought_back() {
    for scripts in [true, false] {
        let server = server_at_half_past().await;
        populate(&server).await;
        let chrome = signed_in_owner(&server, Display { scripts, ..Display::DEFAULT }).await;
        chrome.goto("/console?range=7d").await;
        let of = |item: &str| format!(".attention form:has(input[value={item}]) button");
        let before = chrome.count(".attention > li").await;
        chrome.click(&of("refused")).await;
        chrome.wait_for_text("Dismissed for a week: refused requests.").await;
        assert_eq!(chrome.count("a.ranges__choice[href$='range=7d'][aria-current]").await, 1, "the range stays");
        assert_eq!(chrome.count(".attention > li").await, before, "it is in the closed list of what is dismissed");
        assert_eq!(chrome.count("section > .attention > li").await, before - 1);
        chrome.click(".notice__undo button").await;
        chrome.wait_for_text("Shown again: refused requests.").await;
        assert_eq!(chrome.count("section > .attention > li").await, before);
        chrome.assert_no_errors().await;
    }
}

async fn charts_are_readable_at_every_width() {
    let server = server_at_half_past().await;
    populate(&server).await;
    for width in [320, 1280] {
        let chrome = signed_in_owner(&server, Display { width, ..Display::DEFAULT }).await;
        for range in ["24h", "7d", "30d"] {
            chrome.goto(&format!("/console?range={range}")).await;
            chrome.wait(".chart__plot").await;
            let script = "const boxes = [...document.querySelectorAll('.chart__plot .chart__label')]
                    .map((text) => text.getBoundingClientRect()).filter((box) => box.width > 0);
                const touching = boxes.some((box, place) => place > 0 && box.left < boxes[place - 1].right + 2);
                const sizes = boxes.map((box) => box.height);
                return [boxes.length, touching, Math.min(...sizes), document.documentElement.scrollWidth];";
            let found = chrome.run(script).await;
            let number = |place: usize| found[place].as_f64().unwrap();
            assert!(number(0) >= 3.0, "{range} at {width}: too few labels: {found}");
            assert_eq!(found[1], false, "{range} at {width}: labels touch: {found}");
            assert!(number(2) >= 10.0, "{range} at {width}: labels are too small: {found}");
            assert!(number(3) <= f64::from(width), "{range} at {width}: the page scrolls sideways: {found}");
        }
    }
}
