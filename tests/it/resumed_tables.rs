//! Runs over tables that have rows already: once it is known which, such a run does what one over empty tables does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use forebay::config::BatchConfig;
use forebay::source::{Next, Source, SourceError, SourceEvent};
use forebay::store::batch::{Checkpoint, RegionTouch, SealedBatch, UndoRecord};
use forebay::store::{
    self, Committed, KeyPage, OpenReader, RegionIds, RegionLimit, RowEncoder, RowReader, Store, StoreError, StorePlan,
    StoreUrl,
};
use forebay::{Context, EntityNo, EntityRow, EntityTable, Handler, HandlerError, Meter, Pipeline, Report, Schema};

use crate::support::project::Project;
use crate::support::wait_until;

forebay::entity! {
    /// What came, by its id: read before it is written.
    struct Seen in "seen" {
        n: i64,
        times: i64,
    }
}

forebay::entity! {
    /// What came, in order: only ever written.
    struct Log in "log" {
        note: String,
    }
}

#[derive(serde::Deserialize)]
struct Event {
    n: i64,
}

struct Keeps;

impl Handler for Keeps {
    type Event<'e> = Event;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Log::table(), Seen::table()]
    }

    fn on_event(&self, event: Event, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let id = format!("id{}", event.n);
        let times = ctx.get::<Seen>(&id)?.map_or(0, |seen| seen.times) + 1;
        ctx.set(&id, Seen { n: event.n, times })?;
        ctx.set(&ctx.block().to_string(), Log { note: format!("{:200}", event.n) })
    }
}

/// One event a block: the blocks, and the one before which it waits until what came is committed.
struct Blocks {
    blocks: std::ops::RangeInclusive<i64>,
    waits_before: Option<(i64, Meter)>,
    /// The number of a block's event.
    number: fn(i64) -> i64,
}

impl Source for Blocks {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        if let Some((block, meter)) = self.waits_before.take_if(|(block, _)| *block == *self.blocks.start()) {
            // Nobody knows yet whether the block before is whole.
            wait_until(|| meter.read().checkpoint.block == Some(block - 2));
        }
        let Some(block) = self.blocks.next() else { return Ok(Next::End) };
        event.block = block;
        event.region.replace_range(.., "r");
        event.json = format!("{{\"n\":{}}}", (self.number)(block));
        Ok(Next::Event)
    }

    /// So that what came before the wait is handled meanwhile.
    fn is_ready(&self) -> bool {
        self.waits_before.as_ref().is_none_or(|(block, _)| *block != *self.blocks.start())
    }
}

/// What readers of a store are asked.
#[derive(Default)]
struct Asked {
    /// Rows by id, or whole tables.
    reads: AtomicU64,
    pages: AtomicU64,
    /// Whether ids may be read in advance.
    has_no_ids: AtomicBool,
}

struct Counted {
    inner: Box<dyn Store>,
    asked: Arc<Asked>,
}

impl Store for Counted {
    fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        self.inner.checkpoint()
    }
    fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError> {
        self.inner.pending_regions()
    }
    fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError> {
        self.inner.empty_entities()
    }
    fn commit(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, StoreError> {
        self.inner.commit(batch)
    }
    fn undo_log(&mut self, rows_from: u64) -> Result<Vec<UndoRecord>, StoreError> {
        self.inner.undo_log(rows_from)
    }
    fn region_blocks(&mut self) -> Result<Vec<(Arc<str>, i64)>, StoreError> {
        self.inner.region_blocks()
    }
    fn encoder(&self) -> Option<Arc<dyn RowEncoder>> {
        self.inner.encoder()
    }
    fn readers(&self) -> Arc<dyn OpenReader> {
        Arc::new(CountedReaders { inner: self.inner.readers(), asked: Arc::clone(&self.asked) })
    }
}

struct CountedReaders {
    inner: Arc<dyn OpenReader>,
    asked: Arc<Asked>,
}

impl OpenReader for CountedReaders {
    fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
        Ok(Box::new(CountedReader { inner: self.inner.open()?, asked: Arc::clone(&self.asked) }))
    }
}

struct CountedReader {
    inner: Box<dyn RowReader>,
    asked: Arc<Asked>,
}

impl RowReader for CountedReader {
    fn rows(&mut self, entity: EntityNo, wanted: &[RegionIds<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
        self.asked.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.rows(entity, wanted, found)
    }
    fn regions(
        &mut self,
        entity: EntityNo,
        regions: &[&str],
        limit: RegionLimit,
        found: &mut [Vec<u8>],
    ) -> Result<Vec<bool>, StoreError> {
        self.asked.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.regions(entity, regions, limit, found)
    }
    fn keys(
        &mut self,
        entity: EntityNo,
        after: Option<(&str, &str)>,
        limit: usize,
        page: &mut KeyPage,
    ) -> Result<(), StoreError> {
        if self.asked.has_no_ids.load(Ordering::Relaxed) {
            return Err(StoreError::other("no ids"));
        }
        self.asked.pages.fetch_add(1, Ordering::Relaxed);
        self.inner.keys(entity, after, limit, page)
    }
}

/// A project, and runs over its store.
struct Runs(Project);

impl Runs {
    fn new() -> Self {
        let project = Project::new();
        project.write("pipeline.toml", "name = \"p\"\n");
        Self(project)
    }

