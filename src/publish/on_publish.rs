//! A command that is run for each region that was published.
//!
//! Whoever publishes only notes it: of each region the newest waits, and one command runs at a time, on a thread of its
//! own. A command that fails is told, and nothing depends on it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{PublishReceipt, PublishStatus};
use crate::model::limits::WAIT_STEP;
use crate::program::{Ended, Program, told};

/// Regions that wait at most; of more, nobody is told. They are read from where they were published to.
const WAITING_MAX: usize = 10_000;
/// How often a failure is told at most.
const WARN_STEP: Duration = Duration::from_secs(10);
/// How long the end waits for a command that is to end: a little longer than it is given.
const END_MAX: Duration = Duration::from_secs(6);

/// Runs a command for each region that was published, one at a time. The newest of a region wins over one that waits.
///
/// It is run by `sh -c`, with `FOREBAY_PIPELINE`, `FOREBAY_REGION`, `FOREBAY_SNAPSHOT_ID`, `FOREBAY_SEQ` and
/// `FOREBAY_BLOCK` (empty if it is not known) in its environment; what it writes is logged. It has a process group of its
/// own, which ends with it, after its time, and with this process, however that ends. Dropping it ends it at once.
///
/// ```no_run
/// # use std::time::Duration;
/// # use forebay::publish::OnPublish;
/// let on_publish = OnPublish::start("curl -fsS -X POST https://example.org/$FOREBAY_REGION", "shop", OnPublish::TIMEOUT)?;
/// let report = forebay::Pipeline::open("shop.toml")?.on_publish(on_publish.teller()).run();
/// on_publish.finish(Duration::from_secs(30));
/// # report?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OnPublish(Arc<Notices>);

#[derive(Debug)]
struct Notices {
    command: [String; 3],
    pipeline: String,
    timeout: Duration,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Nothing more is run, and what runs is ended.
    is_over: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    newest: HashMap<Arc<str>, Notice>,
    /// The regions, in the order in which they came.
    order: VecDeque<Arc<str>>,
    /// Regions that there was no room for.
    lost: u64,
    is_closed: bool,
    has_ended: bool,
}

#[derive(Debug)]
struct Notice {
    id: String,
    seq: u64,
    block: Option<i64>,
}

impl OnPublish {
    /// How long one command may take unless another time is given.
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// Starts the thread that runs `command` for what a pipeline of that name publishes, each time for `timeout` at most.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(command: &str, pipeline: &str, timeout: Duration) -> std::io::Result<Self> {
        let notices = Arc::new(Notices {
            command: ["sh", "-c", command].map(str::to_owned),
            pipeline: pipeline.to_owned(),
            timeout,
            waiting: Mutex::default(),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&notices);
        std::thread::Builder::new().name("forebay-on-publish".into()).spawn(move || theirs.run())?;
        Ok(Self(notices))
    }

    /// Notes what was published; anything else is no news. Does not block.
    pub fn tell(&self, receipt: &PublishReceipt) {
        self.0.tell(receipt);
    }

    /// What notes it, for [`crate::Pipeline::on_publish`].
    pub fn teller(&self) -> impl FnMut(&PublishReceipt) + Send + 'static {
        let notices = Arc::clone(&self.0);
        move |receipt| notices.tell(receipt)
    }

    /// Lets the command be run for what waits, and ends it after `within`. Returns the regions for which it was not run,
    /// which were warned of. Blocks for a few seconds more at most.
    pub fn finish(self, within: Duration) -> u64 {
        self.0.waiting().is_closed = true;
        self.0.changed.notify_all();
        let deadline = Instant::now() + within;
        self.0.wait_for_end(deadline);
        let mut waiting = self.0.waiting();
        let left = waiting.order.len() as u64 + std::mem::take(&mut waiting.lost);
        drop(waiting);
        if left > 0 {
            tracing::warn!("--on-publish: the command was not run for {left} regions that were published");
        }
        left
    }
}

