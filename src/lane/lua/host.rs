//! The functions of the host that the inner side (the Lua files) calls.
//!
//! They answer a bad value with nil and a message, so that the inner side can name the script's line.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mlua::debug::Debug;
use mlua::prelude::*;

use super::bytecode::check;
use super::crossing::{OUT_OF_MEMORY, each_id, is_out_of_memory, numbers, problem_of, split_ids, take_id};
use super::dry::dry_functions;
use super::encoder::{integer, lossy, raw_field};
use super::inner::Inner;
use super::json::{has_float, object_to_lua, to_lua};
use super::json_out;
use super::question::Question;
use super::regions::KnownRegions;
use crate::lane::loader::{FoundRows, Loaded};
use crate::lane::watch::{Part, Watch};
use crate::lane::{Ask, LaneError, Loader, Place, Round, Wanted};
use crate::model::event::EventPlace;
use crate::model::field_type::{FieldTypes, TimeUnit};
use crate::model::ids::{BlockNo, Depth, EntityNo, RegionNo};
use crate::model::json_text::{float_digits, float_of, shortest_in_lua, whole_characters};
use crate::model::limits::{FIND_MEMORY_PART, LOADED_MEMORY_PART};
use crate::model::numeric::{Numeric, NumericError};
use crate::model::schema::Schema;
use crate::model::text::quoted_lines;
use crate::model::timestamp::Timestamp;
use crate::model::value::ColumnType;
use crate::rows::codec::{Change, RowHead, Writer, encode_values};
use crate::rows::existence::KnownRows;
use crate::store::RegionCount;

/// How far down the stack the script's own line is looked for.
const STACK_LEVELS_MAX: usize = 40;

/// Rows that the inner side asked for.
pub(super) struct Want {
    pub(super) entity: EntityNo,
    pub(super) region: RegionNo,
    pub(super) ask: Ask,
    /// The ids, each behind its length of 4 bytes.
    pub(super) ids: Vec<u8>,
    /// Whether a call that counts waits for them: what only dry runs ask for is left out where memory is short.
    pub(super) is_sure: bool,
}

impl Want {
    /// Bytes of a row that was found, on average.
    fn row_bytes(&self, found: &Loaded) -> usize {
        found.packed.len() / each_id(&self.ids).count().max(1)
    }

    /// Asks for no more rows than `fit`; returns how many it asks for.
    fn leave_out_behind(&mut self, fit: usize) -> usize {
        let (mut rest, mut kept) = (&self.ids[..], 0);
        while kept < fit && take_id(&mut rest).is_some() {
            kept += 1;
        }
        self.ids.truncate(self.ids.len() - rest.len());
        kept
    }
}

/// Changed rows that the inner side hands out.
pub(super) struct Sealed {
    pub(super) entity: EntityNo,
    pub(super) region: RegionNo,
    pub(super) packed: Vec<u8>,
    /// Whether `Change::New` can be trusted without consulting the existence filter.
    pub(super) is_sure: bool,
}

impl Sealed {
    /// Takes apart the rows of several tables that lie one behind the other. A head is the numbers of table and region, 4
    /// bytes each, a byte that says whether all of the table is cached, and how many bytes its rows take.
    fn split(heads: &[u8], mut packed: &[u8], sealed: &mut Vec<Self>) -> LuaResult<()> {
        let broken = || LuaError::runtime("the rows of a batch break off");
        for head in heads.chunks(13) {
            let [a, b, c, d, e, f, g, h, is_sure, len @ ..] = *<&[u8; 13]>::try_from(head).map_err(|_| broken())?;
            let number = |bytes: [u8; 4]| u32::from_le_bytes(bytes) as usize;
            let (entity, region) = numbers(number([a, b, c, d]), number([e, f, g, h]));
            let (rows, rest) = packed.split_at_checked(number(len)).ok_or_else(broken)?;
            sealed.push(Self { entity, region, packed: rows.to_vec(), is_sure: is_sure != 0 });
            packed = rest;
        }
        if packed.is_empty() { Ok(()) } else { Err(broken()) }
    }

