//! Which optional parts a build has, by the names of their cargo features.

/// Something was asked for that this build does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this build has no {what}: cargo feature {feature:?}")]
pub struct NotBuilt {
    what: &'static str,
    feature: &'static str,
}

impl NotBuilt {
    /// What is asked for, as one reads it, and the cargo feature that adds it.
    pub(crate) const fn new(what: &'static str, feature: &'static str) -> Self {
        Self { what, feature }
    }

    /// The cargo feature that would add it.
    pub fn feature(self) -> &'static str {
        self.feature
    }
}
