//! The requests that the benchmarks send.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aims::clock::Environment;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    Failure,
    http::{Connection, exchange, form, member, render, request_member},
    server::PUBLIC_URL,
};

/// The operation that the others are compared with.
pub const BARE: &str = "bare axum";
/// Password of the console's owner.
const PASSWORD: &str = "correct-horse-battery";
/// Number of agents that send requests.
const AGENTS: usize = 64;

/// One kind of request. Clones share their counter.
#[derive(Clone)]
pub struct Operation {
    pub name: &'static str,
    requests: Requests,
}

#[derive(Clone)]
enum Requests {
    /// Each connection repeats these in order.
    Repeated(Arc<[Vec<u8>]>),
    /// A new request for each number; no number is used twice.
    Numbered(Arc<AtomicU64>, Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>),
}

impl Operation {
    pub fn repeated(name: &'static str, requests: Vec<Vec<u8>>) -> Self {
        Self { name, requests: Requests::Repeated(requests.into()) }
    }

    pub fn numbered(name: &'static str, request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self { name, requests: Requests::Numbered(Arc::default(), Arc::new(request)) }
    }

    /// Returns the request for a connection's `turn`.
    pub fn request(&self, turn: usize) -> Cow<'_, [u8]> {
        match &self.requests {
            Requests::Repeated(requests) => {
                Cow::Borrowed(requests.get(turn % requests.len()).map_or(&[][..], Vec::as_slice))
            }
            Requests::Numbered(next, request) => Cow::Owned(request(next.fetch_add(1, Ordering::Relaxed))),
        }
    }
}

/// The only request of the bare server.
pub fn hello() -> Operation {
    Operation::repeated(BARE, vec![render("GET", "/hello", "", "")])
}

/// Registers agents and keys, and renders their key exchanges.
pub fn exchanges(name: &'static str, address: SocketAddr, bootstrap: &Value) -> Result<Operation, Failure> {
    run(async {
        let mut connection = Connection::open(address).await?;
        let (_, bearer) = sign_in(&mut connection, bootstrap).await?;
        let agents = register(&mut connection, &bearer).await?;
        Ok(Operation::repeated(name, agents.iter().map(|agent| exchange(&agent.key)).collect()))
    })
}

/// Registers agents, keys and a console owner, and renders the requests of every operation.
pub fn all(address: SocketAddr, bootstrap: &Value) -> Result<Vec<Operation>, Failure> {
    run(async {
        let mut connection = Connection::open(address).await?;
        let (admin, bearer) = sign_in(&mut connection, bootstrap).await?;
        let agents = register(&mut connection, &bearer).await?;
        let mut tokens = Vec::with_capacity(AGENTS);
        for agent in &agents {
            tokens.push(request_member(&mut connection, &exchange(&agent.key), "access_token").await?);
        }
        let asks = |token| form("/oauth/introspect", &admin.basic(), &format!("token={token}"));
        let grants = |agent: &Agent| form("/oauth/token", &agent.basic(), "grant_type=client_credentials");
        let reads = |agent: &Agent| render("GET", &format!("/api/v1/agents/{}", agent.id), &bearer, "");
        let issued = |agent: &Agent| {
            let path = format!("/api/v1/agents/{}/audit?limit=20", agent.id);
            render("GET", &path, &bearer, "")
        };
        let cookie = console_session(&mut connection, bootstrap).await?;
        Ok(vec![
            Operation::repeated("exchange ES256", agents.iter().map(|agent| exchange(&agent.key)).collect()),
            Operation::repeated("credentials grant", agents.iter().map(grants).collect()),
            Operation::repeated("introspection", tokens.iter().map(asks).collect()),
            Operation::repeated("GET agent", agents.iter().map(reads).collect()),
            Operation::repeated("list agents", vec![render("GET", "/api/v1/agents?limit=50", &bearer, "")]),
            Operation::repeated("audit of agent", agents.iter().map(issued).collect()),
            Operation::repeated("console agents", vec![render("GET", "/console/agents", &cookie, "")]),
            create_agents(bearer.clone()),
        ])
    })
}

/// Registers agents with names that are not taken.
pub fn create_agents(bearer: String) -> Operation {
    // A kept database contains the agents of earlier runs.
    let run = Environment::system().now().as_micros();
    let body = move |number| format!(r#"{{"owner":"bench","name":"created-{run}-{number:012}"}}"#);
    Operation::numbered("POST agents", move |number| render("POST", "/api/v1/agents", &bearer, &body(number)))
}

pub fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

pub struct Agent {
    pub id: String,
    pub key: String,
}

impl Agent {
    pub fn basic(&self) -> String {
        format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{}:{}", self.id, self.key)))
    }
}

/// Authenticates as the first administrator; returns it and its `Authorization` header.
pub async fn sign_in(connection: &mut Connection, bootstrap: &Value) -> Result<(Agent, String), Failure> {
    let admin = Agent { id: member(bootstrap, "agent_id")?, key: member(bootstrap, "api_key")? };
    let token = request_member(connection, &exchange(&admin.key), "access_token").await?;
    Ok((admin, format!("Authorization: Bearer {token}\r\n")))
}

async fn register(connection: &mut Connection, bearer: &str) -> Result<Vec<Agent>, Failure> {
    let mut agents = Vec::with_capacity(AGENTS);
    for number in 0..AGENTS {
        let agent = json!({ "name": format!("bench-{number}"), "owner": "bench" }).to_string();
        let id = request_member(connection, &render("POST", "/api/v1/agents", bearer, &agent), "id").await?;
        let key = render("POST", &format!("/api/v1/agents/{id}/keys"), bearer, "{}");
        let key = request_member(connection, &key, "raw_key").await?;
        agents.push(Agent { id, key });
    }
    Ok(agents)
}

/// Renders the console sign-in of the owner.
pub fn console_sign_in() -> Vec<u8> {
    form_of_console("/console/sign-in", &format!("username=bench&password={PASSWORD}"))
}

fn form_of_console(path: &str, body: &str) -> Vec<u8> {
    form(path, &format!("Origin: {PUBLIC_URL}\r\n"), body)
}

/// Signs in to the console as its owner, creating one if there is none. Returns the session's cookie header.
pub async fn console_session(connection: &mut Connection, bootstrap: &Value) -> Result<String, Failure> {
    let request = if let Ok(url) = member(bootstrap, "setup_url") {
        let (_, token) = url.split_once("token=").ok_or("the setup link has no token")?;
        let repeated = format!("new_password={PASSWORD}&repeat_password={PASSWORD}");
        form_of_console("/console/setup", &format!("token={token}&username=bench&display_name=Bench&{repeated}"))
    } else {
        console_sign_in()
    };
    let response = connection.send(&request).await?;
    let cookie = response.header("set-cookie").and_then(|cookie| cookie.split(';').next());
    Ok(format!("Cookie: {}\r\n", cookie.ok_or_else(|| response.describe())?))
}
