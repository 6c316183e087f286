//! History: what rows were before a block changed them, so that a rollback can put them back.
//!
//! A batch leaves one record, written in its own transaction. Of its blocks only those can still be rolled back that lie
//! within `rollback.depth` of its last one, so only those are in it. A record has two parts: a small *head* (JSON: which
//! blocks, with which hashes, which regions had events) and the *rows* as they were before (packed). Records follow each
//! other by the numbers of their batches; where one is missing, history begins anew.
//!
//! The rows part is a sequence of sections, one for each region and table: the name of the table, its columns as they were
//! then (`name type, name type`), the region and the section's entries, each text or bytes behind its length of 4 bytes. An
//! entry is the block that changed the row (8 bytes) and the row before it in packed form ([`crate::rows::codec`]), a row that
//! was not there as a deleted one.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::checkpoint::Checkpoint;
use crate::model::schema::{Column, Entity, Schema, parse_columns};
use crate::model::value::ColumnType;
use crate::rows::changes::RegionChanges;
use crate::rows::codec::{Change, CodecError, Decoder, ValueRef, encode_row, put_bytes};

/// A block of the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMark {
    /// Its number.
    pub block: i64,
    /// Its events.
    pub events: u64,
    /// Its hash, where the source gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Arc<str>>,
}

/// That a region had events in a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockTouch {
    /// The block.
    pub block: i64,
    /// The region.
    pub region: Arc<str>,
    /// How many.
    pub events: u64,
    /// The block before it in which the region had any.
    pub before: Option<i64>,
}

/// The last block before those of a record, and the counts as of its end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HistoryBase {
    /// The block; none if the record's blocks are the first ones.
    pub block: Option<i64>,
    /// Events of that block.
    pub block_events: u64,
    /// Blocks up to it.
    pub blocks: u64,
    /// Events up to it.
    pub events: u64,
    /// Its hash, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Arc<str>>,
}

impl HistoryBase {
    /// The end of what a checkpoint covers.
    pub fn at(checkpoint: &Checkpoint, hash: Option<Arc<str>>) -> Self {
        let Checkpoint { block, block_events, blocks, events, .. } = *checkpoint;
        Self { block, block_events, blocks, events, hash }
    }

    /// Goes on by one block.
    pub fn pass(&mut self, mark: &BlockMark) {
        self.block = Some(mark.block);
        self.block_events = mark.events;
        self.blocks += 1;
        self.events += mark.events;
        self.hash.clone_from(&mark.hash);
    }

    fn checkpoint(&self, batch: u64) -> Checkpoint {
        let Self { block, block_events, blocks, events, .. } = *self;
        Checkpoint { batch, block, block_events, blocks, events }
    }
}

/// The head of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HistoryHead {
    /// The block that the record can go back to at most.
    pub base: HistoryBase,
    /// The blocks behind it, in order.
    pub blocks: Vec<BlockMark>,
    /// The regions that had events in them, for each region in the order of blocks.
    pub touches: Vec<BlockTouch>,
}

/// What a batch leaves so that it can be rolled back, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRecord {
    /// The batch.
    pub batch: u64,
    /// The batch before it.
    pub before: u64,
    /// The checkpoint's block after it.
    pub last_block: Option<i64>,
    /// The head, as JSON.
    pub head: String,
    /// The rows before, packed. Empty where only heads were asked for.
    pub rows: Vec<u8>,
}

/// Rows of one region in one table as they were before blocks changed them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionHistory {
    /// The region.
    pub region: Arc<str>,
    /// Entries: the block (8 bytes) and the row before it, packed. In the order of blocks for each id.
    pub entries: Vec<u8>,
}

/// Why nothing can be rolled back to a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The history that is kept does not reach so far back.
    #[error("{}", beyond_text(*.to, *.oldest, *.depth))]
    Beyond {
        /// The block.
        to: i64,
        /// The oldest block that is possible; none if nothing is committed.
        oldest: Option<i64>,
        /// `rollback.depth`.
        depth: u64,
    },
    /// A record that does not follow the format.
    #[error("the history of batch {batch} cannot be read: {cause}")]
    Malformed {
        /// The batch.
        batch: u64,
        /// What is wrong.
        cause: String,
    },
    /// A fault of this program.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

