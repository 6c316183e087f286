//! The live numbers of a run, in one place.
//!
//! Threads of the run count here. Whoever shows the run (the progress bar, the report, a page) reads a copy at any time
//! and blocks nobody. Counting takes a lock for a few additions, once per round or commit and never once per event.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pulse::{Pulse, PulseReading};
use super::report::{Progress, SnapshotCounts, Times};
use super::shared::SharedParts;
use crate::batch::SealedBatch;
use crate::lane::LoadStats;
use crate::model::checkpoint::Checkpoint;
use crate::model::durations::Durations;
use crate::model::ids::{BatchNo, BlockNo};
use crate::model::quarantine::QuarantineStage;
use crate::model::timestamp::Timestamp;
use crate::publish::{PublishStats, Publishing};
use crate::rows::changes::{ChangeCounts, RegionChanges};
use crate::source::reader::ReadStats;
use crate::store::{CommitTimes, Committed, StoreOutages};
use crate::timeline::bottleneck::{Facts, Limit, Limits};
use crate::timeline::{Activity, Recorder, Stage, Timeline};

/// Waits shorter than this are not recorded.
const WAIT_RECORDED_MIN: Duration = Duration::from_micros(20);

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum RunPhase {
    /// It opens what it needs.
    #[default]
    Starting,
    /// It handles what its source has.
    Backfill,
    /// It has reached the end of its source, and goes on with it.
    Live,
    /// It takes no more events, and finishes what it has begun.
    Draining,
    /// It is over.
    Ended,
}

impl RunPhase {
    /// All, in their order.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Backfill, Self::Live, Self::Draining, Self::Ended];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Backfill => "backfill",
            Self::Live => "live",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }
}

/// Bytes of memory that count against `batch.memory`, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Memory {
    /// Events that are read ahead, or kept until their batch has committed.
    pub ahead: u64,
    /// Rows and whatever else the handlers hold.
    pub cached: u64,
    /// Batches that are sealed and not committed.
    pub staged: u64,
}

/// Why a rollback was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RollbackCause {
    /// The source abandoned blocks.
    Fork,
    /// Late events are put in their place.
    Late,
    /// Somebody asked for it.
    Command,
}

/// Rollbacks by why they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RollbackCauses {
    /// The source abandoned blocks.
    pub fork: u64,
    /// Late events were put in their place.
    pub late: u64,
    /// Somebody asked for it.
    pub command: u64,
}

/// Rows of an entity that were committed, by what was done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RowChanges {
    /// Written, and not known to have been there.
    pub new: u64,
    /// Written.
    pub changed: u64,
    /// Deleted.
    pub deleted: u64,
}

/// How a run stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Reading {
    /// How far it has come.
    pub phase: RunPhase,
    /// The block of the last event that was read, or the last committed block if none was.
    pub source_block: Option<i64>,
    /// The time of the last committed event, where the source has a field of it.
    pub source_time: Option<Timestamp>,
    /// When a batch was committed last, by this run or one before it; none if that is not known.
    pub committed_at: Option<Timestamp>,
    /// The events of the region that had most.
    pub largest_region_events: u64,
    /// Bytes of memory, after the last round.
    pub memory: Memory,
    /// Bytes that these may be (`batch.memory`).
    pub memory_limit_bytes: u64,
    /// Snapshots that were not stored because the region's newest has the same content; in `snapshots` they are among the
    /// duplicates, with those that were not published.
    pub snapshots_unchanged: u64,
    /// Rollbacks by why they were made.
    pub rollback_causes: RollbackCauses,
    /// Events put aside because they could not be read; those whose handler failed are the rest of `quarantined`.
    pub quarantined_unread: u64,
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
    /// Where the time went so far, what goes on now included; `wall` and what commits took as of the last commit,
    /// `waits.publish` at the end of a run only, in its report.
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
    pulse: Pulse,
    outages: StoreOutages,
}

#[derive(Debug, Default)]
struct Counts {
    reading: Reading,
    /// When the first event was handled or the first batch sealed.
    began: Option<Instant>,
    last_commit: Option<Instant>,
    /// What the handler thread does, the outer thing first.
    doing: Vec<(Phase, Instant, Duration)>,
    commits: Durations,
    /// By the number of the entity.
    rows: Vec<RowChanges>,
}

