//! The publish thread of a run.
//!
//! Committed snapshots come through a mailbox that holds the newest of each region; a channel of depth one wakes the
//! thread. Nobody waits for it: what it cannot publish, or what would take too much memory to hold, is in the store, which
//! is the outbox, and is read from there in a *sweep*: at the beginning and the end of a run, after something failed, and
//! so often that no quiet region expires.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{Extent, Publication, PublishError, PublishReceipt, PublishStatus, Publisher};
use crate::batch::SealedBatch;
use crate::commit::CommitListener;
use crate::model::limits::{OUTBOX_PAGE, WAIT_STEP};
use crate::model::timestamp::Timestamp;
use crate::snapshot::seq_of;
use crate::store::{Committed, DueSnapshot, Outbox, StoreError};
use crate::timeline::{Doing, Recorder, Stage};

/// Waits between two tries while something cannot be published.
const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(10);

/// How often it is looked at least whether the time to live of a quiet region has to begin anew.
const REFRESH_STEP_MAX: Duration = Duration::from_secs(3600);

/// Failures of single regions that are told at once; the others are counted.
const FAILURES_TOLD_MAX: usize = 10;

/// A summary of more regions than this is written no more often than that.
const SUMMARY_REGIONS_MAX: usize = 1000;
const SUMMARY_STEP: Duration = Duration::from_secs(10);

/// Numbers beyond it are none of ours: a store could not count on.
const SEQ_MAX: u64 = i64::MAX as u64 / 2;

#[derive(Default)]
struct Waiting {
    newest: BTreeMap<Arc<str>, Publication>,
    bytes: usize,
    /// Something was let go: it is to be read from the store.
    is_incomplete: bool,
    is_closed: bool,
    /// The last committed block, once all snapshots as of it are there.
    complete: Option<i64>,
}

/// Where committed snapshots wait for the publish thread: the newest of each region.
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    wake: Sender<()>,
    bytes_max: usize,
}

impl Mailbox {
    /// An empty one in which so many bytes may wait, and what wakes who reads it.
    pub(crate) fn new(bytes_max: usize) -> (Arc<Self>, Receiver<()>) {
        let (wake, inbox) = bounded(1);
        (Arc::new(Self { waiting: Mutex::default(), wake, bytes_max }), inbox)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts snapshots in; an older one of the same region goes. Never blocks.
    fn put(&self, publications: impl IntoIterator<Item = Publication>) {
        let mut waiting = self.waiting();
        for one in publications {
            waiting.bytes += one.doc.len();
            if let Some(older) = waiting.newest.insert(Arc::clone(&one.region), one) {
                waiting.bytes -= older.doc.len();
            }
        }
        if waiting.bytes > self.bytes_max {
            waiting.newest.clear();
            (waiting.bytes, waiting.is_incomplete) = (0, true);
        }
        drop(waiting);
        self.wake();
    }

    /// What waits, and whether some of it has to be read from the store.
    fn take(&self) -> (BTreeMap<Arc<str>, Publication>, bool) {
        let mut waiting = self.waiting();
        waiting.bytes = 0;
        (std::mem::take(&mut waiting.newest), std::mem::take(&mut waiting.is_incomplete))
    }

    fn wake(&self) {
        // If it is full, a wake-up is on its way already.
        let _ = self.wake.try_send(());
    }

    fn close(&self, complete: Option<i64>) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        waiting.complete = waiting.complete.or(complete);
        drop(waiting);
        self.wake();
    }
}

impl CommitListener for Mailbox {
    fn committed(&self, batch: &SealedBatch, committed: &Committed) {
        if !committed.snapshots.is_empty() {
            self.put(publications(batch, committed));
        }
    }

    /// Lets everything that is unpublished be read from the store.
    fn renumbered(&self) {
        self.waiting().is_incomplete = true;
        self.wake();
    }
}

/// The snapshots of a batch that were stored.
fn publications<'b>(batch: &'b SealedBatch, committed: &'b Committed) -> impl Iterator<Item = Publication> + 'b {
    // One receipt for each document, in the same order.
    let drafts = batch.snapshots.iter().filter_map(|draft| Some((draft, draft.doc.as_ref()?)));
    drafts.zip(&committed.snapshots).filter_map(|((draft, doc), receipt)| {
        let id = receipt.id.clone().filter(|_| receipt.region == draft.region)?;
        Some(Publication {
            region: Arc::clone(&draft.region),
            seq: seq_of(&draft.region, &id)?,
            id,
            block: Some(draft.block),
            time: draft.generated_at,
            hash: draft.hash.clone(),
            doc: Arc::clone(doc),
            follows_rollback: false,
        })
    })
}

