//! The one writer of a pipeline: a lock that the operating system gives back when its holder dies.
//!
//! The lock is on a file beside the database, `<database>.<pipeline>.lock`, which names its holder. It is removed on a
//! clean end; one that a killed process left behind holds nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{StoreError, StoreName};
use crate::model::cause::Reason;
use crate::model::timestamp::Timestamp;

/// How often a lock file that vanished under our hands is made anew.
const TRIES_MAX: usize = 10;

/// A held lock. Dropping it gives it back.
pub(super) struct WriterLock {
    path: PathBuf,
    _file: File,
}

impl WriterLock {
    /// Takes the lock, or says who holds it. Does not wait.
    pub(super) fn take(database: &Path, pipeline: &str, name: &StoreName) -> Result<Self, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push(format!(".{pipeline}.lock"));
        let path = PathBuf::from(path);
        let cannot = |error: std::io::Error| StoreError::Open {
            store: name.text(),
            cause: Reason::new(format!("cannot lock {}: {error}", path.display()), error),
        };
        for _ in 0..TRIES_MAX {
            let mut file = open(&path).map_err(cannot)?;
            match file.try_lock() {
                Ok(()) => {}
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
    let mut holder = String::new();
    let read = file.read_to_string(&mut holder);
    if read.is_err() || holder.is_empty() {
        holder = "another process, which has not signed yet".into();
    }
    StoreError::Held { pipeline: pipeline.to_owned(), holder }
}
