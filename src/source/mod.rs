//! Sources: where events come from, in order.
//!
//! A source yields one event at a time and knows no lane and no store. The reader thread (`reader`) checks the order
//! (`order`), skips what is committed already (`skip_committed`), follows forks (`forks` judges, `block_chain` holds the
//! blocks), and hands pages of events over a bounded channel, within a budget of bytes (`page_writer`). A source of one's
//! own implements `contract`.

mod allowed_regions;
mod block_chain;
mod contract;
mod event_head;
mod fields;
mod files;
mod forks;
mod ndjson;
mod order;
mod page_writer;
pub(crate) mod reader;
mod refused;
mod skip_committed;
mod stats;

pub use crate::model::position::{Position, PositionError};
pub use contract::{Next, Resumed, Source, SourceError, SourceEvent};
pub use fields::Fields;
pub use files::SourcePath;
pub use ndjson::NdjsonSource;
pub use order::Late;
