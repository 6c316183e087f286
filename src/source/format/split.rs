//! Splits a record of CSV into its fields.

use std::borrow::Cow;

use crate::model::bytes::{all_plain_but, each, plain, plain_before};

/// What each byte is, outside of quotes.
pub(super) struct Kinds {
    kinds: [Kind; 256],
    delimiter: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Delimiter,
    /// In JSON it is escaped.
    Escaped,
    Return,
    Nul,
}

impl Kinds {
    pub(super) fn new(delimiter: u8) -> Self {
        let mut kinds = [Kind::Plain; 256];
        kinds[..0x20].fill(Kind::Escaped);
        let others = [(b'"', Kind::Escaped), (b'\\', Kind::Escaped), (b'\r', Kind::Return), (0, Kind::Nul)];
        for (byte, kind) in others.into_iter().chain([(delimiter, Kind::Delimiter)]) {
            kinds[usize::from(byte)] = kind;
        }
        Self { kinds, delimiter }
    }

    fn of(&self, byte: u8) -> Kind {
        self.kinds[usize::from(byte)]
    }

    /// Where a quote opens that is not closed at the end of a line. `open` is one that is open where the line begins.
    pub(super) fn open_quote(&self, line: &[u8], open: Option<usize>) -> Option<usize> {
        let (mut open, mut begins) = (open, open.is_none());
        let mut at = 0;
        loop {
            if open.is_some() {
                at += plain(line.get(at..).unwrap_or_default());
            }
            let Some(byte) = line.get(at) else { return open };
            match open {
                Some(_) if *byte == b'"' && line.get(at + 1) == Some(&b'"') => at += 1,
                Some(_) if *byte == b'"' => (open, begins) = (None, false),
                Some(_) => {}
                None if *byte == b'"' && begins => open = Some(at),
                None => begins = *byte == self.delimiter,
            }
            at += 1;
        }
    }
}

/// What is wrong with a record, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Text behind a closing quote.
    Behind(usize),
    /// A quote that does not end.
    Open(usize),
    /// A carriage return outside of quotes.
    Return(usize),
    Nul(usize),
}

impl Fault {
    pub(super) fn at(self) -> usize {
        match self {
            Self::Behind(at) | Self::Open(at) | Self::Return(at) | Self::Nul(at) => at,
        }
    }

    /// Whether it leaves open where the record ends.
    pub(super) fn is_unsure(self) -> bool {
        matches!(self, Self::Behind(_) | Self::Open(_))
    }
}

/// A field of a record: where it lies, without quotes around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    start: usize,
    end: usize,
    /// It holds quotes that are written twice.
    is_doubled: bool,
    /// It is the same in JSON.
    is_plain: bool,
}

impl Part {
    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether its text is the same in JSON.
    pub(super) fn is_plain(self) -> bool {
        self.is_plain
    }

    /// Its bytes, with quotes written twice where they are.
    pub(super) fn bytes(self, record: &[u8]) -> &[u8] {
        record.get(self.start..self.end).unwrap_or_default()
    }

    /// Its text.
    pub(super) fn decoded(self, record: &str) -> Cow<'_, str> {
        let text = record.get(self.start..self.end).unwrap_or_default();
        if self.is_doubled { text.replace("\"\"", "\"").into() } else { text.into() }
    }

    /// Its text, if that is the same in JSON.
    pub(super) fn plain(self, record: &str) -> Option<&str> {
        record.get(self.start..self.end).filter(|_| self.is_plain)
    }
}

impl Kinds {
    /// Splits a record, which is without the end of its line, into its fields.
    ///
    /// # Errors
    /// It is not as it should be. `parts` has the fields before.
    pub(super) fn split(&self, record: &[u8], parts: &mut Vec<Part>) -> Result<(), Fault> {
        parts.clear();
        if self.is_simple(record) {
            self.split_simple(record, parts);
            return Ok(());
        }
        let mut at = 0;
        loop {
            let part = match record.get(at) {
                Some(b'"') => self.quoted(record, at)?,
                _ => self.unquoted(record, at)?,
            };
            parts.push(part);
            // Behind the field, and behind the quote that closes it.
            at = part.end + usize::from(part.start > at);
            match record.get(at) {
                None => return Ok(()),
                Some(byte) if *byte == self.delimiter => at += 1,
                Some(_) => {
                    parts.pop();
                    return Err(Fault::Behind(at));
                }
            }
        }
    }

    /// Whether nothing stands in a record but delimiters and what is the same in JSON. So it is with most of them, and it is
    /// found out many bytes at a time.
    fn is_simple(&self, record: &[u8]) -> bool {
        all_plain_but(record, self.delimiter)
    }

