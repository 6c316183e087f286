//! What a store is handed to commit, and what it gives back to read: for a store of one's own.
//!
//! A [`SealedBatch`] holds changed rows in *packed form* ([`codec`]): sorted by id within region and table, one row an id. A
//! store may keep the packed bytes as they are and give them back to readers, or decode them in place ([`codec::Decoder`]).
//! [`UndoRecord`] is what the batch leaves in the undo log; a store keeps it as two blobs and need not look inside.
//! A program that only runs a pipeline needs none of this.

pub use crate::batch::{
    Checkpoint, QuarantineStage, Quarantined, RegionChanges, RegionTouch, RowAt, SealedBatch, SnapshotDraft,
};
pub use crate::model::position::Position;
pub use crate::model::source_progress::{FileStamp, SourceDigest, SourceFile, SourceProgress};
pub use crate::undo::{RegionUndo, UndoError, UndoRecord, Undone};

/// The packed form of rows.
pub mod codec {
    pub use crate::rows::codec::{
        Change, CodecError, Decoder, RowHead, ValueRef, Writer, encode_row, encode_stored, encode_values,
    };
}
