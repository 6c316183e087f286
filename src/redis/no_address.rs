//! The address of a Redis server in a build without the cargo feature `redis`: none is read.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;

use crate::model::built::NotBuilt;

/// An address that names no Redis server that this build could reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct RedisUrlError(NotBuilt);

/// Where a Redis server or a Redis Cluster is. This build has no Redis, so there is no value of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl(Infallible);

impl RedisUrl {
    /// Whether a text begins as an address of Redis does.
    pub fn is_meant(text: &str) -> bool {
        let scheme = crate::model::address::trimmed(text).split_once("://").map_or("", |(scheme, _)| scheme);
        matches!(scheme, "unix" | "valkey" | "valkeys") || scheme.starts_with("redis")
    }

    /// Reads an address.
    ///
    /// # Errors
    /// Always: this build has no Redis.
    pub fn parse(_: &str, _: &Path) -> Result<Self, RedisUrlError> {
        Err(RedisUrlError(NotBuilt::new("Redis", "redis")))
    }

    /// Whether it is a cluster, and not one server.
    pub fn is_cluster(&self) -> bool {
        self.absurd()
    }

    /// Whatever is asked for: there is no address.
    pub(crate) fn absurd<T>(&self) -> T {
        match self.0 {}
    }
}

impl std::str::FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, RedisUrlError> {
        Self::parse(text, Path::new(""))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.absurd()
    }
}
