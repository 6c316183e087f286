//! The keys of a topic of Kafka in `[source]`.

use std::path::Path;

use serde_json::Value as Json;

use super::ConfigError;
use super::reading::{Item, Section};
use super::stream::{Beside, read_block};
use crate::source::{EntryBlock, KafkaPlan, Late};

/// Keys that only a topic has.
const OF_TOPICS: [&str; 2] = ["topic", "partition"];
/// Where the servers stand among the settings.
const SERVERS: &str = "bootstrap.servers";
/// What `kafka` may be.
const EXPECTED: &str = "servers such as \"host:9092\", or a table [source.kafka] of settings with bootstrap.servers";

/// The topic that is to be read, if there is one.
pub(super) fn read_kafka(
    section: &mut Section<'_, '_>,
    beside: &Beside<'_, '_, '_>,
) -> Result<Option<KafkaPlan>, ConfigError> {
    let Some(at) = section.optional("kafka") else {
        for key in OF_TOPICS {
            if let Some(value) = section.optional(key) {
                let message = format!("{key} belongs to a topic of Kafka: expected kafka = \"HOST:PORT\" too");
                return Err(value.key_error(message));
            }
        }
        return Ok(None);
    };
    let other = [(beside.has_path, "a path"), (section.has("redis"), "a Redis stream")];
    if let Some((_, other)) = other.iter().find(|(is_there, _)| *is_there) {
        return Err(at.key_error(format!("kafka: there is {other} too; expected one of them")));
    }
    if beside.has_format {
        return Err(at.key_error("kafka: a record holds one event, and format is for files; take format out"));
    }
    if beside.late == Late::Replay {
        return Err(at.key_error("kafka: late = \"replay\" is for files; expected \"error\" or \"skip\""));
    }
    if let Some(position) = section.optional("position") {
        return Err(position
            .key_error("position: the position in a topic of Kafka is the offset of a record; take position out"));
    }
    let topic = section.required("topic", "the name of the topic")?;
    let plan = read_servers(&at, &topic.non_empty()?, beside.folder)?;
    let plan = match section.optional("partition") {
        Some(value) => plan.with_partition(value.integer()?).map_err(|error| value.error(error))?,
        None => plan,
    };
    let block = beside.block.map_or(Ok(EntryBlock::Field), read_block)?;
    if let Some(seq) = beside.seq.filter(|_| block == EntryBlock::Time) {
        return Err(seq.key_error("seq: with block = \"@time\" the offset of a record is its place; take seq out"));
    }
    Ok(Some(plan.with_block(block).with_follow(beside.follows)))
}

/// The servers, alone or among settings of librdkafka.
fn read_servers(at: &Item<'_, '_>, topic: &str, folder: &Path) -> Result<KafkaPlan, ConfigError> {
    if !at.is_table() {
        return KafkaPlan::new(at.text_or(EXPECTED)?, topic).map_err(|error| at.error(error));
    }
    let mut settings = Vec::new();
    flatten("", at, &mut settings)?;
    let servers = settings.iter().find(|(name, _)| name == SERVERS);
    let servers = servers.ok_or_else(|| at.key_error(format!("kafka: expected {EXPECTED}")))?.1.text()?;
    let mut plan = KafkaPlan::new(servers, topic).map_err(|error| at.key_error(error))?;
    for (name, value) in settings.iter().filter(|(name, _)| name != SERVERS) {
        let text = match value.json()? {
            Json::String(text) if is_file(name, &text) => folder.join(text).to_string_lossy().into_owned(),
            Json::String(text) => text,
            other => other.to_string(),
        };
        plan = plan.with_setting(name, text).map_err(|error| value.key_error(error))?;
    }
    Ok(plan)
}

/// Settings by their whole names: without quotes, `ssl.ca.location` is a table in a table in a table.
fn flatten<'d, 't>(
    before: &str,
    table: &Item<'d, 't>,
    into: &mut Vec<(String, Item<'d, 't>)>,
) -> Result<(), ConfigError> {
    for (key, value) in table.pairs("a table of settings of librdkafka")? {
        let name = if before.is_empty() { key } else { format!("{before}.{key}") };
        if value.is_table() {
            flatten(&name, &value, into)?;
        } else {
            into.push((name, value));
        }
    }
    Ok(())
}

/// Whether a setting names a file, which is taken from the pipeline file's folder.
fn is_file(name: &str, value: &str) -> bool {
    let is_location = name.starts_with("ssl.") && name.ends_with(".location") || name == "sasl.kerberos.keytab";
    is_location && value != "probe"
}
