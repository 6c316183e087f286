//! The open batch: counts of what handlers did since the last seal. Its rows are in the engines.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::block_log::BlockLog;
use super::round::{LaneBlocks, RoundSummary};
use super::sealed::{RegionTouch, SealedBatch, SnapshotDraft};
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::{BatchNo, BlockNo, Depth, RegionNo};
use crate::model::position::Position;
use crate::model::quarantine::Quarantined;
use crate::model::source_progress::{BlockSum, SourceFile, SourceProgress};
use crate::rows::changes::RegionChanges;
use crate::undo::{RegionUndo, UndoBase, record};

/// What follows the events that were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upcoming {
    /// An event of this block.
    Block(BlockNo),
    /// Nothing that belongs to the last block.
    End,
    /// It is not known yet, or the rest of a block will never come.
    Unknown,
}

/// Proof that the open batch ends with a whole block. A batch cannot be sealed without it.
#[derive(Debug)]
pub(crate) struct WholeBlocks(());

impl WholeBlocks {
    /// The proof, if there is one. `partial` is the block that the last round may have left incomplete.
    pub(crate) fn prove(partial: Option<BlockNo>, upcoming: Upcoming) -> Option<Self> {
        let is_whole = match (partial, upcoming) {
            (None, _) | (Some(_), Upcoming::End) => true,
            (Some(partial), Upcoming::Block(next)) => next != partial,
            (Some(_), Upcoming::Unknown) => false,
        };
        is_whole.then_some(Self(()))
    }
}

/// What the engines hand out when a batch is sealed.
#[derive(Debug, Default)]
pub(crate) struct BatchContents {
    /// For each entity of the schema, the changed rows, ordered by region.
    pub(crate) changes: Vec<Vec<RegionChanges>>,
    pub(crate) snapshots: Vec<SnapshotDraft>,
    /// The before-images, in the sections of an undo record.
    pub(crate) before_images: Vec<u8>,
}

/// How much an open batch has grown since the last check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Growth {
    pub(crate) events: u64,
    /// Rows that the batch had not changed before.
    pub(crate) rows: u64,
}

/// The batch that handlers fill. Sealing consumes it and demands the proof that it is whole blocks.
#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    /// The checkpoint that it follows on.
    before: Checkpoint,
    depth: Depth,
    events: u64,
    blocks: u64,
    first_block: Option<BlockNo>,
    last_block: Option<BlockNo>,
    last_block_events: u64,
    /// The last block of each region that had an event, and how many it had.
    touched: HashMap<RegionNo, (BlockNo, u64)>,
    log: BlockLog,
    /// Files that were read to their end.
    files: Vec<SourceFile>,
    /// Whether something was learned of the source that the store does not have.
    has_news: bool,
    /// Its events that were put aside.
    aside: Vec<Quarantined>,
    aside_bytes: usize,
    opened_at: Option<Instant>,
    last_growth: Growth,
}

impl OpenBatch {
    /// An empty batch that follows a checkpoint.
    pub(crate) fn new(before: Checkpoint, depth: Depth, log: BlockLog) -> Self {
        Self { before, depth, log, ..Self::default() }
    }

    /// Its number.
    pub(crate) fn number(&self) -> BatchNo {
        BatchNo::new(self.before.batch).next()
    }

    pub(crate) fn has_events(&self) -> bool {
        self.events > 0
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Blocks of the pipeline up to its end.
    pub(crate) fn blocks_total(&self) -> u64 {
        self.before.blocks + self.blocks
    }

    /// Blocks of the pipeline before it.
    pub(crate) fn blocks_before(&self) -> u64 {
        self.before.blocks
    }

    /// Its first and last block so far; none if it has no event.
    pub(crate) fn span(&self) -> Option<(BlockNo, BlockNo)> {
        self.first_block.zip(self.last_block)
    }

    /// The last block before it; none if nothing is committed.
    pub(crate) fn committed_block(&self) -> Option<BlockNo> {
        self.before.block.map(BlockNo::new)
    }

    /// Its last block; none if it has no event.
    pub(crate) fn last_block(&self) -> Option<BlockNo> {
        self.last_block
    }

    /// The last block of the state that handlers see: its own or that of the checkpoint.
    pub(crate) fn tip(&self) -> Option<BlockNo> {
        self.last_block.or(self.before.block.map(BlockNo::new))
    }

    /// Before-images of blocks after this one are kept if it is sealed now; none if none are kept.
    pub(crate) fn undo_floor(&self) -> Option<BlockNo> {
        let tip = self.tip().filter(|_| !self.depth.is_none())?;
        Some(self.depth.oldest(tip))
    }

    /// How long it has been open; none before its first event.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.opened_at.map(|opened_at| opened_at.elapsed())
    }

