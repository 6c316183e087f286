//! What a run did, as a JSON object or as a short table.

use forebay::Waits;
use forebay::timeline::bottleneck::Hypothetical;
use forebay::{FreshIndex, Report};
use serde_json::{Value as Json, json};

use super::out::{count, counted};

/// The object that `run --json` prints.
pub(super) fn json(report: &Report) -> Json {
    let seconds = |time: std::time::Duration| (time.as_secs_f64() * 1e6).round() / 1e6;
    let rounded = |ratio: f64| (ratio * 1e4).round() / 1e4;
    let times = &report.times;
    let limits = report.limits();
    let what_if = limits.what_if.iter().map(|what_if| {
        let mut object = json!({ "change": what_if.change.name(), "saves_at_most": seconds(what_if.saves_at_most) });
        if let Hypothetical::LargerBatches(events) = what_if.change {
            object["events"] = events.into();
        }
        object
    });
    let mut object = json!({
        "pipeline": report.pipeline,
        "events": report.events,
        "blocks": report.blocks,
        "batches": report.batches,
        "entities_written": report.entities_written,
        "checkpoint": { "block": report.checkpoint.block },
        "resumed_from": report.resumed_from,
        "quarantined": report.quarantined,
        "snapshots": snapshots(report),
        "seconds": {
            "wall": seconds(times.wall),
            "read": seconds(times.read),
            "handlers": seconds(times.handlers),
            "commit": seconds(times.commit),
            "publish": seconds(times.publish),
            "handlers_blocked": seconds(times.handlers_blocked),
            "commit_idle": seconds(times.commit_idle),
            "read_blocked": seconds(times.read_blocked),
            "preload": seconds(times.preload),
            "sealing": seconds(times.sealing), "evicting": seconds(times.evicting),
            "commit_parts": {
                "stream": seconds(times.commit_parts.stream),
                "merge": seconds(times.commit_parts.merge),
                "commit": seconds(times.commit_parts.commit),
            },
            "waits": {
                "source": seconds(times.waits.source),
                "commit": seconds(times.waits.commit),
                "memory": seconds(times.waits.memory),
                "last_commits": seconds(times.waits.last_commits),
                "publish": seconds(times.waits.publish),
            },
        },
        "limit": { "by": limits.by.name(), "what_if": what_if.collect::<Vec<_>>(), "text": report.limit() },
        "overlap": { "speedup": rounded(report.speedup()), "efficiency": rounded(report.efficiency()) },
        "source_bytes_read": report.source_bytes_read,
        "memory_peak_bytes": report.memory_peak_bytes,
    });
    if let Some(fresh) = report.fresh {
        object["fresh"] = fresh_name(fresh).into();
    }
    if !report.rollbacks.is_empty() {
        object["rollbacks"] = report.rollbacks.len().into();
    }
    if report.late_skipped > 0 {
        object["late_skipped"] = report.late_skipped.into();
    }
    if report.loads > 0 {
        object["loads"] = report.loads.into();
    }
    for (name, number) in [("commit_retries", report.commit_retries), ("commits_redone", report.commits_redone)] {
        if number > 0 {
            object[name] = number.into();
        }
    }
    object
}

fn fresh_name(fresh: FreshIndex) -> &'static str {
    match fresh {
        FreshIndex::InPlace => "in_place",
        _ => "beside",
    }
}

/// What became of snapshots, as an object.
pub(super) fn snapshots(report: &Report) -> Json {
    json!({
        "stored": report.snapshots.stored,
        "published": report.snapshots.published,
        "duplicate": report.snapshots.duplicate,
        "stale": report.snapshots.stale,
        "kept": report.snapshots.kept,
        "failed": report.snapshots.failed,
    })
}

/// What became of snapshots, as a line of the table.
pub(super) fn snapshot_line(report: &Report) -> String {
    let snapshots = &report.snapshots;
    let published = match (snapshots.published, snapshots.failed) {
        (0, 0) => String::new(),
        (published, 0) => format!(", {} published", count(published)),
        (published, failed) => format!(
            ", {} published, {} not published",
            count(published),
            counted(failed, "region's newest", "regions' newest")
        ),
    };
    let more: String = [(snapshots.stale, "stale"), (snapshots.kept, "kept")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!(", {} {what}", count(number)))
        .collect();
    format!(
        "  snapshots   {} stored, {} unchanged{published}{more}",
        count(snapshots.stored),
        count(snapshots.duplicate)
    )
}

