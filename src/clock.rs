//! What time it is: the system's clock, or in tests one that is moved by hand.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment: milliseconds since 1970 (UTC). In JSON it is text as RFC 3339 writes it, with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// 0000-01-01T00:00:00.000Z.
const FIRST: i64 = -62_167_219_200_000;

/// 9999-12-31T23:59:59.999Z: RFC 3339 writes four digits of the year.
const LAST: i64 = 253_402_300_799_999;

impl Timestamp {
    /// From milliseconds since 1970.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// So much later, but never after the year 9999.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)).min(LAST))
    }

    /// So much earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads RFC 3339.
    ///
    /// # Errors
    /// In words, when it is not.
    pub fn parse(text: &str) -> Result<Self, String> {
        let moment = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| "must be a time as RFC 3339 writes it, such as 2030-01-31T12:00:00Z".to_owned())?;
        let millis = i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000));
        let millis = millis.ok().filter(|millis| (FIRST..=LAST).contains(millis));
        millis.map(Self).ok_or_else(|| "must be in the years 0000 to 9999 of UTC".to_owned())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (date, time) = (moment.date(), moment.time());
        let (hour, minute, second, milli) = time.as_hms_milli();
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Tells the time. Clones of a clock that is moved by hand are the same clock.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's.
    #[default]
    System,
    /// Stands still until it is moved.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `start`.
    pub fn manual(start: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(start.0)))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Self::Manual(now) => Timestamp(now.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock on; the system's goes by itself.
    pub fn advance(&self, duration: Duration) {
        if let Self::Manual(now) = self {
            now.store(self.now().after(duration).0, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_the_same() {
        let moment = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!(moment.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(Timestamp::parse("2023-11-14T22:13:20.123Z"), Ok(moment));
        assert_eq!(Timestamp::parse("2023-11-14T23:13:20.123+01:00"), Ok(moment));
        assert!(Timestamp::parse("yesterday").is_err());
        assert!(Timestamp::parse("2023-11-14").is_err());
    }

    #[test]
    fn there_is_no_time_before_the_year_0_or_after_9999() {
        for (text, is_there) in [
            ("9999-12-31T23:59:59.999Z", true),
            ("9999-12-31T23:59:59.9999Z", true),
            ("0000-01-01T00:00:00Z", true),
            ("9999-12-31T23:59:59-23:59", false),
            ("9999-12-31T23:59:59.999-00:01", false),
            ("0000-01-01T00:00:00+00:01", false),
        ] {
            let read = Timestamp::parse(text);
            assert_eq!(read.is_ok(), is_there, "{text}: {read:?}");
            if let Ok(moment) = read {
                assert_eq!(moment.to_string().get(..19), text.get(..19));
            }
        }
        let last = Timestamp::parse("9999-12-31T23:59:59.999Z").expect("it is there");
        assert_eq!(last.after(Duration::MAX), last);
        assert_eq!(Timestamp::from_millis(0).after(Duration::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = Clock::manual(Timestamp::from_millis(0));
        let same = clock.clone();
        clock.advance(Duration::from_secs(2));
        assert_eq!(same.now().millis(), 2000);
        assert_eq!(same.now().since(Timestamp::from_millis(5000)), Duration::ZERO);
    }
}
