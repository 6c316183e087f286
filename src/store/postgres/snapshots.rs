//! Reading snapshots and status from a Postgres store. Takes no lock and makes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use postgres::Row;
use postgres::types::Type;

use super::binary::{Moment, RawArray};
use super::fault::Fault;
use super::home::{self, Home};
use super::session::{Link, Param, Purpose, Session, Stop};
use super::{PostgresAddress, StoreError, advice, beside, quarantine, source, tables};
use crate::batch::Quarantined;
use crate::model::timestamp::Timestamp;
use crate::store::sql::unsigned;
use crate::store::{PipelineStatus, RegionStatus, SnapshotReader, StoredSnapshot};

/// The document as it was written: `json` keeps its text.
const COLUMNS: &str = "s.region, s.id, s.seq, s.block, s.generated_at, s.doc::text, s.published_at";

pub(in crate::store) struct PostgresSnapshots {
    session: Session,
    name: String,
    /// Set when whoever asks is to stop.
    stop: Arc<AtomicBool>,
}

impl PostgresSnapshots {
    pub(in crate::store) fn open(address: &PostgresAddress, stop: &Arc<AtomicBool>) -> Result<Self, StoreError> {
        let name = address.to_string();
        let session = connect(address, Some(stop)).map_err(|fault| match fault {
            Fault::Stopped => StoreError::Stopped { store: name.clone(), doing: "connecting", cause: fault.told() },
            fault => {
                let cause = format!("{fault}{}", reading_advice(&fault));
                StoreError::Open { store: name.clone(), cause: fault.into_reason(cause) }
            }
        })?;
        if session.is_exposed(address) {
            super::database::warn_exposed(&name);
        }
        Ok(Self { session, name, stop: Arc::clone(stop) })
    }

    /// Asks of a pipeline, if there is anything to ask: it is told where our tables are.
    fn ask<T: Default + Send + 'static>(
        &mut self,
        doing: &'static str,
        pipeline: &str,
        work: impl FnOnce(&mut Link, &Home) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let pipeline = pipeline.to_owned();
        self.ask_all(doing, move |link| {
            Home::find(link, &pipeline)?.map_or_else(|| Ok(T::default()), |home| work(link, &home))
        })
    }

    /// Asks of all pipelines.
    fn ask_all<T: Send + 'static>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&mut Link) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let limit = reading_limit(self.session.limit());
        self.session.call_within(limit, Some(&self.stop), work).map_err(|fault| {
            let cause = format!("{fault}{}", reading_advice(&fault));
            StoreError::Sql { store: self.name.clone(), doing, cause: fault.into_reason(cause) }
        })
    }
}

/// Somebody waits for what is read: a server that has stopped in the middle of an answer is told within a minute, however
/// long statements of a run may take.
const READING_MAX: Duration = Duration::from_secs(45);

fn reading_limit(limit: Duration) -> Duration {
    limit.min(READING_MAX)
}

/// Connects to a server that may be a standby. Of several hosts one that takes writes has what is newest; where none can
/// be reached, any of them is better than none.
fn connect(address: &PostgresAddress, stop: Stop<'_>) -> Result<Session, Fault> {
    match (Session::open(address, Purpose::General, stop), address.to_any_host()) {
        (Err(fault), Some(any)) if !matches!(fault, Fault::Stopped) => {
            Session::open(&any, Purpose::General, stop).map_err(|_| fault)
        }
        (opened, _) => opened,
    }
}

/// The next step of whoever only reads, where there is one.
fn reading_advice(fault: &Fault) -> &'static str {
    match fault.code().map_or("", |code| code.code()) {
        "42501" => {
            "; give the role USAGE on the schema of the pipeline and SELECT on the tables there that begin with _forebay_"
        }
        _ => advice(fault),
    }
}

fn snapshots(rows: &[Row]) -> Result<Vec<StoredSnapshot>, Fault> {
    rows.iter().map(snapshot).collect()
}

fn snapshot(row: &Row) -> Result<StoredSnapshot, Fault> {
    let Moment(time) = row.try_get(4)?;
    Ok(StoredSnapshot {
        region: row.try_get(0)?,
        id: row.try_get(1)?,
        seq: Some(unsigned(row.try_get(2)?)),
        block: Some(row.try_get(3)?),
        generated_at: Some(time.to_millis_text()),
        doc: row.try_get(5)?,
        published_at: row.try_get::<_, Option<Moment>>(6)?.map(|Moment(time)| time.to_millis_text()),
    })
}

/// The newest snapshot `s` of each region `r`. It is looked up by its key: a join could be planned from statistics that
/// know nothing of the pipeline yet, and then compares all with all.
pub(super) fn newest(home: &Home) -> String {
    format!(
        "{} r CROSS JOIN LATERAL (SELECT * FROM {} n WHERE n.region = r.region AND n.seq = r.seq LIMIT 1) s",
        home.table("regions"),
        home.table("snapshots")
    )
}

