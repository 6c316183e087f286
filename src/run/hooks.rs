//! Hooks: callbacks of the embedding program during a run, on the thread that runs it.

use std::time::{Duration, Instant};

use super::meter::Meter;
use super::report::{Progress, Rollback};

/// How often progress is reported.
const PROGRESS_STEP: Duration = Duration::from_millis(100);

/// Gets the progress of a run, several times a second, on the thread that runs it.
pub type ProgressHook = Box<dyn FnMut(&Progress) + Send>;

/// Gets each committed rollback, on the thread that runs the pipeline, before anything after it is handled.
pub type RollbackHook = Box<dyn FnMut(&Rollback) + Send>;

/// The hooks of a run.
pub(super) struct Hooks<'h> {
    progress: Option<&'h mut ProgressHook>,
    rollback: Option<&'h mut RollbackHook>,
    told_at: Instant,
}

impl<'h> Hooks<'h> {
    pub(super) fn new(progress: Option<&'h mut ProgressHook>, rollback: Option<&'h mut RollbackHook>) -> Self {
        Self { progress, rollback, told_at: Instant::now() }
    }

    /// Says that the loop of the run turns, and reports progress, unless it was reported a moment ago.
    pub(super) fn tell_progress(&mut self, meter: &Meter) {
        meter.turn();
        let Some(hook) = &mut self.progress else { return };
        if self.told_at.elapsed() < PROGRESS_STEP {
            return;
        }
        self.told_at = Instant::now();
        hook(&meter.progress());
    }

    /// Tells of a rollback.
    pub(super) fn tell_rollback(&mut self, rollback: &Rollback) {
        if let Some(hook) = &mut self.rollback {
            hook(rollback);
        }
    }
}
