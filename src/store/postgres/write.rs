//! One batch, one transaction.
//!
//! All that is not a stream of rows is one statement: the checkpoint is compared and set, and what else the batch
//! writes (rows of small tables from arrays, rows from staging, deletions, regions, snapshots, what is pruned) hangs on
//! its having moved. Rows of large tables are streamed before it.
//!
//! | a table with | goes | round trips |
//! |---|---|---|
//! | up to [`UNNEST_ROWS_MAX`] rows and [`UNNEST_BYTES_MAX`] bytes | as arrays, inside the statement | 0 |
//! | more, known to be new | by COPY straight into the table | 2 |
//! | more, others | by COPY into a temporary table, from which the statement takes them | 2 |
//!
//! A batch without streams is the statement alone, which is its own transaction: one round trip. With streams BEGIN,
//! the statement and COMMIT are one each. The first batch of a shape costs one more for each of its statements, to
//! prepare them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use postgres::types::{ToSql, Type};

use super::binary::{COPY_HEADER, COPY_TRAILER, Moment, RawArray, gather, types_of};
use super::fault::Fault;
use super::home::Home;
use super::notice;
use super::own::{SHARD, own};
use super::quarantine;
use super::session::{Link, Param};
use super::snapshots::newest;
use super::source;
use super::tables::{checkpoint_values, table_name};
use crate::batch::{SealedBatch, SnapshotDraft};
use crate::model::limits::{HISTORY_PRUNE_RECORDS_MAX, SNAPSHOT_PRUNE_ROWS_MAX, UNNEST_ROWS_MAX};
use crate::model::schema::{Entity, Schema};
use crate::model::timestamp::Timestamp;
use crate::model::value::ColumnType;
use crate::rows::changes::{ChangeCounts, RegionChanges, RowAt};
use crate::rows::codec::Change;
use crate::snapshot::NOTHING;
use crate::store::snapshot_policy::{SnapshotPolicy, sql};
use crate::store::sql::{quoted, signed};
use crate::store::{CommitTimes, SnapshotReceipt, StorePlan};
use crate::undo::UndoRecord;

/// Bytes of one table that go as arrays: they are held three times (as rows, as arrays, as a message), a stream once.
const UNNEST_BYTES_MAX: usize = 1024 * 1024;

/// How many times more new rows than others there must be for the new ones to be streamed apart from them.
const NEW_SHARE_MIN: usize = 2;

/// The statements of each table.
pub(super) struct Layout {
    table: String,
    stage: String,
    columns: String,
    /// The type of each column and of arrays of it; the first two are region and id.
    types: Vec<(Type, Type)>,
    conflict: String,
}

impl Layout {
    fn new(pipeline: &str, number: usize, entity: &Entity) -> Self {
        let names: Vec<String> = entity.columns.iter().map(|column| quoted(&column.name)).collect();
        let columns: String = names.iter().map(|name| format!(", {name}")).collect();
        let sets: Vec<String> = names.iter().map(|name| format!("{name} = excluded.{name}")).collect();
        let update = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
        let keys = [types_of(ColumnType::Text), types_of(ColumnType::Text)];
        let kinds = entity.columns.iter().map(|column| types_of(column.kind));
        Self {
            table: table_name(pipeline, &entity.name),
            stage: format!("pg_temp.forebay_stage_{number}"),
            columns: format!("\"region\", \"id\"{columns}"),
            types: keys.into_iter().chain(kinds).collect(),
            conflict: format!("ON CONFLICT (\"region\", \"id\") DO {update}"),
        }
    }