/// A region whose newest snapshot is not in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpublishedRegion {
    /// The region.
    pub region: String,
    /// Why.
    pub cause: String,
}

impl UnpublishedRegion {
    /// What stands for all regions, where it is not known which.
    pub(crate) fn all(cause: String) -> Self {
        Self { region: "every region".into(), cause }
    }
}

/// What a publish thread did.
#[derive(Debug, Default)]
pub(crate) struct OutboxReport {
    pub(crate) published: u64,
    pub(crate) duplicate: u64,
    pub(crate) failed: Vec<UnpublishedRegion>,
    pub(crate) busy: Duration,
}

/// Regions, and the number of each above which the store must count on.
pub(crate) type SeqFloors = Vec<(Arc<str>, u64)>;

/// Hands it to whoever writes the store that snapshots are to be numbered anew; gives it back if there is no room or
/// nobody writes any more. Blocks for [`WAIT_STEP`] at most. That it was done is told to the mailbox.
pub(crate) type Renumber = Box<dyn Fn(SeqFloors) -> Result<(), SeqFloors> + Send>;

/// The publish thread and the way to it. Dropping it lets it publish what waits and does not wait for it.
pub(crate) struct PublishThread {
    mailbox: Arc<Mailbox>,
    done: Receiver<()>,
    thread: Option<JoinHandle<Worker>>,
}

impl PublishThread {
    /// Starts the thread.
    pub(crate) fn spawn(
        publisher: Publisher,
        outbox: Box<dyn Outbox>,
        (mailbox, inbox): (Arc<Mailbox>, Receiver<()>),
        renumber: Renumber,
        recorder: Arc<Recorder>,
    ) -> std::io::Result<Self> {
        let (ended, done) = bounded::<()>(1);
        let worker = Worker::new(publisher, outbox, Arc::clone(&mailbox), renumber, recorder);
        let thread = std::thread::Builder::new().name("forebay-publish".into()).spawn(move || {
            let worker = worker.run(&inbox);
            drop(ended);
            worker
        })?;
        Ok(Self { mailbox, done, thread: Some(thread) })
    }

    /// Lets what waits be published, tries once more what could not be, and ends the thread; gives back what it knows.
    /// `complete` is the last committed block, if all snapshots as of it are there. Blocks until `is_over` says so.
    ///
    /// # Errors
    /// It did not end in that time, or died.
    pub(crate) fn finish(mut self, complete: Option<i64>, is_over: impl Fn() -> bool) -> Result<Worker, String> {
        self.mailbox.close(complete);
        while let Err(RecvTimeoutError::Timeout) = self.done.recv_timeout(WAIT_STEP) {
            if is_over() {
                return Err("publishing did not end in time; the next run goes on with it".into());
            }
        }
        let Some(thread) = self.thread.take() else { return Err("the publish thread has ended before".into()) };
        thread.join().map_err(|panic| {
            let text = crate::model::text::panic_message(panic.as_ref());
            format!("the publish thread panicked: {text}; this is a bug in forebay, please report it")
        })
    }
}

impl Drop for PublishThread {
    fn drop(&mut self) {
        self.mailbox.close(None);
    }
}

/// Why a region's newest snapshot is not in Redis.
struct Failure {
    cause: String,
    /// Its server is at fault.
    is_away: bool,
}

/// What the publish thread knows.
pub(crate) struct Worker {
    publisher: Publisher,
    outbox: Box<dyn Outbox>,
    mailbox: Arc<Mailbox>,
    renumber: Renumber,
    /// Regions that the store must number above what Redis has, of which nobody was told yet.
    floors: BTreeMap<Arc<str>, u64>,
    /// Whether what Redis has was compared with what the store has marked.
    is_compared: bool,
    failed: BTreeMap<Arc<str>, Failure>,
    /// Regions that the store was asked to number anew.
    floored: BTreeMap<Arc<str>, u64>,
    /// Regions of which Redis has a newer state than the store.
    ahead: BTreeSet<Arc<str>>,
    /// The last number of each region that is known to be in Redis: a sweep may be ahead of the mailbox.
    done: HashMap<Arc<str>, u64>,
    /// Why nothing can be published at all, and since when.
    away: Option<(String, Instant)>,
    /// Whether the outbox itself could not be read.
    is_store_away: bool,
    /// When to look through the store for quiet regions, and when for what failed.
    refresh_at: Instant,
    retry_at: Option<Instant>,
    delay: Duration,
    /// When the summary was written last.
    summed_at: Option<Instant>,
    /// What the user was told, of each region and of the summary.
    told: HashMap<Arc<str>, String>,
    warned: String,
    report: OutboxReport,
    recorder: Arc<Recorder>,
}