fn beyond_text(to: i64, oldest: Option<i64>, depth: u64) -> String {
    let Some(oldest) = oldest else {
        return format!("there is nothing to roll back to block {to}: nothing is committed");
    };
    match depth {
        0 => format!(
            "cannot roll back to block {to}: no history is kept (rollback.depth = 0); the oldest block possible is {oldest}. \
             Set rollback.depth for what comes, or index into a new store"
        ),
        _ => format!(
            "cannot roll back to block {to}: the oldest block possible is {oldest} (rollback.depth = {depth}). For an older \
             state index into a new store"
        ),
    }
}

/// Appends a section to the rows of a record.
pub fn push_section(entity: &Entity, region: &RegionHistory, rows: &mut Vec<u8>) {
    if region.entries.is_empty() {
        return;
    }
    put_bytes(rows, entity.name.as_bytes());
    put_bytes(rows, entity.columns_text().as_bytes());
    put_bytes(rows, region.region.as_bytes());
    put_bytes(rows, &region.entries);
}

/// One stored record, read.
#[derive(Debug, Clone)]
struct Known {
    batch: u64,
    before: u64,
    head: HistoryHead,
}

impl Known {
    fn read(record: &HistoryRecord) -> Result<Self, HistoryError> {
        let head = serde_json::from_str(&record.head)
            .map_err(|error| HistoryError::Malformed { batch: record.batch, cause: error.to_string() })?;
        Ok(Self { batch: record.batch, before: record.before, head })
    }

    /// Whether this record begins where the older one ends.
    fn follows(&self, older: &Self) -> bool {
        let mut end = older.head.base.clone();
        older.head.blocks.iter().for_each(|mark| end.pass(mark));
        let base = &self.head.base;
        (base.block, base.blocks, base.events) == (end.block, end.blocks, end.events)
    }

    /// Whether the state as of block `to` can be made from this record and later ones.
    fn reaches(&self, to: i64) -> bool {
        self.head.base.block.is_none_or(|base| base <= to)
    }
}

/// How far back a pipeline can go, and which blocks it holds.
#[derive(Debug, Clone, Default)]
pub struct Window {
    checkpoint: Checkpoint,
    depth: u64,
    /// The records that follow each other up to the checkpoint, newest first.
    known: Vec<Known>,
}

impl Window {
    /// The window at a checkpoint, from the heads that are stored, newest first.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn new(checkpoint: Checkpoint, depth: u64, records: &[HistoryRecord]) -> Result<Self, HistoryError> {
        let mut known: Vec<Known> = Vec::new();
        let mut next = checkpoint.batch;
        for record in records {
            if record.batch != next || next == 0 {
                break;
            }
            next = record.before;
            let older = Known::read(record)?;
            // A batch of more blocks than `depth` keeps none of its first ones: what is before them cannot be reached.
            if known.last().is_some_and(|newer| !newer.follows(&older)) {
                break;
            }
            known.push(older);
        }
        Ok(Self { checkpoint, depth, known })
    }

    /// The oldest block that can be rolled back to: the checkpoint's own if there is no history, none if nothing is
    /// committed.
    pub fn oldest(&self) -> Option<i64> {
        let tip = self.checkpoint.block?;
        let by_depth = tip.saturating_sub_unsigned(self.depth);
        Some(match self.known.last() {
            Some(last) => last.head.base.block.map_or(by_depth, |base| base.max(by_depth)),
            None => tip,
        })
    }

    /// The blocks that are held, in order, from the last one that can be gone back to.
    pub fn blocks(&self) -> Vec<BlockMark> {
        let mut blocks = Vec::new();
        if let Some(first) = self.known.last() {
            let HistoryBase { block, block_events, hash, .. } = &first.head.base;
            blocks.extend(block.map(|block| BlockMark { block, events: *block_events, hash: hash.clone() }));
        }
        blocks.extend(self.known.iter().rev().flat_map(|known| known.head.blocks.iter().cloned()));
        blocks
    }

    /// Whether blocks before the first one that is held are not known of.
    pub fn begins_later(&self) -> bool {
        self.known.last().is_none_or(|first| first.head.base.block.is_some())
    }

    /// Regions that had events in the window.
    pub fn regions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.known.iter().flat_map(|known| &known.head.touches).map(|touch| &touch.region)
    }

    /// What has to be undone to come to block `to`; none if the checkpoint is not behind it.
    ///
    /// # Errors
    /// History does not reach so far back.
    pub fn undo(&self, to: i64) -> Result<Option<Undo>, HistoryError> {
        if self.checkpoint.block.is_some_and(|tip| tip <= to) {
            return Ok(None);
        }
        let oldest = self.oldest();
        let reach = self.known.iter().position(|known| known.reaches(to));
        let Some(reach) = reach.filter(|_| oldest.is_some_and(|oldest| oldest <= to)) else {
            return Err(HistoryError::Beyond { to, oldest, depth: self.depth });
        };
        let known: Vec<Known> = self.known[..=reach].to_vec();
        Ok(Some(Undo { checkpoint: self.checkpoint, to, known, rows: HashMap::new(), kept: Vec::new() }))
    }
}

