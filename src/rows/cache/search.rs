//! Reads by column over the row cache.
//!
//! If the table is wholly cached, a query is answered from indexes in memory, which every write maintains. If not, the
//! indexes hold only the rows that changed here, and the store answers for all others, once per query. Rows that did
//! not change here stay the same until they are evicted, so the store's answer is valid until then, whatever commits in
//! between. The two answers are merged, and a row that changed here hides its committed version.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use super::{RowCache, Slot};
use crate::model::limits::{FIND_ROWS_ALL, FIND_ROWS_MORE, FIND_ROWS_TIMES};
use crate::model::query::{Comparison, Query, compare, compare_nulls_last};
use crate::model::value::{Row, Value};

/// A value as an index orders it.
#[derive(Debug, Clone, PartialEq)]
struct Key(Value);

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_nulls_last(&self.0, &other.0)
    }
}

/// An id, or what comes after all ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum IdKey {
    Id(Box<str>),
    End,
}

type Entry = (Key, IdKey);

/// Rows in the order of a column, null last; of no column, in that of their ids.
#[derive(Debug, Clone)]
struct Index {
    column: Option<usize>,
    /// Whether it was made of all rows, or of those that changed.
    is_whole: bool,
    entries: BTreeSet<Entry>,
}

impl Index {
    fn entry(&self, id: &str, row: &Row) -> Entry {
        let value = self.column.and_then(|column| row.get(column)).cloned();
        (Key(value.unwrap_or(Value::Null)), IdKey::Id(id.into()))
    }
}

/// The first rows of a query among those that are committed.
#[derive(Debug, Clone)]
struct Base {
    rows: Vec<(Box<str>, Row)>,
    /// The first one that has not changed here.
    first: usize,
    is_complete: bool,
}

/// How many committed rows match, without those that changed here.
#[derive(Debug, Clone)]
struct Counted {
    query: Query,
    rows: u64,
}

/// The state of reads by column over one table.
#[derive(Debug, Clone, Default)]
pub(super) struct Search {
    indexes: Vec<Index>,
    found: HashMap<String, Base>,
    counted: HashMap<String, Counted>,
    bytes: usize,
}

/// What has to be loaded before a query can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// The whole table, if it is small.
    Table,
    /// The first rows of the query among those that are committed: so many at least, or all.
    Rows(Option<usize>),
    /// The number of committed rows that match.
    Count,
}

/// Bytes that an answer takes beside its key and rows, about.
const ENTRY_BYTES: usize = 256;

impl Search {
    pub(super) fn is_unused(&self) -> bool {
        self.indexes.is_empty() && self.counted.is_empty() && self.found.is_empty()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        // An index holds its keys a second time. A rough measure is enough to evict it in time.
        self.bytes + self.indexes.iter().map(|index| index.entries.len() * 64).sum::<usize>()
    }

    /// Maintains indexes and counts when a row changes. `was_changed` says whether it had changed here before.
    pub(super) fn note(
        &mut self,
        id: &str,
        before: Option<&Row>,
        after: Option<&Row>,
        was_changed: bool,
        is_whole: bool,
    ) {
        for index in &mut self.indexes {
            if let Some(before) = before.filter(|_| was_changed || index.is_whole) {
                let entry = index.entry(id, before);
                index.entries.remove(&entry);
            }
            if let Some(after) = after {
                let entry = index.entry(id, after);
                index.entries.insert(entry);
            }
        }
        if let Some(before) = before.filter(|_| !was_changed && !is_whole) {
            for counted in self.counted.values_mut().filter(|counted| counted.query.matches(before)) {
                counted.rows = counted.rows.saturating_sub(1);
            }
        }
    }
}

