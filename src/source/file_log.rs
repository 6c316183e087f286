//! The file log: which files of a source were read, and what of each is committed.
//!
//! A file that is whole in the store and has not changed since is left out. Of every other one we note what it held, so
//! that [`super::comparison`] can say which file differs, and the next run need not read it again.

use std::collections::HashMap;
use std::sync::Arc;

use super::contents::Contents;
use super::digest::EventDigest;
use super::{Late, SourceError, SourceEvent};
use crate::model::ids::BlockNo;
use crate::model::source_progress::{FileStamp, FileTail, SourceDigest, SourceFile};

/// Events and the sum over them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) events: u64,
    pub(super) digest: SourceDigest,
}

impl Sum {
    pub(super) fn plus(self, other: Self) -> Self {
        Self { events: self.events + other.events, digest: self.digest.plus(other.digest) }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self { events: self.events.saturating_sub(other.events), digest: self.digest.minus(other.digest) }
    }

    pub(super) fn of_file(file: &SourceFile) -> Self {
        Self { events: file.events, digest: file.digest }
    }
}

/// The name under which is stored what is committed of files of which nothing else is known.
const REMAINDER: &str = "(gone)";

/// What was read of a file, and what counted when the same lines were stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replaced {
    pub(super) read: Sum,
    pub(super) stored: Sum,
    /// Lines that were taken for late, and had counted.
    pub(super) not_late: u64,
}

/// A file that is being read, or was.
#[derive(Debug, Clone)]
pub(super) struct ReadFile {
    /// What is stored of it when it has been read.
    pub(super) file: SourceFile,
    /// The first line of it that counts.
    pub(super) first_line: u64,
    /// What earlier runs stored of it.
    pub(super) known: Option<SourceFile>,
    /// It begins with a file that was stored.
    pub(super) begins_known: bool,
    /// The last block of which it has a line, one that was left out too.
    last_line_block: Option<i64>,
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
    /// The last committed block.
    tip: Option<BlockNo>,
    is_replay: bool,
    origin: Option<Arc<str>>,
    last_at: Option<usize>,
    current: Option<(usize, ReadFile)>,
    /// Files that were read to their end while committed events were skipped.
    ended: Vec<ReadFile>,
    /// Which stored files are there.
    contents: Contents,
    /// A file that is gone on in, behind what was stored of it.
    goes_on: Option<(usize, SourceFile)>,
    /// The file that is being read, up to the end of the last block that has ended in it.
    at_block_end: Option<SourceFile>,
    /// Lines and bytes of it up to the last event.
    place: Option<(u64, u64)>,
    /// Files that were read to their end, by name, if the source follows its files: one may get the name of another.
    told: HashMap<String, SourceFile>,
    follows: bool,
    /// The content of every file of this run, so that no file is read under two names.
    whole: HashMap<SourceDigest, String>,
}

/// What files that are gone are to what is committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Gone {
    /// It is not known whether they counted.
    #[default]
    Unknown,
    /// What is committed is all there only with them.
    Counts,
    /// What is committed is all there without them.
    CountsElsewhere,
}

impl FileLog {
    /// The files as they are, and as they were stored. `has_forks`: the source may follow forks, whose abandoned branches
    /// only the reading shows: then files are left out up to the first that changed.
    pub(super) fn new(
        stamps: Vec<FileStamp>,
        stored: Vec<SourceFile>,
        tip: Option<BlockNo>,
        has_forks: bool,
        (late, follows): (Late, bool),
    ) -> Self {
        let known: HashMap<String, SourceFile> =
            stored.into_iter().map(|file| (file.stamp.name.clone(), file)).collect();
        let is_same = |file: &SourceFile, stamp: &FileStamp| {
            // Behind a file that ends in the midst of steps back nothing can go on.
            let can_go_on = file.last_block.is_none() || file.last_events > 0;
            // What an earlier run has left out is to be put in its place now.
            file.is_whole && can_go_on && file.stamp == *stamp && !(late == Late::Replay && file.late > 0)
        };
        let same = |stamp: &FileStamp| known.get(&stamp.name).is_some_and(|file| is_same(file, stamp));
        let mut is_left_out: Vec<bool> = stamps.iter().map(same).collect();
        if has_forks && let Some(first) = is_left_out.iter().position(|is_left_out| !is_left_out) {
            is_left_out[first..].fill(false);
        }
        if let Some(last) = is_left_out.last_mut().filter(|_| follows) {
            // It is read on.
            *last = false;
        }
        let contents = Contents::new(known.values());
        let is_replay = late == Late::Replay;
        let mut log = Self { stamps, known, is_left_out, tip, contents, is_replay, follows, ..Self::default() };
        let left_out: Vec<SourceFile> = log.left_out_files().map(|(_, file)| file.clone()).collect();
        for file in left_out {
            log.contents.hold(&file);
            log.whole.insert(file.content, file.stamp.name);
        }
        log
    }

