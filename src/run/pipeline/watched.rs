//! What of a pipeline is shown while it runs.

use std::time::Duration;

use super::Pipeline;
use crate::model::text::plain;
use crate::run::meter::Meter;
use crate::store::StoreUrl;

/// A pipeline as those see it who watch its run: its live numbers, and what of its settings they show.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Watched {
    /// Its name.
    pub pipeline: String,
    /// The live numbers of its run.
    pub meter: Meter,
    /// Its source, in a few words.
    pub source: String,
    /// Whether it goes on at the end of its source.
    pub follows: bool,
    /// The block behind which it ends, if one was given.
    pub until: Option<i64>,
    /// Its tables, in the order of [`crate::Meter::rows_by_entity`].
    pub entities: Vec<String>,
    /// Where it stores; none in a store of the program's own.
    pub store: Option<StoreUrl>,
    /// Where it publishes, if anywhere.
    pub target: Option<String>,
    /// For how long a snapshot counts as fresh.
    pub ttl: Duration,
}

impl Pipeline {
    /// What is shown of it while it runs. To be asked before [`Pipeline::run`].
    pub fn watched(&self) -> Watched {
        // Whether handlers make snapshots is known when they are loaded: later.
        let url = self.snapshots.url.as_ref().map(ToString::to_string);
        let target = self.target.as_ref().map(|target| target.name().to_owned()).or(url);
        let source = match &self.source {
            Some(_) => "a source of the program".to_owned(),
            None => self.source_config.name(),
        };
        Watched {
            pipeline: self.name.clone(),
            meter: self.meter.clone(),
            source: plain(&source).into_owned(),
            follows: self.source_config.follow,
            until: self.until,
            entities: self.schema.entities().iter().map(|entity| entity.name.clone()).collect(),
            store: self.url_of_store().cloned(),
            target,
            ttl: self.snapshots.ttl,
        }
    }
}
