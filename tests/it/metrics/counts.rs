//! What the metrics count.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aims::{
    app::App,
    domain::{Error, Role},
    telemetry::metrics::table::{self, Kind, Metric, UNMATCHED, Values},
    web::server::matched,
};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::{Exposition, ON, exposition::Labels, is, start};
use crate::{
    both,
    support::{Client, Database, PASSWORD, Relay, Server, TestClock, open},
};

both!(
    every_series_exists_from_the_start_and_no_other_does,
    requests_are_counted_by_route_and_status,
    tokens_and_refusals_are_counted,
    sign_ins_are_counted,
    limits_that_refuse_are_counted,
    the_writer_and_the_caches_are_counted,
    failed_batches_are_counted,
    the_fleet_is_counted,
    hostile_requests_create_no_series,
    requests_without_a_client_are_counted,
);

/// Serves the app with its metrics until the test ends; returns the URL of the metrics.
async fn serve(app: App) -> Client {
    let (listener, metrics) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("http://{}", metrics.local_addr().unwrap());
    tokio::spawn(app.with_metrics(metrics).serve(listener, std::future::pending()));
    Client::new(url)
}

async fn every_series_exists_from_the_start_and_no_other_does(db: Database) {
    let metrics = serve(open(&db, &TestClock::new(), &ON).await).await;
    let text = metrics.get("/metrics").await.text;
    let shown = Exposition::parse(&text);
    let described: BTreeMap<_, _> = table::all().map(|metric| (metric.name, metric)).collect();
    assert!(shown.families.keys().eq(described.keys()), "{:?}", shown.families.keys());
    for (name, metric) in &described {
        let family = &shown.families[*name];
        assert_eq!((family.kind.as_str(), family.help.as_str()), (metric.kind.as_str(), metric.help), "{name}");
        let series: BTreeSet<_> = family.samples.keys().map(|(_, labels)| without_bound(labels)).collect();
        assert_eq!(series, expected(metric), "{name}");
        let is_zero = family.samples.values().all(|value| *value == 0.0);
        let counts_requests = ["http_requests", "http_request_d", "tokens", "refusals", "sign_ins", "cache", "failed"];
        assert!(is_zero || !counts_requests.iter().any(|part| name.contains(part)), "{family:?}");
    }
    assert!(text.len() < 400_000, "{} bytes", text.len());
}

fn without_bound(labels: &Labels) -> Labels {
    labels.iter().filter(|(name, _)| *name != "le").map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The series of a metric: every combination of the values of its labels, for the pairs of method and route that exist.
fn expected(metric: &Metric) -> BTreeSet<Labels> {
    let routes: Vec<_> = matched::list().into_iter().map(|(method, path)| (method.to_string(), path)).collect();
    assert!(routes.len() > 150, "{}", routes.len());
    let unmatched = (UNMATCHED.0.to_owned(), UNMATCHED.1.to_owned());
    let pairs: Vec<_> = routes.into_iter().chain([unmatched]).collect();
    let mut series = BTreeSet::from([Labels::new()]);
    for label in metric.labels {
        let values: Vec<String> = match label.values {
            Values::Fixed(values) => values.iter().map(|value| (*value).to_owned()).collect(),
            Values::Methods => pairs.iter().map(|(method, _)| method.clone()).collect(),
            Values::Routes => pairs.iter().map(|(_, path)| path.clone()).collect(),
            Values::Version => vec![env!("CARGO_PKG_VERSION").to_owned()],
        };
        let with = |labels: &Labels, value: &String| {
            let mut labels = labels.clone();
            labels.insert(label.name.to_owned(), value.clone());
            labels
        };
        series = series.iter().flat_map(|labels| values.iter().map(move |value| with(labels, value))).collect();
    }
    let exists = |labels: &Labels| match (labels.get("method"), labels.get("route")) {
        (Some(method), Some(route)) => pairs.contains(&(method.clone(), route.clone())),
        _ => true,
    };
    series.retain(exists);
    series
}

/// The change of a series between two scrapes.
struct Change<'s>(&'s Exposition, &'s Exposition);

impl Change<'_> {
    #[track_caller]
    fn by(&self, name: &str, labels: &[(&str, &str)], by: f64) {
        let change = self.1.value(name, labels) - self.0.value(name, labels);
        assert!(is(change, by), "{name}{labels:?} changed by {change}, not {by}");
    }
}

