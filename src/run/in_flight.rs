//! Batches handed to the commit thread and not yet answered, in order.
//!
//! Every wait here is in steps, and each step checks whether the drain's time is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::error::PipelineError;
use super::hooks::Hooks;
use super::meter::{BatchFacts, Meter, RollbackCause};
use super::seal_policy::CommitState;
use crate::batch::SealedBatch;
use crate::commit::handoff::{CommitFailure, CommitThread, Refused, Ticket};
use crate::commit::{BatchError, Done, Order, RolledBack, StoreCommitter};
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::{BatchClock, BatchNo, BlockNo};
use crate::model::limits::WAIT_STEP;
use crate::model::timestamp::Timestamp;

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
    /// What becomes known of it when it has committed.
    told: BatchFacts,
}

/// The hand-off to the commit thread, and the batches on their way.
pub(super) struct InFlight {
    commits: CommitThread<StoreCommitter>,
    queue: VecDeque<HandedOver>,
    /// The checkpoint behind all that was handed over.
    sealed: Checkpoint,
    committed: Checkpoint,
    /// What the engines are told. It lags behind `committed`: see [`InFlight::clock`].
    clock: BatchClock,
    /// Each batch is committed before the next one is handled.
    is_serial: bool,
    stopping: Stopping,
    meter: Meter,
    /// The time of the last event that was handled.
    event_time: Option<Timestamp>,
    /// Whether a row that was said to be new was in the store already.
    was_redone: bool,
}

impl InFlight {
    /// Nothing is in flight; the store stands at `checkpoint`.
    pub(super) fn new(
        commits: CommitThread<StoreCommitter>,
        checkpoint: Checkpoint,
        is_serial: bool,
        stopping: Stopping,
        meter: Meter,
    ) -> Self {
        let mut in_flight = Self {
            commits,
            queue: VecDeque::new(),
            sealed: checkpoint,
            committed: checkpoint,
            clock: BatchClock::default(),
            is_serial,
            stopping,
            meter,
            event_time: None,
            was_redone: false,
        };
        in_flight.wind_clock();
        in_flight
    }

