//! `/status` of a run: the object of `forebay status --json`, and what only a run knows of itself.
//!
//! A key whose value is not known is null, and never left out.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::samples::Rates;
use super::subject::Asked;
use super::wanted::{Found, View};
use crate::model::durations::Durations;
use crate::model::timestamp::Timestamp;
use crate::run::{Reading, Watched, memory_peak_bytes};
use crate::status::{InTarget, Standing, nothing_as_json};
use crate::store::StoreOutage;
use crate::timeline::{Span, Stage, Timeline};

/// What it is made of.
pub(super) struct Sources<'s> {
    pub(super) watched: &'s Watched,
    pub(super) reading: &'s Reading,
    pub(super) rates: Rates,
    pub(super) view: Option<&'s Found<std::sync::Arc<View>>>,
    /// Why the store could not be read.
    pub(super) store_error: Option<String>,
}

/// The object.
pub(super) fn object(sources: &Sources<'_>, asked: &Asked) -> Json {
    let Sources { watched, reading, .. } = sources;
    let now = Timestamp::now();
    let mut object = of_store(sources, asked);
    let outage = watched.meter.outages().read();
    object["uptime_seconds"] = seconds(watched.meter.pulse_reading().uptime);
    object["source"] = json!({
        "name": watched.source,
        "follow": watched.follows,
        "block": reading.source_block,
        "end_block": watched.until,
        "bytes_read": reading.source_bytes_read,
        "bytes_total": reading.source_bytes_total,
        "time": reading.source_time.map(Timestamp::to_millis_text),
    });
    set_lag(&mut object, reading, now);
    object["rates"] = json!({
        "events_per_second": sources.rates.events,
        "blocks_per_second": sources.rates.blocks,
        "commits_per_second": sources.rates.commits,
    });
    object["memory"] = json!({
        "ahead_bytes": reading.memory.ahead,
        "cached_bytes": reading.memory.cached,
        "staged_bytes": reading.memory.staged,
        "limit_bytes": reading.memory_limit_bytes,
        "peak_bytes": memory_peak_bytes(),
    });
    object["counts"] = counts(watched, reading);
    object["commit"] = commit(&watched.meter.commits(), &outage, now);
    let publishing = watched.meter.publishing();
    object["publish"] = json!({
        "target": watched.target,
        "backlog": publishing.backlog,
        "oldest_age_seconds": publishing.oldest.map(seconds),
    });
    object["stages"] = stages(reading);
    object["limit"] = reading.limit().into();
    if asked.timeline {
        let (timeline, end) = watched.meter.last_minute();
        object["timeline"] = shown_timeline(&timeline, end);
    }
    object
}

/// What `forebay status` says too. What the run knows better, because it is newer, is the run's.
fn of_store(sources: &Sources<'_>, asked: &Asked) -> Json {
    let Sources { watched, reading, view, .. } = sources;
    let status = view.and_then(|view| view.what.status.as_ref());
    let there = watched.target.is_some().then(InTarget::unknown);
    let mut object = match status {
        Some(status) => {
            let standing = Standing::new(&watched.pipeline, status, watched.ttl, there.as_ref());
            let mut object = standing.head(true);
            if let Some(after) = asked.regions_after {
                let changed = view.map_or(&[][..], |view| &view.what.changed);
                let wanted = standing.regions().zip(changed).filter(|(_, version)| **version > after);
                object["regions"] = wanted.map(|((region, state), _)| standing.region(region, state)).collect();
            }
            object
        }
        None => {
            let mut object = nothing_as_json(&watched.pipeline);
            (object["signature"], object["quarantined"]) = (Json::Null, reading.quarantined.into());
            if view.is_none() {
                object["healthy"] = Json::Null;
            }
            if asked.regions_after.is_none()
                && let Some(object) = object.as_object_mut()
            {
                object.remove("regions");
            }
            object
        }
    };
    let checkpoint = &reading.checkpoint;
    let position = object["checkpoint"]["position"].take();
    let committed_at = object["checkpoint"]["committed_at"].take();
    object["checkpoint"] = json!({
        "block": checkpoint.block,
        "position": position,
        "blocks": checkpoint.blocks,
        "events": checkpoint.events,
        "committed_at": reading.committed_at.map_or(committed_at, |time| time.to_millis_text().into()),
    });
    object["store"] = json!({
        "age_seconds": view.map(|view| seconds(view.read_at.elapsed())),
        "error": sources.store_error,
    });
    if asked.quarantine {
        object["quarantine"] = view.map_or_else(|| json!([]), |view| view.what.quarantine_json());
    }
    object
}

