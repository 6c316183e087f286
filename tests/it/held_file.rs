//! A SQLite file that another program holds, and one that may only be read.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::project::{Project, query};
use crate::support::stream::Stream;
use crate::support::{signal, wait_until};

const PIPELINE: &str = "name = \"things\"\n[source]\npath = \"events.ndjson\"\n[entities.thing]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\n[snapshots]\nevery = \"end\"\n";

const SCRIPT: &str = "function on_event(e, ctx) ctx.thing:set(tostring(ctx.block), { n = ctx.block }) end
function on_snapshot(ctx) return { rows = ctx.thing:count() } end";

fn events(blocks: std::ops::RangeInclusive<i64>) -> String {
    blocks.map(|block| format!("{{\"block\":{block},\"region\":\"r\"}}\n")).collect()
}

/// A connection as a person's editor has it, in the middle of a change.
fn hold(project: &Project) -> Connection {
    let editor = Connection::open(project.path("things.db")).expect("the database");
    editor.busy_timeout(Duration::from_secs(30)).expect("a setting");
    editor.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    editor
}

fn committed(project: &Project) -> String {
    query(&project.path("things.db"), "SELECT coalesce(max(n), 0) FROM thing").remove(0).remove(0)
}

#[test]
fn a_file_that_is_held_at_the_start_is_waited_for() {
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    let editor = hold(&project);
    let mut stream = Stream::start(&project, &["run", "pipeline.toml", "--source", "-", "--json"]);
    stream.send(&events(1..=9));
    let said = stream.says("another program holds the file (opening it); trying again for up to 300 s");
    assert!(said.contains("WARN"), "{said}");
    editor.execute_batch("COMMIT").expect("the end of the change");
    let said = stream.says("is free again");
    assert!(said.contains("INFO"), "{said}");
    assert_eq!(stream.end(&project).0.ok().json()["events"], 6);
}

#[test]
fn a_file_that_is_held_at_a_commit_is_waited_for_and_nothing_is_lost() {
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=1));
    project.run_json();
    let mut stream = Stream::start(&project, &["run", "pipeline.toml", "--source", "-", "--json"]);
    stream.send(&events(1..=3));
    wait_until(|| *committed(&project) >= *"2");
    let editor = hold(&project);
    stream.send(&events(4..=6));
    stream.says("another program holds the file (committing a batch); trying again for up to 300 s");
    editor.execute_batch("COMMIT").expect("the end of the change");
    let (outcome, _) = stream.end(&project);
    let report = outcome.ok().json();
    assert_eq!((&report["events"], &report["checkpoint"]["block"]), (&5.into(), &6.into()));
    assert!(report["commit_retries"].as_u64().expect("retries") > 0, "{report}");
    assert_eq!(committed(&project), "6");
}

