//! What a run leaves out because it is committed, it has compared.
//!
//! While committed events are skipped, their digests are added up. At the end of it the sum must be the one that is stored.
//! If it is not, the difference is narrowed down: to a file, to a block within the history, or to the whole.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::digest::EventDigest;
use super::file_log::{FileLog, Gone, ReadFile, Replaced, Sum};
use super::order::CHOICES;
use super::{SourceError, SourceEvent};
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::{BlockNo, Depth};
use crate::model::source_progress::{SourceDigest, SourceFile, SourceProgress};
use crate::undo::{BlockMark, Window};

/// What is committed.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommittedSource {
    /// The last block; none if nothing is committed.
    pub(crate) block: Option<BlockNo>,
    /// Events up to its end.
    pub(crate) events: u64,
    /// What is known beside it.
    pub(crate) progress: SourceProgress,
    /// The blocks that are held, oldest first.
    pub(crate) marks: Vec<BlockMark>,
    /// The files that were read.
    pub(crate) files: Vec<SourceFile>,
}

impl CommittedSource {
    /// What is committed as of a checkpoint, with the blocks that its undo log holds.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        progress: SourceProgress,
        window: &Window,
        files: Vec<SourceFile>,
    ) -> Self {
        let block = checkpoint.block.map(BlockNo::new);
        let mut marks = window.blocks();
        if let Some(tip) = block.filter(|tip| marks.last().is_none_or(|last| last.block != *tip)) {
            let (events, sum) = (checkpoint.block_events, progress.block_digest);
            marks = vec![BlockMark { block: tip, events, hash: None, sum, place: progress.place, position: None }];
        }
        Self { block, events: checkpoint.events, progress, marks, files }
    }
}

/// Why there is no replay.
pub(super) const LOST: &str = "the source no longer holds all events that are committed, and they would be lost";

/// A block that was read.
#[derive(Debug, Clone)]
struct ReadBlock {
    block: BlockNo,
    sum: Sum,
    origin: Arc<str>,
    line: u64,
}

/// A difference between the source and what is committed.
#[derive(Debug)]
pub(super) struct Difference {
    /// Events that the source has more.
    pub(super) late: u64,
    /// It is a file that was not there when its blocks were committed.
    is_file: bool,
    origin: Arc<str>,
    line: u64,
    what: String,
}

impl Difference {
    /// The file that was not there when its blocks were committed, if it is one.
    pub(super) fn late_file(&self) -> Option<&str> {
        self.is_file.then_some(&*self.origin)
    }

    /// The error that it is, with the choices.
    pub(super) fn into_error(self) -> SourceError {
        let message = format!(
            "{}. Choose: {CHOICES}; forebay rollback --to goes back by hand; a new store begins anew",
            self.what
        );
        SourceError::Input { origin: self.origin, line: self.line, message }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.what)
    }
}

/// What a comparison came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The source holds what is committed, as far as that can be known.
    Same,
    /// It does not hold it.
    Different(Vec<Difference>),
}

/// Adds up what is skipped.
#[derive(Debug)]
pub(super) struct Comparison {
    committed: CommittedSource,
    depth: Depth,
    total: Sum,
    /// The blocks that were read, as far back as blocks are held.
    blocks: VecDeque<ReadBlock>,
    /// The first block that was read.
    first: Option<BlockNo>,
    /// The last block of the files that are left out.
    left_out_to: Option<BlockNo>,
    /// A part of the source is not there to be compared.
    is_blind: bool,
    /// What files that are gone are to what is committed.
    gone: Gone,
}

impl Comparison {
    pub(super) fn new(committed: CommittedSource, depth: Depth) -> Self {
        Self {
            committed,
            depth,
            total: Sum::default(),
            blocks: VecDeque::new(),
            first: None,
            left_out_to: None,
            is_blind: false,
            gone: Gone::Unknown,
        }
    }

    /// The source begins again, in another order.
    pub(super) fn start_again(&mut self) {
        (self.total, self.first, self.left_out_to, self.is_blind) = (Sum::default(), None, None, false);
        self.blocks.clear();
    }

    /// Whether anything that is committed was seen, read or left out.
    pub(super) fn has_seen(&self) -> bool {
        self.first.is_some()
    }

    /// What files that are gone are to what is committed.
    pub(super) fn gone(&self) -> Gone {
        self.gone
    }

