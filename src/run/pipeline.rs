//! The public [`Pipeline`]: what a run is made of, and starting it.

mod check;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

pub use check::Checked;

use super::coordinator::{Coordinator, CoordinatorPlan, Start, Totals};
use super::engines::{Crew, CrewPlan, Job};
use super::error::{PipelineError, unopened};
use super::report::{Progress, Report, Rollback};
use super::trail::Trail;
use crate::batch::RegionTouch;
use crate::commit::StoreCommitter;
use crate::commit::handoff::CommitThread;
use crate::config::{BatchConfig, Config, RegionsConfig, SnapshotsConfig};
use crate::lane::lua::ScriptFactory;
use crate::lane::rust::engine::NativeFactory;
use crate::lane::rust::handler::{Handler, schema_of};
use crate::lane::{Engine, EngineFactory, NoRows};
use crate::model::byte_budget::ByteBudget;
use crate::model::checkpoint::Checkpoint;
use crate::model::event::RegionNo;
use crate::model::limits::{
    DRAIN_TIMEOUT, HANDLER_TIMEOUT, PAGES_WAITING_MAX, publish_waiting_bytes, read_ahead_bytes,
};
use crate::model::schema::{Schema, check_pipeline_name};
use crate::model::setting::SettingError;
use crate::publish::outbox::{OutboxReport, PublishThread};
use crate::publish::{Publisher, RedisUrl, UnpublishedRegion};
use crate::snapshot::Schedule;
use crate::source::reader::{FromReader, ReadPlan, ReadStats, Reader};
use crate::source::{Fields, Late, NdjsonSource, Next, Source, SourceError, SourceEvent};
use crate::store::{self, Store, StoreError, StorePlan, StoreUrl};
use crate::timeline::{Recorder, Timeline};
use crate::undo::{HistoryBase, Window};

/// How long publishing may go on after the last commit: a slow Redis must get a backlog of many regions, and one that
/// stalls ends it earlier.
const PUBLISH_END_MAX: Duration = Duration::from_secs(600);

/// Is told how a run stands, several times a second, on the thread that runs it.
pub type ProgressHook = Box<dyn FnMut(&Progress) + Send>;

/// Is told that a rollback has committed, on the thread that runs the pipeline and before anything behind it is handled.
pub type RollbackHook = Box<dyn FnMut(&Rollback) + Send>;

/// Stops a run from another thread: it takes no more events, finishes what it has begun, and returns.
#[derive(Debug, Clone, Default)]
pub struct StopHandle(Arc<AtomicBool>);

impl StopHandle {
    /// Asks the run to stop. Does not block.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The flag itself, for a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// A pipeline, ready to run: a source, handlers, a store.
///
/// It is made from a pipeline file ([`Pipeline::open`]) or of handlers in Rust ([`Pipeline::new`]), then told what is
/// different from the defaults, each by a method of its own, then run. A method that can be given a value that cannot be
/// meant refuses it there and then.
///
/// ```
/// use std::time::Duration;
///
/// use forebay::Pipeline;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let file = |name: &str| folder.path().join(name);
/// std::fs::write(
///     file("visits.toml"),
///     r#"
///     name = "visits"
///     source.path = "visits.ndjson"
///     entities.page.columns = { visits = "bigint" }
///     handlers.script = "visits.lua"
///     "#,
/// )?;
/// std::fs::write(
///     file("visits.lua"),
///     r#"
///     function on_event(event, ctx)
///         local page = ctx.page:get(event.page) or { visits = 0 }
///         page.visits = page.visits + 1
///         ctx.page:set(event.page, page)
///     end
///     "#,
/// )?;
/// std::fs::write(file("visits.ndjson"), r#"{"block":7,"region":"eu","page":"/index.html"}"#)?;
///
/// let pipeline = Pipeline::open(file("visits.toml"))?.handler_timeout(Duration::from_secs(1))?;
/// let report = pipeline.on_progress(|progress| println!("block {:?}", progress.block)).run()?;
/// assert_eq!((report.events, report.entities_written), (1, 1));
///
/// // The next run goes on from the checkpoint: there is nothing to do.
/// let report = Pipeline::open(file("visits.toml"))?.run()?;
/// assert_eq!((report.events, report.resumed_from), (0, Some(7)));
/// # Ok(())
/// # }
/// ```
pub struct Pipeline {
    name: String,
    schema: Arc<Schema>,
    factory: Arc<dyn EngineFactory>,
    fields: Fields,
    late: Late,
    regions: RegionsConfig,
    batch: BatchConfig,
    snapshots: SnapshotsConfig,
    handler_timeout: Duration,
    source_path: Option<String>,
    source: Option<Box<dyn Source>>,
    store_url: Option<StoreUrl>,
    store: Option<Box<dyn Store>>,
    until: Option<i64>,
    drain_timeout: Duration,
    stop: StopHandle,
    hook: Option<ProgressHook>,
    rollback_depth: u64,
    rollback_hook: Option<RollbackHook>,
    is_serial: bool,
}

impl Pipeline {
    /// The pipeline of a pipeline file, with its script.
    ///
    /// # Errors
    /// The file or the script cannot be read or understood.
    pub fn open(file: impl AsRef<Path>) -> Result<Self, PipelineError> {
        Self::from_config(&Config::read(file.as_ref())?)
    }

