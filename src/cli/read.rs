//! `forebay latest`, `history` and `show`: snapshots, read back.

use std::path::Path;

use forebay::config::parse_duration;
use forebay::store::{SnapshotReader, StoreUrl, StoredSnapshot, open_snapshots};
use forebay::{Config, Timestamp};
use serde_json::{Value as Json, json};

use super::args::{Form, History, Latest, Place, Show};
use super::exit::{Code, Failure};
use super::out::{is_terminal, print_lines, set};
use super::{table, usage};

pub(super) fn latest(args: &Latest) -> Result<Code, Failure> {
    let (mut reader, pipeline) = open(&args.place)?;
    let found = reader.latest(&pipeline, &args.regions)?;
    print(&found, &args.form)?;
    let is_found = |region: &&String| found.iter().any(|snapshot| snapshot.region == **region);
    let missing: Vec<&str> = args.regions.iter().filter(|region| !is_found(region)).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(Failure::new(
            Code::Failed,
            format!("no snapshot of {} in pipeline {pipeline}", missing.join(", ")),
        ));
    }
    if found.is_empty() {
        tracing::warn!("pipeline {pipeline} has no snapshots yet");
    }
    Ok(Code::Done)
}

pub(super) fn history(args: &History) -> Result<Code, Failure> {
    let since = args.since.as_deref().map(since).transpose()?;
    let (mut reader, pipeline) = open(&args.place)?;
    let found = reader.history(&pipeline, &args.region, args.limit.get(), since.as_deref())?;
    print(&found, &args.form)?;
    if found.is_empty() && reader.history(&pipeline, &args.region, 1, None)?.is_empty() {
        return Err(Failure::new(Code::Failed, format!("no snapshot of {} in pipeline {pipeline}", args.region)));
    }
    Ok(Code::Done)
}

pub(super) fn show(args: &Show) -> Result<Code, Failure> {
    let (mut reader, pipeline) = open(&args.place)?;
    match reader.show(&pipeline, &args.id)? {
        Some(snapshot) => print(&[snapshot], &args.form),
        None => Err(Failure::new(Code::Failed, format!("no snapshot with the id {} in pipeline {pipeline}", args.id))),
    }
}

/// The time that `--since` names, as snapshots carry it.
fn since(text: &str) -> Result<String, Failure> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.to_millis_text());
    }
    let refused = || {
        usage(format!("--since: expected a time such as 2026-01-31T12:00:00Z or a duration such as 2h, got {text:?}"))
    };
    let span = parse_duration(text).map_err(|_| refused())?;
    let micros = i64::try_from(span.as_micros()).map_err(|_| refused())?;
    Timestamp::from_micros(Timestamp::now().as_micros() - micros).map(Timestamp::to_millis_text).ok_or_else(refused)
}

/// Opens the place that the arguments name; returns the pipeline too.
fn open(place: &Place) -> Result<(Box<dyn SnapshotReader>, String), Failure> {
    let given = set(place.snapshots.as_ref());
    let (url, name) = match (&place.config, given) {
        (Some(file), given) => {
            let config = Config::read(file)?;
            let url = match given {
                Some(url) => StoreUrl::parse(url, Path::new("")),
                None => StoreUrl::parse(&config.store_url, config.folder()),
            };
            (url, Some(config.name))
        }
        (None, Some(url)) => (StoreUrl::parse(url, Path::new("")), place.pipeline.clone()),
        (None, None) => {
            return Err(usage(
                "where are the snapshots? give --config PIPELINE.toml, or --snapshots URL and --pipeline NAME",
            ));
        }
    };
    let mut reader = open_snapshots(&url.map_err(|error| usage(format!("--snapshots or DATABASE_URL: {error}")))?)?;
    let name = match name {
        Some(name) => known(reader.as_mut(), name)?,
        None => only(reader.as_mut())?,
    };
    Ok((reader, name))
}

fn known(reader: &mut dyn SnapshotReader, name: String) -> Result<String, Failure> {
    let pipelines = reader.pipelines()?;
    if pipelines.contains(&name) {
        return Ok(name);
    }
    Err(Failure::new(Code::Failed, format!("the store knows no pipeline {name}; it has {}", list(&pipelines))))
}

fn only(reader: &mut dyn SnapshotReader) -> Result<String, Failure> {
    let mut pipelines = reader.pipelines()?;
    match (pipelines.pop(), pipelines.is_empty()) {
        (Some(name), true) => Ok(name),
        (Some(last), false) => {
            pipelines.push(last);
            Err(usage(format!("which pipeline? give --pipeline NAME; the store has {}", list(&pipelines))))
        }
        (None, _) => Err(Failure::new(Code::Failed, "the store has no pipeline yet")),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn print(found: &[StoredSnapshot], form: &Form) -> Result<Code, Failure> {
    if form.table || (is_terminal() && !form.json) {
        if found.is_empty() {
            return Ok(Code::Done);
        }
        return print_lines([table::snapshots(found)]);
    }
    print_lines(found.iter().map(|snapshot| if form.meta { with_meta(snapshot) } else { snapshot.doc.clone() }))
}

fn with_meta(snapshot: &StoredSnapshot) -> String {
    let doc: Json = serde_json::from_str(&snapshot.doc).unwrap_or(Json::Null);
    json!({
        "region": snapshot.region,
        "id": snapshot.id,
        "seq": snapshot.seq,
        "block": snapshot.block,
        "time": snapshot.generated_at,
        "doc": doc,
    })
    .to_string()
}
