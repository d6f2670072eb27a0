//! Sign-in, sessions, and limits on guessing.

use std::time::Duration;

use aims::{
    domain::{Role, Username, person::password::NewPassword},
    service::{
        Caller, Origin,
        people::{administrators, sign_in},
    },
};
use futures_util::future::join_all;
use reqwest::Method;
use tokio::time;

use crate::{
    both,
    support::{Browser, COOKIE, Database, PASSWORD, Server},
};

both!(
    cookie_is_a_new_secret_hidden_from_scripts,
    cookie_from_before_the_sign_in_is_invalid,
    session_ends_when_idle_and_after_twelve_hours,
    signing_out_ends_the_session,
    disabling_an_administrator_ends_their_sessions,
    role_changes_take_effect_immediately,
    sign_in_does_not_reveal_which_usernames_exist,
    guessing_is_rate_limited_without_locking_the_owner_out,
    form_input_survives_an_expired_session,
    sign_in_redirects_only_within_the_console,
    session_cookie_is_not_stored_in_the_clear,
    concurrent_guesses_are_rate_limited,
    correct_sign_ins_do_not_count_towards_the_limit,
    concurrent_correct_sign_ins_all_succeed,
    failures_on_other_networks_do_not_limit_passkeys,
    setting_the_clock_back_does_not_extend_the_wait,
    disconnecting_does_not_avoid_the_limit,
);

const BAD: [(&str, &str); 2] = [("username", "zoe"), ("password", "not the password at all")];
const GOOD: [(&str, &str); 2] = [("username", "zoe"), ("password", PASSWORD)];

async fn is_signed_in(browser: &Browser) -> bool {
    match browser.get("/console/account").await.status.as_u16() {
        200 => true,
        303 => false,
        other => panic!("{other}"),
    }
}

async fn cookie_is_a_new_secret_hidden_from_scripts(db: Database) {
    let server = Server::start(db).await;
    server.person("zoe", Role::Viewer).await;
    let (first, second) = (server.browser(), server.browser());
    let page = first.post("/console/sign-in", &GOOD).await.redirects_to("/console");
    second.post("/console/sign-in", &GOOD).await.redirects_to("/console");
    assert_ne!(first.cookie(COOKIE), second.cookie(COOKIE));
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    for attribute in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");

    let server = server.restart(&[("PUBLIC_URL", "HTTPS://aims.test/")]).await;
    let page = server.browser().post("/console/sign-in", &GOOD).await.redirects_to("/console");
    assert!(page.headers["set-cookie"].to_str().unwrap().contains("Secure"));

    let server = server.restart(&[("PUBLIC_URL", "http://aims.test:8000")]).await;
    let plain = server.browser();
    let page = plain.post("/console/sign-in", &GOOD).await.redirects_to("/console");
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("aims=") && !cookie.contains("Secure"), "{cookie}");
}

async fn cookie_from_before_the_sign_in_is_invalid(db: Database) {
    let server = Server::start(db).await;
    server.person("zoe", Role::Owner).await;
    // An invented session cookie, and one from an earlier session.
    let fixed = server.browser();
    fixed.set_cookie(COOKIE, "AAAAAAAAAAAAAAAAAAAAAA");
    fixed.post("/console/sign-in", &GOOD).await.redirects_to("/console");
    assert_ne!(fixed.cookie(COOKIE).unwrap(), "AAAAAAAAAAAAAAAAAAAAAA");
    let stale = server.browser();
    stale.set_cookie(COOKIE, "AAAAAAAAAAAAAAAAAAAAAA");
    assert!(!is_signed_in(&stale).await);

    // Signing in again ends the browser's previous session.
    let before = fixed.copy();
    fixed.post("/console/sign-in", &GOOD).await.redirects_to("/console");
    assert!(is_signed_in(&fixed).await);
    assert!(!is_signed_in(&before).await);
}

async fn session_ends_when_idle_and_after_twelve_hours(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    server.clock.advance(Duration::from_mins(29));
    assert!(is_signed_in(&browser).await);
    server.clock.advance(Duration::from_mins(29));
    assert!(is_signed_in(&browser).await, "activity must extend a session");
    server.clock.advance(Duration::from_mins(31));
    assert!(!is_signed_in(&browser).await, "idle");

    let browser = server.sign_in("zoe").await;
    for _ in 0..28 {
        server.clock.advance(Duration::from_mins(25));
        assert!(is_signed_in(&browser).await);
    }
    server.clock.advance(Duration::from_mins(25));
    assert!(!is_signed_in(&browser).await, "a session must end after twelve hours");
}

