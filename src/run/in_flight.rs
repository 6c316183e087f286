//! Batches handed to the commit thread and not yet answered, in order.
//!
//! Every wait here is in steps, and each step checks whether the drain's time is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::error::PipelineError;
use super::hooks::Hooks;
use super::meter::Meter;
use super::seal_policy::CommitState;
use crate::batch::SealedBatch;
use crate::commit::handoff::{CommitFailure, CommitThread, Refused, Ticket};
use crate::commit::{BatchError, Done, Order, RolledBack, StoreCommitter};
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::{BatchClock, BatchNo, BlockNo};
use crate::model::limits::WAIT_STEP;

/// Whether the run is to stop, and how long what is in flight may take then.
#[derive(Debug)]
pub(super) struct Stopping {
    flag: Arc<AtomicBool>,
    drain_timeout: Duration,
    since: Option<Instant>,
}

impl Stopping {
    /// Watches that flag. What is in flight when it is set has `drain_timeout` to commit.
    pub(super) fn new(flag: Arc<AtomicBool>, drain_timeout: Duration) -> Self {
        Self { flag, drain_timeout, since: None }
    }

    fn is_stopped(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Ends a wait for commits when the run was stopped too long ago.
    fn check(&mut self) -> Result<(), PipelineError> {
        if self.is_stopped() && self.since.get_or_insert_with(Instant::now).elapsed() > self.drain_timeout {
            return Err(PipelineError::DrainTimeout(self.drain_timeout));
        }
        Ok(())
    }
}

/// A batch that is handed over and not known to be committed.
struct HandedOver {
    ticket: Ticket<Done, BatchError>,
    bytes: usize,
    before: Checkpoint,
    after: Checkpoint,
}

/// The hand-off to the commit thread, and the batches on their way.
pub(super) struct InFlight {
    commits: CommitThread<StoreCommitter>,
    queue: VecDeque<HandedOver>,
    /// The checkpoint behind all that was handed over.
    sealed: Checkpoint,
    committed: Checkpoint,
    stopping: Stopping,
    meter: Meter,
}

impl InFlight {
    /// Nothing is in flight; the store stands at `checkpoint`.
    pub(super) fn new(
        commits: CommitThread<StoreCommitter>,
        checkpoint: Checkpoint,
        stopping: Stopping,
        meter: Meter,
    ) -> Self {
        Self { commits, queue: VecDeque::new(), sealed: checkpoint, committed: checkpoint, stopping, meter }
    }

    /// Whether the run is to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopping.is_stopped()
    }

    /// Which batch is open, and which is committed.
    pub(super) fn clock(&self) -> BatchClock {
        BatchClock { open: BatchNo::new(self.sealed.batch).next(), committed: BatchNo::new(self.committed.batch) }
    }

    /// Bytes of the batches that are in flight.
    pub(super) fn bytes(&self) -> usize {
        self.queue.iter().map(|batch| batch.bytes).sum()
    }

    /// How the commit thread stands.
    pub(super) fn state(&self) -> CommitState {
        match (self.commits.has_room(), self.commits.is_idle()) {
            (false, _) => CommitState::Full,
            (true, true) => CommitState::Idle,
            (true, false) => CommitState::Busy,
        }
    }

    /// Hands a batch over; waits while another one waits there.
    pub(super) fn hand_over(&mut self, batch: SealedBatch, hooks: &mut Hooks<'_>) -> Result<(), PipelineError> {
        let (bytes, before, after) = (batch.memory_bytes(), batch.before, batch.after);
        self.sealed = after;
        let ticket = self.submit(Order::Batch(Arc::new(batch)), hooks)?;
        self.queue.push_back(HandedOver { ticket, bytes, before, after });
        self.meter.waiting(self.queue.len());
        Ok(())
    }

    fn submit(&mut self, mut order: Order, hooks: &mut Hooks<'_>) -> Result<Ticket<Done, BatchError>, PipelineError> {
        loop {
            match self.commits.submit(order, WAIT_STEP) {
                Ok(ticket) => return Ok(ticket),
                Err(Refused::Failed(_, failure)) => return Err(PipelineError::Commit(failure)),
                Err(Refused::Full(back)) => order = back,
            }
            self.poll()?;
            hooks.tell_progress(&self.meter);
            self.stopping.check()?;
        }
    }

    /// Takes the answers that have come. Does not block.
    pub(super) fn poll(&mut self) -> Result<(), PipelineError> {
        while let Some(answer) = self.queue.front().and_then(|batch| batch.ticket.try_wait()) {
            self.take_answer(answer)?;
        }
        Ok(())
    }

    /// Waits until everything handed over has ended: without a stop as long as commits take, after one for a bounded
    /// time.
    pub(super) fn drain(&mut self, hooks: &mut Hooks<'_>) -> Result<(), PipelineError> {
        while let Some(batch) = self.queue.front() {
            match batch.ticket.wait(WAIT_STEP) {
                Err(CommitFailure::TimedOut(_)) => hooks.tell_progress(&self.meter),
                answer => self.take_answer(answer)?,
            }
            self.stopping.check()?;
        }
        hooks.tell_progress(&self.meter);
        Ok(())
    }

    /// Waits for everything in flight, then rolls back to a block. None if the state is not past it.
    pub(super) fn roll_back(
        &mut self,
        to: BlockNo,
        hooks: &mut Hooks<'_>,
    ) -> Result<Option<RolledBack>, PipelineError> {
        self.drain(hooks)?;
        let ticket = self.submit(Order::Rollback { to }, hooks)?;
        let done = loop {
            match ticket.wait(WAIT_STEP) {
                Err(CommitFailure::TimedOut(_)) => self.stopping.check()?,
                answer => break answer.map_err(PipelineError::Commit)?,
            }
            hooks.tell_progress(&self.meter);
        };
        let Done::RolledBack(Some(done)) = done else { return Ok(None) };
        (self.sealed, self.committed) = (done.checkpoint, done.checkpoint);
        self.meter.rolled_back(done.checkpoint, done.retries);
        Ok(Some(done))
    }

    fn take_answer(&mut self, answer: Result<Done, CommitFailure<BatchError>>) -> Result<(), PipelineError> {
        let done = answer.map_err(PipelineError::Commit)?;
        let Some(HandedOver { before, after, .. }) = self.queue.pop_front() else { return Ok(()) };
        self.committed = after;
        self.meter.waiting(self.queue.len());
        if let Done::Committed(committed) = done {
            self.meter.committed(&before, after, &committed);
        }
        Ok(())
    }

    /// How long commits took, added up.
    pub(super) fn commit_busy(&self) -> Duration {
        self.commits.busy()
    }

    /// Ends the commit thread, so that the store is free when the run has ended. Returns the committer, which holds the
    /// pipeline's lock, unless a commit failed or takes too long; the failure is known then.
    pub(super) fn finish(self) -> Option<StoreCommitter> {
        self.commits.finish(self.stopping.drain_timeout).ok()
    }
}
