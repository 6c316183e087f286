//! Where events may come from, and in what shapes.

use std::io::Write;

use crate::support::project::Project;

const PIPELINE: &str = r#"
name = "count"
[source]
path = "events.ndjson"
[entities.seen]
columns = { events = "bigint", blocks = "bigint", first = "bigint", last = "bigint" }
[handlers]
script = "handlers.lua"
[store]
url = "sqlite:count.db"
"#;

const SCRIPT: &str = r#"
function on_event(event, ctx)
  local s = ctx.seen:get("s") or { events = 0, blocks = 0, first = ctx.block }
  s.events = s.events + 1
  if s.last ~= ctx.block then s.blocks, s.last = s.blocks + 1, ctx.block end
  ctx.seen:set("s", s)
end
"#;

fn project(events: &str) -> Project {
    Project::with(PIPELINE, SCRIPT, events)
}

fn line(block: i64, region: &str) -> String {
    format!("{{\"block\":{block},\"region\":\"{region}\"}}\n")
}

fn seen(project: &Project) -> Vec<String> {
    let rows = project.query("count.db", "SELECT region, events, blocks, first, last FROM seen ORDER BY region");
    rows.into_iter().map(|row| row.join(" ")).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("gzip");
    encoder.finish().expect("gzip")
}

#[test]
fn files_plain_and_compressed_whatever_their_names() {
    let text = line(1, "a") + &line(2, "a");
    let two_members = [gzip(&line(1, "a")), gzip(&line(2, "a"))].concat();
    let zstd = zstd::encode_all(text.as_bytes(), 1).expect("zstd");
    let forms: [(&str, Vec<u8>); 5] = [
        ("plain.ndjson", text.clone().into_bytes()),
        ("events.ndjson.gz", gzip(&text)),
        ("members.gz", two_members),
        ("events.ndjson.zst", zstd.clone()),
        ("no-ending", zstd),
    ];
    for (name, bytes) in forms {
        let project = project("");
        project.write(name, bytes);
        project.forebay(&["run", "pipeline.toml", "--source", name]).ok();
        assert_eq!(seen(&project), ["a 2 2 1 2"], "{name}");
    }
}

#[test]
fn folders_patterns_and_standard_input() {
    let project = project("");
    std::fs::create_dir(project.path("in")).expect("folder");
    project.write("in/b.jsonl", line(2, "a") + &line(3, "a"));
    project.write("in/a.ndjson", line(1, "a") + &line(2, "a"));
    project.write("in/c.ndjson.gz", gzip(&line(4, "b")));
    project.write("in/notes.txt", "not events");
    for source in ["in", "in/*json*"] {
        let store = format!("sqlite:{}.db", source.len());
        project.forebay(&["run", "pipeline.toml", "--source", source, "--store", &store]).ok();
        let database = format!("{}.db", source.len());
        let rows = project.query(&database, "SELECT region, events, blocks FROM seen ORDER BY region");
        assert_eq!(rows, [["a", "4", "3"], ["b", "1", "1"]], "{source}");
    }
    project.forebay_with_input(&["run", "pipeline.toml", "--source", "-"], &(line(1, "x") + &line(5, "x"))).ok();
    assert_eq!(seen(&project), ["x 2 2 1 5"]);
}

#[test]
fn blank_lines_windows_line_ends_a_mark_and_no_last_newline() {
    let project = project("\u{feff}{\"block\":1,\"region\":\"a\"}\r\n\n   \n{\"block\":2,\"region\":\"a\"}");
    project.run_json();
    assert_eq!(seen(&project), ["a 2 2 1 2"]);
}

#[test]
fn negative_blocks_gaps_and_the_ends_of_64_bits() {
    // There is a block before each, to which a rollback can go.
    let first = i64::MIN + 1;
    let blocks = [first, -7, -1, 0, 3, 1_000_000, i64::MAX];
    let ends = project(&blocks.map(|block| line(block, "a")).concat());
    let report = ends.run_json();
    assert_eq!(report["checkpoint"]["block"], i64::MAX);
    assert_eq!(seen(&ends), [format!("a 7 7 {first} {}", i64::MAX)]);
    let again = ends.run_json();
    assert_eq!((&again["events"], &again["resumed_from"]), (&0.into(), &i64::MAX.into()));
    let refused = project(&line(i64::MIN, "a"));
    refused
        .forebay(&["run", "pipeline.toml"])
        .fails(2, &["events.ndjson:1", "expected a block of -9223372036854775807 or more"]);
}

#[test]
fn one_block_of_100_000_events_is_one_batch() {
    let project = project(&(line(7, "a").repeat(60_000) + &line(7, "b").repeat(40_000)));
    let report = project.run_json();
    assert_eq!((&report["batches"], &report["blocks"]), (&1.into(), &1.into()));
    assert_eq!(seen(&project), ["a 60000 1 7 7", "b 40000 1 7 7"]);
}

#[test]
fn one_event_per_block() {
    let events: String = (0..50_000).map(|block| line(block, ["a", "b", "c"][block as usize % 3])).collect();
    let project = project(&events);
    let report = project.run_json();
    assert_eq!((&report["events"], &report["blocks"]), (&50_000.into(), &50_000.into()));
    assert_eq!(seen(&project), ["a 16667 16667 0 49998", "b 16667 16667 1 49999", "c 16666 16666 2 49997"]);
}

#[test]
fn an_empty_source_is_no_error() {
    let project = project("");
    let report = project.run_json();
    assert_eq!((&report["events"], &report["checkpoint"]["block"]), (&0.into(), &serde_json::Value::Null));
}

