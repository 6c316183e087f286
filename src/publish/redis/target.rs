//! Redis as a run's publish thread sees it.

use std::time::{Duration, Instant};

use super::outcome::Extent;
use super::publisher::Publisher;
use crate::publish::{Delivery, Known, Patience, Publication, PublishError, PublishPlan, Target};

/// A summary of more regions than this is written no more often than that.
const SUMMARY_REGIONS_MAX: usize = 1000;
const SUMMARY_STEP: Duration = Duration::from_secs(10);

/// One Redis server, or a cluster, as a target.
pub struct RedisTarget {
    publisher: Publisher,
    /// When the summary was written last.
    flushed_at: Option<Instant>,
}

impl RedisTarget {
    /// Makes the threads. Connects to nothing yet.
    ///
    /// # Errors
    /// The keys do not work on a cluster, a certificate cannot be read, or the system gives no threads.
    pub fn new(plan: PublishPlan) -> Result<Self, PublishError> {
        Ok(Self { publisher: Publisher::new(plan)?, flushed_at: None })
    }
}

impl Target for RedisTarget {
    fn name(&self) -> &str {
        "Redis"
    }

    fn publish(&mut self, items: &[Publication], patience: Patience) -> Delivery {
        self.publisher.set_patient(patience == Patience::Wait);
        let published = self.publisher.publish(items, Extent::Part);
        let warning = published.warning.into_iter().chain(published.untold).reduce(|a, b| format!("{a}; {b}"));
        let delivery = Delivery { warning, ..Delivery::of(published.receipts) };
        // Of a cluster, servers that are well go on.
        match published.is_unreachable || !self.publisher.is_cluster() {
            true => delivery,
            false => Delivery { away: None, ..delivery },
        }
    }

    fn sign(&mut self, signature: &str) {
        self.publisher.sign(signature);
    }

    fn read_known(&mut self) -> Result<(), PublishError> {
        match self.publisher.read_summary() {
            // The summary's server is away; those of the regions may be well.
            Err(error) if error.is_away() && self.publisher.is_cluster() => {
                Err(PublishError::Refused(error.to_string()))
            }
            read => read,
        }
    }

    fn known(&self, region: &str) -> Option<Known> {
        self.publisher.known(region).map(|(seq, block)| Known { seq, block })
    }

    fn is_of_other(&self) -> bool {
        self.publisher.takes_over()
    }

    fn flush_summary(&mut self, is_last: bool) -> Option<String> {
        let is_small = self.publisher.summary_len() <= SUMMARY_REGIONS_MAX;
        if !is_last && !is_small && self.flushed_at.is_some_and(|at| at.elapsed() <= SUMMARY_STEP) {
            return None;
        }
        self.flushed_at = Some(Instant::now());
        self.publisher.flush_summary()
    }

    fn ttl(&self) -> Option<Duration> {
        Some(self.publisher.plan().ttl)
    }
}
