//! Rights of those who read the tables with SQL (`[store] readers`): granted where they are missing.

use postgres::types::Type;

use super::fault::{Fault, Remedy};
use super::own::PROGRESS;
use super::session::Link;
use super::tables::table_name;
use crate::store::StorePlan;
use crate::store::sql::quoted;

/// Why the readers have no rights: what is said of it.
pub(super) type Refused = String;

/// What came of asking the server.
pub(super) type Answer = Result<Result<(), Refused>, Fault>;

/// What a role lacks.
struct Lacking {
    usage: bool,
    tables: Vec<String>,
    /// Of tables to come, which this user makes.
    default: bool,
}

/// Looks whether the roles are there, before anything is made.
pub(super) fn check(link: &mut Link, plan: &StorePlan) -> Answer {
    let sql = "SELECT r FROM unnest($1) r WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname::text = r) LIMIT 1";
    let rows = link.query(sql, &[(&plan.config.readers.roles(), Type::TEXT_ARRAY)])?;
    match rows.first() {
        None => Ok(Ok(())),
        Some(row) => Ok(Err(unknown(row.try_get(0)?))),
    }
}

fn unknown(role: &str) -> Refused {
    format!("the server has no role {role:?}; make it (CREATE ROLE {}), or name another", quoted(role))
}

/// Gives each role the rights that it lacks. Changes nothing where none is missing, so that a user who may not grant can
/// run.
pub(super) fn grant(link: &mut Link, plan: &StorePlan) -> Answer {
    for role in plan.config.readers.roles() {
        let Some(lacking) = lacking(link, plan, role)? else { return Ok(Err(unknown(role))) };
        let statements = lacking.statements(plan, role);
        if statements.is_empty() {
            continue;
        }
        let refused = match run(link, &statements) {
            Ok(()) => None,
            Err(fault) if fault.code().is_some() && fault.remedy() == Remedy::GiveUp => Some(fault),
            Err(fault) => return Err(fault),
        };
        // Whoever may not grant gets no more than a warning of the server.
        let left = self::lacking(link, plan, role)?.map_or(statements, |lacking| lacking.statements(plan, role));
        if refused.is_some() || !left.is_empty() {
            let cause = refused.map_or_else(String::new, |fault| format!(" ({fault})"));
            return Ok(Err(format!(
                "this user may not let {role:?} read the tables{cause}; run once as their owner, or let the owner do it: {}",
                left.join("; ")
            )));
        }
    }
    Ok(Ok(()))
}

fn run(link: &mut Link, statements: &[String]) -> Result<(), Fault> {
    link.run("BEGIN")?;
    let done = statements.iter().try_for_each(|sql| link.run(sql));
    let ended = link.run(if done.is_ok() { "COMMIT" } else { "ROLLBACK" });
    done.and(ended)
}

/// What a role lacks; none if there is no such role.
fn lacking(link: &mut Link, plan: &StorePlan, role: &str) -> Result<Option<Lacking>, Fault> {
    let sql = "SELECT has_schema_privilege(r.oid, n.oid, 'USAGE'),
                 ARRAY(SELECT c.relname::text FROM pg_class c
                       WHERE c.relnamespace = n.oid AND c.relname::text = ANY($3) AND c.relkind IN ('r', 'p', 'v')
                         AND NOT has_table_privilege(r.oid, c.oid, 'SELECT') ORDER BY 1),
                 NOT has_schema_privilege(n.oid, 'CREATE')
                   OR EXISTS (SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) a
                              WHERE d.defaclnamespace = n.oid AND d.defaclobjtype = 'r'
                                AND d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
                                AND a.grantee = r.oid AND a.privilege_type = 'SELECT')
               FROM pg_roles r, pg_namespace n WHERE r.rolname = $1 AND n.nspname = $2";
    let entities = plan.schema.entities().iter().map(|entity| entity.name.as_str());
    let tables: Vec<&str> = entities.chain([PROGRESS]).collect();
    let params = [(&role as _, Type::TEXT), (&plan.pipeline as _, Type::TEXT), (&tables as _, Type::TEXT_ARRAY)];
    let rows = link.query(sql, &params)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (usage, default): (bool, bool) = (row.try_get(0)?, row.try_get(2)?);
    Ok(Some(Lacking { usage: !usage, tables: row.try_get(1)?, default: !default }))
}

impl Lacking {
    fn statements(&self, plan: &StorePlan, role: &str) -> Vec<String> {
        let (schema, role) = (quoted(&plan.pipeline), quoted(role));
        let mut statements = Vec::new();
        if self.usage {
            statements.push(format!("GRANT USAGE ON SCHEMA {schema} TO {role}"));
        }
        if !self.tables.is_empty() {
            let tables: Vec<String> = self.tables.iter().map(|table| table_name(&plan.pipeline, table)).collect();
            statements.push(format!("GRANT SELECT ON {} TO {role}", tables.join(", ")));
        }
        if self.default {
            statements.push(format!("ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {role}"));
        }
        statements
    }
}
