//! The order of events: places must grow, and what happens to an event whose place has passed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::forks::no_branch;
use super::page_writer::{Replay, Stop};
use super::stats::ReadStats;
use super::{SourceError, SourceEvent};
use crate::model::ids::BlockNo;

/// What to do with an event whose place has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Late {
    /// End the run.
    #[default]
    Error,
    /// Leave it out and count it.
    Skip,
    /// Go back to before it, and handle everything from there again in the right order. Needs history that reaches so
    /// far, and a source that can be read again.
    Replay,
}

/// Whether the last block of a source is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum End {
    /// It is: the run handles it.
    #[default]
    Complete,
    /// It may still grow: it is left to the next run.
    Open,
}

/// The choices of a user whose events come late.
pub(super) const CHOICES: &str = "late = \"skip\" leaves such events out, late = \"replay\" with [rollback] depth goes back \
                                  and handles them in their place";

/// Where the source stands in its own order.
#[derive(Debug)]
pub(super) struct Order {
    late: Late,
    stats: Arc<ReadStats>,
    /// Block and place of the last event.
    last: Option<(i64, Option<i64>)>,
    last_origin: Option<Arc<str>>,
    /// An event of a block before the last one has come: what comes of the last one then may have come before.
    has_stepped_back: bool,
    /// The source itself has rolled back to this block: its next events must lie after it.
    closed: Option<BlockNo>,
    /// This block and all before it are whole.
    whole: Option<BlockNo>,
}

impl Order {
    pub(super) fn new(late: Late, stats: Arc<ReadStats>) -> Self {
        Self { late, stats, last: None, last_origin: None, has_stepped_back: false, closed: None, whole: None }
    }

    /// Whether events whose place has passed are left out.
    pub(super) fn leaves_out(&self) -> bool {
        self.late == Late::Skip
    }

    /// What is done about events whose place has passed.
    pub(super) fn rule(&self) -> Late {
        self.late
    }

    /// Counts events that are left out.
    pub(super) fn count_late(&self, events: u64) {
        self.stats.late.fetch_add(events, Ordering::Relaxed);
    }

    /// Forgets the last event: the next one may lie before it.
    pub(super) fn forget_last(&mut self) {
        (self.last, self.has_stepped_back) = (None, false);
    }

    /// Goes on after an event of that block and place.
    pub(super) fn go_on_after(&mut self, block: i64, place: Option<i64>) {
        (self.last, self.has_stepped_back) = (Some((block, place)), false);
    }

    /// Block and place of the last event.
    pub(super) fn last(&self) -> Option<(i64, Option<i64>)> {
        self.last
    }

    /// The block of the last event.
    pub(super) fn last_block(&self) -> Option<i64> {
        self.last.map(|(block, _)| block)
    }

    /// Whether the last event lies behind that place of that block.
    pub(super) fn is_beyond(&self, block: i64, place: Option<i64>) -> bool {
        self.last.is_some_and(|(last, seq)| {
            last > block || last == block && seq.zip(place).is_some_and(|(seq, place)| seq > place)
        })
    }

    /// Whether what the source gave last was late.
    pub(super) fn has_stepped_back(&self) -> bool {
        self.has_stepped_back
    }

    /// Starts afresh after a rollback.
    pub(super) fn start_afresh(&mut self) {
        self.forget_last();
        (self.closed, self.whole) = (None, None);
    }

    /// This block and all before it are whole: their events come late from now on. False if that was known.
    pub(super) fn note_whole(&mut self, block: BlockNo) -> bool {
        let is_new = self.whole.is_none_or(|whole| whole < block);
        self.whole = self.whole.max(Some(block));
        is_new
    }

    /// Whether that block is known to be whole.
    pub(super) fn is_whole(&self, block: i64) -> bool {
        self.whole.is_some_and(|whole| block <= whole.get())
    }

    /// The block that is whole, if the event is of it or of one before it.
    pub(super) fn whole_to(&self, event: &SourceEvent) -> Option<BlockNo> {
        self.whole.filter(|whole| event.block <= whole.get())
    }

    /// Leaves out an event of a block that was taken for whole.
    ///
    /// # Errors
    /// That is not allowed.
    pub(super) fn late_after_whole(&self, event: &SourceEvent, whole: BlockNo) -> Result<(), Stop> {
        self.late(event, || {
            format!(
                "an event of block {} comes after block {whole} was whole: the source has said so, or nothing came for as \
                 long as [source] settle says ({CHOICES})",
                event.block
            )
        })
    }

