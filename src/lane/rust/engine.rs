//! Lanes of a Rust handler: a `RowCache` for each table of a region, one call per event.
//!
//! The writes of a call are kept apart until it returns. A call that asks for a row that is not cached is abandoned.
//! The calls behind it are run dry to learn what they will miss; everything is loaded at once, and the call is made
//! again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::Value as Json;

use super::error::HandlerError;
use super::event::{self, Asked};
use super::handler::{Context, EntityTable, Handler, TypeMap};
use super::rows::{Missed, Rows};
use crate::lane::before_images::read_unseen;
use crate::lane::watch::{Part, Task};
use crate::lane::{
    Ask, Engine, EngineContext, EngineFactory, FailedEvent, IdScan, LaneError, Loader, RegionDue, Round, SealedRows,
    Wanted,
};
use crate::model::ids::{BatchClock, BlockNo, EntityNo, RegionNo};
use crate::model::json_scan::Layout;
use crate::model::json_text::whole_characters;
use crate::model::limits::{DRY_EVENTS_MAX, FIND_MEMORY_PART, SNAPSHOTS_TOGETHER_MAX};
use crate::model::query::Query;
use crate::model::text::{panic_message, shortened};
use crate::rows::codec::{Decoder, ValueRef, Writer};
use crate::store::{RegionCount, RegionQuery};

/// Makes engines that run a Rust handler.
pub(crate) struct RustFactory<H> {
    handler: Arc<H>,
}

impl<H: Handler> RustFactory<H> {
    pub(crate) fn new(handler: H) -> Self {
        Self { handler: Arc::new(handler) }
    }

    pub(crate) fn tables(&self) -> Vec<EntityTable> {
        self.handler.entities()
    }
}

impl<H: Handler> EngineFactory for RustFactory<H> {
    fn build(&self, context: EngineContext) -> Result<Box<dyn Engine>, LaneError> {
        let types = TypeMap::new(&self.handler.entities(), &context.schema);
        let loader = Loader::new(&context);
        let rows = Rows::new(&context);
        Ok(Box::new(RustEngine {
            handler: Arc::clone(&self.handler),
            types,
            rows,
            loader,
            context,
            layout: Layout::default(),
        }))
    }

    fn has_snapshots(&self) -> bool {
        self.handler.has_snapshots()
    }

    fn name(&self) -> String {
        std::any::type_name::<H>().to_owned()
    }
}

