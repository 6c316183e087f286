//! One batch, one transaction: checkpoint, rows, undo log, quarantine, regions, snapshots.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::types::ToSqlOutput;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, ToSql, Transaction, TransactionBehavior};

use super::{StoreError, StoreName, StorePlan, quarantine, source, undo_log};
use crate::batch::{RegionTouch, SealedBatch, SnapshotDraft};
use crate::model::checkpoint::Checkpoint;
use crate::model::limits::SNAPSHOT_PRUNE_ROWS_MAX;
use crate::model::position::Position;
use crate::model::schema::{Entity, Schema};
use crate::model::timestamp::Timestamp;
use crate::rows::changes::RegionChanges;
use crate::rows::codec::{Change, Decoder, ValueRef};
use crate::snapshot::{NOTHING, snapshot_id};
use crate::store::snapshot_policy::{NewestSnapshot, SnapshotPolicy, SnapshotVerdict, renumbered, sql};
use crate::store::sql::{quoted, signed, unsigned};
use crate::store::{CommitTimes, Committed, SnapshotReceipt};

/// The text of the statements of each entity.
pub(super) struct Statements {
    entities: Vec<EntityStatements>,
}

struct EntityStatements {
    upsert: String,
    delete: String,
}

impl Statements {
    pub(super) fn new(schema: &Schema) -> Self {
        Self { entities: schema.entities().iter().map(EntityStatements::new).collect() }
    }
}

impl EntityStatements {
    fn new(entity: &Entity) -> Self {
        let table = quoted(&entity.name);
        let columns: Vec<String> = entity.columns.iter().map(|column| quoted(&column.name)).collect();
        let names: String = columns.iter().map(|name| format!(", {name}")).collect();
        let places: String = (0..columns.len()).map(|at| format!(", ?{}", at + 3)).collect();
        let sets: Vec<String> = columns.iter().map(|name| format!("{name} = excluded.{name}")).collect();
        let update = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
        Self {
            upsert: format!(
                "INSERT INTO {table} (\"region\", \"id\"{names}) VALUES (?1, ?2{places}) ON CONFLICT (\"region\", \"id\") DO {update}"
            ),
            delete: format!("DELETE FROM {table} WHERE \"region\" = ?1 AND \"id\" = ?2"),
        }
    }
}

/// Commits a batch. What it returns is durable; after an error nothing of the batch is in the file.
pub(super) fn commit(
    connection: &mut Connection,
    statements: &Statements,
    name: &StoreName,
    plan: &StorePlan,
    batch: &SealedBatch,
) -> Result<Committed, StoreError> {
    let started = Instant::now();
    let doing = name.sql("writing a batch");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&doing)?;
    move_checkpoint(&transaction, name, plan, batch)?;
    for ((entity, texts), changes) in plan.schema.entities().iter().zip(&statements.entities).zip(&batch.changes) {
        write_entity(&transaction, name, entity, texts, changes)?;
    }
    undo_log::write(&transaction, &plan.pipeline, batch).map_err(name.sql("writing the history"))?;
    source::write_files(&transaction, &plan.pipeline, batch).map_err(name.sql("noting the files"))?;
    quarantine::write(&transaction, &plan.pipeline, batch).map_err(name.sql("writing the quarantine"))?;
    let now = Timestamp::now();
    touch_regions(&transaction, plan, &batch.touched).map_err(name.sql("noting the regions"))?;
    let snapshots = write_snapshots(&transaction, plan, &batch.snapshots).map_err(name.sql("writing snapshots"))?;
    if !snapshots.is_empty() {
        prune_snapshots(&transaction, plan, now).map_err(name.sql("removing expired snapshots"))?;
    }
    let merge = started.elapsed();
    transaction.commit().map_err(name.sql("committing a batch"))?;
    let times = CommitTimes { merge, commit: started.elapsed() - merge, ..CommitTimes::default() };
    Ok(Committed { batch: batch.after.batch, rows: batch.rows(), snapshots, times, ..Committed::default() })
}

/// Compares the checkpoint and sets it: first, so that a foreign writer is noticed before anything is written.
fn move_checkpoint(
    transaction: &Transaction<'_>,
    name: &StoreName,
    plan: &StorePlan,
    batch: &SealedBatch,
) -> Result<(), StoreError> {
    let Checkpoint { batch: number, block, block_events, blocks, events } = batch.after;
    let source = batch.source;
    let sql = "UPDATE forebay_pipelines
               SET batch = ?2, block = ?3, block_events = ?4, blocks = ?5, events = ?6, committed_at = ?7,
                 source_digest = ?10, block_digest = ?11, place = ?12, first_block = ?13, position = ?14
               WHERE pipeline = ?1 AND batch = ?8 AND block IS ?9";
    let moved = transaction
        .prepare_cached(sql)
        .and_then(|mut statement| {
            statement.execute((
                &plan.pipeline,
                signed(number),
                block,
                signed(block_events),
                signed(blocks),
                signed(events),
                Timestamp::now().to_millis_text(),
                signed(batch.before.batch),
                batch.before.block,
                source.digest.map(|digest| digest.to_string()),
                source.block_digest.map(|digest| digest.to_string()),
                source.place,
                source.first_block,
                batch.position.as_ref().map(Position::as_str),
            ))
        })
        .map_err(name.sql("moving the checkpoint"))?;
    match moved {
        1 => Ok(()),
        _ => Err(StoreError::CheckpointMoved { store: name.text(), expected: batch.before.batch }),
    }
}

