//! The summary of a pipeline's regions: which snapshot is each one's newest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::timestamp::Timestamp;

/// A region in the summary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SummaryEntry {
    pub(super) region: String,
    pub(super) id: String,
    #[serde(default)]
    pub(super) seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) block: Option<i64>,
}

/// The regions by name, and whose they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) regions: BTreeMap<String, SummaryEntry>,
    pub(super) owner: Owner,
}

/// The store that has signed a summary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Owner {
    /// Its signature; none if no store has signed.
    #[serde(default)]
    pub(super) store: Option<String>,
    /// The signature of the store that it has taken over from: regions that it has not published yet bear that one.
    #[serde(default)]
    pub(super) predecessor: Option<String>,
}

#[derive(Deserialize)]
struct Stored {
    regions: Vec<SummaryEntry>,
    #[serde(flatten)]
    owner: Owner,
}

impl Summary {
    /// Reads a summary; none if the text is none of ours.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(text).ok()?;
        let regions = stored.regions.into_iter().map(|entry| (entry.region.clone(), entry)).collect();
        Some(Self { regions, owner: stored.owner })
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

pub(super) fn entry_text(entry: &SummaryEntry) -> String {
    // A struct of texts and integers is always JSON.
    serde_json::to_string(entry).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_comes_back() {
        let mut summary = Summary::default();
        summary.note(SummaryEntry { region: "b\"".into(), id: "i".into(), seq: u64::MAX, block: Some(-3) });
        summary.note(SummaryEntry { region: "a".into(), id: "j".into(), seq: 0, block: None });
        let text = summary.text("p");
        assert!(
            text.contains(
                r#"[{"region":"a","id":"j","seq":0},{"region":"b\"","id":"i","seq":18446744073709551615,"block":-3}]}"#
            ),
            "{text}"
        );
        assert_eq!(Summary::parse(text.as_bytes()), Some(summary.clone()));
        summary.owner = Owner { store: Some("s".into()), predecessor: Some("t".into()) };
        assert_eq!(Summary::parse(summary.text("p").as_bytes()), Some(summary));
        assert_eq!(Summary::parse(b"ok"), None);
    }
}
