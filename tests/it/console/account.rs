//! The account page: password, sessions, authenticator app, recovery codes.

use std::time::Duration;

use aims::{
    clock::Clock,
    domain::{AuthFailure, Error, Role, Username, person::password::NewPassword},
    service::{
        Caller, Origin,
        people::{
            administrators, factors, sessions,
            sign_in::{self, Keys, Outcome},
        },
    },
};
use futures_util::future::join_all;
use totp_rs::{Algorithm, Builder, Secret};

use crate::{
    both,
    support::{Browser, COOKIE, Database, PASSWORD, Page, Server},
};

both!(
    changing_the_password_ends_all_other_sessions,
    sessions_can_be_listed_and_ended,
    code_is_required_and_works_once,
    recovery_code_works_once,
    wrong_codes_are_rate_limited,
    removing_a_second_factor_requires_a_recent_proof,
    password_change_ends_a_pending_sign_in,
    sign_in_of_another_person_ends_a_pending_sign_in,
    completed_sign_in_ends_the_previous_session,
    no_session_starts_after_the_password_changed,
    concurrent_codes_are_rate_limited,
    right_password_resets_no_limit_before_its_code,
    secret_of_a_pending_authenticator_is_encrypted,
    use_of_a_recovery_code_is_audited,
);

const OTHER: &str = "a lighthouse in the fog";
const GOOD: [(&str, &str); 2] = [("username", "zoe"), ("password", PASSWORD)];

async fn is_signed_in(browser: &Browser) -> bool {
    browser.get("/console/account").await.status.as_u16() == 200
}

async fn changing_the_password_ends_all_other_sessions(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let other = server.sign_in("zoe").await;
    let form = |present: &'static str, new: &'static str, repeated: &'static str| {
        [("present_password", present), ("new_password", new), ("repeat_password", repeated)]
    };
    let path = "/console/account/password";
    browser.post(path, &form("wrong", OTHER, OTHER)).await.expect(422).shows("The current password is incorrect");
    browser.post(path, &form(PASSWORD, OTHER, "different")).await.expect(422).shows("do not match");
    browser.post(path, &form(PASSWORD, "zoezoezoezoezoezoe", "zoezoezoezoezoezoe")).await.expect(422);
    assert!(is_signed_in(&other).await);
    let stale = browser.copy();
    browser.post(path, &form(PASSWORD, OTHER, OTHER)).await.redirects_to("/console/account");
    assert!(is_signed_in(&browser).await);
    assert!(!is_signed_in(&other).await && !is_signed_in(&stale).await);
    server.browser().post("/console/sign-in", &GOOD).await.expect(401);
    let form = [("username", "zoe"), ("password", OTHER)];
    server.browser().post("/console/sign-in", &form).await.redirects_to("/console");
    assert_eq!(server.audited("administrator.password_changed").await.len(), 1);
}

async fn sessions_can_be_listed_and_ended(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let (second, third) = (server.sign_in("zoe").await, server.sign_in("zoe").await);
    let somebody_else = server.signed_in("ada", Role::Owner).await;
    let page = browser.get("/console/account").await.expect(200);
    assert_eq!(page.text.matches("Firefox on Linux</span>").count(), 3, "{}", page.text);
    assert_eq!(page.text.matches("This session").count(), 1);
    for cookie in [&browser, &second, &third].map(|browser| browser.cookie(COOKIE).unwrap()) {
        assert!(!page.text.contains(&cookie), "the page must not contain a session cookie");
    }
    // Sorted by last use: the current session comes first.
    let ids: Vec<_> = page
        .text
        .match_indices("name=\"end\" value=\"")
        .map(|(at, mark)| page.text[at + mark.len()..].split('"').next().unwrap().to_owned())
        .collect();
    let path = "/console/account/sessions";
    somebody_else.post(path, &[("end", &ids[0])]).await.expect(404);
    browser.post(path, &[("end", "junk")]).await.expect(404);
    browser.post(path, &[("end", "others")]).await.redirects_to("/console/account");
    assert!(is_signed_in(&browser).await && !is_signed_in(&second).await && !is_signed_in(&third).await);
    browser.post(path, &[("end", "others")]).await.redirects_to("/console/account");
    browser.post(path, &[("end", "all")]).await.redirects_to("/console/sign-in");
    assert!(!is_signed_in(&browser).await && is_signed_in(&somebody_else).await);
}

/// Returns the code that an authenticator app shows now.
pub fn code(server: &Server, secret: &str) -> String {
    let secret = Secret::try_from_base32(secret).unwrap();
    let totp = Builder::new().with_algorithm(Algorithm::SHA1).with_digits(6).with_secret(secret).build().unwrap();
    totp.generate(u64::try_from(server.clock.now().as_secs()).unwrap()).to_string()
}

