//! Reads an event as the type that a handler takes, in one pass over its JSON: what the type does not ask for is passed by
//! and not read.

use std::cell::Cell;

use serde::Deserialize;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Error;

use crate::model::json_scan::{Layout, Member, Walk};

/// Whether a field is asked for, as far as is known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    Maybe,
    /// No type of that name with those fields asks for it.
    Never,
}

/// Reads an event. `layout` remembers the keys of the one before: it serves one type.
///
/// # Errors
/// The event is not what the type takes.
pub(super) fn read<'j, E: Deserialize<'j>>(json: &'j str, layout: &mut Layout<Asked>) -> Result<E, Error> {
    // What is seldom, and what is wrong, is left to serde_json, which says what is wrong.
    E::deserialize(Event { json, layout }).or_else(|_| E::deserialize(&mut serde_json::Deserializer::from_str(json)))
}

fn seldom() -> Error {
    Error::custom("this is not read in one pass")
}

/// Lets serde_json read what begins at `json`.
macro_rules! leave {
    ($($name:ident($($argument:ident: $kind:ty),*))*) => {
        $(
            #[inline]
            fn $name<V: Visitor<'j>>(self, $($argument: $kind,)* visitor: V) -> Result<V::Value, Error> {
                serde_json::Deserializer::from_str(self.json).$name($($argument,)* visitor)
            }
        )*
    };
}

/// A whole event.
struct Event<'l, 'j> {
    json: &'j str,
    layout: &'l mut Layout<Asked>,
}

impl<'j> Event<'_, 'j> {
    /// Hands the members to a visitor. `fields` are those that its type has, if it says so.
    #[inline]
    fn members<V: Visitor<'j>>(self, fields: Option<&[&str]>, visitor: V) -> Result<V::Value, Error> {
        let walk = self.layout.walk(self.json);
        let mut members = Members { json: self.json, walk, fields, key: "", value: "", is_over: false };
        let value = visitor.visit_map(&mut members)?;
        if members.is_over || members.next()?.is_none() { Ok(value) } else { Err(seldom()) }
    }
}

impl<'j> Deserializer<'j> for Event<'_, 'j> {
    type Error = Error;

    #[inline]
    fn deserialize_map<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        self.members(None, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'j>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.members(Some(fields), visitor)
    }

    leave! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64()
        deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_char() deserialize_str() deserialize_string()
        deserialize_bytes() deserialize_byte_buf() deserialize_option() deserialize_unit() deserialize_seq()
        deserialize_identifier() deserialize_ignored_any() deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str) deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }
}

struct Members<'m, 'j> {
    json: &'j str,
    walk: Walk<'m, 'j, Asked>,
    fields: Option<&'m [&'m str]>,
    /// The member that was given last.
    key: &'j str,
    value: &'j str,
    is_over: bool,
}

impl<'j> Members<'_, 'j> {
    /// The next key.
    #[inline]
    fn next(&mut self) -> Result<Option<&'j str>, Error> {
        let maybe = |asked| matches!(asked, Asked::Maybe).then_some(());
        let Some(Member { key, value, .. }) = self.walk.next(|_| Asked::Maybe, maybe).ok_or_else(seldom)? else {
            self.is_over = true;
            return Ok(None);
        };
        (self.key, self.value) = self.json.get(key).zip(self.json.get(value)).ok_or_else(seldom)?;
        Ok(Some(self.key))
    }
}

impl<'j> MapAccess<'j> for &mut Members<'_, 'j> {
    type Error = Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'j>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next()?.map(|key| seed.deserialize(BorrowedStrDeserializer::new(key))).transpose()
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'j>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let is_ignored = Cell::new(false);
        let value = seed.deserialize(Value { json: self.value, is_ignored: &is_ignored })?;
        // Of a type that says which fields it has, no other one is asked for again.
        if is_ignored.get() && self.fields.is_some_and(|fields| !fields.contains(&self.key)) {
            self.walk.set_kind(Asked::Never);
        }
        Ok(value)
    }
}

/// The value of a member, without blanks around it.
struct Value<'v, 'j> {
    json: &'j str,
    /// Set if it is not asked for.
    is_ignored: &'v Cell<bool>,
}

impl<'j> Value<'_, 'j> {
    /// What it says, if it is a text without escapes.
    #[inline]
    fn plain_text(&self) -> Option<&'j str> {
        self.json.strip_prefix('"')?.strip_suffix('"').filter(|text| !text.contains('\\'))
    }
}

impl<'j> Deserializer<'j> for Value<'_, 'j> {
    type Error = Error;

