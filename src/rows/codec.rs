//! The packed form of rows: how they cross from a lane to the commit, and from the store to a lane.
//!
//! One format serves the Lua engine (which builds it with `string.pack`) and the Rust engine, so a commit decodes rows
//! in place and allocates nothing. All integers are little-endian.
//!
//! | part | form |
//! |---|---|
//! | id | length of 4 bytes, then the bytes |
//! | change | 1 byte: see [`Change`] |
//! | writer | 8 bytes: which event wrote the row, see [`Writer`]; after it nothing follows in a deleted row |
//! | for each group of up to 32 columns: nulls | 4 bytes, bit n set if the group's column n is null |
//! | then its values, a null one as zero or empty | `bigint` 8 bytes, `double` 8, `boolean` 1; `text`, `timestamptz` (canonical text), `jsonb`, `bytes`: length of 4 and bytes; `numeric`: two 8-byte integers h and l for h·10¹⁸ + l, then its text (length of 4 and bytes) where they do not suffice |

use crate::model::numeric::Numeric;
use crate::model::schema::{Column, Entity};
use crate::model::value::{ColumnType, Value};

/// What a batch did to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is not there any more, if it was.
    Deleted = 0,
    /// It was written; whether it was there before is not known.
    Written = 1,
    /// It was written, and is known not to have been there before the batch; or guessed, where the store checks it.
    New = 2,
}

/// The event that wrote a row: its file, counted from 0 in the order of reading, and its line from 1. In 64 bits, the
/// file in the upper 16; 0 is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Writer(pub u64);

impl Writer {
    const LINE_BITS: u32 = 48;

    /// The event on that line of that file.
    pub fn new(origin: u16, line: u64) -> Self {
        Self(u64::from(origin) << Self::LINE_BITS | line.min((1 << Self::LINE_BITS) - 1))
    }

    /// The number of the file and the line; none if the event is not known.
    pub fn place(self) -> Option<(usize, u64)> {
        let line = self.0 & ((1 << Self::LINE_BITS) - 1);
        (line > 0).then_some(((self.0 >> Self::LINE_BITS) as usize, line))
    }
}

/// What stands before the values of a packed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowHead<'a> {
    /// The id.
    pub id: &'a str,
    /// What became of the row.
    pub change: Change,
    /// The event that wrote it.
    pub writer: Writer,
}

/// Where a packed row says what became of it, behind the bytes of its id.
pub const CHANGE_AT: usize = 4;

/// Columns that share one mask of nulls.
pub const COLUMNS_PER_MASK: usize = 32;

/// The unit of the upper of the two integers of a packed `numeric`.
pub const NUMERIC_LIMB: i128 = 1_000_000_000_000_000_000;

