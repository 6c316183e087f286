//! Lanes: where handlers run. One lane is one region's events of a batch, in order; lanes run in parallel.
//!
//! An [`Engine`] runs the lanes of the regions that are assigned to it and caches their rows. There are two kinds:
//! [`lua`] (a Lua VM) and [`rust`] (a Rust [`rust::handler::Handler`]). No SQL and no network: rows that are not cached
//! come through a [`Loader`].

mod assignment;
mod before_images;
#[cfg(feature = "lua")]
mod lua;
#[cfg(not(feature = "lua"))]
#[path = "no_lua.rs"]
mod lua;
pub mod rust;
mod scan;
pub(crate) mod watch;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::cause::Cause;
use crate::model::event::{EventPlace, EventRef, Page, Refusal, shorten_json};
use crate::model::field_type::FieldTypes;
use crate::model::ids::{BatchClock, BlockNo, Depth, EntityNo, RegionNo};
use crate::model::limits::{
    FIND_BYTES_MIN, FIND_ROWS, REGIONS_TRIED_GROWTH, REGIONS_TRIED_MAX, REGIONS_TRIED_MIN, WHOLE_REGION_BYTES_MAX,
    WHOLE_REGION_ROWS_MAX,
};
use crate::model::quarantine::{QuarantineStage, Quarantined};
use crate::model::query::Query;
use crate::model::schema::Schema;
use crate::model::value::Row;
use crate::rows::codec::{CodecError, Decoder, ValueRef};
use crate::store::{OpenReader, RegionCount, RegionIds, RegionLimit, RegionQuery, RowReader, StoreError};
use watch::Watch;

pub(crate) use assignment::Assignment;
pub(crate) use before_images::SealedRows;
pub(crate) use scan::IdScan;

/// One event of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EventAt {
    pub(crate) page: u32,
    pub(crate) at: u32,
}

/// One region's events of a round.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) region: RegionNo,
    pub(crate) name: Arc<str>,
    pub(crate) events: Vec<EventAt>,
}

/// Events that are spread over the lanes at once.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) pages: Vec<Arc<Page>>,
    pub(crate) lanes: Vec<Lane>,
}

impl Round {
    /// The event of that place in a lane, and its page.
    pub(crate) fn event(&self, lane: usize, at: usize) -> Option<(&EventRef, &Page)> {
        let place = self.lanes.get(lane)?.events.get(at)?;
        let page = self.pages.get(place.page as usize)?.as_ref();
        Some((page.events.get(place.at as usize)?, page))
    }

    /// An event whose handler failed as it is put aside, and its place in the round.
    pub(crate) fn put_aside(&self, failed: FailedEvent) -> Option<(EventAt, Quarantined)> {
        let FailedEvent { lane, at, error } = failed;
        let lane = self.lanes.get(lane)?;
        let place = *lane.events.get(at)?;
        let page = self.pages.get(place.page as usize)?;
        let refusal = Refusal { error, region: Some(Arc::clone(&lane.name)) };
        Some((place, page.put_aside(place.at as usize, QuarantineStage::Handler, &refusal)?))
    }

    /// Where that event stands, for a message.
    pub(crate) fn place(&self, lane: usize, at: usize) -> Option<EventPlace> {
        let (event, page) = self.event(lane, at)?;
        Some(EventPlace {
            origin: Arc::clone(&page.origin),
            line: event.line,
            block: event.block.get(),
            region: Arc::clone(&self.lanes.get(lane)?.name),
            json: shorten_json(page.json(event)),
        })
    }
}

/// What a handler's failure is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// An event.
    Event(Box<EventPlace>),
    /// A snapshot.
    Snapshot {
        /// The region.
        region: Arc<str>,
        /// The block as of which it was computed.
        block: i64,
    },
    /// Before the first event.
    Loading,
    /// While the batch was sealed.
    Sealing,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Event(place) => place.fmt(f),
            Self::Snapshot { region, block } => write!(f, "the snapshot of region {region:?} as of block {block}"),
            Self::Loading => f.write_str("the script's own lines, while it was loaded"),
            Self::Sealing => f.write_str("the end of a batch, while its rows were taken out"),
        }
    }
}

