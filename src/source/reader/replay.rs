//! A replay: late events are put in their place. The source is read again in the order of its blocks, compared as far as
//! it is committed, and handled again from the first block that differs.

use std::sync::Arc;

use super::super::comparison::{Difference, LOST};
use super::super::digest::Tally;
use super::super::merged::{Merged, NoSource};
use super::super::page_writer::{Replay, Stop};
use super::super::refused::Followed;
use super::super::{Source, SourceError};
use super::Reader;
use crate::model::ids::BlockNo;

impl Reader {
    /// Asks for a replay from the first block that differs. To know it, all of the source is first compared in its order.
    pub(super) fn replay_from(&mut self, to: BlockNo, found: Vec<Difference>) -> Result<(), Stop> {
        let Some(why) = found.into_iter().next().map(Difference::into_error) else { return Ok(()) };
        if !self.is_merged {
            self.is_compared = false;
            self.resume.start_again();
            return Err(Stop::Replay(Replay { from: to, why }));
        }
        // What was seen in the source's own order names files.
        let why = self.merged_since.take().unwrap_or(why);
        match self.comparison.first_difference(to, &self.files) {
            Ok(from) => Err(Stop::Replay(Replay { from, why })),
            Err(cause) => Err(why.with_note(&format!("late = \"replay\" cannot handle it: {cause}")).into()),
        }
    }

    /// Goes back to before the block of a late event, and reads the source again with that event in its place.
    pub(super) fn replay(&mut self, Replay { from, why }: Replay) -> Result<(), Stop> {
        let was_merged = std::mem::replace(&mut self.is_merged, true);
        let cannot_read = || "late = \"replay\" cannot handle it: the source cannot be read again";
        let mut from = from;
        if was_merged {
            if !self.source.rewind()? {
                return Err(why.with_note(cannot_read()).into());
            }
            self.files.read_again();
        } else {
            let source = std::mem::replace(&mut self.source, Box::new(NoSource));
            let contents = self.files.contents_anew();
            let mut merged = Merged::new(source, Arc::clone(&self.stats), self.leading_done, contents);
            // The files that are left out have their place in the order too.
            merged.leave_out(&vec![false; self.files.left_out().len()]);
            if !merged.rewind()? {
                return Err(why.with_note(cannot_read()).into());
            }
            self.files.read_again();
            self.files.set_contents(merged.contents().clone());
            from = merged.first_late().map_or(from, |first| from.min(first));
            self.source = Box::new(merged);
        }
        // What is late while committed events are skipped may have been put in its place by an earlier run: the
        // comparison tells. What is late behind them is new.
        let committed = self.comparison.committed().block;
        // Of a block that was gone on within, what was handed on cannot be taken back apart.
        let is_beyond = |tip: BlockNo| self.chain.tip().is_some_and(|last| last.block > tip);
        let is_comparing = !self.is_compared
            && !self.after.has_resumed()
            && committed.is_some_and(|tip| !self.resume.is_past() || is_beyond(tip));
        if is_comparing && was_merged {
            // All is in its order, and one event is late all the same.
            return Err(why.into());
        }
        if let Some(tip) = committed.filter(|_| is_comparing) {
            // What came behind it was handed on before anything was compared.
            if self.resume.is_past() {
                if !self.chain.allows(tip) {
                    return Err(beyond_history(why, self.chain.oldest()).into());
                }
                self.roll_back(tip)?;
            }
            self.merged_since = Some(why);
            self.start_again();
            self.resume.start_again();
            self.comparison.start_again();
            return Ok(());
        }
        if self.files.loses_from(from, was_merged) {
            return Err(why.with_note(&format!("late = \"replay\" cannot handle it: {LOST}")).into());
        }
        let to = from.previous();
        if self.chain.tip().is_some_and(|tip| tip.block > to) && !self.chain.allows(to) {
            return Err(beyond_history(why, self.chain.oldest()).into());
        }
        self.roll_back(to)?;
        self.start_again();
        self.resume.finish();
        self.replayed_to = Some(to);
        Ok(())
    }

    /// The source begins again.
    fn start_again(&mut self) {
        self.remainder = None;
        self.order.start_afresh();
        self.tally = Tally::default();
        self.followed = Followed::default();
    }
}

/// The error of a replay that the history does not reach.
fn beyond_history(why: SourceError, oldest: Option<BlockNo>) -> SourceError {
    let oldest =
        oldest.map_or_else(String::new, |oldest| format!(": the oldest block that can be gone back to is {oldest}"));
    why.with_note(&format!("late = \"replay\" cannot handle it{oldest} ([rollback] depth)"))
}
