//! HTTP protocol requirements (RFC 9110, RFC 9112).

use aims::web::{API_PREFIX, routes};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::UNKNOWN_ID;
use crate::{
    both,
    support::{Client, Database, Response, Server},
};

both!(
    request_has_exactly_one_host,
    absolute_form_targets_are_served,
    head_sends_the_same_content_length_as_get_or_none,
    not_modified_sends_no_content_length,
);

/// Sends bytes on a new connection and reads until it is closed.
async fn exchange_bytes(server: &Server, request: &str) -> String {
    let mut connection = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    connection.read_to_end(&mut response).await.unwrap();
    String::from_utf8(response).unwrap()
}

/// Asserts a 400 with the common error body, and returns the body.
#[track_caller]
fn assert_refused(request: &str, response: &str) -> Value {
    assert!(response.starts_with("HTTP/1.1 400 ") || response.starts_with("HTTP/1.0 400 "), "{request:?}: {response}");
    for header in [
        "content-type: application/json\r\n",
        "x-content-type-options: nosniff\r\n",
        "cache-control: no-store\r\n",
        "x-request-id: ",
        "x-request-duration-ms: ",
    ] {
        assert!(response.contains(&format!("\r\n{header}")), "{header:?} is not in {response}");
    }
    serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
}

async fn request_has_exactly_one_host(db: Database) {
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
            assert_eq!(assert_refused(&request, &exchange_bytes(&server, &request).await), json!({ "detail": detail }));
        }
        let doubled = format!("GET {path} HTTP/1.0\r\nHost: aims.test\r\nHost: aims.test\r\n\r\n");
        assert_refused(&doubled, &exchange_bytes(&server, &doubled).await);
        // HTTP/1.0 does not require the header.
        let [old, new] = [
            format!("GET {path} HTTP/1.0\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n"),
        ];
        for request in [old, new] {
            let response = exchange_bytes(&server, &request).await;
            assert!(!response.contains(" 400 Bad Request"), "{request:?}: {response}");
            assert!(!path.ends_with("_health") || response.ends_with("{\"status\":\"ok\"}"), "{request:?}: {response}");
        }
    }
    // Rejected before the body is read, a credential is checked or a preflight is handled.
    let unfinished =
        "POST /auth/token HTTP/1.1\r\nX-API-Key: junk\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{";
    assert_refused(unfinished, &exchange_bytes(&server, unfinished).await);
    assert_eq!(server.audited("auth.failed").await, Vec::<Value>::new());
    let preflight = "OPTIONS /oauth/token HTTP/1.1\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n\
                     Connection: close\r\n\r\n";
    assert_eq!(assert_refused(preflight, &exchange_bytes(&server, preflight).await)["error"], "invalid_request");
}

async fn absolute_form_targets_are_served(db: Database) {
    let server = Server::start(db).await;
    for target in
        ["http://aims.test/_health", "http://other.example:81/_health", "https://other.example/api/v1/_health"]
    {
        let request = |hosts: &str| format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let response = exchange_bytes(&server, &request("Host: aims.test\r\n")).await;
        assert!(
            response.starts_with("HTTP/1.1 200 OK") && response.ends_with("{\"status\":\"ok\"}"),
            "{target}: {response}"
        );
        for hosts in ["", "Host: aims.test\r\nHost: aims.test\r\n", "Host: a b\r\n"] {
            assert_refused(target, &exchange_bytes(&server, &request(hosts)).await);
        }
    }
    // Routing depends on the path, not on the form of the request target.
    let response =
        exchange_bytes(&server, "GET http://aims.test/agents HTTP/1.1\r\nHost: aims.test\r\nConnection: close\r\n\r\n")
            .await;
    assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
    for target in ["OPTIONS *", "CONNECT aims.test:80", "GET *"] {
        let response =
            exchange_bytes(&server, &format!("{target} HTTP/1.1\r\nHost: aims.test\r\nConnection: close\r\n\r\n"))
                .await;
        assert!(response.starts_with("HTTP/1.1 40"), "{target}: {response}");
    }
}

async fn get_and_head(client: &Client, path: &str) -> [Response; 2] {
    [client.send(client.request(Method::GET, path)).await, client.send(client.request(Method::HEAD, path)).await]
}

async fn head_sends_the_same_content_length_as_get_or_none(db: Database) {
    let server = Server::start(db).await;
    let mut paths = vec!["/".to_owned(), "/docs".to_owned(), "/docs/".to_owned(), "/openapi.json".to_owned()];
    paths.extend(
        ["/console", "/console/sign-in", "/console/nothing", "/nothing", "/oauth/x", "/agents?limit=0"]
            .map(str::to_owned),
    );
    paths.extend(
        [aims::web::console::page::assets::STYLE, aims::web::console::page::assets::FAVICON].map(str::to_owned),
    );
    for route in routes::list() {
        for id in [&*server.admin_id, UNKNOWN_ID] {
            let path = route.path.replace("{id}", id).replace("{capability_id}", UNKNOWN_ID);
            paths.push(format!("{API_PREFIX}{path}"));
            paths.push(path);
        }
    }
    for client in [&server.admin, &server.anonymous()] {
        for path in &paths {
            let [get, head] = get_and_head(client, path).await;
            assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
            let [expected, actual] = [&get, &head].map(|response| response.header("content-length").map(str::to_owned));
            assert!(actual.is_none() || actual == expected, "{path}: {actual:?}, {expected:?}");
        }
    }
}

async fn not_modified_sends_no_content_length(db: Database) {
    let server = Server::start(db).await;
    let path = "/.well-known/jwks.json";
    let tag = server.anonymous().get(path).await.header("etag").unwrap().to_owned();
    for method in ["GET", "HEAD"] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: aims.test\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n");
        let response = exchange_bytes(&server, &request).await;
        assert!(response.starts_with("HTTP/1.1 304 ") && !response.contains("content-length"), "{method}: {response}");
    }
}
