//! The thread that fetches records ahead of the reader.
//!
//! Whatever goes wrong for a while, it begins again behind the last record that it has read, with a connection of its own:
//! the same checks are made as when a run begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};

use super::super::trouble::Trouble;
use super::partition::{CLOSE_MAX, Partition, Polled, Trouble};
use super::plan::KafkaPlan;
use super::record::{Anchor, Record};
use crate::model::limits::{SOURCE_OUTAGE_MAX, WAIT_STEP};
use crate::model::wait::pause;

/// How long servers may be away when a run begins: then a mistake in the address is likelier.
const OUTAGE_AT_START_MAX: Duration = Duration::from_secs(10);
/// How long a topic that was there may be unknown: servers that come back may not know it yet.
const NO_TOPIC_MAX: Duration = Duration::from_secs(10);
/// The wait before the first try, and the longest before any.
const DELAY_MIN: Duration = Duration::from_millis(20);
const DELAY_MAX: Duration = Duration::from_secs(2);
/// How long nothing may come until the servers are asked whether they are there.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// How long the last record of a followed partition waits for what stands behind it.
const LINGER: Duration = Duration::from_millis(20);
/// Records and bytes that are handed on at once.
const RECORDS_MAX: usize = 4096;
const PART_BYTES: usize = 512 * 1024;
/// Parts that wait for the reader.
const PARTS_WAITING: usize = 1;

/// What the thread sends.
pub(super) enum Fetched {
    Records(Vec<Record>),
    /// There is nothing for now.
    Nothing,
    End,
    Failed(String),
}

/// Why it ends early.
enum Ended {
    Failed(String),
    /// Nobody wants to know any more.
    Stopped,
}

/// The thread's other end. It ends when this is dropped, which may block for a moment.
pub(super) struct Fetch {
    pub(super) fetched: Receiver<Fetched>,
    /// Why the servers cannot be reached now.
    pub(super) trouble: Trouble,
    is_over: Arc<AtomicBool>,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // A program that ends while librdkafka is at work may do so badly.
        let until = Instant::now() + CLOSE_MAX;
        while self.fetched.recv_deadline(until).is_ok() {}
    }
}

impl Fetch {
    /// Fetches what lies behind the anchor, or all.
    pub(super) fn start(plan: &KafkaPlan, anchor: Option<Anchor>) -> Result<Self, String> {
        let (sender, fetched) = bounded(PARTS_WAITING);
        let (is_over, trouble) = (Arc::new(AtomicBool::new(false)), Trouble::default());
        let fetcher = Fetcher {
            name: plan.name(),
            plan: plan.clone(),
            sender,
            is_over: Arc::clone(&is_over),
            anchor,
            end: None,
            waiting: Vec::new(),
            has_answered: false,
            has_looked_again: false,
            outage: None,
            trouble: trouble.clone(),
        };
        std::thread::Builder::new()
            .name("forebay-kafka".into())
            .spawn(move || fetcher.run())
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { fetched, trouble, is_over })
    }

    /// What has come; none if it has not within that time.
    pub(super) fn take(&self, wait: Duration) -> Option<Fetched> {
        match self.fetched.recv_timeout(wait) {
            Ok(fetched) => Some(fetched),
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => None,
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                Some(Fetched::Failed("the thread that reads the topic has ended".into()))
            }
        }
    }
}

/// An outage that is not over.
struct Outage {
    since: Instant,
    delay: Duration,
    is_told: bool,
}

struct Fetcher {
    plan: KafkaPlan,
    name: String,
    sender: Sender<Fetched>,
    is_over: Arc<AtomicBool>,
    /// The last record that has come.
    anchor: Option<Anchor>,
    /// Where it ends, if it is not followed: the end of the partition when it began.
    end: Option<i64>,
    /// Records that are not handed on yet.
    waiting: Vec<Record>,
    has_answered: bool,
    /// Whether an end that came too early was looked at again.
    has_looked_again: bool,
    outage: Option<Outage>,
    trouble: Trouble,
}

