//! What happens to the folder between runs.

use std::collections::BTreeMap;

use forebay::source::{End, Late};
use proptest::prelude::*;

use super::folder::{Folder, Form, Hashes, Held, Kind, Line, Packing};
use super::parts::Part;

/// An event: its region, and whether its handler fails.
pub type Ev = (u8, bool);

/// One thing that happens.
#[derive(Debug, Clone)]
pub enum Step {
    /// The last file grows by a block, so many numbers further.
    Block(u8, Vec<Ev>),
    /// A new file behind all others, with a new block.
    NewFile(u8, Vec<Ev>),
    /// One more event of the last block, in the last file, or in a new one behind it.
    More(Ev, bool),
    /// The last file grows by an event of an earlier block, so many blocks back; whether its place is between others.
    Late(u8, bool, Ev),
    /// A new file before or among the others, with events of an earlier block, or of a block between.
    LateFile(u8, u8, bool, Vec<Ev>),
    /// A line is put into the middle of a file, in the block of its neighbour.
    Insert(u8, u8, Ev),
    /// The last name is rotated; whether the next block goes into that name again at once.
    Rotate(Option<Packing>),
    /// A file gets another name in the same place of the order.
    Rename(u8),
    /// A file gets a name in another place of the order.
    Move(u8, u8),
    Pack(u8, Packing),
    Touch(u8),
    /// The same again, as a new file under the old name.
    Rewrite(u8),
    Split(u8, u8),
    /// A file and the one behind it become one.
    Join(u8),
    /// The oldest file is removed, or that one.
    DeleteOldest,
    Delete(u8),
    /// The file that was removed last comes back.
    Return,
    /// The last lines of a file are cut off.
    CutOff(u8, u8),
    DeleteLine(u8, u8),
    ChangeLine(u8, u8),
    Copy(u8, Packing),
    /// Lines that are no events: where (at the end of the last file, at the beginning of one, in a new file behind, in
    /// the last file that holds nothing else), how many.
    Bad(u8, u8),
    /// An event of the last block that cannot be read.
    NoRegion(u8),
    /// A run; up to so many blocks before the last one.
    Run(Option<u8>),
    /// A run of which that commit fails; before it is durable, or after.
    Fail(u8, bool),
    /// A rollback by hand, so many committed blocks back.
    Back(u8),
}

/// What histories may hold.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Lines that are no events.
    pub headless: bool,
    /// Events that cannot be read, and their blocks can.
    pub no_region: bool,
    pub hashes: bool,
    /// Lines that are gone or other ones.
    pub losses: bool,
    /// Files that are split, joined, or moved in the order.
    pub regroups: bool,
}

#[derive(Debug, Clone)]
pub struct FilesPlan {
    pub form: Form,
    pub late: Late,
    pub end: End,
    pub depth: u64,
    pub batch_events: u64,
    pub evicts: bool,
    /// A new file gets the number of the one that was removed last.
    pub reuses_inodes: bool,
    /// What is taken back has the times that it had.
    pub keeps_times: bool,
    pub steps: Vec<Step>,
}

fn ev() -> impl Strategy<Value = Ev> {
    (0..2u8, prop::bool::weighted(0.1))
}

fn evs() -> impl Strategy<Value = Vec<Ev>> {
    prop::collection::vec(ev(), 1..4)
}

fn packing() -> impl Strategy<Value = Packing> {
    prop::sample::select(vec![Packing::Plain, Packing::Gzip, Packing::Zstd])
}

fn growth() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..3u8, evs()).prop_map(|(gap, events)| Step::Block(gap, events)),
        6 => (1..3u8, evs()).prop_map(|(gap, events)| Step::NewFile(gap, events)),
        2 => (ev(), any::<bool>()).prop_map(|(event, anew)| Step::More(event, anew)),
        2 => (0..4u8, any::<bool>(), ev()).prop_map(|(back, low, event)| Step::Late(back, low, event)),
        2 => (0..4u8, 0..4u8, any::<bool>(), evs())
            .prop_map(|(at, back, between, events)| Step::LateFile(at, back, between, events)),
        1 => (0..4u8, 0..4u8, ev()).prop_map(|(file, at, event)| Step::Insert(file, at, event)),
    ]
}

