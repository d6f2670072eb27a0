//! One's own account: password, sessions, authenticator, recovery codes.

use std::time::Duration;

use aims::{
    clock::Clock,
    domain::{AuthFailure, Error, Role, Username, password::NewPassword},
    service::{
        Caller, Origin, administrators, factors, sessions,
        sign_in::{self, Keys, Outcome},
    },
};
use futures_util::future::join_all;
use totp_rs::{Algorithm, Builder, Secret};

use crate::{
    both,
    support::{Browser, COOKIE, Database, PASSWORD, Page, Server},
};

both!(
    a_new_password_ends_every_other_session,
    sessions_are_listed_and_ended,
    a_code_is_asked_for_and_works_once,
    a_recovery_code_works_once,
    guessing_codes_is_slowed_down,
    a_second_factor_is_removed_with_a_proof,
    a_half_done_sign_in_ends_with_its_password,
    a_half_done_sign_in_ends_when_somebody_else_signs_in,
    a_second_factor_ends_the_session_from_before,
    no_session_begins_once_the_password_is_another,
    codes_that_come_at_once_are_not_all_judged,
    a_right_password_counts_for_nothing_until_its_code_is_given,
    the_secret_of_a_new_authenticator_is_sealed,
    a_recovery_code_is_used_up_on_the_record,
);

const OTHER: &str = "a lighthouse in the fog";
const GOOD: [(&str, &str); 2] = [("username", "zoe"), ("password", PASSWORD)];

async fn is_in(browser: &Browser) -> bool {
    browser.get("/console/account").await.status.as_u16() == 200
}

async fn a_new_password_ends_every_other_session(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let other = server.sign_in("zoe").await;
    let form = |present: &'static str, new: &'static str, repeated: &'static str| {
        [("present_password", present), ("new_password", new), ("repeat_password", repeated)]
    };
    let path = "/console/account/password";
    browser.post(path, &form("wrong", OTHER, OTHER)).await.expect(422).shows("not your present password");
    browser.post(path, &form(PASSWORD, OTHER, "different")).await.expect(422).shows("differ");
    browser.post(path, &form(PASSWORD, "zoezoezoezoezoezoe", "zoezoezoezoezoezoe")).await.expect(422);
    assert!(is_in(&other).await);
    let stale = browser.copy();
    browser.post(path, &form(PASSWORD, OTHER, OTHER)).await.leads_to("/console/account");
    assert!(is_in(&browser).await);
    assert!(!is_in(&other).await && !is_in(&stale).await);
    server.browser().post("/console/sign-in", &GOOD).await.expect(401);
    let form = [("username", "zoe"), ("password", OTHER)];
    server.browser().post("/console/sign-in", &form).await.leads_to("/console");
    assert_eq!(server.audited("administrator.password_changed").await.len(), 1);
}

async fn sessions_are_listed_and_ended(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let (second, third) = (server.sign_in("zoe").await, server.sign_in("zoe").await);
    let somebody_else = server.signed_in("ada", Role::Owner).await;
    let page = browser.get("/console/account").await.expect(200);
    assert_eq!(page.text.matches("Firefox on Linux</span>").count(), 3, "{}", page.text);
    assert_eq!(page.text.matches("this one").count(), 1);
    for cookie in [&browser, &second, &third].map(|browser| browser.cookie(COOKIE).unwrap()) {
        assert!(!page.text.contains(&cookie), "a cookie is shown");
    }
    // Listed last used first: the one that was just used is this one.
    let ids: Vec<_> = page
        .text
        .match_indices("name=\"end\" value=\"")
        .map(|(at, mark)| page.text[at + mark.len()..].split('"').next().unwrap().to_owned())
        .collect();
    let path = "/console/account/sessions";
    somebody_else.post(path, &[("end", &ids[0])]).await.expect(404);
    browser.post(path, &[("end", "junk")]).await.expect(404);
    browser.post(path, &[("end", "others")]).await.leads_to("/console/account");
    assert!(is_in(&browser).await && !is_in(&second).await && !is_in(&third).await);
    browser.post(path, &[("end", "others")]).await.leads_to("/console/account");
    browser.post(path, &[("end", "all")]).await.leads_to("/console/sign-in");
    assert!(!is_in(&browser).await && is_in(&somebody_else).await);
}