async fn signing_out_ends_the_session(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let (thief, other) = (browser.copy(), server.sign_in("zoe").await);
    browser.post("/console/sign-out", &[]).await.redirects_to("/console/sign-in");
    assert!(!is_signed_in(&browser).await);
    assert!(!is_signed_in(&thief).await);
    assert!(is_signed_in(&other).await);
    assert_eq!(server.audited("console.signed_out").await.len(), 1);
}

async fn disabling_an_administrator_ends_their_sessions(db: Database) {
    let server = Server::start(db).await;
    let id = server.person("zoe", Role::Owner).await;
    let browser = server.sign_in("zoe").await;
    server.person("ada", Role::Owner).await;
    administrators::disable(&server.services, &Caller::system(), id).await.unwrap();
    assert!(!is_signed_in(&browser).await);
    browser.post("/console/sign-in", &GOOD).await.expect(401);
    administrators::enable(&server.services, &Caller::system(), id).await.unwrap();
    assert!(!is_signed_in(&browser).await, "an ended session must not come back");
    browser.post("/console/sign-in", &GOOD).await.redirects_to("/console");

    let password = NewPassword::parse("another river at dusk", &Username::parse("zoe").unwrap()).unwrap();
    administrators::reset_password(&server.services, &Caller::system(), id, password, false).await.unwrap();
    assert!(!is_signed_in(&browser).await, "a session must end with its password");
}

async fn role_changes_take_effect_immediately(db: Database) {
    let server = Server::start(db).await;
    let id = server.person("zoe", Role::Owner).await;
    server.person("ada", Role::Owner).await;
    let browser = server.sign_in("zoe").await;
    browser.get("/console/administrators").await.expect(200);
    let (name, role) = ("Zoe".to_owned(), Role::Viewer);
    administrators::update(&server.services, &Caller::system(), id, name, role).await.unwrap();
    browser.get("/console/administrators").await.expect(403);
    browser.post("/console/agents", &[("name", "x")]).await.expect(403);
}

async fn sign_in_does_not_reveal_which_usernames_exist(db: Database) {
    let server = Server::start(db).await;
    server.person("zoe", Role::Owner).await;
    let plain = |text: &str| text.replace("nobody", "zoe");
    for _ in 0..7 {
        let known = server.browser().post("/console/sign-in", &BAD).await;
        let form = [("username", "nobody"), ("password", "not the password at all")];
        let unknown = server.browser().post("/console/sign-in", &form).await;
        assert_eq!(known.status, unknown.status);
        assert_eq!(plain(&known.text), plain(&unknown.text));
        assert!(!known.headers.contains_key("set-cookie"), "a wrong password must create no session");
    }
    let refused = server.audited("console.sign_in_failed").await;
    assert_eq!(refused.len(), 12, "each name allows six attempts before the limit");
    let names_zoe = |record: &serde_json::Value| record["details_json"].as_str().unwrap().contains("zoe");
    assert_eq!(refused.iter().filter(|record| names_zoe(record)).count(), 6);
    // An unknown username may be a password typed into the wrong field, so it is not logged.
    assert!(!refused.iter().any(|record| record["details_json"].as_str().unwrap().contains("nobody")));
}

