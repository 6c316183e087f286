//! Reading rows beside the writer: over a few connections of its own, which the lanes share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use postgres::Row;
use postgres::types::Type;

use super::READERS_MAX;
use super::binary::{Raw, RawArray, types_of, value_of};
use super::database::Database;
use super::fault::Fault;
use super::find;
use super::outage::Outage;
use super::session::{Link, Param, Purpose, Session};
use super::tables::table_name;
use crate::model::ids::EntityNo;
use crate::model::limits::WAIT_STEP;
use crate::model::schema::Entity;
use crate::rows::codec::{ValueRef, encode_stored};
use crate::store::sql::{quoted, unsigned};
use crate::store::{KeyPage, OpenReader, RegionCount, RegionIds, RegionLimit, RegionQuery, RowReader, StoreError};

/// How a key is to lie to the last one of the page before.
const AFTER: &str = "AFTER";

/// Connections that read. A place without one is connected when it is needed.
pub(super) struct Readers {
    database: Arc<Database>,
    free: Receiver<Pooled>,
    back: Sender<Pooled>,
    queries: Vec<Queries>,
}

/// A connection, and the generation of the writer's connection in which it was made.
type Pooled = Option<(u64, Session)>;

/// The statements of one table.
struct Queries {
    by_ids: String,
    by_region: String,
    /// What a search reads: columns, and from where.
    find: String,
    keys: String,
    table: String,
}

impl Queries {
    fn new(pipeline: &str, entity: &Entity) -> Self {
        let table = table_name(pipeline, &entity.name);
        let columns: String = entity.columns.iter().map(|column| format!(", t.{}", quoted(&column.name))).collect();
        Self {
            by_ids: format!(
                "SELECT k.n, t.\"id\"{columns} FROM unnest($2::int4[], $3::text[]) k (n, id)
                 JOIN {table} t ON t.\"region\" = ($1::text[])[k.n] AND t.\"id\" = k.id"
            ),
            by_region: format!(
                "SELECT k.n::int4, t.* FROM unnest($1::text[]) WITH ORDINALITY k (region, n),
                 LATERAL (SELECT t.\"id\"{columns} FROM {table} t WHERE t.\"region\" = k.region ORDER BY t.\"id\" LIMIT $2) t"
            ),
            find: format!("SELECT t.\"id\"{columns} FROM {table} t"),
            keys: format!(
                "SELECT k.\"region\", array_agg(k.\"id\") FROM (
                   SELECT t.\"region\", t.\"id\" FROM {table} t WHERE (t.\"region\", t.\"id\") {AFTER} ($1, $2)
                   ORDER BY t.\"region\", t.\"id\" LIMIT $3) k
                 GROUP BY k.\"region\""
            ),
            table,
        }
    }
}

impl Readers {
    pub(super) fn new(database: Arc<Database>) -> Self {
        let (back, free) = bounded(READERS_MAX);
        for _ in 0..READERS_MAX {
            // There is room for all of them.
            let _ = back.try_send(None);
        }
        let plan = &database.plan;
        let queries = plan.schema.entities().iter().map(|entity| Queries::new(&plan.pipeline, entity)).collect();
        Self { database, free, back, queries }
    }

    /// Runs `work` on a connection; again on another one if the first goes away, for as long as is waited for a database.
    fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl Fn(&mut Link) -> Result<T, Fault> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = &self.database;
        Outage::new(database, doing).until_done(|| {
            let place = self.free_place()?;
            let generation = database.generation.load(Ordering::Acquire);
            let opened = match place {
                Some((made_in, session)) if made_in == generation => Ok(session),
                _ => database.connect(Purpose::ReadKeys, Some(&database.plan.stop)),
            };
            let answer = opened.and_then(|mut session| {
                let work = work.clone();
                session.call_until(Some(&database.plan.stop), work).map(|answer| (session, answer))
            });
            let (session, answer) = answer.inspect_err(|_| drop(self.back.try_send(None)))?;
            let _ = self.back.try_send(Some((generation, session)));
            Ok(answer)
        })
    }

    /// A place that no other lane is using, with its connection if it has one.
    fn free_place(&self) -> Result<Pooled, Fault> {
        loop {
            match self.free.recv_timeout(WAIT_STEP) {
                Ok(place) => return Ok(place),
                Err(RecvTimeoutError::Timeout) if !self.database.plan.stop.load(Ordering::Relaxed) => {}
                Err(_) => return Err(Fault::Gone),
            }
        }
    }
}