impl Worker {
    fn new(
        mut publisher: Publisher,
        outbox: Box<dyn Outbox>,
        mailbox: Arc<Mailbox>,
        renumber: Renumber,
        recorder: Arc<Recorder>,
    ) -> Self {
        publisher.set_patient(false);
        Self {
            publisher,
            outbox,
            mailbox,
            renumber,
            floors: BTreeMap::new(),
            is_compared: false,
            failed: BTreeMap::new(),
            floored: BTreeMap::new(),
            ahead: BTreeSet::new(),
            done: HashMap::new(),
            away: None,
            is_store_away: false,
            refresh_at: Instant::now(),
            retry_at: None,
            delay: DELAY_MIN,
            summed_at: None,
            told: HashMap::new(),
            warned: String::new(),
            report: OutboxReport::default(),
            recorder,
        }
    }

    /// Contract of the publish thread. In: the newest committed snapshot of each region, woken over a channel of depth
    /// one. Writes: each by one script in Redis, then a mark in the store. Out: orders to number snapshots anew, to the
    /// commit thread; at the end a report. Ends: when the mailbox is closed and what was in it is decided. What an earlier
    /// run left unpublished comes first.
    fn run(mut self, inbox: &Receiver<()>) -> Self {
        loop {
            let is_closed = self.mailbox.waiting().is_closed;
            let now = Instant::now();
            if is_closed || self.refresh_at <= now || self.retry_at.is_some_and(|at| at <= now) {
                // What waits is in the store too.
                self.mailbox.take();
                self.sweep(None);
            } else if self.away.is_none() {
                self.publish_waiting();
            }
            self.conclude(is_closed);
            let ended = Instant::now();
            self.report.busy += ended - now;
            self.recorder.span(Stage::Publish, Doing::Working, 0, now, ended);
            if is_closed {
                return self;
            }
            self.order_renumbering();
            let next = self.retry_at.map_or(self.refresh_at, |at| at.min(self.refresh_at));
            let wait = next.saturating_duration_since(Instant::now());
            // What was not taken is offered again.
            let wait = if self.floors.is_empty() { wait } else { wait.min(WAIT_STEP) };
            // A closed channel cannot be: the mailbox holds the other end.
            let _ = inbox.recv_timeout(wait);
        }
    }

    /// Lets the store number above what Redis has, where that was found to be needed.
    fn order_renumbering(&mut self) {
        if let Some(floors) = self.take_floors()
            && let Err(back) = (self.renumber)(floors)
        {
            self.floors.extend(back);
        }
    }

    /// Regions that the store must number above what Redis has; none if there are none that were not handed over.
    pub(crate) fn take_floors(&mut self) -> Option<SeqFloors> {
        (!self.floors.is_empty()).then(|| std::mem::take(&mut self.floors).into_iter().collect())
    }

    /// Whether the store may hold what Redis does not.
    fn is_behind(&self) -> bool {
        self.away.is_some() || !self.failed.is_empty()
    }

    fn publish_waiting(&mut self) {
        let (newest, is_incomplete) = self.mailbox.take();
        if is_incomplete {
            return self.sweep(None);
        }
        let is_new = |item: &Publication| {
            let is_done = self.done.get(&item.region).is_some_and(|done| *done >= item.seq);
            // A region whose server is away is tried again with a sweep, and holds up no other until then.
            !is_done && self.failed.get(&item.region).is_none_or(|failure| !failure.is_away)
        };
        let items: Vec<Publication> = newest.into_values().filter(is_new).collect();
        if items.is_empty() {
            return;
        }
        self.publish(items, &|_| false);
        match (self.is_behind(), self.retry_at) {
            (true, None) => self.retry_at = Some(Instant::now() + self.delay),
            (false, _) => (self.retry_at, self.delay) = (None, DELAY_MIN),
            (true, Some(_)) => {}
        }
    }

