//! The depth-one hand-off to a thread that commits in order.
//!
//! One thread owns the commits. Others hand sealed items over and go on; each gets a [`Ticket`] and may wait on it for
//! its item's result. At most one item waits while another is being committed, so a producer that outruns the committer
//! holds at most three: committing, waiting, and the one it is filling.
//!
//! The first failure latches: the item that failed and every later one get it, and nothing commits after it. No result
//! is ever dropped: the failure of a ticket that nobody waits on stays in the latch, which [`CommitThread::failure`]
//! and [`CommitThread::finish`] return.
//!
//! Usable on its own, by a program with a store of its own: see `examples/handoff.rs`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use crate::model::text::panic_message;

/// Commits items, one at a time and in order, on a thread of its own.
pub trait Committer: Send + 'static {
    /// What is committed at once.
    type Item: Send + 'static;
    /// What a commit returns.
    type Receipt: Send + 'static;
    /// Why one failed.
    type Error: Send + Sync + 'static;

    /// Commits one item: all of it or nothing. May block.
    ///
    /// # Errors
    /// The item is not committed, and nothing after it will be.
    fn commit(&mut self, item: Self::Item) -> Result<Self::Receipt, Self::Error>;
}

/// Why an item was not committed, or its result is not known.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommitFailure<E> {
    /// A commit failed: this item's or an earlier one's. Shared by all who wait.
    Failed(Arc<E>),
    /// The committing thread panicked.
    Panicked(Arc<str>),
    /// The wait timed out; the commit may still come.
    TimedOut(Duration),
    /// The item was committed, and its receipt was taken by an earlier wait on the same ticket.
    Taken,
}

impl<E> Clone for CommitFailure<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Panicked(message) => Self::Panicked(Arc::clone(message)),
            Self::TimedOut(waited) => Self::TimedOut(*waited),
            Self::Taken => Self::Taken,
        }
    }
}

impl<E: fmt::Display> fmt::Display for CommitFailure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Panicked(message) => write!(f, "the commit thread panicked: {message}"),
            Self::Taken => f.write_str("the receipt was taken already"),
            Self::TimedOut(waited) => write!(f, "no answer from the commit thread within {} ms", waited.as_millis()),
        }
    }
}

impl<E: std::error::Error> std::error::Error for CommitFailure<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // It is told as the error itself is.
            Self::Failed(error) => error.source(),
            _ => None,
        }
    }
}

/// A commit's answer, to wait on.
#[derive(Debug)]
pub struct Ticket<R, E> {
    answer: Receiver<Result<R, CommitFailure<E>>>,
    shared: Arc<Shared<E>>,
    is_taken: AtomicBool,
}

impl<R, E> Ticket<R, E> {
    /// Waits for the commit of the item that this ticket was given for. Blocks for `timeout` at most.
    ///
    /// # Errors
    /// The item was not committed, or the time was over.
    pub fn wait(&self, timeout: Duration) -> Result<R, CommitFailure<E>> {
        match self.answer.recv_timeout(timeout) {
            Ok(answer) => self.take(answer),
            Err(RecvTimeoutError::Timeout) => Err(CommitFailure::TimedOut(timeout)),
            Err(RecvTimeoutError::Disconnected) => self.no_answer(),
        }
    }

    /// The answer, if it is there. Does not block, and does not yield the processor: a wait of no time would, and on a
    /// busy machine that is a time slice.
    pub fn try_wait(&self) -> Option<Result<R, CommitFailure<E>>> {
        match self.answer.try_recv() {
            Ok(answer) => Some(self.take(answer)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(self.no_answer()),
        }
    }

    fn take(&self, answer: Result<R, CommitFailure<E>>) -> Result<R, CommitFailure<E>> {
        self.is_taken.store(answer.is_ok(), Ordering::Release);
        answer
    }

    /// There will be no answer.
    fn no_answer(&self) -> Result<R, CommitFailure<E>> {
        Err(if self.is_taken.load(Ordering::Acquire) { CommitFailure::Taken } else { self.shared.failure_or_gone() })
    }
}

/// An item that could not be handed over, given back.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refused<I, E> {
    /// One item waits already.
    Full(I),
    /// An earlier commit failed; nothing is committed any more.
    Failed(I, CommitFailure<E>),
}

/// What comes of handing an item over.
pub type Submitted<C> = Result<
    Ticket<<C as Committer>::Receipt, <C as Committer>::Error>,
    Refused<<C as Committer>::Item, <C as Committer>::Error>,
>;

type Answer<C> = Sender<Result<<C as Committer>::Receipt, CommitFailure<<C as Committer>::Error>>>;

struct Job<C: Committer> {
    item: C::Item,
    answer: Answer<C>,
}

