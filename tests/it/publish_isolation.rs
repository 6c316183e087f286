//! What fails for one region, server or publisher while snapshots are published, and must not spread to another.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::support::postgres_server::Server;
use crate::support::project::{Outcome, Project};
use crate::support::publishing::{pairs, statuses};
use crate::support::redis_proxy::{Break, Wire};
use crate::support::redis_server::{Redis, RedisCluster};
use crate::support::{signal, wait_until};

fn publish_with(url: &str, docs: &str, args: &[&str]) -> Outcome {
    let all = [&["publish", "-", "--pipeline", "p", "--snapshots", url, "--json"], args].concat();
    Project::new().forebay_with_input(&all, docs)
}

fn summary(server: &Redis) -> Vec<String> {
    let text: Option<String> = server.ask(&["GET", "forebay:p:summary"]);
    let text: Json = serde_json::from_str(&text.unwrap_or("{\"regions\":[]}".into())).expect("JSON");
    let regions = text["regions"].as_array().expect("a list");
    regions.iter().map(|region| region["region"].as_str().expect("a name").to_owned()).collect()
}

fn docs(regions: &[&str], value: u64) -> String {
    regions.iter().map(|region| json!({ "region": region, "v": value }).to_string() + "\n").collect()
}

const SCRIPT: &str = r#"
function on_event(event, ctx) ctx.thing:set("v", { v = event.v }) end
function on_snapshot(ctx) return { v = ctx.thing:get("v").v } end
"#;

fn project(snapshots: &str, events: &str) -> Project {
    let file = format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.thing]\ncolumns = {{ v = \"bigint\" }}\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n[batch]\nevents = 1\n[snapshots]\ntimeout = \"300ms\"\n{snapshots}\n"
    );
    Project::with(&file, SCRIPT, events)
}

fn events(blocks: std::ops::RangeInclusive<u64>, regions: &[&str]) -> String {
    let event =
        |(block, region): (u64, &&str)| format!("{{\"block\":{block},\"region\":\"{region}\",\"v\":{block}}}\n");
    blocks.flat_map(|block| regions.iter().map(move |region| (block, region))).map(event).collect()
}

fn run(project: &Project) -> Outcome {
    project.forebay(&["run", "pipeline.toml", "--json"])
}

fn value(server: &Redis, region: &str) -> Json {
    let id: Option<String> = server.ask(&["GET", &format!("forebay:{{p:{region}}}:latest")]);
    let doc: Option<String> = id.and_then(|id| server.ask(&["GET", &format!("forebay:{{p:{region}}}:doc:{id}")]));
    doc.map_or(Json::Null, |doc| serde_json::from_str::<Json>(&doc).expect("JSON")["v"].clone())
}

/// Names that order differently as texts of JSON and as names.
#[test]
fn each_region_is_read_back_under_its_own_name() {
    let names = ["eu", "eu west", "eu!", "a\"b", "a\\b", "a\u{7}", "a b", "<id>", "%1", "{x}", "é", "a:b"];
    for server in [Redis::start(&[])] {
        publish_with(&server.url(), &docs(&names, 1), &[]).ok();
        let args = ["latest", "--meta", "--pipeline", "p", "--snapshots", &server.url()];
        let lines = Project::new().forebay(&args).ok().json_lines();
        assert_eq!(lines.len(), names.len());
        for line in &lines {
            assert_eq!(line["region"], line["doc"]["region"]);
        }
        let mut found: Vec<&str> = lines.iter().filter_map(|line| line["region"].as_str()).collect();
        let mut sorted = names;
        sorted.sort_unstable();
        assert!(found.is_sorted(), "{found:?}");
        found.sort_unstable();
        assert_eq!(found, sorted);
    }
}

#[test]
fn one_region_that_cannot_be_read_hides_no_other() {
    let server = Redis::start(&[]);
    publish_with(&server.url(), &docs(&["a", "b", "c"], 1), &[]).ok();
    let _: i64 = server.ask(&["DEL", "forebay:{p:b}:seq"]);
    let _: i64 = server.ask(&["SADD", "forebay:{p:b}:seq", "x"]);
    for regions in [&[][..], &["a", "b", "c"]] {
        let url = server.url();
        let args = [&["latest"], regions, &["--pipeline", "p", "--snapshots", &url]].concat();
        let outcome = Project::new().forebay(&args).fails(1, &["b: WRONGTYPE", "forebay:{p:b}:seq"]);
        assert_eq!(outcome.json_lines().len(), 2, "{outcome}");
    }
}

