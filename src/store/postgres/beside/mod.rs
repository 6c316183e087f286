//! An index beside the present tables: in a schema of its own, `"<pipeline>@2"`, until its tables are moved into the
//! pipeline's schema in one transaction (`swap`).
//!
//! Tables are moved and the schema is not renamed: so rights on the schema, default rights and whatever others keep in it
//! stay as they are.

mod carried;
mod survey;
mod swap;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use postgres::types::Type;

use super::database::Database;
use super::fault::{Fault, Remedy};
use super::home::{Home, MARK, beside_marks};
use super::outage::{Outage, TryError};
use super::own::{SHARD, literal, own};
use super::session::{Backend, Link, Purpose, Session};
use super::{MAKING_MAX, PostgresAddress, PostgresStore, StoreError, StorePlan, advice, grants, lock, pooler, tables};
use crate::model::checkpoint::Checkpoint;
use crate::store::readers::Readers;
use crate::store::sql::{quoted, unsigned};
use crate::store::{Beside, BesideStatus, Store};
use swap::{Schemas, Swapped};

/// See [`crate::store::open_beside`].
pub(in crate::store) fn open_beside(
    address: &PostgresAddress,
    plan: StorePlan,
    stamp: &str,
) -> Result<Option<Box<dyn Beside>>, StoreError> {
    let mut beside = PostgresBeside::new(address, plan);
    let mut at_start = Outage::at_start(&beside.database);
    let pipeline = beside.pipeline();
    match beside.ask_while(&mut at_start, move |link| Home::find(link, &pipeline))? {
        None => return Ok(None),
        Some(Home::Beside(_)) => {}
        Some(Home::Earlier(_)) => {
            return Err(
                beside.refused("an earlier forebay has made them; let a run without --fresh bring them over first")
            );
        }
    }
    beside.check_readers()?;
    beside.lock_beside()?;
    let (schemas, given) = (beside.schemas(), stamp.to_owned());
    let prepared = beside.ask("preparing an index beside", move |link| prepare(link, &schemas, &given))?;
    beside.unlock_beside();
    match prepared {
        Prepared::Foreign => Err(beside.refused(&format!(
            "a schema {} is there already, and was not made by `forebay run --fresh`; rename or drop it",
            quoted(&beside.schemas().new)
        ))),
        Prepared::Ready { is_new, given_up } => {
            if let Some(status) = given_up {
                tracing::info!(
                    "the script, the source or the pipeline file is another one than the fresh index in the schema {} was begun with ({}): it begins anew",
                    quoted(&beside.schemas().new),
                    status.block.map_or_else(|| "nothing committed".to_owned(), |block| format!("block {block}"))
                );
            }
            beside.is_new = is_new;
            Ok(Some(Box::new(beside)))
        }
    }
}

/// See [`crate::store::remove_beside`].
pub(in crate::store) fn remove_beside(
    address: &PostgresAddress,
    pipeline: &str,
    stop: &Arc<AtomicBool>,
) -> Result<Option<BesideStatus>, StoreError> {
    let plan = StorePlan::new(pipeline, Arc::default()).map_err(StoreError::other)?.with_stop(Arc::clone(stop));
    let mut beside = PostgresBeside::new(address, plan);
    let mut at_start = Outage::at_start(&beside.database);
    let pipeline = pipeline.to_owned();
    if beside.ask_while(&mut at_start, move |link| status(link, &pipeline))?.is_none() {
        return Ok(None);
    }
    beside.lock_beside()?;
    let schemas = beside.schemas();
    beside.ask("removing the index beside", move |link| {
        let found = status(link, &schemas.old)?;
        if found.is_some() {
            remove(link, &schemas)?;
        }
        Ok(found)
    })
}

/// How far the index beside a pipeline's tables has come; none if there is none, or if this role may not look.
pub(super) fn status(link: &mut Link, pipeline: &str) -> Result<Option<BesideStatus>, Fault> {
    let new = Schemas::of(pipeline).new;
    match link.text(&beside_marks(pipeline))?.as_deref() {
        Some("2") => {}
        // It was begun just now.
        Some("1") => return Ok(Some(BesideStatus::default())),
        _ => return Ok(None),
    }
    let sql = format!("SELECT block, events FROM {} WHERE shard = {SHARD}", own(&new, "checkpoint"));
    let rows = link.query(&sql, &[])?;
    let Some(row) = rows.first() else { return Ok(Some(BesideStatus::default())) };
    Ok(Some(BesideStatus { block: row.try_get(0)?, events: unsigned(row.try_get(1)?) }))
}

