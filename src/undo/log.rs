//! The format of the undo log: records, their sections and entries.
//!
//! A batch leaves one record, written in its own transaction. Of its blocks only those can still be rolled back that lie
//! within `rollback.depth` of its last one, so only those are in it. A record has two parts: a small *head* (JSON: which
//! blocks, with which hashes, which regions had events) and the *rows* as they were before (packed). Records follow each
//! other by the numbers of their batches; where one is missing, the log begins anew.
//!
//! The rows part is a sequence of sections, one for each region and table: the name of the table, its columns as they were
//! then (`name type, name type`), the region and the section's entries, each text or bytes after its length of 4 bytes. An
//! entry is the block that changed the row (8 bytes) and its before-image in packed form ([`crate::rows::codec`]), a row that
//! was not there as a deleted one.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::UndoError;
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::{BlockNo, EntityNo};
use crate::model::position::Position;
use crate::model::schema::{Column, Entity, Schema, parse_columns};
use crate::model::source_progress::{BlockSum, SourceDigest, SourceProgress};
use crate::model::value::ColumnType;
use crate::rows::codec::{Change, CodecError, Decoder, put_bytes};

/// Bytes of an entry before its row: the block.
const BLOCK_BYTES: usize = size_of::<i64>();

/// A block of the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMark {
    /// Its number.
    pub block: BlockNo,
    /// Its events.
    pub events: u64,
    /// Its hash, where the source gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Arc<str>>,
    /// The sum over its events; none if an earlier version handled them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<SourceDigest>,
    /// The place of its last event, where the source has places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<i64>,
    /// The position of the source after its last event, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

impl BlockMark {
    /// Goes on by later events of the block; `position` is that after the last of them, if it is known by now.
    pub fn append(&mut self, events: u64, sum: Option<BlockSum>, position: Option<Option<Position>>) {
        self.events += events;
        if let Some(position) = position {
            self.position = position;
        }
        if let Some(sum) = sum {
            self.sum = Some(self.sum.unwrap_or_default().plus(sum.digest));
            self.place = sum.place.or(self.place);
        }
    }
}

impl BlockMark {
    /// Goes on by what the next batch has of the block.
    pub(super) fn go_on(&mut self, later: &Self) {
        self.events += later.events;
        self.hash = self.hash.take().or_else(|| later.hash.clone());
        self.sum = self.sum.zip(later.sum).map(|(sum, later)| sum.plus(later));
        self.place = later.place.or(self.place);
        self.position.clone_from(&later.position);
    }
}

/// That a region had events in a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockTouch {
    /// The block.
    pub block: BlockNo,
    /// The region.
    pub region: Arc<str>,
    /// How many.
    pub events: u64,
    /// The block before it in which the region had any.
    pub before: Option<BlockNo>,
}

/// The last block before those of a record, and the counts as of its end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UndoBase {
    /// The block; none if the record's blocks are the first ones.
    pub block: Option<BlockNo>,
    /// Events of that block.
    pub block_events: u64,
    /// Blocks up to it.
    pub blocks: u64,
    /// Events up to it.
    pub events: u64,
    /// Its hash, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Arc<str>>,
    /// The position of the source after its last event, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// What of the source is committed up to it.
    #[serde(default, skip_serializing_if = "SourceProgress::is_unknown")]
    pub source: SourceProgress,
}

impl UndoBase {
    /// The end of what a checkpoint covers.
    pub fn at(checkpoint: &Checkpoint, hash: Option<Arc<str>>, source: SourceProgress) -> Self {
        let Checkpoint { block, block_events, blocks, events, .. } = *checkpoint;
        Self { block: block.map(BlockNo::new), block_events, blocks, events, hash, position: None, source }
    }

    /// The same, with the position of the source after its last event.
    #[must_use]
    pub fn with_position(self, position: Option<Position>) -> Self {
        Self { position, ..self }
    }

