//! The tables of the Postgres store, and what may change about them.
//!
//! Ours are in the schema `forebay`; a pipeline's are in a schema of its name. Keys compare byte by byte (`COLLATE "C"`),
//! as sealed rows are sorted, so that a batch goes through an index from left to right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postgres::types::Type;

use super::binary::types_of;
use super::fault::Fault;
use super::session::Link;
use super::source;
use crate::batch::RegionTouch;
use crate::model::checkpoint::Checkpoint;
use crate::model::limits::NAME_BYTES_MAX;
use crate::model::schema::{Column, Entity, SchemaError, parse_columns};
use crate::model::value::ColumnType;
use crate::store::StorePlan;
use crate::store::sql::{differences_of, new_signature, quoted, signed, unsigned};
use crate::undo::UndoRecord;

/// The version of our own tables. A database with a later one was written by a later forebay.
const FORMAT: i64 = 2;

/// The number of the lock under which tables are made.
const MAKING: i64 = 0x666f_7265_6261_7900;

const OWN_TABLES: &str = r#"
CREATE TABLE IF NOT EXISTS forebay.pipelines (
    pipeline text COLLATE "C" PRIMARY KEY, format bigint NOT NULL, batch bigint NOT NULL, block bigint,
    block_events bigint NOT NULL, blocks bigint NOT NULL, events bigint NOT NULL,
    has_snapshots boolean NOT NULL, committed_at timestamptz
);
CREATE TABLE IF NOT EXISTS forebay.entities (
    pipeline text COLLATE "C" NOT NULL, entity text COLLATE "C" NOT NULL, columns text NOT NULL,
    PRIMARY KEY (pipeline, entity)
);
CREATE TABLE IF NOT EXISTS forebay.regions (
    pipeline text COLLATE "C" NOT NULL, region text COLLATE "C" NOT NULL, block bigint NOT NULL,
    events bigint NOT NULL, seq bigint NOT NULL, snapshot_block bigint,
    PRIMARY KEY (pipeline, region)
);
CREATE TABLE IF NOT EXISTS forebay.snapshots (
    pipeline text COLLATE "C" NOT NULL, region text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL, block bigint NOT NULL, generated_at timestamptz NOT NULL, hash text NOT NULL,
    doc json NOT NULL, published_at timestamptz,
    PRIMARY KEY (pipeline, region, seq)
);
CREATE TABLE IF NOT EXISTS forebay.history (
    pipeline text COLLATE "C" NOT NULL, batch bigint NOT NULL, before bigint NOT NULL, last_block bigint,
    head text NOT NULL, rows bytea NOT NULL,
    PRIMARY KEY (pipeline, batch)
);
CREATE TABLE IF NOT EXISTS forebay.quarantine (
    pipeline text COLLATE "C" NOT NULL, batch bigint NOT NULL, number bigint NOT NULL, file text NOT NULL,
    line bigint NOT NULL, block bigint NOT NULL, place bigint, region text COLLATE "C", stage text NOT NULL,
    error text NOT NULL, event text NOT NULL, time timestamptz NOT NULL,
    PRIMARY KEY (pipeline, batch, number)
);
-- It is written once and read rarely: packing it would cost each commit.
ALTER TABLE forebay.history ALTER COLUMN rows SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX IF NOT EXISTS snapshots_id ON forebay.snapshots (pipeline, id);
CREATE INDEX IF NOT EXISTS snapshots_age ON forebay.snapshots (pipeline, generated_at);
CREATE TABLE IF NOT EXISTS forebay.signatures (
    pipeline text COLLATE "C" PRIMARY KEY, signature text NOT NULL
);
"#;

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
    /// What is needed is there, but for indexes on tables that may be large: what makes them.
    Ready(Vec<String>),
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
    if survey.is_complete(plan) {
        return Ok(Prepared::Ready(survey.late_indexes(plan)));
    }
    link.run("BEGIN")?;
    let made = make(link, plan);
    let ended = link.run(if matches!(made, Ok(Prepared::Ready(_))) { "COMMIT" } else { "ROLLBACK" });
    let made = made?;
    ended?;
    Ok(made)
}

