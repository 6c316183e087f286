//! The contract of a store: its traits, and what they take and give.
//!
//! Holds no SQL and no connection: code that reads rows or commits depends on this and on no database.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::error::StoreError;
use super::outages::StoreOutages;
use super::readers::Readers;
use super::row_reader::OpenReader;
use super::settings::StoreConfig;
use crate::batch::{Quarantined, RegionTouch, SealedBatch};
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::EntityNo;
use crate::model::limits::{SNAPSHOTS_DEDUP, SNAPSHOTS_TTL};
use crate::model::position::Position;
use crate::model::schema::{Schema, SchemaError, check_pipeline_name};
use crate::model::setting::SettingError;
use crate::model::source_progress::{SourceFile, SourceProgress};
use crate::model::timestamp::Timestamp;
use crate::rows::changes::RegionChanges;
use crate::rows::codec::CodecError;
use crate::snapshot::Publication;
use crate::undo::UndoRecord;

use super::snapshot_policy::ChangedPolicy;

/// What a store needs to know about a pipeline.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StorePlan {
    /// The pipeline's name.
    pub pipeline: String,
    /// Its tables.
    pub schema: Arc<Schema>,
    /// Whether its handlers make snapshots.
    pub has_snapshots: bool,
    /// How long the same content of a region counts as a duplicate.
    pub dedup: Duration,
    /// How long a snapshot is kept that is not its region's newest.
    pub ttl: Duration,
    /// What it asks of its store beside that; where it is was said when the store was opened.
    pub config: StoreConfig,
    /// Set when the run is to stop: waiting for the database to come back then ends.
    pub stop: Arc<AtomicBool>,
    /// What came to hold since for `dedup` and `ttl`.
    pub(crate) policy: ChangedPolicy,
    /// Where it is noted when the store is away.
    pub outages: StoreOutages,
}

impl StorePlan {
    /// The plan for a pipeline of that name with these tables, everything else at its default.
    ///
    /// # Errors
    /// The name is not usable.
    pub fn new(pipeline: impl Into<String>, schema: Arc<Schema>) -> Result<Self, SchemaError> {
        let pipeline = pipeline.into();
        check_pipeline_name(&pipeline)?;
        Ok(Self {
            pipeline,
            schema,
            has_snapshots: false,
            dedup: SNAPSHOTS_DEDUP,
            ttl: SNAPSHOTS_TTL,
            config: StoreConfig::default(),
            stop: Arc::default(),
            policy: ChangedPolicy::default(),
            outages: StoreOutages::default(),
        })
    }

    /// Whether its handlers make snapshots. Defaults to false.
    #[must_use]
    pub fn with_snapshots(self, has_snapshots: bool) -> Self {
        Self { has_snapshots, ..self }
    }

    /// How long the same content of a region counts as a duplicate; zero for never. Defaults to 15 minutes.
    #[must_use]
    pub fn with_dedup(self, dedup: Duration) -> Self {
        Self { dedup, ..self }
    }

    /// How long a snapshot is kept that is not its region's newest. Defaults to 90 days.
    ///
    /// # Errors
    /// The duration is zero.
    pub fn with_ttl(self, ttl: Duration) -> Result<Self, SettingError> {
        Ok(Self { ttl: SettingError::unless_instant("ttl", ttl)?, ..self })
    }

    /// Roles that may read its tables, in a store that has roles. Defaults to none.
    #[must_use]
    pub fn with_readers(mut self, readers: Readers) -> Self {
        self.config.readers = readers;
        self
    }

    /// Whether who listens is told of each batch, in a store that can. Defaults to false.
    #[must_use]
    pub fn with_notify(mut self, notify: bool) -> Self {
        self.config.notify = notify;
        self
    }

    /// The flag that ends a wait for the database: [`crate::StopHandle::flag`]. Defaults to one that nobody sets.
    #[must_use]
    pub fn with_stop(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop, ..self }
    }

    /// Where it is noted when the store is away. Defaults to where nobody looks.
    #[must_use]
    pub fn with_outages(self, outages: StoreOutages) -> Self {
        Self { outages, ..self }
    }
}

