//! Administrators.

use aims::{
    domain::{AdministratorId, Role, Username, person::password::NewPassword},
    service::{
        Caller,
        people::administrators::{self, NewAdministrator},
    },
};

use super::{Browser, Server};

pub const PASSWORD: &str = "a quiet river at dawn";
/// Name of the session cookie if the public URL is https.
pub const COOKIE: &str = "__Host-aims";

impl Server {
    /// Creates an administrator.
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

    /// Returns a browser without a session.
    pub fn browser(&self) -> Browser {
        Browser::new(self.url.clone())
    }

    /// Signs in an existing administrator.
    pub async fn sign_in(&self, username: &str) -> Browser {
        let browser = self.browser();
        browser
            .post("/console/sign-in", &[("username", username), ("password", PASSWORD)])
            .await
            .redirects_to("/console");
        browser
    }

    /// Creates an administrator and signs them in.
    pub async fn signed_in(&self, username: &str, role: Role) -> Browser {
        self.person(username, role).await;
        self.sign_in(username).await
    }
}

impl Server {
    /// Returns the time of the service's clock, in seconds.
    pub fn clock_secs(&self) -> i64 {
        aims::clock::Clock::now(&self.clock).as_secs()
    }
}
