//! A program that is run with a text on its standard input, until it ends or its time is over.
//!
//! It has a process group of its own, so that what it started ends with it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use forebay::limits::{DOCUMENTS_BYTES_MAX, SEED_GRACE};
use rustix::process::{Pid, Signal, kill_process_group};

use super::out::plain;

/// How often is looked whether the program is to end before its time.
const LOOK: Duration = Duration::from_millis(50);

/// Why a program came to nothing.
#[derive(Debug)]
pub(super) enum Halt {
    /// It was stopped, for the reason that was given.
    Stopped,
    /// It failed, or what it wrote cannot be used.
    Failed(String),
}

enum Said {
    Output(std::io::Result<Vec<u8>>),
    Exit(std::io::Result<ExitStatus>),
}

/// Runs a program to its end, and returns what it wrote. What it writes to standard error goes where ours goes. Blocks;
/// `is_over` is asked again and again whether it is to be stopped.
pub(super) fn run(
    command: &[OsString],
    input: Vec<u8>,
    timeout: Duration,
    is_over: impl Fn() -> bool,
) -> Result<Vec<u8>, Halt> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Halt::Failed("no command was given".into()));
    };
    let name = plain(&program.to_string_lossy()).into_owned();
    let cannot = |error: std::io::Error| Halt::Failed(format!("cannot run {name}: {error}"));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (say, heard) = bounded(2);
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let say_exit = say.clone();
    let started = (|| {
        // Contract of the three threads. In: the program. Out: what it wrote, and how it ended, once each. End: when the
        // program closes its side, or has ended; it is killed if it does not.
        thread("forebay-stdin", move || drop(stdin.map(|mut stdin| stdin.write_all(&input))))?;
        thread("forebay-stdout", move || {
            let mut text = Vec::new();
            let read =
                stdout.map_or(Ok(0), |stdout| stdout.take(DOCUMENTS_BYTES_MAX as u64 + 1).read_to_end(&mut text));
            let _ = say.send(Said::Output(read.map(|_| text)));
        })?;
        thread("forebay-wait", move || drop(say_exit.send(Said::Exit(child.wait()))))
    })();
    let running = Running { name, group, heard, begun: Instant::now(), timeout };
    if let Err(error) = started {
        running.signal(Signal::KILL);
        return Err(Halt::Failed(format!("cannot start a thread: {error}")));
    }
    running.wait(is_over)
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

/// A program that runs.
struct Running {
    name: String,
    group: Option<Pid>,
    heard: Receiver<Said>,
    begun: Instant,
    timeout: Duration,
}

impl Running {
    fn wait(&self, is_over: impl Fn() -> bool) -> Result<Vec<u8>, Halt> {
        let Self { name, timeout, .. } = self;
        let (mut output, mut status, mut ended) = (None, None, None);
        loop {
            match self.heard.recv_timeout(LOOK) {
                Ok(Said::Output(read)) => {
                    let text = read.map_err(|error| Halt::Failed(format!("cannot read what {name} writes: {error}")));
                    let text = text.inspect_err(|_| self.end(status.is_some()))?;
                    if text.len() > DOCUMENTS_BYTES_MAX {
                        self.end(status.is_some());
                        let most = DOCUMENTS_BYTES_MAX >> 20;
                        return Err(Halt::Failed(format!("{name} writes more than {most} MiB")));
                    }
                    output = Some(text);
                }
                Ok(Said::Exit(exit)) => {
                    let exit = exit.map_err(|error| Halt::Failed(format!("cannot wait for {name}: {error}")))?;
                    (status, ended) = (Some(exit), Some(Instant::now()));
                }
                Err(_) => {}
            }
            match (status, &mut output) {
                (Some(status), _) if !status.success() => {
                    self.end(true);
                    return Err(Halt::Failed(format!("{name} {}", told(status))));
                }
                (Some(_), Some(text)) => return Ok(std::mem::take(text)),
                _ => {}
            }
            if ended.is_some_and(|ended: Instant| ended.elapsed() > SEED_GRACE) {
                self.end(true);
                return Err(Halt::Failed(format!(
                    "{name} has ended, and something that it started still holds its standard output"
                )));
            }
            if is_over() {
                self.end(status.is_some());
                return Err(Halt::Stopped);
            }
            if self.begun.elapsed() > *timeout {
                self.end(status.is_some());
                return Err(Halt::Failed(format!(
                    "{name} did not end within {} s, and was stopped",
                    timeout.as_secs()
                )));
            }
        }
    }

    /// Asks the program to end, and kills it if it does not.
    fn end(&self, has_exited: bool) {
        self.signal(Signal::TERM);
        let begun = Instant::now();
        let mut has_exited = has_exited;
        while !has_exited && begun.elapsed() < SEED_GRACE {
            has_exited = matches!(self.heard.recv_timeout(LOOK), Ok(Said::Exit(_)));
        }
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // There may be nobody left.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// How a program has ended.
fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended, and it is not known how".to_owned(),
    }
}
