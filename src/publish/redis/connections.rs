//! What every exchange of a publisher goes over: the servers, the threads, the script.

use std::time::Duration;

use super::node::Node;
use super::plan::PublishPlan;
use super::script::Script;
use super::topology::{Topology, redirection};
use crate::publish::{OtherStore, PublishError};

/// The way to a server or cluster.
pub(super) struct Connections {
    pub(super) plan: PublishPlan,
    pub(super) topology: Topology,
    pub(super) script: Script,
    /// The signature of the store that this one has taken over from: regions that are not published yet bear it.
    pub(super) predecessor: Option<String>,
    pub(super) threads: rayon::ThreadPool,
    /// Whether slots that move and servers that are gone are waited for.
    pub(super) is_patient: bool,
}

impl Connections {
    /// Why nothing is published over what another store has signed.
    pub(super) fn other_store(&self, theirs: &str) -> PublishError {
        let PublishPlan { url, pipeline, signature, .. } = &self.plan;
        PublishError::OtherStore(Box::new(OtherStore {
            target: url.to_string(),
            pipeline: pipeline.clone(),
            // It may be anybody's text.
            theirs: theirs.chars().filter(|character| character.is_ascii_graphic()).take(64).collect(),
            ours: signature.clone().unwrap_or_default(),
        }))
    }

    /// Notes where a slot has moved to; says whether it has.
    pub(super) fn note_moved(&self, node: &Node, error: &redis::ServerError) -> bool {
        let moved = redirection(error.details().unwrap_or_default(), node.host.as_ref());
        match moved.filter(|_| error.code() == "MOVED" && self.topology.is_cluster()) {
            Some((slot, host)) => {
                self.topology.note_moved(slot, host);
                true
            }
            None => false,
        }
    }
}

/// A span as Redis takes it; Redis refuses 0.
pub(super) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX).max(1)
}
