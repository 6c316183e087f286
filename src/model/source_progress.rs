//! What a pipeline has committed of its source, so that the next run can compare.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A sum over events, each hashed with its block and place: the same for the same events, in whatever pieces they are
/// read. Sums of disjoint events add up, and what is taken back is subtracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceDigest(u128);

impl SourceDigest {
    /// The sum of that value.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// Its value.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The sum over the events of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// The sum without the events of the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl fmt::Display for SourceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for SourceDigest {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for SourceDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SourceDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The events of one block, or of a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockSum {
    /// The sum over them.
    pub digest: SourceDigest,
    /// The place of the last one, where the source has places.
    pub place: Option<i64>,
}

impl BlockSum {
    /// Events with that sum, of which the last one has that place.
    pub const fn new(digest: SourceDigest, place: Option<i64>) -> Self {
        Self { digest, place }
    }

    /// Goes on by later events of the block.
    pub fn append(&mut self, later: Self) {
        self.digest = self.digest.plus(later.digest);
        // An event that cannot be read has none.
        self.place = later.place.or(self.place);
    }
}

/// What is known of the committed part of a source beside its counts, which are in the checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SourceProgress {
    /// The sum over all committed events; none if an earlier version committed some of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<SourceDigest>,
    /// The sum over the events of the last block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_digest: Option<SourceDigest>,
    /// The place of the last event, where the source has places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<i64>,
    /// The first block of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_block: Option<i64>,
}

impl SourceProgress {
    /// Nothing is committed.
    pub const START: Self =
        Self { digest: Some(SourceDigest::new(0)), block_digest: None, place: None, first_block: None };

    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// That progress.
    pub const fn new(
        digest: Option<SourceDigest>,
        block_digest: Option<SourceDigest>,
        place: Option<i64>,
        first_block: Option<i64>,
    ) -> Self {
        Self { digest, block_digest, place, first_block }
    }
}

/// What the system says of a file. If none of it has changed, neither has the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileStamp {
    /// The name, as messages give it.
    pub name: String,
    /// Bytes as they lie on disk.
    pub bytes: u64,
    /// The time of the last change, in nanoseconds since 1970.
    pub modified: i64,
    /// The number of the file on its device.
    pub inode: u64,
}

impl FileStamp {
    /// A file of that name.
    pub fn new(name: impl Into<String>, bytes: u64, modified: i64, inode: u64) -> Self {
        Self { name: name.into(), bytes, modified, inode }
    }
}

/// A file of events that was read, and what of it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceFile {
    /// The file as it was when it was read.
    pub stamp: FileStamp,
    /// Whether all of it was read and is committed. If not, only its name counts.
    pub is_whole: bool,
    /// The first block that it has events of; none if it has none.
    pub first_block: Option<i64>,
    /// The last block.
    pub last_block: Option<i64>,
    /// Events of the last block up to the end of the file, also those of files before.
    pub last_events: u64,
    /// The place of the last event, where the source has places.
    pub last_place: Option<i64>,
    /// Events, without those that were left out.
    pub events: u64,
    /// Events that were left out because they came too late.
    pub late: u64,
    /// The sum over the events.
    pub digest: SourceDigest,
    /// A hash over all lines in order.
    pub content: SourceDigest,
    /// What is before its end, if it is a file that was followed: it may go on there.
    pub tail: Option<FileTail>,
}

/// What is before a place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTail {
    /// Lines before it.
    pub lines: u64,
    /// A hash of the last bytes before it.
    pub hash: SourceDigest,
}

impl fmt::Display for FileTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.lines, self.hash)
    }
}

impl FromStr for FileTail {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (lines, hash) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self { lines: lines.parse()?, hash: hash.parse()? })
    }
}

impl SourceFile {
    /// Takes in a rollback: what was left out may come in its place now, so the file is to be read again.
    pub(crate) fn reset_late(&mut self) {
        if self.late > 0 {
            self.stamp.bytes = 0;
        }
    }

    /// Whether a rollback came after lines of it were left out.
    pub(crate) fn is_reset(&self) -> bool {
        self.late > 0 && self.stamp.bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_can_be_written_down() {
        let tail = FileTail { lines: 17, hash: SourceDigest::new(5) };
        assert_eq!(tail.to_string().parse(), Ok(tail));
        for text in ["", "17", "x:5", "17:"] {
            assert!(text.parse::<FileTail>().is_err(), "{text}");
        }
    }

    #[test]
    fn sums_add_up_and_can_be_written_down() {
        let (a, b) = (SourceDigest::new(u128::MAX - 1), SourceDigest::new(7));
        assert_eq!(a.plus(b).minus(b), a);
        assert_eq!(a.plus(b), SourceDigest::new(5));
        let text = a.to_string();
        assert_eq!((text.len(), text.parse()), (32, Ok(a)));
        let json = serde_json::to_string(&b).expect("a text");
        assert_eq!(serde_json::from_str::<SourceDigest>(&json).expect("a digest"), b);
        assert!("x".parse::<SourceDigest>().is_err());
    }
}
