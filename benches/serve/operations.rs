//! What is asked of the servers, rendered once before the run.

use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};

use crate::{Failure, load::Connection};

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
    Operation::repeated("bare axum", vec![render("GET", "/hello", "", "")])
}

/// Registers the agents and their keys, and renders the requests of the service.
pub fn prepare(address: SocketAddr, admin_key: &str) -> Result<Vec<Operation>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = Connection::open(address).await?;
        let token = ask(&mut connection, &exchange(admin_key), "access_token").await?;
        let bearer = format!("Authorization: Bearer {token}\r\n");
        let (mut exchanges, mut reads) = (Vec::new(), Vec::new());
        for number in 0..AGENTS {
            let agent = json!({ "name": format!("bench-{number}"), "owner": "bench" }).to_string();
            let id = ask(&mut connection, &render("POST", "/api/v1/agents", &bearer, &agent), "id").await?;
            let path = format!("/api/v1/agents/{id}");
            let key = render("POST", &format!("{path}/keys"), &bearer, "{}");
            exchanges.push(exchange(&ask(&mut connection, &key, "raw_key").await?));
            reads.push(render("GET", &path, &bearer, ""));
        }
        let digits = "0".repeat(DIGITS);
        let unnamed = format!(r#"{{"owner":"bench","name":"created-{digits}"}}"#);
        Ok(vec![
            Operation::repeated("token exchange", exchanges),
            Operation::repeated("GET agent", reads),
            Operation::unique("POST agents", render("POST", "/api/v1/agents", &bearer, &unnamed)),
        ])
    })
}

async fn ask(connection: &mut Connection, request: &[u8], member: &str) -> Result<String, Failure> {
    let answer = connection.ask(request).await?;
    if !answer.is_success() {
        return Err(answer.describe().into());
    }
    let body: Value = serde_json::from_slice(answer.body)?;
    let text = body.get(member).and_then(Value::as_str).ok_or_else(|| format!("an answer without {member}"))?;
    Ok(text.to_owned())
}

fn exchange(key: &str) -> Vec<u8> {
    render("POST", "/api/v1/auth/token", &format!("X-API-Key: {key}\r\n"), "")
}

fn render(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let described = match (method, body) {
        ("GET", _) => String::new(),
        (_, "") => "Content-Length: 0\r\n".to_owned(),
        (_, body) => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
    };
    format!("{method} {path} HTTP/1.1\r\nHost: aims.test\r\n{headers}{described}\r\n{body}").into_bytes()
}
