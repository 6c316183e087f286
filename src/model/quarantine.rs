//! Events that are put aside instead of ending the run: `[errors] on_event = "quarantine"`.
//!
//! Only what fails the same way every time is put aside, so that every run over the same source puts the same events
//! aside: an event that cannot be read, or that its handler refuses. Never a time-out, a lack of memory, or what a store
//! says.

use std::sync::Arc;

use super::setting::SettingError;
use super::timestamp::Timestamp;

/// Bytes of an event's text that are kept at most; of a longer one the beginning is.
pub const EVENT_TEXT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the message that are kept at most: a script may raise a text of any length.
const ERROR_BYTES_MAX: usize = 8 * 1024;

/// Events in quarantine at most, if nothing else is said.
const QUARANTINE_MAX: u64 = 100;

/// What else can be done about an event that ends the run.
pub(crate) const PUT_ASIDE_HINT: &str = "[errors] on_event = \"quarantine\" puts such an event aside and goes on";

/// What to do with an event that cannot be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnEvent {
    /// End the run. The whole blocks before the event are committed.
    #[default]
    Stop,
    /// Put the event aside and go on.
    Quarantine,
}

/// `[errors]`: what to do with events that cannot be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorsConfig {
    /// What to do with such an event. Defaults to ending the run.
    pub on_event: OnEvent,
    /// Events in quarantine at most, those of earlier runs included: one more ends the run. Defaults to 100.
    pub max: u64,
}

impl ErrorsConfig {
    /// Puts events aside that cannot be handled, at most `max` of them.
    #[must_use]
    pub fn quarantine(max: u64) -> Self {
        Self { on_event: OnEvent::Quarantine, max }
    }

    /// What to do with an event that cannot be handled, by its name in the pipeline file.
    ///
    /// # Errors
    /// There is no such name.
    pub fn with_on_event(self, name: &str) -> Result<Self, SettingError> {
        let on_event = match name {
            "stop" => OnEvent::Stop,
            "quarantine" => OnEvent::Quarantine,
            other => {
                let message = format!("on_event: expected \"stop\" or \"quarantine\", got {other:?}");
                return Err(SettingError::new(message));
            }
        };
        Ok(Self { on_event, ..self })
    }

    /// Whether events are put aside.
    pub fn puts_aside(&self) -> bool {
        self.on_event == OnEvent::Quarantine
    }
}

impl Default for ErrorsConfig {
    fn default() -> Self {
        Self { on_event: OnEvent::Stop, max: QUARANTINE_MAX }
    }
}

/// Where an event failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum QuarantineStage {
    /// It cannot be read: no JSON object, a block, region or place that is missing or wrong, a region that is not in the
    /// closed list.
    Source,
    /// Its handler failed, or wrote what a column refuses.
    Handler,
}

impl QuarantineStage {
    /// Its name, in tables and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Handler => "handler",
        }
    }

    /// The way back from [`QuarantineStage::name`]; what is unknown is the source's.
    pub fn of_name(name: &str) -> Self {
        if name == "handler" { Self::Handler } else { Self::Source }
    }
}

/// An event that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quarantined {
    /// The file.
    pub file: Arc<str>,
    /// The line in it, from 1.
    pub line: u64,
    /// The block that it counts to. An event whose block cannot be read counts to the block of the event before it, and
    /// before the first event to the first block.
    pub block: i64,
    /// The place within the block, where the source has one.
    pub place: Option<i64>,
    /// The region whose lane refused it, or that it names; none if that cannot be read.
    pub region: Option<Arc<str>>,
    /// Where it failed.
    pub stage: QuarantineStage,
    /// What was wrong with it.
    pub error: String,
    /// Its text, up to 64 KiB. What no database keeps (NUL, bytes that are no UTF-8) is replaced by U+FFFD.
    pub event: String,
    /// When it was put aside.
    pub time: Timestamp,
}

impl Quarantined {
    /// Bytes of memory that it takes, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.error.len() + self.event.len()
    }

    /// Where it stands, for a message.
    pub(crate) fn place_text(&self) -> String {
        format!("{}:{} (block {})", self.file, self.line, self.block)
    }
}

/// An event's text as it is kept.
pub(crate) fn event_text(text: &str) -> String {
    bounded(text, EVENT_TEXT_BYTES_MAX)
}

/// A message as it is kept.
pub(crate) fn error_text(text: &str) -> String {
    bounded(text, ERROR_BYTES_MAX)
}

/// The beginning of a text, without NUL.
fn bounded(text: &str, bytes_max: usize) -> String {
    let kept = match text.len() <= bytes_max {
        true => text,
        false => &text[..text.floor_char_boundary(bytes_max)],
    };
    let mut kept = kept.replace('\0', "\u{fffd}");
    if kept.len() < text.len() && text.len() > bytes_max {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_at_a_character_and_hold_no_nul() {
        assert_eq!(event_text("a\0b"), "a\u{fffd}b");
        let whole = "é".repeat(EVENT_TEXT_BYTES_MAX / 2);
        assert_eq!(event_text(&whole), whole);
        let longer = format!("x{whole}");
        let kept = event_text(&longer);
        assert_eq!(kept, format!("x{}…", &whole[..EVENT_TEXT_BYTES_MAX - 2]));
    }

    #[test]
    fn names_of_stages_come_back() {
        for stage in [QuarantineStage::Source, QuarantineStage::Handler] {
            assert_eq!(QuarantineStage::of_name(stage.name()), stage);
        }
        assert!(ErrorsConfig::default().with_on_event("quarantine").is_ok_and(|errors| errors.puts_aside()));
        assert!(ErrorsConfig::default().with_on_event("ignore").is_err());
    }
}
