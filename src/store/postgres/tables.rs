//! The tables of the Postgres store, and what may change about them.
//!
//! A pipeline's are in a schema of its name, and ours beside them. Keys compare byte by byte (`COLLATE "C"`),
//! as sealed rows are sorted, so that a batch goes through an index from left to right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postgres::types::Type;

use super::binary::{Moment, types_of};
use super::earlier::Earlier;
use super::fault::Fault;
use super::fill;
use super::home::{Home, beside_marks};
use super::own::{self, FORMAT, SHARD, own};
use super::session::Link;
use crate::batch::RegionTouch;
use crate::model::checkpoint::Checkpoint;
use crate::model::limits::NAME_BYTES_MAX;
use crate::model::schema::{Column, Entity, SchemaError, parse_columns};
use crate::model::timestamp::Timestamp;
use crate::model::value::ColumnType;
use crate::store::StorePlan;
use crate::store::sql::{differences_of, new_signature, quoted, signed, unsigned};
use crate::undo::UndoRecord;

/// Names that a table of Postgres has already (<https://www.postgresql.org/docs/current/ddl-system-columns.html>).
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "xmin", "cmin", "xmax", "cmax", "tableoid"];

/// Refuses names that Postgres keeps for itself. Others are fit for it by the rules of the schema.
///
/// # Errors
/// The name.
pub(in crate::store) fn check_names(pipeline: &str, entities: &[Entity]) -> Result<(), SchemaError> {
    if pipeline == "forebay" || pipeline == "information_schema" || pipeline.starts_with("pg_") {
        return Err(SchemaError(format!(
            "pipeline name {pipeline:?}: in Postgres it is the name of a schema that is taken; choose another"
        )));
    }
    for entity in entities {
        if let Some(column) = entity.columns.iter().find(|column| SYSTEM_COLUMNS.contains(&column.name.as_str())) {
            return Err(SchemaError(format!(
                "entity {:?}: column {:?}: every table of Postgres has it already; choose another name",
                entity.name, column.name
            )));
        }
    }
    Ok(())
}

/// What the database holds for the plan.
pub(super) enum Prepared {
    /// What is needed is there, but for indexes on tables that may be large: what makes them; and whether an index stands
    /// beside.
    Ready { late: Vec<String>, has_beside: bool },
    /// An earlier version has made our tables: they are to be brought over.
    Earlier,
    /// It holds other tables.
    Differs(Vec<String>),
    /// A later forebay has made them.
    Later(i64),
}

/// Makes what is missing and compares the rest. Changes nothing where nothing is missing, so that a role without the
/// right to make tables can run.
pub(super) fn prepare(link: &mut Link, plan: &StorePlan) -> Result<Prepared, Fault> {
    let survey = Survey::take(link, plan)?;
    if let Some(refused) = survey.refusal(plan) {
        return Ok(refused);
    }
    if survey.earlier().is_some() {
        return Ok(Prepared::Earlier);
    }
    if !survey.is_complete(plan) {
        in_transaction(link, "BEGIN", |link| make(link, plan, &survey))?;
    }
    for entity in plan.schema.entities().iter().filter(|entity| survey.only_grown.contains(&entity.name)) {
        fill::fill_up(link, &table_name(&plan.pipeline, &entity.name))?;
    }
    Ok(Prepared::Ready { late: survey.late_indexes(plan), has_beside: survey.has_beside })
}

/// The same, and brings over what an earlier version has made, in the same transaction; the server sets no time limit for
/// it.
pub(super) fn bring_over(link: &mut Link, plan: &StorePlan) -> Result<Prepared, Fault> {
    let survey = Survey::take(link, plan)?;
    if let Some(refused) = survey.refusal(plan) {
        return Ok(refused);
    }
    in_transaction(link, "BEGIN; SET LOCAL statement_timeout = 0", |link| make(link, plan, &survey))?;
    Ok(Prepared::Ready { late: survey.late_indexes(plan), has_beside: survey.has_beside })
}

pub(super) fn in_transaction(
    link: &mut Link,
    begin: &str,
    work: impl FnOnce(&mut Link) -> Result<(), Fault>,
) -> Result<(), Fault> {
    link.run(begin)?;
    let done = work(link);
    let ended = link.run(if done.is_ok() { "COMMIT" } else { "ROLLBACK" });
    done.and(ended)
}

/// Makes indexes on tables that may be large; the server sets no time limit for it.
pub(super) fn make_indexes(link: &mut Link, indexes: &[String]) -> Result<(), Fault> {
    link.run("BEGIN; SET LOCAL statement_timeout = 0")?;
    indexes.iter().try_for_each(|index| link.run(index))?;
    link.run("COMMIT")
}

