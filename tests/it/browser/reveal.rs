//! The dialog that shows a new key once.

use super::{Display, in_browser, server, signed_in_owner};

in_browser!(dialog_stays_until_done_and_then_the_key_is_gone, key_can_be_copied_without_the_clipboard_api);

const ESCAPE: &str = "\u{E00C}";

/// Everything on the page and in the browser's storage that a script can read.
const READABLE_CONTENT: &str = "
    const fields = [...document.querySelectorAll('input, textarea')].map((field) => field.value);
    return [document.documentElement.outerHTML, location.href, document.cookie, history.state, JSON.stringify(localStorage),
        JSON.stringify(sessionStorage), window.name, ...fields].join('\\n');";

async fn dialog_stays_until_done_and_then_the_key_is_gone() {
    let server = server().await;
    let agent = server.agent("reader", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let keys = format!("/console/agents/{}/keys", agent.id);
    chrome.goto(&keys).await;
    chrome.click("a[href$='/keys/new']").await;
    chrome.fill("#name", "production").await;
    chrome.click("main form.card .button--primary").await;
    chrome.wait("dialog:modal").await;
    let key = chrome.wait("#secret").await.prop("value").await.unwrap().unwrap();
    let visible = chrome.run("return getComputedStyle(document.querySelector('#secret')).webkitTextSecurity").await;
    assert_eq!(visible, "disc", "the key must be masked initially");
    assert!(!chrome.path().await.contains(&key));

    chrome.press(ESCAPE).await;
    chrome.press(ESCAPE).await;
    chrome.click_at(3.0, 3.0).await;
    assert_eq!(chrome.count("dialog[data-reveal]:modal").await, 1, "the dialog must stay open");
    // Done is disabled until the checkbox is checked.
    chrome.click("[data-done]").await;
    assert_eq!(chrome.count("dialog[data-reveal]:modal").await, 1);
    chrome.click("[data-show]").await;
    let visible = chrome.run("return getComputedStyle(document.querySelector('#secret')).webkitTextSecurity").await;
    assert_eq!(visible, "none");
    for snippet in ["snippet-curl", "snippet-python", "snippet-typescript", "snippet-mcp"] {
        let code = chrome.run(&format!("return document.getElementById('{snippet}').textContent")).await;
        assert!(code.as_str().unwrap().contains(&key), "{code}");
    }
    chrome.click("[data-saved]").await;
    chrome.click("[data-done]").await;
    chrome.wait_for_path(|path| path == keys).await;
    chrome.wait_for_text("production").await;

    let nowhere = async |when: &str| {
        let everything = chrome.run(READABLE_CONTENT).await;
        assert!(!everything.as_str().unwrap().contains(&key[13..]), "{when}: {everything}");
    };
    nowhere("after Done").await;
    chrome.reload().await;
    nowhere("after Reload").await;
    chrome.back().await;
    nowhere("after Back").await;
    chrome.run("history.forward()").await;
    chrome.wait_for_path(|path| path == keys).await;
    nowhere("after Forward").await;

    // Leaving the page without Done and coming back does not show the key, and creates no second one.
    chrome.goto(&format!("{keys}/new")).await;
    chrome.fill("#name", "left").await;
    chrome.click("main form.card .button--primary").await;
    let left = chrome.wait("#secret").await.prop("value").await.unwrap().unwrap();
    chrome.goto("/console").await;
    chrome.back().await;
    // The browser asks before it resubmits the form, and no script runs in the page that it shows meanwhile.
    let shown = chrome.source().await;
    assert!(!shown.contains(&left[13..]), "{shown}");
    let created = server.db.count("SELECT COUNT(*) FROM api_keys WHERE name = 'left'").await;
    assert_eq!(created, 1);
}

async fn key_can_be_copied_without_the_clipboard_api() {
    let server = server().await;
    let agent = server.agent("reader", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto(&format!("/console/agents/{}/keys/new", agent.id)).await;
    chrome.fill("#name", "production").await;
    chrome.click("main form.card .button--primary").await;
    let key = chrome.wait("#secret").await.prop("value").await.unwrap().unwrap();
    // As on a host that is reached over plain HTTP.
    chrome.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })").await;
    chrome.run("document.addEventListener('copy', () => { window.copied = getSelection().toString() || document.activeElement.value; })").await;
    chrome.click("[data-copy='secret']").await;
    chrome.wait_for_text("Copied").await;
    assert_eq!(chrome.run("return window.copied").await, key.as_str());
    chrome.assert_no_errors().await;
}
