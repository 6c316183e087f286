//! The event queue: pages that have come and are not handled yet, and how they are cut into rounds.

use std::collections::VecDeque;
use std::sync::Arc;

use super::kept::Piece;
use crate::batch::open::{Upcoming, WholeBlocks};
use crate::batch::round::{LaneBlocks, RoundSummary};
use crate::lane::{EventAt, Lane, Round};
use crate::model::byte_budget::Lease;
use crate::model::event::{EventRef, Page};
use crate::model::ids::{BlockNo, RegionNo};
use crate::model::limits::ROUND_EVENTS_MAX;
use crate::model::position::Position;
use crate::model::quarantine::{QuarantineStage, Quarantined};
use crate::model::source_progress::BlockSum;

/// How far a round may go.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoundLimits {
    /// Events that the batch may still take, if that is at least one block.
    pub(super) events: u64,
    /// Blocks that the batch may still take, beside one that it has partial.
    pub(super) blocks: u64,
    /// Bytes of events that a round may have, if that is at least one event.
    pub(super) bytes: usize,
    /// Whether to take a part of a block rather than nothing: the reader needs room that only this frees.
    pub(super) takes_parts: bool,
    /// Events that a round may have.
    pub(super) round_events: usize,
}

impl RoundLimits {
    /// No limits beyond those of any round.
    pub(super) const ANY: Self = Self {
        events: u64::MAX,
        blocks: u64::MAX,
        bytes: usize::MAX,
        takes_parts: false,
        round_events: ROUND_EVENTS_MAX,
    };
}

/// Where a round ends in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    events: usize,
    /// Whether the last block is complete.
    is_boundary: bool,
}

/// A round's share of what came.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) summary: RoundSummary,
    /// Whether the last block is whole, so that the batch could end here.
    pub(super) is_whole: bool,
    pub(super) source_bytes_read: u64,
    /// Events that no lane gets, in the order of the source.
    pub(super) refused: Vec<(EventAt, Quarantined)>,
    /// Where all of its events lie.
    pub(super) pieces: Vec<Piece>,
    /// The shares of the read-ahead of pages that are taken whole; given back when this is dropped.
    pub(super) _leases: Vec<Lease>,
}

impl LaneBlocks for Round {
    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    fn region(&self, lane: usize) -> RegionNo {
        self.lanes[lane].region
    }

    fn name(&self, lane: usize) -> &Arc<str> {
        &self.lanes[lane].name
    }

    fn events(&self, lane: usize) -> usize {
        self.lanes[lane].events.len()
    }

    fn block(&self, lane: usize, event: usize) -> Option<BlockNo> {
        self.event(lane, event).map(|(event, _)| event.block)
    }
}

/// A page, and which of its events are still to be handled.
#[derive(Debug)]
struct Queued {
    page: Arc<Page>,
    /// The first of them, and the one behind the last.
    next: usize,
    end: usize,
    /// Its share of the read-ahead.
    lease: Option<Lease>,
}

impl Queued {
    fn events(&self) -> &[EventRef] {
        self.page.events.get(self.next..self.end).unwrap_or_default()
    }
}

/// Pages in order.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    pages: VecDeque<Queued>,
    events: usize,
    /// The block that the last round left incomplete.
    partial: Option<BlockNo>,
    is_ended: bool,
    /// This block and all before it are whole.
    whole: Option<BlockNo>,
    /// The source has nothing for now.
    is_idle: bool,
    /// What is here is complete, and then comes a rollback to this block.
    rollback: Option<BlockNo>,
    /// The last committed block, until an event is taken: the first one may go on within it.
    committed: Option<BlockNo>,
    /// The rest of the partial block never comes: the block is abandoned.
    is_cut: bool,
    /// The lane of each region in the round that is being taken; `NO_LANE` of all others. It is kept from one round to the
    /// next, as there may be far more regions than events in a round.
    lane_of: Vec<u32>,
}

const NO_LANE: u32 = u32::MAX;

