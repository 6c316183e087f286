//! The loop of the handler thread: takes pages, runs rounds of lanes, seals batches, hands them to the commit thread.
//!
//! Each part of its state is a type that owns its fields: [`OpenBatch`], [`InFlight`], [`MemoryBudget`],
//! [`SealPolicy`], [`SnapshotDuty`], [`Meter`]. This file only decides the order in which they are asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::engines::{EnginePool, Job};
use super::error::{PipelineError, QuarantineFull};
use super::event_queue::{EventQueue, RoundLimits, Taken};
use super::event_time::EventTime;
use super::hooks::Hooks;
use super::in_flight::InFlight;
use super::kept::KeptEvents;
use super::memory::{MemoryBudget, Relief, Usage};
use super::meter::{Memory, Meter, Phase, RollbackCause, RunPhase};
use super::reload::{Reloading, Settings};
use super::report::Rollback;
use super::seal_policy::{CommitState, Decision, OpenState, SealPolicy};
use super::sealing::{SealRequest, Sealer};
use super::snapshot_duty::{SnapshotDuty, Snapshots};
use crate::batch::open::{OpenBatch, Upcoming, WholeBlocks};
use crate::batch::round::LaneBlocks;
use crate::commit::{RolledBack, StoreCommitter};
use crate::lane::{Assignment, Engine, EventAt, FailedEvent, LaneError, Round};
use crate::model::byte_budget::ByteBudget;
use crate::model::ids::{BlockNo, Depth, RegionNo};
use crate::model::limits::{LINGER, WAIT_STEP, read_ahead_bytes, round_bytes};
use crate::model::quarantine::Quarantined;
use crate::source::SourceError;
use crate::source::reader::FromReader;
use crate::store::StoreError;
use crate::undo::{RegionUndo, UndoBase, UndoError};

/// How long a part of a block waits for the rest before we check whether the reader is waiting for room.
const PART_STEP: Duration = Duration::from_millis(2);

/// How long a source that has nothing for now is waited for until we look whether the run is to stop.
const IDLE_STEP: Duration = Duration::from_millis(200);

/// What stays the same for the whole run.
pub(super) struct CoordinatorPlan {
    pub(super) depth: Depth,
    pub(super) memory_bytes: u64,
    /// The region in which every event also runs.
    pub(super) all: Option<RegionNo>,
    pub(super) sealer: Sealer,
    /// A rollback that the caller asked for, in place of events.
    pub(super) rollback: Option<BlockNo>,
    /// Events in quarantine at most.
    pub(super) quarantine_max: u64,
}

/// Where events come from.
pub(super) struct Incoming {
    pub(super) pages: Receiver<FromReader>,
    /// The budget of what is read ahead.
    pub(super) budget: Arc<ByteBudget>,
    /// Names of the regions that have numbers already.
    pub(super) regions: Vec<Arc<str>>,
    /// Bytes of those names.
    pub(super) region_name_bytes: usize,
}

impl Incoming {
    /// What comes over a channel, within a budget.
    pub(super) fn new(pages: Receiver<FromReader>, budget: Arc<ByteBudget>, regions: Vec<Arc<str>>) -> Self {
        Self { pages, budget, region_name_bytes: regions.iter().map(|name| name.len()).sum(), regions }
    }
}

/// What is noted of each region for as long as the run lasts, beside the letters of its name: its number by its name in the
/// reader, its engine, its events.
const REGION_BYTES: usize = 128;

/// What a run leaves beside the numbers of its [`Meter`].
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) rollbacks: Vec<Rollback>,
    /// Events of each region, by its number.
    pub(super) region_events: Vec<u64>,
    pub(super) was_stopped: bool,
}

/// Whether a run whose source has nothing for now, and that has committed all up to this block, is to end.
pub(super) type IsFar<'f> = dyn FnMut(Option<i64>) -> Result<bool, StoreError> + 'f;

