//! The fork judge: how a block stands to the chain that is held. Chain and block in, verdict out; changes nothing.
//!
//! A block is on another branch if its parent is not the block that is held before it, or if its number is held with
//! another hash. Numbers may leave gaps, and a source that leaves blocks without events out names parents that nobody
//! holds; so across a gap an unknown parent says nothing, unless this source's parents were seen to be the blocks before
//! across gaps. A verdict says whether it shows that ([`Verdict::links_gap`]); the caller notes it in the chain.

use std::sync::Arc;

use super::block_chain::{Chain, Header};
use super::{SourceError, SourceEvent};
use crate::model::ids::BlockNo;

/// A block as an event names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'e> {
    pub(super) block: BlockNo,
    pub(super) hash: Option<&'e str>,
    pub(super) parent: Option<&'e str>,
}

impl<'e> Named<'e> {
    /// The block of an event.
    pub(super) fn of(event: &'e SourceEvent) -> Self {
        let SourceEvent { block, hash, parent, .. } = event;
        Self { block: BlockNo::new(*block), hash: hash.as_deref(), parent: parent.as_deref() }
    }
}

/// How a block stands to a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the last block.
    Same,
    /// It is a new block after the last one.
    Next {
        /// It names the last block as its parent, across a gap.
        links_gap: bool,
    },
    /// Its place has passed.
    Late,
    /// It is on another branch, which left the chain after this block.
    Fork { to: BlockNo },
    /// It is on another branch, which left the chain where nothing is held any more; the held block that it contradicts.
    Unreachable(Option<Header>),
}

impl Verdict {
    /// Whether this shows that parents are the blocks before, across gaps too.
    pub(super) fn links_gap(&self) -> bool {
        matches!(self, Self::Next { links_gap: true })
    }
}

/// Judges how a block stands to a chain.
pub(super) fn judge(chain: &Chain, named: Named<'_>) -> Verdict {
    let Named { block, hash, parent } = named;
    let Some(tip) = chain.tip() else { return Verdict::Next { links_gap: false } };
    let differs = |ours: &Header| ours.hash.as_deref().zip(hash).is_some_and(|(ours, theirs)| ours != theirs);
    if block == tip.block {
        return if differs(tip) { judge_replacing(chain, named) } else { Verdict::Same };
    }
    if block < tip.block {
        return match chain.at(block) {
            Some(ours) if differs(ours) => judge_replacing(chain, named),
            None if hash.is_some() && is_missing(chain, named) != Some(true) => judge_replacing(chain, named),
            _ => Verdict::Late,
        };
    }
    let Some((ours, parent)) = tip.hash.as_deref().zip(parent) else { return Verdict::Next { links_gap: false } };
    let is_gap = block.previous() != tip.block;
    if ours == parent {
        return Verdict::Next { links_gap: is_gap };
    }
    match chain.of_hash(parent, block) {
        Some(ancestor) => Verdict::Fork { to: ancestor.block },
        None if is_gap && !chain.is_linked() => Verdict::Next { links_gap: false },
        None => Verdict::Unreachable(Some(tip.clone())),
    }
}

/// Whether a block of the chain that is held is missing from it, and this is it; none if that cannot be told.
fn is_missing(chain: &Chain, Named { block, hash, .. }: Named<'_>) -> Option<bool> {
    let after = chain.after(block)?;
    let (theirs, parent) = hash.zip(after.parent.as_deref())?;
    // The parent may be the block before its place, or the last one before it of which there are events.
    let follows_before = || chain.before(block).is_some_and(|before| before.hash.as_deref() == Some(parent));
    (theirs == parent || after.block.previous() == block || follows_before()).then_some(theirs == parent)
}

/// Whether a block that is taken for the first one of a branch may only have come late: none of its number is held, and
/// nothing says that the blocks behind it do not follow it.
pub(super) fn may_be_late(chain: &Chain, named: Named<'_>) -> bool {
    let is_behind = chain.tip().is_some_and(|tip| tip.block > named.block);
    is_behind && chain.at(named.block).is_none() && is_missing(chain, named).is_none()
}

