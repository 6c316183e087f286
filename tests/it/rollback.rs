//! Rollbacks and forks: by the command, by the source's hashes, by a source of one's own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use forebay::source::{Next, Source, SourceError, SourceEvent};
use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline, Rollback};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::support::project::Project;
use crate::support::real_events::{EVM_PIPELINE, EVM_SCRIPT, check_balances, data, expected};
use crate::support::redis_server::Redis;

fn evm(pipeline: &str) -> Project {
    Project::with(&EVM_PIPELINE.replace("seq = \"seq\"", pipeline), EVM_SCRIPT, "")
}

/// The hash over all balances that are not zero, as the expected answer has it.
fn balances_hash(project: &Project) -> String {
    let mut rows = project.query("evm.db", "SELECT region, id, balance FROM account");
    rows.retain(|row| row[2] != "0");
    rows.sort();
    let text: String = rows.iter().map(|row| format!("{} {} {}\n", row[0], row[1], row[2])).collect();
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn evm_events() -> Vec<Json> {
    let file = std::fs::File::open(data("evm-ethereum.ndjson.gz")).expect("the data");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(flate2::read::GzDecoder::new(file)));
    lines.map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON")).collect()
}

/// The data as a chain: each block with a hash and a parent, and with branches that are left again.
fn evm_with_forks() -> String {
    let mut blocks: BTreeMap<i64, Vec<Json>> = BTreeMap::new();
    for event in evm_events() {
        blocks.entry(event["block"].as_i64().expect("a block")).or_default().push(event);
    }
    let blocks: Vec<(i64, Vec<Json>)> = blocks.into_iter().collect();
    let mut lines = String::new();
    let mut write = |events: &[Json], hash: &str, parent: &str, is_orphan: bool| {
        for event in events {
            let mut event = event.clone();
            (event["hash"], event["parent"]) = (hash.into(), parent.into());
            if is_orphan {
                event["value"] = format!("1{}", event["value"].as_str().expect("a value")).into();
                event["to"] = format!("{}-orphan", event["to"].as_str().expect("an account")).into();
            }
            lines.push_str(&event.to_string());
            lines.push('\n');
        }
    };
    let mut parent = "genesis".to_owned();
    for (at, (block, events)) in blocks.iter().enumerate() {
        // The first blocks lie millions apart.
        if at > 6 && at % 9 == 0 {
            let depth = (at * 7 % 50 + 1).min(blocks.len() - at);
            let mut branch = parent.clone();
            for (orphan, events) in &blocks[at..at + depth] {
                let hash = format!("orphan-{at}-{orphan}");
                write(events, &hash, &branch, true);
                branch = hash;
            }
        }
        let hash = format!("hash-{block}");
        write(events, &hash, &parent, false);
        parent = hash;
    }
    lines
}

