//! What people have given the present tables and the new ones are to have: rights, owners, comments, settings, indexes.
//! Each function gives statements over the new tables in their place; those of indexes over the index beside.

use std::collections::BTreeSet;

use postgres::types::Type;

use super::super::fault::Fault;
use super::super::own::literal;
use super::super::session::Link;
use super::Schemas;
use super::survey::{Survey, option_text, table_in};
use crate::store::sql::quoted;

/// A right on a table, or on one of its columns.
struct Right {
    table: String,
    column: Option<String>,
    privilege: String,
    /// As SQL writes it.
    grantee: String,
    may_grant: bool,
}

impl Right {
    fn grant(&self, schema: &str) -> String {
        let Self { privilege, grantee, .. } = self;
        let column = self.column.as_ref().map_or_else(String::new, |column| format!(" ({})", quoted(column)));
        let option = if self.may_grant { " WITH GRANT OPTION" } else { "" };
        format!("GRANT {privilege}{column} ON {} TO {grantee}{option}", table_in(schema, &self.table))
    }
}

const RIGHT: &str =
    "a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END, a.is_grantable";

/// The rights of others on tables and their columns.
fn rights(link: &mut Link, tables: &[u32]) -> Result<Vec<Right>, Fault> {
    let sql = format!(
        "SELECT c.relname::text, NULL::text, {RIGHT}
         FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
         WHERE c.oid = ANY ($1) AND a.grantee <> c.relowner
         UNION ALL
         SELECT c.relname::text, t.attname::text, {RIGHT}
         FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped
         CROSS JOIN LATERAL aclexplode(t.attacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
         WHERE c.oid = ANY ($1) AND a.grantee <> c.relowner"
    );
    let right = |row: &postgres::Row| {
        Ok(Right {
            table: row.try_get(0)?,
            column: row.try_get(1)?,
            privilege: row.try_get(2)?,
            grantee: row.try_get(3)?,
            may_grant: row.try_get(4)?,
        })
    };
    link.query(&sql, &[(&tables, Type::OID_ARRAY)])?.iter().map(right).collect()
}

/// The tables of the index beside.
fn new_tables(link: &mut Link, schemas: &Schemas) -> Result<Vec<u32>, Fault> {
    let sql = "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relkind = 'r'";
    link.query(sql, &[(&schemas.new, Type::TEXT)])?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Owners and rights. What the present table lacks a right on, the new one lacks it too; a table that is new altogether gets
/// what the schema says of tables to come.
pub(super) fn grants(link: &mut Link, schemas: &Schemas, survey: &Survey) -> Result<Vec<String>, Fault> {
    let old = &schemas.old;
    let known: BTreeSet<&str> = survey.tables.iter().map(|table| table.name.as_str()).collect();
    let mut statements = Vec::new();
    let beside = new_tables(link, schemas)?;
    for right in rights(link, &beside)?.iter().filter(|right| known.contains(right.table.as_str())) {
        statements.push(format!("REVOKE ALL ON {} FROM {}", table_in(old, &right.table), right.grantee));
    }
    statements.sort();
    statements.dedup();
    for right in rights(link, &survey.oids())? {
        let columns = survey.new.get(&right.table);
        if columns.is_some_and(|columns| right.column.as_ref().is_none_or(|column| columns.contains(column))) {
            statements.push(right.grant(old));
        }
    }
    let sql = format!(
        "SELECT ''::text, NULL::text, {RIGHT}
         FROM pg_default_acl d JOIN pg_namespace n ON n.oid = d.defaclnamespace
         CROSS JOIN LATERAL aclexplode(d.defaclacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
         WHERE n.nspname = $1 AND d.defaclobjtype = 'r' AND a.grantee <> d.defaclrole
           AND d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)"
    );
    for row in link.query(&sql, &[(old, Type::TEXT)])? {
        let (privilege, grantee, may_grant): (String, String, bool) =
            (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        for table in survey.new.keys().filter(|table| !known.contains(table.as_str())) {
            let (table, privilege, grantee) = (table.clone(), privilege.clone(), grantee.clone());
            statements.push(Right { table, column: None, privilege, grantee, may_grant }.grant(old));
        }
    }
    let owners = survey.tables.iter().filter(|table| survey.new.contains_key(&table.name));
    let owners = owners.filter_map(|table| Some((table, table.owner.as_ref()?)));
    statements
        .extend(owners.map(|(table, owner)| format!("ALTER TABLE {} OWNER TO {owner}", table_in(old, &table.name))));
    Ok(statements)
}

/// Settings of tables.
pub(super) fn options(schemas: &Schemas, survey: &Survey) -> Vec<String> {
    let tables = survey.tables.iter().filter(|table| !table.options.is_empty() && survey.new.contains_key(&table.name));
    let set = |table: &super::survey::Table| {
        let options: Vec<String> = table.options.iter().map(|option| option_text(option)).collect();
        format!("ALTER TABLE {} SET ({})", table_in(&schemas.old, &table.name), options.join(", "))
    };
    tables.map(set).collect()
}

/// Comments that the pipeline file does not give.
pub(super) fn comments(link: &mut Link, schemas: &Schemas, survey: &Survey) -> Result<Vec<String>, Fault> {
    let sql = "SELECT c.relname::text, a.attname::text, d.description
               FROM pg_description d JOIN pg_class c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass
               LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
               WHERE c.oid = ANY ($1)";
    let mut read = |tables: &[u32]| -> Result<Vec<(String, Option<String>, String)>, Fault> {
        let rows = link.query(sql, &[(&tables, Type::OID_ARRAY)])?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
    };
    let old = read(&survey.oids())?;
    let beside = new_tables(link, schemas)?;
    let mut read = |tables: &[u32]| -> Result<BTreeSet<(String, Option<String>)>, Fault> {
        let rows = link.query(sql, &[(&tables, Type::OID_ARRAY)])?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    };
    let given = read(&beside)?;
    let mut statements = Vec::new();
    for (table, column, comment) in old {
        let Some(columns) = survey.new.get(&table) else { continue };
        if given.contains(&(table.clone(), column.clone())) {
            continue;
        }
        let (place, comment) = (table_in(&schemas.old, &table), literal(&comment));
        match column {
            None => statements.push(format!("COMMENT ON TABLE {place} IS {comment}")),
            Some(column) if columns.contains(&column) => {
                statements.push(format!("COMMENT ON COLUMN {place}.{} IS {comment}", quoted(&column)));
            }
            Some(_) => {}
        }
    }
    Ok(statements)
}

/// Indexes that others have made, over the tables beside, where they are not there yet.
pub(super) fn indexes(link: &mut Link, schemas: &Schemas, survey: &Survey) -> Result<Vec<String>, Fault> {
    // Ours alone have a dot after the table's name, or are our own tables'.
    let sql = "SELECT c.relname::text, i.relname::text, pg_get_indexdef(i.oid),
                 ' ON ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) || ' USING '
               FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
               JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.oid = ANY ($1) AND x.indisvalid AND NOT x.indisprimary
                 AND left(i.relname, length(c.relname) + 1) <> c.relname || '.' AND left(i.relname, 9) <> '_forebay_'
                 AND NOT EXISTS (SELECT FROM pg_class o JOIN pg_namespace m ON m.oid = o.relnamespace
                                 WHERE m.nspname = $2 AND o.relname = i.relname)";
    let mut statements = Vec::new();
    for row in link.query(sql, &[(&survey.oids(), Type::OID_ARRAY), (&schemas.new, Type::TEXT)])? {
        let (table, index, made, place): (String, String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let beside = format!(" ON {} USING ", table_in(&schemas.new, &table));
        match made.contains(&place) && survey.new.contains_key(&table) {
            true => statements.push(made.replacen(&place, &beside, 1)),
            false => {
                return Err(Fault::Unusable(format!(
                    "index {index} cannot be made over the new table {table}; drop it"
                )));
            }
        }
    }
    Ok(statements)
}
