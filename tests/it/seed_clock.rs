//! `forebay seed` beside a wall clock that jumps an hour ahead and back: the lock and the next turn go by
//! clocks that do not jump, and nothing is published twice.

use std::process::{Child, Command};

use crate::support::project::{Outcome, Project};
use crate::support::publishing::{pairs, statuses};
use crate::support::redis_server::Redis;
use crate::support::wait_until;

/// Put before a program, it adds what the file CLOCK_FILE says, in seconds, to the wall clock that the program sees. The
/// known library for this (libfaketime) waits for ever where a program brings its own allocator.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jump(void) {
    char text[32] = {0};
    const char *file = getenv("CLOCK_FILE");
    int open_file = file ? open(file, O_RDONLY) : -1;
    if (open_file < 0) return 0;
    long count = read(open_file, text, sizeof text - 1);
    close(open_file);
    return count > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = syscall(SYS_clock_gettime, clock, at);
    if (!failed && clock == CLOCK_REALTIME) at->tv_sec += jump();
    return failed;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"#;

const HOUR: &str = "3600";
const HOUR_BACK: &str = "-3600";
const LOCK: &str = "forebay:p:lock";
const FILE: &str = "name = \"p\"\n[snapshots]\nregion_field = \"region\"\n[snapshots.keys]\nhealth = \"forebay:meta:p\"\n[snapshots.health]\nfetchedAt = \"@now_ms\"\n[seed]\nlock = \"1s\"\n";

/// A job under such a clock.
struct Job {
    project: Project,
    server: Redis,
}

impl Job {
    fn new() -> Self {
        let (project, server) = (Project::new(), Redis::start(&[]));
        project.write("seed.toml", FILE);
        project.write("clock.c", CLOCK);
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o", "clock.so", "clock.c"])
            .current_dir(project.path(""))
            .status()
            .expect("cc");
        assert!(built.success());
        let job = Self { project, server };
        job.set_clock("0");
        job
    }

    /// From now on the clock is off by this.
    fn set_clock(&self, seconds: &str) {
        // Never empty, and never half written.
        self.project.write("clock.new", seconds);
        std::fs::rename(self.project.path("clock.new"), self.project.path("clock")).expect("the clock");
    }

    fn command(&self, options: &[&str], script: &str) -> Command {
        let url = self.server.url();
        let fixed = ["seed", "--config", "seed.toml", "--snapshots", &url];
        let mut command = self.project.command(&[&fixed, options, &["--", "sh", "-c", script]].concat());
        command.env("LD_PRELOAD", self.project.path("clock.so")).env("CLOCK_FILE", self.project.path("clock"));
        command
    }

    fn finish(&self, child: Child) -> Outcome {
        self.project.finish(child, &["seed"])
    }

    fn seed(&self, script: &str) -> Outcome {
        self.finish(self.command(&["--json"], script).spawn().expect("the binary starts"))
    }

    /// Starts a job whose command waits until the gate is opened.
    fn begin(&self, options: &[&str]) -> Child {
        let made = Command::new("mkfifo").arg(self.project.path("gate")).status().expect("mkfifo");
        assert!(made.success());
        let script = "cat > before; echo > begun; cat gate; cat new";
        let child = self.command(options, script).spawn().expect("the binary starts");
        wait_until(|| self.project.path("begun").exists());
        child
    }

    /// Waits until the lock has been renewed.
    fn wait_for_renewal(&self) {
        let left = || self.server.ask::<i64>(&["PTTL", LOCK]);
        let mut least = left();
        wait_until(|| {
            let now = left();
            assert!(now > 0, "the lock is gone");
            let is_renewed = now > least;
            least = least.min(now);
            is_renewed
        });
    }

    fn fetched_at(&self) -> i64 {
        let text: String = self.server.ask(&["GET", "forebay:meta:p"]);
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["fetchedAt"].as_i64().expect("a time")
    }
}

fn doc(v: u64) -> String {
    format!("{{\"region\":\"a\",\"v\":{v}}}\n")
}

