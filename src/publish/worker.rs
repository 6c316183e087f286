//! The publish thread of a run.
//!
//! What has committed comes through the [mailbox](super::mailbox). What cannot be published, or would take too much memory
//! to hold, is in the store, which is the outbox, and is read from there in a *sweep*: at the beginning and the end of a
//! run, after something failed, and so often that no quiet region expires.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::mailbox::Mailbox;
use super::region_states::{Regions, UnpublishedRegion};
use super::stats::PublishStats;
use super::{Delivery, DocumentFields, Patience, Publication, PublishError, PublishReceipt, PublishStatus, Target};
use crate::model::limits::{OUTBOX_PAGE, WAIT_STEP};
use crate::model::timestamp::Timestamp;
use crate::store::{DueSnapshot, Outbox, StoreError};
use crate::timeline::{Activity, Recorder, Stage};

/// Waits between two tries while something cannot be published.
const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(10);

/// How often it is looked at least whether the time to live of a quiet region has to begin anew.
const REFRESH_STEP_MAX: Duration = Duration::from_secs(3600);

/// Failures of single regions that are reported at once; the others are counted.
const FAILURES_REPORTED_MAX: usize = 10;

/// Numbers beyond it are none of ours: a store could not count on.
const SEQ_MAX: u64 = i64::MAX as u64 / 2;

/// What the target has of a region, if it is not what the store has marked as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    /// Nothing, or something older.
    Older,
    Newer,
}

/// Regions, and the number that the target has of each: the store must count on above it.
pub(crate) type MinSeqs = Vec<(Arc<str>, u64)>;

/// Hands it to whoever writes the store that snapshots are to be numbered anew; gives it back if there is no room or
/// nobody writes any more. Blocks for [`WAIT_STEP`] at most. That it was done is told to the mailbox.
pub(crate) type Renumber = Box<dyn Fn(MinSeqs) -> Result<(), MinSeqs> + Send>;

/// Gets what became of each snapshot that was published, on the publish thread.
pub(crate) type PublishHook = Box<dyn FnMut(&PublishReceipt) + Send>;

/// What a publish thread is made with.
pub(crate) struct WorkerPlan {
    /// Where snapshots go.
    pub(crate) target: Box<dyn Target>,
    /// The fields of a document that hold its id and its time.
    pub(crate) fields: DocumentFields,
    /// What the store holds unpublished.
    pub(crate) outbox: Box<dyn Outbox>,
    /// What it counts while it works.
    pub(crate) stats: Arc<PublishStats>,
    pub(crate) recorder: Arc<Recorder>,
    /// Set when the target is another store's: a run that may publish nothing is to stop.
    pub(crate) stop: Option<Arc<AtomicBool>>,
    /// Who is told of each snapshot that was published.
    pub(crate) hook: Option<PublishHook>,
}

/// The publish thread and the way to it. Dropping it lets it publish what waits and does not wait for it.
pub(crate) struct PublishThread {
    mailbox: Arc<Mailbox>,
    done: Receiver<()>,
    thread: Option<JoinHandle<Worker>>,
}

