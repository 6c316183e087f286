//! What a run over the folder may come to.
//!
//! The model knows the lines that are committed, in the order in which they were handled, and which files held them. From
//! that and from the folder follows what the store must hold after the next run, and whether the run may refuse instead.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use forebay::source::{End, Late};

use super::folder::{Folder, Form, Hashes, Held, Kind, Line};
use super::parts::Part;
use super::steps::FilesPlan;

const LOSES: &str = "a replay would lose what is gone";

/// What the store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The numbers of the lines of each region in the order in which they were handled.
    pub regions: BTreeMap<String, Vec<u64>>,
    /// Lines that were put aside, by number.
    pub aside: BTreeMap<u64, u64>,
    /// Events by the checkpoint.
    pub events: u64,
}

/// What is committed.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Lines that have a block, in the order in which they were handled.
    pub lines: Vec<Line>,
    /// Lines that are no events.
    pub bad: BTreeSet<u64>,
    /// The oldest block that can be gone back to.
    pub floor: Option<i64>,
    /// Lines of files of which all was settled, by the file's number.
    pub whole: HashMap<u64, BTreeSet<u64>>,
    /// What files were called when they held which lines.
    pub names: HashMap<u64, BTreeMap<String, BTreeSet<u64>>>,
    /// Files of which runs know less than that: the one in which a run ended at the last block that it wanted, those that
    /// end with a late line, and all of which the lines were put in another order.
    pub unsure: HashMap<u64, Part>,
    /// A line that is no event waited behind the last committed block, and counts to another one.
    pub has_waited: bool,
    /// Lines that are gone, and that was told.
    pub told: BTreeSet<u64>,
    /// Lines that came too late, and that was told.
    pub told_late: BTreeSet<u64>,
}

impl Ledger {
    pub fn tip(&self) -> Option<i64> {
        self.lines.iter().map(|line| line.block).max()
    }

    fn numbers(&self) -> BTreeSet<u64> {
        self.lines.iter().map(|line| line.n).collect()
    }

    /// A file is gone, and another one has its name.
    pub fn has_replaced(&self, folder: &Folder) -> bool {
        let names: BTreeMap<String, u64> = folder.files.iter().map(|file| (file.name(), file.id)).collect();
        let is_gone = |id: &u64| folder.files.iter().all(|file| file.id != *id);
        self.names.iter().any(|(id, held)| is_gone(id) && held.keys().any(|name| names.contains_key(name)))
    }

    /// The block to which so many committed blocks are taken back; none if that cannot be done.
    pub fn block_before(&self, plan: &FilesPlan, back: u8) -> Option<i64> {
        let blocks: BTreeSet<i64> = self.lines.iter().map(|line| line.block).collect();
        let to = blocks.iter().nth_back(usize::from(back) - 1)? - 1;
        (plan.depth > 0 && self.floor.is_none_or(|floor| to >= floor)).then_some(to)
    }

    /// After a rollback, which has left these lines that are no events. Files that it reached into are not known any more.
    pub fn go_back(&mut self, to: i64, bad: BTreeSet<u64>) {
        let gone = self.lines.iter().filter(|line| line.block > to).map(|line| line.n);
        let gone: BTreeSet<u64> = gone.chain(self.bad.difference(&bad).copied()).collect();
        self.lines.retain(|line| line.block <= to);
        self.bad = bad;
        self.whole.retain(|_, lines| lines.is_disjoint(&gone));
        self.told.retain(|n| !gone.contains(n));
    }

