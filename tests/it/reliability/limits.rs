//! Limits on connections, requests and memory with slow, silent or too many clients.

use std::{
    thread::available_parallelism,
    time::{Duration, Instant},
};

use futures_util::future::{join_all, select_all};
use reqwest::Method;
use serde_json::json;
use tokio::{io::AsyncWriteExt, time::timeout};

use super::connection::{Connection, REQUEST, TIMEOUT, serving};
use crate::{
    both,
    support::{Aims, Database, Server},
};

both!(connections_wait_until_idle_ones_time_out_when_open_files_are_few);

#[tokio::test]
async fn silent_connections_are_closed() {
    let (_db, process, _key) = serving(&[("HEADER_TIMEOUT_SECONDS", "1")]).await;
    for sent in ["", "GET /_health HTTP/1.1\r\nHost: ai", "GET /_hea", REQUEST] {
        let mut connection = Connection::open(&process).await;
        connection.send(sent).await;
        let began = Instant::now();
        let response = connection.read_to_end().await;
        let served = response.contains("200 OK");
        assert_eq!(served, sent == REQUEST, "{sent:?}: {response}");
        assert!(began.elapsed() < Duration::from_secs(5), "{sent:?}: {:?}", began.elapsed());
    }
    // Trickling bytes do not extend the timeout.
    let mut connection = Connection::open(&process).await;
    let trickle = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            if connection.stream.write_all(b"G").await.is_err() {
                return;
            }
        }
    };
    timeout(TIMEOUT, trickle).await.expect("a trickling connection must be closed");
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let (_db, process, key) = serving(&[("MAX_CONNECTIONS", "3")]).await;
    let admin = process.client().login(&key).await;
    let token = admin.token().to_owned();
    drop(admin);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open(&process).await;
        connection.begin_large_post(&token).await;
        open.push(connection);
    }
    let mut late = Connection::open(&process).await;
    late.send(REQUEST).await;
    let early = timeout(Duration::from_millis(1_500), late.read_until("\"ok\"")).await;
    assert!(early.is_err(), "a fourth connection must not be served");
    open.pop();
    late.read_until("\"ok\"").await;
    for connection in &mut open {
        connection.end_large_post().await;
    }
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn slow_clients_cannot_occupy_all_connections_for_ever() {
    let settings = [("MAX_CONNECTIONS", "5"), ("HEADER_TIMEOUT_SECONDS", "1"), ("REQUEST_TIMEOUT_SECONDS", "1")];
    let (_db, process, _key) = serving(&settings).await;
    let mut slow = Vec::new();
    for _ in 0..5 {
        slow.push(Connection::open(&process).await);
    }
    slow[1].send("GET /_health HTTP/1.1\r\nHost: ai").await;
    slow[2].send(REQUEST).await;
    slow[2].read_until("\"ok\"").await;
    slow[3].begin_grant().await;
    slow[4].begin_form().await;
    let mut late = Connection::open(&process).await;
    late.send(REQUEST).await;
    late.read_until("\"ok\"").await;
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn open_file_limit_is_raised_for_the_allowed_connections() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MAX_CONNECTIONS", "300").with_soft_file_limit(64);
    aims.bootstrap().await;
    let process = aims.serve().await;
    let mut open = Vec::new();
    for _ in 0..300 {
        let mut connection = Connection::open(&process).await;
        connection.send(REQUEST).await;
        timeout(TIMEOUT, connection.read_until("\"ok\"")).await.expect("all connections must be served");
        open.push(connection);
    }
    drop(open);
    assert_eq!(process.stop().await.code, Some(0));
}

async fn connections_wait_until_idle_ones_time_out_when_open_files_are_few(db: Database) {
    const IDLE: usize = 100;
    let aims = Aims::new(&db).with("HEADER_TIMEOUT_SECONDS", "1").with_hard_file_limit(64);
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(Connection::open(&process).await);
    }
    let mut late = Connection::open(&process).await;
    late.send(REQUEST).await;
    late.read_until("\"ok\"").await;
    // The database has enough file descriptors, even for many concurrent requests.
    let admin = process.client().login(&key).await;
    let responses = timeout(TIMEOUT, join_all((0..IDLE).map(|_| admin.get("/agents"))))
        .await
        .expect("every request must get a response");
    for response in responses {
        response.expect(200);
    }
    admin.post("/agents", json!({ "name": "a", "owner": "o" })).await.expect(201);
    drop((idle, late));
    let exit = process.stop().await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let warnings: Vec<_> = exit.stderr.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    let [warning] = &*warnings else { panic!("{warnings:#?}") };
    let (_, connections) =
        warning.split_once("open_files=64 max_connections=").expect("the log must contain the limits");
    assert!((10..64).contains(&connections.parse::<usize>().unwrap()), "{warning}");
    let serving = exit.stderr.lines().find(|line| line.contains(" serving ")).unwrap();
    assert!(serving.ends_with(&format!("max_connections={connections}")), "{serving}");
}

