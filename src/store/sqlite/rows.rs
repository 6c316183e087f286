//! Reading rows beside the writer: a connection of its own, which sees what is committed.

use std::sync::Arc;

use rusqlite::types::ValueRef as SqlRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row};

use super::busy::Patience;
use super::{StoreError, StoreName, find};
use crate::model::ids::EntityNo;
use crate::model::numeric::Numeric;
use crate::model::schema::{Column, Entity, Schema};
use crate::model::value::ColumnType;
use crate::rows::codec::{ValueRef, encode_stored};
use crate::store::sql::{quoted, unsigned};
use crate::store::{KeyPage, RegionCount, RegionIds, RegionLimit, RegionQuery, RowReader};

/// How a key is to lie to the last one of the page before.
const AFTER: &str = "AFTER";

pub(super) struct SqliteRows {
    connection: Connection,
    name: StoreName,
    schema: Arc<Schema>,
    patience: Arc<Patience>,
    select: Vec<String>,
    by_id: Vec<String>,
    by_region: Vec<String>,
    keys: Vec<String>,
}

impl SqliteRows {
    pub(super) fn new(connection: Connection, name: StoreName, schema: Arc<Schema>, patience: Arc<Patience>) -> Self {
        connection.set_prepared_statement_cache_capacity(2 * schema.entities().len() + 64);
        let select = |entity: &Entity, rest: &str| {
            let columns: String = entity.columns.iter().map(|column| format!(", {}", quoted(&column.name))).collect();
            format!("SELECT \"id\"{columns} FROM {} WHERE \"region\" = ?1 {rest}", quoted(&entity.name))
        };
        let by_id = schema.entities().iter().map(|entity| select(entity, "AND \"id\" = ?2")).collect();
        let by_region = schema.entities().iter().map(|entity| select(entity, "ORDER BY \"id\"")).collect();
        let all = schema.entities().iter().map(|entity| select(entity, "")).collect();
        let keys = |entity: &Entity| {
            format!(
                "SELECT \"region\", \"id\" FROM {} WHERE (\"region\", \"id\") {AFTER} (?1, ?2)
                 ORDER BY \"region\", \"id\" LIMIT ?3",
                quoted(&entity.name)
            )
        };
        let keys = schema.entities().iter().map(keys).collect();
        Self { connection, name, schema, patience, select: all, by_id, by_region, keys }
    }
}

impl SqliteRows {
    /// Reads, also from a file that is held for a while; what a try has found before it failed is taken back.
    fn patiently<T>(
        &mut self,
        doing: &'static str,
        found: &mut [Vec<u8>],
        mut read: impl FnMut(&mut Self, &mut [Vec<u8>]) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let before: Vec<usize> = found.iter().map(Vec::len).collect();
        Arc::clone(&self.patience).ask(doing, || {
            found.iter_mut().zip(&before).for_each(|(packed, before)| packed.truncate(*before));
            read(self, found)
        })
    }
}

