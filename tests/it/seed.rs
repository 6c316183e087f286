//! `forebay seed`: a cron job that computes one document a region, whole: its lock, what was there before, what is new, its
//! health key. Over every kind of server, and with everything going wrong that can.

use std::process::{Child, Command};

use serde_json::{Value as Json, json};

use crate::publish::Target;
use crate::support::project::{Outcome, Project};
use crate::support::publishing::{pairs, statuses};
use crate::support::redis_server::Redis;
use crate::support::{signal, wait_until};

const FILE: &str = r#"name = "p"
[snapshots]
region_field = "at.region"
[snapshots.keys]
health = "forebay:meta:p"
[snapshots.health]
fetchedAt = "@now_ms"
recordCount = "@published"
new = "@new"
status = "@status"
version = 1
[snapshots.summary_fields]
regime = "meta.regime"
"#;

fn doc(region: &str, regime: &str, n: u64) -> String {
    format!("{{\"at\":{{\"region\":\"{region}\"}},\"meta\":{{\"regime\":\"{regime}\"}},\"n\":{n}}}\n")
}

/// A job: a server, a folder with `seed.toml`, and what the command writes.
struct Job {
    project: Project,
    url: String,
}

impl Job {
    fn over(url: &str) -> Self {
        let project = Project::new();
        project.write("seed.toml", FILE);
        Self { project, url: url.to_owned() }
    }

    fn args<'a>(&'a self, options: &[&'a str], command: &'a str) -> Vec<&'a str> {
        let fixed = ["seed", "--config", "seed.toml", "--snapshots", &self.url];
        [&fixed, options, &["--", "sh", "-c", command]].concat()
    }

    fn seed(&self, options: &[&str], command: &str) -> Outcome {
        self.project.forebay(&self.args(options, command))
    }

    /// Seeds these documents.
    fn give(&self, documents: &str) -> (Vec<(String, String)>, Json) {
        self.project.write("new", documents);
        statuses(&self.seed(&["--json"], "cat > before; cat new").ok())
    }

    /// Starts a job whose command waits until it is let go; and then writes `new`.
    fn begin(&self, options: &[&str]) -> Waiting<'_> {
        let _ = std::fs::remove_file(self.project.path("begun"));
        let made = Command::new("mkfifo").arg(self.project.path("gate")).status().expect("mkfifo");
        assert!(made.success());
        let args = self.args(options, "cat > before; echo $$ > begun; cat gate > passed; cat new");
        let child = self.project.command(&args).spawn().expect("the binary starts");
        wait_until(|| self.text("begun").ends_with('\n'));
        Waiting { job: self, child }
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.project.path(file)).unwrap_or_default()
    }
}

struct Waiting<'j> {
    job: &'j Job,
    child: Child,
}

impl Waiting<'_> {
    /// Lets the command go on.
    fn pass(self) -> Outcome {
        std::fs::write(self.job.project.path("gate"), "").expect("the gate");
        self.end()
    }

    fn end(self) -> Outcome {
        self.job.project.finish(self.child, &["seed"])
    }

    /// The process of the command.
    fn command_pid(&self) -> u32 {
        self.job.text("begun").trim().parse().expect("a number")
    }
}

fn health(server: &Redis) -> Json {
    let text: Option<String> = server.ask(&["GET", "forebay:meta:p"]);
    text.map_or(Json::Null, |text| serde_json::from_str(&text).expect("JSON"))
}

const LOCK: &str = "forebay:p:lock";

fn lock(server: &Redis) -> Option<String> {
    server.ask(&["GET", LOCK])
}

