//! Agents, keys and grants in the console.

use aims::domain::Role;
use serde_json::json;

use crate::{
    both,
    support::{Browser, Database, Server, details},
};

both!(
    concurrent_edits_are_detected,
    invalid_forms_keep_their_input,
    key_is_shown_once_even_if_its_form_is_resubmitted,
    key_works_until_the_end_of_its_expiry_date,
    key_is_rotated_with_the_chosen_grace_period,
    operators_cannot_exceed_their_role,
    list_is_searched_sorted_and_paged_by_its_url,
    missing_items_show_a_helpful_page,
    records_name_the_actor,
);

fn id_of(path: &str) -> String {
    path.rsplit('/').next().unwrap().to_owned()
}

async fn create_agent(browser: &Browser, name: &str) -> String {
    let form = [("name", name), ("owner", "tests"), ("agent_type", "llm")];
    id_of(browser.post("/console/agents", &form).await.expect(303).location())
}

async fn concurrent_edits_are_detected(db: Database) {
    let server = Server::start(db).await;
    let (first, second) =
        (server.signed_in("ada", Role::Operator).await, server.signed_in("zoe", Role::Operator).await);
    let path = format!("/console/agents/{}", create_agent(&first, "shared").await);
    let edit = format!("{path}/edit");
    let (seen_by_first, seen_by_second) =
        (first.get(&edit).await.hidden("version"), second.get(&edit).await.hidden("version"));
    let form = |owner: &'static str, version: &str| {
        [("owner", owner.to_owned()), ("agent_type", "llm".to_owned()), ("version", version.to_owned())]
    };
    let send = |browser: &Browser, form: [(&'static str, String); 3]| {
        let (browser, path) = (browser.copy(), path.clone());
        async move {
            let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
            browser.post(&path, &form).await
        }
    };
    send(&first, form("ada's team", &seen_by_first)).await.redirects_to(&path);
    let page = send(&second, form("zoe's team", &seen_by_second)).await.expect(409);
    page.shows("Somebody else changed this agent in the meantime").shows("ada&#39;s team").shows("zoe&#39;s team");
    assert_eq!(server.admin.get("/agents?q=shared").await.expect(200)[0]["owner"], "ada's team");
    send(&second, form("zoe's team", &page.hidden("version"))).await.redirects_to(&path);
    let record = &server.audited("agent.updated").await[0];
    assert_eq!(details(record)["changes"]["owner"], json!({ "from": "ada's team", "to": "zoe's team" }));
}

async fn invalid_forms_keep_their_input(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let long = "d".repeat(10_001);
    let form =
        [("name", "no spaces"), ("owner", ""), ("agent_type", "robot"), ("description", &long), ("metadata_json", "{")];
    let page = browser.post("/console/agents", &form).await.expect(422);
    page.shows("value=\"no spaces\"")
        .shows(&long)
        .shows("Use only letters, digits, hyphens and underscores")
        .shows("This field is required");
    page.shows("Enter valid JSON").shows("Choose one of").shows("at most 10000 characters");
    create_agent(&browser, "taken").await;
    let form = [("name", "taken"), ("owner", "o"), ("agent_type", "llm")];
    browser.post("/console/agents", &form).await.expect(422).shows("Agent name already exists");
}

