//! Every metric with its type, labels and meaning. `docs/metrics.md` is generated from this table.

use super::labels::{
    AgentStatus, Cache, ConnectionState, Grant, Label as _, Lookup, Pool, Refusal, SignIn, StatusClass, Within,
};

/// The label values for a request that no route answers.
pub const UNMATCHED: (&str, &str) = ("other", "unmatched");

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name, which ends with the unit and, for counters, with `_total`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [Label],
    /// What it measures, as a sentence.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A number that only grows while the process runs.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Counts of values up to each of these bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Returns the name of the type in the Prometheus text format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A label of a metric.
#[derive(Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// The values of a label.
#[derive(Debug)]
pub enum Values {
    /// These.
    Fixed(&'static [&'static str]),
    /// The methods of the route table, and the first part of [`UNMATCHED`].
    Methods,
    /// The paths of the route table, and the second part of [`UNMATCHED`].
    Routes,
    /// The version of this program.
    Version,
}

/// Metrics about one subject.
#[derive(Debug)]
pub struct Section {
    /// The subject.
    pub title: &'static str,
    /// The metrics, in the order of the reference.
    pub metrics: &'static [Metric],
}

macro_rules! metrics {
    ($($title:literal { $($constant:ident: $kind:expr, $name:literal, [$($label:literal: $values:expr),*], $help:literal;)+ })+) => {
        $($(pub(super) const $constant: Metric =
            Metric { name: $name, kind: $kind, labels: &[$(Label { name: $label, values: $values }),*], help: $help };)+)+

        /// Every metric.
        pub const SECTIONS: &[Section] = &[$(Section { title: $title, metrics: &[$($constant),+] }),+];
    };
}

use Kind::{Counter, Gauge, Histogram};
use Values::{Fixed, Methods, Routes, Version};

/// Bounds for the duration of a request. There is a histogram for each route, so there are few of them.
const RESPONSES: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];
/// Bounds for the duration of a commit.
const COMMITS: &[f64] = &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0];
/// Bounds for the size of a batch.
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

