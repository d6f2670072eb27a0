//! An OpenTelemetry collector that keeps what it receives.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
};
use prost::Message;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::timeout,
};

/// How long to wait for spans.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A running collector.
pub struct Collector {
    pub url: String,
    received: watch::Receiver<Received>,
    gate: Arc<Semaphore>,
}

/// Everything that was received.
#[derive(Clone, Default)]
pub struct Received {
    pub spans: Vec<Span>,
    /// The headers and the body of each batch.
    pub batches: Vec<(HeaderMap, Bytes)>,
}

/// A span.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty without a parent.
    pub parent: String,
    pub kind: i32,
    pub start: u64,
    pub end: u64,
    /// 1 for success, 2 for an error.
    pub status: i32,
    pub attributes: BTreeMap<String, String>,
    /// The attributes of the service.
    pub resource: BTreeMap<String, String>,
}

type Shared = (Arc<watch::Sender<Received>>, Arc<Semaphore>);

impl Collector {
    pub async fn start() -> Self {
        let collector = Self::start_silent().await;
        collector.respond();
        collector
    }

    /// Starts a collector that receives batches, but does not respond.
    pub async fn start_silent() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, received) = watch::channel(Received::default());
        let gate = Arc::new(Semaphore::new(0));
        let router = Router::new().route("/v1/traces", post(receive)).with_state((Arc::new(sender), gate.clone()));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, received, gate }
    }

    /// Responds from now on.
    pub fn respond(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    pub fn received(&self) -> Received {
        self.received.borrow().clone()
    }

    /// Waits until the spans meet a condition, and returns them.
    pub async fn spans(&self, condition: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let mut received = self.received.clone();
        let met = timeout(TIMEOUT, received.wait_for(|received| condition(&received.spans))).await;
        let met = met.ok().and_then(Result::ok).map(|received| received.spans.clone());
        met.unwrap_or_else(|| panic!("the spans do not meet the condition: {:#?}", received.borrow().spans))
    }
}

async fn receive(State((received, gate)): State<Shared>, headers: HeaderMap, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body.clone()).expect("a request that can be decoded");
    let mut spans = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = texts(&resource_spans.resource.expect("a resource").attributes);
        for span in resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                kind: span.kind,
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                status: span.status.map_or(0, |status| status.code),
                attributes: texts(&span.attributes),
                resource: resource.clone(),
            });
        }
    }
    received.send_modify(|received| {
        received.spans.extend(spans);
        received.batches.push((headers, body));
    });
    drop(gate.acquire().await);
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.clone()) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
