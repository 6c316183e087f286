//! The Postgres store.
//!
//! | file | holds |
//! |---|---|
//! | `address`, `environment` | where the database is; what the variables of libpq add to that |
//! | `connect`, `tls`, `guard` | how it is connected to; how the way there is kept; no password goes over it in clear |
//! | `session` | one connection, with a time limit for every call |
//! | `stranger` | what only looks like a Postgres |
//! | `fill` | how full the pages of a table are made |
//! | `fault`, `outage` | what can go wrong, sorted by what to do about it; waiting until it is over |
//! | `lock` | the one writer of a pipeline |
//! | `tables` | the tables, and what may change about them |
//! | `beside/` | an index in a schema beside, and putting it in the place of the present tables |
//! | `own`, `earlier`, `home` | our own tables, beside those of a pipeline; where format 1 had them, and bringing them over; where they are |
//! | `comments`, `grants` | what people who read with SQL are told of the tables, and may do with them |
//! | `binary` | values in the form of Postgres |
//! | `write`, `refused_row` | one batch, one transaction; which row of one is refused |
//! | `notice` | what who listens is told of a batch |
//! | `rows`, `find` | reading rows beside the writer, by id and by column |
//! | `outbox` | snapshots that are yet to be published |
//! | `snapshots`, `quarantine` | reading snapshots and status; events that were put aside |
//! | `examine`, `judge` | looking at the server, for `doctor`; what it means |

mod address;
mod beside;
mod binary;
mod comments;
mod connect;
mod database;
mod earlier;
mod environment;
mod examine;
mod fault;
mod fill;
mod find;
mod grants;
mod guard;
mod home;
mod judge;
mod lock;
mod notice;
mod outage;
mod outbox;
mod own;
mod pooler;
mod quarantine;
mod refused_row;
mod rows;
mod session;
mod snapshots;
mod source;
mod stranger;
mod tables;
mod tls;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub use address::PostgresAddress;
pub(super) use beside::{open_beside, remove_beside};
pub(super) use examine::examine;
pub(super) use tables::check_names;

use super::{BesideStatus, CommitTimes, Committed, OpenReader, Outbox, RefusedRow, RowEncoder, Store};
use super::{SnapshotReader, StoreError, StorePlan};
use crate::batch::{RegionTouch, SealedBatch};
use crate::model::checkpoint::Checkpoint;
use crate::model::position::Position;
use crate::model::source_progress::{SourceFile, SourceProgress};
use crate::model::timestamp::Timestamp;
use crate::undo::UndoRecord;
use database::{Database, advice, error_of, warn_exposed};
use fault::{Fault, Remedy};
use fill::Fill;
use home::Home;
use outage::{Outage, TryError};
use outbox::PostgresOutbox;
use rows::{Readers, ReadersOf};
use session::{Backend, Link, Purpose, Session, Stop};
use snapshots::PostgresSnapshots;
use write::Layout;

/// How long one host may take to accept a connection, where the address does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long sent bytes may stay unacknowledged before the system gives the connection up, and how it looks after one
/// that is silent, where the address does not say. A host that is gone is noticed within a minute.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// How long making indexes on tables that are there already may take, and bringing our own tables over.
const MAKING_MAX: Duration = Duration::from_secs(6 * 60 * 60);

/// Connections that read rows at once. More hide no more: a lane that waits has its whole batch of questions in one.
const READERS_MAX: usize = 4;
/// Batches of a run that may be written again because a row that was thought to be new was there: those that were sealed
/// before the first of them was known, and some more.
const REDONE_BATCHES_MAX: u32 = 16;

/// See [`super::open()`].
pub(super) fn open(address: &PostgresAddress, plan: StorePlan) -> Result<Box<dyn Store>, StoreError> {
    Ok(Box::new(PostgresStore::open(address, plan)?))
}

/// See [`super::open_outbox`].
pub(super) fn open_outbox(address: &PostgresAddress, pipeline: &str) -> Result<Box<dyn Outbox>, StoreError> {
    Ok(Box::new(PostgresOutbox::new(address, pipeline.to_owned())))
}

/// See [`super::open_snapshots`].
pub(super) fn open_snapshots(
    address: &PostgresAddress,
    stop: &Arc<AtomicBool>,
) -> Result<Box<dyn SnapshotReader>, StoreError> {
    Ok(Box::new(PostgresSnapshots::open(address, stop)?))
}

/// The writing half.
struct PostgresStore {
    database: Arc<Database>,
    layouts: Arc<[Layout]>,
    /// The connection that holds the lock; none after it was lost.
    session: Option<Session>,
    /// The server's side of it, and of older ones that may still hold the lock.
    backends: Vec<Backend>,
    readers: Arc<Readers>,
    /// How many batches were written again because a row that was thought to be new was there. After
    /// [`REDONE_BATCHES_MAX`] no row is copied in any more without looking.
    redone: u32,
    fill: Fill,
    /// When the last batch was committed, as the checkpoint said when it was read.
    committed_at: Option<Timestamp>,
    /// Whether an index stood beside when the store was opened.
    has_beside: bool,
}

