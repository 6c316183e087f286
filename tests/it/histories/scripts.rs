//! Scripts by chance, against an interpreter of their own.
//!
//! A script is a tree. Printed as Lua it is lived once, with large batches and room for all, and in pieces: with restarts
//! before any block, batches of a few events, memory so short that what is committed is let go, commits that fail before
//! or after they are durable, rollbacks. Interpreted over maps, event by event, it says what the store must hold as of
//! every block: rows, documents, counts, events that were put aside.

/// Scripts and events by chance.
mod chance;
/// What a script does, told without a script engine.
mod oracle;
/// Scripts that once went wrong, shrunk.
mod regressions;
/// A script as a tree, and as Lua.
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay::config::{BatchConfig, ErrorsConfig, SnapshotsConfig};
use forebay::snapshot::Every;
use forebay::store::{self, StorePlan, StoreUrl};
use forebay::{Pipeline, PipelineError, Report};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::Value as Json;

use self::chance::{event, finds, script};
use self::oracle::{Region, Table, document, handle};
use self::script::{COLUMNS, ENTITIES, Event, FILLED, PIPELINE, Script, Stmt};
use super::live_many;
use super::model::Block;
use super::place::{Delivered, Failing, Place};
use crate::support::folder_in_memory;
use crate::support::postgres_server::Server;

const SQLITE_CASES: u32 = 150;
const POSTGRES_CASES: u32 = 10;
/// With tables that are not small.
const LARGE_CASES: u32 = 15;

/// `batch.memory`, where there is room for all.
const ROOM_BYTES: u64 = 64 << 20;
/// Where there is so little that what is committed is let go after each round: an engine takes more than a half of it.
const SHORT_BYTES: u64 = 1 << 20;
/// Where a large table is let go now and then.
const SHORT_LARGE_BYTES: u64 = 8 << 20;

/// How a run takes its events.
#[derive(Debug, Clone, Copy)]
struct Pace {
    batch_events: u64,
    memory_bytes: u64,
}

#[derive(Debug, Clone)]
enum Step {
    /// So many blocks more, and the run ends.
    Run(u8, Pace),
    /// Of such a run that commit fails, before it is durable or after; the next run does the rest.
    Fail(u8, Pace, u8, bool),
    /// Goes back so many block numbers.
    Rollback(u8),
}

#[derive(Debug, Clone)]
struct Plan {
    script: Script,
    /// Of each block, how many numbers further it is, and its events with their regions.
    blocks: Vec<(u8, Vec<(u8, Event)>)>,
    steps: Vec<Step>,
    depth: u64,
    puts_aside: bool,
    every_batch: bool,
}

type State = BTreeMap<String, Region>;

/// A history that is lived, and what must come of it.
struct History<'a> {
    plan: &'a Plan,
    place: Place,
    blocks: Vec<Block>,
    /// The state before each block, and after the last.
    states: Vec<State>,
}

/// Reads of rows in all runs: without them nothing was let go.
static LOADS: AtomicU64 = AtomicU64::new(0);

const ROOMY: Pace = Pace { batch_events: 10_000, memory_bytes: ROOM_BYTES };
/// The last step of a history in pieces.
const SHORT: Pace = Pace { batch_events: 3, memory_bytes: SHORT_BYTES };

fn plan() -> impl Strategy<Value = Plan> {
    let events = prop::collection::vec((0..3u8, event()), 1..5);
    let blocks = prop::collection::vec((1..3u8, events), 4..16);
    let memory = prop_oneof![7 => Just(SHORT_BYTES), 3 => Just(ROOM_BYTES)];
    let pace = (prop_oneof![3 => 1..6u64, 1 => Just(10_000)], memory);
    let pace = pace.prop_map(|(batch_events, memory_bytes)| Pace { batch_events, memory_bytes });
    let step = prop_oneof![
        4 => (1..6u8, pace.clone()).prop_map(|(blocks, pace)| Step::Run(blocks, pace)),
        1 => (2..9u8, pace, 0..4u8, any::<bool>()).prop_map(|(blocks, pace, at, is_after)| Step::Fail(blocks, pace, at, is_after)),
        1 => (0..6u8).prop_map(Step::Rollback),
    ];
    let flags = (0..8u64, any::<bool>(), any::<bool>(), 1..4u8);
    (script(), blocks, prop::collection::vec(step, 2..7), flags).prop_map(
        |(mut script, mut blocks, mut steps, (depth, puts_aside, every_batch, regions))| {
            steps.push(Step::Run(u8::MAX, SHORT));
            blocks.iter_mut().flat_map(|(_, events)| events).for_each(|(region, _)| *region %= regions);
            script.catches |= !puts_aside;
            Plan { script, blocks, steps, depth, puts_aside, every_batch }
        },
    )
}

