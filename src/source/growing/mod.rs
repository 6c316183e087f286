//! Bytes that come while they are read: of files that someone writes to, and of pipes.

mod file_end;
#[cfg_attr(not(target_os = "linux"), path = "no_inotify.rs")]
mod inotify;
mod piped;
mod watch;
mod whole_lines;

pub(super) use file_end::{FileEnd, Growth, hash_before};
pub(super) use piped::Piped;
pub(super) use watch::Watch;
pub(super) use whole_lines::{Unfinished, WholeLines};

/// What is next where what is read gives no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// It goes on.
    More,
    /// Nothing for now.
    Wait,
    /// The next file.
    Next,
}
