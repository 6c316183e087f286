//! The reader thread: turns a source into pages, in order, within a budget of bytes.
//!
//! Holds the chain of blocks that are committed or handed on, and switches branches. `skip_committed` skips what is
//! committed, `comparison` compares it with what was committed, `forks` judges how a block stands to the chain, `order`
//! keeps the rule of late events, `merged` puts them in their place, `page_writer` hands pages over.

mod again;
mod go_on;
mod quiet;
mod replay;
mod resumed;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::allowed_regions::AllowedRegions;
use super::block_chain::Chain;
pub(crate) use super::comparison::CommittedSource;
use super::comparison::{Comparison, Difference, Outcome};
use super::digest::{EventDigest, Tally};
use super::file_log::{FileLog, Gone};
use super::forks::{Named, Verdict, branches_in_order, judge, may_be_late, too_deep, warn_before_all, warn_of_doubt};
use super::order::{End, Late, Order};
pub(crate) use super::page_writer::FromReader;
use super::page_writer::{PageSink, PageWriter, Replay, Stop};
use super::refused::{Followed, is_headless, whole_block};
use super::skip_committed::{HeldBranch, Resume, Step};
pub(crate) use super::stats::ReadStats;
use super::{Next, RegionsConfig, Source, SourceConfig, SourceError, SourceEvent};
use crate::model::byte_budget::ByteBudget;
use crate::model::event::Refusal;
use crate::model::ids::{BlockNo, Depth};
use crate::model::position::Position;
use crate::model::quarantine::PUT_ASIDE_HINT;
use crate::model::source_progress::{SourceDigest, SourceFile, SourceProgress};
use crate::timeline::Recorder;
use crate::undo::Window;
use quiet::Quiet;
use resumed::AfterCommitted;

/// What the reader lets through.
pub(crate) struct ReadPlan {
    /// What the pipeline says of the source.
    pub(crate) source: SourceConfig,
    /// Which regions there are.
    pub(crate) regions: RegionsConfig,
    /// Blocks up to this one are committed already, the last one with this many events.
    pub(crate) done: Option<(BlockNo, u64)>,
    /// What of the source that is.
    pub(crate) committed: CommittedSource,
    /// The position after the last event of those blocks, if it is known.
    pub(crate) after: Option<Position>,
    /// What is known of those blocks.
    pub(crate) window: Window,
    /// `rollback.depth`.
    pub(crate) depth: Depth,
    /// The last block to let through.
    pub(crate) until: Option<BlockNo>,
    /// Regions that have their numbers already.
    pub(crate) known_regions: Vec<Arc<str>>,
    /// Whether events that cannot be read are put aside; else the first of them ends the run.
    pub(crate) puts_aside: bool,
    /// Whether every event that is committed was put aside.
    pub(crate) has_only_refused: bool,
}

/// The reader's state.
pub(crate) struct Reader {
    source: Box<dyn Source>,
    /// The position that the source is to resume after.
    after: AfterCommitted,
    /// The last block to let through.
    until: Option<BlockNo>,
    end: End,
    /// When the last block is whole although nothing follows it.
    quiet: Quiet,
    regions: AllowedRegions,
    order: Order,
    /// Blocks that are handed on or committed.
    chain: Chain,
    resume: Resume,
    tally: Tally,
    files: FileLog,
    comparison: Comparison,
    /// What no file that was read so far holds of what is committed: told when all were.
    remainder: Option<SourceFile>,
    /// Late events of the source are put in their place.
    is_merged: bool,
    /// Why it is to be read in its order.
    merged_since: Option<SourceError>,
    /// What was skipped is compared.
    is_compared: bool,
    /// Everything up to this block was handled before a replay.
    replayed_to: Option<BlockNo>,
    pages: PageWriter,
    /// How often the source was asked.
    turns: u64,
    stats: Arc<ReadStats>,
    /// The file that is being read was written anew: events up to this one may come again.
    again_to: Option<(BlockNo, Option<i64>)>,
    /// The file of which that was told.
    warned_again: Option<Arc<str>>,
    has_warned: bool,
    has_doubted: bool,
    has_warned_twice: bool,
    followed: Followed,
    puts_aside: bool,
    /// Events of block 0 that are committed, if all that is committed are events without a block.
    leading_done: u64,
}

