//! Snapshots: the JSON document of a region as of a block, its identity, and when one is due.
//!
//! Touches documents and clocks only; storing them is the store's, in the transaction of their batch.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

/// Hex digits of the hash that an id carries.
pub(crate) const ID_HASH_DIGITS: usize = 16;

/// When snapshots are computed. Always also at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// At the end of each batch.
    Batch,
    /// After each this many blocks of the data, counted from the pipeline's first.
    Blocks(u64),
    /// When this much time has passed since the last ones.
    Time(Duration),
    /// Only at the end of a run.
    End,
}

/// The id of a snapshot.
pub fn snapshot_id(region: &str, seq: u64, hash: &str) -> String {
    format!("{region}.{seq}.{}", &hash[..ID_HASH_DIGITS.min(hash.len())])
}

/// A document's canonical JSON (sorted keys, no spaces) and the SHA-256 over it, in hex, without the top-level fields
/// that are to be ignored.
pub fn canonical(mut doc: Json, ignored: &[String]) -> (String, String) {
    let text = doc.to_string();
    let has_ignored = doc.as_object().is_some_and(|fields| ignored.iter().any(|name| fields.contains_key(name)));
    if !has_ignored {
        let hash = sha256_hex(text.as_bytes());
        return (text, hash);
    }
    if let Some(fields) = doc.as_object_mut() {
        fields.retain(|name, _| !ignored.contains(name));
    }
    let hash = sha256_hex(doc.to_string().as_bytes());
    (text, hash)
}

fn sha256_hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Says when snapshots are due.
#[derive(Debug)]
pub struct Schedule {
    every: Every,
    last: Instant,
}

impl Schedule {
    /// A schedule that begins now.
    pub fn new(every: Every) -> Self {
        Self { every, last: Instant::now() }
    }

    /// Whether snapshots are due at the end of a batch after which `blocks` have been handled in all.
    pub fn is_due(&self, blocks: u64) -> bool {
        match self.every {
            Every::Batch => true,
            Every::Blocks(count) => blocks.is_multiple_of(count.max(1)),
            Every::Time(span) => self.last.elapsed() >= span,
            Every::End => false,
        }
    }

    /// Whether time alone has made them due, without a new block.
    pub fn is_due_by_time(&self) -> bool {
        matches!(self.every, Every::Time(_)) && self.is_due(0)
    }

    /// How many more blocks may join a batch, after `blocks` in all, before it has to end for its snapshots.
    pub fn blocks_until_due(&self, blocks: u64) -> u64 {
        match self.every {
            Every::Blocks(count) => count.max(1) - blocks % count.max(1),
            _ => u64::MAX,
        }
    }

    /// Notes that they were computed.
    pub fn done(&mut self) {
        self.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        serde_json::from_str(text).expect("json")
    }

    #[test]
    fn the_hash_is_over_sorted_keys_without_the_ignored_fields() {
        let (text, hash) = canonical(json(r#"{"b":1.0,"a":[1,{"d":null,"c":"é"}]}"#), &[]);
        assert_eq!(text, r#"{"a":[1,{"c":"é","d":null}],"b":1.0}"#);
        // printf '%s' '{"a":[1,{"c":"é","d":null}],"b":1.0}' | sha256sum
        assert_eq!(hash, "5c1ffb280e1c0bca0a3fa2fff9b61ed8bdf944c42042e83b96d2ffc913b762b3");
        let ignored = vec!["at".to_owned()];
        let (with, one) = canonical(json(r#"{"v":1,"at":1}"#), &ignored);
        let (_, two) = canonical(json(r#"{"v":1,"at":2}"#), &ignored);
        assert_eq!(with, r#"{"at":1,"v":1}"#);
        assert_eq!(one, two);
    }

    #[test]
    fn blocks_are_counted_from_the_first() {
        let schedule = Schedule::new(Every::Blocks(5));
        assert_eq!(schedule.blocks_until_due(0), 5);
        assert_eq!(schedule.blocks_until_due(7), 3);
        assert!(schedule.is_due(10) && !schedule.is_due(11));
    }
}
