//! The publish thread of a run.
//!
//! Committed snapshots come through a mailbox that holds the newest of each region; a channel of depth one wakes the
//! thread. Nobody waits for it: what it cannot publish, or what would take too much memory to hold, is in the store, which
//! is the outbox, and is read from there when Redis can be reached again.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::publisher::Extent;
use super::{Publication, PublishError, PublishStatus, Publisher};
use crate::limits::OUTBOX_PAGE;
use crate::store::{Outbox, StoreError};
use crate::timestamp::Timestamp;

/// Waits between two tries while something cannot be published.
const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(10);

/// How often it is looked whether the time to live of a quiet region has to begin anew.
const REFRESH_STEP_MAX: Duration = Duration::from_secs(3600);

/// Failures of single regions that are told at once; the others are counted.
const FAILURES_TOLD_MAX: usize = 10;

#[derive(Default)]
struct Waiting {
    newest: BTreeMap<Arc<str>, Publication>,
    bytes: usize,
    /// Something was let go: it is to be read from the store.
    is_incomplete: bool,
}

/// Where committed snapshots wait for the publish thread: the newest of each region.
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    /// Regions for which Redis knows a higher number than the store does, and that number.
    floors: Mutex<BTreeMap<Arc<str>, u64>>,
    wake: Sender<()>,
    is_closed: AtomicBool,
    bytes_max: usize,
}

impl Mailbox {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts snapshots in; an older one of the same region goes. Never blocks.
    pub(crate) fn put(&self, publications: impl IntoIterator<Item = Publication>) {
        let mut waiting = self.waiting();
        for one in publications {
            waiting.bytes += one.doc.len();
            if let Some(older) = waiting.newest.insert(Arc::clone(&one.region), one) {
                waiting.bytes -= older.doc.len();
            }
        }
        if waiting.bytes > self.bytes_max {
            *waiting = Waiting { is_incomplete: true, ..Waiting::default() };
        }
        drop(waiting);
        self.wake();
    }

    /// Lets everything that is unpublished be read from the store. Never blocks.
    pub(crate) fn ask_for_sweep(&self) {
        self.waiting().is_incomplete = true;
        self.wake();
    }

    /// Regions that the store must number above what Redis has. Never blocks.
    pub(crate) fn take_floors(&self) -> Vec<(Arc<str>, u64)> {
        let mut floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *floors).into_iter().collect()
    }

    fn note_floor(&self, region: Arc<str>, seq: u64) {
        self.floors.lock().unwrap_or_else(PoisonError::into_inner).insert(region, seq);
    }

    fn take(&self) -> Waiting {
        std::mem::take(&mut self.waiting())
    }

    fn wake(&self) {
        // If it is full, a wake-up is on its way already.
        let _ = self.wake.try_send(());
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.wake();
    }
}

/// A region whose newest snapshot is not in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpublishedRegion {
    /// The region.
    pub region: String,
    /// Why.
    pub cause: String,
}

/// What a publish thread did.
#[derive(Debug, Default)]
pub(crate) struct OutboxReport {
    pub(crate) published: u64,
    pub(crate) duplicate: u64,
    pub(crate) failed: Vec<UnpublishedRegion>,
    pub(crate) busy: Duration,
}

/// The publish thread and the way to it.
pub(crate) struct PublishThread {
    mailbox: Arc<Mailbox>,
    done: Receiver<()>,
    thread: JoinHandle<Worker>,
}

impl PublishThread {
    /// Starts the thread. `bytes_max` is what may wait in memory.
    pub(crate) fn spawn(publisher: Publisher, outbox: Box<dyn Outbox>, bytes_max: usize) -> std::io::Result<Self> {
        let (wake, inbox) = bounded(1);
        let (ended, done) = bounded::<()>(1);
        let mailbox = Arc::new(Mailbox {
            waiting: Mutex::default(),
            floors: Mutex::default(),
            wake,
            is_closed: AtomicBool::new(false),
            bytes_max,
        });
        let worker = Worker::new(publisher, outbox, Arc::clone(&mailbox));
        let thread = std::thread::Builder::new().name("forebay-publish".into()).spawn(move || {
            let worker = worker.run(&inbox);
            drop(ended);
            worker
        })?;
        Ok(Self { mailbox, done, thread })
    }

    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    /// Lets what waits be published, tries once more what could not be, and ends the thread; gives back what it knows.
    /// Blocks for `timeout` at most.
    ///
    /// # Errors
    /// It did not end in that time, or died.
    pub(crate) fn finish(self, timeout: Duration) -> Result<Worker, String> {
        self.mailbox.close();
        match self.done.recv_timeout(timeout) {
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("publishing did not end within {} s; the next run goes on with it", timeout.as_secs()))
            }
            _ => self.thread.join().map_err(|panic| {
                let text = crate::commit::handoff::panic_message(panic.as_ref());
                format!("the publish thread panicked: {text}; this is a bug in forebay, please report it")
            }),
        }
    }
}