fn make(link: &mut Link, plan: &StorePlan, survey: &Survey) -> Result<(), Fault> {
    let pipeline = &plan.pipeline;
    if !survey.has_schema {
        link.run(&format!("CREATE SCHEMA {}", quoted(pipeline)))?;
    }
    if !survey.has_own {
        own::make(link, plan)?;
    }
    if let Some(earlier) = survey.earlier() {
        earlier.bring_over(link, pipeline)?;
    }
    for entity in plan.schema.entities() {
        make_entity(link, plan, entity, survey.stored(&entity.name))?;
    }
    let (row, checkpoint) = (own(pipeline, "pipeline"), own(pipeline, "checkpoint"));
    let sql = format!(
        "INSERT INTO {checkpoint} (shard, batch, block_events, blocks, events) VALUES ($1, 0, 0, 0, 0) ON CONFLICT DO NOTHING"
    );
    link.query(&sql, &[(&SHARD, Type::INT4)])?;
    let sql = format!(
        "INSERT INTO {row} (format, has_snapshots, signature) SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT 1 FROM {row})"
    );
    let (has_snapshots, signature) = (plan.has_snapshots, new_signature());
    link.query(&sql, &[(&FORMAT, Type::INT8), (&has_snapshots, Type::BOOL), (&signature, Type::TEXT)])?;
    let sql = format!("UPDATE {row} SET has_snapshots = $1 WHERE has_snapshots <> $1");
    link.query(&sql, &[(&has_snapshots, Type::BOOL)]).map(drop)
}

/// What there is.
struct Survey {
    /// Where our tables are; none if there are none.
    home: Option<Home>,
    /// Whether all of ours are beside the pipeline's.
    has_own: bool,
    has_schema: bool,
    /// Format and whether there are snapshots, if the pipeline is known.
    known: Option<(i64, bool)>,
    has_checkpoint: bool,
    /// Entities and their columns, as they were noted down.
    entities: Vec<(String, String)>,
    /// Tables, views and indexes in the pipeline's schema.
    relations: BTreeSet<String>,
    /// The columns of its tables as they are now, by `table.column`: people change tables.
    columns: BTreeMap<String, TypeNow>,
    /// The unique keys of its tables, as `table column,column`.
    keys: BTreeSet<String>,
    /// Those of its tables that have room in their pages for changes that do not come.
    only_grown: Vec<String>,
    /// Whether an index stands beside, as far as this role may look.
    has_beside: bool,
}

/// The type that a column has now. Settings of the server change how its name is written, and not its number.
struct TypeNow {
    number: u32,
    /// A bound such as that of `varchar(10)`; -1 for none.
    bound: i32,
    name: String,
}

