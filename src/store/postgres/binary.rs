//! Values in the binary form of Postgres: rows as COPY takes them, arrays as parameters, and the way back.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format", and the `*_send` functions of the
//! types. All integers are big-endian.

use std::error::Error;
use std::sync::Arc;

use bytes::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::fault::Fault;
use crate::model::ids::EntityNo;
use crate::model::numeric::Numeric;
use crate::model::schema::{Column, Entity, Schema};
use crate::model::timestamp::Timestamp;
use crate::model::value::{ColumnType, Value};
use crate::rows::changes::{RegionChanges, RowAt};
use crate::rows::codec::{CodecError, Decoder, ValueRef};
use crate::store::RowEncoder;

/// What begins a COPY: signature, flags, no extension.
pub(super) const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What ends a COPY.
pub(super) const COPY_TRAILER: &[u8] = &[0xff, 0xff];

/// Microseconds from the Unix epoch to that of Postgres, 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The version of the binary form of `jsonb`.
const JSONB_VERSION: u8 = 1;

const NUMERIC_POSITIVE: u16 = 0x0000;
const NUMERIC_NEGATIVE: u16 = 0x4000;
/// A numeric counts in ten thousands.
const NBASE: u128 = 10_000;
const NBASE_DIGITS: usize = 4;

/// The type of a column's values, and of arrays of them.
pub(super) fn types_of(kind: ColumnType) -> (Type, Type) {
    match kind {
        ColumnType::Text => (Type::TEXT, Type::TEXT_ARRAY),
        ColumnType::Boolean => (Type::BOOL, Type::BOOL_ARRAY),
        ColumnType::Bigint => (Type::INT8, Type::INT8_ARRAY),
        ColumnType::Double => (Type::FLOAT8, Type::FLOAT8_ARRAY),
        ColumnType::Numeric => (Type::NUMERIC, Type::NUMERIC_ARRAY),
        ColumnType::Timestamptz => (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
        ColumnType::Jsonb => (Type::JSONB, Type::JSONB_ARRAY),
        ColumnType::Bytes => (Type::BYTEA, Type::BYTEA_ARRAY),
    }
}

/// Encodes sealed rows as COPY takes them: for each a count of fields, then region, id and the columns, each behind its
/// length. Of a deleted row only region and id.
pub(super) struct CopyEncoder {
    schema: Arc<Schema>,
}

impl CopyEncoder {
    pub(super) fn new(schema: Arc<Schema>) -> Self {
        Self { schema }
    }
}

impl RowEncoder for CopyEncoder {
    fn encode(&self, entity: EntityNo, rows: RegionChanges) -> Result<RegionChanges, CodecError> {
        let entity = &self.schema[entity];
        let RegionChanges { region, packed, rows } = rows;
        // A field has 4 bytes of length, and a numeric or a time is not longer than it is packed.
        let about = packed.len() + rows.len() * (6 + region.len() + 3 * entity.columns.len());
        let mut writer = TupleWriter { out: Vec::with_capacity(about), last_time: (String::new(), 0) };
        let mut encoded = Vec::with_capacity(rows.len());
        let mut values = Vec::new();
        for row in &rows {
            let head = Decoder::new(entity, &packed, row.start).row(&mut values)?;
            encoded.push(RowAt { start: writer.out.len(), ..*row });
            writer.tuple(&region, head.id, &values);
        }
        writer.out.shrink_to_fit();
        Ok(RegionChanges { region, packed: writer.out, rows: encoded })
    }
}

struct TupleWriter {
    out: Vec<u8>,
    /// The text of the time that was encoded last, and its value: neighbours often share it.
    last_time: (String, i64),
}

impl TupleWriter {
    fn tuple(&mut self, region: &str, id: &str, values: &[ValueRef<'_>]) {
        // Columns are far fewer than an i16 counts.
        let fields = i16::try_from(values.len() + 2).unwrap_or(i16::MAX);
        self.out.extend(fields.to_be_bytes());
        self.field(region.as_bytes());
        self.field(id.as_bytes());
        values.iter().for_each(|value| self.value(value));
    }

    fn field(&mut self, bytes: &[u8]) {
        self.out.extend(field_len(bytes.len()));
        self.out.extend_from_slice(bytes);
    }

    fn value(&mut self, value: &ValueRef<'_>) {
        match value {
            ValueRef::Null => self.out.extend((-1_i32).to_be_bytes()),
            ValueRef::Text(text) => self.field(text.as_bytes()),
            ValueRef::Boolean(value) => self.field(&[u8::from(*value)]),
            ValueRef::Bigint(value) => self.field(&value.to_be_bytes()),
            ValueRef::Double(value) => self.field(&value.to_be_bytes()),
            ValueRef::Numeric(value) => put_numeric(&mut self.out, value),
            ValueRef::Timestamptz(text) => {
                let micros = self.micros(text);
                self.field(&micros.to_be_bytes());
            }
            ValueRef::Jsonb(text) => put_jsonb(&mut self.out, text),
            ValueRef::Bytes(bytes) => self.field(bytes),
        }
    }

    fn micros(&mut self, text: &str) -> i64 {
        if self.last_time.0 != text {
            // Only canonical texts are packed.
            let time: Timestamp = text.parse().unwrap_or_default();
            self.last_time = (text.to_owned(), to_pg_micros(time));
        }
        self.last_time.1
    }
}

/// No value is as long as 2 GiB: see [`crate::rows::codec`].
fn field_len(len: usize) -> [u8; 4] {
    i32::try_from(len).unwrap_or(i32::MAX).to_be_bytes()
}

/// A time as Postgres counts it.
pub(super) fn to_pg_micros(time: Timestamp) -> i64 {
    time.as_micros().saturating_sub(EPOCH_MICROS)
}

/// Appends a numeric as a field.
fn put_numeric(out: &mut Vec<u8>, value: &Numeric) {
    let Some(whole) = value.to_i128() else { return put_long_numeric(out, &value.to_string()) };
    let sign = if whole < 0 { NUMERIC_NEGATIVE } else { NUMERIC_POSITIVE };
    // 39 digits are ten groups of four.
    let mut groups = [0_u16; 10];
    let (mut rest, mut count) = (whole.unsigned_abs(), 0);
    while rest > 0 {
        // In steps that a machine word holds: four groups at a time.
        let mut low = u64::try_from(rest % NBASE.pow(4)).unwrap_or(0);
        rest /= NBASE.pow(4);
        for _ in 0..4 {
            if low == 0 && rest == 0 {
                break;
            }
            groups[count] = (low % NBASE as u64) as u16;
            low /= NBASE as u64;
            count += 1;
        }
    }
    let mut trailing = 0;
    while trailing < count && groups[trailing] == 0 {
        trailing += 1;
    }
    put_numeric_head(out, count - trailing, count as i64 - 1, sign, 0);
    for group in groups[trailing..count].iter().rev() {
        out.extend(group.to_be_bytes());
    }
}

/// Appends a numeric that is not a whole number of 128 bits, from its canonical text.
fn put_long_numeric(out: &mut Vec<u8>, text: &str) {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (NUMERIC_NEGATIVE, digits),
        None => (NUMERIC_POSITIVE, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let lead = (NBASE_DIGITS - whole.len() % NBASE_DIGITS) % NBASE_DIGITS;
    let trail = (NBASE_DIGITS - fraction.len() % NBASE_DIGITS) % NBASE_DIGITS;
    let padded = [&"000"[..lead], whole, fraction, &"000"[..trail]].concat();
    let groups: Vec<u16> = padded
        .as_bytes()
        .chunks(NBASE_DIGITS)
        .map(|group| group.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
        .collect();
    let weight = (whole.len() + lead) as i64 / NBASE_DIGITS as i64 - 1;
    let first = groups.iter().position(|group| *group != 0).unwrap_or(groups.len());
    let end = groups.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    put_numeric_head(out, end - first, weight - first as i64, sign, fraction.len());
    for group in &groups[first..end] {
        out.extend(group.to_be_bytes());
    }
}

/// Digits are bounded (see [`crate::model::limits`]), so all of these fit 16 bits.
fn put_numeric_head(out: &mut Vec<u8>, groups: usize, weight: i64, sign: u16, scale: usize) {
    out.extend(field_len(8 + 2 * groups));
    out.extend((groups as u16).to_be_bytes());
    out.extend((weight as i16).to_be_bytes());
    out.extend(sign.to_be_bytes());
    out.extend((scale as u16).to_be_bytes());
}

/// Appends JSON as a field. Postgres keeps its numbers as numerics, so `1e16` would come back as an integer: a float
/// with an exponent is written out, and with a point.
fn put_jsonb(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    out.extend([0; 4]);
    out.push(JSONB_VERSION);
    let bytes = text.as_bytes();
    let (mut at, mut copied, mut in_text) = (0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_text => at += 1,
            b'"' => in_text = !in_text,
            b'-' | b'0'..=b'9' if !in_text => {
                let len = bytes[at..]
                    .iter()
                    .take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
                    .count();
                let number = &text[at..at + len];
                if number.contains(['e', 'E']) {
                    out.extend_from_slice(&bytes[copied..at]);
                    out.extend(plain_number(number).bytes());
                    copied = at + len;
                }
                at += len;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    out.extend_from_slice(&bytes[copied..]);
    let len = field_len(out.len() - start - 4);
    out[start..start + 4].copy_from_slice(&len);
}

/// A JSON number without its exponent, and with a point.
fn plain_number(number: &str) -> String {
    match number.parse::<Numeric>() {
        Ok(value) => {
            let text = value.to_string();
            if text.contains('.') { text } else { text + ".0" }
        }
        // It has more digits than Postgres keeps, which it will say.
        Err(_) => number.to_owned(),
    }
}

/// The fields of a COPY tuple, each with the length before it.
pub(super) fn fields(tuple: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = tuple.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let len = i32::from_be_bytes(rest.first_chunk::<4>().copied()?);
        let (field, after) = rest.split_at_checked(4 + usize::try_from(len).unwrap_or(0))?;
        rest = after;
        Some(field)
    })
}

/// An array as a parameter: its elements, each behind its length, are those of a COPY.
#[derive(Debug, Clone)]
pub(super) struct RawArray {
    elements: Vec<u8>,
    len: i32,
    has_nulls: bool,
    element: Type,
}

impl RawArray {
    pub(super) fn new(element: Type) -> Self {
        Self { elements: Vec::new(), len: 0, has_nulls: false, element }
    }

    /// An array of the same type without elements.
    pub(super) fn emptied(&self) -> Self {
        Self::new(self.element.clone())
    }

    /// Appends an element that has its length before it.
    pub(super) fn push_field(&mut self, field: &[u8]) {
        self.has_nulls |= field.first_chunk() == Some(&(-1_i32).to_be_bytes());
        self.elements.extend_from_slice(field);
        self.len += 1;
    }

    fn push(&mut self, bytes: &[u8]) {
        self.elements.extend(field_len(bytes.len()));
        self.elements.extend_from_slice(bytes);
        self.len += 1;
    }

    pub(super) fn push_null(&mut self) {
        self.push_field(&(-1_i32).to_be_bytes());
    }

    pub(super) fn push_int4(&mut self, value: i32) {
        self.push(&value.to_be_bytes());
    }

    pub(super) fn push_int8(&mut self, value: i64) {
        self.push(&value.to_be_bytes());
    }

    /// Appends a value of a column.
    pub(super) fn push_value(&mut self, value: &Value) {
        let mut writer = TupleWriter { out: Vec::new(), last_time: (String::new(), 0) };
        match value {
            Value::Timestamptz(time) => writer.field(&to_pg_micros(*time).to_be_bytes()),
            value => writer.value(&ValueRef::from(value)),
        }
        self.push_field(&writer.out);
    }

    pub(super) fn push_text(&mut self, text: &str) {
        self.push(text.as_bytes());
    }

    pub(super) fn of_texts<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        let mut array = Self::new(Type::TEXT);
        texts.into_iter().for_each(|text| array.push_text(text));
        array
    }

    pub(super) fn of_times(times: impl IntoIterator<Item = Timestamp>) -> Self {
        let mut array = Self::new(Type::TIMESTAMPTZ);
        times.into_iter().for_each(|time| array.push(&to_pg_micros(time).to_be_bytes()));
        array
    }

    pub(super) fn of_int8s(values: impl IntoIterator<Item = i64>) -> Self {
        let mut array = Self::new(Type::INT8);
        values.into_iter().for_each(|value| array.push_int8(value));
        array
    }
}

/// Gathers the fields of rows by column, as far as there are arrays.
pub(super) fn gather<'b>(arrays: &mut [RawArray], tuples: impl Iterator<Item = &'b [u8]>) {
    for tuple in tuples {
        for (array, field) in arrays.iter_mut().zip(fields(tuple)) {
            array.push_field(field);
        }
    }
}

impl ToSql for RawArray {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let dimensions = i32::from(self.len > 0);
        for head in [dimensions, i32::from(self.has_nulls), self.element.oid().cast_signed()] {
            out.extend_from_slice(&head.to_be_bytes());
        }
        if self.len > 0 {
            out.extend_from_slice(&self.len.to_be_bytes());
            out.extend_from_slice(&1_i32.to_be_bytes());
        }
        out.extend_from_slice(&self.elements);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A time as a parameter, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(pub(super) Timestamp);

impl ToSql for Moment {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&to_pg_micros(self.0).to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Moment {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(time_of(raw).ok_or("a time outside the years -4712 to 9999")?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }
}

fn time_of(raw: &[u8]) -> Option<Timestamp> {
    Timestamp::from_micros(i64::from_be_bytes(raw.try_into().ok()?).checked_add(EPOCH_MICROS)?)
}

/// A value as it came, in binary.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The value of a column from its binary form; `time` is where the text of a time goes.
pub(super) fn value_of<'r>(
    entity: &Entity,
    column: &Column,
    raw: &'r [u8],
    time: &'r mut String,
) -> Result<ValueRef<'r>, Fault> {
    let foreign = || {
        Fault::Foreign(format!(
            "{}.{} holds a value that this program did not write and cannot keep (NaN, an infinity, or a time outside the years -4712 to 9999)",
            entity.name, column.name
        ))
    };
    Ok(match column.kind {
        ColumnType::Text => ValueRef::Text(std::str::from_utf8(raw).map_err(|_| foreign())?),
        ColumnType::Boolean => ValueRef::Boolean(raw.first().is_some_and(|byte| *byte != 0)),
        ColumnType::Bigint => ValueRef::Bigint(i64::from_be_bytes(raw.try_into().map_err(|_| foreign())?)),
        ColumnType::Double => {
            let value = f64::from_be_bytes(raw.try_into().map_err(|_| foreign())?);
            if value.is_nan() {
                return Err(foreign());
            }
            ValueRef::Double(value)
        }
        ColumnType::Numeric => ValueRef::Numeric(numeric_of(raw).ok_or_else(foreign)?),
        ColumnType::Timestamptz => {
            *time = time_of(raw).ok_or_else(foreign)?.to_string();
            ValueRef::Timestamptz(time)
        }
        ColumnType::Jsonb => match raw.split_first() {
            Some((&JSONB_VERSION, text)) => ValueRef::Jsonb(std::str::from_utf8(text).map_err(|_| foreign())?),
            _ => return Err(foreign()),
        },
        ColumnType::Bytes => ValueRef::Bytes(raw),
    })
}

fn numeric_of(raw: &[u8]) -> Option<Numeric> {
    let (head, groups) = raw.split_first_chunk::<8>()?;
    let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (weight, sign, scale) = (i64::from(half(2).cast_signed()), half(4), usize::from(half(6)));
    let is_negative = match sign {
        NUMERIC_POSITIVE => false,
        NUMERIC_NEGATIVE => true,
        _ => return None,
    };
    let groups: Vec<u16> = groups.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let is_whole = groups.len() as i64 <= weight + 1;
    if groups.is_empty() {
        return Some(Numeric::ZERO);
    }
    // Nine groups are 36 digits, which 128 bits hold.
    if is_whole && weight < 9 {
        let sum = groups.iter().fold(0_i128, |sum, group| sum * NBASE as i128 + i128::from(*group));
        let value = sum * (NBASE as i128).pow(u32::try_from(weight + 1 - groups.len() as i64).ok()?);
        return Some(Numeric::from(if is_negative { -value } else { value }));
    }
    let mut text = String::from(if is_negative { "-" } else { "" });
    for at in 0..=weight.max(-1) {
        text.push_str(&format!("{:04}", groups.get(usize::try_from(at).ok()?).copied().unwrap_or(0)));
    }
    if weight < 0 {
        text.push('0');
    }
    text.push('.');
    let mut fraction = String::with_capacity(scale + NBASE_DIGITS);
    let mut at = weight + 1;
    while fraction.len() < scale {
        let group = usize::try_from(at).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
        fraction.push_str(&format!("{group:04}"));
        at += 1;
    }
    fraction.truncate(scale);
    text.push_str(if fraction.is_empty() { "0" } else { &fraction });
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Numeric {
        text.parse().expect(text)
    }

    /// What comes back of a numeric that went out.
    fn there_and_back(value: &Numeric) -> Option<Numeric> {
        let mut out = Vec::new();
        put_numeric(&mut out, value);
        assert_eq!(out[..4], field_len(out.len() - 4));
        numeric_of(&out[4..])
    }

    #[test]
    fn numerics_have_the_form_that_the_server_sends() {
        // As `SELECT numeric_send(…)` of PostgreSQL 15 shows them.
        for (text, hex) in [
            ("0", "0000ffff00000000"),
            ("1", "00010000000000000001"),
            ("-10000", "00010001400000000001"),
            ("12345678", "000200010000000004d2162e"),
            ("0.5", "0001ffff000000011388"),
            ("-0.00012", "0002ffff40000005000107d0"),
            ("1234.5678", "000200000000000404d2162e"),
        ] {
            let mut out = Vec::new();
            put_numeric(&mut out, &number(text));
            let shown: String = out[4..].iter().map(|byte| format!("{byte:02x}")).collect();
            // Zero has no digits, and its weight says nothing.
            let hex = if text == "0" { shown.as_str() } else { hex };
            assert_eq!(shown, hex, "{text}");
        }
    }

    proptest! {
        #[test]
        fn numerics_come_back(whole in any::<i128>(), digits in "-?[1-9][0-9]{0,60}(\\.[0-9]{0,30}[1-9])?") {
            for value in [Numeric::from(whole), Numeric::from(whole / 10_000_000_000_000_000), number(&digits)] {
                prop_assert_eq!(there_and_back(&value), Some(value));
            }
        }
    }

    #[test]
    fn what_is_no_number_does_not_come_back() {
        assert_eq!(numeric_of(&[0, 0, 0, 0, 0xc0, 0, 0, 0]), None);
        assert_eq!(time_of(&i64::MAX.to_be_bytes()), None);
        assert_eq!(time_of(&i64::MIN.to_be_bytes()), None);
    }

    #[test]
    fn floats_in_json_stay_floats() {
        for (given, stored) in [
            (r#"{"a":1e16,"b":[-2.5E-7,3]}"#, r#"{"a":10000000000000000.0,"b":[-0.00000025,3]}"#),
            (r#"{"1e5":"2e6 \" 3e7","n":4}"#, r#"{"1e5":"2e6 \" 3e7","n":4}"#),
            ("1e2", "100.0"),
        ] {
            let mut out = Vec::new();
            put_jsonb(&mut out, given);
            assert_eq!(std::str::from_utf8(&out[5..]).expect("UTF-8"), stored);
        }
    }
}
