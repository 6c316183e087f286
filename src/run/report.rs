//! What a run did and where its time went.

use std::sync::Arc;
use std::time::Duration;

use crate::model::checkpoint::Checkpoint;
use crate::publish::UnpublishedRegion;
use crate::store::CommitTimes;
use crate::timeline::Timeline;
use crate::timeline::bottleneck::{Facts, Limit, Limits};

/// Snapshots of a run by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SnapshotCounts {
    /// Written to the store.
    pub stored: u64,
    /// Published to where readers look.
    pub published: u64,
    /// Not written or not published, because the region's newest has the same content.
    pub duplicate: u64,
    /// Not published, because readers have something newer.
    pub stale: u64,
    /// Published before; their time to live began anew.
    pub kept: u64,
    /// Regions whose newest could not be published.
    pub failed: u64,
}

/// Where the time went. A stage's time is wall-clock time in which it was busy, not added up over its threads.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Times {
    /// From the first event handled to the last commit.
    pub wall: Duration,
    /// Reading and checking the source.
    pub read: Duration,
    /// Running handlers and sealing batches; waiting for rows from the store is part of it.
    pub handlers: Duration,
    /// Sealing batches: taking out what changed, and snapshots. It is part of `handlers`.
    pub sealing: Duration,
    /// Evicting rows so that memory becomes free. It is not part of `handlers`.
    pub evicting: Duration,
    /// Waiting for rows from the store, in any lane.
    pub preload: Duration,
    /// Committing.
    pub commit: Duration,
    /// Where the time of commits went, as far as the store says.
    pub commit_parts: CommitTimes,
    /// Publishing.
    pub publish: Duration,
    /// Handlers were blocked by a commit or by memory.
    pub handlers_blocked: Duration,
    /// The commit thread had nothing to do.
    pub commit_idle: Duration,
    /// The reader waited until events that it had read ahead were taken.
    pub read_blocked: Duration,
    /// What the thread that runs handlers waited for.
    pub waits: Waits,
}

impl Times {
    /// What the thread that runs handlers did besides waiting for the source.
    pub(super) fn worked(&self) -> Duration {
        self.handlers + self.evicting + self.handlers_blocked
    }
}

/// What the thread that runs handlers waited for, from the first event to the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Waits {
    /// Events.
    pub source: Duration,
    /// A commit, before the next batch could be handed over.
    pub commit: Duration,
    /// A commit, so that memory became free.
    pub memory: Duration,
    /// The last commits, when all events were handled.
    pub last_commits: Duration,
    /// After the last commit: the last snapshots, to be published.
    pub publish: Duration,
}

/// A rollback that has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rollback {
    /// The block that the state was rolled back to.
    pub to: i64,
    /// The last block before the rollback.
    pub from: Option<i64>,
    /// The last block of the data that counts now; none if none does.
    pub block: Option<i64>,
    /// Rows that were restored or removed.
    pub rows: u64,
    /// The regions that had events since, by name.
    pub regions: Vec<Arc<str>>,
}

impl std::fmt::Display for Rollback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = self.from.map_or_else(String::new, |from| format!("from block {from} "));
        let (rows, regions) = (self.rows, self.regions.len());
        write!(f, "rolled back {from}to block {}; rows that changed since: {rows}, regions: {regions}", self.to)
    }
}

/// Where the index of a fresh run is ([`crate::Pipeline::fresh`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FreshIndex {
    /// Beside the present tables: the next fresh run goes on with it.
    Beside,
    /// It has taken their place.
    InPlace,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The pipeline.
    pub pipeline: String,
    /// Events handled and committed.
    pub events: u64,
    /// Blocks of those events.
    pub blocks: u64,
    /// Batches committed.
    pub batches: u64,
    /// Rows written or deleted.
    pub entities_written: u64,
    /// The checkpoint at the end.
    pub checkpoint: Checkpoint,
    /// The last block that was committed before this run; none if it began anew.
    pub resumed_from: Option<i64>,
    /// The rollbacks, in order.
    pub rollbacks: Vec<Rollback>,
    /// Events left out because their place had passed (`late = "skip"`).
    pub late_skipped: u64,
    /// Events put aside in this run (`on_event = "quarantine"`).
    pub quarantined: u64,
    /// Snapshots by what became of them.
    pub snapshots: SnapshotCounts,
    /// Regions whose newest snapshot could not be published, by name. The next run publishes them first.
    pub unpublished: Vec<UnpublishedRegion>,
    /// How often a commit was retried, because the database went away or asked for it.
    pub commit_retries: u64,
    /// Batches that were written a second time, because a row thought to be new was in the database already.
    pub commits_redone: u64,
    /// How often rows were asked for that were not in memory.
    pub loads: u64,
    /// Where the time went.
    pub times: Times,
    /// The shortest commit.
    pub commit_min: Duration,
    /// The events of the region that had most.
    pub largest_region_events: u64,
    /// What each stage did, and when.
    pub timeline: Timeline,
    /// Bytes read of the source, as they lie on disk; 0 where the source does not say. Of files that have not changed since
    /// they were committed none are read.
    pub source_bytes_read: u64,
    /// Bytes of memory that the process had at most; 0 where the system does not say.
    pub memory_peak_bytes: u64,
    /// Whether the run was stopped before the end of its source.
    pub was_stopped: bool,
    /// Of a fresh run, where its index is; none of any other, and where there were no tables yet.
    pub fresh: Option<FreshIndex>,
}

