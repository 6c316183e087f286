//! The values that a row holds.

pub use super::column_type::ColumnType;
use crate::model::numeric::Numeric;
use crate::model::timestamp::Timestamp;

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// No value.
    Null,
    /// For a `text` column.
    Text(Box<str>),
    /// For a `boolean` column.
    Boolean(bool),
    /// For a `bigint` column.
    Bigint(i64),
    /// For a `double` column.
    Double(f64),
    /// For a `numeric` column.
    Numeric(Numeric),
    /// For a `timestamptz` column.
    Timestamptz(Timestamp),
    /// For a `jsonb` column: canonical JSON text.
    Jsonb(Box<str>),
    /// For a `bytes` column.
    Bytes(Box<[u8]>),
}

/// The values of one row, in the order of its entity's columns.
pub type Row = Box<[Value]>;

impl Value {
    /// Its type; none of null.
    pub fn kind(&self) -> Option<ColumnType> {
        Some(match self {
            Self::Null => return None,
            Self::Text(_) => ColumnType::Text,
            Self::Boolean(_) => ColumnType::Boolean,
            Self::Bigint(_) => ColumnType::Bigint,
            Self::Double(_) => ColumnType::Double,
            Self::Numeric(_) => ColumnType::Numeric,
            Self::Timestamptz(_) => ColumnType::Timestamptz,
            Self::Jsonb(_) => ColumnType::Jsonb,
            Self::Bytes(_) => ColumnType::Bytes,
        })
    }

    /// Bytes of memory that the value takes, about.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Text(text) | Self::Jsonb(text) => text.len(),
                Self::Bytes(bytes) => bytes.len(),
                _ => 0,
            }
    }
}

/// Bytes of memory that a row takes, about.
pub fn row_memory_bytes(row: &Row) -> usize {
    row.iter().map(Value::memory_bytes).sum()
}
