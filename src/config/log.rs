//! `[log]`: how much of what happens is told.

use super::reading::{ConfigError, Section};

/// How much of what happens is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// What may go wrong too.
    Warn,
    /// What happens.
    Info,
    /// More of it.
    Debug,
    /// All of it.
    Trace,
}

impl LogLevel {
    const NAMES: [(&str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

pub(super) fn read_log(mut section: Section<'_, '_>) -> Result<Option<LogLevel>, ConfigError> {
    let level = section.optional("level").map(|value| {
        let text = value.text()?;
        let found = LogLevel::NAMES.iter().find(|(name, _)| *name == text);
        let names = LogLevel::NAMES.map(|(name, _)| name).join(", ");
        found
            .map(|(_, level)| *level)
            .ok_or_else(|| value.error(format!("level: expected one of {names}, got {text:?}")))
    });
    section.finish()?;
    level.transpose()
}
