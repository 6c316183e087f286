//! A program whose output is the stream: outages, positions, and that nothing of it is left behind.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::project::Project;
use crate::support::{signal, wait_until};

const SCRIPT: &str = r#"
function on_event(event, ctx)
  ctx.seen:add("s", { events = 1, places = event.n })
end
"#;

/// A pipeline over what this shell script writes.
fn project(more: &str, script: &str) -> Project {
    let pipeline = format!(
        r#"
name = "count"
[source]
command = ["sh", "program.sh", "{{position}}"]
{more}
[entities.seen]
columns = {{ events = "bigint", places = "bigint" }}
[handlers]
script = "handlers.lua"
[store]
url = "sqlite:count.db"
"#
    );
    let project = Project::with(&pipeline, SCRIPT, "");
    project.write("program.sh", script);
    project
}

/// Events 1 to `last`, each a block of its own.
fn lines(last: i64) -> String {
    (1..=last).map(|n| format!("{{\"block\":{n},\"region\":\"r\",\"n\":{n}}}\n")).collect()
}

fn seen(project: &Project) -> Vec<Vec<String>> {
    project.query("count.db", "SELECT events, places FROM seen")
}

fn sum(last: i64) -> Vec<Vec<String>> {
    vec![vec![last.to_string(), (last * (last + 1) / 2).to_string()]]
}

#[test]
fn what_a_program_writes_is_handled_and_what_it_says_is_logged() {
    let project = project("", "echo 'be\x1b[31mgun' >&2; cat log; printf '{\"block\":9,\"region\":\"r\",\"n\":0}'");
    project.write("log", lines(5));
    let outcome = project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(seen(&project), [["6", "15"]], "the last line, which has no end, too");
    assert!(outcome.stderr().contains("sh: be") && !outcome.stderr().contains('\x1b'), "{outcome}");
    // Without positions it begins again, and what is committed is compared.
    project.forebay(&["run", "pipeline.toml"]).ok();
    project.write("log", lines(4));
    project.forebay(&["run", "pipeline.toml"]).fails(2, &["sh"]);
    assert_eq!(seen(&project), [["6", "15"]]);
}

#[test]
fn a_program_goes_on_after_its_last_position() {
    // It gives what comes after a position, two events at a time, and then fails.
    let program = r#"
echo "from $1" >> starts
[ "$1" = "$FOREBAY_POSITION" ] || exit 7
tail -n "+$(($1 + 1))" log | head -n 2
[ "$1" -ge 8 ]
"#;
    let more = "position = \"n\"\nstart = \"0\"\nrestart = \"10ms\"\n";
    let project = project(more, program);
    project.write("log", lines(9));
    let outcome = project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(seen(&project), sum(9));
    let starts = std::fs::read_to_string(project.path("starts")).expect("starts");
    assert_eq!(starts.lines().collect::<Vec<_>>(), ["from 0", "from 2", "from 4", "from 6", "from 8"]);
    assert!(outcome.stderr().contains("ended with exit code 1; it is started again in"), "{outcome}");
    project.write("log", lines(10));
    project.forebay(&["run", "pipeline.toml"]).ok();
    let starts = std::fs::read_to_string(project.path("starts")).expect("starts");
    assert_eq!((seen(&project), starts.lines().last()), (sum(10), Some("from 9")));
}

#[test]
fn a_program_without_positions_begins_again_and_its_events_count_once() {
    // One line more each time, the last one broken off; in the end it ends well.
    let program = "n=$(($(cat n) + 1)); echo $n > n; head -n $n log; [ $n = 6 ] || { printf '{\"bl'; exit 3; }";
    let project = project("restart = \"1ms\"", program);
    project.write("log", lines(6));
    project.write("n", "0\n");
    project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(seen(&project), sum(6));
    // Something else than before.
    let project =
        self::project("restart = \"1ms\"", "cat log; [ -e again ] && exit 0; touch again; mv other log; exit 1");
    project.write("log", lines(3));
    project.write("other", lines(3).replace("\"n\":2", "\"n\":7"));
    project.forebay(&["run", "pipeline.toml"]).fails(2, &["gives other events than before", "[source] position"]);
}

#[test]
fn a_followed_program_is_started_again_when_it_has_ended() {
    let more = "position = \"n\"\nstart = \"0\"\nrestart = \"10ms\"\nfollow = true\nsettle = \"10ms\"";
    let project = project(more, "tail -n \"+$(($1 + 1))\" log");
    project.write("log", lines(3));
    let mut child = project.command(&["run", "pipeline.toml"]).spawn().expect("the binary starts");
    let is_seen = |expected: Vec<Vec<String>>| {
        let status = project.forebay(&["status", "pipeline.toml"]);
        status.code() == Some(0) && seen(&project) == expected
    };
    wait_until(|| is_seen(sum(3)));
    let mut log = std::fs::OpenOptions::new().append(true).open(project.path("log")).expect("log");
    log.write_all(&lines(5).as_bytes()[lines(3).len()..]).expect("log");
    wait_until(|| is_seen(sum(5)));
    assert!(child.try_wait().expect("a child").is_none());
    signal::send("TERM", child.id());
    project.finish(child, &["run"]).ends_with(130);
}

