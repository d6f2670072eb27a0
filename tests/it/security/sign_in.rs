//! Strangers who try passwords keep nobody out.

use std::{future::Future, time::Duration};

use aims::{
    domain::{AdministratorId, Role, Username, password::NewPassword},
    service::{Caller, administrators},
};
use reqwest::Method;

use crate::{
    both,
    support::{Database, PASSWORD, Page, Server, open_beside},
};

both!(a_reset_lets_the_owner_back_in_at_once, a_busy_network_does_not_keep_out_whom_it_knows);

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

/// As `aims admin reset-password` does, beside the running service.
async fn reset(server: &Server, person: AdministratorId, username: &str) {
    let password = NewPassword::parse(OTHER, &Username::parse(username).unwrap()).unwrap();
    let beside = open_beside(&server.db, &server.clock, &[]).await;
    administrators::reset_password(beside.services(), &Caller::system(), person, password, false).await.unwrap();
    beside.close().await;
}

async fn a_reset_lets_the_owner_back_in_at_once(db: Database) {
    let server = Server::with(db, &PROXY).await;
    let zoe = server.person("zoe", Role::Owner).await;
    let ada = server.person("ada", Role::Owner).await;
    sign_in(&server, HOME, "zoe", PASSWORD).await.leads_to("/console");
    // Together with eleven wrong ones, enough for an account to have to wait everywhere.
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
    sign_in(&server, HOME, "zoe", OTHER).await.leads_to("/console");
    sign_in(&server, "192.0.2.1", "zoe", OTHER).await.leads_to("/console");
    sign_in(&server, "192.0.2.2", "ada", PASSWORD).await.expect(429);
    reset(&server, ada, "ada").await;
    sign_in(&server, "192.0.2.2", "ada", OTHER).await.leads_to("/console");
}

async fn a_busy_network_does_not_keep_out_whom_it_knows(db: Database) {
    let server = Server::with(db, &PROXY).await;
    server.person("zoe", Role::Owner).await;
    server.person("ada", Role::Owner).await;
    sign_in(&server, HOME, "zoe", PASSWORD).await.leads_to("/console");
    for n in 0..31 {
        sign_in(&server, HOME, &format!("somebody-{n}"), "wrong").await.expect(401);
    }
    sign_in(&server, HOME, "somebody", "wrong").await.expect(429);
    sign_in(&server, HOME, "ada", PASSWORD).await.expect(429);
    sign_in(&server, HOME, "zoe", PASSWORD).await.leads_to("/console");
    // Guessing at one account stays slow there, too.
    for n in 0..8 {
        sign_in(&server, HOME, "zoe", "wrong").await.expect(if n < 6 { 401 } else { 429 });
    }
}
