//! How far a pipeline has come.

/// How far the pipeline has come: stored in the transaction of each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Batches committed since the pipeline began: the value that a commit compares and sets.
    pub batch: u64,
    /// The last committed block; none before the first.
    pub block: Option<i64>,
    /// Events of that block.
    pub block_events: u64,
    /// Blocks committed since the pipeline began.
    pub blocks: u64,
    /// Events committed since the pipeline began.
    pub events: u64,
}

impl Checkpoint {
    /// The checkpoint of a pipeline that has committed so many batches, up to a block. The counts are 0.
    pub const fn new(batch: u64, block: Option<i64>) -> Self {
        Self { batch, block, block_events: 0, blocks: 0, events: 0 }
    }

    /// The same with its counts: events of its block, blocks in all, events in all.
    #[must_use]
    pub const fn with_counts(self, block_events: u64, blocks: u64, events: u64) -> Self {
        Self { block_events, blocks, events, ..self }
    }
}
