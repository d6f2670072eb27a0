//! Passkeys, with the browser's virtual authenticator.

use std::time::Duration;

use aims::{
    domain::Role,
    service::{Caller, people::administrators},
};

use super::{Chrome, Display, in_browser, server, sign_in};
use crate::support::{Browser, Server};

in_browser!(passkey_signs_in_and_confirms_identity, passkey_response_works_once_and_only_in_its_session);

/// Returns a browser at the passkeys' host name, with an authenticator, signed in as a user who has a passkey.
async fn with_passkey(server: &Server) -> Chrome {
    let chrome = Chrome::start(&server.url.replace("127.0.0.1", "localhost"), Display::DEFAULT).await;
    chrome.add_authenticator().await;
    sign_in(&chrome).await;
    chrome.goto("/console/account").await;
    chrome.fill("#passkey-name", "laptop").await;
    chrome.click("[data-passkey=register]").await;
    chrome.wait_for_text("Passkey laptop added").await;
    chrome
}

async fn sign_out(chrome: &Chrome) {
    chrome.goto("/console/account").await;
    chrome.click("form[action='/console/account/sessions'] button[value='all']").await;
    chrome.wait_for_path(|path| path == "/console/sign-in").await;
}

async fn passkey_signs_in_and_confirms_identity() {
    let server = server().await;
    server.person("zoe", Role::Owner).await;
    let chrome = with_passkey(&server).await;
    sign_out(&chrome).await;
    chrome.goto("/console/agents").await;
    chrome.wait_for_path(|path| path.starts_with("/console/sign-in?next=")).await;
    chrome.click("[data-passkey=login]").await;
    chrome.wait_for_path(|path| path == "/console/agents").await;
    let signed_in = server.audited("console.signed_in").await;
    assert!(signed_in[0]["details_json"].as_str().unwrap().contains("passkey"), "{signed_in:?}");

    server.clock.advance(Duration::from_mins(11));
    chrome.goto("/console/administrators/new").await;
    chrome.wait_for_text("Confirm your identity").await;
    chrome.click("[data-passkey=login]").await;
    chrome.wait_for_path(|path| path == "/console/administrators/new").await;
    chrome.wait_for_text("Invite administrator").await;

    // Adding or removing a passkey requires a recent proof of identity.
    server.clock.advance(Duration::from_mins(11));
    chrome.goto("/console/account").await;
    chrome.fill("#passkey-name", "phone").await;
    chrome.click("[data-passkey=register]").await;
    chrome.wait_for_text("Confirm your identity").await;
    chrome.click("[data-passkey=login]").await;
    chrome.wait_for_text("You can add the passkey now").await;
    server.clock.advance(Duration::from_mins(11));
    chrome.goto("/console/account").await;
    chrome.click("form[action^='/console/account/passkeys/'][action$='/remove'] button").await;
    chrome.wait_for_text("Confirm your identity").await;
    chrome.click("[data-passkey=login]").await;
    chrome.wait_for_text("Passkey laptop deleted").await;
    assert_eq!(server.db.count("SELECT COUNT(*) FROM passkeys").await, 0);
    sign_out(&chrome).await;
    chrome.click("[data-passkey=login]").await;
    chrome.wait_for_text("Incorrect credentials").await;
    chrome.assert_no_errors().await;
}

/// Returns the authenticator's response to the session's challenge without sending it.
async fn sign_challenge(chrome: &Chrome) -> String {
    let script = "
        const done = arguments[arguments.length - 1];
        (async () => {
            const asked = await fetch('/console/sign-in/passkey/options', { method: 'POST' });
            const { publicKey } = await asked.json();
            const options = PublicKeyCredential.parseRequestOptionsFromJSON(publicKey);
            const credential = await navigator.credentials.get({ publicKey: options });
            done(JSON.stringify(credential.toJSON()));
        })().catch((error) => done('failed: ' + error));";
    let answered = chrome.run_async(script).await;
    let text = answered.as_str().unwrap().to_owned();
    assert!(text.starts_with('{'), "{text}");
    text
}

/// Returns a client with the browser's session.
async fn client_of(server: &Server, chrome: &Chrome) -> Browser {
    let browser = server.browser();
    browser.set_cookie("aims", &chrome.cookie("aims").await);
    browser
}

async fn passkey_response_works_once_and_only_in_its_session() {
    let server = server().await;
    server.person("ada", Role::Owner).await;
    let zoe = server.person("zoe", Role::Owner).await;
    let chrome = with_passkey(&server).await;
    sign_out(&chrome).await;
    let path = "/console/sign-in/passkey";

    // Replayed.
    let credential = sign_challenge(&chrome).await;
    let browser = client_of(&server, &chrome).await;
    let replayed = browser.copy();
    browser.post(path, &[("credential", &credential)]).await.redirects_to("/console");
    browser.get("/console/account").await.expect(200);
    replayed.post(path, &[("credential", &credential)]).await.expect(401);
    browser.post(path, &[("credential", &credential)]).await.expect(401);
    browser.post("/console/sign-out", &[]).await.expect(303);

    // For another session's challenge, and without a challenge.
    chrome.goto("/console/sign-in").await;
    let credential = sign_challenge(&chrome).await;
    let other = server.browser();
    other.post("/console/sign-in/passkey/options", &[]).await.expect(200);
    other.post(path, &[("credential", &credential)]).await.expect(401);
    server.browser().post(path, &[("credential", &credential)]).await.expect(401);
    for junk in ["", "{}", "null", "[]", "{\"id\":\"x\"}"] {
        // Failed attempts are rate limited.
        server.clock.advance(Duration::from_mins(20));
        server.browser().post(path, &[("credential", junk)]).await.expect(401);
    }

    // Altered in transit.
    server.clock.advance(Duration::from_mins(20));
    let credential = sign_challenge(&chrome).await;
    let browser = client_of(&server, &chrome).await;
    let mut altered: serde_json::Value = serde_json::from_str(&credential).unwrap();
    altered["response"]["signature"] = serde_json::json!("MEUCIQDx");
    browser.post(path, &[("credential", &altered.to_string())]).await.expect(401);
    // A failed attempt consumes the challenge.
    server.clock.advance(Duration::from_mins(20));
    browser.post(path, &[("credential", &credential)]).await.expect(401);

    // The user has been disabled.
    server.clock.advance(Duration::from_hours(25));
    let credential = sign_challenge(&chrome).await;
    administrators::disable(&server.services, &Caller::system(), zoe).await.unwrap();
    let browser = client_of(&server, &chrome).await;
    browser.post(path, &[("credential", &credential)]).await.expect(401);
    let recorded =
        "SELECT COUNT(*) FROM audit_log WHERE action = 'console.sign_in_failed' AND details LIKE '%passkey%'";
    assert_eq!(server.db.count(recorded).await, 12);
}
