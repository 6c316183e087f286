//! Whole histories against a model that keeps the state as of every block.
//!
//! A history is a stream of blocks over several regions, with forks, run in pieces: with restarts over a source that is
//! read from its beginning again or goes on, commits that fail before or after they are durable, rollbacks that are asked
//! for, memory so short that all that is committed is let go. Handlers write down what they read, so that a wrong read is
//! a wrong state. After each run the store must hold what the model says: rows, regions, counts, snapshots.
//!
//! `FOREBAY_SOAK=N` runs N histories with other seeds instead: see `make soak`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forebay::config::{BatchConfig, SnapshotsConfig};
use forebay::query::Comparison;
use forebay::snapshot::Every;
use forebay::source::{Next, Source, SourceError, SourceEvent};
use forebay::store::batch::HistoryRecord;
use forebay::store::batch::{Checkpoint, RegionTouch, SealedBatch};
use forebay::store::{self, Committed, OpenReader, RowEncoder, Store, StoreError, StorePlan, StoreUrl};
use forebay::{Context, EntityRow, EntityTable, Find, Handler, HandlerError, Pipeline, Schema};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde_json::{Value as Json, json};

use crate::server::Server;

/// Histories of one test, of which there are [`SQLITE_TESTS`].
const SQLITE_CASES: u32 = 5_000;
const SQLITE_TESTS: u8 = 4;
const POSTGRES_CASES: u32 = 60;
const LUA_CASES: u32 = 400;

forebay::entity! {
    struct Item in "item" {
        v: Option<i64>,
        tag: String,
    }
    index v, tag
}

forebay::entity! {
    /// What was read.
    struct Note in "note" {
        text: String,
    }
}

/// What an event does.
#[derive(Debug, Clone)]
enum Op {
    Set(u8, Option<i8>),
    Delete(u8),
    Add(u8, i8),
    /// Writes down what is found: comparison, value, order, limit.
    Find(Option<(Comparison, i8)>, u8, Option<u8>),
    /// The same by tag, together with a condition on the value.
    FindTag(u8, Option<(Comparison, i8)>),
    Count(Option<(Comparison, i8)>),
    /// Deletes the first one of those above a value.
    Take(i8),
}

fn text_of(comparison: Comparison) -> &'static str {
    comparison.text()
}

fn op_json(op: &Op) -> Json {
    let condition = |condition: &Option<(Comparison, i8)>| condition.map(|(op, value)| json!([text_of(op), value]));
    match op {
        Op::Set(id, v) => json!({"op": "set", "id": id, "v": v}),
        Op::Delete(id) => json!({"op": "delete", "id": id}),
        Op::Add(id, v) => json!({"op": "add", "id": id, "v": v}),
        Op::Find(where_, order, limit) => {
            json!({"op": "find", "where": condition(where_), "order": order, "limit": limit})
        }
        Op::FindTag(tag, where_) => json!({"op": "tag", "id": tag, "where": condition(where_)}),
        Op::Count(where_) => json!({"op": "count", "where": condition(where_)}),
        Op::Take(v) => json!({"op": "take", "v": v}),
    }
}

#[derive(serde::Deserialize)]
struct Event {
    n: u64,
    op: String,
    #[serde(default)]
    id: u8,
    #[serde(default)]
    v: Option<i64>,
    #[serde(default, rename = "where")]
    condition: Option<(String, i64)>,
    #[serde(default)]
    order: u8,
    #[serde(default)]
    limit: Option<usize>,
}

/// What handlers need of a region's entities: the real ones, or the model's.
trait Items {
    fn get(&mut self, id: &str) -> Result<Option<Item>, HandlerError>;
    fn set(&mut self, id: &str, item: Option<Item>) -> Result<(), HandlerError>;
    fn find(&mut self, find: &Wanted) -> Result<Vec<String>, HandlerError>;
    fn count(&mut self, find: &Wanted) -> Result<u64, HandlerError>;
    fn note(&mut self, id: &str, text: String) -> Result<(), HandlerError>;
}

/// What is looked for.
#[derive(Default)]
struct Wanted {
    v: Option<(Comparison, i64)>,
    tag: Option<String>,
    order: u8,
    limit: Option<usize>,
}

fn tag_of(v: Option<i64>) -> String {
    format!("t{}", v.unwrap_or(7).rem_euclid(3))
}

