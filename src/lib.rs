//! forebay turns an ordered stream of events into per-region state in a SQL store and per-region snapshots, and hides
//! the latency of both: handlers of the next batch run while the last one commits, and see what is staged.
//!
//! The whole job from a pipeline file:
//!
//! ```no_run
//! let report = forebay::Pipeline::open("pipeline.toml")?.run()?;
//! println!("{} events up to block {:?}", report.events, report.checkpoint.block);
//! # Ok::<(), forebay::PipelineError>(())
//! ```
//!
//! | to | look at |
//! |---|---|
//! | run a pipeline, with handlers in Lua or in Rust | [`Pipeline`], [`Handler`], [`Report`] |
//! | read events from a place of one's own | [`source`] |
//! | keep rows in a database of one's own | [`store`], and what it is handed: [`store::batch`] |
//! | publish snapshots, also ready ones without a pipeline | [`publish`], [`snapshot`] |
//! | have only the hand-off to a thread that commits | [`handoff`] |
//! | read a pipeline file | [`config`] |
//! | look for what stands in the way of a run | [`store::examine`], [`publish::examine`], [`Pipeline::examine`]: [`Finding`]s |
//! | see where the time of a run went | [`timeline`] |
//! | watch a run while it goes on | [`Meter`], [`serve`], [`status`] |
//! | decide what to do about an error | [`PipelineError::kind`] |
//!
//! Everything blocks; there is no async runtime. Unix only: files are told apart by device and inode, and Redis may be
//! behind a socket.
//!
//! # Cargo features
//!
//! All but `kafka` are on by default. A pipeline file that asks for what is not built in is refused, with the name of the feature.
//!
//! | feature | adds |
//! |---|---|
//! | `cli` | the program `forebay`; nothing to the library |
//! | `lua` | handlers in Lua, which a pipeline file needs |
//! | `sqlite` | the store in a SQLite file |
//! | `postgres` | the store in a Postgres database |
//! | `redis` | publishing to Redis, and its streams as a source |
//! | `serve` | a server beside a run: probes, metrics, status, snapshots |
//! | `jemalloc` | the allocator of the program; nothing to the library |
//! | `kafka` | topics of Kafka as a source; builds librdkafka |
//!
//! # Rust
//!
//! Needs Rust 1.95 (edition 2024), which `rust-version` in `Cargo.toml` says and `tests/features.sh` checks. A later one is
//! asked for only by a new minor version.

#![forbid(unsafe_code)]

mod batch;
mod commit;
pub mod config;
mod lane;
mod model;
mod program;
pub mod publish;
mod redis;
mod rows;
mod run;
#[cfg(feature = "serve")]
pub mod serve;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod store;
pub mod timeline;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod tls;
mod undo;

pub use commit::{BatchError, handoff};
pub use config::{Config, ConfigError};
pub use lane::rust::fields;
pub use lane::rust::handler::{ColumnValue, Context, EntityRow, EntityTable, Find, Handler, HandlerError};
pub use lane::{LaneError, Place};
pub use model::built::NotBuilt;
pub use model::cause::{Cause, Reason};
pub use model::checkpoint::Checkpoint;
pub use model::durations::{BUCKET_MILLIS, Durations};
pub use model::event::EventPlace;
pub use model::finding::{Finding, FindingState};
pub use model::ids::{BatchNo, BlockNo, Depth, EntityNo};
pub use model::json_text::ExactJson;
pub use model::numeric::{Numeric, NumericError};
pub use model::query;
pub use model::schema::{Column, Entity, Schema, SchemaError};
pub use model::setting::SettingError;
pub use model::timestamp::{Timestamp, TimestampError};
pub use model::value::{ColumnType, Row, Value};
// The program takes some of the bounds for its messages, and how texts are shown; none of them is a promise.
#[doc(hidden)]
pub use model::{address, limits, text};
pub use run::{
    Checked, ErrorKind, Examined, FreshIndex, Memory, Meter, Pipeline, PipelineError, Progress, ProgressHook,
    PulseReading, QuarantineFull, Reading, ReloadHandle, Report, Rollback, RollbackCauses, RollbackHook, RowChanges,
    RunPhase, SnapshotCounts, StopHandle, Times, Waits, Watched,
};
