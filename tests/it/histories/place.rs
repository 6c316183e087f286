//! Where a history is lived: its source, a store whose commits fail when they are told to, and what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use forebay::config::{BatchConfig, ErrorsConfig, SnapshotsConfig};
use forebay::snapshot::Every;
use forebay::source::{Next, Position, Resumed, Source, SourceError, SourceEvent};
use forebay::store::batch::UndoRecord;
use forebay::store::batch::{Checkpoint, RegionTouch, SealedBatch, SourceFile, SourceProgress};
use forebay::store::{self, Committed, OpenReader, RowEncoder, Store, StoreError, StorePlan, StoreUrl};
use forebay::store::{KeyPage, RegionIds, RegionLimit, RegionQuery, RowReader};
use forebay::{EntityNo, EntityRow, Pipeline, Schema};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::Value as Json;

use super::items::{Histories, Item, Note, Region};
use super::model::{Block, Model, State};
use super::plan::Plan;
use crate::support::postgres_server::{self, Server};
use crate::support::project;

/// What a source has next.
enum Entry {
    Event(Block, usize),
    /// It says itself that it goes back.
    Back(i64),
}

/// A source over delivered blocks.
pub struct Delivered {
    entries: Vec<Entry>,
    next: usize,
    names_parents: bool,
    has_positions: bool,
    /// How many entries it gives before its connection is lost.
    loses_after: Option<usize>,
}

impl Delivered {
    pub fn new(blocks: &[Block], plan: &Plan) -> Self {
        let mut entries = Vec::new();
        let mut last: Option<&Block> = None;
        for block in blocks {
            let is_next = last.is_none_or(|last| block.parent.as_ref() == Some(&last.hash));
            let parent = blocks.iter().find(|parent| Some(&parent.hash) == block.parent.as_ref());
            if let Some(parent) = parent.filter(|_| !is_next && plan.says_back) {
                entries.push(Entry::Back(parent.number));
            }
            entries.extend((0..block.events.len()).map(|at| Entry::Event(block.clone(), at)));
            last = Some(block);
        }
        let (names_parents, has_positions) = (plan.names_parents, plan.has_positions);
        Self { entries, next: 0, names_parents, has_positions, loses_after: None }
    }

    /// A source that names parents, and has no positions.
    pub fn named(blocks: &[Block]) -> Self {
        let event = |block: &Block, at: usize| Entry::Event(block.clone(), at);
        let entries = blocks.iter().flat_map(|block| (0..block.events.len()).map(move |at| event(block, at)));
        Self { entries: entries.collect(), next: 0, names_parents: true, has_positions: false, loses_after: None }
    }

    pub fn that_loses_after(self, entries: usize) -> Self {
        Self { loses_after: Some(entries), ..self }
    }

    /// The hash of the block that ends at a position.
    pub fn ends_at(&self, position: &str) -> Option<&str> {
        match self.entries.get(position.parse::<usize>().ok()?.checked_sub(1)?)? {
            Entry::Event(block, at) if at + 1 == block.events.len() => Some(&block.hash),
            _ => None,
        }
    }
}

impl Source for Delivered {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        if let Some(left) = &mut self.loses_after {
            *left = left.checked_sub(1).ok_or_else(|| SourceError::Other("the connection is lost".into()))?;
        }
        let Some(entry) = self.entries.get(self.next) else { return Ok(Next::End) };
        self.next += 1;
        let (block, at) = match entry {
            Entry::Back(to) => return Ok(Next::Rollback { to: *to }),
            Entry::Event(block, at) => (block, *at),
        };
        let (region, json) = &block.events[at];
        event.block = block.number;
        event.region.clone_from(region);
        event.json.clone_from(json);
        event.hash = Some(block.hash.clone());
        event.parent = block.parent.clone().filter(|_| self.names_parents);
        if self.has_positions {
            event.set_position(&self.next.to_string())?;
        }
        Ok(Next::Event)
    }

    fn resume(&mut self, after: &Position) -> Result<Resumed, SourceError> {
        assert!(self.has_positions, "it gave none: {after}");
        self.next = after.as_str().parse().expect("a position of this source");
        Ok(Resumed::After)
    }
}