    /// Puts together the parts of each table, which follow on each other. Nothing is kept free: there may be much of it.
    pub(super) fn merged(parts: Vec<Self>) -> Vec<Self> {
        let table = |part: &Self| (part.entity, part.region, part.is_sure);
        let bytes_of = |parts: &[Self]| parts.iter().map(|part| part.packed.len()).sum::<usize>();
        let bytes: Vec<usize> = parts.chunk_by(|a, b| table(a) == table(b)).map(bytes_of).collect();
        let (mut merged, mut bytes) = (Vec::<Self>::with_capacity(bytes.len()), bytes.into_iter());
        for part in parts {
            match merged.last_mut() {
                Some(last) if table(last) == table(&part) => last.packed.extend(part.packed),
                _ => {
                    let mut packed = part.packed;
                    packed.reserve_exact(bytes.next().unwrap_or(0).saturating_sub(packed.len()));
                    merged.push(Self { packed, ..part });
                }
            }
        }
        merged
    }
}

/// Ids of rows that were written without being read, each after the block and its length of 4 bytes.
pub(super) struct Unseen {
    pub(super) entity: EntityNo,
    pub(super) region: RegionNo,
    pub(super) packed: Vec<u8>,
}

impl Unseen {
    /// The blocks and ids.
    pub(super) fn each(&self) -> impl Iterator<Item = (BlockNo, &str)> {
        let mut packed = self.packed.as_slice();
        std::iter::from_fn(move || {
            let (block, rest) = packed.split_first_chunk::<8>()?;
            packed = rest;
            Some((BlockNo::new(i64::from_le_bytes(*block)), take_id(&mut packed)?))
        })
    }
}

/// What the host's functions share with the engine.
pub(super) struct Shared {
    /// Taken out while it waits for the store.
    pub(super) loader: Option<Loader>,
    /// The events that are being handled.
    pub(super) events: Option<(Arc<Round>, Arc<[Part]>)>,
    pub(super) regions: KnownRegions,
    /// Which rows each table may have.
    pub(super) known: Vec<KnownRows>,
    pub(super) wants: Vec<Want>,
    /// How many bytes the rows of each table took, packed, that came last: at least one.
    pub(super) row_bytes: Vec<usize>,
    pub(super) questions: Vec<Question>,
    pub(super) sealed: Vec<Sealed>,
    /// Before-images: entries of the undo log.
    pub(super) before: Vec<Sealed>,
    pub(super) unseen: Vec<Unseen>,
    /// Fields that handlers asked for and that were not projected.
    pub(super) unprojected: Vec<String>,
    /// The first event that holds what cannot be read, and what that is.
    pub(super) unreadable: Option<(Box<EventPlace>, String)>,
    /// What the store said when it was asked from within a handler.
    pub(super) store_error: Option<LaneError>,
}

/// Shared by the engine and the functions it gave to the VM; never locked while a script runs.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) shared: Arc<Mutex<Shared>>,
    /// Set once the inner side is there.
    pub(super) inner: Arc<OnceLock<Inner>>,
    pub(super) watch: Arc<Watch>,
    pub(super) schema: Arc<Schema>,
    pub(super) field_types: Arc<FieldTypes>,
    /// How many blocks back before-images are kept.
    pub(super) undo_depth: Depth,
    /// Whether a call that fails is taken back, and its event put aside.
    pub(super) puts_aside: bool,
    /// What the VM may use at most.
    pub(super) memory_bytes: usize,
}

impl Host {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inner(&self) -> LuaResult<&Inner> {
        self.inner.get().ok_or_else(|| LuaError::runtime("the inner side is not there yet"))
    }

    /// What comes of the JSON of the event that is being handled.
    fn of_current_json<T>(&self, take: impl FnOnce(&str) -> T) -> Option<T> {
        let (round, parts) = self.lock().events.clone()?;
        let (lane, at) = Part::find(&parts, self.watch.event())?;
        let (event, page) = round.event(lane, at)?;
        Some(take(page.json(event)))
    }

    /// A field of an event, or what is wrong with it.
    fn read_field(&self, lua: &Lua, json: &str, name: &str) -> LuaResult<(LuaValue, Option<String>)> {
        let json = whole_characters(json);
        Ok(match raw_field(&json, name) {
            Ok(None | Some("null")) => (LuaValue::Nil, None),
            Ok(Some(raw)) => match answer(to_lua(lua, self.inner()?, raw, self.field_types.of(name)), LuaValue::Nil)? {
                // A text that its type reads as null.
                (value, problem) if value == LuaValue::NULL => (LuaValue::Nil, problem),
                read => read,
            },
            Err(problem) => (LuaValue::Nil, Some(problem)),
        })
    }

