//! Audit records of refusals: a flood cannot hide others or fill the disk.

use std::time::Duration;

use aims::domain::Role;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    both,
    support::{Agent, Database, Server, details},
};

both!(
    flood_does_not_hide_other_refusals,
    refusal_records_of_a_site_are_bounded,
    refusal_records_of_an_agent_and_an_account_are_bounded,
    bad_keys_do_not_hide_refusals_of_agents_at_the_same_address,
);

const PROXY: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.1");
const ELSEWHERE: &str = "198.51.100.7";

/// Sends an invalid token `times` times from each of the given number of networks in a /48.
async fn flood(server: &Server, networks: u32, times: usize) {
    let client = server.anonymous().with_token("junk");
    let addresses = (0..networks).flat_map(|n| std::iter::repeat_n(format!("2001:db8:0:{n:x}::1"), times));
    stream::iter(addresses)
        .for_each_concurrent(64, |address| {
            let request = client.request(Method::GET, "/agents").header("X-Forwarded-For", address);
            let sent = client.send(request);
            async { drop(sent.await.expect(401)) }
        })
        .await;
}

/// Guesses the password of an administrator.
async fn guess(server: &Server, username: &str, address: &str) -> u16 {
    let browser = server.browser();
    let form = [("username", username), ("password", "not the right one")];
    let request = browser.request(Method::POST, "/console/sign-in").form(&form);
    let request = request.header("sec-fetch-site", "same-origin").header("x-forwarded-for", address);
    browser.send(request).await.status.as_u16()
}

/// Tries to create a key for the first administrator.
async fn try_create_key(server: &Server, agent: &Agent, address: &str) {
    let request = agent.client.request(Method::POST, &format!("/agents/{}/keys", server.admin_id));
    agent.client.send(request.json(&json!({})).header("X-Forwarded-For", address)).await.expect(403);
}

async fn send_bad_key(server: &Server, address: &str) {
    let request = server.anonymous().request(Method::POST, "/auth/token").header("X-API-Key", "junk");
    server.anonymous().send(request.header("X-Forwarded-For", address)).await.refused(401, "Invalid API key");
}

async fn recorded_from(server: &Server, action: &str, address: &str) -> usize {
    server.audited(action).await.iter().filter(|record| record["ip_address"] == address).count()
}

async fn refusals(server: &Server) -> i64 {
    server.db.count("SELECT COUNT(*) FROM audit_log WHERE success = 0").await
}

fn suppressed(summaries: &[Value]) -> i64 {
    summaries.iter().map(|summary| details(summary)["suppressed"].as_i64().unwrap()).sum()
}

async fn flood_does_not_hide_other_refusals(db: Database) {
    const NETWORKS: u32 = 11_200;
    let server = Server::start_with(db, &[PROXY]).await;
    server.person("keeper", Role::Owner).await;
    let agent = server.agent("minter", &["keys:manage"]).await;
    flood(&server, NETWORKS, 1).await;
    let of_the_flood = refusals(&server).await;
    assert!(of_the_flood < 300, "{of_the_flood} records");
    for _ in 0..5 {
        assert_eq!(guess(&server, "keeper", ELSEWHERE).await, 401);
    }
    try_create_key(&server, &agent, ELSEWHERE).await;
    send_bad_key(&server, ELSEWHERE).await;
    assert_eq!(recorded_from(&server, "console.sign_in_failed", ELSEWHERE).await, 5);
    assert_eq!(recorded_from(&server, "authz.denied", ELSEWHERE).await, 1);
    assert_eq!(recorded_from(&server, "auth.failed", ELSEWHERE).await, 1);

    server.clock.advance(Duration::from_mins(1));
    server.services.record_suppressed(false).await.unwrap();
    let summaries = server.audited("audit.refusals_suppressed").await;
    assert_eq!(suppressed(&summaries), i64::from(NETWORKS) - of_the_flood, "every refusal must be counted");
    assert_eq!(details(&summaries[0])["network"], "2001:db8::/48");
    assert_eq!((summaries.len(), &summaries[0]["success"]), (1, &json!(0)));
}

async fn refusal_records_of_a_site_are_bounded(db: Database) {
    let server = Server::start_with(db, &[PROXY, ("AUDIT_REFUSALS_TOTAL_PER_MINUTE", "200")]).await;
    flood(&server, 256, 10).await;
    let recorded = refusals(&server).await;
    assert!((50..=200).contains(&recorded), "{recorded} records");
    // Stopping the service ends the minute.
    let server = server.restart(&[PROXY]).await;
    let summaries = server.audited("audit.refusals_suppressed").await;
    assert_eq!(suppressed(&summaries), 2_560 - recorded, "every refusal must be counted");
    assert_eq!(details(&summaries[0])["network"], "2001:db8::/56");
}

async fn refusal_records_of_an_agent_and_an_account_are_bounded(db: Database) {
    let server = Server::start_with(db, &[PROXY, ("AUDIT_REFUSALS_PER_MINUTE", "3")]).await;
    let keeper = server.person("keeper", Role::Owner).await.to_string();
    let agent = server.agent("minter", &["keys:manage"]).await;
    for n in 0..5 {
        try_create_key(&server, &agent, &format!("2001:db8:{n:x}::1")).await;
        assert_eq!(guess(&server, "keeper", &format!("2001:db8:{n:x}::1")).await, 401);
    }
    assert_eq!(server.audited("authz.denied").await.len(), 3);
    assert_eq!(server.audited("console.sign_in_failed").await.len(), 3);
    server.clock.advance(Duration::from_mins(1));
    server.services.record_suppressed(false).await.unwrap();
    let summaries = server.audited("audit.refusals_suppressed").await;
    let of_the_agent = summaries.iter().find(|summary| summary["agent_id"] == json!(agent.id)).unwrap();
    let of_the_account = summaries.iter().find(|summary| summary["resource_id"] == json!(keeper)).unwrap();
    assert_eq!((summaries.len(), &of_the_account["agent_id"]), (2, &Value::Null));
    assert_eq!([of_the_agent, of_the_account].map(|summary| details(summary)["suppressed"].clone()), [2, 2]);
    // In the next minute, refusals are recorded individually again.
    try_create_key(&server, &agent, ELSEWHERE).await;
    assert_eq!(server.audited("authz.denied").await.len(), 4);
}

async fn bad_keys_do_not_hide_refusals_of_agents_at_the_same_address(db: Database) {
    let server = Server::start_with(db, &[PROXY, ("AUDIT_REFUSALS_TOTAL_PER_MINUTE", "100")]).await;
    server.person("keeper", Role::Owner).await;
    let agent = server.agent("minter", &["keys:manage"]).await;
    for _ in 0..100 {
        send_bad_key(&server, ELSEWHERE).await;
    }
    try_create_key(&server, &agent, ELSEWHERE).await;
    assert_eq!(guess(&server, "keeper", ELSEWHERE).await, 401);
    assert_eq!(recorded_from(&server, "authz.denied", ELSEWHERE).await, 1);
    assert_eq!(recorded_from(&server, "console.sign_in_failed", ELSEWHERE).await, 1);
}