    fn split_simple(&self, record: &[u8], parts: &mut Vec<Part>) {
        let mut start = 0;
        each(record, self.delimiter, |end| {
            parts.push(Part { start, end, is_doubled: false, is_plain: true });
            start = end + 1;
        });
        parts.push(Part { start, end: record.len(), is_doubled: false, is_plain: true });
    }

    fn unquoted(&self, record: &[u8], start: usize) -> Result<Part, Fault> {
        let (mut at, mut is_plain) = (start, true);
        loop {
            at += plain_before(record.get(at..).unwrap_or_default(), self.delimiter);
            let Some(byte) = record.get(at) else { break };
            match self.of(*byte) {
                Kind::Plain => {}
                Kind::Delimiter => break,
                Kind::Escaped => is_plain = false,
                Kind::Return => return Err(Fault::Return(at)),
                Kind::Nul => return Err(Fault::Nul(at)),
            }
            at += 1;
        }
        Ok(Part { start, end: at, is_doubled: false, is_plain })
    }

    fn quoted(&self, record: &[u8], quote: usize) -> Result<Part, Fault> {
        let start = quote + 1;
        let (mut at, mut is_doubled, mut is_plain) = (start, false, true);
        loop {
            at += plain(record.get(at..).unwrap_or_default());
            match record.get(at) {
                None => return Err(Fault::Open(quote)),
                Some(b'"') if record.get(at + 1) == Some(&b'"') => {
                    (is_doubled, is_plain) = (true, false);
                    at += 1;
                }
                Some(b'"') => return Ok(Part { start, end: at, is_doubled, is_plain }),
                Some(0) => return Err(Fault::Nul(at)),
                Some(byte) => is_plain &= *byte >= 0x20 && *byte != b'\\',
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(record: &str) -> Result<Vec<String>, Fault> {
        let mut parts = Vec::new();
        Kinds::new(b';').split(record.as_bytes(), &mut parts)?;
        let field = |part: Part| {
            if let Some(plain) = part.plain(record) {
                assert_eq!(serde_json::to_string(plain).expect("JSON"), format!("\"{plain}\""), "{record}");
            }
            part.decoded(record).into_owned()
        };
        Ok(parts.into_iter().map(field).collect())
    }

    #[test]
    fn a_record_has_its_fields() {
        for (record, expected) in [
            ("", vec![""]),
            ("a", vec!["a"]),
            ("a;b", vec!["a", "b"]),
            (";", vec!["", ""]),
            ("a;;b;", vec!["a", "", "b", ""]),
            ("\"a\";b", vec!["a", "b"]),
            ("\"\"", vec![""]),
            ("\"\";\"\"", vec!["", ""]),
            ("\"a;b\";c", vec!["a;b", "c"]),
            ("\"a\nb\r\nc\";d", vec!["a\nb\r\nc", "d"]),
            ("\"say \"\"no\"\"\";\"\"\"\"", vec!["say \"no\"", "\""]),
            // A quote that opens no field is itself.
            ("5\" pipe; \"x\";a\"b", vec!["5\" pipe", " \"x\"", "a\"b"]),
            ("a\tb\\;é\u{1}", vec!["a\tb\\", "é\u{1}"]),
        ] {
            assert_eq!(split(record).expect(record), expected, "{record}");
        }
    }

    #[test]
    fn what_is_ambiguous_is_a_fault() {
        for (record, fault) in [
            ("a;\"b\"c", Fault::Behind(5)),
            ("\"b\" ;c", Fault::Behind(3)),
            ("a;\"b", Fault::Open(2)),
            ("a;\"b\"\"", Fault::Open(2)),
            ("a\rb", Fault::Return(1)),
            ("a;\0", Fault::Nul(2)),
            ("\"\0\"", Fault::Nul(1)),
        ] {
            assert_eq!(split(record), Err(fault), "{record}");
        }
    }

    #[test]
    fn a_quote_that_is_open_goes_on_in_the_next_line() {
        let kinds = Kinds::new(b';');
        for (line, before, open) in [
            ("a;b\n", None, None),
            ("a;\"b\n", None, Some(2)),
            ("\"a\n", None, Some(0)),
            ("\"a\";\"b\"\"\n", None, Some(4)),
            ("5\";\"a\n", None, Some(3)),
            ("5\";x\n", None, None),
            ("b\n", Some(0), Some(0)),
            ("b\"\n", Some(0), None),
            ("b\"\";c\n", Some(0), Some(0)),
            ("b\";\"c\n", Some(0), Some(3)),
            // Behind a closing quote nothing opens before the next delimiter.
            ("b\"\"\"c\"\n", Some(0), None),
            ("\"a\"\"\n", None, Some(0)),
        ] {
            assert_eq!(kinds.open_quote(line.as_bytes(), before), open, "{line:?} {before:?}");
        }
    }
}