/// Why a lane did not get to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaneError {
    /// The handler failed.
    #[error("{message}\n  at {place}")]
    Handler {
        /// What it said; a script names its line.
        message: String,
        /// What it was handling.
        place: Place,
        /// The error that a handler in Rust passed on with `?`.
        source: Option<Cause>,
    },
    /// The handler took too long.
    #[error("{handler} did not return within {limit_ms} ms (handlers.timeout)\n  at {place}")]
    Timeout {
        /// The script or the type.
        handler: String,
        /// The limit.
        limit_ms: u128,
        /// What it was handling.
        place: Place,
    },
    /// The handler used too much memory.
    #[error("{handler} used more memory than the {limit_mib} MiB that are left to it (batch.memory)\n  at {place}")]
    Memory {
        /// The script or the type.
        handler: String,
        /// The limit.
        limit_mib: usize,
        /// What it was handling.
        place: Place,
    },
    /// A query finds more than there is memory for.
    #[error(
        "{entity}: what a find in region {region:?} finds takes more than {limit_mib} MiB, a quarter of the memory that is left \
         for rows: give it a limit, or conditions that fewer rows meet, or raise batch.memory"
    )]
    FoundTooMuch {
        /// The entity.
        entity: String,
        /// The region.
        region: String,
        /// What it may take.
        limit_mib: usize,
    },
    /// The handlers cannot be used at all.
    #[error("{0}")]
    Unusable(String),
    /// An event is not as it should be.
    #[error("{place}: {message}", place = place_text(.0), message = .1)]
    Event(Box<EventPlace>, String),
    /// The store did not give the rows.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault of this program.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A fault of this program.
    #[error("{0}; this is a bug in forebay, please report it")]
    Bug(String),
}

fn place_text(place: &EventPlace) -> String {
    format!("{}:{}", place.origin, place.line)
}

/// An event whose handler failed, where such events are put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedEvent {
    pub(crate) lane: usize,
    /// Its place in the lane.
    pub(crate) at: usize,
    pub(crate) error: String,
}

/// A region of which a snapshot is computed, with its last block, which is what handlers see.
pub(crate) type RegionDue = (RegionNo, Arc<str>, BlockNo);

/// Runs the lanes of some regions and caches their rows.
pub(crate) trait Engine: Send {
    /// Handles some lanes of a round. The rows that they miss are loaded together. Returns the events that failed, if
    /// events are put aside: nothing of them is in the rows.
    fn run(&mut self, round: &Arc<Round>, lanes: &[usize]) -> Result<Vec<FailedEvent>, LaneError>;

    /// The document of each region as of the state that the engine holds now: canonical JSON. What they miss is loaded
    /// together. If several fail, the error is that of the first.
    fn snapshots(&mut self, regions: &[RegionDue]) -> Result<Vec<Option<String>>, LaneError>;

    /// Takes out what the batch changed. With `undo_floor`, also the before-images of blocks after that one; those of
    /// rows that were written without being read come from the store.
    fn seal(&mut self, undo_floor: Option<BlockNo>) -> Result<SealedRows, LaneError>;

    /// Drops all rows, changed or not: the store was rolled back. Nothing may be staged. Which rows there are is to be
    /// found by `scan`, which begins now.
    fn forget(&mut self, scan: &Arc<IdScan>) -> Result<(), LaneError>;

    /// Changes from now on belong to the clock's open batch; batches up to its committed one are in the store.
    fn begin_batch(&mut self, clock: BatchClock) -> Result<(), LaneError>;

    /// Bytes of memory it takes now.
    fn memory_bytes(&self) -> usize;

    /// Rows that the open batch has changed.
    fn changed_rows(&self) -> u64;

    /// Evicts committed rows until it takes `target` bytes or nothing more can go.
    fn trim(&mut self, target: usize) -> Result<(), LaneError>;

    /// It may take so many bytes from now on. Less than it may already changes nothing here: what a run takes in all is
    /// kept to by evicting, and an engine that is in the middle of a batch must not fail for it.
    fn set_memory(&mut self, memory_bytes: usize) -> Result<(), LaneError> {
        let _ = memory_bytes;
        Ok(())
    }
}

