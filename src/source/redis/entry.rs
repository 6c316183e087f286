//! Entries of a stream, and their ids.

use std::fmt;

use redis::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Numbers within a millisecond that have a place in the number of an id.
const NUMBERS: u64 = 1_000_000;

/// The id of an entry: the milliseconds since 1970 in which it was added, and its number within them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId {
    pub(super) millis: u64,
    pub(super) number: u64,
}

impl EntryId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (millis, number) = text.split_once('-')?;
        Some(Self { millis: millis.parse().ok()?, number: number.parse().ok()? })
    }

    /// Both as one number, in the order of the ids.
    ///
    /// # Errors
    /// It has no place in 64 bits.
    pub(super) fn as_one_number(self) -> Result<i64, String> {
        let whole = self.millis.checked_mul(NUMBERS).and_then(|millis| millis.checked_add(self.number));
        let whole = whole.and_then(|whole| i64::try_from(whole).ok()).filter(|_| self.number < NUMBERS);
        whole.ok_or_else(|| {
            format!(
                "its id has no place in one number of 64 bits (a number below {NUMBERS} within a millisecond of the years \
                 to 2262): take block = \"@time\", or a field"
            )
        })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

/// An entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    /// Names and values, one behind the other.
    fields: Vec<Value>,
}

impl Entry {
    /// The entry in a part of an answer.
    pub(super) fn of(value: Value) -> Option<Self> {
        let Value::Array(parts) = value else { return None };
        let [Value::BulkString(id), Value::Array(fields)] = <[Value; 2]>::try_from(parts).ok()? else { return None };
        let are_texts = fields.iter().all(|field| matches!(field, Value::BulkString(_)));
        let id = EntryId::parse(std::str::from_utf8(&id).ok()?)?;
        (are_texts && fields.len().is_multiple_of(2)).then_some(Self { id, fields })
    }

    /// Names and values, in their order.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.as_chunks::<2>().0.iter().map(|[name, value]| (bytes_of(name), bytes_of(value)))
    }

    pub(super) fn bytes(&self) -> usize {
        self.fields.iter().map(|field| bytes_of(field).len()).sum()
    }

    /// What tells it from another entry with the same id.
    pub(super) fn digest(&self) -> u64 {
        self.fields.iter().fold(0, |seed, field| xxh3_64_with_seed(bytes_of(field), seed))
    }

    /// It as a text, for people.
    pub(super) fn shown(&self) -> String {
        let parts = self.fields.iter().map(|field| String::from_utf8_lossy(bytes_of(field)).into_owned());
        parts.collect::<Vec<_>>().join(" ")
    }
}

fn bytes_of(value: &Value) -> &[u8] {
    match value {
        Value::BulkString(bytes) => bytes,
        _ => &[],
    }
}

/// The last entry that was read: it must still be there when what follows is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) id: EntryId,
    pub(super) digest: u64,
}

impl Anchor {
    pub(super) fn of(entry: &Entry) -> Self {
        Self { id: entry.id, digest: entry.digest() }
    }

    /// The anchor that a position's text names.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (id, digest) = text.split_once(' ')?;
        Some(Self { id: EntryId::parse(id)?, digest: u64::from_str_radix(digest, 16).ok()? })
    }
}

impl fmt::Display for Anchor {
    /// As it stands in a position.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:016x}", self.id, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64, number: u64) -> EntryId {
        EntryId { millis, number }
    }

    fn entry(fields: &[&str]) -> Entry {
        let bulk = |text: &&str| Value::BulkString(text.as_bytes().to_vec());
        Entry { id: id(5, 1), fields: fields.iter().map(bulk).collect() }
    }

    #[test]
    fn ids_are_numbers_in_their_order() {
        for (id, expected) in [
            (id(0, 1), Some(1)),
            (id(1_526_919_030_474, 55), Some(1_526_919_030_474_000_055)),
            (id(1, 999_999), Some(1_999_999)),
            (id(1, 1_000_000), None),
            (id(9_223_372_036_854, 775_807), Some(i64::MAX)),
            (id(9_223_372_036_854, 775_808), None),
            (id(u64::MAX, 0), None),
        ] {
            assert_eq!(id.as_one_number().ok(), expected, "{id}");
            assert_eq!(EntryId::parse(&id.to_string()), Some(id));
        }
        assert!(id(1, 999_999) < id(2, 0));
        assert!(EntryId::parse("5").is_none() && EntryId::parse("-1-2").is_none() && EntryId::parse("5-x").is_none());
    }

    #[test]
    fn an_anchor_tells_entries_apart() {
        let anchor = Anchor::of(&entry(&["a", "1"]));
        assert_eq!(Anchor::parse(&anchor.to_string()), Some(anchor));
        for other in [&["a", "2"][..], &["b", "1"], &["a1", ""], &["", "a1"], &["a", "1", "", ""], &[]] {
            assert_ne!(Anchor::of(&entry(other)).digest, anchor.digest, "{other:?}");
        }
        for text in ["", "5-1", "5-1 x", "17", "5 3"] {
            assert_eq!(Anchor::parse(text), None, "{text}");
        }
    }
}
