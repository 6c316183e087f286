//! How fast a run went in the last seconds, and since when its source has not answered: from one look a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::run::{Meter, Reading};

/// How often a look is taken.
pub(super) const STEP: Duration = Duration::from_secs(1);

/// Over how many looks a rate is.
const KEPT: usize = 11;

/// What of a run a later look is compared with.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    events: u64,
    blocks: u64,
    batches: u64,
}

/// What the store holds changes with these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    batch: u64,
    block: Option<i64>,
    published: u64,
    decided: u64,
}

impl Mark {
    /// That of a run now.
    pub(super) fn of(reading: &Reading) -> Self {
        let snapshots = reading.snapshots;
        Self {
            batch: reading.checkpoint.batch,
            block: reading.checkpoint.block,
            published: snapshots.published,
            decided: snapshots.duplicate + snapshots.stale + snapshots.kept,
        }
    }
}

/// The looks.
#[derive(Debug)]
pub(super) struct Samples {
    kept: VecDeque<Sample>,
    turns: u64,
    turned_at: Instant,
    mark: Mark,
    marked_at: Instant,
    next_at: Instant,
}

/// What a run did a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Rates {
    pub(super) events: f64,
    pub(super) blocks: f64,
    pub(super) commits: f64,
}

impl Samples {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            kept: VecDeque::with_capacity(KEPT),
            turns: 0,
            turned_at: now,
            mark: Mark::default(),
            marked_at: now,
            next_at: now,
        }
    }

    /// When the next look is to be taken.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Takes a look, if it is time.
    pub(super) fn look(&mut self, meter: &Meter, now: Instant) {
        if now < self.next_at {
            return;
        }
        self.next_at = now + STEP;
        let reading = meter.read();
        let turns = meter.source_turns();
        if turns != self.turns {
            (self.turns, self.turned_at) = (turns, now);
        }
        self.note(Mark::of(&reading), now);
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        let Reading { events, blocks_committed: blocks, batches, .. } = reading;
        self.kept.push_back(Sample { at: now, events, blocks, batches });
    }

    /// Takes in what the store holds now; how long ago that has changed.
    pub(super) fn note(&mut self, mark: Mark, now: Instant) -> Duration {
        if mark != self.mark {
            (self.mark, self.marked_at) = (mark, now);
        }
        now.saturating_duration_since(self.marked_at)
    }

    /// For how long the source has not answered.
    pub(super) fn source_still_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.turned_at)
    }

    /// The rates of the last ten seconds, or since the first look.
    pub(super) fn rates(&self, reading: &Reading, now: Instant) -> Rates {
        let Some(first) = self.kept.front() else { return Rates::default() };
        let seconds = now.saturating_duration_since(first.at).as_secs_f64();
        if seconds < 0.05 {
            return Rates::default();
        }
        let rate = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds * 10.0).round() / 10.0;
        Rates {
            events: rate(reading.events, first.events),
            blocks: rate(reading.blocks_committed, first.blocks),
            commits: rate(reading.batches, first.batches),
        }
    }
}
