//! The file log: which files of a source were read, and what of each is committed.
//!
//! A file that is whole in the store and has not changed since is left out. Of every other one we note what it held, so
//! that [`super::comparison`] can say which file differs, and the next run need not read it again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::digest::{EventDigest, chain};
use super::{Late, SourceError, SourceEvent};
use crate::model::ids::BlockNo;
use crate::model::source_progress::{FileStamp, SourceDigest, SourceFile};

/// A file that is being read, or was.
#[derive(Debug, Clone)]
pub(super) struct ReadFile {
    /// What is stored of it when it has been read.
    pub(super) file: SourceFile,
    /// The first line of it that counts.
    pub(super) first_line: u64,
    /// What earlier runs stored of it.
    pub(super) known: Option<SourceFile>,
    /// A part of it was undone: what it holds is not what is committed.
    is_undone: bool,
}

/// The files of a source.
#[derive(Debug, Default)]
pub(super) struct FileLog {
    stamps: Vec<FileStamp>,
    /// What earlier runs stored, by name.
    known: HashMap<String, SourceFile>,
    is_left_out: Vec<bool>,
    /// Those of which an event was read in this run.
    is_begun: Vec<bool>,
    origin: Option<Arc<str>>,
    last_at: Option<usize>,
    current: Option<(usize, ReadFile)>,
    /// Files that were read to their end while committed events were skipped.
    ended: Vec<ReadFile>,
    /// The content of every file of this run, so that no file is read under two names.
    contents: HashMap<SourceDigest, String>,
}

impl FileLog {
    /// The files as they are, and as they were stored. `has_forks`: the source may follow forks, whose abandoned branches
    /// only the reading shows: then files are left out up to the first that changed.
    pub(super) fn new(stamps: Vec<FileStamp>, stored: Vec<SourceFile>, has_forks: bool, late: Late) -> Self {
        let known: HashMap<String, SourceFile> =
            stored.into_iter().map(|file| (file.stamp.name.clone(), file)).collect();
        let is_same = |file: &SourceFile, stamp: &FileStamp| {
            // What an earlier run has left out is to be put in its place now.
            file.is_whole && file.stamp == *stamp && !(late == Late::Replay && file.late > 0)
        };
        let same = |stamp: &FileStamp| known.get(&stamp.name).is_some_and(|file| is_same(file, stamp));
        let mut is_left_out: Vec<bool> = stamps.iter().map(same).collect();
        if has_forks && let Some(first) = is_left_out.iter().position(|is_left_out| !is_left_out) {
            is_left_out[first..].fill(false);
        }
        let is_begun = vec![false; stamps.len()];
        let mut log = Self { stamps, known, is_left_out, is_begun, ..Self::default() };
        log.note_contents();
        log
    }

    fn note_contents(&mut self) {
        self.contents.clear();
        for (stamp, _) in self.stamps.iter().zip(&self.is_left_out).filter(|(_, is_left_out)| **is_left_out) {
            if let Some(file) = self.known.get(&stamp.name).filter(|file| file.content != SourceDigest::default()) {
                self.contents.insert(file.content, stamp.name.clone());
            }
        }
    }

    /// Which files need not be read.
    pub(super) fn left_out(&self) -> &[bool] {
        &self.is_left_out
    }

    /// Has all files read again, from their beginning.
    pub(super) fn read_again(&mut self) {
        self.is_left_out.fill(false);
        self.is_begun.fill(false);
        (self.origin, self.current, self.last_at) = (None, None, None);
        self.ended.clear();
        self.note_contents();
    }

    /// The files that are left out, as they were stored, with their places.
    pub(super) fn left_out_files(&self) -> impl Iterator<Item = (usize, &SourceFile)> {
        let places =
            self.stamps.iter().zip(&self.is_left_out).enumerate().filter(|(_, (_, is_left_out))| **is_left_out);
        places.filter_map(|(at, (stamp, _))| Some((at, self.known.get(&stamp.name)?)))
    }

