//! Looking at a store in a file, and at the disk that it lies on. What is found is judged by `store/judge`.
//!
//! Writes nothing that stays: what bringing a commit to disk takes is measured in a file without a name. The database is
//! only read, and its lock looked at.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{ErrorCode, OptionalExtension};

use super::read_only::{self, beside};
use super::{StoreError, StoreName, check_names, check_place, lock, one_name, tables};
use crate::model::finding::{Finding, median_millis};
use crate::store::judge;

/// How long a file is waited for that another program holds.
const BUSY_MAX: Duration = Duration::from_millis(500);

/// How often bringing something to disk is measured, and how long that may go on before another one begins.
const SYNCS: usize = 5;
const MEASURING_MAX: Duration = Duration::from_secs(1);

/// What a small commit writes into the log: a page or two.
const SYNC_BYTES: usize = 8 * 1024;

/// See [`crate::store::examine`].
pub(in crate::store) fn examine(path: &Path, pipeline: Option<&str>) -> Vec<Finding> {
    let name = StoreName(path.to_owned());
    if let Err(error) = check_place(path, &name).and_then(|()| check_names(path, &name)) {
        return vec![unopened(&error)];
    }
    let (connected, format) = match format_of(&name, pipeline) {
        Ok(found) => found,
        Err(error) => return vec![unopened(&error)],
    };
    let mut findings = vec![connected];
    let folder = folder_of(path);
    let synced = sync_millis(&folder);
    findings.push(find_rights(path, &folder, synced.as_ref().err()));
    findings.extend(synced.ok().flatten().map(judge::commit));
    findings.extend(find_space(path, &folder));
    findings.extend(find_file_system(&folder));
    findings.extend(format);
    findings.extend(pipeline.map(|pipeline| find_lock(path, pipeline)));
    findings
}

fn unopened(error: &StoreError) -> Finding {
    let cause = match error {
        StoreError::Open { cause, .. } | StoreError::Sql { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    Finding::of_error("store_connection", &cause, "look at the file and at [store] url")
}

/// The folder of a file; of a link, that of what it leads to.
fn folder_of(path: &Path) -> PathBuf {
    let path = one_name(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).to_owned()
}

/// That the file is one of SQLite; and the format of our tables in it.
fn format_of(name: &StoreName, pipeline: Option<&str>) -> Result<(Finding, Option<Finding>), StoreError> {
    let version = rusqlite::version();
    let judged = |format: Option<i64>| pipeline.map(|_| judge::format(format, tables::FORMAT));
    let (connection, _) = match read_only::open_anyhow(name, BUSY_MAX) {
        Err(StoreError::Missing { .. }) => {
            let text = format!("there is no file yet, the first run makes it (SQLite {version})");
            return Ok((Finding::ok("store_connection", text), judged(None)));
        }
        opened => opened?,
    };
    let known = |connection: &rusqlite::Connection| {
        connection
            .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'forebay_pipelines'", [], |_| Ok(()))
            .optional()
            .and_then(|known| match known {
                None => Ok(None),
                Some(()) => connection
                    .query_row(
                        "SELECT format FROM forebay_pipelines WHERE pipeline = ?1",
                        [pipeline.unwrap_or_default()],
                        |row| row.get(0),
                    )
                    .optional(),
            })
    };
    match known(&connection) {
        Ok(format) => {
            Ok((Finding::ok("store_connection", format!("the file can be read (SQLite {version})")), judged(format)))
        }
        // A commit that is just being made, or a program that keeps the file to itself.
        Err(error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) =>
        {
            let finding = Finding::warning(
                "store_connection",
                "another program holds the file, so that it cannot be read",
                "end that program, or wait for it: a run waits for five minutes",
            );
            Ok((finding, None))
        }
        Err(error) => Err(name.unopened(error)),
    }
}

/// What bringing a small write to disk takes in a folder. The file loses its name before anything is written, and goes
/// with the process.
///
/// # Errors
/// No file can be made there, or it cannot be written.
fn sync_millis(folder: &Path) -> std::io::Result<Option<f64>> {
    let place = folder.join(format!(".forebay-doctor-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&place)?;
    std::fs::remove_file(&place)?;
    let (begun, mut taken) = (Instant::now(), Vec::new());
    while taken.is_empty() || (taken.len() < SYNCS && begun.elapsed() < MEASURING_MAX) {
        let since = Instant::now();
        file.seek(SeekFrom::End(0))?;
        file.write_all(&[0; SYNC_BYTES])?;
        file.sync_all()?;
        taken.push(since.elapsed());
    }
    Ok(median_millis(taken))
}

/// Whether a run may write the file, and files beside it. `refused` is why no file could be made in the folder.
fn find_rights(path: &Path, folder: &Path, refused: Option<&std::io::Error>) -> Finding {
    const NAME: &str = "store_rights";
    const ADVICE: &str = "give the user of forebay the right to write the file and its folder";
    if let Some(error) = refused {
        let text = format!("no file can be written in {}: {error}", folder.display());
        let advice = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "free some space on that disk",
            _ => ADVICE,
        };
        return Finding::problem(NAME, text, advice);
    }
    for file in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")] {
        if file.exists()
            && let Err(error) = OpenOptions::new().write(true).open(&file)
        {
            return Finding::problem(NAME, format!("{} cannot be written: {error}", file.display()), ADVICE);
        }
    }
    Finding::ok(NAME, "the file and its folder may be written")
}

/// Free space, if the system tells it.
fn find_space(path: &Path, folder: &Path) -> Option<Finding> {
    let system = rustix::fs::statvfs(folder).ok()?;
    let bytes = |file: PathBuf| std::fs::metadata(file).map_or(0, |found| found.len());
    let database = bytes(path.to_owned()) + bytes(beside(path, "-wal"));
    Some(judge::space(system.f_bavail.saturating_mul(system.f_frsize), database))
}

#[cfg(target_os = "linux")]
fn find_file_system(folder: &Path) -> Option<Finding> {
    // Numbers of 32 bits, which some systems keep with a sign.
    let magic = rustix::fs::statfs(folder).ok()?.f_type as u64 & 0xffff_ffff;
    Some(judge::file_system(magic))
}

#[cfg(not(target_os = "linux"))]
fn find_file_system(_: &Path) -> Option<Finding> {
    None
}

fn find_lock(path: &Path, pipeline: &str) -> Finding {
    match lock::holder(&one_name(path), pipeline) {
        Ok(holder) => judge::lock(holder.as_deref()),
        Err(error) => Finding::warning(
            "store_lock",
            format!("the lock file beside the database cannot be read: {error}"),
            "remove it, if no run is under way",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measuring_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(sync_millis(folder.path()).expect("a measurement").is_some());
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
        assert!(sync_millis(&folder.path().join("gone")).is_err());
    }
}