/// What an event does, over the real entities and over the model's.
fn handle(event: &Event, items: &mut dyn Items) -> Result<(), HandlerError> {
    let id = format!("k{}", event.id);
    let comparison = |text: &str| Comparison::ALL.into_iter().find(|op| op.text() == text).expect("a comparison");
    let v = event.condition.as_ref().map(|(op, value)| (comparison(op), *value));
    let note = format!("n{}", event.n % 5);
    match event.op.as_str() {
        "set" => items.set(&id, Some(Item { v: event.v, tag: tag_of(event.v) })),
        "delete" => items.set(&id, None),
        "add" => {
            let old = items.get(&id)?.and_then(|item| item.v).unwrap_or(0);
            let v = Some(old + event.v.unwrap_or(0));
            items.set(&id, Some(Item { v, tag: tag_of(v) }))
        }
        "find" => {
            let found = items.find(&Wanted { v, tag: None, order: event.order % 5, limit: event.limit })?;
            items.note(&note, found.join(" "))
        }
        "tag" => {
            let tag = Some(format!("t{}", event.id % 3));
            let found = items.find(&Wanted { v, tag, order: 0, limit: None })?;
            items.note(&note, found.join(" "))
        }
        "count" => {
            let count = items.count(&Wanted { v, ..Wanted::default() })?;
            let all = items.count(&Wanted::default())?;
            items.note(&note, format!("{count} of {all}"))
        }
        _ => {
            let v = Some((Comparison::Greater, event.v.unwrap_or(0)));
            let found = items.find(&Wanted { v, order: 2, limit: Some(1), tag: None })?;
            let first = found.first().and_then(|row| row.split('=').next());
            first.map_or(Ok(()), |id| items.set(id, None))
        }
    }
}

struct Real<'a, 'c>(&'a mut Context<'c>);

fn real_find(wanted: &Wanted) -> Find {
    let mut find = Find::all();
    if let Some((op, value)) = wanted.v {
        find = find.filter("v", op, value);
    }
    if let Some(tag) = &wanted.tag {
        find = find.filter("tag", Comparison::Equal, tag.clone());
    }
    find = match wanted.order {
        1 => find.ascending("v"),
        2 => find.descending("v"),
        3 => find.ascending("tag"),
        4 => find.descending("tag"),
        _ => find,
    };
    match wanted.limit {
        Some(limit) => find.limit(limit),
        None => find,
    }
}

impl Items for Real<'_, '_> {
    fn get(&mut self, id: &str) -> Result<Option<Item>, HandlerError> {
        self.0.get(id)
    }
    fn set(&mut self, id: &str, item: Option<Item>) -> Result<(), HandlerError> {
        match item {
            Some(item) => self.0.set(id, item),
            None => self.0.delete::<Item>(id),
        }
    }
    fn find(&mut self, wanted: &Wanted) -> Result<Vec<String>, HandlerError> {
        let found = self.0.find::<Item>(&real_find(wanted))?;
        Ok(found.into_iter().map(|(id, item)| format!("{id}={:?}", item.v)).collect())
    }
    fn count(&mut self, wanted: &Wanted) -> Result<u64, HandlerError> {
        self.0.count_where::<Item>(&real_find(wanted))
    }
    fn note(&mut self, id: &str, text: String) -> Result<(), HandlerError> {
        self.0.set(id, Note { text })
    }
}

/// One region of the model.
#[derive(Debug, Clone, Default, PartialEq)]
struct Region {
    items: BTreeMap<String, Item>,
    notes: BTreeMap<String, String>,
    events: u64,
    last_block: i64,
}

impl Region {
    fn found(&self, wanted: &Wanted) -> Vec<(&String, &Item)> {
        let holds = |item: &Item| {
            let by_v = wanted.v.is_none_or(|(op, value)| item.v.is_some_and(|v| op.holds(v.cmp(&value))));
            by_v && wanted.tag.as_ref().is_none_or(|tag| item.tag == *tag)
        };
        let mut found: Vec<_> = self.items.iter().filter(|(_, item)| holds(item)).collect();
        let by_v = |item: &Item| (item.v.is_none(), item.v);
        match wanted.order {
            1 => found.sort_by_key(|(_, item)| by_v(item)),
            2 => found.sort_by_key(|(_, item)| (item.v.is_none(), std::cmp::Reverse(item.v))),
            3 => found.sort_by_key(|(_, item)| item.tag.clone()),
            4 => found.sort_by_key(|(_, item)| std::cmp::Reverse(item.tag.clone())),
            _ => {}
        }
        found.truncate(wanted.limit.unwrap_or(usize::MAX));
        found
    }

