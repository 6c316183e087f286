//! Results, on stdout. A reader that has seen enough (`| head`) is no failure.

use std::io::{ErrorKind, IsTerminal, Write};

/// A text of the data as a terminal may show it, and JSON that is the same value.
pub(super) use forebay::text::{plain, plain_json, shown_path};
/// A count with commas.
pub(super) use forebay::timeline::grouped as count;

use super::exit::{Code, Failure};

/// Prints lines as they are; the result is the exit code of a command that has nothing more to do.
pub(super) fn print_lines(lines: impl IntoIterator<Item = impl std::fmt::Display>) -> Result<Code, Failure> {
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let written = lines.into_iter().try_for_each(|line| writeln!(stdout, "{line}")).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Code::Done),
    }
}

/// Prints lines that a person reads: nothing in them acts on a terminal.
pub(super) fn print_text(lines: impl IntoIterator<Item = impl std::fmt::Display>) -> Result<Code, Failure> {
    print_lines(lines.into_iter().map(|line| plain(&line.to_string()).into_owned()))
}

/// The same; the first line begins with `head`, which is shown in `style`.
pub(super) fn print_headed(
    head: &str,
    style: anstyle::Style,
    lines: impl IntoIterator<Item = String>,
) -> Result<Code, Failure> {
    let styled = |(at, line): (usize, String)| match line.strip_prefix(head) {
        Some(rest) if at == 0 => format!("{style}{}{style:#}{}", plain(head), plain(rest)),
        _ => plain(&line).into_owned(),
    };
    print_lines(lines.into_iter().enumerate().map(styled))
}

/// Prints JSON that this program makes, a value a line: what acts on a terminal is escaped in its texts.
pub(super) fn print_json(values: impl IntoIterator<Item = impl std::fmt::Display>) -> Result<Code, Failure> {
    print_lines(values.into_iter().map(|value| plain_json(&value.to_string()).into_owned()))
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

/// A count and what is counted: `1 batch`, `1,234 batches`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
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
