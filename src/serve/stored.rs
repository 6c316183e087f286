//! What only the store knows: regions, documents, the quarantine. Read over a connection of its own, on a thread of its own,
//! when somebody asks, and at most once a second each.
//!
//! Nobody waits for the store here: who asks gets what is known, and how old it is. What the run has not changed since is not
//! read again.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::samples::Mark;
use super::wanted::{self, Answer, Document, Found, View, Want, age};
use crate::model::address::without_logins;
use crate::store::{SnapshotReader, StoreError, StoreUrl, open_snapshots_until};

/// What is wanted and not read yet, at most.
const WAITING_MAX: usize = 32;

/// What was read is good for so long, whatever was committed since.
const FRESH: Duration = Duration::from_secs(1);

/// What was read is read again after so long, even if the run has not committed anything.
const AGE_MAX: Duration = Duration::from_secs(60);

/// Marks of what is published follow what was counted within this time.
const SETTLED: Duration = Duration::from_secs(2);

/// How long a store that could not be read is left alone.
const PAUSE: Duration = Duration::from_secs(2);

/// How long a connection stays open that nobody needs.
const IDLE: Duration = Duration::from_secs(10);

/// Documents that are kept, and their bytes.
const DOCUMENTS_MAX: usize = 256;
const DOCUMENTS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is known of the store.
pub(super) struct Stored {
    asks: Option<Sender<(Want, Mark)>>,
    kept: Arc<Mutex<Kept>>,
    stop: Arc<AtomicBool>,
    plan: Option<Plan>,
}

/// What the thread is made with.
struct Plan {
    store: StoreUrl,
    pipeline: String,
    wake: UnixStream,
}

#[derive(Default)]
struct Kept {
    view: Option<Found<Arc<View>>>,
    documents: HashMap<String, Found<Option<Arc<Document>>>>,
    page: Option<(Want, Found<Arc<[u8]>>)>,
    waiting: HashSet<Want>,
    /// When the store could not be read last, and why.
    failed: Option<(Instant, String)>,
}

/// What is known of what is wanted.
#[derive(Debug)]
pub(super) enum Known<T> {
    /// It is good.
    Fresh(T),
    /// It is being read again.
    Old(T),
    /// It is being read.
    Awaited,
    /// It cannot be read now.
    Failed(Option<T>),
    /// There is nothing to read it from.
    None,
}

/// When somebody asks, and what the run has committed by then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) mark: Mark,
    /// For how long that is so.
    pub(super) marked_for: Duration,
    /// Whether the store may be read: not in the last moments of a run over a file, which is to be whole then.
    pub(super) may_read: bool,
}

impl Stored {
    /// A store that was not read yet. `wake` is written to when something was.
    pub(super) fn new(store: Option<&StoreUrl>, pipeline: &str, wake: UnixStream) -> Self {
        let plan = store.map(|store| Plan { store: store.clone(), pipeline: pipeline.to_owned(), wake });
        Self { asks: None, kept: Arc::default(), stop: Arc::default(), plan }
    }

    /// Whether there is a store that can be read.
    pub(super) fn is_readable(&self) -> bool {
        self.asks.is_some() || self.plan.is_some()
    }

    /// How the pipeline and its regions stand. Good for `fresh`.
    pub(super) fn view(&mut self, moment: &Moment, fresh: Duration) -> Known<Found<Arc<View>>> {
        let found = self.kept().view.clone();
        self.judged(Want::View, found, moment, fresh)
    }

    /// The newest document of a region; none if it has none.
    pub(super) fn document(&mut self, region: &str, moment: &Moment) -> Known<Found<Option<Arc<Document>>>> {
        let found = self.kept().documents.get(region).cloned();
        self.judged(Want::Document(region.to_owned()), found, moment, FRESH)
    }

    /// The newest documents of some regions.
    pub(super) fn page(&mut self, after: String, limit: usize, moment: &Moment) -> Known<Found<Arc<[u8]>>> {
        let want = Want::Page { after, limit };
        let found = self.kept().page.clone().filter(|(kept, _)| *kept == want).map(|(_, found)| found);
        self.judged(want, found, moment, FRESH)
    }

    /// Why the store could not be read at the last try.
    pub(super) fn failure(&self) -> Option<String> {
        self.kept().failed.as_ref().map(|(_, cause)| without_logins(cause).into_owned())
    }

    fn judged<T>(&mut self, want: Want, found: Option<Found<T>>, moment: &Moment, fresh: Duration) -> Known<Found<T>> {
        if !self.is_readable() {
            return Known::None;
        }
        let is_good = found.as_ref().is_some_and(|found| {
            let age = age(found, moment.now);
            let is_unchanged = found.mark == moment.mark && age < AGE_MAX && moment.marked_for >= age + SETTLED;
            age < fresh || is_unchanged
        });
        match found {
            Some(found) if is_good => Known::Fresh(found),
            found if !moment.may_read => Known::Failed(found),
            found => match (self.ask(want, moment), found) {
                (false, found) => Known::Failed(found),
                (true, Some(found)) => Known::Old(found),
                (true, None) => Known::Awaited,
            },
        }
    }