    /// The table, as SQL names it.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    pub(super) fn all(pipeline: &str, schema: &Schema) -> Arc<[Self]> {
        schema.entities().iter().enumerate().map(|(at, entity)| Self::new(pipeline, at, entity)).collect()
    }

    /// What writes rows from arrays; `places` are the parameters.
    pub(super) fn upsert_from_arrays(&self, places: &str, gate: &str) -> String {
        format!("INSERT INTO {} ({}) SELECT * FROM unnest({places}) {gate} {}", self.table, self.columns, self.conflict)
    }

    /// What removes rows whose keys are in two arrays.
    pub(super) fn delete_by_arrays(&self, places: &str, gate: &str) -> String {
        format!(
            "DELETE FROM {} t USING unnest({places}) k (region, id) WHERE t.\"region\" = k.region AND t.\"id\" = k.id {gate}",
            self.table
        )
    }

    /// The array parameters of some rows, one for each column.
    pub(super) fn arrays<'b>(&self, tuples: impl Iterator<Item = &'b [u8]>) -> Vec<RawArray> {
        let mut arrays: Vec<RawArray> = self.types.iter().map(|(kind, _)| RawArray::new(kind.clone())).collect();
        gather(&mut arrays, tuples);
        arrays
    }

    /// Regions and ids of some rows.
    pub(super) fn keys<'b>(tuples: impl Iterator<Item = &'b [u8]>) -> [RawArray; 2] {
        let mut keys = [RawArray::new(Type::TEXT), RawArray::new(Type::TEXT)];
        gather(&mut keys, tuples);
        keys
    }

    /// The type of the array parameter of a column.
    pub(super) fn array_type(&self, at: usize) -> Type {
        self.types[at].1.clone()
    }
}

/// The bytes of one row, without those of the next.
pub(super) fn tuple(region: &RegionChanges, at: usize) -> &[u8] {
    let end = region.rows.get(at + 1).map_or(region.packed.len(), |next| next.start);
    region.rows.get(at).and_then(|row| region.packed.get(row.start..end)).unwrap_or_default()
}

/// Rows of a table that are of a kind, one after another.
fn tuples<'b>(
    regions: &'b [RegionChanges],
    keep: impl Fn(Change) -> bool + Copy + 'b,
) -> impl Iterator<Item = &'b [u8]> {
    regions.iter().flat_map(move |region| {
        let kept = region.rows.iter().enumerate().filter(move |(_, row)| keep(row.change));
        kept.map(move |(at, _)| tuple(region, at))
    })
}

/// The same rows as few long pieces: neighbours that are both kept lie side by side.
fn runs<'b>(regions: &'b [RegionChanges], keep: impl Fn(Change) -> bool + Copy + 'b) -> impl Iterator<Item = &'b [u8]> {
    regions.iter().flat_map(move |region| {
        let kept = move |a: &RowAt, b: &RowAt| keep(a.change) == keep(b.change);
        region.rows.chunk_by(kept).scan(0, move |started, run| {
            let (first, end) = (*started, *started + run.len());
            *started = end;
            let stop = region.rows.get(end).map_or(region.packed.len(), |next| next.start);
            Some(if keep(run[0].change) { &region.packed[region.rows[first].start..stop] } else { &[][..] })
        })
    })
}

/// How live rows go that are not copied straight into their table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// There are none.
    None,
    /// As arrays.
    Arrays,
    /// By way of a temporary table.
    Stage,
}

/// How the rows of one table go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    /// New rows straight into the table.
    copies_new: bool,
    rest: Rest,
    deletes: bool,
}

impl Route {
    fn of(regions: &[RegionChanges], trusts_new: bool) -> Self {
        let counts = ChangeCounts::of(regions);
        let ChangeCounts { deleted, written, new } = counts;
        let copies_new = trusts_new && written + new > UNNEST_ROWS_MAX && new >= NEW_SHARE_MIN * written.max(1);
        let rest = if copies_new { written } else { written + new };
        let bytes: usize = regions.iter().map(|region| region.packed.len()).sum();
        // About as much as is the rest's share of the rows.
        let bytes = bytes / counts.all().max(1) * rest;
        let rest = match rest {
            0 => Rest::None,
            1..=UNNEST_ROWS_MAX if bytes <= UNNEST_BYTES_MAX => Rest::Arrays,
            _ => Rest::Stage,
        };
        Self { copies_new, rest, deletes: deleted > 0 }
    }

