//! The daily jobs with keys, by clicks from the overview: rotate a key and see who still uses the old one, revoke keys that
//! are not used, and find the owner of a leaked key. Each also without scripts.

use super::{
    Chrome, Display, in_browser,
    keyboard::{ENTER, Keyboard},
    server, signed_in_owner,
};
use crate::support::Server;

in_browser!(
    old_key_is_watched_and_ended,
    old_key_is_watched_and_ended_by_keyboard,
    old_key_is_watched_and_ended_without_scripts,
    unused_keys_are_revoked,
    unused_keys_are_revoked_by_keyboard,
    unused_keys_are_revoked_without_scripts,
    leaked_key_is_found,
    leaked_key_is_found_by_keyboard,
    leaked_key_is_found_without_scripts,
    key_in_the_search_never_gets_into_the_address,
    leaving_an_unsaved_key_asks,
    many_new_keys_can_be_downloaded,
);

const PLAIN: Display = Display { scripts: false, ..Display::DEFAULT };

/// Clicks, and counts them.
struct Job<'c> {
    chrome: &'c Chrome,
    clicks: usize,
}

impl<'c> Job<'c> {
    const fn of(chrome: &'c Chrome) -> Self {
        Self { chrome, clicks: 0 }
    }

    async fn click(&mut self, css: &str) {
        self.chrome.click(css).await;
        self.clicks += 1;
    }
}

const KEYS: &str = ".nav__link[href='/console/keys']";

async fn old_key_is_watched_and_ended() {
    watch_and_end(Display::DEFAULT).await;
}

