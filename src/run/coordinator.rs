//! The handler thread: takes pages, runs rounds of lanes, seals batches, hands them to the commit thread.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::engines::{Crew, Job};
use super::intake::{Intake, Reach, Taken};
use super::report::{Progress, SnapshotCounts, Times};
use super::trail::Trail;
use super::{PipelineError, ProgressHook, Rollback, RollbackHook};
use crate::batch::{RegionTouch, SealedBatch, SnapshotDraft};
use crate::commit::handoff::{CommitFailure, CommitThread, Refused, Ticket};
use crate::commit::{BatchError, Done, Order, RolledBack, StoreCommitter};
use crate::lane::{Cast, Engine, LaneError, Round, SealedRows};
use crate::model::byte_budget::ByteBudget;
use crate::model::checkpoint::Checkpoint;
use crate::model::event::RegionNo;
use crate::model::limits::{
    BATCH_EVENTS, LINGER, OPEN_BATCH_GROWTH_MAX, OPEN_BATCH_TIME, ROUND_EVENTS_MAX, ROUND_EVENTS_MIN, WAIT_STEP,
    round_bytes,
};
use crate::model::schema::Schema;
use crate::model::timestamp::Timestamp;
use crate::rows::changes::RegionChanges;
use crate::snapshot::{Schedule, canonical};
use crate::source::SourceError;
use crate::source::reader::FromReader;
use crate::store::{CommitTimes, RowEncoder, StoreError};
use crate::timeline::{Doing, Recorder, Stage};
use crate::undo::{HistoryError, push_section, record};

/// How often progress is told.
const PROGRESS_STEP: Duration = Duration::from_millis(100);

/// A shorter wait is none.
const WAIT_NOTED_MIN: Duration = Duration::from_micros(20);

/// How long a part of a block waits for the rest before it is looked whether the reader waits for room.
const PART_STEP: Duration = Duration::from_millis(2);

/// What the coordinator is made with.
pub(super) struct CoordinatorPlan {
    pub(super) schema: Arc<Schema>,
    /// `rollback.depth`.
    pub(super) depth: u64,
    pub(super) batch_events: u64,
    pub(super) memory_bytes: u64,
    pub(super) has_snapshots: bool,
    pub(super) dedup_ignore: Vec<String>,
    pub(super) all: Option<RegionNo>,
    pub(super) drain_timeout: Duration,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) source_bytes_total: Option<u64>,
    /// What brings sealed rows into the store's form.
    pub(super) encoder: Option<Arc<dyn RowEncoder>>,
    /// Each batch is committed before the next one is handled.
    pub(super) is_serial: bool,
    pub(super) recorder: Arc<Recorder>,
}

/// A batch that is handed over and not known to be committed.
struct InFlight {
    ticket: Ticket<Done, BatchError>,
    bytes: usize,
    before: Checkpoint,
    after: Checkpoint,
}

/// Where a run begins.
pub(super) struct Start {
    pub(super) checkpoint: Checkpoint,
    pub(super) regions: Vec<Arc<str>>,
    /// Regions with events after their last snapshot, and the last block of those.
    pub(super) unsnapped: BTreeMap<RegionNo, i64>,
    pub(super) trail: Trail,
    /// A rollback that comes before the first event.
    pub(super) rollback: Option<i64>,
    /// Regions that a rollback has set back, and of which readers have a snapshot that it undid.
    pub(super) set_back: Vec<RegionNo>,
}

/// Which snapshots a batch carries.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Snapshots {
    None,
    /// Of every region that lacks one.
    Due,
    /// Of these, since what readers have was rolled back.
    Again(Vec<RegionNo>),
}

/// The batch that handlers fill.
#[derive(Default)]
struct Open {
    events: u64,
    blocks: u64,
    first_block: Option<i64>,
    last_block: Option<i64>,
    last_block_events: u64,
    touched: HashMap<RegionNo, (i64, u64)>,
    since: Option<Instant>,
    /// Events, and the rows they had changed, when it was last looked.
    looked: (u64, u64),
}

/// What came of a run, in numbers.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) checkpoint: Checkpoint,
    pub(super) events: u64,
    pub(super) blocks: u64,
    pub(super) batches: u64,
    pub(super) rollbacks: Vec<Rollback>,
    pub(super) rows: u64,
    pub(super) snapshots: SnapshotCounts,
    pub(super) retries: u64,
    pub(super) redone: u64,
    pub(super) loads: u64,
    pub(super) times: Times,
    /// None before the first.
    pub(super) commit_min: Option<Duration>,
    /// Events of each region, by its number.
    pub(super) region_events: Vec<u64>,
}

