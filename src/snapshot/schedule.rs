//! When snapshots are due.

use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::model::units::parse_duration;

/// When snapshots are computed. Always also at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Every {
    /// At the end of each batch.
    Batch,
    /// After each this many blocks of the data, counted from the pipeline's first.
    Blocks(u64),
    /// When this much time has passed since the last ones.
    Time(Duration),
    /// Only at the end of a run.
    End,
}

impl FromStr for Every {
    type Err = String;

    /// Reads `batch`, `end`, `N blocks`, or a span of time.
    fn from_str(text: &str) -> Result<Self, String> {
        let refused =
            || format!("expected \"batch\", \"end\", \"100 blocks\" or a duration such as \"10s\", got {text:?}");
        match text {
            "batch" => return Ok(Every::Batch),
            "end" => return Ok(Every::End),
            _ => {}
        }
        if let Some(count) = text.strip_suffix("blocks").or_else(|| text.strip_suffix("block")) {
            let count: u64 = count.trim().parse().map_err(|_| refused())?;
            return if count == 0 { Err(refused()) } else { Ok(Every::Blocks(count)) };
        }
        match parse_duration(text) {
            Ok(span) if !span.is_zero() => Ok(Every::Time(span)),
            _ => Err(refused()),
        }
    }
}

/// Says when snapshots are due.
#[derive(Debug)]
pub(crate) struct Schedule {
    every: Every,
    last: Instant,
}

impl Schedule {
    /// A schedule that begins now.
    pub(crate) fn new(every: Every) -> Self {
        Self { every, last: Instant::now() }
    }

    /// Goes by another rule from now on; the time since the last ones goes on.
    pub(crate) fn set_every(&mut self, every: Every) {
        self.every = every;
    }

    /// Whether snapshots are due at the end of a batch after which `blocks` have been handled in all.
    pub(crate) fn is_due(&self, blocks: u64) -> bool {
        match self.every {
            Every::Batch => true,
            Every::Blocks(count) => blocks.is_multiple_of(count.max(1)),
            Every::Time(span) => self.last.elapsed() >= span,
            Every::End => false,
        }
    }

    /// Whether time alone has made them due, without a new block.
    pub(crate) fn is_due_by_time(&self) -> bool {
        matches!(self.every, Every::Time(_)) && self.is_due(0)
    }

    /// How many more blocks may join a batch, after `blocks` in all, before it has to end for its snapshots.
    pub(crate) fn blocks_until_due(&self, blocks: u64) -> u64 {
        match self.every {
            Every::Blocks(count) => count.max(1) - blocks % count.max(1),
            _ => u64::MAX,
        }
    }

    /// Notes that they were computed.
    pub(crate) fn done(&mut self) {
        self.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_read() {
        assert_eq!("20 blocks".parse(), Ok(Every::Blocks(20)));
        assert_eq!("10s".parse(), Ok(Every::Time(Duration::from_secs(10))));
        for text in ["", "0 blocks", "x blocks", "0s", "never"] {
            assert!(text.parse::<Every>().is_err(), "{text}");
        }
    }

    #[test]
    fn blocks_are_counted_from_the_first() {
        let schedule = Schedule::new(Every::Blocks(5));
        assert_eq!(schedule.blocks_until_due(0), 5);
        assert_eq!(schedule.blocks_until_due(7), 3);
        assert!(schedule.is_due(10) && !schedule.is_due(11));
    }
}