crate::both_stores! {
    fn ethereum_goes_back_to_each_checkpoint_and_on_again() {
        let answer = expected("expected-evm-ethereum.json");
        for events in [7, 10_000] {
            let project = evm(&format!("seq = \"seq\"\n[rollback]\ndepth = 6000\n[batch]\nevents = {events}"));
            let source = data("evm-ethereum.ndjson.gz");
            let run = || project.forebay(&["run", "pipeline.toml", "--json", "--source", &source]).ok().json();
            run();
            let state = "SELECT region, id, balance, transfers FROM account ORDER BY region, id";
            let (full, regions) = (project.query("evm.db", state), "SELECT * FROM forebay_regions ORDER BY region");
            let counts = project.query("evm.db", regions);
            let checkpoints = answer["checkpoints"].as_array().expect("checkpoints");
            let back = |checkpoint: &Json| {
                let to = checkpoint["block"].as_i64().expect("a block");
                let command = ["rollback", "pipeline.toml", "--to", &to.to_string(), "--json"];
                let report = project.forebay(&command).ok().json();
                assert_eq!((&report["checkpoint"]["block"], &report["to"]), (&json!(to), &json!(to)));
                assert_eq!(balances_hash(&project), checkpoint["balances_sha256"], "as of block {to}");
                let total = project.query("evm.db", "SELECT events FROM forebay_pipelines");
                assert_eq!(total, [[checkpoint["rows"].to_string()]]);
                assert_eq!(project.forebay(&command).ok().json()["rolled_back"], false);
            };
            // Each from the end and on again; then one after another.
            for checkpoint in checkpoints {
                back(checkpoint);
                assert_eq!(run()["events"].as_u64(), Some(1412 - checkpoint["rows"].as_u64().expect("rows")));
                check_balances(&project.query("evm.db", "SELECT region, id, balance FROM account"), &answer);
                let seqs = |rows: &[Vec<String>]| rows.iter().map(|row| row[1..4].join(" ")).collect::<Vec<_>>();
                assert_eq!(seqs(&project.query("evm.db", regions)), seqs(&counts));
            }
            checkpoints.iter().rev().for_each(back);
            run();
            assert_eq!(project.query("evm.db", state), full);
        }
    }

    fn a_stream_with_forks_ends_like_the_stream_without_them() {
        let answer = expected("expected-evm-ethereum.json");
        let stream = evm_with_forks();
        for events in [3, 40, 10_000] {
            let project = evm(&format!("hash = \"hash\"\nparent = \"parent\"\n[rollback]\ndepth = 7000\n[batch]\nevents = {events}"));
            project.write("events.ndjson", &stream);
            project.forebay(&["run", "pipeline.toml", "--source", "events.ndjson"]).ok();
            check_balances(&project.query("evm.db", "SELECT region, id, balance FROM account"), &answer);
            // What is left to do of it is nothing.
            let again = project.forebay(&["run", "pipeline.toml", "--json", "--source", "events.ndjson"]).ok().json();
            assert_eq!((&again["events"], again.get("rollbacks")), (&json!(0), None));
            let orphans = project.query("evm.db", "SELECT count(*) FROM account WHERE id LIKE '%-orphan'");
            assert_eq!(orphans, [["0"]]);
        }
    }
}

const PIPELINE: &str = r#"
name = "chain"
[source]
path = "events.ndjson"
hash = "h"
parent = "p"
[entities.acc]
columns = { v = "bigint" }
indexes = ["v"]
[handlers]
script = "handlers.lua"
[store]
url = "sqlite:chain.db"
[batch]
events = 1
[rollback]
depth = 5
[snapshots]
every = "batch"
"#;

const SCRIPT: &str = r#"
function on_event(e, ctx)
  if e.v == nil then return ctx.acc:delete(e.id) end
  local a = ctx.acc:get(e.id) or { v = 0 }
  ctx.acc:set(e.id, { v = a.v + e.v })
end
function on_snapshot(ctx)
  local top = ctx.acc:find{ order = "-v", limit = 1 }[1]
  return { n = ctx.acc:count(), block = ctx.block, top = top and top.v }
end
"#;

/// One event of one block.
fn line(block: i64, hash: &str, parent: &str, id: &str, v: Option<i64>) -> String {
    json!({"block": block, "h": hash, "p": parent, "region": "r", "id": id, "v": v}).to_string() + "\n"
}

/// Blocks 1 to `last` of branch a.
fn chain(last: i64) -> String {
    (1..=last).map(|n| line(n, &format!("a{n}"), &format!("a{}", n - 1), &format!("k{}", n % 3), Some(n))).collect()
}

fn state(project: &Project) -> Vec<Vec<String>> {
    project.query("chain.db", "SELECT id, v FROM acc ORDER BY id")
}

