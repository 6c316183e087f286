//! Stands for a topic of Kafka as a source in a build without the cargo feature `kafka`.

#[path = "kafka/plan.rs"]
mod plan;

pub use plan::KafkaPlan;

use super::{Fields, Next, Source, SourceError, SourceEvent};
use crate::model::setting::SettingError;

/// What reads Kafka. This build has none, so there is no value of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driver {}

impl Driver {
    fn new() -> Result<Self, SettingError> {
        Err(SettingError::new("this build has no Kafka; build with --features kafka"))
    }

    fn check(self, _: &KafkaPlan) -> Result<(), SettingError> {
        match self {}
    }
}

/// Events from a topic of Kafka. This build has no Kafka, so there is no value of it.
pub struct KafkaTopic(Driver);

impl KafkaTopic {
    /// Connects to nothing yet.
    pub fn new(plan: KafkaPlan, _: Fields) -> Self {
        match plan.driver {}
    }
}

impl Source for KafkaTopic {
    fn next(&mut self, _: &mut SourceEvent) -> Result<Next, SourceError> {
        match self.0 {}
    }
}
