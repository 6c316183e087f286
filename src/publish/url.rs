//! The address of a place to publish to.

use std::fmt;
use std::path::Path;

use super::{Keys, KeysError};
use crate::model::address::AddressForm;
use crate::redis::{RedisUrl, RedisUrlError};

/// Where snapshots are published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetUrl {
    /// A Redis server, or a Redis Cluster.
    Redis(RedisUrl),
}

/// An address that names no place to publish to. It never repeats what may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetUrlError {
    /// No address of Redis.
    #[error(transparent)]
    Redis(#[from] RedisUrlError),
}

impl TargetUrl {
    /// The forms of an address, as they are told to users: the first is the one to begin with.
    pub const FORMS: [AddressForm; 3] = [
        AddressForm { full: "redis://HOST", brief: "redis://", example: "redis://host" },
        AddressForm { full: "rediss://HOST", brief: "rediss://", example: "rediss://host" },
        AddressForm {
            full: "redis+cluster://HOST,HOST",
            brief: "redis+cluster://",
            example: "redis+cluster://host,host",
        },
    ];

    /// Whether a text begins as such an address does.
    pub fn is_meant(text: &str) -> bool {
        RedisUrl::is_meant(text)
    }

    /// Reads an address; a file that it names is taken from `base`. Blanks, line ends and invisible characters at both ends
    /// are left out; within they are refused.
    ///
    /// # Errors
    /// The text names no place; the message does not show what may hold a password.
    pub fn parse(text: &str, base: &Path) -> Result<Self, TargetUrlError> {
        Ok(Self::Redis(RedisUrl::parse(text, base)?))
    }

    /// What is there, as messages call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Redis(_) => "Redis",
        }
    }

    /// Refuses names of keys that do not work there.
    ///
    /// # Errors
    /// Which key, and why.
    pub fn check_keys(&self, keys: &Keys) -> Result<(), KeysError> {
        match self {
            Self::Redis(url) if url.is_cluster() => keys.check_cluster(),
            Self::Redis(_) => Ok(()),
        }
    }
}

impl From<RedisUrl> for TargetUrl {
    fn from(url: RedisUrl) -> Self {
        Self::Redis(url)
    }
}

impl std::str::FromStr for TargetUrl {
    type Err = TargetUrlError;

    /// As [`TargetUrl::parse`], with relative paths taken from the current folder.
    fn from_str(text: &str) -> Result<Self, TargetUrlError> {
        Self::parse(text, Path::new(""))
    }
}

impl fmt::Display for TargetUrl {
    /// The address without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(url) => url.fmt(f),
        }
    }
}
