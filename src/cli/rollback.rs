//! `forebay rollback`: back to the state as of a block.

use forebay::{Pipeline, Report};
use serde_json::json;

use super::args::{Global, Rollback};
use super::exit::{Code, Failure};
use super::out::{counted, print_json, print_text};
use super::run::{finish, prepare, stop_on_signals};
use super::summary;

pub(super) fn rollback(args: &Rollback, global: &Global) -> Result<Code, Failure> {
    let pipeline: Pipeline = prepare(&args.pipeline, args.servers.store.as_ref(), args.servers.snapshots.as_ref())?;
    let name = args.pipeline.display().to_string();
    stop_on_signals(&pipeline.stop_handle().flag())?;
    let report = pipeline.rollback(args.to)?;
    if args.json {
        print_json([json_of(&report, args.to)])?;
    } else if !global.quiet {
        print_text(lines_of(&report, args.to, &name))?;
    }
    Ok(finish(&report))
}

fn json_of(report: &Report, to: i64) -> serde_json::Value {
    let done = report.rollbacks.first();
    json!({
        "pipeline": report.pipeline,
        "to": to,
        "rolled_back": done.is_some(),
        "from": report.resumed_from,
        "checkpoint": { "block": report.checkpoint.block },
        "rows": done.map_or(0, |done| done.rows),
        "regions": done.map_or(0, |done| done.regions.len()),
        "snapshots": summary::snapshots(report),
    })
}

fn lines_of(report: &Report, to: i64, name: &str) -> Vec<String> {
    let block = |block: Option<i64>| block.map_or_else(|| "no block".to_owned(), |block| format!("block {block}"));
    let Some(done) = report.rollbacks.first() else {
        return vec![format!(
            "{}: nothing to roll back to block {to}: the checkpoint is {}",
            report.pipeline,
            block(report.checkpoint.block)
        )];
    };
    let mut lines = vec![format!(
        "{}: rolled back from {} to {}",
        report.pipeline,
        block(done.from),
        match done.block {
            Some(last) if last == to => format!("block {to}"),
            Some(last) => format!("block {to}: the last one in the data is {last}"),
            None => format!("block {to}: before the first one in the data"),
        }
    )];
    lines.push(format!(
        "  restored    {} of {}",
        counted(done.rows, "row", "rows"),
        counted(done.regions.len() as u64, "region", "regions")
    ));
    lines.push(summary::snapshot_line(report));
    lines.push(format!("  go on with `forebay run {name}`"));
    lines
}
