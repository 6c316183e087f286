//! The contract of a source: the trait that one implements, what it gives, and why it may fail.

use std::sync::Arc;

use super::refused::Refused;
use crate::model::position::{Position, PositionError};
use crate::model::source_progress::{FileStamp, SourceDigest, SourceFile};

/// One event as a source gives it. Its buffers are used again for the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceEvent {
    /// The block it belongs to: never less than that of the event before, and more than [`i64::MIN`]: there is a block before
    /// each, to which a rollback can go.
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
    /// The position after this event, if the source has positions: see [`Source::resume`]. Such a source sets one with
    /// each event, with [`SourceEvent::set_position`].
    pub position: Option<Position>,
    /// Why no lane can get it: see [`super::refused`].
    pub(crate) refused: Option<Box<Refused>>,
}

impl SourceEvent {
    /// Sets the position after this event, reusing the buffer of the last one.
    ///
    /// # Errors
    /// The text is no position: see [`Position::new`].
    pub fn set_position(&mut self, text: &str) -> Result<(), PositionError> {
        match &mut self.position {
            Some(position) => position.set(text),
            none => {
                *none = Some(Position::new(text)?);
                Ok(())
            }
        }
    }
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
            position: None,
            refused: None,
        }
    }
}

/// What a source has next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// An event.
    Event,
    /// The blocks after this one no longer count: the state goes back to what it was as of this block, and the next event
    /// lies after it.
    Rollback {
        /// The block. It need not be one of the data.
        to: i64,
    },
    /// This block and all before it are whole: no event of them comes any more. It need not be one of the data.
    Whole {
        /// The block.
        block: i64,
    },
    /// Nothing for now. The source has waited for a moment, and is asked again. What has come so far is committed, as far
    /// as its blocks are whole.
    Pending,
    /// Nothing any more.
    End,
}

/// Where a source continues when it is asked to resume after a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resumed {
    /// After the position: the next event is the one that follows it.
    After,
    /// At its beginning: it cannot resume. The reader skips what is committed.
    FromStart,
}

/// Yields events in the order of their blocks.
///
/// One thread reads a source, from its beginning: events that are committed come again, and the reader skips them by block
/// and hash. A source that can do better gives a [`Position`] with each event. The one after the last committed block is
/// stored with the checkpoint, and the next run asks the source to resume after it.
///
/// # Examples
///
/// A log whose entries have numbers:
///
/// ```
/// use std::fmt::Write;
///
/// use forebay::source::{Next, Position, Resumed, Source, SourceError, SourceEvent};
///
/// /// What a meter has counted, once an hour.
/// struct MeterLog {
///     entries: Vec<u32>,
///     next: usize,
/// }
///
/// impl Source for MeterLog {
///     fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
///         let Some(count) = self.entries.get(self.next) else { return Ok(Next::End) };
///         self.next += 1;
///         event.block = self.next as i64;
///         // The buffers of the last event are used again.
///         event.region.replace_range(.., "cellar");
///         event.json.clear();
///         let _ = write!(event.json, r#"{{"block":{},"count":{count}}}"#, event.block);
///         event.set_position(&self.next.to_string())?;
///         Ok(Next::Event)
///     }
///
///     fn resume(&mut self, after: &Position) -> Result<Resumed, SourceError> {
///         let next = after.as_str().parse().ok().filter(|next| *next <= self.entries.len());
///         self.next = next.ok_or_else(|| SourceError::Other(format!("the log has no entry {after}")))?;
///         Ok(Resumed::After)
///     }
/// }
///
/// let open = || MeterLog { entries: vec![3, 5, 8], next: 0 };
/// let (mut log, mut event) = (open(), SourceEvent::default());
/// log.next(&mut event)?;
/// log.next(&mut event)?;
/// let position = event.position.clone().expect("each entry has one");
///
/// // Later, maybe in another process.
/// let mut log = open();
/// assert_eq!(log.resume(&position)?, Resumed::After);
/// log.next(&mut event)?;
/// assert_eq!((event.block, event.json.as_str()), (3, r#"{"block":3,"count":8}"#));
/// # Ok::<(), SourceError>(())
/// ```
///
/// It is read by [`Pipeline::source`](crate::Pipeline::source).
pub trait Source: Send {
    /// Says what is next, and puts it into `event` if it is an event. May block.
    ///
    /// # Errors
    /// The input cannot be read or understood. It ends the run.
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError>;

    /// Resumes after a position that this source, or another one over the same data, has given with an event. Called at most
    /// once, before the first [`Source::next`]. May block. Defaults to [`Resumed::FromStart`]: it cannot.
    ///
    /// # Errors
    /// It is no position of this source, or the events after it are gone. It ends the run.
    fn resume(&mut self, after: &Position) -> Result<Resumed, SourceError> {
        let _ = after;
        Ok(Resumed::FromStart)
    }