    /// After a run that ended well: what can be gone back to, and which files are settled.
    pub fn settle(&mut self, plan: &FilesPlan, folder: &Folder, until: Option<i64>) {
        let is_read = |line: &&Line| until.is_none_or(|until| line.block <= until);
        let last = folder.lines().take_while(is_read).last();
        let is_its = |file: &&Held| last.is_some_and(|last| file.lines.contains(last));
        let at = |line: &&Line| line.at(plan.form);
        let is_sorted = folder.lines().filter(|line| line.has_block()).is_sorted_by_key(|line| at(&line));
        let is_merged = plan.late == Late::Replay && (!is_sorted || folder.has_repeats());
        let ids = |files: &mut dyn Iterator<Item = &Held>| files.map(|file| file.id).collect::<Vec<u64>>();
        let ended = ids(&mut folder.files.iter().filter(is_its).filter(|_| until.is_some()));
        let merged = ids(&mut folder.files.iter().filter(|_| is_merged));
        let ended = ended.into_iter().map(|id| (id, Part::Until));
        self.unsure = ended.chain(merged.into_iter().map(|id| (id, Part::Unsettled))).collect();
        self.floor = self.floor.max(self.tip().map(|tip| tip - plan.depth.cast_signed()));
        let numbers = self.numbers();
        for file in &folder.files {
            self.names.entry(file.id).or_default().insert(file.name(), file.numbers().into_iter().collect());
            let tip = self.tip().filter(|_| plan.late == Late::Skip);
            let is_late = |line: &Line| tip.is_some_and(|tip| line.has_block() && line.block <= tip);
            let bad = &self.bad;
            let is_settled = |line: &Line| numbers.contains(&line.n) || bad.contains(&line.n) || is_late(line);
            let is_clear = file.lines.last().is_none_or(|line| numbers.contains(&line.n));
            if !is_clear {
                self.unsure.insert(file.id, Part::Unsettled);
            }
            if file.lines.iter().all(is_settled) {
                self.whole.insert(file.id, file.lines.iter().map(|line| line.n).collect());
            } else {
                self.whole.remove(&file.id);
            }
        }
    }
}

/// How a run was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    pub until: Option<i64>,
    pub fails: Option<(u8, bool)>,
}

/// What follows from the ledger and the folder.
pub struct View<'a> {
    plan: &'a FilesPlan,
    before: &'a Ledger,
    folder: &'a Folder,
    asked: Asked,
    /// Lines of the source that have a block, each once.
    source: Vec<Line>,
    /// Committed lines of files that are gone as a whole.
    gone: BTreeSet<u64>,
    /// Other committed lines that are not there.
    pub lost: BTreeSet<u64>,
    /// New lines that come in their place.
    new: Vec<Line>,
    /// Lines that are not committed and whose place has passed.
    pub late: Vec<Line>,
    /// All that counts by the rule of a replay.
    merged: Vec<Line>,
}

impl<'a> View<'a> {
    pub fn new(plan: &'a FilesPlan, before: &'a Ledger, folder: &'a Folder, asked: Asked) -> Self {
        let mut seen = BTreeSet::new();
        let source: Vec<Line> =
            folder.lines().filter(|line| line.has_block() && seen.insert(line.n)).copied().collect();
        let missing: BTreeSet<u64> = before.numbers().difference(&seen).copied().collect();
        let numbers = before.numbers();
        let ids: BTreeSet<u64> = folder.files.iter().map(|file| file.id).collect();
        let gone: BTreeSet<u64> = before
            .whole
            .iter()
            .filter(|(id, _)| !ids.contains(id))
            .map(|(_, lines)| lines.intersection(&numbers).copied().collect::<BTreeSet<u64>>())
            .filter(|lines| lines.is_subset(&missing))
            .flatten()
            .collect();
        let lost = missing.difference(&gone).copied().collect();
        let mut view = Self {
            plan,
            before,
            folder,
            asked,
            source,
            gone,
            lost,
            new: Vec::new(),
            late: Vec::new(),
            merged: Vec::new(),
        };
        let read = view.read();
        (view.new, view.late) = view.in_place(&read);
        view.merged = view.merge(&view.source);
        view
    }

    fn form(&self) -> Form {
        self.plan.form
    }

    /// What of the source is read.
    fn read(&self) -> Vec<Line> {
        let is_wanted = |line: &&Line| self.asked.until.is_none_or(|until| line.block <= until);
        self.source.iter().take_while(is_wanted).copied().collect()
    }

    /// Whether the run reads to the end of the source.
    fn is_to_end(&self) -> bool {
        self.asked.until.is_none_or(|until| self.folder.lines().all(|line| line.block <= until))
    }

    /// New lines that come in their place, and those that come too late.
    fn in_place(&self, read: &[Line]) -> (Vec<Line>, Vec<Line>) {
        let committed = self.before.numbers();
        let tip = self.before.lines.last().map(|line| line.block);
        let place = self.before.lines.iter().rev().take_while(|line| Some(line.block) == tip);
        let mut last = tip.map(|tip| (tip, place.map(|line| line.place).max().unwrap_or_default()));
        let (mut new, mut late) = (Vec::new(), Vec::new());
        for line in read.iter().filter(|line| !committed.contains(&line.n)) {
            let is_late = last.is_some_and(|(block, place)| match self.form().has_places {
                true => (line.block, line.place) <= (block, place),
                false => line.block < block || line.block == block && tip == Some(block),
            });
            if is_late {
                late.push(*line);
            } else {
                last = Some((line.block, line.place));
                new.push(*line);
            }
        }
        (new, late)
    }

