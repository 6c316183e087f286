//! Taking entries out of a stream once they are committed.

use super::entry::Anchor;
use super::plan::RedisStreamPlan;
use super::stream::{Stream, StreamError};
use crate::source::{Acknowledge, Position};

/// Trims a stream up to what is committed. The last entry that is committed stays: it is the anchor of the next run.
pub(super) struct Trimmer {
    stream: Stream,
    has_failed: bool,
}

impl Trimmer {
    pub(super) fn new(plan: &RedisStreamPlan) -> Result<Self, String> {
        Ok(Self { stream: Stream::new(plan)?.impatient(), has_failed: false })
    }

    fn trim(&mut self, position: &Position) -> Result<(), StreamError> {
        let Some(anchor) = Anchor::parse(position.as_str()) else { return Ok(()) };
        // A stream that was made anew may have smaller ids, which nobody has read.
        self.stream.after(Some(anchor), Some(anchor.id), 0, &|| false)?;
        self.stream.trim(anchor)
    }
}

impl Acknowledge for Trimmer {
    fn committed(&mut self, position: &Position) {
        match self.trim(position) {
            Ok(()) => self.has_failed = false,
            Err(StreamError::Away(text) | StreamError::Gone(text)) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::warn!("what is committed was not taken out of the stream: {text}");
                }
            }
            Err(StreamError::Stopped) => {}
        }
    }
}
