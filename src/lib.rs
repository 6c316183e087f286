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
//! With handlers in Rust: [`Pipeline::new`] and [`Handler`]. Only the hand-off to a commit thread, with a store of
//! one's own: [`handoff`]. Everything blocks; there is no async runtime.

#![forbid(unsafe_code)]

pub mod batch;
mod commit;
pub mod config;
mod lane;
mod model;
pub mod publish;
pub mod rows;
mod run;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod timeline;
pub mod undo;

pub use commit::{BatchError, handoff};
pub use config::{Config, ConfigError};
pub use lane::rust::handler::{ColumnValue, Context, EntityRow, EntityTable, Find, Handler, HandlerError};
pub use lane::{LaneError, Place};
pub use model::built::NotBuilt;
pub use model::cause::{Cause, Reason};
pub use model::event::EventPlace;
pub use model::ids::{BatchNo, BlockNo, Depth};
pub use model::numeric::{Numeric, NumericError};
pub use model::schema::{Column, Entity, Schema, SchemaError};
pub use model::setting::SettingError;
pub use model::timestamp::{Timestamp, TimestampError};
pub use model::value::{ColumnType, Row, Value};
pub use model::{limits, query};
pub use run::{
    Checked, ErrorKind, Pipeline, PipelineError, Progress, ProgressHook, Report, Rollback, RollbackHook,
    SnapshotCounts, StopHandle, Times, Waits,
};
