//! Which topic is read, and how its records become events.

use std::collections::BTreeMap;
use std::fmt;

use super::Driver;
use crate::model::setting::SettingError;
use crate::source::EntryBlock;

/// Settings of librdkafka that are ours, and why.
const OURS: [(&str, &str); 14] = [
    ("bootstrap.servers", "the servers stand in kafka = \"HOST:PORT,…\""),
    ("metadata.broker.list", "the servers stand in kafka = \"HOST:PORT,…\""),
    ("enable.auto.commit", "it is false: the group is told only of what is in the database"),
    ("auto.commit.interval.ms", "the group is told only of what is in the database"),
    ("enable.auto.offset.store", "it is false: the group is told only of what is in the database"),
    ("isolation.level", "it is read_committed: what a producer has taken back is no event"),
    ("auto.offset.reset", "it is error: records that are gone unread stop the run"),
    ("enable.partition.eof", "it is true: the end of the partition is where a run ends"),
    ("check.crcs", "it is true: a record that was damaged stops the run"),
    ("client.rack", "the leader of the partition is read: only it knows the end"),
    ("allow.auto.create.topics", "it is false: reading makes no topics"),
    ("partition.assignment.strategy", "one partition is read, the one of the key partition"),
    ("plugin.library.paths", "no foreign code is loaded"),
    ("test.mock.num.brokers", "it is for tests of librdkafka"),
];

/// A partition of a topic of Kafka as a source.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaPlan {
    /// Servers to ask first: `HOST:PORT`, with commas between them.
    pub servers: String,
    /// The topic.
    pub topic: String,
    /// The partition. Defaults to the only one of the topic.
    pub partition: Option<i32>,
    /// What the block of a record is. Defaults to the event's field.
    pub block: EntryBlock,
    /// Whether it is read on at its end. Defaults to no.
    pub follows: bool,
    settings: BTreeMap<String, String>,
    pub(super) driver: Driver,
}

impl KafkaPlan {
    /// A plan with everything at its default.
    ///
    /// # Errors
    /// There are no servers, or it is no name of a topic. The build has no Kafka.
    pub fn new(servers: impl Into<String>, topic: impl Into<String>) -> Result<Self, SettingError> {
        let (servers, topic) = (SettingError::unless_empty("kafka", servers)?, topic.into());
        let is_name = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(is_name) {
            return Err(SettingError::new(format!(
                "topic: expected up to 249 letters, digits, \".\", \"_\" and \"-\", got {topic:?}"
            )));
        }
        let (partition, block, settings, driver) = (None, EntryBlock::default(), BTreeMap::new(), Driver::new()?);
        Ok(Self { servers, topic, partition, block, follows: false, settings, driver })
    }

    /// The partition.
    ///
    /// # Errors
    /// It is below 0, or no number of a partition.
    pub fn with_partition(self, partition: i64) -> Result<Self, SettingError> {
        let number = i32::try_from(partition).ok().filter(|number| *number >= 0);
        let number = number.ok_or_else(|| {
            SettingError::new(format!("partition: expected the number of a partition, from 0, got {partition}"))
        })?;
        Ok(Self { partition: Some(number), ..self })
    }

    /// What the block of a record is.
    #[must_use]
    pub fn with_block(self, block: EntryBlock) -> Self {
        Self { block, ..self }
    }

    /// Whether it is read on at its end.
    #[must_use]
    pub fn with_follow(self, follows: bool) -> Self {
        Self { follows, ..self }
    }

    /// Passes a setting to librdkafka.
    ///
    /// # Errors
    /// It is one of ours, or librdkafka does not know it or its value.
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Result<Self, SettingError> {
        let name = name.into();
        // librdkafka takes a setting of the topic under both names.
        let known = name.strip_prefix("topic.").unwrap_or(&name);
        if let Some((_, why)) = OURS.iter().find(|(ours, _)| *ours == known) {
            return Err(SettingError::new(format!("{name}: it cannot be set: {why}")));
        }
        self.settings.insert(name, value.into());
        self.driver.check(&self)?;
        Ok(self)
    }

    /// The settings that librdkafka is given, by their names.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The consumer group that is told what is committed, if one is set.
    pub fn group(&self) -> Option<&str> {
        self.settings.get("group.id").map(String::as_str).filter(|group| !group.is_empty())
    }

    /// The number of the partition that is read.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only Kafka reads one"))]
    pub(super) fn number(&self) -> i32 {
        self.partition.unwrap_or(0)
    }

    /// How it is called in messages.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only Kafka has any"))]
    pub(super) fn name(&self) -> String {
        format!("kafka {} {}/{}", self.servers, self.topic, self.number())
    }
}

impl fmt::Debug for KafkaPlan {
    /// Values of settings may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaPlan")
            .field("servers", &self.servers)
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("block", &self.block)
            .field("follows", &self.follows)
            .field("settings", &self.settings.keys())
            .finish_non_exhaustive()
    }
}
