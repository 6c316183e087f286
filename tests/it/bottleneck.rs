//! What a run says of where its time went: each limit is made true, and must be the one that is named. And its pictures.

use std::time::Duration;

use forebay::source::{Next, Source, SourceError, SourceEvent};
use forebay::timeline::limits::{Change, Limit};
use forebay::{Context, EntityTable, Handler, HandlerError, Pipeline};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::support::postgres_proxy::Proxy;
use crate::support::postgres_server::Server;
use crate::support::project::Project;
use crate::support::redis_proxy::Wire;
use crate::support::redis_server::Redis;

fn pipeline(more: &str) -> String {
    format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\nregion = \"r\"\n[entities.thing]\ncolumns = {{ n = \"bigint\" }}\n\
         [handlers]\nscript = \"handlers.lua\"\n{more}"
    )
}

fn events(count: u64, regions: u64) -> String {
    (0..count).map(|n| format!("{{\"block\":{},\"r\":\"r{}\",\"n\":{n}}}\n", n / 10, n % regions)).collect()
}

/// A database so far away.
fn distant(millis: u64) -> (Proxy, String) {
    let server = Server::shared();
    let proxy = Proxy::start(server.port);
    proxy.set_latency(Duration::from_millis(millis));
    let url = format!("postgres://forebay@127.0.0.1:{}/{}?sslmode=disable", proxy.port, server.make_database());
    (proxy, url)
}

fn run(project: &Project, store: &str) -> Json {
    let args = ["run", "pipeline.toml", "--json", "--store", store];
    project.forebay(&args).ok().json()
}

fn saves(report: &Json, change: &str) -> Option<f64> {
    let what_if = report["limit"]["what_if"].as_array().expect("a list");
    what_if.iter().find(|one| one["change"] == change).map(|one| one["saves_at_most"].as_f64().expect("seconds"))
}

/// No bound is more than the run took.
fn check(report: &Json, by: &str) {
    assert_eq!(report["limit"]["by"], by, "{report:#}");
    let text = report["limit"]["text"].as_str().expect("a sentence");
    assert!(text.starts_with("limited by") && text.contains("at most"), "{text}");
    let seconds = &report["seconds"];
    let wall = seconds["wall"].as_f64().expect("seconds") + seconds["waits"]["publish"].as_f64().expect("seconds");
    for one in report["limit"]["what_if"].as_array().expect("a list") {
        assert!(one["saves_at_most"].as_f64().expect("seconds") <= wall + 1e-3, "{report:#}");
    }
}

