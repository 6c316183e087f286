//! Fetches entries ahead of the reader.

use std::time::Duration;

use super::entry::{Anchor, Entry, EntryId};
use super::plan::RedisStreamPlan;
use super::stream::{Part, Stream, StreamError};
use crate::source::ahead::{Ahead, Halt, Reader};

/// Entries that are asked for at first, and at most.
const COUNT_MIN: usize = 64;
const COUNT_MAX: usize = 8192;
/// Bytes that an answer should have.
const PART_BYTES: usize = 512 * 1024;

/// Fetches what lies behind the anchor, or all: up to the end that the stream had in the beginning, unless it is followed.
pub(super) fn start(plan: &RedisStreamPlan, anchor: Option<Anchor>) -> Result<Ahead<Entry>, String> {
    let mut fetcher = Fetcher { stream: Stream::new(plan)?, anchor, count: COUNT_MIN };
    let follows = plan.follows;
    Ahead::start("forebay-stream", Duration::ZERO, move |reader| {
        fetcher.stream.trouble = reader.trouble.clone();
        fetcher.fetch_all(follows, reader)
    })
}

impl From<StreamError> for Halt {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Away(text) | StreamError::Gone(text) => Self::Failed(text),
            StreamError::Stopped => Self::Stopped,
        }
    }
}

struct Fetcher {
    stream: Stream,
    anchor: Option<Anchor>,
    count: usize,
}

impl Fetcher {
    fn fetch_all(&mut self, follows: bool, reader: &Reader<Entry>) -> Result<(), Halt> {
        let is_over = || reader.is_over();
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
                    reader.give_nothing()?;
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
            reader.give(entries)?;
            if is_last {
                return Ok(());
            }
        }
        Err(Halt::Stopped)
    }
}
