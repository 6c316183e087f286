//! Many lanes of few events each cross into the VM in one call: a crossing costs as much as some events.

use std::sync::Arc;

use mlua::prelude::*;

use super::encoder::EventEncoder;
use super::{Chunk, NotPacked, ScriptEngine, Step, pack_behind};
use crate::lane::watch::{Part, Task};
use crate::lane::{FailedEvent, LaneError, Round};
use crate::model::limits::CHUNK_EVENTS_MAX;

/// A lane with more events crosses alone, and what follows is packed meanwhile.
const FEW_EVENTS_MAX: usize = CHUNK_EVENTS_MAX / 8;

/// How many of the first lanes have few events, and together no more than a chunk has.
pub(super) fn few_events(round: &Round, lanes: &[usize]) -> usize {
    let mut left = CHUNK_EVENTS_MAX;
    let is_few = |lane: &&usize| {
        let events = round.lanes.get(**lane).map_or(0, |lane| lane.events.len());
        let fits = events <= FEW_EVENTS_MAX.min(left);
        left = left.saturating_sub(events);
        fits
    };
    lanes.iter().take_while(is_few).count()
}

/// Lanes that are packed one behind the other.
#[derive(Default)]
struct Few {
    parts: Vec<Part>,
    /// For the inner side, of each lane: its number and that of its region, its events, where they begin.
    heads: Vec<u8>,
    events: usize,
}

/// Packs all events of a lane behind what is packed.
fn pack_lane(encoder: &mut EventEncoder, round: &Round, lane: usize, packed: &mut Vec<u8>) -> Result<usize, NotPacked> {
    let events = round.lanes.get(lane).map_or(0, |lane| lane.events.len());
    encoder.begin_lane();
    pack_behind(encoder, round, Chunk { lane, base: 0, count: events }, packed)?;
    Ok(events)
}

impl ScriptEngine {
    /// Handles lanes of few events. Those that miss rows are suspended, and the others go on. Returns how many of the lanes
    /// it has taken: all up to one that holds an event that is no JSON object, or that one alone.
    pub(super) fn run_few(
        &mut self,
        round: &Arc<Round>,
        lanes: &[usize],
        suspended: &mut Vec<Chunk>,
        failed: &mut Vec<FailedEvent>,
    ) -> Result<usize, LaneError> {
        let is_alone = suspended.is_empty();
        if is_alone {
            self.project().map_err(|error| self.failure(&error))?;
        }
        self.encoder.begin_chunk(is_alone);
        let few = self.pack_few(round, lanes).map_err(|error| self.failure(&error))?;
        self.tell_news().map_err(|error| self.failure(&error))?;
        let taken = few.parts.len();
        if taken == 0 {
            // Where the event stands is found out by the lane alone.
            let first = Chunk { lane: lanes[0], base: 0, count: 0 };
            suspended.extend(self.run_chunks(round, first, None, is_alone, failed)?);
            return Ok(1);
        }
        self.handle_few(round, &few, suspended, failed)?;
        Ok(taken)
    }

    /// Packs lanes up to one that cannot be packed.
    fn pack_few(&mut self, round: &Round, lanes: &[usize]) -> LuaResult<Few> {
        let mut few = Few::default();
        self.packed.clear();
        for lane in lanes {
            let Some(described) = round.lanes.get(*lane) else { break };
            let start = self.packed.len();
            let Ok(events) = pack_lane(&mut self.encoder, round, *lane, &mut self.packed) else {
                self.packed.truncate(start);
                break;
            };
            let region = self.know(described.region, &described.name)?;
            for number in [lane + 1, region, events, start + 1] {
                few.heads.extend((number as u64).to_le_bytes());
            }
            few.parts.push(Part { lane: *lane, base: 0, before: few.events });
            few.events += events;
        }
        Ok(few)
    }

    fn handle_few(
        &mut self,
        round: &Arc<Round>,
        few: &Few,
        suspended: &mut Vec<Chunk>,
        failed: &mut Vec<FailedEvent>,
    ) -> Result<(), LaneError> {
        let parts: Arc<[Part]> = few.parts.as_slice().into();
        let answer = self.enter_parts(round, Arc::clone(&parts), |engine| {
            let inner = engine.host.inner()?;
            inner.run_few.call((inner.supply_text(&few.heads)?, inner.supply_text(&engine.packed)?))
        });
        let step = self.leave_or_go_on(round, &parts, answer, failed, |inner| inner.pass_over_few.call(()))?;
        let Step::Done(LuaValue::String(waiting)) = step else {
            return Err(LaneError::Bug("lanes ended without an answer".into()));
        };
        let chunk = |lane: &[u8]| {
            let lane = <[u8; 8]>::try_from(lane).map_or(0, u64::from_le_bytes) as usize;
            let lane = lane.saturating_sub(1);
            let count = round.lanes.get(lane).map_or(0, |lane| lane.events.len());
            Chunk { lane, base: 0, count }
        };
        let first = suspended.len();
        suspended.extend(waiting.as_bytes().chunks_exact(8).map(chunk));
        if let Some(waiting) = suspended.get(first) {
            // Noted as for a lane that crosses alone. Which of its events waits is not known: the first stands for them.
            let parts = Part::alone(waiting.lane, waiting.base);
            self.host.watch.begin(Task::Events { round: Arc::clone(round), parts });
        }
        Ok(())
    }
}