impl Reader {
    pub(crate) fn new(
        source: Box<dyn Source>,
        plan: ReadPlan,
        pages: Sender<FromReader>,
        budget: Arc<ByteBudget>,
        stats: Arc<ReadStats>,
        recorder: Arc<Recorder>,
    ) -> Self {
        let leading_done = plan.done.filter(|(block, _)| plan.has_only_refused && block.get() == 0);
        let chain = match plan.done {
            Some((tip, _)) => Chain::of_store(&plan.window, tip, plan.depth),
            None => Chain::new(plan.depth),
        };
        stats.set_settle(plan.source.settle);
        let has_hashes = chain.tip().is_some_and(|tip| tip.hash.is_some());
        let mut committed = plan.committed;
        let (stored, tip) = (std::mem::take(&mut committed.files), committed.block);
        Self {
            files: FileLog::new(source.files(), stored, tip, has_hashes, (plan.source.late, plan.source.follow)),
            source,
            after: AfterCommitted::new(plan.after),
            until: plan.until,
            end: plan.source.end,
            quiet: Quiet::new(Arc::clone(&stats)),
            regions: AllowedRegions::new(plan.regions.ids),
            order: Order::new(plan.source.late, Arc::clone(&stats)),
            chain,
            resume: Resume::new(plan.done, committed.progress.place, plan.depth),
            tally: Tally::default(),
            comparison: Comparison::new(committed, plan.depth),
            remainder: None,
            is_merged: false,
            merged_since: None,
            is_compared: false,
            replayed_to: None,
            pages: PageWriter::new(
                PageSink { pages, budget, stats: Arc::clone(&stats), recorder },
                &plan.known_regions,
                plan.puts_aside,
            ),
            turns: 0,
            stats,
            again_to: None,
            warned_again: None,
            has_warned: false,
            has_doubted: false,
            has_warned_twice: false,
            followed: Followed::default(),
            puts_aside: plan.puts_aside,
            leading_done: leading_done.map_or(0, |(_, events)| events),
        }
    }

    /// Contract of the reader thread. In: a source. Out: pages of events whose order is checked, over a bounded
    /// channel and within a budget of bytes, and rollbacks in their place among them, and what was found out about the
    /// source; then `End` or `Failed`, once. Writes nothing. Ends: at the end of the source, at its first error, past the
    /// last block wanted, or when nobody takes pages any more.
    pub(crate) fn run(mut self) {
        self.pages.start();
        let last = loop {
            let read = self.read_all();
            self.stats.bytes.store(self.source.bytes_read(), Ordering::Relaxed);
            let stop = match read {
                Ok(is_open) => break FromReader::End { is_open },
                Err(Stop::Replay(replay)) => match self.replay(replay) {
                    Ok(()) => continue,
                    Err(stop) => stop,
                },
                Err(stop) => stop,
            };
            match stop {
                Stop::Gone => return,
                Stop::Failed(error) | Stop::Replay(Replay { why: error, .. }) => {
                    break FromReader::Failed { error, block: None };
                }
                Stop::Refused(error, block) => break FromReader::Failed { error, block: Some(block) },
            }
        };
        self.pages.note_busy();
        self.warn_of_late();
        if self.flush().is_ok() {
            // If the other side is gone, nobody wants to know.
            let _ = self.pages.send(last);
        }
    }

    /// Reads the source to its end; whether its last block may go on in another run.
    fn read_all(&mut self) -> Result<bool, Stop> {
        self.resume_source()?;
        self.leave_out_files()?;
        let mut event = SourceEvent::default();
        loop {
            let is_ready = self.source.is_ready();
            self.note_turn(is_ready);
            if !is_ready {
                self.settle(false)?;
            }
            if !is_ready || self.pages.is_full() {
                self.pages.note_busy();
                self.flush()?;
            }
            let next = self.source.next(&mut event);
            let mut next = next.map_err(|error| Stop::at(self.chain.tip(), error))?;
            if let (Next::Event, Some(block)) = (next, whole_block(&event)) {
                next = Next::Whole { block: block.get() };
            }
            match next {
                Next::Pending if self.wait()? => return self.end(true).map(|()| false),
                Next::Pending => {}
                Next::Whole { block } if self.take_whole(block.into())? => {
                    self.tell_state(true)?;
                    return self.end(true).map(|()| false);
                }
                Next::Whole { .. } => {}
                Next::End => {
                    self.end(false)?;
                    self.tell_remainder()?;
                    return Ok(self.end == End::Open);
                }
                Next::Event if self.goes_on_behind(&event) && !self.has_block(&mut event)? => {}
                Next::Event if self.until.is_some_and(|until| event.block > until.get()) => {
                    return self.end(true).map(|()| false);
                }
                Next::Event => {
                    self.followed.place(&mut event);
                    if self.followed.is_waiting() && !is_headless(&event) {
                        self.take_waiting(&event)?;
                    }
                    self.take(&event, self.source.file())?;
                    self.files.note_place(|| self.source.place());
                }
                Next::Rollback { to } => self.rolled_back(to.into())?,
            }
        }
    }

    /// Puts an event that cannot be read into its block. One without a block of its own has to wait for the next event if
    /// there is none before it, or if the last committed block has no more of them.
    fn has_block(&mut self, event: &mut SourceEvent) -> Result<bool, Stop> {
        if !is_headless(event) {
            return Ok(true);
        }
        let is_placed = self.followed.place(event);
        if is_placed && !self.resume.is_beyond(event) && self.order.whole_to(event).is_none() {
            return Ok(true);
        }
        if !self.puts_aside && (is_placed || self.resume.is_past()) {
            return Err(Stop::Failed(refusal_of(event, error_of(event))));
        }
        self.followed.wait(event, self.source.file())?;
        Ok(false)
    }