/// A store of which a commit fails, before it is durable or after.
pub struct Failing {
    pub inner: Box<dyn Store>,
    pub left: Option<(u8, bool)>,
    gate: Arc<Gate>,
}

impl Failing {
    /// The ids of its tables can be read in advance once it has committed so many batches, or after a moment.
    pub fn new(inner: Box<dyn Store>, left: Option<(u8, bool)>, ids_after: usize) -> Self {
        Self { inner, left, gate: Arc::new(Gate { ids_after, commits: Mutex::default(), more: Condvar::new() }) }
    }
}

/// How many batches have committed, for who waits for it.
struct Gate {
    ids_after: usize,
    commits: Mutex<usize>,
    more: Condvar,
}

impl Gate {
    /// So few that the run is not delayed: it may end without as many batches.
    const WAIT: Duration = Duration::from_millis(2);

    fn note(&self) {
        *self.commits.lock().expect("no panic") += 1;
        self.more.notify_all();
    }

    fn wait(&self) {
        let commits = self.commits.lock().expect("no panic");
        drop(self.more.wait_timeout_while(commits, Self::WAIT, |commits| *commits < self.ids_after));
    }
}

struct GatedReaders(Arc<dyn OpenReader>, Arc<Gate>);

impl OpenReader for GatedReaders {
    fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
        Ok(Box::new(GatedReader(self.0.open()?, Arc::clone(&self.1))))
    }
}

struct GatedReader(Box<dyn RowReader>, Arc<Gate>);

