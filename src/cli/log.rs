//! Messages, on stderr. Whatever is in them, nothing of it acts on a terminal.

use std::io::{IsTerminal, Write};

use forebay::text::{message, plain_json};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::debug_fn;

use super::args::{Color, Global, LogFormat};

/// Sets up where messages go.
pub(super) fn start(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let subscriber =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).without_time().with_target(false);
    match global.log_format {
        LogFormat::Json => subscriber.with_writer(|| EscapedJson(std::io::stderr())).json().flatten_event(true).init(),
        LogFormat::Text => subscriber
            .with_ansi(global.is_coloured(&std::io::stderr()))
            .fmt_fields(debug_fn(|writer, field, value| match field.name() {
                "message" => write!(writer, "{}", message(&format!("{value:?}"))),
                name => write!(writer, "{name}={}", message(&format!("{value:?}"))),
            }))
            .init(),
    }
}

/// Lines of JSON on their way: what acts on a terminal is escaped in their texts. Each write is a whole event.
struct EscapedJson<W>(W);

impl<W: Write> Write for EscapedJson<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(plain_json(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Tells why a command failed.
pub(super) fn error(global: &Global, text: &str) {
    let mut stderr = std::io::stderr().lock();
    // If stderr is gone, nobody can be told.
    let _ = match global.log_format {
        LogFormat::Json => {
            let line = serde_json::json!({ "level": "ERROR", "message": text }).to_string();
            writeln!(stderr, "{}", plain_json(&line))
        }
        LogFormat::Text => {
            let style = if global.is_coloured(&stderr) {
                anstyle::AnsiColor::Red.on_default().bold()
            } else {
                anstyle::Style::new()
            };
            writeln!(stderr, "{style}error:{style:#} {}", message(text))
        }
    };
}

impl Global {
    /// Whether what goes there is to be coloured.
    pub(super) fn is_coloured(&self, stream: &impl IsTerminal) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }
}