    /// The table of all functions.
    pub(super) fn table(&self, lua: &Lua) -> LuaResult<LuaTable> {
        let table = lua.create_table()?;
        table.raw_set("column_types", ColumnType::ALL.map(ColumnType::name))?;
        table.raw_set("undo_depth", i64::try_from(self.undo_depth.get()).unwrap_or(i64::MAX))?;
        table.raw_set("puts_aside", self.puts_aside)?;
        table.raw_set("memory_bytes", i64::try_from(self.memory_bytes).unwrap_or(i64::MAX))?;
        let watch = Arc::clone(&self.watch);
        table.raw_set(
            "tick",
            lua.create_function(move |_, event: u64| {
                watch.tick(event);
                Ok(())
            })?,
        )?;
        table.raw_set("place", lua.create_function(|lua, ()| Ok(script_place(lua)))?)?;
        dry_functions(lua, &table, &self.watch)?;
        self.event_functions(lua, &table)?;
        self.value_functions(lua, &table)?;
        numeric_functions(lua, &table)?;
        self.row_functions(lua, &table)?;
        self.batch_functions(lua, &table)?;
        Ok(table)
    }

    fn event_functions(&self, lua: &Lua, table: &LuaTable) -> LuaResult<()> {
        let host = self.clone();
        let field = move |lua: &Lua, (name, counts): (LuaString, bool)| {
            let name = lossy(&name.as_bytes()).into_owned();
            let found = host.of_current_json(|json| host.read_field(lua, json, &name));
            let Some(found) = found else { return Ok((LuaValue::Nil, None)) };
            let value = found?;
            match &value.1 {
                // What is not of its type names its field, which may lie deeper.
                Some(problem) if counts && problem.starts_with("field ") => host.note_unreadable(problem.clone()),
                Some(problem) if counts => host.note_unreadable(format!("field {name:?}: {problem}")),
                Some(_) => {}
                None => host.lock().unprojected.push(name),
            }
            Ok(value)
        };
        table.raw_set("field", lua.create_function(field)?)?;
        let host = self.clone();
        let all_fields = move |lua: &Lua, counts: bool| {
            let read = |json: &str| answer(object_to_lua(lua, host.inner()?, json, &host.field_types).map(Some), None);
            let fields = host.of_current_json(read).unwrap_or(Ok((None, None)))?;
            if let Some(problem) = fields.1.as_ref().filter(|_| counts) {
                host.note_unreadable(problem.clone());
            }
            Ok(fields)
        };
        table.raw_set("all_fields", lua.create_function(all_fields)?)?;
        let host = self.clone();
        let is_given = move |_: &Lua, value: f64| {
            Ok(host.of_current_json(|json| has_float(json, &host.field_types, value)).unwrap_or(false))
        };
        table.raw_set("is_given", lua.create_function(is_given)?)?;
        script_functions(lua, table)
    }

    /// Notes that the current event cannot be read: the run ends for it, whatever the handler does.
    fn note_unreadable(&self, problem: String) {
        if self.puts_aside {
            // The inner side refuses the event itself, and goes on.
            return;
        }
        if let Place::Event(place) = self.watch.place() {
            self.lock().unreadable.get_or_insert((place, problem));
        }
    }