/// What an engine is made with.
#[derive(Clone)]
pub(crate) struct EngineContext {
    pub(crate) schema: Arc<Schema>,
    /// For each entity, whether its table had no row when the run began.
    pub(crate) is_empty: Arc<[bool]>,
    /// Finds out which rows the others have.
    pub(crate) scan: Arc<IdScan>,
    pub(crate) readers: Arc<dyn OpenReader>,
    /// The types of fields.
    #[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "serde knows the types of a handler in Rust"))]
    pub(crate) field_types: Arc<FieldTypes>,
    /// How many blocks back before-images are kept; 0 for no undo log.
    pub(crate) undo_depth: Depth,
    /// Bytes it may never exceed.
    pub(crate) memory_bytes: usize,
    pub(crate) watch: Arc<Watch>,
    pub(crate) loads: Arc<LoadStats>,
    /// Whether an event whose handler fails is put aside; else it ends the run.
    pub(crate) puts_aside: bool,
}

/// How often rows were loaded, and how long lanes waited for them.
#[derive(Debug, Default)]
pub(crate) struct LoadStats {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    lanes: usize,
    since: Option<Instant>,
    waited: Duration,
    loads: u64,
}

impl LoadStats {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a lane waits, until the guard is dropped.
    fn wait(&self) -> LoadWait<'_> {
        let mut waiting = self.lock();
        waiting.loads += 1;
        waiting.lanes += 1;
        waiting.since.get_or_insert_with(Instant::now);
        LoadWait(self)
    }

    /// How often rows were asked for.
    pub(crate) fn loads(&self) -> u64 {
        self.lock().loads
    }

    /// The time in which any lane waited, by the clock.
    pub(crate) fn waited(&self) -> Duration {
        self.lock().waited
    }
}

struct LoadWait<'s>(&'s LoadStats);

impl Drop for LoadWait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.lanes -= 1;
        if waiting.lanes == 0
            && let Some(since) = waiting.since.take()
        {
            waiting.waited += since.elapsed();
        }
    }
}

/// Makes engines.
pub(crate) trait EngineFactory: Send + Sync {
    /// Makes one. Runs the user's code: it is called under the watch.
    fn build(&self, context: EngineContext) -> Result<Box<dyn Engine>, LaneError>;

    /// Whether the handlers make snapshots. Known once one engine has been built.
    fn has_snapshots(&self) -> bool;

    /// How the handlers are called in messages.
    fn name(&self) -> String;
}

/// What runs a script, by the language that it is in: Lua is the only one.
///
/// # Errors
/// The script cannot be read, or its language is not in this build.
pub(crate) fn script(path: &Path) -> Result<Arc<dyn EngineFactory>, LaneError> {
    Ok(Arc::new(lua::ScriptFactory::read(path)?))
}

/// Gets rows from the store, over a connection that is opened at the first miss.
pub(crate) struct Loader {
    readers: Arc<dyn OpenReader>,
    reader: Option<Box<dyn RowReader>>,
    watch: Arc<Watch>,
    loads: Arc<LoadStats>,
    loaded: WholeTables,
    tried: Tried,
}

/// How many regions may be tried whole in one query: more and more, as long as those before were small.
#[derive(Debug)]
struct Tried {
    regions: usize,
}

impl Tried {
    fn regions(&self) -> usize {
        self.regions
    }

    /// Notes how many bytes were found of regions, and which of them are here whole. As much may be read again as the
    /// largest regions would be.
    fn note(&mut self, bytes: &[usize], whole: &[bool]) {
        let taken = |(bytes, is_whole): (&usize, &bool)| if *is_whole { *bytes } else { WHOLE_REGION_BYTES_MAX };
        let sum: usize = bytes.iter().zip(whole).map(taken).sum();
        let each = (sum / bytes.len().max(1)).max(1);
        let fit = REGIONS_TRIED_MIN * WHOLE_REGION_BYTES_MAX / each;
        self.regions = fit.min(self.regions * REGIONS_TRIED_GROWTH).clamp(REGIONS_TRIED_MIN, REGIONS_TRIED_MAX);
    }
}

impl Loader {
    pub(crate) fn new(context: &EngineContext) -> Self {
        let EngineContext { readers, watch, loads, memory_bytes, .. } = context;
        let (readers, watch, loads) = (Arc::clone(readers), Arc::clone(watch), Arc::clone(loads));
        let tried = Tried { regions: REGIONS_TRIED_MIN };
        Self { readers, reader: None, watch, loads, loaded: WholeTables::new(*memory_bytes), tried }
    }