#[derive(Debug)]
struct Shared<E> {
    failure: Mutex<Option<CommitFailure<E>>>,
    submitted: AtomicU64,
    ended: AtomicU64,
    busy_nanos: AtomicU64,
}

impl<E> Shared<E> {
    fn failure(&self) -> Option<CommitFailure<E>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn latch(&self, failure: CommitFailure<E>) -> CommitFailure<E> {
        let mut latched = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        latched.get_or_insert(failure).clone()
    }

    fn failure_or_gone(&self) -> CommitFailure<E> {
        self.failure().unwrap_or_else(|| CommitFailure::Panicked("it ended without an answer".into()))
    }
}

/// The commit thread and the hand-off to it. Dropping it lets everything handed over commit, and does not wait.
pub struct CommitThread<C: Committer> {
    jobs: Option<Arc<Sender<Job<C>>>>,
    shared: Arc<Shared<C::Error>>,
    thread: Option<JoinHandle<C>>,
    done: Receiver<()>,
}

impl<C: Committer> CommitThread<C> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(name: &str, committer: C) -> std::io::Result<Self> {
        let (jobs, inbox) = bounded(1);
        let (ended, done) = bounded(1);
        let shared = Arc::new(Shared {
            failure: Mutex::new(None),
            submitted: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            busy_nanos: AtomicU64::new(0),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let committer = commit_loop(committer, &inbox, &for_thread);
            drop(ended);
            committer
        })?;
        Ok(Self { jobs: Some(Arc::new(jobs)), shared, thread: Some(thread), done })
    }

    /// Hands an item over if there is room. Does not block.
    ///
    /// # Errors
    /// There is no room, or an earlier commit failed; the item comes back.
    pub fn try_submit(&self, item: C::Item) -> Submitted<C> {
        submit_with(self.jobs.as_deref(), &self.shared, item, |jobs, job| {
            jobs.try_send(job).map_err(|error| match error {
                TrySendError::Full(job) => (job, true),
                TrySendError::Disconnected(job) => (job, false),
            })
        })
    }

    /// Hands an item over, and waits for room for `timeout` at most.
    ///
    /// # Errors
    /// There was no room in that time, or an earlier commit failed; the item comes back.
    pub fn submit(&self, item: C::Item, timeout: Duration) -> Submitted<C> {
        submit_within(self.jobs.as_deref(), &self.shared, item, timeout)
    }

    /// A way in for others. It does not keep the thread alive: once this thread is finished or dropped, a door hands
    /// everything back.
    pub fn door(&self) -> Door<C> {
        Door { jobs: self.jobs.as_ref().map_or_else(Weak::new, Arc::downgrade), shared: Arc::clone(&self.shared) }
    }

    /// True while no item waits to be committed: the next one would be taken at once or after the current one.
    pub fn has_room(&self) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.is_empty())
    }

    /// True while nothing is being committed and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire) >= self.shared.submitted.load(Ordering::Acquire)
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<CommitFailure<C::Error>> {
        self.shared.failure()
    }

    /// How long the thread has been committing, added up.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.shared.busy_nanos.load(Ordering::Acquire))
    }

    /// Lets all that was handed over be committed, ends the thread and gives the committer back. Blocks for
    /// `timeout` at most.
    ///
    /// # Errors
    /// A commit failed, or the time was over; then the thread is left to end by itself.
    pub fn finish(mut self, timeout: Duration) -> Result<C, CommitFailure<C::Error>> {
        self.jobs = None;
        if let Err(RecvTimeoutError::Timeout) = self.done.recv_timeout(timeout) {
            return Err(CommitFailure::TimedOut(timeout));
        }
        let joined = self.thread.take().map(JoinHandle::join);
        match (self.shared.failure(), joined) {
            (Some(failure), _) => Err(failure),
            (None, Some(Ok(committer))) => Ok(committer),
            (None, _) => Err(self.shared.failure_or_gone()),
        }
    }
}

/// A second way to a commit thread, for who does not own it. See [`CommitThread::door`].
pub struct Door<C: Committer> {
    jobs: Weak<Sender<Job<C>>>,
    shared: Arc<Shared<C::Error>>,
}

impl<C: Committer> Door<C> {
    /// Hands an item over, and waits for room for `timeout` at most. [`CommitThread::finish`] may have to wait as long.
    ///
    /// # Errors
    /// There was no room in that time, an earlier commit failed, or the thread was finished; the item comes back.
    pub fn submit(&self, item: C::Item, timeout: Duration) -> Submitted<C> {
        submit_within(self.jobs.upgrade().as_deref(), &self.shared, item, timeout)
    }
}