impl EventQueue {
    /// An empty queue behind the last committed block.
    pub(super) fn after(committed: Option<BlockNo>) -> Self {
        Self { committed, ..Self::default() }
    }

    pub(super) fn push(&mut self, mut page: Page) {
        self.events += page.events.len();
        self.is_idle = false;
        let lease = page.lease.take();
        self.pages.push_back(Queued { next: 0, end: page.events.len(), page: Arc::new(page), lease });
    }

    /// Puts events back that were taken, to be handled again: all since the open batch began, behind the last committed
    /// block.
    pub(super) fn rewind(&mut self, taken: Vec<Piece>, committed: Option<BlockNo>) {
        for Piece { page, from, to } in taken.into_iter().rev() {
            self.events += to - from;
            match self.pages.front_mut() {
                Some(first) if Arc::ptr_eq(&first.page, &page) && first.next == to => first.next = from,
                _ => self.pages.push_front(Queued { page, next: from, end: to, lease: None }),
            }
        }
        (self.partial, self.is_cut, self.committed) = (None, false, committed);
    }

    /// Nothing of that block and of later ones is handled any more, and nothing more comes.
    pub(super) fn end_before(&mut self, block: BlockNo) {
        self.drop_events(|earlier| earlier < block);
        (self.rollback, self.is_ended) = (None, true);
    }

    /// The hashes of the blocks that are queued.
    pub(super) fn hashes(&self) -> Vec<(BlockNo, Arc<str>)> {
        self.pages.iter().flat_map(|queued| queued.page.hashes.iter().cloned()).collect()
    }

    /// The sums over the events that are queued, by block.
    pub(super) fn sums(&self) -> Vec<(BlockNo, BlockSum)> {
        self.pages.iter().flat_map(|queued| queued.page.sums.iter().copied()).collect()
    }

    /// The positions of the source after the blocks that are queued.
    pub(super) fn positions(&self) -> Vec<(BlockNo, Option<Position>)> {
        self.pages.iter().flat_map(|queued| queued.page.positions.iter().cloned()).collect()
    }

    /// A rollback follows what is queued. Events that it would undo are dropped from the queue.
    pub(super) fn push_rollback(&mut self, to: BlockNo) {
        self.rollback = Some(to);
        self.whole = None;
        self.committed = self.committed.filter(|committed| *committed <= to);
        self.is_cut = self.partial.is_some_and(|partial| partial > to);
        self.drop_events(|block| block <= to);
    }

    /// Drops what is queued from the first block on that is not kept.
    fn drop_events(&mut self, is_kept: impl Fn(BlockNo) -> bool) {
        while let Some(last) = self.pages.back_mut() {
            while last.end > last.next && !is_kept(last.page.events[last.end - 1].block) {
                last.end -= 1;
                self.events -= 1;
            }
            if last.end > last.next {
                break;
            }
            self.pages.pop_back();
        }
    }

    /// The block to roll back to, once all before it is taken.
    pub(super) fn due_rollback(&self) -> Option<BlockNo> {
        self.rollback.filter(|_| self.events == 0)
    }

    /// The rollback is done, or was not needed.
    pub(super) fn rolled_back(&mut self) {
        (self.rollback, self.partial, self.is_cut) = (None, None, false);
    }

    /// Whether the last block that was taken is abandoned: the rest of it never comes.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether nothing more comes that belongs to what is queued.
    fn is_complete(&self) -> bool {
        let last = || self.last_block();
        self.is_ended
            || self.rollback.is_some()
            || self.whole.is_some_and(|whole| last().is_none_or(|last| last <= whole))
    }

    /// The last block that is queued, or the one that was taken in part.
    fn last_block(&self) -> Option<BlockNo> {
        let last = self.pages.back().and_then(|queued| queued.events().last());
        last.map(|event| event.block).or(self.partial)
    }

    /// This block and all before it are whole.
    pub(super) fn note_whole(&mut self, block: BlockNo) {
        self.whole = self.whole.max(Some(block));
    }

    /// The source has nothing for now.
    pub(super) fn note_idle(&mut self) {
        self.is_idle = true;
    }