    /// The last block that is there, read or left out.
    pub(super) fn last(&self) -> Option<BlockNo> {
        self.blocks.back().map(|last| last.block).max(self.left_out_to)
    }

    /// Whether all that is committed is there, or in files that are gone.
    pub(super) fn is_complete_without(&self, files: &FileLog) -> bool {
        let gone = files.gone_files().into_iter().map(Sum::of_file).fold(Sum::default(), Sum::plus);
        let Sum { events, digest } = self.total.plus(gone);
        events == self.committed.events && self.committed.progress.digest == Some(digest)
    }

    /// What is committed.
    pub(super) fn committed(&self) -> &CommittedSource {
        &self.committed
    }

    /// Adds a file that is left out because it has not changed.
    pub(super) fn add_file(&mut self, file: &SourceFile) {
        self.total = self.total.plus(Sum::of_file(file));
        self.left_out_to = self.left_out_to.max(file.last_block.map(BlockNo::new));
        if let Some(first) = file.first_block.map(BlockNo::new) {
            self.first = Some(self.first.map_or(first, |before| before.min(first)));
        }
    }

    /// Adds an event that is skipped.
    pub(super) fn pass(&mut self, event: &SourceEvent, digest: EventDigest) {
        let (block, sum) = (BlockNo::new(event.block), Sum { events: 1, digest: digest.sum });
        self.total = self.total.plus(sum);
        self.first = Some(self.first.map_or(block, |first| first.min(block)));
        match self.blocks.back_mut() {
            Some(last) if last.block == block => last.sum = last.sum.plus(sum),
            _ => {
                let origin = Arc::clone(&event.origin);
                self.blocks.push_back(ReadBlock { block, sum, origin, line: event.line });
                // A branch that is held may turn out to have left from any block that can be rolled back to.
                let oldest = self.depth.oldest(self.committed.block.map_or(block, |tip| tip.min(block)));
                let oldest = self.committed.marks.first().map_or(oldest, |first| oldest.min(first.block));
                while self.blocks.len() > 2 && self.blocks.front().is_some_and(|first| first.block < oldest) {
                    self.blocks.pop_front();
                }
            }
        }
    }

    /// What was read of a file begins with the lines of one that was stored: of those counts what counted.
    pub(super) fn replace(&mut self, known: Replaced) {
        let Replaced { read, stored, .. } = known;
        self.total = self.total.minus(read).plus(stored);
    }

    /// What is committed beside that of the files; none if it is not known, or if they have more.
    pub(super) fn remainder(&self, files: Sum) -> Option<Sum> {
        let CommittedSource { events, progress, .. } = &self.committed;
        let events = events.checked_sub(files.events).filter(|_| !self.is_blind)?;
        Some(Sum { events, digest: progress.digest?.minus(files.digest) })
    }

    /// The committed blocks of which the source may not hold all: the first, and the last.
    pub(super) fn blocks_before(&self) -> (Option<i64>, Option<i64>) {
        let CommittedSource { block, progress, .. } = &self.committed;
        let begin = progress.first_block.map(BlockNo::new);
        let first = self.first.filter(|first| begin.is_some_and(|begin| begin < *first));
        (progress.first_block, first.or(*block).map(BlockNo::get))
    }

    /// The source has abandoned the blocks after `to`.
    pub(super) fn go_back(&mut self, to: BlockNo) {
        if self.left_out_to.is_some_and(|last| last > to) {
            // What files that are left out hold behind it is not known apart.
            self.lose();
        }
        while let Some(block) = self.blocks.pop_back_if(|block| block.block > to) {
            self.total = self.total.minus(block.sum);
        }
    }

    /// The source has left its own chain: what was read before cannot be compared any more.
    pub(super) fn lose(&mut self) {
        self.is_blind = true;
    }

    /// The digest of all that is committed, as it was read; none if not all of it was.
    pub(super) fn learned(&self) -> Option<SourceProgress> {
        let last = self.blocks.back()?;
        let is_all = !self.is_blind && self.total.events == self.committed.events;
        let block_digest = Some(last.sum.digest).filter(|_| Some(last.block) == self.committed.block);
        let first = self.first.map(BlockNo::get);
        is_all.then(|| SourceProgress::new(Some(self.total.digest), block_digest, self.committed.progress.place, first))
    }

