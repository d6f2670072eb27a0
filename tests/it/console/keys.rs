//! The list of all agents' keys, the page of a key, and what is done to many keys at once.

use std::time::Duration;

use aims::domain::Role;
use serde_json::{Value, json};

use crate::{
    both,
    support::{Agent, Browser, Database, Page, Server, details},
};

both!(
    time_left_of_a_rotated_key_is_shown_once,
    keys_of_a_suspended_agent_are_blocked,
    keys_are_filtered_and_sorted_by_the_url,
    filters_survive_an_act_and_cancel,
    selected_keys_are_revoked_as_previewed,
    changes_between_preview_and_act_are_named,
    last_credential_of_the_last_administrator_stays,
    all_new_keys_are_revealed_together_once,
    operators_cannot_change_keys_of_administrators_in_bulk,
    owner_of_a_leaked_key_is_found_without_a_trace,
    key_in_an_address_is_refused_and_not_repeated,
    page_of_a_key_shows_its_use,
);

const BULK: &str = "/console/keys/bulk";

async fn create_key(server: &Server, agent: &Agent, body: Value) -> (String, String) {
    let key = server.admin.post(&format!("/agents/{}/keys", agent.id), body).await.expect(201);
    (key["id"].as_str().unwrap().to_owned(), key["raw_key"].as_str().unwrap().to_owned())
}

