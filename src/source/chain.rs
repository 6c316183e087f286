//! Which blocks are held, and where an event stands to them: behind, beside, or on another branch.
//!
//! A block is on another branch if its parent is not the block that is held before it, or if its number is held with
//! another hash. Numbers may leave gaps, and a source that leaves blocks without events out names parents that nobody
//! holds; so across a gap a parent that is not known says nothing, unless this source's parents were seen to be the blocks
//! before across gaps.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::ids::{BlockNo, Depth};
use crate::undo::{BlockMark, Window};

/// A block that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) block: i64,
    pub(super) hash: Option<Arc<str>>,
}

/// A block as an event names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'e> {
    pub(super) block: i64,
    pub(super) hash: Option<&'e str>,
    pub(super) parent: Option<&'e str>,
}

/// Where an event stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// In the last block.
    Same,
    /// In a new block behind it.
    Next,
    /// In a block whose place has passed.
    Late,
    /// On another branch, which left ours after this block.
    Fork { to: i64 },
    /// On another branch, which left ours where nothing is held any more; the held block that it contradicts.
    Lost(Option<Held>),
}

/// Blocks that are held, in order: those that can be rolled back, and the one before them.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    blocks: VecDeque<Held>,
    /// How far back a rollback can go, in block numbers.
    depth: Depth,
    /// The oldest block that the store can roll back to; none if it holds all since the beginning.
    floor: Option<i64>,
    /// Whether there were blocks before the first one that is held.
    begins_later: bool,
    /// Whether a parent was seen to be the block before across a gap.
    is_linked: bool,
}

impl Chain {
    /// A chain without blocks.
    pub(super) fn new(depth: Depth) -> Self {
        Self { blocks: VecDeque::new(), depth, floor: None, begins_later: false, is_linked: false }
    }

    /// What a store holds whose last block is `tip`.
    pub(super) fn of_store(window: &Window, tip: i64, depth: Depth) -> Self {
        let held = |mark: BlockMark| Held { block: mark.block, hash: mark.hash };
        let mut blocks: VecDeque<Held> = window.blocks().into_iter().map(held).collect();
        if blocks.back().is_none_or(|last| last.block != tip) {
            blocks = [Held { block: tip, hash: None }].into();
        }
        let begins_later = window.begins_later();
        let floor = window.oldest().filter(|_| begins_later).map(BlockNo::get);
        Self { blocks, depth, floor, begins_later, is_linked: false }
    }

    pub(super) fn tip(&self) -> Option<&Held> {
        self.blocks.back()
    }

    pub(super) fn first(&self) -> Option<&Held> {
        self.blocks.front()
    }

    fn held_at(&self, block: i64) -> Option<&Held> {
        self.blocks.binary_search_by_key(&block, |held| held.block).ok().and_then(|at| self.blocks.get(at))
    }

    fn before(&self, block: i64) -> Option<&Held> {
        let at = self.blocks.partition_point(|held| held.block < block);
        at.checked_sub(1).and_then(|at| self.blocks.get(at))
    }

    /// The block of that hash, if it lies before `block`.
    fn of_hash(&self, hash: &str, block: i64) -> Option<&Held> {
        self.blocks.iter().rev().find(|held| held.block < block && held.hash.as_deref() == Some(hash))
    }

    /// Where an event stands. Changes nothing about the blocks.
    pub(super) fn judge(&mut self, named: Named<'_>) -> Link {
        let Named { block, hash, parent } = named;
        let Some(tip) = self.tip() else { return Link::Next };
        let differs = |held: &Held| held.hash.as_deref().zip(hash).is_some_and(|(held, given)| held != given);
        if block == tip.block {
            return if differs(tip) { self.replaced(named) } else { Link::Same };
        }
        if block < tip.block {
            return match self.held_at(block) {
                Some(held) if differs(held) => self.replaced(named),
                None if hash.is_some() => self.replaced(named),
                _ => Link::Late,
            };
        }
        let Some((held, parent)) = tip.hash.as_deref().zip(parent) else { return Link::Next };
        let is_gap = block - 1 != tip.block;
        if held == parent {
            self.is_linked |= is_gap;
            return Link::Next;
        }
        match self.of_hash(parent, block) {
            Some(ancestor) => Link::Fork { to: ancestor.block },
            None if is_gap && !self.is_linked => Link::Next,
            None => Link::Lost(Some(tip.clone())),
        }
    }

    /// A block that is held with another hash, or that was not there, although a later one is held.
    fn replaced(&self, Named { block, parent, .. }: Named<'_>) -> Link {
        if let Some(ancestor) = parent.and_then(|parent| self.of_hash(parent, block)) {
            return Link::Fork { to: ancestor.block };
        }
        let Some(before) = self.before(block) else {
            return match self.begins_later {
                true => Link::Lost(self.held_at(block).or(self.first()).cloned()),
                // Ours begins with a block that theirs has not, or has otherwise.
                false => Link::Fork { to: block.saturating_sub(1) },
            };
        };
        let is_next = before.block == block - 1 || self.is_linked;
        match parent.is_some() && before.hash.is_some() && is_next {
            true => Link::Lost(Some(before.clone())),
            false => Link::Fork { to: before.block },
        }
    }

    /// Whether a rollback to that block is possible.
    pub(super) fn allows(&self, to: i64) -> bool {
        self.oldest().is_none_or(|oldest| to >= oldest)
    }

    /// The oldest block that a rollback can go to; none if there is no block.
    pub(super) fn oldest(&self) -> Option<i64> {
        let by_depth = self.depth.oldest(self.tip()?.block.into()).get();
        // What lay too far behind an earlier tip is not kept any more.
        let first = self.first().filter(|_| self.begins_later).map(|first| first.block);
        Some(by_depth.max(self.floor.unwrap_or(i64::MIN)).max(first.unwrap_or(i64::MIN)))
    }

