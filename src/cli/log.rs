//! Messages, on stderr.

use std::io::{IsTerminal, Write};

use tracing::level_filters::LevelFilter;

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
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
        LogFormat::Text => subscriber.with_ansi(global.is_coloured(&std::io::stderr())).init(),
    }
}

/// Tells why a command failed.
pub(super) fn error(global: &Global, message: &str) {
    let mut stderr = std::io::stderr().lock();
    // If stderr is gone, nobody can be told.
    let _ = match global.log_format {
        LogFormat::Json => writeln!(stderr, "{}", serde_json::json!({ "level": "ERROR", "message": message })),
        LogFormat::Text => {
            let style = if global.is_coloured(&stderr) {
                anstyle::AnsiColor::Red.on_default().bold()
            } else {
                anstyle::Style::new()
            };
            writeln!(stderr, "{style}error:{style:#} {message}")
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
