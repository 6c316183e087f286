//! Handlers in Lua: one VM per engine, with the cached rows of its regions inside.
//!
//! | file | holds |
//! |---|---|
//! | `layout` | the numbers that the Lua files and the host share |
//! | `pieces` | the Lua files: their order, and how they are put together |
//! | `layout.lua` | what all of them stand on: names that are checked |
//! | `values.lua`, `arguments.lua`, `numeric.lua` | values, what scripts pass, exact numbers |
//! | `protected.lua` | errors that a script cannot catch |
//! | `arithmetic.lua`, `bytecode` | plain numbers: what leaves 64 bits is an error, and so is a text |
//! | `frozen.lua`, `bytecode` | what a script keeps: refused, or read-only |
//! | `library.lua` | the functions of Lua's library that have to know exact numbers |
//! | `bounded.lua` | those whose time no hook bounds |
//! | `texts.lua` | those that take texts, and are given floats |
//! | `events.lua` | events on their way in |
//! | `rows.lua`, `kinds.lua` | cached rows; the code compiled for each kind of entity |
//! | `misses.lua`, `dry.lua` | rows that are missed, and dry runs to learn which |
//! | `find.lua`, `queries.lua`, `indexes.lua`, `ordered.lua` | reads by column |
//! | `question` | the queries that they ask of the store |
//! | `regions` | the regions that the inner side knows |
//! | `writes.lua`, `undo.lua`, `seal.lua`, `sweep.lua` | what a batch writes, before-images, handing it out, eviction |
//! | `journal.lua` | taking back what a failed call has written |
//! | `calls.lua`, `context.lua`, `sandbox.lua` | calls of handlers, `ctx`, and what else a script may see |
//! | `inner` | the inner side's functions, as the host calls them |
//! | `few` | many lanes of few events each, in one call |
//! | `snapshots` | the snapshots of many regions |
//! | `scanned` | what is known of rows that are not here: guessed, or found by the scan |
//! | `host` | the host's functions, as the inner side calls them |
//! | `dry` | the bounds of dry runs |
//! | `encoder` | events on their way in |
//! | `json`, `json_out` | JSON on its way in, and out |

mod bytecode;
mod crossing;
mod dry;
mod encoder;
mod few;
mod host;
mod inner;
mod json;
mod json_out;
mod layout;
mod pieces;
mod question;
mod regions;
mod scanned;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use mlua::prelude::*;
use mlua::{LuaOptions, StdLib};

use crate::lane::before_images::{UnseenWrite, read_unseen};
use crate::lane::watch::{Part, Task};
use crate::lane::{
    Engine, EngineContext, EngineFactory, FailedEvent, IdScan, LaneError, Loader, Place, RegionDue, Round, SealedRows,
};
use crate::model::ids::{BatchClock, BlockNo, EntityNo, RegionNo};
use crate::model::limits::{CHUNK_EVENTS_MAX, FILE_BYTES_MAX};
use crate::model::text::{quoted_lines, shortened};
use crate::model::whole_text::read_text;
use crate::rows::changes::RegionChanges;
use crate::rows::codec::Writer;
use crate::rows::existence::KnownRows;
use crate::undo::{BeforeImages, push_absent};
use crossing::{OUT_OF_MEMORY, problem_of};
use encoder::EventEncoder;
use few::few_events;
use host::{Host, Shared, Want};
use inner::Inner;
use layout::{DONE, MISSED, MISUSED, SHORT};
use regions::KnownRegions;

/// Some events of a lane that cross into the VM together.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    lane: usize,
    /// The place of the first in the lane.
    base: usize,
    count: usize,
}

/// How far a call into the VM has come.
enum Step {
    Done(LuaValue),
    /// Rows have to be loaded, then it is to be resumed.
    Missed,
}

/// Why a call of a handler failed.
enum Failure {
    /// It said so.
    Said(String),
    /// The memory is used up.
    OutOfMemory,
}

