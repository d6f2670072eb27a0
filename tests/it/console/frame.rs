//! The frame around every page.

use aims::domain::Role;

use crate::{
    both,
    support::{Browser, Database, Server},
};

both!(
    navigation_is_grouped,
    exact_times_are_in_utc_or_local_time,
    messages_name_and_link_their_object,
    first_page_is_small,
    actions_return_to_pages_of_the_console_only,
);

async fn navigation_is_grouped(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await.get("/console").await.expect(200);
    let places: Vec<_> = [
        "<h2 class=\"nav__group\" id=\"nav-fleet\">Fleet</h2>",
        "Overview</a>",
        "Agents</a>",
        "API keys</a>",
        "id=\"nav-access\">Access",
        "Capabilities</a>",
        "Resources</a>",
        "id=\"nav-security\">Security",
        "Audit log</a>",
        "Signing keys</a>",
        "id=\"nav-settings\">Settings",
        "Administrators</a>",
        "Account</a>",
    ]
    .map(|text| owner.text.find(text).unwrap_or_else(|| panic!("{text} is missing from {}", owner.text)))
    .to_vec();
    assert!(places.is_sorted(), "{places:?}");
    let viewer = server.signed_in("ada", Role::Viewer).await.get("/console").await.expect(200);
    assert!(!viewer.text.contains("Administrators</a>"));
}

async fn exact_times_are_in_utc_or_local_time(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let page = browser.get("/console/agents").await.expect(200);
    page.shows("data-hint=\"20").shows(" UTC\" data-relative>");
    assert!(!page.text.contains("data-local-times"));
    let back = "/console/agents?q=a&sort=name";
    browser.post("/console/times", &[("times", "local"), ("back", back)]).await.redirects_to(back);
    browser.get("/console/agents").await.expect(200).shows("<html lang=\"en\" data-local-times>");
    browser.post("/console/times", &[("times", "utc"), ("back", back)]).await.redirects_to(back);
    assert!(!browser.get("/console/agents").await.expect(200).text.contains("data-local-times"));
}

async fn messages_name_and_link_their_object(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let flash = r#"{"message":"planner-us suspended.","good":true,"link":["planner-us","/console/agents/7"],"undo":{"path":"/console/agents/7/reactivate","fields":[["version","3"]]}}"#;
    set_flash(&server, flash).await;
    let page = browser.get("/console/agents").await.expect(200);
    page.shows("role=\"status\" data-toast=\"stay\"")
        .shows("planner-us suspended.")
        .shows("<a class=\"wrap\" href=\"/console/agents/7\">planner-us</a>")
        .shows("<form class=\"notice__undo\" method=\"post\" action=\"/console/agents/7/reactivate\" data-once>")
        .shows("<input type=\"hidden\" name=\"version\" value=\"3\">");
    assert!(!browser.get("/console/agents").await.expect(200).text.contains("data-toast"), "it is shown once");
    set_flash(&server, r#"{"message":"It failed.","good":false}"#).await;
    browser.get("/console/agents").await.expect(200).shows("role=\"alert\" data-toast=\"stay\"");
    set_flash(&server, r#"{"message":"Saved.","good":true}"#).await;
    browser.get("/console/agents").await.expect(200).shows("role=\"status\" data-toast=\"\"");
}

async fn set_flash(server: &Server, flash: &str) {
    server.db.execute(&format!("UPDATE sessions SET data = '{{\"flash\":{flash}}}'")).await;
}

async fn first_page_is_small(db: Database) {
    const MOST: usize = 110 * 1_024;
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let page = browser.get("/console").await.expect(200);
    let mut sizes = vec![("/console".to_owned(), page.text.len())];
    for part in page.text.split("/console/static/").skip(1) {
        let name = part.split(['"', '#']).next().unwrap();
        let path = format!("/console/static/{name}");
        if sizes.iter().all(|(known, _)| *known != path) {
            sizes.push((path.clone(), transferred(&browser, &path).await));
        }
    }
    assert_eq!(sizes.len(), 6, "style, two scripts, icons and favicon: {sizes:?}");
    let total: usize = sizes.iter().map(|(_, size)| size).sum();
    assert!(total <= MOST, "{total} bytes: {sizes:?}");
}

/// Returns the compressed size of a file.
async fn transferred(browser: &Browser, path: &str) -> usize {
    let request = browser.request(reqwest::Method::GET, path).header("accept-encoding", "gzip");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap().len()
}

async fn actions_return_to_pages_of_the_console_only(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    for (back, expected) in [
        ("/console/keys?show=idle", "/console/keys?show=idle"),
        ("https://example.com/console", "/console"),
        ("//example.com/console", "/console"),
        ("/console//example.com", "/console"),
        ("/consolehack", "/console"),
        ("", "/console"),
    ] {
        browser.post("/console/theme", &[("theme", "dark"), ("back", back)]).await.redirects_to(expected);
    }
}