impl RowReader for GatedReader {
    fn rows(&mut self, entity: EntityNo, wanted: &[RegionIds<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
        self.0.rows(entity, wanted, found)
    }
    fn regions(
        &mut self,
        entity: EntityNo,
        regions: &[&str],
        limit: RegionLimit,
        found: &mut [Vec<u8>],
    ) -> Result<Vec<bool>, StoreError> {
        self.0.regions(entity, regions, limit, found)
    }
    fn keys(
        &mut self,
        entity: EntityNo,
        after: Option<(&str, &str)>,
        limit: usize,
        page: &mut KeyPage,
    ) -> Result<(), StoreError> {
        self.1.wait();
        self.0.keys(entity, after, limit, page)
    }
    fn find(&mut self, entity: EntityNo, wanted: &[RegionQuery<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
        self.0.find(entity, wanted, found)
    }
    fn count(&mut self, entity: EntityNo, wanted: RegionQuery<'_>, but: &[&str]) -> Result<u64, StoreError> {
        self.0.count(entity, wanted, but)
    }
}

impl Store for Failing {
    fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        self.inner.checkpoint()
    }
    fn source_progress(&mut self) -> Result<SourceProgress, StoreError> {
        self.inner.source_progress()
    }
    fn position(&mut self) -> Result<Option<Position>, StoreError> {
        self.inner.position()
    }
    fn source_files(&mut self) -> Result<Vec<SourceFile>, StoreError> {
        self.inner.source_files()
    }
    fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError> {
        self.inner.pending_regions()
    }
    fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError> {
        self.inner.empty_entities()
    }
    fn commit(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, StoreError> {
        let committed = match &mut self.left {
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
        };
        self.gate.note();
        committed
    }
    fn checks_new_rows(&self) -> bool {
        self.inner.checks_new_rows()
    }
    fn undo_log(&mut self, rows_from: u64) -> Result<Vec<UndoRecord>, StoreError> {
        self.inner.undo_log(rows_from)
    }
    fn region_blocks(&mut self) -> Result<Vec<(Arc<str>, i64)>, StoreError> {
        self.inner.region_blocks()
    }
    fn set_back_regions(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.inner.set_back_regions()
    }
    fn quarantined(&mut self) -> Result<u64, StoreError> {
        self.inner.quarantined()
    }
    fn encoder(&self) -> Option<Arc<dyn RowEncoder>> {
        self.inner.encoder()
    }
    fn readers(&self) -> Arc<dyn OpenReader> {
        Arc::new(GatedReaders(self.inner.readers(), Arc::clone(&self.gate)))
    }
}

/// Where a history is stored, and how its state is read back.
pub struct Place {
    pub url: String,
    pub file: Option<PathBuf>,
    pub database: Option<String>,
    /// A pipeline file, if the handlers are the script's.
    pub script: Option<PathBuf>,
}

impl Place {
    pub fn query(&self, sql: &str) -> Vec<Vec<String>> {
        match (&self.file, &self.database) {
            (Some(file), _) => project::query(file, sql),
            (None, Some(database)) => postgres_server::query(&mut Server::shared().client(database), "hist", sql),
            (None, None) => Vec::new(),
        }
    }

    pub fn pipeline(&self, plan: &Plan, fails: Option<(u8, bool)>) -> Pipeline {
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
        let pipeline =
            pipeline.store(Failing::new(inner, fails, plan.steps.len() % 4)).batch(batch).snapshots(snapshots);
        pipeline.rollback_depth(plan.depth).errors(ErrorsConfig::quarantine(1_000_000))
    }
}

pub type Stored = (BTreeMap<(String, String), Item>, BTreeMap<(String, String), String>);

pub fn stored(place: &Place) -> Stored {
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

pub fn modelled(state: &State) -> Stored {
    let mut rows = Stored::default();
    for (name, region) in state {
        rows.0.extend(region.items.iter().map(|(id, item)| ((name.clone(), id.clone()), item.clone())));
        rows.1.extend(region.notes.iter().map(|(id, text)| ((name.clone(), id.clone()), text.clone())));
    }
    rows
}

/// The store holds what the model says.
pub fn check(place: &Place, model: &Model, when: &str) -> Result<(), TestCaseError> {
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
    let aside = place.query("SELECT count(*) FROM forebay_quarantine");
    let expected = state.values().map(|region| region.aside).sum::<u64>();
    prop_assert_eq!(&aside, &[[expected.to_string()]], "events put aside, {}", when);
    let mut newest = place.query("SELECT region, doc FROM forebay_snapshots ORDER BY region, seq DESC");
    newest.dedup_by(|later, first| later[0] == first[0]);
    let known: BTreeSet<&String> = newest.iter().map(|row| &row[0]).collect();
    prop_assert!(state.keys().all(|name| known.contains(name)), "a region lacks a snapshot, {}", when);
    for row in &newest {
        let doc: Json = serde_json::from_str(&row[1]).expect("a document");
        // Of a region that has no event any more nothing is said.
        let expected = state.get(&row[0]).filter(|region| region.events > 0).map_or(Json::Null, Region::doc);
        prop_assert_eq!(doc, expected, "the snapshot of {}, {}", row[0], when);
    }
    Ok(())
}

/// The stored position is one after the last block of the branch that counts.
pub fn check_position(
    place: &Place,
    plan: &Plan,
    delivered: &[Block],
    tip: Option<&Block>,
) -> Result<(), TestCaseError> {
    let stored = place.query("SELECT position FROM forebay_pipelines");
    let stored = stored.first().map_or("NULL", |row| row[0].as_str());
    let source = Delivered::new(delivered, plan);
    let expected = tip.filter(|_| plan.has_positions).map(|tip| tip.hash.as_str());
    prop_assert_eq!(source.ends_at(stored), expected, "the position {}", stored);
    Ok(())
}

/// What the store holds after a failed run is the state as of some block that has come.
pub fn check_some(place: &Place, model: &Model) -> Result<(), TestCaseError> {
    let now = stored(place);
    let is_known = now == Stored::default() || model.delivered.iter().any(|block| modelled(&block.state) == now);
    prop_assert!(is_known, "after a failed commit the store holds a state that never was: {:?}", now);
    Ok(())
}