fn responses<'l>(method: &'l str, route: &'l str, status: &'l str) -> [(&'l str, &'l str); 3] {
    [("method", method), ("route", route), ("status", status)]
}

async fn requests_are_counted_by_route_and_status(db: Database) {
    const REQUESTS: &str = "aims_http_requests_total";
    let server = start(db).await;
    let agent = server.agent("counted", &[]).await;
    let before = server.scrape().await;
    let path = format!("/agents/{}", agent.id);
    server.admin.get(&path).await.expect(200);
    server.admin.get(&format!("/api/v1{path}?secret=query")).await.expect(200);
    server.admin.send(server.admin.request(Method::HEAD, &path)).await.expect(200);
    agent.client.get(&path).await.expect(403);
    server.anonymous().get(&path).await.expect(401);
    server.admin.get("/agents/00000000-0000-0000-0000-000000000000").await.expect(404);
    server.admin.delete("/agents").await.expect(405);
    assert_eq!(server.anonymous().get("/nothing/here").await.status.as_u16(), 404);
    assert_eq!(server.anonymous().get("/console").await.status.as_u16(), 200, "follows the way to the sign-in page");
    let after = server.scrape().await;

    let change = Change(&before, &after);
    let route = matched::list().into_iter().map(|(_, path)| path).find(|path| path.starts_with("/api/v1/agents/{"));
    let route = route.unwrap();
    change.by(REQUESTS, &responses("GET", &route, "2xx"), 3.0);
    change.by(REQUESTS, &responses("GET", &route, "4xx"), 3.0);
    change.by(REQUESTS, &responses("DELETE", &route, "4xx"), 0.0);
    change.by(REQUESTS, &responses("other", "unmatched", "4xx"), 2.0);
    change.by(REQUESTS, &responses("GET", "/console", "3xx"), 1.0);
    change.by(REQUESTS, &responses("GET", "/console/sign-in", "2xx"), 1.0);
    let duration = "aims_http_request_duration_seconds";
    change.by(&format!("{duration}_count"), &[("route", &route)], 6.0);
    let seconds = after.value(&format!("{duration}_sum"), &[("route", &route)]);
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds}");
    assert!(after.value("aims_http_connections_open", &[]) >= 1.0);
    assert!(is(after.value("aims_http_connections_max", &[]), 4096.0));
}