    fn value_functions(&self, lua: &Lua, table: &LuaTable) -> LuaResult<()> {
        let host = self.clone();
        table.raw_set(
            "decode",
            lua.create_function(move |lua, (json, field): (LuaString, Option<LuaString>)| {
                let tree = field.and_then(|field| host.field_types.of(&lossy(&field.as_bytes())));
                let (json, inner) = (json.as_bytes(), host.inner()?);
                let json = lossy(&json);
                answer(to_lua(lua, inner, &json, tree), LuaValue::Nil)
            })?,
        )?;
        let host = self.clone();
        table.raw_set(
            "encode",
            lua.create_function(move |_, value: LuaValue| match json_out::column(host.inner()?, &value) {
                Ok(json) => Ok((Some(json), None)),
                Err(fault) if fault.is_out_of_memory() => Err(LuaError::MemoryError(OUT_OF_MEMORY.into())),
                Err(fault) => Ok((None, Some(fault.text()))),
            })?,
        )?;
        table.raw_set(
            "time",
            lua.create_function(|_, text: LuaString| {
                Ok(match lossy(&text.as_bytes()).parse::<Timestamp>() {
                    Ok(time) => (Some(time.to_string()), None),
                    Err(error) => (None, error.reason()),
                })
            })?,
        )?;
        table.raw_set(
            "time_since_1970",
            lua.create_function(|_, (number, unit): (LuaString, LuaString)| {
                let unit = TimeUnit::from_name(&lossy(&unit.as_bytes()));
                let number = lossy(&number.as_bytes()).parse::<Numeric>().ok();
                Ok(unit.zip(number).and_then(|(unit, number)| unit.time(&number)).map(|time| time.to_string()))
            })?,
        )?;
        table.raw_set("integer", lua.create_function(|_, text: LuaString| Ok(integer(&lossy(&text.as_bytes()))))?)?;
        table.raw_set(
            "nearest",
            lua.create_function(|_, (name, known): (LuaString, Vec<String>)| {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                Ok(crate::model::text::nearest(&lossy(&name.as_bytes()), &known))
            })?,
        )?;
        table.raw_set(
            "print",
            lua.create_function(|_, text: LuaString| {
                tracing::info!(target: "script", "{}", quoted_lines(&lossy(&text.as_bytes())));
                Ok(())
            })?,
        )
    }

    /// What the inner side hands out at the end of a batch.
    fn batch_functions(&self, lua: &Lua, table: &LuaTable) -> LuaResult<()> {
        let host = self.clone();
        let sealed = move |_: &Lua, (heads, packed): (LuaString, LuaString)| {
            Sealed::split(&heads.as_bytes(), &packed.as_bytes(), &mut host.lock().sealed)
        };
        table.raw_set("sealed", lua.create_function(sealed)?)?;
        let host = self.clone();
        let before = move |_: &Lua, (kind, region, packed): (usize, usize, LuaString)| {
            let (entity, region) = numbers(kind, region);
            let packed = packed.as_bytes().to_vec();
            host.lock().before.push(Sealed { entity, region, packed, is_sure: true });
            Ok(())
        };
        table.raw_set("before", lua.create_function(before)?)?;
        let host = self.clone();
        let unseen = move |_: &Lua, (kind, region, packed): (usize, usize, LuaString)| {
            let (entity, region) = numbers(kind, region);
            let packed = packed.as_bytes().to_vec();
            host.lock().unseen.push(Unseen { entity, region, packed });
            Ok(())
        };
        table.raw_set("unseen", lua.create_function(unseen)?)
    }

    fn row_functions(&self, lua: &Lua, table: &LuaTable) -> LuaResult<()> {
        let host = self.clone();
        let want = move |_: &Lua, (kind, region, untried, sure, maybe): (usize, usize, bool, LuaString, LuaString)| {
            let (entity, region) = numbers(kind, region);
            let (sure, maybe) = (sure.as_bytes().to_vec(), maybe.as_bytes().to_vec());
            let mut ask = if untried { Ask::TryAll } else { Ask::AllIfWorth };
            let wants = &mut host.lock().wants;
            if !sure.is_empty() || maybe.is_empty() {
                wants.push(Want { entity, region, ask, ids: sure, is_sure: true });
                // It is tried whole once.
                ask = Ask::AllIfWorth;
            }
            if !maybe.is_empty() {
                wants.push(Want { entity, region, ask, ids: maybe, is_sure: false });
            }
            Ok(())
        };
        table.raw_set("want", lua.create_function(want)?)?;
        let host = self.clone();
        let is_absent = move |_: &Lua, (kind, region, id): (usize, usize, LuaString)| {
            let (entity, region) = numbers(kind, region);
            let shared = host.lock();
            let Some(name) = shared.regions.name(region) else { return Ok(false) };
            let known = shared.known.get(entity.index());
            Ok(known.is_some_and(|known| !known.may_have(region, name, &lossy(&id.as_bytes()))))
        };
        table.raw_set("is_absent", lua.create_function(is_absent)?)?;
        let host = self.clone();
        let forget_region = move |_: &Lua, region: usize| {
            host.lock().regions.forget(RegionNo::at(region - 1));
            Ok(())
        };
        table.raw_set("forget_region", lua.create_function(forget_region)?)?;
        let host = self.clone();
        let want_answer = move |lua: &Lua, given: LuaMultiValue| {
            let question = Question::new(&host.schema, given, lua)?;
            host.lock().questions.push(question);
            Ok(())
        };
        table.raw_set("want_answer", lua.create_function(want_answer)?)?;
        let host = self.clone();
        let ask = move |lua: &Lua, given: LuaMultiValue| {
            let question = Question::new(&host.schema, given, lua)?;
            host.answer(std::slice::from_ref(&question))
        };
        table.raw_set("ask", lua.create_function(ask)?)?;
        let host = self.clone();
        let load = move |_: &Lua, (kind, region, id, untried): (usize, usize, Option<LuaString>, bool)| {
            let (entity, region) = numbers(kind, region);
            let ids = id.as_ref().map_or_else(Vec::new, |id| {
                let id = id.as_bytes();
                [&u32::try_from(id.len()).unwrap_or(u32::MAX).to_le_bytes()[..], &id[..]].concat()
            });
            let ask = if untried { Ask::TryAll } else { Ask::AllIfWorth };
            host.supply(&mut [Want { entity, region, ask, ids, is_sure: true }])
        };
        table.raw_set("load", lua.create_function(load)?)
    }

