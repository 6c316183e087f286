//! Wiring a run: opens the store, starts the threads, lets the coordinator work, and puts the report together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::Pipeline;
use super::publish::PublishStart;
use crate::batch::RegionTouch;
use crate::batch::block_log::BlockLog;
use crate::batch::open::OpenBatch;
use crate::commit::handoff::CommitThread;
use crate::commit::{CommitListener, StoreCommitter};
use crate::lane::{Assignment, LoadStats};
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::{BlockNo, Depth, RegionNo};
use crate::model::limits::{PAGES_WAITING_MAX, ROUND_EVENTS_MIN};
use crate::model::position::Position;
use crate::model::text::grouped;
use crate::model::timestamp::Timestamp;
use crate::publish::{PublishThread, UnpublishedRegion};
use crate::run::acknowledge::Acknowledging;
use crate::run::coordinator::{Coordinator, CoordinatorPlan, Incoming, IsFar, Outcome};
use crate::run::engines::{EnginePlan, EnginePool};
use crate::run::error::PipelineError;
use crate::run::event_queue::EventQueue;
use crate::run::event_time::EventTime;
use crate::run::hooks::Hooks;
use crate::run::in_flight::{InFlight, Stopping};
use crate::run::kept::KeptEvents;
use crate::run::memory::MemoryBudget;
use crate::run::meter::RollbackCause;
use crate::run::report::{Report, SnapshotCounts, memory_peak_bytes};
use crate::run::seal_policy::SealPolicy;
use crate::run::sealing::Sealer;
use crate::run::shared::SharedParts;
use crate::run::snapshot_duty::SnapshotDuty;
use crate::snapshot::Schedule;
use crate::source::Source;
use crate::source::reader::{CommittedSource, FromReader, ReadPlan, Reader};
use crate::store::{OpenReader, Store, StoreError};
use crate::undo::{UndoBase, Window};

/// What the store says before the first event.
struct Stored {
    checkpoint: Checkpoint,
    /// When it was committed.
    committed_at: Option<Timestamp>,
    /// The position of the source after it.
    position: Option<Position>,
    window: Window,
    source: CommittedSource,
    regions: StartRegions,
    /// Regions that an earlier run rolled back, and for which it did not get to make snapshots.
    set_back: Vec<RegionNo>,
    log: BlockLog,
    is_empty: Arc<[bool]>,
    /// Events that are in quarantine.
    quarantined: u64,
}

impl Stored {
    /// What the reader has to know of it.
    fn reading(&mut self) -> StartReading {
        let (checkpoint, window) = (self.checkpoint, std::mem::take(&mut self.window));
        StartReading {
            checkpoint,
            position: self.position.take(),
            window,
            committed: std::mem::take(&mut self.source),
            // If nothing else is committed, there is no event that has a block.
            has_only_refused: checkpoint.blocks == 1 && checkpoint.events == self.quarantined,
        }
    }
}

/// What a run is to do.
pub(super) enum Task<'t> {
    /// Handle the events of the source.
    Run,
    /// Go back to this block; there is no event.
    Rollback(i64),
    /// Publish what is committed; there is no event.
    Publish,
    /// Handle the events of the source in a store beside the present tables: nothing is published, and the source is not
    /// told.
    Beside {
        store: Box<dyn Store>,
        /// Asked when the source has nothing for now: whether it is enough.
        is_far: Option<&'t mut IsFar<'t>>,
    },
}

