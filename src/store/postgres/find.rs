//! Reads by column: one statement for all queries that differ in their region and values only.
//!
//! Parameter 1 is the limit (of a search) or the ids that do not count (of a count); then come arrays with one element for
//! each query: its place, its region, and its values.

use postgres::types::Type;

use super::binary::{RawArray, types_of};
use crate::model::query::{Condition, Query};
use crate::model::schema::{Column, Entity};
use crate::model::value::ColumnType;
use crate::store::RegionQuery;
use crate::store::sql::quoted;

/// A column as its index orders it: texts byte by byte.
fn key(column: &Column) -> String {
    let collation = if column.kind == ColumnType::Text { " COLLATE \"C\"" } else { "" };
    format!("t.{}{collation}", quoted(&column.name))
}

/// The queries as a table.
fn queries(entity: &Entity, query: &Query) -> String {
    let mut arrays = String::from("unnest($2::int4[], $3::text[]");
    let mut names = String::from("n, region");
    for (at, Condition { column, .. }) in query.conditions.iter().enumerate() {
        let (kind, _) = types_of(entity.columns[*column].kind);
        arrays.push_str(&format!(", ${}::{}[]", at + 4, kind.name()));
        names.push_str(&format!(", v{at}"));
    }
    format!("{arrays}) k ({names})")
}

fn conditions(entity: &Entity, query: &Query) -> String {
    let text = |(at, Condition { column, comparison, .. }): (usize, &Condition)| {
        format!(" AND {} {} k.v{at}", key(&entity.columns[*column]), comparison.text())
    };
    query.conditions.iter().enumerate().map(text).collect()
}

/// The statement of a search. `select` is what it reads.
pub(super) fn shape(entity: &Entity, query: &Query, select: &str) -> String {
    let rows = format!("{select} WHERE t.\"region\" = k.region{}", conditions(entity, query));
    let first = match query.order {
        None => format!("{rows} ORDER BY t.\"id\" LIMIT $1"),
        Some(order) => {
            let key = key(&entity.columns[order.column]);
            let direction = if order.is_descending { " DESC" } else { "" };
            let first = format!("({rows} AND {key} IS NOT NULL ORDER BY {key}{direction}, t.\"id\" LIMIT $1)");
            match query.conditions.iter().any(|condition| condition.column == order.column) {
                // A condition on the column leaves no nulls.
                true => first,
                false => format!("{first} UNION ALL ({rows} AND {key} IS NULL ORDER BY t.\"id\" LIMIT $1)"),
            }
        }
    };
    format!("SELECT k.n, t.* FROM {}, LATERAL ({first}) t", queries(entity, query))
}

/// The statement of a count.
pub(super) fn count(entity: &Entity, query: &Query, table: &str) -> String {
    let rows = format!("{table} t ON t.\"region\" = k.region{}", conditions(entity, query));
    let queries = queries(entity, query);
    format!(
        "SELECT (SELECT count(*) FROM {queries} JOIN {rows})
           - (SELECT count(*) FROM unnest($1::text[]) i (id) CROSS JOIN {queries} JOIN {rows} AND t.\"id\" = i.id)"
    )
}

/// The array parameters of queries of one shape, and their types.
pub(super) fn arrays<'q>(entity: &Entity, wanted: impl Iterator<Item = RegionQuery<'q>>) -> Vec<(RawArray, Type)> {
    let mut arrays = vec![(RawArray::new(Type::INT4), Type::INT4_ARRAY), (RawArray::new(Type::TEXT), Type::TEXT_ARRAY)];
    for (place, RegionQuery { region, query }) in (1_i32..).zip(wanted) {
        arrays[0].0.push_int4(place);
        arrays[1].0.push_text(region);
        for (at, Condition { column, value, .. }) in query.conditions.iter().enumerate() {
            if arrays.len() == at + 2 {
                let (kind, array) = types_of(entity.columns[*column].kind);
                arrays.push((RawArray::new(kind), array));
            }
            arrays[at + 2].0.push_value(value);
        }
    }
    arrays
}
