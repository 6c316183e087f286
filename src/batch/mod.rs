//! Batches: what one commit writes.
//!
//! Knows rows and the undo log as data. Runs no handler, opens no store.

mod sealed;

pub use crate::model::checkpoint::Checkpoint;
pub use crate::rows::changes::{RegionChanges, RowAt};
pub use sealed::{RegionTouch, SealedBatch, SnapshotDraft};