    #[inline]
    fn deserialize_ignored_any<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is_ignored.set(true);
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_str<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.plain_text() {
            Some(text) => visitor.visit_borrowed_str(text),
            None => serde_json::Deserializer::from_str(self.json).deserialize_str(visitor),
        }
    }

    #[inline]
    fn deserialize_string<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.json == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    leave! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64()
        deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_char() deserialize_bytes() deserialize_byte_buf()
        deserialize_unit() deserialize_seq() deserialize_map() deserialize_identifier()
        deserialize_unit_struct(name: &'static str) deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize) deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::model::numeric::Numeric;

    #[derive(Deserialize, Debug, PartialEq)]
    struct Transfer<'e> {
        #[serde(borrow)]
        a: Cow<'e, str>,
        b: Option<Numeric>,
        #[serde(default)]
        c: Kind,
        #[serde(default, alias = "dd")]
        d: Vec<i64>,
    }

    #[derive(Deserialize, Debug, PartialEq, Default)]
    enum Kind {
        #[default]
        A,
        B(i64),
        C {
            a: String,
        },
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        a: Option<f64>,
        b: Option<bool>,
        c: Option<char>,
    }

    #[derive(Deserialize, Debug, PartialEq)]
    struct Flat {
        a: Option<serde_json::Value>,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(tag = "a")]
    enum Tagged {
        A { b: Option<u8> },
        B,
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(untagged)]
    enum Untagged {
        Short { a: i64 },
        Long { a: String, b: i64 },
        Other(serde_json::Value),
    }

    #[derive(Deserialize, Debug, PartialEq)]
    struct Wrapped(BTreeMap<String, Option<String>>);

    /// Keys that nobody asks for, and how often.
    #[derive(Deserialize, Debug, PartialEq)]
    struct Numbered(BTreeMap<i64, serde::de::IgnoredAny>);

    fn value() -> impl Strategy<Value = String> {
        let scalar = prop::sample::select(vec![
            "null",
            "true",
            "0",
            "-7",
            "300",
            "1.5e3",
            "18446744073709551616",
            "\"\"",
            "\"A\"",
            "\"B\"",
            "\"x\\n\"",
            "\"\\ud800\"",
            "\"é\"",
            "\"17\"",
            "\"a longer text that has more than thirty two bytes\"",
            "01",
            "\"\u{1}\"",
        ]);
        let nested = prop::sample::select(vec![
            "[]",
            "[1,2]",
            "[1, [\"a\"]]",
            "{\"B\":1}",
            "{\"C\":{\"a\":\"x\"}}",
            "{\"a\":{\"b\":[null]}}",
            "[1,2",
            "{}",
        ]);
        prop_oneof![3 => scalar, 1 => nested].prop_map(str::to_owned)
    }

    fn event() -> impl Strategy<Value = String> {
        let key =
            prop::sample::select(vec!["a", "b", "c", "d", "dd", "e", "1", "a\\u0062", "", "long_key_of_this_event"]);
        let blank = prop::sample::select(vec!["", "", "", " ", "\t"]);
        let member = (key, blank.clone(), blank, value());
        let member = member.prop_map(|(key, before, behind, value)| format!("{before}\"{key}\":{behind}{value}"));
        let text = prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(",")));
        prop_oneof![20 => text, 1 => value()]
    }

    fn same<'j, E: Deserialize<'j> + Debug + PartialEq>(events: &'j [String]) -> Result<(), TestCaseError> {
        let mut layout = Layout::default();
        for json in events {
            let expected = serde_json::from_str::<E>(json);
            let found = read::<E>(json, &mut layout);
            match (found, expected) {
                (Ok(found), Ok(expected)) => prop_assert_eq!(found, expected, "{}", json),
                (Err(found), Err(expected)) => prop_assert_eq!(found.to_string(), expected.to_string(), "{}", json),
                (found, expected) => prop_assert!(false, "{json}: {found:?}, not {expected:?}"),
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn events_are_read_as_serde_json_reads_them(events in prop::collection::vec(event(), 1..6)) {
            // Keys come again where they were.
            let events: Vec<String> = events.iter().flat_map(|event| [event.clone(), event.clone()]).collect();
            same::<Transfer<'_>>(&events)?;
            same::<Strict>(&events)?;
            same::<Flat>(&events)?;
            same::<Tagged>(&events)?;
            same::<Untagged>(&events)?;
            same::<Wrapped>(&events)?;
            same::<Numbered>(&events)?;
            same::<serde_json::Value>(&events)?;
            same::<BTreeMap<&str, Cow<'_, str>>>(&events)?;
            same::<Option<Strict>>(&events)?;
            let mut layout = Layout::default();
            for json in &events {
                let raw = read::<&RawValue>(json, &mut layout).ok().map(RawValue::get);
                prop_assert_eq!(raw, serde_json::from_str::<&RawValue>(json).ok().map(RawValue::get));
            }
        }
    }

    #[test]
    fn what_a_type_does_not_ask_for_is_passed_by() {
        let mut layout = Layout::default();
        let json = r#"{"e":1,"a":"x","b":2,"f":{"a":1}}"#;
        for _ in 0..3 {
            let read: Transfer<'_> = read(json, &mut layout).expect("an event");
            assert_eq!((&*read.a, read.b), ("x", Some(Numeric::from(2_i64))));
        }
        let mut passed = Vec::new();
        let mut walk = layout.walk(json);
        while let Some(member) = walk.next(|_| Asked::Maybe, Some).expect("an object") {
            passed.push((&json[member.key], matches!(member.kind, Asked::Never)));
        }
        assert_eq!(passed, [("e", true), ("a", false), ("b", false), ("f", true)]);
    }
}
