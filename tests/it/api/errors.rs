//! What is wrong with a request is told in one form, whatever it is, and never as a failure of the service.

use http::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{NOBODY, assert_invalid, members};
use crate::{
    both,
    support::{Answer, Client, Database, Server, details},
};

both!(
    a_body_is_json,
    a_body_is_an_object,
    a_body_gives_each_member_once,
    a_body_is_described_as_json,
    a_body_is_bounded,
    a_body_may_be_left_out_only_where_nothing_is_needed,
    everything_that_is_wrong_is_named_at_once,
    text_is_bounded_and_plain,
    an_offending_value_is_echoed_in_part,
    parameters_of_a_query_are_checked,
    unknown_paths_and_methods_are_refused,
    a_path_may_hold_any_bytes,
    problem_details_are_told_on_request,
    a_request_id_is_taken_over_or_replaced,
    every_response_carries_the_headers,
);

const PROBLEM: &str = "application/problem+json";

/// Sends `body` as it is.
async fn raw(client: &Client, method: Method, path: &str, body: impl Into<Vec<u8>>) -> Answer {
    let body: Vec<u8> = body.into();
    client.send(client.request(method, path).header(CONTENT_TYPE, "application/json").body(body)).await
}

/// Asserts that an error has this status and the form of all errors.
#[track_caller]
fn assert_error(answer: &Answer, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let body = answer.json();
    assert_eq!(members(&body), ["detail"], "{answer:?}");
    match &body["detail"] {
        Value::String(text) => assert!(!text.is_empty(), "{answer:?}"),
        Value::Array(problems) => assert!(!problems.is_empty() && status == 422, "{answer:?}"),
        _ => panic!("{answer:?}"),
    }
    assert_headers(answer);
}

/// Asserts what every response carries.
#[track_caller]
fn assert_headers(answer: &Answer) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}: {answer:?}");
    }
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(answer.header("cache-control").is_some(), "{answer:?}");
    assert!(!answer.header("x-request-id").unwrap().is_empty(), "{answer:?}");
    let duration: f64 = answer.header("x-request-duration-ms").unwrap().parse().unwrap();
    assert!(duration >= 0.0);
}

async fn a_body_is_json(db: Database) {
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
            let answer = raw(&server.admin, method, path, body).await;
            assert_error(&answer, 422);
            let problem = &answer.detail()[0];
            assert_eq!((&problem["type"], &problem["loc"][0]), (&json!("json_invalid"), &json!("body")));
        }
    }
}

async fn a_body_is_an_object(db: Database) {
    let server = Server::start(db).await;
    for body in ["[]", "[{\"name\": \"a\", \"owner\": \"o\"}]", "null", "1", "\"text\"", "true"] {
        for path in ["/agents".to_owned(), format!("/agents/{NOBODY}/suspend")] {
            let answer = raw(&server.admin, Method::POST, &path, body).await;
            if body == "null" && path.ends_with("/suspend") {
                // Where the body may be left out, `null` is none.
                answer.refused(404, "Agent not found");
                continue;
            }
            assert_error(&answer, 422);
            assert_invalid(&answer, &json!([["body"]]));
        }
    }
    // Unknown members are ignored.
    let body = "{\"name\": \"b\", \"owner\": \"o\", \"colour\": [1]}";
    assert_eq!(raw(&server.admin, Method::POST, "/agents", body).await.expect(201)["name"], "b");
}

async fn a_body_gives_each_member_once(db: Database) {
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
        let answer = raw(&server.admin, method, &path, body.clone()).await;
        assert_error(&answer, 422);
        let problem = &answer.detail()[0];
        assert_eq!((&problem["type"], &problem["loc"][0]), (&json!("duplicate"), &json!("body")), "{body}");
        assert!(problem.get("input").is_none(), "{body}");
    }
    assert_eq!(server.admin.get("/audit").await.expect(200), before, "nothing was done");
    // The same name at another depth is a different member.
    let body = r#"{"name": "nested", "owner": "o", "colour": {"name": "x", "owner": {"name": "y"}}}"#;
    raw(&server.admin, Method::POST, "/agents", body).await.expect(201);
}

