//! `forebay latest`, `history` and `show`: snapshots, read back.

use forebay::store::StoredSnapshot;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::args::{Form, History, Latest, Show};
use super::exit::{Code, Failure};
use super::out::{is_terminal, plain, plain_json, print_json, print_lines, print_text};
use super::place::{SnapshotStore, open, since};
use super::table;

pub(super) fn latest(args: &Latest) -> Result<Code, Failure> {
    let (mut reader, pipeline) = open(&args.place)?;
    if args.stream && !args.regions.is_empty() {
        return stream(&mut reader, &pipeline, &args.regions);
    }
    let (found, refused) = reader.latest(&pipeline, &args.regions)?;
    match args.stream {
        true => print_json(found.iter().map(|snapshot| line(&snapshot.region, Some(&snapshot.doc), None)))?,
        false => print(&found, &args.form)?,
    };
    if !refused.is_empty() {
        return Err(Failure::new(Code::Failed, refused.join("\n  ")));
    }
    let is_found = |region: &&String| found.iter().any(|snapshot| snapshot.region == **region);
    let missing: Vec<&str> = args.regions.iter().filter(|region| !is_found(region)).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(Failure::new(
            Code::Failed,
            format!("no snapshot of {} in pipeline {pipeline}", plain(&missing.join(", "))),
        ));
    }
    if found.is_empty() {
        tracing::warn!("pipeline {pipeline} has no snapshots yet");
    }
    Ok(Code::Done)
}

/// What `--stream` says of a region.
fn line(region: &str, doc: Option<&str>, error: Option<&str>) -> String {
    let (region, doc) = (json!(region), doc.map_or_else(|| "null".to_owned(), one_line));
    match error {
        Some(error) => format!(r#"{{"region":{region},"doc":{doc},"error":{}}}"#, json!(error)),
        None => format!(r#"{{"region":{region},"doc":{doc}}}"#),
    }
}

/// One line for each of the regions, in their order, as soon as it and those before it are known.
fn stream(reader: &mut SnapshotStore, pipeline: &str, regions: &[String]) -> Result<Code, Failure> {
    let (mut printed, mut refused, mut has_found) = (Ok(Code::Done), Vec::new(), false);
    reader.latest_in_order(pipeline, regions, &mut |region, outcome| {
        let error = outcome.as_ref().err().map(String::as_str);
        let doc = outcome.as_ref().ok().and_then(Option::as_ref).map(|snapshot| snapshot.doc.as_str());
        has_found |= doc.is_some();
        if printed.is_ok() {
            printed = print_json([line(region, doc, error)]);
        }
        refused.extend(error.map(|error| format!("{}: {error}", plain(region))));
    })?;
    printed?;
    if !refused.is_empty() {
        return Err(Failure::new(Code::Failed, refused.join("\n  ")));
    }
    if !has_found {
        tracing::warn!("pipeline {pipeline} has no snapshots of these regions yet");
    }
    Ok(Code::Done)
}

pub(super) fn history(args: &History) -> Result<Code, Failure> {
    let since = args.since.as_deref().map(since).transpose()?;
    let (mut reader, pipeline) = open(&args.place)?;
    let found = reader.history(&pipeline, &args.region, args.limit.get(), since)?;
    print(&found, &args.form)?;
    if found.is_empty() && reader.history(&pipeline, &args.region, 1, None)?.is_empty() {
        return Err(Failure::new(
            Code::Failed,
            format!("no snapshot of {} in pipeline {pipeline}", plain(&args.region)),
        ));
    }
    Ok(Code::Done)
}

pub(super) fn show(args: &Show) -> Result<Code, Failure> {
    let (mut reader, pipeline) = open(&args.place)?;
    match reader.show(&pipeline, &args.id)? {
        Some(snapshot) => print(&[snapshot], &args.form),
        None => Err(Failure::new(
            Code::Failed,
            format!("no snapshot with the id {} in pipeline {pipeline}", plain(&args.id)),
        )),
    }
}

fn print(found: &[StoredSnapshot], form: &Form) -> Result<Code, Failure> {
    if form.table || (is_terminal() && !form.json) {
        if found.is_empty() {
            return Ok(Code::Done);
        }
        return print_text(table::snapshots(found).lines());
    }
    if form.meta {
        return print_json(found.iter().map(with_meta));
    }
    let lines = found.iter().map(|snapshot| one_line(&snapshot.doc));
    match is_terminal() {
        true => print_lines(lines.map(|line| plain_json(&line).into_owned())),
        // A program is reading: a document goes to it byte for byte.
        false => print_lines(lines),
    }
}

/// A document in one line. Within a JSON text a line break is never part of a string.
pub(super) fn one_line(doc: &str) -> String {
    if doc.contains(['\n', '\r']) { doc.replace(['\n', '\r'], " ") } else { doc.to_owned() }
}

fn with_meta(snapshot: &StoredSnapshot) -> String {
    // As it is: read into values, its long numbers would lose digits.
    let doc = one_line(&snapshot.doc);
    let doc: &RawValue = serde_json::from_str(&doc).unwrap_or(RawValue::NULL);
    let of = |value: Json| value.to_string();
    format!(
        r#"{{"block":{},"doc":{doc},"id":{},"region":{},"seq":{},"time":{}}}"#,
        of(json!(snapshot.block)),
        of(json!(snapshot.id)),
        of(json!(snapshot.region)),
        of(json!(snapshot.seq)),
        of(json!(snapshot.generated_at)),
    )
}
