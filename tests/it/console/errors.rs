//! Error pages.

use aims::domain::Role;

use crate::{
    both,
    support::{Database, Server},
};

both!(signed_in_users_are_not_asked_to_sign_in, changing_ones_own_role_is_confirmed);

async fn signed_in_users_are_not_asked_to_sign_in(db: Database) {
    let server = Server::start(db).await;
    server.person("keeper", Role::Owner).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let unknown = "00000000-0000-7000-8000-000000000000";
    for (path, status) in [
        ("/console/nowhere".to_owned(), 404),
        (format!("/console/agents/{unknown}"), 404),
        ("/console/agents/new".to_owned(), 403),
        ("/console/agents?status=asleep".to_owned(), 422),
    ] {
        let page = browser.get(&path).await.expect(status);
        page.shows("Go to overview");
        assert!(!page.text.contains("/console/sign-in"), "{path}: {}", page.text);
    }
    server.browser().get("/console/nowhere").await.expect(404).shows("/console/sign-in");
}

async fn changing_ones_own_role_is_confirmed(db: Database) {
    let server = Server::start(db).await;
    server.person("keeper", Role::Owner).await;
    let zoe = server.person("zoe", Role::Owner).await;
    let browser = server.sign_in("zoe").await;
    let form = [("display_name", "Zoe"), ("role", "viewer")];
    browser.post(&format!("/console/administrators/{zoe}"), &form).await.redirects_to("/console");
    browser.get("/console").await.expect(200).shows("Changes saved.");
}
