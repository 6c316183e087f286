//! The live numbers of a run as Prometheus reads them.

use super::prometheus::Text;
use crate::model::durations::Durations;
use crate::publish::Publishing;
use crate::run::{Reading, RowChanges, Watched};
use crate::store::StoreOutage;

/// What is shown beside the meter's own numbers.
#[derive(Debug, Default)]
pub(super) struct Beside {
    pub(super) is_ready: bool,
    /// The oldest of the regions' newest snapshots.
    pub(super) oldest_snapshot_seconds: Option<i64>,
    /// When the store has committed last, if this run has not.
    pub(super) committed_at: Option<crate::Timestamp>,
}

/// All of it.
pub(super) fn text(watched: &Watched, beside: &Beside) -> String {
    let reading = watched.meter.read();
    let mut text = Text::of(&watched.pipeline, reading.phase, beside.is_ready);
    lag(&mut text, &reading, beside);
    counts(&mut text, &reading, &watched.entities, &watched.meter.rows_by_entity());
    stages(&mut text, &reading);
    store(&mut text, &watched.meter.commits(), &watched.meter.outages().read());
    memory(&mut text, &reading);
    snapshots(&mut text, &reading, beside);
    if watched.target.is_some() {
        publishing(&mut text, &watched.meter.publishing());
    }
    text.out()
}

fn lag(text: &mut Text, reading: &Reading, beside: &Beside) {
    let block = "The last block that was read of the source.";
    text.optional("forebay_source_block", "gauge", block, reading.source_block);
    let block = "The last block that is committed.";
    text.optional("forebay_committed_block", "gauge", block, reading.checkpoint.block);
    let now = crate::Timestamp::now();
    let behind = reading.source_time.map(|time| (now.as_micros() - time.as_micros()).max(0) as f64 / 1e6);
    let help = "How long ago the last committed event happened, by its own time.";
    text.optional("forebay_source_lag_seconds", "gauge", help, behind);
    let at = reading.committed_at.or(beside.committed_at).map(|time| time.as_micros() as f64 / 1e6);
    text.optional("forebay_last_commit_timestamp_seconds", "gauge", "When a batch was committed last.", at);
}

fn counts(text: &mut Text, reading: &Reading, entities: &[String], rows: &[RowChanges]) {
    text.one("forebay_events_total", "counter", "Events that were handled and committed.", reading.events_committed);
    let help = "Events that were left out because their place had passed.";
    text.one("forebay_events_late_total", "counter", help, reading.late_skipped);
    let name = "forebay_events_quarantined_total";
    text.family(name, "counter", "Events that were put aside, by where they failed.");
    text.sample(name, &[("stage", "source")], reading.quarantined_unread);
    text.sample(name, &[("stage", "handler")], reading.quarantined.saturating_sub(reading.quarantined_unread));
    text.one("forebay_batches_total", "counter", "Batches that were committed.", reading.batches);
    let name = "forebay_rows_total";
    text.family(name, "counter", "Rows that were committed, by what was done to them; one that may be new is changed.");
    for (at, entity) in entities.iter().enumerate() {
        let RowChanges { new, changed, deleted, .. } = rows.get(at).copied().unwrap_or_default();
        for (change, rows) in [("new", new), ("changed", changed), ("deleted", deleted)] {
            text.sample(name, &[("entity", entity), ("change", change)], rows);
        }
    }
    let (name, causes) = ("forebay_rollbacks_total", reading.rollback_causes);
    text.family(name, "counter", "Rollbacks that were committed, by why they were made.");
    for (cause, rollbacks) in [("fork", causes.fork), ("late", causes.late), ("command", causes.command)] {
        text.sample(name, &[("cause", cause)], rollbacks);
    }
}

fn stages(text: &mut Text, reading: &Reading) {
    let times = &reading.times;
    let name = "forebay_stage_busy_seconds_total";
    text.family(name, "counter", "How long each stage was at work.");
    let busy = [("read", times.read), ("handle", times.handlers), ("commit", times.commit), ("publish", times.publish)];
    for (stage, busy) in busy {
        text.sample(name, &[("stage", stage)], busy.as_secs_f64());
    }
    let name = "forebay_stage_waiting_seconds_total";
    text.family(name, "counter", "How long each stage waited, by what for.");
    let waits = [
        ("read", "lanes", times.read_blocked),
        ("handle", "source", times.waits.source),
        ("handle", "commit", times.waits.commit),
        ("handle", "memory", times.waits.memory + times.evicting),
        ("handle", "rows", times.preload),
        ("commit", "batches", times.commit_idle),
    ];
    for (stage, cause, waited) in waits {
        text.sample(name, &[("stage", stage), ("cause", cause)], waited.as_secs_f64());
    }
}

fn store(text: &mut Text, commits: &Durations, outage: &StoreOutage) {
    text.histogram("forebay_commit_duration_seconds", "How long commits took, with all that was tried again.", commits);
    let help = "How often something was tried again because the store was away or asked for it.";
    text.one("forebay_store_retries_total", "counter", help, outage.tries);
    let help = "How long the store was away.";
    text.one("forebay_store_outage_seconds_total", "counter", help, outage.total.as_secs_f64());
}

fn memory(text: &mut Text, reading: &Reading) {
    let (name, memory) = ("forebay_memory_bytes", reading.memory);
    text.family(name, "gauge", "Memory that counts against batch.memory, by what it is for.");
    for (kind, bytes) in [("ahead", memory.ahead), ("cached", memory.cached), ("staged", memory.staged)] {
        text.sample(name, &[("kind", kind)], bytes);
    }
    text.one("forebay_memory_limit_bytes", "gauge", "What that may be: batch.memory.", reading.memory_limit_bytes);
}

fn snapshots(text: &mut Text, reading: &Reading, beside: &Beside) {
    let name = "forebay_snapshots_total";
    text.family(name, "counter", "Snapshots that were computed, by what became of them.");
    text.sample(name, &[("result", "stored")], reading.snapshots.stored);
    text.sample(name, &[("result", "duplicate")], reading.snapshots_unchanged);
    let help = "How old the newest snapshot is of the region whose newest is oldest.";
    text.optional("forebay_snapshot_oldest_age_seconds", "gauge", help, beside.oldest_snapshot_seconds);
}

fn publishing(text: &mut Text, publishing: &Publishing) {
    let name = "forebay_publishes_total";
    text.family(name, "counter", "Snapshots that were to be published, by what became of them.");
    let Publishing { published, duplicate, stale, kept, failed, .. } = *publishing;
    let results =
        [("published", published), ("duplicate", duplicate), ("stale", stale), ("kept", kept), ("failed", failed)];
    for (result, number) in results {
        text.sample(name, &[("result", result)], number);
    }
    let help = "Regions whose newest snapshot is not published yet.";
    text.one("forebay_publish_backlog", "gauge", help, publishing.backlog);
    let help = "How long publishes took; the regions of one commit are one.";
    text.histogram("forebay_publish_duration_seconds", help, &publishing.took);
}
