//! A followed file that was written anew: what it holds again is left out.

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::SourceEvent;
use super::Reader;
use crate::model::ids::BlockNo;

impl Reader {
    /// A file begins: notes up to where its events may have been handled already.
    pub(super) fn begin_again(&mut self) {
        let last = self.order.last().filter(|_| self.source.repeats());
        self.again_to = last.map(|(block, place)| (BlockNo::new(block), place));
    }

    /// Whether an event was handled before its file was written anew.
    pub(super) fn came_again(&mut self, event: &SourceEvent) -> bool {
        let Some((block, place)) = self.again_to else { return false };
        let is_again = match event.block.cmp(&block.get()) {
            Ordering::Less => true,
            Ordering::Equal => match (event.seq, place) {
                (Some(seq), Some(place)) => seq <= place,
                _ => self.tally.holds(event),
            },
            Ordering::Greater => false,
        };
        if !is_again {
            self.again_to = None;
        } else if self.warned_again.as_ref().is_none_or(|warned| !Arc::ptr_eq(warned, &event.origin)) {
            self.warned_again = Some(Arc::clone(&event.origin));
            tracing::warn!(
                "{}:{}: the file was written anew and holds block {} again: what it holds up to block {block} was handled \
                 before, and is left out",
                event.origin,
                event.line,
                event.block
            );
        }
        is_again
    }
}