    /// Publishes what the store holds unpublished, and what was published so long ago that it would expire. Begins no page
    /// after the deadline.
    fn sweep(&mut self, deadline: Option<Instant>) {
        match self.compare() {
            Ok(lacking) => {
                let refreshed = Timestamp::now().saturating_sub(self.publisher.plan().ttl / 3);
                self.sweep_pages(refreshed, None, deadline);
                if !lacking.is_empty() && self.away.is_none() {
                    tracing::info!(
                        "Redis lacks what was published before, of {} regions ({} for one): they are published again",
                        lacking.len(),
                        shown(lacking.iter().next().map_or("", |region| region))
                    );
                    self.sweep_pages(Timestamp::MAX, Some(&lacking), deadline);
                }
            }
            Err(cause) => self.set_away(&cause),
        }
        let step = (self.publisher.plan().ttl / 3).min(REFRESH_STEP_MAX);
        self.refresh_at = Instant::now() + step;
        self.retry_at = None;
        if self.is_behind() {
            self.retry_at = Some(Instant::now() + self.delay);
            self.delay = (self.delay * 2).min(DELAY_MAX);
        } else {
            self.delay = DELAY_MIN;
        }
    }

    /// Compares, once, what Redis has by its summary with what the store has marked: it may have been emptied since, or
    /// restored from a copy. Returns the regions that it lacks, or has older.
    fn compare(&mut self) -> Result<HashSet<Arc<str>>, String> {
        let mut lacking = HashSet::new();
        if self.is_compared {
            return Ok(lacking);
        }
        match self.publisher.read_summary() {
            Ok(()) => {}
            Err(error) if error.is_away() && !self.publisher.plan().url.is_cluster() => return Err(error.to_string()),
            // The regions may be well all the same. The next sweep tries again.
            Err(error) => {
                self.warn(Some(format!("the summary cannot be read: {error}")));
                return Ok(lacking);
            }
        }
        let mut after = String::new();
        loop {
            let page = self.outbox.published(&after, OUTBOX_PAGE).map_err(|error| {
                self.is_store_away = true;
                store_text(&error)
            })?;
            let Some((last, _)) = page.last() else { break };
            after = last.to_string();
            let is_lacking =
                |(region, seq): &(Arc<str>, u64)| self.publisher.known(region).is_none_or(|(there, _)| there < *seq);
            lacking.extend(page.into_iter().filter(is_lacking).map(|(region, _)| region));
        }
        self.is_compared = true;
        Ok(lacking)
    }

    fn sweep_pages(
        &mut self,
        published_before: Timestamp,
        lacking: Option<&HashSet<Arc<str>>>,
        deadline: Option<Instant>,
    ) {
        // In the middle of a run there is another try soon; at its end, servers of a cluster that were well are waited for.
        let is_closed = self.mailbox.waiting().is_closed;
        self.publisher.set_patient(is_closed && !self.failed.values().any(|failure| failure.is_away));
        let mut after = String::new();
        while deadline.is_none_or(|deadline| Instant::now() < deadline) {
            let page = match self.outbox.due(published_before, &after, OUTBOX_PAGE) {
                Ok(page) => page,
                Err(error) => {
                    self.is_store_away = true;
                    self.set_away(&store_text(&error));
                    break;
                }
            };
            self.is_store_away = false;
            if after.is_empty() && lacking.is_none() {
                self.failed.clear();
            }
            let Some(last) = page.last() else {
                // All of it went through, or was refused one by one.
                self.set_back();
                break;
            };
            after = last.publication.region.to_string();
            if !self.publish_page(page, lacking) {
                break;
            }
        }
        self.publisher.set_patient(false);
    }

    /// Publishes what a sweep has found; false if nothing can be published now.
    fn publish_page(&mut self, page: Vec<DueSnapshot>, lacking: Option<&HashSet<Arc<str>>>) -> bool {
        let is_wanted = |due: &DueSnapshot| lacking.is_none_or(|lacking| lacking.contains(&due.publication.region));
        let page: Vec<DueSnapshot> = page.into_iter().filter(is_wanted).collect();
        let refreshes: HashSet<Arc<str>> =
            page.iter().filter(|due| due.was_published).map(|due| Arc::clone(&due.publication.region)).collect();
        let mut items: Vec<Publication> = page.into_iter().map(|due| due.publication).collect();
        items.sort_by_key(|item| (item.time, item.seq));
        items.is_empty() || self.publish(items, &|region| refreshes.contains(region))
    }

