//! What a store decides of snapshots, the same in every store: which is a duplicate, which number is next, what goes.
//!
//! Each rule stands here once as a function and beside it as SQL, for stores that decide within the statement that writes.
//! `tests/it/snapshot_policy.rs` runs the same cases over the functions and over each store.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::StorePlan;
use crate::batch::SnapshotDraft;
use crate::model::timestamp::Timestamp;
use crate::snapshot::{ID_HASH_DIGITS, snapshot_id};

/// How long the same content counts as a duplicate, and how long a snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// How long the same content of a region counts as a duplicate; zero for never.
    pub dedup: Duration,
    /// How long a snapshot is kept that is not its region's newest.
    pub ttl: Duration,
}

/// A policy that may change while a store is open; as long as it has not, the plan's holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChangedPolicy(Arc<Mutex<Option<SnapshotPolicy>>>);

impl ChangedPolicy {
    fn get(&self) -> Option<SnapshotPolicy> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This one holds from now on.
    pub(crate) fn set(&self, policy: SnapshotPolicy) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(policy);
    }
}

/// A region's newest snapshot, as a store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestSnapshot {
    /// SHA-256 over its content, in hex.
    pub hash: String,
    /// The block as of which it was computed.
    pub block: i64,
    /// When it was computed.
    pub generated_at: Timestamp,
}

/// What becomes of a draft. Its region is covered up to the draft's block in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotVerdict {
    /// The handler has nothing to say, and readers know of nothing else.
    Nothing,
    /// The newest says the same.
    Duplicate,
    /// It is stored, under this number and id.
    New {
        /// The number.
        seq: u64,
        /// The id.
        id: String,
    },
}

impl SnapshotPolicy {
    /// The policy of a plan.
    pub fn of(plan: &StorePlan) -> Self {
        plan.policy.get().unwrap_or(Self { dedup: plan.dedup, ttl: plan.ttl })
    }

    /// What becomes of a draft of a region to which `seq` was given last (0 if none was). One without a document takes back
    /// what the region said before: it is stored as `null`.
    pub fn judge(&self, draft: &SnapshotDraft, seq: u64, newest: Option<&NewestSnapshot>) -> SnapshotVerdict {
        let is_duplicate = newest.is_some_and(|newest| self.is_duplicate(draft, newest));
        if draft.doc.is_none() && (newest.is_none() || is_duplicate) {
            return SnapshotVerdict::Nothing;
        }
        if is_duplicate {
            return SnapshotVerdict::Duplicate;
        }
        let seq = seq + 1;
        SnapshotVerdict::New { seq, id: snapshot_id(&draft.region, seq, &draft.hash) }
    }

    /// Whether a draft says what the region's newest says that is young enough: the newest alone, so that a content that
    /// comes back is a change. One as of a later block was rolled back, and says nothing.
    fn is_duplicate(&self, draft: &SnapshotDraft, newest: &NewestSnapshot) -> bool {
        newest.hash == draft.hash && newest.block <= draft.block && newest.generated_at > self.since(draft)
    }

    /// What the newest must be younger than for a draft to be a duplicate.
    pub fn since(&self, draft: &SnapshotDraft) -> Timestamp {
        draft.generated_at.saturating_sub(self.dedup)
    }

    /// Whether a snapshot goes when others are stored: it is older than its time to live, and never a region's newest.
    pub fn is_pruned(&self, generated_at: Timestamp, seq: u64, newest_seq: u64, now: Timestamp) -> bool {
        generated_at < self.oldest(now) && seq < newest_seq
    }

    /// What a snapshot must be older than to go.
    pub fn oldest(&self, now: Timestamp) -> Timestamp {
        now.saturating_sub(self.ttl)
    }
}

/// The number that a region's newest gets that has `seq`, where readers have `above`; none if it keeps its own.
pub fn renumbered(seq: u64, above: u64) -> Option<u64> {
    (seq <= above).then(|| above.saturating_add(1))
}

/// The rules as SQL. What they are given are names or expressions of the statement that they stand in.
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "each store binds what it needs"))]
pub(super) mod sql {
    use super::ID_HASH_DIGITS;

    /// [`super::SnapshotPolicy::judge`]: whether a draft `d`, with the moment `since`, is new beside the newest `n`, which
    /// may be none.
    pub(in crate::store) const IS_NEW: &str = "(d.doc IS NOT NULL OR n.hash IS NOT NULL)
                 AND NOT coalesce(n.hash = d.hash AND n.block <= d.block AND n.generated_at > d.since, false)";

    /// [`super::SnapshotPolicy::judge`]: the number of a new one.
    pub(in crate::store) fn next_seq(seq: &str) -> String {
        format!("{seq} + 1")
    }

    /// [`crate::snapshot::snapshot_id`].
    pub(in crate::store) fn id(region: &str, seq: &str, hash: &str) -> String {
        format!("{region} || '.' || ({seq}) || '.' || left({hash}, {ID_HASH_DIGITS})")
    }

    /// [`super::SnapshotPolicy::is_pruned`]; `is_older` says that a later one of the region is there.
    pub(in crate::store) fn is_pruned(generated_at: &str, oldest: &str, is_older: &str) -> String {
        format!("{generated_at} < {oldest} AND {is_older}")
    }

    /// [`super::renumbered`]: whether a region gets another number.
    pub(in crate::store) fn is_renumbered(seq: &str, above: &str) -> String {
        format!("{seq} <= {above}")
    }

    /// [`super::renumbered`]: that number.
    pub(in crate::store) fn renumbered(above: &str) -> String {
        format!("{above} + 1")
    }
}
