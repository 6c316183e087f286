//! What of its source a pipeline has committed: columns of its own row, and a row a file.

use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use crate::batch::SealedBatch;
use crate::model::position::Position;
use crate::model::source_progress::{FileStamp, SourceDigest, SourceFile, SourceProgress};
use crate::store::sql::{signed, unsigned};

pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS forebay_source_files (
    pipeline TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL, modified INTEGER NOT NULL,
    inode INTEGER NOT NULL, is_whole INTEGER NOT NULL, first_block INTEGER, last_block INTEGER,
    last_events INTEGER NOT NULL, last_place INTEGER, events INTEGER NOT NULL, late INTEGER NOT NULL,
    digest TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (pipeline, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forebay_source_tails (
    pipeline TEXT NOT NULL, name TEXT NOT NULL, tail TEXT NOT NULL,
    PRIMARY KEY (pipeline, name)
) STRICT, WITHOUT ROWID;
";

/// Columns that the table of pipelines did not have at first. Other tables have kept theirs: where a file holds several
/// pipelines, an earlier version may go on with one that was not brought over, and counts the columns.
const COLUMNS: [(&str, &str); 5] = [
    ("source_digest", "TEXT"),
    ("block_digest", "TEXT"),
    ("place", "INTEGER"),
    ("first_block", "INTEGER"),
    ("position", "TEXT"),
];

/// Adds the columns that a file of an earlier version lacks.
pub(super) fn add_columns(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for (name, kind) in COLUMNS {
        if !has_column(transaction, name)? {
            transaction.execute_batch(&format!("ALTER TABLE forebay_pipelines ADD COLUMN {name} {kind}"))?;
        }
    }
    Ok(())
}

fn has_column(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM pragma_table_info('forebay_pipelines') WHERE name = ?1";
    connection.query_row(sql, [name], |_| Ok(())).optional().map(|row| row.is_some())
}

/// The position of the source after the last committed block. A file of an earlier version has none.
pub(super) fn position(connection: &Connection, pipeline: &str) -> rusqlite::Result<Option<Position>> {
    if !has_column(connection, "position")? {
        return Ok(None);
    }
    let sql = "SELECT position FROM forebay_pipelines WHERE pipeline = ?1";
    let found: Option<Option<String>> = connection.query_row(sql, [pipeline], |row| row.get(0)).optional()?;
    // What is no position is not known.
    Ok(found.flatten().and_then(|text| Position::new(text).ok()))
}

fn digest(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<SourceDigest>> {
    // What is no digest is not known.
    Ok(row.get::<_, Option<String>>(at)?.and_then(|text| text.parse().ok()))
}

/// What is committed of the source.
pub(super) fn progress(connection: &Connection, pipeline: &str) -> rusqlite::Result<SourceProgress> {
    let sql =
        "SELECT block, source_digest, block_digest, place, first_block FROM forebay_pipelines WHERE pipeline = ?1";
    let progress = |row: &Row<'_>| match row.get::<_, Option<i64>>(0)? {
        None => Ok(SourceProgress::START),
        Some(_) => Ok(SourceProgress::new(digest(row, 1)?, digest(row, 2)?, row.get(3)?, row.get(4)?)),
    };
    let found = connection.prepare_cached(sql)?.query_row([pipeline], progress).optional()?;
    Ok(found.unwrap_or(SourceProgress::START))
}

/// The files that are read.
pub(super) fn files(connection: &Connection, pipeline: &str) -> rusqlite::Result<Vec<SourceFile>> {
    let sql =
        "SELECT f.name, bytes, modified, inode, is_whole, first_block, last_block, last_events, last_place, events, late,
                 digest, content, tail
               FROM forebay_source_files f LEFT JOIN forebay_source_tails t ON t.pipeline = f.pipeline AND t.name = f.name
               WHERE f.pipeline = ?1 ORDER BY f.name";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([pipeline], |row| {
        Ok(SourceFile {
            stamp: FileStamp::new(row.get::<_, String>(0)?, unsigned(row.get(1)?), row.get(2)?, unsigned(row.get(3)?)),
            is_whole: row.get(4)?,
            first_block: row.get(5)?,
            last_block: row.get(6)?,
            last_events: unsigned(row.get(7)?),
            last_place: row.get(8)?,
            events: unsigned(row.get(9)?),
            late: unsigned(row.get(10)?),
            digest: digest(row, 11)?.unwrap_or_default(),
            content: digest(row, 12)?.unwrap_or_default(),
            tail: row.get::<_, Option<String>>(13)?.and_then(|text| text.parse().ok()),
        })
    })?;
    rows.collect()
}

/// Writes the files of a batch; of files that a rollback reaches into nothing is known any more but their names, and those
/// of which lines were left out are to be read again.
pub(super) fn write_files(transaction: &Transaction<'_>, pipeline: &str, batch: &SealedBatch) -> rusqlite::Result<()> {
    if let Some(undone) = &batch.undone {
        transaction.execute(
            "UPDATE forebay_source_files SET is_whole = 0 WHERE pipeline = ?1 AND last_block > ?2",
            (pipeline, undone.to),
        )?;
        transaction
            .execute("UPDATE forebay_source_files SET bytes = 0 WHERE pipeline = ?1 AND late > 0", [pipeline])?;
    }
    for file in &batch.files {
        let SourceFile { stamp, .. } = file;
        let mut statement = transaction.prepare_cached(
            "INSERT OR REPLACE INTO forebay_source_files (pipeline, name, bytes, modified, inode, is_whole, first_block,
               last_block, last_events, last_place, events, late, digest, content)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?;
        statement.execute((
            pipeline,
            &stamp.name,
            signed(stamp.bytes),
            stamp.modified,
            signed(stamp.inode),
            file.is_whole,
            file.first_block,
            file.last_block,
            signed(file.last_events),
            file.last_place,
            signed(file.events),
            signed(file.late),
            file.digest.to_string(),
            file.content.to_string(),
        ))?;
        let (sql, tail) = match file.tail {
            Some(tail) => ("INSERT OR REPLACE INTO forebay_source_tails VALUES (?1, ?2, ?3)", Some(tail.to_string())),
            None => ("DELETE FROM forebay_source_tails WHERE pipeline = ?1 AND name = ?2 AND ?3 IS NULL", None),
        };
        transaction.prepare_cached(sql)?.execute((pipeline, &stamp.name, tail))?;
    }
    Ok(())
}
