//! The console in a real browser.

mod chrome;
mod hostile;
mod journey;
mod looks;
mod other_origin;
mod passkeys;
mod reveal;

use aims::{domain::Role, service::setup};
use chrome::{Chrome, Look};

use crate::support::{Database, PASSWORD, Server, TestClock};

/// Makes each a test that runs where there is a browser.
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

/// A server on plain HTTP, by the machine's clock, which is the browser's too.
async fn server() -> Server {
    let options = [("PUBLIC_URL", "http://localhost:8000"), ("AUDIT_REFUSALS_PER_MINUTE", "1000000")];
    Server::at(TestClock::real(), Database::sqlite(), &options).await
}

/// A browser in which an owner is signed in.
async fn owner(server: &Server, look: Look) -> Chrome {
    if server.db.count("SELECT COUNT(*) FROM administrators").await == 0 {
        server.person("zoe", Role::Owner).await;
    }
    let chrome = Chrome::start(&server.url, look).await;
    sign_in(&chrome).await;
    chrome
}

async fn sign_in(chrome: &Chrome) {
    chrome.goto("/console/sign-in").await;
    chrome.fill("#username", "zoe").await;
    chrome.fill("#password", PASSWORD).await;
    chrome.click("main form:not(.theme) button").await;
    chrome.wait_for_path(|path| path == "/console").await;
}

/// The setup link, below the server's address.
async fn setup_path(server: &Server) -> String {
    let token = setup::make_token(&server.services).await.unwrap().unwrap();
    format!("/console/setup?token={}", token.expose())
}
