//! The last warnings and errors of the log, so that a page can show them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value as Json, json};

use crate::model::timestamp::Timestamp;

/// Different ones that are kept.
const KEPT_MAX: usize = 50;

/// Bytes of a message that are kept.
const MESSAGE_BYTES_MAX: usize = 2048;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The run goes on.
    Warn,
    /// Something was not done.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

#[derive(Debug)]
struct Warning {
    time: Timestamp,
    level: Level,
    message: String,
    count: u64,
}

/// The last 50 warnings and errors, equal ones as one. Cheap to clone: clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Arc<Mutex<VecDeque<Warning>>>);

impl Warnings {
    /// Takes one in. What it shows of addresses and controls, whoever gives it has taken out. Does not block.
    pub fn note(&self, level: Level, message: &str) {
        let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
        let mut kept = self.kept();
        let same = kept.iter().position(|one| one.level == level && one.message == message);
        let mut warning = match same.and_then(|at| kept.remove(at)) {
            Some(same) => same,
            None => Warning { time: Timestamp::MIN, level, message: message.to_owned(), count: 0 },
        };
        (warning.time, warning.count) = (Timestamp::now(), warning.count + 1);
        kept.push_front(warning);
        kept.truncate(KEPT_MAX);
    }

    /// The newest first.
    pub(super) fn to_json(&self) -> Json {
        let shown = |one: &Warning| {
            json!({
                "time": one.time.to_millis_text(),
                "level": one.level.name(),
                "message": one.message,
                "count": one.count,
            })
        };
        self.kept().iter().map(shown).collect()
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Warning>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ones_are_one_and_the_newest_come_first() {
        let warnings = Warnings::default();
        for _ in 0..3 {
            warnings.note(Level::Warn, "a");
            warnings.note(Level::Error, "b");
        }
        let shown = warnings.to_json();
        assert_eq!((&shown[0]["message"], &shown[0]["count"]), (&"b".into(), &3.into()));
        assert_eq!((&shown[1]["level"], shown.as_array().map(Vec::len)), (&"warn".into(), Some(2)));
        for at in 0..100 {
            warnings.note(Level::Warn, &format!("{at}{}", "x".repeat(at * 100)));
        }
        let shown = warnings.to_json();
        assert_eq!(shown.as_array().map(Vec::len), Some(KEPT_MAX));
        assert!(shown[0]["message"].as_str().is_some_and(|message| message.len() == MESSAGE_BYTES_MAX));
    }
}
