//! Stands for the SQLite store in a build without the cargo feature `sqlite`: says so to whoever opens one.

use std::path::Path;

use super::{Beside, BesideStatus, Outbox, SnapshotReader, Store, StoreError, StorePlan};
use crate::model::built::NotBuilt;
use crate::model::finding::Finding;

pub(super) fn open(_: &Path, _: StorePlan) -> Result<Box<dyn Store>, StoreError> {
    Err(NotBuilt::new("SQLite", "sqlite").into())
}

pub(super) fn examine(_: &Path, _: Option<&str>) -> Vec<Finding> {
    let refused = NotBuilt::new("SQLite", "sqlite").to_string();
    vec![Finding::of_error("store_connection", &refused, "use a build that has it")]
}

pub(super) fn open_outbox(_: &Path, _: &str) -> Result<Box<dyn Outbox>, StoreError> {
    Err(NotBuilt::new("SQLite", "sqlite").into())
}

pub(super) fn open_snapshots(_: &Path) -> Result<Box<dyn SnapshotReader>, StoreError> {
    Err(NotBuilt::new("SQLite", "sqlite").into())
}

pub(super) fn open_beside(_: &Path, _: StorePlan, _: &str) -> Result<Option<Box<dyn Beside>>, StoreError> {
    Err(NotBuilt::new("SQLite", "sqlite").into())
}

pub(super) fn remove_beside(_: &Path, _: &str) -> Result<Option<BesideStatus>, StoreError> {
    Err(NotBuilt::new("SQLite", "sqlite").into())
}