async fn tokens_and_refusals_are_counted(db: Database) {
    const ISSUED: &str = "aims_tokens_issued_total";
    const REFUSALS: &str = "aims_refusals_total";
    let server = start(db).await;
    let (agent, actor) =
        (server.agent("subject", &["agents:read"]).await, server.agent("actor", &["agents:read"]).await);
    let delegates = format!("/agents/{}/delegates", agent.id);
    server.admin.post(&delegates, json!({ "delegate_id": actor.id })).await.expect(201);
    let suspended = server.agent("suspended", &[]).await;
    server.admin.post(&format!("/agents/{}/suspend", suspended.id), json!({})).await.expect(200);
    let anonymous = server.anonymous();
    let token_request = |form: Vec<(&'static str, String)>, id: &str, key: &str| {
        let request = anonymous.request(Method::POST, "/oauth/token").basic_auth(id, Some(key)).form(&form);
        anonymous.send(request)
    };
    let before = server.scrape().await;

    anonymous.exchange(&agent.raw_key).await.expect(200);
    let grant = |name: &str| ("grant_type", name.to_owned());
    token_request(vec![grant("client_credentials")], &agent.id, &agent.raw_key).await.expect(200);
    let exchange = vec![
        grant("urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", agent.client.token().to_owned()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token".to_owned()),
    ];
    token_request(exchange, &actor.id, &actor.raw_key).await.expect(200);

    let scope = ("scope", "admin:*".to_owned());
    token_request(vec![grant("client_credentials"), scope], &agent.id, &agent.raw_key).await.expect(400);
    for _ in 0..2 {
        anonymous.exchange(&format!("aims_{}", "0".repeat(64))).await.expect(401);
    }
    anonymous.exchange(&suspended.raw_key).await.expect(403);
    anonymous.get("/agents").await.expect(401);
    anonymous.with_token("forged").get("/agents").await.expect(401);
    suspended.client.get("/agents").await.expect(401);
    agent.client.get("/audit").await.expect(403);
    let after = server.scrape().await;

    let change = Change(&before, &after);
    for (grant, by) in [("api_key", 1.0), ("client_credentials", 1.0), ("token_exchange", 1.0), ("jwt_bearer", 0.0)] {
        change.by(ISSUED, &[("grant", grant)], by);
    }
    for (reason, by) in [
        ("invalid_scope", 1.0),
        ("invalid_key", 2.0),
        ("agent_suspended", 2.0),
        ("missing_token", 1.0),
        ("invalid_token", 1.0),
        ("missing_capability", 1.0),
        ("rate_limited", 0.0),
    ] {
        change.by(REFUSALS, &[("reason", reason)], by);
    }
}

async fn sign_ins_are_counted(db: Database) {
    let server = start(db).await;
    server.person("zoe", Role::Owner).await;
    let attempt = async |password: &str| {
        server.browser().post("/console/sign-in", &[("username", "zoe"), ("password", password)]).await.status.as_u16()
    };
    // As many as are checked without a wait, and more.
    let mut statuses = BTreeMap::new();
    for _ in 0..8 {
        *statuses.entry(attempt("a wrong password").await).or_insert(0_u32) += 1;
    }
    let shown = server.scrape().await;
    let of = |shown: &Exposition, outcome| shown.value("aims_sign_ins_total", &[("outcome", outcome)]);
    assert!(is(of(&shown, "failed"), f64::from(statuses[&401])), "{statuses:?}");
    assert!(is(of(&shown, "throttled"), f64::from(statuses[&429])), "{statuses:?}");
    assert!(of(&shown, "succeeded") == 0.0 && statuses.len() == 2, "{statuses:?}");
    let wrong = shown.value("aims_refusals_total", &[("reason", "wrong_credentials")]);
    assert!(is(wrong, of(&shown, "failed")));

    server.clock.advance(Duration::from_hours(24));
    assert_eq!(attempt(PASSWORD).await, 303);
    assert!(is(of(&server.scrape().await, "succeeded"), 1.0));
}

async fn limits_that_refuse_are_counted(db: Database) {
    let options = [ON[0], ("RATE_LIMIT_API_PER_MINUTE", "3")];
    let server = Server::start_with(db, &options).await;
    let mut rejected = 0.0;
    for _ in 0..5 {
        if server.admin.get("/agents").await.status.as_u16() == 429 {
            rejected += 1.0;
        }
    }
    let request = server.browser().request(Method::POST, "/console/theme").header("sec-fetch-site", "cross-site");
    assert_eq!(server.browser().send(request).await.status.as_u16(), 403);
    let shown = server.scrape().await;
    let refused = |reason| shown.value("aims_refusals_total", &[("reason", reason)]);
    assert!(rejected >= 1.0 && is(refused("rate_limited"), rejected), "{rejected}");
    assert!(is(refused("cross_site"), 1.0));
}

async fn the_writer_and_the_caches_are_counted(db: Database) {
    let server = start(db).await;
    let agent = server.agent("cached", &["agents:read"]).await;
    let before = server.scrape().await;
    for _ in 0..3 {
        agent.client.get("/agents").await.expect(200);
    }
    server.agent("another", &[]).await;
    let after = server.scrape().await;
    let change = Change(&before, &after);
    change.by("aims_writer_failed_batches_total", &[], 0.0);
    change.by("aims_writer_rejected_total", &[], 0.0);
    let grown = |name: &str| after.value(name, &[]) - before.value(name, &[]);
    // The agent, its key and its token.
    assert!(is(grown("aims_audit_records_total"), 3.0), "{}", grown("aims_audit_records_total"));
    assert!(is(grown("aims_audit_chain_head"), 3.0));
    assert!(grown("aims_writer_batch_size_sum") >= 3.0);
    assert!(grown("aims_writer_commit_duration_seconds_count") >= 3.0);
    assert!(grown("aims_writer_commit_duration_seconds_sum") > 0.0);
    assert!(is(after.value("aims_writer_queue_capacity", &[]), 4096.0));
    assert!(is(after.value("aims_writer_queue_length", &[]), 0.0));
    let hits =
        |shown: &Exposition, cache| shown.value("aims_cache_requests_total", &[("cache", cache), ("result", "hit")]);
    assert!(hits(&after, "verified_tokens") - hits(&before, "verified_tokens") >= 2.0);
    assert!(hits(&after, "agents") - hits(&before, "agents") >= 2.0);

    assert!(is(after.value("aims_database_up", &[]), 1.0));
    let pools: &[&str] = if server.db.is_sqlite() { &["read", "write"] } else { &["shared"] };
    for pool in ["read", "write", "shared"] {
        let most = after.value("aims_database_connections_max", &[("pool", pool)]);
        let of = |state| after.value("aims_database_connections", &[("pool", pool), ("state", state)]);
        assert_eq!(most > 0.0, pools.contains(&pool), "{pool}");
        let open = of("idle") + of("in_use");
        assert!(open <= most && (open > 0.0) == pools.contains(&pool), "{pool}: {open} of {most}");
    }
}

async fn failed_batches_are_counted(db: Database) {
    let server = start(db).await;
    let sql = if server.db.is_sqlite() {
        "CREATE TRIGGER broken BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'broken'); END"
    } else {
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$; \
         CREATE TRIGGER broken BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION broken()"
    };
    server.db.execute(sql).await;
    let before = server.scrape().await;
    server.anonymous().exchange(&server.admin_key).await.expect(503);
    let after = server.scrape().await;
    let change = Change(&before, &after);
    change.by("aims_writer_failed_batches_total", &[], 1.0);
    change.by("aims_audit_records_total", &[], 0.0);
    change.by("aims_tokens_issued_total", &[("grant", "api_key")], 0.0);
    change.by("aims_http_requests_total", &responses("POST", "/api/v1/auth/token", "5xx"), 1.0);
}

async fn the_fleet_is_counted(db: Database) {
    let server = start(db).await;
    let agent = server.agent("of-the-fleet", &[]).await;
    let suspended = server.agent("suspended", &[]).await;
    server.admin.post(&format!("/agents/{}/suspend", suspended.id), json!({})).await.expect(200);
    let revoked = server.agent("revoked", &[]).await;
    server.admin.post(&format!("/agents/{}/revoke", revoked.id), json!({})).await.expect(200);
    for days in [1, 6, 29, 31] {
        let seconds = server.clock_secs() + days * 24 * 3_600;
        let at = aims::domain::Timestamp::from_secs(seconds).to_string();
        let body = json!({ "expires_at": at });
        server.admin.post(&format!("/agents/{}/keys", agent.id), body).await.expect(201);
    }
    // The first scrape: later ones keep the numbers for ten seconds.
    let shown = server.scrape().await;
    for (status, agents) in [("active", 2.0), ("suspended", 1.0), ("revoked", 1.0)] {
        assert!(is(shown.value("aims_agents", &[("status", status)]), agents), "{status}");
    }
    for (within, keys) in [("7d", 2.0), ("30d", 3.0)] {
        assert!(is(shown.value("aims_api_keys_expiring", &[("within", within)]), keys), "{within}");
    }
}

async fn hostile_requests_create_no_series(db: Database) {
    let server = start(db).await;
    let key = format!("aims_{}", "5ec4e7".repeat(10));
    let name = "agent\"} 1\naims_forged_total";
    server.admin.post("/agents", json!({ "name": name, "owner": name })).await;
    server.agent("named-agent", &[]).await;
    let before = server.scrape().await.series();
    let anonymous = server.anonymous();
    let long = format!("/agents/{}", "a".repeat(20_000));
    let paths =
        ["/agents/%22%7D%201%0Aaims_forged_total", "/a%00b", "//", "/metrics", "/agents/{id}", "/%F0%9F%92%A3", &long];
    for path in paths {
        for method in ["GET", "POST", "BREW", "OPTIONS", "TRACE", "aims_forged_total"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let request = anonymous.request(method, path).header("x-request-id", "forged\"}").header("x-api-key", &key);
            anonymous.send(request).await;
        }
    }
    anonymous.exchange(&key).await.expect(401);
    anonymous.with_token(&key).get("/agents?key=forged_query").await.expect(401);
    // What hyper answers by itself.
    let mut raw = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    raw.write_all(b"GET /\xff\"} HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();

    let response = server.scraper().get("/metrics").await;
    let shown = Exposition::parse(&response.text);
    assert_eq!(shown.series(), before);
    for secret in
        [key.as_str(), "5ec4e7", "forged", &server.admin_key, server.admin.token(), "named-agent", &server.admin_id]
    {
        assert!(!response.text.contains(secret), "{secret}");
    }
    assert!(shown.value("aims_http_requests_total", &responses("other", "unmatched", "4xx")) > 30.0);
}

async fn requests_without_a_client_are_counted(db: Database) {
    let server = start(db).await;
    // While the writer is busy, the request waits for its audit record.
    let (release, released) = oneshot::channel::<()>();
    let store = server.services.store.clone();
    let busy = tokio::spawn(async move {
        let wait = async move { released.await.map_err(|_| Error::Unavailable(None)) };
        store.write(move |_| Box::pin(wait)).await
    });
    let mut client = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    let request = format!("POST /auth/token HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n\r\n", server.admin_key);
    client.write_all(request.as_bytes()).await.unwrap();
    server.scrape_until(|shown| is(shown.value("aims_http_requests_in_progress", &[]), 1.0)).await;
    drop(client);
    let shown = server.scrape_until(|shown| shown.value("aims_http_requests_in_progress", &[]) == 0.0).await;
    assert!(is(shown.value("aims_http_requests_aborted_total", &[]), 1.0));
    release.send(()).unwrap();
    busy.await.unwrap().unwrap();
}

/// A scrape must tell that the database is down, and not fail with it.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_scrape_succeeds_while_the_database_does_not_answer() {
    let database = Database::postgres().await;
    let (relay, behind) = Relay::in_front_of(&database).await;
    let server = start(behind).await;
    server.agent("before", &[]).await;
    let before = server.scrape().await;
    assert!(is(before.value("aims_agents", &[("status", "active")]), 2.0));
    relay.silence();
    let down = server.scrape().await;
    assert!(down.value("aims_database_up", &[]) == 0.0, "the database cannot answer");
    Change(&before, &down).by("aims_audit_chain_head", &[], 0.0);
    Change(&before, &down).by("aims_agents", &[("status", "active")], 0.0);
    relay.restore();
    server.scrape_until(|shown| is(shown.value("aims_database_up", &[]), 1.0)).await;
}

#[test]
fn histograms_have_ascending_bounds() {
    for metric in table::all() {
        if let Kind::Histogram(bounds) = metric.kind {
            assert!(bounds.is_sorted() && bounds.len() < 15, "{}", metric.name);
        }
    }
}
