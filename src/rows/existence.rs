//! Which rows a table may have. It is known of a table that was empty when the run began, and of any other one once its
//! ids have been read: a row that is not cached is known not to exist then, without asking the store.
//!
//! Bloom filters that grow by layers. They never deny a row that exists. For one that does not, they answer "maybe"
//! once in some hundreds; then the store is asked, or the row is written as one that may exist.

use std::hash::Hash;
use std::sync::Arc;

use fastbloom::BloomFilter;
use foldhash::fast::FixedState;

use super::codec::Change;
use crate::model::ids::RegionNo;

/// Rows of the first layer; each next one takes four times as many.
const FIRST_ROWS: usize = 4096;
/// Bits for a row: one "maybe" in about 300.
const BITS_A_ROW: usize = 12;

/// The share of the memory that the filters of all tables may take together.
const MEMORY_SHARE: usize = 8;

/// Rows of one table, or more.
#[derive(Debug)]
pub struct ExistenceFilter {
    /// The last one has room.
    layers: Vec<Layer>,
    /// Bytes it may take. When they are used up, it answers that any row may exist.
    bytes_max: usize,
    is_full: bool,
}

#[derive(Debug)]
struct Layer {
    filter: BloomFilter<FixedState>,
    rows: usize,
    left: usize,
}

impl Layer {
    fn new(rows: usize) -> Self {
        let filter = BloomFilter::with_num_bits(rows * BITS_A_ROW);
        Self { filter: filter.hasher(FixedState::default()).expected_items(rows), rows, left: rows }
    }
}

impl ExistenceFilter {
    /// A filter that takes `bytes_max` at most.
    pub fn new(bytes_max: usize) -> Self {
        Self { layers: Vec::new(), bytes_max, is_full: false }
    }

    /// What the filter of one of so many tables may take of a budget of memory.
    pub(crate) fn bytes_max(tables: usize, memory_bytes: usize) -> usize {
        memory_bytes / MEMORY_SHARE / tables.max(1)
    }

    /// Whether there may be that row; false is certain.
    pub fn may_have(&self, region: impl Hash + Copy, id: &str) -> bool {
        self.is_full || self.layers.iter().rev().any(|layer| layer.filter.contains(&(region, id)))
    }

    /// Notes that there is that row.
    pub fn add(&mut self, region: impl Hash, id: &str) {
        if self.is_full {
            return;
        }
        let rows = match self.layers.last_mut() {
            Some(layer) if layer.left > 0 => {
                layer.left -= 1;
                layer.filter.insert(&(region, id));
                return;
            }
            Some(full) => full.rows * 4,
            None => FIRST_ROWS,
        };
        if self.memory_bytes() + rows * BITS_A_ROW / 8 > self.bytes_max {
            (self.layers, self.is_full) = (Vec::new(), true);
            return;
        }
        let mut layer = Layer::new(rows);
        layer.left -= 1;
        layer.filter.insert(&(region, id));
        self.layers.push(layer);
    }

    /// Whether its memory is used up: it answers that any row may exist.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Bytes of memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.filter.num_bits() / 8).sum()
    }
}

/// Which rows one table may have, as an engine knows it.
#[derive(Debug)]
pub(crate) struct KnownRows {
    /// The rows that the engine has written.
    written: ExistenceFilter,
    before: Before,
    /// Rows of which it was not known whether they are new, since it was asked last.
    unknown: u64,
}

/// Which rows a table had when the run began, or more.
#[derive(Debug)]
enum Before {
    None,
    Unknown,
    /// By the names of their regions.
    These(Arc<ExistenceFilter>),
}

impl KnownRows {
    /// What is known of each table when nothing has been read, within a budget of memory.
    pub(crate) fn of_tables(is_empty: &[bool], memory_bytes: usize) -> Vec<Self> {
        let bytes_max = ExistenceFilter::bytes_max(is_empty.len(), memory_bytes);
        let known = |is_empty: &bool| Self {
            written: ExistenceFilter::new(bytes_max),
            before: if *is_empty { Before::None } else { Before::Unknown },
            unknown: 0,
        };
        is_empty.iter().map(known).collect()
    }

    /// Whether it is known which rows the table had.
    pub(crate) fn is_complete(&self) -> bool {
        !matches!(self.before, Before::Unknown)
    }

    /// Takes in which rows the table had, by the names of their regions, when the run had begun: every row that the engine
    /// has not written.
    pub(crate) fn complete(&mut self, before: Arc<ExistenceFilter>) {
        self.before = Before::These(before);
    }

    /// Nothing is known any more: the table may have other rows than those that were written.
    pub(crate) fn forget(&mut self) {
        *self = Self { written: ExistenceFilter::new(self.written.bytes_max), before: Before::Unknown, unknown: 0 };
    }

    /// Whether there may be that row; false is certain.
    pub(crate) fn may_have(&self, region: RegionNo, name: &str, id: &str) -> bool {
        let was_there = match &self.before {
            Before::None => false,
            Before::Unknown => true,
            Before::These(before) => before.may_have(name, id),
        };
        was_there || self.written.may_have(region, id)
    }

    /// Decides for each row marked new whether it is: yes if the table `trusts_new`. One of which nobody knows whether
    /// it was there is new if that `is_guessed`. Notes every written row, because one that is not marked new may never
    /// have been noted.
    pub(crate) fn is_new<'k>(
        &'k mut self,
        region: RegionNo,
        name: &'k str,
        trusts_new: bool,
        is_guessed: bool,
    ) -> impl FnMut(&str, Change) -> bool + use<'k> {
        move |id, change| {
            let is_marked = change == Change::New;
            let is_unknown = is_marked && !trusts_new && !self.is_complete() && !self.written.may_have(region, id);
            self.unknown += u64::from(is_unknown && !is_guessed);
            let is_new = match is_unknown {
                true => is_guessed,
                false => is_marked && trusts_new || !self.may_have(region, name, id),
            };
            if is_new || !self.is_complete() && !self.written.may_have(region, id) {
                self.written.add(region, id);
            }
            is_new
        }
    }

    /// How many rows there were since it was asked last of which it was not known whether they are new.
    #[cfg(feature = "lua")]
    pub(crate) fn take_unknown(&mut self) -> u64 {
        std::mem::take(&mut self.unknown)
    }

    /// Bytes of memory it takes, without what is known of rows that were there before: engines share that.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.written.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_was_added_is_never_denied_and_others_nearly_always_are() {
        let mut known = ExistenceFilter::new(1 << 20);
        assert!(!known.may_have(RegionNo::from(1), "a"));
        for number in 0..100_000 {
            known.add(RegionNo::from(number % 7), &format!("id{number}"));
        }
        assert!((0..100_000).all(|number| known.may_have(RegionNo::from(number % 7), &format!("id{number}"))));
        let wrong = (0..100_000)
            .filter(|number| known.may_have(RegionNo::from(number % 7 + 7), &format!("id{number}")))
            .count();
        assert!(wrong < 2_000, "{wrong} of 100,000");
        assert!(known.memory_bytes() < 100_000 * 8);
    }

    #[test]
    fn a_filter_that_is_full_denies_nothing_and_takes_nothing() {
        let mut known = ExistenceFilter::new(20_000);
        for number in 0..30_000 {
            known.add(RegionNo::from(0), &format!("id{number}"));
        }
        assert!(known.may_have(RegionNo::from(0), "id7") && known.may_have(RegionNo::from(0), "another"));
        assert_eq!(known.memory_bytes(), 0);
    }
}
