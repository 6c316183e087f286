//! Publishing to Redis: one script a region, all regions at once.
//!
//! | file | holds |
//! |---|---|
//! | `address`, `plan` | where Redis is; how snapshots are published there |
//! | `outcome` | what publishing and reading come to |
//! | `target` | Redis as the publish thread sees it |
//! | `keys`, `owners` | the names of the keys, and templates for them; whose key a name is |
//! | `script`, `scripts/` | what runs in Redis |
//! | `wire`, `pool`, `node`, `topology` | one connection; the connections to one server; the server; the servers of a cluster |
//! | `publisher`, `exchange`, `summary` | publishing many regions at once; one such publish until each is decided; its summary |
//! | `settling` | the end of a publish: the health key, the lock |
//! | `seeder` | who seeds: under a lock, from what is there to what is new |
//! | `reader` | reading snapshots back |
//!
//! The only folder with a connection to Redis.

mod address;
mod connections;
mod exchange;
mod keys;
mod node;
mod outcome;
mod owners;
mod plan;
mod pool;
mod publisher;
mod reader;
mod script;
mod seeder;
mod settling;
mod summary;
mod target;
mod topology;
mod wire;

pub use address::{RedisUrl, RedisUrlError};
pub use keys::{Keys, KeysError};
pub use outcome::{Extent, KeptRegion, LatestInRedis, Published};
pub use plan::PublishPlan;
pub(crate) use plan::check_summary_field;
pub use publisher::Publisher;
pub use reader::RedisSnapshots;
pub use seeder::{Begun, LockHolder, SeedTurn, Seeder};
pub use target::RedisTarget;