fn renaming() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop::option::of(packing()).prop_map(Step::Rotate),
        1 => (0..4u8).prop_map(Step::Rename),
        2 => (0..4u8, packing()).prop_map(|(file, packing)| Step::Pack(file, packing)),
        2 => (0..4u8).prop_map(Step::Touch),
        1 => (0..4u8).prop_map(Step::Rewrite),
        2 => Just(Step::DeleteOldest),
        1 => Just(Step::Return),
        1 => (0..4u8, packing()).prop_map(|(file, packing)| Step::Copy(file, packing)),
    ]
}

fn regrouping() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8, 0..4u8).prop_map(|(file, to)| Step::Move(file, to)),
        (0..4u8, 0..4u8).prop_map(|(file, at)| Step::Split(file, at)),
        (0..4u8).prop_map(Step::Join),
    ]
}

fn loss() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8).prop_map(Step::Delete),
        (0..4u8, 1..4u8).prop_map(|(file, lines)| Step::CutOff(file, lines)),
        (0..4u8, 0..4u8).prop_map(|(file, at)| Step::DeleteLine(file, at)),
        (0..4u8, 0..4u8).prop_map(|(file, at)| Step::ChangeLine(file, at)),
    ]
}

fn running() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Run(None)),
        1 => (0..3u8).prop_map(|back| Step::Run(Some(back))),
        2 => (0..4u8, any::<bool>()).prop_map(|(at, after)| Step::Fail(at, after)),
        2 => (1..5u8).prop_map(Step::Back),
    ]
}

fn step(scope: Scope) -> BoxedStrategy<Step> {
    let mut steps = vec![(12, growth().boxed()), (9, renaming().boxed()), (10, running().boxed())];
    if scope.regroups {
        steps.push((2, regrouping().boxed()));
    }
    if scope.losses {
        steps.push((2, loss().boxed()));
    }
    if scope.headless {
        steps.push((5, (0..4u8, 1..3u8).prop_map(|(at, lines)| Step::Bad(at, lines)).boxed()));
    }
    if scope.no_region {
        steps.push((2, (0..2u8).prop_map(Step::NoRegion).boxed()));
    }
    prop::strategy::Union::new_weighted(steps).boxed()
}

pub fn files_plan(scope: Scope) -> impl Strategy<Value = FilesPlan> {
    let hashes = match scope.hashes {
        true => vec![Hashes::Hash, Hashes::Parent],
        false => vec![Hashes::None],
    };
    let form =
        (any::<bool>(), prop::sample::select(hashes)).prop_map(|(has_places, hashes)| Form { has_places, hashes });
    let late = prop::sample::select(vec![Late::Error, Late::Skip, Late::Replay]);
    let end = prop::sample::select(vec![End::Complete, End::Complete, End::Open]);
    let depth = prop::sample::select(vec![0, 3, 1_000, 1_000]);
    let batches = (1..6u64, any::<bool>(), any::<bool>(), any::<bool>());
    (form, late, end, depth, batches, prop::collection::vec(step(scope), 2..14)).prop_map(
        |(form, late, end, depth, (batch_events, evicts, reuses_inodes, keeps_times), steps)| FilesPlan {
            form,
            late,
            end,
            // A replay without a history is refused before it begins.
            depth: if late == Late::Replay { depth.max(1) } else { depth },
            batch_events,
            evicts,
            reuses_inodes,
            keeps_times,
            steps,
        },
    )
}

/// The folder as it changes. Numbers never come again.
#[derive(Debug, Default)]
pub struct World {
    pub folder: Folder,
    /// The last committed block.
    pub committed: i64,
    removed: Vec<Held>,
    free_inodes: Vec<u64>,
    made: u64,
    clock: i64,
    last_block: i64,
    last_base: u32,
    places: BTreeMap<i64, Vec<i64>>,
}

