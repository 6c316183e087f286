//! A run under a supervisor: what systemd is told, settings that are taken over at SIGHUP, the first process of a container.

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::support::postgres_server::{Server, is_root};
use crate::support::project::{Outcome, Project};
use crate::support::redis_server::Redis;
use crate::support::stream::Stream;
use crate::support::{WAIT, signal, wait_until};

const SCRIPT: &str = r#"
function on_event(event, ctx)
  while event.hang do end
  ctx.seen:add("s", { events = 1 })
end
function on_snapshot(ctx) return { events = ctx.seen:get("s").events } end
"#;

const PIPELINE: &str = r#"name = "seen"
[source]
path = "events.ndjson"
[entities.seen]
columns = { events = "bigint" }
[handlers]
script = "handlers.lua"
timeout = "300s"
[store]
url = "sqlite:seen.db"
"#;

fn events(blocks: std::ops::RangeInclusive<i64>) -> String {
    blocks.map(|block| format!("{{\"block\":{block},\"region\":\"r\"}}\n")).collect()
}

fn project(more: &str) -> Project {
    Project::with(&format!("{PIPELINE}{more}"), SCRIPT, &events(1..=3))
}

fn append(project: &Project, text: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(project.path("events.ndjson")).expect("events");
    file.write_all(text.as_bytes()).expect("events");
}

/// Plays systemd for one run, which is killed if a test fails.
struct Supervised {
    socket: UnixDatagram,
    child: Option<Child>,
    /// What was told, line by line.
    told: Vec<String>,
}

const RUN: [&str; 3] = ["run", "pipeline.toml", "--follow"];

impl Supervised {
    /// A run that is told of a socket, and of a watchdog of so many milliseconds.
    fn start(project: &Project, name: &str, address: &SocketAddr, watchdog: u64) -> Self {
        let socket = UnixDatagram::bind_addr(address).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
        let mut command = project.command(&RUN);
        command.env("NOTIFY_SOCKET", name);
        if watchdog > 0 {
            command.env("WATCHDOG_USEC", (watchdog * 1000).to_string());
        }
        Self { socket, child: Some(command.spawn().expect("the binary starts")), told: Vec::new() }
    }

