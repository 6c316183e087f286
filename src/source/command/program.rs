//! A program whose output is read, with a process group of its own.
//!
//! A shell starts it, and leaves a watcher beside it that waits at a pipe of ours. When we end, in whatever way, the pipe
//! closes, and the watcher ends the group: first by SIGTERM, two seconds later by SIGKILL.

use std::io::{BufRead, BufReader, PipeWriter, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::model::text::plain;

/// Starts the program that its arguments say, and the watcher.
const SHELL: &str = "exec 3<&0 </dev/null
(trap '' TERM; read -r _ <&3; kill -TERM 0; sleep 2; kill -KILL 0) >/dev/null 2>&1 &
exec 3<&-
exec \"$@\"";

/// How long a program that was asked to end is waited for: a little longer than the watcher gives it.
const END_WAIT: Duration = Duration::from_secs(4);
/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of a line that are logged at most.
const LOGGED_BYTES_MAX: u64 = 4096;

/// A program that runs. Ends with this.
pub(super) struct Program {
    child: Child,
    name: String,
    /// What keeps it running.
    watched: Option<PipeWriter>,
}

impl Program {
    /// Starts a program. What it writes to its standard error is logged, line by line.
    ///
    /// # Errors
    /// There is no shell, or no thread, process or pipe can be made.
    pub(super) fn start(command: &[String], position: &str) -> std::io::Result<(Self, ChildStdout)> {
        let name = command.first().map_or_else(String::new, |name| plain(name).into_owned());
        let (watched, keeps) = std::io::pipe()?;
        let mut child = Command::new("sh")
            .args(["-c", SHELL, "sh"])
            .args(command)
            .env("FOREBAY_POSITION", position)
            .stdin(watched)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let program = Self { child, name, watched: Some(keeps) };
        if let Some(stderr) = stderr {
            let name = program.name.clone();
            std::thread::Builder::new().name("forebay-stderr".into()).spawn(move || log(stderr, &name))?;
        }
        let none = || std::io::Error::other("it has no standard output");
        Ok((program, stdout.ok_or_else(none)?))
    }

    /// Waits for its end, which its closed output says to be near; ends it if it does not come.
    pub(super) fn wait(&mut self) -> std::io::Result<ExitStatus> {
        match self.wait_for_end()? {
            Some(status) => Ok(status),
            None => {
                self.watched = None;
                self.wait_for_end()?.ok_or_else(|| std::io::Error::other("it does not end"))
            }
        }
    }

    fn wait_for_end(&mut self) -> std::io::Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() || begun.elapsed() > END_WAIT {
                return Ok(status);
            }
            std::thread::park_timeout(LOOK);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.watched = None;
        // It is ended by its watcher, also if we do not see that.
        let _ = self.wait_for_end();
    }
}

/// Logs what a program says. Contract of the thread. In: its standard error. Ends with it.
fn log(stderr: impl Read, name: &str) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.by_ref().take(LOGGED_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(line.trim_ascii_end());
                tracing::info!("{name}: {}", plain(&text));
            }
        }
    }
}

/// How a program has ended.
pub(super) fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended, and it is not known how".to_owned(),
    }
}
