//! As much of HTTP/1.1 as asking the service takes: requests as bytes, over plain sockets, and as little parsing as is safe.

use std::{io, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::Failure;

/// An HTTP/1.1 connection that is kept open.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, valid until the next request.
pub struct Answer<'c> {
    pub status: u16,
    head: &'c [u8],
    pub body: &'c [u8],
}

impl Answer<'_> {
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// The first header with this name, which is in lower case.
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

    /// Writes a request and reads its answer.
    pub async fn ask(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
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
            return Err(malformed("bytes after the answer"));
        }
        Ok(Answer { status: head.status, head: before, body })
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
    /// `None` as long as the end of the head has not arrived.
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

/// A text of a JSON object.
pub fn member(value: &Value, name: &str) -> Result<String, Failure> {
    let text = value.get(name).and_then(Value::as_str).ok_or_else(|| format!("an answer without {name}"))?;
    Ok(text.to_owned())
}

/// Asks, and gives a text of the answer.
pub async fn ask(connection: &mut Connection, request: &[u8], member: &str) -> Result<String, Failure> {
    let answer = connection.ask(request).await?;
    if !answer.is_success() {
        return Err(answer.describe().into());
    }
    self::member(&serde_json::from_slice(answer.body)?, member)
}

/// The exchange of an API key for a token.
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