/// A lane's way to the readers.
pub(super) struct PostgresRows(pub(super) Arc<Readers>);

/// What makes such ways.
pub(super) struct ReadersOf(pub(super) Arc<Readers>);

impl OpenReader for ReadersOf {
    fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
        Ok(Box::new(PostgresRows(Arc::clone(&self.0))))
    }
}

impl RowReader for PostgresRows {
    fn rows(&mut self, entity: EntityNo, wanted: &[RegionIds<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
        let database = Arc::clone(&self.0.database);
        let sql = self.0.queries[entity.index()].by_ids.clone();
        let regions = RawArray::of_texts(wanted.iter().map(|wanted| wanted.region));
        let (mut places, mut ids) = (RawArray::new(Type::INT4), RawArray::new(Type::TEXT));
        for (place, wanted) in (1_i32..).zip(wanted) {
            for id in wanted.ids {
                places.push_int4(place);
                ids.push_text(id);
            }
        }
        let count = wanted.len();
        let rows = self.0.ask("reading rows", move |link| {
            let params =
                [(&regions as _, Type::TEXT_ARRAY), (&places as _, Type::INT4_ARRAY), (&ids as _, Type::TEXT_ARRAY)];
            gather(link, &sql, &params, &database.plan.schema[entity], count)
        })?;
        for (packed, rows) in found.iter_mut().zip(rows) {
            packed.extend(rows);
        }
        Ok(())
    }

    fn regions(
        &mut self,
        entity: EntityNo,
        regions: &[&str],
        limit: RegionLimit,
        found: &mut [Vec<u8>],
    ) -> Result<Vec<bool>, StoreError> {
        let database = Arc::clone(&self.0.database);
        let sql = self.0.queries[entity.index()].by_region.clone();
        let count = regions.len();
        let regions = RawArray::of_texts(regions.iter().copied());
        // One more than the limit shows that there are more.
        let rows_max = i64::try_from(limit.rows.saturating_add(1)).unwrap_or(i64::MAX);
        let rows = self.0.ask("reading a region", move |link| {
            let entity = &database.plan.schema[entity];
            // Rows and their bytes; none once a region has turned out to be too large.
            let mut found = vec![Some((0_usize, Vec::new())); count];
            link.each(&sql, &[(&regions as _, Type::TEXT_ARRAY), (&rows_max as _, Type::INT8)], |row| {
                let place = place_of(row, count)?;
                let Some((rows, packed)) = &mut found[place] else { return Ok(()) };
                *rows += 1;
                if *rows <= limit.rows && packed.len() <= limit.bytes {
                    return pack(entity, row, packed);
                }
                found[place] = None;
                Ok(())
            })?;
            Ok(found)
        })?;
        let mut whole = Vec::with_capacity(rows.len());
        for (packed, region) in found.iter_mut().zip(rows) {
            whole.push(region.is_some());
            packed.extend(region.map(|(_, rows)| rows).unwrap_or_default());
        }
        Ok(whole)
    }

    fn keys(
        &mut self,
        entity: EntityNo,
        after: Option<(&str, &str)>,
        limit: usize,
        page: &mut KeyPage,
    ) -> Result<(), StoreError> {
        let sql = self.0.queries[entity.index()].keys.replace(AFTER, if after.is_some() { ">" } else { ">=" });
        let after = after.map(|(region, id)| (region.to_owned(), id.to_owned())).unwrap_or_default();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found = self.0.ask("reading ids", move |link| {
            let params = [(&after.0 as _, Type::TEXT), (&after.1 as _, Type::TEXT), (&limit as _, Type::INT8)];
            link.query(&sql, &params)
        })?;
        let mut regions = Vec::with_capacity(found.len());
        for row in &found {
            let keys = row.try_get::<_, &str>(0).and_then(|region| Ok((region, row.try_get::<_, Vec<&str>>(1)?)));
            regions.push(keys.map_err(|error| self.0.database.error("reading ids", error.into()))?);
        }
        // The server groups them in whatever order.
        regions.sort_unstable();
        for (region, ids) in &mut regions {
            ids.sort_unstable();
            ids.iter().for_each(|id| page.push(region, id));
        }
        Ok(())
    }

    fn find(&mut self, entity: EntityNo, wanted: &[RegionQuery<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
        // One question for all queries of the same shape.
        let mut shapes: BTreeMap<(String, Option<usize>), Vec<usize>> = BTreeMap::new();
        let described = &self.0.database.plan.schema[entity];
        for (at, RegionQuery { query, .. }) in wanted.iter().enumerate() {
            let shape = find::shape(described, query, &self.0.queries[entity.index()].find);
            shapes.entry((shape, query.limit)).or_default().push(at);
        }
        for ((sql, limit), places) in shapes {
            let database = Arc::clone(&self.0.database);
            let arrays = find::arrays(described, (1..).zip(places.iter().map(|at| wanted[*at])));
            let limit = limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
            let count = places.len();
            let rows = self.0.ask("finding rows", move |link| {
                let mut params: Vec<Param<'_>> = vec![(&limit as _, Type::INT8)];
                params.extend(arrays.iter().map(|(array, kind)| (array as _, kind.clone())));
                gather(link, &sql, &params, &database.plan.schema[entity], count)
            })?;
            for (at, rows) in places.into_iter().zip(rows) {
                found[at].extend(rows);
            }
        }
        Ok(())
    }

    fn count(&mut self, entity: EntityNo, wanted: RegionQuery<'_>, but: &[&str]) -> Result<u64, StoreError> {
        Ok(self.counts(entity, &[RegionCount::new(wanted, but)])?.into_iter().sum())
    }

    fn counts(&mut self, entity: EntityNo, wanted: &[RegionCount<'_>]) -> Result<Vec<u64>, StoreError> {
        let described = &self.0.database.plan.schema[entity];
        let table = &self.0.queries[entity.index()].table;
        // One question for all counts of the same shape.
        let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, RegionCount { of, .. }) in wanted.iter().enumerate() {
            shapes.entry(find::count(described, of.query, table)).or_default().push(at);
        }
        let mut counts = vec![0; wanted.len()];
        for (sql, places) in shapes {
            let arrays = find::count_arrays(described, places.iter().map(|at| wanted[*at]));
            let count = places.len();
            let answers = self.0.ask("counting rows", move |link| {
                let params: Vec<Param<'_>> = arrays.iter().map(|(array, kind)| (array as _, kind.clone())).collect();
                let mut answers = vec![0; count];
                link.each(&sql, &params, |row| {
                    answers[place_of(row, count)?] = unsigned(row.try_get(1)?);
                    Ok(())
                })?;
                Ok(answers)
            })?;
            for (at, answer) in places.into_iter().zip(answers) {
                counts[at] = answer;
            }
        }
        Ok(counts)
    }
}

/// The packed rows that a statement answers with, by the place of what they were asked for, of which there are `count`.
fn gather(
    link: &mut Link,
    sql: &str,
    params: &[Param<'_>],
    entity: &Entity,
    count: usize,
) -> Result<Vec<Vec<u8>>, Fault> {
    let mut found = vec![Vec::new(); count];
    link.each(sql, params, |row| {
        let place = place_of(row, count)?;
        pack(entity, row, &mut found[place])
    })?;
    Ok(found)
}

/// The region of a row, by its place among those that were asked for.
fn place_of(row: &Row, count: usize) -> Result<usize, Fault> {
    let place: i32 = row.try_get(0)?;
    let place = usize::try_from(place - 1).ok().filter(|place| *place < count);
    place.ok_or_else(|| Fault::Unusable("the server answered with a row that was not asked for".into()))
}

/// Appends a row `place, id, columns…` in packed form.
fn pack(entity: &Entity, row: &Row, packed: &mut Vec<u8>) -> Result<(), Fault> {
    let id: &str = row.try_get(1)?;
    let mut times = vec![String::new(); entity.columns.len()];
    let mut values = Vec::with_capacity(entity.columns.len());
    for ((at, column), time) in entity.columns.iter().enumerate().zip(&mut times) {
        let found = row.columns()[at + 2].type_();
        if *found != types_of(column.kind).0 {
            return Err(Fault::Foreign(format!(
                "{}.{} is {found} in the database now, and {} in the pipeline file",
                entity.name, column.name, column.kind
            )));
        }
        values.push(match row.try_get::<_, Option<Raw<'_>>>(at + 2)? {
            None => ValueRef::Null,
            Some(Raw(raw)) => value_of(entity, column, raw, time)?,
        });
    }
    encode_stored(entity, id, &values, packed);
    Ok(())
}