impl Fetcher {
    /// Contract of the thread. In: a partition, and where to begin. Out: its records in order, over a bounded channel, each
    /// once; then `End` or `Failed`. Writes nothing. Ends: at the end that the partition had in the beginning, unless it is
    /// followed; at its first error; when nobody takes records any more.
    fn run(mut self) {
        let last = match self.fetch_all() {
            Ok(()) => Fetched::End,
            Err(Ended::Stopped) => return,
            Err(Ended::Failed(text)) => Fetched::Failed(text),
        };
        // If nobody takes it, nobody wants to know.
        let _ = self.send(last);
    }

    fn fetch_all(&mut self) -> Result<(), Ended> {
        while !self.is_over.load(Ordering::Relaxed) {
            let came_to = match self.open() {
                Ok(partition) => {
                    if self.end.is_some_and(|end| end <= partition.low) && self.anchor.is_none() {
                        return Ok(());
                    }
                    self.read(&partition)?
                }
                Err(trouble) => Some(trouble),
            };
            self.hand_on(None)?;
            match came_to {
                None => return Ok(()),
                Some(trouble) => self.bear(trouble)?,
            }
        }
        Err(Ended::Stopped)
    }

    /// Connects, and begins behind the anchor.
    fn open(&mut self) -> Result<Partition, Trouble> {
        let partition = Partition::open(&self.plan)?;
        if let Some(end) = self.end.filter(|end| partition.high < *end) {
            return Err(Trouble::Again(format!("its leader knows it up to offset {}, of {end}", partition.high)));
        }
        partition.begin(self.anchor)?;
        self.has_answered = true;
        if !self.plan.follows && self.end.is_none() {
            self.end = Some(partition.high);
        }
        Ok(partition)
    }

    /// Reads until the end, which is no trouble, or until there is trouble.
    fn read(&mut self, partition: &Partition) -> Result<Option<Trouble>, Ended> {
        let (mut bytes, mut quiet_since, mut is_quiet) = (0, Instant::now(), false);
        while !self.is_over.load(Ordering::Relaxed) {
            let wait = [WAIT_STEP, LINGER, Duration::ZERO][self.waiting.len().min(2)];
            match partition.poll(wait) {
                Ok(Polled::Record(record)) => {
                    (quiet_since, is_quiet) = (Instant::now(), false);
                    let is_last = self.end.is_some_and(|end| record.next >= end);
                    bytes += record.bytes();
                    if let Some(trouble) = self.take(record) {
                        return Ok(Some(trouble));
                    }
                    if is_last {
                        return Ok(None);
                    }
                    if bytes >= PART_BYTES || self.waiting.len() >= RECORDS_MAX {
                        bytes = 0;
                        self.hand_on_but_last()?;
                    }
                }
                Ok(Polled::End) => {
                    bytes = 0;
                    quiet_since = Instant::now();
                    self.is_back();
                    self.hand_on(Some(partition))?;
                    if let Some(end) = self.end {
                        return Ok(self.at_end(partition, end));
                    }
                    if !std::mem::replace(&mut is_quiet, true) {
                        self.send(Fetched::Nothing)?;
                    }
                }
                Ok(Polled::Nothing) if self.waiting.len() > 1 => {
                    bytes = 0;
                    self.hand_on_but_last()?;
                }
                Ok(Polled::Nothing) if self.plan.follows && !self.waiting.is_empty() => {
                    self.hand_on(Some(partition))?
                }
                Ok(Polled::Nothing) if quiet_since.elapsed() < QUIET_MAX => {}
                Ok(Polled::Nothing) | Err(Trouble::Again(_)) => {
                    // One server of several may be away without anybody missing it.
                    if let Err(trouble) = partition.ends() {
                        return Ok(Some(trouble));
                    }
                    quiet_since = Instant::now();
                }
                Err(trouble) => return Ok(Some(trouble)),
            }
        }
        Err(Ended::Stopped)
    }

