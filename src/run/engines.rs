//! The engine pool: the engines, the threads they run on, and the watch over them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::pulse::Pulse;
use crate::lane::watch::{Task, Watch, Watcher};
use crate::lane::{Engine, EngineContext, EngineFactory, IdScan, LaneError, LoadStats, Place};
use crate::model::field_type::FieldTypes;
use crate::model::ids::{BatchClock, Depth};
use crate::model::limits::{ENGINES_PER_THREAD, LANE_THREADS_MAX, WAIT_STEP};
use crate::model::schema::Schema;
use crate::model::text::panic_message;
use crate::store::OpenReader;

/// What the engines are made with.
pub(super) struct EnginePlan {
    pub(super) factory: Arc<dyn EngineFactory>,
    pub(super) schema: Arc<Schema>,
    pub(super) is_empty: Arc<[bool]>,
    pub(super) readers: Arc<dyn OpenReader>,
    pub(super) field_types: Arc<FieldTypes>,
    pub(super) undo_depth: Depth,
    /// Whether rows that are written without being read count as new as long as nobody knows: see
    /// [`Store::checks_new_rows`](crate::store::Store::checks_new_rows).
    pub(super) guesses_new: Arc<AtomicBool>,
    pub(super) memory_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) loads: Arc<LoadStats>,
    pub(super) pulse: Pulse,
    /// Whether an event whose handler fails is put aside.
    pub(super) puts_aside: bool,
}

impl EnginePlan {
    fn scan(&self) -> Arc<IdScan> {
        IdScan::new(&self.is_empty, Arc::clone(&self.readers), self.memory_bytes, Arc::clone(&self.guesses_new))
    }
}

/// The engines. An engine is made when the first region is assigned to it.
pub(super) struct EnginePool {
    plan: EnginePlan,
    /// Finds out which rows the tables had when the run began, or after the last rollback.
    scan: Arc<IdScan>,
    pool: rayon::ThreadPool,
    slots: Vec<EngineSlot>,
    /// Whether a handler hangs: its thread is lost.
    is_stuck: bool,
}

struct EngineSlot {
    engine: Option<Box<dyn Engine>>,
    watch: Arc<Watch>,
    memory_bytes: usize,
    changed_rows: u64,
    /// The clock that it was told last.
    clock: BatchClock,
}

/// Work for one engine.
pub(super) type Job<T> = Box<dyn FnOnce(&mut dyn Engine) -> Result<T, LaneError> + Send>;

/// A job's engine, back with its result.
struct Back<T> {
    slot: usize,
    result: Result<(Box<dyn Engine>, T), LaneError>,
}