impl RowReader for SqliteRows {
    fn rows(&mut self, entity: EntityNo, wanted: &[RegionIds<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
        self.patiently("reading rows", found, |rows, found| rows.try_rows(entity, wanted, found))
    }

    fn regions(
        &mut self,
        entity: EntityNo,
        regions: &[&str],
        limit: RegionLimit,
        found: &mut [Vec<u8>],
    ) -> Result<Vec<bool>, StoreError> {
        self.patiently("reading a region", found, |rows, found| rows.try_regions(entity, regions, limit, found))
    }

    fn keys(
        &mut self,
        entity: EntityNo,
        after: Option<(&str, &str)>,
        limit: usize,
        page: &mut KeyPage,
    ) -> Result<(), StoreError> {
        let read = self.patiently("reading ids", &mut [], |rows, _| rows.try_keys(entity, after, limit))?;
        read.iter().for_each(|(region, id)| page.push(region, id));
        Ok(())
    }

    fn find(&mut self, entity: EntityNo, wanted: &[RegionQuery<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
        self.patiently("finding rows", found, |rows, found| rows.try_find(entity, wanted, found))
    }

    fn count(&mut self, entity: EntityNo, wanted: RegionQuery<'_>, but: &[&str]) -> Result<u64, StoreError> {
        Ok(self.counts(entity, &[RegionCount::new(wanted, but)])?.into_iter().sum())
    }

    fn counts(&mut self, entity: EntityNo, wanted: &[RegionCount<'_>]) -> Result<Vec<u64>, StoreError> {
        self.patiently("counting rows", &mut [], |rows, _| rows.try_counts(entity, wanted))
    }
}

/// One try each.
impl SqliteRows {
    fn try_rows(
        &mut self,
        entity: EntityNo,
        wanted: &[RegionIds<'_>],
        found: &mut [Vec<u8>],
    ) -> Result<(), StoreError> {
        let doing = self.name.sql("reading rows");
        let mut statement = self.connection.prepare_cached(&self.by_id[entity.index()]).map_err(&doing)?;
        let entity = &self.schema[entity];
        for (RegionIds { region, ids }, packed) in wanted.iter().zip(found) {
            for id in *ids {
                statement.query_row((region, id), |row| pack(entity, row, packed)).optional().map_err(&doing)?;
            }
        }
        Ok(())
    }

    fn try_regions(
        &mut self,
        entity: EntityNo,
        regions: &[&str],
        limit: RegionLimit,
        found: &mut [Vec<u8>],
    ) -> Result<Vec<bool>, StoreError> {
        let doing = self.name.sql("reading a region");
        let mut statement = self.connection.prepare_cached(&self.by_region[entity.index()]).map_err(&doing)?;
        let entity = &self.schema[entity];
        let whole = regions.iter().zip(found).map(|(region, packed)| {
            let (started, mut count) = (packed.len(), 0);
            let mut rows = statement.query([region])?;
            while let Some(row) = rows.next()? {
                count += 1;
                if count > limit.rows || packed.len() - started > limit.bytes {
                    return Ok(false);
                }
                pack(entity, row, packed)?;
            }
            Ok(true)
        });
        whole.collect::<rusqlite::Result<Vec<bool>>>().map_err(&doing)
    }

    fn try_keys(&mut self, entity: EntityNo, after: Option<(&str, &str)>, limit: usize) -> Result<KeyPage, StoreError> {
        let doing = self.name.sql("reading ids");
        let mut page = KeyPage::default();
        let sql = self.keys[entity.index()].replace(AFTER, if after.is_some() { ">" } else { ">=" });
        let (region, id) = after.unwrap_or_default();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(&sql).map_err(&doing)?;
        let mut rows = statement.query((region, id, limit)).map_err(&doing)?;
        while let Some(row) = rows.next().map_err(&doing)? {
            let key = row.get_ref(0).map_err(&doing)?.as_str().and_then(|region| {
                let id = row.get_ref(1).map_err(|_| rusqlite::types::FromSqlError::InvalidType)?.as_str()?;
                page.push(region, id);
                Ok(())
            });
            key.map_err(|error| doing(error.into()))?;
        }
        Ok(page)
    }

    fn try_find(
        &mut self,
        entity: EntityNo,
        wanted: &[RegionQuery<'_>],
        found: &mut [Vec<u8>],
    ) -> Result<(), StoreError> {
        let doing = self.name.sql("finding rows");
        let described = &self.schema[entity];
        for (RegionQuery { region, query }, packed) in wanted.iter().zip(found) {
            for part in find::parts(described, query) {
                let hint = find::index_hint(described, query);
                let found =
                    prepare(&self.connection, hint, &self.select[entity.index()], &part).and_then(|mut statement| {
                        find::bind(&mut statement, region, query)?;
                        let mut rows = statement.raw_query();
                        while let Some(row) = rows.next()? {
                            pack(described, row, packed)?;
                        }
                        Ok(())
                    });
                found.map_err(&doing)?;
            }
        }
        Ok(())
    }

    fn try_counts(&mut self, entity: EntityNo, wanted: &[RegionCount<'_>]) -> Result<Vec<u64>, StoreError> {
        let doing = self.name.sql("counting rows");
        let described = &self.schema[entity];
        let table = quoted(&described.name);
        // One state of the file for all of it.
        let transaction = self.connection.transaction().map_err(&doing)?;
        let count = |RegionCount { of: RegionQuery { region, query }, but }: &RegionCount<'_>| {
            let conditions = find::conditions(described, query);
            let select = format!("SELECT count(*) FROM {table} WHERE \"region\" = ?1");
            let mut all = prepare(&transaction, find::index_hint(described, query), &select, &conditions)?;
            find::bind(&mut all, region, query)?;
            let mut rows = all.raw_query();
            let mut count = rows.next()?.map_or(Ok(0), |row| row.get::<_, i64>(0)).map(unsigned)?;
            let id = find::parameters(query) + 1;
            let sql = format!("SELECT 1 FROM {table} WHERE \"region\" = ?1{conditions} AND \"id\" = ?{id}");
            let mut one = transaction.prepare_cached(&sql)?;
            for but in *but {
                find::bind(&mut one, region, query)?;
                one.raw_bind_parameter(id, but)?;
                let mut rows = one.raw_query();
                count -= u64::from(rows.next()?.is_some());
            }
            Ok(count)
        };
        wanted.iter().map(count).collect::<rusqlite::Result<_>>().map_err(doing)
    }
}

/// Prepares a search by an index; without it if somebody has removed it.
fn prepare<'c>(
    connection: &'c Connection,
    hint: Option<String>,
    select: &str,
    rest: &str,
) -> rusqlite::Result<CachedStatement<'c>> {
    if let Some(hint) = hint {
        let sql = format!("{} {rest}", select.replacen(" WHERE ", &format!("{hint} WHERE "), 1));
        if let Ok(statement) = connection.prepare_cached(&sql) {
            return Ok(statement);
        }
    }
    connection.prepare_cached(&format!("{select} {rest}"))
}

/// Appends a row `id, columns…` in packed form.
fn pack(entity: &Entity, row: &Row<'_>, packed: &mut Vec<u8>) -> rusqlite::Result<()> {
    let mut values = Vec::with_capacity(entity.columns.len());
    for (at, column) in entity.columns.iter().enumerate() {
        values.push(value(column, row.get_ref(at + 1)?, at + 1)?);
    }
    let id = row.get_ref(0)?.as_str()?;
    encode_stored(entity, id, &values, packed);
    Ok(())
}

fn value<'r>(column: &Column, stored: SqlRef<'r>, at: usize) -> rusqlite::Result<ValueRef<'r>> {
    if stored == SqlRef::Null {
        return Ok(ValueRef::Null);
    }
    Ok(match column.kind {
        ColumnType::Text => ValueRef::Text(stored.as_str()?),
        ColumnType::Boolean => ValueRef::Boolean(stored.as_i64()? != 0),
        ColumnType::Bigint => ValueRef::Bigint(stored.as_i64()?),
        ColumnType::Double => ValueRef::Double(stored.as_f64()?),
        ColumnType::Numeric => {
            let text = stored.as_str()?;
            let refused =
                |error| rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(error));
            ValueRef::Numeric(text.parse::<Numeric>().map_err(refused)?)
        }
        ColumnType::Timestamptz => ValueRef::Timestamptz(stored.as_str()?),
        ColumnType::Jsonb => ValueRef::Jsonb(stored.as_str()?),
        ColumnType::Bytes => ValueRef::Bytes(stored.as_blob()?),
    })
}
