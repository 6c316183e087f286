//! Inotify: the system says at once that a file was written to, or that a folder has other names in it.
//!
//! What it says is a hint and no more: it ends a wait sooner. It says nothing of what another machine does on a network file
//! system, nothing of writing through memory, and it forgets what it cannot keep.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::{Errno, Result};

/// Bytes that are read at a time: some hundred notes.
const READ_BYTES: usize = 8 * 1024;
/// Notes that are taken at a time; the system keeps no more by default.
const NOTES_MAX: usize = 16 * 1024;

/// The number of what is watched.
pub(super) type WatchNo = i32;

/// What the system was asked to say.
#[derive(Debug)]
pub(super) struct Inotify(OwnedFd);

impl Inotify {
    /// None if the system gives no more of them.
    pub(super) fn open() -> Option<Self> {
        init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok().map(Self)
    }

    /// Watches an open file, whatever its name is. None if that cannot be.
    pub(super) fn watch_file(&self, file: BorrowedFd<'_>) -> Option<WatchNo> {
        add_watch(&self.0, format!("/proc/self/fd/{}", file.as_raw_fd()), WatchFlags::MODIFY).ok()
    }

    /// Watches for names that come into a folder or leave it. The number is the one that it had, if it is watched already.
    /// None if that cannot be.
    pub(super) fn watch_folder(&self, folder: &Path) -> Option<WatchNo> {
        let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ONLYDIR;
        add_watch(&self.0, folder, names).ok()
    }

    /// Watches it no more. It may be gone.
    pub(super) fn forget(&self, no: WatchNo) {
        let _ = remove_watch(&self.0, no);
    }

    /// Waits for that long, or until something is said; `take` gets the number of each that it is said of, and none for
    /// what was lost. False if nothing can be heard any more.
    pub(super) fn wait(&self, span: Duration, take: impl FnMut(Option<WatchNo>)) -> bool {
        let timeout = Timespec::try_from(span).ok();
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => true,
            Ok(_) => self.read(take).is_ok(),
            Err(_) => false,
        }
    }

    fn read(&self, mut take: impl FnMut(Option<WatchNo>)) -> Result<()> {
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let mut reader = Reader::new(&self.0, &mut buffer);
        for _ in 0..NOTES_MAX {
            match reader.next() {
                Ok(note) if note.events().contains(ReadFlags::QUEUE_OVERFLOW) => take(None),
                Ok(note) => take(Some(note.wd())),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
