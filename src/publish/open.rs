//! Which target an address names, and opening it.

use super::redis::{self, RedisSnapshots, RedisTarget};
use super::target::{PublishError, Target, TargetReader};
use super::{PublishPlan, TargetUrl};
use crate::model::finding::Finding;

/// Opens a target to publish to it. Connects to nothing yet.
///
/// # Errors
/// The keys do not work there, a certificate cannot be read, or the system gives no threads.
pub fn open(plan: PublishPlan) -> Result<Box<dyn Target>, PublishError> {
    match plan.url {
        TargetUrl::Redis(_) => Ok(Box::new(RedisTarget::new(plan)?)),
    }
}

/// Opens a target to read snapshots from it. Connects to nothing yet.
///
/// # Errors
/// A certificate cannot be read.
pub fn open_reader(plan: PublishPlan) -> Result<Box<dyn TargetReader>, PublishError> {
    match plan.url {
        TargetUrl::Redis(_) => Ok(Box::new(RedisSnapshots::new(plan)?)),
    }
}

/// Looks at a target as a doctor does: how far it is, whether there is room, what we may do with the keys of `region` (of any
/// region, if it is like others), and whether the way there is safe. Changes nothing. What is wrong is a finding, never an
/// error: a server that cannot be reached is one, and then there are no others. May block, for some seconds where a server
/// does not answer.
pub fn examine(plan: &PublishPlan, region: &str) -> Vec<Finding> {
    match &plan.url {
        TargetUrl::Redis(url) => redis::examine(url, plan, region),
    }
}
