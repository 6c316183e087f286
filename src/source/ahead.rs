//! Reading ahead: a thread fetches the pieces of a source while others are handled.
//!
//! What it says goes over a bounded channel, and it is told to stop when nobody takes that any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

use super::patience::Patience;
use super::trouble::Trouble;
use super::{Next, SourceError, SourceEvent};
use crate::model::limits::WAIT_STEP;

/// Parts that wait for the reader.
const PARTS_WAITING: usize = 1;

/// What the thread says.
enum Said<T> {
    Pieces(Vec<T>),
    /// There is nothing for now.
    Nothing,
    End,
    Failed(String),
}

/// Why the thread ends before the end of what it fetches.
pub(super) enum Halt {
    Failed(String),
    /// Nobody wants to know any more.
    Stopped,
}

/// What the thread has of its reader.
pub(super) struct Reader<T> {
    said: Sender<Said<T>>,
    is_over: Arc<AtomicBool>,
    /// Where the thread says why it cannot reach what it fetches.
    pub(super) trouble: Trouble,
}

impl<T> Reader<T> {
    /// Whether nobody takes pieces any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Hands pieces on. Blocks while the reader has others to take.
    ///
    /// # Errors
    /// Nobody takes them any more.
    pub(super) fn give(&self, pieces: Vec<T>) -> Result<(), Halt> {
        if pieces.is_empty() { Ok(()) } else { self.say(Said::Pieces(pieces)) }
    }

    /// Says that there is nothing for now. Blocks as [`Reader::give`] does.
    ///
    /// # Errors
    /// As [`Reader::give`].
    pub(super) fn give_nothing(&self) -> Result<(), Halt> {
        self.say(Said::Nothing)
    }

    fn say(&self, mut said: Said<T>) -> Result<(), Halt> {
        loop {
            match self.said.send_timeout(said, WAIT_STEP) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(back)) if !self.is_over() => said = back,
                Err(_) => return Err(Halt::Stopped),
            }
        }
    }
}

/// Pieces that a thread fetches. It ends when this is dropped.
pub(super) struct Ahead<T> {
    said: Receiver<Said<T>>,
    is_over: Arc<AtomicBool>,
    /// How long the end of the thread is waited for.
    close_max: Duration,
    pieces: std::vec::IntoIter<T>,
    has_ended: bool,
    /// A block that is whole, which was not said yet.
    whole: Option<i64>,
    patience: Patience,
    trouble: Trouble,
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let until = Instant::now() + self.close_max;
        while !self.close_max.is_zero() && self.said.recv_deadline(until).is_ok() {}
    }
}

/// What comes next.
pub(super) enum Taken<T> {
    Piece(T),
    /// No piece, but that.
    Next(Next),
}

