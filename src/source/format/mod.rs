//! How bytes are cut into events, apart from where the bytes come from.
//!
//! A [`Cutter`] takes the bytes of one input after another and gives one event at a time. A source that has its events in
//! pieces already (the entries of a stream, the records of a log) needs none: it hands each piece to an
//! [`event::EventReader`].

mod csv;
pub(super) mod event;
mod json;
mod line;
mod named;
mod ndjson;
mod split;

use std::io::BufRead;

use csv::RecordCutter;
use json::DocumentCutter;
pub use named::{Delimiter, Format};
use ndjson::LineCutter;

use super::SourceEvent;
use super::fields::Fields;

/// Cuts the bytes of inputs into events.
pub(super) enum Cutter {
    Lines(LineCutter),
    Records(Box<RecordCutter>),
    Documents(DocumentCutter),
}

impl Cutter {
    pub(super) fn new(format: Format, fields: Fields) -> Self {
        match format {
            Format::Ndjson => Self::Lines(LineCutter::new(fields)),
            Format::Csv(delimiter) => Self::Records(Box::new(RecordCutter::new(fields, delimiter))),
            Format::Json => Self::Documents(DocumentCutter::new(fields)),
        }
    }

    /// Begins another input.
    pub(super) fn begin(&mut self) {
        match self {
            Self::Lines(lines) => lines.begin(),
            Self::Records(records) => records.begin(),
            Self::Documents(documents) => documents.begin(),
        }
    }

    /// Reads the next event of an input, with its line; false if the input has no more, or none for now: then it may be
    /// asked again when there is more. An event that cannot be read is given as refused. May block.
    ///
    /// # Errors
    /// Reading failed, or what is read holds no events of this format.
    pub(super) fn next(&mut self, input: &mut impl BufRead, event: &mut SourceEvent) -> Result<bool, CutError> {
        match self {
            Self::Lines(lines) => lines.next(input, event),
            Self::Records(records) => records.next(input, event),
            Self::Documents(documents) => documents.next(input, event),
        }
    }

    /// Goes on within an input, behind so many lines and bytes, which `before` gives. False if it has to be read from its
    /// beginning.
    pub(super) fn go_on(&mut self, lines: u64, bytes: u64, before: &mut impl BufRead) -> bool {
        match self {
            Self::Lines(cutter) => {
                cutter.go_on(lines, bytes);
                true
            }
            Self::Records(records) => records.go_on(lines, bytes, before),
            Self::Documents(_) => false,
        }
    }

    /// Lines and bytes of the input up to the end of the last event, if it could be gone on there.
    pub(super) fn place(&self) -> Option<(u64, u64)> {
        match self {
            Self::Lines(lines) => Some(lines.place()),
            Self::Records(records) => Some(records.place_behind()),
            Self::Documents(_) => None,
        }
    }

    /// The input is over. What is left of it may be an event; false if nothing is left.
    ///
    /// # Errors
    /// The input breaks off.
    pub(super) fn end(&mut self, event: &mut SourceEvent) -> Result<bool, CutError> {
        match self {
            // The last line needs no end.
            Self::Lines(_) => Ok(false),
            Self::Records(records) => records.end(event),
            Self::Documents(documents) => documents.end().map(|()| false),
        }
    }

    /// Whether bytes that were read ahead hold the whole next event.
    pub(super) fn is_ready(&self, ahead: &[u8]) -> bool {
        match self {
            Self::Lines(lines) => lines.is_ready(ahead),
            Self::Records(records) => records.is_ready(ahead),
            Self::Documents(documents) => documents.is_ready(ahead),
        }
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