    /// Takes a record, unless it is the anchor.
    fn take(&mut self, record: Record) -> Option<Trouble> {
        match self.anchor {
            Some(anchor) if record.offset == anchor.offset && record.digest != anchor.digest => {
                return Some(Trouble::Gone(format!(
                    "the record at offset {} is another one than the one that was read: the topic was made anew. A pipeline \
                     of another name begins with what there is",
                    anchor.offset
                )));
            }
            Some(anchor) if record.offset == anchor.offset => {}
            Some(anchor) if record.offset < anchor.next => {
                return Some(Trouble::Gone(format!(
                    "the record at offset {} came behind the one at offset {}",
                    record.offset, anchor.offset
                )));
            }
            _ => {
                if let Some(last) = self.waiting.last_mut() {
                    last.next = record.offset;
                }
                self.anchor = Some(Anchor::of(&record));
                self.waiting.push(record);
            }
        }
        self.is_back();
        None
    }

    /// The servers say that this is the end. A leader that has just become one may not know all that the last one knew.
    fn at_end(&mut self, partition: &Partition, end: i64) -> Option<Trouble> {
        let is_there = partition.position().is_some_and(|position| position >= end);
        (!is_there && !std::mem::replace(&mut self.has_looked_again, true)).then_some(Trouble::Anew)
    }

    /// Hands on what waits, but for the last record: what stands behind it may be no record, and was read too then.
    fn hand_on_but_last(&mut self) -> Result<(), Ended> {
        let last = self.waiting.len().saturating_sub(1);
        let records: Vec<Record> = self.waiting.drain(..last).collect();
        if records.is_empty() { Ok(()) } else { self.send(Fetched::Records(records)) }
    }

    /// Hands on all that waits.
    fn hand_on(&mut self, partition: Option<&Partition>) -> Result<(), Ended> {
        let Some(last) = self.waiting.last_mut() else { return Ok(()) };
        if let Some(position) = partition.and_then(Partition::position) {
            last.next = last.next.max(position);
        }
        self.anchor = Some(Anchor::of(last));
        let records = std::mem::take(&mut self.waiting);
        self.send(Fetched::Records(records))
    }

    fn is_back(&mut self) {
        let Some(outage) = self.outage.take() else { return };
        self.trouble.set(None);
        if outage.is_told {
            tracing::info!("{} is back after {} s", self.name, outage.since.elapsed().as_secs());
        }
    }

    /// Waits before the next try, unless it is hopeless.
    fn bear(&mut self, trouble: Trouble) -> Result<(), Ended> {
        let failed = |text: String| Err(Ended::Failed(format!("{}: {text}", self.name)));
        let limit = if self.has_answered { SOURCE_OUTAGE_MAX } else { OUTAGE_AT_START_MAX };
        let (cause, limit) = match trouble {
            Trouble::Refused(text) | Trouble::Gone(text) => return failed(text),
            Trouble::NoTopic if self.has_answered => ("there is no topic of that name".to_owned(), NO_TOPIC_MAX),
            Trouble::NoTopic => return failed("there is no topic of that name".into()),
            Trouble::Again(cause) => (cause, limit),
            Trouble::Anew => return Ok(()),
        };
        let outage =
            self.outage.get_or_insert_with(|| Outage { since: Instant::now(), delay: DELAY_MIN, is_told: false });
        if outage.since.elapsed() + outage.delay > limit {
            let seconds = outage.since.elapsed().as_secs();
            return failed(format!("{cause}; it was tried for {seconds} s"));
        }
        if self.has_answered && !std::mem::replace(&mut outage.is_told, true) {
            tracing::warn!("{}: {cause}; trying again for up to {} s", self.name, limit.as_secs());
        }
        self.trouble.set(Some(format!("{}: {cause}", self.name)));
        let delay = outage.delay;
        outage.delay = (delay * 2).min(DELAY_MAX);
        pause(delay, || self.is_over.load(Ordering::Relaxed));
        Ok(())
    }

    fn send(&self, mut fetched: Fetched) -> Result<(), Ended> {
        loop {
            match self.sender.send_timeout(fetched, WAIT_STEP) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(back)) if !self.is_over.load(Ordering::Relaxed) => fetched = back,
                Err(_) => return Err(Ended::Stopped),
            }
        }
    }
}