pub(super) struct Coordinator<'h> {
    plan: CoordinatorPlan,
    crew: Crew,
    cast: Cast,
    regions: Vec<Arc<str>>,
    /// The files that events have come from, by number.
    origins: Arc<Vec<Arc<str>>>,
    pages: Receiver<FromReader>,
    budget: Arc<ByteBudget>,
    commits: CommitThread<StoreCommitter>,
    schedule: Schedule,
    intake: Intake,
    open: Open,
    /// Regions with events after their last snapshot, and the last block of those.
    unsnapped: BTreeMap<RegionNo, i64>,
    /// The block of the newest snapshots at most.
    snapped_at: Option<i64>,
    /// Whether it is the caller who asked for a rollback, and not the source.
    is_asked: bool,
    /// Regions that an earlier run has set back without coming to their snapshots.
    set_back: Vec<RegionNo>,
    trail: Trail,
    /// The checkpoint after all that was handed over.
    sealed: Checkpoint,
    in_flight: VecDeque<InFlight>,
    totals: Totals,
    /// Memory needed at which something has to go.
    pressure_bytes: usize,
    /// What the engines took when the open batch began.
    warm_bytes: usize,
    /// Events of the next round at most.
    round_events: usize,
    begun: Option<Instant>,
    stopped_at: Option<Instant>,
    last_commit: Option<Instant>,
    progress: Progress,
    progress_at: Instant,
    hook: Option<&'h mut ProgressHook>,
    rollback_hook: Option<&'h mut RollbackHook>,
}

impl<'h> Coordinator<'h> {
    #[allow(clippy::too_many_arguments, reason = "the parts that the pipeline wires, each once")]
    pub(super) fn new(
        plan: CoordinatorPlan,
        crew: Crew,
        start: Start,
        pages: Receiver<FromReader>,
        budget: Arc<ByteBudget>,
        commits: CommitThread<StoreCommitter>,
        schedule: Schedule,
        hook: Option<&'h mut ProgressHook>,
        rollback_hook: Option<&'h mut RollbackHook>,
    ) -> Self {
        let Start { checkpoint, regions, unsnapped, trail, rollback, set_back } = start;
        let mut intake = Intake::default();
        if let Some(to) = rollback {
            intake.push_rollback(to);
        }
        let cast = Cast::new(crew.len());
        let progress =
            Progress { source_bytes_total: plan.source_bytes_total, block: checkpoint.block, ..Progress::default() };
        let pressure_bytes = soft_limit(plan.memory_bytes);
        let mut coordinator = Self {
            plan,
            crew,
            cast,
            regions,
            origins: Arc::default(),
            pages,
            budget,
            commits,
            schedule,
            intake,
            open: Open::default(),
            unsnapped,
            snapped_at: checkpoint.block,
            is_asked: rollback.is_some(),
            set_back,
            trail,
            sealed: checkpoint,
            in_flight: VecDeque::new(),
            totals: Totals { checkpoint, ..Totals::default() },
            pressure_bytes,
            warm_bytes: 0,
            round_events: ROUND_EVENTS_MIN as usize,
            begun: None,
            stopped_at: None,
            last_commit: None,
            progress,
            progress_at: Instant::now(),
            hook,
            rollback_hook,
        };
        coordinator.tell_crew();
        coordinator
    }

    /// Contract of the handler thread. In: pages and rollbacks, over a bounded channel. Out: sealed batches and orders to
    /// roll back, to the commit thread, in order. Writes nothing itself. Ends: at the end of the source or when it is stopped, after all that was
    /// handed over has committed; or at the first error, after what was handed over before it has ended. Gives the
    /// committer back, which holds the pipeline's lock, if nothing is in flight any more.
    pub(super) fn run(mut self) -> (Result<(Totals, bool), PipelineError>, Option<StoreCommitter>) {
        let outcome = self.run_to_end();
        let waiting = Instant::now();
        let drained = self.drain();
        self.note_times();
        if let Some(last_commit) = self.last_commit {
            self.totals.times.waits.last_commits += last_commit.saturating_duration_since(waiting);
            self.note(Doing::WaitingForCommit, waiting, last_commit);
        }
        let was_stopped = self.is_stopped();
        // Its failure, if there was one, is known. It is waited for, so that the store is free when the run has ended.
        let committer = match &drained {
            Err(PipelineError::DrainTimeout(_)) => None,
            _ => self.commits.finish(self.plan.drain_timeout).ok(),
        };
        let ended = match (outcome, drained) {
            (Ok(()), Ok(())) => Ok((self.totals, was_stopped)),
            // What a commit said comes first: a lane's failure after it may follow from it.
            (_, Err(error)) | (Err(error), Ok(())) => Err(error),
        };
        (ended, committer)
    }

