//! Results, on stdout. A reader that has seen enough (`| head`) is no failure.

use std::io::{ErrorKind, IsTerminal, Write};

/// A count with commas.
pub(super) use forebay::timeline::grouped as count;

use super::exit::{Code, Failure};

/// Prints lines; the result is the exit code of a command that has nothing more to do.
pub(super) fn print_lines(lines: impl IntoIterator<Item = impl std::fmt::Display>) -> Result<Code, Failure> {
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let written = lines.into_iter().try_for_each(|line| writeln!(stdout, "{line}")).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Code::Done),
    }
}

/// Whether a person is reading.
pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Columns of the terminal; a common width where there is none.
pub(super) fn width() -> usize {
    const WIDTH: usize = 120;
    terminal_size::terminal_size().map_or(WIDTH, |(width, _)| usize::from(width.0))
}

/// A value from the command line or the environment; an empty one is none.
pub(super) fn set(value: Option<&String>) -> Option<&String> {
    value.filter(|value| !value.is_empty())
}

/// A count and what is counted: `1 batch`, `1,234 batches`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A text of the data as a terminal may show it: without control characters.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// How long ago, in the largest unit that says enough.
pub(super) fn age(seconds: i64) -> String {
    match seconds {
        ..0 => "now".into(),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Seconds between an RFC 3339 time and now.
pub(super) fn seconds_since(time: &str) -> i64 {
    let now = forebay::Timestamp::now().as_micros();
    time.parse::<forebay::Timestamp>().map_or(0, |time| (now - time.as_micros()) / 1_000_000)
}
