//! A position in a source. Only the source that gave it knows what it means.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::POSITION_BYTES_MAX;

/// A place in a source, after one of its events: an offset, a cursor, the id of an entry. A text that only its source reads.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Position(String);

impl Position {
    /// A position of that text.
    ///
    /// # Errors
    /// It is longer than [`POSITION_BYTES_MAX`] bytes, or holds a NUL, which a database does not take.
    pub fn new(text: impl Into<String>) -> Result<Self, PositionError> {
        let text = text.into();
        check_position(&text)?;
        Ok(Self(text))
    }

    /// Replaces the text, in the same buffer.
    ///
    /// # Errors
    /// As [`Position::new`]; then it is what it was.
    pub fn set(&mut self, text: &str) -> Result<(), PositionError> {
        check_position(text)?;
        self.0.clear();
        self.0.push_str(text);
        Ok(())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text is a position.
///
/// # Errors
/// As [`Position::new`].
pub(crate) fn check_position(text: &str) -> Result<(), PositionError> {
    if text.len() > POSITION_BYTES_MAX {
        return Err(PositionError::TooLong { bytes: text.len() });
    }
    if text.contains('\0') { Err(PositionError::Nul) } else { Ok(()) }
}

impl Clone for Position {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }

    fn clone_from(&mut self, other: &Self) {
        self.0.clone_from(&other.0);
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PositionError {
    /// It is too long to be stored with every checkpoint.
    #[error("a position of {bytes} bytes; expected at most {POSITION_BYTES_MAX}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It holds a NUL.
    #[error("a position with a NUL in it; expected a text that a database takes")]
    Nul,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_text_that_is_not_long() {
        for (text, expected) in [
            (String::new(), Ok(())),
            ("orders/3@17".into(), Ok(())),
            ("é".repeat(POSITION_BYTES_MAX / 2), Ok(())),
            ("é".repeat(POSITION_BYTES_MAX / 2) + "a", Err(PositionError::TooLong { bytes: POSITION_BYTES_MAX + 1 })),
            ("a\0".into(), Err(PositionError::Nul)),
        ] {
            assert_eq!(Position::new(text.as_str()).map(drop), expected, "{text:?}");
            let mut position = Position::new("before").expect("a position");
            let is_set = position.set(&text);
            assert_eq!(is_set, expected);
            assert_eq!(position.as_str(), if is_set.is_ok() { &text } else { "before" });
        }
    }
}
