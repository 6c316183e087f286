//! The fields that say where an event belongs, taken from its JSON without reading the rest.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::Fields;
use crate::model::limits::REGION_BYTES_MAX;

/// What the fields say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'j> {
    pub(super) block: i64,
    pub(super) region: Cow<'j, str>,
    pub(super) seq: Option<i64>,
    pub(super) hash: Option<Cow<'j, str>>,
    pub(super) parent: Option<Cow<'j, str>>,
}

/// Reads the head of an event.
///
/// # Errors
/// The line is no JSON object, or a field is missing or of another type. The message names the field.
pub(super) fn read_head<'j>(json: &'j str, fields: &Fields) -> Result<Head<'j>, String> {
    if let Some(kind) = kind_of_other(json) {
        return Err(format!("expected a JSON object, got {kind}"));
    }
    let raw = raw_fields(json, fields).map_err(explain)?;
    Ok(Head {
        block: integer(&fields.block, raw.block)?,
        region: region(&fields.region, raw.region)?,
        seq: fields.seq.as_deref().map(|seq| integer(seq, raw.seq)).transpose()?,
        hash: fields.hash.as_deref().map_or(Ok(None), |field| hash(field, raw.hash))?,
        parent: fields.parent.as_deref().map_or(Ok(None), |field| hash(field, raw.parent))?,
    })
}

/// What can be read of the head of an event that [`read_head`] refuses.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct PartOfHead<'j> {
    pub(super) block: Option<i64>,
    pub(super) region: Option<Cow<'j, str>>,
    pub(super) seq: Option<i64>,
    pub(super) hash: Option<Cow<'j, str>>,
    pub(super) parent: Option<Cow<'j, str>>,
}

/// Reads as much of the head of an event as is as it should be; nothing, if the line is no JSON object.
pub(super) fn read_part_of_head<'j>(json: &'j str, fields: &Fields) -> PartOfHead<'j> {
    let Some(raw) = raw_fields(json, fields).ok().filter(|_| kind_of_other(json).is_none()) else {
        return PartOfHead::default();
    };
    PartOfHead {
        block: integer(&fields.block, raw.block).ok(),
        region: region(&fields.region, raw.region).ok(),
        seq: fields.seq.as_deref().and_then(|seq| integer(seq, raw.seq).ok()),
        hash: fields.hash.as_deref().and_then(|field| hash(field, raw.hash).ok().flatten()),
        parent: fields.parent.as_deref().and_then(|field| hash(field, raw.parent).ok().flatten()),
    }
}

fn raw_fields<'j>(json: &'j str, fields: &Fields) -> serde_json::Result<RawFields<'j>> {
    let mut parser = serde_json::Deserializer::from_str(json);
    RawHead { fields }.deserialize(&mut parser).and_then(|raw| parser.end().map(|()| raw))
}

/// What a line is that is JSON of another kind.
fn kind_of_other(json: &str) -> Option<&'static str> {
    match json.bytes().next()? {
        b'[' => Some("a list; events are one object a line"),
        b'"' => Some("a text"),
        b'-' | b'0'..=b'9' => Some("a number"),
        b't' | b'f' if matches!(json, "true" | "false") => Some("a boolean"),
        b'n' if json == "null" => Some("null"),
        _ => None,
    }
}

fn explain(error: serde_json::Error) -> String {
    let column = error.column();
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    format!("expected a JSON object; at column {column}: {text}")
}

fn integer(field: &str, raw: Option<&str>) -> Result<i64, String> {
    let raw = raw.ok_or_else(|| format!("field {field:?} is missing; expected an integer of 64 bits"))?;
    raw.parse().map_err(|_| format!("field {field:?}: expected an integer of 64 bits, got {}", shorten(raw)))
}

/// The hash of a block; none where it is null.
fn hash<'j>(field: &str, raw: Option<&'j str>) -> Result<Option<Cow<'j, str>>, String> {
    let raw = raw.ok_or_else(|| format!("field {field:?} is missing; expected the hash of a block, or null"))?;
    let refused =
        || format!("field {field:?}: expected the hash of a block, a text that is not empty, got {}", shorten(raw));
    match raw.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') if raw.len() > 2 => text(raw).map(Some).ok_or_else(refused),
        _ => Err(refused()),
    }
}

/// A JSON text without its quotes.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    match raw.contains('\\') {
        false => raw.get(1..raw.len() - 1).map(Cow::Borrowed),
        true => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
    }
}

fn region<'j>(field: &str, raw: Option<&'j str>) -> Result<Cow<'j, str>, String> {
    let raw = raw.ok_or_else(|| format!("field {field:?} is missing; expected the name of a region"))?;
    let refused =
        || format!("field {field:?}: expected the name of a region, a text that is not empty, got {}", shorten(raw));
    let name = match raw.as_bytes().first() {
        Some(b'"') => text(raw).ok_or_else(refused)?,
        // A number names a region by its digits: a chain's id, for example.
        Some(b'-' | b'0'..=b'9') if raw.parse::<i64>().is_ok() => Cow::Borrowed(raw),
        _ => return Err(refused()),
    };
    if name.len() > REGION_BYTES_MAX {
        return Err(format!(
            "field {field:?}: a region's name of {} bytes; expected at most {REGION_BYTES_MAX}: {}",
            name.len(),
            shorten(raw)
        ));
    }
    if name.is_empty() || name.contains('\0') { Err(refused()) } else { Ok(name) }
}

fn shorten(raw: &str) -> String {
    raw.chars().take(60).collect()
}

#[derive(Default)]
struct RawFields<'j> {
    block: Option<&'j str>,
    region: Option<&'j str>,
    seq: Option<&'j str>,
    hash: Option<&'j str>,
    parent: Option<&'j str>,
}

struct RawHead<'f> {
    fields: &'f Fields,
}

impl<'j> DeserializeSeed<'j> for RawHead<'_> {
    type Value = RawFields<'j>;
    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'j> Visitor<'j> for RawHead<'_> {
    type Value = RawFields<'j>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = RawFields::default();
        while let Some(slots) = map.next_key_seed(KeySlots { fields: self.fields })? {
            if slots == Slots::default() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let raw = map.next_value::<&'j RawValue>()?.get();
            for (is_here, slot) in [
                (slots.block, &mut found.block),
                (slots.region, &mut found.region),
                (slots.seq, &mut found.seq),
                (slots.hash, &mut found.hash),
                (slots.parent, &mut found.parent),
            ] {
                if is_here {
                    *slot = Some(raw);
                }
            }
        }
        Ok(found)
    }
}

/// Which of the fields a key is: more than one, if the configuration says so.
#[derive(Default, PartialEq)]
struct Slots {
    block: bool,
    region: bool,
    seq: bool,
    hash: bool,
    parent: bool,
}

struct KeySlots<'f> {
    fields: &'f Fields,
}

impl<'j> DeserializeSeed<'j> for KeySlots<'_> {
    type Value = Slots;
    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Slots, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySlots<'_> {
    type Value = Slots;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Slots, E> {
        Ok(Slots {
            block: key == self.fields.block,
            region: key == self.fields.region,
            seq: self.fields.seq.as_deref() == Some(key),
            hash: self.fields.hash.as_deref() == Some(key),
            parent: self.fields.parent.as_deref() == Some(key),
        })
    }
}
