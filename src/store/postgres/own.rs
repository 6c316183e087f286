//! The tables that forebay keeps for itself: beside a pipeline's own, in its schema, under names that no entity has.
//!
//! So a dump of the schema is a whole copy, and rows and checkpoint lie on one node wherever the schema does.

use postgres::types::Type;

use super::fault::Fault;
use super::session::Link;
use crate::store::StorePlan;
use crate::store::sql::quoted;

/// The version of our own tables. A database with a later one was written by a later forebay.
pub(super) const FORMAT: i64 = 2;

/// The shard whose checkpoint, history, files and quarantine are meant: a pipeline has one.
pub(super) const SHARD: i32 = 0;

/// Our tables, without what comes before their names, and the rest of the statement that makes each. One statement a
/// message: Citus takes no index together with another one.
const TABLES: [(&str, &str); 8] = [
    ("pipeline", "format bigint PRIMARY KEY, has_snapshots boolean NOT NULL, signature text NOT NULL"),
    (
        "checkpoint",
        "shard integer PRIMARY KEY, batch bigint NOT NULL, block bigint, block_events bigint NOT NULL,
         blocks bigint NOT NULL, events bigint NOT NULL, committed_at timestamptz, source_digest text, block_digest text,
         place bigint, first_block bigint, position text",
    ),
    ("entities", r#"entity text COLLATE "C" PRIMARY KEY, columns text NOT NULL"#),
    (
        "regions",
        r#"region text COLLATE "C" PRIMARY KEY, block bigint NOT NULL, events bigint NOT NULL, seq bigint NOT NULL,
         snapshot_block bigint"#,
    ),
    (
        "snapshots",
        r#"region text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, seq bigint NOT NULL, block bigint NOT NULL,
         generated_at timestamptz NOT NULL, hash text NOT NULL, doc json NOT NULL, published_at timestamptz,
         PRIMARY KEY (region, seq)"#,
    ),
    (
        "history",
        "shard integer NOT NULL, batch bigint NOT NULL, before bigint NOT NULL, last_block bigint, head text NOT NULL,
         rows bytea NOT NULL, PRIMARY KEY (shard, batch)",
    ),
    (
        "source_files",
        r#"shard integer NOT NULL, name text COLLATE "C" NOT NULL, bytes bigint NOT NULL, modified bigint NOT NULL,
         inode bigint NOT NULL, is_whole boolean NOT NULL, first_block bigint, last_block bigint,
         last_events bigint NOT NULL, last_place bigint, events bigint NOT NULL, late bigint NOT NULL,
         digest text NOT NULL, content text NOT NULL, tail text, PRIMARY KEY (shard, name)"#,
    ),
    (
        "quarantine",
        r#"shard integer NOT NULL, batch bigint NOT NULL, number bigint NOT NULL, file text NOT NULL,
         line bigint NOT NULL, block bigint NOT NULL, place bigint, region text COLLATE "C", stage text NOT NULL,
         error text NOT NULL, event text NOT NULL, time timestamptz NOT NULL, PRIMARY KEY (shard, batch, number)"#,
    ),
];

/// What people look at to see how far a pipeline has come.
pub(super) const PROGRESS: &str = "_progress";

/// One of our tables beside those of a pipeline, as a statement names it.
pub(super) fn own(pipeline: &str, name: &str) -> String {
    format!("{}._forebay_{name}", quoted(pipeline))
}

/// A text as SQL, whatever the settings of the server say of backslashes.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The names of all that we keep in a pipeline's schema.
pub(super) fn names() -> impl Iterator<Item = String> {
    let indexes = ["snapshots_id", "snapshots_age"].map(|index| format!("_forebay_{index}"));
    let tables = TABLES.iter().map(|(name, _)| format!("_forebay_{name}"));
    tables.chain(indexes).chain([PROGRESS.to_owned()])
}

/// Makes what is missing of our tables. Nobody gets a right on them from us.
pub(super) fn make(link: &mut Link, plan: &StorePlan) -> Result<(), Fault> {
    let pipeline = &plan.pipeline;
    for (name, columns) in TABLES {
        link.run(&format!("CREATE TABLE IF NOT EXISTS {} ({columns})", own(pipeline, name)))?;
    }
    let snapshots = own(pipeline, "snapshots");
    link.run(&format!("CREATE UNIQUE INDEX IF NOT EXISTS _forebay_snapshots_id ON {snapshots} (id)"))?;
    link.run(&format!("CREATE INDEX IF NOT EXISTS _forebay_snapshots_age ON {snapshots} (generated_at)"))?;
    // It is written once and read rarely: packing it would cost each commit. A server that does not know it packs it.
    let history = own(pipeline, "history");
    link.run("SAVEPOINT packing")?;
    match link.run(&format!("ALTER TABLE {history} ALTER COLUMN rows SET STORAGE EXTERNAL")) {
        Ok(()) => link.run("RELEASE packing")?,
        Err(fault) if fault.is_refusal() => link.run("ROLLBACK TO packing; RELEASE packing")?,
        Err(fault) => return Err(fault),
    }
    revoke(link, pipeline, plan.config.readers.roles())?;
    let (schema, checkpoint) = (quoted(pipeline), own(pipeline, "checkpoint"));
    link.run(&format!(
        "CREATE OR REPLACE VIEW {schema}.{PROGRESS} AS SELECT shard, block, committed_at FROM {checkpoint}"
    ))
}

/// Takes back what `[store] readers` have got by the schema's default rights: those are meant for the pipeline's tables.
fn revoke(link: &mut Link, pipeline: &str, readers: &[String]) -> Result<(), Fault> {
    if readers.is_empty() {
        return Ok(());
    }
    let sql = "SELECT DISTINCT c.relname::text, r.rolname::text
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
               JOIN pg_roles r ON r.oid = a.grantee
               WHERE n.nspname = $1 AND left(c.relname::text, 9) = '_forebay_' AND a.grantee <> c.relowner
                 AND r.rolname::text = ANY ($2) ORDER BY 1, 2";
    let mut found: Vec<(String, String)> = Vec::new();
    for row in link.query(sql, &[(&pipeline, Type::TEXT), (&readers, Type::TEXT_ARRAY)])? {
        found.push((row.try_get(0)?, row.try_get(1)?));
    }
    for (table, role) in found {
        link.run(&format!("REVOKE ALL ON {}.{} FROM {}", quoted(pipeline), quoted(&table), quoted(&role)))?;
    }
    Ok(())
}