impl Counts {
    /// The times with what is under way.
    fn times_now(&self) -> Times {
        let (mut times, now) = (self.reading.times, Instant::now());
        for (phase, began, worked_before) in self.doing.iter().rev() {
            phase.count(now.saturating_duration_since(*began), *worked_before, &mut times);
        }
        times
    }

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
            Self::Trimming => Some(Activity::Evicting),
            Self::Sealing => Some(Activity::Sealing),
            Self::WaitingForSource => Some(Activity::WaitingForSource),
            Self::WaitingForCommit => Some(Activity::WaitingForCommit),
            Self::WaitingForMemory => Some(Activity::WaitingForMemory),
        }
    }

    fn is_wait(self) -> bool {
        matches!(self, Self::WaitingForSource | Self::WaitingForCommit | Self::WaitingForMemory)
    }

    /// Counts what took so long. What others had counted when a wait for the source began is not part of it: a batch
    /// sealed meanwhile counts as sealing, not as waiting.
    fn count(self, mut took: Duration, worked_before: Duration, times: &mut Times) {
        if self == Self::WaitingForSource {
            took = took.saturating_sub(times.worked().saturating_sub(worked_before));
        }
        match self {
            Self::Handling => times.handlers += took,
            Self::Trimming => times.evicting += took,
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
    /// What others had counted when it began.
    worked_before: Duration,
}

impl Drop for Timed {
    fn drop(&mut self) {
        let ended = Instant::now();
        let took = ended - self.began;
        let is_recorded = !self.phase.is_wait() || took > WAIT_RECORDED_MIN;
        if let Some(doing) = self.phase.doing().filter(|_| is_recorded) {
            self.meter.record(doing, self.batch, self.began, ended);
        }
        let mut counts = self.meter.lock();
        counts.doing.pop();
        self.phase.count(took, self.worked_before, &mut counts.reading.times);
    }
}

impl Meter {
    /// How the run stands now. Does not block.
    pub fn read(&self) -> Reading {
        let mut reading = {
            let counts = self.lock();
            Reading { times: counts.times_now(), ..counts.reading }
        };
        reading.source_block = reading.checkpoint.block;
        if let Some(parts) = self.parts() {
            reading.source_block = parts.read.block().max(reading.checkpoint.block);
            reading.late_skipped = parts.read.late();
            // Of pages that are handled it was counted already; what is skipped makes none.
            reading.source_bytes_read = reading.source_bytes_read.max(parts.read.bytes());
            reading.source_bytes_total = parts.read.total_bytes().or(reading.source_bytes_total);
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

    /// What each stage did in the last minute, and how long ago the run began to record it. Does not block.
    pub fn last_minute(&self) -> (Timeline, Duration) {
        self.parts().map(|parts| parts.recorder.last_minute()).unwrap_or_default()
    }

    /// How long the commits took. Does not block.
    pub fn commits(&self) -> Durations {
        self.lock().commits.clone()
    }

    /// Rows that were committed, by the number of their entity; fewer than there are entities before the first commit. Does
    /// not block.
    pub fn rows_by_entity(&self) -> Vec<RowChanges> {
        self.lock().rows.clone()
    }

    /// How publishing stands. Does not block.
    pub fn publishing(&self) -> Publishing {
        self.parts().map(|parts| parts.publish.read()).unwrap_or_default()
    }

    /// Whether the loop of the run turns, and comes further. Does not block.
    pub fn pulse_reading(&self) -> PulseReading {
        self.0.pulse.read()
    }

    /// Where it is noted when the store is away.
    pub fn outages(&self) -> StoreOutages {
        self.0.outages.clone()
    }

    /// Grows as long as the source answers, also that it has nothing. Does not block.
    pub fn source_turns(&self) -> u64 {
        self.parts().map_or(0, |parts| parts.read.turns())
    }

    /// Why the source gives nothing, where it says so, and for how long that is so. Does not block.
    pub fn source_trouble(&self) -> Option<(String, Duration)> {
        self.parts().and_then(|parts| parts.read.trouble())
    }

    /// For how long the handlers have waited for events without a pause; none if they do not. Does not block.
    pub fn waits_for_source(&self) -> Option<Duration> {
        match self.lock().doing[..] {
            [(Phase::WaitingForSource, since, _)] => Some(since.elapsed()),
            _ => None,
        }
    }

    /// For how long handlers, or what takes their changes out, have been at work without a pause; none if they are not. Does
    /// not block.
    pub fn works_for(&self) -> Option<Duration> {
        self.lock().doing.last().filter(|(phase, ..)| !phase.is_wait()).map(|(_, since, _)| since.elapsed())
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

    pub(super) fn pulse(&self) -> Pulse {
        self.0.pulse.clone()
    }

    /// The run has come to that phase; never back to an earlier one.
    pub(super) fn enter(&self, phase: RunPhase) {
        let reading = &mut self.lock().reading;
        reading.phase = reading.phase.max(phase);
    }

    /// The loop of the run begins.
    pub(super) fn begin_loop(&self) {
        self.enter(RunPhase::Backfill);
        self.0.pulse.set_looping(true);
    }

    pub(super) fn end_loop(&self) {
        self.0.pulse.set_looping(false);
    }

    /// The loop of the run turns.
    pub(super) fn turn(&self) {
        self.0.pulse.turn();
    }

    /// A handler has taken longer than it may.
    pub(super) fn note_hang(&self) {
        self.0.pulse.hang();
    }

    /// So much memory may be taken from now on.
    pub(super) fn set_memory_limit(&self, memory_limit_bytes: u64) {
        self.lock().reading.memory_limit_bytes = memory_limit_bytes;
    }

    pub(super) fn note_memory(&self, memory: Memory) {
        self.lock().reading.memory = memory;
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
    pub(super) fn start(
        &self,
        checkpoint: Checkpoint,
        committed_at: Option<Timestamp>,
        source_bytes_total: Option<u64>,
        memory_limit_bytes: u64,
    ) {
        let mut counts = self.lock();
        let (block, phase) = (checkpoint.block, counts.reading.phase);
        let reading = Reading {
            block,
            checkpoint,
            committed_at,
            source_bytes_total,
            memory_limit_bytes,
            phase,
            ..Reading::default()
        };
        *counts = Counts { reading, ..Counts::default() };
    }

    /// Times a phase from now until the guard is dropped.
    pub(super) fn time(&self, phase: Phase, batch: BatchNo) -> Timed {
        let began = Instant::now();
        let mut counts = self.lock();
        if matches!(phase, Phase::Handling | Phase::Sealing) {
            counts.began.get_or_insert(began);
        }
        let worked_before = counts.reading.times.worked();
        counts.doing.push((phase, began, worked_before));
        Timed { meter: self.clone(), phase, batch, began, worked_before }
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

    /// A region has had so many events.
    pub(super) fn note_largest_region(&self, events: u64) {
        let largest = &mut self.lock().reading.largest_region_events;
        *largest = events.max(*largest);
    }

    /// Events were handed to the handlers.
    pub(super) fn handled(&self, events: u64, last_block: BlockNo, source_bytes_read: u64) {
        self.0.pulse.moved();
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
    /// `took` is how long this one took.
    pub(super) fn committed(
        &self,
        before: &Checkpoint,
        after: Checkpoint,
        committed: &Committed,
        took: Duration,
        busy: Duration,
    ) {
        self.0.pulse.moved();
        let mut counts = self.lock();
        counts.note_commit(busy);
        counts.commits.add(took);
        let reading = &mut counts.reading;
        reading.committed_at = Some(Timestamp::now());
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
        reading.snapshots_unchanged += committed.snapshots.len() as u64 - stored;
        reading.snapshots.duplicate += committed.snapshots.len() as u64 - stored;
    }

    /// What else is known of a batch that has committed.
    pub(super) fn facts(&self, facts: BatchFacts) {
        let mut counts = self.lock();
        let len = facts.rows.len().max(counts.rows.len());
        counts.rows.resize(len, RowChanges::default());
        for (all, rows) in counts.rows.iter_mut().zip(facts.rows) {
            all.new += rows.new;
            all.changed += rows.changed;
            all.deleted += rows.deleted;
        }
        let reading = &mut counts.reading;
        reading.quarantined += facts.quarantined;
        reading.quarantined_unread += facts.quarantined_unread;
        reading.source_time = facts.source_time.or(reading.source_time);
    }

    /// A rollback has committed. `busy` is how long commits took in all.
    pub(super) fn rolled_back(&self, to: Checkpoint, cause: RollbackCause, retries: u64, busy: Duration) {
        self.0.pulse.moved();
        let mut counts = self.lock();
        counts.note_commit(busy);
        let reading = &mut counts.reading;
        reading.checkpoint = to;
        reading.block = to.block;
        reading.rollbacks += 1;
        (reading.committed_at, reading.source_time) = (Some(Timestamp::now()), None);
        match cause {
            RollbackCause::Fork => reading.rollback_causes.fork += 1,
            RollbackCause::Late => reading.rollback_causes.late += 1,
            RollbackCause::Command => reading.rollback_causes.command += 1,
        }
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

impl Reading {
    /// What limits the run so far, in the sentence that it ends with; none as long as there was nothing to do.
    pub fn limit(&self) -> Option<String> {
        let Times { wall, read, handlers, evicting, preload, commit, waits, .. } = self.times;
        let facts = Facts {
            wall,
            read,
            handlers,
            evicting,
            preload,
            commit,
            commit_min: self.commit_min.unwrap_or_default(),
            for_source: waits.source,
            for_commit: waits.commit + waits.last_commits,
            for_memory: waits.memory,
            for_publish: waits.publish,
            batches: self.batches,
            events: self.events_committed,
            largest_region_events: self.largest_region_events,
        };
        let limits = Limits::of(&facts);
        (limits.by != Limit::Nothing && !wall.is_zero()).then(|| limits.sentence(&facts))
    }
}

/// What becomes known of a batch when it has committed.
#[derive(Debug, Default)]
pub(super) struct BatchFacts {
    rows: Vec<RowChanges>,
    quarantined: u64,
    quarantined_unread: u64,
    source_time: Option<Timestamp>,
}

impl BatchFacts {
    /// Of a batch whose last event has that time.
    pub(super) fn of(batch: &SealedBatch, source_time: Option<Timestamp>) -> Self {
        let changes = |regions: &Vec<RegionChanges>| {
            let ChangeCounts { deleted, written, new } = ChangeCounts::of(regions);
            RowChanges { new: new as u64, changed: written as u64, deleted: deleted as u64 }
        };
        let is_unread = |stage: QuarantineStage| stage == QuarantineStage::Source;
        Self {
            rows: batch.changes.iter().map(changes).collect(),
            quarantined: batch.quarantined.len() as u64,
            quarantined_unread: batch.quarantined.iter().filter(|event| is_unread(event.stage)).count() as u64,
            source_time,
        }
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
        meter.start(checkpoint(3, 30, 30), None, Some(100), 1 << 20);
        meter.handled(7, BlockNo::new(37), 70);
        meter.waiting(1);
        let reading = reader.read();
        assert_eq!((reading.events, reading.block, reading.source_bytes_read), (7, Some(37), 70));
        assert_eq!((reading.batches_waiting, reading.checkpoint.block, reading.events_committed), (1, Some(30), 0));
        let receipt = |id: Option<&str>| SnapshotReceipt { region: Arc::from("r"), id: id.map(str::to_owned) };
        let snapshots = vec![receipt(Some("r.1.a")), receipt(None)];
        let committed = Committed { batch: 4, rows: 5, retries: 2, snapshots, ..Committed::default() };
        meter.committed(
            &checkpoint(3, 30, 30),
            checkpoint(4, 37, 37),
            &committed,
            Duration::from_millis(4),
            Duration::ZERO,
        );
        assert_eq!(reader.read().times.commit, Duration::ZERO);
        drop(meter.time(Phase::Handling, BatchNo::new(5)));
        let (six, seven) = (Duration::from_millis(6), Duration::from_millis(7));
        let reading = reader.read();
        assert_eq!((reading.checkpoint.block, reading.events_committed, reading.batches), (Some(37), 7, 1));
        assert_eq!((reading.rows, reading.commit_retries), (5, 2));
        assert_eq!((reading.snapshots.stored, reading.snapshots.duplicate), (1, 1));
        meter.rolled_back(checkpoint(5, 32, 32), RollbackCause::Fork, 0, six);
        assert_eq!(reader.read().times.commit, six, "known while the run goes on");
        meter.finish(BatchNo::new(6), Instant::now(), seven);
        assert_eq!(reader.read().times.commit, seven);
        let reading = reader.read();
        assert_eq!((reading.block, reading.checkpoint.batch, reading.rollbacks), (Some(32), 5, 1));
    }

    #[test]
    fn an_activity_counts_up_to_now_and_a_wait_without_what_was_done_in_it() {
        let meter = Meter::default();
        let (batch, began) = (BatchNo::new(1), Instant::now());
        assert!(meter.time_if_began(Phase::WaitingForSource, batch).is_none());
        drop(meter.time(Phase::Handling, batch));
        let handled = meter.read().times.handlers;
        assert!(handled > Duration::ZERO);
        let waiting = meter.time_if_began(Phase::WaitingForSource, batch).expect("the run has started");
        drop(meter.time(Phase::Sealing, batch));
        let times = meter.read().times;
        assert_eq!(times.handlers - handled, times.sealing);
        drop(waiting);
        let whole = meter.read().times;
        assert!(whole.waits.source >= times.waits.source && times.waits.source > Duration::ZERO);
        assert_eq!(whole.sealing, times.sealing);
        assert!(whole.handlers + whole.waits.source <= began.elapsed());
    }
}