/// While one region is busy, a region that was refused is tried again, and a quiet one does not expire.
#[test]
fn busy_regions_hold_up_no_other() {
    let server = Redis::start(&[]);
    let _: String = server.ask(&["SET", "forebay:{p:b}:index", "mine"]);
    let project = project(&format!("url = \"{}\"\nevery = \"batch\"\nttl = \"6s\"", server.url()), "");
    let args = ["run", "pipeline.toml", "--source", "-"];
    let mut child = project.command(&args).stdin(Stdio::piped()).spawn().expect("the binary");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(events(1..=1, &["a", "b", "quiet"]).as_bytes()).expect("stdin");
    let lives_for = || server.ask::<i64>(&["PTTL", "forebay:{p:quiet}:latest"]);
    let (mut block, mut last, mut was_prolonged) = (1, i64::MAX, false);
    wait_until(|| {
        block += 1;
        stdin.write_all(events(block..=block, &["a"]).as_bytes()).expect("stdin");
        if block == 20 {
            let _: i64 = server.ask(&["DEL", "forebay:{p:b}:index"]);
        }
        let now = lives_for();
        was_prolonged |= last > 0 && now > last;
        last = now;
        was_prolonged && value(&server, "b") == 1
    });
    assert_eq!((value(&server, "b"), value(&server, "quiet")), (json!(1), json!(1)));
    drop(stdin);
    project.finish(child, &args).ok();
    assert_eq!((value(&server, "a"), value(&server, "b"), value(&server, "quiet")), (json!(block), json!(1), json!(1)));
}

#[test]
fn a_dead_server_of_a_cluster_holds_up_no_other_in_a_run() {
    let mut cluster = RedisCluster::start(&["--cluster-require-full-coverage", "no"]);
    let names: Vec<String> = (0..2500).map(|at| format!("r{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let project = project(&format!("url = \"{}\"\nevery = \"end\"", cluster.url()), &events(1..=2, &names));
    let owners: Vec<usize> =
        names[..20].iter().map(|name| cluster.owner(&format!("forebay:{{p:{name}}}:latest"))).collect();
    cluster.nodes[1].kill();
    let begun = Instant::now();
    let outcome = run(&project).ends_with(3);
    // Had each of its regions cost a time-out, it would be 31 s over all connections.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let report = outcome.json();
    let (published, failed) = (&report["snapshots"]["published"], &report["snapshots"]["failed"]);
    let sum = published.as_u64().unwrap_or(0) + failed.as_u64().unwrap_or(0);
    assert!(sum == 2500 && failed.as_u64() < Some(1100), "{report}");
    for (name, owner) in names[..20].iter().zip(owners).filter(|(_, owner)| *owner != 1) {
        assert_eq!(value(&cluster.nodes[owner], name), 2, "{name}");
    }
    // Those that can be read are, and the others are named.
    let outcome = project.forebay(&[
        "latest",
        names[0],
        names[1],
        names[2],
        names[3],
        names[4],
        names[5],
        "--config",
        "pipeline.toml",
    ]);
    assert!(!outcome.json_lines().is_empty() && outcome.code() == Some(1), "{outcome}");
}

