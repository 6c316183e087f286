//! Lanes of a Rust handler: rows in [`Table`]s, one call an event.
//!
//! What a call writes is kept apart until it returns. When it asks for a row that is not warm, it is abandoned, the
//! calls behind it are tried dry to learn what they will miss, all of it is loaded at once, and it is made again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Json;

use super::handler::{Context, EntityTable, Handler, HandlerError, TypeMap};
use crate::lane::before::{Gathered, Unknown, read_unknown};
use crate::lane::watch::Activity;
use crate::lane::{Ask, Engine, EngineContext, EngineFactory, LaneError, Loader, Round, SealedRows, Wanted};
use crate::model::event::RegionNo;
use crate::model::ids::Depth;
use crate::model::limits::DRY_EVENTS_MAX;
use crate::model::query::Query;
use crate::model::schema::Schema;
use crate::model::text::panic_message;
use crate::model::value::{Row, row_memory_bytes};
use crate::rows::cache::{Before, ChangedBy, Found, Lacking, Table};
use crate::rows::changes::RegionChanges;
use crate::rows::codec::{Change, Decoder, Head, ValueRef, Writer, encode_values};
use crate::rows::existence::{KnownRows, is_new};
use crate::store::RegionQuery;
use crate::undo::{begin_entry, push_absent};

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
            known: KnownRows::of_tables(&context.is_empty, context.memory_bytes),
            passing: VecDeque::new(),
            changed_rows: 0,
            tables: BTreeMap::new(),
            regions: BTreeMap::new(),
            writes: Vec::new(),
            writer: Writer::default(),
            block: 0,
            undo: BTreeMap::new(),
            undo_bytes: 0,
            history_depth: Depth::new(context.history_depth),
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
    fn find(&mut self, entity: usize, region: RegionNo, query: &Query) -> Result<Vec<(Box<str>, Row)>, HandlerError>;
    fn count(&mut self, entity: usize, region: RegionNo, query: &Query) -> Result<u64, HandlerError>;
}

/// What handlers asked for and was not warm.
#[derive(Default)]
struct Missed {
    /// For each table, the ids; if it was not tried yet, all of it, if it is small.
    ids: BTreeMap<(RegionNo, usize), Vec<String>>,
    /// Queries, by table and key. The limit is how many rows are asked for.
    queries: BTreeMap<(RegionNo, usize, String), Query>,
    counts: BTreeMap<(RegionNo, usize, String), Query>,
}

impl Missed {
    fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.queries.is_empty() && self.counts.is_empty()
    }

    /// Notes what a query lacks.
    fn note(&mut self, region: RegionNo, entity: usize, query: &Query, lacking: Lacking) -> HandlerError {
        match lacking {
            Lacking::Table => drop(self.ids.entry((region, entity)).or_default()),
            Lacking::Rows(limit) => {
                self.queries.insert((region, entity, query.key()), Query { limit, ..query.clone() });
            }
            Lacking::Count => drop(self.counts.insert((region, entity, query.key()), query.clone())),
        }
        HandlerError::new("rows have to be loaded first; this error must be passed on")
    }

    /// Takes in what another call missed.
    fn add(&mut self, more: Self) {
        for (table, ids) in more.ids {
            self.ids.entry(table).or_default().extend(ids);
        }
        for (table, query) in more.queries {
            match self.queries.entry(table) {
                Entry::Vacant(place) => drop(place.insert(query)),
                Entry::Occupied(mut known) => {
                    let limit = known.get().limit.zip(query.limit).map(|(one, other)| one.max(other));
                    known.get_mut().limit = limit;
                }
            }
        }
        self.counts.extend(more.counts);
    }
}

/// What a row was before a block changed it.
struct UndoEntry {
    block: i64,
    entity: usize,
    id: Box<str>,
    before: Before,
}

impl UndoEntry {
    fn memory_bytes(&self) -> usize {
        let row = match &self.before {
            Before::Row(row) => row_memory_bytes(row),
            Before::Absent | Before::Unknown => 0,
        };
        size_of::<Self>() + self.id.len() + row
    }
}

/// Rows that a batch changed in a table that is never read, to be let go once it is committed.
struct Passing {
    batch: u64,
    region: RegionNo,
    entity: usize,
    ids: Vec<Box<str>>,
}

