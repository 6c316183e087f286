//! A moment in time, to the microsecond: what a `timestamptz` column holds.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use jiff::civil::DateTime;

/// Microseconds since the Unix epoch, in UTC.
///
/// Its text form is RFC 3339 in UTC with no fraction, three digits or six, whichever is the shortest that is exact:
/// `2018-01-31T01:49:59.650Z`. Reading cuts digits after the sixth off, and takes no second of 60: no database keeps one,
/// and as the second before it two texts would be one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// A text that is no RFC 3339 time with an offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a time such as 2018-01-31T01:49:59.650Z, got {text:?}{}", reason_text(*.reason))]
pub struct TimestampError {
    text: String,
    reason: Option<&'static str>,
}

impl TimestampError {
    /// Why it is none, where the text alone does not show it.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        self.reason
    }
}

fn reason_text(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

/// Why a leap second is refused.
const LEAP_SECOND: &str = "a second of 60, which no database keeps: give the second before it, or the next one";

impl Timestamp {
    /// The earliest time: the beginning of the year -4712, which is 4713 BC. Postgres keeps none of earlier years
    /// (<https://www.postgresql.org/docs/current/datatype-datetime.html>).
    pub const MIN: Self = Self(-210_863_520_000_000_000);

    /// The latest time: the end of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// A time from microseconds since the Unix epoch; none outside the years -4712 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&micros).then_some(Self(micros))
    }

    /// Microseconds since the Unix epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// The moment `span` before; the earliest one if there is none.
    #[must_use]
    pub fn saturating_sub(self, span: std::time::Duration) -> Self {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.0.saturating_sub(micros)).unwrap_or(Self::MIN)
    }

    /// The moment `span` later; the latest one if there is none.
    #[must_use]
    pub fn saturating_add(self, span: std::time::Duration) -> Self {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.0.saturating_add(micros)).unwrap_or(Self::MAX)
    }

    /// The machine's clock, to the millisecond.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_millisecond() * 1000)
    }

    /// The text form with always three digits after the second, so that texts order as times do.
    pub fn to_millis_text(self) -> String {
        format!("{:.3}Z", self.to_civil())
    }

    /// Date and time in UTC. jiff's own timestamps end two hours before the year 9999 does, its dates do not.
    fn to_civil(self) -> DateTime {
        EPOCH.saturating_add(SignedDuration::from_micros(self.0))
    }
}

/// The Unix epoch.
const EPOCH: DateTime = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);

/// A time in UTC in the last hours of the year 9999: see [`Timestamp::to_civil`].
fn last_hours(text: &str) -> Option<Timestamp> {
    let time = text.strip_suffix(['Z', 'z']).filter(|time| time.starts_with("9999-12-3") && time.len() > 15)?;
    let time: DateTime = time.parse().ok()?;
    Timestamp::from_micros(i64::try_from(time.duration_since(EPOCH).as_micros()).ok()?)
}

/// Whether a time has a second of 60, which jiff takes for the second before it.
fn has_leap_second(text: &str) -> bool {
    let time = text.split_once(['T', 't', ' ']).map_or("", |(_, time)| time);
    let mut digits = time.bytes().take_while(|byte| matches!(byte, b'0'..=b'9' | b':')).filter(|byte| *byte != b':');
    digits.nth(4) == Some(b'6') && digits.next() == Some(b'0')
}

/// The same with nine digits of the second's fraction at most, which is what jiff takes; none if it has no more.
fn without_finest_digits(text: &str) -> Option<String> {
    const DIGITS: usize = 9;
    let (whole, rest) = text.split_once(['.', ','])?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    (digits > DIGITS).then(|| format!("{whole}.{}{}", &rest[..DIGITS], &rest[digits..]))
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |reason| TimestampError { text: text.chars().take(40).collect(), reason };
        if has_leap_second(text) {
            return Err(refused(Some(LEAP_SECOND)));
        }
        let refused = || refused(None);
        let Ok(time) = text.parse::<jiff::Timestamp>() else {
            return match without_finest_digits(text) {
                Some(text) => text.parse().map_err(|_| refused()),
                None => last_hours(text).ok_or_else(refused),
            };
        };
        let micros = time.as_nanosecond().div_euclid(1000);
        i64::try_from(micros).ok().and_then(Self::from_micros).ok_or_else(refused)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.0 {
            micros if micros % 1_000_000 == 0 => 0,
            micros if micros % 1000 == 0 => 3,
            _ => 6,
        };
        write!(f, "{:.digits$}Z", self.to_civil())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_canonical_and_comes_back() {
        for (given, canonical) in [
            ("2018-01-31T01:49:59.650Z", "2018-01-31T01:49:59.650Z"),
            ("2018-01-31T01:49:59Z", "2018-01-31T01:49:59Z"),
            ("2018-01-31T01:49:59.000Z", "2018-01-31T01:49:59Z"),
            ("2018-01-31T03:49:59+02:00", "2018-01-31T01:49:59Z"),
            ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
            ("2018-01-31T01:49:59.1234567Z", "2018-01-31T01:49:59.123456Z"),
            ("1969-12-31T23:59:59.1234567Z", "1969-12-31T23:59:59.123456Z"),
            ("-004712-01-01T00:00:00Z", "-004712-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
            ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
            ("2018-01-31T01:49:59.123456789012Z", "2018-01-31T01:49:59.123456Z"),
            ("2018-01-31T03:49:59,0000000000009+02:00", "2018-01-31T01:49:59Z"),
            ("9999-12-31T23:59:59.9999999999999Z", "9999-12-31T23:59:59.999999Z"),
        ] {
            let time: Timestamp = given.parse().expect(given);
            assert_eq!(time.to_string(), canonical);
            assert_eq!(canonical.parse::<Timestamp>().expect("canonical"), time);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2018-02-30T00:00:00Z",
            "2018-01-31",
            "2018-01-31T01:49:59",
            "1517363399",
            "-004713-12-31T23:59:59Z",
            "2018-01-31T24:00:00Z",
            "2018-01-31T01:60:00Z",
            "2018-01-31T01:49:59.Z",
            "2018-01-31T01:49:59.1234567890123",
        ] {
            let error = text.parse::<Timestamp>().expect_err(text);
            assert_eq!(error.reason(), None, "{text}");
        }
    }

    #[test]
    fn a_second_of_60_is_no_time() {
        for text in [
            "2016-12-31T23:59:60Z",
            "2016-12-31t23:59:60.5z",
            "2016-12-31 23:59:60,25+00:00",
            "20161231T235960Z",
            "2017-01-01T05:29:60.9999999999+05:30",
            "9999-12-31T23:59:60Z",
            "-000001-12-31T23:59:60Z",
        ] {
            let error = text.parse::<Timestamp>().expect_err(text);
            assert_eq!(error.reason(), Some(LEAP_SECOND), "{text}");
        }
    }
}
