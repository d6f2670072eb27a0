//! Standard error: log lines, panics and errors, with anything that looks like a credential redacted. Standard output is for the
//! results of commands.

mod redact;

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    borrow::Cow,
    fmt::Display,
    io::{self, IsTerminal, Write},
    panic, thread,
};

use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::config::{Config, LogFormat};
use redact::redact;

pub(super) fn start(config: &Config) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.log_level)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Redacted(io::stderr()))
        .with_ansi(io::stderr().is_terminal())
        // It reports failed writes to the same standard error, and panics if that fails too.
        .log_internal_errors(false);
    match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    }
}

/// Writes a line to standard error. If that fails, only the exit code reports the error.
pub(super) fn tell(line: impl Display) {
    let _ = Redacted(io::stderr()).write_all(format!("{line}\n").as_bytes());
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

/// Redacts everything that is written. A secret must not be split across two writes: the log writes each line, and [`tell`] each
/// message, in a single write.
struct Redacted<W>(W);

impl<W: Write> Write for Redacted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let redacted: Cow<'_, str> = redact(&text);
        self.0.write_all(redacted.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
