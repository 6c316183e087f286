//! Id and time taken from a document, for readers who know them from there.

use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use super::{Publication, PublishError};
use crate::model::json_text;
use crate::model::timestamp::Timestamp;
use crate::snapshot::NOTHING;

/// Numbers below it are seconds since 1970, others milliseconds: as seconds it is the year 5138, as milliseconds 1973.
const MILLIS_MIN: i64 = 100_000_000_000;

/// A field of a document, by a dotted path: `meta.snapshot_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath(String);

impl FieldPath {
    /// A path; none if a part of it is empty.
    pub fn new(path: &str) -> Option<Self> {
        (!path.split('.').any(str::is_empty)).then(|| Self(path.to_owned()))
    }

    /// The field `region`.
    pub(crate) fn region() -> Self {
        Self("region".into())
    }

    /// The path, as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The field in `doc`: by its whole name, or step by step.
    fn find<'d>(&self, doc: &'d Json) -> Option<&'d Json> {
        doc.get(&self.0).or_else(|| self.0.split('.').try_fold(doc, |at, name| at.get(name)))
    }

    /// The field as a text: a string that is not empty, or an integer.
    pub(super) fn text(&self, doc: &Json) -> Result<String, String> {
        match self.find(doc) {
            Some(Json::String(text)) if !text.is_empty() => Ok(text.clone()),
            Some(Json::Number(number)) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
            None => Err(format!("the document has no field {self}")),
            Some(_) => Err(format!("the field {self}: expected a text that is not empty, or an integer")),
        }
    }

    fn time(&self, doc: &Json) -> Result<Timestamp, String> {
        let wrong = || format!("the field {self}: expected a time (RFC 3339), or milliseconds or seconds since 1970");
        let micros = match self.find(doc) {
            None => return Err(format!("the document has no field {self}")),
            Some(Json::String(text)) => return text.parse().map_err(|_| wrong()),
            Some(Json::Number(number)) => match number.as_i64() {
                Some(seconds) if (0..MILLIS_MIN).contains(&seconds) => seconds.checked_mul(1_000_000),
                Some(millis) => millis.checked_mul(1000),
                None => number.as_f64().map(|number| {
                    let unit = if number.abs() < MILLIS_MIN as f64 { 1e6 } else { 1e3 };
                    // Saturates; what is out of range is refused below.
                    (number * unit) as i64
                }),
            },
            Some(_) => None,
        };
        micros.and_then(Timestamp::from_micros).ok_or_else(wrong)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fields of a document that hold its id and its time, for readers who know them from there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DocumentFields {
    /// The field of its id. Defaults to none: `<region>.<seq>.<hash>`.
    pub id: Option<FieldPath>,
    /// The field of its time. Defaults to none: when it was computed.
    pub time: Option<FieldPath>,
}

impl DocumentFields {
    /// Snapshots of a store as they are published: with id and time that their documents carry, where there are such
    /// fields; and those whose documents lack them.
    pub fn resolve(&self, items: Vec<Publication>) -> (Vec<Publication>, Vec<(Arc<str>, PublishError)>) {
        if self.id.is_none() && self.time.is_none() {
            return (items, Vec::new());
        }
        let (mut resolved, mut refused) = (Vec::with_capacity(items.len()), Vec::new());
        for item in items {
            match self.resolved(item) {
                Ok(item) => resolved.push(item),
                Err((region, error)) => refused.push((region, error)),
            }
        }
        (resolved, refused)
    }

    fn resolved(&self, item: Publication) -> Result<Publication, (Arc<str>, PublishError)> {
        if &*item.doc == NOTHING {
            // It has no fields, and readers of the region are to have it all the same.
            return Ok(item);
        }
        let read = || {
            let doc = json_text::read(&item.doc).map_err(|error| PublishError::Document(error.to_string()))?;
            self.carried(&doc)
        };
        match read() {
            Ok((id, time)) => Ok(Publication { id: id.unwrap_or(item.id), time: time.unwrap_or(item.time), ..item }),
            Err(error) => Err((item.region, error)),
        }
    }

    /// Id and time that a document carries, where there are such fields.
    pub(super) fn carried(&self, doc: &Json) -> Result<(Option<String>, Option<Timestamp>), PublishError> {
        let id = self.id.as_ref().map(|field| field.text(doc)).transpose();
        let time = self.time.as_ref().map(|field| field.time(doc)).transpose();
        match (id, time) {
            (Ok(id), Ok(time)) => Ok((id, time)),
            (Err(message), _) | (_, Err(message)) => Err(PublishError::Document(message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read_in_three_forms() {
        let field = FieldPath::new("meta.at").expect("a path");
        for at in
            [json!("2026-01-31T12:00:00Z"), json!(1_769_860_800), json!(1_769_860_800_000_i64), json!(1.7698608e9)]
        {
            let doc = json!({ "meta": { "at": at } });
            assert_eq!(field.time(&doc).expect("a time").to_string(), "2026-01-31T12:00:00Z", "{doc}");
        }
        for at in [json!(null), json!("yesterday"), json!({}), json!(1e300)] {
            assert!(field.time(&json!({ "meta": { "at": at } })).is_err(), "{at}");
        }
        assert!(field.time(&json!({ "meta": {} })).expect_err("none").contains("has no field meta.at"));
    }

    #[test]
    fn a_dotted_name_may_be_one_field() {
        let field = FieldPath::new("a.b").expect("a path");
        assert_eq!(field.text(&json!({ "a.b": "x", "a": { "b": "y" } })), Ok("x".into()));
        assert_eq!(field.text(&json!({ "a": { "b": 7 } })), Ok("7".into()));
        assert_eq!(FieldPath::new("a..b"), None);
    }
}