/// What is wrong with the summary is wrong with no region.
#[test]
fn a_summary_that_cannot_be_read_or_written_blocks_no_region() {
    let server = Redis::start(&[]);
    let one = project(&format!("url = \"{}\"", server.url()), &events(1..=2, &["a", "b"]));
    let _: i64 = server.ask(&["LPUSH", "forebay:p:summary", "x"]);
    let outcome = run(&one).ok();
    assert!(outcome.stderr().contains("WRONGTYPE"), "{outcome}");
    assert_eq!((value(&server, "a"), value(&server, "b")), (json!(2), json!(2)));
    let outcome = publish_with(&server.url(), &docs(&["a"], 7), &[]).ok();
    assert!(outcome.stderr().contains("the summary is left alone: WRONGTYPE"), "{outcome}");
    assert!(outcome.stderr().contains("a store publishes 1 region of these too (a for one)"), "{outcome}");
    assert_eq!(value(&server, "a"), 7);
    assert_eq!(server.ask::<i64>(&["LLEN", "forebay:p:summary"]), 1);
    // Its server of a cluster has died.
    let mut cluster = RedisCluster::start(&["--cluster-require-full-coverage", "no"]);
    let names: Vec<String> = (0..12).map(|at| format!("r{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let two = project(&format!("url = \"{}\"", cluster.url()), &events(1..=2, &names));
    let owners: Vec<usize> = names.iter().map(|name| cluster.owner(&format!("forebay:{{p:{name}}}:latest"))).collect();
    let dead = cluster.owner("forebay:p:summary");
    cluster.nodes[dead].kill();
    run(&two).ends_with(3);
    for (name, owner) in names.iter().zip(owners).filter(|(_, owner)| *owner != dead) {
        assert_eq!(value(&cluster.nodes[owner], name), 2, "{name}");
    }
}

#[test]
fn a_failed_region_leaves_no_hole_in_the_summary() {
    let server = Redis::start(&[]);
    let project = project(&format!("url = \"{}\"", server.url()), &events(1..=2, &["a", "b", "c"]));
    let _: String = server.ask(&["SET", "forebay:{p:b}:index", "mine"]);
    run(&project).ends_with(3);
    assert!(summary(&server).is_empty());
    project.forebay(&["publish", "--all", "--config", "pipeline.toml"]).ends_with(3);
    assert!(summary(&server).is_empty());
    let _: i64 = server.ask(&["DEL", "forebay:{p:b}:index"]);
    run(&project).ok();
    assert_eq!(summary(&server), ["a", "b", "c"]);
    let _: i64 = server.ask(&["DEL", "forebay:p:summary"]);
    project.forebay(&["publish", "--all", "--config", "pipeline.toml"]).ok();
    assert_eq!(summary(&server), ["a", "b", "c"]);
    // Emptied while nobody looked: the next run gives it back what it had, whether there is something new or not.
    for last in [2, 3] {
        let _: String = server.ask(&["FLUSHALL"]);
        project.write("events.ndjson", events(1..=2, &["a", "b", "c"]) + &events(3..=last, &["a"]));
        let outcome = run(&project).ok();
        // Of 3, or of 2 if what is new of the first one was published before it was looked what is there.
        assert!(outcome.stderr().contains("Redis lacks what was published before, of "), "{outcome}");
        assert_eq!((value(&server, "a"), value(&server, "b")), (json!(last), json!(2)));
        assert_eq!(summary(&server), ["a", "b", "c"]);
    }
    // A region that failed leaves nothing old of the others in the summary of the next run.
    let _: i64 = server.ask(&["DEL", "forebay:{p:b}:index"]);
    let _: String = server.ask(&["SET", "forebay:{p:b}:index", "mine"]);
    project.write(
        "events.ndjson",
        events(1..=2, &["a", "b", "c"]) + &events(3..=3, &["a"]) + &events(4..=4, &["a", "b", "c"]),
    );
    run(&project).ends_with(3);
    let _: i64 = server.ask(&["DEL", "forebay:{p:b}:index"]);
    run(&project).ok();
    let text: String = server.ask(&["GET", "forebay:p:summary"]);
    for name in ["a", "b", "c"] {
        let id: String = server.ask(&["GET", &format!("forebay:{{p:{name}}}:latest")]);
        assert!(text.contains(&id), "{text}");
    }
}

