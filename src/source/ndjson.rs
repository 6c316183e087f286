//! NDJSON: one JSON object a line.

use std::borrow::Cow;
use std::io::{BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::event_head::{HeadReader, PartOfHead};
use super::fields::Fields;
use super::files::{OpenInput, SourcePath};
use super::foreign;
use super::refused::Refused;
use super::{FileStamp, Next, Source, SourceError, SourceEvent};
use crate::model::json_text::whole_characters;
use crate::model::limits::LINE_BYTES_MAX;
use crate::model::quarantine::EVENT_TEXT_BYTES_MAX;

/// Bytes that are skipped of a line that is too long; one that goes on is no line of events.
const LINE_SKIPPED_MAX: usize = 256 * 1024 * 1024;

/// Events from NDJSON files or standard input.
pub struct NdjsonSource {
    path: SourcePath,
    head: HeadReader,
    next_input: usize,
    /// Files that are left out.
    is_left_out: Vec<bool>,
    input: Option<OpenInput>,
    line: Vec<u8>,
    line_no: u64,
    bytes_read: Arc<AtomicU64>,
}

impl NdjsonSource {
    /// A source over a file, a folder, a pattern, or `-`: see [`SourcePath::resolve`]. Warns of what is left out.
    ///
    /// # Errors
    /// As [`SourcePath::resolve`].
    pub fn open(path: &str, fields: Fields) -> Result<Self, SourceError> {
        let from = path;
        let path = SourcePath::resolve(path)?;
        if let Some(left_out) = path.left_out() {
            tracing::warn!("source {from} leaves out {left_out}");
        }
        Ok(Self {
            path,
            head: HeadReader::new(fields),
            next_input: 0,
            is_left_out: Vec::new(),
            input: None,
            line: Vec::new(),
            line_no: 0,
            bytes_read: Arc::default(),
        })
    }

    /// Reads the next line that is not blank into `self.line`, of one that is too long the beginning; false when the input
    /// has no more.
    fn next_line(&mut self) -> Result<bool, SourceError> {
        let Some(input) = &mut self.input else { return Ok(false) };
        loop {
            self.line.clear();
            self.line_no += 1;
            let read = (&mut input.lines).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut self.line);
            let read = read.map_err(|cause| read_error(input, self.line_no, cause))?;
            if read == 0 {
                return Ok(false);
            }
            if read > LINE_BYTES_MAX {
                let skipped = skip_line(&mut input.lines).map_err(|cause| read_error(input, self.line_no, cause))?;
                return if skipped { Ok(true) } else { Err(self.foreign().unwrap_or_else(|| self.endless())) };
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
            let is_whole = self.line.len() <= LINE_BYTES_MAX;
            let zeros = if is_whole { foreign::zeros(&self.line) } else { None };
            self.refuse(event, zeros.unwrap_or(message));
        }
    }

    /// What the file is, if a line of it shows that it is no NDJSON at all: then none of its lines is an event.
    fn foreign(&self) -> Option<SourceError> {
        let told = foreign::named(self.line_no, &self.line)?;
        let origin = self.input.as_ref().map_or_else(|| Arc::from("source"), |input| Arc::clone(&input.origin));
        Some(SourceError::Input { origin, line: self.line_no, message: told })
    }

    /// A line that does not end.
    fn endless(&self) -> SourceError {
        let origin = self.input.as_ref().map_or_else(|| Arc::from("source"), |input| Arc::clone(&input.origin));
        let message = format!("the line is longer than {} MiB; expected one event a line", LINE_BYTES_MAX >> 20);
        SourceError::Input { origin, line: self.line_no, message }
    }

    fn read(&self, event: &mut SourceEvent) -> Result<(), String> {
        if self.line.len() > LINE_BYTES_MAX {
            return Err(format!("the line is longer than {} MiB; expected one event a line", LINE_BYTES_MAX >> 20));
        }
        let json = std::str::from_utf8(&self.line)
            .map_err(|error| format!("the line is not UTF-8 (byte {})", error.valid_up_to() + 1))?;
        let json = json.trim();
        let whole;
        let (json, head) = match self.head.read(json) {
            Ok(head) => (json, head),
            Err(problem) => {
                // A key, or a field of the head, with half a character.
                whole = whole_characters(json);
                let head = if matches!(whole, Cow::Owned(_)) { self.head.read(&whole) } else { Err(problem) };
                (&*whole, head?)
            }
        };
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
            Ok(json) if line.len() <= LINE_BYTES_MAX => self.head.read_part(json),
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

/// Reads on to the end of a line; false if it does not end within [`LINE_SKIPPED_MAX`] bytes.
fn skip_line(lines: &mut impl BufRead) -> std::io::Result<bool> {
    let mut skipped = 0;
    while skipped < LINE_SKIPPED_MAX {
        let (some, is_end) = match lines.fill_buf() {
            Ok([]) => return Ok(true),
            Ok(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (bytes.len(), false),
            },
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        lines.consume(some);
        skipped += some;
        if is_end {
            return Ok(true);
        }
    }
    Ok(false)
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
fn read_error(input: &OpenInput, line: u64, cause: std::io::Error) -> SourceError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    let origin = &input.origin;
    match cause.kind() {
        UnexpectedEof | InvalidData | InvalidInput | Other if input.is_packed => SourceError::Input {
            origin: Arc::clone(origin),
            line,
            message: format!("the compressed file is damaged or breaks off: {cause}"),
        },
        _ => SourceError::Read { origin: Arc::clone(origin), cause },
    }
}

impl Source for NdjsonSource {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        if self.input.is_none() && self.next_input == 0 {
            // What is left out has not changed: it was compared when it was read.
            let is_left_out = |at: usize| self.is_left_out.get(at) == Some(&true);
            let read = self.path.files().iter().enumerate().filter(|(at, _)| !is_left_out(*at));
            self.path.check_copies(read.map(|(_, file)| file))?;
        }
        while !self.next_line()? {
            while self.is_left_out.get(self.next_input) == Some(&true) {
                self.next_input += 1;
            }
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
        if event.refused.is_some()
            && let Some(error) = self.foreign()
        {
            return Err(error);
        }
        Ok(Next::Event)
    }

    fn files(&self) -> Vec<FileStamp> {
        self.path.stamps()
    }

    fn leave_out(&mut self, is_left_out: &[bool]) {
        self.is_left_out = is_left_out.to_vec();
    }

    fn file(&self) -> Option<usize> {
        self.next_input.checked_sub(1)
    }

    fn rewind(&mut self) -> Result<bool, SourceError> {
        let can_rewind = !self.path.stamps().is_empty();
        if can_rewind {
            (self.next_input, self.input, self.line_no) = (0, None, 0);
        }
        Ok(can_rewind)
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
