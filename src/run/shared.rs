//! What the threads of a run share.

use std::sync::Arc;

use crate::lane::LoadStats;
use crate::model::byte_budget::ByteBudget;
use crate::model::limits::read_ahead_bytes;
use crate::publish::PublishStats;
use crate::source::reader::ReadStats;
use crate::timeline::Recorder;

/// What threads of a run share.
pub(super) struct SharedParts {
    pub(super) budget: Arc<ByteBudget>,
    pub(super) read: Arc<ReadStats>,
    pub(super) loads: Arc<LoadStats>,
    pub(super) publish: Arc<PublishStats>,
    pub(super) recorder: Arc<Recorder>,
}

impl SharedParts {
    /// Parts of a run with that memory budget behind batch `batch`.
    pub(super) fn new(memory_bytes: u64, batch: u64) -> Self {
        Self {
            budget: ByteBudget::new(read_ahead_bytes(memory_bytes)),
            read: Arc::default(),
            loads: Arc::default(),
            publish: Arc::default(),
            recorder: Recorder::new(batch),
        }
    }
}