/// Plans whose first table has many rows of a region from the start. Many calls read some of them by their ids, between
/// those of the script, which find rows; and sometimes many are deleted.
fn large_plan() -> impl Strategy<Value = Plan> {
    let crowd = (prop_oneof![1 => 0..500u16, 2 => 500..1_000u16], 1..4u16, 0..FILLED, 0..8usize);
    let drops = prop_oneof![4 => Just(0), 1 => 1..100u16, 1 => 1_000..FILLED];
    let crowds = prop::collection::vec((prop::option::of(crowd), drops, prop::bool::weighted(0.7)), 1..12);
    let finds = finds().prop_map(|finds| Stmt::Catch(false, vec![finds], Vec::new()));
    (plan(), finds, crowds, 1..3u8).prop_map(|(mut plan, finds, crowds, regions)| {
        plan.script.body.insert(0, finds);
        for ((_, events), (crowd, drops, _)) in plan.blocks.iter_mut().zip(crowds.iter().cycle()) {
            events.iter_mut().for_each(|(region, _)| *region %= regions);
            events[0].1.drops = *drops;
            let Some((calls, looks, from, at)) = *crowd else { continue };
            let looks = (0..calls).map(|call| Some((looks, (from + call) % FILLED)));
            let calls = looks.map(|looks| (0, Event { looks, ..Event::default() }));
            let at = at.min(events.len());
            events.splice(at..at, calls);
        }
        let fills = (0..regions).map(|region| (region, Event { fills: FILLED, ..Event::default() }));
        plan.blocks.insert(0, (1, fills.collect()));
        for (step, (.., is_roomy)) in plan.steps.iter_mut().zip(crowds.iter().cycle()) {
            let (Step::Run(_, pace) | Step::Fail(_, pace, ..)) = step else { continue };
            *pace = if *is_roomy { ROOMY } else { Pace { memory_bytes: SHORT_LARGE_BYTES, ..*pace } };
        }
        plan
    })
}

impl<'a> History<'a> {
    fn new(plan: &'a Plan, place: Place) -> Self {
        let (mut blocks, mut states, mut number) = (Vec::<Block>::new(), vec![State::new()], 0);
        for (gap, events) in &plan.blocks {
            number += i64::from(*gap);
            let mut state = states.last().cloned().unwrap_or_default();
            for (region, event) in events {
                let name = format!("r{region}");
                handle(&plan.script, state.entry(name.clone()).or_default(), &name, number, event);
            }
            states.push(state);
            let parent = blocks.last().map(|block| block.hash.clone());
            let events = events.iter().map(|(region, event)| (format!("r{region}"), event.json())).collect();
            let hash = format!("h{number}");
            blocks.push(Block { number, hash, parent, events, state: Arc::default(), blocks: 0, total: 0 });
        }
        Self { plan, place, blocks, states }
    }

    fn pipeline(&self, pace: Pace, fails: Option<(u8, bool)>) -> Pipeline {
        let every = if self.plan.every_batch { Every::Batch } else { Every::End };
        let snapshots = SnapshotsConfig::default().with_every(every).expect("every");
        let batch = BatchConfig::default().with_events(pace.batch_events);
        let batch = batch.and_then(|batch| batch.with_memory_bytes(pace.memory_bytes)).expect("a batch");
        let file = self.place.script.as_ref().expect("a script");
        let pipeline = Pipeline::open(file).expect("the pipeline file");
        let store = StorePlan::new("hist", Arc::new(pipeline.schema().clone())).expect("a plan").with_snapshots(true);
        let store = store.with_ttl(Duration::from_secs(86_400)).expect("a plan");
        let url = StoreUrl::parse(&self.place.url, Path::new("")).expect("an address");
        let inner = store::open(&url, store).expect("the store");
        let pipeline = pipeline.store(Failing::new(inner, fails, 0)).batch(batch).snapshots(snapshots);
        let pipeline = pipeline.rollback_depth(self.plan.depth);
        if self.plan.puts_aside { pipeline.errors(ErrorsConfig::quarantine(1_000_000)) } else { pipeline }
    }

