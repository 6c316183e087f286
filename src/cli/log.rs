//! Messages, on stderr. Whatever is in them, nothing of it acts on a terminal.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

use forebay::address::without_logins;
use forebay::config::LogLevel;
#[cfg(feature = "serve")]
use forebay::serve::{Level, Warnings};
use forebay::text::{message, plain, plain_json};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::args::{Color, Global, LogFormat};

/// Sets up where messages go.
pub(super) fn start(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let told = match global.log_format {
        // What it complains of it would write to stderr too, and panic if that cannot be written.
        LogFormat::Json => {
            let layer = fmt::layer().with_writer(|| EscapedJson(Told)).without_time().with_target(false);
            layer.log_internal_errors(false).json().flatten_event(true).boxed()
        }
        LogFormat::Text => {
            let layer = fmt::layer().with_writer(|| Told).without_time().with_target(false);
            let layer = layer.log_internal_errors(false).with_ansi(global.is_coloured(&std::io::stderr()));
            let fields = debug_fn(|writer, field, value| match field.name() {
                "message" => write!(writer, "{}", shown(&format!("{value:?}"))),
                name => write!(writer, "{name}={}", shown(&format!("{value:?}"))),
            });
            layer.fmt_fields(fields).boxed()
        }
    };
    let (level, handle) = reload::Layer::new(level);
    let _ = LEVEL.set(handle);
    let subscriber = tracing_subscriber::registry().with(told.with_filter(level));
    #[cfg(feature = "serve")]
    let subscriber = subscriber.with(Kept.with_filter(LevelFilter::WARN));
    subscriber.init();
}

/// What may change how much is told.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Tells as much as a pipeline file says, unless the command line says something itself.
pub(super) fn set_level(global: &Global, level: Option<LogLevel>) {
    if global.quiet || global.verbose > 0 {
        return;
    }
    let level = match level {
        Some(LogLevel::Error) => LevelFilter::ERROR,
        Some(LogLevel::Warn) => LevelFilter::WARN,
        Some(LogLevel::Debug) => LevelFilter::DEBUG,
        Some(LogLevel::Trace) => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    };
    if let Some(handle) = LEVEL.get() {
        // Who told what happens is gone only when the process ends.
        let _ = handle.reload(level);
    }
}

/// The last warnings and errors, for whoever shows them.
#[cfg(feature = "serve")]
pub(super) fn warnings() -> &'static Warnings {
    static WARNINGS: std::sync::OnceLock<Warnings> = std::sync::OnceLock::new();
    WARNINGS.get_or_init(Warnings::default)
}

/// Has an error among them that the program goes on after, and that is told as it would be at its end.
#[cfg(feature = "serve")]
pub(super) fn note_error(message: &str) {
    warnings().note(Level::Error, &shown(message));
}

/// Keeps warnings and errors, also those that `--quiet` does not tell.
#[cfg(feature = "serve")]
struct Kept;

#[cfg(feature = "serve")]
impl<S: tracing::Subscriber> Layer<S> for Kept {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            _ => Level::Warn,
        };
        let mut message = Message(String::new());
        event.record(&mut message);
        warnings().note(level, &shown(&message.0));
    }
}

/// The message of an event.
#[cfg(feature = "serve")]
struct Message(String);

#[cfg(feature = "serve")]
impl tracing::field::Visit for Message {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Stderr, which may be full or gone: then nobody can be told, and the work goes on.
struct Told;

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = std::io::stderr().lock().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Lines of JSON on their way: what acts on a terminal is escaped in their texts. Each write is a whole event.
struct EscapedJson<W>(W);

impl<W: Write> Write for EscapedJson<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(shown_json(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A message as it is told: it acts on no terminal, and shows no password of an address.
fn shown(text: &str) -> String {
    message(&without_logins(text)).into_owned()
}

/// The same in JSON.
fn shown_json(json: &str) -> String {
    plain_json(&without_logins(json)).into_owned()
}

/// Tells what is wrong with the arguments, or what was asked for: the help or the version.
pub(super) fn arguments(refused: &clap::Error) -> ExitCode {
    let text = refused.render();
    // If nobody hears it, nobody can be told.
    let _ = match refused.use_stderr() {
        false => refused.print(),
        true => {
            let text = text.to_string();
            let lines = text.lines().map(|line| format!("{}\n", plain(&without_logins(line))));
            std::io::stderr().lock().write_all(lines.collect::<String>().as_bytes())
        }
    };
    u8::try_from(refused.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Tells why a command failed.
pub(super) fn error(global: &Global, text: &str) {
    let mut stderr = std::io::stderr().lock();
    // If stderr is gone, nobody can be told.
    let _ = match global.log_format {
        LogFormat::Json => {
            let line = serde_json::json!({ "level": "ERROR", "message": text }).to_string();
            writeln!(stderr, "{}", shown_json(&line))
        }
        LogFormat::Text => {
            let style = if global.is_coloured(&stderr) {
                anstyle::AnsiColor::Red.on_default().bold()
            } else {
                anstyle::Style::new()
            };
            writeln!(stderr, "{style}error:{style:#} {}", shown(text))
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
