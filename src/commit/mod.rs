//! Commits: sealed batches go to the store here, in order, on a thread of their own.
//!
//! Runs no handler, and holds no SQL: that is the store's.

pub mod handoff;

use std::sync::Arc;

use crate::stage::batch::SealedBatch;
use crate::store::{Committed, Store, StoreError};
use handoff::Committer;

/// Commits sealed batches to a store.
pub struct StoreCommitter {
    store: Box<dyn Store>,
}

impl StoreCommitter {
    /// A committer that owns the store's writing half.
    pub fn new(store: Box<dyn Store>) -> Self {
        Self { store }
    }
}

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
#[error("{span} was not committed: {error}")]
pub struct BatchError {
    /// Which batch.
    pub span: String,
    /// What the store said.
    #[source]
    pub error: StoreError,
}

impl Committer for StoreCommitter {
    type Item = Arc<SealedBatch>;
    type Receipt = Committed;
    type Error = BatchError;

    fn commit(&mut self, batch: Arc<SealedBatch>) -> Result<Committed, BatchError> {
        self.store.commit(&batch).map_err(|error| BatchError { span: batch.span(), error })
    }
}
