//! Waiting in steps, so that whoever waits can be told to stop.

use std::time::{Duration, Instant};

use crate::model::limits::WAIT_STEP;

/// Waits for that long, or until `is_over`, which is checked every [`WAIT_STEP`].
pub(crate) fn pause(span: Duration, is_over: impl Fn() -> bool) {
    let started = Instant::now();
    while let Some(rest) = span.checked_sub(started.elapsed()).filter(|rest| !rest.is_zero() && !is_over()) {
        std::thread::park_timeout(rest.min(WAIT_STEP));
    }
}
