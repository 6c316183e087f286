//! The write-ahead log at the end of a run: emptied into the file, so that the file alone is all of it.
//!
//! While another program has the file open, SQLite leaves the log where it is when we close it: a copy of the file would
//! lack the last commits, and nobody would see it.

use std::time::Duration;

use rusqlite::Connection;

use super::StoreName;
use super::read_only::beside;

/// How long readers are waited for. Most read for moments; one that keeps a transaction open is not waited out.
const READERS_WAIT: Duration = Duration::from_secs(1);

/// Empties the log into the file, as far as others let it. What stays in it is told; nothing of it is lost.
pub(super) fn empty(connection: &Connection, name: &StoreName) {
    let held = match try_empty(connection) {
        Ok(is_whole) if is_whole => return,
        Ok(_) => "other programs are reading an older state".to_owned(),
        Err(error) => error.to_string(),
    };
    let log = beside(&name.0, "-wal");
    tracing::info!(
        "{}: the last commits are still in {}, because {held}; until a later run has ended, whoever copies the file must take that one along",
        name.text(),
        log.display()
    );
}

/// Whether all that is committed is in the file itself.
fn try_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.busy_timeout(READERS_WAIT)?;
    // Busy; pages in the log; those of them that are in the file too. Without a log both are -1.
    let pages = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let (logged, filed) = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], pages)?;
    Ok(filed >= logged)
}
