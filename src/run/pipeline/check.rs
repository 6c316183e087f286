//! Trying a pipeline without writing anything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::RecvTimeoutError;

use super::start::{StartReading, StartRegions};
use super::{Pipeline, ProgressHook};
use crate::lane::{Assignment, Engine, FailedEvent};
use crate::model::ids::{BatchClock, RegionNo};
use crate::model::limits::WAIT_STEP;
use crate::model::quarantine::Quarantined;
use crate::run::engines::Job;
use crate::run::error::{PipelineError, unopened};
use crate::run::event_queue::{EventQueue, RoundLimits};
use crate::run::shared::SharedParts;
use crate::source::reader::FromReader;
use crate::undo::Window;

/// Events of the source that are tried.
const SAMPLE_EVENTS: u64 = 1000;

/// What a check has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Events that were read and handled.
    pub events: u64,
    /// Regions among them.
    pub regions: Vec<String>,
    /// Whether the handlers make snapshots.
    pub has_snapshots: bool,
    /// Events that a run would put aside.
    pub quarantined: Vec<Quarantined>,
}

impl Pipeline {
    /// Loads the handlers, reads the first events of the source and handles them over empty tables. Writes nothing and
    /// opens no store. Blocks while it reads.
    ///
    /// # Errors
    /// As [`Pipeline::run`]. Without a source only the handlers are loaded.
    pub fn check(mut self) -> Result<Checked, PipelineError> {
        self.hook = None::<ProgressHook>;
        self.check_names()?;
        self.try_handlers()?;
        let has_snapshots = self.factory.has_snapshots();
        if self.source.is_none() && !self.source_config.names_a_source() {
            return Ok(Checked { events: 0, regions: Vec::new(), has_snapshots, quarantined: Vec::new() });
        }
        // Files that are followed, and a stream, may never have more.
        let waits_for_ever = self.source_config.may_wait_for_ever();
        let source = self.take_source()?;
        let start = StartRegions::new(&[], &Window::default(), &BTreeSet::new(), self.regions.all.as_deref());
        let shared = SharedParts::new(self.batch.memory_bytes, 0);
        let pages = self.start_reader(source, StartReading::default(), &start, &shared)?;
        let mut queue = EventQueue::default();
        let (mut names, mut seen) = (start.names.clone(), 0);
        // A silent source is waited for, as in a run, until the stop handle says otherwise.
        while seen < SAMPLE_EVENTS && !self.stop.0.load(Ordering::Relaxed) {
            match pages.recv_timeout(WAIT_STEP) {
                Ok(FromReader::Page(mut page)) => {
                    names.append(&mut page.new_regions);
                    // The sample is held whole; the reader must not wait for it.
                    page.lease = None;
                    seen += page.events.len() as u64;
                    queue.push(page);
                }
                // What is tried is no state, so it cannot go back either.
                Ok(FromReader::Rollback { .. } | FromReader::Source { .. } | FromReader::Whole { .. }) => {}
                // What is there so far is the sample.
                Ok(FromReader::Idle) if seen > 0 || waits_for_ever => break,
                Ok(FromReader::Idle) => {}
                Ok(FromReader::End { .. }) => break,
                Ok(FromReader::Failed { error, .. }) => return Err(error.into()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(PipelineError::ReaderGone),
            }
        }
        shared.read.stop.store(true, Ordering::Relaxed);
        drop(pages);
        queue.end(false);
        let (events, quarantined) = self.try_events(&mut queue, &names, start.all)?;
        let regions = names.iter().map(ToString::to_string).collect();
        Ok(Checked { events, regions, has_snapshots, quarantined })
    }

    /// Handles the sample, and computes each region's snapshot.
    fn try_events(
        &self,
        queue: &mut EventQueue,
        names: &[Arc<str>],
        all: Option<RegionNo>,
    ) -> Result<(u64, Vec<Quarantined>), PipelineError> {
        let mut engines = self.trial_engines()?;
        let mut assignment = Assignment::new(engines.len());
        let (mut events, mut aside) = (0, Vec::new());
        while events < SAMPLE_EVENTS {
            let limits = RoundLimits { events: SAMPLE_EVENTS - events, ..RoundLimits::ANY };
            let Some((round, taken)) = queue.take(limits, names, all) else { break };
            events += taken.summary.events;
            aside.extend(taken.refused.into_iter().map(|(_, event)| event));
            let round = Arc::new(round);
            for lane in 0..round.lanes.len() {
                let engine = assignment.engine_for(round.lanes[lane].region, 1);
                let (name, region) = (Arc::clone(&round.lanes[lane].name), round.lanes[lane].region);
                let (last_block, tried) = (taken.summary.last_block, Arc::clone(&round));
                let run = move |engine: &mut dyn Engine| {
                    let failed = engine.run(&tried, &[lane])?;
                    engine.snapshots(&[(region, name, last_block)])?;
                    Ok(failed)
                };
                let job = vec![(engine, Box::new(run) as Job<Vec<FailedEvent>>)];
                let failed = engines.each(BatchClock::first(), job).map_err(unopened)?;
                let failed = failed.into_iter().flat_map(|(_, failed)| failed);
                aside.extend(failed.filter_map(|failed| round.put_aside(failed)).map(|(_, event)| event));
            }
        }
        Ok((events, aside))
    }
}
