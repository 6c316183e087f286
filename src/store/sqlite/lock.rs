//! The one writer of a pipeline: a lock that the operating system gives back when its holder dies.
//!
//! The lock is on a file beside the database, `<database>.<pipeline>.lock`, which names its holder. It is removed on a
//! clean end; one that a killed process left behind holds nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{StoreError, StoreName};
use crate::model::cause::Reason;
use crate::model::timestamp::Timestamp;
use crate::model::wait::pause;

/// How often a lock file that vanished under our hands is made anew.
const TRIES_MAX: usize = 10;

/// How often somebody is waited for who only looks who holds the lock, and how long: a look takes microseconds.
const LOOKS_MAX: usize = 2;
const LOOK_WAIT: Duration = Duration::from_millis(5);

/// A held lock. Dropping it gives it back.
pub(super) struct WriterLock {
    path: PathBuf,
    _file: File,
}

impl WriterLock {
    /// Takes the lock, or says who holds it. Waits for no run, only for somebody who looks who holds it.
    pub(super) fn take(database: &Path, pipeline: &str, name: &StoreName) -> Result<Self, StoreError> {
        let path = lock_file(database, pipeline);
        let cannot = |error: std::io::Error| StoreError::Open {
            store: name.text(),
            cause: Reason::new(format!("cannot lock {}: {error}", path.display()), error),
        };
        for tried in 0..TRIES_MAX {
            let mut file = open(&path).map_err(cannot)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if tried < LOOKS_MAX => {
                    pause(LOOK_WAIT, || false);
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Err(held(pipeline, &mut file)),
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
            }
            // Its last holder may have removed it between our opening and our locking it.
            if is_file_at(&file, &path) {
                sign(&mut file).map_err(cannot)?;
                return Ok(Self { path, _file: file });
            }
        }
        Err(name.cannot_open(format!("{} keeps being replaced", path.display())))
    }
}

/// Who holds a pipeline's lock; none if nobody does. Takes it for a moment, together with others who look.
///
/// # Errors
/// The file of the lock cannot be read.
pub(super) fn holder(database: &Path, pipeline: &str) -> std::io::Result<Option<String>> {
    let mut file = match OpenOptions::new().read(true).open(lock_file(database, pipeline)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| None),
        Err(TryLockError::WouldBlock) => Ok(Some(signature(&mut file))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The file of a pipeline's lock.
fn lock_file(database: &Path, pipeline: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(format!(".{pipeline}.lock"));
    PathBuf::from(path)
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to give back.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens the lock file, or makes it. Follows no link: what one leads to is not ours to write into.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match std::fs::symlink_metadata(path) {
        // What is put there meanwhile is not opened.
        Err(error) if error.kind() == ErrorKind::NotFound => match options.create_new(true).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => options.create_new(false).open(path),
            made => made,
        },
        Err(error) => Err(error),
        Ok(found) if found.is_file() && found.nlink() == 1 => options.open(path),
        Ok(_) => Err(std::io::Error::other("it is a link, or no file; expected none, or one of ours: remove it")),
    }
}

/// Whether the file is the one at the path itself, and nowhere else.
fn is_file_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), _) if ours.nlink() > 1 => false,
        (Ok(ours), Ok(there)) => ours.ino() == there.ino() && ours.dev() == there.dev(),
        _ => false,
    }
}

fn sign(file: &mut File) -> std::io::Result<()> {
    let program = std::env::args_os().next().map(PathBuf::from);
    let program = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let holder = format!(
        "{} (pid {}{}{}, since {})",
        program.as_deref().unwrap_or("forebay"),
        std::process::id(),
        if host.trim().is_empty() { "" } else { " on " },
        host.trim(),
        Timestamp::now()
    );
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(holder.as_bytes())?;
    file.flush()
}

fn held(pipeline: &str, file: &mut File) -> StoreError {
    StoreError::Held { pipeline: pipeline.to_owned(), holder: signature(file) }
}

/// How the holder of a lock has signed.
fn signature(file: &mut File) -> String {
    let mut holder = String::new();
    match file.read_to_string(&mut holder) {
        Ok(_) if !holder.is_empty() => holder,
        _ => "another process, which has not signed yet".into(),
    }
}
