//! The memory budget of a run: how large the next round may be, and what to do when memory is short.
//!
//! Pure: takes the bytes in use, returns what to do.

use crate::model::limits::{ROUND_EVENTS_MAX, ROUND_EVENTS_MIN};

/// Bytes in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Usage {
    /// What the engines take: row caches and what belongs to them.
    pub(super) engines: usize,
    /// What they took when the open batch began.
    pub(super) engines_at_open: usize,
    /// Batches that are sealed and not committed.
    pub(super) staged: usize,
    /// Events that are read ahead.
    pub(super) read_ahead: usize,
    /// The names of all regions, and what is noted of each.
    pub(super) regions: usize,
}

impl Usage {
    fn used(&self) -> usize {
        self.engines + self.staged + self.read_ahead + self.regions
    }

    /// Bytes in use, and what sealing the open batch would add: its rows stay in the cache, are packed, and travel with it.
    fn needed(&self) -> usize {
        self.used() + 2 * self.engines.saturating_sub(self.engines_at_open)
    }
}

/// What the budget asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relief {
    /// Nothing: there is room.
    None,
    /// Evict committed rows.
    Trim,
    /// Seal the open batch and wait until all that is staged has committed.
    SealAndWait,
}

/// The bytes that a run may take.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    limit: usize,
    /// The need above which memory has to be freed.
    pressure: usize,
}

impl MemoryBudget {
    /// A budget of `batch.memory` bytes.
    pub(super) fn new(memory_bytes: u64) -> Self {
        let limit = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
        Self { limit, pressure: soft(limit) }
    }

    /// What has to be done before the next round.
    pub(super) fn relief(&self, usage: &Usage) -> Relief {
        if usage.needed() <= self.pressure { Relief::None } else { Relief::Trim }
    }

    /// What to do after committed rows were evicted. `can_seal`: the open batch has events and is whole blocks.
    pub(super) fn relief_after_trim(&self, usage: &Usage, can_seal: bool) -> Relief {
        if usage.needed() > soft(self.limit) && can_seal { Relief::SealAndWait } else { Relief::None }
    }

    /// Notes what could not be evicted, so that it is not tried again for every round: only once as much has come that
    /// evicting is worth its time, which is that of going through all that is there. The budget stays the upper bound, as
    /// far as what cannot go leaves room below it.
    pub(super) fn settle(&mut self, usage: &Usage) {
        let (needed, limit) = (usage.needed(), self.limit);
        let before_the_end = (needed + limit / 16).min(limit / 16 * 15);
        self.pressure = before_the_end.max(needed + limit / 32).max(soft(limit));
    }

    /// The size of the next round, after one of `events` that took `grown` bytes: it may use a quarter of the memory
    /// that is left, and be twice as large as the last.
    pub(super) fn round_events(&self, usage: &Usage, events: u64, grown: usize) -> usize {
        let left = self.limit.saturating_sub(usage.used()) as u64;
        let fits = (left / 4).saturating_mul(events) / (grown as u64).max(1);
        let limit = fits.min(events.max(ROUND_EVENTS_MIN) * 2).clamp(ROUND_EVENTS_MIN, ROUND_EVENTS_MAX as u64);
        usize::try_from(limit).unwrap_or(ROUND_EVENTS_MAX)
    }
}

/// Above this share of the budget memory is freed, so that one more round fits.
fn soft(limit: usize) -> usize {
    limit / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn usage(engines: usize, at_open: usize, staged: usize) -> Usage {
        let (engines, engines_at_open, staged) = (engines * MIB, at_open * MIB, staged * MIB);
        Usage { engines, engines_at_open, staged, read_ahead: MIB, regions: 0 }
    }

    #[test]
    fn memory_that_is_short_is_trimmed_first_and_then_waited_for() {
        let budget = MemoryBudget::new(64 * MIB as u64);
        // Of 64 MiB three quarters are the soft limit; what the open batch added counts three times.
        for (engines, at_open, staged, first, then) in [
            (10, 10, 0, Relief::None, Relief::None),
            (40, 40, 7, Relief::None, Relief::None),
            (40, 40, 8, Relief::Trim, Relief::SealAndWait),
            (25, 13, 0, Relief::Trim, Relief::SealAndWait),
            (24, 13, 0, Relief::None, Relief::None),
        ] {
            let usage = usage(engines, at_open, staged);
            assert_eq!(budget.relief(&usage), first, "{usage:?}");
            assert_eq!(budget.relief_after_trim(&usage, true), then, "{usage:?}");
            assert_eq!(budget.relief_after_trim(&usage, false), Relief::None, "{usage:?}");
        }
    }

    #[test]
    fn what_cannot_go_is_not_tried_again_for_every_round() {
        let mut budget = MemoryBudget::new(64 * MIB as u64);
        let full = usage(50, 50, 0);
        assert_eq!(budget.relief(&full), Relief::Trim);
        budget.settle(&full);
        assert_eq!(budget.relief(&full), Relief::None);
        assert_eq!(budget.relief(&usage(60, 60, 0)), Relief::Trim, "but the budget stays the end");
        budget.settle(&usage(60, 60, 0));
        assert_eq!(
            budget.relief(&usage(62, 62, 0)),
            Relief::None,
            "where nothing can go, trying for each round is in vain"
        );
        assert_eq!(budget.relief(&usage(63, 63, 0)), Relief::Trim);
        budget.settle(&usage(1, 1, 0));
        assert_eq!(budget.relief(&full), Relief::Trim, "and it is as before once there is room again");
    }

    #[test]
    fn a_round_doubles_while_there_is_room_and_shrinks_when_there_is_not() {
        let budget = MemoryBudget::new(64 * MIB as u64);
        for (used, events, grown, next) in [
            (0, 64, 0, 128),
            (0, 4096, MIB, 8192),
            (0, 8192, MIB, 8192),
            (47, 8192, 8 * MIB, 4096),
            (63, 8192, 8 * MIB, 64),
            (0, 1, 0, 128),
        ] {
            assert_eq!(budget.round_events(&usage(used, used, 0), events, grown), next, "{used} {events} {grown}");
        }
    }
}
