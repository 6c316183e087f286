//! The pulse of a run: when its loop turned last, and when it last came further.
//!
//! The thread that runs the pipeline beats, and whoever watches the run reads; nobody waits for anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Cheap to clone: clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse(Arc<Beats>);

#[derive(Debug)]
struct Beats {
    began: Instant,
    /// Milliseconds from the beginning to the last turn of the loop.
    turned: AtomicU64,
    /// The same, to when an event was handled, a batch committed or rolled back.
    moved: AtomicU64,
    /// The loop is there, and is expected to turn.
    is_looping: AtomicBool,
    /// A handler has taken longer than it may.
    hangs: AtomicBool,
}

impl Default for Beats {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            turned: AtomicU64::default(),
            moved: AtomicU64::default(),
            is_looping: AtomicBool::default(),
            hangs: AtomicBool::default(),
        }
    }
}

/// The pulse at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PulseReading {
    /// For how long the loop of the run has not turned; none where there is no loop, before it begins and after it ends.
    pub still_for: Option<Duration>,
    /// For how long no event was handled and nothing committed.
    pub unmoved_for: Duration,
    /// Whether a handler has taken longer than it may: its run ends.
    pub hangs: bool,
    /// How long ago the pipeline was made.
    pub uptime: Duration,
}

impl Pulse {
    /// The loop begins, or has ended.
    pub(super) fn set_looping(&self, is_looping: bool) {
        self.moved();
        self.0.is_looping.store(is_looping, Ordering::Relaxed);
    }

    /// The loop has turned.
    pub(super) fn turn(&self) {
        self.0.turned.store(self.now(), Ordering::Relaxed);
    }

    /// The run has come further.
    pub(super) fn moved(&self) {
        let now = self.now();
        self.0.turned.store(now, Ordering::Relaxed);
        self.0.moved.store(now, Ordering::Relaxed);
    }

    /// A handler has taken longer than it may.
    pub(super) fn hang(&self) {
        self.0.hangs.store(true, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> PulseReading {
        let uptime = self.0.began.elapsed();
        let since = |beat: &AtomicU64| uptime.saturating_sub(Duration::from_millis(beat.load(Ordering::Relaxed)));
        PulseReading {
            still_for: self.0.is_looping.load(Ordering::Relaxed).then(|| since(&self.0.turned)),
            unmoved_for: since(&self.0.moved),
            hangs: self.0.hangs.load(Ordering::Relaxed),
            uptime,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