impl World {
    fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn stamp(&mut self, plan: &FilesPlan) -> (u64, i64) {
        let inode = match self.free_inodes.pop().filter(|_| plan.reuses_inodes) {
            Some(inode) => inode,
            None => 1_000 + self.next(),
        };
        (inode, self.tick())
    }

    pub fn tick(&mut self) -> i64 {
        self.clock += 1;
        self.clock
    }

    fn place(&mut self, block: i64, is_low: bool) -> i64 {
        let places = self.places.entry(block).or_default();
        let high = places.iter().max().map_or(2, |last| last / 2 * 2 + 2);
        let low = places.iter().map(|place| place - 1).find(|low| low % 2 == 1 && !places.contains(low));
        let place = low.filter(|_| is_low).unwrap_or(high);
        places.push(place);
        place
    }

    /// The block that the next one names as the one before it.
    fn tip(&self) -> i64 {
        let removed = self.removed.iter().flat_map(|file| &file.lines);
        self.folder.lines().chain(removed).map(|line| line.block).max().unwrap_or(0).max(self.committed)
    }

    fn line(&mut self, block: i64, parent: i64, is_low: bool, (region, fails): Ev) -> Line {
        let place = self.place(block, is_low);
        let kind = if fails { Kind::Fails } else { Kind::Good };
        Line { n: self.next(), block, place, parent, region, kind }
    }

    fn new_block(&mut self, gap: u8, events: &[Ev]) -> Vec<Line> {
        let parent = self.tip();
        self.last_block = self.last_block.max(parent) + i64::from(gap);
        let block = self.last_block;
        events.iter().map(|event| self.line(block, parent, false, *event)).collect()
    }

    fn bad_lines(&mut self, count: u8) -> Vec<Line> {
        let line = |n| Line { n, block: 0, place: 0, parent: 0, region: 0, kind: Kind::Headless };
        (0..count).map(|_| line(self.next())).collect()
    }

    /// Blocks that the folder holds, with the blocks that they name before them.
    fn blocks(&self) -> Vec<(i64, i64)> {
        let mut blocks: Vec<(i64, i64)> =
            self.folder.lines().filter(|line| line.has_block()).map(|line| (line.block, line.parent)).collect();
        blocks.sort_unstable();
        blocks.dedup_by_key(|block| block.0);
        blocks
    }

    fn add_file(&mut self, plan: &FilesPlan, base: u32, lines: Vec<Line>) {
        let (inode, modified) = self.stamp(plan);
        let id = self.next();
        self.last_base = self.last_base.max(base);
        self.folder.files.push(Held { id, base, rotated: 0, packing: Packing::Plain, lines, inode, modified });
        self.folder.sort();
    }

    fn behind(&self) -> u32 {
        let last = self.folder.files.last().map_or(49_900, |last| last.base);
        100 + if Part::ReusedNames.is_lived() { last } else { last.max(self.last_base) }
    }

    /// The last file grows; if there is none, there is one now.
    fn grow(&mut self, plan: &FilesPlan, lines: Vec<Line>) {
        let modified = self.tick();
        match self.folder.files.last_mut() {
            Some(last) => {
                last.lines.extend(lines);
                last.modified = modified;
            }
            None => self.add_file(plan, self.behind(), lines),
        }
    }

    /// A base before or among the others.
    fn base_at(&self, at: u8) -> Option<u32> {
        let mut bases: Vec<u32> = self.folder.files.iter().map(|file| file.base).collect();
        bases.dedup();
        let at = usize::from(at) % bases.len().max(1);
        let behind = *bases.get(at)?;
        let before = if at == 0 { behind - 100 } else { bases[at - 1] };
        let between = before.midpoint(behind);
        (between != before && between != behind).then_some(between)
    }

    fn chosen(&self, file: u8) -> Option<usize> {
        (!self.folder.files.is_empty()).then(|| usize::from(file) % self.folder.files.len())
    }

    fn remove(&mut self, at: usize) -> Held {
        let file = self.folder.files.remove(at);
        self.free_inodes.push(file.inode);
        file
    }

