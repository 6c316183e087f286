//! The formats that there are, by name, and the delimiter of CSV.

use crate::model::setting::SettingError;
use crate::model::text::nearest;

/// How bytes are cut into events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Ndjson,
    /// Records of texts, which the header of their file names.
    Csv(Delimiter),
    /// One JSON array of objects, or objects one after another, over as many lines as they like.
    Json,
}

impl Format {
    /// The names of the formats.
    pub const NAMES: [&'static str; 3] = ["ndjson", "csv", "json"];

    /// The format of that name; CSV with commas.
    ///
    /// # Errors
    /// There is no such format.
    pub fn from_name(name: &str) -> Result<Self, SettingError> {
        Ok(match name {
            "ndjson" => Self::Ndjson,
            "csv" => Self::Csv(Delimiter::default()),
            "json" => Self::Json,
            other => {
                let hint = nearest(other, &Self::NAMES);
                let message = format!("format: expected \"ndjson\", \"csv\" or \"json\", got {other:?}{hint}");
                return Err(SettingError::new(message));
            }
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv(_) => "csv",
            Self::Json => "json",
        }
    }

    /// Endings of files that hold events of this format.
    pub(in crate::source) fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Ndjson => &[".ndjson", ".jsonl", ".json"],
            Self::Csv(_) => &[".csv", ".tsv"],
            Self::Json => &[".json"],
        }
    }
}

/// What stands between the fields of a record of CSV. Defaults to a comma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delimiter(u8);

impl Delimiter {
    /// One ASCII character that is no quote and no line end; `\t`, in two characters, is a tab too.
    ///
    /// # Errors
    /// It is something else.
    pub fn new(text: &str) -> Result<Self, SettingError> {
        match text.as_bytes() {
            b"\\t" => Ok(Self(b'\t')),
            [byte @ 1..=0x7f] if !matches!(byte, b'"' | b'\r' | b'\n') && !byte.is_ascii_alphanumeric() => {
                Ok(Self(*byte))
            }
            _ => Err(SettingError::new(format!(
                "delimiter: expected one ASCII character such as \",\", \";\", \"|\" or \"\\t\", neither a letter, a \
                 digit, a quote nor a line end; got {text:?}"
            ))),
        }
    }

    pub(in crate::source) fn byte(self) -> u8 {
        self.0
    }
}

impl Default for Delimiter {
    fn default() -> Self {
        Self(b',')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_its_name() {
        for name in Format::NAMES {
            assert_eq!(Format::from_name(name).expect(name).name(), name);
        }
        let unknown = Format::from_name("jsonl").expect_err("no format").to_string();
        assert!(unknown.contains("expected \"ndjson\", \"csv\" or \"json\", got \"jsonl\""), "{unknown}");
    }

    #[test]
    fn a_delimiter_is_one_byte_that_stands_in_no_number_or_quote() {
        for (text, byte) in [(",", b','), (";", b';'), ("\t", b'\t'), ("\\t", b'\t'), ("|", b'|'), ("\u{1}", 1)] {
            assert_eq!(Delimiter::new(text).expect(text).byte(), byte);
        }
        for text in ["", ",,", "\"", "\n", "\r", "\0", "é", "a", "0", "\\n"] {
            let refused = Delimiter::new(text).expect_err(text).to_string();
            assert!(refused.starts_with("delimiter: expected one ASCII character"), "{refused}");
        }
    }
}
