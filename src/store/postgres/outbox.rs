//! Snapshots that are yet to be published, on a connection of its own.

use std::sync::Arc;

use postgres::types::Type;

use super::binary::{Moment, RawArray};
use super::fault::Fault;
use super::home::Home;
use super::session::{Link, Purpose, Session};
use super::snapshots::newest;
use super::{PostgresAddress, StoreError, error_of, tables};
use crate::model::limits::PUBLISH_REQUEST_BYTES_MAX;
use crate::model::timestamp::Timestamp;
use crate::snapshot::Publication;
use crate::store::sql::{signed, unsigned};
use crate::store::{DueSnapshot, Outbox};

pub(in crate::store) struct PostgresOutbox {
    address: PostgresAddress,
    name: String,
    pipeline: String,
    /// The connection, and where our tables are.
    session: Option<(Session, Home)>,
}

impl PostgresOutbox {
    /// Connects to nothing yet.
    pub(in crate::store) fn new(address: &PostgresAddress, pipeline: String) -> Self {
        Self { name: address.to_string(), address: address.clone(), pipeline, session: None }
    }

    fn connect(&self) -> Result<(Session, Home), Fault> {
        let mut session = Session::open(&self.address, Purpose::General, None)?;
        let pipeline = self.pipeline.clone();
        let home = session.call(move |link| {
            // A mark that is lost in a crash is made again, so it need not be waited for.
            link.run("SET synchronous_commit = off")?;
            Ok(Home::find(link, &pipeline)?.unwrap_or(Home::Beside(pipeline)))
        })?;
        Ok((session, home))
    }

    /// Asks over the connection; over a new one, if it was lost. Whoever asks tries again later.
    fn ask<T: Send + 'static>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&mut Link, &Home) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let session = match self.session.take() {
            Some(session) => Ok(session),
            None => self.connect(),
        };
        let answer = session.and_then(|(mut session, home)| {
            let ours = home.clone();
            let answer = session.call(move |link| work(link, &ours))?;
            self.session = Some((session, home));
            Ok(answer)
        });
        answer.map_err(|fault| error_of(&self.name, doing, fault))
    }
}

impl Outbox for PostgresOutbox {
    fn due(&mut self, before: Timestamp, after: &str, limit: usize) -> Result<Vec<DueSnapshot>, StoreError> {
        let after = after.to_owned();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.ask("reading what is to be published", move |link, home| {
            // The newest of each region is looked up by its key; as many are given back as have those bytes, or one.
            let sql = format!(
                "SELECT region, id, seq, block, generated_at, hash, doc, was_published FROM (
                   SELECT d.*, sum(octet_length(doc)) OVER (ORDER BY region) - octet_length(doc) AS bytes_before FROM (
                     SELECT s.region, s.id, s.seq, s.block, s.generated_at, s.hash, s.doc::text AS doc,
                       s.published_at IS NOT NULL AS was_published
                     FROM {}
                     WHERE r.region > $1 AND (s.published_at IS NULL OR s.published_at < $2)
                     ORDER BY r.region LIMIT $3) d) e
                 WHERE bytes_before <= {PUBLISH_REQUEST_BYTES_MAX} ORDER BY region",
                newest(home)
            );
            let params =
                [(&after as _, Type::TEXT), (&Moment(before) as _, Type::TIMESTAMPTZ), (&limit as _, Type::INT8)];
            let due = |row: &postgres::Row| {
                let Moment(time) = row.try_get(4)?;
                let publication = Publication {
                    region: Arc::from(row.try_get::<_, String>(0)?),
                    id: row.try_get(1)?,
                    seq: unsigned(row.try_get(2)?),
                    block: row.try_get(3)?,
                    time,
                    hash: row.try_get(5)?,
                    doc: Arc::from(row.try_get::<_, String>(6)?),
                    follows_rollback: false,
                };
                Ok(DueSnapshot { publication, was_published: row.try_get(7)? })
            };
            link.query(&sql, &params)?.iter().map(due).collect()
        })
    }

    fn published(&mut self, after: &str, limit: usize) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        let after = after.to_owned();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.ask("reading what is published", move |link, home| {
            let sql = format!(
                "SELECT r.region, r.seq FROM {}
                 WHERE r.region > $1 AND s.published_at IS NOT NULL ORDER BY r.region LIMIT $2",
                newest(home)
            );
            let params = [(&after as _, Type::TEXT), (&limit as _, Type::INT8)];
            let one = |row: &postgres::Row| Ok((Arc::from(row.try_get::<_, String>(0)?), unsigned(row.try_get(1)?)));
            link.query(&sql, &params)?.iter().map(one).collect()
        })
    }

    fn holds(&mut self, region: &str, seq: u64, block: i64) -> Result<bool, StoreError> {
        let region = region.to_owned();
        self.ask("looking for a snapshot", move |link, home| {
            let sql = format!(
                "SELECT 1 FROM {} s WHERE s.region = $1 AND s.seq = $2 AND s.block = $3",
                home.table("snapshots")
            );
            let params = [(&region as _, Type::TEXT), (&signed(seq) as _, Type::INT8), (&block as _, Type::INT8)];
            Ok(!link.query(&sql, &params)?.is_empty())
        })
    }

    fn signature(&mut self) -> Result<Option<String>, StoreError> {
        self.ask("reading the signature", tables::signature)
    }

    fn mark(&mut self, published: &[(Arc<str>, u64)], at: Timestamp) -> Result<(), StoreError> {
        let mut published = published.to_vec();
        // Two at once then most likely lock rows in one order.
        published.sort();
        self.ask("marking what was published", move |link, home| {
            let regions = RawArray::of_texts(published.iter().map(|(region, _)| &**region));
            let seqs = RawArray::of_int8s(published.iter().map(|(_, seq)| signed(*seq)));
            let (table, condition) = home.writable("snapshots", "s");
            let sql = format!(
                "UPDATE {table} s SET published_at = $3 FROM unnest($1, $2) m (region, seq)
                 WHERE {condition} AND s.region = m.region AND s.seq = m.seq"
            );
            let params = [
                (&regions as _, Type::TEXT_ARRAY),
                (&seqs as _, Type::INT8_ARRAY),
                (&Moment(at) as _, Type::TIMESTAMPTZ),
            ];
            link.query(&sql, &params).map(drop)
        })
    }
}