    fn doc(&self) -> Json {
        json!({"n": self.items.len(), "s": self.items.values().filter_map(|item| item.v).sum::<i64>()})
    }
}

impl Items for Region {
    fn get(&mut self, id: &str) -> Result<Option<Item>, HandlerError> {
        Ok(self.items.get(id).cloned())
    }
    fn set(&mut self, id: &str, item: Option<Item>) -> Result<(), HandlerError> {
        match item {
            Some(item) => drop(self.items.insert(id.to_owned(), item)),
            None => drop(self.items.remove(id)),
        }
        Ok(())
    }
    fn find(&mut self, wanted: &Wanted) -> Result<Vec<String>, HandlerError> {
        Ok(self.found(wanted).into_iter().map(|(id, item)| format!("{id}={:?}", item.v)).collect())
    }
    fn count(&mut self, wanted: &Wanted) -> Result<u64, HandlerError> {
        Ok(self.found(wanted).len() as u64)
    }
    fn note(&mut self, id: &str, text: String) -> Result<(), HandlerError> {
        self.notes.insert(id.to_owned(), text);
        Ok(())
    }
}

type State = BTreeMap<String, Region>;

struct Histories;

impl Handler for Histories {
    type Event<'e> = Event;
    fn entities(&self) -> Vec<EntityTable> {
        vec![Item::table(), Note::table()]
    }
    fn on_event(&self, event: Event, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        handle(&event, &mut Real(ctx))
    }
    fn has_snapshots(&self) -> bool {
        true
    }
    fn on_snapshot(&self, ctx: &mut Context<'_>) -> Result<Option<Json>, HandlerError> {
        let items = ctx.find::<Item>(&Find::all().ascending("v"))?;
        Ok(Some(json!({"n": ctx.count::<Item>()?, "s": items.iter().filter_map(|(_, item)| item.v).sum::<i64>()})))
    }
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// A block: how many numbers further, and its events with their regions.
    Block(u8, Vec<(u8, Op)>),
    /// The source goes back so many blocks of the branch, as far as it can be followed.
    Fork(u8),
    /// It goes back to the branch that it left last.
    Return,
    /// The run ends here, and another goes on; its source begins anew, or goes on where the last one ended.
    Restart(bool),
    /// Of the run that ends here, that commit fails; before it is durable, or after.
    Fail(u8, bool),
    /// The run ends here, and a rollback goes back so many block numbers.
    Rollback(u8),
}

#[derive(Debug, Clone)]
struct Plan {
    depth: u64,
    batch_events: u64,
    evicts: bool,
    every_batch: bool,
    names_parents: bool,
    steps: Vec<Step>,
}

