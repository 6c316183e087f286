//! Why a run ended early.

use std::time::Duration;

use crate::commit::BatchError;
use crate::commit::handoff::CommitFailure;
use crate::config::ConfigError;
use crate::lane::{LaneError, Place};
use crate::model::schema::SchemaError;
use crate::publish::PublishError;
use crate::source::SourceError;
use crate::store::{StoreError, StoreUrlError};
use crate::undo::HistoryError;

/// Why a run did not get to its end. What is committed is a prefix of whole batches; the next run goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The pipeline file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tables.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The address of the store.
    #[error(transparent)]
    StoreUrl(#[from] StoreUrlError),
    /// Something needed was not given.
    #[error("{0}")]
    Incomplete(String),
    /// The source.
    #[error("{error}{}", discarded_text(*.batch, *.discarded))]
    Source {
        /// What happened.
        #[source]
        error: SourceError,
        /// The batch that was open.
        batch: u64,
        /// Its first and last block so far; none if it had no event.
        discarded: Option<(i64, i64)>,
    },
    /// The store, before the first batch.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The handlers.
    #[error("{error}{}", discarded_text(*.batch, *.discarded))]
    Lane {
        /// What happened.
        #[source]
        error: LaneError,
        /// The batch that was open.
        batch: u64,
        /// Its first and last block so far; none if it had no event.
        discarded: Option<(i64, i64)>,
    },
    /// The Redis to which snapshots are published cannot be used as it is given.
    #[error("snapshots: {0}")]
    Publish(PublishError),
    /// A commit.
    #[error("{0}")]
    Commit(CommitFailure<BatchError>),
    /// There is nothing to roll back.
    #[error("pipeline {0:?} never ran: there is nothing to roll back")]
    NeverRan(String),
    /// The drain after a stop took too long.
    #[error("what was in flight did not commit within {} s of the stop (--drain-timeout)", .0.as_secs())]
    DrainTimeout(Duration),
    /// The reader thread died.
    #[error("the reader thread ended without a word; this is a bug in forebay, please report it")]
    ReaderGone,
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

fn discarded_text(batch: u64, discarded: Option<(i64, i64)>) -> String {
    let blocks = match discarded {
        None => return String::new(),
        Some((first, last)) if first == last => format!("block {first}"),
        Some((first, last)) => format!("blocks {first} to {last}"),
    };
    format!("\n  batch {batch} ({blocks}) was discarded; what was committed before it stays")
}

impl From<SourceError> for PipelineError {
    /// An error before any batch was open.
    fn from(error: SourceError) -> Self {
        Self::Source { error, batch: 0, discarded: None }
    }
}

impl PipelineError {
    /// Whether usage, configuration or input is at fault, and not the machine, the store or a handler.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Config(_) | Self::Schema(_) | Self::StoreUrl(_) | Self::Incomplete(_) | Self::Publish(_) => true,
            Self::Source { error, .. } => error.is_input(),
            Self::Store(error) => {
                matches!(error, StoreError::SchemaChanged { .. } | StoreError::History(HistoryError::Beyond { .. }))
            }
            Self::Commit(CommitFailure::Failed(failed)) => {
                matches!(failed.error, StoreError::History(HistoryError::Beyond { .. }))
            }
            Self::Lane { error, .. } => match error {
                LaneError::Event(..) | LaneError::Unusable(_) => true,
                LaneError::Handler { place, .. }
                | LaneError::Timeout { place, .. }
                | LaneError::Memory { place, .. } => *place == Place::Loading,
                _ => false,
            },
            _ => false,
        }
    }
}

/// An error of the handlers before any batch was open.
pub(super) fn unopened(error: LaneError) -> PipelineError {
    PipelineError::Lane { error, batch: 0, discarded: None }
}