async fn a_body_is_described_as_json(db: Database) {
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
        let answer = send("x", Some(wrong)).await;
        assert_error(&answer, 415);
        answer.refused(415, "Unsupported media type; send application/json");
    }
    send("a", Some("application/json; charset=utf-8")).await.expect(201);
    send("b", Some("Application/JSON")).await.expect(201);
    send("c", Some("application/merge-patch+json")).await.expect(201);
    send("d", None).await.expect(201);
}

async fn a_body_is_bounded(db: Database) {
    let server = Server::start(db).await;
    let body = json!({ "name": "a", "owner": "o", "description": "x".repeat(2 * 1024 * 1024) }).to_string();
    let answer = raw(&server.admin, Method::POST, "/agents", body.clone()).await;
    assert_error(&answer, 413);
    answer.refused(413, "The body is too large");
    // Whoever may not ask is refused before the rest of the body is read.
    let answer = raw(&server.anybody(), Method::POST, "/agents", body).await;
    assert_error(&answer, 401);
    // Just below the bound, the field itself is what is too long.
    let body = json!({ "name": "a", "owner": "o", "description": "x".repeat(1024 * 1024 - 100) }).to_string();
    assert_invalid(&raw(&server.admin, Method::POST, "/agents", body).await, &json!([["body", "description"]]));
}

async fn a_body_may_be_left_out_only_where_nothing_is_needed(db: Database) {
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

async fn everything_that_is_wrong_is_named_at_once(db: Database) {
    let server = Server::start(db).await;
    let answer = server.admin.post("/agents", json!({})).await;
    assert_error(&answer, 422);
    assert_eq!(
        answer.detail(),
        json!([
            { "type": "missing", "loc": ["body", "name"], "msg": "Field required" },
            { "type": "missing", "loc": ["body", "owner"], "msg": "Field required" },
        ])
    );
    let body = json!({ "name": "a b", "owner": 7, "description": [], "agent_type": "robot", "metadata_json": "{" });
    let answer = server.admin.post("/agents", body).await;
    assert_invalid(
        &answer,
        &json!([
            ["body", "name"],
            ["body", "owner"],
            ["body", "description"],
            ["body", "agent_type"],
            ["body", "metadata_json"],
        ]),
    );
    let inputs: Vec<_> = answer.detail().as_array().unwrap().iter().map(|problem| problem["input"].clone()).collect();
    assert_eq!(inputs, [json!("a b"), json!(7), Value::Null, json!("robot"), json!("{")]);

    let answer = server.admin.get("/agents?status=x&agent_type=y&limit=z&cursor=c").await;
    assert_invalid(
        &answer,
        &json!([["query", "status"], ["query", "agent_type"], ["query", "limit"], ["query", "cursor"]]),
    );
    assert_eq!(server.audited("agent.created").await.len(), 1);
}

async fn text_is_bounded_and_plain(db: Database) {
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
            let answer = server.admin.post(&format!("{path}/{act}"), json!({ "reason": wrong })).await;
            assert_invalid(&answer, &json!([["body", "reason"]]));
        }
    }
    let body = json!({
        "name": "a".repeat(128), "owner": long(128), "description": long(10_000),
        "metadata_json": format!("{}{}", "[".repeat(127), "]".repeat(127)),
    });
    server.admin.post("/agents", body).await.expect(201);
    server.admin.post(&format!("{path}/suspend"), json!({ "reason": long(500) })).await.expect(200);
}

async fn an_offending_value_is_echoed_in_part(db: Database) {
    let server = Server::start(db).await;
    let answer = server.admin.post("/agents", json!({ "name": "<b>".repeat(10_000), "owner": "o" })).await;
    assert_eq!(answer.detail()[0]["input"].as_str().unwrap().chars().count(), 256);
    assert!(answer.text.len() < 1_000);
}