/// What there is to index into.
enum Prepared {
    /// The schema beside; whether it was made just now, and how far one had come that was given up for it.
    Ready { is_new: bool, given_up: Option<BesideStatus> },
    /// Somebody else's schema has the name.
    Foreign,
}

fn prepare(link: &mut Link, schemas: &Schemas, stamp: &str) -> Result<Prepared, Fault> {
    let new = &schemas.new;
    let sql = format!("SELECT count(*) FROM pg_namespace WHERE nspname = {}", literal(new));
    let is_there = link.text(&sql)?.as_deref() != Some("0");
    let mut given_up = None;
    if is_there {
        let sql = format!("SELECT to_regclass({}) IS NOT NULL", literal(&mark(new)));
        if link.text(&sql)?.as_deref() != Some("t") {
            return Ok(Prepared::Foreign);
        }
        if link.text(&format!("SELECT stamp FROM {}", mark(new)))?.as_deref() == Some(stamp) {
            return Ok(Prepared::Ready { is_new: false, given_up: None });
        }
        given_up = status(link, &schemas.old)?;
        remove(link, schemas)?;
    }
    let schema = quoted(new);
    tables::in_transaction(link, "BEGIN", |link| {
        link.run(&format!("CREATE SCHEMA {schema}"))?;
        link.run(&format!("CREATE TABLE {} (stamp text NOT NULL)", mark(new)))?;
        link.query(&format!("INSERT INTO {} VALUES ($1)", mark(new)), &[(&stamp, Type::TEXT)]).map(drop)
    })?;
    Ok(Prepared::Ready { is_new: true, given_up })
}

fn mark(new: &str) -> String {
    format!("{}.{MARK}", quoted(new))
}

fn remove(link: &mut Link, schemas: &Schemas) -> Result<(), Fault> {
    link.run(&format!("DROP SCHEMA {} CASCADE", quoted(&schemas.new)))
}

struct PostgresBeside {
    /// The present tables.
    database: Arc<Database>,
    session: Option<Session>,
    /// The server's sides of connections of this that may still hold a lock.
    backends: Vec<Backend>,
    is_new: bool,
    /// Whether the lock of the present tables is held, and taken again with each new connection.
    is_reserved: bool,
}

impl PostgresBeside {
    fn new(address: &PostgresAddress, plan: StorePlan) -> Self {
        let database = Arc::new(Database {
            name: address.to_string(),
            address: address.clone(),
            plan,
            is_reported: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        });
        Self { database, session: None, backends: Vec::new(), is_new: false, is_reserved: false }
    }

    fn pipeline(&self) -> String {
        self.database.plan.pipeline.clone()
    }

    fn schemas(&self) -> Schemas {
        Schemas::of(&self.database.plan.pipeline)
    }

    fn refused(&self, cause: &str) -> StoreError {
        StoreError::Beside { store: self.database.name.clone(), cause: cause.into() }
    }

