//! The listener of the metrics.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{Exposition, SOON, is, start};
use crate::{
    both,
    support::{Aims, Client, Database, Process},
};

both!(hundred_scrapers_get_their_answers_beside_requests, only_the_metrics_are_served);

async fn only_the_metrics_are_served(db: Database) {
    let server = start(db).await;
    let metrics = server.scraper();
    let response = metrics.get("/metrics").await;
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("access-control-allow-origin"), None);
    let head = metrics.send(metrics.request(Method::HEAD, "/metrics")).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
        assert_eq!(metrics.send(metrics.request(method, "/metrics")).await.status.as_u16(), 405);
    }
    for path in ["/", "/metrics/", "/_health", "/agents", "/api/v1/agents", "/console", "/docs", "/oauth/token"] {
        assert_eq!(metrics.with_token(server.admin.token()).get(path).await.status.as_u16(), 404, "{path}");
    }
    for path in ["/metrics", "/api/v1/metrics"] {
        assert_eq!(server.admin.get(path).await.status.as_u16(), 404, "{path}");
    }
}

async fn hundred_scrapers_get_their_answers_beside_requests(db: Database) {
    let server = start(db).await;
    let agent = server.agent("busy", &["agents:read"]).await;
    let address = server.metrics_url.as_deref().unwrap().strip_prefix("http://").unwrap().to_owned();
    // Every scraper is connected before the first one asks, and none of them closes its connection.
    let mut scrapers = join_all((0..100).map(|_| async { TcpStream::connect(&address).await.unwrap() })).await;
    let scraping = join_all(scrapers.iter_mut().map(|scraper| async {
        scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_response(scraper).await
    }));
    let requests = async {
        for _ in 0..20 {
            let asked = timeout(SOON, agent.client.get("/agents")).await;
            asked.expect("requests must not wait for scrapers").expect(200);
            server.anonymous().exchange(&agent.raw_key).await.expect(200);
        }
    };
    let (answers, ()) = timeout(SOON * 2, futures_util::future::join(scraping, requests)).await.expect("answers");
    for answer in &answers {
        let shown = Exposition::parse(answer);
        assert!(is(shown.value("aims_database_up", &[]), 1.0));
    }
    assert_eq!(answers.len(), 100);
    // One more is served while all of them are still connected.
    server.scrape().await;
}

/// Reads the response to one request on a connection that stays open, and returns its body.
async fn read_response(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.expect("a length").parse::<usize>().unwrap() {
                return body.to_owned();
            }
        }
        assert!(stream.read_buf(&mut received).await.unwrap() > 0, "closed");
    }
}

/// A client that connects and says nothing must not keep its place for long.
#[tokio::test]
async fn silent_scrapers_are_disconnected() {
    let (_db, process, address) = serving().await;
    let mut silent = TcpStream::connect(&address).await.unwrap();
    silent.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
    let mut rest = Vec::new();
    let closed = timeout(Duration::from_secs(30), silent.read_to_end(&mut rest)).await;
    closed.expect("the connection must be closed").unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("aims_"));
    assert_eq!(process.stop().await.code, Some(0));
}

/// Starts a service with metrics on a free port.
async fn serving() -> (Database, Process, String) {
    let db = Database::sqlite();
    let process = Aims::new(&db).with("METRICS_ADDR", "127.0.0.1:0").with("LOG_FORMAT", "json").serve().await;
    let log = process.log();
    let line = log.lines().find(|line| line.contains("serving metrics")).unwrap_or_else(|| panic!("{log}"));
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let address = line["listen"].as_str().unwrap().to_owned();
    (db, process, address)
}

#[tokio::test]
async fn a_process_shows_its_own_numbers() {
    let (_db, process, address) = serving().await;
    let text = Client::new(format!("http://{address}")).get("/metrics").await.text;
    let shown = Exposition::parse(&text);
    assert!(shown.value("process_resident_memory_bytes", &[]) > 1e6);
    assert!(shown.value("process_open_fds", &[]) > 5.0);
    assert!(shown.value("process_threads", &[]) > 1.0);
    assert!(shown.value("process_start_time_seconds", &[]) > 1.6e9);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn an_address_in_use_stops_the_start_before_anything_is_created() {
    let db = Database::sqlite();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let exit = Aims::new(&db).with("METRICS_ADDR", &address).run(&[]).await;
    exit.fails_with(&format!("cannot listen on METRICS_ADDR {address}: "));
    assert!(!db.sqlite_file().exists(), "nothing may be created");
}

#[tokio::test]
async fn an_invalid_address_is_named() {
    let db = Database::sqlite();
    for wrong in ["9464", "localhost", "metrics.example:9464", "http://127.0.0.1:9464"] {
        let exit = Aims::new(&db).with("METRICS_ADDR", wrong).run(&["check-config"]).await;
        assert!(exit.code == Some(1) && exit.stderr.contains("METRICS_ADDR must be an address and a port"), "{exit:?}");
    }
}

#[tokio::test]
async fn an_address_for_everybody_is_warned_about() {
    const WARNING: &str = "METRICS_ADDR is not a private address";
    let db = Database::sqlite();
    for (address, is_warned) in [("0.0.0.0:0", true), ("[::]:0", true), ("127.0.0.1:0", false)] {
        let process = Aims::new(&db).with("METRICS_ADDR", address).serve().await;
        assert_eq!(process.log().contains(WARNING), is_warned, "{address}: {}", process.log());
        assert_eq!(process.stop().await.code, Some(0));
    }
}

#[tokio::test]
async fn without_an_address_nothing_is_served() {
    let db = Database::sqlite();
    let process = Aims::new(&db).serve().await;
    assert!(!process.log().contains("serving metrics"));
    assert_eq!(process.client().get("/metrics").await.status.as_u16(), 404);
    // The sockets of the process that wait for connections (state 0A of proc(5)).
    let listening = std::fs::read_to_string(format!("/proc/{}/net/tcp", process.id())).unwrap();
    let own = own_sockets(process.id());
    let listening = listening.lines().filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(3) == Some(&"0A") && fields.get(9).is_some_and(|inode| own.contains(&(*inode).to_owned()))
    });
    assert_eq!(listening.count(), 1);
    assert_eq!(process.stop().await.code, Some(0));
}

/// The inodes of the sockets of a process.
fn own_sockets(process: u32) -> Vec<String> {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
    let inode =
        |target: std::path::PathBuf| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned);
    targets.filter_map(inode).collect()
}