    /// Runs over blocks; `waits_before` is the block before which what came is committed.
    fn run(
        &self,
        blocks: std::ops::RangeInclusive<i64>,
        waits_before: Option<i64>,
        number: fn(i64) -> i64,
        depth: u64,
        asked: &Arc<Asked>,
    ) -> (Report, Meter) {
        let schema = Arc::new(Schema::new([Log::table().entity, Seen::table().entity]).expect("a schema"));
        let plan = StorePlan::new("p", schema).expect("a plan");
        let url = StoreUrl::parse(&self.0.store("p.db"), Path::new("")).expect("an address");
        let inner = store::open(&url, plan).expect("the store");
        let store = Counted { inner, asked: Arc::clone(asked) };
        let pipeline = Pipeline::new("p", Keeps)
            .expect("a pipeline")
            .store(store)
            .rollback_depth(depth)
            .batch(BatchConfig::default().with_events(200).expect("a batch"));
        let meter = pipeline.meter();
        let waits_before = waits_before.map(|block| (block, meter.clone()));
        let pipeline = pipeline.source(Blocks { blocks, waits_before, number });
        (pipeline.run().expect("a run"), meter)
    }

    /// How many rows each table has, and how often something was seen in all.
    fn state(&self) -> Vec<Vec<String>> {
        let sql = "SELECT (SELECT count(*) FROM log), (SELECT count(*) FROM seen), (SELECT sum(times) FROM seen)";
        self.0.query("p.db", sql)
    }
}

fn text(numbers: [i64; 3]) -> Vec<Vec<String>> {
    vec![numbers.iter().map(ToString::to_string).collect()]
}

crate::both_stores! {
    /// Whenever the ids are read, every row is there once, and none has to be written again.
    fn rows_that_are_thought_to_be_new_are() {
        for depth in [0, 50] {
            let (runs, asked) = (Runs::new(), Arc::new(Asked::default()));
            runs.run(1..=6000, None, |block| block, depth, &asked);
            assert_eq!((asked.reads.load(Ordering::Relaxed), asked.pages.load(Ordering::Relaxed)), (0, 0), "it was empty");
            let (report, meter) = runs.run(6001..=16_000, None, |block| block, depth, &asked);
            let changes = meter.rows_by_entity();
            assert!(changes.iter().all(|rows| rows.new + rows.changed == 10_000), "{changes:?}");
            assert_eq!(report.commits_redone, 0);
            assert_eq!(runs.state(), text([16_000, 16_000, 16_000]));
            // What is there is found all the same.
            let (report, _) = runs.run(16_001..=18_000, None, |block| block - 16_001, depth, &asked);
            assert_eq!(report.commits_redone, 0);
            assert_eq!(runs.state(), text([18_000, 16_001, 18_000]));
        }
    }
}

crate::both_stores! {
    /// Also where it is never known which rows there are.
    fn rows_that_are_only_written_are_let_go() {
        for has_no_ids in [false, true] {
            let (runs, asked) = (Runs::new(), Arc::new(Asked::default()));
            runs.run(1..=100, None, |_| 7, 0, &asked);
            asked.has_no_ids.store(has_no_ids, Ordering::Relaxed);
            // All of them take 30 MB. What waits for a slow store is not known: so it waits until nothing does.
            let (_, meter) = runs.run(101..=100_100, Some(99_000), |_| 7, 0, &asked);
            let cached = meter.read().memory.cached;
            assert!(cached < 3_000_000, "{cached} bytes for rows of which a thousand may wait");
            assert_eq!(runs.state(), text([100_100, 1, 100_100]));
        }
    }
}

crate::both_stores! {
    /// What is only written counts as new in a later run too, and nobody reads which rows there are. Where that is wrong, the
    /// batch is written again, every row is right, and from then on it is looked at which rows there are.
    fn rows_that_are_only_written_count_as_new() {
        let script = "function on_event(e, ctx) ctx.t:set(e.id, { n = e.block, note = e.note }) end";
        let pipeline = "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.t]\ncolumns = { n = \"bigint\", note = \"text\" }\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n[batch]\nevents = 5000\n";
        let event = |block: i64, id: i64| {
            format!("{{\"block\":{block},\"region\":\"r{}\",\"id\":\"{id}\",\"note\":\"{block:200}\"}}\n", id % 2)
        };
        let lines = |blocks: std::ops::Range<i64>, id: fn(i64) -> i64| -> String {
            blocks.map(|block| event(block, id(block))).collect()
        };
        let mut events = lines(0..20_000, |block| block);
        let project = Project::with(pipeline, script, &events);
        project.run_json();
        events += &lines(20_000..40_000, |block| block);
        project.write("events.ndjson", &events);
        let report = project.run_json();
        assert_eq!(report["commits_redone"], serde_json::Value::Null);
        // Every other row is there: most of them of long ago, some of the batch before.
        events += &lines(40_000..80_000, |block| if block % 2 == 0 { block } else { block - 39_001 });
        project.write("events.ndjson", &events);
        let report = project.run_json();
        let redone = report["commits_redone"].as_u64().unwrap_or(0);
        assert!(redone <= 16, "{redone}");
        if project.store("p.db").starts_with("postgres") {
            assert!(redone > 0);
        }
        let sums = project.query("p.db", "SELECT count(*), sum(n), sum(CASE WHEN note = '' THEN 1 ELSE 0 END) FROM t");
        let mut rows = std::collections::BTreeMap::new();
        for block in 0..40_000 {
            rows.insert(block, block);
        }
        for block in 40_000..80_000_i64 {
            rows.insert(if block % 2 == 0 { block } else { block - 39_001 }, block);
        }
        assert_eq!(sums, [[rows.len().to_string(), rows.values().sum::<i64>().to_string(), "0".to_owned()]]);
        project.forebay(&["run", "pipeline.toml"]).ok();
    }
}
