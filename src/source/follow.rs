//! Following: what a followed source does where its files end.
//!
//! A file is read to its present end and watched. The next one begins when it is there and nothing more comes in this
//! one. A file that was renamed is read on for a while, since its writer may still have it open; one that was cut or
//! written over is read anew. We ask the system again and again, which also works on network file systems; where it tells
//! of changes by itself (`growing/watch`), we ask sooner.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::files::SourcePath;
use super::growing::{AtEnd, FileEnd, Growth, Watch};
use super::patience::Patience;
use super::walk::InputFile;
use super::{Late, SourceError, names};

/// How often we look for other files, unless we hear of them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(60);
/// A look takes at most this part of the time: there may be many files.
const LOOK_SHARE: u32 = 1000;
/// The same where folders change all the time.
const HEARD_SHARE: u32 = 100;
/// How long a file is read on that was renamed or removed.
const ROTATE_WAIT: Duration = Duration::from_secs(5);

/// Follows the files of a source.
#[derive(Debug)]
pub(super) struct Follow {
    late: Late,
    watch: Watch,
    patience: Patience,
    /// How long the last look took, and when it ended; none before the first.
    looked: Option<(Duration, Instant)>,
    /// There may be other files, as we heard.
    has_heard: bool,
    /// Since when the file that is being read has lost its name.
    rotated_at: Option<Instant>,
    /// The place of the file that was written anew last.
    anew: Option<usize>,
    /// Files that come too late and are left out.
    ignored: HashSet<(u64, u64)>,
}

impl Follow {
    pub(super) fn new(late: Late) -> Self {
        Self {
            late,
            watch: Watch::default(),
            patience: Patience::default(),
            looked: None,
            has_heard: false,
            rotated_at: None,
            anew: None,
            ignored: HashSet::new(),
        }
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
        end: Option<&Arc<FileEnd>>,
    ) -> Result<AtEnd, SourceError> {
        if let (Some(at), Some(end)) = (at, end) {
            // What is written from now on is heard.
            self.watch.watch_file(end);
            match end.growth().map_err(|cause| path.read_error(at, cause))? {
                Growth::None => {}
                Growth::Longer => {
                    self.patience.end();
                    return Ok(AtEnd::More);
                }
                Growth::WrittenAnew => return self.begin_anew(path, at, end),
            }
        }
        let until_look = self.until_look();
        if until_look.is_zero() {
            let looking_since = Instant::now();
            self.look(path, at)?;
            let now = Instant::now();
            self.looked = Some((now - looking_since, now));
            // It may have grown meanwhile.
            return Ok(if end.is_some() { AtEnd::More } else { AtEnd::Wait });
        }
        let has_next = path.len() > at.map_or(0, |at| at + 1);
        let is_over = match self.rotated_at {
            Some(since) => since.elapsed() >= ROTATE_WAIT || end.is_none(),
            None => true,
        };
        if !(has_next && is_over) {
            let is_heard = end.is_none() || self.watch.hears_file();
            let heard = self.watch.wait(self.patience.next(is_heard).min(until_look));
            self.has_heard |= heard.folder;
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

    /// How long it is until we look for other files.
    fn until_look(&self) -> Duration {
        let Some((took, at)) = self.looked else { return Duration::ZERO };
        let every = match self.has_heard {
            true => took * HEARD_SHARE,
            false => (took * LOOK_SHARE).clamp(LOOK_EVERY, LOOK_EVERY_MAX),
        };
        every.saturating_sub(at.elapsed())
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
        self.has_heard = false;
        let (found, folders) = path.look()?;
        // What came into a folder before it was watched was not heard: we look again.
        self.has_heard |= self.watch.watch_folders(&folders);
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::{Read, Write};

    use super::super::Format;
    use super::*;

    /// Longer than a test may take.
    const LONG: Duration = Duration::from_secs(30);

    /// A folder with one file, which is read to its end.
    struct Followed {
        folder: tempfile::TempDir,
        path: SourcePath,
        lines: Box<dyn Read>,
        end: Arc<FileEnd>,
        follow: Follow,
    }

    impl Followed {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let name = folder.path().join("a.ndjson");
            fs::write(&name, "line\n").expect("a file");
            let path = SourcePath::resolve(&folder.path().to_string_lossy(), Format::Ndjson).expect("a folder");
            let (lines, end) = FileEnd::open(File::open(&name).expect("it"), 0).expect("a file");
            let follow = Follow::new(Late::Error);
            let mut this = Self { folder, path, lines: Box::new(lines), end, follow };
            this.read();
            assert_eq!(this.at_end(), AtEnd::More, "the first look");
            // Until the folder is watched.
            while this.follow.has_heard {
                this.at_end();
            }
            this
        }

        fn read(&mut self) {
            self.lines.read_to_end(&mut Vec::new()).expect("lines");
        }

        fn write(&self, name: &str) {
            let file = OpenOptions::new().append(true).create(true).open(self.folder.path().join(name));
            file.expect("a file").write_all(b"line\n").expect("written");
        }

        fn at_end(&mut self) -> AtEnd {
            self.follow.at_end(&mut self.path, Some(0), Some(&self.end)).expect("it is there")
        }

        /// From now on only what is heard ends a wait.
        fn only_hears(&mut self) {
            self.follow.patience = Patience::of(LONG);
            self.follow.looked = Some((LONG, Instant::now()));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn nothing_is_looked_at_while_nothing_happens() {
        let mut followed = Followed::new();
        let (begun, mut looks) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_millis(1500) {
            followed.at_end();
            looks += 1;
        }
        // On a slow machine there are fewer.
        assert!(looks <= 16, "{looks}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_appended_and_files_that_are_new_end_a_wait() {
        let mut followed = Followed::new();
        let begun = Instant::now();
        for _ in 0..3 {
            followed.only_hears();
            let name = followed.folder.path().join("a.ndjson");
            let append = move || OpenOptions::new().append(true).open(name)?.write_all(b"line\n");
            let writer = std::thread::spawn(append);
            while followed.at_end() != AtEnd::More {}
            writer.join().expect("it ends").expect("written");
            followed.read();
        }
        followed.only_hears();
        followed.write("b.ndjson");
        while !followed.follow.has_heard {
            assert_eq!(followed.at_end(), AtEnd::Wait);
        }
        assert!(begun.elapsed() < LONG);
        followed.follow.looked = Some((Duration::ZERO, Instant::now()));
        assert_eq!((followed.at_end(), followed.path.len()), (AtEnd::More, 2));
        assert_eq!(followed.at_end(), AtEnd::Next);
    }

    #[test]
    fn where_nothing_is_heard_it_looks_again_by_itself() {
        let mut followed = Followed::new();
        followed.follow.watch = Watch::deaf();
        followed.at_end();
        assert!(!followed.follow.watch.hears_file());
        followed.write("a.ndjson");
        assert_eq!(followed.at_end(), AtEnd::More);
        followed.read();
        followed.write("b.ndjson");
        while followed.path.len() < 2 {
            followed.at_end();
        }
    }
}