/// Makes indexes on tables that may be large; the server sets no time limit for it.
pub(super) fn make_indexes(link: &mut Link, indexes: &[String]) -> Result<(), Fault> {
    link.run("BEGIN; SET LOCAL statement_timeout = 0")?;
    indexes.iter().try_for_each(|index| link.run(index))?;
    link.run("COMMIT")
}

fn make(link: &mut Link, plan: &StorePlan) -> Result<Prepared, Fault> {
    // Runs of other pipelines may be making tables too.
    link.run(&format!("SELECT pg_advisory_xact_lock({MAKING})"))?;
    if link.text("SELECT to_regnamespace('forebay') IS NULL")?.as_deref() == Some("t") {
        link.run("CREATE SCHEMA forebay")?;
    }
    link.run(OWN_TABLES)?;
    link.run(source::TABLE)?;
    let survey = Survey::take(link, plan)?;
    if let Some(refused) = survey.refusal(plan) {
        return Ok(refused);
    }
    if !survey.has_schema {
        link.run(&format!("CREATE SCHEMA {}", quoted(&plan.pipeline)))?;
    }
    for entity in plan.schema.entities() {
        make_entity(link, plan, entity, survey.stored(&entity.name))?;
    }
    let sql = "WITH signed AS (INSERT INTO forebay.signatures VALUES ($1, $4) ON CONFLICT DO NOTHING)
               INSERT INTO forebay.pipelines (pipeline, format, batch, block, block_events, blocks, events, has_snapshots)
               VALUES ($1, $2, 0, NULL, 0, 0, 0, $3)
               ON CONFLICT (pipeline) DO UPDATE SET has_snapshots = excluded.has_snapshots, format = excluded.format";
    let params = [
        (&plan.pipeline as _, Type::TEXT),
        (&FORMAT as _, Type::INT8),
        (&plan.has_snapshots as _, Type::BOOL),
        (&new_signature() as _, Type::TEXT),
    ];
    link.query(sql, &params)?;
    Ok(Prepared::Ready(survey.late_indexes(plan)))
}

