//! The server beside a run: what each path says, while the run goes on, waits, and ends.

use std::fs::OpenOptions;
use std::io::Write;

use crate::support::http::{get_with, send};
use crate::support::postgres_server::Server;
use crate::support::project::Project;
use crate::support::served::Served;
use crate::support::wait_until;

const PIPELINE: &str = r#"
name = "count"
[source]
path = "in"
time = "at"
settle = "100ms"
[entities.seen]
columns = { events = "bigint" }
[handlers]
script = "handlers.lua"
[snapshots]
every = "1 blocks"
[store]
url = "sqlite:count.db"
"#;

const SCRIPT: &str = r#"
function on_event(event, ctx)
  ctx.seen:add(event.region, { events = 1 })
end
function on_snapshot(ctx)
  local seen = ctx.seen:get(ctx.region)
  return { region = ctx.region, events = seen and seen.events or 0 }
end
"#;

fn project() -> Project {
    let project = Project::with(PIPELINE, SCRIPT, "");
    std::fs::create_dir(project.path("in")).expect("a folder");
    project
}

fn append(project: &Project, lines: &str) {
    let file = project.path("in/events.ndjson");
    let mut file = OpenOptions::new().create(true).append(true).open(file).expect("the events");
    file.write_all(lines.as_bytes()).expect("the events");
}

fn line(block: i64, region: &str) -> String {
    format!("{}\n", serde_json::json!({ "block": block, "region": region, "at": "2026-01-31T12:00:00Z" }))
}

