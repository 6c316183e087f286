//! Types that fields of events have, whatever form their values take in JSON.
//!
//! Amounts come as numbers and as texts, ids as both, integers in hex, times as seconds and as milliseconds. A field with
//! a type reads all of them as one. Nothing passes through a float unless the type is `double`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crate::model::numeric::Numeric;
use crate::model::timestamp::Timestamp;

/// The unit of a time that is given as a number since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds, also with a fraction.
    Seconds,
    /// Milliseconds, also with a fraction.
    Millis,
}

impl TimeUnit {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Seconds, Self::Millis];

    /// Its name in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Millis => "ms",
        }
    }

    /// The unit of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }

    fn micros(self) -> i64 {
        match self {
            Self::Seconds => 1_000_000,
            Self::Millis => 1000,
        }
    }

    /// The moment that many units after 1970 began; digits after the microsecond are cut off. None outside the years
    /// -4712 to 9999.
    pub fn time(self, since_1970: &Numeric) -> Option<Timestamp> {
        let micros = since_1970 * &Numeric::from(self.micros());
        Timestamp::from_micros(micros.checked_floor_div(&Numeric::from(1_i64)).ok()?.to_i64()?)
    }
}

/// The type of a field of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldType {
    /// An exact number of any size.
    Numeric,
    /// An integer of 64 bits.
    Bigint,
    /// A text; a number stands for its digits.
    Text,
    /// A float.
    Double,
    /// A time: RFC 3339, or with a unit also a number.
    Timestamptz(Option<TimeUnit>),
    /// A boolean, also as a text.
    Boolean,
    /// Any JSON; a text holds it.
    Jsonb,
}

/// What a field of a type holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TypedValue<'j> {
    Null,
    Numeric(Numeric),
    Bigint(i64),
    Text(Cow<'j, str>),
    Double(f64),
    Time(Timestamp),
    Boolean(bool),
    /// The JSON that a text held.
    #[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "serde knows the types of a handler in Rust"))]
    Json(&'j str),
}

/// A JSON value, as far as types tell values apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given<'j> {
    Null,
    Boolean(bool),
    /// By its digits.
    Number(&'j str),
    /// Without its quotes and escapes.
    Text(&'j str),
    Object,
    List,
}

impl fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = |text: &str| text.chars().take(60).collect::<String>();
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(_) => f.write_str("a boolean"),
            Self::Number(digits) => write!(f, "{}", cut(digits)),
            Self::Text(text) => write!(f, "the text {:?}", cut(text)),
            Self::Object => f.write_str("an object"),
            Self::List => f.write_str("a list"),
        }
    }
}

impl<'j> Given<'j> {
    /// An exact number: of JSON, or a text of digits or of hex digits behind `0x`.
    fn number(self) -> Option<Numeric> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            Self::Text(text) => match hex_digits(text) {
                Some(digits) => Numeric::from_hex(digits),
                None => text.parse().ok(),
            },
            _ => None,
        }
    }

    /// An integer of 64 bits where one is expected whatever the file says: a number that is whole, a text of decimal
    /// digits, or one of hex digits behind `0x`.
    pub(crate) fn integer(self) -> Option<i64> {
        match self {
            Self::Number(digits) => digits.parse().ok().or_else(|| digits.parse::<Numeric>().ok()?.to_i64()),
            Self::Text(text) => match hex_digits(text) {
                Some(digits) => Numeric::from_hex(digits)?.to_i64(),
                None => {
                    let digits = text.strip_prefix('-').unwrap_or(text);
                    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
                }
            },
            _ => None,
        }
    }
}

