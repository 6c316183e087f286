//! Batches: what one commit writes.
//!
//! [`open`] is the batch that handlers fill, as counts; [`round`] what it needs to know about a round; [`block_log`]
//! its blocks for the undo log; [`sealed`] what a commit gets, frozen. Knows rows and the undo log as data. Runs no
//! handler, opens no store.

pub(crate) mod block_log;
pub(crate) mod open;
pub(crate) mod round;
mod sealed;

pub use sealed::{RegionTouch, SealedBatch, SnapshotDraft};

pub use crate::model::checkpoint::Checkpoint;
pub use crate::model::quarantine::{QuarantineStage, Quarantined};
pub use crate::rows::changes::{RegionChanges, RowAt};
