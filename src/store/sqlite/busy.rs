//! Waiting for a file that another program holds: as long as for a database that has gone away, told once, ended by a
//! stop.
//!
//! SQLite waits by itself for a moment, and in some cases not at all. So what meets a held file is done again as a whole:
//! nothing of it is in the file.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{StoreError, StoreName, is_busy};
use crate::model::cause::Reason;
use crate::model::wait::pause;
use crate::store::outages::{StoreOutages, Waited};

/// How long SQLite itself waits in one try: a stop is heard between two of them.
pub(super) const TRY_TIMEOUT: Duration = Duration::from_millis(400);

/// The wait before the second try, and the longest before any.
const DELAY_MIN: Duration = Duration::from_millis(5);
const DELAY_MAX: Duration = Duration::from_millis(400);

/// How long a file is held before it is told: two runs that begin at once hold it for moments.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// A file that other programs may hold, and how long that is waited for.
pub(super) struct Patience {
    name: StoreName,
    limit: Duration,
    /// Set when the run is to stop.
    stop: Arc<AtomicBool>,
    /// Whether the user was told. Commits and readers notice it apart, and it is told once.
    is_reported: AtomicBool,
    outages: StoreOutages,
}

impl Patience {
    pub(super) fn new(name: StoreName, limit: Duration, stop: Arc<AtomicBool>, outages: StoreOutages) -> Arc<Self> {
        Arc::new(Self { name, limit, stop, is_reported: AtomicBool::new(false), outages })
    }

    /// For what a run that is to stop does not wait for.
    pub(super) fn wait_for(self: &Arc<Self>, doing: &'static str) -> Waiting {
        Waiting {
            patience: Arc::clone(self),
            doing,
            heeds_stop: true,
            since: Instant::now(),
            delay: DELAY_MIN,
            tries: 0,
            waited: None,
        }
    }

    /// For a commit: a run that is to stop drains, and bounds that by itself.
    pub(super) fn wait_to_commit(self: &Arc<Self>) -> Waiting {
        Waiting { heeds_stop: false, ..self.wait_for("committing a batch") }
    }

    /// Does `work`, again while the file is held.
    pub(super) fn ask<T>(
        self: &Arc<Self>,
        doing: &'static str,
        mut work: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut waiting = self.wait_for(doing);
        loop {
            match work() {
                Ok(done) => {
                    waiting.is_over();
                    return Ok(done);
                }
                Err(error) => waiting.wait(error)?,
            }
        }
    }
}

/// One thing to do, from its first try on.
pub(super) struct Waiting {
    patience: Arc<Patience>,
    doing: &'static str,
    heeds_stop: bool,
    since: Instant,
    delay: Duration,
    tries: u64,
    /// That the file is held is noted while this lives.
    waited: Option<Waited>,
}

impl Waiting {
    /// How often it was tried again.
    pub(super) fn tries(&self) -> u64 {
        self.tries
    }

    /// Waits before the next try, unless it failed for another reason, or the file was held for too long.
    pub(super) fn wait(&mut self, error: StoreError) -> Result<(), StoreError> {
        if !is_held(&error) {
            return Err(error);
        }
        let Patience { name, limit, is_reported, outages, .. } = &*self.patience;
        let waited = self.since.elapsed();
        let cause = || Reason::new("another program holds the file, end it and run again", error_text(&error));
        if self.is_stopped() {
            return Err(StoreError::Stopped { store: name.text(), doing: self.doing, cause: cause() });
        }
        if waited + self.delay > *limit {
            let (store, seconds) = (name.text(), waited.as_secs());
            return Err(StoreError::Outage { store, doing: self.doing, seconds, cause: cause() });
        }
        self.tries += 1;
        if waited >= TELL_AFTER && !is_reported.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "{}: another program holds the file ({}); trying again for up to {} s",
                name.text(),
                self.doing,
                limit.as_secs()
            );
        }
        match &self.waited {
            Some(waited) => waited.again(&error_text(&error)),
            None if waited >= TELL_AFTER => self.waited = Some(outages.begin(&error_text(&error))),
            None => {}
        }
        pause(self.delay, || self.is_stopped());
        self.delay = (self.delay * 2).min(DELAY_MAX);
        Ok(())
    }

    /// Tells that the file is free again, if it was told that it is held.
    pub(super) fn is_over(&mut self) {
        self.waited = None;
        if self.tries > 0 && self.patience.is_reported.swap(false, Ordering::AcqRel) {
            tracing::info!(
                "{} is free again after {:.1} s",
                self.patience.name.text(),
                self.since.elapsed().as_secs_f64()
            );
        }
    }

    fn is_stopped(&self) -> bool {
        self.heeds_stop && self.patience.stop.load(Ordering::Relaxed)
    }
}

