//! Finds the files that a path names, and notes what it leaves out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirEntry, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::SourceError;
use super::format::Format;
use super::names;
use crate::model::text::plain;

/// As in a shell: a pattern finds nothing hidden, unless it asks for it.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// `ELOOP`, links that lead to each other, on Linux and on macOS: `std::io::ErrorKind` has no stable name for it.
const LOOPS: [i32; 2] = [40, 62];

/// Files that a message names at most.
const NAMED_MAX: usize = 10;

/// A file of a source, as it was when it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InputFile {
    /// The path to it.
    pub path: PathBuf,
    /// Bytes as they lie on disk; 0 for a pipe.
    pub size: u64,
    /// The time of its last change, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// The number of its device.
    pub dev: u64,
    /// Its number there.
    pub inode: u64,
    /// Whether it is a file, and not a pipe or a device.
    pub is_regular: bool,
}

impl InputFile {
    pub(super) fn new(path: PathBuf, found: &Metadata) -> Self {
        Self {
            path,
            size: if found.is_file() { found.len() } else { 0 },
            mtime_ns: i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec()),
            dev: found.dev(),
            inode: found.ino(),
            is_regular: found.is_file(),
        }
    }
}

/// What a path names.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<InputFile>,
    /// Folders in which a file may come to be that the path names.
    pub(super) folders: Vec<PathBuf>,
    pub(super) left_out: LeftOut,
}

/// What a folder or a pattern leaves out, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LeftOut(BTreeMap<PathBuf, String>);

impl LeftOut {
    fn add(&mut self, path: PathBuf, why: impl Into<String>) {
        self.0.insert(path, why.into());
    }

    /// What is left out, by name; none if there is nothing.
    pub(super) fn named(&self) -> Option<String> {
        let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
        for (path, why) in self.0.iter().take(NAMED_MAX) {
            match groups.iter_mut().find(|(group, _)| group == why) {
                Some((_, paths)) => paths.push(names::shown(path)),
                None => groups.push((why, vec![names::shown(path)])),
            }
        }
        let mut parts: Vec<String> =
            groups.into_iter().map(|(why, paths)| format!("{} ({why})", paths.join(", "))).collect();
        if self.0.len() > NAMED_MAX {
            parts.push(format!("and {} more", self.0.len() - NAMED_MAX));
        }
        if parts.is_empty() { None } else { Some(parts.join("; ")) }
    }
}

/// The files that a path names, in order: of a folder those that hold events of that format.
///
/// # Errors
/// Nothing is there, a folder cannot be read, or the pattern is not understood.
pub(super) fn find(path: &str, format: Format) -> Result<Found, SourceError> {
    let walk = walk(path, format)?;
    if !walk.found.files.is_empty() {
        return Ok(walk.found);
    }
    match Path::new(path).is_dir() || is_pattern(path) {
        true => Err(walk.nothing()),
        false => Err(walk.error("there is no such file; expected a file, a folder, a pattern or -")),
    }
}

/// The same, where there may be none for now.
///
/// # Errors
/// A folder cannot be read, or the pattern is not understood.
pub(super) fn find_now(path: &str, format: Format) -> Result<Found, SourceError> {
    Ok(walk(path, format)?.found)
}

/// Whether a path is a pattern, unless a file has that very name.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

fn walk(path: &str, format: Format) -> Result<Walk<'_>, SourceError> {
    let mut walk = Walk { source: path, format, found: Found::default() };
    let here = Path::new(path);
    let is_pattern = is_pattern(path);
    match std::fs::metadata(here) {
        Ok(found) => {
            if is_pattern {
                walk.note_other_matches_of(here)?;
            }
            if !found.is_dir() {
                walk.note_folder(here.parent());
                walk.found.files.push(InputFile::new(here.to_owned(), &found));
                return Ok(walk);
            }
            walk.folder(here, false)?;
        }
        Err(_) if is_pattern => walk.pattern()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => walk.note_folder(here.parent()),
        Err(error) => return Err(walk.error(error)),
    }
    names::sort(&mut walk.found.files, |file| &file.path);
    Ok(walk)
}

/// A part of a pattern, between slashes.
enum Part {
    Name(String),
    Pattern(String, Pattern),
    /// `**`: this folder and all below it.
    Folders,
}

struct Walk<'p> {
    source: &'p str,
    format: Format,
    found: Found,
}