    /// Whether the run is to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopping.is_stopped()
    }

    /// Which batch is open, and up to which batch rows may be let go because they are committed. That moves on when a batch
    /// is handed over and when memory is wanted, not with each commit: a row that a snapshot is about to read should not
    /// have to come back from the store.
    pub(super) fn clock(&self) -> BatchClock {
        self.clock
    }

    fn wind_clock(&mut self) {
        let (open, committed) = (BatchNo::new(self.sealed.batch).next(), BatchNo::new(self.committed.batch));
        self.clock = BatchClock { open, committed };
    }

    /// The time of the last event that was handled, if it has one.
    pub(super) fn note_event_time(&mut self, time: Option<Timestamp>) {
        self.event_time = time;
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

    /// Hands a batch over; waits while another one waits there, and in a serial run until it has committed.
    pub(super) fn hand_over(&mut self, batch: SealedBatch, hooks: &mut Hooks<'_>) -> Result<(), PipelineError> {
        let (bytes, before, after) = (batch.memory_bytes(), batch.before, batch.after);
        let told = BatchFacts::of(&batch, self.event_time);
        self.sealed = after;
        let ticket = self.submit(Order::Batch(Arc::new(batch)), hooks)?;
        self.queue.push_back(HandedOver { ticket, bytes, before, after, told });
        self.meter.waiting(self.queue.len());
        if self.is_serial {
            self.drain(hooks)?;
        }
        self.wind_clock();
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

    /// Takes the answers that have come, so that rows of what has committed may be let go. Does not block.
    pub(super) fn poll_for_memory(&mut self) -> Result<(), PipelineError> {
        self.poll()?;
        self.wind_clock();
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
        self.wind_clock();
        hooks.tell_progress(&self.meter);
        Ok(())
    }

    /// Waits for everything in flight, then rolls back to a block. None if the state is not past it.
    pub(super) fn roll_back(
        &mut self,
        to: BlockNo,
        cause: RollbackCause,
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
        self.wind_clock();
        self.event_time = None;
        self.meter.rolled_back(done.checkpoint, cause, done.retries, self.commits.busy());
        Ok(Some(done))
    }

    fn take_answer(&mut self, answer: Result<Done, CommitFailure<BatchError>>) -> Result<(), PipelineError> {
        let done = answer.map_err(PipelineError::Commit)?;
        let Some(HandedOver { before, after, told, .. }) = self.queue.pop_front() else { return Ok(()) };
        self.committed = after;
        self.meter.waiting(self.queue.len());
        if let Done::Committed(committed, took) = done {
            self.was_redone |= committed.was_redone;
            self.meter.committed(&before, after, &committed, took, self.commits.busy());
            self.meter.facts(told);
        }
        Ok(())
    }

    /// Whether a row that was said to be new was in the store already, in any batch.
    pub(super) fn was_redone(&self) -> bool {
        self.was_redone
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::RegionTouch;
    use crate::lane::NoRows;
    use crate::model::ids::Depth;
    use crate::model::schema::Schema;
    use crate::store::{Committed, OpenReader, Store, StoreError};
    use crate::timeline::Recorder;

    /// Commits whatever it is given.
    struct Willing;

    impl Store for Willing {
        fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
            Ok(Checkpoint::default())
        }

        fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError> {
            Ok(Vec::new())
        }

        fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError> {
            Ok(Vec::new())
        }

        fn commit(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, StoreError> {
            Ok(Committed::of(batch))
        }

        fn readers(&self) -> Arc<dyn OpenReader> {
            Arc::new(NoRows)
        }
    }

    fn in_flight(is_serial: bool) -> InFlight {
        let schema = Arc::new(Schema::new([]).expect("a schema"));
        let committer = StoreCommitter::new(Box::new(Willing), Vec::new(), schema, Depth::default(), Recorder::new(0));
        let commits = CommitThread::spawn("commit", committer).expect("a thread");
        let stopping = Stopping::new(Arc::default(), Duration::from_secs(60));
        InFlight::new(commits, Checkpoint::default(), is_serial, stopping, Meter::default())
    }

    fn hand_over(in_flight: &mut InFlight, batch: u64) {
        let batch = SealedBatch::new(Checkpoint::new(batch - 1, None), Checkpoint::new(batch, None));
        in_flight.hand_over(batch, &mut Hooks::new(None, None)).expect("handed over");
    }

    fn clock(open: u64, committed: u64) -> BatchClock {
        BatchClock { open: BatchNo::new(open), committed: BatchNo::new(committed) }
    }

    #[test]
    fn a_commit_alone_lets_no_row_go() {
        let mut in_flight = in_flight(false);
        assert_eq!(in_flight.clock(), BatchClock::first());
        hand_over(&mut in_flight, 1);
        let started = Instant::now();
        while in_flight.committed.batch == 0 {
            assert!(started.elapsed() < Duration::from_secs(60), "the batch commits");
            in_flight.poll().expect("no failure");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        // What a snapshot at the end of a run reads must not have to come back from the store.
        assert_eq!(in_flight.clock(), clock(2, 0));
        in_flight.poll_for_memory().expect("no failure");
        assert_eq!(in_flight.clock(), clock(2, 1));
        hand_over(&mut in_flight, 2);
        assert_eq!(in_flight.clock().open, BatchNo::new(3));
        in_flight.drain(&mut Hooks::new(None, None)).expect("no failure");
        assert_eq!(in_flight.clock(), clock(3, 2));
    }

    #[test]
    fn a_serial_run_hands_over_and_waits() {
        let mut in_flight = in_flight(true);
        hand_over(&mut in_flight, 1);
        assert_eq!((in_flight.clock(), in_flight.bytes()), (clock(2, 1), 0));
    }
}