impl Survey {
    fn take(link: &mut Link, plan: &StorePlan) -> Result<Self, Fault> {
        let pipeline = (&plan.pipeline as _, Type::TEXT);
        let (only_grown, beside) = (fill::only_grown(), beside_marks(&plan.pipeline));
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1),
                     ARRAY(SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1),
                     ARRAY(SELECT c.relname || ' ' || (SELECT string_agg(a.attname, ',' ORDER BY k.n)
                                FROM unnest(i.indkey) WITH ORDINALITY k (num, n) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num)
                           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index i ON i.indrelid = c.oid
                           WHERE n.nspname = $1 AND i.indisunique AND i.indpred IS NULL),
                     {only_grown},
                     ({beside}) > 0"
        );
        let row = link.query(&sql, std::slice::from_ref(&pipeline))?;
        let row = row.first().ok_or_else(no_answer)?;
        let (relations, keys): (Vec<String>, Vec<String>) = (row.try_get(1)?, row.try_get(2)?);
        let relations: BTreeSet<String> = relations.into_iter().collect();
        let mut survey = Self {
            home: Home::find(link, &plan.pipeline)?,
            has_own: own::names().all(|name| relations.contains(&name)),
            has_schema: row.try_get(0)?,
            known: None,
            has_checkpoint: false,
            entities: Vec::new(),
            relations,
            columns: BTreeMap::new(),
            keys: keys.into_iter().collect(),
            only_grown: row.try_get(3)?,
            has_beside: row.try_get(4)?,
        };
        let sql = "SELECT c.relname || '.' || a.attname, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod)
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
                   WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped";
        for row in link.query(sql, &[pipeline])? {
            let now = TypeNow { number: row.try_get(1)?, bound: row.try_get(2)?, name: row.try_get(3)? };
            survey.columns.insert(row.try_get(0)?, now);
        }
        if let Some(home) = survey.home.clone() {
            survey.look_into(link, &home)?;
        }
        Ok(survey)
    }

    /// Reads what our tables say.
    fn look_into(&mut self, link: &mut Link, home: &Home) -> Result<(), Fault> {
        // Somebody may have removed one of them.
        let has = |name: &str| match home {
            Home::Beside(_) => self.relations.contains(&format!("_forebay_{name}")),
            Home::Earlier(_) => true,
        };
        let (has_row, has_entities) = (has("pipeline"), has("entities"));
        if has_row {
            let sql = format!("SELECT p.format, p.has_snapshots FROM {} p", home.table("pipeline"));
            let rows = link.query(&sql, &[])?;
            let known = rows.first().map(|row| Ok::<_, Fault>((row.try_get(0)?, row.try_get(1)?)));
            self.known = known.transpose()?;
        }
        let sql = format!("SELECT 1 FROM {} c WHERE c.shard = $1", home.table("checkpoint"));
        self.has_checkpoint = !link.query(&sql, &[(&SHARD, Type::INT4)])?.is_empty();
        if has_entities {
            let sql = format!("SELECT e.entity, e.columns FROM {} e ORDER BY e.entity", home.table("entities"));
            for row in link.query(&sql, &[])? {
                self.entities.push((row.try_get(0)?, row.try_get(1)?));
            }
        }
        Ok(())
    }

    /// What is to be brought over.
    fn earlier(&self) -> Option<&Earlier> {
        match &self.home {
            Some(Home::Earlier(earlier)) => Some(earlier),
            Some(Home::Beside(_)) | None => None,
        }
    }

    fn stored(&self, entity: &str) -> Option<&str> {
        self.entities.iter().find(|(name, _)| name == entity).map(|(_, columns)| columns.as_str())
    }

    fn refusal(&self, plan: &StorePlan) -> Option<Prepared> {
        if let Some((format, _)) = self.known.filter(|(format, _)| *format > FORMAT) {
            return Some(Prepared::Later(format));
        }
        let mut found = Vec::new();
        for (entity, columns) in &self.entities {
            match plan.schema.entity(entity).map(|at| &plan.schema[at]) {
                None => found.push(format!("entity {entity} is missing from the pipeline file")),
                Some(_) if !self.relations.contains(entity) => {
                    found.push(format!("table {}.{entity} was removed", plan.pipeline));
                }
                Some(planned) => {
                    differences_of(planned, columns, &mut found);
                    self.changes_by_others(planned, columns, &mut found);
                }
            }
        }
        for entity in plan.schema.entities() {
            if self.stored(&entity.name).is_none() && self.relations.contains(&entity.name) {
                found.push(format!(
                    "table {}.{} is there already and was not made by forebay",
                    plan.pipeline, entity.name
                ));
            }
        }
        if !matches!(self.home, Some(Home::Beside(_))) {
            // Under such names nothing but ours can be.
            let taken = own::names().filter(|name| self.relations.contains(name));
            found.extend(
                taken.map(|name| format!("{}.{name} is there already and was not made by forebay", plan.pipeline)),
            );
        }
        (!found.is_empty()).then_some(Prepared::Differs(found))
    }

    /// What others have changed about a table, so that rows could not be written to it or would be read wrongly.
    fn changes_by_others(&self, entity: &Entity, stored: &str, found: &mut Vec<String>) {
        let name = &entity.name;
        let noted: Vec<(&str, &str)> = parse_columns(stored);
        let keys = [("region", ColumnType::Text), ("id", ColumnType::Text)];
        let wanted = noted.iter().filter_map(|(column, kind)| Some((*column, ColumnType::from_name(kind)?)));
        for (column, kind) in keys.into_iter().chain(wanted) {
            match self.columns.get(&format!("{name}.{column}")) {
                Some(now) if now.number == types_of(kind).0.oid() && now.bound == -1 => {}
                Some(now) => {
                    found.push(format!("{name}.{column} was altered from {} to {}", sql_type(kind), now.name));
                }
                None => found.push(format!("column {name}.{column} was removed from the table")),
            }
        }
        if !self.keys.contains(&format!("{name} region,id")) {
            found.push(format!("the primary key (region, id) of {name} was removed"));
        }
    }

    /// What makes the indexes that tables lack which were there before.
    fn late_indexes(&self, plan: &StorePlan) -> Vec<String> {
        let mut late = Vec::new();
        for entity in plan.schema.entities().iter().filter(|entity| self.stored(&entity.name).is_some()) {
            let missing = entity.indexes.iter().filter(|index| !self.relations.contains(&index_name(entity, index)));
            late.extend(missing.map(|index| create_index(plan, entity, index)));
        }
        late
    }

    /// Whether all that the plan needs is there, but for indexes.
    fn is_complete(&self, plan: &StorePlan) -> bool {
        let has_entity = |entity: &Entity| self.stored(&entity.name) == Some(&entity.columns_text());
        self.has_own
            && self.has_checkpoint
            && self.known == Some((FORMAT, plan.has_snapshots))
            && plan.schema.entities().iter().all(has_entity)
    }
}