    /// Whether the source was seen from the first committed block on, or is known from there on: of what is gone we know
    /// what it was.
    fn is_from_start(&self, files: &FileLog) -> bool {
        let begin = self.committed.progress.first_block;
        let gone = files.gone_files().into_iter().filter_map(|file| file.first_block.map(BlockNo::new)).min();
        let first = self.first.into_iter().chain(gone).min();
        first.is_some_and(|first| begin.is_none_or(|begin| first.get() <= begin))
            || files.left_out_files().next().is_some()
    }

    /// Compares what was read with what is committed up to block `to`, the last one that was skipped.
    pub(super) fn compare(&mut self, to: BlockNo, files: &FileLog) -> Outcome {
        self.go_back(to);
        if self.is_blind {
            return Outcome::Same;
        }
        let Some(expected) = self.expected_at(to) else { return Outcome::Same };
        let is_same = |total: Sum| match expected.1 {
            Some(digest) => total == Sum { events: expected.0, digest },
            None => total.events == expected.0,
        };
        let gone = files.gone_files().into_iter().map(Sum::of_file).fold(Sum::default(), Sum::plus);
        self.gone = match expected.1 {
            Some(_) if is_same(self.total) => Gone::CountsElsewhere,
            Some(_) if is_same(self.total.plus(gone)) => Gone::Counts,
            _ => Gone::Unknown,
        };
        if self.gone != Gone::Unknown || is_same(self.total) || is_same(self.total.plus(gone)) {
            return Outcome::Same;
        }
        let late = self.late_files(files, to);
        let left = late.iter().map(|(_, sum)| *sum).fold(self.total, Sum::minus);
        let mut found: Vec<Difference> = late.iter().map(|(read, _)| self.late_file(read, to)).collect();
        if !found.is_empty() && (is_same(left) || is_same(left.plus(gone))) {
            return Outcome::Different(found);
        }
        let is_from_start = self.is_from_start(files);
        match self.different_block(to, files, is_from_start) {
            Some(block) => found.push(block),
            // Of a source that begins later, or an earlier version's, only the last blocks are known.
            None if !is_from_start || expected.1.is_none() => {
                if found.is_empty() {
                    return self.unknown_begin(to);
                }
            }
            None => found.push(self.different_total(left, expected.0, files)),
        }
        Outcome::Different(found)
    }