    /// Publishes and marks; false if nothing can be published now. `is_refresh` says of which regions the newest was in
    /// Redis before.
    fn publish(&mut self, items: Vec<Publication>, is_refresh: &dyn Fn(&str) -> bool) -> bool {
        let stored: HashMap<Arc<str>, (u64, Option<i64>)> =
            items.iter().map(|item| (Arc::clone(&item.region), (item.seq, item.block))).collect();
        let items = self.hold_back(items);
        let (items, mut refused) = self.publisher.plan().resolve(items);
        let published = self.publisher.publish(&items, Extent::Part);
        self.warn(published.warning);
        let mut done = Vec::new();
        let mut away = None;
        for receipt in published.receipts {
            let (seq, block) = stored.get(&receipt.region).copied().unwrap_or_default();
            match &receipt.outcome {
                Ok(PublishStatus::Stale) if receipt.seq > seq => self.note_stale(&receipt, block),
                Ok(status) => {
                    match status {
                        PublishStatus::Published => self.report.published += 1,
                        _ if is_refresh(&receipt.region) => {}
                        _ => self.report.duplicate += 1,
                    }
                    self.failed.remove(&receipt.region);
                    self.floored.remove(&receipt.region);
                    self.ahead.remove(&receipt.region);
                    self.told.remove(&receipt.region);
                    done.push((receipt.region, seq));
                }
                Err(error) => {
                    if error.is_away() {
                        away.get_or_insert_with(|| error.to_string());
                    }
                    if !is_refresh(&receipt.region) {
                        refused.push((receipt.region, error.clone()));
                    }
                }
            }
        }
        if !done.is_empty()
            && let Err(error) = self.outbox.mark(&done, Timestamp::now())
        {
            // They will be published again, which changes nothing.
            tracing::debug!("published snapshots could not be marked: {}", store_text(&error));
        }
        // Of a cluster, servers that are well go on.
        let is_away = done.is_empty()
            && !items.is_empty()
            && (published.is_unreachable || !self.publisher.plan().url.is_cluster());
        match away.filter(|_| is_away) {
            Some(cause) => self.set_away(&cause),
            None if done.is_empty() => {}
            None => self.set_back(),
        }
        self.done.extend(done);
        self.note_refused(refused);
        self.away.is_none()
    }

    /// Leaves out what is older than what readers have: a store that was made anew goes through all blocks again, and its
    /// numbers may be higher all the same. A number and block that the store knows are its own, and it has gone back itself.
    fn hold_back(&mut self, items: Vec<Publication>) -> Vec<Publication> {
        let complete = self.mailbox.waiting().complete;
        let mut kept = Vec::with_capacity(items.len());
        for item in items {
            let there = self.publisher.known(&item.region).and_then(|(seq, block)| Some((seq, block?)));
            let newer = there.filter(|(_, block)| {
                item.block.is_some_and(|ours| ours < *block) && complete.is_none_or(|complete| complete < *block)
            });
            let is_held =
                newer.is_some_and(|(seq, block)| !self.outbox.holds(&item.region, seq, block).unwrap_or(false));
            match is_held {
                true => {
                    self.report.duplicate += 1;
                    self.failed.remove(&item.region);
                    self.ahead.insert(item.region);
                }
                false => kept.push(Publication { follows_rollback: newer.is_some(), ..item }),
            }
        }
        kept
    }

    /// Redis has a newer snapshot of the region than the store: that was made anew. It is left alone until this run, which
    /// alone writes the pipeline, has come as far; then the store must count on from there.
    fn note_stale(&mut self, receipt: &PublishReceipt, block: Option<i64>) {
        self.failed.remove(&receipt.region);
        let complete = self.mailbox.waiting().complete;
        let has_caught_up = match receipt.block {
            Some(there) => block.is_some_and(|block| there <= block) || complete.is_some_and(|block| there <= block),
            None => complete.is_some(),
        };
        if has_caught_up && receipt.seq < SEQ_MAX {
            self.floors.insert(Arc::clone(&receipt.region), receipt.seq);
            self.floored.insert(Arc::clone(&receipt.region), receipt.seq);
        } else {
            self.report.duplicate += 1;
            self.ahead.insert(Arc::clone(&receipt.region));
        }
    }

