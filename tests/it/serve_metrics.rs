//! The metrics: what promtool says of them, what a real Prometheus reads, and the rules and the board over them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;

use crate::support::http;
use crate::support::project::Project;
use crate::support::redis_server::Redis;
use crate::support::served::Served;
use crate::support::{promtool, wait_until};

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
    let mut names = names.clone();
    for line in reference.lines().filter(|line| line.starts_with("| `forebay_")) {
        let name = line[3..].split(['`', '{']).next().expect("a name");
        if name.starts_with("forebay_seed_") {
            // Those of a seeder, which has a test of its own.
            names.insert(name);
        }
        assert!(names.contains(name), "docs/reference.md has {name}, and /metrics does not");
    }
    let alerts = std::fs::read_to_string(file("docs/alerts.yml")).expect("the rules");
    let mut rules = String::from("groups:\n  - name: board\n    rules:\n");
    for (at, query) in queries_of_board("5m").into_iter().enumerate() {
        rules.push_str(&format!("      - {{ record: \"board:{at}\", expr: {} }}\n", Json::from(query.as_str())));
        is_known(&query, &names);
    }
    alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).for_each(|query| is_known(query, &names));
    project.write("board.yml", &rules);
    promtool(&["check", "rules", &project.path("board.yml").display().to_string()], "");
    run.stop(&project).0.ends_with(130);
}

fn board() -> Json {
    serde_json::from_str(&std::fs::read_to_string(file("docs/grafana.json")).expect("the board")).expect("JSON")
}

/// What the board asks for, over so long a time.
fn queries_of_board(interval: &str) -> Vec<String> {
    let board = board();
    let panels = board["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row");
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let queries = targets.map(|target| target["expr"].as_str().expect("a query"));
    queries.map(|query| query.replace("$__rate_interval", interval).replace("$pipeline", ".*")).collect()
}

