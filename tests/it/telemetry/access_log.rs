//! The access log: one line for each request.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    both,
    support::{Aims, Browser, Client, Database, PASSWORD, Process, Response},
};

both!(each_request_has_one_line);

const ACCESS: &str = "aims::access";

/// The access lines of a JSON log.
fn access_lines(log: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}")));
    lines.filter(|line| line["target"] == ACCESS).collect()
}

/// Returns the line of a request once it is there.
async fn line_of(process: &Process, id: &str) -> Value {
    let mark = format!("\"request_id\":\"{id}\"");
    let log = process.logged(|log| access_lines(log).iter().any(|line| line.to_string().contains(&mark))).await;
    let lines: Vec<_> = access_lines(&log).into_iter().filter(|line| line["request_id"] == id).collect();
    let [line] = &*lines else { panic!("one line: {lines:#?}") };
    line.clone()
}

async fn send(client: &Client, method: Method, path: &str, id: &str, body: Value) -> Response {
    client.send(client.request(method, path).header("x-request-id", id).json(&body)).await
}

/// Sends text over a connection of its own and returns the response.
async fn raw(process: &Process, text: &[u8]) -> String {
    let mut stream = TcpStream::connect(process.address()).await.unwrap();
    stream.write_all(text).await.unwrap();
    let mut response = Vec::new();
    // The service may reset the connection after its response.
    let _ = stream.read_to_end(&mut response).await;
    String::from_utf8_lossy(&response).into_owned()
}

async fn each_request_has_one_line(db: Database) {
    let aims = Aims::new(&db).with("LOG_FORMAT", "json");
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let created = send(&admin, Method::POST, "/api/v1/agents", "one", json!({ "name": "a", "owner": "o" })).await;
    let agent = created.expect(201)["id"].as_str().unwrap().to_owned();

    let line = line_of(&process, "one").await;
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["message"], "responded");
    assert_eq!(line["method"], "POST");
    assert_eq!(line["route"], "/api/v1/agents");
    assert_eq!(line["path"], "/api/v1/agents");
    assert_eq!(line["status"], json!(201));
    assert!(line["duration_ms"].as_f64().is_some_and(|duration| duration > 0.0), "{line}");
    assert_eq!(line["client"], "127.0.0.1");
    let administrators = admin.get("/agents?limit=500").await.expect(200);
    let administrator = administrators.as_array().unwrap().iter().find(|agent| agent["name"] == "admin").unwrap();
    assert_eq!(line["actor"], administrator["id"]);
    for absent in ["on_behalf_of", "trace_id", "aborted"] {
        assert!(line.get(absent).is_none(), "{line}");
    }

    let path = format!("/agents/{agent}?secret=hunter2#hunter2");
    send(&admin, Method::GET, &path, "two", Value::Null).await.expect(200);
    let line = line_of(&process, "two").await;
    assert_eq!((&line["route"], &line["path"]), (&json!("/agents/{id}"), &json!(format!("/agents/{agent}"))));

    // Refused by a guard, by the router, and by a field.
    let anonymous = process.client();
    for (client, method, path, body, status) in [
        (&anonymous, Method::GET, "/agents", Value::Null, 401),
        (&admin, Method::GET, "/no/such/route", Value::Null, 404),
        (&admin, Method::DELETE, "/audit", Value::Null, 405),
        (&admin, Method::POST, "/agents", json!({ "name": "" }), 422),
    ] {
        let id = format!("status-{status}");
        send(client, method, path, &id, body).await.expect(status);
        let line = line_of(&process, &id).await;
        assert_eq!(line["status"], json!(status));
        assert_eq!(line.get("actor").is_some(), [405, 422].contains(&status), "{line}");
        assert_eq!(line.get("route").is_some(), status != 404, "{line}");
    }

    // The actor is known although the request is refused.
    let limited = admin.post(&format!("/agents/{agent}/keys"), json!({})).await.expect(201);
    let limited = process.client().login(limited["raw_key"].as_str().unwrap()).await;
    send(&limited, Method::GET, "/agents", "denied", Value::Null).await.expect(403);
    let line = line_of(&process, "denied").await;
    assert_eq!((&line["actor"], &line["status"]), (&json!(agent), &json!(403)));

    let log = process.stop().await.stderr;
    assert!(!log.contains("hunter2"), "no query: {log}");
}