    /// Takes in which files there are now, if the source follows its files.
    pub(super) fn learn(&mut self, stamps: impl FnOnce() -> Vec<FileStamp>) {
        if self.follows {
            self.stamps = stamps();
            self.is_left_out.resize(self.stamps.len(), false);
        }
    }

    /// Events that were left out of the file that is being read; none if the source has no files.
    pub(super) fn late_so_far(&self) -> Option<u64> {
        (!self.stamps.is_empty()).then(|| self.current.as_ref().map_or(0, |(_, read)| read.file.late))
    }

    /// Which files need not be read.
    pub(super) fn left_out(&self) -> &[bool] {
        &self.is_left_out
    }

    /// Which stored files are there, to be looked for anew.
    pub(super) fn contents_anew(&self) -> Contents {
        self.contents.anew()
    }

    /// Takes over what was seen of the files.
    pub(super) fn set_contents(&mut self, contents: Contents) {
        self.contents = contents;
    }

    /// Has all files read again, from their beginning.
    pub(super) fn read_again(&mut self) {
        self.is_left_out.fill(false);
        (self.goes_on, self.at_block_end, self.place) = (None, None, None);
        (self.origin, self.current, self.last_at) = (None, None, None);
        self.ended.clear();
        self.whole.clear();
    }

    /// The files that are left out, as they were stored, with their places.
    pub(super) fn left_out_files(&self) -> impl Iterator<Item = (usize, &SourceFile)> {
        let places =
            self.stamps.iter().zip(&self.is_left_out).enumerate().filter(|(_, (_, is_left_out))| **is_left_out);
        let files = places.filter_map(|(at, (stamp, _))| Some((at, self.known.get(&stamp.name)?)));
        files.chain(self.goes_on.as_ref().map(|(at, file)| (*at, file)))
    }

    /// The file that may be gone on in, if the source follows its files: the last one, and what was stored of it.
    pub(super) fn last_stored(&self) -> Option<(usize, &SourceFile)> {
        let at = self.stamps.len().checked_sub(1).filter(|_| self.follows)?;
        let stored = self.known.get(&self.stamps[at].name)?;
        (stored.is_whole && stored.late == 0 && stored.last_events > 0 && stored.tail.is_some()).then_some((at, stored))
    }

    /// The file of that place is gone on in.
    pub(super) fn go_on_in(&mut self, at: usize, stored: SourceFile) {
        self.contents.hold(&stored);
        self.goes_on = Some((at, stored));
    }

    /// The last block before the place in the file of that place that is gone on from, as long as that has not been begun.
    pub(super) fn block_gone_on_from(&self, at: Option<usize>) -> Option<BlockNo> {
        let (_, stored) = self.goes_on.as_ref().filter(|(place, _)| Some(*place) == at)?;
        stored.last_block.map(BlockNo::new)
    }

    /// Whether the file of that place is gone on in, and has not been begun.
    pub(super) fn goes_on_in(&self, at: Option<usize>) -> bool {
        self.goes_on.as_ref().is_some_and(|(place, _)| at.is_none_or(|at| at == *place))
    }

