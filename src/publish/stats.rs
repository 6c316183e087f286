//! What the publish thread shares while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Live numbers of publishing.
#[derive(Debug, Default)]
pub(crate) struct PublishStats {
    published: AtomicU64,
    duplicate: AtomicU64,
    stale: AtomicU64,
    kept: AtomicU64,
    busy_nanos: AtomicU64,
}

impl PublishStats {
    /// Snapshots published.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Snapshots that were there already.
    pub(crate) fn duplicate(&self) -> u64 {
        self.duplicate.load(Ordering::Relaxed)
    }

    /// Snapshots that are older than what is there.
    pub(crate) fn stale(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }

    /// Snapshots that were published before, and whose time to live began anew.
    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Time spent publishing.
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed))
    }

    pub(super) fn add_published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_duplicate(&self) {
        self.duplicate.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_stale(&self) {
        self.stale.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_kept(&self) {
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_busy(&self, took: Duration) {
        self.busy_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
