//! The row cache of one region in one table.
//!
//! The rule that makes reads correct without waiting: *a row that changed in an uncommitted batch is always cached*. So
//! a read looks in the cache and then among committed rows, and nowhere else. Each change carries the number of its
//! batch; only rows whose batch is committed may be evicted.
//!
//! A sweep evicts the rows that were not read since the one before.

mod search;
mod slots;

pub use search::Lacking;
use search::Search;
pub use slots::Place;
use slots::{Id, Slots};

use super::codec::{Change, Writer};
use crate::model::ids::{BatchNo, BlockNo};
use crate::model::value::{Row, row_memory_bytes};

/// What the cache knows of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Found<'t> {
    /// The row.
    Row(&'t Row),
    /// There is no such row.
    Absent,
    /// It is not here: what is committed decides.
    Missing,
}

#[derive(Debug, Clone, PartialEq)]
struct Slot {
    id: Id,
    /// None: there is no such row.
    row: Option<Row>,
    /// The batch that changed it last; [`BatchNo::NONE`] if none of this run did.
    changed_in: BatchNo,
    /// The event that wrote it last.
    writer: Writer,
    /// The block of that event.
    block: BlockNo,
    /// Whether it is known not to have existed before the batch that changed it last. Of a table with an existence
    /// filter, only as far as the cache knows.
    is_new: bool,
    /// Whether it was read, or came, since the last sweep.
    is_used: bool,
}

impl Slot {
    /// Whether a batch of this run changed it.
    fn is_changed(&self) -> bool {
        self.changed_in > BatchNo::NONE
    }
}

/// What changes a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangedBy {
    /// The open batch.
    pub batch: BatchNo,
    /// The event's block.
    pub block: BlockNo,
    /// The event.
    pub writer: Writer,
}

/// What a row was before a block.
#[derive(Debug, Clone, PartialEq)]
pub enum BeforeImage {
    /// This.
    Row(Row),
    /// There was none.
    Absent,
    /// It is not here: what is committed decides.
    Unknown,
}

/// The rows that a batch changed in a table, as [`RowCache::take_changes`] found them.
#[derive(Debug, Clone)]
pub struct ChangedRows {
    places: Vec<Place>,
    /// How many sweeps were before.
    sweeps: u64,
}

impl ChangedRows {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// The row cache of one region in one table.
#[derive(Debug, Clone, Default)]
pub struct RowCache {
    slots: Slots,
    sweeps: u64,
    is_whole: bool,
    /// Whether it is known which rows the table has ([`super::existence`]), or guessed: then a row that is not here may be
    /// new, and is marked so.
    is_filtered: bool,
    /// Whether a row was ever read. Until then rows are evicted as soon as they are committed.
    is_read: bool,
    was_tried: bool,
    /// The rows that changed since the last batch was sealed.
    dirty: Vec<Place>,
    /// How many rows are cached, without those known to be absent.
    rows: usize,
    bytes: usize,
    search: Search,
}

/// Bytes that a row takes beside its values, about: the slot with a short id, and its share of the table of places.
const ROW_OVERHEAD_BYTES: usize = size_of::<Slot>() + 8;

impl RowCache {
    /// A table without cached rows. If it `is_whole`, there are no committed ones either. If it `is_filtered`, a filter
    /// knows which there may be.
    pub fn new(is_whole: bool, is_filtered: bool) -> Self {
        Self { is_whole, is_filtered, ..Self::default() }
    }

    /// A filter knows from now on which rows there may be.
    pub fn set_filtered(&mut self) {
        self.is_filtered = true;
    }

    /// Whether `Change::New` can be trusted without consulting the existence filter.
    pub fn trusts_new(&self) -> bool {
        self.is_whole || !self.is_filtered
    }

    /// Whether rows were supplied before.
    pub fn was_tried(&self) -> bool {
        self.was_tried
    }

    /// Looks a row up.
    pub fn get(&mut self, id: &str) -> Found<'_> {
        self.is_read = true;
        let absent = if self.is_whole { Found::Absent } else { Found::Missing };
        let Some(place) = self.slots.find(id) else { return absent };
        let Some(slot) = self.slots.at_mut(place) else { return absent };
        slot.is_used = true;
        slot.row.as_ref().map_or(Found::Absent, Found::Row)
    }

