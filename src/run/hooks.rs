//! What a program is told while a run goes on, on the thread that runs it.

use std::time::{Duration, Instant};

use super::meter::Meter;
use super::report::{Progress, Rollback};

/// How often progress is told.
const PROGRESS_STEP: Duration = Duration::from_millis(100);

/// Is told how a run stands, several times a second, on the thread that runs it.
pub type ProgressHook = Box<dyn FnMut(&Progress) + Send>;

/// Is told that a rollback has committed, on the thread that runs the pipeline and before anything behind it is handled.
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

    /// Tells how the run stands, unless it was told a moment ago.
    pub(super) fn tell_progress(&mut self, meter: &Meter) {
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
