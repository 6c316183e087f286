//! JSON as text, where a tree of values would lose something: digits that no float keeps, and half characters.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::model::limits::JSON_DEPTH_MAX;

/// A JSON value with all the digits of its numbers, in canonical form: what a `jsonb` column holds. A
/// [`serde_json::Value`] keeps numbers as floats, and loses some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExactJson(Box<str>);

impl ExactJson {
    /// The JSON: keys sorted, no spaces.
    pub fn get(&self) -> &str {
        &self.0
    }

    /// A value from what [`ExactJson::get`] gave.
    pub(crate) fn from_canonical(json: &str) -> Self {
        Self(json.into())
    }
}

impl Default for ExactJson {
    /// Null.
    fn default() -> Self {
        Self("null".into())
    }
}

impl<'de> serde::Deserialize<'de> for ExactJson {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: Box<RawValue> = serde::Deserialize::deserialize(deserializer)?;
        let json = canonical(raw.get(), &[]);
        let json = json.ok_or_else(|| serde::de::Error::custom(format!("nested deeper than {JSON_DEPTH_MAX}")))?;
        Ok(Self(json.into_boxed_str()))
    }
}

/// Digits of a decimal number that a float keeps whatever the number.
const FLOAT_DIGITS: usize = 15;
/// The smallest float for which that holds, with room to spare.
const FLOAT_MIN: f64 = 1e-290;
/// The largest integer up to which a float holds every integer.
pub(crate) const SAFE_INTEGER: u64 = 1 << 53;

/// The float that a decimal number is, digit for digit: the number is the float's shortest decimal form, however it is
/// written. None if there is no such float.
pub(crate) fn float_of(number: &str) -> Option<f64> {
    let value: f64 = number.parse().ok().filter(|value: &f64| value.is_finite())?;
    let mantissa = number.split(['e', 'E']).next().unwrap_or(number);
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').count();
    if digits <= FLOAT_DIGITS && (value.abs() >= FLOAT_MIN || digits == 0) {
        return Some(value);
    }
    (decimal_parts(number)? == decimal_parts(&shortest(value))?).then_some(value)
}

/// The shortest decimal form of a finite float: of all that stand for it the nearest one, and of two that are as near the
/// even one. JSON is written so, by Python, Postgres and JavaScript too; `Display` of a float takes the upper one.
pub(crate) fn shortest(value: f64) -> String {
    serde_json::Number::from_f64(value).map_or_else(|| value.to_string(), |number| number.to_string())
}

/// How many digits the shortest decimal form of a float has.
#[cfg(any(feature = "lua", test))]
pub(crate) fn float_digits(value: f64) -> usize {
    decimal_parts(&shortest(value)).map_or(0, |(_, digits, _)| digits.len())
}

/// The shortest decimal form of a finite float as Lua writes floats: C's `%g` with as many digits as it has, 15 at least;
/// behind a whole number stands `.0`.
#[cfg(feature = "lua")]
pub(crate) fn shortest_in_lua(value: f64) -> String {
    let text = shortest(value);
    let Some((is_negative, digits, last)) = decimal_parts(&text).filter(|(_, digits, _)| !digits.is_empty()) else {
        return text;
    };
    let (sign, power) = (if is_negative { "-" } else { "" }, last + digits.len() as i64 - 1);
    if !(-4..digits.len().max(FLOAT_DIGITS) as i64).contains(&power) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let power_sign = if power < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}e{power_sign}{:02}", power.abs());
    }
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
    match usize::try_from(power + 1) {
        Ok(whole) if whole > 0 && whole < digits.len() => format!("{sign}{}.{}", &digits[..whole], &digits[whole..]),
        Ok(whole) if whole > 0 => format!("{sign}{digits}{}.0", zeros(last)),
        _ => format!("{sign}0.{}{digits}", zeros(-power - 1)),
    }
}

/// Sign, digits without zeros at either end, and the power of ten of the last one.
fn decimal_parts(number: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i64 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
    let unsigned = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return Some((false, String::new(), 0));
    }
    let last = exponent.checked_sub(fraction.len() as i64)?.checked_add((digits.len() - kept.len()) as i64)?;
    Some((mantissa.starts_with('-'), kept.to_owned(), last))
}