    /// The block before the last one.
    pub(super) fn before_tip(&self) -> Option<&Held> {
        self.blocks.iter().nth_back(1)
    }

    /// Whether that block is held, by number and hash.
    pub(super) fn holds(&self, held: &Held) -> bool {
        held.hash.is_some() && self.held_at(held.block).is_some_and(|ours| ours.hash == held.hash)
    }

    /// Whether the block names the last one as its parent.
    pub(super) fn is_child(&self, named: Named<'_>) -> bool {
        named.parent.is_some() && self.tip().is_some_and(|tip| tip.hash.as_deref() == named.parent)
    }

    /// Whether the block names one that is held as its parent.
    pub(super) fn is_known_child(&self, named: Named<'_>) -> bool {
        named.parent.is_some_and(|parent| self.of_hash(parent, named.block).is_some())
    }

    /// What is held in the place of a block, or before it.
    pub(super) fn beside(&self, block: i64) -> Option<Held> {
        self.held_at(block).or_else(|| self.before(block)).or(self.first()).cloned()
    }

    /// Whether that block, or the one before its place, is held without a hash.
    pub(super) fn is_blind_at(&self, block: i64) -> bool {
        let held = self.held_at(block).or_else(|| self.before(block));
        held.is_some_and(|held| held.hash.is_none())
    }

    /// Goes on with a new block.
    pub(super) fn push(&mut self, block: i64, hash: Option<&str>) {
        self.blocks.push_back(Held { block, hash: hash.map(Arc::from) });
        let oldest = self.depth.oldest(block.into()).get();
        while self.blocks.get(1).is_some_and(|second| second.block <= oldest) {
            self.blocks.pop_front();
            self.begins_later = true;
        }
    }

    /// Takes over what was learnt of the source while its blocks were passed by.
    pub(super) fn learn(&mut self, seen: &Self) {
        self.is_linked |= seen.is_linked;
    }

    /// Lets the blocks behind `to` go.
    pub(super) fn truncate(&mut self, to: i64) {
        while self.blocks.back().is_some_and(|last| last.block > to) {
            self.blocks.pop_back();
        }
    }

    /// Begins anew: nothing is known of what was before.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.begins_later = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(depth: u64, blocks: &[(i64, &str)]) -> Chain {
        let mut chain = Chain::new(Depth::new(depth));
        blocks.iter().for_each(|(block, hash)| chain.push(*block, Some(hash)));
        chain
    }

    fn named<'e>(block: i64, hash: &'e str, parent: &'e str) -> Named<'e> {
        Named { block, hash: Some(hash), parent: Some(parent).filter(|parent| !parent.is_empty()) }
    }

    const ABC: &[(i64, &str)] = &[(1, "a"), (2, "b"), (3, "c")];

    #[test]
    fn a_block_on_its_parent_goes_on() {
        let mut chain = chain(10, ABC);
        assert_eq!(chain.judge(named(3, "c", "b")), Link::Same);
        assert_eq!(chain.judge(named(4, "d", "c")), Link::Next);
        assert_eq!(chain.judge(named(4, "d", "")), Link::Next);
        assert_eq!(chain.judge(named(2, "b", "a")), Link::Late);
    }

    #[test]
    fn another_parent_or_hash_is_a_fork_from_the_last_common_block() {
        let mut chain = chain(10, ABC);
        assert_eq!(chain.judge(named(4, "d2", "b")), Link::Fork { to: 2 });
        assert_eq!(chain.judge(named(3, "c2", "b")), Link::Fork { to: 2 });
        assert_eq!(chain.judge(named(3, "c2", "")), Link::Fork { to: 2 });
        assert_eq!(chain.judge(named(2, "b2", "a")), Link::Fork { to: 1 });
        assert_eq!(chain.judge(named(1, "a2", "z")), Link::Fork { to: 0 });
        assert_eq!(chain.judge(named(7, "g2", "a")), Link::Fork { to: 1 });
    }

    #[test]
    fn a_branch_that_left_before_what_is_held_is_lost() {
        let mut chain = chain(1, ABC);
        assert_eq!(chain.first().map(|held| held.block), Some(2));
        assert_eq!(chain.judge(named(2, "b2", "a2")), Link::Lost(Some(Held { block: 2, hash: Some("b".into()) })));
        assert_eq!(chain.judge(named(1, "a2", "z")), Link::Lost(Some(Held { block: 2, hash: Some("b".into()) })));
        assert_eq!(chain.judge(named(3, "c2", "b2")), Link::Lost(Some(Held { block: 2, hash: Some("b".into()) })));
        assert_eq!(chain.judge(named(4, "d", "c2")), Link::Lost(Some(Held { block: 3, hash: Some("c".into()) })));
        assert!(chain.allows(2) && !chain.allows(1));
    }

    #[test]
    fn across_a_gap_an_unknown_parent_says_nothing_unless_parents_were_linked() {
        let mut chain = chain(10, ABC);
        assert_eq!(chain.judge(named(9, "i", "h")), Link::Next);
        assert_eq!(chain.judge(named(5, "e", "c")), Link::Next);
        chain.push(5, Some("e"));
        assert_eq!(chain.judge(named(9, "i", "h")), Link::Lost(Some(Held { block: 5, hash: Some("e".into()) })));
        // A block where there was none is on another branch too.
        assert_eq!(chain.judge(named(4, "d", "c")), Link::Fork { to: 3 });
    }
}
