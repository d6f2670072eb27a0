//! The frame around every page.

use aims::domain::Role;
use serde_json::json;

use super::invitations::add_passkey;
use crate::{
    both,
    support::{Browser, Database, PASSWORD, Server},
};

both!(
    navigation_is_grouped,
    exact_times_are_in_utc_or_local_time,
    messages_name_and_link_their_object,
    every_action_names_its_object,
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

type Form<'f> = &'f [(&'f str, &'f str)];
/// The path and the name of a link.
type Link<'l> = Option<(&'l str, &'l str)>;

async fn every_action_names_its_object(db: Database) {
    let server = Server::start(db).await;
    server.person("keeper", Role::Owner).await;
    let (zoe, eve) = (server.person("zoe", Role::Owner).await, server.person("eve", Role::Viewer).await);
    let browser = server.sign_in("zoe").await;
    add_passkey(&server, zoe, 1).await;
    let agent = server.agent("planner", &[]).await;
    let (x, keys) = ("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", format!("/agents/{}/public-keys", agent.id));
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "primary", "x": x });
    let key = server.admin.post(&keys, jwk).await.expect(201)[0]["id"].as_str().unwrap().to_owned();
    let trust = json!({ "issuer": "https://issuer.example", "audience": "aims", "claims": { "sub": "workload" } });
    let identities = format!("/agents/{}/federated-identities", agent.id);
    let identity = server.admin.post(&identities, trust).await.expect(201)["id"].as_str().unwrap().to_owned();
    let resource = [("name", "Tools <b>"), ("identifier", "https://mcp.example"), ("scope", "agents:read")];
    browser.post("/console/resources", &resource).await.redirects_to("/console/resources");
    let id = server.admin.get("/resources").await.expect(200)[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/console/resources/{id}");
    assert_eq!(
        message(&browser, "/console/resources").await,
        format!(
            "<bdi>Tools &#60;b&#62; created. Agents can request tokens for it now.</bdi> \
             <a class=\"wrap\" href=\"{path}\">View resource</a>"
        )
    );

    let (agent, person) = (format!("/console/agents/{}", agent.id), format!("/console/administrators/{eve}"));
    let passwords = [("new_password", PASSWORD), ("repeat_password", PASSWORD)];
    let passkey = "/console/account/passkeys/00000000-0000-7000-8000-000000000001/remove".to_owned();
    let (to_resource, to_person, to_agent) =
        (Some((&*path, "View resource")), Some((&*person, "View administrator")), Some((&*agent, "View agent")));
    let to_account = Some(("/console/account", "View account"));
    let acts: [(String, Form<'_>, &str, Link<'_>); 11] = [
        (path.clone(), &[("name", "Mail"), ("scope", "agents:read")], "Mail saved.", to_resource),
        (format!("{path}/delete"), &[], "Mail deleted. AIMS issues no more tokens for it.", None),
        (
            person.clone(),
            &[("display_name", "Eve"), ("role", "operator")],
            "Eve saved. A new role takes effect immediately.",
            to_person,
        ),
        (format!("{person}/disable"), &[], "Eve disabled and signed out everywhere.", to_person),
        (format!("{person}/enable"), &[], "Eve enabled. They can sign in again.", to_person),
        (format!("{person}/password"), &passwords, "Password of Eve reset. They are signed out everywhere.", to_person),
        (passkey, &[], "Passkey laptop deleted.", None),
        (
            format!("{agent}/public-keys/{key}/remove"),
            &[],
            "Public key primary of planner revoked, including the tokens issued for it.",
            to_agent,
        ),
        (
            format!("{agent}/federated-identities/{identity}/remove"),
            &[],
            "Federated identity https://issuer.example of planner revoked, including the tokens issued for it.",
            to_agent,
        ),
        (format!("{agent}/tokens/end"), &[], "1 token of planner revoked. Its keys still work.", to_agent),
        // The last one, because it takes away the role that the others require.
        (
            format!("/console/administrators/{zoe}"),
            &[("display_name", "Zoe"), ("role", "viewer")],
            "Zoe saved. You are no longer an owner.",
            to_account,
        ),
    ];
    for (path, form, text, link) in acts {
        let page = browser.post(&path, form).await.expect(303);
        let link = link.map(|(path, name)| format!(" <a class=\"wrap\" href=\"{path}\">{name}</a>"));
        let expected = format!("<bdi>{text}</bdi>{}", link.unwrap_or_default());
        assert_eq!(message(&browser, page.location()).await, expected, "{path}");
    }
}

/// Returns the message on a page, with its link.
async fn message(browser: &Browser, path: &str) -> String {
    let page = browser.get(path).await.expect(200);
    let (_, toast) = page.text.split_once("data-toast=").unwrap_or_else(|| panic!("no message in {}", page.text));
    let (_, message) = toast.split_once("<p>").unwrap();
    message.split("</p>").next().unwrap().to_owned()
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