#[test]
fn nothing_of_a_program_is_left_behind() {
    // It does not hear SIGTERM, and has started something else.
    let program = "trap '' TERM; sleep 1000 & echo $! > child; cat log; echo $$ > parent; sleep 1000";
    for signal in ["TERM", "KILL"] {
        let project = project("", program);
        project.write("log", lines(2));
        let child = project.command(&["run", "pipeline.toml"]).spawn().expect("the binary starts");
        let pid = |name: &str| std::fs::read_to_string(project.path(name)).unwrap_or_default().trim().to_owned();
        wait_until(|| !pid("parent").is_empty());
        signal::send(signal, child.id());
        let code = project.finish(child, &["run"]).code();
        assert_eq!(code, (signal == "TERM").then_some(130));
        let is_there = |pid: &str| {
            let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
            // One that nobody has waited for yet is gone too.
            !stat.is_empty() && !stat.contains(") Z ")
        };
        for name in ["child", "parent"] {
            wait_until(|| !is_there(&pid(name)));
        }
    }
}

#[test]
fn with_a_program_all_that_it_started_ends_at_once() {
    // The watcher gives a program two seconds, but only one that goes on.
    let more = "position = \"n\"\nstart = \"0\"\nrestart = \"1ms\"\nfollow = true";
    let program = "echo $$ >> groups; sleep 1000 >/dev/null 2>&1 & tail -n \"+$(($1 + 1))\" log";
    let project = project(more, program);
    project.write("log", lines(3));
    let child = project.command(&["run", "pipeline.toml"]).spawn().expect("the binary starts");
    let groups = || -> Vec<String> {
        let text = std::fs::read_to_string(project.path("groups")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    wait_until(|| groups().len() > 2);
    // The first two were ended before the third one was started.
    let begun = Instant::now();
    wait_until(|| !has_members(&groups()[..2]));
    assert!(begun.elapsed() < Duration::from_millis(1500));
    signal::send("TERM", child.id());
    project.finish(child, &["run"]).ends_with(130);
    wait_until(|| !has_members(&groups()));
}

/// Whether one of these process groups has a process that has not ended.
fn has_members(groups: &[String]) -> bool {
    let stats = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.any(|stat| {
        let behind_name = stat.rsplit(") ").next().unwrap_or_default();
        let fields: Vec<&str> = behind_name.split(' ').collect();
        fields[0] != "Z" && fields.get(2).is_some_and(|group| groups.iter().any(|of| of == group))
    })
}

#[test]
fn what_cannot_be_read_behind_a_position_waits_for_the_next_event() {
    let more = "position = \"n\"\nstart = \"0\"\nlate = \"skip\"\n[errors]\non_event = \"quarantine\"";
    let project = project(more, "tail -n \"+$(($1 + 1))\" log");
    project.write("log", lines(1));
    project.forebay(&["run", "pipeline.toml"]).ok();
    let bad = "{\"block\":\"x\",\"region\":\"r\",\"n\":2}\n";
    project.write("log", lines(1) + bad);
    let outcome = project.forebay(&["run", "pipeline.toml"]).ok();
    assert!(outcome.stderr().contains("put aside with the next event"), "{outcome}");
    project.write("log", lines(1) + bad + "{\"block\":3,\"region\":\"r\",\"n\":3}\n");
    let outcome = project.forebay(&["run", "pipeline.toml", "--json"]).ok();
    assert_eq!((outcome.json()["quarantined"].as_u64(), seen(&project)), (Some(1), vec![vec!["2".into(), "4".into()]]));
}

#[test]
fn what_cannot_be_read_behind_a_whole_block_belongs_to_the_next_one() {
    let project = project("[errors]\non_event = \"quarantine\"", "cat log");
    let end = "{\"block\":1}\nno event\n";
    project.write("log", lines(1) + end + &lines(3)[lines(1).len()..]);
    for _ in 0..2 {
        project.forebay(&["run", "pipeline.toml"]).ok();
        let aside = project.forebay(&["quarantine", "pipeline.toml", "--json"]).ok().json_lines();
        assert_eq!((aside.len(), aside[0]["block"].as_i64()), (1, Some(2)), "{aside:?}");
        assert_eq!(seen(&project), sum(3));
    }
}

#[test]
fn what_comes_late_is_said() {
    let project = project("late = \"skip\"", "cat log; head -n 1 log");
    project.write("log", lines(3));
    let outcome = project.forebay(&["run", "pipeline.toml"]).ok();
    assert!(outcome.stderr().contains("WARN 1 events came too late and were left out"), "{outcome}");
    assert_eq!(seen(&project), sum(3));
    // Of a file too that has not ended.
    let end = "{\"block\":3}\n";
    project.write("log", lines(3) + &lines(1) + end);
    let args = ["run", "pipeline.toml", "--source", "log", "--follow", "--until", "3", "--store", "sqlite:other.db"];
    let outcome = project.forebay(&args).ok();
    assert!(outcome.stderr().contains("WARN 1 events came too late and were left out"), "{outcome}");
}

#[test]
fn a_program_that_cannot_run_ends_the_run() {
    let project = project("", "");
    project.write(
        "pipeline.toml",
        std::fs::read_to_string(project.path("pipeline.toml")).expect("it").replace("\"sh\"", "\"no-such-program\""),
    );
    let says = ["cannot run no-such-program", "exit code 127", "expected a program that is there"];
    project.forebay(&["run", "pipeline.toml"]).fails(1, &says);
}
