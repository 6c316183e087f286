//! The public [`Pipeline`]: what a run is made of, and starting it.

mod check;
mod examine;
mod fresh;
mod publish;
mod start;
mod watched;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use check::Checked;
pub use examine::Examined;
pub use watched::Watched;

use super::engines::{EnginePool, Job};
use super::error::{PipelineError, unopened};
use super::hooks::{ProgressHook, RollbackHook};
use super::meter::{Meter, RunPhase};
use super::reload::ReloadHandle;
use super::report::{Progress, Report, Rollback};
use crate::config::{BatchConfig, Config, ErrorsConfig, SnapshotsConfig};
use crate::lane::rust::engine::RustFactory;
use crate::lane::rust::handler::{Handler, schema_of};
use crate::lane::{self, Engine, EngineFactory, NoRows};
use crate::model::ids::BatchClock;
use crate::model::limits::{DRAIN_TIMEOUT, HANDLER_TIMEOUT};
use crate::model::schema::{Schema, check_pipeline_name};
use crate::model::setting::SettingError;
use crate::publish::{PublishHook, PublishReceipt, Target, TargetUrl};
use crate::source::{End, Fields, Format, Late, Next, RegionsConfig, Source, SourceConfig, SourceError, SourceEvent};
use crate::store::{self, ChangedPolicy, Readers, Store, StoreConfig, StorePlan, StoreUrl};
use start::Task;

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
/// Make one from a pipeline file ([`Pipeline::open`]) or from handlers in Rust ([`Pipeline::new`]), change what should
/// differ from the defaults, each by its own method, then run it. A method whose value may be impossible refuses it at
/// once.
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
    source_config: SourceConfig,
    regions: RegionsConfig,
    batch: BatchConfig,
    errors: ErrorsConfig,
    snapshots: SnapshotsConfig,
    handler_timeout: Duration,
    source: Option<Box<dyn Source>>,
    store_config: StoreConfig,
    store: Option<Box<dyn Store>>,
    target: Option<Box<dyn Target>>,
    until: Option<i64>,
    drain_timeout: Duration,
    stop: StopHandle,
    meter: Meter,
    hook: Option<ProgressHook>,
    rollback_depth: u64,
    rollback_hook: Option<RollbackHook>,
    publish_hook: Option<PublishHook>,
    reload: ReloadHandle,
    policy: ChangedPolicy,
    is_serial: bool,
    takes_over: bool,
    is_fresh: bool,
    /// What says which handlers these are.
    version: String,
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
        let factory = lane::script(&config.handlers.script).map_err(unopened)?;
        let mut pipeline = Self::with_factory(config.name.clone(), config.schema.clone(), factory);
        pipeline.source_config = config.source.clone();
        pipeline.rollback_depth = config.rollback_depth;
        pipeline.regions = config.regions.clone();
        pipeline.batch = config.batch;
        pipeline.errors = config.errors;
        pipeline.snapshots = config.snapshots.clone();
        pipeline.handler_timeout = config.handlers.timeout;
        pipeline.store_config = config.store.clone();
        pipeline.store_config.url = Some(config.store.url_of(&config.name, config.folder())?);
        pipeline.version = fresh::hex(std::fs::read(&config.handlers.script).unwrap_or_default());
        Ok(pipeline)
    }

    /// A pipeline of that name with a handler in Rust. It still needs a source and a store.
    ///
    /// # Errors
    /// The name or the handler's tables are not usable.
    pub fn new(name: &str, handler: impl Handler) -> Result<Self, PipelineError> {
        check_pipeline_name(name)?;
        let factory = RustFactory::new(handler);
        let schema = schema_of(&factory.tables())?;
        Ok(Self::with_factory(name.to_owned(), schema, Arc::new(factory)))
    }

    fn with_factory(name: String, schema: Schema, factory: Arc<dyn EngineFactory>) -> Self {
        Self {
            name,
            schema: Arc::new(schema),
            factory,
            source_config: SourceConfig::default(),
            regions: RegionsConfig::default(),
            batch: BatchConfig::default(),
            errors: ErrorsConfig::default(),
            snapshots: SnapshotsConfig::default(),
            handler_timeout: HANDLER_TIMEOUT,
            source: None,
            store_config: StoreConfig::default(),
            store: None,
            target: None,
            until: None,
            drain_timeout: DRAIN_TIMEOUT,
            is_serial: false,
            takes_over: false,
            is_fresh: false,
            version: String::new(),
            stop: StopHandle::default(),
            meter: Meter::default(),
            hook: None,
            rollback_depth: 0,
            rollback_hook: None,
            publish_hook: None,
            reload: ReloadHandle::default(),
            policy: ChangedPolicy::default(),
        }
    }

    /// Reads from a file, a folder, a pattern or `-`, instead of what the pipeline file says.
    #[must_use]
    pub fn source_path(mut self, path: &str) -> Self {
        self.source_config.path = Some(path.to_owned());
        self.source = None;
        self
    }

    /// How bytes are cut into events, instead of what the pipeline file says. Defaults to one JSON object a line.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.source_config.format = format;
        self
    }

    /// Reads from a source of one's own.
    #[must_use]
    pub fn source(mut self, source: impl Source + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The fields of an event that say where it belongs. Defaults to `block` and `region`.
    #[must_use]
    pub fn fields(mut self, fields: Fields) -> Self {
        self.source_config.places = fields;
        self
    }

    /// Stores at that address, instead of what the pipeline file says. A relative path is taken from the current
    /// folder.
    ///
    /// # Errors
    /// The address names no store.
    pub fn store_url(self, url: &str) -> Result<Self, PipelineError> {
        Ok(self.store_at(StoreUrl::parse(url, Path::new(""))?))
    }

    /// Stores at that address, instead of what the pipeline file says.
    #[must_use]
    pub fn store_at(mut self, url: StoreUrl) -> Self {
        self.store_config.url = Some(url);
        self.store = None;
        self
    }

    /// Lets these roles of the database read the tables, those to come included. Defaults to none. A store of one's own
    /// ([`Pipeline::store`]) is not asked for it.
    #[must_use]
    pub fn store_readers(mut self, readers: Readers) -> Self {
        self.store_config.readers = readers;
        self
    }

    /// Whether who listens to the database is told of each batch (`pg_notify`, on the channel `forebay`). Defaults to
    /// false. A store of one's own ([`Pipeline::store`]) is not asked for it.
    #[must_use]
    pub fn store_notify(mut self, notify: bool) -> Self {
        self.store_config.notify = notify;
        self
    }

    /// Publishes snapshots there too, instead of what the pipeline file says.
    #[must_use]
    pub fn snapshots_url(mut self, url: TargetUrl) -> Self {
        self.snapshots.url = Some(url);
        self.target = None;
        self
    }

    /// Publishes snapshots to a target of one's own, instead of one that has an address. The store must be one that keeps them
    /// ([`Store::outbox`]).
    ///
    /// ```no_run
    /// # use forebay::publish::{Delivery, Known, Patience, Publication, PublishError, Target};
    /// # struct Bucket;
    /// # impl Target for Bucket {
    /// #     fn name(&self) -> &str { "bucket" }
    /// #     fn publish(&mut self, _: &[Publication], _: Patience) -> Delivery { Delivery::default() }
    /// #     fn read_known(&mut self) -> Result<(), PublishError> { Ok(()) }
    /// #     fn known(&self, _: &str) -> Option<Known> { None }
    /// # }
    /// // `Bucket` implements `forebay::publish::Target`.
    /// let report = forebay::Pipeline::open("pipeline.toml")?.publish_to(Bucket).run()?;
    /// println!("{} snapshots published", report.snapshots.published);
    /// # Ok::<(), forebay::PipelineError>(())
    /// ```
    #[must_use]
    pub fn publish_to(mut self, target: impl Target + 'static) -> Self {
        self.target = Some(Box::new(target));
        self
    }

    /// Whether what another store has published to the same place under this pipeline's name is replaced. Defaults to
    /// false: then the run ends with an error, and nothing is published.
    #[must_use]
    pub fn take_over(mut self, takes_over: bool) -> Self {
        self.takes_over = takes_over;
        self
    }

    /// Stores in a store of one's own, which must be made for this pipeline's name and tables.
    #[must_use]
    pub fn store(mut self, store: impl Store + 'static) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// The field of an event that holds its time, so that [`Meter::read`] says how old the last committed event is. Defaults
    /// to none.
    ///
    /// # Errors
    /// The name is empty.
    pub fn source_time(mut self, field: impl Into<String>) -> Result<Self, PipelineError> {
        self.source_config.time = Some(SettingError::unless_empty("time", field)?);
        Ok(self)
    }

    /// What to do with events whose place has passed. Defaults to an error.
    #[must_use]
    pub fn late(mut self, late: Late) -> Self {
        self.source_config.late = late;
        self
    }

    /// Whether the last block of the source is whole, or may go on in the next run. Defaults to whole.
    #[must_use]
    pub fn end(mut self, end: End) -> Self {
        self.source_config.end = end;
        self
    }

    /// Whether the run goes on when the files of its source are at their end, and waits for more of them. Defaults to no.
    /// Then [`Pipeline::run`] returns when it is stopped, or behind the block of [`Pipeline::until`].
    #[must_use]
    pub fn follow(mut self, follow: bool) -> Self {
        self.source_config.follow = follow;
        self
    }

    /// For how long a source may have had nothing until its last block counts as whole. Defaults to none: it is whole when
    /// the next one begins, or when the source says so.
    ///
    /// # Errors
    /// It is zero.
    pub fn settle(mut self, settle: Duration) -> Result<Self, PipelineError> {
        self.source_config.settle = Some(SettingError::unless_instant("settle", settle)?);
        Ok(self)
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

    /// What to do with events that cannot be handled. Defaults to ending the run.
    #[must_use]
    pub fn errors(mut self, errors: ErrorsConfig) -> Self {
        self.errors = errors;
        self
    }

    /// When snapshots are computed and how long they are kept.
    #[must_use]
    pub fn snapshots(mut self, snapshots: SnapshotsConfig) -> Self {
        self.snapshots = snapshots;
        self
    }

    /// How long one call of a handler may take. Defaults to 5 s. A handler that exceeds it ends the run. In a program
    /// that goes on, its thread is left behind.
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

    /// Commits each batch before the next one is handled, to measure what the overlap saves. Defaults to false.
    #[must_use]
    pub fn serial(mut self, is_serial: bool) -> Self {
        self.is_serial = is_serial;
        self
    }

    /// Calls `hook` several times a second with the state of the run, on the thread that runs it: handlers wait for it.
    /// A second hook replaces the first.
    #[must_use]
    pub fn on_progress(mut self, hook: impl FnMut(&Progress) + Send + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// How many block numbers back a rollback can go: the undo log reaches that far. Defaults to 0: no undo log.
    #[must_use]
    pub fn rollback_depth(mut self, blocks: u64) -> Self {
        self.rollback_depth = blocks;
        self
    }

    /// Calls `hook` when a rollback has committed, on the thread that runs the pipeline, before anything after the
    /// block is handled again. A second hook replaces the first.
    #[must_use]
    pub fn on_rollback(mut self, hook: impl FnMut(&Rollback) + Send + 'static) -> Self {
        self.rollback_hook = Some(Box::new(hook));
        self
    }

    /// Calls `hook` with each snapshot that was published, on the thread that publishes: the next ones wait for it. A second
    /// hook replaces the first. [`crate::publish::OnPublish`] runs a command.
    #[must_use]
    pub fn on_publish(mut self, hook: impl FnMut(&PublishReceipt) + Send + 'static) -> Self {
        self.publish_hook = Some(Box::new(hook));
        self
    }

    /// Whether snapshots are published anywhere.
    pub fn is_published(&self) -> bool {
        self.target.is_some() || self.snapshots.url.is_some()
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A handle that stops the run from another thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// A handle that reads the live numbers of the run, from any thread.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// A handle that gives new settings to the run, from any thread.
    pub fn reload_handle(&self) -> ReloadHandle {
        self.reload.clone()
    }

    /// How bytes of the source are cut into events.
    pub fn source_format(&self) -> Format {
        self.source_config.format
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
        let meter = self.meter.clone();
        let ended = if self.is_fresh {
            self.run_fresh()
        } else {
            self.take_source().and_then(|source| self.coordinate(source, Task::Run))
        };
        meter.enter(RunPhase::Ended);
        ended
    }

    /// Rolls the state back to a block, then computes and publishes the snapshots of the regions that had events since.
    /// Takes no event. Blocks until all of it is done. A block that is not in the data means the last one before it. If
    /// the state is already there, nothing is done, and [`Report::rollbacks`] is empty.
    ///
    /// Consumes the pipeline as [`Pipeline::run`] does, because it opens the store. To go on afterwards, make the
    /// pipeline again. A run that is under way rolls back by itself when its source says so.
    ///
    /// # Errors
    /// The undo log does not reach that far back ([`crate::undo::UndoError`]); or as [`Pipeline::run`]. The state is
    /// the old one or the new one, never anything between.
    pub fn rollback(mut self, to: i64) -> Result<Report, PipelineError> {
        self.check_names()?;
        if let Some(url) = self.url_of_store() {
            // A pipeline that never ran must not get tables by this.
            if !store::open_snapshots_until(url, &self.stop.flag())?.pipelines()?.contains(&self.name) {
                return Err(PipelineError::NeverRan(self.name));
            }
        }
        self.coordinate(Box::new(NoEvents), Task::Rollback(to))
    }

    /// The address of the store; none if it has none, or the store is one of the program's own.
    fn url_of_store(&self) -> Option<&StoreUrl> {
        self.store_config.url.as_ref().filter(|_| self.store.is_none())
    }

    /// Refuses names that the store keeps for itself, and what it is asked for and cannot do.
    fn check_names(&self) -> Result<(), PipelineError> {
        let Some(url) = self.url_of_store() else { return Ok(()) };
        self.store_config.check(url)?;
        Ok(store::check_names(url, &self.name, &self.schema)?)
    }

    fn take_source(&mut self) -> Result<Box<dyn Source>, PipelineError> {
        if let Some(source) = self.source.take() {
            return Ok(source);
        }
        self.source_config.check()?;
        self.source_config.open()?.ok_or_else(|| {
            PipelineError::Incomplete("no source: give [source] path in the pipeline file, or --source".into())
        })
    }

    fn take_store(&mut self) -> Result<Box<dyn Store>, PipelineError> {
        if let Some(store) = self.store.take() {
            return Ok(store);
        }
        let url = self
            .url_of_store()
            .ok_or_else(|| PipelineError::Incomplete("no store: call Pipeline::store_url or Pipeline::store".into()))?;
        let mut store = store::open(url, self.store_plan())?;
        if let Some(fresh) = store.beside()? {
            let block = fresh.block.map_or_else(|| "no block".to_owned(), |block| format!("block {block}"));
            tracing::info!(
                "a fresh index stands beside, at {block}; `run --fresh` goes on with it, `run --fresh --abort` gives it up"
            );
        }
        Ok(store)
    }

    fn store_plan(&self) -> StorePlan {
        StorePlan {
            pipeline: self.name.clone(),
            schema: Arc::clone(&self.schema),
            has_snapshots: self.factory.has_snapshots(),
            dedup: self.snapshots.dedup,
            ttl: self.snapshots.ttl,
            config: self.store_config.clone(),
            stop: self.stop.flag(),
            policy: self.policy.clone(),
            outages: self.meter.outages(),
        }
    }

    /// Loads the handlers once, before anything is opened or written, and drops them again.
    fn try_handlers(&self) -> Result<(), PipelineError> {
        let mut engines = self.trial_engines()?;
        let job = Box::new(|_: &mut dyn Engine| Ok(())) as Job<()>;
        engines.each(BatchClock::first(), vec![(0, job)]).map(drop).map_err(unopened)
    }

    /// Engines over no rows, to try handlers with.
    fn trial_engines(&self) -> Result<EnginePool, PipelineError> {
        let is_empty = vec![true; self.schema.entities().len()].into();
        let plan = self.engine_plan(is_empty, Arc::new(NoRows), &Arc::default());
        Ok(EnginePool::new(plan)?)
    }
}

/// The source of a rollback: no event.
struct NoEvents;

impl Source for NoEvents {
    fn next(&mut self, _: &mut SourceEvent) -> Result<Next, SourceError> {
        Ok(Next::End)
    }
}