fn op() -> impl Strategy<Value = Op> {
    let condition = || prop::option::of((prop::sample::select(Comparison::ALL.to_vec()), -4..6i8));
    prop_oneof![
        5 => (0..7u8, prop::option::weighted(0.85, -4..6i8)).prop_map(|(id, v)| Op::Set(id, v)),
        3 => (0..7u8).prop_map(Op::Delete),
        3 => (0..7u8, -3..4i8).prop_map(|(id, v)| Op::Add(id, v)),
        3 => (condition(), 0..5u8, prop::option::of(0..4u8)).prop_map(|(c, order, limit)| Op::Find(c, order, limit)),
        1 => (0..3u8, condition()).prop_map(|(tag, c)| Op::FindTag(tag, c)),
        2 => condition().prop_map(Op::Count),
        1 => (-3..4i8).prop_map(Op::Take),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        14 => (1..3u8, prop::collection::vec((0..3u8, op()), 1..4)).prop_map(|(gap, events)| Step::Block(gap, events)),
        3 => (1..6u8).prop_map(Step::Fork),
        1 => Just(Step::Return),
        1 => any::<bool>().prop_map(Step::Restart),
        1 => (1..4u8, any::<bool>()).prop_map(|(at, after)| Step::Fail(at, after)),
        1 => (0..6u8).prop_map(Step::Rollback),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    (1..9u64, 1..6u64, any::<bool>(), any::<bool>(), any::<bool>(), prop::collection::vec(step(), 3..13)).prop_map(
        |(depth, batch_events, evicts, every_batch, names_parents, steps)| Plan {
            depth,
            batch_events,
            evicts,
            every_batch,
            names_parents,
            steps,
        },
    )
}

/// A block of the model, and the state as of its end.
#[derive(Debug, Clone)]
struct Block {
    number: i64,
    hash: String,
    parent: Option<String>,
    events: Vec<(String, String)>,
    state: Arc<State>,
    blocks: u64,
    total: u64,
}

/// The model: the branch that counts, the one that was left last, and all blocks in the order in which they came.
#[derive(Default)]
struct Model {
    chain: Vec<Block>,
    left: Vec<Block>,
    delivered: Vec<Block>,
    made: u64,
    /// No rollback can go below it any more.
    floor: i64,
    depth: u64,
    has_returned: bool,
}

impl Model {
    fn tip(&self) -> i64 {
        self.chain.last().map_or(0, |block| block.number)
    }

    fn push(&mut self, mut block: Block) {
        let mut state = self.chain.last().map_or_else(State::default, |last| (*last.state).clone());
        for (region, json) in &block.events {
            let event: Event = serde_json::from_str(json).expect("an event");
            let region = state.entry(region.clone()).or_default();
            handle(&event, region).expect("the model");
            region.events += 1;
            region.last_block = block.number;
        }
        let before = self.chain.last().map_or((0, 0), |last| (last.blocks, last.total));
        (block.blocks, block.total) = (before.0 + 1, before.1 + block.events.len() as u64);
        block.state = Arc::new(state);
        self.floor = self.floor.max(block.number - self.depth as i64);
        self.delivered.push(block.clone());
        self.chain.push(block);
    }

    fn make(&mut self, gap: u8, ops: &[(u8, Op)]) {
        self.made += 1;
        let made = self.made;
        let event = |(at, (region, op)): (usize, &(u8, Op))| {
            let mut json = op_json(op);
            json["n"] = (made * 10 + at as u64).into();
            (format!("r{region}"), json.to_string())
        };
        self.push(Block {
            number: self.tip() + i64::from(gap),
            hash: format!("h{made}"),
            parent: self.chain.last().map(|block| block.hash.clone()),
            events: ops.iter().enumerate().map(event).collect(),
            state: Arc::default(),
            blocks: 0,
            total: 0,
        });
    }

    /// Goes back so many blocks, as far as a rollback can follow; whether it went back at all.
    fn fork(&mut self, blocks: u8) -> bool {
        let mut left = Vec::new();
        for _ in 0..blocks {
            let to = self.chain.len().checked_sub(2).map(|at| self.chain[at].number);
            if to.is_none_or(|to| to < self.floor) {
                break;
            }
            left.extend(self.chain.pop());
        }
        left.reverse();
        let has_left = !left.is_empty();
        if has_left {
            self.left = left;
        }
        has_left
    }
}

/// A source over delivered blocks.
struct Delivered {
    blocks: std::vec::IntoIter<Block>,
    current: Option<(Block, usize)>,
    names_parents: bool,
}

impl Source for Delivered {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        loop {
            if let Some((block, at)) = &mut self.current
                && let Some((region, json)) = block.events.get(*at)
            {
                event.block = block.number;
                event.region.clone_from(region);
                event.json.clone_from(json);
                event.hash = Some(block.hash.clone());
                event.parent = block.parent.clone().filter(|_| self.names_parents);
                *at += 1;
                return Ok(Next::Event);
            }
            match self.blocks.next() {
                Some(block) => self.current = Some((block, 0)),
                None => return Ok(Next::End),
            }
        }
    }
}

/// A store of which a commit fails, before it is durable or after.
struct Failing {
    inner: Box<dyn Store>,
    left: Option<(u8, bool)>,
}

impl Store for Failing {
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
        match &mut self.left {
            Some((0, false)) => Err(StoreError::Other("a commit fails".into())),
            Some((0, true)) => {
                self.inner.commit(batch)?;
                Err(StoreError::Other("a commit is lost".into()))
            }
            Some((left, _)) => {
                *left -= 1;
                self.inner.commit(batch)
            }
            None => self.inner.commit(batch),
        }
    }
    fn history(&mut self, rows_from: u64) -> Result<Vec<HistoryRecord>, StoreError> {
        self.inner.history(rows_from)
    }
    fn region_blocks(&mut self) -> Result<Vec<(Arc<str>, i64)>, StoreError> {
        self.inner.region_blocks()
    }
    fn set_back_regions(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.inner.set_back_regions()
    }
    fn encoder(&self) -> Option<Arc<dyn RowEncoder>> {
        self.inner.encoder()
    }
    fn readers(&self) -> Arc<dyn OpenReader> {
        self.inner.readers()
    }
}

