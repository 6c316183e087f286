//! The store: what may change about its tables, who may write to it, and a disk that is full.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};

use crate::support::project::Project;

const SCRIPT: &str = "function on_event(event, ctx) ctx.thing:set(tostring(ctx.block), { n = ctx.block }) end";

fn pipeline(entities: &str) -> String {
    format!(
        "name = \"things\"\n[source]\npath = \"events.ndjson\"\n{entities}\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:things.db\"\n"
    )
}

const THING: &str = "[entities.thing]\ncolumns = { n = \"bigint\", note = \"text\" }";

fn events(blocks: std::ops::RangeInclusive<i64>) -> String {
    blocks.map(|block| format!("{{\"block\":{block},\"region\":\"r\"}}\n")).collect()
}

/// A run over an open stream whose handler says `block N`, and has said it of the first block.
struct Stream {
    child: Child,
    stdin: ChildStdin,
    stderr: BufReader<ChildStderr>,
}

const STREAM: [&str; 4] = ["run", "pipeline.toml", "--source", "-"];

impl Stream {
    fn start(project: &Project) -> Self {
        let mut child = project.command(&STREAM).stdin(Stdio::piped()).spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(events(1..=2).as_bytes()).expect("stdin");
        stdin.flush().expect("stdin");
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr"));
        let mut said = String::new();
        while !said.contains("block 1") {
            assert!(stderr.read_line(&mut said).expect("stderr") > 0, "{said}");
        }
        Self { child, stdin, stderr }
    }

    /// Two more blocks and the end of the stream: the run must fail and say this.
    #[track_caller]
    fn fails(mut self, project: &Project, says: &str) {
        // It may have ended already.
        let _ = self.stdin.write_all(events(3..=4).as_bytes());
        drop(self.stdin);
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).expect("stderr");
        project.finish(self.child, &STREAM).ends_with(1);
        assert!(said.contains(says), "{said}");
    }
}

const TALKING: &str =
    "function on_event(e, ctx) print('block ' .. ctx.block) ctx.thing:set('x', { n = ctx.block }) end";

fn project() -> Project {
    let project = Project::with(&pipeline(THING), SCRIPT, &events(1..=2));
    project.run_json();
    project
}

crate::both_stores! {
    fn a_new_column_and_a_new_entity_are_added() {
        let project = project();
        let grown = "[entities.thing]\ncolumns = { n = \"bigint\", note = \"text\", at = \"timestamptz\", zz = \"numeric\" }\nindexes = [\"n\"]\n[entities.other]\ncolumns = { x = \"double\" }";
        project.write("pipeline.toml", pipeline(grown));
        project.write("events.ndjson", events(1..=3));
        let script = "function on_event(event, ctx)
            local before = ctx.thing:get('1')
            assert(before.n == 1 and before.at == nil and before.zz == nil)
            ctx.thing:set(tostring(ctx.block), { n = ctx.block, at = '2020-01-01T00:00:00Z', zz = 5 })
            ctx.other:set('o', { x = 1.5 })
        end";
        project.write("handlers.lua", script);
        assert_eq!(project.run_json()["events"], 1);
        let rows = project.query("things.db", "SELECT id, n, at, zz FROM thing ORDER BY id");
        assert_eq!(rows, [["1", "1", "NULL", "NULL"], ["2", "2", "NULL", "NULL"], ["3", "3", "2020-01-01T00:00:00Z", "5"]]);
        assert_eq!(project.query("things.db", "SELECT region, x FROM other"), [["r", "1.5"]]);
    }
}

crate::both_stores! {
    fn any_other_change_is_refused_with_what_differs_and_changes_nothing() {
        let project = project();
        project.write("events.ndjson", events(1..=3));
        let cases = [
            ("[entities.thing]\ncolumns = { n = \"bigint\" }", "thing.note (text) is missing from the pipeline file"),
            (
                "[entities.thing]\ncolumns = { n = \"text\", note = \"text\" }",
                "thing.n is bigint in the store and text in the pipeline file",
            ),
            ("[entities.thang]\ncolumns = { n = \"bigint\" }", "entity thing is missing from the pipeline file"),
        ];
        for (entities, difference) in cases {
            project.write("pipeline.toml", pipeline(entities));
            project
                .forebay(&["run", "pipeline.toml"])
                .fails(2, &[difference, "restore the pipeline file, or index anew beside the present tables: `forebay run --fresh`"]);
        }
        project.write("pipeline.toml", pipeline(THING));
        assert_eq!(project.run_json()["events"], 1);
    }
}