crate::both_stores! {
    fn every_way_a_row_can_change_is_undone() {
        // Set, deleted, set again; deleted and made anew; made and deleted within the window; untouched.
        let events = line(1, "a1", "a0", "old", Some(1)) + &line(1, "a1", "a0", "gone", Some(2))
            + &line(1, "a1", "a0", "still", Some(3))
            + &line(2, "a2", "a1", "old", Some(10)) + &line(2, "a2", "a1", "old", None) + &line(2, "a2", "a1", "old", Some(5))
            + &line(3, "a3", "a2", "gone", None) + &line(3, "a3", "a2", "new", Some(7))
            + &line(4, "a4", "a3", "gone", Some(9)) + &line(4, "a4", "a3", "new", None)
            + &line(5, "a5", "a4", "old", None) + &line(5, "a5", "a4", "late", Some(1));
        for batch in [1, 100] {
            let project = Project::with(&PIPELINE.replace("events = 1", &format!("events = {batch}")), SCRIPT, &events);
            let as_of: Vec<_> = (1..=5)
                .map(|to: i64| {
                    project.forebay(&["run", "pipeline.toml", "--until", &to.to_string()]).ok();
                    (to, state(&project))
                })
                .collect();
            for (to, expected) in as_of.iter().rev() {
                project.forebay(&["rollback", "pipeline.toml", "--to", &to.to_string()]).ok();
                assert_eq!(state(&project), *expected, "back to {to} in batches of {batch}");
            }
            project.run_json();
            assert_eq!(state(&project), as_of[4].1);
            project.forebay(&["rollback", "pipeline.toml", "--to", "0"]).ok();
            assert!(state(&project).is_empty());
            assert_eq!(project.query("chain.db", "SELECT block, blocks, events FROM forebay_pipelines"), [["NULL", "0", "0"]]);
            project.run_json();
            assert_eq!(state(&project), as_of[4].1);
        }
    }

    fn past_the_kept_history_it_is_refused_with_the_oldest_block() {
        let project = Project::with(PIPELINE, SCRIPT, &chain(20));
        project.run_json();
        let before = state(&project);
        project
            .forebay(&["rollback", "pipeline.toml", "--to", "14"])
            .fails(2, &["cannot roll back to block 14", "the oldest block possible is 15", "rollback.depth = 5"]);
        assert_eq!(state(&project), before);
        project.forebay(&["rollback", "pipeline.toml", "--to", "25"]).ok();
        assert_eq!(state(&project), before);
        project.forebay(&["rollback", "pipeline.toml", "--to", "15"]).ok();
        project.run_json();
        assert_eq!(state(&project), before);
        // What is kept is bounded.
        let kept = project.query("chain.db", "SELECT count(*) FROM forebay_history");
        assert!(kept[0][0].parse::<u32>().expect("a count") <= 8, "{kept:?}");
        let none = Project::with(&PIPELINE.replace("depth = 5", "depth = 0"), SCRIPT, &chain(3));
        none.forebay(&["rollback", "pipeline.toml", "--to", "2"]).ends_with(1);
        none.run_json();
        none.forebay(&["rollback", "pipeline.toml", "--to", "2"]).fails(2, &["no history is kept (rollback.depth = 0)"]);
    }

    fn a_column_that_was_added_since_is_null_again() {
        let project = Project::with(PIPELINE, SCRIPT, &chain(6));
        project.forebay(&["run", "pipeline.toml", "--until", "4"]).ok();
        let before = state(&project);
        project.write("pipeline.toml", PIPELINE.replace("v = \"bigint\"", "a = \"text\", v = \"bigint\", z = \"numeric\""));
        project.write("handlers.lua", SCRIPT.replace("v = a.v + e.v }", "v = a.v + e.v, a = \"x\", z = numeric(1) }"));
        project.run_json();
        project.forebay(&["rollback", "pipeline.toml", "--to", "3"]).ok();
        let rows = project.query("chain.db", "SELECT id, a, v, z FROM acc ORDER BY id");
        assert_eq!(rows, [["k0", "NULL", "3", "NULL"], ["k1", "NULL", "1", "NULL"], ["k2", "NULL", "2", "NULL"]]);
        assert_ne!(state(&project), before);
    }

    fn a_fork_is_rolled_back_by_itself_and_snapshots_follow() {
        let branch: String = (9..=12).map(|n| line(n, &format!("b{n}"), &if n == 9 { "a8".into() } else { format!("b{}", n - 1) }, "k0", Some(n * 100))).collect();
        let project = Project::with(PIPELINE, SCRIPT, &(chain(10) + &branch));
        // Until block 10 comes the first branch whole, and of the second the beginning.
        let report = project.run_json();
        assert_eq!(report["checkpoint"]["block"], 12);
        let docs = project.forebay(&["latest", "--config", "pipeline.toml", "--meta"]).ok().json_lines();
        assert_eq!((&docs[0]["doc"], &docs[0]["block"]), (&json!({"n": 3, "block": 12, "top": 4209}), &json!(12)));
        // The same hash again is no fork, another one for the same block is.
        let other = line(12, "c12", "b11", "k1", Some(1));
        project.write("events.ndjson", chain(10) + &branch + &other);
        assert_eq!(project.run_json()["rollbacks"], 1);
        assert_eq!(state(&project), [["k0", "3009"], ["k1", "13"], ["k2", "15"]]);
    }

    fn a_second_run_over_the_same_file_has_nothing_to_do() {
        let fork = |block: i64, hash: &str, parent: &str| line(block, hash, parent, "k0", Some(block));
        let endings = [
            // It ends on a branch that is shorter than the one that was left, and on the first one again.
            fork(9, "b9", "a8"),
            fork(9, "b9", "a8") + &fork(10, "b10", "b9"),
            fork(10, "b10", "a9") + &fork(10, "a10", "a9"),
            fork(9, "b9", "a8") + &fork(9, "c9", "a8") + &fork(9, "d9", "a8"),
        ];
        for ending in endings {
            for batch in [1, 100] {
                let pipeline = PIPELINE.replace("events = 1", &format!("events = {batch}"));
                let project = Project::with(&pipeline, SCRIPT, &(chain(10) + &ending));
                project.run_json();
                let (before, checkpoint) = (state(&project), "SELECT block, events FROM forebay_pipelines");
                let stands = project.query("chain.db", checkpoint);
                let again = project.run_json();
                assert_eq!((&again["events"], again.get("rollbacks")), (&json!(0), None), "{ending}");
                assert_eq!((state(&project), project.query("chain.db", checkpoint)), (before, stands));
            }
        }
    }

    fn places_in_a_block_begin_anew_on_another_branch() {
        let place = |block: i64, hash: &str, parent: &str, seq: i64| {
            line(block, hash, parent, "k0", Some(seq)).replace("\"region\"", &format!("\"seq\":{seq},\"region\""))
        };
        let events: String = [(1, "a1", "a0"), (2, "a2", "a1"), (2, "b2", "a1"), (3, "b3", "b2"), (4, "b4", "b3")]
            .iter()
            .flat_map(|(block, hash, parent)| (0..3).map(|seq| place(*block, hash, parent, seq)))
            .collect();
        let project = Project::with(&PIPELINE.replace("hash = \"h\"", "seq = \"seq\"\nhash = \"h\""), SCRIPT, &events);
        project.run_json();
        assert_eq!(state(&project), [["k0", "12"]]);
        project.write("events.ndjson", events + &place(5, "b5", "b4", 0));
        assert_eq!(project.run_json()["events"], 1);
    }

    /// A block so large that it is handled in parts, of which the rest never counts: nothing of it is ever committed.
    fn a_large_block_that_is_left_is_not_committed_in_part() {
        let large: String = (0..30_000).map(|_| line(3, "a3", "a2", "big", Some(1))).collect();
        let events = chain(2) + &large + &line(3, "b3", "a2", "k0", Some(7));
        for batch in [1, 100_000] {
            let project = Project::with(&PIPELINE.replace("events = 1", &format!("events = {batch}")), SCRIPT, &events);
            project.run_json();
            assert_eq!(state(&project), [["k0", "7"], ["k1", "1"], ["k2", "2"]]);
            let counts = project.query("chain.db", "SELECT block, events FROM forebay_pipelines");
            assert_eq!(counts, [["3", "3"]]);
            let parts = project.query("chain.db", "SELECT count(*) FROM forebay_snapshots WHERE CAST(doc AS TEXT) LIKE '%\"n\":4%'");
            assert_eq!(parts, [["0"]]);
        }
    }

    /// Of a batch with more blocks than `depth` only the last can be undone, whatever older batches have left.
    fn history_that_a_large_batch_left_out_is_not_gone_through() {
        let project = Project::with(&PIPELINE.replace("depth = 5", "depth = 30"), SCRIPT, &chain(200));
        for until in 1..=40 {
            project.forebay(&["run", "pipeline.toml", "--until", &until.to_string()]).ok();
        }
        project.write("pipeline.toml", PIPELINE.replace("depth = 5", "depth = 30").replace("events = 1", "events = 1000"));
        project.forebay(&["run", "pipeline.toml", "--until", "100"]).ok();
        project.forebay(&["rollback", "pipeline.toml", "--to", "71"]).ok();
        project.write("pipeline.toml", PIPELINE.replace("depth = 5", "depth = 1000"));
        project.forebay(&["rollback", "pipeline.toml", "--to", "60"]).fails(2, &["the oldest block possible is 70"]);
        project.forebay(&["run", "pipeline.toml"]).ok();
        let whole = Project::with(PIPELINE, SCRIPT, &chain(200));
        whole.run_json();
        assert_eq!(state(&project), state(&whole));
    }

    /// A crash between a rollback and its snapshots: the next run makes them first, also where there is nothing to say.
    fn snapshots_that_a_crash_left_out_are_made_by_the_next_run() {
        let late = line(4, "a4", "a3", "x", Some(1)).replace("\"r\"", "\"late\"");
        let project = Project::with(PIPELINE, SCRIPT, &(chain(4) + &late));
        project.run_json();
        project.forebay(&["rollback", "pipeline.toml", "--to", "3"]).ok();
        let latest = || project.forebay(&["latest", "late", "--config", "pipeline.toml"]).ok().stdout();
        assert_eq!(latest(), "null\n");
        // As if it had been killed before its snapshots.
        project.run_json();
        assert!(latest().contains("\"n\":1"), "{}", latest());
        let broken = "on_snapshot fails";
        project.write("handlers.lua", SCRIPT.replace("function on_snapshot(ctx)", &format!("function on_snapshot(ctx) error('{broken}')")));
        project.forebay(&["rollback", "pipeline.toml", "--to", "3"]).fails(1, &[broken]);
        project.write("handlers.lua", SCRIPT);
        project.forebay(&["rollback", "pipeline.toml", "--to", "3"]).ok();
        assert_eq!(latest(), "null\n");
    }

    /// A handler is never asked what it says of a region without events: no run without the events would ask it.
    fn a_region_that_has_no_event_any_more_says_nothing() {
        let late = line(4, "a4", "a3", "x", Some(1)).replace("\"r\"", "\"late\"");
        let script = SCRIPT.replace("return { n", "assert(ctx.acc:count() > 0, ctx.region .. ' was asked') return { n");
        for every in ["batch", "end"] {
            let settings = PIPELINE.replace("every = \"batch\"", &format!("every = \"{every}\""));
            let project = Project::with(&settings, &script, &(chain(4) + &late));
            project.run_json();
            let latest = |region| project.forebay(&["latest", region, "--config", "pipeline.toml"]);
            assert!(latest("late").ok().stdout().contains("\"n\":1"));
            project.forebay(&["rollback", "pipeline.toml", "--to", "3"]).ok();
            assert_eq!(latest("late").ok().stdout(), "null\n", "{every}");
            assert!(latest("r").ok().stdout().contains("\"block\":3"), "{every}");
            project.forebay(&["status", "pipeline.toml"]).ok();
            project.run_json();
            assert!(latest("late").ok().stdout().contains("\"n\":1"), "{every}");
        }
    }

    fn a_fork_below_the_window_stops_the_run_with_both_hashes() {
        let project = Project::with(PIPELINE, SCRIPT, &chain(20));
        project.run_json();
        let before = state(&project);
        for (block, parent, ours) in [(12, "a11", "a1"), (16, "z15", "a15"), (21, "z20", "a20")] {
            project.write("events.ndjson", chain(20) + &line(block, "zz", parent, "k0", Some(1)));
            project.forebay(&["run", "pipeline.toml"]).fails(
                1,
                &[
                    "events.ndjson:21: a fork that cannot be followed",
                    &format!("block {block} comes with hash zz on parent {parent}"),
                    &format!("is held with hash {ours}"),
                    "the oldest block that can be rolled back to is 15 (rollback.depth = 5)",
                ],
            );
            assert_eq!(state(&project), before);
        }
    }
}

