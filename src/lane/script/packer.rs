//! Packs events for a VM: only the fields that its handlers read, many events in one text.
//!
//! Which fields are read is learnt: a field that a handler asks for the first time is fetched on its own, and from the
//! next chunk on it comes along ("hot"). A text that occurs again and again crosses once and is then a number. The
//! kinds of an event's fields are its *shape*; the VM has a reader for each shape, compiled once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use foldhash::fast::RandomState;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{Scalar, scalar};
use crate::stage::codec::Writer;

/// Hot fields at most; a reader of more would not compile (200 locals in Lua). The rest is fetched on demand.
const HOT_FIELDS_MAX: usize = 100;
/// Shapes at most. Events of yet another one carry the kinds of their fields along.
const SHAPES_MAX: usize = 200;
/// Texts that are remembered at most, and the longest that is.
const TEXTS_MAX: usize = 65_536;
const TEXT_BYTES_MAX: usize = 128;
/// Bytes that a remembered text takes beside itself, about: its entry in the map, twice for the room that it leaves.
const TEXT_OVERHEAD_BYTES: usize = 64;
/// After how many texts it is decided whether a field's texts recur.
const TRIAL: u32 = 20_000;

/// What stands before an event's fields: its shape, its block, its writer.
const EVENT_HEAD_BYTES: usize = 2 + 8 + 8;

/// A new shape: its number and the kinds of the hot fields, one letter each.
pub(super) struct NewShape {
    pub(super) number: u16,
    pub(super) kinds: String,
}

/// What one chunk of events needs to be known in the VM before it.
#[derive(Default)]
pub(super) struct News {
    pub(super) shapes: Vec<NewShape>,
    /// New texts, each behind its length of 4 bytes, and the number of the first; it is 1 if all older ones are void.
    pub(super) texts: Vec<u8>,
    pub(super) first_text: usize,
}

/// The packer of one VM.
pub(super) struct Packer {
    hot: Vec<HotField>,
    shapes: HashMap<Vec<u8>, u16, RandomState>,
    texts: HashMap<Box<str>, u32, RandomState>,
    text_bytes: usize,
    news: News,
    kinds: Vec<u8>,
}

struct HotField {
    name: String,
    seen: u32,
    recurred: u32,
}

impl HotField {
    /// Whether it is worth remembering this field's texts: as long as it is not known that most occur once.
    fn recurs(&self) -> bool {
        self.seen < TRIAL || self.recurred * 2 > self.seen
    }
}

impl Packer {
    pub(super) fn new() -> Self {
        let news = News { first_text: 1, ..News::default() };
        Self {
            hot: Vec::new(),
            shapes: HashMap::default(),
            texts: HashMap::default(),
            text_bytes: 0,
            news,
            kinds: Vec::new(),
        }
    }

    /// Makes a field come along from the next chunk on; false if it does already or there are too many.
    pub(super) fn heat(&mut self, name: &str) -> bool {
        if self.hot.len() >= HOT_FIELDS_MAX || self.hot.iter().any(|field| field.name == name) {
            return false;
        }
        self.hot.push(HotField { name: name.to_owned(), seen: 0, recurred: 0 });
        self.shapes.clear();
        true
    }

    /// The names of the hot fields.
    pub(super) fn hot_names(&self) -> Vec<&str> {
        self.hot.iter().map(|field| field.name.as_str()).collect()
    }

    /// To be called before each chunk: forgets the texts when there are too many, if it `may_forget`: no packed event
    /// that refers to them is yet to be handled.
    pub(super) fn begin_chunk(&mut self, may_forget: bool) {
        if may_forget && self.texts.len() >= TEXTS_MAX {
            self.forget();
        }
        self.news = News { first_text: self.texts.len() + 1, ..News::default() };
    }

    /// Forgets the texts: those of the next chunk cross anew. To be called between chunks.
    pub(super) fn forget(&mut self) {
        self.texts = HashMap::default();
        self.text_bytes = 0;
    }

    /// Bytes of memory that the texts take, about.
    pub(super) fn memory_bytes(&self) -> usize {
        self.text_bytes
    }

    /// What is new since [`Packer::begin_chunk`].
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Appends one event.
    ///
    /// # Errors
    /// The text is no JSON object.
    pub(super) fn push(&mut self, json: &str, block: i64, writer: Writer, packed: &mut Vec<u8>) -> Result<(), String> {
        let mut raw = vec![None; self.hot.len()];
        let mut parser = serde_json::Deserializer::from_str(json);
        HotValues { hot: &self.hot, raw: &mut raw }.deserialize(&mut parser).map_err(|error| error.to_string())?;
        let start = packed.len();
        packed.extend([0, 0]);
        packed.extend(block.to_le_bytes());
        packed.extend(writer.0.to_le_bytes());
        self.kinds.clear();
        for (at, raw) in raw.iter().enumerate() {
            let kind = self.push_value(at, *raw, packed);
            self.kinds.push(kind);
        }
        match self.shape() {
            Some(shape) => packed[start..start + 2].copy_from_slice(&shape.to_le_bytes()),
            None => self.push_loose(start, &raw, packed),
        }
        Ok(())
    }

