//! The digest of a source: each event hashed with its block and place, and summed up.
//!
//! The hash is XXH3 with 128 bits: it notices what changed by accident, at a small part of what reading costs, and its
//! values are the same on every machine (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>).

use xxhash_rust::xxh3::xxh3_128;

use super::SourceEvent;
use crate::model::ids::BlockNo;
use crate::model::source_progress::SourceDigest;

/// Hashes of one block that are kept to notice that it came twice; of a larger block nothing is noticed.
const BLOCK_HASHES_MAX: usize = 1 << 20;

/// What one event adds.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventDigest {
    /// The hash of its line alone.
    pub(super) line: u128,
    /// What it adds to the sum: the line, the block and the place.
    pub(super) sum: SourceDigest,
}

impl EventDigest {
    /// The hash of the line of an event that is left out.
    pub(super) fn of_line(event: &SourceEvent) -> u128 {
        xxh3_128(event.json.as_bytes())
    }
}

/// Counts the events of the block that is being read.
#[derive(Debug, Default)]
pub(super) struct Tally {
    block: Option<BlockNo>,
    events: u64,
    /// The hashes of its lines.
    lines: Vec<u64>,
}

impl Tally {
    /// Goes on after so many events of a block.
    pub(super) fn at(block: BlockNo, events: u64) -> Self {
        Self { block: Some(block), events, lines: Vec::new() }
    }

    /// Hashes the next event of the source. Without a place of its own an event has that of its order within the block.
    pub(super) fn pass(&mut self, event: &SourceEvent) -> EventDigest {
        let block = BlockNo::new(event.block);
        if self.block != Some(block) {
            (self.block, self.events) = (Some(block), 0);
            self.lines.clear();
        }
        let line = xxh3_128(event.json.as_bytes());
        let place = event.seq.unwrap_or(self.events as i64);
        self.events += 1;
        if self.lines.len() < BLOCK_HASHES_MAX {
            self.lines.push(line as u64);
        }
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&line.to_le_bytes());
        bytes[16..24].copy_from_slice(&event.block.to_le_bytes());
        bytes[24..].copy_from_slice(&place.to_le_bytes());
        EventDigest { line, sum: SourceDigest::new(xxh3_128(&bytes)) }
    }

    /// Whether the block has had a line like this one. Of a block with too many lines we assume so.
    pub(super) fn holds(&self, event: &SourceEvent) -> bool {
        let line = EventDigest::of_line(event) as u64;
        let is_all = self.events == self.lines.len() as u64;
        self.block.is_some_and(|block| block.get() == event.block) && (!is_all || self.lines.contains(&line))
    }

    /// Events of the block so far.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// The block whose events are the same twice over, byte for byte, if that is the one that ends here.
    pub(super) fn came_twice(&self) -> Option<BlockNo> {
        let half = self.lines.len() / 2;
        let is_twice = half > 0
            && self.events == self.lines.len() as u64
            && self.lines.len() == 2 * half
            && self.lines[..half] == self.lines[half..];
        self.block.filter(|_| is_twice)
    }

    /// Whether the event begins another block than the one that is being read.
    pub(super) fn ends_before(&self, event: &SourceEvent) -> bool {
        self.block.is_some_and(|block| block.get() != event.block)
    }
}

/// Goes on with a hash over lines in order.
pub(super) fn chain(content: SourceDigest, line: u128) -> SourceDigest {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&content.get().to_le_bytes());
    bytes[16..].copy_from_slice(&line.to_le_bytes());
    SourceDigest::new(xxh3_128(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(block: i64, seq: Option<i64>, json: &str) -> SourceEvent {
        SourceEvent { block, seq, json: json.into(), ..SourceEvent::default() }
    }

    fn sum(events: &[SourceEvent]) -> SourceDigest {
        let mut tally = Tally::default();
        events.iter().fold(SourceDigest::default(), |sum, event| sum.plus(tally.pass(event).sum))
    }

    #[test]
    fn the_same_events_have_the_same_sum_and_others_do_not() {
        let [a, b, c] = [event(1, None, "a"), event(1, None, "b"), event(2, None, "a")];
        let all = sum(&[a.clone(), b.clone(), c.clone()]);
        assert_eq!(all, sum(&[a.clone(), b.clone(), c.clone()]));
        for others in [
            vec![b.clone(), a.clone(), c.clone()],
            vec![a.clone(), c.clone()],
            vec![a.clone(), b.clone(), c.clone(), c.clone()],
            vec![a.clone(), b.clone(), event(3, None, "a")],
            vec![a.clone(), event(1, None, "B"), c.clone()],
        ] {
            assert_ne!(all, sum(&others), "{others:?}");
        }
        // With places of their own the order does not count.
        let [a, b] = [event(1, Some(4), "a"), event(1, Some(7), "b")];
        assert_eq!(sum(&[a.clone(), b.clone()]), sum(&[b, a.clone()]));
        assert_ne!(sum(&[a]), sum(&[event(1, Some(5), "a")]));
    }

    #[test]
    fn the_sum_is_the_same_for_ever() {
        // The empty input's value is in the specification of XXH3: stored sums must stay comparable.
        assert_eq!(xxh3_128(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }

    #[test]
    fn a_block_that_came_twice_is_noticed() {
        let mut tally = Tally::default();
        for (json, came_twice) in [("a", false), ("b", false), ("a", false), ("b", true), ("a", false)] {
            tally.pass(&event(3, None, json));
            assert_eq!(tally.came_twice().is_some(), came_twice, "{json}");
        }
        tally.pass(&event(4, None, "a"));
        assert!(tally.came_twice().is_none() && tally.ends_before(&event(5, None, "a")));
    }
}