    /// Files that are stored and of which nothing that was read so far has the lines, under whatever name.
    pub(super) fn gone_files(&self) -> Vec<&SourceFile> {
        if self.stamps.is_empty() {
            // The source has no files: it says nothing of them.
            return Vec::new();
        }
        let is_gone = |file: &&SourceFile| {
            let is_stored = file.events + file.late > 0 || file.stamp.name == REMAINDER;
            file.is_whole && is_stored && !self.contents.is_held(file)
        };
        let mut gone: Vec<&SourceFile> = self.known.values().filter(is_gone).collect();
        // What was renamed twice is one file.
        gone.sort_by(|a, b| (a.content.get(), &a.stamp.name).cmp(&(b.content.get(), &b.stamp.name)));
        gone.dedup_by_key(|file| file.content);
        gone
    }

    /// Whether committed events of that block, or of later ones, went with files that are gone. `knows_changes`: a file that
    /// holds something else than before was found, and is not meant.
    pub(super) fn loses_from(&self, block: BlockNo, knows_changes: bool) -> bool {
        let is_lost = |file: &&SourceFile| {
            let is_from = file.events > 0 && file.last_block.is_some_and(|last| last >= block.get());
            is_from && !(knows_changes && self.has_name_of(file))
        };
        self.gone_files().iter().any(is_lost)
    }

    /// What is to be stored of what is committed beside that of all files, of blocks from the first of these to the last.
    pub(super) fn remainder(&self, left: Sum, blocks: (Option<i64>, Option<i64>)) -> Option<SourceFile> {
        let stamp = FileStamp::new(REMAINDER, 0, 0, 0);
        let Sum { events, digest } = left;
        let is_whole = left != Sum::default();
        let row = SourceFile { stamp, is_whole, events, digest, ..SourceFile::default() };
        (is_whole || self.known.contains_key(REMAINDER)).then_some(SourceFile {
            first_block: blocks.0,
            last_block: blocks.1,
            ..row
        })
    }

    /// What is stored, or about to be, of all files: those that are left out, were read, or are gone. None if files are not
    /// read one after another.
    pub(super) fn stored(&self) -> Option<Sum> {
        let is_known = !self.stamps.is_empty() && self.last_at.is_some();
        let gone = self.gone_files().into_iter().filter(|file| file.stamp.name != REMAINDER);
        let read = self.compared().map(|read| &read.file);
        let all = self.left_out_files().map(|(_, file)| file).chain(gone).chain(read);
        is_known.then(|| all.map(Sum::of_file).fold(Sum::default(), Sum::plus))
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
        let known = self.known.get(&stamp.name).cloned();
        let mut file = SourceFile { stamp: stamp.clone(), ..SourceFile::default() };
        self.contents.begin();
        (self.at_block_end, self.place) = (None, None);
        if let Some((_, stored)) = self.goes_on.take_if(|(place, _)| *place == at) {
            self.contents.begin_behind(&stored);
            self.place = stored.tail.map(|tail| (tail.lines, stored.stamp.bytes));
            file = SourceFile { stamp: file.stamp, is_whole: false, tail: None, ..stored };
        }
        let first_line = event.line;
        let read = ReadFile { file, first_line, known, begins_known: false, last_line_block: None, is_undone: false };
        self.current = Some((at, read));
    }

    /// What is stored of the file before it is read to its end: its name. Another file that had the name before gets
    /// another one.
    pub(super) fn begun(&mut self) -> Vec<SourceFile> {
        let Some((_, read)) = &self.current else { return Vec::new() };
        let name = &read.file.stamp.name;
        let displaced = self.told.remove(name).map(displaced);
        let is_new = read.known.is_none() || displaced.is_some();
        let begun = Some(SourceFile { stamp: read.file.stamp.clone(), ..SourceFile::default() }).filter(|_| is_new);
        displaced.into_iter().chain(begun).collect()
    }

    /// Notes that a block ends before the next event, with so many events.
    pub(super) fn end_block(&mut self, events: u64) {
        if self.follows {
            self.at_block_end = self.up_to_here(events);
        }
    }