async fn parameters_of_a_query_are_checked(db: Database) {
    let server = Server::start(db).await;
    let agent = format!("/agents/{}/audit", server.admin_id);
    for path in ["/agents", "/capabilities", "/audit", agent.as_str()] {
        for wrong in ["", "-1", "0", "501", "x", "1.5", "1e2", "99999999999999999999", "%00", "%C3%A9"] {
            let answer = server.admin.get(&format!("{path}?limit={wrong}")).await;
            assert_error(&answer, 422);
            assert_invalid(&answer, &json!([["query", "limit"]]));
        }
        for wrong in ["junk", "%00", "AAAA", "-1", "0", "%F0%9F%92%A5"] {
            let answer = server.admin.get(&format!("{path}?cursor={wrong}")).await;
            assert_error(&answer, 422);
            assert_invalid(&answer, &json!([["query", "cursor"]]));
        }
        let answer = server.admin.get(&format!("{path}?limit=1&limit=1")).await;
        assert_error(&answer, 422);
        assert_invalid(&answer, &json!([["query", "limit"]]));
        server.admin.get(&format!("{path}?limit=500&cursor=&colour=red")).await.expect(200);
        server.admin.get(&format!("{path}?%FF=%FF")).await.expect(200);
    }
    for path in ["/audit", agent.as_str()] {
        for wrong in ["", "-1", "x", "1.5", "99999999999999999999"] {
            let answer = server.admin.get(&format!("{path}?offset={wrong}")).await;
            assert_error(&answer, 422);
            assert_invalid(&answer, &json!([["query", "offset"]]));
        }
        assert_eq!(server.admin.get(&format!("{path}?offset={}", i64::MAX)).await.expect(200), json!([]));
        assert_eq!(server.admin.get(&format!("{path}?cursor={}", i64::MAX)).await.status.as_u16(), 200);
    }
    for name in ["start_date", "end_date"] {
        for wrong in ["x", "2026-13-01", "2026-02-30", "2026-01-01T25:00:00Z", "1", "99999-01-01", "%00", "now"] {
            let answer = server.admin.get(&format!("/audit?{name}={wrong}")).await;
            assert_error(&answer, 422);
            assert_invalid(&answer, &json!([["query", name]]));
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
        let answer = server.admin.get(query).await;
        assert_error(&answer, 422);
        assert_invalid(&answer, &json!([["query", name]]));
    }
}

async fn unknown_paths_and_methods_are_refused(db: Database) {
    let server = Server::start(db).await;
    for path in ["/nothing", "/api", "/api/v1", "/api/v1/", "/api/v2/agents", "/agents/", "/agents/a/b", "/AGENTS"] {
        for client in [&server.admin, &server.anybody()] {
            let answer = client.get(path).await;
            assert_error(&answer, 404);
            answer.refused(404, "Not Found");
        }
    }
    let agent = format!("/agents/{}", server.admin_id);
    for (method, path, allowed) in [
        (Method::PUT, "/agents", "GET,HEAD,POST"),
        (Method::DELETE, "/api/v1/agents", "GET,HEAD,POST"),
        (Method::POST, agent.as_str(), "DELETE,GET,HEAD,PATCH"),
        (Method::GET, "/auth/token", "POST"),
        (Method::POST, "/_health", "GET,HEAD"),
        (Method::POST, "/audit", "GET,HEAD"),
        (Method::DELETE, "/.well-known/jwks.json", "GET,HEAD"),
        (Method::OPTIONS, "/agents", "GET,HEAD,POST"),
        (Method::TRACE, "/agents", "GET,HEAD,POST"),
    ] {
        let answer = server.admin.send(server.admin.request(method.clone(), path)).await;
        assert_error(&answer, 405);
        let mut methods: Vec<_> = answer.header("allow").unwrap().split(',').map(str::trim).collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allowed, "{method} {path}");
    }
}