    fn run_to_end(&mut self) -> Result<(), PipelineError> {
        let set_back = std::mem::take(&mut self.set_back);
        if self.plan.has_snapshots && !set_back.is_empty() {
            self.seal_with(Snapshots::Again(set_back))?;
        }
        while !self.is_stopped() {
            self.collect()?;
            self.tell_progress();
            if self.is_boundary() && self.must_end() {
                self.seal()?;
            }
            self.take_pages()?;
            match self.next_round() {
                Some((round, taken)) => {
                    let before = self.crew.memory_bytes();
                    let events = taken.events;
                    // A part of a block may turn out not to count: then nothing else may be in its batch.
                    let begins = !taken.is_boundary && self.open.last_block != Some(taken.first_block);
                    if begins && self.open.events > 0 && self.plan.depth > 0 {
                        self.seal()?;
                    }
                    self.handle(round, taken)?;
                    self.adapt_round(events, before);
                    self.keep_memory()?;
                    self.seal_if_due()?;
                }
                // The batch has to end before the next block may begin.
                None if self.intake.has_events() && self.is_boundary() && self.must_end() => {}
                None if let Some(to) = self.intake.due_rollback() => self.roll_back(to)?,
                None if self.intake.is_ended() => break,
                None => self.wait_for_pages()?,
            }
        }
        // Whatever the reason, events that were read must not be taken for handled.
        if self.intake.has_events() && !self.is_stopped() {
            return Err(self.lane_error(LaneError::Bug("events were left when the source had ended".into())));
        }
        self.seal_last()
    }

    fn is_stopped(&self) -> bool {
        self.plan.stop.load(Ordering::Relaxed)
    }

    /// Whether the open batch could end here: its last block is complete.
    fn is_boundary(&self) -> bool {
        self.intake.is_at_boundary()
    }

    /// Whether the open batch has to end here for its snapshots.
    fn must_end(&self) -> bool {
        self.open.blocks > 0 && self.blocks_left() == 0
    }

    /// Blocks that the open batch may still take.
    fn blocks_left(&self) -> u64 {
        if !self.plan.has_snapshots {
            return u64::MAX;
        }
        self.schedule.blocks_until_due(self.sealed.blocks).saturating_sub(self.open.blocks)
    }

    fn next_round(&mut self) -> Option<(Round, Taken)> {
        let target = self.plan.batch_events;
        let events = if self.open.events < target { target - self.open.events } else { target };
        let reach = Reach {
            events,
            blocks: self.blocks_left(),
            bytes: round_bytes(self.plan.memory_bytes),
            takes_parts: self.budget.is_waited_for(),
            round_events: self.round_events,
        };
        self.intake.take(reach, &self.regions, self.plan.all)
    }

    /// Takes what has come, without waiting.
    fn take_pages(&mut self) -> Result<(), PipelineError> {
        while self.intake.wants_more() {
            match self.pages.try_recv() {
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
                self.regions.append(&mut page.new_regions);
                self.trail.note_hashes(std::mem::take(&mut page.hashes));
                while self.origins.len() <= usize::from(page.origin_no) {
                    Arc::make_mut(&mut self.origins).push(Arc::clone(&page.origin));
                }
                self.intake.push(page);
                Ok(())
            }
            FromReader::Rollback { to } => {
                self.trail.drop_hashes(to);
                self.intake.push_rollback(to);
                Ok(())
            }
            FromReader::End => {
                self.intake.end();
                Ok(())
            }
            FromReader::Failed(error) => Err(self.source_error(error)),
        }
    }

    /// Waits for a page; when none comes for a while, what is complete is committed.
    fn wait_for_pages(&mut self) -> Result<(), PipelineError> {
        let since = Instant::now();
        let others = |times: &Times| times.handlers + times.handlers_blocked;
        let before = others(&self.totals.times);
        let waited = self.wait_for_page(since);
        if self.begun.is_some() {
            // What was sealed meanwhile counts as what it was.
            let sealed = others(&self.totals.times) - before;
            self.totals.times.waits.source += self.note_wait(Doing::WaitingForSource, since).saturating_sub(sealed);
        }
        waited
    }