    /// All that there is and what is committed of files that are gone, in order.
    fn merge(&self, source: &[Line]) -> Vec<Line> {
        let mut all: Vec<Line> = source.to_vec();
        all.extend(self.before.lines.iter().filter(|line| self.gone.contains(&line.n)).copied());
        all.sort_by_key(|line| line.at(self.form()));
        // Where a part of a block is gone, nobody knows another order than the one in which it was committed.
        let blocks: BTreeSet<i64> =
            self.before.lines.iter().filter(|line| self.gone.contains(&line.n)).map(|line| line.block).collect();
        let rank: HashMap<u64, usize> = self.before.lines.iter().enumerate().map(|(at, line)| (line.n, at)).collect();
        all.sort_by_key(|line| {
            let (block, place) = line.at(self.form());
            let is_kept = !self.form().has_places && blocks.contains(&block);
            (block, place, if is_kept { rank.get(&line.n).copied().unwrap_or(usize::MAX) } else { 0 })
        });
        all
    }

    fn is_sorted(&self) -> bool {
        let form = self.form();
        self.source.is_sorted_by(|a, b| if form.has_places { a.at(form) < b.at(form) } else { a.block <= b.block })
    }

    /// The blocks of which the source holds other lines than are committed, or in another order.
    fn differing_blocks(&self) -> BTreeSet<i64> {
        let tip = self.before.tip();
        let blocks = |lines: &[Line]| {
            let mut blocks: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
            lines.iter().for_each(|line| blocks.entry(line.block).or_default().push(line.n));
            blocks
        };
        let (committed, source) = (blocks(&self.before.lines), blocks(&self.source));
        let all = committed.keys().chain(source.keys()).filter(|block| tip.is_some_and(|tip| **block <= tip));
        all.filter(|block| committed.get(block) != source.get(block)).copied().collect()
    }

    /// Lines that are no events, are not committed, and stand before lines that are.
    fn has_bad_between(&self) -> bool {
        let committed = self.before.numbers();
        let lines: Vec<&Line> = self.folder.lines().collect();
        let last = lines.iter().rposition(|line| committed.contains(&line.n)).unwrap_or(0);
        lines[..last].iter().any(|line| !line.has_block() && !self.before.bad.contains(&line.n))
    }

    /// A file was removed, and of what was known of files that are not there any more a part is there, or known twice.
    fn is_mixed(&self) -> bool {
        let present: BTreeMap<String, BTreeSet<u64>> =
            self.folder.files.iter().map(|file| (file.name(), file.numbers().into_iter().collect())).collect();
        let mut known: BTreeSet<&BTreeSet<u64>> = BTreeSet::new();
        for (name, lines) in self.before.names.values().flatten() {
            let is_there = present.values().any(|now| now == lines);
            let has_grown = present.get(name).is_some_and(|now| now.is_superset(lines));
            if !is_there && !has_grown {
                known.insert(lines);
            }
        }
        let now: BTreeSet<u64> = self.source.iter().map(|line| line.n).collect();
        let mut seen: BTreeSet<u64> = BTreeSet::new();
        let is_twice = known.into_iter().any(|lines| {
            let is_twice = lines.iter().any(|n| now.contains(n) || seen.contains(n));
            seen.extend(lines);
            is_twice
        });
        !self.gone.is_empty() && is_twice
    }

    /// A file that was renamed, or is a part of another one, has late lines.
    fn has_renamed_late(&self) -> bool {
        self.folder.files.iter().any(|file| {
            let is_known = self.before.names.get(&file.id).is_some_and(|names| names.contains_key(&file.name()));
            let has = |lines: &[Line]| file.lines.iter().any(|line| lines.contains(line));
            !is_known && has(&self.before.lines) && has(&self.late)
        })
    }

