//! How full the pages of a table are made.
//!
//! A table whose rows change again and again wants room in each page: a changed row then stays in its page, and no
//! index is touched (PostgreSQL calls that a HOT update). A table whose rows only ever come wants none. Which of the two
//! a table is shows in its first batches: it is made with room, and loses it where that is of no use. What an owner of
//! the database has set stays as it is, and tables of an earlier version are left alone.

use postgres::types::Type;

use super::fault::Fault;
use super::session::Link;
use crate::batch::SealedBatch;
use crate::model::limits::UNNEST_ROWS_MAX;
use crate::rows::changes::ChangeCounts;

/// How full pages are made of a table whose rows may change, in percent. A batch may change every row of a page, so a page
/// holds each twice until the old ones are cleaned up. At 50 nearly all updates of the balances in examples/erc20 stayed in
/// their pages, at 70 four of five, at 100 one of seven; and the table was the smallest at 50. To see it again, set another
/// value by `ALTER TABLE` behind the first block, and read `pg_stat_user_tables`.
pub(super) const ROOMY: u8 = 50;

/// Batches that have to be seen of a table.
const BATCHES_SEEN: u8 = 3;

/// Rows that have to be seen of a table that earlier runs made.
const ROWS_SEEN: u32 = 10_000;

/// How many times more new rows than changed ones there are where room in pages is of no use.
const NEW_SHARE_MIN: u64 = 4;

/// What was seen of each table in this run.
pub(super) struct Fill(Vec<Seen>);

#[derive(Default)]
struct Seen {
    was_empty: bool,
    batches: u8,
    new: u64,
    changed: u64,
}

impl Fill {
    pub(super) fn new(tables: usize) -> Self {
        Self((0..tables).map(|_| Seen::default()).collect())
    }

    /// Notes which tables have no row yet: what is said to be new in them is new.
    pub(super) fn note_empty(&mut self, is_empty: &[bool]) {
        self.0.iter_mut().zip(is_empty).for_each(|(seen, is_empty)| seen.was_empty = *is_empty);
    }

    /// Notes a batch that has committed; returns the tables of which it is now seen that their rows only ever come. Each
    /// is named once.
    pub(super) fn note(&mut self, batch: &SealedBatch) -> Vec<usize> {
        let mut only_new = Vec::new();
        for (at, (seen, regions)) in self.0.iter_mut().zip(&batch.changes).enumerate() {
            if seen.batches == BATCHES_SEEN {
                continue;
            }
            let counts = ChangeCounts::of(regions);
            // Rows of a small batch are looked at one by one, so one that was taken for new may have been there.
            if !seen.was_empty && counts.all() <= UNNEST_ROWS_MAX {
                continue;
            }
            seen.batches += 1;
            seen.new += counts.new as u64;
            seen.changed += (counts.written + counts.deleted) as u64;
            if seen.batches == BATCHES_SEEN && seen.new >= NEW_SHARE_MIN * seen.changed {
                only_new.push(at);
            }
        }
        only_new
    }
}

/// Which of a schema's tables were made with room, and have proved since that it is of no use: a list for a SELECT in
/// which `$1` is the schema.
pub(super) fn only_grown() -> String {
    format!(
        "ARRAY(SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.reloptions = ARRAY['fillfactor={ROOMY}']
                 AND pg_stat_get_tuples_inserted(c.oid) >= {ROWS_SEEN}
                 AND pg_stat_get_tuples_inserted(c.oid) >= {NEW_SHARE_MIN} * pg_stat_get_tuples_updated(c.oid))"
    )
}

/// Has the pages of that table filled from now on, if it was made with room. Does not wait for others who work on the
/// table: it is left as it is then, and so it is if the role may not change it.
pub(super) fn fill_up(link: &mut Link, table: &str) -> Result<(), Fault> {
    let marked = format!("fillfactor={ROOMY}");
    let sql = "SELECT 1 FROM pg_catalog.pg_class WHERE oid = $1::text::regclass AND reloptions = ARRAY[$2::text]";
    if link.query(sql, &[(&table, Type::TEXT), (&marked, Type::TEXT)])?.is_empty() {
        return Ok(());
    }
    let sql = format!("BEGIN; SET LOCAL lock_timeout = '50ms'; ALTER TABLE {table} RESET (fillfactor); COMMIT");
    match link.run(&sql) {
        // The table is in use, or another's.
        Err(fault) if fault.code().is_some() => link.run("ROLLBACK"),
        done => done,
    }
}
