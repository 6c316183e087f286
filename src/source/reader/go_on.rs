//! What need not be read: files that have not changed, and of a followed one what comes before the place where the last
//! run has left it. The next run is told where that is.

use std::sync::atomic::Ordering;

use super::super::digest::Tally;
use super::super::page_writer::Stop;
use super::super::{SourceError, SourceEvent};
use super::Reader;

impl Reader {
    /// Has the source leave out files that have not changed since they were committed.
    pub(super) fn leave_out_files(&mut self) -> Result<(), SourceError> {
        self.go_on_in_last()?;
        if !self.files.left_out().contains(&true) && !self.files.goes_on_in(None) {
            return Ok(());
        }
        self.source.leave_out(self.files.left_out());
        let mut late = 0;
        for (_, file) in self.files.left_out_files() {
            self.comparison.add_file(file);
            late += file.late;
        }
        if late > 0 && !self.is_compared {
            tracing::warn!("{late} events of files that are committed came too late in earlier runs and were left out");
        }
        Ok(())
    }

    /// Goes on behind the files that are left out before the file of that place.
    pub(super) fn go_on_behind(&mut self, at: Option<usize>) {
        let begin = self.files.last_at();
        let between = self.files.left_out_files().filter(|(file, _)| {
            let is_before = at.is_none_or(|at| *file < at || *file == at && self.files.goes_on_in(Some(at)));
            is_before && begin.is_none_or(|begin| *file > begin)
        });
        // A file of which nothing counts says nothing about the order.
        let Some((_, last)) = between.filter(|(_, file)| file.last_block.is_some()).last() else { return };
        let Some(block) = last.last_block else { return };
        let (place, events) = (last.last_place, last.last_events);
        if self.order.is_beyond(block, place) {
            return;
        }
        self.order.go_on_after(block, place);
        self.tally = Tally::at(block.into(), events);
        if !self.resume.is_past() {
            self.resume.start_behind(block.into(), events, &self.chain);
        }
    }

    /// Has the source go on in its last file, if what comes before is left out.
    fn go_on_in_last(&mut self) -> Result<(), SourceError> {
        let last = self.files.last_stored().map(|(at, stored)| (at, stored.clone()));
        if let Some((at, stored)) = last.filter(|(at, _)| self.files.left_out()[..*at].iter().all(|is_left| *is_left))
            && self.source.go_on_in(at, &stored)?
        {
            self.files.go_on_in(at, stored);
        }
        Ok(())
    }

    /// Notes where events without a block of their own belong that are the first behind what is gone on from. Returns
    /// whether the event cannot be read.
    pub(super) fn goes_on_behind(&mut self, event: &SourceEvent) -> bool {
        if event.refused.is_none() {
            return false;
        }
        let resumed =
            self.chain.tip().map(|tip| tip.block).filter(|_| self.after.has_resumed() && !self.followed.has_any());
        let behind = self.files.block_gone_on_from(self.source.file()).or(resumed);
        let tip = self.chain.tip().filter(|tip| behind == Some(tip.block));
        if let Some((block, hash)) = tip.map(|tip| (tip.block, tip.hash.clone())) {
            self.followed.go_on_behind(&event.origin, block.get(), hash.as_deref());
        }
        true
    }

    /// Says how many events were left out where no file has ended: of a file that is said then.
    pub(super) fn warn_of_late(&self) {
        let late = self.files.late_so_far().unwrap_or_else(|| self.stats.late.load(Ordering::Relaxed));
        if late > 0 {
            tracing::warn!("{late} events came too late and were left out (late = \"skip\")");
        }
    }

    /// Passes by the files that are left out, if no event of another one came behind them.
    pub(super) fn pass_left_out(&mut self) {
        if !self.resume.is_past() && self.files.left_out_files().next().is_some() {
            self.go_on_behind(None);
        }
    }

    /// Tells up to where the file that is being read need not be read again: to the end of its last whole block.
    pub(super) fn tell_state(&mut self, is_whole: bool) -> Result<(), Stop> {
        if !self.resume.is_past() || self.followed.is_waiting() || self.order.has_stepped_back() {
            return Ok(());
        }
        let Some(mut state) = self.files.take_state(is_whole, self.tally.events()) else { return Ok(()) };
        let Some(hash) = self.source.hash_before(state.stamp.bytes)? else { return Ok(()) };
        if let Some(tail) = &mut state.tail {
            tail.hash = hash;
        }
        self.files.note_state(&state);
        self.tell(None, vec![state])
    }
}