    /// Goes on by one block, or by a part of the last one that an earlier batch left.
    pub fn pass(&mut self, mark: &BlockMark) {
        let (is_part, sum) = (self.block == Some(mark.block), mark.sum);
        let plus = |before: Option<SourceDigest>| before.zip(sum).map(|(before, sum)| before.plus(sum));
        if self.block.is_none() {
            self.source.first_block = Some(mark.block.get());
        }
        self.block = Some(mark.block);
        self.block_events = mark.events + if is_part { self.block_events } else { 0 };
        self.blocks += u64::from(!is_part);
        self.events += mark.events;
        if !is_part || mark.hash.is_some() {
            self.hash.clone_from(&mark.hash);
        }
        self.position.clone_from(&mark.position);
        self.source.digest = plus(self.source.digest);
        self.source.block_digest = if is_part { plus(self.source.block_digest) } else { sum };
        self.source.place = mark.place.or(self.source.place.filter(|_| is_part));
    }

    pub(super) fn checkpoint(&self, batch: u64) -> Checkpoint {
        let Self { block, block_events, blocks, events, .. } = *self;
        Checkpoint { batch, block: block.map(BlockNo::get), block_events, blocks, events }
    }
}

/// The head of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UndoHead {
    /// The block that the record can go back to at most.
    pub base: UndoBase,
    /// The blocks after it, in order.
    pub blocks: Vec<BlockMark>,
    /// The regions that had events in them, for each region in the order of blocks.
    pub touches: Vec<BlockTouch>,
}

impl UndoHead {
    /// The last block of the record, and the counts as of its end.
    pub(super) fn end(&self) -> UndoBase {
        let mut end = self.base.clone();
        self.blocks.iter().for_each(|mark| end.pass(mark));
        end
    }
}

/// What a batch leaves so that it can be rolled back, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoRecord {
    /// The batch.
    pub batch: u64,
    /// The batch before it.
    pub before: u64,
    /// The checkpoint's block after it.
    pub last_block: Option<i64>,
    /// The head, as JSON.
    pub head: String,
    /// The before-images, packed. Empty where only heads were asked for.
    pub rows: Vec<u8>,
}

/// A record as it is stored.
pub fn record(batch: u64, before: u64, last_block: Option<i64>, head: &UndoHead, rows: Vec<u8>) -> UndoRecord {
    // Texts and numbers always have a JSON form.
    let head = serde_json::to_string(head).unwrap_or_default();
    UndoRecord { batch, before, last_block, head, rows }
}

/// A stored record whose head is read.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub(super) batch: u64,
    pub(super) before: u64,
    pub(super) head: UndoHead,
}

impl Logged {
    /// # Errors
    /// The head is not the JSON that it should be.
    pub(super) fn read(record: &UndoRecord) -> Result<Self, UndoError> {
        let head = serde_json::from_str(&record.head)
            .map_err(|error| UndoError::Malformed { batch: record.batch, cause: error.to_string() })?;
        Ok(Self { batch: record.batch, before: record.before, head })
    }

    /// Whether this record begins where the older one ends.
    pub(super) fn follows(&self, older: &Self) -> bool {
        let (base, end) = (&self.head.base, older.head.end());
        (base.block, base.blocks, base.events) == (end.block, end.blocks, end.events)
    }

    /// Whether the state as of block `to` can be made from this record and later ones.
    pub(super) fn reaches(&self, to: BlockNo) -> bool {
        self.head.base.block.is_none_or(|base| base <= to)
    }
}

/// Before-images of one region's rows in one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeforeImages {
    /// The region.
    pub region: Arc<str>,
    /// Entries: the block (8 bytes) and the row before it, packed. In the order of blocks for each id.
    pub entries: Vec<u8>,
}

/// Begins an entry: the packed row follows.
pub fn begin_entry(block: BlockNo, entries: &mut Vec<u8>) {
    entries.extend(block.get().to_le_bytes());
}