async fn guessing_is_rate_limited_without_locking_the_owner_out(db: Database) {
    let server = Server::start_with(db, &[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    server.person("zoe", Role::Owner).await;
    let from = |address: &str, form: &'static [(&'static str, &'static str)]| {
        let (browser, address) = (server.browser(), address.to_owned());
        async move {
            let request = browser.request(Method::POST, "/console/sign-in").header("sec-fetch-site", "same-origin");
            browser.send(request.header("x-forwarded-for", address).form(form)).await
        }
    };
    let (home, guesser) = ("198.51.100.7", "203.0.113.9");
    from(home, &GOOD).await.redirects_to("/console");
    for _ in 0..6 {
        from(guesser, &BAD).await;
    }
    let waiting = from(guesser, &GOOD).await.expect(429);
    assert!(waiting.text.contains("Wait"), "{}", waiting.text);
    from(home, &GOOD).await.redirects_to("/console");

    // Guesses from many networks end in a limit on the account everywhere, except on networks that its owner has used.
    for n in 0..40 {
        from(&format!("203.0.113.{}", 20 + n % 8), &BAD).await;
        from(&format!("192.0.2.{n}"), &BAD).await;
    }
    from("192.0.2.200", &GOOD).await.expect(429);
    from(home, &GOOD).await.redirects_to("/console");
    // The longest wait is fifteen minutes.
    server.clock.advance(Duration::from_secs(901));
    from("192.0.2.200", &GOOD).await.redirects_to("/console");
}

async fn form_input_survives_an_expired_session(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    server.clock.advance(Duration::from_hours(1));
    let typed =
        [("name", "reader"), ("owner", "A & \"B\" <c>"), ("agent_type", "llm"), ("description", "two\r\nlines")];
    let page = browser.post("/console/agents", &typed).await.expect(401);
    page.shows("What you entered in the form is kept");
    let (path, body) = (page.hidden("waiting_path"), page.hidden("waiting_body"));
    // A wrong password keeps the form too.
    let again = [("username", "zoe"), ("password", "wrong"), ("waiting_path", &path), ("waiting_body", &body)];
    let page = browser.post("/console/sign-in", &again).await.expect(401);
    let (path, body) = (page.hidden("waiting_path"), page.hidden("waiting_body"));
    let again = [("username", "zoe"), ("password", PASSWORD), ("waiting_path", &path), ("waiting_body", &body)];
    let page = browser.post("/console/sign-in", &again).await.expect(200);
    page.shows("action=\"/console/agents\"");
    let kept: Vec<_> = typed.iter().map(|(name, _)| (*name, page.hidden(name))).collect();
    let kept: Vec<_> = kept.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(kept, typed);
    let created = browser.post("/console/agents", &kept).await.expect(303);
    assert!(created.location().starts_with("/console/agents/"));
    let agents = server.admin.get("/agents?q=reader").await.expect(200);
    assert_eq!(agents[0]["owner"], "A & \"B\" <c>");
    assert_eq!(agents[0]["description"], "two\nlines");
}

async fn sign_in_redirects_only_within_the_console(db: Database) {
    let server = Server::start(db).await;
    server.person("zoe", Role::Viewer).await;
    let browser = server.browser();
    let page = browser.get("/console/agents?q=x").await.expect(303);
    assert_eq!(page.location(), "/console/sign-in?next=%2Fconsole%2Fagents%3Fq%3Dx");
    let form = |next: &'static str| [("username", "zoe"), ("password", PASSWORD), ("next", next)];
    browser.post("/console/sign-in", &form("/console/agents?q=x")).await.redirects_to("/console/agents?q=x");
    for elsewhere in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "\\\\evil.example",
        "/console\\..\\evil.example",
        "/console/..//evil.example",
        "/console/\t",
        "/console/\0",
        "/console/\u{a0}",
        " /console",
        "/console//evil.example",
        "/consoleevil",
        "javascript:alert(1)",
        "/agents",
        "/console/\r\nset-cookie: a=b",
    ] {
        server.browser().post("/console/sign-in", &form(elsewhere)).await.redirects_to("/console");
        let waiting =
            [("username", "zoe"), ("password", PASSWORD), ("waiting_path", elsewhere), ("waiting_body", "a=b")];
        server.browser().post("/console/sign-in", &waiting).await.redirects_to("/console");
    }
}

async fn concurrent_correct_sign_ins_all_succeed(db: Database) {
    // More than the limit on wrong passwords of one account.
    const AT_ONCE: usize = 24;
    let server = Server::start(db).await;
    server.person("zoe", Role::Viewer).await;
    let browsers: Vec<_> = (0..AT_ONCE).map(|_| server.browser()).collect();
    let pages = join_all(browsers.iter().map(|browser| browser.post("/console/sign-in", &GOOD))).await;
    let statuses: Vec<_> = pages.iter().map(|page| page.status.as_u16()).collect();
    // Concurrent tests share the queue, so some requests may find it full.
    assert!(statuses.contains(&303) && statuses.iter().all(|status| [303, 503].contains(status)), "{statuses:?}");
}

async fn session_cookie_is_not_stored_in_the_clear(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let cookie = browser.cookie(COOKIE).unwrap();
    let hex = if server.db.is_sqlite() { "hex(key_hash)" } else { "encode(key_hash, 'hex')" };
    let rows = server.db.texts(&format!("SELECT {hex} || ' ' || data FROM sessions")).await;
    assert_eq!(rows.len(), 1);
    assert!(!rows[0].contains(&cookie), "{rows:?}");
    let passwords = server.db.texts("SELECT password_hash FROM administrators").await;
    assert!(passwords[0].starts_with("$argon2id$") && !passwords[0].contains(PASSWORD));
}

async fn concurrent_guesses_are_rate_limited(db: Database) {
    let server = Server::start(db).await;
    server.person("zoe", Role::Owner).await;
    let ways: [(&str, &[(&str, &str)]); 4] = [
        ("/console/sign-in", &BAD),
        ("/console/sign-in/passkey", &[("credential", "junk")]),
        ("/console/confirm", &[("password", "not the password at all")]),
        ("/console/confirm/passkey", &[("credential", "junk")]),
    ];
    for (path, form) in ways {
        // The failures counted above expire.
        server.clock.advance(Duration::from_hours(25));
        let browser = server.sign_in("zoe").await;
        let tries = (0..10).map(|_| async { browser.copy().post(path, form).await.status.as_u16() });
        let statuses = join_all(tries).await;
        assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 6, "{path}: {statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 4, "{path}: {statuses:?}");
    }
}

