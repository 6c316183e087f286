//! The end of a publish: the health key is written, and the lock given back, where the last region's script has not done
//! both already.

use redis::{Cmd, Value};

use super::connections::{Connections, HeldLock, millis};
use super::outcome::Published;
use super::script::Script;
use crate::publish::PublishError;
use crate::publish::health::Outcome;

/// Ends publishes.
pub(super) struct Settling {
    script: Script,
    /// What the health key held before a publish, if that is known.
    pub(super) health_before: Option<String>,
}

impl Settling {
    pub(super) fn new() -> Self {
        Self { script: Script::settle(), health_before: None }
    }

    /// Writes the health key, if there is one and something to say, and gives the lock back, if there is one. What goes
    /// wrong is a warning.
    pub(super) fn settle(&mut self, to: &mut Connections, outcome: Option<Outcome>, published: &mut Published) {
        let health = outcome.and_then(|outcome| self.health_text(to, outcome, published));
        let lock = to.lock.take();
        let (lock_key, lock) = lock.map_or_else(Default::default, |lock| (lock.key, lock.value));
        let (health_key, health) = health.unwrap_or_default();
        if lock_key.is_empty() && health_key.is_empty() {
            return;
        }
        let is_apart = to.topology.is_cluster();
        let (one, other) = match is_apart {
            true => (self.command(to, &lock_key, &lock, "", ""), Some(self.command(to, "", "", &health_key, &health))),
            false => (self.command(to, &lock_key, &lock, &health_key, &health), None),
        };
        let key = if lock_key.is_empty() { &health_key } else { &lock_key };
        let mut is_ours = true;
        if !is_apart || !lock_key.is_empty() {
            is_ours = to.ask_aside(key, &one, published) != Some(Value::Int(0));
        }
        // On a cluster the two keys are on two servers.
        if let Some(command) = other.filter(|_| is_ours && !health_key.is_empty()) {
            to.ask_aside(&health_key, &command, published);
        }
        published.is_unlocked |= !is_ours;
    }

    /// Gives a lock back, if it is ours.
    pub(super) fn give_back(&self, to: &Connections, lock: &HeldLock) -> Result<Value, PublishError> {
        to.ask(&lock.key, &self.command(to, &lock.key, &lock.value, "", ""), &mut 0)
    }

    fn command(&self, to: &Connections, lock_key: &str, lock: &str, health_key: &str, health: &str) -> Cmd {
        let ttl = millis(to.plan.ttl).to_string();
        let keys = [lock_key, health_key].into_iter().filter(|key| !key.is_empty());
        let arguments = [lock_key, lock, health_key, health, &ttl];
        self.script.call(false, keys, arguments.map(str::as_bytes))
    }

    /// The health key and its text; none if there is no such key.
    fn health_text(&self, to: &Connections, outcome: Outcome, published: &mut Published) -> Option<(String, String)> {
        let key = to.plan.keys.health(&to.plan.pipeline)?;
        let health = to.plan.health.as_ref()?;
        let mut before = self.health_before.clone();
        if before.is_none() && outcome.status() == "failed" {
            match to.ask_aside(&key, &redis::cmd("GET").arg(&key).take(), published)? {
                Value::BulkString(text) => before = String::from_utf8(text).ok(),
                _ => before = None,
            }
        }
        Some((key, health.text(outcome, before.as_deref())))
    }
}

/// What came of a publish, for the health key.
pub(super) fn outcome_of(published: &Published, is_short: bool) -> Outcome {
    Outcome {
        published: published.published(),
        duplicate: published.duplicate(),
        stale: published.stale(),
        kept: published.kept.len(),
        failed: published.failed() + published.unkept.len(),
        is_short,
    }
}
