//! Overlap and failure, with a store that parks or fails: nothing here waits for time to pass.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use forebay::config::BatchConfig;
use forebay::source::{Next, Source, SourceError, SourceEvent};
use forebay::store::batch::codec::Decoder;
use forebay::store::batch::{Checkpoint, RegionTouch, SealedBatch};
use forebay::store::{Committed, OpenReader, RegionIds, RegionLimit, RowReader, Store, StoreError};
use forebay::{Context, EntityNo, EntityRow, EntityTable, Handler, HandlerError, Pipeline};

/// The longest wait for something that is to happen.
const WAIT: Duration = Duration::from_secs(60);

forebay::entity! {
    /// Counts the events of a region.
    struct Counter in "counter" {
        count: i64,
        filler: String,
    }
}

/// Counts events, and tells of each what it found.
struct Counting {
    seen: Sender<(i64, i64)>,
    filler_bytes: usize,
}

#[derive(serde::Deserialize)]
struct Event {}

impl Handler for Counting {
    type Event<'e> = Event;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Counter::table()]
    }

    fn on_event(&self, _: Event, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let found = ctx.get::<Counter>("all")?.map_or(0, |counter| counter.count);
        ctx.set("all", Counter { count: found + 1, filler: String::new() })?;
        if self.filler_bytes > 0 {
            let id = ctx.block().to_string();
            ctx.set(&id, Counter { count: 0, filler: "x".repeat(self.filler_bytes) })?;
        }
        // Nobody may listen any more.
        let _ = self.seen.send((ctx.block(), found));
        Ok(())
    }
}

/// One event a block, all in one region.
struct Blocks(std::ops::RangeInclusive<i64>);

impl Source for Blocks {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        let Some(block) = self.0.next() else { return Ok(Next::End) };
        event.block = block;
        event.region.replace_range(.., "r");
        event.json.replace_range(.., "{}");
        Ok(Next::Event)
    }
}

/// The same, of which all but the first two come when it is said that they may.
struct Held(Blocks, Receiver<()>);

impl Source for Held {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        if *self.0.0.start() == 3 {
            self.1.recv_timeout(WAIT).map_err(|error| SourceError::Other(error.to_string()))?;
        }
        self.0.next(event)
    }

    /// So that each event is handed over at once.
    fn is_ready(&self) -> bool {
        false
    }
}

/// What a commit is to do.
type Gate = Box<dyn FnMut(&SealedBatch) -> Result<(), StoreError> + Send>;

/// A store in memory that asks before each commit.
struct GatedStore {
    gate: Gate,
    checkpoint: Checkpoint,
    log: Arc<Mutex<Vec<Checkpoint>>>,
    rows: Rows,
}

/// Committed rows of the one table, packed, by id.
type Rows = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Applies the batch's changes of the one table.
fn apply(rows: &Rows, batch: &SealedBatch) {
    let entity = Counter::table().entity;
    let mut rows = rows.lock().expect("rows");
    for region in &batch.changes[0] {
        for row in &region.rows {
            let mut decoder = Decoder::new(&entity, &region.packed, row.start);
            let head = decoder.row(&mut Vec::new()).expect("a packed row");
            rows.insert(head.id.to_owned(), region.packed[row.start..decoder.at()].to_vec());
        }
    }
}

impl Store for GatedStore {
    fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        Ok(self.checkpoint)
    }
    fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError> {
        Ok(Vec::new())
    }
    fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError> {
        Ok(vec![true])
    }
    fn commit(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, StoreError> {
        assert_eq!(batch.before, self.checkpoint, "batches come in order, each behind the last");
        (self.gate)(batch)?;
        apply(&self.rows, batch);
        self.checkpoint = batch.after;
        self.log.lock().expect("log").push(batch.after);
        Ok(Committed::of(batch))
    }
    fn readers(&self) -> Arc<dyn OpenReader> {
        Arc::new(Reading(Arc::clone(&self.rows)))
    }
}

struct Reading(Rows);

impl OpenReader for Reading {
    fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }
}

