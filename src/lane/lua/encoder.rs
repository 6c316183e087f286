//! Encodes events for a VM: only the fields that its handlers read, many events in one text.
//!
//! It learns which fields are read: a field that a handler asks for the first time is fetched on its own, and is
//! *projected* (sent along) from the next chunk on. A text that recurs crosses once, and is a number after that. The
//! kinds of an event's fields are its *shape*; the VM has a reader for each shape, compiled once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{Scalar, is_nested, scalar, typed};
use crate::model::field_type::{FieldTree, FieldTypes, TypedValue};
use crate::model::json_scan::Layout;
use crate::model::json_text::whole_characters;
use crate::model::numeric::Numeric;
use crate::rows::codec::{NUMERIC_LIMB, Writer};

/// Projected fields at most; a reader of more would not compile (200 locals in Lua). The rest is fetched on demand.
const PROJECTED_FIELDS_MAX: usize = 100;
/// Shapes at most. Events of yet another one carry the kinds of their fields along.
const SHAPES_MAX: usize = 200;
/// Texts that are remembered at most, and the longest that is.
const TEXTS_MAX: usize = 65_536;
const TEXT_BYTES_MAX: usize = 128;
/// Bytes that a remembered text takes beside itself, about: its entry in the map, twice for the room that it leaves.
const TEXT_OVERHEAD_BYTES: usize = 64;
/// A value of more bytes is not sent along: whoever asks for it gets it out of the page, without copies on the way.
const SENT_BYTES_MAX: usize = 64 * 1024;
/// After how many texts it is decided whether a field's texts recur.
const TRIAL: u32 = 20_000;

/// What stands before an event's fields: its block, its writer.
const EVENT_HEAD_BYTES: usize = 8 + 8;

/// A whole number of two limbs is h·10¹⁸ + l, as in the packed form of rows.
const LIMB_DIGITS: usize = 18;
const LIMB: i64 = NUMERIC_LIMB as i64;
const DIGITS_MAX: usize = 2 * LIMB_DIGITS;

/// Fields of one event whose limbs come along at most: as many as the VM keeps at hand.
pub(super) const DECIMALS_MAX: usize = 4;

/// Fields of one event that come as the limbs of a number at most: a reader of more would not compile.
const NUMERICS_MAX: usize = 40;

/// A new shape: its number and the kinds of the projected fields, one letter each.
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

/// The encoder of one VM.
#[derive(Default)]
pub(super) struct EventEncoder {
    types: Arc<FieldTypes>,
    projected: Vec<ProjectedField>,
    /// Which of them the keys of the last event were.
    layout: Layout<Option<usize>>,
    /// Where the raw JSON of each projected field lies, of the event that is being packed.
    spans: Vec<Option<Range<usize>>>,
    run: Option<Run>,
    /// Fields of that event whose limbs come along.
    decimals: usize,
    /// Fields of that event that came as the limbs of a number.
    numerics: usize,
    shapes: HashMap<Vec<u8>, u16, RandomState>,
    texts: HashMap<Box<str>, u32, RandomState>,
    text_bytes: usize,
    news: News,
    kinds: Vec<u8>,
}

/// Events of one shape, one behind the other. Before them stand the shape and how many they are, 2 bytes each.
#[derive(Clone, Copy)]
struct Run {
    at: usize,
    shape: u16,
    len: u16,
}

struct ProjectedField {
    name: String,
    /// What is said of its type, and of those below it.
    tree: Option<Box<FieldTree>>,
    seen: u32,
    recurred: u32,
}

impl ProjectedField {
    /// Whether this field's texts are worth remembering: yes until most are seen to occur once.
    fn recurs(&self) -> bool {
        self.seen < TRIAL || self.recurred * 2 > self.seen
    }
}

impl EventEncoder {
    pub(super) fn new(types: Arc<FieldTypes>) -> Self {
        Self { types, news: News { first_text: 1, ..News::default() }, ..Self::default() }
    }

    /// Makes a field come along from the next chunk on; false if it does already or there are too many.
    pub(super) fn project(&mut self, name: &str) -> bool {
        if self.projected.len() >= PROJECTED_FIELDS_MAX || self.projected.iter().any(|field| field.name == name) {
            return false;
        }
        let tree = self.types.of(name).cloned().map(Box::new);
        self.projected.push(ProjectedField { name: name.to_owned(), tree, seen: 0, recurred: 0 });
        self.layout = Layout::default();
        self.shapes.clear();
        true
    }

    /// The names of the projected fields.
    pub(super) fn projected_names(&self) -> Vec<&str> {
        self.projected.iter().map(|field| field.name.as_str()).collect()
    }

    /// To be called before each chunk. Forgets the texts when there are too many, if it `may_forget`: no packed event
    /// that refers to them is waiting to be handled.
    pub(super) fn begin_chunk(&mut self, may_forget: bool) {
        if may_forget && self.texts.len() >= TEXTS_MAX {
            self.forget();
        }
        self.news = News { first_text: self.texts.len() + 1, ..News::default() };
        self.run = None;
    }

