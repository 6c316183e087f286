//! The live numbers of a run, in one place.
//!
//! Threads of the run count here. Whoever shows the run (the progress bar, the report, a page) reads a copy at any time
//! and blocks nobody. Counting takes a lock for a few additions, once per round or commit and never once per event.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::report::{Progress, SnapshotCounts, Times};
use super::shared::SharedParts;
use crate::lane::LoadStats;
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::{BatchNo, BlockNo};
use crate::publish::PublishStats;
use crate::source::reader::ReadStats;
use crate::store::{CommitTimes, Committed};
use crate::timeline::{Activity, Recorder, Stage, Timeline};

/// Waits shorter than this are not recorded.
const WAIT_RECORDED_MIN: Duration = Duration::from_micros(20);

/// How a run stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Reading {
    /// Events handled.
    pub events: u64,
    /// The last block handled.
    pub block: Option<i64>,
    /// Bytes of the source read, as they lie on disk.
    pub source_bytes_read: u64,
    /// Bytes of the source in all, if that is known.
    pub source_bytes_total: Option<u64>,
    /// Batches sealed and not committed.
    pub batches_waiting: u64,
    /// The checkpoint that is committed.
    pub checkpoint: Checkpoint,
    /// Events committed in this run.
    pub events_committed: u64,
    /// Blocks committed in this run.
    pub blocks_committed: u64,
    /// Batches committed in this run.
    pub batches: u64,
    /// Rows written or deleted.
    pub rows: u64,
    /// Snapshots by what became of them; `failed` is known at the end of a run only.
    pub snapshots: SnapshotCounts,
    /// Rollbacks committed.
    pub rollbacks: u64,
    /// Events left out because their place had passed.
    pub late_skipped: u64,
    /// Events put aside, and committed so, in this run.
    pub quarantined: u64,
    /// How often a commit was tried again.
    pub commit_retries: u64,
    /// Batches that were written a second time.
    pub commits_redone: u64,
    /// How often rows were asked for that were not in memory.
    pub loads: u64,
    /// Where the time went so far; `wall` and what commits took as of the last commit, `waits.publish` at the end of a run
    /// only, in its report.
    pub times: Times,
    /// The shortest commit; none before the first.
    pub commit_min: Option<Duration>,
}

/// Reads the live numbers of a run, from any thread. Cheap to clone. The numbers are those of the pipeline that gave
/// it: zero before its run, and final after it.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    counts: Mutex<Counts>,
    parts: Mutex<Option<Arc<Parts>>>,
}

#[derive(Debug, Default)]
struct Counts {
    reading: Reading,
    /// When the first event was handled or the first batch sealed.
    began: Option<Instant>,
    last_commit: Option<Instant>,
}

impl Counts {
    /// A commit has ended. `busy` is how long commits took in all.
    fn note_commit(&mut self, busy: Duration) {
        self.last_commit = Some(Instant::now());
        self.settle_times(busy);
    }

    /// Brings the times of the whole run up to the last commit.
    fn settle_times(&mut self, busy: Duration) {
        let Some((began, ended)) = self.began.zip(self.last_commit) else { return };
        let times = &mut self.reading.times;
        times.wall = ended.saturating_duration_since(began);
        times.commit = busy;
        times.commit_idle = times.wall.saturating_sub(busy);
    }
}

/// Numbers that other rooms count by themselves during a run.
#[derive(Debug)]
struct Parts {
    read: Arc<ReadStats>,
    loads: Arc<LoadStats>,
    publish: Arc<PublishStats>,
    recorder: Arc<Recorder>,
}

/// What the handler thread does for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Running handlers.
    Handling,
    /// Evicting rows.
    Trimming,
    /// Sealing a batch.
    Sealing,
    /// Waiting for events.
    WaitingForSource,
    /// Waiting for room to hand a batch over.
    WaitingForCommit,
    /// Waiting until commits give memory back.
    WaitingForMemory,
}

impl Phase {
    /// How it is drawn; none if it is not.
    fn doing(self) -> Option<Activity> {
        match self {
            Self::Handling => Some(Activity::Working),
            Self::Trimming => None,
            Self::Sealing => Some(Activity::Sealing),
            Self::WaitingForSource => Some(Activity::WaitingForSource),
            Self::WaitingForCommit => Some(Activity::WaitingForCommit),
            Self::WaitingForMemory => Some(Activity::WaitingForMemory),
        }
    }

    fn is_wait(self) -> bool {
        matches!(self, Self::WaitingForSource | Self::WaitingForCommit | Self::WaitingForMemory)
    }

    fn add(self, took: Duration, times: &mut Times) {
        match self {
            Self::Handling | Self::Trimming => times.handlers += took,
            Self::Sealing => {
                times.handlers += took;
                times.sealing += took;
            }
            Self::WaitingForSource => times.waits.source += took,
            Self::WaitingForCommit => {
                times.handlers_blocked += took;
                times.waits.commit += took;
            }
            Self::WaitingForMemory => {
                times.handlers_blocked += took;
                times.waits.memory += took;
            }
        }
    }
}

