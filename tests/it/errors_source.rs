//! Sources that are wrong: exit code 2, the file and the line, and what was expected there.

use std::io::Write;
use std::process::Stdio;

use crate::support::cases::{PIPELINE, SCRIPT, assert_none, blocks, complaint, complaint_untouched, replaced};
use crate::support::project::Project;
use crate::support::real_events::data;

const RUN: [&str; 2] = ["run", "pipeline.toml"];

/// Handlers that read the field `n` of each event.
const READS_N: &str =
    "function on_event(event, ctx)\n  local n = event.n\n  ctx.thing:set(event.block, { big = 1 })\nend\n";

/// Name, the third line, what is said.
const LINES: &[(&str, &str, &[&str])] = &[
    ("not JSON", "nope", &["expected a JSON object", "column 2"]),
    ("cut off", r#"{"block":3,"region":"r""#, &["expected a JSON object", "breaks off at column"]),
    ("a list", r#"[3,"r"]"#, &["expected a JSON object"]),
    ("a number", "17", &["expected a JSON object, got a number"]),
    ("a text", r#""x""#, &["expected a JSON object"]),
    ("null", "null", &["expected a JSON object"]),
    ("two on a line", r#"{"block":3,"region":"r"}{"block":4,"region":"r"}"#, &["column 25", "trailing characters"]),
    ("a comma too many", r#"{"block":3,"region":"r",}"#, &["column 25", "trailing comma"]),
    ("NaN", r#"{"block":3,"region":"r","n":NaN}"#, &["expected a JSON object", "column 29"]),
    ("a broken escape", r#"{"block":3,"region":"r","n":"\q"}"#, &["invalid escape", "column 31"]),
    ("a control character", "{\"block\":3,\"region\":\"r\",\"n\":\"a\u{1}\"}", &["control character"]),
    ("no block", r#"{"region":"r"}"#, &["field \"block\" is missing", "integer of 64 bits"]),
    (
        "block a text",
        r#"{"block":"x","region":"r"}"#,
        &["field \"block\": expected an integer of 64 bits", "got \"x\""],
    ),
    ("block a float", r#"{"block":3.5,"region":"r"}"#, &["field \"block\": expected an integer of 64 bits", "got 3.5"]),
    ("block with an exponent", r#"{"block":3e-1,"region":"r"}"#, &["field \"block\"", "got 3e-1"]),
    (
        "block past 64 bits",
        r#"{"block":9223372036854775808,"region":"r"}"#,
        &["field \"block\"", "got 9223372036854775808"],
    ),
    ("block null", r#"{"block":null,"region":"r"}"#, &["field \"block\"", "got null"]),
    ("block a boolean", r#"{"block":true,"region":"r"}"#, &["field \"block\"", "got true"]),
    ("block a list", r#"{"block":[3],"region":"r"}"#, &["field \"block\"", "got [3]"]),
    ("no region", r#"{"block":3,"n":1}"#, &["field \"region\" is missing", "name of a region"]),
    ("region null", r#"{"block":3,"region":null}"#, &["field \"region\"", "name of a region", "got null"]),
    ("region empty", r#"{"block":3,"region":""}"#, &["field \"region\"", "not empty"]),
    ("region a boolean", r#"{"block":3,"region":false}"#, &["field \"region\"", "got false"]),
    ("region an object", r#"{"block":3,"region":{"a":1}}"#, &["field \"region\"", "got {\"a\":1}"]),
    ("region a float", r#"{"block":3,"region":1.5}"#, &["field \"region\"", "got 1.5"]),
    ("region with a NUL", r#"{"block":3,"region":"a\u0000"}"#, &["field \"region\""]),
    ("region not in ids", r#"{"block":3,"region":"x"}"#, &["region \"x\" is not in [regions] ids", "r, s"]),
    (
        "block goes back",
        r#"{"block":1,"region":"r"}"#,
        &["block 1 comes after block 2", "must not decrease", "late = \"skip\""],
    ),
];

#[test]
fn a_wrong_line_is_named() {
    assert_none(LINES.iter().map(|(name, line, says)| {
        let project = Project::with(PIPELINE, SCRIPT, &format!("{}{line}\n{}", blocks(1..=2), blocks(4..=5)));
        let outcome = project.forebay(&RUN);
        let late = project.query("p.db", "SELECT 1 FROM thing WHERE CAST(id AS INTEGER) > 2");
        assert!(late.is_empty(), "{name}: events behind the wrong line are committed\n{outcome}");
        complaint(name, &outcome, 2, &[&["events.ndjson:3:"], *says].concat())
    }));
}

/// As [`LINES`], with `seq = "seq"`; the second line has block 2 and seq 5.
const SEQS: &[(&str, &str, &[&str])] = &[
    ("repeats", r#"{"block":2,"region":"r","seq":5}"#, &["place 5 of block 2 comes after place 5", "must grow"]),
    (
        "goes back",
        r#"{"block":2,"region":"r","seq":4}"#,
        &["place 4 of block 2 comes after place 5", "late = \"skip\""],
    ),
    ("missing", r#"{"block":3,"region":"r"}"#, &["field \"seq\" is missing"]),
    (
        "a text",
        r#"{"block":3,"region":"r","seq":"a"}"#,
        &["field \"seq\": expected an integer of 64 bits", "got \"a\""],
    ),
    ("a float", r#"{"block":3,"region":"r","seq":6.5}"#, &["field \"seq\"", "got 6.5"]),
    ("null", r#"{"block":3,"region":"r","seq":null}"#, &["field \"seq\"", "got null"]),
];

#[test]
fn a_wrong_place_within_a_block_is_named() {
    let pipeline = replaced(PIPELINE, "path =", "seq = \"seq\"\npath =");
    let before = "{\"block\":1,\"region\":\"r\",\"seq\":9}\n{\"block\":2,\"region\":\"r\",\"seq\":5}\n";
    assert_none(SEQS.iter().map(|(name, line, says)| {
        let project = Project::with(&pipeline, SCRIPT, &format!("{before}{line}\n"));
        complaint(name, &project.forebay(&RUN), 2, &[&["events.ndjson:3:"], *says].concat())
    }));
}

/// Values that only who reads the field can refuse: name, the JSON of the field `n`, what is said.
const FIELDS: &[(&str, &str, &[&str])] = &[
    ("out of range", "1e200000", &["1e200000", "out of range"]),
    ("out of range in a list", "[1,[1e-200000]]", &["1e-200000", "out of range"]),
];

/// Whether it is the first event that is handled or one of many must make no difference.
#[test]
fn a_field_that_cannot_be_read_is_named() {
    assert_none(FIELDS.iter().flat_map(|(name, json, says)| {
        [0, 1, 3000].map(|good| {
            let first: String =
                (1..=good).map(|block| format!("{{\"block\":{block},\"region\":\"r\",\"n\":1}}\n")).collect();
            let bad = good + 1;
            let events = format!("{first}{{\"block\":{bad},\"region\":\"r\",\"n\":{json}}}\n{}", blocks([bad + 1]));
            let project = Project::with(PIPELINE, READS_N, &events);
            let line = format!("events.ndjson:{bad}:");
            let says = [&[line.as_str(), "\"n\""], *says].concat();
            complaint(&format!("{name} after {good} events"), &project.forebay(&RUN), 2, &says)
        })
    }));
}

/// A handler that does not look at a value cannot fail because of it, wherever the event stands.
#[test]
fn a_field_that_is_not_read_is_not_refused() {
    let script = "function on_event(event, ctx)\n  if event.look then local n = event.n end\n  ctx.thing:set(event.block, { big = 1 })\nend\n";
    assert_none([1, 3000].map(|good: i64| {
        let first: String =
            (1..=good).map(|block| format!("{{\"block\":{block},\"region\":\"r\",\"look\":true,\"n\":1}}\n")).collect();
        let project = Project::with(
            PIPELINE,
            script,
            &format!("{first}{{\"block\":{},\"region\":\"r\",\"n\":1e200000}}\n", good + 1),
        );
        complaint(&format!("after {good} events"), &project.forebay(&RUN), 0, &[])
    }));
}

/// A field that is nested so deep that reading it level by level would need more stack than there is.
#[test]
fn a_deeply_nested_field_does_not_end_the_program() {
    assert_none([10_000, 100_000].map(|depth| {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let events = format!("{{\"block\":1,\"region\":\"r\",\"n\":{nested}}}\n");
        let project = Project::with(PIPELINE, READS_N, &events);
        complaint(&format!("{depth} levels"), &project.forebay(&RUN), 2, &["events.ndjson:1:", "\"n\"", "deep"])
    }));
}

/// Files whose bytes are wrong: name, content, what is said.
const BYTES: &[(&str, &[u8], &[&str])] = &[
    (
        "not UTF-8",
        b"{\"block\":1,\"region\":\"r\"}\n{\"block\":2,\"region\":\"\xff\"}\n",
        &["events.ndjson:2:", "not UTF-8", "byte 22"],
    ),
    (
        "gzip of garbage",
        b"\x1f\x8b\x08\x00\0\0\0\0\0\x03garbage garbage garbage",
        &["events.ndjson:1:", "compressed file is damaged"],
    ),
    ("gzip without a body", b"\x1f\x8b", &["events.ndjson:1:", "compressed file is damaged"]),
    (
        "zstd of garbage",
        b"\x28\xb5\x2f\xfdgarbage garbage garbage",
        &["events.ndjson:1:", "compressed file is damaged"],
    ),
    ("binary", b"\x00\xff\x00\xff\n", &["events.ndjson:1:", "not UTF-8"]),
];

#[test]
fn wrong_bytes_are_named() {
    assert_none(BYTES.iter().map(|(name, bytes, says)| {
        let project = Project::with(PIPELINE, SCRIPT, "");
        project.write("events.ndjson", bytes);
        complaint(name, &project.forebay(&RUN), 2, says)
    }));
}

#[test]
fn a_compressed_file_that_breaks_off_is_not_taken_for_whole() {
    let pipeline = replaced(PIPELINE, "ids = [\"r\", \"s\"]", "all = \"all\"");
    let whole = std::fs::read(data("quakes-week.ndjson.gz")).expect("the data");
    // In the middle of the data, within the checksum, and right behind the last byte of the data.
    assert_none([whole.len() / 2, whole.len() - 4, whole.len() - 8].map(|len| {
        let project = Project::with(&pipeline, SCRIPT, "");
        project.write("events.ndjson", &whole[..len]);
        let says = ["events.ndjson:", "compressed file is damaged or breaks off"];
        complaint(&format!("{len} of {} bytes", whole.len()), &project.forebay(&RUN), 2, &says)
    }));
}

/// Paths that name no source: name, path, what is said.
const PATHS: &[(&str, &str, &[&str])] = &[
    ("a missing file", "no/such.ndjson", &["no/such.ndjson", "there is no such file"]),
    ("no path", "", &["source", "no such file"]),
    ("below a file", "handlers.lua/x", &["handlers.lua/x"]),
    ("a folder without events", "empty", &["source empty", "the folder holds no file", ".ndjson"]),
    ("a pattern without a match", "*.nope", &["source *.nope", "the pattern matches no"]),
    ("a broken pattern", "[.ndjson", &["source [.ndjson", "pattern is not understood"]),
];

#[test]
fn a_path_without_a_source_makes_nothing() {
    assert_none(PATHS.iter().map(|(name, path, says)| {
        let project = Project::with(PIPELINE, SCRIPT, "");
        std::fs::create_dir(project.path("empty")).expect("a folder");
        project.write("empty/readme.txt", "nothing");
        let outcome = project.forebay(&["run", "pipeline.toml", "--source", path]);
        complaint_untouched(name, &project, &outcome, says)
    }));
    let project = Project::with(&replaced(PIPELINE, "path = \"events.ndjson\"\n", ""), SCRIPT, "");
    project.forebay(&RUN).fails(2, &["no source", "[source] path", "--source"]);
}

#[test]
fn standard_input_is_named_as_such() {
    let project = Project::with(PIPELINE, SCRIPT, "");
    let events = format!("{}nope\n", blocks(1..=2));
    project
        .forebay_with_input(&["run", "pipeline.toml", "--source", "-"], &events)
        .fails(2, &["stdin:3:", "JSON object"]);
}

/// A block is never split, however large: one that is larger than the read-ahead must not wait for itself.
#[test]
fn a_block_larger_than_the_read_ahead_is_handled() {
    let pipeline = replaced(PIPELINE, "events = 1", "memory = \"16MiB\"");
    let padding = "x".repeat(200);
    let event = |at: u32| format!("{{\"block\":1,\"region\":\"r\",\"at\":{at},\"padding\":\"{padding}\"}}\n");
    let script = "function on_event(event, ctx) ctx.thing:set(event.at, { big = 1 }) end\n";
    let project = Project::with(&pipeline, script, &(0..20_000).map(event).collect::<String>());
    project.forebay(&["run", "pipeline.toml", "--quiet"]).ok();
    assert_eq!(project.query("p.db", "SELECT count(*) FROM thing"), [["20000"]]);
}

/// A key that no index takes must not get as far as a batch.
#[test]
fn a_region_with_a_name_that_no_index_takes_is_refused() {
    let line = |bytes: usize| format!("{{\"block\":1,\"region\":\"{}\"}}\n", "x".repeat(bytes));
    let pipeline = "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[handlers]\nscript = \"handlers.lua\"\n";
    let project = Project::with(pipeline, "function on_event() end", &line(512));
    project.forebay(&["run", "pipeline.toml"]).ok();
    project.write("events.ndjson", line(513));
    let says = ["events.ndjson:1", "field \"region\": a region's name of 513 bytes; expected at most 512"];
    project.forebay(&["run", "pipeline.toml", "--store", "sqlite:other.db"]).fails(2, &says);
}

/// What never ends a line, or never ends, is left at a bound.
#[test]
fn what_does_not_end_is_left_and_named() {
    let project = Project::with(PIPELINE, SCRIPT, "");
    for command in ["check", "run"] {
        let says = ["/dev/zero:1: the line is longer than 64 MiB; expected one event a line"];
        project.forebay(&[command, "pipeline.toml", "--source", "/dev/zero"]).fails(2, &says);
        let args = [command, "pipeline.toml", "--source", "-"];
        let mut child = project.command(&args).stdin(Stdio::piped()).spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("stdin");
        let endless = std::thread::spawn(move || {
            let piece = vec![b'x'; 1 << 20];
            stdin.write_all(format!("{}{{\"block\":3,", blocks(1..=2)).as_bytes()).expect("stdin");
            while stdin.write_all(&piece).is_ok() {}
        });
        project.finish(child, &args).fails(2, &["stdin:3: the line is longer than 64 MiB"]);
        endless.join().expect("the writer");
        project
            .forebay(&[command, "/dev/zero"])
            .fails(2, &["/dev/zero: it has more than 16 MiB; expected a pipeline file"]);
    }
    project.write("handlers.lua", " ".repeat((16 << 20) + 1));
    project.forebay(&RUN).fails(2, &["handlers.lua: the script cannot be read: it has more than 16 MiB"]);
}
