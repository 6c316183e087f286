//! The metrics: what promtool says of them, what a real Prometheus reads, and the rules and the board over them.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;

use crate::support::http;
use crate::support::project::Project;
use crate::support::redis_server::Redis;
use crate::support::served::Served;
use crate::support::wait_until;

const PIPELINE: &str = r#"
name = "transfers"
[source]
path = "in"
hash = "hash"
parent = "parent"
time = "at"
settle = "100ms"
[rollback]
depth = 10
[errors]
on_event = "quarantine"
[entities.account]
columns = { n = "bigint" }
[entities.gone]
columns = { n = "bigint" }
[handlers]
script = "handlers.lua"
[snapshots]
every = "1 blocks"
dedup = "1h"
"#;

const SCRIPT: &str = r#"
function on_event(event, ctx)
  if event.fails then error("it fails") end
  ctx.account:set(event.region, { n = event.block })
  ctx.gone:set("x", { n = 1 })
  if event.block == 3 then ctx.gone:delete("x") end
end
function on_snapshot(ctx)
  return { region = ctx.region }
end
"#;

fn line(block: i64, hash: &str, parent: &str, more: &str) -> String {
    format!(
        "{{\"block\":{block},\"hash\":\"{hash}\",\"parent\":\"{parent}\",\"region\":\"eu\",\"at\":1769860800{more}}}\n"
    )
}

fn project() -> Project {
    let project = Project::with(PIPELINE, SCRIPT, "");
    std::fs::create_dir(project.path("in")).expect("a folder");
    let lines = [line(1, "a1", "a0", ""), line(2, "a2", "a1", ",\"fails\":true"), line(3, "a3", "a2", "")];
    project.write("in/events.ndjson", lines.concat());
    project
}

/// A run that has committed a block, gone back to before it, and followed another branch.
fn run_over_a_fork(project: &Project, more: &[&str]) -> Served {
    let run = Served::start(project, &[&["--follow"], more].concat());
    wait_until(|| committed(&run) == Some(3.0));
    let mut file = std::fs::OpenOptions::new().append(true).open(project.path("in/events.ndjson")).expect("the events");
    file.write_all((line(3, "b3", "a2", "") + &line(4, "b4", "b3", "")).as_bytes()).expect("the events");
    wait_until(|| committed(&run) == Some(4.0));
    run
}

fn committed(run: &Served) -> Option<f64> {
    let token = "Authorization: Bearer 0123456789abcdef0123\r\n";
    let text = http::get_with(run.address, "/metrics", token).text();
    let value = text.lines().find_map(|line| line.strip_prefix("forebay_committed_block{pipeline=\"transfers\"} "));
    value.and_then(|value| value.parse().ok())
}

/// Runs promtool over a text.
#[track_caller]
fn promtool(args: &[&str], input: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool (tests/setup.sh test installs it)");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("stdin");
    let output = child.wait_with_output().expect("promtool");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {args:?}: {said}\n{input}");
    said
}

