//! Why a run ended early.

use std::time::Duration;

use crate::commit::BatchError;
use crate::commit::handoff::CommitFailure;
use crate::config::ConfigError;
use crate::lane::{LaneError, Place};
use crate::model::cause::Reason;
use crate::model::ids::BlockNo;
use crate::model::quarantine::PUT_ASIDE_HINT;
use crate::model::schema::SchemaError;
use crate::model::setting::SettingError;
use crate::publish::PublishError;
use crate::source::SourceError;
use crate::store::{StoreError, StoreUrlError};
use crate::undo::UndoError;

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
    /// A setter that refuses its value.
    #[error(transparent)]
    Setting(#[from] SettingError),
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
    #[error("{error}{}{}", hint_of_lane(.error), discarded_text(*.batch, *.discarded))]
    Lane {
        /// What happened.
        #[source]
        error: LaneError,
        /// The batch that was open.
        batch: u64,
        /// Its first and last block so far; none if it had no event.
        discarded: Option<(i64, i64)>,
    },
    /// More events cannot be handled than may be put aside.
    #[error(transparent)]
    QuarantineFull(Box<QuarantineFull>),
    /// The place to which snapshots are published cannot be used as it is given.
    #[error("snapshots: {0}")]
    Publish(#[source] PublishError),
    /// A commit.
    #[error("{0}")]
    Commit(#[source] CommitFailure<BatchError>),
    /// A fresh index could not take the place of the present tables.
    #[error(
        "the fresh index stands beside{}, and is not in place: {cause}\n  `run --fresh` goes on with it, `run --fresh --abort` \
         gives it up", .block.map_or_else(String::new, |block| format!(" at block {block}"))
    )]
    NotInPlace {
        /// The last block that it has committed; none if it has committed none.
        block: Option<i64>,
        /// Why, and what to do.
        #[source]
        cause: Box<Reason>,
    },
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

/// The event that is one more than may be put aside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error(
    "{place}: {error}\n  this event is one more than [errors] max = {max} allows in quarantine. `forebay quarantine \
     PIPELINE.toml` shows those that are there; a larger max takes more of them{}", discarded_text(*.batch, *.discarded)
)]
pub struct QuarantineFull {
    /// Where the event stands: `file:line (block …)`.
    pub place: String,
    /// What was wrong with it.
    pub error: String,
    /// How many may be put aside.
    pub max: u64,
    /// The batch that was open.
    pub batch: u64,
    /// Its first and last block so far; none if it had no event.
    pub discarded: Option<(i64, i64)>,
    /// The event's block.
    pub block: i64,
}

fn discarded_text(batch: u64, discarded: Option<(i64, i64)>) -> String {
    let blocks = match discarded {
        None => return String::new(),
        Some((first, last)) if first == last => format!("block {first}"),
        Some((first, last)) => format!("blocks {first} to {last}"),
    };
    format!("\n  batch {batch} ({blocks}) was discarded; what was committed before it stays")
}

/// What else can be done about an event whose handler failed.
fn hint_of_lane(error: &LaneError) -> String {
    match error {
        LaneError::Handler { place: Place::Event(_), .. } | LaneError::Event(..) => format!("\n  {PUT_ASIDE_HINT}"),
        _ => String::new(),
    }
}

impl From<SourceError> for PipelineError {
    /// An error before any batch was open.
    fn from(error: SourceError) -> Self {
        Self::Source { error, batch: 0, discarded: None }
    }
}

/// What an error is about, for a program that has to decide what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The pipeline itself: its file, its tables, an address, a setting that is missing, how far its undo log reaches.
    Config,
    /// The source cannot be found, or an event is not as it should be.
    Input,
    /// A handler failed, took too long or took too much memory.
    Handler,
    /// The store does not answer, refuses something, or is held by another run.
    Store,
    /// The place to publish to cannot be used as it is given.
    Publish,
    /// It was stopped before it had begun, or while a store was waited for; or what was in flight did not commit in time.
    Stopped,
    /// A fault of forebay.
    Bug,
    /// The system: a file cannot be read to its end, there is no thread.
    System,
}