    /// The source itself has rolled back to block `to`.
    pub(super) fn close(&mut self, to: BlockNo) {
        self.closed = Some(to);
    }

    /// The block that the source has rolled back to, if the event does not lie after it.
    pub(super) fn closed_to(&self, event: &SourceEvent) -> Option<BlockNo> {
        self.closed.filter(|closed| event.block <= closed.get())
    }

    /// So many events were taken for late, and are committed.
    pub(super) fn take_back_late(&self, events: u64) {
        // Only this thread counts.
        let late = self.stats.late.load(Ordering::Relaxed);
        self.stats.late.store(late.saturating_sub(events), Ordering::Relaxed);
    }

    /// Whether the event is in its place within its block; it does not count as the last one yet. `came_before` says
    /// whether the block has the same line already: once a source without places has stepped back, such a line is a second
    /// delivery.
    ///
    /// # Errors
    /// Its place has passed, and that is not to be left out.
    pub(super) fn is_in_place(&self, event: &SourceEvent, came_before: impl Fn() -> bool) -> Result<bool, Stop> {
        if event.refused.is_some() && event.seq.is_none() {
            // It has no place, and says nothing about those of others.
            return Ok(true);
        }
        let Some((block, last)) = self.last.filter(|(block, _)| *block == event.block) else { return Ok(true) };
        match (last, event.seq) {
            (Some(seq), Some(this)) if this <= seq => {
                let message =
                    || format!("place {this} of block {block} comes after place {seq}; places must grow ({CHOICES})");
                self.late(event, message).map(|()| false)
            }
            (_, None) if self.has_stepped_back && came_before() => {
                let message = || {
                    format!(
                        "an event of block {block} comes again after an earlier block; blocks must not decrease ({CHOICES})"
                    )
                };
                self.late(event, message).map(|()| false)
            }
            _ => Ok(true),
        }
    }

    /// Notes that the event was in its place, and is the last one.
    pub(super) fn note(&mut self, event: &SourceEvent) {
        let is_same_block = self.last.is_some_and(|(block, _)| block == event.block);
        if event.refused.is_some() && event.seq.is_none() && is_same_block {
            return;
        }
        if self.last.is_none_or(|(block, _)| block != event.block) {
            self.has_stepped_back = false;
        }
        self.last = Some((event.block, event.seq));
        if self.last_origin.as_ref().is_none_or(|origin| !Arc::ptr_eq(origin, &event.origin)) {
            self.last_origin = Some(Arc::clone(&event.origin));
        }
    }

    /// Leaves out an event that comes after the source has rolled back past it.
    ///
    /// # Errors
    /// That is not allowed.
    pub(super) fn late_after_rollback(&self, event: &SourceEvent, closed: BlockNo) -> Result<(), Stop> {
        self.late(event, || format!("block {} comes after a rollback to block {closed}", event.block))
    }

    /// Leaves out an event of a block whose place has passed. `is_blind`: a block that is held without a hash may be on
    /// another branch, so to leave this event out would be no advice.
    ///
    /// # Errors
    /// That is not allowed.
    pub(super) fn late_block(&mut self, event: &SourceEvent, is_blind: bool) -> Result<(), Stop> {
        self.has_stepped_back = true;
        let last = self.last.map_or(event.block, |(block, _)| block);
        self.late(event, || match is_blind {
            true => format!(
                "block {} comes after block {last}, and block {0} is held without a hash: whether it is a fork cannot be told. \
                 Roll back to a block before it (forebay rollback --to), then run again",
                event.block
            ),
            false => late_message(last, event, self.last_origin.as_deref().filter(|origin| **origin != *event.origin)),
        })
    }

    /// What a block leads to that shows that `first` only came late, although it was taken for the first one of another
    /// branch: what was undone for it cannot be left out.
    pub(super) fn no_branch(&self, event: &SourceEvent, first: BlockNo) -> Stop {
        let why = no_branch(event, first);
        match self.late {
            Late::Error | Late::Skip => why.into(),
            Late::Replay => Stop::Replay(Replay { from: first, why }),
        }
    }

    /// Leaves out an event and counts it.
    ///
    /// # Errors
    /// That is not allowed.
    pub(super) fn late(&self, event: &SourceEvent, message: impl FnOnce() -> String) -> Result<(), Stop> {
        let why = || SourceError::of_event(event, message());
        match self.late {
            Late::Error => Err(why().into()),
            Late::Skip => {
                self.count_late(1);
                Ok(())
            }
            Late::Replay => Err(Stop::Replay(Replay { from: event.block.into(), why: why() })),
        }
    }
}

