//! Small texts that several rooms need: a hint at the nearest name, a number for people, the text of a panic; and what
//! of a foreign text a terminal may show.

use std::borrow::Cow;
use std::path::Path;

use crate::model::limits::{ERROR_BYTES_MAX, NAME_BYTES_MAX};

/// `; did you mean …?` if one of the known names is near.
pub(crate) fn nearest(name: &str, known: &[&str]) -> String {
    if name.len() > 2 * NAME_BYTES_MAX {
        return String::new();
    }
    let scored = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), known));
    match scored.min() {
        Some((distance, known)) if distance <= 1 + name.len() / 4 => format!("; did you mean {known:?}?"),
        _ => String::new(),
    }
}

/// A number with commas between thousands, as people read it.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Whether a character acts on a terminal or hides in a text: control characters (C0, DEL and C1), what turns the
/// direction of writing, and what has no width. The joiners U+200C and U+200D are none: letters and emoji need them.
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0001}'..='\u{e007f}'
        )
}

/// A text of the data as a line or a cell may show it: what is unprintable becomes U+FFFD.
pub fn plain(text: &str) -> Cow<'_, str> {
    replaced(text, is_unprintable)
}

/// A path as a part of a line.
pub fn shown_path(path: &Path) -> String {
    plain(&path.display().to_string()).into_owned()
}

/// A message as a terminal may show it. Tabs stay. A line break stays where we made it, before two blanks and a small
/// letter; behind any other the line begins with a bar, so that nothing in a message looks like another message.
pub fn message(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for (at, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if at > 0 {
            shown.push_str(if is_continued(line) { "\n" } else { LINE_OF_OTHERS });
        }
        shown.push_str(&replaced(line, |character| character != '\t' && is_unprintable(character)));
    }
    Cow::Owned(shown)
}

/// What stands between two lines of a text that is not ours.
const LINE_OF_OTHERS: &str = "\n  | ";

/// Whether a line goes on with a message of ours.
fn is_continued(line: &str) -> bool {
    line == "  |"
        || line.starts_with("  | ")
        || line.strip_prefix("  ").is_some_and(|rest| {
            rest.starts_with(|first: char| first.is_ascii_lowercase()) && !rest.starts_with("error")
        })
}

/// A message of others, cut where it is too long: its beginning, and how much was left out.
pub(crate) fn shortened(mut text: String) -> String {
    let kept = text.floor_char_boundary(ERROR_BYTES_MAX);
    if kept < text.len() {
        let left_out = grouped((text.len() - kept) as u64);
        text.truncate(kept);
        text.push_str(&format!("… ({left_out} bytes more)"));
        text.shrink_to_fit();
    }
    text
}

/// A text of others as a part of a message: none of its lines looks like one of ours.
#[cfg(any(feature = "lua", feature = "postgres", test))]
pub(crate) fn quoted_lines(text: &str) -> String {
    text.replace('\n', LINE_OF_OTHERS)
}

/// A JSON text with what is unprintable in its strings written as `\uXXXX`: the same value.
pub fn plain_json(json: &str) -> Cow<'_, str> {
    // JSON itself wants those below U+0020 escaped; where they stand, they are blanks between its parts.
    let is_escaped = |character: char| character >= '\u{7f}' && is_unprintable(character);
    if !json.contains(is_escaped) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match is_escaped(character) {
            true => {
                character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| shown.push_str(&format!("\\u{unit:04x}")))
            }
            false => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

fn replaced(text: &str, is_replaced: impl Fn(char) -> bool) -> Cow<'_, str> {
    match text.contains(&is_replaced) {
        true => Cow::Owned(text.chars().map(|one| if is_replaced(one) { '\u{fffd}' } else { one }).collect()),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_and_says_by_how_much() {
        let whole = "x".repeat(ERROR_BYTES_MAX);
        assert_eq!(shortened(whole.clone()), whole);
        assert_eq!(shortened(format!("{whole}y")), format!("{whole}… (1 bytes more)"));
        let umlauts = format!("x{}", "ä".repeat(ERROR_BYTES_MAX));
        assert_eq!(shortened(umlauts), format!("x{}… (4,098 bytes more)", "ä".repeat(ERROR_BYTES_MAX / 2 - 1)));
    }

    #[test]
    fn what_acts_on_a_terminal_is_not_shown() {
        for (text, cell) in [
            ("plain é 東京 👩\u{200d}💻", "plain é 東京 👩\u{200d}💻"),
            ("\u{1b}[31mred\u{1b}[0m", "\u{fffd}[31mred\u{fffd}[0m"),
            ("a\tb\nc\rd\u{7f}", "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}"),
            ("\u{80}\u{9b}31m\u{9f}", "\u{fffd}\u{fffd}31m\u{fffd}"),
            ("a\u{202e}cba\u{2066}x\u{2069}\u{200b}\u{feff}", "a\u{fffd}cba\u{fffd}x\u{fffd}\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(plain(text), cell);
        }
    }

    #[test]
    fn no_line_within_a_message_looks_like_a_message() {
        for (text, shown) in [
            ("one line", "one line"),
            (
                "bad\n  at events.ndjson:3\n  batch 1 was discarded",
                "bad\n  at events.ndjson:3\n  batch 1 was discarded",
            ),
            ("bad\nerror: forged", "bad\n  | error: forged"),
            ("bad\n  error: forged", "bad\n  |   error: forged"),
            ("bad\n ERROR forged\r\n\u{1b}[2J", "bad\n  |  ERROR forged\n  | \u{fffd}[2J"),
            ("a\tb\r", "a\tb"),
        ] {
            assert_eq!(message(text), shown);
        }
        assert_eq!(message(&quoted_lines("x\n  batch 2 was committed")), "x\n  |   batch 2 was committed");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ "a\u{9b}b": "\u{7f}\u{1b}\u{202e}\u{200b}\u{e0041}é\u{200d}" });
        let text = plain_json(&value.to_string()).into_owned();
        assert!(!text.contains(is_unprintable), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
        assert_eq!(plain_json("{\"a\":\t\"é\"}\n"), "{\"a\":\t\"é\"}\n");
    }
}
