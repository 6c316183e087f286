//! An index beside the present tables: in a file of its own, `<file>.new`, until its tables are copied into the present file
//! in one transaction (`swap`).
//!
//! The file is not renamed into place. SQLite finds a write-ahead log by the name of its file: a program that has the old
//! file open, or is just opening it, would take the log of the new one for that of the old one and read a mixture of both.
//! In one transaction, which waits for no reader, each sees all of the old tables or all of the new ones, also over a
//! connection that stays.

mod swap;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::busy::Patience;
use super::lock::WriterLock;
use super::{
    BUSY_TIMEOUT, SqliteStore, StoreError, StoreName, StorePlan, check_names, find, one_name, read_only, tables,
};
use crate::model::cause::Reason;
use crate::model::checkpoint::Checkpoint;
use crate::model::limits::STORE_OUTAGE_MAX;
use crate::store::readers::Readers;
use crate::store::sql::new_signature;
use crate::store::{Beside, BesideStatus, Store};

/// What says in the file beside by what and for whom it is made.
const MARK: &str = "CREATE TABLE IF NOT EXISTS forebay_fresh (
    pipeline TEXT NOT NULL, stamp TEXT NOT NULL, id TEXT NOT NULL
) STRICT";

/// See [`crate::store::open_beside`].
pub(in crate::store) fn open_beside(
    path: &Path,
    plan: StorePlan,
    stamp: &str,
) -> Result<Option<Box<dyn Beside>>, StoreError> {
    let name = StoreName(path.to_owned());
    if !has_pipeline(&name, &plan.pipeline)? {
        return Ok(None);
    }
    check_names(path, &name)?;
    let files = Files::beside(path);
    let _lock = files.lock(&plan.pipeline)?;
    let is_new = match files.look(&name, &plan.pipeline)? {
        Found::Mark(mark) if mark.stamp == stamp => false,
        Found::Mark(_) => {
            tracing::info!(
                "the script, the source or the pipeline file is another one than the fresh index in {} was begun with{}: it begins anew",
                files.name.text(),
                files.status(&plan.pipeline).map_or_else(String::new, |status| format!(" ({})", told(status)))
            );
            true
        }
        Found::Nothing | Found::Replaced => true,
    };
    if is_new {
        files.remove()?;
        files.make(&plan.pipeline, stamp)?;
    }
    Ok(Some(Box::new(SqliteBeside { name, files, plan, is_new, reserved: None })))
}

/// See [`crate::store::remove_beside`].
pub(in crate::store) fn remove_beside(path: &Path, pipeline: &str) -> Result<Option<BesideStatus>, StoreError> {
    let (name, files) = (StoreName(path.to_owned()), Files::beside(path));
    if !files.are_there() {
        return Ok(None);
    }
    let _lock = files.lock(pipeline)?;
    let removed = match files.look(&name, pipeline)? {
        Found::Mark(_) => Some(files.status(pipeline).unwrap_or_default()),
        Found::Nothing | Found::Replaced => None,
    };
    files.remove()?;
    Ok(removed)
}

/// How far the index beside a file has come; none if there is none.
pub(super) fn status(path: &Path, pipeline: &str) -> Option<BesideStatus> {
    let (name, files) = (StoreName(path.to_owned()), Files::beside(path));
    match files.look(&name, pipeline) {
        Ok(Found::Mark(_)) => files.status(pipeline),
        _ => None,
    }
}

/// Removes what a run left beside that ended when its index was in place already.
pub(super) fn tidy(path: &Path, pipeline: &str) {
    let (name, files) = (StoreName(path.to_owned()), Files::beside(path));
    let is_left = files.gone.exists() || matches!(files.look(&name, pipeline), Ok(Found::Replaced));
    if is_left && let Ok(_lock) = files.lock(pipeline) {
        // Whoever begins beside the next time does it too.
        let _ = files.remove();
    }
}

fn told(status: BesideStatus) -> String {
    status.block.map_or_else(|| "nothing committed".to_owned(), |block| format!("block {block}"))
}

