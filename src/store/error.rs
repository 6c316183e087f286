//! Why a store could not do what it was asked.

use crate::model::built::NotBuilt;
use crate::model::cause::{Cause, Reason};
use crate::rows::codec::CodecError;
use crate::undo::UndoError;

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another run writes to this pipeline.
    #[error("pipeline {pipeline:?} is being written by {holder}; wait until it ends, or stop it")]
    Held {
        /// The pipeline.
        pipeline: String,
        /// Who holds the lock: name, process id, host, since when.
        holder: String,
    },
    /// The tables in the store are not those of the pipeline file.
    #[error(
        "{store} holds other tables than the pipeline file says: {differences}. A new column or a new entity is added by \
         itself; for anything else restore the pipeline file, or index anew beside the present tables: `forebay run --fresh`"
    )]
    SchemaChanged {
        /// Which store.
        store: String,
        /// What differs.
        differences: String,
    },
    /// The roles of `[store] readers` do not get the right to read the tables.
    #[error("{store}: [store] readers: {cause}")]
    Readers {
        /// Which store.
        store: String,
        /// Why, and what to do.
        #[source]
        cause: Box<Reason>,
    },
    /// The checkpoint is not the one that the batch follows on: someone else has written.
    #[error(
        "the checkpoint in {store} is not the one this run continues (expected batch {expected}): another program wrote to it"
    )]
    CheckpointMoved {
        /// Which store.
        store: String,
        /// The batch that was expected to be the last.
        expected: u64,
    },
    /// Nothing can be indexed beside the present tables, or put in their place.
    #[error("{store}: an index beside the present tables cannot take their place: {cause}")]
    Beside {
        /// Which store.
        store: String,
        /// Why, and what to do.
        #[source]
        cause: Box<Reason>,
    },
    /// The store cannot be opened.
    #[error("cannot open {store}: {cause}")]
    Open {
        /// Which store.
        store: String,
        /// Why, and what to do.
        #[source]
        cause: Box<Reason>,
    },
    /// There is no such store, and it was only to be read.
    #[error("there is no {store}; it is made by the first `forebay run`")]
    Missing {
        /// Which store.
        store: String,
    },
    /// The database refused a statement.
    #[error("{store}: {doing}: {cause}")]
    Sql {
        /// Which store.
        store: String,
        /// What it was to do.
        doing: &'static str,
        /// What it said, and what to do.
        #[source]
        cause: Box<Reason>,
    },
    /// The database does not take one row of a batch.
    #[error("{0}")]
    Row(Box<RefusedRow>),
    /// The database went away and did not come back in time.
    #[error("{store} did not come back within {seconds} s ({doing}): {cause}")]
    Outage {
        /// Which store.
        store: String,
        /// What was to be done.
        doing: &'static str,
        /// How long it was waited for.
        seconds: u64,
        /// What went wrong last.
        #[source]
        cause: Box<Reason>,
    },
    /// The run was asked to stop while the database was waited for.
    #[error("stopped while waiting for {store} ({doing}): {cause}")]
    Stopped {
        /// Which store.
        store: String,
        /// What was to be done.
        doing: &'static str,
        /// Why it was waited for.
        #[source]
        cause: Box<Reason>,
    },
    /// It cannot be rolled back as it was asked.
    #[error(transparent)]
    Undo(#[from] UndoError),
    /// A fault of this program.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// This build has no such store.
    #[error(transparent)]
    NotBuilt(#[from] NotBuilt),
    /// Any other cause, of a store of one's own.
    #[error(transparent)]
    Other(Cause),
}

impl StoreError {
    /// Any other cause, of a store of one's own: an error, or a text.
    pub fn other(cause: impl Into<Cause>) -> Self {
        Self::Other(cause.into())
    }
}

/// A row that the database does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{store} refused the row {id:?} of {entity} in region {region:?}: {cause}{}", written_text(.event.as_deref()))]
#[non_exhaustive]
pub struct RefusedRow {
    /// Which store.
    pub store: String,
    /// The table.
    pub entity: String,
    /// The row's region.
    pub region: String,
    /// The row's id.
    pub id: String,
    /// The event that wrote it, as `file:line`; none if it is not known.
    pub event: Option<String>,
    /// What the database said.
    pub cause: String,
}

fn written_text(event: Option<&str>) -> String {
    event.map_or_else(String::new, |event| format!("\n  the event at {event} wrote it"))
}
