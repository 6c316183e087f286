//! The tables of the index beside, copied over the present ones of the pipeline in one transaction.
//!
//! What others have in the file stays: other pipelines, tables and views. Indexes and triggers of theirs on our tables are
//! made again over the new ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::super::{StoreError, StoreName, StorePlan, find, tables, write};
use crate::model::checkpoint::Checkpoint;
use crate::store::sql::{quoted, unsigned};

/// Our tables that have rows of each pipeline. What a region's number was is looked at before they go.
const OWN: [&str; 8] = [
    "forebay_pipelines",
    "forebay_entities",
    "forebay_regions",
    "forebay_snapshots",
    "forebay_history",
    "forebay_quarantine",
    "forebay_source_files",
    "forebay_source_tails",
];

/// Which index has last taken the place of each pipeline's tables: a file beside that is this one is only left over.
const REPLACED: &str = "CREATE TABLE IF NOT EXISTS forebay_replaced (
    pipeline TEXT PRIMARY KEY, fresh TEXT NOT NULL
) STRICT, WITHOUT ROWID";

/// Something that a statement of its own makes.
struct Made {
    kind: String,
    name: String,
    table: String,
    sql: String,
}

impl Made {
    fn text(&self) -> String {
        format!("{} {} on {}", self.kind, self.name, self.table)
    }
}

/// What is in a schema of the connection, in the order in which it was made.
fn made(open: &Connection, schema: &str) -> rusqlite::Result<Vec<Made>> {
    let sql =
        format!("SELECT type, name, tbl_name, sql FROM {schema}.sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid");
    let mut statement = open.prepare(&sql)?;
    let rows = statement
        .query_map([], |row| Ok(Made { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? }))?;
    rows.collect()
}

/// The pipeline's tables.
fn entities(open: &Connection, schema: &str, pipeline: &str) -> rusqlite::Result<Vec<String>> {
    let sql = format!("SELECT entity FROM {schema}.forebay_entities WHERE pipeline = ?1 ORDER BY entity");
    let mut statement = open.prepare(&sql)?;
    let rows = statement.query_map([pipeline], |row| row.get(0))?;
    rows.collect()
}

/// Views that can be read.
fn working_views(open: &Connection, made: &[Made]) -> Vec<String> {
    let views = made.iter().filter(|made| made.kind == "view");
    views.filter(|view| view_error(open, &view.name).is_none()).map(|view| view.name.clone()).collect()
}

fn view_error(open: &Connection, view: &str) -> Option<String> {
    open.prepare(&format!("SELECT * FROM main.{} LIMIT 0", quoted(view))).err().map(|error| error.to_string())
}

/// Indexes and triggers on those tables that others have made: all but those that the new tables bring along.
fn of_others<'m>(made: &'m [Made], old: &[String], brought: &BTreeSet<String>) -> Vec<&'m Made> {
    let is_kept = |made: &&Made| {
        ["index", "trigger"].contains(&made.kind.as_str()) && old.contains(&made.table) && !brought.contains(&made.name)
    };
    made.iter().filter(is_kept).collect()
}

/// Whether an index is one of ours: they alone have a dot after the table's name.
fn is_ours(made: &Made) -> bool {
    made.kind == "index" && made.name.starts_with(&format!("{}.", made.table))
}

fn refused(name: &StoreName, problems: Vec<String>) -> Result<(), StoreError> {
    if problems.is_empty() {
        return Ok(());
    }
    let cause = format!("{}; change or drop it, and make it anew afterwards", problems.join("; "));
    Err(StoreError::Beside { store: name.text(), cause: cause.into() })
}

