//! Stands for a Redis stream as a source in a build without the cargo feature `redis`.

#[path = "redis/plan.rs"]
mod plan;

use std::convert::Infallible;

pub use plan::{EntryBlock, RedisStreamPlan};

use super::{Fields, Next, Source, SourceError, SourceEvent};

/// Events from a Redis stream. This build has no Redis, so there is no value of it.
pub struct RedisStream(Infallible);

impl RedisStream {
    /// Connects to nothing yet.
    pub fn new(plan: RedisStreamPlan, _: Fields) -> Self {
        plan.url.absurd()
    }
}

impl Source for RedisStream {
    fn next(&mut self, _: &mut SourceEvent) -> Result<Next, SourceError> {
        match self.0 {}
    }
}