    /// What is read so far of the file that is being read, as it is stored if it may be gone on in from here.
    fn up_to_here(&self, last_events: u64) -> Option<SourceFile> {
        let ((lines, bytes), (_, read)) = (self.place?, self.current.as_ref()?);
        if read.is_undone || read.file.late > 0 || read.file.last_block.is_none() {
            return None;
        }
        let stamp = FileStamp { bytes, modified: 0, ..read.file.stamp.clone() };
        let tail = Some(FileTail { lines, hash: SourceDigest::default() });
        let content = self.contents.content();
        Some(SourceFile { stamp, is_whole: true, last_events, content, tail, ..read.file.clone() })
    }

    /// What is to be stored of the file that is being read before it has ended: up to its last whole block, which is the last
    /// one if it has so many events and is `is_whole`. Each state is given once.
    pub(super) fn take_state(&mut self, is_whole: bool, last_events: u64) -> Option<SourceFile> {
        if !self.follows {
            return None;
        }
        if is_whole {
            self.at_block_end = self.up_to_here(last_events);
        }
        let state = self.at_block_end.clone()?;
        let is_told = self.told.get(&state.stamp.name).is_some_and(|told| told.stamp.bytes == state.stamp.bytes);
        (!is_told).then_some(state)
    }

    /// Notes that it is stored.
    pub(super) fn note_state(&mut self, state: &SourceFile) {
        self.told.insert(state.stamp.name.clone(), state.clone());
    }

    /// Notes an event that counts.
    pub(super) fn add(&mut self, event: &SourceEvent, digest: EventDigest) {
        let Some((_, ReadFile { file, begins_known, last_line_block, .. })) = &mut self.current else { return };
        *last_line_block = Some(event.block).max(*last_line_block);
        self.contents.add(digest.line);
        *begins_known |= self.contents.at_known().is_some();
        file.first_block.get_or_insert(event.block);
        let is_same_block = file.last_block.replace(event.block) == Some(event.block);
        file.last_place = event.seq.or(file.last_place.filter(|_| is_same_block));
        file.events += 1;
        file.digest = file.digest.plus(digest.sum);
    }

    /// Notes where the last event ends in its file.
    pub(super) fn note_place(&mut self, place: impl FnOnce() -> Option<(u64, u64)>) {
        if self.follows {
            self.place = place();
        }
    }

    /// Notes an event that is left out.
    pub(super) fn add_late(&mut self, event: &SourceEvent) {
        if let Some((_, ReadFile { file, begins_known, last_line_block, .. })) = &mut self.current {
            *last_line_block = Some(event.block).max(*last_line_block);
            self.contents.add(EventDigest::of_line(event));
            *begins_known |= self.contents.at_known().is_some();
            file.late += 1;
        }
    }

    /// Where the lines that were read of a file are those of one that was stored, what counted then counts of them.
    pub(super) fn take_known(&mut self) -> Option<Replaced> {
        let (_, ReadFile { file, last_line_block, .. }) = self.current.as_mut()?;
        let known = self.known.get(self.contents.at_known()?)?;
        let is_beyond = *last_line_block > self.tip.map(BlockNo::get);
        if known.late > 0 && (self.is_replay || known.is_reset() && is_beyond) {
            return None;
        }
        let not_late = file.late.saturating_sub(known.late);
        let replaced = Replaced { read: Sum::of_file(file), stored: Sum::of_file(known), not_late };
        (file.events, file.digest, file.late) = (known.events, known.digest, known.late);
        Some(replaced)
    }

    /// Blocks that the file holds are undone: it must be read again to know what counts of it.
    pub(super) fn undo(&mut self) {
        if let Some((_, read)) = &mut self.current {
            read.is_undone = true;
        }
        self.at_block_end = None;
        self.ended.iter_mut().for_each(|read| read.file.is_whole = false);
    }

    /// The rest of the file that is being read is left to another run.
    pub(super) fn leave_rest(&mut self) {
        if let Some((_, read)) = &mut self.current {
            read.is_undone = true;
        }
    }

