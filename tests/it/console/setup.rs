//! Setting up the first owner.

use std::time::Duration;

use aims::service::people::setup;
use futures_util::future::join_all;

use crate::{
    both,
    support::{COOKIE, Database, PASSWORD, Server, details},
};

both!(
    setup_link_creates_one_owner_and_then_expires,
    invalid_setup_links_are_forbidden,
    fifty_concurrent_setups_create_one_owner,
    setup_form_explains_errors,
);

const FORM: [(&str, &str); 4] =
    [("username", "Zoe"), ("display_name", "Zoë Example"), ("new_password", PASSWORD), ("repeat_password", PASSWORD)];

async fn token(server: &Server) -> String {
    setup::make_token(&server.services).await.unwrap().expect("no administrator yet").expose().to_owned()
}

fn form(token: &str) -> Vec<(&str, &str)> {
    FORM.into_iter().chain([("token", token)]).collect()
}

async fn setup_link_creates_one_owner_and_then_expires(db: Database) {
    let server = Server::start(db).await;
    let (browser, token) = (server.browser(), token(&server).await);
    let path = format!("/console/setup?token={token}");
    browser.get(&path).await.expect(200).shows("Set up AIMS");
    browser.post("/console/setup", &form(&token)).await.redirects_to("/console");
    assert!(browser.cookie(COOKIE).is_some());
    browser.get("/console").await.expect(200).shows("Zoë Example");

    browser.get(&path).await.expect(404);
    browser.post("/console/setup", &form(&token)).await.expect(404);
    server.browser().get("/console/setup?token=junk").await.expect(404);
    assert!(setup::make_token(&server.services).await.unwrap().is_none(), "no second setup link must be issued");
    let created = &server.audited("administrator.created").await;
    assert_eq!(created.len(), 1);
    assert!(created[0]["agent_id"].is_null(), "the record must have no agent as actor");
}

async fn invalid_setup_links_are_forbidden(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let browser = server.browser();
    for path in ["/console/setup", "/console/setup?token=", "/console/setup?token=junk"] {
        let page = browser.get(path).await.expect(403);
        page.shows("This setup link is not valid or has expired").shows("aims setup-token");
        assert!(!page.text.contains("owner"), "no owner exists yet: {}", page.text);
    }
    browser.post("/console/setup", &form("junk")).await.expect(403);
    let refused = server.audited("auth.failed").await;
    assert_eq!(refused.len(), 4);
    assert_eq!(details(&refused[0])["reason"], "invalid_setup_link");

    let first = token(&server).await;
    let second = token(&server).await;
    browser.post("/console/setup", &form(&first)).await.expect(403);
    browser.get(&format!("/console/setup?token={second}")).await.expect(200);
    server.clock.advance(Duration::from_secs(3_601));
    browser.get(&format!("/console/setup?token={second}")).await.expect(403);
    browser.post("/console/setup", &form(&second)).await.expect(403);
    assert!(server.audited("administrator.created").await.is_empty());
}

async fn fifty_concurrent_setups_create_one_owner(db: Database) {
    let server = Server::start(db).await;
    let token = token(&server).await;
    let attempts = (0..50).map(|_| async {
        let browser = server.browser();
        let page = browser.post("/console/setup", &form(&token)).await;
        (page.status.as_u16(), browser.cookie(COOKIE).is_some())
    });
    let outcomes = join_all(attempts).await;
    let created: Vec<_> = outcomes.iter().filter(|(status, _)| *status == 303).collect();
    assert_eq!(created, [&(303, true)], "{outcomes:?}");
    assert!(outcomes.iter().all(|(status, _)| [303, 404, 503].contains(status)), "{outcomes:?}");
    assert_eq!(server.db.count("SELECT COUNT(*) FROM administrators").await, 1);
}

async fn setup_form_explains_errors(db: Database) {
    let server = Server::start(db).await;
    let (browser, token) = (server.browser(), token(&server).await);
    for (field, value, message) in [
        ("username", "", "This field is required"),
        ("username", "a b", "Use only letters, digits"),
        ("display_name", "", "This field is required"),
        ("new_password", "short", "at least 15"),
        ("new_password", "passwordpassword", "too common"),
        ("repeat_password", "another one altogether", "do not match"),
    ] {
        let mut sent = form(&token);
        sent.iter_mut().filter(|(name, _)| *name == field).for_each(|(_, sent)| *sent = value);
        let page = browser.post("/console/setup", &sent).await.expect(422);
        page.shows(message);
        assert!(!page.text.contains(PASSWORD), "the page must not echo a password");
        if field != "username" {
            page.shows("value=\"Zoe\"");
        }
    }
    browser.post("/console/setup", &form(&token)).await.redirects_to("/console");
}
