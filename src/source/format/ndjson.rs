//! NDJSON: one JSON object a line.

use std::io::BufRead;

use memchr::memchr;

use super::event::{EventReader, too_long};
use super::line::read_line;
use super::{CutError, SourceEvent};
use crate::model::limits::LINE_BYTES_MAX;
use crate::source::event_head::Piece;
use crate::source::fields::Fields;
use crate::source::foreign;

/// Bytes that are skipped of a line that is too long; one that goes on is no line of events.
const LINE_SKIPPED_MAX: usize = 256 * 1024 * 1024;

/// Cuts an input into lines. Blank ones are no events.
pub(in crate::source) struct LineCutter {
    reader: EventReader,
    line: Vec<u8>,
    line_no: u64,
    /// Bytes up to the end of the line.
    bytes: u64,
}

impl LineCutter {
    pub(super) fn new(fields: Fields) -> Self {
        Self { reader: EventReader::new(fields, Piece::LINE), line: Vec::new(), line_no: 0, bytes: 0 }
    }

    pub(super) fn begin(&mut self) {
        (self.line_no, self.bytes) = (0, 0);
    }

    pub(super) fn go_on(&mut self, lines: u64, bytes: u64) {
        (self.line_no, self.bytes) = (lines, bytes);
    }

    pub(super) fn place(&self) -> (u64, u64) {
        (self.line_no, self.bytes)
    }

    pub(super) fn next(&mut self, input: &mut impl BufRead, event: &mut SourceEvent) -> Result<bool, CutError> {
        if !self.next_line(input)? {
            return Ok(false);
        }
        event.line = self.line_no;
        self.reader.read_json(&self.line, event);
        if event.refused.is_some()
            && let Some(error) = self.foreign()
        {
            return Err(error);
        }
        if let Some(refused) = &mut event.refused
            && self.line_no == 1
            && is_like_a_header(&self.line)
        {
            refused.error.push_str("; is this the header of CSV? [source] format = \"csv\" reads it");
        }
        Ok(true)
    }

    pub(super) fn is_ready(&self, ahead: &[u8]) -> bool {
        ahead.contains(&b'\n')
    }

    /// Reads the next line that is not blank into `self.line`, of one that is too long the beginning; false when the input
    /// has no more.
    fn next_line(&mut self, input: &mut impl BufRead) -> Result<bool, CutError> {
        loop {
            self.line.clear();
            self.line_no += 1;
            let line = self.line_no;
            let read = read_line(input, LINE_BYTES_MAX + 1, &mut self.line);
            let read = read.map_err(|cause| CutError::Read { line, cause })?;
            if read == 0 {
                // More may come later.
                self.line_no -= 1;
                return Ok(false);
            }
            self.bytes += read as u64;
            if read > LINE_BYTES_MAX {
                let skipped = skip_line(input).map_err(|cause| CutError::Read { line, cause })?;
                self.bytes += skipped.ok_or_else(|| self.foreign().unwrap_or_else(|| self.endless()))?;
                return Ok(true);
            }
            if self.line_no == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    /// What the file is, if a line of it shows that it is no NDJSON at all: then none of its lines is an event.
    fn foreign(&self) -> Option<CutError> {
        let message = foreign::named(self.line_no, &self.line)?;
        Some(CutError::Input { line: self.line_no, message })
    }

    /// A line that does not end.
    fn endless(&self) -> CutError {
        CutError::Input { line: self.line_no, message: too_long(Piece::LINE) }
    }
}

/// Whether a line may be the header of CSV: several names with something between them.
fn is_like_a_header(line: &[u8]) -> bool {
    let is_name = |name: &[u8]| name.iter().any(u8::is_ascii_alphabetic);
    let text = line.trim_ascii();
    !text.starts_with(b"{")
        && !text.starts_with(b"[")
        && b",;\t|"
            .iter()
            .any(|delimiter| text.contains(delimiter) && text.split(|byte| byte == delimiter).all(is_name))
}

/// Reads on to the end of a line, and says how many bytes that were; none if it does not end within [`LINE_SKIPPED_MAX`].
fn skip_line(lines: &mut impl BufRead) -> std::io::Result<Option<u64>> {
    let mut skipped = 0;
    while skipped < LINE_SKIPPED_MAX {
        let (some, is_end) = match lines.fill_buf() {
            Ok([]) => return Ok(Some(skipped as u64)),
            Ok(bytes) => match memchr(b'\n', bytes) {
                Some(at) => (at + 1, true),
                None => (bytes.len(), false),
            },
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        lines.consume(some);
        skipped += some;
        if is_end {
            return Ok(Some(skipped as u64));
        }
    }
    Ok(None)
}
