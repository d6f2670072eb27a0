//! A private PostgreSQL server that the test may restart.

use std::{net::TcpListener, process::Stdio};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::Database;

/// Prints the server's address, then restarts it in each mode that it reads and confirms; removes it at the end of its
/// input.
const SCRIPT: &str = r#"
    echo "postgres://$PGUSER:$PGPASSWORD@$PGHOST:$PGPORT/postgres"
    while read -r mode; do
        pg_ctlcluster --skip-systemctl-redirect "$PGVERSION" regress restart -m "$mode" >&2 && echo restarted
    done"#;

pub struct Postgres {
    child: Child,
    orders: ChildStdin,
    responses: Lines<BufReader<ChildStdout>>,
}

impl Postgres {
    /// Starts a server with default settings and an empty database.
    pub async fn start() -> (Self, Database) {
        let mut command = Command::new("pg_virtualenv");
        // pg_virtualenv would look for a free port only among the servers that it knows.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        command
            .args(["-t", "-c", &format!("--port {port}"), "bash", "-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("pg_virtualenv; `tests/run` installs it");
        let orders = child.stdin.take().unwrap();
        let mut responses = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = loop {
            let line = responses.next_line().await.unwrap().expect("PostgreSQL must start");
            if line.starts_with("postgres://") {
                break line;
            }
        };
        (Self { child, orders, responses }, Database { url, folder: TempDir::new().unwrap() })
    }

    /// Restarts the server and returns once it accepts connections: `fast` aborts transactions, `immediate` is a crash.
    pub async fn restart(&mut self, mode: &str) {
        self.orders.write_all(format!("{mode}\n").as_bytes()).await.unwrap();
        assert_eq!(self.responses.next_line().await.unwrap().as_deref(), Some("restarted"));
    }

    /// Stops and removes the server.
    pub async fn stop(mut self) {
        drop(self.orders);
        while self.responses.next_line().await.unwrap().is_some() {}
        assert!(self.child.wait().await.unwrap().success());
    }
}
