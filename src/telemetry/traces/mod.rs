//! Traces: spans of requests and of their stages, sent to an OpenTelemetry collector if one is configured. Without one,
//! every function here only reads a variable.
//!
//! A span has no secret and does not say who the caller is: no query, header, body or address. The line of the request in
//! the access log does, and has the trace ID.

mod collector;
mod parent;

use std::{future::poll_fn, mem, pin::pin, sync::OnceLock, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use opentelemetry::{
    Context, KeyValue, Value,
    trace::{FutureExt, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::redact::redact;
pub use collector::{Collector, Sampling, StartError};

/// How long to wait for the last spans to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// Methods that a span names. Others could be anything.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
    Method::CONNECT,
    Method::TRACE,
];

/// The connection to the collector, if there is one.
static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Starts to record traces and to send them to a collector. To be called once, in the runtime of the service.
///
/// # Errors
/// [`StartError`].
pub fn start(collector: &Collector) -> Result<(), StartError> {
    let provider = collector::connect(collector)?;
    let tracer = provider.tracer("aims");
    TRACES.get_or_init(|| Traces { provider, tracer });
    Ok(())
}

/// Sends the spans that are still waiting, for a few seconds at most, and records no more.
pub async fn finish() {
    if let Some(traces) = TRACES.get() {
        // The wait blocks its thread. Its outcome changes nothing: what was not sent is lost.
        let _ = tokio::task::spawn_blocking(|| traces.provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
    }
}

/// A span in progress, or nothing if the trace is not recorded. It ends when it is dropped.
#[derive(Default)]
pub struct Span(Option<Context>);

impl Span {
    /// Starts the span of a request to this service. `route` is the template of its path.
    #[must_use]
    pub fn of_request(method: &Method, route: Option<&str>, path: &str, headers: &HeaderMap) -> Self {
        let Some(traces) = TRACES.get() else { return Self::default() };
        let mut context = Context::new();
        if let Some(parent) = parent::of(headers) {
            context = context.with_remote_span_context(parent);
        }
        let method = if METHODS.contains(method) { method.as_str() } else { "_OTHER" };
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("url.path", redact(path).into_owned()),
        ];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
        Self::start(traces, &context, name, SpanKind::Server, attributes)
    }

    /// Starts a span for a stage of the current request. Work that no request started has no spans.
    #[must_use]
    pub fn stage(name: &'static str) -> Self {
        let Some(traces) = TRACES.get() else { return Self::default() };
        let current = Context::current();
        if !current.span().span_context().is_sampled() {
            return Self::default();
        }
        Self::internal(traces, &current, name)
    }

    fn internal(traces: &Traces, parent: &Context, name: &'static str) -> Self {
        Self::start(traces, parent, name.to_owned(), SpanKind::Internal, Vec::new())
    }

    /// Starts the span of a request that this service sends to another one.
    #[must_use]
    pub fn of_outgoing(method: &'static str, host: &str) -> Self {
        let Some(traces) = TRACES.get() else { return Self::default() };
        let attributes =
            vec![KeyValue::new("http.request.method", method), KeyValue::new("server.address", host.to_owned())];
        Self::start(traces, &Context::current(), method.to_owned(), SpanKind::Client, attributes)
    }

    fn start(traces: &Traces, parent: &Context, name: String, kind: SpanKind, attributes: Vec<KeyValue>) -> Self {
        let builder = traces.tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        let span = traces.tracer.build_with_context(builder, parent);
        Self(Some(parent.with_span(span)))
    }

    /// Runs work as a part of this span.
    pub async fn run<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|task| {
            let _attached = self.0.clone().map(Context::attach);
            work.as_mut().poll(task)
        })
        .await
    }

    /// Adds an attribute.
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(name, value));
        }
    }

    /// Adds the status of the response. A status of the class 5xx marks the span as failed.
    pub fn responded(&self, status: StatusCode) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
            span.set_status(Status::error(""));
        }
    }

    /// Marks a request to another service as failed without a response.
    pub fn failed(&self) {
        self.set("error.type", "connection");
        self.set_status(Status::error(""));
    }

    fn set_status(&self, status: Status) {
        if let Some(context) = &self.0 {
            context.span().set_status(status);
        }
    }

    /// Returns the ID of the trace.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        self.0.as_ref().map(|context| context.span().span_context().trace_id().to_string())
    }
}

impl Drop for Span {
    /// Other stages may still hold the context.
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// Returns the header with which a request to another service continues the current trace.
#[must_use]
pub fn traceparent() -> Option<(HeaderName, HeaderValue)> {
    TRACES.get()?;
    let header = Context::map_current(|context| parent::header(context.span().span_context()))?;
    Some((parent::TRACEPARENT, header))
}

/// Lets work that moves to a task of its own stay a part of the current trace.
pub fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
    work.with_current_context()
}

/// A change on its way through the writer, as two spans: its wait in the queue, and its commit.
#[derive(Default)]
pub struct Write(Option<Stages>);

struct Stages {
    parent: Context,
    span: Span,
}

impl Write {
    /// Starts the span `queue`.
    #[must_use]
    pub fn queued() -> Self {
        let Some(traces) = TRACES.get() else { return Self::default() };
        let parent = Context::current();
        let is_recorded = parent.span().span_context().is_sampled();
        Self(is_recorded.then(|| Stages { span: Span::internal(traces, &parent, "queue"), parent }))
    }

    /// Ends the wait and starts the span `commit`.
    pub fn begin(&mut self) {
        if let (Some(stages), Some(traces)) = (&mut self.0, TRACES.get()) {
            // The wait ends before the commit starts.
            drop(mem::take(&mut stages.span));
            stages.span = Span::internal(traces, &stages.parent, "commit");
            stages.span.set_status(Status::error(""));
        }
    }

    /// Ends the commit as successful. Otherwise, the span ends as failed.
    pub fn committed(self) {
        if let Some(stages) = &self.0 {
            // This overrides the error.
            stages.span.set_status(Status::Ok);
        }
    }

    /// Returns true if there is a span to end.
    #[must_use]
    pub const fn is_recorded(&self) -> bool {
        self.0.is_some()
    }
}
