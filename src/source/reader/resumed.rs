//! Going on after a position: asking the source to, and noticing the position after what is committed where the source is
//! read from its beginning.

use super::super::digest::Tally;
use super::super::{Resumed, SourceError, SourceEvent};
use super::Reader;
use crate::model::position::Position;

/// The position after what is committed.
#[derive(Debug, Default)]
pub(super) struct AfterCommitted {
    /// As it is stored.
    stored: Option<Position>,
    is_asked: bool,
    /// The source resumed after it: it repeats nothing that could be compared.
    has_resumed: bool,
    /// As the source gives it again, with the last event that is committed.
    seen: Option<Position>,
    /// The same, if the source holds what is committed and this is not what is stored.
    learned: Option<Position>,
}

impl AfterCommitted {
    pub(super) fn new(stored: Option<Position>) -> Self {
        Self { stored, ..Self::default() }
    }

    /// Whether the source resumed after it.
    pub(super) fn has_resumed(&self) -> bool {
        self.has_resumed
    }

    /// What the source gives is what is committed.
    pub(super) fn learn(&mut self) {
        self.learned = self.seen.take().filter(|seen| self.stored.as_ref() != Some(seen));
    }

    /// Whether there is a position that is not stored yet.
    pub(super) fn is_new(&self) -> bool {
        self.learned.is_some()
    }

    /// Takes it.
    pub(super) fn take_new(&mut self) -> Option<Position> {
        self.learned.take()
    }
}

impl Reader {
    /// Lets the source resume after what is committed, if the position is known and the source can. Otherwise it starts from
    /// its beginning, and what is committed is skipped by comparison.
    pub(super) fn resume_source(&mut self) -> Result<(), SourceError> {
        if std::mem::replace(&mut self.after.is_asked, true) {
            return Ok(());
        }
        let Some(after) = self.after.stored.as_ref().filter(|_| !self.resume.is_past()) else { return Ok(()) };
        if self.source.resume(after)? == Resumed::FromStart {
            return Ok(());
        }
        self.after.has_resumed = true;
        self.resume.start_after(&self.chain);
        // Lines before the first block are behind it, and the next event of the last block is not its first.
        self.leading_done = 0;
        if let Some(tip) = self.chain.tip() {
            self.tally = Tally::at(tip.block, self.resume.done_events());
        }
        Ok(())
    }

    /// Notes the position after an event that is committed.
    pub(super) fn note_committed(&mut self, event: &SourceEvent) {
        if self.comparison.committed().block.is_some_and(|tip| tip.get() == event.block) {
            self.after.seen.clone_from(&event.position);
        }
    }
}