    /// Takes the events that waited for this one: they are of its block.
    fn take_waiting(&mut self, next: &SourceEvent) -> Result<(), Stop> {
        let events = self.followed.take_waiting(next, self.leading_done);
        events.iter().try_for_each(|(event, file)| self.take(event, *file))
    }

    /// Takes one event of the file of that place: leaves it out if it is committed already, else hands it on.
    fn take(&mut self, event: &SourceEvent, file: Option<usize>) -> Result<(), Stop> {
        if event.block == i64::MIN {
            return Err(
                SourceError::of_event(event, format!("block {}: no block is as small as that", i64::MIN)).into()
            );
        }
        if self.quiet.end() {
            self.pages.end_idle(Instant::now());
        }
        if self.files.is_other(event) {
            self.begin_file(event, file)?;
        }
        if let Some(to) = self.replayed_to {
            if event.block <= to.get() {
                self.order.note(event);
                self.count(event);
                return Ok(());
            }
            self.replayed_to = None;
        }
        if !self.resume.is_past() {
            let step = self.resume.take(event, &self.chain, &mut self.order, &self.tally)?;
            self.follow_back();
            match step {
                Step::Kept => {
                    let digest = self.count(event);
                    self.comparison.pass(event, digest);
                    self.note_committed(event);
                    self.take_known();
                    let branch = self.resume.take_decided(event.block.into());
                    return branch.map_or(Ok(()), |branch| self.switch_to(branch));
                }
                Step::Late => {
                    self.leave_out_line(event);
                    self.take_known();
                    return Ok(());
                }
                Step::Past => self.finish_skipping(Some(event))?,
            }
        }
        self.go_on(event)
    }

    fn begin_file(&mut self, event: &SourceEvent, at: Option<usize>) -> Result<(), Stop> {
        self.end_file()?;
        if !self.files.left_out().is_empty() {
            self.go_on_behind(at);
        }
        self.begin_again();
        self.files.begin(at, event);
        let begun = self.files.begun();
        if begun.is_empty() { Ok(()) } else { self.tell(None, begun) }
    }

    /// Ends the file that was read last.
    fn end_file(&mut self) -> Result<(), Stop> {
        let is_clear = !self.order.has_stepped_back();
        self.files.learn(|| self.source.files());
        let Some(read) = self.files.end(self.tally.events(), is_clear)? else { return Ok(()) };
        if !self.resume.is_past() {
            self.files.keep(read);
            return Ok(());
        }
        match read.known.as_ref() == Some(&read.file) {
            true => Ok(()),
            false => self.tell(None, vec![read.file]),
        }
    }

    /// Tells what was found out about the source.
    fn tell(&mut self, progress: Option<SourceProgress>, files: Vec<SourceFile>) -> Result<(), Stop> {
        self.flush()?;
        let position = self.after.take_new();
        self.pages.send(FromReader::Source { progress, position, files })
    }

    /// Takes in that the source has abandoned blocks that it had given.
    fn follow_back(&mut self) {
        let Some(to) = self.resume.take_went_back() else { return };
        self.tally = Tally::default();
        self.files.undo();
        match to {
            Some(to) => self.comparison.go_back(to),
            None => {
                tracing::warn!(
                    "the source goes back to before the block that it began with: what it gave before that is not \
                     compared with what is committed"
                );
                self.comparison.lose();
            }
        }
    }

    /// Of lines that were stored counts what counted then.
    fn take_known(&mut self) {
        if let Some(known) = self.files.take_known() {
            self.order.take_back_late(known.not_late);
            self.comparison.replace(known);
        }
    }

    fn leave_out_line(&mut self, event: &SourceEvent) {
        self.files.add_late(event);
    }

    /// Everything from here on lies after what is committed: compares what was skipped. `event` is the first one that
    /// follows, none at the end of the source.
    fn finish_skipping(&mut self, event: Option<&SourceEvent>) -> Result<(), Stop> {
        let has_seen = self.comparison.has_seen();
        let is_linked = self.resume.finish();
        self.chain.learn(is_linked);
        if self.after.has_resumed() {
            return Ok(());
        }
        if let Some(event) = event.filter(|_| !has_seen) {
            self.warn_of_gap(event);
        }
        match self.comparison.committed().block.filter(|_| has_seen) {
            Some(tip) => self.compare(tip),
            None => {
                let is_complete = self.comparison.is_complete_without(&self.files);
                self.tell_ended(None, if is_complete { Gone::Counts } else { Gone::Unknown }, true)
            }
        }
    }

    /// Says that the source begins behind what is committed, if nothing says that it goes on there.
    fn warn_of_gap(&self, event: &SourceEvent) {
        let Some(tip) = self.chain.tip() else { return };
        let is_next = event.block.checked_sub(1) == Some(tip.block.get());
        let is_child = event.parent.is_some() && event.parent.as_deref() == tip.hash.as_deref();
        if event.block > tip.block.get() && !is_next && !is_child {
            tracing::warn!(
                "{}:{}: the source begins with block {}, and block {} is committed: if there were events between them, they \
                 are missing",
                event.origin,
                event.line,
                event.block,
                tip.block
            );
        }
    }