    fn is_streamed(self) -> bool {
        self.copies_new || self.rest == Rest::Stage
    }

    /// Whether a live row that is not copied straight has this change.
    fn is_rest(self, change: Change) -> bool {
        change != Change::Deleted && !(self.copies_new && change == Change::New)
    }
}

/// What a transaction did.
pub(super) struct Written {
    /// Whether the checkpoint was the expected one; if not, nothing was written.
    pub(super) has_moved: bool,
    pub(super) snapshots: Vec<SnapshotReceipt>,
    pub(super) times: CommitTimes,
}

/// Writes a batch. What it returns is durable. After a fault it is not known whether the batch was written.
pub(super) fn write(
    link: &mut Link,
    plan: &StorePlan,
    layouts: &[Layout],
    batch: &SealedBatch,
    backend: i32,
    trusts_new: bool,
) -> Result<Written, Fault> {
    let routes: Vec<Route> = batch.changes.iter().map(|regions| Route::of(regions, trusts_new)).collect();
    let statement = Statement::of(plan, layouts, batch, &routes, backend);
    let started = Instant::now();
    if !routes.iter().any(|route| route.is_streamed()) {
        let moved = statement.run(link)?;
        return Ok(moved.written(batch, CommitTimes { merge: started.elapsed(), ..CommitTimes::default() }));
    }
    for (_, layout) in routes.iter().zip(layouts).filter(|(route, _)| route.rest == Rest::Stage) {
        let Layout { table, stage, columns, .. } = layout;
        let sql = format!(
            "CREATE TEMP TABLE IF NOT EXISTS {stage} ON COMMIT DELETE ROWS AS SELECT {columns} FROM {table} WITH NO DATA"
        );
        link.make_once(stage, &sql)?;
    }
    link.run("BEGIN")?;
    for ((route, layout), regions) in routes.iter().zip(layouts).zip(&batch.changes) {
        if route.copies_new {
            copy(link, &layout.table, layout, runs(regions, |change| change == Change::New))?;
        }
        if route.rest == Rest::Stage {
            let route = *route;
            copy(link, &layout.stage, layout, runs(regions, move |change| route.is_rest(change)))?;
        }
    }
    let stream = started.elapsed();
    let moved = statement.run(link)?;
    let merge = started.elapsed() - stream;
    link.run(if moved.has_moved { "COMMIT" } else { "ROLLBACK" })?;
    Ok(moved.written(batch, CommitTimes { stream, merge, commit: started.elapsed() - stream - merge }))
}

fn copy<'b>(link: &mut Link, target: &str, layout: &Layout, rows: impl Iterator<Item = &'b [u8]>) -> Result<(), Fault> {
    let sql = format!("COPY {target} ({}) FROM STDIN BINARY", layout.columns);
    link.copy_in(&sql, [COPY_HEADER].into_iter().chain(rows).chain([COPY_TRAILER])).map(drop)
}

/// Goes on only if the checkpoint has moved. It is looked at once, not once a row.
const GATE: &str = "EXISTS (SELECT FROM moved)";

/// The one statement of a batch. Its text depends on the shape of the batch alone, so that it is prepared once.
struct Statement {
    sql: String,
    /// What comes before the names of our tables.
    own: String,
    params: Vec<(Box<dyn ToSql + Sync>, Type)>,
    has_snapshots: bool,
}

