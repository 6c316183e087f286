//! Stands for Redis in a build without the cargo feature `redis`: there is no address, so there is nothing to publish to.

#[allow(dead_code, reason = "templates are read and checked, and no key is made of them")]
#[path = "redis/keys.rs"]
mod keys;
#[path = "redis/outcome.rs"]
mod outcome;

use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;

use super::{
    Delivery, Known, LatestInTarget, Patience, Publication, PublishError, PublishPlan, Target, TargetReader, TargetUrl,
    TellRegion,
};
use crate::model::finding::Finding;
use crate::model::timestamp::Timestamp;
use crate::redis::RedisUrl;
use crate::store::StoredSnapshot;

pub use keys::{Keys, KeysError};
pub use outcome::{Extent, KeptRegion, Published};

pub(super) fn examine(url: &RedisUrl, _: &PublishPlan, _: &str) -> Vec<Finding> {
    url.absurd()
}

/// Whatever is made of a plan: there is none.
fn absurd<T>(plan: &PublishPlan) -> T {
    match &plan.url {
        TargetUrl::Redis(url) => url.absurd(),
    }
}

/// Publishes to one server or cluster. This build has no Redis, so there is no value of it.
pub struct Publisher(Infallible);

impl Publisher {
    /// Makes the threads.
    ///
    /// # Errors
    /// Never: there is no plan to give it.
    pub fn new(plan: PublishPlan) -> Result<Self, PublishError> {
        absurd(&plan)
    }

    /// Whether slots that move and servers that are gone are waited for.
    pub fn set_patient(&mut self, _: bool) {
        match self.0 {}
    }

    /// Signs with the signature of the store that publishes.
    pub fn sign(&mut self, _: &str) {
        match self.0 {}
    }

    /// The plan it was made with.
    pub fn plan(&self) -> &PublishPlan {
        match self.0 {}
    }

    /// Publishes at most one snapshot of each region.
    pub fn publish(&mut self, _: &[Publication], _: Extent) -> Published {
        match self.0 {}
    }

    /// Writes the summary.
    pub fn flush_summary(&mut self) -> Option<String> {
        match self.0 {}
    }

    /// Reads the summary.
    ///
    /// # Errors
    /// Never.
    pub fn read_summary(&mut self) -> Result<(), PublishError> {
        match self.0 {}
    }

    /// Regions of which the summary says something.
    pub fn summary_len(&self) -> usize {
        match self.0 {}
    }
}

/// Takes the place of a cron job that computes one document a region. This build has no Redis, so there is no value of it.
pub struct Seeder(Infallible);

/// How a turn began.
pub enum Begun<'s> {
    /// The lock is ours, until the turn ends.
    Turn(SeedTurn<'s>),
    /// Another one has it.
    Held(LockHolder),
}

/// Who has the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockHolder {
    /// Its host and process.
    pub by: String,
    /// Since when.
    pub since: String,
}

impl std::fmt::Display for LockHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.by)
    }
}

/// A turn of who seeds.
pub struct SeedTurn<'s>(Infallible, PhantomData<&'s ()>);

impl Seeder {
    /// Makes the threads.
    ///
    /// # Errors
    /// Never: there is no plan to give it.
    pub fn new(plan: PublishPlan, _: Duration) -> Result<Self, PublishError> {
        absurd(&plan)
    }

    /// The plan it was made with.
    pub fn plan(&self) -> &PublishPlan {
        match self.0 {}
    }

    /// The newest documents that are there.
    ///
    /// # Errors
    /// Never.
    pub fn look(&self) -> Result<LatestInTarget, PublishError> {
        match self.0 {}
    }

    /// Takes the lock and reads what is there.
    ///
    /// # Errors
    /// Never.
    pub fn begin(&mut self) -> Result<Begun<'_>, PublishError> {
        match self.0 {}
    }
}

impl SeedTurn<'_> {
    /// The newest document of each region.
    pub fn previous(&self) -> &[StoredSnapshot] {
        match self.0 {}
    }

    /// Regions that could not be read, and why.
    pub fn refused(&self) -> &[(String, PublishError)] {
        match self.0 {}
    }

    /// Whether the lock was lost.
    pub fn is_lost(&self) -> bool {
        match self.0 {}
    }

    /// Publishes at most one document of each region.
    pub fn publish(self, _: &[Publication], _: bool) -> Published {
        match self.0 {}
    }

    /// Publishes nothing.
    pub fn give_up(self) -> Published {
        match self.0 {}
    }
}

/// One Redis server, or a cluster, as a target. This build has no Redis, so there is no value of it.
pub struct RedisTarget(Infallible);

impl RedisTarget {
    /// Makes the threads.
    ///
    /// # Errors
    /// Never: there is no plan to give it.
    pub fn new(plan: PublishPlan) -> Result<Self, PublishError> {
        absurd(&plan)
    }
}

impl Target for RedisTarget {
    fn name(&self) -> &str {
        match self.0 {}
    }

    fn publish(&mut self, _: &[Publication], _: Patience) -> Delivery {
        match self.0 {}
    }

    fn read_known(&mut self) -> Result<(), PublishError> {
        match self.0 {}
    }

    fn known(&self, _: &str) -> Option<Known> {
        match self.0 {}
    }
}

/// Reads the snapshots of one pipeline. This build has no Redis, so there is no value of it.
pub struct RedisSnapshots(Infallible);

impl RedisSnapshots {
    /// Connects to nothing.
    ///
    /// # Errors
    /// Never: there is no plan to give it.
    pub fn new(plan: PublishPlan) -> Result<Self, PublishError> {
        absurd(&plan)
    }
}

impl TargetReader for RedisSnapshots {
    fn name(&self) -> &str {
        match self.0 {}
    }

    fn latest(&self, _: &[String]) -> Result<LatestInTarget, PublishError> {
        match self.0 {}
    }

    fn latest_in_order(&self, _: &[String], _: &mut TellRegion<'_>) -> Result<(), PublishError> {
        match self.0 {}
    }

    fn signature(&self) -> Result<Option<String>, PublishError> {
        match self.0 {}
    }

    fn history(&self, _: &str, _: usize, _: Option<Timestamp>) -> Result<Vec<StoredSnapshot>, PublishError> {
        match self.0 {}
    }

    fn show(&self, _: &str) -> Result<Option<StoredSnapshot>, PublishError> {
        match self.0 {}
    }
}