#[test]
fn kept_regions_survive_what_goes_wrong_with_keeping_them() {
    let server = Redis::start(&[]);
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let way = Wire::start(server.port);
    publish_with(&way.url(), &docs(&names, 0), &[]).ok();
    for (step, fault) in
        (1..=3).flat_map(|step| [(step, Break::CutWithin(40)), (step, Break::CutBefore), (step, Break::CutAfter)])
    {
        way.break_at(way.steps() + step, fault);
        let outcome = publish_with(&way.url(), &docs(&["a"], way.steps()), &[]).ok();
        assert_eq!(statuses(&outcome).1["kept"], 7, "{outcome}");
        assert_eq!(summary(&server), names);
    }
    // One that cannot be kept now stays in the summary, and is kept again later.
    let _: i64 = server.ask(&["DEL", "forebay:{p:c}:latest"]);
    let _: i64 = server.ask(&["LPUSH", "forebay:{p:c}:latest", "x"]);
    let outcome = publish_with(&server.url(), &docs(&["a"], 1), &[]).ends_with(3);
    assert!(outcome.stdout().contains("it was not kept: WRONGTYPE"), "{outcome}");
    assert_eq!((&statuses(&outcome).1["kept"], &statuses(&outcome).1["failed"]), (&json!(6), &json!(1)));
    assert_eq!(summary(&server), names);
}

#[test]
fn kept_regions_of_a_server_whose_slot_moves_are_kept() {
    let cluster = RedisCluster::start(&[]);
    let names: Vec<String> = (0..30).map(|at| format!("r{at:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    publish_with(&cluster.url(), &docs(&names, 0), &[]).ok();
    let key = "forebay:{p:r00}:latest";
    let slot: usize = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", key]);
    let from = cluster.owner(key);
    let to = (from + 1) % 3;
    cluster.begin_move(slot, from, to);
    let keys: Vec<String> = cluster.nodes[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "100"]);
    for key in keys {
        let port = cluster.nodes[to].port.to_string();
        let _: String = cluster.nodes[from].ask(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]);
    }
    // The region in between cannot be asked for and is named; the others are kept.
    let outcome = publish_with(&cluster.url(), &docs(&names[29..], 1), &[]).ends_with(3);
    assert_eq!(statuses(&outcome).1["kept"].as_u64(), Some(28), "{outcome}");
    let text: String = cluster.ask(&["GET", "forebay:p:summary"]);
    assert!(names.iter().all(|name| text.contains(&format!("\"{name}\""))), "{text}");
}

/// Two publish at once what each knows of: the summary has both.
#[test]
fn two_publishers_at_once_leave_a_summary_of_both() {
    let server = Redis::start(&[]);
    let url = server.url();
    for round in 0..10 {
        std::thread::scope(|scope| {
            for side in ["x", "y"] {
                let url = &url;
                scope.spawn(move || {
                    let names: Vec<String> =
                        (0..5).map(|at| format!("{side}{at}")).chain([format!("{side}{round}new")]).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    publish_with(url, &docs(&names, round), &[]).ok();
                });
            }
        });
        let names = summary(&server);
        for side in ["x", "y"] {
            assert!(
                names.contains(&format!("{side}{round}new")) && names.contains(&format!("{side}4")),
                "{round}: {names:?}"
            );
        }
    }
}