    /// Loads the rows of one table that are wanted and gives them to the inner side.
    pub(super) fn supply(&self, wants: &mut [Want]) -> LuaResult<()> {
        let Some(entity) = wants.first().map(|want| want.entity) else { return Ok(()) };
        let inner = self.inner()?;
        let row_bytes = self.lock().row_bytes[entity.index()];
        let mut fit = inner.memory_left() / LOADED_MEMORY_PART / row_bytes;
        for want in wants.iter_mut().filter(|want| !want.is_sure) {
            fit -= want.leave_out_behind(fit);
        }
        let loaded = self.ask_store(|loader, regions| {
            let mut wanted = Vec::with_capacity(wants.len());
            for want in &*wants {
                let region = regions.name(want.region).map_or("", |name| &**name);
                wanted.push(Wanted { region, ids: split_ids(&want.ids), ask: want.ask });
            }
            loader.load(entity, &wanted).map_err(LaneError::from)
        })?;
        let by_ids = wants.iter().zip(&loaded).filter(|(_, loaded)| !loaded.is_whole);
        if let Some(bytes) = by_ids.map(|(want, loaded)| want.row_bytes(loaded)).max() {
            self.lock().row_bytes[entity.index()] = bytes.max(1);
        }
        let (sure, maybe): (Vec<_>, Vec<_>) = wants.iter().zip(loaded).partition(|(want, _)| want.is_sure);
        for (want, loaded) in sure.into_iter().chain(maybe) {
            if !want.is_sure && loaded.packed.len() > inner.memory_left() / LOADED_MEMORY_PART {
                continue;
            }
            let rows = inner.supply_text(&loaded.packed)?;
            let ids = inner.supply_text(&want.ids)?;
            inner.supply.call::<()>((entity.index() + 1, want.region.index() + 1, rows, loaded.is_whole, ids))?;
        }
        Ok(())
    }

    /// Asks the store the pending queries, all of one table together, and gives the answers to the inner side.
    pub(super) fn answer(&self, questions: &[Question]) -> LuaResult<()> {
        let inner = self.inner()?;
        let mut by_entity: BTreeMap<EntityNo, Vec<&Question>> = BTreeMap::new();
        let mut counts: BTreeMap<EntityNo, Vec<(&Question, Vec<&str>)>> = BTreeMap::new();
        for question in questions {
            match question.but() {
                Some(but) => counts.entry(question.entity).or_default().push((question, but)),
                None => by_entity.entry(question.entity).or_default().push(question),
            }
        }
        for (entity, questions) in counts {
            let counts = self.ask_store(|loader, regions| {
                let mut wanted = Vec::with_capacity(questions.len());
                for (question, but) in &questions {
                    wanted.push(RegionCount::new(question.of(regions), but));
                }
                loader.counts(entity, &wanted).map_err(LaneError::from)
            })?;
            for ((question, _), count) in questions.into_iter().zip(counts) {
                inner.supply_found.call::<()>((question.number, inner.supply_text(&[])?, count, true))?;
            }
        }
        for (entity, questions) in by_entity {
            let bytes_max = inner.memory_left() / FIND_MEMORY_PART;
            let found = self.ask_store(|loader, regions| {
                let wanted: Vec<_> = questions.iter().map(|question| question.of(regions)).collect();
                loader.find(&self.schema, entity, &wanted, bytes_max)
            })?;
            let described = &self.schema[entity];
            for (question, FoundRows { rows, is_complete, too_much }) in questions.into_iter().zip(found) {
                // What only a dry run looks for may never be asked in its order: then it has found nothing yet.
                if let Some(error) = too_much.filter(|_| question.is_sure) {
                    let message = error.to_string();
                    self.lock().store_error = Some(error);
                    return Err(LuaError::runtime(message));
                }
                let mut packed = Vec::new();
                for (id, row) in &rows {
                    let head = RowHead { id, change: Change::Written, writer: Writer::default() };
                    encode_values(described, head, row, &mut packed);
                }
                let packed = inner.supply_text(&packed)?;
                inner.supply_found.call::<()>((question.number, packed, rows.len(), is_complete))?;
            }
        }
        Ok(())
    }