/// Killed at some moment, a rollback has happened whole or not at all.
#[test]
fn a_rollback_that_is_killed_leaves_the_old_or_the_new_state() {
    let block = |n: i64| {
        (0..400)
            .map(|k| line(n, &format!("a{n}"), &format!("a{}", n - 1), &format!("k{k}"), Some(n)))
            .collect::<String>()
    };
    let events: String = (1..=20).map(block).collect();
    let pipeline = PIPELINE.replace("depth = 5", "depth = 30").replace("events = 1", "events = 2000");
    let project = Project::with(&pipeline, SCRIPT, &events);
    project.run_json();
    let new = state(&project);
    let rollback = ["rollback", "pipeline.toml", "--to", "6"];
    project.forebay(&rollback).ok();
    let old = state(&project);
    for attempt in 0..12_u64 {
        project.run_json();
        assert_eq!(state(&project), new);
        let mut child = project.command(&rollback).spawn().expect("the binary starts");
        let (sender, ended) = crossbeam_channel::bounded::<()>(1);
        // Not a sleep to be sure of something: any moment is right.
        assert!(ended.recv_timeout(std::time::Duration::from_micros(attempt * 1_700)).is_err());
        drop(sender);
        let _ = child.kill();
        child.wait().expect("it has ended");
        let now = state(&project);
        assert!(now == old || now == new, "attempt {attempt}");
    }
}