impl Statement {
    fn of(plan: &StorePlan, layouts: &[Layout], batch: &SealedBatch, routes: &[Route], backend: i32) -> Self {
        let own = own(&plan.pipeline, "");
        let mut statement = Self { sql: String::from("WITH "), own, params: Vec::new(), has_snapshots: false };
        statement.checkpoint(batch, backend);
        for (at, ((route, layout), regions)) in routes.iter().zip(layouts).zip(&batch.changes).enumerate() {
            statement.rows(at, *route, layout, regions);
        }
        statement.undo_record(batch);
        statement.source_files(batch);
        statement.quarantine(batch);
        if batch.snapshots.is_empty() {
            if batch.undone.is_none() {
                statement.regions(batch);
            }
            let told = statement.told(plan, batch);
            statement.add(&format!(" SELECT (SELECT count(*) FROM moved){told}"));
        } else {
            statement.snapshots(plan, batch);
            statement.prune(plan);
            let told = statement.told(plan, batch);
            statement.add(&format!(
                " SELECT (SELECT count(*) FROM moved), stored.region, stored.id{told}
                  FROM (VALUES (1)) one (n) LEFT JOIN stored ON true"
            ));
        }
        statement
    }

    /// Tells who listens, if the checkpoint has moved. A column of the answer, as only what is asked for is done.
    fn told(&mut self, plan: &StorePlan, batch: &SealedBatch) -> String {
        if !plan.config.notify {
            return String::new();
        }
        let notice = self.param(notice::text(&plan.pipeline, batch), Type::TEXT);
        format!(", (SELECT count(pg_notify('{}', {notice})) FROM moved)", notice::CHANNEL)
    }

    /// Adds a parameter; returns how the statement calls it.
    fn param(&mut self, value: impl ToSql + Sync + 'static, kind: Type) -> String {
        self.params.push((Box::new(value), kind.clone()));
        format!(
            "${}::{}",
            self.params.len(),
            kind.name().strip_prefix('_').map_or_else(|| kind.name().to_owned(), |one| format!("{one}[]"))
        )
    }

    fn add(&mut self, text: &str) {
        self.sql.push_str(text);
    }

