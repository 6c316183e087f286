//! What the publish thread shares while it runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::durations::Durations;

/// Live numbers of publishing.
#[derive(Debug, Default)]
pub(crate) struct PublishStats {
    published: AtomicU64,
    duplicate: AtomicU64,
    stale: AtomicU64,
    kept: AtomicU64,
    failed: AtomicU64,
    busy_nanos: AtomicU64,
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    /// Regions whose newest snapshot is not where readers look: its number, and since when it is due.
    due: BTreeMap<Arc<str>, (u64, Instant)>,
    /// Why nothing can be published, and since when.
    away: Option<(String, Instant)>,
    /// How long the publishes took: many regions at once are one.
    took: Durations,
}

/// How publishing stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Publishing {
    /// Snapshots published.
    pub published: u64,
    /// Snapshots that were there already.
    pub duplicate: u64,
    /// Snapshots that are older than what is there.
    pub stale: u64,
    /// Snapshots that were published before, and whose time to live began anew.
    pub kept: u64,
    /// Tries of a snapshot that failed.
    pub failed: u64,
    /// Regions whose newest snapshot is not where readers look, as far as this run knows.
    pub backlog: u64,
    /// For how long the one of them that is due for longest is so.
    pub oldest: Option<Duration>,
    /// Why nothing can be published at all, and for how long that is so.
    pub away: Option<(String, Duration)>,
    /// How long the publishes took.
    pub took: Durations,
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

    /// All of it.
    pub(crate) fn read(&self) -> Publishing {
        let shown = self.shown();
        Publishing {
            published: self.published(),
            duplicate: self.duplicate(),
            stale: self.stale(),
            kept: self.kept(),
            failed: self.failed.load(Ordering::Relaxed),
            backlog: shown.due.len() as u64,
            oldest: shown.due.values().map(|(_, since)| since.elapsed()).max(),
            away: shown.away.as_ref().map(|(cause, since)| (cause.clone(), since.elapsed())),
            took: shown.took.clone(),
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(super) fn add_failed(&self, regions: u64) {
        self.failed.fetch_add(regions, Ordering::Relaxed);
    }

    pub(super) fn add_busy(&self, took: Duration) {
        self.busy_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn add_publish(&self, took: Duration) {
        self.shown().took.add(took);
    }

    /// Snapshots of these regions, by their numbers, are to be published.
    pub(super) fn note_due<'r>(&self, snapshots: impl Iterator<Item = (&'r Arc<str>, u64)>) {
        let (now, mut shown) = (Instant::now(), self.shown());
        for (region, seq) in snapshots {
            let (due, _) = shown.due.entry(Arc::clone(region)).or_insert((seq, now));
            *due = seq.max(*due);
        }
    }

    /// That number of the region is decided: it is there, or something newer is.
    pub(super) fn note_decided(&self, region: &str, seq: u64) {
        let mut shown = self.shown();
        if shown.due.get(region).is_some_and(|(due, _)| *due <= seq) {
            shown.due.remove(region);
        }
    }

    /// Nothing can be published, for this cause; none when it can again.
    pub(super) fn note_away(&self, cause: Option<&str>) {
        let mut shown = self.shown();
        match (cause, &mut shown.away) {
            (None, away) => *away = None,
            (Some(cause), Some((known, _))) => cause.clone_into(known),
            (Some(cause), away) => *away = Some((cause.to_owned(), Instant::now())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_so_until_its_newest_is_decided() {
        let stats = PublishStats::default();
        let (a, b): (Arc<str>, Arc<str>) = (Arc::from("a"), Arc::from("b"));
        stats.note_due([(&a, 1), (&b, 1)].into_iter());
        stats.note_due([(&a, 2)].into_iter());
        stats.note_decided("a", 1);
        stats.note_decided("b", 1);
        stats.note_away(Some("refused"));
        let seen = stats.read();
        assert_eq!((seen.backlog, seen.oldest.is_some(), seen.away.is_some()), (1, true, true));
        stats.note_decided("a", 2);
        stats.note_away(None);
        let seen = stats.read();
        assert_eq!((seen.backlog, seen.oldest, seen.away), (0, None, None));
    }
}