/// Tries in memory, without rows, whether what others have made would work over the tables of the plan.
pub(super) fn rehearse(open: &Connection, name: &StoreName, plan: &StorePlan) -> Result<(), StoreError> {
    let doing = name.sql("looking what others have made in it");
    let present = made(open, "main").map_err(&doing)?;
    let old = entities(open, "main", &plan.pipeline).map_err(&doing)?;
    let mut trial = Connection::open_in_memory().map_err(&doing)?;
    find::prepare(&trial).map_err(&doing)?;
    tables::prepare(&mut trial, name, plan)?;
    let brought: BTreeSet<String> = made(&trial, "main").map_err(&doing)?.into_iter().map(|made| made.name).collect();
    let mut problems = Vec::new();
    let is_taken = |made: &Made| {
        let is_entity = plan.schema.entities().iter().any(|entity| entity.name.eq_ignore_ascii_case(&made.name));
        is_entity && made.kind != "index" && !old.contains(&made.name)
    };
    for other in &present {
        match other.kind.as_str() {
            _ if is_taken(other) => {
                problems.push(format!("{} is there already and is not this pipeline's", other.name))
            }
            // One that needs what this program has not is left out, and what needs it is not looked at.
            "table" if !old.contains(&other.name) && !brought.contains(&other.name) => {
                let _ = trial.execute_batch(&other.sql);
            }
            _ => {}
        }
    }
    for other in of_others(&present, &old, &brought).into_iter().filter(|made| !is_ours(made)) {
        if let Err(error) = trial.execute_batch(&other.sql) {
            problems.push(format!("{}: {error}", other.text()));
        }
    }
    let working = working_views(open, &present);
    for view in present.iter().filter(|made| working.contains(&made.name) && !brought.contains(&made.name)) {
        let _ = trial.execute_batch(&view.sql);
    }
    problems.extend(broken(&trial, &working));
    refused(name, problems)
}

/// Views that could be read and cannot be any more.
fn broken(open: &Connection, working: &[String]) -> Vec<String> {
    working.iter().filter_map(|view| Some(format!("view {view}: {}", view_error(open, view)?))).collect()
}

/// Puts the tables of the attached file `fresh` in the place of the present ones.
pub(super) fn swap(
    open: &mut Connection,
    name: &StoreName,
    plan: &StorePlan,
    expected: &Checkpoint,
) -> Result<(), StoreError> {
    let doing = name.sql("putting the index beside in place");
    let transaction = open.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&doing)?;
    let sql = "SELECT batch FROM fresh.forebay_pipelines WHERE pipeline = ?1";
    let batch: i64 = transaction.query_row(sql, [&plan.pipeline], |row| row.get(0)).map_err(&doing)?;
    if unsigned(batch) != expected.batch {
        return Err(StoreError::CheckpointMoved { store: name.text(), expected: expected.batch });
    }
    tables::make_own(&transaction).map_err(&doing)?;
    let present = made(&transaction, "main").map_err(&doing)?;
    let old = entities(&transaction, "main", &plan.pipeline).map_err(&doing)?;
    let working = working_views(&transaction, &present);
    let numbers = numbers(&transaction, plan).map_err(&doing)?;
    let brought = copy_tables(&transaction, name, plan, &old)?;
    copy_own(&transaction, plan).map_err(&doing)?;
    write::renumber_within(&transaction, &plan.pipeline, &numbers).map_err(&doing)?;
    hold_on(&transaction, plan).map_err(&doing)?;
    let mut problems = Vec::new();
    for other in of_others(&present, &old, &brought).into_iter().filter(|made| !is_ours(made)) {
        if let Err(error) = transaction.execute_batch(&other.sql) {
            problems.push(format!("{}: {error}", other.text()));
        }
    }
    problems.extend(broken(&transaction, &working));
    refused(name, problems)?;
    transaction.execute_batch(REPLACED).map_err(&doing)?;
    let sql = "INSERT OR REPLACE INTO main.forebay_replaced SELECT pipeline, id FROM fresh.forebay_fresh";
    transaction.execute(sql, []).map_err(&doing)?;
    transaction.commit().map_err(&doing)
}