impl Pipeline {
    /// Runs over a source, or goes back to a block.
    pub(super) fn coordinate(&mut self, mut source: Box<dyn Source>, task: Task<'_>) -> Result<Report, PipelineError> {
        let (is_beside, has_events) =
            (matches!(task, Task::Beside { .. }), matches!(task, Task::Run | Task::Beside { .. }));
        let rollback = if let Task::Rollback(to) = task { Some(to) } else { None };
        self.try_handlers()?;
        let target = if is_beside { None } else { self.take_target()? };
        let (mut store, is_far) = match task {
            Task::Beside { store, is_far } => (store, is_far),
            _ => (self.take_store()?, None),
        };
        let mut stored = self.read_store(store.as_mut())?;
        let checkpoint = stored.checkpoint;
        let shared = SharedParts::new(self.batch.memory_bytes, checkpoint.batch);
        let engines = EnginePool::new(self.plan_over(store.as_ref(), &stored.is_empty, &shared.loads))?;
        let sealer = self.sealer(store.as_ref());
        self.meter.attach(&shared);
        self.meter.start(checkpoint, stored.committed_at, source.bytes_total(), self.batch.memory_bytes);
        let acknowledging = if is_beside { None } else { Acknowledging::of(source.as_mut(), stored.position.clone())? };
        // Without events nothing is read that could be compared.
        let reading = if has_events { stored.reading() } else { StartReading::default() };
        let pages = self.start_reader(source, reading, &stored.regions, &shared)?;
        // A rollback is finished all the same.
        let stop = rollback.is_none().then(|| self.stop.flag());
        let publish = self.prepare_publish(target, store.as_ref(), &shared, stop)?;
        let reloading = self.reloading(publish.as_ref(), &shared);
        let told = listeners(acknowledging.as_ref(), publish.as_ref());
        let (depth, tip) = (Depth::new(self.rollback_depth), checkpoint.block.map(BlockNo::new));
        let (schema, recorder) = (Arc::clone(&self.schema), Arc::clone(&shared.recorder));
        let commits = CommitThread::spawn("forebay-commit", StoreCommitter::new(store, told, schema, depth, recorder))?;
        let publish = publish.map(|publish| publish.start(commits.door())).transpose()?;
        let StartRegions { names, all, pending } = stored.regions;
        let (every, has_snapshots) = (Schedule::new(self.snapshots.every), self.factory.has_snapshots());
        let stopping = Stopping::new(self.stop.flag(), self.drain_timeout);
        let coordinator = Coordinator {
            plan: CoordinatorPlan {
                depth,
                memory_bytes: self.batch.memory_bytes,
                all,
                sealer,
                rollback: rollback.map(BlockNo::new),
                quarantine_max: self.errors.max,
            },
            incoming: Incoming::new(pages, Arc::clone(&shared.budget), names),
            queue: EventQueue::after(checkpoint.block.map(BlockNo::new)),
            assignment: Assignment::new(engines.len()),
            engines,
            open: OpenBatch::new(checkpoint, depth, stored.log),
            engines_at_open: 0,
            in_flight: InFlight::new(commits, checkpoint, self.is_serial, stopping, self.meter.clone()),
            memory: MemoryBudget::new(self.batch.memory_bytes),
            policy: SealPolicy::new(self.batch.events),
            duty: SnapshotDuty::new(every, has_snapshots, pending, stored.set_back, tip),
            meter: self.meter.clone(),
            hooks: Hooks::new(self.hook.as_mut(), self.rollback_hook.as_mut()),
            is_far,
            round_events: ROUND_EVENTS_MIN as usize,
            kept: KeptEvents::new(self.batch.memory_bytes),
            quarantined: stored.quarantined,
            failed_block: None,
            reloading,
            event_time: EventTime::of(&self.source_config),
            rollback_cause: RollbackCause::Command,
            origins: Arc::default(),
            outcome: Outcome::default(),
        };
        let ended = coordinator.run();
        shared.read.stop.store(true, Ordering::Relaxed);
        acknowledging.into_iter().for_each(Acknowledging::finish);
        self.conclude(&checkpoint, ended, publish, rollback.is_some(), &shared)
    }

    fn sealer(&self, store: &dyn Store) -> Sealer {
        Sealer {
            schema: Arc::clone(&self.schema),
            encoder: store.encoder(),
            dedup_ignore: self.snapshots.dedup_rule.ignore.clone().into(),
            integers: self.snapshots.integers,
        }
    }

    /// Lets what has committed be published, and puts the report together.
    fn conclude(
        &self,
        before: &Checkpoint,
        (outcome, mut committer): (Result<Outcome, PipelineError>, Option<StoreCommitter>),
        publish: Option<PublishThread>,
        is_rollback: bool,
        shared: &SharedParts,
    ) -> Result<Report, PipelineError> {
        // Also after an error: what has committed is to be seen. The lock is held until then.
        let complete = outcome.as_ref().ok().and_then(|_| self.meter.read().checkpoint.block);
        let publishing = Instant::now();
        let published =
            publish.map(|publish| self.finish_publish(publish, committer.as_mut(), complete, &shared.publish));
        let for_publish = if published.is_some() { publishing.elapsed() } else { Duration::ZERO };
        if let Some(committer) = committer {
            committer.finish();
        }
        let outcome = outcome?;
        let published = match published.transpose() {
            Err(refused) if is_rollback => Some(vec![UnpublishedRegion::all(refused.to_string())]),
            published => published.map_err(PipelineError::Publish)?,
        };
        let mut report = self.report(before, outcome, published);
        report.times.waits.publish = for_publish;
        report.timeline = shared.recorder.timeline();
        Ok(report)
    }