#[test]
fn tables_of_others_are_left_alone() {
    let project = project();
    let other = pipeline(THING).replace("\"things\"", "\"others\"");
    project.write("other.toml", &other);
    project.forebay(&["run", "other.toml"]).fails(2, &["entity thing belongs to pipeline things"]);
    let database = rusqlite::Connection::open(project.path("mine.db")).expect("the database");
    database.execute_batch("CREATE TABLE Thing (x)").expect("sql");
    project.forebay(&["run", "pipeline.toml", "--store", "sqlite:mine.db"]).fails(2, &["table thing is there already"]);
}

crate::both_stores! {
    fn two_pipelines_share_a_store() {
        let project = project();
        project.write("other.toml", pipeline("[entities.other]\ncolumns = {}").replace("\"things\"", "\"others\""));
        project.write("handlers.lua", "function on_event(e, ctx) ctx.other:set('o', {}) end function on_snapshot(ctx) return {n = ctx.other:count()} end");
        project.forebay(&["run", "other.toml"]).ok();
        let store = project.store("things.db");
        let which = project.forebay(&["latest", "--snapshots", &store]);
        which.fails(2, &["which pipeline?", "others, things"]);
        let docs = project.forebay(&["latest", "--snapshots", &store, "--pipeline", "others"]).ok();
        assert_eq!(docs.stdout(), "{\"n\":1}\n");
    }
}

crate::both_stores! {
    fn a_second_writer_is_refused_with_the_holder_and_a_dead_one_is_not_in_the_way() {
        let project = Project::with(&pipeline(THING), TALKING, "");
        let mut stream = Stream::start(&project);
        let pid = format!("pid {}", stream.child.id());
        project.forebay(&["run", "pipeline.toml"]).fails(1, &["pipeline \"things\" is being written by forebay", &pid]);
        // Reading needs no lock.
        project.forebay(&["latest", "--config", "pipeline.toml"]).ok();
        stream.child.kill().expect("kill");
        stream.child.wait().expect("the child");
        project.forebay(&["run", "pipeline.toml"]).ok();
        assert!(!project.path("things.db.things.lock").exists(), "a clean end leaves no lock behind");
    }
}

crate::both_stores! {
    fn another_program_that_writes_to_the_checkpoint_is_noticed() {
        let project = Project::with(&pipeline(THING), TALKING, "");
        let stream = Stream::start(&project);
        project.execute("things.db", "UPDATE forebay_pipelines SET batch = batch + 100");
        stream.fails(&project, "another program wrote to it");
    }
}

#[test]
fn a_database_that_is_removed_meanwhile_is_noticed() {
    let project = Project::with(&pipeline(THING), TALKING, "");
    let stream = Stream::start(&project);
    std::fs::remove_file(project.path("things.db")).expect("the database");
    stream.fails(&project, "the file was removed or replaced");
}

#[test]
fn a_full_disk_ends_the_run_and_keeps_what_was_committed() {
    let script =
        "function on_event(e, ctx) ctx.thing:set(tostring(ctx.block), { n = ctx.block, note = ('x'):rep(2000) }) end";
    let project = Project::with(&format!("{}[batch]\nevents = 50\n", pipeline(THING)), script, &events(1..=3000));
    // A limit of 1 MiB, which a shell counts in blocks of 512 bytes, on the size of files stands for the disk.
    let shell = "ulimit -f 2048; exec \"$0\" run pipeline.toml";
    let mut command = Command::new("sh");
    command.args(["-c", shell, env!("CARGO_BIN_EXE_forebay")]).current_dir(project.path("")).env_remove("DATABASE_URL");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh");
    project.finish(child, &[shell]).fails(1, &["was not committed", "things.db"]);
    let counted = || project.query("things.db", "SELECT events, block FROM forebay_pipelines");
    let rows = project.query("things.db", "SELECT count(*), max(n) FROM thing");
    assert_eq!(counted(), rows, "rows and checkpoint belong together");
    assert_ne!(rows[0][0], "0");
    project.run_json();
    assert_eq!(project.query("things.db", "SELECT count(*), max(n) FROM thing"), [["3000", "3000"]]);
}