/// A token exchange, a delegated token, and a signed-in administrator.
#[tokio::test]
async fn a_line_names_who_acts_and_for_whom() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("LOG_FORMAT", "json");
    let key = aims.bootstrap().await;
    let arguments = ["admin", "create", "quinn", "--role", "viewer", "--password-stdin"];
    assert_eq!(aims.run_with_input(&arguments, &format!("{PASSWORD}\n")).await.code, Some(0));
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let mut agents = Vec::new();
    let reading = admin.get("/capabilities").await.expect(200);
    let reading = reading.as_array().unwrap().iter().find(|c| c["name"] == "agents:read").unwrap()["id"].clone();
    for name in ["subject", "delegate"] {
        let agent = admin.post("/agents", json!({ "name": name, "owner": "o" })).await.expect(201);
        let id = agent["id"].as_str().unwrap().to_owned();
        let granted = admin.post(&format!("/agents/{id}/capabilities"), json!({ "capability_id": reading })).await;
        granted.expect(201);
        let key = admin.post(&format!("/agents/{id}/keys"), json!({})).await.expect(201);
        agents.push((id, key["raw_key"].as_str().unwrap().to_owned()));
    }
    let [(subject, subject_key), (delegate, delegate_key)] = &*agents else { panic!("{agents:?}") };
    admin.post(&format!("/agents/{subject}/delegates"), json!({ "delegate_id": delegate })).await.expect(201);

    let request = process.client().request(Method::POST, "/auth/token").header("x-api-key", subject_key);
    let exchanged = process.client().send(request.header("x-request-id", "exchange")).await.expect(200);
    assert_eq!(line_of(&process, "exchange").await["actor"], json!(subject));

    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", exchanged["access_token"].as_str().unwrap()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    let request = process.client().request(Method::POST, "/oauth/token").basic_auth(delegate, Some(delegate_key));
    let delegated = process.client().send(request.form(&form).header("x-request-id", "delegate")).await.expect(200);
    assert_eq!(line_of(&process, "delegate").await["actor"], json!(delegate));
    let delegated = process.client().with_token(delegated["access_token"].as_str().unwrap());
    send(&delegated, Method::GET, "/agents", "acting", Value::Null).await.expect(200);
    let line = line_of(&process, "acting").await;
    assert_eq!((&line["actor"], &line["on_behalf_of"]), (&json!(delegate), &json!(subject)));

    let browser = Browser::new(process.url.clone());
    let form = [("username", "quinn"), ("password", PASSWORD)];
    let request = browser.request(Method::POST, "/console/sign-in").header("sec-fetch-site", "same-origin");
    browser.send(request.header("x-request-id", "sign-in").form(&form)).await.redirects_to("/console");
    browser.send(browser.request(Method::GET, "/console/agents").header("x-request-id", "page")).await.expect(200);
    let line = line_of(&process, "page").await;
    assert_eq!(line["route"], "/console/agents");
    assert!(line["actor"].as_str().is_some_and(|id| id.len() == 36), "{line}");
    assert_eq!(line_of(&process, "sign-in").await["actor"], line["actor"]);
    let log = process.stop().await.stderr;
    assert!(!log.contains("quinn") && !log.contains(PASSWORD), "{log}");
}

/// Rate limits, load shedding, an invalid `Host`, and requests that are not HTTP.
#[tokio::test]
async fn requests_without_a_handler_have_a_line() {
    let db = Database::sqlite();
    let aims = Aims::new(&db)
        .with("LOG_FORMAT", "json")
        .with("RATE_LIMIT_API_PER_MINUTE", "1")
        .with("MAX_REQUESTS", "1")
        .with("REQUEST_TIMEOUT_SECONDS", "1");
    let process = aims.serve().await;
    let client = process.client();
    send(&client, Method::GET, "/agents", "first", Value::Null).await.expect(401);
    send(&client, Method::GET, "/agents", "over", Value::Null).await.expect(429);
    let line = line_of(&process, "over").await;
    assert_eq!((&line["status"], &line["route"]), (&json!(429), &json!("/agents")));

    raw(&process, b"GET /agents HTTP/1.1\r\nHost: a b\r\nX-Request-Id: host\r\nConnection: close\r\n\r\n").await;
    assert_eq!(line_of(&process, "host").await["status"], json!(400));

    // A body that does not arrive in time.
    let head = "POST /auth/token HTTP/1.1\r\nHost: aims\r\nX-Request-Id: slow\r\nContent-Length: 10\r\n\r\n";
    let mut slow = TcpStream::connect(process.address()).await.unwrap();
    slow.write_all(head.as_bytes()).await.unwrap();
    let line = line_of(&process, "slow").await;
    assert_eq!((&line["status"], &line["route"]), (&json!(503), &json!("/auth/token")));
    assert!(line["duration_ms"].as_f64().is_some_and(|duration| duration >= 1_000.0), "{line}");

    let large = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(33_000));
    for (request, status) in [(&b"\x16\x03\x01 not http\r\n\r\n"[..], 400), (large.as_bytes(), 431)] {
        raw(&process, request).await;
        let is_line =
            |line: &Value| line["message"] == "refused a malformed request" && line["status"] == json!(status);
        let log = process.logged(|log| access_lines(log).iter().any(is_line)).await;
        assert_eq!(access_lines(&log).iter().filter(|line| is_line(line)).count(), 1, "{log}");
        assert_eq!(access_lines(&log).iter().find(|line| is_line(line)).unwrap()["client"], "127.0.0.1");
    }
}

