//! Runs that go on at the end of their files, beside a writer that appends, rotates, cuts and begins files anew.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::process::Child;

use crate::support::project::{Outcome, Project};
use crate::support::{signal, wait_until};

const PIPELINE: &str = r#"
name = "count"
[source]
path = "in"
seq = "n"
[entities.seen]
columns = { events = "bigint", places = "bigint" }
[handlers]
script = "handlers.lua"
[store]
url = "sqlite:count.db"
"#;

const SCRIPT: &str = r#"
function on_event(event, ctx)
  ctx.seen:add(event.block, { events = 1, places = event.n })
end
"#;

/// A pipeline over the folder `in`, with or without places.
fn project(has_places: bool) -> Project {
    let pipeline = if has_places { PIPELINE.to_owned() } else { PIPELINE.replace("seq = \"n\"\n", "") };
    let project = Project::with(&pipeline, SCRIPT, "");
    std::fs::create_dir(project.path("in")).expect("a folder");
    project
}

fn line(block: i64, place: i64) -> String {
    format!("{{\"block\":{block},\"n\":{place},\"region\":\"r\"}}\n")
}

fn append(project: &Project, name: &str, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(project.path(name)).expect(name);
    file.write_all(text.as_bytes()).expect(name);
}

fn rename(project: &Project, from: &str, to: &str) {
    std::fs::rename(project.path(from), project.path(to)).expect(from);
}

fn cut(project: &Project, name: &str) {
    OpenOptions::new().write(true).open(project.path(name)).expect(name).set_len(0).expect(name);
}

/// What was handled: block, events, and the sum of their places.
fn seen(project: &Project) -> String {
    let status = project.forebay(&["status", "pipeline.toml", "--json"]);
    if status.code() != Some(0) {
        return String::new();
    }
    let rows = project.query("count.db", "SELECT id, events, places FROM seen ORDER BY CAST(id AS INTEGER)");
    rows.into_iter().map(|row| row.join(":")).collect::<Vec<_>>().join(" ")
}

/// A run that follows; killed if a test fails.
struct Run(Option<Child>);

impl Run {
    fn start(project: &Project, more: &[&str]) -> Self {
        let args = [&["run", "pipeline.toml", "--follow"], more].concat();
        Self(Some(project.command(&args).spawn().expect("the binary starts")))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it runs")
    }

    /// Waits until that was handled.
    #[track_caller]
    fn waits_for(&mut self, project: &Project, expected: &str) {
        wait_until(|| {
            if self.child().try_wait().expect("a child").is_some() {
                let mut said = String::new();
                let _ = self.child().stderr.take().expect("stderr").read_to_string(&mut said);
                panic!("it has ended: {said}");
            }
            seen(project) == expected
        });
    }

    fn stop(mut self, project: &Project) -> Outcome {
        signal::send("TERM", self.child().id());
        let child = self.0.take().expect("it runs");
        project.finish(child, &["run", "--follow"]).ends_with(130)
    }

