//! Checks every page in light and dark mode, wide and narrow: accessibility, layout and the content security policy.

use std::{fs, path::Path};

use serde_json::Value;

use super::{Chrome, Display, in_browser, server, signed_in_owner};
use crate::support::Server;

in_browser!(
    pages_are_accessible_wide_and_light,
    pages_are_accessible_wide_and_dark,
    pages_are_accessible_narrow_and_light,
    pages_are_accessible_narrow_and_dark,
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

async fn check_every_page(display: Display) {
    let server = server().await;
    let paths = populate(&server).await;
    let stranger = Chrome::start(&server.url, display).await;
    for path in [super::setup_path(&server).await, "/console/sign-in".to_owned()] {
        stranger.goto(&path).await;
        check(&stranger, &path, display).await;
    }
    drop(stranger);

    let chrome = signed_in_owner(&server, display).await;
    for (name, path) in &paths {
        chrome.goto(path).await;
        check(&chrome, path, display).await;
        save_screenshot(&chrome, name, display).await;
    }
    // Pages that are only reachable through a form.
    let agent = &paths.iter().find(|(name, _)| *name == "agent").unwrap().1;
    chrome.goto(&format!("{agent}/keys/new")).await;
    chrome.fill("#name", "production").await;
    chrome.click("main form.card .button--primary").await;
    chrome.wait("dialog:modal").await;
    check(&chrome, "the new key dialog", display).await;
    save_screenshot(&chrome, "key", display).await;
    chrome.goto("/console/agents/new").await;
    chrome.run("document.querySelectorAll('[required]').forEach((field) => field.required = false)").await;
    chrome.click("main form.card .button--primary").await;
    chrome.wait("[aria-invalid=true]").await;
    check(&chrome, "a form with errors", display).await;
    server.clock.advance(std::time::Duration::from_mins(11));
    chrome.goto("/console/administrators/new").await;
    check(&chrome, "the password prompt", display).await;
    if display.width > 500 {
        chrome.goto("/console").await;
        chrome.click_displayed("[data-palette]").await;
        chrome.wait(".palette [role=option]").await;
        check(&chrome, "the command palette", display).await;
        save_screenshot(&chrome, "palette", display).await;
    }
}

/// Creates data to display. Returns the pages, some with the name of a screenshot.
async fn populate(server: &Server) -> Vec<(&'static str, String)> {
    use serde_json::json;
    let agent = server.agent("summariser", &["agents:read", "documents:read"]).await;
    let body = json!({ "owner": "mail-team", "description": "Summarises the day's mail for everybody who asks." });
    server.admin.patch(&format!("/agents/{}", agent.id), body).await.expect(200);
    for (name, owner, kind, capability) in [
        ("deploy-bot", "platform", "tool", "deploy:production"),
        ("planner", "research", "orchestrator", "plans:write"),
        ("invoice-reader", "finance", "llm", "invoices:read"),
        ("ticket-router", "support", "llm", "tickets:*"),
    ] {
        let other = server.agent(name, &[capability]).await;
        let body = json!({ "owner": owner, "agent_type": kind });
        server.admin.patch(&format!("/agents/{}", other.id), body).await.expect(200);
        for _ in 0..3 {
            server.anonymous().exchange(&other.raw_key).await.expect(200);
        }
        if name == "ticket-router" {
            server.admin.post_empty(&format!("/agents/{}/suspend", other.id)).await.expect(200);
        }
    }
    let rotate = format!("/agents/{}/keys/{}/rotate", agent.id, agent.key_id);
    let rotated = server.admin.post_empty(&rotate).await.expect(200);
    for _ in 0..11 {
        server.anonymous().exchange("aims_mistyped").await.expect(401);
    }
    let key = rotated["new_key"]["id"].as_str().unwrap().to_owned();
    let capability = server.capability("documents:read").await;
    let record = server.audited("agent.updated").await[0]["seq"].as_i64().unwrap();
    let new = json!({ "identifier": "https://mcp.example/tools", "name": "Tools", "scope": "documents:read" });
    let resource = server.admin.post("/resources", new).await.expect(201)["id"].as_str().unwrap().to_owned();
    let jwk = json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    server.admin.post(&format!("/agents/{}/public-keys", agent.id), jwk).await.expect(201);
    let trust = json!({
        "issuer": "https://token.actions.githubusercontent.com",
        "audience": "https://aims.example",
        "claims": { "repository": "example/summariser", "ref": "refs/heads/main" },
    });
    server.admin.post(&format!("/agents/{}/federated-identities", agent.id), trust).await.expect(201);
    let delegate = server.agent("delegate", &["documents:read"]).await;
    let body = json!({ "delegate_id": delegate.id });
    server.admin.post(&format!("/agents/{}/delegates", agent.id), body).await.expect(201);
    let access_token = "urn:ietf:params:oauth:token-type:access_token";
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", agent.client.token()),
        ("subject_token_type", access_token),
        ("actor_token", delegate.client.token()),
        ("actor_token_type", access_token),
    ];
    let anonymous = server.anonymous();
    anonymous.send(anonymous.request(reqwest::Method::POST, "/oauth/token").form(&form)).await.expect(200);
    let path = format!("/console/agents/{}", agent.id);
    let mut paths = vec![
        ("overview", "/console".to_owned()),
        ("agents", "/console/agents".to_owned()),
        ("", "/console/agents?q=nothing".to_owned()),
        ("", "/console/agents/new".to_owned()),
        ("agent", path.clone()),
        ("keys", "/console/keys".to_owned()),
        ("", "/console/keys?show=expiring".to_owned()),
        ("", "/console/capabilities".to_owned()),
        ("", "/console/capabilities/new".to_owned()),
        ("", format!("/console/capabilities/{capability}")),
        ("", "/console/resources".to_owned()),
        ("", "/console/resources/new".to_owned()),
        ("", format!("/console/resources/{resource}")),
        ("", "/console/signing-keys".to_owned()),
        ("audit", "/console/audit".to_owned()),
        ("", format!("/console/audit/{record}")),
        ("", "/console/administrators".to_owned()),
        ("", "/console/administrators/new".to_owned()),
        ("account", "/console/account".to_owned()),
        ("", "/console/account/authenticator".to_owned()),
        ("", "/console/nothing-here".to_owned()),
    ];
    let below = [
        "/edit",
        "/keys",
        "/keys/new",
        "/public-keys/new",
        "/tokens",
        "/federated-identities/new",
        "/grants",
        "/timeline",
        "/connect",
        "/revoke",
        "/delete",
    ];
    paths.extend(below.map(|rest| ("", format!("{path}{rest}"))));
    paths.extend(["/rotate", "/revoke"].map(|rest| ("", format!("{path}/keys/{key}{rest}"))));
    paths
}

