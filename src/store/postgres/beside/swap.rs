//! The tables of the index beside, moved into the place of the present ones in one transaction.
//!
//! Whoever reads in a transaction has locks on what it has read until its end. So the present tables are locked against
//! reading before anything is moved: then nobody has read some of the old ones and goes on with new ones. Such a lock is
//! waited for in short tries, since those who come to read queue up behind it; between two tries they get on. Views are
//! locked before their tables, in the order in which readers lock them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::types::Type;

use super::super::fault::{Fault, Remedy};
use super::super::home::{Home, MARK, beside_schema};
use super::super::own::{literal, own};
use super::super::session::Link;
use super::super::tables;
use super::carried;
use super::survey::{Survey, View, table_in};
use crate::model::checkpoint::Checkpoint;
use crate::model::wait::pause;
use crate::store::sql::quoted;

/// How long one try waits for readers. Less than half of the server's `deadlock_timeout`, so that no reader is ended for it.
const TRY: Duration = Duration::from_millis(400);

/// Between two tries: those who queued up behind one get on meanwhile.
const BETWEEN: Duration = Duration::from_millis(600);

/// How long readers in transactions are waited for in all; in a rehearsal, which needs not be.
const READERS_MAX: Duration = Duration::from_secs(300);
const REHEARSAL_MAX: Duration = Duration::from_secs(5);

/// How long it is waited for until it is told.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// How long whatever works on the tables without holding readers up is waited for, such as a vacuum that the server then
/// ends.
const WORK_WAIT: Duration = Duration::from_secs(10);

/// The schemas of a swap.
#[derive(Debug, Clone)]
pub(super) struct Schemas {
    /// Where the present tables are.
    pub(super) old: String,
    /// Where the index beside is.
    pub(super) new: String,
    /// Where the present tables are for a moment, before they go.
    leaving: String,
}

impl Schemas {
    /// The name of no pipeline holds an `@`.
    pub(super) fn of(pipeline: &str) -> Self {
        Self { old: pipeline.to_owned(), new: beside_schema(pipeline), leaving: format!("{pipeline}@1") }
    }
}

/// What came of it.
pub(super) enum Swapped {
    /// The new tables are in place; of a rehearsal, they could be.
    Done,
    /// The index beside does not stand where it was expected.
    Moved,
    /// What cannot be carried over.
    Refused(String),
    /// Others read in transactions that do not end; who.
    Busy(String),
}

/// Swaps if the index stands at `expected`. Without one it is a rehearsal: it is done, and taken back. A swap whose answer was
/// lost is found to be done.
pub(super) fn swap(
    link: &mut Link,
    schemas: &Schemas,
    expected: Option<Checkpoint>,
    name: &str,
    stop: &AtomicBool,
) -> Result<Swapped, Fault> {
    if let Some(expected) = expected {
        let mark = table_in(&schemas.new, MARK);
        if link.text(&format!("SELECT to_regclass({}) IS NULL", literal(&mark)))?.as_deref() == Some("t") {
            let now = tables::checkpoint(link, &Home::Beside(schemas.old.clone()))?;
            return Ok(if now.is_some_and(|now| now.batch == expected.batch) { Swapped::Done } else { Swapped::Moved });
        }
        let now = tables::checkpoint(link, &Home::Beside(schemas.new.clone()))?.unwrap_or_default();
        if now.batch != expected.batch {
            return Ok(Swapped::Moved);
        }
    }
    link.run("BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL search_path = ''")?;
    let swapped = swap_within(link, schemas, expected.is_none(), name, stop);
    match swapped {
        Ok(Swapped::Done) if expected.is_some() => link.run("COMMIT").map(|()| Swapped::Done),
        Ok(other) => link.run("ROLLBACK").map(|()| other),
        // The server does not take a statement: something of others is in the way.
        Err(fault) if fault.remedy() == Remedy::GiveUp => {
            link.run("ROLLBACK")?;
            Ok(Swapped::Refused(fault.to_string()))
        }
        Err(fault) => Err(fault),
    }
}