    /// Runs until so many blocks have been handled.
    fn run(&self, until: usize, pace: Pace, fails: Option<(u8, bool)>) -> Result<(), PipelineError> {
        let source = Delivered::named(&self.blocks);
        let report: Report = self.pipeline(pace, fails).source(source).until(self.blocks[until - 1].number).run()?;
        LOADS.fetch_add(report.loads, Ordering::Relaxed);
        Ok(())
    }

    fn rows(&self) -> BTreeSet<Vec<String>> {
        let mut rows = BTreeSet::new();
        for entity in ENTITIES {
            for mut row in self.place.query(&format!("SELECT region, id, b, j, n, s, v FROM {entity}")) {
                row[3] =
                    serde_json::from_str::<Json>(&row[3]).map_or_else(|_| "NULL".to_owned(), |json| json.to_string());
                row.insert(0, entity.to_owned());
                rows.insert(row);
            }
        }
        rows
    }

    /// The stored state is that after so many blocks.
    fn check(&self, blocks: usize, when: &str) -> Result<(), TestCaseError> {
        let (state, script) = (&self.states[blocks], &self.plan.script);
        prop_assert_eq!(self.rows(), expected_rows(state), "rows, {}", when);
        let events: u64 = state.values().map(|region| region.events).sum();
        let counts = self.place.query("SELECT blocks, events FROM forebay_pipelines");
        prop_assert_eq!(counts, [[blocks.to_string(), events.to_string()]], "counts, {}", when);
        let regions =
            self.place.query("SELECT region, events, block FROM forebay_regions WHERE events > 0 ORDER BY region");
        let expected = state
            .iter()
            .map(|(name, region)| vec![name.clone(), region.events.to_string(), region.last_block.to_string()]);
        prop_assert_eq!(regions, expected.collect::<Vec<_>>(), "regions, {}", when);
        let aside: u64 = state.values().map(|region| region.aside).sum();
        let found = self.place.query("SELECT count(*) FROM forebay_quarantine");
        prop_assert_eq!(found, [[aside.to_string()]], "events put aside, {}", when);
        let mut newest = self.place.query("SELECT region, doc FROM forebay_snapshots ORDER BY region, seq DESC");
        newest.dedup_by(|later, first| later[0] == first[0]);
        let known: BTreeSet<&String> = newest.iter().map(|row| &row[0]).collect();
        let has_document = |(name, region): (&String, &Region)| document(script, region, name) != Json::Null;
        let lacks = state.iter().find(|one| has_document(*one) && !known.contains(one.0));
        prop_assert!(lacks.is_none(), "a region lacks a snapshot, {}", when);
        for row in &newest {
            let doc: Json = serde_json::from_str(&row[1]).expect("a document");
            // Of a region that has no event any more nothing is said.
            let expected = match state.get(&row[0]) {
                Some(region) if region.events > 0 => document(script, region, &row[0]),
                _ => Json::Null,
            };
            prop_assert_eq!(doc, expected, "the snapshot of {}, {}", row[0], when);
        }
        Ok(())
    }

    fn run_well(&self, until: usize, pace: Pace, when: &str) -> Result<(), TestCaseError> {
        self.run(until, pace, None).map_err(|error| TestCaseError::fail(format!("{when}: {error}")))?;
        self.check(until, when)
    }

