//! Attacks on invitations and on the reset of second factors.

use std::{fs, time::Duration};

use aims::{
    domain::Role,
    service::{Caller, people::administrators},
};
use futures_util::future::join_all;
use reqwest::Method;

use crate::{
    both,
    console::invitations::{FORM, acts, add_passkey, invite},
    support::{Browser, COOKIE, Database, PASSWORD, Page, Server, details},
};

both!(
    dead_links_are_answered_alike,
    fifty_concurrent_uses_create_one_account,
    link_of_somebody_who_is_no_longer_an_owner_is_refused,
    role_of_the_invitation_cannot_be_changed,
    only_owners_with_a_recent_proof_invite_and_reset,
    owners_cannot_strip_their_own_factors,
    signed_in_browser_does_not_use_a_link,
    account_is_created_only_by_the_browser_that_opened_the_link,
    token_is_in_no_page_no_log_and_no_database,
    opening_links_is_rate_limited,
);

/// The answer without what differs between any two requests.
fn answer(page: &Page) -> (u16, String) {
    let id = page.headers["x-request-id"].to_str().unwrap();
    (page.status.as_u16(), page.text.replace(id, "REQUEST"))
}

async fn accept(browser: &Browser, link: &str) -> Page {
    browser.get(link).await.redirects_to("/console/invitation");
    browser.post("/console/invitation", &FORM).await
}

async fn dead_links_are_answered_alike(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let used = invite(&owner, "used", "viewer").await;
    accept(&server.browser(), &used).await.redirects_to("/console/account");
    let withdrawn = invite(&owner, "withdrawn", "viewer").await;
    owner.post(&acts(&owner, "/withdraw").await[0], &[]).await.redirects_to("/console/administrators");
    let replaced = invite(&owner, "replaced", "viewer").await;
    owner.post(&acts(&owner, "/renew").await[0], &[]).await.expect(200);
    let expired = invite(&owner, "expired", "viewer").await;
    // A browser that had opened the link in time gets no further, either.
    let opened = server.browser();
    opened.get(&expired).await.redirects_to("/console/invitation");
    opened.get("/console/invitation").await.expect(200);
    server.clock.advance(Duration::from_hours(72));
    let mut answers = Vec::new();
    for link in [used.as_str(), &withdrawn, &replaced, &expired, "/console/invitation?token=junk"] {
        let browser = server.browser();
        let page = browser.get(link).await;
        assert!(browser.cookie(COOKIE).is_none(), "a dead link must not begin a session");
        answers.push(answer(&page));
        let page = browser.post("/console/invitation", &FORM).await;
        assert_eq!(page.status.as_u16(), 403, "{link}");
    }
    answers.push(answer(&server.browser().get("/console/invitation").await));
    answers.push(answer(&opened.get("/console/invitation").await));
    assert!(answers.iter().all(|other| *other == answers[0]), "{answers:#?}");
    assert_eq!(answers[0].0, 403);
    for advice in ["This invitation link does not work", "Ask an owner to send you a new link", "/console/sign-in"] {
        assert!(answers[0].1.contains(advice), "{}", answers[0].1);
    }
    opened.post("/console/invitation", &FORM).await.expect(403);
    // The token from before the links expired has expired, too.
    let admin = server.anonymous().login(&server.admin_key).await;
    let refused = admin.get("/audit?action=auth.failed").await.expect(200);
    assert!(refused.as_array().unwrap().len() >= 5, "{refused}");
    assert_eq!(details(&refused[0])["reason"], "invalid_invitation");
    assert_eq!(server.db.count("SELECT COUNT(*) FROM administrators").await, 2);
}

async fn fifty_concurrent_uses_create_one_account(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let link = invite(&owner, "Ada", "owner").await;
    let attempts = (0..50).map(|n| {
        let (server, link) = (&server, &link);
        async move {
            let browser = server.browser();
            browser.get(link).await;
            let name = format!("guest-{n}");
            let mut form = FORM;
            form[0].1 = &name;
            browser.post("/console/invitation", &form).await.status.as_u16()
        }
    });
    let outcomes = join_all(attempts).await;
    assert_eq!(outcomes.iter().filter(|status| **status == 303).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|status| [303, 403, 503].contains(status)), "{outcomes:?}");
    assert_eq!(server.db.count("SELECT COUNT(*) FROM administrators").await, 2);
    assert_eq!(server.audited("invitation.accepted").await.len(), 1);
}

