//! Events from files or standard input: where bytes come from. A [`Cutter`] makes events of them.

use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fields::Fields;
use super::files::{OpenInput, SourcePath};
use super::follow::Follow;
use super::format::{CutError, Cutter, Format};
use super::growing::{AtEnd, hash_before};
use super::{FileStamp, Late, Next, Source, SourceDigest, SourceError, SourceEvent, SourceFile};

/// Events from files or standard input, one input after the other.
pub struct InputSource {
    path: SourcePath,
    cutter: Cutter,
    next_input: usize,
    /// Files that are left out.
    is_left_out: Vec<bool>,
    input: Option<OpenInput>,
    follow: Option<Follow>,
    /// Where a file is gone on in.
    goes_on: Option<GoOn>,
    bytes_read: Arc<AtomicU64>,
}

/// A place in the file of that place among the files.
#[derive(Debug, Clone, Copy)]
struct GoOn {
    at: usize,
    lines: u64,
    bytes: u64,
}

impl InputSource {
    /// A source over a file, a folder, a pattern, or `-`: see [`SourcePath::resolve`]. Warns of what is left out.
    ///
    /// # Errors
    /// As [`SourcePath::resolve`].
    pub fn open(path: &str, format: Format, fields: Fields) -> Result<Self, SourceError> {
        let from = path;
        let path = SourcePath::resolve(path, format)?;
        if let Some(left_out) = path.left_out() {
            tracing::warn!("source {from} leaves out {left_out}");
        }
        Ok(Self::over(path, format, fields, None))
    }

    /// The same for files that are followed: the source does not end, but waits for more of them. A folder or a pattern may
    /// have no file yet. Standard input is read ahead, and ends when nobody writes to it any more.
    ///
    /// # Errors
    /// As [`SourcePath::resolve`].
    pub fn follow(path: &str, format: Format, fields: Fields, late: Late) -> Result<Self, SourceError> {
        let path = SourcePath::resolve_followed(path, format)?;
        Ok(Self::over(path, format, fields, Some(Follow::new(late))))
    }

    fn over(path: SourcePath, format: Format, fields: Fields, follow: Option<Follow>) -> Self {
        Self {
            path,
            cutter: Cutter::new(format, fields),
            next_input: 0,
            is_left_out: Vec::new(),
            input: None,
            follow,
            goes_on: None,
            bytes_read: Arc::default(),
        }
    }

    fn is_stdin(&self) -> bool {
        self.path.files().is_empty() && self.path.len() == 1
    }

    /// What is next at the end of the input, or before the first one.
    fn at_end(&mut self) -> Result<AtEnd, SourceError> {
        let Some(follow) = &mut self.follow else { return Ok(AtEnd::Next) };
        if self.input.is_none() && self.next_input < self.path.len() {
            return Ok(AtEnd::Next);
        }
        if let Some(pipe) = self.input.as_ref().and_then(|input| input.pipe.as_ref()) {
            return Ok(pipe.next());
        }
        let end = self.input.as_ref().and_then(|input| input.end.as_ref());
        follow.at_end(&mut self.path, self.next_input.checked_sub(1), end)
    }

    /// The file that was read, if the next one is the same, written anew.
    fn again(&self) -> Result<Option<File>, SourceError> {
        let is_anew = self.follow.as_ref().is_some_and(|follow| follow.is_anew(self.next_input));
        let Some(end) = self.input.as_ref().and_then(|input| input.end.as_ref()).filter(|_| is_anew) else {
            return Ok(None);
        };
        end.again().map(Some).map_err(|cause| self.path.read_error(self.next_input, cause))
    }

    /// Ends the input that was read; whether what is left of it is an event.
    fn end_input(&mut self, event: &mut SourceEvent) -> Result<bool, SourceError> {
        let Some(input) = &self.input else { return Ok(false) };
        let is_event = self.cutter.end(event).map_err(|error| error_of(input, error))?;
        if is_event {
            input.name(event);
        }
        Ok(is_event)
    }