/// Where a history is stored, and how its state is read back.
struct Place {
    url: String,
    file: Option<PathBuf>,
    database: Option<String>,
    /// A pipeline file, if the handlers are the script's.
    script: Option<PathBuf>,
}

impl Place {
    fn query(&self, sql: &str) -> Vec<Vec<String>> {
        match (&self.file, &self.database) {
            (Some(file), _) => crate::common::query(file, sql),
            (None, Some(database)) => crate::server::query(&mut Server::shared().client(database), "hist", sql),
            (None, None) => Vec::new(),
        }
    }

    fn pipeline(&self, plan: &Plan, fails: Option<(u8, bool)>) -> Pipeline {
        let memory_bytes = if plan.evicts && self.script.is_none() { 1 } else { 64 << 20 };
        let every = if plan.every_batch { Every::Batch } else { Every::End };
        let snapshots = SnapshotsConfig::default().with_every(every).expect("every");
        let batch = BatchConfig::default().with_events(plan.batch_events);
        let batch = batch.and_then(|batch| batch.with_memory_bytes(memory_bytes)).expect("a batch");
        let pipeline = match &self.script {
            Some(file) => Pipeline::open(file).expect("the pipeline file"),
            None => Pipeline::new("hist", Histories).expect("a pipeline"),
        };
        let schema = Arc::new(Schema::new([Item::table().entity, Note::table().entity]).expect("a schema"));
        let store = StorePlan::new("hist", schema).expect("a plan").with_snapshots(true);
        let store = store.with_ttl(Duration::from_secs(86_400)).expect("a plan");
        let url = StoreUrl::parse(&self.url, Path::new("")).expect("an address");
        let inner = store::open(&url, store).expect("the store");
        pipeline.store(Failing { inner, left: fails }).batch(batch).snapshots(snapshots).rollback_depth(plan.depth)
    }
}

type Stored = (BTreeMap<(String, String), Item>, BTreeMap<(String, String), String>);

fn stored(place: &Place) -> Stored {
    let number = |text: &String| text.parse::<i64>().ok();
    let items = place.query("SELECT region, id, v, tag FROM item");
    let items = items.into_iter().map(|row| {
        let item = Item { v: number(&row[2]), tag: row[3].clone() };
        ((row[0].clone(), row[1].clone()), item)
    });
    let notes = place.query("SELECT region, id, text FROM note");
    let notes = notes.into_iter().map(|row| ((row[0].clone(), row[1].clone()), row[2].clone()));
    (items.collect(), notes.collect())
}

fn modelled(state: &State) -> Stored {
    let mut rows = Stored::default();
    for (name, region) in state {
        rows.0.extend(region.items.iter().map(|(id, item)| ((name.clone(), id.clone()), item.clone())));
        rows.1.extend(region.notes.iter().map(|(id, text)| ((name.clone(), id.clone()), text.clone())));
    }
    rows
}

/// The store holds what the model says.
fn check(place: &Place, model: &Model, when: &str) -> Result<(), TestCaseError> {
    let empty = Arc::default();
    let (state, blocks, total) = match model.chain.last() {
        Some(last) => (&last.state, last.blocks, last.total),
        None => (&empty, 0, 0),
    };
    prop_assert_eq!(stored(place), modelled(state), "rows, {}", when);
    let counts = place.query("SELECT blocks, events FROM forebay_pipelines");
    prop_assert_eq!(&counts, &[[blocks.to_string(), total.to_string()]], "counts, {}", when);
    let regions = place.query("SELECT region, events, block FROM forebay_regions WHERE events > 0 ORDER BY region");
    let expected: Vec<Vec<String>> = state
        .iter()
        .map(|(name, region)| vec![name.clone(), region.events.to_string(), region.last_block.to_string()])
        .collect();
    prop_assert_eq!(regions, expected, "regions, {}", when);
    let mut newest = place.query("SELECT region, doc FROM forebay_snapshots ORDER BY region, seq DESC");
    newest.dedup_by(|later, first| later[0] == first[0]);
    let known: BTreeSet<&String> = newest.iter().map(|row| &row[0]).collect();
    prop_assert!(state.keys().all(|name| known.contains(name)), "a region lacks a snapshot, {}", when);
    for row in &newest {
        let doc: Json = serde_json::from_str(&row[1]).expect("a document");
        let expected = state.get(&row[0]).map_or_else(|| Region::default().doc(), Region::doc);
        prop_assert_eq!(doc, expected, "the snapshot of {}, {}", row[0], when);
    }
    Ok(())
}

