//! What cannot be undone, or gives power away, asks for a recent proof.

use std::time::Duration;

use aims::domain::Role;

use crate::{
    both,
    support::{Browser, COOKIE, Database, PASSWORD, Page, Server},
};

both!(
    sensitive_acts_ask_again_and_then_carry_on,
    a_page_that_asks_first_is_shown_after_the_proof,
    a_wrong_proof_changes_nothing,
    secrets_do_not_wait,
);

async fn prove(browser: &Browser, page: &Page) -> Page {
    let (path, body) = (page.hidden("waiting_path"), page.hidden("waiting_body"));
    browser.post("/console/confirm", &[("password", PASSWORD), ("waiting_path", &path), ("waiting_body", &body)]).await
}

async fn sensitive_acts_ask_again_and_then_carry_on(db: Database) {
    let server = Server::with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let target = server.agent("target", &["admin:*"]).await;
    let plain = server.agent("plain", &[]).await;
    let admin = server.capability("admin:*").await;
    let (target_path, plain_path) = (format!("/console/agents/{}", target.id), format!("/console/agents/{}", plain.id));
    let person = server.person("ada", Role::Viewer).await;
    let browser = server.signed_in("zoe", Role::Owner).await;

    let key = [("name", "k"), ("life", "90")];
    let acts: [(String, Vec<(&str, &str)>); 7] = [
        (format!("{target_path}/keys"), key.to_vec()),
        (format!("{target_path}/keys/{}/rotate", target.key_id), vec![("grace", "24")]),
        (format!("{plain_path}/grants"), vec![("capability", &admin)]),
        (format!("{plain_path}/keys/{}/revoke", plain.key_id), vec![]),
        (format!("{plain_path}/revoke"), vec![("confirm", "plain"), ("reason", "gone & \"done\"")]),
        (format!("{plain_path}/delete"), vec![("confirm", "plain")]),
        (format!("/console/administrators/{person}/disable"), vec![]),
    ];
    for (path, form) in &acts {
        server.clock.advance(Duration::from_mins(11));
        let before = server.admin.get("/audit?limit=1").await.expect(200)[0]["seq"].clone();
        let cookie = browser.cookie(COOKIE);
        let page = browser.post(path, form).await.expect(401);
        page.shows("Confirm that it is you");
        let after = server.admin.get("/audit?limit=1").await.expect(200)[0]["seq"].clone();
        assert_eq!(before, after, "{path} did something without a proof");

        let stale = browser.copy();
        let page = prove(&browser, &page).await.expect(200);
        assert_ne!(browser.cookie(COOKIE), cookie, "a proof must come with a new cookie");
        stale.get("/console/account").await.expect(303);
        page.shows(&format!("action=\"{path}\""));
        let kept: Vec<_> = form.iter().map(|(name, _)| (*name, page.hidden(name))).collect();
        let kept: Vec<_> = kept.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(&kept, form);
        let done = browser.post(path, &kept).await;
        assert!([200, 303].contains(&done.status.as_u16()), "{path}: {}", done.text);
    }
    assert_eq!(server.audited("console.proof_renewed").await.len(), acts.len());

    // What is neither asks for nothing.
    server.clock.advance(Duration::from_mins(11));
    let other = server.agent("other", &[]).await;
    browser.post(&format!("/console/agents/{}/keys", other.id), &key).await.expect(200);
    browser.post(&format!("/console/agents/{}/suspend", other.id), &[]).await.expect(303);
}

async fn a_page_that_asks_first_is_shown_after_the_proof(db: Database) {
    let server = Server::with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    server.clock.advance(Duration::from_mins(11));
    let page = browser.get("/console/administrators/new").await.expect(401);
    let next = page.hidden("next");
    let form = [("password", PASSWORD), ("next", &next)];
    browser.post("/console/confirm", &form).await.leads_to("/console/administrators/new");
    browser.get("/console/administrators/new").await.expect(200);
}

async fn a_wrong_proof_changes_nothing(db: Database) {
    let server = Server::with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let target = server.agent("target", &[]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    server.clock.advance(Duration::from_mins(11));
    let path = format!("/console/agents/{}/revoke", target.id);
    let page = browser.post(&path, &[("confirm", "target")]).await.expect(401);
    let (waiting, body) = (page.hidden("waiting_path"), page.hidden("waiting_body"));
    let form = [("password", "wrong"), ("waiting_path", waiting.as_str()), ("waiting_body", body.as_str())];
    let page = browser.post("/console/confirm", &form).await.expect(401);
    assert_eq!(page.hidden("waiting_path"), path);
    browser.post(&path, &[("confirm", "target")]).await.expect(401);
    server.browser().post("/console/confirm", &form).await.expect(401);
    assert_eq!(server.admin.get(&format!("/agents/{}", target.id)).await.expect(200)["status"], "active");
}

async fn secrets_do_not_wait(db: Database) {
    let server = Server::with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    server.clock.advance(Duration::from_mins(11));
    let form = [
        ("username", "ada"),
        ("display_name", "Ada"),
        ("role", "viewer"),
        ("new_password", "a lighthouse in the fog"),
        ("repeat_password", "a lighthouse in the fog"),
    ];
    let page = browser.post("/console/administrators", &form).await.expect(401);
    assert!(!page.text.contains("lighthouse"), "{}", page.text);
    page.shows("username=ada");
}
