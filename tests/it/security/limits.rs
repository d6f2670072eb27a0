//! Rate limits, and limits on their audit records.

use reqwest::Method;
use serde_json::json;

use crate::{
    both,
    support::{Client, Database, Response, Server, details},
};

both!(
    limits_count_separately,
    addresses_cannot_be_spoofed,
    clients_behind_a_trusted_proxy_are_limited_separately,
    suppressed_refusals_are_counted,
);

fn is_limited(response: &Response) -> bool {
    response.status == 429
}

async fn limits_count_separately(db: Database) {
    let limits = [("RATE_LIMIT_AUTH_PER_MINUTE", "5"), ("RATE_LIMIT_API_PER_MINUTE", "8")];
    let server = Server::start_with(db, &limits).await;
    // The administrator's login was the first of five requests. Both mounts share the limit.
    for (n, mount) in ["", "/api/v1", "", "/api/v1"].into_iter().enumerate() {
        let request = server.anonymous().request(Method::POST, &format!("{mount}/auth/token"));
        let response = server.anonymous().send(request.header("X-API-Key", &server.admin_key)).await;
        assert_eq!(response.header("ratelimit-policy"), Some("\"auth\";q=5;w=60"));
        assert!(response.header("ratelimit").unwrap().starts_with(&format!("\"auth\";r={};t=", 3 - n)), "{response:?}");
        response.expect(200);
    }
    let refused = server.anonymous().exchange(&server.admin_key).await;
    refused.refused(429, "Rate limit exceeded");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(refused.header("ratelimit").unwrap().starts_with("\"auth\";r=0;t="), "{refused:?}");

    let mut responses = Vec::new();
    for n in 0..10 {
        let mount = if n % 2 == 0 { "" } else { "/api/v1" };
        responses.push(server.admin.get(&format!("{mount}/agents")).await);
    }
    assert!(
        responses[..8].iter().all(|response| response.status == 200) && responses[8..].iter().all(is_limited),
        "{responses:?}"
    );
    for response in &responses {
        assert_eq!(response.header("ratelimit-policy"), Some("\"api\";q=8;w=60"), "{response:?}");
        assert!(!response.headers.keys().any(|name| name.as_str().starts_with("x-ratelimit")), "{response:?}");
    }
    for _ in 0..20 {
        let health = server.anonymous().get("/_health").await;
        assert_eq!((health.header("ratelimit"), health.status.as_u16()), (None, 200));
    }
}

async fn from(client: &Client, forwarded: &str) -> Response {
    client.send(client.request(Method::GET, "/agents").header("X-Forwarded-For", forwarded)).await
}

async fn addresses_cannot_be_spoofed(db: Database) {
    let server = Server::start_with(db, &[("RATE_LIMIT_API_PER_MINUTE", "3")]).await;
    let mut responses = Vec::new();
    for n in 0..5 {
        responses.push(from(&server.admin, &format!("203.0.113.{n}")).await);
    }
    assert!(responses[3..].iter().all(is_limited), "{responses:?}");
}

async fn clients_behind_a_trusted_proxy_are_limited_separately(db: Database) {
    let options = [("RATE_LIMIT_API_PER_MINUTE", "3"), ("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")];
    let server = Server::start_with(db, &options).await;
    for client in ["203.0.113.1", "203.0.113.2", "2001:db8::1"] {
        for n in 0..4 {
            // Addresses to the left of the last untrusted hop are set by the client.
            let response = from(&server.admin, &format!("198.51.100.{n}, {client}, 10.0.0.7")).await;
            assert_eq!(is_limited(&response), n == 3, "{client} {n} {response:?}");
        }
    }
    assert!(is_limited(&from(&server.admin, "2001:db8::2").await), "one limit must apply to a whole /64");
    assert!(!is_limited(&from(&server.admin, "2001:db8:0:1::1").await));
    server.anonymous().exchange("junk").await.expect(401);
    let request = server.anonymous().request(Method::POST, "/auth/token").header("X-API-Key", "junk");
    server.anonymous().send(request.header("X-Forwarded-For", "203.0.113.77")).await.expect(401);
    let request = server.admin.request(Method::GET, "/audit?action=auth.failed");
    let records = server.admin.send(request.header("X-Forwarded-For", "203.0.113.99")).await.expect(200);
    assert_eq!(records[0]["ip_address"], "203.0.113.77", "records must contain the client's address");
}

async fn suppressed_refusals_are_counted(db: Database) {
    let server = Server::start_with(db, &[("AUDIT_REFUSALS_PER_MINUTE", "5")]).await;
    for _ in 0..12 {
        server.anonymous().exchange("junk").await.refused(401, "Invalid API key");
    }
    assert_eq!(server.audited("auth.failed").await.len(), 5);
    assert_eq!(server.audited("audit.refusals_suppressed").await.len(), 0, "the minute must not be over");
    // Stopping the service ends the minute.
    let server = server.restart(&[]).await;
    let summary = &server.audited("audit.refusals_suppressed").await[0];
    assert_eq!(details(summary)["suppressed"], json!(7));
    assert_eq!((&summary["ip_address"], &summary["success"]), (&json!("127.0.0.1"), &json!(0)));
}