    fn live(&self, steps: &[Step]) -> Result<(), TestCaseError> {
        // How many blocks are committed, and the number below which nothing can be undone.
        let (mut at, mut floor) = (0, i64::MIN);
        let further = |at: usize, blocks: u8| (at + usize::from(blocks)).min(self.blocks.len());
        for step in steps {
            match *step {
                Step::Run(..) | Step::Fail(..) if at == self.blocks.len() => continue,
                Step::Rollback(_) if at == 0 => continue,
                Step::Run(blocks, pace) => {
                    at = further(at, blocks);
                    self.run_well(at, pace, "after a run")?;
                }
                Step::Fail(blocks, pace, fails, is_after) => {
                    at = further(at, blocks);
                    if self.run(at, pace, Some((fails, is_after))).is_err() {
                        let rows = self.rows();
                        let is_known = self.states.iter().any(|state| expected_rows(state) == rows);
                        prop_assert!(is_known, "after a failed commit the store holds what never was: {:?}", rows);
                    }
                    self.run_well(at, pace, "after a failed commit")?;
                }
                Step::Rollback(blocks) => {
                    let tip = self.blocks[at - 1].number;
                    let to = (tip - i64::from(blocks)).max(floor);
                    let report = self.pipeline(ROOMY, None).rollback(to);
                    let report = report.map_err(|error| TestCaseError::fail(format!("to {to}: {error}")))?;
                    prop_assert_eq!(report.rollbacks.len(), usize::from(to < tip));
                    at = self.blocks.iter().filter(|block| block.number <= to).count();
                    self.check(at, "after a rollback")?;
                }
            }
            floor =
                at.checked_sub(1).map_or(floor, |last| floor.max(self.blocks[last].number - self.plan.depth as i64));
        }
        Ok(())
    }
}

fn expected_rows(state: &State) -> BTreeSet<Vec<String>> {
    let shown = |row: &Table, column: &str| match row.get(column) {
        None => "NULL".to_owned(),
        Some(oracle::Val::Bool(value)) => u8::from(*value).to_string(),
        Some(value) => value.show(),
    };
    let mut rows = BTreeSet::new();
    for (name, region) in state {
        for (entity, table) in ENTITIES.iter().zip(&region.tables) {
            for (id, row) in table {
                let head = [(*entity).to_owned(), name.clone(), id.clone()];
                rows.insert(head.into_iter().chain(COLUMNS.iter().map(|column| shown(row, column))).collect());
            }
        }
    }
    rows
}

/// Lives the script once, and in pieces.
fn live(plan: &Plan, place: impl Fn(&str) -> Place) -> Result<(), TestCaseError> {
    History::new(plan, place("once")).live(&[Step::Run(u8::MAX, ROOMY)])?;
    History::new(plan, place("pieces")).live(&plan.steps)
}

/// A folder with the pipeline file and the script.
fn folder(plan: &Plan) -> tempfile::TempDir {
    let dir = folder_in_memory();
    std::fs::write(dir.path().join("pipeline.toml"), PIPELINE).expect("the pipeline file");
    std::fs::write(dir.path().join("handlers.lua"), plan.script.to_string()).expect("the script");
    dir
}

fn live_on_sqlite(plan: &Plan) -> Result<(), TestCaseError> {
    let dir = folder(plan);
    live(plan, |name| {
        let file = dir.path().join(format!("{name}.db"));
        let url = format!("sqlite:{}", file.display());
        Place { url, file: Some(file), database: None, script: Some(dir.path().join("pipeline.toml")) }
    })
}

fn live_on_postgres(plan: &Plan) -> Result<(), TestCaseError> {
    let (dir, server) = (folder(plan), Server::shared());
    let databases = [("once", server.make_database()), ("pieces", server.make_database())];
    let result = live(plan, |name| {
        let database = databases.iter().find(|(of, _)| *of == name).map(|(_, database)| database.clone());
        let url = server.url(database.as_deref().expect("a database"));
        Place { url, file: None, database, script: Some(dir.path().join("pipeline.toml")) }
    });
    for (_, database) in &databases {
        server.execute("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
    }
    result
}

#[test]
fn scripts_on_sqlite() {
    live_many(&plan(), SQLITE_CASES, 7, live_on_sqlite);
    assert!(LOADS.load(Ordering::Relaxed) > u64::from(SQLITE_CASES), "rows were hardly ever let go");
}

#[test]
fn scripts_with_large_tables_on_sqlite() {
    live_many(&large_plan(), LARGE_CASES, 9, live_on_sqlite);
}

#[test]
fn scripts_on_postgres() {
    live_many(&plan(), POSTGRES_CASES, 8, live_on_postgres);
}