/// What there is.
struct Survey {
    has_own: bool,
    /// Whether our tables that came later are there too.
    has_later: bool,
    has_schema: bool,
    /// Whether the pipeline has its signature.
    is_signed: bool,
    /// Format and whether there are snapshots, if the pipeline is known.
    known: Option<(i64, bool)>,
    /// Entities and their columns, as they were noted down.
    entities: Vec<(String, String)>,
    /// Tables and indexes in the pipeline's schema.
    relations: BTreeSet<String>,
    /// The columns of its tables as they are now, by `table.column`: people change tables.
    columns: BTreeMap<String, TypeNow>,
    /// The unique keys of its tables, as `table column,column`.
    keys: BTreeSet<String>,
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
        let sql = "SELECT to_regclass('forebay.snapshots_age') IS NOT NULL AND to_regclass('forebay.history') IS NOT NULL,
                     to_regclass('forebay.source_files') IS NOT NULL AND to_regclass('forebay.quarantine') IS NOT NULL
                       AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('forebay.pipelines') AND attname = 'position'),
                     EXISTS (SELECT FROM pg_namespace WHERE nspname = $1),
                     ARRAY(SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1),
                     ARRAY(SELECT c.relname || ' ' || (SELECT string_agg(a.attname, ',' ORDER BY k.n)
                                FROM unnest(i.indkey) WITH ORDINALITY k (num, n) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num)
                           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index i ON i.indrelid = c.oid
                           WHERE n.nspname = $1 AND i.indisunique AND i.indpred IS NULL),
                     to_regclass('forebay.signatures') IS NOT NULL";
        let row = link.query(sql, std::slice::from_ref(&pipeline))?;
        let row = row.first().ok_or_else(no_answer)?;
        let relations: Vec<String> = row.try_get(3)?;
        let keys: Vec<String> = row.try_get(4)?;
        let mut survey = Self {
            has_own: row.try_get(0)?,
            has_later: row.try_get(1)?,
            has_schema: row.try_get(2)?,
            is_signed: row.try_get(5)?,
            known: None,
            entities: Vec::new(),
            relations: relations.into_iter().collect(),
            columns: BTreeMap::new(),
            keys: keys.into_iter().collect(),
        };
        let sql = "SELECT c.relname || '.' || a.attname, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod)
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
                   WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped";
        for row in link.query(sql, std::slice::from_ref(&pipeline))? {
            let now = TypeNow { number: row.try_get(1)?, bound: row.try_get(2)?, name: row.try_get(3)? };
            survey.columns.insert(row.try_get(0)?, now);
        }
        if survey.has_own {
            let has_signature = match survey.is_signed {
                true => "EXISTS (SELECT FROM forebay.signatures WHERE pipeline = $1)",
                false => "false",
            };
            let sql =
                format!("SELECT format, has_snapshots, {has_signature} FROM forebay.pipelines WHERE pipeline = $1");
            if let Some(row) = link.query(&sql, std::slice::from_ref(&pipeline))?.first() {
                survey.known = Some((row.try_get(0)?, row.try_get(1)?));
                survey.is_signed = row.try_get(2)?;
            }
            let sql = "SELECT entity, columns FROM forebay.entities WHERE pipeline = $1 ORDER BY entity";
            for row in link.query(sql, &[pipeline])? {
                survey.entities.push((row.try_get(0)?, row.try_get(1)?));
            }
        }
        Ok(survey)
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
        self.has_later
            && self.is_signed
            && self.known == Some((FORMAT, plan.has_snapshots))
            && plan.schema.entities().iter().all(has_entity)
    }
}

fn no_answer() -> Fault {
    Fault::Unusable("the server gave no answer where it must give one".into())
}

fn make_entity(link: &mut Link, plan: &StorePlan, entity: &Entity, stored: Option<&str>) -> Result<(), Fault> {
    let table = table_name(&plan.pipeline, &entity.name);
    let mut sql = String::new();
    match stored {
        None => {
            let columns: String = entity.columns_as_given().map(|column| format!(", {}", definition(column))).collect();
            sql.push_str(&format!(
                "CREATE TABLE {table} (\"region\" text COLLATE \"C\" NOT NULL, \"id\" text COLLATE \"C\" NOT NULL{columns}, PRIMARY KEY (\"region\", \"id\"));"
            ));
        }
        Some(stored) => {
            let known = parse_columns(stored);
            let is_new = |column: &&Column| !known.iter().any(|(name, _)| *name == column.name);
            for column in entity.columns_as_given().filter(is_new) {
                sql.push_str(&format!("ALTER TABLE {table} ADD COLUMN {};", definition(column)));
            }
        }
    }
    if stored.is_none() {
        sql.extend(entity.indexes.iter().map(|index| create_index(plan, entity, index)));
    }
    link.run(&sql)?;
    let sql = "INSERT INTO forebay.entities VALUES ($1, $2, $3)
               ON CONFLICT (pipeline, entity) DO UPDATE SET columns = excluded.columns";
    let columns = entity.columns_text();
    link.query(sql, &[(&plan.pipeline, Type::TEXT), (&entity.name, Type::TEXT), (&columns, Type::TEXT)])?;
    Ok(())
}