    /// Where a row lies, or what is known of there being none, if it is cached.
    pub fn place(&mut self, id: &str) -> Option<Place> {
        self.slots.find(id)
    }

    /// Whether a place is that of this row.
    pub fn is_at(&self, place: Place, id: &str) -> bool {
        self.slots.is_at(place, id)
    }

    /// The id of the row at a place.
    pub fn id_at(&self, place: Place) -> &str {
        self.slots.at(place).map_or("", |slot| slot.id.as_str())
    }

    /// Writes or, with none, deletes a row in batch `batch`, which is not committed yet. Returns what it was before the
    /// event's block; none if it has changed in that block already.
    pub fn set(&mut self, id: &str, row: Option<Row>, change: ChangedBy) -> Option<BeforeImage> {
        if let Some(place) = self.slots.find(id) {
            return self.set_at(place, row, change);
        }
        let ChangedBy { batch, block, writer } = change;
        if !self.search.is_unused() {
            self.search.note(id, None, row.as_ref(), false, self.is_whole);
        }
        self.bytes += slot_bytes(id, row.as_ref());
        self.rows += usize::from(row.is_some());
        let is_new = self.is_whole || self.is_filtered;
        let slot = Slot { id: Id::new(id), row, changed_in: batch, writer, block, is_new, is_used: true };
        self.dirty.push(self.slots.insert(slot));
        Some(if self.is_whole { BeforeImage::Absent } else { BeforeImage::Unknown })
    }

    /// The same with the row at a place.
    pub fn set_at(&mut self, place: Place, row: Option<Row>, change: ChangedBy) -> Option<BeforeImage> {
        let ChangedBy { batch, block, writer } = change;
        let slot = self.slots.at_mut(place)?;
        self.rows = self.rows + usize::from(row.is_some()) - usize::from(slot.row.is_some());
        self.bytes = self.bytes + row_bytes(row.as_ref()) - row_bytes(slot.row.as_ref());
        let was_changed = slot.is_changed();
        if !self.search.is_unused() {
            self.search.note(slot.id.as_str(), slot.row.as_ref(), row.as_ref(), was_changed, self.is_whole);
        }
        if slot.changed_in != batch {
            slot.is_new = slot.row.is_none();
            self.dirty.push(place);
        }
        let is_again = was_changed && slot.block == block;
        (slot.changed_in, slot.writer, slot.block) = (batch, writer, block);
        let was = std::mem::replace(&mut slot.row, row);
        (!is_again).then_some(was.map_or(BeforeImage::Absent, BeforeImage::Row))
    }

    /// Takes in the store's row for an id. A row that is cached already is newer and stays.
    pub fn supply(&mut self, id: &str, row: Option<Row>) {
        self.was_tried = true;
        if self.slots.find(id).is_none() {
            self.bytes += slot_bytes(id, row.as_ref());
            self.rows += usize::from(row.is_some());
            self.slots.insert(Slot {
                id: Id::new(id),
                row,
                changed_in: BatchNo::NONE,
                writer: Writer::default(),
                block: BlockNo::default(),
                is_new: false,
                is_used: true,
            });
        }
    }

    /// Notes that the whole table was asked for, and was too large.
    pub fn was_too_large(&mut self) {
        self.was_tried = true;
    }

    /// Notes that every row of the table was supplied.
    pub fn supplied_whole(&mut self) {
        self.was_tried = true;
        if !std::mem::replace(&mut self.is_whole, true) {
            // A row that was written without being cached may have existed before.
            for place in &self.dirty {
                if let Some(slot) = self.slots.at_mut(*place) {
                    slot.is_new = false;
                }
            }
        }
    }

