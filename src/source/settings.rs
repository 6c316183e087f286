//! What a pipeline says of its source, and the source that it means.
//!
//! `run` hands these settings on whole: a new key of `[source]` or `[regions]` is one of this room and of `config`.

use std::sync::Arc;
use std::time::Duration;

use super::{
    CommandPlan, CommandSource, End, Fields, Format, InputSource, KafkaPlan, KafkaTopic, Late, RedisStream,
    RedisStreamPlan, Source, SourceError,
};
use crate::model::field_type::FieldTypes;
use crate::model::setting::SettingError;

/// Where events come from and which of their fields say where they belong.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SourceConfig {
    /// A file, a glob, a folder, or `-`; none if it comes from elsewhere. Before all else that is given.
    pub path: Option<String>,
    /// How bytes are cut into events. Defaults to one JSON object a line.
    pub format: Format,
    /// A program whose output is read. Defaults to none.
    pub command: Option<CommandPlan>,
    /// A Redis stream. Defaults to none.
    pub redis: Option<RedisStreamPlan>,
    /// A topic of Kafka. Defaults to none.
    pub kafka: Option<KafkaPlan>,
    /// The fields that say where an event belongs. Default to `block` and `region`.
    pub places: Fields,
    /// `[source.fields]`: the types of fields. Defaults to none.
    pub fields: Arc<FieldTypes>,
    /// What to do with an event whose place has passed. Defaults to an error.
    pub late: Late,
    /// Whether the last block of the source is whole, or may go on in the next run. Defaults to whole.
    pub end: End,
    /// Whether the run goes on when the source is at its end, and waits for more. Defaults to no.
    pub follow: bool,
    /// For how long no event may have come until the last block counts as whole, while the source is followed. Defaults
    /// to none: a block is whole when the next one begins, or when a line says so.
    pub settle: Option<Duration>,
    /// The field of the event's time, to show how far the run is behind its source. Defaults to none.
    pub time: Option<String>,
}

/// What is told where late events of a followed source are to be put in their place.
const REPLAY_FOLLOWED: &str = "late = \"replay\" reads a source to its end, and one that is followed has none: expected \
                               \"error\" or \"skip\", or a run without --follow";

impl SourceConfig {
    /// # Errors
    /// No source is like that.
    pub(crate) fn check(&self) -> Result<(), SettingError> {
        match self.follow && self.late == Late::Replay {
            true => Err(SettingError::new(REPLAY_FOLLOWED)),
            false => Ok(()),
        }
    }

    /// Whether it says where events come from.
    pub(crate) fn names_a_source(&self) -> bool {
        self.path.is_some() || self.command.is_some() || self.redis.is_some() || self.kafka.is_some()
    }

    /// Whether the source may have no more events and not say so.
    pub(crate) fn may_wait_for_ever(&self) -> bool {
        self.follow && (self.path.is_some() || self.command.is_none())
    }

    /// Whether it is read from a server, and not from files or a program.
    pub(crate) fn waits_for_server(&self) -> bool {
        self.redis.is_some() || self.kafka.is_some()
    }

    /// Where events come from, to be told from another place. Kept by stores: a new kind of source adds a line only where
    /// it is given, so that what others have made counts as theirs.
    pub(crate) fn stamp(&self) -> String {
        let Self { path, command, redis, kafka, .. } = self;
        let path = path.as_ref();
        let (command, redis) = (command.as_ref().filter(|_| path.is_none()), redis.as_ref().filter(|_| path.is_none()));
        format!("{path:?}\n{command:?}\n{redis:?}\n{:?}", kafka.as_ref().filter(|_| path.is_none()))
    }

    /// The source in a few words; no password is in it.
    pub(crate) fn name(&self) -> String {
        if let Some(path) = &self.path {
            return if path == "-" { "standard input".into() } else { path.clone() };
        }
        let command = self.command.as_ref().and_then(|plan| plan.command.first());
        let redis = self.redis.as_ref().map(|plan| format!("{} {}", plan.url, plan.stream));
        let kafka = self.kafka.as_ref().map(|plan| format!("kafka {} {}", plan.servers, plan.topic));
        command.cloned().or(redis).or(kafka).unwrap_or_else(|| "none".into())
    }

    /// The source; none if there is none to open. Blocks while files are looked for; connects to nothing yet.
    ///
    /// # Errors
    /// A file is not there, or cannot be read.
    pub(crate) fn open(&self) -> Result<Option<Box<dyn Source>>, SourceError> {
        let (format, places) = (self.format, self.places.clone());
        if let Some(path) = &self.path {
            // A pipe is followed where silence ends its blocks.
            let follows = self.follow || (path == "-" && self.settle.is_some());
            return Ok(Some(Box::new(match follows {
                true => InputSource::follow(path, format, places, self.late)?,
                false => InputSource::open(path, format, places)?,
            })));
        }
        if let Some(plan) = self.command.clone() {
            return Ok(Some(Box::new(CommandSource::new(plan, format, places, self.follow))));
        }
        if let Some(plan) = self.redis.clone() {
            return Ok(Some(Box::new(RedisStream::new(plan.with_follow(self.follow), places))));
        }
        let kafka = self.kafka.clone().map(|plan| KafkaTopic::new(plan.with_follow(self.follow), places));
        Ok(kafka.map(|topic| Box::new(topic) as Box<dyn Source>))
    }

    /// The types of fields. What CSV has no value for is an empty text.
    pub(crate) fn field_types(&self) -> Arc<FieldTypes> {
        match self.format {
            Format::Csv(_) => Arc::new(FieldTypes::clone(&self.fields).with_empty_as_null()),
            _ => Arc::clone(&self.fields),
        }
    }
}

/// Which regions there are.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RegionsConfig {
    /// The closed list of regions. Defaults to none: any region is taken.
    pub ids: Option<Vec<String>>,
    /// A region that every event also runs in. Defaults to none.
    pub all: Option<String>,
}

impl RegionsConfig {
    /// A closed list of regions: an event of another one is refused.
    ///
    /// # Errors
    /// The list is empty, a name is, or one is given twice.
    pub fn with_ids(self, ids: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, SettingError> {
        let ids: Vec<String> = ids.into_iter().map(Into::into).collect();
        check_region_list(&ids)?;
        Ok(Self { ids: Some(ids), ..self })
    }

    /// A region that every event also runs in.
    ///
    /// # Errors
    /// The name is empty.
    pub fn with_all(self, region: impl Into<String>) -> Result<Self, SettingError> {
        Ok(Self { all: Some(SettingError::unless_empty("all", region)?), ..self })
    }
}

fn check_region_list(ids: &[String]) -> Result<(), SettingError> {
    if ids.is_empty() {
        return Err(SettingError::new("ids: expected at least one region; leave the key out to take any"));
    }
    if ids.iter().any(String::is_empty) {
        return Err(SettingError::new("ids: a region's name may not be empty"));
    }
    match ids.iter().enumerate().find(|(at, id)| ids[..*at].contains(id)) {
        Some((_, twice)) => Err(SettingError::new(format!("ids: region {twice:?} is given twice"))),
        None => Ok(()),
    }
}
