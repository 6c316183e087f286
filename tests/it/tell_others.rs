//! Others are told of what is new: a channel of Redis, a channel of Postgres, a command.

use std::path::Path;
use std::time::{Duration, Instant};

use forebay::publish::{
    Extent, OnPublish, Publication, PublishPlan, PublishReceipt, PublishStatus, Publisher, TargetUrl,
};
use postgres::fallible_iterator::FallibleIterator;
use serde_json::{Value as Json, json};

use crate::support::project::{Project, Stores, with_store};
use crate::support::redis_server::{Redis, RedisCluster};
use crate::support::{signal, wait_until};

const SCRIPT: &str = r#"
function on_event(event, ctx) ctx.thing:set(event.block, { v = event.v }) end
function on_snapshot(ctx) return { v = ctx.block } end
"#;

fn pipeline(more: &str) -> String {
    format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.thing]\ncolumns = {{ v = \"bigint\" }}\n[handlers]\nscript = \"handlers.lua\"\n[batch]\nevents = 1\n[rollback]\ndepth = 100\n{more}"
    )
}

fn events(blocks: std::ops::RangeInclusive<i64>, regions: &[&str]) -> String {
    let event = |(block, region)| format!("{{\"block\":{block},\"region\":\"{region}\",\"v\":{block}}}\n");
    blocks.flat_map(|block| regions.iter().map(move |region| (block, *region))).map(event).collect()
}

fn publication(region: &str, seq: u64, doc: Json) -> Publication {
    Publication::new(region, seq, doc)
}

fn publisher(pipeline: &str, url: &str) -> Publisher {
    let plan = PublishPlan::new(pipeline, TargetUrl::parse(url, Path::new("")).expect("an address"));
    Publisher::new(plan).expect("a publisher")
}

/// Who listens to all channels of the pipeline `p`.
struct Listener(redis::Connection);

impl Listener {
    fn to(server: &Redis) -> Self {
        let connection = server.connection();
        connection.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        let mut listener = Self(connection);
        // Nobody else asks over it, so what it was told stays in order.
        redis::cmd("PSUBSCRIBE").arg("forebay:{p:*}:events").exec(&mut listener.0).expect("a subscription");
        listener
    }

    /// The next message: its channel and what it says.
    fn next(&mut self) -> (String, Json) {
        let redis::Value::Array(parts) = self.0.recv_response().expect("a message") else { panic!("no message") };
        let [.., redis::Value::BulkString(channel), redis::Value::BulkString(text)] = &parts[..] else {
            panic!("{parts:?}")
        };
        (String::from_utf8_lossy(channel).into_owned(), serde_json::from_slice(text).expect("JSON"))
    }
}

fn calls(server: &Redis, command: &str) -> u64 {
    let stats: String = server.ask(&["INFO", "commandstats"]);
    let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:"))).unwrap_or("calls=0,");
    line.split_once("calls=").and_then(|(_, rest)| rest.split(',').next()?.parse().ok()).expect("a number")
}

/// What is new is told, once; and what is not new is not.
fn check_told(publisher: &mut Publisher, listener: &mut Listener) {
    let whole = Extent::Whole { is_clean: true };
    let mut first = [publication("a", 7, json!({ "v": 1 })), publication("b\"}:x", 7, json!({ "v": 1 }))];
    first[1].block = Some(-3);
    assert_eq!(publisher.publish(&first, whole).published(), 2);
    let mut told = [listener.next(), listener.next()];
    told.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(told[0], ("forebay:{p:a}:events".to_owned(), json!({ "id": first[0].id, "seq": 7, "block": null })));
    assert_eq!(told[1], ("forebay:{p:b\"}:x}:events".to_owned(), json!({ "id": first[1].id, "seq": 7, "block": -3 })));
    // The same again, the same content under a new number, an older one: nothing of it is new.
    let content = [publication("a", 8, json!({ "v": 1 })), publication("b\"}:x", 6, json!({ "v": 2 }))];
    for items in [&first, &content] {
        assert_eq!(publisher.publish(items, whole).published(), 0);
    }
    assert_eq!(publisher.publish(&[publication("a", 9, json!({ "v": 2 }))], whole).published(), 1);
    assert_eq!(listener.next().1["seq"], 9);
}

