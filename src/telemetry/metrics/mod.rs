//! The metrics of the service: counters, gauges and histograms in the Prometheus text format.
//!
//! [`table`] describes every metric and [`labels`] the values of their labels. Every series is registered when the
//! service starts and begins at zero, so no request can create one. A handle is an atomic number; without
//! `METRICS_ADDR` the handles do nothing.

pub mod labels;
mod process;
mod recorder;
pub mod table;

use std::{
    fmt, iter,
    time::{Duration, Instant},
};

use http::Method;
use metrics_exporter_prometheus::PrometheusHandle;

pub use metrics::{Counter, Gauge, Histogram};
pub use recorder::{Family, number};

use labels::{AgentStatus, Cache, Grant, Pool, Refusal, SignIn, StatusClass, Within};
use process::Process;
use recorder::Recorder;

/// The metrics of one service.
pub struct Metrics {
    /// Numbers about client connections.
    pub connections: Connections,
    /// Access tokens issued.
    pub tokens_issued: Family<Grant, Counter>,
    /// Requests refused.
    pub refusals: Family<Refusal, Counter>,
    /// Attempts to sign in.
    pub sign_ins: Family<SignIn, Counter>,
    /// Numbers about the database writer.
    pub writer: Writer,
    /// Look-ups that found their value in a cache.
    pub cache_hits: Family<Cache, Counter>,
    /// Look-ups that did not.
    pub cache_misses: Family<Cache, Counter>,
    /// Numbers that are read when the metrics are read.
    pub database: Database,
    requests: Requests,
    process: Process,
    handle: Option<PrometheusHandle>,
}

/// Numbers about client connections.
pub struct Connections {
    /// Those that are open.
    pub open: Gauge,
    /// How many may be open.
    pub max: Gauge,
}

/// Numbers about the database writer.
#[derive(Clone)]
pub struct Writer {
    /// Units of work in a batch.
    pub batch_size: Histogram,
    /// Seconds until a batch is durable.
    pub commit_seconds: Histogram,
    /// Batches that were not committed.
    pub failed: Counter,
    /// Units that did not get into the queue.
    pub rejected: Counter,
    /// Committed audit records.
    pub records: Counter,
}

/// Numbers that are read when the metrics are read.
pub struct Database {
    /// 1 if the database answers.
    pub up: Gauge,
    /// Units that wait for the writer.
    pub queue_length: Gauge,
    /// Units that may wait.
    pub queue_capacity: Gauge,
    /// The last record of the audit log.
    pub chain_head: Gauge,
    /// Connections that wait for use.
    pub idle: Family<Pool, Gauge>,
    /// Connections in use.
    pub in_use: Family<Pool, Gauge>,
    /// Connections that a pool may open.
    pub most: Family<Pool, Gauge>,
    /// Agents.
    pub agents: Family<AgentStatus, Gauge>,
    /// API keys that expire soon.
    pub keys_expiring: Family<Within, Gauge>,
    /// Seconds of the Unix epoch at the last backup.
    pub backup_made: Gauge,
    /// 0 if the last scheduled backup failed.
    pub backup_succeeded: Gauge,
    /// 1 if a scheduled backup is overdue.
    pub backup_overdue: Gauge,
}

/// Numbers about requests.
struct Requests {
    in_progress: Gauge,
    aborted: Counter,
    /// The first one is for requests that no route answers.
    routes: Vec<Route>,
}

struct Route {
    responses: Family<StatusClass, Counter>,
    seconds: Histogram,
}

/// A route by its place in the list that [`Metrics::on`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteNumber(usize);

impl RouteNumber {
    /// No route.
    pub const UNMATCHED: Self = Self(0);

    /// The route at this place.
    #[must_use]
    pub const fn at(place: usize) -> Self {
        Self(place + 1)
    }
}

impl Metrics {
    /// Metrics that count nothing.
    #[must_use]
    pub fn off() -> Self {
        Self::register(&Recorder::off(), &[])
    }

    /// Metrics of a service with these routes.
    #[must_use]
    pub fn on(routes: &[(Method, String)]) -> Self {
        let metrics = Self::register(&Recorder::on(), routes);
        metrics.upkeep();
        metrics
    }

