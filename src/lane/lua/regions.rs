//! The regions that the inner side knows, and those that it has let go of.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::model::ids::RegionNo;

/// What an entry takes: number, name, and the room that a table keeps free.
const ENTRY_BYTES: usize = 48;

/// The regions of one engine. There may be a million of them in a run, of which few are known at a time.
#[derive(Debug, Default)]
pub(super) struct KnownRegions {
    names: HashMap<RegionNo, Arc<str>, FixedState>,
    /// A bit for each region that was let go of.
    gone: Vec<u64>,
}

impl KnownRegions {
    /// The name of a region that is known.
    pub(super) fn name(&self, region: RegionNo) -> Option<&Arc<str>> {
        self.names.get(&region)
    }

    /// Notes that the inner side knows it from now on; whether it did not yet.
    pub(super) fn know(&mut self, region: RegionNo, name: &Arc<str>) -> bool {
        if self.names.contains_key(&region) {
            return false;
        }
        self.names.insert(region, Arc::clone(name));
        true
    }

    /// Notes that the inner side has let go of it.
    pub(super) fn forget(&mut self, region: RegionNo) {
        self.names.remove(&region);
        if self.names.capacity() > 1024 && self.names.len() * 8 < self.names.capacity() {
            self.names.shrink_to(self.names.len() * 2);
        }
        let (word, bit) = (region.index() / 64, region.index() % 64);
        if self.gone.len() <= word {
            self.gone.resize(word + 1, 0);
        }
        self.gone[word] |= 1 << bit;
    }

    /// Whether it was let go of before.
    pub(super) fn was_known(&self, region: RegionNo) -> bool {
        let (word, bit) = (region.index() / 64, region.index() % 64);
        self.gone.get(word).is_some_and(|word| word & (1 << bit) != 0)
    }

    /// Bytes of memory it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.names.capacity() * ENTRY_BYTES + self.gone.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_that_was_let_go_of_comes_back_as_one_that_was_known() {
        let (mut regions, name) = (KnownRegions::default(), Arc::from("north"));
        for region in [RegionNo::from(3), RegionNo::from(300)] {
            assert!(regions.know(region, &name) && !regions.know(region, &name));
            assert!(!regions.was_known(region));
            regions.forget(region);
            assert_eq!((regions.name(region), regions.was_known(region)), (None, true));
            assert!(regions.know(region, &name));
        }
        assert!(!regions.was_known(RegionNo::from(4)));
    }

    #[test]
    fn what_is_gone_takes_little() {
        let (mut regions, name) = (KnownRegions::default(), Arc::from("north"));
        for number in 0..100_000 {
            regions.know(RegionNo::from(number), &name);
        }
        for number in 0..100_000 {
            regions.forget(RegionNo::from(number));
        }
        assert!(regions.memory_bytes() < 200_000, "{}", regions.memory_bytes());
    }
}