    /// Asks the store through the loader, which is ours alone meanwhile. Its error is kept for the run.
    fn ask_store<T>(&self, ask: impl FnOnce(&mut Loader, &KnownRegions) -> Result<T, LaneError>) -> LuaResult<T> {
        let (loader, regions) = {
            let mut shared = self.lock();
            (shared.loader.take(), std::mem::take(&mut shared.regions))
        };
        let Some(mut loader) = loader else { return Err(LuaError::runtime("the store is being asked already")) };
        let answer = ask(&mut loader, &regions);
        let mut shared = self.lock();
        shared.loader = Some(loader);
        shared.regions = regions;
        answer.map_err(|error| {
            let message = error.to_string();
            shared.store_error = Some(error);
            LuaError::runtime(message)
        })
    }
}

/// A value, or in its place `none` and what is wrong. Memory that is used up is an error.
fn answer<T>(result: LuaResult<T>, none: T) -> LuaResult<(T, Option<String>)> {
    match result {
        Ok(value) => Ok((value, None)),
        Err(error) if is_out_of_memory(&error) => Err(error),
        Err(error) => Ok((none, Some(problem_of(&error)))),
    }
}

/// The line that a function of the script is at, as it stands before an error: `handlers.lua:7: `. None for other
/// functions.
fn place_of(frame: &Debug<'_>) -> Option<String> {
    let source = frame.source();
    let is_script = source.source.as_deref().is_some_and(|name| name.starts_with('@'));
    is_script
        .then(|| format!("{}:{}: ", source.short_src.as_deref().unwrap_or("script"), frame.current_line().unwrap_or(0)))
}

/// The line of the script that is being run.
fn script_place(lua: &Lua) -> String {
    for level in 1..STACK_LEVELS_MAX {
        match lua.inspect_stack(level, place_of) {
            Some(Some(place)) => return place,
            Some(None) => {}
            None => break,
        }
    }
    String::new()
}

/// The place of the function that raises an error, or of one that called it: level 1 is the one that called `error`, as Lua
/// counts. Empty for a function of the library.
fn place_at(lua: &Lua, level: usize) -> String {
    /// Pieces that Lua calls where a script has an operator: they are no function of a script's world.
    const OPERATORS: [&str; 3] = ["=inner:arithmetic", "=inner:frozen", "=inner:numeric"];
    let (mut passed, mut is_in_library) = (0, false);
    // This function and `error` come first.
    for at in 2..STACK_LEVELS_MAX {
        let frame = lua.inspect_stack(at, |frame| {
            let is_operator = frame.source().source.is_some_and(|name| OPERATORS.contains(&&*name));
            (place_of(frame), is_operator)
        });
        match frame {
            Some((Some(place), _)) => {
                // All functions of the library between two of the script are one to the script.
                passed += 1 + usize::from(std::mem::take(&mut is_in_library));
                if passed >= level {
                    return if passed == level { place } else { String::new() };
                }
            }
            Some((None, is_operator)) => is_in_library |= !is_operator,
            None => break,
        }
    }
    String::new()
}

/// Whether the error that is being looked at was raised by a call of one of these functions: asked by `protected.lua`.
fn raised_by(lua: &Lua, raisers: &[LuaFunction]) -> bool {
    for level in 1..STACK_LEVELS_MAX {
        let raiser = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let is_asking = source.source.as_deref() == Some("=inner:protected");
            (!is_asking).then(|| raisers.contains(&frame.function()))
        });
        match raiser {
            Some(None) => {}
            Some(Some(is_raiser)) => return is_raiser,
            None => break,
        }
    }
    false
}

