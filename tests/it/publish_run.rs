//! Publishing beside a run: Redis slow, gone, emptied; what the store remembers.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::support::project::{Outcome, Project, query};
use crate::support::redis_proxy::{Break, Wire};
use crate::support::redis_server::Redis;
use crate::support::{signal, wait_until};

const SCRIPT: &str = r#"
function on_event(event, ctx) ctx.thing:set("v", { v = event.v }) end
function on_snapshot(ctx) return { v = ctx.thing:get("v").v, region = ctx.region } end
"#;

fn pipeline(snapshots: &str) -> String {
    format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.thing]\ncolumns = {{ v = \"bigint\" }}\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n[batch]\nevents = 1\n[snapshots]\n{snapshots}\n"
    )
}

fn events(blocks: std::ops::RangeInclusive<u64>, regions: &[&str]) -> String {
    let event =
        |(block, region): (u64, &&str)| format!("{{\"block\":{block},\"region\":\"{region}\",\"v\":{block}}}\n");
    blocks.flat_map(|block| regions.iter().map(move |region| (block, region))).map(event).collect()
}

/// A pipeline that publishes to `url`; every batch makes snapshots.
fn project(url: &str, more: &str, events: &str) -> Project {
    Project::with(
        &pipeline(&format!("url = \"{url}\"\nevery = \"batch\"\ntimeout = \"300ms\"\n{more}")),
        SCRIPT,
        events,
    )
}

fn run(project: &Project) -> Outcome {
    project.forebay(&["run", "pipeline.toml", "--json"])
}

fn latest(server: &Redis, region: &str) -> Json {
    let id: Option<String> = server.ask(&["GET", &format!("forebay:{{p:{region}}}:latest")]);
    let Some(id) = id else { return Json::Null };
    let doc: String = server.ask(&["GET", &format!("forebay:{{p:{region}}}:doc:{id}")]);
    serde_json::from_str::<Json>(&doc).expect("JSON")["v"].clone()
}

/// Regions whose newest snapshot is not marked as published.
fn unmarked(project: &Project) -> Vec<Vec<String>> {
    project.query(
        "p.db",
        "SELECT s.region FROM forebay_snapshots s JOIN forebay_regions r ON r.region = s.region AND r.seq = s.seq WHERE s.published_at IS NULL ORDER BY s.region",
    )
}

#[test]
fn marks_are_in_the_sqlite_file_too_when_a_run_has_ended() {
    let server = Redis::start(&[]);
    let project = project(&server.url(), "", &events(1..=1, &["a"]));
    run(&project).ok();
    let idle = rusqlite::Connection::open(project.path("p.db")).expect("the database");
    idle.query_row("SELECT count(*) FROM forebay_snapshots", [], |_| Ok(())).expect("a read");
    project.write("events.ndjson", events(1..=20, &["a"]));
    run(&project).ok();
    std::fs::copy(project.path("p.db"), project.path("copy.db")).expect("a copy");
    let sql = "SELECT count(*), count(published_at) FROM forebay_snapshots WHERE block = 20";
    assert_eq!(crate::support::project::query(&project.path("copy.db"), sql), [["1", "1"]]);
}