impl PipelineError {
    /// What it is about.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) | Self::Schema(_) | Self::StoreUrl(_) | Self::Setting(_) | Self::Incomplete(_) => {
                ErrorKind::Config
            }
            Self::NeverRan(_) | Self::QuarantineFull(_) => ErrorKind::Input,
            Self::Source { error: SourceError::Read { .. }, .. } | Self::Thread(_) => ErrorKind::System,
            Self::Source { .. } => ErrorKind::Input,
            Self::Store(error) => kind_of_store(error),
            Self::Lane { error, .. } => kind_of_lane(error),
            Self::Publish(PublishError::Threads(_)) => ErrorKind::System,
            Self::Publish(_) => ErrorKind::Publish,
            Self::Commit(CommitFailure::Failed(failed)) => kind_of_store(&failed.error),
            Self::Commit(CommitFailure::TimedOut(_)) => ErrorKind::Store,
            Self::NotInPlace { .. } => ErrorKind::Store,
            Self::Commit(_) | Self::ReaderGone => ErrorKind::Bug,
            Self::DrainTimeout(_) => ErrorKind::Stopped,
        }
    }

    /// Whether it was stopped before it had begun: while the store was waited for.
    pub fn is_stopped_at_start(&self) -> bool {
        matches!(self, Self::Store(StoreError::Stopped { .. }))
    }

    /// The block of the event that ended the run, if an event did that: what comes before it is whole and can be committed.
    pub(super) fn failed_block(&self) -> Option<BlockNo> {
        match self {
            Self::Lane { error: LaneError::Handler { place: Place::Event(place), .. }, .. }
            | Self::Lane { error: LaneError::Event(place, _), .. } => Some(place.block.into()),
            Self::QuarantineFull(full) => Some(full.block.into()),
            _ => None,
        }
    }

    /// The blocks before that one are committed after all.
    pub(super) fn committed_before(mut self, block: BlockNo) -> Self {
        let discarded = match &mut self {
            Self::Source { discarded, .. } | Self::Lane { discarded, .. } => discarded,
            Self::QuarantineFull(full) => &mut full.discarded,
            _ => return self,
        };
        *discarded = discarded.filter(|(_, last)| *last >= block.get()).map(|(_, last)| (block.get(), last));
        self
    }

    /// Whether usage, configuration or input is at fault, and not the machine, the store or a handler. The program
    /// `forebay` then exits with 2, else with 1. A script that cannot be loaded counts; a source that breaks off does
    /// not.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Config(_)
            | Self::Schema(_)
            | Self::StoreUrl(_)
            | Self::Setting(_)
            | Self::Incomplete(_)
            | Self::QuarantineFull(_) => true,
            Self::Publish(error) => !matches!(error, PublishError::Threads(_)),
            Self::Source { error, .. } => error.is_input(),
            Self::Store(error) => {
                matches!(
                    error,
                    StoreError::SchemaChanged { .. }
                        | StoreError::Beside { .. }
                        | StoreError::Readers { .. }
                        | StoreError::Undo(UndoError::Beyond { .. })
                )
            }
            Self::Commit(CommitFailure::Failed(failed)) => {
                matches!(failed.error, StoreError::Undo(UndoError::Beyond { .. }))
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

fn kind_of_store(error: &StoreError) -> ErrorKind {
    match error {
        StoreError::SchemaChanged { .. }
        | StoreError::Beside { .. }
        | StoreError::Readers { .. }
        | StoreError::NotBuilt(_)
        | StoreError::Undo(UndoError::Beyond { .. }) => ErrorKind::Config,
        StoreError::Codec(_) => ErrorKind::Bug,
        StoreError::Stopped { .. } => ErrorKind::Stopped,
        _ => ErrorKind::Store,
    }
}

fn kind_of_lane(error: &LaneError) -> ErrorKind {
    match error {
        LaneError::Handler { .. }
        | LaneError::Timeout { .. }
        | LaneError::Memory { .. }
        | LaneError::FoundTooMuch { .. } => ErrorKind::Handler,
        LaneError::Unusable(_) => ErrorKind::Config,
        LaneError::Event(..) => ErrorKind::Input,
        LaneError::Store(error) => kind_of_store(error),
        LaneError::Codec(_) | LaneError::Bug(_) => ErrorKind::Bug,
    }
}

/// An error of the handlers before any batch was open.
pub(super) fn unopened(error: LaneError) -> PipelineError {
    PipelineError::Lane { error, batch: 0, discarded: None }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::sync::Arc;

    use super::*;
    use crate::model::cause::Reason;

    #[test]
    fn the_driver_s_error_is_found_behind_a_commit_that_failed() {
        let driver = std::io::Error::other("the disk is on fire");
        let error = StoreError::Sql {
            store: "s".into(),
            doing: "writing rows",
            cause: Reason::new(format!("{driver}; run again"), driver),
        };
        let failed = CommitFailure::Failed(Arc::new(BatchError { span: "batch 1".into(), error }));
        let error = PipelineError::Commit(failed);
        assert_eq!(error.to_string(), "batch 1 was not committed: s: writing rows: the disk is on fire; run again");
        assert_eq!(error.kind(), ErrorKind::Store);
        let mut source = error.source();
        while let Some(inner) = source.filter(|inner| !inner.is::<std::io::Error>()) {
            source = inner.source();
        }
        assert!(source.is_some_and(|found| found.to_string() == "the disk is on fire"));
    }
}
