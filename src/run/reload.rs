//! Settings that a run takes over while it goes on, at a batch's edge: what cannot change data.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::{BatchConfig, Config, SnapshotsConfig};
use crate::model::limits::publish_waiting_bytes;
use crate::publish::{self, Mailbox, PublishPlan};
use crate::source::reader::ReadStats;
use crate::store::{ChangedPolicy, SnapshotPolicy};

/// Hands new settings to a run, from another thread.
///
/// A run takes over `batch`, `settle`, and of `snapshots` `every`, `ttl`, `dedup`, `pool` and `timeout`: where one batch has
/// ended and the next has not begun. Everything else of a configuration is left as it was; [`Config::changes_to`] says
/// whether something else differs. A store or a target of one's own goes on as it was made.
#[derive(Debug, Clone, Default)]
pub struct ReloadHandle(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    given: Mutex<Option<Settings>>,
    /// Settings were given, and not all of them are taken over.
    is_due: AtomicBool,
}

/// What a run takes over.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) batch: BatchConfig,
    pub(super) snapshots: SnapshotsConfig,
    settle: Option<Duration>,
}

impl ReloadHandle {
    /// Gives the settings of a configuration. Those that were given before, and not taken over yet, go. Does not block.
    pub fn reload(&self, config: &Config) {
        let settings =
            Settings { batch: config.batch, snapshots: config.snapshots.clone(), settle: config.source.settle };
        *self.0.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
        self.0.is_due.store(true, Ordering::Release);
    }

    /// Whether what was given is taken over. Does not block.
    pub fn is_taken(&self) -> bool {
        !self.0.is_due.load(Ordering::Acquire)
    }
}

/// What of a run takes over settings beside the coordinator.
pub(super) struct Reloading {
    pub(super) handle: ReloadHandle,
    /// How snapshots are published, if they are and not to a target of one's own.
    pub(super) publish: Option<(PublishPlan, Arc<Mailbox>)>,
    pub(super) policy: ChangedPolicy,
    pub(super) read: Arc<ReadStats>,
}

impl Reloading {
    /// Settings that were given; the others have taken over what is theirs. Does not block.
    pub(super) fn take(&mut self) -> Option<Settings> {
        if self.handle.is_taken() {
            return None;
        }
        let given = self.handle.0.given.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        self.policy.set(SnapshotPolicy { dedup: given.snapshots.dedup, ttl: given.snapshots.ttl });
        self.read.set_settle(given.settle);
        if let Some((plan, mailbox)) = &mut self.publish {
            mailbox.set_bytes_max(publish_waiting_bytes(given.batch.memory_bytes));
            let new = given.snapshots.publish_plan(&plan.pipeline, plan.url.clone()).with_take_over(plan.takes_over);
            let of = |plan: &PublishPlan| (plan.ttl, plan.dedup, plan.pool, plan.timeout);
            if of(plan) != of(&new) {
                match publish::open(new.clone()) {
                    Ok(target) => {
                        mailbox.replace_target(target);
                        *plan = new;
                    }
                    Err(error) => tracing::warn!("snapshots are published as before: {error}"),
                }
            }
        }
        Some(given)
    }

    /// All of what was given is taken over, unless more was given since.
    pub(super) fn done(&self) {
        let given = self.handle.0.given.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.0.is_due.store(given.is_some(), Ordering::Release);
    }
}
