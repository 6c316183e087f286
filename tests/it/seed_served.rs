//! A seeder that stays: what its server says while it is well, while its command fails and while Redis is away; and its page.

use serde_json::{Value as Json, json};

use crate::support::browser::Browser;
use crate::support::http::{get_with, send};
use crate::support::project::Project;
use crate::support::redis_server::Redis;
use crate::support::served::Served;
use crate::support::{promtool, wait_until};

const FILE: &str =
    "name = \"risk\"\n[snapshots]\nregion_field = \"region\"\ntime_field = \"at\"\ndedup_ignore = [\"at\"]\n";

/// Writes what lies in a file, and fails where that says so.
const COMMAND: &str = "cat >/dev/null; test ! -e fails && cat docs";

struct Job {
    project: Project,
    redis: Redis,
}

impl Job {
    fn new(regions: &[(&str, i64)]) -> Self {
        let job = Self { project: Project::new(), redis: Redis::start(&[]) };
        job.project.write("seed.toml", FILE);
        job.write(regions);
        job
    }

    /// What the command writes from now on: a document of each of these regions.
    fn write(&self, regions: &[(&str, i64)]) {
        let now = forebay::Timestamp::now().to_millis_text();
        let line = |(region, risk): &(&str, i64)| format!("{}\n", json!({ "region": region, "risk": risk, "at": now }));
        // Never half written.
        self.project.write("docs.new", regions.iter().map(line).collect::<String>());
        std::fs::rename(self.project.path("docs.new"), self.project.path("docs")).expect("the documents");
    }

    fn start(&self, more: &[&str]) -> Served {
        let url = self.redis.url();
        let fixed = ["--snapshots", &url, "--every", "300ms", "--redis-timeout", "1s"];
        Served::seed(&self.project, &[&fixed, more, &["--", "sh", "-c", COMMAND]].concat())
    }
}

fn region<'s>(status: &'s Json, name: &str) -> &'s Json {
    let regions = status["regions"].as_array().expect("regions");
    regions.iter().find(|one| one["region"] == name).unwrap_or_else(|| panic!("{name} in {status}"))
}

fn last(status: &Json) -> &Json {
    &status["seeder"]["last"]
}

#[test]
fn a_seeder_that_is_well_says_what_its_passes_brought() {
    let job = Job::new(&[("asia", 1), ("europe", 2)]);
    let run = job.start(&[]);
    let status = run.waits_until(|status| status["seeder"]["passes"]["done"].as_u64() >= Some(2));
    assert_eq!(
        (&status["phase"], &status["ready"], &status["pipeline"]),
        (&"live".into(), &true.into(), &"risk".into())
    );
    assert_eq!((&status["health"]["ok"], &status["health"]["reason"]), (&true.into(), &Json::Null));
    assert_eq!(region(&status, "asia")["counts"]["published"], 1, "{status}");
    assert!(region(&status, "asia")["counts"]["unchanged"].as_u64() >= Some(1), "{status}");
    assert_eq!(region(&status, "europe")["state"], "unchanged");
    assert!(region(&status, "europe")["generated_at"].is_string() && status["oldest_at"].is_string(), "{status}");
    assert_eq!(last(&status)["regions"]["unchanged"], 2, "{status}");
    // A program's arguments may be secrets.
    assert_eq!(status["seeder"]["command"], "sh");
    job.write(&[("asia", 5), ("europe", 2)]);
    let status = run.waits_until(|status| region(status, "asia")["counts"]["published"] == 2);
    assert_eq!(region(&status, "europe")["counts"]["published"], 1, "{status}");
    for path in ["/live", "/ready", "/health"] {
        let reply = run.get(path);
        assert_eq!((reply.status, &reply.json()["phase"]), (200, &"live".into()), "{path}");
    }
    assert!(run.get("/ready").json()["done_at"].is_string());
    let token = status["regions_token"].as_str().expect("a token").to_owned();
    run.waits_until(|status| status["regions_token"] != token.as_str());
    let documents = run.get("/snapshots/asia");
    assert_eq!(documents.status, 404);
    assert!(documents.json()["error"].as_str().is_some_and(|error| error.contains("forebay latest")), "{documents:?}");
    run.stop(&job.project).0.ends_with(130);
}

