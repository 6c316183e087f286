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
pub(crate) mod watch;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::cause::Cause;
use crate::model::event::{EventPlace, EventRef, Page, Refusal, shorten_json};
use crate::model::field_type::FieldTypes;
use crate::model::ids::{BatchClock, BlockNo, Depth, EntityNo, RegionNo};
use crate::model::limits::{
    REGIONS_TRIED_GROWTH, REGIONS_TRIED_MAX, REGIONS_TRIED_MIN, WHOLE_REGION_BYTES_MAX, WHOLE_REGION_ROWS_MAX,
};
use crate::model::quarantine::{QuarantineStage, Quarantined};
use crate::model::schema::Schema;
use crate::model::value::Row;
use crate::rows::codec::{CodecError, Decoder, ValueRef};
use crate::store::{OpenReader, RegionCount, RegionIds, RegionLimit, RegionQuery, RowReader, StoreError};
use watch::Watch;

pub(crate) use assignment::Assignment;
pub(crate) use before_images::SealedRows;

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

/// Runs the lanes of some regions and caches their rows.
pub(crate) trait Engine: Send {
    /// Handles some lanes of a round. The rows that they miss are loaded together. Returns the events that failed, if
    /// events are put aside: nothing of them is in the rows.
    fn run(&mut self, round: &Arc<Round>, lanes: &[usize]) -> Result<Vec<FailedEvent>, LaneError>;

    /// The document of each region as of the state that the engine holds now: canonical JSON. What they miss is loaded
    /// together. If several fail, the error is that of the first.
    fn snapshots(&mut self, regions: &[(RegionNo, Arc<str>)], block: BlockNo)
    -> Result<Vec<Option<String>>, LaneError>;

    /// Takes out what the batch changed. With `undo_floor`, also the before-images of blocks after that one; those of
    /// rows that were written without being read come from the store.
    fn seal(&mut self, undo_floor: Option<BlockNo>) -> Result<SealedRows, LaneError>;

    /// Drops all rows, changed or not: the store was rolled back. Nothing may be staged.
    fn forget(&mut self) -> Result<(), LaneError>;

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

    /// Notes what was found of regions, and which of them are here whole. As much may be read again as the largest regions
    /// would be.
    fn note(&mut self, found: &[Vec<u8>], whole: &[bool]) {
        let bytes =
            |(packed, is_whole): (&Vec<u8>, &bool)| if *is_whole { packed.len() } else { WHOLE_REGION_BYTES_MAX };
        let bytes: usize = found.iter().zip(whole).map(bytes).sum();
        let each = (bytes / found.len().max(1)).max(1);
        let fit = REGIONS_TRIED_MIN * WHOLE_REGION_BYTES_MAX / each;
        self.regions = fit.min(self.regions * REGIONS_TRIED_GROWTH).clamp(REGIONS_TRIED_MIN, REGIONS_TRIED_MAX);
    }
}

impl Loader {
    pub(crate) fn new(context: &EngineContext) -> Self {
        let EngineContext { readers, watch, loads, .. } = context;
        let tried = Tried { regions: REGIONS_TRIED_MIN };
        Self { readers: Arc::clone(readers), reader: None, watch: Arc::clone(watch), loads: Arc::clone(loads), tried }
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

    /// Finds the first committed rows of each query, in its order: all of them in as few questions as the store allows.
    pub(crate) fn find(
        &mut self,
        schema: &Schema,
        entity: EntityNo,
        wanted: &[RegionQuery<'_>],
    ) -> Result<Vec<FoundRows>, LaneError> {
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
            answers.push(FoundRows { rows, is_complete });
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
        let mut places = places.as_slice();
        while !places.is_empty() {
            let (now, rest) = places.split_at(self.tried.regions().min(places.len()));
            let regions: Vec<&str> = now.iter().map(|at| wanted[*at].region).collect();
            let mut found = vec![Vec::new(); regions.len()];
            let whole = reader.regions(entity, &regions, limit, &mut found)?;
            self.tried.note(&found, &whole);
            for ((at, packed), is_whole) in now.iter().zip(found).zip(whole) {
                if is_whole {
                    loaded[*at] = Loaded { packed, is_whole };
                }
            }
            places = rest;
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
            tried.note(&vec![vec![0; 100]; tried.regions()], &vec![true; tried.regions()]);
        }
        assert_eq!(asked, [32, 512, 8192, 8192, 8192]);
        // What is read in vain is as much as before.
        tried.note(&vec![Vec::new(); 100], &[[true; 99].as_slice(), &[false]].concat());
        assert_eq!(tried.regions(), 3200);
        tried.note(&vec![Vec::new(); 100], &[false; 100]);
        assert_eq!(tried.regions(), REGIONS_TRIED_MIN);
    }
}
