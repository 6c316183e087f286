//! NDJSON: one JSON object a line.

use std::borrow::Cow;
use std::io::{BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::event_head::{PartOfHead, read_head, read_part_of_head};
use super::fields::Fields;
use super::files::{OpenInput, SourcePath};
use super::refused::Refused;
use super::{Next, Source, SourceError, SourceEvent};
use crate::model::limits::LINE_BYTES_MAX;
use crate::model::quarantine::EVENT_TEXT_BYTES_MAX;

/// Events from NDJSON files or standard input.
pub struct NdjsonSource {
    path: SourcePath,
    fields: Fields,
    next_input: usize,
    input: Option<OpenInput>,
    line: Vec<u8>,
    line_no: u64,
    bytes_read: Arc<AtomicU64>,
}

impl NdjsonSource {
    /// A source over a file, a folder, a pattern, or `-`: see [`SourcePath::resolve`].
    ///
    /// # Errors
    /// Nothing is there.
    pub fn open(path: &str, fields: Fields) -> Result<Self, SourceError> {
        let path = SourcePath::resolve(path)?;
        Ok(Self { path, fields, next_input: 0, input: None, line: Vec::new(), line_no: 0, bytes_read: Arc::default() })
    }

    /// Reads the next line that is not blank into `self.line`, of one that is too long the beginning; false when the input
    /// has no more.
    fn next_line(&mut self) -> Result<bool, SourceError> {
        let Some(input) = &mut self.input else { return Ok(false) };
        loop {
            self.line.clear();
            self.line_no += 1;
            let read = (&mut input.lines).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut self.line);
            let read = read.map_err(|cause| read_error(&input.origin, self.line_no, cause))?;
            if read == 0 {
                return Ok(false);
            }
            if read > LINE_BYTES_MAX {
                let skipped =
                    skip_line(&mut input.lines).map_err(|cause| read_error(&input.origin, self.line_no, cause));
                return skipped.map(|()| true);
            }
            if self.line_no == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn fill(&self, event: &mut SourceEvent, origin: &Arc<str>) {
        event.line = self.line_no;
        event.refused = None;
        if !Arc::ptr_eq(&event.origin, origin) {
            event.origin = Arc::clone(origin);
        }
        if let Err(message) = self.read(event) {
            self.refuse(event, message);
        }
    }

    fn read(&self, event: &mut SourceEvent) -> Result<(), String> {
        if self.line.len() > LINE_BYTES_MAX {
            return Err(format!("the line is longer than {} MiB", LINE_BYTES_MAX >> 20));
        }
        let json = std::str::from_utf8(&self.line)
            .map_err(|error| format!("the line is not UTF-8 (byte {})", error.valid_up_to() + 1))?;
        let json = json.trim();
        let head = read_head(json, &self.fields)?;
        event.block = head.block;
        event.seq = head.seq;
        event.region.clear();
        event.region.push_str(&head.region);
        event.json.clear();
        event.json.push_str(json);
        copy(head.hash.as_deref(), &mut event.hash);
        copy(head.parent.as_deref(), &mut event.parent);
        Ok(())
    }

    /// Gives a line that is no event: its text, what is wrong with it, and what can be read of where it belongs.
    fn refuse(&self, event: &mut SourceEvent, error: String) {
        let line = self.line.trim_ascii();
        let part = match std::str::from_utf8(line) {
            Ok(json) if line.len() <= LINE_BYTES_MAX => read_part_of_head(json, &self.fields),
            _ => PartOfHead::default(),
        };
        let refused = Refused { error, has_block: part.block.is_some(), has_region: part.region.is_some() };
        event.refused = Some(Box::new(refused));
        event.block = part.block.unwrap_or(0);
        event.seq = part.seq;
        event.region = part.region.map_or_else(String::new, Cow::into_owned);
        event.hash = part.hash.map(Cow::into_owned);
        event.parent = part.parent.map(Cow::into_owned);
        // A little more than is kept, so that it is seen to be cut.
        let kept = &line[..line.len().min(EVENT_TEXT_BYTES_MAX + 4)];
        event.json = String::from_utf8_lossy(kept).into_owned();
    }
}

/// Reads on to the end of a line.
fn skip_line(lines: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let (some, is_end) = match lines.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (bytes.len(), false),
            },
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        lines.consume(some);
        if is_end {
            return Ok(());
        }
    }
}

/// Copies a text into a buffer that is used again.
fn copy(text: Option<&str>, into: &mut Option<String>) {
    match (text, into) {
        (Some(text), Some(buffer)) => {
            buffer.clear();
            buffer.push_str(text);
        }
        (text, into) => *into = text.map(str::to_owned),
    }
}

/// What a compressed file that breaks off, or is none, says is about the input; the rest is about the machine.
fn read_error(origin: &Arc<str>, line: u64, cause: std::io::Error) -> SourceError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    match cause.kind() {
        UnexpectedEof | InvalidData | InvalidInput | Other => SourceError::Input {
            origin: Arc::clone(origin),
            line,
            message: format!("the compressed file is damaged or breaks off: {cause}"),
        },
        _ => SourceError::Read { origin: Arc::clone(origin), cause },
    }
}

impl Source for NdjsonSource {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        while !self.next_line()? {
            if self.next_input == self.path.len() {
                return Ok(Next::End);
            }
            self.input = Some(self.path.open(self.next_input, &self.bytes_read)?);
            self.next_input += 1;
            self.line_no = 0;
        }
        let Some(input) = &self.input else { return Ok(Next::End) };
        let origin = Arc::clone(&input.origin);
        self.fill(event, &origin);
        Ok(Next::Event)
    }

    fn is_ready(&self) -> bool {
        self.input.as_ref().is_none_or(|input| !input.is_stream || input.lines.buffer().contains(&b'\n'))
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    fn bytes_total(&self) -> Option<u64> {
        self.path.bytes_total()
    }
}