/// What the publish thread knows.
pub(crate) struct Worker {
    publisher: Publisher,
    outbox: Box<dyn Outbox>,
    mailbox: Arc<Mailbox>,
    /// Regions whose newest snapshot was refused, and why.
    failed: BTreeMap<Arc<str>, String>,
    /// The last number of each region that is known to be in Redis: a sweep may be ahead of the mailbox.
    done: HashMap<Arc<str>, u64>,
    /// Why nothing can be published at all, and since when.
    away: Option<(String, Instant)>,
    /// When what is in the store is to be looked through.
    sweep_at: Instant,
    delay: Duration,
    report: OutboxReport,
}

impl Worker {
    fn new(publisher: Publisher, outbox: Box<dyn Outbox>, mailbox: Arc<Mailbox>) -> Self {
        Self {
            publisher,
            outbox,
            mailbox,
            failed: BTreeMap::new(),
            done: HashMap::new(),
            away: None,
            sweep_at: Instant::now(),
            delay: DELAY_MIN,
            report: OutboxReport::default(),
        }
    }

    /// Contract of the publish thread. In: the newest committed snapshot of each region, woken over a channel of depth
    /// one. Writes: each by one script in Redis, then a mark in the store. Out: a report. Ends: when the mailbox is closed
    /// and what was in it is decided. What an earlier run left unpublished comes first.
    fn run(mut self, inbox: &Receiver<()>) -> Self {
        loop {
            let is_closed = self.mailbox.is_closed.load(Ordering::Acquire);
            let is_due = self.sweep_at <= Instant::now();
            let begun = Instant::now();
            if is_due || (is_closed && self.is_behind()) {
                // What waits is in the store too.
                self.mailbox.take();
                self.sweep();
            } else if self.away.is_none() {
                self.publish_waiting();
            }
            self.report.busy += begun.elapsed();
            if is_closed {
                return self;
            }
            let wait = self.sweep_at.saturating_duration_since(Instant::now());
            // A closed channel cannot be: the mailbox holds the other end.
            let _ = inbox.recv_timeout(wait);
        }
    }

    /// Whether the store may hold what Redis does not.
    fn is_behind(&self) -> bool {
        self.away.is_some() || !self.failed.is_empty()
    }

    fn publish_waiting(&mut self) {
        let waiting = self.mailbox.take();
        if waiting.is_incomplete {
            return self.sweep();
        }
        let is_new = |item: &Publication| self.done.get(&item.region).is_none_or(|done| *done < item.seq);
        let items: Vec<Publication> = waiting.newest.into_values().filter(is_new).collect();
        if !items.is_empty() {
            self.publish(items, &|_| false);
            self.schedule();
        }
    }

    /// Publishes what the store holds unpublished, and what was published so long ago that it would expire.
    fn sweep(&mut self) {
        let plan = self.publisher.plan();
        let refreshed = Timestamp::now().saturating_sub(plan.ttl / 3);
        let mut after = String::new();
        self.failed.clear();
        loop {
            let page = match self.outbox.due(refreshed, &after, OUTBOX_PAGE) {
                Ok(page) => page,
                Err(error) => {
                    self.set_away(&store_text(&error));
                    break;
                }
            };
            let Some(last) = page.last() else {
                // All of it went through, or was refused one by one.
                self.set_back();
                break;
            };
            after = last.publication.region.to_string();
            let refreshes: Vec<Arc<str>> =
                page.iter().filter(|due| due.was_published).map(|due| Arc::clone(&due.publication.region)).collect();
            let mut items: Vec<Publication> = page.into_iter().map(|due| due.publication).collect();
            items.sort_by_key(|item| (item.time, item.seq));
            if !self.publish(items, &|region| refreshes.iter().any(|one| **one == *region)) {
                break;
            }
        }
        self.schedule();
    }

