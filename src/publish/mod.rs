//! Publishing: snapshots go where readers look.
//!
//! | file | holds |
//! |---|---|
//! | `target` | what a target is: the traits |
//! | `url`, `open` | which target an address names; opening it |
//! | `settings`, `plan` | what a pipeline says of its snapshots; of which, what a target is to do |
//! | `mailbox`, `worker` | the publish thread of a run: what waits for it; the thread |
//! | `region_states`, `stats` | how each region stands; the live numbers |
//! | `fields` | id and time taken from a document |
//! | `documents`, `dedup` | ready documents, read from a text; what of them counts as a change |
//! | `on_publish` | a command that is run for what was published |
//! | `health` | what a health check reads of a publish |
//! | `passes` | what a seeder does, noted down for those who watch it |
//! | `redis/` | the target Redis: its keys, scripts and connections |
//!
//! It sees snapshots that are committed, and nothing else of a run. Only `redis/`, and the addresses in `url`, know Redis.

mod dedup;
mod documents;
mod fields;
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "fields are read and checked, and nothing is written"))]
mod health;
mod mailbox;
mod on_publish;
mod open;
mod passes;
mod plan;
#[cfg(feature = "redis")]
mod redis;
#[cfg(not(feature = "redis"))]
#[path = "no_redis.rs"]
mod redis;
mod region_states;
mod settings;
mod stats;
mod target;
mod url;
mod worker;

pub use dedup::DedupRule;
pub use documents::{Document, Documents, DocumentsError};
pub use fields::{DocumentFields, FieldPath};
pub use health::HealthFields;
pub use on_publish::OnPublish;
pub use open::{examine, open, open_reader};
pub use passes::{
    Pass, PassCounts, PassResult, Passes, PassesReading, RegionPass, RegionResult, SeedStep, SeededRegion,
};
pub use plan::PublishPlan;
pub use redis::{
    Begun, Extent, KeptRegion, Keys, KeysError, LockHolder, Published, Publisher, RedisSnapshots, RedisTarget,
    SeedTurn, Seeder,
};
pub use region_states::UnpublishedRegion;
pub use settings::SnapshotsConfig;
pub use target::{
    Delivery, Known, LatestInTarget, OtherStore, Patience, PublishError, PublishReceipt, PublishStatus, Target,
    TargetReader, TellRegion,
};
pub use url::{TargetUrl, TargetUrlError};

pub(crate) use mailbox::Mailbox;
pub(crate) use plan::check_summary_field;
pub(crate) use stats::PublishStats;
pub use stats::Publishing;
pub(crate) use worker::{MinSeqs, PublishHook, PublishThread, WorkerPlan};

pub use crate::redis::{RedisUrl, RedisUrlError};
pub use crate::snapshot::Publication;
