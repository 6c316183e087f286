//! The existence filter: which rows a table may have. It is kept for a table that was empty when the run began, and
//! answers without asking the store that a row that is not cached does not exist.
//!
//! A Bloom filter that grows by layers. It never denies a row that exists. For one that does not, it answers "maybe"
//! once in some hundreds; then the store is asked, or the row is written as one that may exist.

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

/// The rows that one table was given since the run began, or more.
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

    /// A filter for each table that is empty, within a budget of memory.
    pub fn of_tables(is_empty: &[bool], memory_bytes: usize) -> Vec<Option<Self>> {
        let bytes_max = memory_bytes / MEMORY_SHARE / is_empty.len().max(1);
        is_empty.iter().map(|is_empty| is_empty.then(|| Self::new(bytes_max))).collect()
    }

    /// Whether there may be that row; false is certain.
    pub fn may_have(&self, region: RegionNo, id: &str) -> bool {
        self.is_full || self.layers.iter().rev().any(|layer| layer.filter.contains(&(region, id)))
    }

    /// Notes that there is that row.
    pub fn add(&mut self, region: RegionNo, id: &str) {
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

    /// Bytes of memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.filter.num_bits() / 8).sum()
    }
}

/// Decides for each row marked new whether it is: yes without a filter, or if the table `trusts_new`. Notes every
/// written row, because one that is not marked new may never have been noted.
pub(crate) fn is_new(
    known: &mut Option<ExistenceFilter>,
    region: RegionNo,
    trusts_new: bool,
) -> impl FnMut(&str, Change) -> bool + use<'_> {
    move |id, change| {
        let Some(known) = known else { return true };
        let trusts_new = trusts_new && change == Change::New;
        let is_new = trusts_new || !known.may_have(region, id);
        if is_new {
            known.add(region, id);
        }
        is_new
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
