//! Stands for the Postgres store in a build without the cargo feature `postgres`: there is no address, so there is nothing
//! to open.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Beside, BesideStatus, Outbox, SnapshotReader, Store, StoreError, StorePlan, StoreUrlError};
use crate::model::built::NotBuilt;
use crate::model::finding::Finding;
use crate::model::schema::{Entity, SchemaError};

/// A database server, and how to reach it. This build has no Postgres, so there is no value of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresAddress(Infallible);

impl PostgresAddress {
    pub(in crate::store) fn parse(_: &str, _: &Path) -> Result<Self, StoreUrlError> {
        Err(NotBuilt::new("Postgres", "postgres").into())
    }
}

impl fmt::Display for PostgresAddress {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

pub(super) fn check_names(_: &str, _: &[Entity]) -> Result<(), SchemaError> {
    Ok(())
}

pub(super) fn open(address: &PostgresAddress, _: StorePlan) -> Result<Box<dyn Store>, StoreError> {
    match address.0 {}
}

pub(super) fn examine(address: &PostgresAddress, _: Option<&str>) -> Vec<Finding> {
    match address.0 {}
}

pub(super) fn open_outbox(address: &PostgresAddress, _: &str) -> Result<Box<dyn Outbox>, StoreError> {
    match address.0 {}
}

pub(super) fn open_snapshots(
    address: &PostgresAddress,
    _: &Arc<AtomicBool>,
) -> Result<Box<dyn SnapshotReader>, StoreError> {
    match address.0 {}
}

pub(super) fn open_beside(
    address: &PostgresAddress,
    _: StorePlan,
    _: &str,
) -> Result<Option<Box<dyn Beside>>, StoreError> {
    match address.0 {}
}

pub(super) fn remove_beside(
    address: &PostgresAddress,
    _: &str,
    _: &Arc<AtomicBool>,
) -> Result<Option<BesideStatus>, StoreError> {
    match address.0 {}
}