#[test]
fn a_link_to_the_database_is_the_same_database() {
    let project = Project::with(&pipeline(THING), TALKING, "");
    let mut stream = Stream::start(&project);
    std::os::unix::fs::symlink(project.path("things.db"), project.path("link.db")).expect("link");
    let args = ["run", "pipeline.toml", "--store", "sqlite:link.db"];
    project.forebay(&args).fails(1, &["is being written by forebay", &format!("pid {}", stream.child.id())]);
    stream.child.kill().expect("kill");
    stream.child.wait().expect("the child");
    project.forebay(&args).ok();
}

/// SQLite keeps a log beside each name: what is committed under one is not seen under another.
#[test]
fn a_database_with_a_second_name_is_refused_under_either() {
    let project = Project::with(&pipeline(THING), TALKING, "");
    let mut stream = Stream::start(&project);
    std::fs::hard_link(project.path("things.db"), project.path("second.db")).expect("a second name");
    let second = ["run", "pipeline.toml", "--store", "sqlite:second.db"];
    project.forebay(&second).fails(1, &["second.db", "hard links", "remove the other names, or copy the file"]);
    project.forebay(&["latest", "--snapshots", "sqlite:second.db"]).fails(1, &["second.db has other names"]);
    stream.child.kill().expect("kill");
    stream.child.wait().expect("the child");
    for args in [&["run", "pipeline.toml"][..], &second] {
        project.forebay(args).fails(1, &["hard links"]);
    }
    std::fs::remove_file(project.path("second.db")).expect("the second name");
    project.forebay(&["run", "pipeline.toml"]).ok();
}

#[test]
fn what_lies_where_the_lock_file_should_be_is_not_written_to() {
    let project = project();
    let (lock, other) = (project.path("things.db.things.lock"), project.path("other.txt"));
    project.write("other.txt", "precious");
    for is_hard in [false, true] {
        match is_hard {
            true => std::fs::hard_link(&other, &lock).expect("a name"),
            false => std::os::unix::fs::symlink(&other, &lock).expect("a link"),
        }
        project.forebay(&["run", "pipeline.toml"]).fails(1, &["things.db.things.lock", "it is a link"]);
        assert_eq!(std::fs::read_to_string(&other).expect("the other file"), "precious");
        std::fs::remove_file(&lock).expect("the link");
    }
    // Of one that leads nowhere nothing is made either.
    std::os::unix::fs::symlink(project.path("nowhere"), &lock).expect("a link");
    project.forebay(&["run", "pipeline.toml"]).fails(1, &["it is a link"]);
    assert!(!project.path("nowhere").exists());
    // What a process that was killed has left holds nothing.
    std::fs::remove_file(&lock).expect("the link");
    std::fs::write(&lock, "somebody").expect("a file");
    project.forebay(&["run", "pipeline.toml"]).ok();
}

crate::both_stores! {
    fn pipelines_that_start_together_on_a_new_database_wait_for_each_other() {
        for _ in 0..5 {
            let project = Project::with(&pipeline(THING), SCRIPT, &events(1..=50));
            project.write(
                "other.toml",
                pipeline("[entities.other]\ncolumns = {}\n")
                    .replace("\"things\"", "\"others\"")
                    .replace("handlers.lua", "other.lua"),
            );
            project.write("other.lua", "function on_event(e, ctx) ctx.other:set(ctx.block, {}) end");
            let both = ["pipeline.toml", "other.toml"].map(|file| {
                let args = ["run", file];
                (project.command(&args).spawn().expect("the binary starts"), args)
            });
            for (child, args) in both {
                project.finish(child, &args).ok();
            }
            let both = match project.url() {
                None => "forebay_pipelines",
                Some(_) => "(TABLE things._forebay_checkpoint UNION ALL TABLE others._forebay_checkpoint) c",
            };
            let sql = format!("SELECT count(*), sum(events) FROM {both}");
            assert_eq!(project.query("things.db", &sql), [["2", "100"]]);
        }
    }
}
