//! The tables of the SQLite store, and what may change about them.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{StoreError, StoreName, StorePlan, find, quarantine, source, undo_log};
use crate::batch::RegionTouch;
use crate::model::checkpoint::Checkpoint;
use crate::model::schema::{Column, Entity, parse_columns};
use crate::model::value::ColumnType;
use crate::store::sql::{differences_of, new_signature, quoted, unsigned};

/// The version of our own tables. A file with a later one was written by a later forebay.
pub(super) const FORMAT: i64 = 2;

const OWN_TABLES: &str = "
CREATE TABLE IF NOT EXISTS forebay_pipelines (
    pipeline TEXT PRIMARY KEY, format INTEGER NOT NULL, batch INTEGER NOT NULL, block INTEGER,
    block_events INTEGER NOT NULL, blocks INTEGER NOT NULL, events INTEGER NOT NULL,
    has_snapshots INTEGER NOT NULL, committed_at TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forebay_entities (
    entity TEXT PRIMARY KEY, pipeline TEXT NOT NULL, columns TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forebay_regions (
    pipeline TEXT NOT NULL, region TEXT NOT NULL, block INTEGER NOT NULL, events INTEGER NOT NULL,
    seq INTEGER NOT NULL, snapshot_block INTEGER,
    PRIMARY KEY (pipeline, region)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forebay_snapshots (
    pipeline TEXT NOT NULL, region TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, block INTEGER NOT NULL,
    generated_at TEXT NOT NULL, hash TEXT NOT NULL, doc TEXT NOT NULL, published_at TEXT,
    PRIMARY KEY (pipeline, region, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS forebay_snapshots_id ON forebay_snapshots (pipeline, id);
CREATE INDEX IF NOT EXISTS forebay_snapshots_age ON forebay_snapshots (pipeline, generated_at);
CREATE TABLE IF NOT EXISTS forebay_signatures (
    pipeline TEXT PRIMARY KEY, signature TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What people look at to see how far each pipeline has come. A pipeline has one shard.
const PROGRESS: &str =
    "CREATE VIEW IF NOT EXISTS _progress AS SELECT pipeline, 0 AS shard, block, committed_at FROM forebay_pipelines";

/// Makes what is missing and compares the rest, in one transaction.
pub(super) fn prepare(connection: &mut Connection, name: &StoreName, plan: &StorePlan) -> Result<(), StoreError> {
    let sql = name.sql("making the tables");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&sql)?;
    make_own(&transaction).map_err(&sql)?;
    check_format(&transaction, name, plan)?;
    let differences = differences(&transaction, plan).map_err(&sql)?;
    if !differences.is_empty() {
        return Err(StoreError::SchemaChanged { store: name.text(), differences: differences.join("; ") });
    }
    for entity in plan.schema.entities() {
        make_entity(&transaction, plan, entity).map_err(&sql)?;
    }
    transaction
        .execute(
            "INSERT INTO forebay_pipelines (pipeline, format, batch, block, block_events, blocks, events, has_snapshots)
             VALUES (?1, ?2, 0, NULL, 0, 0, 0, ?3)
             ON CONFLICT (pipeline) DO UPDATE SET has_snapshots = excluded.has_snapshots, format = excluded.format
             WHERE has_snapshots <> excluded.has_snapshots OR format <> excluded.format",
            (&plan.pipeline, FORMAT, plan.has_snapshots),
        )
        .map_err(&sql)?;
    transaction
        .execute(
            "INSERT INTO forebay_signatures VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            (&plan.pipeline, new_signature()),
        )
        .map_err(&sql)?;
    transaction.commit().map_err(&sql)
}

/// Makes what is missing of our tables.
pub(super) fn make_own(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for tables in [OWN_TABLES, undo_log::TABLE, quarantine::TABLE, source::TABLE, PROGRESS] {
        transaction.execute_batch(tables)?;
    }
    source::add_columns(transaction)
}

fn check_format(transaction: &Transaction<'_>, name: &StoreName, plan: &StorePlan) -> Result<(), StoreError> {
    let format: Option<i64> = transaction
        .query_row("SELECT format FROM forebay_pipelines WHERE pipeline = ?1", [&plan.pipeline], |row| row.get(0))
        .optional()
        .map_err(name.sql("reading the format"))?;
    match format {
        Some(format) if format > FORMAT => {
            Err(name
                .cannot_open(format!("it was written by a later forebay (format {format}, this one knows {FORMAT})")))
        }
        _ => Ok(()),
    }
}

/// What is in the file and is not as the plan says, beyond what is added by itself.
fn differences(transaction: &Transaction<'_>, plan: &StorePlan) -> rusqlite::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut statement =
        transaction.prepare("SELECT entity, pipeline, columns FROM forebay_entities ORDER BY entity")?;
    let stored = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let stored: Vec<(String, String, String)> = stored.collect::<Result<_, _>>()?;
    for (entity, pipeline, columns) in &stored {
        let planned = plan.schema.entity(entity).map(|at| &plan.schema[at]);
        match planned {
            Some(_) if *pipeline != plan.pipeline => {
                found.push(format!("entity {entity} belongs to pipeline {pipeline}"));
            }
            Some(planned) => differences_of(planned, columns, &mut found),
            None if *pipeline == plan.pipeline => {
                found.push(format!("entity {entity} is missing from the pipeline file"))
            }
            None => {}
        }
    }
    for entity in plan.schema.entities() {
        let is_ours = stored.iter().any(|(name, ..)| *name == entity.name);
        if !is_ours && table_exists(transaction, &entity.name)? {
            found.push(format!("table {} is there already and was not made by forebay", entity.name));
        }
    }
    Ok(found)
}

pub(super) fn table_exists(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE";
    connection.query_row(sql, [name], |_| Ok(())).optional().map(|row| row.is_some())
}

fn make_entity(transaction: &Transaction<'_>, plan: &StorePlan, entity: &Entity) -> rusqlite::Result<()> {
    let stored: Option<String> = transaction
        .query_row("SELECT columns FROM forebay_entities WHERE entity = ?1", [&entity.name], |row| row.get(0))
        .optional()?;
    match &stored {
        None => transaction.execute_batch(&create_table(entity))?,
        Some(stored) => {
            let known = parse_columns(stored);
            let is_new = |column: &&Column| !known.iter().any(|(name, _)| *name == column.name);
            for column in entity.columns_as_given().filter(is_new) {
                transaction.execute_batch(&format!(
                    "ALTER TABLE {} ADD COLUMN {}",
                    quoted(&entity.name),
                    definition(entity, column)
                ))?;
            }
        }
    }
    for column in entity.columns.iter().filter(|column| entity.indexes.contains(&column.name)) {
        let sql = format!(
            "CREATE INDEX IF NOT EXISTS {} ON {} (\"region\", {}, \"id\")",
            find::index_name(entity, column),
            quoted(&entity.name),
            find::key(column)
        );
        transaction.execute_batch(&sql)?;
    }
    if stored.as_deref() == Some(&entity.columns_text()) {
        return Ok(());
    }
    transaction.execute(
        "INSERT INTO forebay_entities VALUES (?1, ?2, ?3) ON CONFLICT (entity) DO UPDATE SET columns = excluded.columns",
        (&entity.name, &plan.pipeline, entity.columns_text()),
    )?;
    Ok(())
}

fn create_table(entity: &Entity) -> String {
    let columns: String = entity.columns_as_given().map(|column| format!(", {}", definition(entity, column))).collect();
    let comment = entity.comment.as_deref().map_or_else(String::new, |comment| format!("{} ", sql_comment(comment)));
    format!(
        "CREATE TABLE {} ({comment}\"region\" TEXT NOT NULL, \"id\" TEXT NOT NULL{columns}, PRIMARY KEY (\"region\", \"id\")) STRICT, WITHOUT ROWID",
        quoted(&entity.name)
    )
}

fn definition(entity: &Entity, column: &Column) -> String {
    let kind = match column.kind {
        ColumnType::Boolean | ColumnType::Bigint => "INTEGER",
        ColumnType::Double => "REAL",
        ColumnType::Bytes => "BLOB",
        // Text keeps every digit of a numeric; a time is RFC 3339 text, which SQLite's date functions read.
        ColumnType::Text | ColumnType::Numeric | ColumnType::Timestamptz | ColumnType::Jsonb => "TEXT",
    };
    let comment = entity.column_comment(&column.name);
    let comment = comment.map_or_else(String::new, |comment| format!(" {}", sql_comment(comment)));
    format!("{} {kind}{comment}", quoted(&column.name))
}

/// A comment of SQL, which SQLite keeps with the table. It has no line end, since SQLite puts texts of columns together,
/// and nothing in it ends it.
fn sql_comment(text: &str) -> String {
    let line: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    format!("/* {} */", line.replace("*/", "* /"))
}

pub(super) fn is_empty(connection: &Connection, entity: &Entity) -> rusqlite::Result<bool> {
    let sql = format!("SELECT 1 FROM {} LIMIT 1", quoted(&entity.name));
    connection.query_row(&sql, [], |_| Ok(())).optional().map(|row| row.is_none())
}

/// When the last batch was committed; none before the first.
pub(super) fn committed_at(connection: &Connection, pipeline: &str) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT committed_at FROM forebay_pipelines WHERE pipeline = ?1";
    connection.query_row(sql, [pipeline], |row| row.get(0)).optional().map(Option::flatten)
}

/// The stored checkpoint; none if the pipeline never ran.
pub(super) fn checkpoint(connection: &Connection, pipeline: &str) -> rusqlite::Result<Option<Checkpoint>> {
    let sql = "SELECT batch, block, block_events, blocks, events FROM forebay_pipelines WHERE pipeline = ?1";
    connection
        .prepare_cached(sql)?
        .query_row([pipeline], |row| {
            Ok(Checkpoint {
                batch: unsigned(row.get(0)?),
                block: row.get(1)?,
                block_events: unsigned(row.get(2)?),
                blocks: unsigned(row.get(3)?),
                events: unsigned(row.get(4)?),
            })
        })
        .optional()
}

/// The signature under which the pipeline's snapshots are published; none if no run has made it yet.
pub(super) fn signature(connection: &Connection, pipeline: &str) -> rusqlite::Result<Option<String>> {
    if !table_exists(connection, "forebay_signatures")? {
        return Ok(None);
    }
    let sql = "SELECT signature FROM forebay_signatures WHERE pipeline = ?1";
    connection.query_row(sql, [pipeline], |row| row.get(0)).optional()
}

/// Regions with events after their last snapshot.
pub(super) fn pending_regions(connection: &Connection, pipeline: &str) -> rusqlite::Result<Vec<RegionTouch>> {
    let sql = "SELECT region, block FROM forebay_regions
               WHERE pipeline = ?1 AND events > 0 AND (snapshot_block IS NULL OR snapshot_block < block)
               ORDER BY region";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([pipeline], |row| {
        let region: String = row.get(0)?;
        Ok(RegionTouch { region: Arc::from(region), block: row.get(1)?, events: 0 })
    })?;
    rows.collect()
}