    /// Publishes and marks; false if the server is away. `is_refresh` says of which regions the newest was in Redis before.
    fn publish(&mut self, items: Vec<Publication>, is_refresh: &dyn Fn(&str) -> bool) -> bool {
        let stored: Vec<(Arc<str>, u64, Option<i64>)> =
            items.iter().map(|item| (Arc::clone(&item.region), item.seq, item.block)).collect();
        let (items, mut refused): (Vec<Publication>, Vec<_>) = self.publisher.plan().resolve(items);
        let published = self.publisher.publish(&items, Extent::Part);
        if let Some(warning) = &published.warning {
            tracing::warn!("snapshots: {warning}");
        }
        let seqs: BTreeMap<&str, (u64, Option<i64>)> =
            stored.iter().map(|(region, seq, block)| (&**region, (*seq, *block))).collect();
        let mut done = Vec::new();
        let mut away = None;
        for receipt in published.receipts {
            match receipt.outcome {
                Ok(status) => {
                    let (seq, block) = seqs.get(&*receipt.region).copied().unwrap_or_default();
                    self.failed.remove(&receipt.region);
                    if status == PublishStatus::Stale && receipt.seq > seq && receipt.block <= block {
                        // The one writer of the pipeline has come as far, or further: its store was made anew.
                        self.mailbox.note_floor(receipt.region, receipt.seq);
                        continue;
                    }
                    if status != PublishStatus::Stale {
                        done.push((Arc::clone(&receipt.region), seq));
                    }
                    match status {
                        PublishStatus::Published => self.report.published += 1,
                        _ if is_refresh(&receipt.region) => {}
                        _ => self.report.duplicate += 1,
                    }
                }
                Err(error) if error.is_away() => {
                    away.get_or_insert_with(|| error.to_string());
                    // Another server of the cluster may be well.
                    if !is_refresh(&receipt.region) {
                        refused.push((receipt.region, error));
                    }
                }
                Err(_) if is_refresh(&receipt.region) => {}
                Err(error) => refused.push((receipt.region, error)),
            }
        }
        if !done.is_empty()
            && let Err(error) = self.outbox.mark(&done, Timestamp::now())
        {
            // They will be published again, which changes nothing.
            tracing::debug!("published snapshots could not be marked: {}", store_text(&error));
        }
        self.done.extend(done.iter().cloned());
        let is_away = away.is_some();
        match away {
            Some(cause) => self.set_away(&cause),
            None if done.is_empty() => {}
            None => self.set_back(),
        }
        self.note_refused(refused);
        !is_away
    }

    /// Notes regions that failed, and tells what is new about them.
    fn note_refused(&mut self, refused: Vec<(Arc<str>, PublishError)>) {
        let mut untold = 0;
        for (at, (region, error)) in refused.into_iter().enumerate() {
            let cause = error.to_string();
            let before = self.failed.insert(Arc::clone(&region), cause.clone());
            if error.is_away() || before.as_deref() == Some(cause.as_str()) {
                continue;
            }
            match at < FAILURES_TOLD_MAX {
                true => tracing::warn!("the snapshot of {region} was not published: {cause}"),
                false => untold += 1,
            }
        }
        if untold > 0 {
            tracing::warn!("the snapshots of {untold} more regions were not published");
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

    /// When to look through the store again.
    fn schedule(&mut self) {
        let step = (self.publisher.plan().ttl / 3).min(REFRESH_STEP_MAX);
        let wait = match self.is_behind() {
            true => {
                let longer = (self.delay * 2).min(DELAY_MAX);
                std::mem::replace(&mut self.delay, longer)
            }
            false => {
                self.delay = DELAY_MIN;
                step
            }
        };
        self.sweep_at = Instant::now() + wait;
    }

    /// Publishes what the store has numbered anew. Blocks.
    pub(crate) fn sweep_again(&mut self) {
        let begun = Instant::now();
        self.sweep();
        self.report.busy += begun.elapsed();
    }

    /// What was done.
    pub(crate) fn end(mut self) -> OutboxReport {
        let mut failed: BTreeMap<String, String> =
            self.failed.into_iter().map(|(region, cause)| (region.to_string(), cause)).collect();
        if let Some((cause, _)) = &self.away {
            // Whatever was not even tried, too.
            let mut after = String::new();
            while let Ok(page) = self.outbox.due(Timestamp::MIN, &after, OUTBOX_PAGE) {
                let Some(last) = page.last() else { break };
                after = last.publication.region.to_string();
                for due in page {
                    failed.entry(due.publication.region.to_string()).or_insert_with(|| cause.clone());
                }
            }
        }
        self.report.failed = failed.into_iter().map(|(region, cause)| UnpublishedRegion { region, cause }).collect();
        self.report
    }
}

fn store_text(error: &StoreError) -> String {
    format!("the outbox cannot be read or marked: {error}")
}