impl Report {
    /// The report of a fresh run, and of the one over its tables in place.
    pub(super) fn and_then(self, then: Self) -> Self {
        let (mut times, later) = (self.times, then.times);
        times.wall += later.wall;
        times.read += later.read;
        times.handlers += later.handlers;
        times.evicting += later.evicting;
        times.commit += later.commit;
        times.publish += later.publish;
        times.waits.publish += later.waits.publish;
        Self {
            events: self.events + then.events,
            blocks: self.blocks + then.blocks,
            batches: self.batches + then.batches,
            entities_written: self.entities_written + then.entities_written,
            checkpoint: then.checkpoint,
            rollbacks: [self.rollbacks, then.rollbacks].concat(),
            late_skipped: self.late_skipped + then.late_skipped,
            quarantined: self.quarantined + then.quarantined,
            snapshots: SnapshotCounts {
                stored: self.snapshots.stored + then.snapshots.stored,
                duplicate: self.snapshots.duplicate + then.snapshots.duplicate,
                ..then.snapshots
            },
            unpublished: then.unpublished,
            commit_retries: self.commit_retries + then.commit_retries,
            commits_redone: self.commits_redone + then.commits_redone,
            loads: self.loads + then.loads,
            times,
            source_bytes_read: self.source_bytes_read + then.source_bytes_read,
            memory_peak_bytes: then.memory_peak_bytes,
            was_stopped: then.was_stopped,
            ..self
        }
    }

    /// How much faster the run was than its stages one after another: (handlers + commit) / wall.
    pub fn speedup(&self) -> f64 {
        ratio(self.times.handlers + self.times.commit, self.times.wall)
    }

    /// How near the run came to its slowest stage alone: max(handlers, commit) / wall.
    pub fn efficiency(&self) -> f64 {
        ratio(self.times.handlers.max(self.times.commit), self.times.wall)
    }

    /// Events a second, over the wall time.
    pub fn events_per_second(&self) -> f64 {
        if self.times.wall.is_zero() { 0.0 } else { self.events as f64 / self.times.wall.as_secs_f64() }
    }

    /// What limited the run, and the most that each change could save.
    pub fn limits(&self) -> Limits {
        Limits::of(&self.facts())
    }

    /// The same as one sentence.
    pub fn limit(&self) -> String {
        let limits = self.limits();
        match self.resumed_from {
            _ if limits.by != Limit::Nothing => limits.sentence(&self.facts()),
            Some(block) => format!("there was nothing to do: no event came after block {block}, which is committed"),
            None => "there was nothing to do: no event came".into(),
        }
    }

    fn facts(&self) -> Facts {
        let Times { wall, read, handlers, evicting, preload, commit, waits, .. } = self.times;
        Facts {
            wall,
            read,
            handlers,
            evicting,
            preload,
            commit,
            commit_min: self.commit_min,
            for_source: waits.source,
            for_commit: waits.commit + waits.last_commits,
            for_memory: waits.memory,
            for_publish: waits.publish,
            batches: self.batches,
            events: self.events,
            largest_region_events: self.largest_region_events,
        }
    }
}

fn ratio(time: Duration, wall: Duration) -> f64 {
    if wall.is_zero() { 0.0 } else { time.as_secs_f64() / wall.as_secs_f64() }
}

/// The most memory that this process had at once; 0 where the system does not say.
pub(crate) fn memory_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// How a run stands, for whoever shows it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Events handled.
    pub events: u64,
    /// The last block handled.
    pub block: Option<i64>,
    /// Batches sealed and not committed.
    pub batches_waiting: u64,
    /// Bytes of the source read, as they lie on disk.
    pub source_bytes_read: u64,
    /// Bytes of the source in all, if that is known.
    pub source_bytes_total: Option<u64>,
}
