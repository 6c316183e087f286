//! Signals to processes. The shell's own `kill` sends them: a machine need not have a program of that name.

use std::process::{Command, Stdio};

/// Sends `INT`, `TERM` or `KILL` to a process, which may have ended.
pub fn send(name: &str, pid: u32) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("sh");
}
