//! Resuming: skips what is committed already, and holds a branch until it is known to be the one that counts.
//!
//! Without hashes, events up to the last committed block are skipped by number. With hashes, skipping goes on until the
//! source reaches the block *and hash* of the checkpoint: a source that is read from its beginning again still contains the
//! branches that it abandoned. Events of a branch other than the committed one are held, within a bound of bytes, until the
//! source has stayed on that branch for longer than a rollback can go, pauses or ends. The committed chain itself is the
//! reader's: nothing here changes it.

use super::block_chain::Chain;
use super::digest::Tally;
use super::forks::{Named, Verdict, judge, judge_branch, too_deep};
use super::order::{CHOICES, Order};
use super::page_writer::Stop;
use super::{Late, SourceError, SourceEvent};
use crate::model::ids::{BlockNo, Depth};
use crate::model::limits::ASIDE_BYTES_MAX;

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is committed already, or held: it goes no further for now.
    Kept,
    /// It came late, and is left out.
    Late,
    /// It lies after what is committed, and so does everything that follows.
    Past,
}

/// The last committed block.
#[derive(Debug, Clone, Copy)]
struct Done {
    block: BlockNo,
    events: u64,
}

/// Where the source stands.
#[derive(Debug)]
enum Reading {
    /// It has not reached the last committed block.
    Before,
    /// It is in the last committed block.
    At,
    /// It is on another branch than the one that is committed.
    Aside {
        branch: HeldBranch,
        /// The last committed block began without a hash and then named another one than ours: events after that block
        /// are judged as if no branch were held.
        was_at: bool,
    },
    /// It is past what is committed.
    Past,
}

/// What is known while committed events are skipped.
#[derive(Debug)]
pub(super) struct Resume {
    done: Done,
    /// The blocks that the source has given.
    seen: Chain,
    /// Events of the last committed block that the source has given.
    events: u64,
    /// The place of the last committed event, where the source has places.
    place: Option<i64>,
    /// The source has abandoned the blocks after this one; the inner none: all that it gave.
    went_back: Option<Option<BlockNo>>,
    reading: Reading,
    /// The source has resumed after the last committed block: nothing of it is compared.
    has_resumed: bool,
}

/// Events of a branch other than the committed one. A source that is read from its beginning again still contains the
/// branches that it abandoned, so we switch to one only once it is known to count.
#[derive(Debug)]
pub(super) struct HeldBranch {
    /// The block where it left ours, or why it cannot be followed.
    from: Result<BlockNo, SourceError>,
    /// Its first block.
    first: BlockNo,
    events: Vec<SourceEvent>,
    bytes: usize,
}

impl HeldBranch {
    fn new(from: Result<BlockNo, SourceError>, event: &SourceEvent) -> Self {
        let mut branch = Self { from, first: event.block.into(), events: Vec::new(), bytes: 0 };
        branch.push(event);
        branch
    }

    fn push(&mut self, event: &SourceEvent) {
        if self.from.is_ok() {
            self.bytes += held_bytes(event);
            self.events.push(event.clone());
        }
    }

    /// What remains of it when the source abandons the blocks after `to`.
    fn cut(mut self, to: BlockNo) -> Option<Self> {
        self.events.retain(|event| event.block <= to.get());
        self.bytes = self.events.iter().map(held_bytes).sum();
        (self.first <= to).then_some(self)
    }

    /// Whether the source has stayed on it for so long that it is the one that counts.
    fn is_decided(&self, block: BlockNo, depth: Depth) -> bool {
        match &self.from {
            // An abandoned branch was never longer than a rollback can go.
            Ok(from) => depth.oldest(block) > *from || self.bytes > ASIDE_BYTES_MAX,
            Err(_) => depth.oldest(block) >= self.first,
        }
    }

    /// The block where it left ours, and its events.
    ///
    /// # Errors
    /// It cannot be followed.
    pub(super) fn open(self) -> Result<(BlockNo, Vec<SourceEvent>), SourceError> {
        Ok((self.from?, self.events))
    }
}

fn held_bytes(event: &SourceEvent) -> usize {
    let position = event.position.as_ref().map_or(0, |position| position.as_str().len());
    event.json.len() + position + size_of::<SourceEvent>()
}

