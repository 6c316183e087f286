//! Command lines that are wrong, and questions about what is not there.

use crate::support::cases::{PIPELINE, SCRIPT, assert_none, blocks, complaint, databases};
use crate::support::project::Project;

/// Arguments, the exit code, what is said.
type Case = (&'static [&'static str], i32, &'static [&'static str]);

/// In a project that has never run.
const BEFORE: &[Case] = &[
    (&[], 2, &["Usage: forebay", "Commands:"]),
    (&["runn"], 2, &["'runn'", "'run'"]),
    (&["run"], 2, &["<PIPELINE>"]),
    (&["run", "pipeline.toml", "more"], 2, &["'more'"]),
    (&["run", "pipeline.toml", "--untill", "3"], 2, &["'--untill'", "'--until'"]),
    (&["run", "pipeline.toml", "--until"], 2, &["--until <BLOCK>", "value is required"]),
    (&["run", "pipeline.toml", "--until", "abc"], 2, &["'abc'", "--until <BLOCK>"]),
    (&["run", "pipeline.toml", "--until", "1.5"], 2, &["'1.5'", "--until <BLOCK>"]),
    (&["run", "pipeline.toml", "--until", "9223372036854775808"], 2, &["--until <BLOCK>", "too large"]),
    (&["run", "pipeline.toml", "--drain-timeout", "soon"], 2, &["--drain-timeout", "such as \"500ms\"", "\"soon\""]),
    (&["run", "pipeline.toml", "--drain-timeout", "10"], 2, &["--drain-timeout", "such as \"500ms\""]),
    (&["run", "pipeline.toml", "--log-format", "xml"], 2, &["'xml'", "text, json"]),
    (&["run", "pipeline.toml", "--color", "pink"], 2, &["'pink'", "auto, always, never"]),
    (&["run", "pipeline.toml", "--store", "p.db"], 2, &["store", "sqlite:events.db"]),
    (&["run", "pipeline.toml", "--store", "sqlite:"], 2, &["--store", "expected a file, such as sqlite:events.db"]),
    (
        &["run", "pipeline.toml", "--store", "sqlite:no/such/p.db"],
        1,
        &["sqlite:no/such/p.db", "there is no folder no/such"],
    ),
    (&["run", "pipeline.toml", "--store", "sqlite:."], 1, &["sqlite:.", "it is a folder"]),
    (&["run", "pipeline.toml", "--store", "sqlite:handlers.lua"], 1, &["sqlite:handlers.lua", "not a database"]),
    (&["check"], 2, &["<PIPELINE>"]),
    (&["check", "pipeline.toml", "--source", "nope"], 2, &["source nope", "there is no such file"]),
    (&["init"], 2, &["<DIR>"]),
    (&["init", "."], 2, &["pipeline.toml is there already"]),
    (&["init", "handlers.lua"], 1, &["cannot make handlers.lua"]),
    (&["latest"], 2, &["--config PIPELINE.toml", "--snapshots URL"]),
    (&["latest", "--config", "nope.toml"], 2, &["nope.toml: there is no such file"]),
    (&["latest", "--config", "pipeline.toml", "--pipeline", "p"], 2, &["--config", "--pipeline"]),
    (&["latest", "--config", "pipeline.toml", "--table", "--json"], 2, &["--table", "--json"]),
    (&["latest", "--config", "pipeline.toml"], 1, &["there is no sqlite:", "p.db", "forebay run"]),
    (&["latest", "--snapshots", "sqlite:nope.db"], 1, &["there is no sqlite:nope.db"]),
    (
        &["latest", "--snapshots", "http://h"],
        2,
        &["--snapshots", "sqlite:events.db", "expected a store such as sqlite:events.db"],
    ),
    (&["latest", "--snapshots", "sqlite:handlers.lua"], 1, &["sqlite:handlers.lua", "not a database"]),
    (&["history"], 2, &["<REGION>"]),
    (&["history", "r"], 2, &["--config PIPELINE.toml", "--snapshots URL"]),
    (
        &["history", "r", "--config", "pipeline.toml", "--since", "garbage"],
        2,
        &["--since", "such as 2026-01-31T12:00:00Z", "\"garbage\""],
    ),
    (&["history", "r", "--config", "pipeline.toml", "--since", "99999999999d"], 2, &["--since", "\"99999999999d\""]),
    (&["history", "r", "--config", "pipeline.toml", "--limit", "many"], 2, &["--limit <N>", "'many'"]),
    (&["show"], 2, &["<ID>"]),
    (&["show", "x"], 2, &["--config PIPELINE.toml", "--snapshots URL"]),
    (&["status"], 2, &["<PIPELINE>"]),
    (&["status", "pipeline.toml"], 1, &["there is no sqlite:", "p.db", "forebay run"]),
    (&["completions", "nosh"], 2, &["'nosh'", "bash"]),
    (&["man"], 2, &["<DIR>"]),
    (&["man", "handlers.lua"], 2, &["handlers.lua/forebay.1", "choose another folder"]),
];

