//! The page writer: packs events into pages, numbers regions, and hands pages over within the budget of bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender};
use foldhash::fast::RandomState;

use super::block_chain::Header;
use super::stats::ReadStats;
use super::{Source, SourceError, SourceEvent};
use crate::model::byte_budget::ByteBudget;
use crate::model::event::{EventRef, Page, Refusal, position_bytes};
use crate::model::ids::{BlockNo, RegionNo};
use crate::model::limits::{PAGE_BYTES, WAIT_STEP};
use crate::model::position::Position;
use crate::model::source_progress::{BlockSum, SourceDigest, SourceFile, SourceProgress};
use crate::timeline::{Activity, Recorder, Stage};

/// Waits shorter than this are not recorded.
const WAIT_NOTED_MIN: Duration = Duration::from_micros(20);

/// What the reader sends.
pub(crate) enum FromReader {
    Page(Page),
    /// Everything after this block is to be undone before anything else.
    Rollback {
        to: BlockNo,
        /// Because late events are put in their place; else the source has abandoned the blocks.
        is_replay: bool,
    },
    /// What was found out about the source: what of it is committed, if that was not known, the position after that, and
    /// files that were read.
    Source {
        progress: Option<SourceProgress>,
        position: Option<Position>,
        files: Vec<SourceFile>,
    },
    /// This block and all before it are whole: no event of them comes any more.
    Whole {
        block: BlockNo,
    },
    /// The source has nothing for now.
    Idle,
    End {
        /// The last block may go on in another run.
        is_open: bool,
    },
    Failed {
        error: SourceError,
        /// The block of the event that is to blame, if it is known: what comes before it is whole.
        block: Option<BlockNo>,
    },
}

/// Why the reader stops before the end of its source.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nobody takes pages any more.
    Gone,
    /// The source, or what it gave.
    Failed(SourceError),
    /// An event of this block came late: all from there on is to be handled again.
    Replay(Replay),
    /// An event that cannot be handled, and its block.
    Refused(SourceError, BlockNo),
}

/// From where the source is to be handled again, and why.
#[derive(Debug)]
pub(super) struct Replay {
    /// The first block that is to be handled again.
    pub(super) from: BlockNo,
    /// The error that it would be without a replay.
    pub(super) why: SourceError,
}

impl Stop {
    /// The source fails where that is the last block. Where an input breaks off or is broken, the blocks before are whole.
    pub(super) fn at(tip: Option<&Header>, error: SourceError) -> Self {
        match (tip, &error) {
            (Some(tip), SourceError::Broken { .. }) => Self::Refused(error, tip.block),
            _ => Self::Failed(error),
        }
    }
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

/// Where pages go: a bounded channel, within a budget of bytes.
pub(super) struct PageSink {
    pub(super) pages: Sender<FromReader>,
    pub(super) budget: Arc<ByteBudget>,
    pub(super) stats: Arc<ReadStats>,
    pub(super) recorder: Arc<Recorder>,
}

/// Packs events into pages and hands them over.
pub(super) struct PageWriter {
    sink: PageSink,
    page: Page,
    /// Bytes of the page's positions.
    position_bytes: usize,
    /// Whether the source has given a position.
    has_positions: bool,
    regions: HashMap<Arc<str>, RegionNo, RandomState>,
    /// Whether pages carry the places of their events.
    keeps_places: bool,
    started_at: Instant,
    /// Since when the reader works without having waited.
    working_since: Instant,
    /// How long it has waited for room.
    waited: Duration,
    /// How long the source had nothing for it.
    idle: Duration,
    /// Since when that is so.
    idle_since: Option<Instant>,
}

impl PageWriter {
    /// A writer with an empty page. `known_regions` have their numbers already.
    pub(super) fn new(sink: PageSink, known_regions: &[Arc<str>], keeps_places: bool) -> Self {
        let now = Instant::now();
        Self {
            sink,
            page: empty_page(&Arc::from("source"), 0),
            position_bytes: 0,
            has_positions: false,
            regions: known_regions
                .iter()
                .zip(RegionNo::in_order())
                .map(|(region, no)| (Arc::clone(region), no))
                .collect(),
            keeps_places,
            started_at: now,
            working_since: now,
            waited: Duration::ZERO,
            idle: Duration::ZERO,
            idle_since: None,
        }
    }

