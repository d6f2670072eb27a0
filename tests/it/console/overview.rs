//! The overview: what it counts, where its numbers lead, what needs attention and the setup steps.

use std::time::Duration;

use aims::domain::Role;
use serde_json::json;

use crate::{
    both,
    support::{Browser, Database, Page, Server},
};

both!(
    numbers_lead_to_exactly_what_they_count,
    ranges_are_in_the_url_and_in_every_link,
    agents_are_ranked_and_named,
    what_needs_attention_is_counted_with_links,
    agents_that_are_refused_repeatedly_need_attention,
    attention_is_dismissed_for_a_week_and_for_one_person,
    only_owners_learn_who_has_no_second_factor,
    the_checklist_ticks_itself_and_can_be_dismissed,
    the_bootstrap_key_ticks_nothing,
);

const DAY: Duration = Duration::from_hours(24);
/// Long enough to go on after days.
const OPTIONS: [(&str, &str); 2] = [("JWT_EXPIRATION_MINUTES", "1440"), ("AUDIT_REFUSALS_PER_MINUTE", "1000000")];

/// Returns the target of the first link whose text contains `text`.
#[track_caller]
fn link(page: &Page, text: &str) -> String {
    let at = page.text.find(text).unwrap_or_else(|| panic!("no {text:?} in {}", page.text));
    let start = page.text[..at].rfind("href=\"").expect("a link") + "href=\"".len();
    let href = &page.text[start..];
    href[..href.find('"').unwrap()].replace("&#38;", "&")
}

/// Returns how many records a link to the audit log leads to.
async fn records(browser: &Browser, href: &str) -> usize {
    browser.get(href).await.expect(200);
    let export = href.replace("/console/audit?", "/console/audit/export?format=jsonl&");
    assert_ne!(export, href, "not a link to the audit log");
    browser.get(&export).await.expect(200).text.lines().count()
}

async fn refuse(server: &Server, key: &str, times: usize) {
    for _ in 0..times {
        let status = server.anonymous().exchange(key).await.status;
        assert!([401, 403].contains(&status.as_u16()), "{status}");
    }
}

async fn numbers_lead_to_exactly_what_they_count(db: Database) {
    let server = Server::start_with(db, &OPTIONS).await;
    let agent = server.agent("reader", &["agents:read"]).await;
    // Not a part of the 24 hours that follow.
    refuse(&server, "aims_wrong", 2).await;
    server.clock.advance(2 * DAY);
    server.signed_in("zoe", Role::Owner).await;
    for _ in 0..2 {
        server.anonymous().exchange(&agent.raw_key).await.expect(200);
    }
    refuse(&server, "aims_wrong", 12).await;
    server.clock.advance(Duration::from_hours(3));
    let browser = server.sign_in("zoe").await;
    let page = browser.get("/console").await.expect(200);

    // The total, what needs attention, and the reason.
    page.shows("Refused <strong>12</strong>").shows("<strong>12</strong> requests refused in the last 24 hours");
    for text in ["Refused <strong>12</strong>", "<strong>12</strong> requests", "refused: Invalid key"] {
        assert_eq!(records(&browser, &link(&page, text)).await, 12, "{text}");
    }
    assert!(link(&page, "refused: Invalid key").contains("action=auth.failed&reason=invalid_key&"));
    // The kinds of issued tokens add up to the total.
    page.shows("Issued <strong>2</strong>");
    assert_eq!(records(&browser, &link(&page, "issued: For an API key")).await, 2);
    // A bar, its row in the table, and what was refused in it.
    let bars = page.text.matches("tabindex=\"-1\"><title>").count();
    assert_eq!(bars, 1, "only hours in which something happened are links");
    page.shows("12:00 to 13:00: Issued 2, Refused 12</title>");
    assert_eq!(records(&browser, &link(&page, "12<span class=\"sr-only\"> Refused, ")).await, 12);
    let all = records(&browser, &link(&page, "<title>3 Jan 2026, 12:00")).await;
    assert!(all > 14, "the bar leads to everything of its hour: {all}");
    // The week before has more.
    let week = browser.get("/console?range=7d").await.expect(200);
    week.shows("Refused <strong>14</strong>");
    assert_eq!(records(&browser, &link(&week, "Refused <strong>14")).await, 14);

    let path = format!("/agents/{}/suspend", agent.id);
    let admin = server.anonymous().login(&server.admin_key).await;
    admin.post_empty(&path).await.expect(200);
    let page = browser.get("/console").await;
    page.shows("<strong>1</strong> agent suspended");
    browser.get(&link(&page, "<strong>1</strong> agent suspended")).await.shows("reader");
    let counted = server.db.count("SELECT CAST(SUM(agents) AS BIGINT) FROM agent_counts").await;
    assert_eq!(counted, server.db.count("SELECT COUNT(*) FROM agents").await);
}