/// A value of a packed row, borrowed from it.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// No value.
    Null,
    /// For a `text` column.
    Text(&'a str),
    /// For a `boolean` column.
    Boolean(bool),
    /// For a `bigint` column.
    Bigint(i64),
    /// For a `double` column.
    Double(f64),
    /// For a `numeric` column.
    Numeric(Numeric),
    /// For a `timestamptz` column: canonical text.
    Timestamptz(&'a str),
    /// For a `jsonb` column.
    Jsonb(&'a str),
    /// For a `bytes` column.
    Bytes(&'a [u8]),
}

/// A packed row that does not follow the format: a fault of this program, not of its input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a packed row of {entity} breaks off or is malformed at byte {at}; this is a bug in forebay, please report it")]
pub struct CodecError {
    entity: String,
    at: usize,
}

/// Reads packed rows of one entity.
pub struct Decoder<'a, 's> {
    entity: &'s Entity,
    packed: &'a [u8],
    at: usize,
}

impl<'a, 's> Decoder<'a, 's> {
    /// A reader that begins at byte `at`.
    pub fn new(entity: &'s Entity, packed: &'a [u8], at: usize) -> Self {
        Self { entity, packed, at }
    }

    /// The byte it stands at.
    pub fn at(&self) -> usize {
        self.at
    }

    /// True when nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.at >= self.packed.len()
    }

    /// Reads one row into `values`; returns what stands before them. A deleted row leaves `values` empty.
    ///
    /// # Errors
    /// The bytes do not follow the format.
    pub fn row(&mut self, values: &mut Vec<ValueRef<'a>>) -> Result<RowHead<'a>, CodecError> {
        values.clear();
        let head = self.head()?;
        if head.change != Change::Deleted {
            let entity = self.entity;
            for group in entity.columns.chunks(COLUMNS_PER_MASK) {
                let nulls = u32::from_le_bytes(self.fixed()?);
                for (bit, column) in group.iter().enumerate() {
                    let value = self.value(column)?;
                    values.push(if nulls & (1 << bit) != 0 { ValueRef::Null } else { value });
                }
            }
        }
        Ok(head)
    }

    /// Passes one row by; returns what stands before its values.
    ///
    /// # Errors
    /// The bytes do not follow the format.
    pub fn skip(&mut self) -> Result<RowHead<'a>, CodecError> {
        let head = self.head()?;
        if head.change != Change::Deleted {
            let entity = self.entity;
            for group in entity.columns.chunks(COLUMNS_PER_MASK) {
                self.fixed::<4>()?;
                for column in group {
                    self.skip_value(column)?;
                }
            }
        }
        Ok(head)
    }

    fn head(&mut self) -> Result<RowHead<'a>, CodecError> {
        let id = self.text()?;
        let change = match self.fixed::<1>()? {
            [0] => Change::Deleted,
            [1] => Change::Written,
            [2] => Change::New,
            _ => return Err(self.malformed()),
        };
        let writer = Writer(u64::from_le_bytes(self.fixed()?));
        Ok(RowHead { id, change, writer })
    }

    fn skip_value(&mut self, column: &Column) -> Result<(), CodecError> {
        match column.kind {
            ColumnType::Boolean => self.fixed::<1>().map(drop),
            ColumnType::Bigint | ColumnType::Double => self.fixed::<8>().map(drop),
            ColumnType::Numeric => self.fixed::<16>().and_then(|_| self.bytes()).map(drop),
            ColumnType::Text | ColumnType::Timestamptz | ColumnType::Jsonb | ColumnType::Bytes => {
                self.bytes().map(drop)
            }
        }
    }

    fn value(&mut self, column: &Column) -> Result<ValueRef<'a>, CodecError> {
        Ok(match column.kind {
            ColumnType::Text => ValueRef::Text(self.text()?),
            ColumnType::Boolean => ValueRef::Boolean(self.fixed::<1>()?[0] != 0),
            ColumnType::Bigint => ValueRef::Bigint(i64::from_le_bytes(self.fixed()?)),
            ColumnType::Double => ValueRef::Double(f64::from_le_bytes(self.fixed()?)),
            ColumnType::Numeric => ValueRef::Numeric(self.numeric()?),
            ColumnType::Timestamptz => ValueRef::Timestamptz(self.text()?),
            ColumnType::Jsonb => ValueRef::Jsonb(self.text()?),
            ColumnType::Bytes => ValueRef::Bytes(self.bytes()?),
        })
    }

    fn numeric(&mut self) -> Result<Numeric, CodecError> {
        let high = i64::from_le_bytes(self.fixed()?);
        let low = i64::from_le_bytes(self.fixed()?);
        let text = self.text()?;
        if text.is_empty() {
            return Ok(Numeric::from(i128::from(high) * NUMERIC_LIMB + i128::from(low)));
        }
        text.parse().map_err(|_| self.malformed())
    }

    fn text(&mut self) -> Result<&'a str, CodecError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed())
    }

    fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let len = u32::from_le_bytes(self.fixed()?) as usize;
        let bytes = self.packed.get(self.at..self.at.saturating_add(len)).ok_or_else(|| self.malformed())?;
        self.at += len;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let bytes = self.packed.get(self.at..self.at + N).and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.ok_or_else(|| self.malformed())?;
        self.at += N;
        Ok(bytes)
    }

    fn malformed(&self) -> CodecError {
        CodecError { entity: self.entity.name.clone(), at: self.at }
    }
}

/// Appends what stands before the values of a row.
fn encode_head(head: RowHead<'_>, packed: &mut Vec<u8>) {
    put_bytes(packed, head.id.as_bytes());
    packed.push(head.change as u8);
    packed.extend(head.writer.0.to_le_bytes());
}