/// What a region is set back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionUndo {
    /// The region.
    pub region: Arc<str>,
    /// The last block that then had an event for it; none if none had.
    pub block: Option<i64>,
    /// Events that are taken back.
    pub events: u64,
}

/// What a rollback does beside writing rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The block as of which the state is to be.
    pub to: i64,
    /// Records of this batch and later ones go.
    pub records_from: u64,
    /// The regions that had events since.
    pub regions: Vec<RegionUndo>,
}

/// What a commit has to write to bring the state back to a block.
#[derive(Debug, Clone)]
pub struct RollbackPlan {
    /// The checkpoint that must be in the store before.
    pub before: Checkpoint,
    /// The checkpoint as of the block.
    pub after: Checkpoint,
    /// The hash of the checkpoint's block, if it is known.
    pub hash: Option<Arc<str>>,
    /// For each entity of the schema, the rows as they were, ordered by region.
    pub changes: Vec<Vec<RegionChanges>>,
    /// What is left of the undo log, as the record of this batch.
    pub record: HistoryRecord,
    /// Records that go and regions that are set back.
    pub undone: Undone,
}

/// A row as it is to be again.
struct RowBefore {
    block: i64,
    packed: Vec<u8>,
}

/// A rollback that is being prepared.
pub struct Undo {
    checkpoint: Checkpoint,
    to: i64,
    /// The records that are needed, newest first. The last one may be kept in part.
    known: Vec<Known>,
    /// Entity, region and id of each row that changed since, and how it was.
    rows: HashMap<(usize, Arc<str>), HashMap<String, RowBefore>>,
    /// The rows part of what is kept of the oldest record.
    kept: Vec<u8>,
}

impl Undo {
    /// The first batch whose rows are needed.
    pub fn records_from(&self) -> u64 {
        self.known.last().map_or(self.checkpoint.batch, |known| known.batch)
    }

    /// Takes in the rows of a record, in any order of records.
    ///
    /// # Errors
    /// They do not follow the format.
    pub fn add(&mut self, schema: &Schema, record: &HistoryRecord) -> Result<(), HistoryError> {
        let is_oldest = record.batch == self.records_from();
        let mut rest = record.rows.as_slice();
        while !rest.is_empty() {
            let malformed = |cause: &str| HistoryError::Malformed { batch: record.batch, cause: cause.to_owned() };
            let mut take = || {
                let (len, after) = rest.split_first_chunk::<4>()?;
                let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
                rest = after;
                Some(bytes)
            };
            let (Some(entity), Some(columns), Some(region), Some(entries)) = (take(), take(), take(), take()) else {
                return Err(malformed("a section breaks off"));
            };
            let text = |bytes| std::str::from_utf8(bytes).map_err(|_| malformed("a name is not UTF-8"));
            let (name, columns, region) = (text(entity)?, text(columns)?, Arc::from(text(region)?));
            // A table that is not in the schema any more cannot be: the store would have refused it.
            let Some(number) = schema.entity(name) else { return Err(malformed("a table that is not known")) };
            let then = entity_then(name, columns).ok_or_else(|| malformed("a column of a type that is not known"))?;
            self.add_section(number, &schema.entities()[number], &then, &region, entries)?;
            if is_oldest {
                let kept = RegionHistory { region, entries: entries_up_to(&then, entries, self.to)? };
                push_section(&then, &kept, &mut self.kept);
            }
        }
        Ok(())
    }