struct Rows {
    schema_len: usize,
    is_empty: Arc<[bool]>,
    /// For each table that was empty when the run began, the rows that there may be in the store.
    known: Vec<Option<KnownRows>>,
    passing: VecDeque<Passing>,
    /// Of the open batch.
    changed_rows: u64,
    /// For each region, its tables in the order of the schema.
    tables: BTreeMap<RegionNo, Vec<Table>>,
    regions: BTreeMap<RegionNo, Arc<str>>,
    /// What the current call wrote.
    writes: Vec<(usize, String, Option<Row>)>,
    /// The event that the current call handles.
    writer: Writer,
    /// Its block.
    block: i64,
    /// For each region, what rows were before blocks that can still be rolled back, in order.
    undo: BTreeMap<RegionNo, VecDeque<UndoEntry>>,
    undo_bytes: usize,
    history_depth: Depth,
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
        table.ok_or_else(unknown_region)
    }

    /// What the current call wrote to a table, by id.
    fn written(&self, entity: usize) -> BTreeMap<String, Option<Row>> {
        let writes = self.writes.iter().filter(|(table, ..)| *table == entity);
        writes.map(|(_, id, row)| (id.clone(), row.clone())).collect()
    }

    /// Makes the writes of the call that just returned count.
    fn keep(&mut self, region: RegionNo) {
        let change = ChangedBy { batch: self.batch, block: self.block, writer: self.writer };
        let Some(tables) = self.tables.get_mut(&region) else { return };
        let changed_rows = &mut self.changed_rows;
        let mut set = |entity: usize, id: &str, row: Option<Row>| {
            let table = &mut tables[entity];
            let changed = table.changed_rows();
            let before = table.set(id, row, change);
            *changed_rows += (table.changed_rows() - changed) as u64;
            before
        };
        if self.history_depth.is_none() {
            for (entity, id, row) in self.writes.drain(..) {
                set(entity, &id, row);
            }
            return;
        }
        let undo = self.undo.entry(region).or_default();
        for (entity, id, row) in self.writes.drain(..) {
            if let Some(before) = set(entity, &id, row) {
                let entry = UndoEntry { block: change.block, entity, id: id.into(), before };
                self.undo_bytes += entry.memory_bytes();
                undo.push_back(entry);
            }
        }
        // What lies too far behind to be rolled back goes at once, while it is still in the processor's cache.
        let oldest = self.history_depth.oldest(change.block.into()).get();
        while let Some(entry) = undo.pop_front_if(|entry| entry.block <= oldest) {
            self.undo_bytes -= entry.memory_bytes();
        }
    }

    /// Takes out what rows were before the blocks behind `after`, and which were written unseen.
    fn take_undo(&mut self, schema: &Schema, after: i64) -> (Gathered, Vec<Unknown>) {
        let (mut gathered, mut unknown) = (Gathered::default(), Vec::new());
        self.undo_bytes = 0;
        for (number, undo) in std::mem::take(&mut self.undo) {
            let Some(region) = self.regions.get(&number) else { continue };
            for UndoEntry { block, entity, id, before } in undo.into_iter().filter(|entry| entry.block > after) {
                let is_absent = || self.known[entity].as_ref().is_some_and(|known| !known.may_have(number, &id));
                match before {
                    Before::Unknown if is_absent() => push_absent(block, &id, gathered.entries(entity, region)),
                    Before::Unknown => unknown.push(Unknown { entity, region: Arc::clone(region), id, block }),
                    Before::Absent => push_absent(block, &id, gathered.entries(entity, region)),
                    Before::Row(row) => {
                        let entries = gathered.entries(entity, region);
                        let head = Head { id: &id, change: Change::Written, writer: Writer::default() };
                        begin_entry(block, entries);
                        encode_values(&schema.entities()[entity], head, &row, entries);
                    }
                }
            }
        }
        (gathered, unknown)
    }
}

impl RowAccess for Rows {
    fn get(&mut self, entity: usize, region: RegionNo, id: &str) -> Result<Option<&Row>, HandlerError> {
        let Self { writes, tables, known, missed, .. } = self;
        if let Some(at) = writes.iter().rposition(|(table, written, _)| *table == entity && written == id) {
            return Ok(writes[at].2.as_ref());
        }
        let Some(table) = tables.get_mut(&region).and_then(|tables| tables.get_mut(entity)) else {
            return Err(unknown_region());
        };
        match table.get(id) {
            Found::Row(row) => return Ok(Some(row)),
            Found::Absent => return Ok(None),
            Found::Missing => {}
        }
        if known[entity].as_ref().is_some_and(|known| !known.may_have(region, id)) {
            return Ok(None);
        }
        missed.ids.entry((region, entity)).or_default().push(id.to_owned());
        Err(HandlerError::new("a row has to be loaded first; this error must be passed on"))
    }

