//! A region's document: its canonical form, its hash, its id.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::model::json_text;
use crate::model::timestamp::Timestamp;

/// The document of a region that had one and has nothing to say any more: readers get it in place of what is not so.
pub(crate) const NOTHING: &str = "null";

/// Hex digits of the hash that an id carries.
pub(crate) const ID_HASH_DIGITS: usize = 16;

/// The id of a snapshot.
pub fn snapshot_id(region: &str, seq: u64, hash: &str) -> String {
    format!("{region}.{seq}.{}", &hash[..ID_HASH_DIGITS.min(hash.len())])
}

/// A document's canonical JSON (sorted keys, no spaces) and the SHA-256 over it, in hex, without the fields that
/// are to be ignored.
pub fn canonical(mut doc: Json, ignored: &[String]) -> (String, String) {
    let text = doc.to_string();
    if ignored.is_empty() {
        let hash = sha256_hex(text.as_bytes());
        return (text, hash);
    }
    json_text::take_out(&mut doc, &ignored.iter().map(String::as_str).collect::<Vec<_>>());
    let hash = sha256_hex(doc.to_string().as_bytes());
    (text, hash)
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// A snapshot to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publication {
    /// The region.
    pub region: Arc<str>,
    /// The id.
    pub id: String,
    /// Grows with each snapshot of the region: an older one never replaces a newer one.
    pub seq: u64,
    /// The block as of which it was computed, if that is known.
    pub block: Option<i64>,
    /// When it was computed.
    pub time: Timestamp,
    /// SHA-256 over what counts as its content, in hex.
    pub hash: String,
    /// The document.
    pub doc: Arc<str>,
    /// Whether readers have one of a later block, which was rolled back: then it is no duplicate, whatever it holds.
    pub follows_rollback: bool,
}

impl Publication {
    /// A document of a region, computed now, in its canonical form and with the id that follows from its number and hash.
    pub fn new(region: impl Into<Arc<str>>, seq: u64, doc: Json) -> Self {
        let (region, (doc, hash)) = (region.into(), canonical(doc, &[]));
        let id = snapshot_id(&region, seq, &hash);
        let (block, time, doc) = (None, Timestamp::now(), doc.into());
        Self { region, id, seq, block, time, hash, doc, follows_rollback: false }
    }

    /// The block as of which it was computed.
    #[must_use]
    pub fn with_block(self, block: i64) -> Self {
        Self { block: Some(block), ..self }
    }

    /// When it was computed.
    #[must_use]
    pub fn with_time(self, time: Timestamp) -> Self {
        Self { time, ..self }
    }
}

/// The sequence number that an id of [`snapshot_id`] holds.
pub fn seq_of(region: &str, id: &str) -> Option<u64> {
    id.strip_prefix(region)?.strip_prefix('.')?.split('.').next()?.parse().ok()
}

/// The SHA-256 over the canonical form of a JSON text and what was read from it, as [`canonical`] computes it; numbers
/// of any size keep their digits.
pub fn hash_of(text: &str, mut doc: Json, ignored: &[String]) -> String {
    if json_text::has_long_number(text)
        && let Some(exact) = json_text::canonical(text, ignored)
    {
        return sha256_hex(exact.as_bytes());
    }
    json_text::take_out(&mut doc, &ignored.iter().map(String::as_str).collect::<Vec<_>>());
    sha256_hex(doc.to_string().as_bytes())
}

/// The SHA-256 over a document in canonical form, in hex, without the fields that are to be ignored.
pub(crate) fn hash_of_canonical(text: &str, ignored: &[String]) -> String {
    let without = (!ignored.is_empty()).then(|| json_text::canonical(text, ignored)).flatten();
    sha256_hex(without.as_deref().unwrap_or(text).as_bytes())
}

/// How integers beyond 2^53 stand in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Integers {
    /// As texts: a reader in JavaScript would round the number. So do decimals that no float holds to the digit.
    #[default]
    Text,
    /// As numbers.
    Number,
}

impl Integers {
    /// A document in canonical form, with its numbers so.
    pub(crate) fn written(self, doc: String) -> String {
        match self {
            Self::Text => json_text::quote_long_numbers(doc),
            Self::Number => doc,
        }
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
    fn the_hash_of_a_text_keeps_every_digit_of_an_integer() {
        let ignored = vec!["at".to_owned()];
        for text in
            [r#"{"b":1.0,"a":[1,{"d":null,"c":"é"}],"at":5}"#, r#"{"n":[-5,1e3,"\u00e9"],"x":12345678901234567}"#]
        {
            let spaced = text.replace(',', " ,\n ");
            let expected = canonical(json(text), &ignored).1;
            assert_eq!(hash_of(&spaced, json(text), &ignored), expected);
            let exact = json_text::canonical(text, &ignored).expect("json");
            assert_eq!(sha256_hex(exact.as_bytes()), expected, "{exact}");
        }
        for begin in ["1000000000000000000000", "1234567890.12345678"] {
            let [one, two] = ["1", "2"].map(|end| {
                let text = format!("{{\"n\":[{begin}{end}]}}");
                hash_of(&text, json(&text), &[])
            });
            assert_ne!(one, two, "{begin}");
        }
    }
}