    pub fn has_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Lines that are no events and that wait for the event of another file, or belong to one of another file.
    fn waits_across(&self) -> bool {
        let tip = self.before.tip();
        let committed = self.before.numbers();
        let mut last: Option<&Line> = None;
        let begins_bad = |file: &Held| file.lines.first().is_some_and(|line| !line.has_block());
        if self.before.has_waited || self.before.lines.is_empty() && !self.before.bad.is_empty() {
            return true;
        }
        let has_bad = self.folder.lines().any(|line| !line.has_block());
        let has_refused = has_bad || self.source.iter().any(|line| line.kind == Kind::NoRegion);
        if self.folder.files.iter().skip(1).any(begins_bad)
            || has_bad && self.first_back().is_some()
            || has_refused && self.folder.has_copies()
        {
            return true;
        }
        self.folder.files.iter().enumerate().any(|(at, file)| {
            let is_last = at + 1 == self.folder.files.len();
            let ends_bad = file.lines.last().is_some_and(|line| !line.has_block());
            last = file.lines.iter().rfind(|line| line.has_block()).or(last);
            let waits = last.is_none_or(|last| committed.contains(&last.n) && Some(last.block) == tip);
            !is_last && ends_bad && waits
        })
    }

    /// Such a line stands within the last committed block, which goes on behind it.
    fn waits_within(&self) -> bool {
        let lines: Vec<&Line> = self.folder.lines().collect();
        let committed = self.before.numbers();
        let is_new = |line: &Line| line.has_block() && !committed.contains(&line.n);
        let next = |at: usize| lines[at..].iter().find(|line| is_new(line)).map(|line| line.block);
        let is_within = |at: usize| !lines[at].has_block() && next(at).is_some() && next(at) == self.before.tip();
        (0..lines.len()).any(is_within)
    }

    /// Whether a line that is no event waits behind the last committed block.
    pub fn waits(&self) -> bool {
        let tip = self.before.tip();
        let committed = self.before.numbers();
        let mut last: Option<&Line> = None;
        self.folder.lines().any(|line| {
            let waits = !line.has_block() && !self.before.bad.contains(&line.n);
            last = Some(line).filter(|line| line.has_block()).or(last);
            waits && last.is_some_and(|last| committed.contains(&last.n) && Some(last.block) == tip)
        })
    }

    fn has_new_bad(&self) -> bool {
        self.folder.lines().any(|line| !line.has_block() && !self.before.bad.contains(&line.n))
    }

