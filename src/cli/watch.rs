//! What goes on beside a run: the pipeline file is read again at SIGHUP, and a supervisor is told how the run stands.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay::{Config, Meter, Pipeline, ReloadHandle, RunPhase};
use signal_hook::consts::SIGHUP;

use super::args::Global;
use super::exit::{Code, Failure};
use super::log;
use super::out::{plain, shown_path};
use super::supervisor::Supervisor;

/// How often is looked at most.
const LOOK: Duration = Duration::from_millis(200);
/// How often a supervisor is told how the run stands at most.
const STATUS_STEP: Duration = Duration::from_secs(1);
/// For how long a supervisor is asked to wait each time while the run comes to its end.
const EXTEND: Duration = Duration::from_secs(15);

/// The thread beside a run. Dropping it ends it.
pub(super) struct Watching {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watching {
    /// Watches over the run of a pipeline that was read from a file.
    pub(super) fn start(pipeline: &Pipeline, config: Config, global: &Global) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::new(Code::Failed, format!("cannot start the thread that watches over the run: {error}"))
        };
        let (is_over, hung_up) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        signal_hook::flag::register(SIGHUP, Arc::clone(&hung_up)).map_err(cannot)?;
        let mut watch = Watch {
            file: config.file.clone(),
            config,
            global: global.clone(),
            meter: pipeline.meter(),
            reload: pipeline.reload_handle(),
            stop: pipeline.stop_handle().flag(),
            hung_up,
            has_terminal: std::io::stderr().is_terminal(),
            pending: None,
            supervisor: Supervisor::from_environment(),
            told: Told::default(),
        };
        let ends = Arc::clone(&is_over);
        let work = move || watch.run(&ends);
        let thread = std::thread::Builder::new().name("forebay-watch".into()).spawn(work).map_err(cannot)?;
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It waits for nobody.
            let _ = thread.join();
        }
    }
}

struct Watch {
    file: PathBuf,
    /// What the run goes by, or is to.
    config: Config,
    global: Global,
    meter: Meter,
    reload: ReloadHandle,
    stop: Arc<AtomicBool>,
    /// SIGHUP has come.
    hung_up: Arc<AtomicBool>,
    /// Messages go to a terminal: a SIGHUP may say that it is gone.
    has_terminal: bool,
    /// Keys that are to be taken over.
    pending: Option<Vec<String>>,
    supervisor: Option<Supervisor>,
    told: Told,
}

/// What the supervisor was told.
#[derive(Default)]
struct Told {
    is_ready: bool,
    is_stopping: bool,
    extended_at: Option<Instant>,
    status: String,
    status_at: Option<Instant>,
    alive_at: Option<Instant>,
}

impl Watch {
    /// Contract of the thread. In: signals, and the numbers of the run. Out: settings for the run, and what the supervisor
    /// is told. Ends: with the run.
    fn run(&mut self, is_over: &AtomicBool) {
        let watchdog = self.supervisor.as_ref().and_then(|one| one.watchdog);
        let look = watchdog.map_or(LOOK, |within| LOOK.min(within / 4));
        while !is_over.load(Ordering::Relaxed) {
            if self.hung_up.swap(false, Ordering::Relaxed) {
                self.hang_up();
            }
            self.note_taken();
            self.tell_supervisor(watchdog);
            std::thread::park_timeout(look);
        }
        self.tell_stopping();
    }