/// The parts of a run, wired.
pub(super) struct Coordinator<'h, 'f> {
    pub(super) plan: CoordinatorPlan,
    pub(super) incoming: Incoming,
    pub(super) queue: EventQueue,
    pub(super) engines: EnginePool,
    pub(super) assignment: Assignment,
    pub(super) open: OpenBatch,
    /// What the engines took when the open batch began.
    pub(super) engines_at_open: usize,
    pub(super) in_flight: InFlight,
    pub(super) memory: MemoryBudget,
    pub(super) policy: SealPolicy,
    pub(super) duty: SnapshotDuty,
    pub(super) meter: Meter,
    pub(super) hooks: Hooks<'h>,
    /// Asked when the source has nothing for now.
    pub(super) is_far: Option<&'f mut IsFar<'f>>,
    /// Events of the next round at most.
    pub(super) round_events: usize,
    /// The files that events have come from, by number.
    pub(super) origins: Arc<Vec<Arc<str>>>,
    pub(super) outcome: Outcome,
    /// The events of the open batch.
    pub(super) kept: KeptEvents,
    /// Events in quarantine before the open batch.
    pub(super) quarantined: u64,
    /// The block of the event at which the source failed.
    pub(super) failed_block: Option<BlockNo>,
    /// Where events have their time, if it is to be known.
    pub(super) event_time: Option<EventTime>,
    /// Why the rollback that is due is.
    pub(super) rollback_cause: RollbackCause,
    pub(super) reloading: Reloading,
}

impl Coordinator<'_, '_> {
    /// Contract of the handler thread. In: pages and rollbacks, over a bounded channel. Out: sealed batches and
    /// rollback orders, to the commit thread, in order. Writes nothing itself. Ends: at the end of the source or when
    /// it is stopped, after everything handed over has committed; or at the first error, after what was handed over
    /// before it has ended. Returns the committer, which holds the pipeline's lock, if nothing is in flight any more.
    pub(super) fn run(mut self) -> (Result<Outcome, PipelineError>, Option<StoreCommitter>) {
        if let Some(to) = self.plan.rollback {
            self.queue.push_rollback(to);
        }
        self.meter.begin_loop();
        let ended = self.run_to_end();
        self.meter.enter(RunPhase::Draining);
        let waiting_since = Instant::now();
        let drained = self.in_flight.drain(&mut self.hooks);
        self.meter.finish(self.open.number(), waiting_since, self.in_flight.commit_busy());
        self.meter.end_loop();
        self.outcome.was_stopped = self.in_flight.is_stopped();
        let committer = match &drained {
            Err(PipelineError::DrainTimeout(_)) => None,
            _ => self.in_flight.finish(),
        };
        let ended = match (ended, drained) {
            (Ok(()), Ok(())) => Ok(self.outcome),
            // A commit's error comes first: a lane's failure may be a consequence of it.
            (_, Err(error)) | (Err(error), Ok(())) => Err(error),
        };
        (ended, committer)
    }

    fn run_to_end(&mut self) -> Result<(), PipelineError> {
        match self.duty.at_start() {
            Snapshots::None => {}
            snapshots => self.seal_with(snapshots)?,
        }
        self.handle_all().or_else(|error| self.stop_at(error))?;
        self.meter.enter(RunPhase::Draining);
        // Whatever the reason, events that were only read must not count as handled.
        if self.queue.has_events() && !self.in_flight.is_stopped() {
            return Err(self.bug("events were left when the source had ended"));
        }
        self.seal_last()
    }

    /// Ends the run at an event that cannot be handled: commits the whole blocks before it.
    fn stop_at(&mut self, mut error: PipelineError) -> Result<(), PipelineError> {
        while let Some(block) = error.failed_block().or(self.failed_block)
            && !self.in_flight.is_stopped()
        {
            match self.commit_before(block, &error) {
                Ok(()) => return Err(error.committed_before(block)),
                // Handled once more, an earlier event may be the one that fails.
                Err(next) if next.failed_block().is_some_and(|next| next < block) => error = next,
                Err(_) => break,
            }
        }
        Err(error)
    }

