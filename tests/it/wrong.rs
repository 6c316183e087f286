//! Wrong input, configuration and scripts: helpers of the `wrong_*` tests, and what a failure leaves behind.

use crate::common::{Outcome, Project};

/// A pipeline with a column of every type.
pub const PIPELINE: &str = r#"name = "p"
[source]
path = "events.ndjson"
[regions]
ids = ["r", "s"]
[entities.thing]
columns = { txt = "text", yes = "boolean", big = "bigint", dbl = "double", num = "numeric", at = "timestamptz", doc = "jsonb", raw = "bytes" }
indexes = ["big"]
[handlers]
script = "handlers.lua"
[batch]
events = 1
[rollback]
depth = 0
[store]
url = "sqlite:p.db"
[snapshots]
every = "end"
"#;

pub const SCRIPT: &str = "function on_event(event, ctx) ctx.thing:set(event.block, { big = event.block }) end\n";

/// What no message may hold: the inside of the program.
const INSIDE: [&str; 5] = ["panicked at", "overflowed its stack", "bug in forebay", "inner:", "stack traceback"];

/// Events of one region, one a block.
pub fn blocks(numbers: impl IntoIterator<Item = i64>) -> String {
    numbers.into_iter().map(|block| format!("{{\"block\":{block},\"region\":\"r\"}}\n")).collect()
}

/// `text` with `old` replaced, which must be there.
pub fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old:?} is not in\n{text}");
    text.replacen(old, new, 1)
}

/// What is not as it should be with how a command failed; none if all is.
pub fn complaint(name: &str, outcome: &Outcome, code: i32, says: &[&str]) -> Option<String> {
    let stderr = outcome.stderr();
    let missing = says.iter().filter(|text| !stderr.contains(**text));
    let mut wrong: Vec<String> = missing.map(|text| format!("expected stderr to say {text:?}")).collect();
    wrong.extend(
        INSIDE.iter().filter(|text| stderr.contains(**text)).map(|text| format!("stderr must not say {text:?}")),
    );
    if outcome.code() != Some(code) {
        wrong.push(format!("expected exit code {code}"));
    }
    if wrong.is_empty() { None } else { Some(format!("== {name}: {}\n{outcome}\n", wrong.join("; "))) }
}

/// As [`complaint`]; and nothing may have been made in the folder.
pub fn complaint_untouched(name: &str, project: &Project, outcome: &Outcome, says: &[&str]) -> Option<String> {
    let complaint = complaint(name, outcome, 2, says);
    let made = databases(project);
    if made.is_empty() {
        return complaint;
    }
    Some(format!("{}== {name}: it made {}\n", complaint.unwrap_or_default(), made.join(", ")))
}

/// Fails with all complaints at once: one run shows every case that is wrong.
#[track_caller]
pub fn assert_none(complaints: impl IntoIterator<Item = Option<String>>) {
    let complaints: Vec<String> = complaints.into_iter().flatten().collect();
    assert!(complaints.is_empty(), "{} cases are wrong\n{}", complaints.len(), complaints.concat());
}