/// The preloaded clock is what the program sees, or the tests below say nothing.
#[test]
fn the_clock_jumps() {
    let job = Job::new();
    let published =
        |v: u64| statuses(&job.seed(&format!("cat > before; printf '{}'", doc(v).replace('\n', "\\n"))).ok()).0;
    assert_eq!(published(1), pairs(&[("a", "published")]));
    let before = job.fetched_at();
    job.set_clock(HOUR);
    assert_eq!(published(2), pairs(&[("a", "published")]));
    let after = job.fetched_at();
    assert!((3_590_000..3_700_000).contains(&(after - before)), "{before} {after}");
}

#[test]
fn the_lock_is_kept_while_the_clock_jumps() {
    let job = Job::new();
    job.project.write("new", doc(1));
    let child = job.begin(&["--json"]);
    let holder: String = job.server.ask(&["GET", LOCK]);
    for jump in [HOUR, "0", HOUR_BACK, "0", HOUR] {
        job.set_clock(jump);
        job.wait_for_renewal();
        assert_eq!(job.server.ask::<String>(&["GET", LOCK]), holder);
        // Another one sees it held, whatever its clock says.
        let other = job.seed("echo it ran > ran").ok().json_lines();
        assert!(other[0]["held_by"].is_string(), "{other:?}");
    }
    assert!(!job.project.path("ran").exists());
    std::fs::write(job.project.path("gate"), "").expect("the gate");
    assert_eq!(statuses(&job.finish(child).ok()).0, pairs(&[("a", "published")]));
    assert_eq!(job.server.ask::<Option<String>>(&["GET", LOCK]), None);
    assert_eq!(job.server.ask::<u64>(&["ZCARD", "forebay:{p:a}:index"]), 1);
}

/// Without a time of its own a document has that of the clock: what was published an hour ahead stays the newest until
/// then, and the seeder says so each time.
#[test]
fn a_clock_that_goes_back_publishes_nothing_twice_and_says_what_it_keeps() {
    let job = Job::new();
    let give = |v: u64| {
        job.project.write("new", doc(v));
        job.seed("cat > before; cat new")
    };
    let newest = || {
        let args = ["latest", "a", "--pipeline", "p", "--snapshots", &job.server.url()];
        job.project.forebay(&args).ok().json_lines()[0]["v"].clone()
    };
    job.set_clock(HOUR);
    assert_eq!(statuses(&give(1).ok()).0, pairs(&[("a", "published")]));
    job.set_clock("0");
    assert_eq!(statuses(&give(1).ok()).0, pairs(&[("a", "duplicate")]));
    let refused = give(2).fails(3, &[]);
    assert_eq!(statuses(&refused).0, pairs(&[("a", "stale")]));
    assert!(refused.stdout().contains("which is newer than"), "{refused}");
    assert_eq!(newest(), 1);
    job.set_clock(HOUR);
    assert_eq!(statuses(&give(2).ok()).0, pairs(&[("a", "published")]));
    assert_eq!(newest(), 2);
    assert_eq!(job.server.ask::<u64>(&["ZCARD", "forebay:{p:a}:index"]), 2);
    assert_eq!(job.server.ask::<Option<String>>(&["GET", LOCK]), None);
}

/// Turns come by a clock that does not jump: neither at once nor an hour later.
#[test]
fn turns_come_in_time_while_the_clock_jumps() {
    let job = Job::new();
    let script =
        "cat > before; echo turn >> turns; n=$(wc -l < turns); echo \"{\\\"region\\\":\\\"a\\\",\\\"v\\\":$n}\"";
    let turns = || {
        let text = std::fs::read_to_string(job.project.path("turns")).unwrap_or_default();
        text.lines().count()
    };
    let child = job.command(&["--every", "50ms"], script).spawn().expect("the binary starts");
    for jump in [HOUR, HOUR_BACK, "0"] {
        let before = turns();
        wait_until(|| turns() > before + 1);
        job.set_clock(jump);
        let before = turns();
        wait_until(|| turns() > before + 1);
    }
    let pid = child.id();
    crate::support::signal::send("TERM", pid);
    job.finish(child);
}