    /// Files that are stored and no longer there, under whatever name: also those whose name another file has, of which
    /// nothing was read so far.
    pub(super) fn gone_files(&self) -> Vec<&SourceFile> {
        let is_read =
            self.is_begun.iter().zip(&self.is_left_out).map(|(is_begun, is_left_out)| *is_begun || *is_left_out);
        let names = self.stamps.iter().zip(is_read).filter(|(_, is_read)| *is_read);
        let names: HashSet<&str> = names.map(|(stamp, _)| stamp.name.as_str()).collect();
        let is_gone = |file: &SourceFile| !names.contains(file.stamp.name.as_str()) || self.is_replaced(file);
        let mut gone: Vec<&SourceFile> = self.known.values().filter(|file| file.is_whole && is_gone(file)).collect();
        gone.retain(|file| !self.contents.contains_key(&file.content));
        // What was renamed twice is one file.
        gone.sort_by(|a, b| (a.content.get(), &a.stamp.name).cmp(&(b.content.get(), &b.stamp.name)));
        gone.dedup_by_key(|file| file.content);
        gone
    }

    /// A file that was stored with that block, the first by name.
    pub(super) fn name_with(&self, block: BlockNo) -> Option<&str> {
        let has = |file: &&SourceFile| {
            let is_from = file.first_block.is_some_and(|first| first <= block.get());
            is_from && file.last_block.is_some_and(|last| block.get() <= last)
        };
        self.known.values().filter(has).map(|file| file.stamp.name.as_str()).min()
    }

    /// The file that is not as it was stored, if it is the only one of those that are there.
    pub(super) fn name_of_change(&self) -> Option<&str> {
        let mut changed = self.compared().filter(|read| read.known.as_ref() != Some(&read.file));
        let first = changed.next()?;
        changed.next().is_none().then_some(&*first.file.stamp.name)
    }

    /// Whether there is a file of that name.
    pub(super) fn has_name_of(&self, file: &SourceFile) -> bool {
        self.stamps.iter().any(|stamp| stamp.name == file.stamp.name)
    }

    /// Whether another file has the name of this one now: it holds something else, and has not just grown.
    fn is_replaced(&self, file: &SourceFile) -> bool {
        let is_other = |read: &ReadFile| (read.file.events, read.file.digest) != (file.events, file.digest);
        self.compared().any(|read| read.file.stamp.name == file.stamp.name && is_other(read))
    }

    /// Whether earlier runs stored any file.
    pub(super) fn is_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// Whether the event is of another file than the one before.
    pub(super) fn is_other(&self, event: &SourceEvent) -> bool {
        self.origin.as_ref().is_none_or(|origin| !Arc::ptr_eq(origin, &event.origin))
    }

    /// The place of the file that was begun last.
    pub(super) fn last_at(&self) -> Option<usize> {
        self.last_at
    }

    /// Begins the file of that place, whose first event this is.
    pub(super) fn begin(&mut self, at: Option<usize>, event: &SourceEvent) {
        self.origin = Some(Arc::clone(&event.origin));
        let Some((at, stamp)) = at.and_then(|at| Some((at, self.stamps.get(at)?))) else { return };
        self.last_at = Some(at);
        self.is_begun[at] = true;
        let known = self.known.get(&stamp.name).cloned();
        let file = SourceFile { stamp: stamp.clone(), ..SourceFile::default() };
        self.current = Some((at, ReadFile { file, first_line: event.line, known, is_undone: false }));
    }

    /// What is stored of the file before it is read to its end: its name.
    pub(super) fn begun(&self) -> Option<SourceFile> {
        let (_, read) = self.current.as_ref().filter(|(_, read)| read.known.is_none())?;
        Some(read.file.clone())
    }