    /// Why the run may refuse; none if it must not.
    pub fn may_refuse(&self) -> Option<&'static str> {
        if self.folder.has_copies() {
            return Some("a copy");
        }
        if self.form().hashes != Hashes::None && (!self.is_sorted() || !self.late.is_empty()) {
            return Some("hashes out of order");
        }
        match self.plan.late {
            Late::Skip => None,
            Late::Error => self.may_refuse_late(),
            _ => self.may_refuse_replay(),
        }
    }

    /// Whether the run is of a part that is left out.
    pub fn is_left_out(&self) -> bool {
        let is_late = !self.late.is_empty() || !self.lost.is_empty();
        let loses = self.plan.late == Late::Replay && self.may_refuse_replay() == Some(LOSES);
        let is_unsure = |part: Part| self.before.unsure.iter().any(|(id, why)| *why == part && !self.folder.has(*id));
        let parts = [
            (Part::ReusedNames, self.before.has_replaced(self.folder)),
            (Part::GrownUnderNewNames, self.is_mixed()),
            (Part::LateAndGone, !self.gone.is_empty() && is_late || loses),
            (Part::PartsOfBlocks, self.has_parts()),
            (Part::Until, is_unsure(Part::Until)),
            (Part::Unsettled, is_unsure(Part::Unsettled)),
            (Part::RenamedLate, self.plan.late != Late::Error && self.has_renamed_late()),
            (Part::HashesOutOfOrder, self.form().hashes != Hashes::None && !self.is_sorted()),
            (Part::Headless, self.waits_across() || self.form().has_places && self.waits_within()),
        ];
        parts.into_iter().any(|(part, is_so)| is_so && !part.is_lived())
    }

    fn may_refuse_late(&self) -> Option<&'static str> {
        if !self.late.is_empty() {
            return Some("a late line");
        }
        if !self.is_sorted() {
            return Some("out of order");
        }
        if !self.lost.is_empty() {
            return Some("lines are lost");
        }
        if self.has_bad_between() {
            return Some("a late line that is no event");
        }
        if self.is_reordered() {
            return Some("other places within a block");
        }
        self.has_parts().then_some("a part of a block is gone")
    }

    /// Without places, the order of the source is that within a block.
    fn is_reordered(&self) -> bool {
        let rank: HashMap<u64, usize> = self.before.lines.iter().enumerate().map(|(at, line)| (line.n, at)).collect();
        let known = self.source.iter().filter_map(|line| Some((line.block, *rank.get(&line.n)?)));
        !self.form().has_places && !known.is_sorted_by(|a, b| a.0 != b.0 || a.1 < b.1)
    }

    /// Without places, what is left of a block has other places than were committed.
    fn has_parts(&self) -> bool {
        let is_there = |block: &i64| self.source.iter().any(|line| line.block == *block);
        let is_gone =
            |block: &i64| self.before.lines.iter().any(|line| line.block == *block && self.gone.contains(&line.n));
        !self.form().has_places && self.differing_blocks().iter().any(|block| is_there(block) && is_gone(block))
    }

    /// The first block that is read behind new lines that lie after it: these may be committed by then.
    fn first_back(&self) -> Option<i64> {
        let (form, mut last) = (self.form(), None);
        let mut steps_back = |line: &&Line| {
            let is_back = last.is_some_and(|last| line.at(form) < last);
            if self.new.contains(line) {
                last = last.max(Some(line.at(form)));
            }
            is_back
        };
        self.source.iter().filter(|line| steps_back(line)).map(|line| line.block).min()
    }

    fn may_refuse_replay(&self) -> Option<&'static str> {
        if !self.lost.is_empty() {
            return Some("lines are lost");
        }
        let differs = self.before.lines.iter().zip(&self.merged).find(|(a, b)| a.n != b.n);
        let first = differs.map(|(a, b)| a.block.min(b.block));
        let back = self.first_back();
        let first = first.into_iter().chain(self.late.iter().map(|line| line.block)).chain(back).min();
        let bad = self.has_bad_between().then_some("a late line that is no event");
        let parts = self.has_parts().then_some("a part of a block is gone");
        let Some(first) = first else { return bad.or(parts) };
        // Small batches may have committed all that comes before what is late.
        let tip = self.merged.last().map_or(first, |last| last.block);
        let is_behind = |line: &Line| self.gone.contains(&line.n) && line.block >= first;
        if self.before.lines.iter().any(is_behind) {
            return Some(LOSES);
        }
        let floor = self.before.floor.max(Some(tip - self.plan.depth.cast_signed()));
        if floor.is_some_and(|floor| first - 1 < floor) {
            return Some("the history does not reach so far");
        }
        bad.or(parts)
    }

    /// The orders of lines of which the store may hold one after a run that ended well.
    pub fn ends(&self, has_warned: bool) -> Vec<Vec<Line>> {
        let kept = |new: &[Line]| -> Vec<Line> { self.before.lines.iter().chain(new).copied().collect() };
        let is_open = self.plan.end == End::Open && self.is_to_end();
        let last = self.new.last().map(|line| line.block).filter(|_| is_open);
        let new: Vec<Line> = self.new.iter().filter(|line| Some(line.block) != last).copied().collect();
        if self.plan.late != Late::Replay {
            return vec![kept(&new)];
        }
        let mut ends = Vec::new();
        let (read, until) = (self.read(), self.asked.until);
        let mut wholes = vec![self.merged.clone()];
        if let Some(until) = until {
            wholes = vec![self.merged.iter().filter(|line| line.block <= until).copied().collect()];
            let known = self.before.lines.iter().filter(|line| !read.iter().any(|read| read.n == line.n));
            let mut some: Vec<Line> = read.iter().chain(known).copied().collect();
            some.sort_by_key(|line| line.at(self.form()));
            wholes.push(some);
        }
        for whole in wholes {
            let last = whole.last().map(|line| line.block).filter(|_| is_open);
            let cut: Vec<Line> = whole.iter().filter(|line| Some(line.block) != last).copied().collect();
            if last.is_some_and(|last| self.before.tip().is_some_and(|tip| last <= tip)) {
                ends.push(whole);
                ends.push(self.before.lines.clone());
            }
            ends.push(cut);
        }
        // A source that begins behind what is committed says nothing of it.
        let is_behind = !self.source.iter().any(|line| self.before.lines.contains(line));
        if (has_warned || until.is_some() || is_behind) && !self.lost.is_empty() {
            ends.push(kept(&new));
        }
        ends
    }

    /// The orders of which the store may hold a part, up to the end of a block, after a run that ended with an error.
    pub fn parts(&self) -> Vec<Vec<Line>> {
        let mut parts = self.ends(true);
        parts.push(self.before.lines.iter().chain(&self.new).copied().collect());
        parts.push(self.merged.clone());
        parts.push(self.before.lines.clone());
        parts
    }

    /// Why a run that ended well had to warn.
    pub fn must_warn(&self, after: &[Line], bad: &BTreeSet<u64>) -> Option<&'static str> {
        if self.asked.until.is_some() {
            return None;
        }
        let has_lost = !self.lost.is_empty() || !self.before.told.is_empty();
        if self.plan.late == Late::Skip && !self.late.is_empty() && (Part::Corrections.is_lived() || !has_lost) {
            return Some("late lines were left out");
        }
        // A source that begins behind what is committed says nothing of it.
        let has_any = self.source.iter().any(|line| self.before.lines.contains(line));
        if has_any && self.lost.iter().any(|n| !self.before.told.contains(n)) && !self.is_corrected(after) {
            return Some("committed lines are not there any more");
        }
        let is_left_out = |line: &&Line| !line.has_block() && !bad.contains(&line.n);
        let is_left_out = self.folder.lines().find(is_left_out).is_some();
        (is_left_out && self.plan.end == End::Complete).then_some("a line that is no event is not put aside")
    }

    /// What is lost was replaced, and the replay took that in.
    fn is_corrected(&self, after: &[Line]) -> bool {
        self.plan.late == Late::Replay && self.merged.starts_with(after)
    }

    /// Whether there is nothing to tell.
    pub fn must_be_silent(&self) -> bool {
        let has_any = self.before.lines.is_empty() || self.source.iter().any(|line| self.before.lines.contains(line));
        let is_plain = !self.is_reordered()
            && self.late.is_empty()
            && self.lost.is_empty()
            && self.is_sorted()
            && !self.folder.has_repeats();
        has_any && is_plain && !self.has_parts() && !self.has_new_bad() && self.asked.until.is_none()
    }

    /// How many lines a run must count as late: those that no run has told, and at most all; none if that is not known.
    pub fn late_counts(&self) -> Option<(u64, u64)> {
        let steps_back = |line: &Line| self.before.lines.contains(line);
        let mut last = None;
        for line in &self.source {
            let at = line.at(self.form());
            if steps_back(line) && last.is_some_and(|last| at < last) {
                return None;
            }
            last = last.max(Some(at));
        }
        let is_exact = self.plan.late == Late::Skip
            && self.lost.is_empty()
            && self.before.told.is_empty()
            && self.asked.until.is_none()
            && !self.has_bad_between()
            && self.form().hashes == Hashes::None;
        let is_new = |line: &&Line| !self.before.told_late.contains(&line.n);
        let new = self.late.iter().filter(is_new).count();
        (is_exact && !self.is_reordered() && !self.has_parts()).then_some((new as u64, self.late.len() as u64))
    }

    /// Whether a second run needs to read nothing.
    pub fn is_settled(&self, after: &Ledger) -> bool {
        let numbers = after.numbers();
        let is_there = |line: &Line| numbers.contains(&line.n) || after.bad.contains(&line.n);
        self.folder.lines().all(is_there)
            && self.folder.files.iter().all(|file| !file.lines.is_empty())
            && self.is_sorted()
            && !self.is_reordered()
            && self.lost.is_empty()
            && !self.folder.has_repeats()
            && self.asked.until.is_none()
            && self.plan.end == End::Complete
    }
}