crate::both_stores! {
    fn what_has_committed_is_published_and_marked() {
        let server = Redis::start(&[]);
        let project = project(&server.url(), "", &events(1..=20, &["a", "b"]));
        let report = run(&project).ok().json();
        assert_eq!((latest(&server, "a"), latest(&server, "b")), (json!(20), json!(20)));
        assert_eq!(report["snapshots"]["failed"], 0);
        assert!(report["snapshots"]["published"].as_u64() >= Some(2), "{report}");
        assert!(report["seconds"]["publish"].as_f64() > Some(0.0), "{report}");
        assert!(unmarked(&project).is_empty());
        // The id and the number are those of the store.
        let stored = project.forebay(&["latest", "a", "--pipeline", "p", "--snapshots", &project.store("p.db"), "--meta"]).ok().json();
        assert_eq!(json!(server.ask::<String>(&["GET", "forebay:{p:a}:latest"])), stored["id"]);
        assert_eq!(json!(server.ask::<u64>(&["GET", "forebay:{p:a}:seq"])), stored["seq"]);
        // Readers find all of it there, the block with it.
        let read = project.forebay(&["latest", "--config", "pipeline.toml", "--meta"]).ok().json_lines();
        assert_eq!((read.len(), &read[0]["block"], &read[0]["doc"]["v"]), (2, &json!(20), &json!(20)));
        let status = project.forebay(&["status", "pipeline.toml", "--json"]).ok().json();
        assert_eq!(status["regions"][0]["published"]["id"], stored["id"]);
        // A run with nothing to do publishes nothing again.
        let report = run(&project).ok().json();
        assert_eq!(report["snapshots"], json!({"stored": 0, "published": 0, "duplicate": 0, "stale": 0, "kept": 0, "failed": 0}));
    }

    fn while_redis_is_down_the_run_goes_on_and_the_next_one_catches_up() {
        let mut server = Redis::start(&[]);
        let project = project(&server.url(), "", &events(1..=10, &["a", "b"]));
        server.kill();
        let outcome = run(&project).ends_with(3);
        let report = outcome.json();
        assert_eq!((&report["snapshots"]["published"], &report["snapshots"]["failed"]), (&json!(0), &json!(2)));
        assert_eq!(report["checkpoint"]["block"], 10);
        let told = outcome.stderr().matches("snapshots stay in the store").count();
        assert_eq!(told, 1, "{outcome}");
        assert!(outcome.stderr().contains("not published: a, b: redis://127.0.0.1:"), "{outcome}");
        assert_eq!(unmarked(&project).len(), 2);
        let status = project.forebay(&["status", "pipeline.toml", "--json"]).ends_with(1).json();
        assert_eq!(status["regions"][0]["state"], "unpublished");
        // A run with nothing to do tries again, and exits 3 again.
        assert_eq!(run(&project).ends_with(3).json()["snapshots"]["failed"], 2);
        server.restart();
        let report = run(&project).ok().json();
        assert_eq!(report["snapshots"], json!({"stored": 0, "published": 2, "duplicate": 0, "stale": 0, "kept": 0, "failed": 0}));
        assert_eq!((latest(&server, "a"), latest(&server, "b")), (json!(10), json!(10)));
        assert!(unmarked(&project).is_empty());
    }

    /// A store that was made anew counts from 1 again; Redis knows higher numbers, and older states must not come back.
    fn a_store_that_was_made_anew_is_published_once_it_has_caught_up() {
        let server = Redis::start(&[]);
        let file = pipeline(&format!("url = \"{}\"\nevery = \"1 blocks\"\ndedup = \"0s\"", server.url()));
        let [first, second] = [0, 1].map(|_| Project::with(&file, SCRIPT, &events(1..=6, &["a", "b"])));
        run(&first).ok();
        let seq: u64 = server.ask(&["GET", "forebay:{p:a}:seq"]);
        assert_eq!((seq, latest(&server, "a")), (6, json!(6)));
        // Behind what readers have, the new one says nothing.
        second.write("events.ndjson", events(1..=3, &["a", "b"]));
        run(&second).fails(2, &["another store publishes to redis://127.0.0.1:", "under the name p", "give --take-over"]);
        assert_eq!((latest(&server, "a"), server.ask::<u64>(&["GET", "forebay:{p:a}:seq"])), (json!(6), 6));
        second.forebay(&["run", "pipeline.toml", "--take-over"]).ok();
        assert_eq!(latest(&server, "a"), 6);
        // As far, or further, it does.
        second.write("events.ndjson", events(1..=3, &["a", "b"]) + &events(9..=9, &["a", "b"]));
        let report = run(&second).ok().json();
        assert_eq!((&report["snapshots"]["published"], &report["snapshots"]["failed"]), (&json!(2), &json!(0)));
        assert_eq!((latest(&server, "a"), latest(&server, "b")), (json!(9), json!(9)));
        let stored = second.forebay(&["latest", "a", "--pipeline", "p", "--snapshots", &second.store("p.db"), "--meta"]).ok().json();
        assert_eq!((&stored["seq"], &stored["id"]), (&json!(7), &json!(server.ask::<String>(&["GET", "forebay:{p:a}:latest"]))));
        assert!(unmarked(&second).is_empty());
        second.write("events.ndjson", events(1..=3, &["a", "b"]) + &events(9..=10, &["a", "b"]));
        run(&second).ok();
        assert_eq!((latest(&server, "a"), server.ask::<u64>(&["GET", "forebay:{p:a}:seq"])), (json!(10), 8));
    }

    fn an_emptied_redis_gets_everything_back_from_the_store() {
        let server = Redis::start(&[]);
        let project = project(&server.url(), "", &events(1..=3, &["a", "b", "c"]));
        run(&project).ok();
        let keys = server.keys();
        let _: String = server.ask(&["FLUSHALL"]);
        let outcome = project.forebay(&["publish", "--all", "--config", "pipeline.toml", "--json"]).ok();
        assert_eq!(outcome.json_lines()[3]["published"], 3);
        let newest: Vec<String> = keys.into_iter().filter(|key| !key.contains(":doc:") && !key.contains(":dedup:")).collect();
        let back = server.keys();
        assert!(newest.iter().all(|key| back.contains(key)), "{newest:?} {back:?}");
        assert_eq!(latest(&server, "c"), 3);
        // Once more changes nothing.
        let outcome = project.forebay(&["publish", "--all", "--config", "pipeline.toml", "--json"]).ok();
        assert_eq!(outcome.json_lines()[3]["duplicate"], 3);
        project.forebay(&["publish", "--all", "--config", "pipeline.toml"]).ok();
    }
}

