//! The keys of a Redis stream in `[source]`.

use std::path::Path;

use super::ConfigError;
use super::reading::{Item, Section};
use crate::publish::RedisUrl;
use crate::source::{EntryBlock, Late, RedisStreamPlan};

/// Keys that only a stream has.
const OF_STREAMS: [&str; 3] = ["stream", "field", "trim"];

/// What other keys of the section say.
pub(super) struct Beside<'s, 'd, 't> {
    pub(super) folder: &'s Path,
    pub(super) has_path: bool,
    pub(super) has_format: bool,
    pub(super) block: Option<&'s Item<'d, 't>>,
    pub(super) seq: Option<&'s Item<'d, 't>>,
    pub(super) late: Late,
    pub(super) follows: bool,
}

/// The stream that is to be read, if there is one.
pub(super) fn read_stream(
    section: &mut Section<'_, '_>,
    beside: &Beside<'_, '_, '_>,
) -> Result<Option<RedisStreamPlan>, ConfigError> {
    let Some(at) = section.optional("redis") else {
        for key in OF_STREAMS {
            if let Some(value) = section.optional(key) {
                return Err(
                    value.key_error(format!("{key} belongs to a Redis stream: expected redis = \"redis://…\" too"))
                );
            }
        }
        return Ok(None);
    };
    if beside.has_path {
        return Err(at.key_error("redis: there is a path too; expected one of them"));
    }
    if beside.has_format {
        return Err(at.key_error("redis: an entry holds one event, and format is for files; take format out"));
    }
    if beside.late == Late::Replay {
        return Err(at.key_error("redis: late = \"replay\" is for files; expected \"error\" or \"skip\""));
    }
    let url = RedisUrl::parse(&at.text()?, beside.folder).map_err(|error| at.error(error))?;
    let stream = section.required("stream", "the key of the stream")?.non_empty()?;
    let field = section.optional("field").map(|value| value.non_empty()).transpose()?;
    let block = beside.block.map_or(Ok(EntryBlock::Field), read_block)?;
    if let Some(seq) = beside.seq.filter(|_| block == EntryBlock::Time) {
        return Err(seq.key_error("seq: with block = \"@time\" the number in an entry's id is its place; take seq out"));
    }
    if let Some(position) = section.optional("position") {
        return Err(
            position.key_error("position: the position in a Redis stream is the id of an entry; take position out")
        );
    }
    let trims = section.optional("trim").map_or(Ok(false), |value| read_trim(&value))?;
    let plan = RedisStreamPlan::new(url, stream).map_err(|error| at.error(error))?;
    Ok(Some(RedisStreamPlan { field, block, trims, follows: beside.follows, ..plan }))
}

/// What the block of an entry or a record is.
pub(super) fn read_block(value: &Item<'_, '_>) -> Result<EntryBlock, ConfigError> {
    match value.non_empty()?.as_str() {
        "@time" => Ok(EntryBlock::Time),
        "@offset" => Ok(EntryBlock::Offset),
        name if name.starts_with('@') => {
            Err(value.error(format!("block: expected \"@time\", \"@offset\" or the name of a field, got {name:?}")))
        }
        _ => Ok(EntryBlock::Field),
    }
}

fn read_trim(value: &Item<'_, '_>) -> Result<bool, ConfigError> {
    match value.text()?.as_str() {
        "committed" => Ok(true),
        other => Err(value.error(format!("trim: expected \"committed\", got {other:?}"))),
    }
}