    /// Ends the file that is being read. `last_events` are those of its last block, `is_clear` says whether its end says
    /// all that is needed to go on behind it.
    ///
    /// # Errors
    /// Another file has the same lines.
    pub(super) fn end(&mut self, last_events: u64, is_clear: bool) -> Result<Option<ReadFile>, SourceError> {
        self.origin = None;
        let Some((at, mut read)) = self.current.take() else { return Ok(None) };
        let file = &mut read.file;
        if let Some(stamp) = self.stamps.get(at).filter(|_| self.follows) {
            // It may have another name by now.
            self.told.remove(&file.stamp.name);
            file.stamp.clone_from(stamp);
        }
        file.content = self.contents.content();
        file.last_events = if is_clear { last_events } else { 0 };
        file.is_whole = !read.is_undone;
        if file.late > 0 {
            tracing::warn!(
                "{}: {} events came too late and were left out (late = \"skip\")",
                file.stamp.name,
                file.late
            );
        }
        match self.whole.insert(file.content, file.stamp.name.clone()) {
            Some(other) if other != file.stamp.name && file.events + file.late > 0 => {
                Err(same_lines(&file.stamp.name, &other))
            }
            _ => {
                if self.follows {
                    self.told.insert(read.file.stamp.name.clone(), read.file.clone());
                }
                Ok(Some(read))
            }
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
                Some(known) if known.is_whole => {
                    self.contents.hold(known);
                    Some((known.events, known.digest))
                }
                None if late.contains(&&*file.stamp.name) => Some((0, SourceDigest::default())),
                _ => None,
            };
            if let Some((events, digest)) = counted {
                // At least one line of it does not count, or nothing would have been found.
                let counted = events.min(file.events.saturating_sub(1));
                file.late += file.events - counted;
                (file.events, file.digest) = (counted, digest);
            }
        }
    }

    /// What is to be stored of the files that have ended while committed events were skipped: those of which the store has
    /// something else. Of files that are there no longer, or under another name, only what still counts is kept.
    pub(super) fn take_ended(&mut self, gone: Gone) -> Vec<SourceFile> {
        let mut kept = Vec::new();
        let gone_files = self.gone_files();
        for file in &gone_files {
            match gone {
                Gone::Unknown => {}
                Gone::Counts if self.has_name_of(file) => kept.push(displaced((*file).clone())),
                Gone::Counts => {}
                Gone::CountsElsewhere if self.has_name_of(file) => {}
                Gone::CountsElsewhere => kept.push(forgotten(file)),
            }
        }
        let is_named =
            |files: &[SourceFile], file: &SourceFile| files.iter().any(|other| other.stamp.name == file.stamp.name);
        let is_elsewhere = |file: &&SourceFile| {
            let is_gone = gone_files.iter().any(|gone| gone.stamp.name == file.stamp.name);
            file.is_whole && !self.stamps.is_empty() && !self.has_name_of(file) && !is_gone && !is_named(&kept, file)
        };
        let elsewhere: Vec<SourceFile> = self.known.values().filter(is_elsewhere).map(forgotten).collect();
        kept.extend(elsewhere);
        let ended = std::mem::take(&mut self.ended).into_iter();
        kept.extend(ended.filter(|read| read.known.as_ref() != Some(&read.file)).map(|read| read.file));
        kept
    }
}

/// The error of two files that hold the same lines.
pub(super) fn same_lines(name: &str, other: &str) -> SourceError {
    SourceError::Open {
        path: name.to_owned(),
        cause: format!("it holds the same lines as {other}: remove one of the two, or each event would count twice"),
    }
}

/// A file whose name another one has now.
fn displaced(mut file: SourceFile) -> SourceFile {
    file.stamp.name = format!("{} ({})", file.stamp.name, file.content);
    file
}

/// Of that file only the name is known any more.
fn forgotten(file: &SourceFile) -> SourceFile {
    SourceFile { stamp: file.stamp.clone(), ..SourceFile::default() }
}
