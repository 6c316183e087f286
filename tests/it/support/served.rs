//! A run that is asked while it goes on.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Stdio};

use serde_json::Value as Json;

use super::http::{self, Reply};
use super::project::{Outcome, Project};
use super::{signal, wait_until};

pub struct Served {
    child: Option<Child>,
    stderr: BufReader<ChildStderr>,
    pub address: SocketAddr,
    /// What it said before it said where it listens.
    pub said: String,
}

impl Served {
    /// `forebay run pipeline.toml --listen 127.0.0.1:0`, with more arguments.
    pub fn start(project: &Project, more: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", project, more)
    }

    /// The same at an address of one's own.
    pub fn start_at(address: &str, project: &Project, more: &[&str]) -> Self {
        Self::spawn(project, &[&["run", "pipeline.toml", "--listen", address], more].concat())
    }

    /// `forebay seed --config seed.toml --listen 127.0.0.1:0`, with more arguments.
    pub fn seed(project: &Project, more: &[&str]) -> Self {
        Self::spawn(project, &[&["seed", "--config", "seed.toml", "--listen", "127.0.0.1:0"], more].concat())
    }

    fn spawn(project: &Project, args: &[&str]) -> Self {
        let mut child = project.command(args).stdin(Stdio::null()).spawn().expect("the binary starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr"));
        let (mut said, mut address) = (String::new(), None);
        while address.is_none() {
            let mut line = String::new();
            if stderr.read_line(&mut line).expect("stderr") == 0 {
                let _ = child.wait();
                panic!("it has ended: {said}");
            }
            let after = line.split("listening on http://").nth(1);
            address = after.and_then(|after| after.split('/').next()?.parse().ok());
            said.push_str(&line);
        }
        Self { child: Some(child), stderr, address: address.expect("an address"), said }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn get(&self, path: &str) -> Reply {
        http::get(self.address, path)
    }

    /// `/status`.
    #[track_caller]
    pub fn status(&self) -> Json {
        let reply = self.get("/status");
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// Waits until `/status` is so.
    #[track_caller]
    pub fn waits_until(&self, is_so: impl Fn(&Json) -> bool) -> Json {
        let mut last = Json::Null;
        wait_until(|| {
            last = self.status();
            is_so(&last)
        });
        last
    }

    /// A sample of `/metrics`, by its name and labels but the pipeline's.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.get("/metrics").text();
        text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let (family, labels) = name.split_once('{')?;
            let labels = labels.trim_end_matches('}').split_once(',').map_or("", |(_, rest)| rest);
            let shown = if labels.is_empty() { family.to_owned() } else { format!("{family}{{{labels}}}") };
            (shown == sample).then(|| value.parse().expect("a number"))
        })
    }

    /// Waits until it says this.
    #[track_caller]
    pub fn says(&mut self, text: &str) {
        while !self.said.contains(text) {
            let read = self.stderr.read_line(&mut self.said).expect("stderr");
            assert!(read > 0, "it ended without {text:?}: {}", self.said);
        }
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self, project: &Project) -> (Outcome, String) {
        signal::send("TERM", self.pid());
        self.end_of(project)
    }

    /// Waits until it has ended by itself.
    pub fn end(mut self, project: &Project) -> (Outcome, String) {
        self.end_of(project)
    }

    fn end_of(&mut self, project: &Project) -> (Outcome, String) {
        let mut said = std::mem::take(&mut self.said);
        self.stderr.read_to_string(&mut said).expect("stderr");
        let child = self.child.take().expect("it runs");
        (project.finish(child, &["run", "--listen"]), said)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
