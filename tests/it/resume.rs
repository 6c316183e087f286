//! Whatever ends a run, the next one goes on, and the end is the same.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::support::project::Project;
use crate::support::real_events::{QUAKES_PIPELINE, QUAKES_SCRIPT, data};
use crate::support::{signal, wait_until};

const STATE: &str = "SELECT * FROM total ORDER BY region, id";

fn small_batches(project: &Project) {
    project
        .write("pipeline.toml", format!("{QUAKES_PIPELINE}\n[batch]\nevents = 20\n[snapshots]\nevery = \"batch\"\n"));
}

/// The state and the newest documents that one undisturbed run comes to.
fn undisturbed(source: &str) -> (Vec<Vec<String>>, String) {
    let project = Project::with(QUAKES_PIPELINE, QUAKES_SCRIPT, "");
    project.forebay(&["run", "pipeline.toml", "--source", source]).ok();
    (project.query("quakes.db", STATE), project.forebay(&["latest", "--config", "pipeline.toml"]).ok().stdout())
}

/// A number that is different at each call and in each run of the test.
fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

crate::both_stores! {
    fn kill_9_at_random_moments_loses_and_doubles_nothing() {
        let source = crate::support::real_events::quakes("quakes.ndjson.gz");
        let answer = undisturbed(&source);
        let project = Project::with("", QUAKES_SCRIPT, "");
        small_batches(&project);
        let lines = unpacked(&source);
        let mut state = u64::from(std::process::id()) ^ 0x9e37_79b9;
        for round in 1..=25 {
            // Each run is given more than the last, and no end: it cannot be faster than we kill it.
            let mut child = project.command(&["run", "pipeline.toml", "--source", "-"]).stdin(Stdio::piped()).spawn().expect("the binary starts");
            let mut stdin = child.stdin.take().expect("stdin");
            let some = lines[..lines.len() * round / 25].concat();
            // Wait for something to happen rather than for time to pass: a number of batches that grows by itself, or
            // all that is there.
            let wanted = batches(&project) + 1 + i64::try_from(chance(&mut state) % 40).expect("small");
            let all = last_complete_block(&some);
            std::thread::scope(|scope| {
                // What is killed does not read all.
                let giving = scope.spawn(move || (stdin.write_all(some.as_bytes()).ok(), stdin));
                wait_until(|| batches(&project) >= wanted || committed_block(&project) >= all);
                child.kill().expect("it runs");
                assert_eq!(child.wait().expect("the child").code(), None, "it was killed");
                drop(giving.join());
            });
            check_prefix(&project);
        }
        project.forebay(&["run", "pipeline.toml", "--source", &source]).ok();
        assert_eq!(project.query("quakes.db", STATE), answer.0);
        assert_eq!(project.forebay(&["latest", "--config", "pipeline.toml"]).ok().stdout(), answer.1);
    }
}

/// The lines of a source, each with its end.
fn unpacked(source: &str) -> Vec<String> {
    let file = std::fs::File::open(source).expect(source);
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    lines.map(|line| line.expect(source) + "\n").collect()
}

/// The last block that is followed by another, so that it is known to be whole.
fn last_complete_block(lines: &str) -> i64 {
    let block = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["block"].as_i64();
    let mut blocks = lines.lines().rev().filter_map(block);
    let last = blocks.next().expect("a block");
    blocks.find(|block| *block < last).expect("a block before it")
}

fn batches(project: &Project) -> i64 {
    of_checkpoint(project, "batch")
}

fn committed_block(project: &Project) -> i64 {
    of_checkpoint(project, "coalesce(block, 0)")
}

/// A number of the checkpoint; 0 while there is none.
fn of_checkpoint(project: &Project, what: &str) -> i64 {
    if !has_checkpoint(project) {
        return 0;
    }
    let found = project.query("quakes.db", &format!("SELECT {what} FROM forebay_pipelines"));
    found.first().map_or(0, |row| row[0].parse().expect("a number"))
}

/// Whether the store has been made.
fn has_checkpoint(project: &Project) -> bool {
    if project.url().is_some() {
        let known = "SELECT count(*) > 0 FROM pg_class WHERE relname = '_progress'";
        return project.client().query_one(known, &[]).is_ok_and(|row| row.get(0));
    }
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(project.path("quakes.db"), flags);
    let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'total'";
    connection.is_ok_and(|open| open.query_row(sql, [], |_| Ok(())).is_ok())
}

/// The rows are those of the events up to the checkpoint, no more and no less.
fn check_prefix(project: &Project) {
    if !has_checkpoint(project) {
        return;
    }
    // In one statement: what a killed run sent last may commit while we look.
    let counts = project.query(
        "quakes.db",
        "SELECT (SELECT events FROM forebay_pipelines), (SELECT coalesce(sum(rows), 0) FROM total WHERE region = 'all'),
         (SELECT coalesce(sum(rows), 0) FROM total WHERE region <> 'all')",
    );
    assert!(counts[0].iter().all(|count| *count == counts[0][0]), "{counts:?}");
}