fn seeds_and_says_so(target: &Target, trips: u64) {
    let job = Job::over(&target.url);
    let (regions, total) = job.give(&(doc("a", "calm", 1) + &doc("b", "storm", 1)));
    assert_eq!(regions, pairs(&[("a", "published"), ("b", "published")]));
    assert_eq!(job.text("before"), "");
    // Fewer if a connection that is made beside the first one is there sooner.
    assert!(total["round_trips"].as_u64().is_some_and(|took| (2..=trips).contains(&took)), "{total}");
    let read = |key: &str| serde_json::from_str::<Json>(&target.ask::<String>(&["GET", key])).expect("JSON");
    let first = read("forebay:meta:p");
    assert!(first["fetchedAt"].as_i64().is_some_and(|at| at > 1_700_000_000_000), "{first}");
    assert_eq!((&first["recordCount"], &first["status"], &first["version"]), (&json!(2), &json!("ok"), &json!(1)));
    assert_eq!(read("forebay:p:summary")["regions"][1]["regime"], "storm");
    assert_eq!(target.ask::<u64>(&["EXISTS", LOCK]), 0);
    // What is there is what the next one gets; one is new, one the same, one goes on as it was.
    job.give(&(doc("c", "calm", 1)));
    let (regions, _) = job.give(&(doc("a", "calm", 2) + &doc("b", "storm", 1)));
    assert_eq!(job.text("before"), doc("a", "calm", 1) + &doc("b", "storm", 1) + &doc("c", "calm", 1));
    assert_eq!(regions, pairs(&[("a", "published"), ("b", "duplicate"), ("c", "kept")]));
    let last = read("forebay:meta:p");
    assert_eq!((&last["recordCount"], &last["new"], &last["status"]), (&json!(2), &json!(1), &json!("ok")));
    let summary = read("forebay:p:summary");
    let regimes: Vec<&Json> =
        summary["regions"].as_array().expect("regions").iter().map(|one| &one["regime"]).collect();
    assert_eq!(regimes, ["calm", "storm", "calm"]);
    assert_eq!(target.ask::<u64>(&["EXISTS", LOCK]), 0);
}

#[test]
fn it_takes_three_round_trips() {
    // One to connect, one for the lock and what is there, one for all that is new, summary, health and lock.
    seeds_and_says_so(&Target::plain(), 3);
}

#[test]
fn a_user_with_few_rights_may_seed() {
    seeds_and_says_so(&Target::with_user(), 3);
}

#[test]
fn over_tls_it_takes_four() {
    seeds_and_says_so(&Target::with_tls(), 4);
}

#[test]
fn a_cluster_is_seeded_too() {
    let target = Target::cluster();
    let job = Job::over(&target.url);
    let (regions, _) = job.give(&(doc("a", "calm", 1) + &doc("b", "storm", 1)));
    assert_eq!(regions, pairs(&[("a", "published"), ("b", "published")]));
    let (regions, _) = job.give(&doc("a", "calm", 2));
    assert_eq!(regions, pairs(&[("a", "published"), ("b", "kept")]));
    assert_eq!(job.text("before"), doc("a", "calm", 1) + &doc("b", "storm", 1));
    let meta: Json = serde_json::from_str(&target.ask::<String>(&["GET", "forebay:meta:p"])).expect("JSON");
    assert_eq!((&meta["recordCount"], &meta["status"]), (&json!(1), &json!("ok")));
    assert_eq!(target.ask::<u64>(&["EXISTS", LOCK]), 0);
    // A lock that is lost is noticed here too.
    job.project.write("new", doc("a", "lost", 3));
    let waiting = job.begin(&[]);
    let _: String = target.ask(&["SET", LOCK, "another"]);
    waiting.pass().fails(3, &["the lock was lost"]);
    assert_eq!(target.ask::<String>(&["GET", LOCK]), "another");
    let id: String = target.ask(&["GET", "forebay:{p:a}:latest"]);
    let there: String = target.ask(&["GET", &format!("forebay:{{p:a}}:doc:{id}")]);
    assert_eq!(there, doc("a", "calm", 2).trim());
}

#[test]
fn one_seeds_at_a_time() {
    let server = Redis::start(&[]);
    let job = Job::over(&server.url());
    job.project.write("new", doc("a", "calm", 1));
    let first = job.begin(&[]);
    let holder: Json = serde_json::from_str(&lock(&server).expect("a lock")).expect("JSON");
    let says = [holder["by"].as_str().expect("who"), holder["since"].as_str().expect("since")];
    assert!(says[0].contains(&format!("process {}", first.child.id())), "{says:?}");
    for (options, code) in [(&[][..], 0), (&["--lock-fail"], 75)] {
        let second = job.seed(options, "echo never > never").ends_with(code);
        assert!(says.iter().all(|text| second.stdout().contains(text)), "{second}");
        assert_eq!(second.stdout().lines().count(), 1, "{second}");
    }
    let second = job.seed(&["--json"], "echo never > never").ok().json();
    assert_eq!((&second["held_by"], &second["since"]), (&holder["by"], &holder["since"]));
    assert_eq!(job.text("never"), "");
    first.pass().ok();
    assert_eq!((lock(&server), health(&server)["recordCount"].clone()), (None, json!(1)));
}

