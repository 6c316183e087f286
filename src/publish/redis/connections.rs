//! What every exchange of a publisher goes over: the servers, the threads, the script.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};

use super::outcome::Published;
use super::script::Script;
use crate::publish::{OtherStore, PublishError, PublishPlan};
use crate::redis::RedisUrl;
use crate::redis::node::Node;
use crate::redis::topology::{Topology, redirection};
use crate::redis::wire::{Break, server_text};

/// A lock that is held: its key, and what it holds while it is ours.
#[derive(Debug, Clone)]
pub(super) struct HeldLock {
    pub(super) key: String,
    pub(super) value: String,
}

/// The way to a server or cluster.
pub(super) struct Connections {
    pub(super) plan: PublishPlan,
    pub(super) topology: Arc<Topology>,
    pub(super) script: Script,
    /// The signature of the store that this one has taken over from: regions that are not published yet bear it.
    pub(super) predecessor: Option<String>,
    /// Where Redis is, as the plan says.
    pub(super) url: RedisUrl,
    pub(super) threads: rayon::ThreadPool,
    /// The lock of who seeds: nothing is published without it.
    pub(super) lock: Option<HeldLock>,
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

    /// One command beside the regions; what goes wrong with it is a warning.
    pub(super) fn ask_aside(&self, key: &str, command: &Cmd, published: &mut Published) -> Option<Value> {
        match self.ask(key, command, &mut published.round_trips) {
            Ok(reply) => Some(reply),
            Err(error) => {
                published.warning = Some(format!("{key}: {error}"));
                None
            }
        }
    }

    /// One command, tried twice if its slot has moved or its connection broke.
    pub(super) fn ask(&self, key: &str, command: &Cmd, trips: &mut u32) -> Result<Value, PublishError> {
        let mut failure = PublishError::Refused("it was not tried".into());
        for _ in 0..2 {
            let node = self.topology.node_of(key)?;
            let answer = node.ask([command.clone()]);
            *trips += answer.trips;
            match (answer.replies.values.into_iter().next(), answer.replies.broke) {
                (Some(Value::ServerError(error)), _) => {
                    failure = PublishError::Refused(server_text(&error));
                    if !self.note_moved(&node, &error) {
                        break;
                    }
                }
                (Some(reply), _) => return Ok(reply),
                (None, broke) => {
                    let broke = broke.unwrap_or(Break::Dropped("no answer came".into()));
                    failure = node.error(&broke).into();
                    if !broke.was_connected() {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }
}

/// A span as Redis takes it; Redis refuses 0.
pub(super) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX).max(1)
}
