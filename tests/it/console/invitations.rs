//! Invitations, second factors in the list of administrators, and the reset of one factor.

use std::time::Duration;

use aims::domain::{AdministratorId, Role};

use super::account::{code, enable_authenticator};
use crate::{
    both,
    support::{Browser, COOKIE, Database, PASSWORD, Page, Server, details},
};

both!(
    invitation_creates_an_account,
    invitations_are_listed_renewed_and_withdrawn,
    invitation_forms_explain_errors,
    second_factors_are_listed_and_filtered,
    lost_authenticator_is_reset_alone,
    lost_passkeys_are_reset_alone,
);

pub const FORM: [(&str, &str); 4] =
    [("username", "ada"), ("display_name", "Ada Example"), ("new_password", PASSWORD), ("repeat_password", PASSWORD)];

/// Creates an invitation; returns the path of its link.
pub async fn invite(owner: &Browser, recipient: &str, role: &str) -> String {
    let page = owner.post("/console/administrators", &[("recipient", recipient), ("role", role)]).await.expect(200);
    link(&page)
}

/// Returns the path of the link that a page reveals.
pub fn link(page: &Page) -> String {
    let (_, after) = page.text.split_once("value=\"https://aims.test").unwrap_or_else(|| panic!("{}", page.text));
    after.split('"').next().unwrap().to_owned()
}

/// Returns the paths of the buttons and links that renew or withdraw invitations.
pub async fn acts(owner: &Browser, act: &str) -> Vec<String> {
    let page = owner.get("/console/administrators").await.expect(200);
    let paths = page.text.split("=\"/console/administrators/invitations/").skip(1);
    let paths = paths.map(|rest| format!("/console/administrators/invitations/{}", rest.split('"').next().unwrap()));
    paths.filter(|path| path.ends_with(act)).collect()
}

/// Adds a passkey as the console stores it.
pub async fn add_passkey(server: &Server, person: AdministratorId, n: u8) {
    let bytes = |id: &str| {
        let digits = id.replace('-', "");
        if server.db.is_sqlite() { format!("x'{digits}'") } else { format!("'{id}'") }
    };
    let (id, person) = (bytes(&format!("00000000-0000-7000-8000-0000000000{n:02}")), bytes(&person.to_string()));
    let credential = if server.db.is_sqlite() { format!("x'{n:02}'") } else { format!("'\\x{n:02}'") };
    let sql = format!(
        "INSERT INTO passkeys (id, administrator_id, credential_id, credential, name, created_at) \
         VALUES ({id}, {person}, {credential}, '{{}}', 'laptop', 1)"
    );
    server.db.execute(&sql).await;
}

async fn invitation_creates_an_account(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let page = owner.get("/console/administrators/new").await.expect(200);
    page.shows("for 72 hours").shows("you never see the password").shows("Create invitation link");
    let path = invite(&owner, "Ada of research", "operator").await;
    assert!(path.starts_with("/console/invitation?token="), "{path}");
    let list = owner.get("/console/administrators").await.expect(200);
    list.shows("Ada of research").shows("Expires").shows("in 3 days");
    assert!(!list.text.contains("?token="), "the link is shown only once");

    let ada = server.browser();
    ada.get(&path).await.redirects_to("/console/invitation");
    let page = ada.get("/console/invitation").await.expect(200);
    page.shows("Create your account").shows("zoe</strong> invited you").shows("an operator");
    ada.post("/console/invitation", &FORM).await.redirects_to("/console/account");
    assert!(ada.cookie(COOKIE).is_some());
    let account = ada.get("/console/account").await.expect(200);
    account.shows("Your account is ready. Protect it with a second factor").shows("Add authenticator app");
    ada.get("/console/agents/new").await.expect(200);
    ada.get("/console/administrators").await.expect(403);
    let form = [("username", "ada"), ("password", PASSWORD)];
    server.browser().post("/console/sign-in", &form).await.redirects_to("/console");

    let list = owner.get("/console/administrators").await.expect(200);
    assert!(list.text.contains("Ada Example") && !list.text.contains("Ada of research"), "{}", list.text);
    let invited = &server.audited("invitation.created").await[0];
    assert_eq!(invited["resource_type"], "invitation");
    assert_eq!(details(invited)["recipient"], "Ada of research");
    let accepted = details(&server.audited("invitation.accepted").await[0]);
    assert_eq!(
        [&accepted["username"], &accepted["role"], &accepted["invited_by"], &accepted["recipient"]],
        ["ada", "operator", "zoe", "Ada of research"]
    );
    assert_eq!(details(&server.audited("administrator.created").await[0])["username"], "ada");
    let method = details(&server.audited("console.signed_in").await[1])["method"].clone();
    assert_eq!(method, "invitation");
}

