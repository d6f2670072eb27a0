//! The log, when nobody reads it.

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Aims, Database, Process};

/// Sends requests that together log more than the pipe and the queue hold: 4 MiB and 64 KiB.
async fn overflow(process: &Process) {
    const REQUESTS: usize = 8_000;
    let request = format!("GET /{} HTTP/1.1\r\nHost: aims\r\n", "x/".repeat(250));
    let (mut responses, mut requests) = TcpStream::connect(process.address()).await.unwrap().into_split();
    let sending = async {
        for number in 1..=REQUESTS {
            let last = if number == REQUESTS { "Connection: close\r\n" } else { "" };
            requests.write_all(format!("{request}{last}\r\n").as_bytes()).await.unwrap();
        }
    };
    let mut received = String::new();
    tokio::join!(sending, async { responses.read_to_string(&mut received).await.unwrap() });
    assert_eq!(received.matches("HTTP/1.1 404 ").count(), REQUESTS);
}

async fn stalled() -> (Database, Process) {
    let db = Database::sqlite();
    let process = Aims::new(&db).with("LOG_FORMAT", "json").serve().await;
    process.stall_log();
    overflow(&process).await;
    (db, process)
}

/// The pipe of a log collector that hangs is full. The service goes on, and later says how many lines are missing.
#[tokio::test]
async fn a_reader_that_stalls_loses_lines_and_stops_nothing() {
    let (_db, process) = stalled().await;
    process.client().get("/_health").await.expect(200);
    process.resume_log();
    let dropped = "dropped log lines, because nobody read standard error";
    let log = process.logged(|log| log.contains(dropped)).await;
    let mut lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a whole line"));
    let note = lines.rfind(|line| line["message"] == dropped).unwrap();
    assert!(note["lines"].as_u64().is_some_and(|lines| lines > 0), "{note}");
    assert_eq!(note["level"], "WARN");
    // New lines arrive again.
    process.client().get("/again").await.expect(404);
    process.logged(|log| log.contains("\"path\":\"/again\"")).await;
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_reader_that_stalls_does_not_delay_the_end() {
    let (_db, process) = stalled().await;
    assert_eq!(process.stop().await.code, Some(0));
}

/// Lines that are still in the queue are written before the process exits.
#[tokio::test]
async fn the_last_lines_are_written() {
    let db = Database::sqlite();
    let process = Aims::new(&db).serve().await;
    let client = process.client();
    let paths: Vec<_> = (0..50).map(|number| format!("/last/{number}")).collect();
    for response in join_all(paths.iter().map(|path| client.get(path))).await {
        response.expect(404);
    }
    let exit = process.stop().await;
    for path in paths {
        assert!(exit.stderr.contains(&format!("path=\"{path}\"")), "{path}: {exit:?}");
    }
    assert!(exit.stderr.contains("shutting down"), "{exit:?}");
}
