//! Events that cannot be read, on their way through the reader.
//!
//! A source gives one like any other event, with its text and what is wrong with it. It goes through order, forks and
//! skipping as an event of its block, so it counts among the block's events: what is committed is compared and skipped
//! with it, and no restart puts it aside twice. Only at the end of the reader's path it parts from the others: it travels
//! in its page to the batch of its block and not to a lane, or it ends the run (`on_event = "stop"`).
//!
//! An event whose block cannot be read either (a line that is no JSON, say) belongs to the block of the event before it,
//! which [`Followed`] remembers. Before the first event, and where the source has more of them behind the last committed
//! block than were committed, it waits for the next event and belongs to that one's block.

use super::SourceEvent;

/// Why no lane can get an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What is wrong with it.
    pub(crate) error: String,
    /// Whether its block could be read.
    pub(crate) has_block: bool,
    /// Whether its region could be read.
    pub(crate) has_region: bool,
}

/// Tells events without a block of their own where they belong.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Block and hash of the last event that had one.
    last: Option<(i64, Option<String>)>,
    /// Events that wait for the next one.
    waiting: Vec<SourceEvent>,
    waiting_bytes: usize,
}

impl Followed {
    /// Notes the block of an event; puts one without a block of its own into the block of the event before it. False if
    /// there is none.
    pub(super) fn place(&mut self, event: &mut SourceEvent) -> bool {
        let is_headless = is_headless(event);
        match (&mut self.last, is_headless) {
            (Some((block, hash)), true) => {
                event.block = *block;
                event.hash.clone_from(hash);
                (event.parent, event.seq) = (None, None);
                true
            }
            (None, true) => false,
            (Some((block, hash)), false) => {
                // An event that comes too late is no place to be. One with a hash may be on another branch.
                if event.block >= *block || event.hash.is_some() {
                    *block = event.block;
                    if *hash != event.hash {
                        hash.clone_from(&event.hash);
                    }
                }
                true
            }
            (none, false) => {
                *none = Some((event.block, event.hash.clone()));
                true
            }
        }
    }

    /// Keeps an event without a block of its own until the next event comes. Returns the bytes of all that wait.
    pub(super) fn wait(&mut self, event: &SourceEvent) -> usize {
        self.waiting_bytes += size_of::<SourceEvent>() + event.json.len();
        self.waiting.push(event.clone());
        self.waiting_bytes
    }

    /// How many events wait for one that has a block.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The events that wait, as events of the block of `next`; the first `done` of them as events of block 0.
    pub(super) fn take_waiting(&mut self, next: &SourceEvent, done: u64) -> Vec<SourceEvent> {
        let mut events = self.take_all();
        for (at, event) in events.iter_mut().enumerate() {
            let is_done = (at as u64) < done && next.block > 0;
            event.block = if is_done { 0 } else { next.block };
            event.hash = next.hash.clone().filter(|_| !is_done);
            event.parent = next.parent.clone().filter(|_| !is_done);
        }
        events
    }

    /// The events that wait at the end of the source. If it has no other event, they belong to block 0; else they are
    /// left to a later run, and this is how many.
    pub(super) fn take_last(&mut self) -> (Vec<SourceEvent>, usize) {
        let events = self.take_all();
        match self.last {
            None => (events, 0),
            Some(_) => (Vec::new(), events.len()),
        }
    }

    fn take_all(&mut self) -> Vec<SourceEvent> {
        self.waiting_bytes = 0;
        let mut events = std::mem::take(&mut self.waiting);
        for event in &mut events {
            (event.block, event.seq, event.hash, event.parent) = (0, None, None, None);
        }
        events
    }
}

/// Whether an event cannot be read, and its block neither.
pub(super) fn is_headless(event: &SourceEvent) -> bool {
    event.refused.as_ref().is_some_and(|refused| !refused.has_block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(block: i64, hash: Option<&str>) -> SourceEvent {
        SourceEvent { block, hash: hash.map(str::to_owned), ..SourceEvent::default() }
    }

    fn headless() -> SourceEvent {
        let refused = Refused { error: "no".into(), has_block: false, has_region: false };
        SourceEvent { refused: Some(Box::new(refused)), ..SourceEvent::default() }
    }

    #[test]
    fn an_event_without_a_block_belongs_to_the_one_before_it() {
        let mut followed = Followed::default();
        assert!(!followed.place(&mut headless()), "there is none before it");
        for (given, block, hash) in [
            (event(5, None), 5, None),
            // Its place has passed.
            (event(3, None), 5, None),
            (event(6, Some("a")), 6, Some("a")),
            // It may be on another branch.
            (event(6, Some("b")), 6, Some("b")),
            (event(4, Some("c")), 4, Some("c")),
        ] {
            let mut given = given;
            assert!(followed.place(&mut given));
            let mut behind = headless();
            assert!(followed.place(&mut behind));
            assert_eq!((behind.block, behind.hash.as_deref()), (block, hash));
        }
    }

    #[test]
    fn events_that_wait_belong_to_the_next_one() {
        let mut followed = Followed::default();
        for _ in 0..3 {
            followed.wait(&headless());
        }
        let blocks = |events: Vec<SourceEvent>| events.iter().map(|event| event.block).collect::<Vec<_>>();
        let mut next = event(7, Some("h"));
        followed.place(&mut next);
        assert_eq!(blocks(followed.take_waiting(&next, 0)), [7, 7, 7]);
        for _ in 0..3 {
            followed.wait(&headless());
        }
        assert_eq!(blocks(followed.take_waiting(&next, 2)), [0, 0, 7]);
        followed.wait(&headless());
        assert_eq!(followed.take_last(), (Vec::new(), 1));
        assert_eq!(followed.waiting(), 0);
        let mut without = Followed::default();
        without.wait(&headless());
        assert_eq!(blocks(without.take_last().0), [0]);
    }
}