    /// The reader's thread begins to work.
    pub(super) fn start(&mut self) {
        self.started_at = Instant::now();
        self.working_since = self.started_at;
    }

    /// Whether the page is to be handed over before more goes in.
    pub(super) fn is_full(&self) -> bool {
        self.page.text.len() + self.position_bytes >= PAGE_BYTES
    }

    /// Appends an event. Hands the page over first if the event is of another file.
    ///
    /// # Errors
    /// Nobody takes pages any more, or the event is too long.
    pub(super) fn push(&mut self, event: &SourceEvent, sum: SourceDigest, source: &dyn Source) -> Result<(), Stop> {
        self.begin(event, source)?;
        let region = self.region_no(&event.region);
        self.append(event, region, sum)
    }

    /// Appends an event that no lane gets.
    ///
    /// # Errors
    /// Nobody takes pages any more, or the event is too long.
    pub(super) fn push_refused(
        &mut self,
        event: &SourceEvent,
        refusal: Refusal,
        sum: SourceDigest,
        source: &dyn Source,
    ) -> Result<(), Stop> {
        self.begin(event, source)?;
        let at = u32::try_from(self.page.events.len()).unwrap_or(u32::MAX);
        self.append(event, RegionNo::default(), sum)?;
        self.page.refused.push((at, refusal));
        Ok(())
    }

    fn begin(&mut self, event: &SourceEvent, source: &dyn Source) -> Result<(), Stop> {
        if !Arc::ptr_eq(&self.page.origin, &event.origin) {
            self.flush(source)?;
            self.page.origin = Arc::clone(&event.origin);
            self.page.origin_no = self.page.origin_no.saturating_add(1);
        }
        Ok(())
    }

    fn append(&mut self, event: &SourceEvent, region: RegionNo, sum: SourceDigest) -> Result<(), Stop> {
        let too_long = || SourceError::of_event(event, "the event is longer than 4 GiB");
        let start = u32::try_from(self.page.text.len()).map_err(|_| too_long())?;
        let len = u32::try_from(event.json.len()).map_err(|_| too_long())?;
        if let Some(hash) = &event.hash
            && self.page.hashes.last().is_none_or(|(block, _)| block.get() != event.block)
        {
            self.page.hashes.push((event.block.into(), Arc::from(hash.as_str())));
        }
        let (block, sum) = (BlockNo::new(event.block), BlockSum::new(sum, event.seq));
        match self.page.sums.last_mut() {
            Some((last, before)) if *last == block => before.append(sum),
            _ => self.page.sums.push((block, sum)),
        }
        self.has_positions |= event.position.is_some();
        if self.has_positions {
            self.note_position(event.block.into(), event.position.as_ref());
        }
        if self.keeps_places {
            self.page.places.push(event.seq);
        }
        self.page.text.push_str(&event.json);
        self.page.events.push(EventRef { start, len, line: event.line, block: event.block.into(), region });
        Ok(())
    }

    /// Of each block the last position counts: its buffer is used again. Behind an event without one it is not known.
    fn note_position(&mut self, block: BlockNo, position: Option<&Position>) {
        match self.page.positions.last_mut() {
            Some((last, noted)) if *last == block => {
                self.position_bytes -= position_bytes(noted.as_ref());
                match (noted, position) {
                    (Some(noted), Some(position)) => noted.clone_from(position),
                    (noted, position) => *noted = position.cloned(),
                }
            }
            _ => self.page.positions.push((block, position.cloned())),
        }
        self.position_bytes += position_bytes(position);
    }

    fn region_no(&mut self, region: &str) -> RegionNo {
        if let Some(no) = self.regions.get(region) {
            return *no;
        }
        let name: Arc<str> = Arc::from(region);
        let no = RegionNo::at(self.regions.len());
        self.regions.insert(Arc::clone(&name), no);
        self.page.new_regions.push(name);
        no
    }

