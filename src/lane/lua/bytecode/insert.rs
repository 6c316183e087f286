//! Instructions put between others: jumps, lines and locals go along.

use std::collections::BTreeMap;

use super::dump::Function;
use super::op::{jump_target, jump_to};

/// What is put in, by the instruction before which or behind which it stands.
#[derive(Default)]
pub(super) struct Insertions {
    before: BTreeMap<usize, Vec<u32>>,
    behind: BTreeMap<usize, Vec<u32>>,
}

impl Insertions {
    /// A jump to the instruction comes to these first.
    pub(super) fn before(&mut self, at: usize, words: impl IntoIterator<Item = u32>) {
        self.before.entry(at).or_default().extend(words);
    }

    /// A jump to the next instruction passes these by.
    pub(super) fn behind(&mut self, at: usize, words: impl IntoIterator<Item = u32>) {
        self.behind.entry(at).or_default().extend(words);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.behind.is_empty()
    }

    /// Puts all of it in; none, and nothing is changed, if a jump becomes too long.
    pub(super) fn put_in(&self, function: &mut Function) -> Option<()> {
        if self.is_empty() {
            return Some(());
        }
        let (mut code, mut lines) = (Vec::new(), Vec::new());
        // Where a jump to each instruction leads now, and where the instruction itself is.
        let (mut starts, mut places) = (Vec::new(), Vec::new());
        for (at, word) in function.code.iter().enumerate() {
            starts.push(code.len());
            code.extend(self.before.get(&at).into_iter().flatten());
            places.push(code.len());
            code.push(*word);
            code.extend(self.behind.get(&at).into_iter().flatten());
            if let Some(line) = function.lines.get(at) {
                lines.resize(code.len(), *line);
            }
        }
        starts.push(code.len());
        for (at, word) in function.code.iter().enumerate() {
            if let Some(target) = jump_target(at, *word) {
                let target = *starts.get(usize::try_from(target).ok()?)?;
                let place = *places.get(at)?;
                *code.get_mut(place)? = jump_to(place, *word, target)?;
            }
        }
        let place = |place: usize| starts.get(place).copied();
        let places = function.locals.iter().map(|local| Some((place(local.first)?, place(local.last)?)));
        let places = places.collect::<Option<Vec<_>>>()?;
        for (local, place) in function.locals.iter_mut().zip(places) {
            (local.first, local.last) = place;
        }
        (function.code, function.lines) = (code, lines);
        Some(())
    }
}