    /// Whether the source has nothing for now.
    pub(super) fn is_idle(&self) -> bool {
        self.is_idle
    }

    pub(super) fn has_events(&self) -> bool {
        self.events > 0
    }

    /// No more pages come: what is here is complete. If the end is open, the last block may go on in another run: it is
    /// dropped.
    pub(super) fn end(&mut self, is_open: bool) {
        self.is_ended = true;
        if !is_open {
            return;
        }
        let Some(last) = self.last_block().filter(|last| self.whole.is_none_or(|whole| whole < *last)) else { return };
        self.is_cut = self.partial == Some(last);
        self.drop_events(|block| block < last);
    }

    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether more pages would make the next round larger.
    pub(super) fn wants_more(&self) -> bool {
        !(self.is_ended || self.rollback.is_some()) && self.events <= ROUND_EVENTS_MAX
    }

    /// Whether the last block that was taken is known to be complete.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.whole_blocks().is_some()
    }

    /// The proof that what was taken is whole blocks, if it is.
    pub(super) fn whole_blocks(&self) -> Option<WholeBlocks> {
        let upcoming = match self.upcoming().next() {
            _ if self.is_cut => Upcoming::Unknown,
            Some(next) => Upcoming::Block(next.block),
            None if self.is_complete() => Upcoming::End,
            None => Upcoming::Unknown,
        };
        WholeBlocks::prove(self.partial, upcoming)
    }

    fn upcoming(&self) -> impl Iterator<Item = &EventRef> {
        self.pages.iter().flat_map(Queued::events)
    }

    fn cut(&self, limits: RoundLimits) -> Option<Cut> {
        let (mut count, mut boundary, mut blocks, mut bytes) = (0, 0, 0, 0);
        let mut block = self.partial;
        for event in self.upcoming() {
            if block != Some(event.block) {
                boundary = count;
                if blocks == limits.blocks || (blocks > 0 && count as u64 >= limits.events) {
                    break;
                }
                (block, blocks) = (Some(event.block), blocks + 1);
            }
            // A block that is larger than a round is handled piece by piece; it stays in one batch.
            bytes += event.len as usize;
            if count == limits.round_events || (count > 0 && bytes > limits.bytes) {
                return Some(if boundary > 0 {
                    Cut { events: boundary, is_boundary: true }
                } else {
                    Cut { events: count, is_boundary: false }
                });
            }
            count += 1;
        }
        if self.is_complete() && count == self.events {
            boundary = count;
        }
        if boundary == 0 && count > 0 && limits.takes_parts {
            return Some(Cut { events: count, is_boundary: false });
        }
        (boundary > 0).then_some(Cut { events: boundary, is_boundary: true })
    }

    /// Takes the events of the next round; none if no block is complete yet.
    pub(super) fn take(
        &mut self,
        limits: RoundLimits,
        names: &[Arc<str>],
        all: Option<RegionNo>,
    ) -> Option<(Round, Taken)> {
        let cut = self.cut(limits)?;
        self.lane_of.resize(names.len().max(self.lane_of.len()), NO_LANE);
        let mut lanes = Lanes { lanes: Vec::new(), lane_of: std::mem::take(&mut self.lane_of) };
        let mut blocks: Vec<(BlockNo, u64)> = Vec::new();
        let (mut pages, mut pieces, mut leases, mut refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut source_bytes_read = 0;
        let first_block = self.upcoming().next().map_or(BlockNo::default(), |event| event.block);
        let mut summary = RoundSummary { events: cut.events as u64, first_block, ..RoundSummary::default() };
        let (mut left, mut block) = (cut.events, self.partial.or(self.committed.take()));
        while left > 0 {
            let Some(queued) = self.pages.front_mut() else { break };
            let (page, from, end) = (Arc::clone(&queued.page), queued.next, queued.end);
            let to = end.min(from + left);
            let mut refusals = page.refused.iter().skip_while(|(at, _)| (*at as usize) < from).peekable();
            for (at, event) in page.events.iter().enumerate().take(to).skip(from) {
                if block != Some(event.block) {
                    (block, summary.new_blocks) = (Some(event.block), summary.new_blocks + 1);
                    summary.last_block_events = 0;
                }
                summary.last_block = event.block;
                summary.last_block_events += 1;
                match blocks.last_mut() {
                    Some((last, events)) if *last == event.block => *events += 1,
                    _ => blocks.push((event.block, 1)),
                }
                let place = EventAt { page: pages.len() as u32, at: at as u32 };
                if let Some((_, refusal)) = refusals.next_if(|(refused, _)| *refused as usize == at) {
                    refused.extend(page.put_aside(at, QuarantineStage::Source, refusal).map(|event| (place, event)));
                    continue;
                }
                lanes.push(event.region, place, names);
                if let Some(all) = all.filter(|all| *all != event.region) {
                    lanes.push(all, place, names);
                }
            }
            left -= to - from;
            source_bytes_read = page.source_bytes_read;
            queued.next = to;
            if to == end {
                leases.extend(self.pages.pop_front().and_then(|queued| queued.lease));
            }
            pieces.push(Piece { page: Arc::clone(&page), from, to });
            pages.push(page);
        }
        self.events -= cut.events;
        self.partial = if cut.is_boundary { None } else { block };
        summary.blocks = blocks;
        let is_whole = cut.is_boundary;
        let taken = Taken { summary, is_whole, source_bytes_read, refused, pieces, _leases: leases };
        let Lanes { lanes, mut lane_of } = lanes;
        lanes.iter().for_each(|lane| lane_of[lane.region.index()] = NO_LANE);
        self.lane_of = lane_of;
        Some((Round { pages, lanes }, taken))
    }
}