#[test]
fn a_wrong_command_line_makes_nothing() {
    let script = format!("{SCRIPT}function on_snapshot(ctx) return {{ n = ctx.thing:count() }} end\n");
    let project = Project::with(PIPELINE, &script, &blocks(1..=3));
    assert_none(
        BEFORE.iter().map(|(args, code, says)| complaint(&args.join(" "), &project.forebay(args), *code, says)),
    );
    assert_eq!(databases(&project), Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(project.path("handlers.lua")).expect("the script"), script);
    assert_eq!(std::fs::read_to_string(project.path("pipeline.toml")).expect("the pipeline file"), PIPELINE);
}

/// In a project that has run.
const AFTER: &[Case] = &[
    (&["latest", "zz", "--config", "pipeline.toml"], 1, &["no snapshot of zz in pipeline p"]),
    (&["latest", "r", "y", "z", "--config", "pipeline.toml"], 1, &["no snapshot of y, z in pipeline p"]),
    (&["latest", "--snapshots", "sqlite:p.db", "--pipeline", "zz"], 1, &["no pipeline zz; it has p"]),
    (&["history", "zz", "--config", "pipeline.toml"], 1, &["no snapshot of zz in pipeline p"]),
    (
        &["show", "r.9.0123456789abcdef", "--config", "pipeline.toml"],
        1,
        &["no snapshot with the id r.9.0123456789abcdef"],
    ),
    (&["show", "", "--config", "pipeline.toml"], 1, &["no snapshot with the id"]),
];

#[test]
fn what_is_not_in_the_store_is_said() {
    let script = format!("{SCRIPT}function on_snapshot(ctx) return {{ n = ctx.thing:count() }} end\n");
    let project = Project::with(PIPELINE, &script, &blocks(1..=3));
    project.forebay(&["run", "pipeline.toml"]).ok();
    assert_none(AFTER.iter().map(|(args, code, says)| complaint(&args.join(" "), &project.forebay(args), *code, says)));
    // What is there is printed all the same.
    assert_eq!(project.forebay(&["latest", "r", "zz", "--config", "pipeline.toml"]).stdout(), "{\"n\":3}\n");
}

#[test]
fn init_overwrites_nothing() {
    for name in ["pipeline.toml", "handlers.lua", "events.ndjson"] {
        let project = Project::new();
        project.write(name, "mine");
        project.forebay(&["init", "."]).fails(2, &[name, "is there already"]);
        assert_eq!(std::fs::read_to_string(project.path(name)).expect(name), "mine");
        assert_eq!(std::fs::read_dir(project.path("")).expect("the folder").count(), 1, "only {name} is there");
    }
}

/// A table that is there already and has other columns is not written to.
#[test]
fn a_table_with_other_columns_is_left_alone() {
    let project = Project::with(PIPELINE, SCRIPT, &blocks(1..=3));
    project.forebay(&["run", "pipeline.toml"]).ok();
    let before = project.query("p.db", "SELECT * FROM thing ORDER BY id");
    project.write("pipeline.toml", crate::support::cases::replaced(PIPELINE, "big = \"bigint\"", "big = \"text\""));
    project.write("events.ndjson", blocks(1..=4));
    project.forebay(&["run", "pipeline.toml"]).fails(2, &["thing", "big"]);
    assert_eq!(project.query("p.db", "SELECT * FROM thing ORDER BY id"), before);
}
