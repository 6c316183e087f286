//! What a target is: a place where readers look for snapshots.
//!
//! The publish thread of a run knows this trait and nothing of what is behind it. Redis implements it
//! ([`super::RedisTarget`]); a program may implement it for a place of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Publication;
use crate::model::timestamp::Timestamp;
#[cfg(feature = "redis")]
use crate::redis::Unreached;
use crate::store::StoredSnapshot;

/// A place where readers look for snapshots.
///
/// It holds the newest snapshot of each region, by the number that the store gave it, and takes no older one over a newer
/// one. What it is given may be there already: after a lost answer, a crash or a refresh it is given again, so publishing
/// twice must change nothing.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use forebay::publish::{Delivery, Known, Patience, Publication, PublishError, PublishReceipt, PublishStatus, Target};
///
/// /// Keeps the newest snapshot of each region in memory.
/// #[derive(Default)]
/// struct InMemory(BTreeMap<String, Publication>);
///
/// impl Target for InMemory {
///     fn name(&self) -> &str {
///         "memory"
///     }
///
///     fn publish(&mut self, items: &[Publication], _: Patience) -> Delivery {
///         let put = |item: &Publication| match self.0.get(&*item.region) {
///             Some(there) if there.seq > item.seq => PublishReceipt::of(there, Ok(PublishStatus::Stale)),
///             Some(there) if there == item => PublishReceipt::of(there, Ok(PublishStatus::Duplicate)),
///             _ => {
///                 self.0.insert(item.region.to_string(), item.clone());
///                 PublishReceipt::of(item, Ok(PublishStatus::Published))
///             }
///         };
///         Delivery::of(items.iter().map(put).collect())
///     }
///
///     fn read_known(&mut self) -> Result<(), PublishError> {
///         Ok(())
///     }
///
///     fn known(&self, region: &str) -> Option<Known> {
///         self.0.get(region).map(|there| Known::new(there.seq, there.block))
///     }
/// }
/// ```
pub trait Target: Send {
    /// How it is called in messages.
    fn name(&self) -> &str;

    /// Publishes at most one snapshot of each region, each decided for itself. Blocks, but not for ever.
    fn publish(&mut self, items: &[Publication], patience: Patience) -> Delivery;

    /// Is told the signature of the store that publishes, before anything else, so that a target which serves several can
    /// tell them apart. Does not block. Defaults to nothing.
    fn sign(&mut self, signature: &str) {
        let _ = signature;
    }

    /// Makes sure that [`Target::known`] can answer. Called again until it succeeds. May block.
    ///
    /// # Errors
    /// [`PublishError::Away`] if nothing can be published now; [`PublishError::OtherStore`] if nothing may be published
    /// here; else another one, and regions are tried all the same.
    fn read_known(&mut self) -> Result<(), PublishError>;

    /// The newest snapshot of a region that the target is known to have: as read, and as published since. Does not block.
    fn known(&self, region: &str) -> Option<Known>;

    /// Whether what it has was published by another store, which this one takes over from: then numbers that are equal say
    /// nothing. Does not block. Defaults to false.
    fn is_of_other(&self) -> bool {
        false
    }

    /// Brings up to date what the target says of all regions together, if it says anything. Called after each publish, so
    /// what is costly need not be done every time; `is_last` is true at the end of a run. Returns what went wrong. May
    /// block. Defaults to nothing.
    fn flush_summary(&mut self, is_last: bool) -> Option<String> {
        let _ = is_last;
        None
    }

    /// How long it keeps a snapshot. One that was published longer than a third of that ago is published again, which has
    /// only to begin its time anew. Defaults to none: for ever.
    fn ttl(&self) -> Option<Duration> {
        None
    }
}

/// Is told of regions: the region's newest snapshot, none if it has none, or why it could not be read.
pub type TellRegion<'a> = dyn FnMut(&str, Result<Option<StoredSnapshot>, PublishError>) + Send + 'a;

/// Reads back what is published there under one pipeline's name: what readers see.
pub trait TargetReader: Send {
    /// How the target is called in messages.
    fn name(&self) -> &str;

    /// The newest snapshots of those regions, or of all that the target knows, ordered as given or by name. Blocks.
    ///
    /// # Errors
    /// The target does not answer.
    fn latest(&self, regions: &[String]) -> Result<LatestInTarget, PublishError>;

    /// The newest snapshots of those regions, each handed to `tell` in their order, as soon as it and all before it are
    /// there. Blocks.
    ///
    /// # Errors
    /// The target does not answer; then nothing was told.
    fn latest_in_order(&self, regions: &[String], tell: &mut TellRegion<'_>) -> Result<(), PublishError>;

    /// The signature of the store that publishes under this name; none if none has signed. Blocks.
    ///
    /// # Errors
    /// The target does not answer.
    fn signature(&self) -> Result<Option<String>, PublishError>;

    /// A region's snapshots, newest first, no older than `since`. Blocks.
    ///
    /// # Errors
    /// The target does not answer.
    fn history(
        &self,
        region: &str,
        limit: usize,
        since: Option<Timestamp>,
    ) -> Result<Vec<StoredSnapshot>, PublishError>;

    /// The snapshot of that id. Blocks.
    ///
    /// # Errors
    /// The target does not answer.
    fn show(&self, id: &str) -> Result<Option<StoredSnapshot>, PublishError>;
}

/// The newest snapshots that a target has.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LatestInTarget {
    /// The snapshots.
    pub found: Vec<StoredSnapshot>,
    /// Regions that could not be read, and why.
    pub refused: Vec<(String, PublishError)>,
    /// The signature of the store that has published each region, where one has signed.
    pub signatures: BTreeMap<String, String>,
}

