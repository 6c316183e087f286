//! How long something took, many times: a histogram, and the last few as they were.

use std::collections::VecDeque;
use std::time::Duration;

/// The upper bounds of the buckets, in milliseconds; above the last there is one more.
pub const BUCKET_MILLIS: [u64; 13] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000];

/// How many of the last are kept for the median.
const RECENT_MAX: usize = 128;

/// Durations of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Durations {
    /// How many were at most as long as each of [`BUCKET_MILLIS`] and longer than the one before; then the longer ones.
    pub buckets: [u64; BUCKET_MILLIS.len() + 1],
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
    /// The longest.
    pub max: Duration,
    recent: VecDeque<Duration>,
}

impl Durations {
    /// Takes in one more.
    pub(crate) fn add(&mut self, took: Duration) {
        let bucket = BUCKET_MILLIS.iter().position(|bound| took <= Duration::from_millis(*bound));
        self.buckets[bucket.unwrap_or(BUCKET_MILLIS.len())] += 1;
        self.count += 1;
        self.sum += took;
        self.max = self.max.max(took);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(took);
    }

    /// The median of the last 128; none if there is none.
    pub fn median(&self) -> Option<Duration> {
        let mut recent: Vec<Duration> = self.recent.iter().copied().collect();
        recent.sort_unstable();
        recent.get(recent.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_its_bucket_and_the_last_make_the_median() {
        let mut durations = Durations::default();
        assert_eq!(durations.median(), None);
        for millis in [1, 5, 6, 70_000] {
            durations.add(Duration::from_millis(millis));
        }
        assert_eq!((durations.buckets[0], durations.buckets[1], durations.buckets[13]), (2, 1, 1));
        assert_eq!((durations.count, durations.sum.as_millis(), durations.max.as_secs()), (4, 70_012, 70));
        assert_eq!(durations.median(), Some(Duration::from_millis(6)));
        for _ in 0..RECENT_MAX {
            durations.add(Duration::from_millis(9));
        }
        assert_eq!(durations.median(), Some(Duration::from_millis(9)));
    }
}
