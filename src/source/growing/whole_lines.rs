//! Bytes that are still being written: only whole lines of them are given.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::model::limits::LINE_BYTES_MAX;

/// Bytes that are read at a time.
const READ_BYTES: usize = 256 * 1024;

/// What is behind the last whole line. Shared with whoever watches the writer.
#[derive(Debug, Default)]
pub(in crate::source) struct Unfinished {
    /// Bytes of the last line, which has no end yet.
    bytes: AtomicU64,
    /// Nobody writes any more: they are the last line.
    is_last: AtomicBool,
}

impl Unfinished {
    /// Bytes of the last line, if that has no end.
    pub(in crate::source) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Nobody writes any more. Whether bytes are left that now count as the last line.
    pub(in crate::source) fn finish(&self) -> bool {
        !self.is_last.swap(true, Ordering::Relaxed) && self.bytes() > 0
    }
}

/// The whole lines of what is read. Gives no bytes where the writer has none for now, and later maybe more.
pub(in crate::source) struct WholeLines<R> {
    inner: R,
    unfinished: Arc<Unfinished>,
    /// What one read fills: kept, so that a look at a file that does not grow prepares no room.
    piece: Vec<u8>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were given.
    given: usize,
    /// Bytes of the buffer that are whole lines.
    whole: usize,
}

impl<R: Read> WholeLines<R> {
    pub(in crate::source) fn new(inner: R, unfinished: Arc<Unfinished>) -> Self {
        Self { inner, unfinished, piece: vec![0; READ_BYTES], buffer: Vec::new(), given: 0, whole: 0 }
    }

    /// Where the bytes come from.
    pub(in crate::source) fn inner(&self) -> &R {
        &self.inner
    }

    /// Reads on until a line is whole, or there is nothing for now.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.given);
        (self.given, self.whole) = (0, 0);
        let mut searched = 0;
        loop {
            if let Some(last) = self.buffer[searched..].iter().rposition(|byte| *byte == b'\n') {
                self.whole = searched + last + 1;
            } else if self.buffer.len() > LINE_BYTES_MAX {
                // It is too long to be a line: whoever reads it says so.
                self.whole = self.buffer.len();
            }
            if self.whole > 0 {
                break;
            }
            searched = self.buffer.len();
            if self.read_some()? == 0 {
                if self.unfinished.is_last.load(Ordering::Relaxed) {
                    self.whole = self.buffer.len();
                }
                break;
            }
        }
        self.unfinished.bytes.store((self.buffer.len() - self.whole) as u64, Ordering::Relaxed);
        Ok(())
    }

    fn read_some(&mut self) -> io::Result<usize> {
        let read = self.inner.read(&mut self.piece)?;
        self.buffer.extend_from_slice(&self.piece[..read]);
        Ok(read)
    }
}

impl<R: Read> Read for WholeLines<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.whole {
            self.fill()?;
        }
        let bytes = &self.buffer[self.given..self.whole];
        let len = bytes.len().min(into.len());
        into[..len].copy_from_slice(&bytes[..len]);
        self.given += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Gives these pieces one by one; an empty one is nothing for now.
    struct Pieces(VecDeque<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.pop_front().unwrap_or_default();
            let len = piece.len().min(into.len());
            into[..len].copy_from_slice(&piece[..len]);
            if len < piece.len() {
                self.0.push_front(piece[len..].to_vec());
            }
            Ok(len)
        }
    }

    fn lines(pieces: &[&str]) -> (WholeLines<Pieces>, Arc<Unfinished>) {
        let unfinished = Arc::default();
        let pieces = pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect();
        (WholeLines::new(Pieces(pieces), Arc::clone(&unfinished)), unfinished)
    }

    fn text(lines: &mut WholeLines<Pieces>) -> String {
        let mut text = String::new();
        lines.read_to_string(&mut text).expect("text");
        text
    }

    #[test]
    fn only_whole_lines_are_given_until_nobody_writes_any_more() {
        let (mut lines, unfinished) = lines(&["", "a\nb", "", "", "c", "", "\n", "", "d"]);
        for (given, bytes) in [("", 0), ("a\n", 1), ("", 1), ("", 2), ("bc\n", 0), ("", 1)] {
            assert_eq!((text(&mut lines).as_str(), unfinished.bytes()), (given, bytes));
        }
        assert!(unfinished.finish() && !unfinished.finish());
        assert_eq!((text(&mut lines).as_str(), unfinished.bytes()), ("d", 0));
    }

    #[test]
    fn a_line_is_whole_whatever_its_length() {
        let long = "x".repeat(3 * READ_BYTES + 7);
        let (mut lines, unfinished) = lines(&[&long, "\n", &long]);
        assert_eq!(text(&mut lines).len(), long.len() + 1);
        assert_eq!(unfinished.bytes(), long.len() as u64);
    }
}
