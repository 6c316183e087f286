//! The fields that say where an event belongs, taken from its JSON without reading the rest.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::Fields;
use crate::model::field_type::Given;
use crate::model::json_scan::{Layout, members};
use crate::model::limits::REGION_BYTES_MAX;
use crate::model::position::check_position;

/// What the fields say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'j> {
    pub(super) block: i64,
    pub(super) region: Cow<'j, str>,
    pub(super) seq: Option<i64>,
    pub(super) hash: Option<Cow<'j, str>>,
    pub(super) parent: Option<Cow<'j, str>>,
    pub(super) position: Option<Cow<'j, str>>,
}

/// What holds one event, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// What it is.
    pub(super) name: &'static str,
    /// What is expected: the rest of a sentence.
    pub(super) rule: &'static str,
}

impl Piece {
    /// A line of a file.
    pub(super) const LINE: Self = Self { name: "line", rule: "one event a line" };
    /// A record of CSV.
    pub(super) const RECORD: Self = Self { name: "record", rule: "one event a record" };
    /// A document, which may be spread over lines.
    pub(super) const DOCUMENT: Self = Self { name: "document", rule: "one event a document" };
}

/// Takes the fields out of events.
pub(super) struct HeadReader {
    fields: Fields,
    /// Those of them that may lie deeper, in the order of [`Field`].
    paths: Vec<FieldPath>,
    /// Which of the fields the keys of the last event were.
    layout: RefCell<Layout<Option<Slots>>>,
}

/// A field that a dotted name leads to.
struct FieldPath {
    field: Field,
    first: String,
    rest: Vec<String>,
}

/// A field of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Block,
    Region,
    Seq,
    Hash,
    Parent,
    Position,
}

/// How many of them there are.
pub(super) const FIELDS: usize = 6;

/// Each with its name, if it is wanted.
fn named(fields: &Fields) -> [(Field, Option<&String>); FIELDS] {
    [
        (Field::Block, Some(&fields.block)),
        (Field::Region, Some(&fields.region)),
        (Field::Seq, fields.seq.as_ref()),
        (Field::Hash, fields.hash.as_ref()),
        (Field::Parent, fields.parent.as_ref()),
        (Field::Position, fields.position.as_ref()),
    ]
}

impl HeadReader {
    pub(super) fn new(fields: Fields) -> Self {
        let path = |(field, name): (Field, Option<&String>)| {
            let mut steps = name?.split('.').map(str::to_owned);
            let (first, rest): (_, Vec<String>) = (steps.next()?, steps.collect());
            // A name with an empty step can only be the name of one field.
            let leads_on = !rest.is_empty() && !first.is_empty() && !rest.iter().any(String::is_empty);
            leads_on.then_some(FieldPath { field, first, rest })
        };
        let paths = named(&fields).into_iter().filter_map(path).collect();
        Self { fields, paths, layout: RefCell::default() }
    }

    /// Whether events say the position of the source after them.
    pub(super) fn has_positions(&self) -> bool {
        self.fields.position.is_some()
    }