    /// The number of the current kinds' shape; none if there are too many shapes.
    fn shape(&mut self) -> Option<u16> {
        if let Some(shape) = self.shapes.get(&self.kinds) {
            return Some(*shape);
        }
        if self.shapes.len() >= SHAPES_MAX {
            return None;
        }
        let number = u16::try_from(self.shapes.len() + 1).ok()?;
        self.shapes.insert(self.kinds.clone(), number);
        let kinds = String::from_utf8_lossy(&self.kinds).into_owned();
        self.news.shapes.push(NewShape { number, kinds });
        Some(number)
    }

    /// Packs the event again as shape 0: each value behind its kind.
    fn push_loose(&mut self, start: usize, raw: &[Option<&str>], packed: &mut Vec<u8>) {
        packed.truncate(start + EVENT_HEAD_BYTES);
        for (at, raw) in raw.iter().enumerate() {
            let kind_at = packed.len();
            packed.push(0);
            packed[kind_at] = self.push_value(at, *raw, packed);
        }
    }

    /// Appends one value; returns its kind.
    fn push_value(&mut self, at: usize, raw: Option<&str>, packed: &mut Vec<u8>) -> u8 {
        let Some(raw) = raw else { return b'n' };
        // What cannot be read does not come along; who asks for it is told.
        let Ok(value) = scalar(raw) else { return b'x' };
        match value {
            Scalar::Null => b'n',
            Scalar::Boolean(true) => b't',
            Scalar::Boolean(false) => b'f',
            Scalar::Integer(value) => {
                packed.extend(value.to_le_bytes());
                b'i'
            }
            Scalar::Float(value) => {
                packed.extend(value.to_le_bytes());
                b'd'
            }
            Scalar::LongInteger(digits) => {
                put_text(packed, digits);
                b'N'
            }
            Scalar::Nested(json) => {
                put_text(packed, json);
                b'j'
            }
            Scalar::Text(text) => self.push_text(at, &text, packed),
        }
    }

    fn push_text(&mut self, at: usize, text: &str, packed: &mut Vec<u8>) -> u8 {
        let field = &mut self.hot[at];
        if text.len() <= TEXT_BYTES_MAX && field.recurs() {
            field.seen = field.seen.saturating_add(1);
            if let Some(number) = self.texts.get(text) {
                field.recurred = field.recurred.saturating_add(1);
                packed.extend(number.to_le_bytes());
                return b'r';
            }
            if let Some(number) = u32::try_from(self.texts.len() + 1).ok().filter(|_| self.texts.len() < 2 * TEXTS_MAX)
            {
                self.texts.insert(text.into(), number);
                self.text_bytes += text.len() + TEXT_OVERHEAD_BYTES;
                put_text(&mut self.news.texts, text);
                packed.extend(number.to_le_bytes());
                return b'r';
            }
        }
        put_text(packed, text);
        b's'
    }
}

fn put_text(packed: &mut Vec<u8>, text: &str) {
    // No line of a source is near 4 GiB.
    packed.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    packed.extend(text.as_bytes());
}

/// Takes the raw values of the hot fields out of an object.
struct HotValues<'h, 'r, 'j> {
    hot: &'h [HotField],
    raw: &'r mut [Option<&'j str>],
}

impl<'j> DeserializeSeed<'j> for HotValues<'_, '_, 'j> {
    type Value = ();
    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'j> Visitor<'j> for HotValues<'_, '_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(place) = map.next_key_seed(KeyPlace(self.hot))? {
            match place {
                Some(at) => self.raw[at] = Some(map.next_value::<&'j RawValue>()?.get()),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// The place of a key among the hot fields.
struct KeyPlace<'h>(&'h [HotField]);

impl<'j> DeserializeSeed<'j> for KeyPlace<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyPlace<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|field| field.name == key))
    }
}

/// The raw JSON of one field; none if the object has no such field.
///
/// # Errors
/// The text is no JSON object.
pub(super) fn raw_field<'j>(json: &'j str, name: &str) -> Result<Option<&'j str>, String> {
    let hot = [HotField { name: name.to_owned(), seen: 0, recurred: 0 }];
    let mut raw = [None];
    let mut parser = serde_json::Deserializer::from_str(json);
    HotValues { hot: &hot, raw: &mut raw }.deserialize(&mut parser).map_err(|error| error.to_string())?;
    Ok(raw[0])
}

/// An integer of 64 bits from a text of digits.
pub(super) fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// What Lua hands over as text: UTF-8, or with what is not replaced.
pub(super) fn lossy(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}