    fn of(project: &Project, watchdog: u64) -> Self {
        let path = project.path("notify");
        let _ = std::fs::remove_file(&path);
        let address = SocketAddr::from_pathname(&path).expect("an address");
        Self::start(project, &path.display().to_string(), &address, watchdog)
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Takes in what comes within a moment.
    fn listen(&mut self) {
        let mut text = [0; 4096];
        if let Ok(len) = self.socket.recv(&mut text) {
            let text = String::from_utf8_lossy(&text[..len]).into_owned();
            self.told.extend(text.lines().map(str::to_owned));
        }
    }

    /// Waits until it was told this again; returns what was told since.
    #[track_caller]
    fn hears(&mut self, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        let (from, begun) = (self.told.len(), Instant::now());
        while !self.told[from..].iter().any(|line| is_it(line)) {
            assert!(begun.elapsed() < WAIT, "it is not told; but {:?}", self.told);
            self.listen();
        }
        self.told[from..].to_vec()
    }

    /// How often it hears that the run is alive within that time.
    fn beats(&mut self, within: Duration) -> usize {
        let (from, begun) = (self.told.len(), Instant::now());
        while begun.elapsed() < within {
            self.listen();
        }
        self.told[from..].iter().filter(|line| *line == "WATCHDOG=1").count()
    }

    fn end(mut self, project: &Project, name: &str) -> (Outcome, Vec<String>) {
        signal::send(name, self.pid());
        let child = self.child.take().expect("it runs");
        let outcome = project.finish(child, &RUN);
        // What it has told is there until nothing more comes.
        loop {
            let before = self.told.len();
            self.listen();
            if self.told.len() == before {
                return (outcome, std::mem::take(&mut self.told));
            }
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn starts(prefix: &str) -> impl Fn(&str) -> bool + '_ {
    move |line| line.starts_with(prefix)
}

#[test]
fn a_supervisor_is_told_how_the_run_stands() {
    let project = project("");
    let mut run = Supervised::of(&project, 0);
    run.hears(|line| line == "READY=1");
    // A second run, which does not get the lock, is never ready.
    let held = project.command(&RUN).env("NOTIFY_SOCKET", project.path("notify")).spawn().expect("the binary starts");
    assert_eq!(project.finish(held, &RUN).code(), Some(1));
    run.hears(starts("STATUS=live, block 2"));
    append(&project, &events(4..=9));
    run.hears(starts("STATUS=live, block 8"));
    assert_eq!(run.told.iter().filter(|line| *line == "READY=1").count(), 1, "{:?}", run.told);
    assert!(!run.told.iter().any(|line| line.starts_with("WATCHDOG")), "nobody asked for it");
    let (outcome, told) = run.end(&project, "TERM");
    assert_eq!(outcome.code(), Some(130), "{outcome}");
    let stopping = told.iter().position(|line| line == "STOPPING=1").expect("it stops");
    assert!(told[stopping..].iter().any(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")), "{told:?}");
}

#[test]
fn a_socket_without_a_file_and_one_that_nobody_reads_will_do() {
    let project = project("");
    let name = format!("forebay-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("an address");
    let mut run = Supervised::start(&project, &format!("@{name}"), &address, 0);
    run.hears(|line| line == "READY=1");
    run.end(&project, "INT").0.ends_with(130);

    // Nobody takes anything out of it, and it is full soon.
    let _deaf = UnixDatagram::bind(project.path("deaf")).expect("a socket");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("not blocking");
    while filler.send_to(b"x", project.path("deaf")).is_ok() {}
    for socket in [project.path("deaf"), project.path("none")] {
        let run = ["run", "pipeline.toml"];
        let child = project.command(&run).env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "1000").spawn();
        project.finish(child.expect("the binary starts"), &run).ok();
    }
    let odd = project.command(&["run", "pipeline.toml"]).env("NOTIFY_SOCKET", "vsock:2:1").spawn();
    let outcome = project.finish(odd.expect("the binary starts"), &["run"]).ok();
    assert!(outcome.stderr().contains("NOTIFY_SOCKET=vsock:2:1: expected a path"), "{outcome}");
}

#[test]
fn a_watchdog_is_fed_while_the_source_is_idle_and_starves_when_a_handler_hangs() {
    let project = project("");
    let mut run = Supervised::of(&project, 800);
    run.hears(starts("STATUS=live, block 2"));
    // Longer than the watchdog's time: nothing comes, and that is known.
    assert!(run.beats(Duration::from_secs(2)) >= 3, "{:?}", run.told);
    append(
        &project,
        "{\"block\":4,\"region\":\"r\"}\n{\"block\":5,\"region\":\"r\",\"hang\":true}\n{\"block\":6,\"region\":\"r\"}\n",
    );
    // Until the last beat is older than the watchdog allows.
    let begun = Instant::now();
    while run.beats(Duration::from_secs(1)) > 0 {
        assert!(begun.elapsed() < WAIT, "it is fed, though a handler hangs");
    }
    assert_eq!(run.beats(Duration::from_secs(1)), 0);
}

#[test]
fn a_watchdog_is_fed_while_the_store_is_away() {
    let server = Server::start("");
    let project = project("");
    project.write("pipeline.toml", PIPELINE.replace("sqlite:seen.db", &server.url("postgres")));
    let mut run = Supervised::of(&project, 800);
    run.hears(starts("STATUS=live, block 2"));
    server.crash();
    append(&project, &events(4..=6));
    assert!(run.beats(Duration::from_secs(3)) >= 6, "{:?}", run.told);
    server.restart();
    run.hears(starts("STATUS=live, block 5"));
    run.end(&project, "TERM").0.ends_with(130);
}

/// A run beside which its file changes.
struct Reloaded {
    project: Project,
    run: Supervised,
}

impl Reloaded {
    fn start(more: &str) -> Self {
        let project = project(more);
        let mut run = Supervised::of(&project, 0);
        run.hears(starts("STATUS=live"));
        Self { project, run }
    }

    /// Gives the file another text, and waits until that was looked at.
    fn reload(&mut self, text: &str) {
        self.project.write("pipeline.toml", text);
        signal::send("HUP", self.run.pid());
        self.run.hears(starts("RELOADING=1"));
        if self.run.told.last().is_none_or(|line| line != "READY=1") {
            self.run.hears(|line| line == "READY=1");
        }
    }

    fn snapshots(&self) -> usize {
        self.project.query("seen.db", "SELECT seq FROM forebay_snapshots").len()
    }

    fn end(self) -> Outcome {
        self.run.end(&self.project, "TERM").0.ends_with(130)
    }
}

#[test]
fn what_cannot_change_data_is_taken_over_at_sighup() {
    let server = Redis::start(&[]);
    let redis = format!("url = \"{}\"\n", server.url());
    let ttl = || server.ask::<i64>(&["TTL", "forebay:{seen:r}:latest"]);
    let mut reloaded = Reloaded::start(&format!("[snapshots]\nevery = \"end\"\n{redis}"));
    append(&reloaded.project, &events(4..=6));
    reloaded.run.hears(starts("STATUS=live, block 5"));
    assert_eq!((reloaded.snapshots(), ttl()), (0, -2));

    let pipeline = PIPELINE.replace("path = \"events.ndjson\"", "path = \"events.ndjson\"\nsettle = \"100ms\"");
    let more = "[snapshots]\nevery = \"batch\"\nttl = \"1h\"\ndedup = \"0s\"\npool = 2\ntimeout = \"2s\"\n";
    reloaded.reload(&format!("{pipeline}{more}{redis}[batch]\nevents = 1\nmemory = \"64MiB\"\n"));
    // The last block settles now, and each batch has its snapshot.
    reloaded.run.hears(starts("STATUS=live, block 6"));
    append(&reloaded.project, &events(7..=9));
    reloaded.run.hears(starts("STATUS=live, block 9"));
    wait_until(|| (1..=3600).contains(&ttl()));
    assert!(reloaded.snapshots() > 0);
    let [reloading] =
        &reloaded.run.told.iter().filter(|line| line.starts_with("MONOTONIC_USEC=")).collect::<Vec<_>>()[..]
    else {
        panic!("{:?}", reloaded.run.told)
    };
    assert!(reloading["MONOTONIC_USEC=".len()..].parse::<u64>().is_ok_and(|micros| micros > 0), "{reloading}");

    let outcome = reloaded.end();
    let keys = "batch.events, batch.memory, snapshots.dedup, snapshots.every, snapshots.pool, snapshots.timeout, snapshots.ttl, source.settle";
    assert!(outcome.stderr().contains(&format!("pipeline.toml was taken over: {keys}")), "{outcome}");
}

#[test]
fn the_rest_is_refused_by_name_and_then_nothing_is_taken_over() {
    let mut reloaded = Reloaded::start("[snapshots]\nevery = \"end\"\n");
    let every = "[snapshots]\nevery = \"batch\"\n";
    let refused = PIPELINE.replace("timeout = \"300s\"", "timeout = \"9s\"").replace("seen.db", "other.db");
    reloaded.reload(&format!("{refused}{every}"));
    reloaded.reload("name =");
    std::fs::remove_file(reloaded.project.path("pipeline.toml")).expect("a file");
    signal::send("HUP", reloaded.run.pid());
    reloaded.run.hears(|line| line == "READY=1");
    append(&reloaded.project, &events(4..=6));
    reloaded.run.hears(starts("STATUS=live, block 5"));
    assert_eq!(reloaded.snapshots(), 0);
    // The same text again is nothing new; and what it says of the log alone is taken over.
    reloaded.reload(&format!("{PIPELINE}[snapshots]\nevery = \"end\"\n"));
    reloaded.reload(&format!("{PIPELINE}[snapshots]\nevery = \"end\"\n[log]\nlevel = \"error\"\n"));
    reloaded.reload("name =");
    let outcome = reloaded.end();
    let said = outcome.stderr();
    for says in [
        "WARN SIGHUP: pipeline.toml: handlers.timeout, store.url cannot change while a run goes on; what can: batch.events",
        "nothing was taken over",
        "WARN SIGHUP: pipeline.toml:1:7: ",
        "WARN SIGHUP: pipeline.toml: there is no such file",
        "INFO SIGHUP: pipeline.toml says nothing new",
    ] {
        assert!(said.contains(says), "{says}: {outcome}");
    }
    assert_eq!(said.matches("pipeline.toml:1:7").count(), 1, "after that only errors are told: {outcome}");
}

#[test]
fn a_run_that_does_not_follow_takes_over_too() {
    let project = project("[snapshots]\nevery = \"end\"\n");
    let mut stream = Stream::start(&project, &["run", "pipeline.toml", "--source", "-"]);
    stream.send(&events(1..=2));
    // None while there is nothing to read yet.
    let status = || {
        let outcome = project.forebay(&["status", "pipeline.toml", "--json"]);
        serde_json::from_str(&outcome.stdout()).unwrap_or(serde_json::Value::Null)
    };
    wait_until(|| status()["checkpoint"]["block"] == 1);
    project.write("pipeline.toml", format!("{PIPELINE}[snapshots]\nevery = \"batch\"\n"));
    signal::send("HUP", stream.child.id());
    stream.says("pipeline.toml was taken over: snapshots.every");
    stream.send(&events(3..=4));
    wait_until(|| status()["regions"][0]["seq"] == 1);
    stream.end(&project).0.ok();
}

/// The children of a process.
fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn as_the_first_process_signals_work_and_no_zombie_stays() {
    if !is_root() {
        eprintln!("skipped: only root may begin a PID namespace");
        return;
    }
    let server = Redis::start(&[]);
    let project = project(&format!("[snapshots]\nevery = \"batch\"\nurl = \"{}\"\n", server.url()));
    let run = [&RUN[..], &["--on-publish", "(trap '' HUP; sleep 0.2) & echo $$ >> pids"]].concat();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child=KILL", env!("CARGO_BIN_EXE_forebay")]).args(&run);
    command.current_dir(project.path("")).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("unshare");
    let runs =
        |count: usize| std::fs::read_to_string(project.path("pids")).is_ok_and(|text| text.lines().count() >= count);
    wait_until(|| runs(1) || child.try_wait().expect("a child").is_some());
    append(&project, &events(4..=6));
    wait_until(|| runs(2) || child.try_wait().expect("a child").is_some());
    let Some(first) = children(child.id()).first().copied() else {
        let outcome = project.finish(child, &run);
        panic!("it has ended: {outcome}")
    };
    // Watchers and what they leave go to the first process: only the run itself stays.
    wait_until(|| children(first).len() == 1);
    signal::send("TERM", first);
    project.finish(child, &run).ends_with(130);
}

#[test]
fn the_unit_file_is_one_that_systemd_takes() {
    let unit = include_str!("../../docs/forebay.service");
    let project = Project::new();
    // What it starts has to be there.
    let here = unit.replace("/usr/local/bin/forebay", env!("CARGO_BIN_EXE_forebay"));
    assert_ne!(here, unit);
    project.write("forebay.service", here);
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(project.path("forebay.service")).output() else {
        eprintln!("skipped: there is no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let of_unit: Vec<&str> = said.lines().filter(|line| line.contains("forebay")).collect();
    assert!(output.status.success() && of_unit.is_empty(), "{said}");
}

/// A linter is not there everywhere; this holds what a build would fail at, and what the image promises.
#[test]
fn the_containerfile_names_files_that_are_there() {
    let text = include_str!("../../docs/Containerfile");
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let of = |word: &str| -> Vec<&str> {
        lines.iter().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
    };
    let known = ["ARG", "FROM", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "STOPSIGNAL", "ENTRYPOINT", "CMD", "   "];
    for line in &lines {
        assert!(known.iter().any(|word| line.starts_with(word)), "{line}");
    }
    assert_eq!(of("FROM").len(), 2, "one stage builds, the other is small");
    for copied in of("COPY").iter().filter(|copied| !copied.starts_with("--from")) {
        let names: Vec<&str> = copied.split(' ').collect();
        for name in &names[..names.len() - 1] {
            assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name).exists(), "{name}");
        }
    }
    let version = env!("CARGO_PKG_RUST_VERSION");
    assert_eq!(of("ARG"), [format!("RUST={version}")], "as rust-version says");
    assert_eq!((of("USER"), of("ENTRYPOINT")), (vec!["10001"], vec![r#"["/usr/local/bin/forebay"]"#]));
}