fn file(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

#[test]
fn each_number_is_counted_and_promtool_has_nothing_to_say() {
    let project = project();
    let redis = Redis::start(&[]);
    let run = run_over_a_fork(&project, &["--snapshots", &redis.url()]);
    wait_until(|| run.metric("forebay_publish_backlog") == Some(0.0));
    wait_until(|| run.metric("forebay_snapshot_oldest_age_seconds").is_some());
    let text = run.get("/metrics");
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(promtool(&["check", "metrics"], &text.text()), "");
    for (sample, expected) in [
        ("forebay_build_info{version=\"0.1.0\"}", 1.0),
        ("forebay_phase{phase=\"live\"}", 1.0),
        ("forebay_phase{phase=\"backfill\"}", 0.0),
        ("forebay_ready", 1.0),
        ("forebay_source_block", 4.0),
        ("forebay_events_late_total", 0.0),
        ("forebay_events_quarantined_total{stage=\"handler\"}", 1.0),
        ("forebay_events_quarantined_total{stage=\"source\"}", 0.0),
        ("forebay_rollbacks_total{cause=\"fork\"}", 1.0),
        ("forebay_rollbacks_total{cause=\"command\"}", 0.0),
        ("forebay_publishes_total{result=\"failed\"}", 0.0),
        ("forebay_store_retries_total", 0.0),
        ("forebay_memory_limit_bytes", 536_870_912.0),
    ] {
        assert_eq!(run.metric(sample), Some(expected), "{sample}");
    }
    for sample in [
        "forebay_events_total",
        "forebay_batches_total",
        "forebay_rows_total{entity=\"account\",change=\"new\"}",
        "forebay_stage_busy_seconds_total{stage=\"commit\"}",
        "forebay_stage_waiting_seconds_total{stage=\"handle\",cause=\"source\"}",
        "forebay_commit_duration_seconds_count",
        "forebay_commit_duration_seconds_bucket{le=\"+Inf\"}",
        "forebay_commit_duration_seconds_sum",
        "forebay_snapshots_total{result=\"stored\"}",
        "forebay_publishes_total{result=\"published\"}",
        "forebay_publish_duration_seconds_count",
        "forebay_source_lag_seconds",
        "forebay_last_commit_timestamp_seconds",
        "forebay_memory_bytes{kind=\"cached\"}",
    ] {
        assert!(run.metric(sample).is_some_and(|value| value > 0.0), "{sample}: {:?}", run.metric(sample));
    }
    let memory =
        ["ahead", "cached", "staged"].map(|kind| run.metric(&format!("forebay_memory_bytes{{kind=\"{kind}\"}}")));
    assert!(memory.iter().all(Option::is_some));
    run.stop(&project).0.ends_with(130);
}

#[test]
fn names_of_the_promised_list_are_all_there_and_in_the_documents() {
    let project = project();
    let redis = Redis::start(&[]);
    let run = Served::start(&project, &["--follow", "--snapshots", &redis.url()]);
    run.waits_until(|status| status["ready"] == true);
    let text = run.get("/metrics").text();
    let names: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let reference = std::fs::read_to_string(file("docs/reference.md")).expect("the reference");
    for name in &names {
        assert!(reference.contains(&format!("`{name}")), "docs/reference.md lacks {name}");
    }
    for line in reference.lines().filter(|line| line.starts_with("| `forebay_")) {
        let name = line[3..].split(['`', '{']).next().expect("a name");
        assert!(names.contains(name), "docs/reference.md has {name}, and /metrics does not");
    }
    let board: Json =
        serde_json::from_str(&std::fs::read_to_string(file("docs/grafana.json")).expect("the board")).expect("JSON");
    let targets = board["panels"].as_array().expect("panels").iter().flat_map(|panel| {
        panel["targets"].as_array().expect("targets").iter().map(|target| target["expr"].as_str().expect("a query"))
    });
    let alerts = std::fs::read_to_string(file("docs/alerts.yml")).expect("the rules");
    let mut rules = String::from("groups:\n  - name: board\n    rules:\n");
    for (at, query) in targets.enumerate() {
        let query = query.replace("$__rate_interval", "5m").replace("$pipeline", ".*");
        rules.push_str(&format!("      - {{ record: \"board:{at}\", expr: {} }}\n", Json::from(query.as_str())));
        is_known(&query, &names);
    }
    alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).for_each(|query| is_known(query, &names));
    project.write("board.yml", &rules);
    promtool(&["check", "rules", &project.path("board.yml").display().to_string()], "");
    run.stop(&project).0.ends_with(130);
}

/// Each name of ours in a query is a name of a metric.
#[track_caller]
fn is_known(query: &str, names: &BTreeSet<&str>) {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    for (at, _) in query.match_indices("forebay_") {
        let name: String = query[at..].chars().take_while(|character| is_part(*character)).collect();
        let family = name.trim_end_matches("_bucket").trim_end_matches("_count").trim_end_matches("_sum");
        assert!(names.contains(name.as_str()) || names.contains(family), "{name} in {query}");
    }
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    let said = promtool(&["test", "rules", &file("tests/data/alerts_test.yml")], "");
    assert!(said.contains("SUCCESS"), "{said}");
    let alerts = std::fs::read_to_string(file("docs/alerts.yml")).expect("the rules");
    let cases = std::fs::read_to_string(file("tests/data/alerts_test.yml")).expect("the cases");
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(cases.matches(&format!("alertname: {alert}")).count() >= 2, "{alert} has no two cases");
    }
}

/// A Prometheus of the test's own.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_prometheus_scrapes_a_run_with_its_token() {
    let project = project();
    project.write("token", "0123456789abcdef0123");
    let run = run_over_a_fork(&project, &["--listen-token-file", "token"]);
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: forebay\n    authorization: {{ credentials_file: \
         {} }}\n    static_configs: [{{ targets: [\"{}\"] }}]\n",
        project.path("token").display(),
        run.address
    );
    project.write("prometheus.yml", config);
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", project.path("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", project.path("tsdb").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _prometheus = Prometheus(command.spawn().expect("prometheus (tests/setup.sh test installs it)"));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let query = |query: &str| -> Option<f64> {
        std::net::TcpStream::connect(address).ok()?;
        let reply = http::get(address, &format!("/api/v1/query?query={query}"));
        let json: Json = serde_json::from_slice(&reply.body).ok()?;
        json["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    wait_until(|| query("forebay_committed_block%7Bpipeline=%22transfers%22%7D") == Some(4.0));
    wait_until(|| query("up%7Bjob=%22forebay%22%7D") == Some(1.0));
    assert_eq!(query("forebay_rollbacks_total%7Bcause=%22fork%22%7D"), Some(1.0));
    run.stop(&project).0.ends_with(130);
}
