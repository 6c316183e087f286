//! Why a setter refuses a value.

/// A value that a setter refuses: its text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(String);

impl SettingError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Passes a number of at least 1.
    pub(crate) fn unless_zero(name: &str, count: u64) -> Result<u64, Self> {
        if count > 0 { Ok(count) } else { Err(Self(format!("{name}: expected at least 1, got {count}"))) }
    }

    /// Passes a number of at least 1 and at most `max`.
    pub(crate) fn unless_beyond(name: &str, count: usize, max: usize) -> Result<usize, Self> {
        if (1..=max).contains(&count) {
            return Ok(count);
        }
        Err(Self(format!("{name}: expected 1 to {max}, got {count}")))
    }

    /// Passes a duration above zero.
    pub(crate) fn unless_instant(name: &str, span: std::time::Duration) -> Result<std::time::Duration, Self> {
        if span.is_zero() { Err(Self(format!("{name}: expected a duration above zero"))) } else { Ok(span) }
    }

    /// Passes a duration of at least `min`.
    pub(crate) fn unless_short(
        name: &str,
        span: std::time::Duration,
        min: std::time::Duration,
    ) -> Result<std::time::Duration, Self> {
        if span < min { Err(Self(format!("{name}: expected at least {} s", min.as_secs()))) } else { Ok(span) }
    }

    /// Passes a text that is not empty.
    pub(crate) fn unless_empty(name: &str, text: impl Into<String>) -> Result<String, Self> {
        let text = text.into();
        if text.is_empty() { Err(Self(format!("{name}: expected a text that is not empty"))) } else { Ok(text) }
    }
}
