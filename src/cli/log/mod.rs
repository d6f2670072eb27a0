//! Standard error: log lines, panics and errors, with anything that looks like a credential redacted. Standard output is for the
//! results of commands.

mod queue;

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Display,
    io::{self, IsTerminal, Write},
    panic, thread,
    time::Duration,
};

use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::{
    config::{Config, LogFormat},
    telemetry::redact::redact,
};
use queue::Queue;

/// How long to wait at the end for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static QUEUE: Queue = Queue::new();

pub(super) fn start(config: &Config) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.log_level)?;
    QUEUE.start();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Output)
        .with_ansi(io::stderr().is_terminal())
        // It reports failed writes to the same standard error, and panics if that fails too.
        .log_internal_errors(false);
    match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init(),
    }
}

/// Writes a line to standard error. If that fails, only the exit code reports the error.
pub(super) fn tell(line: impl Display) {
    let _ = Output.write_all(format!("{line}\n").as_bytes());
}

/// Waits for the last lines when it is dropped. A reader that has stalled does not keep the process from exiting.
pub(super) struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        QUEUE.flush(FLUSH_TIMEOUT);
    }
}

/// Redacts panic messages, which may contain a secret value.
pub(super) fn redact_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let (thread, message) = (thread.name().unwrap_or("<unnamed>"), message(panic.payload()));
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tell(format_args!("thread '{thread}' panicked at {place}:\n{message}"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tell(backtrace);
        }
    }));
}

fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(not a text)")
}

/// Standard error, redacted. A secret must not be split across two writes: the log writes each line, and [`tell`] each message, in
/// a single write.
struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !QUEUE.push(bytes) {
            io::stderr().write_all(redact(&String::from_utf8_lossy(bytes)).as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_panic_says_is_found() {
        assert_eq!(super::message(&"text"), "text");
        assert_eq!(super::message(&"owned".to_owned()), "owned");
        assert_eq!(super::message(&7), "(not a text)");
    }
}