#[test]
fn who_listens_hears_of_each_snapshot_that_is_new() {
    let server = Redis::start(&[]);
    check_told(&mut publisher("p", &server.url()), &mut Listener::to(&server));
    assert_eq!(calls(&server, "publish"), 3);
    // The script that publishes does it: a warm publish takes one round trip, as `publish` counts it.
    let mut warm = publisher("q", &server.url());
    let trips = [10, 11].map(|seq| {
        warm.publish(&[publication("a", seq, json!({ "v": seq }))], Extent::Whole { is_clean: true }).round_trips
    });
    assert_eq!((trips, calls(&server, "publish")), ([2, 1], 5));
}

#[test]
fn every_server_of_a_cluster_tells() {
    let cluster = RedisCluster::start(&[]);
    let mut others: Vec<Listener> = cluster.nodes[1..].iter().map(Listener::to).collect();
    check_told(&mut publisher("p", &cluster.url()), &mut Listener::to(&cluster.nodes[0]));
    for other in &mut others {
        let seqs: Vec<Json> = (0..3).map(|_| other.next().1["seq"].clone()).collect();
        assert_eq!(seqs.iter().filter(|seq| **seq == 9).count(), 1, "{seqs:?}");
    }
}

#[test]
fn a_user_who_may_not_tell_publishes_all_the_same_and_hears_once_what_to_grant() {
    let server = Redis::start(&[]);
    let _: String = server.ask(&["ACL", "SETUSER", "u", "on", ">x", "~*", "+@all", "resetchannels"]);
    let url = format!("redis://u:x@127.0.0.1:{}", server.port);
    let grant = "ACL SETUSER u +publish &forebay:{p:*}:events";
    let warnings = |text: &str| text.matches(grant).count();

    let project = Project::new();
    project.write("docs", "{\"region\":\"a\",\"v\":1}\n{\"region\":\"b\",\"v\":1}\n");
    let publish = ["publish", "docs", "--pipeline", "p", "--snapshots", &url, "--dedup", "0s"];
    let outcome = project.forebay(&publish).ok();
    assert_eq!(warnings(&outcome.stderr()), 1, "{outcome}");
    assert!(server.keys().contains(&"forebay:{p:b}:latest".to_owned()));
    let seed = ["seed", "--pipeline", "p", "--snapshots", &url, "--dedup", "0s", "--", "cat", "docs"];
    let outcome = project.forebay(&seed).ok();
    assert_eq!(warnings(&outcome.stderr()), 1, "{outcome}");

    let snapshots = format!("[snapshots]\nurl = \"{url}\"\nevery = \"batch\"\n");
    let run = Project::with(&pipeline(&snapshots).replace("\"p\"", "\"q\""), SCRIPT, &events(1..=20, &["a"]));
    let outcome = run.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(outcome.stderr().matches("ACL SETUSER u +publish &forebay:{q:*}:events").count(), 1, "{outcome}");

    let mut listener = Listener::to(&server);
    let _: String = server.ask(&grant.split(' ').collect::<Vec<_>>());
    let outcome = project.forebay(&publish).ok();
    assert_eq!((warnings(&outcome.stderr()), listener.next().1["block"].clone()), (0, Json::Null), "{outcome}");
}

/// What was told on the channel of the database, so far.
fn told(client: &mut postgres::Client) -> Vec<Json> {
    let mut notifications = client.notifications();
    let found = notifications.timeout_iter(Duration::from_millis(500));
    found.map(|one| Ok(serde_json::from_str(one.payload()).expect("JSON"))).collect().expect("notifications")
}

