//! The rows that a Rust handler sees: what the current call wrote, over the row cache, over what is committed.
//!
//! A row that is not cached is noted as missed; whoever runs the handler loads it and calls again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::access::RowAccess;
use super::error::HandlerError;
use crate::lane::before_images::{Gathered, UnseenWrite};
use crate::lane::{EngineContext, IdScan, LaneError};
use crate::model::ids::{BatchClock, BatchNo, BlockNo, Depth, EntityNo, RegionNo};
use crate::model::query::Query;
use crate::model::schema::Schema;
use crate::model::value::{Row, row_memory_bytes};
use crate::rows::cache::{BeforeImage, ChangedBy, ChangedRows, Found, Lacking, Place, RowCache};
use crate::rows::changes::RegionChanges;
use crate::rows::codec::{Change, RowHead, Writer, encode_values};
use crate::rows::existence::KnownRows;
use crate::undo::{begin_entry, push_absent};

/// What handlers asked for and was not cached.
#[derive(Default)]
pub(super) struct Missed {
    /// For each table, the ids; if it was not tried yet, all of it, if it is small.
    pub(super) ids: BTreeMap<(RegionNo, EntityNo), Vec<String>>,
    /// Queries, by table and key. The limit is how many rows are asked for.
    pub(super) queries: BTreeMap<(RegionNo, EntityNo, String), Query>,
    pub(super) counts: BTreeMap<(RegionNo, EntityNo, String), Query>,
}

impl Missed {
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.queries.is_empty() && self.counts.is_empty()
    }

    /// Notes what a query lacks.
    fn note(&mut self, region: RegionNo, entity: EntityNo, query: &Query, lacking: Lacking) -> HandlerError {
        match lacking {
            Lacking::Table => drop(self.ids.entry((region, entity)).or_default()),
            Lacking::Rows(limit) => {
                self.queries.insert((region, entity, query.key()), Query { limit, ..query.clone() });
            }
            Lacking::Count => drop(self.counts.insert((region, entity, query.key()), query.clone())),
        }
        HandlerError::new("rows have to be loaded first; this error must be passed on")
    }

    /// Takes in what another call missed.
    pub(super) fn add(&mut self, more: Self) {
        for (table, ids) in more.ids {
            self.ids.entry(table).or_default().extend(ids);
        }
        for (table, query) in more.queries {
            match self.queries.entry(table) {
                Entry::Vacant(place) => drop(place.insert(query)),
                Entry::Occupied(mut known) => {
                    let limit = known.get().limit.zip(query.limit).map(|(one, other)| one.max(other));
                    known.get_mut().limit = limit;
                }
            }
        }
        self.counts.extend(more.counts);
    }
}

/// What a row was before a block changed it.
struct UndoEntry {
    block: BlockNo,
    entity: EntityNo,
    id: Box<str>,
    before: BeforeImage,
}

impl UndoEntry {
    fn memory_bytes(&self) -> usize {
        let row = match &self.before {
            BeforeImage::Row(row) => row_memory_bytes(row),
            BeforeImage::Absent | BeforeImage::Unknown => 0,
        };
        size_of::<Self>() + self.id.len() + row
    }
}

/// Rows that a batch changed in a table that is never read, to be evicted once it is committed.
struct WriteOnly {
    batch: BatchNo,
    region: RegionNo,
    entity: EntityNo,
    changed: ChangedRows,
}

/// A row that the current call writes.
pub(super) struct Write {
    entity: EntityNo,
    to: Target,
    /// None: it is deleted.
    row: Option<Row>,
}

/// Which row.
enum Target {
    /// One that is cached.
    Cached(Place),
    Other(Box<str>),
}

impl Target {
    fn set(&self, table: &mut RowCache, row: Option<Row>, change: ChangedBy) -> Option<BeforeImage> {
        match self {
            Self::Cached(place) => table.set_at(*place, row, change),
            Self::Other(id) => table.set(id, row, change),
        }
    }

    fn is(&self, id: &str, table: &RowCache) -> bool {
        match self {
            Self::Cached(place) => table.is_at(*place, id),
            Self::Other(other) => &**other == id,
        }
    }

    fn id<'t>(&'t self, table: &'t RowCache) -> &'t str {
        match self {
            Self::Cached(place) => table.id_at(*place),
            Self::Other(id) => id,
        }
    }
}

