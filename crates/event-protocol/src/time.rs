//! Points in time: unix milliseconds in memory and at rest, RFC 3339 UTC with milliseconds on the wire.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Why a text is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not an RFC 3339 time such as 2026-11-20T18:10:16.123Z")]
pub struct TimestampError {
    found: String,
}

impl Timestamp {
    /// The latest time that can be written: the end of the year 9999.
    const MAX_MS: i64 = 253_402_207_199_999;

    /// From milliseconds since the epoch, clamped to the years 0 to 9999.
    #[must_use]
    pub fn from_unix_ms(ms: i64) -> Self {
        Self(ms.clamp(-62_135_596_800_000, Self::MAX_MS))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub fn unix_ms(self) -> i64 {
        self.0
    }

    /// This time and a duration later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self::from_unix_ms(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was, zero if it is later than this.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => f.write_str("1970-01-01T00:00:00.000Z"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        text.parse::<jiff::Timestamp>()
            .map(|time| Self::from_unix_ms(time.as_millisecond()))
            .map_err(|_| TimestampError { found: text.chars().take(40).collect() })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl schemars::JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_survive_the_wire() {
        let time = Timestamp::from_unix_ms(1_795_198_984_413);
        assert_eq!(time.to_string(), "2026-11-20T18:23:04.413Z");
        assert_eq!(time.to_string().parse(), Ok(time));
        assert_eq!(Timestamp::from_unix_ms(0).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn times_out_of_range_are_clamped_and_still_written() {
        for ms in [i64::MIN, i64::MAX, -1] {
            let time = Timestamp::from_unix_ms(ms);
            assert_eq!(time.to_string().parse(), Ok(time), "{ms}");
        }
        let end = Timestamp::from_unix_ms(i64::MAX);
        assert_eq!(end.after(Duration::MAX), end);
        assert_eq!(Timestamp::from_unix_ms(1).since(end), Duration::ZERO);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "now", "1795198984413", "2026-11-20", "2026-11-20T18:23:04", "2026-13-01T00:00:00Z"]
        {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
        let offset: Timestamp = "2026-11-20T19:23:04.413+01:00".parse().unwrap();
        assert_eq!(offset.unix_ms(), 1_795_198_984_413, "another offset is the same time");
    }
}
