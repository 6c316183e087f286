//! Loads rows that handlers miss: over a connection of each engine's own, in as few questions as there can be.
//!
//! Small tables of regions come whole, and others once so many of their rows were asked for that it pays.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::watch::Watch;
use super::{EngineContext, LaneError};
use crate::model::ids::EntityNo;
use crate::model::limits::{
    FIND_BYTES_MIN, FIND_ROWS, FIND_ROWS_MORE, FIND_ROWS_TIMES, REGIONS_TRIED_GROWTH, REGIONS_TRIED_MAX,
    REGIONS_TRIED_MIN, WHOLE_REGION_BYTES_MAX, WHOLE_REGION_ROWS_MAX,
};
use crate::model::query::Query;
use crate::model::schema::Schema;
use crate::model::value::Row;
use crate::rows::codec::{Decoder, ValueRef};
use crate::store::{OpenReader, RegionCount, RegionIds, RegionLimit, RegionQuery, RowReader, StoreError};

/// How often rows were loaded, and how long lanes waited for them.
#[derive(Debug, Default)]
pub(crate) struct LoadStats {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    lanes: usize,
    since: Option<Instant>,
    waited: Duration,
    loads: u64,
}

impl LoadStats {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a lane waits, until the guard is dropped.
    fn wait(&self) -> LoadWait<'_> {
        let mut waiting = self.lock();
        waiting.loads += 1;
        waiting.lanes += 1;
        waiting.since.get_or_insert_with(Instant::now);
        LoadWait(self)
    }

    /// How often rows were asked for.
    pub(crate) fn loads(&self) -> u64 {
        self.lock().loads
    }

    /// The time in which any lane waited, by the clock.
    pub(crate) fn waited(&self) -> Duration {
        self.lock().waited
    }
}

struct LoadWait<'s>(&'s LoadStats);

impl Drop for LoadWait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.lanes -= 1;
        if waiting.lanes == 0
            && let Some(since) = waiting.since.take()
        {
            waiting.waited += since.elapsed();
        }
    }
}

/// Gets rows from the store, over a connection that is opened at the first miss.
pub(crate) struct Loader {
    readers: Arc<dyn OpenReader>,
    reader: Option<Box<dyn RowReader>>,
    watch: Arc<Watch>,
    loads: Arc<LoadStats>,
    loaded: WholeTables,
    tried: Tried,
}

/// How many regions may be tried whole in one query: more and more, as long as those before were small.
#[derive(Debug)]
struct Tried {
    regions: usize,
}

impl Tried {
    fn regions(&self) -> usize {
        self.regions
    }

    /// Notes how many bytes were found of regions, and which of them are here whole. As much may be read again as the
    /// largest regions would be.
    fn note(&mut self, bytes: &[usize], whole: &[bool]) {
        let taken = |(bytes, is_whole): (&usize, &bool)| if *is_whole { *bytes } else { WHOLE_REGION_BYTES_MAX };
        let sum: usize = bytes.iter().zip(whole).map(taken).sum();
        let each = (sum / bytes.len().max(1)).max(1);
        let fit = REGIONS_TRIED_MIN * WHOLE_REGION_BYTES_MAX / each;
        self.regions = fit.min(self.regions * REGIONS_TRIED_GROWTH).clamp(REGIONS_TRIED_MIN, REGIONS_TRIED_MAX);
    }
}

impl Loader {
    pub(crate) fn new(context: &EngineContext) -> Self {
        let EngineContext { readers, watch, loads, memory_bytes, .. } = context;
        let (readers, watch, loads) = (Arc::clone(readers), Arc::clone(watch), Arc::clone(loads));
        let tried = Tried { regions: REGIONS_TRIED_MIN };
        Self { readers, reader: None, watch, loads, loaded: WholeTables::new(*memory_bytes), tried }
    }