#[test]
fn a_store_made_anew_is_not_taken_for_published() {
    let server = Redis::start(&[]);
    let file = format!("url = \"{}\"\nevery = \"1 blocks\"\ndedup = \"0s\"", server.url());
    let first = project(&file, &events(1..=8, &["a", "b"]));
    run(&first).ok();
    // Filled without Redis, then told to publish all: Redis has the higher number.
    let second = project("every = \"end\"", &events(1..=9, &["a", "b"]));
    run(&second).ok();
    second.write("pipeline.toml", std::fs::read_to_string(first.path("pipeline.toml")).expect("file"));
    let publish = ["publish", "--all", "--config", "pipeline.toml", "--json"];
    second.forebay(&publish).fails(2, &["another store publishes to", "give --take-over"]);
    let outcome = second.forebay(&[&publish[..], &["--take-over"]].concat()).ends_with(3);
    assert!(outcome.stderr().contains("Redis has a higher number than this store"), "{outcome}");
    assert_eq!(statuses(&outcome).0, pairs(&[("a", "stale"), ("b", "stale")]));
    assert_eq!(outcome.json_lines()[0]["error"], "Redis has number 8 of it, which is newer than 1: it stays");
    assert_eq!(value(&server, "a"), 8);
    second.forebay(&["status", "pipeline.toml"]).ends_with(1);
    assert_eq!(run(&second).ok().json()["snapshots"]["published"], 2);
    assert_eq!((value(&server, "a"), value(&server, "b")), (json!(9), json!(9)));
    second.forebay(&["status", "pipeline.toml"]).ok();
    // Without the summary nobody knows how far readers are: the end of a run decides, not its middle.
    let third = project(&file, &events(1..=9, &["a", "b"]));
    let _: i64 = server.ask(&["DEL", "forebay:p:summary"]);
    let take_over = ["run", "pipeline.toml", "--json", "--take-over"];
    third.forebay(&take_over).ok();
    assert_eq!(value(&server, "a"), 9);
    third.forebay(&["status", "pipeline.toml"]).ok();
    // With numbers as high or higher, and older blocks.
    let fifth = project(&file, &events(1..=3, &["a", "b"]));
    let many: String = (1..=60).map(|at| format!("{{\"block\":{},\"region\":\"a\",\"v\":{at}}}\n", at - 100)).collect();
    fifth.write("events.ndjson", many);
    let outcome = fifth.forebay(&take_over).ok();
    assert!(outcome.stderr().contains("Redis has newer snapshots than this store"), "{outcome}");
    assert_eq!((value(&server, "a"), value(&server, "b")), (json!(9), json!(9)));
    // Behind what readers have: nothing goes back, and it is said. The number there is 9, or 10 if the run before last met
    // it while it ran.
    let fourth = project(&file, &events(1..=3, &["a", "b"]));
    let outcome = fourth.forebay(&take_over).ok();
    assert!(
        outcome.stderr().contains("Redis has newer snapshots than this store, of 2 regions (a for one: number "),
        "{outcome}"
    );
    assert_eq!(outcome.json()["snapshots"]["failed"], 0);
    assert_eq!(value(&server, "a"), 9);
}

/// A region whose last event lies before other batches' borders has the same content after a rebuild.
#[test]
fn a_rebuild_with_other_batches_catches_up() {
    let server = Redis::start(&[]);
    let all = events(1..=4, &["a"]) + &events(5..=12, &["b"]);
    let file = format!("url = \"{}\"\nevery = \"4 blocks\"", server.url());
    let first = project(&file, &all);
    run(&first).ok();
    let second = project(&file.replace("4 blocks", "end"), &all);
    second.forebay(&["run", "pipeline.toml", "--until", "9", "--take-over"]).ok();
    run(&second).ok();
    second.forebay(&["status", "pipeline.toml"]).ok();
}

#[test]
fn rights_that_lack_are_found_before_anything_is_written() {
    let server = Redis::start(&[]);
    let commands = "+get +mget +exists +set +zadd +zscore +zrem +pexpire +del +eval +evalsha +hsetnx +hlen";
    let rights: Vec<&str> = commands.split(' ').collect();
    let user = [&["ACL", "SETUSER", "pub", "on", ">x", "~*"][..], &rights].concat();
    let _: String = server.ask(&user);
    let url = format!("redis://pub:x@127.0.0.1:{}", server.port);
    publish_with(&url, &docs(&["a"], 1), &[]).ok();
    let before = server.keys();
    let outcome = publish_with(&url, &docs(&["a"], 2), &[]).ends_with(3);
    assert!(outcome.stdout().contains("can't run this command or subcommand: forebay:{p:a}:index"), "{outcome}");
    assert_eq!((value(&server, "a"), server.keys()), (json!(1), before));
    // The key under which regions vote may be out of reach: that costs a round trip, and no region.
    let user = ["ACL", "SETUSER", "pub", "resetkeys", "~forebay:{p:*", "~forebay:p:summary", "+@all"];
    let _: String = server.ask(&user);
    publish_with(&url, &docs(&["a", "b"], 3), &[]).ok();
    assert_eq!(summary(&server), ["a", "b"]);
    // Nobody is let in without a password.
    let _: String = server.ask(&["ACL", "SETUSER", "default", "off"]);
    let outcome = publish_with(&server.url(), &docs(&["a"], 4), &[]).ends_with(3);
    assert!(outcome.stdout().contains("it wants a password"), "{outcome}");
}