    /// How much it has grown since the last call. `rows` are those that it has changed in all.
    pub(crate) fn growth(&mut self, rows: u64) -> Growth {
        let last = std::mem::replace(&mut self.last_growth, Growth { events: self.events, rows });
        Growth { events: self.events - last.events.min(self.events), rows: rows.saturating_sub(last.rows) }
    }

    /// Takes the hashes of blocks, the sums over events and the positions of the source, of what is still to be handled.
    pub(crate) fn note_blocks(
        &mut self,
        hashes: Vec<(BlockNo, Arc<str>)>,
        sums: Vec<(BlockNo, BlockSum)>,
        positions: Vec<(BlockNo, Option<Position>)>,
    ) {
        self.log.note_hashes(hashes);
        self.log.note_sums(sums);
        self.log.note_positions(positions);
    }

    /// Takes what the reader found out about the source: what of it is committed, the position after that, and files that it
    /// has read.
    pub(crate) fn note_source(
        &mut self,
        progress: Option<SourceProgress>,
        position: Option<Position>,
        files: Vec<SourceFile>,
    ) {
        self.has_news |= progress.is_some_and(|progress| self.log.learn(progress)) || !files.is_empty();
        self.has_news |= position.is_some_and(|position| self.log.learn_position(position));
        for file in files {
            // A file that was begun is read to its end.
            self.files.retain(|before| before.stamp.name != file.stamp.name || before.is_whole);
            self.files.push(file);
        }
    }

    /// Whether something was learned of the source that is to be stored, even if no event comes.
    pub(crate) fn has_news(&self) -> bool {
        self.has_news
    }

    /// Drops what came of blocks after `to`: those blocks will not be handled.
    pub(crate) fn drop_after(&mut self, to: BlockNo) {
        self.log.drop_after(to);
        self.files.retain(|file| file.last_block.is_none_or(|last| last <= to.get()));
        self.files.iter_mut().for_each(SourceFile::reset_late);
    }

    /// Adds the events of a round.
    pub(crate) fn take(&mut self, round: &RoundSummary, lanes: &impl LaneBlocks) {
        self.log.pass(round, lanes);
        self.opened_at.get_or_insert_with(Instant::now);
        self.events += round.events;
        self.blocks += round.new_blocks;
        self.first_block.get_or_insert(round.first_block);
        let goes_on = round.new_blocks == 0 && self.tip() == Some(round.last_block);
        let before = if self.last_block.is_some() { self.last_block_events } else { self.before.block_events };
        self.last_block_events = round.last_block_events + if goes_on { before } else { 0 };
        self.last_block = Some(round.last_block);
        for lane in 0..lanes.lanes() {
            let events = lanes.events(lane);
            let Some(block) = events.checked_sub(1).and_then(|last| lanes.block(lane, last)) else { continue };
            let touch = self.touched.entry(lanes.region(lane)).or_insert((block, 0));
            *touch = (block, touch.1 + events as u64);
        }
    }

    /// Adds events that were put aside; they count among its events already.
    pub(crate) fn put_aside(&mut self, events: Vec<Quarantined>) {
        self.aside_bytes += events.iter().map(Quarantined::memory_bytes).sum::<usize>();
        self.aside.extend(events);
    }

    /// How many of its events were put aside.
    pub(crate) fn quarantined(&self) -> u64 {
        self.aside.len() as u64
    }

