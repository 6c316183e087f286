//! What an error leaves behind: whole batches that were committed before it, and nothing half done.

use crate::support::cases::{PIPELINE, SCRIPT, blocks, replaced};
use crate::support::project::Project;

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