/// Judges a block that is held with another hash, or that is not held, although a later one is.
fn judge_replacing(chain: &Chain, Named { block, parent, .. }: Named<'_>) -> Verdict {
    if let Some(ancestor) = parent.and_then(|parent| chain.of_hash(parent, block)) {
        return Verdict::Fork { to: ancestor.block };
    }
    let Some(before) = chain.before(block) else {
        return match chain.begins_later() {
            true => Verdict::Unreachable(chain.at(block).or(chain.first()).cloned()),
            // Ours begins with a block that theirs has not, or has otherwise.
            false => Verdict::Fork { to: block.previous() },
        };
    };
    let is_next = before.block == block.previous() || chain.is_linked();
    match parent.is_some() && before.hash.is_some() && is_next {
        true => Verdict::Unreachable(Some(before.clone())),
        false => Verdict::Fork { to: before.block },
    }
}

/// Judges how the last block of `seen`, the blocks that the source has given, stands to `ours`, the committed chain.
///
/// The block that the source gave just before counts too, if we hold it: a source that skips from there over blocks that
/// we hold is on another branch, even if it does not name its parents.
pub(super) fn judge_branch(ours: &Chain, seen: &Chain, named: Named<'_>) -> Verdict {
    let before = seen.before_tip();
    let common = before.filter(|before| ours.holds(before)).map(|before| before.block);
    match (judge(ours, named), common) {
        (verdict @ Verdict::Next { .. }, _) if is_child_of_tip(ours, named) => verdict,
        (verdict @ Verdict::Fork { .. }, _) if is_child(ours, named) => verdict,
        (Verdict::Next { .. }, Some(common)) => Verdict::Fork { to: common },
        (Verdict::Fork { to }, Some(common)) => Verdict::Fork { to: common.min(to) },
        // It has left ours, or gone past it, from a block that is too old to be held.
        (Verdict::Next { .. } | Verdict::Fork { .. }, None) if before.is_some() => {
            Verdict::Unreachable(ours.tip().cloned())
        }
        (verdict, _) => verdict,
    }
}

/// Whether the block names the last one as its parent.
fn is_child_of_tip(chain: &Chain, named: Named<'_>) -> bool {
    named.parent.is_some() && chain.tip().is_some_and(|tip| tip.hash.as_deref() == named.parent)
}

/// Whether the block names one that is held as its parent.
fn is_child(chain: &Chain, named: Named<'_>) -> bool {
    named.parent.is_some_and(|parent| chain.of_hash(parent, named.block).is_some())
}

/// The error of a fork that cannot be followed. `held` is the block that it contradicts; the last one if none is known.
pub(super) fn too_deep(chain: &Chain, event: &SourceEvent, held: Option<&Header>) -> SourceError {
    let hash =
        |hash: Option<&str>| hash.map_or_else(|| "a hash that is not known".into(), |hash| format!("hash {hash}"));
    let ours = held
        .or(chain.tip())
        .map_or_else(String::new, |held| format!("; block {} is held with {}", held.block, hash(held.hash.as_deref())));
    let parent = event.parent.as_deref().map_or_else(String::new, |parent| format!(" on parent {parent}"));
    let oldest = chain.oldest().map_or_else(String::new, |oldest| {
        format!(", and the oldest block that can be rolled back to is {oldest} (rollback.depth = {})", chain.depth())
    });
    SourceError::Fork {
        origin: Arc::clone(&event.origin),
        line: event.line,
        message: format!(
            "a fork that cannot be followed: block {} comes with {}{parent}{ours}{oldest}. Either blocks are missing, or it \
             left ours before what is held: let the source deliver the branch from a block that can be rolled back to, or \
             index anew with a larger rollback.depth: `forebay run --fresh`",
            event.block,
            hash(event.hash.as_deref())
        ),
    }
}

/// The error of a branch in a source that was put in the order of its blocks: which branch counts is not known any more.
pub(super) fn branches_in_order(event: &SourceEvent) -> SourceError {
    let message = format!(
        "late = \"replay\" cannot handle it: put in the order of their blocks, blocks of two branches lie among each other \
         at block {}. Name the files in the order in which they came, or leave out the branch that no longer counts",
        event.block
    );
    SourceError::of_event(event, message)
}

/// Warns of a branch that may be none: its first block may have come late.
pub(super) fn warn_of_doubt(event: &SourceEvent, tip: BlockNo, to: BlockNo) {
    tracing::warn!(
        "{}:{}: block {} comes after block {tip}, and no block {2} is held: it is taken for the first one of another branch, so \
         the blocks after {to} are undone. If it only came late, they are missing now: give each block its parent \
         ([source] parent), so that this can be told, or name the files in the order of their blocks",
        event.origin,
        event.line,
        event.block
    );
}

