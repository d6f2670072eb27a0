//! Invalid requests: all errors have one format, and none is reported as a server error.

use http::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{UNKNOWN_ID, assert_invalid, members};
use crate::{
    both,
    support::{Client, Database, Response, Server, details},
};

both!(
    body_must_be_json,
    body_must_be_an_object,
    duplicate_members_are_rejected,
    content_type_must_be_json,
    body_size_is_limited,
    body_is_optional_only_if_no_field_is_required,
    all_invalid_fields_are_reported_at_once,
    text_fields_are_bounded_plain_text,
    invalid_values_are_echoed_truncated,
    query_parameters_are_validated,
    unknown_paths_and_methods_are_rejected,
    paths_may_contain_any_bytes,
    problem_details_are_returned_on_request,
    valid_request_ids_are_kept_and_others_replaced,
    every_response_has_the_security_headers,
);

const PROBLEM: &str = "application/problem+json";

/// Sends `body` unmodified.
async fn raw(client: &Client, method: Method, path: &str, body: impl Into<Vec<u8>>) -> Response {
    let body: Vec<u8> = body.into();
    client.send(client.request(method, path).header(CONTENT_TYPE, "application/json").body(body)).await
}

/// Asserts the status of an error and the common error format.
#[track_caller]
fn assert_error(response: &Response, status: u16) {
    assert_eq!(response.status.as_u16(), status, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{response:?}");
    let body = response.json();
    assert_eq!(members(&body), ["detail"], "{response:?}");
    match &body["detail"] {
        Value::String(text) => assert!(!text.is_empty(), "{response:?}"),
        Value::Array(problems) => assert!(!problems.is_empty() && status == 422, "{response:?}"),
        _ => panic!("{response:?}"),
    }
    assert_headers(response);
}

/// Asserts the headers of every response.
#[track_caller]
fn assert_headers(response: &Response) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ] {
        assert_eq!(response.header(name), Some(value), "{name}: {response:?}");
    }
    let policy = response.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(response.header("cache-control").is_some(), "{response:?}");
    assert!(!response.header("x-request-id").unwrap().is_empty(), "{response:?}");
    let duration: f64 = response.header("x-request-duration-ms").unwrap().parse().unwrap();
    assert!(duration >= 0.0);
}

async fn body_must_be_json(db: Database) {
    let server = Server::start(db).await;
    let bomb = "[".repeat(100_000);
    let nested = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let wrong: [&[u8]; 12] = [
        b"{",
        b"{\"name\": }",
        b"{\"name\": \"a\"} x",
        b"{'name': 'a'}",
        b"{\"name\": \"a\nb\"}",
        b"{\"name\": \"\\ud800\"}",
        b"{\"name\": 1e999}",
        b"{\"name\": \"\xff\"}",
        b"\xff\xfe",
        b"\0",
        bomb.as_bytes(),
        nested.as_bytes(),
    ];
    let agent = format!("/agents/{}", server.admin_id);
    for body in wrong {
        for (method, path) in [
            (Method::POST, "/agents"),
            (Method::POST, "/capabilities"),
            (Method::PATCH, agent.as_str()),
            (Method::POST, &format!("{agent}/keys")),
            (Method::POST, &format!("{agent}/capabilities")),
            (Method::POST, &format!("{agent}/suspend")),
        ] {
            let response = raw(&server.admin, method, path, body).await;
            assert_error(&response, 422);
            let problem = &response.detail()[0];
            assert_eq!((&problem["type"], &problem["loc"][0]), (&json!("json_invalid"), &json!("body")));
        }
    }
}

