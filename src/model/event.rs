//! Events on their way from the reader to the lanes.
//!
//! Events travel in pages: one buffer of JSON text, and where each event lies in it. A page may hold many blocks or
//! a part of one. Nothing is copied out of a page until a handler asks for a field.

use std::sync::Arc;

use crate::model::byte_budget::Lease;
use crate::model::ids::{BlockNo, RegionNo};
use crate::model::position::Position;
use crate::model::quarantine::{QuarantineStage, Quarantined, error_text, event_text};
use crate::model::source_progress::BlockSum;
use crate::model::timestamp::Timestamp;

/// One event in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef {
    /// Where its JSON object begins in the page's text.
    pub start: u32,
    /// Bytes of the JSON object.
    pub len: u32,
    /// The line it stands on in its file, from 1.
    pub line: u64,
    /// Its block.
    pub block: BlockNo,
    /// Its region.
    pub region: RegionNo,
}

/// What is wrong with an event that no lane gets: it is put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was wrong with it.
    pub error: String,
    /// The region that it names, if that can be read.
    pub region: Option<Arc<str>>,
}

/// A run of consecutive events.
#[derive(Debug)]
pub struct Page {
    /// The JSON text of the events: valid UTF-8.
    pub text: String,
    /// The events in order.
    pub events: Vec<EventRef>,
    /// The name of the file they came from.
    pub origin: Arc<str>,
    /// The number of that file in the order of reading, from 0; files beyond the last number share it.
    pub origin_no: u16,
    /// Regions that the run had not seen before this page; they continue the numbering.
    pub new_regions: Vec<Arc<str>>,
    /// The hashes of blocks that begin in this page, where the source gives them.
    pub hashes: Vec<(BlockNo, Arc<str>)>,
    /// For each block in this page, the sum over its events here.
    pub sums: Vec<(BlockNo, BlockSum)>,
    /// If the source has positions: for each block in this page, the position after its last event here; none if the
    /// source gave none with it. Batches end with a block, so one of these is where a run resumes.
    pub positions: Vec<(BlockNo, Option<Position>)>,
    /// Events of this page that no lane gets, by their place in `events` and in its order.
    pub refused: Vec<(u32, Refusal)>,
    /// The place of each event within its block, where the source has places and events may be put aside; else empty.
    pub places: Vec<Option<i64>>,
    /// Bytes of the source that were read up to the end of this page, as they lie on disk.
    pub source_bytes_read: u64,
    /// The page's share of the read-ahead; given back when the page is dropped.
    pub lease: Option<Lease>,
}

impl Page {
    /// The JSON text of one event.
    pub fn json(&self, event: &EventRef) -> &str {
        let start = event.start as usize;
        self.text.get(start..start + event.len as usize).unwrap_or("")
    }

    /// Bytes of memory that it takes, about.
    pub fn memory_bytes(&self) -> usize {
        let positions: usize = self.positions.iter().map(|(_, position)| position_bytes(position.as_ref())).sum();
        size_of::<Self>() + self.text.len() + self.events.len() * size_of::<EventRef>() + positions
    }

    /// The event at that place, as it is put aside.
    pub fn put_aside(&self, at: usize, stage: QuarantineStage, refusal: &Refusal) -> Option<Quarantined> {
        let event = self.events.get(at)?;
        Some(Quarantined {
            file: Arc::clone(&self.origin),
            line: event.line,
            block: event.block.get(),
            place: self.places.get(at).copied().flatten(),
            region: refusal.region.clone(),
            stage,
            error: error_text(&refusal.error),
            event: event_text(self.json(event)),
            time: Timestamp::now(),
        })
    }
}

/// Bytes of memory that the position of a block takes, about.
pub fn position_bytes(position: Option<&Position>) -> usize {
    size_of::<(BlockNo, Option<Position>)>() + position.map_or(0, |position| position.as_str().len())
}

/// Where an event stands, for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventPlace {
    /// The file.
    pub origin: Arc<str>,
    /// The line in it, from 1.
    pub line: u64,
    /// Its block.
    pub block: i64,
    /// The region whose lane handled it.
    pub region: Arc<str>,
    /// The event's JSON, cut if it is long.
    pub json: String,
}

impl std::fmt::Display for EventPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "block {}, region {:?}, {}:{}: event {}", self.block, self.region, self.origin, self.line, self.json)
    }
}

/// Cuts a JSON text to what fits in a message.
pub fn shorten_json(json: &str) -> String {
    const CHARS_MAX: usize = 240;
    match json.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", &json[..at]),
        None => json.to_owned(),
    }
}