    /// Reads the head of an event. Its block is 0 where there is no field of it.
    ///
    /// # Errors
    /// The line is no JSON object, or a field is missing or of another type. The message names the field.
    pub(super) fn read<'j>(&self, json: &'j str) -> Result<Head<'j>, HeadError> {
        if let Some(kind) = kind_of_other(json) {
            return Err(HeadError::Other(kind));
        }
        let raw = self.raw_fields(json).map_err(HeadError::Json)?;
        Ok(self.head_of(&raw)?)
    }

    fn head_of<'j>(&self, raw: &RawFields<'j>) -> Result<Head<'j>, String> {
        let fields = &self.fields;
        Ok(Head {
            block: if fields.block.is_empty() { 0 } else { block(&fields.block, raw.block)? },
            region: region(&fields.region, raw.region)?,
            seq: fields.seq.as_deref().map(|seq| integer(seq, raw.seq)).transpose()?,
            hash: fields.hash.as_deref().map_or(Ok(None), |field| hash(field, raw.hash))?,
            parent: fields.parent.as_deref().map_or(Ok(None), |field| hash(field, raw.parent))?,
            position: fields.position.as_deref().map_or(Ok(None), |field| position(field, raw.position))?,
        })
    }

    /// The block of what has a block and nothing else.
    pub(super) fn only_block(&self, json: &str) -> Option<i64> {
        let name = &self.fields.block;
        let nested = || name.split('.').try_fold(json, sole);
        integer(name, sole(json, name).or_else(nested)).ok()
    }

    /// Reads as much of the head of an event as is as it should be; nothing, if the line is no JSON object.
    pub(super) fn read_part<'j>(&self, json: &'j str) -> PartOfHead<'j> {
        let fields = &self.fields;
        let Some(raw) = self.raw_fields(json).ok().filter(|_| kind_of_other(json).is_none()) else {
            return PartOfHead::default();
        };
        PartOfHead {
            block: block(&fields.block, raw.block).ok(),
            region: region(&fields.region, raw.region).ok(),
            seq: fields.seq.as_deref().and_then(|seq| integer(seq, raw.seq).ok()),
            hash: fields.hash.as_deref().and_then(|field| hash(field, raw.hash).ok().flatten()),
            parent: fields.parent.as_deref().and_then(|field| hash(field, raw.parent).ok().flatten()),
            position: fields.position.as_deref().and_then(|field| position(field, raw.position).ok().flatten()),
        }
    }

    /// The fields of an event, if nothing in it is unusual.
    fn scan<'j>(&self, json: &'j str) -> Option<RawFields<'j>> {
        let mut found = RawFields::default();
        let mut layout = self.layout.try_borrow_mut().ok()?;
        let is_read = layout.members(
            json,
            |key| Some(self.slots(key)).filter(|slots| *slots != Slots::default()),
            |slots| slots,
            |slots, at| {
                if let Some(value) = json.get(at) {
                    found.put(slots, value);
                }
            },
        );
        is_read.then_some(found)
    }

    /// Which of the fields a key is.
    fn slots(&self, key: &str) -> Slots {
        let fields = &self.fields;
        Slots {
            block: key == fields.block,
            region: key == fields.region,
            seq: fields.seq.as_deref() == Some(key),
            hash: fields.hash.as_deref() == Some(key),
            parent: fields.parent.as_deref() == Some(key),
            position: fields.position.as_deref() == Some(key),
            paths: self.paths.iter().enumerate().fold(0, |bits, (at, path)| bits | u8::from(path.first == key) << at),
        }
    }

    /// Reads the head of an event whose fields are texts. A dotted name is the name of one field here.
    ///
    /// # Errors
    /// As [`HeadReader::read`].
    pub(super) fn of_texts<'t>(&self, texts: &'t HeadTexts<'_>) -> Result<Head<'t>, String> {
        let fields = &self.fields;
        let text = |field| texts.get(field);
        Ok(Head {
            block: if fields.block.is_empty() { 0 } else { block_text(&fields.block, text(Field::Block))? },
            region: region_text(&fields.region, text(Field::Region))?,
            seq: fields.seq.as_deref().map(|seq| integer_text(seq, text(Field::Seq))).transpose()?,
            hash: fields.hash.as_deref().map_or(Ok(None), |field| hash_text(field, text(Field::Hash)))?,
            parent: fields.parent.as_deref().map_or(Ok(None), |field| hash_text(field, text(Field::Parent)))?,
            position: fields
                .position
                .as_deref()
                .map_or(Ok(None), |field| position_text(field, text(Field::Position)))?,
        })
    }

    /// Reads as much of that as is as it should be.
    pub(super) fn part_of_texts<'t>(&self, texts: &'t HeadTexts<'_>) -> PartOfHead<'t> {
        let fields = &self.fields;
        let text = |field| texts.get(field);
        PartOfHead {
            block: block_text(&fields.block, text(Field::Block)).ok(),
            region: region_text(&fields.region, text(Field::Region)).ok(),
            seq: fields.seq.as_deref().and_then(|seq| integer_text(seq, text(Field::Seq)).ok()),
            hash: fields.hash.as_deref().and_then(|field| hash_text(field, text(Field::Hash)).ok().flatten()),
            parent: fields.parent.as_deref().and_then(|field| hash_text(field, text(Field::Parent)).ok().flatten()),
            position: fields
                .position
                .as_deref()
                .and_then(|field| position_text(field, text(Field::Position)).ok().flatten()),
        }
    }

    /// The fields of the head that are wanted, with their names.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (Field, &str)> {
        named(&self.fields).into_iter().filter_map(|(field, name)| Some((field, name?.as_str())))
    }

    fn raw_fields<'j>(&self, json: &'j str) -> serde_json::Result<RawFields<'j>> {
        let mut raw = match self.scan(json) {
            Some(raw) => raw,
            None => {
                let mut parser = serde_json::Deserializer::from_str(json);
                RawHead { reader: self }.deserialize(&mut parser).and_then(|raw| parser.end().map(|()| raw))?
            }
        };
        for (path, at) in self.paths.iter().zip(raw.nested) {
            // A key that holds the dots itself comes first.
            let slot = raw.slot(path.field);
            if slot.is_none() {
                *slot = at.and_then(|at| descend(at, &path.rest));
            }
        }
        Ok(raw)
    }
}

