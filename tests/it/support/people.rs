//! Administrators for tests.

use aims::{
    domain::{AdministratorId, Role, Username, password::NewPassword},
    service::{
        Caller,
        administrators::{self, NewAdministrator},
    },
};

use super::{Browser, Server};

pub const PASSWORD: &str = "a quiet river at dawn";
/// The cookie of a session where the public URL is https.
pub const COOKIE: &str = "__Host-aims";

impl Server {
    /// Adds an administrator.
    pub async fn person(&self, username: &str, role: Role) -> AdministratorId {
        let username = Username::parse(username).unwrap();
        let new = NewAdministrator {
            display_name: username.to_string(),
            role,
            password: NewPassword::parse(PASSWORD, &username).unwrap(),
            username,
        };
        administrators::create(&self.services, &Caller::system(), new).await.unwrap()
    }

    /// A browser that nobody signed in with.
    pub fn browser(&self) -> Browser {
        Browser::new(self.url.clone())
    }

    /// Signs somebody in who exists.
    pub async fn sign_in(&self, username: &str) -> Browser {
        let browser = self.browser();
        browser.post("/console/sign-in", &[("username", username), ("password", PASSWORD)]).await.leads_to("/console");
        browser
    }

    /// Adds an administrator and signs them in.
    pub async fn signed_in(&self, username: &str, role: Role) -> Browser {
        self.person(username, role).await;
        self.sign_in(username).await
    }
}

impl Server {
    /// The time that the service is told, in seconds.
    pub fn clock_secs(&self) -> i64 {
        aims::clock::Clock::now(&self.clock).as_secs()
    }
}