    fn add_section(
        &mut self,
        number: usize,
        now: &Entity,
        then: &Entity,
        region: &Arc<str>,
        entries: &[u8],
    ) -> Result<(), HistoryError> {
        let rows = self.rows.entry((number, Arc::clone(region))).or_default();
        let mut values = Vec::new();
        for entry in split(then, entries) {
            let (block, at) = entry?;
            if block <= self.to {
                continue;
            }
            let head = Decoder::new(then, entries, at.start).row(&mut values)?;
            if rows.get(head.id).is_some_and(|row| row.block <= block) {
                continue;
            }
            let mut packed = Vec::new();
            if now.columns == then.columns {
                packed.extend_from_slice(&entries[at]);
            } else {
                // A column that was added since was null.
                let place = |column: &Column| then.columns.iter().position(|old| old.name == column.name);
                let value = |column: &Column| place(column).and_then(|at| values.get(at).cloned());
                let row: Vec<ValueRef<'_>> =
                    now.columns.iter().map(|column| value(column).unwrap_or(ValueRef::Null)).collect();
                encode_row(now, head, &row, &mut packed);
            }
            rows.insert(head.id.to_owned(), RowBefore { block, packed });
        }
        Ok(())
    }

    /// The rows, the checkpoint and what is left of the undo log that bring the state back.
    ///
    /// # Errors
    /// A fault of this program.
    pub fn into_plan(self, schema: &Schema) -> Result<RollbackPlan, HistoryError> {
        let records_from = self.records_from();
        let mut changes = vec![Vec::new(); schema.entities().len()];
        let tables: BTreeMap<_, _> = self.rows.into_iter().collect();
        for ((entity, region), rows) in tables {
            if !rows.is_empty() {
                let packed = rows.into_values().flat_map(|row| row.packed).collect();
                changes[entity].push(RegionChanges::new(&schema.entities()[entity], region, packed)?);
            }
        }
        let regions = regions_undone(&self.known, self.to);
        let number = self.checkpoint.batch + 1;
        let (mut head, mut before) = (HistoryHead::default(), 0);
        if let Some(oldest) = self.known.into_iter().next_back() {
            (head, before) = (oldest.head, oldest.before);
        }
        head.blocks.retain(|mark| mark.block <= self.to);
        head.touches.retain(|touch| touch.block <= self.to);
        let mut base = head.base.clone();
        head.blocks.iter().for_each(|mark| base.pass(mark));
        let after = base.checkpoint(number);
        Ok(RollbackPlan {
            before: self.checkpoint,
            after,
            hash: base.hash,
            changes,
            record: record(number, before, after.block, &head, self.kept),
            undone: Undone { to: self.to, records_from, regions },
        })
    }
}

/// What each region that had events after block `to` is set back to.
fn regions_undone(known: &[Known], to: i64) -> Vec<RegionUndo> {
    let mut regions: BTreeMap<Arc<str>, (i64, RegionUndo)> = BTreeMap::new();
    let touches = known.iter().flat_map(|known| &known.head.touches).filter(|touch| touch.block > to);
    for touch in touches {
        let fresh = || RegionUndo { region: Arc::clone(&touch.region), block: touch.before, events: 0 };
        let (first, undo) = regions.entry(Arc::clone(&touch.region)).or_insert_with(|| (touch.block, fresh()));
        undo.events += touch.events;
        if touch.block < *first {
            (*first, undo.block) = (touch.block, touch.before);
        }
    }
    regions.into_values().map(|(_, undo)| undo).collect()
}

/// A record as it is stored.
pub fn record(batch: u64, before: u64, last_block: Option<i64>, head: &HistoryHead, rows: Vec<u8>) -> HistoryRecord {
    // Texts and numbers always have a JSON form.
    let head = serde_json::to_string(head).unwrap_or_default();
    HistoryRecord { batch, before, last_block, head, rows }
}

/// The table as it was when a section was written.
fn entity_then(name: &str, columns: &str) -> Option<Entity> {
    let column =
        |(name, kind): (&str, &str)| Some(Column { name: name.to_owned(), kind: ColumnType::from_name(kind)? });
    let columns = parse_columns(columns).into_iter().map(column).collect::<Option<Vec<_>>>()?;
    Some(Entity { name: name.to_owned(), columns, indexes: Vec::new() })
}