    fn tell(&self, text: &str) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.tell(text);
        }
    }

    fn hang_up(&mut self) {
        if self.has_terminal && !std::io::stderr().is_terminal() {
            self.stop.store(true, Ordering::Relaxed);
            return;
        }
        if let Some(supervisor) = &self.supervisor {
            supervisor.tell_reloading();
        }
        self.read_again();
        if self.pending.is_none() && self.told.is_ready {
            self.tell("READY=1");
        }
    }

    /// Reads the file again, and gives the run what it may take over; or says why it gets nothing.
    fn read_again(&mut self) {
        let file = shown_path(&self.file);
        let new = match Config::read(&self.file) {
            Ok(new) => new,
            Err(error) => return tracing::warn!("SIGHUP: {error}; the run goes on as it was"),
        };
        match self.config.changes_to(&new) {
            Err(refused) => tracing::warn!("SIGHUP: {file}: {refused}; nothing was taken over"),
            Ok(keys) if keys.is_empty() => tracing::info!("SIGHUP: {file} says nothing new"),
            Ok(keys) => {
                self.reload.reload(&new);
                log::set_level(&self.global, new.log_level);
                self.config = new;
                self.pending.get_or_insert_default().extend(keys);
            }
        }
    }

    /// Says what the run has taken over.
    fn note_taken(&mut self) {
        if let Some(keys) = self.pending.take_if(|_| self.reload.is_taken()) {
            tracing::info!("SIGHUP: {} was taken over: {}", shown_path(&self.file), keys.join(", "));
            if self.told.is_ready {
                self.tell("READY=1");
            }
        }
    }
}

/// How a run stands, as a supervisor is to know it.
struct Standing {
    /// The store is open, and its lock is held.
    is_ready: bool,
    /// The run comes further, or waits for what it knows.
    is_alive: bool,
    /// It takes no more events.
    is_stopping: bool,
    status: String,
}

impl Watch {
    /// `within` is the time in which a run that goes on has come further, or waits for what it knows.
    fn standing(&self, within: Duration) -> Standing {
        let (reading, pulse) = (self.meter.read(), self.meter.pulse_reading());
        let outage = self.meter.outages().read().away_for;
        let is_turning = pulse.still_for.is_none_or(|still| still < within);
        // Handlers that come no further: one of them hangs, unless it waits for rows of a store that is away.
        let hangs = pulse.hangs || self.meter.works_for().is_some() && pulse.unmoved_for >= within && outage.is_none();
        let block = match (reading.checkpoint.block, reading.source_block) {
            (None, _) => String::new(),
            (Some(done), Some(read)) if read > done => format!(", block {done}, {} behind", read.abs_diff(done)),
            (Some(done), _) => format!(", block {done}"),
        };
        let trouble = match (outage, self.meter.source_trouble()) {
            (Some(_), _) => ", the store is away".to_owned(),
            (None, Some((trouble, _))) => format!(", {}", plain(&trouble)),
            (None, None) => String::new(),
        };
        Standing {
            is_ready: reading.phase > RunPhase::Starting,
            is_stopping: reading.phase >= RunPhase::Draining,
            is_alive: is_turning && !hangs,
            status: format!("{}{block}{trouble}", reading.phase.name()),
        }
    }

    fn tell_supervisor(&mut self, watchdog: Option<Duration>) {
        if self.supervisor.is_none() {
            return;
        }
        let Standing { is_ready, is_alive, is_stopping, status } = self.standing(watchdog.unwrap_or(Duration::MAX) / 2);
        let is_past = |at: Option<Instant>, step: Duration| at.is_none_or(|at| at.elapsed() >= step);
        let mut text = Vec::new();
        if is_ready && !self.told.is_ready {
            self.told.is_ready = true;
            text.push("READY=1".to_owned());
        }
        if status != self.told.status && is_past(self.told.status_at, STATUS_STEP) {
            text.push(format!("STATUS={status}"));
            (self.told.status, self.told.status_at) = (status, Some(Instant::now()));
        }
        if let Some(within) = watchdog.filter(|_| is_alive && self.told.is_ready)
            && is_past(self.told.alive_at, within / 4)
        {
            text.push("WATCHDOG=1".to_owned());
            self.told.alive_at = Some(Instant::now());
        }
        if !text.is_empty() {
            self.tell(&text.join("\n"));
        }
        if is_stopping || self.stop.load(Ordering::Relaxed) {
            self.tell_stopping();
        }
    }

    /// Says that the run comes to its end, and asks for time to do so.
    fn tell_stopping(&mut self) {
        if !self.told.is_stopping {
            self.told.is_stopping = true;
            self.tell("STOPPING=1");
        }
        if self.told.extended_at.is_none_or(|at| at.elapsed() >= STATUS_STEP) {
            self.told.extended_at = Some(Instant::now());
            self.tell(&format!("EXTEND_TIMEOUT_USEC={}", EXTEND.as_micros()));
        }
    }
}