async fn invitations_are_listed_renewed_and_withdrawn(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let first = invite(&owner, "Ada", "viewer").await;
    server.clock.advance(Duration::from_hours(73));
    let owner_again = server.sign_in("zoe").await;
    server.browser().get(&first).await.expect(403);
    owner_again.get("/console/administrators").await.expect(200).shows("Expired");
    let renew = acts(&owner_again, "/renew").await;
    assert_eq!(renew.len(), 1);
    let page = owner_again.post(&renew[0], &[]).await.expect(200);
    page.shows("The earlier link no longer works");
    let second = link(&page);
    assert_ne!(first, second);
    server.browser().get(&first).await.expect(403);
    server.browser().get(&second).await.redirects_to("/console/invitation");

    let withdraw = acts(&owner_again, "/withdraw").await;
    owner_again.post(&withdraw[0], &[]).await.redirects_to("/console/administrators");
    let list = owner_again.get("/console/administrators").await.expect(200);
    list.shows("Invitation for Ada withdrawn. Its link no longer works.");
    server.browser().get(&second).await.expect(403);
    for path in renew.iter().chain(&withdraw) {
        owner_again.post(path, &[]).await.expect(404);
    }
    // The token from before the link expired has expired, too.
    let admin = server.anonymous().login(&server.admin_key).await;
    for action in ["invitation.created", "invitation.renewed", "invitation.withdrawn"] {
        let records = admin.get(&format!("/audit?action={action}")).await.expect(200);
        assert_eq!(records.as_array().unwrap().len(), 1, "{action}");
        assert_eq!(details(&records[0])["recipient"], "Ada", "{action}");
    }
}

async fn invitation_forms_explain_errors(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let path = "/console/administrators";
    for (recipient, role, message) in [
        ("", "viewer", "This field is required"),
        ("\u{202E}ada", "viewer", "Remove control characters"),
        ("Ada", "emperor", "Choose one of: viewer, operator, owner"),
        ("Ada", "", "Choose one of: viewer, operator, owner"),
    ] {
        owner.post(path, &[("recipient", recipient), ("role", role)]).await.expect(422).shows(message);
    }
    let link = invite(&owner, "Ada", "viewer").await;
    let page = owner.post(path, &[("recipient", "Ada"), ("role", "owner")]).await.expect(422);
    page.shows("There is already an invitation for this person. Renew or withdraw it instead");

    let ada = server.browser();
    ada.get(&link).await.redirects_to("/console/invitation");
    for (field, value, message) in [
        ("username", "", "This field is required"),
        ("username", "zoe", "This username is taken"),
        ("username", "z0e", "too similar to one in use: zoe"),
        ("display_name", "", "This field is required"),
        ("new_password", "short", "at least 15"),
        ("new_password", "passwordpassword", "too common"),
        ("repeat_password", "another one altogether", "do not match"),
    ] {
        let mut sent = FORM;
        sent.iter_mut().filter(|(name, _)| *name == field).for_each(|(_, sent)| *sent = value);
        let page = ada.post("/console/invitation", &sent).await.expect(422);
        page.shows(message);
        assert!(!page.text.contains(PASSWORD), "the page must not echo a password");
    }
    // A failed attempt does not use the link up.
    ada.post("/console/invitation", &FORM).await.redirects_to("/console/account");
}

