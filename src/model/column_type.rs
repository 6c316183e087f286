//! The types that a column can have. To add one, see CONTRIBUTING.

use std::fmt;

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