/// Whether an error says that another program holds the file.
fn is_held(error: &StoreError) -> bool {
    let (StoreError::Sql { cause, .. } | StoreError::Open { cause, .. }) = error else { return false };
    cause.source().and_then(|source| source.downcast_ref::<rusqlite::Error>()).is_some_and(is_busy)
}

fn error_text(error: &StoreError) -> String {
    error.source().and_then(|reason| reason.source()).map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::Connection;

    use super::*;

    fn patience(file: &Path, limit: Duration) -> (Arc<Patience>, Arc<AtomicBool>) {
        let stop = Arc::<AtomicBool>::default();
        (Patience::new(StoreName(file.to_owned()), limit, Arc::clone(&stop), StoreOutages::default()), stop)
    }

    /// A connection that does not wait by itself, and the error that it meets.
    fn write(file: &Path) -> Result<(), StoreError> {
        let connection = Connection::open(file).expect("a connection");
        connection.busy_timeout(Duration::ZERO).expect("a setting");
        let done = connection.execute_batch("BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS t (x); COMMIT");
        done.map_err(StoreName(file.to_owned()).sql("writing"))
    }

    fn held() -> (tempfile::TempDir, std::path::PathBuf, Connection) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("held.db");
        let holder = Connection::open(&file).expect("a connection");
        holder.execute_batch("BEGIN EXCLUSIVE").expect("the lock");
        (folder, file, holder)
    }

    #[test]
    fn a_held_file_is_waited_for_until_it_is_free() {
        let (_folder, file, holder) = held();
        let (patience, _) = patience(&file, Duration::from_secs(60));
        let mut tries = 0;
        patience
            .ask("writing", || {
                tries += 1;
                if tries == 4 {
                    holder.execute_batch("COMMIT").expect("the end");
                }
                write(&file)
            })
            .expect("it is free");
        assert_eq!(tries, 4);
    }

    #[test]
    fn a_held_file_is_given_up_after_the_limit_and_at_a_stop() {
        let (_folder, file, _holder) = held();
        let (short, _) = patience(&file, Duration::from_millis(40));
        let error = short.ask("writing", || write(&file)).expect_err("it is held");
        assert!(matches!(error, StoreError::Outage { .. }), "{error}");
        assert!(error.to_string().contains("(writing): another program holds the file"), "{error}");
        let (long, stop) = patience(&file, Duration::from_secs(600));
        stop.store(true, Ordering::Relaxed);
        let error = long.ask("writing", || write(&file)).expect_err("it is stopped");
        assert!(matches!(error, StoreError::Stopped { .. }), "{error}");
        // A commit goes on: the drain is bounded elsewhere.
        let mut waiting = long.wait_to_commit();
        waiting.wait(write(&file).expect_err("it is held")).expect("another try");
        assert_eq!(waiting.tries(), 1);
    }

    #[test]
    fn what_is_no_lock_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("text.db");
        std::fs::write(&file, "this is no database, and long enough to be seen as none".repeat(20)).expect("a file");
        let (patience, _) = patience(&file, Duration::from_secs(600));
        let error = patience.ask("writing", || write(&file)).expect_err("no database");
        assert!(matches!(error, StoreError::Sql { .. }), "{error}");
    }
}
