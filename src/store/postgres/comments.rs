//! Comments on tables and columns: set where they differ from the pipeline file's. What the file does not say stays.
//!
//! They are for people. So they keep no run from running: where one cannot be set, that is told.

use std::collections::HashMap;

use postgres::types::Type;

use super::fault::Fault;
use super::own::literal;
use super::session::Link;
use super::tables::table_name;
use crate::model::schema::Entity;
use crate::store::StorePlan;
use crate::store::sql::quoted;

/// How long a table is waited for that somebody works on.
const LOCK_WAIT_MS: u32 = 2000;

/// The comments that there are, by table and column; a table's own has no column.
type Comments = HashMap<(String, Option<String>), String>;

/// Whether the plan has any comment.
pub(super) fn has_any(plan: &StorePlan) -> bool {
    plan.schema.entities().iter().any(|entity| entity.comment.is_some() || !entity.column_comments.is_empty())
}

/// Sets the comments that differ, in one transaction.
pub(super) fn set(link: &mut Link, plan: &StorePlan) -> Result<(), Fault> {
    let there = read(link, plan)?;
    let statements: Vec<String> =
        plan.schema.entities().iter().flat_map(|entity| statements(plan, entity, &there)).collect();
    if statements.is_empty() {
        return Ok(());
    }
    link.run(&format!("BEGIN; SET LOCAL lock_timeout = {LOCK_WAIT_MS}"))?;
    let set = statements.iter().try_for_each(|sql| link.run(sql));
    let ended = link.run(if set.is_ok() { "COMMIT" } else { "ROLLBACK" });
    set.and(ended)
}

fn read(link: &mut Link, plan: &StorePlan) -> Result<Comments, Fault> {
    let sql = "SELECT c.relname::text, a.attname::text, d.description
               FROM pg_description d JOIN pg_class c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass
               JOIN pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
               WHERE n.nspname = $1";
    let rows = link.query(sql, &[(&plan.pipeline, Type::TEXT)])?;
    rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
}

fn statements(plan: &StorePlan, entity: &Entity, there: &Comments) -> Vec<String> {
    let table = table_name(&plan.pipeline, &entity.name);
    let differs = |column: Option<&str>, comment: &str| {
        there.get(&(entity.name.clone(), column.map(str::to_owned))).is_none_or(|there| there != comment)
    };
    let mut statements = Vec::new();
    if let Some(comment) = entity.comment.as_deref().filter(|comment| differs(None, comment)) {
        statements.push(format!("COMMENT ON TABLE {table} IS {}", literal(comment)));
    }
    for column in entity.columns_as_given() {
        let comment = entity.column_comment(&column.name).filter(|comment| differs(Some(&column.name), comment));
        if let Some(comment) = comment {
            statements.push(format!("COMMENT ON COLUMN {table}.{} IS {}", quoted(&column.name), literal(comment)));
        }
    }
    statements
}
