//! The error behind an error.

use std::error::Error;
use std::fmt;

/// Any error that caused another one. Which types there are is no promise: they are those of drivers.
pub type Cause = Box<dyn Error + Send + Sync>;

/// What went wrong, as a text that may say what to do, and the error that it comes from.
#[derive(Debug)]
pub struct Reason {
    text: Box<str>,
    source: Option<Cause>,
}

impl Reason {
    /// A reason that comes from another error.
    pub fn new(text: impl Into<Box<str>>, source: impl Into<Cause>) -> Box<Self> {
        Box::new(Self { text: text.into(), source: Some(source.into()) })
    }

    /// A reason that may come from another error.
    pub(crate) fn maybe(text: impl Into<Box<str>>, source: Option<Cause>) -> Box<Self> {
        Box::new(Self { text: text.into(), source })
    }
}

impl<T: Into<Box<str>>> From<T> for Box<Reason> {
    fn from(text: T) -> Self {
        Reason::maybe(text, None)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Reason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