const BUSY: &str = "function on_event(e, ctx)
  local n = 0
  for at = 1, 20000 do n = (n + at * e.n) % 7919 end
  ctx.thing:set(\"x\", { n = n })
end";

#[test]
fn handlers_that_compute_are_named_and_lanes_help_where_regions_share() {
    let project = Project::with(&pipeline("[batch]\nevents = 100"), BUSY, &events(1000, 1));
    let report = run(&project, "sqlite:one.db");
    check(&report, "handlers");
    assert_eq!(saves(&report, "more_lanes"), None, "one region has one lane");
    assert!(saves(&report, "cheaper_handlers") > saves(&report, "faster_database"));
    project.write("events.ndjson", events(1000, 4));
    let report = run(&project, "sqlite:four.db");
    check(&report, "handlers");
    let handlers = report["seconds"]["handlers"].as_f64().expect("seconds");
    let lanes = saves(&report, "more_lanes").expect("four regions share the work");
    assert!(lanes > 0.5 * handlers && lanes < 0.8 * handlers, "{lanes} of {handlers}");
}

#[test]
fn a_distant_database_is_named_and_larger_batches_would_help() {
    let (_proxy, store) = distant(20);
    let script = "function on_event(e, ctx) ctx.thing:set(\"x\", { n = e.n }) end";
    let project = Project::with(&pipeline("[batch]\nevents = 10"), script, &events(2000, 1));
    let report = run(&project, &store);
    check(&report, "database");
    let (larger, faster) = (saves(&report, "larger_batches").expect("a bound"), saves(&report, "faster_database"));
    let faster = faster.expect("a bound");
    // A commit is nothing but its way here: of few batches, half of it goes with larger ones, of many four fifths.
    assert!(larger > 0.3 * faster && larger <= faster, "{larger} of {faster}");
    assert!(saves(&report, "fewer_round_trips").expect("a bound") >= larger);
    let waits = &report["seconds"]["waits"];
    assert!(waits["commit"].as_f64() > waits["source"].as_f64(), "{waits}");
}

#[test]
fn rows_that_are_not_in_memory_are_named() {
    let (_proxy, store) = distant(20);
    let script = "function on_event(e, ctx)
      if e.n < 5000 then ctx.thing:set(\"id\" .. e.n, { n = e.n }) return end
      local old = ctx.thing:get(\"id\" .. (e.n - 5000))
      ctx.thing:set(\"sum\", { n = old.n })
    end";
    let project = Project::with(&pipeline("[batch]\nevents = 100000"), script, &events(10_000, 1));
    let until = ["run", "pipeline.toml", "--until", "499", "--store", &store];
    project.forebay(&until).ok();
    let report = run(&project, &store);
    check(&report, "reads");
    assert!(report["loads"].as_u64() > Some(2), "{report:#}");
    let preload = report["seconds"]["preload"].as_f64().expect("seconds");
    assert!(saves(&report, "more_memory").expect("a bound") >= preload);
}

#[test]
fn a_distant_redis_is_named() {
    let redis = Redis::start(&[]);
    let way = Wire::start(redis.port);
    way.set_latency(Duration::from_millis(300));
    let more = format!("[snapshots]\nevery = \"end\"\nurl = \"{}\"", way.url());
    let script = "function on_event(e, ctx) ctx.thing:set(\"x\", { n = e.n }) end
      function on_snapshot(ctx) return ctx.thing:get(\"x\") end";
    let project = Project::with(&pipeline(&more), script, &events(100, 1));
    let report = run(&project, "sqlite:p.db");
    check(&report, "publish");
    assert!(saves(&report, "faster_redis") >= Some(0.3), "{report:#}");
}

/// Events that take long to make.
struct Slow(i64);

impl Source for Slow {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        if self.0 == 100 {
            return Ok(Next::End);
        }
        let digest = (0..20_000).fold([0_u8; 32], |digest, _| Sha256::digest(digest).into());
        (event.block, event.region, self.0) = (self.0, "r".into(), self.0 + 1);
        event.json = json!({ "n": digest[0] }).to_string();
        Ok(Next::Event)
    }

    /// So that each event is handed over at once.
    fn is_ready(&self) -> bool {
        false
    }
}

struct Nothing;

impl Handler for Nothing {
    type Event<'e> = serde::de::IgnoredAny;
    fn entities(&self) -> Vec<EntityTable> {
        Vec::new()
    }
    fn on_event(&self, _: serde::de::IgnoredAny, _: &mut Context<'_>) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[test]
fn a_slow_source_is_named() {
    let project = Project::new();
    let pipeline = Pipeline::new("p", Nothing).expect("a name").source(Slow(0));
    let report = pipeline.store_url(&project.store("p.db")).expect("a store").run().expect("a run");
    let limits = report.limits();
    assert_eq!(limits.by, Limit::Source, "{limits:?} {:?}", report.times);
    assert_eq!(limits.what_if[0].change, Change::FasterSource);
    assert!(report.limit().starts_with("limited by the source"), "{}", report.limit());
}

#[test]
fn a_run_without_events_was_limited_by_nothing() {
    let project = Project::with(&pipeline(""), BUSY, &events(10, 1));
    run(&project, "sqlite:p.db");
    let report = run(&project, "sqlite:p.db");
    assert_eq!(report["limit"]["by"], "nothing");
    assert_eq!(report["limit"]["text"], "there was nothing to do: no event came after block 0, which is committed");
}

/// The parts of a commit are as long as the commit.
fn parts_of_commits_add_up(store: &str) {
    let script = "function on_event(e, ctx) ctx.thing:set(\"id\" .. e.n, { n = e.n }) end";
    let project = Project::with(&pipeline("[batch]\nevents = 5000"), script, &events(20_000, 1));
    let report = run(&project, store);
    let seconds = &report["seconds"];
    let part = |name: &str| seconds["commit_parts"][name].as_f64().expect("seconds");
    let (parts, commit) =
        (part("stream") + part("merge") + part("commit"), seconds["commit"].as_f64().expect("seconds"));
    assert!(parts <= commit && parts > 0.7 * commit, "{seconds:#}");
    assert_eq!(part("stream") > 0.0, store.starts_with("postgres"), "rows go by COPY, or one by one");
    let sealing = seconds["sealing"].as_f64().expect("seconds");
    assert!(sealing > 0.0 && sealing < seconds["handlers"].as_f64().expect("seconds"));
}

#[test]
fn parts_of_commits_are_known() {
    parts_of_commits_add_up("sqlite:p.db");
    let server = Server::shared();
    parts_of_commits_add_up(&server.url(&server.make_database()));
}

#[test]
fn a_run_is_drawn_and_traced() {
    let (_proxy, store) = distant(5);
    let script = "function on_event(e, ctx) ctx.thing:set(\"x\", { n = e.n }) end";
    let project = Project::with(&pipeline("[batch]\nevents = 100"), script, &events(2000, 1));
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
    assert!(all("handlers").any(|handled| all("commit").any(|commit| overlaps(&handled, &commit))));
    // One after the other, nothing overlaps.
    let (_proxy, store) = distant(5);
    let args = ["run", "pipeline.toml", "--json", "--store", &store, "--serial", "--trace", "run.json"];
    let report = project.forebay(&args).ok().json();
    let trace: Json =
        serde_json::from_str(&std::fs::read_to_string(project.path("run.json")).expect("a trace")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let all = |category: &'static str| events.iter().filter(move |event| event["cat"] == category);
    assert!(!all("handlers").any(|handled| all("commit").any(|commit| overlaps(&handled, &commit))));
    assert!(report["overlap"]["speedup"].as_f64() < Some(1.05), "{report:#}");
}

#[test]
fn a_picture_that_cannot_be_written_is_refused_before_the_run() {
    let project = Project::with(&pipeline(""), BUSY, &events(10, 1));
    let args = ["run", "pipeline.toml", "--timeline", "no/such/folder/run.svg"];
    project.forebay(&args).fails(2, &["--timeline", "no/such/folder/run.svg"]);
    assert!(!project.path("p.db").exists());
    let both = ["run", "pipeline.toml", "--timeline", "one.svg", "--trace", "handlers.lua"];
    project.forebay(&both).fails(2, &["--trace handlers.lua"]);
    assert!(!project.path("one.svg").exists(), "what was made for it is gone");
    let failing = Project::with(&pipeline(""), "function on_event() error(\"no\") end", &events(10, 1));
    failing.forebay(&["run", "pipeline.toml", "--trace", "run.json"]).fails(1, &["no"]);
    assert!(!failing.path("run.json").exists(), "nothing is left of a run that failed");
    // What is there and is no picture is not written over, also if it is there only after the run.
    let project = Project::with(&pipeline(""), BUSY, &events(10, 1));
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
