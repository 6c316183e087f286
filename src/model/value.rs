//! The values that a row holds, and their types.

use std::fmt;

use crate::model::numeric::Numeric;
use crate::model::timestamp::Timestamp;

/// The type of a column. Every column may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ColumnType {
    /// UTF-8 text without NUL.
    Text,
    /// True or false.
    Boolean,
    /// A signed integer of 64 bits.
    Bigint,
    /// A float of 64 bits.
    Double,
    /// An exact integer or decimal of any size.
    Numeric,
    /// A moment in time, to the microsecond.
    Timestamptz,
    /// A JSON document.
    Jsonb,
    /// Bytes.
    Bytes,
}

impl ColumnType {
    /// All types, in the order in which the documentation lists them.
    pub const ALL: [Self; 8] = [
        Self::Text,
        Self::Boolean,
        Self::Bigint,
        Self::Double,
        Self::Numeric,
        Self::Timestamptz,
        Self::Jsonb,
        Self::Bytes,
    ];

    /// The name in the pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Boolean => "boolean",
            Self::Bigint => "bigint",
            Self::Double => "double",
            Self::Numeric => "numeric",
            Self::Timestamptz => "timestamptz",
            Self::Jsonb => "jsonb",
            Self::Bytes => "bytes",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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
