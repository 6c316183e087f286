//! A run over a stream that stays open, and what it says meanwhile.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, Stdio};

use super::project::{Outcome, Project};

pub struct Stream {
    pub child: Child,
    stdin: ChildStdin,
    stderr: BufReader<ChildStderr>,
}

impl Stream {
    pub fn start(project: &Project, args: &[&str]) -> Self {
        let mut child = project.command(args).stdin(Stdio::piped()).spawn().expect("the binary starts");
        let stdin = child.stdin.take().expect("stdin");
        let stderr = BufReader::new(child.stderr.take().expect("stderr"));
        Self { child, stdin, stderr }
    }

    /// Gives it these lines.
    pub fn send(&mut self, lines: &str) {
        self.stdin.write_all(lines.as_bytes()).expect("stdin");
        self.stdin.flush().expect("stdin");
    }

    /// Waits until it says this; returns what it said until then.
    pub fn says(&mut self, text: &str) -> String {
        let mut said = String::new();
        while !said.contains(text) {
            assert!(self.stderr.read_line(&mut said).expect("stderr") > 0, "it ended without {text:?}: {said}");
        }
        said
    }

    /// Ends the stream, and waits for the run to end; what it said since is given too.
    pub fn end(mut self, project: &Project) -> (Outcome, String) {
        drop(self.stdin);
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).expect("stderr");
        (project.finish(self.child, &["run"]), said)
    }
}
