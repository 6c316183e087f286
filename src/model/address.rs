//! Addresses of servers and files as people give them: what is lost at their ends, what they may not hold, and what of
//! one may be shown.

use crate::model::text::is_unprintable;

/// An address without the blanks, line ends and invisible characters at its ends: copies, `.env` files with Windows line
/// ends and files of secrets leave them there.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_whitespace() || (is_hidden(character) && !character.is_control()))
}

/// The address as it is meant.
///
/// # Errors
/// It holds a character that nobody sees; the message names it, and shows the address without user and password.
pub(crate) fn cleaned(text: &str) -> Result<&str, String> {
    let text = trimmed(text);
    let Some(hidden) = text.chars().find(|character| is_hidden(*character)) else { return Ok(text) };
    Err(format!("the address {} holds {}; write it without", shown(text), named(hidden)))
}

/// Whether nobody sees it, or takes it for an ordinary blank.
fn is_hidden(character: char) -> bool {
    is_unprintable(character)
        || matches!(
            character,
            '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{1680}' | '\u{2000}'
                ..='\u{200d}' | '\u{202f}' | '\u{205f}' | '\u{3164}'
        )
}

fn named(hidden: char) -> String {
    let name = match hidden {
        '\t' => "a tab",
        '\n' => "a line end",
        '\r' => "a carriage return",
        '\u{a0}' | '\u{202f}' => "a no-break space",
        '\u{ad}' => "a soft hyphen",
        '\u{200b}' => "a zero-width space",
        '\u{feff}' => "a byte-order mark",
        _ if hidden.is_control() => "a control character",
        _ => "an invisible character",
    };
    format!("{name} (U+{:04X})", u32::from(hidden))
}

/// As much of an address as is no secret: user, password and options are left out, and so is all but the scheme where it
/// is not clear where they end.
fn shown(text: &str) -> String {
    let visible = |text: &str| -> String {
        let one = |one: char| if is_hidden(one) { format!("<U+{:04X}>", u32::from(one)) } else { one.to_string() };
        text.chars().map(one).collect()
    };
    let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| scheme.len() <= SCHEME_BYTES_MAX) else {
        return "(not shown)".into();
    };
    let place = rest.split('?').next().unwrap_or_default();
    let options = if place.len() < rest.len() { "?…" } else { "" };
    let scheme_text = visible(scheme);
    if scheme == "sqlite" {
        return format!("sqlite:{}{options}", visible(place));
    }
    let unclear = format!("{scheme_text}:…");
    let Some(place) = place.strip_prefix("//") else { return unclear };
    match (rest.matches('@').count(), place.split_once('@')) {
        (0, _) if place.split(',').all(has_no_password) => format!("{scheme_text}://{}{options}", visible(place)),
        (1, Some((_, host))) => format!("{scheme_text}://…@{}{options}", visible(host)),
        _ => unclear,
    }
}

/// Bytes of a scheme at most: what is longer is none, and may be a secret.
const SCHEME_BYTES_MAX: usize = 20;

/// Whether what stands behind a host's colon can only be a port.
fn has_no_password(host: &str) -> bool {
    let host = host.split('/').next().unwrap_or_default();
    let port = host.rsplit_once(':').map_or("", |(_, port)| port);
    host.starts_with('[') || port.chars().all(|digit| digit.is_ascii_digit() || is_hidden(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_at_the_ends_is_lost() {
        for text in [
            "sqlite:a.db",
            " sqlite:a.db\t",
            "sqlite:a.db\r\n",
            "\u{feff}sqlite:a.db\n",
            "\u{a0}sqlite:a.db\u{a0}\u{2003}",
            "\u{200b}sqlite:a.db\u{200b}\u{2060}",
            "\n\nsqlite:a.db\u{85}\u{2028}",
        ] {
            assert_eq!(cleaned(text), Ok("sqlite:a.db"), "{text:?}");
        }
        assert_eq!(cleaned("sqlite:my files/東京\u{3000}.db"), Ok("sqlite:my files/東京\u{3000}.db"));
        assert_eq!(trimmed(" \r\n\u{feff}"), "");
    }

    #[test]
    fn what_nobody_sees_within_is_named_and_no_secret_is_shown() {
        for (text, says) in [
            ("sqlite:a\tb.db", "the address sqlite:a<U+0009>b.db holds a tab (U+0009); write it without"),
            ("sqlite:a\0", "sqlite:a<U+0000> holds a control character (U+0000)"),
            ("sqlite:a\u{200b}b.db?k=secret", "sqlite:a<U+200B>b.db?… holds a zero-width space (U+200B)"),
            (
                "postgres://u:secret@ho\u{ad}st:1/d?password=secret",
                "postgres://…@ho<U+00AD>st:1/d?… holds a soft hyphen",
            ),
            ("postgres://u:sec\rret@h/d", "postgres://…@h/d holds a carriage return (U+000D)"),
            ("redis://h\u{a0}:63/1", "redis://h<U+00A0>:63/1 holds a no-break space (U+00A0)"),
            ("redis://secret\u{1b}@h", "redis://…@h holds a control character (U+001B)"),
            ("redis://u:secret\u{feff}", "redis://u:secret"),
            ("redis://u:secret\u{feff}x", "redis:… holds a byte-order mark"),
            (
                "redis+cluster://a,b:2,\u{202e}c",
                "redis+cluster://a,b:2,<U+202E>c holds an invisible character (U+202E)",
            ),
            ("postgres://u:p?secret=\u{1}two@h/x", "postgres:… holds a control character"),
            ("postgres://u:sec@ret/secret\u{1}@h/x", "postgres:… holds a control character"),
            ("host=h password=secret\u{1}", "the address (not shown) holds a control character"),
            ("postgres://h/d?password=sec\u{1}ret", "postgres://h/d?… holds a control character"),
        ] {
            match cleaned(text) {
                Ok(text) => assert_eq!(text, says),
                Err(said) => {
                    assert!(said.contains(says), "{text:?}: {said}");
                    assert!(!said.contains("secret") && !said.contains("ret@"), "{said}");
                }
            }
        }
    }
}
