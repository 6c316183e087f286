//! A terminal: a program runs in a real pty of some columns, and what a person sees of it is read.
//!
//! `script` (util-linux) makes the pty. What is written to it is acted out here, as far as programs like ours use it.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::project::Project;
use super::wait_until;

/// A program in a terminal. It is ended when this is dropped.
pub struct Terminal {
    child: Child,
    keyboard: Option<ChildStdin>,
    written: Arc<Mutex<Vec<u8>>>,
    columns: usize,
}

impl Terminal {
    /// `forebay` with these arguments, in the folder of a project.
    pub fn start(project: &Project, columns: usize, variables: &[(&str, &str)], args: &[&str]) -> Self {
        // What is set up for a pipe is right for a pty: only the program changes.
        let ours = project.command(args);
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
        let words = [ours.get_program()].into_iter().chain(ours.get_args());
        let words: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
        let line = format!("stty cols {columns} rows 50; exec {}", words.join(" "));
        let mut command = Command::new("script");
        command.args(["-qefc", &line, "/dev/null"]).current_dir(project.path(""));
        command
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR_FORCE")
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh");
        for (name, value) in ours.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.envs(variables.iter().copied());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("script");
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let (mut from, to) = (child.stdout.take().expect("stdout"), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..len]);
            }
        });
        Self { keyboard: child.stdin.take(), child, written, columns }
    }

    /// Everything that was written, as it came.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// The rows that a person sees now, and those that have gone out of sight above.
    pub fn rows(&self) -> Vec<String> {
        act(&self.written(), self.columns)
    }

    /// Waits until a row is so.
    #[track_caller]
    pub fn shows(&self, is_so: impl Fn(&str) -> bool) {
        let begun = std::time::Instant::now();
        wait_until(|| {
            let rows = self.rows();
            let found = rows.iter().any(|row| is_so(row));
            assert!(found || begun.elapsed() < super::WAIT / 2, "it does not come:\n{}", rows.join("\n"));
            found
        });
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) {
        let keyboard = self.keyboard.as_mut().expect("a keyboard");
        keyboard.write_all(key.as_bytes()).and_then(|()| keyboard.flush()).expect("a keyboard");
    }

    /// Waits until the program has ended; its exit code.
    pub fn ends(&mut self) -> Option<i32> {
        let mut code = None;
        wait_until(|| {
            let ended = self.child.try_wait().expect("script");
            code = ended.and_then(|status| status.code());
            ended.is_some()
        });
        code
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its end hangs up the terminal, and that ends the program.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rows after a text was written to a terminal.
fn act(text: &str, columns: usize) -> Vec<String> {
    let (mut rows, mut row, mut column) = (vec![Vec::<char>::new()], 0_usize, 0_usize);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{8}' => column = column.saturating_sub(1),
            '\u{1b}' => {
                if characters.next_if_eq(&'[').is_none() {
                    characters.next();
                    continue;
                }
                let mut number = String::new();
                let last = loop {
                    match characters.next() {
                        Some(end @ '@'..='~') => break end,
                        Some(part) => number.push(part),
                        None => break ' ',
                    }
                };
                let count: usize = number.parse().unwrap_or(1);
                match last {
                    'A' => row = row.saturating_sub(count),
                    'B' => row += count,
                    'C' => column += count,
                    'D' => column = column.saturating_sub(count),
                    'G' => column = count.saturating_sub(1),
                    'K' if number == "2" || number == "1" => rows[row].clear(),
                    'K' => rows[row].truncate(column),
                    // Colours, and whether the cursor is seen.
                    'm' | 'h' | 'l' => {}
                    other => panic!("a terminal is asked for {other:?}, which the test does not know"),
                }
            }
            _ => {
                if column == columns {
                    (row, column) = (row + 1, 0);
                }
                if rows.len() <= row {
                    rows.resize(row + 1, Vec::new());
                }
                let line = &mut rows[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = character;
                column += 1;
            }
        }
        if rows.len() <= row {
            rows.resize(row + 1, Vec::new());
        }
    }
    rows.into_iter().map(|row| row.into_iter().collect::<String>().trim_end().to_owned()).collect()
}