async fn key_is_shown_once_even_if_its_form_is_resubmitted(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let agent = create_agent(&browser, "reader").await;
    let path = format!("/console/agents/{agent}/keys");
    let id = browser.get(&format!("{path}/new")).await.expect(200).hidden("id");
    let form = [("id", id.as_str()), ("name", "prod"), ("life", "90")];
    let page = browser.post(&path, &form).await.expect(200);
    assert_eq!(page.headers["cache-control"], "no-store");
    let key = page.text.split("id=\"secret\" readonly value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    server.anonymous().exchange(&key).await.expect(200);
    // Reloading resubmits the form.
    let again = browser.post(&path, &form).await.expect(409);
    again.shows("This key already exists");
    assert!(!again.text.contains(&key[5..]));
    for later in [&path, &format!("/console/agents/{agent}"), &"/console/keys".to_owned(), &"/console/audit".to_owned()]
    {
        assert!(!browser.get(later).await.expect(200).text.contains(&key[13..]), "{later} shows the key");
    }
    let keys = server.admin.get(&format!("/agents/{agent}/keys")).await.expect(200);
    assert_eq!(keys.as_array().unwrap().len(), 1);
    let expected = (server.clock_secs() + 90 * 86_400) / 3_600;
    let expires = aims::domain::Timestamp::parse_rfc3339(keys[0]["expires_at"].as_str().unwrap()).unwrap();
    assert_eq!(expires.as_secs() / 3_600, expected);
    browser.get(&path).await.shows("1 use in 30 days").shows("127.0.0.1");
    let sessions = server.db.texts("SELECT data FROM sessions").await.join(" ");
    assert!(!sessions.contains(&key));

    for (form, message) in [
        (vec![("name", ""), ("life", "90")], "This field is required"),
        (vec![("name", "k"), ("life", "91")], "Choose an expiry"),
        (vec![("name", "k"), ("life", "7"), ("max_uses", "0")], "Enter a whole number from 1 to 1000000000"),
        (vec![("name", "k"), ("life", "7"), ("token_life_seconds", "a day")], "Enter a whole number from 1 to 86400"),
        (vec![("name", "k"), ("life", "7"), ("allowed_networks", "home")], "is neither"),
        (vec![("name", "k"), ("life", "7"), ("scope", "agent:read")], "is not registered"),
        (vec![("name", "k"), ("life", "date"), ("expires_on", "")], "Choose a date"),
        (vec![("name", "k"), ("life", "date"), ("expires_on", "2020-01-01")], "Choose a date in the future"),
    ] {
        browser.post(&path, &form).await.expect(422).shows(message);
    }
    let nothing = [("scope", ""), ("allowed_networks", " "), ("token_life_seconds", ""), ("max_uses", "")];
    browser.post(&path, &[&[("name", "ever"), ("life", "never")], nothing.as_slice()].concat()).await.expect(200);
    let limits =
        [("scope", "agents:read"), ("allowed_networks", "10.0.0.0/8"), ("token_life_seconds", "60"), ("max_uses", "5")];
    browser.post(&path, &[&[("name", "little"), ("life", "7")], limits.as_slice()].concat()).await.expect(200);
    let page = browser.get(&path).await.expect(200);
    for limit in ["Only agents:read", "Only from 10.0.0.0/8", "Token lifetime up to 60 s", "5 uses left"] {
        page.shows(limit);
    }
}

async fn key_works_until_the_end_of_its_expiry_date(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("ada", Role::Operator).await;
    let id = create_agent(&browser, "lasting").await;
    let path = format!("/console/agents/{id}/keys");
    let send = async |day: &str| {
        let form_id = browser.get(&format!("{path}/new")).await.expect(200).hidden("id");
        browser.post(&path, &[("id", &form_id), ("name", "k"), ("life", "date"), ("expires_on", day)]).await
    };
    for wrong in ["9999-12-31T12:00", "9999-12-31T12:00:00Z", "2026-02-01T12:00", "10000-01-01", "2026-02-30", "soon"] {
        send(wrong).await.expect(422).shows("Choose a date");
    }
    for day in ["2026-02-01", "9999-12-31"] {
        send(day).await.expect(200);
        let keys = server.admin.get(&format!("/agents/{id}/keys")).await.expect(200);
        let ends: Vec<_> = keys.as_array().unwrap().iter().map(|key| key["expires_at"].as_str().unwrap()).collect();
        assert!(ends.contains(&format!("{day}T23:59:59.000000Z").as_str()), "{ends:?}");
    }
    browser.get("/console/keys").await.expect(200);
}

async fn key_is_rotated_with_the_chosen_grace_period(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let agent = server.agent("reader", &[]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let path = format!("/console/agents/{}/keys/{}/rotate", agent.id, agent.key_id);
    browser.post(&path, &[("grace", "5")]).await.expect(422);
    browser
        .post(&path, &[("grace", "1")])
        .await
        .expect(200)
        .shows("Save this key now")
        .shows("The old key still works");
    browser.post(&path, &[("grace", "1")]).await.expect(422).shows("Only active keys can be rotated");
    browser.get("/console/keys?show=in_grace").await.shows("Old key last used").shows("data-countdown");
    server.anonymous().exchange(&agent.raw_key).await.expect(200);
    let end = format!("/console/agents/{}/keys/{}/revoke", agent.id, agent.key_id);
    browser.get(&end).await.shows("Revoke the old key");
    browser.post(&end, &[]).await.expect(303);
    server.anonymous().exchange(&agent.raw_key).await.expect(401);
    browser.get(&end).await.expect(400).shows("Key already revoked");
    let page = browser.get("/console/keys?show=in_grace").await.expect(200);
    page.shows("No keys");
}

async fn operators_cannot_exceed_their_role(db: Database) {
    let server = Server::start(db).await;
    let (boss, plain) = (server.agent("boss", &["admin:*"]).await, server.agent("plain", &["agents:read"]).await);
    let admin = server.capability("admin:*").await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let (boss_path, plain_path) = (format!("/console/agents/{}", boss.id), format!("/console/agents/{}", plain.id));
    for (path, form) in [
        (format!("{boss_path}/keys"), vec![("name", "k"), ("life", "90")]),
        (format!("{boss_path}/keys/{}/rotate", boss.key_id), vec![("grace", "0")]),
        (format!("{plain_path}/grants"), vec![("capability", admin.as_str())]),
        (format!("{boss_path}/suspend"), vec![]),
        (format!("{boss_path}/revoke"), vec![("confirm", "boss")]),
        (format!("{boss_path}/delete"), vec![("confirm", "boss")]),
        (format!("{boss_path}/grants/{admin}/remove"), vec![]),
    ] {
        let page = browser.post(&path, &form).await;
        assert!([403, 422].contains(&page.status.as_u16()) || page.status == 303, "{path}: {page:?}");
        if page.status == 303 {
            // Shown on the page that the browser is redirected to.
            browser.get(page.location()).await.shows("authority that you lack");
        } else {
            page.shows("authority that you lack");
        }
    }
    let boss_now = server.admin.get(&format!("/agents/{}", boss.id)).await.expect(200);
    assert_eq!(boss_now["status"], "active");
    assert_eq!(server.admin.get(&format!("/agents/{}/keys", boss.id)).await.expect(200).as_array().unwrap().len(), 1);
    boss.client.get("/agents").await.expect(200);
    plain.client.get("/audit").await.expect(403);
}

async fn list_is_searched_sorted_and_paged_by_its_url(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    for n in 0..60 {
        create_agent(&browser, &format!("agent-{n:02}")).await;
    }
    let names = |text: &str| {
        let cells = text.split("table__name clip\" href=\"").skip(1);
        cells.map(|cell| cell.split('>').nth(1).unwrap().split('<').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (sort, first, last) in [
        ("name", "admin", "agent-59"),
        ("name_backwards", "agent-59", "admin"),
        ("oldest", "admin", "agent-59"),
        ("newest", "agent-59", "admin"),
    ] {
        let mut path = format!("/console/agents?sort={sort}");
        let mut seen = Vec::new();
        loop {
            let page = browser.get(&path).await.expect(200);
            seen.extend(names(&page.text));
            let Some(next) = page.text.split("rel=\"next\" href=\"").nth(1) else { break };
            path = next.split('"').next().unwrap().replace("&#38;", "&");
        }
        assert_eq!(seen.len(), 61, "{sort}");
        assert_eq!((seen[0].as_str(), seen[60].as_str()), (first, last), "{sort}");
    }
    let page = browser.get("/console/agents?q=AGENT-3&sort=name&status=active&type=llm&owner=tests").await.expect(200);
    assert_eq!(names(&page.text).len(), 10);
    browser.get("/console/agents?q=nothing-like-it").await.expect(200).shows("No matching agents");
    for odd in ["?status=junk", "?type=robot", "?sort=random", "?cursor=junk", "?q=%00", "?q=a&q=b"] {
        browser.get(&format!("/console/agents{odd}")).await.expect(422).shows("Invalid input");
    }
    browser.get("/console/agents?unknown=1&q=").await.expect(200);
    browser.get("/console/agents?%ff=%zz").await;
}

async fn missing_items_show_a_helpful_page(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let agent = create_agent(&browser, "short-lived").await;
    let path = format!("/console/agents/{agent}");
    browser.post(&format!("{path}/delete"), &[("confirm", "other")]).await.expect(422).shows("The name does not match");
    browser.post(&format!("{path}/delete"), &[("confirm", "short-lived")]).await.redirects_to("/console/agents");
    for rest in ["/edit", "/keys", "/keys/new", "/grants", "/connect", "/suspend", "/revoke", "/delete", "/tokens/end"]
    {
        let page = browser.get(&format!("{path}{rest}")).await.expect(404);
        page.shows("Not found").shows("Request ID");
        assert!(page.text.contains(page.headers["x-request-id"].to_str().unwrap()));
    }
    for path in [
        "/console/nothing",
        "/console/agents/junk",
        "/console/audit/0",
        "/console/audit/x",
        "/console/capabilities/x",
        "/console/administrators/x",
    ] {
        browser.get(path).await.expect(404).shows("Not found");
    }
    browser.post("/console/audit", &[]).await.expect(405).shows("Method not allowed");
    browser
        .post("/console/agents", &[("description", &"x".repeat(300_000))])
        .await
        .expect(413)
        .shows("Request too large");
}

async fn records_name_the_actor(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let agent = create_agent(&browser, "reader").await;
    let record = &server.audited("agent.created").await[0];
    let person = server
        .db
        .texts(if server.db.is_sqlite() {
            "SELECT lower(hex(id)) FROM administrators"
        } else {
            "SELECT replace(CAST(id AS TEXT), '-', '') FROM administrators"
        })
        .await;
    assert_eq!(record["agent_id"].as_str().unwrap().replace('-', ""), person[0]);
    assert_eq!(record["resource_id"], agent.as_str());
    browser.get(&format!("/console/agents/{agent}/timeline")).await.shows("zoe").shows("agent.created");
}