    /// Commits what comes before a block, and nothing else. If handlers have gone further, their rows are dropped and the
    /// events before the block are handled once more.
    fn commit_before(&mut self, block: BlockNo, error: &PipelineError) -> Result<(), PipelineError> {
        let is_of_source = matches!(error, PipelineError::Source { .. });
        if !is_of_source || self.open.last_block().is_some_and(|last| last >= block) {
            self.in_flight.drain(&mut self.hooks)?;
            self.forget()?;
            let kept = self.kept.take();
            self.queue.rewind(kept, self.open.committed_block());
            let open = std::mem::take(&mut self.open).discard();
            self.duty.discarded();
            self.begin_batch(open);
            self.open.note_blocks(self.queue.hashes(), self.queue.sums(), self.queue.positions());
        }
        self.queue.end_before(block);
        self.handle_all()?;
        if self.open.has_events() { self.seal() } else { Ok(()) }
    }

    /// Handles events until there are no more.
    fn handle_all(&mut self) -> Result<(), PipelineError> {
        while !self.in_flight.is_stopped() {
            self.in_flight.poll()?;
            self.hooks.tell_progress(&self.meter);
            self.take_over()?;
            if self.must_end() {
                self.seal()?;
            }
            self.take_pages()?;
            match self.next_round() {
                Some((round, taken)) => self.pass(round, taken)?,
                // The batch has to end before the next block may begin.
                None if self.queue.has_events() && self.must_end() => {}
                None if let Some(to) = self.queue.due_rollback() => self.roll_back(to)?,
                None if self.queue.is_ended() => break,
                None => self.wait_for_pages()?,
            }
        }
        Ok(())
    }

    /// Whether the open batch has to end here for its snapshots.
    fn must_end(&self) -> bool {
        self.open.blocks() > 0 && self.blocks_left() == 0 && self.queue.is_at_boundary()
    }

    /// Blocks that the open batch may still take. An empty one takes a block in any case, or the run would not go on.
    fn blocks_left(&self) -> u64 {
        let is_full = self.kept.is_full() || self.open.noted_bytes() > self.kept.bytes_max();
        if is_full && self.open.blocks() > 0 {
            return 0;
        }
        self.duty.blocks_left(self.open.blocks_before(), self.open.blocks())
    }

    fn next_round(&mut self) -> Option<(Round, Taken)> {
        let limits = RoundLimits {
            events: self.policy.events_left(self.open.events()),
            blocks: self.blocks_left(),
            bytes: round_bytes(self.plan.memory_bytes),
            takes_parts: self.incoming.budget.is_waited_for(),
            round_events: self.round_events,
        };
        self.queue.take(limits, &self.incoming.regions, self.plan.all)
    }

    /// Handles one round, keeps the memory, and seals if the batch is due.
    fn pass(&mut self, round: Round, taken: Taken) -> Result<(), PipelineError> {
        let before = self.engines.memory_bytes();
        let events = taken.summary.events;
        // A part of a block may turn out to be abandoned: then nothing else may be in its batch.
        let first_block = taken.summary.first_block;
        let begins_part = !taken.is_whole && self.open.last_block() != Some(first_block);
        if begins_part && self.open.has_events() && !self.plan.depth.is_none() {
            let whole = WholeBlocks::prove(self.open.last_block(), Upcoming::Block(first_block));
            self.seal_whole(whole, self.duty.at_seal(self.open.blocks_total()))?;
        }
        self.handle(round, taken)?;
        let grown = self.engines.memory_bytes().saturating_sub(before);
        self.round_events = self.memory.round_events(&self.usage(), events, grown);
        self.note_memory();
        self.keep_memory()?;
        self.seal_if_due()
    }

    /// Takes what has come, without waiting.
    fn take_pages(&mut self) -> Result<(), PipelineError> {
        while self.queue.wants_more() {
            match self.incoming.pages.try_recv() {
                Ok(message) => self.take_message(message)?,
                Err(crossbeam_channel::TryRecvError::Empty) => break,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return Err(PipelineError::ReaderGone),
            }
        }
        Ok(())
    }

