//! The undo log: one record per batch, by which it can be rolled back.

use std::sync::Arc;

use rusqlite::{Connection, Transaction};

use crate::batch::SealedBatch;
use crate::model::limits::HISTORY_PRUNE_RECORDS_MAX;
use crate::store::sql::{signed, unsigned};
use crate::undo::{UndoRecord, Undone};

pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS forebay_history (
    pipeline TEXT NOT NULL, batch INTEGER NOT NULL, before INTEGER NOT NULL, last_block INTEGER,
    head TEXT NOT NULL, rows BLOB NOT NULL,
    PRIMARY KEY (pipeline, batch)
) STRICT;
";

/// The records, newest first; the rows only of batches from `rows_from` on.
pub(super) fn read(connection: &Connection, pipeline: &str, rows_from: u64) -> rusqlite::Result<Vec<UndoRecord>> {
    let sql = "SELECT batch, before, last_block, head, CASE WHEN batch >= ?2 THEN rows ELSE x'' END
               FROM forebay_history WHERE pipeline = ?1 ORDER BY batch DESC";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map((pipeline, signed(rows_from)), |row| {
        Ok(UndoRecord {
            batch: unsigned(row.get(0)?),
            before: unsigned(row.get(1)?),
            last_block: row.get(2)?,
            head: row.get(3)?,
            rows: row.get(4)?,
        })
    })?;
    rows.collect()
}

/// Each region and the last block that had an event for it.
pub(super) fn region_blocks(connection: &Connection, pipeline: &str) -> rusqlite::Result<Vec<(Arc<str>, i64)>> {
    let mut statement =
        connection.prepare("SELECT region, block FROM forebay_regions WHERE pipeline = ?1 AND events > 0")?;
    let rows = statement.query_map([pipeline], |row| Ok((Arc::from(row.get::<_, String>(0)?), row.get(1)?)))?;
    rows.collect()
}

/// Regions that were set back, had a snapshot before, and none since.
pub(super) fn set_back_regions(connection: &Connection, pipeline: &str) -> rusqlite::Result<Vec<Arc<str>>> {
    let sql = "SELECT region FROM forebay_regions WHERE pipeline = ?1 AND snapshot_block IS NULL AND seq > 0";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([pipeline], |row| Ok(Arc::from(row.get::<_, String>(0)?)))?;
    rows.collect()
}

/// Writes what the batch leaves, and lets a few records go that no rollback can need any more.
pub(super) fn write(transaction: &Transaction<'_>, pipeline: &str, batch: &SealedBatch) -> rusqlite::Result<()> {
    if let Some(undone) = &batch.undone {
        undo(transaction, pipeline, undone, batch)?;
    }
    if let Some(UndoRecord { batch, before, last_block, head, rows }) = &batch.undo {
        transaction.prepare_cached("INSERT INTO forebay_history VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute((
            pipeline,
            signed(*batch),
            signed(*before),
            last_block,
            head,
            rows,
        ))?;
    }
    if let Some(floor) = batch.undo_floor {
        let sql = format!(
            "DELETE FROM forebay_history WHERE (pipeline, batch) IN (
               SELECT pipeline, batch FROM forebay_history WHERE pipeline = ?1 AND batch < ?2
                 AND (last_block IS NULL OR last_block <= ?3)
               ORDER BY batch LIMIT {HISTORY_PRUNE_RECORDS_MAX})"
        );
        transaction.prepare_cached(&sql)?.execute((pipeline, signed(batch.after.batch), floor))?;
    }
    Ok(())
}

/// Takes back what the rows of the batch do not: records, and what is known of regions.
fn undo(transaction: &Transaction<'_>, pipeline: &str, undone: &Undone, batch: &SealedBatch) -> rusqlite::Result<()> {
    transaction.execute(
        "DELETE FROM forebay_history WHERE pipeline = ?1 AND batch >= ?2",
        (pipeline, signed(undone.records_from)),
    )?;
    // What a snapshot covered behind the block is not covered any more, also where no event was taken back.
    transaction.execute(
        "UPDATE forebay_regions SET snapshot_block = ?2 WHERE pipeline = ?1 AND snapshot_block > ?2",
        (pipeline, undone.to),
    )?;
    // A region that no event has any more stays, for its numbers must not begin again.
    let mut statement = transaction.prepare(
        "UPDATE forebay_regions SET block = coalesce(?3, ?4), events = max(events - ?5, 0), snapshot_block = NULL
         WHERE pipeline = ?1 AND region = ?2",
    )?;
    let fallback = batch.after.block.unwrap_or(undone.to);
    for region in &undone.regions {
        statement.execute((pipeline, &*region.region, region.block, fallback, signed(region.events)))?;
    }
    Ok(())
}
