//! Reading snapshots and status from the SQLite store. Takes no lock and makes nothing.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, Params, Row};

use super::read_only::{self, Still};
use super::{BUSY_TIMEOUT, StoreError, StoreName, beside, quarantine, source, tables};
use crate::batch::Quarantined;
use crate::store::sql::unsigned;
use crate::store::{PipelineStatus, RegionStatus, SnapshotReader, StoredSnapshot};

const COLUMNS: &str = "s.region, s.id, s.seq, s.block, s.generated_at, s.doc, s.published_at";

pub(in crate::store) struct SqliteSnapshots {
    connection: Connection,
    name: StoreName,
    /// The file as it was opened, if it is read as one that does not change.
    still: Option<Still>,
}

impl SqliteSnapshots {
    pub(in crate::store) fn open(path: &Path) -> Result<Self, StoreError> {
        let name = StoreName(path.to_owned());
        let (connection, still) = read_only::open_anyhow(&name, BUSY_TIMEOUT)?;
        Self { connection, name, still }.checked()
    }

    /// Refuses a file that no run has used.
    fn checked(mut self) -> Result<Self, StoreError> {
        let sql = "SELECT count(*), count(*) FILTER (WHERE name = 'forebay_pipelines') FROM sqlite_schema";
        let tables = self.ask(|this| {
            let found = this.connection.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
            found.map_err(this.name.sql("reading the tables"))
        });
        match tables? {
            // A run that has just begun makes the file first, and all tables at once then.
            (0, _) => Err(StoreError::Missing { store: self.name.text() }),
            (_, 0) => Err(self.name.cannot_open("it holds no table of forebay; has `forebay run` used it?")),
            _ => Ok(self),
        }
    }

    fn select(&self, sql: &str, params: impl Params) -> Result<Vec<StoredSnapshot>, StoreError> {
        let rows = self.connection.prepare_cached(sql).and_then(|mut statement| {
            let rows = statement.query_map(params, snapshot)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        rows.map_err(self.name.sql("reading snapshots"))
    }

    /// Asks. What was read from a file that has changed under a connection that does not look is read again.
    fn ask<T>(&mut self, ask: impl Fn(&Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let answer = ask(self);
        match &self.still {
            Some(still) if still.has_changed(&self.name) => {
                (self.connection, self.still) = (read_only::open(&self.name, BUSY_TIMEOUT)?, None);
                ask(self)
            }
            _ => answer,
        }
    }
}

fn snapshot(row: &Row<'_>) -> rusqlite::Result<StoredSnapshot> {
    Ok(StoredSnapshot {
        region: row.get(0)?,
        id: row.get(1)?,
        seq: Some(unsigned(row.get(2)?)),
        block: Some(row.get(3)?),
        generated_at: Some(row.get(4)?),
        doc: row.get(5)?,
        published_at: row.get(6)?,
    })
}

impl SnapshotReader for SqliteSnapshots {
    fn pipelines(&mut self) -> Result<Vec<String>, StoreError> {
        self.ask(Self::read_pipelines)
    }

    fn latest(&mut self, pipeline: &str, regions: &[String]) -> Result<Vec<StoredSnapshot>, StoreError> {
        self.ask(|open| open.read_latest(pipeline, regions))
    }

    fn history(
        &mut self,
        pipeline: &str,
        region: &str,
        limit: usize,
        since: Option<&str>,
    ) -> Result<Vec<StoredSnapshot>, StoreError> {
        self.ask(|open| open.read_history(pipeline, region, limit, since))
    }

    fn show(&mut self, pipeline: &str, id: &str) -> Result<Option<StoredSnapshot>, StoreError> {
        self.ask(|open| open.read_one(pipeline, id))
    }

    fn status(&mut self, pipeline: &str) -> Result<Option<PipelineStatus>, StoreError> {
        self.ask(|open| open.read_status(pipeline))
    }

    fn quarantined(&mut self, pipeline: &str) -> Result<Vec<Quarantined>, StoreError> {
        self.ask(|open| open.read_quarantine(pipeline))
    }
}

/// One look each.
impl SqliteSnapshots {
    fn read_pipelines(&self) -> Result<Vec<String>, StoreError> {
        let names = self.connection.prepare("SELECT pipeline FROM forebay_pipelines ORDER BY pipeline").and_then(
            |mut statement| {
                let rows = statement.query_map([], |row| row.get(0))?;
                rows.collect()
            },
        );
        names.map_err(self.name.sql("reading the pipelines"))
    }

    fn read_latest(&self, pipeline: &str, regions: &[String]) -> Result<Vec<StoredSnapshot>, StoreError> {
        if regions.is_empty() {
            let sql = format!(
                "SELECT {COLUMNS} FROM forebay_regions r JOIN forebay_snapshots s
                 ON s.pipeline = r.pipeline AND s.region = r.region AND s.seq = r.seq
                 WHERE r.pipeline = ?1 ORDER BY s.region"
            );
            return self.select(&sql, [pipeline]);
        }
        let mut found = Vec::new();
        for region in regions {
            found.extend(self.read_history(pipeline, region, 1, None)?);
        }
        Ok(found)
    }

    fn read_history(
        &self,
        pipeline: &str,
        region: &str,
        limit: usize,
        since: Option<&str>,
    ) -> Result<Vec<StoredSnapshot>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM forebay_snapshots s
             WHERE s.pipeline = ?1 AND s.region = ?2 AND s.generated_at >= ?3 ORDER BY s.seq DESC LIMIT ?4"
        );
        self.select(&sql, (pipeline, region, since.unwrap_or(""), i64::try_from(limit).unwrap_or(i64::MAX)))
    }

    fn read_one(&self, pipeline: &str, id: &str) -> Result<Option<StoredSnapshot>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM forebay_snapshots s WHERE s.pipeline = ?1 AND s.id = ?2");
        Ok(self.select(&sql, (pipeline, id))?.pop())
    }