    /// Bytes of memory that those take, and the positions of its blocks.
    pub(crate) fn noted_bytes(&self) -> usize {
        self.aside_bytes + self.log.position_bytes()
    }

    /// Seals it: nothing in it changes any more. Also returns the next batch, which is empty.
    pub(crate) fn seal(
        mut self,
        _whole: WholeBlocks,
        contents: BatchContents,
        names: &[Arc<str>],
        origins: &Arc<Vec<Arc<str>>>,
    ) -> (SealedBatch, Self) {
        let BatchContents { changes, snapshots, before_images } = contents;
        let (before, tip) = (self.before, self.tip());
        let after = Checkpoint {
            batch: self.number().get(),
            block: tip.map(BlockNo::get),
            block_events: if self.last_block.is_some() { self.last_block_events } else { before.block_events },
            blocks: self.blocks_total(),
            events: before.events + self.events,
        };
        let (head, source, position) = self.log.seal(tip);
        let is_within = |file: &SourceFile| file.last_block.is_none_or(|last| tip.is_some_and(|tip| last <= tip.get()));
        let (mut files, later): (Vec<SourceFile>, Vec<SourceFile>) =
            std::mem::take(&mut self.files).into_iter().partition(is_within);
        let touched = self.touches(names);
        // What was told last of a file counts.
        let mut told = HashSet::new();
        files.reverse();
        files.retain(|file| told.insert(file.stamp.name.clone()));
        let undo = head.map(|head| record(after.batch, before.batch, after.block, &head, before_images));
        let floor = tip.map(|last| self.depth.oldest(last).get());
        let batch = SealedBatch {
            before,
            after,
            first_block: self.first_block.map(BlockNo::get),
            changes,
            touched,
            origins: Arc::clone(origins),
            quarantined: self.aside,
            snapshots,
            source,
            position,
            files,
            undo_floor: undo.as_ref().and(floor),
            undo,
            undone: None,
        };
        (batch, Self { files: later, ..Self::new(after, self.depth, self.log) })
    }

    fn touches(&self, names: &[Arc<str>]) -> Vec<RegionTouch> {
        let touch = |(region, (block, events)): (&RegionNo, &(BlockNo, u64))| RegionTouch {
            region: Arc::clone(&names[region.index()]),
            block: block.get(),
            events: *events,
        };
        let mut touched: Vec<RegionTouch> = self.touched.iter().map(touch).collect();
        touched.sort_by(|a, b| a.region.cmp(&b.region));
        touched
    }

    /// Discards it: nothing of it may be committed. Returns an empty batch after the same checkpoint.
    pub(crate) fn discard(mut self) -> Self {
        self.log.discard();
        let (files, has_news) = (self.files, self.has_news);
        Self { files, has_news, ..Self::new(self.before, self.depth, self.log) }
    }