    fn write(&mut self, entity: usize, region: RegionNo, id: &str, row: Option<Row>) -> Result<(), HandlerError> {
        if self.is_snapshot {
            return Err(HandlerError::new("on_snapshot may read, and not write"));
        }
        if self.table(entity, region)?.needs_before() {
            self.get(entity, region, id)?;
        }
        self.writes.push((entity, id.to_owned(), row));
        Ok(())
    }

    fn find(&mut self, entity: usize, region: RegionNo, query: &Query) -> Result<Vec<(Box<str>, Row)>, HandlerError> {
        // What the call itself wrote lies over the rest, and may hide as many rows.
        let written = self.written(entity);
        let limit = query.limit.map(|limit| limit.saturating_add(written.len()));
        let found = self.table(entity, region)?.find(&Query { limit, ..query.clone() });
        let mut rows = found.map_err(|lacking| self.missed.note(region, entity, query, lacking))?;
        if !written.is_empty() {
            rows.retain(|(id, _)| !written.contains_key(&**id));
            rows.extend(written.into_iter().filter_map(|(id, row)| {
                let row = row.filter(|row| query.matches(row))?;
                Some((id.into_boxed_str(), row))
            }));
            rows.sort_by(|(a, left), (b, right)| query.compare_rows((a, left), (b, right)));
        }
        rows.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(rows)
    }

    fn count(&mut self, entity: usize, region: RegionNo, query: &Query) -> Result<u64, HandlerError> {
        let counted = self.table(entity, region)?.count(query);
        let mut count = counted.map_err(|lacking| self.missed.note(region, entity, query, lacking))?;
        for (id, row) in self.written(entity) {
            match self.table(entity, region)?.get(&id) {
                Found::Row(before) => count -= u64::from(query.matches(before)),
                Found::Absent => {}
                Found::Missing => {
                    self.missed.ids.entry((region, entity)).or_default().push(id);
                    return Err(HandlerError::new("a row has to be loaded first; this error must be passed on"));
                }
            }
            count += u64::from(row.is_some_and(|row| query.matches(&row)));
        }
        Ok(count)
    }
}

fn unknown_region() -> HandlerError {
    HandlerError::new("a region that is not known")
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
    Failed(HandlerError),
    /// The event is not what the handler takes.
    Unreadable(String),
}

