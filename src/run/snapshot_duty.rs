//! Which snapshots a batch carries.

use std::collections::BTreeMap;

use crate::model::ids::{BlockNo, RegionNo};
use crate::snapshot::{Every, Schedule};

/// A region, and its last block; none if a rollback took all its events back.
pub(super) type LastBlock = (RegionNo, Option<BlockNo>);

/// Which snapshots a batch carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Snapshots {
    /// None.
    None,
    /// Of every region that lacks one.
    Due,
    /// Of these, since what readers have was rolled back.
    Again(Vec<LastBlock>),
}

/// Tracks which regions lack a snapshot, and when they get one.
#[derive(Debug)]
pub(super) struct SnapshotDuty {
    /// Whether handlers make snapshots at all.
    is_on: bool,
    schedule: Schedule,
    /// Regions with events after their last snapshot, and the last block of each, up to the open batch.
    lacking: BTreeMap<RegionNo, BlockNo>,
    /// The same of the open batch.
    open: BTreeMap<RegionNo, BlockNo>,
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
        lacking: BTreeMap<RegionNo, BlockNo>,
        set_back: Vec<RegionNo>,
        tip: Option<BlockNo>,
    ) -> Self {
        Self { is_on, schedule, lacking, open: BTreeMap::new(), newest: tip, set_back }
    }

    /// Snapshots are due by another rule from now on.
    pub(super) fn set_every(&mut self, every: Every) {
        self.schedule.set_every(every);
    }

    /// A region had events in the open batch, the last of them in that block.
    pub(super) fn note(&mut self, region: RegionNo, block: BlockNo) {
        if self.is_on {
            self.open.insert(region, block);
        }
    }

    /// The open batch is not to be committed: its events have not happened yet.
    pub(super) fn discarded(&mut self) {
        self.open.clear();
    }

    fn is_lacking(&self) -> bool {
        self.is_on && !(self.lacking.is_empty() && self.open.is_empty())
    }

    /// The regions of a batch's snapshots. The last block of a region is the same however the source was cut into batches
    /// and runs; the last block of the batch is not.
    pub(super) fn regions(&self, snapshots: &Snapshots) -> Vec<LastBlock> {
        match snapshots {
            Snapshots::None => Vec::new(),
            Snapshots::Due => {
                let mut regions = self.lacking.clone();
                regions.extend(&self.open);
                regions.into_iter().map(|(region, block)| (region, Some(block))).collect()
            }
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
        // Each lacks a snapshot since, unless it has no event any more.
        let with_block = |region| (region, self.lacking.get(&region).copied());
        let set_back: Vec<_> = set_back.into_iter().map(with_block).collect();
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
        self.lacking.append(&mut self.open);
        match snapshots {
            Snapshots::None => {}
            Snapshots::Due => {
                self.schedule.done();
                self.lacking.clear();
                self.newest = self.newest.max(last);
            }
            Snapshots::Again(regions) => {
                for (region, _) in regions {
                    self.lacking.remove(region);
                }
            }
        }
    }

    /// The state was rolled back to block `to`, and `regions` had events after it.
    /// Snapshots as of that block or earlier stay valid; the others are made again at once.
    pub(super) fn rolled_back(&mut self, to: BlockNo, regions: Vec<LastBlock>) -> Snapshots {
        self.open.clear();
        if self.is_on {
            for (region, block) in &regions {
                match block {
                    Some(block) => self.lacking.insert(*region, *block),
                    None => self.lacking.remove(region),
                };
            }
        }
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

    fn regions(numbers: &[(u32, i64)]) -> Vec<LastBlock> {
        numbers.iter().map(|(region, block)| (RegionNo::from(*region), Some(BlockNo::new(*block)))).collect()
    }

    fn duty(every: Every, is_on: bool) -> SnapshotDuty {
        SnapshotDuty::new(Schedule::new(every), is_on, BTreeMap::new(), Vec::new(), Some(BlockNo::new(10)))
    }

    #[test]
    fn a_region_that_had_events_gets_a_snapshot_when_one_is_due() {
        let mut duty = duty(Every::Blocks(5), true);
        assert_eq!((duty.at_seal(5), duty.at_end()), (Snapshots::None, Snapshots::None));
        duty.note(RegionNo::from(3), BlockNo::new(11));
        duty.note(RegionNo::from(1), BlockNo::new(12));
        assert_eq!(
            (duty.at_seal(4), duty.at_seal(5), duty.at_end()),
            (Snapshots::None, Snapshots::Due, Snapshots::Due)
        );
        assert_eq!(duty.regions(&Snapshots::Due), regions(&[(1, 12), (3, 11)]));
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
        let right = duty.rolled_back(BlockNo::new(10), regions(&[(2, 9)]));
        assert_eq!(right, Snapshots::None, "those of block 10 are right");
        let again = duty.rolled_back(BlockNo::new(7), regions(&[(2, 5), (4, 7)]));
        assert_eq!(again, Snapshots::Again(regions(&[(2, 5), (4, 7)])));
        duty.sealed(&again, Some(BlockNo::new(7)));
        assert_eq!(
            (duty.at_end(), duty.rolled_back(BlockNo::new(7), regions(&[(2, 5)]))),
            (Snapshots::None, Snapshots::None)
        );
        assert_eq!(duty.at_end(), Snapshots::Due, "region 2 lacks one since");
    }

    #[test]
    fn a_region_that_has_no_event_any_more_lacks_nothing() {
        let gone = RegionNo::from(2);
        let mut one = duty(Every::End, true);
        let again = one.rolled_back(BlockNo::new(7), vec![(gone, None)]);
        assert_eq!(again, Snapshots::Again(vec![(gone, None)]), "readers may have what it said");
        one.sealed(&again, Some(BlockNo::new(7)));
        assert_eq!(one.at_end(), Snapshots::None);
        let mut never_told = duty(Every::End, true);
        never_told.note(gone, BlockNo::new(11));
        never_told.sealed(&Snapshots::None, Some(BlockNo::new(11)));
        assert_eq!(never_told.rolled_back(BlockNo::new(10), vec![(gone, None)]), Snapshots::None);
        assert_eq!(never_told.at_end(), Snapshots::None);
        let mut resumed = SnapshotDuty::new(Schedule::new(Every::End), true, BTreeMap::new(), vec![gone], None);
        assert_eq!(resumed.at_start(), Snapshots::Again(vec![(gone, None)]));
    }

    #[test]
    fn a_region_keeps_its_last_block_however_batches_are_cut() {
        let mut duty = duty(Every::End, true);
        let one = RegionNo::from(1);
        duty.note(one, BlockNo::new(11));
        duty.sealed(&Snapshots::None, Some(BlockNo::new(14)));
        duty.note(RegionNo::from(2), BlockNo::new(15));
        assert_eq!(duty.regions(&duty.at_end()), regions(&[(1, 11), (2, 15)]));
        duty.note(one, BlockNo::new(16));
        duty.discarded();
        assert_eq!(duty.regions(&duty.at_end()), regions(&[(1, 11)]));
        let mut resumed =
            SnapshotDuty::new(Schedule::new(Every::End), true, [(one, BlockNo::new(11))].into(), vec![one], None);
        assert_eq!(resumed.at_start(), Snapshots::Again(regions(&[(1, 11)])));
    }

    #[test]
    fn without_snapshots_nothing_is_ever_due() {
        let mut duty = SnapshotDuty::new(
            Schedule::new(Every::Batch),
            false,
            [(RegionNo::from(1), BlockNo::new(1))].into(),
            vec![],
            None,
        );
        duty.note(RegionNo::from(1), BlockNo::new(1));
        assert_eq!([duty.at_start(), duty.at_seal(1), duty.at_end()], [const { Snapshots::None }; 3]);
        assert_eq!((duty.blocks_left(0, 5), duty.is_due_by_time()), (u64::MAX, false));
    }
}