#[test]
fn a_database_tells_of_each_batch() {
    with_store(Stores::Postgres, || {
        let settings = "[store]\nnotify = true\n[snapshots]\nevery = \"2 blocks\"\n";
        let project = Project::with(&pipeline(settings), SCRIPT, &events(1..=4, &["a", r"b\u0007"]));
        let mut client = project.client();
        client.batch_execute("LISTEN forebay").expect("a channel");
        let report = project.run_json();
        let heard = told(&mut client);
        assert_eq!(heard.len() as u64, report["batches"].as_u64().expect("batches"), "{heard:?}");
        let last = json!({ "pipeline": "p", "block": 4, "regions": ["a", "b\u{7}"], "truncated": false });
        assert!(heard.contains(&last), "{heard:?}");
        assert!(heard.is_sorted_by_key(|one| one["block"].as_i64()), "{heard:?}");

        project.forebay(&["rollback", "pipeline.toml", "--to", "2"]).ok();
        assert_eq!(told(&mut client)[0]["block"], 2, "a rollback is a batch too");

        // Regions that do not fit, rows that are streamed, and no snapshots.
        let regions: Vec<String> = (0..1200).map(|at| format!("region-{at:06}")).collect();
        let regions: Vec<&str> = regions.iter().map(String::as_str).collect();
        let script = SCRIPT.replace("on_snapshot", "nobody");
        let large = Project::with(&pipeline("[store]\nnotify = true\n"), &script, &events(1..=1, &regions));
        let mut client = large.client();
        client.batch_execute("LISTEN forebay").expect("a channel");
        large.run_json();
        let heard = told(&mut client);
        assert_eq!((heard.len(), &heard[0]["truncated"]), (1, &json!(true)));
        assert!(heard[0]["regions"].as_array().is_some_and(|named| named.len() > 400), "{heard:?}");

        // Who did not ask for it hears nothing.
        let quiet = Project::with(&pipeline(""), SCRIPT, &events(1..=2, &["a"]));
        let mut client = quiet.client();
        client.batch_execute("LISTEN forebay").expect("a channel");
        quiet.run_json();
        assert!(told(&mut client).is_empty());
    });
}

#[test]
fn nobody_can_listen_to_sqlite() {
    let project = Project::with(&pipeline("[store]\nurl = \"sqlite:p.db\"\nnotify = true\n"), SCRIPT, "");
    project
        .forebay(&["run", "pipeline.toml"])
        .fails(2, &["pipeline.toml:14:10", "notify: nobody can listen to SQLite"]);
    let project = Project::with(&pipeline("[store]\nnotify = true\n"), SCRIPT, "");
    let run = ["run", "pipeline.toml", "--store", "sqlite:p.db"];
    project.forebay(&run).fails(2, &["[store] notify: nobody can listen to SQLite"]);
    assert!(!project.path("p.db").exists());
}

fn receipt(region: &str, seq: u64) -> PublishReceipt {
    PublishReceipt::of(&publication(region, seq, json!({ "v": seq })), Ok(PublishStatus::Published))
}