#[test]
fn a_region_that_is_refused_blocks_no_other_and_is_tried_again() {
    let server = Redis::start(&[]);
    let _: String = server.ask(&["SET", "forebay:{p:b}:index", "mine"]);
    let project = project(&server.url(), "", &events(1..=5, &["a", "b", "c"]));
    let outcome = run(&project).ends_with(3);
    assert_eq!(outcome.json()["snapshots"]["failed"], 1);
    assert!(outcome.stderr().contains("not published: b: WRONGTYPE"), "{outcome}");
    assert_eq!((latest(&server, "a"), latest(&server, "b"), latest(&server, "c")), (json!(5), Json::Null, json!(5)));
    assert_eq!(unmarked(&project), [["b"]]);
    let _: i64 = server.ask(&["DEL", "forebay:{p:b}:index"]);
    assert_eq!(run(&project).ok().json()["snapshots"]["published"], 1);
    assert_eq!(latest(&server, "b"), 5);
}

/// While Redis stands still the commits and handlers do not wait; the newest of a region replaces the older ones.
#[test]
fn a_slow_redis_delays_no_commit_and_gets_the_newest() {
    let server = Redis::start(&[]);
    let way = Wire::start(server.port);
    let events = events(1..=300, &["a", "b"]);
    let project = project(&way.url(), "", &events);
    project.write(
        "pipeline.toml",
        std::fs::read_to_string(project.path("pipeline.toml"))
            .expect("file")
            .replace("\"300ms\"", "\"60s\"")
            // However batches are cut, so many snapshots are made.
            .replace("every = \"batch\"", "every = \"10 blocks\""),
    );
    // Redis gets nothing before all is committed, but for what is asked once it can be.
    let has_committed = Arc::new(AtomicBool::new(false));
    let store = project.path("p.db");
    let tell = Arc::clone(&has_committed);
    let stand_still = Arc::new(move || {
        wait_until(|| query(&store, "SELECT block FROM forebay_pipelines") == [["300"]]);
        tell.store(true, Ordering::Release);
    });
    (1..=40).for_each(|step| way.break_at(step, Break::Before(stand_still.clone())));
    let report = run(&project).ok().json();
    assert!(has_committed.load(Ordering::Acquire), "the commits waited for Redis: {report}");
    let stored = report["snapshots"]["stored"].as_u64().expect("a number");
    let published = report["snapshots"]["published"].as_u64().expect("a number");
    assert!(stored >= 20 && published < stored, "{report}");
    assert_eq!((latest(&server, "a"), latest(&server, "b")), (json!(300), json!(300)));
    assert!(unmarked(&project).is_empty(), "the newest of each region was published");
    // What was replaced is in the history of the store.
    let history =
        project.forebay(&["history", "a", "--pipeline", "p", "--snapshots", "sqlite:p.db", "--limit", "1000"]).ok();
    assert_eq!(history.json_lines().len() as u64 * 2, stored);
}