    fn wait_for_page(&mut self, since: Instant) -> Result<(), PipelineError> {
        while !self.is_stopped() {
            let step = if self.intake.has_events() { PART_STEP } else { WAIT_STEP };
            match self.pages.recv_timeout(step) {
                Ok(message) => return self.take_message(message),
                Err(RecvTimeoutError::Disconnected) => return Err(PipelineError::ReaderGone),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.intake.has_events() && self.budget.is_waited_for() {
                // The reader waits for room that a part of the block that is here would make.
                return Ok(());
            }
            self.collect()?;
            self.tell_progress();
            let is_due = self.schedule.is_due_by_time() && self.plan.has_snapshots && !self.unsnapped.is_empty();
            if since.elapsed() >= LINGER
                && self.is_boundary()
                && self.commits.has_room()
                && (self.open.events > 0 || is_due)
            {
                self.seal()?;
            }
        }
        Ok(())
    }

    /// Runs one round of lanes.
    fn handle(&mut self, round: Round, taken: Taken) -> Result<(), PipelineError> {
        let begun = Instant::now();
        self.begun.get_or_insert(begun);
        self.note_taken(&round, &taken);
        let mut lanes_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut by_size: Vec<usize> = (0..round.lanes.len()).collect();
        // The longest first, so that they are spread before the short ones fill the gaps.
        by_size.sort_by_key(|lane| std::cmp::Reverse(round.lanes[*lane].events.len()));
        for lane in by_size {
            let described = &round.lanes[lane];
            let engine = self.cast.engine_for(described.region, described.events.len() as u64);
            lanes_of.entry(engine).or_default().push(lane);
        }
        let round = Arc::new(round);
        let job = |(engine, lanes): (usize, Vec<usize>)| {
            let round = Arc::clone(&round);
            let run = move |engine: &mut dyn Engine| engine.run(&round, &lanes);
            (engine, Box::new(run) as Job<()>)
        };
        let jobs = lanes_of.into_iter().map(job).collect();
        let result = self.crew.each(jobs);
        let ended = Instant::now();
        self.totals.times.handlers += ended - begun;
        self.note(Doing::Working, begun, ended);
        result.map(drop).map_err(|error| self.lane_error(error))
    }

    /// Records what was done for the open batch.
    fn note(&self, doing: Doing, begun: Instant, ended: Instant) {
        self.plan.recorder.span(Stage::Handlers, doing, self.sealed.batch + 1, begun, ended);
    }

    /// Records a wait that ends now; returns how long it was.
    fn note_wait(&self, doing: Doing, begun: Instant) -> Duration {
        let ended = Instant::now();
        let waited = ended - begun;
        if waited > WAIT_NOTED_MIN {
            self.note(doing, begun, ended);
        }
        waited
    }

    fn note_taken(&mut self, round: &Round, taken: &Taken) {
        self.trail.pass(round, taken);
        let open = &mut self.open;
        open.since.get_or_insert_with(Instant::now);
        open.events += taken.events;
        open.blocks += taken.new_blocks;
        open.first_block.get_or_insert(taken.first_block);
        let goes_on = open.last_block == Some(taken.last_block) && taken.new_blocks == 0;
        open.last_block_events = taken.last_block_events + if goes_on { open.last_block_events } else { 0 };
        open.last_block = Some(taken.last_block);
        for (at, lane) in round.lanes.iter().enumerate() {
            let Some(block) =
                lane.events.len().checked_sub(1).and_then(|last| round.event(at, last)).map(|(event, _)| event.block)
            else {
                continue;
            };
            let touch = open.touched.entry(lane.region).or_insert((block, 0));
            *touch = (block, touch.1 + lane.events.len() as u64);
            let region_events = &mut self.totals.region_events;
            if region_events.len() <= lane.region as usize {
                region_events.resize(lane.region as usize + 1, 0);
            }
            region_events[lane.region as usize] += lane.events.len() as u64;
            self.unsnapped.insert(lane.region, block);
        }
        self.progress.events += taken.events;
        self.progress.block = Some(taken.last_block);
        self.progress.source_bytes_read = taken.source_bytes_read;
    }

    /// The number of the open batch, and its first and last block so far.
    fn discarded(&self) -> (u64, Option<(i64, i64)>) {
        (self.sealed.batch + 1, self.open.first_block.zip(self.open.last_block))
    }

    fn source_error(&self, error: SourceError) -> PipelineError {
        let (batch, discarded) = self.discarded();
        PipelineError::Source { error, batch, discarded }
    }

    fn lane_error(&self, error: LaneError) -> PipelineError {
        let (batch, discarded) = self.discarded();
        PipelineError::Lane { error, batch, discarded }
    }

    fn used_bytes(&self) -> usize {
        let staged: usize = self.in_flight.iter().map(|batch| batch.bytes).sum();
        self.crew.memory_bytes() + staged + self.budget.used()
    }

    fn budget_bytes(&self) -> usize {
        usize::try_from(self.plan.memory_bytes).unwrap_or(usize::MAX)
    }

    /// Bytes in use, and what sealing the open batch would add: its rows stay warm, are packed, and travel with it.
    fn needed_bytes(&self) -> usize {
        self.used_bytes() + 2 * self.crew.memory_bytes().saturating_sub(self.warm_bytes)
    }

    /// Makes room when the memory budget is nearly used up: first by letting committed rows go, then by sealing the
    /// open batch and waiting until all that is staged has committed.
    fn keep_memory(&mut self) -> Result<(), PipelineError> {
        if self.needed_bytes() <= self.pressure_bytes {
            return Ok(());
        }
        self.collect()?;
        self.tell_crew();
        self.trim()?;
        let soft = soft_limit(self.plan.memory_bytes);
        if self.needed_bytes() > soft && self.is_boundary() && self.open.events > 0 {
            self.seal()?;
            let waiting = Instant::now();
            while !self.in_flight.is_empty() {
                self.wait_for_commit()?;
                self.check_drain()?;
            }
            let waited = self.note_wait(Doing::WaitingForMemory, waiting);
            self.totals.times.handlers_blocked += waited;
            self.totals.times.waits.memory += waited;
            self.tell_crew();
            self.trim()?;
        }
        // What cannot go must not be tried again for every round, but the budget stays the end.
        let budget = self.budget_bytes();
        self.pressure_bytes = (self.needed_bytes() + budget / 16).clamp(soft, budget / 16 * 15);
        Ok(())
    }

    /// Adapts the size of rounds: the next one may grow the memory by a quarter of what is left.
    fn adapt_round(&mut self, events: u64, before: usize) {
        let grown = self.crew.memory_bytes().saturating_sub(before) as u64;
        let left = self.budget_bytes().saturating_sub(self.used_bytes()) as u64;
        let fits = (left / 4).saturating_mul(events) / grown.max(1);
        let limit = fits.min(events.max(ROUND_EVENTS_MIN) * 2).clamp(ROUND_EVENTS_MIN, ROUND_EVENTS_MAX as u64);
        self.round_events = usize::try_from(limit).unwrap_or(ROUND_EVENTS_MAX);
    }

    fn trim(&mut self) -> Result<(), PipelineError> {
        let begun = Instant::now();
        let before = self.crew.memory_bytes();
        let result = self.crew.trim(600);
        self.totals.times.handlers += begun.elapsed();
        // What went was garbage or committed.
        self.warm_bytes = self.warm_bytes.saturating_sub(before.saturating_sub(self.crew.memory_bytes()));
        result.map_err(|error| self.lane_error(error))
    }

    /// Seals the open batch if it has its events and the commit thread can take it. While that is busy, or as long as rows
    /// are written again and again, the batch goes on growing: a row that changes again is then written once.
    fn seal_if_due(&mut self) -> Result<(), PipelineError> {
        let repeats = self.repeats();
        let target = self.plan.batch_events;
        if !self.is_boundary() || self.open.events < target || !self.commits.has_room() {
            return Ok(());
        }
        let has_grown = self.open.events >= target.saturating_mul(OPEN_BATCH_GROWTH_MAX);
        if (self.commits.is_idle() && !repeats) || has_grown { self.seal() } else { Ok(()) }
    }

    /// Whether the last events mostly changed rows that the open batch had changed already. Only of a batch that is large and
    /// has not been open for long.
    fn repeats(&mut self) -> bool {
        let (events, rows) = (self.open.events, self.crew.changed_rows());
        let (events_before, rows_before) = std::mem::replace(&mut self.open.looked, (events, rows));
        let is_young = self.open.since.is_some_and(|since| since.elapsed() < OPEN_BATCH_TIME);
        let added = rows.saturating_sub(rows_before);
        self.plan.batch_events >= BATCH_EVENTS && is_young && added * 2 < events - events_before.min(events)
    }

    /// Seals what is left at the end, with snapshots of every region that lacks one.
    fn seal_last(&mut self) -> Result<(), PipelineError> {
        if !self.is_boundary() {
            // A stop in the middle of a block that was begun: its batch will be handled again.
            return Ok(());
        }
        let lacks_snapshots = self.plan.has_snapshots && !self.unsnapped.is_empty();
        if self.open.events == 0 && !lacks_snapshots {
            return Ok(());
        }
        self.seal_with(if lacks_snapshots { Snapshots::Due } else { Snapshots::None })
    }

    fn seal(&mut self) -> Result<(), PipelineError> {
        let blocks = self.sealed.blocks + self.open.blocks;
        let is_due = self.plan.has_snapshots && self.schedule.is_due(blocks) && !self.unsnapped.is_empty();
        self.seal_with(if is_due { Snapshots::Due } else { Snapshots::None })
    }

    /// Brings the state back to what it was as of a block: lets all that is in flight commit, hands the rollback over as
    /// one more order, and begins anew behind it.
    fn roll_back(&mut self, to: i64) -> Result<(), PipelineError> {
        let tip = self.open.last_block.or(self.sealed.block);
        if let Some(tip) = tip.filter(|tip| *tip > to && self.plan.depth == 0) {
            let error = HistoryError::Beyond { to, oldest: Some(tip), depth: 0 };
            return Err(PipelineError::Store(StoreError::History(error)));
        }
        if self.intake.is_cut() {
            // The open batch is a part of a block that does not count: nothing of it may be committed.
            self.drain()?;
            self.crew.forget().map_err(|error| self.lane_error(error))?;
            self.open = Open::default();
            self.trail.discard();
            self.warm_bytes = self.crew.memory_bytes();
        } else if tip.is_some_and(|tip| tip > to) && self.open.events > 0 {
            self.seal_with(Snapshots::None)?;
        }
        if self.open.last_block.or(self.sealed.block).is_none_or(|tip| tip <= to) {
            self.intake.rolled_back();
            return Ok(());
        }
        self.drain()?;
        let ticket = self.submit(Order::Rollback { to })?;
        let done = loop {
            match ticket.wait(WAIT_STEP) {
                Err(CommitFailure::TimedOut(_)) => self.check_drain()?,
                answer => break answer.map_err(PipelineError::Commit)?,
            }
            self.tell_progress();
        };
        self.intake.rolled_back();
        match done {
            Done::RolledBack(Some(done)) => self.begin_anew(to, &done),
            Done::RolledBack(None) | Done::Committed(_) | Done::Renumbered => Ok(()),
        }
    }

    /// Goes on from the state that a rollback has left.
    fn begin_anew(&mut self, to: i64, done: &RolledBack) -> Result<(), PipelineError> {
        self.crew.forget().map_err(|error| self.lane_error(error))?;
        self.open = Open::default();
        self.sealed = done.checkpoint;
        self.totals.checkpoint = done.checkpoint;
        self.totals.retries += done.retries;
        self.trail.rolled_back(done);
        self.warm_bytes = self.crew.memory_bytes();
        self.tell_crew();
        self.last_commit = Some(Instant::now());
        self.progress.block = done.checkpoint.block;
        let rollback = Rollback {
            to,
            from: done.from.block,
            block: done.checkpoint.block,
            rows: done.rows,
            regions: done.regions.iter().map(|undo| Arc::clone(&undo.region)).collect(),
        };
        if !self.is_asked {
            tracing::info!("{rollback}");
        }
        if let Some(hook) = &mut self.rollback_hook {
            hook(&rollback);
        }
        let numbers: HashMap<&str, RegionNo> = self.regions.iter().zip(0..).map(|(name, no)| (&**name, no)).collect();
        let again: Vec<RegionNo> =
            rollback.regions.iter().filter_map(|region| numbers.get(&**region).copied()).collect();
        self.totals.rollbacks.push(rollback);
        let block = done.checkpoint.block.unwrap_or(to);
        self.unsnapped.extend(again.iter().map(|region| (*region, block)));
        // Snapshots that are not newer than the block are right, and the others are made again at once.
        let is_wrong = self.snapped_at.is_some_and(|block| block > to);
        if self.plan.has_snapshots && is_wrong && !again.is_empty() {
            self.snapped_at = Some(to);
            self.seal_with(Snapshots::Again(again))?;
        }
        Ok(())
    }

    fn seal_with(&mut self, snapshots: Snapshots) -> Result<(), PipelineError> {
        let begun = Instant::now();
        self.begun.get_or_insert(begun);
        let sealed = self.seal_crew(&snapshots);
        let ended = Instant::now();
        self.totals.times.handlers += ended - begun;
        self.totals.times.sealing += ended - begun;
        self.note(Doing::Sealing, begun, ended);
        let batch = sealed.map_err(|error| self.lane_error(error))?;
        match &snapshots {
            Snapshots::None => {}
            Snapshots::Due => {
                self.schedule.done();
                self.unsnapped.clear();
                self.snapped_at = self.snapped_at.max(batch.after.block);
            }
            Snapshots::Again(regions) => {
                for region in regions {
                    self.unsnapped.remove(region);
                }
            }
        }
        self.open = Open::default();
        self.warm_bytes = self.crew.memory_bytes();
        self.sealed = batch.after;
        let waiting = Instant::now();
        let handed = self.hand_over(batch);
        let waited = self.note_wait(Doing::WaitingForCommit, waiting);
        self.totals.times.handlers_blocked += waited;
        self.totals.times.waits.commit += waited;
        self.tell_crew();
        handed
    }

    /// Lets every engine compute its snapshots and hand out its changes.
    fn seal_crew(&mut self, snapshots: &Snapshots) -> Result<SealedBatch, LaneError> {
        let last_block = self.open.last_block.or(self.sealed.block);
        let block = last_block.or(self.snapped_at).unwrap_or(0);
        let depth = self.plan.depth;
        let history_after = last_block.filter(|_| depth > 0).map(|last| last.saturating_sub_unsigned(depth));
        let is_again = matches!(snapshots, Snapshots::Again(_));
        let mut regions_of: BTreeMap<usize, Vec<(RegionNo, Arc<str>)>> =
            self.crew.made().into_iter().map(|at| (at, Vec::new())).collect();
        let lacking: Vec<RegionNo> = match snapshots {
            Snapshots::None => Vec::new(),
            Snapshots::Due => self.unsnapped.keys().copied().collect(),
            Snapshots::Again(regions) => regions.clone(),
        };
        for region in lacking {
            let engine = self.cast.engine_for(region, 0);
            regions_of.entry(engine).or_default().push((region, Arc::clone(&self.regions[region as usize])));
        }
        let job = |(engine, regions): (usize, Vec<(RegionNo, Arc<str>)>)| {
            let ignored = self.plan.dedup_ignore.clone();
            let (encoder, schema) = (self.plan.encoder.clone(), Arc::clone(&self.plan.schema));
            let seal = move |engine: &mut dyn Engine| {
                let draft = |(region, name): &(RegionNo, Arc<str>)| {
                    let mut draft = snapshot_draft(engine, *region, name, block, &ignored)?;
                    // What readers have was rolled back: that there is nothing to say as of the block has to be said.
                    if is_again && draft.doc.is_none() {
                        let (doc, hash) = canonical(serde_json::Value::Null, &[]);
                        (draft.doc, draft.hash) = (Some(doc.into()), hash);
                    }
                    Ok(draft)
                };
                let drafts = regions.iter().map(draft).collect::<Result<Vec<_>, LaneError>>()?;
                let SealedRows { mut changes, history } = engine.seal(history_after)?;
                if let Some(encoder) = encoder {
                    let encode = |(entity, rows)| Ok::<_, LaneError>((entity, encoder.encode(entity, rows)?));
                    changes = changes.into_iter().map(encode).collect::<Result<_, _>>()?;
                }
                let mut before = Vec::new();
                for (entity, region) in history {
                    push_section(&schema.entities()[entity], &region, &mut before);
                }
                Ok((drafts, changes, before))
            };
            (engine, Box::new(seal) as Job<_>)
        };
        let jobs = regions_of.into_iter().map(job).collect();
        let (mut snapshots, mut changes) = (Vec::new(), vec![Vec::new(); self.plan.schema.entities().len()]);
        let mut before = Vec::new();
        for (_, (drafts, sealed, rows)) in self.crew.each::<FromEngine>(jobs)? {
            snapshots.extend(drafts);
            before.extend(rows);
            for (entity, region) in sealed {
                changes[entity].push(region);
            }
        }
        snapshots.sort_by(|a, b| a.region.cmp(&b.region));
        for regions in &mut changes {
            regions.sort_by(|a, b| a.region.cmp(&b.region));
        }
        Ok(self.batch(snapshots, changes, before))
    }

    fn batch(
        &mut self,
        snapshots: Vec<SnapshotDraft>,
        changes: Vec<Vec<RegionChanges>>,
        rows_before: Vec<u8>,
    ) -> SealedBatch {
        let open = &self.open;
        let before = self.sealed;
        let touch = |(region, (block, events)): (&RegionNo, &(i64, u64))| RegionTouch {
            region: Arc::clone(&self.regions[*region as usize]),
            block: *block,
            events: *events,
        };
        let mut touched: Vec<RegionTouch> = open.touched.iter().map(touch).collect();
        touched.sort_by(|a, b| a.region.cmp(&b.region));
        let after = Checkpoint {
            batch: before.batch + 1,
            block: open.last_block.or(before.block),
            block_events: if open.last_block.is_some() { open.last_block_events } else { before.block_events },
            blocks: before.blocks + open.blocks,
            events: before.events + open.events,
        };
        let first_block = open.first_block;
        let head = self.trail.seal(after.block);
        let history = head.map(|head| record(after.batch, before.batch, after.block, &head, rows_before));
        SealedBatch {
            before,
            after,
            first_block,
            changes,
            touched,
            origins: Arc::clone(&self.origins),
            snapshots,
            history_floor: history.as_ref().and(after.block).map(|last| last.saturating_sub_unsigned(self.plan.depth)),
            history,
            undone: None,
        }
    }

    /// Hands a batch to the commit thread; waits while another one waits there.
    fn hand_over(&mut self, batch: SealedBatch) -> Result<(), PipelineError> {
        let (bytes, before, after) = (batch.memory_bytes(), batch.before, batch.after);
        let ticket = self.submit(Order::Batch(Arc::new(batch)))?;
        self.in_flight.push_back(InFlight { ticket, bytes, before, after });
        if self.plan.is_serial { self.drain() } else { Ok(()) }
    }

    fn submit(&mut self, mut order: Order) -> Result<Ticket<Done, BatchError>, PipelineError> {
        loop {
            match self.commits.submit(order, WAIT_STEP) {
                Ok(ticket) => return Ok(ticket),
                Err(Refused::Failed(_, failure)) => return Err(PipelineError::Commit(failure)),
                Err(Refused::Full(back)) => order = back,
            }
            self.collect()?;
            self.tell_progress();
            self.check_drain()?;
        }
    }

    fn tell_crew(&mut self) {
        self.crew.begin_batch(self.sealed.batch + 1, self.totals.checkpoint.batch);
    }

    /// Takes the answers of commits that have ended.
    fn collect(&mut self) -> Result<(), PipelineError> {
        while let Some(answer) = self.in_flight.front().and_then(|batch| batch.ticket.try_wait()) {
            self.take_answer(answer)?;
        }
        Ok(())
    }

    fn wait_for_commit(&mut self) -> Result<(), PipelineError> {
        let Some(batch) = self.in_flight.front() else { return Ok(()) };
        match batch.ticket.wait(WAIT_STEP) {
            Err(CommitFailure::TimedOut(_)) => {
                self.tell_progress();
                Ok(())
            }
            answer => self.take_answer(answer),
        }
    }

    fn take_answer(&mut self, answer: Result<Done, CommitFailure<BatchError>>) -> Result<(), PipelineError> {
        let done = answer.map_err(PipelineError::Commit)?;
        if let Some(InFlight { before, after, .. }) = self.in_flight.pop_front() {
            self.totals.checkpoint = after;
            self.totals.events += after.events - before.events;
            self.totals.blocks += after.blocks - before.blocks;
        }
        let Done::Committed(committed) = done else { return Ok(()) };
        self.totals.batches += 1;
        self.totals.rows += committed.rows;
        self.totals.retries += committed.retries;
        let CommitTimes { stream, merge, commit } = committed.times;
        let parts = &mut self.totals.times.commit_parts;
        *parts =
            CommitTimes { stream: parts.stream + stream, merge: parts.merge + merge, commit: parts.commit + commit };
        let took = stream + merge + commit;
        self.totals.commit_min = Some(self.totals.commit_min.map_or(took, |min| min.min(took)));
        self.totals.redone += u64::from(committed.was_redone);
        let stored = committed.snapshots.iter().filter(|snapshot| snapshot.id.is_some()).count() as u64;
        self.totals.snapshots.stored += stored;
        self.totals.snapshots.duplicate += committed.snapshots.len() as u64 - stored;
        self.last_commit = Some(Instant::now());
        Ok(())
    }

    /// Waits until all that was handed over has ended. Without a stop as long as commits go on; after one, bounded.
    fn drain(&mut self) -> Result<(), PipelineError> {
        while !self.in_flight.is_empty() {
            self.wait_for_commit()?;
            self.check_drain()?;
        }
        self.tell_progress();
        Ok(())
    }

    /// Ends a wait for commits when the run was stopped too long ago.
    fn check_drain(&mut self) -> Result<(), PipelineError> {
        if self.is_stopped() && self.stopped_at.get_or_insert_with(Instant::now).elapsed() > self.plan.drain_timeout {
            return Err(PipelineError::DrainTimeout(self.plan.drain_timeout));
        }
        Ok(())
    }

    fn note_times(&mut self) {
        self.totals.loads = self.crew.loads().loads();
        self.totals.times.preload = self.crew.loads().waited();
        let times = &mut self.totals.times;
        if let (Some(begun), Some(ended)) = (self.begun, self.last_commit) {
            times.wall = ended.saturating_duration_since(begun);
            times.commit = self.commits.busy();
            times.commit_idle = times.wall.saturating_sub(times.commit);
        }
    }

    fn tell_progress(&mut self) {
        let Some(hook) = &mut self.hook else { return };
        if self.progress_at.elapsed() < PROGRESS_STEP {
            return;
        }
        self.progress_at = Instant::now();
        self.progress.batches_waiting = self.in_flight.len() as u64;
        hook(&self.progress);
    }
}

/// What an engine hands out at the end of a batch: snapshots, rows, what rows were before.
type FromEngine = (Vec<SnapshotDraft>, Vec<(usize, RegionChanges)>, Vec<u8>);

/// Above this share of the budget something has to go, so that one more round fits.
fn soft_limit(memory_bytes: u64) -> usize {
    usize::try_from(memory_bytes / 4 * 3).unwrap_or(usize::MAX)
}

fn snapshot_draft(
    engine: &mut dyn Engine,
    region: RegionNo,
    name: &Arc<str>,
    block: i64,
    ignored: &[String],
) -> Result<SnapshotDraft, LaneError> {
    let document = engine.snapshot(region, name, block)?;
    let (doc, hash) = document.map(|document| canonical(document, ignored)).unzip();
    let doc = doc.map(|doc: String| Arc::from(doc));
    Ok(SnapshotDraft {
        region: Arc::clone(name),
        block,
        generated_at: Timestamp::now(),
        hash: hash.unwrap_or_default(),
        doc,
    })
}
