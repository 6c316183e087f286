//! Which rows the tables had before the run: found out in the background while it goes on.
//!
//! Of a table that was not empty an engine does not know which rows it has. So it asks the store for each row that is
//! read, and hands each row over as one that may be there. The scan reads the ids of such a table, page by page, into an
//! existence filter that all engines share.
//!
//! The result is exact, whatever commits meanwhile: a row is in the table when the page of its key is read, or an engine
//! of this run has written or deleted it. Nobody else writes, and what an engine has written it knows by itself.
//!
//! A scan has to pay for itself. It starts when engines meet rows that they do not know, and goes on as they meet more:
//! a run of a few events does not read a table of millions.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::loader::reader as reader_of;
use crate::model::ids::EntityNo;
use crate::rows::existence::ExistenceFilter;
use crate::store::{KeyPage, OpenReader, RowReader, StoreError};

/// Ids of a page at most: some 10 ms, so that a run that ends need not wait, and no file is held for long.
const PAGE_IDS: u64 = 16 * 1024;

/// Ids that are read of a table as soon as one of its rows is not known.
const FIRST_IDS: u64 = 4096;

/// Ids that may be read for each row that is not known. To read an id costs some hundredths of what such a row does.
const IDS_A_ROW: u64 = 16;

/// How long the thread sleeps at most when nothing wakes it.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long the end of a run waits for the page that is being read.
const END_MAX: Duration = Duration::from_secs(5);

/// What is found of the tables, as the engines share it.
pub(crate) struct IdScan {
    tables: Vec<ScannedTable>,
    readers: Arc<dyn OpenReader>,
    /// Bytes that the filter of a table may take.
    bytes_max: usize,
    memory_bytes: AtomicUsize,
    guesses_new: Arc<AtomicBool>,
    stop: AtomicBool,
    thread: Mutex<Thread>,
}

struct ScannedTable {
    is_wanted: AtomicBool,
    /// How many of its ids may be read by now.
    ids: AtomicU64,
    found: OnceLock<Arc<ExistenceFilter>>,
}

/// The thread that reads.
enum Thread {
    /// It is not needed yet.
    None,
    /// Each message wakes it; the channel of its end closes when it has ended.
    Reading { wake: Sender<()>, ended: Receiver<()> },
    /// The system gives no thread.
    Refused,
}

impl IdScan {
    /// Nothing is read yet. A table that `is_empty` needs no scan. For `guesses_new` see [`IdScan::guesses_new`].
    pub(crate) fn new(
        is_empty: &[bool],
        readers: Arc<dyn OpenReader>,
        memory_bytes: usize,
        guesses_new: Arc<AtomicBool>,
    ) -> Arc<Self> {
        let table = |is_empty: &bool| ScannedTable {
            is_wanted: AtomicBool::new(!is_empty),
            ids: AtomicU64::new(0),
            found: OnceLock::new(),
        };
        Arc::new(Self {
            tables: is_empty.iter().map(table).collect(),
            readers,
            bytes_max: ExistenceFilter::bytes_max(is_empty.len(), memory_bytes),
            memory_bytes: AtomicUsize::new(0),
            guesses_new,
            stop: AtomicBool::new(false),
            thread: Mutex::new(Thread::None),
        })
    }

    /// The rows that a table had, by the names of their regions, or more; none as long as that is not known.
    pub(crate) fn found(&self, entity: EntityNo) -> Option<&Arc<ExistenceFilter>> {
        self.tables.get(entity.index())?.found.get()
    }

    /// Whether a row that is written without being read counts as new as long as nobody knows, and the scan need not look:
    /// the store finds out.
    pub(crate) fn guesses_new(&self) -> bool {
        self.guesses_new.load(Ordering::Relaxed)
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Notes that an engine has met so many rows of a table of which it could not know whether they are there.
    pub(crate) fn note_unknown(self: &Arc<Self>, entity: EntityNo, rows: u64) {
        let Some(table) = self.tables.get(entity.index()) else { return };
        if rows == 0 || !table.is_wanted.load(Ordering::Relaxed) {
            return;
        }
        let added = rows.saturating_mul(IDS_A_ROW);
        let _ = table.ids.compare_exchange(0, FIRST_IDS, Ordering::Relaxed, Ordering::Relaxed);
        let before = table.ids.fetch_add(added, Ordering::Relaxed);
        // Not for each: a page is not smaller than that.
        if before == FIRST_IDS || before / FIRST_IDS != (before + added) / FIRST_IDS {
            self.wake();
        }
    }

    fn wake(self: &Arc<Self>) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        match &*thread {
            Thread::Reading { wake, .. } => match wake.try_send(()) {
                // A wake waits already, or there is nothing left to read.
                Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            },
            Thread::Refused => {}
            Thread::None => {
                let (wake, awoken) = bounded(1);
                let (end, ended) = bounded(0);
                let scan = Arc::clone(self);
                let spawned = std::thread::Builder::new().name("forebay-scan".into()).spawn(move || {
                    scan.run(&awoken);
                    drop::<Sender<()>>(end);
                });
                let _ = wake.try_send(());
                *thread = match spawned {
                    Ok(_) => Thread::Reading { wake, ended },
                    Err(_) => Thread::Refused,
                };
            }
        }
    }

