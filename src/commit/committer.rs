//! What the commit thread does with an order: commits a batch, or goes back to a block.

use std::sync::Arc;
use std::time::Instant;

use super::handoff::Committer;
use crate::batch::SealedBatch;
use crate::model::checkpoint::Checkpoint;
use crate::model::schema::Schema;
use crate::publish::outbox::Mailbox;
use crate::rows::changes::RegionChanges;
use crate::snapshot::{Publication, seq_of};
use crate::store::{Committed, Store, StoreError};
use crate::timeline::{Doing, Recorder, Stage};
use crate::undo::{HistoryError, RegionUndo, Window};

/// What is handed to the commit thread.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// A batch to commit.
    Batch(Arc<SealedBatch>),
    /// Back to the state as of this block.
    Rollback {
        /// The block.
        to: i64,
    },
}

/// What came of an order.
#[derive(Debug)]
pub(crate) enum Done {
    /// The batch is durable.
    Committed(Committed),
    /// The state is as of the block; none if it was not behind it.
    RolledBack(Option<RolledBack>),
}

/// What a rollback did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RolledBack {
    /// The checkpoint before it.
    pub(crate) from: Checkpoint,
    /// The checkpoint now, and the hash of its block.
    pub(crate) checkpoint: Checkpoint,
    pub(crate) hash: Option<Arc<str>>,
    /// The regions that had events since.
    pub(crate) regions: Vec<RegionUndo>,
    /// Rows that were restored or removed.
    pub(crate) rows: u64,
    pub(crate) retries: u64,
}

/// Commits sealed batches to a store, and hands what has committed on to be published.
pub(crate) struct StoreCommitter {
    store: Box<dyn Store>,
    mailbox: Option<Arc<Mailbox>>,
    schema: Arc<Schema>,
    /// `rollback.depth`.
    depth: u64,
    recorder: Arc<Recorder>,
}

impl StoreCommitter {
    /// A committer that owns the store's writing half. Committed snapshots go into the mailbox, if there is one.
    pub(crate) fn new(
        store: Box<dyn Store>,
        mailbox: Option<Arc<Mailbox>>,
        schema: Arc<Schema>,
        depth: u64,
        recorder: Arc<Recorder>,
    ) -> Self {
        Self { store, mailbox, schema, depth, recorder }
    }

    fn commit_batch(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, BatchError> {
        self.renumber();
        let committed = self.store.commit(batch).map_err(|error| BatchError { span: batch.span(), error })?;
        if let Some(mailbox) = &self.mailbox
            && !committed.snapshots.is_empty()
        {
            mailbox.put(publications(batch, &committed));
        }
        Ok(committed)
    }

    /// Brings the state back to what it was as of a block. Nothing is in flight: checkpoint and history are read now, from
    /// one state of the store.
    fn roll_back(&mut self, to: i64) -> Result<Option<RolledBack>, StoreError> {
        let from = self.store.checkpoint()?;
        let window = Window::new(from, self.depth, &self.store.history(u64::MAX)?)?;
        let Some(mut undo) = window.undo(to)? else { return Ok(None) };
        let first = undo.records_from();
        for record in self.store.history(first)?.iter().filter(|record| record.batch >= first) {
            undo.add(&self.schema, record)?;
        }
        let plan = undo.into_plan(&self.schema)?;
        let hash = plan.hash.clone();
        let mut batch = SealedBatch::of_rollback(plan);
        if let Some(encoder) = self.store.encoder() {
            for (entity, regions) in batch.changes.iter_mut().enumerate() {
                for region in regions {
                    let packed =
                        RegionChanges { region: Arc::clone(&region.region), packed: Vec::new(), rows: Vec::new() };
                    *region = encoder.encode(entity, std::mem::replace(region, packed))?;
                }
            }
        }
        let batch = Arc::new(batch);
        let committed = self.store.commit(&batch)?;
        let regions = batch.undone.as_ref().map_or_else(Vec::new, |undone| undone.regions.clone());
        Ok(Some(RolledBack {
            from,
            checkpoint: batch.after,
            hash,
            regions,
            rows: batch.rows(),
            retries: committed.retries,
        }))
    }

    /// Numbers snapshots above what Redis has, where the publish thread found that it must be; says whether it was so.
    pub(crate) fn renumber(&mut self) -> bool {
        let Some(mailbox) = &self.mailbox else { return false };
        let floors = mailbox.take_floors();
        if floors.is_empty() {
            return false;
        }
        // If it fails it will be found again, and the batch does not depend on it.
        match self.store.renumber(&floors) {
            Ok(()) => mailbox.ask_for_sweep(),
            Err(error) => tracing::warn!("{error}"),
        }
        true
    }
}

/// The snapshots of a batch that were stored.
fn publications<'b>(batch: &'b SealedBatch, committed: &'b Committed) -> impl Iterator<Item = Publication> + 'b {
    // One receipt for each document, in the same order.
    let drafts = batch.snapshots.iter().filter_map(|draft| Some((draft, draft.doc.as_ref()?)));
    drafts.zip(&committed.snapshots).filter_map(|((draft, doc), receipt)| {
        let id = receipt.id.clone().filter(|_| receipt.region == draft.region)?;
        Some(Publication {
            region: Arc::clone(&draft.region),
            seq: seq_of(&draft.region, &id)?,
            id,
            block: Some(draft.block),
            time: draft.generated_at,
            hash: draft.hash.clone(),
            doc: Arc::clone(doc),
            follows_rollback: false,
        })
    })
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
            // It names the block itself.
            StoreError::History(HistoryError::Beyond { .. }) => self.error.fmt(f),
            error => write!(f, "{} was not committed: {error}", self.span),
        }
    }
}

impl Committer for StoreCommitter {
    type Item = Order;
    type Receipt = Done;
    type Error = BatchError;

    fn commit(&mut self, order: Order) -> Result<Done, BatchError> {
        let begun = Instant::now();
        match order {
            Order::Batch(batch) => {
                let committed = self.commit_batch(&batch).map(Done::Committed);
                self.recorder.span(Stage::Commit, Doing::Working, batch.after.batch, begun, Instant::now());
                committed
            }
            Order::Rollback { to } => {
                let rolled_back = self.roll_back(to);
                self.recorder.span(Stage::Commit, Doing::Working, 0, begun, Instant::now());
                let span = || format!("the rollback to block {to}");
                rolled_back.map(Done::RolledBack).map_err(|error| BatchError { span: span(), error })
            }
        }
    }
}
