//! A clock that moves only when told to.

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

/// All clones show the same time.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicI64>, bool);

impl TestClock {
    /// A clock that stands at noon, UTC, of the first day of 2026.
    pub fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_767_268_800_000_000)), false)
    }

    /// The machine's own time, moved by what it is told: a browser has no other clock.
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
        // A microsecond passes at each look, so that what happens later never bears the same time.
        let moved = self.0.fetch_add(1, Ordering::SeqCst);
        let start = if self.1 { SystemClock.now().as_micros() } else { 0 };
        Timestamp::from_micros(start + moved)
    }
}
