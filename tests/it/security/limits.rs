//! Who asks too often is told so, and cannot fill the disk either.

use reqwest::Method;
use serde_json::json;

use crate::{
    both,
    support::{Answer, Client, Database, Server, details},
};

both!(
    each_limit_counts_its_own,
    an_address_cannot_be_made_up,
    behind_a_trusted_proxy_clients_count_apart,
    refusals_beyond_the_limit_are_counted,
);

fn limited(answer: &Answer) -> bool {
    answer.status == 429
}

async fn each_limit_counts_its_own(db: Database) {
    let limits = [("RATE_LIMIT_AUTH_PER_MINUTE", "5"), ("RATE_LIMIT_API_PER_MINUTE", "8")];
    let server = Server::with(db, &limits).await;
    // The administrator's login was the first of five; both mounts draw on the same.
    for (n, mount) in ["", "/api/v1", "", "/api/v1"].into_iter().enumerate() {
        let request = server.anybody().request(Method::POST, &format!("{mount}/auth/token"));
        let answer = server.anybody().send(request.header("X-API-Key", &server.admin_key)).await;
        assert_eq!(answer.header("ratelimit-policy"), Some("\"auth\";q=5;w=60"));
        assert!(answer.header("ratelimit").unwrap().starts_with(&format!("\"auth\";r={};t=", 3 - n)), "{answer:?}");
        answer.expect(200);
    }
    let refused = server.anybody().exchange(&server.admin_key).await;
    refused.refused(429, "Rate limit exceeded");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(refused.header("ratelimit").unwrap().starts_with("\"auth\";r=0;t="), "{refused:?}");

    let mut answers = Vec::new();
    for n in 0..10 {
        let mount = if n % 2 == 0 { "" } else { "/api/v1" };
        answers.push(server.admin.get(&format!("{mount}/agents")).await);
    }
    assert!(answers[..8].iter().all(|answer| answer.status == 200) && answers[8..].iter().all(limited), "{answers:?}");
    for answer in &answers {
        assert_eq!(answer.header("ratelimit-policy"), Some("\"api\";q=8;w=60"), "{answer:?}");
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("x-ratelimit")), "{answer:?}");
    }
    for _ in 0..20 {
        let health = server.anybody().get("/_health").await;
        assert_eq!((health.header("ratelimit"), health.status.as_u16()), (None, 200));
    }
}

async fn from(client: &Client, forwarded: &str) -> Answer {
    client.send(client.request(Method::GET, "/agents").header("X-Forwarded-For", forwarded)).await
}

async fn an_address_cannot_be_made_up(db: Database) {
    let server = Server::with(db, &[("RATE_LIMIT_API_PER_MINUTE", "3")]).await;
    let mut answers = Vec::new();
    for n in 0..5 {
        answers.push(from(&server.admin, &format!("203.0.113.{n}")).await);
    }
    assert!(answers[3..].iter().all(limited), "{answers:?}");
}

async fn behind_a_trusted_proxy_clients_count_apart(db: Database) {
    let options = [("RATE_LIMIT_API_PER_MINUTE", "3"), ("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")];
    let server = Server::with(db, &options).await;
    for client in ["203.0.113.1", "203.0.113.2", "2001:db8::1"] {
        for n in 0..4 {
            // What stands to the left of the last foreign hop is the client's own claim.
            let answer = from(&server.admin, &format!("198.51.100.{n}, {client}, 10.0.0.7")).await;
            assert_eq!(limited(&answer), n == 3, "{client} {n} {answer:?}");
        }
    }
    assert!(limited(&from(&server.admin, "2001:db8::2").await), "one host is given a whole /64");
    assert!(!limited(&from(&server.admin, "2001:db8:0:1::1").await));
    server.anybody().exchange("junk").await.expect(401);
    let request = server.anybody().request(Method::POST, "/auth/token").header("X-API-Key", "junk");
    server.anybody().send(request.header("X-Forwarded-For", "203.0.113.77")).await.expect(401);
    let request = server.admin.request(Method::GET, "/audit?action=auth.failed");
    let records = server.admin.send(request.header("X-Forwarded-For", "203.0.113.99")).await.expect(200);
    assert_eq!(records[0]["ip_address"], "203.0.113.77", "records name the client, not the proxy");
}

async fn refusals_beyond_the_limit_are_counted(db: Database) {
    let server = Server::with(db, &[("AUDIT_REFUSALS_PER_MINUTE", "5")]).await;
    for _ in 0..12 {
        server.anybody().exchange("junk").await.refused(401, "Invalid API key");
    }
    assert_eq!(server.audited("auth.failed").await.len(), 5);
    assert_eq!(server.audited("audit.refusals_suppressed").await.len(), 0, "the minute is not over");
    // The end of the service ends the minute.
    let server = server.restart(&[]).await;
    let summary = &server.audited("audit.refusals_suppressed").await[0];
    assert_eq!(details(summary)["suppressed"], json!(7));
    assert_eq!((&summary["ip_address"], &summary["success"]), (&json!("127.0.0.1"), &json!(0)));
}
