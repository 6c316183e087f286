//! How far a pipeline has come.

/// How far the pipeline has come: stored in the transaction of each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