    /// Compares what was skipped with what is committed up to block `to`.
    fn compare(&mut self, to: BlockNo) -> Result<(), Stop> {
        self.is_compared = true;
        let is_all = self.comparison.committed().block.is_some_and(|tip| tip <= to);
        let found = match self.comparison.compare(to, &self.files) {
            Outcome::Same => Vec::new(),
            Outcome::Different(found) => found,
        };
        if found.is_empty() {
            let learned = self.comparison.learned();
            if is_all {
                self.after.learn();
            }
            return self.tell_ended(learned, self.comparison.gone(), is_all);
        }
        match self.order.rule() {
            Late::Skip => {
                for difference in &found {
                    tracing::warn!("{difference}; what is committed stays as it is (late = \"skip\")");
                    self.order.count_late(difference.late.max(1));
                }
                self.files.accept(&found.iter().filter_map(Difference::late_file).collect::<Vec<_>>());
                self.tell_ended(None, self.comparison.gone(), is_all)
            }
            Late::Replay => self.replay_from(to, found),
            Late::Error => Err(found.into_iter().next().map_or(Stop::Gone, |first| first.into_error().into())),
        }
    }

    /// Tells what is to be stored of the files that ended while events were skipped. `is_all`: they were compared with all
    /// that is committed, or whatever they lack is accepted.
    fn tell_ended(&mut self, learned: Option<SourceProgress>, gone: Gone, is_all: bool) -> Result<(), Stop> {
        let stored = self.files.stored().filter(|_| is_all && gone == Gone::Unknown);
        let left = stored.and_then(|stored| self.comparison.remainder(stored));
        let gone = if left.is_some() { Gone::Counts } else { gone };
        let files = self.files.take_ended(gone);
        self.remainder = left.and_then(|left| self.files.remainder(left, self.comparison.blocks_before()));
        if files.is_empty() && learned.is_none() && !self.after.is_new() {
            return Ok(());
        }
        self.tell(learned, files)
    }

    /// Tells what is committed beside what the files hold. A file behind might have held it, and asked for a replay.
    fn tell_remainder(&mut self) -> Result<(), Stop> {
        self.remainder.take().map_or(Ok(()), |left| self.tell(None, vec![left]))
    }

    /// Takes an event that lies after what is committed.
    fn go_on(&mut self, event: &SourceEvent) -> Result<(), Stop> {
        if let Some(closed) = self.order.closed_to(event) {
            return self.order.late_after_rollback(event, closed);
        }
        if self.came_again(event) {
            self.leave_out_line(event);
            return Ok(());
        }
        if !(self.follow(event)?
            && self.is_open(event)?
            && self.order.is_in_place(event, || self.tally.holds(event))?)
        {
            self.leave_out_line(event);
            self.take_known();
            return Ok(());
        }
        self.order.note(event);
        if self.tally.ends_before(event) {
            self.warn_twice();
        }
        let digest = self.count(event);
        self.hand_on(event, digest.sum)
    }

    /// Counts an event of its block and its file.
    fn count(&mut self, event: &SourceEvent) -> EventDigest {
        if self.tally.ends_before(event) {
            self.files.end_block(self.tally.events());
        }
        let digest = self.tally.pass(event);
        self.files.add(event, digest);
        digest
    }

    /// Says that a block was the same twice over: without places we cannot know whether it was delivered twice.
    fn warn_twice(&mut self) {
        if let Some(block) = self.tally.came_twice()
            && !std::mem::replace(&mut self.has_warned_twice, true)
        {
            tracing::warn!(
                "block {block} holds the same events twice over, byte for byte, and all of them count; if it was delivered \
                 twice, give each event a place ([source] seq), so that it counts once"
            );
        }
    }

    /// Hands an event on to its lane; or, if it cannot be handled, past the lanes.
    fn hand_on(&mut self, event: &SourceEvent, sum: SourceDigest) -> Result<(), Stop> {
        let error = match &event.refused {
            None => match self.regions.check(&event.region) {
                Ok(()) => return self.pages.push(event, sum, &*self.source),
                Err(error) => error,
            },
            Some(refused) => refused.error.clone(),
        };
        if !self.puts_aside {
            return Err(Stop::Refused(refusal_of(event, error), event.block.into()));
        }
        let has_region = event.refused.as_ref().is_none_or(|refused| refused.has_region);
        let region = has_region.then(|| Arc::from(event.region.as_str()));
        self.pages.push_refused(event, Refusal { error, region }, sum, &*self.source)
    }