/// What Grafana 10 and later want of a board (kinds/dashboard of its source): what is missing shows as an empty panel there.
#[test]
fn the_board_is_one_that_grafana_loads() {
    let board = board();
    let text = |value: &Json| value.as_str().unwrap_or_else(|| panic!("a text, and not {value}")).to_owned();
    let whole = |value: &Json| value.as_u64().unwrap_or_else(|| panic!("a whole number, and not {value}"));
    assert!((8..=40).contains(&text(&board["uid"]).len()));
    assert!(
        (36..=39).contains(&whole(&board["schemaVersion"])),
        "that of Grafana 10; later ones bring it up to theirs"
    );
    assert!(board["id"].is_null(), "Grafana gives it");
    assert!(!text(&board["title"]).is_empty() && board["editable"].is_boolean() && board["time"]["from"].is_string());
    let variables = board["templating"]["list"].as_array().expect("variables");
    let names: Vec<String> = variables.iter().map(|variable| text(&variable["name"])).collect();
    assert_eq!(names, ["datasource", "pipeline"], "a variable stands behind those that it uses");
    assert_eq!((&variables[0]["type"], &variables[1]["type"]), (&"datasource".into(), &"query".into()));
    let source = &variables[1]["datasource"];
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in board["panels"].as_array().expect("panels") {
        let title = text(&panel["title"]);
        assert!(ids.insert(whole(&panel["id"])) && whole(&panel["id"]) > 0, "{title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| whole(&panel["gridPos"][side]));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(places.insert(place), "{title} lies over another panel");
        }
        if panel["type"] == "row" {
            assert!(panel["collapsed"] == false && panel["panels"] == serde_json::json!([]), "{title}");
            continue;
        }
        assert!(
            ["stat", "timeseries"].contains(&text(&panel["type"]).as_str()),
            "{title}: it is there in every Grafana"
        );
        assert_eq!(&panel["datasource"], source, "{title}");
        assert!(
            panel["fieldConfig"]["defaults"].is_object() && panel["fieldConfig"]["overrides"].is_array(),
            "{title}"
        );
        let targets = panel["targets"].as_array().expect("targets");
        let letters: BTreeSet<String> = targets.iter().map(|target| text(&target["refId"])).collect();
        assert!(letters.len() == targets.len() && !targets.is_empty(), "{title}");
        for target in targets {
            assert_eq!(&target["datasource"], source, "{title}");
            // A name in braces is one of the labels of the answer, or nothing is shown in its place.
            let legend = text(&target["legendFormat"]);
            assert_eq!(legend.matches("{{").count(), legend.matches("}}").count(), "{title}");
        }
    }
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
struct Prometheus {
    child: Child,
    address: std::net::SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// One that scrapes these every second, and goes by the rules of ours.
    fn start(project: &Project, token: Option<&str>, targets: &[std::net::SocketAddr]) -> Self {
        let token = token.map_or_else(String::new, |file| {
            format!("    authorization: {{ credentials_file: {} }}\n", project.path(file).display())
        });
        let targets = targets.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ");
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [\"{}\"]\nscrape_configs:\n  - job_name: \
             forebay\n{token}    static_configs: [{{ targets: [{targets}] }}]\n",
            file("docs/alerts.yml")
        );
        project.write("prometheus.yml", config);
        let port = crate::support::postgres_server::free_port();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", project.path("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", project.path("tsdb").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("prometheus (tests/setup.sh test installs it)");
        Self { child, address: std::net::SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// An answer of its interface; none as long as it does not listen.
    fn ask(&self, path: &str) -> Option<Json> {
        let mut stream = std::net::TcpStream::connect(self.address).ok()?;
        // To HTTP/1.0 it does not answer in chunks.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        serde_json::from_slice(&answer[body..]).ok()
    }

    fn query(&self, query: &str) -> Option<Json> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.ask(&format!("/api/v1/query?query={encoded}"))
    }

    /// The value of the first series.
    fn value(&self, query: &str) -> Option<f64> {
        self.query(query)?["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

#[test]
fn a_prometheus_scrapes_a_run_with_its_token() {
    let project = project();
    project.write("token", "0123456789abcdef0123");
    let run = run_over_a_fork(&project, &["--listen-token-file", "token"]);
    let prometheus = Prometheus::start(&project, Some("token"), &[run.address]);
    wait_until(|| prometheus.value("forebay_committed_block{pipeline=\"transfers\"}") == Some(4.0));
    wait_until(|| prometheus.value("up{job=\"forebay\"}") == Some(1.0));
    assert_eq!(prometheus.value("forebay_rollbacks_total{cause=\"fork\"}"), Some(1.0));
    run.stop(&project).0.ends_with(130);
}

/// Everything that the board and the alerts ask for is asked of a Prometheus that has scraped a run and a seeder.
#[test]
fn the_board_shows_something_in_every_panel_and_the_alerts_are_evaluated() {
    let project = project();
    let redis = Redis::start(&[]);
    let run = run_over_a_fork(&project, &["--snapshots", &redis.url()]);
    project.write("seed.toml", "name = \"risk\"\n[snapshots]\nregion_field = \"region\"\n");
    let seeder = Served::seed(
        &project,
        &["--snapshots", &redis.url(), "--every", "500ms", "--", "echo", "{\"region\":\"eu\",\"risk\":1}"],
    );
    let prometheus = Prometheus::start(&project, None, &[run.address, seeder.address]);
    for query in queries_of_board("10s") {
        let begun = std::time::Instant::now();
        wait_until(|| {
            let answer = prometheus.query(&query).unwrap_or_default();
            assert_ne!(answer["status"], "error", "{query}: {answer}");
            let is_there = answer["data"]["result"].as_array().is_some_and(|series| !series.is_empty());
            assert!(is_there || begun.elapsed() < crate::support::WAIT / 2, "{query} has no series: {answer}");
            is_there
        });
    }
    let mut rules = Json::Null;
    wait_until(|| {
        rules = prometheus.ask("/api/v1/rules").unwrap_or_default();
        let all = rules["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        assert!(all.iter().all(|rule| rule["health"] != "err"), "{rules}");
        !all.is_empty() && all.iter().all(|rule| rule["health"] == "ok")
    });
    seeder.stop(&project).0.ends_with(130);
    run.stop(&project).0.ends_with(130);
}
