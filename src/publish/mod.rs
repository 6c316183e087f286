//! Publishing: snapshots go where readers look.
//!
//! | file | holds |
//! |---|---|
//! | `target` | what a target is: the trait |
//! | `outbox` | the publish thread of a run |
//! | `fields` | id and time taken from a document |
//! | `documents` | ready documents, read from a text |
//! | `redis/` | the target Redis: its keys, scripts and connections |
//!
//! It sees snapshots that are committed, and nothing else of a run. Only `redis/` knows Redis.

mod documents;
mod fields;
pub(crate) mod outbox;
mod redis;
mod target;

pub use documents::{Document, Documents, DocumentsError};
pub use fields::{DocumentFields, FieldPath};
pub use outbox::UnpublishedRegion;
pub use redis::{
    Extent, KeptRegion, Keys, KeysError, LatestInRedis, PublishPlan, Published, Publisher, RedisSnapshots, RedisTarget,
    RedisUrl, RedisUrlError,
};
pub use target::{Delivery, Known, Patience, PublishError, PublishReceipt, PublishStatus, Target};

pub use crate::snapshot::Publication;
