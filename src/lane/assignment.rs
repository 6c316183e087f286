//! Which engine handles which region: the same one for as long as the run lasts.

use crate::model::ids::RegionNo;

/// No engine yet.
const NONE: u16 = u16::MAX;

/// The engine of each region. A new region goes to the engine that has had the fewest events.
#[derive(Debug)]
pub(crate) struct Assignment {
    engine_of: Vec<u16>,
    events: Vec<u64>,
}

impl Assignment {
    /// An assignment to that many engines.
    pub(crate) fn new(engines: usize) -> Self {
        Self { engine_of: Vec::new(), events: vec![0; engines.max(1)] }
    }

    /// The engine of a region that has `events` more to handle.
    pub(crate) fn engine_for(&mut self, region: RegionNo, events: u64) -> usize {
        let at = region.index();
        if self.engine_of.len() <= at {
            self.engine_of.resize(at + 1, NONE);
        }
        if self.engine_of[at] == NONE {
            self.engine_of[at] = self.events.iter().zip(0..NONE).min().map_or(0, |(_, engine)| engine);
        }
        let engine = usize::from(self.engine_of[at]);
        self.events[engine] += events;
        engine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_stays_where_it_is_and_a_new_one_goes_to_the_idlest() {
        let mut assignment = Assignment::new(2);
        assert_eq!(assignment.engine_for(RegionNo::from(0), 100), 0);
        assert_eq!(assignment.engine_for(RegionNo::from(1), 10), 1);
        assert_eq!(assignment.engine_for(RegionNo::from(2), 10), 1);
        assert_eq!(assignment.engine_for(RegionNo::from(1), 500), 1);
        assert_eq!(assignment.engine_for(RegionNo::from(3), 1), 0);
        assert_eq!(assignment.engine_for(RegionNo::from(1), 1), 1);
    }
}