async fn a_path_may_hold_any_bytes(db: Database) {
    let server = Server::start(db).await;
    for id in ["%FF", "%C3", "%ED%A0%80"] {
        for path in
            [format!("/agents/{id}"), format!("/agents/{id}/keys"), format!("/agents/{NOBODY}/capabilities/{id}")]
        {
            let method = if path.contains("capabilities") { Method::DELETE } else { Method::GET };
            assert_error(&server.admin.send(server.admin.request(method, &path)).await, 400);
        }
    }
    for id in ["%00", "..%2F..%2Fetc", "%E2%80%AE", "a%0D%0AX:%20y", "%25", "'%20OR%201=1--"] {
        server.admin.get(&format!("/agents/{id}")).await.refused(404, "Agent not found");
    }
    assert_error(&server.admin.get(&format!("/agents/{}", "x".repeat(10_000))).await, 404);

    // Not even encoded: no client sends it, but somebody may.
    let address = server.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"GET /agents/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

async fn problem_details_are_told_on_request(db: Database) {
    let server = Server::start(db).await;
    let send = |client: Client, method: Method, path: &'static str, accept: &'static str| async move {
        let request = client.request(method, path).header("accept", accept).header("x-request-id", "r-1");
        client.send(request).await
    };
    let (admin, anybody) = (&server.admin, server.anybody());
    for (client, method, path, status, title, detail) in [
        (admin, Method::GET, "/nothing", 404, "Not Found", "Not Found"),
        (admin, Method::GET, "/agents/x", 404, "Not Found", "Agent not found"),
        (admin, Method::PUT, "/agents", 405, "Method Not Allowed", "Method Not Allowed"),
        (&anybody, Method::GET, "/agents", 401, "Unauthorized", "Not authenticated"),
    ] {
        let answer = send(client.clone(), method, path, PROBLEM).await;
        assert_eq!(answer.header("content-type"), Some(PROBLEM));
        assert_headers(&answer);
        let wanted = json!({
            "type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": "r-1",
        });
        assert_eq!(answer.expect(status), wanted);
    }
    let answer = send(admin.clone(), Method::GET, "/agents?limit=0", "text/html, application/problem+json;q=0.5").await;
    assert_eq!(answer.header("content-type"), Some(PROBLEM));
    let problem = answer.expect(422);
    assert_eq!(members(&problem), ["detail", "errors", "request_id", "status", "title", "type"]);
    assert!(problem["detail"].is_string());
    assert_eq!(problem["errors"][0]["loc"], json!(["query", "limit"]));

    for accept in ["*/*", "application/json", "application/problem+json;q=0", "application/problem+xml"] {
        assert_error(&send(admin.clone(), Method::GET, "/agents/x", accept).await, 404);
    }
    // What is no error is no problem.
    let answer = send(admin.clone(), Method::GET, "/agents", PROBLEM).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

async fn a_request_id_is_taken_over_or_replaced(db: Database) {
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
        let answer = send(good.to_owned(), format!("good-{n}")).await;
        assert_eq!(answer.header("x-request-id"), Some(good));
        assert_eq!(server.audited("agent.created").await[0]["request_id"], good);
    }
    let too_long = "a".repeat(65);
    for (n, bad) in ["", &too_long, "a b", "<x>", "é", "a;b", "a\tb"].into_iter().enumerate() {
        let answer = send(bad.to_owned(), format!("bad-{n}")).await;
        let id = answer.header("x-request-id").unwrap().to_owned();
        uuid::Uuid::parse_str(&id).unwrap();
        let record = &server.audited("agent.created").await[0];
        assert_eq!(record["request_id"], id, "{bad:?}");
        assert_eq!(details(record)["name"], format!("bad-{n}"));
    }
    let (one, two) = (server.admin.get("/agents").await, server.admin.get("/agents").await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));

    // A refusal bears it too.
    let request = server.anybody().request(Method::POST, "/auth/token");
    let request = request.header("x-api-key", "x").header("x-request-id", "refused-1");
    let answer = server.anybody().send(request).await;
    assert_eq!(answer.header("x-request-id"), Some("refused-1"));
    assert_eq!(server.audited("auth.failed").await[0]["request_id"], "refused-1");
}

async fn every_response_carries_the_headers(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("a", &[]).await;
    let path = format!("/agents/{}", agent.id);
    for path in
        ["/_health", "/api/v1/_health", "/agents", "/capabilities", "/audit", "/docs/", "/openapi.json", path.as_str()]
    {
        let answer = server.admin.get(path).await;
        assert_eq!(answer.status.as_u16(), 200, "{path}");
        assert_headers(&answer);
    }
    assert_headers(&server.anybody().exchange(&agent.raw_key).await);
    assert_headers(&server.anybody().get("/.well-known/jwks.json").await);
    assert_headers(&server.admin.send(server.admin.request(Method::HEAD, "/agents")).await);
    assert_headers(&server.admin.delete(&path).await);
    assert_eq!(server.anybody().get("/_health").await.expect(200), json!({ "status": "ok" }));
    assert_eq!(server.anybody().get("/_health").await.header("cache-control"), Some("no-store"));
}