fn hex_digits(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

impl FieldType {
    /// The names of the types.
    pub const NAMES: [&'static str; 7] = ["numeric", "bigint", "text", "double", "timestamptz", "boolean", "jsonb"];

    /// The type of that name; a time without a unit.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "numeric" => Self::Numeric,
            "bigint" => Self::Bigint,
            "text" => Self::Text,
            "double" => Self::Double,
            "timestamptz" => Self::Timestamptz(None),
            "boolean" => Self::Boolean,
            "jsonb" => Self::Jsonb,
            _ => return None,
        })
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Numeric => "a numeric: a number, or a text such as \"17.5\" or \"0x1f\"",
            Self::Bigint => "a bigint: an integer of 64 bits, or a text such as \"17\" or \"0x1f\"",
            Self::Text => "a text, or a number that stands for its digits",
            Self::Boolean => "a boolean, or a text such as \"true\", \"f\" or \"1\"",
            Self::Jsonb => "a text that holds JSON",
            Self::Double => "a double: a number, or a text such as \"17.5\"",
            Self::Timestamptz(None) => {
                "a timestamptz such as \"2018-01-31T01:49:59.650Z\"; a number needs a unit (\"s\" or \"ms\")"
            }
            Self::Timestamptz(Some(TimeUnit::Seconds)) => "a timestamptz: seconds since 1970, years -4712 to 9999",
            Self::Timestamptz(Some(TimeUnit::Millis)) => "a timestamptz: milliseconds since 1970, years -4712 to 9999",
        }
    }

    /// Reads a value as this type. Null is null in each.
    ///
    /// # Errors
    /// The value is not of the type: what was expected, and what it is.
    pub(crate) fn read<'j>(self, given: Given<'j>) -> Result<TypedValue<'j>, String> {
        if given == Given::Null {
            return Ok(TypedValue::Null);
        }
        let value = match self {
            Self::Numeric => given.number().map(TypedValue::Numeric),
            Self::Bigint => given.number().and_then(|number| number.to_i64()).map(TypedValue::Bigint),
            Self::Text => match given {
                Given::Text(text) => Some(TypedValue::Text(Cow::Borrowed(text))),
                // One number has one text: 17.0 is 17.
                Given::Number(_) => given.number().map(|number| TypedValue::Text(number.to_string().into())),
                _ => None,
            },
            Self::Double => double(given).map(TypedValue::Double),
            Self::Timestamptz(unit) => time(given, unit).map(TypedValue::Time),
            Self::Boolean => boolean(given).map(TypedValue::Boolean),
            Self::Jsonb => json(given).map(TypedValue::Json),
        };
        value.ok_or_else(|| {
            let reason = match (self, given) {
                (Self::Timestamptz(_), Given::Text(text)) => text.parse::<Timestamp>().err().and_then(|no| no.reason()),
                _ => None,
            };
            let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
            format!("expected {}, got {given}{reason}", self.expected())
        })
    }

    /// Reads the JSON of a value as this type.
    ///
    /// # Errors
    /// As [`FieldType::read`].
    pub(crate) fn read_json<R>(self, json: &str, take: impl FnOnce(TypedValue<'_>) -> R) -> Result<R, String> {
        let text: String;
        let given = match json.as_bytes().first() {
            Some(b'"') => {
                let read = serde_json::from_str::<String>(json);
                text = read.map_err(|error| format!("a text that cannot be read: {error}"))?;
                Given::Text(&text)
            }
            Some(b'{') => Given::Object,
            Some(b'[') => Given::List,
            Some(first @ (b't' | b'f')) => Given::Boolean(*first == b't'),
            Some(b'-' | b'0'..=b'9') => Given::Number(json),
            _ => Given::Null,
        };
        self.read(given).map(take)
    }
}

/// A boolean in the forms that databases write: `true`, `t` and `1`, in small or capital letters.
fn boolean(given: Given<'_>) -> Option<bool> {
    let is_one_of = |text: &str, names: [&str; 3]| names.iter().any(|name| text.eq_ignore_ascii_case(name));
    match given {
        Given::Boolean(value) => Some(value),
        Given::Text(text) | Given::Number(text) if is_one_of(text, ["true", "t", "1"]) => Some(true),
        Given::Text(text) | Given::Number(text) if is_one_of(text, ["false", "f", "0"]) => Some(false),
        _ => None,
    }
}

/// The JSON in a text.
fn json(given: Given<'_>) -> Option<&str> {
    let Given::Text(text) = given else { return None };
    serde_json::from_str::<&serde_json::value::RawValue>(text).ok().map(serde_json::value::RawValue::get)
}

fn double(given: Given<'_>) -> Option<f64> {
    let value = match given {
        Given::Number(digits) => digits.parse::<f64>().ok()?,
        // A text that Rust reads as a float may be `inf`: it has to be a number first.
        Given::Text(text) if hex_digits(text).is_none() => {
            text.parse::<f64>().ok().filter(|_| given.number().is_some())?
        }
        _ => given.number()?.to_f64(),
    };
    value.is_finite().then_some(value + 0.0)
}

fn time(given: Given<'_>, unit: Option<TimeUnit>) -> Option<Timestamp> {
    if let Given::Text(text) = given
        && let Ok(time) = text.parse()
    {
        return Some(time);
    }
    let unit = unit?;
    if let Given::Number(digits) = given
        && let Ok(whole) = digits.parse::<i64>()
    {
        return Timestamp::from_micros(whole.checked_mul(unit.micros())?);
    }
    unit.time(&given.number()?)
}

/// The types of some fields of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldTypes {
    fields: BTreeMap<String, FieldTree>,
}