/// What the store holds after a failed run is the state as of some block that has come.
fn check_some(place: &Place, model: &Model) -> Result<(), TestCaseError> {
    let now = stored(place);
    let is_known = now == Stored::default() || model.delivered.iter().any(|block| modelled(&block.state) == now);
    prop_assert!(is_known, "after a failed commit the store holds a state that never was: {:?}", now);
    Ok(())
}

/// Lives a history.
fn live(plan: &Plan, place: &Place) -> Result<(), TestCaseError> {
    let mut model = Model { depth: plan.depth, floor: i64::MIN, ..Model::default() };
    // The first block has a number before which nothing is.
    let mut delivered_before = 0;
    let run = |model: &Model, from: usize, fails: Option<(u8, bool)>| {
        let blocks: Vec<Block> = model.delivered[from..].to_vec();
        let source = Delivered { blocks: blocks.into_iter(), current: None, names_parents: plan.names_parents };
        place.pipeline(plan, fails).source(source).run()
    };
    for step in plan.steps.iter().chain([&Step::Restart(true)]) {
        match step {
            Step::Block(gap, ops) => model.make(*gap, ops),
            Step::Fork(blocks) => {
                if model.fork(*blocks) {
                    // The other branch must have a block, or nobody knows of it.
                    model.make(1, &[(0, Op::Add(0, 1))]);
                }
            }
            Step::Return => {
                let left = std::mem::take(&mut model.left);
                let Some(first) = left.first() else { continue };
                let at = model.chain.iter().position(|block| Some(&block.hash) == first.parent.as_ref());
                // Without parents it is seen only by a block that is held with another hash, and only as far back.
                let next = |at: &usize| model.chain.get(*at + 1).is_some_and(|next| next.number >= first.number);
                let is_seen = plan.names_parents || (first.number <= model.tip() && at.as_ref().is_some_and(next));
                let is_kept = |at: &usize| *at + 1 < model.chain.len() && model.chain[*at].number >= model.floor;
                let Some(at) = at.filter(is_kept).filter(|_| is_seen) else { continue };
                model.chain.truncate(at + 1);
                left.into_iter().for_each(|block| model.push(block));
                model.has_returned = true;
            }
            Step::Restart(is_anew) => {
                let from = if *is_anew { 0 } else { delivered_before };
                let ended = run(&model, from, None);
                prop_assert!(ended.is_ok(), "a run failed: {}", ended.err().map(|e| e.to_string()).unwrap_or_default());
                check(place, &model, "after a run")?;
                delivered_before = model.delivered.len();
            }
            Step::Fail(at, is_after) => {
                if run(&model, 0, Some((*at, *is_after))).is_err() {
                    check_some(place, &model)?;
                    let ended = run(&model, 0, None);
                    let text = ended.err().map(|error| error.to_string());
                    prop_assert!(text.is_none(), "the run after a failed one: {:?}", text);
                }
                check(place, &model, "after a failed commit")?;
                delivered_before = model.delivered.len();
            }
            Step::Rollback(blocks) => {
                // Where a branch was gone back to, its blocks come twice, and a source that begins anew would have to go
                // back further than is kept.
                if model.has_returned || model.chain.is_empty() {
                    continue;
                }
                run(&model, 0, None).map_err(|error| TestCaseError::fail(error.to_string()))?;
                let to = (model.tip() - i64::from(*blocks)).max(model.floor);
                let tip = model.tip();
                let report = place.pipeline(plan, None).rollback(to);
                let report = report.map_err(|error| TestCaseError::fail(format!("to {to}: {error}")))?;
                prop_assert_eq!(report.rollbacks.len(), usize::from(to < tip));
                let mut then = Model { depth: plan.depth, ..Model::default() };
                then.chain.extend(model.chain.iter().filter(|block| block.number <= to).cloned());
                check(place, &then, "after a rollback")?;
                // A second one changes nothing.
                let again = place.pipeline(plan, None).rollback(to);
                prop_assert!(again.is_ok_and(|again| again.rollbacks.is_empty()));
                run(&model, 0, None).map_err(|error| TestCaseError::fail(error.to_string()))?;
                check(place, &model, "after going on from a rollback")?;
                delivered_before = model.delivered.len();
            }
        }
    }
    Ok(())
}

