//! The access log: one line for each request, when its response starts.

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};

use http::{Method, StatusCode, Uri};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use tracing::Level;

use crate::{domain::RequestId, service::Identity};

/// The target of the lines, for directives in `LOG_LEVEL`.
const TARGET: &str = "aims::access";
/// Maximum length of a path in the log. Some readers split long lines, and a part of a path must not look like a line.
const PATH_MAX: usize = 512;
/// Maximum length of a method in the log.
const METHOD_MAX: usize = 16;

/// The line of a request in progress. If it is dropped without a response, because the client went away or the service
/// stops, the line says so.
pub(in crate::web) struct AccessLine(Option<Box<Line>>);

/// What the line says about the request.
pub(in crate::web) struct Line {
    /// The method.
    pub(in crate::web) method: Method,
    /// The template of the route.
    pub(in crate::web) route: Option<Arc<str>>,
    /// The target of the request, whose path is logged.
    pub(in crate::web) uri: Uri,
    /// The request's ID.
    pub(in crate::web) id: RequestId,
    /// The client's address.
    pub(in crate::web) client: Option<IpAddr>,
    /// Who sent the request, once that is known.
    pub(in crate::web) identity: Identity,
    /// The ID of the trace, if there is one.
    pub(in crate::web) trace_id: Option<String>,
    /// Whether this is a probe, which is logged at debug level: probes are many and say little.
    pub(in crate::web) is_probe: bool,
    /// When the head of the request arrived.
    pub(in crate::web) started: std::time::Instant,
}

macro_rules! write_line {
    ($level:expr, $line:expr, $($outcome:tt)+) => {
        tracing::event!(
            target: TARGET,
            $level,
            method = shown_method(&$line.method),
            route = $line.route.as_deref(),
            path = &*shown_path(&$line.uri),
            duration_ms = milliseconds($line.started.elapsed()),
            request_id = $line.id.as_str(),
            actor = $line.identity.actor().as_deref(),
            on_behalf_of = $line.identity.on_behalf_of().as_deref(),
            client = $line.client.map(|ip| ip.to_string()).as_deref(),
            trace_id = $line.trace_id.as_deref(),
            $($outcome)+
        )
    };
}

impl AccessLine {
    /// Starts the line of a request, unless such lines are not logged.
    pub(in crate::web) fn of(line: impl FnOnce() -> Line) -> Self {
        let is_logged = tracing::enabled!(target: TARGET, Level::INFO);
        Self(is_logged.then(|| Box::new(line())))
    }

    /// Writes the line of a request that gets a response.
    pub(in crate::web) fn responded(mut self, status: StatusCode) {
        let Some(line) = self.0.take() else { return };
        if line.is_probe {
            write_line!(Level::DEBUG, line, status = status.as_u16(), "responded");
        } else {
            write_line!(Level::INFO, line, status = status.as_u16(), "responded");
        }
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let Some(line) = self.0.take() else { return };
        if line.is_probe {
            write_line!(Level::DEBUG, line, aborted = true, "the connection ended before the response");
        } else {
            write_line!(Level::INFO, line, aborted = true, "the connection ended before the response");
        }
    }
}

/// Writes the line of a request that is not HTTP, or whose head is too large. `peer` may be a proxy.
pub(in crate::web) fn malformed(peer: IpAddr, status: StatusCode) {
    tracing::info!(target: TARGET, status = status.as_u16(), client = %peer, "refused a malformed request");
}

/// Returns the method of a request for the log: a token (RFC 9110 §5.6.2), but not too long.
pub(in crate::web) fn shown_method(method: &Method) -> &str {
    let method = method.as_str();
    method.get(..METHOD_MAX).unwrap_or(method)
}

/// Returns the path of a request for the log: in printable ASCII and not too long. Never the query, which may contain
/// secrets.
pub(in crate::web) fn shown_path(uri: &Uri) -> Cow<'_, str> {
    shown(uri.path())
}

fn shown(path: &str) -> Cow<'_, str> {
    let path: Cow<'_, str> = utf8_percent_encode(path, CONTROLS).into();
    let Some(kept) = path.get(..PATH_MAX).filter(|kept| kept.len() < path.len()) else { return path };
    // A credential that is cut in two would no longer be recognized, and redacted, as one.
    let kept = kept.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "-._~%+=".contains(c));
    format!("{kept}...").into()
}

/// Rounded to microseconds.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_in_printable_ascii() {
        assert_eq!(shown("/agents/7"), "/agents/7");
        assert_eq!(shown("/a\u{7f}b\u{85}\u{202e}\u{2028}é"), "/a%7Fb%C2%85%E2%80%AE%E2%80%A8%C3%A9");
        assert_eq!(shown("/a\n\u{1b}[31m"), "/a%0A%1B[31m");
    }

    #[test]
    fn a_long_path_is_cut_where_no_credential_is() {
        let whole = format!("/{}", "a".repeat(PATH_MAX - 1));
        assert_eq!(shown(&whole), whole);
        assert_eq!(shown(&format!("{whole}b")), "/...");
        let long = format!("/agents/{}/{}", "a".repeat(490), "0f".repeat(32));
        assert_eq!(shown(&long), format!("/agents/{}/...", "a".repeat(490)));
        assert!(shown(&"/é".repeat(20_000)).len() <= PATH_MAX + 3);
    }

    #[test]
    fn durations_are_rounded_to_microseconds() {
        assert!((milliseconds(Duration::from_nanos(1_234_567)) - 1.235).abs() < 1e-9);
    }
}
