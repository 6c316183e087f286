//! The contract of an index that is made beside the present tables of a pipeline and then takes their place.
//!
//! Holds no SQL. What is made beside is a store like any other; this is what comes before and after it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::contract::{BesideStatus, Store, StorePlan};
use super::error::StoreError;
use super::url::StoreUrl;
use super::{postgres, sqlite};
use crate::model::checkpoint::Checkpoint;

/// An index beside the present tables of a pipeline, which readers go on to use until it takes their place.
///
/// Nobody else has it: [`Beside::open`] and [`Beside::replace`] hold a lock of its own.
pub trait Beside: Send {
    /// Opens the store beside, to write to it. It goes on where it stopped; of other handlers or settings it begins anew.
    /// Whoever has it must have dropped it before [`Beside::replace`]. May block.
    ///
    /// # Errors
    /// The store cannot be opened, another run has it, or what others have made of the present tables could not be carried
    /// over to others; then nothing is left beside that was not there before.
    fn open(&mut self) -> Result<Box<dyn Store>, StoreError>;

    /// How far the present tables have come. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn present(&mut self) -> Result<Checkpoint, StoreError>;

    /// Takes the lock of the present tables, and holds it until this is dropped: nobody writes to them then. Does nothing
    /// if it is held. Blocks for some seconds at most.
    ///
    /// # Errors
    /// [`StoreError::Held`] if another run has it; or the store does not answer.
    fn reserve(&mut self) -> Result<(), StoreError>;

    /// Puts the index, which must stand at `expected`, in the place of the present tables, in one transaction: whoever reads
    /// sees all of the old ones or all of the new ones. Rights, comments, views, indexes and triggers of others are carried
    /// over. Each region's newest snapshot gets a number above the one that it had, and counts as unpublished; the
    /// signature stays. Nothing is left beside. Needs [`Beside::reserve`]. Blocks while others read in a transaction, for some
    /// minutes at most.
    ///
    /// # Errors
    /// The present tables are as they were, and the index stands beside.
    fn replace(&mut self, expected: &Checkpoint) -> Result<(), StoreError>;
}

/// Prepares an index beside the present tables of a pipeline; none if it has none yet. `stamp` says what it is made by: one
/// that was begun under another stamp is given up. May block.
///
/// # Errors
/// The store cannot be opened, or another run has the index beside.
pub fn open_beside(url: &StoreUrl, plan: StorePlan, stamp: &str) -> Result<Option<Box<dyn Beside>>, StoreError> {
    match url {
        StoreUrl::Sqlite(path) => {
            plan.config.readers.check_store(url).map_err(StoreError::other)?;
            sqlite::open_beside(path, plan, stamp)
        }
        StoreUrl::Postgres(address) => postgres::open_beside(address, plan, stamp),
    }
}

/// Removes an index that stands beside the present tables; says how far it had come, or none if there was none. May block.
///
/// # Errors
/// The store cannot be opened, or a run has it.
pub fn remove_beside(
    url: &StoreUrl,
    pipeline: &str,
    stop: &Arc<AtomicBool>,
) -> Result<Option<BesideStatus>, StoreError> {
    match url {
        StoreUrl::Sqlite(path) => sqlite::remove_beside(path, pipeline),
        StoreUrl::Postgres(address) => postgres::remove_beside(address, pipeline, stop),
    }
}