    /// The pipeline of a configuration, with its script.
    ///
    /// # Errors
    /// The script cannot be read, or the store's address names none.
    pub fn from_config(config: &Config) -> Result<Self, PipelineError> {
        let factory = ScriptFactory::read(&config.handlers.script).map_err(unopened)?;
        let mut pipeline = Self::with_factory(config.name.clone(), config.schema.clone(), Arc::new(factory));
        pipeline.fields = Fields {
            block: config.source.block.clone(),
            region: config.source.region.clone(),
            seq: config.source.seq.clone(),
            hash: config.source.hash.clone(),
            parent: config.source.parent.clone(),
        };
        pipeline.rollback_depth = config.rollback_depth;
        pipeline.late = config.source.late;
        pipeline.regions = config.regions.clone();
        pipeline.batch = config.batch;
        pipeline.snapshots = config.snapshots.clone();
        pipeline.handler_timeout = config.handlers.timeout;
        pipeline.source_path = config.source.path.clone();
        pipeline.store_url = Some(StoreUrl::parse(&config.store_url, config.folder())?);
        Ok(pipeline)
    }

    /// A pipeline of that name with a handler in Rust. It needs a source and a store yet.
    ///
    /// # Errors
    /// The name or the handler's tables are not usable.
    pub fn new(name: &str, handler: impl Handler) -> Result<Self, PipelineError> {
        check_pipeline_name(name)?;
        let factory = NativeFactory::new(handler);
        let schema = schema_of(&factory.tables())?;
        Ok(Self::with_factory(name.to_owned(), schema, Arc::new(factory)))
    }

    fn with_factory(name: String, schema: Schema, factory: Arc<dyn EngineFactory>) -> Self {
        Self {
            name,
            schema: Arc::new(schema),
            factory,
            fields: Fields::default(),
            late: Late::default(),
            regions: RegionsConfig::default(),
            batch: BatchConfig::default(),
            snapshots: SnapshotsConfig::default(),
            handler_timeout: HANDLER_TIMEOUT,
            source_path: None,
            source: None,
            store_url: None,
            store: None,
            until: None,
            drain_timeout: DRAIN_TIMEOUT,
            is_serial: false,
            stop: StopHandle::default(),
            hook: None,
            rollback_depth: 0,
            rollback_hook: None,
        }
    }

    /// Reads NDJSON from a file, a folder, a pattern or `-`, instead of what the pipeline file says.
    #[must_use]
    pub fn source_path(mut self, path: &str) -> Self {
        self.source_path = Some(path.to_owned());
        self.source = None;
        self
    }

