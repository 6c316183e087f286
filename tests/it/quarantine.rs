//! `[errors]`: events that cannot be handled end the run, or are put aside and leave nothing behind.

use serde_json::Value as Json;

use crate::support::cases::replaced;
use crate::support::project::{Outcome, Project};

const PIPELINE: &str = r#"name = "p"
[source]
path = "events.ndjson"
seq = "n"
[regions]
ids = ["a", "b"]
[entities.total]
columns = { sum = "bigint", last = "text" }
indexes = ["sum"]
[handlers]
script = "handlers.lua"
[errors]
on_event = "quarantine"
[rollback]
depth = 100
[store]
url = "sqlite:p.db"
"#;

/// Writes one row before it may fail, and deletes another.
const SCRIPT: &str = r#"function on_event(event, ctx)
  local row = ctx.total:get("all") or { sum = 0 }
  ctx.total:set("all", { sum = row.sum + 1 })
  if event.gone then ctx.total:delete(event.gone) end
  if event.fail == "raise" then error("no such thing") end
  if event.fail == "column" then ctx.total:set("x", { sum = "many" }) end
  if event.fail == "find" then ctx.total:find{ where = { { "last", "=", "x" } } } end
  if event.fail == "caught" then pcall(function() return event.big.deep end) end
  if event.id then ctx.total:set(event.id, { sum = event.n, last = event.id }) end
end
function on_snapshot(ctx)
  return { rows = ctx.total:count(), top = ctx.total:find{ order = "-sum", limit = 3 } }
end
"#;

const TOTAL: &str = "SELECT * FROM total ORDER BY region, id";
const ASIDE: &str =
    "SELECT file, line, block, place, region, stage, error, event FROM forebay_quarantine ORDER BY batch, number";
const RUN: [&str; 3] = ["run", "pipeline.toml", "--json"];

/// A good event.
fn good(block: i64, place: i64, region: &str) -> String {
    format!("{{\"block\":{block},\"region\":\"{region}\",\"n\":{place},\"id\":\"i{}\"}}", (block + place) % 7)
}

/// Events, each with whether it can be handled.
struct Events(Vec<(String, bool)>);

impl Events {
    /// Good events of some blocks; behind every third there is a bad one, of each kind in turn.
    fn mixed(blocks: i64) -> Self {
        let mut events = Vec::new();
        for block in 1..=blocks {
            for place in [2, 4, 6] {
                let region = if place == 4 { "b" } else { "a" };
                events.push((good(block, place, region), true));
                let bad = match (3 * block + place / 2) % 9 {
                    0 => "{ broken".to_owned(),
                    1 => format!("{{\"block\":{block},\"n\":{}}}", place + 1),
                    2 => {
                        format!("{{\"block\":{block},\"region\":\"{region}\",\"n\":{},\"fail\":\"raise\"}}", place + 1)
                    }
                    3 => format!("{{\"block\":{block},\"region\":\"zzz\",\"n\":{}}}", place + 1),
                    4 => format!(
                        "{{\"block\":{block},\"region\":\"{region}\",\"n\":{},\"fail\":\"column\",\"gone\":\"i3\"}}",
                        place + 1
                    ),
                    5 => "[1,2]".to_owned(),
                    6 => format!(
                        "{{\"block\":{block},\"region\":\"{region}\",\"n\":{},\"fail\":\"find\",\"id\":\"i1\"}}",
                        place + 1
                    ),
                    _ => continue,
                };
                events.push((bad, false));
            }
        }
        Self(events)
    }

    fn all(&self) -> String {
        self.0.iter().map(|(line, _)| format!("{line}\n")).collect()
    }

    fn good(&self) -> String {
        self.0.iter().filter(|(_, is_good)| *is_good).map(|(line, _)| format!("{line}\n")).collect()
    }

    fn bad(&self) -> usize {
        self.0.iter().filter(|(_, is_good)| !is_good).count()
    }
}

fn project(events: &str) -> Project {
    Project::with(&replaced(PIPELINE, "\"quarantine\"\n", "\"quarantine\"\nmax = 1000\n"), SCRIPT, events)
}

