//! Planning a rollback: which rows, which checkpoint and what is left of the undo log bring a state back.
//!
//! Whoever plans one hands in how records are read; whoever commits writes the plan in one transaction.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::error::UndoError;
use super::log::{
    BeforeImages, Logged, Section, UndoHead, UndoRecord, entries_of, entries_up_to, push_section, record, sections,
};
use super::window::Window;
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::{BlockNo, Depth, EntityNo};
use crate::model::position::Position;
use crate::model::schema::{Column, Entity, Schema};
use crate::model::source_progress::SourceProgress;
use crate::rows::changes::RegionChanges;
use crate::rows::codec::{Decoder, ValueRef, encode_row};

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
    /// What of the source is committed up to the block.
    pub source: SourceProgress,
    /// The position of the source after it, if it is known.
    pub position: Option<Position>,
    /// For each entity of the schema, the rows as they were, ordered by region.
    pub changes: Vec<Vec<RegionChanges>>,
    /// What is left of the undo log, as the record of this batch.
    pub record: UndoRecord,
    /// Records that go and regions that are set back.
    pub undone: Undone,
}

impl RollbackPlan {
    /// Puts each region's rows into the form that the store writes.
    ///
    /// # Errors
    /// What `encode` says.
    pub fn encode<E>(&mut self, encode: impl Fn(EntityNo, RegionChanges) -> Result<RegionChanges, E>) -> Result<(), E> {
        for (entity, regions) in EntityNo::in_order().zip(&mut self.changes) {
            *regions =
                std::mem::take(regions).into_iter().map(|region| encode(entity, region)).collect::<Result<_, _>>()?;
        }
        Ok(())
    }
}

/// Plans a rollback from a checkpoint to block `to`; none if the checkpoint is not past it. `read` returns the stored records,
/// newest first, with the rows of batches from the given number on. It is called twice and must see the state of the
/// checkpoint both times.
///
/// # Errors
/// The undo log does not reach that far back, a record does not follow the format, or `read` failed.
pub fn plan_rollback<E: From<UndoError>>(
    checkpoint: Checkpoint,
    depth: Depth,
    schema: &Schema,
    to: BlockNo,
    mut read: impl FnMut(u64) -> Result<Vec<UndoRecord>, E>,
) -> Result<Option<RollbackPlan>, E> {
    let window = Window::new(checkpoint, depth, &read(u64::MAX)?)?;
    let Some(mut undo) = Undo::new(&window, to)? else { return Ok(None) };
    let first = undo.records_from();
    for record in read(first)?.iter().filter(|record| record.batch >= first) {
        undo.add(schema, record)?;
    }
    Ok(Some(undo.into_plan(schema)?))
}

/// A row as it is to be again.
struct RowBefore {
    block: BlockNo,
    /// The batch that changed it: two batches may have changed it in one block.
    batch: u64,
    packed: Vec<u8>,
}

/// A rollback that is being planned.
struct Undo {
    checkpoint: Checkpoint,
    to: BlockNo,
    /// The records that are needed, newest first. The last one may be kept in part.
    logged: Vec<Logged>,
    /// Entity, region and id of each row that changed since, and how it was.
    rows: HashMap<(EntityNo, Arc<str>), HashMap<String, RowBefore>>,
    /// The rows part of what is kept of the oldest record.
    kept: Vec<u8>,
}

impl Undo {
    fn new(window: &Window, to: BlockNo) -> Result<Option<Self>, UndoError> {
        let Some(logged) = window.records_to(to)? else { return Ok(None) };
        let (logged, checkpoint) = (logged.to_vec(), window.checkpoint());
        Ok(Some(Self { checkpoint, to, logged, rows: HashMap::new(), kept: Vec::new() }))
    }

    /// The first batch whose rows are needed.
    fn records_from(&self) -> u64 {
        self.logged.last().map_or(self.checkpoint.batch, |logged| logged.batch)
    }

    /// Takes in the rows of a record, in any order of records.
    fn add(&mut self, schema: &Schema, record: &UndoRecord) -> Result<(), UndoError> {
        let is_oldest = record.batch == self.records_from();
        for section in sections(schema, record) {
            let section = section?;
            self.add_section(&schema[section.entity], &section, record.batch)?;
            if is_oldest {
                let entries = entries_up_to(&section.then, section.entries, self.to)?;
                push_section(&section.then, &BeforeImages { region: section.region, entries }, &mut self.kept);
            }
        }
        Ok(())
    }

