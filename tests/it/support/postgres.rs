//! A PostgreSQL server of a test's own, which it may restart.

use std::{net::TcpListener, process::Stdio};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::Database;

/// Says where it is, then restarts in each mode that it reads, and says so; ends, and removes the server, with its input.
const SCRIPT: &str = r#"
    echo "postgres://$PGUSER:$PGPASSWORD@$PGHOST:$PGPORT/postgres"
    while read -r mode; do
        pg_ctlcluster --skip-systemctl-redirect "$PGVERSION" regress restart -m "$mode" >&2 && echo restarted
    done"#;

pub struct Postgres {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Postgres {
    /// Starts a server with the settings that a new one has; its database is empty.
    pub async fn start() -> (Self, Database) {
        let mut command = Command::new("pg_virtualenv");
        // It would look for a free port only among the servers that it knows of.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        command
            .args(["-t", "-c", &format!("--port {port}"), "bash", "-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("pg_virtualenv; `tests/run` installs it");
        let orders = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = loop {
            let line = answers.next_line().await.unwrap().expect("PostgreSQL starts");
            if line.starts_with("postgres://") {
                break line;
            }
        };
        (Self { child, orders, answers }, Database { url, folder: TempDir::new().unwrap() })
    }

    /// Restarts it, and returns once it accepts connections: `fast` ends every transaction, `immediate` is a crash.
    pub async fn restart(&mut self, mode: &str) {
        self.orders.write_all(format!("{mode}\n").as_bytes()).await.unwrap();
        assert_eq!(self.answers.next_line().await.unwrap().as_deref(), Some("restarted"));
    }

    /// Removes it.
    pub async fn stop(mut self) {
        drop(self.orders);
        while self.answers.next_line().await.unwrap().is_some() {}
        assert!(self.child.wait().await.unwrap().success());
    }
}
