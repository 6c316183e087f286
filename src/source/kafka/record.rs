//! Records of a partition, and the anchor: the last one that was read.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) offset: i64,
    /// Behind it and what follows it that is no record, such as the end of a transaction: as far as that was read.
    pub(super) next: i64,
    /// Milliseconds since 1970, if the record has them.
    pub(super) millis: Option<i64>,
    /// None: it takes out, in a compacted topic, the records of its key.
    pub(super) value: Option<Vec<u8>>,
    pub(super) digest: u64,
}

impl Record {
    pub(super) fn new(offset: i64, millis: Option<i64>, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let digest = digest(key, value);
        Self { offset, next: offset.saturating_add(1), millis, value: value.map(<[u8]>::to_vec), digest }
    }

    pub(super) fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Vec::len)
    }
}

/// What tells a record from another one at the same offset.
pub(super) fn digest(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    [key, value].iter().fold(0, |seed, part| {
        let seed = xxh3_64_with_seed(&[u8::from(part.is_some())], seed);
        xxh3_64_with_seed(part.unwrap_or_default(), seed)
    })
}

/// The last record that was read. If it is still there, it must be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) offset: i64,
    /// Where reading goes on: nothing before that is unread.
    pub(super) next: i64,
    pub(super) digest: u64,
}

impl Anchor {
    pub(super) fn of(record: &Record) -> Self {
        Self { offset: record.offset, next: record.next, digest: record.digest }
    }

    /// The anchor that a position's text names, and the partition that it is of, such as `events/0`.
    pub(super) fn parse(text: &str) -> Option<(&str, Self)> {
        let mut parts = text.split(' ');
        let (partition, offset, next, digest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let anchor = Self {
            offset: offset.parse().ok()?,
            next: next.parse().ok()?,
            digest: u64::from_str_radix(digest, 16).ok()?,
        };
        let is_one = parts.next().is_none() && anchor.offset >= 0 && anchor.next > anchor.offset;
        (is_one && partition.contains('/')).then_some((partition, anchor))
    }
}

impl fmt::Display for Anchor {
    /// As it stands in a position, behind the partition.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:016x}", self.offset, self.next, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_read_as_it_was_written() {
        let mut record = Record::new(17, None, Some(b"k"), Some(b"v"));
        record.next = 20;
        let anchor = Anchor::of(&record);
        assert_eq!(Anchor::parse(&format!("events/3 {anchor}")), Some(("events/3", anchor)));
        for text in
            ["", "17", "events/3", "events/3 17 17 0", "events/3 -1 2 0", "events 1 2 0", "a/0 1 2 x", "a/0 1 2 0 5"]
        {
            assert_eq!(Anchor::parse(text), None, "{text}");
        }
    }

    #[test]
    fn digests_tell_records_apart() {
        let parts: [Option<&[u8]>; 4] = [None, Some(b""), Some(b"a"), Some(b"ab")];
        let digests = parts.iter().flat_map(|key| parts.iter().map(|value| digest(*key, *value)));
        let all: std::collections::HashSet<u64> = digests.collect();
        assert_eq!(all.len(), 16);
    }
}
