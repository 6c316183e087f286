//! The reader thread: turns a source into pages, in order, within a budget of bytes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender};
use foldhash::fast::RandomState;

use super::budget::ByteBudget;
use super::{Source, SourceError, SourceEvent};
use crate::config::Late;
use crate::event::{EventRef, Page, RegionNo};
use crate::limits::{PAGE_BYTES, WAIT_STEP};

/// Regions that a message names at most.
const REGIONS_NAMED_MAX: usize = 20;

/// What the reader lets through.
pub(crate) struct ReadPlan {
    pub(crate) late: Late,
    /// The closed list of regions, if there is one.
    pub(crate) region_ids: Option<Vec<String>>,
    /// Blocks up to this one are committed already, the last one with this many events.
    pub(crate) done: Option<(i64, u64)>,
    /// The last block to let through.
    pub(crate) until: Option<i64>,
    /// Regions that have their numbers already.
    pub(crate) known_regions: Vec<Arc<str>>,
}

/// What the reader sends.
pub(crate) enum FromReader {
    Page(Page),
    End,
    Failed(SourceError),
}

/// What the reader shares while it runs.
#[derive(Debug, Default)]
pub(crate) struct ReadStats {
    /// Time spent reading, without the waits for room.
    pub(crate) busy_nanos: AtomicU64,
    /// Events left out because their place had passed.
    pub(crate) late: AtomicU64,
    /// Set from outside to end the thread.
    pub(crate) stop: AtomicBool,
}

impl ReadStats {
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed))
    }
}

type Regions = HashMap<Arc<str>, RegionNo, RandomState>;

/// The reader's state.
pub(crate) struct Reader {
    source: Box<dyn Source>,
    /// The closed list of regions, to look one up.
    ids: Option<HashSet<String, RandomState>>,
    plan: ReadPlan,
    pages: Sender<FromReader>,
    budget: Arc<ByteBudget>,
    stats: Arc<ReadStats>,
    regions: Regions,
    page: Page,
    last: Option<(i64, Option<i64>)>,
    last_origin: Option<Arc<str>>,
    done_events: u64,
    waited: Duration,
}

/// Nobody takes pages any more.
struct Gone;

impl Reader {
    pub(crate) fn new(
        source: Box<dyn Source>,
        plan: ReadPlan,
        pages: Sender<FromReader>,
        budget: Arc<ByteBudget>,
        stats: Arc<ReadStats>,
    ) -> Self {
        let regions = plan.known_regions.iter().zip(0..).map(|(region, no)| (Arc::clone(region), no)).collect();
        let page = empty_page(&Arc::from("source"), 0);
        let ids = plan.region_ids.as_ref().map(|ids| ids.iter().cloned().collect());
        Self {
            source,
            ids,
            plan,
            pages,
            budget,
            stats,
            regions,
            page,
            last: None,
            last_origin: None,
            done_events: 0,
            waited: Duration::ZERO,
        }
    }

    /// Contract of the reader thread. In: a source. Out: pages of events whose order is checked, over a bounded
    /// channel and within a budget of bytes; then `End` or `Failed`, once. Writes nothing. Ends: at the end of the
    /// source, at its first error, past the last block wanted, or when nobody takes pages any more.
    pub(crate) fn run(mut self) {
        let begun = Instant::now();
        let result = self.read_all();
        let message = match result {
            Ok(Ok(())) => FromReader::End,
            Ok(Err(Gone)) => return,
            Err(error) => FromReader::Failed(error),
        };
        self.note_busy(begun);
        if self.flush().is_ok() {
            // If the other side is gone, nobody wants to know.
            let _ = self.send(message);
        }
    }

    fn read_all(&mut self) -> Result<Result<(), Gone>, SourceError> {
        let begun = Instant::now();
        let mut event = SourceEvent::default();
        loop {
            if self.page.text.len() >= PAGE_BYTES || !self.source.is_ready() {
                self.note_busy(begun);
                if self.flush().is_err() {
                    return Ok(Err(Gone));
                }
            }
            if !self.source.next(&mut event)? {
                return Ok(Ok(()));
            }
            if self.plan.until.is_some_and(|until| event.block > until) {
                return Ok(Ok(()));
            }
            if self.is_wanted(&event)? && self.push(&event)?.is_err() {
                return Ok(Err(Gone));
            }
        }
    }