async fn correct_sign_ins_do_not_count_towards_the_limit(db: Database) {
    let server = Server::start_with(db, &[("TRUSTED_PROXIES", "127.0.0.1"), ("JWT_EXPIRATION_MINUTES", "1440")]).await;
    server.person("zoe", Role::Owner).await;
    let post = |name: String, password: &'static str| {
        let browser = server.browser();
        async move {
            let request = browser.request(Method::POST, "/console/sign-in").header("sec-fetch-site", "same-origin");
            let form = [("username", name.as_str()), ("password", password)];
            browser.send(request.header("x-forwarded-for", "198.51.100.7").form(&form)).await.status.as_u16()
        }
    };
    // As many as a network may get wrong before it must wait.
    for n in 0..30 {
        assert_eq!(post(format!("nobody-{}", n % 6), "wrong").await, 401);
    }
    server.clock.advance(Duration::from_hours(23));
    for _ in 0..3 {
        assert_eq!(post("zoe".to_owned(), PASSWORD).await, 303);
    }
    assert_eq!(post("somebody".to_owned(), "wrong").await, 401, "the limit must apply from the next attempt");
    assert_eq!(post("somebody".to_owned(), "wrong").await, 429);
    // All failures expire a day after the last one, also with successful sign-ins in between.
    server.clock.advance(Duration::from_hours(23));
    assert_eq!(post("zoe".to_owned(), PASSWORD).await, 303);
    server.clock.advance(Duration::from_hours(2));
    for n in 0..5 {
        assert_eq!(post(format!("anybody-{n}"), "wrong").await, 401);
    }
}

async fn failures_on_other_networks_do_not_limit_passkeys(db: Database) {
    let server = Server::start_with(db, &[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    server.person("zoe", Role::Owner).await;
    let post = |address: String, path: &'static str, form: [(&'static str, &'static str); 2]| {
        let browser = server.browser();
        async move {
            let request = browser.request(Method::POST, path).header("sec-fetch-site", "same-origin");
            browser.send(request.header("x-forwarded-for", address).form(&form)).await.status.as_u16()
        }
    };
    let passkey = ("/console/sign-in/passkey", [("credential", "junk"), ("next", "")]);
    let no_name = ("/console/sign-in", [("username", "a b"), ("password", "wrong")]);
    for n in 0..40 {
        let (path, form) = if n % 2 == 0 { passkey } else { no_name };
        assert_eq!(post(format!("192.0.2.{n}"), path, form).await, 401, "{n}");
    }
    for (path, form) in [passkey, no_name] {
        assert_eq!(post("198.51.100.7".to_owned(), path, form).await, 401, "{path}");
    }
    // The network is still limited.
    for n in 0..8 {
        let status = post("203.0.113.9".to_owned(), passkey.0, passkey.1).await;
        assert_eq!(status, if n < 6 { 401 } else { 429 }, "{n}");
    }
}

async fn setting_the_clock_back_does_not_extend_the_wait(db: Database) {
    let server = Server::start(db).await;
    server.person("zoe", Role::Owner).await;
    for _ in 0..6 {
        server.browser().post("/console/sign-in", &BAD).await.expect(401);
    }
    server.clock.set_back(Duration::from_hours(23));
    server.browser().post("/console/sign-in", &GOOD).await.expect(429).shows("Wait 1 second and");
    server.clock.advance(Duration::from_secs(1));
    server.browser().post("/console/sign-in", &GOOD).await.redirects_to("/console");
}

/// An attempt is counted before it is checked. Otherwise, disconnecting early would avoid the count.
async fn disconnecting_does_not_avoid_the_limit(db: Database) {
    let server = Server::start(db).await;
    server.person("zoe", Role::Owner).await;
    let origin = Origin { ip: Some("127.0.0.1".parse().unwrap()), ..Origin::default() };
    let tries = "SELECT COUNT(*) FROM sign_in_failures WHERE failures > 0";
    let hang_up = async |password: &str| {
        let trying = sign_in::with_password(&server.services, &origin, "zoe", password.to_owned());
        let is_counted = async { while server.db.count(tries).await == 0 {} };
        tokio::select! {
            biased;
            _ = trying => {}
            () = is_counted => {}
        }
    };
    for _ in 0..6 {
        hang_up(PASSWORD).await;
        time::timeout(Duration::from_secs(10), async { while server.db.count(tries).await > 0 {} }).await.unwrap();
    }
    server.browser().post("/console/sign-in", &GOOD).await.redirects_to("/console");

    hang_up("wrong").await;
    let is_recorded = async { while server.audited("console.sign_in_failed").await.is_empty() {} };
    time::timeout(Duration::from_secs(10), is_recorded).await.unwrap();
    assert!(server.db.count(tries).await > 0);
}
