//! Notices a clock that was set. Nothing depends on this for security: each time is compared when it is used. It tells
//! the operator, and drops what was cached under a later time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::interval;

use crate::{
    domain::{Result, Timestamp},
    service::Services,
    store::audit,
};

/// How often the clock is compared with the monotonic one.
const EVERY: Duration = Duration::from_secs(1);
/// A difference that is no jump: a clock that is adjusted slowly, a delayed comparison, or the clock of another node.
const TOLERATED: Duration = Duration::from_secs(10);

/// A change of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jump {
    Forward(Duration),
    Back(Duration),
}

/// Warns if the clock is behind the last audit record.
///
/// # Errors
/// When the database fails.
pub(super) async fn compare_with_log(services: &Services) -> Result<()> {
    let Some(last) = audit::last_at(services.store.read().await?.conn()).await? else { return Ok(()) };
    if let Some(Jump::Back(by)) = jump(last, services.env.now()) {
        tracing::warn!(
            seconds = by.as_secs(),
            "the clock is behind the last audit record. Check the clock and its synchronisation (NTP). If it was ahead \
             before, nothing needs to be done: tokens that were issued then are refused, and clients get new ones"
        );
    }
    Ok(())
}

/// Warns whenever the clock jumps. If it jumps back, forgets what was cached: keys that had expired may be valid again.
pub(super) async fn watch(services: Arc<Services>) {
    let read = || (Instant::now(), services.env.now());
    let mut before = read();
    let mut ticks = interval(EVERY);
    loop {
        ticks.tick().await;
        let now = read();
        let expected = before.1.plus(now.0.duration_since(before.0));
        match jump(expected, now.1) {
            Some(Jump::Forward(by)) => tracing::warn!(
                seconds = by.as_secs(),
                "the clock jumped forward. Check the clock and its synchronisation (NTP): tokens and sessions may have \
                 expired early"
            ),
            Some(Jump::Back(by)) => {
                tracing::warn!(
                    seconds = by.as_secs(),
                    "the clock jumped back. Check the clock and its synchronisation (NTP): tokens that were issued \
                     before the jump are refused until the clock reaches that time again, and clients need new ones"
                );
                services.forget_caches();
            }
            None => {}
        }
        before = now;
    }
}

fn jump(expected: Timestamp, actual: Timestamp) -> Option<Jump> {
    let difference = actual.as_micros().saturating_sub(expected.as_micros());
    let by = Duration::from_micros(difference.unsigned_abs());
    (by >= TOLERATED).then_some(if difference > 0 { Jump::Forward(by) } else { Jump::Back(by) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_no_jumps() {
        let expected = Timestamp::from_secs(1_000_000);
        for (seconds, found) in [
            (0, None),
            (9, None),
            (-9, None),
            (3_600, Some(Jump::Forward(Duration::from_hours(1)))),
            (-3_600, Some(Jump::Back(Duration::from_hours(1)))),
        ] {
            assert_eq!(jump(expected, Timestamp::from_secs(1_000_000 + seconds)), found);
        }
    }
}
