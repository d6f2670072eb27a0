//! Creating an agent with capabilities and a key, and copying a working snippet: four clicks from the overview.

use super::{
    Chrome, Display, in_browser,
    keyboard::{ENTER, Keyboard},
    server, signed_in_owner,
};
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

/// Keeps what is copied, as on a host that is reached over plain HTTP.
async fn catch_copies(chrome: &Chrome) {
    chrome.run("document.addEventListener('copy', () => { window.copied = document.activeElement.value; })").await;
    chrome.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })").await;
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
    catch_copies(&chrome).await;
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
    let server = server().await;
    let capability = server.capability("documents:read").await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let keyboard = Keyboard::at_overview(&chrome).await;
    keyboard.find("create agent", "[data-href='/console/agents/new']").await;
    chrome.wait_for_path(|path| path == "/console/agents/new").await;
    chrome.wait("#name:focus").await;
    chrome.press("summariser").await;
    keyboard.tab_to("#owner").await;
    chrome.press("mail-team").await;
    keyboard.tick(&format!("input[value='{capability}']")).await;
    chrome.press(ENTER).await;
    chrome.wait("dialog:modal").await;
    catch_copies(&chrome).await;
    keyboard.enter("[data-copy='snippet-curl']").await;
    chrome.wait_for_text("Copied").await;
    let copied = chrome.run("return window.copied").await;
    use_snippet(&server, copied.as_str().unwrap()).await;
    assert_eq!(held(&server).await, 1);
    // 2 to open the form, up to 4 stops to the capabilities and one for each of at most 12, 2 to choose and submit, and up
    // to 10 stops in the dialog.
    keyboard.assert_at_most(32);
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
