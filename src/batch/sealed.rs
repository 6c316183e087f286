//! A sealed batch: all that one commit writes, frozen.

use std::sync::Arc;

use crate::model::checkpoint::Checkpoint;
use crate::model::position::Position;
use crate::model::quarantine::Quarantined;
use crate::model::source_progress::{SourceFile, SourceProgress};
use crate::model::timestamp::Timestamp;
use crate::rows::changes::RegionChanges;
use crate::rows::codec::Writer;
use crate::undo::{RollbackPlan, UndoRecord, Undone};

/// What a batch did to a region.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionTouch {
    /// The region.
    pub region: Arc<str>,
    /// The last block of the batch that had an event for it.
    pub block: i64,
    /// How many events of the batch its lane handled.
    pub events: u64,
}

impl RegionTouch {
    /// A region that had so many events, the last of them in that block.
    pub fn new(region: impl Into<Arc<str>>, block: i64, events: u64) -> Self {
        Self { region: region.into(), block, events }
    }
}

/// A region's document as of the end of a batch, before the store has given it a number.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotDraft {
    /// The region.
    pub region: Arc<str>,
    /// The block as of which it was computed.
    pub block: i64,
    /// When it was computed.
    pub generated_at: Timestamp,
    /// SHA-256 over the canonical JSON without the ignored fields, in hex; of a draft without a document that of `null`.
    pub hash: String,
    /// The document, canonical JSON; none if the handler had nothing to say: then what it said before is taken back, and
    /// `null` is stored.
    pub doc: Option<Arc<str>>,
}

impl SnapshotDraft {
    /// A region's document as of a block, with the hash of its content.
    pub fn new(region: impl Into<Arc<str>>, block: i64, generated_at: Timestamp, hash: String, doc: Arc<str>) -> Self {
        Self { region: region.into(), block, generated_at, hash, doc: Some(doc) }
    }
}

/// A batch that is handed to the commit thread. Nothing in it changes any more.
#[derive(Debug, Clone)]
#[non_exhaustive]
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
    /// Events of the batch that were put aside. A rollback to a block takes out those of later blocks.
    pub quarantined: Vec<Quarantined>,
    /// The snapshots as of the end of the batch.
    pub snapshots: Vec<SnapshotDraft>,
    /// What of its source is committed with it.
    pub source: SourceProgress,
    /// The position of the source after the last block that is committed with it; none if it is not known. It is stored with
    /// the checkpoint.
    pub position: Option<Position>,
    /// Files of the source that are read to their end, or begun.
    pub files: Vec<SourceFile>,
    /// Its record in the undo log.
    pub undo: Option<UndoRecord>,
    /// Undo records of earlier batches may be deleted if they hold no block above this one.
    pub undo_floor: Option<i64>,
    /// If the batch is a rollback: what it undoes besides writing rows.
    pub undone: Option<Undone>,
}

impl SealedBatch {
    /// A batch that only moves the checkpoint, for trying out a store. A run makes its own.
    pub fn new(before: Checkpoint, after: Checkpoint) -> Self {
        Self {
            before,
            after,
            first_block: None,
            changes: Vec::new(),
            touched: Vec::new(),
            origins: Arc::default(),
            quarantined: Vec::new(),
            snapshots: Vec::new(),
            source: SourceProgress::default(),
            position: None,
            files: Vec::new(),
            undo: None,
            undo_floor: None,
            undone: None,
        }
    }

    /// The batch that carries out a rollback.
    pub fn of_rollback(plan: RollbackPlan) -> Self {
        let RollbackPlan { before, after, hash: _, source, position, changes, record, undone } = plan;
        Self {
            before,
            after,
            first_block: None,
            changes,
            touched: Vec::new(),
            origins: Arc::default(),
            quarantined: Vec::new(),
            snapshots: Vec::new(),
            source,
            position,
            files: Vec::new(),
            undo: Some(record),
            undo_floor: None,
            undone: Some(undone),
        }
    }

    /// Rows that the commit writes or deletes.
    pub fn rows(&self) -> u64 {
        self.changes.iter().flatten().map(|region| region.rows.len() as u64).sum()
    }

    /// Bytes of memory it takes, about.
    pub fn memory_bytes(&self) -> usize {
        let rows: usize = self.changes.iter().flatten().map(RegionChanges::memory_bytes).sum();
        let docs: usize = self.snapshots.iter().filter_map(|snapshot| snapshot.doc.as_ref()).map(|doc| doc.len()).sum();
        let history = self.undo.as_ref().map_or(0, |record| record.head.len() + record.rows.len());
        let aside: usize = self.quarantined.iter().map(Quarantined::memory_bytes).sum();
        rows + docs + history + aside
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