async fn second_factors_are_listed_and_filtered(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let (ada, bob) = (server.person("ada", Role::Operator).await, server.person("bob", Role::Viewer).await);
    server.person("eve", Role::Operator).await;
    enable_authenticator(&server, &server.sign_in("ada").await).await;
    for n in 1..=2 {
        add_passkey(&server, bob, n).await;
    }
    add_passkey(&server, ada, 3).await;
    let list = owner.get("/console/administrators").await.expect(200);
    list.shows("Authenticator app, 1 passkey").shows("2 passkeys").shows("Without a second factor (2)");
    list.shows("href=\"/console/administrators?factor=none\"");
    let names = |page: &Page| {
        let rows = page.text.split("<span class=\"table__note clip\">").skip(1);
        rows.map(|rest| rest.split('<').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let without = owner.get("/console/administrators?factor=none").await.expect(200);
    assert_eq!(names(&without), ["eve", "zoe"]);
    without.shows("Active filters");
    let owners = owner.get("/console/administrators?factor=none&role=owner").await.expect(200);
    assert_eq!(names(&owners), ["zoe"]);
    let viewers = owner.get("/console/administrators?factor=none&role=viewer").await.expect(200);
    viewers.shows("Every administrator with this role has a second factor.");
    owner.get("/console/administrators?factor=some").await.expect(422);
    owner.get(&format!("/console/administrators/{bob}")).await.expect(200).shows("2 passkeys");
}

async fn lost_authenticator_is_reset_alone(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let ada = server.person("ada", Role::Operator).await;
    let session = server.sign_in("ada").await;
    let (secret, codes) = enable_authenticator(&server, &session).await;
    add_passkey(&server, ada, 1).await;
    let path = format!("/console/administrators/{ada}");
    owner.get(&path).await.expect(200).shows("Reset authenticator app").shows("Delete passkeys");
    let confirm = owner.get(&format!("{path}/factors/authenticator")).await.expect(200);
    confirm.shows("1 session").shows("Their password and their passkey stay.").shows("cannot be undone");

    // Somebody knows the password and waits for the code.
    let waiting = server.browser();
    let form = [("username", "ada"), ("password", PASSWORD)];
    waiting.post("/console/sign-in", &form).await.expect(200).shows("Two-factor authentication");
    owner.post(&format!("{path}/factors/authenticator"), &[]).await.redirects_to(&path);
    owner.get(&path).await.expect(200).shows("Authenticator app removed").shows("1 passkey");
    owner.get(&format!("{path}/factors/passkeys")).await.expect(200).shows("They have no active sessions.");
    session.get("/console/account").await.redirects_to("/console/sign-in?next=%2Fconsole%2Faccount");
    for stale in [code(&server, &secret), codes[0].clone()] {
        waiting.post("/console/sign-in/code", &[("code", &stale)]).await.expect(401);
    }
    assert_eq!(server.db.count("SELECT COUNT(*) FROM recovery_codes").await, 0);
    server.browser().post("/console/sign-in", &form).await.redirects_to("/console");
    let changed = details(&server.audited("administrator.factor_changed").await[0]);
    assert_eq!([&changed["factor"], &changed["change"], &changed["username"]], ["authenticator", "reset", "ada"]);
    assert!(server.audited("administrator.password_changed").await.is_empty());

    owner.post(&format!("{path}/factors/authenticator"), &[]).await.redirects_to(&path);
    owner.get(&path).await.expect(200).shows("This administrator has no authenticator app");
    owner.get(&format!("{path}/factors/password")).await.expect(404);
    owner.post(&format!("{path}/factors/password"), &[]).await.expect(404);
}

async fn lost_passkeys_are_reset_alone(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let ada = server.person("ada", Role::Operator).await;
    let session = server.sign_in("ada").await;
    enable_authenticator(&server, &session).await;
    add_passkey(&server, ada, 1).await;
    add_passkey(&server, ada, 2).await;
    let path = format!("/console/administrators/{ada}");
    let confirm = owner.get(&format!("{path}/factors/passkeys")).await.expect(200);
    confirm.shows("All 2 passkeys").shows("Their password and their authenticator app stay.");
    owner.post(&format!("{path}/factors/passkeys"), &[]).await.redirects_to(&path);
    owner.get(&path).await.expect(200).shows("Passkeys removed");
    assert_eq!(server.db.count("SELECT COUNT(*) FROM passkeys").await, 0);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM totp_secrets").await, 1);
    session.get("/console/account").await.redirects_to("/console/sign-in?next=%2Fconsole%2Faccount");
    let form = [("username", "ada"), ("password", PASSWORD)];
    server.browser().post("/console/sign-in", &form).await.expect(200).shows("Two-factor authentication");
    let changed = details(&server.audited("administrator.factor_changed").await[0]);
    assert_eq!((&changed["factor"], changed["removed"].as_i64()), (&"passkeys".into(), Some(2)));
}
