//! Spans of time and amounts of memory, as people write them.

use std::time::Duration;

/// The longest span that is taken: a hundred years. Longer ones are typing errors, and no date could be reached.
const DURATION_SECONDS_MAX: u64 = 100 * 366 * 24 * 60 * 60;

/// Reads a span of time: `500ms`, `10s`, `15m`, `2h`, `90d`.
///
/// # Errors
/// The text is no such span; the message says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused =
        || format!("expected a duration such as \"500ms\", \"10s\", \"15m\", \"2h\" or \"90d\", got {text:?}");
    let (number, unit) = split_unit(text).ok_or_else(refused)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return Err(refused()),
    };
    let millis = number.checked_mul(millis).filter(|millis| millis / 1000 <= DURATION_SECONDS_MAX);
    millis.map(Duration::from_millis).ok_or_else(|| format!("the duration {text:?} is longer than a hundred years"))
}

/// Reads an amount of memory: `512MiB`, `1GiB`, `64KiB`, `100MB`, or bytes without a unit.
///
/// # Errors
/// The text is no such amount; the message says what was expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let refused = || format!("expected an amount of memory such as \"512MiB\" or \"1GiB\", got {text:?}");
    let (number, unit) = split_unit(text).ok_or_else(refused)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        _ => return Err(refused()),
    };
    number.checked_mul(factor).ok_or_else(refused)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let at = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_amounts_are_read() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(parse_bytes("512MiB"), Ok(512 << 20));
        assert_eq!(parse_bytes("7"), Ok(7));
        for text in ["", "s", "10", "10 parsecs", "-1s", "1.5h", "99999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "MiB", "512Mb/s", "99999999999GiB", "-1"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
