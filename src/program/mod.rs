//! A program of the user's that runs beside ours, with a process group of its own.
//!
//! A shell starts it, and leaves a watcher beside it that waits at a pipe of ours. When we end, in whatever way, the pipe
//! closes, and the watcher ends the group: first by SIGTERM, two seconds later by SIGKILL. A line in the pipe says that
//! the program has ended by itself: then what it has left behind is ended at once.

use std::io::{BufRead, BufReader, PipeWriter, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::model::text::plain;

/// Starts the program that its arguments say, and the watcher.
const SHELL: &str = "exec 3<&0 </dev/null
(trap '' TERM; if read -r _ <&3; then kill -KILL 0; fi; kill -TERM 0; sleep 2; kill -KILL 0) >/dev/null 2>&1 &
exec 3<&-
exec \"$@\"";

/// How long a program that was asked to end is waited for: a little longer than the watcher gives it.
const END_WAIT: Duration = Duration::from_secs(4);
/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of a line that are logged at most.
const LOGGED_BYTES_MAX: u64 = 4096;

/// How a program that was waited for has ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By itself.
    With(ExitStatus),
    /// It was ended, for it was to.
    Stopped,
    /// It was ended, for its time was over.
    TimedOut,
}

/// A program that runs. Ends with this.
pub(crate) struct Program {
    child: Child,
    /// What keeps it running.
    watched: Option<PipeWriter>,
}

impl Program {
    /// Starts a program whose output is read. What it writes to its standard error is logged, line by line.
    ///
    /// # Errors
    /// There is no shell, or no thread, process or pipe can be made.
    pub(crate) fn read(command: &[String], variables: &[(&str, &str)]) -> std::io::Result<(Self, ChildStdout)> {
        let name = command.first().map_or_else(String::new, |name| plain(name).into_owned());
        let (stderr, says) = std::io::pipe()?;
        let mut program = Self::start(command, variables, Stdio::piped(), says.into())?;
        log_lines(stderr, name)?;
        let none = || std::io::Error::other("it has no standard output");
        let stdout = program.child.stdout.take().ok_or_else(none)?;
        Ok((program, stdout))
    }

    /// Starts a program of which all is logged, line by line, with a name before it.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub(crate) fn logged(command: &[String], variables: &[(&str, &str)], name: &str) -> std::io::Result<Self> {
        let (output, says) = std::io::pipe()?;
        let program = Self::start(command, variables, says.try_clone()?.into(), says.into())?;
        log_lines(output, name.to_owned())?;
        Ok(program)
    }

    fn start(command: &[String], variables: &[(&str, &str)], out: Stdio, err: Stdio) -> std::io::Result<Self> {
        let (watched, keeps) = std::io::pipe()?;
        let child = Command::new("sh")
            .args(["-c", SHELL, "sh"])
            .args(command)
            .envs(variables.iter().copied())
            .stdin(watched)
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()?;
        Ok(Self { child, watched: Some(keeps) })
    }

    /// Waits for its end, which its closed output says to be near; ends it if it does not come.
    pub(crate) fn wait(&mut self) -> std::io::Result<ExitStatus> {
        match self.wait_for_end(END_WAIT, &|| false)? {
            Some(status) => Ok(status),
            None => self.end()?.ok_or_else(|| std::io::Error::other("it does not end")),
        }
    }

    /// Waits for its end, and ends what it has left behind; ends it after `timeout`, or when `is_over` says so. Blocks for a
    /// few seconds more at most.
    pub(crate) fn wait_within(mut self, timeout: Duration, is_over: impl Fn() -> bool) -> std::io::Result<Ended> {
        if let Some(status) = self.wait_for_end(timeout, &is_over)? {
            if let Some(mut pipe) = self.watched.take() {
                // If nobody reads any more, there is nobody left.
                let _ = pipe.write_all(b"\n");
            }
            return Ok(Ended::With(status));
        }
        self.end()?;
        Ok(if is_over() { Ended::Stopped } else { Ended::TimedOut })
    }

    fn end(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.watched = None;
        self.wait_for_end(END_WAIT, &|| false)
    }

    fn wait_for_end(&mut self, within: Duration, is_over: &dyn Fn() -> bool) -> std::io::Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() || begun.elapsed() > within || is_over() {
                return Ok(status);
            }
            std::thread::park_timeout(LOOK);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It is ended by its watcher, also if we do not see that.
        let _ = self.end();
    }
}

fn log_lines(from: impl Read + Send + 'static, name: String) -> std::io::Result<()> {
    std::thread::Builder::new().name("forebay-stderr".into()).spawn(move || log(from, &name)).map(drop)
}

/// Logs what a program says. Contract of the thread. In: what it writes. Ends with it.
fn log(from: impl Read, name: &str) {
    let mut lines = BufReader::new(from);
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
pub(crate) fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended, and it is not known how".to_owned(),
    }
}
