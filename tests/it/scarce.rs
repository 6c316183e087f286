//! What the system has no more of: threads, and a place for messages. Then a command ends with an error, or goes on; it
//! does not panic.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::postgres_server::{Server, is_root};
use crate::support::project::{Outcome, Project};
use crate::support::redis_server::Redis;

const PIPELINE: &str = "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.t]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\n[snapshots]\nevery = \"end\"\n";

const SCRIPT: &str = "function on_event(e, ctx) print('hello') ctx.t:set(ctx.block, { n = ctx.block }) end
function on_snapshot(ctx) return { n = ctx.t:count() } end";

const EVENTS: &str = "{\"block\":1,\"region\":\"a\"}\n{\"block\":2,\"region\":\"b\"}\n";

/// A user who has no process but those of this test.
const LONELY: u32 = 64_997;

/// Runs the binary where this many processes and threads are allowed, as a user for whom that counts.
fn with_threads(project: &Project, threads: u32, args: &[&str]) -> Outcome {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -u $0; exec \"$@\"", &threads.to_string()]).arg(project.unprivileged()).args(args);
    command.current_dir(project.path("")).env_remove("DATABASE_URL").env_remove("REDIS_URL");
    command.stdin(File::open(project.path("docs.ndjson")).expect("documents"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if is_root() {
        command.uid(LONELY).gid(LONELY);
    }
    project.finish(command.spawn().expect("bash"), args)
}

#[test]
fn without_threads_a_command_ends_with_an_error() {
    let project = Project::with(PIPELINE, SCRIPT, EVENTS);
    std::fs::set_permissions(project.path(""), Permissions::from_mode(0o777)).expect("chmod");
    project.write("docs.ndjson", "{\"region\":\"a\"}\n{\"region\":\"b\"}\n");
    let redis = Redis::start(&[]);
    let (redis, own) = (redis.url().replace("127.0.0.1", "localhost"), Server::shared().make_database());
    let postgres = Server::shared().url(&own).replace("127.0.0.1", "localhost");
    for args in [
        &["run", "pipeline.toml", "--snapshots", &redis][..],
        &["run", "pipeline.toml", "--store", &postgres],
        &["check", "pipeline.toml"],
        &["publish", "-", "--snapshots", &redis, "--pool", "2"],
        &["latest", "--snapshots", &redis, "--pipeline", "default"],
        &["latest", "--snapshots", &postgres],
        &["status", "pipeline.toml", "--store", &postgres],
    ] {
        let mut has_failed = false;
        // As many as it takes, and each number below it.
        let is_done = (1..60).any(|threads| {
            let outcome = with_threads(&project, threads, args);
            assert!(outcome.code().is_some_and(|code| code <= 3), "{threads} threads\n{outcome}");
            assert!(!outcome.stderr().contains("panicked"), "{threads} threads\n{outcome}");
            let is_told = outcome.stderr().contains("thread");
            assert!(outcome.code() == Some(0) || is_told, "{threads} threads: it says why\n{outcome}");
            has_failed |= outcome.code() != Some(0);
            outcome.code() == Some(0)
        });
        assert!(is_done, "{args:?}");
        assert!(has_failed || !is_root(), "{args:?}: one thread is not enough");
    }
}

/// A device that is full, and a pipe whose reader has gone.
fn lost() -> [Stdio; 2] {
    let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    [full.into(), writer.into()]
}

#[test]
fn a_run_goes_on_where_its_messages_go_nowhere() {
    for format in ["text", "json"] {
        for stderr in lost() {
            let project = Project::with(PIPELINE, SCRIPT, EVENTS);
            let args = ["run", "pipeline.toml", "-v", "--json", "--log-format", format];
            let child = project.command(&args).stderr(stderr).spawn().expect("the binary");
            assert_eq!(project.finish(child, &args).ok().json()["checkpoint"]["block"], 2);
        }
        // An error keeps its exit code.
        for stderr in lost() {
            let project = Project::with(PIPELINE, "function on_event() error('no') end", EVENTS);
            let args = ["run", "pipeline.toml", "--log-format", format];
            let child = project.command(&args).stderr(stderr).spawn().expect("the binary");
            project.finish(child, &args).ends_with(1);
        }
    }
    // Results that cannot be written are an error; a reader that has gone is none; and either leaves a whole run behind.
    for stderr in 0..2 {
        for (stdout, code) in lost().into_iter().zip([1, 0]) {
            let project = Project::with(PIPELINE, SCRIPT, EVENTS);
            let args = ["run", "pipeline.toml"];
            let [full, pipe] = lost();
            let stderr = if stderr == 0 { full } else { pipe };
            let child = project.command(&args).stdout(stdout).stderr(stderr).spawn().expect("the binary");
            project.finish(child, &args).ends_with(code);
            assert_eq!(project.query("p.db", "SELECT count(*) FROM t"), [["2"]]);
        }
    }
    // Closed altogether, and a command line that is wrong.
    for (shell, code) in [
        ("exec \"$0\" run pipeline.toml -v 2>&-", 0),
        ("exec \"$0\" run pipeline.toml -v >&- 2>&-", 0),
        ("exec \"$0\" nonsense 2>&-", 2),
        ("exec \"$0\" nonsense 2>/dev/full", 2),
        ("exec \"$0\" --help >&-", 0),
        ("exec \"$0\" --help >/dev/full", 0),
    ] {
        let project = Project::with(PIPELINE, SCRIPT, EVENTS);
        let mut command = Command::new("sh");
        command.args(["-c", shell, env!("CARGO_BIN_EXE_forebay")]).current_dir(project.path(""));
        command.env_remove("DATABASE_URL").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        project.finish(command.spawn().expect("sh"), &[shell]).ends_with(code);
    }
}