/// What the inner side answered.
fn step_of(status: i64, answer: LuaValue) -> Result<Step, Failure> {
    match (status, answer) {
        (DONE, answer) => Ok(Step::Done(answer)),
        (MISSED, _) => Ok(Step::Missed),
        (SHORT, _) => Err(Failure::OutOfMemory),
        (_, LuaValue::String(message)) => Err(Failure::Said(message.to_string_lossy())),
        (_, other) => Err(Failure::Said(format!("the handler failed with a {}", other.type_name()))),
    }
}

/// An event that is no JSON object. Those before it in its chunk are packed.
struct NotPacked {
    /// Its place in the lane.
    at: usize,
    problem: String,
}

/// Packs a chunk.
fn pack(encoder: &mut EventEncoder, round: &Round, chunk: Chunk, packed: &mut Vec<u8>) -> Result<(), NotPacked> {
    packed.clear();
    pack_behind(encoder, round, chunk, packed)
}

/// Packs a chunk behind what is packed.
fn pack_behind(encoder: &mut EventEncoder, round: &Round, chunk: Chunk, packed: &mut Vec<u8>) -> Result<(), NotPacked> {
    let Chunk { lane, base, count } = chunk;
    for at in base..base + count {
        let Some((event, page)) = round.event(lane, at) else { break };
        let writer = Writer::new(page.origin_no, event.line);
        if let Err(problem) = encoder.push(page.json(event), event.block.get(), writer, packed) {
            return Err(NotPacked { at, problem });
        }
    }
    Ok(())
}

/// Makes engines from a script.
pub(crate) struct ScriptFactory {
    name: String,
    text: String,
    has_snapshots: AtomicBool,
}

impl ScriptFactory {
    /// Reads the script; it is not run yet.
    pub(crate) fn read(path: &Path) -> Result<Self, LaneError> {
        let name = path.file_name().map_or_else(|| "script".into(), |name| name.to_string_lossy().into_owned());
        let mut text = (std::fs::File::open(path).and_then(|open| read_text(open, FILE_BYTES_MAX)))
            .map_err(|error| LaneError::Unusable(format!("{}: the script cannot be read: {error}", path.display())))?;
        if let Some(rest) = text.strip_prefix('\u{feff}') {
            text = rest.to_owned();
        }
        if text.starts_with('#') {
            // As Lua does with a first line for the shell; the others keep their numbers.
            text.insert_str(0, "--");
        }
        Ok(Self { name, text, has_snapshots: AtomicBool::new(false) })
    }
}

impl EngineFactory for ScriptFactory {
    fn build(&self, context: EngineContext) -> Result<Box<dyn Engine>, LaneError> {
        context.watch.begin(Task::Loading);
        let engine = ScriptEngine::new(self, context)?;
        engine.host.watch.begin(Task::Idle);
        self.has_snapshots.store(engine.has_snapshots, Ordering::Release);
        Ok(Box::new(engine))
    }

