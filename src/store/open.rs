//! Which store an address names, and opening it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::contract::{Outbox, SnapshotReader, Store, StorePlan};
use super::error::StoreError;
use super::url::StoreUrl;
use super::{postgres, sqlite};
use crate::model::finding::Finding;
use crate::model::schema::{Schema, SchemaError};

/// Opens a store to write to it: makes what is missing, takes the pipeline's lock, compares the tables. May block.
///
/// # Errors
/// The store cannot be opened, is held by another run, or holds other tables.
pub fn open(url: &StoreUrl, plan: StorePlan) -> Result<Box<dyn Store>, StoreError> {
    match url {
        StoreUrl::Sqlite(path) => {
            plan.config.readers.check_store(url).map_err(StoreError::other)?;
            sqlite::open(path, plan)
        }
        StoreUrl::Postgres(address) => postgres::open(address, plan),
    }
}

/// Refuses names that a store keeps for itself. Opens nothing.
///
/// # Errors
/// The name, and why.
pub fn check_names(url: &StoreUrl, pipeline: &str, schema: &Schema) -> Result<(), SchemaError> {
    match url {
        StoreUrl::Sqlite(_) => Ok(()),
        StoreUrl::Postgres(_) => postgres::check_names(pipeline, schema.entities()),
    }
}

/// Looks at a store as a doctor does: how far it is, what a commit takes, what it is set to, what we may do there, and of a
/// pipeline in which format its tables are and who writes to it. Changes nothing that stays, and takes no lock. What is
/// wrong is a finding, never an error: a store that cannot be reached is one, and then there are no others. May block, for
/// some seconds where a server does not answer.
pub fn examine(url: &StoreUrl, pipeline: Option<&str>) -> Vec<Finding> {
    match url {
        StoreUrl::Sqlite(path) => sqlite::examine(path, pipeline),
        StoreUrl::Postgres(address) => postgres::examine(address, pipeline),
    }
}

/// The snapshots of a pipeline in a store, to be published without a run. Does not block: it connects when it is asked.
///
/// # Errors
/// This build has no such store.
pub fn open_outbox(url: &StoreUrl, pipeline: &str) -> Result<Box<dyn Outbox>, StoreError> {
    match url {
        StoreUrl::Sqlite(path) => sqlite::open_outbox(path, pipeline),
        StoreUrl::Postgres(address) => postgres::open_outbox(address, pipeline),
    }
}

/// Opens a store to read snapshots from it. Makes nothing. May block.
///
/// # Errors
/// The store is not there or cannot be opened.
pub fn open_snapshots(url: &StoreUrl) -> Result<Box<dyn SnapshotReader>, StoreError> {
    open_snapshots_until(url, &Arc::default())
}

/// The same, given up soon after `stop` is set.
pub(crate) fn open_snapshots_until(
    url: &StoreUrl,
    stop: &Arc<AtomicBool>,
) -> Result<Box<dyn SnapshotReader>, StoreError> {
    match url {
        StoreUrl::Sqlite(path) => sqlite::open_snapshots(path),
        StoreUrl::Postgres(address) => postgres::open_snapshots(address, stop),
    }
}
