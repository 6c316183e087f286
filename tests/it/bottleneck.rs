//! What a run says of where its time went: each limit is made true, and must be the one that is named.
//!
//! A busy machine makes everything slower, but not one part alone: what is to limit a run does so by far.

use std::time::Duration;

use forebay::source::{Next, Source, SourceError, SourceEvent};
use forebay::timeline::bottleneck::{Hypothetical, Limit};
use forebay::{Context, EntityTable, Handler, HandlerError, Pipeline};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::support::postgres_server::Server;
use crate::support::project::Project;
use crate::support::redis_proxy::Wire;
use crate::support::redis_server::Redis;
use crate::support::{distant_database, folder_in_memory};

fn pipeline(more: &str) -> String {
    format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\nregion = \"r\"\n[entities.thing]\ncolumns = {{ n = \"bigint\" }}\n\
         [handlers]\nscript = \"handlers.lua\"\n{more}"
    )
}

fn events(count: u64, regions: u64) -> String {
    (0..count).map(|n| format!("{{\"block\":{},\"r\":\"r{}\",\"n\":{n}}}\n", n / 10, n % regions)).collect()
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
    // In memory: a disk may be as slow as it likes.
    let memory = folder_in_memory();
    let store = |name: &str| format!("sqlite:{}", memory.path().join(name).display());
    let report = run(&project, &store("one.db"));
    check(&report, "handlers");
    assert_eq!(saves(&report, "more_lanes"), None, "one region has one lane");
    assert!(saves(&report, "cheaper_handlers") > saves(&report, "faster_database"));
    project.write("events.ndjson", events(1000, 4));
    let report = run(&project, &store("four.db"));
    check(&report, "handlers");
    let handlers = report["seconds"]["handlers"].as_f64().expect("seconds");
    let lanes = saves(&report, "more_lanes").expect("four regions share the work");
    assert!(lanes > 0.5 * handlers && lanes < 0.8 * handlers, "{lanes} of {handlers}");
}

#[test]
fn a_distant_database_is_named_and_larger_batches_would_help() {
    let (_proxy, store) = distant_database(100);
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
    let (_proxy, store) = distant_database(100);
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
    assert_eq!(limits.what_if[0].change, Hypothetical::FasterSource);
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
