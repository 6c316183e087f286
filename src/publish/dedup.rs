//! What of a document counts as a change.

use std::time::Duration;

use serde_json::Value as Json;

use super::fields::FieldPath;
use super::target::PublishError;
use crate::model::json_text;
use crate::model::timestamp::Timestamp;
use crate::snapshot::{hash_of, sha256_hex};

/// What of a document counts as a change: two that are the same by it are duplicates of each other.
///
/// By default all of the document counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DedupRule {
    /// Fields that do not count, by name or dotted path.
    pub ignore: Vec<String>,
    /// The only fields that count. Defaults to none: all do that are not ignored.
    pub by: Vec<FieldPath>,
    /// Beside the fields in `by` counts in which of such spans since 1970 the document's time lies. Defaults to none.
    pub bucket: Option<Duration>,
}

impl DedupRule {
    /// Fields that do not count.
    #[must_use]
    pub fn with_ignore(self, fields: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { ignore: fields.into_iter().map(Into::into).collect(), ..self }
    }

    /// The only fields that count.
    #[must_use]
    pub fn with_by(self, fields: impl IntoIterator<Item = FieldPath>) -> Self {
        Self { by: fields.into_iter().collect(), ..self }
    }

    /// The span of time that counts beside those fields.
    #[must_use]
    pub fn with_bucket(self, bucket: Duration) -> Self {
        Self { bucket: Some(bucket), ..self }
    }

    /// The hash that two duplicates share. `doc` is what was read from `text`.
    pub(super) fn hash(&self, text: &str, doc: Json, time: Timestamp) -> Result<String, PublishError> {
        if self.by.is_empty() {
            return Ok(hash_of(text, doc, &self.ignore));
        }
        let value = |field: &FieldPath| {
            // One that is missing may be misspelt, and then everything would be a duplicate.
            json_text::canonical_at(text, field.as_str()).ok_or_else(|| {
                PublishError::Document(format!(
                    "the document has no field {field}, and dedup_by says that it tells duplicates"
                ))
            })
        };
        let values: Vec<String> = self.by.iter().map(value).collect::<Result<_, _>>()?;
        let span = self.bucket.map(|bucket| i64::try_from(bucket.as_micros()).unwrap_or(i64::MAX).max(1));
        let bucket = span.map_or_else(String::new, |span| time.as_micros().div_euclid(span).to_string());
        Ok(sha256_hex(format!("[{}]{bucket}", values.join(",")).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(rule: &DedupRule, text: &str, seconds: i64) -> Result<String, PublishError> {
        let time = Timestamp::from_micros(seconds * 1_000_000).expect("a time");
        rule.hash(text, serde_json::from_str(text).expect("json"), time)
    }

    #[test]
    fn only_the_given_fields_and_the_span_count() {
        let by = ["meta.reason", "n"].map(|path| FieldPath::new(path).expect("a path"));
        let rule = DedupRule::default().with_by(by).with_bucket(Duration::from_secs(900));
        let one = hash(&rule, r#"{"meta":{"reason":"calm"},"n":12345678901234567890123,"id":1}"#, 0).expect("a hash");
        for (text, seconds, is_same) in [
            (r#"{"id":2,"n":12345678901234567890123,"meta":{"reason":"calm","at":3}}"#, 899, true),
            (r#"{"meta":{"reason":"calm"},"n":12345678901234567890123}"#, 900, false),
            (r#"{"meta":{"reason":"calm"},"n":12345678901234567890124}"#, 0, false),
            (r#"{"meta":{"reason":"storm"},"n":12345678901234567890123}"#, 0, false),
        ] {
            assert_eq!(hash(&rule, text, seconds).expect("a hash") == one, is_same, "{text} at {seconds}");
        }
        let missing = hash(&rule, r#"{"meta":{},"n":1}"#, 0).expect_err("no reason").to_string();
        assert!(missing.contains("no field meta.reason"), "{missing}");
    }
}