async fn check(chrome: &Chrome, place: &str, display: Display) {
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
             frames: document.querySelectorAll('[style], script:not([src]), style').length,
         }}), (error) => done({{ violations: [String(error)] }}));"
    );
    let found: Value = chrome.run_async(&script).await;
    assert_eq!(found["violations"], serde_json::json!([]), "{place} at {} px, dark: {}", display.width, display.dark);
    assert!(found["passes"].as_i64().unwrap() > 5, "axe checked nothing: {found}");
    assert!(found["beyond"].as_i64().unwrap() <= 0, "{place} overflows {} px by {}", display.width, found["beyond"]);
    assert_eq!(found["frames"], 0, "{place} contains an inline style or script");
    chrome.assert_no_errors().await;
}

/// Saves a screenshot if the README's are being regenerated.
async fn save_screenshot(chrome: &Chrome, name: &str, display: Display) {
    let Ok(folder) = std::env::var("AIMS_SCREENSHOTS") else { return };
    if name.is_empty() || display.width < 500 {
        return;
    }
    let colours = if display.dark { "dark" } else { "light" };
    fs::create_dir_all(&folder).unwrap();
    fs::write(Path::new(&folder).join(format!("{name}-{colours}.png")), chrome.screenshot().await).unwrap();
}

async fn keyboard_alone_reaches_everything() {
    const ENTER: &str = "\u{E007}";
    const CTRL_K: &str = "\u{E009}k\u{E000}";
    let server = server().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
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
    chrome.assert_no_errors().await;
}