impl RowReader for Reading {
    fn rows(&mut self, _: EntityNo, wanted: &[RegionIds<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
        let rows = self.0.lock().expect("rows");
        for (wanted, packed) in wanted.iter().zip(found) {
            packed.extend(wanted.ids.iter().filter_map(|id| rows.get(*id)).flatten());
        }
        Ok(())
    }
    fn regions(
        &mut self,
        _: EntityNo,
        regions: &[&str],
        _: RegionLimit,
        _: &mut [Vec<u8>],
    ) -> Result<Vec<bool>, StoreError> {
        Ok(vec![false; regions.len()])
    }
}

struct Setup {
    pipeline: Pipeline,
    seen: Receiver<(i64, i64)>,
    log: Arc<Mutex<Vec<Checkpoint>>>,
}

fn setup(blocks: i64, batch: BatchConfig, filler_bytes: usize, gate: Gate) -> Setup {
    let (sender, seen) = bounded(100_000);
    let log = Arc::new(Mutex::new(Vec::new()));
    let store = GatedStore { gate, checkpoint: Checkpoint::default(), log: Arc::clone(&log), rows: Rows::default() };
    let handler = Counting { seen: sender, filler_bytes };
    let pipeline =
        Pipeline::new("counting", handler).expect("pipeline").source(Blocks(1..=blocks)).store(store).batch(batch);
    Setup { pipeline, seen, log }
}

/// A gate that parks at the first commit: what says that it has begun, and what lets it go on.
fn parking() -> (Gate, Receiver<()>, Sender<()>) {
    let (begun_sender, begun) = bounded(1);
    let (go_on, go_on_receiver) = bounded::<()>(1);
    let gate = move |batch: &SealedBatch| {
        if batch.after.batch == 1 {
            begun_sender.send(()).map_err(StoreError::other)?;
            go_on_receiver.recv_timeout(WAIT).map_err(StoreError::other)?;
        }
        Ok(())
    };
    (Box::new(gate), begun, go_on)
}

#[test]
fn handlers_run_and_see_what_is_staged_while_a_commit_is_parked() {
    let (gate, begun, go_on) = parking();
    let batch = BatchConfig::default().with_events(1).expect("events");
    let Setup { pipeline, seen, log } = setup(200, batch, 0, gate);
    let run = std::thread::spawn(move || pipeline.run());
    begun.recv_timeout(WAIT).expect("the first commit begins");
    // All 200 handlers run although nothing has committed: batch 2 waits in the channel, batch 3 is open. Each sees
    // what the one before it wrote, whichever batch that is in.
    for block in 1..=200 {
        assert_eq!(seen.recv_timeout(WAIT).expect("a handler"), (block, block - 1));
    }
    assert!(log.lock().expect("log").is_empty(), "nothing may have committed yet");
    go_on.send(()).expect("the commit waits");
    let report = run.join().expect("the run").expect("it succeeds");
    assert_eq!((report.events, report.checkpoint.block), (200, Some(200)));
    let log = log.lock().expect("log");
    assert_eq!(log.len(), 3, "one parked, one waiting, one open: {log:?}");
    assert_eq!(log.iter().map(|checkpoint| checkpoint.batch).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(log[2], Checkpoint::new(3, Some(200)).with_counts(1, 200, 200));
}

#[test]
fn live_numbers_are_read_from_another_thread_while_a_commit_is_parked() {
    let (gate, begun, go_on) = parking();
    let batch = BatchConfig::default().with_events(1).expect("events");
    let Setup { pipeline, seen, .. } = setup(200, batch, 0, gate);
    let meter = pipeline.meter();
    assert_eq!((meter.read().events, meter.read().checkpoint.block), (0, None), "nothing before the run");
    let run = std::thread::spawn(move || pipeline.run());
    begun.recv_timeout(WAIT).expect("the first commit begins");
    for _ in 1..=200 {
        seen.recv_timeout(WAIT).expect("a handler");
    }
    let parked = meter.read();
    assert_eq!((parked.events, parked.block, parked.batches_waiting), (200, Some(200), 2));
    assert_eq!((parked.events_committed, parked.checkpoint.block), (0, None));
    go_on.send(()).expect("the commit waits");
    let report = run.join().expect("the run").expect("it succeeds");
    let ended = meter.read();
    assert_eq!((ended.events_committed, ended.batches, ended.batches_waiting), (200, 3, 0));
    assert_eq!((ended.checkpoint, ended.times), (report.checkpoint, report.times), "the report is read from it");
    assert_eq!(meter.timeline(), report.timeline);
}

/// Most events come when the first commit has begun, and it goes on when their handlers have run.
#[test]
fn a_trace_shows_handlers_at_work_while_a_commit_is_parked() {
    let (gate, begun, go_on) = parking();
    let batch = BatchConfig::default().with_events(1).expect("events");
    let Setup { pipeline, seen, .. } = setup(0, batch, 0, gate);
    let pipeline = pipeline.source(Held(Blocks(1..=200), begun));
    let run = std::thread::spawn(move || pipeline.run());
    while seen.recv_timeout(WAIT).expect("a handler").0 < 200 {}
    go_on.send(()).expect("the commit waits");
    let report = run.join().expect("the run").expect("it succeeds");
    let trace = report.timeline.to_trace("counting");
    let spans = |category: &'static str| {
        let events = trace["traceEvents"].as_array().expect("events").iter();
        let number = |event: &serde_json::Value, name: &str| event[name].as_f64().expect("a number");
        events
            .filter(move |event| event["cat"] == category)
            .map(move |event| (number(event, "ts"), number(event, "ts") + number(event, "dur")))
    };
    let (begun, ended) = spans("commit").next().expect("the first commit");
    assert!(spans("handlers").any(|(from, to)| begun < to && from < ended), "{trace:#}");
}

#[test]
fn the_open_batch_waits_for_memory_only() {
    const EVENTS: i64 = 64;
    let (gate, begun, go_on) = parking();
    // Rows of 1 MiB, and a budget of 16.
    let batch =
        BatchConfig::default().with_events(1).and_then(|batch| batch.with_memory_bytes(16 << 20)).expect("a batch");
    let Setup { pipeline, seen, log } = setup(EVENTS, batch, 1 << 20, gate);
    let (tell, told) = bounded(100_000);
    let pipeline = pipeline.on_progress(move |progress| {
        // Nobody listens after the first part.
        let _ = tell.try_send(progress.events);
    });
    let run = std::thread::spawn(move || pipeline.run());
    begun.recv_timeout(WAIT).expect("the first commit begins");
    // The run stands still when it says the same number again and again, and has got somewhere.
    let (mut last, mut same) = (0, 0);
    while same < 5 || seen.len() < 3 {
        let events = told.recv_timeout(WAIT).expect("progress");
        same = if events == last && events > 1 { same + 1 } else { 0 };
        last = events;
    }
    let handled = seen.len() as i64;
    assert!((3..=20).contains(&handled), "{handled} rows of 1 MiB were handled within 16 MiB");
    assert!(log.lock().expect("log").is_empty());
    go_on.send(()).expect("the commit waits");
    let report = run.join().expect("the run").expect("it succeeds");
    assert_eq!(report.events, EVENTS as u64);
    // Rows were let go and came back; a call that had to wait for one was made again.
    let seen: BTreeMap<i64, i64> = seen.iter().collect();
    assert_eq!(seen.into_values().collect::<Vec<_>>(), (0..EVENTS).collect::<Vec<_>>());
}

#[test]
fn a_failed_commit_ends_the_run_and_nothing_is_committed_after_it() {
    for failing in 1..=4 {
        let gate = move |batch: &SealedBatch| match batch.after.batch {
            number if number == failing => Err(StoreError::Other("the disk is on fire".into())),
            number if number > failing => panic!("batch {number} was committed after {failing} had failed"),
            _ => Ok(()),
        };
        let batch = BatchConfig::default().with_events(1).expect("events");
        let Setup { pipeline, log, .. } = setup(5_000, batch, 0, Box::new(gate));
        let error = pipeline.run().expect_err("a commit fails").to_string();
        assert!(error.contains("the disk is on fire") && error.contains(&format!("batch {failing} (")), "{error}");
        let numbers: Vec<u64> = log.lock().expect("log").iter().map(|checkpoint| checkpoint.batch).collect();
        assert_eq!(numbers, (1..failing).collect::<Vec<_>>());
    }
}

#[test]
fn a_commit_that_panics_ends_the_run_with_its_message() {
    let gate = |batch: &SealedBatch| if batch.after.batch == 2 { panic!("a fault of the store") } else { Ok(()) };
    let Setup { pipeline, .. } =
        setup(5_000, BatchConfig::default().with_events(10).expect("events"), 0, Box::new(gate));
    let error = pipeline.run().expect_err("a commit panics").to_string();
    assert!(error.contains("the commit thread panicked: a fault of the store"), "{error}");
}

/// However batches are cut, each row goes out once a batch and the last one is right.
#[test]
fn a_hot_row_is_written_once_a_batch() {
    let rows = Arc::new(Mutex::new(BTreeMap::new()));
    let counted = Arc::clone(&rows);
    let gate = move |batch: &SealedBatch| {
        counted.lock().expect("rows").insert(batch.after.batch, batch.rows());
        Ok(())
    };
    let Setup { pipeline, .. } =
        setup(50_000, BatchConfig::default().with_events(100).expect("events"), 0, Box::new(gate));
    let report = pipeline.run().expect("it succeeds");
    let rows = rows.lock().expect("rows");
    assert!(rows.values().all(|rows| *rows == 1), "{rows:?}");
    assert_eq!(report.entities_written, rows.len() as u64);
}
