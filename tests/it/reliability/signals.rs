//! Shutdown and other signals while requests are in progress.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use super::connection::{Connection, REQUEST, TIMEOUT, serving};

#[tokio::test]
async fn shutdown_finishes_requests_in_progress() {
    let (db, process, key) = serving(&[]).await;
    let admin = process.client().login(&key).await;
    let body = json!({ "name": "slow", "owner": "o" }).to_string();
    let head = format!(
        "POST /agents HTTP/1.1\r\nHost: aims\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        admin.token(),
        body.len()
    );
    let mut slow = Connection::open(&process).await;
    slow.send(&head).await;
    // The service asks for the body: from here on the request is in progress.
    slow.read_until("100 Continue\r\n\r\n").await;
    slow.send(&body[..5]).await;
    let mut idle = Connection::open(&process).await;
    idle.send(REQUEST).await;
    idle.read_until("\"ok\"").await;

    let started = Instant::now();
    process.terminate().await;
    idle.read_to_end().await;
    // Polled: the listener closes some time after the signal arrives.
    let refused = async {
        while TcpStream::connect(process.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, refused).await.expect("new connections must be refused");
    slow.send(&body[5..]).await;
    let response = slow.read_to_end().await;
    assert!(response.contains("HTTP/1.1 201 Created") && response.contains("\"name\":\"slow\""), "{response}");

    let exit = process.wait().await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(db.count("SELECT COUNT(*) FROM agents WHERE name = 'slow'").await, 1);
}

#[tokio::test]
async fn second_signal_does_not_abort_requests() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("INT", "TERM")] {
        let (_db, process, key) = serving(&[]).await;
        let admin = process.client().login(&key).await;
        let mut slow = Connection::open(&process).await;
        slow.begin_large_post(admin.token()).await;
        process.signal(first).await;
        timeout(TIMEOUT, async {
            while !process.log().contains("finishing the requests") {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the shutdown must begin");
        process.signal(second).await;
        slow.end_large_post().await;
        let exit = process.wait().await;
        assert_eq!(exit.code, Some(0), "{first}, {second}: {exit:?}");
        assert!(!exit.stderr.contains("cut off requests"), "{first}, {second}: {exit:?}");
    }
}

#[tokio::test]
async fn other_signals_are_ignored() {
    let (_db, process, key) = serving(&[]).await;
    let admin = process.client().login(&key).await;
    let mut slow = Connection::open(&process).await;
    slow.begin_large_post(admin.token()).await;
    for signal in ["USR1", "USR2", "HUP"] {
        process.signal(signal).await;
    }
    // Polled: the line is logged some time after the signal arrives.
    let logged = async {
        while !process.log().contains("SIGHUP") {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, logged).await.expect("the log must explain SIGHUP");
    slow.end_large_post().await;
    admin.get("/agents").await.expect(200);
    // Also during the shutdown.
    slow.begin_large_post(admin.token()).await;
    process.terminate().await;
    for signal in ["USR1", "USR2", "HUP"] {
        process.signal(signal).await;
    }
    slow.end_large_post().await;
    let exit = process.wait().await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let lines: Vec<_> = exit.stderr.lines().filter(|line| line.contains("SIGHUP")).collect();
    assert!((1..=2).contains(&lines.len()) && lines.iter().all(|line| line.contains("INFO")), "{exit:?}");
}

#[tokio::test]
async fn shutdown_is_bounded() {
    let (_db, process, key) = serving(&[("DRAIN_SECONDS", "1")]).await;
    let admin = process.client().login(&key).await;
    let mut stuck = Connection::open(&process).await;
    stuck.begin_post(admin.token()).await;
    let started = Instant::now();
    let exit = process.stop().await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(exit.stderr.contains("cut off requests"), "{exit:?}");
}