/// What is said of one field: its type, and those of the fields below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "serde knows the types of a handler in Rust"))]
pub(crate) struct FieldTree {
    /// Its type.
    pub(crate) own: Option<FieldType>,
    /// The whole name of a field that has a type.
    pub(crate) path: String,
    /// An empty text is null, unless the type is a text.
    pub(crate) empty_is_null: bool,
    /// If it is an object, or a list of objects: the types of their fields.
    pub(crate) below: FieldTypes,
}

impl FieldTypes {
    /// Gives a field a type. A dotted name is a path: `tx.value` is the field `value` of the object `tx`. A field whose
    /// own name holds the dots has the type too.
    #[must_use]
    pub fn with(mut self, name: &str, kind: FieldType) -> Self {
        self.put(name, name, kind);
        self
    }

    fn put(&mut self, name: &str, path: &str, kind: FieldType) {
        let tree = self.fields.entry(name.to_owned()).or_default();
        (tree.own, tree.path) = (Some(kind), path.to_owned());
        if let Some((first, rest)) = name.split_once('.').filter(|(first, rest)| !first.is_empty() && !rest.is_empty())
        {
            self.fields.entry(first.to_owned()).or_default().below.put(rest, path, kind);
        }
    }

    /// The same types, where an empty text is null: in a format that has no other null. A text stays what it is.
    #[must_use]
    pub(crate) fn with_empty_as_null(mut self) -> Self {
        for tree in self.fields.values_mut() {
            tree.empty_is_null = tree.own != Some(FieldType::Text);
            tree.below = std::mem::take(&mut tree.below).with_empty_as_null();
        }
        self
    }

    /// The type of a field, by its whole name.
    pub(crate) fn kind_of(&self, name: &str) -> Option<FieldType> {
        self.fields.get(name)?.own
    }

    /// Whether no field has a type.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// What is said of a field.
    #[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "serde knows the types of a handler in Rust"))]
    pub(crate) fn of(&self, name: &str) -> Option<&FieldTree> {
        self.fields.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: FieldType, given: Given<'_>) -> String {
        match kind.read(given) {
            Ok(TypedValue::Null) => "null".into(),
            Ok(TypedValue::Numeric(number)) => format!("numeric {number}"),
            Ok(TypedValue::Bigint(number)) => format!("bigint {number}"),
            Ok(TypedValue::Text(text)) => format!("text {text}"),
            Ok(TypedValue::Double(number)) => format!("double {number:?}"),
            Ok(TypedValue::Time(time)) => format!("time {time}"),
            Ok(TypedValue::Boolean(value)) => format!("boolean {value}"),
            Ok(TypedValue::Json(json)) => format!("json {json}"),
            Err(problem) => problem.split_once(", got").map_or("?", |(_, got)| got.trim()).to_owned(),
        }
    }