/// A phase under way. It ends, and is counted, when this is dropped.
#[derive(Debug)]
pub(super) struct Timed {
    meter: Meter,
    phase: Phase,
    batch: BatchNo,
    began: Instant,
    /// What others had counted when a wait for the source began: a batch sealed meanwhile counts as sealing, not as
    /// waiting.
    worked_before: Duration,
}

impl Drop for Timed {
    fn drop(&mut self) {
        let ended = Instant::now();
        let mut took = ended - self.began;
        let is_recorded = !self.phase.is_wait() || took > WAIT_RECORDED_MIN;
        if let Some(doing) = self.phase.doing().filter(|_| is_recorded) {
            self.meter.record(doing, self.batch, self.began, ended);
        }
        let mut counts = self.meter.lock();
        let times = &mut counts.reading.times;
        if self.phase == Phase::WaitingForSource {
            took = took.saturating_sub((times.handlers + times.handlers_blocked).saturating_sub(self.worked_before));
        }
        self.phase.add(took, times);
    }
}

impl Meter {
    /// How the run stands now. Does not block.
    pub fn read(&self) -> Reading {
        let mut reading = self.lock().reading;
        if let Some(parts) = self.parts() {
            reading.late_skipped = parts.read.late();
            // Of pages that are handled it was counted already; what is skipped makes none.
            reading.source_bytes_read = reading.source_bytes_read.max(parts.read.bytes());
            reading.loads = parts.loads.loads();
            reading.times.read = parts.read.busy();
            reading.times.read_blocked = parts.read.blocked();
            reading.times.preload = parts.loads.waited();
            reading.times.publish = parts.publish.busy();
            reading.snapshots.published = parts.publish.published();
            reading.snapshots.duplicate += parts.publish.duplicate();
            reading.snapshots.stale = parts.publish.stale();
            reading.snapshots.kept = parts.publish.kept();
        }
        reading
    }

    /// What each stage did so far, and when. Does not block.
    pub fn timeline(&self) -> Timeline {
        self.parts().map(|parts| parts.recorder.timeline()).unwrap_or_default()
    }

