//! Raw connections to a running service.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Aims, Database, Process};

/// How long the tests wait for an event that must happen soon.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// Size of a body that is so large that its request starts before all of it has arrived.
const LARGE_BODY: usize = 64 * 1_024;
/// A complete request.
pub const REQUEST: &str = "GET /_health HTTP/1.1\r\nHost: aims\r\n\r\n";

/// Starts a service with the given settings; returns its database, its process and the first administrator's key.
pub async fn serving(settings: &[(&str, &str)]) -> (Database, Process, String) {
    let db = Database::sqlite();
    let aims = settings.iter().fold(Aims::new(&db), |aims, (name, value)| aims.with(name, value));
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    (db, process, key)
}

/// A raw connection.
pub struct Connection {
    pub stream: TcpStream,
    read: String,
}

impl Connection {
    pub async fn open(process: &Process) -> Self {
        Self { stream: TcpStream::connect(process.address()).await.unwrap(), read: String::new() }
    }

    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends the head of a request and, once the service asks for it, the beginning of its body.
    pub async fn begin_post(&mut self, token: &str) {
        let head = format!(
            "POST /agents HTTP/1.1\r\nHost: aims\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        );
        self.send(&head).await;
        self.read_until("100 Continue\r\n\r\n").await;
        self.send("{\"na").await;
    }

    /// Sends so much of a large body that the request starts while the rest is outstanding.
    pub async fn begin_large_post(&mut self, token: &str) {
        let begin = "{\"name\": \"\"";
        let head = format!(
            "POST /agents HTTP/1.1\r\nHost: aims\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {LARGE_BODY}\r\nExpect: 100-continue\r\n\r\n"
        );
        self.send(&head).await;
        self.read_until("100 Continue\r\n\r\n").await;
        self.send(&format!("{begin:<width$}", width = LARGE_BODY - 1)).await;
    }

    /// Sends the rest; the body is read and rejected.
    pub async fn end_large_post(&mut self) {
        self.send("}").await;
        let response = self.read_until("\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 422"), "{response}");
    }

    /// Sends the beginning of a console form, which needs no authentication.
    pub async fn begin_form(&mut self) {
        let head = "POST /console/sign-in HTTP/1.1\r\nHost: aims\r\nOrigin: http://localhost:8000\r\nContent-Length: 100\r\n\
                    Content-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\n\r\n";
        self.send(head).await;
        self.read_until("100 Continue\r\n\r\n").await;
        self.send("userna").await;
    }

    /// Sends the beginning of a token request.
    pub async fn begin_grant(&mut self) {
        let head = "POST /oauth/token HTTP/1.1\r\nHost: aims\r\nContent-Length: 100\r\n\
                    Content-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\n\r\n";
        self.send(head).await;
        self.read_until("100 Continue\r\n\r\n").await;
        self.send("grant_").await;
    }

    /// Reads until `end` was received, and returns everything read so far.
    pub async fn read_until(&mut self, end: &str) -> String {
        while !self.read.contains(end) {
            assert!(self.read_more().await > 0, "closed after {:?}", self.read);
        }
        std::mem::take(&mut self.read)
    }

    /// Reads until the service closes the connection.
    pub async fn read_to_end(&mut self) -> String {
        while self.read_more().await > 0 {}
        std::mem::take(&mut self.read)
    }

    async fn read_more(&mut self) -> usize {
        let mut buffer = [0; 4_096];
        let read = timeout(TIMEOUT, self.stream.read(&mut buffer)).await.expect("the service must respond");
        // A reset is an end too.
        let read = read.unwrap_or(0);
        self.read.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        read
    }
}