    /// Hands the page over, if there is anything in it. Waits for room.
    ///
    /// # Errors
    /// Nobody takes pages any more.
    pub(super) fn flush(&mut self, source: &dyn Source) -> Result<(), Stop> {
        if self.page.events.is_empty() {
            return Ok(());
        }
        if let Some(last) = self.page.events.last() {
            self.sink.stats.note_block(last.block.get());
        }
        let waiting = Instant::now();
        self.sink.recorder.span(Stage::Read, Activity::Working, 0, self.working_since, waiting);
        let bytes = self.page.text.len() + self.page.events.len() * size_of::<EventRef>() + self.position_bytes;
        let lease = loop {
            if self.sink.stats.stop.load(Ordering::Relaxed) {
                return Err(Stop::Gone);
            }
            if let Some(lease) = self.sink.budget.take(bytes, WAIT_STEP) {
                break lease;
            }
        };
        let empty = empty_page(&self.page.origin, self.page.origin_no);
        let mut page = std::mem::replace(&mut self.page, empty);
        self.position_bytes = 0;
        page.source_bytes_read = source.bytes_read();
        page.lease = Some(lease);
        let sent = self.send(FromReader::Page(page));
        let waited = waiting.elapsed();
        self.waited += waited;
        self.working_since = waiting + waited;
        if waited > WAIT_NOTED_MIN {
            self.sink.recorder.span(Stage::Read, Activity::WaitingForRoom, 0, waiting, self.working_since);
        }
        sent
    }

    /// # Errors
    /// Nobody takes pages any more.
    pub(super) fn check_wanted(&self) -> Result<(), Stop> {
        if self.sink.stats.stop.load(Ordering::Relaxed) { Err(Stop::Gone) } else { Ok(()) }
    }

    /// Sends a message after the pages. Waits for room in the channel.
    ///
    /// # Errors
    /// Nobody takes pages any more.
    pub(super) fn send(&self, mut message: FromReader) -> Result<(), Stop> {
        loop {
            match self.sink.pages.send_timeout(message, WAIT_STEP) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(back)) if !self.sink.stats.stop.load(Ordering::Relaxed) => message = back,
                Err(_) => return Err(Stop::Gone),
            }
        }
    }

    /// The source has nothing since then, and what it gave is handed over.
    pub(super) fn begin_idle(&mut self, since: Instant) {
        self.idle_since = Some(since);
    }

    /// The source gives something again.
    pub(super) fn end_idle(&mut self, now: Instant) {
        let Some(since) = self.idle_since.take() else { return };
        self.sink.recorder.span(Stage::Read, Activity::WaitingForSource, 0, since, now);
        self.idle += now.saturating_duration_since(since);
        self.working_since = now;
    }

    /// Shares how long the reader has worked and waited.
    pub(super) fn note_busy(&self) {
        let idle = self.idle + self.idle_since.map_or(Duration::ZERO, |since| since.elapsed());
        let busy = self.started_at.elapsed().saturating_sub(self.waited + idle);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sink.stats.blocked_nanos.store(nanos(self.waited), Ordering::Relaxed);
        self.sink.stats.busy_nanos.store(nanos(busy), Ordering::Relaxed);
    }
}