/// Whether a publish waits for servers that are away but may come back soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It does: there is no other try soon.
    Wait,
    /// It does not, and is tried again.
    Skip,
}

/// The newest snapshot of a region that a target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Known {
    /// Its number.
    pub seq: u64,
    /// The block as of which it was computed, if that is known.
    pub block: Option<i64>,
}

impl Known {
    /// A snapshot of that number, and as of that block, if it is known.
    pub fn new(seq: u64, block: Option<i64>) -> Self {
        Self { seq, block }
    }
}

/// What came of a publish.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Delivery {
    /// What became of each snapshot.
    pub receipts: Vec<PublishReceipt>,
    /// Why nothing can be published now; none if the failures are those of single regions.
    pub away: Option<String>,
    /// What went wrong beside the regions.
    pub warning: Option<String>,
}

impl Delivery {
    /// A delivery to a target that is there or away as a whole: it is away if it did not answer for some region and nothing
    /// shows that it took any.
    pub fn of(receipts: Vec<PublishReceipt>) -> Self {
        let is_taken = |receipt: &PublishReceipt| {
            matches!(receipt.outcome, Ok(PublishStatus::Published | PublishStatus::Duplicate))
        };
        let mut causes = receipts.iter().filter_map(|receipt| receipt.outcome.as_ref().err());
        let cause = causes.find(|error| error.is_away()).map(PublishError::to_string);
        let away = cause.filter(|_| !receipts.iter().any(is_taken));
        Self { receipts, away, warning: None }
    }
}

/// What became of a snapshot that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishStatus {
    /// It is the newest of its region now.
    Published,
    /// The newest has the same content; its time to live begins anew.
    Duplicate,
    /// A newer one is there already.
    Stale,
}

/// What became of one region's snapshot.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PublishReceipt {
    /// The region.
    pub region: Arc<str>,
    /// The id of what is the region's newest now; of what was to be published, if it failed.
    pub id: String,
    /// The number of what is the region's newest now, as [`PublishReceipt::id`].
    pub seq: u64,
    /// The block of what is the region's newest now, if that is known.
    pub block: Option<i64>,
    /// What became of it.
    pub outcome: Result<PublishStatus, PublishError>,
    /// How long after the beginning of the publish the answer came.
    pub took: Duration,
}

impl PublishReceipt {
    /// A receipt that names `newest`: the snapshot that was published, or the one that was there.
    pub fn of(newest: &Publication, outcome: Result<PublishStatus, PublishError>) -> Self {
        Self {
            region: Arc::clone(&newest.region),
            id: newest.id.clone(),
            seq: newest.seq,
            block: newest.block,
            outcome,
            took: Duration::ZERO,
        }
    }
}

/// Why a region's snapshot was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The target does not answer, or lets nobody in: it says nothing of this region.
    #[error("{target}: {cause}")]
    Away {
        /// Which server.
        target: String,
        /// What went wrong.
        cause: String,
    },
    /// The target refused this snapshot.
    #[error("{0}")]
    Refused(String),
    /// The document cannot be published as it is.
    #[error("{0}")]
    Document(String),
    /// The system gives no threads to publish with.
    #[error("cannot start the threads that publish: {0}")]
    Threads(String),
    /// The lock of who seeds was lost: another one may have taken it.
    #[error("the lock was lost while the command ran, so nothing was published")]
    Unlocked,
    /// Another store has signed what is there, and was not to be replaced.
    #[error("{0}")]
    OtherStore(Box<OtherStore>),
}

/// Two stores that publish under one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "another store publishes to {target} under the name {pipeline} (store {theirs}; this one is {ours}). If this one is to \
     replace it, give --take-over; else give one of the two pipelines another name"
)]
#[non_exhaustive]
pub struct OtherStore {
    /// Which server.
    pub target: String,
    /// The name under which both publish.
    pub pipeline: String,
    /// The signature that is there.
    pub theirs: String,
    /// The signature of the store that was to be published.
    pub ours: String,
}

impl PublishError {
    /// Whether the server is at fault and not the snapshot.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

#[cfg(feature = "redis")]
impl From<Unreached> for PublishError {
    fn from(Unreached { target, cause }: Unreached) -> Self {
        Self::Away { target, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_away_if_it_took_nothing_and_did_not_answer() {
        let item = Publication {
            region: "a".into(),
            id: "a.1".into(),
            seq: 1,
            block: None,
            time: Timestamp::MIN,
            hash: String::new(),
            doc: "{}".into(),
            follows_rollback: false,
        };
        let away = || Err(PublishError::Away { target: "t".into(), cause: "gone".into() });
        let refused = || Err(PublishError::Refused("no".into()));
        for (outcomes, expected) in [
            (vec![], None),
            (vec![refused()], None),
            (vec![refused(), away()], Some("t: gone")),
            (vec![Ok(PublishStatus::Stale), away()], Some("t: gone")),
            (vec![Ok(PublishStatus::Duplicate), away()], None),
            (vec![away(), Ok(PublishStatus::Published)], None),
        ] {
            let receipts = outcomes.into_iter().map(|outcome| PublishReceipt::of(&item, outcome)).collect();
            let delivery = Delivery::of(receipts);
            assert_eq!(delivery.away.as_deref(), expected, "{:?}", delivery.receipts);
        }
    }
}