async fn ranges_are_in_the_url_and_in_every_link(db: Database) {
    let server = Server::start_with(db, &OPTIONS).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    refuse(&server, "aims_wrong", 1).await;
    for (range, label, unit) in [
        ("", "24 hours", "Hour (UTC)"),
        ("?range=7d", "7 days", "6 hours (UTC)"),
        ("?range=30d", "30 days", "Day (UTC)"),
    ] {
        let page = browser.get(&format!("/console{range}")).await.expect(200);
        let current = format!("href=\"/console{range}\" aria-current=\"true\">{label}</a>");
        page.shows(&current).shows(unit).shows("Refused <strong>1</strong>");
        assert_eq!(page.text.matches("aria-current=\"true\"").count(), 1);
        let reason = link(&page, "refused: Invalid key");
        let total = link(&page, "Refused <strong>1</strong>");
        let period = |href: &str| href[href.find("from=").unwrap()..].to_owned();
        assert_eq!(period(&reason), period(&total), "one page, one period");
        assert_eq!(records(&browser, &reason).await, 1);
    }
    for range in ["90d", "1y", "x"] {
        assert_ne!(browser.get(&format!("/console?range={range}")).await.status, 200, "{range}");
    }
}

async fn agents_are_ranked_and_named(db: Database) {
    let server = Server::start_with(db, &OPTIONS).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let page = browser.get("/console").await.expect(200);
    page.shows("None in this period");
    let (busy, quiet) = (server.agent("busy", &[]).await, server.agent("quiet", &[]).await);
    for _ in 0..4 {
        server.anonymous().exchange(&busy.raw_key).await.expect(200);
    }
    let path = format!("/agents/{}/keys/{}", quiet.id, quiet.key_id);
    server.admin.delete(&path).await.expect(204);
    refuse(&server, &quiet.raw_key, 3).await;
    let page = browser.get("/console?range=7d").await.expect(200);
    let place = |text: &str| page.text.find(text).unwrap_or_else(|| panic!("no {text:?} in {}", page.text));
    assert!(place("tokens issued: busy") < place("tokens issued: quiet"));
    assert_eq!(link(&page, "tokens issued: busy"), format!("/console/agents/{}?range=7d", busy.id));
    page.shows("<bdi>busy</bdi>").shows("5<span class=\"sr-only\"> tokens issued: busy</span>");
    page.shows("3<span class=\"sr-only\"> requests refused: quiet</span>");
    assert!(!page.text.contains("requests refused: busy"));
    let refused = link(&page, "requests refused: quiet");
    assert!(refused.contains(&format!("agent={}&outcome=refused&", quiet.id)), "{refused}");
    assert_eq!(records(&browser, &refused).await, 3);

    server.admin.delete(&format!("/agents/{}", quiet.id)).await.expect(204);
    browser.get("/console").await.shows(&format!("Deleted agent {}", quiet.id));
}