/// The value of the only member of an object, if it has that key.
fn sole<'j>(json: &'j str, key: &str) -> Option<&'j str> {
    let (mut count, mut found) = (0, None);
    let is_object = members(json, |name, value| {
        count += 1;
        found = (name == key).then_some(value);
    });
    found.filter(|_| is_object && count == 1)
}

/// The value that the steps lead to, from an object on.
fn descend<'j>(mut raw: &'j str, steps: &[String]) -> Option<&'j str> {
    for step in steps {
        raw = serde_json::Deserializer::from_str(raw).deserialize_map(OneField { name: step }).ok()??;
    }
    Some(raw)
}

/// Finds one field of an object: the last of that name.
struct OneField<'n> {
    name: &'n str,
}

impl<'j> Visitor<'j> for OneField<'_> {
    type Value = Option<&'j str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'j, str>>()? {
            if key == self.name {
                found = Some(map.next_value::<&'j RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// What can be read of the head of an event that [`HeadReader::read`] refuses.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct PartOfHead<'j> {
    pub(super) block: Option<i64>,
    pub(super) region: Option<Cow<'j, str>>,
    pub(super) seq: Option<i64>,
    pub(super) hash: Option<Cow<'j, str>>,
    pub(super) parent: Option<Cow<'j, str>>,
    pub(super) position: Option<Cow<'j, str>>,
}

/// What a line is that is JSON of another kind.
fn kind_of_other(json: &str) -> Option<&'static str> {
    match json.bytes().next()? {
        b'[' => Some("a list"),
        b'"' => Some("a text"),
        b'-' | b'0'..=b'9' => Some("a number"),
        b't' | b'f' if matches!(json, "true" | "false") => Some("a boolean"),
        b'n' if json == "null" => Some("null"),
        _ => None,
    }
}

/// Why the head of an event cannot be read.
#[derive(Debug)]
pub(super) enum HeadError {
    /// It is JSON of another kind.
    Other(&'static str),
    /// It is no JSON.
    Json(serde_json::Error),
    /// A field is missing, or is not what it should be.
    Field(String),
}

impl From<String> for HeadError {
    fn from(message: String) -> Self {
        Self::Field(message)
    }
}

impl HeadError {
    /// What is told of a piece. `place` names a line and a column of it, both from 1.
    pub(super) fn explain(self, piece: Piece, place: impl FnOnce(usize, usize) -> String) -> String {
        match self {
            Self::Other("a list") if piece == Piece::LINE => {
                "expected a JSON object, got a list; events are one object a line, and [source] format = \"json\" reads \
                 lists of them"
                    .to_owned()
            }
            Self::Other(kind) => format!("expected a JSON object, got {kind}"),
            Self::Json(error) => {
                let (name, place) = (piece.name, place(error.line(), error.column()));
                if error.is_eof() {
                    return format!(
                        "expected a JSON object; the {name} breaks off at {place}: was the file cut off, or is it still \
                         being written?"
                    );
                }
                let text = error.to_string();
                let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
                format!("expected a JSON object; at {place}: {text}")
            }
            Self::Field(message) => message,
        }
    }
}

fn missing_integer(field: &str) -> String {
    format!("field {field:?} is missing; expected an integer of 64 bits")
}

fn missing_hash(field: &str) -> String {
    format!("field {field:?} is missing; expected the hash of a block, or null")
}

fn missing_region(field: &str) -> String {
    format!("field {field:?} is missing; expected the name of a region")
}

fn no_region(field: &str, raw: &str) -> String {
    format!("field {field:?}: expected the name of a region, a text that is not empty, got {}", shown(raw))
}

/// What a field has, for a message.
fn shown(raw: &str) -> String {
    if raw.is_empty() { "an empty text".to_owned() } else { shorten(raw) }
}

fn integer(field: &str, raw: Option<&str>) -> Result<i64, String> {
    let raw = raw.ok_or_else(|| missing_integer(field))?;
    if let Ok(number) = raw.parse() {
        return Ok(number);
    }
    let number = match raw.as_bytes().first() {
        Some(b'"') => text(raw).and_then(|text| Given::Text(&text).integer()),
        Some(b'-' | b'0'..=b'9') => Given::Number(raw).integer(),
        _ => None,
    };
    number.ok_or_else(|| {
        format!(
            "field {field:?}: expected an integer of 64 bits, also as a text such as \"17\" or \"0x1f\", got {}",
            shorten(raw)
        )
    })
}

/// The number of a block.
fn block(field: &str, raw: Option<&str>) -> Result<i64, String> {
    integer(field, raw).and_then(|block| checked_block(field, block))
}

/// There is a block before each, to which a rollback can go.
fn checked_block(field: &str, block: i64) -> Result<i64, String> {
    match block {
        i64::MIN => Err(format!("field {field:?}: expected a block of {} or more, got {block}", i64::MIN + 1)),
        block => Ok(block),
    }
}

/// The hash of a block; none where it is null.
fn hash<'j>(field: &str, raw: Option<&'j str>) -> Result<Option<Cow<'j, str>>, String> {
    let raw = raw.ok_or_else(|| missing_hash(field))?;
    let refused =
        || format!("field {field:?}: expected the hash of a block, a text that is not empty, got {}", shorten(raw));
    match raw.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') if raw.len() > 2 => text(raw).map(Some).ok_or_else(refused),
        _ => Err(refused()),
    }
}

