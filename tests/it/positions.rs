//! Positions: a source of one's own that is told to go on after the last event that was committed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use forebay::config::BatchConfig;
use forebay::source::{Next, Position, Resumed, Source, SourceError, SourceEvent};
use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline, Report};

use crate::support::project::Project;

forebay::entity! {
    /// A counter.
    struct Sum in "tally" {
        events: i64,
        total: i64,
    }
}

#[derive(serde::Deserialize)]
struct Entry {
    key: String,
    v: i64,
}

struct Sums;

impl Handler for Sums {
    type Event<'e> = Entry;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Sum::table()]
    }

    fn on_event(&self, entry: Entry, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let sum = ctx.get::<Sum>(&entry.key)?.unwrap_or(Sum { events: 0, total: 0 });
        ctx.set(&entry.key, Sum { events: sum.events + 1, total: sum.total * 3 + entry.v })
    }
}

/// A block of the log, with its hash, that of its parent, and its events.
struct Block {
    number: i64,
    hash: String,
    parent: String,
    events: i64,
}

fn block(number: i64, branch: &str, parent: &str) -> Block {
    Block {
        number,
        hash: format!("{branch}{number}"),
        parent: format!("{parent}{}", number - 1),
        events: number % 3 + 1,
    }
}

/// What tests see of a log that a pipeline has taken.
#[derive(Clone, Default)]
struct Seen {
    /// The position behind the last event of each block.
    positions: Arc<Mutex<BTreeMap<i64, Position>>>,
    read: Arc<AtomicU64>,
}

/// A log: its events have numbers, and it can be read from any of them.
struct Log {
    events: Vec<(i64, String, String, String)>,
    next: usize,
    seen: Seen,
}

impl Log {
    fn new(blocks: &[Block]) -> Self {
        let events = blocks.iter().flat_map(|block| {
            let json = |n| format!(r#"{{"key":"k{}","v":{}}}"#, (block.number + n) % 4, block.number * 7 + n);
            (0..block.events).map(move |n| (block.number, block.hash.clone(), block.parent.clone(), json(n)))
        });
        Self { events: events.collect(), next: 0, seen: Seen::default() }
    }
}

impl Source for Log {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        let Some((block, hash, parent, json)) = self.events.get(self.next) else { return Ok(Next::End) };
        self.next += 1;
        self.seen.read.fetch_add(1, Ordering::Relaxed);
        event.block = *block;
        event.json.clone_from(json);
        event.region.replace_range(.., if self.next.is_multiple_of(3) { "east" } else { "west" });
        (event.hash, event.parent) = (Some(hash.clone()), Some(parent.clone()));
        event.set_position(&format!("entry {}", self.next))?;
        let position = event.position.clone().expect("it was set");
        self.seen.positions.lock().expect("positions").insert(*block, position);
        Ok(Next::Event)
    }

    fn resume(&mut self, after: &Position) -> Result<Resumed, SourceError> {
        let next = after.as_str().strip_prefix("entry ").and_then(|next| next.parse().ok());
        self.next = next
            .filter(|next| *next <= self.events.len())
            .ok_or_else(|| SourceError::Other(format!("the log has no {after}")))?;
        Ok(Resumed::After)
    }
}

fn run(project: &Project, log: Log, until: Option<i64>) -> Report {
    let batch = BatchConfig::default().with_events(5).expect("events");
    let pipeline =
        Pipeline::new("log", Sums).expect("a pipeline").store_url(&project.store("log.db")).expect("a store");
    let pipeline = pipeline.source(log).batch(batch).rollback_depth(10);
    let pipeline = match until {
        Some(until) => pipeline.until(until),
        None => pipeline,
    };
    pipeline.run().expect("it succeeds")
}

fn state(project: &Project) -> Vec<Vec<String>> {
    let mut rows = project.query("log.db", "SELECT region, id, events, total FROM tally ORDER BY region, id");
    rows.extend(project.query("log.db", "SELECT block, block_events, blocks, events FROM forebay_pipelines"));
    rows
}

/// A chain of 40 blocks, of which the last ten come once more on another branch.
fn blocks() -> Vec<Block> {
    let chain = (1..=40).map(|number| block(number, "a", "a"));
    chain.chain([block(31, "b", "a")]).chain((32..=45).map(|number| block(number, "b", "b"))).collect()
}

crate::both_stores! {
    fn a_source_that_goes_on_after_a_position_is_not_read_again() {
        let whole = Project::with("name = \"log\"\n", "", "");
        run(&whole, Log::new(&blocks()), None);
        for until in [1, 17, 30, 40] {
            let project = Project::with("name = \"log\"\n", "", "");
            // The branch comes behind the 40 blocks.
            let log = Log::new(&blocks()[..40]);
            let first = log.seen.clone();
            let stored = run(&project, log, Some(until)).checkpoint;
            assert_eq!(stored.block, Some(until));
            let position = first.positions.lock().expect("positions")[&until].clone();
            assert_eq!(position.as_str(), format!("entry {}", stored.events));

            let mut log = Log::new(&blocks());
            assert_eq!(log.resume(&position).expect("a position of it"), Resumed::After);
            let (all, again) = (log.events.len() as u64, log.seen.clone());
            run(&project, log, None);
            assert_eq!(again.read.load(Ordering::Relaxed), all - stored.events, "after block {until}");
            assert_eq!(state(&project), state(&whole), "after block {until}");
        }
    }
}

#[test]
fn a_position_of_another_source_is_refused_by_the_source() {
    let mut log = Log::new(&blocks());
    for foreign in ["17", "entry -1", "entry 100000"] {
        let position = Position::new(foreign).expect("a position");
        assert_eq!(log.resume(&position).expect_err("refused").to_string(), format!("the log has no {foreign}"));
    }
}
