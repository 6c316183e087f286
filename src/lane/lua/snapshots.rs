//! Snapshots: of many regions at a time, so that what they miss is loaded together.

use std::sync::Arc;

use mlua::prelude::*;

use super::inner::Inner;
use super::layout::SNAPSHOT_CALL;
use super::{Failure, ScriptEngine, Step, json_out, step_of};
use crate::lane::watch::Task;
use crate::lane::{Engine, LaneError, RegionDue};
use crate::model::limits::SNAPSHOTS_TOGETHER_MAX;

/// What a snapshot may take while it waits: with its coroutine, and what it has made so far of what it read.
const SNAPSHOT_BYTES: usize = 32 * 1024;

impl ScriptEngine {
    /// The documents of regions, as many together as there is room for.
    pub(super) fn all_snapshots(&mut self, regions: &[RegionDue]) -> Result<Vec<Option<String>>, LaneError> {
        let (mut documents, mut left) = (Vec::with_capacity(regions.len()), regions);
        while !left.is_empty() {
            if !self.has_snapshots {
                return Ok(vec![None; regions.len()]);
            }
            let room = self.host.inner().map_or(0, Inner::memory_left) / SNAPSHOT_BYTES;
            let (now, later) = left.split_at(room.clamp(1, SNAPSHOTS_TOGETHER_MAX).min(left.len()));
            documents.extend(self.snapshots_together(now)?);
            left = later;
            if !left.is_empty() {
                self.make_room()?;
            }
        }
        Ok(documents)
    }

    /// Lets go of what snapshots have read, and of regions of which nothing else is known, if three quarters of the memory are
    /// used.
    fn make_room(&mut self) -> Result<(), LaneError> {
        let memory = self.context.memory_bytes;
        if self.memory_bytes() <= memory / 4 * 3 {
            return Ok(());
        }
        self.trim(memory / 2)
    }

    /// Begins the snapshot of a region, or goes on with it now that what it missed is here. Its number among those that are
    /// computed together is `at`. The document is none if something is missed.
    fn snapshot(
        &self,
        at: usize,
        (region, name, block): &RegionDue,
        is_begun: bool,
    ) -> Result<Option<Option<String>>, LaneError> {
        self.context.watch.begin(Task::Snapshot { region: Arc::clone(name), block: *block });
        let step = (|| {
            let (inner, number) = (self.host.inner()?, SNAPSHOT_CALL - at as i64);
            let (status, answer): (i64, LuaValue) = match is_begun {
                true => inner.resume.call(number)?,
                false => inner.snapshot.call((self.know(*region, name)?, block.get(), number))?,
            };
            Ok(step_of(status, answer).and_then(|step| match step {
                Step::Missed => Ok(None),
                Step::Done(value) => json_out::document(inner, &value)
                    .map(|document| Some(Some(document).filter(|document| document != "null")))
                    .map_err(|fault| match fault.is_out_of_memory() {
                        true => Failure::OutOfMemory,
                        false => Failure::Said(format!("{}: what on_snapshot returned: {}", self.name, fault.text())),
                    }),
            }))
        })();
        let step = step.map_err(|error: LuaError| self.failure(&error))?;
        step.map_err(|failure| self.handler_failure(failure))
    }

    /// The documents of some regions. What they miss is loaded together.
    fn snapshots_together(&self, regions: &[RegionDue]) -> Result<Vec<Option<String>>, LaneError> {
        let (mut documents, mut failed) = (vec![None; regions.len()], None);
        let mut waiting: Vec<usize> = (0..regions.len()).collect();
        let mut is_begun = false;
        while !waiting.is_empty() {
            let mut missing = Vec::new();
            for at in waiting {
                match self.snapshot(at, &regions[at], is_begun) {
                    Ok(Some(document)) => documents[at] = document,
                    Ok(None) => missing.push(at),
                    Err(error) => {
                        // Those before it may fail too, and then the first counts.
                        failed = Some(error);
                        break;
                    }
                }
            }
            if !missing.is_empty() {
                self.supply().map_err(|error| self.failure(&error))?;
            }
            (waiting, is_begun) = (missing, true);
        }
        self.context.watch.begin(Task::Idle);
        failed.map_or(Ok(documents), Err)
    }
}