/// JSON in which each half of a character (`\ud83d` without its other half) is U+FFFD: the rest as it is.
pub(crate) fn whole_characters(json: &str) -> Cow<'_, str> {
    const REPLACEMENT: &str = "\\ufffd";
    let bytes = json.as_bytes();
    let mut fixed = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        let escape = at + found;
        at = escape + 2;
        let Some(unit) = unit(bytes, escape) else { continue };
        match unit {
            0xd800..=0xdbff if matches!(self::unit(bytes, escape + 6), Some(0xdc00..=0xdfff)) => at = escape + 12,
            0xd800..=0xdfff => {
                fixed.push_str(&json[copied..escape]);
                fixed.push_str(REPLACEMENT);
                (at, copied) = (escape + 6, escape + 6);
            }
            _ => at = escape + 6,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    fixed.push_str(&json[copied..]);
    Cow::Owned(fixed)
}

/// The unit of UTF-16 that an escape at a place stands for.
fn unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// Reads a value from JSON; half characters in it are U+FFFD.
///
/// # Errors
/// The text is no such value.
pub(crate) fn read<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(json).or_else(|error| match whole_characters(json) {
        Cow::Owned(fixed) => serde_json::from_str(&fixed),
        Cow::Borrowed(_) => Err(error),
    })
}

/// Whether so many digits stand together, also with a point among them, that they may be a number that a float would
/// round.
pub(crate) fn has_long_number(text: &str) -> bool {
    let mut digits = 0;
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'.' => {}
            _ => digits = 0,
        }
        if digits > FLOAT_DIGITS {
            return true;
        }
    }
    false
}

/// The canonical form of a JSON text (sorted keys, no spaces), in which numbers keep all their digits; without the
/// fields in `without`, each a name or a dotted path. None if it is no JSON, or nested too deep.
pub(crate) fn canonical(json: &str, without: &[String]) -> Option<String> {
    let mut into = String::with_capacity(json.len());
    let without: Vec<&str> = without.iter().map(String::as_str).collect();
    match whole_characters(json) {
        Cow::Borrowed(json) => write_canonical(serde_json::from_str(json).ok()?, &without, 0, &mut into)?,
        Cow::Owned(json) => write_canonical(serde_json::from_str(&json).ok()?, &without, 0, &mut into)?,
    }
    Some(into)
}

/// The canonical form of the value in a JSON object that a dotted path names: by its whole name, or step by step. None
/// if there is none.
pub(crate) fn canonical_at(json: &str, path: &str) -> Option<String> {
    fn find<'j>(json: &'j str, path: &str) -> Option<&'j RawValue> {
        let field = |json: &'j str, name: &str| -> Option<&'j RawValue> {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
            fields.get(name).copied()
        };
        let step_by_step = || {
            let (first, rest) = path.split_once('.')?;
            rest.split('.').try_fold(field(json, first)?, |value, name| field(value.get(), name))
        };
        field(json, path).or_else(step_by_step)
    }
    canonical(find(&whole_characters(json), path)?.get(), &[])
}

/// What the paths in `without` say of the value of the field `name`; none if they leave the field out.
fn within<'w>(without: &[&'w str], name: &str) -> Option<Vec<&'w str>> {
    let inner = |path: &&'w str| path.strip_prefix(name)?.strip_prefix('.');
    (!without.contains(&name)).then(|| without.iter().filter_map(inner).collect())
}

/// Takes the fields in `without` out of a value.
pub(crate) fn take_out(value: &mut Json, without: &[&str]) {
    let Some(fields) = value.as_object_mut().filter(|_| !without.is_empty()) else { return };
    fields.retain(|name, value| {
        let inner = within(without, name);
        inner.as_ref().into_iter().for_each(|inner| take_out(value, inner));
        inner.is_some()
    });
}