    /// Notes an event that counts.
    pub(super) fn add(&mut self, event: &SourceEvent, digest: EventDigest) {
        let Some((_, ReadFile { file, .. })) = &mut self.current else { return };
        file.first_block.get_or_insert(event.block);
        let is_same_block = file.last_block.replace(event.block) == Some(event.block);
        file.last_place = event.seq.or(file.last_place.filter(|_| is_same_block));
        file.events += 1;
        file.digest = file.digest.plus(digest.sum);
        file.content = chain(file.content, digest.line);
    }

    /// Notes an event that is left out.
    pub(super) fn add_late(&mut self, line: u128) {
        if let Some((_, ReadFile { file, .. })) = &mut self.current {
            file.late += 1;
            file.content = chain(file.content, line);
        }
    }

    /// Blocks that the file holds are undone: it must be read again to know what counts of it.
    pub(super) fn undo(&mut self) {
        if let Some((_, read)) = &mut self.current {
            read.is_undone = true;
        }
        self.ended.iter_mut().for_each(|read| read.file.is_whole = false);
    }

    /// Ends the file that is being read. `last_events` are those of its last block, `is_clear` says whether its end says
    /// all that is needed to go on behind it.
    ///
    /// # Errors
    /// Another file has the same lines.
    pub(super) fn end(&mut self, last_events: u64, is_clear: bool) -> Result<Option<ReadFile>, SourceError> {
        self.origin = None;
        let Some((_, mut read)) = self.current.take() else { return Ok(None) };
        let file = &mut read.file;
        file.last_events = last_events;
        file.is_whole = is_clear && !read.is_undone;
        if file.late > 0 {
            tracing::warn!(
                "{}: {} events came too late and were left out (late = \"skip\")",
                file.stamp.name,
                file.late
            );
        }
        match self.contents.insert(file.content, file.stamp.name.clone()) {
            Some(other) if other != file.stamp.name && file.events + file.late > 0 => Err(SourceError::Open {
                path: file.stamp.name.clone(),
                cause: format!(
                    "it holds the same lines as {other}: remove one of the two, or each event would count twice"
                ),
            }),
            _ => Ok(Some(read)),
        }
    }

    /// Keeps a file for the comparison.
    pub(super) fn keep(&mut self, read: ReadFile) {
        self.ended.push(read);
    }

    /// Files that hold what is compared: those that have ended, and the current one.
    pub(super) fn compared(&self) -> impl Iterator<Item = &ReadFile> {
        self.ended.iter().chain(self.current.iter().map(|(_, read)| read))
    }

    /// What is committed stays as it is: of the late files nothing counts, of others what counted before.
    pub(super) fn accept(&mut self, late: &[&str]) {
        for ReadFile { file, known, .. } in self.ended.iter_mut().chain(self.current.iter_mut().map(|(_, read)| read)) {
            let counted = match known {
                Some(known) if known.is_whole => Some((known.events, known.digest)),
                None if late.contains(&&*file.stamp.name) => Some((0, SourceDigest::default())),
                _ => None,
            };
            if let Some((events, digest)) = counted {
                file.late += file.events.saturating_sub(events);
                (file.events, file.digest) = (events, digest);
            }
        }
    }

    /// What is to be stored of the files that have ended while committed events were skipped: those of which the store has
    /// something else.
    pub(super) fn take_ended(&mut self, keeps_gone: bool) -> Vec<SourceFile> {
        // What is gone although its name is not keeps counting, under a name of its own.
        let replaced = self.gone_files().into_iter().filter(|file| keeps_gone && self.has_name_of(file));
        let mut kept: Vec<SourceFile> = replaced.cloned().collect();
        for file in &mut kept {
            file.stamp.name = format!("{} ({})", file.stamp.name, file.content);
        }
        let ended = std::mem::take(&mut self.ended).into_iter();
        kept.extend(ended.filter(|read| read.known.as_ref() != Some(&read.file)).map(|read| read.file));
        kept
    }
}
