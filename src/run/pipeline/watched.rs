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
        let redis = self.snapshots.url.as_ref().map(ToString::to_string);
        let target = self.target.as_ref().map(|target| target.name().to_owned()).or(redis);
        Watched {
            pipeline: self.name.clone(),
            meter: self.meter.clone(),
            source: plain(&self.source_name()).into_owned(),
            follows: self.follow,
            until: self.until,
            entities: self.schema.entities().iter().map(|entity| entity.name.clone()).collect(),
            store: self.store_url.clone().filter(|_| self.store.is_none()),
            target,
            ttl: self.snapshots.ttl,
        }
    }

    fn source_name(&self) -> String {
        if self.source.is_some() {
            return "a source of the program".into();
        }
        if let Some(path) = &self.source_path {
            return if path == "-" { "standard input".into() } else { path.clone() };
        }
        let command = self.command.as_ref().and_then(|plan| plan.command.first());
        let redis = self.redis_stream.as_ref().map(|plan| format!("{} {}", plan.url, plan.stream));
        let kafka = self.kafka.as_ref().map(|plan| format!("kafka {} {}", plan.servers, plan.topic));
        command.cloned().or(redis).or(kafka).unwrap_or_else(|| "none".into())
    }
}
