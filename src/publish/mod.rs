//! Publishing: snapshots go where readers look.
//!
//! | file | holds |
//! |---|---|
//! | `target` | what a target is: the trait |
//! | `mailbox`, `worker` | the publish thread of a run: what waits for it; the thread |
//! | `region_states`, `stats` | how each region stands; the live numbers |
//! | `fields` | id and time taken from a document |
//! | `documents` | ready documents, read from a text |
//! | `redis/` | the target Redis: its keys, scripts and connections |
//!
//! It sees snapshots that are committed, and nothing else of a run. Only `redis/` knows Redis.

mod documents;
mod fields;
mod mailbox;
#[cfg(feature = "redis")]
mod redis;
#[cfg(not(feature = "redis"))]
#[path = "no_redis.rs"]
mod redis;
mod region_states;
mod stats;
mod target;
mod worker;

pub use documents::{Document, Documents, DocumentsError};
pub use fields::{DocumentFields, FieldPath};
pub use redis::{
    Extent, KeptRegion, Keys, KeysError, LatestInRedis, PublishPlan, Published, Publisher, RedisSnapshots, RedisTarget,
    RedisUrl, RedisUrlError,
};
pub use region_states::UnpublishedRegion;
pub use target::{Delivery, Known, OtherStore, Patience, PublishError, PublishReceipt, PublishStatus, Target};

pub(crate) use mailbox::Mailbox;
pub(crate) use stats::PublishStats;
pub(crate) use worker::{MinSeqs, PublishThread, WorkerPlan};

pub use crate::snapshot::Publication;
