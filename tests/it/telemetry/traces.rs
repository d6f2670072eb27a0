//! Traces that a collector receives over OTLP.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use aims::clock::{Clock, SystemClock};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    both,
    support::{Aims, Client, Collector, Database, PASSWORD, Response, Span},
};

both!(a_write_is_a_trace_of_its_stages);

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const OK: i32 = 1;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Sends traces to the collector, ten times a second.
fn traced(db: &Database, endpoint: &str) -> Aims {
    Aims::new(db).with("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).with("OTEL_BSP_SCHEDULE_DELAY", "100")
}

async fn send(client: &Client, method: Method, path: &str, traceparent: &str, body: Value) -> Response {
    client.send(client.request(method, path).header("traceparent", traceparent).json(&body)).await
}

fn named<'s>(spans: &'s [Span], name: &str) -> Vec<&'s Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

async fn a_write_is_a_trace_of_its_stages(db: Database) {
    const NAMES: [&str; 4] = ["POST /api/v1/agents", "policy", "queue", "commit"];
    let collector = Collector::start().await;
    let aims = traced(&db, &collector.url)
        .with("LOG_FORMAT", "json")
        .with("OTEL_SERVICE_NAME", "identity")
        .with("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20of-the-collector");
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let body = json!({ "name": "a", "owner": "o" });
    send(&admin, Method::POST, "/api/v1/agents", &format!("00-{TRACE}-{PARENT}-01"), body).await.expect(201);

    let of_trace = |spans: &[Span]| spans.iter().filter(|span| span.trace == TRACE).cloned().collect::<Vec<_>>();
    let spans = collector.spans(|spans| of_trace(spans).len() >= NAMES.len()).await;
    let spans = of_trace(&spans);
    assert_eq!(spans.len(), NAMES.len(), "{spans:#?}");
    let [request, policy, queue, commit] = NAMES.map(|name| named(&spans, name)[0]);
    assert_eq!((request.parent.as_str(), request.kind), (PARENT, SERVER));
    for stage in [policy, queue, commit] {
        assert_eq!(stage.parent, request.id, "{stage:#?}");
        assert!(request.start <= stage.start && stage.end <= request.end, "{stage:#?} in {request:#?}");
    }
    assert!(policy.end <= queue.start && queue.end <= commit.start, "{spans:#?}");
    assert_eq!(commit.status, OK);
    let attributes: Vec<_> = request.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("http.request.method", "POST"),
        ("http.response.status_code", "201"),
        ("http.route", "/api/v1/agents"),
        ("url.path", "/api/v1/agents"),
    ];
    assert_eq!(attributes, expected);
    assert_eq!(request.resource["service.name"], "identity");
    assert_eq!(request.resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(collector.received().batches[0].0["authorization"], "Bearer of-the-collector");

    // The line in the access log leads to the trace.
    let mark = format!("\"trace_id\":\"{TRACE}\"");
    process.logged(|log| log.lines().any(|line| line.contains("aims::access") && line.contains(&mark))).await;

    // An exchange has the same stages, in a trace of its own.
    let spans = collector.spans(|spans| named(spans, "POST /auth/token").len() == 1).await;
    let exchange = named(&spans, "POST /auth/token")[0];
    assert_eq!(exchange.parent, "");
    let spans = collector.spans(|spans| spans.iter().filter(|span| span.parent == exchange.id).count() >= 3).await;
    let stages: HashSet<_> = spans.iter().filter(|span| span.parent == exchange.id).map(|s| s.name.as_str()).collect();
    assert_eq!(stages, HashSet::from(["policy", "queue", "commit"]));
    process.stop().await;
}