/// What became of one snapshot of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotReceipt {
    /// The region.
    pub region: Arc<str>,
    /// The id under which it is stored; none if it was a duplicate.
    pub id: Option<String>,
}

impl SnapshotReceipt {
    /// A snapshot that was stored under that id; none for a duplicate.
    pub fn new(region: impl Into<Arc<str>>, id: Option<String>) -> Self {
        Self { region: region.into(), id }
    }
}

/// Where the time of a commit went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CommitTimes {
    /// Rows were streamed into the database, beside the tables.
    pub stream: Duration,
    /// Rows, checkpoint, regions, undo log and snapshots were written into the tables. Where a batch is one statement
    /// that also commits, all of it.
    pub merge: Duration,
    /// The transaction was made durable.
    pub commit: Duration,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Committed {
    /// The number of the batch that is now durable.
    pub batch: u64,
    /// Rows that were written or deleted.
    pub rows: u64,
    /// What became of the batch's snapshots.
    pub snapshots: Vec<SnapshotReceipt>,
    /// How often it was tried again because the database had gone away or asked for it.
    pub retries: u64,
    /// Whether its rows were written a second time, because one that was thought to be new was there already.
    pub was_redone: bool,
    /// Where its time went.
    pub times: CommitTimes,
}

impl Committed {
    /// What became of a batch: it is durable, with all its rows, and had no snapshot that was stored.
    pub fn of(batch: &SealedBatch) -> Self {
        Self { batch: batch.after.batch, rows: batch.rows(), ..Self::default() }
    }

    /// What became of the snapshots: one receipt for each document of [`SealedBatch::snapshots`], and for each that took an
    /// earlier one back; in their order.
    #[must_use]
    pub fn with_snapshots(self, snapshots: Vec<SnapshotReceipt>) -> Self {
        Self { snapshots, ..self }
    }

    /// Where its time went.
    #[must_use]
    pub fn with_times(self, times: CommitTimes) -> Self {
        Self { times, ..self }
    }
}

