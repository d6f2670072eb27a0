//! Points in time: stored as microseconds since the Unix epoch, written as RFC 3339 in UTC.

pub mod schedule;

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};
use time::{
    Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset,
    format_description::well_known::{Iso8601, Rfc3339},
};

/// The earliest time that RFC 3339 can express, at the start of year 0, in microseconds.
const FIRST: i64 = -62_167_219_200_000_000;
/// The latest time that RFC 3339 can express, at the end of year 9999, in microseconds.
const LAST: i64 = 253_402_300_799_999_999;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Creates a point in time from microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Creates a point in time from seconds since the epoch (a `NumericDate`, RFC 7519 §2). Saturates.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Returns microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns seconds since the epoch, rounded down (a `NumericDate`, RFC 7519 §2).
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Parses RFC 3339, which requires an offset. Clients set an expiry in this format.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &Rfc3339).ok().and_then(Self::from_datetime)
    }

    /// Parses a date as HTML date fields send it. Returns the start of that day in UTC.
    #[must_use]
    pub fn parse_day(text: &str) -> Option<Self> {
        Self::parse_rfc3339(&format!("{text}T00:00:00Z"))
    }

    /// Parses RFC 3339, or an ISO 8601 date or date-time without an offset, which is taken as UTC. A date without a
    /// time is the start of that day. Filters and imports use this format.
    #[must_use]
    pub fn parse_lenient(text: &str) -> Option<Self> {
        Self::parse_iso8601(text, Time::MIDNIGHT)
    }

    /// Parses the end of a period. Like [`Timestamp::parse_lenient`], except that a date without a time is the end of
    /// that day, so the period includes the whole day.
    #[must_use]
    pub fn parse_lenient_end(text: &str) -> Option<Self> {
        Self::parse_iso8601(text, Time::MAX)
    }

    fn parse_iso8601(text: &str, time_of_a_date: Time) -> Option<Self> {
        Self::parse_rfc3339(text).or_else(|| {
            let iso = text.replacen(' ', "T", 1);
            let datetime = OffsetDateTime::parse(&iso, &Iso8601::PARSING)
                .or_else(|_| PrimitiveDateTime::parse(&iso, &Iso8601::PARSING).map(PrimitiveDateTime::assume_utc))
                .or_else(|_| {
                    Date::parse(&iso, &Iso8601::PARSING).map(|date| date.with_time(time_of_a_date).assume_utc())
                });
            datetime.ok().and_then(Self::from_datetime)
        })
    }

    /// Returns `None` if the time in UTC is outside the years that RFC 3339 can express.
    fn from_datetime(datetime: OffsetDateTime) -> Option<Self> {
        let utc = datetime.checked_to_offset(UtcOffset::UTC).filter(|utc| (0..=9_999).contains(&utc.year()))?;
        i64::try_from(utc.unix_timestamp_nanos().div_euclid(1_000)).ok().map(Self)
    }

    /// Adds a duration, saturating at the end of year 9999.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)).min(LAST))
    }

    /// Subtracts a duration, saturating at the start of year 0.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)).max(FIRST))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The database may contain any value, and displaying it must not panic.
        let nanos = i128::from(self.0.clamp(FIRST, LAST)) * 1_000;
        let datetime = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| fmt::Error)?;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            datetime.year(),
            u8::from(datetime.month()),
            datetime.day(),
            datetime.hour(),
            datetime.minute(),
            datetime.second(),
            datetime.microsecond()
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_is_parsed_and_written_in_utc() {
        let noon = Timestamp::parse_rfc3339("2026-11-23T13:00:00.25+01:00").unwrap();
        assert_eq!(noon.to_string(), "2026-11-23T12:00:00.250000Z");
        assert_eq!(Timestamp::parse_rfc3339(&noon.to_string()), Some(noon));
    }

    #[test]
    fn rfc_3339_requires_an_offset_and_lenient_parsing_does_not() {
        for text in ["2026-11-23T12:00:00", "2026-11-23", "2026-11-23 12:00:00.123456"] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
            assert!(Timestamp::parse_lenient(text).is_some(), "{text}");
        }
        for text in [
            "",
            "tomorrow",
            "2026-13-01",
            "2026-02-30T00:00:00Z",
            "99999-01-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
            "0000-01-01T00:00:00+01:00",
        ] {
            assert_eq!(Timestamp::parse_lenient(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_without_a_time_is_the_start_or_the_end_of_its_day() {
        for day in ["2026-11-29", "20261129", "2026-333", "2026-W48-7"] {
            let (first, last) = (Timestamp::parse_lenient(day).unwrap(), Timestamp::parse_lenient_end(day).unwrap());
            assert_eq!(first.to_string(), "2026-11-29T00:00:00.000000Z", "{day}");
            assert_eq!(last.to_string(), "2026-11-29T23:59:59.999999Z", "{day}");
        }
        for moment in ["2026-11-29T12:00", "2026-11-29T00:00:00Z", "2026-11-29 00:00:00", "2026-11-29T12:00:00+01:00"] {
            assert_eq!(Timestamp::parse_lenient_end(moment), Timestamp::parse_lenient(moment), "{moment}");
        }
        assert_eq!(Timestamp::parse_lenient_end("2026-02-30"), None);
    }

    #[test]
    fn timestamps_saturate_at_years_0_and_9999() {
        let (first, last) = ("0000-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z");
        let noon = Timestamp::parse_rfc3339("9999-12-31T12:00:00Z").unwrap();
        assert_eq!(noon.plus(Duration::from_hours(12)).to_string(), last);
        assert_eq!(noon.plus(Duration::MAX).to_string(), last);
        assert_eq!(noon.minus(Duration::MAX).to_string(), first);
        assert_eq!(Timestamp::from_secs(i64::MAX).to_string(), last);
        // The database may contain any value.
        for (micros, shown) in [(i64::MAX, last), (i64::MIN, first)] {
            assert_eq!(Timestamp::from_micros(micros).to_string(), shown);
            assert_eq!(serde_json::to_value(Timestamp::from_micros(micros)).unwrap(), shown);
        }
    }
}