/// Appends an entry: the packed row before a block changed it.
pub fn push_row(block: BlockNo, packed: &[u8], entries: &mut Vec<u8>) {
    begin_entry(block, entries);
    entries.extend_from_slice(packed);
}

/// Appends an entry: there was no such row before the block wrote it.
pub fn push_absent(block: BlockNo, id: &str, entries: &mut Vec<u8>) {
    begin_entry(block, entries);
    put_bytes(entries, id.as_bytes());
    entries.push(Change::Deleted as u8);
    entries.extend([0; 8]);
}

/// Appends a section to the rows of a record.
pub fn push_section(entity: &Entity, region: &BeforeImages, rows: &mut Vec<u8>) {
    if region.entries.is_empty() {
        return;
    }
    put_bytes(rows, entity.name.as_bytes());
    put_bytes(rows, entity.columns_text().as_bytes());
    put_bytes(rows, region.region.as_bytes());
    put_bytes(rows, &region.entries);
}

/// A section of a record's rows.
#[derive(Debug)]
pub(super) struct Section<'r> {
    /// The number of the table in the schema.
    pub(super) entity: EntityNo,
    /// The table as it was when the section was written.
    pub(super) then: Entity,
    pub(super) region: Arc<str>,
    pub(super) entries: &'r [u8],
}

/// The sections of a record's rows. Nothing follows an error.
pub(super) fn sections<'r>(
    schema: &'r Schema,
    record: &'r UndoRecord,
) -> impl Iterator<Item = Result<Section<'r>, UndoError>> {
    let mut rest = record.rows.as_slice();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let section = take_section(schema, &mut rest);
        if section.is_err() {
            rest = &[];
        }
        Some(section.map_err(|cause| UndoError::Malformed { batch: record.batch, cause: cause.to_owned() }))
    })
}

fn take_section<'r>(schema: &Schema, rest: &mut &'r [u8]) -> Result<Section<'r>, &'static str> {
    let mut take = || {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        *rest = after;
        Some(bytes)
    };
    let (Some(entity), Some(columns), Some(region), Some(entries)) = (take(), take(), take(), take()) else {
        return Err("a section breaks off");
    };
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| "a name is not UTF-8");
    let (name, columns, region) = (text(entity)?, text(columns)?, Arc::from(text(region)?));
    // A table that is not in the schema any more cannot be: the store would have refused it.
    let entity = schema.entity(name).ok_or("a table that is not known")?;
    let then = entity_then(name, columns).ok_or("a column of a type that is not known")?;
    Ok(Section { entity, then, region, entries })
}

/// The table as it was when a section was written.
fn entity_then(name: &str, columns: &str) -> Option<Entity> {
    let column =
        |(name, kind): (&str, &str)| Some(Column { name: name.to_owned(), kind: ColumnType::from_name(kind)? });
    let columns = parse_columns(columns).into_iter().map(column).collect::<Option<Vec<_>>>()?;
    Some(Entity::new(name, columns))
}

/// The entries of a section: the block of each, and where its row lies.
pub(super) fn entries_of<'e>(
    entity: &'e Entity,
    entries: &'e [u8],
) -> impl Iterator<Item = Result<(BlockNo, Range<usize>), CodecError>> + 'e {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + BLOCK_BYTES;
        let block = i64::from_le_bytes(entries.get(at..start)?.try_into().ok()?);
        let mut decoder = Decoder::new(entity, entries, start);
        let skipped = decoder.skip();
        at = if skipped.is_ok() { decoder.at() } else { entries.len() };
        Some(skipped.map(|_| (BlockNo::new(block), start..at)))
    })
}