struct RustEngine<H> {
    handler: Arc<H>,
    types: TypeMap,
    rows: Rows,
    loader: Loader,
    context: EngineContext,
    /// The keys of the last event.
    layout: Layout<Asked>,
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

impl<H: Handler> RustEngine<H> {
    /// Calls the handler for one event. What it wrote is in `rows.writes`.
    fn call(&mut self, round: &Round, lane: usize, at: usize) -> Called {
        let Some((event, page)) = round.event(lane, at) else { return Called::Done };
        let Some(lane) = round.lanes.get(lane) else { return Called::Done };
        self.rows.writes.clear();
        (self.rows.writer, self.rows.block) = (Writer::new(page.origin_no, event.line), event.block);
        let whole;
        let typed = match event::read::<H::Event<'_>>(page.json(event), &mut self.layout) {
            // A text with half a character, if there is one.
            Err(error) => {
                whole = whole_characters(page.json(event));
                if matches!(whole, Cow::Owned(_)) { event::read(&whole, &mut self.layout) } else { Err(error) }
            }
            typed => typed,
        };
        let typed = match typed {
            Ok(typed) => typed,
            Err(error) => {
                return Called::Unreadable(format!("the event is not what the handler takes: {error}"));
            }
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

    /// Runs the calls behind the one that missed dry, only to learn what they miss.
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
    fn run_lane(
        &mut self,
        round: &Arc<Round>,
        lane: usize,
        from: usize,
        failed: &mut Vec<FailedEvent>,
    ) -> Result<Option<usize>, LaneError> {
        let Some(described) = round.lanes.get(lane) else { return Ok(None) };
        self.rows.know(described.region, &described.name);
        self.context.watch.begin(Task::Events { round: Arc::clone(round), parts: Part::alone(lane, 0) });
        for at in from..described.events.len() {
            self.context.watch.tick(at as u64 + 1);
            match self.call(round, lane, at) {
                Called::Done => self.rows.keep(described.region),
                Called::Missed => {
                    self.run_ahead(round, lane, at);
                    return Ok(Some(at));
                }
                // Nothing of the call stays.
                Called::Failed(HandlerError { message: error, .. }) | Called::Unreadable(error)
                    if self.context.puts_aside =>
                {
                    self.rows.writes.clear();
                    failed.push(FailedEvent { lane, at, error });
                }
                Called::Failed(error) => return Err(self.handler_error(error)),
                Called::Unreadable(message) => return Err(unreadable(round, lane, at, message)),
            }
        }
        Ok(None)
    }

    /// Loads what calls have missed: one query for each table, whatever the number of regions.
    fn load_missed(&mut self, missed: Missed) -> Result<(), LaneError> {
        let mut by_entity: BTreeMap<EntityNo, Vec<(RegionNo, Vec<String>, Ask)>> = BTreeMap::new();
        for ((region, entity), mut ids) in missed.ids {
            ids.sort_unstable();
            ids.dedup();
            let was_tried = self.rows.tables.get(&region).is_some_and(|tables| tables[entity.index()].was_tried());
            let ask = if was_tried { Ask::AllIfWorth } else { Ask::TryAll };
            by_entity.entry(entity).or_default().push((region, ids, ask));
        }
        by_entity.into_iter().try_for_each(|(entity, wanted)| self.load(entity, &wanted))?;
        let mut by_entity: BTreeMap<EntityNo, Vec<(RegionNo, Query)>> = BTreeMap::new();
        for ((region, entity, _), query) in missed.queries {
            by_entity.entry(entity).or_default().push((region, query));
        }
        by_entity.into_iter().try_for_each(|(entity, wanted)| self.search(entity, wanted))?;
        let mut by_entity: BTreeMap<EntityNo, Vec<(RegionNo, Query)>> = BTreeMap::new();
        for ((region, entity, _), query) in missed.counts {
            by_entity.entry(entity).or_default().push((region, query));
        }
        by_entity.into_iter().try_for_each(|(entity, wanted)| self.count(entity, wanted))
    }

    /// Counts the committed rows of queries, all of one table together.
    fn count(&mut self, entity: EntityNo, asked: Vec<(RegionNo, Query)>) -> Result<(), LaneError> {
        let Rows { tables, regions, .. } = &mut self.rows;
        let table = |region: &RegionNo| tables.get(region).and_then(|tables| tables.get(entity.index()));
        let changed: Vec<Vec<&str>> =
            asked.iter().map(|(region, _)| table(region).map_or_else(Vec::new, |table| table.changed())).collect();
        let name = |region: &RegionNo| regions.get(region).map_or("", |name| &**name);
        let wanted: Vec<RegionCount<'_>> = (asked.iter().zip(&changed))
            .map(|((region, query), but)| RegionCount { of: RegionQuery { region: name(region), query }, but })
            .collect();
        let counts = self.loader.counts(entity, &wanted)?;
        for ((region, query), count) in asked.into_iter().zip(counts) {
            if let Some(table) = tables.get_mut(&region).and_then(|tables| tables.get_mut(entity.index())) {
                table.supply_count(query, count);
            }
        }
        Ok(())
    }

    /// Finds the first committed rows of queries, all of one table together.
    fn search(&mut self, entity: EntityNo, asked: Vec<(RegionNo, Query)>) -> Result<(), LaneError> {
        let name = |region: &RegionNo| self.rows.regions.get(region).map_or("", |name| &**name);
        let wanted: Vec<RegionQuery<'_>> =
            asked.iter().map(|(region, query)| RegionQuery { region: name(region), query }).collect();
        let bytes_max = self.context.memory_bytes.saturating_sub(self.rows.memory_bytes()) / FIND_MEMORY_PART;
        let found = self.loader.find(&self.context.schema, entity, &wanted, bytes_max)?;
        for ((region, query), found) in asked.iter().zip(found) {
            if let Some(error) = found.too_much {
                return Err(error);
            }
            if let Some(table) = self.rows.tables.get_mut(region).and_then(|tables| tables.get_mut(entity.index())) {
                table.supply_found(query, found.rows, found.is_complete);
            }
        }
        Ok(())
    }

    fn load(&mut self, entity: EntityNo, missed: &[(RegionNo, Vec<String>, Ask)]) -> Result<(), LaneError> {
        let mut wanted = Vec::with_capacity(missed.len());
        for (region, ids, ask) in missed {
            let region = self.rows.regions.get(region).map_or("", |name| &**name);
            wanted.push(Wanted { region, ids: ids.iter().map(String::as_str).collect(), ask: *ask });
        }
        let loaded = self.loader.load(entity, &wanted)?;
        let described = &self.context.schema[entity];
        for ((region, ids, _), loaded) in missed.iter().zip(loaded) {
            let Some(table) = self.rows.tables.get_mut(region).and_then(|tables| tables.get_mut(entity.index())) else {
                continue;
            };
            let mut decoder = Decoder::new(described, &loaded.packed, 0);
            let (mut values, mut rows) = (Vec::new(), 0);
            while !decoder.is_at_end() {
                rows += 1;
                let head = decoder.row(&mut values)?;
                table.supply(head.id, Some(values.iter().map(ValueRef::to_value).collect()));
            }
            if loaded.is_whole {
                table.supplied_whole();
            } else {
                table.was_too_large();
                self.rows.unknown[entity.index()] += (ids.len() as u64).saturating_sub(rows);
            }
            for id in ids {
                table.supply(id, None);
            }
        }
        Ok(())
    }

    /// Computes the document of a region; none yet if it misses rows, which are in `rows.missed`.
    fn snapshot(&mut self, region: RegionNo, name: &Arc<str>, block: BlockNo) -> Result<Option<Json>, LaneError> {
        self.rows.know(region, name);
        self.rows.is_snapshot = true;
        self.context.watch.begin(Task::Snapshot { region: Arc::clone(name), block });
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
            Called::Failed(error) => Err(self.handler_error(error)),
            Called::Unreadable(message) => Err(self.handler_error(HandlerError::new(message))),
            Called::Missed | Called::Done => Ok(document),
        }
    }

