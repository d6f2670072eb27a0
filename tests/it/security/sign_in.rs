//! Password guessing locks nobody out and does not reveal who has an account.

use std::{
    future::Future,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use aims::{
    crypto::PasswordPlace,
    domain::{AdministratorId, Role, Username, person::password::NewPassword},
    service::{Caller, people::administrators},
};
use futures_util::future::{join, join_all};
use reqwest::Method;
use tokio::sync::Notify;

use crate::{
    both,
    support::{Database, PASSWORD, Page, Server, open_beside},
};

both!(
    password_reset_ends_the_wait,
    busy_network_does_not_lock_out_known_people,
    full_queue_does_not_lock_out_known_people,
    full_queue_does_not_reveal_who_has_an_account,
    full_queue_still_requires_the_second_factor,
    unknown_names_from_many_networks_do_not_starve_the_owner,
);

const HOME: &str = "198.51.100.7";
const OTHER: &str = "a lighthouse in the fog";
const PROXY: [(&str, &str); 1] = [("TRUSTED_PROXIES", "127.0.0.1")];

fn sign_in<'a>(
    server: &Server,
    from: &str,
    username: &'a str,
    password: &'a str,
) -> impl Future<Output = Page> + use<'a> {
    let (browser, from) = (server.browser(), from.to_owned());
    async move {
        let request = browser.request(Method::POST, "/console/sign-in").header("sec-fetch-site", "same-origin");
        let form = [("username", username), ("password", password)];
        browser.send(request.header("x-forwarded-for", from).form(&form)).await
    }
}

/// Resets a password like `aims admin reset-password`, while the service is running.
async fn reset(server: &Server, person: AdministratorId, username: &str) {
    let password = NewPassword::parse(OTHER, &Username::parse(username).unwrap()).unwrap();
    let command = open_beside(&server.db, &server.clock, &[]).await;
    administrators::reset_password(command.services(), &Caller::system(), person, password, false).await.unwrap();
    command.close().await;
}

async fn password_reset_ends_the_wait(db: Database) {
    let server = Server::start_with(db, &PROXY).await;
    let zoe = server.person("zoe", Role::Owner).await;
    let ada = server.person("ada", Role::Owner).await;
    sign_in(&server, HOME, "zoe", PASSWORD).await.redirects_to("/console");
    // Together with eleven failures, enough to make the account wait everywhere.
    for n in 0..25 {
        for name in ["zoe", "ada"] {
            sign_in(&server, &format!("203.0.113.{n}"), name, "wrong").await.expect(401);
        }
    }
    for _ in 0..10 {
        for name in ["zoe", "ada"] {
            sign_in(&server, HOME, name, "wrong").await.expect(401);
        }
        server.clock.advance(Duration::from_secs(901));
    }
    for name in ["zoe", "ada"] {
        sign_in(&server, HOME, name, "wrong").await.expect(401);
        sign_in(&server, HOME, name, PASSWORD).await.expect(429);
    }
    reset(&server, zoe, "zoe").await;
    sign_in(&server, HOME, "zoe", OTHER).await.redirects_to("/console");
    sign_in(&server, "192.0.2.1", "zoe", OTHER).await.redirects_to("/console");
    sign_in(&server, "192.0.2.2", "ada", PASSWORD).await.expect(429);
    reset(&server, ada, "ada").await;
    sign_in(&server, "192.0.2.2", "ada", OTHER).await.redirects_to("/console");
}

async fn busy_network_does_not_lock_out_known_people(db: Database) {
    let server = Server::start_with(db, &PROXY).await;
    server.person("zoe", Role::Owner).await;
    server.person("ada", Role::Owner).await;
    sign_in(&server, HOME, "zoe", PASSWORD).await.redirects_to("/console");
    for n in 0..31 {
        sign_in(&server, HOME, &format!("somebody-{n}"), "wrong").await.expect(401);
    }
    sign_in(&server, HOME, "somebody", "wrong").await.expect(429);
    sign_in(&server, HOME, "ada", PASSWORD).await.expect(429);
    sign_in(&server, HOME, "zoe", PASSWORD).await.redirects_to("/console");
    // Guesses at one account are limited there, too.
    for n in 0..8 {
        sign_in(&server, HOME, "zoe", "wrong").await.expect(if n < 6 { 401 } else { 429 });
    }
}

/// Takes every place in the password queue.
fn fill_queue(server: &Server) -> Vec<PasswordPlace> {
    std::iter::from_fn(|| server.services.passwords.place()).collect()
}