/// What handlers waited for, if it is worth a line.
fn wait_line(report: &Report) -> Option<String> {
    let Waits { source, commit, memory, last_commits, .. } = report.times.waits;
    let waits = [
        (source, "for events"),
        (report.times.preload, "for rows"),
        (commit, "for a commit"),
        (memory + report.times.evicting, "for memory"),
        (last_commits, "for the last commits"),
    ];
    let told: Vec<String> = waits
        .into_iter()
        .filter(|(time, _)| time.as_millis() >= 1)
        .map(|(time, what)| format!("{:.3} s {what}", time.as_secs_f64()))
        .collect();
    (!told.is_empty()).then(|| format!("  waited      {}", told.join(", ")))
}

/// The run in one line: what stands over its picture.
pub(super) fn title(report: &Report) -> String {
    format!(
        "{}: {} in {:.3} s, {} events/s, {}",
        report.pipeline,
        counted(report.events, "event", "events"),
        report.times.wall.as_secs_f64(),
        count(report.events_per_second() as u64),
        counted(report.batches, "batch", "batches")
    )
}

/// The table that `run` prints.
pub(super) fn lines(report: &Report) -> Vec<String> {
    let block = |block: Option<i64>| block.map_or_else(|| "none yet".to_owned(), |block| format!("block {block}"));
    let times = &report.times;
    let mut lines = vec![format!(
        "{}  {} of {} in {:.3} s, {} events/s{}",
        report.pipeline,
        counted(report.events, "event", "events"),
        counted(report.blocks, "block", "blocks"),
        times.wall.as_secs_f64(),
        count(report.events_per_second() as u64),
        if report.was_stopped { ", stopped by a signal" } else { "" },
    )];
    let resumed = report.resumed_from.map_or_else(String::new, |block| format!(", went on from block {block}"));
    lines.push(format!("  checkpoint  {}{resumed}", block(report.checkpoint.block)));
    lines.push(format!(
        "  committed   {} in {}",
        counted(report.entities_written, "row", "rows"),
        counted(report.batches, "batch", "batches")
    ));
    if let Some(fresh) = report.fresh {
        lines.push(match fresh {
            FreshIndex::InPlace => "  fresh       in place of the tables that were there".to_owned(),
            _ => "  fresh       stands beside; `run --fresh` goes on with it".to_owned(),
        });
    }
    lines.push(snapshot_line(report));
    if let Some(last) = report.rollbacks.last() {
        let times = counted(report.rollbacks.len() as u64, "time", "times");
        lines.push(format!("  rolled back {times}, at last to block {}", last.to));
    }
    if report.late_skipped > 0 {
        lines.push(format!("  left out    {} events that came too late", count(report.late_skipped)));
    }
    if report.quarantined > 0 {
        let events = counted(report.quarantined, "event", "events");
        lines.push(format!("  put aside   {events}; `forebay quarantine` shows what is wrong with them"));
    }
    if report.commit_retries > 0 {
        let tries = counted(report.commit_retries, "time", "times");
        lines.push(format!("  database    was away; commits were tried again {tries}"));
    }
    if report.commits_redone > 0 {
        let batches = counted(report.commits_redone, "batch", "batches");
        lines.push(format!("  redone      {batches}: a row thought to be new was in the database already"));
    }
    if report.events > 0 {
        lines.push(format!(
            "  time        read {:.3} s, handlers {:.3} s, commit {:.3} s; {:.3} s of it at the same time",
            times.read.as_secs_f64(),
            times.handlers.as_secs_f64(),
            times.commit.as_secs_f64(),
            (times.handlers + times.commit).saturating_sub(times.wall).as_secs_f64(),
        ));
        lines.extend(wait_line(report));
    }
    lines.push(format!("  memory      {} MiB at most", report.memory_peak_bytes >> 20));
    lines.push(format!("  {}", report.limit()));
    lines
}
