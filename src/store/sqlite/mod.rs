//! The embedded store: one SQLite file, in WAL mode, every commit synced to disk.
//!
//! | file | holds |
//! |---|---|
//! | `lock` | the one writer of a pipeline |
//! | `tables` | the tables, and what may change about them |
//! | `write` | one batch, one transaction |
//! | `undo_log` | one record per batch, by which it can be rolled back |
//! | `quarantine` | events that were put aside |
//! | `rows`, `find` | reading rows beside the writer, by id and by column |
//! | `outbox` | snapshots that are yet to be published |
//! | `snapshots` | reading snapshots and status |

mod find;
mod lock;
mod outbox;
mod quarantine;
mod rows;
mod snapshots;
mod tables;
mod undo_log;
mod write;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::{Committed, OpenReader, Outbox, RowReader, SnapshotReader, Store, StoreError, StorePlan};
use crate::batch::{RegionTouch, SealedBatch};
use crate::model::cause::Reason;
use crate::model::checkpoint::Checkpoint;
use crate::model::schema::Schema;
use crate::undo::UndoRecord;
use lock::WriterLock;
use outbox::SqliteOutbox;
use snapshots::SqliteSnapshots;
use write::Statements;

/// How long a statement waits for another program that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it waits between two tries where SQLite itself does not wait.
const BUSY_STEP: Duration = Duration::from_millis(5);

/// Pages that the cache of a connection holds, in KiB (the negative form of `cache_size`).
const CACHE_KIB: i64 = 8 * 1024;

/// See [`super::open()`].
pub(super) fn open(path: &Path, plan: StorePlan) -> Result<Box<dyn Store>, StoreError> {
    Ok(Box::new(SqliteStore::open(path, plan)?))
}

/// See [`super::open_outbox`].
pub(super) fn open_outbox(path: &Path, pipeline: &str) -> Result<Box<dyn Outbox>, StoreError> {
    Ok(Box::new(SqliteOutbox::new(StoreName(path.to_owned()), pipeline.to_owned())))
}

/// See [`super::open_snapshots`].
pub(super) fn open_snapshots(path: &Path) -> Result<Box<dyn SnapshotReader>, StoreError> {
    Ok(Box::new(SqliteSnapshots::open(path)?))
}

/// The writing half.
struct SqliteStore {
    connection: Connection,
    name: StoreName,
    plan: StorePlan,
    statements: Statements,
    /// The file that was opened, by device and number.
    file: (u64, u64),
    // Given back last, when the connection is closed.
    _lock: WriterLock,
}

/// How the store is called in messages.
#[derive(Clone, Debug)]
pub(super) struct StoreName(PathBuf);

impl StoreName {
    fn text(&self) -> String {
        format!("sqlite:{}", self.0.display())
    }

    /// Turns what SQLite says into an error that says what was being done.
    fn sql(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let store = self.text();
        move |error| StoreError::Sql { store: store.clone(), doing, cause: Reason::new(explain(&error), error) }
    }

    fn cannot_open(&self, cause: impl std::fmt::Display) -> StoreError {
        StoreError::Open { store: self.text(), cause: cause.to_string().into() }
    }

    /// The same, of what SQLite says.
    fn unopened(&self, error: rusqlite::Error) -> StoreError {
        StoreError::Open { store: self.text(), cause: Reason::new(explain(&error), error) }
    }
}

/// What SQLite says, with the next step where there is one.
fn explain(error: &rusqlite::Error) -> String {
    let advice = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => "; free some space and run again, nothing committed is lost",
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            "; another program holds the file, end it and run again"
        }
        Some(rusqlite::ErrorCode::SystemIoFailure) => {
            "; is the disk full, or the size of files limited? nothing committed is lost"
        }
        Some(rusqlite::ErrorCode::ReadOnly) => "; the file or its folder may not be written to",
        Some(rusqlite::ErrorCode::NotADatabase) => "; the file is something else, choose another",
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => "; restore the file from a copy, or delete it and index again",
        _ => "",
    };
    format!("{error}{advice}")
}

impl SqliteStore {
    fn open(path: &Path, plan: StorePlan) -> Result<Self, StoreError> {
        let name = StoreName(path.to_owned());
        check_place(path, &name)?;
        let lock = WriterLock::take(&one_name(path), &plan.pipeline, &name)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(|error| name.unopened(error))?;
        prepare(&connection).map_err(|error| name.unopened(error))?;
        tables::prepare(&mut connection, &name, &plan)?;
        let statements = Statements::new(&plan.schema);
        let file = file_number(path).ok_or_else(|| name.cannot_open("it was removed just now"))?;
        Ok(Self { connection, name, plan, statements, file, _lock: lock })
    }
}

