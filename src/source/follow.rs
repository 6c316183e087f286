//! Following: what a followed source does where its files end.
//!
//! A file is read to its present end and watched. The next one begins when it is there and nothing more comes in this
//! one. A file that was renamed is read on for a while, since its writer may still have it open; one that was cut or
//! written over is read anew. We ask the system again and again, which also works on network file systems.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::files::SourcePath;
use super::growing::{AtEnd, FileEnd, Growth};
use super::walk::InputFile;
use super::{Late, SourceError, names};

/// How long nothing is looked at.
const WAIT: Duration = Duration::from_millis(35);
/// How often we look for other files, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look takes at most this part of the time: there may be many files.
const LOOK_SHARE: u32 = 200;
/// How long a file is read on that was renamed or removed.
const ROTATE_WAIT: Duration = Duration::from_secs(5);

/// Follows the files of a source.
#[derive(Debug)]
pub(super) struct Follow {
    late: Late,
    look_every: Duration,
    looked_at: Instant,
    /// Since when the file that is being read has lost its name.
    rotated_at: Option<Instant>,
    /// The place of the file that was written anew last.
    anew: Option<usize>,
    /// Files that come too late and are left out.
    ignored: HashSet<(u64, u64)>,
}

impl Follow {
    pub(super) fn new(late: Late) -> Self {
        let looked_at = Instant::now();
        Self { late, look_every: LOOK_EVERY, looked_at, rotated_at: None, anew: None, ignored: HashSet::new() }
    }

    /// What is next at the end of the file of that place; none has that place before the first file. Waits for a moment if
    /// there is nothing.
    ///
    /// # Errors
    /// A file cannot be looked at; or one that was read has changed, or comes too late, and that is not to be left out.
    pub(super) fn at_end(
        &mut self,
        path: &mut SourcePath,
        at: Option<usize>,
        end: Option<&FileEnd>,
    ) -> Result<AtEnd, SourceError> {
        if let (Some(at), Some(end)) = (at, end) {
            match end.growth().map_err(|cause| path.read_error(at, cause))? {
                Growth::None => {}
                Growth::Longer => return Ok(AtEnd::More),
                Growth::WrittenAnew => return self.begin_anew(path, at, end),
            }
        }
        let since_look = self.looked_at.elapsed();
        if since_look >= self.look_every {
            let looking_since = Instant::now();
            self.look(path, at)?;
            self.looked_at = Instant::now();
            self.look_every = LOOK_EVERY.max((self.looked_at - looking_since) * LOOK_SHARE);
            // It may have grown meanwhile.
            return Ok(if end.is_some() { AtEnd::More } else { AtEnd::Wait });
        }
        let has_next = path.len() > at.map_or(0, |at| at + 1);
        let is_over = match self.rotated_at {
            Some(since) => since.elapsed() >= ROTATE_WAIT || end.is_none(),
            None => true,
        };
        if !(has_next && is_over) {
            std::thread::park_timeout(WAIT);
            return Ok(AtEnd::Wait);
        }
        if end.is_some_and(|end| end.unfinished().finish()) {
            return Ok(AtEnd::More);
        }
        self.rotated_at = None;
        if let (Some(at), Some(end)) = (at, end) {
            path.note_end(at, end.at(), &end.metadata().map_err(|cause| path.read_error(at, cause))?);
        }
        Ok(AtEnd::Next)
    }

    /// Whether the file of that place is one that was written anew.
    pub(super) fn is_anew(&self, at: usize) -> bool {
        self.anew == Some(at)
    }

    /// The file of that place was cut or written over: it is another one.
    fn begin_anew(&mut self, path: &mut SourcePath, at: usize, end: &FileEnd) -> Result<AtEnd, SourceError> {
        let name = names::shown(&path.files()[at].path);
        if path.len() > at + 1 {
            self.refuse(path, at, "was cut or written over after the next file had begun")?;
            return Ok(AtEnd::Next);
        }
        let lost = end.unfinished().bytes();
        let without = if lost > 0 {
            format!(" without the {lost} bytes of its last line, which had no end")
        } else {
            String::new()
        };
        tracing::warn!(
            "{name} was cut or written over; what was read of it counts{without}, and it is read again from its beginning"
        );
        self.rotated_at = None;
        let found = end.metadata().map_err(|cause| path.read_error(at, cause))?;
        path.push_anew(at, &found);
        self.anew = Some(at + 1);
        Ok(AtEnd::Next)
    }

    /// Looks which files there are.
    ///
    /// # Errors
    /// One that was read has changed, or another comes too late, and that is not to be left out.
    pub(super) fn look(&mut self, path: &mut SourcePath, at: Option<usize>) -> Result<(), SourceError> {
        let found = path.look()?;
        let begun = at.map_or(0, |at| at + 1);
        // Behind the file that is being read, or all, if it is gone.
        let mut is_behind = at.is_none_or(|at| !found.iter().any(|file| is_same(file, &path.files()[at])));
        let mut has_current = is_behind && at.is_none();
        for file in found {
            // One that was written anew stands there twice.
            match path.files().iter().rposition(|known| is_same(&file, known)) {
                Some(known) if Some(known) == at => {
                    (is_behind, has_current) = (true, path.files()[known].path == file.path);
                    path.rename(known, file);
                }
                Some(known) if known < begun => {
                    let before = &path.files()[known];
                    if (file.size, file.mtime_ns) != (before.size, before.mtime_ns) {
                        self.refuse(path, known, "has changed since it was read")?;
                        path.note_change(known, &file);
                    }
                    path.rename(known, file);
                }
                Some(known) => path.rename(known, file),
                None if self.ignored.contains(&(file.dev, file.inode)) => {}
                None if is_behind => path.push(file),
                None if is_packed(&file) && path.has_lost(begun) => {
                    self.ignored.insert((file.dev, file.inode));
                }
                None => {
                    let (name, place) = (names::shown(&file.path), (file.dev, file.inode));
                    let message = "is new, and stands before the file that is being read";
                    self.late_file(&name, message)?;
                    self.ignored.insert(place);
                }
            }
        }
        if !has_current && at.is_some() {
            self.rotated_at.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Refuses what has happened to the file of that place, or warns of it.
    fn refuse(&self, path: &SourcePath, at: usize, what: &str) -> Result<(), SourceError> {
        self.late_file(&names::shown(&path.files()[at].path), what)
    }

    fn late_file(&self, name: &str, what: &str) -> Result<(), SourceError> {
        if self.late == Late::Skip {
            tracing::warn!("{name} {what}: what is new in it is left out of this run (late = \"skip\")");
            return Ok(());
        }
        let cause = format!(
            "the file {what}; a run from the beginning puts it in its place or says what is wrong, late = \"skip\" leaves it \
             out"
        );
        Err(SourceError::Open { path: name.to_owned(), cause })
    }
}

/// Whether both are one file, whatever its name is now.
fn is_same(a: &InputFile, b: &InputFile) -> bool {
    (a.dev, a.inode) == (b.dev, b.inode)
}

fn is_packed(file: &InputFile) -> bool {
    names::unpacked(&file.path) != file.path
}
