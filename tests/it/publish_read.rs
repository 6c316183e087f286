//! Snapshots read back from Redis, and readers that were there before.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::support::project::{Outcome, Project};
use crate::support::publishing::{pairs, statuses};
use crate::support::redis_proxy::Wire;
use crate::support::redis_server::{Redis, RedisCluster};

fn docs(value: u64) -> String {
    (0..8).map(|at| format!("{{\"region\":\"r{at}\",\"v\":{value}}}\n")).collect()
}

fn read(project: &Project, url: &str, args: &[&str]) -> Outcome {
    project.forebay(&[args, &["--pipeline", "p", "--snapshots", url]].concat())
}

fn publish(project: &Project, url: &str, docs: &str) {
    project.forebay_with_input(&["publish", "-", "--pipeline", "p", "--snapshots", url], docs).ok();
}

fn values(outcome: &Outcome) -> Vec<Json> {
    outcome.json_lines().iter().map(|doc| doc["v"].clone()).collect()
}

fn reads_back(url: &str) {
    let project = Project::new();
    read(&project, url, &["latest"]).ok();
    read(&project, url, &["latest", "r0"]).fails(1, &["no snapshot of r0"]);
    read(&project, url, &["history", "r0"]).fails(1, &["no snapshot of r0"]);
    read(&project, url, &["show", "r0.1.abc"]).fails(1, &["no snapshot with the id r0.1.abc"]);
    for value in 1..=3 {
        publish(&project, url, &docs(value));
    }
    assert_eq!(values(&read(&project, url, &["latest"]).ok()), vec![json!(3); 8]);
    let some = read(&project, url, &["latest", "r5", "r2", "--meta"]).ok().json_lines();
    assert_eq!(some.iter().map(|line| line["region"].as_str()).collect::<Vec<_>>(), [Some("r5"), Some("r2")]);
    let history = read(&project, url, &["history", "r1", "--meta"]).ok().json_lines();
    assert_eq!(history.iter().map(|line| line["doc"]["v"].clone()).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(values(&read(&project, url, &["history", "r1", "--limit", "2"]).ok()), [3, 2]);
    assert_eq!(values(&read(&project, url, &["history", "r1", "--since", "1h"]).ok()).len(), 3);
    assert!(values(&read(&project, url, &["history", "r1", "--since", "2999-01-01T00:00:00Z"]).ok()).is_empty());
    let oldest = &history[2];
    for name in ["id", "seq", "time"] {
        assert!(!oldest[name].is_null(), "{oldest}");
    }
    let id = oldest["id"].as_str().expect("an id");
    assert_eq!(values(&read(&project, url, &["show", id]).ok()), [1]);
    let table = read(&project, url, &["latest", "--table"]).ok().stdout();
    assert!(table.contains("region") && table.lines().count() == 10, "{table}");
}

#[test]
fn snapshots_are_read_back_from_a_server() {
    let server = Redis::start(&[]);
    reads_back(&server.url());
}

#[test]
fn snapshots_are_read_back_from_a_cluster() {
    let cluster = RedisCluster::start(&[]);
    reads_back(&cluster.url());
}

#[test]
fn reading_all_regions_takes_one_round_trip() {
    let server = Redis::start(&[]);
    let project = Project::new();
    publish(&project, &server.url(), &docs(1));
    let way = Wire::start(server.port);
    for args in [&["latest"][..], &["latest", "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"], &["history", "r3"]] {
        let (steps, connections) = (way.steps(), way.connections());
        read(&project, &way.url(), args).ok();
        assert_eq!((way.steps() - steps, way.connections() - connections), (1, 1), "{args:?}");
    }
}

#[test]
fn a_server_that_is_gone_is_told_in_time() {
    let project = Project::new();
    let begun = Instant::now();
    read(&project, "redis://127.0.0.1:1", &["latest"]).fails(1, &["redis://127.0.0.1:1: no connection"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// The keys that World Monitor's readers know (`get-regional-snapshot`: the id under `…:latest`, the document under
/// `snapshot-by-id`), written by a pipeline and by documents, and read with plain GETs in the readers' order.
const WORLD_MONITOR: &str = r#"
url = "URL"
id_field = "meta.snapshot_id"
time_field = "generated_at"
dedup_ignore = ["generated_at", "meta"]
[snapshots.keys]
latest = "intelligence:snapshot:v1:<region>:latest"
at     = "intelligence:snapshot:v1:<region>:<timestamp>"
live   = "intelligence:snapshot:v1:<region>:live"
doc    = "intelligence:snapshot-by-id:v1:<id>"
index  = "intelligence:snapshot-index:v1:<region>"
dedup  = "dedup:<region>:<hash>"
"#;

fn world_monitor_reads(server: &Redis, region: &str) -> Json {
    let id: String = server.ask(&["GET", &format!("intelligence:snapshot:v1:{region}:latest")]);
    let doc: String = server.ask(&["GET", &format!("intelligence:snapshot-by-id:v1:{id}")]);
    let doc: Json = serde_json::from_str(&doc).expect("JSON");
    assert_eq!(doc["meta"]["snapshot_id"], json!(id));
    let at: String = server.ask(&["GET", &format!("intelligence:snapshot:v1:{region}:{}", doc["generated_at"])]);
    assert_eq!(serde_json::from_str::<Json>(&at).expect("JSON"), doc);
    let index: Vec<(String, i64)> =
        server.ask(&["ZREVRANGE", &format!("intelligence:snapshot-index:v1:{region}"), "0", "0", "WITHSCORES"]);
    assert_eq!(index, [(id, doc["generated_at"].as_i64().expect("a time"))]);
    let claims: Vec<String> = server.ask(&["KEYS", &format!("dedup:{region}:*")]);
    assert!(!claims.is_empty());
    doc
}

#[test]
fn existing_readers_keep_working() {
    let server = Redis::start(&[]);
    let project = Project::with(
        &format!(
            "name = \"regions\"\n[source]\npath = \"events.ndjson\"\n[entities.thing]\ncolumns = {{ v = \"bigint\" }}\n[handlers]\nscript = \"handlers.lua\"\n[snapshots]\nevery = \"end\"{}",
            WORLD_MONITOR.replace("URL", &server.url())
        ),
        r#"
function on_event(event, ctx) ctx.thing:set("v", { v = event.v }) end
function on_snapshot(ctx)
  local v = ctx.thing:get("v").v
  local at = 1790000000000 + v
  return { generated_at = at, meta = { snapshot_id = at .. "-" .. ctx.region }, v = v }
end
"#,
        "{\"block\":1,\"region\":\"mena\",\"v\":1}\n",
    );
    let report = project.run_json();
    assert_eq!(report["snapshots"]["published"], 1);
    assert_eq!(world_monitor_reads(&server, "mena")["v"], 1);
    let _: String = server.ask(&["SET", "intelligence:snapshot:v1:mena:live", "cached"]);
    let doc = json!({"region": "mena", "generated_at": 1_790_000_000_500_i64, "meta": {"snapshot_id": "s-5"}, "v": 5});
    let args = ["publish", "-", "--config", "pipeline.toml", "--json"];
    let outcome = project.forebay_with_input(&args, &doc.to_string()).ok();
    assert_eq!(statuses(&outcome).0, pairs(&[("mena", "published")]));
    assert_eq!(outcome.json_lines()[0]["id"], "s-5");
    assert_eq!(world_monitor_reads(&server, "mena"), doc);
    assert!(!server.ask::<bool>(&["EXISTS", "intelligence:snapshot:v1:mena:live"]));
    // Only what a reader may take for the same is ignored.
    let later =
        json!({"region": "mena", "generated_at": 1_790_000_000_900_i64, "meta": {"snapshot_id": "s-9"}, "v": 5});
    assert_eq!(
        statuses(&project.forebay_with_input(&args, &later.to_string()).ok()).0,
        pairs(&[("mena", "duplicate")])
    );
    // Ours read them too.
    let read = |args: &[&str]| project.forebay(&[args, &["--config", "pipeline.toml"]].concat()).ok().json_lines();
    assert_eq!(read(&["latest"])[0]["v"], 5);
    assert_eq!(read(&["history", "mena"]).len(), 2);
    assert_eq!(read(&["show", "s-5"])[0]["v"], 5);
    let times: Vec<i64> = ["latest", "1790000000500"]
        .iter()
        .map(|end| server.ask(&["TTL", &format!("intelligence:snapshot:v1:mena:{end}")]))
        .collect();
    assert!(times.iter().all(|ttl| *ttl > 89 * 86_400), "{times:?}");
}

/// Half of an answer, and then nothing: whoever reads is told within the time-out, and so is whoever publishes.
#[test]
fn a_server_that_stops_in_the_middle_of_an_answer_is_told_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().expect("an address").port());
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(b"*5\r\n$3\r\na.1\r\n$100\r\nabc"));
            held.push(stream);
        }
    });
    let project = Project::new();
    let file = "name = \"p\"\n[source]\npath = \"e\"\n[entities.t]\ncolumns = {}\n[handlers]\nscript = \"h.lua\"\n[snapshots]\ntimeout = \"300ms\"\n";
    project.write("pipeline.toml", file);
    project.write("h.lua", "function on_event() end");
    for args in [
        &["latest", "--config", "pipeline.toml", "--snapshots", &url][..],
        &["latest", "a", "--config", "pipeline.toml", "--snapshots", &url],
        &["history", "a", "--config", "pipeline.toml", "--snapshots", &url],
        &["status", "pipeline.toml", "--snapshots", &url],
    ] {
        let begun = Instant::now();
        project.forebay(args).fails(1, &["127.0.0.1"]);
        assert!(begun.elapsed() < Duration::from_secs(20), "{args:?}: {:?}", begun.elapsed());
    }
    let begun = Instant::now();
    let args = ["publish", "-", "--pipeline", "p", "--timeout", "300ms", "--snapshots", &url];
    project.forebay_with_input(&args, &docs(1)).fails(3, &["r0"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn latest_in_a_stream_says_which_regions_have_none() {
    let (server, project) = (Redis::start(&[]), Project::new());
    let url = server.url();
    let place = ["--pipeline", "p", "--snapshots", &url];
    let docs: String = ["c", "a", "b"].map(|region| format!("{{\"region\":\"{region}\"}}\n")).concat();
    project.forebay_with_input(&[&["publish", "-"], &place[..]].concat(), &docs).ok();
    let read = |regions: &[&str]| project.forebay(&[&["latest", "--stream"], &place[..], regions].concat());
    let line = |region: &str| format!("{{\"region\":\"{region}\",\"doc\":{{\"region\":\"{region}\"}}}}\n");
    let none = "{\"region\":\"z\",\"doc\":null}\n";
    assert_eq!(read(&["c", "z", "a"]).ok().stdout(), line("c") + none + &line("a"));
    assert_eq!(read(&["z"]).ok().stdout(), none);
    assert_eq!(read(&[]).ok().stdout(), line("a") + &line("b") + &line("c"));
    // One that cannot be read is not one that has none.
    let _: u64 = server.ask(&["DEL", "forebay:{p:b}:latest"]);
    let _: u64 = server.ask(&["LPUSH", "forebay:{p:b}:latest", "x"]);
    let failed = read(&["b", "a"]).fails(1, &["b: WRONGTYPE"]);
    let lines = failed.json_lines();
    assert!(lines[0]["error"].as_str().is_some_and(|error| error.contains("WRONGTYPE")), "{failed}");
    assert_eq!((lines[0]["doc"].is_null(), lines[1]["region"].as_str()), (true, Some("a")));
    project.forebay(&[&["latest", "--stream", "--meta"], &place[..]].concat()).fails(2, &["--meta"]);
}

/// A server that answers about one region at a time, each when it is let.
#[test]
fn latest_in_a_stream_shows_a_region_before_the_next_has_come() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    let (let_go, may) = crossbeam_channel::bounded::<&str>(1);
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let (mut asked, mut buffer) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&asked).contains("{p:c}:index") {
            let read = client.read(&mut buffer).expect("a request");
            asked.extend(&buffer[..read]);
        }
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        for region in may {
            let parts = [&format!("{region}.1.x"), "1", "0", &format!("{{\"of\":\"{region}\"}}"), ""].map(bulk);
            client.write_all(format!("*5\r\n{}", parts.concat()).as_bytes()).expect("it listens");
        }
    });
    let project = Project::new();
    let args = ["latest", "--stream", "--pipeline", "p", "--snapshots", &url, "b", "a", "c"];
    let mut child = project.command(&args).spawn().expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    for region in ["b", "a", "c"] {
        let_go.send(region).expect("the server");
        let line = lines.next().expect("a line").expect("a text");
        assert_eq!(line, format!("{{\"region\":\"{region}\",\"doc\":{{\"of\":\"{region}\"}}}}"));
    }
    drop(let_go);
    assert!(lines.next().is_none());
    server.join().expect("the server");
    assert!(child.wait().expect("it ends").success());
}