    /// Evicts rows that the committed batch `batch` changed last, if rows of this table are never read.
    pub fn let_go(&mut self, batch: BatchNo, changed: ChangedRows) {
        if self.is_read || !self.search.is_unused() {
            return;
        }
        let places = match changed.sweeps == self.sweeps {
            true => changed.places,
            // They lie elsewhere since.
            false => self.slots.places_of(|slot| slot.changed_in == batch),
        };
        for place in places {
            if self.slots.at(place).is_some_and(|slot| slot.changed_in == batch)
                && let Some(slot) = self.slots.remove(place)
            {
                self.evicted(&slot);
            }
        }
    }

    /// Takes account of a slot that is gone.
    fn evicted(&mut self, slot: &Slot) {
        self.bytes -= slot_bytes(slot.id.as_str(), slot.row.as_ref());
        self.rows -= usize::from(slot.row.is_some());
        self.is_whole &= slot.row.is_none();
    }

    /// Whether rows are evicted as soon as they are committed.
    pub fn is_write_only(&self) -> bool {
        !self.is_read && self.search.is_unused()
    }

    /// How many rows changed since the last call of [`RowCache::take_changes`].
    pub fn changed_rows(&self) -> usize {
        self.dirty.len()
    }

    /// The rows that changed since the last call: those of the batch that is being sealed.
    pub fn take_changes(&mut self, mut visit: impl FnMut(&str, Change, Writer, Option<&Row>)) -> ChangedRows {
        let places = std::mem::take(&mut self.dirty);
        for slot in places.iter().filter_map(|place| self.slots.at(*place)) {
            let id = slot.id.as_str();
            match &slot.row {
                Some(row) if slot.is_new => visit(id, Change::New, slot.writer, Some(row)),
                Some(row) => visit(id, Change::Written, slot.writer, Some(row)),
                // It was made and removed within the batch.
                None if slot.is_new && self.trusts_new() => {}
                None => visit(id, Change::Deleted, slot.writer, None),
            }
        }
        ChangedRows { places, sweeps: self.sweeps }
    }

    /// Evicts the rows that were not read since the last sweep, if their batch is among the `committed` first.
    pub fn sweep(&mut self, committed: BatchNo) {
        self.search = Search::default();
        self.sweeps += 1;
        let mut slots = std::mem::take(&mut self.slots);
        let moved = slots.retain(|slot| {
            let stays = std::mem::take(&mut slot.is_used) || slot.changed_in > committed;
            if !stays {
                self.evicted(slot);
            }
            stays
        });
        self.slots = slots;
        self.dirty = self.dirty.iter().filter_map(|place| slots::moved(&moved, *place)).collect();
    }

    /// Bytes of memory it takes, about.
    pub fn memory_bytes(&self) -> usize {
        self.bytes + self.search.memory_bytes()
    }
}

fn slot_bytes(id: &str, row: Option<&Row>) -> usize {
    ROW_OVERHEAD_BYTES + Id::memory_bytes(id) + row_bytes(row)
}