/// The writing half of a store, and the pipeline's lock. Dropping it gives the lock back.
///
/// Five methods are required. Those with a default add published snapshots and rollbacks.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
///
/// use forebay::store::batch::codec::{Change, Decoder};
/// use forebay::store::batch::{RegionTouch, SealedBatch};
/// use forebay::store::{Committed, OpenReader, RegionIds, RegionLimit, RowReader, Store, StoreError};
/// use forebay::{Checkpoint, EntityNo, Schema};
///
/// /// Rows in packed form, by the number of their entity, their region and their id.
/// type Rows = Arc<Mutex<BTreeMap<(EntityNo, String, String), Vec<u8>>>>;
///
/// #[derive(Default)]
/// struct InMemory {
///     schema: Schema,
///     checkpoint: Checkpoint,
///     rows: Rows,
/// }
///
/// impl Store for InMemory {
///     fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
///         Ok(self.checkpoint)
///     }
///
///     fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError> {
///         Ok(Vec::new())
///     }
///
///     fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError> {
///         let rows = self.rows.lock().unwrap();
///         let is_empty = |entity| !rows.keys().any(|(of, ..)| *of == entity);
///         Ok(EntityNo::in_order().take(self.schema.entities().len()).map(is_empty).collect())
///     }
///
///     fn commit(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, StoreError> {
///         if batch.before != self.checkpoint {
///             return Err(StoreError::CheckpointMoved { store: "memory".into(), expected: batch.before.batch });
///         }
///         let mut rows = self.rows.lock().unwrap();
///         for (entity, regions) in EntityNo::in_order().zip(&batch.changes) {
///             for region in regions {
///                 for row in &region.rows {
///                     let mut decoder = Decoder::new(&self.schema[entity], &region.packed, row.start);
///                     let head = decoder.skip()?;
///                     let key = (entity, region.region.to_string(), head.id.to_owned());
///                     match head.change {
///                         Change::Deleted => rows.remove(&key),
///                         _ => rows.insert(key, region.packed[row.start..decoder.at()].to_vec()),
///                     };
///                 }
///             }
///         }
///         self.checkpoint = batch.after;
///         Ok(Committed::of(batch))
///     }
///
///     fn readers(&self) -> Arc<dyn OpenReader> {
///         Arc::new(Reader(Arc::clone(&self.rows)))
///     }
/// }
///
/// struct Reader(Rows);
///
/// impl OpenReader for Reader {
///     fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
///         Ok(Box::new(Reader(Arc::clone(&self.0))))
///     }
/// }
///
/// impl RowReader for Reader {
///     fn rows(&mut self, entity: EntityNo, wanted: &[RegionIds<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
///         let rows = self.0.lock().unwrap();
///         for (wanted, found) in wanted.iter().zip(found) {
///             for id in wanted.ids {
///                 found.extend(rows.get(&(entity, wanted.region.into(), (*id).into())).into_iter().flatten());
///             }
///         }
///         Ok(())
///     }
///
///     fn regions(
///         &mut self,
///         _: EntityNo,
///         regions: &[&str],
///         _: RegionLimit,
///         _: &mut [Vec<u8>],
///     ) -> Result<Vec<bool>, StoreError> {
///         // No region is given whole: rows are asked for by id.
///         Ok(vec![false; regions.len()])
///     }
/// }
///
/// let mut store = InMemory::default();
/// let batch = Arc::new(SealedBatch::new(Checkpoint::default(), Checkpoint::new(1, Some(7))));
/// store.commit(&batch)?;
/// assert_eq!(store.checkpoint()?.block, Some(7));
/// assert!(store.commit(&batch).is_err(), "the checkpoint is compared");
/// # Ok::<(), StoreError>(())
/// ```
pub trait Store: Send {
    /// The checkpoint that is stored now. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn checkpoint(&mut self) -> Result<Checkpoint, StoreError>;

