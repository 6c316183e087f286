//! The order of events: places must grow, and what happens to an event whose place has passed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

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
}

/// Where the source stands in its own order.
#[derive(Debug)]
pub(super) struct Order {
    late: Late,
    stats: Arc<ReadStats>,
    /// Block and place of the last event.
    last: Option<(i64, Option<i64>)>,
    last_origin: Option<Arc<str>>,
    /// The source itself has rolled back to this block: its next events must lie after it.
    closed: Option<BlockNo>,
}

impl Order {
    pub(super) fn new(late: Late, stats: Arc<ReadStats>) -> Self {
        Self { late, stats, last: None, last_origin: None, closed: None }
    }

    /// Whether events whose place has passed are left out.
    pub(super) fn leaves_out(&self) -> bool {
        self.late == Late::Skip
    }

    /// Forgets the last event: the next one may lie before it.
    pub(super) fn forget_last(&mut self) {
        self.last = None;
    }

    /// Starts afresh after a rollback.
    pub(super) fn start_afresh(&mut self) {
        (self.last, self.closed) = (None, None);
    }

    /// The source itself has rolled back to block `to`.
    pub(super) fn close(&mut self, to: BlockNo) {
        self.closed = Some(to);
    }

    /// The block that the source has rolled back to, if the event does not lie after it.
    pub(super) fn closed_to(&self, event: &SourceEvent) -> Option<BlockNo> {
        self.closed.filter(|closed| event.block <= closed.get())
    }

    /// Checks the place within the block, and notes where the event stands; false if its place has passed.
    ///
    /// # Errors
    /// Its place has passed, and that is an error.
    pub(super) fn is_in_place(&mut self, event: &SourceEvent) -> Result<bool, SourceError> {
        if event.refused.is_some() && event.seq.is_none() {
            // It has no place, and says nothing about those of others.
            return Ok(true);
        }
        if let Some((block, Some(seq))) = self.last
            && block == event.block
            && event.seq.is_some_and(|this| this <= seq)
        {
            let message = || {
                format!(
                    "place {} of block {block} comes after place {seq}; places must grow (late = \"skip\" leaves such events out)",
                    event.seq.unwrap_or(0)
                )
            };
            return self.late(event, message).map(|()| false);
        }
        self.last = Some((event.block, event.seq));
        if self.last_origin.as_ref().is_none_or(|origin| !Arc::ptr_eq(origin, &event.origin)) {
            self.last_origin = Some(Arc::clone(&event.origin));
        }
        Ok(true)
    }

    /// Leaves out an event that comes after the source has rolled back past it.
    ///
    /// # Errors
    /// That is an error.
    pub(super) fn late_after_rollback(&self, event: &SourceEvent, closed: BlockNo) -> Result<(), SourceError> {
        self.late(event, || format!("block {} comes after a rollback to block {closed}", event.block))
    }

    /// Leaves out an event of a block whose place has passed. `is_blind`: a block that is held without a hash may be on
    /// another branch, so to leave this event out would be no advice.
    ///
    /// # Errors
    /// That is an error.
    pub(super) fn late_block(&self, event: &SourceEvent, is_blind: bool) -> Result<(), SourceError> {
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

    /// Leaves out an event and counts it.
    ///
    /// # Errors
    /// That is an error.
    pub(super) fn late(&self, event: &SourceEvent, message: impl FnOnce() -> String) -> Result<(), SourceError> {
        match self.late {
            Late::Error => Err(SourceError::of_event(event, message())),
            Late::Skip => {
                self.stats.late.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

fn late_message(block: i64, event: &SourceEvent, other_file: Option<&str>) -> String {
    if let Some(other) = other_file {
        return format!(
            "block {} comes after block {block} of {other}: files are read in the order of their names; name them so \
             that it is the order of their blocks",
            event.block
        );
    }
    format!(
        "block {} comes after block {block}; blocks must not decrease (late = \"skip\" leaves such events out)",
        event.block
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(block: i64, seq: Option<i64>, origin: &str) -> SourceEvent {
        SourceEvent { block, seq, origin: Arc::from(origin), ..SourceEvent::default() }
    }

    #[test]
    fn places_grow_within_a_block() {
        let mut order = Order::new(Late::Error, Arc::default());
        for (block, seq) in [(1, Some(4)), (1, Some(5)), (1, None), (1, Some(2)), (2, Some(1))] {
            assert!(order.is_in_place(&event(block, seq, "f")).expect("in place"), "{block} {seq:?}");
        }
        let refused = order.is_in_place(&event(2, Some(1), "f")).expect_err("late").to_string();
        assert!(refused.starts_with("f:0: place 1 of block 2 comes after place 1; places must grow"), "{refused}");
        order.forget_last();
        assert!(order.is_in_place(&event(2, Some(1), "f")).expect("in place"));
    }

    #[test]
    fn what_is_late_is_counted_or_refused() {
        let stats = Arc::new(ReadStats::default());
        let mut order = Order::new(Late::Skip, Arc::clone(&stats));
        assert!(order.is_in_place(&event(2, Some(3), "f")).expect("in place"));
        assert!(!order.is_in_place(&event(2, Some(3), "f")).expect("left out"));
        order.late_block(&event(1, None, "f"), false).expect("left out");
        assert_eq!(stats.late.load(Ordering::Relaxed), 2);
        assert!(order.leaves_out());
        for (origin, is_blind, said) in [
            ("f", false, "f:0: block 1 comes after block 2; blocks must not decrease"),
            ("g", false, "g:0: block 1 comes after block 2 of f: files are read in the order of their names"),
            ("g", true, "g:0: block 1 comes after block 2, and block 1 is held without a hash"),
        ] {
            order.late = Late::Error;
            let refused = order.late_block(&event(1, None, origin), is_blind).expect_err("late").to_string();
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
