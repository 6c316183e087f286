//! When the open batch is sealed.
//!
//! Pure: takes the state of the batch and of the commit thread, returns a decision.

use std::time::Duration;

use crate::batch::open::Growth;
use crate::model::limits::{BATCH_EVENTS, OPEN_BATCH_GROWTH_MAX, OPEN_BATCH_TIME};

/// How the open batch stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenState {
    pub(super) events: u64,
    /// Whether it could end here: its last block is whole.
    pub(super) is_whole: bool,
    /// What the last rounds added.
    pub(super) growth: Growth,
    /// How long it has been open; none without events.
    pub(super) age: Option<Duration>,
}

/// How the commit thread stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommitState {
    /// Nothing is being committed, and nothing waits.
    Idle,
    /// One batch is being committed; the next may wait.
    Busy,
    /// One is being committed and one waits.
    Full,
}

/// What the policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The batch goes on growing.
    Keep,
    /// It is sealed.
    Seal(Reason),
}

/// Why a batch is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It has its events, and the commit thread has nothing to do.
    Idle,
    /// It has grown to as much as it may while the commit thread is busy.
    Grown,
}

/// When a batch is sealed. While the commit thread is busy, or while the same rows are written again and again, the
/// batch keeps growing: a row that changes again is then written once.
#[derive(Debug, Clone, Copy)]
pub(super) struct SealPolicy {
    /// `batch.events`.
    target: u64,
}

impl SealPolicy {
    /// The policy for batches of that many events.
    pub(super) fn new(target: u64) -> Self {
        Self { target }
    }

    /// Events that a round may add to a batch that has `events`.
    pub(super) fn events_left(self, events: u64) -> u64 {
        if events < self.target { self.target - events } else { self.target }
    }

    /// Whether the batch is to be sealed now.
    pub(super) fn decide(self, open: OpenState, commits: CommitState) -> Decision {
        if !open.is_whole || open.events < self.target || commits == CommitState::Full {
            return Decision::Keep;
        }
        if open.events >= self.target.saturating_mul(OPEN_BATCH_GROWTH_MAX) {
            return Decision::Seal(Reason::Grown);
        }
        match commits {
            CommitState::Idle if !self.rewrites(open) => Decision::Seal(Reason::Idle),
            _ => Decision::Keep,
        }
    }

    /// Whether the last events mostly changed rows that the batch had changed already, so that it pays to go on: for a
    /// while, and the longer the larger batches are meant to be.
    fn rewrites(self, open: OpenState) -> bool {
        let is_young = open.age.is_some_and(|age| age < OPEN_BATCH_TIME);
        is_young && open.growth.rows * 2 < open.growth.events && open.events < self.rewritten_max()
    }

    /// Events up to which a batch grows for the sake of rows that change again: as many as are meant for a small one,
    /// and from the default on as many as for any. There is no step in between.
    fn rewritten_max(self) -> u64 {
        let grown = u128::from(self.target).pow(2) * u128::from(OPEN_BATCH_GROWTH_MAX) / u128::from(BATCH_EVENTS);
        u64::try_from(grown).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CommitState::{Busy, Full, Idle};
    use Decision::{Keep, Seal};

    const NEW_ROWS: Growth = Growth { events: 100, rows: 100 };
    const SAME_ROWS: Growth = Growth { events: 100, rows: 10 };

    fn decide(target: u64, events: u64, growth: Growth, age_ms: u64, commits: CommitState) -> Decision {
        let open = OpenState { events, is_whole: true, growth, age: Some(Duration::from_millis(age_ms)) };
        SealPolicy::new(target).decide(open, commits)
    }

    #[test]
    fn a_batch_is_sealed_when_it_is_full_and_the_commit_thread_can_take_it() {
        for (events, growth, age_ms, commits, decision) in [
            (9_999, NEW_ROWS, 0, Idle, Keep),
            (10_000, NEW_ROWS, 0, Idle, Seal(Reason::Idle)),
            (10_000, NEW_ROWS, 0, Busy, Keep),
            (10_000, NEW_ROWS, 0, Full, Keep),
            (80_000, NEW_ROWS, 0, Busy, Seal(Reason::Grown)),
            (80_000, NEW_ROWS, 0, Full, Keep),
            // Rows are written again: it pays to wait, but not for long.
            (10_000, SAME_ROWS, 99, Idle, Keep),
            (10_000, SAME_ROWS, 100, Idle, Seal(Reason::Idle)),
            (80_000, SAME_ROWS, 0, Idle, Seal(Reason::Grown)),
        ] {
            assert_eq!(decide(10_000, events, growth, age_ms, commits), decision, "{events} {growth:?} {commits:?}");
        }
        // A smaller batch is meant to be small: what rows that change again add to it shrinks with it.
        for (target, events, decision) in [
            (100, 100, Seal(Reason::Idle)),
            (1_250, 1_250, Seal(Reason::Idle)),
            (5_000, 19_999, Keep),
            (5_000, 20_000, Seal(Reason::Idle)),
            (9_999, 79_983, Keep),
            (9_999, 79_984, Seal(Reason::Idle)),
        ] {
            assert_eq!(decide(target, events, SAME_ROWS, 0, Idle), decision, "{target} {events}");
        }
        let open = OpenState { events: 10_000, is_whole: false, growth: NEW_ROWS, age: None };
        assert_eq!(SealPolicy::new(100).decide(open, Idle), Keep, "a block that is not whole is never cut");
    }

    #[test]
    fn a_round_fills_the_batch_or_adds_as_much_again() {
        let policy = SealPolicy::new(100);
        assert_eq!([0, 99, 100, 350].map(|events| policy.events_left(events)), [100, 1, 100, 100]);
    }
}