    /// Counts committed rows of regions, in as few questions as the store allows: see [`RowReader::counts`].
    pub(crate) fn counts(&mut self, entity: EntityNo, wanted: &[RegionCount<'_>]) -> Result<Vec<u64>, StoreError> {
        let _waiting = (self.watch.pause(), self.loads.wait());
        let counts = reader(&mut self.reader, &self.readers)?.counts(entity, wanted)?;
        if counts.len() != wanted.len() {
            return Err(StoreError::other("the store answered with more or fewer counts than were asked for"));
        }
        Ok(counts)
    }

    /// Finds the first committed rows of each query, in its order: all of them in as few questions as the store allows. Of
    /// a query without a limit, or with a large one, the rows may have so many bytes.
    pub(crate) fn find(
        &mut self,
        schema: &Schema,
        entity: EntityNo,
        wanted: &[RegionQuery<'_>],
        bytes_max: usize,
    ) -> Result<Vec<FoundRows>, LaneError> {
        let bytes_max = bytes_max.max(FIND_BYTES_MIN);
        let first = |wanted: &RegionQuery<'_>| {
            let limit = wanted.query.limit.unwrap_or(usize::MAX).min(FIND_ROWS);
            Query { limit: Some(limit), ..wanted.query.clone() }
        };
        let firsts: Vec<Query> = wanted.iter().map(first).collect();
        let pages = wanted.iter().zip(&firsts).map(|(wanted, query)| RegionQuery { query, ..*wanted });
        let pages = self.find_page(schema, entity, &pages.collect::<Vec<_>>())?;
        wanted
            .iter()
            .zip(pages)
            .map(|(wanted, page)| self.find_rest(schema, entity, *wanted, page, bytes_max))
            .collect()
    }

    /// Goes on with a query behind its first page, which has up to [`FIND_ROWS`] rows: how large they are says how many more
    /// may be asked for at once.
    fn find_rest(
        &mut self,
        schema: &Schema,
        entity: EntityNo,
        wanted: RegionQuery<'_>,
        (mut rows, mut bytes): (FoundRows, usize),
        bytes_max: usize,
    ) -> Result<FoundRows, LaneError> {
        let limit_max = wanted.query.limit.unwrap_or(usize::MAX);
        let mut limit = FIND_ROWS;
        if limit_max <= limit {
            return Ok(rows);
        }
        loop {
            let is_all = rows.is_complete || limit >= limit_max;
            // As many as would fit, if those behind are as large.
            let fit = (limit as u128 * bytes_max as u128 / bytes.max(1) as u128).try_into().unwrap_or(usize::MAX);
            if bytes > bytes_max || (!is_all && fit <= limit) {
                let (entity, region) = (schema[entity].name.clone(), wanted.region.to_owned());
                let limit_mib = bytes_max.div_ceil(1 << 20);
                let too_much = Some(LaneError::FoundTooMuch { entity, region, limit_mib });
                return Ok(FoundRows { rows: Vec::new(), is_complete: false, too_much });
            }
            if is_all {
                return Ok(rows);
            }
            limit = limit.saturating_mul(4).min(fit).min(limit_max);
            let query = Query { limit: Some(limit), ..wanted.query.clone() };
            let page = RegionQuery { query: &query, ..wanted };
            (rows, bytes) = self.find_page(schema, entity, &[page])?.pop().unwrap_or_default();
        }
    }

    /// The first rows of each query, and their bytes in packed form.
    fn find_page(
        &mut self,
        schema: &Schema,
        entity: EntityNo,
        wanted: &[RegionQuery<'_>],
    ) -> Result<Vec<(FoundRows, usize)>, LaneError> {
        let mut packed = vec![Vec::new(); wanted.len()];
        {
            let _waiting = (self.watch.pause(), self.loads.wait());
            reader(&mut self.reader, &self.readers)?.find(entity, wanted, &mut packed)?;
        }
        let described = &schema[entity];
        let mut answers = Vec::with_capacity(wanted.len());
        for (packed, RegionQuery { query, .. }) in packed.iter().zip(wanted) {
            let mut rows = Vec::new();
            let mut decoder = Decoder::new(described, packed, 0);
            let mut values = Vec::new();
            while !decoder.is_at_end() {
                let id = decoder.row(&mut values)?.id;
                rows.push((Box::from(id), values.iter().map(ValueRef::to_value).collect()));
            }
            rows.sort_by(|(a, left): &(Box<str>, Row), (b, right)| query.compare_rows((a, left), (b, right)));
            let is_complete = query.limit.is_none_or(|limit| rows.len() < limit);
            rows.truncate(query.limit.unwrap_or(usize::MAX));
            answers.push((FoundRows { rows, is_complete, too_much: None }, packed.len()));
        }
        Ok(answers)
    }

    /// Loads rows of one table: for each region its ids, or the whole table if that is small enough (see [`Loaded`]).
    /// One query for all regions, and one more where small tables are tried whole.
    pub(crate) fn load(&mut self, entity: EntityNo, wanted: &[Wanted<'_>]) -> Result<Vec<Loaded>, StoreError> {
        // Waiting for the store is not the handler's time.
        let _waiting = (self.watch.pause(), self.loads.wait());
        let reader = reader(&mut self.reader, &self.readers)?;
        let mut loaded: Vec<Loaded> = wanted.iter().map(|_| Loaded::default()).collect();
        let limit = RegionLimit { rows: WHOLE_REGION_ROWS_MAX, bytes: WHOLE_REGION_BYTES_MAX };
        let places: Vec<usize> = (0..wanted.len()).filter(|at| wanted[*at].ask == Ask::TryAll).collect();
        // As many at a time as are known to be small: of a region that is too large, much comes along that is thrown away.
        let mut small = places.as_slice();
        while !small.is_empty() {
            let (now, rest) = small.split_at(self.tried.regions().min(small.len()));
            let (bytes, whole) = try_whole(reader.as_mut(), entity, wanted, now, &mut loaded, limit)?;
            self.tried.note(&bytes, &whole);
            small = rest;
        }
        let asked = (0..wanted.len()).filter(|at| !loaded[*at].is_whole && wanted[*at].ask != Ask::Ids);
        let (mut places, mut rows_max) = (Vec::new(), 0);
        for at in asked {
            if let Some(rows) = self.loaded.note(entity, &wanted[at]) {
                places.push(at);
                rows_max = rows.max(rows_max);
            }
        }
        // A few at a time: they are large, and what is too large comes along for nothing.
        for places in places.chunks(REGIONS_TRIED_MIN) {
            let limit = RegionLimit { rows: rows_max, bytes: self.loaded.bytes_max / places.len() };
            try_whole(reader.as_mut(), entity, wanted, places, &mut loaded, limit)?;
        }
        let places: Vec<usize> = (0..wanted.len()).filter(|at| !loaded[*at].is_whole).collect();
        let ids: Vec<RegionIds<'_>> =
            places.iter().map(|at| RegionIds { region: wanted[*at].region, ids: &wanted[*at].ids }).collect();
        if ids.iter().any(|region| !region.ids.is_empty()) {
            let mut found = vec![Vec::new(); ids.len()];
            reader.rows(entity, &ids, &mut found)?;
            for (at, packed) in places.iter().zip(found) {
                loaded[*at].packed = packed;
            }
        }
        Ok(loaded)
    }
}

/// Tries to load the whole tables of some regions in one query. Returns how many bytes were found of each, and which are
/// here whole.
fn try_whole(
    reader: &mut dyn RowReader,
    entity: EntityNo,
    wanted: &[Wanted<'_>],
    places: &[usize],
    loaded: &mut [Loaded],
    limit: RegionLimit,
) -> Result<(Vec<usize>, Vec<bool>), StoreError> {
    let regions: Vec<&str> = places.iter().map(|at| wanted[*at].region).collect();
    let mut found = vec![Vec::new(); regions.len()];
    let whole = reader.regions(entity, &regions, limit, &mut found)?;
    let bytes = found.iter().map(Vec::len).collect();
    for ((at, packed), is_whole) in places.iter().zip(found).zip(&whole) {
        if *is_whole {
            loaded[*at] = Loaded { packed, is_whole: true };
        }
    }
    Ok((bytes, whole))
}

/// Which tables it may pay to load whole although they are not small: those of which many rows were asked for by their
/// ids. To learn which ids handlers will miss, calls are run dry; a row that comes along with its table costs a small
/// part of that.
struct WholeTables {
    /// Of tables of which many rows were asked for at once: how many in all, and at how many all of it is tried next.
    asked: HashMap<(EntityNo, Box<str>), (usize, usize)>,
    /// Bytes, in packed form, that may be loaded at once.
    bytes_max: usize,
}

impl WholeTables {
    /// Fewer ids at once are not noted.
    const IDS_MIN: usize = 64;
    /// A table is tried when so many of its rows were asked for, and each time that there are four times as many.
    const FIRST_TRY: usize = 512;
    /// It may have so many times as many rows. Those of a larger one are read in vain.
    const ROWS_A_ROW: usize = 8;
    /// The share of the memory that may be loaded at once: in a VM rows take several times as much.
    const MEMORY_SHARE: usize = 64;

    fn new(memory_bytes: usize) -> Self {
        Self { asked: HashMap::new(), bytes_max: memory_bytes / Self::MEMORY_SHARE }
    }

    /// Notes that rows of a table are asked for by id. Returns how many rows it may have for all of it to be tried now.
    fn note(&mut self, entity: EntityNo, wanted: &Wanted<'_>) -> Option<usize> {
        if wanted.ids.len() < Self::IDS_MIN {
            return None;
        }
        let (asked, next) = self.asked.entry((entity, wanted.region.into())).or_insert((0, Self::FIRST_TRY));
        *asked += wanted.ids.len();
        if *asked < *next {
            return None;
        }
        *next = *asked * 4;
        Some(*asked * Self::ROWS_A_ROW)
    }
}

/// Rows of a region to be loaded.
pub(crate) struct Wanted<'w> {
    pub(crate) region: &'w str,
    pub(crate) ids: Vec<&'w str>,
    pub(crate) ask: Ask,
}

/// The first rows of a query among those that are committed.
#[derive(Debug, Default)]
pub(crate) struct FoundRows {
    /// In the query's order.
    pub(crate) rows: Vec<(Box<str>, Row)>,
    /// Whether there are no more.
    pub(crate) is_complete: bool,
    /// There are more than the memory holds, and none are here.
    pub(crate) too_much: Option<LaneError>,
}

/// The reader, opened if it is not yet.
fn reader<'r>(
    reader: &'r mut Option<Box<dyn RowReader>>,
    readers: &Arc<dyn OpenReader>,
) -> Result<&'r mut Box<dyn RowReader>, StoreError> {
    match reader {
        Some(reader) => Ok(reader),
        empty => Ok(empty.insert(readers.open()?)),
    }
}

/// How much of a region's table to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// These ids.
    Ids,
    /// All of it if it is small, else these ids.
    TryAll,
    /// It is not small: all of it if so many ids were asked for by now that it pays, else these ids.
    AllIfWorth,
}