fn empty_page(origin: &Arc<str>, origin_no: u16) -> Page {
    Page {
        text: String::with_capacity(PAGE_BYTES + PAGE_BYTES / 8),
        events: Vec::new(),
        origin: Arc::clone(origin),
        origin_no,
        new_regions: Vec::new(),
        hashes: Vec::new(),
        sums: Vec::new(),
        positions: Vec::new(),
        refused: Vec::new(),
        places: Vec::new(),
        source_bytes_read: 0,
        lease: None,
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, bounded};

    use super::*;
    use crate::model::limits::POSITION_BYTES_MAX;
    use crate::source::Next;

    struct Nothing;

    impl Source for Nothing {
        fn next(&mut self, _: &mut SourceEvent) -> Result<Next, SourceError> {
            Ok(Next::End)
        }

        fn bytes_read(&self) -> u64 {
            7
        }
    }

    fn writer() -> (PageWriter, Receiver<FromReader>) {
        let (pages, sent) = bounded(8);
        let (budget, stats, recorder) = (ByteBudget::new(1 << 20), Arc::default(), Recorder::new(0));
        (PageWriter::new(PageSink { pages, budget, stats, recorder }, &[Arc::from("known")], false), sent)
    }

    fn event(block: i64, region: &str, origin: &Arc<str>) -> SourceEvent {
        let (region, json, origin) = (region.into(), "{}".into(), Arc::clone(origin));
        SourceEvent { block, region, json, origin, hash: Some(format!("h{block}")), ..SourceEvent::default() }
    }

    fn pages(sent: &Receiver<FromReader>) -> Vec<Page> {
        let page = |message| match message {
            FromReader::Page(page) => Some(page),
            _ => None,
        };
        sent.try_iter().filter_map(page).collect()
    }

    #[test]
    fn a_page_is_of_one_file_and_numbers_new_regions() {
        let (mut writer, sent) = writer();
        let files: [Arc<str>; 2] = [Arc::from("f"), Arc::from("g")];
        for (block, region, file) in [(1, "new", 0), (1, "known", 0), (2, "new", 0), (2, "last", 1)] {
            writer.push(&event(block, region, &files[file]), SourceDigest::default(), &Nothing).expect("it is taken");
        }
        writer.flush(&Nothing).expect("it is taken");
        writer.flush(&Nothing).expect("there is nothing");
        let pages = pages(&sent);
        let [first, second] = &pages[..] else { panic!("{pages:?}") };
        assert_eq!((&*first.origin, first.origin_no, &*second.origin, second.origin_no), ("f", 1, "g", 2));
        assert_eq!(first.events.iter().map(|event| event.region).collect::<Vec<_>>(), [1, 0, 1].map(RegionNo::from));
        assert_eq!(
            (&first.new_regions[..], &second.new_regions[..]),
            (&[Arc::from("new")][..], &[Arc::from("last")][..])
        );
        assert_eq!(first.hashes, [(BlockNo::new(1), Arc::from("h1")), (BlockNo::new(2), Arc::from("h2"))]);
        assert_eq!((first.json(&first.events[1]), first.source_bytes_read), ("{}", 7));
        assert!(first.positions.is_empty() && first.lease.is_some());
    }

    #[test]
    fn a_source_that_has_nothing_keeps_nobody_busy() {
        let (mut writer, _sent) = writer();
        let begun = writer.started_at;
        writer.started_at = begun.checked_sub(Duration::from_secs(100)).expect("an earlier moment");
        writer.begin_idle(writer.started_at);
        writer.note_busy();
        assert!(writer.sink.stats.busy() < Duration::from_secs(50), "it waits for the source");
        writer.end_idle(begun);
        writer.end_idle(begun);
        writer.note_busy();
        assert!(writer.sink.stats.busy() < Duration::from_secs(50), "it has waited for the source");
        assert_eq!(writer.sink.stats.blocked(), Duration::ZERO);
    }

    #[test]
    fn positions_count_as_bytes_of_their_page() {
        let (mut writer, sent) = writer();
        let (mut event, long) = (event(0, "r", &Arc::from("f")), "p".repeat(POSITION_BYTES_MAX));
        while !writer.is_full() {
            event.block += 1;
            event.set_position(&long).expect("a position");
            writer.push(&event, SourceDigest::default(), &Nothing).expect("it is taken");
        }
        writer.flush(&Nothing).expect("it is taken");
        assert!(!writer.is_full());
        let positions = pages(&sent).remove(0).positions;
        assert!((200..=256).contains(&positions.len()), "{}", positions.len());
        // Those of one block take the room of one.
        for _ in 0..2 * positions.len() {
            writer.push(&event, SourceDigest::default(), &Nothing).expect("it is taken");
        }
        assert!(!writer.is_full());
    }

    #[test]
    fn nothing_is_handed_over_when_nobody_takes_it() {
        let (mut writer, sent) = writer();
        drop(sent);
        writer.push(&event(1, "r", &Arc::from("f")), SourceDigest::default(), &Nothing).expect("it is in the page");
        assert!(matches!(writer.flush(&Nothing), Err(Stop::Gone)));
    }
}
