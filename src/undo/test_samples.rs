//! Records that the tests of this room share.

use std::sync::Arc;

use super::log::{
    BeforeImages, BlockMark, BlockTouch, UndoBase, UndoHead, UndoRecord, begin_entry, push_absent, push_section, record,
};
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::BlockNo;
use crate::model::position::Position;
use crate::model::schema::{Column, Entity};
use crate::model::value::{ColumnType, Value};
use crate::rows::codec::{Change, RowHead, Writer, encode_values};

pub(super) fn entity(columns: &[&str]) -> Entity {
    let column = |name: &&str| Column { name: (*name).to_owned(), kind: ColumnType::Bigint };
    Entity::new("thing", columns.iter().map(column))
}

pub(super) fn entry(entity: &Entity, block: i64, id: &str, value: Option<i64>, entries: &mut Vec<u8>) {
    let Some(value) = value else { return push_absent(block.into(), id, entries) };
    begin_entry(block.into(), entries);
    let head = RowHead { id, change: Change::Written, writer: Writer::default() };
    encode_values(entity, head, &[Value::Bigint(value)], entries);
}

pub(super) fn mark(block: i64) -> BlockMark {
    BlockMark {
        block: BlockNo::new(block),
        events: 2,
        hash: Some(Arc::from(format!("h{block}"))),
        sum: None,
        place: None,
        position: Some(Position::new(format!("p{block}")).expect("a position")),
    }
}

/// Two batches, the newest first: blocks 15 and 20, and before them 10 and 12.
pub(super) fn records(entity: &Entity) -> Vec<UndoRecord> {
    let mut base =
        UndoBase { block: Some(BlockNo::new(5)), block_events: 1, blocks: 3, events: 7, ..UndoBase::default() };
    let mut records = Vec::new();
    for (batch, blocks) in [(4, [10, 12]), (5, [15, 20])] {
        let touch = |block| {
            let (block, before) = (BlockNo::new(block), Some(BlockNo::new(block - 1)));
            BlockTouch { block, region: Arc::from("r"), events: 2, before }
        };
        let head =
            UndoHead { base: base.clone(), blocks: blocks.map(mark).to_vec(), touches: blocks.map(touch).to_vec() };
        blocks.iter().for_each(|block| base.pass(&mark(*block)));
        let mut entries = Vec::new();
        entry(entity, blocks[0], "a", Some(blocks[0] * 10), &mut entries);
        entry(entity, blocks[1], "a", None, &mut entries);
        entry(entity, blocks[1], "b", Some(1), &mut entries);
        let mut rows = Vec::new();
        push_section(entity, &BeforeImages { region: Arc::from("r"), entries }, &mut rows);
        records.insert(0, record(batch, batch - 1, Some(blocks[1]), &head, rows));
    }
    records
}

/// The checkpoint after them.
pub(super) fn checkpoint() -> Checkpoint {
    Checkpoint { batch: 5, block: Some(20), block_events: 2, blocks: 7, events: 15 }
}