    /// Opens the next input; false if there is none.
    fn open_next(&mut self) -> Result<bool, SourceError> {
        while self.is_left_out.get(self.next_input) == Some(&true) {
            self.next_input += 1;
        }
        if self.next_input == self.path.len() {
            return Ok(false);
        }
        let begin = self.goes_on.take_if(|goes_on| goes_on.at == self.next_input);
        let grows_from = self.follow.as_ref().map(|_| begin.map_or(0, |begin| begin.bytes));
        let again = self.again()?;
        if let Some(follow) = &mut self.follow
            && again.is_none()
            && !self.path.files().is_empty()
            && !self.path.has_its_name(self.next_input)
        {
            // It was renamed since we looked.
            follow.look(&mut self.path, self.next_input.checked_sub(1))?;
        }
        let input = self.path.open(self.next_input, again, grows_from, &self.bytes_read)?;
        self.cutter.begin();
        if let (Some(GoOn { lines, bytes, .. }), Some(end)) = (begin, &input.end) {
            // It could when it was asked.
            self.cutter.go_on(lines, bytes, &mut BufReader::new(end.begin().take(bytes)));
        }
        self.input = Some(input);
        self.next_input += 1;
        Ok(true)
    }
}

/// The error of an input.
fn error_of(input: &OpenInput, error: CutError) -> SourceError {
    let origin = Arc::clone(&input.origin);
    match error {
        CutError::Read { line, cause } => read_error(input, line, cause),
        CutError::Input { line, message } => SourceError::Broken { origin, line, message },
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

impl Source for InputSource {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        if self.input.is_none() && self.next_input == 0 {
            // What is left out has not changed: it was compared when it was read.
            let is_left_out = |at: usize| self.is_left_out.get(at) == Some(&true);
            let read = self.path.files().iter().enumerate().filter(|(at, _)| !is_left_out(*at));
            self.path.check_copies(read.map(|(_, file)| file), &mut self.cutter)?;
        }
        loop {
            if let Some(input) = &mut self.input {
                let read = self.cutter.next(&mut input.lines, event);
                if read.map_err(|error| error_of(input, error))? {
                    input.name(event);
                    return Ok(Next::Event);
                }
            }
            match self.at_end()? {
                AtEnd::More => {}
                AtEnd::Wait => return Ok(Next::Pending),
                AtEnd::Next if self.end_input(event)? => return Ok(Next::Event),
                AtEnd::Next if self.open_next()? => {}
                // All files that are there are left out.
                AtEnd::Next if self.follow.is_some() && !self.is_stdin() => self.input = None,
                AtEnd::Next => return Ok(Next::End),
            }
        }
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

    fn go_on_in(&mut self, at: usize, stored: &SourceFile) -> Result<bool, SourceError> {
        let (Some(file), Some(tail)) = (self.path.files().get(at), stored.tail) else { return Ok(false) };
        let (lines, bytes) = (tail.lines, stored.stamp.bytes);
        if self.follow.is_none() || file.inode != stored.stamp.inode {
            return Ok(false);
        }
        let cannot = |cause: std::io::Error| self.path.read_error(at, cause);
        let opened = File::open(&file.path).map_err(cannot)?;
        let found = hash_before(&opened, bytes).map_err(cannot)?;
        let can_go_on = self.cutter.go_on(lines, bytes, &mut BufReader::new(opened.take(bytes)));
        let is_same = can_go_on && found == Some(tail.hash);
        self.goes_on = is_same.then_some(GoOn { at, lines, bytes });
        Ok(is_same)
    }

    fn place(&self) -> Option<(u64, u64)> {
        self.input.as_ref()?.end.as_ref()?;
        self.cutter.place()
    }

    fn hash_before(&self, bytes: u64) -> Result<Option<SourceDigest>, SourceError> {
        let Some(input) = &self.input else { return Ok(None) };
        let Some(end) = &input.end else { return Ok(None) };
        end.hash_before(bytes).map_err(|cause| SourceError::Read { origin: Arc::clone(&input.origin), cause })
    }

    fn repeats(&self) -> bool {
        let at = self.next_input.checked_sub(1);
        at.is_some_and(|at| self.follow.as_ref().is_some_and(|follow| follow.is_anew(at)))
    }

    fn rewind(&mut self) -> Result<bool, SourceError> {
        let can_rewind = !self.path.stamps().is_empty();
        if can_rewind {
            (self.next_input, self.input, self.goes_on) = (0, None, None);
        }
        Ok(can_rewind)
    }

    fn is_ready(&self) -> bool {
        self.input.as_ref().is_none_or(|input| !input.is_stream || self.cutter.is_ready(input.lines.buffer()))
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    fn bytes_total(&self) -> Option<u64> {
        let grown = || {
            let (end, at) = (self.input.as_ref()?.end.as_ref()?, self.next_input.checked_sub(1)?);
            Some(end.metadata().ok()?.len().saturating_sub(self.path.files().get(at)?.size))
        };
        Some(self.path.bytes_total()? + grown().unwrap_or_default())
    }
}