#[tokio::test]
async fn an_invalid_traceparent_begins_a_new_trace() {
    let db = Database::sqlite();
    let collector = Collector::start().await;
    let process = traced(&db, &collector.url).serve().await;
    let invalid = [
        format!("ff-{TRACE}-{PARENT}-01"),
        format!("00-{}-{PARENT}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{PARENT}-01-{}", "0".repeat(10_240)),
        "0".repeat(10_240),
        "\u{1b}[31m".to_owned(),
    ];
    for traceparent in &invalid {
        let text = http::HeaderValue::from_bytes(traceparent.as_bytes());
        let request = process.client().request(Method::GET, "/agents");
        let request = match text {
            Ok(value) => request.header("traceparent", value),
            Err(_) => request.header("traceparent", "not valid in a header"),
        };
        process.client().send(request).await.expect(401);
    }
    let spans = collector.spans(|spans| named(spans, "GET /agents").len() == invalid.len()).await;
    let requests = named(&spans, "GET /agents");
    let traces: HashSet<_> = requests.iter().map(|span| span.trace.as_str()).collect();
    assert_eq!(traces.len(), invalid.len(), "{requests:#?}");
    assert!(!traces.contains(TRACE) && requests.iter().all(|span| span.parent.is_empty()), "{requests:#?}");
}

/// A caller can neither hide its requests nor choose what is recorded, unless the operator lets it.
#[tokio::test]
async fn only_the_operator_decides_what_is_recorded() {
    for (sampler, expected) in [
        ("", &["sampled", "not-sampled", "alone"][..]),
        ("always_off", &[]),
        ("parentbased_always_on", &["sampled", "alone"]),
        ("parentbased_always_off", &["sampled"]),
    ] {
        let db = Database::sqlite();
        let collector = Collector::start().await;
        let process = traced(&db, &collector.url).with("OTEL_TRACES_SAMPLER", sampler).serve().await;
        let client = process.client();
        send(&client, Method::GET, "/sampled", &format!("00-{TRACE}-{PARENT}-01"), Value::Null).await.expect(404);
        send(&client, Method::GET, "/not-sampled", &format!("00-{TRACE}-{PARENT}-00"), Value::Null).await.expect(404);
        client.get("/alone").await.expect(404);
        process.stop().await;
        let spans = collector.received().spans;
        let paths: Vec<_> = spans.iter().map(|span| span.attributes["url.path"].trim_start_matches('/')).collect();
        assert_eq!(paths, expected, "{sampler}");
    }
}

#[tokio::test]
async fn a_span_holds_no_secret_and_no_personal_data() {
    let db = Database::sqlite();
    let collector = Collector::start().await;
    let aims = traced(&db, &collector.url);
    let key = aims.bootstrap().await;
    let arguments = ["admin", "create", "ada-lovelace", "--role", "viewer", "--password-stdin"];
    assert_eq!(aims.run_with_input(&arguments, &format!("{PASSWORD}\n")).await.code, Some(0));
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let browser = crate::support::Browser::new(process.url.clone());
    let form = [("username", "ada-lovelace"), ("password", PASSWORD)];
    browser.post("/console/sign-in", &form).await.redirects_to("/console");
    let session = browser.cookie("aims").unwrap_or_default();
    let setup = "Zm9vYmFyLWJhei1xdXV4LTEyMzQ1Njc4OTAtYWJjZGU";
    let token = admin.token().to_owned();
    for secret in [key.as_str(), &token, setup] {
        for path in [
            format!("/{secret}"),
            format!("/agents/{secret}/keys"),
            format!("/agents?cursor={secret}&other=ada-lovelace"),
            format!("/console/setup?token={secret}"),
        ] {
            admin.get(&path).await;
            browser.get(&path).await;
        }
        let request = admin.request(Method::GET, "/agents").header("x-api-key", secret).header("cookie", secret);
        admin.send(request.header("tracestate", "a=hunter2").header("baggage", "user=hunter2")).await;
    }
    process.stop().await;
    let received = collector.received();
    assert!(named(&received.spans, "GET /agents/{id}/keys").len() >= 6, "{:#?}", received.spans);
    assert!(named(&received.spans, "POST /console/sign-in").len() == 1, "{:#?}", received.spans);
    let bodies = received.batches.iter().flat_map(|(_, body)| body.to_vec()).collect::<Vec<_>>();
    let bodies = String::from_utf8_lossy(&bodies);
    assert!(bodies.contains("[redacted]"));
    for secret in [&key[5..25], &token[..30], &token[token.len() - 20..], &setup[..20], PASSWORD] {
        assert!(!bodies.contains(secret), "{secret}");
    }
    for personal in ["ada-lovelace", "hunter2", "127.0.0.1", "Mozilla"] {
        assert!(!bodies.contains(personal), "{personal}");
    }
    assert!(session.is_empty() || !bodies.contains(&session));
}