    /// Reads what the store says before the first event.
    fn read_store(&self, store: &mut dyn Store) -> Result<Stored, PipelineError> {
        let (checkpoint, committed_at) = (store.checkpoint()?, store.committed_at()?);
        let (progress, position) = (store.source_progress()?, store.position()?);
        let window = Window::new(checkpoint, self.rollback_depth.into(), &store.undo_log(u64::MAX)?)
            .map_err(StoreError::from)?;
        let (has_undo, all) = (self.rollback_depth > 0, self.regions.all.as_deref());
        let last_blocks = if has_undo || all.is_some() { store.region_blocks()? } else { Vec::new() };
        warn_of_late_region(all, &last_blocks, &checkpoint);
        let set_back: BTreeSet<Arc<str>> = store.set_back_regions()?.into_iter().collect();
        let regions = StartRegions::new(&store.pending_regions()?, &window, &set_back, all);
        let set_back: Vec<RegionNo> = RegionNo::in_order()
            .zip(&regions.names)
            .filter(|(_, name)| set_back.contains(*name))
            .map(|(no, _)| no)
            .collect();
        let hash =
            window.blocks().pop().filter(|last| Some(last.block.get()) == checkpoint.block).and_then(|last| last.hash);
        let base = UndoBase::at(&checkpoint, hash, progress).with_position(position.clone());
        let last_blocks = if has_undo { last_blocks } else { Vec::new() };
        let log = BlockLog::new(Depth::new(self.rollback_depth), base, last_blocks);
        let source = CommittedSource::new(&checkpoint, progress, &window, store.source_files()?);
        let (is_empty, quarantined) = (store.empty_entities()?.into(), store.quarantined()?);
        Ok(Stored { checkpoint, committed_at, position, window, source, regions, set_back, log, is_empty, quarantined })
    }

    /// What engines over those rows are made with.
    pub(super) fn engine_plan(
        &self,
        is_empty: Arc<[bool]>,
        readers: Arc<dyn OpenReader>,
        loads: &Arc<LoadStats>,
    ) -> EnginePlan {
        EnginePlan {
            factory: Arc::clone(&self.factory),
            schema: Arc::clone(&self.schema),
            is_empty,
            readers,
            field_types: self.source_config.field_types(),
            undo_depth: Depth::new(self.rollback_depth),
            guesses_new: Arc::default(),
            memory_bytes: usize::try_from(self.batch.memory_bytes).unwrap_or(usize::MAX),
            timeout: self.handler_timeout,
            loads: Arc::clone(loads),
            pulse: self.meter.pulse(),
            puts_aside: self.errors.puts_aside(),
        }
    }

    /// What engines over the rows of a store are made with.
    fn plan_over(&self, store: &dyn Store, is_empty: &Arc<[bool]>, loads: &Arc<LoadStats>) -> EnginePlan {
        // With an undo log it has to be known what each row was.
        let guesses_new = self.rollback_depth == 0 && store.checks_new_rows();
        let plan = self.engine_plan(Arc::clone(is_empty), store.readers(), loads);
        EnginePlan { guesses_new: Arc::new(guesses_new.into()), ..plan }
    }

    pub(super) fn start_reader(
        &self,
        source: Box<dyn Source>,
        StartReading { checkpoint, position, window, committed, has_only_refused }: StartReading,
        regions: &StartRegions,
        shared: &SharedParts,
    ) -> Result<Receiver<FromReader>, PipelineError> {
        let plan = ReadPlan {
            source: self.source_config.clone(),
            regions: self.regions.clone(),
            done: checkpoint.block.map(|block| (block.into(), checkpoint.block_events)),
            committed,
            window,
            after: position,
            depth: self.rollback_depth.into(),
            until: self.until.map(BlockNo::new),
            known_regions: regions.names.clone(),
            puts_aside: self.errors.puts_aside(),
            has_only_refused,
        };
        let (sender, pages) = bounded(PAGES_WAITING_MAX);
        let SharedParts { budget, read, recorder, .. } = shared;
        let reader = Reader::new(source, plan, sender, Arc::clone(budget), Arc::clone(read), Arc::clone(recorder));
        // Detached: it ends at the end of the source, or when nobody takes pages any more. If it dies, the channel
        // closes without a last message, which the coordinator notices.
        std::thread::Builder::new().name("forebay-read".into()).spawn(move || reader.run())?;
        Ok(pages)
    }