    /// When the last batch was committed, by whichever run. Asked after [`Store::checkpoint`], which may have read it
    /// already. Defaults to not known. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn committed_at(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    /// What of the source is committed, beside the counts of the checkpoint. Defaults to not known: then the next run
    /// compares counts only. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn source_progress(&mut self) -> Result<SourceProgress, StoreError> {
        Ok(SourceProgress::default())
    }

    /// The position of the source after the last block that is committed: that of the batch committed last
    /// ([`SealedBatch::position`]). Defaults to not known: then the next run reads the source from its start and leaves out
    /// what is committed. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn position(&mut self) -> Result<Option<Position>, StoreError> {
        Ok(None)
    }

    /// The files of the source that are read. Defaults to none: then each of them is read again by the next run. May
    /// block.
    ///
    /// # Errors
    /// The store does not answer.
    fn source_files(&mut self) -> Result<Vec<SourceFile>, StoreError> {
        Ok(Vec::new())
    }

    /// Regions that had events after their last snapshot. One of which a rollback took all events back is not among them.
    /// May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError>;

    /// For each entity of the schema, whether its table has no row. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError>;

    /// Writes one batch in one transaction: its rows, its undo record, its events that were put aside, its snapshots, and
    /// its checkpoint, which is compared and set, with its position. A batch may be a rollback ([`SealedBatch::undone`]): then delete the undo records that it
    /// names first, take the events of later blocks out of the quarantine, and set the regions that it names back; they
    /// lack a snapshot afterwards. Blocks until the batch is durable.
    ///
    /// # Errors
    /// Nothing of the batch is in the store.
    fn commit(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, StoreError>;

    /// Whether [`Store::commit`] takes it when a row that is said to be new is in its table already: it writes the row all
    /// the same, if need be by writing the batch again ([`Committed::was_redone`]). Then a row that is written without being
    /// read may be said to be new as long as nobody knows. Defaults to false: only what is known to be new is said to be.
    fn checks_new_rows(&self) -> bool {
        false
    }

    /// The undo log, newest record first, with the rows only of batches from `rows_from` on. Defaults to none: then the
    /// pipeline cannot be rolled back. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn undo_log(&mut self, rows_from: u64) -> Result<Vec<UndoRecord>, StoreError> {
        let _ = rows_from;
        Ok(Vec::new())
    }

    /// Each region that ever had events, and the last block that had one. Defaults to none. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn region_blocks(&mut self) -> Result<Vec<(Arc<str>, i64)>, StoreError> {
        Ok(Vec::new())
    }

    /// Regions that were rolled back, had a snapshot before that and none since, also those that have no event any more.
    /// Defaults to none. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn set_back_regions(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        Ok(Vec::new())
    }

    /// How many events are in quarantine, over all runs: see [`SealedBatch::quarantined`]. Defaults to none: then those of
    /// earlier runs do not count. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn quarantined(&mut self) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// How far an index has come that stands beside ([`super::Beside`]). Defaults to none: there is none. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn beside(&mut self) -> Result<Option<BesideStatus>, StoreError> {
        Ok(None)
    }

    /// Encodes changed rows into the form that [`Store::commit`] wants, on the handlers' threads. Defaults to none:
    /// they stay in packed form.
    fn encoder(&self) -> Option<Arc<dyn RowEncoder>> {
        None
    }

    /// Opens connections that read rows beside the writer.
    fn readers(&self) -> Arc<dyn OpenReader>;

    /// Gives the newest snapshot of each region a sequence number above the one given, and a new id with it, unless its
    /// number is above already. Needed where readers have higher numbers than this store knows, because it was made
    /// anew or lost its last batches. Defaults to doing nothing. May block.
    ///
    /// # Errors
    /// Nothing has changed.
    fn renumber(&mut self, above: &[(Arc<str>, u64)]) -> Result<(), StoreError> {
        let _ = above;
        Ok(())
    }

    /// Nothing is committed any more: brings what is committed into a state that other programs can take as it is.
    /// Called once, also after a run that failed. Nothing depends on it. Defaults to doing nothing. May block for a moment.
    fn finish(&mut self) {}

    /// The snapshots that are yet to be published. Defaults to none: then they cannot be published while a run goes on.
    /// Does not block.
    fn outbox(&self) -> Option<Box<dyn Outbox>> {
        None
    }
}

/// A region's newest snapshot that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DueSnapshot {
    /// The snapshot.
    pub publication: Publication,
    /// Whether it was published before: then only its time to live starts again.
    pub was_published: bool,
}

impl DueSnapshot {
    /// A snapshot that is to be published, for the first time or again.
    pub fn new(publication: Publication, was_published: bool) -> Self {
        Self { publication, was_published }
    }
}

/// The snapshots of a pipeline that are yet to be published. Takes no lock and delays no commit.
pub trait Outbox: Send {
    /// The newest snapshots of regions, each if it was never published or not since `published_before`: of regions
    /// behind `after`, ordered by region, at most `limit`; fewer if they are large, none at the end. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn due(&mut self, published_before: Timestamp, after: &str, limit: usize) -> Result<Vec<DueSnapshot>, StoreError>;

    /// Regions behind `after` whose newest snapshot is marked as published, and its number: ordered by region, at most
    /// `limit`, none at the end. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn published(&mut self, after: &str, limit: usize) -> Result<Vec<(Arc<str>, u64)>, StoreError>;

    /// Whether the store holds a snapshot of that region, with that number and as of that block. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn holds(&mut self, region: &str, seq: u64, block: i64) -> Result<bool, StoreError>;

    /// The store's signature: a text that no other store has, made with it and kept for ever. A target that has it from
    /// one store takes nothing from another under the same name. Defaults to none: then the target cannot tell. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn signature(&mut self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// Notes that snapshots, by region and sequence number, are published. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn mark(&mut self, published: &[(Arc<str>, u64)], at: Timestamp) -> Result<(), StoreError>;
}

