//! How long a source waits that has nothing for now: for a moment at first, and then longer and longer.
//!
//! What comes ends a wait where it can. So a long one costs nothing but the time until it is seen that a block is whole, or
//! that the run is to stop.

use std::time::Duration;

/// The first wait.
const WAIT_MIN: Duration = Duration::from_millis(10);
/// The longest where what comes ends the wait, and where it does not.
const WAIT_MAX: Duration = Duration::from_millis(200);
const UNHEARD_MAX: Duration = Duration::from_millis(35);

/// How long was waited in vain.
#[derive(Debug)]
pub(super) struct Patience {
    last: Duration,
    /// The longest wait that what comes ends.
    longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { last: Duration::ZERO, longest: WAIT_MAX }
    }
}

impl Patience {
    /// Waits so long at once, to see that something ends the wait.
    #[cfg(test)]
    pub(super) fn of(span: Duration) -> Self {
        Self { last: span, longest: span }
    }

    /// Something has come.
    pub(super) fn end(&mut self) {
        self.last = Duration::ZERO;
    }

    /// How long to wait now. `is_heard` says whether what comes ends the wait.
    pub(super) fn next(&mut self, is_heard: bool) -> Duration {
        let longest = if is_heard { self.longest } else { UNHEARD_MAX };
        self.last = (self.last * 2).clamp(WAIT_MIN, longest);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until so much time has been waited for.
    fn waits(patience: &mut Patience, is_heard: bool, span: Duration) -> u64 {
        let (mut waits, mut waited) = (0, Duration::ZERO);
        while waited < span {
            waited += patience.next(is_heard);
            waits += 1;
        }
        waits
    }

    #[test]
    fn waits_grow_until_something_comes() {
        let (mut patience, minute) = (Patience::default(), Duration::from_secs(60));
        let first: Vec<_> = (0..7).map(|_| patience.next(true).as_millis()).collect();
        assert_eq!(first, [10, 20, 40, 80, 160, 200, 200]);
        assert!(waits(&mut patience, true, minute) <= 5 * 60);
        assert!(waits(&mut patience, false, minute) <= 29 * 60);
        patience.end();
        assert_eq!(patience.next(true).as_millis(), 10);
        assert!(waits(&mut patience, true, minute) < 5 * 60 + 5);
    }
}