const POSITION: &str = "the position of the source after the event, a text or an integer, or null";

fn missing_position(field: &str) -> String {
    format!("field {field:?} is missing; expected {POSITION}")
}

/// The position of the source after an event; none where it is null.
fn position<'j>(field: &str, raw: Option<&'j str>) -> Result<Option<Cow<'j, str>>, String> {
    let raw = raw.ok_or_else(|| missing_position(field))?;
    let position = match raw.as_bytes().first() {
        Some(b'n') => return Ok(None),
        Some(b'"') => text(raw),
        Some(b'-' | b'0'..=b'9') if !raw.contains(['.', 'e', 'E']) => Some(Cow::Borrowed(raw)),
        Some(b'-' | b'0'..=b'9') => Given::Number(raw).integer().map(|number| number.to_string().into()),
        _ => None,
    };
    let position = position.ok_or_else(|| format!("field {field:?}: expected {POSITION}, got {}", shorten(raw)))?;
    check_position(&position).map_err(|error| format!("field {field:?}: {error}"))?;
    Ok(Some(position))
}

/// The same of a text; none where it is empty.
fn position_text<'t>(field: &str, text: Option<&'t str>) -> Result<Option<Cow<'t, str>>, String> {
    let text = text.ok_or_else(|| missing_position(field))?;
    check_position(text).map_err(|error| format!("field {field:?}: {error}"))?;
    Ok(Some(text).filter(|text| !text.is_empty()).map(Cow::Borrowed))
}

