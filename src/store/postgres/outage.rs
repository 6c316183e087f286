//! Waiting for a database that has gone away: bounded, ever longer between two tries, told to the user once.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::database::Database;
use super::fault::{Fault, Remedy};
use crate::model::limits::STORE_OUTAGE_MAX;
use crate::model::wait::pause;
use crate::store::StoreError;
use crate::store::outages::Waited;

/// How long it may be away when a run begins: then a mistake in the address is likelier.
const OUTAGE_AT_START_MAX: Duration = Duration::from_secs(10);

/// The wait before the first try, and the longest before any.
const DELAY_MIN: Duration = Duration::from_millis(20);
const DELAY_MAX: Duration = Duration::from_secs(5);

/// Why a try came to nothing.
pub(super) enum TryError {
    /// It may go over: it is tried again then.
    Fault(Fault),
    /// Another try would come to the same.
    Refused(StoreError),
}

impl From<Fault> for TryError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl TryError {
    /// The error of what is not tried again.
    pub(super) fn into_error(self, database: &Database, doing: &'static str) -> StoreError {
        match self {
            Self::Fault(fault) => database.error(doing, fault),
            Self::Refused(error) => error,
        }
    }
}

/// One outage, from its first fault on.
pub(super) struct Outage {
    database: Arc<Database>,
    doing: &'static str,
    limit: Duration,
    since: Option<Instant>,
    delay: Duration,
    heeds_stop: bool,
    is_at_start: bool,
    is_setting_told: bool,
    tries: u64,
    /// That it is away is noted while this lives.
    waited: Option<Waited>,
}

impl Outage {
    /// For what runs beside the commits: a run that is to stop does not wait for it.
    pub(super) fn new(database: &Arc<Database>, doing: &'static str) -> Self {
        let database = Arc::clone(database);
        Self {
            database,
            doing,
            limit: STORE_OUTAGE_MAX,
            since: None,
            delay: DELAY_MIN,
            heeds_stop: true,
            is_at_start: false,
            is_setting_told: false,
            tries: 0,
            waited: None,
        }
    }

    /// For the first connection of a run.
    pub(super) fn at_start(database: &Arc<Database>) -> Self {
        // It is counted from the first try on: one that hangs has used up the time already.
        let since = Some(Instant::now());
        Self { limit: OUTAGE_AT_START_MAX, is_at_start: true, since, ..Self::new(database, "connecting") }
    }

    /// For a commit: a run that is to stop drains, and bounds that by itself.
    pub(super) fn of_commit(database: &Arc<Database>) -> Self {
        Self { heeds_stop: false, ..Self::new(database, "committing a batch") }
    }

    /// How often it was tried again.
    pub(super) fn tries(&self) -> u64 {
        self.tries
    }

    /// Tries until it is done, is refused, or the database was away for too long.
    pub(super) fn until_done<T>(&mut self, mut attempt: impl FnMut() -> Result<T, TryError>) -> Result<T, StoreError> {
        loop {
            match attempt() {
                Ok(done) => {
                    self.is_over();
                    return Ok(done);
                }
                Err(TryError::Refused(error)) => return Err(error),
                Err(TryError::Fault(fault)) => self.wait(fault)?,
            }
        }
    }

    /// Waits before the next try, unless the fault is not one that goes over, or it has lasted too long.
    pub(super) fn wait(&mut self, fault: Fault) -> Result<(), StoreError> {
        if fault.remedy() != Remedy::Retry {
            return Err(self.database.error(self.doing, fault));
        }
        let is_first = self.tries == 0;
        let since = *self.since.get_or_insert_with(Instant::now);
        self.tries += 1;
        let name = &self.database.name;
        if self.is_stopped() {
            return Err(StoreError::Stopped { store: name.clone(), doing: self.doing, cause: fault.told() });
        }
        if self.is_at_start && matches!(fault, Fault::Stranger(_)) {
            return Err(self.database.unopened(fault.to_string(), fault));
        }
        if since.elapsed() + self.delay > self.limit {
            if self.is_at_start {
                let cause = format!("{fault}; tried for {} s", since.elapsed().as_secs());
                return Err(self.database.unopened(cause, fault));
            }
            return Err(StoreError::Outage {
                store: name.clone(),
                doing: self.doing,
                seconds: since.elapsed().as_secs(),
                cause: fault.told(),
            });
        }
        let is_new = is_first && !self.database.is_reported.swap(true, Ordering::AcqRel);
        let is_setting = fault.is_setting() && !std::mem::replace(&mut self.is_setting_told, true);
        if is_new || (is_setting && !is_first) {
            tracing::warn!("{name}: {fault}; trying again for up to {} s", self.limit.as_secs());
        } else {
            tracing::debug!("{name}: {fault}");
        }
        self.note(&fault);
        self.sleep();
        Ok(())
    }

    fn note(&mut self, fault: &Fault) {
        let cause = fault.to_string();
        match &self.waited {
            Some(waited) => waited.again(&cause),
            None => self.waited = Some(self.database.plan.outages.begin(&cause)),
        }
    }

    /// Tells that the database is back, if it had gone away for long enough to be told.
    pub(super) fn is_over(&mut self) {
        self.waited = None;
        if let Some(since) = self.since.take()
            && self.database.is_reported.swap(false, Ordering::AcqRel)
        {
            tracing::info!("{} is back after {:.1} s", self.database.name, since.elapsed().as_secs_f64());
        }
    }

    fn is_stopped(&self) -> bool {
        self.heeds_stop && self.database.plan.stop.load(Ordering::Relaxed)
    }

    /// Half of the delay for certain and half by chance, so that those who wait do not come back all at once.
    fn sleep(&mut self) {
        let chance = RandomState::new().build_hasher().finish() % 1000;
        let delay = self.delay / 2 + self.delay / 2 * u32::try_from(chance).unwrap_or(0) / 1000;
        self.delay = (self.delay * 2).min(DELAY_MAX);
        pause(delay, || self.is_stopped());
    }
}