#[test]
fn without_the_lock_nothing_is_published() {
    let server = Redis::start(&[]);
    let job = Job::over(&server.url());
    job.give(&doc("a", "calm", 1));
    let before = (server.keys(), health(&server));
    job.project.write("new", doc("a", "lost", 2) + &doc("b", "lost", 1));
    // It ended by itself, or another one has it by now.
    for other in [None, Some("another one")] {
        let _ = std::fs::remove_file(job.project.path("gate"));
        let waiting = job.begin(&[]);
        match other {
            None => drop(server.ask::<u64>(&["DEL", LOCK])),
            Some(other) => drop(server.ask::<String>(&["SET", LOCK, other])),
        }
        waiting.pass().fails(3, &["a, b", "the lock was lost while the command ran"]);
        assert_eq!(lock(&server).as_deref(), other);
        let _: u64 = server.ask(&["DEL", LOCK]);
        assert_eq!((server.keys(), health(&server)), before);
    }
    // A command that goes on for long without it is stopped.
    let _ = std::fs::remove_file(job.project.path("gate"));
    let waiting = job.begin(&["--lock", "1s"]);
    let _: String = server.ask(&["SET", LOCK, "another one"]);
    waiting.end().fails(1, &["the lock was lost while the command ran"]);
    assert_eq!(lock(&server).as_deref(), Some("another one"));
}

#[test]
fn the_lock_is_renewed_while_the_command_runs() {
    let server = Redis::start(&[]);
    let job = Job::over(&server.url());
    job.project.write("new", doc("a", "calm", 1));
    let waiting = job.begin(&["--lock", "2s"]);
    let left = || server.ask::<i64>(&["PTTL", LOCK]);
    for _ in 0..2 {
        wait_until(|| left() < 1500);
        wait_until(|| left() > 1700);
    }
    waiting.pass().ok();
}

#[test]
fn a_command_that_fails_leaves_what_is_there() {
    let server = Redis::start(&[]);
    let job = Job::over(&server.url());
    job.give(&(doc("a", "calm", 1) + &doc("b", "calm", 1)));
    let fetched = health(&server)["fetchedAt"].clone();
    for (command, says) in [
        ("cat new; exit 7", "sh ended with exit code 7"),
        ("kill -s KILL $$", "sh was ended by signal 9"),
        ("exec 1>&-", "the command wrote no document"),
        ("echo 1", "expected a JSON object"),
        ("echo '{}'", "has no field at.region"),
        ("cat new new", "a second document of region"),
    ] {
        let _: u64 = server.ask(&["PEXPIRE", "forebay:{p:a}:latest", "60000"]);
        let failed = job.seed(&[], command).fails(1, &[says, "nothing was published", "2 regions lives on"]);
        assert!(!failed.stderr().contains("bug"), "{failed}");
        assert!(server.ask::<i64>(&["PTTL", "forebay:{p:a}:latest"]) > 1_000_000, "{command}");
        let health = health(&server);
        let [count, status] = [&health["recordCount"], &health["status"]];
        assert_eq!((&health["fetchedAt"], count, status), (&fetched, &json!(0), &json!("failed")), "{command}");
        assert_eq!(lock(&server), None, "{command}");
    }
    let missing = job.project.forebay(&["seed", "--config", "seed.toml", "--snapshots", &job.url, "--", "./none"]);
    missing.fails(1, &["cannot run ./none"]);
    // One of several that cannot be published is told as `publish` tells it.
    job.project.write("new", doc("a", "calm", 2) + "{\"at\":{}}\n");
    let mixed = job.seed(&["--expect", "a,z"], "cat new").fails(3, &["has no field at.region", "z: it was expected"]);
    assert!(mixed.stdout().contains("1 published"), "{mixed}");
    assert_eq!(health(&server)["status"], "partial");
}

