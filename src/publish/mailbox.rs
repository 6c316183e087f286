//! Where committed snapshots wait for the publish thread.
//!
//! It holds the newest of each region; a channel of depth one wakes the thread. Nobody waits to put one in: what would
//! take too much memory is let go, and read from the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::stats::PublishStats;
use super::{Publication, Target};
use crate::batch::SealedBatch;
use crate::commit::CommitListener;
use crate::snapshot::{NOTHING, seq_of};
use crate::store::Committed;

#[derive(Default)]
struct Waiting {
    newest: BTreeMap<Arc<str>, Publication>,
    bytes: usize,
    /// Something was let go: it is to be read from the store.
    is_incomplete: bool,
    is_closed: bool,
    /// The last committed block, once all snapshots as of it are there.
    complete: Option<i64>,
    bytes_max: usize,
    /// What takes the place of the target.
    target: Option<Box<dyn Target>>,
}

/// Where committed snapshots wait for the publish thread: the newest of each region.
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    wake: Sender<()>,
    stats: Arc<PublishStats>,
}

impl Mailbox {
    /// An empty one in which so many bytes may wait, and what wakes who reads it.
    pub(crate) fn new(bytes_max: usize, stats: Arc<PublishStats>) -> (Arc<Self>, Receiver<()>) {
        let (wake, inbox) = bounded(1);
        let waiting = Mutex::new(Waiting { bytes_max, ..Waiting::default() });
        (Arc::new(Self { waiting, wake, stats }), inbox)
    }

    /// Puts snapshots in; an older one of the same region goes. Never blocks.
    fn put(&self, publications: impl IntoIterator<Item = Publication>) {
        let mut waiting = self.waiting();
        for one in publications {
            waiting.bytes += one.doc.len();
            if let Some(older) = waiting.newest.insert(Arc::clone(&one.region), one) {
                waiting.bytes -= older.doc.len();
            }
        }
        if waiting.bytes > waiting.bytes_max {
            waiting.newest.clear();
            (waiting.bytes, waiting.is_incomplete) = (0, true);
        }
        drop(waiting);
        self.wake();
    }

    /// So many bytes may wait from now on. Does not block.
    pub(crate) fn set_bytes_max(&self, bytes_max: usize) {
        self.waiting().bytes_max = bytes_max;
    }

    /// Lets what is published go to another target from now on. Does not block.
    pub(crate) fn replace_target(&self, target: Box<dyn Target>) {
        self.waiting().target = Some(target);
        self.wake();
    }

    /// What takes the place of the target, once.
    pub(super) fn take_target(&self) -> Option<Box<dyn Target>> {
        self.waiting().target.take()
    }

    /// What waits, and whether some of it has to be read from the store.
    pub(super) fn take(&self) -> (BTreeMap<Arc<str>, Publication>, bool) {
        let mut waiting = self.waiting();
        waiting.bytes = 0;
        (std::mem::take(&mut waiting.newest), std::mem::take(&mut waiting.is_incomplete))
    }

    /// Says that nothing more comes. `complete` is the last committed block, if all snapshots as of it are there.
    pub(super) fn close(&self, complete: Option<i64>) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        waiting.complete = waiting.complete.or(complete);
        drop(waiting);
        self.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.waiting().is_closed
    }

    /// The last committed block, once all snapshots as of it are there.
    pub(super) fn complete(&self) -> Option<i64> {
        self.waiting().complete
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // If it is full, a wake-up is on its way already.
        let _ = self.wake.try_send(());
    }
}

impl CommitListener for Mailbox {
    fn committed(&self, batch: &SealedBatch, committed: &Committed) {
        if !committed.snapshots.is_empty() {
            let due: Vec<Publication> = publications(batch, committed).collect();
            self.stats.note_due(due.iter().map(|one| (&one.region, one.seq)));
            self.put(due);
        }
    }

    /// Lets everything that is unpublished be read from the store.
    fn renumbered(&self) {
        self.waiting().is_incomplete = true;
        self.wake();
    }
}

/// The snapshots of a batch that were stored.
fn publications<'b>(batch: &'b SealedBatch, committed: &'b Committed) -> impl Iterator<Item = Publication> + 'b {
    let ids: HashMap<&str, &String> =
        committed.snapshots.iter().filter_map(|receipt| Some((&*receipt.region, receipt.id.as_ref()?))).collect();
    batch.snapshots.iter().filter_map(move |draft| {
        let id = (*ids.get(&*draft.region)?).clone();
        Some(Publication {
            region: Arc::clone(&draft.region),
            seq: seq_of(&draft.region, &id)?,
            id,
            block: Some(draft.block),
            time: draft.generated_at,
            hash: draft.hash.clone(),
            doc: draft.doc.clone().unwrap_or_else(|| NOTHING.into()),
            follows_rollback: false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::timestamp::Timestamp;

    fn item(region: &str, seq: u64, doc: &str) -> Publication {
        Publication {
            region: region.into(),
            id: format!("{region}.{seq}"),
            seq,
            block: None,
            time: Timestamp::MIN,
            hash: String::new(),
            doc: doc.into(),
            follows_rollback: false,
        }
    }

    #[test]
    fn the_newest_of_a_region_waits_and_one_wake_up_is_enough() {
        let (mailbox, inbox) = Mailbox::new(10, Arc::default());
        mailbox.put([item("a", 1, "12345"), item("b", 1, "1")]);
        mailbox.put([item("a", 2, "123456")]);
        assert_eq!(inbox.try_iter().count(), 1);
        let (newest, is_incomplete) = mailbox.take();
        assert_eq!(newest.values().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a.2", "b.1"]);
        assert!(!is_incomplete && mailbox.take().0.is_empty());
    }

    #[test]
    fn what_would_take_too_much_memory_is_read_from_the_store() {
        let (mailbox, _inbox) = Mailbox::new(10, Arc::default());
        mailbox.put([item("a", 1, "123456"), item("b", 1, "12345")]);
        mailbox.put([item("c", 1, "1")]);
        let (newest, is_incomplete) = mailbox.take();
        assert_eq!((newest.len(), is_incomplete), (1, true));
        assert!(!mailbox.take().1);
    }
}
