//! Tables of format 1, in which the schema `forebay` held what is now beside each pipeline's tables. They are read where
//! they are, and the first run brings those of its pipeline over. What other pipelines have there stays as it is.

use std::collections::BTreeSet;

use postgres::types::Type;

use super::fault::Fault;
use super::own::{FORMAT, SHARD, literal, own};
use super::session::Link;
use crate::store::sql::{new_signature, quoted};

/// What a pipeline has in tables of format 1.
#[derive(Debug, Clone)]
pub(super) struct Earlier {
    pipeline: String,
    /// The tables that there are, and that may be read.
    tables: BTreeSet<String>,
}

/// The tables in the schema `forebay` that this user may read; and whether there are others.
fn readable(link: &mut Link) -> Result<(BTreeSet<String>, bool), Fault> {
    let sql = "SELECT c.relname::text, has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'forebay' AND c.relkind IN ('r', 'p')";
    let (mut tables, mut has_others) = (BTreeSet::new(), false);
    for row in link.query(sql, &[])? {
        let (name, is_readable): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
        match is_readable {
            true => drop(tables.insert(name)),
            false => has_others |= name == "pipelines",
        }
    }
    Ok((tables, has_others))
}

/// The pipelines that are there in format 1.
pub(super) fn pipelines(link: &mut Link) -> Result<Vec<String>, Fault> {
    if !readable(link)?.0.contains("pipelines") {
        return Ok(Vec::new());
    }
    let rows = link.query("SELECT pipeline FROM forebay.pipelines WHERE format < $1", &[(&FORMAT, Type::INT8)])?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

impl Earlier {
    /// What the pipeline has there; none if it has nothing, or was brought over.
    pub(super) fn find(link: &mut Link, pipeline: &str) -> Result<Option<Self>, Fault> {
        let (tables, has_others) = readable(link)?;
        if !(tables.contains("pipelines") || has_others && has_tables(link, pipeline)?) {
            return Ok(None);
        }
        let sql = "SELECT 1 FROM forebay.pipelines WHERE pipeline = $1 AND format < $2";
        let found = link.query(sql, &[(&pipeline, Type::TEXT), (&FORMAT, Type::INT8)])?;
        Ok((!found.is_empty()).then(|| Self { pipeline: literal(pipeline), tables }))
    }

    /// Whether that table is there and may be read.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tables.contains(name)
    }

    /// One of our tables, as it would be beside those of the pipeline.
    pub(super) fn table(&self, name: &str) -> String {
        let pipeline = &self.pipeline;
        match name {
            "checkpoint" => format!(
                "(SELECT {SHARD} AS shard, p.batch, p.block, p.block_events, p.blocks, p.events, p.committed_at,
                    to_jsonb(p) ->> 'source_digest' AS source_digest, to_jsonb(p) ->> 'block_digest' AS block_digest,
                    (to_jsonb(p) ->> 'place')::bigint AS place, (to_jsonb(p) ->> 'first_block')::bigint AS first_block,
                    NULL::text AS position
                  FROM forebay.pipelines p WHERE p.pipeline = {pipeline})"
            ),
            "pipeline" => {
                let signature = match self.has("signatures") {
                    true => "(SELECT s.signature FROM forebay.signatures s WHERE s.pipeline = p.pipeline)",
                    false => "NULL::text",
                };
                format!(
                    "(SELECT p.format, p.has_snapshots, {signature} AS signature FROM forebay.pipelines p
                      WHERE p.pipeline = {pipeline})"
                )
            }
            other => format!("(SELECT t.* FROM forebay.{other} t WHERE t.pipeline = {pipeline})"),
        }
    }

    /// The same, as a statement writes to it, and the condition on its rows.
    pub(super) fn writable(&self, name: &str, alias: &str) -> (String, String) {
        (format!("forebay.{name}"), format!("{alias}.pipeline = {}", self.pipeline))
    }

    /// Copies what the pipeline has into our tables beside its own, which are there and empty, with the rights on them, and
    /// takes it out of the earlier ones. A row stays that says so to an earlier forebay.
    pub(super) fn bring_over(&self, link: &mut Link, pipeline: &str) -> Result<(), Fault> {
        let checkpoint = "shard, batch, block, block_events, blocks, events, committed_at, source_digest, block_digest,
                          place, first_block, position";
        let (from, to) = (self.table("checkpoint"), own(pipeline, "checkpoint"));
        link.run(&format!("INSERT INTO {to} ({checkpoint}) SELECT {checkpoint} FROM {from} p"))?;
        let (from, to) = (self.table("pipeline"), own(pipeline, "pipeline"));
        let sql = format!(
            "INSERT INTO {to} (format, has_snapshots, signature)
             SELECT $1, has_snapshots, coalesce(signature, $2) FROM {from} p"
        );
        link.query(&sql, &[(&FORMAT, Type::INT8), (&new_signature(), Type::TEXT)])?;
        let shard = SHARD.to_string();
        for (name, shard, columns) in [
            ("entities", None, "entity, columns"),
            ("regions", None, "region, block, events, seq, snapshot_block"),
            ("snapshots", None, "region, id, seq, block, generated_at, hash, doc, published_at"),
            ("history", Some(&shard), "batch, before, last_block, head, rows"),
            (
                "source_files",
                Some(&shard),
                "name, bytes, modified, inode, is_whole, first_block, last_block, last_events, last_place, events, late,
                 digest, content",
            ),
            (
                "quarantine",
                Some(&shard),
                "batch, number, file, line, block, place, region, stage, error, event, time",
            ),
        ] {
            if self.has(name) {
                let (from, to) = (self.table(name), own(pipeline, name));
                let (into, value) = shard.map_or_else(Default::default, |shard| ("shard, ", format!("{shard}, ")));
                link.run(&format!("INSERT INTO {to} ({into}{columns}) SELECT {value}{columns} FROM {from} t"))?;
            }
        }
        grant_as_before(link, pipeline)?;
        self.leave(link)
    }

    fn leave(&self, link: &mut Link) -> Result<(), Fault> {
        let pipeline = &self.pipeline;
        for name in ["entities", "regions", "snapshots", "history", "source_files", "quarantine", "signatures"] {
            if self.has(name) {
                link.run(&format!("DELETE FROM forebay.{name} WHERE pipeline = {pipeline}"))?;
            }
        }
        link.run(&format!(
            "UPDATE forebay.pipelines SET format = {FORMAT}, batch = 0, block = NULL, block_events = 0, blocks = 0,
               events = 0, committed_at = NULL WHERE pipeline = {pipeline}"
        ))
    }
}

