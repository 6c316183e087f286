//! Telling a source what of it is committed, on a thread of its own: nobody waits for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::batch::SealedBatch;
use crate::commit::CommitListener;
use crate::model::position::Position;
use crate::run::error::PipelineError;
use crate::source::{Acknowledge, Source};
use crate::store::Committed;

/// How long the end of a run waits for the source to be told of the last position.
const END_MAX: Duration = Duration::from_secs(10);

/// The newest position that is committed, until the thread takes it.
struct Newest {
    position: Mutex<Option<Position>>,
    wake: Mutex<Option<Sender<()>>>,
}

impl CommitListener for Newest {
    fn committed(&self, batch: &SealedBatch, _: &Committed) {
        let Some(position) = &batch.position else { return };
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = Some(position.clone());
        if let Some(wake) = &*self.wake.lock().unwrap_or_else(PoisonError::into_inner) {
            // If it is awake, it takes this one too.
            let (Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(()))) = wake.try_send(());
        }
    }

    fn renumbered(&self) {}
}

/// The thread that tells a source.
pub(super) struct Acknowledging {
    newest: Arc<Newest>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Acknowledging {
    /// Starts the thread, if the source wants to know. An earlier run may have ended before it told what it had committed.
    pub(super) fn of(source: &mut dyn Source, committed: Option<Position>) -> Result<Option<Self>, PipelineError> {
        let Some(acknowledger) = source.acknowledger()? else { return Ok(None) };
        Ok(Some(Self::start(acknowledger, committed)?))
    }

    fn start(mut to: Box<dyn Acknowledge>, committed: Option<Position>) -> std::io::Result<Self> {
        let (wake, woken) = bounded(1);
        let (end, ended) = bounded(1);
        if committed.is_some() {
            // There is room for it.
            let _ = wake.try_send(());
        }
        let newest = Arc::new(Newest { position: Mutex::new(committed), wake: Mutex::new(Some(wake)) });
        let taken = Arc::clone(&newest);
        // Contract of the thread. In: the newest position that is committed. Out: nothing. Tells the source, which may
        // write. Ends: when nothing is committed any more and the last position is told.
        let tell = move || {
            while woken.recv().is_ok() {
                let position = taken.position.lock().unwrap_or_else(PoisonError::into_inner).take();
                position.iter().for_each(|position| to.committed(position));
            }
            let _ = end.send(());
        };
        let thread = std::thread::Builder::new().name("forebay-acknowledge".into()).spawn(tell)?;
        Ok(Self { newest, ended, thread })
    }

    pub(super) fn listener(&self) -> Arc<dyn CommitListener> {
        Arc::clone(&self.newest) as Arc<dyn CommitListener>
    }

    /// Nothing is committed any more: waits until the source has been told of the last position, for a while.
    pub(super) fn finish(self) {
        self.newest.wake.lock().unwrap_or_else(PoisonError::into_inner).take();
        let begun = Instant::now();
        match self.ended.recv_timeout(END_MAX) {
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                tracing::warn!(
                    "the source was not told of the last position that is committed within {} s; the next run does so",
                    begun.elapsed().as_secs()
                );
            }
            _ => {
                if self.thread.join().is_err() {
                    tracing::warn!("the thread that tells the source what is committed has ended early");
                }
            }
        }
    }
}