/// Lines of a file that a command writes.
fn lines(project: &Project, name: &str) -> Vec<String> {
    std::fs::read_to_string(project.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn one_command_runs_at_a_time_and_the_newest_of_a_region_wins() {
    let project = Project::new();
    let folder = project.path("").display().to_string();
    // It waits for the file `go`.
    let command = format!(
        "cd '{folder}' && echo \"$FOREBAY_PIPELINE $FOREBAY_REGION $FOREBAY_SEQ [$FOREBAY_BLOCK] $FOREBAY_SNAPSHOT_ID\" >> told\n\
         while ! [ -e go ]; do sleep 0.01; done"
    );
    let on_publish = OnPublish::start(&command, "p", Duration::from_secs(60)).expect("a thread");
    on_publish.tell(&receipt("a", 1));
    wait_until(|| lines(&project, "told").len() == 1);
    for (region, seq) in [("a", 2), ("b", 1), ("a", 3)] {
        on_publish.tell(&receipt(region, seq));
    }
    on_publish.tell(&PublishReceipt::of(&publication("c", 1, json!({})), Ok(PublishStatus::Duplicate)));
    let mut odd = receipt("d\0;$(x)", 4);
    odd.block = Some(7);
    on_publish.tell(&odd);
    project.write("go", "");
    assert_eq!(on_publish.finish(Duration::from_secs(60)), 0);
    let heads: Vec<String> =
        lines(&project, "told").iter().map(|line| line.rsplit_once(' ').expect("a line").0.to_owned()).collect();
    assert_eq!(heads, ["p a 1 []", "p a 3 []", "p b 1 []", "p d\u{fffd};$(x) 4 [7]"]);
}

/// Whether a process is there, and no zombie.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_command_that_does_not_end_is_ended_with_all_that_it_started() {
    let project = Project::new();
    let folder = project.path("").display().to_string();
    let command = format!("cd '{folder}'; sleep 600 & echo $! >> pids; echo $$ >> pids; wait");
    let on_publish = OnPublish::start(&command, "p", Duration::from_millis(200)).expect("a thread");
    on_publish.tell(&receipt("a", 1));
    on_publish.tell(&receipt("b", 1));
    assert_eq!(on_publish.finish(Duration::from_secs(60)), 0);
    let pids = lines(&project, "pids");
    assert_eq!(pids.len(), 4);
    wait_until(|| !pids.iter().any(|pid| runs(pid)));

    // What ends well leaves nothing behind either; and what is left is not waited for.
    let command = format!("cd '{folder}'; sleep 600 & echo $! > left; [ $FOREBAY_REGION = a ] || wait");
    let on_publish = OnPublish::start(&command, "p", Duration::from_secs(60)).expect("a thread");
    on_publish.tell(&receipt("a", 1));
    wait_until(|| lines(&project, "left").first().is_some_and(|pid| !runs(pid)));
    for region in ["b", "c", "d"] {
        on_publish.tell(&receipt(region, 1));
    }
    let begun = Instant::now();
    assert_eq!(on_publish.finish(Duration::from_millis(300)), 2);
    assert!(begun.elapsed() < Duration::from_secs(30));
    wait_until(|| lines(&project, "left").first().is_some_and(|pid| !runs(pid)));
}

#[test]
fn a_run_a_publish_and_a_seed_run_the_command() {
    let server = Redis::start(&[]);
    let settings =
        format!("[store]\nurl = \"sqlite:p.db\"\n[snapshots]\nurl = \"{}\"\nevery = \"end\"\n", server.url());
    let project = Project::with(&pipeline(&settings), SCRIPT, &events(1..=3, &["a", "b"]));
    let command = "echo \"$FOREBAY_REGION $FOREBAY_BLOCK\" >> told; echo out; echo err >&2; [ $FOREBAY_REGION != b ]";
    let outcome = project.forebay(&["run", "pipeline.toml", "--json", "--on-publish", command]).ok();
    assert_eq!(lines(&project, "told"), ["a 3", "b 3"]);
    let said = outcome.stderr();
    for says in ["on-publish: out", "on-publish: err", "--on-publish: for b the command ended with exit code 1"] {
        assert!(said.contains(says), "{says}: {outcome}");
    }
    assert_eq!(outcome.json()["snapshots"]["published"], 2);
    // Nothing new, nothing to tell.
    project.forebay(&["run", "pipeline.toml", "--on-publish", command]).ok();
    assert_eq!(lines(&project, "told").len(), 2);

    project.write("docs", "{\"region\":\"x\"}\n{\"region\":\"y\"}\n");
    let place = ["--pipeline", "d", "--snapshots", &server.url(), "--dedup", "0s", "--on-publish", command];
    project.forebay(&[&["publish", "docs"], &place[..]].concat()).ok();
    project.forebay(&[&["seed"], &place[..], &["--", "cat", "docs"]].concat()).ok();
    let mut told = lines(&project, "told").split_off(2);
    told.sort();
    assert_eq!(told, ["x ", "x ", "y ", "y "]);

    let no_redis = Project::with(&pipeline("[store]\nurl = \"sqlite:p.db\"\n"), SCRIPT, "");
    let run = ["run", "pipeline.toml", "--on-publish", "true"];
    no_redis.forebay(&run).fails(2, &["--on-publish: nothing is published; give --snapshots"]);
}

#[test]
fn a_run_that_is_killed_leaves_no_command_behind() {
    let server = Redis::start(&[]);
    let settings =
        format!("[store]\nurl = \"sqlite:p.db\"\n[snapshots]\nurl = \"{}\"\nevery = \"batch\"\n", server.url());
    let project = Project::with(&pipeline(&settings), SCRIPT, &events(1..=2, &["a"]));
    let command = "sleep 600 & echo $! >> pids; echo $$ >> pids; wait";
    let run = ["run", "pipeline.toml", "--follow", "--on-publish", command];
    let mut child = project.command(&run).spawn().expect("the binary starts");
    wait_until(|| lines(&project, "pids").len() == 2);
    signal::send("KILL", child.id());
    child.wait().expect("it ends");
    let pids = lines(&project, "pids");
    wait_until(|| !pids.iter().any(|pid| runs(pid)));

    // A stop waits for it as long as for the rest.
    std::fs::remove_file(project.path("pids")).expect("a file");
    project.write("events.ndjson", events(1..=4, &["a"]));
    let run = [&run[..], &["--drain-timeout", "500ms"]].concat();
    let child = project.command(&run).spawn().expect("the binary starts");
    wait_until(|| lines(&project, "pids").len() == 2);
    signal::send("TERM", child.id());
    let outcome = project.finish(child, &run).ends_with(130);
    assert!(outcome.stderr().contains("for a the command was ended, as the run ends"), "{outcome}");
    let pids = lines(&project, "pids");
    wait_until(|| !pids.iter().any(|pid| runs(pid)));
}