    fn checkpoint(&mut self, batch: &SealedBatch, backend: i32) {
        let own = self.own.clone();
        let (number, block, block_events, blocks, events) = checkpoint_values(&batch.after);
        // The first parameter is the shard, wherever it is named.
        let shard = self.param(SHARD, Type::INT4);
        let number = self.param(number, Type::INT8);
        let block = self.param(block, Type::INT8);
        let block_events = self.param(block_events, Type::INT8);
        let blocks = self.param(blocks, Type::INT8);
        let events = self.param(events, Type::INT8);
        let now = self.param(Moment(Timestamp::now()), Type::TIMESTAMPTZ);
        let before = self.param(signed(batch.before.batch), Type::INT8);
        let before_block = self.param(batch.before.block, Type::INT8);
        let backend = self.param(backend, Type::INT4);
        let source = batch.source;
        let digest = self.param(source.digest.map(|digest| digest.to_string()), Type::TEXT);
        let block_digest = self.param(source.block_digest.map(|digest| digest.to_string()), Type::TEXT);
        let place = self.param(source.place, Type::INT8);
        let first_block = self.param(source.first_block, Type::INT8);
        let position = batch.position.as_ref().map(|position| position.as_str().to_owned());
        let position = self.param(position, Type::TEXT);
        self.add(&format!(
            "moved AS (UPDATE {own}checkpoint SET batch = {number}, block = {block}, block_events = {block_events},
               blocks = {blocks}, events = {events}, committed_at = {now}, source_digest = {digest},
               block_digest = {block_digest}, place = {place}, first_block = {first_block},
               position = {position}
             WHERE shard = {shard} AND batch = {before} AND block IS NOT DISTINCT FROM {before_block}
               AND pg_backend_pid() = {backend} RETURNING 1)"
        ));
    }

    fn rows(&mut self, at: usize, route: Route, layout: &Layout, regions: &[RegionChanges]) {
        if route.rest == Rest::Arrays {
            let arrays = layout.arrays(tuples(regions, move |change| route.is_rest(change)));
            let places: Vec<String> =
                arrays.into_iter().enumerate().map(|(at, array)| self.param(array, layout.array_type(at))).collect();
            let upsert = layout.upsert_from_arrays(&places.join(", "), &format!("WHERE {GATE}"));
            let _ = write!(self.sql, ", rows{at} AS ({upsert})");
        }
        if route.rest == Rest::Stage {
            // Rows that were streamed are in a transaction, which is rolled back if the checkpoint has not moved: to look
            // at that here would cost 4 % of it.
            let Layout { table, stage, columns, conflict, .. } = layout;
            let _ = write!(
                self.sql,
                ", rows{at} AS (INSERT INTO {table} ({columns}) SELECT {columns} FROM {stage} {conflict})"
            );
        }
        if route.deletes {
            let keys = Layout::keys(tuples(regions, |change| change == Change::Deleted));
            let [region, id] = keys.map(|array| self.param(array, Type::TEXT_ARRAY));
            let delete = layout.delete_by_arrays(&format!("{region}, {id}"), &format!("AND {GATE}"));
            let _ = write!(self.sql, ", gone{at} AS ({delete})");
        }
    }

    /// What the batch leaves so that it can be rolled back, and a few records go that no rollback can need any more.
    fn undo_record(&mut self, batch: &SealedBatch) {
        let own = self.own.clone();
        if let Some(UndoRecord { batch, before, last_block, head, rows }) = &batch.undo {
            let number = self.param(signed(*batch), Type::INT8);
            let before = self.param(signed(*before), Type::INT8);
            let last_block = self.param(*last_block, Type::INT8);
            let head = self.param(head.clone(), Type::TEXT);
            let rows = self.param(rows.clone(), Type::BYTEA);
            self.add(&format!(
                ", history AS (INSERT INTO {own}history (shard, batch, before, last_block, head, rows)
                   SELECT $1, {number}, {before}, {last_block}, {head}, {rows} WHERE {GATE})"
            ));
        }
        if let Some(floor) = batch.undo_floor {
            let number = self.param(signed(batch.after.batch), Type::INT8);
            let floor = self.param(floor, Type::INT8);
            self.add(&format!(
                ", history_pruned AS (DELETE FROM {own}history WHERE {GATE} AND shard = $1 AND batch IN (
                   SELECT h.batch FROM {own}history h WHERE h.shard = $1 AND h.batch < {number}
                     AND (h.last_block IS NULL OR h.last_block <= {floor})
                   ORDER BY h.batch LIMIT {HISTORY_PRUNE_RECORDS_MAX}))"
            ));
        }
        let Some(undone) = &batch.undone else { return };
        let first = self.param(signed(undone.records_from), Type::INT8);
        let names = undone.regions.iter().map(|region| &*region.region);
        let names = self.param(RawArray::of_texts(names), Type::TEXT_ARRAY);
        let fallback = batch.after.block.unwrap_or(undone.to);
        let blocks = undone.regions.iter().map(|region| region.block.unwrap_or(fallback));
        let blocks = self.param(RawArray::of_int8s(blocks), Type::INT8_ARRAY);
        let events = undone.regions.iter().map(|region| signed(region.events));
        let events = self.param(RawArray::of_int8s(events), Type::INT8_ARRAY);
        let to = self.param(undone.to, Type::INT8);
        // A region that no event has any more stays, for its numbers must not begin again. What a snapshot covered behind
        // the block is not covered any more, also where no event was taken back.
        self.add(&format!(
            ", history_undone AS (DELETE FROM {own}history WHERE {GATE} AND shard = $1 AND batch >= {first}),
             regions_undone AS (UPDATE {own}regions r
               SET block = coalesce(u.block, r.block), events = greatest(r.events - coalesce(u.events, 0), 0),
                 snapshot_block = CASE WHEN u.region IS NULL THEN {to} END
               FROM {own}regions s LEFT JOIN unnest({names}, {blocks}, {events}) u (region, block, events) ON u.region = s.region
               WHERE {GATE} AND r.region = s.region
                 AND (u.region IS NOT NULL OR s.snapshot_block > {to}))"
        ));
    }

    /// Files of the source; of files that a rollback reaches into nothing is known any more but their names, and those of
    /// which lines were left out are to be read again.
    fn source_files(&mut self, batch: &SealedBatch) {
        let own = self.own.clone();
        if let Some(undone) = &batch.undone {
            let to = self.param(undone.to, Type::INT8);
            self.add(&format!(
                ", files_undone AS (UPDATE {own}source_files SET
                   is_whole = is_whole AND NOT coalesce(last_block > {to}, false),
                   bytes = CASE WHEN late > 0 THEN 0 ELSE bytes END
                   WHERE {GATE} AND shard = $1 AND (last_block > {to} OR late > 0))"
            ));
        }
        if !batch.files.is_empty() {
            let files = self.param(source::json(&batch.files), Type::TEXT);
            self.add(&format!(
                ", files AS (INSERT INTO {own}source_files SELECT $1, f.* FROM json_to_recordset({files}::json)
                   f ({}) WHERE {GATE} ON CONFLICT (shard, name) DO UPDATE SET
                   bytes = excluded.bytes, modified = excluded.modified, inode = excluded.inode,
                   is_whole = excluded.is_whole, first_block = excluded.first_block, last_block = excluded.last_block,
                   last_events = excluded.last_events, last_place = excluded.last_place, events = excluded.events,
                   late = excluded.late, digest = excluded.digest, content = excluded.content,
                   tail = excluded.tail)",
                source::COLUMNS
            ));
        }
    }

    /// Events that the batch puts aside; of a rollback, those of later blocks come out.
    fn quarantine(&mut self, batch: &SealedBatch) {
        let own = self.own.clone();
        if let Some(undone) = &batch.undone {
            let to = self.param(undone.to, Type::INT8);
            self.add(&format!(
                ", quarantine_undone AS (DELETE FROM {own}quarantine WHERE {GATE} AND shard = $1 AND block > {to})"
            ));
        }
        if batch.quarantined.is_empty() {
            return;
        }
        let number = self.param(signed(batch.after.batch), Type::INT8);
        let columns = quarantine::arrays(&batch.quarantined).map(|(array, kind)| self.param(array, kind)).join(", ");
        self.add(&format!(
            ", quarantine AS (INSERT INTO {own}quarantine
                 (shard, batch, number, file, line, block, place, region, stage, error, event, time)
               SELECT $1, {number}, q.* FROM unnest({columns})
                 q (number, file, line, block, place, region, stage, error, event, time) WHERE {GATE})"
        ));
    }

    /// The regions that had events, as a table of parameters.
    fn touched(&mut self, batch: &SealedBatch) -> String {
        let touched = &batch.touched;
        let names = self.param(RawArray::of_texts(touched.iter().map(|touch| &*touch.region)), Type::TEXT_ARRAY);
        let blocks = self.param(RawArray::of_int8s(touched.iter().map(|touch| touch.block)), Type::INT8_ARRAY);
        let events = self.param(RawArray::of_int8s(touched.iter().map(|touch| signed(touch.events))), Type::INT8_ARRAY);
        format!("unnest({names}, {blocks}, {events}) t (region, block, events)")
    }

    fn regions(&mut self, batch: &SealedBatch) {
        let own = self.own.clone();
        let touched = self.touched(batch);
        self.add(&format!(
            ", regions AS (INSERT INTO {own}regions AS r (region, block, events, seq)
               SELECT t.region, t.block, t.events, 0 FROM {touched} WHERE {GATE}
               ON CONFLICT (region) DO UPDATE SET block = excluded.block, events = r.events + excluded.events)"
        ));
    }

    /// Snapshots that are no duplicates get the next number of their region; the region is covered either way.
    fn snapshots(&mut self, plan: &StorePlan, batch: &SealedBatch) {
        self.has_snapshots = true;
        let own = self.own.clone();
        let drafts = &batch.snapshots;
        let regions = self.param(RawArray::of_texts(drafts.iter().map(|draft| &*draft.region)), Type::TEXT_ARRAY);
        let blocks = self.param(RawArray::of_int8s(drafts.iter().map(|draft| draft.block)), Type::INT8_ARRAY);
        let times = drafts.iter().map(|draft| draft.generated_at);
        let times = self.param(RawArray::of_times(times), Type::TIMESTAMPTZ_ARRAY);
        let policy = SnapshotPolicy::of(plan);
        let since = drafts.iter().map(|draft| policy.since(draft));
        let since = self.param(RawArray::of_times(since), Type::TIMESTAMPTZ_ARRAY);
        let hashes = self.param(RawArray::of_texts(drafts.iter().map(|draft| draft.hash.as_str())), Type::TEXT_ARRAY);
        let docs = self.param(docs(drafts), Type::TEXT_ARRAY);
        let touched = self.touched(batch);
        let (is_new, next_seq) = (sql::IS_NEW, sql::next_seq("seq"));
        let id = sql::id("region", &next_seq, "hash");
        self.add(&format!(
            ", drafts AS (
               SELECT d.*, coalesce(r.seq, 0) AS seq, {is_new} AS is_kept
               FROM unnest({regions}, {blocks}, {times}, {since}, {hashes}, {docs})
                 d (region, block, generated_at, since, hash, doc)
               LEFT JOIN LATERAL (
                 SELECT g.seq FROM {own}regions g WHERE g.region = d.region LIMIT 1) r ON true
               LEFT JOIN LATERAL (
                 SELECT s.hash, s.generated_at, s.block FROM {own}snapshots s
                 WHERE s.region = d.region AND s.seq = r.seq LIMIT 1) n ON true
               WHERE {GATE}),
             stored AS (
               INSERT INTO {own}snapshots (region, id, seq, block, generated_at, hash, doc)
               SELECT region, {id}, {next_seq}, block, generated_at, hash, coalesce(doc, '{NOTHING}')::json
               FROM drafts WHERE is_kept RETURNING region, id),
             regions AS (
               INSERT INTO {own}regions AS r (region, block, events, seq, snapshot_block)
               SELECT coalesce(t.region, d.region), coalesce(t.block, d.block), coalesce(t.events, 0),
                 coalesce(d.seq + d.is_kept::int, 0), d.block
               FROM {touched} FULL JOIN drafts d ON d.region = t.region WHERE {GATE}
               ON CONFLICT (region) DO UPDATE SET
                 block = CASE WHEN excluded.events > 0 THEN excluded.block ELSE r.block END,
                 events = r.events + excluded.events,
                 seq = greatest(r.seq, excluded.seq),
                 snapshot_block = coalesce(excluded.snapshot_block, r.snapshot_block))"
        ));
    }

    /// Removes what is older than the ttl, but never a region's newest, and not more than a commit can bear.
    fn prune(&mut self, plan: &StorePlan) {
        let own = self.own.clone();
        let oldest = self.param(Moment(SnapshotPolicy::of(plan).oldest(Timestamp::now())), Type::TIMESTAMPTZ);
        // What the statement stores itself it does not see yet.
        let is_older = format!(
            "(s.seq < (SELECT r.seq FROM {own}regions r WHERE r.region = s.region)
              OR s.region IN (SELECT k.region FROM stored k))"
        );
        let is_pruned = sql::is_pruned("s.generated_at", &oldest, &is_older);
        self.add(&format!(
            ", pruned AS (DELETE FROM {own}snapshots WHERE {GATE} AND (region, seq) IN (
               SELECT s.region, s.seq FROM {own}snapshots s
               WHERE {is_pruned}
               LIMIT {SNAPSHOT_PRUNE_ROWS_MAX}))"
        ));
    }

    fn run(self, link: &mut Link) -> Result<Moved, Fault> {
        let params: Vec<Param<'_>> = self.params.iter().map(|(value, kind)| (&**value, kind.clone())).collect();
        let rows = link.query(&self.sql, &params)?;
        let moved: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        let mut stored = Stored::new();
        if self.has_snapshots {
            for row in &rows {
                if let (Some(region), Some(id)) = (row.try_get(1)?, row.try_get(2)?) {
                    stored.insert(region, id);
                }
            }
        }
        Ok(Moved { has_moved: moved == 1, stored })
    }
}