impl<T: Send + 'static> Ahead<T> {
    /// Starts the thread. Contract of the thread. In: what `fetch` has. Out: pieces in order, each once, over a bounded
    /// channel; then the end, or why it failed. Ends: with `fetch`, which is to ask again and again whether it is over.
    ///
    /// Dropping this blocks for `close_max` at most.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(
        name: &str,
        close_max: Duration,
        fetch: impl FnOnce(&Reader<T>) -> Result<(), Halt> + Send + 'static,
    ) -> Result<Self, String> {
        let (sender, said) = bounded(PARTS_WAITING);
        let is_over = Arc::new(AtomicBool::new(false));
        let trouble = Trouble::default();
        let reader = Reader { said: sender, is_over: Arc::clone(&is_over), trouble: trouble.clone() };
        let run = move || {
            let last = match fetch(&reader) {
                Ok(()) => Said::End,
                Err(Halt::Failed(text)) => Said::Failed(text),
                Err(Halt::Stopped) => return,
            };
            // If nobody takes it, nobody wants to know.
            let _ = reader.say(last);
        };
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
        let (pieces, patience) = (Vec::new().into_iter(), Patience::default());
        Ok(Self { said, is_over, close_max, pieces, has_ended: false, whole: None, patience, trouble })
    }

    /// The next piece, or what there is instead. Waits for a moment if there is nothing.
    ///
    /// # Errors
    /// The thread has failed.
    pub(super) fn take(&mut self) -> Result<Taken<T>, SourceError> {
        loop {
            if let Some(piece) = self.pieces.next() {
                self.whole = None;
                return Ok(Taken::Piece(piece));
            }
            if self.has_ended {
                return Ok(Taken::Next(Next::End));
            }
            match self.said.recv_timeout(self.patience.next(true)) {
                Ok(Said::Pieces(pieces)) => {
                    self.patience.end();
                    self.pieces = pieces.into_iter();
                }
                Ok(Said::End) => self.has_ended = true,
                Ok(Said::Failed(text)) => return Err(SourceError::Other(text)),
                Ok(Said::Nothing) | Err(RecvTimeoutError::Timeout) => {
                    return Ok(Taken::Next(self.whole.take().map_or(Next::Pending, |block| Next::Whole { block })));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(SourceError::Other("the thread that reads ahead has ended".into()));
                }
            }
        }
    }

    /// The last piece is an event that is a whole block by itself, if it is known which: that is said when no other follows
    /// it.
    pub(super) fn note_whole(&mut self, event: &SourceEvent) {
        if event.refused.as_ref().is_none_or(|refused| refused.has_block) {
            self.whole = Some(event.block);
        }
    }

    /// Why what is fetched cannot be reached now.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.get()
    }

    /// Whether the next piece is here.
    pub(super) fn is_ready(&self) -> bool {
        self.pieces.len() > 0 || !self.said.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: i64) -> SourceEvent {
        SourceEvent { block: number, ..SourceEvent::default() }
    }

    fn all(ahead: &mut Ahead<i64>) -> Vec<String> {
        let mut taken = Vec::new();
        loop {
            match ahead.take() {
                Ok(Taken::Piece(piece)) => {
                    ahead.note_whole(&block(piece));
                    taken.push(piece.to_string());
                }
                Ok(Taken::Next(Next::End)) => return taken,
                Ok(Taken::Next(Next::Pending)) => {}
                Ok(Taken::Next(next)) => taken.push(format!("{next:?}")),
                Err(error) => {
                    taken.push(error.to_string());
                    return taken;
                }
            }
        }
    }

    #[test]
    fn pieces_come_in_order_up_to_the_end_or_the_failure() {
        for fails in [false, true] {
            let (go_on, wait) = bounded::<()>(0);
            let mut ahead = Ahead::start("test", Duration::ZERO, move |reader: &Reader<i64>| {
                reader.give(vec![1, 2])?;
                reader.give(Vec::new())?;
                reader.give_nothing()?;
                // Until what came before was taken.
                let _ = wait.recv();
                reader.give(vec![3])?;
                if fails { Err(Halt::Failed("it broke".into())) } else { Ok(()) }
            })
            .expect("a thread");
            let mut first = Vec::new();
            while first.len() < 3 {
                match ahead.take().expect("no failure") {
                    Taken::Piece(piece) => {
                        ahead.note_whole(&block(piece));
                        first.push(piece.to_string());
                    }
                    Taken::Next(Next::Pending) => {}
                    Taken::Next(next) => first.push(format!("{next:?}")),
                }
            }
            assert_eq!(first, ["1", "2", "Whole { block: 2 }"]);
            drop(go_on);
            assert_eq!(all(&mut ahead), if fails { vec!["3", "it broke"] } else { vec!["3"] });
        }
    }

    #[test]
    fn the_thread_ends_when_nobody_takes_pieces_any_more() {
        let (ended, has_ended) = bounded(1);
        let ahead = Ahead::start("test", Duration::from_secs(60), move |reader: &Reader<i64>| {
            let halt = loop {
                if let Err(halt) = reader.give(vec![1]) {
                    break halt;
                }
                if reader.is_over() {
                    break Halt::Stopped;
                }
            };
            let _ = ended.send(matches!(halt, Halt::Stopped));
            Err(halt)
        })
        .expect("a thread");
        drop(ahead);
        assert_eq!(has_ended.try_recv(), Ok(true), "dropping waits for it");
    }
}