fn no_answer() -> Fault {
    Fault::Unusable("the server gave no answer where it must give one".into())
}

fn make_entity(link: &mut Link, plan: &StorePlan, entity: &Entity, stored: Option<&str>) -> Result<(), Fault> {
    let table = table_name(&plan.pipeline, &entity.name);
    match stored {
        None => {
            let columns: String = entity.columns_as_given().map(|column| format!(", {}", definition(column))).collect();
            link.run(&format!(
                "CREATE TABLE {table} (\"region\" text COLLATE \"C\" NOT NULL, \"id\" text COLLATE \"C\" NOT NULL{columns}, PRIMARY KEY (\"region\", \"id\")) WITH (fillfactor = {})",
                fill::ROOMY
            ))?;
            // One statement a message: Citus takes no index together with another one.
            entity.indexes.iter().try_for_each(|index| link.run(&create_index(plan, entity, index)))?;
        }
        Some(stored) => {
            let known = parse_columns(stored);
            let is_new = |column: &&Column| !known.iter().any(|(name, _)| *name == column.name);
            for column in entity.columns_as_given().filter(is_new) {
                link.run(&format!("ALTER TABLE {table} ADD COLUMN {}", definition(column)))?;
            }
        }
    }
    let columns = entity.columns_text();
    if stored == Some(columns.as_str()) {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO {} (entity, columns) VALUES ($1, $2) ON CONFLICT (entity) DO UPDATE SET columns = excluded.columns",
        own(&plan.pipeline, "entities")
    );
    link.query(&sql, &[(&entity.name, Type::TEXT), (&columns, Type::TEXT)]).map(drop)
}

fn create_index(plan: &StorePlan, entity: &Entity, index: &str) -> String {
    // Texts are found and ordered byte by byte, in the database as in memory.
    let is_text = entity.columns.iter().any(|column| column.name == index && column.kind == ColumnType::Text);
    let collation = if is_text { " COLLATE \"C\"" } else { "" };
    format!(
        "CREATE INDEX IF NOT EXISTS {} ON {} (\"region\", {}{collation}, \"id\")",
        quoted(&index_name(entity, index)),
        table_name(&plan.pipeline, &entity.name),
        quoted(index)
    )
}

/// `entity.column`, or as much of it as Postgres keeps and a hash: two long names must not become one.
fn index_name(entity: &Entity, column: &str) -> String {
    use sha2::{Digest, Sha256};
    let name = format!("{}.{column}", entity.name);
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let hash: String = Sha256::digest(&name).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}.{hash}", &name[..NAME_BYTES_MAX - 1 - hash.len()])
}

pub(super) fn table_name(pipeline: &str, entity: &str) -> String {
    format!("{}.{}", quoted(pipeline), quoted(entity))
}

fn definition(column: &Column) -> String {
    format!("{} {}", quoted(&column.name), sql_type(column.kind))
}

/// A type as Postgres writes it.
pub(super) fn sql_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text => "text",
        ColumnType::Boolean => "boolean",
        ColumnType::Bigint => "bigint",
        ColumnType::Double => "double precision",
        ColumnType::Numeric => "numeric",
        ColumnType::Timestamptz => "timestamp with time zone",
        ColumnType::Jsonb => "jsonb",
        ColumnType::Bytes => "bytea",
    }
}

/// The stored checkpoint; none if the pipeline never ran.
pub(super) fn checkpoint(link: &mut Link, home: &Home) -> Result<Option<Checkpoint>, Fault> {
    Ok(committed(link, home)?.map(|(checkpoint, _)| checkpoint))
}