/// Whether the file is there and has tables of the pipeline.
fn has_pipeline(name: &StoreName, pipeline: &str) -> Result<bool, StoreError> {
    if !name.0.exists() {
        return Ok(false);
    }
    let (open, _) = read_only::open_anyhow(name, BUSY_TIMEOUT)?;
    let has = tables::table_exists(&open, "forebay_pipelines")
        .and_then(|has| Ok(has && tables::checkpoint(&open, pipeline)?.is_some()));
    has.map_err(|error| name.unopened(error))
}

/// The file beside, and those that SQLite keeps with it.
struct Files {
    name: StoreName,
    /// Where the file is moved to before it is removed, so that its log is never taken for that of another one.
    gone: PathBuf,
}

/// What is beside.
enum Found {
    Nothing,
    /// An index.
    Mark(Mark),
    /// One that has taken the place of the present tables.
    Replaced,
}

struct Mark {
    stamp: String,
    id: String,
}

impl Files {
    /// Beside what a link leads to.
    fn beside(path: &Path) -> Self {
        let with = |ending: &str| {
            let mut file = one_name(path).into_os_string();
            file.push(ending);
            PathBuf::from(file)
        };
        Self { name: StoreName(with(".new")), gone: with(".new.gone") }
    }

    fn lock(&self, pipeline: &str) -> Result<WriterLock, StoreError> {
        WriterLock::take(&self.name.0, pipeline, &self.name)
    }

    fn are_there(&self) -> bool {
        self.name.0.exists() || self.gone.exists()
    }

    /// What is there, beside the present file of that name.
    fn look(&self, present: &StoreName, pipeline: &str) -> Result<Found, StoreError> {
        if !self.name.0.exists() {
            return Ok(Found::Nothing);
        }
        let (open, _) = read_only::open_anyhow(&self.name, BUSY_TIMEOUT)?;
        let reading = self.name.sql("looking what it is");
        let tables: i64 =
            open.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(&reading)?;
        if tables == 0 {
            return Ok(Found::Nothing);
        }
        let foreign = || self.name.cannot_open("it was not made by `forebay run --fresh`; move it away");
        if !tables::table_exists(&open, "forebay_fresh").map_err(&reading)? {
            return Err(foreign());
        }
        let sql = "SELECT pipeline, stamp, id FROM forebay_fresh";
        let mark = open.query_row(sql, [], |row| Ok((row.get(0)?, Mark { stamp: row.get(1)?, id: row.get(2)? })));
        let Some((owner, mark)): Option<(String, Mark)> = mark.optional().map_err(&reading)? else {
            return Ok(Found::Nothing);
        };
        if owner != pipeline {
            return Err(self.name.cannot_open(format!(
                "a fresh index of the pipeline {owner} of the same file stands there; let that one end first"
            )));
        }
        match replaced(present, pipeline)? {
            Some(id) if id == mark.id => Ok(Found::Replaced),
            _ => Ok(Found::Mark(mark)),
        }
    }

    fn status(&self, pipeline: &str) -> Option<BesideStatus> {
        let (open, _) = read_only::open_anyhow(&self.name, BUSY_TIMEOUT).ok()?;
        if !tables::table_exists(&open, "forebay_pipelines").ok()? {
            return Some(BesideStatus::default());
        }
        let found = tables::checkpoint(&open, pipeline).ok()?.unwrap_or_default();
        Some(BesideStatus { block: found.block, events: found.events })
    }

    fn make(&self, pipeline: &str, stamp: &str) -> Result<(), StoreError> {
        let made = Connection::open(&self.name.0).and_then(|mut open| {
            super::prepare(&open)?;
            let transaction = open.transaction()?;
            transaction.execute_batch(MARK)?;
            transaction.execute("INSERT INTO forebay_fresh VALUES (?1, ?2, ?3)", (pipeline, stamp, new_signature()))?;
            transaction.commit()
        });
        made.map_err(|error| self.name.unopened(error))
    }