    /// The first block that differs, of a source of which nothing is left out and all is in its order. All before it is
    /// the same, so the pipeline can go back there and handle the source from there again.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn first_difference(&self, to: BlockNo, files: &FileLog) -> Result<BlockNo, &'static str> {
        const BEYOND: &str = "the history does not hold the first block that differs";
        let (Some((events, digest)), marks) = (self.expected_at(to), self.marks_to(to)) else { return Err(BEYOND) };
        let oldest = marks.first().ok_or(BEYOND)?.block;
        let of_mark = |mark: &BlockMark| Sum { events: mark.events, digest: mark.sum.unwrap_or_default() };
        let is_known = digest.is_some() && marks.iter().all(|mark| mark.sum.is_some());
        let is_same = |a: Sum, b: Sum| a.events == b.events && (!is_known || a.digest == b.digest);
        let expected = Sum { events, digest: digest.unwrap_or_default() };
        let expected = marks.iter().map(of_mark).fold(expected, Sum::minus);
        let (earlier, held): (Vec<&ReadBlock>, Vec<&ReadBlock>) =
            self.blocks.iter().partition(|read| read.block < oldest);
        let before = held.iter().map(|read| read.sum).fold(self.total, Sum::minus);
        let now = |block: BlockNo| held.iter().find(|read| read.block == block).map_or(Sum::default(), |read| read.sum);
        let gone = files.gone_files();
        // A file may have gone that held blocks before the oldest one and from it on: those that are not there were its.
        let is_before = |file: &&&SourceFile| file.last_block.is_some_and(|last| last < oldest.get());
        let gone_before = gone.iter().filter(is_before).map(|file| Sum::of_file(file)).fold(Sum::default(), Sum::plus);
        let is_of_gone =
            |mark: &&BlockMark| now(mark.block).events == 0 && gone.iter().any(|file| holds(file, mark.block));
        let gone_all = gone.iter().map(|file| Sum::of_file(file)).fold(Sum::default(), Sum::plus);
        let gone_to_oldest = marks.iter().filter(is_of_gone).map(of_mark).fold(gone_all, Sum::minus);
        let is_same_before =
            [Sum::default(), gone_before, gone_to_oldest].into_iter().any(|gone| is_same(before.plus(gone), expected));
        // If nothing is committed before the blocks that are held, what is there now is all new.
        let is_all_new =
            expected.events == 0 && earlier.iter().map(|read| read.sum).fold(before, Sum::minus).events == 0;
        if !is_same_before && !is_all_new {
            return Err(BEYOND);
        }
        let committed = |block: BlockNo| marks.iter().find(|mark| mark.block == block).map_or(Sum::default(), of_mark);
        let new = earlier.into_iter().filter(|_| !is_same_before);
        let differs = held.iter().copied().filter(|read| !is_same(read.sum, committed(read.block)));
        let from = new.chain(differs).map(|read| read.block).min().ok_or(BEYOND)?;
        // Blocks that went with a file before that are in the state, and stay there.
        let is_kept = |block: BlockNo| block < from && gone.iter().any(|file| holds(file, block));
        let mut fewer = marks.iter().filter(|mark| now(mark.block).events < mark.events);
        match fewer.any(|mark| now(mark.block).events > 0 || !is_kept(mark.block)) || files.loses_from(from, true) {
            true => Err(LOST),
            false => Ok(from),
        }
    }

    fn unknown_begin(&self, to: BlockNo) -> Outcome {
        if let Some(first) = self.first {
            tracing::warn!(
                "the source begins with block {first}, later than what is committed: of blocks before it nothing was compared \
                 (block {to} is committed)"
            );
        }
        Outcome::Same
    }

    /// Events up to the end of a block that is committed, and the sum over them if it is known.
    fn expected_at(&self, to: BlockNo) -> Option<(u64, Option<SourceDigest>)> {
        let CommittedSource { block, events, progress, marks, .. } = &self.committed;
        let tip = (*block)?;
        if to >= tip {
            return Some((*events, progress.digest));
        }
        // It must be held, or what lies after it is not all known.
        marks.first().filter(|first| first.block <= to)?;
        let after = marks.iter().filter(|mark| mark.block > to);
        let undone = after.clone().map(|mark| mark.events).sum();
        let digest = after.fold(progress.digest, |digest, mark| digest.zip(mark.sum).map(|(all, sum)| all.minus(sum)));
        Some((events.saturating_sub(undone), digest))
    }

    /// Files that hold committed blocks and that nobody knew when those were committed, with what they hold.
    fn late_files<'f>(&self, files: &'f FileLog, to: BlockNo) -> Vec<(&'f ReadFile, Sum)> {
        if !files.is_known() {
            return Vec::new();
        }
        let is_late = |read: &&ReadFile| {
            let is_within = read.file.first_block.is_some_and(|first| first <= to.get());
            read.known.is_none() && is_within && !read.begins_known
        };
        files.compared().filter(is_late).map(|read| (read, Sum::of_file(&read.file))).collect()
    }

    fn late_file(&self, read: &ReadFile, to: BlockNo) -> Difference {
        let SourceFile { events, first_block, last_block, .. } = &read.file;
        let first = first_block.unwrap_or_default();
        let blocks = match last_block {
            Some(last) if *last != first => format!("blocks {first} to {last}"),
            _ => format!("block {first}"),
        };
        Difference {
            late: *events,
            is_file: true,
            origin: Arc::from(read.file.stamp.name.as_str()),
            line: read.first_line,
            what: format!(
                "it comes too late: its {events} events of {blocks} are not among those that are committed (up to block {to})"
            ),
        }
    }

    /// The first block within the history that differs.
    fn different_block(&self, to: BlockNo, files: &FileLog, is_from_start: bool) -> Option<Difference> {
        let marks = self.marks_to(to);
        let begin = self.blocks.front().map(|first| first.block);
        let gone: Vec<&SourceFile> = files.gone_files().into_iter().filter(|file| !files.has_name_of(file)).collect();
        let is_left_out = |block: BlockNo| {
            files.left_out_files().any(|(_, file)| holds(file, block)) || gone.iter().any(|file| holds(file, block))
        };
        let oldest = marks.first()?.block;
        let mut read = self.blocks.iter().filter(|read| read.block >= oldest).peekable();
        for mark in &marks {
            if is_left_out(mark.block) {
                read.next_if(|read| read.block <= mark.block);
                continue;
            }
            if let Some(other) = read.next_if(|read| read.block < mark.block) {
                return Some(other.differs_from(0, self.committed.block));
            }
            match read.next_if(|read| read.block == mark.block) {
                // The source may begin within its first block.
                Some(read) if !is_from_start && begin == Some(read.block) && read.block != to => {}
                Some(read) if read.sum.events != mark.events || mark.sum.is_some_and(|sum| sum != read.sum.digest) => {
                    return Some(read.differs_from(mark.events, self.committed.block));
                }
                Some(_) => {}
                None if !is_from_start && begin.is_none_or(|begin| mark.block < begin) => {}
                None => {
                    let missing = ReadBlock {
                        block: mark.block,
                        sum: Sum::default(),
                        origin: self.origin_of(mark.block, files),
                        line: 0,
                    };
                    return Some(missing.differs_from(mark.events, self.committed.block));
                }
            }
        }
        read.next().map(|other| other.differs_from(0, self.committed.block))
    }

    /// The blocks up to `to` whose events are known.
    fn marks_to(&self, to: BlockNo) -> Vec<BlockMark> {
        let CommittedSource { block, progress, marks, .. } = &self.committed;
        let mut marks: Vec<BlockMark> = marks.iter().filter(|mark| mark.block <= to).cloned().collect();
        if let Some(tip) = block.filter(|tip| *tip <= to)
            && let Some(last) = marks.last_mut().filter(|last| last.block == tip)
        {
            last.sum = last.sum.or(progress.block_digest);
        }
        marks
    }

    /// The file that a block was in which is gone: the one that had it, or the one that now has the blocks around it.
    fn origin_of(&self, block: BlockNo, files: &FileLog) -> Arc<str> {
        if let Some(name) = files.name_with(block) {
            return Arc::from(name);
        }
        let before = self.blocks.iter().rfind(|read| read.block < block);
        let around = before.or(self.blocks.front());
        around.map_or_else(|| Arc::from("source"), |read| Arc::clone(&read.origin))
    }

    /// A difference of which the block is not known: `now` is there without the files that are told already.
    fn different_total(&self, now: Sum, events: u64, files: &FileLog) -> Difference {
        let changed = files.compared().find(|read| {
            read.known.as_ref().is_some_and(|known| known.is_whole && Sum::of_file(known) != Sum::of_file(&read.file))
        });
        let block = self.committed.block.map_or_else(String::new, |block| format!(" up to block {block}"));
        let origin = files.name_of_change().map_or_else(|| Arc::from("source"), Arc::from);
        if let Some(read) = changed
            && let Some(known) = &read.known
        {
            return Difference {
                late: read.file.events.saturating_sub(known.events),
                is_file: false,
                origin: Arc::from(read.file.stamp.name.as_str()),
                line: read.first_line,
                what: compared_to(read.file.events, known.events, &format!("of this file{block}")),
            };
        }
        Difference {
            late: now.events.saturating_sub(events),
            is_file: false,
            origin,
            line: 0,
            what: compared_to(now.events, events, &format!("of the source{block}")),
        }
    }
}

/// Whether a file has, or had, events of blocks on both sides of that one, or of it.
fn holds(file: &SourceFile, block: BlockNo) -> bool {
    let is_from = file.first_block.is_some_and(|first| first <= block.get());
    is_from && file.last_block.is_some_and(|last| block.get() <= last)
}

impl ReadBlock {
    fn differs_from(&self, committed: u64, tip: Option<BlockNo>) -> Difference {
        let open = match tip == Some(self.block) && self.sum.events > committed {
            true => {
                "; a block must be complete when it is read: [source] end = \"open\" leaves the last block of a file that \
                 grows to the next run"
            }
            false => "",
        };
        Difference {
            late: self.sum.events.saturating_sub(committed),
            is_file: false,
            origin: Arc::clone(&self.origin),
            line: self.line,
            what: compared_to(self.sum.events, committed, &format!("of block {}", self.block)) + open,
        }
    }
}

/// What differs, in words.
fn compared_to(now: u64, committed: u64, of: &str) -> String {
    match now == committed {
        true => format!(
            "the source was changed: other events {of} are committed than it now holds (in number the same, {now})"
        ),
        false => format!("the source now holds {now} events {of}, and {committed} are committed"),
    }
}
