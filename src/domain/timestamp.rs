//! Points in time: microseconds since the Unix epoch inside, RFC 3339 in UTC outside.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};
use time::{
    Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset,
    format_description::well_known::{Iso8601, Rfc3339},
};

/// The first and the last moment that RFC 3339 can write, in microseconds: of the years 0 and 9999.
const FIRST: i64 = -62_167_219_200_000_000;
const LAST: i64 = 253_402_300_799_999_999;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A point in time from microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// A point in time from whole seconds since the epoch, saturating (a `NumericDate` of RFC 7519 §2).
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down (a `NumericDate` of RFC 7519 §2).
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Parses RFC 3339, which demands an offset: what a client may set as an expiry.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &Rfc3339).ok().and_then(Self::from_datetime)
    }

    /// Parses a day, as the date fields of forms send it; gives the first moment of it in UTC.
    #[must_use]
    pub fn parse_day(text: &str) -> Option<Self> {
        Self::parse_rfc3339(&format!("{text}T00:00:00Z"))
    }

    /// Parses ISO 8601 as filters and imports use it: RFC 3339, or a date or date-time without offset, taken as UTC. A date
    /// alone is the first moment of its day.
    #[must_use]
    pub fn parse_lenient(text: &str) -> Option<Self> {
        Self::parse_iso8601(text, Time::MIDNIGHT)
    }

    /// Parses the end of a period like [`Timestamp::parse_lenient`], except that a date alone is the last moment of its day: the
    /// period includes the day.
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

    /// `None` when the moment, moved to UTC, falls out of the years that RFC 3339 can write.
    fn from_datetime(datetime: OffsetDateTime) -> Option<Self> {
        let utc = datetime.checked_to_offset(UtcOffset::UTC).filter(|utc| (0..=9_999).contains(&utc.year()))?;
        i64::try_from(utc.unix_timestamp_nanos().div_euclid(1_000)).ok().map(Self)
    }

    /// This point in time moved forward, as far as the end of the year 9999.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)).min(LAST))
    }

    /// This point in time moved back, as far as the beginning of the year 0.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)).max(FIRST))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is stored may be anything, and whoever shows it must not panic.
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
    fn rfc_3339_goes_in_and_comes_out_in_utc() {
        let noon = Timestamp::parse_rfc3339("2026-11-23T13:00:00.25+01:00").unwrap();
        assert_eq!(noon.to_string(), "2026-11-23T12:00:00.250000Z");
        assert_eq!(Timestamp::parse_rfc3339(&noon.to_string()), Some(noon));
    }

    #[test]
    fn an_expiry_needs_an_offset_and_a_filter_does_not() {
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
    fn a_date_alone_is_the_first_or_the_last_moment_of_its_day() {
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
    fn no_moment_leaves_the_years_that_can_be_written() {
        let (first, last) = ("0000-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z");
        let noon = Timestamp::parse_rfc3339("9999-12-31T12:00:00Z").unwrap();
        assert_eq!(noon.plus(Duration::from_hours(12)).to_string(), last);
        assert_eq!(noon.plus(Duration::MAX).to_string(), last);
        assert_eq!(noon.minus(Duration::MAX).to_string(), first);
        assert_eq!(Timestamp::from_secs(i64::MAX).to_string(), last);
        // What is stored may be anything.
        for (micros, shown) in [(i64::MAX, last), (i64::MIN, first)] {
            assert_eq!(Timestamp::from_micros(micros).to_string(), shown);
            assert_eq!(serde_json::to_value(Timestamp::from_micros(micros)).unwrap(), shown);
        }
    }
}