impl Drop for OnPublish {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        self.0.changed.notify_all();
        self.0.wait_for_end(Instant::now() + END_MAX);
    }
}

impl Notices {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, receipt: &PublishReceipt) {
        if receipt.outcome != Ok(PublishStatus::Published) {
            return;
        }
        let notice = Notice { id: receipt.id.clone(), seq: receipt.seq, block: receipt.block };
        let mut waiting = self.waiting();
        if let Some(older) = waiting.newest.get_mut(&receipt.region) {
            *older = notice;
        } else if waiting.order.len() < WAITING_MAX {
            waiting.order.push_back(Arc::clone(&receipt.region));
            waiting.newest.insert(Arc::clone(&receipt.region), notice);
        } else {
            waiting.lost += 1;
        }
        drop(waiting);
        self.changed.notify_all();
    }

    /// The next region; none at the end.
    fn next(&self) -> Option<(Arc<str>, Notice)> {
        let mut waiting = self.waiting();
        while !self.is_over.load(Ordering::Relaxed) {
            if let Some(region) = waiting.order.pop_front() {
                let notice = waiting.newest.remove(&region);
                return notice.map(|notice| (region, notice));
            }
            if waiting.is_closed {
                return None;
            }
            waiting = self.changed.wait_timeout(waiting, WAIT_STEP).unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }

    fn wait_for_end(&self, deadline: Instant) {
        let mut waiting = self.waiting();
        while !waiting.has_ended {
            let Some(rest) = deadline.checked_duration_since(Instant::now()) else { return };
            waiting = self.changed.wait_timeout(waiting, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Contract of the thread. In: the newest of each region that was published. Out: one command after another, and a
    /// warning now and then. Ends: when nothing more comes and all is done, or when it is over.
    fn run(&self) {
        let mut warned_at: Option<Instant> = None;
        let mut untold = 0_u64;
        while let Some((region, notice)) = self.next() {
            let Err(cause) = self.call(&region, &notice) else { continue };
            if warned_at.is_some_and(|at| at.elapsed() < WARN_STEP) {
                untold += 1;
                continue;
            }
            let more = if untold == 0 { String::new() } else { format!(" ({untold} more failed before)") };
            tracing::warn!("--on-publish: for {region} the command {cause}{more}");
            (warned_at, untold) = (Some(Instant::now()), 0);
        }
        if untold > 0 {
            tracing::warn!("--on-publish: the command failed {untold} more times");
        }
        self.waiting().has_ended = true;
        self.changed.notify_all();
    }

    /// Runs the command for a region; says why that came to nothing.
    fn call(&self, region: &str, Notice { id, seq, block }: &Notice) -> Result<(), String> {
        let (seq, block) = (seq.to_string(), block.map_or_else(String::new, |block| block.to_string()));
        // No variable holds a NUL.
        let [region, id] = [region, id].map(|text| text.replace('\0', "\u{fffd}"));
        let variables = [
            ("FOREBAY_PIPELINE", self.pipeline.as_str()),
            ("FOREBAY_REGION", &region),
            ("FOREBAY_SNAPSHOT_ID", &id),
            ("FOREBAY_SEQ", &seq),
            ("FOREBAY_BLOCK", &block),
        ];
        let cannot = |cause: std::io::Error| format!("cannot be run: {cause}");
        let program = Program::logged(&self.command, &variables, "on-publish").map_err(cannot)?;
        match program.wait_within(self.timeout, || self.is_over.load(Ordering::Relaxed)).map_err(cannot)? {
            Ended::With(status) if status.success() => Ok(()),
            Ended::With(status) => Err(told(status)),
            Ended::TimedOut => Err(format!("did not end within {} s, and was ended", self.timeout.as_secs_f64())),
            Ended::Stopped => Err("was ended, as the run ends".to_owned()),
        }
    }
}