#[test]
fn a_stop_ends_the_wait_for_a_held_file() {
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    let editor = hold(&project);
    let mut stream = Stream::start(&project, &["run", "pipeline.toml", "--source", "-"]);
    stream.says("another program holds the file");
    let begun = Instant::now();
    signal::send("TERM", stream.child.id());
    let (outcome, said) = stream.end(&project);
    outcome.ends_with(130);
    assert!(said.contains("stopped while waiting for sqlite:"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(editor);
    // A commit drains: the time for that is bounded apart.
    let args = ["run", "pipeline.toml", "--source", "-", "--drain-timeout", "1s"];
    let mut stream = Stream::start(&project, &args);
    stream.send(&events(4..=6));
    wait_until(|| *committed(&project) >= *"5");
    let _editor = hold(&project);
    stream.send(&events(7..=9));
    stream.says("(committing a batch)");
    signal::send("INT", stream.child.id());
    let (outcome, said) = stream.end(&project);
    outcome.ends_with(1);
    assert!(said.contains("did not commit within 1 s of the stop"), "{said}");
}

fn allow(project: &Project, name: &str, mode: u32) {
    std::fs::set_permissions(project.path(name), Permissions::from_mode(mode)).expect(name);
}

#[test]
fn a_store_that_may_only_be_read_is_read() {
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    allow(&project, "things.db", 0o444);
    let id = project.forebay(&["latest", "--config", "pipeline.toml", "--meta"]).ok().json();
    let id = id["id"].as_str().expect("an id");
    for folder in [0o555, 0o755] {
        allow(&project, "", 0o755);
        let reader = project.unprivileged();
        allow(&project, "", folder);
        for args in [
            &["latest", "--config", "pipeline.toml"][..],
            &["latest", "--snapshots", "sqlite:things.db"],
            &["history", "r", "--config", "pipeline.toml"],
            &["show", id, "--config", "pipeline.toml"],
        ] {
            assert_eq!(project.forebay_as(&reader, args).ok().stdout(), "{\"rows\":3}\n");
        }
        let status = project.forebay_as(&reader, &["status", "pipeline.toml", "--json"]).ok().json();
        assert_eq!(status["checkpoint"]["events"], 3);
        let made = |ending: &str| project.path(&format!("things.db{ending}")).exists();
        assert!(!made("-wal") && !made("-shm"), "whoever only reads leaves nothing behind");
    }
    allow(&project, "", 0o755);
    allow(&project, "things.db", 0o644);
    project.write("events.ndjson", events(1..=4));
    assert_eq!(project.run_json()["events"], 1);
}

#[test]
fn a_file_that_somebody_else_has_open_is_read_by_whoever_may_only_read() {
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=1));
    project.run_json();
    let idle = Connection::open(project.path("things.db")).expect("the database");
    let count = || idle.query_row("SELECT count(*) FROM thing", [], |row| row.get::<_, i64>(0)).expect("rows");
    assert_eq!(count(), 1);
    project.write("events.ndjson", events(1..=3));
    project.run_json();
    // The log is beside the file, and empty: what could be in it is in the file.
    assert_eq!(std::fs::metadata(project.path("things.db-wal")).expect("a log").len(), 0);
    for ending in ["", "-wal", "-shm"] {
        allow(&project, &format!("things.db{ending}"), 0o444);
    }
    allow(&project, "", 0o755);
    let reader = project.unprivileged();
    allow(&project, "", 0o555);
    let latest = project.forebay_as(&reader, &["latest", "--config", "pipeline.toml"]).ok();
    assert_eq!(latest.stdout(), "{\"rows\":3}\n");
    let status = project.forebay_as(&reader, &["status", "pipeline.toml", "--json"]).ok().json();
    assert_eq!(status["checkpoint"]["events"], 3);
    assert_eq!(count(), 3);
}

#[test]
fn a_log_that_cannot_be_read_is_told_and_not_left_out() {
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    let writer = Connection::open(project.path("things.db")).expect("the database");
    writer.execute_batch("UPDATE forebay_regions SET events = 7").expect("a change in the log");
    for ending in ["", "-wal"] {
        let copy = project.path(&format!("copy.db{ending}"));
        std::fs::copy(project.path(&format!("things.db{ending}")), copy).expect("a copy");
        allow(&project, &format!("copy.db{ending}"), 0o444);
    }
    allow(&project, "", 0o755);
    let reader = project.unprivileged();
    allow(&project, "", 0o555);
    let args = ["status", "pipeline.toml", "--json", "--store", "sqlite:copy.db"];
    let says = ["copy.db-wal holds commits that are not in the file yet", "copy both files"];
    project.forebay_as(&reader, &args).fails(1, &says);
    // Where it may be written, the log is read.
    allow(&project, "", 0o777);
    for ending in ["", "-wal"] {
        allow(&project, &format!("copy.db{ending}"), 0o666);
    }
    let status = project.forebay_as(&reader, &args).ok().json();
    assert_eq!(status["regions"][0]["events"], 7);
}