/// The only place among the requests is taken by one that waits for the database, whose client then goes away.
#[tokio::test]
async fn rejected_and_cancelled_requests_have_a_line() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("LOG_FORMAT", "json").with("MAX_REQUESTS", "1");
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let mut other = SqliteConnection::connect(&db.sqlite_url()).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let mut waiting = TcpStream::connect(process.address()).await.unwrap();
    let head = format!("POST /auth/token HTTP/1.1\r\nHost: aims\r\nX-Request-Id: gone\r\nX-API-Key: {key}\r\n\r\n");
    waiting.write_all(head.as_bytes()).await.unwrap();
    // Until the request above has the place, others are admitted.
    let client = process.client();
    for attempt in 0.. {
        let id = format!("shed-{attempt}");
        let response = send(&client, Method::GET, "/no/such", &id, Value::Null).await;
        assert_eq!(line_of(&process, &id).await["status"], json!(response.status.as_u16()));
        if response.status == 503 {
            break;
        }
    }
    drop(waiting);
    let line = line_of(&process, "gone").await;
    assert_eq!(line["aborted"], json!(true));
    assert_eq!(line["message"], "the connection ended before the response");
    assert!(line.get("status").is_none(), "{line}");
    assert!(line["actor"].is_string(), "the client had authenticated: {line}");
    other.execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn probes_are_logged_at_debug_level_only() {
    for (level, expected) in [("info", false), ("debug", true)] {
        let db = Database::sqlite();
        let process = Aims::new(&db).with("LOG_FORMAT", "json").with("LOG_LEVEL", level).serve().await;
        for path in ["/_health", "/api/v1/_health"] {
            process.client().get(path).await.expect(200);
        }
        process.client().get("/after").await.expect(404);
        let log = process.stop().await.stderr;
        let paths: Vec<_> = access_lines(&log).iter().map(|line| line["path"].clone()).collect();
        assert!(paths.contains(&json!("/after")), "{log}");
        assert_eq!(paths.contains(&json!("/_health")), expected, "{log}");
        assert_eq!(paths.contains(&json!("/api/v1/_health")), expected, "{log}");
    }
}

#[tokio::test]
async fn the_access_log_can_be_turned_off() {
    let db = Database::sqlite();
    let process = Aims::new(&db).with("LOG_LEVEL", "info,aims::access=off").serve().await;
    process.client().get("/agents").await.expect(401);
    raw(&process, b"not http\r\n\r\n").await;
    let log = process.stop().await.stderr;
    assert!(log.contains(" serving ") && !log.contains(ACCESS), "{log}");
}

/// Methods, paths and IDs that try to look like log lines, to control a terminal, or to be split into several lines.
#[tokio::test]
async fn no_request_can_forge_a_line() {
    let fake = "2026-01-01T00:00:00.000000Z  INFO aims::access: forged";
    for format in ["text", "json"] {
        let db = Database::sqlite();
        let process = Aims::new(&db).with("LOG_LEVEL", "debug").with("LOG_FORMAT", format).serve().await;
        let heads = [
            format!("GET /a\n{fake} HTTP/1.1\r\n"),
            format!("GET /a\r{fake} HTTP/1.1\r\n"),
            "GET /\u{1b}[2J\u{1b}]0;title\u{7} HTTP/1.1\r\n".to_owned(),
            "GET /%0A%1B[31mforged HTTP/1.1\r\n".to_owned(),
            "GET /\u{7f}\u{85}\u{9b}31m\u{2028}\u{202e} HTTP/1.1\r\n".to_owned(),
            format!("GET /{} HTTP/1.1\r\n", "b".repeat(31_000)),
            format!("GET /{} HTTP/1.1\r\n", "/c".repeat(15_000)),
            format!("{} / HTTP/1.1\r\n", "D".repeat(30_000)),
            "G\u{1b}T / HTTP/1.1\r\n".to_owned(),
            format!("GET /e HTTP/1.1\r\nX-Request-Id: {}\r\n", "f".repeat(30_000)),
            "GET /g HTTP/1.1\r\nX-Request-Id: \u{1b}[31mforged\r\n".to_owned(),
            format!("GET /h HTTP/1.1\r\nX-Request-Id: i\r\n {fake}\r\n"),
            "GET /j HTTP/1.1\r\nX-Forwarded-For: \u{1b}[31mforged\r\ntraceparent: \u{1b}[31mforged\r\n".to_owned(),
        ];
        for head in &heads {
            let response = raw(&process, format!("{head}Host: aims\r\nConnection: close\r\n\r\n").as_bytes()).await;
            assert!(response.starts_with("HTTP/1.1 4"), "{head}: {response}");
        }
        let log = process.stop().await.stderr;
        assert!(!log.lines().any(|line| line.chars().any(char::is_control)), "{log:?}");
        let lines: Vec<_> = log.lines().filter(|line| line.contains(ACCESS)).collect();
        assert_eq!(lines.len(), heads.len(), "one line for each: {log}");
        for line in lines {
            assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
            assert!(line.len() < 2_000, "{} bytes: {line}", line.len());
            let start = if format == "json" { "{\"timestamp\":\"20" } else { "20" };
            assert!(line.starts_with(start) && !line.starts_with("2026-01-01T00:00:00.000000Z"), "{line}");
            assert!(format == "text" || serde_json::from_str::<Value>(line).is_ok(), "{line}");
        }
    }
}
