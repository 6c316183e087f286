//! The block chain: numbers and hashes of the blocks that can still be rolled back, and of the one before them.
//!
//! Holds blocks and answers questions about them; [`super::forks`] judges.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::ids::{BlockNo, Depth};
use crate::undo::{BlockMark, Window};

/// A block that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) block: BlockNo,
    pub(super) hash: Option<Arc<str>>,
    /// The hash of its parent, as far as this run has read it: a store does not keep it.
    pub(super) parent: Option<Arc<str>>,
}

impl Header {
    /// Whether it is that block, by number and hash.
    pub(super) fn is(&self, block: BlockNo, hash: Option<&str>) -> bool {
        self.block == block && hash.is_some() && self.hash.as_deref() == hash
    }
}

/// A branch that began with a block where none was held: by its number and hash, that block may as well have come late.
#[derive(Debug, Clone)]
struct Doubt {
    first: BlockNo,
    /// The blocks that were left for it.
    left: Vec<Header>,
}

/// Blocks that are held, in order: those that can be rolled back, and the one before them.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    blocks: VecDeque<Header>,
    /// How far back a rollback can go.
    depth: Depth,
    /// The oldest block that the store can roll back to; none if it holds all since the beginning.
    floor: Option<BlockNo>,
    /// Whether there were blocks before the first one that is held.
    begins_later: bool,
    /// Whether a parent was seen to be the block before across a gap.
    is_linked: bool,
    /// Branches that are held, and may be none.
    doubts: Vec<Doubt>,
}

impl Chain {
    /// A chain without blocks.
    pub(super) fn new(depth: Depth) -> Self {
        Self { blocks: VecDeque::new(), depth, floor: None, begins_later: false, is_linked: false, doubts: Vec::new() }
    }

    /// The chain of a store whose last block is `tip`.
    pub(super) fn of_store(window: &Window, tip: BlockNo, depth: Depth) -> Self {
        let header = |mark: BlockMark| Header { block: mark.block, hash: mark.hash, parent: None };
        let mut blocks: VecDeque<Header> = window.blocks().into_iter().map(header).collect();
        if blocks.back().is_none_or(|last| last.block != tip) {
            blocks = [Header { block: tip, hash: None, parent: None }].into();
        }
        let begins_later = window.begins_later();
        let floor = window.oldest().filter(|_| begins_later);
        Self { blocks, depth, floor, begins_later, is_linked: false, doubts: Vec::new() }
    }

    pub(super) fn depth(&self) -> Depth {
        self.depth
    }

    pub(super) fn begins_later(&self) -> bool {
        self.begins_later
    }

    pub(super) fn is_linked(&self) -> bool {
        self.is_linked
    }

    pub(super) fn tip(&self) -> Option<&Header> {
        self.blocks.back()
    }

    pub(super) fn first(&self) -> Option<&Header> {
        self.blocks.front()
    }

    /// The block before the last one.
    pub(super) fn before_tip(&self) -> Option<&Header> {
        self.blocks.iter().nth_back(1)
    }

    /// The block of that number.
    pub(super) fn at(&self, block: BlockNo) -> Option<&Header> {
        self.blocks.binary_search_by_key(&block, |header| header.block).ok().and_then(|at| self.blocks.get(at))
    }

    /// The last block of a smaller number.
    pub(super) fn before(&self, block: BlockNo) -> Option<&Header> {
        let at = self.blocks.partition_point(|header| header.block < block);
        at.checked_sub(1).and_then(|at| self.blocks.get(at))
    }

    /// The first block of a larger number.
    pub(super) fn after(&self, block: BlockNo) -> Option<&Header> {
        self.blocks.get(self.blocks.partition_point(|header| header.block <= block))
    }

    /// The block of that hash, if it lies before `block`.
    pub(super) fn of_hash(&self, hash: &str, block: BlockNo) -> Option<&Header> {
        self.blocks.iter().rev().find(|header| header.block < block && header.hash.as_deref() == Some(hash))
    }

    /// Whether that block is held, by number and hash.
    pub(super) fn holds(&self, header: &Header) -> bool {
        header.hash.is_some() && self.at(header.block).is_some_and(|ours| ours.hash == header.hash)
    }

    /// What is held in the place of a block, or before it, or first.
    pub(super) fn beside(&self, block: BlockNo) -> Option<&Header> {
        self.at(block).or_else(|| self.before(block)).or(self.first())
    }

    /// Whether that block, or the one before its place, is held without a hash.
    pub(super) fn is_blind_at(&self, block: BlockNo) -> bool {
        let header = self.at(block).or_else(|| self.before(block));
        header.is_some_and(|header| header.hash.is_none())
    }

    /// Whether a block lies before all that is held.
    pub(super) fn begins_after(&self, block: BlockNo) -> bool {
        self.first().is_some_and(|first| block < first.block)
    }

    /// Whether a rollback to that block is possible.
    pub(super) fn allows(&self, to: BlockNo) -> bool {
        self.oldest().is_none_or(|oldest| to >= oldest)
    }

    /// The oldest block that a rollback can go to; none if there is no block.
    pub(super) fn oldest(&self) -> Option<BlockNo> {
        let by_depth = self.depth.oldest(self.tip()?.block);
        // Blocks too far below an earlier tip were dropped.
        let first = self.first().filter(|_| self.begins_later).map(|first| first.block);
        Some(by_depth.max(self.floor.unwrap_or(by_depth)).max(first.unwrap_or(by_depth)))
    }