impl PostgresStore {
    fn open(address: &PostgresAddress, plan: StorePlan) -> Result<Self, StoreError> {
        let database = Arc::new(Database {
            name: address.to_string(),
            address: address.clone(),
            plan,
            is_reported: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        });
        let mut backends = Vec::new();
        let (session, has_beside) = Outage::at_start(&database).until_done(|| {
            establish(&database, &mut backends).map_err(|failed| match failed {
                TryError::Fault(fault) if fault.remedy() != Remedy::Retry => {
                    let cause = format!("{fault}{}", advice(&fault));
                    TryError::Refused(database.unopened(cause, fault))
                }
                failed => failed,
            })
        })?;
        if session.is_exposed(&database.address) {
            warn_exposed(&database.name);
        }
        let layouts = Layout::all(&database.plan.pipeline, &database.plan.schema);
        let readers = Arc::new(Readers::new(Arc::clone(&database)));
        let fill = Fill::new(layouts.len());
        let session = Some(session);
        Ok(Self { database, layouts, session, backends, readers, redone: 0, fill, committed_at: None, has_beside })
    }

    /// Asks over the connection that holds the lock.
    fn ask<T: Send + 'static>(
        &mut self,
        doing: &'static str,
        work: impl Fn(&mut Link, &StorePlan) -> Result<T, Fault> + Copy + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        Outage::new(&database, doing).until_done(|| {
            let planned = Arc::clone(&database);
            let stop = Some(&*database.plan.stop);
            let answer = self.connected(stop)?.call_until(stop, move |link| work(link, &planned.plan));
            Ok(answer.inspect_err(|_| self.session = None)?)
        })
    }

    /// The connection that holds the lock, made anew if it was lost; `stop` ends that. A commit goes on after a stop.
    fn connected(&mut self, stop: Stop<'_>) -> Result<&mut Session, TryError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => reserve(&self.database, &mut self.backends, stop)?,
        };
        Ok(self.session.insert(session))
    }

    /// Writes the batch once. A connection that had to be made anew is first asked what became of the try before. If it
    /// `is_redone`, no row is taken for new.
    fn try_commit(&mut self, batch: &Arc<SealedBatch>, is_redone: bool) -> Result<Committed, TryError> {
        let was_lost = self.session.is_none();
        let (layouts, database) = (Arc::clone(&self.layouts), Arc::clone(&self.database));
        let trusts_new = !is_redone && self.redone < REDONE_BATCHES_MAX;
        let session = self.connected(None)?;
        let backend = session.greeting().backend.pid;
        let given = Arc::clone(batch);
        let written = session.call(move |link| {
            if was_lost {
                let home = Home::Beside(database.plan.pipeline.clone());
                let found = tables::checkpoint(link, &home)?.unwrap_or_default();
                if is_same(&found, &given.after) {
                    let snapshots = write::find_receipts(link, &database.plan.pipeline, &given)?;
                    return Ok(write::Written { has_moved: true, snapshots, times: CommitTimes::default() });
                }
            }
            write::write(link, &database.plan, &layouts, &given, backend, trusts_new)
        })?;
        if !written.has_moved {
            let (store, expected) = (self.database.name.clone(), batch.before.batch);
            return Err(TryError::Refused(StoreError::CheckpointMoved { store, expected }));
        }
        if !is_redone {
            self.fill_up(batch);
        }
        Ok(Committed {
            batch: batch.after.batch,
            rows: batch.rows(),
            snapshots: written.snapshots,
            times: written.times,
            ..Committed::default()
        })
    }

    /// Has the pages of tables filled of which this batch shows that their rows only ever come.
    fn fill_up(&mut self, batch: &SealedBatch) {
        let only_new = self.fill.note(batch);
        let Some(session) = self.session.as_mut().filter(|_| !only_new.is_empty()) else { return };
        let layouts = Arc::clone(&self.layouts);
        let filled =
            session.call(move |link| only_new.iter().try_for_each(|at| fill::fill_up(link, layouts[*at].table())));
        if filled.is_err() {
            // The batch has committed. Whatever happened to the connection, the next one makes another.
            self.session = None;
        }
    }

    /// The error of a batch that the database refuses: it names the row, if there is one to name.
    fn refused(&mut self, batch: &Arc<SealedBatch>, fault: Fault) -> StoreError {
        let class = fault.code().and_then(|code| code.code().get(..2)).unwrap_or_default().to_owned();
        let plain = self.database.error("writing a batch", fault);
        // Wrong data, a rule broken, a limit of the server, a trigger's own word. What is wrong with a table (class 42) is
        // no row's fault.
        if !matches!(class.as_str(), "22" | "23" | "44" | "54" | "P0") {
            return plain;
        }
        let (layouts, given) = (Arc::clone(&self.layouts), Arc::clone(batch));
        let Ok(session) = self.connected(None) else { return plain };
        let Ok(Some(blamed)) = session.call(move |link| refused_row::find(link, &layouts, &given)) else {
            return plain;
        };
        StoreError::Row(Box::new(RefusedRow {
            store: self.database.name.clone(),
            entity: self.database.plan.schema[blamed.entity].name.clone(),
            region: blamed.region,
            id: blamed.id,
            event: batch.writer_text(blamed.writer),
            cause: blamed.fault.to_string(),
        }))
    }
}