/// Rows that the store had.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) packed: Vec<u8>,
    /// Whether they are the region's whole table.
    pub(crate) is_whole: bool,
}

/// A store without rows, for trying handlers.
pub(crate) struct NoRows;

impl OpenReader for NoRows {
    fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
        Ok(Box::new(Self))
    }
}

impl RowReader for NoRows {
    fn rows(&mut self, _: EntityNo, _: &[RegionIds<'_>], _: &mut [Vec<u8>]) -> Result<(), StoreError> {
        Ok(())
    }

    fn regions(
        &mut self,
        _: EntityNo,
        regions: &[&str],
        _: RegionLimit,
        _: &mut [Vec<u8>],
    ) -> Result<Vec<bool>, StoreError> {
        Ok(vec![true; regions.len()])
    }

    fn find(&mut self, _: EntityNo, _: &[RegionQuery<'_>], _: &mut [Vec<u8>]) -> Result<(), StoreError> {
        Ok(())
    }

    fn count(&mut self, _: EntityNo, _: RegionQuery<'_>, _: &[&str]) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_regions_are_tried_whole_while_they_are_small_and_few_once_one_is_not() {
        let mut tried = Tried { regions: REGIONS_TRIED_MIN };
        let mut asked = Vec::new();
        for _ in 0..5 {
            asked.push(tried.regions());
            tried.note(&vec![100; tried.regions()], &vec![true; tried.regions()]);
        }
        assert_eq!(asked, [32, 512, 8192, 8192, 8192]);
        // What is read in vain is as much as before.
        tried.note(&[0; 100], &[[true; 99].as_slice(), &[false]].concat());
        assert_eq!(tried.regions(), 3200);
        tried.note(&[0; 100], &[false; 100]);
        assert_eq!(tried.regions(), REGIONS_TRIED_MIN);
    }
}