impl<H: Handler> NativeEngine<H> {
    /// Calls the handler for one event. What it wrote is in `rows.writes`.
    fn call(&mut self, round: &Round, lane: usize, at: usize) -> Called {
        let Some((event, page)) = round.event(lane, at) else { return Called::Done };
        let Some(lane) = round.lanes.get(lane) else { return Called::Done };
        self.rows.writes.clear();
        (self.rows.writer, self.rows.block) = (Writer::new(page.origin_no, event.line), event.block);
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
            Ok(Err(error)) => Called::Failed(error),
            Err(panic) => {
                let message = format!("the handler panicked: {}", panic_message(panic.as_ref()));
                Called::Failed(HandlerError::new(message))
            }
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
                Called::Failed(error) => return Err(self.handler_error(error)),
                Called::Unreadable(message) => return Err(unreadable(round, lane, at, message)),
            }
        }
        Ok(None)
    }

    /// Loads what calls have missed: one query for each table, whatever the number of regions.
    fn load_missed(&mut self, missed: Missed) -> Result<(), LaneError> {
        let mut by_entity: BTreeMap<usize, Vec<(RegionNo, Vec<String>, Ask)>> = BTreeMap::new();
        for ((region, entity), mut ids) in missed.ids {
            ids.sort_unstable();
            ids.dedup();
            let was_tried = self.rows.tables.get(&region).is_some_and(|tables| tables[entity].was_tried());
            let ask = if was_tried { Ask::Ids } else { Ask::TryAll };
            by_entity.entry(entity).or_default().push((region, ids, ask));
        }
        by_entity.into_iter().try_for_each(|(entity, wanted)| self.load(entity, &wanted))?;
        let mut by_entity: BTreeMap<usize, Vec<(RegionNo, Query)>> = BTreeMap::new();
        for ((region, entity, _), query) in missed.queries {
            by_entity.entry(entity).or_default().push((region, query));
        }
        by_entity.into_iter().try_for_each(|(entity, wanted)| self.search(entity, wanted))?;
        for ((region, entity, _), query) in missed.counts {
            let Some(table) = self.rows.tables.get_mut(&region).and_then(|tables| tables.get_mut(entity)) else {
                continue;
            };
            let name = self.rows.regions.get(&region).map_or("", |name| &**name);
            let count = self.loader.count(entity, RegionQuery { region: name, query: &query }, &table.changed())?;
            table.supply_count(query, count);
        }
        Ok(())
    }

    /// Finds the first committed rows of queries, all of one table together.
    fn search(&mut self, entity: usize, asked: Vec<(RegionNo, Query)>) -> Result<(), LaneError> {
        let name = |region: &RegionNo| self.rows.regions.get(region).map_or("", |name| &**name);
        let wanted: Vec<RegionQuery<'_>> =
            asked.iter().map(|(region, query)| RegionQuery { region: name(region), query }).collect();
        let found = self.loader.find(&self.context.schema, entity, &wanted)?;
        for ((region, query), found) in asked.iter().zip(found) {
            if let Some(table) = self.rows.tables.get_mut(region).and_then(|tables| tables.get_mut(entity)) {
                table.supply_found(query, found.rows, found.is_complete);
            }
        }
        Ok(())
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
            } else {
                table.was_too_large();
            }
            for id in ids {
                table.supply(id, None);
            }
        }
        Ok(())
    }

    fn handler_error(&self, error: HandlerError) -> LaneError {
        let HandlerError { message, source } = error;
        LaneError::Handler { message, place: self.context.watch.place(), source }
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
                Called::Failed(error) => return Err(self.handler_error(error)),
                Called::Unreadable(message) => return Err(self.handler_error(HandlerError::new(message))),
                Called::Done => {
                    self.context.watch.begin(Activity::Idle);
                    return Ok(document);
                }
            }
        }
    }

    fn seal(&mut self, history_after: Option<i64>) -> Result<SealedRows, LaneError> {
        // Before the filters learn of this batch.
        let history = match history_after {
            Some(after) => {
                let (gathered, unknown) = self.rows.take_undo(&self.context.schema, after);
                let mut history = read_unknown(&mut self.loader, &self.context.schema, unknown)?;
                history.extend(gathered.into_history());
                history
            }
            None => Vec::new(),
        };
        let entities = self.context.schema.entities();
        let mut changes = Vec::new();
        self.rows.changed_rows = 0;
        let Rows { tables, known, passing, regions, batch, .. } = &mut self.rows;
        for (region, tables) in tables {
            for (entity, table) in tables.iter_mut().enumerate() {
                let described = &entities[entity];
                let mut packed = Vec::new();
                let ids = table.take_changes(|id, change, writer, row| {
                    let row = row.map_or(&[][..], |row| &row[..]);
                    encode_values(described, Head { id, change, writer }, row, &mut packed);
                });
                if table.is_passing() && !ids.is_empty() {
                    passing.push_back(Passing { batch: *batch, region: *region, entity, ids });
                }
                if !packed.is_empty() {
                    let is_new = is_new(&mut known[entity], *region, table.is_sure());
                    changes.push((
                        entity,
                        RegionChanges::checked(described, Arc::clone(&regions[region]), packed, is_new)?,
                    ));
                }
            }
        }
        Ok(SealedRows { changes, history })
    }

    fn forget(&mut self) -> Result<(), LaneError> {
        let rows = &mut self.rows;
        rows.tables.clear();
        rows.undo.clear();
        rows.undo_bytes = 0;
        // What the tables hold now is not known any more.
        rows.is_empty = vec![false; rows.schema_len].into();
        rows.known.iter_mut().for_each(|known| *known = None);
        rows.passing.clear();
        rows.changed_rows = 0;
        Ok(())
    }

    fn begin_batch(&mut self, number: u64, committed: u64) -> Result<(), LaneError> {
        let rows = &mut self.rows;
        (rows.batch, rows.committed) = (number, committed);
        while let Some(passing) = rows.passing.pop_front_if(|passing| passing.batch <= committed) {
            let Passing { batch, region, entity, ids } = passing;
            if let Some(table) = rows.tables.get_mut(&region).and_then(|tables| tables.get_mut(entity)) {
                table.let_go(batch, &ids);
            }
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let known: usize = self.rows.known.iter().flatten().map(KnownRows::memory_bytes).sum();
        known + self.rows.undo_bytes + self.rows.tables.values().flatten().map(Table::memory_bytes).sum::<usize>()
    }

    fn changed_rows(&self) -> u64 {
        self.rows.changed_rows
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