    /// The connection, made anew if it was lost, with the lock of the present tables if that is held.
    fn connected(&mut self) -> Result<&mut Session, TryError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.connect()?,
        };
        if self.is_reserved && !self.backends.contains(&session.greeting().backend) {
            let backend = session.greeting().backend.clone();
            let stop = Some(&*self.database.plan.stop);
            let taken = lock::take(&mut session, &self.database.plan.pipeline, &self.backends, stop);
            self.backends.push(backend);
            taken?;
        }
        Ok(self.session.insert(session))
    }

    fn connect(&self) -> Result<Session, Fault> {
        let stop = Some(&*self.database.plan.stop);
        let mut session = self.database.connect(Purpose::General, stop)?;
        pooler::check(&mut session, &self.database.address, stop)?;
        Ok(session)
    }

    fn ask<T: Send + 'static>(
        &mut self,
        doing: &'static str,
        work: impl Fn(&mut Link) -> Result<T, Fault> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut outage = Outage::new(&self.database, doing);
        self.ask_while(&mut outage, work)
    }

    /// Asks until it is answered, or the server was away for too long.
    fn ask_while<T: Send + 'static>(
        &mut self,
        outage: &mut Outage,
        work: impl Fn(&mut Link) -> Result<T, Fault> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        let stop = Arc::clone(&self.database.plan.stop);
        outage.until_done(|| {
            let work = work.clone();
            let answer = self
                .connected()
                .and_then(|session| Ok(session.call_within(MAKING_MAX, Some(&*stop), move |link| work(link))?));
            answer.map_err(|failed| match self.lost(failed) {
                TryError::Fault(fault) if fault.remedy() != Remedy::Retry => {
                    let (store, cause) = (self.database.name.clone(), format!("{fault}{}", making_advice(&fault)));
                    TryError::Refused(StoreError::Beside { store, cause: fault.into_reason(cause) })
                }
                failed => failed,
            })
        })
    }

    /// After a fault the next try makes the connection anew.
    fn lost(&mut self, failed: TryError) -> TryError {
        if matches!(failed, TryError::Fault(_)) {
            self.session = None;
        }
        failed
    }

    /// Looks whether the roles of `[store] readers` are there, before anything is made.
    fn check_readers(&mut self) -> Result<(), StoreError> {
        if self.database.plan.config.readers.roles().is_empty() {
            return Ok(());
        }
        let database = Arc::clone(&self.database);
        self.ask("looking for the roles that are to read", move |link| grants::check(link, &database.plan))?
            .map_err(|refused| StoreError::Readers { store: self.database.name.clone(), cause: refused.into() })
    }

    /// Takes the lock of the index beside.
    fn lock_beside(&mut self) -> Result<(), StoreError> {
        let (new, stop) = (self.schemas().new, Arc::clone(&self.database.plan.stop));
        Outage::new(&self.database, "locking the index beside").until_done(|| {
            let taken = self.connected().and_then(|session| lock::take(session, &new, &[], Some(&*stop)));
            taken.map_err(|failed| self.lost(failed))
        })
    }

    /// Gives it back. Without an answer the connection is ended, and the lock with it.
    fn unlock_beside(&mut self) {
        let new = self.schemas().new;
        if let Some(session) = &mut self.session
            && session.call(move |link| lock::give_back(link, &new)).is_err()
        {
            self.session = None;
        }
    }

    /// Moves the tables, or only tries to.
    fn swap(&mut self, expected: Option<Checkpoint>) -> Result<Swapped, StoreError> {
        let (schemas, stop) = (self.schemas(), Arc::clone(&self.database.plan.stop));
        let told = self.database.name.clone();
        self.ask("putting the index beside in place", move |link| swap::swap(link, &schemas, expected, &told, &stop))
    }

    fn rehearse(&mut self) -> Result<(), StoreError> {
        match self.swap(None)? {
            Swapped::Refused(problems) => Err(self.refused(&problems)),
            Swapped::Done | Swapped::Moved => Ok(()),
            // Then it is found out in the end.
            Swapped::Busy(_) => Ok(()),
        }
    }
}

/// The next step, where there is one.
fn making_advice(fault: &Fault) -> &'static str {
    match fault.code().map_or("", |code| code.code()) {
        "42501" => {
            "; an index beside needs the right to make a schema: GRANT CREATE ON DATABASE … TO this role, or run once as a role that has it"
        }
        _ => advice(fault),
    }
}

impl Beside for PostgresBeside {
    fn open(&mut self) -> Result<Box<dyn Store>, StoreError> {
        let plan = StorePlan { pipeline: self.schemas().new, ..self.database.plan.clone() };
        let plan = plan.with_readers(Readers::default());
        let store = PostgresStore::open(&self.database.address, plan)?;
        // One that was begun before was tried then; what others have made since is seen in the end.
        let Err(error) = (if self.is_new { self.rehearse() } else { Ok(()) }) else { return Ok(Box::new(store)) };
        drop(store);
        self.lock_beside()?;
        let schemas = self.schemas();
        self.ask("removing the index beside", move |link| remove(link, &schemas))?;
        Err(error)
    }

    fn present(&mut self) -> Result<Checkpoint, StoreError> {
        let home = Home::Beside(self.pipeline());
        let found = self.ask("reading the checkpoint", move |link| tables::checkpoint(link, &home))?;
        Ok(found.unwrap_or_default())
    }

    fn reserve(&mut self) -> Result<(), StoreError> {
        if self.is_reserved {
            return Ok(());
        }
        self.is_reserved = true;
        self.backends.clear();
        let reserved = self.connected().map(drop);
        self.is_reserved = reserved.is_ok();
        reserved.map_err(|failed| failed.into_error(&self.database, "locking the present tables"))
    }

    fn replace(&mut self, expected: &Checkpoint) -> Result<(), StoreError> {
        self.lock_beside()?;
        match self.swap(Some(*expected))? {
            Swapped::Done => Ok(()),
            Swapped::Moved => {
                Err(StoreError::CheckpointMoved { store: self.database.name.clone(), expected: expected.batch })
            }
            Swapped::Refused(problems) => Err(self.refused(&problems)),
            Swapped::Busy(readers) => Err(self.refused(&format!(
                "others read the present tables in a transaction that does not end ({readers}); run again when it has ended"
            ))),
        }
    }
}
