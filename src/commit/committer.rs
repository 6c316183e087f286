//! The orders of the commit thread, and carrying them out: commit a batch, roll back to a block, renumber snapshots.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handoff::Committer;
use crate::batch::SealedBatch;
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::{BlockNo, Depth};
use crate::model::position::Position;
use crate::model::schema::Schema;
use crate::model::source_progress::SourceProgress;
use crate::store::{Committed, Store, StoreError};
use crate::timeline::{Activity, Recorder, Stage};
use crate::undo::{RegionUndo, UndoError, plan_rollback};

/// What is handed to the commit thread.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// A batch to commit.
    Batch(Arc<SealedBatch>),
    /// Back to the state as of this block.
    Rollback {
        /// The block.
        to: BlockNo,
    },
    /// The newest snapshots of these regions get numbers above those given.
    Renumber {
        /// Regions, and the number that each has where it is published.
        above: Vec<(Arc<str>, u64)>,
    },
}

/// What came of an order.
#[derive(Debug)]
pub(crate) enum Done {
    /// The batch is durable; how long that took, with all that was tried again.
    Committed(Committed, Duration),
    /// The state is as of the block; none if it was not behind it.
    RolledBack(Option<RolledBack>),
    /// Snapshots have new numbers; or not, which was reported: nothing depends on it.
    Renumbered,
}

/// Hears of each commit, on the commit thread. Must not block.
pub(crate) trait CommitListener: Send + Sync {
    /// A batch is durable.
    fn committed(&self, batch: &SealedBatch, committed: &Committed);

    /// Snapshots that were committed before have new numbers, and count as unpublished.
    fn renumbered(&self);
}

/// What a rollback did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RolledBack {
    /// The checkpoint before it.
    pub(crate) from: Checkpoint,
    /// The checkpoint now, and the hash of its block.
    pub(crate) checkpoint: Checkpoint,
    pub(crate) hash: Option<Arc<str>>,
    /// What of the source is committed up to it.
    pub(crate) source: SourceProgress,
    /// The position of the source after it, if it is known.
    pub(crate) position: Option<Position>,
    /// The regions that had events since.
    pub(crate) regions: Vec<RegionUndo>,
    /// Rows that were restored or removed.
    pub(crate) rows: u64,
    pub(crate) retries: u64,
    /// Events that are in quarantine now.
    pub(crate) quarantined: u64,
}

/// Commits sealed batches to a store, and tells what has committed.
pub(crate) struct StoreCommitter {
    store: Box<dyn Store>,
    listeners: Vec<Arc<dyn CommitListener>>,
    schema: Arc<Schema>,
    /// `rollback.depth`.
    depth: Depth,
    recorder: Arc<Recorder>,
}

impl StoreCommitter {
    /// A committer that owns the store's writing half.
    pub(crate) fn new(
        store: Box<dyn Store>,
        listeners: Vec<Arc<dyn CommitListener>>,
        schema: Arc<Schema>,
        depth: Depth,
        recorder: Arc<Recorder>,
    ) -> Self {
        Self { store, listeners, schema, depth, recorder }
    }

    /// Nothing is committed any more.
    pub(crate) fn finish(mut self) {
        self.store.finish();
    }