    /// To be called before each lane of a chunk but the first: its runs are its own.
    pub(super) fn begin_lane(&mut self) {
        self.run = None;
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

    /// What is new since [`EventEncoder::begin_chunk`].
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Appends one event.
    ///
    /// # Errors
    /// The text is no JSON object.
    pub(super) fn push(&mut self, json: &str, block: i64, writer: Writer, packed: &mut Vec<u8>) -> Result<(), String> {
        self.push_whole(json, block, writer, packed).or_else(|problem| match whole_characters(json) {
            Cow::Owned(json) => self.push_whole(&json, block, writer, packed),
            Cow::Borrowed(_) => Err(problem),
        })
    }

    fn push_whole(&mut self, json: &str, block: i64, writer: Writer, packed: &mut Vec<u8>) -> Result<(), String> {
        self.spans.clear();
        self.spans.resize(self.projected.len(), None);
        find_values(&self.projected, json, &mut self.layout, &mut self.spans)?;
        let start = packed.len();
        packed.extend(block.to_le_bytes());
        packed.extend(writer.0.to_le_bytes());
        self.kinds.clear();
        (self.decimals, self.numerics) = (0, 0);
        for at in 0..self.projected.len() {
            let kind = self.push_value(at, self.raw(json, at), packed);
            self.kinds.push(kind);
        }
        let shape = self.shape();
        if shape.is_none() {
            self.push_loose(start, json, packed);
        }
        self.note_shape(shape.unwrap_or(0), start, packed);
        Ok(())
    }

    /// The raw JSON of a projected field of the event that is being packed.
    fn raw<'j>(&self, json: &'j str, at: usize) -> Option<&'j str> {
        json.get(self.spans.get(at)?.clone()?)
    }

    /// Makes the event that begins at `start` part of a run.
    fn note_shape(&mut self, shape: u16, start: usize, packed: &mut Vec<u8>) {
        let run = match self.run {
            Some(run) if run.shape == shape && run.len < u16::MAX => Run { len: run.len + 1, ..run },
            _ => {
                packed.splice(start..start, [0; 4]);
                Run { at: start, shape, len: 1 }
            }
        };
        packed[run.at..run.at + 2].copy_from_slice(&shape.to_le_bytes());
        packed[run.at + 2..run.at + 4].copy_from_slice(&run.len.to_le_bytes());
        self.run = Some(run);
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
    fn push_loose(&mut self, start: usize, json: &str, packed: &mut Vec<u8>) {
        packed.truncate(start + EVENT_HEAD_BYTES);
        (self.decimals, self.numerics) = (0, 0);
        for at in 0..self.projected.len() {
            let kind_at = packed.len();
            packed.push(0);
            packed[kind_at] = self.push_value(at, self.raw(json, at), packed);
        }
    }

    /// Appends one value; returns its kind.
    fn push_value(&mut self, at: usize, raw: Option<&str>, packed: &mut Vec<u8>) -> u8 {
        let Some(raw) = raw else { return b'n' };
        if raw.len() > SENT_BYTES_MAX {
            return b'x';
        }
        // Taken out meanwhile, as the field's texts are counted too.
        match self.projected[at].tree.take() {
            None => self.push_scalar(at, raw, packed),
            Some(tree) => {
                let kind = self.push_typed(at, &tree, raw, packed);
                self.projected[at].tree = Some(tree);
                kind
            }
        }
    }

    /// Appends the value of a field of which a type is known, or the types of fields below; returns its kind.
    fn push_typed(&mut self, at: usize, tree: &FieldTree, raw: &str, packed: &mut Vec<u8>) -> u8 {
        let pushed = typed(tree, raw, |value| match value {
            TypedValue::Null => b'n',
            TypedValue::Numeric(number) => self.push_numeric(&number, packed),
            TypedValue::Bigint(value) => {
                packed.extend(value.to_le_bytes());
                b'i'
            }
            TypedValue::Double(value) => {
                packed.extend(value.to_le_bytes());
                b'd'
            }
            TypedValue::Text(text) => self.push_text(at, &text, packed),
            TypedValue::Time(time) => self.push_text(at, &time.to_string(), packed),
            TypedValue::Boolean(true) => b't',
            TypedValue::Boolean(false) => b'f',
            TypedValue::Json(json) if is_nested(json) => {
                put_text(packed, json);
                b'j'
            }
            TypedValue::Json(json) => self.push_scalar(at, json, packed),
        });
        match pushed {
            Ok(Some(kind)) => kind,
            // What is not of its type is not sent along; whoever asks for it gets the error.
            Err(_) => b'x',
            Ok(None) if is_nested(raw) => {
                put_text(packed, raw);
                b'j'
            }
            Ok(None) => self.push_scalar(at, raw, packed),
        }
    }

    fn push_scalar(&mut self, at: usize, raw: &str, packed: &mut Vec<u8>) -> u8 {
        // A value that cannot be read is not sent along; whoever asks for it gets the error.
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
            Scalar::Exact(digits) => {
                put_text(packed, &digits);
                b'N'
            }
            Scalar::Nested(json) => {
                put_text(packed, json);
                b'j'
            }
            Scalar::Text(text) => self.push_text(at, &text, packed),
        }
    }

    /// Appends an exact number: its limbs, or its text where they do not suffice or too many of them come along.
    fn push_numeric(&mut self, number: &Numeric, packed: &mut Vec<u8>) -> u8 {
        let limbs = number.to_i128().filter(|_| self.numerics < NUMERICS_MAX).and_then(|whole| {
            let high =
                i64::try_from(whole.div_euclid(NUMERIC_LIMB)).ok().filter(|high| (1 - LIMB..LIMB).contains(high))?;
            Some((high, i64::try_from(whole.rem_euclid(NUMERIC_LIMB)).ok()?))
        });
        let Some((high, low)) = limbs else {
            put_text(packed, &number.to_string());
            return b'Q';
        };
        self.numerics += 1;
        packed.extend(high.to_le_bytes());
        packed.extend(low.to_le_bytes());
        b'q'
    }

    fn push_text(&mut self, at: usize, text: &str, packed: &mut Vec<u8>) -> u8 {
        if self.decimals < DECIMALS_MAX
            && let Some((high, low)) = limbs(text)
        {
            self.decimals += 1;
            put_text(packed, text);
            packed.extend(high.to_le_bytes());
            packed.extend(low.to_le_bytes());
            return b'm';
        }
        let field = &mut self.projected[at];
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

/// The limbs of a text that is a whole number too long to be one of few: an amount, for which handlers want a number.
fn limbs(text: &str) -> Option<(i64, i64)> {
    const DIGITS_MIN: usize = 7;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !(DIGITS_MIN..=DIGITS_MAX).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // 18 digits fit 64 bits.
    let number = |digits: &str| digits.bytes().fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let (high, low) = digits.split_at(digits.len().saturating_sub(LIMB_DIGITS));
    match (number(high), number(low), digits.len() < text.len()) {
        (high, low, false) => Some((high, low)),
        (high, 0, true) => Some((-high, 0)),
        (high, low, true) => Some((-high - 1, LIMB - low)),
    }
}

fn put_text(packed: &mut Vec<u8>, text: &str) {
    // No line of a source is near 4 GiB.
    packed.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    packed.extend(text.as_bytes());
}

/// Finds where the raw values of the projected fields lie in an object.
///
/// # Errors
/// The text is no JSON object.
fn find_values(
    projected: &[ProjectedField],
    json: &str,
    layout: &mut Layout<Option<usize>>,
    spans: &mut [Option<Range<usize>>],
) -> Result<(), String> {
    let is_read = layout.members(
        json,
        |key| projected.iter().position(|field| field.name == key),
        |place| place,
        |at, value| spans[at] = Some(value),
    );
    if is_read {
        return Ok(());
    }
    spans.fill(None);
    let mut parser = serde_json::Deserializer::from_str(json);
    ProjectedValues { projected, json, spans }.deserialize(&mut parser).map_err(|error| error.to_string())
}

/// The same for what is seldom: keys with escapes, values that are nested deeply; and what is no JSON.
struct ProjectedValues<'h, 's, 'j> {
    projected: &'h [ProjectedField],
    json: &'j str,
    spans: &'s mut [Option<Range<usize>>],
}

