//! The summary of a pipeline's regions: which snapshot is each one's newest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::model::json_text;
use crate::model::timestamp::Timestamp;
use crate::publish::{FieldPath, Publication, check_summary_field};

/// A region in the summary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SummaryEntry {
    pub(super) region: String,
    pub(super) id: String,
    #[serde(default)]
    pub(super) seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) block: Option<i64>,
    /// Fields of its document, by name, each as JSON.
    #[serde(skip)]
    pub(super) fields: Vec<(String, String)>,
}

impl SummaryEntry {
    /// What the summary says of a snapshot.
    pub(super) fn of(item: &Publication, fields: &[(String, FieldPath)]) -> Self {
        let Publication { region, id, seq, block, doc, .. } = item;
        let field = |(name, path): &(String, FieldPath)| {
            let value = json_text::canonical_at(doc, path.as_str()).unwrap_or_else(|| "null".into());
            (name.clone(), value)
        };
        let fields = fields.iter().map(field).collect();
        Self { region: region.to_string(), id: id.clone(), seq: *seq, block: *block, fields }
    }
}

/// The regions by name, and whose they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) regions: BTreeMap<String, SummaryEntry>,
    pub(super) owner: Owner,
}

/// The store that has signed a summary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Owner {
    /// Its signature; none if no store has signed.
    pub(super) store: Option<String>,
    /// The signature of the store that it has taken over from: regions that it has not published yet bear that one.
    pub(super) predecessor: Option<String>,
}

#[derive(Deserialize)]
struct Stored<'s> {
    #[serde(borrow)]
    regions: Vec<&'s RawValue>,
    #[serde(default)]
    store: Option<String>,
    #[serde(default)]
    predecessor: Option<String>,
}

impl Summary {
    /// Reads a summary; none if the text is none of ours.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let Stored { regions, store, predecessor } = serde_json::from_slice(text).ok()?;
        let regions = regions.into_iter().map(read_entry).collect::<Option<Vec<SummaryEntry>>>()?;
        let regions = regions.into_iter().map(|entry| (entry.region.clone(), entry)).collect();
        Some(Self { regions, owner: Owner { store, predecessor } })
    }

    pub(super) fn note(&mut self, entry: SummaryEntry) {
        self.regions.insert(entry.region.clone(), entry);
    }

    /// Takes in what others have written: of each region what is newer.
    pub(super) fn merge(&mut self, theirs: Self) {
        for (region, entry) in theirs.regions {
            if self.regions.get(&region).is_none_or(|ours| ours.seq < entry.seq) {
                self.regions.insert(region, entry);
            }
        }
    }

    /// The text of a summary of that pipeline as of now.
    pub(super) fn text(&self, pipeline: &str) -> String {
        let (head, tail) = around(pipeline, &self.owner);
        let entries: Vec<String> = self.regions.values().map(entry_text).collect();
        format!("{head}{}{tail}", entries.join(","))
    }
}

/// What stands before and behind the entries.
pub(super) fn around(pipeline: &str, owner: &Owner) -> (String, &'static str) {
    let mut head = serde_json::json!({ "pipeline": pipeline, "time": Timestamp::now().to_millis_text() });
    for (name, signature) in [("store", &owner.store), ("predecessor", &owner.predecessor)] {
        if let Some(signature) = signature {
            head[name] = signature.as_str().into();
        }
    }
    let head = head.to_string();
    (format!("{},\"regions\":[", head.trim_end_matches('}')), "]}")
}

fn read_entry(text: &RawValue) -> Option<SummaryEntry> {
    let mut entry: SummaryEntry = serde_json::from_str(text.get()).ok()?;
    let all: BTreeMap<String, &RawValue> = serde_json::from_str(text.get()).ok()?;
    let others = all.into_iter().filter(|(name, _)| check_summary_field(name).is_ok());
    entry.fields = others.map(|(name, value)| (name, value.get().to_owned())).collect();
    Some(entry)
}

pub(super) fn entry_text(entry: &SummaryEntry) -> String {
    // A struct of texts and integers is always JSON.
    let mut text = serde_json::to_string(entry).unwrap_or_default();
    for (name, value) in &entry.fields {
        text.pop();
        text.extend([",", &Json::from(name.as_str()).to_string(), ":", value, "}"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_comes_back() {
        let mut summary = Summary::default();
        summary.note(SummaryEntry {
            region: "b\"".into(),
            id: "i".into(),
            seq: u64::MAX,
            block: Some(-3),
            ..SummaryEntry::default()
        });
        let fields = vec![("n".to_owned(), "12345678901234567890123".to_owned()), ("o".into(), r#"{"x":1}"#.into())];
        summary.note(SummaryEntry { region: "a".into(), id: "j".into(), fields, ..SummaryEntry::default() });
        let text = summary.text("p");
        assert!(
            text.contains(
                r#"[{"region":"a","id":"j","seq":0,"n":12345678901234567890123,"o":{"x":1}},{"region":"b\"","id":"i","seq":18446744073709551615,"block":-3}]}"#
            ),
            "{text}"
        );
        assert_eq!(Summary::parse(text.as_bytes()), Some(summary.clone()));
        summary.owner = Owner { store: Some("s".into()), predecessor: Some("t".into()) };
        assert_eq!(Summary::parse(summary.text("p").as_bytes()), Some(summary));
        assert_eq!(Summary::parse(b"ok"), None);
    }
}