/// Blocks without events are not in the data: then the parent is not held, and that says nothing.
#[test]
fn real_hashes_with_gaps_are_followed() {
    let project = evm("seq = \"seq\"\nhash = \"block_hash\"\nparent = \"parent_hash\"\n[rollback]\ndepth = 64");
    project.forebay(&["run", "pipeline.toml", "--source", &data("evm-ethereum.ndjson.gz")]).ok();
    let rows = project.query("evm.db", "SELECT region, id, balance FROM account");
    check_balances(&rows, &expected("expected-evm-ethereum.json"));
}

#[test]
fn a_field_of_hashes_that_is_not_there_is_named() {
    let project = Project::with(&PIPELINE.replace("hash = \"h\"", "hash = \"hsh\""), SCRIPT, &chain(2));
    project.forebay(&["run", "pipeline.toml"]).fails(2, &["events.ndjson:1:", "field \"hsh\" is missing"]);
    let project = Project::with(PIPELINE, SCRIPT, &chain(2).replace("\"a1\"", "5"));
    project.forebay(&["run", "pipeline.toml"]).fails(2, &["field \"h\": expected the hash of a block", "got 5"]);
    let nulls = Project::with(PIPELINE, SCRIPT, &chain(4).replace("\"a2\"", "null"));
    assert_eq!(nulls.run_json()["events"], 4);
}