crate::both_stores! {
    fn a_run_that_is_stopped_by_a_signal_drains_and_goes_on() {
        for name in ["INT", "TERM"] {
            let project = Project::with("", QUAKES_SCRIPT, "");
            small_batches(&project);
            let args = ["run", "pipeline.toml", "--source", "-", "--json"];
            let mut child = project.command(&args).stdin(Stdio::piped()).spawn().expect("the binary starts");
            let mut stdin = child.stdin.take().expect("stdin");
            // An open stream: it commits what is complete, and is then stopped while it waits for more.
            for block in 1..=50 {
                writeln!(stdin, "{{\"block\":{block},\"seq\":0,\"region\":\"r\",\"id\":\"i{block}\",\"mag\":1.5,\"time\":\"2020-01-01T00:00:00Z\"}}").expect("stdin");
            }
            stdin.flush().expect("stdin");
            // SIGINT comes in the middle of it, SIGTERM when all that is complete has been committed.
            let is_ready = |block: i64| if name == "INT" { block > 0 } else { block == 49 };
            wait_until(|| {
                assert!(child.try_wait().expect("the child").is_none(), "it ended before it was stopped");
                is_ready(committed_block(&project))
            });
            signal::send(name, child.id());
            let outcome = project.finish(child, &args).ends_with(130);
            drop(stdin);
            let report = outcome.json();
            assert_eq!(report["checkpoint"]["block"], committed_block(&project), "{outcome}");
            assert!(committed_block(&project) <= 49, "the last block may go on, so it is not in\n{outcome}");
            check_prefix(&project);
            let status = project.forebay(&["status", "pipeline.toml"]).ok();
            assert!(status.stdout().contains("fresh"), "{status}");
        }
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let project = Project::with(
        "name = \"stuck\"\n[entities.thing]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\ntimeout = \"10m\"\n",
        "function on_event(event, ctx) print('begun') while true do end end",
        "{\"block\":1,\"region\":\"r\"}\n",
    );
    let args = ["run", "pipeline.toml", "--source", "events.ndjson"];
    let mut child = project.command(&args).spawn().expect("the binary starts");
    let stderr = child.stderr.take().expect("stderr");
    let mut line = String::new();
    BufReader::new(stderr).read_line(&mut line).expect("stderr");
    assert!(line.contains("begun"), "{line}");
    // The first is noted, the second ends the process; more do no harm, should the first two fall together.
    wait_until(|| {
        signal::send("INT", child.id());
        child.try_wait().expect("the child").is_some()
    });
    project.finish(child, &args).ends_with(130);
}

crate::both_stores! {
    fn a_run_with_nothing_new_writes_nothing() {
        let source = data("quakes-week.ndjson.gz");
        let project = Project::with(QUAKES_PIPELINE, QUAKES_SCRIPT, "");
        let args = ["run", "pipeline.toml", "--json", "--source", source.as_str()];
        let first = project.forebay(&args).ok().json();
        assert_eq!(first["resumed_from"], serde_json::Value::Null);
        let second = project.forebay(&args).ok().json();
        assert_eq!(second["events"], 0);
        assert_eq!(second["batches"], 0);
        assert_eq!(second["resumed_from"], first["checkpoint"]["block"]);
        assert_eq!(second["checkpoint"], first["checkpoint"]);
    }
}

crate::both_stores! {
    fn snapshots_that_a_killed_run_did_not_make_are_made_by_the_next() {
        let source = data("quakes-week.ndjson.gz");
        let project = Project::with(QUAKES_PIPELINE, QUAKES_SCRIPT, "");
        let answer = undisturbed(&source);
        // What a run leaves behind that was killed before its end: everything committed, no snapshot.
        project.forebay(&["run", "pipeline.toml", "--source", &source]).ok();
        project.execute("quakes.db", "DELETE FROM forebay_snapshots; UPDATE forebay_regions SET snapshot_block = NULL, seq = 0");
        let report = project.forebay(&["run", "pipeline.toml", "--json", "--source", &source]).ok().json();
        assert_eq!(report["events"], 0);
        assert_eq!(project.forebay(&["latest", "--config", "pipeline.toml"]).ok().stdout(), answer.1);
    }
}

crate::both_stores! {
    /// What a region of all events has missed is said; that it was there from the beginning is not.
    fn a_region_of_all_events_that_comes_late_is_told() {
        let pipeline = "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.a]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n";
        let all = format!("{pipeline}[regions]\nall = \"everywhere\"\n");
        let script = "function on_event(e, ctx) ctx.a:add('sum', { n = 1 }) end";
        let events: String = (1..=40).map(|block| format!("{{\"block\":{block},\"region\":\"r{}\"}}\n", block % 2)).collect();
        let warning = "region \"everywhere\" ([regions] all) has none of the 10 events that are committed";
        for (first, is_late) in [(pipeline, true), (all.as_str(), false)] {
            let project = Project::with(first, script, &events);
            let begun = project.forebay(&["run", "pipeline.toml", "--until", "10"]).ok();
            assert!(!begun.stderr().contains("WARN"), "{}", begun.stderr());
            project.write("pipeline.toml", &all);
            let said = project.forebay(&["run", "pipeline.toml"]).ok().stderr();
            assert_eq!(said.contains(warning), is_late, "{said}");
            let sum = project.query("p.db", "SELECT n FROM a WHERE region = 'everywhere'");
            assert_eq!(sum, [[if is_late { "30" } else { "40" }]]);
        }
    }
}
