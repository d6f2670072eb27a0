//! A service in the test's own process.

use std::collections::HashMap;

use aims::{
    app::{App, Stopped},
    clock::{Environment, SystemRng},
    config::Config,
    service::Services,
};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use super::{Client, Database, TestClock};

/// Settings that differ from the tests' defaults.
pub type Options<'o> = &'o [(&'o str, &'o str)];

/// A running service with its first administrator logged in.
pub struct Server {
    pub db: Database,
    pub clock: TestClock,
    pub url: String,
    /// The URL of the metrics if the setting `METRICS_ADDR` is set.
    pub metrics_url: Option<String>,
    /// A client of the first administrator.
    pub admin: Client,
    pub admin_id: String,
    pub admin_key: String,
    /// The service layer, for actions of the operator.
    pub services: Arc<Services>,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<Result<(), Stopped>>>,
}

impl Server {
    pub async fn start(db: Database) -> Self {
        Self::start_with(db, &[]).await
    }

    pub async fn start_with(db: Database, options: Options<'_>) -> Self {
        Self::start_at(TestClock::new(), db, options).await
    }

    /// Starts a server with the given clock.
    pub async fn start_at(clock: TestClock, db: Database, options: Options<'_>) -> Self {
        let app = open(&db, &clock, options).await;
        let created = app.bootstrap().await.unwrap().expect("the database must be empty");
        let (admin_id, admin_key) = (created.agent.to_string(), created.raw_key.expose().to_owned());
        Self::serve(db, clock, app, admin_id, admin_key).await
    }

    async fn serve(db: Database, clock: TestClock, app: App, admin_id: String, admin_key: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let services = app.services().clone();
        let (mut app, mut metrics_url) = (app, None);
        if services.metrics().is_on() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            metrics_url = Some(format!("http://{}", listener.local_addr().unwrap()));
            app = app.with_metrics(listener);
        }
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(app.serve(listener, async move {
            let _ = stopped.await;
        }));
        let admin = Client::new(url.clone()).login(&admin_key).await;
        Self {
            db,
            clock,
            url,
            metrics_url,
            admin,
            admin_id,
            admin_key,
            services,
            stop: Some(stop),
            served: Some(served),
        }
    }

    /// Returns a client without a token.
    pub fn anonymous(&self) -> Client {
        self.admin.without_token()
    }

    /// Stops the service and returns its database.
    pub async fn stop(mut self) -> Database {
        drop(self.stop.take());
        self.served.take().unwrap().await.unwrap().unwrap();
        drop(self.services);
        self.db
    }

    /// Restarts the service with the same database and clock.
    pub async fn restart(mut self, options: Options<'_>) -> Self {
        drop(self.stop.take());
        self.served.take().unwrap().await.unwrap().unwrap();
        drop(self.services);
        let app = open(&self.db, &self.clock, options).await;
        assert!(app.bootstrap().await.unwrap().is_none(), "a second start must not create another administrator");
        Self::serve(self.db, self.clock, app, self.admin_id, self.admin_key).await
    }

    /// Creates an agent with the given capabilities.
    pub async fn agent(&self, name: &str, capabilities: &[&str]) -> Agent {
        let agent = self.admin.post("/agents", json!({ "name": name, "owner": "tests" })).await.expect(201);
        let id = agent["id"].as_str().unwrap().to_owned();
        for capability in capabilities {
            self.grant(&id, capability).await;
        }
        let key = self.admin.post(&format!("/agents/{id}/keys"), json!({})).await.expect(201);
        let raw_key = key["raw_key"].as_str().unwrap().to_owned();
        let client = self.anonymous().login(&raw_key).await;
        Agent { id, key_id: key["id"].as_str().unwrap().to_owned(), raw_key, client }
    }

    pub async fn grant(&self, agent: &str, capability: &str) {
        let capability_id = self.capability(capability).await;
        let body = json!({ "capability_id": capability_id });
        self.admin.post(&format!("/agents/{agent}/capabilities"), body).await.expect(201);
    }

    /// Returns the identifier of a capability, creating it if necessary.
    pub async fn capability(&self, name: &str) -> String {
        let known = self.admin.get("/capabilities?limit=500").await.expect(200);
        let known = known.as_array().unwrap().iter().find(|capability| capability["name"] == name).cloned();
        let capability = match known {
            Some(capability) => capability,
            None => self.admin.post("/capabilities", json!({ "name": name })).await.expect(201),
        };
        capability["id"].as_str().unwrap().to_owned()
    }

    /// Writes pending key usage to the database.
    pub async fn save_usage(&self) {
        self.services.store.read_usage().await.unwrap();
    }

    /// Returns the audit records with this action, newest first.
    pub async fn audited(&self, action: &str) -> Vec<Value> {
        let records = self.admin.get(&format!("/audit?action={action}&limit=500")).await.expect(200);
        records.as_array().unwrap().clone()
    }
}

/// Serves another node until the test ends; returns its URL.
pub async fn start(app: App) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(app.serve(listener, std::future::pending()));
    url
}

/// An agent with its key and a client.
pub struct Agent {
    pub id: String,
    pub key_id: String,
    pub raw_key: String,
    pub client: Client,
}

/// Opens the service on a database without serving it.
pub async fn open(db: &Database, clock: &TestClock, options: Options<'_>) -> App {
    App::open_to_serve(config(db, options), environment(clock)).await.expect("the service must start")
}

/// Opens the service like a command, while another process may be serving the database.
pub async fn open_beside(db: &Database, clock: &TestClock, options: Options<'_>) -> App {
    App::open_beside(config(db, options), environment(clock)).await.expect("the service must start")
}

fn config(db: &Database, options: Options<'_>) -> Config {
    let mut settings = HashMap::from([
        ("DATABASE_URL", db.url.clone()),
        ("MASTER_KEY", "0f".repeat(32)),
        ("RATE_LIMIT_AUTH_PER_MINUTE", "1000000".to_owned()),
        ("RATE_LIMIT_API_PER_MINUTE", "1000000".to_owned()),
        ("PUBLIC_URL", "https://aims.test".to_owned()),
    ]);
    for (name, value) in options {
        settings.insert(name, (*value).to_owned());
    }
    Config::load(|name| settings.get(name).cloned()).expect("the settings must be valid")
}

fn environment(clock: &TestClock) -> Environment {
    Environment::new(Arc::new(clock.clone()), Arc::new(SystemRng))
}
