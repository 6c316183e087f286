//! `[source]`: where events come from, and which of their fields say where they belong.

use std::path::Path;

use super::ConfigError;
use super::command::read_command;
use super::field_types::read_field_types;
use super::kafka::read_kafka;
use super::reading::Section;
use super::stream::{Beside, read_stream};
use crate::model::field_type::FieldTypes;
use crate::source::{CommandPlan, Delimiter, End, Fields, Format, KafkaPlan, Late, RedisStreamPlan, SourceConfig};

/// The keys of `[source]`.
pub(super) const SOURCE_KEYS: [&str; 24] = [
    "path",
    "command",
    "start",
    "restart",
    "format",
    "delimiter",
    "redis",
    "stream",
    "field",
    "trim",
    "kafka",
    "topic",
    "partition",
    "block",
    "region",
    "seq",
    "late",
    "end",
    "hash",
    "parent",
    "position",
    "fields",
    "follow",
    "settle",
];

pub(super) fn read_source(
    mut section: Section<'_, '_>,
    folder: &Path,
    rollback_depth: u64,
) -> Result<SourceConfig, ConfigError> {
    let path = section.optional("path").map(|value| value.non_empty()).transpose()?;
    let has_format = section.has("format");
    let format = read_format(&mut section)?;
    let late = read_late(&mut section, rollback_depth)?;
    let has_hash = section.has("hash");
    let follows = read_follow(&mut section, late)?;
    let (block, seq) = (section.optional("block"), section.optional("seq"));
    let (has_path, block_at, seq_at) = (path.is_some(), block.as_ref(), seq.as_ref());
    let beside = Beside { folder, has_path, has_format, block: block_at, seq: seq_at, late, follows };
    let (redis, kafka, command) = read_other(&mut section, &beside)?;
    let places = Fields {
        block: block.map_or_else(|| Ok("block".to_owned()), |value| value.non_empty())?,
        region: section.optional("region").map_or_else(|| Ok("region".to_owned()), |value| value.non_empty())?,
        seq: seq.map(|value| value.non_empty()).transpose()?,
        hash: match section.optional("hash") {
            Some(value) if late == Late::Replay => {
                return Err(value.error(
                    "hash: with hashes a block that differs is a fork; late = \"replay\" is for sources without",
                ));
            }
            value => value.map(|value| value.non_empty()).transpose()?,
        },
        parent: match section.optional("parent") {
            Some(value) if !has_hash => {
                return Err(value.error("parent: it needs hash, the field of the block's own hash"));
            }
            value => value.map(|value| value.non_empty()).transpose()?,
        },
        position: section.optional("position").map(|value| value.non_empty()).transpose()?,
    };
    let config = SourceConfig {
        redis,
        kafka,
        command,
        path: path.map(|path| from_folder(folder, path)),
        format,
        places,
        late,
        end: read_end(&mut section)?,
        follow: follows,
        settle: section.optional("settle").map(|value| value.duration()).transpose()?,
        fields: section
            .optional("fields")
            .map_or_else(|| Ok(FieldTypes::default()), |value| read_field_types(&value))?
            .into(),
    };
    section.finish()?;
    Ok(config)
}

/// Where events come from, if they are in no files.
type Other = (Option<RedisStreamPlan>, Option<KafkaPlan>, Option<CommandPlan>);

fn read_other(section: &mut Section<'_, '_>, beside: &Beside<'_, '_, '_>) -> Result<Other, ConfigError> {
    let kafka = read_kafka(section, beside)?;
    let redis = read_stream(section, beside)?;
    let other = beside.has_path.then_some("a path");
    let other = other.or(redis.as_ref().map(|_| "a Redis stream")).or(kafka.as_ref().map(|_| "a topic of Kafka"));
    let command = read_command(section, other, beside.late)?;
    if let Some(block) = beside.block.filter(|_| redis.is_none() && kafka.is_none())
        && block.text()?.starts_with('@')
    {
        return Err(block.error(
            "block: \"@time\" and \"@offset\" are of a Redis stream or a topic of Kafka; expected the name of a field",
        ));
    }
    Ok((redis, kafka, command))
}

fn read_format(section: &mut Section<'_, '_>) -> Result<Format, ConfigError> {
    let format = match section.optional("format") {
        None => Format::default(),
        Some(value) => Format::from_name(&value.text()?).map_err(|error| value.error(error))?,
    };
    match (section.optional("delimiter"), format) {
        (None, format) => Ok(format),
        (Some(value), Format::Csv(_)) => {
            Delimiter::new(&value.text()?).map(Format::Csv).map_err(|error| value.error(error))
        }
        (Some(value), _) => Err(value.key_error("delimiter: only format = \"csv\" has one")),
    }
}

fn read_follow(section: &mut Section<'_, '_>, late: Late) -> Result<bool, ConfigError> {
    let Some(value) = section.optional("follow") else { return Ok(false) };
    match value.boolean()? {
        true if late == Late::Replay => Err(value.error(
            "follow: late = \"replay\" reads the source to its end, and a followed one has none; expected late = \"error\" or \
             \"skip\", or no follow",
        )),
        follows => Ok(follows),
    }
}

fn read_late(section: &mut Section<'_, '_>, rollback_depth: u64) -> Result<Late, ConfigError> {
    let Some(value) = section.optional("late") else { return Ok(Late::Error) };
    match value.text()?.as_str() {
        "error" => Ok(Late::Error),
        "skip" => Ok(Late::Skip),
        "replay" if rollback_depth == 0 => {
            Err(value.error("late: \"replay\" goes back to before a late event: it needs [rollback] depth"))
        }
        "replay" => Ok(Late::Replay),
        other => Err(value.error(format!("late: expected \"error\", \"skip\" or \"replay\", got {other:?}"))),
    }
}

fn read_end(section: &mut Section<'_, '_>) -> Result<End, ConfigError> {
    let Some(value) = section.optional("end") else { return Ok(End::Complete) };
    match value.text()?.as_str() {
        "complete" => Ok(End::Complete),
        "open" => Ok(End::Open),
        other => Err(value.error(format!("end: expected \"complete\" or \"open\", got {other:?}"))),
    }
}

fn from_folder(folder: &Path, path: String) -> String {
    if path == "-" || folder == Path::new(".") || Path::new(&path).is_absolute() {
        return path;
    }
    // A glob in the name of the folder is not the user's.
    let folder = if path.contains(['*', '?', '[']) {
        glob::Pattern::escape(&folder.to_string_lossy())
    } else {
        folder.to_string_lossy().into_owned()
    };
    Path::new(&folder).join(path).to_string_lossy().into_owned()
}
