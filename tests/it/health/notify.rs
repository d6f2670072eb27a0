//! Messages to systemd, over a real socket.

use std::{path::PathBuf, time::Duration};

use sqlx::{Connection, Executor, SqliteConnection};
use tokio::{net::UnixDatagram, time::timeout};

use crate::support::{Aims, Database};

/// How long the tests wait for a message.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The socket of a supervisor.
struct Supervisor {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Supervisor {
    fn new(db: &Database) -> Self {
        let path = db.folder.path().join("notify");
        Self { socket: UnixDatagram::bind(&path).unwrap(), path }
    }

    fn aims(&self, db: &Database) -> Aims {
        Aims::new(db).with("NOTIFY_SOCKET", self.path.to_str().unwrap())
    }

    /// Returns the lines of the next message.
    async fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4_096];
        let read = timeout(TIMEOUT, self.socket.recv(&mut buffer)).await.expect("a message must come").unwrap();
        let text = std::str::from_utf8(&buffer[..read]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns all messages up to the one with this line.
    async fn until(&self, line: &str) -> Vec<Vec<String>> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.next().await);
            if messages.last().unwrap().iter().any(|found| found == line) {
                return messages;
            }
        }
    }

    /// Discards the messages that have arrived, and returns how many were from the watchdog.
    fn drain(&self) -> usize {
        let mut buffer = [0; 4_096];
        let mut found = 0;
        while let Ok(read) = self.socket.try_recv(&mut buffer) {
            found += usize::from(&buffer[..read] == b"WATCHDOG=1\n");
        }
        found
    }
}

#[tokio::test]
async fn systemd_learns_when_the_service_is_ready_and_stops() {
    let db = Database::sqlite();
    let supervisor = Supervisor::new(&db);
    let launched = supervisor.aims(&db).with("DRAIN_SECONDS", "3").launch();
    let before = supervisor.until("READY=1").await;
    assert_eq!(before[0], ["STATUS=Opening the database"]);
    assert!(before.iter().flatten().any(|line| line == "EXTEND_TIMEOUT_USEC=30000000"), "{before:?}");
    assert_eq!(before.last().unwrap(), &["READY=1", "STATUS=Serving"]);
    let process = launched.serving().await;
    process.client().get("/readyz").await.expect(200);
    assert_eq!(supervisor.drain(), 0, "no watchdog was asked for");
    process.terminate().await;
    let stopping = supervisor.until("STOPPING=1").await;
    assert_eq!(
        stopping.last().unwrap()[1..],
        ["STATUS=Finishing the requests in progress", "EXTEND_TIMEOUT_USEC=33000000"]
    );
    assert_eq!(process.wait().await.code, Some(0));
}

#[tokio::test]
async fn the_watchdog_is_fed_while_the_writer_answers() {
    let db = Database::sqlite();
    let supervisor = Supervisor::new(&db);
    let process = supervisor.aims(&db).with("WATCHDOG_USEC", "100000").serve().await;
    for _ in 0..3 {
        supervisor.until("WATCHDOG=1").await;
    }
    // An answer that is an error counts: a restart would not repair the database.
    db.break_audit().await;
    supervisor.drain();
    supervisor.until("WATCHDOG=1").await;
    db.repair_audit().await;
    // While another process holds the database, the writer waits for it.
    let mut other = SqliteConnection::connect(&db.sqlite_url()).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let quiet = async {
        // An answer from before may still be on its way.
        loop {
            supervisor.drain();
            tokio::time::sleep(Duration::from_millis(700)).await;
            if supervisor.drain() == 0 {
                return;
            }
        }
    };
    timeout(Duration::from_secs(4), quiet).await.expect("the watchdog must not be fed");
    other.execute("ROLLBACK").await.unwrap();
    supervisor.until("WATCHDOG=1").await;
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn the_watchdog_of_another_process_is_left_alone() {
    let db = Database::sqlite();
    let supervisor = Supervisor::new(&db);
    let process = supervisor.aims(&db).with("WATCHDOG_USEC", "1000").with("WATCHDOG_PID", "1").serve().await;
    process.client().get("/readyz").await.expect(200);
    assert_eq!(supervisor.drain(), 0);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_missing_supervisor_is_reported_and_harmless() {
    let db = Database::sqlite();
    let nowhere = db.folder.path().join("nowhere");
    let process = Aims::new(&db).with("NOTIFY_SOCKET", nowhere.to_str().unwrap()).serve().await;
    process.logs("cannot notify the supervisor").await;
    process.client().get("/readyz").await.expect(200);
    assert_eq!(process.stop().await.code, Some(0));
}
