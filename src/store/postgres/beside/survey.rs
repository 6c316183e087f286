//! What there is of the present tables: the tables themselves, the views that depend on them, and what others have made of
//! them that cannot be carried over to others.

use std::collections::{BTreeMap, BTreeSet};

use postgres::types::Type;

use super::super::fault::Fault;
use super::super::home::MARK;
use super::super::own::{self, own};
use super::super::session::Link;
use super::Schemas;
use crate::model::schema::parse_columns;
use crate::store::sql::quoted;

/// One of the present tables.
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) name: String,
    /// Its owner, as SQL writes it; none if it is this role.
    pub(super) owner: Option<String>,
    /// Settings such as its fill factor, as `name=value`.
    pub(super) options: Vec<String>,
}

/// A view that reads one of them.
pub(super) struct View {
    /// As SQL writes it, with its schema.
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) options: Vec<String>,
    pub(super) definition: String,
}

/// What there is.
pub(super) struct Survey {
    pub(super) tables: Vec<Table>,
    pub(super) views: Vec<View>,
    /// Tables of the index beside, with their columns.
    pub(super) new: BTreeMap<String, BTreeSet<String>>,
    /// What cannot be carried over, and why.
    pub(super) problems: Vec<String>,
}

impl Survey {
    /// Looks. Names in what it gives are whole: the search path is empty.
    pub(super) fn take(link: &mut Link, schemas: &Schemas) -> Result<Self, Fault> {
        let mut survey = Self { tables: Vec::new(), views: Vec::new(), new: BTreeMap::new(), problems: Vec::new() };
        survey.find_tables(link, &schemas.old)?;
        survey.find_new(link, &schemas.new)?;
        survey.find_views(link)?;
        survey.find_dependents(link)?;
        survey.find_columns(link, &schemas.old)?;
        survey.problems.sort();
        survey.problems.dedup();
        Ok(survey)
    }

    pub(super) fn oids(&self) -> Vec<u32> {
        self.tables.iter().map(|table| table.oid).collect()
    }