#[test]
fn a_command_that_fails_and_a_redis_that_is_away_are_told_until_they_are_back() {
    let mut job = Job::new(&[("asia", 1)]);
    let run = job.start(&["--stall", "400ms"]);
    run.waits_until(|status| status["ready"] == true);
    job.project.write("fails", "");
    let status = run.waits_until(|status| status["ready"] == false);
    assert_eq!((&status["health"]["reason"], &last(&status)["result"]), (&"source".into(), &"not_computed".into()));
    wait_until(|| run.get("/health").status == 503);
    let health = run.get("/health").json();
    let message = health["message"].as_str().unwrap_or_default();
    assert!(message.contains("sh ended with exit code 1") && message.contains("lives on"), "{health}");
    assert_eq!((run.get("/live").status, run.get("/ready").status), (200, 503));
    assert_eq!(region(&status, "asia")["region"], "asia", "what is known stays");
    std::fs::remove_file(job.project.path("fails")).expect("the file");
    run.waits_until(|status| status["ready"] == true && status["health"]["ok"] == true);

    job.redis.kill();
    let status = run.waits_until(|status| status["health"]["reason"] == "publish");
    assert_eq!(last(&status)["result"], "not_published");
    wait_until(|| run.get("/health").status == 503);
    assert_eq!(run.get("/live").status, 200, "it asks nobody");
    job.redis.restart();
    let status = run.waits_until(|status| status["ready"] == true && status["health"]["ok"] == true);
    assert!(status["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty()), "{status}");

    // One region is newer there, by a clock that was wrong: the others are published all the same.
    let seq = format!("{}", i64::MAX / 4);
    let keys = job.redis.keys();
    let key =
        keys.iter().find(|key| key.contains("asia") && key.ends_with(":seq")).unwrap_or_else(|| panic!("{keys:?}"));
    job.redis.ask::<String>(&["SET", key, &seq]);
    job.write(&[("asia", 9), ("europe", 3)]);
    let status = run.waits_until(|status| last(status)["result"] == "incomplete");
    assert_eq!((&region(&status, "asia")["state"], &status["ready"]), (&"stale".into(), &true.into()), "{status}");
    assert!(region(&status, "asia")["error"].as_str().is_some_and(|error| error.contains("it stays")), "{status}");
    assert_eq!(region(&status, "europe")["counts"]["published"], 1);
    run.stop(&job.project).0.ends_with(130);
}

#[test]
fn another_one_that_has_the_lock_is_no_failure() {
    let job = Job::new(&[("asia", 1)]);
    let holder = json!({ "by": "another, process 7", "since": "2026-01-01T00:00:00.000Z", "token": "t" }).to_string();
    job.redis.ask::<String>(&["SET", "forebay:risk:lock", &holder]);
    let run = job.start(&[]);
    let status = run.waits_until(|status| last(status)["result"] == "held");
    assert_eq!((&status["ready"], &status["health"]["ok"]), (&true.into(), &true.into()), "{status}");
    assert!(last(&status)["cause"].as_str().is_some_and(|cause| cause.contains("another, process 7")), "{status}");
    run.stop(&job.project).0.ends_with(130);
}

#[test]
fn its_metrics_are_in_the_documents_and_promtool_has_nothing_to_say() {
    let job = Job::new(&[("asia", 1), ("europe", 2)]);
    job.project.write("token", "0123456789abcdef0123");
    let run = job.start(&["--listen-token-file", "token"]);
    let with_token = |path| get_with(run.address, path, "Authorization: Bearer 0123456789abcdef0123\r\n");
    wait_until(|| with_token("/status").json()["seeder"]["passes"]["done"].as_u64() >= Some(1));
    assert_eq!((run.get("/live").status, run.get("/status").status, run.get("/metrics").status), (200, 401, 401));
    assert_eq!(run.get("/ready").json(), json!({ "ready": true }), "nothing else");
    let evil = send(run.address, b"GET /live HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(evil.status, 421, "a page of another site");
    let text = with_token("/metrics").text();
    assert_eq!(promtool(&["check", "metrics"], &text), "");
    for sample in [
        "forebay_ready{pipeline=\"risk\"} 1",
        "forebay_phase{pipeline=\"risk\",phase=\"live\"} 1",
        "forebay_seed_interval_seconds{pipeline=\"risk\"} 0.3",
        "forebay_publishes_total{pipeline=\"risk\",result=\"published\"} 2",
        "forebay_seed_passes_total{pipeline=\"risk\",result=\"not_computed\"} 0",
        "forebay_seed_last_success_timestamp_seconds{pipeline=\"risk\"} ",
        "forebay_snapshot_oldest_age_seconds{pipeline=\"risk\"} ",
        "forebay_seed_pass_duration_seconds_count{pipeline=\"risk\"} ",
        "forebay_publish_duration_seconds_bucket{pipeline=\"risk\",le=\"+Inf\"} ",
    ] {
        assert!(text.contains(sample), "{sample} in\n{text}");
    }
    let reference = include_str!("../../docs/reference.md");
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in &names {
        assert!(reference.contains(&format!("`{name}")), "docs/reference.md lacks {name}");
    }
    for line in reference.lines().filter(|line| line.starts_with("| `forebay_seed_")) {
        let name = line[3..].split(['`', '{']).next().expect("a name");
        assert!(names.contains(&name), "docs/reference.md has {name}, and /metrics does not");
    }
    run.stop(&job.project).0.ends_with(130);
}

#[test]
fn a_seeder_that_seeds_once_has_nobody_to_ask() {
    let job = Job::new(&[("asia", 1)]);
    for more in [&["--listen", "127.0.0.1:0"][..], &["--listen", "127.0.0.1:0", "--dry-run"]] {
        let url = job.redis.url();
        let args = [&["seed", "--config", "seed.toml", "--snapshots", &url][..], more, &["--", "cat", "docs"]].concat();
        let outcome = job.project.forebay(&args).fails(2, &["--listen: it needs --every"]);
        assert_eq!(outcome.stderr().lines().count(), 1, "{outcome}");
    }
    assert_eq!(job.redis.keys(), Vec::<String>::new());
}

#[test]
fn its_page_says_how_it_is_and_what_to_do() {
    let job = Job::new(&[("asia", 1), ("<img src=x onerror=\"window.isHacked=1\">", 2)]);
    let run = job.start(&["--stall", "1ms"]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", run.address));
    browser.shows("state", "All is well");
    browser.shows("say", "Readers have what the command computed");
    browser.shows("rows", "<img src=x");
    browser.shows("result", "all regions published");
    browser.shows("every", "every 0.3 s");
    browser.shows("passes", "2 unchanged");
    browser.shows("flow", &job.redis.url());
    browser.waits_for("/^(now|\\d+ s ago)$/.test(document.getElementById('oldest').innerText)");
    assert_eq!(browser.text("name"), "risk");
    crate::page::is_sound(&browser);
    browser.run("document.querySelectorAll('#rows button')[1].click()");
    browser.shows("d-facts", "Document made");
    browser.press("\u{e00c}");

    job.project.write("fails", "");
    browser.shows("state", "The command fails");
    browser.shows("todo", "ended with exit code 1");
    browser.waits_for("document.getElementById('band').classList.contains('bad')");
    browser.shows("passes", "The command failed");
    // As one who opens it now sees it, on a phone.
    browser.size(320, 640);
    browser.open(&format!("http://{}/", run.address));
    browser.shows("state", "The command fails");
    crate::page::is_narrow_enough(&browser);
    browser.prefers("prefers-color-scheme", "dark");
    browser.waits_for("getComputedStyle(document.body).backgroundColor === 'rgb(13, 17, 23)'");
    crate::page::is_sound(&browser);
    std::fs::remove_file(job.project.path("fails")).expect("the file");
    browser.shows("state", "look at this");
    browser.shows("looks", "error");
    assert_eq!(browser.run("return window.isHacked ?? null"), Json::Null);
    assert_eq!(browser.console(), Vec::<String>::new());
    let (outcome, _) = run.stop(&job.project);
    outcome.ends_with(130);
    browser.shows("state", "No answer from forebay");
}
