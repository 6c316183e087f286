//! Sources: where events come from, in order.
//!
//! A source yields one event at a time and knows no lane and no store. The reader thread checks the order, leaves out
//! what is committed already, and hands pages of events over a bounded channel, within a budget of bytes.

mod chain;
mod files;
mod head;
mod ndjson;
mod order;
pub(crate) mod reader;

use std::sync::Arc;

pub use files::SourcePath;
pub use ndjson::{Fields, NdjsonSource};
pub use order::Late;

/// One event as a source gives it. Its buffers are used again for the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceEvent {
    /// The block it belongs to: never less than that of the event before.
    pub block: i64,
    /// The place within the block, where the source knows one; then (block, seq) grows.
    pub seq: Option<i64>,
    /// The region.
    pub region: String,
    /// The event: one JSON object.
    pub json: String,
    /// What it was read from, for messages.
    pub origin: Arc<str>,
    /// The line there, from 1, for messages.
    pub line: u64,
    /// The hash of its block, where blocks have one: forks are found by it.
    pub hash: Option<String>,
    /// The hash of the block before its block, where that is known.
    pub parent: Option<String>,
}

impl Default for SourceEvent {
    fn default() -> Self {
        Self {
            block: 0,
            seq: None,
            region: String::new(),
            json: String::new(),
            origin: Arc::from("source"),
            line: 0,
            hash: None,
            parent: None,
        }
    }
}

/// What a source has next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// An event.
    Event,
    /// What came of blocks behind this one does not count any more: the state is to be as of it again, and what comes next
    /// lies behind it.
    Rollback {
        /// The block. It need not be one of the data.
        to: i64,
    },
    /// Nothing any more.
    End,
}

/// Yields events in the order of their blocks.
pub trait Source: Send {
    /// Says what is next, and puts it into `event` if it is an event. May block.
    ///
    /// # Errors
    /// The input cannot be read or understood. It ends the run.
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError>;

    /// Whether the next event is there without waiting. What was read so far is handed on before a wait.
    /// Defaults to true.
    fn is_ready(&self) -> bool {
        true
    }

    /// Bytes read so far, as they lie on disk. Defaults to 0.
    fn bytes_read(&self) -> u64 {
        0
    }

    /// Bytes there are in all, if that is known. Defaults to none.
    fn bytes_total(&self) -> Option<u64> {
        None
    }
}

/// Why a source gives no more events.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// There is nothing to read at that path.
    #[error("source {path}: {cause}")]
    Open {
        /// The path.
        path: String,
        /// Why not.
        cause: String,
    },
    /// Reading failed.
    #[error("{origin}: reading failed: {cause}")]
    Read {
        /// The file.
        origin: Arc<str>,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// An event that is not as it should be.
    #[error("{origin}:{line}: {message}")]
    Input {
        /// The file.
        origin: Arc<str>,
        /// The line, from 1.
        line: u64,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// A fork that left the blocks that are held before the oldest one that can be rolled back to.
    #[error("{origin}:{line}: {message}")]
    Fork {
        /// The file.
        origin: Arc<str>,
        /// The line of the first event of the other branch, from 1.
        line: u64,
        /// Both hashes, and what to do.
        message: String,
    },
    /// Any other cause, of a source of one's own.
    #[error("{0}")]
    Other(String),
}

impl SourceError {
    /// An error of one event.
    pub fn of_event(event: &SourceEvent, message: impl Into<String>) -> Self {
        Self::Input { origin: Arc::clone(&event.origin), line: event.line, message: message.into() }
    }

    /// Whether the input is at fault, and not the machine.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Input { .. })
    }
}