fn set_lag(object: &mut Json, reading: &Reading, now: Timestamp) {
    let behind = |time: Timestamp| (now.as_micros() - time.as_micros()).max(0) as f64 / 1e6;
    let blocks =
        reading.source_block.zip(reading.checkpoint.block).map(|(read, done)| read.saturating_sub(done).max(0));
    object["lag"] = json!({
        "seconds": object["checkpoint"]["committed_at"].as_str().and_then(crate::status::seconds_since),
        "blocks": blocks,
        "source_seconds": reading.source_time.map(behind).map(rounded),
    });
}

fn counts(watched: &Watched, reading: &Reading) -> Json {
    let snapshots = reading.snapshots;
    json!({
        "events": reading.events_committed,
        "blocks": reading.blocks_committed,
        "batches": reading.batches,
        "rows": reading.rows,
        "rollbacks": reading.rollbacks,
        "late_skipped": reading.late_skipped,
        "quarantined": reading.quarantined,
        "commit_retries": reading.commit_retries,
        "snapshots": {
            "stored": snapshots.stored,
            "duplicate": snapshots.duplicate,
            "published": snapshots.published,
            "stale": snapshots.stale,
            "kept": snapshots.kept,
            "failed": watched.meter.publishing().failed,
        },
    })
}

fn commit(commits: &Durations, outage: &StoreOutage, now: Timestamp) -> Json {
    json!({
        "count": commits.count,
        "median_seconds": commits.median().map(seconds),
        "max_seconds": (commits.count > 0).then(|| seconds(commits.max)),
        "retries": outage.tries,
        "outage_since": outage.away_for.map(|away| now.saturating_sub(away).to_millis_text()),
        "outage_seconds": seconds(outage.total),
    })
}

fn stages(reading: &Reading) -> Json {
    let times = &reading.times;
    let waits = &times.waits;
    json!({
        "read": { "busy_seconds": seconds(times.read), "waiting_seconds": { "lanes": seconds(times.read_blocked) } },
        "handle": {
            "busy_seconds": seconds(times.handlers),
            "waiting_seconds": {
                "source": seconds(waits.source),
                "commit": seconds(waits.commit),
                "memory": seconds(waits.memory + times.evicting),
                "rows": seconds(times.preload),
            },
        },
        "commit": { "busy_seconds": seconds(times.commit), "waiting_seconds": { "batches": seconds(times.commit_idle) } },
        "publish": { "busy_seconds": seconds(times.publish), "waiting_seconds": {} },
    })
}

fn shown_timeline(timeline: &Timeline, end: Duration) -> Json {
    let shown = |span: &Span| {
        let doing = span.doing.name();
        json!([seconds(span.start), seconds(span.end), doing, span.first_batch, span.last_batch, seconds(span.busy)])
    };
    let spans = |stage| timeline.spans(stage).iter().map(shown).collect::<Json>();
    json!({
        "seconds": 60,
        "end": seconds(end),
        "stages": {
            "read": spans(Stage::Read),
            "handle": spans(Stage::Handlers),
            "commit": spans(Stage::Commit),
            "publish": spans(Stage::Publish),
        },
    })
}

pub(super) fn seconds(span: Duration) -> Json {
    rounded(span.as_secs_f64()).into()
}

/// To the millisecond.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}
