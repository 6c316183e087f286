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

mod commit;
pub mod config;
mod event;
mod lane;
pub mod limits;
mod numeric;
mod pipeline;
pub mod publish;
pub mod query;
mod schema;
pub mod snapshot;
pub mod source;
pub mod stage;
pub mod store;
pub mod timeline;
mod timestamp;
mod value;
mod wait;

pub use commit::{BatchError, handoff};
pub use config::{Config, ConfigError};
pub use event::EventPlace;
pub use lane::handler::{ColumnValue, Context, EntityRow, EntityTable, Find, Handler, HandlerError};
pub use lane::{LaneError, Place};
pub use numeric::{Numeric, NumericError};
pub use pipeline::{
    Checked, Pipeline, PipelineError, Progress, ProgressHook, Report, Rollback, RollbackHook, SnapshotCounts,
    StopHandle, Times, Waits,
};
pub use schema::{Column, Entity, Schema, SchemaError};
pub use timestamp::{Timestamp, TimestampError};
pub use value::{ColumnType, Row, Value};
