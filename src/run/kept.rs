//! The events of the open batch, kept until it is sealed: what a run needs to commit the whole blocks before an event
//! that ends it.
//!
//! Handlers of several regions run at once, so when one fails others may have gone further. The state as of the last
//! block before the bad event is made again: the engines' rows are dropped, and the events of the batch before that block
//! are handled once more.

use std::sync::Arc;

use crate::model::event::Page;

/// A run of events of a page.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) page: Arc<Page>,
    /// The first event, and the one behind the last.
    pub(super) from: usize,
    pub(super) to: usize,
}

/// The events of the open batch, as long as they take no more than their share of the memory.
#[derive(Debug)]
pub(super) struct KeptEvents {
    pieces: Vec<Piece>,
    bytes: usize,
    bytes_max: usize,
}

impl KeptEvents {
    /// Nothing yet; a sixteenth of the memory budget is the most.
    pub(super) fn new(memory_bytes: u64) -> Self {
        let bytes_max = usize::try_from(memory_bytes / 16).unwrap_or(usize::MAX);
        Self { pieces: Vec::new(), bytes: 0, bytes_max }
    }

    /// Keeps the events of a round. Once there are too many, only the rest of the block that was begun may follow: an
    /// event that fails in it ends the run before that block, so the rest is not needed.
    pub(super) fn note(&mut self, pieces: Vec<Piece>) {
        if self.is_full() {
            return;
        }
        for piece in pieces {
            match self.pieces.last_mut() {
                Some(last) if Arc::ptr_eq(&last.page, &piece.page) && last.to == piece.from => last.to = piece.to,
                _ => {
                    self.bytes += piece.page.memory_bytes();
                    self.pieces.push(piece);
                }
            }
        }
    }

    /// Whether the batch has to end with its last block.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A sixteenth of this memory budget is the most from now on.
    pub(super) fn set_memory(&mut self, memory_bytes: u64) {
        self.bytes_max = Self::new(memory_bytes).bytes_max;
    }

    /// Bytes that they may take.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Takes them out: the batch is sealed or handled again.
    pub(super) fn take(&mut self) -> Vec<Piece> {
        self.bytes = 0;
        std::mem::take(&mut self.pieces)
    }
}
