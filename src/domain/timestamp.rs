//! Points in time: microseconds since the Unix epoch inside, RFC 3339 in UTC outside.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};
use time::{
    Date, OffsetDateTime, PrimitiveDateTime, UtcOffset,
    format_description::well_known::{Iso8601, Rfc3339},
};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A point in time from microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
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

    /// Parses ISO 8601 as filters and imports use it: RFC 3339, or a date or date-time without offset, taken as UTC.
    #[must_use]
    pub fn parse_lenient(text: &str) -> Option<Self> {
        Self::parse_rfc3339(text).or_else(|| {
            let iso = text.replacen(' ', "T", 1);
            let datetime = OffsetDateTime::parse(&iso, &Iso8601::PARSING)
                .or_else(|_| PrimitiveDateTime::parse(&iso, &Iso8601::PARSING).map(PrimitiveDateTime::assume_utc))
                .or_else(|_| Date::parse(&iso, &Iso8601::PARSING).map(|date| date.midnight().assume_utc()));
            datetime.ok().and_then(Self::from_datetime)
        })
    }

    /// `None` outside of the years 0 to 9999 in UTC, which RFC 3339 cannot write: an offset can lead there.
    fn from_datetime(datetime: OffsetDateTime) -> Option<Self> {
        let datetime = datetime.checked_to_offset(UtcOffset::UTC).filter(|datetime| datetime.year() >= 0)?;
        i64::try_from(datetime.unix_timestamp_nanos().div_euclid(1_000)).ok().map(Self)
    }

    /// This point in time moved forward, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This point in time moved back, saturating.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let datetime = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000).map_err(|_| fmt::Error)?;
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
        for text in ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00"] {
            assert_eq!(Timestamp::parse_lenient(text), None, "{text} lies beyond the years that can be written");
        }
        for text in ["", "tomorrow", "2026-13-01", "2026-02-30T00:00:00Z", "99999-01-01T00:00:00Z"] {
            assert_eq!(Timestamp::parse_lenient(text), None, "{text}");
        }
    }
}