#[test]
fn each_path_says_how_the_run_is_and_follows_what_is_appended() {
    let project = project();
    append(&project, &line(1, "a"));
    let run = Served::start(&project, &["--follow"]);
    let status = run.waits_until(|status| status["checkpoint"]["block"] == 1 && status["phase"] == "live");
    assert_eq!((&status["pipeline"], &status["ready"], &status["reason"]), (&"count".into(), &true.into(), &().into()));
    assert_eq!(
        (&status["health"]["ok"], &status["source"]["time"]),
        (&true.into(), &"2026-01-31T12:00:00.000Z".into())
    );
    assert_eq!((&status["counts"]["events"], &status["lag"]["blocks"]), (&1.into(), &0.into()));
    assert!(status["lag"]["source_seconds"].as_f64().expect("a lag") > 0.0);
    for (path, member) in [("/live", "live"), ("/ready", "ready"), ("/health", "ok")] {
        let reply = run.get(path);
        assert_eq!((reply.status, &reply.json()[member]), (200, &true.into()), "{path}");
    }
    append(&project, &(line(2, "a") + &line(3, "b")));
    let bytes = [line(1, "a"), line(2, "a"), line(3, "b")].concat().len();
    run.waits_until(|status| status["checkpoint"]["block"] == 3 && status["source"]["bytes_total"] == bytes);
    assert_eq!((run.metric("forebay_committed_block"), run.metric("forebay_ready")), (Some(3.0), Some(1.0)));
    let ready = run.get("/ready").json();
    assert_eq!((&ready["block"], &ready["phase"], &ready["of"]), (&3.into(), &"live".into(), &().into()));

    let head = send(run.address, b"HEAD /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(head.status == 200 && head.body.is_empty() && head.header("content-length") != Some("0"), "{head:?}");
    let page = run.get("/");
    assert!(page.text().contains("<title>") && page.header("content-type") == Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("script-src 'unsafe"), "{policy}");
    assert!(page.header("x-content-type-options") == Some("nosniff"));
    assert!(page.header("access-control-allow-origin").is_none());
    for (path, status) in [("/nothing", 404), ("/statu", 404), ("/live/", 404), ("/snapshots/%ff", 400)] {
        assert_eq!(run.get(path).status, status, "{path}");
    }
    let address = run.address;
    let (outcome, said) = run.stop(&project);
    outcome.ends_with(130);
    assert!(said.contains("live: the end of the source is reached, block"), "{said}");
    assert!(std::net::TcpStream::connect(address).is_err(), "it ends with the run");
}

#[test]
fn a_run_that_ends_ends_its_server_and_is_the_same_as_without() {
    let project = project();
    append(&project, &(1..=50).map(|block| line(block, "a")).collect::<String>());
    let run = Served::start(&project, &["--json", "--quiet"]);
    let (outcome, said) = run.end(&project);
    assert_eq!(outcome.ok().json()["events"], 50);
    assert!(said.starts_with("listening on http://127.0.0.1:"), "{said}");
    assert_eq!(project.query("count.db", "SELECT id, events FROM seen"), [["a", "50"]]);
    assert!(!project.path("count.db-wal").exists(), "the file is whole in itself");
}

#[test]
fn status_is_what_the_command_says_and_more() {
    let project = project();
    append(&project, &(line(1, "a") + &line(2, "b")));
    let run = Served::start(&project, &["--follow"]);
    let live = run.waits_until(|status| {
        status["regions"]
            .as_array()
            .is_some_and(|regions| regions.len() == 2 && regions.iter().all(|region| region["state"] == "fresh"))
    });
    let command = project.forebay(&["status", "pipeline.toml", "--json"]).ok().json();
    let keys = |json: &serde_json::Value| {
        json.as_object().expect("an object").keys().cloned().collect::<std::collections::BTreeSet<_>>()
    };
    assert!(keys(&live).is_superset(&keys(&command)), "{:?}", keys(&command).difference(&keys(&live)));
    for key in ["pipeline", "healthy", "signature", "quarantined"] {
        assert_eq!(live[key], command[key], "{key}");
    }
    for (live, command) in
        live["regions"].as_array().expect("regions").iter().zip(command["regions"].as_array().expect("regions"))
    {
        assert_eq!(keys(live), keys(command));
        assert_eq!(
            (&live["id"], &live["state"], &live["block"]),
            (&command["id"], &command["state"], &command["block"])
        );
    }
    for key in [
        "version",
        "now",
        "started_at",
        "uptime_seconds",
        "health",
        "source",
        "rates",
        "memory",
        "commit",
        "publish",
        "stages",
        "limit",
        "warnings",
        "quarantine",
        "timeline",
        "regions_token",
    ] {
        assert!(keys(&live).contains(key), "{key}");
    }
    assert!(live["timeline"]["stages"]["commit"].as_array().is_some_and(|spans| !spans.is_empty()));

    let less = run.get("/status?regions=none&timeline=none&quarantine=none").json();
    assert!(["regions", "timeline", "quarantine"].iter().all(|key| !keys(&less).contains(*key)));
    let token = live["regions_token"].as_str().expect("a token").to_owned();
    let changed = run.get(&format!("/status?regions=changed&since={token}")).json();
    assert_eq!(changed["regions"].as_array().map(Vec::len), Some(0));
    append(&project, &line(3, "b"));
    wait_until(|| {
        let changed = run.get(&format!("/status?regions=changed&since={token}")).json();
        let regions = changed["regions"].as_array().expect("regions").clone();
        regions.len() == 1 && regions[0]["region"] == "b" && regions[0]["events"] == 2
    });
    let all = run.get("/status?regions=changed&since=another").json();
    assert_eq!(all["regions"].as_array().map(Vec::len), Some(2), "a token of another server says nothing");
    run.stop(&project).0.ends_with(130);
}

#[test]
fn documents_are_given_by_any_name_and_only_once_to_who_keeps_them() {
    let project = project();
    let names = ["plain", "a/b", "ü ñ", "100%", "?x=1&y", "<b>", "..", "\"q\"", "a+b", "日本"];
    let lines = names.iter().zip(1..).map(|(name, block)| line(block, name));
    append(&project, &lines.collect::<String>());
    let run = Served::start(&project, &["--follow"]);
    let regions = |status: &serde_json::Value| status["regions"].as_array().map_or(0, Vec::len);
    run.waits_until(|status| regions(status) == names.len());
    let encoded = |name: &str| name.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for name in names {
        let path = format!("/snapshots/{}", encoded(name));
        wait_until(|| run.get(&path).status == 200);
        let reply = run.get(&path);
        assert_eq!((reply.status, &reply.json()["region"]), (200, &name.into()), "{name}");
        let tag = reply.header("etag").expect("a tag");
        let again = get_with(run.address, &path, &format!("If-None-Match: \"x\", {tag}\r\n"));
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag)), "{name}");
        assert_eq!(get_with(run.address, &path, "If-None-Match: \"1.0\"\r\n").status, 200);
        let by_query = run.get(&format!("/snapshots?region={}", encoded(name)));
        assert_eq!((by_query.status, &by_query.body, by_query.header("etag")), (200, &reply.body, Some(tag)));
    }
    assert_eq!(run.get("/snapshots/a/b").json()["region"], "a/b", "also as it stands");
    assert_eq!(run.get("/snapshots/none").status, 404);
    let tag = run.get("/snapshots/plain").header("etag").expect("a tag").to_owned();
    append(&project, &line(99, "plain"));
    wait_until(|| get_with(run.address, "/snapshots/plain", &format!("If-None-Match: {tag}\r\n")).status == 200);
    assert_eq!(run.get("/snapshots/plain").json()["events"], 2);

    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let page = run.get(&format!("/snapshots?limit=3&after={}", encoded(&after))).json();
        let snapshots = page["snapshots"].as_array().expect("snapshots");
        assert!(snapshots.len() <= 3);
        found.extend(snapshots.iter().map(|one| one["region"].as_str().expect("a region").to_owned()));
        assert!(snapshots.iter().all(|one| one["doc"]["region"] == one["region"]));
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    assert_eq!(found, names);
    assert_eq!(run.get("/snapshots?limit=0").status, 400);
    run.stop(&project).0.ends_with(130);
}