/// The database files of a project's folder, and what belongs to them.
pub fn databases(project: &Project) -> Vec<String> {
    let entries = std::fs::read_dir(project.path("")).expect("the folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(".db")).collect()
}

/// The ids that are committed, as numbers in order, and the last committed block.
fn committed(project: &Project) -> (Vec<i64>, i64) {
    let number = |row: &Vec<String>| row[0].parse().expect("a number");
    let ids = project.query("p.db", "SELECT id FROM thing ORDER BY CAST(id AS INTEGER)").iter().map(number).collect();
    let blocks = project.query("p.db", "SELECT coalesce(block, 0) FROM forebay_pipelines");
    (ids, blocks.first().map_or(0, number))
}

const RUN: [&str; 2] = ["run", "pipeline.toml"];

#[test]
fn what_was_committed_before_a_handler_fails_stays() {
    let failing = "function on_event(event, ctx)\n  ctx.thing:set(event.block, { big = event.block })\n  if event.block == 4 then error(\"no\") end\nend\n";
    let project = Project::with(PIPELINE, failing, &blocks(1..=2));
    project.forebay(&RUN).ok();
    project.write("events.ndjson", blocks(1..=5));
    for _ in 0..2 {
        project
            .forebay(&RUN)
            .fails(1, &["handlers.lua:3: no", "block 4", "events.ndjson:4", "what was committed before"]);
        let (ids, block) = committed(&project);
        assert!((2..=3).contains(&block), "block {block}");
        assert_eq!(ids, (1..=block).collect::<Vec<_>>());
    }
    project.write("handlers.lua", SCRIPT);
    project.forebay(&RUN).ok();
    assert_eq!(committed(&project), ((1..=5).collect(), 5));
}

#[test]
fn what_was_committed_before_the_source_breaks_off_stays() {
    let project = Project::with(PIPELINE, SCRIPT, &blocks(1..=2));
    project.forebay(&RUN).ok();
    project.write("events.ndjson", blocks(1..=3) + "{\"block\":4,\n");
    project.forebay(&RUN).fails(2, &["events.ndjson:4:"]);
    let (ids, block) = committed(&project);
    assert!((2..=3).contains(&block), "block {block}");
    assert_eq!(ids, (1..=block).collect::<Vec<_>>());
    project.write("events.ndjson", blocks(1..=4));
    project.forebay(&RUN).ok();
    assert_eq!(committed(&project), ((1..=4).collect(), 4));
}

/// Batches of one event, as far as the database keeps up: whatever is in the table ends with a whole block.
#[test]
fn a_failure_in_the_middle_leaves_whole_batches() {
    let failing = "function on_event(event, ctx)\n  ctx.thing:set(event.block, { big = event.block })\n  if event.block == 2000 then error(\"no\") end\nend\n";
    let project = Project::with(PIPELINE, failing, &blocks(1..=3000));
    project.forebay(&RUN).fails(1, &["handlers.lua:3: no", "block 2000", "events.ndjson:2000"]);
    let (ids, block) = committed(&project);
    assert!(block < 2000, "block {block}");
    assert_eq!(ids, (1..=block).collect::<Vec<_>>());
    project.write("handlers.lua", SCRIPT);
    project.forebay(&RUN).ok();
    assert_eq!(committed(&project), ((1..=3000).collect(), 3000));
}

/// A failure on the way to a snapshot takes its batch with it: a snapshot exists exactly when its batch does.
#[test]
fn a_failing_snapshot_discards_its_batch_only() {
    let with_snapshot = |document: &str| format!("{SCRIPT}function on_snapshot(ctx)\n  return {document}\nend\n");
    let pipeline = replaced(PIPELINE, "\"end\"", "\"batch\"");
    let project = Project::with(&pipeline, &with_snapshot("{ n = ctx.thing:count() }"), &blocks(1..=2));
    project.forebay(&RUN).ok();
    project.write("handlers.lua", with_snapshot("{ n = ctx.thing:count(), f = print }"));
    project.write("events.ndjson", blocks(1..=3));
    project.forebay(&RUN).fails(1, &["handlers.lua", "f: a function has no form in JSON", "block 3"]);
    assert_eq!(committed(&project), (vec![1, 2], 2));
    assert_eq!(project.forebay(&["latest", "--config", "pipeline.toml"]).ok().stdout(), "{\"n\":2}\n");
}

/// An error of a handler that is caught is the handler's own affair, one that ends it is not half applied.
#[test]
fn a_failed_event_is_not_half_applied() {
    let script = "function on_event(event, ctx)\n  ctx.thing:set(\"sum\", { big = event.block })\n  ctx.thing:set(\"bad\", { big = \"x\" })\nend\n";
    let project = Project::with(PIPELINE, script, &blocks(1..=1));
    project.forebay(&RUN).fails(1, &["handlers.lua:3: thing.big: expected a bigint", "block 1"]);
    assert_eq!(project.query("p.db", "SELECT * FROM thing"), Vec::<Vec<String>>::new());
}