pub fn secret(page: &Page) -> String {
    let after = page.text.split("<code class=\"wrap\">").nth(1).unwrap();
    after.split('<').next().unwrap().to_owned()
}

/// Enables an authenticator app; returns its secret and the recovery codes.
pub async fn enable_authenticator(server: &Server, browser: &Browser) -> (String, Vec<String>) {
    let page = browser.get("/console/account/authenticator").await.expect(200);
    let secret = secret(&page);
    let path = "/console/account/authenticator";
    browser.post(path, &[("code", "000000")]).await.expect(422).shows("Enter the code that the app shows now");
    let page = browser.post(path, &[("code", &code(server, &secret))]).await.expect(200);
    let codes: Vec<_> = page.text.split("<li><code>").skip(1).map(|rest| rest[..19].to_owned()).collect();
    assert_eq!(codes.len(), 10, "{}", page.text);
    (secret, codes)
}

async fn code_is_required_and_works_once(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let (secret, _) = enable_authenticator(&server, &browser).await;
    let stored = server.db.texts("SELECT data FROM sessions").await.join(" ");
    assert!(!stored.contains(&secret), "the secret must leave the session");

    let second = server.browser();
    let page = second.post("/console/sign-in", &GOOD).await.expect(200);
    page.shows("Two-factor authentication");
    assert!(!is_signed_in(&second).await, "a session without its second factor must not be signed in");
    // The code that enabled the app cannot be used again.
    second.post("/console/sign-in/code", &[("code", &code(&server, &secret))]).await.expect(401);
    server.clock.advance(Duration::from_secs(30));
    let fresh = code(&server, &secret);
    second
        .post("/console/sign-in/code", &[("code", &fresh), ("next", "/console/keys")])
        .await
        .redirects_to("/console/keys");
    assert!(is_signed_in(&second).await);
    let third = server.browser();
    third.post("/console/sign-in", &GOOD).await.expect(200);
    third.post("/console/sign-in/code", &[("code", &fresh)]).await.expect(401);
    // The second step requires the password first.
    let form = [("code", fresh.as_str())];
    server.browser().post("/console/sign-in/code", &form).await.expect(401).shows("Enter your password again");
    let method = server.audited("console.signed_in").await[0]["details_json"].to_string();
    assert!(method.contains("authenticator"), "{method}");
}

async fn recovery_code_works_once(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let (_, codes) = enable_authenticator(&server, &browser).await;
    for (code, status) in
        [(codes[0].to_uppercase().replace('-', " "), 303), (codes[0].clone(), 401), (codes[1].clone(), 303)]
    {
        let other = server.browser();
        other.post("/console/sign-in", &GOOD).await.expect(200);
        other.post("/console/sign-in/code", &[("code", &code)]).await.expect(status);
        assert_eq!(is_signed_in(&other).await, status == 303);
    }
    browser.get("/console/account").await.shows("8 recovery codes left");
    let page = browser.post("/console/account/recovery-codes", &[]).await.expect(200);
    assert!(!page.text.contains(&codes[2]));
    let other = server.browser();
    other.post("/console/sign-in", &GOOD).await.expect(200);
    other.post("/console/sign-in/code", &[("code", &codes[2])]).await.expect(401);
    let hex = if server.db.is_sqlite() { "hex(code_hash)" } else { "encode(code_hash, 'hex')" };
    let hashes = server.db.texts(&format!("SELECT {hex} FROM recovery_codes")).await;
    assert!(hashes.len() == 10 && hashes.iter().all(|hash| hash.len() == 64), "{hashes:?}");
}

async fn wrong_codes_are_rate_limited(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let (secret, _) = enable_authenticator(&server, &browser).await;
    let other = server.browser();
    other.post("/console/sign-in", &GOOD).await.expect(200);
    let mut waits = 0;
    for n in 0..20 {
        let guess = format!("{:06}", 100_000 + n);
        let status = other.post("/console/sign-in/code", &[("code", &guess)]).await.status.as_u16();
        waits += usize::from(status == 429);
        assert!([401, 429].contains(&status));
    }
    assert!(waits >= 10, "{waits}");
    server.clock.advance(Duration::from_secs(31));
    // Even the right code has to wait.
    other.post("/console/sign-in/code", &[("code", "123456")]).await;
    let right = code(&server, &secret);
    other.post("/console/sign-in/code", &[("code", &right)]).await.expect(429);
}