    /// Returns true if the metrics count.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.handle.is_some()
    }

    fn register(recorder: &Recorder, routes: &[(Method, String)]) -> Self {
        recorder.gauge(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION")]).set(1.0);
        Self {
            connections: Connections {
                open: recorder.gauge(&table::HTTP_CONNECTIONS, &[]),
                max: recorder.gauge(&table::HTTP_CONNECTIONS_MAX, &[]),
            },
            tokens_issued: Family::of(|grant| recorder.counter(&table::TOKENS_ISSUED, &[grant])),
            refusals: Family::of(|reason| recorder.counter(&table::REFUSALS, &[reason])),
            sign_ins: Family::of(|outcome| recorder.counter(&table::SIGN_INS, &[outcome])),
            writer: Writer {
                batch_size: recorder.histogram(&table::WRITER_BATCH, &[]),
                commit_seconds: recorder.histogram(&table::WRITER_COMMIT, &[]),
                failed: recorder.counter(&table::WRITER_FAILED, &[]),
                rejected: recorder.counter(&table::WRITER_REJECTED, &[]),
                records: recorder.counter(&table::AUDIT_RECORDS, &[]),
            },
            cache_hits: Family::of(|cache| recorder.counter(&table::CACHE_REQUESTS, &[cache, "hit"])),
            cache_misses: Family::of(|cache| recorder.counter(&table::CACHE_REQUESTS, &[cache, "miss"])),
            database: Database {
                up: recorder.gauge(&table::DATABASE_UP, &[]),
                queue_length: recorder.gauge(&table::WRITER_QUEUE, &[]),
                queue_capacity: recorder.gauge(&table::WRITER_QUEUE_MAX, &[]),
                chain_head: recorder.gauge(&table::AUDIT_HEAD, &[]),
                idle: Family::of(|pool| recorder.gauge(&table::DATABASE_CONNECTIONS, &[pool, "idle"])),
                in_use: Family::of(|pool| recorder.gauge(&table::DATABASE_CONNECTIONS, &[pool, "in_use"])),
                most: Family::of(|pool| recorder.gauge(&table::DATABASE_CONNECTIONS_MAX, &[pool])),
                agents: Family::of(|status| recorder.gauge(&table::AGENTS, &[status])),
                keys_expiring: Family::of(|within| recorder.gauge(&table::KEYS_EXPIRING, &[within])),
                backup_made: recorder.gauge(&table::BACKUP_MADE, &[]),
                backup_succeeded: recorder.gauge(&table::BACKUP_SUCCEEDED, &[]),
                backup_overdue: recorder.gauge(&table::BACKUP_OVERDUE, &[]),
            },
            requests: Requests::register(recorder, routes),
            process: Process::register(recorder),
            handle: recorder.handle(),
        }
    }

    /// Counts a request in progress.
    #[must_use]
    pub fn begin(&self, route: RouteNumber) -> InProgress<'_> {
        self.requests.in_progress.increment(1.0);
        InProgress { requests: &self.requests, route, began: Instant::now(), has_response: false }
    }

    /// Returns all metrics in the Prometheus text format. Reads files of the system, so it may block for a moment.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.measure();
        self.handle.as_ref().map(PrometheusHandle::render).unwrap_or_default()
    }

    /// Adds recent observations to the histograms. To be called every few seconds: they are kept one by one until then.
    pub fn upkeep(&self) {
        if let Some(handle) = &self.handle {
            handle.run_upkeep();
        }
    }
}

impl Requests {
    fn register(recorder: &Recorder, routes: &[(Method, String)]) -> Self {
        let known = routes.iter().map(|(method, path)| (method.as_str(), path.as_str()));
        // The methods of one path share a histogram: a key that is registered again gives the same one.
        let register = |(method, path): (&str, &str)| Route {
            responses: Family::of(|status| recorder.counter(&table::HTTP_REQUESTS, &[method, path, status])),
            seconds: recorder.histogram(&table::HTTP_DURATION, &[path]),
        };
        let routes = iter::once(table::UNMATCHED).chain(known).map(register).collect();
        Self {
            in_progress: recorder.gauge(&table::HTTP_IN_PROGRESS, &[]),
            aborted: recorder.counter(&table::HTTP_ABORTED, &[]),
            routes,
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("is_on", &self.is_on()).finish_non_exhaustive()
    }
}

/// A request in progress. If it is dropped before it has a response, the client has disconnected.
pub struct InProgress<'m> {
    requests: &'m Requests,
    route: RouteNumber,
    began: Instant,
    has_response: bool,
}

impl InProgress<'_> {
    /// Counts the response.
    pub fn responded(mut self, status: u16) {
        self.has_response = true;
        if let Some(route) = self.requests.routes.get(self.route.0) {
            route.responses.increment(StatusClass::of(status));
            route.seconds.record(self.began.elapsed().as_secs_f64());
        }
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.requests.in_progress.decrement(1.0);
        if !self.has_response {
            self.requests.aborted.increment(1);
        }
    }
}

impl Writer {
    /// Counts a committed batch.
    pub fn committed(&self, units: usize, records: usize, took: Duration) {
        let count = |units: usize| u64::try_from(units).unwrap_or(u64::MAX);
        self.batch_size.record(number(count(units)));
        self.commit_seconds.record(took.as_secs_f64());
        self.records.increment(count(records));
    }
}
