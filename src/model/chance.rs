//! Texts by chance: to tell apart what is made at the same time, also by processes on several hosts.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A text that nobody else has drawn. Not for secrets.
pub(crate) fn token() -> String {
    // The keys of each state are drawn by chance.
    let number = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_is_drawn_twice() {
        let tokens: std::collections::HashSet<String> = (0..1000).map(|_| token()).collect();
        assert_eq!(tokens.len(), 1000);
        assert!(tokens.iter().all(|token| token.len() == 32));
    }
}