/// A JSON text without its quotes.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    match raw.contains('\\') {
        false => raw.get(1..raw.len() - 1).map(Cow::Borrowed),
        true => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
    }
}

fn region<'j>(field: &str, raw: Option<&'j str>) -> Result<Cow<'j, str>, String> {
    let raw = raw.ok_or_else(|| missing_region(field))?;
    let refused = || no_region(field, raw);
    let name = match raw.as_bytes().first() {
        Some(b'"') => text(raw).ok_or_else(refused)?,
        // A number names a region by its digits: a chain's id, for example. 17.0 is 17.
        Some(b'-' | b'0'..=b'9') if raw.parse::<i64>().is_ok() => Cow::Borrowed(raw),
        Some(b'-' | b'0'..=b'9') => Given::Number(raw).integer().map(|id| id.to_string().into()).ok_or_else(refused)?,
        _ => return Err(refused()),
    };
    check_region(field, &name, raw)?;
    Ok(name)
}

fn check_region(field: &str, name: &str, raw: &str) -> Result<(), String> {
    if name.len() > REGION_BYTES_MAX {
        return Err(format!(
            "field {field:?}: a region's name of {} bytes; expected at most {REGION_BYTES_MAX}: {}",
            name.len(),
            shorten(raw)
        ));
    }
    if name.is_empty() || name.contains('\0') { Err(no_region(field, raw)) } else { Ok(()) }
}

/// The fields of a head as texts.
#[derive(Debug, Default)]
pub(super) struct HeadTexts<'t>([Option<Cow<'t, str>>; FIELDS]);

impl<'t> HeadTexts<'t> {
    /// Sets the text of a field: of several the last one counts.
    pub(super) fn set(&mut self, field: Field, text: Cow<'t, str>) {
        self.0[field as usize] = Some(text);
    }

    fn get(&self, field: Field) -> Option<&str> {
        self.0[field as usize].as_deref()
    }
}

/// An integer in a text. Whoever has only texts writes numbers so too: `17.0` is 17.
fn integer_text(field: &str, text: Option<&str>) -> Result<i64, String> {
    let text = text.ok_or_else(|| missing_integer(field))?;
    if text.as_bytes().first().is_some_and(u8::is_ascii_digit)
        && let Ok(number) = text.parse()
    {
        return Ok(number);
    }
    let number = Given::Text(text).integer().or_else(|| Given::Number(json_number(text)?).integer());
    number.ok_or_else(|| {
        format!("field {field:?}: expected an integer of 64 bits such as 17 or 0x1f, got {}", shown(text))
    })
}

/// A text that JSON has as a number.
fn json_number(text: &str) -> Option<&str> {
    let begins = text.bytes().next().is_some_and(|byte| byte == b'-' || byte.is_ascii_digit());
    begins.then(|| serde_json::from_str::<&RawValue>(text).ok()).flatten().map(RawValue::get)
}

/// The number of a block in a text.
fn block_text(field: &str, text: Option<&str>) -> Result<i64, String> {
    integer_text(field, text).and_then(|block| checked_block(field, block))
}

/// The hash of a block in a text; none where it is empty.
fn hash_text<'t>(field: &str, text: Option<&'t str>) -> Result<Option<Cow<'t, str>>, String> {
    let text = text.ok_or_else(|| missing_hash(field))?;
    Ok(Some(text).filter(|text| !text.is_empty()).map(Cow::Borrowed))
}

fn region_text<'t>(field: &str, text: Option<&'t str>) -> Result<Cow<'t, str>, String> {
    let name = text.ok_or_else(|| missing_region(field))?;
    check_region(field, name, name)?;
    Ok(Cow::Borrowed(name))
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
    position: Option<&'j str>,
    /// For each path, the value of its first step.
    nested: [Option<&'j str>; FIELDS],
}