    fn take_message(&mut self, message: FromReader) -> Result<(), PipelineError> {
        match message {
            FromReader::Page(mut page) => {
                self.incoming.region_name_bytes += page.new_regions.iter().map(|name| name.len()).sum::<usize>();
                self.incoming.regions.append(&mut page.new_regions);
                self.open.note_blocks(page.hashes.clone(), page.sums.clone(), page.positions.clone());
                while self.origins.len() <= usize::from(page.origin_no) {
                    Arc::make_mut(&mut self.origins).push(Arc::clone(&page.origin));
                }
                self.queue.push(page);
                Ok(())
            }
            FromReader::Rollback { to, is_replay } => {
                self.rollback_cause = if is_replay { RollbackCause::Late } else { RollbackCause::Fork };
                self.open.drop_after(to);
                self.queue.push_rollback(to);
                Ok(())
            }
            FromReader::Source { progress, position, files } => {
                self.open.note_source(progress, position, files);
                Ok(())
            }
            FromReader::Whole { block } => {
                self.queue.note_whole(block);
                Ok(())
            }
            FromReader::Idle => {
                self.queue.note_idle();
                Ok(())
            }
            FromReader::End { is_open } => {
                self.queue.end(is_open);
                Ok(())
            }
            FromReader::Failed { error, block } => {
                self.failed_block = block;
                Err(self.source_error(error))
            }
        }
    }

