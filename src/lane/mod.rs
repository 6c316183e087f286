//! Lanes: where handlers run. One lane is one region's events of a batch, in order; lanes run in parallel.
//!
//! An [`Engine`] runs the lanes of the regions that are assigned to it and caches their rows. There are two kinds:
//! [`lua`] (a Lua VM) and [`rust`] (a Rust [`rust::handler::Handler`]). No SQL and no network: rows that are not cached
//! come through a [`Loader`].

mod assignment;
mod before_images;
mod loader;
#[cfg(feature = "lua")]
mod lua;
#[cfg(not(feature = "lua"))]
#[path = "no_lua.rs"]
mod lua;
pub mod rust;
mod scan;
pub(crate) mod watch;

use std::path::Path;
use std::sync::Arc;

use crate::model::cause::Cause;
use crate::model::event::{EventPlace, EventRef, Page, Refusal, shorten_json};
use crate::model::field_type::FieldTypes;
use crate::model::ids::{BatchClock, BlockNo, Depth, RegionNo};
use crate::model::quarantine::{QuarantineStage, Quarantined};
use crate::model::schema::Schema;
use crate::rows::codec::CodecError;
use crate::store::{OpenReader, StoreError};
use watch::Watch;

pub(crate) use assignment::Assignment;
pub(crate) use before_images::SealedRows;
pub(crate) use loader::{Ask, LoadStats, Loader, NoRows, Wanted};
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