/// The path without links, so that a file has one name and one lock. It may not be there yet.
fn one_name(path: &Path) -> PathBuf {
    if let Ok(name) = path.canonicalize() {
        return name;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// A file's device and number; none if there is no file.
fn file_number(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// A clear word where the path cannot hold a file; SQLite would say "unable to open database file" to all of them.
fn check_place(path: &Path, name: &StoreName) -> Result<(), StoreError> {
    if path.is_dir() {
        return Err(name.cannot_open("it is a folder; expected a file"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(name.cannot_open(format!("there is no folder {}", folder.display())));
    }
    Ok(())
}

/// Sets up a connection that writes.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    set_wal(connection)?;
    // A snapshot may be published as soon as its batch has committed, so a commit must survive a power loss.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY;")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)
}

/// Sets the journal to WAL. SQLite does not wait for others here, so this does.
fn set_wal(connection: &Connection) -> rusqlite::Result<()> {
    let started = Instant::now();
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())) {
            Err(error) if is_busy(&error) && started.elapsed() < BUSY_TIMEOUT => std::thread::park_timeout(BUSY_STEP),
            result => return result,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
}

impl Store for SqliteStore {
    fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        tables::checkpoint(&self.connection, &self.plan.pipeline)
            .map(Option::unwrap_or_default)
            .map_err(self.name.sql("reading the checkpoint"))
    }

    fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError> {
        tables::pending_regions(&self.connection, &self.plan.pipeline)
            .map_err(self.name.sql("reading which regions lack a snapshot"))
    }

    fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError> {
        let is_empty = |entity| tables::is_empty(&self.connection, entity);
        let empty: rusqlite::Result<_> = self.plan.schema.entities().iter().map(is_empty).collect();
        empty.map_err(self.name.sql("looking whether the tables are empty"))
    }

    fn commit(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, StoreError> {
        // SQLite would go on writing into a file that nobody finds any more.
        if file_number(&self.name.0) != Some(self.file) {
            return Err(self.name.cannot_open("the file was removed or replaced while it was written to"));
        }
        write::commit(&mut self.connection, &self.statements, &self.name, &self.plan, batch)
    }

    fn undo_log(&mut self, rows_from: u64) -> Result<Vec<UndoRecord>, StoreError> {
        let doing = self.name.sql("reading the history");
        undo_log::read(&self.connection, &self.plan.pipeline, rows_from).map_err(doing)
    }

    fn region_blocks(&mut self) -> Result<Vec<(Arc<str>, i64)>, StoreError> {
        let doing = self.name.sql("reading the regions");
        undo_log::region_blocks(&self.connection, &self.plan.pipeline).map_err(doing)
    }

    fn set_back_regions(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        let doing = self.name.sql("reading the regions");
        undo_log::set_back_regions(&self.connection, &self.plan.pipeline).map_err(doing)
    }

    fn quarantined(&mut self) -> Result<u64, StoreError> {
        let doing = self.name.sql("counting the quarantine");
        quarantine::count(&self.connection, &self.plan.pipeline).map_err(doing)
    }

    fn readers(&self) -> Arc<dyn OpenReader> {
        Arc::new(SqliteReaders { name: self.name.clone(), schema: Arc::clone(&self.plan.schema) })
    }

    fn renumber(&mut self, above: &[(Arc<str>, u64)]) -> Result<(), StoreError> {
        let doing = self.name.sql("numbering snapshots anew");
        write::renumber(&mut self.connection, &self.plan.pipeline, above).map_err(doing)
    }

    fn outbox(&self) -> Option<Box<dyn Outbox>> {
        Some(Box::new(SqliteOutbox::new(self.name.clone(), self.plan.pipeline.clone())))
    }
}

/// Opens connections that read.
struct SqliteReaders {
    name: StoreName,
    schema: Arc<Schema>,
}

impl OpenReader for SqliteReaders {
    fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
        let connection = open_read_only(&self.name)?;
        find::prepare(&connection).map_err(self.name.sql("preparing to read rows"))?;
        Ok(Box::new(rows::SqliteRows::new(connection, self.name.clone(), Arc::clone(&self.schema))))
    }
}

/// Opens a connection that cannot write.
fn open_read_only(name: &StoreName) -> Result<Connection, StoreError> {
    if !name.0.exists() {
        return Err(StoreError::Missing { store: name.text() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&name.0, flags).map_err(|error| name.unopened(error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| name.unopened(error))?;
    Ok(connection)
}