    /// Who is told what of it is committed. Asked once, before the first event. Defaults to nobody.
    ///
    /// # Errors
    /// It cannot be told. It ends the run.
    fn acknowledger(&mut self) -> Result<Option<Box<dyn Acknowledge>>, SourceError> {
        Ok(None)
    }

    /// The files that it reads, in order. Asked before the first event, and of a source that follows its files also whenever
    /// one begins or ends: then others may have come behind those that were there. What is committed of a file that has not
    /// changed is not read again. Defaults to none: it reads no files.
    fn files(&self) -> Vec<FileStamp> {
        Vec::new()
    }

    /// Leaves files out, by their place in [`Source::files`], from now on. Only asked of a source that names files.
    fn leave_out(&mut self, is_left_out: &[bool]) {
        let _ = is_left_out;
    }

    /// The place of the file of the last event in [`Source::files`]. Defaults to none.
    fn file(&self) -> Option<usize> {
        None
    }

    /// Goes on in the file of that place behind what was stored of it, without reading that. False if it cannot, or if
    /// something else stands before that place now. Asked before the first event, of a source that follows its files.
    ///
    /// # Errors
    /// The file cannot be read.
    fn go_on_in(&mut self, at: usize, stored: &SourceFile) -> Result<bool, SourceError> {
        let _ = (at, stored);
        Ok(false)
    }

    /// Where the last event ends in its file, if it could go on there: after so many lines and bytes. Defaults to nowhere.
    fn place(&self) -> Option<(u64, u64)> {
        None
    }

    /// A hash of the last bytes before that place in the file of the last event. Defaults to none.
    ///
    /// # Errors
    /// The file cannot be read.
    fn hash_before(&self, bytes: u64) -> Result<Option<SourceDigest>, SourceError> {
        let _ = bytes;
        Ok(None)
    }

    /// Whether the file of the last event may hold again what was given before: it was written anew. Events of blocks that
    /// were handled are left out then. Defaults to no.
    fn repeats(&self) -> bool {
        false
    }

    /// Starts again from the beginning; false if it cannot, which is the default. Asked where events came late and are to
    /// be handled in their place (`late = "replay"`). May block.
    ///
    /// # Errors
    /// The input cannot be opened again. It ends the run.
    fn rewind(&mut self) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// Whether the next event is there without waiting. What was read so far is handed on before a wait.
    /// Defaults to true.
    fn is_ready(&self) -> bool {
        true
    }

    /// Why the source cannot be reached at present, if it is so and it tries again: shown to whoever watches the run. Asked
    /// now and then. Does not block. Defaults to none.
    fn trouble(&self) -> Option<String> {
        None
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

/// Is told what of a source is committed, such as to take it out of a queue.
pub trait Acknowledge: Send {
    /// All up to this position is committed, for good: a rollback may go behind it, but finds it in no source then that took
    /// it away. Positions between two calls are left out. Called on a thread of its own; may block for a while.
    fn committed(&mut self, position: &Position);
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
    #[error("{}: {message}", place(origin, *line))]
    Input {
        /// The file.
        origin: Arc<str>,
        /// The line, from 1; 0 if it is no single line.
        line: u64,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// What comes next cannot be told apart: an end of the input where there should be none, brackets or quotes that are
    /// broken. What came before is whole.
    #[error("{}: {message}", place(origin, *line))]
    Broken {
        /// The file.
        origin: Arc<str>,
        /// The line, from 1.
        line: u64,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// A fork that left the blocks that are held before the oldest one that can be rolled back to.
    #[error("{}: {message}", place(origin, *line))]
    Fork {
        /// The file.
        origin: Arc<str>,
        /// The line of the first event of the other branch, from 1.
        line: u64,
        /// Both hashes, and what to do.
        message: String,
    },
    /// A position that cannot be stored.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// Any other cause, of a source of one's own.
    #[error("{0}")]
    Other(String),
}

fn place(origin: &str, line: u64) -> String {
    if line == 0 { origin.to_owned() } else { format!("{origin}:{line}") }
}

impl SourceError {
    /// An error of one event.
    pub fn of_event(event: &SourceEvent, message: impl Into<String>) -> Self {
        Self::Input { origin: Arc::clone(&event.origin), line: event.line, message: message.into() }
    }

    /// The same with a note behind what it says.
    pub(super) fn with_note(self, note: &str) -> Self {
        match self {
            Self::Input { origin, line, message } => {
                Self::Input { origin, line, message: format!("{message}. {note}") }
            }
            Self::Broken { origin, line, message } => {
                Self::Broken { origin, line, message: format!("{message}. {note}") }
            }
            other => Self::Other(format!("{other}. {note}")),
        }
    }

    /// Whether the input is at fault, and not the machine.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Input { .. } | Self::Broken { .. })
    }
}