    fn parts(&self) -> Option<Arc<Parts>> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what other threads count by themselves.
    pub(super) fn attach(&self, shared: &SharedParts) {
        let parts = Parts {
            read: Arc::clone(&shared.read),
            loads: Arc::clone(&shared.loads),
            publish: Arc::clone(&shared.publish),
            recorder: Arc::clone(&shared.recorder),
        };
        // A fresh run is two, one after the other.
        *self.0.parts.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(parts));
    }

    /// A run begins behind that checkpoint.
    pub(super) fn start(&self, checkpoint: Checkpoint, source_bytes_total: Option<u64>) {
        let reading = Reading { block: checkpoint.block, checkpoint, source_bytes_total, ..Reading::default() };
        *self.lock() = Counts { reading, ..Counts::default() };
    }

    /// Times a phase from now until the guard is dropped.
    pub(super) fn time(&self, phase: Phase, batch: BatchNo) -> Timed {
        let began = Instant::now();
        let mut counts = self.lock();
        if matches!(phase, Phase::Handling | Phase::Sealing) {
            counts.began.get_or_insert(began);
        }
        let Times { handlers, handlers_blocked, .. } = counts.reading.times;
        Timed { meter: self.clone(), phase, batch, began, worked_before: handlers + handlers_blocked }
    }

    /// As [`Meter::time`], once the first event was handled: time before that is not part of the run.
    pub(super) fn time_if_began(&self, phase: Phase, batch: BatchNo) -> Option<Timed> {
        let has_begun = self.lock().began.is_some();
        has_begun.then(|| self.time(phase, batch))
    }

    fn record(&self, doing: Activity, batch: BatchNo, began: Instant, ended: Instant) {
        if let Some(parts) = self.parts() {
            parts.recorder.span(Stage::Handlers, doing, batch.get(), began, ended);
        }
    }

    /// Events were handed to the handlers.
    pub(super) fn handled(&self, events: u64, last_block: BlockNo, source_bytes_read: u64) {
        let reading = &mut self.lock().reading;
        reading.events += events;
        reading.block = Some(last_block.get());
        reading.source_bytes_read = source_bytes_read;
    }

    /// So many batches are sealed and not committed.
    pub(super) fn waiting(&self, batches: usize) {
        self.lock().reading.batches_waiting = batches as u64;
    }

    /// A batch has committed. `busy` is how long commits took in all.
    pub(super) fn committed(&self, before: &Checkpoint, after: Checkpoint, committed: &Committed, busy: Duration) {
        let mut counts = self.lock();
        counts.note_commit(busy);
        let reading = &mut counts.reading;
        reading.checkpoint = after;
        reading.events_committed += after.events - before.events;
        reading.blocks_committed += after.blocks - before.blocks;
        reading.batches += 1;
        reading.rows += committed.rows;
        reading.commit_retries += committed.retries;
        reading.commits_redone += u64::from(committed.was_redone);
        let CommitTimes { stream, merge, commit } = committed.times;
        let parts = &mut reading.times.commit_parts;
        *parts =
            CommitTimes { stream: parts.stream + stream, merge: parts.merge + merge, commit: parts.commit + commit };
        let took = stream + merge + commit;
        reading.commit_min = Some(reading.commit_min.map_or(took, |min| min.min(took)));
        let stored = committed.snapshots.iter().filter(|snapshot| snapshot.id.is_some()).count() as u64;
        reading.snapshots.stored += stored;
        reading.snapshots.duplicate += committed.snapshots.len() as u64 - stored;
    }

    /// A batch that has committed put so many events aside.
    pub(super) fn quarantined(&self, events: u64) {
        if events > 0 {
            self.lock().reading.quarantined += events;
        }
    }

    /// A rollback has committed. `busy` is how long commits took in all.
    pub(super) fn rolled_back(&self, to: Checkpoint, retries: u64, busy: Duration) {
        let mut counts = self.lock();
        counts.note_commit(busy);
        let reading = &mut counts.reading;
        reading.checkpoint = to;
        reading.block = to.block;
        reading.rollbacks += 1;
        reading.commit_retries += retries;
    }

    /// The wait for the last commits began then; it ended with the last of them. `busy` is how long commits took in all.
    pub(super) fn finish(&self, batch: BatchNo, waiting_since: Instant, busy: Duration) {
        let mut counts = self.lock();
        counts.settle_times(busy);
        let Some(last_commit) = counts.last_commit else { return };
        counts.reading.times.waits.last_commits += last_commit.saturating_duration_since(waiting_since);
        drop(counts);
        self.record(Activity::WaitingForCommit, batch, waiting_since, last_commit);
    }

    /// What the progress hook is told.
    pub(super) fn progress(&self) -> Progress {
        let Reading { events, block, batches_waiting, source_bytes_read, source_bytes_total, .. } = self.lock().reading;
        Progress { events, block, batches_waiting, source_bytes_read, source_bytes_total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SnapshotReceipt;

    fn checkpoint(batch: u64, block: i64, events: u64) -> Checkpoint {
        Checkpoint { batch, block: Some(block), block_events: 1, blocks: events, events }
    }

    #[test]
    fn a_reading_is_what_was_counted_until_then() {
        let meter = Meter::default();
        let reader = meter.clone();
        assert_eq!(reader.read(), Reading::default());
        meter.start(checkpoint(3, 30, 30), Some(100));
        meter.handled(7, BlockNo::new(37), 70);
        meter.waiting(1);
        let reading = reader.read();
        assert_eq!((reading.events, reading.block, reading.source_bytes_read), (7, Some(37), 70));
        assert_eq!((reading.batches_waiting, reading.checkpoint.block, reading.events_committed), (1, Some(30), 0));
        let receipt = |id: Option<&str>| SnapshotReceipt { region: Arc::from("r"), id: id.map(str::to_owned) };
        let snapshots = vec![receipt(Some("r.1.a")), receipt(None)];
        let committed = Committed { batch: 4, rows: 5, retries: 2, snapshots, ..Committed::default() };
        meter.committed(&checkpoint(3, 30, 30), checkpoint(4, 37, 37), &committed, Duration::ZERO);
        assert_eq!(reader.read().times.commit, Duration::ZERO);
        drop(meter.time(Phase::Handling, BatchNo::new(5)));
        let (six, seven) = (Duration::from_millis(6), Duration::from_millis(7));
        let reading = reader.read();
        assert_eq!((reading.checkpoint.block, reading.events_committed, reading.batches), (Some(37), 7, 1));
        assert_eq!((reading.rows, reading.commit_retries), (5, 2));
        assert_eq!((reading.snapshots.stored, reading.snapshots.duplicate), (1, 1));
        meter.rolled_back(checkpoint(5, 32, 32), 0, six);
        assert_eq!(reader.read().times.commit, six, "known while the run goes on");
        meter.finish(BatchNo::new(6), Instant::now(), seven);
        assert_eq!(reader.read().times.commit, seven);
        let reading = reader.read();
        assert_eq!((reading.block, reading.checkpoint.batch, reading.rollbacks), (Some(32), 5, 1));
    }

    #[test]
    fn an_activity_counts_when_it_ends_and_a_wait_without_what_was_done_in_it() {
        let meter = Meter::default();
        let (batch, began) = (BatchNo::new(1), Instant::now());
        assert!(meter.time_if_began(Phase::WaitingForSource, batch).is_none());
        drop(meter.time(Phase::Handling, batch));
        let handled = meter.read().times.handlers;
        assert!(handled > Duration::ZERO);
        let waiting = meter.time_if_began(Phase::WaitingForSource, batch).expect("the run has started");
        drop(meter.time(Phase::Sealing, batch));
        let times = meter.read().times;
        assert_eq!((times.handlers - handled, times.waits.source), (times.sealing, Duration::ZERO));
        drop(waiting);
        let whole = meter.read().times;
        assert_eq!(whole.sealing, times.sealing);
        assert!(whole.handlers + whole.waits.source <= began.elapsed());
    }
}
