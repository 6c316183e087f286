//! The embedded store: one SQLite file, in WAL mode, every commit synced to disk.
//!
//! | file | holds |
//! |---|---|
//! | `lock` | the one writer of a pipeline |
//! | `beside/` | an index in a file beside, and putting it in the place of the present tables |
//! | `busy` | waiting for a file that another program holds |
//! | `log` | emptying the write-ahead log at the end of a run |
//! | `read_only` | opening a file that may only be read |
//! | `tables` | the tables, and what may change about them |
//! | `write` | one batch, one transaction |
//! | `source` | what of its source is committed |
//! | `undo_log` | one record per batch, by which it can be rolled back |
//! | `quarantine` | events that were put aside |
//! | `rows`, `find` | reading rows beside the writer, by id and by column |
//! | `outbox` | snapshots that are yet to be published |
//! | `snapshots` | reading snapshots and status |
//! | `examine` | looking at the file and its disk, for `doctor` |

mod beside;
mod busy;
mod examine;
mod find;
mod lock;
mod log;
mod outbox;
mod quarantine;
mod read_only;
mod rows;
mod snapshots;
mod source;
mod tables;
mod undo_log;
mod write;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{BesideStatus, Committed, OpenReader, Outbox, RowReader, SnapshotReader, Store, StoreError, StorePlan};
use crate::batch::{RegionTouch, SealedBatch};
use crate::model::cause::Reason;
use crate::model::checkpoint::Checkpoint;
use crate::model::limits::STORE_OUTAGE_MAX;
use crate::model::position::Position;
use crate::model::schema::Schema;
use crate::model::source_progress::{SourceFile, SourceProgress};
use crate::model::timestamp::Timestamp;
use crate::undo::UndoRecord;
pub(super) use beside::{open_beside, remove_beside};
use busy::{Patience, TRY_TIMEOUT};
pub(super) use examine::examine;
use lock::WriterLock;
use outbox::SqliteOutbox;
use snapshots::SqliteSnapshots;
use write::Statements;

/// How long a statement beside a run waits for another program that holds the file: of commands that read, and of marks,
/// which are made again later.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Pages that the cache of a connection holds, in KiB (the negative form of `cache_size`).
const CACHE_KIB: i64 = 8 * 1024;

/// See [`super::open()`].
pub(super) fn open(path: &Path, plan: StorePlan) -> Result<Box<dyn Store>, StoreError> {
    Ok(Box::new(SqliteStore::open(path, plan, STORE_OUTAGE_MAX)?))
}

/// See [`super::open_outbox`].
pub(super) fn open_outbox(path: &Path, pipeline: &str) -> Result<Box<dyn Outbox>, StoreError> {
    let name = StoreName(path.to_owned());
    check_names(path, &name)?;
    Ok(Box::new(SqliteOutbox::new(name, pipeline.to_owned())))
}

