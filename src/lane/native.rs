//! Lanes of a Rust handler: rows in [`Table`]s, one call an event.
//!
//! What a call writes is kept apart until it returns. When it asks for a row that is not warm, it is abandoned, the
//! calls behind it are tried dry to learn what they will miss, all of it is loaded at once, and it is made again.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Json;

use super::handler::{Context, EntityTable, Handler, HandlerError, TypeMap};
use super::watch::Activity;
use super::{Ask, Engine, EngineContext, EngineFactory, LaneError, Loader, Round, Wanted};
use crate::commit::handoff::panic_message;
use crate::event::RegionNo;
use crate::limits::DRY_EVENTS_MAX;
use crate::stage::batch::RegionChanges;
use crate::stage::codec::{Decoder, Head, ValueRef, Writer, encode_values};
use crate::stage::table::{Found, Table};
use crate::value::Row;

/// Makes engines that run a Rust handler.
pub(crate) struct NativeFactory<H> {
    handler: Arc<H>,
}

impl<H: Handler> NativeFactory<H> {
    pub(crate) fn new(handler: H) -> Self {
        Self { handler: Arc::new(handler) }
    }

    pub(crate) fn tables(&self) -> Vec<EntityTable> {
        self.handler.entities()
    }
}

impl<H: Handler> EngineFactory for NativeFactory<H> {
    fn build(&self, context: EngineContext) -> Result<Box<dyn Engine>, LaneError> {
        let types = TypeMap::new(&self.handler.entities(), &context.schema);
        let loader = Loader::new(&context);
        let rows = Rows {
            schema_len: context.schema.entities().len(),
            is_empty: Arc::clone(&context.is_empty),
            tables: BTreeMap::new(),
            regions: BTreeMap::new(),
            writes: Vec::new(),
            writer: Writer::default(),
            missed: Missed::default(),
            is_snapshot: false,
            batch: 1,
            committed: 0,
        };
        Ok(Box::new(NativeEngine { handler: Arc::clone(&self.handler), types, rows, loader, context }))
    }

    fn has_snapshots(&self) -> bool {
        self.handler.has_snapshots()
    }

    fn name(&self) -> String {
        std::any::type_name::<H>().to_owned()
    }
}

/// What a context reads and writes.
pub(super) trait RowAccess {
    fn get(&mut self, entity: usize, region: RegionNo, id: &str) -> Result<Option<&Row>, HandlerError>;
    fn write(&mut self, entity: usize, region: RegionNo, id: &str, row: Option<Row>) -> Result<(), HandlerError>;
    fn count(&mut self, entity: usize, region: RegionNo) -> Result<u64, HandlerError>;
}

/// Rows that handlers asked for and that were not warm: for each table, the ids, or all of it.
#[derive(Default)]
struct Missed {
    ids: BTreeMap<(RegionNo, usize), Vec<String>>,
    whole: BTreeSet<(RegionNo, usize)>,
}

impl Missed {
    fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.whole.is_empty()
    }

    /// Takes in what another call missed.
    fn add(&mut self, more: Self) {
        for (table, ids) in more.ids {
            self.ids.entry(table).or_default().extend(ids);
        }
        self.whole.extend(more.whole);
    }
}

struct Rows {
    schema_len: usize,
    is_empty: Arc<[bool]>,
    /// For each region, its tables in the order of the schema.
    tables: BTreeMap<RegionNo, Vec<Table>>,
    regions: BTreeMap<RegionNo, Arc<str>>,
    /// What the current call wrote.
    writes: Vec<(usize, String, Option<Row>)>,
    /// The event that the current call handles.
    writer: Writer,
    missed: Missed,
    is_snapshot: bool,
    batch: u64,
    committed: u64,
}

impl Rows {
    fn know(&mut self, region: RegionNo, name: &Arc<str>) {
        let Self { tables, regions, is_empty, schema_len, .. } = self;
        tables.entry(region).or_insert_with(|| (0..*schema_len).map(|entity| Table::new(is_empty[entity])).collect());
        regions.entry(region).or_insert_with(|| Arc::clone(name));
    }

