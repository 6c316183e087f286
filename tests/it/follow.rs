//! Runs that go on at the end of their files, beside a writer that appends, rotates, cuts and begins files anew.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::process::{Child, Stdio};

use crate::support::dice::Dice;
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

    /// Stops it, also before it listens.
    fn asks_to_stop(mut self) {
        signal::send("TERM", self.child().id());
        self.child().wait().expect("it ends");
        self.0 = None;
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

/// It would be read to its end before anything is handled, and it has none.
#[test]
fn late_events_are_not_replayed_in_a_source_that_has_no_end() {
    let project = project(true);
    append(&project, "in/a.ndjson", &(line(1, 1) + &line(3, 1) + &line(2, 1)));
    let replays = PIPELINE.replace("seq = ", "late = \"replay\"\nseq = ") + "[rollback]\ndepth = 9\n";
    project.write("pipeline.toml", &replays);
    let says = ["late = \"replay\"", "to its end", "--follow"];
    project.forebay(&["run", "pipeline.toml", "--follow"]).fails(2, &says);
    project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(seen(&project), "1:1:1 2:1:1 3:1:1");
    project.write("pipeline.toml", replays.replace("seq = ", "follow = true\nseq = "));
    project.forebay(&["run", "pipeline.toml"]).fails(2, &["pipeline.toml:6", "follow: ", "expected late ="]);
}

#[test]
fn standard_input_settles_too() {
    let project = project(true);
    project.write("pipeline.toml", PIPELINE.replace("path = \"in\"", "path = \"-\"\nsettle = \"50ms\""));
    let mut child =
        project.command(&["run", "pipeline.toml"]).stdin(Stdio::piped()).spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("stdin");
    let mut run = Run(Some(child));
    stdin.write_all((line(1, 1) + &line(2, 1)).as_bytes()).expect("it listens");
    run.waits_for(&project, "1:1:1 2:1:1");
    // The last line needs no end.
    stdin.write_all((line(3, 1) + line(4, 1).trim_end()).as_bytes()).expect("it listens");
    drop(stdin);
    let child = run.0.take().expect("it runs");
    project.finish(child, &["run"]).ok();
    assert_eq!(seen(&project), "1:1:1 2:1:1 3:1:1 4:1:1");
}

#[test]
fn a_check_looks_at_what_is_there() {
    let project = project(true);
    project.write("pipeline.toml", PIPELINE.replace("seq = ", "follow = true\nseq = "));
    project.forebay(&["check", "pipeline.toml"]).ok();
    append(&project, "in/a.ndjson", &line(1, 1));
    let outcome = project.forebay(&["check", "pipeline.toml"]).ok();
    assert!(outcome.stdout().contains('1'), "{outcome}");
}

#[test]
fn until_ends_a_followed_run() {
    let project = project(true);
    append(&project, "in/a.ndjson", &(line(1, 1) + &line(2, 1) + "{\"block\":2}\n"));
    let args = ["run", "pipeline.toml", "--follow", "--until", "2", "--json"];
    project.forebay(&args).ok();
    assert_eq!(seen(&project), "1:1:1 2:1:1");
    // The next run goes on where it ended.
    let again = project.forebay(&args).ok().json();
    assert_eq!(again["source_bytes_read"].as_u64(), Some("{\"block\":2}\n".len() as u64), "{again}");
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
    for (name, late) in [("0.ndjson", line(1, 1)), ("a.ndjson", line(2, 2))] {
        for is_skipped in [false, true] {
            let project = project(true);
            let rule = if is_skipped { "skip" } else { "error" };
            project.write("pipeline.toml", PIPELINE.replace("seq = ", &format!("late = \"{rule}\"\nseq = ")));
            append(&project, "in/a.ndjson", &(line(1, 1) + &line(2, 1)));
            append(&project, "in/b.ndjson", &(line(3, 1) + &line(4, 1)));
            let mut run = Run::start(&project, &[]);
            run.waits_for(&project, "1:1:1 2:1:1 3:1:1");
            append(&project, &format!("in/{name}"), &late);
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

#[test]
fn what_was_read_of_a_file_is_not_read_again() {
    let project = project(true);
    let blocks: String = (1..=1000).map(|block| line(block, 1)).collect();
    append(&project, "in/0.ndjson", &line(0, 1));
    append(&project, "in/a.ndjson", &blocks);
    let expected: Vec<String> = (0..1000).map(|block| format!("{block}:1:1")).collect();
    let mut run = Run::start(&project, &[]);
    run.waits_for(&project, &expected.join(" "));
    run.kill();
    // The last block was not whole, and is read once more.
    append(&project, "in/a.ndjson", &(line(1000, 2) + &line(1001, 1) + "no event\n" + "{\"block\":1001}\n"));
    let wrong = project.forebay(&["run", "pipeline.toml", "--follow", "--until", "1001"]).fails(2, &["a.ndjson:1003"]);
    assert!(!wrong.stderr().contains("WARN"), "{wrong}");
    let end = blocks.len() + line(1000, 2).len() + line(1001, 1).len();
    let text = std::fs::read_to_string(project.path("in/a.ndjson")).expect("it");
    let mut file = OpenOptions::new().write(true).open(project.path("in/a.ndjson")).expect("it");
    file.set_len(end as u64).expect("cut");
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).expect("the end");
    file.write_all(&text.as_bytes()[end + "no event\n".len()..]).expect("written");
    let args = ["run", "pipeline.toml", "--follow", "--until", "1001", "--json"];
    let json = project.forebay(&args).ok().json();
    assert_eq!(json["events"].as_u64(), Some(1), "{json}");
    let read = json["source_bytes_read"].as_u64().expect("bytes");
    assert!(read < 500, "{read} bytes of {}", text.len());
    assert_eq!(seen(&project), [expected.join(" ").as_str(), "1000:2:3", "1001:1:1"].join(" "));
    // What stands before the place is looked at.
    let json = project.forebay(&args).ok().json();
    assert!(json["source_bytes_read"].as_u64().expect("bytes") < 500, "{json}");
    let text = std::fs::read_to_string(project.path("in/a.ndjson")).expect("it");
    let mut file = OpenOptions::new().write(true).open(project.path("in/a.ndjson")).expect("it");
    file.write_all(text.replace("\"block\":999,", "\"block\":998,").as_bytes()).expect("written");
    project.forebay(&args).fails(2, &["a.ndjson", "999"]);
}

#[test]
fn what_was_read_of_a_file_of_csv_is_not_read_again() {
    let project = project(true);
    let record = |block: i64, place: i64| format!("{block},{place},r,\"a\nb\"\n");
    let pipeline = PIPELINE.replace("path = \"in\"", "path = \"in\"\nformat = \"csv\"");
    project.write("pipeline.toml", pipeline + "[source.fields]\nn = \"bigint\"\n");
    let blocks: String = (1..=1000).map(|block| record(block, 1)).collect();
    append(&project, "in/a.csv", &("\u{feff}block,n,region,text\n".to_owned() + &blocks));
    let expected: Vec<String> = (1..1000).map(|block| format!("{block}:1:1")).collect();
    let mut run = Run::start(&project, &[]);
    run.waits_for(&project, &expected.join(" "));
    run.kill();
    append(&project, "in/a.csv", &(record(1001, 2) + &record(1002, 1) + "1003,r\n"));
    let json = project.forebay(&["run", "pipeline.toml", "--follow", "--until", "1001", "--json"]).ok().json();
    assert_eq!(json["events"].as_u64(), Some(2), "{json}");
    assert!(json["source_bytes_read"].as_u64().expect("bytes") < 200, "{json}");
    assert_eq!(seen(&project), [expected.join(" ").as_str(), "1000:1:1", "1001:1:2"].join(" "));
    // Lines are counted from the beginning of the file: the header, and 1002 records of two lines.
    project.forebay(&["run", "pipeline.toml", "--follow", "--until", "1003"]).fails(2, &["a.csv:2006"]);
}

/// A writer, and what it has written.
struct Writer<'p> {
    project: &'p Project,
    dice: Dice,
    block: i64,
    place: i64,
    files: u64,
    /// What is expected of the blocks that are whole.
    whole: Vec<String>,
    /// What was written of a line that has no end yet.
    rest: String,
    /// Files were cut or taken away.
    loses: bool,
}

impl Writer<'_> {
    fn name(&self) -> String {
        format!("in/{}.ndjson", (b'a' + (self.files % 26) as u8) as char)
    }

    fn append(&mut self, text: &str) {
        let text = std::mem::take(&mut self.rest) + text;
        append(self.project, &self.name(), &text);
    }

    fn end_block(&mut self) {
        if self.place > 0 {
            self.whole.push(format!("{}:{}:{}", self.block, self.place, self.place * (self.place + 1) / 2));
        }
        (self.block, self.place) = (self.block + 1 + self.dice.below(2) as i64, 0);
    }

    fn write(&mut self) {
        for _ in 0..=self.dice.below(5) {
            if self.dice.below(2) == 0 {
                self.end_block();
            }
            self.place += 1;
            let line = line(self.block, self.place);
            let cut = self.dice.below(line.len() as u64) as usize;
            match self.dice.below(4) {
                0 if cut > 0 => {
                    self.append(&line[..cut]);
                    line[cut..].clone_into(&mut self.rest);
                }
                _ => self.append(&line),
            }
        }
    }

    fn heartbeat(&mut self) {
        if self.place > 0 {
            self.append(&format!("{{\"block\":{}}}\n", self.block));
            self.end_block();
        }
    }

    fn expected(&self) -> String {
        self.whole.join(" ")
    }

    /// Does something else than to write. A file is not cut or moved away before all of it was read.
    fn act(&mut self, run: Run) -> Run {
        let (project, mut run) = (self.project, run);
        match self.dice.below(6) {
            0 => {
                self.append("");
                self.files += 1;
            }
            1 => {
                self.append("");
                let old = format!("{}-202601{:02}", self.name(), self.files + 1);
                if project.path(&self.name()).exists() && !project.path(&old).exists() {
                    rename(project, &self.name(), &old);
                }
            }
            2 => {
                self.heartbeat();
                run.waits_for(project, &self.expected());
                if project.path(&self.name()).exists() {
                    self.loses = true;
                    cut(project, &self.name());
                }
            }
            3 => {
                self.heartbeat();
                run.waits_for(project, &self.expected());
            }
            4 => {
                run.kill();
                run = Run::start(project, &[]);
            }
            _ => {
                run.asks_to_stop();
                run = Run::start(project, &[]);
            }
        }
        run
    }
}

/// Writes by chance beside runs that follow, and compares.
fn live(seed: u64) {
    let project = project(seed.is_multiple_of(2));
    let mut writer = Writer {
        project: &project,
        dice: Dice(seed),
        block: 1,
        place: 0,
        files: 0,
        whole: Vec::new(),
        rest: String::new(),
        loses: false,
    };
    let mut run = Run::start(&project, &[]);
    for _ in 0..8 {
        for _ in 0..writer.dice.below(4) {
            writer.write();
        }
        run = writer.act(run);
    }
    writer.heartbeat();
    run.waits_for(&project, &writer.expected());
    run.asks_to_stop();
    if !writer.loses {
        let json = project.run_json();
        assert_eq!(json["events"].as_u64(), Some(0), "seed {seed}: {json}");
    }
}

#[test]
fn whatever_a_writer_does_each_event_counts_once() {
    // They mostly wait.
    std::thread::scope(|scope| {
        let lives: Vec<_> = (1..=12).map(|seed| (seed, scope.spawn(move || live(seed)))).collect();
        let failed: Vec<u64> =
            lives.into_iter().filter_map(|(seed, life)| life.join().is_err().then_some(seed)).collect();
        assert!(failed.is_empty(), "seeds {failed:?}");
    });
}
