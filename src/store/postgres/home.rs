//! Where our tables of a pipeline are: beside its own, or where an earlier version kept them.

use super::earlier::{self, Earlier};
use super::fault::Fault;
use super::own::{literal, own};
use super::session::Link;

/// The table that says by what an index beside is made.
pub(super) const MARK: &str = "_forebay_fresh";

/// The schema of an index beside: the name of no pipeline holds an `@`.
pub(super) fn beside_schema(pipeline: &str) -> String {
    format!("{pipeline}@2")
}

/// Counts what marks an index beside a pipeline's tables, as far as this role may look: 0, 1 of one that was begun just
/// now, or 2.
pub(super) fn beside_marks(pipeline: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = {} AND c.relname IN ('{MARK}', '_forebay_checkpoint')
           AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')",
        literal(&beside_schema(pipeline))
    )
}

/// Where our tables of a pipeline are.
#[derive(Debug, Clone)]
pub(super) enum Home {
    /// In the schema of this pipeline.
    Beside(String),
    /// Where an earlier version kept those of all pipelines.
    Earlier(Earlier),
}

impl Home {
    /// Where they are now; none if no run has made them.
    pub(super) fn find(link: &mut Link, pipeline: &str) -> Result<Option<Self>, Fault> {
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                            WHERE n.nspname = {} AND c.relname = '_forebay_checkpoint')",
            literal(pipeline)
        );
        if link.text(&sql)?.as_deref() == Some("t") {
            return Ok(Some(Self::Beside(pipeline.to_owned())));
        }
        Ok(Earlier::find(link, pipeline)?.map(Self::Earlier))
    }

    /// One of them, as a statement reads it.
    pub(super) fn table(&self, name: &str) -> String {
        match self {
            Self::Beside(pipeline) => own(pipeline, name),
            Self::Earlier(earlier) => earlier.table(name),
        }
    }

    /// The same, as a statement writes to it, and the condition on its rows.
    pub(super) fn writable(&self, name: &str, alias: &str) -> (String, String) {
        match self {
            Self::Beside(pipeline) => (own(pipeline, name), "true".to_owned()),
            Self::Earlier(earlier) => earlier.writable(name, alias),
        }
    }

    /// Whether it is there: an earlier version lacks some.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Beside(_) => true,
            Self::Earlier(earlier) => earlier.has(name),
        }
    }
}

/// The pipelines that the database knows, ordered by name.
pub(super) fn pipelines(link: &mut Link) -> Result<Vec<String>, Fault> {
    let sql = "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relname = '_forebay_checkpoint' AND c.relkind IN ('r', 'p')
                 -- What stands beside a pipeline's tables has a name that no pipeline has.
                 AND position('@' IN n.nspname) = 0";
    let mut found = Vec::new();
    for row in link.query(sql, &[])? {
        found.push(row.try_get(0)?);
    }
    found.extend(earlier::pipelines(link)?);
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