    fn table(&mut self, entity: usize, region: RegionNo) -> Result<&mut Table, HandlerError> {
        let table = self.tables.get_mut(&region).and_then(|tables| tables.get_mut(entity));
        table.ok_or_else(|| HandlerError::new("a region that is not known"))
    }

    /// Makes the writes of the call that just returned count.
    fn keep(&mut self, region: RegionNo) {
        let batch = self.batch;
        let Some(tables) = self.tables.get_mut(&region) else { return };
        for (entity, id, row) in self.writes.drain(..) {
            tables[entity].set(&id, row, batch, self.writer);
        }
    }
}

impl RowAccess for Rows {
    fn get(&mut self, entity: usize, region: RegionNo, id: &str) -> Result<Option<&Row>, HandlerError> {
        if let Some(at) = self.writes.iter().rposition(|(table, written, _)| *table == entity && written == id) {
            return Ok(self.writes[at].2.as_ref());
        }
        if self.table(entity, region)?.get(id) == Found::Missing {
            self.missed.ids.entry((region, entity)).or_default().push(id.to_owned());
            return Err(HandlerError::new("a row has to be loaded first; this error must be passed on"));
        }
        match self.table(entity, region)?.get(id) {
            Found::Row(row) => Ok(Some(row)),
            Found::Absent | Found::Missing => Ok(None),
        }
    }

    fn write(&mut self, entity: usize, _: RegionNo, id: &str, row: Option<Row>) -> Result<(), HandlerError> {
        if self.is_snapshot {
            return Err(HandlerError::new("on_snapshot may read, and not write"));
        }
        self.writes.push((entity, id.to_owned(), row));
        Ok(())
    }

    fn count(&mut self, entity: usize, region: RegionNo) -> Result<u64, HandlerError> {
        let mut written: BTreeMap<String, bool> = BTreeMap::new();
        for (table, id, row) in &self.writes {
            if *table == entity {
                written.insert(id.clone(), row.is_some());
            }
        }
        let table = self.table(entity, region)?;
        if !table.is_whole() {
            self.missed.whole.insert((region, entity));
            return Err(HandlerError::new("a table has to be loaded first; this error must be passed on"));
        }
        let mut count = written.values().filter(|is_live| **is_live).count() as u64;
        table.for_each(|id, _| count += u64::from(!written.contains_key(id)));
        Ok(count)
    }
}

struct NativeEngine<H> {
    handler: Arc<H>,
    types: TypeMap,
    rows: Rows,
    loader: Loader,
    context: EngineContext,
}

/// How one call ended.
enum Called {
    Done,
    /// Rows have to be loaded, then it is to be made again.
    Missed,
    Failed(String),
    /// The event is not what the handler takes.
    Unreadable(String),
}

impl<H: Handler> NativeEngine<H> {
    /// Calls the handler for one event. What it wrote is in `rows.writes`.
    fn call(&mut self, round: &Round, lane: usize, at: usize) -> Called {
        let Some((event, page)) = round.event(lane, at) else { return Called::Done };
        let Some(lane) = round.lanes.get(lane) else { return Called::Done };
        self.rows.writes.clear();
        self.rows.writer = Writer::new(page.origin_no, event.line);
        let typed = match H::Event::deserialize(&mut serde_json::Deserializer::from_str(page.json(event))) {
            Ok(typed) => typed,
            Err(error) => return Called::Unreadable(error.to_string()),
        };
        let mut context = Context {
            rows: &mut self.rows,
            types: &self.types,
            schema: &self.context.schema,
            region: &lane.name,
            region_no: lane.region,
            block: event.block,
        };
        let handler = &self.handler;
        let result = catch_unwind(AssertUnwindSafe(|| handler.on_event(typed, &mut context)));
        self.called(result.map(|result| result.map(drop)))
    }

