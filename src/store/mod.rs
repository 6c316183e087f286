//! Stores: where committed state lives. The only room that holds SQL or a connection to a database.
//!
//! A store is opened by [`open()`] and is used through the small traits of [`contract`]: [`Store`] (the one writer),
//! [`RowReader`] (rows that a lane misses) and [`SnapshotReader`] (what other commands show). Whoever holds a [`Store`]
//! holds the pipeline's lock.

pub mod contract;
mod open;
mod postgres;
mod snapshot_policy;
mod sql;
mod sqlite;
mod url;

pub use contract::*;
pub use open::{check_names, open, open_outbox, open_snapshots};
pub use postgres::PostgresAddress;
pub use snapshot_policy::{NewestSnapshot, SnapshotPolicy, SnapshotVerdict, renumbered};
pub use url::{StoreUrl, StoreUrlError};
