//! What an engine is doing right now, so that a watcher can see when it hangs.
//!
//! A script cannot be interrupted from outside, and a hook every so many instructions would slow every handler. So the
//! engine notes which event it is at, and the watcher sees when that does not change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Place, Round};
use crate::model::ids::BlockNo;
use crate::model::limits::WAIT_STEP;

/// What the engine is at.
#[cfg_attr(
    not(feature = "lua"),
    expect(dead_code, reason = "only a script is loaded, and takes its changes out, under the watch")
)]
#[derive(Debug, Clone, Default)]
pub(crate) enum Task {
    /// Nothing of the user's.
    #[default]
    Idle,
    /// Loading the handlers.
    Loading,
    /// Letting go of the handlers and their rows.
    Closing,
    /// Events of one lane, or of several, one lane after the other.
    Events { round: Arc<Round>, parts: Arc<[Part]> },
    /// Taking out what a batch changed; not the handler's time.
    Sealing,
    /// A snapshot.
    Snapshot { region: Arc<str>, block: BlockNo },
}

/// The events of one lane among those that an engine is given at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) lane: usize,
    /// The place of the first of them in the lane.
    pub(crate) base: usize,
    /// How many events of other lanes come before them.
    pub(crate) before: usize,
}

impl Part {
    /// Events of one lane.
    pub(crate) fn alone(lane: usize, base: usize) -> Arc<[Self]> {
        Arc::new([Self { lane, base, before: 0 }])
    }

    /// The lane of an event of those parts, counted from 1, and its place in the lane.
    pub(crate) fn find(parts: &[Self], event: usize) -> Option<(usize, usize)> {
        let at = parts.partition_point(|part| part.before < event).checked_sub(1)?;
        let Self { lane, base, before } = *parts.get(at)?;
        Some((lane, base + event - before - 1))
    }
}

/// The notes of one engine.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Changes with each activity, each pause and each event.
    beat: AtomicU64,
    /// The place of the event in its chunk, from 1.
    event: AtomicU64,
    pauses: AtomicU64,
    activity: Mutex<Task>,
}

impl Watch {
    /// Notes the event of the current chunk that is handled now, from 1.
    pub(crate) fn tick(&self, event: u64) {
        self.event.store(event, Ordering::Relaxed);
        // Only the engine's own thread writes, so a plain addition is enough.
        self.beat.store(self.beat.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Notes a new activity; none ends it.
    pub(crate) fn begin(&self, activity: Task) {
        *self.activity.lock().unwrap_or_else(PoisonError::into_inner) = activity;
        self.tick(0);
    }

    /// Stops the handler's clock until the guard is dropped.
    pub(crate) fn pause(&self) -> Pause<'_> {
        self.pauses.fetch_add(1, Ordering::Relaxed);
        Pause(self)
    }

    /// The place of the current event in its chunk, from 1; 0 before the first.
    pub(crate) fn event(&self) -> usize {
        usize::try_from(self.event.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// What is being handled.
    pub(crate) fn place(&self) -> Place {
        match &*self.activity.lock().unwrap_or_else(PoisonError::into_inner) {
            Task::Idle | Task::Loading | Task::Closing => Place::Loading,
            Task::Sealing => Place::Sealing,
            Task::Snapshot { region, block } => Place::Snapshot { region: Arc::clone(region), block: block.get() },
            Task::Events { round, parts } => {
                let place = Part::find(parts, self.event().max(1)).and_then(|(lane, at)| round.place(lane, at));
                place.map_or(Place::Loading, |place| Place::Event(Box::new(place)))
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.pauses.load(Ordering::Relaxed) > 0
            || matches!(*self.activity.lock().unwrap_or_else(PoisonError::into_inner), Task::Idle | Task::Sealing)
    }
}

/// The handler's clock stands still while this lives.
pub(crate) struct Pause<'w>(&'w Watch);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.tick(self.0.event.load(Ordering::Relaxed));
        self.0.pauses.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Detects that an engine has been at one event for too long.
#[derive(Debug)]
pub(crate) struct Watcher {
    watch: Arc<Watch>,
    seen: u64,
    looked_at: Instant,
    still: Duration,
    has_moved: bool,
}

/// The most that one check counts. A process or a machine that was suspended has not handled anything meanwhile.
const LOOK_MAX: Duration = Duration::from_millis(250);
const _: () =
    assert!(LOOK_MAX.as_millis() > WAIT_STEP.as_millis(), "or a stuck handler would never be noticed in time");

impl Watcher {
    pub(crate) fn new(watch: Arc<Watch>) -> Self {
        Self { watch, seen: 0, looked_at: Instant::now(), still: Duration::ZERO, has_moved: false }
    }

    /// Whether the engine has been at the same event for longer than `limit`. To be asked again and again.
    pub(crate) fn is_stuck(&mut self, limit: Duration) -> bool {
        let beat = self.watch.beat.load(Ordering::Relaxed);
        self.still += self.looked_at.elapsed().min(LOOK_MAX);
        self.looked_at = Instant::now();
        self.has_moved = beat != self.seen;
        if beat != self.seen || self.watch.is_idle() {
            self.seen = beat;
            self.still = Duration::ZERO;
        }
        self.still > limit
    }

    /// Whether it was at another event at the last look than at the one before.
    pub(crate) fn has_moved(&self) -> bool {
        self.has_moved
    }

    pub(crate) fn place(&self) -> Place {
        self.watch.place()
    }
}
