//! `forebay status`: how a pipeline stands.

use std::path::Path;

use forebay::Config;
use forebay::store::{PipelineStatus, RegionStatus, StoreError, StoreUrl, open_snapshots};
use serde_json::{Value as Json, json};

use super::args::{Global, Status};
use super::exit::{Code, Failure};
use super::out::{age, count, plain, print_lines, seconds_since, set};

/// How one region's snapshot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It holds all of the region's events, and is kept.
    Fresh,
    /// The region has had events since, or it is older than its time to live.
    Stale,
    /// There is none.
    Missing,
    /// The handlers make none.
    None,
}

impl State {
    fn of(region: &RegionStatus, has_snapshots: bool, ttl_seconds: i64) -> Self {
        match &region.snapshot {
            _ if !has_snapshots => Self::None,
            // A handler may have nothing to say of a region.
            None if region.snapshot_block.is_some_and(|covered| covered >= region.block) => Self::None,
            None => Self::Missing,
            Some(snapshot) if seconds_since(&snapshot.generated_at) > ttl_seconds => Self::Stale,
            Some(_) if region.snapshot_block.is_none_or(|covered| covered < region.block) => Self::Stale,
            Some(_) => Self::Fresh,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Missing => "missing",
            Self::None => "none",
        }
    }

    fn is_healthy(self) -> bool {
        matches!(self, Self::Fresh | Self::None)
    }
}

pub(super) fn status(args: &Status, global: &Global) -> Result<Code, Failure> {
    let config = Config::read(&args.pipeline)?;
    let url = match set(args.store.as_ref()) {
        Some(url) => StoreUrl::parse(url, Path::new("")),
        None => StoreUrl::parse(&config.store_url, config.folder()),
    };
    let reader = open_snapshots(&url.map_err(|error| super::usage(format!("--store or DATABASE_URL: {error}")))?);
    let mut reader = match reader {
        Err(StoreError::Missing { .. }) if args.json => {
            print_lines([nothing_as_json(&config.name)])?;
            return Ok(Code::Failed);
        }
        opened => opened?,
    };
    let found = reader.status(&config.name)?;
    let Some(status) = found.filter(|status| status.checkpoint.block.is_some()) else {
        if args.json {
            print_lines([nothing_as_json(&config.name)])?;
        }
        return Err(Failure::new(Code::Failed, format!("pipeline {} has not committed anything yet", config.name)));
    };
    let ttl_seconds = i64::try_from(config.snapshots.ttl.as_secs()).unwrap_or(i64::MAX);
    let states: Vec<State> =
        status.regions.iter().map(|region| State::of(region, status.has_snapshots, ttl_seconds)).collect();
    let is_healthy = states.iter().all(|state| state.is_healthy());
    let lines = if args.json {
        vec![as_json(&config.name, &status, &states, is_healthy).to_string()]
    } else {
        as_lines(&config.name, &status, &states)
    };
    if args.json || !global.quiet {
        print_lines(lines)?;
    }
    Ok(if is_healthy { Code::Done } else { Code::Failed })
}

/// What is said of a pipeline that never ran.
fn nothing_as_json(name: &str) -> Json {
    json!({ "pipeline": name, "healthy": false, "checkpoint": { "block": null }, "lag": { "seconds": null }, "regions": [] })
}

fn lag_seconds(status: &PipelineStatus) -> Option<i64> {
    status.committed_at.as_deref().map(seconds_since)
}

fn as_json(name: &str, status: &PipelineStatus, states: &[State], is_healthy: bool) -> Json {
    let region = |(region, state): (&RegionStatus, &State)| {
        let snapshot = region.snapshot.as_ref();
        json!({
            "region": region.region,
            "state": state.name(),
            "block": region.block,
            "events": region.events,
            "id": snapshot.map(|snapshot| &snapshot.id),
            "seq": snapshot.map(|snapshot| snapshot.seq),
            "snapshot_block": region.snapshot_block,
            "generated_at": snapshot.map(|snapshot| &snapshot.generated_at),
            "age_seconds": snapshot.map(|snapshot| seconds_since(&snapshot.generated_at)),
        })
    };
    json!({
        "pipeline": name,
        "healthy": is_healthy,
        "checkpoint": {
            "block": status.checkpoint.block,
            "blocks": status.checkpoint.blocks,
            "events": status.checkpoint.events,
            "committed_at": status.committed_at,
        },
        "lag": { "seconds": lag_seconds(status) },
        "regions": status.regions.iter().zip(states).map(region).collect::<Vec<_>>(),
    })
}

fn as_lines(name: &str, status: &PipelineStatus, states: &[State]) -> Vec<String> {
    let checkpoint = &status.checkpoint;
    let block = checkpoint.block.unwrap_or(0);
    let mut lines = vec![format!(
        "{name}  block {block}, {} events of {} blocks, last commit {} ago",
        count(checkpoint.events),
        count(checkpoint.blocks),
        lag_seconds(status).map_or_else(|| "long".to_owned(), age)
    )];
    for (region, state) in status.regions.iter().zip(states) {
        let snapshot = region.snapshot.as_ref().map_or_else(
            || "no snapshot".to_owned(),
            |snapshot| {
                format!(
                    "snapshot {} of block {}, {} old",
                    snapshot.seq,
                    snapshot.block,
                    age(seconds_since(&snapshot.generated_at))
                )
            },
        );
        lines.push(format!("  {:<8} {}  block {}, {snapshot}", state.name(), plain(&region.region), region.block));
    }
    lines
}
