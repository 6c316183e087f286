//! Snapshots: the JSON document of a region as of a block, its identity, and when one is due.
//!
//! Touches documents and clocks only; storing them is the store's, in the transaction of their batch.

mod document;
mod schedule;

pub(crate) use document::{ID_HASH_DIGITS, NOTHING, hash_of_canonical, sha256_hex};
pub use document::{Integers, Publication, canonical, hash_of, seq_of, snapshot_id};
pub use schedule::Every;
pub(crate) use schedule::Schedule;
