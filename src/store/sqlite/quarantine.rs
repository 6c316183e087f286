//! Events that were put aside, in the transaction of their batch.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::batch::{QuarantineStage, Quarantined, SealedBatch};
use crate::model::timestamp::Timestamp;
use crate::store::sql::{signed, unsigned};

pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS forebay_quarantine (
    pipeline TEXT NOT NULL, batch INTEGER NOT NULL, number INTEGER NOT NULL, file TEXT NOT NULL, line INTEGER NOT NULL,
    block INTEGER NOT NULL, place INTEGER, region TEXT, stage TEXT NOT NULL, error TEXT NOT NULL, event TEXT NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (pipeline, batch, number)
) STRICT, WITHOUT ROWID;
";

/// Writes the events that a batch puts aside; of a rollback, takes those of later blocks out.
pub(super) fn write(transaction: &Transaction<'_>, pipeline: &str, batch: &SealedBatch) -> rusqlite::Result<()> {
    if let Some(undone) = &batch.undone {
        let sql = "DELETE FROM forebay_quarantine WHERE pipeline = ?1 AND block > ?2";
        transaction.execute(sql, (pipeline, undone.to))?;
    }
    for (number, event) in (1_i64..).zip(&batch.quarantined) {
        let sql = "INSERT INTO forebay_quarantine VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        transaction.prepare_cached(sql)?.execute((
            pipeline,
            signed(batch.after.batch),
            number,
            &*event.file,
            signed(event.line),
            event.block,
            event.place,
            event.region.as_deref(),
            event.stage.name(),
            &event.error,
            &event.event,
            event.time.to_millis_text(),
        ))?;
    }
    Ok(())
}

/// How many events of a pipeline were put aside. A file of an earlier version has none.
pub(super) fn count(connection: &Connection, pipeline: &str) -> rusqlite::Result<u64> {
    if !has_table(connection)? {
        return Ok(0);
    }
    let sql = "SELECT count(*) FROM forebay_quarantine WHERE pipeline = ?1";
    connection.query_row(sql, [pipeline], |row| row.get(0)).map(unsigned)
}

/// The events of a pipeline that were put aside, in their order.
pub(super) fn read(connection: &Connection, pipeline: &str) -> rusqlite::Result<Vec<Quarantined>> {
    if !has_table(connection)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT file, line, block, place, region, stage, error, event, time FROM forebay_quarantine
               WHERE pipeline = ?1 ORDER BY batch, number";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([pipeline], |row| {
        Ok(Quarantined {
            file: Arc::from(row.get::<_, String>(0)?),
            line: unsigned(row.get(1)?),
            block: row.get(2)?,
            place: row.get(3)?,
            region: row.get::<_, Option<String>>(4)?.map(Arc::from),
            stage: QuarantineStage::of_name(&row.get::<_, String>(5)?),
            error: row.get(6)?,
            event: row.get(7)?,
            time: row.get::<_, String>(8)?.parse().unwrap_or(Timestamp::MIN),
        })
    })?;
    rows.collect()
}

fn has_table(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'forebay_quarantine'";
    connection.query_row(sql, [], |_| Ok(())).optional().map(|row| row.is_some())
}