/// The entries of a section: the block of each, and where its row lies.
fn split<'e>(
    entity: &'e Entity,
    entries: &'e [u8],
) -> impl Iterator<Item = Result<(i64, Range<usize>), CodecError>> + 'e {
    let mut at = 0;
    std::iter::from_fn(move || {
        let block = i64::from_le_bytes(entries.get(at..at + 8)?.try_into().ok()?);
        let start = at + 8;
        let mut decoder = Decoder::new(entity, entries, start);
        let skipped = decoder.skip();
        at = if skipped.is_ok() { decoder.at() } else { entries.len() };
        Some(skipped.map(|_| (block, start..at)))
    })
}

/// The entries of blocks up to `to`.
fn entries_up_to(entity: &Entity, entries: &[u8], to: i64) -> Result<Vec<u8>, CodecError> {
    let mut kept = Vec::new();
    for entry in split(entity, entries) {
        let (block, at) = entry?;
        if block <= to {
            kept.extend_from_slice(&entries[at.start - 8..at.end]);
        }
    }
    Ok(kept)
}

/// Appends an entry: the row before a block changed it, or that there was none.
pub fn push_absent(block: i64, id: &str, entries: &mut Vec<u8>) {
    entries.extend(block.to_le_bytes());
    put_bytes(entries, id.as_bytes());
    entries.push(Change::Deleted as u8);
    entries.extend([0; 8]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::value::Value;
    use crate::rows::codec::{Head, Writer, encode_values};

    fn entity(columns: &[&str]) -> Entity {
        let column = |name: &&str| Column { name: (*name).to_owned(), kind: ColumnType::Bigint };
        Entity { name: "thing".into(), columns: columns.iter().map(column).collect(), indexes: Vec::new() }
    }

    fn entry(entity: &Entity, block: i64, id: &str, value: Option<i64>, entries: &mut Vec<u8>) {
        let Some(value) = value else { return push_absent(block, id, entries) };
        entries.extend(block.to_le_bytes());
        let head = Head { id, change: Change::Written, writer: Writer::default() };
        encode_values(entity, head, &[Value::Bigint(value)], entries);
    }

    fn mark(block: i64) -> BlockMark {
        BlockMark { block, events: 2, hash: Some(Arc::from(format!("h{block}"))) }
    }

    /// Two batches: blocks 10 and 12, then 15 and 20.
    fn records(entity: &Entity) -> Vec<HistoryRecord> {
        let mut base = HistoryBase { block: Some(5), block_events: 1, blocks: 3, events: 7, hash: None };
        let mut records = Vec::new();
        for (batch, blocks) in [(4, [10, 12]), (5, [15, 20])] {
            let touch = |block| BlockTouch { block, region: Arc::from("r"), events: 2, before: Some(block - 1) };
            let head = HistoryHead {
                base: base.clone(),
                blocks: blocks.map(mark).to_vec(),
                touches: blocks.map(touch).to_vec(),
            };
            blocks.iter().for_each(|block| base.pass(&mark(*block)));
            let mut entries = Vec::new();
            entry(entity, blocks[0], "a", Some(blocks[0] * 10), &mut entries);
            entry(entity, blocks[1], "a", None, &mut entries);
            entry(entity, blocks[1], "b", Some(1), &mut entries);
            let mut rows = Vec::new();
            push_section(entity, &RegionHistory { region: Arc::from("r"), entries }, &mut rows);
            records.insert(0, record(batch, batch - 1, Some(blocks[1]), &head, rows));
        }
        records
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { batch: 5, block: Some(20), block_events: 2, blocks: 7, events: 15 }
    }

    fn undo(schema: &Schema, to: i64) -> RollbackPlan {
        let records = records(&entity(&["v"]));
        let window = Window::new(checkpoint(), 100, &records).expect("a window");
        let mut undo = window.undo(to).expect("kept").expect("to do");
        let from = undo.records_from();
        for record in records.iter().filter(|record| record.batch >= from) {
            undo.add(schema, record).expect("rows");
        }
        undo.into_plan(schema).expect("a plan")
    }

    fn restored(schema: &Schema, plan: &RollbackPlan) -> Vec<(String, Option<Vec<Value>>)> {
        let entity = &schema.entities()[0];
        let mut found = Vec::new();
        for region in &plan.changes[0] {
            for row in &region.rows {
                let mut values = Vec::new();
                let head = Decoder::new(entity, &region.packed, row.start).row(&mut values).expect("a row");
                let row = (head.change != Change::Deleted).then(|| values.iter().map(ValueRef::to_value).collect());
                found.push((head.id.to_owned(), row));
            }
        }
        found
    }

    #[test]
    fn a_rollback_takes_the_oldest_state_after_the_block() {
        let schema = Schema::new([entity(&["v"])]).expect("a schema");
        let one = |value| Some(vec![Value::Bigint(value)]);
        let plan = undo(&schema, 15);
        assert_eq!(restored(&schema, &plan), [("a".into(), None), ("b".into(), one(1))]);
        assert_eq!(plan.after, Checkpoint { batch: 6, block: Some(15), block_events: 2, blocks: 6, events: 13 });
        assert_eq!(plan.hash.as_deref(), Some("h15"));
        let undone = plan.undone;
        assert_eq!((undone.records_from, undone.regions[0].events, undone.regions[0].block), (5, 2, Some(19)));
        // What is left of the record goes on from the one before.
        let kept = plan.record;
        assert_eq!((kept.batch, kept.before), (6, 4));
        let head: HistoryHead = serde_json::from_str(&kept.head).expect("a head");
        assert_eq!(head.blocks, [mark(15)]);
        // Between two blocks, before a batch, and before all that is kept.
        let plan = undo(&schema, 14);
        assert_eq!(restored(&schema, &plan), [("a".into(), one(150)), ("b".into(), one(1))]);
        assert_eq!((plan.after.block, plan.undone.records_from), (Some(12), 5));
        let plan = undo(&schema, 9);
        assert_eq!(restored(&schema, &plan), [("a".into(), one(100)), ("b".into(), one(1))]);
        assert_eq!((plan.after.block, plan.after.events), (Some(5), 7));
        let window = Window::new(checkpoint(), 100, &records(&entity(&["v"]))).expect("a window");
        assert_eq!(window.undo(4).err(), Some(HistoryError::Beyond { to: 4, oldest: Some(5), depth: 100 }));
        assert!(window.undo(20).expect("kept").is_none() && window.undo(99).expect("kept").is_none());
        assert_eq!(window.blocks().iter().map(|mark| mark.block).collect::<Vec<_>>(), [5, 10, 12, 15, 20]);
    }

    #[test]
    fn a_column_that_was_added_since_was_null() {
        let schema = Schema::new([entity(&["new", "v"])]).expect("a schema");
        let plan = undo(&schema, 9);
        let row = Some(vec![Value::Null, Value::Bigint(100)]);
        assert_eq!(restored(&schema, &plan)[0], ("a".into(), row));
    }

    #[test]
    fn history_begins_anew_where_a_batch_left_none() {
        let mut records = records(&entity(&["v"]));
        records[1].batch = 3;
        let window = Window::new(checkpoint(), 100, &records).expect("a window");
        assert_eq!(window.oldest(), Some(12));
        assert!(window.undo(11).is_err() && window.undo(12).expect("kept").is_some());
        records[0].batch = 4;
        let window = Window::new(checkpoint(), 100, &records).expect("a window");
        assert_eq!(window.oldest(), Some(20));
    }

    #[test]
    fn blocks_that_a_large_batch_did_not_keep_end_the_history() {
        let mut records = records(&entity(&["v"]));
        let mut head: HistoryHead = serde_json::from_str(&records[0].head).expect("a head");
        head.base = HistoryBase { block: Some(14), block_events: 1, blocks: 9, events: 20, hash: None };
        records[0].head = serde_json::to_string(&head).expect("a head");
        let window = Window::new(checkpoint(), 100, &records).expect("a window");
        assert_eq!(window.oldest(), Some(14));
        assert!(window.undo(13).is_err() && window.undo(14).expect("kept").is_some());
        assert_eq!(window.blocks().iter().map(|mark| mark.block).collect::<Vec<_>>(), [14, 15, 20]);
    }

    #[test]
    fn depth_bounds_what_can_be_undone() {
        let window = Window::new(checkpoint(), 6, &records(&entity(&["v"]))).expect("a window");
        assert_eq!(window.oldest(), Some(14));
        assert_eq!(window.undo(13).err(), Some(HistoryError::Beyond { to: 13, oldest: Some(14), depth: 6 }));
        assert!(window.undo(14).is_ok());
    }
}