impl Resume {
    /// Resumes after the last committed block, given with its number of events; with none there is nothing to skip.
    pub(super) fn new(done: Option<(BlockNo, u64)>, place: Option<i64>, depth: Depth) -> Self {
        let (block, events) = done.unwrap_or_default();
        Self {
            done: Done { block, events },
            seen: Chain::new(depth),
            events: 0,
            place,
            went_back: None,
            reading: if done.is_some() { Reading::Before } else { Reading::Past },
            has_resumed: false,
        }
    }

    /// Whether everything from here on lies after what is committed.
    pub(super) fn is_past(&self) -> bool {
        matches!(self.reading, Reading::Past)
    }

    /// Stops skipping. Returns whether the source's parents were seen to be the blocks before across gaps.
    pub(super) fn finish(&mut self) -> bool {
        let is_linked = self.seen.is_linked();
        self.end();
        is_linked
    }

    fn end(&mut self) {
        self.reading = Reading::Past;
        self.seen = Chain::new(self.seen.depth());
    }

    /// The source has resumed after the last block of `ours`: it repeats no abandoned branch, so a fork is followed at once.
    /// More events of that last block are still noticed here.
    pub(super) fn start_after(&mut self, ours: &Chain) {
        if let Some(tip) = ours.tip().filter(|_| !self.is_past()) {
            self.seen.clear();
            self.seen.push(tip.block, tip.hash.as_deref(), tip.parent.as_deref());
            self.events = self.done.events;
            (self.reading, self.has_resumed) = (Reading::At, true);
        }
    }

    /// Events of the last committed block.
    pub(super) fn done_events(&self) -> u64 {
        self.done.events
    }

    /// Goes on behind files that are left out, which end with so many events of a block.
    pub(super) fn start_behind(&mut self, block: BlockNo, events: u64, ours: &Chain) {
        self.seen = ours.clone();
        self.seen.truncate(block);
        if self.seen.tip().is_none_or(|tip| tip.block != block) {
            self.seen.clear();
            self.seen.push(block, None, None);
        }
        let is_last = block == self.done.block;
        self.events = if is_last { events } else { 0 };
        self.reading = if is_last { Reading::At } else { Reading::Before };
    }

    /// The source begins again, in another order.
    pub(super) fn start_again(&mut self) {
        self.seen = Chain::new(self.seen.depth());
        (self.events, self.reading, self.went_back) = (0, Reading::Before, None);
    }

    /// Whether the source has given all of the last committed block.
    pub(super) fn has_reached_end(&self) -> bool {
        matches!(self.reading, Reading::At) && self.events >= self.done.events
    }

    /// Takes what the source has abandoned since the last call: the blocks after the one that is returned, or all.
    pub(super) fn take_went_back(&mut self) -> Option<Option<BlockNo>> {
        self.went_back.take()
    }

    /// Takes an event, while [`Resume::is_past`] is false. `ours` is what is committed.
    ///
    /// # Errors
    /// Its place has passed, and that is not to be left out.
    pub(super) fn take(
        &mut self,
        event: &SourceEvent,
        ours: &Chain,
        order: &mut Order,
        tally: &Tally,
    ) -> Result<Step, Stop> {
        let named = Named::of(event);
        let verdict = judge(&self.seen, named);
        self.seen.learn(verdict.links_gap());
        // A fork may be abandoned too: it is held like any other. What is late says nothing of where the source stands.
        if self.was_at() && !matches!(verdict, Verdict::Same | Verdict::Fork { .. } | Verdict::Late) {
            return Ok(Step::Past);
        }
        let is_step_back =
            matches!(verdict, Verdict::Fork { .. } | Verdict::Unreachable(_)) && self.is_step_back(named, ours);
        if verdict == Verdict::Late || is_step_back {
            return order.late_block(event, false).map(|()| Step::Late);
        }
        self.follow(&verdict, event, order)?;
        if !order.is_in_place(event, || tally.holds(event))? {
            return Ok(Step::Late);
        }
        if is_last_committed(ours, self.done, named) {
            // What comes behind the last committed place goes on within its block; and what cannot be read behind it.
            let is_line = event.refused.is_some() && event.seq.is_none() && self.place.is_some();
            if self.place.zip(event.seq).is_some_and(|(committed, this)| this > committed)
                || is_line && self.is_beyond(event)
            {
                return Ok(Step::Past);
            }
            let is_first = verdict != Verdict::Same;
            if !self.count(event, is_first, order)? {
                return Ok(Step::Late);
            }
        } else if self.compare(event, ours, order)? == Step::Past {
            return Ok(Step::Past);
        }
        order.note(event);
        Ok(Step::Kept)
    }