fn ids(page: &Page) -> Vec<String> {
    page.text.split("name=\"id\" value=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

async fn rotate(server: &Server, agent: &Agent) -> Value {
    let path = format!("/agents/{}/keys/{}/rotate", agent.id, agent.key_id);
    server.admin.post(&path, json!({})).await.expect(200)
}

async fn time_left_of_a_rotated_key_is_shown_once(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let path = format!("/console/agents/{}/keys/{}", agent.id, agent.key_id);
    browser.post(&format!("{path}/rotate"), &[("grace", "24")]).await.expect(200);
    server.clock.advance(Duration::from_mins(2));
    for page in [&path, &format!("/console/agents/{}/keys", agent.id), &"/console/keys?status=rotated".to_owned()] {
        let page = browser.get(page).await.expect(200);
        page.shows("data-countdown>23 h 58 min</time>");
        assert!(!page.text.contains("in 1 day"), "the same time must not be shown in another way: {}", page.text);
    }
}

async fn keys_of_a_suspended_agent_are_blocked(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    for name in ["one", "two", "three"] {
        create_key(&server, &agent, json!({ "name": name })).await;
    }
    let browser = server.signed_in("zoe", Role::Operator).await;
    browser.get(&format!("/console/agents/{}", agent.id)).await.shows("<strong>4</strong> of 4 keys work");
    server.admin.post_empty(&format!("/agents/{}/suspend", agent.id)).await.expect(200);
    let page = browser.get(&format!("/console/agents/{}", agent.id)).await.expect(200);
    assert!(!page.text.contains("<strong>4</strong> of 4 keys work"), "{}", page.text);
    for path in [format!("/console/agents/{}/keys", agent.id), "/console/keys?agent=reader".to_owned()] {
        let page = browser.get(&path).await.expect(200);
        assert_eq!(page.text.matches("Blocked: agent suspended").count(), 4, "{path}: {}", page.text);
        assert!(!page.text.contains("badge--active\"><svg class=\"icon\" aria-hidden=\"true\" width=\"16\" height=\"16\"><use href=\"/console/assets/key"));
    }
    let key = format!("/console/agents/{}/keys/{}", agent.id, agent.key_id);
    browser.get(&key).await.expect(200).shows("Blocked: agent suspended");
    assert_eq!(ids(&browser.get("/console/keys?status=blocked").await.expect(200)).len(), 4);
    browser.get("/console/keys?status=active&agent=reader").await.expect(200).shows("No matching keys");
    server.admin.post_empty(&format!("/agents/{}/reactivate", agent.id)).await.expect(200);
    assert_eq!(ids(&browser.get("/console/keys?status=active&agent=reader").await.expect(200)).len(), 4);
}

async fn keys_are_filtered_and_sorted_by_the_url(db: Database) {
    let server = Server::start(db).await;
    let (boss, plain) = (server.agent("boss", &["admin:*"]).await, server.agent("plain", &["agents:read"]).await);
    let (limited, _) = create_key(&server, &plain, json!({ "name": "Little", "allowed_networks": "10.0.0.0/8" })).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let shown = async |query: &str| {
        let page = browser.get(&format!("/console/keys?{query}")).await.expect(200);
        let links = page.text.split("table__name clip\" href=\"").skip(1);
        links.map(|rest| rest.split(['/', '"']).nth(5).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown("").await.len(), 4);
    assert_eq!(shown("q=litt").await, [limited.as_str()]);
    assert_eq!(shown(&format!("q={}", &plain.raw_key[..10])).await, [plain.key_id.as_str()]);
    assert_eq!(shown("limit=networks").await, [limited.as_str()]);
    assert_eq!(shown("use=never").await, [limited.as_str()]);
    assert_eq!(shown(&format!("agent={}", boss.id)).await, [boss.key_id.as_str()]);
    assert_eq!(shown("agent=boss&admin=1").await, [boss.key_id.as_str()]);
    assert_eq!(shown("admin=1").await.len(), 2);
    assert_eq!(shown("owner=tests").await.len(), 3);
    assert_eq!(shown("owner=nobody").await.len(), 0);
    assert_eq!(shown("agent=nobody").await.len(), 0);
    assert_eq!(shown("sort=created").await[0], limited);
    assert_eq!(shown("sort=created_backwards").await[3], limited);
    assert_eq!(shown("sort=last_used").await.len(), 4);
    let page = browser.get("/console/keys?owner=te").await.expect(200);
    page.shows("list=\"owners\"").shows("hx-get=\"/console/agents/owners\"");
    page.shows("<option value=\"tests\">2 agents</option>");
    browser.get("/console/keys?agent=nobody").await.expect(200).shows("<option value=\"tests\">");
    // Chips name the filters, and each leads to the list without it.
    let page = browser.get("/console/keys?agent=boss&status=active&sort=expiry").await.expect(200);
    page.shows("Clear filters").shows("href=\"/console/keys?agent=boss&#38;sort=expiry\"");
    for odd in ["show=junk", "status=junk", "use=junk", "expiry=1d", "limit=junk", "admin=2", "grace=junk", "sort=junk"]
    {
        browser.get(&format!("/console/keys?{odd}")).await.expect(422);
    }
    // Used after the rotation.
    assert_eq!(shown("grace=used").await.len(), 0);
    rotate(&server, &plain).await;
    server.clock.advance(Duration::from_secs(2));
    assert_eq!(shown("grace=used").await.len(), 0);
    server.anonymous().exchange(&plain.raw_key).await.expect(200);
    assert_eq!(shown("grace=used").await, [plain.key_id.as_str()]);
    // The words of earlier links are still valid.
    assert_eq!(shown("show=in_grace").await, [plain.key_id.as_str()]);
    assert_eq!(shown("show=all").await.len(), 5);
}

async fn filters_survive_an_act_and_cancel(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let list = "/console/keys?owner=tests&sort=last_used_backwards";
    let page = browser.get(list).await.expect(200);
    let revoke = page.text.split("href=\"").find(|rest| rest.contains("/revoke?list=")).unwrap();
    let revoke = revoke.split('"').next().unwrap().to_owned();
    let confirm = browser.get(&revoke).await.expect(200);
    confirm
        .shows("href=\"/console/keys?owner=tests&#38;sort=last_used_backwards\">Cancel")
        .shows("Active tokens that end");
    let back = confirm.hidden("list");
    assert_eq!(back, list);
    let path = format!("/console/agents/{}/keys/{}/revoke", agent.id, agent.key_id);
    browser.post(&path, &[("list", &back)]).await.redirects_to(list);
    browser.get(list).await.shows("of reader revoked, including its tokens").shows("View key");
    // Only the list is a place to return to.
    for elsewhere in ["https://evil.example/", "//evil.example", "/console/keys//evil.example", "/console/sign-out"] {
        let other = server.agent(&format!("other-{}", elsewhere.len()), &[]).await;
        let keys = format!("/console/agents/{}/keys", other.id);
        browser.post(&format!("{keys}/{}/revoke", other.key_id), &[("list", elsewhere)]).await.redirects_to(&keys);
    }
    // The bulk form carries the filters as well.
    let other = server.agent("another", &[]).await;
    let form = [("act", "revoke"), ("owner", "tests"), ("sort", "last_used"), ("id", other.key_id.as_str())];
    let page = browser.post(BULK, &form).await.expect(200);
    page.shows("href=\"/console/keys?owner=tests&#38;sort=last_used\">Cancel");
    let form = [("owner", "tests"), ("sort", "last_used"), ("id", other.key_id.as_str())];
    let done = browser.post(&format!("{BULK}/revoke"), &form).await;
    done.redirects_to("/console/keys?owner=tests&sort=last_used");
}

async fn selected_keys_are_revoked_as_previewed(db: Database) {
    let server = Server::start(db).await;
    let (first, second) = (server.agent("first", &[]).await, server.agent("second", &[]).await);
    let (unused, _) = create_key(&server, &first, json!({ "name": "unused" })).await;
    let (gone, _) = create_key(&server, &first, json!({ "name": "gone" })).await;
    server.admin.delete(&format!("/agents/{}/keys/{gone}", first.id)).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let form = [
        ("act", "revoke"),
        ("id", first.key_id.as_str()),
        ("id", second.key_id.as_str()),
        ("id", unused.as_str()),
        ("id", gone.as_str()),
        ("id", "junk"),
    ];
    let page = browser.post(BULK, &form).await.expect(200);
    page.shows("Revoke 3 keys of 2 agents?").shows("<dt>Used in the last 24 hours</dt><dd>2");
    page.shows("<dt>Active tokens that end</dt><dd>2").shows("It is already revoked");
    let mut previewed = ids(&page);
    previewed.sort();
    let mut wanted = vec![first.key_id.clone(), second.key_id.clone(), unused];
    wanted.sort();
    assert_eq!(previewed, wanted, "only keys that will change are in the form");
    assert_eq!(server.audited("key.revoked").await.len(), 1, "the preview changes nothing");

    // A key that matches later is not revoked with them.
    let (late, late_key) = create_key(&server, &first, json!({ "name": "late" })).await;
    let form: Vec<_> = previewed.iter().map(|id| ("id", id.as_str())).collect();
    browser.post(&format!("{BULK}/revoke"), &form).await.redirects_to("/console/keys");
    browser.get("/console/keys").await.shows("3 keys of 2 agents revoked, including their tokens.");
    first.client.get("/agents").await.refused(401, "Invalid or expired token");
    server.anonymous().exchange(&first.raw_key).await.expect(401);
    server.anonymous().exchange(&late_key).await.expect(200);
    let records = server.audited("key.revoked").await;
    assert_eq!(records.len(), 4, "one record for each key");
    assert!(records.iter().all(|record| record["resource_id"] != late.as_str()));
    // Submitted twice: nothing is done again.
    browser.post(&format!("{BULK}/revoke"), &form).await.expect(303);
    browser.get("/console/keys").await.shows("No key was revoked.");
    assert_eq!(server.audited("key.revoked").await.len(), 4);

    // All that match.
    for act in ["", "delete"] {
        browser.post(BULK, &[("act", act), ("id", late.as_str())]).await.expect(422);
    }
    browser.post(BULK, &[("act", "revoke")]).await.redirects_to("/console/keys");
    browser.get("/console/keys").await.shows("No key was selected");
    let all = [("act", "revoke"), ("all", "matching"), ("agent", "first"), ("status", "active")];
    let page = browser.post(BULK, &all).await.expect(200);
    page.shows("Revoke 1 key of 1 agent?");
    assert_eq!(ids(&page), [late.as_str()]);
    let none = [("act", "revoke"), ("all", "matching"), ("agent", "nobody")];
    browser.post(BULK, &none).await.redirects_to("/console/keys?agent=nobody");
}

async fn changes_between_preview_and_act_are_named(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    let (taken, _) = create_key(&server, &agent, json!({ "name": "taken-first" })).await;
    let doomed = server.agent("doomed", &[]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let form =
        [("act", "revoke"), ("id", agent.key_id.as_str()), ("id", taken.as_str()), ("id", doomed.key_id.as_str())];
    browser.post(BULK, &form).await.expect(200).shows("Revoke 3 keys of 2 agents?");
    server.admin.delete(&format!("/agents/{}/keys/{taken}", agent.id)).await;
    server.admin.delete(&format!("/agents/{}", doomed.id)).await;
    browser.post(&format!("{BULK}/revoke"), &form[1..]).await.redirects_to("/console/keys");
    let page = browser.get("/console/keys").await.expect(200);
    page.shows("1 key of 1 agent revoked").shows("taken-first of reader (It is already revoked)");
    page.shows("1 key no longer exists");
}

async fn last_credential_of_the_last_administrator_stays(db: Database) {
    let server = Server::start(db).await;
    let boss = server.agent("boss", &["admin:*"]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let form = [("act", "revoke"), ("all", "matching"), ("admin", "1")];
    let page = browser.post(BULK, &form).await.expect(200);
    page.shows("Revoke 1 key of 1 agent?")
        .shows("The last lasting credentials of the active agents that hold admin:* stay");
    // A form that was made up is refused for the last one as well.
    let all: Vec<_> = ids(&browser.get("/console/keys?admin=1").await.expect(200)).into_iter().collect();
    assert_eq!(all.len(), 2);
    let form: Vec<_> = all.iter().map(|id| ("id", id.as_str())).collect();
    browser.post(&format!("{BULK}/revoke"), &form).await.expect(303);
    browser.get("/console/keys").await.shows("1 key of 1 agent revoked").shows("and not revoked");
    let left = [boss.raw_key.as_str(), server.admin_key.as_str()];
    let mut working = 0;
    for key in left {
        working += usize::from(server.anonymous().exchange(key).await.status == 200);
    }
    assert_eq!(working, 1);
}

async fn all_new_keys_are_revealed_together_once(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let (first, second) = (server.agent("first", &[]).await, server.agent("second", &[]).await);
    rotate(&server, &second).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let form = [("act", "rotate"), ("id", first.key_id.as_str()), ("id", second.key_id.as_str())];
    let page = browser.post(BULK, &form).await.expect(200);
    page.shows("Rotate 1 key of 1 agent?").shows("It was already rotated").shows("Expire the old keys");
    let act = format!("{BULK}/rotate");
    browser.post(&act, &[("id", first.key_id.as_str()), ("end_old", "5")]).await.expect(422);
    let (third, _) = create_key(&server, &first, json!({ "name": "third" })).await;
    let form = [("id", first.key_id.as_str()), ("id", third.as_str()), ("end_old", "24"), ("owner", "tests")];
    let page = browser.post(&act, &form).await.expect(200);
    assert_eq!(page.headers["cache-control"], "no-store");
    page.shows("Save these 2 keys now").shows("The old keys still work").shows("href=\"/console/keys?owner=tests\"");
    let secrets: Vec<_> =
        page.text.split("readonly value=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(secrets.len(), 2);
    for secret in &secrets {
        assert_eq!(page.text.matches(secret).count(), 3, "in its field, in the JSON and in the .env files");
        server.anonymous().exchange(secret).await.expect(200);
    }
    server.anonymous().exchange(&first.raw_key).await.expect(200);
    assert_eq!(server.audited("key.rotated").await.len(), 3);
    // Reloading submits the form again, and reveals nothing.
    let again = browser.post(&act, &form).await.expect(200);
    again.shows("No key was rotated").shows("Only active keys can be rotated");
    let mut pages = vec![again.text];
    for path in ["/console/keys", "/console/audit", "/console"] {
        pages.push(browser.get(path).await.expect(200).text);
    }
    pages.extend(server.db.texts("SELECT data FROM sessions").await);
    pages.extend(server.db.texts("SELECT details FROM audit_log").await);
    assert!(secrets.iter().all(|secret| pages.iter().all(|page| !page.contains(&secret[13..]))));
    // No more than can be shown on one page.
    for n in 0..101 {
        create_key(&server, &first, json!({ "name": format!("many-{n}") })).await;
    }
    let form = [("act", "rotate"), ("all", "matching"), ("q", "many-")];
    browser
        .post(BULK, &form)
        .await
        .expect(200)
        .shows("Rotate 100 keys of 1 agent?")
        .shows("Only the first 100 selected keys");
}

async fn operators_cannot_change_keys_of_administrators_in_bulk(db: Database) {
    let server = Server::start(db).await;
    let (boss, plain) = (server.agent("boss", &["admin:*"]).await, server.agent("plain", &[]).await);
    let operator = server.signed_in("zoe", Role::Operator).await;
    for act in ["rotate", "revoke"] {
        let form = [("act", act), ("id", boss.key_id.as_str()), ("id", plain.key_id.as_str())];
        let page = operator.post(BULK, &form).await.expect(200);
        page.shows("Its agent holds admin:*, which your role does not include");
        assert_eq!(ids(&page), [plain.key_id.as_str()]);
    }
    // A form that was made up gets no further.
    let form = [("id", boss.key_id.as_str()), ("end_old", "0")];
    let page = operator.post(&format!("{BULK}/rotate"), &form).await.expect(200);
    page.shows("No key was rotated");
    assert!(!page.text.contains("data-secret"));
    operator.post(&format!("{BULK}/revoke"), &form).await.expect(303);
    operator.get("/console/keys").await.shows("No key was revoked.");
    server.anonymous().exchange(&boss.raw_key).await.expect(200);
    let denied = server.audited("authz.denied").await;
    assert!(denied.iter().any(|record| details(record).to_string().contains("admin:*")), "{denied:?}");
    let viewer = server.signed_in("eve", Role::Viewer).await;
    for path in [BULK.to_owned(), format!("{BULK}/revoke"), format!("{BULK}/rotate")] {
        let form = [("act", "revoke"), ("id", plain.key_id.as_str()), ("end_old", "0")];
        viewer.post(&path, &form).await.expect(403);
    }
    let page = viewer.get("/console/keys").await.expect(200);
    assert!(!page.text.contains("name=\"id\"") && !page.text.contains("/revoke"), "{}", page.text);
    server.anonymous().exchange(&plain.raw_key).await.expect(200);
}

/// Asserts that nothing that is stored, and none of these pages, contains the secret part of a key.
async fn assert_no_trace(server: &Server, secret: &str, pages: &[&Page]) {
    let secret = &secret[13..];
    for page in pages {
        assert!(!page.text.contains(secret), "{}", page.text);
        assert!(!format!("{:?}", page.headers).contains(secret), "{:?}", page.headers);
    }
    for sql in ["SELECT data FROM sessions", "SELECT details FROM audit_log"] {
        assert!(server.db.texts(sql).await.iter().all(|text| !text.contains(secret)), "{sql}");
    }
}

async fn find(browser: &Browser, text: &str) -> Page {
    browser.post("/console/keys/find", &[("leaked_key", text)]).await.expect(303)
}

async fn owner_of_a_leaked_key_is_found_without_a_trace(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let path = format!("/console/agents/{}/keys/{}", agent.id, agent.key_id);
    let key = agent.raw_key.as_str();
    for pasted in [key.to_owned(), format!("  {key}\n"), format!("export AIMS_API_KEY=\"{key}\"")] {
        let answer = find(&browser, &pasted).await;
        assert_eq!(answer.location(), path);
        let page = browser.get(&path).await.expect(200);
        page.shows("of reader. Its owner is tests.");
        assert_no_trace(&server, key, &[&answer, &page]).await;
    }
    // The beginning, or a value that was cut off or mistyped.
    let cut = &key[..40];
    let mistyped = format!("{}!", &key[..53]);
    for pasted in [&key[..13], cut, &mistyped] {
        let answer = find(&browser, pasted).await;
        assert_eq!(answer.location(), format!("/console/keys?q={}", &key[..13]));
        let page = browser.get(answer.location()).await.expect(200);
        page.shows("These keys start like it").shows(&path);
        assert_no_trace(&server, key, &[&answer, &page]).await;
    }
    let unknown = format!("aims_{}", "0".repeat(64));
    for (pasted, message) in [(unknown.as_str(), "No agent has this key"), ("hello", "Paste an API key"), ("", "Paste")]
    {
        let answer = find(&browser, pasted).await.redirects_to("/console/keys");
        let page = browser.get("/console/keys").await.expect(200);
        page.shows(message);
        assert!(!page.text.contains(&unknown[13..]));
        drop(answer);
    }
    // A revoked key is found as well.
    server.admin.delete(&format!("/agents/{}/keys/{}", agent.id, agent.key_id)).await;
    assert_eq!(find(&browser, key).await.location(), path);
    browser.get(&path).await.expect(200).shows("Revoked");
    // Without a session the form is kept until the person has signed in, but not the key.
    let stranger = server.browser();
    let page = stranger.post("/console/keys/find", &[("leaked_key", key)]).await.expect(401);
    assert_no_trace(&server, key, &[&page]).await;
}

async fn key_in_an_address_is_refused_and_not_repeated(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("reader", &[]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let key = agent.raw_key.as_str();
    let encoded: String = key.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"));
    for query in [
        format!("q={key}"),
        format!("q={encoded}"),
        format!("q=%20{key}%20"),
        format!("q={key}&status=junk"),
        format!("q={key}&q={key}"),
        format!("agent={key}"),
        format!("{key}=1"),
        format!("q={}", &key[..30]),
    ] {
        let answer = browser.get(&format!("/console/keys?{query}")).await.redirects_to("/console/keys");
        let page = browser.get("/console/keys").await.expect(200);
        page.shows("The address contained a whole API key");
        assert_no_trace(&server, key, &[&answer, &page]).await;
    }
    // What may be displayed is a search.
    browser.get(&format!("/console/keys?q={}", &key[..13])).await.expect(200).shows("1 key");
}

async fn page_of_a_key_shows_its_use(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "60")]).await;
    let agent = server.agent("reader", &[]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let path = format!("/console/agents/{}/keys/{}", agent.id, agent.key_id);
    server.anonymous().exchange(&agent.raw_key).await.expect(200);
    let page = browser.get(&path).await.expect(200);
    page.shows("ends <strong>2</strong> active tokens").shows("2 in 90 days").shows("127.0.0.1").shows("2 times");
    page.shows("key.created").shows("auth.token_issued").shows("Rotate").shows("/revoke\">Revoke");
    browser.post(&format!("{path}/rotate"), &[("grace", "24")]).await.expect(200).shows(&format!("href=\"{path}\""));
    let page = browser.get(&path).await.expect(200);
    page.shows("Old key last used").shows("data-meter").shows("End the old key now").shows("key.rotated");
    browser.post(&format!("{path}/revoke"), &[]).await.expect(303);
    let page = browser.get(&path).await.expect(200);
    page.shows("the key no longer works");
    assert!(!page.text.contains("data-meter") && !page.text.contains("/rotate\""));
    // Uses are counted for 90 days.
    server.clock.advance(Duration::from_hours(80 * 24));
    server.sign_in("zoe").await.get(&path).await.expect(200).shows("2 in 90 days");
    for missing in ["/console/agents/{a}/keys/00000000-0000-7000-8000-000000000000", "/console/agents/{a}/keys/junk"] {
        let other = server.sign_in("zoe").await;
        other.get(&missing.replace("{a}", &agent.id)).await.expect(404);
    }
}