fn row_bytes(row: Option<&Row>) -> usize {
    row.map_or(0, row_memory_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::RegionNo;
    use crate::model::value::Value;
    use crate::rows::existence::{ExistenceFilter, KnownRows};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// What can happen to a table, in any order.
    #[derive(Debug, Clone)]
    enum Op {
        Get(u8),
        Set(u8, i64),
        Delete(u8),
        Seal,
        Commit,
        Sweep,
        LoadWhole,
        /// Reads so many more ids of the table.
        Scan(usize),
        /// Takes in which rows the table had, if all of its ids are read.
        CatchUp,
        /// Takes no row for new any more that may not be.
        GuessNoMore,
        /// The store is rolled back: what it has is not known any more.
        Forget,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..12u8).prop_map(Op::Get),
            4 => (0..12u8, any::<i64>()).prop_map(|(id, value)| Op::Set(id, value)),
            2 => (0..12u8).prop_map(Op::Delete),
            2 => Just(Op::Seal),
            2 => Just(Op::Commit),
            2 => Just(Op::Sweep),
            1 => Just(Op::LoadWhole),
            2 => (1..4usize).prop_map(Op::Scan),
            1 => Just(Op::CatchUp),
            1 => Just(Op::GuessNoMore),
            1 => Just(Op::Forget),
        ]
    }

    type State = BTreeMap<String, i64>;
    type Sealed = BTreeMap<String, (Change, Option<i64>)>;

    fn row(value: i64) -> Row {
        Box::new([Value::Bigint(value)])
    }

    fn number(row: &Row) -> i64 {
        match row.first() {
            Some(Value::Bigint(value)) => *value,
            other => panic!("{other:?}"),
        }
    }

    /// A table over a store, and beside them what the state should be.
    struct Bench {
        table: RowCache,
        batch: BatchNo,
        sealed: Vec<(BatchNo, Sealed)>,
        /// Rows to be let go when their batch is committed.
        passing: Vec<(BatchNo, ChangedRows)>,
        committed: BatchNo,
        store: State,
        model: State,
        known: KnownRows,
        scanned: ExistenceFilter,
        /// The last id that was read; none before the first one.
        last: Option<String>,
        /// Whether all ids are read.
        is_scanned: bool,
        /// Whether a row counts as new as long as nobody knows. The store then looks whether it is.
        guesses: bool,
        /// Whether it ever did in this run: batches of then may be in flight.
        ever_guessed: bool,
    }

    fn region() -> RegionNo {
        RegionNo::from(3)
    }

    impl Bench {
        fn new(guesses: bool) -> Self {
            let store: State = (0..4).map(|id| (format!("k{id}"), id)).collect();
            Self {
                table: RowCache::new(false, guesses),
                batch: BatchNo::NONE.next(),
                sealed: Vec::new(),
                passing: Vec::new(),
                committed: BatchNo::NONE,
                model: store.clone(),
                store,
                known: KnownRows::of_tables(&[false], 1 << 20).remove(0),
                scanned: ExistenceFilter::new(1 << 20),
                last: None,
                is_scanned: false,
                guesses,
                ever_guessed: guesses,
            }
        }

        fn apply(&mut self, op: &Op) {
            match op {
                Op::Get(id) => self.check(&format!("k{id}")),
                Op::Set(id, value) => {
                    self.set(*id, Some(row(*value)));
                    self.model.insert(format!("k{id}"), *value);
                }
                Op::Delete(id) => {
                    self.set(*id, None);
                    self.model.remove(&format!("k{id}"));
                }
                Op::Seal => self.seal(),
                Op::Commit => self.commit(),
                Op::Sweep => self.table.sweep(self.committed),
                Op::LoadWhole => {
                    for (id, value) in &self.store {
                        self.table.supply(id, Some(row(*value)));
                    }
                    self.table.supplied_whole();
                }
                Op::Scan(ids) => self.scan(*ids),
                Op::CatchUp if self.is_scanned && !self.known.is_complete() => {
                    let found = std::mem::replace(&mut self.scanned, ExistenceFilter::new(1 << 20));
                    self.known.complete(Arc::new(found));
                    self.table.set_filtered();
                }
                Op::CatchUp => {}
                Op::GuessNoMore => self.guesses = false,
                Op::Forget => self.forget(),
            }
        }

        /// Reads ids that are committed now, behind those that were.
        fn scan(&mut self, ids: usize) {
            for _ in 0..ids {
                let next = self.store.keys().find(|id| self.last.as_ref().is_none_or(|last| *id > last));
                let Some(next) = next.cloned() else {
                    self.is_scanned = true;
                    return;
                };
                self.scanned.add("r", &next);
                self.last = Some(next);
            }
        }

        /// Everything is committed; then rows come back that nobody has written in this run, and others go.
        fn forget(&mut self) {
            self.seal();
            while !self.sealed.is_empty() {
                self.commit();
            }
            self.store.retain(|_, value| *value % 2 == 0);
            self.store.extend((8..11).map(|id| (format!("k{id}"), id)));
            self.model = self.store.clone();
            self.table = RowCache::new(false, self.guesses);
            self.known.forget();
            (self.scanned, self.last, self.is_scanned) = (ExistenceFilter::new(1 << 20), None, false);
        }

        fn set(&mut self, id: u8, row: Option<Row>) {
            let change = ChangedBy { batch: self.batch, block: BlockNo::new(1), writer: Writer::default() };
            self.table.set(&format!("k{id}"), row, change);
        }

        /// What a handler would see: here, else in the store.
        fn check(&mut self, id: &str) {
            if self.table.get(id) == Found::Missing {
                if !self.known.may_have(region(), "r", id) {
                    assert_eq!(self.model.get(id), None, "{id} is denied");
                    return;
                }
                self.table.supply(id, self.store.get(id).map(|value| row(*value)));
            }
            let seen = match self.table.get(id) {
                Found::Row(row) => Some(number(row)),
                Found::Absent => None,
                Found::Missing => panic!("{id} is missing after it was supplied"),
            };
            assert_eq!(seen, self.model.get(id).copied(), "{id}");
        }

        fn seal(&mut self) {
            let mut changes = BTreeMap::new();
            let trusts_new = self.table.trusts_new();
            let mut is_new = self.known.is_new(region(), "r", trusts_new, self.guesses);
            let changed = self.table.take_changes(|id, change, _, row| {
                // As a batch takes them in.
                let is_kept = change == Change::Deleted || is_new(id, change) || change != Change::New;
                let change = if is_kept { change } else { Change::Written };
                assert!(changes.insert(id.to_owned(), (change, row.map(number))).is_none(), "{id} twice")
            });
            if self.table.is_write_only() {
                self.passing.push((self.batch, changed));
            }
            self.sealed.push((self.batch, changes));
            self.batch = self.batch.next();
        }

        fn commit(&mut self) {
            if self.sealed.is_empty() {
                return;
            }
            let (batch, changes) = self.sealed.remove(0);
            for (id, (change, value)) in changes {
                // What is said to be new may be copied in without looking, if nothing was guessed.
                let is_new = change != Change::New || !self.store.contains_key(&id);
                assert!(is_new || self.ever_guessed, "{id} is not new");
                match value {
                    Some(value) => drop(self.store.insert(id, value)),
                    None => drop(self.store.remove(&id)),
                }
            }
            self.committed = batch;
            if let Some(at) = self.passing.iter().position(|(number, _)| *number == batch) {
                let (_, changed) = self.passing.remove(at);
                self.table.let_go(batch, changed);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the order of writes, seals, commits, sweeps and loads, and wherever the scan of the table's ids has
        /// come, a read sees the last write, no row is denied, and the store ends up as the model.
        #[test]
        fn reads_see_the_last_write_and_commits_lose_nothing(
            ops in prop::collection::vec(op(), 1..80),
            guesses in any::<bool>(),
        ) {
            let mut bench = Bench::new(guesses);
            for op in &ops {
                bench.apply(op);
            }
            for id in 0..12 {
                bench.check(&format!("k{id}"));
            }
            bench.seal();
            while !bench.sealed.is_empty() {
                bench.commit();
            }
            prop_assert_eq!(&bench.store, &bench.model);
            bench.table.sweep(bench.committed);
            bench.table.sweep(bench.committed);
            prop_assert_eq!(bench.table.memory_bytes(), 0);
        }
    }

    #[test]
    fn a_row_of_a_batch_that_is_not_committed_is_never_let_go() {
        let mut table = RowCache::new(true, true);
        let change =
            |block| ChangedBy { batch: BatchNo::new(7), block: BlockNo::new(block), writer: Writer::default() };
        assert_eq!(table.set("a", Some(row(1)), change(5)), Some(BeforeImage::Absent));
        assert_eq!(table.set("a", Some(row(1)), change(5)), None, "it has changed in that block already");
        assert_eq!(table.set("a", Some(row(1)), change(6)), Some(BeforeImage::Row(row(1))));
        assert_eq!(RowCache::new(false, false).set("a", None, change(5)), Some(BeforeImage::Unknown));
        for _ in 0..5 {
            table.sweep(BatchNo::new(6));
        }
        assert!(matches!(table.get("a"), Found::Row(_)) && table.is_whole);
        table.sweep(BatchNo::new(7));
        table.sweep(BatchNo::new(7));
        assert_eq!(table.get("a"), Found::Missing);
    }
}