    /// Reads from a source of one's own.
    #[must_use]
    pub fn source(mut self, source: impl Source + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The fields of an NDJSON event that say where it belongs. Defaults to `block` and `region`.
    #[must_use]
    pub fn fields(mut self, fields: Fields) -> Self {
        self.fields = fields;
        self
    }

    /// Stores at that address, instead of what the pipeline file says. A relative path is taken from the current
    /// folder.
    ///
    /// # Errors
    /// The address names no store.
    pub fn store_url(mut self, url: &str) -> Result<Self, PipelineError> {
        self.store_url = Some(StoreUrl::parse(url, Path::new(""))?);
        self.store = None;
        Ok(self)
    }

    /// Publishes snapshots to this Redis too, instead of what the pipeline file says.
    #[must_use]
    pub fn snapshots_url(mut self, url: RedisUrl) -> Self {
        self.snapshots.url = Some(url);
        self
    }

    /// Stores in a store of one's own, which must be made for this pipeline's name and tables.
    #[must_use]
    pub fn store(mut self, store: impl Store + 'static) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// What to do with events whose place has passed. Defaults to an error.
    #[must_use]
    pub fn late(mut self, late: Late) -> Self {
        self.late = late;
        self
    }

    /// Which regions there are. Defaults to any.
    #[must_use]
    pub fn regions(mut self, regions: RegionsConfig) -> Self {
        self.regions = regions;
        self
    }

    /// When a batch is sealed, and how much memory may be used.
    #[must_use]
    pub fn batch(mut self, batch: BatchConfig) -> Self {
        self.batch = batch;
        self
    }

    /// When snapshots are computed and how long they are kept.
    #[must_use]
    pub fn snapshots(mut self, snapshots: SnapshotsConfig) -> Self {
        self.snapshots = snapshots;
        self
    }

    /// How long one call of a handler may take. Defaults to 5 s. A handler that exceeds it ends the run; in a program
    /// that goes on, the thread it hangs in is left behind.
    ///
    /// # Errors
    /// The duration is zero.
    pub fn handler_timeout(mut self, timeout: Duration) -> Result<Self, PipelineError> {
        self.handler_timeout = SettingError::unless_instant("handler_timeout", timeout)?;
        Ok(self)
    }

    /// Stops after this block. Defaults to the end of the source.
    #[must_use]
    pub fn until(mut self, block: i64) -> Self {
        self.until = Some(block);
        self
    }

    /// How long what is in flight may take after a stop. Defaults to 30 s.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Commits each batch before the next one is handled: to see what hiding commits saves. Defaults to false.
    #[must_use]
    pub fn serial(mut self, is_serial: bool) -> Self {
        self.is_serial = is_serial;
        self
    }

    /// Calls `hook` several times a second with how the run stands, on the thread that runs it: handlers wait for it. A
    /// second hook takes the place of the first.
    #[must_use]
    pub fn on_progress(mut self, hook: impl FnMut(&Progress) + Send + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// How many block numbers back a rollback can go: the undo log keeps what rows were for so many. Defaults to 0.
    #[must_use]
    pub fn rollback_depth(mut self, blocks: u64) -> Self {
        self.rollback_depth = blocks;
        self
    }

    /// Calls `hook` when a rollback has committed, on the thread that runs the pipeline: the state is as of the block again,
    /// and nothing behind it was handled yet. A second hook takes the place of the first.
    #[must_use]
    pub fn on_rollback(mut self, hook: impl FnMut(&Rollback) + Send + 'static) -> Self {
        self.rollback_hook = Some(Box::new(hook));
        self
    }

    /// What stops the run from another thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// The tables.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Runs from the checkpoint to the end of the source. Blocks until all of it is committed, and until each region's
    /// newest snapshot is published or could not be: [`Report::unpublished`].
    ///
    /// # Errors
    /// See [`PipelineError`]; what is committed is a prefix of whole batches.
    pub fn run(mut self) -> Result<Report, PipelineError> {
        self.check_names()?;
        let source = self.take_source()?;
        self.coordinate(source, None)
    }

    /// Brings the state back to what it was as of a block, and computes and publishes the snapshots of the regions that
    /// had events since. Takes no event. Blocks until all of it is done. A block that is not in the data means the state
    /// as of the last one before it; where that is the state now, nothing is done, and [`Report::rollbacks`] is empty.
    ///
    /// Takes the pipeline as [`Pipeline::run`] does, for its store is open once. To go on after it, make the pipeline again;
    /// a run that is already going rolls back by itself, when its source says so.
    ///
    /// # Errors
    /// The history that is kept does not reach so far back ([`crate::undo::HistoryError`]); or as
    /// [`Pipeline::run`]. The state is the old one or the new one, never another.
    pub fn rollback(self, to: i64) -> Result<Report, PipelineError> {
        self.check_names()?;
        if let Some(url) = self.store_url.as_ref().filter(|_| self.store.is_none()) {
            // Nothing is to be made for a pipeline that never ran.
            if !store::open_snapshots(url)?.pipelines()?.contains(&self.name) {
                return Err(PipelineError::NeverRan(self.name));
            }
        }
        self.coordinate(Box::new(NoEvents), Some(to))
    }

    fn coordinate(mut self, source: Box<dyn Source>, rollback: Option<i64>) -> Result<Report, PipelineError> {
        self.try_handlers()?;
        let publisher = self.publisher()?;
        let mut store = self.take_store()?;
        let checkpoint = store.checkpoint()?;
        let window =
            Window::new(checkpoint, self.rollback_depth, &store.history(u64::MAX)?).map_err(StoreError::from)?;
        let last_blocks = if self.rollback_depth > 0 { store.region_blocks()? } else { Vec::new() };
        let set_back: HashSet<Arc<str>> =
            if self.rollback_depth > 0 { store.set_back_regions()?.into_iter().collect() } else { HashSet::new() };
        let regions = StartRegions::new(&store.pending_regions()?, &window, self.regions.all.as_deref());
        let set_back: Vec<RegionNo> =
            (0..).zip(&regions.names).filter(|(_, name)| set_back.contains(*name)).map(|(no, _)| no).collect();
        let is_empty: Arc<[bool]> = store.empty_entities()?.into();
        let crew = Crew::new(CrewPlan {
            factory: Arc::clone(&self.factory),
            schema: Arc::clone(&self.schema),
            is_empty,
            readers: store.readers(),
            history_depth: self.rollback_depth,
            memory_bytes: usize::try_from(self.batch.memory_bytes).unwrap_or(usize::MAX),
            timeout: self.handler_timeout,
            loads: Arc::default(),
        })?;
        let recorder = Recorder::new(checkpoint.batch);
        let plan = CoordinatorPlan {
            schema: Arc::clone(&self.schema),
            depth: self.rollback_depth,
            batch_events: self.batch.events,
            memory_bytes: self.batch.memory_bytes,
            has_snapshots: self.factory.has_snapshots(),
            dedup_ignore: self.snapshots.dedup_ignore.clone(),
            all: regions.all,
            drain_timeout: self.drain_timeout,
            stop: self.stop.flag(),
            source_bytes_total: source.bytes_total(),
            encoder: store.encoder(),
            is_serial: self.is_serial,
            recorder: Arc::clone(&recorder),
        };
        let budget = ByteBudget::new(read_ahead_bytes(self.batch.memory_bytes));
        let stats = Arc::new(ReadStats::default());
        let hash = window.blocks().pop().filter(|last| Some(last.block) == checkpoint.block).and_then(|last| last.hash);
        let trail = Trail::new(self.rollback_depth, HistoryBase::at(&checkpoint, hash), last_blocks);
        let pages = self.start_reader(source, checkpoint, window, &regions, (&budget, &stats, &recorder))?;
        let publish = self.start_publish(publisher, store.as_ref(), &recorder)?;
        let mailbox = publish.as_ref().map(PublishThread::mailbox);
        let commits = CommitThread::spawn(
            "forebay-commit",
            StoreCommitter::new(store, mailbox, Arc::clone(&self.schema), self.rollback_depth, Arc::clone(&recorder)),
        )?;
        let schedule = Schedule::new(self.snapshots.every);
        let start = Start { checkpoint, regions: regions.names, unsnapped: regions.pending, trail, rollback, set_back };
        let coordinator = Coordinator::new(
            plan,
            crew,
            start,
            pages,
            budget,
            commits,
            schedule,
            self.hook.as_mut(),
            self.rollback_hook.as_mut(),
        );
        let (outcome, committer) = coordinator.run();
        stats.stop.store(true, Ordering::Relaxed);
        // Also after an error: what has committed is to be seen. The lock is held until then.
        let complete = outcome.as_ref().ok().and_then(|(totals, _)| totals.checkpoint.block);
        let publishing = Instant::now();
        let published = publish.map(|publish| self.finish_publish(publish, committer, complete));
        let for_publish = if published.is_some() { publishing.elapsed() } else { Duration::ZERO };
        match outcome {
            Ok((totals, was_stopped)) => {
                // The signal may have come while the last snapshots were published.
                let was_stopped = was_stopped || self.stop.0.load(Ordering::Relaxed);
                let mut report = self.report(&checkpoint, totals, was_stopped, &stats, published);
                report.times.waits.publish = for_publish;
                report.timeline = recorder.timeline();
                Ok(report)
            }
            Err(error) => Err(error),
        }
    }

    /// What publishes, if snapshots are to be published. Connects to nothing yet.
    fn publisher(&self) -> Result<Option<Publisher>, PipelineError> {
        let Some(url) = self.snapshots.url.clone() else { return Ok(None) };
        if !self.factory.has_snapshots() {
            tracing::warn!("nothing is published to {url}: the handlers make no snapshots (on_snapshot)");
            return Ok(None);
        }
        Publisher::new(self.snapshots.publish_plan(&self.name, url)).map(Some).map_err(PipelineError::Publish)
    }

    fn start_publish(
        &self,
        publisher: Option<Publisher>,
        store: &dyn Store,
        recorder: &Arc<Recorder>,
    ) -> Result<Option<PublishThread>, PipelineError> {
        let Some(publisher) = publisher else { return Ok(None) };
        let outbox = store.outbox().ok_or_else(|| {
            PipelineError::Incomplete("this store keeps no snapshots to publish: Store::outbox".into())
        })?;
        let bytes_max = publish_waiting_bytes(self.batch.memory_bytes);
        Ok(Some(PublishThread::spawn(publisher, outbox, bytes_max, Arc::clone(recorder))?))
    }

    /// Lets what has committed be published. Bounded by the drain's time from the moment of a stop.
    fn finish_publish(
        &self,
        publish: PublishThread,
        mut committer: Option<StoreCommitter>,
        complete: Option<i64>,
    ) -> OutboxReport {
        let begun = Instant::now();
        let stopped = Cell::new(None);
        let deadline = || {
            if self.stop.0.load(Ordering::Relaxed) {
                let since = stopped.get().unwrap_or_else(Instant::now);
                stopped.set(Some(since));
                return (since + self.drain_timeout).min(begun + PUBLISH_END_MAX);
            }
            begun + PUBLISH_END_MAX
        };
        match publish.finish(complete, || Instant::now() > deadline()) {
            Ok(mut worker) => {
                if let Some(committer) = &mut committer
                    && committer.renumber()
                {
                    worker.sweep_again(deadline());
                }
                worker.end()
            }
            Err(cause) => OutboxReport { failed: vec![UnpublishedRegion::all(cause)], ..OutboxReport::default() },
        }
    }

    /// Refuses names that the store keeps for itself.
    fn check_names(&self) -> Result<(), PipelineError> {
        match &self.store_url {
            Some(url) if self.store.is_none() => Ok(store::check_names(url, &self.name, &self.schema)?),
            _ => Ok(()),
        }
    }

    fn take_source(&mut self) -> Result<Box<dyn Source>, PipelineError> {
        if let Some(source) = self.source.take() {
            return Ok(source);
        }
        let path = self.source_path.as_deref().ok_or_else(|| {
            PipelineError::Incomplete("no source: give [source] path in the pipeline file, or --source".into())
        })?;
        Ok(Box::new(NdjsonSource::open(path, self.fields.clone())?))
    }

    fn take_store(&mut self) -> Result<Box<dyn Store>, PipelineError> {
        if let Some(store) = self.store.take() {
            return Ok(store);
        }
        let url = self
            .store_url
            .as_ref()
            .ok_or_else(|| PipelineError::Incomplete("no store: call Pipeline::store_url or Pipeline::store".into()))?;
        let plan = StorePlan {
            pipeline: self.name.clone(),
            schema: Arc::clone(&self.schema),
            has_snapshots: self.factory.has_snapshots(),
            dedup: self.snapshots.dedup,
            ttl: self.snapshots.ttl,
            stop: self.stop.flag(),
        };
        Ok(store::open(url, plan)?)
    }

    /// Loads the handlers once, before anything is opened or written, and lets them go again.
    fn try_handlers(&self) -> Result<(), PipelineError> {
        let mut crew = self.trial_crew()?;
        crew.each(vec![(0, Box::new(|_: &mut dyn Engine| Ok(())) as Job<()>)]).map(drop).map_err(unopened)
    }

    /// A crew over no rows, to try handlers with.
    fn trial_crew(&self) -> Result<Crew, PipelineError> {
        let plan = CrewPlan {
            factory: Arc::clone(&self.factory),
            schema: Arc::clone(&self.schema),
            is_empty: vec![true; self.schema.entities().len()].into(),
            readers: Arc::new(NoRows),
            history_depth: self.rollback_depth,
            memory_bytes: usize::try_from(self.batch.memory_bytes).unwrap_or(usize::MAX),
            timeout: self.handler_timeout,
            loads: Arc::default(),
        };
        Ok(Crew::new(plan)?)
    }

    fn start_reader(
        &self,
        source: Box<dyn Source>,
        checkpoint: Checkpoint,
        window: Window,
        regions: &StartRegions,
        (budget, stats, recorder): (&Arc<ByteBudget>, &Arc<ReadStats>, &Arc<Recorder>),
    ) -> Result<Receiver<FromReader>, PipelineError> {
        let plan = ReadPlan {
            late: self.late,
            region_ids: self.regions.ids.clone(),
            done: checkpoint.block.map(|block| (block, checkpoint.block_events)),
            window,
            depth: self.rollback_depth,
            until: self.until,
            known_regions: regions.names.clone(),
        };
        let (sender, pages) = bounded(PAGES_WAITING_MAX);
        let reader = Reader::new(source, plan, sender, Arc::clone(budget), Arc::clone(stats), Arc::clone(recorder));
        // Left to itself: it ends at the end of the source, or when nobody takes pages any more. If it dies, the
        // channel closes without a last word, which the coordinator notices.
        std::thread::Builder::new().name("forebay-read".into()).spawn(move || reader.run())?;
        Ok(pages)
    }

    fn report(
        &self,
        before: &Checkpoint,
        totals: Totals,
        was_stopped: bool,
        stats: &ReadStats,
        published: Option<OutboxReport>,
    ) -> Report {
        let published = published.unwrap_or_default();
        let mut times = totals.times;
        times.read = stats.busy();
        times.read_blocked = stats.blocked();
        times.publish = published.busy;
        let mut snapshots = totals.snapshots;
        snapshots.published = published.published;
        snapshots.duplicate += published.duplicate;
        snapshots.failed = published.failed.len() as u64;
        Report {
            pipeline: self.name.clone(),
            events: totals.events,
            blocks: totals.blocks,
            batches: totals.batches,
            entities_written: totals.rows,
            checkpoint: totals.checkpoint,
            resumed_from: before.block,
            rollbacks: totals.rollbacks,
            late_skipped: stats.late.load(Ordering::Relaxed),
            snapshots,
            unpublished: published.failed,
            times,
            commit_min: totals.commit_min.unwrap_or_default(),
            largest_region_events: totals.region_events.iter().copied().max().unwrap_or(0),
            timeline: Timeline::default(),
            commit_retries: totals.retries,
            commits_redone: totals.redone,
            loads: totals.loads,
            memory_peak_bytes: super::report::memory_peak_bytes(),
            was_stopped,
        }
    }
}

/// The source of a rollback: no event.
struct NoEvents;

impl Source for NoEvents {
    fn next(&mut self, _: &mut SourceEvent) -> Result<Next, SourceError> {
        Ok(Next::End)
    }
}

/// Regions that have their numbers before the first event.
struct StartRegions {
    names: Vec<Arc<str>>,
    /// The region that every event also runs in.
    all: Option<RegionNo>,
    /// Regions with events after their last snapshot, and the last block of those.
    pending: BTreeMap<RegionNo, i64>,
}

impl StartRegions {
    fn new(pending: &[RegionTouch], window: &Window, all: Option<&str>) -> Self {
        let mut names: Vec<Arc<str>> = pending.iter().map(|touch| Arc::clone(&touch.region)).collect();
        let numbered = (0..).zip(pending).map(|(no, touch)| (no, touch.block)).collect();
        // A rollback may concern regions that no event of this run does.
        let known: BTreeSet<Arc<str>> = names.iter().cloned().collect();
        names.extend(window.regions().filter(|region| !known.contains(*region)).cloned().collect::<BTreeSet<_>>());
        let all = all.map(|all| {
            let at = names.iter().position(|name| **name == *all).unwrap_or_else(|| {
                names.push(Arc::from(all));
                names.len() - 1
            });
            RegionNo::try_from(at).unwrap_or(RegionNo::MAX)
        });
        Self { names, all, pending: numbered }
    }
}