async fn what_needs_attention_is_counted_with_links(db: Database) {
    let server = Server::start_with(db, &OPTIONS).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let page = browser.get("/console").await.expect(200);
    // The key of admin has no expiry.
    assert_eq!(link(&page, "<strong>1</strong> key with admin:* never expires"), "/console/keys?expiry=never&admin=1");
    assert!(!page.text.contains("rotated key"), "{}", page.text);

    // Keys without an expiry of other agents are no concern; a rotated key is one as long as it is used.
    let agent = server.agent("rotating", &[]).await;
    let rotate = format!("/agents/{}/keys/{}/rotate", agent.id, agent.key_id);
    server.admin.post_empty(&rotate).await.expect(200);
    let page = browser.get("/console").await.expect(200);
    page.shows("<strong>1</strong> key with admin:*");
    assert!(!page.text.contains("rotated key"), "it was not used since");
    server.clock.advance(Duration::from_mins(1));
    server.anonymous().exchange(&agent.raw_key).await.expect(200);
    let page = browser.get("/console").await.expect(200);
    assert_eq!(link(&page, "<strong>1</strong> rotated key still used"), "/console/keys?grace=used");
    server.clock.advance(DAY);
    let browser = server.sign_in("zoe").await;
    assert!(!browser.get("/console").await.text.contains("rotated key"), "its grace period has ended");

    // A key that expires in six days; later it counts as unused.
    let admin = server.anonymous().login(&server.admin_key).await;
    let other = admin.post("/agents", json!({ "name": "other", "owner": "tests" })).await.expect(201);
    let path = format!("/console/agents/{}/keys", other["id"].as_str().unwrap());
    browser.post(&path, &[("name", "soon"), ("life", "7")]).await.expect(200);
    server.clock.advance(DAY);
    let browser = server.sign_in("zoe").await;
    let page = browser.get("/console").await;
    browser.get(&link(&page, "<strong>1</strong> key expires within 7 days")).await.shows("soon");
    server.clock.advance(91 * DAY);
    let browser = server.sign_in("zoe").await;
    let page = browser.get("/console").await;
    page.shows("keys unused for 90 days");
    browser.get(&link(&page, "keys unused for 90 days")).await.shows("rotating");
}

async fn agents_that_are_refused_repeatedly_need_attention(db: Database) {
    let server = Server::start_with(db, &OPTIONS).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    for number in 0..7 {
        let agent = server.agent(&format!("broken-{number}"), &[]).await;
        let path = format!("/agents/{}/keys/{}", agent.id, agent.key_id);
        server.admin.delete(&path).await.expect(204);
        refuse(&server, &agent.raw_key, if number == 0 { 9 } else { 10 + number }).await;
    }
    let page = browser.get("/console").await.expect(200);
    page.shows("<strong>6</strong> agents refused repeatedly").shows("10 times or more in the last 24 hours");
    page.shows("<summary>1 more</summary>");
    let named = link(&page, "<bdi>broken-6</bdi>");
    assert!(named.starts_with("/console/audit?agent=") && named.contains("&outcome=refused&from="), "{named}");
    assert!(!page.text.contains("<bdi>broken-0</bdi></a><span"), "9 are not many");
}

async fn attention_is_dismissed_for_a_week_and_for_one_person(db: Database) {
    const CONCERN: &str = "</strong> key with admin:* never expires</a>";
    let server = Server::start_with(db, &OPTIONS).await;
    let (zoe, max) = (server.signed_in("zoe", Role::Viewer).await, server.signed_in("max", Role::Viewer).await);
    zoe.get("/console?range=7d").await.shows(CONCERN);
    let form = [("item", "never_expiring"), ("back", "/console?range=7d")];
    zoe.post("/console/overview/dismiss", &form).await.redirects_to("/console?range=7d");
    let page = zoe.get("/console?range=7d").await;
    page.shows("Dismissed for a week: keys with admin:* that never expire.").shows("1 dismissed</summary>");
    assert!(!page.text.contains(CONCERN));
    max.get("/console").await.shows(CONCERN);

    zoe.post("/console/overview/restore", &form).await.redirects_to("/console?range=7d");
    zoe.get("/console").await.shows("Shown again: keys with admin:* that never expire.").shows(CONCERN);
    zoe.post("/console/overview/dismiss", &form).await.expect(303);
    server.clock.advance((7 * DAY).checked_sub(Duration::from_mins(1)).unwrap());
    let zoe = server.sign_in("zoe").await;
    assert!(!zoe.get("/console").await.text.contains(CONCERN));
    server.clock.advance(Duration::from_mins(1));
    zoe.get("/console").await.shows(CONCERN);

    // Only what is on the page can be dismissed, and the way back leads nowhere else.
    zoe.post("/console/overview/dismiss", &[("item", "other")]).await.expect(404);
    let elsewhere = [("item", "idle"), ("back", "https://example.com/console")];
    zoe.post("/console/overview/dismiss", &elsewhere).await.redirects_to("/console");
    assert_eq!(server.db.count("SELECT COUNT(*) FROM overview_marks").await, 2);
}

