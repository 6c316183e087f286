//! NDJSON: one JSON object a line.

use std::borrow::Cow;
use std::io::{BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::event_head::read_head;
use super::fields::Fields;
use super::files::{OpenInput, SourcePath};
use super::{Next, Source, SourceError, SourceEvent};
use crate::model::json_text::whole_characters;
use crate::model::limits::LINE_BYTES_MAX;

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

    /// Reads the next line that is not blank into `self.line`; false when the input has no more.
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
                return Err(self.input_error(format!("the line is longer than {} MiB", LINE_BYTES_MAX >> 20)));
            }
            if self.line_no == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn input_error(&self, message: String) -> SourceError {
        let origin = self.input.as_ref().map_or_else(|| Arc::from("source"), |input| Arc::clone(&input.origin));
        SourceError::Input { origin, line: self.line_no, message }
    }

    fn fill(&self, event: &mut SourceEvent, origin: &Arc<str>) -> Result<(), String> {
        let json = std::str::from_utf8(&self.line)
            .map_err(|error| format!("the line is not UTF-8 (byte {})", error.valid_up_to() + 1))?;
        let json = json.trim();
        let whole;
        let (json, head) = match read_head(json, &self.fields) {
            Ok(head) => (json, head),
            Err(problem) => {
                // A key, or a field of the head, with half a character.
                whole = whole_characters(json);
                let head = if matches!(whole, Cow::Owned(_)) { read_head(&whole, &self.fields) } else { Err(problem) };
                (&*whole, head?)
            }
        };
        event.block = head.block;
        event.seq = head.seq;
        event.region.clear();
        event.region.push_str(&head.region);
        event.json.clear();
        event.json.push_str(json);
        event.line = self.line_no;
        copy(head.hash.as_deref(), &mut event.hash);
        copy(head.parent.as_deref(), &mut event.parent);
        if !Arc::ptr_eq(&event.origin, origin) {
            event.origin = Arc::clone(origin);
        }
        Ok(())
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
        self.fill(event, &origin).map_err(|message| self.input_error(message))?;
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