async fn link_of_somebody_who_is_no_longer_an_owner_is_refused(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let eve = server.person("eve", Role::Owner).await;
    let link = invite(&server.sign_in("eve").await, "Accomplice", "owner").await;
    let opened = server.browser();
    opened.get(&link).await.redirects_to("/console/invitation");

    let path = format!("/console/administrators/{eve}");
    owner.post(&path, &[("display_name", "Eve"), ("role", "operator")]).await.redirects_to(&path);
    owner.get("/console/administrators").await.expect(200).shows("Blocked").shows("eve is no longer an owner");
    server.browser().get(&link).await.expect(403);
    opened.post("/console/invitation", &FORM).await.expect(403);
    owner.post(&path, &[("display_name", "Eve"), ("role", "owner")]).await.redirects_to(&path);
    administrators::disable(&server.services, &Caller::system(), eve).await.unwrap();
    server.browser().get(&link).await.expect(403);
    opened.post("/console/invitation", &FORM).await.expect(403);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM administrators").await, 2);

    // An owner who renews it vouches for it.
    let page = owner.post(&acts(&owner, "/renew").await[0], &[]).await.expect(200);
    let link = crate::console::invitations::link(&page);
    accept(&server.browser(), &link).await.redirects_to("/console/account");
}

async fn role_of_the_invitation_cannot_be_changed(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let link = invite(&owner, "Ada", "viewer").await;
    let ada = server.browser();
    ada.get(&link).await.redirects_to("/console/invitation");
    let form: Vec<_> = FORM.into_iter().chain([("role", "owner"), ("token", "junk"), ("invited_by", "zoe")]).collect();
    ada.post("/console/invitation", &form).await.redirects_to("/console/account");
    ada.get("/console/administrators").await.expect(403);
    ada.get("/console/agents/new").await.expect(403);
    assert_eq!(server.db.texts("SELECT role FROM administrators WHERE username = 'ada'").await, ["viewer"]);
}

async fn only_owners_with_a_recent_proof_invite_and_reset(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let victim = server.person("victim", Role::Operator).await;
    add_passkey(&server, victim, 1).await;
    invite(&owner, "Ada", "viewer").await;
    let (renew, withdraw) = (acts(&owner, "/renew").await.remove(0), acts(&owner, "/withdraw").await.remove(0));
    let factors = format!("/console/administrators/{victim}/factors/passkeys");
    let create = "/console/administrators";
    let forms = [
        (create, vec![("recipient", "Eve"), ("role", "owner")]),
        (&renew, vec![]),
        (&withdraw, vec![]),
        (&factors, vec![]),
    ];
    for role in [Role::Viewer, Role::Operator] {
        let browser = server.signed_in(role.as_str(), role).await;
        for (path, form) in &forms {
            let page = browser.post(path, form).await.expect(403);
            assert!(!page.text.contains("?token="), "{}", page.text);
        }
        for path in ["/console/administrators", "/console/administrators/new", &factors] {
            browser.get(path).await.expect(403);
        }
    }
    for (path, form) in &forms {
        server.browser().post(path, form).await.expect(401);
    }
    server.clock.advance(Duration::from_mins(11));
    for (path, form) in &forms {
        let page = owner.post(path, form).await.expect(401);
        page.shows("Confirm your identity");
    }
    owner.get(&factors).await.expect(401).shows("Confirm your identity");
    assert_eq!(server.db.count("SELECT COUNT(*) FROM invitations").await, 1);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM passkeys").await, 1);
    assert!(server.audited("invitation.renewed").await.is_empty());
}

