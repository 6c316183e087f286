//! A program of the user's that runs beside ours, with a process group of its own.
//!
//! A shell starts it, and leaves a watcher beside it that waits at a pipe of ours. When we end, in whatever way, the pipe
//! closes, and the watcher ends the group: first by SIGTERM, two seconds later by SIGKILL. Once the program has ended, we
//! say so, and whatever is left of the group ends at once, with the watcher.

use std::io::{BufRead, BufReader, PipeWriter, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::model::text::plain;

/// Starts the program that its arguments say, and the watcher.
const SHELL: &str = "exec 3<&0 </dev/null
(
    trap '' TERM
    read -r said <&3 && [ \"$said\" = ended ] && kill -KILL 0
    kill -TERM 0
    (sleep 2; kill -KILL 0) &
    read -r said <&3 && kill -KILL 0
    wait
) >/dev/null 2>&1 &
exec 3<&-
exec \"$@\"";

/// What the watcher is told: to end the program, and that it has ended.
const END: &[u8] = b"end\n";
const ENDED: &[u8] = b"ended\n";

/// How long a program that was asked to end is waited for: a little longer than the watcher gives it.
const END_WAIT: Duration = Duration::from_secs(4);
/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);
/// The same of its group, which is killed.
const GROUP_LOOK: Duration = Duration::from_millis(1);
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
    /// The pipe at which the watcher waits, until the program has ended.
    watcher: Option<PipeWriter>,
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
        let (heard, watcher) = std::io::pipe()?;
        let child = Command::new("sh")
            .args(["-c", SHELL, "sh"])
            .args(command)
            .envs(variables.iter().copied())
            .stdin(heard)
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()?;
        Ok(Self { child, watcher: Some(watcher) })
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
            return Ok(Ended::With(status));
        }
        self.end()?;
        Ok(if is_over() { Ended::Stopped } else { Ended::TimedOut })
    }

    fn end(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.tell(END);
        self.wait_for_end(END_WAIT, &|| false)
    }

    fn wait_for_end(&mut self, within: Duration, is_over: &dyn Fn() -> bool) -> std::io::Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() {
                self.end_group();
                return Ok(status);
            }
            if begun.elapsed() > within || is_over() {
                return Ok(None);
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// The program has ended: ends what it has left, and the watcher, which closes its end of the pipe so.
    fn end_group(&mut self) {
        self.tell(ENDED);
        let Some(mut watcher) = self.watcher.take() else { return };
        let begun = Instant::now();
        while begun.elapsed() < END_WAIT && watcher.write_all(b"\n").is_ok() {
            std::thread::park_timeout(GROUP_LOOK);
        }
    }

    /// Tells the watcher, if it is there.
    fn tell(&mut self, what: &[u8]) {
        if let Some(watcher) = &mut self.watcher {
            // It may have been ended by others.
            let _ = watcher.write_all(what);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.watcher.is_some() {
            // It is ended by its watcher, also if we do not see that.
            let _ = self.end();
        }
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