    /// The first files that have gone back to what they were get new times, unless those are kept too.
    pub fn go_back(&mut self, plan: &FilesPlan, mut to: Folder) {
        if !plan.keeps_times {
            let changed = to.changed_since(&self.folder);
            for file in to.files.iter_mut().filter(|file| changed.contains(&file.name())) {
                file.modified = self.tick();
            }
        }
        self.folder = to;
    }

    /// Does it; none if it cannot be done here.
    pub fn apply(&mut self, plan: &FilesPlan, step: &Step) -> Option<()> {
        match step {
            Step::Block(gap, events) => {
                let lines = self.new_block(*gap, events);
                self.grow(plan, lines);
            }
            Step::NewFile(gap, events) => {
                let lines = self.new_block(*gap, events);
                self.add_file(plan, self.behind(), lines);
            }
            Step::More(event, anew) => {
                let (block, parent) = *self.blocks().last()?;
                let line = self.line(block, parent, false, *event);
                if *anew {
                    self.add_file(plan, self.behind(), vec![line]);
                } else {
                    self.grow(plan, vec![line]);
                }
            }
            Step::Late(back, is_low, event) => {
                let (block, parent) = *self.blocks().iter().nth_back(usize::from(*back) + 1)?;
                let line = self.line(block, parent, *is_low, *event);
                self.grow(plan, vec![line]);
            }
            Step::LateFile(at, back, between, events) => self.late_file(plan, (*at, *back, *between), events)?,
            Step::Insert(file, at, event) => {
                let file = self.chosen(*file)?;
                let at = usize::from(*at) % self.folder.files[file].lines.len().max(1);
                let next = *self.folder.files[file].lines.get(at).filter(|line| line.has_block())?;
                let line = self.line(next.block, next.parent, true, *event);
                self.folder.files[file].lines.insert(at, line);
                self.folder.files[file].modified = self.tick();
            }
            Step::Bad(at, lines) => self.bad(plan, *at, *lines)?,
            Step::NoRegion(region) => {
                let (block, parent) = *self.blocks().last()?;
                let mut line = self.line(block, parent, false, (*region, false));
                line.kind = Kind::NoRegion;
                self.grow(plan, vec![line]);
            }
            Step::Run(_) | Step::Fail(..) | Step::Back(_) => return None,
            other => self.rearrange(plan, other)?,
        }
        Some(())
    }

    fn late_file(&mut self, plan: &FilesPlan, (at, back, between): (u8, u8, bool), events: &[Ev]) -> Option<()> {
        let base = self.base_at(at)?;
        let blocks = self.blocks();
        let (mut block, mut parent) = *blocks.iter().nth_back(usize::from(back))?;
        let before = block - 1;
        if between && plan.form.hashes != Hashes::Parent && blocks.iter().all(|(other, _)| *other != before) {
            (block, parent) = (before, 0);
        }
        let lines = events.iter().map(|event| self.line(block, parent, false, *event)).collect();
        self.add_file(plan, base, lines);
        Some(())
    }

    fn bad(&mut self, plan: &FilesPlan, at: u8, count: u8) -> Option<()> {
        let lines = self.bad_lines(count);
        match at {
            0 => self.grow(plan, lines),
            1 => {
                let file = self.chosen(count)?;
                let modified = self.tick();
                let file = &mut self.folder.files[file];
                file.lines.splice(0..0, lines);
                file.modified = modified;
            }
            2 => self.add_file(plan, self.behind(), lines),
            _ => {
                let is_bad = |file: &Held| file.lines.iter().all(|line| !line.has_block());
                let file = self.folder.files.iter().rposition(is_bad)?;
                self.folder.files[file].lines.extend(lines);
                self.folder.files[file].modified = self.tick();
            }
        }
        Some(())
    }