impl<'j> RawFields<'j> {
    fn put(&mut self, slots: Slots, raw: &'j str) {
        for (is_here, slot) in [
            (slots.block, &mut self.block),
            (slots.region, &mut self.region),
            (slots.seq, &mut self.seq),
            (slots.hash, &mut self.hash),
            (slots.parent, &mut self.parent),
            (slots.position, &mut self.position),
        ] {
            if is_here {
                *slot = Some(raw);
            }
        }
        if slots.paths != 0 {
            for (at, slot) in self.nested.iter_mut().enumerate() {
                if slots.paths & (1 << at) != 0 {
                    *slot = Some(raw);
                }
            }
        }
    }

    fn slot(&mut self, field: Field) -> &mut Option<&'j str> {
        match field {
            Field::Block => &mut self.block,
            Field::Region => &mut self.region,
            Field::Seq => &mut self.seq,
            Field::Hash => &mut self.hash,
            Field::Parent => &mut self.parent,
            Field::Position => &mut self.position,
        }
    }
}

struct RawHead<'f> {
    reader: &'f HeadReader,
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
        while let Some(slots) = map.next_key_seed(KeySlots { reader: self.reader })? {
            if slots == Slots::default() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            found.put(slots, map.next_value::<&'j RawValue>()?.get());
        }
        Ok(found)
    }
}

/// Which of the fields a key is: more than one, if the configuration says so.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Slots {
    block: bool,
    region: bool,
    seq: bool,
    hash: bool,
    parent: bool,
    position: bool,
    /// A bit for each path that begins with it.
    paths: u8,
}