impl RowCache {
    /// The first rows of a query, in its order; or what has to be loaded first.
    ///
    /// # Errors
    /// What is lacking.
    pub fn find(&mut self, query: &Query) -> Result<Vec<(Box<str>, Row)>, Lacking> {
        self.is_read = true;
        let limit = query.limit.unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        if self.is_whole {
            return Ok(self.here(query, limit));
        }
        if !self.was_tried {
            return Err(Lacking::Table);
        }
        // Some more than are needed, because rows that change here will be hidden.
        let page = |hidden: usize| {
            let needed = limit.saturating_add(hidden);
            let page = needed.saturating_mul(FIND_ROWS_TIMES).saturating_add(FIND_ROWS_MORE);
            Lacking::Rows(Some(page).filter(|page| *page < FIND_ROWS_ALL))
        };
        let key = query.key();
        if !self.search.found.contains_key(&key) {
            return Err(page(0));
        }
        let here = self.here(query, limit);
        let Some(base) = self.search.found.get(&key) else { return Err(page(0)) };
        // A changed row stays changed until it is evicted: it need not be skipped again.
        let hidden = base.rows[base.first..].iter().take_while(|(id, _)| self.is_changed(id)).count();
        let first = base.first + hidden;
        if hidden > 0
            && let Some(base) = self.search.found.get_mut(&key)
        {
            base.first = first;
        }
        let Some(base) = self.search.found.get(&key) else { return Err(page(0)) };
        let mut theirs = base.rows[first..].iter().filter(|(id, _)| !self.is_changed(id)).peekable();
        let mut mine = here.into_iter().peekable();
        let mut merged = Vec::new();
        while merged.len() < limit {
            let Some(next) = theirs.peek() else {
                if !base.is_complete {
                    return Err(page(base.rows.iter().filter(|(id, _)| self.is_changed(id)).count()));
                }
                match mine.next() {
                    Some(row) => merged.push(row),
                    None => break,
                }
                continue;
            };
            let is_mine = |(id, row): &(Box<str>, Row)| query.compare_rows((id, row), (&next.0, &next.1)).is_lt();
            match mine.next_if(is_mine) {
                Some(row) => merged.push(row),
                None => merged.extend(theirs.next().cloned()),
            }
        }
        Ok(merged)
    }

    /// How many rows match a query, whatever its order and limit; or what has to be loaded first.
    ///
    /// # Errors
    /// What is lacking.
    pub fn count(&mut self, query: &Query) -> Result<u64, Lacking> {
        self.is_read = true;
        if self.is_whole && query.conditions.is_empty() {
            return Ok(self.rows as u64);
        }
        if !self.is_whole && !self.was_tried {
            return Err(Lacking::Table);
        }
        let committed = match self.search.counted.get(&query.key()) {
            _ if self.is_whole => 0,
            Some(counted) => counted.rows,
            None => return Err(Lacking::Count),
        };
        let here = match query.conditions.is_empty() {
            true => {
                let at = self.index(None);
                self.search.indexes[at].entries.len()
            }
            false => self.here(&Query { order: None, ..query.clone() }, usize::MAX).len(),
        };
        Ok(committed + here as u64)
    }

    /// Takes in the first rows of a query among those that are committed, in its order.
    pub fn supply_found(&mut self, query: &Query, rows: Vec<(Box<str>, Row)>, is_complete: bool) {
        for (id, row) in &rows {
            self.supply(id, Some(row.clone()));
            self.search.bytes += super::slot_bytes(id, Some(row));
        }
        let key = query.key();
        self.search.bytes += key.len() + ENTRY_BYTES;
        self.search.found.insert(key, Base { rows, first: 0, is_complete });
    }

    /// Takes in how many committed rows match a query, without those of [`RowCache::changed`].
    pub fn supply_count(&mut self, query: Query, rows: u64) {
        let key = query.key();
        self.search.bytes += key.len() + ENTRY_BYTES;
        self.search.counted.insert(key, Counted { query, rows });
    }

    /// The ids of rows that changed here: they hide their committed versions.
    pub fn changed(&self) -> Vec<&str> {
        self.slots.iter().filter(|slot| slot.is_changed()).map(|slot| slot.id.as_str()).collect()
    }

    /// Whether a write needs the row's old value.
    pub fn needs_before(&self) -> bool {
        !self.is_whole && !self.search.counted.is_empty()
    }

    fn slot(&self, id: &str) -> Option<&Slot> {
        self.slots.get(id)
    }

    fn is_changed(&self, id: &str) -> bool {
        self.slot(id).is_some_and(|slot| slot.is_changed())
    }

    /// The place of the index over a column, made if there is none.
    fn index(&mut self, column: Option<usize>) -> usize {
        let is_whole = self.is_whole;
        let known = |index: &Index| index.column == column && index.is_whole == is_whole;
        if let Some(at) = self.search.indexes.iter().position(known) {
            return at;
        }
        self.search.indexes.retain(|index| index.column != column);
        let mut index = Index { column, is_whole, entries: BTreeSet::new() };
        for slot in self.slots.iter().filter(|slot| is_whole || slot.is_changed()) {
            if let Some(row) = &slot.row {
                index.entries.insert(index.entry(slot.id.as_str(), row));
            }
        }
        self.search.indexes.push(index);
        self.search.indexes.len() - 1
    }

