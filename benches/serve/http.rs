//! A minimal HTTP/1.1 client over plain sockets. Requests are prepared bytes, and as little of the response is parsed
//! as is safe.

use std::{io, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::Failure;

/// A persistent HTTP/1.1 connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response, valid until the next request.
pub struct Response<'c> {
    pub status: u16,
    head: &'c [u8],
    pub body: &'c [u8],
}

impl Response<'_> {
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// Returns the first header with this name, which must be lowercase.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.head, name)
    }

    pub fn describe(&self) -> String {
        format!("status {}: {}", self.status, String::from_utf8_lossy(self.body))
    }
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request and reads its response.
    pub async fn send(&mut self, request: &[u8]) -> io::Result<Response<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            self.read_more().await?;
            if let Some(head) = Head::parse(&self.buffer)? {
                break head;
            }
        };
        while self.buffer.len() < head.length + head.content_length {
            self.read_more().await?;
        }
        let (before, body) = self.buffer.split_at_checked(head.length).unwrap_or_default();
        if body.len() > head.content_length {
            return Err(malformed("unexpected bytes after the response"));
        }
        Ok(Response { status: head.status, head: before, body })
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

struct Head {
    status: u16,
    length: usize,
    content_length: usize,
}

impl Head {
    /// Returns `None` until the whole head has arrived.
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        const END: &[u8] = b"\r\n\r\n";
        let Some(end) = bytes.windows(END.len()).position(|window| window == END) else { return Ok(None) };
        let head = bytes.get(..end).unwrap_or_default();
        let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| number(str::from_utf8(rest.get(..3)?).ok()?));
        let content_length = header(head, "content-length").and_then(number);
        Ok(Some(Self {
            status: status.ok_or_else(|| malformed("no status line"))?,
            length: end + END.len(),
            content_length: content_length.ok_or_else(|| malformed("no content length"))?,
        }))
    }
}

fn header<'h>(head: &'h [u8], name: &str) -> Option<&'h str> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name.as_bytes()))?;
        Some(str::from_utf8(value).ok()?.trim())
    })
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Returns a string member of a JSON object.
pub fn member(value: &Value, name: &str) -> Result<String, Failure> {
    let text = value.get(name).and_then(Value::as_str).ok_or_else(|| format!("the response lacks {name}"))?;
    Ok(text.to_owned())
}

/// Sends a request and returns a string member of the JSON response.
pub async fn request_member(connection: &mut Connection, request: &[u8], member: &str) -> Result<String, Failure> {
    let response = connection.send(request).await?;
    if !response.is_success() {
        return Err(response.describe().into());
    }
    self::member(&serde_json::from_slice(response.body)?, member)
}

/// Renders the exchange of an API key for a token.
pub fn exchange(key: &str) -> Vec<u8> {
    render("POST", "/api/v1/auth/token", &format!("X-API-Key: {key}\r\n"), "")
}

pub fn form(path: &str, headers: &str, body: &str) -> Vec<u8> {
    with_body("POST", path, headers, "Content-Type: application/x-www-form-urlencoded\r\n", body)
}

pub fn render(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    with_body(method, path, headers, if body.is_empty() { "" } else { "Content-Type: application/json\r\n" }, body)
}

fn with_body(method: &str, path: &str, headers: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = if method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nHost: aims.test\r\n{headers}{content_type}{length}\r\n{body}").into_bytes()
}