    /// Follows the source to the block of an event, on another branch too; false if the place of the block has passed.
    fn follow(&mut self, event: &SourceEvent) -> Result<bool, Stop> {
        let named = Named::of(event);
        match judge(&self.chain, named) {
            Verdict::Same => return Ok(true),
            Verdict::Next { links_gap } => self.chain.learn(links_gap),
            Verdict::Late => return self.leave_out(event),
            Verdict::Fork { .. } if self.is_merged => return Err(branches_in_order(event).into()),
            Verdict::Fork { to } if self.chain.allows(to) => {
                if let Some(tip) = self.chain.tip().filter(|_| may_be_late(&self.chain, named)).map(|tip| tip.block) {
                    self.warn_of_doubt(event, tip, to);
                }
                self.chain.leave(to, named.block);
                self.roll_back(to)?;
            }
            Verdict::Fork { .. } => {
                return Err(too_deep(&self.chain, event, self.chain.beside(named.block)).into());
            }
            Verdict::Unreachable(_) if self.order.leaves_out() && self.chain.begins_after(named.block) => {
                if !std::mem::replace(&mut self.has_warned, true) {
                    warn_before_all(event);
                }
                return self.leave_out(event);
            }
            Verdict::Unreachable(held) => return Err(too_deep(&self.chain, event, held.as_ref()).into()),
        }
        if let Some(first) = self.chain.no_branch(named.block, named.hash) {
            return Err(self.order.no_branch(event, first));
        }
        self.chain.push(named.block, named.hash, named.parent);
        Ok(true)
    }

    /// Warns of the first branch that may be none.
    fn warn_of_doubt(&mut self, event: &SourceEvent, tip: BlockNo, to: BlockNo) {
        if !std::mem::replace(&mut self.has_doubted, true) {
            warn_of_doubt(event, tip, to);
        }
    }

    /// Leaves out an event of a block whose place has passed.
    fn leave_out(&mut self, event: &SourceEvent) -> Result<bool, Stop> {
        let is_blind = event.hash.is_some() && self.chain.is_blind_at(event.block.into());
        self.order.late_block(event, is_blind)?;
        Ok(false)
    }

    /// Decides for the branch that is held, since nothing more comes for now; at the end also for one that cannot be
    /// followed.
    fn settle(&mut self, is_end: bool) -> Result<(), Stop> {
        let branch = self.resume.take_settled(is_end);
        branch.map_or(Ok(()), |branch| self.switch_to(branch))
    }

    /// The source has ended, or what is wanted of it (`is_until`).
    fn end(&mut self, is_until: bool) -> Result<(), Stop> {
        if is_until {
            let next = self.source.file();
            if next == self.files.last_at() {
                // The rest of the file is read by another run.
                self.files.leave_rest();
            } else {
                self.end_file()?;
            }
            self.go_on_behind(next);
        } else {
            self.take_last()?;
            self.end_file()?;
            self.warn_twice();
            self.go_on_behind(None);
        }
        self.settle(true)?;
        if self.resume.is_past() {
            return Ok(());
        }
        if self.resume.has_reached_end() {
            return self.finish_skipping(None);
        }
        self.end_before_committed(is_until)
    }

    /// Takes the events without a block that waited for another one.
    fn take_last(&mut self) -> Result<(), Stop> {
        let (events, left) = self.followed.take_last(self.leading_done);
        events.iter().try_for_each(|(event, file)| self.take(event, *file))?;
        if left > 0 {
            // Their file is read again, until they are put aside.
            self.files.undo();
            tracing::warn!(
                "the source ends with lines that cannot be read ({left}), behind its last committed block: they are put \
                 aside with the next event"
            );
        }
        Ok(())
    }

    /// The source has ended before what is committed does.
    fn end_before_committed(&mut self, is_until: bool) -> Result<(), Stop> {
        let Some(tip) = self.comparison.committed().block.filter(|_| !is_until && !self.after.has_resumed()) else {
            return Ok(());
        };
        if self.comparison.is_complete_without(&self.files) {
            return self.tell_ended(None, Gone::Counts, true);
        }
        let Some(last) = self.comparison.last() else {
            tracing::warn!("the source holds no event, and block {tip} is committed");
            return Ok(());
        };
        tracing::warn!(
            "the source ends with block {last}, and block {tip} is committed: it is not the whole source any more"
        );
        self.compare(last)
    }

    /// Switches to the branch that was held.
    fn switch_to(&mut self, branch: HeldBranch) -> Result<(), Stop> {
        let (to, events) = branch.open()?;
        if let Some(first) = events.first().filter(|_| self.is_merged) {
            return Err(branches_in_order(first).into());
        }
        if let Some((first, tip)) = events.first().zip(self.chain.tip().map(|tip| tip.block))
            && may_be_late(&self.chain, Named::of(first))
        {
            self.warn_of_doubt(first, tip, to);
        }
        self.compare(to)?;
        self.roll_back(to)?;
        events.iter().try_for_each(|event| self.go_on(event))
    }

    /// The source itself says that the blocks after `to` no longer count.
    fn rolled_back(&mut self, to: BlockNo) -> Result<(), Stop> {
        if self.resume.rolled_back(to) {
            self.follow_back();
            self.order.forget_last();
            return Ok(());
        }
        if self.chain.tip().is_none_or(|tip| tip.block <= to) {
            return Ok(());
        }
        self.roll_back(to)?;
        self.order.close(to);
        Ok(())
    }

