//! Publishing: snapshots go where readers look.
//!
//! | file | holds |
//! |---|---|
//! | `target` | what a target is: the trait |
//! | `mailbox`, `worker` | the publish thread of a run: what waits for it; the thread |
//! | `region_states`, `stats` | how each region stands; the live numbers |
//! | `fields` | id and time taken from a document |
//! | `documents`, `dedup` | ready documents, read from a text; what of them counts as a change |
//! | `on_publish` | a command that is run for what was published |
//! | `health` | what a health check reads of a publish |
//! | `passes` | what a seeder does, noted down for those who watch it |
//! | `redis/` | the target Redis: its keys, scripts and connections |
//!
//! It sees snapshots that are committed, and nothing else of a run. Only `redis/` knows Redis.

mod dedup;
mod documents;
mod fields;
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "fields are read and checked, and nothing is written"))]
mod health;
mod mailbox;
mod on_publish;
mod passes;
#[cfg(feature = "redis")]
mod redis;
#[cfg(not(feature = "redis"))]
#[path = "no_redis.rs"]
mod redis;
mod region_states;
mod stats;
mod target;
mod worker;

pub use dedup::DedupRule;
pub use documents::{Document, Documents, DocumentsError};
pub use fields::{DocumentFields, FieldPath};
pub use health::HealthFields;
pub use on_publish::OnPublish;
pub use passes::{
    Pass, PassCounts, PassResult, Passes, PassesReading, RegionPass, RegionResult, SeedStep, SeededRegion,
};
pub use redis::{
    Begun, Extent, KeptRegion, Keys, KeysError, LatestInRedis, LockHolder, PublishPlan, Published, Publisher,
    RedisSnapshots, RedisTarget, SeedTurn, Seeder, examine,
};
pub use region_states::UnpublishedRegion;
pub use target::{Delivery, Known, OtherStore, Patience, PublishError, PublishReceipt, PublishStatus, Target};

pub(crate) use mailbox::Mailbox;
pub(crate) use redis::check_summary_field;
pub(crate) use stats::PublishStats;
pub use stats::Publishing;
pub(crate) use worker::{MinSeqs, PublishHook, PublishThread, WorkerPlan};

pub use crate::redis::{RedisUrl, RedisUrlError};
pub use crate::snapshot::Publication;
