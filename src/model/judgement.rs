//! What numbers mean that are found of more than one kind of server: ok, warning or problem, and what to do. Pure.

#[cfg(any(feature = "postgres", feature = "redis"))]
use crate::model::finding::Finding;
#[cfg(any(feature = "postgres", feature = "redis"))]
use crate::model::limits::SEQ_AHEAD_MAX;
#[cfg(any(feature = "postgres", feature = "redis"))]
use crate::model::timestamp::Timestamp;

/// What a clock may be off by: hosts that are set by NTP differ by milliseconds, and people read ages in seconds.
#[cfg(any(feature = "postgres", feature = "redis"))]
const SKEW_MILLIS_MAX: f64 = 2000.0;

/// How long before its end a certificate is told of: they are renewed a month before, and two weeks are left to mend it.
#[cfg(any(feature = "postgres", feature = "redis"))]
const CERTIFICATE_DAYS_MIN: i64 = 14;

/// A span as people read it: `0.21 ms`, `34 ms`, `1.2 s`, `5 min`.
pub(crate) fn millis_text(millis: f64) -> String {
    match millis {
        ..10.0 => format!("{millis:.2} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        ..120_000.0 => {
            let seconds = format!("{:.1}", millis / 1000.0);
            format!("{} s", seconds.strip_suffix(".0").unwrap_or(&seconds))
        }
        ..7_200_000.0 => format!("{:.0} min", millis / 60_000.0),
        ..172_800_000.0 => format!("{:.0} h", millis / 3_600_000.0),
        _ => format!("{:.0} d", millis / 86_400_000.0),
    }
}

/// An amount as people read it: `3.4 GiB`.
#[cfg(any(feature = "redis", feature = "sqlite", test))]
pub(crate) fn bytes_text(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            let digits = usize::from(unit != "bytes" && amount < 10.0);
            return format!("{amount:.digits$} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// A round trip; above `slow_millis` it is told what that means.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn round_trip(name: &'static str, millis: f64, slow_millis: f64, advice: &str) -> Finding {
    let text = format!("a round trip takes {}", millis_text(millis));
    let finding = if millis < slow_millis { Finding::ok(name, text) } else { Finding::warning(name, text, advice) };
    finding.with_millis(millis)
}

/// The clock of a server against ours: by how much it is ahead, and how exactly that is known.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn clock(name: &'static str, ahead_millis: f64, exact_to_millis: f64) -> Finding {
    const ADVICE: &str = "let NTP set both clocks (timedatectl set-ntp true)";
    let off = ahead_millis.abs();
    let side = if ahead_millis < 0.0 { "behind" } else { "ahead of" };
    let text = format!("the server's clock is {} {side} that of this machine", millis_text(off));
    let finding = match off - exact_to_millis {
        ..SKEW_MILLIS_MAX => Finding::ok(name, "the server's clock agrees with that of this machine"),
        beyond if beyond < SEQ_AHEAD_MAX.as_millis() as f64 => {
            Finding::warning(name, format!("{text}: ages and times to live are wrong by that"), ADVICE)
        }
        _ => Finding::problem(
            name,
            format!("{text}: ages are wrong by that, and documents of a time so far ahead are refused"),
            ADVICE,
        ),
    };
    finding.with_millis(ahead_millis)
}

/// Until when the certificate of a server may be used.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn certificate(name: &'static str, until: Timestamp, now: Timestamp) -> Finding {
    let days = (until.as_micros() - now.as_micros()).div_euclid(86_400_000_000);
    let date = until.to_millis_text();
    let date = date.split('T').next().unwrap_or_default();
    match days {
        ..0 => Finding::warning(
            name,
            format!("encrypted, with a certificate that has expired on {date}"),
            "renew the server's certificate: who checks it is refused",
        ),
        0..CERTIFICATE_DAYS_MIN => Finding::warning(
            name,
            format!("encrypted; the certificate expires on {date}, in {days} d"),
            "renew the server's certificate before that: runs will be refused then",
        ),
        _ => Finding::ok(name, format!("encrypted; the certificate is good until {date}, {days} d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_amounts_are_readable() {
        for (millis, text) in [
            (0.2, "0.20 ms"),
            (34.4, "34 ms"),
            (1200.0, "1.2 s"),
            (30_000.0, "30 s"),
            (600_000.0, "10 min"),
            (7_200_000.0, "2 h"),
            (864_000_000.0, "10 d"),
        ] {
            assert_eq!(millis_text(millis), text);
        }
        for (bytes, text) in
            [(0, "0 bytes"), (1536, "1.5 KiB"), (20 << 20, "20 MiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")]
        {
            assert_eq!(bytes_text(bytes), text);
        }
    }

    #[cfg(any(feature = "postgres", feature = "redis"))]
    #[test]
    fn clocks_and_certificates_are_judged() {
        use crate::model::finding::FindingState::{Ok, Problem, Warning};
        for (ahead, exact_to, state, says) in [
            (0.0, 0.0, Ok, "agrees"),
            (-1999.0, 0.0, Ok, "agrees"),
            (2500.0, 1000.0, Ok, "agrees"),
            (3500.0, 1.0, Warning, "3.5 s ahead of"),
            (-90_000.0, 1.0, Warning, "90 s behind"),
            (7_200_000.0, 1.0, Problem, "2 h ahead of"),
            (-7_200_000.0, 1.0, Problem, "2 h behind"),
        ] {
            let found = clock("store_clock", ahead, exact_to);
            assert!(found.state == state && found.message.contains(says), "{ahead}: {found:?}");
            assert_eq!(found.millis, Some(ahead));
        }
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().expect("a time");
        for (until, state, says) in [
            ("2027-06-01T12:00:00Z", Ok, "good until 2027-06-01, 365 d"),
            ("2026-06-15T12:00:00Z", Ok, "14 d"),
            ("2026-06-15T11:59:59Z", Warning, "expires on 2026-06-15, in 13 d"),
            ("2026-06-01T12:00:01Z", Warning, "in 0 d"),
            ("2026-06-01T11:00:00Z", Warning, "has expired on 2026-06-01"),
        ] {
            let found = certificate("store_tls", until.parse().expect("a time"), now);
            assert!(found.state == state && found.message.contains(says), "{until}: {found:?}");
        }
    }
}