#[test]
fn a_server_that_takes_few_clients_gets_all_regions() {
    let server = Redis::start(&["--maxclients", "4"]);
    let names: Vec<String> = (0..40).map(|at| format!("r{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outcome = publish_with(&server.url(), &docs(&names, 1), &[]).ok();
    assert_eq!(statuses(&outcome).1["published"], 40);
}

#[test]
fn a_server_that_does_not_answer_is_given_up_once_and_not_for_each_region() {
    let stalled = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", stalled.local_addr().expect("an address"));
    let large = "x".repeat(1_200_000);
    let docs: String = (0..64).map(|at| format!("{{\"region\":\"r{at}\",\"v\":\"{large}\"}}\n")).collect();
    stalled.set_nonblocking(true).expect("a listener");
    for pool in [1, 8] {
        let outcome = publish_with(&url, &docs, &["--pool", &pool.to_string(), "--timeout", "300ms"]).ends_with(3);
        assert_eq!(statuses(&outcome).1["failed"], 64);
        let connections = std::iter::from_fn(|| stalled.accept().ok()).count();
        assert!(connections <= 2 * pool, "{connections} connections");
    }
}

#[test]
fn a_stop_at_the_end_does_not_wait_for_redis() {
    let stalled = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", stalled.local_addr().expect("an address"));
    let project = project(&format!("url = \"{url}\""), &events(1..=3, &["a", "b"]));
    let text = std::fs::read_to_string(project.path("pipeline.toml")).expect("file").replace("300ms", "60s");
    project.write("pipeline.toml", text);
    let args = ["run", "pipeline.toml", "--drain-timeout", "500ms"];
    let child = project.command(&args).spawn().expect("the binary");
    wait_until(|| {
        project.path("p.db").exists()
            && project
                .forebay(&["status", "pipeline.toml", "--snapshots", "redis://127.0.0.1:1"])
                .stdout()
                .contains("block 3")
    });
    let begun = Instant::now();
    signal::send("INT", child.id());
    let outcome = project.finish(child, &args).ends_with(130);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}\n{outcome}", begun.elapsed());
    assert!(outcome.stderr().contains("not published: every region: publishing did not end in time"), "{outcome}");
}

/// The store has no connection left for the outbox.
#[test]
fn an_outbox_that_cannot_be_read_is_no_success() {
    let server = Redis::start(&[]);
    let database = Server::shared().make_database();
    Server::shared().execute(
        &database,
        &format!("CREATE ROLE one_{database} LOGIN CONNECTION LIMIT 1; GRANT CREATE ON DATABASE {database} TO one_{database}; GRANT TEMPORARY ON DATABASE {database} TO one_{database}"),
    );
    let url = Server::shared().url(&database).replace("forebay@", &format!("one_{database}@"));
    let project = project(&format!("url = \"{}\"", server.url()), &events(1..=3, &["a", "b"]));
    let outcome = project.forebay(&["run", "pipeline.toml", "--json", "--store", &url]).ends_with(3);
    assert!(outcome.stderr().contains("not published: every region: the outbox cannot be read"), "{outcome}");
}

#[test]
fn templates_that_come_to_one_key_are_refused_for_their_region() {
    let server = Redis::start(&[]);
    let project = project(
        &format!("url = \"{}\"\n[snapshots.keys]\nlive = \"forebay:{{p:<region>}}:latest\"\n", server.url()),
        &events(1..=1, &["a"]),
    );
    run(&project).fails(3, &["two of its keys would be \"forebay:{p:a}:latest\""]);
    assert!(server.keys().is_empty());
}

#[test]
fn one_line_is_one_document() {
    let server = Redis::start(&[]);
    publish_with(&server.url(), "{\n  \"region\": \"a\"\n}\n", &[]).ok();
    let outcome = Project::new().forebay(&["latest", "--pipeline", "p", "--snapshots", &server.url()]).ok();
    assert_eq!(outcome.json_lines(), [json!({ "region": "a" })]);
    let names = publish_with(&server.url(), &docs(&["a"], 1), &["--expect", "a, b,b"]).ends_with(3);
    assert_eq!(statuses(&names).0, pairs(&[("a", "published"), ("b", "failed")]));
    for name in ["", "a{b", "a:b"] {
        let args = ["publish", "-", "--snapshots", &server.url(), "--pipeline", name];
        Project::new().forebay(&args).fails(2, &["--pipeline: expected a name without braces and colons"]);
    }
}