fn write_canonical(value: &RawValue, without: &[&str], depth: usize, into: &mut String) -> Option<()> {
    if depth > JSON_DEPTH_MAX {
        return None;
    }
    let text = value.get();
    match text.as_bytes().first()? {
        b'{' => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
            into.push('{');
            let kept = fields.iter().filter_map(|(name, value)| Some((name, value, within(without, name)?)));
            for (at, (name, value, without)) in kept.enumerate() {
                into.push_str(if at > 0 { "," } else { "" });
                into.push_str(&Json::from(name.as_str()).to_string());
                into.push(':');
                write_canonical(value, &without, depth + 1, into)?;
            }
            into.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            into.push('[');
            for (at, value) in items.iter().enumerate() {
                into.push_str(if at > 0 { "," } else { "" });
                write_canonical(value, &[], depth + 1, into)?;
            }
            into.push(']');
        }
        b'-' | b'0'..=b'9' if has_long_number(text) || !is_float_range(text) => into.push_str(text),
        _ => into.push_str(&serde_json::from_str::<Json>(text).ok()?.to_string()),
    }
    Some(())
}

/// Appends a text as JSON.
pub(crate) fn put_text(text: &str, into: &mut String) {
    into.push('"');
    put_within_text(text, into);
    into.push('"');
}

/// Appends what stands between the quotes of a text in JSON.
pub(crate) fn put_within_text(text: &str, into: &mut String) {
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        into.push_str(&text[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => into.push_str("\\\""),
            b'\\' => into.push_str("\\\\"),
            b'\n' => into.push_str("\\n"),
            b'\r' => into.push_str("\\r"),
            b'\t' => into.push_str("\\t"),
            _ => into.push_str(&format!("\\u{byte:04x}")),
        }
    }
    into.push_str(&text[copied..]);
}

/// Whether a number is no larger than the largest float, and not so small that a float makes nothing of it.
fn is_float_range(number: &str) -> bool {
    !number.contains(['e', 'E']) || float_of(number).is_some()
}

