//! Stores: where committed state lives. The only room that holds SQL or a connection to a database.
//!
//! A store is opened by [`open()`] and is used through small traits: [`Store`] (the one writer), [`RowReader`] (rows that a
//! lane misses), [`Outbox`] (what is to be published) and [`SnapshotReader`] (what other commands show). Whoever holds a [`Store`]
//! holds the pipeline's lock.

pub mod batch;
mod beside;
mod contract;
mod error;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod judge;
mod open;
mod outages;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(not(feature = "postgres"))]
#[path = "no_postgres.rs"]
mod postgres;
mod readers;
mod region_query;
mod row_reader;
mod settings;
mod snapshot_policy;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(not(feature = "sqlite"))]
#[path = "no_sqlite.rs"]
mod sqlite;
mod url;

pub use beside::{Beside, open_beside, remove_beside};
pub use contract::*;
pub use error::{RefusedRow, StoreError};
pub(crate) use open::open_snapshots_until;
pub use open::{check_names, examine, open, open_outbox, open_snapshots};
pub use outages::{StoreOutage, StoreOutages};
pub use postgres::PostgresAddress;
pub use readers::Readers;
pub use region_query::{RegionCount, RegionQuery};
pub use row_reader::*;
pub use settings::StoreConfig;
pub(crate) use snapshot_policy::ChangedPolicy;
pub use snapshot_policy::{NewestSnapshot, SnapshotPolicy, SnapshotVerdict, renumbered};
pub use url::{StoreUrl, StoreUrlError};