    fn report(&self, before: &Checkpoint, outcome: Outcome, unpublished: Option<Vec<UnpublishedRegion>>) -> Report {
        let Outcome { rollbacks, region_events, was_stopped } = outcome;
        let unpublished = unpublished.unwrap_or_default();
        let reading = self.meter.read();
        let snapshots = SnapshotCounts { failed: unpublished.len() as u64, ..reading.snapshots };
        Report {
            pipeline: self.name.clone(),
            events: reading.events_committed,
            blocks: reading.blocks_committed,
            batches: reading.batches,
            entities_written: reading.rows,
            checkpoint: reading.checkpoint,
            resumed_from: before.block,
            rollbacks,
            late_skipped: reading.late_skipped,
            quarantined: reading.quarantined,
            snapshots,
            unpublished,
            times: reading.times,
            commit_min: reading.commit_min.unwrap_or_default(),
            largest_region_events: region_events.iter().copied().max().unwrap_or(0),
            timeline: crate::timeline::Timeline::default(),
            commit_retries: reading.commit_retries,
            commits_redone: reading.commits_redone,
            loads: reading.loads,
            source_bytes_read: reading.source_bytes_read,
            memory_peak_bytes: memory_peak_bytes(),
            fresh: None,
            // The signal may have come while the last snapshots were published.
            was_stopped: was_stopped || self.stop.0.load(Ordering::Relaxed),
        }
    }
}

/// Who hears of commits.
fn listeners(acknowledging: Option<&Acknowledging>, publish: Option<&PublishStart>) -> Vec<Arc<dyn CommitListener>> {
    let listeners = acknowledging.map(Acknowledging::listener).into_iter();
    listeners.chain(publish.map(PublishStart::listener)).collect()
}

/// What the reader has to know of what is committed.
#[derive(Default)]
pub(super) struct StartReading {
    pub(super) checkpoint: Checkpoint,
    /// The position of the source after it.
    pub(super) position: Option<Position>,
    pub(super) window: Window,
    /// What of the source is committed.
    pub(super) committed: CommittedSource,
    /// Whether every event that is committed was put aside.
    pub(super) has_only_refused: bool,
}

/// Regions that have their numbers before the first event.
pub(super) struct StartRegions {
    pub(super) names: Vec<Arc<str>>,
    /// The region that every event also runs in.
    pub(super) all: Option<RegionNo>,
    /// Regions with events after their last snapshot, and the last block of each.
    pending: BTreeMap<RegionNo, BlockNo>,
}

impl StartRegions {
    pub(super) fn new(
        pending: &[RegionTouch],
        window: &Window,
        set_back: &BTreeSet<Arc<str>>,
        all: Option<&str>,
    ) -> Self {
        let mut names: Vec<Arc<str>> = pending.iter().map(|touch| Arc::clone(&touch.region)).collect();
        let numbered = RegionNo::in_order().zip(pending).map(|(no, touch)| (no, BlockNo::new(touch.block))).collect();
        // A rollback may concern regions that no event of this run does.
        let known: BTreeSet<Arc<str>> = names.iter().cloned().collect();
        let concerned: BTreeSet<&Arc<str>> = window.regions().chain(set_back).collect();
        names.extend(concerned.into_iter().filter(|region| !known.contains(*region)).cloned());
        let all = all.map(|all| {
            let at = names.iter().position(|name| **name == *all).unwrap_or_else(|| {
                names.push(Arc::from(all));
                names.len() - 1
            });
            RegionNo::at(at)
        });
        Self { names, all, pending: numbered }
    }
}

/// Warns if the region of `all` events has none of those that are committed: it was added since. `known` are the regions that
/// have events; a store may know of none.
fn warn_of_late_region(all: Option<&str>, known: &[(Arc<str>, i64)], committed: &Checkpoint) {
    let Some(all) = all.filter(|all| !known.is_empty() && known.iter().all(|(region, _)| &**region != *all)) else {
        return;
    };
    tracing::warn!(
        "region {all:?} ([regions] all) has none of the {} events that are committed: it begins with the next one; \
         `run --fresh` indexes all of them anew",
        grouped(committed.events)
    );
}