    /// Waits for a page. When none comes for a while, commits what is complete.
    fn wait_for_pages(&mut self) -> Result<(), PipelineError> {
        let _waiting = self.meter.time_if_began(Phase::WaitingForSource, self.open.number());
        let since = Instant::now();
        while !self.in_flight.is_stopped() {
            if (self.queue.is_idle() || since.elapsed() >= LINGER) && self.has_work_to_seal() {
                self.seal()?;
            }
            self.note_live();
            if self.is_far_enough()? {
                // What goes on of the last block is for whoever reads it next.
                self.queue.end(true);
                return Ok(());
            }
            // Where the reader waits for room, only the block that is here in part can give it.
            let may_be_waited_for = self.queue.has_events() && !self.queue.is_idle();
            let step = match self.in_flight.state() {
                _ if may_be_waited_for => PART_STEP,
                CommitState::Idle if self.queue.is_idle() => IDLE_STEP,
                _ => WAIT_STEP,
            };
            match self.incoming.pages.recv_timeout(step) {
                Ok(message) => return self.take_message(message),
                Err(RecvTimeoutError::Disconnected) => return Err(PipelineError::ReaderGone),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.queue.has_events() && self.incoming.budget.is_waited_for() {
                // The reader needs room, and only handling the partial block that is here frees it.
                return Ok(());
            }
            self.in_flight.poll()?;
            self.hooks.tell_progress(&self.meter);
            self.take_over()?;
        }
        Ok(())
    }

    /// Takes over settings that were given meanwhile, where no batch is begun.
    fn take_over(&mut self) -> Result<(), PipelineError> {
        if self.open.has_events() {
            return Ok(());
        }
        let Some(Settings { batch, snapshots, .. }) = self.reloading.take() else { return Ok(()) };
        let memory_bytes = batch.memory_bytes;
        self.duty.set_every(snapshots.every);
        self.policy = SealPolicy::new(batch.events);
        self.plan.memory_bytes = memory_bytes;
        self.meter.set_memory_limit(memory_bytes);
        self.memory = MemoryBudget::new(memory_bytes);
        self.kept.set_memory(memory_bytes);
        self.incoming.budget.set_limit(read_ahead_bytes(memory_bytes));
        let taken = self.engines.set_memory(usize::try_from(memory_bytes).unwrap_or(usize::MAX));
        self.reloading.done();
        taken.map_err(|error| self.lane_error(error))
    }

    /// The source has nothing more, and all of it that can be is committed.
    fn note_live(&mut self) {
        if self.queue.is_idle() && self.in_flight.state() == CommitState::Idle {
            self.meter.enter(RunPhase::Live);
            self.note_memory();
        }
    }

    fn note_memory(&self) {
        let usage = self.usage();
        let bytes = |bytes: usize| bytes as u64;
        let cached = bytes(usage.engines + usage.regions);
        let (ahead, staged) = (bytes(usage.read_ahead), bytes(usage.staged));
        self.meter.note_memory(Memory { ahead, cached, staged });
    }

    /// Whether the run is to end although its source does not.
    fn is_far_enough(&mut self) -> Result<bool, PipelineError> {
        let is_done = self.queue.is_idle() && self.in_flight.state() == CommitState::Idle;
        let Some(is_far) = self.is_far.as_mut().filter(|_| is_done) else { return Ok(false) };
        Ok(is_far(self.open.committed_block().map(BlockNo::get))?)
    }

    /// Whether a batch can end here although nothing follows yet, and holds something.
    fn has_work_to_seal(&mut self) -> bool {
        self.queue.is_at_boundary()
            && self.in_flight.state() != CommitState::Full
            && (self.open.has_events() || self.queue.is_idle() && self.open.has_news() || self.duty.is_due_by_time())
    }

    /// Runs one round of lanes.
    fn handle(&mut self, round: Round, mut taken: Taken) -> Result<(), PipelineError> {
        let work = self.meter.time(Phase::Handling, self.open.number());
        self.note_taken(&round, &taken);
        if let Some(time) = &mut self.event_time {
            self.in_flight.note_event_time(time.of_last(&round));
        }
        self.kept.note(std::mem::take(&mut taken.pieces));
        let mut lanes_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut by_size: Vec<usize> = (0..round.lanes.len()).collect();
        // The longest first, so that they are spread before the short ones fill the gaps.
        by_size.sort_by_key(|lane| std::cmp::Reverse(round.lanes[*lane].events.len()));
        for lane in by_size {
            let described = &round.lanes[lane];
            let engine = self.assignment.engine_for(described.region, described.events.len() as u64);
            lanes_of.entry(engine).or_default().push(lane);
        }
        let round = Arc::new(round);
        let job = |(engine, lanes): (usize, Vec<usize>)| {
            let round = Arc::clone(&round);
            let run = move |engine: &mut dyn Engine| engine.run(&round, &lanes);
            (engine, Box::new(run) as Job<Vec<FailedEvent>>)
        };
        let jobs = lanes_of.into_iter().map(job).collect();
        let result = self.engines.each(self.in_flight.clock(), jobs);
        drop(work);
        let failed = result.map_err(|error| self.lane_error(error))?.into_iter().flat_map(|(_, failed)| failed);
        let mut aside = std::mem::take(&mut taken.refused);
        aside.extend(failed.filter_map(|failed| round.put_aside(failed)));
        self.put_aside(aside)
    }

    /// Puts events of a round aside, unless there are too many already.
    fn put_aside(&mut self, mut aside: Vec<(EventAt, Quarantined)>) -> Result<(), PipelineError> {
        if aside.is_empty() {
            return Ok(());
        }
        // In the order of the source, whatever ran first.
        aside.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.region.cmp(&other.region)));
        let max = self.plan.quarantine_max;
        let room = max.saturating_sub(self.quarantined + self.open.quarantined());
        if let Some((_, event)) = usize::try_from(room).ok().and_then(|room| aside.get(room)) {
            return Err(PipelineError::QuarantineFull(Box::new(QuarantineFull {
                place: event.place_text(),
                error: event.error.clone(),
                max,
                batch: self.open.number().get(),
                discarded: self.discarded(),
                block: event.block,
            })));
        }
        self.open.put_aside(aside.into_iter().map(|(_, event)| event).collect());
        Ok(())
    }

    fn note_taken(&mut self, round: &Round, taken: &Taken) {
        self.open.take(&taken.summary, round);
        let mut largest = 0;
        for (number, lane) in round.lanes.iter().enumerate() {
            let (region_events, at) = (&mut self.outcome.region_events, lane.region.index());
            if region_events.len() <= at {
                region_events.resize(at + 1, 0);
            }
            region_events[at] += lane.events.len() as u64;
            largest = largest.max(region_events[at]);
            if let Some(block) =
                lane.events.len().checked_sub(1).and_then(|last| LaneBlocks::block(round, number, last))
            {
                self.duty.note(lane.region, block);
            }
        }
        self.meter.note_largest_region(largest);
        self.meter.handled(taken.summary.events, taken.summary.last_block, taken.source_bytes_read);
    }

    /// The first and the last block that are lost with the open batch.
    fn discarded(&self) -> Option<(i64, i64)> {
        self.open.span().map(|(first, last)| (first.get(), last.get()))
    }

    fn source_error(&self, error: SourceError) -> PipelineError {
        PipelineError::Source { error, batch: self.open.number().get(), discarded: self.discarded() }
    }

    fn lane_error(&self, error: LaneError) -> PipelineError {
        if matches!(error, LaneError::Timeout { .. }) {
            self.meter.note_hang();
        }
        PipelineError::Lane { error, batch: self.open.number().get(), discarded: self.discarded() }
    }

    fn bug(&self, what: &str) -> PipelineError {
        self.lane_error(LaneError::Bug(what.to_owned()))
    }

    /// What the regions take, at most a half of the memory: what is left has to do for the rest, or no batch would have room.
    fn region_bytes(&self) -> usize {
        let names = self.incoming.region_name_bytes + self.incoming.regions.len() * REGION_BYTES;
        names.min(usize::try_from(self.plan.memory_bytes / 2).unwrap_or(usize::MAX))
    }

    fn usage(&self) -> Usage {
        Usage {
            engines: self.engines.memory_bytes(),
            engines_at_open: self.engines_at_open,
            staged: self.in_flight.bytes(),
            read_ahead: self.incoming.budget.used() + self.kept.bytes(),
            regions: self.region_bytes(),
        }
    }

    /// Makes room when the memory budget is nearly used up: first by evicting committed rows, then by sealing the open
    /// batch and waiting until everything staged has committed.
    fn keep_memory(&mut self) -> Result<(), PipelineError> {
        if self.memory.relief(&self.usage()) == Relief::None {
            return Ok(());
        }
        self.in_flight.poll_for_memory()?;
        self.trim()?;
        let can_seal = self.open.has_events() && self.queue.is_at_boundary();
        if self.memory.relief_after_trim(&self.usage(), can_seal) == Relief::SealAndWait {
            self.seal()?;
            let waiting = self.meter.time(Phase::WaitingForMemory, self.open.number());
            self.in_flight.drain(&mut self.hooks)?;
            drop(waiting);
            self.trim()?;
        }
        self.memory.settle(&self.usage());
        Ok(())
    }

    fn trim(&mut self) -> Result<(), PipelineError> {
        let work = self.meter.time(Phase::Trimming, self.open.number());
        let before = self.engines.memory_bytes();
        let result = self.engines.trim(self.in_flight.clock(), 600);
        drop(work);
        // What went was garbage or committed.
        let gone = before.saturating_sub(self.engines.memory_bytes());
        self.engines_at_open = self.engines_at_open.saturating_sub(gone);
        result.map_err(|error| self.lane_error(error))
    }

    fn seal_if_due(&mut self) -> Result<(), PipelineError> {
        let open = OpenState {
            events: self.open.events(),
            is_whole: self.queue.is_at_boundary(),
            growth: self.open.growth(self.engines.changed_rows()),
            age: self.open.age(),
        };
        match self.policy.decide(open, self.in_flight.state()) {
            Decision::Keep => Ok(()),
            Decision::Seal(_) => self.seal(),
        }
    }

    /// Seals what is left at the end, with snapshots of every region that lacks one.
    fn seal_last(&mut self) -> Result<(), PipelineError> {
        let Some(whole) = self.queue.whole_blocks() else {
            // A stop in the middle of a block that was begun: its batch will be handled again.
            return Ok(());
        };
        let snapshots = self.duty.at_end();
        if !self.open.has_events() && !self.open.has_news() && snapshots == Snapshots::None {
            return Ok(());
        }
        self.seal_whole(Some(whole), snapshots)
    }

    fn seal(&mut self) -> Result<(), PipelineError> {
        self.seal_with(self.duty.at_seal(self.open.blocks_total()))
    }

    fn seal_with(&mut self, snapshots: Snapshots) -> Result<(), PipelineError> {
        self.seal_whole(self.queue.whole_blocks(), snapshots)
    }

    fn seal_whole(&mut self, whole: Option<WholeBlocks>, snapshots: Snapshots) -> Result<(), PipelineError> {
        let whole = whole.ok_or_else(|| self.bug("a batch was to end within a block"))?;
        let names = &self.incoming.regions;
        let (mut due, mut without_events) = (Vec::new(), Vec::new());
        for (region, block) in self.duty.regions(&snapshots) {
            let name = Arc::clone(&names[region.index()]);
            match block {
                Some(block) => due.push((region, name, block)),
                None => without_events.push(name),
            }
        }
        let request = SealRequest {
            snapshots: due,
            without_events,
            block: self.duty.block(self.open.tip()),
            is_again: matches!(snapshots, Snapshots::Again(_)),
            undo_floor: self.open.undo_floor(),
        };
        if self.in_flight.was_redone() {
            self.engines.guess_no_more();
        }
        let work = self.meter.time(Phase::Sealing, self.open.number());
        let clock = self.in_flight.clock();
        let contents = self.plan.sealer.seal(&mut self.engines, clock, &mut self.assignment, request);
        let contents = contents.map_err(|error| self.lane_error(error))?;
        self.quarantined += self.open.quarantined();
        let (batch, next) = std::mem::take(&mut self.open).seal(whole, contents, names, &self.origins);
        drop(work);
        self.duty.sealed(&snapshots, next.tip());
        self.begin_batch(next);
        let waiting = self.meter.time(Phase::WaitingForCommit, self.open.number());
        self.in_flight.hand_over(batch, &mut self.hooks)?;
        drop(waiting);
        Ok(())
    }

    fn begin_batch(&mut self, open: OpenBatch) {
        self.open = open;
        self.kept.take();
        self.engines_at_open = self.engines.memory_bytes();
    }

    /// Rolls the state back to a block: waits until everything in flight has committed, hands the rollback over as one
    /// more order, and starts again from there.
    fn roll_back(&mut self, to: BlockNo) -> Result<(), PipelineError> {
        if let Some(tip) = self.open.tip().filter(|tip| *tip > to && self.plan.depth.is_none()) {
            let error = UndoError::Beyond { to: to.get(), oldest: Some(tip.get()), depth: 0 };
            return Err(PipelineError::Store(StoreError::Undo(error)));
        }
        if self.queue.is_cut() {
            // The open batch is a part of an abandoned block: nothing of it may be committed.
            self.in_flight.drain(&mut self.hooks)?;
            self.forget()?;
            let open = std::mem::take(&mut self.open).discard();
            self.duty.discarded();
            self.begin_batch(open);
        } else if self.open.has_events() && self.open.tip().is_some_and(|tip| tip > to) {
            self.seal_with(Snapshots::None)?;
        }
        let done = match self.open.tip() {
            Some(tip) if tip > to => self.in_flight.roll_back(to, self.rollback_cause, &mut self.hooks)?,
            _ => None,
        };
        self.queue.rolled_back();
        done.map_or(Ok(()), |done| self.begin_anew(to, done))
    }

    /// Clears the engines' row caches. Nothing may be in flight, or an engine would lose rows that are not committed.
    fn forget(&mut self) -> Result<(), PipelineError> {
        let result = self.engines.forget(self.in_flight.clock());
        result.map_err(|error| self.lane_error(error))
    }

    /// Goes on from the state that a rollback has left.
    fn begin_anew(&mut self, to: BlockNo, done: RolledBack) -> Result<(), PipelineError> {
        self.forget()?;
        self.quarantined = done.quarantined;
        let base = UndoBase::at(&done.checkpoint, done.hash.clone(), done.source).with_position(done.position.clone());
        let open = std::mem::take(&mut self.open).set_back(done.checkpoint, base, &done.regions);
        self.begin_batch(open);
        let rollback = Rollback {
            to: to.get(),
            from: done.from.block,
            block: done.checkpoint.block,
            rows: done.rows,
            regions: done.regions.iter().map(|undo| Arc::clone(&undo.region)).collect(),
        };
        // A caller who asked for it is told by the report.
        if self.plan.rollback.is_none() {
            tracing::info!("{rollback}");
        }
        self.hooks.tell_rollback(&rollback);
        let names = &self.incoming.regions;
        let numbers: HashMap<&str, RegionNo> =
            names.iter().zip(RegionNo::in_order()).map(|(name, no)| (&**name, no)).collect();
        let last = |undo: &RegionUndo| undo.block.map(BlockNo::new);
        let numbered = |undo: &RegionUndo| Some((numbers.get(&*undo.region).copied()?, last(undo)));
        let regions = done.regions.iter().filter_map(numbered).collect();
        self.outcome.rollbacks.push(rollback);
        match self.duty.rolled_back(to, regions) {
            Snapshots::None => Ok(()),
            snapshots => self.seal_with(snapshots),
        }
    }
}