    /// Has it read; false if that cannot be now.
    fn ask(&mut self, want: Want, moment: &Moment) -> bool {
        if self.asks.is_none() && !self.start() {
            return false;
        }
        let mut kept = self.kept();
        if kept.failed.as_ref().is_some_and(|(at, _)| moment.now.saturating_duration_since(*at) < PAUSE) {
            return false;
        }
        if kept.waiting.contains(&want) {
            return true;
        }
        if kept.waiting.len() >= WAITING_MAX {
            return false;
        }
        kept.waiting.insert(want.clone());
        drop(kept);
        let sent = self.asks.as_ref().is_some_and(|asks| asks.try_send((want.clone(), moment.mark)).is_ok());
        if !sent {
            self.kept().waiting.remove(&want);
        }
        sent
    }

    /// Starts the thread; false if the system gives none.
    fn start(&mut self) -> bool {
        let Some(plan) = self.plan.take() else { return false };
        let (asks, inbox) = bounded(WAITING_MAX);
        let thread = Thread { plan, kept: Arc::clone(&self.kept), stop: Arc::clone(&self.stop) };
        let started = std::thread::Builder::new().name("forebay-serve-db".into()).spawn(move || thread.run(&inbox));
        self.asks = started.is_ok().then_some(asks);
        started.is_ok()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Thread {
    plan: Plan,
    kept: Arc<Mutex<Kept>>,
    stop: Arc<AtomicBool>,
}

impl Thread {
    /// Contract of the thread. In: what is wanted, over a bounded channel. Out: what was read, or why not, and a byte that
    /// wakes who waits. Reads the store over a connection of its own; writes nothing. Ends: when nobody asks any more; then it
    /// is not waited for.
    fn run(self, inbox: &Receiver<(Want, Mark)>) {
        let mut reader: Option<Box<dyn SnapshotReader>> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let (want, mark) = match inbox.recv_timeout(IDLE) {
                Ok(asked) => asked,
                Err(RecvTimeoutError::Timeout) => {
                    reader = None;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let before = self.kept().view.as_ref().map(|found| Arc::clone(&found.what));
            let read_at = Instant::now();
            let answer = match self.open(&mut reader) {
                Ok(reader) => wanted::read(reader, &self.plan.pipeline, &want, before.as_deref()),
                // The run makes it when it has opened its source.
                Err(StoreError::Missing { .. }) if want == Want::View => Ok(Answer::View(Arc::default())),
                Err(error) => Err(error),
            };
            let answer = answer.map_err(|error| error.to_string());
            if answer.is_err() || self.plan.store.is_file() {
                // An open reader keeps the file's log, and opening a file costs little.
                reader = None;
            }
            self.keep(want, answer, read_at, mark);
            // If it is full, who waits is awake already.
            let _ = (&self.plan.wake).write(&[0]);
        }
    }

    fn open<'r>(
        &self,
        reader: &'r mut Option<Box<dyn SnapshotReader>>,
    ) -> Result<&'r mut (dyn SnapshotReader + 'static), StoreError> {
        let open = match reader.take() {
            Some(open) => open,
            None => open_snapshots_until(&self.plan.store, &self.stop)?,
        };
        Ok(reader.insert(open).as_mut())
    }

    fn keep(&self, want: Want, answer: Result<Answer, String>, read_at: Instant, mark: Mark) {
        let mut kept = self.kept();
        kept.waiting.remove(&want);
        let answer = match answer {
            Ok(answer) => answer,
            Err(cause) => {
                kept.failed = Some((Instant::now(), cause));
                return;
            }
        };
        kept.failed = None;
        match (want, answer) {
            (_, Answer::View(what)) => kept.view = Some(Found { what, read_at, mark }),
            (Want::Document(region), Answer::Document(what)) => {
                kept.make_room(what.as_ref().map_or(0, |one| one.body.len()));
                kept.documents.insert(region, Found { what, read_at, mark });
            }
            (want, Answer::Page(what)) => kept.page = Some((want, Found { what, read_at, mark })),
            (_, Answer::Document(_)) => {}
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Lets documents go, the oldest first, until another one fits.
    fn make_room(&mut self, bytes: usize) {
        let len = |found: &Found<Option<Arc<Document>>>| found.what.as_ref().map_or(0, |one| one.body.len());
        let mut all: usize = self.documents.values().map(len).sum();
        while !self.documents.is_empty() && (self.documents.len() >= DOCUMENTS_MAX || all + bytes > DOCUMENTS_BYTES_MAX)
        {
            let oldest = self.documents.iter().min_by_key(|(_, found)| found.read_at).map(|(region, _)| region.clone());
            let gone = oldest.and_then(|region| self.documents.remove(&region));
            all -= gone.as_ref().map_or(0, len);
        }
    }
}
