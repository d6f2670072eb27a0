//! HTTP requirements on requests and responses (RFC 9110, RFC 9112).

use aims::web::{API_PREFIX, routes};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::NOBODY;
use crate::{
    both,
    support::{Answer, Client, Database, Server},
};

both!(
    a_request_names_one_host,
    a_target_in_absolute_form_is_served,
    a_head_says_no_length_that_a_get_does_not,
    a_304_says_no_length,
);

/// Sends bytes on a new connection and reads until it is closed.
async fn say(server: &Server, request: &str) -> String {
    let mut connection = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// Asserts a 400 with the usual error body, and returns the body.
#[track_caller]
fn assert_refused(request: &str, answer: &str) -> Value {
    assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "), "{request:?}: {answer}");
    for header in [
        "content-type: application/json\r\n",
        "x-content-type-options: nosniff\r\n",
        "cache-control: no-store\r\n",
        "x-request-id: ",
        "x-request-duration-ms: ",
    ] {
        assert!(answer.contains(&format!("\r\n{header}")), "{header:?} is not in {answer}");
    }
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

async fn a_request_names_one_host(db: Database) {
    let server = Server::start(db).await;
    let paths =
        ["/_health", "/api/v1/_health", "/agents", "/.well-known/jwks.json", "/console/sign-in", "/", "/nothing"];
    for path in paths {
        for (hosts, detail) in [
            ("", "The header Host is missing"),
            ("Host: aims.test\r\nHost: aims.test\r\n", "The header Host is given more than once"),
            ("Host: aims.test\r\nHost: evil.example\r\n", "The header Host is given more than once"),
            ("Host:\r\n", "The header Host is not valid"),
            ("Host: user@aims.test\r\n", "The header Host is not valid"),
            ("Host: aims.test:port\r\n", "The header Host is not valid"),
            ("Host: aims.test/x\r\n", "The header Host is not valid"),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
            assert_eq!(assert_refused(&request, &say(&server, &request).await), json!({ "detail": detail }));
        }
        let doubled = format!("GET {path} HTTP/1.0\r\nHost: aims.test\r\nHost: aims.test\r\n\r\n");
        assert_refused(&doubled, &say(&server, &doubled).await);
        // HTTP/1.0 has no such header.
        let [old, new] = [
            format!("GET {path} HTTP/1.0\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n"),
        ];
        for request in [old, new] {
            let answer = say(&server, &request).await;
            assert!(!answer.contains(" 400 Bad Request"), "{request:?}: {answer}");
            assert!(!path.ends_with("_health") || answer.ends_with("{\"status\":\"ok\"}"), "{request:?}: {answer}");
        }
    }
    // The body is not waited for, nor a credential looked at, nor a preflight answered.
    let unfinished =
        "POST /auth/token HTTP/1.1\r\nX-API-Key: junk\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{";
    assert_refused(unfinished, &say(&server, unfinished).await);
    assert_eq!(server.audited("auth.failed").await, Vec::<Value>::new());
    let preflight = "OPTIONS /oauth/token HTTP/1.1\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n\
                     Connection: close\r\n\r\n";
    assert_eq!(assert_refused(preflight, &say(&server, preflight).await)["error"], "invalid_request");
}

async fn a_target_in_absolute_form_is_served(db: Database) {
    let server = Server::start(db).await;
    for target in
        ["http://aims.test/_health", "http://other.example:81/_health", "https://other.example/api/v1/_health"]
    {
        let request = |hosts: &str| format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let answer = say(&server, &request("Host: aims.test\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("{\"status\":\"ok\"}"), "{target}: {answer}");
        for hosts in ["", "Host: aims.test\r\nHost: aims.test\r\n", "Host: a b\r\n"] {
            assert_refused(target, &say(&server, &request(hosts)).await);
        }
    }
    // The path decides, not how it is written.
    let answer =
        say(&server, "GET http://aims.test/agents HTTP/1.1\r\nHost: aims.test\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    for target in ["OPTIONS *", "CONNECT aims.test:80", "GET *"] {
        let answer = say(&server, &format!("{target} HTTP/1.1\r\nHost: aims.test\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 40"), "{target}: {answer}");
    }
}

async fn both_ways(client: &Client, path: &str) -> [Answer; 2] {
    [client.send(client.request(Method::GET, path)).await, client.send(client.request(Method::HEAD, path)).await]
}

async fn a_head_says_no_length_that_a_get_does_not(db: Database) {
    let server = Server::start(db).await;
    let mut paths = vec!["/".to_owned(), "/docs".to_owned(), "/docs/".to_owned(), "/openapi.json".to_owned()];
    paths.extend(
        ["/console", "/console/sign-in", "/console/nothing", "/nothing", "/oauth/x", "/agents?limit=0"]
            .map(str::to_owned),
    );
    paths.extend([aims::web::console::assets::STYLE, aims::web::console::assets::FAVICON].map(str::to_owned));
    for route in routes::list() {
        for id in [&*server.admin_id, NOBODY] {
            let path = route.path.replace("{id}", id).replace("{capability_id}", NOBODY);
            paths.push(format!("{API_PREFIX}{path}"));
            paths.push(path);
        }
    }
    for client in [&server.admin, &server.anybody()] {
        for path in &paths {
            let [get, head] = both_ways(client, path).await;
            assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
            let [expected, said] = [&get, &head].map(|answer| answer.header("content-length").map(str::to_owned));
            assert!(said.is_none() || said == expected, "{path}: {said:?}, {expected:?}");
        }
    }
}

async fn a_304_says_no_length(db: Database) {
    let server = Server::start(db).await;
    let path = "/.well-known/jwks.json";
    let tag = server.anybody().get(path).await.header("etag").unwrap().to_owned();
    for method in ["GET", "HEAD"] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: aims.test\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n");
        let answer = say(&server, &request).await;
        assert!(answer.starts_with("HTTP/1.1 304 ") && !answer.contains("content-length"), "{method}: {answer}");
    }
}