fn create_index(plan: &StorePlan, entity: &Entity, index: &str) -> String {
    // Texts are found and ordered byte by byte, in the database as in memory.
    let is_text = entity.columns.iter().any(|column| column.name == index && column.kind == ColumnType::Text);
    let collation = if is_text { " COLLATE \"C\"" } else { "" };
    format!(
        "CREATE INDEX IF NOT EXISTS {} ON {} (\"region\", {}{collation}, \"id\");",
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
pub(super) fn checkpoint(link: &mut Link, pipeline: &str) -> Result<Option<Checkpoint>, Fault> {
    let sql = "SELECT batch, block, block_events, blocks, events FROM forebay.pipelines WHERE pipeline = $1";
    let rows = link.query(sql, &[(&pipeline, Type::TEXT)])?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Checkpoint {
        batch: unsigned(row.try_get(0)?),
        block: row.try_get(1)?,
        block_events: unsigned(row.try_get(2)?),
        blocks: unsigned(row.try_get(3)?),
        events: unsigned(row.try_get(4)?),
    }))
}

/// The signature under which the pipeline's snapshots are published; none if no run has made it yet.
pub(super) fn signature(link: &mut Link, pipeline: &str) -> Result<Option<String>, Fault> {
    // Whoever may read the other tables was perhaps given that right before there was this one.
    let sql = "SELECT coalesce(has_table_privilege(to_regclass('forebay.signatures')::oid, 'SELECT'), false)";
    if link.text(sql)?.as_deref() != Some("t") {
        return Ok(None);
    }
    let sql = "SELECT signature FROM forebay.signatures WHERE pipeline = $1";
    let rows = link.query(sql, &[(&pipeline, Type::TEXT)])?;
    rows.first().map(|row| Ok(row.try_get(0)?)).transpose()
}

/// Regions with events after their last snapshot.
pub(super) fn pending_regions(link: &mut Link, pipeline: &str) -> Result<Vec<RegionTouch>, Fault> {
    let sql = "SELECT region, block FROM forebay.regions
               WHERE pipeline = $1 AND (snapshot_block IS NULL OR snapshot_block < block) ORDER BY region";
    let rows = link.query(sql, &[(&pipeline, Type::TEXT)])?;
    let touch = |row: &postgres::Row| {
        Ok(RegionTouch { region: row.try_get::<_, String>(0)?.into(), block: row.try_get(1)?, events: 0 })
    };
    rows.iter().map(touch).collect()
}

/// The records of the undo log, newest first; the rows only of batches from `rows_from` on.
pub(super) fn undo_log(link: &mut Link, pipeline: &str, rows_from: u64) -> Result<Vec<UndoRecord>, Fault> {
    let sql = "SELECT batch, before, last_block, head, CASE WHEN batch >= $2 THEN rows ELSE '' END
               FROM forebay.history WHERE pipeline = $1 ORDER BY batch DESC";
    let rows = link.query(sql, &[(&pipeline, Type::TEXT), (&signed(rows_from), Type::INT8)])?;
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
    let sql = "SELECT region, block FROM forebay.regions WHERE pipeline = $1 AND events > 0";
    let rows = link.query(sql, &[(&pipeline, Type::TEXT)])?;
    rows.iter().map(|row| Ok((row.try_get::<_, String>(0)?.into(), row.try_get(1)?))).collect()
}

/// Regions that were set back, had a snapshot before, and none since.
pub(super) fn set_back_regions(link: &mut Link, pipeline: &str) -> Result<Vec<Arc<str>>, Fault> {
    let sql = "SELECT region FROM forebay.regions WHERE pipeline = $1 AND snapshot_block IS NULL AND seq > 0";
    let rows = link.query(sql, &[(&pipeline, Type::TEXT)])?;
    rows.iter().map(|row| Ok(row.try_get::<_, String>(0)?.into())).collect()
}

/// For each entity, whether its table has no row; in one round trip.
pub(super) fn empty_entities(link: &mut Link, plan: &StorePlan) -> Result<Vec<bool>, Fault> {
    let is_empty: Vec<String> = plan
        .schema
        .entities()
        .iter()
        .map(|entity| format!("NOT EXISTS (SELECT FROM {})", table_name(&plan.pipeline, &entity.name)))
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
