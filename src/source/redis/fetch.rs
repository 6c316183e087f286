//! The thread that fetches entries ahead of the reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};

use super::super::trouble::Trouble;
use super::entry::{Anchor, Entry, EntryId};
use super::plan::RedisStreamPlan;
use super::stream::{Part, Stream, StreamError};
use crate::model::limits::WAIT_STEP;

/// Entries that are asked for at first, and at most.
const COUNT_MIN: usize = 64;
const COUNT_MAX: usize = 8192;
/// Bytes that an answer should have.
const PART_BYTES: usize = 512 * 1024;
/// Answers that wait for the reader.
const PARTS_WAITING: usize = 1;

/// What the thread sends.
pub(super) enum Fetched {
    Entries(Vec<Entry>),
    /// There is nothing for now.
    Nothing,
    End,
    Failed(StreamError),
}

/// The thread's other end. It ends when this is dropped.
pub(super) struct Fetch {
    pub(super) fetched: Receiver<Fetched>,
    /// Why the server cannot be reached now.
    pub(super) trouble: Trouble,
    is_over: Arc<AtomicBool>,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Fetch {
    /// Fetches what lies behind the anchor, or all.
    pub(super) fn start(plan: &RedisStreamPlan, anchor: Option<Anchor>) -> Result<Self, String> {
        let stream = Stream::new(plan)?;
        let (sender, fetched) = bounded(PARTS_WAITING);
        let is_over = Arc::new(AtomicBool::new(false));
        let (follows, trouble) = (plan.follows, stream.trouble.clone());
        let fetcher = Fetcher { stream, sender, is_over: Arc::clone(&is_over), anchor, count: COUNT_MIN };
        std::thread::Builder::new()
            .name("forebay-stream".into())
            .spawn(move || fetcher.run(follows))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { fetched, trouble, is_over })
    }

    /// What has come; none if it has not within that time.
    pub(super) fn take(&self, wait: Duration) -> Option<Fetched> {
        match self.fetched.recv_timeout(wait) {
            Ok(fetched) => Some(fetched),
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => None,
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                Some(Fetched::Failed(StreamError::Away("the thread that reads the stream has ended".into())))
            }
        }
    }
}

struct Fetcher {
    stream: Stream,
    sender: Sender<Fetched>,
    is_over: Arc<AtomicBool>,
    anchor: Option<Anchor>,
    count: usize,
}

impl Fetcher {
    /// Contract of the thread. In: a stream, and where to begin. Out: its entries in order, over a bounded channel, each
    /// once; then `End` or `Failed`. Writes nothing. Ends: at the end that the stream had in the beginning, unless it is
    /// followed; at its first error; when nobody takes entries any more.
    fn run(mut self, follows: bool) {
        let last = match self.fetch_all(follows) {
            Ok(()) => Fetched::End,
            Err(StreamError::Stopped) => return,
            Err(error) => Fetched::Failed(error),
        };
        // If nobody takes it, nobody wants to know.
        let _ = self.send(last);
    }

    fn fetch_all(&mut self, follows: bool) -> Result<(), StreamError> {
        let is_over = Arc::clone(&self.is_over);
        let is_over = || is_over.load(Ordering::Relaxed);
        let last = if follows { None } else { self.stream.newest(&is_over)? };
        // The end is before what was read only if the stream was made anew, which asking for the anchor finds out.
        let last = last.map(|last| self.anchor.map_or(last, |anchor| last.max(anchor.id)));
        if !follows && last.is_none() && self.anchor.is_none() {
            return Ok(());
        }
        let mut is_quiet = false;
        while !is_over() {
            let Part { entries } = self.stream.after(self.anchor, last, self.count, &is_over)?;
            let Some(newest) = entries.last() else {
                if !follows {
                    return Ok(());
                }
                if !std::mem::replace(&mut is_quiet, true) {
                    self.send(Fetched::Nothing)?;
                }
                self.stream.wait(self.anchor, &is_over)?;
                continue;
            };
            is_quiet = false;
            self.anchor = Some(Anchor::of(newest));
            let is_last = last.is_some_and(|last: EntryId| newest.id >= last);
            let bytes: usize = entries.iter().map(Entry::bytes).sum();
            // As many as fit, and not many more than before: the next ones may be larger.
            let fit = PART_BYTES * entries.len() / bytes.max(1);
            self.count = fit.clamp(1, COUNT_MAX).min(self.count * 4);
            self.send(Fetched::Entries(entries))?;
            if is_last {
                return Ok(());
            }
        }
        Err(StreamError::Stopped)
    }

    fn send(&self, mut fetched: Fetched) -> Result<(), StreamError> {
        loop {
            match self.sender.send_timeout(fetched, WAIT_STEP) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(back)) if !self.is_over.load(Ordering::Relaxed) => fetched = back,
                Err(_) => return Err(StreamError::Stopped),
            }
        }
    }
}
