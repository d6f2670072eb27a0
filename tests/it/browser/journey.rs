//! A complete walkthrough from the setup link to a revoked agent, with and without JavaScript.

use super::{Chrome, Display, in_browser, server, setup_path};
use crate::support::PASSWORD;

in_browser!(walkthrough_works_with_scripts, walkthrough_works_without_scripts);

async fn walkthrough_works_with_scripts() {
    walk_through(Display::DEFAULT).await;
}

async fn walkthrough_works_without_scripts() {
    walk_through(Display { scripts: false, ..Display::DEFAULT }).await;
}

const SUBMIT: &str = "main form.card .button--primary";

async fn walk_through(display: Display) {
    let server = server().await;
    let chrome = Chrome::start(&server.url, display).await;

    chrome.goto(&setup_path(&server).await).await;
    for (field, text) in
        [("username", "zoe"), ("display_name", "Zoë"), ("new_password", PASSWORD), ("repeat_password", PASSWORD)]
    {
        chrome.fill(&format!("#{field}"), text).await;
    }
    chrome.click("main form:not(.theme) .button--primary").await;
    chrome.wait_for_path(|path| path == "/console").await;
    chrome.wait_for_text("Get started").await;
    assert_eq!(
        chrome.count("html[data-js]").await,
        usize::from(display.scripts),
        "scripts must be enabled exactly if requested"
    );

    if display.scripts {
        chrome.click_displayed(".sidebar__foot form[action='/console/sign-out'] button").await;
    } else {
        chrome.goto("/console/account").await;
        chrome.click("form[action='/console/account/sessions'] button[value='all']").await;
    }
    chrome.wait_for_path(|path| path == "/console/sign-in").await;
    super::sign_in(&chrome).await;

    // Register an agent and grant a capability.
    chrome.goto("/console/agents/new").await;
    chrome.fill("#name", "summariser").await;
    chrome.fill("#owner", "mail-team").await;
    chrome.click("#key").await;
    chrome.click(SUBMIT).await;
    chrome.wait_for_text("summariser created").await;
    let agent = chrome.path().await;
    chrome.goto(&format!("{agent}/grants")).await;
    let first = chrome.wait("input[name=capability]").await.attr("value").await.unwrap().unwrap();
    chrome.click(&format!("input[value='{first}']")).await;
    chrome.click(SUBMIT).await;
    chrome.wait_for_text("granted. The next token").await;

    // Create a key and use it.
    chrome.goto(&format!("{agent}/keys/new")).await;
    chrome.fill("#name", "production").await;
    chrome.click(SUBMIT).await;
    let key = chrome.wait("#secret").await.prop("value").await.unwrap().unwrap();
    assert!(key.starts_with("aims_"), "{key}");
    if display.scripts {
        chrome.wait("dialog[data-reveal]:modal").await;
        chrome.wait_for_text("Waiting for the first token exchange").await;
        server.anonymous().exchange(&key).await.expect(200);
        chrome.wait(".first-use[data-used]").await;
        chrome.click("[data-saved]").await;
    } else {
        server.anonymous().exchange(&key).await.expect(200);
    }
    chrome.click("[data-done]").await;
    chrome.wait_for_path(|path| path == format!("{agent}/keys")).await;
    chrome.wait_for_text("1 use in 30 days").await;

    // Rotate: the old key works until it is revoked.
    chrome.click("a.button[href$='/rotate']").await;
    chrome.click(SUBMIT).await;
    let rotated = chrome.wait("#secret").await.prop("value").await.unwrap().unwrap();
    assert_ne!(key, rotated);
    if display.scripts {
        chrome.click("[data-saved]").await;
    }
    chrome.click("[data-done]").await;
    chrome.wait_for_text("Old key last used").await;
    server.anonymous().exchange(&key).await.expect(200);
    let client = server.anonymous().login(&rotated).await;

    // Suspend, after what it affects was shown; it takes effect immediately.
    chrome.click("a[href$='/suspend']").await;
    chrome.wait_for_text("This stops").await;
    chrome.click("form[action$='/suspend'] button").await;
    chrome.wait_for_text("summariser suspended").await;
    client.get("/agents").await.refused(401, "Invalid or expired token");
    server.anonymous().exchange(&rotated).await.expect(403);
    chrome.click("form[action$='/reactivate'] button").await;
    chrome.wait_for_text("summariser reactivated").await;
    server.anonymous().exchange(&rotated).await.expect(200);

    // Revoke; the agent's name must be typed.
    chrome.click("details.drop summary").await;
    chrome.click("a.drop__item[href$='/revoke']").await;
    if display.scripts {
        assert_eq!(chrome.count("form[data-confirm-name] .button--danger:disabled").await, 1);
    }
    chrome.fill("#confirm", "summariser").await;
    chrome.fill("#reason", "replaced").await;
    chrome.click("form[data-confirm-name] .button--danger").await;
    chrome.wait_for_text("summariser revoked").await;
    server.anonymous().exchange(&rotated).await.expect(401);

    assert_audit_log_is_complete(&chrome, display).await;
}

async fn assert_audit_log_is_complete(chrome: &Chrome, display: Display) {
    chrome.goto("/console/audit").await;
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
        chrome.wait_for_text_in("//*[@id='records']/tr", action).await;
    }
    chrome.click("form[action='/console/audit/verify'] button").await;
    if !display.scripts {
        // Without scripts, the page must be reloaded.
        while chrome.count("#chain .badge--running").await > 0 {
            chrome.goto("/console/audit").await;
        }
    }
    chrome.wait_for_text("records verified").await;
    chrome.assert_no_errors().await;
}