/// Gives whoever had rights on the earlier tables the same on those beside the pipeline's.
fn grant_as_before(link: &mut Link, pipeline: &str) -> Result<(), Fault> {
    let sql = "SELECT DISTINCT CASE c.relname WHEN 'pipelines' THEN 'checkpoint' WHEN 'signatures' THEN 'pipeline'
                 ELSE c.relname::text END,
                 a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
               LEFT JOIN pg_roles r ON r.oid = a.grantee
               WHERE n.nspname = 'forebay' AND a.grantee <> c.relowner AND r.rolname IS DISTINCT FROM current_user
                 AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') ORDER BY 1, 2, 3";
    let mut granted: Vec<(String, String, String)> = Vec::new();
    for row in link.query(sql, &[])? {
        granted.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    }
    let mut roles = BTreeSet::new();
    for (table, right, role) in granted {
        link.run(&format!("GRANT {right} ON {} TO {role}", own(pipeline, &table)))?;
        if table == "checkpoint" {
            // Its columns were in the same table.
            link.run(&format!("GRANT {right} ON {} TO {role}", own(pipeline, "pipeline")))?;
        }
        roles.insert(role);
    }
    let schema = quoted(pipeline);
    roles.iter().try_for_each(|role| link.run(&format!("GRANT USAGE ON SCHEMA {schema} TO {role}")))
}

/// Whether the pipeline's schema holds any table.
fn has_tables(link: &mut Link, pipeline: &str) -> Result<bool, Fault> {
    let sql = "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') LIMIT 1";
    Ok(!link.query(sql, &[(&pipeline, Type::TEXT)])?.is_empty())
}
