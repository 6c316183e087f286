//! What publishing to Redis comes to: data only.

use std::time::Duration;

use crate::publish::{PublishError, PublishReceipt, PublishStatus};

/// Which regions are handed over for a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extent {
    /// Some of the pipeline's regions; nothing is said of others. The summary is written by [`super::Publisher::flush_summary`].
    Part,
    /// All of them: what the last summary names besides is kept. The summary is written only if `is_clean`: if nothing
    /// had gone wrong before.
    Whole {
        /// Whether nothing had gone wrong before.
        is_clean: bool,
    },
}

/// A region that was not handed over, whose data were kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptRegion {
    /// The region.
    pub region: String,
    /// The id of its newest snapshot.
    pub id: String,
}

/// What came of a publish.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Published {
    /// What became of each snapshot, in the order in which they were handed over.
    pub receipts: Vec<PublishReceipt>,
    /// Regions of the last summary that were not handed over; their time to live began anew.
    pub kept: Vec<KeptRegion>,
    /// Round trips one after another, connecting included: what the distance to the server is multiplied with.
    pub round_trips: u32,
    /// How long it took.
    pub wall: Duration,
    /// Regions of the last summary whose time to live could not begin anew, and why.
    pub unkept: Vec<(String, String)>,
    /// Regions, of documents given by hand, that a store publishes too: its next run replaces the document.
    pub of_stores: Vec<String>,
    /// Why the summary could not be read or written.
    pub warning: Option<String>,
    /// Why those who listen were not told of what was published, and what to do: the user may not. Said once by each
    /// [`super::Publisher`].
    pub untold: Option<String>,
    /// Whether no server answered at all.
    pub is_unreachable: bool,
    /// Whether the lock of who seeds was lost on the way.
    pub is_unlocked: bool,
}

impl Published {
    /// How many snapshots were published.
    pub fn published(&self) -> usize {
        self.count(|outcome| matches!(outcome, Ok(PublishStatus::Published)))
    }

    /// How many were there already.
    pub fn duplicate(&self) -> usize {
        self.count(|outcome| matches!(outcome, Ok(PublishStatus::Duplicate)))
    }

    /// How many are older than what is there, and were not published.
    pub fn stale(&self) -> usize {
        self.count(|outcome| matches!(outcome, Ok(PublishStatus::Stale)))
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.count(Result::is_err)
    }

    fn count(&self, is_counted: impl Fn(&Result<PublishStatus, PublishError>) -> bool) -> usize {
        self.receipts.iter().filter(|receipt| is_counted(&receipt.outcome)).count()
    }
}