#[test]
fn redis_comes_back_while_the_run_goes_on() {
    let server = Redis::start(&[]);
    let way = Wire::start(server.port);
    way.set_closed(true);
    let project = project(&way.url(), "", "");
    let args = ["run", "pipeline.toml", "--source", "-", "--json"];
    let mut child = project.command(&args).stdin(Stdio::piped()).spawn().expect("the binary");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(events(1..=3, &["a"]).as_bytes()).expect("stdin");
    // The third block may go on.
    wait_until(|| {
        project.path("p.db").exists()
            && project
                .forebay(&["latest", "--pipeline", "p", "--snapshots", "sqlite:p.db"])
                .stdout()
                .contains("\"v\":2")
    });
    assert_eq!(latest(&server, "a"), Json::Null);
    way.set_closed(false);
    // Without a new event: the outbox is tried again.
    wait_until(|| latest(&server, "a") == 2);
    // Once more, with snapshots on their way.
    way.set_closed(true);
    stdin.write_all(events(4..=5, &["a", "b"]).as_bytes()).expect("stdin");
    drop(stdin);
    way.set_closed(false);
    let outcome = project.finish(child, &args);
    assert!(matches!(outcome.code(), Some(0 | 3)), "{outcome}");
    assert!(outcome.stderr().contains("published again after"), "{outcome}");
    run(&project);
    assert_eq!((latest(&server, "a"), latest(&server, "b")), (json!(5), json!(5)));
}

#[test]
fn a_quiet_region_does_not_expire() {
    let server = Redis::start(&[]);
    let project = project(&server.url(), "ttl = \"1d\"", &events(1..=1, &["a"]));
    run(&project).ok();
    let _: i64 = server.ask(&["EXPIRE", "forebay:{p:a}:latest", "100"]);
    run(&project).ok();
    assert_eq!(server.ask::<i64>(&["TTL", "forebay:{p:a}:latest"]), 100, "it is young");
    project.execute("p.db", "UPDATE forebay_snapshots SET published_at = '2026-01-01T00:00:00.000Z'");
    let report = run(&project).ok().json();
    assert_eq!(
        report["snapshots"],
        json!({"stored": 0, "published": 0, "duplicate": 0, "stale": 0, "kept": 1, "failed": 0})
    );
    assert!(server.ask::<i64>(&["TTL", "forebay:{p:a}:latest"]) > 80_000);
}

#[test]
fn a_field_that_a_document_lacks_fails_its_region() {
    let server = Redis::start(&[]);
    let project = project(&server.url(), "id_field = \"meta.id\"", &events(1..=1, &["a"]));
    run(&project).fails(3, &["not published: a: the document has no field meta.id"]);
}

#[test]
fn a_stop_publishes_what_has_committed() {
    let server = Redis::start(&[]);
    let project = project(&server.url(), "", "");
    let args = ["run", "pipeline.toml", "--source", "-", "--json"];
    let mut child = project.command(&args).stdin(Stdio::piped()).spawn().expect("the binary");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(events(1..=50, &["a"]).as_bytes()).expect("stdin");
    wait_until(|| !latest(&server, "a").is_null());
    signal::send("INT", child.id());
    let outcome = project.finish(child, &args).ends_with(130);
    drop(stdin);
    assert_eq!(latest(&server, "a"), outcome.json()["checkpoint"]["block"]);
    assert!(unmarked(&project).is_empty());
}