#[test]
fn a_database_that_goes_away_shows_at_once_and_what_is_known_stays() {
    let server = Server::start("");
    let url = server.url(&server.make_database());
    let project = project();
    append(&project, &line(1, "a"));
    let mut run = Served::start(&project, &["--follow", "--store", &url, "--stall", "4s"]);
    run.waits_until(|status| status["ready"] == true && status["regions"][0]["state"] == "fresh");
    wait_until(|| run.get("/snapshots/a").status == 200);
    server.crash();
    append(&project, &line(2, "a"));
    let status = run.waits_until(|status| status["ready"] == false);
    assert!(status["reason"].as_str().is_some_and(|reason| reason.contains("the store has been away")), "{status}");
    assert_eq!((&status["health"]["reason"], &status["phase"]), (&"store_outage".into(), &"live".into()));
    assert_eq!(status["health"]["parts"]["store"]["ok"], false);
    assert!(status["commit"]["outage_since"].is_string());
    assert_eq!((run.get("/ready").status, run.get("/live").status), (503, 200));
    assert_eq!(status["regions"][0]["region"], "a", "what is known stays");
    wait_until(|| run.get("/health").status == 503);
    let known = run.get("/snapshots/a");
    assert_eq!((known.status, &known.json()["events"]), (200, &1.into()));
    assert!(known.header("age").is_some(), "{known:?}");
    assert!(run.metric("forebay_store_outage_seconds_total").is_some_and(|seconds| seconds > 0.0));
    server.restart();
    let status = run.waits_until(|status| status["ready"] == true && status["checkpoint"]["block"] == 2);
    assert_eq!((&status["health"]["ok"], &status["health"]["reason"]), (&true.into(), &().into()));
    wait_until(|| run.get("/snapshots/a").json()["events"] == 2);
    run.says("is back after");
    let warnings = run.status()["warnings"].clone();
    let is_told = |one: &serde_json::Value| one["message"].as_str().is_some_and(|text| text.contains("trying again"));
    assert!(warnings.as_array().expect("warnings").iter().any(is_told), "{warnings}");
    run.stop(&project).0.ends_with(130);
}

#[test]
fn a_handler_that_hangs_is_told_before_it_is_ended() {
    let project = project();
    let script = "function on_event(event, ctx) if event.region == \"slow\" then while true do end end end\n";
    project.write("handlers.lua", script);
    let pipeline = PIPELINE.replace("script = \"handlers.lua\"", "script = \"handlers.lua\"\ntimeout = \"6s\"");
    project.write("pipeline.toml", pipeline);
    append(&project, &line(1, "a"));
    let run = Served::start(&project, &["--follow", "--stall", "1s"]);
    run.waits_until(|status| status["ready"] == true);
    append(&project, &line(2, "slow"));
    wait_until(|| run.get("/health").status == 503);
    let health = run.get("/health").json();
    assert_eq!((&health["reason"], &health["parts"]["coordinator"]["ok"]), (&"handler".into(), &false.into()));
    assert_eq!(run.get("/live").status, 200, "it has its time");
    let (outcome, said) = run.end(&project);
    outcome.ends_with(1);
    assert!(said.contains("6000 ms"), "{said}");
}