    /// Has the blocks after `to` undone.
    fn roll_back(&mut self, to: BlockNo) -> Result<(), Stop> {
        self.flush()?;
        self.chain.truncate(to);
        self.order.start_afresh();
        self.tally = Tally::default();
        self.files.undo();
        let is_kept = self.comparison.committed().block.is_none_or(|tip| tip <= to);
        self.remainder = self.remainder.take().filter(|_| is_kept);
        self.pages.send(FromReader::Rollback { to, is_replay: self.is_merged })
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.pages.flush(&*self.source)
    }
}

fn error_of(event: &SourceEvent) -> String {
    event.refused.as_ref().map_or_else(String::new, |refused| refused.error.clone())
}

/// The error of an event that ends the run because it cannot be handled.
fn refusal_of(event: &SourceEvent, error: String) -> SourceError {
    SourceError::of_event(event, format!("{error}\n  {PUT_ASIDE_HINT}"))
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::super::Resumed;
    use super::*;
    use crate::model::checkpoint::Checkpoint;
    use crate::undo::{BlockMark, UndoBase, UndoHead, record};

    /// What a source gives: block, hash and parent (empty: not known), or a rollback of its own.
    #[derive(Clone, Copy)]
    enum Given {
        Event(i64, &'static str, &'static str),
        Back(i64),
        /// Nothing is there for now.
        Pause,
        /// An event without a position.
        Blind(i64),
    }
    use Given::{Back, Blind, Event, Pause};

    /// A source of these steps. A position is the number of steps before it.
    struct Script {
        steps: Vec<Given>,
        at: usize,
        /// Whether it can go on after a position.
        is_log: bool,
    }

    impl Source for Script {
        fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
            let known = |hash: &str| Some(hash.to_owned()).filter(|hash| !hash.is_empty());
            while let Some(step) = self.steps.get(self.at) {
                self.at += 1;
                match *step {
                    Event(block, hash, parent) => {
                        (event.block, event.hash, event.parent) = (block, known(hash), known(parent));
                        event.region.replace_range(.., "r");
                        event.json.replace_range(.., "{}");
                        event.set_position(&self.at.to_string())?;
                        return Ok(Next::Event);
                    }
                    Blind(block) => {
                        (event.block, event.hash, event.parent, event.position) = (block, None, None, None);
                        return Ok(Next::Event);
                    }
                    Back(to) => return Ok(Next::Rollback { to }),
                    Pause => {}
                }
            }
            Ok(Next::End)
        }

        fn is_ready(&self) -> bool {
            !matches!(self.steps.get(self.at), Some(Pause))
        }

        fn resume(&mut self, after: &Position) -> Result<Resumed, SourceError> {
            if !self.is_log {
                return Ok(Resumed::FromStart);
            }
            let at = after.as_str().parse().ok().filter(|at| *at <= self.steps.len());
            self.at = at.ok_or_else(|| SourceError::Other(format!("no position of this script: {after}")))?;
            Ok(Resumed::After)
        }
    }

    /// The window of a store that has these blocks, one event each, and none before them.
    fn window(blocks: &[(i64, &str)], depth: u64) -> (Window, Option<(BlockNo, u64)>) {
        let mark = |(block, hash): &(i64, &str)| BlockMark {
            block: BlockNo::new(*block),
            events: 1,
            hash: Some(Arc::from(*hash)),
            sum: None,
            place: None,
            position: None,
        };
        let blocks: Vec<BlockMark> = blocks.iter().map(mark).collect();
        let Some(last) = blocks.last().map(|last| last.block.get()) else { return (Window::default(), None) };
        let counts = blocks.len() as u64;
        let head = UndoHead { base: UndoBase::default(), blocks, touches: Vec::new() };
        let checkpoint = Checkpoint { batch: 1, block: Some(last), block_events: 1, blocks: counts, events: counts };
        let records = [record(1, 0, Some(last), &head, Vec::new())];
        (Window::new(checkpoint, depth.into(), &records).expect("a window"), Some((last.into(), 1)))
    }

    fn plan(blocks: &[(i64, &str)], depth: u64) -> ReadPlan {
        let (window, done) = window(blocks, depth);
        let depth = depth.into();
        ReadPlan {
            source: SourceConfig::default(),
            regions: RegionsConfig::default(),
            done,
            committed: CommittedSource::default(),
            after: None,
            window,
            depth,
            until: None,
            known_regions: Vec::new(),
            puts_aside: false,
            has_only_refused: false,
        }
    }

    fn messages(plan: ReadPlan, source: impl Source + 'static) -> Vec<FromReader> {
        let (sender, pages) = bounded(64);
        let (budget, stats) = (ByteBudget::new(1 << 20), Arc::default());
        Reader::new(Box::new(source), plan, sender, budget, stats, Recorder::new(0)).run();
        pages.iter().collect()
    }

    /// What the reader sends, in words: the blocks of its events, rollbacks, and how it ends.
    fn read(plan: ReadPlan, source: impl Source + 'static) -> String {
        let said = messages(plan, source).into_iter().filter_map(|message| match message {
            FromReader::Page(page) => {
                Some(page.events.iter().map(|event| event.block.to_string()).collect::<Vec<_>>().join(" "))
            }
            FromReader::Rollback { to, .. } => Some(format!("back to {to}")),
            FromReader::Source { .. } => None,
            FromReader::Whole { block } => Some(format!("{block} is whole")),
            FromReader::Idle => Some("idle".into()),
            FromReader::End { .. } => Some("end".into()),
            FromReader::Failed { error, .. } => Some(error.to_string()),
        });
        said.collect::<Vec<_>>().join(", ")
    }

    fn script(steps: &[Given]) -> Script {
        Script { steps: steps.to_vec(), at: 0, is_log: false }
    }

    const A: Given = Event(1, "a", "z");
    const B: Given = Event(2, "b", "a");
    const C: Given = Event(3, "c", "b");
    const D: Given = Event(4, "d", "c");
    const C2: Given = Event(3, "c2", "b");
    const D2: Given = Event(4, "d2", "c2");
    const E2: Given = Event(5, "e2", "d2");
    const BLOCKS: &[(i64, &str)] = &[(1, "a"), (2, "b"), (3, "c")];

    #[test]
    fn a_fork_is_a_rollback_in_its_place_among_the_pages() {
        for (steps, said) in [
            (&[A, B, C, D][..], "1 2 3 4, end"),
            (&[A, B, C, C2, D2], "1 2 3, back to 2, 3 4, end"),
            (&[A, B, C, C2, C, D], "1 2 3, back to 2, 3, back to 2, 3 4, end"),
            (&[A, B, Back(1), Event(2, "b2", "a")], "1 2, back to 1, 2, end"),
            (&[A, Back(1), B], "1 2, end"),
        ] {
            assert_eq!(read(plan(&[], 10), script(steps)), said);
        }
        let closed = read(plan(&[], 10), script(&[A, B, Back(1), Event(1, "a", "z")]));
        assert_eq!(closed, "1 2, back to 1, source: block 1 comes after a rollback to block 1");
    }

    #[test]
    fn what_is_committed_is_left_out_and_a_branch_that_was_left_again_too() {
        for (steps, said) in [
            (&[A, B, C][..], "end"),
            (&[A, B, C, D], "4, end"),
            (&[C, D], "4, end"),
            (&[D], "4, end"),
            (&[A, B, C2, D2, C, D], "4, end"),
            (&[A, B, C2, Back(2), C, D], "4, end"),
            (&[A, B, C, Back(2), C2], "back to 2, 3, end"),
            // Without hashes by their numbers alone.
            (&[Event(2, "", ""), Event(3, "", ""), Event(4, "", "")], "4, end"),
        ] {
            assert_eq!(read(plan(BLOCKS, 10), script(steps)), said);
        }
        let more = read(plan(BLOCKS, 10), script(&[A, B, C, C]));
        assert!(
            more.starts_with("source: block 3 was committed with 1 of its events, and the source now has"),
            "{more}"
        );
    }

    #[test]
    fn a_branch_that_the_source_stays_on_is_switched_to() {
        for (depth, steps, said) in [
            // At the end of the source, at a pause, and when it is longer than a rollback can go.
            (10, &[A, B, C2, D2][..], "back to 2, 3 4, end"),
            (10, &[A, B, C2, Pause, D2], "back to 2, 3, 4, end"),
            (2, &[A, B, C2, D2, E2, Back(4)], "back to 2, 3 4 5, back to 4, end"),
            (3, &[A, B, C2, D2, E2, Back(4)], "back to 2, 3 4, end"),
            // It is left again before that.
            (10, &[A, B, C2, D2, C, Pause, D], "4, end"),
        ] {
            assert_eq!(read(plan(BLOCKS, depth), script(steps)), said);
        }
        // It leaves before the first block of all.
        const BEFORE: Given = Event(0, "z2", "y");
        for (steps, said) in [
            (&[A, B, C, BEFORE, Event(1, "a2", "z2")][..], "back to -1, 0 1, end"),
            (&[A, B, C, BEFORE], "back to -1, 0, end"),
            (&[A, B, C, Event(1, "a2", "z"), D2], "back to 0, 1 4, end"),
        ] {
            assert_eq!(read(plan(BLOCKS, 10), script(steps)), said);
        }
        for steps in [&[A, Event(2, "b2", "a"), Event(3, "c2", "b2")][..], &[Event(1, "a2", "z")]] {
            let refused = read(plan(BLOCKS, 1), script(steps));
            assert!(refused.starts_with("source: a fork that cannot be followed: block "), "{refused}");
        }
    }

    #[test]
    fn a_source_resumes_after_the_position_of_the_checkpoint_if_it_can() {
        // Of the blocks that are committed nothing is seen again, so what they were in the script does not matter.
        const OTHER: Given = Event(2, "other", "z");
        let after = |position: &str| Some(Position::new(position).expect("a position"));
        for (is_log, steps, said) in [
            (true, &[OTHER, OTHER, OTHER, D][..], "4, end"),
            (true, &[OTHER, OTHER, OTHER], "end"),
            // A fork is followed at once.
            (true, &[OTHER, OTHER, OTHER, C2, D2, Pause], "back to 2, 3 4, end"),
            (true, &[OTHER, OTHER, OTHER, Event(4, "d2", "b"), Pause], "back to 2, 4, end"),
            (true, &[OTHER, OTHER, OTHER, Back(1), Event(2, "b2", "a")], "back to 1, 2, end"),
            (true, &[OTHER, OTHER, OTHER, Event(9, "", "")], "9, end"),
            // One that cannot begins at its beginning, and what is committed is left out.
            (false, &[A, B, C, D], "4, end"),
        ] {
            let plan = ReadPlan { after: after("3"), ..plan(BLOCKS, 10) };
            assert_eq!(read(plan, Script { is_log, ..script(steps) }), said);
        }
        for (position, said) in [
            ("2", "source: block 3 was committed with 1 of its events, and the source now has more of it"),
            ("1", "source: block 2 comes after block 2; blocks must not decrease"),
            ("9", "no position of this script: 9"),
        ] {
            let plan = ReadPlan { after: after(position), ..plan(BLOCKS, 10) };
            let refused = read(plan, Script { is_log: true, ..script(&[A, B, C, D]) });
            assert!(refused.starts_with(said), "{refused}");
        }
    }

    #[test]
    fn a_page_has_the_last_position_of_each_of_its_blocks() {
        let steps = [A, B, B, Pause, B, C, C2, Pause, Blind(3), Blind(4), Event(4, "", ""), Blind(4)];
        let sent = messages(plan(&[], 10), script(&steps));
        let at = |position: &Option<Position>| position.as_ref().map_or("?", Position::as_str).to_owned();
        let positions = sent.iter().filter_map(|message| match message {
            FromReader::Page(page) => Some(
                page.positions
                    .iter()
                    .map(|(block, after)| format!("{block}@{}", at(after)))
                    .collect::<Vec<_>>()
                    .join(" "),
            ),
            _ => None,
        });
        assert_eq!(positions.collect::<Vec<_>>(), ["1@1 2@3", "2@5 3@6", "3@7", "3@? 4@?"]);
    }

    #[test]
    fn where_all_is_the_same_the_position_after_it_is_told_unless_it_is_stored() {
        let committed = || CommittedSource { block: Some(BlockNo::new(3)), events: 3, ..CommittedSource::default() };
        for (stored, steps, told) in [
            (None, &[A, B, C, D][..], Some("3")),
            (Some("9"), &[A, B, C], Some("3")),
            (Some("3"), &[A, B, C, D], None),
            // What is committed was left again meanwhile.
            (None, &[A, B, C2, C, D], Some("4")),
            (None, &[Blind(1), Blind(2), Blind(3), Blind(4)], None),
        ] {
            let after = stored.map(|stored| Position::new(stored).expect("a position"));
            let plan = ReadPlan { after, committed: committed(), ..plan(BLOCKS, 10) };
            let positions = messages(plan, script(steps)).into_iter().filter_map(|message| match message {
                FromReader::Source { position, .. } => position,
                _ => None,
            });
            assert_eq!(positions.map(|position| position.to_string()).next().as_deref(), told, "{stored:?}");
        }
    }

    #[test]
    fn more_of_the_last_block_behind_its_position_is_no_part_of_what_is_committed() {
        let after = || Some(Position::new("3").expect("a position"));
        for (late, said) in [
            (Late::Error, "source: block 3 was committed with 1 of its events, and the source now has more of it"),
            (Late::Skip, "4, end"),
            (Late::Replay, "late = \"replay\" cannot handle it: the source cannot be read again"),
        ] {
            let source = SourceConfig { late, ..SourceConfig::default() };
            let plan = ReadPlan { source, after: after(), ..plan(BLOCKS, 10) };
            let read = read(plan, Script { is_log: true, ..script(&[A, B, C, C, D]) });
            assert!(read.contains(said), "{late:?}: {read}");
        }
    }

    #[test]
    fn nothing_after_the_last_block_wanted_is_let_through() {
        let plan = ReadPlan { until: Some(BlockNo::new(2)), ..plan(&[], 10) };
        assert_eq!(read(plan, script(&[A, B, C, Event(9, "", "")])), "1 2, end");
    }

    #[test]
    fn a_region_that_is_not_in_the_list_is_refused() {
        let regions = RegionsConfig::default().with_ids(["east", "west"]).expect("a list of regions");
        let plan = ReadPlan { regions, ..plan(&[], 10) };
        let refused = read(plan, script(&[A]));
        let said = "source: region \"r\" is not in [regions] ids; expected one of east, west";
        assert_eq!(refused, format!("{said}\n  {PUT_ASIDE_HINT}"));
    }
}