    fn find_tables(&mut self, link: &mut Link, old: &str) -> Result<(), Fault> {
        let sql = format!(
            "SELECT c.oid, c.relname::text, quote_ident(o.rolname), o.rolname = current_user,
               pg_has_role(c.relowner, 'USAGE'), c.relkind = 'p', c.relrowsecurity OR c.relforcerowsecurity,
               EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = c.oid), coalesce(c.reloptions, '{{}}')
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
             WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')
               AND (c.relname::text = ANY ($2) OR c.relname::text IN (SELECT e.entity FROM {} e)) ORDER BY c.relname",
            own(old, "entities")
        );
        let names: Vec<String> = own::names().collect();
        for row in link.query(&sql, &[(&old, Type::TEXT), (&names, Type::TEXT_ARRAY)])? {
            let (name, owner): (String, String) = (row.try_get(1)?, row.try_get(2)?);
            let (is_ours, may_use): (bool, bool) = (row.try_get(3)?, row.try_get(4)?);
            if !may_use {
                self.problems.push(format!("table {old}.{name} belongs to {owner}; run as a role that is its owner's"));
            }
            for (at, what) in [(5, "is partitioned"), (6, "has row security"), (7, "inherits from another")] {
                if row.try_get(at)? {
                    self.problems.push(format!("table {old}.{name} {what}"));
                }
            }
            let owner = (!is_ours).then_some(owner);
            self.tables.push(Table { oid: row.try_get(0)?, name, owner, options: row.try_get(8)? });
        }
        Ok(())
    }

    fn find_new(&mut self, link: &mut Link, new: &str) -> Result<(), Fault> {
        let sql = "SELECT c.relname::text, a.attname::text
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
                   WHERE n.nspname = $1 AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> $2";
        for row in link.query(sql, &[(&new, Type::TEXT), (&MARK, Type::TEXT)])? {
            self.new.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?);
        }
        Ok(())
    }

    fn find_views(&mut self, link: &mut Link) -> Result<(), Fault> {
        let sql = "SELECT quote_ident(n.nspname) || '.' || quote_ident(v.relname), quote_ident(o.rolname),
                     pg_has_role(v.relowner, 'USAGE'), coalesce(v.reloptions, '{}'), pg_get_viewdef(v.oid)
                   FROM pg_class v JOIN pg_namespace n ON n.oid = v.relnamespace JOIN pg_roles o ON o.oid = v.relowner
                   WHERE v.relkind = 'v' AND EXISTS (
                     SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                     WHERE w.ev_class = v.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1))
                   ORDER BY v.oid DESC";
        for row in link.query(sql, &[(&self.oids(), Type::OID_ARRAY)])? {
            let (name, owner): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            if !row.try_get::<_, bool>(2)? {
                self.problems.push(format!(
                    "view {name} belongs to {owner}, and only its owner may let it read other tables: GRANT {owner} to this role"
                ));
            }
            self.views.push(View { name, owner, options: row.try_get(3)?, definition: row.try_get(4)? });
        }
        Ok(())
    }

    /// What depends on the tables, or on their types, beside what belongs to them and what is carried over.
    fn find_dependents(&mut self, link: &mut Link) -> Result<(), Fault> {
        let sql = "SELECT pg_describe_object(d.classid, d.objid, d.objsubid)
                   FROM pg_depend d
                   LEFT JOIN pg_class i ON d.classid = 'pg_class'::regclass AND i.oid = d.objid
                   LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
                   LEFT JOIN pg_class v ON v.oid = w.ev_class
                   LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
                   LEFT JOIN pg_trigger g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
                   WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1)
                     AND d.classid <> 'pg_type'::regclass
                     AND coalesce(i.relkind NOT IN ('i', 'I', 't'), true)
                     AND coalesce(v.relkind <> 'v', true)
                     AND NOT coalesce(g.tgisinternal, false)
                     AND NOT coalesce(k.conrelid = d.refobjid AND k.contype IN ('p', 'n'), false)
                   UNION
                   SELECT pg_describe_object(d.classid, d.objid, d.objsubid)
                   FROM pg_depend d JOIN pg_type y ON d.refclassid = 'pg_type'::regclass AND y.oid = d.refobjid
                   JOIN pg_class c ON c.reltype = y.oid OR c.reltype = y.typelem
                   WHERE c.oid = ANY ($1) AND d.classid <> 'pg_type'::regclass";
        for row in link.query(sql, &[(&self.oids(), Type::OID_ARRAY)])? {
            self.problems.push(row.try_get(0)?);
        }
        Ok(())
    }

    /// Columns that others have added.
    fn find_columns(&mut self, link: &mut Link, old: &str) -> Result<(), Fault> {
        let sql = format!("SELECT e.entity, e.columns FROM {} e", own(old, "entities"));
        let mut known = BTreeSet::new();
        for row in link.query(&sql, &[])? {
            let (entity, columns): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let names = parse_columns(&columns).into_iter().map(|(name, _)| name);
            known.extend(names.chain(["region", "id"]).map(|name| format!("{entity}.{name}")));
        }
        let sql = "SELECT c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                   WHERE c.oid = ANY ($1) AND left(c.relname, 9) <> '_forebay_' AND a.attnum > 0 AND NOT a.attisdropped";
        for row in link.query(sql, &[(&self.oids(), Type::OID_ARRAY)])? {
            let column: String = row.try_get(0)?;
            if !known.contains(&column) {
                self.problems.push(format!("column {column}, which forebay has not made"));
            }
        }
        Ok(())
    }
}

impl View {
    /// What makes it read what has the names in its text now. Its rights, comments and owner stay.
    pub(super) fn rebind(&self) -> String {
        let options: Vec<String> = self.options.iter().map(|option| option_text(option)).collect();
        let with = if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
        format!("CREATE OR REPLACE VIEW {}{with} AS {}", self.name, self.definition.trim_end_matches(';'))
    }
}

/// A setting as it is given in a statement.
pub(super) fn option_text(option: &str) -> String {
    match option.split_once('=') {
        Some((name, value)) => format!("{name} = {}", own::literal(value)),
        None => option.to_owned(),
    }
}

/// A table in a schema, as SQL writes it.
pub(super) fn table_in(schema: &str, table: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(table))
}