#[test]
fn a_pipeline_whose_store_is_gone_is_seen_in_redis_alone() {
    let server = Redis::start(&[]);
    let project = project(&server.url(), "", &events(1..=1, &["a"]));
    run(&project).ok();
    std::fs::remove_file(project.path("p.db")).expect("the store");
    let status = project.forebay(&["status", "pipeline.toml", "--json"]).ok().json();
    assert_eq!((&status["healthy"], &status["regions"][0]["state"]), (&json!(true), &json!("fresh")));
    project.forebay(&["status", "pipeline.toml"]).ok();
    project.forebay(&["publish", "--all", "--config", "pipeline.toml"]).fails(1, &["there is no sqlite:"]);
}

/// Ids that a region's readers have seen, each once.
fn check_published(name: &str, server: &Redis, project: &Project, value: u64) {
    for region in ["a", "b", "c"] {
        assert_eq!(latest(server, region), value, "{name}: {region}");
        let ids: Vec<String> = server.ask(&["ZRANGE", &format!("forebay:{{p:{region}}}:index"), "0", "-1"]);
        // Each content of a region is one snapshot of the store, and is there once or not at all.
        let docs: Vec<String> =
            ids.iter().map(|id| server.ask(&["GET", &format!("forebay:{{p:{region}}}:doc:{id}")])).collect();
        assert_eq!(docs.iter().collect::<BTreeSet<_>>().len(), docs.len(), "{name}: {docs:?}");
    }
    assert!(unmarked(project).is_empty(), "{name}");
}

crate::both_stores! {
    fn each_fault_on_the_way_to_redis_leaves_nothing_out() {
        let faults =
            [Break::CutBefore, Break::CutAfter, Break::CutWithin(40), Break::Stall, Break::Late(Duration::from_millis(500))];
        for (at, fault) in faults.iter().enumerate() {
            for step in 1..=5 {
                let server = Redis::start(&[]);
                let way = Wire::start(server.port);
                let project = project(&way.url(), "", &events(1..=12, &["a", "b", "c"]));
                for nth in 0..=1 {
                    way.break_at(step + nth, fault.clone());
                }
                let name = format!("fault {at} at step {step}");
                let outcome = run(&project);
                assert!(matches!(outcome.code(), Some(0 | 3)), "{name}\n{outcome}");
                let is_behind = !unmarked(&project).is_empty();
                assert_eq!(outcome.code() == Some(3), is_behind, "{name}\n{outcome}");
                run(&project);
                run(&project).ok();
                check_published(&name, &server, &project, 12);
            }
        }
    }

    fn killed_at_random_moments_the_next_run_publishes_what_is_left() {
        let server = Redis::start(&[]);
        let project = project(&server.url(), "", &events(1..=4000, &["a", "b", "c"]));
        let args = ["run", "pipeline.toml", "--source", "-"];
        for round in 1..=20 {
            let mut child = project.command(&args).stdin(Stdio::piped()).spawn().expect("the binary");
            // Each run is given more than the last, and no end: it cannot be faster than we kill it.
            let mut stdin = child.stdin.take().expect("stdin");
            let some = events(1..=round * 200, &["a", "b", "c"]);
            let before = latest(&server, "a");
            std::thread::scope(|scope| {
                // What is killed does not read all.
                let giving = scope.spawn(move || (stdin.write_all(some.as_bytes()).ok(), stdin));
                // Until readers see something new, and then a little longer by chance.
                wait_until(|| latest(&server, "a") != before);
                for _ in 0..(round * 37) % 50 {
                    std::thread::yield_now();
                }
                child.kill().expect("it runs");
                assert_eq!(child.wait().expect("the child").code(), None, "it was killed");
                drop(giving.join());
            });
        }
        run(&project).ok();
        check_published("killed", &server, &project, 4000);
    }
}
