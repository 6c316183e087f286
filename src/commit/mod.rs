//! Commits: sealed batches go to the store here, in order, on a thread of their own.
//!
//! Runs no handler, and holds no SQL: that is the store's.

pub mod handoff;

use std::sync::Arc;

use crate::publish::outbox::Mailbox;
use crate::snapshot::{Publication, seq_of};
use crate::stage::batch::SealedBatch;
use crate::store::{Committed, Store, StoreError};
use handoff::Committer;

/// Commits sealed batches to a store, and hands what has committed on to be published.
pub struct StoreCommitter {
    store: Box<dyn Store>,
    mailbox: Option<Arc<Mailbox>>,
}

impl StoreCommitter {
    /// A committer that owns the store's writing half. Committed snapshots go into the mailbox, if there is one.
    pub(crate) fn new(store: Box<dyn Store>, mailbox: Option<Arc<Mailbox>>) -> Self {
        Self { store, mailbox }
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
        })
    })
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
        self.renumber();
        let committed = self.store.commit(&batch).map_err(|error| BatchError { span: batch.span(), error })?;
        if let Some(mailbox) = &self.mailbox
            && !committed.snapshots.is_empty()
        {
            mailbox.put(publications(&batch, &committed));
        }
        Ok(committed)
    }
}