/// The newest snapshot of each region, or of those that are given, in one round trip.
fn latest(link: &mut Link, home: &Home, regions: Option<&RawArray>) -> Result<Vec<StoredSnapshot>, Fault> {
    let of_regions = if regions.is_some() { "WHERE r.region = ANY ($1)" } else { "" };
    let sql = format!("SELECT {COLUMNS} FROM {} {of_regions} ORDER BY r.region", newest(home));
    let params: Vec<Param<'_>> = regions.into_iter().map(|regions| (regions as _, Type::TEXT_ARRAY)).collect();
    let mut found = Vec::new();
    // Row by row, so that many of them are no standstill.
    link.each(&sql, &params, |row| {
        found.push(snapshot(row)?);
        Ok(())
    })?;
    Ok(found)
}

impl SnapshotReader for PostgresSnapshots {
    fn pipelines(&mut self) -> Result<Vec<String>, StoreError> {
        self.ask_all("reading the pipelines", home::pipelines)
    }

    fn latest(&mut self, pipeline: &str, regions: &[String]) -> Result<Vec<StoredSnapshot>, StoreError> {
        let wanted = (!regions.is_empty()).then(|| RawArray::of_texts(regions.iter().map(String::as_str)));
        let mut found =
            self.ask("reading snapshots", pipeline, move |link, home| latest(link, home, wanted.as_ref()))?;
        // In the order in which they were asked for.
        let place = |snapshot: &StoredSnapshot| regions.iter().position(|region| *region == snapshot.region);
        if !regions.is_empty() {
            found.sort_by_key(place);
        }
        Ok(found)
    }

    fn history(
        &mut self,
        pipeline: &str,
        region: &str,
        limit: usize,
        since: Option<&str>,
    ) -> Result<Vec<StoredSnapshot>, StoreError> {
        let region = region.to_owned();
        let since = since.and_then(|since| since.parse().ok()).unwrap_or(Timestamp::MIN);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.ask("reading snapshots", pipeline, move |link, home| {
            let sql = format!(
                "SELECT {COLUMNS} FROM {} s WHERE s.region = $1 AND s.generated_at >= $2 ORDER BY s.seq DESC LIMIT $3",
                home.table("snapshots")
            );
            let params =
                [(&region as _, Type::TEXT), (&Moment(since) as _, Type::TIMESTAMPTZ), (&limit as _, Type::INT8)];
            snapshots(&link.query(&sql, &params)?)
        })
    }

    fn show(&mut self, pipeline: &str, id: &str) -> Result<Option<StoredSnapshot>, StoreError> {
        let id = id.to_owned();
        self.ask("reading a snapshot", pipeline, move |link, home| {
            let sql = format!("SELECT {COLUMNS} FROM {} s WHERE s.id = $1", home.table("snapshots"));
            Ok(snapshots(&link.query(&sql, &[(&id, Type::TEXT)])?)?.pop())
        })
    }

    fn status(&mut self, pipeline: &str) -> Result<Option<PipelineStatus>, StoreError> {
        self.ask("reading the status", pipeline, move |link, home| {
            // One state of the database for all of it.
            link.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            let status = status(link, home);
            link.run("ROLLBACK")?;
            status
        })
    }

    fn quarantined(&mut self, pipeline: &str) -> Result<Vec<Quarantined>, StoreError> {
        self.ask("reading the quarantine", pipeline, quarantine::read)
    }
}

fn status(link: &mut Link, home: &Home) -> Result<Option<PipelineStatus>, Fault> {
    let Some((checkpoint, committed_at)) = tables::committed(link, home)? else { return Ok(None) };
    let position = source::position(link, home)?;
    let rows = link.query(&format!("SELECT p.has_snapshots FROM {} p", home.table("pipeline")), &[])?;
    let has_snapshots = rows.first().map_or(Ok(false), |row| row.try_get(0))?;
    let newest = latest(link, home, None)?;
    let mut newest: HashMap<String, StoredSnapshot> =
        newest.into_iter().map(|snapshot| (snapshot.region.clone(), snapshot)).collect();
    let sql = format!("SELECT region, block, events, snapshot_block FROM {} r ORDER BY region", home.table("regions"));
    let mut regions = Vec::new();
    for row in link.query(&sql, &[])? {
        let region: String = row.try_get(0)?;
        let snapshot = newest.remove(&region);
        regions.push(RegionStatus {
            region,
            block: row.try_get(1)?,
            events: unsigned(row.try_get(2)?),
            snapshot_block: row.try_get(3)?,
            snapshot,
        });
    }
    let committed_at = committed_at.map(Timestamp::to_millis_text);
    let (signature, quarantined) = (tables::signature(link, home)?, quarantine::count(link, home)?);
    let fresh = match home {
        Home::Beside(pipeline) => beside::status(link, pipeline)?,
        Home::Earlier(_) => None,
    };
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
