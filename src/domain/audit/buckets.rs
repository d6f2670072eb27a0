//! Periods of equal length, for charts.

use crate::domain::Timestamp;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Lengths of a bucket, so that buckets begin at round times.
const WIDTHS: [i64; 18] = [
    SECOND,
    5 * SECOND,
    15 * SECOND,
    MINUTE,
    5 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    30 * DAY,
    90 * DAY,
    365 * DAY,
    10 * 365 * DAY,
];
/// Maximum number of buckets: one for each minute of an hour, and the ends.
const MOST: i64 = 62;

/// A period, divided at round times. The first and the last bucket may be shorter than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    from: i64,
    /// The last microsecond of the period.
    until: i64,
    /// The start of the first bucket if it had the full length.
    first: i64,
    width: i64,
}

impl Buckets {
    /// Divides the period from `from` to `until`, both included. Returns `None` if it is empty.
    #[must_use]
    pub fn of(from: Timestamp, until: Timestamp) -> Option<Self> {
        let (from, until) = (from.as_micros(), until.as_micros());
        if from > until {
            return None;
        }
        let fits = |width: &i64| until.div_euclid(*width) - from.div_euclid(*width) < MOST;
        let width = WIDTHS.into_iter().find(fits).unwrap_or(1_000 * 365 * DAY);
        Some(Self { from, until, first: from.div_euclid(width) * width, width })
    }

    /// Returns the number of buckets.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from((self.until - self.first) / self.width + 1).unwrap_or(1)
    }

    /// Returns the first and the last microsecond of the period.
    #[must_use]
    pub const fn period(&self) -> (Timestamp, Timestamp) {
        (Timestamp::from_micros(self.from), Timestamp::from_micros(self.until))
    }

    /// Returns the first and the last microsecond of a bucket.
    #[must_use]
    pub fn bounds(&self, bucket: usize) -> (Timestamp, Timestamp) {
        let start = self.first + self.width * i64::try_from(bucket).unwrap_or(0);
        let end = (start + self.width - 1).min(self.until);
        (Timestamp::from_micros(start.max(self.from)), Timestamp::from_micros(end))
    }

    /// Returns the bucket of a time; `None` outside the period.
    #[must_use]
    pub fn bucket_of(&self, at: Timestamp) -> Option<usize> {
        let at = at.as_micros();
        if at < self.from || at > self.until {
            return None;
        }
        usize::try_from((at - self.first) / self.width).ok()
    }

    /// Returns the start of the first bucket if it had the full length, and this length, in microseconds.
    #[must_use]
    pub const fn grid(&self) -> (i64, i64) {
        (self.first, self.width)
    }

    /// Returns the full length of a bucket in seconds.
    #[must_use]
    pub const fn seconds(&self) -> i64 {
        self.width / SECOND
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_lenient(text).unwrap()
    }

    #[test]
    fn buckets_begin_at_round_times() {
        let day = Buckets::of(at("2026-01-01T03:10"), at("2026-01-02T03:10")).unwrap();
        assert_eq!((day.count(), day.seconds()), (49, 1_800));
        assert_eq!(day.bounds(0).0, at("2026-01-01T03:10"));
        assert_eq!(day.bounds(1).0, at("2026-01-01T03:30"));
        assert_eq!(day.bounds(48).1, at("2026-01-02T03:10"));
        let hour = Buckets::of(at("2026-01-01T03:10"), at("2026-01-01T04:10")).unwrap();
        assert_eq!((hour.count(), hour.seconds()), (61, 60));
        let month = Buckets::of(at("2026-01-01T03:10"), at("2026-01-31T03:10")).unwrap();
        assert_eq!((month.count(), month.seconds()), (61, 43_200));
        assert_eq!(Buckets::of(at("2026-01-02"), at("2026-01-01")), None);
    }

    proptest! {
        #[test]
        fn buckets_cover_the_period_without_gaps(from in 0_i64..4_000_000_000, length in 0_i64..4_000_000_000) {
            let (from, until) = (Timestamp::from_secs(from), Timestamp::from_secs(from + length));
            let buckets = Buckets::of(from, until).unwrap();
            prop_assert!(buckets.count() <= 62);
            let bounds: Vec<_> = (0..buckets.count()).map(|bucket| buckets.bounds(bucket)).collect();
            prop_assert_eq!((bounds[0].0, bounds[bounds.len() - 1].1), (from, until));
            for (bucket, pair) in bounds.windows(2).enumerate() {
                prop_assert_eq!(pair[0].1.as_micros() + 1, pair[1].0.as_micros());
                prop_assert_eq!(buckets.bucket_of(pair[0].1), Some(bucket));
                prop_assert_eq!(buckets.bucket_of(pair[1].0), Some(bucket + 1));
            }
        }
    }
}