fn write_entity(
    transaction: &Transaction<'_>,
    name: &StoreName,
    entity: &Entity,
    texts: &EntityStatements,
    changes: &[RegionChanges],
) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let doing = name.sql("writing rows");
    let mut upsert = transaction.prepare_cached(&texts.upsert).map_err(&doing)?;
    let mut delete = transaction.prepare_cached(&texts.delete).map_err(&doing)?;
    for region in changes {
        let mut values = Vec::with_capacity(entity.columns.len());
        for row in &region.rows {
            let head = Decoder::new(entity, &region.packed, row.start).row(&mut values)?;
            let written = match head.change {
                Change::Deleted => delete.execute((&*region.region, head.id)).map(drop),
                Change::Written | Change::New => write_row(&mut upsert, &region.region, head.id, &values),
            };
            written.map_err(&doing)?;
        }
    }
    Ok(())
}

fn write_row(
    upsert: &mut CachedStatement<'_>,
    region: &str,
    id: &str,
    values: &[ValueRef<'_>],
) -> rusqlite::Result<()> {
    upsert.raw_bind_parameter(1, region)?;
    upsert.raw_bind_parameter(2, id)?;
    for (at, value) in values.iter().enumerate() {
        upsert.raw_bind_parameter(at + 3, value)?;
    }
    upsert.raw_execute().map(drop)
}

impl ToSql for ValueRef<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            ValueRef::Null => rusqlite::types::Null.into(),
            ValueRef::Text(text) | ValueRef::Timestamptz(text) | ValueRef::Jsonb(text) => (*text).into(),
            ValueRef::Boolean(value) => i64::from(*value).into(),
            ValueRef::Bigint(value) => (*value).into(),
            ValueRef::Double(value) => (*value).into(),
            ValueRef::Numeric(value) => value.to_string().into(),
            ValueRef::Bytes(bytes) => (*bytes).into(),
        })
    }
}

fn touch_regions(transaction: &Transaction<'_>, plan: &StorePlan, touched: &[RegionTouch]) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO forebay_regions VALUES (?1, ?2, ?3, ?4, 0, NULL)
         ON CONFLICT (pipeline, region) DO UPDATE SET block = excluded.block, events = events + excluded.events",
    )?;
    for touch in touched {
        statement.execute((&plan.pipeline, &*touch.region, touch.block, signed(touch.events)))?;
    }
    Ok(())
}

fn write_snapshots(
    transaction: &Transaction<'_>,
    plan: &StorePlan,
    drafts: &[SnapshotDraft],
) -> rusqlite::Result<Vec<SnapshotReceipt>> {
    let mut receipts = Vec::new();
    if drafts.is_empty() {
        return Ok(receipts);
    }
    let mut writer = SnapshotWriter::new(transaction, plan)?;
    for draft in drafts {
        let id = writer.write(draft)?;
        if draft.doc.is_some() || id.is_some() {
            receipts.push(SnapshotReceipt { region: draft.region.clone(), id });
        }
    }
    Ok(receipts)
}

/// Stores snapshots: a statement for each step, made once for all of a batch.
struct SnapshotWriter<'t> {
    pipeline: &'t str,
    policy: SnapshotPolicy,
    last: CachedStatement<'t>,
    newest: CachedStatement<'t>,
    insert: CachedStatement<'t>,
    cover: CachedStatement<'t>,
    cover_new: CachedStatement<'t>,
}

impl<'t> SnapshotWriter<'t> {
    fn new(transaction: &'t Transaction<'_>, plan: &'t StorePlan) -> rusqlite::Result<Self> {
        let prepare = |sql| transaction.prepare_cached(sql);
        Ok(Self {
            pipeline: &plan.pipeline,
            policy: SnapshotPolicy::of(plan),
            last: prepare("SELECT seq FROM forebay_regions WHERE pipeline = ?1 AND region = ?2")?,
            newest: prepare(
                "SELECT hash, generated_at, block FROM forebay_snapshots WHERE pipeline = ?1 AND region = ?2
                 ORDER BY seq DESC LIMIT 1",
            )?,
            insert: prepare("INSERT INTO forebay_snapshots VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL)")?,
            cover: prepare(
                "UPDATE forebay_regions SET seq = ?4, snapshot_block = ?3 WHERE pipeline = ?1 AND region = ?2",
            )?,
            cover_new: prepare("INSERT INTO forebay_regions VALUES (?1, ?2, ?3, 0, ?4, ?3)")?,
        })
    }

