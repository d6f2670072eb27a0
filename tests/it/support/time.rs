//! A clock that tests control.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use aims::{
    clock::{Clock, SystemClock},
    domain::Timestamp,
};

/// Clones share the same time.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicI64>, bool);

impl TestClock {
    /// A clock that starts at 2026-01-01 12:00 UTC.
    pub fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_767_268_800_000_000)), false)
    }

    /// The system clock with an adjustable offset, for tests with a browser, whose clock cannot be set.
    pub fn real() -> Self {
        Self(Arc::new(AtomicI64::new(0)), true)
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub fn set_back(&self, by: Duration) {
        self.0.fetch_sub(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        // Each reading advances the clock by a microsecond, so that no two events have the same time.
        let moved = self.0.fetch_add(1, Ordering::SeqCst);
        let start = if self.1 { SystemClock.now().as_micros() } else { 0 };
        Timestamp::from_micros(start + moved)
    }
}