async fn removing_a_second_factor_requires_a_recent_proof(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    enable_authenticator(&server, &browser).await;
    server.clock.advance(Duration::from_mins(11));
    browser.post("/console/account/authenticator/remove", &[]).await.expect(401).shows("Confirm your identity");
    browser.post("/console/account/recovery-codes", &[]).await.expect(401);
    browser.get("/console/account/authenticator").await.expect(401);
    browser.post("/console/confirm", &[("password", PASSWORD)]).await.expect(303);
    browser.post("/console/account/authenticator/remove", &[]).await.redirects_to("/console/account");
    server.browser().post("/console/sign-in", &GOOD).await.redirects_to("/console");
    assert_eq!(server.db.count("SELECT COUNT(*) FROM recovery_codes").await, 0);
}

async fn password_change_ends_a_pending_sign_in(db: Database) {
    let server = Server::start(db).await;
    let id = server.person("zoe", Role::Owner).await;
    let browser = server.sign_in("zoe").await;
    let (secret, recovery_codes) = enable_authenticator(&server, &browser).await;
    let (changed, reset, late) = (server.browser(), server.browser(), server.browser());
    let path = "/console/sign-in/code";

    changed.post("/console/sign-in", &GOOD).await.expect(200).shows("Two-factor authentication");
    let form = [("present_password", PASSWORD), ("new_password", OTHER), ("repeat_password", OTHER)];
    browser.post("/console/account/password", &form).await.redirects_to("/console/account");
    server.clock.advance(Duration::from_secs(30));
    let fresh = code(&server, &secret);
    for code in [&fresh, &recovery_codes[0]] {
        changed.post(path, &[("code", code)]).await.expect(401).shows("Enter your password again");
    }
    assert!(!is_signed_in(&changed).await);
    // No code was used up for the person who knows the new password.
    let form = [("username", "zoe"), ("password", OTHER)];
    reset.post("/console/sign-in", &form).await.expect(200).shows("Two-factor authentication");
    reset.post(path, &[("code", &recovery_codes[0])]).await.redirects_to("/console");

    reset.post("/console/sign-in", &form).await.expect(200).shows("Two-factor authentication");
    let password = NewPassword::parse("another river at dusk", &Username::parse("zoe").unwrap()).unwrap();
    administrators::reset_password(&server.services, &Caller::system(), id, password, false).await.unwrap();
    reset.post(path, &[("code", &fresh)]).await.expect(401);
    assert!(!is_signed_in(&reset).await);

    let form = [("username", "zoe"), ("password", "another river at dusk")];
    late.post("/console/sign-in", &form).await.expect(200).shows("Two-factor authentication");
    server.clock.advance(Duration::from_secs(301));
    let fresh = code(&server, &secret);
    let page = late.post(path, &[("code", &fresh), ("next", "/console/keys")]).await.expect(401);
    assert_eq!(page.hidden("next"), "/console/keys");
    assert!(!is_signed_in(&late).await);
    late.post("/console/sign-in/passkey/options", &[]).await.expect(200);
    late.post("/console/sign-in", &form).await.expect(200);
    late.post(path, &[("code", &fresh)]).await.redirects_to("/console");
}

async fn sign_in_of_another_person_ends_a_pending_sign_in(db: Database) {
    let server = Server::start(db).await;
    let (secret, _) = enable_authenticator(&server, &server.signed_in("zoe", Role::Owner).await).await;
    server.person("ada", Role::Viewer).await;
    server.clock.advance(Duration::from_secs(30));
    let browser = server.browser();
    browser.post("/console/sign-in", &GOOD).await.expect(200).shows("Two-factor authentication");
    browser.post("/console/sign-in", &[("username", "ada"), ("password", PASSWORD)]).await.redirects_to("/console");
    browser.post("/console/sign-in/code", &[("code", &code(&server, &secret))]).await.expect(401);
    let page = browser.get("/console/account").await.expect(200);
    assert!(page.text.contains("ada") && !page.text.contains("zoe"), "{}", page.text);
}

async fn completed_sign_in_ends_the_previous_session(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let (secret, _) = enable_authenticator(&server, &browser).await;
    server.clock.advance(Duration::from_secs(30));
    let before = browser.copy();
    for _ in 0..2 {
        browser.post("/console/sign-in", &GOOD).await.expect(200).shows("Two-factor authentication");
        assert!(is_signed_in(&before).await, "entering only the password must end no session");
    }
    browser.post("/console/sign-in/code", &[("code", &code(&server, &secret))]).await.redirects_to("/console");
    assert!(is_signed_in(&browser).await && !is_signed_in(&before).await);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM sessions").await, 1);
}