    fn add_section(&mut self, now: &Entity, section: &Section<'_>, batch: u64) -> Result<(), UndoError> {
        let Section { entity, then, region, entries } = section;
        let rows = self.rows.entry((*entity, Arc::clone(region))).or_default();
        let mut values = Vec::new();
        for entry in entries_of(then, entries) {
            let (block, at) = entry?;
            if block <= self.to {
                continue;
            }
            let head = Decoder::new(then, entries, at.start).row(&mut values)?;
            if rows.get(head.id).is_some_and(|row| (row.block, row.batch) <= (block, batch)) {
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
            rows.insert(head.id.to_owned(), RowBefore { block, batch, packed });
        }
        Ok(())
    }

    /// The rows, the checkpoint and what is left of the undo log that bring the state back.
    fn into_plan(self, schema: &Schema) -> Result<RollbackPlan, UndoError> {
        let records_from = self.records_from();
        let mut changes = vec![Vec::new(); schema.entities().len()];
        let tables: BTreeMap<_, _> = self.rows.into_iter().collect();
        for ((entity, region), rows) in tables {
            if !rows.is_empty() {
                let packed = rows.into_values().flat_map(|row| row.packed).collect();
                changes[entity.index()].push(RegionChanges::new(&schema[entity], region, packed)?);
            }
        }
        let regions = regions_undone(&self.logged, self.to);
        let number = self.checkpoint.batch + 1;
        let (mut head, mut before) = (UndoHead::default(), 0);
        if let Some(oldest) = self.logged.into_iter().next_back() {
            (head, before) = (oldest.head, oldest.before);
        }
        head.blocks.retain(|mark| mark.block <= self.to);
        head.touches.retain(|touch| touch.block <= self.to);
        let base = head.end();
        let after = base.checkpoint(number);
        Ok(RollbackPlan {
            before: self.checkpoint,
            after,
            hash: base.hash,
            source: base.source,
            position: base.position,
            changes,
            record: record(number, before, after.block, &head, self.kept),
            undone: Undone { to: self.to.get(), records_from, regions },
        })
    }
}

/// What each region that had events after block `to` is set back to.
fn regions_undone(logged: &[Logged], to: BlockNo) -> Vec<RegionUndo> {
    let mut regions: BTreeMap<Arc<str>, (BlockNo, RegionUndo)> = BTreeMap::new();
    let touches = logged.iter().flat_map(|logged| &logged.head.touches).filter(|touch| touch.block > to);
    for touch in touches {
        let before = touch.before.map(BlockNo::get);
        let fresh = || RegionUndo { region: Arc::clone(&touch.region), block: before, events: 0 };
        let (first, undo) = regions.entry(Arc::clone(&touch.region)).or_insert_with(|| (touch.block, fresh()));
        undo.events += touch.events;
        if touch.block < *first {
            (*first, undo.block) = (touch.block, before);
        }
    }
    regions.into_values().map(|(_, undo)| undo).collect()
}

#[cfg(test)]
mod tests {
    use super::super::test_samples::{checkpoint, entity, mark, records};
    use super::*;
    use crate::model::value::Value;
    use crate::rows::codec::Change;

    fn plan(schema: &Schema, to: i64) -> Result<Option<RollbackPlan>, UndoError> {
        let records = records(&entity(&["v"]));
        plan_rollback(checkpoint(), Depth::new(100), schema, BlockNo::new(to), |_| Ok::<_, UndoError>(records.clone()))
    }

    fn planned(schema: &Schema, to: i64) -> RollbackPlan {
        plan(schema, to).expect("kept").expect("to do")
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
        let back = planned(&schema, 15);
        assert_eq!(restored(&schema, &back), [("a".into(), None), ("b".into(), one(1))]);
        assert_eq!(back.after, Checkpoint { batch: 6, block: Some(15), block_events: 2, blocks: 6, events: 13 });
        assert_eq!(back.hash.as_deref(), Some("h15"));
        assert_eq!(back.position.as_ref().map(Position::as_str), Some("p15"));
        let undone = back.undone;
        assert_eq!((undone.records_from, undone.regions[0].events, undone.regions[0].block), (5, 2, Some(19)));
        // What is left of the record goes on from the one before.
        let kept = back.record;
        assert_eq!((kept.batch, kept.before), (6, 4));
        let head: UndoHead = serde_json::from_str(&kept.head).expect("a head");
        assert_eq!(head.blocks, [mark(15)]);
        // Between two blocks, before a batch, and before all that is kept.
        let back = planned(&schema, 14);
        assert_eq!(restored(&schema, &back), [("a".into(), one(150)), ("b".into(), one(1))]);
        assert_eq!((back.after.block, back.undone.records_from), (Some(12), 5));
        let back = planned(&schema, 9);
        assert_eq!(restored(&schema, &back), [("a".into(), one(100)), ("b".into(), one(1))]);
        assert_eq!((back.after.block, back.after.events), (Some(5), 7));
        // Of that block an earlier version left none.
        assert_eq!(back.position, None);
    }

    #[test]
    fn what_lies_ahead_needs_no_plan_and_what_lies_too_far_back_has_none() {
        let schema = Schema::new([entity(&["v"])]).expect("a schema");
        assert!(plan(&schema, 20).expect("kept").is_none() && plan(&schema, 99).expect("kept").is_none());
        assert_eq!(plan(&schema, 4).err(), Some(UndoError::Beyond { to: 4, oldest: Some(5), depth: 100 }));
    }

    #[test]
    fn a_column_that_was_added_since_was_null() {
        let schema = Schema::new([entity(&["new", "v"])]).expect("a schema");
        let row = Some(vec![Value::Null, Value::Bigint(100)]);
        assert_eq!(restored(&schema, &planned(&schema, 9))[0], ("a".into(), row));
    }

    #[test]
    fn only_the_rows_of_batches_that_are_needed_are_read() {
        let (schema, records) = (Schema::new([entity(&["v"])]).expect("a schema"), records(&entity(&["v"])));
        let mut asked = Vec::new();
        let read = |from| {
            asked.push(from);
            Ok::<_, UndoError>(records.clone())
        };
        plan_rollback(checkpoint(), Depth::new(100), &schema, BlockNo::new(15), read).expect("kept").expect("to do");
        assert_eq!(asked, [u64::MAX, 5]);
    }

    #[test]
    fn rows_are_encoded_where_the_store_wants_it() {
        let schema = Schema::new([entity(&["v"])]).expect("a schema");
        let mut back = planned(&schema, 9);
        back.encode(|entity, rows| {
            assert_eq!((entity, &*rows.region, rows.rows.len()), (EntityNo::at(0), "r", 2));
            Ok::<_, UndoError>(RegionChanges { region: rows.region, packed: vec![7], rows: Vec::new() })
        })
        .expect("it is encoded");
        assert_eq!(back.changes[0][0].packed, [7]);
    }
}
