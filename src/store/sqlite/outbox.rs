//! Snapshots that are yet to be published, on a connection of its own: nothing here holds up a commit for longer than a
//! mark takes to be written.

use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::read_only::{lacks_rights, open_anyhow};
use super::{BUSY_TIMEOUT, StoreError, StoreName, keep_plans, tables};
use crate::model::limits::PUBLISH_REQUEST_BYTES_MAX;
use crate::model::timestamp::Timestamp;
use crate::snapshot::Publication;
use crate::store::sql::{signed, unsigned};
use crate::store::{DueSnapshot, Outbox};

pub(in crate::store) struct SqliteOutbox {
    name: StoreName,
    pipeline: String,
    connection: Option<Connection>,
}

impl SqliteOutbox {
    /// Opens nothing yet.
    pub(in crate::store) fn new(name: StoreName, pipeline: String) -> Self {
        Self { name, pipeline, connection: None }
    }

    fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.name)?,
        };
        Ok(self.connection.insert(connection))
    }
}

pub(super) fn open(name: &StoreName) -> Result<Connection, StoreError> {
    if !name.0.exists() {
        return Err(StoreError::Missing { store: name.text() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(&name.0, flags).and_then(|connection| {
        keep_plans(&connection)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // A mark that is lost in a power cut is made again, so it need not be synced.
        connection.execute_batch("PRAGMA synchronous = NORMAL; SELECT count(*) FROM sqlite_schema")?;
        Ok(connection)
    });
    match opened {
        // What may only be read can be published all the same; that it is not marked is told.
        Err(error) if lacks_rights(&error) => open_anyhow(name, BUSY_TIMEOUT).map(|(connection, _)| connection),
        opened => opened.map_err(|error| name.unopened(error)),
    }
}

impl Outbox for SqliteOutbox {
    fn due(&mut self, before: Timestamp, after: &str, limit: usize) -> Result<Vec<DueSnapshot>, StoreError> {
        let doing = self.name.sql("reading what is to be published");
        let pipeline = self.pipeline.clone();
        let connection = self.connection()?;
        let sql = "SELECT s.region, s.id, s.seq, s.block, s.generated_at, s.hash, s.doc, s.published_at IS NOT NULL
             FROM forebay_regions r JOIN forebay_snapshots s
               ON s.pipeline = r.pipeline AND s.region = r.region AND s.seq = r.seq
             WHERE r.pipeline = ?1 AND r.region > ?2 AND (s.published_at IS NULL OR s.published_at < ?3)
             ORDER BY r.region LIMIT ?4";
        let found = connection.prepare_cached(sql).and_then(|mut statement| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows = statement.query((pipeline, after, before.to_millis_text(), limit))?;
            let (mut found, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let (region, doc): (String, String) = (row.get(0)?, row.get(6)?);
                let time: String = row.get(4)?;
                bytes += doc.len();
                let publication = Publication {
                    region: Arc::from(region),
                    id: row.get(1)?,
                    seq: unsigned(row.get(2)?),
                    block: row.get(3)?,
                    time: time.parse().unwrap_or_else(|_| Timestamp::now()),
                    hash: row.get(5)?,
                    doc: Arc::from(doc),
                    follows_rollback: false,
                };
                found.push(DueSnapshot { publication, was_published: row.get(7)? });
                if bytes > PUBLISH_REQUEST_BYTES_MAX {
                    break;
                }
            }
            Ok(found)
        });
        found.map_err(doing)
    }

    fn published(&mut self, after: &str, limit: usize) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        let doing = self.name.sql("reading what is published");
        let pipeline = self.pipeline.clone();
        let sql = "SELECT r.region, r.seq FROM forebay_regions r JOIN forebay_snapshots s
               ON s.pipeline = r.pipeline AND s.region = r.region AND s.seq = r.seq
             WHERE r.pipeline = ?1 AND r.region > ?2 AND s.published_at IS NOT NULL ORDER BY r.region LIMIT ?3";
        let found = self.connection()?.prepare_cached(sql).and_then(|mut statement| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement.query_map((pipeline, after, limit), |row| {
                Ok((Arc::from(row.get::<_, String>(0)?), unsigned(row.get(1)?)))
            })?;
            rows.collect()
        });
        found.map_err(doing)
    }

    fn holds(&mut self, region: &str, seq: u64, block: i64) -> Result<bool, StoreError> {
        let doing = self.name.sql("looking for a snapshot");
        let pipeline = self.pipeline.clone();
        let sql = "SELECT 1 FROM forebay_snapshots WHERE pipeline = ?1 AND region = ?2 AND seq = ?3 AND block = ?4";
        let found = self
            .connection()?
            .prepare_cached(sql)
            .and_then(|mut statement| statement.exists((pipeline, region, signed(seq), block)));
        found.map_err(doing)
    }

    fn signature(&mut self) -> Result<Option<String>, StoreError> {
        let doing = self.name.sql("reading the signature");
        let pipeline = self.pipeline.clone();
        tables::signature(self.connection()?, &pipeline).map_err(doing)
    }

    fn mark(&mut self, published: &[(Arc<str>, u64)], at: Timestamp) -> Result<(), StoreError> {
        let doing = self.name.sql("marking what was published");
        let pipeline = self.pipeline.clone();
        let connection = self.connection()?;
        let marked = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
            let sql = "UPDATE forebay_snapshots SET published_at = ?4 WHERE pipeline = ?1 AND region = ?2 AND seq = ?3";
            let mut statement = transaction.prepare_cached(sql)?;
            for (region, seq) in published {
                statement.execute((&pipeline, &**region, signed(*seq), at.to_millis_text()))?;
            }
            drop(statement);
            transaction.commit()
        });
        marked.map_err(doing)
    }
}
