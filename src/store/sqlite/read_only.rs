//! Opening a file only to read it, also where nothing may be written: on a medium that is read-only, in a folder of
//! somebody else's.
//!
//! SQLite reads a file in WAL mode by way of two files beside it, and leaves them there: in the way of a writer who has no
//! right to them. So the file is taken as one that does not change (`immutable`), as long as no write-ahead log lies
//! beside it: what is in a log is not in the file yet. Whether the file did change meanwhile is looked at afterwards
//! ([`Still`]).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{StoreError, StoreName, keep_plans};

/// A connection that cannot write.
///
/// # Errors
/// There is no such file, or it cannot be opened.
pub(super) fn open(name: &StoreName, busy_timeout: Duration) -> Result<Connection, StoreError> {
    if !name.0.exists() {
        return Err(StoreError::Missing { store: name.text() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&name.0, flags).map_err(|error| name.unopened(error))?;
    prepare(&connection, busy_timeout).map_err(|error| name.unopened(error))?;
    Ok(connection)
}

/// The same for whoever has no more rights than to read. What is read counts only if [`Still::has_changed`] says no then.
///
/// # Errors
/// As [`open`]; or a log lies beside the file, and cannot be read.
pub(super) fn open_anyhow(name: &StoreName, busy_timeout: Duration) -> Result<(Connection, Option<Still>), StoreError> {
    if !name.0.exists() {
        return Err(StoreError::Missing { store: name.text() });
    }
    if log_bytes(&name.0).is_none() {
        return open_still(name, busy_timeout);
    }
    let connection = open(name, busy_timeout)?;
    match connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
        Err(error) if lacks_rights(&error) => match log_bytes(&name.0) {
            None | Some(0) => open_still(name, busy_timeout),
            Some(_) if journal(&name.0).exists() && roll_back(name, busy_timeout).is_ok() => {
                Ok((open(name, busy_timeout)?, None))
            }
            Some(_) => Err(name.cannot_open(unread_log(&name.0))),
        },
        // Whatever else is wrong is said where something is read.
        _ => Ok((connection, None)),
    }
}

/// The rollback journal of a file. Once a file is made it is in WAL mode, so only one in the making has a journal.
fn journal(path: &Path) -> PathBuf {
    beside(path, "-journal")
}

/// Takes back the transaction in which a writer was killed, as SQLite does for whoever may write.
fn roll_back(name: &StoreName, busy_timeout: Duration) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&name.0, flags)?;
    prepare(&connection, busy_timeout)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// What is said of a log that cannot be read.
fn unread_log(path: &Path) -> String {
    let journal = journal(path);
    if journal.exists() {
        return format!(
            "{} belongs to a transaction that was interrupted, and cannot be taken back here, where nothing may be written; let `forebay run` do that",
            journal.display()
        );
    }
    format!(
        "{} holds commits that are not in the file yet, and cannot be read here, where nothing may be written; copy both files to a folder that may be written to and read them there, or let `forebay run` finish where they are",
        beside(path, "-wal").display()
    )
}

/// Whether SQLite lacks the rights to make what it wants beside the file.
pub(super) fn lacks_rights(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
}

fn open_still(name: &StoreName, busy_timeout: Duration) -> Result<(Connection, Option<Still>), StoreError> {
    let still = Still::of(&name.0).ok_or_else(|| StoreError::Missing { store: name.text() })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(still_uri(&name.0), flags).map_err(|error| name.unopened(error))?;
    prepare(&connection, busy_timeout).map_err(|error| name.unopened(error))?;
    Ok((connection, Some(still)))
}

fn prepare(connection: &Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    keep_plans(connection)?;
    connection.busy_timeout(busy_timeout)
}

/// The file's address as one that does not change (<https://www.sqlite.org/uri.html>).
fn still_uri(path: &Path) -> PathBuf {
    let mut uri: Vec<u8> = b"file:".to_vec();
    if path.is_absolute() {
        uri.extend(b"//");
    }
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'~' => uri.push(*byte),
            byte if byte.is_ascii_alphanumeric() => uri.push(*byte),
            byte => uri.extend(format!("%{byte:02X}").bytes()),
        }
    }
    uri.extend(b"?immutable=1");
    PathBuf::from(OsString::from_vec(uri))
}