/// What loads a script, and looks at what it has made.
pub(super) fn script_functions(lua: &Lua, table: &LuaTable) -> LuaResult<()> {
    table.raw_set("metatable", lua.create_function(|_, table: LuaTable| Ok(table.metatable()))?)?;
    let set_metatable = |_: &Lua, (table, meta): (LuaTable, LuaTable)| table.set_metatable(Some(meta));
    table.raw_set("set_metatable", lua.create_function(set_metatable)?)?;
    let is_of_script =
        |_: &Lua, function: LuaFunction| Ok(function.info().source.is_some_and(|source| source.starts_with('@')));
    table.raw_set("is_of_script", lua.create_function(is_of_script)?)?;
    let raisers: [LuaFunction; 2] = [lua.globals().get("error")?, lua.globals().get("assert")?];
    table.raw_set("place_at", lua.create_function(|lua, level: usize| Ok(place_at(lua, level)))?)?;
    let is_raised = move |lua: &Lua, ()| Ok(raised_by(lua, &raisers));
    table.raw_set("is_raised", lua.create_function(is_raised)?)?;
    let checked = |lua: &Lua, code: LuaString| match check(&code.as_bytes()) {
        Ok(code) => Ok((Some(lua.create_string(&code)?), None)),
        Err(problem) => Ok((None, Some(problem))),
    };
    table.raw_set("checked", lua.create_function(checked)?)
}

/// A value, or what is wrong with it, which the inner side raises.
fn told<T>(result: Result<T, NumericError>) -> (Option<T>, Option<String>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(error.to_string())),
    }
}

pub(super) fn numeric_functions(lua: &Lua, table: &LuaTable) -> LuaResult<()> {
    let answer = |number: Result<Numeric, NumericError>| {
        Ok(told(number.and_then(Numeric::checked_len).map(|number| number.to_string())))
    };
    table.raw_set(
        "numeric_text",
        lua.create_function(move |_, text: LuaString| answer(lossy(&text.as_bytes()).parse()))?,
    )?;
    let of_float = move |_: &Lua, value: f64| {
        let (text, problem) = answer(Numeric::from_f64(value))?;
        Ok((text, problem, float_digits(value)))
    };
    table.raw_set("numeric_float", lua.create_function(of_float)?)?;
    table.raw_set("float_text", lua.create_function(|_, value: f64| Ok(shortest_in_lua(value)))?)?;
    table.raw_set("null", LuaValue::NULL)?;
    table.raw_set("integer", lua.create_function(|_, text: LuaString| Ok(integer(&lossy(&text.as_bytes()))))?)?;
    table.raw_set("float_of", lua.create_function(|_, text: LuaString| Ok(float_of(&lossy(&text.as_bytes()))))?)?;
    table.raw_set(
        "numeric_fixed",
        lua.create_function(|_, (text, digits): (LuaString, u16)| {
            let number = lossy(&text.as_bytes()).parse::<Numeric>();
            Ok(told(number.map(|number| number.to_fixed(digits))))
        })?,
    )?;
    table.raw_set(
        "numeric_fits",
        lua.create_function(|_, text: LuaString| {
            Ok(lossy(&text.as_bytes()).parse::<Numeric>().err().map(|error| error.to_string()))
        })?,
    )?;
    table.raw_set(
        "numeric_compare",
        lua.create_function(|_, (a, b): (LuaString, LuaString)| {
            let number = |text: &LuaString| lossy(&text.as_bytes()).parse::<Numeric>();
            Ok(told(number(&a).and_then(|a| number(&b).map(|b| a.cmp(&b) as i64))))
        })?,
    )?;
    let operate = move |_: &Lua, (operation, a, b): (LuaString, LuaString, LuaString)| {
        let number = |text: &LuaString| lossy(&text.as_bytes()).parse::<Numeric>();
        answer(number(&a).and_then(|a| {
            number(&b).and_then(|b| match &operation.as_bytes()[..] {
                b"+" => Ok(&a + &b),
                b"-" => Ok(&a - &b),
                b"*" => Ok(&a * &b),
                b"/" => a.checked_div(&b),
                b"//" => a.checked_floor_div(&b),
                _ => a.checked_rem(&b),
            })
        }))
    };
    table.raw_set("numeric_op", lua.create_function(operate)?)
}