#[test]
fn a_command_ends_with_its_time_and_all_that_it_started() {
    let server = Redis::start(&[]);
    let job = Job::over(&server.url());
    let slow = "sh -c 'echo $$ > inner; trap \"\" TERM; while :; do sleep 1; done' & echo $$ > outer; wait";
    job.seed(&["--timeout", "1s"], slow).fails(1, &["did not end within 1 s, and was stopped"]);
    for file in ["inner", "outer"] {
        let pid = job.text(file).trim().to_owned();
        assert!(!pid.is_empty());
        wait_until(|| !is_running(&pid));
    }
    assert_eq!(lock(&server), None);
}

/// Whether a process is there, and is no zombie.
fn is_running(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

#[test]
fn a_signal_gives_the_lock_back_and_a_kill_leaves_one_that_ends() {
    let server = Redis::start(&[]);
    let job = Job::over(&server.url());
    for name in ["INT", "TERM", "KILL"] {
        let _ = std::fs::remove_file(job.project.path("gate"));
        let waiting = job.begin(&["--lock", "5s"]);
        let command = waiting.command_pid();
        signal::send(name, waiting.child.id());
        // After a kill the command goes on, and nobody takes what it writes.
        let outcome = if name == "KILL" { waiting.pass() } else { waiting.end() };
        if name == "KILL" {
            assert!((1..=5000).contains(&server.ask::<i64>(&["PTTL", LOCK])));
            wait_until(|| lock(&server).is_none());
        } else {
            assert_eq!(outcome.code(), Some(130), "{outcome}");
            assert_eq!(lock(&server), None, "{name}");
            wait_until(|| !is_running(&command.to_string()));
        }
    }
    job.give(&doc("a", "calm", 1));
}

#[test]
fn redis_may_go_away_between_the_steps() {
    let mut server = Redis::start(&[]);
    let job = Job::over(&server.url());
    job.project.write("new", doc("a", "calm", 1));
    let waiting = job.begin(&["--redis-timeout", "1s"]);
    server.kill();
    waiting.pass().fails(3, &["a: redis://127.0.0.1"]);
    job.seed(&["--redis-timeout", "1s"], "cat new").fails(1, &["redis://127.0.0.1"]);
    server.restart();
    job.give(&doc("a", "calm", 1));
    assert_eq!(health(&server)["recordCount"], 1);
}

#[test]
fn what_tells_duplicates_may_be_said() {
    let server = Redis::start(&[]);
    let job = Job::over(&server.url());
    let by = FILE.replace(
        "[snapshots]",
        "[snapshots]\ndedup_by = [\"meta.regime\"]\ndedup_bucket = \"20m\"\ntime_field = \"t\"",
    );
    job.project.write("seed.toml", by);
    let now: u64 = server.ask::<(u64, u64)>(&["TIME"]).0;
    // Two times of one span, and one of the next, none of them to come.
    let span = now / 1200 * 1200 - 2400;
    for (regime, time, status) in [
        ("calm", span + 1, "published"),
        ("calm", span + 1199, "duplicate"),
        ("storm", span + 2, "published"),
        ("storm", span + 1201, "published"),
    ] {
        let text = doc("a", regime, time).replace("{\"at\"", &format!("{{\"t\":{time},\"at\""));
        assert_eq!(job.give(&text).0, pairs(&[("a", status)]), "{regime} {time}");
    }
    // A duplicate is one for the whole span.
    let dedup = server.keys().into_iter().find(|key| key.contains(":dedup:")).expect("a key");
    assert!(server.ask::<i64>(&["PTTL", &dedup]) > 1_100_000);
    let missing = job.seed(&[], "echo '{\"at\":{\"region\":\"a\"},\"t\":1700000000}'");
    missing.fails(1, &["has no field meta.regime", "dedup_by"]);
    // Fields that do not count, by a path.
    let other = Job::over(&server.url());
    other.project.write(
        "seed.toml",
        FILE.replace("[snapshots]", "[snapshots]\ndedup_ignore = [\"meta.id\", \"n\"]").replace("\"p\"", "\"q\""),
    );
    for (text, status) in [
        ("{\"at\":{\"region\":\"a\"},\"meta\":{\"id\":1,\"v\":1}}", "published"),
        ("{\"at\":{\"region\":\"a\"},\"meta\":{\"id\":2,\"v\":1},\"n\":3}", "duplicate"),
        ("{\"at\":{\"region\":\"a\"},\"meta\":{\"id\":2,\"v\":2}}", "published"),
    ] {
        assert_eq!(other.give(text).0, pairs(&[("a", status)]), "{text}");
    }
}

#[test]
fn a_dry_run_shows_what_would_change_and_writes_nothing() {
    let server = Redis::start(&[]);
    let job = Job::over(&server.url());
    job.give(&(doc("a", "calm", 1) + &doc("b", "calm", 1) + &doc("c", "calm", 1)));
    let before = (server.keys(), health(&server), server.ask::<String>(&["GET", "forebay:{p:a}:latest"]));
    job.project.write("new", doc("a", "storm", 2) + &doc("b", "calm", 1) + &doc("d", "calm", 1));
    let shown = job.seed(&["--dry-run", "--json"], "cat > before; cat new").ok().json_lines();
    let told: Vec<(String, String)> = shown
        .iter()
        .map(|line| (line["region"].as_str().unwrap().into(), line["status"].as_str().unwrap().into()))
        .collect();
    assert_eq!(told, pairs(&[("a", "changed"), ("b", "unchanged"), ("d", "new"), ("c", "kept")]));
    assert_eq!(shown[0]["previous_id"], before.2);
    assert_eq!(job.text("before").lines().count(), 3);
    assert_eq!((server.keys(), health(&server), server.ask::<String>(&["GET", "forebay:{p:a}:latest"])), before);
}

#[test]
fn it_may_go_on_and_on_over_warm_connections() {
    let server = Redis::start(&[]);
    let job = Job::over(&server.url());
    let count = "cat > before; n=$(cat n 2>/dev/null || echo 0); n=$((n + 1)); echo $n > n; \
                 echo \"{\\\"at\\\":{\\\"region\\\":\\\"a\\\"},\\\"n\\\":$n}\"";
    let args = job.args(&["--every", "100ms", "--json"], count);
    let child = job.project.command(&args).spawn().expect("the binary starts");
    wait_until(|| job.text("n").trim().parse().is_ok_and(|n: u64| n >= 4));
    signal::send("TERM", child.id());
    let outcome = job.project.finish(child, &args);
    assert_eq!(outcome.code(), Some(130), "{outcome}");
    let trips: Vec<u64> = outcome.json_lines().iter().filter_map(|line| line["round_trips"].as_u64()).collect();
    // The first time it connects, unless a connection that is made beside it is there sooner.
    assert!([2, 3].contains(&trips[0]) && trips[1..3] == [2, 2], "{outcome}");
    assert_eq!(lock(&server), None);
}

#[test]
fn who_only_publishes_needs_no_handlers_and_may_say_all_in_options() {
    let server = Redis::start(&[]);
    let project = Project::new();
    let options = [
        "--snapshots",
        &server.url(),
        "--pipeline",
        "p",
        "--region-field",
        "at.region",
        "--key",
        "health=forebay:meta:p",
        "--key",
        "latest=snap:<region>",
        "--health",
        "fetchedAt=@now_ms",
        "--health",
        "n=1",
        "--summary-field",
        "regime=meta.regime",
    ];
    project.write("docs", doc("a", "calm", 1));
    project.forebay(&[&["publish", "docs"], &options[..]].concat()).ok();
    project.forebay(&[&["seed"], &options[..], &["--", "cat", "docs"]].concat()).ok();
    assert_eq!(health(&server)["n"], 1);
    assert!(server.ask::<String>(&["GET", "snap:a"]).starts_with("a."));
    assert!(server.ask::<String>(&["GET", "forebay:p:summary"]).contains("\"regime\":\"calm\""));
    project.write("p.toml", format!("name = \"p\"\n[snapshots]\nurl = \"{}\"\nregion_field = \"at.region\"\n[snapshots.keys]\nlatest = \"snap:<region>\"\n", server.url()));
    let latest = project.forebay(&["latest", "--config", "p.toml"]).ok();
    assert_eq!(latest.stdout(), doc("a", "calm", 1));
}

#[test]
fn what_is_wrong_is_told_before_anything_is_done() {
    let project = Project::new();
    let cases = [
        ("name = \"p\"\n[snapshot]\n", "p.toml:2:2: unknown key \"snapshot\"; did you mean \"snapshots\"?"),
        ("[snapshots]\n", "missing key \"name\""),
        ("name = \"p\"\n[seed]\nlock = \"10ms\"\n", "p.toml:3:8: lock: expected at least 1 s"),
        ("name = \"p\"\n[seed]\nlok = \"10m\"\n", "unknown key \"lok\" in [seed]; did you mean \"lock\"?"),
        ("name = \"p\"\n[snapshots.health]\nat = \"@now_ms\"\n", "it needs a key: [snapshots.keys] health"),
        ("name = \"p\"\n[snapshots.keys]\nhealth = \"h\"\n", "it needs [snapshots.health]"),
        (
            "name = \"p\"\n[snapshots.keys]\nhealth = \"h\"\n[snapshots.health]\nat = \"@nov\"\n",
            "health.at: @nov is not known; did you mean \"now\"?",
        ),
        (
            "name = \"p\"\n[snapshots.keys]\nhealth = \"h\"\n[snapshots.health]\nat = [1]\n",
            "expected a string, a number or a boolean",
        ),
        ("name = \"p\"\n[snapshots.keys]\nlock = \"forebay:<pipeline>:summary\"\n", "the same key as"),
        (
            "name = \"p\"\n[snapshots.summary_fields]\nid = \"x\"\n",
            "p.toml:3:1: summary_fields.id: the summary has a field id",
        ),
        ("name = \"p\"\n[snapshots]\ndedup_bucket = \"15m\"\n", "p.toml:3:16: dedup_bucket: it needs dedup_by"),
        ("name = \"p\"\n[snapshots]\ndedup_by = [\"a..b\"]\n", "dedup_by: expected names of fields"),
    ];
    for (text, says) in cases {
        project.write("p.toml", text);
        project
            .forebay(&["seed", "--config", "p.toml", "--snapshots", "redis://127.0.0.1:1", "--", "true"])
            .fails(2, &[says]);
    }
    for (options, says) in [
        (&["--key", "lates=x"][..], "--key: there is no key \"lates\""),
        (&["--key", "latest"], "--key: expected a name, = and a value"),
        (&["--key", "latest=x"], "--key latest: it must hold <region>"),
        (&["--health", "a=@now"], "--health: it needs --key health"),
        (&["--key", "health=h"], "--key health: it needs --health"),
        (&["--dedup-bucket", "15m"], "--dedup-bucket: it needs --dedup-by"),
        (&["--lock", "1ms"], "--lock: expected at least 1 s"),
        (&["--timeout", "0s"], "--timeout: expected a duration above zero"),
    ] {
        let fixed = ["seed", "--snapshots", "redis://127.0.0.1:1"];
        project.forebay(&[&fixed, options, &["--", "true"]].concat()).fails(2, &[says]);
    }
    project.forebay(&["seed", "--", "true"]).fails(2, &["publish where?"]);
    project.forebay(&["seed", "--snapshots", "redis://127.0.0.1:1"]).fails(2, &["COMMAND"]);
}

#[test]
fn a_run_writes_health_key_and_fields_of_the_summary_too() {
    let server = Redis::start(&[]);
    let pipeline = FILE.replace("region_field = \"at.region\"\n", "every = \"end\"\n").replace("meta.regime", "n")
        + "[source]\npath = \"events.ndjson\"\n[entities.t]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\n";
    let script = "function on_event(e, ctx) ctx.t:add(e.id, { n = 1 }) end\n\
                  function on_snapshot(ctx) return { n = ctx.t:count() } end\n";
    let event =
        |block: u64, region: &str, id: &str| format!("{{\"block\":{block},\"region\":\"{region}\",\"id\":\"{id}\"}}\n");
    let mut events = event(1, "a", "x") + &event(2, "b", "x");
    let project = Project::with(&pipeline, script, &events);
    let run = || drop(project.forebay(&["run", "pipeline.toml", "--snapshots", &server.url()]).ok());
    run();
    let first = health(&server);
    assert_eq!((&first["recordCount"], &first["status"]), (&json!(2), &json!("ok")));
    // Where nothing was published there is nothing to say.
    run();
    assert_eq!(health(&server), first);
    events += &event(3, "b", "y");
    project.write("events.ndjson", &events);
    run();
    assert_eq!(health(&server)["recordCount"], 1);
    let summary: Json = serde_json::from_str(&server.ask::<String>(&["GET", "forebay:p:summary"])).expect("JSON");
    assert_eq!([&summary["regions"][0]["regime"], &summary["regions"][1]["regime"]], [&json!(1), &json!(2)]);
}
