//! How bytes are cut into events, apart from where the bytes come from.
//!
//! [`Cutter`] takes the bytes of one input after another and gives one event at a time. A source that has its events in
//! pieces already (the entries of a stream, the records of a log) needs no cutter: it hands each piece to an
//! [`EventReader`].

pub(super) mod event;
mod ndjson;

use std::io::BufRead;

use ndjson::LineCutter;

use super::SourceEvent;
use super::fields::Fields;

/// Cuts the bytes of inputs into events.
pub(super) struct Cutter(LineCutter);

impl Cutter {
    pub(super) fn new(fields: Fields) -> Self {
        Self(LineCutter::new(fields))
    }

    /// Begins another input.
    pub(super) fn begin(&mut self) {
        self.0.begin();
    }

    /// Reads the next event of an input, with its line; false if the input has no more. An event that cannot be read is
    /// given as refused. May block.
    ///
    /// # Errors
    /// Reading failed, or what is read holds no events of this format.
    pub(super) fn next(&mut self, input: &mut impl BufRead, event: &mut SourceEvent) -> Result<bool, CutError> {
        self.0.next(input, event)
    }

    /// Whether bytes that were read ahead hold the whole next event.
    pub(super) fn is_ready(&self, ahead: &[u8]) -> bool {
        self.0.is_ready(ahead)
    }
}

/// Why an input gives no more events. Whoever has opened it knows its name.
#[derive(Debug)]
pub(super) enum CutError {
    /// Reading failed.
    Read { line: u64, cause: std::io::Error },
    /// What is read is not as it should be.
    Input { line: u64, message: String },
}
