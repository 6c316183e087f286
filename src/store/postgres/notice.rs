//! What who listens is told of a batch: which pipeline, up to which block, which regions.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::batch::SealedBatch;

/// The channel to listen to: one for all pipelines of a database.
pub(super) const CHANNEL: &str = "forebay";

/// Postgres takes less than 8,000 bytes.
const BYTES_MAX: usize = 7999;

/// How a text ends that names all regions, and one that does not.
const WHOLE: &str = "],\"truncated\":false}";
const CUT: &str = "],\"truncated\":true}";

/// The text of a batch. Regions that do not fit are left out, and that is said.
pub(super) fn text(pipeline: &str, batch: &SealedBatch) -> String {
    let touched = batch.touched.iter().map(|touch| &*touch.region);
    let drafts = batch.snapshots.iter().map(|draft| &*draft.region);
    let undone = batch.undone.iter().flat_map(|undone| &undone.regions).map(|undo| &*undo.region);
    let regions: BTreeSet<&str> = touched.chain(drafts).chain(undone).collect();
    let block = batch.after.block.map_or(Json::Null, Json::from);
    let mut text = format!("{{\"pipeline\":{},\"block\":{block},\"regions\":[", Json::from(pipeline));
    let begun = text.len();
    for region in regions {
        let comma = if text.len() == begun { "" } else { "," };
        let region = Json::from(region).to_string();
        if text.len() + comma.len() + region.len() + WHOLE.len() > BYTES_MAX {
            return text + CUT;
        }
        text.push_str(comma);
        text.push_str(&region);
    }
    text + WHOLE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::RegionTouch;
    use crate::model::checkpoint::Checkpoint;

    fn told(regions: impl IntoIterator<Item = String>) -> String {
        let mut batch = SealedBatch::new(Checkpoint::default(), Checkpoint::new(1, Some(18)));
        batch.touched = regions.into_iter().map(|region| RegionTouch::new(region, 18, 1)).collect();
        text("shop", &batch)
    }

    #[test]
    fn regions_are_named_as_far_as_they_fit() {
        let two = told(["b".to_owned(), "a\"\0".to_owned()]);
        assert_eq!(two, r#"{"pipeline":"shop","block":18,"regions":["a\"\u0000","b"],"truncated":false}"#);
        assert_eq!(told([]), r#"{"pipeline":"shop","block":18,"regions":[],"truncated":false}"#);
        for len in [1, 17, 900, 7998, 9000] {
            let text = told((0..2000).map(|at| format!("{at:0len$}")));
            assert!(text.len() <= BYTES_MAX && text.ends_with(CUT), "{len}: {}", text.len());
            let json: Json = serde_json::from_str(&text).expect("JSON");
            assert_eq!(json["regions"].as_array().map(Vec::is_empty), Some(len > 7900));
            assert!(len > 100 || text.len() > BYTES_MAX - 40, "as much as fits: {}", text.len());
        }
    }
}