    fn has_snapshots(&self) -> bool {
        self.has_snapshots.load(Ordering::Acquire)
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

struct ScriptEngine {
    name: String,
    lua: Lua,
    host: Host,
    context: EngineContext,
    has_snapshots: bool,
    /// For each entity, whether its table had no row when the run began, or the store was last rolled back.
    is_empty: LuaTable,
    encoder: EventEncoder,
    /// The chunk that is being handled, and the one behind it.
    packed: Vec<u8>,
    ahead: Vec<u8>,
}

impl ScriptEngine {
    fn new(factory: &ScriptFactory, context: EngineContext) -> Result<Self, LaneError> {
        let libs = StdLib::COROUTINE | StdLib::TABLE | StdLib::STRING | StdLib::UTF8 | StdLib::MATH;
        let lua = new_vm(libs).map_err(bug)?;
        lua.set_memory_limit(context.memory_bytes).map_err(bug)?;
        let host = Host {
            shared: Arc::new(Mutex::new(Shared {
                loader: Some(Loader::new(&context)),
                events: None,
                regions: KnownRegions::default(),
                known: KnownRows::of_tables(&context.is_empty, context.memory_bytes),
                wants: Vec::new(),
                row_bytes: vec![1; context.is_empty.len()],
                questions: Vec::new(),
                sealed: Vec::new(),
                before: Vec::new(),
                unseen: Vec::new(),
                unprojected: Vec::new(),
                unreadable: None,
                store_error: None,
            })),
            inner: Arc::new(OnceLock::new()),
            watch: Arc::clone(&context.watch),
            schema: Arc::clone(&context.schema),
            field_types: Arc::clone(&context.field_types),
            undo_depth: context.undo_depth,
            puts_aside: context.puts_aside,
            memory_bytes: context.memory_bytes,
        };
        let is_empty = lua.create_sequence_from(context.is_empty.iter().copied()).map_err(bug)?;
        let mut engine = Self {
            name: factory.name.clone(),
            lua,
            is_empty,
            host,
            encoder: EventEncoder::new(Arc::clone(&context.field_types)),
            context,
            has_snapshots: false,
            packed: Vec::new(),
            ahead: Vec::new(),
        };
        let loaded = engine.load(&factory.text).map_err(|error| engine.failure(&error))?;
        engine.has_snapshots = loaded.map_err(|message| match message.ends_with(OUT_OF_MEMORY) {
            true => engine.out_of_memory(),
            false => LaneError::Unusable(shortened(message)),
        })?;
        Ok(engine)
    }

    /// Loads the inner side, and the script into it; returns whether it makes snapshots, or what is wrong with it.
    fn load(&mut self, text: &str) -> LuaResult<Result<bool, String>> {
        let table = self.host.table(&self.lua)?;
        let kinds = pieces::kinds_table(&self.lua, &self.host.schema)?;
        let inner = pieces::inner_table(&self.lua, table, kinds, &self.name)?;
        for piece in pieces::PIECES.iter() {
            pieces::load(&self.lua, &inner, piece)?;
        }
        pieces::set_type_metatables(&self.lua, &inner)?;
        // Set once, here.
        let _ = self.host.inner.set(Inner::new(&self.lua, &inner, self.context.memory_bytes)?);
        self.guess()?;
        let (has_snapshots, problem): (Option<bool>, Option<String>) = self.host.inner()?.load_script.call(text)?;
        Ok(has_snapshots.ok_or_else(|| problem.unwrap_or_else(|| "the script cannot be loaded".into())))
    }

    /// Makes the region known inside, if it is not.
    fn know(&self, region: RegionNo, name: &Arc<str>) -> LuaResult<usize> {
        let number = region.index() + 1;
        let is_back = {
            let mut shared = self.host.lock();
            if !shared.regions.know(region, name) {
                return Ok(number);
            }
            shared.regions.was_known(region)
        };
        self.host.inner()?.define_region.call::<()>((number, &**name, &self.is_empty, is_back))?;
        Ok(number)
    }

    /// Goes on with a chunk whose rows have been loaded.
    fn resume_chunk(
        &mut self,
        round: &Arc<Round>,
        chunk: Chunk,
        failed: &mut Vec<FailedEvent>,
    ) -> Result<Step, LaneError> {
        let resumed = self.enter(round, chunk, |engine| engine.host.inner()?.resume.call(chunk.lane + 1));
        self.leave_chunk(round, chunk, resumed, failed)
    }

    /// What came of a call on behalf of a chunk.
    fn leave_chunk(
        &self,
        round: &Arc<Round>,
        chunk: Chunk,
        answer: LuaResult<(i64, LuaValue)>,
        failed: &mut Vec<FailedEvent>,
    ) -> Result<Step, LaneError> {
        let parts = Part::alone(chunk.lane, chunk.base);
        self.leave_or_go_on(round, &parts, answer, failed, |inner| inner.pass_over.call(chunk.lane + 1))
    }

    /// What came of a call on behalf of some events. Where events are put aside, it goes on behind each that fails.
    fn leave_or_go_on(
        &self,
        round: &Arc<Round>,
        parts: &Arc<[Part]>,
        mut answer: LuaResult<(i64, LuaValue)>,
        failed: &mut Vec<FailedEvent>,
        pass_over: impl Fn(&Inner) -> LuaResult<(i64, LuaValue)>,
    ) -> Result<Step, LaneError> {
        loop {
            let puts_aside = self.context.puts_aside && !matches!(&answer, Ok((MISUSED, _)));
            match self.leave(answer) {
                Err(LaneError::Handler { message, place: Place::Event(_), .. }) if puts_aside => {
                    let found = Part::find(parts, self.context.watch.event().max(1));
                    let (lane, at) = found.ok_or_else(|| LaneError::Bug(message.clone()))?;
                    failed.push(FailedEvent { lane, at, error: message });
                }
                step => return step,
            }
            answer = self.enter_parts(round, Arc::clone(parts), |engine| pass_over(engine.host.inner()?));
        }
    }

    /// What becomes of an event that is no JSON object.
    fn refuse(
        &self,
        round: &Round,
        lane: usize,
        NotPacked { at, problem }: NotPacked,
        failed: &mut Vec<FailedEvent>,
    ) -> Result<(), LaneError> {
        if self.context.puts_aside {
            failed.push(FailedEvent { lane, at, error: problem });
            return Ok(());
        }
        let problem = shortened(problem);
        let place = round.place(lane, at).ok_or_else(|| LaneError::Bug(problem.clone()))?;
        Err(LaneError::Event(Box::new(place), problem))
    }

    /// Calls into the VM on behalf of a chunk.
    fn enter<T>(&self, round: &Arc<Round>, chunk: Chunk, call: impl FnOnce(&Self) -> LuaResult<T>) -> LuaResult<T> {
        self.enter_parts(round, Part::alone(chunk.lane, chunk.base), call)
    }

    /// The same on behalf of several lanes.
    fn enter_parts<T>(
        &self,
        round: &Arc<Round>,
        parts: Arc<[Part]>,
        call: impl FnOnce(&Self) -> LuaResult<T>,
    ) -> LuaResult<T> {
        self.host.lock().events = Some((Arc::clone(round), Arc::clone(&parts)));
        self.host.watch.begin(Task::Events { round: Arc::clone(round), parts });
        call(self)
    }

    /// What came of such a call.
    fn leave(&self, answer: LuaResult<(i64, LuaValue)>) -> Result<Step, LaneError> {
        if let Some((place, problem)) = self.host.lock().unreadable.take() {
            return Err(LaneError::Event(place, shortened(problem)));
        }
        let (status, answer) = answer.map_err(|error| self.failure(&error))?;
        let step = step_of(status, answer).map_err(|failure| self.handler_failure(failure))?;
        // A call that waits stays noted: it is named if its rows do not fit.
        if !matches!(step, Step::Missed) {
            self.host.watch.begin(Task::Idle);
        }
        Ok(step)
    }

    /// Runs a lane from a chunk on; returns the chunk that misses rows. While one chunk is being handled the next one is
    /// packed, if another thread has nothing to do. While other lanes are suspended, what their packed events refer to may
    /// not change.
    fn run_chunks(
        &mut self,
        round: &Arc<Round>,
        mut chunk: Chunk,
        mut step: Option<Step>,
        is_alone: bool,
        failed: &mut Vec<FailedEvent>,
    ) -> Result<Option<Chunk>, LaneError> {
        let events = round.lanes.get(chunk.lane).map_or(0, |lane| lane.events.len());
        let mut ahead = None;
        loop {
            match step.take() {
                Some(Step::Missed) => return Ok(Some(chunk)),
                Some(Step::Done(_)) => chunk.base += chunk.count,
                None => {}
            }
            if chunk.base >= events {
                return Ok(None);
            }
            chunk.count = (events - chunk.base).min(CHUNK_EVENTS_MAX);
            if is_alone && self.project().map_err(|error| self.failure(&error))? {
                // It was packed without the fields that come along now.
                ahead = None;
            }
            let packed = match ahead.take() {
                Some(packed) => {
                    std::mem::swap(&mut self.packed, &mut self.ahead);
                    packed
                }
                None => {
                    self.encoder.begin_chunk(is_alone);
                    let packed = pack(&mut self.encoder, round, chunk, &mut self.packed);
                    self.tell_news().map_err(|error| self.failure(&error))?;
                    packed
                }
            };
            if let Err(not_packed) = packed {
                // The chunk ends before that event; or behind it, if it is the first.
                chunk.count = not_packed.at - chunk.base;
                if chunk.count == 0 {
                    self.refuse(round, chunk.lane, not_packed, failed)?;
                    chunk.base += 1;
                    continue;
                }
            }
            let base = chunk.base + chunk.count;
            let next = Chunk { base, count: (events - base).min(CHUNK_EVENTS_MAX), ..chunk };
            let answer = if next.count == 0 {
                self.enter(round, chunk, |engine| engine.run_packed(round, chunk))
            } else {
                let (answer, packed) = self.run_and_pack(round, chunk, next);
                ahead = Some(packed);
                answer
            };
            step = Some(self.leave_chunk(round, chunk, answer, failed)?);
            self.tell_news().map_err(|error| self.failure(&error))?;
        }
    }

    /// Handles a packed chunk, and packs the next one.
    fn run_and_pack(
        &mut self,
        round: &Arc<Round>,
        chunk: Chunk,
        next: Chunk,
    ) -> (LuaResult<(i64, LuaValue)>, Result<(), NotPacked>) {
        let mut encoder = std::mem::take(&mut self.encoder);
        let mut ahead = std::mem::take(&mut self.ahead);
        let both = {
            let engine = &*self;
            // While it waits for the encoder, this thread may work for another engine: that is not this handler's time.
            let run = || {
                let answer = engine.enter(round, chunk, |engine| engine.run_packed(round, chunk));
                (answer, engine.host.watch.pause())
            };
            let mut pack = || {
                encoder.begin_chunk(false);
                pack(&mut encoder, round, next, &mut ahead)
            };
            let ((answer, pause), packed) = match rayon::current_thread_index() {
                Some(_) => rayon::join(run, pack),
                // Not on a pool of ours.
                None => (run(), pack()),
            };
            drop(pause);
            (answer, packed)
        };
        (self.encoder, self.ahead) = (encoder, ahead);
        both
    }

    /// Makes the fields that were asked for on their own come along from now on; false if there are none.
    fn project(&mut self) -> LuaResult<bool> {
        let unprojected = std::mem::take(&mut self.host.lock().unprojected);
        if unprojected.iter().filter(|name| self.encoder.project(name)).count() == 0 {
            return Ok(false);
        }
        self.host.inner()?.define_projection.call::<()>(self.encoder.projected_names())?;
        Ok(true)
    }

    /// Tells the VM what it has to know before the chunk that was packed last.
    fn tell_news(&mut self) -> LuaResult<()> {
        let news = self.encoder.take_news();
        let inner = self.host.inner()?;
        if !news.texts.is_empty() {
            inner.define_texts.call::<()>((inner.supply_text(&news.texts)?, news.first_text))?;
        }
        for shape in news.shapes {
            inner.define_shape.call::<()>((shape.number, self.encoder.projected_names(), shape.kinds))?;
        }
        Ok(())
    }

    fn run_packed(&self, round: &Arc<Round>, chunk: Chunk) -> LuaResult<(i64, LuaValue)> {
        let Some(lane) = round.lanes.get(chunk.lane) else { return Ok((DONE, LuaValue::Nil)) };
        let region = self.know(lane.region, &lane.name)?;
        let inner = self.host.inner()?;
        inner.run.call((chunk.lane + 1, region, chunk.count, inner.supply_text(&self.packed)?))
    }

    /// Loads what has been missed: one query for each table, whatever the number of regions.
    fn supply(&self) -> LuaResult<()> {
        let mut by_entity: BTreeMap<EntityNo, Vec<Want>> = BTreeMap::new();
        for want in std::mem::take(&mut self.host.lock().wants) {
            by_entity.entry(want.entity).or_default().push(want);
        }
        by_entity.values_mut().try_for_each(|wants| self.host.supply(wants))?;
        let questions = std::mem::take(&mut self.host.lock().questions);
        self.host.answer(&questions)
    }

    /// What rows were before blocks, which the inner side has handed out.
    fn take_history(&self) -> Result<Vec<(EntityNo, BeforeImages)>, LaneError> {
        let mut shared = self.host.lock();
        let (before, unseen) = (std::mem::take(&mut shared.before), std::mem::take(&mut shared.unseen));
        let name = |region: RegionNo| {
            let name = shared.regions.name(region).cloned();
            name.ok_or_else(|| LaneError::Bug("the history of a region that is not known".into()))
        };
        let (mut unknown, mut known_absent) = (Vec::new(), Vec::new());
        for unseen in &unseen {
            let (region, entity) = (name(unseen.region)?, unseen.entity);
            let mut absent = Vec::new();
            for (block, id) in unseen.each() {
                match shared.known[entity.index()].may_have(unseen.region, &region, id) {
                    false => push_absent(block, id, &mut absent),
                    true => unknown.push(UnseenWrite { entity, region: Arc::clone(&region), id: id.into(), block }),
                }
            }
            if !absent.is_empty() {
                known_absent.push((entity, BeforeImages { region, entries: absent }));
            }
        }
        let known = before
            .into_iter()
            .map(|part| Ok((part.entity, BeforeImages { region: name(part.region)?, entries: part.packed })));
        let known = known.collect::<Result<Vec<_>, LaneError>>()?;
        let Some(loader) = &mut shared.loader else {
            return Err(LaneError::Bug("the store is being asked already".into()));
        };
        let mut history = read_unseen(loader, &self.host.schema, unknown)?;
        history.extend(known_absent);
        history.extend(known);
        Ok(history)
    }

    /// The error of a handler that failed.
    fn handler_failure(&self, failure: Failure) -> LaneError {
        if let Some(error) = self.host.lock().store_error.take() {
            return error;
        }
        let Failure::Said(message) = failure else { return self.out_of_memory() };
        LaneError::Handler {
            message: quoted_lines(&shortened(message)),
            place: self.context.watch.place(),
            source: None,
        }
    }

    fn out_of_memory(&self) -> LaneError {
        let limit_mib = self.context.memory_bytes >> 20;
        LaneError::Memory { handler: self.name.clone(), limit_mib, place: self.context.watch.place() }
    }

    /// The error of a call across the border.
    fn failure(&self, error: &LuaError) -> LaneError {
        if let Some(error) = self.host.lock().store_error.take() {
            return error;
        }
        match problem_of(error) {
            text if text.ends_with(OUT_OF_MEMORY) => self.out_of_memory(),
            text => LaneError::Bug(shortened(text)),
        }
    }
}

impl Engine for ScriptEngine {
    fn run(&mut self, round: &Arc<Round>, lanes: &[usize]) -> Result<Vec<FailedEvent>, LaneError> {
        let (mut suspended, mut failed) = (Vec::new(), Vec::new());
        self.catch_up().map_err(|error| self.failure(&error))?;
        let mut left = lanes;
        while let Some(lane) = left.first() {
            let small = few_events(round, left);
            if small > 1 {
                left = &left[self.run_few(round, &left[..small], &mut suspended, &mut failed)?..];
                continue;
            }
            let first = Chunk { lane: *lane, base: 0, count: 0 };
            suspended.extend(self.run_chunks(round, first, None, suspended.is_empty(), &mut failed)?);
            left = &left[1..];
        }
        while !suspended.is_empty() {
            self.supply().map_err(|error| self.failure(&error))?;
            let mut still = Vec::new();
            let others = suspended.len() - 1;
            for (at, chunk) in suspended.into_iter().enumerate() {
                let step = self.resume_chunk(round, chunk, &mut failed)?;
                let is_alone = still.is_empty() && at == others;
                still.extend(self.run_chunks(round, chunk, Some(step), is_alone, &mut failed)?);
            }
            suspended = still;
        }
        // The next round may be long in coming.
        self.catch_up().map_err(|error| self.failure(&error))?;
        self.host.lock().events = None;
        Ok(failed)
    }

    fn snapshots(&mut self, regions: &[RegionDue]) -> Result<Vec<Option<String>>, LaneError> {
        self.all_snapshots(regions)
    }

    fn seal(&mut self, undo_floor: Option<BlockNo>) -> Result<SealedRows, LaneError> {
        self.context.watch.begin(Task::Sealing);
        self.host
            .inner()
            .and_then(|inner| inner.seal.call::<()>(undo_floor.map(BlockNo::get)))
            .map_err(|error| self.failure(&error))?;
        let history = self.take_history()?;
        let guesses = self.context.scan.guesses_new();
        let mut shared = self.host.lock();
        let shared = &mut *shared;
        let merged = host::Sealed::merged(std::mem::take(&mut shared.sealed));
        let mut changes = Vec::with_capacity(merged.len());
        for part in merged {
            let region = shared.regions.name(part.region).cloned();
            let region = region.ok_or_else(|| LaneError::Bug("rows of a region that is not known".into()))?;
            let is_new = shared.known[part.entity.index()].is_new(part.region, &region, part.is_sure, guesses);
            let described = &self.host.schema[part.entity];
            let name = Arc::clone(&region);
            changes.push((part.entity, RegionChanges::checked(described, name, part.packed, is_new)?));
        }
        self.context.watch.begin(Task::Idle);
        Ok(SealedRows { changes, history })
    }

    fn forget(&mut self, scan: &Arc<IdScan>) -> Result<(), LaneError> {
        // What the tables hold now is not known any more, until the scan has found it.
        self.context.is_empty = vec![false; self.context.is_empty.len()].into();
        self.context.scan = Arc::clone(scan);
        self.is_empty = self.lua.create_sequence_from(self.context.is_empty.iter().copied()).map_err(bug)?;
        self.host.lock().known.iter_mut().for_each(KnownRows::forget);
        let forgotten = self.host.inner().and_then(|inner| inner.forget.call::<()>(()));
        forgotten.and_then(|()| self.guess()).map_err(|error| self.failure(&error))
    }

    fn begin_batch(&mut self, clock: BatchClock) -> Result<(), LaneError> {
        let started =
            self.host.inner().and_then(|inner| inner.begin_batch.call::<()>((clock.open.get(), clock.committed.get())));
        started.map_err(|error| self.failure(&error))
    }

    fn memory_bytes(&self) -> usize {
        let shared = self.host.lock();
        let known = shared.known.iter().map(KnownRows::memory_bytes).sum::<usize>() + shared.regions.memory_bytes();
        self.lua.used_memory() + self.encoder.memory_bytes() + known
    }

    fn changed_rows(&self) -> u64 {
        // Nothing in it can fail; and if it did, batches would only be smaller.
        self.host.inner().and_then(|inner| inner.changed_rows.call(())).unwrap_or(u64::MAX)
    }

    fn trim(&mut self, target: usize) -> Result<(), LaneError> {
        self.encoder.forget();
        let collect = || self.lua.gc_collect().map_err(|error| self.failure(&error));
        collect()?;
        // The first sweep makes the rows old, the second evicts those that nobody asked for in between; when memory
        // is short there is no in between.
        for _ in 0..2 {
            if self.memory_bytes() <= target {
                return Ok(());
            }
            let gone: u64 =
                self.host.inner().and_then(|inner| inner.sweep.call(())).map_err(|error| self.failure(&error))?;
            // A collection goes through all that is there, so there has to be something to be had.
            if gone > 0 {
                collect()?;
            }
        }
        Ok(())
    }

    fn set_memory(&mut self, memory_bytes: usize) -> Result<(), LaneError> {
        if memory_bytes > self.context.memory_bytes {
            self.lua.set_memory_limit(memory_bytes).map_err(bug)?;
            self.host.inner().map_err(|error| self.failure(&error))?.set_memory(memory_bytes);
            self.context.memory_bytes = memory_bytes;
        }
        Ok(())
    }
}

fn new_vm(libs: StdLib) -> LuaResult<Lua> {
    Lua::new_with(libs, LuaOptions::default())
}

fn bug(error: LuaError) -> LaneError {
    LaneError::Bug(error.to_string())
}