    /// Counts committed rows of regions, in as few questions as the store allows: see [`RowReader::counts`].
    pub(crate) fn counts(&mut self, entity: EntityNo, wanted: &[RegionCount<'_>]) -> Result<Vec<u64>, StoreError> {
        let _waiting = (self.watch.pause(), self.loads.wait());
        let counts = reader(&mut self.reader, &self.readers)?.counts(entity, wanted)?;
        if counts.len() != wanted.len() {
            return Err(StoreError::other("the store answered with more or fewer counts than were asked for"));
        }
        Ok(counts)
    }

    /// Finds the first committed rows of each query, in its order: all of them in as few questions as the store allows. Of
    /// a query without a limit, or with a large one, the rows may have so many bytes. Where they would have more, as many
    /// are enough as are needed by a query with that limit: see [`FIND_ROWS_TIMES`].
    pub(crate) fn find(
        &mut self,
        schema: &Schema,
        entity: EntityNo,
        wanted: &[RegionQuery<'_>],
        bytes_max: usize,
    ) -> Result<Vec<FoundRows>, LaneError> {
        let bytes_max = bytes_max.max(FIND_BYTES_MIN);
        let first = |wanted: &RegionQuery<'_>| {
            let limit = wanted.query.limit.unwrap_or(usize::MAX).min(FIND_ROWS);
            Query { limit: Some(limit), ..wanted.query.clone() }
        };
        let firsts: Vec<Query> = wanted.iter().map(first).collect();
        let pages = wanted.iter().zip(&firsts).map(|(wanted, query)| RegionQuery { query, ..*wanted });
        let pages = self.find_page(schema, entity, &pages.collect::<Vec<_>>())?;
        wanted
            .iter()
            .zip(pages)
            .map(|(wanted, page)| self.find_rest(schema, entity, *wanted, page, bytes_max))
            .collect()
    }

    /// Goes on with a query behind its first page, which has up to [`FIND_ROWS`] rows: how large they are says how many more
    /// may be asked for at once.
    fn find_rest(
        &mut self,
        schema: &Schema,
        entity: EntityNo,
        wanted: RegionQuery<'_>,
        (mut rows, mut bytes): (FoundRows, usize),
        bytes_max: usize,
    ) -> Result<FoundRows, LaneError> {
        let limit_max = wanted.query.limit.unwrap_or(usize::MAX);
        let mut limit = FIND_ROWS;
        if limit_max <= limit {
            return Ok(rows);
        }
        let enough =
            wanted.query.limit.map_or(usize::MAX, |limit| limit.saturating_sub(FIND_ROWS_MORE) / FIND_ROWS_TIMES);
        loop {
            let is_all = rows.is_complete || limit >= limit_max;
            // As many as would fit, if those behind are as large.
            let fit = (limit as u128 * bytes_max as u128 / bytes.max(1) as u128).try_into().unwrap_or(usize::MAX);
            if bytes > bytes_max || (!is_all && fit <= limit) {
                // About as much as is the share of those that are enough.
                let needed = bytes as u128 * enough as u128 / rows.rows.len().max(1) as u128;
                if rows.rows.len() >= enough && needed <= bytes_max as u128 {
                    rows.is_complete &= rows.rows.len() == enough;
                    rows.rows.truncate(enough);
                    return Ok(rows);
                }
                let (entity, region) = (schema[entity].name.clone(), wanted.region.to_owned());
                let limit_mib = bytes_max.div_ceil(1 << 20);
                let too_much = Some(LaneError::FoundTooMuch { entity, region, limit_mib });
                return Ok(FoundRows { rows: Vec::new(), is_complete: false, too_much });
            }
            if is_all {
                return Ok(rows);
            }
            limit = limit.saturating_mul(4).min(fit).min(limit_max);
            let query = Query { limit: Some(limit), ..wanted.query.clone() };
            let page = RegionQuery { query: &query, ..wanted };
            (rows, bytes) = self.find_page(schema, entity, &[page])?.pop().unwrap_or_default();
        }
    }

    /// The first rows of each query, and their bytes in packed form.
    fn find_page(
        &mut self,
        schema: &Schema,
        entity: EntityNo,
        wanted: &[RegionQuery<'_>],
    ) -> Result<Vec<(FoundRows, usize)>, LaneError> {
        let mut packed = vec![Vec::new(); wanted.len()];
        {
            let _waiting = (self.watch.pause(), self.loads.wait());
            reader(&mut self.reader, &self.readers)?.find(entity, wanted, &mut packed)?;
        }
        let described = &schema[entity];
        let mut answers = Vec::with_capacity(wanted.len());
        for (packed, RegionQuery { query, .. }) in packed.iter().zip(wanted) {
            let mut rows = Vec::new();
            let mut decoder = Decoder::new(described, packed, 0);
            let mut values = Vec::new();
            while !decoder.is_at_end() {
                let id = decoder.row(&mut values)?.id;
                rows.push((Box::from(id), values.iter().map(ValueRef::to_value).collect()));
            }
            rows.sort_by(|(a, left): &(Box<str>, Row), (b, right)| query.compare_rows((a, left), (b, right)));
            let is_complete = query.limit.is_none_or(|limit| rows.len() < limit);
            rows.truncate(query.limit.unwrap_or(usize::MAX));
            answers.push((FoundRows { rows, is_complete, too_much: None }, packed.len()));
        }
        Ok(answers)
    }

    /// Loads rows of one table: for each region its ids, or the whole table if that is small enough (see [`Loaded`]).
    /// One query for all regions, and one more where small tables are tried whole.
    pub(crate) fn load(&mut self, entity: EntityNo, wanted: &[Wanted<'_>]) -> Result<Vec<Loaded>, StoreError> {
        // Waiting for the store is not the handler's time.
        let _waiting = (self.watch.pause(), self.loads.wait());
        let reader = reader(&mut self.reader, &self.readers)?;
        let mut loaded: Vec<Loaded> = wanted.iter().map(|_| Loaded::default()).collect();
        let limit = RegionLimit { rows: WHOLE_REGION_ROWS_MAX, bytes: WHOLE_REGION_BYTES_MAX };
        let places: Vec<usize> = (0..wanted.len()).filter(|at| wanted[*at].ask == Ask::TryAll).collect();
        // As many at a time as are known to be small: of a region that is too large, much comes along that is thrown away.
        let mut small = places.as_slice();
        while !small.is_empty() {
            let (now, rest) = small.split_at(self.tried.regions().min(small.len()));
            let (bytes, whole) = try_whole(reader.as_mut(), entity, wanted, now, &mut loaded, limit)?;
            self.tried.note(&bytes, &whole);
            small = rest;
        }
        // A region may be wanted twice, in neighbouring places: all of it has come for the first.
        for at in 1..wanted.len() {
            loaded[at].is_whole |= loaded[at - 1].is_whole && wanted[at].region == wanted[at - 1].region;
        }
        let asked = (0..wanted.len()).filter(|at| !loaded[*at].is_whole && wanted[*at].ask != Ask::Ids);
        let (mut places, mut rows_max) = (Vec::new(), 0);
        for at in asked {
            if let Some(rows) = self.loaded.note(entity, &wanted[at]) {
                places.push(at);
                rows_max = rows.max(rows_max);
            }
        }
        // A few at a time: they are large, and what is too large comes along for nothing.
        for places in places.chunks(REGIONS_TRIED_MIN) {
            let limit = RegionLimit { rows: rows_max, bytes: self.loaded.bytes_max / places.len() };
            try_whole(reader.as_mut(), entity, wanted, places, &mut loaded, limit)?;
        }
        let places: Vec<usize> = (0..wanted.len()).filter(|at| !loaded[*at].is_whole).collect();
        let ids: Vec<RegionIds<'_>> =
            places.iter().map(|at| RegionIds { region: wanted[*at].region, ids: &wanted[*at].ids }).collect();
        if ids.iter().any(|region| !region.ids.is_empty()) {
            let mut found = vec![Vec::new(); ids.len()];
            reader.rows(entity, &ids, &mut found)?;
            for (at, packed) in places.iter().zip(found) {
                loaded[*at].packed = packed;
            }
        }
        Ok(loaded)
    }
}

/// Tries to load the whole tables of some regions in one query. Returns how many bytes were found of each, and which are
/// here whole.
fn try_whole(
    reader: &mut dyn RowReader,
    entity: EntityNo,
    wanted: &[Wanted<'_>],
    places: &[usize],
    loaded: &mut [Loaded],
    limit: RegionLimit,
) -> Result<(Vec<usize>, Vec<bool>), StoreError> {
    let regions: Vec<&str> = places.iter().map(|at| wanted[*at].region).collect();
    let mut found = vec![Vec::new(); regions.len()];
    let whole = reader.regions(entity, &regions, limit, &mut found)?;
    let bytes = found.iter().map(Vec::len).collect();
    for ((at, packed), is_whole) in places.iter().zip(found).zip(&whole) {
        if *is_whole {
            loaded[*at] = Loaded { packed, is_whole: true };
        }
    }
    Ok((bytes, whole))
}

/// Which tables it may pay to load whole although they are not small: those of which many rows were asked for by their
/// ids. To learn which ids handlers will miss, calls are run dry; a row that comes along with its table costs a small
/// part of that.
struct WholeTables {
    /// Of tables of which many rows were asked for at once: how many in all, and at how many all of it is tried next.
    asked: HashMap<(EntityNo, Box<str>), (usize, usize)>,
    /// Bytes, in packed form, that may be loaded at once.
    bytes_max: usize,
}

impl WholeTables {
    /// Fewer ids at once are not noted.
    const IDS_MIN: usize = 64;
    /// A table is tried when so many of its rows were asked for, and each time that there are four times as many.
    const FIRST_TRY: usize = 512;
    /// It may have so many times as many rows. Those of a larger one are read in vain.
    const ROWS_A_ROW: usize = 8;
    /// The share of the memory that may be loaded at once: in a VM rows take several times as much.
    const MEMORY_SHARE: usize = 64;

    fn new(memory_bytes: usize) -> Self {
        Self { asked: HashMap::new(), bytes_max: memory_bytes / Self::MEMORY_SHARE }
    }

    /// Notes that rows of a table are asked for by id. Returns how many rows it may have for all of it to be tried now.
    fn note(&mut self, entity: EntityNo, wanted: &Wanted<'_>) -> Option<usize> {
        if wanted.ids.len() < Self::IDS_MIN {
            return None;
        }
        let (asked, next) = self.asked.entry((entity, wanted.region.into())).or_insert((0, Self::FIRST_TRY));
        *asked += wanted.ids.len();
        if *asked < *next {
            return None;
        }
        *next = *asked * 4;
        Some(*asked * Self::ROWS_A_ROW)
    }
}

/// Rows of a region to be loaded.
pub(crate) struct Wanted<'w> {
    pub(crate) region: &'w str,
    pub(crate) ids: Vec<&'w str>,
    pub(crate) ask: Ask,
}

/// The first rows of a query among those that are committed.
#[derive(Debug, Default)]
pub(crate) struct FoundRows {
    /// In the query's order.
    pub(crate) rows: Vec<(Box<str>, Row)>,
    /// Whether there are no more.
    pub(crate) is_complete: bool,
    /// There are more than the memory holds, and none are here.
    pub(crate) too_much: Option<LaneError>,
}

/// The reader, opened if it is not yet.
pub(super) fn reader<'r>(
    reader: &'r mut Option<Box<dyn RowReader>>,
    readers: &Arc<dyn OpenReader>,
) -> Result<&'r mut Box<dyn RowReader>, StoreError> {
    match reader {
        Some(reader) => Ok(reader),
        empty => Ok(empty.insert(readers.open()?)),
    }
}

/// How much of a region's table to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// These ids.
    Ids,
    /// All of it if it is small, else these ids.
    TryAll,
    /// It is not small: all of it if so many ids were asked for by now that it pays, else these ids.
    AllIfWorth,
}