/// Appends a row in packed form. The values of a deleted one are left out.
pub fn encode_row(entity: &Entity, head: RowHead<'_>, row: &[ValueRef<'_>], packed: &mut Vec<u8>) {
    encode_head(head, packed);
    if head.change == Change::Deleted {
        return;
    }
    for (group, columns) in row.chunks(COLUMNS_PER_MASK).zip(entity.columns.chunks(COLUMNS_PER_MASK)) {
        let nulls = group.iter().enumerate().filter(|(_, value)| **value == ValueRef::Null);
        let mask: u32 = nulls.map(|(bit, _)| 1 << bit).sum();
        packed.extend(mask.to_le_bytes());
        for (value, column) in group.iter().zip(columns) {
            put_value(packed, column.kind, value);
        }
    }
}

fn put_value(packed: &mut Vec<u8>, kind: ColumnType, value: &ValueRef<'_>) {
    match value {
        ValueRef::Null => put_null(packed, kind),
        ValueRef::Text(text) | ValueRef::Timestamptz(text) | ValueRef::Jsonb(text) => {
            put_bytes(packed, text.as_bytes())
        }
        ValueRef::Boolean(value) => packed.push(u8::from(*value)),
        ValueRef::Bigint(value) => packed.extend(value.to_le_bytes()),
        ValueRef::Double(value) => packed.extend(value.to_le_bytes()),
        ValueRef::Numeric(value) => put_numeric(packed, value),
        ValueRef::Bytes(bytes) => put_bytes(packed, bytes),
    }
}

fn put_null(packed: &mut Vec<u8>, kind: ColumnType) {
    let width = match kind {
        ColumnType::Boolean => 1,
        ColumnType::Bigint | ColumnType::Double => 8,
        ColumnType::Numeric => 20,
        ColumnType::Text | ColumnType::Timestamptz | ColumnType::Jsonb | ColumnType::Bytes => 4,
    };
    packed.extend(std::iter::repeat_n(0, width));
}

fn put_numeric(packed: &mut Vec<u8>, value: &Numeric) {
    let limbs = value.to_i128().and_then(|whole| {
        let high = i64::try_from(whole.div_euclid(NUMERIC_LIMB)).ok()?;
        let low = i64::try_from(whole.rem_euclid(NUMERIC_LIMB)).ok()?;
        Some((high, low))
    });
    let (high, low) = limbs.unwrap_or((0, 0));
    packed.extend(high.to_le_bytes());
    packed.extend(low.to_le_bytes());
    match limbs {
        Some(_) => put_bytes(packed, b""),
        None => put_bytes(packed, value.to_string().as_bytes()),
    }
}

/// Appends bytes behind their length. No value is longer than a line of the source or the memory of a lane, both
/// far below what four bytes count.
pub(crate) fn put_bytes(packed: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    packed.extend(len.to_le_bytes());
    packed.extend(&bytes[..len as usize]);
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    /// A time becomes text where the row is packed: see [`encode_values`].
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null | Value::Timestamptz(_) => Self::Null,
            Value::Text(text) => Self::Text(text),
            Value::Boolean(value) => Self::Boolean(*value),
            Value::Bigint(value) => Self::Bigint(*value),
            Value::Double(value) => Self::Double(*value),
            Value::Numeric(value) => Self::Numeric(value.clone()),
            Value::Jsonb(text) => Self::Jsonb(text),
            Value::Bytes(bytes) => Self::Bytes(bytes),
        }
    }
}