    /// Notes regions that failed, and tells what is new about them.
    fn note_refused(&mut self, refused: Vec<(Arc<str>, PublishError)>) {
        let (mut told, mut untold) = (0, 0);
        let is_away = self.away.is_some();
        for (region, error) in refused {
            let cause = error.to_string();
            let before = self.told.insert(Arc::clone(&region), cause.clone());
            if !is_away && before.as_deref() != Some(cause.as_str()) {
                told += 1;
                match told <= FAILURES_TOLD_MAX {
                    true => tracing::warn!("the snapshot of {} was not published: {}", shown(&region), shown(&cause)),
                    false => untold += 1,
                }
            }
            self.failed.insert(region, Failure { cause, is_away: error.is_away() });
        }
        if untold > 0 {
            tracing::warn!("the snapshots of {untold} more regions were not published");
        }
    }

    /// Writes the summary of what was published. A large one not every time.
    fn conclude(&mut self, is_closed: bool) {
        let is_small = self.publisher.summary_len() <= SUMMARY_REGIONS_MAX;
        let is_due = is_closed || is_small || self.summed_at.is_none_or(|at| at.elapsed() > SUMMARY_STEP);
        if is_due && self.away.is_none() {
            let warning = self.publisher.conclude();
            self.warn(warning);
            self.summed_at = Some(Instant::now());
        }
    }

    /// Tells what went wrong beside the regions, if it is another thing than the last time.
    fn warn(&mut self, warning: Option<String>) {
        if let Some(warning) = warning.filter(|warning| self.away.is_none() && *warning != self.warned) {
            tracing::warn!("snapshots: {warning}");
            self.warned = warning;
        }
    }

    fn set_away(&mut self, cause: &str) {
        match &mut self.away {
            Some((known, _)) => cause.clone_into(known),
            None => {
                tracing::warn!("{cause}; snapshots stay in the store and are published when it is back");
                self.away = Some((cause.to_owned(), Instant::now()));
            }
        }
    }

    fn set_back(&mut self) {
        if let Some((_, since)) = self.away.take() {
            tracing::info!("snapshots are published again after {:.1} s", since.elapsed().as_secs_f64());
        }
    }

    /// Publishes what the store has numbered anew. Blocks; begins nothing after the deadline.
    pub(crate) fn sweep_again(&mut self, deadline: Instant) {
        let begun = Instant::now();
        self.sweep(Some(deadline));
        self.conclude(true);
        let ended = Instant::now();
        self.report.busy += ended - begun;
        self.recorder.span(Stage::Publish, Doing::Working, 0, begun, ended);
    }

    /// What was done.
    pub(crate) fn end(mut self) -> OutboxReport {
        if let Some(region) = self.ahead.first() {
            tracing::warn!(
                "Redis has newer snapshots than this store, of {} regions ({} for one): they are left there until the \
                 pipeline has come as far",
                self.ahead.len(),
                shown(region)
            );
        }
        let mut failed: BTreeMap<String, String> =
            self.failed.into_iter().map(|(region, failure)| (region.to_string(), failure.cause)).collect();
        for (region, seq) in self.floored {
            let cause = format!("Redis has number {seq} of it, and the store could not count on from there");
            failed.entry(region.to_string()).or_insert(cause);
        }
        if let Some((cause, _)) = &self.away {
            // Whatever was not even tried, too.
            let mut after = String::new();
            loop {
                match self.outbox.due(Timestamp::MIN, &after, OUTBOX_PAGE) {
                    Ok(page) => {
                        let Some(last) = page.last() else { break };
                        after = last.publication.region.to_string();
                        for due in page {
                            failed.entry(due.publication.region.to_string()).or_insert_with(|| cause.clone());
                        }
                    }
                    Err(error) => {
                        let all = UnpublishedRegion::all(store_text(&error));
                        failed.entry(all.region).or_insert(all.cause);
                        break;
                    }
                }
            }
            if self.is_store_away && failed.is_empty() {
                let all = UnpublishedRegion::all(cause.clone());
                failed.insert(all.region, all.cause);
            }
        }
        self.report.failed = failed.into_iter().map(|(region, cause)| UnpublishedRegion { region, cause }).collect();
        self.report
    }
}

/// A text of the data without control characters.
fn shown(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn store_text(error: &StoreError) -> String {
    format!("the outbox cannot be read or marked: {error}")
}