    /// Contract of the scan's thread. In: wakes, over a bounded channel, and how many ids may be read. Out: the filter of
    /// each table, once. Touches: the store, reading, over a connection of its own. Ends: when all tables are read or given
    /// up, or soon after it is to stop. Nothing depends on it: what it cannot read, engines ask for row by row.
    fn run(&self, awoken: &Receiver<()>) {
        let mut scans: Vec<Scan> =
            EntityNo::in_order().zip(&self.tables).map(|(entity, _)| Scan::new(entity, self.bytes_max)).collect();
        let mut reader = None;
        while !self.is_stopped() && self.tables.iter().any(|table| table.is_wanted.load(Ordering::Relaxed)) {
            let mut was_read = false;
            for (scan, table) in scans.iter_mut().zip(&self.tables) {
                if self.is_stopped() || !table.is_wanted.load(Ordering::Relaxed) {
                    continue;
                }
                match scan.go_on(table.ids.load(Ordering::Relaxed), &mut reader, &self.readers) {
                    Ok(Progress::Waits) => {}
                    Ok(Progress::Read) => was_read = true,
                    Ok(Progress::Whole) => {
                        let filter = std::mem::replace(&mut scan.filter, ExistenceFilter::new(0));
                        scan.bytes = filter.memory_bytes();
                        let _ = table.found.set(Arc::new(filter));
                        table.is_wanted.store(false, Ordering::Relaxed);
                    }
                    Ok(Progress::TooLarge) => table.is_wanted.store(false, Ordering::Relaxed),
                    Err(error) => {
                        tracing::debug!("the ids of a table are not read in advance: {error}");
                        table.is_wanted.store(false, Ordering::Relaxed);
                    }
                }
            }
            self.memory_bytes.store(scans.iter().map(Scan::memory_bytes).sum(), Ordering::Relaxed);
            if !was_read {
                match awoken.recv_timeout(IDLE_MAX) {
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the scan. Waits for the page that is being read, for a few seconds at most: afterwards the store is to be ours
    /// alone.
    pub(crate) fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread =
            std::mem::replace(&mut *self.thread.lock().unwrap_or_else(PoisonError::into_inner), Thread::Refused);
        if let Thread::Reading { wake, ended } = thread {
            drop(wake);
            let _ = ended.recv_timeout(END_MAX);
        }
    }
}

/// One table, as it is being read.
struct Scan {
    entity: EntityNo,
    filter: ExistenceFilter,
    /// What the filter took when it was handed out.
    bytes: usize,
    last: Option<(String, String)>,
    read: u64,
}

/// What came of going on with a table.
enum Progress {
    /// Nothing: no more of it may be read yet.
    Waits,
    /// One page.
    Read,
    /// Its last page.
    Whole,
    /// The filter has no room for it.
    TooLarge,
}

impl Scan {
    fn new(entity: EntityNo, bytes_max: usize) -> Self {
        Self { entity, filter: ExistenceFilter::new(bytes_max), bytes: 0, last: None, read: 0 }
    }

    /// Reads the next page, of a table of which `ids` may be read in all.
    fn go_on(
        &mut self,
        ids: u64,
        reader: &mut Option<Box<dyn RowReader>>,
        readers: &Arc<dyn OpenReader>,
    ) -> Result<Progress, StoreError> {
        let limit = ids.saturating_sub(self.read).min(PAGE_IDS);
        if limit == 0 || self.read > 0 && limit < FIRST_IDS {
            return Ok(Progress::Waits);
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let after = self.last.as_ref().map(|(region, id)| (region.as_str(), id.as_str()));
        let mut page = KeyPage::default();
        reader_of(reader, readers)?.keys(self.entity, after, limit, &mut page)?;
        page.iter().for_each(|(region, id)| self.filter.add(region, id));
        if self.filter.is_full() {
            return Ok(Progress::TooLarge);
        }
        self.read += page.len() as u64;
        if page.len() < limit {
            return Ok(Progress::Whole);
        }
        self.last = page.last().map(|(region, id)| (region.to_owned(), id.to_owned()));
        Ok(Progress::Read)
    }

    fn memory_bytes(&self) -> usize {
        self.bytes + self.filter.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::store::{RegionIds, RegionLimit};

    /// A table with ids from 0 on, in two regions; tells of each page that is asked for, and gives none if it is broken.
    struct Table {
        rows: usize,
        pages: Sender<usize>,
        is_broken: bool,
        opened: Arc<AtomicUsize>,
    }

    fn key(number: usize) -> (&'static str, String) {
        (if number.is_multiple_of(2) { "even" } else { "odd" }, format!("{number:08}"))
    }

    impl Table {
        fn keys(&self) -> Vec<(&'static str, String)> {
            let mut keys: Vec<_> = (0..self.rows).map(key).collect();
            keys.sort_unstable();
            keys
        }
    }

    struct Tables(Arc<Table>);

    impl OpenReader for Tables {
        fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
            self.0.opened.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Reader(Arc::clone(&self.0))))
        }
    }

    struct Reader(Arc<Table>);

    impl RowReader for Reader {
        fn rows(&mut self, _: EntityNo, _: &[RegionIds<'_>], _: &mut [Vec<u8>]) -> Result<(), StoreError> {
            Err(StoreError::other("only ids are read"))
        }

        fn regions(
            &mut self,
            _: EntityNo,
            _: &[&str],
            _: RegionLimit,
            _: &mut [Vec<u8>],
        ) -> Result<Vec<bool>, StoreError> {
            Err(StoreError::other("only ids are read"))
        }

        fn keys(
            &mut self,
            _: EntityNo,
            after: Option<(&str, &str)>,
            limit: usize,
            page: &mut KeyPage,
        ) -> Result<(), StoreError> {
            let _ = self.0.pages.send(limit);
            if self.0.is_broken {
                return Err(StoreError::other("it is broken"));
            }
            let keys = self.0.keys();
            let behind = keys.iter().filter(|(region, id)| after.is_none_or(|after| (*region, id.as_str()) > after));
            behind.take(limit).for_each(|(region, id)| page.push(region, id));
            Ok(())
        }
    }

    const TABLE: EntityNo = EntityNo::at(0);

    /// A scan of a table of so many rows, the pages that it asks for, and how often a reader was opened.
    fn scan(rows: usize, is_broken: bool, memory: usize) -> (Arc<IdScan>, Receiver<usize>, Arc<AtomicUsize>) {
        let (pages, asked) = bounded(1024);
        let opened = Arc::new(AtomicUsize::new(0));
        let table = Table { rows, pages, is_broken, opened: Arc::clone(&opened) };
        (IdScan::new(&[false], Arc::new(Tables(Arc::new(table))), memory, Arc::default()), asked, opened)
    }

    const WAIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_table_is_read_as_far_as_rows_are_met_that_are_not_known() {
        let (scan, asked, opened) = scan(40_000, false, 64 << 20);
        scan.note_unknown(TABLE, 0);
        assert_eq!(opened.load(Ordering::Relaxed), 0, "no row was unknown");
        scan.note_unknown(TABLE, 1);
        assert_eq!(asked.recv_timeout(WAIT), Ok(4096 + 16));
        scan.note_unknown(TABLE, 1000);
        assert_eq!(asked.recv_timeout(WAIT), Ok(16_000));
        assert!(scan.found(TABLE).is_none());
        scan.note_unknown(TABLE, 10_000);
        assert_eq!(asked.recv_timeout(WAIT), Ok(16_384));
        assert_eq!(asked.recv_timeout(WAIT), Ok(16_384));
        scan.end();
        assert!(asked.try_recv().is_err(), "the last page was not full");
        let found = scan.found(TABLE).expect("all ids are read");
        assert!((0..40_000).map(key).all(|(region, id)| found.may_have(region, &id)));
        let others = (0..40_000).map(key).filter(|(region, id)| {
            let other = if *region == "odd" { "even" } else { "odd" };
            found.may_have(other, id)
        });
        assert!(others.count() < 1000);
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        assert!((40_000..200_000).contains(&scan.memory_bytes()), "{} bytes", scan.memory_bytes());
    }

    #[test]
    fn a_table_that_is_too_large_is_given_up() {
        let (scan, asked, _) = scan(100_000, false, 400_000);
        scan.note_unknown(TABLE, 1_000_000);
        assert_eq!(asked.recv_timeout(WAIT), Ok(16_384));
        assert_eq!(asked.recv_timeout(WAIT), Ok(16_384));
        scan.end();
        assert!(scan.found(TABLE).is_none());
        assert_eq!(scan.memory_bytes(), 0);
        scan.note_unknown(TABLE, 1_000_000);
        assert!(asked.try_recv().is_err());
    }

    #[test]
    fn a_store_that_cannot_give_ids_is_asked_once() {
        let (scan, asked, _) = scan(10, true, 1 << 20);
        scan.note_unknown(TABLE, 1);
        assert!(asked.recv_timeout(WAIT).is_ok());
        scan.note_unknown(TABLE, 100_000);
        scan.end();
        assert!(asked.try_recv().is_err() && scan.found(TABLE).is_none());
    }

    #[test]
    fn what_has_ended_reads_nothing_more() {
        let (scan, asked, opened) = scan(10, false, 1 << 20);
        scan.end();
        scan.note_unknown(TABLE, 100_000);
        assert!(asked.try_recv().is_err());
        assert_eq!(opened.load(Ordering::Relaxed), 0);
    }
}