/// The number of each region's newest snapshot.
fn numbers(transaction: &Transaction<'_>, plan: &StorePlan) -> rusqlite::Result<Vec<(Arc<str>, u64)>> {
    let sql = "SELECT region, seq FROM main.forebay_regions WHERE pipeline = ?1 AND seq > 0";
    let mut statement = transaction.prepare(sql)?;
    let rows = statement
        .query_map([&plan.pipeline], |row| Ok((Arc::from(row.get::<_, String>(0)?), unsigned(row.get(1)?))))?;
    rows.collect()
}

/// Copies the pipeline's tables with their indexes; gives the names of all that was made.
fn copy_tables(
    transaction: &Transaction<'_>,
    name: &StoreName,
    plan: &StorePlan,
    old: &[String],
) -> Result<BTreeSet<String>, StoreError> {
    let doing = name.sql("copying the tables of the index beside");
    for entity in old {
        transaction.execute_batch(&format!("DROP TABLE main.{}", quoted(entity))).map_err(&doing)?;
    }
    let new = entities(transaction, "fresh", &plan.pipeline).map_err(&doing)?;
    let made = made(transaction, "fresh").map_err(&doing)?;
    let mut brought = BTreeSet::new();
    // Tables before their indexes: with all of them there, SQLite copies row by row as they lie.
    for kind in ["table", "index"] {
        for made in made.iter().filter(|made| made.kind == kind && new.contains(&made.table)) {
            transaction.execute_batch(&made.sql).map_err(&doing)?;
            brought.insert(made.name.clone());
        }
    }
    for entity in &new {
        if plan.stop.load(Ordering::Relaxed) {
            let (store, doing) = (name.text(), "copying the tables of the index beside");
            return Err(StoreError::Stopped { store, doing, cause: "nothing was changed".into() });
        }
        let table = quoted(entity);
        let sql = format!("INSERT INTO main.{table} SELECT * FROM fresh.{table}");
        transaction.execute_batch(&sql).map_err(&doing)?;
    }
    Ok(brought)
}

/// What holds all of a region's events is as of the checkpoint: readers may have one as of a later block than it was computed
/// at, by another cut of the same blocks into batches.
fn hold_on(transaction: &Transaction<'_>, plan: &StorePlan) -> rusqlite::Result<()> {
    let block = "(SELECT c.block FROM main.forebay_pipelines c WHERE c.pipeline = ?1)";
    let sql = format!(
        "UPDATE main.forebay_snapshots AS s SET block = {block} WHERE pipeline = ?1 AND block < {block} AND EXISTS (
           SELECT 1 FROM main.forebay_regions r WHERE r.pipeline = s.pipeline AND r.region = s.region AND r.seq = s.seq
             AND r.snapshot_block >= r.block)"
    );
    transaction.execute(&sql, [&plan.pipeline])?;
    let sql = format!(
        "UPDATE main.forebay_regions SET snapshot_block = {block} WHERE pipeline = ?1 AND snapshot_block >= block"
    );
    transaction.execute(&sql, [&plan.pipeline]).map(drop)
}

/// Copies what is kept of the pipeline. The signature stays: it is that of the store.
fn copy_own(transaction: &Transaction<'_>, plan: &StorePlan) -> rusqlite::Result<()> {
    for table in OWN {
        let mut statement = transaction.prepare(&format!("PRAGMA fresh.table_info({table})"))?;
        let columns = statement.query_map([], |row| row.get(1))?.collect::<rusqlite::Result<Vec<String>>>()?;
        drop(statement);
        let columns = columns.join(", ");
        transaction.execute(&format!("DELETE FROM main.{table} WHERE pipeline = ?1"), [&plan.pipeline])?;
        let sql =
            format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM fresh.{table} WHERE pipeline = ?1");
        transaction.execute(&sql, [&plan.pipeline])?;
    }
    let sql = "INSERT INTO main.forebay_signatures SELECT * FROM fresh.forebay_signatures WHERE pipeline = ?1
               ON CONFLICT DO NOTHING";
    transaction.execute(sql, [&plan.pipeline]).map(drop)
}