/// The rows of the regions that an engine has, and what the current call does with them.
pub(super) struct Rows {
    is_empty: Arc<[bool]>,
    /// Which rows each table may have.
    known: Vec<KnownRows>,
    scan: Arc<IdScan>,
    /// Of each table, rows since the last round of which it was not known whether they exist.
    pub(super) unknown: Vec<u64>,
    write_only: VecDeque<WriteOnly>,
    /// Of the open batch.
    pub(super) changed_rows: u64,
    /// For each region, its tables in the order of the schema.
    pub(super) tables: BTreeMap<RegionNo, Vec<RowCache>>,
    pub(super) regions: BTreeMap<RegionNo, Arc<str>>,
    /// What the current call wrote.
    pub(super) writes: Vec<Write>,
    /// The event that the current call handles.
    pub(super) writer: Writer,
    /// Its block.
    pub(super) block: BlockNo,
    /// For each region, the before-images of blocks that can still be rolled back, in order.
    undo: BTreeMap<RegionNo, VecDeque<UndoEntry>>,
    undo_bytes: usize,
    undo_depth: Depth,
    pub(super) missed: Missed,
    pub(super) is_snapshot: bool,
    clock: BatchClock,
}

impl Rows {
    /// No row yet.
    pub(super) fn new(context: &EngineContext) -> Self {
        Self {
            is_empty: Arc::clone(&context.is_empty),
            known: KnownRows::of_tables(&context.is_empty, context.memory_bytes),
            scan: Arc::clone(&context.scan),
            unknown: vec![0; context.is_empty.len()],
            write_only: VecDeque::new(),
            changed_rows: 0,
            tables: BTreeMap::new(),
            regions: BTreeMap::new(),
            writes: Vec::new(),
            writer: Writer::default(),
            block: BlockNo::default(),
            undo: BTreeMap::new(),
            undo_bytes: 0,
            undo_depth: context.undo_depth,
            missed: Missed::default(),
            is_snapshot: false,
            clock: BatchClock::first(),
        }
    }

    pub(super) fn know(&mut self, region: RegionNo, name: &Arc<str>) {
        let Self { tables, regions, is_empty, known, scan, .. } = self;
        let guesses = scan.guesses_new();
        let cache = |(is_empty, known): (&bool, &KnownRows)| RowCache::new(*is_empty, guesses || known.is_complete());
        tables.entry(region).or_insert_with(|| is_empty.iter().zip(known.iter()).map(cache).collect());
        regions.entry(region).or_insert_with(|| Arc::clone(name));
    }

    /// Tells the scan which rows were not known, and takes in what it has found since.
    pub(super) fn catch_up(&mut self) {
        let Self { known, scan, unknown, tables, .. } = self;
        for (entity, known) in EntityNo::in_order().zip(known).filter(|(_, known)| !known.is_complete()) {
            scan.note_unknown(entity, std::mem::take(&mut unknown[entity.index()]));
            let Some(found) = scan.found(entity) else { continue };
            known.complete(Arc::clone(found));
            tables.values_mut().filter_map(|tables| tables.get_mut(entity.index())).for_each(RowCache::set_filtered);
        }
    }

    fn table(&mut self, entity: EntityNo, region: RegionNo) -> Result<&mut RowCache, HandlerError> {
        let table = self.tables.get_mut(&region).and_then(|tables| tables.get_mut(entity.index()));
        table.ok_or_else(unknown_region)
    }

    /// What the current call wrote to a table, by id.
    fn written(&self, entity: EntityNo, region: RegionNo) -> BTreeMap<String, Option<Row>> {
        let table = self.tables.get(&region).and_then(|tables| tables.get(entity.index()));
        let Some(table) = table else { return BTreeMap::new() };
        let writes = self.writes.iter().filter(|write| write.entity == entity);
        writes.map(|Write { to, row, .. }| (to.id(table).to_owned(), row.clone())).collect()
    }