impl Walk<'_> {
    fn error(&self, cause: impl ToString) -> SourceError {
        SourceError::Open { path: plain(self.source).into_owned(), cause: cause.to_string() }
    }

    fn unreadable(&self, path: &Path, error: &io::Error) -> SourceError {
        self.error(format!("{}: {error}", names::shown(path)))
    }

    /// Nothing to read is there.
    fn nothing(&self) -> SourceError {
        let what = if Path::new(self.source).is_dir() { "the folder holds no" } else { "the pattern matches no" };
        let there = self.found.left_out.named().map(|named| format!("; left out: {named}")).unwrap_or_default();
        self.error(format!("{what} file that ends in {}{there}", names::endings(self.format)))
    }

    /// Files of the source may come to be in this folder.
    fn note_folder(&mut self, folder: Option<&Path>) {
        let Some(folder) = folder else { return };
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        self.found.folders.push(here.to_owned());
    }

    /// The files of a folder that hold events; with `is_deep` also those of the folders below it.
    fn folder(&mut self, folder: &Path, is_deep: bool) -> Result<(), SourceError> {
        self.note_folder(Some(folder));
        for entry in self.entries(folder, false)? {
            let path = folder.join(entry.file_name());
            let Some(found) = self.look_at(&path)? else { continue };
            if found.is_dir() && is_deep && !is_link(&entry) {
                self.folder(&path, true)?;
            } else if found.is_file() && names::holds_events(&path, self.format) {
                self.found.files.push(InputFile::new(path, &found));
            } else if found.is_dir() {
                self.leave_out_folder(path);
            } else if found.is_file() && found.len() > 0 {
                let why = names::why_not(&path, self.format);
                self.found.left_out.add(path, why);
            } else if !found.is_file() {
                self.found.left_out.add(path, kind_of(&found));
            }
        }
        Ok(())
    }

    /// What is in a folder; nothing if there is no such folder.
    fn entries(&self, folder: &Path, with_hidden: bool) -> Result<Vec<DirEntry>, SourceError> {
        use io::ErrorKind::{NotADirectory, NotFound};
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let entries: io::Result<Vec<DirEntry>> = std::fs::read_dir(here).and_then(Iterator::collect);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Vec::new(),
            Err(error) => return Err(self.unreadable(here, &error)),
        };
        entries.retain(|entry| with_hidden || !names::is_hidden(&entry.file_name()));
        Ok(entries)
    }

    /// What is at a path, with links followed; none if it is left out, or gone meanwhile.
    fn look_at(&mut self, path: &Path) -> Result<Option<Metadata>, SourceError> {
        match std::fs::metadata(path) {
            Ok(found) => Ok(Some(found)),
            Err(error) => match std::fs::symlink_metadata(path) {
                Ok(link) if link.is_symlink() && leads_nowhere(&error) => {
                    self.found.left_out.add(path.to_owned(), "a link that leads nowhere");
                    Ok(None)
                }
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(None),
                _ => Err(self.unreadable(path, &error)),
            },
        }
    }

    /// Leaves a folder out; one that holds nothing is nothing to tell.
    fn leave_out_folder(&mut self, path: PathBuf) {
        if self.entries(&path, false).is_ok_and(|entries| entries.is_empty()) {
            return;
        }
        let all = self.format.endings().first().map_or_else(String::new, |ending| format!("*{ending}"));
        let is_linked = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink());
        let why = if is_linked {
            let files = path.join(&all);
            format!("a link to a folder, which ** does not follow: {} reads it", names::shown(&files))
        } else {
            let all = path.with_file_name("**").join(&all);
            format!("a folder: {} reads the folders below too", names::shown(&all))
        };
        self.found.left_out.add(path, why);
    }

    /// The files that match the pattern.
    fn pattern(&mut self) -> Result<(), SourceError> {
        let parts = self.parts()?;
        let base = if self.source.starts_with('/') { "/" } else { "" };
        let mut matches = BTreeMap::new();
        self.expand(PathBuf::from(base), true, &parts, &mut matches)?;
        let wants_folders = self.source.ends_with('/');
        let is_deep = parts.iter().any(|part| matches!(part, Part::Folders));
        for (path, is_literal) in matches {
            let Some(found) = self.look_at(&path)? else { continue };
            match found.file_type() {
                kind if kind.is_dir() && is_literal => self.folder(&path, false)?,
                // Those that `**` has looked into.
                kind if kind.is_dir() && is_deep => {}
                kind if kind.is_dir() => self.leave_out_folder(path),
                kind if kind.is_file() && !wants_folders => self.found.files.push(InputFile::new(path, &found)),
                kind if kind.is_file() => {}
                _ => self.found.left_out.add(path, kind_of(&found)),
            }
        }
        Ok(())
    }

    fn parts(&self) -> Result<Vec<Part>, SourceError> {
        let mut parts = Vec::new();
        for text in self.source.split('/').filter(|text| !text.is_empty()) {
            match text {
                "**" if matches!(parts.last(), Some(Part::Folders)) => {}
                "**" => parts.push(Part::Folders),
                _ if text.contains(['*', '?', '[']) => {
                    let pattern = Pattern::new(text)
                        .map_err(|error| self.error(format!("the pattern is not understood: {error}")))?;
                    parts.push(Part::Pattern(text.to_owned(), pattern));
                }
                _ => parts.push(Part::Name(text.to_owned())),
            }
        }
        Ok(parts)
    }

    /// Collects what matches `parts` below `base`, each with whether it is there by the very name that was given.
    fn expand(
        &mut self,
        base: PathBuf,
        is_literal: bool,
        parts: &[Part],
        matches: &mut BTreeMap<PathBuf, bool>,
    ) -> Result<(), SourceError> {
        let Some((first, rest)) = parts.split_first() else {
            matches.insert(base, is_literal);
            return Ok(());
        };
        if rest.is_empty() || !matches!(first, Part::Name(_)) {
            self.note_folder(Some(&base));
        }
        match first {
            Part::Name(name) if rest.is_empty() && std::fs::symlink_metadata(base.join(name)).is_err() => Ok(()),
            Part::Name(name) => self.expand(base.join(name), is_literal, rest, matches),
            Part::Folders => self.expand_below(&base, parts, matches),
            // A folder or file may have brackets in its name.
            Part::Pattern(name, _) if std::fs::symlink_metadata(base.join(name)).is_ok() => {
                self.note_other_matches(&base, first)?;
                self.expand(base.join(name), is_literal, rest, matches)
            }
            Part::Pattern(..) => {
                for path in self.matching(&base, first)? {
                    if rest.is_empty() || path.is_dir() {
                        self.expand(path, false, rest, matches)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// As `expand`, for `**`: in this folder and in all below it.
    fn expand_below(
        &mut self,
        base: &Path,
        parts: &[Part],
        matches: &mut BTreeMap<PathBuf, bool>,
    ) -> Result<(), SourceError> {
        let rest = &parts[1..];
        if rest.is_empty() {
            // What holds events in all folders.
            return self.folder(base, true);
        }
        self.expand(base.to_owned(), false, rest, matches)?;
        for entry in self.entries(base, false)? {
            let path = base.join(entry.file_name());
            if !path.is_dir() {
                continue;
            }
            if is_link(&entry) {
                self.leave_out_folder(path);
            } else {
                self.expand_below(&path, parts, matches)?;
            }
        }
        Ok(())
    }

    /// What of a folder matches one part of a pattern. A name that is not UTF-8 matches as it is shown.
    fn matching(&self, base: &Path, part: &Part) -> Result<BTreeSet<PathBuf>, SourceError> {
        let Part::Pattern(_, pattern) = part else { return Ok(BTreeSet::new()) };
        let entries = self.entries(base, pattern.as_str().starts_with('.'))?;
        let names = entries.into_iter().map(|entry| entry.file_name());
        let names = names.filter(|name| pattern.matches_with(&name.to_string_lossy(), MATCHING));
        Ok(names.map(|name| base.join(name)).collect())
    }

    /// As `note_other_matches`, for a path that is there as it was given.
    fn note_other_matches_of(&mut self, path: &Path) -> Result<(), SourceError> {
        let (Some(base), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Ok(());
        };
        match Pattern::new(name) {
            Ok(pattern) => self.note_other_matches(base, &Part::Pattern(name.to_owned(), pattern)),
            Err(_) => Ok(()),
        }
    }

    /// Notes what a pattern would match too, where something is there by the pattern's own name.
    fn note_other_matches(&mut self, base: &Path, part: &Part) -> Result<(), SourceError> {
        let Part::Pattern(name, _) = part else { return Ok(()) };
        let named = base.join(name);
        for path in self.matching(base, part)?.into_iter().filter(|path| *path != named) {
            let why = format!("the pattern matches it, but {name:?} is there by that name");
            self.found.left_out.add(path, why);
        }
        Ok(())
    }
}

fn leads_nowhere(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error().is_some_and(|code| LOOPS.contains(&code))
}

fn is_link(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_symlink())
}

/// What it is that is neither a file nor a folder.
fn kind_of(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    if kind.is_fifo() {
        "a named pipe: read it with --source and its name"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}