    fn read_status(&self, pipeline: &str) -> Result<Option<PipelineStatus>, StoreError> {
        let doing = self.name.sql("reading the status");
        let Some(checkpoint) = tables::checkpoint(&self.connection, pipeline).map_err(&doing)? else { return Ok(None) };
        let position = source::position(&self.connection, pipeline).map_err(&doing)?;
        let committed_at = tables::committed_at(&self.connection, pipeline).map_err(&doing)?;
        let sql = "SELECT has_snapshots FROM forebay_pipelines WHERE pipeline = ?1";
        let has_snapshots = self.connection.query_row(sql, [pipeline], |row| row.get(0)).map_err(&doing)?;
        let newest = self.read_latest(pipeline, &[])?;
        let mut newest: HashMap<String, StoredSnapshot> =
            newest.into_iter().map(|snapshot| (snapshot.region.clone(), snapshot)).collect();
        let sql =
            "SELECT region, block, events, snapshot_block FROM forebay_regions WHERE pipeline = ?1 ORDER BY region";
        let regions = self.connection.prepare(sql).and_then(|mut statement| {
            let rows = statement.query_map([pipeline], |row| {
                let region: String = row.get(0)?;
                let snapshot = newest.remove(&region);
                Ok(RegionStatus {
                    region,
                    block: row.get(1)?,
                    events: unsigned(row.get(2)?),
                    snapshot_block: row.get(3)?,
                    snapshot,
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        let regions = regions.map_err(&doing)?;
        let signature = tables::signature(&self.connection, pipeline).map_err(&doing)?;
        let quarantined = quarantine::count(&self.connection, pipeline).map_err(doing)?;
        let fresh = beside::status(&self.name.0, pipeline);
        Ok(Some(PipelineStatus {
            checkpoint,
            position,
            committed_at,
            has_snapshots,
            regions,
            signature,
            quarantined,
            fresh,
        }))
    }

    fn read_quarantine(&self, pipeline: &str) -> Result<Vec<Quarantined>, StoreError> {
        quarantine::read(&self.connection, pipeline).map_err(self.name.sql("reading the quarantine"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StorePlan;

    /// What a reader that has opened the file at each moment of a run's beginning says of it then.
    #[test]
    fn a_run_that_has_just_begun_is_no_strangers_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, name) = (folder.path().join("p.db"), StoreName(folder.path().join("p.db")));
        let opened = || {
            let (connection, still) = read_only::open_anyhow(&name, BUSY_TIMEOUT).expect("a file");
            SqliteSnapshots { connection, name: name.clone(), still }
        };
        let is_missing = |found: Result<SqliteSnapshots, StoreError>| matches!(found, Err(StoreError::Missing { .. }));
        // It has made the file, and nothing in it.
        let writer = Connection::open(&path).expect("a writer");
        writer.execute_batch("PRAGMA user_version = 0").expect("a file");
        std::fs::File::create(&path).expect("a file");
        assert!(is_missing(opened().checked()));
        let empty = opened();
        assert!(empty.still.is_some(), "no log lies beside it yet");
        // Then the log.
        writer.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).expect("a log");
        assert!(is_missing(opened().checked()));
        let plan = StorePlan::new("p", Default::default()).expect("a plan");
        let store = crate::store::sqlite::open(&path, plan).expect("a store");
        // Who opened it before there was a log reads what is in there now.
        let mut early = empty.checked().expect("its tables are there by now");
        assert_eq!(early.status("p").expect("a status").map(|status| status.checkpoint.block), Some(None));
        drop(store);
        // A file of somebody else's is told.
        let other = StoreName(folder.path().join("other.db"));
        Connection::open(&other.0).expect("a file").execute_batch("CREATE TABLE t (x)").expect("a table");
        let refused = SqliteSnapshots::open(&other.0).err().expect("it is no store").to_string();
        assert!(refused.contains("it holds no table of forebay"), "{refused}");
    }
}