    /// Stores one snapshot unless it is a duplicate; returns its id. The region is covered up to the block either way.
    fn write(&mut self, draft: &SnapshotDraft) -> rusqlite::Result<Option<String>> {
        let region = &*draft.region;
        let last = self.last.query_row((self.pipeline, region), |row| row.get(0)).optional()?.map_or(0, unsigned);
        // A region that was given no number has no snapshot.
        let newest = if last == 0 { None } else { self.newest(region)? };
        let verdict = self.policy.judge(draft, last, newest.as_ref());
        let SnapshotVerdict::New { seq, id } = verdict else {
            self.cover(region, draft.block, last)?;
            return Ok(None);
        };
        self.insert.execute((
            self.pipeline,
            region,
            &id,
            signed(seq),
            draft.block,
            draft.generated_at.to_millis_text(),
            &draft.hash,
            draft.doc.as_deref().unwrap_or(NOTHING),
        ))?;
        self.cover(region, draft.block, seq)?;
        Ok(Some(id))
    }

    /// A region's newest snapshot.
    fn newest(&mut self, region: &str) -> rusqlite::Result<Option<NewestSnapshot>> {
        let newest = |row: &Row<'_>| {
            let time: String = row.get(1)?;
            // What is no time is as old as can be.
            let generated_at = time.parse().unwrap_or(Timestamp::MIN);
            Ok(NewestSnapshot { hash: row.get(0)?, generated_at, block: row.get(2)? })
        };
        self.newest.query_row((self.pipeline, region), newest).optional()
    }

    fn cover(&mut self, region: &str, block: i64, seq: u64) -> rusqlite::Result<()> {
        let values = (self.pipeline, region, block, signed(seq));
        if self.cover.execute(values)? == 0 {
            self.cover_new.execute(values)?;
        }
        Ok(())
    }
}

/// Gives the newest snapshots of regions numbers above those that are given.
pub(super) fn renumber(connection: &mut Connection, pipeline: &str, above: &[(Arc<str>, u64)]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    renumber_within(&transaction, pipeline, above)?;
    transaction.commit()
}

/// The same within a transaction.
pub(super) fn renumber_within(
    transaction: &Transaction<'_>,
    pipeline: &str,
    above: &[(Arc<str>, u64)],
) -> rusqlite::Result<()> {
    for (region, floor) in above {
        let seq: Option<u64> = transaction
            .prepare_cached("SELECT seq FROM forebay_regions WHERE pipeline = ?1 AND region = ?2")?
            .query_row((pipeline, &**region), |row| row.get(0))
            .optional()?
            .map(unsigned);
        let Some((seq, next)) = seq.and_then(|seq| Some((seq, renumbered(seq, *floor)?))) else { continue };
        let find = "SELECT hash FROM forebay_snapshots WHERE pipeline = ?1 AND region = ?2 AND seq = ?3";
        let hash: Option<String> = transaction
            .prepare_cached(find)?
            .query_row((pipeline, &**region, signed(seq)), |row| row.get(0))
            .optional()?;
        if let Some(hash) = hash {
            let sql = "UPDATE forebay_snapshots SET seq = ?4, id = ?5, published_at = NULL
                       WHERE pipeline = ?1 AND region = ?2 AND seq = ?3";
            let id = snapshot_id(region, next, &hash);
            transaction.prepare_cached(sql)?.execute((pipeline, &**region, signed(seq), signed(next), id))?;
        }
        let sql = "UPDATE forebay_regions SET seq = ?3 WHERE pipeline = ?1 AND region = ?2";
        transaction.prepare_cached(sql)?.execute((pipeline, &**region, signed(next)))?;
    }
    Ok(())
}

/// Removes what is older than the ttl, but never a region's newest, and not more than a commit can bear.
fn prune_snapshots(transaction: &Transaction<'_>, plan: &StorePlan, now: Timestamp) -> rusqlite::Result<()> {
    let is_pruned = sql::is_pruned("s.generated_at", "?2", "s.seq < r.seq");
    let sql = format!(
        "DELETE FROM forebay_snapshots WHERE (pipeline, region, seq) IN (
            SELECT s.pipeline, s.region, s.seq FROM forebay_snapshots s
            JOIN forebay_regions r ON r.pipeline = s.pipeline AND r.region = s.region
            WHERE s.pipeline = ?1 AND {is_pruned} LIMIT {SNAPSHOT_PRUNE_ROWS_MAX})"
    );
    let oldest = SnapshotPolicy::of(plan).oldest(now).to_millis_text();
    transaction.prepare_cached(&sql)?.execute((&plan.pipeline, oldest))?;
    Ok(())
}