fn submit_within<C: Committer>(
    jobs: Option<&Sender<Job<C>>>,
    shared: &Arc<Shared<C::Error>>,
    item: C::Item,
    timeout: Duration,
) -> Submitted<C> {
    submit_with(jobs, shared, item, |jobs, job| {
        jobs.send_timeout(job, timeout).map_err(|error| match error {
            SendTimeoutError::Timeout(job) => (job, true),
            SendTimeoutError::Disconnected(job) => (job, false),
        })
    })
}

fn submit_with<C: Committer>(
    jobs: Option<&Sender<Job<C>>>,
    shared: &Arc<Shared<C::Error>>,
    item: C::Item,
    send: impl FnOnce(&Sender<Job<C>>, Job<C>) -> Result<(), (Job<C>, bool)>,
) -> Submitted<C> {
    if let Some(failure) = shared.failure() {
        return Err(Refused::Failed(item, failure));
    }
    let Some(jobs) = jobs else { return Err(Refused::Failed(item, shared.failure_or_gone())) };
    let (answer, ticket) = bounded(1);
    shared.submitted.fetch_add(1, Ordering::AcqRel);
    match send(jobs, Job { item, answer }) {
        Ok(()) => Ok(Ticket { answer: ticket, shared: Arc::clone(shared), is_taken: AtomicBool::new(false) }),
        Err((job, is_full)) => {
            shared.submitted.fetch_sub(1, Ordering::AcqRel);
            Err(match is_full {
                true => Refused::Full(job.item),
                false => Refused::Failed(job.item, shared.failure_or_gone()),
            })
        }
    }
}

/// Contract of the commit thread. In: sealed items, over a channel of depth one, in order. Writes: each item whole,
/// through the committer, never two at once. Out: one answer for each item. Ends: when the sender is gone and the
/// channel is empty. After a failure or a panic it commits nothing more and answers everyone with the cause.
fn commit_loop<C: Committer>(mut committer: C, inbox: &Receiver<Job<C>>, shared: &Shared<C::Error>) -> C {
    for Job { item, answer } in inbox {
        let result = match shared.failure() {
            Some(failure) => Err(failure),
            None => commit_one(&mut committer, item, shared),
        };
        shared.ended.fetch_add(1, Ordering::AcqRel);
        // Nobody may be waiting: a failure is in the latch all the same.
        let _ = answer.send(result);
    }
    committer
}

fn commit_one<C: Committer>(
    committer: &mut C,
    item: C::Item,
    shared: &Shared<C::Error>,
) -> Result<C::Receipt, CommitFailure<C::Error>> {
    let started = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| committer.commit(item)));
    let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    shared.busy_nanos.fetch_add(nanos, Ordering::AcqRel);
    match result {
        Ok(Ok(receipt)) => Ok(receipt),
        Ok(Err(error)) => Err(shared.latch(CommitFailure::Failed(Arc::new(error)))),
        Err(panic) => Err(shared.latch(CommitFailure::Panicked(panic_message(panic.as_ref()).into()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(60);

    /// Commits numbers, each when it is let.
    struct Numbers {
        go: Receiver<()>,
        written: Vec<u32>,
    }

    impl Committer for Numbers {
        type Item = u32;
        type Receipt = usize;
        type Error = String;

        fn commit(&mut self, item: u32) -> Result<usize, String> {
            self.go.recv_timeout(WAIT).map_err(|error| error.to_string())?;
            self.written.push(item);
            Ok(self.written.len())
        }
    }

    fn start() -> (CommitThread<Numbers>, Sender<()>) {
        let (go, held) = bounded(10);
        (CommitThread::spawn("numbers", Numbers { go: held, written: Vec::new() }).expect("a thread"), go)
    }

    #[test]
    fn what_comes_through_a_door_is_committed_in_its_turn() {
        let (commits, go) = start();
        let door = commits.door();
        commits.submit(1, WAIT).expect("room");
        let ticket = door.submit(2, WAIT).expect("room");
        assert!(matches!(door.submit(3, Duration::ZERO), Err(Refused::Full(3))));
        assert!(!commits.has_room() && !commits.is_idle());
        for _ in 0..2 {
            go.send(()).expect("the thread");
        }
        assert_eq!(ticket.wait(WAIT).expect("committed"), 2);
        assert_eq!(commits.finish(WAIT).expect("it ends").written, [1, 2]);
    }

    #[test]
    fn a_door_does_not_keep_the_thread_alive_and_hands_everything_back_afterwards() {
        let (commits, go) = start();
        let door = commits.door();
        go.send(()).expect("the thread");
        commits.submit(1, WAIT).expect("room");
        assert_eq!(commits.finish(WAIT).expect("it ends").written, [1]);
        assert!(matches!(door.submit(2, WAIT), Err(Refused::Failed(2, CommitFailure::Panicked(_)))));
    }
}
