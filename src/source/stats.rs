//! What the reader shares while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

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
    /// Set from outside to end the thread.
    pub(crate) stop: AtomicBool,
}

impl ReadStats {
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed))
    }

    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn blocked(&self) -> Duration {
        Duration::from_nanos(self.blocked_nanos.load(Ordering::Relaxed))
    }
}
