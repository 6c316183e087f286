//! A sealed batch: all that one commit writes, frozen.

use std::sync::Arc;

use super::codec::{CHANGE_AT, Change, CodecError, Decoder, Head, Writer};
use super::history::{HistoryRecord, Undone};
use crate::schema::Entity;
use crate::timestamp::Timestamp;

/// Where one changed row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowAt {
    /// Where it begins in the bytes of its region.
    pub start: usize,
    /// What the batch did to it.
    pub change: Change,
    /// The event that wrote it.
    pub writer: Writer,
}

/// The changed rows of one region in one table, sorted by id byte by byte, one row an id.
#[derive(Debug, Clone)]
pub struct RegionChanges {
    /// The region.
    pub region: Arc<str>,
    /// The rows in packed form ([`super::codec`]), or in that of the store, if it has an encoder
    /// ([`crate::store::RowEncoder`]).
    pub packed: Vec<u8>,
    /// Where the rows lie in `packed`, ordered by id.
    pub rows: Vec<RowAt>,
}

impl RegionChanges {
    /// Takes packed rows in any order and sorts them by id, byte by byte.
    ///
    /// # Errors
    /// The bytes do not follow the packed format.
    pub fn new(entity: &Entity, region: Arc<str>, packed: Vec<u8>) -> Result<Self, CodecError> {
        Self::checked(entity, region, packed, |_, change| change == Change::New)
    }

    /// As [`RegionChanges::new`]; `is_new` is told of each row that was written, by id and what is said of it, and a row that
    /// is said to be new is one only if it says so too.
    ///
    /// # Errors
    /// As [`RegionChanges::new`].
    pub fn checked(
        entity: &Entity,
        region: Arc<str>,
        mut packed: Vec<u8>,
        mut is_new: impl FnMut(&str, Change) -> bool,
    ) -> Result<Self, CodecError> {
        let mut keyed = Vec::new();
        let mut not_new = Vec::new();
        let mut decoder = Decoder::new(entity, &packed, 0);
        while !decoder.is_at_end() {
            let start = decoder.at();
            let Head { id, mut change, writer } = decoder.skip()?;
            if change != Change::Deleted && !is_new(id, change) && change == Change::New {
                change = Change::Written;
                not_new.push(start + CHANGE_AT + id.len());
            }
            keyed.push((id, RowAt { start, change, writer }));
        }
        keyed.sort_unstable_by_key(|(id, _)| *id);
        let rows = keyed.into_iter().map(|(_, row)| row).collect();
        for at in not_new {
            packed[at] = Change::Written as u8;
        }
        Ok(Self { region, packed, rows })
    }

    /// Bytes of memory it takes, about.
    pub fn memory_bytes(&self) -> usize {
        self.packed.capacity() + self.rows.capacity() * size_of::<RowAt>()
    }
}

/// What a batch did to a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionTouch {
    /// The region.
    pub region: Arc<str>,
    /// The last block of the batch that had an event for it.
    pub block: i64,
    /// How many events of the batch its lane handled.
    pub events: u64,
}

/// A region's document as of the end of a batch, before the store has given it a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotDraft {
    /// The region.
    pub region: Arc<str>,
    /// The block as of which it was computed.
    pub block: i64,
    /// When it was computed.
    pub generated_at: Timestamp,
    /// SHA-256 over the canonical JSON without the ignored fields, in hex.
    pub hash: String,
    /// The document, canonical JSON; none if the handler had nothing to say.
    pub doc: Option<Arc<str>>,
}

/// How far the pipeline has come: stored in the transaction of each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Batches committed since the pipeline began: the value that a commit compares and sets.
    pub batch: u64,
    /// The last committed block; none before the first.
    pub block: Option<i64>,
    /// Events of that block.
    pub block_events: u64,
    /// Blocks committed since the pipeline began.
    pub blocks: u64,
    /// Events committed since the pipeline began.
    pub events: u64,
}

/// A batch that is handed to the commit thread. Nothing in it changes any more.
#[derive(Debug, Clone)]
pub struct SealedBatch {
    /// The checkpoint that must be in the store before this batch.
    pub before: Checkpoint,
    /// The checkpoint that this batch stores.
    pub after: Checkpoint,
    /// The first block of the batch; none if it holds only snapshots.
    pub first_block: Option<i64>,
    /// For each entity of the schema, the changed rows, ordered by region.
    pub changes: Vec<Vec<RegionChanges>>,
    /// The regions that had events.
    pub touched: Vec<RegionTouch>,
    /// The files that the batch's events came from, by number: see [`Writer`].
    pub origins: Arc<Vec<Arc<str>>>,
    /// The snapshots as of the end of the batch.
    pub snapshots: Vec<SnapshotDraft>,
    /// What it leaves so that it can be rolled back.
    pub history: Option<HistoryRecord>,
    /// Records of earlier batches whose blocks are not above this one may go.
    pub history_floor: Option<i64>,
    /// If the batch is a rollback: what it does beside writing rows.
    pub undone: Option<Undone>,
}

impl SealedBatch {
    /// Rows that the commit writes or deletes.
    pub fn rows(&self) -> u64 {
        self.changes.iter().flatten().map(|region| region.rows.len() as u64).sum()
    }

    /// Bytes of memory it takes, about.
    pub fn memory_bytes(&self) -> usize {
        let rows: usize = self.changes.iter().flatten().map(RegionChanges::memory_bytes).sum();
        let docs: usize = self.snapshots.iter().filter_map(|snapshot| snapshot.doc.as_ref()).map(|doc| doc.len()).sum();
        let history = self.history.as_ref().map_or(0, |record| record.head.len() + record.rows.len());
        rows + docs + history
    }

    /// Where the event that wrote a row stands, for a message: `file:line`.
    pub fn writer_text(&self, writer: Writer) -> Option<String> {
        let (origin, line) = writer.place()?;
        self.origins.get(origin).map(|origin| format!("{origin}:{line}"))
    }

    /// What the batch spans, for a message.
    pub fn span(&self) -> String {
        if let Some(undone) = &self.undone {
            return format!("the rollback to block {}", undone.to);
        }
        match (self.first_block, self.after.block) {
            (Some(first), Some(last)) if first != last => {
                format!("batch {} (blocks {first} to {last})", self.after.batch)
            }
            (Some(_), Some(last)) => format!("batch {} (block {last})", self.after.batch),
            _ => format!("batch {} (snapshots only)", self.after.batch),
        }
    }
}