#[test]
fn until_stops_after_its_block_and_the_next_run_goes_on() {
    let project = project(&(1..=9).map(|block| line(block, "a")).collect::<String>());
    let report = project.forebay(&["run", "pipeline.toml", "--json", "--until", "4"]).ok().json();
    assert_eq!((&report["events"], &report["checkpoint"]["block"]), (&4.into(), &4.into()));
    let report = project.run_json();
    assert_eq!((&report["events"], &report["resumed_from"]), (&5.into(), &4.into()));
    assert_eq!(seen(&project), ["a 9 9 1 9"]);
    let before = project.forebay(&["run", "pipeline.toml", "--json", "--until", "-3"]).ok().json();
    assert_eq!(before["events"], 0);
}

#[test]
fn a_source_that_has_grown_goes_on_and_a_block_that_has_grown_is_refused() {
    let project = project(&(line(1, "a") + &line(2, "a")));
    project.run_json();
    project.write("events.ndjson", line(1, "a") + &line(2, "a") + &line(3, "a"));
    assert_eq!(project.run_json()["events"], 1);
    project.write("events.ndjson", line(1, "a") + &line(2, "a") + &line(3, "a") + &line(3, "a"));
    project
        .forebay(&["run", "pipeline.toml"])
        .fails(2, &["events.ndjson:4:", "block 3 was committed with 1 of its events"]);
    assert_eq!(seen(&project), ["a 3 3 1 3"]);
}

#[test]
fn late_events_are_left_out_and_counted_where_that_is_asked_for() {
    let project = project(&(line(1, "a") + &line(3, "a") + &line(2, "a") + &line(3, "a") + &line(4, "a")));
    project.forebay(&["run", "pipeline.toml"]).fails(2, &["events.ndjson:3:", "block 2 comes after block 3"]);
    project.write("pipeline.toml", PIPELINE.replace("[entities", "late = \"skip\"\n[entities"));
    let report = project.run_json();
    // Without places nothing says whether the second event of block 3 is a new one.
    assert_eq!((&report["events"], &report["late_skipped"]), (&3.into(), &2.into()));
}

#[test]
fn with_seq_an_event_that_is_delivered_again_is_late() {
    let event = |block: i64, seq: i64| format!("{{\"block\":{block},\"region\":\"a\",\"n\":{seq}}}\n");
    let project = project(&(event(1, 0) + &event(1, 1) + &event(1, 1) + &event(2, 0)));
    let pipeline = PIPELINE.replace("[entities", "seq = \"n\"\n[entities");
    project.write("pipeline.toml", &pipeline);
    project
        .forebay(&["run", "pipeline.toml"])
        .fails(2, &["events.ndjson:3:", "place 1 of block 1 comes after place 1"]);
    project.write("pipeline.toml", pipeline.replace("seq =", "late = \"skip\"\nseq ="));
    let report = project.run_json();
    assert_eq!((&report["events"], &report["late_skipped"]), (&3.into(), &1.into()));
}

#[test]
fn other_field_names_and_regions_that_are_numbers() {
    let project = project("{\"height\":1,\"chain\":10}\n{\"height\":2,\"chain\":\"Ü \\\"x\\\"\"}\n");
    project.write("pipeline.toml", PIPELINE.replace("[entities", "block = \"height\"\nregion = \"chain\"\n[entities"));
    project.run_json();
    assert_eq!(seen(&project), ["10 1 1 1 1", "Ü \"x\" 1 1 2 2"]);
}

#[test]
fn a_region_for_all_gets_every_event_once() {
    let project = project(&(line(1, "a") + &line(1, "global") + &line(2, "b")));
    project.write("pipeline.toml", PIPELINE.replace("[entities", "[regions]\nall = \"global\"\n[entities"));
    let report = project.run_json();
    assert_eq!(report["events"], 3);
    assert_eq!(seen(&project), ["a 1 1 1 1", "b 1 1 2 2", "global 3 2 1 2"]);
}

/// A block that does not fit in the read-ahead, with a line that does not fit either: neither waits for the other.
#[test]
fn a_block_and_a_line_larger_than_the_read_ahead() {
    let filler = |bytes: usize| format!("{{\"block\":7,\"region\":\"a\",\"x\":\"{}\"}}\n", "x".repeat(bytes));
    let events = line(7, "a") + &filler(3 << 20) + &filler(1000).repeat(3000) + &filler(5 << 20) + &line(8, "a");
    let project = project(&events);
    project.write("pipeline.toml", format!("{PIPELINE}[batch]\nmemory = \"16MiB\"\n"));
    project.forebay(&["check", "pipeline.toml"]).ok();
    project.run_json();
    assert_eq!(seen(&project), ["a 3004 2 7 8"]);
}

/// A block that is taken in parts and ends its batch, with the end of the source right behind it: nothing is left out.
#[test]
fn the_last_block_is_not_lost_behind_one_that_ends_a_batch() {
    let padded = |block: i64, bytes: usize| {
        let head = format!("{{\"block\":{block},\"region\":\"a\",\"x\":\"");
        format!("{head}{}\"}}\n", "x".repeat(bytes - head.len() - 2))
    };
    // 256 events of 1 KiB fill a page; the next event does not fit beside them.
    let events = padded(1, 1024).repeat(256) + &padded(2, 900_000);
    let project = project(&events);
    let script = format!("{SCRIPT}function on_snapshot(ctx) return ctx.seen:get(\"s\") end");
    project.write("handlers.lua", script);
    project
        .write("pipeline.toml", format!("{PIPELINE}[batch]\nmemory = \"16MiB\"\n[snapshots]\nevery = \"1 blocks\"\n"));
    for _ in 0..40 {
        let _ = std::fs::remove_file(project.path("count.db"));
        assert_eq!(project.run_json()["checkpoint"]["block"], 2);
        assert_eq!(seen(&project), ["a 257 2 1 2"]);
    }
}