    /// Whether a block that comes behind a later one of the committed chain is of that chain too, so on no other branch.
    fn is_step_back(&self, named: Named<'_>, ours: &Chain) -> bool {
        let is_behind = self.seen.tip().is_some_and(|tip| tip.block > named.block && ours.holds(tip));
        is_behind
            && match ours.at(named.block) {
                Some(ours) => named.hash.is_some() && ours.hash.as_deref() == named.hash,
                // Without a history no branch is ever followed.
                None => self.seen.depth() == Depth::new(0) && ours.begins_after(named.block),
            }
    }

    /// Whether an event without a block of its own, which stands in that block, is one more than were committed with the
    /// last committed block.
    pub(super) fn is_beyond(&self, event: &SourceEvent) -> bool {
        matches!(self.reading, Reading::At) && event.block == self.done.block.get() && self.events >= self.done.events
    }

    /// Whether the source was in the last committed block.
    fn was_at(&self) -> bool {
        matches!(self.reading, Reading::At | Reading::Aside { was_at: true, .. })
    }

    /// Tracks the source's own chain, whatever is committed.
    fn follow(&mut self, verdict: &Verdict, event: &SourceEvent, order: &mut Order) -> Result<(), Stop> {
        let named = Named::of(event);
        match verdict {
            Verdict::Same | Verdict::Late => return Ok(()),
            Verdict::Next { .. } => {}
            Verdict::Fork { to } => {
                self.seen.leave(*to, named.block);
                self.go_back(*to);
                order.forget_last();
            }
            Verdict::Unreachable(_) => {
                self.reading = Reading::Before;
                self.seen.clear();
                self.went_back = Some(None);
                order.forget_last();
            }
        }
        if let Some(first) = self.seen.no_branch(named.block, named.hash) {
            return Err(order.no_branch(event, first));
        }
        self.seen.push(named.block, named.hash, named.parent);
        Ok(())
    }

    /// The source has abandoned the blocks after `to`.
    fn go_back(&mut self, to: BlockNo) {
        self.seen.truncate(to);
        self.went_back = Some(Some(to));
        self.reading = match std::mem::replace(&mut self.reading, Reading::Before) {
            Reading::Aside { branch, .. } => {
                branch.cut(to).map_or(Reading::Before, |branch| Reading::Aside { branch, was_at: false })
            }
            _ => Reading::Before,
        };
    }

    /// Counts an event of the last committed block; false if there are more than were committed.
    fn count(&mut self, event: &SourceEvent, is_first: bool, order: &Order) -> Result<bool, Stop> {
        self.events = if is_first { 1 } else { self.events + 1 };
        self.reading = Reading::At;
        // What is to be handled again the comparison finds, together with what is late before it, if it compares.
        if self.events <= self.done.events || order.rule() == Late::Replay && !self.has_resumed {
            return Ok(true);
        }
        let Done { block, events } = self.done;
        let message = || {
            format!(
                "block {block} was committed with {events} of its events, and the source now has more of it; a block must be \
                 complete when it is read: [source] end = \"open\" leaves the last block of a file that grows to the next \
                 run. Of the events that are here, {CHOICES}"
            )
        };
        order.late(event, message).map(|()| false)
    }

    /// Compares an event that is not of the last committed block with what is committed.
    fn compare(&mut self, event: &SourceEvent, ours: &Chain, order: &Order) -> Result<Step, Stop> {
        let named = Named::of(event);
        if !has_hash(ours, named) || (ours.begins_later() && ours.begins_after(named.block)) {
            if named.block > self.done.block {
                return Ok(Step::Past);
            }
            self.reading = Reading::Before;
            return Ok(Step::Kept);
        }
        if let Reading::Aside { branch, .. } = &mut self.reading {
            let is_ours = ours.at(named.block).is_some_and(|ours| ours.is(named.block, named.hash));
            if is_ours && branch.first < named.block && ours.at(branch.first).is_none() {
                return Err(order.no_branch(event, branch.first));
            }
            branch.push(event);
            return Ok(Step::Kept);
        }
        let from = match judge_branch(ours, &self.seen, named) {
            Verdict::Next { .. } => return Ok(Step::Past),
            Verdict::Same | Verdict::Late => return Ok(Step::Kept),
            Verdict::Fork { to } if ours.allows(to) => Ok(to),
            Verdict::Fork { .. } => Err(too_deep(ours, event, ours.beside(named.block))),
            Verdict::Unreachable(held) => Err(too_deep(ours, event, held.as_ref())),
        };
        self.reading = Reading::Aside { branch: HeldBranch::new(from, event), was_at: self.was_at() };
        Ok(Step::Kept)
    }

