//! The reader thread: turns a source into pages, in order, within a budget of bytes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender};
use foldhash::fast::RandomState;

use super::chain::{Chain, Held, Link, Named};
use super::order::Late;
use super::{Next, Source, SourceError, SourceEvent};
use crate::model::byte_budget::ByteBudget;
use crate::model::event::{EventRef, Page, RegionNo};
use crate::model::ids::Depth;
use crate::model::limits::{ASIDE_BYTES_MAX, PAGE_BYTES, WAIT_STEP};
use crate::timeline::{Doing, Recorder, Stage};
use crate::undo::Window;

/// Regions that a message names at most.
const REGIONS_NAMED_MAX: usize = 20;

/// A shorter wait is none.
const WAIT_NOTED_MIN: Duration = Duration::from_micros(20);

/// What the reader lets through.
pub(crate) struct ReadPlan {
    pub(crate) late: Late,
    /// The closed list of regions, if there is one.
    pub(crate) region_ids: Option<Vec<String>>,
    /// Blocks up to this one are committed already, the last one with this many events.
    pub(crate) done: Option<(i64, u64)>,
    /// What is known of those blocks.
    pub(crate) window: Window,
    /// `rollback.depth`.
    pub(crate) depth: Depth,
    /// The last block to let through.
    pub(crate) until: Option<i64>,
    /// Regions that have their numbers already.
    pub(crate) known_regions: Vec<Arc<str>>,
}

/// What the reader sends.
pub(crate) enum FromReader {
    Page(Page),
    /// What came of blocks behind this one is to be undone before anything else.
    Rollback {
        to: i64,
    },
    End,
    Failed(SourceError),
}

/// What the reader shares while it runs.
#[derive(Debug, Default)]
pub(crate) struct ReadStats {
    /// Time spent reading, without the waits for room.
    pub(crate) busy_nanos: AtomicU64,
    /// Time spent waiting for room.
    pub(crate) blocked_nanos: AtomicU64,
    /// Events left out because their place had passed.
    pub(crate) late: AtomicU64,
    /// Set from outside to end the thread.
    pub(crate) stop: AtomicBool,
}

impl ReadStats {
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed))
    }

    pub(crate) fn blocked(&self) -> Duration {
        Duration::from_nanos(self.blocked_nanos.load(Ordering::Relaxed))
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
    recorder: Arc<Recorder>,
    /// Since when it reads without having waited.
    working_since: Instant,
    regions: Regions,
    page: Page,
    /// Blocks that are handed on or committed.
    chain: Chain,
    /// While what comes may be committed already.
    skip: Option<Skip>,
    /// The source has rolled back to this block: what comes lies behind it.
    closed: Option<i64>,
    last: Option<(i64, Option<i64>)>,
    last_origin: Option<Arc<str>>,
    waited: Duration,
    has_warned: bool,
}

/// What is known while events are left out that are committed already.
struct Skip {
    /// The last committed block and its events.
    done: (i64, u64),
    /// The blocks of the source so far.
    seen: Chain,
    /// Whether the source has come to the last committed block, and how many events of it.
    is_there: bool,
    events: u64,
    aside: Option<Aside>,
}

/// Events of another branch than the one that is committed. A source that is read from its beginning again has the branches
/// that were left again in it too; so it is not gone over to before it is known to be the one that counts.
struct Aside {
    /// The block where it left ours, or why it cannot be gone over to.
    from: Result<i64, SourceError>,
    /// Its first block.
    first: i64,
    events: Vec<SourceEvent>,
    bytes: usize,
}

impl Aside {
    fn new(from: Result<i64, SourceError>, event: &SourceEvent) -> Self {
        let mut aside = Self { from, first: event.block, events: Vec::new(), bytes: 0 };
        aside.push(event);
        aside
    }

    fn push(&mut self, event: &SourceEvent) {
        if self.from.is_ok() {
            self.bytes += event.json.len() + size_of::<SourceEvent>();
            self.events.push(event.clone());
        }
    }

