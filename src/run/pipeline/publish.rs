//! Publishing as part of a run: where to, how it starts, how it ends.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::{Pipeline, PipelineError};
use crate::commit::handoff::{Committer, Door, Refused};
use crate::commit::{CommitListener, Order, StoreCommitter};
use crate::config::SnapshotsConfig;
use crate::model::limits::{WAIT_STEP, publish_waiting_bytes};
use crate::publish::{
    self, DocumentFields, Mailbox, MinSeqs, PublishError, PublishStats, PublishThread, Target, UnpublishedRegion,
    WorkerPlan,
};
use crate::run::reload::Reloading;
use crate::run::shared::SharedParts;
use crate::store::Store;

/// How long publishing may go on after the last commit. Long enough for a slow target to take a backlog of many regions;
/// one that stalls ends it earlier.
const PUBLISH_END_MAX: Duration = Duration::from_secs(600);

/// How long a stop waits for a place to publish to that has not answered once: it may never do. What is not published
/// stays in the store for the next run.
const UNHEARD_END_MAX: Duration = Duration::from_millis(500);

/// A publish thread that has not started: the committer needs its mailbox first, and it needs the way to the committer.
pub(super) struct PublishStart {
    plan: WorkerPlan,
    mailbox: Arc<Mailbox>,
    inbox: Receiver<()>,
}

impl PublishStart {
    /// Who is to be told what has committed.
    pub(super) fn listener(&self) -> Arc<dyn CommitListener> {
        Arc::clone(&self.mailbox) as Arc<dyn CommitListener>
    }

    /// Where what has committed waits.
    pub(super) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    /// Starts the thread. Its orders go through this door.
    pub(super) fn start(self, door: Door<StoreCommitter>) -> std::io::Result<PublishThread> {
        let renumber = Box::new(move |above| renumber(&door, above));
        PublishThread::spawn(self.plan, (self.mailbox, self.inbox), renumber)
    }
}

/// Hands an order to number snapshots anew to the commit thread; gives it back if it was not taken.
fn renumber(door: &Door<StoreCommitter>, above: MinSeqs) -> Result<(), MinSeqs> {
    match door.submit(Order::Renumber { above }, WAIT_STEP) {
        Err(Refused::Full(Order::Renumber { above }) | Refused::Failed(Order::Renumber { above }, _)) => Err(above),
        // The mailbox is told of the result.
        _ => Ok(()),
    }
}

impl Pipeline {
    /// Where snapshots are to be published, if anywhere. Connects to nothing yet.
    pub(super) fn take_target(&mut self) -> Result<Option<Box<dyn Target>>, PipelineError> {
        let (own, url) = (self.target.take(), self.snapshots.url.clone());
        if !self.factory.has_snapshots() {
            if let Some(place) = own.map(|own| own.name().to_owned()).or(url.map(|url| url.to_string())) {
                tracing::warn!("nothing is published to {place}: the handlers make no snapshots (on_snapshot)");
            }
            return Ok(None);
        }
        match (own, url) {
            (None, Some(url)) => {
                let plan = self.snapshots.publish_plan(&self.name, url).with_take_over(self.takes_over);
                publish::open(plan).map(Some).map_err(PipelineError::Publish)
            }
            (own, _) => {
                // It has an address of its own, if any.
                self.snapshots.url = None;
                Ok(own)
            }
        }
    }

    /// What a publish thread is made with, if there is a target; `stop` is set when it is another store's.
    pub(super) fn prepare_publish(
        &mut self,
        target: Option<Box<dyn Target>>,
        store: &dyn Store,
        shared: &SharedParts,
        stop: Option<Arc<AtomicBool>>,
    ) -> Result<Option<PublishStart>, PipelineError> {
        let Some(target) = target else { return Ok(None) };
        let outbox = store.outbox().ok_or_else(|| {
            PipelineError::Incomplete("this store keeps no snapshots to publish: Store::outbox".into())
        })?;
        let SnapshotsConfig { id_field: id, time_field: time, .. } = self.snapshots.clone();
        let (mailbox, inbox) =
            Mailbox::new(publish_waiting_bytes(self.batch.memory_bytes), Arc::clone(&shared.publish));
        let (stats, recorder) = (Arc::clone(&shared.publish), Arc::clone(&shared.recorder));
        let plan = WorkerPlan {
            target,
            fields: DocumentFields { id, time },
            outbox,
            stats,
            recorder,
            stop,
            hook: self.publish_hook.take(),
        };
        Ok(Some(PublishStart { plan, mailbox, inbox }))
    }

    /// What of the run takes over settings beside the coordinator.
    pub(super) fn reloading(&self, publish: Option<&PublishStart>, shared: &SharedParts) -> Reloading {
        // A target of one's own has no address.
        let url = self.snapshots.url.clone();
        let plan = url.map(|url| self.snapshots.publish_plan(&self.name, url).with_take_over(self.takes_over));
        Reloading {
            handle: self.reload.clone(),
            publish: plan.zip(publish.map(PublishStart::mailbox)),
            policy: self.policy.clone(),
            read: Arc::clone(&shared.read),
        }
    }

    /// Lets what has committed be published. Bounded by the drain's time from the moment of a stop, and more closely if
    /// nothing was heard from the place so far.
    ///
    /// # Errors
    /// Nothing may be published there: it is another store's.
    pub(super) fn finish_publish(
        &self,
        publish: PublishThread,
        committer: Option<&mut StoreCommitter>,
        complete: Option<i64>,
        stats: &PublishStats,
    ) -> Result<Vec<UnpublishedRegion>, PublishError> {
        let started = Instant::now();
        let stopped = Cell::new(None);
        let deadline = || {
            if self.stop.0.load(Ordering::Relaxed) {
                let since = stopped.get().unwrap_or_else(Instant::now);
                stopped.set(Some(since));
                let is_unheard = stats.published() + stats.duplicate() == 0;
                let limit = if is_unheard { self.drain_timeout.min(UNHEARD_END_MAX) } else { self.drain_timeout };
                return (since + limit).min(started + PUBLISH_END_MAX);
            }
            started + PUBLISH_END_MAX
        };
        match publish.finish(complete, || Instant::now() > deadline()) {
            Ok(mut worker) => {
                if let Some(committer) = committer
                    && let Some(above) = worker.take_min_seqs()
                {
                    // An order like the others, although the commit thread has ended. A failure was reported already.
                    let _ = committer.commit(Order::Renumber { above });
                    worker.sweep_again(deadline());
                }
                worker.end()
            }
            Err(cause) => Ok(vec![UnpublishedRegion::all(cause)]),
        }
    }
}
