//! Waits until a file or a folder may have changed, so that nobody has to look often.
//!
//! It hears of changes where the system tells of them. Whoever waits looks again all the same after a while: what is heard
//! is a hint. Where nothing can be heard, since the system has no watch left or none at all, that is no error, and
//! [`Watch::hears_file`] says so.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::FileEnd;
use super::inotify::{Inotify, WatchNo};

/// Folders that are watched at most: the system has a bound for all programs of a user.
const FOLDERS_MAX: usize = 1024;
/// How long is waited behind what was heard: a program that writes line by line does not wake us with each of them.
const LULL: Duration = Duration::from_millis(10);

/// What was heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::source) struct Heard {
    /// The file may have been written to.
    pub(in crate::source) file: bool,
    /// A folder may have other names in it.
    pub(in crate::source) folder: bool,
}

/// Watches one file, and folders.
#[derive(Debug, Default)]
pub(in crate::source) struct Watch {
    inotify: Option<Inotify>,
    file: Weak<FileEnd>,
    /// The number of the file, if it is watched.
    file_no: Option<WatchNo>,
    /// Sorted.
    folders: Vec<WatchNo>,
    /// When the file was heard of last.
    heard_at: Option<Instant>,
    /// For tests: the system gives nothing.
    #[cfg(test)]
    is_deaf: bool,
}

impl Watch {
    /// One that hears nothing.
    #[cfg(test)]
    pub(in crate::source) fn deaf() -> Self {
        Self { is_deaf: true, ..Self::default() }
    }

    /// Watches this file instead of the last one.
    pub(in crate::source) fn watch_file(&mut self, file: &Arc<FileEnd>) {
        if std::ptr::eq(self.file.as_ptr(), Arc::as_ptr(file)) {
            return;
        }
        let before = self.file_no.take();
        self.file = Arc::downgrade(file);
        self.open();
        let Some(inotify) = &self.inotify else { return };
        self.file_no = inotify.watch_file(file.descriptor());
        if let Some(before) = before.filter(|before| self.file_no != Some(*before)) {
            inotify.forget(before);
        }
    }

    /// Watches these folders and no others. Whether one of them is watched since now: what happened in it before was not
    /// heard.
    pub(in crate::source) fn watch_folders(&mut self, folders: &[PathBuf]) -> bool {
        self.open();
        if self.file_no.is_none() {
            // Maybe there is a watch for it now.
            self.file = Weak::new();
        }
        let Some(inotify) = &self.inotify else { return false };
        // The path of a folder may be another folder by now: the system knows.
        let watched = folders.iter().take(FOLDERS_MAX).filter_map(|folder| inotify.watch_folder(folder));
        let mut watched: Vec<WatchNo> = watched.collect();
        watched.sort_unstable();
        watched.dedup();
        let gone = self.folders.iter().filter(|no| watched.binary_search(no).is_err());
        gone.for_each(|no| inotify.forget(*no));
        let has_new = watched.iter().any(|no| self.folders.binary_search(no).is_err());
        self.folders = watched;
        has_new
    }

    /// Whether it is heard that the file grows.
    pub(in crate::source) fn hears_file(&self) -> bool {
        self.file_no.is_some()
    }

    fn open(&mut self) {
        #[cfg(test)]
        if self.is_deaf {
            return;
        }
        if self.inotify.is_none() {
            self.inotify = Inotify::open();
        }
    }

    /// Waits for that long, or until something is heard.
    pub(in crate::source) fn wait(&mut self, span: Duration) -> Heard {
        let mut heard = Heard::default();
        let lull = self.heard_at.and_then(|at| LULL.checked_sub(at.elapsed())).unwrap_or_default().min(span);
        if !lull.is_zero() {
            std::thread::park_timeout(lull);
        }
        let Some(inotify) = &self.inotify else {
            std::thread::park_timeout(span - lull);
            return heard;
        };
        let file = self.file_no;
        let can_hear = inotify.wait(span - lull, |no| {
            heard.file |= no.is_none() || no == file;
            heard.folder |= no.is_none() || no != file;
        });
        if !can_hear {
            *self = Self::default();
            std::thread::park_timeout(span - lull);
        }
        if heard.file {
            self.heard_at = Some(Instant::now());
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::Write;
    use std::path::Path;

    use super::*;

    /// Longer than a test may take: what ends before was heard.
    const LONG: Duration = Duration::from_secs(600);
    const FILE: Heard = Heard { file: true, folder: false };
    const FOLDER: Heard = Heard { file: false, folder: true };

    fn opened(path: &Path) -> Arc<FileEnd> {
        FileEnd::open(File::open(path).expect("the file"), 0).expect("a file").1
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_happens_to_the_file_and_in_the_folders_ends_a_wait() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "").expect("a file");
        fs::create_dir(at("deep")).expect("a folder");
        let folders = [folder.path().to_owned(), at("deep"), at("nowhere")];
        let mut watch = Watch::default();
        assert!(!watch.hears_file());
        assert!(watch.watch_folders(&folders) && !watch.watch_folders(&folders));
        let file = opened(&at("a"));
        watch.watch_file(&file);
        assert!(watch.hears_file());
        assert_eq!(watch.wait(Duration::ZERO), Heard::default());
        let mut writer = OpenOptions::new().append(true).open(at("a")).expect("the file");
        writer.write_all(b"line\n").expect("written");
        assert_eq!(watch.wait(LONG), FILE);
        fs::write(at("deep/b"), "").expect("a file");
        assert_eq!(watch.wait(LONG), FOLDER);
        // It goes on with the file, whatever its name is.
        fs::rename(at("a"), at("deep/a")).expect("renamed");
        assert_eq!(watch.wait(LONG), FOLDER);
        writer.write_all(b"line\n").expect("written");
        assert_eq!(watch.wait(LONG), FILE);
        writer.set_len(0).expect("cut");
        assert_eq!(watch.wait(LONG), FILE);
        // A folder that was made anew is another one.
        fs::remove_dir_all(at("deep")).expect("removed");
        fs::create_dir(at("deep")).expect("a folder");
        assert_eq!(watch.wait(LONG), FOLDER);
        assert!(watch.watch_folders(&folders));
        while watch.wait(Duration::ZERO) != Heard::default() {}
        fs::write(at("deep/c"), "").expect("a file");
        assert_eq!(watch.wait(LONG), FOLDER);
        // The next file, and no longer the last one.
        watch.watch_file(&opened(&at("deep/c")));
        while watch.wait(Duration::ZERO) != Heard::default() {}
        writer.write_all(b"line\n").expect("written");
        assert_eq!(watch.wait(Duration::ZERO), Heard::default());
    }

    #[test]
    fn where_nothing_can_be_heard_it_only_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        fs::write(&path, "").expect("a file");
        let mut watch = Watch::deaf();
        watch.watch_file(&opened(&path));
        assert!(!watch.watch_folders(&[folder.path().to_owned()]) && !watch.hears_file());
        fs::write(&path, "line\n").expect("written");
        assert_eq!(watch.wait(Duration::from_millis(1)), Heard::default());
    }
}