struct KeySlots<'f> {
    reader: &'f HeadReader,
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
        Ok(self.reader.slots(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(block: &str, region: &str, seq: Option<&str>) -> HeadReader {
        let fields = Fields { block: block.into(), region: region.into(), ..Fields::default() };
        HeadReader::new(Fields { seq: seq.map(str::to_owned), ..fields })
    }

    fn explained(problem: HeadError) -> String {
        problem.explain(Piece::LINE, |_, column| format!("column {column}"))
    }

    #[test]
    fn integers_come_in_many_forms() {
        let reader = reader("block", "region", Some("seq"));
        for (block, expected) in [
            ("17", 17),
            ("\"17\"", 17),
            ("\"\\u0031\"", 1),
            ("\"0xc5d488\"", 12_965_000),
            ("17000000.0", 17_000_000),
            ("1.7e7", 17_000_000),
            ("-9223372036854775807", i64::MIN + 1),
        ] {
            let json = format!(r#"{{"block":{block},"region":"r","seq":"0x1"}}"#);
            let head = reader.read(&json).expect(&json);
            assert_eq!((head.block, head.seq), (expected, Some(1)), "{json}");
        }
        let below = reader.read(r#"{"block":-9223372036854775808,"region":"r","seq":1}"#).map(|head| head.block);
        assert!(explained(below.expect_err("refused")).contains("-9223372036854775807 or more"));
        for block in ["1.5", "\"1.5\"", "\"\"", "\"0x\"", "9223372036854775808", "null", "true", "[1]", "{\"a\":1}"] {
            let json = format!(r#"{{"block":{block},"region":"r","seq":1}}"#);
            let problem = explained(reader.read(&json).expect_err(&json));
            assert!(problem.contains("\"block\": expected an integer of 64 bits"), "{json}: {problem}");
            assert!(problem.ends_with(block), "{json}: {problem}");
        }
    }

    #[test]
    fn a_dotted_name_leads_into_objects_unless_a_key_holds_it() {
        let reader = reader("a.b.n", "repo.name", Some("repo.id"));
        for (json, expected) in [
            (r#"{"a":{"b":{"n":3}},"repo":{"name":"x","id":7}}"#, Ok((3, "x", 7))),
            (r#"{"repo":{"id":"7","name":5.0,"id":8},"a":{"x":1,"b":{"n":"0x3"}}}"#, Ok((3, "5", 8))),
            (r#"{"a":{"b":{"n":3}},"repo":{"name":"x","id":7},"repo.id":9}"#, Ok((3, "x", 9))),
            (r#"{"a.b.n":1,"repo.name":"y","repo.id":2,"repo":3}"#, Ok((1, "y", 2))),
            (r#"{"a":{"b":{"n":3}},"repo":{"name":true,"id":7}}"#, Err("field \"repo.name\": expected the name")),
            (r#"{"a":{"b":{"n":3}},"repo":{"name":"x"}}"#, Err("field \"repo.id\" is missing")),
            (r#"{"a":{"b":3},"repo":{"name":"x","id":1}}"#, Err("field \"a.b.n\" is missing")),
            (r#"{"a":[{"b":3}],"repo":{"name":"x","id":1}}"#, Err("field \"a.b.n\" is missing")),
            (r#"{"a":{"b":{"n":3}},"repo":{"name":"x","id":7}"#, Err("the line breaks off at column")),
        ] {
            match (reader.read(json), expected) {
                (Ok(head), Ok((block, region, seq))) => {
                    assert_eq!((head.block, &*head.region, head.seq), (block, region, Some(seq)), "{json}");
                }
                (Err(problem), Err(says)) => {
                    let problem = explained(problem);
                    assert!(problem.contains(says), "{json}: {problem}");
                }
                (got, _) => panic!("{json}: {got:?}"),
            }
        }
    }

    #[test]
    fn what_has_only_a_block_says_so() {
        let (plain, dotted) = (reader("block", "region", None), reader("a.n", "region", None));
        for (reader, json, block) in [
            (&plain, r#"{"block":18}"#, Some(18)),
            (&plain, r#" { "block" : "0x12" } "#, Some(18)),
            (&plain, r#"{"block":18,"region":null}"#, None),
            (&plain, r#"{"block":"x"}"#, None),
            (&plain, r#"{"blocks":18}"#, None),
            (&plain, "18", None),
            (&dotted, r#"{"a":{"n":18}}"#, Some(18)),
            (&dotted, r#"{"a.n":18}"#, Some(18)),
            (&dotted, r#"{"a":{"n":18,"m":1}}"#, None),
            (&dotted, r#"{"a":18}"#, None),
        ] {
            assert_eq!(reader.only_block(json), block, "{json}");
        }
    }

    #[test]
    fn a_position_is_a_text_an_integer_or_null() {
        let fields = Fields { position: Some("at.cursor".into()), ..Fields::default() };
        let reader = HeadReader::new(fields);
        let long = format!("\"{}\"", "p".repeat(1025));
        for (value, expected) in [
            ("\"0/16B3748\"", Ok(Some("0/16B3748"))),
            ("\"\"", Ok(Some(""))),
            ("\"a\\tb\"", Ok(Some("a\tb"))),
            ("17", Ok(Some("17"))),
            ("123456789012345678901234567890", Ok(Some("123456789012345678901234567890"))),
            ("1.7e1", Ok(Some("17"))),
            ("null", Ok(None)),
            ("1.5", Err("or an integer, or null, got 1.5")),
            ("[1]", Err("or an integer, or null, got [1]")),
            ("\"a\\u0000\"", Err("a position with a NUL in it")),
            (long.as_str(), Err("a position of 1025 bytes; expected at most 1024")),
        ] {
            let json = format!(r#"{{"block":1,"region":"r","at":{{"cursor":{value}}}}}"#);
            let part = reader.read_part(&json).position;
            match (reader.read(&json), expected) {
                (Ok(head), Ok(position)) => {
                    assert_eq!((head.position.as_deref(), part.as_deref()), (position, position));
                }
                (Err(problem), Err(says)) => {
                    let problem = explained(problem);
                    assert!(
                        problem.starts_with("field \"at.cursor\": ") && problem.contains(says),
                        "{json}: {problem}"
                    );
                    assert_eq!(part, None);
                }
                (got, _) => panic!("{json}: {got:?}"),
            }
        }
        let missing = explained(reader.read(r#"{"block":1,"region":"r"}"#).expect_err("it is missing"));
        assert!(missing.starts_with("field \"at.cursor\" is missing; expected the position"), "{missing}");
    }

    #[test]
    fn a_name_with_dots_at_its_ends_is_one_field() {
        let head = reader(".n", "r.", None).read(r#"{".n":1,"r.":"x","":{"n":2},"r":{"":"y"}}"#).map(|head| head.block);
        assert_eq!(head.ok(), Some(1));
    }
}
