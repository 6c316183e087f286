//! A source whose late events stand in their place: it is read twice, and what came late the first time is handed out
//! where it belongs the second time.
//!
//! The order is that of blocks, then of places, then of the source. A line that comes late and is the same as one of its
//! block, byte for byte or by its place, is a second delivery: it counts once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::contents::Contents;
use super::digest::EventDigest;
use super::file_log::same_lines;
use super::order::Order;
use super::refused::{Followed, Waiting, is_headless, whole_block};
use super::stats::ReadStats;
use super::{FileStamp, Late, Next, Source, SourceError, SourceEvent};
use crate::model::ids::BlockNo;
use crate::model::limits::LATE_BYTES_MAX;
use crate::model::source_progress::SourceDigest;

/// A source of nothing, in the place of one that is being wrapped.
pub(super) struct NoSource;

impl Source for NoSource {
    fn next(&mut self, _: &mut SourceEvent) -> Result<Next, SourceError> {
        Ok(Next::End)
    }
}

/// Late events, by block, in the order of their places.
type LateEvents = BTreeMap<i64, VecDeque<SourceEvent>>;

/// The source, and what of it comes late.
pub(super) struct Merged {
    inner: Box<dyn Source>,
    late: LateEvents,
    /// What is left of them.
    left: LateEvents,
    /// Where the source stands in its own order.
    order: Order,
    /// An event of the source that waits until late ones before it are handed out.
    waiting: Option<SourceEvent>,
    is_ended: bool,
    /// Where events belong that do not say so.
    followed: Followed,
    /// Events of block 0 that are committed, if all that is committed are events without a block.
    leading_done: u64,
    /// Which stored files are there.
    contents: Contents,
    /// The content of every file, so that no file is read under two names.
    whole: HashMap<SourceDigest, usize>,
    /// Events whose block is known since the one behind them was read, and that one.
    read: VecDeque<Waiting>,
    /// The place of the file of the last event.
    file: Option<usize>,
    /// Whether it is known what comes late.
    is_scanned: bool,
    /// Second deliveries, as far as the source was handed out.
    again: u64,
    /// Those among the late events.
    late_again: u64,
    stats: Arc<ReadStats>,
}

impl Merged {
    /// The source as it is; its late events are found when it is rewound.
    pub(super) fn new(inner: Box<dyn Source>, stats: Arc<ReadStats>, leading_done: u64, contents: Contents) -> Self {
        let order = new_order();
        let (late, left) = (LateEvents::new(), LateEvents::new());
        Self {
            inner,
            late,
            left,
            order,
            waiting: None,
            is_ended: false,
            followed: Followed::default(),
            leading_done,
            contents,
            whole: HashMap::new(),
            read: VecDeque::new(),
            file: None,
            is_scanned: false,
            again: 0,
            late_again: 0,
            stats,
        }
    }

    /// The source begins again.
    fn start_again(&mut self) {
        (self.order, self.followed) = (new_order(), Followed::default());
        (self.waiting, self.is_ended) = (None, false);
        self.read.clear();
    }

    /// Reads the source to its end and keeps what comes late.
    fn scan(&mut self) -> Result<(), SourceError> {
        (self.late, self.contents) = (LateEvents::new(), self.contents.anew());
        let (mut event, mut bytes, mut file) = (SourceEvent::default(), 0, None);
        loop {
            let next = self.read(&mut event)?;
            let is_same_file = next == Next::Event && file == self.file;
            if !is_same_file {
                self.end_file(file)?;
            }
            if next == Next::Event {
                file = self.file;
                self.contents.add(EventDigest::of_line(&event));
            }
            match next {
                Next::Event if is_late(&mut self.order, &event) => {
                    bytes += event.json.len() + size_of::<SourceEvent>();
                    if bytes > LATE_BYTES_MAX {
                        let message = format!(
                            "more than {} MiB of events come late: too many to be put in their place; name the files in \
                             the order of their blocks, or sort them",
                            LATE_BYTES_MAX >> 20
                        );
                        return Err(SourceError::of_event(&event, message));
                    }
                    self.keep(&event);
                }
                Next::Event | Next::Whole { .. } | Next::Pending => {}
                Next::Rollback { .. } => {
                    return Err(SourceError::of_event(
                        &event,
                        "late = \"replay\" cannot follow a source that rolls back",
                    ));
                }
                Next::End => return Ok(()),
            }
        }
    }

    /// Ends the file of that place, all of whose lines were seen.
    fn end_file(&mut self, file: Option<usize>) -> Result<(), SourceError> {
        let content = self.contents.content();
        if let Some(at) = file.filter(|_| content != SourceDigest::default())
            && let Some(other) = self.whole.insert(content, at)
        {
            let stamps = self.inner.files();
            let name = |at: usize| stamps.get(at).map_or("", |stamp| stamp.name.as_str());
            return Err(same_lines(name(at), name(other)));
        }
        self.contents.begin();
        Ok(())
    }

    /// Which stored files are there, as far as the source was read.
    pub(super) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The first block of which an event comes late.
    pub(super) fn first_late(&self) -> Option<BlockNo> {
        self.late.first_key_value().map(|(block, _)| BlockNo::new(*block))
    }

    /// Reads the next event, in the block to which it belongs.
    fn read(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        loop {
            if let Some((read, file)) = self.read.pop_front() {
                (*event, self.file) = (read, file);
                return Ok(Next::Event);
            }
            let next = self.inner.next(event)?;
            self.file = self.inner.file();
            match next {
                Next::Event if whole_block(event).is_some() => {}
                Next::Event if !self.followed.place(event) => self.followed.wait(event, self.file)?,
                Next::Event => {
                    if let Some(refused) = &mut event.refused {
                        refused.has_block = true;
                    }
                    if !self.followed.is_waiting() {
                        return Ok(next);
                    }
                    let before = self.followed.take_waiting(event, self.leading_done).into_iter().map(with_block);
                    self.read = before.chain([(event.clone(), self.file)]).collect();
                }
                // What no event follows has no block.
                Next::End if self.followed.is_waiting() => self.read = self.followed.take_back().into(),
                Next::Rollback { .. } | Next::Whole { .. } | Next::Pending | Next::End => return Ok(next),
            }
        }
    }