/// An answer may take for ever; what does not fit in the queue of spans is dropped.
#[tokio::test]
async fn a_silent_collector_delays_nothing_and_bounds_memory() {
    /// Each has four spans.
    const EXCHANGES: usize = 200;
    const QUEUE: usize = 256;
    const BATCH: usize = 64;
    let db = Database::sqlite();
    let collector = Collector::start_silent().await;
    let aims = traced(&db, &collector.url)
        .with("OTEL_BSP_MAX_QUEUE_SIZE", &QUEUE.to_string())
        .with("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &BATCH.to_string());
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let client = process.client();
    client.exchange(&key).await.expect(200);
    collector.spans(|spans| !spans.is_empty()).await;
    for _ in 0..EXCHANGES / 50 {
        for response in join_all((0..50).map(|_| client.exchange(&key))).await {
            response.expect(200);
        }
    }
    let before = collector.received().spans.len();
    collector.respond();
    assert_eq!(process.stop().await.code, Some(0));
    let after = collector.received().spans.len();
    assert!(after > before && after <= before + QUEUE + BATCH, "{before} and then {after} spans");
}

#[tokio::test]
async fn a_collector_that_is_lost_delays_the_end_by_a_few_seconds_at_most() {
    let db = Database::sqlite();
    let collector = Collector::start_silent().await;
    let process = traced(&db, &collector.url).serve().await;
    process.client().get("/a").await.expect(404);
    collector.spans(|spans| !spans.is_empty()).await;
    process.client().get("/b").await.expect(404);
    let began = Instant::now();
    assert_eq!(process.stop().await.code, Some(0));
    // The collector would be waited for twice as long: twice 10 seconds.
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

/// A collector that refuses the spans is reported once, and so is the recovery.
#[tokio::test]
async fn a_failing_collector_is_reported_once() {
    let db = Database::sqlite();
    let accepts = Arc::new(AtomicBool::new(false));
    let (seen, mut batches) = mpsc::channel(100);
    let router =
        Router::new().fallback(|State((accepts, seen)): State<(Arc<AtomicBool>, mpsc::Sender<()>)>| async move {
            seen.send(()).await.unwrap();
            if accepts.load(SeqCst) { StatusCode::OK } else { StatusCode::BAD_REQUEST }
        });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = router.with_state((accepts.clone(), seen));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let process = traced(&db, &url).serve().await;
    for _ in 0..3 {
        process.client().get("/a").await.expect(404);
        batches.recv().await.expect("a batch");
    }
    process.logged(|log| log.contains("the collector responded with the status 400")).await;
    accepts.store(true, SeqCst);
    process.client().get("/b").await.expect(404);
    let log = process.logged(|log| log.contains("sending traces again")).await;
    assert_eq!(log.matches("cannot send traces").count(), 1, "{log}");
    assert!(log.contains("WARN") && !log.contains("panicked"), "{log}");
}

/// Nothing listens.
#[tokio::test]
async fn a_missing_collector_is_reported() {
    let db = Database::sqlite();
    // Port 1 is for a service that nobody runs.
    let process = traced(&db, "http://127.0.0.1:1").serve().await;
    process.client().get("/a").await.expect(404);
    process.logged(|log| log.contains("cannot send traces") && log.contains("Connection refused")).await;
    assert_eq!(process.stop().await.code, Some(0));
}

/// The keys of a foreign issuer are fetched within the trace of the request that needs them.
#[tokio::test]
async fn requests_to_other_services_continue_the_trace() {
    let (seen, mut headers) = mpsc::channel::<HeaderMap>(10);
    let keys = |State(seen): State<mpsc::Sender<HeaderMap>>, headers: HeaderMap| async move {
        seen.send(headers).await.unwrap();
        "{\"keys\": []}"
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/keys", get(keys)).with_state(seen);
    tokio::spawn(async move { axum::serve(listener, router).await });

    let db = Database::sqlite();
    let collector = Collector::start().await;
    let aims = traced(&db, &collector.url).with("FEDERATION_ALLOW_PRIVATE_ADDRESSES", "true");
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let agent = admin.post("/agents", json!({ "name": "a", "owner": "o" })).await.expect(201);
    let path = format!("/agents/{}/federated-identities", agent["id"].as_str().unwrap());
    let trust = json!({
        "issuer": issuer, "jwks_uri": format!("{issuer}/keys"), "audience": "https://aims.test",
        "claims": { "sub": "a-workload" },
    });
    admin.post(&path, trust).await.expect(201);
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let expires_at = SystemClock.now().as_secs() + 600;
    let claims = json!({ "iss": issuer, "aud": "https://aims.test", "sub": "a-workload", "exp": expires_at });
    let assertion = format!("{}.{}.{}", part(json!({ "alg": "ES256", "kid": "k" })), part(claims), "A".repeat(86));
    let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.as_str())];
    let request = process.client().request(Method::POST, "/oauth/token").form(&form);
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    process.client().send(request.header("traceparent", traceparent)).await.expect(400);

    let sent = headers.recv().await.expect("a request for the keys");
    let spans = collector.spans(|spans| spans.iter().any(|span| span.kind == CLIENT)).await;
    let fetch = spans.iter().find(|span| span.kind == CLIENT).unwrap();
    assert_eq!((fetch.trace.as_str(), fetch.name.as_str()), (TRACE, "GET"));
    assert_eq!(sent["traceparent"], format!("00-{TRACE}-{}-01", fetch.id));
    assert!(sent.get("tracestate").is_none() && sent.get("baggage").is_none(), "{sent:?}");
    assert_eq!(fetch.attributes["http.response.status_code"], "200");
    let spans = collector.spans(|spans| !named(spans, "POST /oauth/token").is_empty()).await;
    let policy = spans.iter().find(|span| span.id == fetch.parent).expect("the parent of the fetch");
    assert_eq!((policy.name.as_str(), policy.trace.as_str()), ("policy", TRACE));
}

/// Without an endpoint, the service does not even read the header.
#[tokio::test]
async fn without_a_collector_there_are_no_traces() {
    let db = Database::sqlite();
    let process = Aims::new(&db).with("LOG_FORMAT", "json").serve().await;
    let client = process.client();
    send(&client, Method::GET, "/agents", &format!("00-{TRACE}-{PARENT}-01"), Value::Null).await.expect(401);
    let log = process.stop().await.stderr;
    assert!(log.contains("aims::access") && !log.contains("trace_id") && !log.contains(TRACE), "{log}");
}

/// The settings that the SDK would read by itself are checked like all others, and the credentials are not shown.
#[tokio::test]
async fn settings_are_checked_and_shown_without_secrets() {
    let db = Database::sqlite();
    let aims = traced(&db, "http://127.0.0.1:4318").with("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2");
    let shown = aims.run(&["check-config"]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && !shown.stdout.contains("hunter2"), "{shown:?}");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a:hunter2@otel.example"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
        ("OTEL_TRACES_SAMPLER", "hunter2"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
    ] {
        let exit = aims.with(name, value).run(&[]).await;
        exit.reports_error(&format!("{name} must "));
        assert!(!exit.stderr.contains("hunter2"), "{exit:?}");
    }
}