/// Connects, refuses what could not be relied on, and takes the lock. `ours` are the server's sides of connections of
/// this store that may still hold it; the new one joins them.
fn reserve(database: &Database, ours: &mut Vec<Backend>, stop: Stop<'_>) -> Result<Session, TryError> {
    let mut session = database.connect(Purpose::General, stop)?;
    pooler::check(&mut session, &database.address, stop)?;
    let taken = lock::take(&mut session, &database.plan.pipeline, ours, stop);
    if taken.is_ok() {
        ours.clear();
        database.generation.fetch_add(1, Ordering::AcqRel);
    }
    // Also if the answer was lost: it may have the lock then.
    ours.push(session.greeting().backend.clone());
    taken.map(|()| session)
}

/// Makes what is missing in the database, under the lock; and whether an index stands beside.
fn establish(database: &Arc<Database>, ours: &mut Vec<Backend>) -> Result<(Session, bool), TryError> {
    let stop = Some(&*database.plan.stop);
    let mut session = reserve(database, ours, stop)?;
    ask_of_readers(database, &mut session, grants::check)?;
    let planned = Arc::clone(database);
    let mut prepared = session.call_until(stop, move |link| tables::prepare(link, &planned.plan))?;
    if matches!(prepared, tables::Prepared::Earlier) {
        let pipeline = &database.plan.pipeline;
        tracing::info!("{}: bringing what forebay keeps of {pipeline} over to the schema {pipeline}", database.name);
        let planned = Arc::clone(database);
        prepared = session.call_within(MAKING_MAX, stop, move |link| tables::bring_over(link, &planned.plan))?;
    }
    let (late, has_beside) = match prepared {
        tables::Prepared::Ready { late, has_beside } => (late, has_beside),
        // It was brought over, or refused.
        tables::Prepared::Earlier => (Vec::new(), false),
        tables::Prepared::Later(format) => {
            let later = database.cannot_open(format!("it was written by a later forebay (format {format})"));
            return Err(TryError::Refused(later));
        }
        tables::Prepared::Differs(differences) => {
            let (store, differences) = (database.name.clone(), differences.join("; "));
            return Err(TryError::Refused(StoreError::SchemaChanged { store, differences }));
        }
    };
    if !late.is_empty() {
        tracing::info!("{}: making indexes on tables that are there already ({})", database.name, late.len());
        session.call_within(MAKING_MAX, stop, move |link| tables::make_indexes(link, &late))?;
    }
    serve_readers(database, &mut session)?;
    Ok((session, has_beside))
}

/// Comments and rights, for people who read the tables with SQL.
fn serve_readers(database: &Arc<Database>, session: &mut Session) -> Result<(), TryError> {
    let stop = Some(&*database.plan.stop);
    if comments::has_any(&database.plan) {
        let planned = Arc::clone(database);
        match session.call_until(stop, move |link| comments::set(link, &planned.plan)) {
            Ok(()) => {}
            Err(fault) if fault.is_refusal() => {
                tracing::warn!("{}: comments on tables were not set: {fault}; the next run tries again", database.name);
            }
            Err(fault) => return Err(fault.into()),
        }
    }
    ask_of_readers(database, session, grants::grant)
}

/// Does something about the roles that are to read, if there are any.
fn ask_of_readers(
    database: &Arc<Database>,
    session: &mut Session,
    work: fn(&mut Link, &StorePlan) -> grants::Answer,
) -> Result<(), TryError> {
    if database.plan.config.readers.roles().is_empty() {
        return Ok(());
    }
    let planned = Arc::clone(database);
    let stop = Some(&*database.plan.stop);
    session.call_until(stop, move |link| work(link, &planned.plan))?.map_err(|refused| {
        let store = database.name.clone();
        TryError::Refused(StoreError::Readers { store, cause: refused.into() })
    })
}