async fn body_must_be_an_object(db: Database) {
    let server = Server::start(db).await;
    for body in ["[]", "[{\"name\": \"a\", \"owner\": \"o\"}]", "null", "1", "\"text\"", "true"] {
        for path in ["/agents".to_owned(), format!("/agents/{UNKNOWN_ID}/suspend")] {
            let response = raw(&server.admin, Method::POST, &path, body).await;
            if body == "null" && path.ends_with("/suspend") {
                // Where the body is optional, `null` counts as absent.
                response.refused(404, "Agent not found");
                continue;
            }
            assert_error(&response, 422);
            assert_invalid(&response, &json!([["body"]]));
        }
    }
    // Unknown members are ignored.
    let body = "{\"name\": \"b\", \"owner\": \"o\", \"colour\": [1]}";
    assert_eq!(raw(&server.admin, Method::POST, "/agents", body).await.expect(201)["name"], "b");
}

async fn duplicate_members_are_rejected(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let path = format!("/agents/{}", agent.id);
    let resource = server.admin.post("/resources", json!({ "identifier": "https://a.test", "name": "A", "scope": "" }));
    let resource = format!("/resources/{}", resource.await.expect(201)["id"].as_str().unwrap());
    let of = |method: Method, path: &str, body: &str| (method, path.to_owned(), body.to_owned());
    let before = server.admin.get("/audit").await.expect(200);
    for (method, path, body) in [
        of(Method::POST, "/agents", r#"{"name": "a", "name": "b", "owner": "o"}"#),
        of(Method::POST, "/agents", r#"{"name": "a", "owner": "o", "owner": "o"}"#),
        of(Method::POST, "/agents", r#"{"name": "a", "owner": "o", "n\u0061me": "b"}"#),
        of(Method::POST, "/agents", r#"{"name": "a", "owner": "o", "colour": 1, "colour": 2}"#),
        of(Method::POST, "/agents", r#"{"name": "a", "owner": "o", "colour": [{"x": 1, "x": 2}]}"#),
        of(Method::PATCH, &path, r#"{"owner": "a", "owner": "b"}"#),
        of(Method::POST, &format!("{path}/suspend"), r#"{"reason": "a", "reason": "b"}"#),
        of(Method::POST, &format!("{path}/keys"), r#"{"max_uses": 1, "max_uses": 1000}"#),
        of(Method::POST, "/capabilities", r#"{"name": "a:b", "name": "admin:x"}"#),
        of(Method::PATCH, &resource, r#"{"scope": "", "scope": "agents:read"}"#),
        of(
            Method::POST,
            &format!("{path}/federated-identities"),
            r#"{"issuer": "https://a.test", "audience": "a", "claims": {"sub": "a", "sub": "b"}}"#,
        ),
        of(Method::POST, &format!("{path}/public-keys"), r#"{"keys": [{"kty": "EC", "kty": "OKP"}]}"#),
    ] {
        let response = raw(&server.admin, method, &path, body.clone()).await;
        assert_error(&response, 422);
        let problem = &response.detail()[0];
        assert_eq!((&problem["type"], &problem["loc"][0]), (&json!("duplicate"), &json!("body")), "{body}");
        assert!(problem.get("input").is_none(), "{body}");
    }
    assert_eq!(server.admin.get("/audit").await.expect(200), before, "the request must have no effect");
    // The same name at another depth is a different member.
    let body = r#"{"name": "nested", "owner": "o", "colour": {"name": "x", "owner": {"name": "y"}}}"#;
    raw(&server.admin, Method::POST, "/agents", body).await.expect(201);
}

async fn content_type_must_be_json(db: Database) {
    let server = Server::start(db).await;
    let send = |name: &str, described: Option<&'static str>| {
        let (admin, body) = (server.admin.clone(), json!({ "name": name, "owner": "o" }).to_string());
        async move {
            let request = admin.request(Method::POST, "/agents").body(body);
            let request = match described {
                Some(described) => request.header(CONTENT_TYPE, described),
                None => request,
            };
            admin.send(request).await
        }
    };
    for wrong in ["text/plain", "application/x-www-form-urlencoded", "text/json", "", "json", "application/jsonx"] {
        let response = send("x", Some(wrong)).await;
        assert_error(&response, 415);
        response.refused(415, "Unsupported media type; send application/json");
    }
    send("a", Some("application/json; charset=utf-8")).await.expect(201);
    send("b", Some("Application/JSON")).await.expect(201);
    send("c", Some("application/merge-patch+json")).await.expect(201);
    send("d", None).await.expect(201);
}

async fn body_size_is_limited(db: Database) {
    let server = Server::start(db).await;
    let body = json!({ "name": "a", "owner": "o", "description": "x".repeat(2 * 1024 * 1024) }).to_string();
    let response = raw(&server.admin, Method::POST, "/agents", body.clone()).await;
    assert_error(&response, 413);
    response.refused(413, "The body is too large");
    // An unauthorized request is rejected before the rest of its body is read.
    let response = raw(&server.anonymous(), Method::POST, "/agents", body).await;
    assert_error(&response, 401);
    // Just below the body limit, the field itself is too long.
    let body = json!({ "name": "a", "owner": "o", "description": "x".repeat(1024 * 1024 - 100) }).to_string();
    assert_invalid(&raw(&server.admin, Method::POST, "/agents", body).await, &json!([["body", "description"]]));
}

async fn body_is_optional_only_if_no_field_is_required(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let path = format!("/agents/{}", agent.id);
    for (method, path) in [
        (Method::POST, "/agents".to_owned()),
        (Method::POST, "/capabilities".to_owned()),
        (Method::PATCH, path.clone()),
        (Method::POST, format!("{path}/capabilities")),
    ] {
        assert_error(&raw(&server.admin, method.clone(), &path, "").await, 422);
        assert_error(&server.admin.send(server.admin.request(method, &path)).await, 422);
    }
    for (path, status) in [
        (format!("{path}/keys"), 201),
        (format!("{path}/keys/{}/rotate", agent.key_id), 200),
        (format!("{path}/suspend"), 200),
        (format!("{path}/reactivate"), 200),
        (format!("{path}/revoke"), 200),
    ] {
        server.admin.post_empty(&path).await.expect(status);
    }
}

async fn all_invalid_fields_are_reported_at_once(db: Database) {
    let server = Server::start(db).await;
    let response = server.admin.post("/agents", json!({})).await;
    assert_error(&response, 422);
    assert_eq!(
        response.detail(),
        json!([
            { "type": "missing", "loc": ["body", "name"], "msg": "Field required" },
            { "type": "missing", "loc": ["body", "owner"], "msg": "Field required" },
        ])
    );
    let body = json!({ "name": "a b", "owner": 7, "description": [], "agent_type": "robot", "metadata_json": "{" });
    let response = server.admin.post("/agents", body).await;
    assert_invalid(
        &response,
        &json!([
            ["body", "name"],
            ["body", "owner"],
            ["body", "description"],
            ["body", "agent_type"],
            ["body", "metadata_json"],
        ]),
    );
    let inputs: Vec<_> = response.detail().as_array().unwrap().iter().map(|problem| problem["input"].clone()).collect();
    assert_eq!(inputs, [json!("a b"), json!(7), Value::Null, json!("robot"), json!("{")]);

    let response = server.admin.get("/agents?status=x&agent_type=y&limit=z&cursor=c").await;
    assert_invalid(
        &response,
        &json!([["query", "status"], ["query", "agent_type"], ["query", "limit"], ["query", "cursor"]]),
    );
    assert_eq!(server.audited("agent.created").await.len(), 1);
}

async fn text_fields_are_bounded_plain_text(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let path = format!("/agents/{}", agent.id);
    let long = |length: usize| "é".repeat(length);
    for (field, wrong) in [
        ("name", vec![String::new(), "a".repeat(129), "a b".into(), "é".into(), "a\n".into(), "a\0".into()]),
        (
            "owner",
            vec![String::new(), long(129), "a\nb".into(), "a\u{202e}b".into(), "\u{0}".into(), "\u{200b}".into()],
        ),
        ("description", vec![long(10_001), "a\u{7}".into(), "a\u{2067}b".into(), "\u{feff}".into(), "\u{9b}1m".into()]),
        ("agent_type", vec![String::new(), "LLM".into(), "llm ".into()]),
        (
            "metadata_json",
            vec![
                String::new(),
                "{".into(),
                "nil".into(),
                "\0".into(),
                format!("\"{}\"", "x".repeat(65_536)),
                r#"{"team": "a", "team": "b"}"#.into(),
                r#"[{"a": {"b": 1, "b": 1}}]"#.into(),
                format!("{}{}", "[".repeat(30_000), "]".repeat(30_000)),
            ],
        ),
    ] {
        for wrong in wrong {
            let mut body = json!({ "name": "b", "owner": "o" });
            body[field] = json!(wrong);
            assert_invalid(&server.admin.post("/agents", body).await, &json!([["body", field]]));
            if field != "name" {
                assert_invalid(&server.admin.patch(&path, json!({ field: wrong })).await, &json!([["body", field]]));
            }
        }
    }
    for wrong in [long(501), "a\u{1b}b".to_owned()] {
        for act in ["suspend", "revoke"] {
            let response = server.admin.post(&format!("{path}/{act}"), json!({ "reason": wrong })).await;
            assert_invalid(&response, &json!([["body", "reason"]]));
        }
    }
    let body = json!({
        "name": "a".repeat(128), "owner": long(128), "description": long(10_000),
        "metadata_json": format!("{}{}", "[".repeat(127), "]".repeat(127)),
    });
    server.admin.post("/agents", body).await.expect(201);
    server.admin.post(&format!("{path}/suspend"), json!({ "reason": long(500) })).await.expect(200);
}

async fn invalid_values_are_echoed_truncated(db: Database) {
    let server = Server::start(db).await;
    let response = server.admin.post("/agents", json!({ "name": "<b>".repeat(10_000), "owner": "o" })).await;
    assert_eq!(response.detail()[0]["input"].as_str().unwrap().chars().count(), 256);
    assert!(response.text.len() < 1_000);
}

async fn query_parameters_are_validated(db: Database) {
    let server = Server::start(db).await;
    let agent = format!("/agents/{}/audit", server.admin_id);
    for path in ["/agents", "/capabilities", "/audit", agent.as_str()] {
        for wrong in ["", "-1", "0", "501", "x", "1.5", "1e2", "99999999999999999999", "%00", "%C3%A9"] {
            let response = server.admin.get(&format!("{path}?limit={wrong}")).await;
            assert_error(&response, 422);
            assert_invalid(&response, &json!([["query", "limit"]]));
        }
        for wrong in ["junk", "%00", "AAAA", "-1", "0", "%F0%9F%92%A5"] {
            let response = server.admin.get(&format!("{path}?cursor={wrong}")).await;
            assert_error(&response, 422);
            assert_invalid(&response, &json!([["query", "cursor"]]));
        }
        let response = server.admin.get(&format!("{path}?limit=1&limit=1")).await;
        assert_error(&response, 422);
        assert_invalid(&response, &json!([["query", "limit"]]));
        server.admin.get(&format!("{path}?limit=500&cursor=&colour=red")).await.expect(200);
        server.admin.get(&format!("{path}?%FF=%FF")).await.expect(200);
    }
    for path in ["/audit", agent.as_str()] {
        for wrong in ["", "-1", "x", "1.5", "99999999999999999999"] {
            let response = server.admin.get(&format!("{path}?offset={wrong}")).await;
            assert_error(&response, 422);
            assert_invalid(&response, &json!([["query", "offset"]]));
        }
        assert_eq!(server.admin.get(&format!("{path}?offset={}", i64::MAX)).await.expect(200), json!([]));
        assert_eq!(server.admin.get(&format!("{path}?cursor={}", i64::MAX)).await.status.as_u16(), 200);
    }
    for name in ["start_date", "end_date"] {
        for wrong in ["x", "2026-13-01", "2026-02-30", "2026-01-01T25:00:00Z", "1", "99999-01-01", "%00", "now"] {
            let response = server.admin.get(&format!("/audit?{name}={wrong}")).await;
            assert_error(&response, 422);
            assert_invalid(&response, &json!([["query", name]]));
        }
    }
    for (query, name) in [
        ("/audit?agent_id=x", "agent_id"),
        ("/audit?action=%0A", "action"),
        ("/audit?resource_type=%E2%80%AE", "resource_type"),
        ("/agents?status=gone", "status"),
        ("/agents?status=", "status"),
        ("/agents?agent_type=", "agent_type"),
        ("/agents?agent_type=robot", "agent_type"),
        ("/agents?owner=%00", "owner"),
        ("/agents?q=%00", "q"),
    ] {
        let response = server.admin.get(query).await;
        assert_error(&response, 422);
        assert_invalid(&response, &json!([["query", name]]));
    }
}

async fn unknown_paths_and_methods_are_rejected(db: Database) {
    let server = Server::start(db).await;
    for path in ["/nothing", "/api", "/api/v1", "/api/v1/", "/api/v2/agents", "/agents/", "/agents/a/b", "/AGENTS"] {
        for client in [&server.admin, &server.anonymous()] {
            let response = client.get(path).await;
            assert_error(&response, 404);
            response.refused(404, "Not Found");
        }
    }
    let agent = format!("/agents/{}", server.admin_id);
    for (method, path, allowed) in [
        (Method::PUT, "/agents", "GET,HEAD,POST"),
        (Method::DELETE, "/api/v1/agents", "GET,HEAD,POST"),
        (Method::POST, agent.as_str(), "DELETE,GET,HEAD,PATCH"),
        (Method::GET, "/auth/token", "POST"),
        (Method::POST, "/_health", "GET,HEAD"),
        (Method::POST, "/readyz", "GET,HEAD"),
        (Method::POST, "/audit", "GET,HEAD"),
        (Method::DELETE, "/.well-known/jwks.json", "GET,HEAD"),
        (Method::OPTIONS, "/agents", "GET,HEAD,POST"),
        (Method::TRACE, "/agents", "GET,HEAD,POST"),
    ] {
        let response = server.admin.send(server.admin.request(method.clone(), path)).await;
        assert_error(&response, 405);
        let mut methods: Vec<_> = response.header("allow").unwrap().split(',').map(str::trim).collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allowed, "{method} {path}");
    }
}

async fn paths_may_contain_any_bytes(db: Database) {
    let server = Server::start(db).await;
    for id in ["%FF", "%C3", "%ED%A0%80"] {
        for path in
            [format!("/agents/{id}"), format!("/agents/{id}/keys"), format!("/agents/{UNKNOWN_ID}/capabilities/{id}")]
        {
            let method = if path.contains("capabilities") { Method::DELETE } else { Method::GET };
            assert_error(&server.admin.send(server.admin.request(method, &path)).await, 400);
        }
    }
    for id in ["%00", "..%2F..%2Fetc", "%E2%80%AE", "a%0D%0AX:%20y", "%25", "'%20OR%201=1--"] {
        server.admin.get(&format!("/agents/{id}")).await.refused(404, "Agent not found");
    }
    assert_error(&server.admin.get(&format!("/agents/{}", "x".repeat(10_000))).await, 404);

    // Raw bytes without percent-encoding. No regular client sends them, but an attacker may.
    let address = server.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"GET /agents/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut response = Vec::new();
    connection.read_to_end(&mut response).await.unwrap();
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with("HTTP/1.1 4"), "{response}");
}

async fn problem_details_are_returned_on_request(db: Database) {
    let server = Server::start(db).await;
    let send = |client: Client, method: Method, path: &'static str, accept: &'static str| async move {
        let request = client.request(method, path).header("accept", accept).header("x-request-id", "r-1");
        client.send(request).await
    };
    let (admin, anonymous) = (&server.admin, server.anonymous());
    for (client, method, path, status, title, detail) in [
        (admin, Method::GET, "/nothing", 404, "Not Found", "Not Found"),
        (admin, Method::GET, "/agents/x", 404, "Not Found", "Agent not found"),
        (admin, Method::PUT, "/agents", 405, "Method Not Allowed", "Method Not Allowed"),
        (&anonymous, Method::GET, "/agents", 401, "Unauthorized", "Not authenticated"),
    ] {
        let response = send(client.clone(), method, path, PROBLEM).await;
        assert_eq!(response.header("content-type"), Some(PROBLEM));
        assert_headers(&response);
        let wanted = json!({
            "type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": "r-1",
        });
        assert_eq!(response.expect(status), wanted);
    }
    let response =
        send(admin.clone(), Method::GET, "/agents?limit=0", "text/html, application/problem+json;q=0.5").await;
    assert_eq!(response.header("content-type"), Some(PROBLEM));
    let problem = response.expect(422);
    assert_eq!(members(&problem), ["detail", "errors", "request_id", "status", "title", "type"]);
    assert!(problem["detail"].is_string());
    assert_eq!(problem["errors"][0]["loc"], json!(["query", "limit"]));

    for accept in ["*/*", "application/json", "application/problem+json;q=0", "application/problem+xml"] {
        assert_error(&send(admin.clone(), Method::GET, "/agents/x", accept).await, 404);
    }
    // Successful responses are not problem details.
    let response = send(admin.clone(), Method::GET, "/agents", PROBLEM).await;
    assert_eq!(response.header("content-type"), Some("application/json"));
}

async fn valid_request_ids_are_kept_and_others_replaced(db: Database) {
    let server = Server::start(db).await;
    let send = |id: String, name: String| {
        let admin = server.admin.clone();
        async move {
            let request = admin.request(Method::POST, "/agents").header("x-request-id", id.as_bytes());
            admin.send(request.json(&json!({ "name": name, "owner": "o" }))).await
        }
    };
    let longest = "a".repeat(64);
    for (n, good) in ["build-7.2_a", "x", &longest].into_iter().enumerate() {
        let response = send(good.to_owned(), format!("good-{n}")).await;
        assert_eq!(response.header("x-request-id"), Some(good));
        assert_eq!(server.audited("agent.created").await[0]["request_id"], good);
    }
    let too_long = "a".repeat(65);
    for (n, bad) in ["", &too_long, "a b", "<x>", "é", "a;b", "a\tb"].into_iter().enumerate() {
        let response = send(bad.to_owned(), format!("bad-{n}")).await;
        let id = response.header("x-request-id").unwrap().to_owned();
        uuid::Uuid::parse_str(&id).unwrap();
        let record = &server.audited("agent.created").await[0];
        assert_eq!(record["request_id"], id, "{bad:?}");
        assert_eq!(details(record)["name"], format!("bad-{n}"));
    }
    let (one, two) = (server.admin.get("/agents").await, server.admin.get("/agents").await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));

    // Errors carry it too.
    let request = server.anonymous().request(Method::POST, "/auth/token");
    let request = request.header("x-api-key", "x").header("x-request-id", "refused-1");
    let response = server.anonymous().send(request).await;
    assert_eq!(response.header("x-request-id"), Some("refused-1"));
    assert_eq!(server.audited("auth.failed").await[0]["request_id"], "refused-1");
}

async fn every_response_has_the_security_headers(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let path = format!("/agents/{}", agent.id);
    for path in
        ["/_health", "/api/v1/_health", "/agents", "/capabilities", "/audit", "/docs/", "/openapi.json", path.as_str()]
    {
        let response = server.admin.get(path).await;
        assert_eq!(response.status.as_u16(), 200, "{path}");
        assert_headers(&response);
    }
    assert_headers(&server.anonymous().exchange(&agent.raw_key).await);
    assert_headers(&server.anonymous().get("/.well-known/jwks.json").await);
    assert_headers(&server.admin.send(server.admin.request(Method::HEAD, "/agents")).await);
    assert_headers(&server.admin.delete(&path).await);
    assert_eq!(server.anonymous().get("/_health").await.expect(200), json!({ "status": "ok" }));
    assert_eq!(server.anonymous().get("/_health").await.header("cache-control"), Some("no-store"));
}
