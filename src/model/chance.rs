//! Numbers by chance: to tell apart what is made at the same time.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that nobody else has drawn. Not for secrets.
pub(crate) fn number() -> u64 {
    // The keys of each state are drawn by chance.
    RandomState::new().build_hasher().finish()
}
