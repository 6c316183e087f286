//! A pipe that is read without waiting for long: a thread reads it ahead.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::source::patience::Patience;
use crate::source::unpack::unpack;

/// Bytes that are handed over at a time, at most.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that are read ahead.
const PIECES_MAX: usize = 4;

/// Reads a pipe: gives no bytes if none have come for a moment.
pub(in crate::source) struct Piped {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    /// Bytes of it that were given.
    given: usize,
    is_over: Arc<AtomicBool>,
    patience: Patience,
}

impl Piped {
    /// Begins to read. Contract of the thread. In: the pipe. Out: its bytes, unpacked, over a bounded channel. Ends: at its
    /// end, at its first error, or when nobody takes them any more.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub(in crate::source) fn start(pipe: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, pieces) = bounded(PIECES_MAX);
        let read = move || {
            let mut unpacked = match unpack(pipe) {
                Ok((_, unpacked)) => unpacked,
                Err(error) => return drop(sender.send(Err(error))),
            };
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = match unpacked.read(&mut piece) {
                    Ok(0) => return,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => read,
                };
                let is_last = read.is_err();
                let sent = sender.send(read.map(|len| {
                    piece.truncate(len);
                    piece
                }));
                if sent.is_err() || is_last {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("forebay-pipe".into()).spawn(read)?;
        Ok(Self { pieces, piece: Vec::new(), given: 0, is_over: Arc::default(), patience: Patience::default() })
    }

    /// Whether all was given: true from then on.
    pub(in crate::source) fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_over)
    }

    /// Whether all was given.
    pub(in crate::source) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

impl Read for Piped {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.piece.len() && !self.is_over() {
            self.given = 0;
            self.piece = match self.pieces.recv_timeout(self.patience.next(true)) {
                Ok(piece) => {
                    self.patience.end();
                    piece?
                }
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.is_over.store(true, Ordering::Relaxed);
                    Vec::new()
                }
            };
        }
        let bytes = &self.piece[self.given..];
        let len = bytes.len().min(into.len());
        into[..len].copy_from_slice(&bytes[..len]);
        self.given += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn it_gives_what_has_come_and_nothing_for_a_moment() {
        let (pipe, mut writer) = io::pipe().expect("a pipe");
        let mut piped = Piped::start(pipe).expect("a thread");
        let mut bytes = [0; 16];
        assert_eq!(piped.read(&mut bytes).expect("nothing"), 0);
        assert!(!piped.is_over());
        writer.write_all(b"one\ntwo\n").expect("written");
        let mut text = Vec::new();
        while text.len() < 8 {
            let read = piped.read(&mut bytes[..3]).expect("bytes");
            text.extend_from_slice(&bytes[..read]);
        }
        assert_eq!(text, b"one\ntwo\n");
        drop(writer);
        while !piped.is_over() {
            assert_eq!(piped.read(&mut bytes).expect("the end"), 0);
        }
    }
}