/// The code that an app shows now for a secret.
pub fn code(server: &Server, secret: &str) -> String {
    let secret = Secret::try_from_base32(secret).unwrap();
    let totp = Builder::new().with_algorithm(Algorithm::SHA1).with_digits(6).with_secret(secret).build().unwrap();
    totp.generate(u64::try_from(server.clock.now().as_secs()).unwrap()).to_string()
}

pub fn secret(page: &Page) -> String {
    let after = page.text.split("<code class=\"wrap\">").nth(1).unwrap();
    after.split('<').next().unwrap().to_owned()
}

/// Takes an authenticator in use; gives its secret and the recovery codes.
async fn enable(server: &Server, browser: &Browser) -> (String, Vec<String>) {
    let page = browser.get("/console/account/authenticator").await.expect(200);
    let secret = secret(&page);
    let path = "/console/account/authenticator";
    browser.post(path, &[("code", "000000")]).await.expect(422).shows("not the app&#39;s present code");
    let page = browser.post(path, &[("code", &code(server, &secret))]).await.expect(200);
    let codes: Vec<_> = page.text.split("<li><code>").skip(1).map(|rest| rest[..19].to_owned()).collect();
    assert_eq!(codes.len(), 10, "{}", page.text);
    (secret, codes)
}

async fn a_code_is_asked_for_and_works_once(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let (secret, _) = enable(&server, &browser).await;
    let stored = server.db.texts("SELECT data FROM sessions").await.join(" ");
    assert!(!stored.contains(&secret), "the secret stays in the session");

    let second = server.browser();
    let page = second.post("/console/sign-in", &GOOD).await.expect(200);
    page.shows("Second step");
    assert!(!is_in(&second).await, "half signed in is not signed in");
    // The code that took the app in use is used up.
    second.post("/console/sign-in/code", &[("code", &code(&server, &secret))]).await.expect(401);
    server.clock.advance(Duration::from_secs(30));
    let fresh = code(&server, &secret);
    second
        .post("/console/sign-in/code", &[("code", &fresh), ("next", "/console/keys")])
        .await
        .leads_to("/console/keys");
    assert!(is_in(&second).await);
    let third = server.browser();
    third.post("/console/sign-in", &GOOD).await.expect(200);
    third.post("/console/sign-in/code", &[("code", &fresh)]).await.expect(401);
    // Without the password there is no second step.
    let form = [("code", fresh.as_str())];
    server.browser().post("/console/sign-in/code", &form).await.expect(401).shows("Give your password again");
    let method = server.audited("console.signed_in").await[0]["details_json"].to_string();
    assert!(method.contains("authenticator"), "{method}");
}

