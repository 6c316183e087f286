//! Runs: wires the rooms, and starts the threads of a run.
//!
//! | thread | does |
//! |---|---|
//! | the caller's | takes pages, runs rounds, seals, hands over: the coordinator |
//! | `forebay-read` | reads the source |
//! | `forebay-lane-N` | run handlers |
//! | `forebay-commit` | commits |
//! | `forebay-publish`, `forebay-publish-N` | publish what has committed, if there is a Redis |

mod coordinator;
mod engines;
mod error;
mod intake;
mod pipeline;
mod report;
mod trail;

pub use error::{ErrorKind, PipelineError};
pub use pipeline::{Checked, Pipeline, ProgressHook, RollbackHook, StopHandle};
pub use report::{Progress, Report, Rollback, SnapshotCounts, Times, Waits};
