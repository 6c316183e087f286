//! What a batch needs to know about a round of events.

use std::sync::Arc;

use crate::model::ids::{BlockNo, RegionNo};

/// What a round adds to the open batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RoundSummary {
    pub(crate) events: u64,
    /// Blocks that begin in the round.
    pub(crate) new_blocks: u64,
    pub(crate) first_block: BlockNo,
    pub(crate) last_block: BlockNo,
    /// Events of the last block that are in the round.
    pub(crate) last_block_events: u64,
    /// The blocks in order, and the events of each that are in the round.
    pub(crate) blocks: Vec<(BlockNo, u64)>,
}

/// The lanes of a round, as a batch sees them: one lane is one region's events, in order.
pub(crate) trait LaneBlocks {
    /// How many lanes there are.
    fn lanes(&self) -> usize;
    /// The region of a lane.
    fn region(&self, lane: usize) -> RegionNo;
    /// Its name.
    fn name(&self, lane: usize) -> &Arc<str>;
    /// How many events a lane has.
    fn events(&self, lane: usize) -> usize;
    /// The block of one of them.
    fn block(&self, lane: usize, event: usize) -> Option<BlockNo>;
}