impl EnginePool {
    pub(super) fn new(plan: EnginePlan) -> std::io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(LANE_THREADS_MAX);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|at| format!("forebay-lane-{at}"))
            .build()
            .map_err(std::io::Error::other)?;
        let slot = |_| EngineSlot {
            engine: None,
            watch: Arc::new(Watch::default()),
            memory_bytes: 0,
            changed_rows: 0,
            clock: BatchClock::default(),
        };
        let slots = (0..threads * ENGINES_PER_THREAD).map(slot).collect();
        let scan = plan.scan();
        Ok(Self { plan, scan, pool, slots, is_stuck: false })
    }

    /// How many engines there may be.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The numbers of the engines that were made.
    pub(super) fn made(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|at| self.slots[*at].engine.is_some()).collect()
    }

    /// Bytes that all engines took when they were last at work, with what they share.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.iter().map(|slot| slot.memory_bytes).sum::<usize>() + self.scan.memory_bytes()
    }

    /// Rows that the open batch had changed when engines were last at work.
    pub(super) fn changed_rows(&self) -> u64 {
        self.slots.iter().fold(0, |rows, slot| rows.saturating_add(slot.changed_rows))
    }

    /// Makes each engine evict rows until it takes `permille` thousandths of what it takes now.
    pub(super) fn trim(&mut self, clock: BatchClock, permille: usize) -> Result<(), LaneError> {
        let job = |slot: usize| {
            let target = self.slots[slot].memory_bytes / 1000 * permille;
            (slot, Box::new(move |engine: &mut dyn Engine| engine.trim(target)) as Job<()>)
        };
        let jobs = self.made().into_iter().map(job).collect();
        self.each(clock, jobs).map(drop)
    }

    /// Each engine, also one that is made later, may take so many bytes. No job is under way.
    pub(super) fn set_memory(&mut self, memory_bytes: usize) -> Result<(), LaneError> {
        self.plan.memory_bytes = memory_bytes;
        self.slots.iter_mut().filter_map(|slot| slot.engine.as_mut()).try_for_each(|one| one.set_memory(memory_bytes))
    }

    /// A row that was taken for new was there: from now on such a row may be there until it is known.
    pub(super) fn guess_no_more(&self) {
        self.plan.guesses_new.store(false, Ordering::Relaxed);
    }

    /// Clears every engine's rows: the store was rolled back.
    pub(super) fn forget(&mut self, clock: BatchClock) -> Result<(), LaneError> {
        self.plan.is_empty = vec![false; self.plan.is_empty.len()].into();
        self.scan.end();
        self.scan = self.plan.scan();
        let job = |slot: usize| {
            let scan = Arc::clone(&self.scan);
            (slot, Box::new(move |engine: &mut dyn Engine| engine.forget(&scan)) as Job<()>)
        };
        let jobs = self.made().into_iter().map(job).collect();
        self.each(clock, jobs).map(drop)
    }

    /// Runs each job on its engine, in parallel, and waits for all. Jobs name different engines. An engine gets the
    /// clock before its job, if it has changed.
    ///
    /// # Errors
    /// The error of the event that comes first in the source; or that a handler hangs. Then its thread is left behind.
    pub(super) fn each<T: Send + 'static>(
        &mut self,
        clock: BatchClock,
        jobs: Vec<(usize, Job<T>)>,
    ) -> Result<Vec<(usize, T)>, LaneError> {
        let (sender, backs) = bounded(jobs.len());
        let mut waiting: Vec<(usize, Watcher)> = Vec::with_capacity(jobs.len());
        for (slot, job) in jobs {
            waiting.push((slot, Watcher::new(Arc::clone(&self.slots[slot].watch))));
            self.start(slot, clock, job, sender.clone());
        }
        drop(sender);
        let mut done = Vec::with_capacity(waiting.len());
        let mut first_error = None;
        while !waiting.is_empty() {
            match backs.recv_timeout(WAIT_STEP) {
                Ok(back) => {
                    waiting.retain(|(slot, _)| *slot != back.slot);
                    match self.take_back(back) {
                        Ok(result) => done.push(result),
                        Err(error) => first_error = Some(earlier(first_error, error)),
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.plan.pulse.turn();
                    if let Some(stuck) = self.stuck(&mut waiting) {
                        self.is_stuck = true;
                        return Err(stuck);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(first_error.unwrap_or_else(|| LaneError::Bug("a lane ended without an answer".into())));
                }
            }
        }
        first_error.map_or(Ok(done), Err)
    }

    fn start<T: Send + 'static>(&mut self, at: usize, clock: BatchClock, job: Job<T>, sender: Sender<Back<T>>) {
        let slot = &mut self.slots[at];
        let engine = slot.engine.take();
        let knows = engine.is_some() && slot.clock == clock;
        slot.clock = clock;
        let factory = Arc::clone(&self.plan.factory);
        let context = EngineContext {
            schema: Arc::clone(&self.plan.schema),
            is_empty: Arc::clone(&self.plan.is_empty),
            scan: Arc::clone(&self.scan),
            readers: Arc::clone(&self.plan.readers),
            field_types: Arc::clone(&self.plan.field_types),
            undo_depth: self.plan.undo_depth,
            memory_bytes: self.plan.memory_bytes,
            watch: Arc::clone(&slot.watch),
            loads: Arc::clone(&self.plan.loads),
            puts_aside: self.plan.puts_aside,
        };
        // Contract of a lane task. In: an engine, or what makes one, and a job. Out: exactly one answer, with the engine.
        // Touches: its engine only, and the store through it, reading. Ends: when the job does.
        self.pool.spawn(move || {
            let work = AssertUnwindSafe(|| {
                let mut engine = match engine {
                    Some(engine) => engine,
                    None => factory.build(context)?,
                };
                if !knows {
                    engine.begin_batch(clock)?;
                }
                let result = job(engine.as_mut())?;
                Ok((engine, result))
            });
            let result = catch_unwind(work).unwrap_or_else(|panic| {
                Err(LaneError::Bug(format!("a lane panicked: {}", panic_message(panic.as_ref()))))
            });
            // Nobody waits any more if another lane hung.
            let _ = sender.send(Back { slot: at, result });
        });
    }

    fn take_back<T>(&mut self, back: Back<T>) -> Result<(usize, T), LaneError> {
        let (engine, result) = back.result?;
        let slot = &mut self.slots[back.slot];
        slot.memory_bytes = engine.memory_bytes();
        slot.changed_rows = engine.changed_rows();
        slot.engine = Some(engine);
        Ok((back.slot, result))
    }

    fn stuck(&self, waiting: &mut [(usize, Watcher)]) -> Option<LaneError> {
        let timeout = self.plan.timeout;
        let stuck = waiting.iter_mut().position(|(_, watcher)| watcher.is_stuck(timeout));
        if waiting.iter().any(|(_, watcher)| watcher.has_moved()) {
            self.plan.pulse.moved();
        }
        let (_, watcher) = waiting.get(stuck?)?;
        Some(LaneError::Timeout {
            handler: self.plan.factory.name(),
            limit_ms: timeout.as_millis(),
            place: watcher.place(),
        })
    }
}