fn folder() -> tempfile::TempDir {
    // In memory, where there is such a place: thousands of files are made.
    let shared = Path::new("/dev/shm");
    let made = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    made.expect("a folder")
}

fn live_on_sqlite(plan: &Plan) -> Result<(), TestCaseError> {
    let dir = folder();
    let file = dir.path().join("h.db");
    let place =
        Place { url: format!("sqlite:{}", file.display()), file: Some(file.clone()), database: None, script: None };
    live(plan, &place)
}

const SCRIPT: &str = r#"
local function tag(v) return "t" .. ((v or 7) % 3) end
local ORDERS = { "v", "-v", "tag", "-tag" }
local function ids(found)
  local parts = {}
  for at, row in ipairs(found) do parts[at] = row.id .. "=" .. (row.v and "Some(" .. row.v .. ")" or "None") end
  return table.concat(parts, " ")
end
function on_event(e, ctx)
  local id, note, where = "k" .. (e.id or 0), "n" .. e.n % 5, nil
  if e.where then where = {{ "v", e.where[1], e.where[2] }} end
  if e.op == "set" then ctx.item:set(id, { v = e.v, tag = tag(e.v) })
  elseif e.op == "delete" then ctx.item:delete(id)
  elseif e.op == "add" then
    local old = ctx.item:get(id)
    local v = (old and old.v or 0) + e.v
    ctx.item:set(id, { v = v, tag = tag(v) })
  elseif e.op == "find" then
    ctx.note:set(note, { text = ids(ctx.item:find{ where = where, order = ORDERS[e.order % 5], limit = e.limit }) })
  elseif e.op == "tag" then
    where = where or {}
    where[#where + 1] = { "tag", "=", "t" .. e.id % 3 }
    ctx.note:set(note, { text = ids(ctx.item:find{ where = where }) })
  elseif e.op == "count" then
    ctx.note:set(note, { text = ctx.item:count{ where = where } .. " of " .. ctx.item:count() })
  else
    local found = ctx.item:find{ where = {{ "v", ">", e.v }}, order = "-v", limit = 1 }
    if found[1] then ctx.item:delete(found[1].id) end
  end
end
function on_snapshot(ctx)
  local sum = 0
  for _, row in ipairs(ctx.item:find{ order = "v" }) do sum = sum + (row.v or 0) end
  return { n = ctx.item:count(), s = sum }
end
"#;

const PIPELINE: &str = r#"
name = "hist"
[entities.item]
columns = { v = "bigint", tag = "text" }
indexes = ["v", "tag"]
[entities.note]
columns = { text = "text" }
[handlers]
script = "handlers.lua"
"#;

fn live_in_lua(plan: &Plan) -> Result<(), TestCaseError> {
    let dir = folder();
    let file = dir.path().join("h.db");
    std::fs::write(dir.path().join("pipeline.toml"), PIPELINE).expect("the pipeline file");
    std::fs::write(dir.path().join("handlers.lua"), SCRIPT).expect("the script");
    let script = Some(dir.path().join("pipeline.toml"));
    let url = format!("sqlite:{}", file.display());
    live(plan, &Place { url, file: Some(file.clone()), database: None, script })
}

fn live_on_postgres(plan: &Plan) -> Result<(), TestCaseError> {
    let database = Server::shared().make_database();
    let url = Server::shared().url(&database);
    let result = live(plan, &Place { url, file: None, database: Some(database.clone()), script: None });
    Server::shared().execute("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
    result
}

/// Lives so many histories; with the same seed they are the same.
fn live_many(cases: u32, seed: u8, live: impl Fn(&Plan) -> Result<(), TestCaseError>) {
    let soak = std::env::var("FOREBAY_SOAK").ok().and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: soak.unwrap_or(cases),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..ProptestConfig::default()
    };
    let mut runner = match soak {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32])),
    };
    match runner.run(&plan(), |plan| live(&plan)) {
        Ok(()) => {}
        Err(TestError::Fail(reason, plan)) => panic!("{reason}\nshrunk: {plan:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

#[test]
fn five_thousand_histories_on_sqlite_1() {
    live_many(SQLITE_CASES, 1, live_on_sqlite);
}

#[test]
fn five_thousand_histories_on_sqlite_2() {
    live_many(SQLITE_CASES, 2, live_on_sqlite);
}

#[test]
fn five_thousand_histories_on_sqlite_3() {
    live_many(SQLITE_CASES, 3, live_on_sqlite);
}

#[test]
fn five_thousand_histories_on_sqlite_4() {
    live_many(SQLITE_CASES, SQLITE_TESTS, live_on_sqlite);
}

#[test]
fn histories_in_lua() {
    live_many(LUA_CASES, 5, live_in_lua);
}

#[test]
fn histories_on_postgres() {
    live_many(POSTGRES_CASES, 6, live_on_postgres);
}

/// Histories that once went wrong, shrunk.
mod shrunk {
    use Comparison::{Equal, Greater, Less};
    use Op::{Add, Count, Delete, Find, FindTag, Set, Take};
    use Step::{Block, Fail, Fork, Restart, Return, Rollback};

    use super::*;

    fn check(depth: u64, names_parents: bool, steps: Vec<Step>) {
        let plan = Plan { depth, batch_events: 1, evicts: false, every_batch: false, names_parents, steps };
        live_on_sqlite(&plan).unwrap_or_else(|error| panic!("{error}\n{plan:?}"));
    }

    fn block(gap: u8) -> Step {
        Block(gap, vec![(0, Set(0, None))])
    }

    #[test]
    fn a_run_that_failed_gives_the_lock_back_before_it_ends() {
        check(1, false, vec![block(1), Fail(1, false), block(1), block(1)]);
    }

    #[test]
    fn a_branch_that_was_left_has_a_later_block_than_the_one_that_counts() {
        check(5, false, vec![block(1), block(2), Fork(1), Restart(false)]);
        check(5, false, vec![block(1), block(2), block(2), Fork(2), block(1), Restart(false)]);
        check(5, false, vec![block(1), block(2), block(1), Fork(2), block(1), Return]);
    }

    #[test]
    fn the_block_that_a_rollback_came_to_is_not_on_a_branch_that_was_left() {
        let last = Block(1, vec![(0, Add(6, 1)), (0, Find(Some((Less, 5)), 1, Some(2))), (2, Add(6, 0))]);
        let steps = vec![block(1), block(1), Fork(1), block(2), Fork(3), block(1), block(1), block(2), block(1), last];
        check(5, false, steps.into_iter().chain([Rollback(5)]).collect());
    }

    #[test]
    fn snapshots_follow_a_branch_that_is_gone_back_to() {
        let plan = Plan {
            depth: 2,
            batch_events: 2,
            evicts: false,
            every_batch: false,
            names_parents: false,
            steps: vec![
                Block(2, vec![(0, Set(1, Some(3))), (0, Delete(0)), (1, Find(Some((Greater, -4)), 1, None))]),
                Block(1, vec![(1, Add(3, -2))]),
                Fork(5),
                Fail(2, true),
                Return,
                Block(
                    2,
                    vec![(2, Count(Some((Greater, 5)))), (0, Set(3, Some(2))), (0, Find(Some((Greater, 5)), 4, None))],
                ),
                Fail(3, false),
            ],
        };
        live_on_sqlite(&plan).unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn a_source_that_begins_anew_after_a_rollback_before_its_first_block() {
        let steps = vec![
            Block(2, vec![(2, Set(6, Some(-4))), (2, Delete(0))]),
            Block(2, vec![(0, Delete(5)), (2, Find(Some((Less, -2)), 3, Some(3)))]),
            Restart(false),
            Block(1, vec![(0, Find(None, 3, Some(2)))]),
            Fail(2, true),
            Block(1, vec![(0, Take(-3)), (2, Delete(4))]),
            Block(2, vec![(2, Set(6, Some(0))), (2, Delete(4))]),
            Fork(4),
            Block(2, vec![(2, FindTag(2, Some((Greater, 2))))]),
            Rollback(4),
            Block(2, vec![(0, Add(4, -2))]),
            Block(1, vec![(0, Delete(1)), (2, Count(None))]),
            Restart(false),
            Block(1, vec![(0, Add(1, 2))]),
            Block(1, vec![(0, Delete(3)), (0, Find(Some((Equal, 1)), 0, Some(3)))]),
            Block(1, vec![(2, Set(4, Some(4))), (2, Add(6, 0)), (0, Find(Some((Greater, 1)), 1, None))]),
            Rollback(4),
            Fork(2),
            Block(2, vec![(2, Find(None, 2, Some(3))), (0, Delete(0))]),
        ];
        check(7, false, steps);
    }
}
