//! Why a handler failed.

use crate::model::cause::Cause;

/// Why a handler did not get to its end. Any error turns into one with `?`, and is kept as its source
/// ([`LaneError::Handler`](crate::LaneError)).
#[derive(Debug)]
pub struct HandlerError {
    pub(super) message: String,
    pub(super) source: Option<Cause>,
}

impl HandlerError {
    /// A failure with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self { message: error.to_string(), source: Some(error.into()) }
    }
}