/// The rows and documents of a run over the good events alone.
fn undisturbed(events: &Events) -> (Vec<Vec<String>>, String) {
    let project = project(&events.good());
    assert_eq!(project.run_json()["quarantined"], 0);
    state(&project)
}

fn state(project: &Project) -> (Vec<Vec<String>>, String) {
    (project.query("p.db", TOTAL), project.forebay(&["latest", "--config", "pipeline.toml"]).ok().stdout())
}

/// What was put aside, without the batches.
fn aside(project: &Project) -> Vec<Vec<String>> {
    project.query("p.db", ASIDE)
}

fn listed(project: &Project) -> Vec<Json> {
    project.forebay(&["quarantine", "pipeline.toml", "--json"]).ok().json_lines()
}

fn says(outcome: &Outcome, text: &str) {
    assert!(outcome.stderr().contains(text), "expected stderr to say {text:?}\n{outcome}");
}

crate::both_stores! {
    fn each_kind_of_bad_event_is_put_aside_with_what_is_known_of_it() {
        let bad = [
            (r#"{"block":2,"region":"a","n":3,"fail":"raise"}"#, "2", "3", "a", "handler", "no such thing"),
            (r#"{"block":2,"region":"a","n":4,"fail":"column"}"#, "2", "4", "a", "handler", "total.sum: expected a bigint"),
            (r#"{"block":2,"region":"b","n":5,"fail":"find"}"#, "2", "5", "b", "handler", "last"),
            (r#"{"block":2,"region":"a","n":6,"fail":"caught","big":1e9999999}"#, "2", "6", "a", "handler", "big"),
            ("not json", "2", "NULL", "NULL", "source", "expected a JSON object"),
            ("[1,2]", "2", "NULL", "NULL", "source", "a list"),
            (r#"{"region":"a","n":7}"#, "2", "NULL", "a", "source", "field \"block\" is missing"),
            (r#"{"block":"two","region":"a","n":7}"#, "2", "NULL", "a", "source", "field \"block\": expected an integer"),
            (r#"{"block":2,"n":7}"#, "2", "7", "NULL", "source", "field \"region\" is missing"),
            (r#"{"block":2,"region":"","n":8}"#, "2", "8", "NULL", "source", "field \"region\": expected the name"),
            (r#"{"block":2,"region":"a"}"#, "2", "NULL", "a", "source", "field \"n\" is missing"),
            (r#"{"block":2,"region":"c","n":9}"#, "2", "9", "c", "source", "region \"c\" is not in [regions] ids"),
            (r#"{"block":3,"n":1}"#, "3", "1", "NULL", "source", "field \"region\" is missing"),
        ];
        let lines: String = bad.iter().map(|(line, ..)| format!("{line}\n")).collect();
        let events = format!("{}\n{}\n{lines}{}\n", good(1, 1, "a"), good(2, 1, "a"), good(3, 2, "b"));
        let project = project(&events);
        let outcome = project.forebay(&RUN).ok();
        assert_eq!((outcome.json()["quarantined"].as_u64(), outcome.json()["events"].as_u64()), (Some(13), Some(16)));
        says(&outcome, "13 events were put aside");
        let found = aside(&project);
        assert_eq!(found.len(), bad.len(), "{found:#?}");
        for (at, ((line, block, place, region, stage, error), row)) in bad.iter().zip(&found).enumerate() {
            let known = [1, 2, 3, 4, 5, 7].map(|column| row[column].as_str());
            assert_eq!(known, [&(at + 3).to_string(), *block, place, region, stage, line], "{row:?}");
            assert!(row[0].ends_with("events.ndjson") && row[6].contains(error), "{row:?}");
        }
        let clean = self::project(&format!("{}\n{}\n{}\n", good(1, 1, "a"), good(2, 1, "a"), good(3, 2, "b")));
        clean.run_json();
        assert_eq!(state(&project), state(&clean));
        // They are counted, and no failure.
        let status = project.forebay(&["status", "pipeline.toml", "--json"]).ok().json();
        assert_eq!((&status["quarantined"], &status["healthy"]), (&13.into(), &true.into()));
        assert!(project.forebay(&["status", "pipeline.toml"]).ok().stdout().contains("13 events"));
        // A second run has nothing to do.
        assert_eq!(project.run_json()["quarantined"], 0);
        assert_eq!(aside(&project), found);
    }

    fn a_failed_event_leaves_nothing_whatever_batches_and_restarts() {
        let events = Events::mixed(60);
        let answer = undisturbed(&events);
        let once = project(&events.all());
        assert_eq!(once.run_json()["quarantined"], events.bad());
        assert_eq!(state(&once), answer);
        let quarantine = aside(&once);
        assert_eq!(quarantine.len(), events.bad());
        for batch in [1, 7] {
            let project = project(&events.all());
            let pipeline = replaced(PIPELINE, "\"quarantine\"\n", "\"quarantine\"\nmax = 1000\n");
            project.write("pipeline.toml", format!("{pipeline}[batch]\nevents = {batch}\n"));
            // Blocks that come in several runs, of which some end among bad events.
            for until in [1, 2, 3, 20, 41, 59] {
                project.forebay(&["run", "pipeline.toml", "--until", &until.to_string()]).ok();
            }
            project.run_json();
            assert_eq!(state(&project).0, answer.0, "batches of {batch}");
            assert_eq!(aside(&project), quarantine, "batches of {batch}");
        }
    }

    fn a_source_that_grows_puts_each_line_aside_once() {
        let events = Events::mixed(30);
        let answer = undisturbed(&events);
        let project = project("");
        let lines = &events.0;
        for some in 1..=10 {
            // Up to the end of a block, and what cannot be read behind it.
            let mut end = lines.len() * some / 10;
            while end < lines.len() && !lines[end].0.contains("\"n\":2,") {
                end += 1;
            }
            project.write("events.ndjson", lines[..end].iter().map(|(line, _)| format!("{line}\n")).collect::<String>());
            project.run_json();
        }
        assert_eq!(project.query("p.db", TOTAL), answer.0);
        assert_eq!(listed(&project).len(), events.bad());
    }

    fn a_rollback_takes_later_events_out_again() {
        let events = Events::mixed(20);
        let project = project(&events.all());
        project.run_json();
        let (all, end) = (aside(&project), state(&project).0);
        project.forebay(&["rollback", "pipeline.toml", "--to", "11"]).ok();
        let block = |row: &Vec<String>| row[2].parse::<i64>().expect("a block");
        let before: Vec<_> = all.iter().filter(|row| block(row) <= 11).cloned().collect();
        assert!(!before.is_empty() && before.len() < all.len());
        assert_eq!(aside(&project), before);
        let status = project.forebay(&["status", "pipeline.toml", "--json"]).ends_with(0).json();
        assert_eq!(status["quarantined"], before.len());
        project.run_json();
        assert_eq!(aside(&project), all);
        assert_eq!(state(&project).0, end);
    }

    fn one_more_than_max_ends_the_run_before_its_block() {
        let events = [1, 2, 3, 4].map(|block| {
            format!("{}\n{{\"block\":{block},\"region\":\"a\",\"n\":5,\"fail\":\"raise\"}}\n{{ broken\n", good(block, 1, "a"))
        });
        let project = project(&events.concat());
        project.write("pipeline.toml", replaced(PIPELINE, "\"quarantine\"\n", "\"quarantine\"\nmax = 5\n"));
        for _ in 0..2 {
            project.forebay(&RUN).fails(2, &["events.ndjson:9", "block 3", "max = 5", "forebay quarantine"]);
            assert_eq!(listed(&project).len(), 4);
            assert_eq!(project.query("p.db", "SELECT block FROM forebay_pipelines"), [["2"]]);
        }
        // Those of earlier runs count.
        project.write("pipeline.toml", replaced(PIPELINE, "\"quarantine\"\n", "\"quarantine\"\nmax = 7\n"));
        project.forebay(&RUN).fails(2, &["events.ndjson:12", "block 4", "expected a JSON object"]);
        assert_eq!(project.query("p.db", "SELECT block FROM forebay_pipelines"), [["3"]]);
        project.write("pipeline.toml", replaced(PIPELINE, "\"quarantine\"\n", "\"quarantine\"\nmax = 8\n"));
        project.forebay(&RUN).ok();
        assert_eq!(listed(&project).len(), 8);
    }

    fn a_run_that_stops_commits_the_whole_blocks_before_the_event() {
        let pipeline = replaced(PIPELINE, "\"quarantine\"", "\"stop\"");
        for (bad, line, code, block) in [
            (r#"{"block":30,"region":"a","n":9,"fail":"raise"}"#, 62, 1, 29),
            (r#"{"block":30,"region":"a","n":9,"fail":"column"}"#, 62, 1, 29),
            ("{ broken", 62, 2, 29),
            (r#"{"block":30,"n":9}"#, 62, 2, 29),
            (r#"{"block":30,"region":"c","n":9}"#, 62, 2, 29),
            // It begins the next block, so the one before is whole.
            (r#"{"block":31,"n":1}"#, 62, 2, 30),
            (r#"{"block":31,"region":"a","n":1,"fail":"raise"}"#, 62, 1, 30),
        ] {
            let before: String = (1..=30).map(|block| format!("{}\n{}\n", good(block, 1, "a"), good(block, 2, "b"))).collect();
            let behind: String = (32..=60).map(|block| format!("{}\n{}\n", good(block, 1, "b"), good(block, 2, "a"))).collect();
            let project = Project::with(&pipeline, SCRIPT, &format!("{before}\n{bad}\n{behind}"));
            for _ in 0..2 {
                project.forebay(&RUN).fails(code, &[&format!("events.ndjson:{line}"), "[errors] on_event = \"quarantine\""]);
                assert_eq!(project.query("p.db", "SELECT block FROM forebay_pipelines"), [[block.to_string()]], "{bad}");
            }
            let whole: String = (1..=block).map(|block| format!("{}\n{}\n", good(block, 1, "a"), good(block, 2, "b"))).collect();
            let clean = Project::with(&pipeline, SCRIPT, &whole);
            clean.run_json();
            assert_eq!(project.query("p.db", TOTAL), clean.query("p.db", TOTAL), "{bad}");
            project.write("events.ndjson", format!("{before}{behind}"));
            project.forebay(&RUN).ok();
        }
    }

    fn an_event_fails_once_for_each_region_that_refuses_it() {
        let pipeline = replaced(PIPELINE, "ids = [\"a\", \"b\"]", "all = \"everywhere\"");
        let script = "function on_event(event, ctx)\n  ctx.total:set(event.block, { sum = 1 })\n  if ctx.region == event.bad or event.bad == \"each\" then error(\"no\") end\nend\n";
        let event = |block, bad: &str| format!("{{\"block\":{block},\"region\":\"a\",\"n\":1,\"bad\":\"{bad}\"}}\n");
        let events = event(1, "a") + &event(2, "everywhere") + &event(3, "each") + &event(4, "none");
        let project = Project::with(&pipeline, script, &events);
        assert_eq!(project.run_json()["quarantined"], 4);
        let regions: Vec<_> = aside(&project).into_iter().map(|row| (row[1].clone(), row[4].clone())).collect();
        let expected = [("1", "a"), ("2", "everywhere"), ("3", "a"), ("3", "everywhere")];
        assert_eq!(regions, expected.map(|(line, region)| (line.to_owned(), region.to_owned())));
        let ids = project.query("p.db", "SELECT region, id FROM total ORDER BY region, id");
        assert_eq!(ids, [["a", "2"], ["a", "4"], ["everywhere", "1"], ["everywhere", "4"]]);
    }
}

#[test]
fn an_event_is_stored_whole_within_its_bound_and_shown_without_control_characters() {
    let long = "é".repeat(40 * 1024);
    let events = format!("{}\n\u{1b}[2Jclear\t\n{long}\nx\0y\n{}\n", good(1, 1, "a"), good(2, 1, "a"));
    let mut bytes = events.into_bytes();
    bytes.extend(b"\xff\xfe no text\n");
    bytes.extend(format!("{}\n", good(3, 1, "a")).bytes());
    let project = project("");
    project.write("events.ndjson", bytes);
    project.run_json();
    let events: Vec<String> =
        listed(&project).iter().map(|event| event["event"].as_str().expect("a text").to_owned()).collect();
    let cut = format!("{}…", "é".repeat(32 * 1024));
    assert_eq!(events, ["\u{1b}[2Jclear", &cut, "x\u{fffd}y", "\u{fffd}\u{fffd} no text"]);
    let table = project.forebay(&["quarantine", "pipeline.toml"]).ok().stdout();
    assert!(table.contains("\u{fffd}[2Jclear") && !table.contains('\u{1b}'), "{table}");
    for column in ["file", "line", "block", "region", "stage", "error", "event", "events.ndjson", "source"] {
        assert!(table.contains(column), "{column}: {table}");
    }
}

#[test]
fn lines_before_the_first_event_belong_to_its_block_and_lines_alone_are_kept_too() {
    let events = format!("junk\nmore junk\n{}\nlast\n", good(5, 1, "a"));
    let project = project(&events);
    assert_eq!(project.run_json()["quarantined"], 3);
    let blocks: Vec<_> = aside(&project).into_iter().map(|row| row[2].clone()).collect();
    assert_eq!(blocks, ["5", "5", "5"]);
    assert_eq!(project.run_json()["quarantined"], 0);
    // Behind the last committed block they wait for the next event.
    project.write("events.ndjson", format!("{events}later\n"));
    let outcome = project.forebay(&RUN).ok();
    assert_eq!(outcome.json()["quarantined"], 0);
    says(&outcome, "lines that cannot be read (1)");
    project.write("events.ndjson", format!("{events}later\n{}\n", good(6, 1, "a")));
    assert_eq!(project.run_json()["quarantined"], 1);
    assert_eq!(project.run_json()["quarantined"], 0);
    // A source of nothing else.
    let project = self::project("junk\nmore junk\n");
    assert_eq!(project.run_json()["quarantined"], 2);
    assert_eq!(project.run_json()["quarantined"], 0);
    project.write("events.ndjson", format!("junk\nmore junk\nstill\n{}\n", good(5, 1, "a")));
    assert_eq!(project.run_json()["quarantined"], 1);
    assert_eq!(listed(&project).len(), 3);
}

#[test]
fn check_names_the_events_that_would_be_put_aside() {
    let events = format!("{}\njunk\n{{\"block\":1,\"region\":\"a\",\"n\":5,\"fail\":\"raise\"}}\n", good(1, 1, "a"));
    let outcome = project(&events).forebay(&["check", "pipeline.toml"]).ok();
    says(&outcome, "events.ndjson:2 (block 1) would be put aside");
    says(&outcome, "events.ndjson:3 (block 1) would be put aside");
    let pipeline = replaced(PIPELINE, "\"quarantine\"", "\"stop\"");
    Project::with(&pipeline, SCRIPT, &events).forebay(&["check", "pipeline.toml"]).fails(2, &["events.ndjson:2"]);
}

#[test]
fn what_may_be_different_the_next_time_is_never_put_aside() {
    let slow = "function on_event(event, ctx) while event.fail do end end\n";
    let events = format!("{}\n{{\"block\":2,\"region\":\"a\",\"n\":1,\"fail\":\"hang\"}}\n", good(1, 1, "a"));
    let pipeline = replaced(PIPELINE, "script = \"handlers.lua\"", "script = \"handlers.lua\"\ntimeout = \"200ms\"");
    let project = Project::with(&pipeline, slow, &events);
    project.forebay(&RUN).fails(1, &["did not return within"]);
    assert_eq!(listed(&project), Vec::<Json>::new());
    let greedy = "function on_event(event, ctx)\n  local all = {}\n  while event.fail do all[#all + 1] = string.rep(\"x\", 1 << 20) .. #all end\nend\n";
    let project = Project::with(&format!("{PIPELINE}[batch]\nmemory = \"32MiB\"\n"), greedy, &events);
    project.forebay(&RUN).fails(1, &["more memory"]);
    assert_eq!(listed(&project), Vec::<Json>::new());
}

/// Wherever the collector stands while the stack is full.
#[test]
fn a_recursion_without_end_is_put_aside_each_time() {
    let pipeline = "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.t]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\ntimeout = \"60s\"\n[errors]\non_event = \"quarantine\"\n[store]\nurl = \"sqlite:p.db\"\n";
    let script = "local function f() return f() + 1 end
    function on_event(e, ctx)
      local kept = {}
      for at = 1, e.n do kept[at] = ('x'):rep(at) .. e.n end
      ctx.t:set(e.block, { n = f() })
    end";
    let event = |block: u32| format!("{{\"block\":{block},\"region\":\"a\",\"n\":{}}}\n", block * 97 % 1500);
    let project = Project::with(pipeline, script, &(10..17).map(event).collect::<String>());
    project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(aside(&project).len(), 7);
}

#[test]
fn the_keys_are_checked() {
    for (text, says) in [
        ("on_event = \"skip\"", "on_event: expected \"stop\" or \"quarantine\", got \"skip\""),
        ("on_event = \"quarantine\"\nmax = -1", "max: expected a number of events, 0 or more, got -1"),
        ("on_events = \"stop\"", "unknown key \"on_events\" in [errors]"),
    ] {
        let project = Project::with(&replaced(PIPELINE, "on_event = \"quarantine\"", text), SCRIPT, "");
        project.forebay(&RUN).fails(2, &[says]);
    }
    // Nothing is put aside, and the first bad event says so.
    let none = replaced(PIPELINE, "\"quarantine\"\n", "\"quarantine\"\nmax = 0\n");
    Project::with(&none, SCRIPT, &format!("{}\njunk\n", good(1, 1, "a"))).forebay(&RUN).fails(2, &["max = 0"]);
}

#[test]
fn a_file_without_the_table_gets_it() {
    let project = project(&Events::mixed(5).good());
    project.run_json();
    project.execute("p.db", "DROP TABLE forebay_quarantine");
    assert_eq!(listed(&project), Vec::<Json>::new());
    assert_eq!(project.forebay(&["status", "pipeline.toml", "--json"]).ok().json()["quarantined"], 0);
    let bad = r#"{"block":6,"region":"a","n":1,"fail":"raise"}"#;
    project.write("events.ndjson", format!("{}{bad}\n", Events::mixed(5).good()));
    assert_eq!(project.run_json()["quarantined"], 1);
    assert_eq!(listed(&project).len(), 1);
}

#[test]
fn an_event_that_cannot_be_read_is_put_aside_however_a_script_reads_it() {
    let pipeline = r#"
name = "things"
source.path = "events.ndjson"
source.fields.n = "bigint"
errors.on_event = "quarantine"
handlers.script = "handlers.lua"
entities.o.columns = { v = "jsonb" }
"#;
    for reads in ["event.n", "next(event)", "ctx.o:set('a', { v = event })", "ctx.o:set('a', { v = { event } })"] {
        let script = format!(
            "function on_event(event, ctx) pcall(function() local _ = {} end) ctx.o:set('b', {{}}) end",
            if reads.starts_with("ctx") { format!("({reads})") } else { reads.to_owned() }
        );
        let project = Project::with(pipeline, &script, "{\"block\":1,\"region\":\"r\",\"n\":\"abc\"}\n");
        let outcome = project.forebay(&["run", "pipeline.toml", "--json"]).ok();
        assert!(outcome.stderr().contains("1 event was put aside"), "{reads}: {outcome}");
        assert!(outcome.stdout().contains("\"entities_written\":0"), "{reads}: {outcome}");
    }
}
