//! Looking at handlers and source as a doctor does: by trying them, within a time limit.

use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::{Checked, Pipeline};
use crate::model::finding::Finding;
use crate::model::text::grouped;
use crate::run::error::PipelineError;

/// How long a source that was asked to end may take for it.
const END_MAX: Duration = Duration::from_secs(2);

/// What was found of a pipeline's handlers and source.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Examined {
    /// What was looked at.
    pub findings: Vec<Finding>,
    /// Regions among the first events.
    pub regions: Vec<String>,
}

impl Pipeline {
    /// Tries handlers and source as [`Pipeline::check`] does, and says what is found of them. What is wrong is a finding,
    /// never an error. Writes nothing and opens no store; a program that is the source is started. Blocks for `patience`
    /// at most, and two seconds more where the source does not end when it is asked to.
    pub fn examine(self, patience: Duration) -> Examined {
        let stop = self.stop_handle();
        let waits_for_server = self.source_config.waits_for_server();
        let (tell, told) = bounded(1);
        // Contract of the thread. In: a pipeline. Out: what trying it came to, which nobody may be waiting for any more.
        // Ends: when the sample is handled, or soon after the stop; a source that hangs keeps it, and nobody waits for it.
        let check = move || drop(tell.send(self.check()));
        if let Err(error) = std::thread::Builder::new().name("forebay-examine".into()).spawn(check) {
            return Examined::failed(&error.into());
        }
        let checked = match told.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => {
                stop.stop();
                // Only what has failed meanwhile says more than the silence.
                told.recv_timeout(END_MAX).ok().filter(|ended| !ended.as_ref().is_ok_and(|checked| checked.events == 0))
            }
            Err(RecvTimeoutError::Disconnected) => Some(Err(PipelineError::ReaderGone)),
            Ok(checked) => Some(checked),
        };
        match checked {
            Some(Ok(checked)) => Examined::tried(checked),
            Some(Err(error)) => Examined::failed(&error),
            None => Examined::silent(patience, waits_for_server),
        }
    }
}

impl Examined {
    fn tried(checked: Checked) -> Self {
        let Checked { events, regions, has_snapshots, quarantined } = checked;
        let sample = match events {
            1 => "its first event".to_owned(),
            _ => format!("its first {} events", grouped(events)),
        };
        let source = match (events, quarantined.first()) {
            (0, None) => Finding::warning(
                "source",
                "it is there, and no event is in it",
                "a run will commit nothing; look at [source], or wait for events",
            ),
            (_, Some(first)) => Finding::warning(
                "source",
                format!(
                    "of {sample} {} would be put aside, first of all {}:{}: {}",
                    grouped(quarantined.len() as u64),
                    first.file,
                    first.line,
                    first.error
                ),
                "mend what is wrong with them, or the handlers; `forebay check` shows all",
            ),
            (_, None) => {
                let regions = grouped(regions.len() as u64);
                Finding::ok("source", format!("{sample} can be read, and handled ({regions} regions)"))
            }
        };
        let handlers = if has_snapshots { "they load, and make snapshots" } else { "they load, and make no snapshots" };
        Self { findings: vec![Finding::ok("handlers", handlers), source], regions }
    }

    fn failed(error: &PipelineError) -> Self {
        let (name, advice) = match error {
            PipelineError::Lane { .. } => ("handlers", "mend the script, or the event; `forebay check` says the same"),
            PipelineError::Source { .. } => ("source", "look at [source]; `forebay check` says the same"),
            PipelineError::Thread(_) => ("system", "end other programs, or raise the limit of threads"),
            _ => ("pipeline", "mend the pipeline file"),
        };
        let finding = Finding::of_error(name, &error.to_string(), advice);
        // The source is opened when they have loaded.
        let before = (name == "source").then(|| Finding::ok("handlers", "they load"));
        Self { findings: before.into_iter().chain([finding]).collect(), regions: Vec::new() }
    }

    fn silent(patience: Duration, waits_for_server: bool) -> Self {
        let text = format!("no event came within {} s", patience.as_secs());
        let finding = match waits_for_server {
            // One that is reached and has none says so.
            true => Finding::problem("source", text, "look at the address in [source], and whether that server runs"),
            false => Finding::warning("source", text, "wait for events, or look why there are none"),
        };
        Self { findings: vec![finding], regions: Vec::new() }
    }
}
