//! The hand-off on its own: a program with a store of its own, which goes on while a batch is being written.
//!
//! `cargo run --release --example handoff`

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use forebay::handoff::{CommitThread, Committer, Refused};

/// Appends batches of lines to a file, each synced to disk.
struct Journal {
    file: File,
}

impl Committer for Journal {
    type Item = Vec<String>;
    type Receipt = usize;
    type Error = std::io::Error;

    fn commit(&mut self, lines: Vec<String>) -> Result<usize, std::io::Error> {
        for line in &lines {
            writeln!(self.file, "{line}")?;
        }
        self.file.sync_data()?;
        Ok(lines.len())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join("forebay-handoff.txt");
    let commits = CommitThread::spawn("journal", Journal { file: File::create(&path)? })?;
    let mut open = Vec::new();
    let mut tickets = Vec::new();
    for number in 0..100_000 {
        open.push(format!("line {number}"));
        if open.len() < 1000 {
            continue;
        }
        // While the journal is busy and a batch waits, the open one goes on growing.
        match commits.try_submit(std::mem::take(&mut open)) {
            Ok(ticket) => tickets.push(ticket),
            Err(Refused::Full(back)) => open = back,
            Err(Refused::Failed(_, failure)) => return Err(failure.into()),
            Err(_) => return Err("the journal does not take batches".into()),
        }
    }
    let last = commits.submit(open, Duration::from_secs(10)).map_err(|_| "the journal does not take the last batch")?;
    tickets.push(last);
    let mut lines = 0;
    for ticket in &tickets {
        lines += ticket.wait(Duration::from_secs(10))?;
    }
    commits.finish(Duration::from_secs(10))?;
    println!("{lines} lines in {} batches: {}", tickets.len(), path.display());
    Ok(())
}
