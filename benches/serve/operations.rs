//! What is asked of the servers.

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
    http::{Connection, ask, exchange, form, member, render},
    server::PUBLIC_URL,
};

/// The name of what everything is compared with.
pub const BARE: &str = "bare axum";
/// The password of the console's owner.
const PASSWORD: &str = "correct-horse-battery";
/// Agents that take part.
const AGENTS: usize = 64;

/// One kind of request. Clones count together.
#[derive(Clone)]
pub struct Operation {
    pub name: &'static str,
    requests: Requests,
}

#[derive(Clone)]
enum Requests {
    /// In turn, by each connection for itself.
    Repeated(Arc<[Vec<u8>]>),
    /// One for each number, and no number twice.
    Numbered(Arc<AtomicU64>, Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>),
}

impl Operation {
    pub fn repeated(name: &'static str, requests: Vec<Vec<u8>>) -> Self {
        Self { name, requests: Requests::Repeated(requests.into()) }
    }

    pub fn numbered(name: &'static str, request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self { name, requests: Requests::Numbered(Arc::default(), Arc::new(request)) }
    }

    /// The request of a connection's turn.
    pub fn request(&self, turn: usize) -> Cow<'_, [u8]> {
        match &self.requests {
            Requests::Repeated(requests) => {
                Cow::Borrowed(requests.get(turn % requests.len()).map_or(&[][..], Vec::as_slice))
            }
            Requests::Numbered(next, request) => Cow::Owned(request(next.fetch_add(1, Ordering::Relaxed))),
        }
    }
}

/// The bare server's only answer.
pub fn hello() -> Operation {
    Operation::repeated(BARE, vec![render("GET", "/hello", "", "")])
}

/// Registers the agents and their keys, and renders the exchanges of their keys.
pub fn exchanges(name: &'static str, address: SocketAddr, made: &Value) -> Result<Operation, Failure> {
    run(async {
        let mut connection = Connection::open(address).await?;
        let (_, bearer) = sign_in(&mut connection, made).await?;
        let agents = register(&mut connection, &bearer).await?;
        Ok(Operation::repeated(name, agents.iter().map(|agent| exchange(&agent.key)).collect()))
    })
}

/// Registers the agents, their keys and an administrator of the console, and renders the requests of the service.
pub fn all(address: SocketAddr, made: &Value) -> Result<Vec<Operation>, Failure> {
    run(async {
        let mut connection = Connection::open(address).await?;
        let (admin, bearer) = sign_in(&mut connection, made).await?;
        let agents = register(&mut connection, &bearer).await?;
        let mut tokens = Vec::with_capacity(AGENTS);
        for agent in &agents {
            tokens.push(ask(&mut connection, &exchange(&agent.key), "access_token").await?);
        }
        let asks = |token| form("/oauth/introspect", &admin.basic(), &format!("token={token}"));
        let grants = |agent: &Agent| form("/oauth/token", &agent.basic(), "grant_type=client_credentials");
        let reads = |agent: &Agent| render("GET", &format!("/api/v1/agents/{}", agent.id), &bearer, "");
        let issued = |agent: &Agent| {
            let path = format!("/api/v1/agents/{}/audit?limit=20", agent.id);
            render("GET", &path, &bearer, "")
        };
        let cookie = console_session(&mut connection, made).await?;
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

/// Registers agents that nobody has registered before.
pub fn create_agents(bearer: String) -> Operation {
    // A database that outlasts a run has those of earlier ones.
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

/// The first administrator, and the header that authenticates it.
pub async fn sign_in(connection: &mut Connection, made: &Value) -> Result<(Agent, String), Failure> {
    let admin = Agent { id: member(made, "agent_id")?, key: member(made, "api_key")? };
    let token = ask(connection, &exchange(&admin.key), "access_token").await?;
    Ok((admin, format!("Authorization: Bearer {token}\r\n")))
}

async fn register(connection: &mut Connection, bearer: &str) -> Result<Vec<Agent>, Failure> {
    let mut agents = Vec::with_capacity(AGENTS);
    for number in 0..AGENTS {
        let agent = json!({ "name": format!("bench-{number}"), "owner": "bench" }).to_string();
        let id = ask(connection, &render("POST", "/api/v1/agents", bearer, &agent), "id").await?;
        let key = render("POST", &format!("/api/v1/agents/{id}/keys"), bearer, "{}");
        let key = ask(connection, &key, "raw_key").await?;
        agents.push(Agent { id, key });
    }
    Ok(agents)
}

/// The console's owner signs in.
pub fn console_sign_in() -> Vec<u8> {
    form_of_console("/console/sign-in", &format!("username=bench&password={PASSWORD}"))
}

fn form_of_console(path: &str, body: &str) -> Vec<u8> {
    form(path, &format!("Origin: {PUBLIC_URL}\r\n"), body)
}

/// Signs in to the console as its owner, who is made first where there is none; gives the header that carries their session.
pub async fn console_session(connection: &mut Connection, made: &Value) -> Result<String, Failure> {
    let request = if let Ok(url) = member(made, "setup_url") {
        let (_, token) = url.split_once("token=").ok_or("a link without a token")?;
        let repeated = format!("new_password={PASSWORD}&repeat_password={PASSWORD}");
        form_of_console("/console/setup", &format!("token={token}&username=bench&display_name=Bench&{repeated}"))
    } else {
        console_sign_in()
    };
    let answer = connection.ask(&request).await?;
    let cookie = answer.header("set-cookie").and_then(|cookie| cookie.split(';').next());
    Ok(format!("Cookie: {}\r\n", cookie.ok_or_else(|| answer.describe())?))
}