    /// Applies the finished call's writes to the row cache.
    pub(super) fn keep(&mut self, region: RegionNo) {
        let change = ChangedBy { batch: self.clock.open, block: self.block, writer: self.writer };
        let guesses = self.scan.guesses_new();
        let Some(tables) = self.tables.get_mut(&region) else { return };
        let mut undo = (!self.undo_depth.is_none()).then(|| self.undo.entry(region).or_default());
        for Write { entity, to, row } in self.writes.drain(..) {
            let table = &mut tables[entity.index()];
            let changed = table.changed_rows();
            let before = to.set(table, row, change);
            self.changed_rows += (table.changed_rows() - changed) as u64;
            self.unknown[entity.index()] += u64::from(!guesses && before == Some(BeforeImage::Unknown));
            if let (Some(undo), Some(before)) = (&mut undo, before) {
                let entry = UndoEntry { block: change.block, entity, id: to.id(table).into(), before };
                self.undo_bytes += entry.memory_bytes();
                undo.push_back(entry);
            }
        }
        let Some(undo) = undo else { return };
        // Before-images too old to be needed go at once, while they are still in the processor's cache.
        let oldest = self.undo_depth.oldest(change.block);
        while let Some(entry) = undo.pop_front_if(|entry| entry.block <= oldest) {
            self.undo_bytes -= entry.memory_bytes();
        }
    }

    /// Takes out the before-images of blocks after `after`, and the rows that were written without being read.
    pub(super) fn take_undo(&mut self, schema: &Schema, after: BlockNo) -> (Gathered, Vec<UnseenWrite>) {
        let (mut gathered, mut unknown) = (Gathered::default(), Vec::new());
        self.undo_bytes = 0;
        for (number, undo) in std::mem::take(&mut self.undo) {
            let Some(region) = self.regions.get(&number) else { continue };
            for UndoEntry { block, entity, id, before } in undo.into_iter().filter(|entry| entry.block > after) {
                let is_absent = || !self.known[entity.index()].may_have(number, region, &id);
                match before {
                    BeforeImage::Unknown if is_absent() => push_absent(block, &id, gathered.entries(entity, region)),
                    BeforeImage::Unknown => unknown.push(UnseenWrite { entity, region: Arc::clone(region), id, block }),
                    BeforeImage::Absent => push_absent(block, &id, gathered.entries(entity, region)),
                    BeforeImage::Row(row) => {
                        let entries = gathered.entries(entity, region);
                        let head = RowHead { id: &id, change: Change::Written, writer: Writer::default() };
                        begin_entry(block, entries);
                        encode_values(&schema[entity], head, &row, entries);
                    }
                }
            }
        }
        (gathered, unknown)
    }

    /// Takes out the rows that the batch changed.
    pub(super) fn take_changes(&mut self, schema: &Schema) -> Result<Vec<(EntityNo, RegionChanges)>, LaneError> {
        let mut changes = Vec::new();
        self.changed_rows = 0;
        let Rows { tables, known, write_only, regions, clock, scan, .. } = self;
        for (region, tables) in tables {
            for (entity, table) in EntityNo::in_order().zip(tables) {
                let described = &schema[entity];
                let mut packed = Vec::new();
                let changed = table.take_changes(|id, change, writer, row| {
                    let row = row.map_or(&[][..], |row| &row[..]);
                    encode_values(described, RowHead { id, change, writer }, row, &mut packed);
                });
                if table.is_write_only() && !changed.is_empty() {
                    write_only.push_back(WriteOnly { batch: clock.open, region: *region, entity, changed });
                }
                if !packed.is_empty() {
                    let name = Arc::clone(&regions[region]);
                    let is_new =
                        known[entity.index()].is_new(*region, &regions[region], table.trusts_new(), scan.guesses_new());
                    changes.push((entity, RegionChanges::checked(described, name, packed, is_new)?));
                }
            }
        }
        Ok(changes)
    }

    /// Drops all rows, changed or not. What the tables hold is unknown from here on, until the scan has found it.
    pub(super) fn forget(&mut self, scan: &Arc<IdScan>) {
        self.tables.clear();
        self.undo.clear();
        self.undo_bytes = 0;
        self.is_empty = vec![false; self.is_empty.len()].into();
        self.known.iter_mut().for_each(KnownRows::forget);
        self.scan = Arc::clone(scan);
        self.unknown.fill(0);
        self.write_only.clear();
        self.changed_rows = 0;
    }

