//! When something is due that happens every day, or every few hours.

use std::time::Duration;

use super::Timestamp;

const HOUR: i64 = 3_600 * 1_000_000;
const DAY: i64 = 24 * HOUR;
const MINUTE: i64 = 60 * 1_000_000;

/// The most hours between two times.
const HOURS_MAX: i64 = 168;

/// A schedule, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Every day at this minute.
    Daily {
        /// Minutes since midnight.
        minute: i64,
    },
    /// Every few hours, counted from the epoch, so that the times do not depend on when the service started.
    Every {
        /// The number of hours.
        hours: i64,
    },
}

impl Schedule {
    /// Parses `daily 03:00` or `every 6h`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["daily", time] => {
                let (hours, minutes) = time.split_once(':')?;
                let part = |text: &str, below: i64| {
                    let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
                    text.parse::<i64>().ok().filter(|number| is_plain && *number < below)
                };
                Some(Self::Daily { minute: part(hours, 24)? * 60 + part(minutes, 60)? })
            }
            ["every", hours] => {
                let hours: i64 = hours.strip_suffix('h')?.parse().ok()?;
                (1..=HOURS_MAX).contains(&hours).then_some(Self::Every { hours })
            }
            _ => None,
        }
    }

    /// Returns the time between two due times.
    #[must_use]
    pub fn interval(self) -> Duration {
        Duration::from_micros(self.period().unsigned_abs())
    }

    const fn period(self) -> i64 {
        match self {
            Self::Daily { .. } => DAY,
            Self::Every { hours } => hours * HOUR,
        }
    }

    /// Returns the last due time that is not after `now`.
    #[must_use]
    pub const fn slot(self, now: Timestamp) -> Timestamp {
        let (period, offset) = match self {
            Self::Daily { minute } => (DAY, minute * MINUTE),
            Self::Every { hours } => (hours * HOUR, 0),
        };
        let since = (now.as_micros() - offset).rem_euclid(period);
        Timestamp::from_micros(now.as_micros() - since)
    }

    /// Returns true if a slot began since the last one that was taken. One in the far future was taken while the clock was
    /// wrong.
    #[must_use]
    pub fn is_due(self, last: Option<Timestamp>, now: Timestamp) -> bool {
        let slot = self.slot(now);
        last.is_none_or(|last| last < slot || last > slot.plus(self.interval()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn schedules_are_parsed() {
        assert_eq!(Schedule::parse("daily 03:00"), Some(Schedule::Daily { minute: 180 }));
        assert_eq!(Schedule::parse(" every  6h "), Some(Schedule::Every { hours: 6 }));
        for wrong in [
            "",
            "daily",
            "daily 3:00",
            "daily 24:00",
            "daily 03:60",
            "daily +3:00",
            "every",
            "every 0h",
            "every 6",
            "every 169h",
            "every -1h",
            "hourly",
            "daily 03:00 UTC",
        ] {
            assert_eq!(Schedule::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn each_slot_is_due_once() {
        let daily = Schedule::parse("daily 03:00").unwrap();
        assert_eq!(daily.slot(at("2026-11-30T02:59:59Z")), at("2026-11-29T03:00:00Z"));
        assert_eq!(daily.slot(at("2026-11-30T03:00:00Z")), at("2026-11-30T03:00:00Z"));
        assert!(daily.is_due(None, at("2026-11-30T02:59:59Z")));
        let taken = Some(at("2026-11-30T03:00:00Z"));
        assert!(!daily.is_due(taken, at("2026-11-30T03:00:00Z")));
        assert!(!daily.is_due(taken, at("2026-12-01T02:59:59Z")));
        assert!(daily.is_due(taken, at("2026-12-01T03:00:00Z")));
        let every = Schedule::parse("every 6h").unwrap();
        assert_eq!(every.slot(at("2026-11-30T11:59:59Z")), at("2026-11-30T06:00:00Z"));
    }

    #[test]
    fn a_wrong_clock_neither_repeats_nor_ends_the_schedule() {
        let every = Schedule::parse("every 6h").unwrap();
        let taken = Some(at("2026-11-30T06:00:00Z"));
        // An hour back, before the slot that was taken.
        assert!(!every.is_due(taken, at("2026-11-30T05:30:00Z")));
        // A slot that was taken in another year.
        assert!(every.is_due(Some(at("2036-01-01T00:00:00Z")), at("2026-11-30T05:30:00Z")));
    }
}
