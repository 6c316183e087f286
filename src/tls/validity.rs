//! Until when a certificate may be used, read out of its DER (RFC 5280, 4.1): nothing else of it is looked at.

use crate::model::timestamp::Timestamp;

/// Tags of DER.
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The end of its validity; none if it is no certificate that is understood.
pub(super) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = inside(certificate, SEQUENCE)?;
    let (signed, _) = inside(certificate, SEQUENCE)?;
    let signed = inside(signed, VERSION).map_or(signed, |(_, rest)| rest);
    let (_, rest) = inside(signed, INTEGER)?;
    // The algorithm, and who has signed it.
    let (_, rest) = inside(rest, SEQUENCE)?;
    let (_, rest) = inside(rest, SEQUENCE)?;
    let (validity, _) = inside(rest, SEQUENCE)?;
    let (_, _, until) = element(validity)?;
    let (tag, time, _) = element(until)?;
    timestamp(tag, time)
}

/// What an element of that tag holds, and what follows it.
fn inside(bytes: &[u8], expected: u8) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(tag, ..)| *tag == expected).map(|(_, content, rest)| (content, rest))
}

/// The first element: its tag, what it holds, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // So many bytes hold the length; a certificate is shorter than 16 MiB.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// `YYMMDDhhmmssZ`, or the same with four digits of the year.
fn timestamp(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let century = if year < "50" { "20" } else { "19" };
            (format!("{century}{year}"), rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.to_owned(), rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2);
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        for (year, text) in [(2031, "2031-05-06T00:00:00"), (2049, "2049-05-06"), (2075, "2075-05-06")] {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 5, 6);
            let key = rcgen::KeyPair::generate().expect("a key");
            let certificate = params.self_signed(&key).expect("a certificate");
            let until = not_after(certificate.der()).expect("an end");
            assert!(until.to_string().starts_with(text), "{until}");
            for end in 0..certificate.der().len() {
                // Whatever breaks off is no certificate, or has its end before that.
                let found = not_after(&certificate.der()[..end]);
                assert!(found.is_none(), "{found:?}");
            }
        }
        for other in [&b""[..], b"0", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\x02", b"nothing"] {
            assert_eq!(not_after(other), None);
        }
    }
}
