//! The block log: the open batch's part of the undo log without rows, namely its blocks and hashes, and which regions
//! they touched.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::round::{LaneBlocks, RoundSummary};
use crate::model::event::position_bytes;
use crate::model::ids::{BlockNo, Depth};
use crate::model::position::Position;
use crate::model::source_progress::{BlockSum, SourceProgress};
use crate::undo::{BlockMark, BlockTouch, RegionUndo, UndoBase, UndoHead};

/// The blocks of the open batch that can be rolled back.
#[derive(Debug, Default)]
pub(crate) struct BlockLog {
    depth: Depth,
    /// Hashes of blocks that have come and are not handled yet.
    hashes: BTreeMap<BlockNo, Arc<str>>,
    /// Sums over their events.
    sums: BTreeMap<BlockNo, BlockSum>,
    /// The position of the source after each of them.
    positions: BTreeMap<BlockNo, Option<Position>>,
    /// Bytes of memory that the positions of the blocks below take.
    position_bytes: usize,
    /// The last block of the batches that are sealed.
    sealed: UndoBase,
    /// The last block that is too old, or in an earlier batch.
    base: UndoBase,
    /// The blocks behind it.
    blocks: VecDeque<BlockMark>,
    touches: VecDeque<BlockTouch>,
    /// The last block in which each region had an event. Only where rows can be rolled back.
    last: HashMap<Arc<str>, BlockNo>,
}

impl BlockLog {
    /// A log that begins where the store stands. `last` are its regions and the last block of each.
    pub(crate) fn new(depth: Depth, sealed: UndoBase, last: Vec<(Arc<str>, i64)>) -> Self {
        Self {
            depth,
            hashes: BTreeMap::new(),
            sums: BTreeMap::new(),
            positions: BTreeMap::new(),
            position_bytes: 0,
            base: sealed.clone(),
            sealed,
            blocks: VecDeque::new(),
            touches: VecDeque::new(),
            last: last.into_iter().map(|(region, block)| (region, block.into())).collect(),
        }
    }

    /// Takes the hashes of blocks that come.
    pub(super) fn note_hashes(&mut self, hashes: Vec<(BlockNo, Arc<str>)>) {
        self.hashes.extend(hashes);
    }

    /// Takes the sums over events that come.
    pub(super) fn note_sums(&mut self, sums: Vec<(BlockNo, BlockSum)>) {
        for (block, sum) in sums {
            self.sums.entry(block).and_modify(|before| before.append(sum)).or_insert(sum);
        }
    }

    /// Takes the positions of the source after blocks that come.
    pub(super) fn note_positions(&mut self, positions: Vec<(BlockNo, Option<Position>)>) {
        self.positions.extend(positions);
    }

    /// Bytes of memory that the positions of the open batch's blocks take.
    pub(super) fn position_bytes(&self) -> usize {
        self.position_bytes
    }

    /// Takes the position of the source after what is committed. Returns whether it was another one, or not known.
    pub(super) fn learn_position(&mut self, position: Position) -> bool {
        let is_new = self.blocks.is_empty() && self.sealed.position.as_ref() != Some(&position);
        if is_new {
            self.sealed.position = Some(position.clone());
            self.base.position = Some(position);
        }
        is_new
    }

    /// Takes what is committed of the source, if that is not known. Returns whether it was not.
    pub(super) fn learn(&mut self, source: SourceProgress) -> bool {
        let is_new = self.sealed.source.digest.is_none() && self.blocks.is_empty();
        if is_new {
            (self.sealed.source, self.base.source) = (source, source);
        }
        is_new
    }

    /// Goes on by the events of a round.
    pub(super) fn pass(&mut self, round: &RoundSummary, lanes: &impl LaneBlocks) {
        for &(block, events) in &round.blocks {
            let sum = self.sums.remove(&block);
            let position = self.positions.remove(&block);
            self.position_bytes += position.as_ref().map_or(0, |position| position_bytes(position.as_ref()));
            match self.blocks.back_mut() {
                Some(last) if last.block == block => last.append(events, sum, position),
                _ => {
                    let hash = self.hashes.remove(&block);
                    let (sum, place) = (sum.map(|sum| sum.digest), sum.and_then(|sum| sum.place));
                    self.blocks.push_back(BlockMark { block, events, hash, sum, place, position: position.flatten() });
                }
            }
        }
        let oldest = self.depth.oldest(round.last_block);
        // The last block may go on in the next round.
        while self.blocks.len() > 1
            && let Some(mark) = self.blocks.pop_front_if(|mark| mark.block <= oldest)
        {
            self.forget_bytes(&mark);
            self.base.pass(&mark);
        }
        if !self.depth.is_none() {
            self.touch(lanes, oldest);
        }
    }

