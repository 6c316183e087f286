//! Reads by column.
//!
//! | a column of type | compares in SQLite as |
//! |---|---|
//! | `text`, `bytes`, `bigint`, `double`, `boolean` | SQLite compares it, by its index |
//! | `timestamptz` | text without the Z at its end, by its index: then the shorter text is the earlier time. Only years before 0 are compared as times |
//! | `numeric` | a number, by reading the region: SQLite has no exact numbers, and keeps them as texts |

use std::cmp::Ordering;

use rusqlite::{CachedStatement, Connection};

use crate::model::numeric::Numeric;
use crate::model::query::{Comparison, Condition, Query};
use crate::model::schema::{Column, Entity};
use crate::model::timestamp::Timestamp;
use crate::model::value::{ColumnType, Value};
use crate::store::sql::quoted;

/// Compares texts as the numbers that they hold.
const NUMERIC: &str = "forebay_numeric";
/// Compares texts as the times that they hold.
const TIME: &str = "forebay_time";

/// Makes a connection know how numbers and times compare.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.create_collation(NUMERIC, compare::<Numeric>)?;
    connection.create_collation(TIME, compare::<Timestamp>)
}

/// What is none comes first: it was not written by this program.
fn compare<T: std::str::FromStr + Ord>(a: &str, b: &str) -> Ordering {
    a.parse::<T>().ok().cmp(&b.parse::<T>().ok())
}

/// What an index over a column orders by.
pub(super) fn key(column: &Column) -> String {
    match column.kind {
        ColumnType::Timestamptz => format!("rtrim({}, 'Z')", quoted(&column.name)),
        _ => quoted(&column.name),
    }
}

/// The name of the index over a column.
pub(super) fn index_name(entity: &Entity, column: &Column) -> String {
    // Times are kept as texts, and another index than that of the texts orders them.
    let kind = if column.kind == ColumnType::Timestamptz { ".time" } else { "" };
    quoted(&format!("{}.{}{kind}", entity.name, column.name))
}

/// What tells SQLite by which index to look for rows: without statistics it takes a region for small, and goes through all
/// of it by its key.
pub(super) fn index_hint(entity: &Entity, query: &Query) -> Option<String> {
    let is_served = |condition: &&Condition| {
        entity.columns[condition.column].kind != ColumnType::Numeric && !is_before_zero(&condition.value)
    };
    let equal = |condition: &&Condition| condition.comparison == Comparison::Equal;
    let served = || query.conditions.iter().filter(is_served);
    let by_condition = served().find(equal).or_else(|| served().next()).filter(|_| query.order.is_none());
    by_condition.map(|condition| format!(" INDEXED BY {}", index_name(entity, &entity.columns[condition.column])))
}

fn is_before_zero(value: &Value) -> bool {
    matches!(value, Value::Timestamptz(time) if time.to_string().starts_with('-'))
}

/// The conditions of a query; parameter 1 is the region.
pub(super) fn conditions(entity: &Entity, query: &Query) -> String {
    let text = |(at, condition): (usize, &Condition)| {
        let column = &entity.columns[condition.column];
        let (name, comparison, at) = (quoted(&column.name), condition.comparison.text(), at + 2);
        match column.kind {
            ColumnType::Numeric => format!(" AND {name} {comparison} ?{at} COLLATE {NUMERIC}"),
            ColumnType::Timestamptz if is_before_zero(&condition.value) => {
                format!(" AND {name} {comparison} ?{at} COLLATE {TIME}")
            }
            _ => format!(" AND {} {comparison} ?{at}", key(column)),
        }
    };
    query.conditions.iter().enumerate().map(text).collect()
}

/// How many parameters region and conditions take.
pub(super) fn parameters(query: &Query) -> usize {
    query.conditions.len() + 1
}

/// What follows on `… WHERE region = ?1` in the statements whose answers together hold the first rows of a query.
pub(super) fn parts(entity: &Entity, query: &Query) -> Vec<String> {
    let conditions = conditions(entity, query);
    let limit = query.limit.map_or_else(String::new, |limit| format!(" LIMIT {limit}"));
    let Some(order) = query.order else { return vec![format!("{conditions} ORDER BY \"id\"{limit}")] };
    let column = &entity.columns[order.column];
    let name = quoted(&column.name);
    let direction = if order.is_descending { " DESC" } else { "" };
    let part = |which: &str, by: &str| format!("{conditions}{which} ORDER BY {by}{direction}, \"id\"{limit}");
    let mut parts = match column.kind {
        ColumnType::Numeric => vec![part(&format!(" AND {name} IS NOT NULL"), &format!("{name} COLLATE {NUMERIC}"))],
        ColumnType::Timestamptz => {
            let key = key(column);
            vec![
                part(&format!(" AND {key} >= '0'"), &key),
                part(&format!(" AND {key} < '0'"), &format!("{name} COLLATE {TIME}")),
            ]
        }
        _ => vec![part(&format!(" AND {name} IS NOT NULL"), &name)],
    };
    // A condition on the column leaves no nulls.
    if query.conditions.iter().all(|condition| condition.column != order.column) {
        parts.push(format!("{conditions} AND {name} IS NULL ORDER BY \"id\"{limit}"));
    }
    parts
}

/// Binds the region and the values of the conditions.
pub(super) fn bind(statement: &mut CachedStatement<'_>, region: &str, query: &Query) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(1, region)?;
    for (at, Condition { value, .. }) in query.conditions.iter().enumerate() {
        let at = at + 2;
        match value {
            Value::Null => statement.raw_bind_parameter(at, rusqlite::types::Null)?,
            Value::Text(text) | Value::Jsonb(text) => statement.raw_bind_parameter(at, &**text)?,
            Value::Boolean(value) => statement.raw_bind_parameter(at, i64::from(*value))?,
            Value::Bigint(value) => statement.raw_bind_parameter(at, value)?,
            Value::Double(value) => statement.raw_bind_parameter(at, value)?,
            Value::Numeric(value) => statement.raw_bind_parameter(at, value.to_string())?,
            Value::Bytes(bytes) => statement.raw_bind_parameter(at, &**bytes)?,
            Value::Timestamptz(time) => {
                let text = time.to_string();
                let text = if is_before_zero(value) { text.as_str() } else { text.trim_end_matches('Z') };
                statement.raw_bind_parameter(at, text)?;
            }
        }
    }
    Ok(())
}