/// Why a block shows that `first`, which was taken for the first one of another branch, only came late.
pub(super) fn no_branch(event: &SourceEvent, first: BlockNo) -> SourceError {
    let message = format!(
        "block {} comes again with the same hash, behind block {first}, which came after it: block {first} is on no other \
         branch, it came late. Name the files in the order of their blocks, or give each block its parent ([source] \
         parent), so that this can be told at once",
        event.block
    );
    SourceError::of_event(event, message)
}

/// Warns of a block that is left out although it may be on another branch.
pub(super) fn warn_before_all(event: &SourceEvent) {
    tracing::warn!(
        "{}:{}: block {} lies before all that is held, so whether it is on another branch cannot be told; it is left out \
         (late = \"skip\")",
        event.origin,
        event.line,
        event.block
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::Depth;

    const SAME: Verdict = Verdict::Same;
    const LATE: Verdict = Verdict::Late;
    const NEXT: Verdict = Verdict::Next { links_gap: false };
    const LINK: Verdict = Verdict::Next { links_gap: true };

    fn fork(to: i64) -> Verdict {
        Verdict::Fork { to: BlockNo::new(to) }
    }

    fn lost(block: i64, hash: &str) -> Verdict {
        let hash = Some(hash).filter(|hash| !hash.is_empty()).map(Arc::from);
        Verdict::Unreachable(Some(Header { block: BlockNo::new(block), hash, parent: None }))
    }

    /// An empty hash is one that is not known.
    fn chain(depth: u64, blocks: &[(i64, &str)]) -> Chain {
        let mut chain = Chain::new(Depth::new(depth));
        blocks.iter().for_each(|(block, hash)| chain.push(BlockNo::new(*block), known(hash), None));
        chain
    }

    fn linked(mut chain: Chain) -> Chain {
        chain.learn(true);
        chain
    }

    fn known(hash: &str) -> Option<&str> {
        Some(hash).filter(|hash| !hash.is_empty())
    }

    /// Block, hash and parent, and what is to come of them.
    type Case = (i64, &'static str, &'static str, Verdict);

    fn named(&(block, hash, parent, _): &Case) -> Named<'static> {
        Named { block: BlockNo::new(block), hash: known(hash), parent: known(parent) }
    }

    fn check(chain: &Chain, cases: &[Case]) {
        for case in cases {
            assert_eq!(judge(chain, named(case)), case.3, "{:?} on {chain:?}", named(case));
        }
    }

    const ABC: &[(i64, &str)] = &[(1, "a"), (2, "b"), (3, "c")];

    #[test]
    fn a_block_on_its_parent_goes_on() {
        check(
            &chain(10, ABC),
            &[
                (3, "c", "b", SAME),
                (3, "", "", SAME),
                (4, "d", "c", NEXT),
                (4, "d", "", NEXT),
                (4, "", "", NEXT),
                (2, "b", "a", LATE),
                (2, "", "", LATE),
                (0, "", "", LATE),
            ],
        );
        check(&Chain::new(Depth::new(10)), &[(7, "g", "f", NEXT), (7, "", "", NEXT)]);
    }

    #[test]
    fn another_parent_or_hash_is_a_fork_from_the_last_common_block() {
        check(
            &chain(10, ABC),
            &[
                (4, "d2", "b", fork(2)),
                (3, "c2", "b", fork(2)),
                (3, "c2", "", fork(2)),
                (2, "b2", "a", fork(1)),
                (1, "a2", "z", fork(0)),
                (0, "z2", "y", fork(-1)),
                (7, "g2", "a", fork(1)),
                (4, "d2", "z", lost(3, "c")),
                (3, "c2", "z", lost(2, "b")),
            ],
        );
    }

    #[test]
    fn a_branch_that_left_before_what_is_held_is_unreachable() {
        check(
            &chain(1, ABC),
            &[
                (2, "b2", "a2", lost(2, "b")),
                (1, "a2", "z", lost(2, "b")),
                (3, "c2", "b2", lost(2, "b")),
                (4, "d", "c2", lost(3, "c")),
            ],
        );
    }

    #[test]
    fn across_a_gap_an_unknown_parent_says_nothing_unless_parents_were_linked() {
        let blocks = [(1, "a"), (2, "b"), (3, "c"), (5, "e")];
        check(&chain(10, ABC), &[(9, "i", "h", NEXT), (5, "e", "c", LINK), (9, "i", "", NEXT)]);
        // A block where there was none is on another branch too.
        check(&chain(10, &blocks), &[(9, "i", "h", NEXT), (9, "i", "e", LINK), (4, "d", "z", lost(3, "c"))]);
        check(
            &linked(chain(10, &blocks)),
            &[(9, "i", "h", lost(5, "e")), (4, "d", "c", fork(3)), (9, "i", "b", fork(2))],
        );
        let gap = [(1, "a"), (5, "e"), (6, "f")];
        check(&chain(10, &gap), &[(4, "d", "z", fork(1)), (5, "e2", "d", fork(1))]);
        check(&linked(chain(10, &gap)), &[(4, "d", "z", lost(1, "a")), (5, "e2", "d", lost(1, "a"))]);
    }

    #[test]
    fn a_block_between_is_late_or_another_branch_as_the_parent_behind_it_says() {
        let mut held = Chain::new(Depth::new(10));
        for (block, hash, parent) in [(1, "a", "z"), (3, "c", "b"), (6, "f", "e"), (9, "i", "f"), (12, "l", "")] {
            held.push(BlockNo::new(block), known(hash), known(parent));
        }
        let sure = [
            (0, "z", "", LATE),
            (0, "y", "", fork(-1)),
            (2, "b", "a", LATE),
            (2, "b2", "a", fork(1)),
            (2, "b2", "", fork(1)),
            (5, "e", "", LATE),
            (7, "g", "", fork(6)),
        ];
        let in_doubt = [(4, "d", "", fork(3)), (10, "j", "", fork(9)), (11, "k", "i", fork(9))];
        check(&held, &sure);
        check(&held, &in_doubt);
        assert!(sure.iter().all(|case| !may_be_late(&held, named(case))));
        assert!(in_doubt.iter().all(|case| may_be_late(&held, named(case))));
        // Of a number that is held, or behind the last one, there is no doubt.
        assert!([(3, "c2", "", SAME), (13, "m", "a", SAME)].iter().all(|case| !may_be_late(&held, named(case))));
    }

    #[test]
    fn a_hash_that_is_not_known_contradicts_nothing() {
        check(
            &chain(10, &[(1, "a"), (2, ""), (3, "")]),
            &[(3, "c", "b", SAME), (4, "d", "z", NEXT), (2, "b", "z", LATE), (2, "", "", LATE)],
        );
        check(&chain(10, &[(1, ""), (2, "b")]), &[(2, "b2", "z", fork(1))]);
    }

    #[test]
    fn what_a_source_had_before_counts_where_it_is_held_too() {
        let ours = chain(10, ABC);
        for (seen, case) in [
            // It goes on from block 2 past block 3, and does not say on which parent.
            (&[(2, "b"), (4, "d")][..], (4, "d", "", fork(2))),
            // It says that it is on block 3, or on block 1.
            (&[(2, "b"), (4, "d")], (4, "d", "c", NEXT)),
            (&[(2, "b"), (4, "d2")], (4, "d2", "a", fork(1))),
            // Of two places where it may have left, the earlier one.
            (&[(1, "a"), (3, "c2")], (3, "c2", "", fork(1))),
            // What it had before is not held.
            (&[(0, "z"), (4, "d")], (4, "d", "", lost(3, "c"))),
            (&[(0, "z"), (3, "c2")], (3, "c2", "", lost(3, "c"))),
            // It had nothing before.
            (&[(4, "d")], (4, "d", "", NEXT)),
            (&[(3, "c2")], (3, "c2", "", fork(2))),
            // It is the last block of ours, or an earlier one.
            (&[(2, "b"), (3, "c")], (3, "c", "b", SAME)),
            (&[(1, "a"), (2, "b")], (2, "b", "a", LATE)),
        ] {
            let found = judge_branch(&ours, &chain(10, seen), named(&case));
            assert_eq!(found, case.3, "{:?} after {seen:?}", named(&case));
        }
    }

    #[test]
    fn a_fork_that_cannot_be_followed_is_told_with_both_hashes() {
        let event =
            SourceEvent { block: 4, hash: Some("d2".into()), parent: Some("c2".into()), ..SourceEvent::default() };
        let said = |held: Option<&Header>| too_deep(&chain(1, ABC), &event, held).to_string();
        let ours = Header { block: BlockNo::new(2), hash: None, parent: None };
        assert!(said(None).starts_with(
            "source: a fork that cannot be followed: block 4 comes with hash d2 on parent c2; block 3 is held with hash c, \
             and the oldest block that can be rolled back to is 2 (rollback.depth = 1). Either blocks are missing"
        ));
        assert!(said(Some(&ours)).contains("; block 2 is held with a hash that is not known, and"));
    }
}
