//! Reads by column: one statement for all queries that differ in their region and values only.
//!
//! Parameter 1 of a search is the limit; then come arrays with one element for each query: its place, its region, and its
//! values. A count has those arrays, and then the same ones with one element for each row that does not count, its id last.

use postgres::types::Type;

use super::binary::{RawArray, types_of};
use crate::model::query::{Condition, Query};
use crate::model::schema::{Column, Entity};
use crate::model::value::ColumnType;
use crate::store::sql::quoted;
use crate::store::{RegionCount, RegionQuery};

/// A column as its index orders it: texts byte by byte.
fn key(column: &Column) -> String {
    let collation = if column.kind == ColumnType::Text { " COLLATE \"C\"" } else { "" };
    format!("t.{}{collation}", quoted(&column.name))
}

/// The queries as a table, of which the first column is parameter `first`; with the ids that do not count if `has_ids`.
fn queries(entity: &Entity, query: &Query, first: usize, has_ids: bool) -> String {
    let mut arrays = format!("unnest(${first}::int4[], ${}::text[]", first + 1);
    let mut names = String::from("n, region");
    for (at, Condition { column, .. }) in query.conditions.iter().enumerate() {
        let (kind, _) = types_of(entity.columns[*column].kind);
        arrays.push_str(&format!(", ${}::{}[]", first + at + 2, kind.name()));
        names.push_str(&format!(", v{at}"));
    }
    if has_ids {
        arrays.push_str(&format!(", ${}::text[]", first + query.conditions.len() + 2));
        names.push_str(", id");
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
    format!("SELECT k.n, t.* FROM {}, LATERAL ({first}) t", queries(entity, query, 2, false))
}

/// The statement of counts: a place and how many, of those that are not zero.
pub(super) fn count(entity: &Entity, query: &Query, table: &str) -> String {
    let rows = format!("JOIN {table} t ON t.\"region\" = k.region{}", conditions(entity, query));
    let all = queries(entity, query, 1, false);
    let but = queries(entity, query, query.conditions.len() + 3, true);
    format!(
        "SELECT n, sum(found)::int8 FROM (
           SELECT k.n, count(*) AS found FROM {all} {rows} GROUP BY k.n
           UNION ALL SELECT k.n, -count(*) FROM {but} {rows} AND t.\"id\" = k.id GROUP BY k.n
         ) c GROUP BY n"
    )
}

/// The array parameters of counts of one shape, and their types.
pub(super) fn count_arrays<'q>(
    entity: &Entity,
    wanted: impl Iterator<Item = RegionCount<'q>> + Clone,
) -> Vec<(RawArray, Type)> {
    let mut all = arrays(entity, (1..).zip(wanted.clone().map(|count| count.of)));
    let each_but =
        || (1..).zip(wanted.clone()).flat_map(|(place, count)| count.but.iter().map(move |_| (place, count.of)));
    let mut but = arrays(entity, each_but());
    // Where no row is left out there is none to make the arrays of values for.
    while but.len() < all.len() {
        let (array, kind) = &all[but.len()];
        but.push((array.emptied(), kind.clone()));
    }
    all.append(&mut but);
    all.push((RawArray::of_texts(wanted.flat_map(|count| count.but.iter().copied())), Type::TEXT_ARRAY));
    all
}

/// The array parameters of queries of one shape, and their types.
pub(super) fn arrays<'q>(
    entity: &Entity,
    wanted: impl Iterator<Item = (i32, RegionQuery<'q>)>,
) -> Vec<(RawArray, Type)> {
    let mut arrays = vec![(RawArray::new(Type::INT4), Type::INT4_ARRAY), (RawArray::new(Type::TEXT), Type::TEXT_ARRAY)];
    for (place, RegionQuery { region, query }) in wanted {
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
