//! Addresses of servers and files as people give them: what is lost at their ends, what they may not hold, and what of
//! one may be shown.

use std::borrow::Cow;

use crate::model::text::is_unprintable;

/// One form that an address may have, as it is told to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressForm {
    /// With a word in capitals for each part: `sqlite:PATH`.
    pub full: &'static str,
    /// The same where there is little room.
    pub brief: &'static str,
    /// An address of that form.
    pub example: &'static str,
}

/// Choices as they stand in a sentence: a, b or c.
pub fn one_of<'t>(choices: impl IntoIterator<Item = &'t str>) -> String {
    let choices: Vec<&str> = choices.into_iter().collect();
    match choices.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => choices.concat(),
    }
}

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
    if scheme == "sqlite" && !has_login(place) {
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

/// Whether what stands behind `sqlite:` is a login and a host rather than a file: somebody has taken one scheme for another.
pub(crate) fn has_login(path: &str) -> bool {
    let (is_slashed, path) = path.strip_prefix("//").map_or((false, path), |path| (true, path));
    let path = if is_slashed { path.trim_start_matches('/') } else { path };
    let first = path.split('/').next().unwrap_or_default();
    match path.rsplit_once('@') {
        Some((before, _)) => first.contains(':') || is_slashed && !before.contains('/'),
        None => is_slashed && first.contains(':'),
    }
}

/// Whether a user is shown: anything else may be a password that stands in the user's place.
pub(crate) fn is_plain_user(user: &str) -> bool {
    user.chars().all(|one| one.is_ascii_lowercase() || matches!(one, '_' | '-'))
}

/// The schemes of addresses, which one that is mistyped is near to.
const SCHEMES: [&str; 8] =
    ["postgres", "postgresql", "redis", "rediss", "redis+cluster", "rediss+cluster", "redis+unix", "sqlite"];

/// A message with no login in it: who mistypes an address, or gives it in another's place, must not find the password in a
/// log. What stands between the scheme and the last `@` is left out, and so is what may be a password without one.
pub fn without_logins(text: &str) -> Cow<'_, str> {
    if !text.contains(':') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((secret, next)) = next_login(rest) {
        shown.push_str(&rest[..secret]);
        shown.push('…');
        rest = &rest[next..];
    }
    match shown.is_empty() {
        true => Cow::Borrowed(text),
        false => Cow::Owned(shown + rest),
    }
}

/// Where the next login of a text begins and ends.
fn next_login(text: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    while let Some(colon) = text[from..].find(':').map(|at| from + at) {
        let start = text[..colon]
            .rfind(|one: char| !one.is_ascii_alphanumeric() && one != '+')
            .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
        let scheme = &text[start..colon];
        let behind = &text[colon + 1..];
        let slashes = behind.len() - behind.trim_start_matches('/').len();
        let is_near = |known: &&str| strsim::damerau_levenshtein(scheme, known) <= usize::from(scheme.len() > 4);
        if slashes >= 2 || scheme.len() <= SCHEME_BYTES_MAX && SCHEMES.iter().any(is_near) {
            let begin = colon + 1 + slashes;
            if let Some(end) = login_end(scheme, &text[colon + 1..begin], &text[begin..]) {
                return Some((begin, begin + end));
            }
        }
        from = colon + 1;
    }
    None
}

/// Bytes of the login at the beginning of an address's rest; none if there is none, or one that may be shown.
fn login_end(scheme: &str, slashes: &str, rest: &str) -> Option<usize> {
    let ends = |one: char| one.is_whitespace() || matches!(one, '"' | '\'' | '`' | '\\');
    let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
    if scheme == "sqlite" && !has_login(&format!("{slashes}{word}")) {
        return None;
    }
    if let Some(at) = word.rfind('@') {
        let is_shown = matches!(scheme, "postgres" | "postgresql") && slashes == "//" && is_plain_user(&word[..at]);
        // What messages of ours say of an address.
        let is_ours = matches!(&word[..at], "…" | "user" | "user:password");
        // With three slashes it is a path, unless there is a password in it.
        let is_path = slashes.len() > 2 && !word[..at].contains(':');
        return (!is_shown && !is_ours && !is_path && at > 0).then_some(at);
    }
    if slashes != "//" {
        return None;
    }
    // A password with a blank or a quote in it; or one with nothing behind it.
    let word = word.trim_end_matches([',', ';', ':', '.', ')', ']', '…']);
    if word.split(',').all(has_no_password) {
        return None;
    }
    let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
    Some(line.rfind('@').unwrap_or(word.len()))
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
    fn no_message_shows_a_login() {
        for (text, shown) in [
            ("nothing: at all", "nothing: at all"),
            ("a:b@c, 10:30 u@h", "a:b@c, 10:30 u@h"),
            ("cannot open postgres://u@h:5433/d: no", "cannot open postgres://u@h:5433/d: no"),
            ("redis://127.0.0.1:6379: refused", "redis://127.0.0.1:6379: refused"),
            ("(redis+cluster://a:1,b:2), see https://x.y/a:b", "(redis+cluster://a:1,b:2), see https://x.y/a:b"),
            ("postgres://[::1]:5433/d", "postgres://[::1]:5433/d"),
            ("expected redis://user:password@host:port/database", "expected redis://user:password@host:port/database"),
            ("sqlite:/a:b/c@d.db sqlite:x@y.db", "sqlite:/a:b/c@d.db sqlite:x@y.db"),
            ("the address postgres://…@h<U+200B>/d", "the address postgres://…@h<U+200B>/d"),
            ("'postgres://u:secret@h/d' found", "'postgres://…@h/d' found"),
            ("postgres://Secret1@h/d: no", "postgres://…@h/d: no"),
            ("postgres://u:a@secret@h/d: no", "postgres://…@h/d: no"),
            ("postgres://u:a/secret@h", "postgres://…@h"),
            ("postgres:/u:secret@h/d", "postgres:/…@h/d"),
            ("postgres:u:secret@h/d", "postgres:…@h/d"),
            ("postgress://u:secret@h", "postgress://…@h"),
            ("postgress://secret@h", "postgress://…@h"),
            ("redis://secret@h, rediss://:secret@h", "redis://…@h, rediss://…@h"),
            ("mysql://u:secret@h", "mysql://…@h"),
            ("://u:secret@h", "://…@h"),
            ("redis:///u:secret@h file:///a@b", "redis:///…@h file:///a@b"),
            ("sqlite://u:secret@h sqlite:u:secret@h", "sqlite://…@h sqlite:…@h"),
            ("no redis://u:my secret@h in it", "no redis://…@h in it"),
            ("no redis://u:secret: no", "no redis://…: no"),
            ("{\"message\":\"x \\\"redis://u:secret@h\\\"\"}", "{\"message\":\"x \\\"redis://…@h\\\"\"}"),
            ("é postgres://u:sécret@h é", "é postgres://…@h é"),
        ] {
            assert_eq!(without_logins(text), shown);
        }
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