impl Drop for EnginePool {
    /// Closes the engines, in parallel and under the watch: what a handler's own values do then is the user's code too.
    fn drop(&mut self) {
        self.scan.end();
        let (sender, closed) = bounded(self.slots.len());
        let mut waiting = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let Some(engine) = slot.engine.take() else { continue };
            slot.watch.begin(Task::Closing);
            waiting.push((at, Watcher::new(Arc::clone(&slot.watch))));
            let sender = sender.clone();
            // Contract of a lane task. In: an engine. Out: one answer. Touches: its engine only. Ends: when it is closed.
            self.pool.spawn(move || {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(engine)));
                // Nobody waits any more if it took too long.
                let _ = sender.send(at);
            });
        }
        drop(sender);
        // Without all of its threads the pool may never come to them.
        while !waiting.is_empty() && !self.is_stuck {
            match closed.recv_timeout(WAIT_STEP) {
                Ok(at) => waiting.retain(|(slot, _)| *slot != at),
                Err(RecvTimeoutError::Timeout) => {
                    if self.stuck(&mut waiting).is_some() {
                        self.is_stuck = true;
                        let (handler, limit) = (self.plan.factory.name(), self.plan.timeout.as_millis());
                        tracing::warn!("{handler}: closing it took longer than {limit} ms (handlers.timeout)");
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }
}

/// Of two errors, the one whose event comes first, so that a run fails with the same message every time.
fn earlier(first: Option<LaneError>, second: LaneError) -> LaneError {
    let rank = |error: &LaneError| match error {
        LaneError::Handler { place: Place::Event(place), .. } | LaneError::Event(place, _) => (place.block, place.line),
        LaneError::Memory { place: Place::Event(place), .. } => (place.block, place.line),
        _ => (i64::MAX, u64::MAX),
    };
    match first {
        Some(first) if rank(&first) <= rank(&second) => first,
        _ => second,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use crossbeam_channel::Receiver;

    use super::*;
    use crate::lane::{FailedEvent, RegionDue, Round, SealedRows};
    use crate::model::ids::BlockNo;
    use crate::store::{RowReader, StoreError};

    /// An engine, and what makes one, whose closing waits for the end of a channel.
    struct Holds(Mutex<Option<Receiver<()>>>);

    impl Drop for Holds {
        fn drop(&mut self) {
            if let Ok(Some(receiver)) = self.0.get_mut().map(Option::take) {
                let _ = receiver.recv();
            }
        }
    }

    impl EngineFactory for Holds {
        fn build(&self, _: EngineContext) -> Result<Box<dyn Engine>, LaneError> {
            Ok(Box::new(Holds(Mutex::new(self.0.lock().expect("no panic").take()))))
        }

        fn has_snapshots(&self) -> bool {
            false
        }

        fn name(&self) -> String {
            "holds".into()
        }
    }

    impl Engine for Holds {
        fn run(&mut self, _: &Arc<Round>, _: &[usize]) -> Result<Vec<FailedEvent>, LaneError> {
            Ok(Vec::new())
        }

        fn snapshots(&mut self, regions: &[RegionDue]) -> Result<Vec<Option<String>>, LaneError> {
            Ok(vec![None; regions.len()])
        }

        fn seal(&mut self, _: Option<BlockNo>) -> Result<SealedRows, LaneError> {
            Ok(SealedRows::default())
        }

        fn forget(&mut self, _: &Arc<IdScan>) -> Result<(), LaneError> {
            Ok(())
        }

        fn begin_batch(&mut self, _: BatchClock) -> Result<(), LaneError> {
            Ok(())
        }

        fn memory_bytes(&self) -> usize {
            0
        }

        fn changed_rows(&self) -> u64 {
            0
        }

        fn trim(&mut self, _: usize) -> Result<(), LaneError> {
            Ok(())
        }
    }

    struct NoReader;

    impl OpenReader for NoReader {
        fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
            Err(StoreError::other("no rows are read"))
        }
    }

    /// A pool with one engine, whose closing waits for the end of a channel.
    fn pool(timeout: Duration, receiver: Receiver<()>) -> EnginePool {
        let mut pool = EnginePool::new(EnginePlan {
            factory: Arc::new(Holds(Mutex::new(Some(receiver)))),
            schema: Arc::default(),
            is_empty: Arc::default(),
            readers: Arc::new(NoReader),
            field_types: Arc::default(),
            undo_depth: Depth::new(0),
            guesses_new: Arc::default(),
            memory_bytes: usize::MAX,
            timeout,
            pulse: Pulse::default(),
            loads: Arc::default(),
            puts_aside: false,
        })
        .expect("threads");
        let job: Job<()> = Box::new(|_| Ok(()));
        pool.each(BatchClock::default(), vec![(0, job)]).expect("an engine");
        pool
    }

    #[test]
    fn what_does_not_close_is_left_behind() {
        let (sender, receiver) = bounded(0);
        drop(pool(Duration::from_millis(20), receiver));
        // Nobody has let it close yet.
        drop(sender);
    }

    #[test]
    fn closing_is_waited_for() {
        let (sender, receiver) = bounded(0);
        let held = pool(Duration::from_secs(3600), receiver);
        let closer = std::thread::spawn(move || drop(held));
        // Taken only by an engine that is being closed.
        sender.send(()).expect("an engine that is being closed");
        closer.join().expect("no panic");
    }
}