/// The stored checkpoint, and when it was committed; none if the pipeline never ran.
pub(super) fn committed(link: &mut Link, home: &Home) -> Result<Option<(Checkpoint, Option<Timestamp>)>, Fault> {
    let from = home.table("checkpoint");
    let sql = format!(
        "SELECT c.batch, c.block, c.block_events, c.blocks, c.events, c.committed_at FROM {from} c WHERE c.shard = $1"
    );
    let rows = link.query(&sql, &[(&SHARD, Type::INT4)])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let checkpoint = Checkpoint {
        batch: unsigned(row.try_get(0)?),
        block: row.try_get(1)?,
        block_events: unsigned(row.try_get(2)?),
        blocks: unsigned(row.try_get(3)?),
        events: unsigned(row.try_get(4)?),
    };
    let at: Option<Moment> = row.try_get(5)?;
    Ok(Some((checkpoint, at.map(|Moment(time)| time))))
}

/// The signature under which the pipeline's snapshots are published; none if no run has made it yet.
pub(super) fn signature(link: &mut Link, home: &Home) -> Result<Option<String>, Fault> {
    let rows = link.query(&format!("SELECT p.signature FROM {} p", home.table("pipeline")), &[])?;
    rows.first().map_or(Ok(None), |row| Ok(row.try_get(0)?))
}

/// Regions with events after their last snapshot.
pub(super) fn pending_regions(link: &mut Link, pipeline: &str) -> Result<Vec<RegionTouch>, Fault> {
    let sql = format!(
        "SELECT region, block FROM {} WHERE events > 0 AND (snapshot_block IS NULL OR snapshot_block < block)
         ORDER BY region",
        own(pipeline, "regions")
    );
    let touch = |row: &postgres::Row| {
        Ok(RegionTouch { region: row.try_get::<_, String>(0)?.into(), block: row.try_get(1)?, events: 0 })
    };
    link.query(&sql, &[])?.iter().map(touch).collect()
}

/// The records of the undo log, newest first; the rows only of batches from `rows_from` on.
pub(super) fn undo_log(link: &mut Link, pipeline: &str, rows_from: u64) -> Result<Vec<UndoRecord>, Fault> {
    let sql = format!(
        "SELECT batch, before, last_block, head, CASE WHEN batch >= $2 THEN rows ELSE '' END
         FROM {} WHERE shard = $1 ORDER BY batch DESC",
        own(pipeline, "history")
    );
    let rows = link.query(&sql, &[(&SHARD, Type::INT4), (&signed(rows_from), Type::INT8)])?;
    let record = |row: &postgres::Row| {
        Ok(UndoRecord {
            batch: unsigned(row.try_get(0)?),
            before: unsigned(row.try_get(1)?),
            last_block: row.try_get(2)?,
            head: row.try_get(3)?,
            rows: row.try_get(4)?,
        })
    };
    rows.iter().map(record).collect()
}

/// Each region and the last block that had an event for it.
pub(super) fn region_blocks(link: &mut Link, pipeline: &str) -> Result<Vec<(Arc<str>, i64)>, Fault> {
    let sql = format!("SELECT region, block FROM {} WHERE events > 0", own(pipeline, "regions"));
    let rows = link.query(&sql, &[])?;
    rows.iter().map(|row| Ok((row.try_get::<_, String>(0)?.into(), row.try_get(1)?))).collect()
}

/// Regions that were set back, had a snapshot before, and none since.
pub(super) fn set_back_regions(link: &mut Link, pipeline: &str) -> Result<Vec<Arc<str>>, Fault> {
    let sql = format!("SELECT region FROM {} WHERE snapshot_block IS NULL AND seq > 0", own(pipeline, "regions"));
    let rows = link.query(&sql, &[])?;
    rows.iter().map(|row| Ok(row.try_get::<_, String>(0)?.into())).collect()
}

/// For each entity, whether its table has no row; in one round trip.
pub(super) fn empty_entities(link: &mut Link, plan: &StorePlan) -> Result<Vec<bool>, Fault> {
    let is_empty: Vec<String> = plan
        .schema
        .entities()
        .iter()
        .map(|entity| format!("NOT EXISTS (SELECT 1 FROM {})", table_name(&plan.pipeline, &entity.name)))
        .collect();
    if is_empty.is_empty() {
        return Ok(Vec::new());
    }
    let answers = link.texts(&format!("SELECT {}", is_empty.join(", ")))?;
    Ok(answers.iter().map(|answer| answer == "t").collect())
}

/// The checkpoint as parameters of a statement: batch, block, events of the block, blocks, events.
pub(super) fn checkpoint_values(checkpoint: &Checkpoint) -> (i64, Option<i64>, i64, i64, i64) {
    let Checkpoint { batch, block, block_events, blocks, events } = *checkpoint;
    (signed(batch), block, signed(block_events), signed(blocks), signed(events))
}