    /// Changes from now on belong to batch `number`. Evicts rows of batches up to `committed` in tables that are never
    /// read.
    pub(super) fn begin_batch(&mut self, clock: BatchClock) {
        self.clock = clock;
        while let Some(write_only) = self.write_only.pop_front_if(|write_only| write_only.batch <= clock.committed) {
            let WriteOnly { batch, region, entity, changed } = write_only;
            if let Some(table) = self.tables.get_mut(&region).and_then(|tables| tables.get_mut(entity.index())) {
                table.let_go(batch, changed);
            }
        }
    }

    /// Bytes of memory that they take.
    pub(super) fn memory_bytes(&self) -> usize {
        let known: usize = self.known.iter().map(KnownRows::memory_bytes).sum();
        known + self.undo_bytes + self.tables.values().flatten().map(RowCache::memory_bytes).sum::<usize>()
    }

    /// Evicts the older half of the committed rows.
    pub(super) fn sweep(&mut self) {
        for table in self.tables.values_mut().flatten() {
            table.sweep(self.clock.committed);
        }
    }
}

impl RowAccess for Rows {
    fn get(&mut self, entity: EntityNo, region: RegionNo, id: &str) -> Result<Option<&Row>, HandlerError> {
        let Self { writes, tables, known, missed, regions, .. } = self;
        let Some(table) = tables.get_mut(&region).and_then(|tables| tables.get_mut(entity.index())) else {
            return Err(unknown_region());
        };
        if let Some(at) = writes.iter().rposition(|write| write.entity == entity && write.to.is(id, table)) {
            return Ok(writes[at].row.as_ref());
        }
        match table.get(id) {
            Found::Row(row) => return Ok(Some(row)),
            Found::Absent => return Ok(None),
            Found::Missing => {}
        }
        if !known[entity.index()].may_have(region, regions.get(&region).map_or("", |name| &**name), id) {
            return Ok(None);
        }
        missed.ids.entry((region, entity)).or_default().push(id.to_owned());
        Err(HandlerError::new("a row has to be loaded first; this error must be passed on"))
    }

    fn write(&mut self, entity: EntityNo, region: RegionNo, id: &str, row: Option<Row>) -> Result<(), HandlerError> {
        if self.is_snapshot {
            return Err(HandlerError::new("on_snapshot may read, and not write"));
        }
        let table = self.table(entity, region)?;
        let needs_before = table.needs_before();
        let to = table.place(id).map_or_else(|| Target::Other(id.into()), Target::Cached);
        if needs_before {
            self.get(entity, region, id)?;
        }
        self.writes.push(Write { entity, to, row });
        Ok(())
    }

    fn find(
        &mut self,
        entity: EntityNo,
        region: RegionNo,
        query: &Query,
    ) -> Result<Vec<(Box<str>, Row)>, HandlerError> {
        // The call's own writes hide as many rows at most.
        let written = self.written(entity, region);
        let limit = query.limit.map(|limit| limit.saturating_add(written.len()));
        let found = self.table(entity, region)?.find(&Query { limit, ..query.clone() });
        let mut rows = found.map_err(|lacking| self.missed.note(region, entity, query, lacking))?;
        if !written.is_empty() {
            rows.retain(|(id, _)| !written.contains_key(&**id));
            rows.extend(written.into_iter().filter_map(|(id, row)| {
                let row = row.filter(|row| query.matches(row))?;
                Some((id.into_boxed_str(), row))
            }));
            rows.sort_by(|(a, left), (b, right)| query.compare_rows((a, left), (b, right)));
        }
        rows.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(rows)
    }

    fn count(&mut self, entity: EntityNo, region: RegionNo, query: &Query) -> Result<u64, HandlerError> {
        let counted = self.table(entity, region)?.count(query);
        let mut count = counted.map_err(|lacking| self.missed.note(region, entity, query, lacking))?;
        for (id, row) in self.written(entity, region) {
            match self.table(entity, region)?.get(&id) {
                Found::Row(before) => count -= u64::from(query.matches(before)),
                Found::Absent => {}
                Found::Missing => {
                    self.missed.ids.entry((region, entity)).or_default().push(id);
                    return Err(HandlerError::new("a row has to be loaded first; this error must be passed on"));
                }
            }
            count += u64::from(row.is_some_and(|row| query.matches(&row)));
        }
        Ok(count)
    }
}

fn unknown_region() -> HandlerError {
    HandlerError::new("a region that is not known")
}