    fn kill(mut self) {
        self.child().kill().expect("it runs");
        self.child().wait().expect("it ends");
        self.0 = None;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_block_is_handled_when_it_is_whole() {
    let project = project(true);
    let mut run = Run::start(&project, &[]);
    append(&project, "in/a.ndjson", &(line(1, 1) + &line(1, 2)));
    append(&project, "in/a.ndjson", &line(2, 1));
    run.waits_for(&project, "1:2:3");
    // A line without its end is none, and one that says so ends the block.
    let (begin, end) = (line(2, 2), "\n");
    append(&project, "in/a.ndjson", begin.trim_end());
    append(&project, "in/a.ndjson", &format!("{end}{{\"block\":2}}\n"));
    run.waits_for(&project, "1:2:3 2:2:3");
    append(&project, "in/a.ndjson", "{\"block\":7}\n");
    append(&project, "in/b.ndjson", &line(9, 1));
    append(&project, "in/b.ndjson", line(10, 1).trim_end());
    append(&project, "in/c.ndjson", "{\"block\":10}\n");
    run.waits_for(&project, "1:2:3 2:2:3 9:1:1 10:1:1");
    run.stop(&project);
    project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(seen(&project), "1:2:3 2:2:3 9:1:1 10:1:1");
}

#[test]
fn nothing_for_a_while_ends_a_block_too() {
    let project = project(true);
    project
        .write("pipeline.toml", PIPELINE.replace("path = \"in\"", "path = \"in\"\nfollow = true\nsettle = \"200ms\""));
    append(&project, "in/a.ndjson", &line(1, 1));
    let mut run = Run::start(&project, &[]);
    run.waits_for(&project, "1:1:1");
    append(&project, "in/a.ndjson", &line(2, 1));
    run.waits_for(&project, "1:1:1 2:1:1");
    // It was whole: more of it is late.
    append(&project, "in/a.ndjson", &line(2, 2));
    let child = run.0.take().expect("it runs");
    project.finish(child, &["run"]).fails(2, &["a.ndjson:3", "block 2", "settle", "late = \"skip\""]);
}

#[test]
fn until_ends_a_followed_run() {
    let project = project(true);
    append(&project, "in/a.ndjson", &(line(1, 1) + &line(2, 1) + "{\"block\":2}\n"));
    project.forebay(&["run", "pipeline.toml", "--follow", "--until", "2"]).ok();
    assert_eq!(seen(&project), "1:1:1 2:1:1");
}

#[test]
fn a_run_that_was_killed_goes_on() {
    let project = project(true);
    append(&project, "in/a.ndjson", &(line(1, 1) + &line(2, 1) + &line(3, 1)));
    let mut run = Run::start(&project, &[]);
    run.waits_for(&project, "1:1:1 2:1:1");
    run.kill();
    append(&project, "in/a.ndjson", &(line(3, 2) + &line(4, 1)));
    let mut run = Run::start(&project, &[]);
    run.waits_for(&project, "1:1:1 2:1:1 3:2:3");
    append(&project, "in/b.ndjson", &(line(4, 2) + &line(5, 1)));
    run.waits_for(&project, "1:1:1 2:1:1 3:2:3 4:2:3");
    run.stop(&project);
    let json = project.run_json();
    assert_eq!(json["events"].as_u64(), Some(1), "{json}");
}

#[test]
fn a_file_that_was_renamed_is_read_to_its_end_first() {
    for (source, rotated) in [("in", "in/a.ndjson.1"), ("in/a.ndjson", "in/a.old")] {
        let project = project(true);
        append(&project, "in/a.ndjson", &(line(1, 1) + &line(2, 1)));
        let mut run = Run::start(&project, &["--source", source]);
        run.waits_for(&project, "1:1:1");
        rename(&project, "in/a.ndjson", rotated);
        append(&project, "in/a.ndjson", &(line(3, 1) + &line(4, 1)));
        append(&project, rotated, &(line(2, 2)));
        run.waits_for(&project, "1:1:1 2:2:3 3:1:1");
        append(&project, "in/a.ndjson", &line(5, 1));
        run.waits_for(&project, "1:1:1 2:2:3 3:1:1 4:1:1");
        let outcome = run.stop(&project);
        assert!(!outcome.stderr().contains("WARN"), "{outcome}");
        // What is there no longer has counted, and the rest is known.
        let outcome = project.forebay(&["run", "pipeline.toml", "--source", source]).ok();
        assert!(!outcome.stderr().contains("WARN"), "{source} {outcome}");
        assert_eq!(seen(&project), "1:1:1 2:2:3 3:1:1 4:1:1 5:1:1", "{source}");
        let again = project.forebay(&["run", "pipeline.toml", "--source", source, "--json"]).ok();
        assert_eq!((again.json()["events"].as_u64(), again.json()["source_bytes_read"].as_u64()), (Some(0), Some(0)));
    }
}

#[test]
fn a_file_that_was_cut_is_read_anew() {
    for has_places in [true, false] {
        let project = project(has_places);
        append(&project, "in/a.ndjson", &(line(1, 1) + &line(2, 1) + &line(3, 1) + "{\"bl"));
        let mut run = Run::start(&project, &[]);
        run.waits_for(&project, "1:1:1 2:1:1");
        cut(&project, "in/a.ndjson");
        append(&project, "in/a.ndjson", &(line(3, 2) + &line(4, 1)));
        run.waits_for(&project, "1:1:1 2:1:1 3:2:3");
        // As a program does that writes the whole again.
        cut(&project, "in/a.ndjson");
        append(&project, "in/a.ndjson", &(line(2, 1) + &line(3, 2) + &line(4, 1) + &line(5, 1)));
        run.waits_for(&project, "1:1:1 2:1:1 3:2:3 4:1:1");
        let said = run.stop(&project).stderr();
        let says = ["without the 4 bytes of its last line", "was cut or written over", "holds block 2 again"];
        assert!(says.iter().all(|text| said.contains(text)), "{said}");
    }
}

#[test]
fn what_comes_late_ends_the_run_or_is_left_out() {
    let before = |project: &Project| append(project, "in/0.ndjson", &line(1, 1));
    let grows = |project: &Project| append(project, "in/a.ndjson", &line(2, 2));
    let cases: [(&dyn Fn(&Project), &str); 2] = [(&before, "0.ndjson"), (&grows, "a.ndjson")];
    for (happens, name) in cases {
        for is_skipped in [false, true] {
            let project = project(true);
            let late = if is_skipped { "skip" } else { "error" };
            project.write("pipeline.toml", PIPELINE.replace("seq = ", &format!("late = \"{late}\"\nseq = ")));
            append(&project, "in/a.ndjson", &(line(1, 1) + &line(2, 1)));
            append(&project, "in/b.ndjson", &(line(3, 1) + &line(4, 1)));
            let mut run = Run::start(&project, &[]);
            run.waits_for(&project, "1:1:1 2:1:1 3:1:1");
            happens(&project);
            if is_skipped {
                append(&project, "in/c.ndjson", &line(5, 1));
                run.waits_for(&project, "1:1:1 2:1:1 3:1:1 4:1:1");
                let said = run.stop(&project).stderr();
                assert!(said.contains(name) && said.contains("late = \"skip\""), "{said}");
            } else {
                let child = run.0.take().expect("it runs");
                project.finish(child, &["run"]).fails(2, &[name, "late = \"skip\" leaves it out"]);
            }
        }
    }
}
