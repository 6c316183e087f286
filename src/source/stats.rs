//! What the reader shares while it runs.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the reader shares while it runs.
#[derive(Debug, Default)]
pub(crate) struct ReadStats {
    /// Time spent reading, without the waits for room.
    pub(crate) busy_nanos: AtomicU64,
    /// Time spent waiting for room.
    pub(crate) blocked_nanos: AtomicU64,
    /// Events left out because their place had passed.
    pub(crate) late: AtomicU64,
    /// Bytes read of the source, as they lie on disk.
    pub(crate) bytes: AtomicU64,
    /// Bytes of the source as they lie on disk, and whether that is known.
    total_bytes: AtomicU64,
    knows_total: AtomicBool,
    /// Set from outside to end the thread.
    pub(crate) stop: AtomicBool,
    /// For how long a source may have had nothing until its last block counts as whole; 0 for ever.
    settle_nanos: AtomicU64,
    /// Grows as long as the source answers, also that it has nothing.
    turns: AtomicU64,
    /// The block of the last event that was handed on, and whether there is one.
    block: AtomicI64,
    has_block: AtomicBool,
    /// Why the source gives nothing, where it says so, and since when.
    trouble: Mutex<Option<(String, Instant)>>,
}

impl ReadStats {
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed))
    }

    pub(crate) fn settle(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.settle_nanos.load(Ordering::Relaxed))).filter(|settle| !settle.is_zero())
    }

    pub(crate) fn set_settle(&self, settle: Option<Duration>) {
        let nanos = settle.map_or(0, |settle| u64::try_from(settle.as_nanos()).unwrap_or(u64::MAX));
        self.settle_nanos.store(nanos, Ordering::Relaxed);
    }

    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// So many bytes the source has now, if it is known: one that is followed grows.
    pub(super) fn note_total(&self, bytes: Option<u64>) {
        self.total_bytes.store(bytes.unwrap_or_default(), Ordering::Relaxed);
        self.knows_total.store(bytes.is_some(), Ordering::Relaxed);
    }

    /// Bytes of the source as they lie on disk, if it is known and has been read.
    pub(crate) fn total_bytes(&self) -> Option<u64> {
        self.knows_total.load(Ordering::Relaxed).then(|| self.total_bytes.load(Ordering::Relaxed))
    }

    /// The source has answered.
    pub(super) fn turn(&self, turns: u64) {
        self.turns.store(turns, Ordering::Relaxed);
    }

    /// Grows as long as the source answers.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// An event of this block was handed on.
    pub(super) fn note_block(&self, block: i64) {
        self.block.store(block, Ordering::Relaxed);
        self.has_block.store(true, Ordering::Relaxed);
    }

    /// The block of the last event that was handed on.
    pub(crate) fn block(&self) -> Option<i64> {
        self.has_block.load(Ordering::Relaxed).then(|| self.block.load(Ordering::Relaxed))
    }

    /// The source gives nothing, for this cause; none when it may have something again.
    pub(super) fn note_trouble(&self, cause: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        *trouble = cause.map(|cause| (cause, trouble.take().map_or_else(Instant::now, |(_, since)| since)));
    }

    /// Why the source gives nothing, where it says so, and for how long that is so.
    pub(crate) fn trouble(&self) -> Option<(String, Duration)> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().map(|(cause, since)| (cause.clone(), since.elapsed()))
    }

    pub(crate) fn blocked(&self) -> Duration {
        Duration::from_nanos(self.blocked_nanos.load(Ordering::Relaxed))
    }
}