/// JSON in which the numbers that a reader with floats would round are texts: integers beyond 2^53, and decimals that no
/// float holds to the digit.
pub(crate) fn quote_long_numbers(json: String) -> String {
    if !has_long_number(&json) && !json.contains(['e', 'E']) {
        return json;
    }
    let mut quoted = String::new();
    let (mut at, mut copied) = (0, 0);
    let bytes = json.as_bytes();
    while let Some(byte) = bytes.get(at) {
        let start = at;
        match byte {
            b'"' => at = end_of_text(bytes, at),
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
                at += bytes[start..].iter().take_while(|byte| is_part(byte)).count();
                let number = &json[start..at];
                if is_rounded(number) {
                    quoted.push_str(&json[copied..start]);
                    quoted.extend(["\"", number, "\""]);
                    copied = at;
                }
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return json;
    }
    quoted.push_str(&json[copied..]);
    quoted
}

/// Where a text that begins at a place ends.
pub(crate) fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// Whether a reader with floats would not read a number as it stands.
fn is_rounded(number: &str) -> bool {
    if number.contains(['.', 'e', 'E']) {
        return float_of(number).is_none();
    }
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.len() > FLOAT_DIGITS && digits.parse::<u64>().map_or(true, |value| value > SAFE_INTEGER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_told_from_what_it_would_round() {
        for (number, is_held) in [
            ("0.1", true),
            ("-0.0", true),
            ("1E+2", true),
            ("17000000.0", true),
            ("1e20", true),
            ("0.30000000000000004", true),
            ("1.2345678901234568e+18", true),
            ("5e-324", true),
            ("+1872.662810161443", true),
            ("+4.805435657233639E108", true),
            ("9007199254740993.0", false),
            ("12345678901234567.89", false),
            ("0.1234567890123456789", false),
            ("12345678901234567890123e0", false),
            // Both stand for the float midway between them.
            ("64.00003051757812", true),
            ("64.00003051757813", false),
            ("1e400", false),
            ("1e-400", false),
            ("1e99999999999999999999", false),
        ] {
            assert_eq!(float_of(number).is_some(), is_held, "{number}");
        }
        assert_eq!([0.1, 1e20, 0.1 + 0.2, 0.0].map(float_digits), [1, 1, 17, 0]);
        #[cfg(feature = "lua")]
        for (float, text) in [
            (2_f64.powi(-24), "5.960464477539063e-08"),
            (-0.1 - 0.2, "-0.30000000000000004"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (12_345_678_901_234_568.0, "12345678901234568.0"),
            (12_345_678_901_234_560.0, "1.234567890123456e+16"),
            (1_234_567_890_123_456.0, "1234567890123456.0"),
            (0.001_234_5, "0.0012345"),
            (1234.5, "1234.5"),
            (1000.0, "1000.0"),
            (1e15, "1e+15"),
            (0.0, "0.0"),
        ] {
            assert_eq!(shortest_in_lua(float), text);
        }
    }

    #[test]
    fn half_characters_are_replaced_and_whole_ones_kept() {
        for (json, fixed) in [
            (r#"{"a":"\ud83d"}"#, r#"{"a":"\ufffd"}"#),
            (r#"{"\udead":"x\ud83d\ude00\uD83Dy"}"#, r#"{"\ufffd":"x\ud83d\ude00\ufffdy"}"#),
            (r#""\\ud83d \ud83d\\""#, r#""\\ud83d \ufffd\\""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud8""#, r#""\ud8""#),
            ("\"\\", "\"\\"),
        ] {
            assert_eq!(whole_characters(json), fixed);
        }
        assert!(matches!(whole_characters(r#"{"a":"\n\u00e9"}"#), Cow::Borrowed(_)));
        assert_eq!(read::<String>(r#""\ud83dx""#).expect("a text"), "\u{fffd}x");
    }

    #[test]
    fn long_numbers_become_texts_and_nothing_else_does() {
        for (json, quoted) in [
            (r#"{"a":[9007199254740992,9007199254740993]}"#, r#"{"a":[9007199254740992,"9007199254740993"]}"#),
            (
                r#"{"12345678901234567890":-12345678901234567890}"#,
                r#"{"12345678901234567890":"-12345678901234567890"}"#,
            ),
            (r#"["\"12345678901234567890",0.30000000000000004]"#, r#"["\"12345678901234567890",0.30000000000000004]"#),
            (r#"[1e16,1e400,0.1234567890123456789]"#, r#"[1e16,"1e400","0.1234567890123456789"]"#),
        ] {
            assert_eq!(quote_long_numbers(json.to_owned()), quoted);
        }
    }

    #[test]
    fn the_canonical_form_keeps_every_digit() {
        let json = r#"{"b":[1.50, 1e3,12345678901234567890123, 1e400],"a":{"\ud83d":null}, "at":1}"#;
        let expected = "{\"a\":{\"\u{fffd}\":null},\"b\":[1.5,1000.0,12345678901234567890123,1e400]}";
        assert_eq!(canonical(json, &["at".to_owned()]).expect("json"), expected);
    }

    #[test]
    fn fields_are_named_by_dotted_paths() {
        let json = r#"{"a":{"b":{"c":1,"d":12345678901234567890123},"e":2},"a.b":3,"f":[{"b":4}]}"#;
        for (without, kept) in [
            (&["a.b"][..], r#"{"a":{"e":2},"f":[{"b":4}]}"#),
            (&["a.b.c", "f"], r#"{"a":{"b":{"d":12345678901234567890123},"e":2},"a.b":3}"#),
            (&["a.x", "f.b", "x"], r#"{"a":{"b":{"c":1,"d":12345678901234567890123},"e":2},"a.b":3,"f":[{"b":4}]}"#),
        ] {
            let paths: Vec<String> = without.iter().map(|path| (*path).to_owned()).collect();
            assert_eq!(canonical(json, &paths).as_deref(), Some(kept));
            let mut value: Json = serde_json::from_str(json).expect("json");
            take_out(&mut value, without);
            assert_eq!(value, serde_json::from_str::<Json>(kept).expect("json"));
        }
        for (path, value) in [
            ("a.b", Some("3")),
            ("a.b.d", Some("12345678901234567890123")),
            ("a.e", Some("2")),
            ("a.x", None),
            ("f.b", None),
        ] {
            assert_eq!(canonical_at(json, path).as_deref(), value, "{path}");
        }
    }
}