    /// The same of some regions. What they miss is loaded together.
    fn snapshots_together(&mut self, regions: &[RegionDue]) -> Result<Vec<Option<String>>, LaneError> {
        let (mut documents, mut failed) = (vec![None; regions.len()], None);
        let mut waiting: Vec<usize> = (0..regions.len()).collect();
        while !waiting.is_empty() {
            let (mut missing, mut missed) = (Vec::new(), Missed::default());
            for at in waiting {
                let (region, name, block) = &regions[at];
                match self.snapshot(*region, name, *block) {
                    Ok(_) if !self.rows.missed.is_empty() => {
                        missing.push(at);
                        missed.add(std::mem::take(&mut self.rows.missed));
                    }
                    Ok(document) => documents[at] = document.map(|document| document.to_string()),
                    Err(error) => {
                        // Those before it may fail too, and then the first counts.
                        failed = Some(error);
                        break;
                    }
                }
            }
            self.load_missed(missed)?;
            waiting = missing;
        }
        self.context.watch.begin(Task::Idle);
        failed.map_or(Ok(documents), Err)
    }

    fn handler_error(&self, error: HandlerError) -> LaneError {
        let HandlerError { message, source } = error;
        LaneError::Handler { message: shortened(message), place: self.context.watch.place(), source }
    }
}

fn unreadable(round: &Round, lane: usize, at: usize, message: String) -> LaneError {
    let message = shortened(message);
    match round.place(lane, at) {
        Some(place) => LaneError::Event(Box::new(place), message),
        None => LaneError::Bug(message),
    }
}

impl<H: Handler> Engine for RustEngine<H> {
    fn run(&mut self, round: &Arc<Round>, lanes: &[usize]) -> Result<Vec<FailedEvent>, LaneError> {
        let mut failed = Vec::new();
        self.rows.is_snapshot = false;
        self.rows.catch_up();
        let mut waiting: Vec<(usize, usize)> = lanes.iter().map(|lane| (*lane, 0)).collect();
        while !waiting.is_empty() {
            let (mut missing, mut missed) = (Vec::new(), Missed::default());
            for (lane, from) in waiting {
                if let Some(at) = self.run_lane(round, lane, from, &mut failed)? {
                    missing.push((lane, at));
                    missed.add(std::mem::take(&mut self.rows.missed));
                }
            }
            self.load_missed(missed)?;
            waiting = missing;
        }
        // The next round may be long in coming.
        self.rows.catch_up();
        self.context.watch.begin(Task::Idle);
        Ok(failed)
    }

    fn snapshots(&mut self, regions: &[RegionDue]) -> Result<Vec<Option<String>>, LaneError> {
        let mut documents = Vec::with_capacity(regions.len());
        for regions in regions.chunks(SNAPSHOTS_TOGETHER_MAX) {
            documents.extend(self.snapshots_together(regions)?);
        }
        Ok(documents)
    }

    fn seal(&mut self, undo_floor: Option<BlockNo>) -> Result<SealedRows, LaneError> {
        // Before the filters learn of this batch.
        let history = match undo_floor {
            Some(after) => {
                let (gathered, unknown) = self.rows.take_undo(&self.context.schema, after);
                let mut history = read_unseen(&mut self.loader, &self.context.schema, unknown)?;
                history.extend(gathered.into_images());
                history
            }
            None => Vec::new(),
        };
        let changes = self.rows.take_changes(&self.context.schema)?;
        Ok(SealedRows { changes, history })
    }

    fn forget(&mut self, scan: &Arc<IdScan>) -> Result<(), LaneError> {
        self.rows.forget(scan);
        Ok(())
    }

    fn begin_batch(&mut self, clock: BatchClock) -> Result<(), LaneError> {
        self.rows.begin_batch(clock);
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
    }

    fn changed_rows(&self) -> u64 {
        self.rows.changed_rows
    }

    fn trim(&mut self, target: usize) -> Result<(), LaneError> {
        for _ in 0..2 {
            if self.memory_bytes() <= target {
                return Ok(());
            }
            self.rows.sweep();
        }
        Ok(())
    }
}