impl PublishThread {
    /// Starts the thread.
    pub(crate) fn spawn(
        plan: WorkerPlan,
        (mailbox, inbox): (Arc<Mailbox>, Receiver<()>),
        renumber: Renumber,
    ) -> std::io::Result<Self> {
        let (ended, done) = bounded::<()>(1);
        let worker = Worker::new(plan, Arc::clone(&mailbox), renumber);
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

/// What the publish thread knows.
pub(crate) struct Worker {
    plan: WorkerPlan,
    mailbox: Arc<Mailbox>,
    renumber: Renumber,
    regions: Regions,
    /// Regions that the store must number above what the target has, and whose order was not taken yet.
    min_seqs: BTreeMap<Arc<str>, u64>,
    /// Whether what the target has was compared with what the store has marked.
    is_compared: bool,
    /// Regions of which the target had something newer than what the store has marked.
    newer: HashSet<Arc<str>>,
    /// Whether the target knows the store's signature.
    is_signed: bool,
    /// Why nothing may be published: the target is another store's.
    refused: Option<PublishError>,
    /// Why nothing can be published at all, and since when.
    away: Option<(String, Instant)>,
    /// Whether the outbox itself could not be read.
    is_store_away: bool,
    /// When to look through the store for quiet regions, and when for what failed.
    refresh_at: Instant,
    retry_at: Option<Instant>,
    delay: Duration,
    /// What the user was told last of what went wrong beside the regions.
    warned: String,
}

impl Worker {
    fn new(plan: WorkerPlan, mailbox: Arc<Mailbox>, renumber: Renumber) -> Self {
        Self {
            plan,
            mailbox,
            renumber,
            regions: Regions::default(),
            min_seqs: BTreeMap::new(),
            is_compared: false,
            newer: HashSet::new(),
            is_signed: false,
            refused: None,
            away: None,
            is_store_away: false,
            refresh_at: Instant::now(),
            retry_at: None,
            delay: DELAY_MIN,
            warned: String::new(),
        }
    }

    /// Contract of the publish thread. In: the newest committed snapshot of each region, woken over a channel of depth
    /// one. Writes: each to the target, then a mark in the store. Out: orders to number snapshots anew, to the
    /// commit thread; at the end a report. Ends: when the mailbox is closed and what was in it is decided. What an earlier
    /// run left unpublished comes first.
    fn run(mut self, inbox: &Receiver<()>) -> Self {
        loop {
            let is_closed = self.mailbox.is_closed();
            self.take_target();
            let now = Instant::now();
            if self.refused.is_some() {
                self.mailbox.take();
            } else if is_closed || self.refresh_at <= now || self.retry_at.is_some_and(|at| at <= now) {
                // What waits is in the store too.
                self.mailbox.take();
                self.sweep(None);
            } else if self.away.is_none() {
                self.publish_waiting();
            }
            self.flush_summary(is_closed);
            let ended = Instant::now();
            self.plan.stats.add_busy(ended - now);
            self.plan.recorder.span(Stage::Publish, Activity::Working, 0, now, ended);
            if is_closed {
                return self;
            }
            self.order_renumbering();
            let next = self.retry_at.map_or(self.refresh_at, |at| at.min(self.refresh_at));
            let wait = next.saturating_duration_since(Instant::now());
            // What was not taken is offered again.
            let wait = if self.min_seqs.is_empty() { wait } else { wait.min(WAIT_STEP) };
            // A closed channel cannot be: the mailbox holds the other end.
            let _ = inbox.recv_timeout(wait);
        }
    }

    /// Goes on with another target, if there is one: what it has is compared again.
    fn take_target(&mut self) {
        if let Some(target) = self.mailbox.take_target() {
            self.flush_summary(true);
            self.plan.target = target;
            (self.is_signed, self.is_compared, self.refresh_at) = (false, false, Instant::now());
        }
    }

    /// Lets the store number above what the target has, where that was found to be needed.
    fn order_renumbering(&mut self) {
        if let Some(min_seqs) = self.take_min_seqs()
            && let Err(back) = (self.renumber)(min_seqs)
        {
            self.min_seqs.extend(back);
        }
    }

    /// Regions that the store must number above what the target has; none if none is left whose order was not taken.
    pub(crate) fn take_min_seqs(&mut self) -> Option<MinSeqs> {
        (!self.min_seqs.is_empty()).then(|| std::mem::take(&mut self.min_seqs).into_iter().collect())
    }

    /// Whether the store may hold what the target does not.
    fn is_behind(&self) -> bool {
        self.away.is_some() || self.regions.any_failed()
    }

    fn publish_waiting(&mut self) {
        let (newest, is_incomplete) = self.mailbox.take();
        if is_incomplete {
            return self.sweep(None);
        }
        // A region whose server is away is tried again with a sweep, and holds up no other until then.
        let is_new =
            |item: &Publication| !self.regions.has(&item.region, item.seq) && !self.regions.is_away(&item.region);
        let items: Vec<Publication> = newest.into_values().filter(is_new).collect();
        if items.is_empty() {
            return;
        }
        self.publish(items, &|_| false, Patience::Skip);
        match (self.is_behind(), self.retry_at) {
            (true, None) => self.retry_at = Some(Instant::now() + self.delay),
            (false, _) => (self.retry_at, self.delay) = (None, DELAY_MIN),
            (true, Some(_)) => {}
        }
    }

    /// Publishes what the store holds unpublished, and what was published so long ago that it would expire. Begins no page
    /// after the deadline.
    fn sweep(&mut self, deadline: Option<Instant>) {
        let refresh_after = self.plan.target.ttl().map(|ttl| ttl / 3);
        match self.compare() {
            Ok(_) if self.refused.is_some() => {}
            Ok(mut others) => {
                if self.mailbox.is_closed() {
                    // Now it is known how far the store has come.
                    let ahead = self.regions.all_ahead().filter(|(region, ..)| self.newer.contains(*region));
                    others.extend(ahead.map(|(region, ..)| (Arc::clone(region), Other::Newer)));
                } else {
                    let newer = others.iter().filter(|(_, other)| **other == Other::Newer);
                    self.newer.extend(newer.map(|(region, _)| Arc::clone(region)));
                }
                let refreshed = refresh_after.map_or(Timestamp::MIN, |span| Timestamp::now().saturating_sub(span));
                self.sweep_pages(refreshed, None, deadline);
                if !others.is_empty() && self.away.is_none() {
                    self.tell_lacking(&others);
                    self.sweep_pages(Timestamp::MAX, Some(&others), deadline);
                }
            }
            Err(cause) => self.set_away(&cause),
        }
        self.refresh_at = Instant::now() + refresh_after.map_or(REFRESH_STEP_MAX, |span| span.min(REFRESH_STEP_MAX));
        self.retry_at = None;
        if self.is_behind() {
            self.retry_at = Some(Instant::now() + self.delay);
            self.delay = (self.delay * 2).min(DELAY_MAX);
        } else {
            self.delay = DELAY_MIN;
        }
    }

    /// Tells what the target lacks. What it has newer is told at the end, if it stays.
    fn tell_lacking(&self, others: &HashMap<Arc<str>, Other>) {
        let lacking = || others.iter().filter(|(_, other)| **other == Other::Older).map(|(region, _)| region);
        if let Some(region) = lacking().next() {
            tracing::info!(
                "{} lacks what was published before, of {} regions ({} for one): they are published again",
                self.plan.target.name(),
                lacking().count(),
                shown(region)
            );
        }
    }

    /// Tells the target, once, whose snapshots it gets.
    fn sign(&mut self) -> Result<(), String> {
        if !self.is_signed {
            let signature = self.plan.outbox.signature().map_err(|error| {
                self.is_store_away = true;
                store_text(&error)
            })?;
            if let Some(signature) = signature {
                self.plan.target.sign(&signature);
            }
            self.is_signed = true;
        }
        Ok(())
    }

    /// Publishes nothing from now on, and lets the run stop.
    fn refuse(&mut self, error: PublishError) {
        self.refused = Some(error);
        if let Some(stop) = &self.plan.stop {
            stop.store(true, Ordering::Relaxed);
        }
    }

    /// Compares, once, what the target is known to have with what the store has marked: it may have been emptied since, or
    /// restored from a copy, and others may have written. Returns the regions of which it has something else.
    fn compare(&mut self) -> Result<HashMap<Arc<str>, Other>, String> {
        let mut others = HashMap::new();
        if self.is_compared {
            return Ok(others);
        }
        self.sign()?;
        match self.plan.target.read_known() {
            Ok(()) => {}
            Err(error @ PublishError::OtherStore(_)) => {
                self.refuse(error);
                return Ok(others);
            }
            Err(error) if error.is_away() => return Err(error.to_string()),
            // The regions may be well all the same. The next sweep tries again.
            Err(error) => {
                self.warn(Some(format!("the summary cannot be read: {error}")));
                return Ok(others);
            }
        }
        let mut after = String::new();
        loop {
            let page = self.plan.outbox.published(&after, OUTBOX_PAGE).map_err(|error| {
                self.is_store_away = true;
                store_text(&error)
            })?;
            let Some((last, _)) = page.last() else { break };
            after = last.to_string();
            let target = &self.plan.target;
            let other = |(region, seq): (Arc<str>, u64)| match target.known(&region) {
                Some(there) if there.seq == seq && !target.is_of_other() => None,
                Some(there) if there.seq > seq => Some((region, Other::Newer)),
                _ => Some((region, Other::Older)),
            };
            others.extend(page.into_iter().filter_map(other));
        }
        self.is_compared = true;
        Ok(others)
    }

    fn sweep_pages(
        &mut self,
        published_before: Timestamp,
        only: Option<&HashMap<Arc<str>, Other>>,
        deadline: Option<Instant>,
    ) {
        // In the middle of a run there is another try soon; at its end, servers of a cluster that were well are waited for.
        let patience = match self.mailbox.is_closed() && !self.regions.any_away() {
            true => Patience::Wait,
            false => Patience::Skip,
        };
        let mut after = String::new();
        while deadline.is_none_or(|deadline| Instant::now() < deadline) {
            let page = match self.plan.outbox.due(published_before, &after, OUTBOX_PAGE) {
                Ok(page) => page,
                Err(error) => {
                    self.is_store_away = true;
                    self.set_away(&store_text(&error));
                    break;
                }
            };
            self.is_store_away = false;
            if after.is_empty() && only.is_none() {
                self.regions.retry();
            }
            let Some(last) = page.last() else {
                // All of it went through, or was refused one by one.
                self.set_back();
                break;
            };
            after = last.publication.region.to_string();
            if !self.publish_page(page, only, patience) {
                break;
            }
        }
    }

    /// Publishes what a sweep has found; false if nothing can be published now.
    fn publish_page(
        &mut self,
        page: Vec<DueSnapshot>,
        only: Option<&HashMap<Arc<str>, Other>>,
        patience: Patience,
    ) -> bool {
        let is_wanted = |due: &DueSnapshot| only.is_none_or(|only| only.contains_key(&due.publication.region));
        let page: Vec<DueSnapshot> = page.into_iter().filter(is_wanted).collect();
        let refreshes: HashSet<Arc<str>> =
            page.iter().filter(|due| due.was_published).map(|due| Arc::clone(&due.publication.region)).collect();
        let unpublished = page.iter().filter(|due| !due.was_published).map(|due| &due.publication);
        self.plan.stats.note_due(unpublished.map(|one| (&one.region, one.seq)));
        let mut items: Vec<Publication> = page.into_iter().map(|due| due.publication).collect();
        items.sort_by_key(|item| (item.time, item.seq));
        items.is_empty() || self.publish(items, &|region| refreshes.contains(region), patience)
    }

    /// Publishes and marks; false if nothing can be published now. `is_refresh` says of which regions the newest was
    /// published before.
    fn publish(&mut self, items: Vec<Publication>, is_refresh: &dyn Fn(&str) -> bool, patience: Patience) -> bool {
        let stored: HashMap<Arc<str>, (u64, Option<i64>)> =
            items.iter().map(|item| (Arc::clone(&item.region), (item.seq, item.block))).collect();
        let items = self.hold_back(items);
        let (items, mut refused) = self.plan.fields.resolve(items);
        let begun = Instant::now();
        let Delivery { receipts, away, warning } = self.plan.target.publish(&items, patience);
        self.plan.stats.add_publish(begun.elapsed());
        self.warn(warning);
        let mut done = Vec::new();
        for receipt in receipts {
            let (seq, block) = stored.get(&receipt.region).copied().unwrap_or_default();
            match &receipt.outcome {
                Ok(PublishStatus::Stale) if receipt.seq > seq => self.note_stale(&receipt, seq, block),
                Ok(status) => {
                    match status {
                        PublishStatus::Published => self.note_published(&receipt),
                        _ if is_refresh(&receipt.region) => self.plan.stats.add_kept(),
                        _ => self.plan.stats.add_duplicate(),
                    }
                    self.plan.stats.note_decided(&receipt.region, seq);
                    self.regions.published(&receipt.region, seq);
                    done.push((receipt.region, seq));
                }
                Err(_) if is_refresh(&receipt.region) => {}
                Err(error) => refused.push((receipt.region, error.clone())),
            }
        }
        if !done.is_empty()
            && let Err(error) = self.plan.outbox.mark(&done, Timestamp::now())
        {
            // They will be published again, which changes nothing.
            tracing::debug!("published snapshots could not be marked: {}", store_text(&error));
        }
        match away {
            Some(cause) => self.set_away(&cause),
            None if done.is_empty() => {}
            None => self.set_back(),
        }
        self.note_refused(refused);
        self.away.is_none()
    }

    fn note_published(&mut self, receipt: &PublishReceipt) {
        self.plan.stats.add_published();
        if let Some(hook) = &mut self.plan.hook {
            hook(receipt);
        }
    }

    /// Leaves out what is older than what readers have: a store that was made anew goes through all blocks again, and its
    /// numbers may be higher all the same. A number and block that the store knows are its own, and it has gone back itself.
    fn hold_back(&mut self, items: Vec<Publication>) -> Vec<Publication> {
        let complete = self.mailbox.complete();
        let mut kept = Vec::with_capacity(items.len());
        for item in items {
            let there = self.plan.target.known(&item.region).and_then(|there| Some((there.seq, there.block?)));
            let here = item.seq;
            let newer = there.filter(|(_, block)| {
                item.block.is_some_and(|ours| ours < *block) && complete.is_none_or(|complete| complete < *block)
            });
            let held_by =
                newer.filter(|(seq, block)| !self.plan.outbox.holds(&item.region, *seq, *block).unwrap_or(false));
            match held_by {
                Some((there, _)) => {
                    self.note_ahead(&item.region, there, here);
                }
                None => kept.push(Publication { follows_rollback: newer.is_some(), ..item }),
            }
        }
        kept
    }

    /// The target has a newer snapshot of the region than the store: that was made anew. It is left alone until this run, which
    /// alone writes the pipeline, has come as far; then the store must count on from there.
    fn note_stale(&mut self, receipt: &PublishReceipt, seq: u64, block: Option<i64>) {
        let complete = self.mailbox.complete();
        let has_caught_up = match receipt.block {
            Some(there) => block.is_some_and(|block| there <= block) || complete.is_some_and(|block| there <= block),
            None => complete.is_some(),
        };
        if has_caught_up && receipt.seq < SEQ_MAX {
            self.min_seqs.insert(Arc::clone(&receipt.region), receipt.seq);
            self.regions.renumbering(&receipt.region, receipt.seq);
        } else {
            self.note_ahead(&receipt.region, receipt.seq, seq);
        }
    }

    fn note_ahead(&mut self, region: &Arc<str>, there: u64, here: u64) {
        self.plan.stats.note_decided(region, here);
        if self.regions.ahead(region, there, here) {
            self.plan.stats.add_stale();
        }
    }

    /// Notes regions that failed, and tells what is new about them.
    fn note_refused(&mut self, refused: Vec<(Arc<str>, PublishError)>) {
        self.plan.stats.add_failed(refused.len() as u64);
        let (mut reported, mut unreported) = (0, 0);
        let is_away = self.away.is_some();
        for (region, error) in refused {
            let cause = error.to_string();
            let is_news = self.regions.failed(&region, &cause, error.is_away());
            if is_news && !is_away {
                reported += 1;
                match reported <= FAILURES_REPORTED_MAX {
                    true => tracing::warn!("the snapshot of {} was not published: {}", shown(&region), shown(&cause)),
                    false => unreported += 1,
                }
            }
        }
        if unreported > 0 {
            tracing::warn!("the snapshots of {unreported} more regions were not published");
        }
    }

    /// Lets the target bring up to date what it says of all regions.
    fn flush_summary(&mut self, is_last: bool) {
        if self.away.is_none() && self.refused.is_none() {
            let warning = self.plan.target.flush_summary(is_last);
            self.warn(warning);
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
        self.plan.stats.note_away(Some(cause));
        match &mut self.away {
            Some((known, _)) => cause.clone_into(known),
            None => {
                tracing::warn!("{cause}; snapshots stay in the store and are published when it is back");
                self.away = Some((cause.to_owned(), Instant::now()));
            }
        }
    }

    fn set_back(&mut self) {
        self.plan.stats.note_away(None);
        if let Some((_, since)) = self.away.take() {
            tracing::info!("snapshots are published again after {:.1} s", since.elapsed().as_secs_f64());
        }
    }

    /// Publishes what the store has numbered anew. Blocks; begins nothing after the deadline.
    pub(crate) fn sweep_again(&mut self, deadline: Instant) {
        let started = Instant::now();
        self.sweep(Some(deadline));
        self.flush_summary(true);
        let ended = Instant::now();
        self.plan.stats.add_busy(ended - started);
        self.plan.recorder.span(Stage::Publish, Activity::Working, 0, started, ended);
    }

    /// Warns of what was left as it was; returns the regions whose newest snapshot is not where readers look.
    ///
    /// # Errors
    /// Nothing may be published there: it is another store's.
    pub(crate) fn end(mut self) -> Result<Vec<UnpublishedRegion>, PublishError> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let target = self.plan.target.name();
        if let Some((region, there, here)) = self.regions.all_ahead().next() {
            tracing::warn!(
                "{target} has newer snapshots than this store, of {} regions ({} for one: number {there} there, {here} \
                 here): they are left there until the pipeline has come as far",
                self.regions.all_ahead().count(),
                shown(region)
            );
        }
        let mut failed = self.regions.unpublished(target);
        if let Some((cause, _)) = self.away.take() {
            self.add_untried(&cause, &mut failed);
        }
        Ok(failed.into_iter().map(|(region, cause)| UnpublishedRegion { region, cause }).collect())
    }

    /// Adds regions that were not even tried, as nothing could be published.
    fn add_untried(&mut self, cause: &str, failed: &mut BTreeMap<String, String>) {
        let mut after = String::new();
        loop {
            match self.plan.outbox.due(Timestamp::MIN, &after, OUTBOX_PAGE) {
                Ok(page) => {
                    let Some(last) = page.last() else { break };
                    after = last.publication.region.to_string();
                    for due in page {
                        failed.entry(due.publication.region.to_string()).or_insert_with(|| cause.to_owned());
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
            let all = UnpublishedRegion::all(cause.to_owned());
            failed.insert(all.region, all.cause);
        }
    }
}

/// A text of the data without control characters.
fn shown(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn store_text(error: &StoreError) -> String {
    format!("the outbox cannot be read or marked: {error}")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::publish::Known;

    /// A target and an outbox that have nothing.
    struct Nothing;

    impl Target for Nothing {
        fn name(&self) -> &str {
            "nothing"
        }
        fn publish(&mut self, _: &[Publication], _: Patience) -> Delivery {
            Delivery::default()
        }
        fn read_known(&mut self) -> Result<(), PublishError> {
            Ok(())
        }
        fn known(&self, _: &str) -> Option<Known> {
            None
        }
    }

    impl Outbox for Nothing {
        fn due(&mut self, _: Timestamp, _: &str, _: usize) -> Result<Vec<DueSnapshot>, StoreError> {
            Ok(Vec::new())
        }
        fn published(&mut self, _: &str, _: usize) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
            Ok(Vec::new())
        }
        fn holds(&mut self, _: &str, _: u64, _: i64) -> Result<bool, StoreError> {
            Ok(false)
        }
        fn mark(&mut self, _: &[(Arc<str>, u64)], _: Timestamp) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn an_order_that_is_not_taken_is_offered_again_and_comes_out_at_the_end() {
        let plan = WorkerPlan {
            target: Box::new(Nothing),
            fields: DocumentFields::default(),
            outbox: Box::new(Nothing),
            stats: Arc::default(),
            recorder: Recorder::new(0),
            stop: None,
            hook: None,
        };
        let has_room = Arc::new(Mutex::new(false));
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (room, orders) = (Arc::clone(&has_room), Arc::clone(&taken));
        let renumber: Renumber = Box::new(move |min_seqs| match *room.lock().expect("room") {
            true => {
                orders.lock().expect("orders").push(min_seqs);
                Ok(())
            }
            false => Err(min_seqs),
        });
        let mut worker = Worker::new(plan, Mailbox::new(0, Arc::default()).0, renumber);
        worker.min_seqs.insert("a".into(), 7);
        worker.order_renumbering();
        // What is found meanwhile goes with it.
        worker.min_seqs.insert("b".into(), 3);
        *has_room.lock().expect("room") = true;
        worker.order_renumbering();
        worker.order_renumbering();
        assert_eq!(*taken.lock().expect("orders"), [vec![("a".into(), 7), ("b".into(), 3)]]);
        *has_room.lock().expect("room") = false;
        worker.min_seqs.insert("c".into(), 1);
        worker.order_renumbering();
        assert_eq!((worker.take_min_seqs(), worker.take_min_seqs()), (Some(vec![("c".into(), 1)]), None));
    }
}