fn swap_within(
    link: &mut Link,
    schemas: &Schemas,
    is_rehearsal: bool,
    name: &str,
    stop: &AtomicBool,
) -> Result<Swapped, Fault> {
    let survey = Survey::take(link, schemas)?;
    if !survey.problems.is_empty() {
        return Ok(Swapped::Refused(format!("{}; drop it, and make it anew afterwards", survey.problems.join("; "))));
    }
    for index in carried::indexes(link, schemas, &survey)? {
        link.run(&index)?;
    }
    number_on(link, schemas)?;
    if let Some(busy) = lock(link, schemas, &survey, is_rehearsal, name, stop)? {
        return Ok(Swapped::Busy(busy));
    }
    // What is between here and the end, readers wait for.
    let mut after = carried::grants(link, schemas, &survey)?;
    after.extend(carried::options(schemas, &survey));
    after.extend(carried::comments(link, schemas, &survey)?);
    link.run(&moves(schemas, &survey).join(";"))?;
    for view in &survey.views {
        rebind(link, view)?;
    }
    // Comments and rights last: by then the tables may belong to somebody else.
    link.run(&after.join(";"))?;
    link.run(&ends(schemas, &survey).join(";"))?;
    Ok(Swapped::Done)
}

/// Gives the newest snapshots numbers above those that readers have, and the index beside the signature of the store. What
/// holds all of a region's events is as of the checkpoint: readers may have one as of a later block than it was computed at,
/// by another cut of the same blocks into batches.
fn number_on(link: &mut Link, schemas: &Schemas) -> Result<(), Fault> {
    let Schemas { old, new, .. } = schemas;
    let sql = format!("SELECT region, seq FROM {} WHERE seq > 0", own(old, "regions"));
    let mut above = Vec::new();
    for row in link.query(&sql, &[])? {
        let (region, seq): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        above.push((region.into(), crate::store::sql::unsigned(seq)));
    }
    super::super::write::renumber(link, new, &above)?;
    let (regions, snapshots, checkpoint) = (own(new, "regions"), own(new, "snapshots"), own(new, "checkpoint"));
    link.run(&format!(
        "UPDATE {snapshots} s SET block = c.block FROM {regions} r, {checkpoint} c
         WHERE s.region = r.region AND s.seq = r.seq AND r.snapshot_block >= r.block AND s.block < c.block;
         UPDATE {regions} r SET snapshot_block = c.block FROM {checkpoint} c WHERE r.snapshot_block >= r.block"
    ))?;
    let (from, to) = (own(old, "pipeline"), own(new, "pipeline"));
    link.run(&format!("UPDATE {to} SET signature = o.signature FROM {from} o"))
}

/// Locks the present tables, and the views over them, against reading. Says who reads if they cannot be locked.
fn lock(
    link: &mut Link,
    schemas: &Schemas,
    survey: &Survey,
    is_rehearsal: bool,
    name: &str,
    stop: &AtomicBool,
) -> Result<Option<String>, Fault> {
    let names: Vec<String> = survey.tables.iter().map(|table| table_in(&schemas.old, &table.name)).collect();
    let names = names.join(", ");
    let timeout: u64 = link
        .text("SELECT setting FROM pg_settings WHERE name = 'deadlock_timeout'")?
        .map_or(Ok(1000), |text| text.parse())
        .unwrap_or(1000);
    let lock_timeout = TRY.min(Duration::from_millis(timeout / 2)).as_millis().max(1);
    let limit = if is_rehearsal { REHEARSAL_MAX } else { READERS_MAX };
    let (begun, mut is_told) = (Instant::now(), false);
    // This one holds up neither readers nor writers; and no vacuum begins behind it.
    link.run(&format!(
        "SAVEPOINT work; SET LOCAL lock_timeout = {}; LOCK TABLE {names} IN SHARE UPDATE EXCLUSIVE MODE",
        WORK_WAIT.as_millis()
    ))
    .or_else(|fault| if is_busy(&fault) { link.run("ROLLBACK TO work") } else { Err(fault) })?;
    let views: String =
        survey.views.iter().map(|view| format!("ALTER VIEW {} OWNER TO {};", view.name, view.owner)).collect();
    let sql = format!(
        "SAVEPOINT readers; SET LOCAL lock_timeout = {lock_timeout}; {views} LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"
    );
    loop {
        match link.run(&sql) {
            Ok(()) => return Ok(None),
            Err(fault) if is_busy(&fault) => link.run("ROLLBACK TO readers")?,
            Err(fault) => return Err(fault),
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Fault::Stopped);
        }
        let waited = begun.elapsed();
        if waited > limit {
            return Ok(Some(readers(link, survey)?));
        }
        if waited > TELL_AFTER && !is_rehearsal && !std::mem::replace(&mut is_told, true) {
            let readers = readers(link, survey)?;
            tracing::info!(
                "{name}: the fresh index waits for those who read the present tables in a transaction ({readers}), for up to {} s",
                limit.as_secs()
            );
        }
        pause(BETWEEN, || stop.load(Ordering::Relaxed));
    }
}