impl<'j> DeserializeSeed<'j> for ProjectedValues<'_, '_, 'j> {
    type Value = ();
    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'j> Visitor<'j> for ProjectedValues<'_, '_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(place) = map.next_key_seed(KeyPlace(self.projected))? {
            match place {
                Some(at) => {
                    let raw = map.next_value::<&'j RawValue>()?.get();
                    let start = raw.as_ptr().addr() - self.json.as_ptr().addr();
                    self.spans[at] = Some(start..start + raw.len());
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// The place of a key among the projected fields.
struct KeyPlace<'h>(&'h [ProjectedField]);

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

/// The raw JSON of one field; none if the object has no such field. Its keys hold no half characters.
///
/// # Errors
/// The text is no JSON object.
pub(super) fn raw_field<'j>(json: &'j str, name: &str) -> Result<Option<&'j str>, String> {
    let projected = [ProjectedField { name: name.to_owned(), tree: None, seen: 0, recurred: 0 }];
    let mut spans = [None];
    find_values(&projected, json, &mut Layout::default(), &mut spans)?;
    let [span] = spans;
    Ok(span.and_then(|span| json.get(span)))
}

/// An integer of 64 bits from a text of a number: `17`, `17.0`, `1e3`.
pub(super) fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { text.parse().ok() } else { text.parse::<Numeric>().ok()?.to_i64() }
}

/// What Lua hands over as text: UTF-8, or with what is not replaced.
pub(super) fn lossy(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}
