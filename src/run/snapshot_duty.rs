//! Which snapshots a batch carries.

use std::collections::BTreeSet;

use crate::model::ids::{BlockNo, RegionNo};
use crate::snapshot::{Every, Schedule};

/// Which snapshots a batch carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Snapshots {
    /// None.
    None,
    /// Of every region that lacks one.
    Due,
    /// Of these, since what readers have was rolled back.
    Again(Vec<RegionNo>),
}

/// Tracks which regions lack a snapshot, and when they get one.
#[derive(Debug)]
pub(super) struct SnapshotDuty {
    /// Whether handlers make snapshots at all.
    is_on: bool,
    schedule: Schedule,
    /// Regions with events after their last snapshot.
    lacking: BTreeSet<RegionNo>,
    /// No snapshot is newer than this block.
    newest: Option<BlockNo>,
    /// Regions that an earlier run rolled back, and for which it did not get to make snapshots.
    set_back: Vec<RegionNo>,
}

impl SnapshotDuty {
    /// The duty at the start of a run whose state is that of block `tip`.
    pub(super) fn new(
        schedule: Schedule,
        is_on: bool,
        lacking: BTreeSet<RegionNo>,
        set_back: Vec<RegionNo>,
        tip: Option<BlockNo>,
    ) -> Self {
        Self { is_on, schedule, lacking, newest: tip, set_back }
    }

    /// Snapshots are due by another rule from now on.
    pub(super) fn set_every(&mut self, every: Every) {
        self.schedule.set_every(every);
    }

    /// A region had events.
    pub(super) fn note(&mut self, region: RegionNo) {
        if self.is_on {
            self.lacking.insert(region);
        }
    }

    fn is_lacking(&self) -> bool {
        self.is_on && !self.lacking.is_empty()
    }

    /// The regions of a batch's snapshots.
    pub(super) fn regions(&self, snapshots: &Snapshots) -> Vec<RegionNo> {
        match snapshots {
            Snapshots::None => Vec::new(),
            Snapshots::Due => self.lacking.iter().copied().collect(),
            Snapshots::Again(regions) => regions.clone(),
        }
    }

    /// The block as of which snapshots are computed when the state is that of `tip`.
    pub(super) fn block(&self, tip: Option<BlockNo>) -> BlockNo {
        tip.or(self.newest).unwrap_or_default()
    }

    /// What a batch carries after which there are `blocks` in all.
    pub(super) fn at_seal(&self, blocks: u64) -> Snapshots {
        if self.is_lacking() && self.schedule.is_due(blocks) { Snapshots::Due } else { Snapshots::None }
    }

    /// What the last batch of a run carries.
    pub(super) fn at_end(&self) -> Snapshots {
        if self.is_lacking() { Snapshots::Due } else { Snapshots::None }
    }

    /// Snapshots to make before the first event, for regions that an earlier run rolled back.
    pub(super) fn at_start(&mut self) -> Snapshots {
        let set_back = std::mem::take(&mut self.set_back);
        if self.is_on && !set_back.is_empty() { Snapshots::Again(set_back) } else { Snapshots::None }
    }

    /// Whether time alone has made snapshots due, without a new block.
    pub(super) fn is_due_by_time(&self) -> bool {
        self.is_lacking() && self.schedule.is_due_by_time()
    }

    /// Blocks that a batch may still take before it has to end for its snapshots: it follows on `before` blocks and has
    /// `open` of its own.
    pub(super) fn blocks_left(&self, before: u64, open: u64) -> u64 {
        if !self.is_on {
            return u64::MAX;
        }
        self.schedule.blocks_until_due(before).saturating_sub(open)
    }

    /// A batch that ends with block `last` carries these.
    pub(super) fn sealed(&mut self, snapshots: &Snapshots, last: Option<BlockNo>) {
        match snapshots {
            Snapshots::None => {}
            Snapshots::Due => {
                self.schedule.done();
                self.lacking.clear();
                self.newest = self.newest.max(last);
            }
            Snapshots::Again(regions) => {
                for region in regions {
                    self.lacking.remove(region);
                }
            }
        }
    }

    /// The state was rolled back to block `to`, and `regions` had events after it. Snapshots as of that block or
    /// earlier stay valid; the others are made again at once.
    pub(super) fn rolled_back(&mut self, to: BlockNo, regions: Vec<RegionNo>) -> Snapshots {
        regions.iter().for_each(|region| self.note(*region));
        let is_wrong = self.newest.is_some_and(|newest| newest > to);
        if !self.is_on || !is_wrong || regions.is_empty() {
            return Snapshots::None;
        }
        self.newest = Some(to);
        Snapshots::Again(regions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Every;

    fn regions(numbers: &[u32]) -> Vec<RegionNo> {
        numbers.iter().copied().map(RegionNo::from).collect()
    }

    fn duty(every: Every, is_on: bool) -> SnapshotDuty {
        SnapshotDuty::new(Schedule::new(every), is_on, BTreeSet::new(), Vec::new(), Some(BlockNo::new(10)))
    }

    #[test]
    fn a_region_that_had_events_gets_a_snapshot_when_one_is_due() {
        let mut duty = duty(Every::Blocks(5), true);
        assert_eq!((duty.at_seal(5), duty.at_end()), (Snapshots::None, Snapshots::None));
        duty.note(RegionNo::from(3));
        duty.note(RegionNo::from(1));
        assert_eq!(
            (duty.at_seal(4), duty.at_seal(5), duty.at_end()),
            (Snapshots::None, Snapshots::Due, Snapshots::Due)
        );
        assert_eq!(duty.regions(&Snapshots::Due), regions(&[1, 3]));
        assert_eq!((duty.blocks_left(3, 1), duty.blocks_left(3, 2)), (1, 0));
        duty.sealed(&Snapshots::Due, Some(BlockNo::new(12)));
        assert_eq!(
            (duty.at_end(), duty.block(None), duty.block(Some(BlockNo::new(15)))),
            (Snapshots::None, BlockNo::new(12), BlockNo::new(15))
        );
    }

    #[test]
    fn snapshots_that_were_rolled_back_are_made_again() {
        let mut duty = duty(Every::End, true);
        assert_eq!(duty.rolled_back(BlockNo::new(10), regions(&[2])), Snapshots::None, "those of block 10 are right");
        let again = duty.rolled_back(BlockNo::new(7), regions(&[2, 4]));
        assert_eq!(again, Snapshots::Again(regions(&[2, 4])));
        duty.sealed(&again, Some(BlockNo::new(7)));
        assert_eq!(
            (duty.at_end(), duty.rolled_back(BlockNo::new(7), regions(&[2]))),
            (Snapshots::None, Snapshots::None)
        );
        assert_eq!(duty.at_end(), Snapshots::Due, "region 2 lacks one since");
    }

    #[test]
    fn without_snapshots_nothing_is_ever_due() {
        let mut duty =
            SnapshotDuty::new(Schedule::new(Every::Batch), false, [RegionNo::from(1)].into(), regions(&[1]), None);
        duty.note(RegionNo::from(1));
        assert_eq!([duty.at_start(), duty.at_seal(1), duty.at_end()], [const { Snapshots::None }; 3]);
        assert_eq!((duty.blocks_left(0, 5), duty.is_due_by_time()), (u64::MAX, false));
    }
}
