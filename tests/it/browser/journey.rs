//! From the setup link to a revoked agent, with JavaScript and without.

use super::{Chrome, Look, in_browser, server, setup_path};
use crate::support::PASSWORD;

in_browser!(with_scripts, without_scripts);

async fn with_scripts() {
    journey(Look::PLAIN).await;
}

async fn without_scripts() {
    journey(Look { scripts: false, ..Look::PLAIN }).await;
}

const SUBMIT: &str = "main form.card .button--primary";

async fn journey(look: Look) {
    let server = server().await;
    let chrome = Chrome::start(&server.url, look).await;

    chrome.goto(&setup_path(&server).await).await;
    for (field, text) in
        [("username", "zoe"), ("display_name", "Zoë"), ("new_password", PASSWORD), ("repeat_password", PASSWORD)]
    {
        chrome.fill(&format!("#{field}"), text).await;
    }
    chrome.click("main form:not(.theme) .button--primary").await;
    chrome.wait_for_path(|path| path == "/console").await;
    chrome.wait_for_text("Get started").await;
    assert_eq!(chrome.count("html[data-js]").await, usize::from(look.scripts), "scripts must be on or off as wanted");

    if look.scripts {
        chrome.click_seen(".sidebar__foot form[action='/console/sign-out'] button").await;
    } else {
        chrome.goto("/console/account").await;
        chrome.click("form[action='/console/account/sessions'] button[value='all']").await;
    }
    chrome.wait_for_path(|path| path == "/console/sign-in").await;
    super::sign_in(&chrome).await;

    // Register, grant.
    chrome.goto("/console/agents/new").await;
    chrome.fill("#name", "summariser").await;
    chrome.fill("#owner", "mail-team").await;
    chrome.click(SUBMIT).await;
    chrome.wait_for_text("summariser is registered").await;
    let agent = chrome.path().await;
    chrome.goto(&format!("{agent}/grants")).await;
    let first = chrome.wait("input[name=capability]").await.attr("value").await.unwrap().unwrap();
    chrome.click(&format!("input[value='{first}']")).await;
    chrome.click(SUBMIT).await;
    chrome.wait_for_text("is granted").await;

    // The key, and its first use.
    chrome.goto(&format!("{agent}/keys/new")).await;
    chrome.fill("#name", "production").await;
    chrome.click(SUBMIT).await;
    let key = chrome.wait("#secret").await.prop("value").await.unwrap().unwrap();
    assert!(key.starts_with("aims_"), "{key}");
    if look.scripts {
        chrome.wait("dialog[data-reveal]:modal").await;
        chrome.wait_for_text("Waiting for the first token exchange").await;
        server.anybody().exchange(&key).await.expect(200);
        chrome.wait(".first-use[data-used]").await;
        chrome.click("[data-saved]").await;
    } else {
        server.anybody().exchange(&key).await.expect(200);
    }
    chrome.click("[data-done]").await;
    chrome.wait_for_path(|path| path == format!("{agent}/keys")).await;
    chrome.wait_for_text("1 in 30 days").await;

    // Rotate: the old key still works, until it is ended.
    chrome.click("a.button[href$='/rotate']").await;
    chrome.click(SUBMIT).await;
    let rotated = chrome.wait("#secret").await.prop("value").await.unwrap().unwrap();
    assert_ne!(key, rotated);
    if look.scripts {
        chrome.click("[data-saved]").await;
    }
    chrome.click("[data-done]").await;
    chrome.wait_for_text("old key last used").await;
    server.anybody().exchange(&key).await.expect(200);
    let client = server.anybody().login(&rotated).await;

    // Suspend: one click, felt at once.
    chrome.click("form[action$='/suspend'] button").await;
    chrome.wait_for_text("summariser is suspended").await;
    client.get("/agents").await.refused(401, "Invalid or expired token");
    server.anybody().exchange(&rotated).await.expect(403);
    chrome.click("form[action$='/reactivate'] button").await;
    chrome.wait_for_text("summariser is active again").await;
    server.anybody().exchange(&rotated).await.expect(200);

    // Revoke: the name is typed.
    chrome.click("details.drop summary").await;
    chrome.click("a.drop__item[href$='/revoke']").await;
    if look.scripts {
        assert_eq!(chrome.count("form[data-confirm-name] .button--danger:disabled").await, 1);
    }
    chrome.fill("#confirm", "summariser").await;
    chrome.fill("#reason", "replaced").await;
    chrome.click("form[data-confirm-name] .button--danger").await;
    chrome.wait_for_text("summariser is revoked for ever").await;
    server.anybody().exchange(&rotated).await.expect(401);

    the_log_tells_all_of_it(&chrome, look).await;
}

async fn the_log_tells_all_of_it(chrome: &Chrome, look: Look) {
    chrome.goto("/console/audit").await;
    let log = chrome.source().await;
    for action in [
        "administrator.created",
        "console.signed_in",
        "console.signed_out",
        "agent.created",
        "capability.granted",
        "key.created",
        "auth.token_issued",
        "key.rotated",
        "agent.suspended",
        "agent.reactivated",
        "agent.revoked",
    ] {
        assert!(log.contains(action), "{action} is missing");
    }
    chrome.click("form[action='/console/audit/verify'] button").await;
    if !look.scripts {
        // Without a script, the page is asked again by hand.
        while !chrome.source().await.contains("records hold") {
            chrome.goto("/console/audit").await;
        }
    }
    chrome.wait_for_text("records hold").await;
    chrome.assert_no_complaints().await;
}
