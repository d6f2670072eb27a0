//! The connection to the collector. The SDK collects finished spans in a bounded queue and sends them in batches, on a
//! thread of its own; spans that find the queue full are dropped.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, Request, Response};
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError, ResponseBodyTooLarge};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use reqwest::{Client, redirect::Policy};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;

/// Maximum time to send one batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response, in bytes.
const RESPONSE_MAX: usize = 64 * 1_024;

/// Where traces are sent, and which.
#[derive(Clone, Debug)]
pub struct Collector {
    /// The URL that batches are posted to.
    pub endpoint: String,
    /// Headers of each batch, such as credentials.
    pub headers: Vec<(HeaderName, SecretString)>,
    /// The name of this service in traces.
    pub service_name: String,
    /// Which traces are sent.
    pub sampling: Sampling,
}

/// Which traces are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The share of traces, from 0 to 1.
    pub ratio: f64,
    /// Whether the caller decides instead, if the request has a `traceparent`.
    pub follows_caller: bool,
}

impl Sampling {
    fn sampler(self) -> Box<dyn opentelemetry_sdk::trace::ShouldSample> {
        let own = Sampler::TraceIdRatioBased(self.ratio);
        // Spans of one request are sent all or not at all.
        let sampler = Sampler::parent_based(own.clone());
        if self.follows_caller {
            sampler.into()
        } else {
            sampler.with_remote_parent_sampled(own.clone()).with_remote_parent_not_sampled(own).into()
        }
    }
}

/// Why traces cannot be sent. The message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP client cannot be created.
    #[error("cannot send traces")]
    Client(#[from] reqwest::Error),
    /// A variable that the SDK reads from the environment is not valid.
    #[error("cannot send traces: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Connects the SDK to the collector. Must be called in the runtime that is to send the batches.
pub(super) fn connect(collector: &Collector) -> Result<SdkTracerProvider, StartError> {
    let headers = collector.headers.iter();
    let headers: HashMap<_, _> =
        headers.map(|(name, value)| (name.as_str().to_owned(), value.expose_secret().to_owned())).collect();
    // Neither a redirect nor a proxy of the environment may lead the spans elsewhere.
    let client = Client::builder().redirect(Policy::none()).no_proxy().timeout(TIMEOUT).build()?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Transport { client, runtime: Handle::current(), has_failed: AtomicBool::new(false) })
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&collector.endpoint)
        .with_timeout(TIMEOUT)
        .with_headers(headers)
        .build()?;
    let resource = Resource::builder()
        .with_service_name(collector.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(collector.sampling.sampler())
        .with_batch_exporter(exporter);
    Ok(provider.build())
}

/// Sends batches with the HTTP client of the service, and logs when that begins to fail and when it works again.
#[derive(Debug)]
struct Transport {
    client: Client,
    runtime: Handle,
    has_failed: AtomicBool,
}

#[async_trait]
impl HttpClient for Transport {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // The SDK's thread has no runtime, which the client needs.
        let sending = self.runtime.spawn(send(self.client.clone(), request));
        let outcome = sending.await.map_err(HttpError::from).flatten();
        match &outcome {
            Ok(response) if response.status().is_success() => {
                if self.has_failed.swap(false, Ordering::Relaxed) {
                    tracing::info!("sending traces again");
                }
            }
            Ok(response) => self.failed(&format!("the collector responded with the status {}", response.status())),
            Err(error) => self.failed(&with_causes(error.as_ref())),
        }
        outcome
    }
}

impl Transport {
    fn failed(&self, error: &str) {
        if !self.has_failed.swap(true, Ordering::Relaxed) {
            tracing::warn!(error, "cannot send traces; spans are dropped until the collector accepts them");
        }
    }
}

async fn send(client: Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut response = client.execute(request.try_into()?).await.map_err(reqwest::Error::without_url)?;
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > RESPONSE_MAX {
            return Err(ResponseBodyTooLarge::new().into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut received = Response::new(body.freeze());
    (*received.status_mut(), *received.headers_mut()) = (status, headers);
    Ok(received)
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
