//! How many tokens were issued and how many requests were refused, over a range of time.

use crate::domain::{string_enum::string_enum, timestamp::Timestamp};

/// An hour, in microseconds.
pub const HOUR: i64 = 3_600 * 1_000_000;
/// A day, in microseconds.
pub const DAY: i64 = 24 * HOUR;

string_enum! {
    /// A range of time that ends now.
    Range {
        /// The last 24 hours.
        Day = "24h",
        /// The last 7 days.
        Week = "7d",
        /// The last 30 days.
        Month = "30d",
        /// The last 90 days.
        Quarter = "90d",
    }
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Access tokens issued.
    pub issued: i64,
    /// Requests refused.
    pub refused: i64,
}

impl Activity {
    /// Adds what happened besides.
    pub const fn absorb(&mut self, other: Self) {
        self.issued += other.issued;
        self.refused += other.refused;
    }
}

/// How much happened in a part of a [`Range`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The start.
    pub starts_at: Timestamp,
    /// The end, which is the start of the next bucket.
    pub ends_at: Timestamp,
    /// What happened.
    pub activity: Activity,
}

impl Bucket {
    /// Returns the last instant of the bucket. The end of a period in the audit log is a part of it.
    #[must_use]
    pub const fn last_instant(&self) -> Timestamp {
        Timestamp::from_micros(self.ends_at.as_micros() - 1)
    }
}

impl Range {
    /// Returns the length of a bucket, in hours.
    #[must_use]
    pub const fn step(self) -> i64 {
        match self {
            Self::Day => 1,
            Self::Week => 6,
            Self::Month | Self::Quarter => 24,
        }
    }

    /// Returns the start of the range. Ranges of days begin at midnight UTC and include the current day; the others begin
    /// with a full hour.
    #[must_use]
    pub const fn starts_at(self, now: Timestamp) -> Timestamp {
        let (unit, count) = match self {
            Self::Day => (HOUR, 24),
            Self::Week => (DAY, 7),
            Self::Month => (DAY, 30),
            Self::Quarter => (DAY, 90),
        };
        Timestamp::from_micros((now.as_micros().div_euclid(unit) - count + 1) * unit)
    }

    /// Returns the buckets of the range, oldest first, without activity. The last one contains `now`.
    #[must_use]
    pub fn buckets(self, now: Timestamp) -> Vec<Bucket> {
        let step = self.step() * HOUR;
        let mut buckets = Vec::new();
        let mut start = self.starts_at(now).as_micros();
        while start <= now.as_micros() {
            let (starts_at, ends_at) = (Timestamp::from_micros(start), Timestamp::from_micros(start + step));
            buckets.push(Bucket { starts_at, ends_at, activity: Activity::default() });
            start += step;
        }
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buckets_of_a_range_follow_each_other_and_end_with_the_current_one() {
        let now = Timestamp::parse_rfc3339("2026-11-29T18:05:00Z").unwrap();
        let starts = ["2026-11-28T19:00:00Z", "2026-11-23T00:00:00Z", "2026-10-31T00:00:00Z", "2026-09-01T00:00:00Z"];
        for (range, (start, count)) in Range::ALL.iter().zip(starts.into_iter().zip([24, 28, 30, 90])) {
            let buckets = range.buckets(now);
            assert_eq!(buckets.len(), count, "{range:?}");
            assert_eq!(buckets[0].starts_at, Timestamp::parse_rfc3339(start).unwrap(), "{range:?}");
            assert!(buckets.windows(2).all(|pair| pair[0].ends_at == pair[1].starts_at), "{range:?}");
            let last = buckets[count - 1];
            assert!(last.starts_at <= now && now < last.ends_at, "{range:?}");
        }
    }
}