    /// Appends a new block, and drops those that are too old to be rolled back to.
    pub(super) fn push(&mut self, block: BlockNo, hash: Option<&str>, parent: Option<&str>) {
        self.blocks.push_back(Header { block, hash: hash.map(Arc::from), parent: parent.map(Arc::from) });
        let oldest = self.depth.oldest(block);
        while self.blocks.get(1).is_some_and(|second| second.block <= oldest) {
            self.blocks.pop_front();
            self.begins_later = true;
        }
        self.doubts.retain(|doubt| doubt.first > oldest);
    }

    /// Drops the blocks after `to` for a branch that begins with block `first`.
    pub(super) fn leave(&mut self, to: BlockNo, first: BlockNo) {
        let is_in_doubt = self.at(first).is_none() && self.tip().is_some_and(|tip| first < tip.block);
        let left = self.blocks.iter().filter(|header| header.block > to).cloned().collect();
        self.truncate(to);
        if is_in_doubt {
            self.doubts.push(Doubt { first, left });
        }
    }

    /// The first block of a branch that was no branch: this block was left for it, and now follows it. A hash stands for
    /// all blocks before it too, so that first block had only come late.
    pub(super) fn no_branch(&self, block: BlockNo, hash: Option<&str>) -> Option<BlockNo> {
        let is_this = |header: &Header| header.is(block, hash);
        self.doubts.iter().find(|doubt| doubt.first < block && doubt.left.iter().any(is_this)).map(|doubt| doubt.first)
    }

    /// Notes whether a parent was seen to be the block before across a gap; once seen, it stays so.
    pub(super) fn learn(&mut self, is_linked: bool) {
        self.is_linked |= is_linked;
    }

    /// Drops the blocks after `to`.
    pub(super) fn truncate(&mut self, to: BlockNo) {
        while self.blocks.back().is_some_and(|last| last.block > to) {
            self.blocks.pop_back();
            self.doubts.retain(|doubt| doubt.first <= to);
        }
    }

    /// Drops all blocks: nothing is known of what came before.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.doubts.clear();
        self.begins_later = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(depth: u64, blocks: &[i64]) -> Chain {
        let mut chain = Chain::new(Depth::new(depth));
        blocks.iter().for_each(|block| chain.push(BlockNo::new(*block), Some(&format!("h{block}")), None));
        chain
    }

    #[test]
    fn what_is_held_is_what_can_be_rolled_back_and_the_block_before() {
        for (depth, blocks, first, oldest) in [
            (0, &[1, 2, 3][..], 3, 3),
            (1, &[1, 2, 3], 2, 2),
            (10, &[1, 2, 3], 1, -7),
            (2, &[1, 5, 6, 9], 6, 7),
            (3, &[1, 5, 6, 9], 6, 6),
        ] {
            let chain = chain(depth, blocks);
            assert_eq!(chain.first().map(|first| first.block.get()), Some(first), "{depth} {blocks:?}");
            assert_eq!(chain.oldest().map(BlockNo::get), Some(oldest), "{depth} {blocks:?}");
            assert!(chain.allows(BlockNo::new(oldest)) && !chain.allows(BlockNo::new(oldest - 1)));
        }
        assert!(Chain::new(Depth::new(3)).allows(BlockNo::new(i64::MIN)));
    }

    #[test]
    fn blocks_are_found_by_number_hash_and_place() {
        let chain = chain(10, &[1, 3, 6]);
        let number = |found: Option<&Header>| found.map(|header| header.block.get());
        for (block, at, before, beside) in [(0, None, None, 1), (1, Some(1), None, 1), (5, None, Some(3), 3)] {
            let block = BlockNo::new(block);
            assert_eq!((number(chain.at(block)), number(chain.before(block))), (at, before));
            assert_eq!(number(chain.beside(block)), Some(beside));
        }
        assert_eq!(number(chain.of_hash("h3", BlockNo::new(4))), Some(3));
        assert_eq!(number(chain.of_hash("h3", BlockNo::new(3))), None);
        assert_eq!(number(chain.before_tip()), Some(3));
        assert!(chain.begins_after(BlockNo::new(0)) && !chain.begins_after(BlockNo::new(1)));
        assert_eq!((number(chain.after(BlockNo::new(1))), number(chain.after(BlockNo::new(6)))), (Some(3), None));
    }

    #[test]
    fn a_block_that_follows_a_branch_for_which_it_was_left_shows_that_it_was_none() {
        let held = || chain(10, &[1, 3, 6]);
        let shows =
            |chain: &Chain, block: i64, hash: &str| chain.no_branch(BlockNo::new(block), Some(hash)).map(BlockNo::get);
        let mut left = held();
        left.leave(BlockNo::new(1), BlockNo::new(2));
        left.push(BlockNo::new(2), Some("h2"), None);
        for (block, hash, first) in [(3, "h3", Some(2)), (6, "h6", Some(2)), (3, "other", None), (4, "h3", None)] {
            assert_eq!(shows(&left, block, hash), first, "{block} {hash}");
        }
        assert_eq!(left.no_branch(BlockNo::new(3), None), None);
        // What was left again is no longer in doubt, nor what is too old to be left.
        let mut again = left.clone();
        again.truncate(BlockNo::new(1));
        assert_eq!(shows(&again, 3, "h3"), None);
        left.push(BlockNo::new(12), Some("h12"), None);
        assert_eq!(shows(&left, 3, "h3"), None);
        // A branch that begins with another block of a number that is held is one.
        let mut other = held();
        other.leave(BlockNo::new(1), BlockNo::new(3));
        other.push(BlockNo::new(3), Some("other"), None);
        assert_eq!(shows(&other, 6, "h6"), None);
    }
}