fn is_busy(fault: &Fault) -> bool {
    [&SqlState::LOCK_NOT_AVAILABLE, &SqlState::T_R_DEADLOCK_DETECTED].iter().any(|code| fault.code() == Some(code))
}

/// Who holds locks on the present tables, the oldest transaction first.
fn readers(link: &mut Link, survey: &Survey) -> Result<String, Fault> {
    let sql = "SELECT string_agg(who, ', ') FROM (
                 SELECT DISTINCT a.xact_start, coalesce(nullif(a.application_name, ''), 'a program without a name')
                   || ' (server process ' || a.pid || coalesce(', since ' || to_char(a.xact_start, 'HH24:MI:SS'), '') || ')' AS who
                 FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
                 WHERE l.relation = ANY ($1) AND l.granted AND l.pid <> pg_backend_pid()
                 ORDER BY a.xact_start LIMIT 3) w";
    let rows = link.query(sql, &[(&survey.oids(), Type::OID_ARRAY)])?;
    let found: Option<String> = rows.first().map_or(Ok(None), |row| row.try_get(0))?;
    Ok(found.unwrap_or_else(|| "nobody now".to_owned()))
}

/// The present tables go aside, and the new ones to their place.
fn moves(schemas: &Schemas, survey: &Survey) -> Vec<String> {
    let Schemas { old, new, leaving } = schemas;
    let mut statements = vec![format!("CREATE SCHEMA {}", quoted(leaving))];
    let go =
        |from: &str, table: &str, to: &str| format!("ALTER TABLE {} SET SCHEMA {}", table_in(from, table), quoted(to));
    statements.extend(survey.tables.iter().map(|table| go(old, &table.name, leaving)));
    statements.extend(survey.new.keys().map(|table| go(new, table, old)));
    statements
}

/// Lets a view read what has the names in its text now.
fn rebind(link: &mut Link, view: &View) -> Result<(), Fault> {
    link.run(&view.rebind()).map_err(|fault| match fault.code().is_some() && fault.remedy() == Remedy::GiveUp {
        true => Fault::Unusable(format!("view {}: {fault}", view.name)),
        false => fault,
    })
}

/// What is not needed any more. Whatever still hangs on a present table keeps it from being dropped, and all of this from
/// being done.
fn ends(schemas: &Schemas, survey: &Survey) -> Vec<String> {
    let Schemas { new, leaving, .. } = schemas;
    let old: Vec<String> = survey.tables.iter().map(|table| table_in(leaving, &table.name)).collect();
    vec![
        format!("DROP VIEW {}", table_in(new, super::super::own::PROGRESS)),
        format!("DROP TABLE {}", table_in(new, MARK)),
        format!("DROP TABLE {}", old.join(", ")),
        format!("DROP SCHEMA {}, {}", quoted(leaving), quoted(new)),
    ]
}