    /// The cached rows that match, in the query's order, `limit` at most.
    fn here(&mut self, query: &Query, limit: usize) -> Vec<(Box<str>, Row)> {
        let equal = query.conditions.iter().find(|condition| condition.comparison == Comparison::Equal);
        let ordered = query.order.map(|order| order.column);
        // Of one value, rows lie by id, which is the order where no other is asked for.
        let is_in_order = match equal {
            Some(_) => ordered.is_none(),
            None => ordered.is_some() || query.conditions.is_empty(),
        };
        let column = equal.map(|condition| condition.column).or(ordered);
        let column = column.or_else(|| query.conditions.first().map(|condition| condition.column));
        let at = self.index(column);
        let (low, high) = bounds(query, column);
        let entries = &self.search.indexes[at].entries;
        let nulls = || (Key(Value::Null), IdKey::Id("".into()));
        // Of no column all keys are null, and the ids order.
        let low = low.map_or(Bound::Unbounded, |low| Bound::Included((Key(low), IdKey::Id("".into()))));
        let high = match high {
            Some(high) => Bound::Included((Key(high), IdKey::End)),
            None if column.is_some() => Bound::Excluded(nulls()),
            None => Bound::Unbounded,
        };
        let matching = |(_, id): &Entry| {
            let IdKey::Id(id) = id else { return None };
            let row = self.slot(id).and_then(|slot| slot.row.as_ref())?;
            query.matches(row).then(|| (id.clone(), row.clone()))
        };
        let is_empty = matches!((&low, &high), (Bound::Included(low), Bound::Included(high)) if low > high);
        if is_empty {
            return Vec::new();
        }
        let in_range = entries.range((low, high));
        if !is_in_order {
            let mut found: Vec<_> = in_range.filter_map(matching).collect();
            found.sort_by(|(a, left), (b, right)| query.compare_rows((a, left), (b, right)));
            found.truncate(limit);
            return found;
        }
        let mut found = match query.order {
            Some(order) if order.is_descending => descending(in_range, matching, limit),
            _ => in_range.filter_map(matching).take(limit).collect(),
        };
        // A condition on the column leaves no nulls.
        if ordered.is_some() && query.conditions.iter().all(|condition| Some(condition.column) != ordered) {
            let left = limit - found.len();
            found.extend(entries.range(nulls()..).filter_map(matching).take(left));
        }
        found
    }
}

/// Rows from the last to the first, those of one value still by id.
fn descending<'e>(
    entries: impl DoubleEndedIterator<Item = &'e Entry>,
    matching: impl Fn(&Entry) -> Option<(Box<str>, Row)>,
    limit: usize,
) -> Vec<(Box<str>, Row)> {
    let mut found = Vec::new();
    let mut entries = entries.rev().peekable();
    while found.len() < limit
        && let Some(first) = entries.next()
    {
        let mut same = vec![first];
        while let Some(next) = entries.next_if(|next| next.0 == first.0) {
            same.push(next);
        }
        let left = limit - found.len();
        found.extend(same.into_iter().rev().filter_map(&matching).take(left));
    }
    found.truncate(limit);
    found
}

/// What the conditions on a column leave of its range: the least and the largest value.
fn bounds(query: &Query, column: Option<usize>) -> (Option<Value>, Option<Value>) {
    let (mut low, mut high): (Option<Value>, Option<Value>) = (None, None);
    for condition in query.conditions.iter().filter(|condition| Some(condition.column) == column) {
        let value = &condition.value;
        if matches!(condition.comparison, Comparison::Equal | Comparison::Greater | Comparison::AtLeast)
            && low.as_ref().is_none_or(|low| compare(low, value).is_none_or(Ordering::is_lt))
        {
            low = Some(value.clone());
        }
        if matches!(condition.comparison, Comparison::Equal | Comparison::Less | Comparison::AtMost)
            && high.as_ref().is_none_or(|high| compare(high, value).is_none_or(Ordering::is_gt))
        {
            high = Some(value.clone());
        }
    }
    (low, high)
}