/// See [`super::open_snapshots`].
pub(super) fn open_snapshots(path: &Path) -> Result<Box<dyn SnapshotReader>, StoreError> {
    if has_more_names(path) {
        tracing::warn!(
            "{} has other names (hard links): what is committed under one of those may not be shown",
            StoreName(path.to_owned()).text()
        );
    }
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
    patience: Arc<Patience>,
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
    /// Opens the file; while another program holds it, here and later, it is waited for up to `held_max`.
    fn open(path: &Path, plan: StorePlan, held_max: Duration) -> Result<Self, StoreError> {
        let name = StoreName(path.to_owned());
        let patience = Patience::new(name.clone(), held_max, Arc::clone(&plan.stop), plan.outages.clone());
        check_place(path, &name)?;
        check_names(path, &name)?;
        let lock = WriterLock::take(&one_name(path), &plan.pipeline, &name)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(|error| name.unopened(error))?;
        patience.ask("opening it", || {
            prepare(&connection).map_err(|error| name.unopened(error))?;
            tables::prepare(&mut connection, &name, &plan)
        })?;
        let statements = Statements::new(&plan.schema);
        check_names(path, &name)?;
        let file = file_number(path).ok_or_else(|| name.cannot_open("it was removed just now"))?;
        Ok(Self { connection, name, plan, statements, file, patience, _lock: lock })
    }

    /// Reads, also from a file that is held for a while.
    fn ask<T>(
        &self,
        doing: &'static str,
        read: impl Fn(&Connection, &StorePlan) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.patience.ask(doing, || read(&self.connection, &self.plan).map_err(self.name.sql(doing)))
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

/// Refuses a file with more than one name: each would have a log of its own, and a writer under another name would not see
/// what is in this one's.
fn check_names(path: &Path, name: &StoreName) -> Result<(), StoreError> {
    match has_more_names(path) {
        true => Err(name.cannot_open(
            "the file has other names (hard links), and SQLite keeps a log beside each: what is committed under one name is \
             lost under another; remove the other names, or copy the file",
        )),
        false => Ok(()),
    }
}

fn has_more_names(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.nlink() > 1)
}

/// Has a connection keep the plans of its statements (<https://www.sqlite.org/queryplanner-ng.html#qpstab>). Without that
/// the planner looks at what is bound, and SQLite compiles each `WHERE x = ?` again for each value.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Sets up a connection that writes.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    keep_plans(connection)?;
    connection.busy_timeout(TRY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // A snapshot may be published as soon as its batch has committed, so a commit must survive a power loss.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY;")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
}

impl Store for SqliteStore {
    fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        let found = self.ask("reading the checkpoint", |open, plan| tables::checkpoint(open, &plan.pipeline))?;
        Ok(found.unwrap_or_default())
    }

    fn committed_at(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let found =
            self.ask("reading when it was committed", |open, plan| tables::committed_at(open, &plan.pipeline))?;
        Ok(found.and_then(|time| time.parse().ok()))
    }

    fn source_progress(&mut self) -> Result<SourceProgress, StoreError> {
        let doing = self.name.sql("reading what of the source is committed");
        source::progress(&self.connection, &self.plan.pipeline).map_err(doing)
    }

    fn position(&mut self) -> Result<Option<Position>, StoreError> {
        self.ask("reading the position", |open, plan| source::position(open, &plan.pipeline))
    }

    fn source_files(&mut self) -> Result<Vec<SourceFile>, StoreError> {
        let doing = self.name.sql("reading which files are committed");
        source::files(&self.connection, &self.plan.pipeline).map_err(doing)
    }

    fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError> {
        self.ask("reading which regions lack a snapshot", |open, plan| tables::pending_regions(open, &plan.pipeline))
    }

    fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError> {
        self.ask("looking whether the tables are empty", |open, plan| {
            plan.schema.entities().iter().map(|entity| tables::is_empty(open, entity)).collect()
        })
    }

    fn checks_new_rows(&self) -> bool {
        true
    }

    fn commit(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, StoreError> {
        let mut waiting = self.patience.wait_to_commit();
        loop {
            // SQLite would go on writing into a file that nobody finds any more.
            if file_number(&self.name.0) != Some(self.file) {
                return Err(self.name.cannot_open("the file was removed or replaced while it was written to"));
            }
            match write::commit(&mut self.connection, &self.statements, &self.name, &self.plan, batch) {
                Ok(committed) => {
                    waiting.is_over();
                    return Ok(Committed { retries: waiting.tries(), ..committed });
                }
                Err(error) => waiting.wait(error)?,
            }
        }
    }

    fn undo_log(&mut self, rows_from: u64) -> Result<Vec<UndoRecord>, StoreError> {
        self.ask("reading the history", |open, plan| undo_log::read(open, &plan.pipeline, rows_from))
    }

    fn region_blocks(&mut self) -> Result<Vec<(Arc<str>, i64)>, StoreError> {
        self.ask("reading the regions", |open, plan| undo_log::region_blocks(open, &plan.pipeline))
    }

    fn set_back_regions(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.ask("reading the regions", |open, plan| undo_log::set_back_regions(open, &plan.pipeline))
    }

    fn quarantined(&mut self) -> Result<u64, StoreError> {
        let doing = self.name.sql("counting the quarantine");
        quarantine::count(&self.connection, &self.plan.pipeline).map_err(doing)
    }

    fn beside(&mut self) -> Result<Option<BesideStatus>, StoreError> {
        beside::tidy(&self.name.0, &self.plan.pipeline);
        Ok(beside::status(&self.name.0, &self.plan.pipeline))
    }

    fn readers(&self) -> Arc<dyn OpenReader> {
        let (name, schema) = (self.name.clone(), Arc::clone(&self.plan.schema));
        Arc::new(SqliteReaders { name, schema, patience: Arc::clone(&self.patience) })
    }

    fn renumber(&mut self, above: &[(Arc<str>, u64)]) -> Result<(), StoreError> {
        let doing = "numbering snapshots anew";
        let Self { connection, name, plan, patience, .. } = self;
        patience.ask(doing, || write::renumber(connection, &plan.pipeline, above).map_err(name.sql(doing)))
    }

    fn finish(&mut self) {
        // A file that is not at its place any more is nobody's to copy.
        if file_number(&self.name.0) == Some(self.file) {
            log::empty(&self.connection, &self.name);
        }
    }

    fn outbox(&self) -> Option<Box<dyn Outbox>> {
        Some(Box::new(SqliteOutbox::new(self.name.clone(), self.plan.pipeline.clone())))
    }
}

/// Opens connections that read.
struct SqliteReaders {
    name: StoreName,
    schema: Arc<Schema>,
    patience: Arc<Patience>,
}

impl OpenReader for SqliteReaders {
    fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
        let connection = read_only::open(&self.name, TRY_TIMEOUT)?;
        let doing = "preparing to read rows";
        self.patience.ask(doing, || find::prepare(&connection).map_err(self.name.sql(doing)))?;
        let (name, schema) = (self.name.clone(), Arc::clone(&self.schema));
        Ok(Box::new(rows::SqliteRows::new(connection, name, schema, Arc::clone(&self.patience))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::StatementStatus;

    /// How often SQLite compiles a statement again to which another value is bound.
    fn compiled_again(connection: &Connection) -> i32 {
        let mut statement =
            connection.prepare("SELECT b FROM t WHERE a = ?1 AND b > ?2 LIMIT ?3").expect("a statement");
        for value in 0..10 {
            let mut rows = statement.query((value, value, value)).expect("rows");
            while rows.next().expect("a row").is_some() {}
        }
        statement.get_status(StatementStatus::RePrepare)
    }

    #[test]
    fn no_statement_is_compiled_again_for_another_value() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = StoreName(folder.path().join("a.db"));
        let writer = Connection::open(&name.0).expect("a connection");
        writer.execute_batch("CREATE TABLE t (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID").expect("a table");
        prepare(&writer).expect("a connection that writes");
        assert_eq!(compiled_again(&writer), 0);
        let reader = read_only::open(&name, Duration::ZERO).expect("a connection");
        assert_eq!(compiled_again(&reader), 0);
        let (anyhow, _) = read_only::open_anyhow(&name, Duration::ZERO).expect("a connection");
        assert_eq!(compiled_again(&anyhow), 0);
        let marks = outbox::open(&name).expect("a connection");
        assert_eq!(compiled_again(&marks), 0);
    }
}