    fn called(&self, result: Result<Result<(), HandlerError>, Box<dyn std::any::Any + Send>>) -> Called {
        match result {
            _ if !self.rows.missed.is_empty() => Called::Missed,
            Ok(Ok(())) => Called::Done,
            Ok(Err(error)) => Called::Failed(error.message),
            Err(panic) => Called::Failed(format!("the handler panicked: {}", panic_message(panic.as_ref()))),
        }
    }

    /// Tries the calls behind the one that missed, only to learn what they miss.
    fn run_ahead(&mut self, round: &Round, lane: usize, at: usize) {
        let events = round.lanes.get(lane).map_or(0, |lane| lane.events.len());
        let mut missed = std::mem::take(&mut self.rows.missed);
        for ahead in at + 1..events.min(at + 1 + DRY_EVENTS_MAX) {
            self.context.watch.tick(ahead as u64 + 1);
            self.call(round, lane, ahead);
            missed.add(std::mem::take(&mut self.rows.missed));
        }
        self.rows.missed = missed;
        self.rows.writes.clear();
        self.context.watch.tick(at as u64 + 1);
    }

    /// Handles a lane from an event on; returns the event that misses rows, which are in `rows.missed`.
    fn run_lane(&mut self, round: &Arc<Round>, lane: usize, from: usize) -> Result<Option<usize>, LaneError> {
        let Some(described) = round.lanes.get(lane) else { return Ok(None) };
        self.rows.know(described.region, &described.name);
        self.context.watch.begin(Activity::Events { round: Arc::clone(round), lane, base: 0 });
        for at in from..described.events.len() {
            self.context.watch.tick(at as u64 + 1);
            match self.call(round, lane, at) {
                Called::Done => self.rows.keep(described.region),
                Called::Missed => {
                    self.run_ahead(round, lane, at);
                    return Ok(Some(at));
                }
                Called::Failed(message) => return Err(self.handler_error(message)),
                Called::Unreadable(message) => return Err(unreadable(round, lane, at, message)),
            }
        }
        Ok(None)
    }

    /// Loads what calls have missed: one query for each table, whatever the number of regions.
    fn load_missed(&mut self, missed: Missed) -> Result<(), LaneError> {
        let mut by_entity: BTreeMap<usize, Vec<(RegionNo, Vec<String>, Ask)>> = BTreeMap::new();
        for &(region, entity) in &missed.whole {
            by_entity.entry(entity).or_default().push((region, Vec::new(), Ask::All));
        }
        for ((region, entity), mut ids) in missed.ids {
            if missed.whole.contains(&(region, entity)) {
                continue;
            }
            ids.sort_unstable();
            ids.dedup();
            let was_tried = self.rows.tables.get(&region).is_some_and(|tables| tables[entity].was_tried());
            let ask = if was_tried { Ask::Ids } else { Ask::TryAll };
            by_entity.entry(entity).or_default().push((region, ids, ask));
        }
        by_entity.into_iter().try_for_each(|(entity, wanted)| self.load(entity, &wanted))
    }

    fn load(&mut self, entity: usize, missed: &[(RegionNo, Vec<String>, Ask)]) -> Result<(), LaneError> {
        let mut wanted = Vec::with_capacity(missed.len());
        for (region, ids, ask) in missed {
            let region = self.rows.regions.get(region).map_or("", |name| &**name);
            wanted.push(Wanted { region, ids: ids.iter().map(String::as_str).collect(), ask: *ask });
        }
        let loaded = self.loader.load(entity, &wanted)?;
        let described = &self.context.schema.entities()[entity];
        for ((region, ids, _), loaded) in missed.iter().zip(loaded) {
            let Some(table) = self.rows.tables.get_mut(region).and_then(|tables| tables.get_mut(entity)) else {
                continue;
            };
            let mut decoder = Decoder::new(described, &loaded.packed, 0);
            let mut values = Vec::new();
            while !decoder.is_at_end() {
                let head = decoder.row(&mut values)?;
                table.supply(head.id, Some(values.iter().map(ValueRef::to_value).collect()));
            }
            if loaded.is_whole {
                table.supplied_whole();
            }
            for id in ids {
                table.supply(id, None);
            }
        }
        Ok(())
    }

