//! What of its source a pipeline has committed: columns of its own row, and a row a file.

use postgres::types::Type;

use super::fault::Fault;
use super::home::Home;
use super::own::{SHARD, own};
use super::session::Link;
use crate::model::position::Position;
use crate::model::source_progress::{FileStamp, SourceDigest, SourceFile, SourceProgress};
use crate::store::sql::{signed, unsigned};

/// The columns of a file, as a record of JSON has them.
pub(super) const COLUMNS: &str = "name text, bytes bigint, modified bigint, inode bigint, is_whole boolean, \
     first_block bigint, last_block bigint, last_events bigint, last_place bigint, events bigint, late bigint, \
     digest text, content text, tail text";

/// Files as a list of records.
pub(super) fn json(files: &[SourceFile]) -> String {
    let record = |file: &SourceFile| {
        serde_json::json!({
            "name": file.stamp.name, "bytes": signed(file.stamp.bytes), "modified": file.stamp.modified,
            "inode": signed(file.stamp.inode), "is_whole": file.is_whole, "first_block": file.first_block,
            "last_block": file.last_block, "last_events": signed(file.last_events), "last_place": file.last_place,
            "events": signed(file.events), "late": signed(file.late), "digest": file.digest.to_string(),
            "content": file.content.to_string(), "tail": file.tail.map(|tail| tail.to_string()),
        })
    };
    // A name with a NUL cannot be: it is the name of a file.
    serde_json::Value::Array(files.iter().map(record).collect()).to_string()
}

fn digest(text: Option<String>) -> Option<SourceDigest> {
    // What is no digest is not known.
    text.and_then(|text| text.parse().ok())
}

/// What is committed of the source.
pub(super) fn progress(link: &mut Link, pipeline: &str) -> Result<SourceProgress, Fault> {
    let sql = format!(
        "SELECT block, source_digest, block_digest, place, first_block FROM {} WHERE shard = $1",
        own(pipeline, "checkpoint")
    );
    let rows = link.query(&sql, &[(&SHARD, Type::INT4)])?;
    let Some(row) = rows.first() else { return Ok(SourceProgress::START) };
    if row.try_get::<_, Option<i64>>(0)?.is_none() {
        return Ok(SourceProgress::START);
    }
    Ok(SourceProgress::new(digest(row.try_get(1)?), digest(row.try_get(2)?), row.try_get(3)?, row.try_get(4)?))
}

/// The position of the source after the last committed block. A database of an earlier version has none.
pub(super) fn position(link: &mut Link, home: &Home) -> Result<Option<Position>, Fault> {
    let sql = format!("SELECT c.position FROM {} c WHERE c.shard = $1", home.table("checkpoint"));
    let rows = link.query(&sql, &[(&SHARD, Type::INT4)])?;
    let found: Option<String> = rows.first().map_or(Ok(None), |row| row.try_get(0))?;
    // What is no position is not known.
    Ok(found.and_then(|text| Position::new(text).ok()))
}

/// The files that are read.
pub(super) fn files(link: &mut Link, pipeline: &str) -> Result<Vec<SourceFile>, Fault> {
    let sql = format!(
        "SELECT name, bytes, modified, inode, is_whole, first_block, last_block, last_events, last_place, events, late,
           digest, content, tail
         FROM {} WHERE shard = $1 ORDER BY name",
        own(pipeline, "source_files")
    );
    let rows = link.query(&sql, &[(&SHARD, Type::INT4)])?;
    let file = |row: &postgres::Row| {
        Ok(SourceFile {
            stamp: FileStamp::new(
                row.try_get::<_, String>(0)?,
                unsigned(row.try_get(1)?),
                row.try_get(2)?,
                unsigned(row.try_get(3)?),
            ),
            is_whole: row.try_get(4)?,
            first_block: row.try_get(5)?,
            last_block: row.try_get(6)?,
            last_events: unsigned(row.try_get(7)?),
            last_place: row.try_get(8)?,
            events: unsigned(row.try_get(9)?),
            late: unsigned(row.try_get(10)?),
            digest: digest(row.try_get(11)?).unwrap_or_default(),
            content: digest(row.try_get(12)?).unwrap_or_default(),
            tail: row.try_get::<_, Option<String>>(13)?.and_then(|text| text.parse().ok()),
        })
    };
    rows.iter().map(file).collect()
}
