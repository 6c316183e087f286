//! Why a source cannot be reached, from the thread that fetches ahead of the reader to whoever watches the run.

use std::sync::{Arc, Mutex, PoisonError};

/// Cheap to clone: clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// It cannot be reached, for this cause; none when it can again.
    pub(super) fn set(&self, cause: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    /// Why it cannot be reached now.
    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
