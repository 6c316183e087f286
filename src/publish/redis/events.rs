//! Who listens for new snapshots: what he is told, and what is said where he is not.
//!
//! The script that publishes a region tells it to the region's channel, in the same step. If the user may not, the snapshot
//! is published all the same.

use crate::publish::Publication;

/// What who listens is told of a snapshot.
pub(super) fn event_text(Publication { id, seq, block, .. }: &Publication) -> String {
    let id = serde_json::Value::from(id.as_str());
    let block = block.map_or_else(|| "null".to_owned(), |block| block.to_string());
    format!(r#"{{"id":{id},"seq":{seq},"block":{block}}}"#)
}

/// What is said if nobody can be told.
pub(super) fn untold_text(pipeline: &str, user: &str, cause: &str) -> String {
    format!(
        "snapshots are published, but who listens for them is not told: {cause}; to allow it: ACL SETUSER {user} +publish \
         &forebay:{{{pipeline}:*}}:events"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_json_whatever_the_id() {
        let item =
            |id: &str, block| Publication { id: id.into(), block, ..Publication::new("r", 7, serde_json::json!({})) };
        assert_eq!(event_text(&item("r.7.ab", Some(-3))), r#"{"id":"r.7.ab","seq":7,"block":-3}"#);
        assert_eq!(event_text(&item("\"\n", None)), r#"{"id":"\"\n","seq":7,"block":null}"#);
    }
}