#[test]
fn when_it_was_committed_is_known_also_where_the_store_was_never_read() {
    let server = Server::start("");
    let url = server.url(&server.make_database());
    let project = project();
    append(&project, &line(1, "a"));
    project.forebay(&["run", "pipeline.toml", "--store", &url]).ok();
    let before = forebay::Timestamp::now();
    // Nobody can commit for now.
    let mut holder = postgres::Client::connect(&url, postgres::NoTls).expect("a connection");
    holder.batch_execute("BEGIN; LOCK TABLE count._forebay_checkpoint IN SHARE MODE").expect("a lock");
    let run = Served::start(&project, &["--follow", "--store", &url]);
    // This asks the run only.
    wait_until(|| run.get("/ready").json()["block"] == 1);
    server.crash();
    let status = run.status();
    assert!(status["store"]["age_seconds"].is_null(), "it was not read: {status}");
    let committed_at = status["checkpoint"]["committed_at"].as_str().unwrap_or_else(|| panic!("{status}"));
    assert!(committed_at.parse::<forebay::Timestamp>().is_ok_and(|time| time <= before), "{status}");
    assert!(status["lag"]["seconds"].is_number(), "{status}");
    assert!(run.metric("forebay_last_commit_timestamp_seconds").is_some_and(|time| time > 0.0));
    server.restart();
    run.stop(&project).0.ends_with(130);
}

/// What was handled before is committed then, and as long as that takes, whoever asks is told that the run does not live.
#[test]
fn a_handler_that_has_hung_for_longer_than_it_may_is_not_live_any_more() {
    let project = project();
    let hangs = "function on_event(event, ctx)\n  while event.region == \"slow\" do end\n";
    project.write("handlers.lua", SCRIPT.replace("function on_event(event, ctx)\n", hangs));
    let pipeline = PIPELINE.replace("script = \"handlers.lua\"", "script = \"handlers.lua\"\ntimeout = \"3s\"");
    project.write("pipeline.toml", pipeline);
    append(&project, &line(1, "a"));
    let run = Served::start(&project, &["--follow", "--stall", "1s", "--drain-timeout", "60s"]);
    run.waits_until(|status| status["ready"] == true && status["checkpoint"]["block"] == 1);
    // Nobody can commit for now.
    let holder = rusqlite::Connection::open(project.path("count.db")).expect("the store");
    holder.busy_timeout(crate::support::WAIT).expect("patience");
    holder.execute_batch("BEGIN IMMEDIATE").expect("the file");
    append(&project, &(line(2, "a") + &line(3, "slow")));
    wait_until(|| run.get("/health").status == 503);
    wait_until(|| run.get("/live").status == 503);
    let live = run.get("/live").json();
    assert_eq!(live["live"], false, "{live}");
    assert_eq!((run.get("/ready").status, run.get("/health").status), (503, 503));
    let health = run.get("/health").json();
    let message = health["message"].as_str().unwrap_or_default();
    assert!(health["reason"] == "handler" && message.contains("longer than handlers.timeout allows"), "{health}");
    holder.execute_batch("ROLLBACK").expect("the file");
    let (outcome, said) = run.end(&project);
    outcome.ends_with(1);
    assert!(said.contains("3000 ms"), "{said}");
    assert_eq!(project.query("count.db", "SELECT block FROM forebay_pipelines"), [["2"]]);
}

#[test]
fn what_was_put_aside_is_shown_with_its_cause() {
    let project = project();
    project.write("pipeline.toml", PIPELINE.to_owned() + "[errors]\non_event = \"quarantine\"\n");
    append(&project, &(line(1, "a") + "{\"block\":2,\"x\":1}\n" + &line(3, "a")));
    let run = Served::start(&project, &["--follow"]);
    let status = run.waits_until(|status| status["quarantine"].as_array().is_some_and(|aside| aside.len() == 1));
    let aside = &status["quarantine"][0];
    assert_eq!((&aside["block"], &aside["stage"], &aside["line"]), (&2.into(), &"source".into(), &2.into()));
    assert!(aside["error"].as_str().is_some_and(|error| error.contains("\"region\" is missing")), "{aside}");
    assert_eq!(run.metric("forebay_events_quarantined_total{stage=\"source\"}"), Some(1.0));
    run.stop(&project).0.ends_with(130);
}
