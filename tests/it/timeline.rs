//! The pictures of a run, and files that they do not replace. That handlers and commits overlap in them is in `overlap`.

use serde_json::Value as Json;

use crate::support::distant_database;
use crate::support::project::Project;

const SCRIPT: &str = "function on_event(e, ctx) ctx.thing:set(\"x\", { n = e.n }) end";

fn pipeline(more: &str) -> String {
    format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\nregion = \"r\"\n[entities.thing]\ncolumns = {{ n = \"bigint\" }}\n\
         [handlers]\nscript = \"handlers.lua\"\n{more}"
    )
}

fn events(count: u64) -> String {
    (0..count).map(|n| format!("{{\"block\":{},\"r\":\"r0\",\"n\":{n}}}\n", n / 10)).collect()
}

#[test]
fn a_run_is_drawn_and_traced() {
    let (_proxy, store) = distant_database(5);
    let project = Project::with(&pipeline("[batch]\nevents = 100"), SCRIPT, &events(2000));
    let args = ["run", "pipeline.toml", "--json", "--store", &store, "--timeline", "run.svg", "--trace", "run.json"];
    let report = project.forebay(&args).ok().json();
    let svg = std::fs::read_to_string(project.path("run.svg")).expect("a picture");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    for part in ["prefers-color-scheme:dark", ">handlers<", ">staged<", ">commit<", "batch 2 is staged", "limited by"] {
        assert!(svg.contains(part), "{part}: {svg}");
    }
    let trace: Json =
        serde_json::from_str(&std::fs::read_to_string(project.path("run.json")).expect("a trace")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let of = |category: &str| events.iter().filter(|event| event["cat"] == category).count() as u64;
    assert_eq!(Some(of("commit")), report["batches"].as_u64(), "a bar a batch");
    assert_eq!(of("staged"), of("commit"));
    for event in events.iter().filter(|event| event["ph"] == "X") {
        assert!(event["ts"].as_f64() >= Some(0.0) && event["dur"].as_f64() > Some(0.0), "{event}");
    }
    // One after the other, nothing overlaps.
    let (_proxy, store) = distant_database(5);
    let args = ["run", "pipeline.toml", "--json", "--store", &store, "--serial", "--trace", "run.json"];
    let report = project.forebay(&args).ok().json();
    let trace: Json =
        serde_json::from_str(&std::fs::read_to_string(project.path("run.json")).expect("a trace")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let overlaps = |one: &&Json, other: &&Json| {
        let span = |event: &Json| {
            (
                event["ts"].as_f64().unwrap_or(0.0),
                event["ts"].as_f64().unwrap_or(0.0) + event["dur"].as_f64().unwrap_or(0.0),
            )
        };
        let ((a, b), (c, d)) = (span(one), span(other));
        a < d && c < b
    };
    let all = |category: &'static str| events.iter().filter(move |event| event["cat"] == category);
    assert!(!all("handlers").any(|handled| all("commit").any(|commit| overlaps(&handled, &commit))));
    assert!(report["overlap"]["speedup"].as_f64() < Some(1.05), "{report:#}");
}

#[test]
fn a_picture_that_cannot_be_written_is_refused_before_the_run() {
    let project = Project::with(&pipeline(""), SCRIPT, &events(10));
    let args = ["run", "pipeline.toml", "--timeline", "no/such/folder/run.svg"];
    project.forebay(&args).fails(2, &["--timeline", "no/such/folder/run.svg"]);
    assert!(!project.path("p.db").exists());
    let both = ["run", "pipeline.toml", "--timeline", "one.svg", "--trace", "handlers.lua"];
    project.forebay(&both).fails(2, &["--trace handlers.lua"]);
    assert!(!project.path("one.svg").exists(), "what was made for it is gone");
    let failing = Project::with(&pipeline(""), "function on_event() error(\"no\") end", &events(10));
    failing.forebay(&["run", "pipeline.toml", "--trace", "run.json"]).fails(1, &["no"]);
    assert!(!failing.path("run.json").exists(), "nothing is left of a run that failed");
    // What is there and is no picture is not written over, also if it is there only after the run.
    let project = Project::with(&pipeline(""), SCRIPT, &events(10));
    project
        .forebay(&["run", "pipeline.toml", "--timeline", "handlers.lua"])
        .fails(2, &["--timeline handlers.lua", "left as it is"]);
    project.forebay(&["run", "pipeline.toml", "--trace", "events.ndjson"]).fails(2, &["--trace events.ndjson"]);
    project
        .forebay(&["run", "pipeline.toml", "--trace", "one", "--timeline", "./one"])
        .fails(2, &["expected two files"]);
    let store = ["run", "pipeline.toml", "--store", "sqlite:x.db", "--timeline", "x.db"];
    project.forebay(&store).fails(1, &["left as it is", "all of the run is committed"]);
    assert_eq!(project.query("x.db", "SELECT id FROM thing"), [["x"]]);
    // One of ours is.
    let args = ["run", "pipeline.toml", "--store", "sqlite:y.db", "--timeline", "y.svg", "--trace", "y.json"];
    project.forebay(&args).ok();
    project.forebay(&args).ok();
}
