//! Commits sealed batches to the store, in order, on a thread of its own.
//!
//! Runs no handler, and holds no SQL: that is the store's.

mod committer;
pub mod handoff;

pub use committer::BatchError;
pub(crate) use committer::{CommitListener, Done, Order, RolledBack, StoreCommitter};