/// The snapshots of a rollback are published: older blocks, new numbers, also where the content is the same again.
#[test]
fn redis_follows_a_rollback() {
    let redis = Redis::start(&[]);
    // At the end: how batches are cut depends on how long commits take.
    let snapshots = format!("every = \"end\"\nurl = \"{}\"", redis.url());
    let script = SCRIPT.replace(", block = ctx.block", "");
    let project = Project::with(&PIPELINE.replace("every = \"batch\"", &snapshots), &script, &chain(6));
    let latest = || {
        let lines = project.forebay(&["latest", "--config", "pipeline.toml", "--meta"]).ok().json_lines();
        (lines[0]["seq"].as_u64().expect("a number"), lines[0]["doc"].clone(), lines[0]["block"].clone())
    };
    project.forebay(&["run", "pipeline.toml", "--until", "4"]).ok();
    let (first, as_of_4, _) = latest();
    project.run_json();
    let (second, ..) = latest();
    assert!(second > first);
    let report = project.forebay(&["rollback", "pipeline.toml", "--to", "4", "--json"]).ok().json();
    assert_eq!(report["snapshots"]["published"], 1);
    let (third, doc, block) = latest();
    assert!(third > second && doc == as_of_4 && block == json!(4), "{third} {doc} {block}");
    // A block that changes nothing: the same content is published under a new number all the same.
    let same = chain(6) + &line(7, "a7", "a6", "none", None);
    project.write("events.ndjson", same);
    project.run_json();
    let (fourth, doc, _) = latest();
    project.forebay(&["rollback", "pipeline.toml", "--to", "6"]).ok();
    let (fifth, again, block) = latest();
    assert!(fifth > fourth && doc == again && block == json!(6), "{fourth} {fifth} {doc} {again}");
}

