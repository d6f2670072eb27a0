//! Every setting with its default and meaning.

/// A setting.
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// The value if it is not set.
    pub default: &'static str,
    /// What it controls, in Markdown.
    pub meaning: &'static str,
}

/// Settings that belong together.
pub struct Section {
    /// The heading in the reference.
    pub title: &'static str,
    /// The settings, in the order of the reference.
    pub settings: &'static [Setting],
}

macro_rules! sections {
    ($($title:literal { $($name:literal, $default:literal, $meaning:literal;)+ })+) => {
        /// Every setting. `docs/configuration.md` is generated from this table.
        pub const SECTIONS: &[Section] = &[$(Section {
            title: $title,
            settings: &[$(Setting { name: $name, default: $default, meaning: $meaning }),+],
        }),+];
    };
}

sections! {
    "Network" {
        "LISTEN_ADDR", "127.0.0.1:8000", "Address and port to listen on.";
        "PUBLIC_URL", "http://localhost:8000", "The URL that clients use, without a path. It is the issuer and the audience of access tokens, byte for byte. The default has the port of `LISTEN_ADDR`.";
        "TRUSTED_PROXIES", "", "Addresses and networks of reverse proxies, separated by commas. AIMS reads the client address from the `X-Forwarded-For` header of these proxies only.";
        "CORS_ORIGINS", "", "Origins such as `https://app.example`, separated by commas. Scripts on their pages may call the JSON API and introspection.";
    }
    "Storage and secrets" {
        "DATABASE_URL", "sqlite:///./aims.db", "`sqlite:///./relative.db`, `sqlite:////absolute.db`, `postgres://user:password@host/name` or `postgres:///name?host=/socket/folder`.";
        "MASTER_KEY", "", "The key that encrypts the signing keys and the authenticator secrets in the database: 64 hexadecimal digits.";
        "MASTER_KEY_PREVIOUS", "", "The key before `MASTER_KEY`, while the master key is [changed](operations.md#change-the-master-key).";
        "MASTER_KEY_FILE", "aims.master-key", "The file that holds the master key and, on a second line while the key is changed, the previous one. With SQLite, the default is beside the database, and the first start creates the file. With PostgreSQL, set this, `MASTER_KEY` or `MASTER_KEY_COMMAND`.";
        "MASTER_KEY_COMMAND", "", "A program that prints what `MASTER_KEY_FILE` would hold, for example a script that asks a KMS or an HSM, and its arguments, separated by spaces. It runs without a shell and without the settings of AIMS, and must end within 10 seconds.";
    }
    "Tokens and keys" {
        "JWT_ALGORITHM", "ES256", "The algorithm that signs access tokens: `ES256`, `EdDSA`, `RS256`, or `HS256` with `JWT_SECRET_KEY`.";
        "JWT_SECRET_KEY", "", "A shared secret of at least 32 bytes. Setting it selects `HS256`.";
        "JWT_EXPIRATION_MINUTES", "30", "Lifetime of access tokens, 1 to 1440 minutes.";
        "SIGNING_KEY_ROTATION_DAYS", "30", "How long a signing key signs before it is rotated, 0 to 365 days. 0 turns automatic rotation off.";
        "KEY_ROTATION_GRACE_HOURS", "24", "How long an API key still works after it is rotated, 0 to 720 hours, unless the request says otherwise.";
        "DELEGATION_DEPTH_MAX", "5", "How many agents may act on behalf of one another in a chain, 0 to 16. 0 turns delegation off.";
        "FEDERATION_ALLOW_PRIVATE_ADDRESSES", "false", "`true` allows AIMS to fetch the keys of external issuers from loopback, link-local and private addresses, and over plain HTTP.";
    }
    "Rate limits" {
        "RATE_LIMIT_AUTH_PER_MINUTE", "20", "Token exchanges and sign-ins per minute, for each client address.";
        "RATE_LIMIT_API_PER_MINUTE", "60", "Other requests per minute, for each client address.";
        "AUDIT_REFUSALS_PER_MINUTE", "60", "Refusals with an audit record of their own per minute, for each client address, agent and account. AIMS summarises the rest.";
        "AUDIT_REFUSALS_TOTAL_PER_MINUTE", "1000", "Refusals with an audit record of their own per minute on each node, 100 to 1000000000. Parts are reserved for agents, for people and their accounts, and for networks with few refusals.";
    }
    "Capacity and timeouts" {
        "MAX_CONNECTIONS", "4096", "Open connections, 1 to 65536. Others wait until one closes.";
        "MAX_REQUESTS", "1024", "Requests in progress, 1 to 65536. AIMS rejects others with 503 and `Retry-After`. Requests that still send a large body may take a sixteenth of them.";
        "AGENTS_IN_MEMORY", "16384", "Agents in the cache, 1024 to 16777216, typically 1.3 KiB each. AIMS reads other agents from the database.";
        "HEADER_TIMEOUT_SECONDS", "10", "How long a client may take to send the headers of a request, and a connection may stay idle, 1 to 600 seconds.";
        "REQUEST_TIMEOUT_SECONDS", "30", "How long a client may take to send the body of a request, and then AIMS to start its response, 1 to 600 seconds.";
        "DRAIN_SECONDS", "9", "How long requests in progress may take to finish at shutdown, 0 to 600 seconds.";
    }
    "Monitoring" {
        "METRICS_ADDR", "", "Address and port that serve Prometheus metrics at `/metrics`, such as `127.0.0.1:9464`. Metrics need no authentication, so use a loopback or private address. Without it, nothing is counted.";
    }
    "Backups" {
        "BACKUP_SCHEDULE", "", "When the service backs itself up, in UTC: `daily 03:00`, or `every 6h` with 1 to 168 hours. With several nodes, one of them makes the backup.";
        "BACKUP_DIR", "", "The folder for scheduled backups. It must exist.";
        "BACKUP_KEEP", "7", "How many scheduled backups stay in the folder, 1 to 10000. Others are deleted after the next one succeeds.";
        "BACKUP_ENCRYPT_TO", "", "Recipients of age (`age1…`), separated by commas, that scheduled backups are encrypted to.";
    }
    "Logging" {
        "LOG_LEVEL", "info", "`error`, `warn`, `info`, `debug`, `trace`, or directives such as `aims=debug`. `info,aims::access=off` turns off the access log.";
        "LOG_FORMAT", "text", "`text` or `json`.";
    }
    "Traces" {
        "OTEL_EXPORTER_OTLP_ENDPOINT", "", "The base URL of an OpenTelemetry collector that accepts OTLP over HTTP, such as `http://127.0.0.1:4318`. AIMS adds `/v1/traces`. Without this setting and the next one, there are no traces.";
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "The whole URL to send traces to, instead of the base URL.";
        "OTEL_EXPORTER_OTLP_HEADERS", "", "Headers to send to the collector, such as credentials: `name=value` pairs, separated by commas, with percent-encoded values.";
        "OTEL_SERVICE_NAME", "aims", "The name of this service in traces.";
        "OTEL_TRACES_SAMPLER", "always_on", "Which traces are sent: `always_on`, `always_off`, or `traceidratio` for a share of them. With `parentbased_` before it, callers decide about requests with a `traceparent`; use that only if all callers may.";
        "OTEL_TRACES_SAMPLER_ARG", "1", "The share of traces for `traceidratio`, 0 to 1.";
    }
}

/// Every setting, in the order of the reference.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}