/// Appends a stored row in packed form.
pub fn encode_stored(entity: &Entity, id: &str, row: &[ValueRef<'_>], packed: &mut Vec<u8>) {
    encode_row(entity, RowHead { id, change: Change::Written, writer: Writer::default() }, row, packed);
}

/// Appends a row of owned values in packed form. The values of a deleted one are left out.
pub fn encode_values(entity: &Entity, head: RowHead<'_>, row: &[Value], packed: &mut Vec<u8>) {
    let times: Vec<Option<String>> = row
        .iter()
        .map(|value| match value {
            Value::Timestamptz(time) => Some(time.to_string()),
            _ => None,
        })
        .collect();
    let values: Vec<ValueRef<'_>> = row
        .iter()
        .zip(&times)
        .map(|(value, time)| time.as_deref().map_or_else(|| ValueRef::from(value), ValueRef::Timestamptz))
        .collect();
    encode_row(entity, head, &values, packed);
}

impl ValueRef<'_> {
    /// The value on its own.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Text(text) => Value::Text((*text).into()),
            Self::Boolean(value) => Value::Boolean(*value),
            Self::Bigint(value) => Value::Bigint(*value),
            Self::Double(value) => Value::Double(*value),
            Self::Numeric(value) => Value::Numeric(value.clone()),
            Self::Timestamptz(text) => text.parse().map_or(Value::Null, Value::Timestamptz),
            Self::Jsonb(text) => Value::Jsonb((*text).into()),
            Self::Bytes(bytes) => Value::Bytes((*bytes).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(kinds: &[ColumnType]) -> Entity {
        let columns = kinds.iter().enumerate().map(|(at, kind)| Column { name: format!("c{at:03}"), kind: *kind });
        Entity::new("thing", columns)
    }

    fn sample(kind: ColumnType) -> Value {
        match kind {
            ColumnType::Text => Value::Text("é".into()),
            ColumnType::Boolean => Value::Boolean(true),
            ColumnType::Bigint => Value::Bigint(i64::MIN),
            ColumnType::Double => Value::Double(-2.5),
            ColumnType::Numeric => Value::Numeric("-7786596450288373164569331648084".parse().expect("number")),
            ColumnType::Timestamptz => Value::Timestamptz("2018-01-31T01:49:59.650Z".parse().expect("time")),
            ColumnType::Jsonb => Value::Jsonb("{\"a\":1}".into()),
            ColumnType::Bytes => Value::Bytes([0, 255].into()),
        }
    }

    fn written(id: &str) -> RowHead<'_> {
        RowHead { id, change: Change::Written, writer: Writer::new(1, 7) }
    }

    /// All types, twice over the width of one mask of nulls, with every third value null.
    #[test]
    fn rows_come_back_as_they_were() {
        let kinds: Vec<ColumnType> = ColumnType::ALL.into_iter().cycle().take(70).collect();
        let entity = entity(&kinds);
        let row: Vec<Value> =
            kinds.iter().enumerate().map(|(at, kind)| if at % 3 == 0 { Value::Null } else { sample(*kind) }).collect();
        let mut packed = Vec::new();
        let deleted = RowHead { id: "two", change: Change::Deleted, writer: Writer::default() };
        encode_values(&entity, written("one"), &row, &mut packed);
        encode_values(&entity, deleted, &[], &mut packed);
        let mut decoder = Decoder::new(&entity, &packed, 0);
        let mut values = Vec::new();
        assert_eq!(decoder.row(&mut values).expect("row"), written("one"));
        assert_eq!(values.iter().map(ValueRef::to_value).collect::<Vec<_>>(), row);
        assert_eq!(decoder.row(&mut values).expect("row"), deleted);
        assert!(decoder.is_at_end());
        let mut passing = Decoder::new(&entity, &packed, 0);
        assert_eq!((passing.skip().expect("row"), passing.skip().expect("row")), (written("one"), deleted));
        assert!(passing.is_at_end());
        assert_eq!((Writer::new(1, 7).place(), Writer::default().place()), (Some((1, 7)), None));
    }

    #[test]
    fn a_number_of_any_size_comes_back() {
        let entity = entity(&[ColumnType::Numeric]);
        for text in [
            "0",
            "-1",
            "999999999999999999",
            "-1000000000000000000",
            "9223372036854775807000000000000000000",
            "1e60",
            "0.5",
            "-12345678901234567890123456789012345678901234567890.5",
        ] {
            let value = Value::Numeric(text.parse().expect(text));
            let mut packed = Vec::new();
            encode_values(&entity, written("n"), std::slice::from_ref(&value), &mut packed);
            let mut values = Vec::new();
            Decoder::new(&entity, &packed, 0).row(&mut values).expect(text);
            assert_eq!(values[0].to_value(), value);
        }
    }

    #[test]
    fn a_row_that_breaks_off_is_an_error_at_every_length() {
        let entity = entity(&ColumnType::ALL);
        let row: Vec<Value> = ColumnType::ALL.iter().map(|kind| sample(*kind)).collect();
        let mut packed = Vec::new();
        encode_values(&entity, written("one"), &row, &mut packed);
        for len in 0..packed.len() {
            assert!(Decoder::new(&entity, &packed[..len], 0).row(&mut Vec::new()).is_err(), "{len}");
            assert!(Decoder::new(&entity, &packed[..len], 0).skip().is_err(), "{len}");
        }
    }
}
