//! Events that cannot be read, on their way through the reader.
//!
//! A source gives one like any other event, with its text and what is wrong with it. It goes through order, forks and
//! skipping as an event of its block, so it counts among the block's events: what is committed is compared and skipped
//! with it, and no restart puts it aside twice. Only at the end of the reader's path it parts from the others: it travels
//! in its page to the batch of its block and not to a lane, or it ends the run (`on_event = "stop"`).
//!
//! An event whose block cannot be read either (a line that is no JSON, say) belongs to the block of the event before it in
//! its file, which [`Followed`] remembers. Before the first event of a file, and where the source has more of them behind
//! the last committed block than were committed, it waits for the next event and belongs to that one's block. So a file
//! says by itself where its lines belong, whatever comes before it later.

use std::sync::Arc;

use super::{SourceError, SourceEvent};
use crate::model::ids::BlockNo;
use crate::model::limits::ASIDE_BYTES_MAX;

/// Why no lane can get an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What is wrong with it.
    pub(crate) error: String,
    /// Whether its block could be read.
    pub(crate) has_block: bool,
    /// Whether its region could be read.
    pub(crate) has_region: bool,
    /// Whether it holds its block and nothing else. Then it is no event: it says that the block is whole.
    pub(crate) is_only_block: bool,
}

/// Tells events without a block of their own where they belong.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// The file of the last event.
    origin: Option<Arc<str>>,
    /// Block and hash of the last event of that file that had one.
    last: Option<(i64, Option<String>)>,
    /// Whether any event had a block.
    has_any: bool,
    /// Events that wait for the next one.
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
}

/// An event that waits, and the place of its file.
pub(super) type Waiting = (SourceEvent, Option<usize>);

impl Followed {
    /// Notes the block of an event; puts one without a block of its own into the block of the event before it in its file.
    /// False if there is none.
    pub(super) fn place(&mut self, event: &mut SourceEvent) -> bool {
        let is_headless = is_headless(event);
        self.has_any |= !is_headless;
        if self.origin.as_ref().is_none_or(|origin| !Arc::ptr_eq(origin, &event.origin)) {
            // A source of one's own may make the name anew for each event.
            if self.origin.as_deref() != Some(&*event.origin) {
                self.last = None;
            }
            self.origin = Some(Arc::clone(&event.origin));
        }
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

    /// Whether any event had a block.
    pub(super) fn has_any(&self) -> bool {
        self.has_any
    }

    /// The next event of that file goes on behind that block.
    pub(super) fn go_on_behind(&mut self, origin: &Arc<str>, block: i64, hash: Option<&str>) {
        (self.origin, self.last) = (Some(Arc::clone(origin)), Some((block, hash.map(str::to_owned))));
        self.has_any = true;
    }

    /// Keeps an event without a block of its own until the next event comes.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) fn wait(&mut self, event: &SourceEvent, file: Option<usize>) -> Result<(), SourceError> {
        self.waiting_bytes += size_of::<Waiting>() + event.json.len();
        self.waiting.push((event.clone(), file));
        if self.waiting_bytes > ASIDE_BYTES_MAX {
            let message = format!("{} lines one after another that cannot be read", self.waiting.len());
            return Err(SourceError::of_event(event, message));
        }
        Ok(())
    }

    /// Whether events wait for one that has a block.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The events that wait, as events of the block of `next`; the first `done` of them as events of block 0.
    pub(super) fn take_waiting(&mut self, next: &SourceEvent, done: u64) -> Vec<Waiting> {
        let mut events = self.take_all();
        for (at, (event, _)) in events.iter_mut().enumerate() {
            let is_done = (at as u64) < done && next.block > 0;
            event.block = if is_done { 0 } else { next.block };
            event.hash = next.hash.clone().filter(|_| !is_done);
            event.parent = next.parent.clone().filter(|_| !is_done);
        }
        events
    }

    /// The events that wait at the end of the source. If it has no other event, they belong to block 0, but no more of them
    /// than the `done` that are committed of it, if there are any; the others are left to a later run, and this is how many.
    pub(super) fn take_last(&mut self, done: u64) -> (Vec<Waiting>, usize) {
        let mut events = self.take_all();
        let taken = match (self.has_any, done) {
            (true, _) => 0,
            (false, 0) => events.len(),
            (false, done) => usize::try_from(done).unwrap_or(usize::MAX).min(events.len()),
        };
        let left = events.len() - taken;
        events.truncate(taken);
        (events, left)
    }

    /// The events that wait, as they came.
    pub(super) fn take_back(&mut self) -> Vec<Waiting> {
        self.take_all()
    }

    fn take_all(&mut self) -> Vec<Waiting> {
        self.waiting_bytes = 0;
        let mut events = std::mem::take(&mut self.waiting);
        for (event, _) in &mut events {
            (event.block, event.seq, event.hash, event.parent) = (0, None, None, None);
        }
        events
    }
}

/// Whether an event cannot be read, and its block neither.
pub(super) fn is_headless(event: &SourceEvent) -> bool {
    event.refused.as_ref().is_some_and(|refused| !refused.has_block)
}

/// The block that an event says to be whole; none if it is an event.
pub(super) fn whole_block(event: &SourceEvent) -> Option<BlockNo> {
    event.refused.as_ref().filter(|refused| refused.is_only_block).map(|_| event.block.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(block: i64, hash: Option<&str>) -> SourceEvent {
        SourceEvent { block, hash: hash.map(str::to_owned), ..SourceEvent::default() }
    }

    fn headless() -> SourceEvent {
        let refused = Refused { error: "no".into(), has_block: false, has_region: false, is_only_block: false };
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
    fn a_file_says_where_its_lines_belong() {
        let mut followed = Followed::default();
        let of = |origin: &str, event: SourceEvent| SourceEvent { origin: Arc::from(origin), ..event };
        assert!(followed.place(&mut of("a", event(5, None))));
        assert!(!followed.place(&mut of("b", headless())), "it waits for the next one of its file");
        assert!(followed.place(&mut of("b", event(3, None))));
        let mut behind = of("b", headless());
        assert!(followed.place(&mut behind));
        assert_eq!(behind.block, 3);
    }

    #[test]
    fn events_that_wait_belong_to_the_next_one() {
        let mut followed = Followed::default();
        let wait = |followed: &mut Followed, count: usize| {
            (0..count).for_each(|at| followed.wait(&headless(), Some(at)).expect("few wait"));
        };
        let blocks = |events: Vec<Waiting>| events.iter().map(|(event, _)| event.block).collect::<Vec<_>>();
        wait(&mut followed, 3);
        let mut next = event(7, Some("h"));
        followed.place(&mut next);
        let taken = followed.take_waiting(&next, 0);
        assert_eq!(taken.iter().map(|(_, file)| *file).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
        assert_eq!(blocks(taken), [7, 7, 7]);
        wait(&mut followed, 3);
        assert_eq!(blocks(followed.take_waiting(&next, 2)), [0, 0, 7]);
        wait(&mut followed, 1);
        assert_eq!(followed.take_last(0), (Vec::new(), 1));
        assert!(!followed.is_waiting());
        for (done, blocks_and_left) in [(0, (vec![0, 0, 0], 0)), (2, (vec![0, 0], 1)), (9, (vec![0, 0, 0], 0))] {
            let mut without = Followed::default();
            wait(&mut without, 3);
            let (taken, left) = without.take_last(done);
            assert_eq!((blocks(taken), left), blocks_and_left);
        }
    }
}
