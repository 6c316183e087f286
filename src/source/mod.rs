//! Sources: where events come from, in order.
//!
//! A source yields one event at a time and knows no lane and no store. The reader thread (`reader`) checks the order
//! (`order`), skips what is committed already (`skip_committed`), follows forks (`forks` judges, `block_chain` holds the
//! blocks), and hands pages of events over a bounded channel, within a budget of bytes (`page_writer`). A source of one's
//! own implements `contract`.

#[cfg_attr(not(any(feature = "kafka", feature = "redis")), allow(dead_code, reason = "only streams do"))]
mod ahead;
mod allowed_regions;
mod block_chain;
mod command;
mod comparison;
mod contents;
mod contract;
mod copies;
mod digest;
mod event_head;
mod fields;
mod file_log;
mod files;
mod follow;
mod foreign;
mod forks;
mod format;
mod growing;
mod input;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(not(feature = "kafka"))]
#[path = "no_kafka.rs"]
mod kafka;
mod merged;
mod names;
mod order;
mod page_writer;
mod patience;
pub(crate) mod reader;
#[cfg(feature = "redis")]
mod redis;
#[cfg(not(feature = "redis"))]
#[path = "no_redis.rs"]
mod redis;
mod refused;
mod settings;
mod skip_committed;
mod stats;
#[cfg_attr(not(any(feature = "kafka", feature = "redis")), allow(dead_code, reason = "only streams do"))]
mod trouble;
mod unpack;
mod walk;

pub use crate::model::position::{Position, PositionError};
pub use crate::model::source_progress::{FileStamp, FileTail, SourceDigest, SourceFile};
pub use command::{CommandPlan, CommandSource};
pub use contract::{Acknowledge, Next, Resumed, Source, SourceError, SourceEvent};
pub use fields::Fields;
pub use files::SourcePath;
pub use format::{Delimiter, Format};
pub use input::InputSource;
pub use kafka::{KafkaPlan, KafkaTopic};
pub use order::{End, Late};
pub use redis::{EntryBlock, RedisStream, RedisStreamPlan};
pub use settings::{RegionsConfig, SourceConfig};
pub use walk::InputFile;