/// The entries of blocks up to `to`.
pub(super) fn entries_up_to(entity: &Entity, entries: &[u8], to: BlockNo) -> Result<Vec<u8>, CodecError> {
    let mut kept = Vec::new();
    for entry in entries_of(entity, entries) {
        let (block, at) = entry?;
        if block <= to {
            kept.extend_from_slice(&entries[at.start - BLOCK_BYTES..at.end]);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::super::test_samples::{entity, entry, mark, records};
    use super::*;

    #[test]
    fn a_head_lies_on_disk_as_this_json() {
        let base =
            UndoBase { block: Some(BlockNo::new(-5)), block_events: 1, blocks: 3, events: 7, ..UndoBase::default() };
        let touch = BlockTouch { block: BlockNo::new(10), region: Arc::from("r"), events: 2, before: None };
        let head = UndoHead { base, blocks: vec![mark(10)], touches: vec![touch] };
        let stored = record(4, 3, Some(10), &head, Vec::new());
        assert_eq!(
            stored.head,
            r#"{"base":{"block":-5,"block_events":1,"blocks":3,"events":7},"blocks":[{"block":10,"events":2,"hash":"h10","position":"p10"}],"touches":[{"block":10,"region":"r","events":2,"before":null}]}"#
        );
        assert_eq!(Logged::read(&stored).expect("a head").head, head);
    }

    #[test]
    fn what_is_pushed_is_read_back() {
        let (then, mut entries) = (entity(&["v"]), Vec::new());
        entry(&then, 7, "a", Some(1), &mut entries);
        let first = entries.len();
        entry(&then, 9, "b", None, &mut entries);
        let mut rows = Vec::new();
        push_section(&then, &BeforeImages { region: Arc::from("r"), entries: entries.clone() }, &mut rows);
        push_section(&then, &BeforeImages { region: Arc::from("nothing"), entries: Vec::new() }, &mut rows);
        let record = UndoRecord { batch: 4, before: 3, last_block: Some(9), head: String::new(), rows };
        // The table has another column now, and stands elsewhere.
        let other = Entity { name: "other".into(), ..entity(&["v"]) };
        let schema = Schema::new([other, entity(&["v", "new"])]).expect("a schema");
        let read: Vec<Section<'_>> = sections(&schema, &record).collect::<Result<_, _>>().expect("sections");
        let [section] = &read[..] else { panic!("{read:?}") };
        assert_eq!((section.entity, &section.then, &*section.region), (EntityNo::at(1), &then, "r"));
        assert_eq!(section.entries, entries);
        let found: Vec<_> = entries_of(&then, &entries).collect::<Result<_, _>>().expect("entries");
        assert_eq!(found, [(BlockNo::new(7), 8..first), (BlockNo::new(9), first + 8..entries.len())]);
        assert_eq!(entries_up_to(&then, &entries, BlockNo::new(8)).expect("entries"), entries[..first]);
    }

    #[test]
    fn rows_that_do_not_follow_the_format_are_refused() {
        let good = records(&entity(&["v"])).remove(0);
        let section = |texts: [&[u8]; 4]| {
            let mut rows = Vec::new();
            texts.iter().for_each(|text| put_bytes(&mut rows, text));
            rows
        };
        let broken = good.rows[..good.rows.len() - 1].to_vec();
        let schema = Schema::new([entity(&["v"])]).expect("a schema");
        for (rows, expected) in [
            (broken, "a section breaks off"),
            (section([b"\xff", b"v bigint", b"r", b""]), "a name is not UTF-8"),
            (section([b"gone", b"v bigint", b"r", b""]), "a table that is not known"),
            (section([b"thing", b"v uuid", b"r", b""]), "a column of a type that is not known"),
        ] {
            let record = UndoRecord { rows, ..good.clone() };
            let read: Vec<_> = sections(&schema, &record).collect();
            let malformed = UndoError::Malformed { batch: 5, cause: expected.to_owned() };
            assert_eq!(read.last().expect("one").as_ref().err(), Some(&malformed));
            assert_eq!(read.iter().filter(|section| section.is_err()).count(), 1);
        }
    }
}
