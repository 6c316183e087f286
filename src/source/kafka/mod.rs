//! Events from a topic of Kafka.
//!
//! | file | holds |
//! |---|---|
//! | `plan` | which topic, how its records become events, what is passed to librdkafka |
//! | `record` | records, and the anchor: the last one that was read |
//! | `partition` | where the partition begins and ends, and what lies behind the anchor |
//! | `fetch` | fetching records ahead; servers that are away |
//! | `commit` | telling a consumer group what is committed |
//!
//! No group says where to begin: what was read is what is committed. The position of an event is its partition, its offset
//! and a digest of its record. If that record is still there, it must be the same; and the partition may not begin behind
//! it: so records that were taken out unread, and a topic that was made anew, are found. Gaps between offsets are what
//! compaction and transactions leave, and say nothing.

mod commit;
mod fetch;
mod partition;
mod plan;
mod record;

use std::fmt::Write;
use std::sync::Arc;

use commit::Group;
use partition::{settings_of, shown};
pub use plan::KafkaPlan;
use record::{Anchor, Record};

use super::ahead::{Ahead, Taken};
use super::event_head::Piece;
use super::format::event::EventReader;
use super::{Acknowledge, EntryBlock, Fields, Next, Position, Resumed, Source, SourceError, SourceEvent};
use crate::model::setting::SettingError;

const PIECE: Piece = Piece { name: "record", rule: "one event a record" };

/// What reads Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Driver;

impl Driver {
    #[expect(clippy::unnecessary_wraps, reason = "a build without Kafka has none")]
    fn new() -> Result<Self, SettingError> {
        Ok(Self)
    }

    /// Whether librdkafka takes the settings.
    fn check(self, plan: &KafkaPlan) -> Result<(), SettingError> {
        settings_of(plan).create_native_config().map(drop).map_err(|error| SettingError::new(shown(&error)))
    }
}

/// Events from a topic of Kafka.
pub struct KafkaTopic {
    plan: KafkaPlan,
    origin: Arc<str>,
    /// The partition in a position, such as `events/0`.
    name: String,
    reader: EventReader,
    /// Where it begins.
    anchor: Option<Anchor>,
    ahead: Option<Ahead<Record>>,
    bytes_read: u64,
    position: String,
}

impl KafkaTopic {
    /// Connects to nothing yet.
    pub fn new(plan: KafkaPlan, fields: Fields) -> Self {
        let fields = if plan.block == EntryBlock::Field { fields } else { fields.without_block() };
        Self {
            origin: Arc::from(plan.name()),
            name: format!("{}/{}", plan.topic, plan.number()),
            reader: EventReader::new(fields, PIECE),
            plan,
            anchor: None,
            ahead: None,
            bytes_read: 0,
            position: String::new(),
        }
    }

    /// The record that comes next, or what there is instead.
    fn take(&mut self) -> Result<Taken<Record>, SourceError> {
        let ahead = match &mut self.ahead {
            Some(ahead) => ahead,
            None => {
                let started = fetch::start(&self.plan, self.anchor);
                let started = started.map_err(|cause| SourceError::Other(format!("{}: {cause}", self.origin)))?;
                self.ahead.insert(started)
            }
        };
        ahead.take()
    }

    /// Makes an event of a record; one that is none is refused.
    fn fill(&mut self, record: &Record, event: &mut SourceEvent) -> Result<(), SourceError> {
        if !Arc::ptr_eq(&event.origin, &self.origin) {
            event.origin = Arc::clone(&self.origin);
        }
        event.line = u64::try_from(record.offset).unwrap_or_default();
        match &record.value {
            Some(value) => self.reader.read_json(value, event),
            None => self.reader.refuse(b"", "the record has no value".into(), event),
        }
        if let Err(error) = self.place(record, event) {
            self.reader.refuse(record.value.as_deref().unwrap_or_default(), error, event);
        }
        if let Some(refused) = &mut event.refused {
            let number = self.plan.number();
            refused.error = format!("partition {number}, offset {}: {}", record.offset, refused.error);
        }
        self.bytes_read += record.bytes() as u64;
        self.position.clear();
        // Writing to a text cannot fail.
        let _ = write!(self.position, "{} {}", self.name, Anchor::of(record));
        event.set_position(&self.position)?;
        Ok(())
    }

    /// Puts in the block that the record says.
    fn place(&self, record: &Record, event: &mut SourceEvent) -> Result<(), String> {
        (event.block, event.seq) = match self.plan.block {
            EntryBlock::Field => return Ok(()),
            EntryBlock::Offset => (record.offset, event.seq),
            EntryBlock::Time => {
                let millis = record.millis.ok_or(
                    "the record has no time, which block = \"@time\" asks for: take block = \"@offset\", or a field",
                )?;
                (millis, Some(record.offset))
            }
        };
        if let Some(refused) = &mut event.refused {
            refused.has_block = true;
        }
        Ok(())
    }
}

impl Source for KafkaTopic {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        let record = match self.take()? {
            Taken::Piece(record) => record,
            Taken::Next(next) => return Ok(next),
        };
        self.fill(&record, event)?;
        // Each record is a block of its own.
        if let Some(ahead) = self.ahead.as_mut().filter(|_| self.plan.block == EntryBlock::Offset) {
            ahead.note_whole(event);
        }
        Ok(Next::Event)
    }

    fn resume(&mut self, after: &Position) -> Result<Resumed, SourceError> {
        let refused = |is: &str| {
            SourceError::Other(format!(
                "{}: the position {after:?} that is committed is {is}: this pipeline has read another source; give the \
                 pipeline another name",
                self.origin
            ))
        };
        let (partition, anchor) = Anchor::parse(after.as_str()).ok_or_else(|| refused("none of a topic of Kafka"))?;
        if partition != self.name {
            return Err(refused("one of another partition"));
        }
        self.anchor = Some(anchor);
        Ok(Resumed::After)
    }

    fn acknowledger(&mut self) -> Result<Option<Box<dyn Acknowledge>>, SourceError> {
        if self.plan.group().is_none() {
            return Ok(None);
        }
        let group = Group::new(&self.plan, &self.name);
        Ok(Some(Box::new(group.map_err(|cause| SourceError::Other(format!("{}: {cause}", self.origin)))?)))
    }

    fn trouble(&self) -> Option<String> {
        self.ahead.as_ref().and_then(Ahead::trouble)
    }

    fn is_ready(&self) -> bool {
        self.ahead.as_ref().is_some_and(Ahead::is_ready)
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}