/// Gives the newest snapshots of regions numbers above those that are given; all of it in one statement.
pub(super) fn renumber(link: &mut Link, pipeline: &str, above: &[(Arc<str>, u64)]) -> Result<(), Fault> {
    let regions = RawArray::of_texts(above.iter().map(|(region, _)| &**region));
    let floors = RawArray::of_int8s(above.iter().map(|(_, floor)| signed(*floor)));
    let (is_renumbered, next) = (sql::is_renumbered("r.seq", "g.floor"), sql::renumbered("g.floor"));
    let (id, own) = (sql::id("s.region", &next, "s.hash"), own(pipeline, ""));
    let sql = format!(
        "WITH given AS (
           SELECT g.region, g.floor, r.seq FROM unnest($1, $2) g (region, floor)
           JOIN {own}regions r ON r.region = g.region AND {is_renumbered}),
         numbered AS (
           UPDATE {own}snapshots s SET seq = {next}, published_at = NULL, id = {id}
           FROM given g WHERE s.region = g.region AND s.seq = g.seq)
         UPDATE {own}regions r SET seq = {next} FROM given g WHERE r.region = g.region"
    );
    let params = [(&regions as _, Type::TEXT_ARRAY), (&floors as _, Type::INT8_ARRAY)];
    link.query(&sql, &params).map(drop)
}