    /// What is left of it when the source leaves it after block `to`.
    fn cut(mut self, to: i64) -> Option<Self> {
        self.events.retain(|event| event.block <= to);
        self.bytes = self.events.iter().map(|event| event.json.len() + size_of::<SourceEvent>()).sum();
        (self.first <= to).then_some(self)
    }
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
        recorder: Arc<Recorder>,
    ) -> Self {
        let regions = plan.known_regions.iter().zip(0..).map(|(region, no)| (Arc::clone(region), no)).collect();
        let page = empty_page(&Arc::from("source"), 0);
        let ids = plan.region_ids.as_ref().map(|ids| ids.iter().cloned().collect());
        let chain = match plan.done {
            Some((tip, _)) => Chain::of_store(&plan.window, tip, plan.depth),
            None => Chain::new(plan.depth),
        };
        let seen = || Chain::new(plan.depth);
        let skip = plan.done.map(|done| Skip { done, seen: seen(), is_there: false, events: 0, aside: None });
        Self {
            source,
            ids,
            plan,
            pages,
            budget,
            stats,
            recorder,
            working_since: Instant::now(),
            regions,
            page,
            chain,
            skip,
            closed: None,
            last: None,
            last_origin: None,
            waited: Duration::ZERO,
            has_warned: false,
        }
    }

    /// Contract of the reader thread. In: a source. Out: pages of events whose order is checked, over a bounded
    /// channel and within a budget of bytes, and rollbacks in their place among them; then `End` or `Failed`, once. Writes
    /// nothing. Ends: at the end of the
    /// source, at its first error, past the last block wanted, or when nobody takes pages any more.
    pub(crate) fn run(mut self) {
        let begun = Instant::now();
        self.working_since = begun;
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
                if !self.source.is_ready() && self.settle(false)?.is_err() {
                    return Ok(Err(Gone));
                }
                self.note_busy(begun);
                if self.flush().is_err() {
                    return Ok(Err(Gone));
                }
            }
            let passed = match self.source.next(&mut event)? {
                Next::End => return self.settle(true),
                Next::Event if self.plan.until.is_some_and(|until| event.block > until) => return self.settle(true),
                Next::Event => self.pass(&event)?,
                Next::Rollback { to } => self.rolled_back(to),
            };
            if passed.is_err() {
                return Ok(Err(Gone));
            }
        }
    }

    /// Takes one event: leaves it out if it is committed already, else hands it on.
    fn pass(&mut self, event: &SourceEvent) -> Result<Result<(), Gone>, SourceError> {
        if self.skip.is_some() && !self.is_past(event)? {
            return self.settle_if_decided(event);
        }
        self.go_on(event)
    }

    /// Takes an event behind what is committed.
    fn go_on(&mut self, event: &SourceEvent) -> Result<Result<(), Gone>, SourceError> {
        if let Some(skip) = self.skip.take() {
            self.chain.learn(&skip.seen);
        }
        if let Some(closed) = self.closed.filter(|closed| event.block <= *closed) {
            let message = || format!("block {} comes after a rollback to block {closed}", event.block);
            return self.late(event, message).map(|_| Ok(()));
        }
        match self.chain.judge(named(event)) {
            Link::Same => {}
            Link::Next => self.chain.push(event.block, event.hash.as_deref()),
            Link::Late => return self.late_block(event).map(|_| Ok(())),
            Link::Fork { to } if self.chain.allows(to) => {
                if self.roll_back(to).is_err() {
                    return Ok(Err(Gone));
                }
                self.chain.push(event.block, event.hash.as_deref());
            }
            Link::Fork { .. } => return Err(self.too_deep(event, self.chain.beside(event.block))),
            Link::Lost(_) if self.plan.late == Late::Skip && self.is_before_window(event.block) => {
                if !std::mem::replace(&mut self.has_warned, true) {
                    tracing::warn!(
                        "{}:{}: block {} lies before all that is held, so whether it is on another branch cannot be told; it \
                         is left out (late = \"skip\")",
                        event.origin,
                        event.line,
                        event.block
                    );
                }
                return self.late_block(event).map(|_| Ok(()));
            }
            Link::Lost(held) => return Err(self.too_deep(event, held)),
        }
        if !self.is_in_place(event)? {
            return Ok(Ok(()));
        }
        self.check_region(event)?;
        self.push(event)
    }

    fn is_before_window(&self, block: i64) -> bool {
        self.chain.first().is_some_and(|first| block < first.block)
    }

    /// Checks the place within the block, and notes where the event stands; false if its place has passed.
    fn is_in_place(&mut self, event: &SourceEvent) -> Result<bool, SourceError> {
        if let Some((block, Some(seq))) = self.last
            && block == event.block
            && event.seq.is_some_and(|this| this <= seq)
        {
            return self.late(event, || {
                format!(
                    "place {} of block {block} comes after place {seq}; places must grow (late = \"skip\" leaves such events out)",
                    event.seq.unwrap_or(0)
                )
            });
        }
        self.last = Some((event.block, event.seq));
        if self.last_origin.as_ref().is_none_or(|origin| !Arc::ptr_eq(origin, &event.origin)) {
            self.last_origin = Some(Arc::clone(&event.origin));
        }
        Ok(true)
    }

    /// Whether an event lies behind what is committed. What does not is left out, or, if it is on another branch than what
    /// is committed, put aside until it is known which branch the source goes on with.
    fn is_past(&mut self, event: &SourceEvent) -> Result<bool, SourceError> {
        let Some(skip) = &mut self.skip else { return Ok(true) };
        let (done, done_events) = skip.done;
        let has_hash = event.hash.is_some() && self.chain.tip().is_some_and(|tip| tip.hash.is_some());
        let link = skip.seen.judge(named(event));
        // A fork may be left again, too: it is put aside like any other.
        if skip.is_there && !matches!(link, Link::Same | Link::Fork { .. }) {
            return Ok(true);
        }
        match link {
            Link::Same => {}
            Link::Next => skip.seen.push(event.block, event.hash.as_deref()),
            Link::Late => return self.late_block(event),
            Link::Fork { to } => {
                skip.seen.truncate(to);
                skip.aside = skip.aside.take().and_then(|aside| aside.cut(to));
                skip.is_there = false;
                self.last = None;
                skip.seen.push(event.block, event.hash.as_deref());
            }
            Link::Lost(_) => {
                (skip.aside, self.last) = (None, None);
                skip.seen.clear();
                skip.seen.push(event.block, event.hash.as_deref());
            }
        }
        let is_tip = event.block == done
            && (!has_hash || self.chain.tip().is_some_and(|tip| tip.hash.as_deref() == event.hash.as_deref()));
        let (is_new, is_before) =
            (link != Link::Same, self.chain.first().is_some_and(|first| event.block < first.block));
        if is_tip {
            skip.events = if is_new { 1 } else { skip.events + 1 };
            (skip.is_there, skip.aside) = (true, None);
            if skip.events > done_events {
                return self.late(event, || {
                    format!(
                        "block {done} was committed with {done_events} of its events, and the source now has more of it; \
                         a block must be complete when it is read"
                    )
                });
            }
        } else if !has_hash || is_before {
            if event.block > done {
                return Ok(true);
            }
            skip.aside = None;
        } else if let Some(aside) = &mut skip.aside {
            aside.push(event);
        } else {
            // What the source had before, where that is held too: if it goes on from there past blocks that are held, it is
            // on another branch, even if it does not name its parents.
            let common = skip.seen.before_tip().filter(|before| self.chain.holds(before)).map(|before| before.block);
            let link = match (self.chain.judge(named(event)), common) {
                (Link::Next, _) if self.chain.is_child(named(event)) => Link::Next,
                (Link::Fork { to }, _) if self.chain.is_known_child(named(event)) => Link::Fork { to },
                (Link::Next, Some(common)) => Link::Fork { to: common },
                (Link::Fork { to }, Some(common)) => Link::Fork { to: common.min(to) },
                // It has left ours, or gone past it, from a block that is too old to be held.
                (Link::Next | Link::Fork { .. }, None) if skip.seen.before_tip().is_some() => {
                    Link::Lost(self.chain.tip().cloned())
                }
                (link, _) => link,
            };
            let from = match link {
                Link::Next => return Ok(true),
                Link::Same | Link::Late => None,
                Link::Fork { to } if self.chain.allows(to) => Some(Ok(to)),
                Link::Fork { .. } => Some(Err(self.too_deep(event, self.chain.beside(event.block)))),
                Link::Lost(held) => Some(Err(self.too_deep(event, held))),
            };
            if let Some((skip, from)) = self.skip.as_mut().zip(from) {
                skip.aside = Some(Aside::new(from, event));
            }
        }
        self.is_in_place(event).map(|_| false)
    }

    /// Decides for the branch that was put aside, once the source has gone on with it for longer than the one that is
    /// committed.
    fn settle_if_decided(&mut self, event: &SourceEvent) -> Result<Result<(), Gone>, SourceError> {
        let Some(Skip { aside: Some(aside), .. }) = &self.skip else { return Ok(Ok(())) };
        let is_decided = match &aside.from {
            // A branch that was left again was never longer than a rollback can go.
            Ok(from) => self.plan.depth.oldest(event.block.into()).get() > *from || aside.bytes > ASIDE_BYTES_MAX,
            Err(_) => self.plan.depth.oldest(event.block.into()).get() >= aside.first,
        };
        if is_decided { self.decide() } else { Ok(Ok(())) }
    }

    /// Decides for the branch that was put aside, since nothing more comes for now; at the end also for one that cannot be
    /// gone over to.
    fn settle(&mut self, is_end: bool) -> Result<Result<(), Gone>, SourceError> {
        match &self.skip {
            Some(Skip { aside: Some(aside), .. }) if is_end || aside.from.is_ok() => self.decide(),
            _ => Ok(Ok(())),
        }
    }

    /// Goes over to the branch that was put aside.
    fn decide(&mut self) -> Result<Result<(), Gone>, SourceError> {
        let Some(aside) = self.skip.take().and_then(|skip| skip.aside) else { return Ok(Ok(())) };
        let to = aside.from?;
        self.last = None;
        if self.roll_back(to).is_err() {
            return Ok(Err(Gone));
        }
        for event in &aside.events {
            if self.go_on(event)?.is_err() {
                return Ok(Err(Gone));
            }
        }
        Ok(Ok(()))
    }

    /// The source itself has said that blocks behind `to` do not count any more.
    fn rolled_back(&mut self, to: i64) -> Result<(), Gone> {
        if let Some(skip) = &mut self.skip {
            if !skip.is_there {
                skip.seen.truncate(to);
                skip.aside = skip.aside.take().and_then(|aside| aside.cut(to));
                self.last = None;
                return Ok(());
            }
            self.skip = None;
        }
        if self.chain.tip().is_none_or(|tip| tip.block <= to) {
            return Ok(());
        }
        self.roll_back(to)?;
        self.closed = Some(to);
        Ok(())
    }

    /// Lets the blocks behind `to` be undone.
    fn roll_back(&mut self, to: i64) -> Result<(), Gone> {
        self.flush()?;
        self.chain.truncate(to);
        (self.last, self.closed) = (None, None);
        self.send(FromReader::Rollback { to })
    }

    /// The error of a fork that cannot be followed.
    fn too_deep(&self, event: &SourceEvent, held: Option<Held>) -> SourceError {
        let hash =
            |hash: Option<&str>| hash.map_or_else(|| "a hash that is not known".into(), |hash| format!("hash {hash}"));
        let held = held.or_else(|| self.chain.tip().cloned());
        let ours = held.map_or_else(String::new, |held| {
            format!("; block {} is held with {}", held.block, hash(held.hash.as_deref()))
        });
        let parent = event.parent.as_deref().map_or_else(String::new, |parent| format!(" on parent {parent}"));
        let oldest = self.chain.oldest().map_or_else(String::new, |oldest| {
            format!(
                ", and the oldest block that can be rolled back to is {oldest} (rollback.depth = {})",
                self.plan.depth
            )
        });
        SourceError::Fork {
            origin: Arc::clone(&event.origin),
            line: event.line,
            message: format!(
                "a fork that cannot be followed: block {} comes with {}{parent}{ours}{oldest}. Either blocks are missing, or it \
                 left ours before what is held: let the source deliver the branch from a block that can be rolled back to, or \
                 index into a new store with a larger rollback.depth",
                event.block,
                hash(event.hash.as_deref())
            ),
        }
    }

    /// Refuses an event of a region that is not in the list.
    fn check_region(&self, event: &SourceEvent) -> Result<(), SourceError> {
        if self.ids.as_ref().is_none_or(|ids| ids.contains(&event.region)) {
            return Ok(());
        }
        let ids = self.plan.region_ids.as_deref().unwrap_or_default();
        let some = ids.iter().take(REGIONS_NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if ids.len() > REGIONS_NAMED_MAX { ", …" } else { "" };
        let message = format!("region {:?} is not in [regions] ids; expected one of {some}{more}", event.region);
        Err(SourceError::of_event(event, message))
    }

    /// An event of a block whose place has passed.
    fn late_block(&mut self, event: &SourceEvent) -> Result<bool, SourceError> {
        let other_file = self.last_origin.clone().filter(|origin| *origin != event.origin);
        let last = self.last.map_or(event.block, |(block, _)| block);
        // A block that is held without a hash may be on another branch: to leave this one out would be no advice.
        let is_blind = event.hash.is_some() && self.skip.is_none() && self.chain.is_blind_at(event.block);
        self.late(event, || match is_blind {
            true => format!(
                "block {} comes after block {last}, and block {0} is held without a hash: whether it is a fork cannot be told. \
                 Roll back to a block before it (forebay rollback --to), then run again",
                event.block
            ),
            false => late_message(last, event, other_file.as_deref()),
        })
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
        if let Some(hash) = &event.hash
            && self.page.hashes.last().is_none_or(|(block, _)| *block != event.block)
        {
            self.page.hashes.push((event.block, Arc::from(hash.as_str())));
        }
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
        self.recorder.span(Stage::Read, Doing::Working, 0, self.working_since, waiting);
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
        let waited = waiting.elapsed();
        self.waited += waited;
        self.working_since = waiting + waited;
        if waited > WAIT_NOTED_MIN {
            self.recorder.span(Stage::Read, Doing::WaitingForRoom, 0, waiting, self.working_since);
        }
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
        self.stats.blocked_nanos.store(u64::try_from(self.waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
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
        hashes: Vec::new(),
        source_bytes_read: 0,
        lease: None,
    }
}

fn late_message(block: i64, event: &SourceEvent, other_file: Option<&str>) -> String {
    if let Some(other) = other_file {
        return format!(
            "block {} comes after block {block} of {other}: files are read in the order of their names; name them so \
             that it is the order of their blocks",
            event.block
        );
    }
    format!(
        "block {} comes after block {block}; blocks must not decrease (late = \"skip\" leaves such events out)",
        event.block
    )
}

fn named(event: &SourceEvent) -> Named<'_> {
    Named { block: event.block, hash: event.hash.as_deref(), parent: event.parent.as_deref() }
}