async fn old_key_is_watched_and_ended_by_keyboard() {
    let server = server().await;
    let agent = server.agent("planner-us", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let path = format!("/console/agents/{}/keys/{}", agent.id, agent.key_id);
    let keyboard = Keyboard::at_overview(&chrome).await;
    keyboard.find("rotate planner-us", &format!("[data-href='{path}/rotate']")).await;
    chrome.wait_for_path(|at| at == format!("{path}/rotate")).await;
    // The button has the focus.
    chrome.wait("main form.card .button--primary:focus").await;
    chrome.press(ENTER).await;
    chrome.wait("dialog:modal .meter time").await;
    keyboard.tick("[data-saved]").await;
    keyboard.enter("[data-done]").await;
    chrome.wait_for_path(|at| at == path).await;
    chrome.wait_for_text("Old key last used").await;
    server.anonymous().exchange(&agent.raw_key).await.expect(200);
    chrome.wait_for_text("from 127.0.0.1").await;
    keyboard.skip_to_content().await;
    keyboard.enter(&format!("a[href='{path}/revoke']")).await;
    chrome.wait_for_path(|at| at == format!("{path}/revoke")).await;
    chrome.wait("main form .button--danger:focus").await;
    chrome.press(ENTER).await;
    chrome.wait_for_text("revoked, including its tokens").await;
    server.anonymous().exchange(&agent.raw_key).await.expect(401);
    // 2 to open the page, 1 to rotate, up to 18 in the dialog, 2 to skip, up to 20 stops of the agent and its tabs before
    // the key, and 2 to end it.
    keyboard.assert_at_most(45);
    chrome.assert_no_errors().await;
}

async fn old_key_is_watched_and_ended_without_scripts() {
    watch_and_end(PLAIN).await;
}

async fn open_menu(chrome: &Chrome, display: Display) {
    if !display.scripts {
        // The side bar is a closed `details`, which the style shows.
        chrome.goto("/console/keys").await;
    }
}

async fn watch_and_end(display: Display) {
    let server = server().await;
    let agent = server.agent("planner-us", &[]).await;
    let chrome = signed_in_owner(&server, display).await;
    let path = format!("/console/agents/{}/keys/{}", agent.id, agent.key_id);
    let mut job = Job::of(&chrome);
    go_to_keys(&mut job, display).await;
    job.click(&format!("a[href^='{path}/rotate']")).await;
    job.click("main form.card .button--primary").await;
    chrome.wait("#secret").await;
    assert!(job.clicks <= 3, "{} clicks", job.clicks);
    if display.scripts {
        // The dialog already shows who still uses the old key, and follows.
        chrome.wait(".meter time").await;
        let before = chrome.run("return document.querySelector('.meter').textContent").await;
        assert!(before.as_str().unwrap().contains("Old key last used"), "{before}");
        chrome.click("[data-saved]").await;
    }
    chrome.click("[data-done]").await;
    chrome.wait_for_path(|at| at == path).await;
    chrome.wait_for_text("Old key last used").await;
    if display.scripts {
        chrome.run("document.querySelector('[data-meter]').textContent = 'stale'").await;
        server.anonymous().exchange(&agent.raw_key).await.expect(200);
        chrome.wait("[data-meter] time[data-relative]").await;
        chrome.wait_for_text("from 127.0.0.1").await;
    } else {
        server.anonymous().exchange(&agent.raw_key).await.expect(200);
        chrome.reload().await;
        chrome.wait_for_text("from 127.0.0.1").await;
    }
    chrome.click(&format!("a[href='{path}/revoke']")).await;
    chrome.wait_for_text("Active tokens that end").await;
    chrome.click("main form .button--danger").await;
    chrome.wait_for_text("revoked, including its tokens").await;
    server.anonymous().exchange(&agent.raw_key).await.expect(401);
    chrome.assert_no_errors().await;
}

async fn go_to_keys(job: &mut Job<'_>, display: Display) {
    job.chrome.goto("/console").await;
    if display.scripts {
        job.chrome.click_displayed(KEYS).await;
    } else {
        open_menu(job.chrome, display).await;
    }
    job.clicks += 1;
    job.chrome.wait_for_path(|path| path == "/console/keys").await;
}

async fn unused_keys_are_revoked() {
    revoke_unused(Display::DEFAULT).await;
}

async fn unused_keys_are_revoked_by_keyboard() {
    let server = server().await;
    let used = populate_unused(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let keyboard = Keyboard::at_overview(&chrome).await;
    keyboard.skip_to_content().await;
    keyboard.enter(ATTENTION).await;
    chrome.wait_for_path(|path| path.starts_with("/console/keys?")).await;
    keyboard.skip_to_content().await;
    keyboard.enter(REVOKE_MATCHING).await;
    chrome.wait_for_text("Revoke 3 keys of 3 agents?").await;
    chrome.wait("main form .button--danger:focus").await;
    chrome.press(ENTER).await;
    chrome.wait_for_text("3 keys of 3 agents revoked").await;
    server.anonymous().exchange(&used).await.expect(200);
    // On the overview: 2 to skip, and up to 30 stops in the head, the checklist, the tiles, the chart and the kinds. On the
    // list: 2 to skip, up to 24 stops in the filters, and 2 to confirm.
    keyboard.assert_at_most(62);
    chrome.assert_no_errors().await;
}

async fn unused_keys_are_revoked_without_scripts() {
    revoke_unused(PLAIN).await;
}

/// Makes all keys of the agent look unused for a long time.
async fn age(server: &Server) {
    server.save_usage().await;
    server
        .db
        .execute(
            "UPDATE api_keys SET created_at = created_at - 9000000000000, idle_since = created_at - 9000000000000, \
             last_used_at = NULL WHERE name = 'default' AND agent_id IN (SELECT id FROM agents WHERE name LIKE 'old-%')",
        )
        .await;
}

/// Creates three keys that were not used for a long time, and returns one that was.
async fn populate_unused(server: &Server) -> String {
    for n in 0..3 {
        server.agent(&format!("old-{n}"), &[]).await;
    }
    let used = server.agent("used", &[]).await;
    age(server).await;
    used.raw_key
}

/// The link to unused keys among what needs attention on the overview.
const ATTENTION: &str = "main a[href='/console/keys?show=idle'], main a[href='/console/keys?use=unused_90d']";
const REVOKE_MATCHING: &str = "form[action='/console/keys/bulk'] button[value='revoke'].button--danger-quiet";

async fn revoke_unused(display: Display) {
    let server = server().await;
    let used = populate_unused(&server).await;
    let chrome = signed_in_owner(&server, display).await;
    let names = server.db.texts("SELECT DISTINCT name FROM api_keys").await;
    chrome.goto("/console").await;
    let mut job = Job::of(&chrome);
    job.click(ATTENTION).await;
    job.click(REVOKE_MATCHING).await;
    chrome.wait_for_text("Revoke 3 keys of 3 agents?").await;
    job.click("main form .button--danger").await;
    chrome.wait_for_text("3 keys of 3 agents revoked").await;
    assert!(job.clicks <= 3, "{} clicks; keys: {names:?}", job.clicks);
    assert!(chrome.path().await.starts_with("/console/keys?use=unused_90d"), "the filter stays");
    server.anonymous().exchange(&used).await.expect(200);
    chrome.assert_no_errors().await;
}

async fn leaked_key_is_found() {
    find_leaked(Display::DEFAULT).await;
}

async fn leaked_key_is_found_by_keyboard() {
    let server = server().await;
    let agent = server.agent("planner-us", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let path = format!("/console/agents/{}/keys/{}", agent.id, agent.key_id);
    // Its whole value and its prefix, in the palette.
    let whole = (agent.raw_key.as_str(), "[data-lookup]".to_owned());
    let prefix = (&agent.raw_key[..13], format!("[data-href='{path}']"));
    for (text, option) in [whole, prefix] {
        let keyboard = Keyboard::at_overview(&chrome).await;
        keyboard.find(text, &option).await;
        chrome.wait_for_path(|at| at == path).await;
        chrome.wait_for_text("Owner tests").await;
        keyboard.assert_at_most(4);
    }
    // Its whole value, on the page of all keys.
    let keyboard = Keyboard::at_overview(&chrome).await;
    keyboard.find("API keys", "[data-href='/console/keys']").await;
    chrome.wait_for_path(|at| at == "/console/keys").await;
    keyboard.skip_to_content().await;
    keyboard.tab_to("#leaked-key").await;
    chrome.press(&agent.raw_key).await;
    chrome.press(ENTER).await;
    chrome.wait_for_text("of planner-us. Its owner is tests.").await;
    assert!(!chrome.path().await.contains(&agent.raw_key[13..]));
    // 2 to open the page, 2 to skip, up to 4 stops, and 1 to submit.
    keyboard.assert_at_most(9);
    chrome.assert_no_errors().await;
}

async fn leaked_key_is_found_without_scripts() {
    find_leaked(PLAIN).await;
}

async fn find_leaked(display: Display) {
    let server = server().await;
    let agent = server.agent("planner-us", &[]).await;
    let chrome = signed_in_owner(&server, display).await;
    let mut job = Job::of(&chrome);
    go_to_keys(&mut job, display).await;
    chrome.fill("#leaked-key", &agent.raw_key).await;
    job.click("form[action='/console/keys/find'] .button").await;
    chrome.wait_for_text("of planner-us. Its owner is tests.").await;
    assert!(job.clicks <= 2, "{} clicks", job.clicks);
    assert!(!chrome.source().await.contains(&agent.raw_key[13..]));
    assert!(!chrome.path().await.contains(&agent.raw_key[13..]));
    chrome.back().await;
    let kept = chrome.run("return document.querySelector('#leaked-key')?.value ?? ''").await;
    assert!(!kept.as_str().unwrap().contains(&agent.raw_key[13..]) || !display.scripts, "{kept}");
    chrome.assert_no_errors().await;
}

/// The addresses of all requests of a page, as the browser knows them.
const ADDRESSES: &str =
    "return [location.href, ...performance.getEntriesByType('resource').map((entry) => entry.name)].join('\\n')";

async fn key_in_the_search_never_gets_into_the_address() {
    let server = server().await;
    let agent = server.agent("planner-us", &[]).await;
    for display in [Display::DEFAULT, PLAIN] {
        let chrome = signed_in_owner(&server, display).await;
        chrome.goto("/console/keys").await;
        chrome.fill("#q", &agent.raw_key[..10]).await;
        chrome.run("performance.clearResourceTimings(); document.querySelector('#q').value = ''").await;
        chrome.fill("#q", &agent.raw_key).await;
        if display.scripts {
            // It goes to the form that finds leaked keys.
            chrome.wait_for_text("of planner-us. Its owner is tests.").await;
        } else {
            // The pattern of the field keeps the form from being submitted.
            chrome.click("form[role='search'] .toolbar__go").await;
            assert_eq!(chrome.count("#q:invalid").await, 1);
        }
        let addresses = chrome.run(ADDRESSES).await;
        assert!(!addresses.as_str().unwrap().contains(&agent.raw_key[13..]), "{addresses}");
    }
    // Any search field of the console.
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console/agents").await;
    chrome.fill("#q", &agent.raw_key).await;
    chrome.wait_for_text("of planner-us. Its owner is tests.").await;
}

async fn leaving_an_unsaved_key_asks() {
    const ASKS: &str = "const event = new Event('beforeunload', { cancelable: true });
        dispatchEvent(event); return event.defaultPrevented";
    let server = server().await;
    let agent = server.agent("reader", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto(&format!("/console/agents/{}/keys/new", agent.id)).await;
    assert_eq!(chrome.run(ASKS).await, false, "nothing is lost here");
    chrome.fill("#name", "production").await;
    chrome.click("main form.card .button--primary").await;
    chrome.wait("dialog:modal").await;
    assert_eq!(chrome.run(ASKS).await, true);
    chrome.click("[data-saved]").await;
    assert_eq!(chrome.run(ASKS).await, false);
    chrome.click("[data-done]").await;
    chrome.wait_for_path(|path| path.ends_with("/keys")).await;
}

async fn many_new_keys_can_be_downloaded() {
    let server = server().await;
    for n in 0..2 {
        server.agent(&format!("planner-{n}"), &[]).await;
    }
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console/keys?owner=tests").await;
    chrome.click("[data-all]").await;
    chrome.click("[data-bulk-bar] button[value='rotate']").await;
    chrome.wait_for_text("Rotate 2 keys of 2 agents?").await;
    chrome.click("main form .button--primary").await;
    chrome.wait("dialog:modal").await;
    let masked = chrome.run("return [...document.querySelectorAll('[data-secret]')].every((one) => getComputedStyle(one).webkitTextSecurity === 'disc')").await;
    assert_eq!(masked, true, "all keys must be masked initially");
    // Keeps what would be downloaded.
    chrome.run("window.saved = []; const create = URL.createObjectURL; URL.createObjectURL = (blob) => { window.saved.push(blob); return create.call(URL, blob); }").await;
    chrome.click("[data-save='all-json']").await;
    chrome.click("[data-save='all-env']").await;
    let files = chrome.run_async("const done = arguments[arguments.length - 1]; Promise.all(window.saved.map((blob) => blob.text())).then(done)").await;
    let keys: serde_json::Value = serde_json::from_str(files[0].as_str().unwrap()).unwrap();
    let env = files[1].as_str().unwrap();
    for key in keys.as_array().unwrap() {
        let secret = key["api_key"].as_str().unwrap();
        assert!(env.contains(&format!("AIMS_API_KEY={secret}\n")), "{env}");
        server.anonymous().exchange(secret).await.expect(200);
    }
    assert_eq!(keys.as_array().unwrap().len(), 2);
    chrome.click("[data-saved]").await;
    chrome.click("[data-done]").await;
    chrome.wait_for_path(|path| path == "/console/keys?owner=tests").await;
    assert_eq!(chrome.count("[data-secret]").await, 0);
    chrome.assert_no_errors().await;
}