/// The ids of the snapshots that were stored, by region.
type Stored = HashMap<String, String>;

/// What the statement answered.
struct Moved {
    has_moved: bool,
    stored: Stored,
}

impl Moved {
    fn written(mut self, batch: &SealedBatch, times: CommitTimes) -> Written {
        Written { has_moved: self.has_moved, snapshots: receipts(&batch.snapshots, &mut self.stored), times }
    }
}

/// What became of each document.
fn receipts(drafts: &[SnapshotDraft], stored: &mut Stored) -> Vec<SnapshotReceipt> {
    let receipt = |draft: &SnapshotDraft| {
        let id = stored.remove(&*draft.region);
        (draft.doc.is_some() || id.is_some()).then(|| SnapshotReceipt { region: Arc::clone(&draft.region), id })
    };
    drafts.iter().filter_map(receipt).collect()
}

fn docs(drafts: &[SnapshotDraft]) -> RawArray {
    let mut array = RawArray::new(Type::TEXT);
    for draft in drafts {
        match &draft.doc {
            Some(doc) => array.push_text(doc),
            None => array.push_null(),
        }
    }
    array
}

/// What became of the snapshots of a batch that was written although its answer was lost.
pub(super) fn find_receipts(
    link: &mut Link,
    pipeline: &str,
    batch: &SealedBatch,
) -> Result<Vec<SnapshotReceipt>, Fault> {
    if batch.snapshots.is_empty() {
        return Ok(Vec::new());
    }
    let drafts: HashMap<&str, &SnapshotDraft> = batch.snapshots.iter().map(|draft| (&*draft.region, draft)).collect();
    let regions = RawArray::of_texts(drafts.keys().copied());
    let sql = format!(
        "SELECT s.region, s.id, s.generated_at, s.hash FROM {} WHERE r.region = ANY ($1)",
        newest(&Home::Beside(pipeline.to_owned()))
    );
    let mut stored = Stored::new();
    for row in link.query(&sql, &[(&regions, Type::TEXT_ARRAY)])? {
        let (region, id, time, hash): (String, String, Moment, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let is_ours = |draft: &&SnapshotDraft| draft.generated_at == time.0 && draft.hash == hash;
        if drafts.get(region.as_str()).is_some_and(is_ours) {
            stored.insert(region, id);
        }
    }
    Ok(receipts(&batch.snapshots, &mut stored))
}