    fn commit_batch(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, BatchError> {
        let committed = self.store.commit(batch).map_err(|error| BatchError { span: batch.span(), error })?;
        self.listeners.iter().for_each(|listener| listener.committed(batch, &committed));
        Ok(committed)
    }

    /// Rolls the state back to a block. Nothing is in flight: checkpoint and undo log are read now, from one state of
    /// the store.
    fn roll_back(&mut self, to: BlockNo) -> Result<Option<RolledBack>, StoreError> {
        let (from, store) = (self.store.checkpoint()?, &mut self.store);
        let plan = plan_rollback(from, self.depth, &self.schema, to, |rows_from| store.undo_log(rows_from))?;
        let Some(mut plan) = plan else { return Ok(None) };
        if let Some(encoder) = self.store.encoder() {
            plan.encode(|entity, rows| encoder.encode(entity, rows))?;
        }
        let (hash, source, regions) = (plan.hash.clone(), plan.source, plan.undone.regions.clone());
        let batch = Arc::new(SealedBatch::of_rollback(plan));
        let committed = self.store.commit(&batch)?;
        Ok(Some(RolledBack {
            from,
            checkpoint: batch.after,
            hash,
            source,
            position: batch.position.clone(),
            regions,
            rows: batch.rows(),
            retries: committed.retries,
            quarantined: self.store.quarantined()?,
        }))
    }

    /// Numbers snapshots above what readers have. A failure is found again later, and no batch depends on it.
    fn renumber(&mut self, above: &[(Arc<str>, u64)]) {
        match self.store.renumber(above) {
            Ok(()) => self.listeners.iter().for_each(|listener| listener.renumbered()),
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

/// Why a batch was not committed, or not rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub struct BatchError {
    /// Which batch.
    pub span: String,
    /// What the store said.
    #[source]
    pub error: StoreError,
}

impl std::fmt::Display for BatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.error {
            // The error names the block itself.
            StoreError::Undo(UndoError::Beyond { .. }) => self.error.fmt(f),
            error => write!(f, "{} was not committed: {error}", self.span),
        }
    }
}

impl Committer for StoreCommitter {
    type Item = Order;
    type Receipt = Done;
    type Error = BatchError;

    fn commit(&mut self, order: Order) -> Result<Done, BatchError> {
        let started = Instant::now();
        let (number, done) = match order {
            Order::Batch(batch) => {
                let committed = self.commit_batch(&batch);
                (batch.after.batch, committed.map(|done| Done::Committed(done, started.elapsed())))
            }
            Order::Rollback { to } => {
                let failed = |error| BatchError { span: format!("the rollback to block {to}"), error };
                (0, self.roll_back(to).map(Done::RolledBack).map_err(failed))
            }
            Order::Renumber { above } => {
                self.renumber(&above);
                (0, Ok(Done::Renumbered))
            }
        };
        self.recorder.span(Stage::Commit, Activity::Working, number, started, Instant::now());
        done
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::batch::RegionTouch;
    use crate::store::{OpenReader, RowReader};

    /// A store that numbers anew as long as it is well.
    struct Fake {
        is_well: bool,
    }

    impl Store for Fake {
        fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
            Ok(Checkpoint::default())
        }
        fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError> {
            Ok(Vec::new())
        }
        fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError> {
            Ok(Vec::new())
        }
        fn commit(&mut self, _: &Arc<SealedBatch>) -> Result<Committed, StoreError> {
            Ok(Committed::default())
        }
        fn readers(&self) -> Arc<dyn OpenReader> {
            Arc::new(NoReader)
        }
        fn renumber(&mut self, above: &[(Arc<str>, u64)]) -> Result<(), StoreError> {
            assert_eq!(above, [("a".into(), 7)]);
            if self.is_well { Ok(()) } else { Err(StoreError::Other("it is away".into())) }
        }
    }

    struct NoReader;

    impl OpenReader for NoReader {
        fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
            Err(StoreError::Other("there is none".into()))
        }
    }

    #[derive(Default)]
    struct Heard(AtomicUsize);

    impl CommitListener for Heard {
        fn committed(&self, _: &SealedBatch, _: &Committed) {}
        fn renumbered(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_order_to_number_anew_that_fails_is_not_told_and_stops_nothing() {
        for (is_well, expected) in [(true, 1), (false, 0)] {
            let heard = Arc::new(Heard::default());
            let listener = vec![Arc::clone(&heard) as Arc<dyn CommitListener>];
            let schema = Arc::new(Schema::new([]).expect("a schema"));
            let store = Box::new(Fake { is_well });
            let mut committer = StoreCommitter::new(store, listener, schema, Depth::default(), Recorder::new(0));
            let order = Order::Renumber { above: vec![("a".into(), 7)] };
            assert!(matches!(committer.commit(order), Ok(Done::Renumbered)));
            assert_eq!(heard.0.load(Ordering::Relaxed), expected);
        }
    }
}