/// Brings changed rows into a store's own form before they are handed over.
pub trait RowEncoder: Send + Sync {
    /// Replaces the bytes of `rows`, which are in packed form, and where they lie. Keeps their number and order.
    ///
    /// # Errors
    /// The bytes do not follow the packed form.
    fn encode(&self, entity: EntityNo, rows: RegionChanges) -> Result<RegionChanges, CodecError>;
}

/// A snapshot as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredSnapshot {
    /// The region.
    pub region: String,
    /// `<region>.<seq>.<first 16 hex digits of the hash>`.
    pub id: String,
    /// Grows with each snapshot of the region. A store always knows it.
    pub seq: Option<u64>,
    /// The block as of which it was computed. A store always knows it.
    pub block: Option<i64>,
    /// When it was computed, RFC 3339. A store always knows it.
    pub generated_at: Option<String>,
    /// When it was published, RFC 3339; none if it was not, or if that is not known.
    pub published_at: Option<String>,
    /// The document, canonical JSON.
    pub doc: String,
}

/// How one region stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionStatus {
    /// The region.
    pub region: String,
    /// The last committed block that had an event for it.
    pub block: i64,
    /// Events of it that were handled.
    pub events: u64,
    /// The block up to which its snapshot holds.
    pub snapshot_block: Option<i64>,
    /// Its newest snapshot, without the document.
    pub snapshot: Option<StoredSnapshot>,
}

/// How far an index has come that stands beside the present tables ([`super::Beside`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BesideStatus {
    /// The last block that it has committed; none before the first.
    pub block: Option<i64>,
    /// Its events that are committed.
    pub events: u64,
}

/// How a pipeline stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PipelineStatus {
    /// Its checkpoint.
    pub checkpoint: Checkpoint,
    /// The position of the source after the checkpoint's block; none if it gave none.
    pub position: Option<Position>,
    /// When the last batch was committed, RFC 3339; none before the first.
    pub committed_at: Option<String>,
    /// Whether its handlers make snapshots.
    pub has_snapshots: bool,
    /// Its regions, ordered by name.
    pub regions: Vec<RegionStatus>,
    /// The signature under which its snapshots are published ([`Outbox::signature`]); none if no run has made it yet.
    pub signature: Option<String>,
    /// How many of its events are in quarantine.
    pub quarantined: u64,
    /// An index that stands beside; none if there is none.
    pub fresh: Option<BesideStatus>,
}

/// Reads snapshots and how a pipeline stands. Takes no lock: it may be used while a run writes.
pub trait SnapshotReader {
    /// The pipelines that the store knows, ordered by name.
    ///
    /// # Errors
    /// The store does not answer.
    fn pipelines(&mut self) -> Result<Vec<String>, StoreError>;

    /// The newest snapshot of each region, or of those that are given, ordered by region.
    ///
    /// # Errors
    /// The store does not answer.
    fn latest(&mut self, pipeline: &str, regions: &[String]) -> Result<Vec<StoredSnapshot>, StoreError>;

    /// A region's snapshots, newest first, no older than `since` (RFC 3339).
    ///
    /// # Errors
    /// The store does not answer.
    fn history(
        &mut self,
        pipeline: &str,
        region: &str,
        limit: usize,
        since: Option<&str>,
    ) -> Result<Vec<StoredSnapshot>, StoreError>;

    /// The snapshot of that id.
    ///
    /// # Errors
    /// The store does not answer.
    fn show(&mut self, pipeline: &str, id: &str) -> Result<Option<StoredSnapshot>, StoreError>;

    /// The events that are in quarantine, in the order in which they were put aside. Defaults to none.
    ///
    /// # Errors
    /// The store does not answer.
    fn quarantined(&mut self, pipeline: &str) -> Result<Vec<Quarantined>, StoreError> {
        let _ = pipeline;
        Ok(Vec::new())
    }

    /// How the pipeline stands; none if it never ran.
    ///
    /// # Errors
    /// The store does not answer.
    fn status(&mut self, pipeline: &str) -> Result<Option<PipelineStatus>, StoreError>;
}