    fn forget_bytes(&mut self, mark: &BlockMark) {
        self.position_bytes = self.position_bytes.saturating_sub(position_bytes(mark.position.as_ref()));
    }

    fn touch(&mut self, lanes: &impl LaneBlocks, oldest: BlockNo) {
        while self.touches.pop_front_if(|touch| touch.block <= oldest).is_some() {}
        for lane in 0..lanes.lanes() {
            let (name, len) = (lanes.name(lane), lanes.events(lane));
            let block_of = |event: usize| lanes.block(lane, event);
            // The first block that can still be rolled back; searched from the end, since most are older in a long run.
            let first = (0..len).rev().take_while(|event| block_of(*event).is_some_and(|block| block > oldest)).count();
            let first = len - first;
            let mut before = match first.checked_sub(1) {
                Some(older) => block_of(older),
                None => self.last.get(name).copied(),
            };
            let blocks: Vec<BlockNo> = (first..len).filter_map(block_of).collect();
            for run in blocks.chunk_by(|a, b| a == b) {
                let touch = BlockTouch { block: run[0], region: Arc::clone(name), events: run.len() as u64, before };
                self.touches.push_back(touch);
                before = Some(run[0]);
            }
            if let Some(last) = before {
                self.last.insert(Arc::clone(name), last);
            }
        }
    }

    /// The head of the undo record of the batch being sealed, none if nothing is to be kept, and what of the source is
    /// committed with it, and the position after that. Starts the next batch.
    pub(super) fn seal(&mut self, last_block: Option<BlockNo>) -> (Option<UndoHead>, SourceProgress, Option<Position>) {
        let oldest = last_block.map_or(i64::MIN.into(), |last| self.depth.oldest(last));
        while let Some(mark) = self.blocks.pop_front_if(|mark| mark.block <= oldest) {
            self.base.pass(&mark);
        }
        let base = self.base.clone();
        let blocks: Vec<BlockMark> = std::mem::take(&mut self.blocks).into();
        let touches = std::mem::take(&mut self.touches).into_iter().filter(|touch| touch.block > oldest).collect();
        blocks.iter().for_each(|mark| self.base.pass(mark));
        self.sealed = self.base.clone();
        self.position_bytes = 0;
        let is_kept = !self.depth.is_none() || self.base.hash.is_some();
        (is_kept.then_some(UndoHead { base, blocks, touches }), self.base.source, self.base.position.clone())
    }

    /// Drops what came of blocks that will not be handled.
    pub(super) fn drop_after(&mut self, to: BlockNo) {
        self.hashes.retain(|block, _| *block <= to);
        self.sums.retain(|block, _| *block <= to);
        self.positions.retain(|block, _| *block <= to);
    }

    /// Forgets the open batch, which is not to be committed.
    pub(super) fn discard(&mut self) {
        self.hashes.clear();
        self.sums.clear();
        self.positions.clear();
        self.position_bytes = 0;
        self.blocks.clear();
        self.base = self.sealed.clone();
        while let Some(touch) = self.touches.pop_back() {
            match touch.before.filter(|before| *before < touch.block) {
                Some(before) => drop(self.last.insert(touch.region, before)),
                None if touch.before.is_none() => drop(self.last.remove(&touch.region)),
                None => {}
            }
        }
    }

    /// Starts again where a rollback ended.
    pub(super) fn set_back(&mut self, to: UndoBase, regions: &[RegionUndo]) {
        self.hashes.clear();
        self.sums.clear();
        self.positions.clear();
        self.position_bytes = 0;
        self.blocks.clear();
        self.touches.clear();
        self.base = to;
        self.sealed = self.base.clone();
        for undo in regions {
            match undo.block {
                Some(block) => drop(self.last.insert(Arc::clone(&undo.region), block.into())),
                None => drop(self.last.remove(&undo.region)),
            }
        }
    }
}