struct Lanes {
    lanes: Vec<Lane>,
    lane_of: Vec<u32>,
}

impl Lanes {
    fn push(&mut self, region: RegionNo, place: EventAt, names: &[Arc<str>]) {
        let at = region.index();
        if self.lane_of[at] == NO_LANE {
            self.lane_of[at] = self.lanes.len() as u32;
            self.lanes.push(Lane { region, name: Arc::clone(&names[at]), events: Vec::new() });
        }
        self.lanes[self.lane_of[at] as usize].events.push(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(blocks: &[i64]) -> Page {
        let event = |block: &i64| EventRef {
            start: 0,
            len: 0,
            line: 1,
            block: BlockNo::new(*block),
            region: RegionNo::from(0),
        };
        Page {
            text: String::new(),
            events: blocks.iter().map(event).collect(),
            origin: Arc::from("test"),
            origin_no: 0,
            new_regions: Vec::new(),
            hashes: Vec::new(),
            sums: Vec::new(),
            positions: Vec::new(),
            refused: Vec::new(),
            places: Vec::new(),
            source_bytes_read: 0,
            lease: None,
        }
    }

    fn take(queue: &mut EventQueue, limits: RoundLimits) -> Option<Taken> {
        queue.take(limits, &[Arc::from("r")], None).map(|(round, taken)| {
            assert_eq!(round.lanes[0].events.len() as u64, taken.summary.events);
            taken
        })
    }

    #[test]
    fn a_block_waits_until_the_next_one_begins_or_the_source_ends() {
        let mut queue = EventQueue::default();
        queue.push(page(&[1, 1, 2]));
        let taken = take(&mut queue, RoundLimits::ANY).expect("block 1");
        assert_eq!((taken.summary.events, taken.summary.new_blocks, taken.summary.last_block), (2, 1, BlockNo::new(1)));
        assert!(take(&mut queue, RoundLimits::ANY).is_none());
        queue.push(page(&[2]));
        assert!(take(&mut queue, RoundLimits::ANY).is_none());
        queue.end(false);
        let taken = take(&mut queue, RoundLimits::ANY).expect("block 2");
        assert_eq!((taken.summary.events, taken.summary.last_block_events), (2, 2));
        assert!(take(&mut queue, RoundLimits::ANY).is_none());
    }

    #[test]
    fn a_round_ends_where_its_batch_must() {
        let mut queue = EventQueue::default();
        queue.push(page(&[1, 2, 2, 3, 4]));
        queue.end(false);
        assert_eq!(
            take(&mut queue, RoundLimits { events: 2, ..RoundLimits::ANY }).expect("round").summary.last_block,
            BlockNo::new(2)
        );
        assert_eq!(
            take(&mut queue, RoundLimits { blocks: 1, ..RoundLimits::ANY }).expect("round").summary.last_block,
            BlockNo::new(3)
        );
        assert_eq!(
            take(&mut queue, RoundLimits { events: 0, blocks: 5, ..RoundLimits::ANY })
                .expect("round")
                .summary
                .last_block,
            BlockNo::new(4)
        );
    }

    #[test]
    fn a_block_larger_than_a_round_is_taken_in_pieces() {
        let mut queue = EventQueue::default();
        let blocks = vec![7; ROUND_EVENTS_MAX + 10];
        queue.push(page(&blocks));
        let first = take(&mut queue, RoundLimits::ANY).expect("a piece");
        assert!(!first.is_whole && !queue.is_at_boundary());
        assert_eq!((first.summary.events, first.summary.new_blocks), (ROUND_EVENTS_MAX as u64, 1));
        queue.push(page(&[8]));
        let second = take(&mut queue, RoundLimits::ANY).expect("the rest");
        assert!(second.is_whole && queue.is_at_boundary());
        assert_eq!((second.summary.events, second.summary.new_blocks), (10, 0));
    }

    #[test]
    fn events_that_a_rollback_would_undo_are_not_taken() {
        let mut queue = EventQueue::default();
        queue.push(page(&[1, 2, 2]));
        queue.push(page(&[2, 3, 4]));
        queue.push(page(&[4, 5]));
        let taken = take(&mut queue, RoundLimits { blocks: 1, ..RoundLimits::ANY }).expect("block 1");
        assert_eq!(taken.summary.blocks, [(BlockNo::new(1), 1)]);
        queue.push_rollback(BlockNo::new(3));
        assert!(!queue.wants_more() && queue.due_rollback().is_none());
        let taken = take(&mut queue, RoundLimits::ANY).expect("blocks 2 and 3");
        assert_eq!((taken.summary.events, taken.summary.blocks), (4, vec![(BlockNo::new(2), 3), (BlockNo::new(3), 1)]));
        assert!(queue.is_at_boundary());
        assert_eq!(queue.due_rollback(), Some(BlockNo::new(3)));
        queue.rolled_back();
        queue.push(page(&[4]));
        queue.push_rollback(BlockNo::new(3));
        assert_eq!((queue.due_rollback(), queue.has_events()), (Some(BlockNo::new(3)), false));
        assert!(take(&mut queue, RoundLimits::ANY).is_none());
    }

    #[test]
    fn a_rollback_into_a_block_that_was_begun_cuts_it() {
        let mut queue = EventQueue::default();
        queue.push(page(&vec![7; ROUND_EVENTS_MAX + 10]));
        take(&mut queue, RoundLimits::ANY).expect("a piece");
        queue.push_rollback(BlockNo::new(6));
        assert!(queue.is_cut() && !queue.is_at_boundary() && !queue.has_events());
        assert_eq!(queue.due_rollback(), Some(BlockNo::new(6)));
        queue.rolled_back();
        assert!(queue.is_at_boundary());
    }

    #[test]
    fn a_block_that_ends_with_its_piece_is_complete_when_the_next_begins() {
        let mut queue = EventQueue::default();
        queue.push(page(&vec![7; ROUND_EVENTS_MAX + 1]));
        take(&mut queue, RoundLimits::ANY).expect("a piece");
        queue.push(page(&[8]));
        let rest = take(&mut queue, RoundLimits::ANY).expect("the rest");
        assert_eq!((rest.summary.events, rest.is_whole), (1, true));
    }
}
