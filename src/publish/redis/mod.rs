//! Publishing to Redis: one script a region, all regions at once.
//!
//! | file | holds |
//! |---|---|
//! | `outcome` | what publishing and reading come to |
//! | `target` | Redis as the publish thread sees it |
//! | `keys`, `owners` | the names of the keys, and templates for them; whose key a name is |
//! | `script`, `scripts/` | what runs in Redis |
//! | `publisher`, `exchange`, `summary` | publishing many regions at once; one such publish until each is decided; its summary |
//! | `events`, `refused` | what who listens is told; what is said of a snapshot that is refused |
//! | `settling` | the end of a publish: the health key, the lock |
//! | `seeder` | who seeds: under a lock, from what is there to what is new |
//! | `reader` | reading snapshots back |
//! | `examine`, `judge` | looking at the server, for `doctor`; what it means |
//!
//! Its connections are those of the room `redis`.

mod connections;
mod events;
mod examine;
mod exchange;
mod judge;
mod keys;
mod outcome;
mod owners;
mod publisher;
mod reader;
mod refused;
mod script;
mod seeder;
mod settling;
mod summary;
mod target;

pub(super) use examine::examine;
pub use keys::{Keys, KeysError};
pub use outcome::{Extent, KeptRegion, Published};
pub use publisher::Publisher;
pub use reader::RedisSnapshots;
pub use seeder::{Begun, LockHolder, SeedTurn, Seeder};
pub use target::RedisTarget;