    /// Removes all of it. What is left of it if this is interrupted is nothing to go on with.
    fn remove(&self) -> Result<(), StoreError> {
        let gone = |result: std::io::Result<()>| match result {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let cause = Reason::new(format!("it cannot be removed: {error}"), error);
                Err(StoreError::Open { store: self.name.text(), cause })
            }
            _ => Ok(()),
        };
        gone(std::fs::rename(&self.name.0, &self.gone))?;
        for ending in ["-wal", "-shm", "-journal"] {
            let mut file = self.name.0.clone().into_os_string();
            file.push(ending);
            gone(std::fs::remove_file(PathBuf::from(file)))?;
        }
        gone(std::fs::remove_file(&self.gone))
    }
}

/// The index that has last taken the place of the pipeline's tables in a file, if any has.
fn replaced(present: &StoreName, pipeline: &str) -> Result<Option<String>, StoreError> {
    if !present.0.exists() {
        return Ok(None);
    }
    let (open, _) = read_only::open_anyhow(present, BUSY_TIMEOUT)?;
    let reading = present.sql("looking which index it holds");
    if !tables::table_exists(&open, "forebay_replaced").map_err(&reading)? {
        return Ok(None);
    }
    let sql = "SELECT fresh FROM forebay_replaced WHERE pipeline = ?1";
    open.query_row(sql, [pipeline], |row| row.get(0)).optional().map_err(reading)
}

struct SqliteBeside {
    name: StoreName,
    files: Files,
    plan: StorePlan,
    /// Whether the file beside was made by this.
    is_new: bool,
    /// The lock of the present tables.
    reserved: Option<WriterLock>,
}

impl SqliteBeside {
    fn patience(&self) -> Arc<Patience> {
        Patience::new(self.name.clone(), STORE_OUTAGE_MAX, Arc::clone(&self.plan.stop), self.plan.outages.clone())
    }

    /// The present file, to write to it.
    fn open_present(&self) -> Result<Connection, StoreError> {
        check_names(&self.name.0, &self.name)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = Connection::open_with_flags(&self.name.0, flags).map_err(|error| self.name.unopened(error))?;
        self.patience().ask("opening it", || super::prepare(&open).map_err(|error| self.name.unopened(error)))?;
        find::prepare(&open).map_err(|error| self.name.unopened(error))?;
        Ok(open)
    }
}

impl Beside for SqliteBeside {
    fn open(&mut self) -> Result<Box<dyn Store>, StoreError> {
        let rehearsed = self.open_present().and_then(|open| swap::rehearse(&open, &self.name, &self.plan));
        if let Err(error) = rehearsed {
            if self.is_new {
                let _lock = self.files.lock(&self.plan.pipeline)?;
                self.files.remove()?;
            }
            return Err(error);
        }
        // Who may read a file may read all of it.
        let plan = self.plan.clone().with_readers(Readers::default());
        Ok(Box::new(SqliteStore::open(&self.files.name.0, plan, STORE_OUTAGE_MAX)?))
    }

    fn present(&mut self) -> Result<Checkpoint, StoreError> {
        let (open, _) = read_only::open_anyhow(&self.name, BUSY_TIMEOUT)?;
        let found = tables::checkpoint(&open, &self.plan.pipeline);
        Ok(found.map_err(self.name.sql("reading the checkpoint"))?.unwrap_or_default())
    }

    fn reserve(&mut self) -> Result<(), StoreError> {
        if self.reserved.is_none() {
            self.reserved = Some(WriterLock::take(&one_name(&self.name.0), &self.plan.pipeline, &self.name)?);
        }
        Ok(())
    }

    fn replace(&mut self, expected: &Checkpoint) -> Result<(), StoreError> {
        let _lock = self.files.lock(&self.plan.pipeline)?;
        let mut open = self.open_present()?;
        let beside = self.files.name.0.to_str();
        let beside = beside.ok_or_else(|| self.name.cannot_open("its path is no UTF-8; index into another file"))?;
        open.execute("ATTACH ?1 AS fresh", [beside]).map_err(self.name.sql("attaching the index beside"))?;
        let doing = "putting the index beside in place";
        self.patience().ask(doing, || swap::swap(&mut open, &self.name, &self.plan, expected))?;
        drop(open);
        // It is in place: what cannot be removed now is removed by the next command.
        if let Err(error) = self.files.remove() {
            tracing::warn!("{error}; the next run tries again");
        }
        Ok(())
    }
}