async fn no_session_starts_after_the_password_changed(db: Database) {
    let server = Server::start(db).await;
    let id = server.person("zoe", Role::Owner).await;
    let (_, recovery_codes) = enable_authenticator(&server, &server.sign_in("zoe").await).await;
    let (services, origin, key) = (&server.services, Origin::default(), [7; 32]);
    let proved = sign_in::with_password(services, &origin, "zoe", PASSWORD.to_owned()).await.unwrap();
    let Outcome::SecondFactor(pending) = proved else { panic!("{proved:?}") };
    let proof = factors::check_code(services, &origin, &pending, &recovery_codes[0]).await.unwrap();
    assert!(sessions::create(services, key, "{}".to_owned()).await.unwrap());
    // Change the password between the two steps, as a concurrent request might.
    let password = NewPassword::parse(OTHER, &Username::parse("zoe").unwrap()).unwrap();
    administrators::reset_password(services, &Caller::system(), id, password, false).await.unwrap();
    let begun = sign_in::begin(services, &origin, None, Keys { old: Vec::new(), new: key }, proof).await;
    assert!(matches!(begun, Err(Error::Unauthenticated(AuthFailure::WrongCredentials))), "{begun:?}");
    assert!(sessions::authenticate(services, origin, key).await.is_err());
}

async fn concurrent_codes_are_rate_limited(db: Database) {
    let server = Server::start(db).await;
    let (secret, recovery_codes) = enable_authenticator(&server, &server.signed_in("zoe", Role::Owner).await).await;
    server.clock.advance(Duration::from_secs(30));
    let other = server.browser();
    other.post("/console/sign-in", &GOOD).await.expect(200);
    let guesses: Vec<_> = (0..16).map(|n| format!("{:06}", 100_000 + n)).collect();
    let tries = guesses.iter().map(|guess| {
        let browser = other.copy();
        async move { browser.post("/console/sign-in/code", &[("code", guess)]).await.status.as_u16() }
    });
    let statuses = join_all(tries).await;
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 6, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 10, "{statuses:?}");
    assert_eq!(server.audited("console.sign_in_failed").await.len(), 6);
    // Right codes have to wait too, and are not used up.
    let right = code(&server, &secret);
    for code in [&right, &recovery_codes[0]] {
        other.post("/console/sign-in/code", &[("code", code)]).await.expect(429);
    }
    server.clock.advance(Duration::from_secs(2));
    other.copy().post("/console/sign-in/code", &[("code", &right)]).await.redirects_to("/console");
    // A successful sign-in is not counted as a guess.
    server.clock.advance(Duration::from_secs(30));
    other.post("/console/sign-in", &GOOD).await.expect(200);
    other.post("/console/sign-in/code", &[("code", "123456")]).await.expect(401);
    other.post("/console/sign-in/code", &[("code", &recovery_codes[0])]).await.redirects_to("/console");
}

async fn right_password_resets_no_limit_before_its_code(db: Database) {
    let server = Server::start(db).await;
    let (secret, _) = enable_authenticator(&server, &server.signed_in("zoe", Role::Owner).await).await;
    server.clock.advance(Duration::from_secs(30));
    let other = server.browser();
    other.post("/console/sign-in", &GOOD).await.expect(200);
    for _ in 0..5 {
        other.post("/console/sign-in/code", &[("code", "123456")]).await.expect(401);
    }
    // The right password does not reset the count of wrong codes.
    for _ in 0..32 {
        other.post("/console/sign-in", &GOOD).await.expect(200);
    }
    other.post("/console/sign-in/code", &[("code", "123456")]).await.expect(401);
    other.post("/console/sign-in/code", &[("code", &code(&server, &secret))]).await.expect(429);
}

async fn secret_of_a_pending_authenticator_is_encrypted(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let page = browser.get("/console/account/authenticator").await.expect(200);
    let stored = server.db.texts("SELECT data FROM sessions").await.join(" ");
    assert!(stored.contains("new_totp_secret") && !stored.contains(&secret(&page)), "{stored}");
    // The secret that was shown is the one that is stored.
    let path = "/console/account/authenticator";
    let again = browser.post(path, &[("code", "000000")]).await.expect(422);
    assert_eq!(secret(&again), secret(&page));
    browser.post(path, &[("code", &code(&server, &secret(&page)))]).await.expect(200);
}

async fn use_of_a_recovery_code_is_audited(db: Database) {
    let server = Server::start(db).await;
    let (_, recovery_codes) = enable_authenticator(&server, &server.signed_in("zoe", Role::Owner).await).await;
    let origin = Origin::default();
    let proved = sign_in::with_password(&server.services, &origin, "zoe", PASSWORD.to_owned()).await.unwrap();
    let Outcome::SecondFactor(pending) = proved else { panic!("{proved:?}") };
    // No session is created, as if the browser had disconnected.
    factors::check_code(&server.services, &origin, &pending, &recovery_codes[0]).await.unwrap();
    let changed = server.audited("administrator.factor_changed").await;
    let details: serde_json::Value = serde_json::from_str(changed[0]["details_json"].as_str().unwrap()).unwrap();
    assert_eq!(details, serde_json::json!({ "factor": "recovery codes", "change": "used", "left": 9 }));
    assert!(!changed[0]["agent_id"].is_null());
}