    fn handler_error(&self, message: String) -> LaneError {
        LaneError::Handler { message, place: self.context.watch.place() }
    }
}

fn unreadable(round: &Round, lane: usize, at: usize, message: String) -> LaneError {
    match round.place(lane, at) {
        Some(place) => LaneError::Event(Box::new(place), format!("the event is not what the handler takes: {message}")),
        None => LaneError::Bug(message),
    }
}

impl<H: Handler> Engine for NativeEngine<H> {
    fn run(&mut self, round: &Arc<Round>, lanes: &[usize]) -> Result<(), LaneError> {
        self.rows.is_snapshot = false;
        let mut waiting: Vec<(usize, usize)> = lanes.iter().map(|lane| (*lane, 0)).collect();
        while !waiting.is_empty() {
            let (mut missing, mut missed) = (Vec::new(), Missed::default());
            for (lane, from) in waiting {
                if let Some(at) = self.run_lane(round, lane, from)? {
                    missing.push((lane, at));
                    missed.add(std::mem::take(&mut self.rows.missed));
                }
            }
            self.load_missed(missed)?;
            waiting = missing;
        }
        self.context.watch.begin(Activity::Idle);
        Ok(())
    }

    fn snapshot(&mut self, region: RegionNo, name: &Arc<str>, block: i64) -> Result<Option<Json>, LaneError> {
        self.rows.know(region, name);
        self.rows.is_snapshot = true;
        self.context.watch.begin(Activity::Snapshot { region: Arc::clone(name), block });
        loop {
            let mut document = None;
            let mut context = Context {
                rows: &mut self.rows,
                types: &self.types,
                schema: &self.context.schema,
                region: name,
                region_no: region,
                block,
            };
            let handler = &self.handler;
            let result = catch_unwind(AssertUnwindSafe(|| handler.on_snapshot(&mut context)));
            match self.called(result.map(|result| result.map(|found| document = found))) {
                Called::Missed => {
                    let missed = std::mem::take(&mut self.rows.missed);
                    self.load_missed(missed)?;
                }
                Called::Failed(message) | Called::Unreadable(message) => return Err(self.handler_error(message)),
                Called::Done => {
                    self.context.watch.begin(Activity::Idle);
                    return Ok(document);
                }
            }
        }
    }

    fn seal(&mut self) -> Result<Vec<(usize, RegionChanges)>, LaneError> {
        let mut changes = Vec::new();
        for (region, tables) in &mut self.rows.tables {
            for (entity, table) in tables.iter_mut().enumerate() {
                let described = &self.context.schema.entities()[entity];
                let mut packed = Vec::new();
                table.take_changes(|id, change, writer, row| {
                    let row = row.map_or(&[][..], |row| &row[..]);
                    encode_values(described, Head { id, change, writer }, row, &mut packed);
                });
                if !packed.is_empty() {
                    changes
                        .push((entity, RegionChanges::new(described, Arc::clone(&self.rows.regions[region]), packed)?));
                }
            }
        }
        Ok(changes)
    }

    fn begin_batch(&mut self, number: u64, committed: u64) -> Result<(), LaneError> {
        (self.rows.batch, self.rows.committed) = (number, committed);
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.rows.tables.values().flatten().map(Table::memory_bytes).sum()
    }

    fn trim(&mut self, target: usize) -> Result<(), LaneError> {
        for _ in 0..2 {
            if self.memory_bytes() <= target {
                return Ok(());
            }
            for table in self.rows.tables.values_mut().flatten() {
                table.sweep(self.rows.committed);
            }
        }
        Ok(())
    }
}
