//! As the first process of a container.
//!
//! The system lets the first process be: signals that it has no handler for do nothing, and every process whose parent has
//! ended becomes its child and stays a zombie until it looks. So it only starts this program once more, passes signals on,
//! and looks; the rest is done by the other one, which is a process like any other.

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// How often is looked whether there is something to do.
const LOOK: Duration = Duration::from_millis(50);

/// The signals that are passed on.
const PASSED: [(i32, Signal); 6] = [
    (SIGHUP, Signal::HUP),
    (SIGINT, Signal::INT),
    (SIGQUIT, Signal::QUIT),
    (SIGTERM, Signal::TERM),
    (SIGUSR1, Signal::USR1),
    (SIGUSR2, Signal::USR2),
];

/// Does all that the first process has to do, if this is it; none if it is not, or the other one cannot be started.
pub(super) fn run() -> Option<ExitCode> {
    if std::process::id() != 1 {
        return None;
    }
    let came: Vec<(Signal, Arc<AtomicBool>)> = PASSED
        .iter()
        .filter_map(|(number, signal)| {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(*number, Arc::clone(&flag)).ok().map(|_| (*signal, flag))
        })
        .collect();
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let program = std::env::current_exe().ok().or_else(|| name.map(Into::into))?;
    let child = Command::new(program).args(arguments).spawn().ok()?;
    let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw)?;
    // A terminal sends its signals to both.
    let has_terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    loop {
        for (signal, flag) in &came {
            if flag.swap(false, Ordering::Relaxed) && !(has_terminal && *signal == Signal::INT) {
                let _ = kill_process(child, *signal);
            }
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == child {
                let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return Some(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from));
            }
        }
        std::thread::park_timeout(LOOK);
    }
}