async fn owners_cannot_strip_their_own_factors(db: Database) {
    let server = Server::start(db).await;
    server.person("keeper", Role::Owner).await;
    let zoe = server.person("zoe", Role::Owner).await;
    add_passkey(&server, zoe, 1).await;
    let owner = server.sign_in("zoe").await;
    let path = format!("/console/administrators/{zoe}");
    owner.post(&format!("{path}/factors/passkeys"), &[]).await.redirects_to(&path);
    owner.get(&path).await.expect(200).shows("Remove your own second factor on your account page");
    assert_eq!(server.db.count("SELECT COUNT(*) FROM passkeys").await, 1);
}

async fn signed_in_browser_does_not_use_a_link(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let link = invite(&owner, "Ada", "viewer").await;
    owner.get(&link).await.expect(200).shows("You are signed in").shows("The link was not used");
    owner.post("/console/invitation", &FORM).await.redirects_to("/console/invitation");
    owner.get("/console").await.expect(200);
    accept(&server.browser(), &link).await.redirects_to("/console/account");
}

async fn account_is_created_only_by_the_browser_that_opened_the_link(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let link = invite(&owner, "Ada", "viewer").await;
    let token = link.split_once("token=").unwrap().1;
    let with_token: Vec<_> = FORM.into_iter().chain([("token", token)]).collect();
    server.browser().post("/console/invitation", &with_token).await.expect(403);
    let ada = server.browser();
    ada.get(&link).await.redirects_to("/console/invitation");
    let foreign = ada.request(Method::POST, "/console/invitation").header("sec-fetch-site", "cross-site");
    ada.send(foreign.form(&FORM)).await.expect(403).shows("did not come from the console");
    // A session cookie from before must not be kept, or an attacker who planted it would be signed in.
    let planted = ada.copy();
    ada.post("/console/invitation", &FORM).await.redirects_to("/console/account");
    assert_ne!(ada.cookie(COOKIE), planted.cookie(COOKIE));
    planted.get("/console/account").await.redirects_to("/console/sign-in?next=%2Fconsole%2Faccount");
    planted.get("/console/invitation").await.expect(403);
}

async fn token_is_in_no_page_no_log_and_no_database(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let link = invite(&owner, "Ada", "operator").await;
    let token = link.split_once("token=").unwrap().1;
    let ada = server.browser();
    let redirect = ada.get(&link).await.redirects_to("/console/invitation");
    assert_eq!(redirect.headers["referrer-policy"], "no-referrer");
    assert_eq!(redirect.headers["cache-control"], "no-store");
    let page = ada.get("/console/invitation").await.expect(200);
    assert!(!page.text.contains(token), "{}", page.text);
    let page = server.browser().get("/console/invitation?token=Zm9vYmFyLWJhei1xdXV4").await.expect(403);
    assert_eq!(page.headers["referrer-policy"], "no-referrer");
    assert!(!page.text.contains("Zm9vYmFyLWJhei1xdXV4"), "{}", page.text);
    for path in ["/console/administrators", "/console/audit"] {
        assert!(!owner.get(path).await.expect(200).text.contains(token), "{path}");
    }
    if server.db.is_sqlite() {
        for entry in fs::read_dir(server.db.folder.path()).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            assert!(
                !bytes.windows(token.len()).any(|window| window == token.as_bytes()),
                "the database holds the token"
            );
        }
    }
    ada.post("/console/invitation", &FORM).await.redirects_to("/console/account");
    let records = server.admin.get("/audit?limit=500").await.expect(200).to_string();
    assert!(!records.contains(token) && !records.contains(PASSWORD));
}

async fn opening_links_is_rate_limited(db: Database) {
    let server =
        Server::start_with(db, &[("RATE_LIMIT_API_PER_MINUTE", "5"), ("RATE_LIMIT_AUTH_PER_MINUTE", "5")]).await;
    let stranger = server.browser();
    let mut limited = [false; 2];
    for n in 0..20 {
        limited[0] |= stranger.get(&format!("/console/invitation?token={n}")).await.status == 429;
        limited[1] |= stranger.post("/console/invitation", &FORM).await.status == 429;
    }
    assert_eq!(limited, [true, true]);
}