/// Whether two checkpoints are the same, as a commit compares them.
fn is_same(a: &Checkpoint, b: &Checkpoint) -> bool {
    (a.batch, a.block) == (b.batch, b.block)
}

impl Store for PostgresStore {
    fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        let found = self.ask("reading the checkpoint", |link, plan| {
            tables::committed(link, &Home::Beside(plan.pipeline.clone()))
        })?;
        let (checkpoint, committed_at) = found.unwrap_or_default();
        self.committed_at = committed_at;
        Ok(checkpoint)
    }

    fn committed_at(&mut self) -> Result<Option<Timestamp>, StoreError> {
        // Read with the checkpoint: it costs no round trip.
        Ok(self.committed_at)
    }

    fn source_progress(&mut self) -> Result<SourceProgress, StoreError> {
        self.ask("reading what of the source is committed", |link, plan| source::progress(link, &plan.pipeline))
    }

    fn position(&mut self) -> Result<Option<Position>, StoreError> {
        self.ask("reading the position", |link, plan| source::position(link, &Home::Beside(plan.pipeline.clone())))
    }

    fn source_files(&mut self) -> Result<Vec<SourceFile>, StoreError> {
        self.ask("reading which files are committed", |link, plan| source::files(link, &plan.pipeline))
    }

    fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError> {
        self.ask("reading which regions lack a snapshot", |link, plan| tables::pending_regions(link, &plan.pipeline))
    }

    fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError> {
        let is_empty = self.ask("looking whether the tables are empty", tables::empty_entities)?;
        self.fill.note_empty(&is_empty);
        Ok(is_empty)
    }

    fn checks_new_rows(&self) -> bool {
        true
    }

    fn commit(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, StoreError> {
        let mut outage = Outage::of_commit(&self.database);
        let mut was_redone = false;
        loop {
            let fault = match self.try_commit(batch, was_redone) {
                Ok(committed) => {
                    outage.is_over();
                    return Ok(Committed { retries: outage.tries(), was_redone, ..committed });
                }
                Err(TryError::Refused(error)) => return Err(error),
                Err(TryError::Fault(fault)) => fault,
            };
            // Whatever the connection was in the middle of, the next one begins at the checkpoint.
            self.session = None;
            match fault.remedy() {
                Remedy::Retry => outage.wait(fault)?,
                Remedy::Duplicate if !was_redone => {
                    tracing::debug!("{}: {fault}; the batch is written again, looking at each row", self.database.name);
                    was_redone = true;
                    self.redone += 1;
                }
                Remedy::Duplicate | Remedy::GiveUp => return Err(self.refused(batch, fault)),
            }
        }
    }

    fn undo_log(&mut self, rows_from: u64) -> Result<Vec<UndoRecord>, StoreError> {
        self.ask("reading the history", move |link, plan| tables::undo_log(link, &plan.pipeline, rows_from))
    }

    fn region_blocks(&mut self) -> Result<Vec<(Arc<str>, i64)>, StoreError> {
        self.ask("reading the regions", |link, plan| tables::region_blocks(link, &plan.pipeline))
    }

    fn set_back_regions(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.ask("reading the regions", |link, plan| tables::set_back_regions(link, &plan.pipeline))
    }

    fn quarantined(&mut self) -> Result<u64, StoreError> {
        self.ask("counting the quarantine", |link, plan| quarantine::count(link, &Home::Beside(plan.pipeline.clone())))
    }

    fn beside(&mut self) -> Result<Option<BesideStatus>, StoreError> {
        // The first look at the tables has seen whether there is one: a run that has none does not ask again.
        if !self.has_beside {
            return Ok(None);
        }
        self.ask("looking for an index beside", |link, plan| beside::status(link, &plan.pipeline))
    }

    fn encoder(&self) -> Option<Arc<dyn RowEncoder>> {
        Some(Arc::new(binary::CopyEncoder::new(Arc::clone(&self.database.plan.schema))))
    }

    fn readers(&self) -> Arc<dyn OpenReader> {
        Arc::new(ReadersOf(Arc::clone(&self.readers)))
    }

    fn renumber(&mut self, above: &[(Arc<str>, u64)]) -> Result<(), StoreError> {
        let doing = "numbering snapshots anew";
        let (pipeline, above) = (self.database.plan.pipeline.clone(), above.to_vec());
        // Not tried again: whoever asks does so later. A commit does not have to wait for it.
        let renumbered = self
            .connected(None)
            .and_then(|session| Ok(session.call(move |link| write::renumber(link, &pipeline, &above))?));
        renumbered.map_err(|failed| {
            self.session = None;
            failed.into_error(&self.database, doing)
        })
    }

    fn outbox(&self) -> Option<Box<dyn Outbox>> {
        Some(Box::new(PostgresOutbox::new(&self.database.address, self.database.plan.pipeline.clone())))
    }
}
