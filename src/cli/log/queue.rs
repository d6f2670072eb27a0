//! Log lines on their way to standard error. One thread redacts and writes them, so that nobody waits who logs: if the
//! reader of a pipe stalls, lines are dropped and counted, and the service goes on.

use std::{
    io::{self, Write},
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::telemetry::redact::redact;

/// How much text may wait, in bytes: more than a busy service logs in a second.
const CAPACITY: usize = 4 * 1_024 * 1_024;
/// How long lines are gathered after the first one. Otherwise the thread would wake for nearly every line.
const GATHER: Duration = Duration::from_millis(5);

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: Lines,
    /// How many lines were dropped since the last lines were taken.
    dropped: u64,
    thread: Thread,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Thread {
    /// Not started, so that nobody takes the lines.
    Missing,
    Idle,
    Writing,
}

/// Lines, each with the position of its end. A secret may not be split across two of them.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Queue {
    pub(super) const fn new() -> Self {
        let waiting = Lines { text: Vec::new(), ends: Vec::new() };
        Self { state: Mutex::new(State { waiting, dropped: 0, thread: Thread::Missing }), changed: Condvar::new() }
    }

    /// Starts the thread. If that fails, lines are written by those who log.
    pub(super) fn start(&'static self) {
        let thread = thread::Builder::new().name("log".to_owned()).spawn(|| self.write_for_ever());
        if thread.is_ok() {
            self.lock().thread = Thread::Idle;
        }
    }

    /// Adds a line or a message of several lines, which ends with a line feed. Returns false if no thread writes them.
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let mut state = self.lock();
        if state.thread == Thread::Missing {
            return false;
        }
        if state.waiting.text.len() + line.len() > CAPACITY {
            state.dropped += 1;
            return true;
        }
        state.waiting.text.extend_from_slice(line);
        let end = state.waiting.text.len();
        state.waiting.ends.push(end);
        let is_first = state.waiting.ends.len() == 1;
        drop(state);
        if is_first {
            self.changed.notify_all();
        }
        true
    }

    /// Waits until all lines are written, but no longer than `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let has_lines = |state: &mut State| match state.thread {
            Thread::Missing => false,
            Thread::Idle => !state.waiting.ends.is_empty(),
            Thread::Writing => true,
        };
        // It makes no difference whether the lines were written or the time is over.
        drop(self.changed.wait_timeout_while(self.lock(), limit, has_lines));
    }

    fn write_for_ever(&self) {
        let mut lines = Lines::default();
        loop {
            let dropped = self.take(&mut lines);
            // A failure cannot be reported: this is where it would be.
            let _ = io::stderr().write_all(&lines.redacted());
            if dropped > 0 {
                tracing::warn!(lines = dropped, "dropped log lines, because nobody read standard error");
            }
            self.lock().thread = Thread::Idle;
            self.changed.notify_all();
        }
    }

    /// Waits for lines and takes them. Returns how many lines after them were dropped.
    fn take(&self, lines: &mut Lines) -> u64 {
        lines.text.clear();
        lines.ends.clear();
        drop(self.changed.wait_while(self.lock(), |state| state.waiting.ends.is_empty()));
        thread::sleep(GATHER);
        let mut state = self.lock();
        mem::swap(&mut state.waiting, lines);
        state.thread = Thread::Writing;
        mem::take(&mut state.dropped)
    }

    /// A thread that panics leaves whole lines behind, so a poisoned lock is as good as any other.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn redacted(&self) -> Vec<u8> {
        let mut redacted = Vec::with_capacity(self.text.len());
        let mut start = 0;
        for &end in &self.ends {
            let line = self.text.get(start..end).unwrap_or_default();
            redacted.extend_from_slice(redact(&String::from_utf8_lossy(line)).as_bytes());
            start = end;
        }
        redacted
    }
}