/// What the store holds when these lines were handled.
pub fn stored_of(lines: &[Line], bad: &BTreeSet<u64>) -> Stored {
    let mut stored = Stored { events: (lines.len() + bad.len()) as u64, ..Stored::default() };
    for line in lines {
        if line.kind == Kind::Good {
            stored.regions.entry(format!("r{}", line.region)).or_default().push(line.n);
        } else {
            *stored.aside.entry(line.n).or_default() += 1;
        }
    }
    bad.iter().for_each(|n| *stored.aside.entry(*n).or_default() += 1);
    stored
}

/// Finds the order that the store holds: all of it, or what of it ends with a block.
pub fn find<'l>(orders: &'l [Vec<Line>], stored: &Stored, bad: &BTreeSet<u64>, is_whole: bool) -> Option<&'l [Line]> {
    let count = usize::try_from(stored.events).ok()?.checked_sub(bad.len())?;
    orders.iter().find_map(|order| {
        let is_cut = order.get(count).is_some();
        let is_between = |at: usize| order.get(at).map(|line| line.block) != order.get(at - 1).map(|line| line.block);
        let part = order.get(..count)?;
        let fits = if is_whole { !is_cut } else { count == 0 || !is_cut || is_between(count) };
        (fits && stored_of(part, bad) == *stored).then_some(part)
    })
}
