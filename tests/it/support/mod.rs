//! The harness: what tests are run over and read with. It holds no tests.

/// A headless browser.
#[cfg(feature = "serve")]
pub mod browser;
/// Tables of cases of what is refused, checked together.
pub mod cases;
/// Numbers by chance.
pub mod dice;
/// A client of HTTP, also a bad one.
pub mod http;
/// Brokers of Kafka.
#[cfg(feature = "kafka")]
pub mod kafka;
/// A broker of Kafka whose one partition holds what a test writes.
#[cfg(feature = "kafka")]
pub mod kafka_log;
/// A proxy before Postgres that counts round trips and breaks them.
pub mod postgres_proxy;
/// Private PostgreSQL servers, and PgBouncer before them.
pub mod postgres_server;
/// A folder with a pipeline, the built binary, and what came of it.
pub mod project;
/// What `forebay publish --json` says.
pub mod publishing;
/// Real events, and answers that were computed independently.
pub mod real_events;
/// A proxy before Redis that counts steps, delays and breaks them.
pub mod redis_proxy;
/// Private Redis servers and clusters.
pub mod redis_server;
/// A terminal, and what a person sees of it.
pub mod screen;
/// A run that is asked while it goes on.
pub mod served;
/// Signals to processes.
pub mod signal;
/// A run over a stream that stays open.
pub mod stream;

use std::path::Path;
use std::time::{Duration, Instant};

use postgres_proxy::Proxy;
use postgres_server::Server;

/// The longest wait for something that is to happen.
pub const WAIT: Duration = Duration::from_secs(60);

/// Waits until something is so, and looks again every few milliseconds: a loop without a pause takes the core from
/// what it waits for.
#[track_caller]
pub fn wait_until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < WAIT, "it does not come within {WAIT:?}");
        std::thread::park_timeout(Duration::from_millis(3));
    }
}

/// A new database of the shared server, a round trip of so many milliseconds away; and its address.
pub fn distant_database(millis: u64) -> (Proxy, String) {
    let server = Server::shared();
    let proxy = Proxy::start(server.port);
    proxy.set_latency(Duration::from_millis(millis));
    let url = format!("postgres://forebay@127.0.0.1:{}/{}?sslmode=disable", proxy.port, server.make_database());
    (proxy, url)
}

/// A folder in memory, where there is such a place: no disk makes its files slow.
pub fn folder_in_memory() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    let made = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    made.expect("a folder")
}

/// Runs promtool over a text.
#[cfg(feature = "serve")]
#[track_caller]
pub fn promtool(args: &[&str], input: &str) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut command = Command::new("promtool");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool (tests/setup.sh test installs it)");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("stdin");
    let output = child.wait_with_output().expect("promtool");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {args:?}: {said}\n{input}");
    said
}
