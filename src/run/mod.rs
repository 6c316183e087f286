//! Runs a pipeline: wires the rooms and starts the threads.
//!
//! | thread | does |
//! |---|---|
//! | the caller's | takes pages, runs rounds, seals, hands over: the coordinator |
//! | `forebay-read` | reads the source |
//! | `forebay-lane-N` | run handlers |
//! | `forebay-scan` | reads the ids of tables that had rows, where handlers meet rows that are not known |
//! | `forebay-commit` | commits |
//! | `forebay-acknowledge` | tells the source what of it is committed, if it wants to know |
//! | `forebay-publish`, `forebay-publish-N` | publish what has committed, if there is a target |
//!
//! | file | holds |
//! |---|---|
//! | `pipeline`, `error` | the public [`Pipeline`] and why a run ended early |
//! | `pipeline/start`, `pipeline/publish` | wiring a run; publishing as part of it |
//! | `pipeline/check`, `pipeline/examine` | trying a pipeline without writing; the same within a time limit, for `doctor` |
//! | `pipeline/fresh` | indexing anew beside the present tables |
//! | `pipeline/watched` | what of it is shown while it runs |
//! | `coordinator` | the loop |
//! | `event_queue` | pages that have come, and cutting them into rounds |
//! | `engines`, `sealing` | the engine pool; collecting what a batch changed |
//! | `kept` | the events of the open batch, to be handled again if one of them ends the run |
//! | `in_flight` | what was handed over to be committed |
//! | `acknowledge` | telling the source what of it is committed |
//! | `memory`, `seal_policy`, `snapshot_duty` | pure decisions: what to evict, when a batch ends, which snapshots it carries |
//! | `pulse`, `event_time` | whether the loop turns and comes further; the time of the last event |
//! | `reload` | settings that are taken over while a run goes on |
//! | `meter`, `shared`, `hooks`, `report` | the live numbers, what threads share, who is told, what is left at the end |

mod acknowledge;
mod coordinator;
mod engines;
mod error;
mod event_queue;
mod event_time;
mod hooks;
mod in_flight;
mod kept;
mod memory;
mod meter;
mod pipeline;
mod pulse;
mod reload;
mod report;
mod seal_policy;
mod sealing;
mod shared;
mod snapshot_duty;

pub use error::{ErrorKind, PipelineError, QuarantineFull};
pub use hooks::{ProgressHook, RollbackHook};
pub use meter::{Memory, Meter, Reading, RollbackCauses, RowChanges, RunPhase};
pub use pipeline::{Checked, Examined, Pipeline, StopHandle, Watched};
pub use pulse::PulseReading;
pub use reload::ReloadHandle;
#[cfg(feature = "serve")]
pub(crate) use report::memory_peak_bytes;
pub use report::{FreshIndex, Progress, Report, Rollback, SnapshotCounts, Times, Waits};