    /// Takes out the held branch if the source, now at this block, has stayed on it long enough.
    pub(super) fn take_decided(&mut self, block: BlockNo) -> Option<HeldBranch> {
        let depth = self.seen.depth();
        self.take_branch_if(|branch| branch.is_decided(block, depth))
    }

    /// Takes out the held branch because the source pauses or ends; at the end also one that cannot be followed.
    pub(super) fn take_settled(&mut self, is_end: bool) -> Option<HeldBranch> {
        self.take_branch_if(|branch| is_end || branch.from.is_ok())
    }

    fn take_branch_if(&mut self, is_due: impl FnOnce(&HeldBranch) -> bool) -> Option<HeldBranch> {
        if let Reading::Aside { branch, .. } = &self.reading
            && is_due(branch)
            && let Reading::Aside { branch, .. } = std::mem::replace(&mut self.reading, Reading::Past)
        {
            self.end();
            return Some(branch);
        }
        None
    }

    /// The source itself has rolled back to block `to`. Returns whether only skipped events are affected.
    pub(super) fn rolled_back(&mut self, to: BlockNo) -> bool {
        if self.is_past() || self.was_at() {
            self.end();
            return false;
        }
        self.go_back(to);
        true
    }
}

/// Whether hashes say whether the event is on the branch that is committed.
fn has_hash(ours: &Chain, named: Named<'_>) -> bool {
    named.hash.is_some() && ours.tip().is_some_and(|tip| tip.hash.is_some())
}

fn is_last_committed(ours: &Chain, done: Done, named: Named<'_>) -> bool {
    let is_same_hash = || ours.tip().is_some_and(|tip| tip.hash.as_deref() == named.hash);
    named.block == done.block && (!has_hash(ours, named) || is_same_hash())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_branch_is_decided_by_its_length_or_its_bytes() {
        let first = SourceEvent { block: 8, ..SourceEvent::default() };
        let refused = || Err(SourceError::Other("too deep".into()));
        for (from, bytes, depth, block, is_decided) in [
            (Ok(7), 0, 3, 10, false),
            (Ok(7), 0, 3, 11, true),
            (Ok(7), ASIDE_BYTES_MAX, 3, 10, false),
            (Ok(7), ASIDE_BYTES_MAX + 1, 3, 10, true),
            (refused(), 0, 3, 10, false),
            (refused(), 0, 3, 11, true),
        ] {
            let mut branch = HeldBranch::new(from.map(BlockNo::new), &first);
            branch.bytes = bytes;
            assert_eq!(branch.is_decided(BlockNo::new(block), Depth::new(depth)), is_decided, "{branch:?} at {block}");
        }
    }

    #[test]
    fn a_held_branch_keeps_what_the_source_did_not_abandon() {
        let event = |block| SourceEvent { block, json: "{}".into(), ..SourceEvent::default() };
        let held = || {
            let mut branch = HeldBranch::new(Ok(BlockNo::new(6)), &event(7));
            branch.push(&event(8));
            branch
        };
        assert_eq!(held().bytes, 2 * held_bytes(&event(7)));
        let cut = held().cut(BlockNo::new(7)).expect("a part");
        assert_eq!((cut.bytes, cut.events), (held_bytes(&event(7)), vec![event(7)]));
        assert!(held().cut(BlockNo::new(6)).is_none());
        // Of one that cannot be followed nothing is held.
        let refused = HeldBranch::new(Err(SourceError::Other("too deep".into())), &event(7));
        assert_eq!((refused.events.len(), refused.bytes), (0, 0));
    }
}