forebay::entity! {
    struct Sum in "sum" {
        v: i64,
    }
    index v
}

struct Sums;

#[derive(serde::Deserialize)]
struct Add {
    v: i64,
}

impl Handler for Sums {
    type Event<'e> = Add;
    fn entities(&self) -> Vec<EntityTable> {
        vec![Sum::table()]
    }
    fn on_event(&self, event: Add, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let v = ctx.get::<Sum>("all")?.map_or(0, |sum| sum.v) + event.v;
        ctx.set("all", Sum { v })
    }
}

/// Events of `(block, v)`, and rollbacks.
struct Scripted(std::vec::IntoIter<Result<(i64, i64), i64>>);

impl Source for Scripted {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        Ok(match self.0.next() {
            None => Next::End,
            Some(Err(to)) => Next::Rollback { to },
            Some(Ok((block, v))) => {
                event.block = block;
                event.region.replace_range(.., "r");
                event.json = format!("{{\"v\":{v}}}");
                Next::Event
            }
        })
    }
}

/// A source of one's own says when to go back, and a hook tells when it has happened.
#[test]
fn a_source_may_say_that_it_goes_back() {
    let project = Project::new();
    let store = format!("sqlite:{}", project.path("s.db").display());
    let told: Arc<Mutex<Vec<Rollback>>> = Arc::default();
    let run = |steps: Vec<Result<(i64, i64), i64>>, depth: u64| {
        let told = Arc::clone(&told);
        let pipeline = Pipeline::new("sums", Sums).expect("a pipeline").store_url(&store).expect("a store");
        pipeline
            .rollback_depth(depth)
            .batch(forebay::config::BatchConfig::default().with_events(1).expect("events"))
            .on_rollback(move |rollback| told.lock().expect("told").push(rollback.clone()))
            .source(Scripted(steps.into_iter()))
            .run()
    };
    let sum = || crate::support::project::query(&project.path("s.db"), "SELECT v FROM sum");
    let first = vec![Ok((1, 1)), Ok((2, 10)), Ok((5, 100)), Err(3), Ok((4, 1000)), Err(9), Ok((6, 5)), Err(6), Err(2)];
    run(first.clone(), 10).expect("a run");
    assert_eq!(sum(), [["11"]]);
    // A source that begins anew says the same again; what is committed is not done twice.
    let more: Vec<_> = first.into_iter().chain([Ok((3, 7))]).collect();
    let report = run(more, 10).expect("a run");
    assert_eq!((sum(), report.checkpoint.block), (vec![vec!["18".to_owned()]], Some(3)));
    let told = told.lock().expect("told").clone();
    assert!(told.iter().all(|rollback| rollback.from.is_some_and(|from| from > rollback.to)), "{told:?}");
    // What lies before the block, or further back than is kept, is refused.
    let late = run(vec![Ok((3, 7)), Ok((4, 1)), Err(3), Ok((3, 9))], 10).expect_err("late").to_string();
    assert!(late.contains("block 3 comes after a rollback to block 3"), "{late}");
    run(vec![Ok((90, 1)), Ok((91, 1))], 10).expect("a run");
    let deep = run(vec![Ok((91, 1)), Err(2), Ok((3, 1))], 10).expect_err("too deep").to_string();
    assert!(deep.contains("the oldest block possible is 81"), "{deep}");
}

#[test]
fn find_names_the_line_to_add() {
    let script = "function on_event(e, ctx) ctx.acc:find{ where = {{\"w\", \">\", 1}} } end";
    let pipeline = PIPELINE.replace("v = \"bigint\"", "v = \"bigint\", w = \"bigint\"");
    let project = Project::with(&pipeline, script, &chain(1));
    for command in ["check", "run"] {
        let code = if command == "check" { 2 } else { 1 };
        project
            .forebay(&[command, "pipeline.toml"])
            .fails(code, &["handlers.lua:1", "indexes = [\"w\"] in [entities.acc]"]);
    }
    let json = Project::with(&PIPELINE.replace("v = \"bigint\" }", "v = \"jsonb\" }"), SCRIPT, &chain(1));
    json.forebay(&["check", "pipeline.toml"]).fails(2, &["a jsonb column has no order"]);
}
