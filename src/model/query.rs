//! Reads by column: conditions, an order and a limit over the rows of one region.
//!
//! One meaning everywhere: in memory, in SQLite and in Postgres. Texts and bytes compare byte by byte, false is less than
//! true. Null matches no condition, and comes last in either order. Ties are ordered by id.

use std::cmp::Ordering;
use std::fmt::Write as _;

use crate::model::value::{ColumnType, Row, Value};

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

impl Comparison {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Equal, Self::Less, Self::AtMost, Self::Greater, Self::AtLeast];

    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }

    /// Whether it holds for a value that compares so with the condition's.
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
        }
    }
}

/// A condition on a column.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Condition {
    /// The place of the column in the row.
    pub column: usize,
    /// How it compares.
    pub comparison: Comparison,
    /// With what; not null.
    pub value: Value,
}

/// The order of the rows that are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OrderBy {
    /// The place of the column in the row.
    pub column: usize,
    /// The largest first.
    pub is_descending: bool,
}

/// A read by column.
#[derive(Clone, Debug, PartialEq, Default)]
#[non_exhaustive]
pub struct Query {
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// None: by id.
    pub order: Option<OrderBy>,
    /// Rows at most.
    pub limit: Option<usize>,
}

/// Whether rows can be found and ordered by a column of this type.
pub fn has_order(kind: ColumnType) -> bool {
    kind != ColumnType::Jsonb
}

/// Two values of one column; none if one of them is null.
pub fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) | (Value::Jsonb(a), Value::Jsonb(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Value::Boolean(a), Value::Boolean(b)) => Some(a.cmp(b)),
        (Value::Bigint(a), Value::Bigint(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Numeric(a), Value::Numeric(b)) => Some(a.cmp(b)),
        (Value::Timestamptz(a), Value::Timestamptz(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Two values of one column in ascending order, null last.
pub fn compare_nulls_last(a: &Value, b: &Value) -> Ordering {
    compare(a, b).unwrap_or_else(|| (*a == Value::Null).cmp(&(*b == Value::Null)))
}

impl Query {
    /// Whether a row is one that is looked for.
    pub fn matches(&self, row: &Row) -> bool {
        self.conditions.iter().all(|condition| {
            let found = row.get(condition.column).and_then(|value| compare(value, &condition.value));
            found.is_some_and(|ordering| condition.comparison.holds(ordering))
        })
    }

    /// Which of two rows comes first.
    pub fn compare_rows(&self, a: (&str, &Row), b: (&str, &Row)) -> Ordering {
        let by_column = self.order.map_or(Ordering::Equal, |OrderBy { column, is_descending }| {
            let (Some(left), Some(right)) = (a.1.get(column), b.1.get(column)) else { return Ordering::Equal };
            match compare(left, right) {
                Some(ordering) if is_descending => ordering.reverse(),
                Some(ordering) => ordering,
                None => compare_nulls_last(left, right),
            }
        });
        by_column.then_with(|| a.0.as_bytes().cmp(b.0.as_bytes()))
    }

    /// A text that is the same for the same query, whatever its limit.
    pub fn key(&self) -> String {
        let mut key = String::new();
        for Condition { column, comparison, value } in &self.conditions {
            // Writing to a text does not fail.
            let _ = write!(key, "{column}{}{value:?} ", comparison.text());
        }
        if let Some(OrderBy { column, is_descending }) = self.order {
            let _ = write!(key, "{}{column}", if is_descending { '-' } else { '+' });
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Option<i64>) -> Row {
        Box::new([value.map_or(Value::Null, Value::Bigint)])
    }

    #[test]
    fn null_matches_nothing_and_comes_last_in_either_order() {
        let condition = |comparison| Condition { column: 0, comparison, value: Value::Bigint(5) };
        for comparison in Comparison::ALL {
            let query = Query { conditions: vec![condition(comparison)], ..Query::default() };
            assert!(!query.matches(&row(None)));
            let expected = [4, 5, 6].map(|value: i64| comparison.holds(value.cmp(&5)));
            assert_eq!([4, 5, 6].map(|value| query.matches(&row(Some(value)))), expected);
        }
        for is_descending in [false, true] {
            let query = Query { order: Some(OrderBy { column: 0, is_descending }), ..Query::default() };
            let mut rows =
                [("d", row(None)), ("a", row(Some(1))), ("c", row(Some(2))), ("b", row(Some(2))), ("0", row(None))];
            rows.sort_by(|a, b| query.compare_rows((a.0, &a.1), (b.0, &b.1)));
            let expected = if is_descending { ["b", "c", "a", "0", "d"] } else { ["a", "b", "c", "0", "d"] };
            assert_eq!(rows.map(|(id, _)| id), expected);
        }
    }
}
