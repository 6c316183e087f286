//! Events from a Redis stream.
//!
//! | file | holds |
//! |---|---|
//! | `plan` | which stream, and how its entries become events |
//! | `entry` | entries, their ids, and the anchor: the last one that was read |
//! | `stream` | asking for entries; a server that is away or has moved |
//! | `fetch` | fetching them ahead |
//! | `trim` | taking out what is committed |
//!
//! There is no consumer group: what was read is what is committed. The position of an event is the id of its entry and a
//! digest of it, which must be there again when what follows is read: so entries that were taken out unread, and a stream
//! that was made anew, are found.

mod entry;
mod fetch;
mod plan;
mod stream;
mod trim;

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;

use entry::{Anchor, Entry};
pub use plan::{EntryBlock, RedisStreamPlan};
use stream::name_of;
use trim::Trimmer;

use super::ahead::{Ahead, Taken};
use super::event_head::Piece;
use super::format::event::EventReader;
use super::{Acknowledge, Fields, Next, Position, Resumed, Source, SourceError, SourceEvent};

const PIECE: Piece = Piece { name: "entry", rule: "one event an entry" };

/// Events from a Redis stream.
pub struct RedisStream {
    plan: RedisStreamPlan,
    origin: Arc<str>,
    reader: EventReader,
    /// Where it begins.
    anchor: Option<Anchor>,
    ahead: Option<Ahead<Entry>>,
    bytes_read: u64,
    position: String,
}

impl RedisStream {
    /// Connects to nothing yet.
    pub fn new(plan: RedisStreamPlan, fields: Fields) -> Self {
        let fields = if plan.block == EntryBlock::Field { fields } else { fields.without_block() };
        Self {
            origin: Arc::from(name_of(&plan)),
            reader: EventReader::new(fields, PIECE),
            plan,
            anchor: None,
            ahead: None,
            bytes_read: 0,
            position: String::new(),
        }
    }

    /// The entry that comes next, or what there is instead.
    fn take(&mut self) -> Result<Taken<Entry>, SourceError> {
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

    /// Makes an event of an entry; one that is none is refused.
    fn fill(&mut self, entry: &Entry, event: &mut SourceEvent) -> Result<(), SourceError> {
        if !Arc::ptr_eq(&event.origin, &self.origin) {
            event.origin = Arc::clone(&self.origin);
        }
        event.line = entry.id.millis;
        match &self.plan.field {
            Some(name) => self.read_field(name, entry, event),
            None => self.read_all(entry, event),
        }
        if let Err(error) = self.place(entry, event) {
            self.reader.refuse(entry.shown().as_bytes(), error, event);
        }
        if let Some(refused) = &mut event.refused {
            refused.error = format!("entry {}: {}", entry.id, refused.error);
        }
        self.bytes_read += entry.bytes() as u64;
        self.position.clear();
        // Writing to a text cannot fail.
        let _ = write!(self.position, "{}", Anchor::of(entry));
        event.set_position(&self.position)?;
        Ok(())
    }

    fn read_field(&self, name: &str, entry: &Entry, event: &mut SourceEvent) {
        let mut found = entry.fields().filter(|(field, _)| *field == name.as_bytes()).map(|(_, value)| value);
        let error = match (found.next(), found.next()) {
            (Some(value), None) => return self.reader.read_json(value, event),
            (Some(_), Some(_)) => format!("the field {name:?} is there more than once"),
            (None, _) => {
                let names: Vec<_> = entry.fields().map(|(field, _)| String::from_utf8_lossy(field)).collect();
                format!("there is no field {name:?}, which holds the event; it has {}", names.join(", "))
            }
        };
        self.reader.refuse(entry.shown().as_bytes(), error, event);
    }

    fn read_all(&self, entry: &Entry, event: &mut SourceEvent) {
        let mut texts = Vec::new();
        let mut names = HashSet::new();
        for (name, value) in entry.fields() {
            let text = |bytes| std::str::from_utf8(bytes);
            let error = match (text(name), text(value)) {
                (Ok(name), Ok(value)) if names.insert(name) => {
                    texts.push((name, value));
                    continue;
                }
                (Ok(name), Ok(_)) => format!("the field {name:?} is there more than once"),
                (Err(_), _) => format!("the name {:?} is not UTF-8", String::from_utf8_lossy(name)),
                (_, Err(error)) => {
                    let name = String::from_utf8_lossy(name);
                    format!("the field {name:?} is not UTF-8 (byte {})", error.valid_up_to() + 1)
                }
            };
            return self.reader.refuse(entry.shown().as_bytes(), error, event);
        }
        self.reader.read_texts(texts, event);
    }

    /// Puts in the block that the entry's id says.
    fn place(&self, entry: &Entry, event: &mut SourceEvent) -> Result<(), String> {
        (event.block, event.seq) = match self.plan.block {
            EntryBlock::Field => return Ok(()),
            EntryBlock::Offset => (entry.id.as_one_number()?, event.seq),
            EntryBlock::Time => {
                let number = |part: u64| i64::try_from(part).map_err(|_| "its id is beyond 63 bits".to_owned());
                (number(entry.id.millis)?, Some(number(entry.id.number)?))
            }
        };
        if let Some(refused) = &mut event.refused {
            refused.has_block = true;
        }
        Ok(())
    }
}

impl Source for RedisStream {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        let entry = match self.take()? {
            Taken::Piece(entry) => entry,
            Taken::Next(next) => return Ok(next),
        };
        self.fill(&entry, event)?;
        // Each entry is a block of its own.
        if let Some(ahead) = self.ahead.as_mut().filter(|_| self.plan.block == EntryBlock::Offset) {
            ahead.note_whole(event);
        }
        Ok(Next::Event)
    }

    fn trouble(&self) -> Option<String> {
        self.ahead.as_ref().and_then(Ahead::trouble)
    }

    fn resume(&mut self, after: &Position) -> Result<Resumed, SourceError> {
        let anchor = Anchor::parse(after.as_str());
        self.anchor = Some(anchor.ok_or_else(|| {
            SourceError::Other(format!(
                "{}: the position {after:?} that is committed is none of a Redis stream: this pipeline has read another \
                 source; give the pipeline another name",
                self.origin
            ))
        })?);
        Ok(Resumed::After)
    }

    fn acknowledger(&mut self) -> Result<Option<Box<dyn Acknowledge>>, SourceError> {
        if !self.plan.trims {
            return Ok(None);
        }
        let trimmer = Trimmer::new(&self.plan);
        let trimmer = trimmer.map_err(|cause| SourceError::Other(format!("{}: {cause}", self.origin)))?;
        Ok(Some(Box::new(trimmer)))
    }

    fn is_ready(&self) -> bool {
        self.ahead.as_ref().is_some_and(Ahead::is_ready)
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}