metrics! {
    "Requests" {
        HTTP_REQUESTS: Counter, "aims_http_requests_total",
            ["method": Methods, "route": Routes, "status": Fixed(StatusClass::TEXTS)],
            "Responses by method, route and class of the status. HEAD counts as GET, and both mounts of the API count as one. A request for an unknown path, or with a method that its path does not have, is `other` and `unmatched`.";
        HTTP_DURATION: Histogram(RESPONSES), "aims_http_request_duration_seconds", ["route": Routes],
            "Time from the head of a request until its response starts, by route.";
        HTTP_IN_PROGRESS: Gauge, "aims_http_requests_in_progress", [],
            "Requests that are being received or answered.";
        HTTP_ABORTED: Counter, "aims_http_requests_aborted_total", [],
            "Requests whose client disconnected before the response started.";
        HTTP_CONNECTIONS: Gauge, "aims_http_connections_open", [],
            "Open client connections.";
        HTTP_CONNECTIONS_MAX: Gauge, "aims_http_connections_max", [],
            "Open client connections that are allowed at a time. Others wait.";
    }
    "Tokens and refusals" {
        TOKENS_ISSUED: Counter, "aims_tokens_issued_total", ["grant": Fixed(Grant::TEXTS)],
            "Access tokens issued, by grant. `api_key` is `POST /auth/token`.";
        REFUSALS: Counter, "aims_refusals_total", ["reason": Fixed(Refusal::TEXTS)],
            "Requests refused, by reason. Includes those that the audit log only summarises.";
        SIGN_INS: Counter, "aims_sign_ins_total", ["outcome": Fixed(SignIn::TEXTS)],
            "Attempts to sign in to the console or to confirm an identity, by outcome. `throttled` attempts were not checked, because too many had failed before.";
    }
    "Writer and audit log" {
        WRITER_BATCH: Histogram(SIZES), "aims_writer_batch_size", [],
            "Changes and audit records that were committed together.";
        WRITER_COMMIT: Histogram(COMMITS), "aims_writer_commit_duration_seconds", [],
            "Time that the database took for a batch, from its first statement to its durable commit.";
        WRITER_FAILED: Counter, "aims_writer_failed_batches_total", [],
            "Batches that the database did not commit. Their requests got 503.";
        WRITER_REJECTED: Counter, "aims_writer_rejected_total", [],
            "Changes and audit records that were rejected because the queue of the writer was full, or the writer had stopped.";
        WRITER_QUEUE: Gauge, "aims_writer_queue_length", [],
            "Changes and audit records that wait for the writer.";
        WRITER_QUEUE_MAX: Gauge, "aims_writer_queue_capacity", [],
            "Changes and audit records that may wait for the writer.";
        AUDIT_RECORDS: Counter, "aims_audit_records_total", [],
            "Audit records that this process committed.";
        AUDIT_HEAD: Gauge, "aims_audit_chain_head", [],
            "Sequence number of the last record of the audit log. All nodes of a database show the same one.";
    }
    "Caches and database" {
        CACHE_REQUESTS: Counter, "aims_cache_requests_total",
            ["cache": Fixed(Cache::TEXTS), "result": Fixed(Lookup::TEXTS)],
            "Look-ups in the caches, by result. A miss reads the database, or verifies a signature.";
        DATABASE_UP: Gauge, "aims_database_up", [],
            "1 if the database answered a query of this scrape within 2 seconds, otherwise 0. The numbers that come from the database then keep their last values.";
        DATABASE_CONNECTIONS: Gauge, "aims_database_connections",
            ["pool": Fixed(Pool::TEXTS), "state": Fixed(ConnectionState::TEXTS)],
            "Open database connections. SQLite has the pools `read` and `write`, PostgreSQL has `shared`.";
        DATABASE_CONNECTIONS_MAX: Gauge, "aims_database_connections_max", ["pool": Fixed(Pool::TEXTS)],
            "Database connections that a pool may open; 0 for a pool that the database does not have.";
    }
    "Fleet" {
        AGENTS: Gauge, "aims_agents", ["status": Fixed(AgentStatus::TEXTS)],
            "Agents by status. Read from the database at most every 10 seconds.";
        KEYS_EXPIRING: Gauge, "aims_api_keys_expiring", ["within": Fixed(Within::TEXTS)],
            "Active API keys that expire within 7 or 30 days. Counted up to 100,000, at most every 10 seconds.";
    }
    "Backups" {
        BACKUP_MADE: Gauge, "aims_backup_last_success_timestamp_seconds", [],
            "When the data of the last backup was read, in seconds since the Unix epoch; 0 if there is none.";
        BACKUP_SUCCEEDED: Gauge, "aims_backup_last_attempt_success", [],
            "0 if a scheduled backup failed and no later one succeeded, otherwise 1.";
        BACKUP_OVERDUE: Gauge, "aims_backup_overdue", [],
            "1 if `BACKUP_SCHEDULE` is set and the last backup is older than twice its interval, otherwise 0.";
    }
    "Build and process" {
        BUILD_INFO: Gauge, "aims_build_info", ["version": Version],
            "Always 1. The label names the version.";
        PROCESS_CPU: Counter, "process_cpu_seconds_total", [],
            "Processor time that the process has used, user and system, in whole seconds.";
        PROCESS_OPEN_FDS: Gauge, "process_open_fds", [],
            "Open file descriptors.";
        PROCESS_MAX_FDS: Gauge, "process_max_fds", [],
            "File descriptors that may be open; 0 if there is no limit.";
        PROCESS_VIRTUAL: Gauge, "process_virtual_memory_bytes", [],
            "Size of the virtual memory.";
        PROCESS_RESIDENT: Gauge, "process_resident_memory_bytes", [],
            "Size of the resident memory.";
        PROCESS_THREADS: Gauge, "process_threads", [],
            "Threads of the process.";
        PROCESS_START: Gauge, "process_start_time_seconds", [],
            "When the process started, in seconds since the Unix epoch.";
    }
}

/// Every metric, in the order of the reference.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    SECTIONS.iter().flat_map(|section| section.metrics)
}
