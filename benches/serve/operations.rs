//! What is asked of the servers, rendered once before the run.

use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{Failure, load::Connection};

/// The name of what everything is compared with.
pub const BARE: &str = "bare axum";
/// Agents that take part.
const AGENTS: usize = 64;
/// Digits that make a name unique.
const DIGITS: usize = 12;

/// One kind of request. Clones count unique names together.
#[derive(Clone)]
pub struct Operation {
    pub name: &'static str,
    requests: Arc<[Vec<u8>]>,
    unique: Option<Arc<AtomicU64>>,
}

impl Operation {
    fn repeated(name: &'static str, requests: Vec<Vec<u8>>) -> Self {
        Self { name, requests: requests.into(), unique: None }
    }

    /// Ends in `DIGITS` digits and `"}`, which are to be different in every request.
    fn unique(name: &'static str, request: Vec<u8>) -> Self {
        Self { name, requests: [request].into(), unique: Some(Arc::default()) }
    }

    /// The request of a connection's turn; `scratch` keeps one that is made for it.
    pub fn request<'r>(&'r self, turn: usize, scratch: &'r mut Vec<u8>) -> &'r [u8] {
        let request = self.requests.get(turn % self.requests.len()).map_or(&[][..], Vec::as_slice);
        let Some(unique) = &self.unique else { return request };
        scratch.clear();
        scratch.extend_from_slice(request.get(..request.len() - DIGITS - 2).unwrap_or_default());
        let number = unique.fetch_add(1, Ordering::Relaxed);
        // Writing to a vector does not fail.
        let _ = write!(scratch, "{number:0DIGITS$}\"}}");
        scratch
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
        let cookie = set_up(&mut connection, made).await?;
        let digits = "0".repeat(DIGITS);
        let unnamed = format!(r#"{{"owner":"bench","name":"created-{digits}"}}"#);
        Ok(vec![
            Operation::repeated("exchange ES256", agents.iter().map(|agent| exchange(&agent.key)).collect()),
            Operation::repeated("credentials grant", agents.iter().map(grants).collect()),
            Operation::repeated("introspection", tokens.iter().map(asks).collect()),
            Operation::repeated("GET agent", agents.iter().map(reads).collect()),
            Operation::repeated("list agents", vec![render("GET", "/api/v1/agents?limit=50", &bearer, "")]),
            Operation::repeated("audit of agent", agents.iter().map(issued).collect()),
            Operation::repeated("console agents", vec![render("GET", "/console/agents", &cookie, "")]),
            Operation::unique("POST agents", render("POST", "/api/v1/agents", &bearer, &unnamed)),
        ])
    })
}

fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

struct Agent {
    id: String,
    key: String,
}

impl Agent {
    fn basic(&self) -> String {
        format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{}:{}", self.id, self.key)))
    }
}

/// The first administrator, and the header that authenticates it.
async fn sign_in(connection: &mut Connection, made: &Value) -> Result<(Agent, String), Failure> {
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

/// Makes the console's first owner, and gives the header that carries their session.
async fn set_up(connection: &mut Connection, made: &Value) -> Result<String, Failure> {
    let url = member(made, "setup_url")?;
    let (_, token) = url.split_once("token=").ok_or("a link without a token")?;
    let password = "correct-horse-battery";
    let body =
        format!("token={token}&username=bench&display_name=Bench&new_password={password}&repeat_password={password}");
    let request = form("/console/setup", "Origin: http://aims.test\r\n", &body);
    let answer = connection.ask(&request).await?;
    let cookie = answer.header("set-cookie").and_then(|cookie| cookie.split(';').next());
    Ok(format!("Cookie: {}\r\n", cookie.ok_or_else(|| answer.describe())?))
}

fn member(value: &Value, name: &str) -> Result<String, Failure> {
    let text = value.get(name).and_then(Value::as_str).ok_or_else(|| format!("an answer without {name}"))?;
    Ok(text.to_owned())
}

async fn ask(connection: &mut Connection, request: &[u8], member: &str) -> Result<String, Failure> {
    let answer = connection.ask(request).await?;
    if !answer.is_success() {
        return Err(answer.describe().into());
    }
    self::member(&serde_json::from_slice(answer.body)?, member)
}

fn exchange(key: &str) -> Vec<u8> {
    render("POST", "/api/v1/auth/token", &format!("X-API-Key: {key}\r\n"), "")
}

fn form(path: &str, headers: &str, body: &str) -> Vec<u8> {
    with_body("POST", path, headers, "Content-Type: application/x-www-form-urlencoded\r\n", body)
}

fn render(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    with_body(method, path, headers, if body.is_empty() { "" } else { "Content-Type: application/json\r\n" }, body)
}

fn with_body(method: &str, path: &str, headers: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = if method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nHost: aims.test\r\n{headers}{content_type}{length}\r\n{body}").into_bytes()
}