    fn rearrange(&mut self, plan: &FilesPlan, step: &Step) -> Option<()> {
        match step {
            Step::Rotate(packing) => {
                let base = self.folder.files.last()?.base;
                for file in self.folder.files.iter_mut().filter(|file| file.base == base) {
                    file.rotated += 1;
                    if let Some(packing) = packing.filter(|_| file.rotated == 1) {
                        file.packing = packing;
                    }
                }
                self.folder.sort();
                let lines = self.new_block(1, &[(0, false)]);
                self.add_file(plan, base, lines);
            }
            Step::Rename(file) => {
                let at = self.chosen(*file)?;
                let base = self.folder.files[at].base + 1;
                let is_taken = self.folder.files.iter().any(|file| file.base == base);
                let is_alone = self.folder.files.iter().filter(|file| file.base + 1 == base).count() == 1;
                (!is_taken && is_alone).then(|| self.folder.files[at].base = base)?;
            }
            Step::Move(file, to) => {
                let (at, base) = (self.chosen(*file)?, self.base_at(*to)?);
                (self.folder.files[at].base, self.folder.files[at].rotated) = (base, 0);
                self.folder.sort();
            }
            Step::Pack(file, packing) => {
                let at = self.chosen(*file).filter(|at| self.folder.files[*at].packing != *packing)?;
                self.folder.files[at].packing = *packing;
                self.renew(plan, at);
            }
            Step::Touch(file) => {
                let at = self.chosen(*file)?;
                self.folder.files[at].modified = self.tick();
            }
            Step::Rewrite(file) => {
                let at = self.chosen(*file)?;
                self.renew(plan, at);
            }
            Step::Copy(file, packing) => {
                let copied = self.folder.files[self.chosen(*file)?].lines.clone();
                self.add_file(plan, self.behind(), copied);
                self.folder.files.last_mut()?.packing = *packing;
            }
            other => self.cut(plan, other)?,
        }
        Some(())
    }

    /// A new file takes the place of an old one.
    fn renew(&mut self, plan: &FilesPlan, at: usize) {
        let (inode, modified) = self.stamp(plan);
        let file = &mut self.folder.files[at];
        self.free_inodes.push(file.inode);
        (file.inode, file.modified) = (inode, modified);
    }

    fn cut(&mut self, plan: &FilesPlan, step: &Step) -> Option<()> {
        match step {
            Step::Split(file, at) => {
                let file = self.chosen(*file)?;
                let next = self.folder.files.get(file + 1).map_or(u32::MAX, |next| next.base);
                let Held { base, ref lines, rotated, .. } = self.folder.files[file];
                let at = usize::from(*at) % lines.len().max(1);
                if at == 0 || rotated > 0 || base + 1 >= next {
                    return None;
                }
                let rest = self.folder.files[file].lines.split_off(at);
                self.folder.files[file].modified = self.tick();
                self.add_file(plan, base + 1, rest);
            }
            Step::Join(file) => {
                let at = self.chosen(*file).filter(|at| at + 1 < self.folder.files.len())?;
                let next = self.remove(at + 1);
                self.folder.files[at].lines.extend(next.lines);
                self.folder.files[at].modified = self.tick();
            }
            Step::DeleteOldest | Step::Delete(_) => {
                let at = if let Step::Delete(file) = step { self.chosen(*file)? } else { self.chosen(0)? };
                let removed = self.remove(at);
                self.removed.push(removed);
            }
            Step::Return => {
                let file = self.removed.pop()?;
                let is_taken = self.folder.files.iter().any(|other| other.key() == file.key());
                let is_there = self.folder.lines().any(|line| file.lines.contains(line));
                (!is_taken && !is_there).then(|| self.folder.files.push(file))?;
                self.folder.sort();
            }
            Step::CutOff(file, lines) => {
                let at = self.chosen(*file)?;
                let left = self.folder.files[at].lines.len().saturating_sub(usize::from(*lines)).max(1);
                self.folder.files[at].lines.truncate(left);
                self.folder.files[at].modified = self.tick();
            }
            Step::DeleteLine(file, line) | Step::ChangeLine(file, line) => {
                let at = self.chosen(*file)?;
                let line = usize::from(*line) % self.folder.files[at].lines.len().max(1);
                let n = self.next();
                let lines = &mut self.folder.files[at].lines;
                if let Step::DeleteLine(..) = step {
                    (lines.len() > 1).then(|| lines.remove(line))?;
                } else {
                    lines.get_mut(line)?.n = n;
                }
                self.folder.files[at].modified = self.tick();
            }
            _ => return None,
        }
        Some(())
    }
}
