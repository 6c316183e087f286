//! The trace format of Chrome
//! (<https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>): complete events, in microseconds.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{Activity, Span, Stage, Timeline};

/// The process and the row of staged batches.
const PROCESS: u64 = 1;
/// Two, since a batch is staged while the one before it still commits.
const STAGED_ROWS: [usize; 2] = [Stage::ALL.len() + 1, Stage::ALL.len() + 2];

pub(super) fn trace(timeline: &Timeline, name: &str) -> Json {
    let row_name = |row: usize, name: &str| json!({ "name": "thread_name", "ph": "M", "pid": PROCESS, "tid": row, "args": { "name": name } });
    let order = |row: usize, place: usize| json!({ "name": "thread_sort_index", "ph": "M", "pid": PROCESS, "tid": row, "args": { "sort_index": place } });
    let mut events = vec![
        json!({ "name": "process_name", "ph": "M", "pid": PROCESS, "args": { "name": format!("forebay run {name}") } }),
    ];
    events.extend(STAGED_ROWS.into_iter().flat_map(|row| [row_name(row, "staged"), order(row, 3)]));
    for stage in Stage::ALL {
        let row = stage as usize + 1;
        // Staged batches stand between handlers and commits.
        let place = if stage <= Stage::Handlers { row } else { row + 1 };
        events.extend([row_name(row, stage.name()), order(row, place)]);
        events.extend(timeline.spans(stage).iter().map(|span| event(stage, span)));
    }
    events.extend(timeline.staged().into_iter().map(|(batch, from, to)| {
        json!({
            "name": format!("batch {batch} is staged"), "cat": "staged", "ph": "X", "pid": PROCESS, "tid": STAGED_ROWS[(batch % 2) as usize],
            "ts": micros(from), "dur": micros(to.saturating_sub(from)), "args": { "batch": batch },
        })
    }));
    json!({ "traceEvents": events, "displayTimeUnit": "ms" })
}

fn event(stage: Stage, span: &Span) -> Json {
    let name = match (span.doing, span.first_batch, span.last_batch) {
        (Activity::Working, 0, _) => stage.name().to_owned(),
        (Activity::Working, first, last) if first == last => format!("batch {first}"),
        (Activity::Working, first, last) => format!("batches {first} to {last}"),
        (doing, ..) => doing.name().to_owned(),
    };
    json!({
        "name": name, "cat": if span.doing.is_work() { stage.name() } else { "wait" }, "ph": "X", "pid": PROCESS,
        "tid": stage as usize + 1, "ts": micros(span.start), "dur": micros(span.len()),
        "args": { "first_batch": span.first_batch, "last_batch": span.last_batch, "busy_us": micros(span.busy) },
    })
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}
