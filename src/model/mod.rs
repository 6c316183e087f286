//! The nouns of the program: data and nothing else.
//!
//! Imports no other room. Whatever two rooms have to agree on is here, unless it is a machine or a connection.

pub mod address;
pub mod built;
pub(crate) mod byte_budget;
pub(crate) mod bytes;
pub mod cause;
#[cfg(feature = "redis")]
pub(crate) mod chance;
pub(crate) mod checkpoint;
pub(crate) mod column_type;
pub(crate) mod durations;
pub(crate) mod event;
pub(crate) mod field_type;
pub(crate) mod finding;
pub mod ids;
pub(crate) mod json_scan;
pub(crate) mod json_text;
pub(crate) mod judgement;
pub mod limits;
pub(crate) mod numeric;
pub(crate) mod position;
pub(crate) mod quarantine;
pub mod query;
pub(crate) mod schema;
pub mod setting;
pub(crate) mod source_progress;
pub mod text;
pub(crate) mod timestamp;
pub(crate) mod units;
pub(crate) mod value;
#[cfg(any(feature = "kafka", feature = "postgres", feature = "redis", feature = "serve", feature = "sqlite"))]
pub(crate) mod wait;
pub(crate) mod whole_text;