/// Rows that the store had.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) packed: Vec<u8>,
    /// Whether they are the region's whole table.
    pub(crate) is_whole: bool,
}

/// A store without rows, for trying handlers.
pub(crate) struct NoRows;

impl OpenReader for NoRows {
    fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
        Ok(Box::new(Self))
    }
}

impl RowReader for NoRows {
    fn rows(&mut self, _: EntityNo, _: &[RegionIds<'_>], _: &mut [Vec<u8>]) -> Result<(), StoreError> {
        Ok(())
    }

    fn regions(
        &mut self,
        _: EntityNo,
        regions: &[&str],
        _: RegionLimit,
        _: &mut [Vec<u8>],
    ) -> Result<Vec<bool>, StoreError> {
        Ok(vec![true; regions.len()])
    }

    fn find(&mut self, _: EntityNo, _: &[RegionQuery<'_>], _: &mut [Vec<u8>]) -> Result<(), StoreError> {
        Ok(())
    }

    fn count(&mut self, _: EntityNo, _: RegionQuery<'_>, _: &[&str]) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_regions_are_tried_whole_while_they_are_small_and_few_once_one_is_not() {
        let mut tried = Tried { regions: REGIONS_TRIED_MIN };
        let mut asked = Vec::new();
        for _ in 0..5 {
            asked.push(tried.regions());
            tried.note(&vec![100; tried.regions()], &vec![true; tried.regions()]);
        }
        assert_eq!(asked, [32, 512, 8192, 8192, 8192]);
        // What is read in vain is as much as before.
        tried.note(&[0; 100], &[[true; 99].as_slice(), &[false]].concat());
        assert_eq!(tried.regions(), 3200);
        tried.note(&[0; 100], &[false; 100]);
        assert_eq!(tried.regions(), REGIONS_TRIED_MIN);
    }
}