async fn a_recovery_code_works_once(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let (_, codes) = enable(&server, &browser).await;
    for (code, status) in
        [(codes[0].to_uppercase().replace('-', " "), 303), (codes[0].clone(), 401), (codes[1].clone(), 303)]
    {
        let other = server.browser();
        other.post("/console/sign-in", &GOOD).await.expect(200);
        other.post("/console/sign-in/code", &[("code", &code)]).await.expect(status);
        assert_eq!(is_in(&other).await, status == 303);
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

async fn guessing_codes_is_slowed_down(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let (secret, _) = enable(&server, &browser).await;
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
    // The right code has to wait too.
    other.post("/console/sign-in/code", &[("code", "123456")]).await;
    let right = code(&server, &secret);
    other.post("/console/sign-in/code", &[("code", &right)]).await.expect(429);
}

async fn a_second_factor_is_removed_with_a_proof(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    enable(&server, &browser).await;
    server.clock.advance(Duration::from_mins(11));
    browser.post("/console/account/authenticator/remove", &[]).await.expect(401).shows("Confirm that it is you");
    browser.post("/console/account/recovery-codes", &[]).await.expect(401);
    browser.get("/console/account/authenticator").await.expect(401);
    browser.post("/console/confirm", &[("password", PASSWORD)]).await.expect(303);
    browser.post("/console/account/authenticator/remove", &[]).await.leads_to("/console/account");
    server.browser().post("/console/sign-in", &GOOD).await.leads_to("/console");
    assert_eq!(server.db.count("SELECT COUNT(*) FROM recovery_codes").await, 0);
}

async fn a_half_done_sign_in_ends_with_its_password(db: Database) {
    let server = Server::start(db).await;
    let id = server.person("zoe", Role::Owner).await;
    let browser = server.sign_in("zoe").await;
    let (secret, recovery_codes) = enable(&server, &browser).await;
    let (changed, reset, late) = (server.browser(), server.browser(), server.browser());
    let path = "/console/sign-in/code";

    changed.post("/console/sign-in", &GOOD).await.expect(200).shows("Second step");
    let form = [("present_password", PASSWORD), ("new_password", OTHER), ("repeat_password", OTHER)];
    browser.post("/console/account/password", &form).await.leads_to("/console/account");
    server.clock.advance(Duration::from_secs(30));
    let fresh = code(&server, &secret);
    for code in [&fresh, &recovery_codes[0]] {
        changed.post(path, &[("code", code)]).await.expect(401).shows("Give your password again");
    }
    assert!(!is_in(&changed).await);
    // Nothing was used up for whoever knows the new password.
    let form = [("username", "zoe"), ("password", OTHER)];
    reset.post("/console/sign-in", &form).await.expect(200).shows("Second step");
    reset.post(path, &[("code", &recovery_codes[0])]).await.leads_to("/console");

    reset.post("/console/sign-in", &form).await.expect(200).shows("Second step");
    let password = NewPassword::parse("another river at dusk", &Username::parse("zoe").unwrap()).unwrap();
    administrators::reset_password(&server.services, &Caller::system(), id, password, false).await.unwrap();
    reset.post(path, &[("code", &fresh)]).await.expect(401);
    assert!(!is_in(&reset).await);

    let form = [("username", "zoe"), ("password", "another river at dusk")];
    late.post("/console/sign-in", &form).await.expect(200).shows("Second step");
    server.clock.advance(Duration::from_secs(301));
    let fresh = code(&server, &secret);
    let page = late.post(path, &[("code", &fresh), ("next", "/console/keys")]).await.expect(401);
    assert_eq!(page.hidden("next"), "/console/keys");
    assert!(!is_in(&late).await);
    late.post("/console/sign-in/passkey/options", &[]).await.expect(200);
    late.post("/console/sign-in", &form).await.expect(200);
    late.post(path, &[("code", &fresh)]).await.leads_to("/console");
}

async fn a_half_done_sign_in_ends_when_somebody_else_signs_in(db: Database) {
    let server = Server::start(db).await;
    let (secret, _) = enable(&server, &server.signed_in("zoe", Role::Owner).await).await;
    server.person("ada", Role::Viewer).await;
    server.clock.advance(Duration::from_secs(30));
    let browser = server.browser();
    browser.post("/console/sign-in", &GOOD).await.expect(200).shows("Second step");
    browser.post("/console/sign-in", &[("username", "ada"), ("password", PASSWORD)]).await.leads_to("/console");
    browser.post("/console/sign-in/code", &[("code", &code(&server, &secret))]).await.expect(401);
    let page = browser.get("/console/account").await.expect(200);
    assert!(page.text.contains("ada") && !page.text.contains("zoe"), "{}", page.text);
}

async fn a_second_factor_ends_the_session_from_before(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let (secret, _) = enable(&server, &browser).await;
    server.clock.advance(Duration::from_secs(30));
    let before = browser.copy();
    for _ in 0..2 {
        browser.post("/console/sign-in", &GOOD).await.expect(200).shows("Second step");
        assert!(is_in(&before).await, "a password alone ends no session");
    }
    browser.post("/console/sign-in/code", &[("code", &code(&server, &secret))]).await.leads_to("/console");
    assert!(is_in(&browser).await && !is_in(&before).await);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM sessions").await, 1);
}

async fn no_session_begins_once_the_password_is_another(db: Database) {
    let server = Server::start(db).await;
    let id = server.person("zoe", Role::Owner).await;
    let (_, recovery_codes) = enable(&server, &server.sign_in("zoe").await).await;
    let (services, origin, key) = (&server.services, Origin::default(), [7; 32]);
    let proved = sign_in::with_password(services, &origin, "zoe", PASSWORD.to_owned()).await.unwrap();
    let Outcome::SecondFactor(pending) = proved else { panic!("{proved:?}") };
    let proof = factors::check_code(services, &origin, &pending, &recovery_codes[0]).await.unwrap();
    assert!(sessions::create(services, key, "{}".to_owned()).await.unwrap());
    // In between, as another request may.
    let password = NewPassword::parse(OTHER, &Username::parse("zoe").unwrap()).unwrap();
    administrators::reset_password(services, &Caller::system(), id, password, false).await.unwrap();
    let begun = sign_in::begin(services, &origin, None, Keys { old: Vec::new(), new: key }, proof).await;
    assert!(matches!(begun, Err(Error::Unauthenticated(AuthFailure::WrongCredentials))), "{begun:?}");
    assert!(sessions::authenticate(services, origin, key).await.is_err());
}

async fn codes_that_come_at_once_are_not_all_judged(db: Database) {
    let server = Server::start(db).await;
    let (secret, recovery_codes) = enable(&server, &server.signed_in("zoe", Role::Owner).await).await;
    server.clock.advance(Duration::from_secs(30));
    let other = server.browser();
    other.post("/console/sign-in", &GOOD).await.expect(200);
    let guesses: Vec<_> = (0..16).map(|n| format!("{:06}", 100_000 + n)).collect();
    let tries = guesses.iter().map(|guess| {
        let browser = other.copy();
        async move { browser.post("/console/sign-in/code", &[("code", guess)]).await.status.as_u16() }
    });
    let told = join_all(tries).await;
    assert_eq!(told.iter().filter(|status| **status == 401).count(), 6, "{told:?}");
    assert_eq!(told.iter().filter(|status| **status == 429).count(), 10, "{told:?}");
    assert_eq!(server.audited("console.sign_in_failed").await.len(), 6);
    // Right ones wait as well, and are not used up meanwhile.
    let right = code(&server, &secret);
    for code in [&right, &recovery_codes[0]] {
        other.post("/console/sign-in/code", &[("code", code)]).await.expect(429);
    }
    server.clock.advance(Duration::from_secs(2));
    other.copy().post("/console/sign-in/code", &[("code", &right)]).await.leads_to("/console");
    // Whoever got in is no guesser.
    server.clock.advance(Duration::from_secs(30));
    other.post("/console/sign-in", &GOOD).await.expect(200);
    other.post("/console/sign-in/code", &[("code", "123456")]).await.expect(401);
    other.post("/console/sign-in/code", &[("code", &recovery_codes[0])]).await.leads_to("/console");
}

async fn a_right_password_counts_for_nothing_until_its_code_is_given(db: Database) {
    let server = Server::start(db).await;
    let (secret, _) = enable(&server, &server.signed_in("zoe", Role::Owner).await).await;
    server.clock.advance(Duration::from_secs(30));
    let other = server.browser();
    other.post("/console/sign-in", &GOOD).await.expect(200);
    for _ in 0..5 {
        other.post("/console/sign-in/code", &[("code", "123456")]).await.expect(401);
    }
    // Nor does it make the wrong codes be forgotten.
    for _ in 0..32 {
        other.post("/console/sign-in", &GOOD).await.expect(200);
    }
    other.post("/console/sign-in/code", &[("code", "123456")]).await.expect(401);
    other.post("/console/sign-in/code", &[("code", &code(&server, &secret))]).await.expect(429);
}

async fn the_secret_of_a_new_authenticator_is_sealed(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let page = browser.get("/console/account/authenticator").await.expect(200);
    let stored = server.db.texts("SELECT data FROM sessions").await.join(" ");
    assert!(stored.contains("new_totp_secret") && !stored.contains(&secret(&page)), "{stored}");
    // It is still the one that was shown.
    let path = "/console/account/authenticator";
    let again = browser.post(path, &[("code", "000000")]).await.expect(422);
    assert_eq!(secret(&again), secret(&page));
    browser.post(path, &[("code", &code(&server, &secret(&page)))]).await.expect(200);
}

async fn a_recovery_code_is_used_up_on_the_record(db: Database) {
    let server = Server::start(db).await;
    let (_, recovery_codes) = enable(&server, &server.signed_in("zoe", Role::Owner).await).await;
    let origin = Origin::default();
    let proved = sign_in::with_password(&server.services, &origin, "zoe", PASSWORD.to_owned()).await.unwrap();
    let Outcome::SecondFactor(pending) = proved else { panic!("{proved:?}") };
    // No session begins: it is as if the browser had hung up.
    factors::check_code(&server.services, &origin, &pending, &recovery_codes[0]).await.unwrap();
    let changed = server.audited("administrator.factor_changed").await;
    let details: serde_json::Value = serde_json::from_str(changed[0]["details_json"].as_str().unwrap()).unwrap();
    assert_eq!(details, serde_json::json!({ "factor": "recovery codes", "change": "used", "left": 9 }));
    assert!(!changed[0]["agent_id"].is_null());
}
