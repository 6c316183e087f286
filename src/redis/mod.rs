//! Ways to Redis: addresses, and connections to one server or to those of a cluster.
//!
//! | file | holds |
//! |---|---|
//! | `address`, `no_address` | where Redis is; the same in a build without it |
//! | `wire`, `pool`, `node` | one connection; the connections to one server; the server |
//! | `certificate` | until when the certificate of a server may be used |
//! | `topology`, `slots` | the servers of a cluster; which slot a key is in |
//!
//! The only folder that opens a connection to Redis. It knows nothing of what is said over it.

#[cfg(feature = "redis")]
mod address;
#[cfg(not(feature = "redis"))]
#[path = "no_address.rs"]
mod address;
#[cfg(feature = "redis")]
pub(crate) mod certificate;
#[cfg(feature = "redis")]
pub(crate) mod node;
#[cfg(feature = "redis")]
mod pool;
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "no key is sent anywhere"))]
mod slots;
#[cfg(feature = "redis")]
pub(crate) mod topology;
#[cfg(feature = "redis")]
pub(crate) mod wire;

pub use address::{RedisUrl, RedisUrlError};
pub(crate) use slots::tag_of;

/// A server that does not answer, or lets nobody in.
#[cfg(feature = "redis")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{target}: {cause}")]
pub(crate) struct Unreached {
    /// Which server.
    pub(crate) target: String,
    /// What went wrong.
    pub(crate) cause: String,
}
