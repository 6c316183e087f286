//! Publishing: snapshots go where readers look, to Redis, one script a region.
//!
//! | file | holds |
//! |---|---|
//! | `fields` | id and time taken from a document |
//! | `outbox` | the publish thread of a run |
//! | `documents` | ready documents, read from a text |
//! | `redis/` | Redis: its keys, scripts and connections |
//!
//! The only room with a connection to Redis. It sees snapshots that are committed, and nothing else of a run.

mod documents;
mod fields;
pub(crate) mod outbox;
mod redis;

use std::sync::Arc;
use std::time::Duration;

pub use documents::{Document, Documents, DocumentsError};
pub use fields::FieldPath;
pub use outbox::UnpublishedRegion;
pub use redis::{
    Extent, KeptRegion, Keys, KeysError, LatestInRedis, Published, Publisher, RedisSnapshots, RedisUrl, RedisUrlError,
};

use crate::model::limits::{PUBLISH_POOL, PUBLISH_TIMEOUT, SNAPSHOTS_DEDUP, SNAPSHOTS_TTL};
pub use crate::snapshot::Publication;

/// Where and how snapshots are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishPlan {
    /// The pipeline's name, which the keys carry.
    pub pipeline: String,
    /// Where Redis is.
    pub url: RedisUrl,
    /// The names of the keys.
    pub keys: Keys,
    /// The field of a document that holds its id. Defaults to none: `<region>.<seq>.<hash>`.
    pub id_field: Option<FieldPath>,
    /// The field of a document that holds its time. Defaults to none: when it was computed.
    pub time_field: Option<FieldPath>,
    /// How long a snapshot is kept. Defaults to 90 days.
    pub ttl: Duration,
    /// How long the same content counts as a duplicate. Defaults to 15 minutes; zero for never.
    pub dedup: Duration,
    /// Connections at most, and threads that publish. Defaults to 8.
    pub pool: usize,
    /// How long connecting may take, and how long the server may be silent while an answer is waited for. Defaults to 5 s.
    pub timeout: Duration,
}

impl PublishPlan {
    /// A plan with everything at its default.
    pub fn new(pipeline: &str, url: RedisUrl) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            url,
            keys: Keys::default(),
            id_field: None,
            time_field: None,
            ttl: SNAPSHOTS_TTL,
            dedup: SNAPSHOTS_DEDUP,
            pool: PUBLISH_POOL,
            timeout: PUBLISH_TIMEOUT,
        }
    }
}

/// What became of a snapshot that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishStatus {
    /// It is the newest of its region now.
    Published,
    /// The newest has the same content; its time to live begins anew.
    Duplicate,
    /// A newer one is there already.
    Stale,
}

/// What became of one region's snapshot.
#[derive(Debug, Clone)]
pub struct PublishReceipt {
    /// The region.
    pub region: Arc<str>,
    /// The id of what is the region's newest now; of what was to be published, if it failed.
    pub id: String,
    /// The number of what is the region's newest now, as [`PublishReceipt::id`].
    pub seq: u64,
    /// The block of what is the region's newest now, if that is known.
    pub block: Option<i64>,
    /// What became of it.
    pub outcome: Result<PublishStatus, PublishError>,
    /// How long after the beginning of the publish the answer came.
    pub took: Duration,
}

/// Why a region's snapshot was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Redis does not answer, or lets nobody in: it says nothing of this region.
    #[error("{target}: {cause}")]
    Away {
        /// Which server.
        target: String,
        /// What went wrong.
        cause: String,
    },
    /// Redis refused this snapshot.
    #[error("{0}")]
    Refused(String),
    /// The document cannot be published as it is.
    #[error("{0}")]
    Document(String),
}

impl PublishError {
    /// Whether the server is at fault and not the snapshot.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}
