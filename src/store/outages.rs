//! Whether a store is away: noted by those who wait for it, read by those who show it.
//!
//! Commits and readers notice an outage apart; it begins with the first that waits and ends with the last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The outages of a store during a run. Cheap to clone: clones are the same.
#[derive(Debug, Clone, Default)]
pub struct StoreOutages(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    /// How many wait now.
    waiting: usize,
    since: Option<Instant>,
    cause: String,
    past: Duration,
    tries: u64,
}

/// How a store stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreOutage {
    /// For how long it has been away; none if it is there.
    pub away_for: Option<Duration>,
    /// Why it is away; empty if it is there.
    pub cause: String,
    /// How long it was away in all, this outage included.
    pub total: Duration,
    /// How often something was tried again.
    pub tries: u64,
}

impl StoreOutages {
    /// How the store stands now. Does not block.
    pub fn read(&self) -> StoreOutage {
        let noted = self.noted();
        let away_for = noted.since.map(|since| since.elapsed());
        StoreOutage {
            away_for,
            cause: noted.cause.clone(),
            total: noted.past + away_for.unwrap_or_default(),
            tries: noted.tries,
        }
    }

    /// One more waits for the store, until the guard is dropped.
    #[cfg_attr(not(any(feature = "sqlite", feature = "postgres")), allow(dead_code, reason = "there is no store"))]
    pub(super) fn begin(&self, cause: &str) -> Waited {
        let mut noted = self.noted();
        noted.waiting += 1;
        noted.since.get_or_insert_with(Instant::now);
        drop(noted);
        let waited = Waited(self.clone());
        waited.again(cause);
        waited
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits for the store.
#[derive(Debug)]
pub(super) struct Waited(StoreOutages);

impl Waited {
    /// It is tried once more.
    #[cfg_attr(not(any(feature = "sqlite", feature = "postgres")), allow(dead_code, reason = "there is no store"))]
    pub(super) fn again(&self, cause: &str) {
        let mut noted = self.0.noted();
        noted.tries += 1;
        if noted.cause != cause {
            cause.clone_into(&mut noted.cause);
        }
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        let mut noted = self.0.noted();
        noted.waiting = noted.waiting.saturating_sub(1);
        if noted.waiting == 0 {
            let lasted = noted.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            noted.past += lasted;
            noted.cause.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_from_the_first_who_waits_to_the_last() {
        let outages = StoreOutages::default();
        assert_eq!(outages.read(), StoreOutage::default());
        let commit = outages.begin("refused");
        let reader = outages.begin("refused");
        reader.again("reset");
        drop(commit);
        let seen = outages.read();
        assert_eq!((seen.away_for.is_some(), seen.cause.as_str(), seen.tries), (true, "reset", 3));
        drop(reader);
        let seen = outages.read();
        assert_eq!((seen.away_for, seen.cause.as_str(), seen.tries), (None, "", 3));
        assert!(seen.total > Duration::ZERO);
    }
}