fn late_message(block: i64, event: &SourceEvent, other_file: Option<&str>) -> String {
    if let Some(other) = other_file {
        return format!(
            "block {} comes after block {block} of {other}: files are read in the order of their names; name them so \
             that it is the order of their blocks ({CHOICES})",
            event.block
        );
    }
    format!("block {} comes after block {block}; blocks must not decrease ({CHOICES})", event.block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(block: i64, seq: Option<i64>, origin: &str) -> SourceEvent {
        SourceEvent { block, seq, origin: Arc::from(origin), ..SourceEvent::default() }
    }

    fn take(order: &mut Order, event: &SourceEvent) -> Result<bool, Stop> {
        let is_in_place = order.is_in_place(event, || event.json == "again")?;
        if is_in_place {
            order.note(event);
        }
        Ok(is_in_place)
    }

    fn refusal<T: std::fmt::Debug>(refused: Result<T, Stop>) -> String {
        match refused {
            Err(Stop::Failed(error)) => error.to_string(),
            Err(Stop::Replay(Replay { from, .. })) => format!("again from {from}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn places_grow_within_a_block() {
        let mut order = Order::new(Late::Error, Arc::default());
        for (block, seq) in [(1, Some(4)), (1, Some(5)), (1, None), (1, Some(2)), (2, Some(1))] {
            assert!(take(&mut order, &event(block, seq, "f")).expect("in place"), "{block} {seq:?}");
        }
        let refused = refusal(take(&mut order, &event(2, Some(1), "f")));
        assert!(refused.starts_with("f: place 1 of block 2 comes after place 1; places must grow"), "{refused}");
        order.forget_last();
        assert!(take(&mut order, &event(2, Some(1), "f")).expect("in place"));
        order.late = Late::Replay;
        assert_eq!(refusal(take(&mut order, &event(2, Some(1), "f"))), "again from 2");
    }

    #[test]
    fn once_a_source_has_stepped_back_what_came_before_is_late() {
        for (seq, json, is_in_place) in [(None, "again", false), (None, "new", true), (Some(8), "again", true)] {
            let mut order = Order::new(Late::Skip, Arc::default());
            assert!(take(&mut order, &event(3, seq.map(|_| 7), "f")).expect("in place"));
            order.late_block(&event(2, seq.map(|_| 7), "f"), false).expect("left out");
            let next = SourceEvent { json: json.into(), ..event(3, seq, "f") };
            assert_eq!(take(&mut order, &next).expect("judged"), is_in_place, "{seq:?} {json}");
            assert!(take(&mut order, &event(4, seq, "f")).expect("in place"));
            assert!(!order.has_stepped_back());
        }
    }

    #[test]
    fn what_is_late_is_counted_or_refused() {
        let stats = Arc::new(ReadStats::default());
        let mut order = Order::new(Late::Skip, Arc::clone(&stats));
        assert!(take(&mut order, &event(2, Some(3), "f")).expect("in place"));
        assert!(!take(&mut order, &event(2, Some(3), "f")).expect("left out"));
        order.late_block(&event(1, None, "f"), false).expect("left out");
        assert_eq!(stats.late.load(Ordering::Relaxed), 2);
        assert!(order.leaves_out());
        for (origin, is_blind, said) in [
            ("f", false, "f: block 1 comes after block 2; blocks must not decrease"),
            ("g", false, "g: block 1 comes after block 2 of f: files are read in the order of their names"),
            ("g", true, "g: block 1 comes after block 2, and block 1 is held without a hash"),
        ] {
            order.late = Late::Error;
            let refused = refusal(order.late_block(&event(1, None, origin), is_blind));
            assert!(refused.starts_with(said), "{refused}");
        }
    }

    #[test]
    fn what_comes_after_a_rollback_of_the_source_lies_behind_it() {
        let mut order = Order::new(Late::Error, Arc::default());
        order.close(BlockNo::new(5));
        assert_eq!(order.closed_to(&event(6, None, "f")), None);
        assert_eq!(order.closed_to(&event(5, None, "f")), Some(BlockNo::new(5)));
        order.start_afresh();
        assert_eq!(order.closed_to(&event(5, None, "f")), None);
    }
}
