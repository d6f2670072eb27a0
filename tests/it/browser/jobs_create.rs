//! Creating an agent with capabilities and a key, and copying a working snippet: four clicks from the overview.

use super::{Chrome, Display, in_browser, server, signed_in_owner};
use crate::support::Server;

in_browser!(
    agent_is_created_with_four_clicks,
    agent_is_created_by_keyboard,
    agent_is_created_without_scripts,
    long_names_fit_a_phone,
);

const SUBMIT: &str = "main form.card .button--primary";

async fn fill_names(chrome: &Chrome) {
    chrome.fill("#name", "summariser").await;
    chrome.fill("#owner", "mail-team").await;
}

/// Runs the request of a snippet for curl, which ends with the header.
async fn use_snippet(server: &Server, snippet: &str) {
    let (_, key) = snippet.split_once("X-API-Key: ").unwrap();
    server.anonymous().exchange(key.trim_end_matches(['"', '\n', ' '])).await.expect(200);
}

async fn held(server: &Server) -> i64 {
    server
        .db
        .count(
            "SELECT COUNT(*) FROM agent_capabilities g JOIN agents a ON a.id = g.agent_id WHERE a.name = 'summariser'",
        )
        .await
}

async fn agent_is_created_with_four_clicks() {
    let server = server().await;
    let capability = server.capability("documents:read").await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let mut clicks = 0;
    let mut click = async |css: &str| {
        clicks += 1;
        chrome.click(css).await;
    };
    chrome.goto("/console").await;
    click("a[href='/console/agents/new']").await;
    chrome.wait("#name").await;
    fill_names(&chrome).await;
    click(&format!("input[value='{capability}']")).await;
    click(SUBMIT).await;
    chrome.wait("dialog:modal").await;
    chrome.run("document.addEventListener('copy', () => { window.copied = document.activeElement.value; })").await;
    chrome.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })").await;
    click("[data-copy='snippet-curl']").await;
    chrome.wait_for_text("Copied").await;
    let copied = chrome.run("return window.copied").await;
    use_snippet(&server, copied.as_str().unwrap()).await;
    assert!(clicks <= 4, "{clicks} clicks");
    assert_eq!(held(&server).await, 1);
    chrome.wait(".first-use[data-used]").await;
    chrome.assert_no_errors().await;
}

async fn agent_is_created_by_keyboard() {
    const ENTER: &str = "\u{E007}";
    const TAB: &str = "\u{E004}";
    let server = server().await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console/agents/new").await;
    // The first field has the focus.
    chrome.press("summariser").await;
    chrome.press(TAB).await;
    chrome.press("mail-team").await;
    chrome.press(TAB).await;
    // After the type come the capabilities.
    chrome.press(TAB).await;
    assert_eq!(chrome.run("return document.activeElement.name").await, "capability");
    chrome.press(" ").await;
    chrome.press(ENTER).await;
    chrome.wait("dialog:modal").await;
    let key = chrome.wait("#secret").await.prop("value").await.unwrap().unwrap();
    server.anonymous().exchange(&key).await.expect(200);
    assert_eq!(held(&server).await, 1);
    chrome.assert_no_errors().await;
}

async fn agent_is_created_without_scripts() {
    let server = server().await;
    let capability = server.capability("documents:read").await;
    let chrome = signed_in_owner(&server, Display { scripts: false, ..Display::DEFAULT }).await;
    chrome.goto("/console").await;
    chrome.click("a[href='/console/agents/new']").await;
    chrome.wait("#name").await;
    fill_names(&chrome).await;
    chrome.click(&format!("input[value='{capability}']")).await;
    chrome.click(SUBMIT).await;
    let snippet = chrome.wait("#snippet-curl").await.text().await.unwrap();
    use_snippet(&server, &snippet).await;
    assert_eq!(held(&server).await, 1);
    // Suspending shows its impact on a page of its own.
    chrome.click("[data-done]").await;
    chrome.click("a[href$='/suspend']").await;
    chrome.wait_for_text("This stops 1 API key and 1 active token.").await;
    chrome.fill("#reason", "a test").await;
    chrome.click("form[action$='/suspend'] button").await;
    chrome.wait_for_text("summariser suspended").await;
    chrome.wait_for_text("Blocked: agent suspended").await;
    chrome.click(".notice__undo button").await;
    chrome.wait_for_text("summariser reactivated").await;
    chrome.assert_no_errors().await;
}

async fn long_names_fit_a_phone() {
    let server = server().await;
    let agent = server.agent(&"n".repeat(128), &["agents:read"]).await;
    let chrome = signed_in_owner(&server, Display { width: 320, ..Display::DEFAULT }).await;
    let path = format!("/console/agents/{}", agent.id);
    for rest in ["", "/tokens", "/grants", "/suspend", "/edit"] {
        chrome.goto(&format!("{path}{rest}")).await;
        let fits = "
            const heading = document.querySelector('h1');
            const cut = [...document.querySelectorAll('.tabs__tab')].filter((tab) => tab.getBoundingClientRect().right > innerWidth);
            return heading.scrollWidth <= heading.clientWidth && heading.getBoundingClientRect().right <= innerWidth
                && cut.length === 0 && document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(chrome.run(fits).await, true, "{rest}");
        let tables = "return [...document.querySelectorAll('.table-wrap')].every((table) => table.scrollWidth <= table.clientWidth)";
        assert_eq!(chrome.run(tables).await, true, "a table of {rest} is cut off");
    }
}