    /// Discards it because the state was rolled back to a checkpoint. Returns an empty batch after that one.
    pub(crate) fn set_back(mut self, to: Checkpoint, base: UndoBase, regions: &[RegionUndo]) -> Self {
        self.log.set_back(base, regions);
        Self { files: self.files, ..Self::new(to, self.depth, self.log) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_whole_when_its_last_block_cannot_go_on() {
        use Upcoming::{End, Unknown};
        let block = |block| Upcoming::Block(BlockNo::new(block));
        for (partial, upcoming, is_whole) in [
            (None, Unknown, true),
            (None, block(7), true),
            (Some(7), block(7), false),
            (Some(7), block(8), true),
            (Some(7), End, true),
            (Some(7), Unknown, false),
        ] {
            let partial = partial.map(BlockNo::new);
            assert_eq!(WholeBlocks::prove(partial, upcoming).is_some(), is_whole, "{partial:?} {upcoming:?}");
        }
    }

    fn round(blocks: &[(i64, u64)], new_blocks: u64) -> RoundSummary {
        let blocks: Vec<_> = blocks.iter().map(|(block, events)| (BlockNo::new(*block), *events)).collect();
        let (first_block, _) = blocks[0];
        let (last_block, last_block_events) = blocks[blocks.len() - 1];
        let events = blocks.iter().map(|(_, events)| events).sum();
        RoundSummary { events, new_blocks, first_block, last_block, last_block_events, blocks }
    }

    /// One lane, by the blocks of its events.
    struct OneLane(Arc<str>, Vec<BlockNo>);

    impl LaneBlocks for OneLane {
        fn lanes(&self) -> usize {
            1
        }

        fn region(&self, _: usize) -> RegionNo {
            RegionNo::from(0)
        }

        fn name(&self, _: usize) -> &Arc<str> {
            &self.0
        }

        fn events(&self, _: usize) -> usize {
            self.1.len()
        }

        fn block(&self, _: usize, event: usize) -> Option<BlockNo> {
            self.1.get(event).copied()
        }
    }

    fn take(batch: &mut OpenBatch, blocks: &[(i64, u64)], new_blocks: u64) {
        let events = |(block, events): &(i64, u64)| std::iter::repeat_n(BlockNo::new(*block), *events as usize);
        let lane = OneLane(Arc::from("r"), blocks.iter().flat_map(events).collect());
        batch.take(&round(blocks, new_blocks), &lane);
    }

    fn sealed(batch: OpenBatch) -> (SealedBatch, OpenBatch) {
        let whole = WholeBlocks::prove(None, Upcoming::End).expect("whole");
        batch.seal(whole, BatchContents::default(), &[Arc::from("r")], &Arc::default())
    }

    #[test]
    fn a_sealed_batch_counts_its_blocks_and_the_next_one_goes_on() {
        let depth = Depth::new(10);
        let mut batch = OpenBatch::new(Checkpoint::default(), depth, BlockLog::new(depth, Default::default(), vec![]));
        take(&mut batch, &[(1, 2), (2, 3)], 2);
        take(&mut batch, &[(2, 1)], 0);
        assert_eq!(
            (batch.number(), batch.span(), batch.events()),
            (BatchNo::new(1), Some((BlockNo::new(1), BlockNo::new(2))), 6)
        );
        let (first, mut batch) = sealed(batch);
        assert_eq!(first.after, Checkpoint { batch: 1, block: Some(2), block_events: 4, blocks: 2, events: 6 });
        assert_eq!((first.touched[0].block, first.touched[0].events, first.undo_floor), (2, 6, Some(-8)));
        assert_eq!((batch.has_events(), batch.tip(), batch.span()), (false, Some(BlockNo::new(2)), None));
        take(&mut batch, &[(5, 1)], 1);
        let (second, _) = sealed(batch);
        assert_eq!(second.before, first.after);
        assert_eq!(second.after, Checkpoint { batch: 2, block: Some(5), block_events: 1, blocks: 3, events: 7 });
    }

    #[test]
    fn a_batch_without_events_keeps_the_block_of_its_checkpoint() {
        let before = Checkpoint { batch: 4, block: Some(9), block_events: 3, blocks: 5, events: 50 };
        let batch = OpenBatch::new(before, Depth::default(), BlockLog::default());
        let (batch, _) = sealed(batch);
        assert_eq!(batch.after, Checkpoint { batch: 5, ..before });
        assert!(batch.first_block.is_none() && batch.undo.is_none() && batch.undo_floor.is_none());
    }

    #[test]
    fn what_is_discarded_leaves_nothing() {
        let before = Checkpoint { batch: 4, block: Some(9), block_events: 3, blocks: 5, events: 50 };
        let mut batch = OpenBatch::new(before, Depth::default(), BlockLog::default());
        take(&mut batch, &[(10, 2)], 1);
        let (sealed, _) = sealed(batch.discard());
        assert_eq!(sealed.after, Checkpoint { batch: 5, ..before });
        assert!(sealed.touched.is_empty());
    }

    #[test]
    fn growth_is_counted_from_the_last_look() {
        let mut batch = OpenBatch::default();
        take(&mut batch, &[(1, 4)], 1);
        assert_eq!(batch.growth(3), Growth { events: 4, rows: 3 });
        take(&mut batch, &[(1, 2)], 0);
        assert_eq!(batch.growth(3), Growth { events: 2, rows: 0 });
    }
}