/// A file of SQLite's beside a database; of a link, beside what it leads to.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.canonicalize().unwrap_or_else(|_| path.to_owned()).into_os_string();
    name.push(ending);
    PathBuf::from(name)
}

/// Bytes of the write-ahead log or the rollback journal beside a file; none if there is neither.
fn log_bytes(path: &Path) -> Option<u64> {
    let bytes = ["-wal", "-journal"].iter().filter_map(|ending| std::fs::metadata(beside(path, ending)).ok());
    bytes.map(|found| found.len()).max()
}

/// A file as it was when it was opened as one that does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Still {
    place: (u64, u64),
    bytes: u64,
    changed: (i64, i64),
    log: Option<u64>,
}

impl Still {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            place: (found.dev(), found.ino()),
            bytes: found.len(),
            changed: (found.mtime(), found.mtime_nsec()),
            log: log_bytes(path),
        })
    }

    /// Whether the file is another one by now, or was written to.
    pub(super) fn has_changed(&self, name: &StoreName) -> bool {
        Self::of(&name.0).as_ref() != Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_was_interrupted_is_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let writer = Connection::open(path("a.db")).expect("a connection");
        // So little is kept in memory that pages are written before the transaction ends.
        let begun = "PRAGMA cache_size = 2; CREATE TABLE t (x); INSERT INTO t VALUES (1); BEGIN;
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
            INSERT INTO t SELECT randomblob(1000) FROM n";
        writer.execute_batch(begun).expect("rows");
        for ending in ["", "-journal"] {
            std::fs::copy(path(&format!("a.db{ending}")), path(&format!("copy.db{ending}"))).expect("a copy");
        }
        let name = StoreName(path("copy.db"));
        assert!(log_bytes(&name.0).is_some_and(|bytes| bytes > 0));
        let (reader, still) = open_anyhow(&name, Duration::ZERO).expect("it is taken back");
        assert!(still.is_none());
        let rows: i64 = reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("rows");
        assert_eq!(rows, 1);
        // Of one that is still going on nothing is taken back.
        let (reader, _) = open_anyhow(&StoreName(path("a.db")), Duration::ZERO).expect("a connection");
        assert!(reader.query_row("SELECT count(*) FROM t", [], |_| Ok(())).is_err());
        writer.execute_batch("COMMIT").expect("a commit");
        let rows: i64 = reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("rows");
        assert_eq!(rows, 1001);
    }

    #[test]
    fn a_file_of_any_name_is_opened_as_one_that_does_not_change() {
        let folder = tempfile::tempdir().expect("a folder");
        for file in ["a.db", "with blank?and=100%#é.db"] {
            let name = StoreName(folder.path().join(file));
            let writer = Connection::open(&name.0).expect("a connection");
            writer
                .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
                .expect("rows");
            drop(writer);
            let (reader, still) = open_still(&name, Duration::ZERO).expect("a reader");
            let rows: i64 = reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("rows");
            assert_eq!(rows, 1);
            let still = still.expect("a stamp");
            assert!(!still.has_changed(&name), "nothing has changed");
            assert_eq!(log_bytes(&name.0), None, "nothing is made beside it");
            let writer = Connection::open(&name.0).expect("a connection");
            writer.execute_batch("INSERT INTO t VALUES (2)").expect("rows");
            assert!(still.has_changed(&name), "a log lies beside it now");
            let link = StoreName(folder.path().join("link.db"));
            let _ = std::fs::remove_file(&link.0);
            std::os::unix::fs::symlink(&name.0, &link.0).expect("a link");
            let (reader, still) = open_anyhow(&link, Duration::ZERO).expect("a reader");
            let rows: i64 = reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("rows");
            assert_eq!((rows, still), (2, None), "the log is beside what the link leads to");
        }
    }
}