    /// Checks the order and the region; false for what is committed already or too late.
    fn is_wanted(&mut self, event: &SourceEvent) -> Result<bool, SourceError> {
        if let Some(last) = self.last
            && is_late(last, event)
        {
            let other_file = self.last_origin.clone().filter(|origin| *origin != event.origin);
            return self.late(event, || late_message(last, event, other_file.as_deref()));
        }
        self.last = Some((event.block, event.seq));
        if self.last_origin.as_ref().is_none_or(|origin| !Arc::ptr_eq(origin, &event.origin)) {
            self.last_origin = Some(Arc::clone(&event.origin));
        }
        if let Some((done, done_events)) = self.plan.done
            && event.block <= done
        {
            self.done_events += u64::from(event.block == done);
            if event.block == done && self.done_events > done_events {
                return self.late(event, || {
                    format!(
                        "block {done} was committed with {done_events} of its events, and the source now has more of it; \
                         a block must be complete when it is read"
                    )
                });
            }
            return Ok(false);
        }
        if self.ids.as_ref().is_none_or(|ids| ids.contains(&event.region)) {
            return Ok(true);
        }
        let ids = self.plan.region_ids.as_deref().unwrap_or_default();
        let some = ids.iter().take(REGIONS_NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if ids.len() > REGIONS_NAMED_MAX { ", …" } else { "" };
        let message = format!("region {:?} is not in [regions] ids; expected one of {some}{more}", event.region);
        Err(SourceError::of_event(event, message))
    }

    fn late(&mut self, event: &SourceEvent, message: impl FnOnce() -> String) -> Result<bool, SourceError> {
        match self.plan.late {
            Late::Error => Err(SourceError::of_event(event, message())),
            Late::Skip => {
                self.stats.late.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
        }
    }

    fn push(&mut self, event: &SourceEvent) -> Result<Result<(), Gone>, SourceError> {
        if !Arc::ptr_eq(&self.page.origin, &event.origin) {
            if self.flush().is_err() {
                return Ok(Err(Gone));
            }
            self.page.origin = Arc::clone(&event.origin);
            self.page.origin_no = self.page.origin_no.saturating_add(1);
        }
        let region = self.region_no(&event.region);
        let too_long = || SourceError::of_event(event, "the event is longer than 4 GiB");
        let start = u32::try_from(self.page.text.len()).map_err(|_| too_long())?;
        let len = u32::try_from(event.json.len()).map_err(|_| too_long())?;
        self.page.text.push_str(&event.json);
        self.page.events.push(EventRef { start, len, line: event.line, block: event.block, region });
        Ok(Ok(()))
    }

    fn region_no(&mut self, region: &str) -> RegionNo {
        if let Some(no) = self.regions.get(region) {
            return *no;
        }
        let name: Arc<str> = Arc::from(region);
        let no = RegionNo::try_from(self.regions.len()).unwrap_or(RegionNo::MAX);
        self.regions.insert(Arc::clone(&name), no);
        self.page.new_regions.push(name);
        no
    }

    /// Hands the page over, if there is anything in it.
    fn flush(&mut self) -> Result<(), Gone> {
        if self.page.events.is_empty() {
            return Ok(());
        }
        let waiting = Instant::now();
        let bytes = self.page.text.len() + self.page.events.len() * size_of::<EventRef>();
        let lease = loop {
            if self.stats.stop.load(Ordering::Relaxed) {
                return Err(Gone);
            }
            if let Some(lease) = self.budget.take(bytes, WAIT_STEP) {
                break lease;
            }
        };
        let empty = empty_page(&self.page.origin, self.page.origin_no);
        let mut page = std::mem::replace(&mut self.page, empty);
        page.source_bytes_read = self.source.bytes_read();
        page.lease = Some(lease);
        let sent = self.send(FromReader::Page(page));
        self.waited += waiting.elapsed();
        sent
    }

    fn send(&self, mut message: FromReader) -> Result<(), Gone> {
        loop {
            match self.pages.send_timeout(message, WAIT_STEP) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Disconnected(_)) => return Err(Gone),
                Err(SendTimeoutError::Timeout(_)) if self.stats.stop.load(Ordering::Relaxed) => return Err(Gone),
                Err(SendTimeoutError::Timeout(back)) => message = back,
            }
        }
    }

    fn note_busy(&self, begun: Instant) {
        let busy = begun.elapsed().saturating_sub(self.waited);
        self.stats.busy_nanos.store(u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn empty_page(origin: &Arc<str>, origin_no: u16) -> Page {
    Page {
        text: String::with_capacity(PAGE_BYTES + PAGE_BYTES / 8),
        events: Vec::new(),
        origin: Arc::clone(origin),
        origin_no,
        new_regions: Vec::new(),
        source_bytes_read: 0,
        lease: None,
    }
}

fn is_late((block, seq): (i64, Option<i64>), event: &SourceEvent) -> bool {
    event.block < block || (event.block == block && seq.zip(event.seq).is_some_and(|(last, this)| this <= last))
}

fn late_message((block, seq): (i64, Option<i64>), event: &SourceEvent, other_file: Option<&str>) -> String {
    if event.block < block {
        if let Some(other) = other_file {
            return format!(
                "block {} comes after block {block} of {other}: files are read in the order of their names; name them so \
                 that it is the order of their blocks",
                event.block
            );
        }
        return format!(
            "block {} comes after block {block}; blocks must not decrease (late = \"skip\" leaves such events out)",
            event.block
        );
    }
    format!(
        "place {} of block {block} comes after place {}; places must grow (late = \"skip\" leaves such events out)",
        event.seq.unwrap_or(0),
        seq.unwrap_or(0)
    )
}
