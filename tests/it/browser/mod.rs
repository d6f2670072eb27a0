//! The console in a real browser.

mod accessibility;
mod chrome;
mod docs;
mod everywhere;
mod hostile;
mod jobs_agents;
mod jobs_audit;
mod jobs_capabilities;
mod jobs_create;
mod jobs_keys;
mod jobs_overview;
mod jobs_people;
mod journey;
mod keyboard;
mod other_origin;
mod pages;
mod passkeys;
mod reveal;
mod screenshots;
mod states;

use std::time::Duration;

use aims::{clock::Clock, domain::Role, service::people::setup};
use chrome::{Chrome, Display};

use crate::support::{Database, PASSWORD, Server, TestClock};

/// Declares tests that run if a browser is available.
macro_rules! in_browser {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[tokio::test]
            #[cfg_attr(not(feature = "browser-tests"), ignore = "needs Chromium and ChromeDriver: `tests/run` installs them")]
            async fn chromium() {
                super::$name().await;
            }
        })+
    };
}
use in_browser;

const OPTIONS: [(&str, &str); 2] = [("PUBLIC_URL", "http://localhost:8000"), ("AUDIT_REFUSALS_PER_MINUTE", "1000000")];

/// A server on plain HTTP that uses the system clock, like the browser.
async fn server() -> Server {
    Server::start_at(TestClock::real(), Database::sqlite(), &OPTIONS).await
}

/// A server whose clock shows half past an hour, so that a test is within one bar of a chart.
async fn server_at_half_past() -> Server {
    const HOUR: i64 = 3_600;
    let clock = TestClock::real();
    let past_half = (clock.now().as_secs() + HOUR / 2) % HOUR;
    clock.set_back(Duration::from_secs(past_half.unsigned_abs()));
    Server::start_at(clock, Database::sqlite(), &OPTIONS).await
}

/// Returns a browser that is signed in as an owner.
async fn signed_in_owner(server: &Server, display: Display) -> Chrome {
    if server.db.count("SELECT COUNT(*) FROM administrators WHERE username = 'zoe'").await == 0 {
        server.person("zoe", Role::Owner).await;
    }
    let chrome = Chrome::start(&server.url, display).await;
    sign_in(&chrome).await;
    chrome
}

async fn sign_in(chrome: &Chrome) {
    sign_in_as(chrome, "zoe").await;
}

async fn sign_in_as(chrome: &Chrome, username: &str) {
    chrome.goto("/console/sign-in").await;
    chrome.fill("#username", username).await;
    chrome.fill("#password", PASSWORD).await;
    chrome.click("main form:not(.theme) button").await;
    chrome.wait_for_path(|path| path == "/console").await;
}

/// Returns the path of a new setup link.
async fn setup_path(server: &Server) -> String {
    let token = setup::make_token(&server.services).await.unwrap().unwrap();
    format!("/console/setup?token={}", token.expose())
}