#[tokio::test]
async fn too_low_open_file_limit_is_reported() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    aims.with_hard_file_limit(30)
        .run(&["serve"])
        .await
        .fails_with("the open file limit is 30, but the service needs at least");
}

#[tokio::test]
async fn requests_with_an_incomplete_body_time_out() {
    let (db, process, key) = serving(&[("REQUEST_TIMEOUT_SECONDS", "1")]).await;
    let admin = process.client().login(&key).await;
    let mut agent = Connection::open(&process).await;
    agent.begin_post(admin.token()).await;
    let mut browser = Connection::open(&process).await;
    browser.begin_form().await;
    let mut client = Connection::open(&process).await;
    client.begin_grant().await;
    for (mut connection, is_oauth) in [(agent, false), (browser, false), (client, true)] {
        // The connection cannot be reused and is closed.
        let response = timeout(TIMEOUT, connection.read_to_end()).await.expect("the request must time out");
        assert!(response.starts_with("HTTP/1.1 503") && response.contains("\r\nretry-after: 1\r\n"), "{response}");
        assert_eq!(
            response.contains("{\"error\":\"temporarily_unavailable\",\"error_description\":\""),
            is_oauth,
            "{response}"
        );
    }
    admin.get("/agents").await.expect(200);
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 1);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn incomplete_bodies_do_not_block_other_requests() {
    let (db, process, key) = serving(&[("MAX_REQUESTS", "1")]).await;
    let admin = process.client().login(&key).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        for _ in 0..3 {
            open.push(Connection::open(&process).await);
        }
        let [.., agent, browser, client] = &mut *open else { unreachable!() };
        agent.begin_post(admin.token()).await;
        browser.begin_form().await;
        client.begin_grant().await;
    }
    admin.post("/agents", json!({ "name": "a", "owner": "o" })).await.expect(201);
    process.client().login(&key).await;
    // A started request continues.
    let [agent, ..] = &mut *open else { unreachable!() };
    let rest = "me\": \"b\", \"owner\": \"o\"";
    agent.send(&format!("{rest:<95}}}")).await;
    let response = agent.read_until("\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 201"), "{response}");
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 3);
    drop(open);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn large_incomplete_bodies_take_few_slots() {
    let (_db, process, key) = serving(&[("MAX_REQUESTS", "32")]).await;
    let admin = process.client().login(&key).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open(&process).await;
        connection.begin_large_post(admin.token()).await;
        open.push(connection);
    }
    // One of them is rejected, whichever arrived last, while its body is still incomplete.
    let responses = open.iter_mut().map(|connection| Box::pin(connection.read_until("\r\n\r\n")));
    let (response, rejected, _) = select_all(responses).await;
    assert!(response.starts_with("HTTP/1.1 503") && response.contains("\r\nretry-after: 1\r\n"), "{response}");
    open.remove(rejected);
    admin.post("/agents", json!({ "name": "small", "owner": "o" })).await.expect(201);
    open.pop().unwrap().end_large_post().await;
    let mut fourth = Connection::open(&process).await;
    fourth.begin_large_post(admin.token()).await;
    fourth.end_large_post().await;
    drop(open);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn requests_beyond_the_limit_get_503_with_retry_after() {
    let (db, process, key) = serving(&[("MAX_REQUESTS", "1")]).await;
    let admin = process.client().login(&key).await;
    let [mut agent, mut late] = [Connection::open(&process).await, Connection::open(&process).await];
    agent.begin_large_post(admin.token()).await;
    // Polled: the request starts some time after it was sent.
    let slot_taken = async { while process.client().get("/agents").await.status != 503 {} };
    timeout(TIMEOUT, slot_taken).await.expect("the only slot must be taken");
    for (path, media_type) in [
        ("/agents", "application/json"),
        ("/api/v1/agents", "application/json"),
        ("/.well-known/jwks.json", "application/json"),
        ("/oauth/token", "application/json"),
        ("/", "text/html; charset=utf-8"),
        ("/console/sign-in", "text/html; charset=utf-8"),
    ] {
        late.send(&format!("GET {path} HTTP/1.1\r\nHost: aims\r\nOrigin: https://app.example\r\n\r\n")).await;
        let response = late.read_until("\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 503"), "{path}: {response}");
        // A script can read `Retry-After` wherever it can read responses.
        let is_readable = response.contains("\r\naccess-control-allow-origin: *\r\n");
        assert_eq!(is_readable, ["/.well-known/jwks.json", "/oauth/token"].contains(&path), "{path}: {response}");
        let content_type = format!("content-type: {media_type}");
        for header in [&*content_type, "retry-after: 1", "cache-control: no-store", "x-content-type-options: nosniff"] {
            assert!(response.contains(&format!("\r\n{header}\r\n")), "{path}: {header} is not in {response}");
        }
        assert!(response.contains("\r\nx-request-id: "), "{path}: {response}");
        assert!(response.contains("\r\ncontent-security-policy: default-src 'none'; "), "{path}: {response}");
    }
    // Health checks are exempt.
    late.send(REQUEST).await;
    late.read_until("\"ok\"").await;
    let unavailable = "The service is temporarily unavailable";
    process.client().exchange(&key).await.refused(503, unavailable);
    for path in ["/oauth/token", "/oauth/introspect", "/oauth/revoke"] {
        let anonymous = process.client();
        let response = anonymous.send(anonymous.request(Method::POST, path).form(&[("token", "junk")])).await;
        let body = json!({ "error": "temporarily_unavailable", "error_description": unavailable });
        assert_eq!((response.status.as_u16(), response.json()), (503, body), "{path}");
    }
    drop(agent);
    // Polled: the service notices some time after the connection is closed.
    let served = async { while process.client().get("/agents").await.status == 503 {} };
    timeout(TIMEOUT, served).await.expect("slots must be released");
    admin.get("/agents").await.expect(200);
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 1);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn excess_concurrent_sign_ins_are_rejected_quickly() {
    let (_db, process, key) = serving(&[("PUBLIC_URL", "http://aims.test")]).await;
    let form = "username=nobody&password=a+guess+among+many";
    let request = format!(
        "POST /console/sign-in HTTP/1.1\r\nHost: aims\r\nOrigin: http://aims.test\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n\r\n{form}",
        form.len()
    );
    let attempts = 100 * available_parallelism().unwrap().get();
    let mut open = Vec::new();
    for _ in 0..attempts {
        open.push(Connection::open(&process).await);
    }
    for connection in &mut open {
        connection.send(&request).await;
    }
    process.client().login(&key).await;
    let mut rejected = 0;
    for mut connection in open {
        let response = timeout(TIMEOUT, connection.read_to_end()).await.expect("every request must get a response");
        match &response[..12] {
            // Too many concurrent sign-ins.
            "HTTP/1.1 503" => rejected += usize::from(response.contains("\r\nretry-after: 1\r\n")),
            // Too many earlier guesses; the page says how long to wait.
            "HTTP/1.1 429" => rejected += 1,
            "HTTP/1.1 401" => {}
            _ => panic!("{response}"),
        }
    }
    assert!(rejected > attempts / 2, "{rejected} of {attempts}");
    assert_eq!(process.stop().await.code, Some(0));
}

/// Changes to the database behind the service's back reveal which agents come from the cache.
#[tokio::test]
async fn agents_in_memory_limits_the_cache() {
    const AGENTS: usize = 2_500;
    for (allowed, caches_all) in [("1024", false), ("16384", true)] {
        let server = Server::start_with(Database::sqlite(), &[("AGENTS_IN_MEMORY", allowed)]).await;
        let create = |number| server.admin.post("/agents", json!({ "name": format!("agent-{number}"), "owner": "o" }));
        let mut paths = Vec::new();
        for numbers in (0..AGENTS).collect::<Vec<_>>().chunks(100) {
            let created = join_all(numbers.iter().map(create)).await.into_iter().map(|response| response.expect(201));
            paths.extend(created.map(|agent| format!("/agents/{}", agent["id"].as_str().unwrap())));
        }
        let mut cached = 0;
        for round in 0..2 {
            for path in &paths {
                let agent = server.admin.get(path).await.expect(200);
                cached += usize::from(round == 1 && agent["description"] != "changed");
            }
            server.db.execute("UPDATE agents SET description = 'changed'").await;
        }
        assert_eq!(cached == AGENTS, caches_all, "{cached} with {allowed}");
        assert!(cached > 0);
    }
}
