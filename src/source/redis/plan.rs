//! Which stream is read, and how its entries become events.

use std::time::Duration;

use crate::model::limits::REDIS_TIMEOUT;
use crate::model::setting::SettingError;
use crate::redis::RedisUrl;

/// What the block of an entry of a Redis stream, or of a record of Kafka, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EntryBlock {
    /// The field of the event that says so.
    #[default]
    Field,
    /// The milliseconds of the entry's id, and the number behind them is its place within the block; the milliseconds of
    /// the record's time, and its offset is the place.
    Time,
    /// The entry's id as one number, milliseconds × 1,000,000 + number; the record's offset. Each is a block of its own.
    Offset,
}

/// A Redis stream as a source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStreamPlan {
    /// Where Redis is.
    pub url: RedisUrl,
    /// The key of the stream.
    pub stream: String,
    /// The entry's field that holds the event. Defaults to none: all fields are one event, an object of texts.
    pub field: Option<String>,
    /// What the block of an entry is. Defaults to the event's field.
    pub block: EntryBlock,
    /// Whether entries before the last one that is committed are taken out of the stream. Defaults to no.
    pub trims: bool,
    /// Whether it is read on at its end. Defaults to no.
    pub follows: bool,
    /// How long connecting may take, and how long the server may be silent. Defaults to 5 s.
    pub timeout: Duration,
}

impl RedisStreamPlan {
    /// A plan with everything at its default.
    ///
    /// # Errors
    /// The stream's name is empty.
    pub fn new(url: RedisUrl, stream: impl Into<String>) -> Result<Self, SettingError> {
        Ok(Self {
            url,
            stream: SettingError::unless_empty("stream", stream)?,
            field: None,
            block: EntryBlock::default(),
            trims: false,
            follows: false,
            timeout: REDIS_TIMEOUT,
        })
    }

    /// The entry's field that holds the event.
    ///
    /// # Errors
    /// The name is empty.
    pub fn with_field(self, field: impl Into<String>) -> Result<Self, SettingError> {
        Ok(Self { field: Some(SettingError::unless_empty("field", field)?), ..self })
    }

    /// What the block of an entry is.
    #[must_use]
    pub fn with_block(self, block: EntryBlock) -> Self {
        Self { block, ..self }
    }

    /// Whether it is read on at its end.
    #[must_use]
    pub fn with_follow(self, follows: bool) -> Self {
        Self { follows, ..self }
    }
}
