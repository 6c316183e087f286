//! Why a handler failed.

/// Why a handler did not get to its end. Any error turns into one with `?`.
#[derive(Debug)]
pub struct HandlerError {
    pub(super) message: String,
}

impl HandlerError {
    /// A failure with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}