    fn keep(&mut self, event: &SourceEvent) {
        let events = self.late.entry(event.block).or_default();
        if events.iter().any(|other| is_again(other, event)) {
            self.late_again += 1;
            return;
        }
        let at = match event.seq {
            Some(seq) => events.partition_point(|other| other.seq.is_some_and(|other| other < seq)),
            None => events.len(),
        };
        events.insert(at, event.clone());
    }

    /// Whether a late event comes before this one.
    fn is_before(&self, event: &SourceEvent) -> bool {
        let Some((block, events)) = self.left.first_key_value() else { return false };
        let seq = events.front().and_then(|late| late.seq);
        *block < event.block || *block == event.block && seq.is_some_and(|late| event.seq.is_some_and(|seq| late < seq))
    }

    /// Drops late events that this one shows to be second deliveries.
    fn drop_again(&mut self, event: &SourceEvent) -> Result<(), SourceError> {
        let Some(events) = self.left.get_mut(&event.block) else { return Ok(()) };
        let other = events.iter().find(|late| late.seq.is_some() && late.seq == event.seq && late.json != event.json);
        if let Some(late) = other {
            let message = format!(
                "block {} has two events of place {}, and they differ; the other is {}:{}",
                event.block,
                event.seq.unwrap_or_default(),
                event.origin,
                event.line
            );
            return Err(SourceError::of_event(late, message));
        }
        let before = events.len();
        events.retain(|late| !is_again(late, event));
        self.again += (before - events.len()) as u64;
        if events.is_empty() {
            self.left.remove(&event.block);
        }
        Ok(())
    }

    fn pop(&mut self, event: &mut SourceEvent) -> bool {
        let Some(mut first) = self.left.first_entry() else { return false };
        let late = first.get_mut().pop_front();
        if first.get().is_empty() {
            first.remove();
        }
        late.map(|late| *event = late).is_some()
    }

    /// The next event of the source that is not late.
    fn next_in_order(&mut self, event: &mut SourceEvent) -> Result<bool, SourceError> {
        if let Some(waiting) = self.waiting.take() {
            *event = waiting;
            return Ok(true);
        }
        while !self.is_ended {
            match self.read(event)? {
                Next::Event if is_late(&mut self.order, event) => {}
                Next::Event => {
                    self.drop_again(event)?;
                    return Ok(true);
                }
                // Late events of a whole block are handed out later than that is said.
                Next::Whole { .. } | Next::Pending => {}
                Next::Rollback { .. } | Next::End => self.is_ended = true,
            }
        }
        Ok(false)
    }

    /// The next event in its place.
    fn next_event(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        if !self.next_in_order(event)? {
            let is_event = self.pop(event);
            if !is_event && self.again > 0 {
                let again = std::mem::take(&mut self.again);
                self.stats.late.fetch_add(again, std::sync::atomic::Ordering::Relaxed);
                tracing::warn!("{again} events came a second time and were left out");
            }
            return Ok(if is_event { Next::Event } else { Next::End });
        }
        if self.is_before(event) {
            self.waiting = Some(event.clone());
            self.pop(event);
        }
        Ok(Next::Event)
    }
}

fn with_block((mut event, file): Waiting) -> Waiting {
    if let Some(refused) = &mut event.refused {
        refused.has_block = true;
    }
    (event, file)
}

fn new_order() -> Order {
    Order::new(Late::Skip, Arc::default())
}

/// Whether an event comes late in its source.
fn is_late(order: &mut Order, event: &SourceEvent) -> bool {
    if is_headless(event) {
        // It waits for the first event that has a block.
        return false;
    }
    if order.last_block().is_some_and(|last| event.block < last) {
        // Only what is not left out has an error.
        let _ = order.late_block(event, false);
        return true;
    }
    let is_in_place = order.is_in_place(event, || true).unwrap_or(false);
    if is_in_place {
        order.note(event);
    }
    !is_in_place
}

/// Whether both are the same event.
fn is_again(late: &SourceEvent, event: &SourceEvent) -> bool {
    late.block == event.block && late.seq == event.seq && late.json == event.json
}

impl Source for Merged {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        let next = self.next_event(event)?;
        // What follows an event here does not follow its position in the source.
        event.position = None;
        Ok(next)
    }

    fn files(&self) -> Vec<FileStamp> {
        self.inner.files()
    }

    fn leave_out(&mut self, is_left_out: &[bool]) {
        self.inner.leave_out(is_left_out);
    }

    fn rewind(&mut self) -> Result<bool, SourceError> {
        if !self.inner.rewind()? {
            return Ok(false);
        }
        if !self.is_scanned {
            self.start_again();
            self.scan()?;
            self.is_scanned = true;
            if !self.inner.rewind()? {
                return Ok(false);
            }
        }
        self.start_again();
        (self.left, self.again) = (self.late.clone(), self.late_again);
        Ok(true)
    }

    fn file(&self) -> Option<usize> {
        // Where late events lie between others, no file is read from its beginning to its end.
        self.file.filter(|_| self.late.is_empty())
    }

    fn bytes_read(&self) -> u64 {
        self.inner.bytes_read()
    }

    fn bytes_total(&self) -> Option<u64> {
        self.inner.bytes_total()
    }
}