async fn only_owners_learn_who_has_no_second_factor(db: Database) {
    let server = Server::start_with(db, &OPTIONS).await;
    let (owner, viewer) = (server.signed_in("zoe", Role::Owner).await, server.signed_in("ada", Role::Viewer).await);
    let max = server.person("max", Role::Owner).await;
    server.person("operator", Role::Operator).await;
    let page = owner.get("/console").await.expect(200);
    page.shows("<strong>2</strong> owners without a second factor").shows("<bdi>zoe</bdi>");
    assert_eq!(link(&page, "<bdi>max</bdi>"), format!("/console/administrators/{max}"));
    assert!(!page.text.contains("<bdi>operator</bdi>"));
    let page = viewer.get("/console").await.expect(200);
    assert!(!page.text.contains("second factor") && !page.text.contains("Get started"));

    server.db.execute("UPDATE administrators SET totp_enabled_at = 1 WHERE username = 'max'").await;
    owner.get("/console").await.shows("<strong>1</strong> owner without a second factor");
    server.db.execute("UPDATE administrators SET disabled_at = 1 WHERE username = 'max'").await;
    give_passkey(&server, "zoe").await;
    assert!(!owner.get("/console").await.text.contains("second factor"));
}

async fn give_passkey(server: &Server, username: &str) {
    let insert = format!(
        "INSERT INTO passkeys (id, administrator_id, credential_id, credential, name, created_at) \
         SELECT id, id, {}, '{{}}', 'laptop', 1 FROM administrators WHERE username = '{username}'",
        if server.db.is_sqlite() { "x'01'" } else { "'\\x01'" }
    );
    server.db.execute(&insert).await;
}

/// Returns how many steps are done and how many are not.
fn steps(page: &Page) -> (usize, usize) {
    (page.text.matches(">Done: </span>").count(), page.text.matches(">To do: </span>").count())
}

async fn the_checklist_ticks_itself_and_can_be_dismissed(db: Database) {
    let server = Server::start_with(db, &OPTIONS).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let page = browser.get("/console").await.expect(200);
    page.shows("Get started");
    assert_eq!(steps(&page), (0, 5));
    assert_eq!(link(&page, ">Create an agent</a>"), "/console/agents/new");

    let agent = server.admin.post("/agents", json!({ "name": "first", "owner": "tests" })).await.expect(201);
    let id = agent["id"].as_str().unwrap();
    let page = browser.get("/console").await;
    assert_eq!(steps(&page), (1, 4));
    assert_eq!(link(&page, ">Make its first exchange</a>"), format!("/console/agents/{id}/connect"));
    let key = server.admin.post(&format!("/agents/{id}/keys"), json!({})).await.expect(201);
    server.anonymous().exchange(key["raw_key"].as_str().unwrap()).await.expect(200);
    assert_eq!(steps(&browser.get("/console").await), (2, 3));
    server.person("max", Role::Owner).await;
    assert_eq!(steps(&browser.get("/console").await), (3, 2));
    give_passkey(&server, "zoe").await;
    assert_eq!(steps(&browser.get("/console").await), (4, 1));

    // Dismissed, shown again, and the last step ticked by hand.
    let form = [("item", "checklist"), ("back", "/console")];
    browser.post("/console/overview/dismiss", &form).await.redirects_to("/console");
    let page = browser.get("/console").await;
    page.shows("Checklist dismissed.").shows("setup checklist");
    assert!(!page.text.contains("Get started"));
    server.clock.advance(30 * DAY);
    let browser = server.sign_in("zoe").await;
    assert!(!browser.get("/console").await.text.contains("Get started"), "it stays dismissed");
    browser.post("/console/overview/restore", &form).await.redirects_to("/console");
    browser.get("/console").await.shows("Mark as done");
    browser.post("/console/overview/dismiss", &[("item", "backup")]).await.redirects_to("/console");
    let page = browser.get("/console").await;
    page.shows("Backup marked as planned.");
    assert!(!page.text.contains("Get started"), "nothing is left to do");
    browser.post("/console/overview/restore", &[("item", "backup")]).await.redirects_to("/console");
    browser.get("/console").await.shows("Get started");
}

async fn the_bootstrap_key_ticks_nothing(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    for _ in 0..3 {
        server.anonymous().exchange(&server.admin_key).await.expect(200);
    }
    let page = browser.get("/console").await.expect(200);
    page.shows("Get started");
    assert_eq!(steps(&page), (0, 5), "the key of admin is no agent's first exchange");
}