async fn full_queue_does_not_lock_out_known_people(db: Database) {
    let server = Server::start_with(db, &PROXY).await;
    server.person("zoe", Role::Owner).await;
    let browser = server.signed_in("ada", Role::Owner).await;
    sign_in(&server, HOME, "zoe", PASSWORD).await.redirects_to("/console");
    let _crowd = fill_queue(&server);
    sign_in(&server, HOME, "zoe", PASSWORD).await.redirects_to("/console");
    // A known network gets a response for every name.
    sign_in(&server, HOME, "zoe", "wrong").await.expect(401);
    sign_in(&server, HOME, "nobody", "wrong").await.expect(401);
    for n in 0..3 {
        sign_in(&server, &format!("2001:db8:{n}::1"), "zoe", PASSWORD).await.redirects_to("/console");
    }
    sign_in(&server, "203.0.113.9", "nobody", PASSWORD).await.expect(503);
    // People who are signed in get one, too.
    browser.post("/console/confirm", &[("password", PASSWORD)]).await.redirects_to("/console");
}

async fn full_queue_does_not_reveal_who_has_an_account(db: Database) {
    const HELD_BACK_FOR: Duration = Duration::from_secs(3);
    let server = Server::start_with(db, &PROXY).await;
    server.person("name-known", Role::Owner).await;
    let gone = server.person("name-gone", Role::Viewer).await;
    administrators::disable(&server.services, &Caller::system(), gone).await.unwrap();
    let _crowd = fill_queue(&server);
    let tries = async |name: &str| {
        let before = Instant::now();
        let tries = join_all((0..10).map(|_| sign_in(&server, "203.0.113.9", name, "wrong"))).await;
        assert!(before.elapsed() >= HELD_BACK_FOR, "the response for {name} must be delayed");
        let mut outcomes: Vec<_> = tries.into_iter().map(|page| (page.status.as_u16(), shown(&page, name))).collect();
        outcomes.sort_unstable();
        let statuses: Vec<_> = outcomes.iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [429, 429, 429, 429, 503, 503, 503, 503, 503, 503], "{name}");
        outcomes
    };
    let (known, disabled) = join(tries("name-known"), tries("name-gone")).await;
    let unknown = tries("name-nobody").await;
    assert_eq!(known, unknown);
    assert_eq!(disabled, unknown);
    // All attempts are audited, whatever the response.
    let recorded = server.audited("console.sign_in_failed").await;
    assert_eq!(recorded.len(), 18);
}

/// Returns the text of a page without its request id and the submitted name.
fn shown(page: &Page, name: &str) -> String {
    let id = page.headers["x-request-id"].to_str().unwrap();
    page.text.replace(id, "").replace(name, "")
}

async fn full_queue_still_requires_the_second_factor(db: Database) {
    let server = Server::start_with(db, &PROXY).await;
    server.person("zoe", Role::Owner).await;
    server.db.execute("UPDATE administrators SET totp_enabled_at = 1").await;
    let _crowd = fill_queue(&server);
    sign_in(&server, "203.0.113.9", "zoe", PASSWORD).await.expect(200).shows("Two-factor authentication");
}

/// The attack: 40 connections submit unknown names, each from a different /64.
async fn unknown_names_from_many_networks_do_not_starve_the_owner(db: Database) {
    let server = Server::start_with(db, &PROXY).await;
    server.person("zoe", Role::Owner).await;
    sign_in(&server, HOME, "zoe", PASSWORD).await.redirects_to("/console");
    let (is_over, tries, is_crowded) = (AtomicBool::new(false), AtomicUsize::new(0), Notify::new());
    let stranger = async || {
        while !is_over.load(Ordering::SeqCst) {
            let n = tries.fetch_add(1, Ordering::SeqCst);
            let (network, name) = (format!("2001:db8:{:x}:{:x}::1", n >> 16, n & 0xffff), format!("nobody-{n}"));
            let status = sign_in(&server, &network, &name, "wrong").await.status.as_u16();
            assert!([401, 503].contains(&status), "{status}");
            if status == 503 {
                is_crowded.notify_one();
            }
        }
    };
    let owner = async {
        is_crowded.notified().await;
        for n in 0..5 {
            sign_in(&server, HOME, "zoe", PASSWORD).await.redirects_to("/console");
            sign_in(&server, &format!("192.0.2.{n}"), "zoe", PASSWORD).await.redirects_to("/console");
        }
        is_over.store(true, Ordering::SeqCst);
    };
    join(owner, join_all((0..40).map(|_| stranger()))).await;
}