    #[test]
    fn each_type_reads_every_form_of_its_values() {
        use FieldType::{Bigint, Double, Text, Timestamptz};
        use Given::{Number, Text as T};
        let (seconds, millis) = (Timestamptz(Some(TimeUnit::Seconds)), Timestamptz(Some(TimeUnit::Millis)));
        for (kind, given, expected) in [
            (FieldType::Numeric, Number("17"), "numeric 17"),
            (FieldType::Numeric, Number("17.50"), "numeric 17.5"),
            (FieldType::Numeric, Number("1.7e7"), "numeric 17000000"),
            (FieldType::Numeric, Number("9007199254740993.0"), "numeric 9007199254740993"),
            (FieldType::Numeric, T("0x1f"), "numeric 31"),
            (FieldType::Numeric, T("0X1F"), "numeric 31"),
            (
                FieldType::Numeric,
                T("0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
                "numeric 115792089237316195423570985008687907853269984665640564039457584007913129639935",
            ),
            (FieldType::Numeric, T("-12.5e-3"), "numeric -0.0125"),
            (FieldType::Numeric, T("0x"), "the text \"0x\""),
            (FieldType::Numeric, T("0x-1"), "the text \"0x-1\""),
            (FieldType::Numeric, T("-0x1"), "the text \"-0x1\""),
            (FieldType::Numeric, T(""), "the text \"\""),
            (FieldType::Numeric, T(" 1"), "the text \" 1\""),
            (FieldType::Numeric, Given::Boolean(true), "a boolean"),
            (FieldType::Numeric, Given::Object, "an object"),
            (FieldType::Numeric, Given::Null, "null"),
            (Bigint, Number("-9223372036854775808"), "bigint -9223372036854775808"),
            (Bigint, Number("9223372036854775808"), "9223372036854775808"),
            (Bigint, Number("9.223372036854775807e18"), "bigint 9223372036854775807"),
            (Bigint, T("0x7fffffffffffffff"), "bigint 9223372036854775807"),
            (Bigint, T("0x8000000000000000"), "the text \"0x8000000000000000\""),
            (Bigint, Number("1.5"), "1.5"),
            (FieldType::Boolean, Given::Boolean(false), "boolean false"),
            (FieldType::Boolean, T("True"), "boolean true"),
            (FieldType::Boolean, T("F"), "boolean false"),
            (FieldType::Boolean, T("1"), "boolean true"),
            (FieldType::Boolean, Number("0"), "boolean false"),
            (FieldType::Boolean, T("yes"), "the text \"yes\""),
            (FieldType::Boolean, T(""), "the text \"\""),
            (FieldType::Boolean, Number("2"), "2"),
            (FieldType::Jsonb, T(" {\"a\": [1.50]} "), "json {\"a\": [1.50]}"),
            (FieldType::Jsonb, T("7"), "json 7"),
            (FieldType::Jsonb, T("{"), "the text \"{\""),
            (FieldType::Jsonb, T(""), "the text \"\""),
            (Text, T("017"), "text 017"),
            (Text, Number("17.0"), "text 17"),
            (Text, Number("12345678901234567890123"), "text 12345678901234567890123"),
            (Text, Given::List, "a list"),
            (Double, Number("0.1"), "double 0.1"),
            (Double, Number("-0"), "double 0.0"),
            (Double, T("1e3"), "double 1000.0"),
            (Double, T("0x10"), "double 16.0"),
            (Double, T("inf"), "the text \"inf\""),
            (Double, Number("1e999"), "1e999"),
            (Timestamptz(None), T("2018-01-31T03:49:59.65+02:00"), "time 2018-01-31T01:49:59.650Z"),
            (Timestamptz(None), Number("1517363399"), "1517363399"),
            (seconds, Number("1517363399"), "time 2018-01-31T01:49:59Z"),
            (seconds, Number("1517363399.6500019"), "time 2018-01-31T01:49:59.650001Z"),
            (seconds, T("0x5a711f87"), "time 2018-01-31T01:44:39Z"),
            (seconds, Number("-0.0000001"), "time 1969-12-31T23:59:59.999999Z"),
            (seconds, T("2018-01-31T01:49:59Z"), "time 2018-01-31T01:49:59Z"),
            (
                Timestamptz(None),
                T("2016-12-31T23:59:60Z"),
                "the text \"2016-12-31T23:59:60Z\" (a second of 60, which no database keeps: give the second before it, or \
                 the next one)",
            ),
            (seconds, Number("253402300800"), "253402300800"),
            (seconds, Number("9223372036854775807"), "9223372036854775807"),
            (millis, Number("1517363399650"), "time 2018-01-31T01:49:59.650Z"),
            (millis, Number("1517363399650.25"), "time 2018-01-31T01:49:59.650250Z"),
            (millis, T("1.51736339965e12"), "time 2018-01-31T01:49:59.650Z"),
        ] {
            assert_eq!(read(kind, given), expected, "{kind:?} {given}");
        }
    }

    #[test]
    fn integers_are_taken_in_the_forms_that_sources_have() {
        for (given, expected) in [
            (Given::Number("17"), Some(17)),
            (Given::Number("17000000.0"), Some(17_000_000)),
            (Given::Number("1.7e7"), Some(17_000_000)),
            (Given::Number("1e-1"), None),
            (Given::Number("1e30"), None),
            (Given::Text("2489651045"), Some(2_489_651_045)),
            (Given::Text("-9223372036854775808"), Some(i64::MIN)),
            (Given::Text("9223372036854775808"), None),
            (Given::Text("0xc5d488"), Some(12_965_000)),
            (Given::Text("0x7fffffffffffffff"), Some(i64::MAX)),
            (Given::Text("0x8000000000000000"), None),
            (Given::Text("0x"), None),
            (Given::Text("17.0"), None),
            (Given::Text("+17"), None),
            (Given::Text("--17"), None),
            (Given::Text("-"), None),
            (Given::Text(""), None),
            (Given::Text(" 17"), None),
            (Given::Boolean(true), None),
            (Given::Null, None),
        ] {
            assert_eq!(given.integer(), expected, "{given}");
        }
    }

    #[test]
    fn a_dotted_name_is_a_path_and_a_name() {
        let types = FieldTypes::default().with("tx.in.value", FieldType::Numeric).with("tx.at", FieldType::Text);
        let own = |types: &FieldTypes, name: &str| types.of(name).and_then(|tree| tree.own);
        assert_eq!(own(&types, "tx.in.value"), Some(FieldType::Numeric));
        let tx = types.of("tx").expect("tx");
        assert_eq!((tx.own, own(&tx.below, "at")), (None, Some(FieldType::Text)));
        assert_eq!(own(&tx.below.of("in").expect("in").below, "value"), Some(FieldType::Numeric));
        assert_eq!(own(&types, "value"), None);
    }
}
